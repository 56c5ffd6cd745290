//! Keys of ours: what we sign with toward others. ES256, which every server that offers such a thing offers, or EdDSA where one offers
//! nothing else that we do.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use zeroize::Zeroizing;

use super::key::{Algorithm, PublicKey};

/// A key pair. Its `kid` is its thumbprint.
pub struct SigningKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// The bytes are not a key of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a P-256 or Ed25519 private key in PKCS#8")]
pub struct NotAKey;

impl SigningKey {
    /// A new key for ES256. Its chance is the cryptographic library's own.
    pub fn generate() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("the library makes a key of its own curve");
        Self::of(Pair::P256(pair))
    }

    /// A new key for EdDSA.
    pub fn generate_ed25519() -> Self {
        Self::of(Pair::Ed25519(Ed25519KeyPair::generate().expect("the library makes a key of its own curve")))
    }

    /// A new key for a server that takes signatures by `algorithms`; none given are taken for ES256.
    pub fn generate_for(algorithms: &[String]) -> Self {
        if is_signed_for(algorithms, Algorithm::EdDsa) && !is_signed_for(algorithms, Algorithm::Es256) {
            Self::generate_ed25519()
        } else {
            Self::generate()
        }
    }

    /// Whether a key can be made for a server that takes signatures by `algorithms`.
    pub fn is_for(algorithms: &[String]) -> bool {
        is_signed_for(algorithms, Algorithm::Es256) || is_signed_for(algorithms, Algorithm::EdDsa)
    }

    /// From PKCS#8, as it is sealed.
    pub fn from_der(der: &[u8]) -> Result<Self, NotAKey> {
        let p256 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map(Pair::P256);
        p256.or_else(|_| Ed25519KeyPair::from_pkcs8(der).map(Pair::Ed25519)).map(Self::of).map_err(|_| NotAKey)
    }

    /// PKCS#8, to be sealed.
    pub fn to_der(&self) -> Zeroizing<Vec<u8>> {
        let der = match &self.pair {
            Pair::P256(pair) => pair.to_pkcs8v1(),
            Pair::Ed25519(pair) => pair.to_pkcs8v1(),
        };
        Zeroizing::new(der.expect("a key pair has a private part").as_ref().to_vec())
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
        let signature = match &self.pair {
            Pair::P256(pair) => pair.sign(&SystemRandom::new(), text.as_bytes()).expect("a P-256 key signs any text"),
            Pair::Ed25519(pair) => pair.sign(text.as_bytes()),
        };
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        text
    }

    fn of(pair: Pair) -> Self {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwk = match &pair {
            Pair::P256(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = point.get(1..).unwrap_or_default().split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) })
            }
            Pair::Ed25519(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref()) }),
        };
        let mut public = PublicKey::from_jwk(&jwk).expect("the public half of a key that was made");
        public.key_id = Some(public.thumbprint().to_string());
        Self { pair, public }
    }
}

/// Whether `algorithms`, as metadata name them, has one that `algorithm` is.
fn is_signed_for(algorithms: &[String], algorithm: Algorithm) -> bool {
    algorithms.iter().any(|name| Algorithm::from_name(name) == Some(algorithm))
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
        for key in [SigningKey::generate(), SigningKey::generate_ed25519()] {
            let kept = SigningKey::from_der(&key.to_der()).expect("its own form");
            let text = kept.sign(&format!(r#"{{"alg":"{}"}}"#, key.public().algorithm().as_str()), "{}");
            assert!(Unverified::read(&text).expect("well formed").verify([key.public()].into_iter()).is_ok());
            assert_eq!(key.public(), kept.public());
            assert_eq!(format!("{key:?}"), format!("SigningKey {{ thumbprint: {}, .. }}", key.public().thumbprint()));
        }
        assert!(SigningKey::from_der(b"x").is_err());
    }

    #[test]
    fn a_server_decides_the_algorithm_where_it_leaves_no_choice() {
        let made = |algorithms: &[&str]| {
            let algorithms: Vec<String> = algorithms.iter().map(|name| (*name).to_owned()).collect();
            SigningKey::generate_for(&algorithms).public().algorithm()
        };
        assert_eq!(made(&[]), Algorithm::Es256);
        assert_eq!(made(&["EdDSA", "ES256", "PS256"]), Algorithm::Es256);
        assert_eq!(made(&["EdDSA", "PS256"]), Algorithm::EdDsa);
        assert_eq!(made(&["Ed25519"]), Algorithm::EdDsa);
        assert_eq!(made(&["RS256"]), Algorithm::Es256);
    }
}
