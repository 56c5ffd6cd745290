//! Rows of pushed authorization requests (RFC 9126): handed in by an app, asked in a browser, decided once.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Fault, Place, Seals, Transaction};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::inbound::pushed::Pushed;
use crate::oauth::key::Thumbprint;
use crate::secret::{Digest, ExposeSecret};

/// How long one that is over is still known, so that it is told from one that never was.
const KEPT_AFTER_END: Duration = Duration::from_secs(60 * 60);

/// Requests that one app may have open; the oldest go.
const OPEN_AT_MOST: u32 = 1_000;

const INSERT: &str = "INSERT INTO pushed_request (digest, app, parameters_sealed, dpop_key, epoch, decided, expires_at, purge_at)
    VALUES (?1, ?2, ?3, ?4, (SELECT epoch FROM meta), 0, ?5, ?6)";
const LIMIT_OPEN: &str = "DELETE FROM pushed_request WHERE digest IN
    (SELECT digest FROM pushed_request WHERE app = ?1 ORDER BY expires_at DESC LIMIT -1 OFFSET ?2)";
const FIND: &str = "SELECT app, parameters_sealed, dpop_key, decided, expires_at FROM pushed_request
    WHERE digest = ?1 AND epoch = (SELECT epoch FROM meta)";
const DECIDE: &str = "UPDATE pushed_request SET decided = 1 WHERE digest = ?1 AND decided = 0 AND epoch = (SELECT epoch FROM meta)";

/// Adds a request.
pub fn insert(transaction: &Transaction<'_>, seals: &Seals, digest: Digest, pushed: &Pushed) -> Result<(), Fault> {
    let sealed = seals.seal(place(&digest), pushed.parameters.expose_secret().as_bytes());
    let dpop_key = pushed.dpop_key.map(|key| key.to_string());
    let row = params![digest, pushed.app, sealed, dpop_key, pushed.expires_at, pushed.expires_at.plus(KEPT_AFTER_END)];
    transaction.prepare_cached(INSERT)?.execute(row)?;
    transaction.prepare_cached(LIMIT_OPEN)?.execute(params![pushed.app, OPEN_AT_MOST])?;
    Ok(())
}

/// The request that a reference with that digest names, whether or not it may still be asked.
pub fn find(connection: &Connection, seals: &Seals, digest: Digest) -> Result<Option<Pushed>, Fault> {
    let read = connection.prepare_cached(FIND)?.query_row([digest], |row| {
        let columns: (Id, Vec<u8>, Option<String>, bool, Timestamp) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
        Ok(columns)
    });
    let Some((app, sealed, dpop_key, is_decided, expires_at)) = read.optional()? else { return Ok(None) };
    let corrupt = || super::corrupt("pushed_request", "dpop_key");
    let dpop_key = dpop_key.map(|text| Thumbprint::from_text(&text).ok_or_else(corrupt)).transpose()?;
    Ok(Some(Pushed { app, parameters: seals.open_text(place(&digest), &sealed)?, dpop_key, is_decided, expires_at }))
}

/// Takes the one decision that a request allows; false when it was taken before.
pub fn decide(transaction: &Transaction<'_>, digest: Digest) -> Result<bool, Fault> {
    Ok(transaction.prepare_cached(DECIDE)?.execute([digest])? == 1)
}

const fn place(digest: &Digest) -> Place<'_> {
    Place { table: "pushed_request", column: "parameters_sealed", row: digest.as_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sample::linked;
    use crate::store::{sample, temporary};

    #[tokio::test]
    async fn d5_a_pushed_request_is_sealed_and_decided_once() {
        let (_directory, store) = temporary();
        linked(&store).await;
        let (digest, seals) = (Digest::of("reference"), store.seals().clone());
        let pushed = Pushed {
            app: sample::app().id,
            parameters: "client_id=client-one&state=p2ph_of_the_client".into(),
            dpop_key: Some(Thumbprint::of_certificate(b"x")),
            is_decided: false,
            expires_at: Timestamp::from_millis(5_000),
        };
        let judge = move |transaction: &Transaction<'_>| {
            insert(transaction, &seals, digest, &pushed)?;
            let found = find(transaction, &seals, digest)?.expect("it was pushed");
            assert_eq!(found.parameters.expose_secret(), pushed.parameters.expose_secret());
            assert_eq!(
                (found.app, found.dpop_key, found.is_decided, found.expires_at),
                (pushed.app, pushed.dpop_key, false, pushed.expires_at)
            );
            assert!(decide(transaction, digest)? && !decide(transaction, digest)?);
            assert!(find(transaction, &seals, digest)?.expect("still known").is_decided);
            let sealed: Vec<u8> = transaction.query_row("SELECT parameters_sealed FROM pushed_request", [], |row| row.get(0))?;
            assert!(!sealed.windows(5).any(|window| window == b"p2ph_"));
            Ok(())
        };
        store.write(judge).await.expect("written");
    }
}
