//! Signed texts: the compact form of RFC 7515, checked as RFC 8725 asks. Time is the business of whoever reads the claims.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::json::Members;
use super::key::{Algorithm, PublicKey};

/// The longest that is looked at.
const LONGEST: usize = 16 * 1024;

/// How far ahead of our clock a signed text may say that it was made; other clocks are not exact.
pub const AHEAD: i64 = 30;

/// A signed text before its signature was looked at: only its header may be believed, and that for finding the key.
pub struct Unverified<'a> {
    /// What the signature is over.
    message: &'a str,
    signature: Vec<u8>,
    /// The algorithm, one of those that are believed.
    pub algorithm: Algorithm,
    header: Members,
    claims: Members,
}

impl fmt::Debug for Unverified<'_> {
    /// Without what makes it usable by others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unverified").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// Why something is no signed text that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// It is not three parts of base64url, or not JSON inside.
    #[error("it is not a JSON Web Token in its compact form")]
    Form,
    /// The algorithm is none of ours: `none` and those with shared secrets among them.
    #[error("it is signed by an algorithm other than EdDSA, ES256 and PS256")]
    Algorithm,
    /// It needs an extension of ours, and there are none (RFC 7515 §4.1.11).
    #[error("its header has crit, which nothing here understands")]
    Critical,
    /// It is another kind of signed text (RFC 8725 §3.11).
    #[error("its typ is not the one that is expected here")]
    Type,
    /// The key has another algorithm, or the signature is not its owner's.
    #[error("its signature is not the registered key's")]
    Signature,
}

impl<'a> Unverified<'a> {
    /// Reads a signed text.
    pub fn read(text: &'a str) -> Result<Self, BadSignature> {
        let mut parts = text.split('.');
        let (Some(header), Some(claims), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(BadSignature::Form);
        };
        if text.len() > LONGEST {
            return Err(BadSignature::Form);
        }
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| BadSignature::Form);
        let members = |part: &str| Members::read(&decoded(part)?).ok_or(BadSignature::Form);
        let (header, claims, message) = (members(header)?, members(claims)?, &text[..text.len() - signature.len() - 1]);
        if header.has("crit") {
            return Err(BadSignature::Critical);
        }
        let algorithm = header.text("alg").and_then(Algorithm::from_name).ok_or(BadSignature::Algorithm)?;
        Ok(Self { message, signature: decoded(signature)?, algorithm, header, claims })
    }

    /// `kid`
    pub fn key_id(&self) -> Option<&str> {
        self.header.text("kid")
    }

    /// `jwk`
    pub fn key(&self) -> Option<&Value> {
        self.header.0.get("jwk")
    }

    /// The claim `name` of something that nobody has vouched for yet.
    pub fn unverified_claim(&self, name: &str) -> Option<&str> {
        self.claims.text(name)
    }

    /// Checks `typ` against those that are expected; `is_needed` where it may not be absent. The `application/` before it may be left out
    /// (RFC 7515 §4.1.9).
    pub fn check_type(&self, expected: &[&str], is_needed: bool) -> Result<(), BadSignature> {
        let is_good = match self.header.0.get("typ") {
            None => !is_needed,
            Some(typ) => typ.as_str().is_some_and(|typ| {
                let typ = typ.to_ascii_lowercase();
                expected.contains(&typ.strip_prefix("application/").unwrap_or(&typ))
            }),
        };
        if is_good { Ok(()) } else { Err(BadSignature::Type) }
    }

    /// The claims, when one of `keys` signed them.
    pub fn verify<'k>(&self, mut keys: impl Iterator<Item = &'k PublicKey>) -> Result<&Members, BadSignature> {
        let is_by = |key: &PublicKey| key.algorithm() == self.algorithm && key.verifies(self.message.as_bytes(), &self.signature);
        if keys.any(is_by) { Ok(&self.claims) } else { Err(BadSignature::Signature) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::signing_key::SigningKey;

    fn encoded(text: &str) -> String {
        URL_SAFE_NO_PAD.encode(text)
    }

    #[test]
    fn k2_what_the_owner_of_the_key_signed_is_believed_and_nothing_else() {
        let (key, other) = (SigningKey::generate(), SigningKey::generate());
        let text = key.sign(r#"{"alg":"ES256","typ":"Test+JWT","kid":"1"}"#, r#"{"a":"x"}"#);
        let unverified = Unverified::read(&text).expect("well formed");
        assert_eq!((unverified.key_id(), unverified.unverified_claim("a")), (Some("1"), Some("x")));
        assert_eq!(unverified.check_type(&["test+jwt"], true), Ok(()));
        assert_eq!(unverified.check_type(&["jwt"], false), Err(BadSignature::Type));
        let verified = |text: &str, by: &SigningKey| {
            Unverified::read(text).and_then(|text| text.verify([by.public()].into_iter()).map(|claims| claims.text("a").map(str::to_owned)))
        };
        assert_eq!(verified(&text, &key), Ok(Some("x".to_owned())));
        assert_eq!(verified(&text, &other), Err(BadSignature::Signature));
        let [header, claims, signature] = text.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
        let changed = format!("{header}.{}.{signature}", encoded(r#"{"a":"y"}"#));
        assert_eq!(verified(&changed, &key), Err(BadSignature::Signature));
        for (text, expected) in [
            (format!("{header}.{claims}"), BadSignature::Form),
            (format!("{text}."), BadSignature::Form),
            (format!("{text}="), BadSignature::Form),
            (format!("{header}.{}.{signature}", encoded(r#"{"a":"x","a":"x"}"#)), BadSignature::Form),
            (format!("{}.{claims}.{signature}", encoded(r#"{"alg":"ES256","alg":"ES256"}"#)), BadSignature::Form),
            (format!("{}.{claims}.", encoded(r#"{"alg":"none"}"#)), BadSignature::Algorithm),
            (format!("{}.{claims}.", encoded(r#"{"alg":"None"}"#)), BadSignature::Algorithm),
            (format!("{}.{claims}.{signature}", encoded(r#"{"alg":"HS256"}"#)), BadSignature::Algorithm),
            (format!("{}.{claims}.{signature}", encoded(r#"{"alg":"RS256"}"#)), BadSignature::Algorithm),
            (format!("{}.{claims}.{signature}", encoded(r#"{"alg":["ES256"]}"#)), BadSignature::Algorithm),
            (key.sign(r#"{"alg":"ES256","crit":["b64"],"b64":false}"#, r#"{"a":"x"}"#), BadSignature::Critical),
            // The header chooses another algorithm for the key than its own.
            (key.sign(r#"{"alg":"EdDSA"}"#, r#"{"a":"x"}"#), BadSignature::Signature),
            ("x".repeat(LONGEST + 1), BadSignature::Form),
        ] {
            assert_eq!(verified(&text, &key), Err(expected), "{text}");
        }
    }

    #[test]
    fn k2_signatures_of_all_three_algorithms_are_checked() {
        use aws_lc_rs::rsa::KeySize;
        use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, RSA_PSS_SHA256, RsaKeyPair};
        let message = |alg: &str| format!("{}.{}", encoded(&format!(r#"{{"alg":"{alg}"}}"#)), encoded(r#"{"a":"x"}"#));

        let ed = Ed25519KeyPair::generate().expect("a key");
        let ed_public = serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(ed.public_key().as_ref()) });
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        // An RSAPublicKey of 2048 bits in DER: nine bytes before the modulus, two before the exponent.
        let der = rsa.public_key().as_ref();
        let rsa_public = serde_json::json!({
            "kty": "RSA",
            "n": number(&der[9..265]),
            "e": number(&der[267..]),
        });
        for (alg, public) in [("EdDSA", &ed_public), ("Ed25519", &ed_public), ("PS256", &rsa_public)] {
            let message = message(alg);
            let signature = if alg == "PS256" {
                let mut signature = vec![0; rsa.public_modulus_len()];
                rsa.sign(&RSA_PSS_SHA256, &aws_lc_rs::rand::SystemRandom::new(), message.as_bytes(), &mut signature).expect("signed");
                signature
            } else {
                ed.sign(message.as_bytes()).as_ref().to_vec()
            };
            let key = PublicKey::from_jwk(public).expect("a key");
            let verified = |signature: &[u8]| {
                let text = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
                Unverified::read(&text).expect("well formed").verify([&key].into_iter()).map(|_| ())
            };
            assert_eq!(verified(&signature), Ok(()), "{alg}");
            let mut wrong = signature;
            wrong[7] ^= 1;
            assert_eq!(verified(&wrong), Err(BadSignature::Signature), "{alg}");
        }
    }
}
