//! Keys for the admin API: what a person's programs sign in with. A person may have several, each with a name, and revokes them one by one.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::id::Id;
use crate::secret::Digest;

/// The name of a key that is given none; later ones get a number behind it.
const UNNAMED: &str = "key";

/// How many keys a person may have.
pub const MOST: usize = 64;

/// The longest life that a key may be given: ten years. A key without an end is made by not naming one.
pub const LONGEST: Duration = Duration::from_secs(3660 * 24 * 60 * 60);

/// How long a key that has run out is still listed.
pub const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A use is written down when the last that was is older: an hour, because requests that only read must not write.
pub const NOTED_EVERY: Duration = Duration::from_secs(60 * 60);

/// A key; only its digest is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// The key's digest.
    pub digest: Digest,
    /// Whose it is.
    pub user: Id,
    /// Its name, unique for the person.
    pub name: String,
    /// No more than these of what the person may do.
    pub permissions: Option<BTreeSet<String>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// When it was used, to the hour ([`NOTED_EVERY`]).
    pub last_used_at: Option<Timestamp>,
}

impl ApiKey {
    /// Whether it works at `now`.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    /// Whether a use at `now` is to be written down.
    pub fn is_to_be_noted(&self, now: Timestamp) -> bool {
        self.last_used_at.is_none_or(|last| now >= last.plus(NOTED_EVERY))
    }
}

/// A name for a key that was given none, which none of `taken` is.
pub fn free_name(taken: &[ApiKey]) -> String {
    let numbered = (2..).map(|number: usize| format!("{UNNAMED}-{number}"));
    let mut names = std::iter::once(UNNAMED.to_owned()).chain(numbered);
    names.find(|name| taken.iter().all(|key| key.name != *name)).expect("numbers do not end")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ApiKey {
        ApiKey {
            digest: Digest::of(name),
            user: Id::from_bytes([1; 16]),
            name: name.to_owned(),
            permissions: None,
            created_at: Timestamp::from_millis(0),
            expires_at: None,
            last_used_at: None,
        }
    }

    #[test]
    fn keys_end_when_they_were_said_to() {
        let end = Timestamp::from_millis(1_000);
        let key = ApiKey { expires_at: Some(end), ..key("a") };
        assert!(key.is_active(Timestamp::from_millis(999)) && !key.is_active(end));
        assert!(super::tests::key("b").is_active(end));
    }

    #[test]
    fn a_use_is_noted_once_an_hour() {
        let noted = Timestamp::from_millis(5);
        let key = ApiKey { last_used_at: Some(noted), ..key("a") };
        assert!(super::tests::key("b").is_to_be_noted(noted));
        assert!(!key.is_to_be_noted(noted.plus(NOTED_EVERY - Duration::from_secs(1))) && key.is_to_be_noted(noted.plus(NOTED_EVERY)));
    }

    #[test]
    fn a_key_without_a_name_gets_one_that_is_free() {
        assert_eq!(free_name(&[]), "key");
        assert_eq!(free_name(&[key("key"), key("key-3")]), "key-2");
        assert_eq!(free_name(&[key("key"), key("key-2")]), "key-3");
    }
}
