//! What may be presented once, such as a client assertion: remembered on disk until it would be refused anyway, so that neither a restart nor
//! a crash makes it good again. What a restored database has forgotten is refused by its time ([`crate::oauth::assertion::Asserted`]).

use std::time::Duration;

use rusqlite::params;

use super::{Fault, Transaction};
use crate::clock::Timestamp;
use crate::secret::Digest;

const USE: &str = "INSERT INTO used_once (digest, purge_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING";

/// Remembered so much longer: a wall clock that is ahead by no more is not doubted ([`crate::audit::wall_clock`]), and when it is set back, what
/// was used is good by its time once more.
const LONGER: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// Uses what `digest` names; false when it was used before. It is remembered until `until` and three days longer.
pub fn take(transaction: &Transaction<'_>, digest: Digest, until: Timestamp) -> Result<bool, Fault> {
    Ok(transaction.prepare_cached(USE)?.execute(params![digest, until.plus(LONGER)])? == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::temporary;

    #[tokio::test]
    async fn t13_what_was_used_once_is_used_until_its_time_is_over() {
        let (_directory, store) = temporary();
        let (digest, until) = (Digest::of("jti"), Timestamp::from_millis(1_000));
        let use_it = || store.write(move |transaction| take(transaction, digest, until));
        assert!(use_it().await.expect("judged"));
        assert!(!use_it().await.expect("judged"));
        store.purge(until.plus(LONGER)).await.expect("purged");
        assert!(!use_it().await.expect("judged"), "not before its time, nor by a clock that is a little ahead");
        store.purge(Timestamp::from_millis(1_001).plus(LONGER)).await.expect("purged");
        assert!(use_it().await.expect("judged"));
    }
}
