//! People's passwords: 8 to 128 characters, no other rule (NIST SP 800-63B §3.1.1.2), kept as argon2id hashes.
//!
//! Hashing takes tens of milliseconds and 19 MiB on purpose: callers do it outside transactions, a bounded number at a time, each with a
//! [`Workspace`] that is there already. An allocator that is asked for 19 MiB by one thread after the other may keep as much for each of them.

use std::fmt::{self, Debug, Formatter};

use argon2::password_hash::phc::{Output, PasswordHash as Phc, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};

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

/// The memory in which one password at a time is hashed: nothing until the first one, then as much as one of ours takes (19 MiB).
#[derive(Default)]
pub struct Workspace(Vec<Block>);

impl Workspace {
    /// `argon2`'s hash of `password`. One that takes more memory than a new password's has memory of its own, for as long as it takes: the workspace
    /// never grows beyond what we ask for ourselves.
    fn hash(&mut self, argon2: &Argon2<'_>, password: &str, salt: &[u8], hash: &mut [u8]) -> argon2::Result<()> {
        let blocks = argon2.params().block_count();
        if blocks > Params::DEFAULT.block_count() {
            return argon2.hash_password_into(password.as_bytes(), salt, hash);
        }
        if self.0.len() < blocks {
            self.0.resize(blocks, Block::new());
        }
        let memory = &mut self.0[..blocks];
        let hashed = argon2.hash_password_into_with_memory(password.as_bytes(), salt, hash, &mut *memory);
        // Nothing that came of a password outlives its turn.
        memory.fill(Block::new());
        hashed
    }
}

impl Debug for Workspace {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Workspace")
    }
}

impl PasswordHash {
    /// The hash of a new password.
    ///
    /// # Errors
    /// It is too short or too long.
    pub fn of(password: &str, random: &dyn Random, workspace: &mut Workspace) -> Result<Self, BadPassword> {
        let characters = password.chars().count();
        if !(8..=128).contains(&characters) {
            return Err(BadPassword(characters));
        }
        Ok(Self(hash(password, &random::bytes::<16>(random), workspace)))
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

impl Debug for PasswordHash {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash")
    }
}

/// Whether `password` is the one that `stored` was made of. Nobody's hash (`None`) takes as long as a wrong password, so that the time
/// of a refusal does not tell whether there is such a user.
pub fn verify(stored: Option<&PasswordHash>, password: &str, workspace: &mut Workspace) -> bool {
    verify_by(|stored| compare(stored, password, workspace).unwrap_or(false), stored, password)
}

/// Hashes `password` as `stored` was, by the algorithm, parameters and salt that it names, and compares the two in constant time.
///
/// # Errors
/// It names something that argon2 does not have.
fn compare(stored: &Phc, password: &str, workspace: &mut Workspace) -> argon2::password_hash::Result<bool> {
    let (Some(salt), Some(expected)) = (&stored.salt, &stored.hash) else { return Ok(false) };
    let algorithm = Algorithm::try_from(stored.algorithm.as_str())?;
    let version = stored.version.map(Version::try_from).transpose()?.unwrap_or_default();
    let argon2 = Argon2::new(algorithm, version, Params::try_from(stored)?);
    let mut buffer = [0; Output::MAX_LENGTH];
    let found = &mut buffer[..expected.len()];
    workspace.hash(&argon2, password, salt, found)?;
    Ok(Output::new(found).is_ok_and(|found| found == *expected))
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

fn hash(password: &str, salt: &[u8; 16], workspace: &mut Workspace) -> String {
    let mut hash = [0; Params::DEFAULT_OUTPUT_LEN];
    workspace.hash(&Argon2::default(), password, salt, &mut hash).expect("argon2id's defaults take a short password and 16 bytes of salt");
    let phc = Phc {
        algorithm: Algorithm::default().ident(),
        version: Some(Version::default().into()),
        params: (&Params::DEFAULT).try_into().expect("the default parameters can be written"),
        salt: Some(Salt::new(salt).expect("16 bytes are a salt")),
        hash: Some(Output::new(&hash).expect("32 bytes are a hash")),
    };
    phc.to_string()
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::{PasswordHasher, PasswordVerifier};

    use super::*;
    use crate::system::SystemRandom;

    #[test]
    fn a_password_matches_its_own_hash_only() {
        let workspace = &mut Workspace::default();
        let hash = PasswordHash::of("correct horse", &SystemRandom, workspace).expect("a password");
        assert!(hash.as_str().starts_with("$argon2id$v=19$"));
        assert!(verify(Some(&hash), "correct horse", workspace));
        assert!(!verify(Some(&hash), "correct horsf", workspace));
        assert!(!verify(None, "correct horse", workspace));
        assert!(!verify(Some(&PasswordHash::from_stored("garbage".to_owned())), "correct horse", workspace));
        assert_ne!(hash, PasswordHash::of("correct horse", &SystemRandom, workspace).expect("a password"), "the salt is random");
    }

    #[test]
    fn a_password_has_8_to_128_characters() {
        let workspace = &mut Workspace::default();
        for (password, expected) in
            [("1234567", Err(BadPassword(7))), ("pässwör", Err(BadPassword(7))), (&"x".repeat(129), Err(BadPassword(129)))]
        {
            assert_eq!(PasswordHash::of(password, &SystemRandom, workspace).map(drop), expected);
            assert!(!verify(None, password, workspace));
        }
        assert!(PasswordHash::of("12345678", &SystemRandom, workspace).is_ok());
        assert!(PasswordHash::of(&"ä".repeat(128), &SystemRandom, workspace).is_ok());
    }

    #[test]
    fn an_unknown_user_takes_as_much_work_as_a_wrong_password() {
        let known = PasswordHash::of("correct horse", &SystemRandom, &mut Workspace::default()).expect("a password");
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

    #[test]
    fn a_stored_hash_is_checked_by_its_own_parameters_and_the_memory_that_is_kept_does_not_grow() {
        let workspace = &mut Workspace::default();
        let ours = Params::DEFAULT.block_count();
        for (memory, turns, lanes, length) in [(64, 3, 1, 32), (19_456, 2, 1, 32), (20_000, 1, 2, 16), (32, 1, 2, 64)] {
            let params = Params::new(memory, turns, lanes, Some(length)).expect("parameters");
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            let stored = argon2.hash_password_with_salt(b"correct horse", b"sixteen bytes.. ").expect("a hash").to_string();
            assert!(stored.contains(&format!("m={memory},t={turns},p={lanes}$")), "{stored}");
            let stored = PasswordHash::from_stored(stored);
            assert!(verify(Some(&stored), "correct horse", workspace), "{}", stored.as_str());
            assert!(!verify(Some(&stored), "correct horsf", workspace), "{}", stored.as_str());
            assert!(workspace.0.len() <= ours, "{} blocks", workspace.0.len());
        }
        assert_eq!(workspace.0.len(), ours);
        assert!(workspace.0.iter().all(|block| block.as_ref().iter().all(|word| *word == 0)), "nothing of a password is left");
        // And what we make, others read.
        let hash = PasswordHash::of("correct horse", &SystemRandom, workspace).expect("a password");
        assert_eq!(Argon2::default().verify_password(b"correct horse", hash.as_str()), Ok(()));
    }
}
