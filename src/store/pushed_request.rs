//! Rows of pushed authorization requests (RFC 9126): handed in by an app, asked in a browser, decided once.

use std::net::IpAddr;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Fault, Place, Seals, Transaction};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::inbound::pushed::Pushed;
use crate::oauth::thumbprint::KeyThumbprint;
use crate::secret::{Digest, ExposeSecret};

/// How long one that is over is still known, so that it is told from one that never was.
const KEPT_AFTER_END: Duration = Duration::from_secs(60 * 60);

/// Requests that one app may have, those that are over among them. Of one more, see [`insert`].
const MOST: u32 = 1_000;

const INSERT: &str = "INSERT INTO pushed_request
    (digest, app, parameters_sealed, dpop_key, epoch, decided, expires_at, purge_at, pushed_from)
    VALUES (?1, ?2, ?3, ?4, (SELECT epoch FROM meta), 0, ?5, ?6, ?7)";
const COUNT: &str = "SELECT count(*) FROM pushed_request WHERE app = ?1";
const DROP_OVER: &str = "DELETE FROM pushed_request WHERE digest IN
    (SELECT digest FROM pushed_request WHERE app = ?1 AND (decided = 1 OR expires_at <= ?2) ORDER BY expires_at LIMIT ?3)";
const DROP_OF_MOST: &str = "DELETE FROM pushed_request WHERE digest =
    (SELECT digest FROM pushed_request WHERE app = ?1 AND opened = 0 AND pushed_from IS
        (SELECT pushed_from FROM pushed_request WHERE app = ?1 AND opened = 0
            GROUP BY pushed_from ORDER BY count(*) DESC, min(expires_at) LIMIT 1)
        ORDER BY expires_at LIMIT 1)";
const IS_THERE: &str = "SELECT 1 FROM pushed_request WHERE digest = ?1";
const FIND: &str = "SELECT app, parameters_sealed, dpop_key, decided, expires_at FROM pushed_request
    WHERE digest = ?1 AND epoch = (SELECT epoch FROM meta)";
const OPEN: &str = "UPDATE pushed_request SET opened = 1 WHERE digest = ?1";
const DECIDE: &str = "UPDATE pushed_request SET decided = 1 WHERE digest = ?1 AND decided = 0 AND epoch = (SELECT epoch FROM meta)";

/// Adds a request that came from the network `from`, where that is known; false when there is no room for it.
///
/// Where its app has more than [`MOST`], what is over goes first; then, of the network that most of the others come from, the oldest. So
/// whoever pushes in the name of an app that anybody can claim to be pushes out his own, and not what others wait for, until he has as many
/// networks as the app has requests. What somebody was asked who may allow it stays in any case.
pub fn insert(transaction: &Transaction<'_>, seals: &Seals, digest: Digest, pushed: &Pushed, from: Option<IpAddr>) -> Result<bool, Fault> {
    let sealed = seals.seal(place(&digest), pushed.parameters.expose_secret().as_bytes());
    let (dpop_key, from) = (pushed.dpop_key.map(|key| key.to_string()), from.map(|network| network.to_string()));
    let row = params![digest, pushed.app, sealed, dpop_key, pushed.expires_at, pushed.expires_at.plus(KEPT_AFTER_END), from];
    transaction.prepare_cached(INSERT)?.execute(row)?;
    let count: u32 = transaction.prepare_cached(COUNT)?.query_row([pushed.app], |row| row.get(0))?;
    let Some(more) = count.checked_sub(MOST).filter(|more| *more > 0) else { return Ok(true) };
    let over = transaction.prepare_cached(DROP_OVER)?.execute(params![pushed.app, transaction.now().wall, more])?;
    for _ in over..more as usize {
        transaction.prepare_cached(DROP_OF_MOST)?.execute([pushed.app])?;
    }
    Ok(transaction.prepare_cached(IS_THERE)?.exists([digest])?)
}

/// Keeps a request for the person who is asked it now, and may allow it.
pub fn open(transaction: &Transaction<'_>, digest: Digest) -> Result<(), Fault> {
    transaction.prepare_cached(OPEN)?.execute([digest])?;
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
    let dpop_key = dpop_key.map(|text| KeyThumbprint::from_text(&text).ok_or_else(corrupt)).transpose()?;
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
            dpop_key: Some(KeyThumbprint::of_canonical("x")),
            is_decided: false,
            expires_at: Timestamp::from_millis(5_000),
        };
        let judge = move |transaction: &Transaction<'_>| {
            assert!(insert(transaction, &seals, digest, &pushed, None)?);
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
    /// Who comes from eleven networks, a hundred requests each.
    #[tokio::test]
    async fn d5_who_pushes_most_pushes_out_his_own() {
        let (_directory, store) = temporary();
        linked(&store).await;
        let seals = store.seals().clone();
        let judge = move |transaction: &Transaction<'_>| {
            let at = |at: u64| Pushed {
                app: sample::app().id,
                parameters: "".into(),
                dpop_key: None,
                is_decided: false,
                expires_at: transaction.now().wall.plus(Duration::from_secs(60 + at)),
            };
            let network = |number: u32| Some(IpAddr::from(std::net::Ipv4Addr::from(number)));
            let (waiting, asked) = (Digest::of("waiting"), Digest::of("asked"));
            assert!(insert(transaction, &seals, waiting, &at(0), network(99))?);
            assert!(insert(transaction, &seals, asked, &at(0), network(1))?);
            open(transaction, asked)?;
            for number in 0..2 * MOST {
                let digest = Digest::of(&format!("flood {number}"));
                assert!(insert(transaction, &seals, digest, &at(number.into()), network(number % 11))?, "the newest has its turn");
            }
            let known = |digest| Ok::<_, Fault>(find(transaction, &seals, digest)?.is_some());
            assert!(known(waiting)?, "it was the oldest of all, and alone in its network");
            assert!(known(asked)?, "somebody looks at it");
            let count: u32 = transaction.query_row("SELECT count(*) FROM pushed_request", [], |row| row.get(0))?;
            assert_eq!(count, MOST);
            // Each from a network of its own: the oldest go, but not what somebody looks at.
            for number in 0..MOST {
                insert(transaction, &seals, Digest::of(&format!("new {number}")), &at(9_000), network(1_000 + number))?;
            }
            assert!(!known(waiting)? && known(asked)?);
            transaction.execute("UPDATE pushed_request SET opened = 1", [])?;
            assert!(!insert(transaction, &seals, Digest::of("late"), &at(0), network(7))?, "all others are looked at");
            assert!(decide(transaction, asked)? && insert(transaction, &seals, Digest::of("later"), &at(0), network(7))?);
            assert!(!known(asked)?, "what is over makes room");
            Ok(())
        };
        store.write(judge).await.expect("written");
    }
}
