//! Rows of handshakes.

use std::sync::Arc;

use rusqlite::{Connection, Row, params};

use super::rows::{from_json, json, signing_key};
use super::{Fault, Place, Seals, Transaction};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::outbound::handshake::{Handshake, Stage};
use crate::outbound::ticket::REMEMBERED;
use crate::secret::{Digest, ExposeSecret};

const TABLE: &str = "handshake";
const PUT: &str = "INSERT OR REPLACE INTO handshake
    (id, peer, ticket, epoch, browser, state, sent, expires_at, stage, verifier_sealed, stage_at, detail, purge_at,
    key_sealed) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
const SET_STAGE: &str =
    "UPDATE handshake SET stage = ?3, verifier_sealed = NULL, key_sealed = NULL, stage_at = ?4, detail = ?5 WHERE id = ?1 AND stage = ?2";
const REPLACE: &str = "UPDATE handshake SET stage = 'replaced', verifier_sealed = NULL, key_sealed = NULL, stage_at = NULL, detail = NULL
    WHERE peer = ?1 AND stage IN ('pressed', 'exchanging')";
const INTERRUPT: &str = "UPDATE handshake SET stage = 'failed', stage_at = ?1,
    detail = 'the exchange was interrupted by a restart' WHERE stage = 'exchanging'";
const SELECT: &str =
    "SELECT id, peer, ticket, epoch, browser, state, sent, expires_at, stage, verifier_sealed, stage_at, detail, key_sealed
    FROM handshake";

/// Keeps a handshake whose browser is sent to the peer: a new one, or one whose button was pressed again.
pub fn put(transaction: &Transaction<'_>, seals: &Seals, epoch: i64, handshake: &Handshake) -> Result<(), Fault> {
    let sealed = |column, secret: &[u8]| seals.seal(place(&handshake.id, column), secret);
    let (verifier, key) = match &handshake.stage {
        Stage::Pressed { verifier, key } => (
            Some(sealed("verifier_sealed", verifier.expose_secret().as_bytes())),
            key.as_ref().map(|key| sealed("key_sealed", &key.to_der())),
        ),
        _ => (None, None),
    };
    let (stage, at, detail) = columns(&handshake.stage);
    let row = params![
        handshake.id,
        handshake.peer,
        handshake.ticket,
        epoch,
        handshake.browser,
        handshake.state,
        json(&handshake.sent),
        handshake.expires_at,
        stage,
        verifier,
        at,
        detail,
        handshake.expires_at.plus(REMEMBERED),
        key
    ];
    transaction.prepare_cached(PUT)?.execute(row)?;
    Ok(())
}

/// Moves a handshake on from `from`; false when it is not there any more.
pub fn advance(transaction: &Transaction<'_>, id: Id, from: &'static str, to: &Stage) -> Result<bool, Fault> {
    let (stage, at, detail) = columns(to);
    Ok(transaction.prepare_cached(SET_STAGE)?.execute(params![id, from, stage, at, detail])? == 1)
}

/// The stage in which the browser is at the peer.
pub const PRESSED: &str = "pressed";

/// The stage in which the code is under way.
pub const EXCHANGING: &str = "exchanging";

/// Ends all of a peer's handshakes that are under way.
pub fn replace_all(transaction: &Transaction<'_>, peer: Id) -> Result<(), Fault> {
    transaction.prepare_cached(REPLACE)?.execute([peer])?;
    Ok(())
}

/// Ends the exchanges that a restart interrupted: a code is sent once.
pub fn interrupt_all(transaction: &Transaction<'_>, now: Timestamp) -> Result<(), Fault> {
    transaction.prepare_cached(INTERRUPT)?.execute([now])?;
    Ok(())
}

/// The handshake with that id.
pub fn by_id(connection: &Connection, seals: &Seals, epoch: i64, id: Id) -> Result<Option<Handshake>, Fault> {
    one(connection, seals, epoch, "WHERE id = ?1", params![id])
}

/// The handshake whose `state` has that digest.
pub fn by_state(connection: &Connection, seals: &Seals, epoch: i64, state: Digest) -> Result<Option<Handshake>, Fault> {
    one(connection, seals, epoch, "WHERE state = ?1", params![state])
}

fn one(
    connection: &Connection,
    seals: &Seals,
    epoch: i64,
    which: &str,
    parameters: impl rusqlite::Params,
) -> Result<Option<Handshake>, Fault> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} {which}"))?;
    let mut rows = statement.query(parameters)?;
    rows.next()?.map(|row| read(row, seals, epoch)).transpose()
}

const fn place<'a>(id: &'a Id, column: &'static str) -> Place<'a> {
    Place { table: TABLE, column, row: id.as_bytes() }
}

fn columns(stage: &Stage) -> (&'static str, Option<Timestamp>, Option<&str>) {
    match stage {
        Stage::Pressed { .. } => (PRESSED, None, None),
        Stage::Exchanging { since } => (EXCHANGING, Some(*since), None),
        Stage::Linked { at, linked_as } => ("linked", Some(*at), linked_as.as_deref()),
        Stage::Declined { at, words } => ("declined", Some(*at), words.as_deref()),
        Stage::Failed { at, why } => ("failed", Some(*at), Some(why)),
        Stage::Replaced => ("replaced", None, None),
    }
}

fn read(row: &Row<'_>, seals: &Seals, epoch: i64) -> Result<Handshake, Fault> {
    let id: Id = row.get(0)?;
    let verifier: Option<Vec<u8>> = row.get(9)?;
    let detail: Option<String> = row.get(11)?;
    let key: Option<Vec<u8>> = row.get(12)?;
    let stage: String = row.get(8)?;
    let stage = match (stage.as_str(), verifier, row.get(10)?) {
        // What came out of a backup may have been answered since.
        ("pressed" | "exchanging", ..) if row.get::<_, i64>(3)? != epoch => Stage::Replaced,
        ("pressed", Some(sealed), _) => Stage::Pressed {
            verifier: seals.open_text(place(&id, "verifier_sealed"), &sealed)?,
            key: key.map(|sealed| signing_key(seals, place(&id, "key_sealed"), &sealed)).transpose()?.map(Arc::new),
        },
        ("exchanging", _, Some(since)) => Stage::Exchanging { since },
        ("linked", _, Some(at)) => Stage::Linked { at, linked_as: detail },
        ("declined", _, Some(at)) => Stage::Declined { at, words: detail },
        ("failed", _, Some(at)) => Stage::Failed { at, why: detail.unwrap_or_default() },
        ("replaced", ..) => Stage::Replaced,
        _ => return Err(super::corrupt(TABLE, "stage")),
    };
    Ok(Handshake {
        id,
        peer: row.get(1)?,
        ticket: row.get(2)?,
        browser: row.get(4)?,
        state: row.get(5)?,
        sent: from_json(row, 6)?,
        expires_at: row.get(7)?,
        stage,
    })
}
