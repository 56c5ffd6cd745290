//! Rows of IB apps and of their secrets.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{from_json, json};
use super::{Fault, Seals, Transaction, Verified, used_once, user};
use crate::audit::Actor;
use crate::clock::Timestamp;
use crate::id::Id;
use crate::inbound::ib_app::{ClientSecret, IbApp};
use crate::inbound::security::Evidence;
use crate::oauth::assertion;
use crate::oauth::client_auth::{Credentials, Method};
use crate::oauth::redirect_uri::RedirectUri;
use crate::oauth::rotation::Rotation;
use crate::secret::{ExposeSecret, SecretString};

/// What the keyed hash of a client secret is made for.
const PURPOSE: &str = "client secret";

const INSERT: &str =
    "INSERT INTO ib_app (id, tenant, name, client_id, redirect_uris, grants, scope, access_ttl, rotation, native, created_at,
        security)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT DO NOTHING";
const UPDATE: &str =
    "UPDATE ib_app SET name = ?2, redirect_uris = ?3, grants = ?4, scope = ?5, access_ttl = ?6, rotation = ?7, native = ?8,
        security = ?9
    WHERE id = ?1";
const DELETE: &str = "UPDATE ib_app SET tenant = NULL, name = NULL, client_id = NULL, redirect_uris = '[]', security = '{}', purge_at = ?2
    WHERE id = ?1 AND purge_at IS NULL";
const BY_ID: &str = "SELECT id, tenant, name, client_id, redirect_uris, grants, scope, access_ttl, rotation, native, created_at, security
    FROM ib_app WHERE id = ?1 AND purge_at IS NULL";
const BY_CLIENT_ID: &str =
    "SELECT id, tenant, name, client_id, redirect_uris, grants, scope, access_ttl, rotation, native, created_at, security
    FROM ib_app WHERE client_id = ?1";
const BY_NAME: &str = "SELECT id, tenant, name, client_id, redirect_uris, grants, scope, access_ttl, rotation, native, created_at, security
    FROM ib_app WHERE tenant = ?1 AND name = ?2";
const OF_TENANT: &str =
    "SELECT id, tenant, name, client_id, redirect_uris, grants, scope, access_ttl, rotation, native, created_at, security
    FROM ib_app WHERE tenant = ?1 ORDER BY name";

const SECRETS: &str =
    "SELECT id, secret_hash, created_at, purge_at, last_used_at FROM client_secret WHERE app = ?1 ORDER BY created_at DESC";
const INSERT_SECRET: &str =
    "INSERT INTO client_secret (id, app, secret_hash, created_at, purge_at, last_used_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const DELETE_SECRETS: &str = "DELETE FROM client_secret WHERE app = ?1";
const USED: &str = "UPDATE client_secret SET last_used_at = ?2, secret_hash = ?3 WHERE id = ?1";

/// Adds an app; false when its name or its `client_id` is taken, or is somebody's login: either may be the subject of a token (RFC 9700 §4.15).
/// A realm never is, for it does not act for itself: it may be called like a person, and so its maker does not learn who there is.
pub fn insert(transaction: &Transaction<'_>, app: &IbApp) -> Result<bool, Fault> {
    if !app.is_realm() && user::by_login(transaction, &app.client_id)?.is_some() {
        return Ok(false);
    }
    let row = params![
        app.id,
        app.tenant,
        app.name,
        app.client_id,
        redirect_uris(app),
        json(&app.grants),
        app.scope,
        app.access_ttl.map(millis),
        app.rotation.map(rotation_text),
        app.native,
        app.created_at,
        json(&app.security),
    ];
    Ok(transaction.prepare_cached(INSERT)?.execute(row)? == 1)
}

/// Writes all that can change of an app that exists.
pub fn update(transaction: &Transaction<'_>, app: &IbApp) -> Result<(), Fault> {
    let row = params![
        app.id,
        app.name,
        redirect_uris(app),
        json(&app.grants),
        app.scope,
        app.access_ttl.map(millis),
        app.rotation.map(rotation_text),
        app.native,
        json(&app.security),
    ];
    transaction.prepare_cached(UPDATE)?.execute(row)?;
    Ok(())
}

/// Deletes an app, and with it its secrets, grants and tokens: nothing finds them any more, however many they are. Their rows go with the
/// purge, a little at a time. False when there is no such app.
pub fn delete(transaction: &Transaction<'_>, id: Id) -> Result<bool, Fault> {
    Ok(transaction.prepare_cached(DELETE)?.execute(params![id, transaction.now().wall])? == 1)
}

/// The app with that id.
pub fn by_id(connection: &Connection, id: Id) -> Result<Option<IbApp>, Fault> {
    Ok(connection.prepare_cached(BY_ID)?.query_row([id], read).optional()?)
}

/// The app with that `client_id`.
pub fn by_client_id(connection: &Connection, client_id: &str) -> Result<Option<IbApp>, Fault> {
    Ok(connection.prepare_cached(BY_CLIENT_ID)?.query_row([client_id], read).optional()?)
}

/// A tenant's app of that name.
pub fn by_name(connection: &Connection, tenant: &str, name: &str) -> Result<Option<IbApp>, Fault> {
    Ok(connection.prepare_cached(BY_NAME)?.query_row([tenant, name], read).optional()?)
}

/// A tenant's apps, by name.
pub fn of_tenant(connection: &Connection, tenant: &str) -> Result<Vec<IbApp>, Fault> {
    Ok(connection.prepare_cached(OF_TENANT)?.query_map([tenant], read)?.collect::<Result<_, _>>()?)
}

/// An app's secrets, newest first.
pub fn secrets(connection: &Connection, app: Id) -> Result<Vec<ClientSecret>, Fault> {
    let mut statement = connection.prepare_cached(SECRETS)?;
    let secrets = statement.query_map([app], |row| {
        Ok(ClientSecret { id: row.get(0)?, hash: row.get(1)?, created_at: row.get(2)?, expires_at: row.get(3)?, last_used_at: row.get(4)? })
    })?;
    Ok(secrets.collect::<Result<_, _>>()?)
}

/// The record of a new secret of `app`.
pub fn new_secret(seals: &Seals, id: Id, app: Id, secret: &SecretString, now: Timestamp) -> ClientSecret {
    let hash = seals.hash(PURPOSE, app.as_bytes(), secret.expose_secret().as_bytes());
    ClientSecret { id, hash, created_at: now, expires_at: None, last_used_at: None }
}

/// Puts `secrets` in the place of all that the app has.
pub fn replace_secrets(transaction: &Transaction<'_>, app: Id, secrets: &[ClientSecret]) -> Result<(), Fault> {
    transaction.prepare_cached(DELETE_SECRETS)?.execute([app])?;
    let mut insert = transaction.prepare_cached(INSERT_SECRET)?;
    for secret in secrets {
        insert.execute(params![secret.id, app, secret.hash, secret.created_at, secret.expires_at, secret.last_used_at])?;
    }
    Ok(())
}

/// Why what was shown authenticates no app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnApp {
    /// It is no app's.
    #[error("the client is not known by these credentials")]
    Unknown,
    /// The assertion was used before.
    #[error("client_assertion: it was used before")]
    Replayed,
    /// The assertion may be one that was used before a backup was restored. One that is made so much later is good.
    #[error(
        "this instance was restored from a backup and cannot know which assertions were used before; send one that is made after Retry-After"
    )]
    FromBeforeRestore(Duration),
}

/// The app that what was shown authenticates, if it does; notes that the secret, or the assertion, was used.
pub fn authenticate(transaction: &Transaction<'_>, seals: &Seals, shown: &Evidence) -> Result<Result<IbApp, NotAnApp>, Fault> {
    let app = authenticated(transaction, seals, shown)?;
    if let Ok(app) = &app {
        transaction.acts_as(Actor::Client { client_id: app.client_id.clone() });
    }
    Ok(app)
}

fn authenticated(transaction: &Transaction<'_>, seals: &Seals, shown: &Evidence) -> Result<Result<IbApp, NotAnApp>, Fault> {
    match shown {
        Evidence::Secret { readings, way } => {
            for credentials in readings {
                let Some(app) = by_client_id(transaction, &credentials.client_id)? else { continue };
                if app.security.method.takes_secret(*way) && is_secret_of(transaction, seals, &app, credentials)? {
                    return Ok(Ok(app));
                }
            }
            Ok(Err(NotAnApp::Unknown))
        }
        Evidence::Assertion { client_id, keys, asserted } => {
            let app = by_client_id(transaction, client_id)?;
            // The keys may have been replaced while the signature was checked.
            let app = app.filter(|app| app.security.method == Method::PrivateKeyJwt && app.security.keys.as_ref() == Some(keys));
            let Some(app) = app else { return Ok(Err(NotAnApp::Unknown)) };
            let begun_at: Option<Timestamp> = transaction.prepare_cached("SELECT begun_at FROM meta")?.query_row([], |row| row.get(0))?;
            if let Some(later) = begun_at.and_then(|begun_at| asserted.too_early_by(begun_at)) {
                return Ok(Err(NotAnApp::FromBeforeRestore(later)));
            }
            // Beyond its end too: the clock may be set back.
            let until = asserted.expires_at.plus(assertion::LONGEST);
            Ok(if used_once::take(transaction, asserted.once, until)? { Ok(app) } else { Err(NotAnApp::Replayed) })
        }
        Evidence::Certificate { client_id, method, keys, subject } => {
            // What it was judged by may have been replaced meanwhile.
            let is_same = |app: &IbApp| {
                let security = &app.security;
                security.method == *method && security.keys == *keys && security.subject == *subject
            };
            Ok(by_client_id(transaction, client_id)?.filter(is_same).ok_or(NotAnApp::Unknown))
        }
        Evidence::Name(client_id) => {
            Ok(by_client_id(transaction, client_id)?.filter(|app| !app.security.is_confidential()).ok_or(NotAnApp::Unknown))
        }
    }
}

fn is_secret_of(transaction: &Transaction<'_>, seals: &Seals, app: &IbApp, credentials: &Credentials) -> Result<bool, Fault> {
    let now = transaction.now().wall;
    let presented = credentials.secret.expose_secret().as_bytes();
    for secret in secrets(transaction, app.id)?.into_iter().filter(|secret| secret.is_live(now)) {
        let hash = match seals.verify(PURPOSE, app.id.as_bytes(), presented, &secret.hash) {
            Verified::No => continue,
            Verified::Yes if !secret.is_use_news(now) => return Ok(true),
            Verified::Yes => secret.hash,
            Verified::Stale => seals.hash(PURPOSE, app.id.as_bytes(), presented),
        };
        transaction.prepare_cached(USED)?.execute(params![secret.id, now, hash])?;
        return Ok(true);
    }
    Ok(false)
}

fn read(row: &Row<'_>) -> rusqlite::Result<IbApp> {
    let redirect_uris: Vec<String> = from_json(row, 4)?;
    let redirect_uris = redirect_uris.iter().map(|uri| RedirectUri::register(uri)).collect::<Result<_, _>>();
    let access_ttl: Option<i64> = row.get(7)?;
    let rotation: Option<String> = row.get(8)?;
    Ok(IbApp {
        id: row.get(0)?,
        tenant: row.get(1)?,
        name: row.get(2)?,
        client_id: row.get(3)?,
        redirect_uris: redirect_uris.map_err(|error| corrupt(4, error))?,
        grants: from_json(row, 5)?,
        scope: row.get(6)?,
        access_ttl: access_ttl.map(|millis| Duration::from_millis(millis.unsigned_abs())),
        rotation: rotation.map(|text| rotation_of(&text)).transpose()?,
        native: row.get(9)?,
        created_at: row.get(10)?,
        security: from_json(row, 11)?,
    })
}

fn redirect_uris(app: &IbApp) -> String {
    json(&app.redirect_uris.iter().map(RedirectUri::as_str).collect::<Vec<_>>())
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

const fn rotation_text(rotation: Rotation) -> &'static str {
    match rotation {
        Rotation::RetrySafe => "retry_safe",
        Rotation::Strict => "strict",
        Rotation::None => "none",
    }
}

fn rotation_of(text: &str) -> rusqlite::Result<Rotation> {
    match text {
        "retry_safe" => Ok(Rotation::RetrySafe),
        "strict" => Ok(Rotation::Strict),
        "none" => Ok(Rotation::None),
        other => Err(corrupt(8, NoRotation(other.to_owned()))),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no rotation is called {0:?}")]
struct NoRotation(String);

fn corrupt(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}
