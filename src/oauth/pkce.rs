//! Proof Key for Code Exchange (RFC 7636), with `S256` only: `plain` protects from nobody who reads the request.

use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::random::{self, Random};
use crate::secret::{ExposeSecret, SecretString, same};

/// The one `code_challenge_method`.
pub const METHOD: &str = "S256";

/// The length of a SHA-256 digest in base64url.
const CHALLENGE_LENGTH: usize = 43;

/// A `code_challenge`: the base64url SHA-256 of a verifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge(String);

/// The text is no `S256` challenge.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a code_challenge is 43 characters of base64url without padding")]
pub struct NotAChallenge;

impl Challenge {
    /// The challenge of `verifier`.
    pub fn of(verifier: &str) -> Self {
        Self(URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes())))
    }

    /// Whether `verifier` is well formed and the one that the challenge was made of.
    pub fn is_met_by(&self, verifier: &str) -> bool {
        // Length and alphabet first (RFC 7636 §4.1), so that nothing else is ever hashed.
        is_verifier(verifier) && same(Self::of(verifier).0.as_bytes(), self.0.as_bytes())
    }

    /// As sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Challenge {
    type Err = NotAChallenge;

    fn from_str(text: &str) -> Result<Self, NotAChallenge> {
        // Whether the last character's spare bits are zero is left to the comparison: such a challenge is met by no verifier.
        let is_one = text.len() == CHALLENGE_LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if is_one { Ok(Self(text.to_owned())) } else { Err(NotAChallenge) }
    }
}

/// A fresh `code_verifier` with 256 random bits.
pub fn verifier(random: &dyn Random) -> SecretString {
    SecretString::from(URL_SAFE_NO_PAD.encode(random::bytes::<32>(random)))
}

/// The challenge of a verifier that is a secret.
pub fn challenge(verifier: &SecretString) -> Challenge {
    Challenge::of(verifier.expose_secret())
}

/// `43*128unreserved`.
fn is_verifier(text: &str) -> bool {
    (43..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::SystemRandom;

    #[test]
    fn the_example_of_the_rfc_holds() {
        let challenge: Challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".parse().expect("a challenge");
        assert!(challenge.is_met_by("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));
        assert!(!challenge.is_met_by("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXK"));
    }

    #[test]
    fn t5_a_verifier_of_wrong_length_or_alphabet_meets_nothing() {
        for wrong in ["", "short", &"a".repeat(42), &"a".repeat(129), &format!("{} ", "a".repeat(43)), &"ä".repeat(30)] {
            assert!(!Challenge::of(wrong).is_met_by(wrong), "{wrong:?}");
        }
        for right in ["a".repeat(43), "-._~".repeat(32)] {
            assert!(Challenge::of(&right).is_met_by(&right));
        }
    }

    #[test]
    fn a5_what_is_no_challenge_is_refused() {
        for wrong in ["", "a", &"a".repeat(42), &"a".repeat(44), &format!("{}=", "a".repeat(42)), &format!("{}+", "a".repeat(42))] {
            assert_eq!(wrong.parse::<Challenge>(), Err(NotAChallenge), "{wrong:?}");
        }
        let verifier = verifier(&SystemRandom);
        assert_eq!(challenge(&verifier).as_str().parse(), Ok(challenge(&verifier)));
        assert!(challenge(&verifier).is_met_by(verifier.expose_secret()));
    }
}
