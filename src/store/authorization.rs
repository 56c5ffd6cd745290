//! Rows of authorizations: questions, answers, codes.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Fault, Place, Seals, Transaction};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::inbound::authorize::{Destination, Request};
use crate::inbound::consent::{Authorization, Stage};
use crate::oauth::pkce::Challenge;
use crate::oauth::thumbprint::KeyThumbprint;
use crate::secret::{Digest, ExposeSecret};

/// How long an answered question is kept, so that a second answer is told from a wrong one.
const KEPT_AFTER_END: Duration = Duration::from_secs(60 * 60);

/// Questions that one browser may have open; the oldest go.
const OPEN_AT_MOST: u32 = 16;

const INSERT: &str = "INSERT INTO authorization
        (id, app, user, session, redirect_uri, state_sealed, scope, challenge, epoch, stage, expires_at, purge_at,
         names_redirect_uri, dpop_key, pushed)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, (SELECT epoch FROM meta), 'pending', ?9, ?10, ?11, ?12, ?13)";
const LIMIT_OPEN: &str = "DELETE FROM authorization WHERE id IN
    (SELECT id FROM authorization WHERE session = ?1 AND stage = 'pending' ORDER BY id DESC LIMIT -1 OFFSET ?2)";
const MOVE: &str =
    "UPDATE authorization SET stage = ?2, state_sealed = NULL, code = ?3, grant = ?4, expires_at = ?5, purge_at = ?6 WHERE id = ?1";
const BY_ID: &str = "SELECT id, app, user, session, redirect_uri, state_sealed, scope, challenge, stage, code, grant, expires_at,
        names_redirect_uri, dpop_key, pushed
    FROM authorization WHERE id = ?1 AND epoch = (SELECT epoch FROM meta)
        AND EXISTS (SELECT 1 FROM ib_app a WHERE a.id = authorization.app AND a.purge_at IS NULL)
        AND EXISTS (SELECT 1 FROM user u WHERE u.id = authorization.user AND u.purge_at IS NULL)";
const BY_CODE: &str = "SELECT id, app, user, session, redirect_uri, state_sealed, scope, challenge, stage, code, grant, expires_at,
        names_redirect_uri, dpop_key, pushed
    FROM authorization WHERE code = ?1 AND epoch = (SELECT epoch FROM meta)
        AND EXISTS (SELECT 1 FROM ib_app a WHERE a.id = authorization.app AND a.purge_at IS NULL)
        AND EXISTS (SELECT 1 FROM user u WHERE u.id = authorization.user AND u.purge_at IS NULL)";
/// Those under way of a person, at one app or at all.
pub(super) const FORGET_OF: &str = "DELETE FROM authorization INDEXED BY authorization_under_way
    WHERE user = ?1 AND stage IN ('pending', 'allowed') AND (?2 IS NULL OR app = ?2)";

/// Adds a question that nobody has answered, until `until`.
pub fn insert(transaction: &Transaction<'_>, seals: &Seals, authorization: &Authorization, until: Timestamp) -> Result<(), Fault> {
    let Request { destination, scope, challenge, dpop_key } = &authorization.request;
    let state = destination.state.as_ref().map(|state| seals.seal(place(&authorization.id), state.as_bytes()));
    transaction.prepare_cached(INSERT)?.execute(params![
        authorization.id,
        authorization.app,
        authorization.user,
        authorization.session,
        destination.redirect_uri,
        state,
        scope,
        challenge.as_ref().map_or("", Challenge::as_str),
        until,
        until.plus(KEPT_AFTER_END),
        destination.is_named,
        dpop_key.map(|key| key.to_string()),
        authorization.pushed,
    ])?;
    transaction.prepare_cached(LIMIT_OPEN)?.execute(params![authorization.session, OPEN_AT_MOST])?;
    Ok(())
}

/// Moves an authorization on to `stage`; its `state` has been taken along by the answer, and is kept no longer.
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

/// Forgets the questions that are put to a person, and the codes that the person allowed and nobody exchanged: those of `app`, or of all apps.
pub fn forget_of(transaction: &Transaction<'_>, user: Id, app: Option<Id>) -> Result<(), Fault> {
    transaction.prepare_cached(FORGET_OF)?.execute(params![user, app])?;
    Ok(())
}

/// The authorization with that id, unless who was asked, or the app, is gone.
pub fn by_id(connection: &Connection, seals: &Seals, id: Id) -> Result<Option<Authorization>, Fault> {
    let row = connection.prepare_cached(BY_ID)?.query_row([id], read).optional()?;
    row.map(|row| opened(row, seals)).transpose()
}

/// The authorization whose code has that digest, at whatever stage, unless who allowed it, or the app, is gone. Whether that person would still be
/// let is asked by whoever exchanges it.
pub fn by_code(connection: &Connection, seals: &Seals, code: Digest) -> Result<Option<Authorization>, Fault> {
    let row = connection.prepare_cached(BY_CODE)?.query_row([code], read).optional()?;
    row.map(|row| opened(row, seals)).transpose()
}

const fn place(id: &Id) -> Place<'_> {
    Place { table: "authorization", column: "state_sealed", row: id.as_bytes() }
}

/// The authorization of a row whose `state` is still sealed.
fn opened((mut authorization, state): (Authorization, Option<Vec<u8>>), seals: &Seals) -> Result<Authorization, Fault> {
    let state = state.map(|sealed| seals.open_text(place(&authorization.id), &sealed)).transpose()?;
    authorization.request.destination.state = state.map(|state| state.expose_secret().to_owned());
    Ok(authorization)
}

fn read(row: &Row<'_>) -> rusqlite::Result<(Authorization, Option<Vec<u8>>)> {
    let challenge: String = row.get(7)?;
    let stage = match row.get::<_, String>(8)?.as_str() {
        "pending" => Stage::Pending { until: row.get(11)? },
        "allowed" => Stage::Allowed { code: row.get(9)?, until: row.get(11)? },
        "exchanged" => Stage::Exchanged { code: row.get(9)?, grant: row.get(10)? },
        "burnt" => Stage::Burnt { code: row.get(9)? },
        "declined" => Stage::Declined,
        _ => return Err(corrupt(8, NoStage)),
    };
    let challenge = Some(challenge).filter(|text| !text.is_empty()).map(|text| text.parse::<Challenge>()).transpose();
    let challenge = challenge.map_err(|error| corrupt(7, error))?;
    let dpop_key: Option<String> = row.get(13)?;
    let dpop_key = dpop_key.map(|text| KeyThumbprint::from_text(&text).ok_or_else(|| corrupt(13, NoThumbprint))).transpose()?;
    let destination = Destination { redirect_uri: row.get(4)?, state: None, is_named: row.get(12)? };
    let authorization = Authorization {
        id: row.get(0)?,
        app: row.get(1)?,
        user: row.get(2)?,
        session: row.get(3)?,
        request: Request { destination, scope: row.get(6)?, challenge, dpop_key },
        pushed: row.get(14)?,
        stage,
    };
    Ok((authorization, row.get(5)?))
}

fn corrupt(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

#[derive(Debug, thiserror::Error)]
#[error("not a stage of an authorization")]
struct NoStage;

#[derive(Debug, thiserror::Error)]
#[error("not the thumbprint of a key")]
struct NoThumbprint;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sample::{app, linked, person};
    use crate::store::temporary;

    #[tokio::test]
    async fn the_clients_state_is_sealed_and_gone_once_it_was_answered() {
        let (_directory, store) = temporary();
        linked(&store).await;
        let id = Id::from_bytes([9; 16]);
        let until = Timestamp::from_millis(4_000_000_000_000);
        let destination =
            Destination { redirect_uri: "https://one.example/cb".to_owned(), state: Some("p2ph_of_the_client".to_owned()), is_named: true };
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".parse().expect("a challenge");
        let request = Request { destination, scope: app().scope, challenge: Some(challenge), dpop_key: None };
        let session = Digest::of("a session");
        let asked = Authorization { id, app: app().id, user: person().id, session, request, pushed: None, stage: Stage::Pending { until } };
        let (seals, put) = (store.seals().clone(), asked.clone());
        store.write(move |transaction| insert(transaction, &seals, &put, until)).await.expect("written");
        let kept = async || {
            let seals = store.seals().clone();
            let look = move |connection: &Connection| {
                let sealed: Option<Vec<u8>> =
                    connection.query_row("SELECT state_sealed FROM authorization WHERE id = ?1", [id], |row| row.get(0))?;
                Ok((sealed, by_id(connection, &seals, id)?))
            };
            store.read(look).await.expect("read")
        };
        let (sealed, found) = kept().await;
        let sealed = sealed.expect("a state");
        assert!(!sealed.windows(5).any(|part| part == b"p2ph_"));
        assert_eq!(found, Some(asked));
        store.write(move |transaction| move_to(transaction, id, &Stage::Declined)).await.expect("written");
        let (sealed, found) = kept().await;
        assert_eq!((sealed, found.map(|found| found.request.destination.state)), (None, Some(None)));
    }

    #[test]
    fn a_stage_that_there_is_not_is_corruption_and_no_answer() {
        let database = Connection::open_in_memory().expect("a database");
        let staged = |stage: &str| {
            let sql = "SELECT zeroblob(16), zeroblob(16), zeroblob(16), zeroblob(32), 'https://one.example/cb', NULL, 'a', '', ?1,
                NULL, NULL, 0, 1, NULL, NULL";
            database.query_row(sql, [stage], read).map(|(authorization, _)| authorization.stage)
        };
        assert_eq!(staged("declined"), Ok(Stage::Declined));
        assert_eq!(staged("pending"), Ok(Stage::Pending { until: Timestamp::from_millis(0) }));
        let unknown = staged("forgotten").expect_err("no stage");
        assert!(unknown.to_string().contains("not a stage of an authorization"), "{unknown}");
    }
}
