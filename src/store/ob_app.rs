//! Rows of OB apps.

use std::sync::Arc;

use rusqlite::{Connection, Row, params};
use url::Url;

use super::{Fault, Place, Seals, Transaction};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::oauth::client_auth::Method;
use crate::oauth::signing_key::SigningKey;
use crate::outbound::keys::{Keys, Next};
use crate::outbound::ob_app::{Dpop, Grant, ObApp, Server};
use crate::secret::ExposeSecret;

const TABLE: &str = "ob_app";
const INSERT: &str = "INSERT INTO ob_app
    (id, tenant, name, client_id, client_secret_sealed, grant_type, scope, issuer, authorize_url, token_url, ca, created_at, guarded,
    auth_method, key_sealed, next_key_sealed, next_key_from, dpop)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18) ON CONFLICT (tenant, name) DO NOTHING";
const UPDATE: &str = "UPDATE ob_app SET name = ?2, client_id = ?3, client_secret_sealed = ?4, grant_type = ?5, scope = ?6, issuer = ?7,
    authorize_url = ?8, token_url = ?9, ca = ?10, guarded = ?11, auth_method = ?12, key_sealed = ?13, next_key_sealed = ?14,
    next_key_from = ?15, dpop = ?16 WHERE id = ?1";
const DELETE: &str = "DELETE FROM ob_app WHERE id = ?1";
const SELECT: &str =
    "SELECT id, tenant, name, client_id, client_secret_sealed, grant_type, scope, issuer, authorize_url, token_url, ca, created_at, guarded,
    auth_method, key_sealed, next_key_sealed, next_key_from, dpop FROM ob_app";

/// Adds an app; false when its tenant has one of that name.
pub fn insert(transaction: &Transaction<'_>, seals: &Seals, app: &ObApp) -> Result<bool, Fault> {
    let (issuer, authorize_url, token_url) = server_columns(app);
    let (key, next_key, next_key_from) = key_columns(seals, app);
    let row = params![
        app.id,
        app.tenant,
        app.name,
        app.client_id,
        sealed_secret(seals, app),
        app.grant.as_str(),
        app.scope,
        issuer,
        authorize_url,
        token_url,
        app.ca,
        app.created_at,
        app.guarded,
        app.auth_method.map(Method::as_str),
        key,
        next_key,
        next_key_from,
        app.dpop.as_str()
    ];
    Ok(transaction.prepare_cached(INSERT)?.execute(row)? == 1)
}

/// Writes all that can change of an app that exists.
pub fn update(transaction: &Transaction<'_>, seals: &Seals, app: &ObApp) -> Result<(), Fault> {
    let (issuer, authorize_url, token_url) = server_columns(app);
    let secret = sealed_secret(seals, app);
    let (key, next_key, next_key_from) = key_columns(seals, app);
    let row = params![
        app.id,
        app.name,
        app.client_id,
        secret,
        app.grant.as_str(),
        app.scope,
        issuer,
        authorize_url,
        token_url,
        app.ca,
        app.guarded,
        app.auth_method.map(Method::as_str),
        key,
        next_key,
        next_key_from,
        app.dpop.as_str()
    ];
    transaction.prepare_cached(UPDATE)?.execute(row)?;
    Ok(())
}

/// Deletes an app that no peer uses.
pub fn delete(transaction: &Transaction<'_>, id: Id) -> Result<(), Fault> {
    transaction.prepare_cached(DELETE)?.execute([id])?;
    Ok(())
}

/// The app with that id.
pub fn by_id(connection: &Connection, seals: &Seals, id: Id) -> Result<Option<ObApp>, Fault> {
    one(connection, seals, &format!("{SELECT} WHERE id = ?1"), params![id])
}

/// The tenant's app of that name.
pub fn by_name(connection: &Connection, seals: &Seals, tenant: &str, name: &str) -> Result<Option<ObApp>, Fault> {
    one(connection, seals, &format!("{SELECT} WHERE tenant = ?1 AND name = ?2"), params![tenant, name])
}

/// All apps of a tenant, by name.
pub fn of_tenant(connection: &Connection, seals: &Seals, tenant: &str) -> Result<Vec<ObApp>, Fault> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE tenant = ?1 ORDER BY name"))?;
    let mut rows = statement.query([tenant])?;
    let mut apps = Vec::new();
    while let Some(row) = rows.next()? {
        apps.push(read(row, seals)?);
    }
    Ok(apps)
}

fn one(connection: &Connection, seals: &Seals, sql: &str, parameters: impl rusqlite::Params) -> Result<Option<ObApp>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    rows.next()?.map(|row| read(row, seals)).transpose()
}

const fn place<'a>(id: &'a Id, column: &'static str) -> Place<'a> {
    Place { table: TABLE, column, row: id.as_bytes() }
}

fn sealed_secret(seals: &Seals, app: &ObApp) -> Option<Vec<u8>> {
    app.client_secret.as_ref().map(|secret| seals.seal(place(&app.id, "client_secret_sealed"), secret.expose_secret().as_bytes()))
}

fn key_columns(seals: &Seals, app: &ObApp) -> (Option<Vec<u8>>, Option<Vec<u8>>, Option<Timestamp>) {
    let Some(keys) = &app.keys else { return (None, None, None) };
    let sealed = |column, key: &SigningKey| seals.seal(place(&app.id, column), &key.to_der());
    let next = keys.next.as_ref();
    (Some(sealed("key_sealed", &keys.current)), next.map(|next| sealed("next_key_sealed", &next.key)), next.map(|next| next.from))
}

fn keys(row: &Row<'_>, seals: &Seals, id: &Id) -> Result<Option<Keys>, Fault> {
    let key = |index, column| {
        let sealed: Option<Vec<u8>> = row.get(index)?;
        sealed.map(|sealed| super::rows::signing_key(seals, place(id, column), &sealed)).transpose()
    };
    let Some(current) = key(14, "key_sealed")? else { return Ok(None) };
    let next = match (key(15, "next_key_sealed")?, row.get(16)?) {
        (Some(key), Some(from)) => Some(Next { key: Arc::new(key), from }),
        _ => None,
    };
    Ok(Some(Keys { current: Arc::new(current), next }))
}

fn server_columns(app: &ObApp) -> (Option<&str>, Option<&str>, Option<&str>) {
    match &app.server {
        Server::Issuer(issuer) => (Some(issuer), None, None),
        Server::Endpoints { authorize_url, token_url } => (None, authorize_url.as_ref().map(Url::as_str), Some(token_url.as_str())),
    }
}

fn read(row: &Row<'_>, seals: &Seals) -> Result<ObApp, Fault> {
    let id: Id = row.get(0)?;
    let secret: Option<Vec<u8>> = row.get(4)?;
    let grant: String = row.get(5)?;
    let method: Option<String> = row.get(13)?;
    let known_method = |name: &str| Method::from_name(name).ok_or_else(|| super::corrupt(TABLE, "auth_method"));
    let server = match row.get(7)? {
        Some(issuer) => Server::Issuer(issuer),
        None => Server::Endpoints {
            authorize_url: row.get::<_, Option<String>>(8)?.map(|text| super::url(TABLE, &text)).transpose()?,
            token_url: super::url(TABLE, &row.get::<_, String>(9)?)?,
        },
    };
    Ok(ObApp {
        id,
        tenant: row.get(1)?,
        name: row.get(2)?,
        client_id: row.get(3)?,
        auth_method: method.as_deref().map(known_method).transpose()?,
        client_secret: secret.map(|sealed| seals.open_text(place(&id, "client_secret_sealed"), &sealed)).transpose()?,
        keys: keys(row, seals, &id)?,
        dpop: Dpop::from_name(&row.get::<_, String>(17)?).ok_or_else(|| super::corrupt(TABLE, "dpop"))?,
        grant: Grant::from_name(&grant).ok_or_else(|| super::corrupt(TABLE, "grant_type"))?,
        scope: row.get(6)?,
        server,
        ca: row.get(10)?,
        created_at: row.get(11)?,
        guarded: row.get(12)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::peer::examples;

    #[tokio::test]
    async fn k5_an_app_reads_back_as_it_was_written_and_shows_no_secret() {
        let (_directory, store) = crate::store::temporary();
        let seals = store.seals().clone();
        let now = Timestamp::from_millis(5_000);
        let keys =
            Keys::new(SigningKey::generate()).rotated(SigningKey::generate_ed25519(), now.plus(std::time::Duration::from_secs(1)), now);
        let published = keys.published(now);
        let (read_back, sealed) = store
            .write(move |transaction| {
                assert!(insert(transaction, &seals, &examples::app())?);
                assert!(!insert(transaction, &seals, &ObApp { id: examples::id(9), ..examples::app() })?, "the name is taken");
                let changed = ObApp {
                    server: Server::Endpoints { authorize_url: None, token_url: super::super::url(TABLE, "https://x.example.com/t")? },
                    grant: Grant::ClientCredentials,
                    guarded: true,
                    auth_method: Some(Method::PrivateKeyJwt),
                    keys: Some(keys.clone()),
                    dpop: Dpop::Require,
                    ..examples::app()
                };
                update(transaction, &seals, &changed)?;
                let sealed: Vec<u8> = transaction.query_row("SELECT client_secret_sealed FROM ob_app", [], |row| row.get(0))?;
                Ok((by_name(transaction, &seals, "default", "instance2")?, sealed))
            })
            .await
            .expect("written");
        let app = read_back.expect("is there");
        assert_eq!(app.client_secret.expect("has one").expose_secret(), "secret");
        assert_eq!((app.grant, app.scope, app.guarded), (Grant::ClientCredentials, examples::app().scope, true));
        assert_eq!((app.auth_method, app.dpop), (Some(Method::PrivateKeyJwt), Dpop::Require));
        assert_eq!(app.keys.expect("it has some").published(now), published);
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
    }
}
