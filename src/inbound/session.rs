//! A browser in which somebody is signed in.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::id::Id;
use crate::secret::Digest;

/// How long a session lives without being used.
pub const IDLE: Duration = Duration::from_secs(60 * 60);

/// How long a session lives at most.
pub const LONGEST: Duration = Duration::from_secs(12 * 60 * 60);

/// How many sessions somebody may have at the same time: more than anybody has browsers. When another begins, the oldest ends.
pub const MOST_OF_A_PERSON: u32 = 64;

/// A session; its cookie's value is known to the browser only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The digest of the cookie's value.
    pub digest: Digest,
    /// Who is signed in.
    pub user: Id,
    /// The store's epoch at the log-in.
    pub epoch: i64,
    /// When the log-in was.
    pub signed_in_at: Timestamp,
    /// When it ends unless it is used before.
    pub expires_at: Timestamp,
}

impl Session {
    /// A session that begins now.
    pub fn new(digest: Digest, user: Id, epoch: i64, now: Timestamp) -> Self {
        Self { digest, user, epoch, signed_in_at: now, expires_at: now.plus(IDLE) }
    }

    /// Whether it still holds: it has not run out, and the database is the one that it was made in.
    pub fn is_live(&self, epoch: i64, now: Timestamp) -> bool {
        self.epoch == epoch && now < self.expires_at
    }

    /// When it ends, being used now; `None` when that is too little more to be worth a write.
    pub fn extended(&self, now: Timestamp) -> Option<Timestamp> {
        let expires_at = now.plus(IDLE).min(self.signed_in_at.plus(LONGEST));
        (expires_at > self.expires_at.plus(IDLE / 10)).then_some(expires_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_session_ends_after_idling_or_with_its_epoch() {
        let start = Timestamp::from_millis(1_000_000);
        let session = Session::new(Digest::of("cookie"), Id::from_bytes([1; 16]), 1, start);
        assert!(session.is_live(1, start.plus(IDLE - MINUTE)));
        assert!(!session.is_live(1, start.plus(IDLE)));
        assert!(!session.is_live(2, start));
    }

    #[test]
    fn use_extends_a_session_up_to_its_longest() {
        let start = Timestamp::from_millis(1_000_000);
        let mut session = Session::new(Digest::of("cookie"), Id::from_bytes([1; 16]), 1, start);
        assert_eq!(session.extended(start.plus(MINUTE)), None, "too little to write for");
        assert_eq!(session.extended(start.plus(MINUTE * 30)), Some(start.plus(MINUTE * 90)));
        session.expires_at = start.plus(LONGEST - MINUTE * 20);
        assert_eq!(session.extended(start.plus(LONGEST - MINUTE * 30)), Some(start.plus(LONGEST)));
        session.expires_at = start.plus(LONGEST);
        assert_eq!(session.extended(start.plus(LONGEST - MINUTE)), None);
    }
}
