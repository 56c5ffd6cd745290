//! Rows of tokens that have to be revoked at peers.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Fault, Place, Seals, Transaction};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::outbound::exchange::Client;
use crate::outbound::peer::PeerTrust;
use crate::outbound::revocation::{Hint, Revocation, TRIED_FOR};
use crate::secret::ExposeSecret;

const TABLE: &str = "outbox";
const INSERT: &str =
    "INSERT INTO outbox (id, tenant, peer, token_sealed, hint, endpoint, guarded, client_id, client_secret_sealed, secret_in_form, ca, pin,
    attempts, next_at, purge_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
const DELETE: &str = "DELETE FROM outbox WHERE id = ?1";
const POSTPONE: &str = "UPDATE outbox SET attempts = attempts + 1, next_at = ?2 WHERE id = ?1";
const SELECT: &str =
    "SELECT id, tenant, peer, token_sealed, hint, endpoint, guarded, client_id, client_secret_sealed, secret_in_form, ca, pin, attempts
    FROM outbox";
const NEXT: &str = "SELECT min(next_at) FROM outbox";

/// Keeps a token to revoke; it is due at once.
pub fn insert(transaction: &Transaction<'_>, seals: &Seals, id: Id, revocation: &Revocation, now: Timestamp) -> Result<(), Fault> {
    let secret = revocation.client.client_secret.as_ref();
    let row = params![
        id,
        revocation.tenant,
        revocation.peer,
        seals.seal(place(&id, "token_sealed"), revocation.token.expose_secret().as_bytes()),
        revocation.hint.as_str(),
        revocation.endpoint.as_str(),
        revocation.guarded,
        revocation.client.client_id,
        secret.map(|secret| seals.seal(place(&id, "client_secret_sealed"), secret.expose_secret().as_bytes())),
        revocation.client.secret_in_form,
        revocation.trust.ca,
        revocation.trust.pin,
        revocation.attempts,
        now,
        now.plus(TRIED_FOR)
    ];
    transaction.prepare_cached(INSERT)?.execute(row)?;
    Ok(())
}

/// Forgets one that is settled.
pub fn delete(transaction: &Transaction<'_>, id: Id) -> Result<(), Fault> {
    transaction.prepare_cached(DELETE)?.execute([id])?;
    Ok(())
}

/// Counts an attempt, and says when the next is due.
pub fn postpone(transaction: &Transaction<'_>, id: Id, next_at: Timestamp) -> Result<(), Fault> {
    transaction.prepare_cached(POSTPONE)?.execute(params![id, next_at])?;
    Ok(())
}

/// Up to `most` that are due at `now`, the longest due first.
pub fn due(connection: &Connection, seals: &Seals, now: Timestamp, most: u32) -> Result<Vec<(Id, Revocation)>, Fault> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE next_at <= ?1 ORDER BY next_at LIMIT ?2"))?;
    let mut rows = statement.query(params![now, most])?;
    let mut due = Vec::new();
    while let Some(row) = rows.next()? {
        due.push(read(row, seals)?);
    }
    Ok(due)
}

/// When the next is due.
pub fn next_at(connection: &Connection) -> Result<Option<Timestamp>, Fault> {
    Ok(connection.prepare_cached(NEXT)?.query_row([], |row| row.get(0)).optional()?.flatten())
}

const fn place<'a>(id: &'a Id, column: &'static str) -> Place<'a> {
    Place { table: TABLE, column, row: id.as_bytes() }
}

fn read(row: &Row<'_>, seals: &Seals) -> Result<(Id, Revocation), Fault> {
    let id: Id = row.get(0)?;
    let open = |column, sealed: Vec<u8>| seals.open_text(place(&id, column), &sealed);
    let endpoint = super::url(TABLE, &row.get::<_, String>(5)?)?;
    let revocation = Revocation {
        tenant: row.get(1)?,
        peer: row.get(2)?,
        token: open("token_sealed", row.get(3)?)?,
        hint: Hint::from_name(&row.get::<_, String>(4)?).ok_or_else(|| super::corrupt(TABLE, "hint"))?,
        guarded: row.get(6)?,
        client: Client {
            client_id: row.get(7)?,
            client_secret: row.get::<_, Option<Vec<u8>>>(8)?.map(|sealed| open("client_secret_sealed", sealed)).transpose()?,
            secret_in_form: row.get(9)?,
            token_endpoint: endpoint.clone(),
        },
        endpoint,
        trust: PeerTrust { ca: row.get(10)?, pin: row.get(11)? },
        attempts: row.get(12)?,
    };
    Ok((id, revocation))
}
