//! Rows of tokens that have to be revoked at peers.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::signing_key;
use super::{Fault, Place, Seals, Transaction};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::outbound::client::{Authentication, Client};
use crate::outbound::keys::Keys;
use crate::outbound::peer::PeerTrust;
use crate::outbound::revocation::{Hint, Revocation, TRIED_FOR};
use crate::secret::ExposeSecret;

const TABLE: &str = "outbox";
const INSERT: &str =
    "INSERT INTO outbox (id, tenant, peer, token_sealed, hint, endpoint, guarded, client_id, client_secret_sealed, secret_in_form, ca, pin,
    attempts, next_at, purge_at, ob_app, client_key_sealed, audience)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)";
const DELETE: &str = "DELETE FROM outbox WHERE id = ?1";
const POSTPONE: &str = "UPDATE outbox SET attempts = attempts + 1, next_at = ?2 WHERE id = ?1";
const SELECT: &str =
    "SELECT id, tenant, peer, token_sealed, hint, endpoint, guarded, client_id, client_secret_sealed, secret_in_form, ca, pin, attempts,
    ob_app, client_key_sealed, audience FROM outbox";
const KEY_OF_APP: &str = "SELECT id, client_key_sealed FROM outbox WHERE ob_app = ?1 AND client_key_sealed IS NOT NULL LIMIT 1";
const NEXT: &str = "SELECT min(next_at) FROM outbox";

/// Keeps a token to revoke; it is due at once.
pub fn insert(transaction: &Transaction<'_>, seals: &Seals, id: Id, revocation: &Revocation, now: Timestamp) -> Result<(), Fault> {
    let (secret, key, audience) = match &revocation.client.authentication {
        Authentication::Nothing => (None, None, None),
        Authentication::Basic(secret) | Authentication::Form(secret) => (Some(secret), None, None),
        Authentication::Assertion { keys, audience } => (None, Some(keys.in_force(now)), Some(audience)),
    };
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
        matches!(revocation.client.authentication, Authentication::Form(_)),
        revocation.trust.ca,
        revocation.trust.pin,
        revocation.attempts,
        now,
        now.plus(TRIED_FOR),
        revocation.ob_app,
        key.map(|key| seals.seal(place(&id, "client_key_sealed"), &key.to_der())),
        audience
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
        due.push(read(row, connection, seals)?);
    }
    Ok(due)
}

/// The key that signs for an OB app that is gone, as long as something of it waits.
pub fn key_of_app(connection: &Connection, seals: &Seals, app: Id) -> Result<Option<Keys>, Fault> {
    let mut statement = connection.prepare_cached(KEY_OF_APP)?;
    let mut rows = statement.query([app])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (id, sealed): (Id, Vec<u8>) = (row.get(0)?, row.get(1)?);
    Ok(Some(Keys::new(signing_key(seals, place(&id, "client_key_sealed"), &sealed)?)))
}

/// When the next is due.
pub fn next_at(connection: &Connection) -> Result<Option<Timestamp>, Fault> {
    Ok(connection.prepare_cached(NEXT)?.query_row([], |row| row.get(0)).optional()?.flatten())
}

const fn place<'a>(id: &'a Id, column: &'static str) -> Place<'a> {
    Place { table: TABLE, column, row: id.as_bytes() }
}

fn read(row: &Row<'_>, connection: &Connection, seals: &Seals) -> Result<(Id, Revocation), Fault> {
    let id: Id = row.get(0)?;
    let open = |column, sealed: Vec<u8>| seals.open_text(place(&id, column), &sealed);
    let endpoint = super::url(TABLE, &row.get::<_, String>(5)?)?;
    let (client_id, ob_app): (String, Option<Id>) = (row.get(7)?, row.get(13)?);
    let secret = row.get::<_, Option<Vec<u8>>>(8)?.map(|sealed| open("client_secret_sealed", sealed)).transpose()?;
    let authentication = match (secret, row.get::<_, Option<Vec<u8>>>(14)?, row.get(15)?) {
        (Some(secret), ..) if row.get(9)? => Authentication::Form(secret),
        (Some(secret), ..) => Authentication::Basic(secret),
        (None, Some(sealed), Some(audience)) => {
            let app = ob_app.map(|app| super::ob_app::by_id(connection, seals, app)).transpose()?.flatten();
            // The key of then may be published no more.
            let keys = app.filter(|app| app.client_id == client_id).and_then(|app| app.keys);
            let keys = match keys {
                Some(keys) => keys,
                None => Keys::new(signing_key(seals, place(&id, "client_key_sealed"), &sealed)?),
            };
            Authentication::Assertion { keys, audience }
        }
        _ => Authentication::Nothing,
    };
    let revocation = Revocation {
        tenant: row.get(1)?,
        peer: row.get(2)?,
        token: open("token_sealed", row.get(3)?)?,
        hint: Hint::from_name(&row.get::<_, String>(4)?).ok_or_else(|| super::corrupt(TABLE, "hint"))?,
        guarded: row.get(6)?,
        client: Client { client_id, authentication, token_endpoint: endpoint.clone(), proof: None },
        ob_app,
        endpoint,
        trust: PeerTrust { ca: row.get(10)?, pin: row.get(11)? },
        attempts: row.get(12)?,
    };
    Ok((id, revocation))
}
