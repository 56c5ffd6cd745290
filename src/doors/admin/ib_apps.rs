//! IB apps over the admin API: who may call us.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Router, routing};
use rusqlite::Connection;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::document::{self, Document};
use super::{AdminError, AdminState};
use crate::config::Config;
use crate::id::Id;
use crate::inbound::ib_app::{self, GrantType, IbApp};
use crate::instance::Instance;
use crate::oauth::redirect_uri::RedirectUri;
use crate::oauth::rotation::Rotation;
use crate::oauth::scope::Scope;
use crate::oauth::token::{self, Kind};
use crate::outbound::ob_app::is_name;
use crate::secret::{ExposeSecret, SecretString};
use crate::store::grant::{self, ShownGrant};
use crate::store::{Fault, Transaction, ib_app as rows};

const KIND: &str = "ib-app";

/// The longest life that an access token may be given: a year.
const LONGEST_LIFE: u64 = 366 * 24 * 60 * 60;

/// The longest that a replaced secret may stay good: a year.
const LONGEST_OVERLAP: u64 = 366 * 24 * 60 * 60;

/// `/tenants/{tenant}/ib-apps`, one of them, and a new secret.
pub(super) fn router() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/tenants/{tenant}/ib-apps", routing::get(list).post(create))
        .route("/tenants/{tenant}/ib-apps/{name}", routing::get(show).patch(update).delete(delete))
        .route("/tenants/{tenant}/ib-apps/{name}/rotate-secret", routing::post(rotate_secret))
}

#[derive(Deserialize)]
struct Create {
    name: String,
    client_id: Option<String>,
    peer_url: Option<String>,
    redirect_uris: Option<Vec<String>>,
    client_secret: Option<SecretString>,
    grants: Option<Vec<String>>,
    scopes: Option<Vec<String>>,
    access_ttl: Option<u64>,
    rotation: Option<Rotation>,
    native: Option<bool>,
    #[serde(default)]
    or_update: bool,
}

#[derive(Deserialize)]
struct Update {
    peer_url: Option<String>,
    redirect_uris: Option<Vec<String>>,
    client_secret: Option<SecretString>,
    grants: Option<Vec<String>>,
    scopes: Option<Vec<String>>,
    access_ttl: Option<u64>,
    rotation: Option<Rotation>,
    native: Option<bool>,
}

#[derive(Deserialize)]
struct Delete {
    /// What peers hold by the app ends with it.
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
struct RotateSecret {
    overlap: Option<u64>,
}

/// What is given for an app, checked; what is not given stays as it is.
#[derive(Clone, Default)]
struct Settings {
    redirect_uris: Option<Vec<RedirectUri>>,
    grants: Option<BTreeSet<GrantType>>,
    scope: Option<Scope>,
    access_ttl: Option<Duration>,
    rotation: Option<Rotation>,
    native: Option<bool>,
    secret: Option<SecretString>,
}

impl Settings {
    fn checked(given: Update, config: &Config, tenant: &str) -> Result<Self, AdminError> {
        let redirect_uris = match (given.peer_url, given.redirect_uris) {
            (None, None) => None,
            (peer_url, others) => {
                let callback = peer_url.map(|url| callback_of(&url)).transpose()?;
                let texts = callback.into_iter().chain(others.unwrap_or_default());
                Some(texts.map(|text| redirect_uri(&text)).collect::<Result<_, _>>()?)
            }
        };
        Ok(Self {
            redirect_uris,
            grants: given.grants.as_deref().map(grants).transpose()?,
            scope: given.scopes.as_deref().map(|words| scope(words, config, tenant)).transpose()?,
            access_ttl: given.access_ttl.map(access_ttl).transpose()?,
            rotation: given.rotation,
            native: given.native,
            secret: given.client_secret.map(secret).transpose()?,
        })
    }

    /// `app` with what is given.
    fn applied_to(&self, mut app: IbApp) -> IbApp {
        if let Some(redirect_uris) = &self.redirect_uris {
            app.redirect_uris.clone_from(redirect_uris);
        }
        if let Some(grants) = &self.grants {
            app.grants.clone_from(grants);
        }
        if let Some(scope) = &self.scope {
            app.scope.clone_from(scope);
        }
        app.access_ttl = self.access_ttl.or(app.access_ttl);
        app.rotation = self.rotation.or(app.rotation);
        app.native = self.native.unwrap_or(app.native);
        app
    }
}

async fn list(State(state): State<Arc<AdminState>>, Path(tenant): Path<String>) -> Result<Response, AdminError> {
    let apps = state.instance.store.read(move |connection| rows::of_tenant(connection, &tenant)).await?;
    let config = state.instance.config();
    Ok(document::shown(apps.iter().map(|app| resource(app, &config, None)).collect::<Vec<_>>()))
}

async fn show(State(state): State<Arc<AdminState>>, Path((tenant, name)): Path<(String, String)>) -> Result<Response, AdminError> {
    let wanted = name.clone();
    let app = state.instance.store.read(move |connection| find(connection, &tenant, &wanted)).await?;
    let app = app.ok_or_else(|| AdminError::not_found(KIND, &name))?;
    Ok(document::shown(resource(&app, &state.instance.config(), None)))
}

/// What became of a new app.
enum Made {
    New(IbApp),
    Updated(IbApp),
    NameTaken,
    ClientIdTaken,
}

async fn create(State(state): State<Arc<AdminState>>, Path(tenant): Path<String>, document: Document) -> Result<Response, AdminError> {
    let Create { name, client_id, peer_url, redirect_uris, client_secret, grants, scopes, access_ttl, rotation, native, or_update } =
        document.attributes(KIND)?;
    let config = state.instance.config();
    if !is_name(&name) {
        return Err(AdminError::bad_attribute("name", name, "1 to 63 letters, digits, '.', '_' and '-', beginning with a letter or digit"));
    }
    if let Some(client_id) = client_id.as_ref().filter(|client_id| !ib_app::is_client_id(client_id)) {
        return Err(AdminError::bad_attribute("client_id", client_id, "1 to 255 printable ASCII characters without spaces and colons"));
    }
    let given = Update { peer_url, redirect_uris, client_secret, grants, scopes, access_ttl, rotation, native };
    let settings = Settings::checked(given, &config, &tenant)?;

    let mut app = settings.applied_to(fresh(&state.instance, tenant, name.clone(), client_id.clone()));
    if app.redirect_uris.is_empty() && app.may_use(GrantType::AuthorizationCode) {
        return Err(AdminError::bad_attribute("redirect_uris", "none", "--peer-url or --redirect-uri: where browsers are sent back to"));
    }
    if app.scope.is_empty() {
        let known: Vec<_> = config.scopes_of(&app.tenant).collect();
        app.scope = match known.as_slice() {
            // There is nothing else that it could be meant for.
            [only] => only.parse().expect("the configuration's scopes are scopes"),
            [] => {
                let error = AdminError::bad_attribute("scopes", "none", "a scope of the tenant, of which [scopes] names none");
                return Err(error.next(format!("in [scopes]: NAME = {{ text = \"…\", tenant = \"{}\" }}", app.tenant)));
            }
            several => {
                return Err(AdminError::bad_attribute("scopes", "none", format!("at least one of [scopes]: {}", several.join(", "))));
            }
        };
    }
    let secret = settings.secret.clone().unwrap_or_else(|| token::mint(Kind::ClientSecret, state.instance.random.as_ref()));
    let secret_id = Id::new(app.created_at, state.instance.random.as_ref());
    let seals = state.instance.store.seals().clone();
    let given = secret.clone();
    let judge = move |transaction: &Transaction<'_>| {
        if let Some(old) = rows::by_name(transaction, &app.tenant, &app.name)? {
            if !or_update {
                return Ok(Made::NameTaken);
            }
            if client_id.as_ref().is_some_and(|client_id| *client_id != old.client_id) {
                return Ok(Made::ClientIdTaken);
            }
            let app = settings.applied_to(old);
            rows::update(transaction, &app)?;
            if let Some(secret) = &settings.secret {
                let secret = rows::new_secret(&seals, secret_id, app.id, secret, transaction.now().wall);
                rows::replace_secrets(transaction, app.id, &[secret])?;
            }
            return Ok(Made::Updated(app));
        }
        if !rows::insert(transaction, &app)? {
            return Ok(Made::ClientIdTaken);
        }
        let secret = rows::new_secret(&seals, secret_id, app.id, &given, app.created_at);
        rows::replace_secrets(transaction, app.id, &[secret])?;
        Ok(Made::New(app.clone()))
    };
    match state.instance.store.write(judge).await? {
        Made::New(app) => Ok(document::created(resource(&app, &config, Some(&secret)))),
        Made::Updated(app) => {
            // What a token in the table says of its app may have changed.
            state.instance.tokens.forget();
            Ok(document::shown(resource(&app, &config, None)))
        }
        Made::NameTaken => Err(AdminError::exists(KIND, &name)),
        // Without saying whose it is: another tenant's apps are nobody else's affair.
        Made::ClientIdTaken => Err(AdminError::new(http::StatusCode::CONFLICT, "exists", "the client_id is taken")
            .next("choose another client_id, or leave it out and one is made")),
    }
}

async fn update(
    State(state): State<Arc<AdminState>>,
    Path((tenant, name)): Path<(String, String)>,
    document: Document,
) -> Result<Response, AdminError> {
    let config = state.instance.config();
    let settings = Settings::checked(document.attributes(KIND)?, &config, &tenant)?;
    let secret_id = Id::new(state.instance.clock.now().wall, state.instance.random.as_ref());
    let seals = state.instance.store.seals().clone();
    let wanted = name.clone();
    let judge = move |transaction: &Transaction<'_>| {
        let Some(old) = find(transaction, &tenant, &wanted)? else { return Ok(None) };
        let app = settings.applied_to(old);
        rows::update(transaction, &app)?;
        if let Some(secret) = &settings.secret {
            let secret = rows::new_secret(&seals, secret_id, app.id, secret, transaction.now().wall);
            rows::replace_secrets(transaction, app.id, &[secret])?;
        }
        Ok(Some(app))
    };
    let app = state.instance.store.write(judge).await?.ok_or_else(|| AdminError::not_found(KIND, &name))?;
    state.instance.tokens.forget();
    Ok(document::shown(resource(&app, &config, None)))
}

async fn rotate_secret(
    State(state): State<Arc<AdminState>>,
    Path((tenant, name)): Path<(String, String)>,
    document: Document,
) -> Result<Response, AdminError> {
    let RotateSecret { overlap } = document.attributes(KIND)?;
    let overlap = overlap.unwrap_or(24 * 60 * 60);
    if overlap > LONGEST_OVERLAP {
        return Err(AdminError::bad_attribute("overlap", format!("{overlap} seconds"), "at most a year"));
    }
    let secret = token::mint(Kind::ClientSecret, state.instance.random.as_ref());
    let secret_id = Id::new(state.instance.clock.now().wall, state.instance.random.as_ref());
    let seals = state.instance.store.seals().clone();
    let (wanted, made) = (name.clone(), secret.clone());
    let judge = move |transaction: &Transaction<'_>| {
        let Some(app) = find(transaction, &tenant, &wanted)? else { return Ok(None) };
        let now = transaction.now().wall;
        let mut secrets = ib_app::rotated(rows::secrets(transaction, app.id)?, now, Duration::from_secs(overlap));
        secrets.push(rows::new_secret(&seals, secret_id, app.id, &made, now));
        rows::replace_secrets(transaction, app.id, &secrets)?;
        Ok(Some(app))
    };
    let app = state.instance.store.write(judge).await?.ok_or_else(|| AdminError::not_found(KIND, &name))?;
    Ok(document::shown(resource(&app, &state.instance.config(), Some(&secret))))
}

/// What became of an app that was to be deleted.
enum Deleted {
    /// It is gone, and these grants with it.
    Gone(Vec<Id>),
    /// Peers hold these by it.
    InUse(Vec<ShownGrant>),
    Missing,
}

/// Deletes an app by which nobody holds anything; with `force` what peers hold by it ends with it, at once.
async fn delete(
    State(state): State<Arc<AdminState>>,
    Path((tenant, name)): Path<(String, String)>,
    document: Document,
) -> Result<Response, AdminError> {
    let Delete { force } = document.attributes(KIND)?;
    let wanted = name.clone();
    let judge = move |transaction: &Transaction<'_>| {
        let Some(app) = find(transaction, &tenant, &wanted)? else { return Ok(Deleted::Missing) };
        let now = transaction.now().wall;
        let mut held = grant::of_tenant(transaction, &tenant)?;
        held.retain(|held| held.grant.app == app.id && held.grant.is_active(now));
        if !held.is_empty() && !force {
            return Ok(Deleted::InUse(held));
        }
        let grants = grant::of_app(transaction, app.id)?;
        rows::delete(transaction, app.id)?;
        Ok(Deleted::Gone(grants))
    };
    let grants = match state.instance.store.write(judge).await? {
        Deleted::Gone(grants) => grants,
        Deleted::InUse(held) => return Err(held_by_peers(&name, &held)),
        Deleted::Missing => return Err(AdminError::not_found(KIND, &name)),
    };
    for grant in grants {
        state.instance.tokens.end(grant);
    }
    Ok(document::done())
}

/// 409: links rest on the app, which are named.
fn held_by_peers(name: &str, held: &[ShownGrant]) -> AdminError {
    /// More are counted only.
    const NAMED: usize = 3;
    let named = held.iter().take(NAMED).map(|held| {
        let by = held.login.as_deref().unwrap_or("somebody who was deleted");
        format!("the grant {} of {} (allowed by {by})", held.grant.id, held.app_name)
    });
    let mut users = named.collect::<Vec<_>>().join(", ");
    if held.len() > NAMED {
        users += &format!(" and {} more", held.len() - NAMED);
    }
    let first = held.first().map(|held| held.grant.id.to_string()).unwrap_or_default();
    AdminError::in_use(KIND, name, &users).next(format!("p2pid grant revoke {first}; or add --force, which ends all grants of the app"))
}

/// By name, or else by id.
fn find(connection: &Connection, tenant: &str, name: &str) -> Result<Option<IbApp>, Fault> {
    match (rows::by_name(connection, tenant, name)?, name.parse()) {
        (Some(app), _) => Ok(Some(app)),
        (None, Ok(id)) => Ok(rows::by_id(connection, id)?.filter(|app| app.tenant == tenant)),
        (None, Err(_)) => Ok(None),
    }
}

/// A new app before anything was said of it but its names. A `client_id` is 32 hexadecimal digits: every client can carry it anywhere.
fn fresh(instance: &Instance, tenant: String, name: String, client_id: Option<String>) -> IbApp {
    let now = instance.clock.now().wall;
    let random = instance.random.as_ref();
    IbApp {
        id: Id::new(now, random),
        tenant,
        name,
        client_id: client_id.unwrap_or_else(|| Id::from_bytes(crate::random::bytes(random)).to_string()),
        redirect_uris: Vec::new(),
        grants: GrantType::ALL.into(),
        scope: Scope::default(),
        access_ttl: None,
        rotation: None,
        native: false,
        created_at: now,
    }
}

/// Where a p2pid at `peer_url` expects its browsers back.
fn callback_of(peer_url: &str) -> Result<String, AdminError> {
    let wrong =
        || AdminError::bad_attribute("peer_url", peer_url, "the peer's public_url: https://HOST[:PORT][/PATH], no query or fragment");
    let url = Url::parse(peer_url).map_err(|_| wrong())?;
    if !matches!(url.scheme(), "https" | "http") || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong());
    }
    Ok(format!("{}/oauth/callback", peer_url.trim_end_matches('/')))
}

fn redirect_uri(text: &str) -> Result<RedirectUri, AdminError> {
    RedirectUri::register(text).map_err(|why| {
        AdminError::bad_attribute("redirect_uris", format!("{text:?}: {why}"), "https://…, or http:// on a loopback host; no fragment")
    })
}

fn grants(names: &[String]) -> Result<BTreeSet<GrantType>, AdminError> {
    let expected = GrantType::ALL.map(GrantType::as_str).join(", ");
    let known = |name: &String| GrantType::ALL.into_iter().find(|grant| grant.as_str() == name);
    let grants = names.iter().map(|name| known(name).ok_or_else(|| AdminError::bad_attribute("grants", name, &expected)));
    let grants = grants.collect::<Result<BTreeSet<_>, _>>()?;
    if grants.is_empty() { Err(AdminError::bad_attribute("grants", "none", expected)) } else { Ok(grants) }
}

fn scope(words: &[String], config: &Config, tenant: &str) -> Result<Scope, AdminError> {
    let known = || config.scopes_of(tenant).collect::<Vec<_>>().join(", ");
    if let Some(unknown) = words.iter().find(|word| !config.scopes_of(tenant).any(|known| known == *word)) {
        return Err(AdminError::bad_attribute("scopes", unknown, format!("those that [scopes] names: {}", known())));
    }
    if words.is_empty() {
        return Err(AdminError::bad_attribute("scopes", "none", format!("at least one of [scopes]: {}", known())));
    }
    Scope::from_words(words).map_err(|why| AdminError::bad_attribute("scopes", words.join(" "), why.to_string()))
}

fn access_ttl(seconds: u64) -> Result<Duration, AdminError> {
    if (1..=LONGEST_LIFE).contains(&seconds) {
        Ok(Duration::from_secs(seconds))
    } else {
        Err(AdminError::bad_attribute("access_ttl", format!("{seconds} seconds"), "1 second to a year"))
    }
}

fn secret(secret: SecretString) -> Result<SecretString, AdminError> {
    if ib_app::is_client_secret(secret.expose_secret()) {
        Ok(secret)
    } else {
        Err(AdminError::bad_attribute("client_secret", "another text", "1 to 128 printable ASCII characters"))
    }
}

/// As `ib show` prints it; the secret only where it was just made.
fn resource(app: &IbApp, config: &Config, secret: Option<&SecretString>) -> Value {
    let mut attributes = json!({
        "id": app.id,
        "tenant": app.tenant,
        "name": app.name,
        "client_id": app.client_id,
        "redirect_uris": app.redirect_uris.iter().map(RedirectUri::as_str).collect::<Vec<_>>(),
        "grants": app.grants,
        "scopes": app.scope,
        "access_ttl": app.access_ttl.unwrap_or(config.tokens.access_ttl).as_secs(),
        "rotation": app.rotation.unwrap_or(config.tokens.rotation),
        "native": app.native,
        "created_at": app.created_at,
    });
    if let Some(secret) = secret {
        attributes["client_secret"] = json!(secret.expose_secret());
    }
    document::record(KIND, app.id, attributes)
}
