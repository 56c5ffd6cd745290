//! Rows of request URLs.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Fault, Transaction};
use crate::id::Id;
use crate::outbound::ticket::{Fate, REMEMBERED, Ticket};
use crate::secret::Digest;

const INSERT: &str = "INSERT INTO ticket (digest, peer, epoch, made_at, expires_at, login, replaced, handshake, purge_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, NULL, ?7)";
const USE: &str = "UPDATE ticket SET handshake = ?2 WHERE digest = ?1 AND handshake IS NULL AND replaced = 0";
const REPLACE: &str = "UPDATE ticket SET replaced = 1 WHERE peer = ?1 AND replaced = 0";
const BY_DIGEST: &str = "SELECT digest, peer, made_at, expires_at, login, replaced, handshake, epoch FROM ticket WHERE digest = ?1";
const LATEST: &str = "SELECT digest, peer, made_at, expires_at, login, replaced, handshake, epoch FROM ticket
    WHERE peer = ?1 AND replaced = 0 ORDER BY made_at DESC LIMIT 1";

/// Keeps a new ticket, that nobody has used.
pub fn insert(transaction: &Transaction<'_>, epoch: i64, ticket: &Ticket) -> Result<(), Fault> {
    let purge_at = ticket.expires_at.plus(REMEMBERED);
    let row = params![ticket.digest, ticket.peer, epoch, ticket.made_at, ticket.expires_at, ticket.login, purge_at];
    transaction.prepare_cached(INSERT)?.execute(row)?;
    Ok(())
}

/// Consumes a ticket for a handshake; false when somebody was quicker.
pub fn consume(transaction: &Transaction<'_>, digest: Digest, handshake: Id) -> Result<bool, Fault> {
    Ok(transaction.prepare_cached(USE)?.execute(params![digest, handshake])? == 1)
}

/// Takes all of a peer's tickets out of use.
pub fn replace_all(transaction: &Transaction<'_>, peer: Id) -> Result<(), Fault> {
    transaction.prepare_cached(REPLACE)?.execute([peer])?;
    Ok(())
}

/// The ticket with that digest.
pub fn by_digest(connection: &Connection, epoch: i64, digest: Digest) -> Result<Option<Ticket>, Fault> {
    Ok(connection.prepare_cached(BY_DIGEST)?.query_row([digest], |row| read(row, epoch)).optional()?)
}

/// The peer's newest ticket that was not replaced.
pub fn latest(connection: &Connection, epoch: i64, peer: Id) -> Result<Option<Ticket>, Fault> {
    Ok(connection.prepare_cached(LATEST)?.query_row([peer], |row| read(row, epoch)).optional()?)
}

fn read(row: &Row<'_>, epoch: i64) -> rusqlite::Result<Ticket> {
    // A ticket that came out of a backup may have been used after the backup was made.
    let is_restored = row.get::<_, i64>(7)? != epoch;
    let fate = match (row.get::<_, bool>(5)? || is_restored, row.get(6)?) {
        (true, _) => Fate::Replaced,
        (false, Some(handshake)) => Fate::Used { handshake },
        (false, None) => Fate::Open,
    };
    Ok(Ticket { digest: row.get(0)?, peer: row.get(1)?, made_at: row.get(2)?, expires_at: row.get(3)?, login: row.get(4)?, fate })
}
