//! People's passwords: 8 to 128 characters, no other rule (NIST SP 800-63B §3.1.1.2), kept as argon2id hashes.
//!
//! Hashing takes tens of milliseconds and 19 MiB on purpose: callers do it outside transactions, a bounded number at a time.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash as Phc;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};

use crate::random::{self, Random};

/// What an unknown user's password is compared to: made with the parameters of every other.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// An argon2id hash with its parameters and salt, as a PHC string.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

/// The text cannot be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found a password of {0} characters, expected 8 to 128")]
pub struct BadPassword(pub usize);

impl PasswordHash {
    /// The hash of a new password.
    ///
    /// # Errors
    /// It is too short or too long.
    pub fn of(password: &str, random: &dyn Random) -> Result<Self, BadPassword> {
        let characters = password.chars().count();
        if !(8..=128).contains(&characters) {
            return Err(BadPassword(characters));
        }
        Ok(Self(hash(password, &random::bytes::<16>(random))))
    }

    /// The PHC string as stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// From the PHC string as stored. One that is not a PHC string matches nothing.
    pub const fn from_stored(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash")
    }
}

/// Whether `password` is the one that `stored` was made of. Nobody's hash (`None`) takes as long as a wrong password, so that the time
/// of a refusal does not tell whether there is such a user.
pub fn verify(stored: Option<&PasswordHash>, password: &str) -> bool {
    verify_by(|stored| Argon2::default().verify_password(password.as_bytes(), stored).is_ok(), stored, password)
}

/// As [`verify`], with `compare` to do the work: hash the password as the stored one was, and compare the two.
fn verify_by(compare: impl FnOnce(&Phc) -> bool, stored: Option<&PasswordHash>, password: &str) -> bool {
    // What could never have been set is not worth the work, for a known and an unknown user alike.
    if !(8..=128).contains(&password.chars().count()) {
        return false;
    }
    let stored = stored.and_then(|stored| Phc::new(stored.as_str()).ok());
    match stored {
        Some(stored) => compare(&stored),
        None => {
            let nobody = Phc::new(NOBODY).expect("a constant PHC string");
            std::hint::black_box(compare(&nobody));
            false
        }
    }
}

fn hash(password: &str, salt: &[u8; 16]) -> String {
    let hash: Phc = Argon2::default()
        .hash_password_with_salt(password.as_bytes(), salt)
        .expect("argon2id's defaults take a short password and 16 bytes of salt");
    hash.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::SystemRandom;

    #[test]
    fn a_password_matches_its_own_hash_only() {
        let hash = PasswordHash::of("correct horse", &SystemRandom).expect("a password");
        assert!(hash.as_str().starts_with("$argon2id$v=19$"));
        assert!(verify(Some(&hash), "correct horse"));
        assert!(!verify(Some(&hash), "correct horsf"));
        assert!(!verify(None, "correct horse"));
        assert!(!verify(Some(&PasswordHash::from_stored("garbage".to_owned())), "correct horse"));
        assert_ne!(hash, PasswordHash::of("correct horse", &SystemRandom).expect("a password"), "the salt is random");
    }

    #[test]
    fn a_password_has_8_to_128_characters() {
        for (password, expected) in
            [("1234567", Err(BadPassword(7))), ("pässwör", Err(BadPassword(7))), (&"x".repeat(129), Err(BadPassword(129)))]
        {
            assert_eq!(PasswordHash::of(password, &SystemRandom).map(drop), expected);
            assert!(!verify(None, password));
        }
        assert!(PasswordHash::of("12345678", &SystemRandom).is_ok());
        assert!(PasswordHash::of(&"ä".repeat(128), &SystemRandom).is_ok());
    }

    #[test]
    fn an_unknown_user_takes_as_much_work_as_a_wrong_password() {
        let known = PasswordHash::of("correct horse", &SystemRandom).expect("a password");
        let garbage = PasswordHash::from_stored("garbage".to_owned());
        // What a comparison costs: the algorithm with its parameters, and the lengths of salt and hash.
        let work = |stored, password| {
            let mut done = Vec::new();
            let compare = |stored: &Phc| {
                let text = stored.to_string();
                let fields: Vec<&str> = text.split('$').collect();
                done.push((fields[..4].join("$"), fields[4].len(), fields[5].len()));
                false
            };
            assert!(!verify_by(compare, stored, password));
            done
        };
        let expected = work(Some(&known), "wrong horse");
        assert_eq!(expected.len(), 1, "{expected:?}");
        assert_eq!(work(None, "wrong horse"), expected);
        assert_eq!(work(Some(&garbage), "wrong horse"), expected);
        for stored in [Some(&known), None] {
            assert_eq!(work(stored, "short"), []);
        }
        // Nobody's hash has no password that matches, not even by the comparison.
        assert!(!verify_by(|_| true, None, "wrong horse"));
    }
}
