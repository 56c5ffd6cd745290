//! Rows of authorizations: questions, answers, codes.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Fault, Transaction};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::inbound::authorize::{Destination, Request};
use crate::inbound::consent::{Authorization, Stage};
use crate::oauth::pkce::Challenge;
use crate::secret::Digest;

/// How long an answered question is kept, so that a second answer is told from a wrong one.
const KEPT_AFTER_END: Duration = Duration::from_secs(60 * 60);

/// Questions that one browser may have open; the oldest go.
const OPEN_AT_MOST: u32 = 16;

const INSERT: &str = "INSERT INTO authorization
        (id, app, user, session, redirect_uri, state, scope, challenge, epoch, stage, expires_at, purge_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, (SELECT epoch FROM meta), 'pending', ?9, ?10)";
const LIMIT_OPEN: &str = "DELETE FROM authorization WHERE id IN
    (SELECT id FROM authorization WHERE session = ?1 AND stage = 'pending' ORDER BY id DESC LIMIT -1 OFFSET ?2)";
const MOVE: &str = "UPDATE authorization SET stage = ?2, code = ?3, grant = ?4, expires_at = ?5, purge_at = ?6 WHERE id = ?1";
const BY_ID: &str = "SELECT id, app, user, session, redirect_uri, state, scope, challenge, stage, code, grant, expires_at
    FROM authorization WHERE id = ?1 AND epoch = (SELECT epoch FROM meta)";
const BY_CODE: &str = "SELECT id, app, user, session, redirect_uri, state, scope, challenge, stage, code, grant, expires_at
    FROM authorization WHERE code = ?1 AND epoch = (SELECT epoch FROM meta)";

/// Adds a question that nobody has answered, until `until`.
pub fn insert(transaction: &Transaction<'_>, authorization: &Authorization, until: Timestamp) -> Result<(), Fault> {
    let Request { destination, scope, challenge } = &authorization.request;
    transaction.prepare_cached(INSERT)?.execute(params![
        authorization.id,
        authorization.app,
        authorization.user,
        authorization.session,
        destination.redirect_uri,
        destination.state,
        scope,
        challenge.as_str(),
        until,
        until.plus(KEPT_AFTER_END),
    ])?;
    transaction.prepare_cached(LIMIT_OPEN)?.execute(params![authorization.session, OPEN_AT_MOST])?;
    Ok(())
}

/// Moves an authorization on to `stage`.
pub fn move_to(transaction: &Transaction<'_>, id: Id, stage: &Stage) -> Result<(), Fault> {
    let now = transaction.now().wall;
    let (name, code, grant, until) = match stage {
        Stage::Pending { until } => ("pending", None, None, *until),
        Stage::Allowed { code, until } => ("allowed", Some(code), None, *until),
        Stage::Exchanged { code, grant } => ("exchanged", Some(code), Some(grant), now),
        Stage::Burnt { code } => ("burnt", Some(code), None, now),
        Stage::Declined => ("declined", None, None, now),
    };
    // One that was exchanged goes with its grant.
    let purge_at = grant.is_none().then(|| until.plus(KEPT_AFTER_END));
    transaction.prepare_cached(MOVE)?.execute(params![id, name, code, grant, until, purge_at])?;
    Ok(())
}

/// The authorization with that id.
pub fn by_id(connection: &Connection, id: Id) -> Result<Option<Authorization>, Fault> {
    Ok(connection.prepare_cached(BY_ID)?.query_row([id], read).optional()?)
}

/// The authorization whose code has that digest, at whatever stage.
pub fn by_code(connection: &Connection, code: Digest) -> Result<Option<Authorization>, Fault> {
    Ok(connection.prepare_cached(BY_CODE)?.query_row([code], read).optional()?)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Authorization> {
    let challenge: String = row.get(7)?;
    let stage = match row.get::<_, String>(8)?.as_str() {
        "pending" => Stage::Pending { until: row.get(11)? },
        "allowed" => Stage::Allowed { code: row.get(9)?, until: row.get(11)? },
        "exchanged" => Stage::Exchanged { code: row.get(9)?, grant: row.get(10)? },
        "burnt" => Stage::Burnt { code: row.get(9)? },
        // The table allows no sixth.
        _ => Stage::Declined,
    };
    let challenge: Challenge =
        challenge.parse().map_err(|error| rusqlite::Error::FromSqlConversionFailure(7, rusqlite::types::Type::Text, Box::new(error)))?;
    Ok(Authorization {
        id: row.get(0)?,
        app: row.get(1)?,
        user: row.get(2)?,
        session: row.get(3)?,
        request: Request { destination: Destination { redirect_uri: row.get(4)?, state: row.get(5)? }, scope: row.get(6)?, challenge },
        stage,
    })
}
