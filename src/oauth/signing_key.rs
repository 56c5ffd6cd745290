//! Keys of ours: what we sign with toward others, ES256, which every server that offers such a thing offers.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use zeroize::Zeroizing;

use super::key::PublicKey;

/// A P-256 key pair. Its `kid` is its thumbprint.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

/// The bytes are not a key of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a P-256 private key in PKCS#8")]
pub struct NotAKey;

impl SigningKey {
    /// A new key. Its chance is the cryptographic library's own.
    pub fn generate() -> Self {
        Self::of(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("the library makes a key of its own curve"))
    }

    /// From PKCS#8, as it is sealed.
    pub fn from_der(der: &[u8]) -> Result<Self, NotAKey> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map(Self::of).map_err(|_| NotAKey)
    }

    /// PKCS#8, to be sealed.
    pub fn to_der(&self) -> Zeroizing<Vec<u8>> {
        let der = self.pair.to_pkcs8v1().expect("a key pair has a private part");
        Zeroizing::new(der.as_ref().to_vec())
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// A signed text of this header and these claims, both JSON.
    pub fn sign(&self, header: &str, claims: &str) -> String {
        let mut text = String::with_capacity((header.len() + claims.len()) * 4 / 3 + 96);
        URL_SAFE_NO_PAD.encode_string(header, &mut text);
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut text);
        let signature = self.pair.sign(&SystemRandom::new(), text.as_bytes()).expect("a P-256 key signs any text");
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        text
    }

    fn of(pair: EcdsaKeyPair) -> Self {
        let point = pair.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap_or_default().split_at(32);
        let jwk = json!({ "kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y) });
        let mut public = PublicKey::from_jwk(&jwk).expect("the point of a P-256 key");
        public.key_id = Some(public.thumbprint().to_string());
        Self { pair, public }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("thumbprint", &self.public.thumbprint()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::jws::Unverified;

    #[test]
    fn a_key_that_was_kept_signs_as_before_and_shows_nothing() {
        let key = SigningKey::generate();
        let kept = SigningKey::from_der(&key.to_der()).expect("its own form");
        let text = kept.sign(r#"{"alg":"ES256"}"#, "{}");
        assert!(Unverified::read(&text).expect("well formed").verify([key.public()].into_iter()).is_ok());
        assert_eq!(key.public(), kept.public());
        assert_eq!(format!("{key:?}"), format!("SigningKey {{ thumbprint: {}, .. }}", key.public().thumbprint()));
        assert!(SigningKey::from_der(b"x").is_err());
    }
}
