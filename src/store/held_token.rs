//! Rows of the tokens that we hold at peers, and of the links that peers ended.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{moment, moment_columns, signing_key};
use super::{Fault, Place, Seals, Transaction};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::oauth::signing_key::SigningKey;
use crate::outbound::attempt::{Intent, Trouble, TroubleKind};
use crate::outbound::link::{Broken, Held};
use crate::outbound::plan::Validity;
use crate::secret::{ExposeSecret, SecretString};

const TABLE: &str = "held_token";
const PUT: &str =
    "INSERT OR REPLACE INTO held_token (peer, epoch, access_sealed, refresh_sealed, requested_wall, requested_boot, requested_boot_id, life,
    refresh_expires_at, scope, linked_as, linked_at, well_since, attempts, refused, trouble, trouble_reason, trouble_since,
    key_sealed, bound) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)";
const DELETE: &str = "DELETE FROM held_token WHERE peer = ?1";
const SELECT: &str =
    "SELECT epoch, access_sealed, refresh_sealed, requested_wall, requested_boot, requested_boot_id, life, refresh_expires_at, scope,
    linked_as, linked_at, well_since, attempts, refused, trouble, trouble_reason, trouble_since, key_sealed, bound
    FROM held_token WHERE peer = ?1";
const SET_INTENT: &str = "UPDATE held_token SET attempts = ?2, refused = ?3 WHERE peer = ?1";
const SET_KEY: &str = "UPDATE held_token SET key_sealed = ?2 WHERE peer = ?1";
const SET_REFRESH: &str = "UPDATE held_token SET refresh_sealed = ?2, attempts = 0, refused = 0 WHERE peer = ?1";
const SET_TROUBLE: &str = "UPDATE held_token SET trouble = ?2, trouble_reason = ?3, trouble_since = ?4 WHERE peer = ?1";
const VOUCH: &str = "UPDATE held_token SET epoch = ?2 WHERE peer = ?1";
const BREAK: &str = "INSERT OR REPLACE INTO broken_link (peer, since, why) VALUES (?1, ?2, ?3)";
const MEND: &str = "DELETE FROM broken_link WHERE peer = ?1";
const BROKEN: &str = "SELECT since, why FROM broken_link WHERE peer = ?1";

/// Keeps `held` as the peer's tokens, in place of what was there; the link is not broken any more.
pub fn put(transaction: &Transaction<'_>, seals: &Seals, epoch: i64, peer: Id, held: &Held) -> Result<(), Fault> {
    let seal = |column, token: &SecretString| seals.seal(place(&peer, column), token.expose_secret().as_bytes());
    let [wall, boot, boot_id] = moment_columns(&held.validity.requested);
    let trouble = held.trouble.as_ref();
    let row = params![
        peer,
        epoch,
        seal("access_sealed", &held.access),
        held.refresh.as_ref().map(|token| seal("refresh_sealed", token)),
        wall,
        boot,
        boot_id,
        i64::try_from(held.validity.life.as_millis()).unwrap_or(i64::MAX),
        held.refresh_expires_at,
        held.scope,
        held.linked_as,
        held.linked_at,
        held.well_since,
        held.intent.attempts,
        held.intent.refused,
        trouble.map(|(trouble, _)| trouble.kind.as_str()),
        trouble.map(|(trouble, _)| trouble.reason.as_str()),
        trouble.map(|(_, since)| *since),
        held.key.as_ref().map(|key| seals.seal(place(&peer, "key_sealed"), &key.to_der())),
        held.is_bound
    ];
    transaction.prepare_cached(PUT)?.execute(row)?;
    transaction.prepare_cached(MEND)?.execute([peer])?;
    Ok(())
}

/// Forgets the peer's tokens, and that the link was broken.
pub fn forget(transaction: &Transaction<'_>, peer: Id) -> Result<(), Fault> {
    transaction.prepare_cached(DELETE)?.execute([peer])?;
    transaction.prepare_cached(MEND)?.execute([peer])?;
    Ok(())
}

/// Forgets the peer's tokens and notes that the peer ended the link.
pub fn set_broken(transaction: &Transaction<'_>, peer: Id, broken: &Broken) -> Result<(), Fault> {
    transaction.prepare_cached(DELETE)?.execute([peer])?;
    transaction.prepare_cached(BREAK)?.execute(params![peer, broken.since, broken.why])?;
    Ok(())
}

/// Writes the intent of an attempt down, or what has become of it.
pub fn set_intent(transaction: &Transaction<'_>, peer: Id, intent: Intent) -> Result<(), Fault> {
    transaction.prepare_cached(SET_INTENT)?.execute(params![peer, intent.attempts, intent.refused])?;
    Ok(())
}

/// Keeps the key that the next tokens are asked for with, beside an access token that is not bound to it.
pub fn set_key(transaction: &Transaction<'_>, seals: &Seals, peer: Id, key: &SigningKey) -> Result<(), Fault> {
    let sealed = seals.seal(place(&peer, "key_sealed"), &key.to_der());
    transaction.prepare_cached(SET_KEY)?.execute(params![peer, sealed])?;
    Ok(())
}

/// Keeps a new refresh token beside the access token that is there; nobody has presented it yet.
pub fn set_refresh(transaction: &Transaction<'_>, seals: &Seals, peer: Id, refresh: &SecretString) -> Result<(), Fault> {
    let sealed = seals.seal(place(&peer, "refresh_sealed"), refresh.expose_secret().as_bytes());
    transaction.prepare_cached(SET_REFRESH)?.execute(params![peer, sealed])?;
    Ok(())
}

/// Notes why the token is not renewed.
pub fn set_trouble(transaction: &Transaction<'_>, peer: Id, trouble: &Trouble, since: Timestamp) -> Result<(), Fault> {
    transaction.prepare_cached(SET_TROUBLE)?.execute(params![peer, trouble.kind.as_str(), trouble.reason, since])?;
    Ok(())
}

/// Notes that the peer has vouched for a token that came out of a backup.
pub fn vouch(transaction: &Transaction<'_>, peer: Id, epoch: i64) -> Result<(), Fault> {
    transaction.prepare_cached(VOUCH)?.execute(params![peer, epoch])?;
    Ok(())
}

/// The tokens held at a peer.
pub fn of_peer(connection: &Connection, seals: &Seals, epoch: i64, peer: Id) -> Result<Option<Held>, Fault> {
    let mut statement = connection.prepare_cached(SELECT)?;
    let mut rows = statement.query([peer])?;
    rows.next()?.map(|row| read(row, seals, epoch, peer)).transpose()
}

/// That, when and why the peer ended the link.
pub fn broken(connection: &Connection, peer: Id) -> Result<Option<Broken>, Fault> {
    let read = |row: &Row<'_>| Ok(Broken { since: row.get(0)?, why: row.get(1)? });
    Ok(connection.prepare_cached(BROKEN)?.query_row([peer], read).optional()?)
}

const fn place<'a>(peer: &'a Id, column: &'static str) -> Place<'a> {
    Place { table: TABLE, column, row: peer.as_bytes() }
}

fn read(row: &Row<'_>, seals: &Seals, epoch: i64, peer: Id) -> Result<Held, Fault> {
    let open = |column, sealed: Vec<u8>| seals.open_text(place(&peer, column), &sealed);
    let kind: Option<String> = row.get(14)?;
    let trouble = match (kind, row.get(15)?, row.get(16)?) {
        (Some(kind), Some(reason), Some(since)) => {
            let kind = TroubleKind::from_name(&kind).ok_or_else(|| super::corrupt(TABLE, "trouble"))?;
            Some((Trouble { kind, reason }, since))
        }
        _ => None,
    };
    let requested = moment(row, 3)?;
    let key: Option<Vec<u8>> = row.get(17)?;
    Ok(Held {
        access: open("access_sealed", row.get(1)?)?,
        validity: Validity { requested, life: Duration::from_millis(u64::try_from(row.get::<_, i64>(6)?).unwrap_or(0)) },
        issued_at: requested.wall,
        refresh: row.get::<_, Option<Vec<u8>>>(2)?.map(|sealed| open("refresh_sealed", sealed)).transpose()?,
        refresh_expires_at: row.get(7)?,
        scope: row.get(8)?,
        linked_as: row.get(9)?,
        linked_at: row.get(10)?,
        intent: Intent { attempts: row.get(12)?, refused: row.get(13)? },
        trouble,
        well_since: row.get(11)?,
        restored: row.get::<_, i64>(0)? != epoch,
        key: key.map(|sealed| signing_key(seals, place(&peer, "key_sealed"), &sealed)).transpose()?.map(Arc::new),
        is_bound: row.get(18)?,
    })
}
