//! IB apps over the admin API: who may call us.

pub(super) mod settings;
mod warnings;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Router, routing};
use http::StatusCode;
use rusqlite::Connection;
use serde::Deserialize;
use serde_json::{Value, json};

use super::document::{self, Document};
use super::{AdminError, AdminState, Caller, gate};
use crate::audit::{Action, Entry};
use crate::config::{Config, Tokens};
use crate::id::Id;
use crate::inbound::contradiction::{self, Contradiction, Said};
use crate::inbound::ib_app::{self, ClientSecret, GrantType, IbApp, TooManySecrets};
use crate::inbound::security::{Keys, Security};
use crate::instance::Instance;
use crate::oauth::client_auth::Method;
use crate::oauth::client_certificate::Subject;
use crate::oauth::redirect_uri::RedirectUri;
use crate::oauth::scope::Scope;
use crate::oauth::token::{self, Kind};
use crate::outbound::ob_app::is_name;
use crate::secret::{ExposeSecret, SecretString};
use crate::store::grant::{self, ShownGrant};
use crate::store::{Fault, Seals, Transaction, ib_app as rows};
use settings::{Create, Settings};

const KIND: &str = "ib-app";
const COLLECTION: &str = "ib-apps";

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
struct Delete {
    /// What peers hold by the app ends with it.
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
struct RotateSecret {
    overlap: Option<u64>,
}

async fn list(State(state): State<Arc<AdminState>>, Path(tenant): Path<String>) -> Result<Response, AdminError> {
    let look = move |connection: &Connection| {
        let apps = rows::of_tenant(connection, &tenant)?.into_iter().filter(|app| !app.is_realm());
        apps.map(|app| with_secrets(connection, app)).collect::<Result<Vec<_>, Fault>>()
    };
    let apps = state.instance.store.read(look).await?;
    let config = state.instance.config();
    Ok(document::shown(apps.iter().map(|app| resource(app, &config, None)).collect::<Vec<_>>()))
}

async fn show(State(state): State<Arc<AdminState>>, Path((tenant, name)): Path<(String, String)>) -> Result<Response, AdminError> {
    let wanted = name.clone();
    let look = move |connection: &Connection| find(connection, &tenant, &wanted)?.map(|app| with_secrets(connection, app)).transpose();
    let app = state.instance.store.read(look).await?;
    let app = app.ok_or_else(|| AdminError::not_found(KIND, &name))?;
    Ok(document::shown(resource(&app, &state.instance.config(), None)))
}

/// An app and its secrets, of which there is only a hash.
struct Known {
    app: IbApp,
    secrets: Vec<ClientSecret>,
}

fn with_secrets(connection: &Connection, app: IbApp) -> Result<Known, Fault> {
    Ok(Known { secrets: rows::secrets(connection, app.id)?, app })
}

/// What became of an app that was to be changed.
enum Changed {
    Done(Box<Known>),
    Contradicts(Contradiction),
    Missing,
}

/// Changes an app as `settings` say, if what comes of it fits together.
fn change(
    transaction: &Transaction<'_>,
    seals: &Seals,
    settings: &Settings,
    old: IbApp,
    secret_id: Id,
    tokens: &Tokens,
) -> Result<Changed, Fault> {
    let app = settings.applied_to(old);
    let has_secret = !rows::secrets(transaction, app.id)?.is_empty();
    if let Err(contradiction) = contradiction::check(&app, tokens.rotation, &settings.said(has_secret)) {
        return Ok(Changed::Contradicts(contradiction));
    }
    rows::update(transaction, &app)?;
    if !app.security.method.has_secret() {
        rows::replace_secrets(transaction, app.id, &[])?;
    } else if let Some(secret) = &settings.secret {
        let secret = rows::new_secret(seals, secret_id, app.id, secret, transaction.now().wall);
        rows::replace_secrets(transaction, app.id, &[secret])?;
    }
    transaction.record(&Entry::of(Action::IbAppUpdated).on(app.record()))?;
    with_secrets(transaction, app).map(|known| Changed::Done(Box::new(known)))
}

/// What became of a new app.
enum Made {
    New(Box<Known>),
    Updated(Changed),
    NameTaken,
    /// The app of that name goes by this `client_id`, and not by the one that is given.
    HasClientId(String),
    ClientIdTaken,
}

async fn create(
    State(state): State<Arc<AdminState>>,
    Path(tenant): Path<String>,
    caller: Caller,
    document: Document,
) -> Result<Response, AdminError> {
    let asked: Create = document.attributes(KIND)?;
    let (name, client_id, or_update) = (asked.name.clone(), asked.client_id.clone(), asked.or_update);
    gate::must_be_able_to_update(&caller, &tenant, COLLECTION, or_update)?;
    let config = state.instance.config();
    if !is_name(&name) {
        return Err(AdminError::bad_attribute("name", name, "1 to 63 letters, digits, '.', '_' and '-', beginning with a letter or digit"));
    }
    if let Some(client_id) = client_id.as_ref().filter(|client_id| !ib_app::is_client_id(client_id)) {
        return Err(AdminError::bad_attribute("client_id", client_id, "1 to 255 printable ASCII characters without spaces and colons"));
    }
    let settings = Settings::checked(asked.into_given(), &caller, &config, &tenant)?;
    if or_update && settings.give_login() {
        gate::must_be_able_to_know_secret(&caller, &tenant, COLLECTION)?;
    }

    let mut app = settings.applied_to(fresh(&state.instance, tenant, name.clone(), client_id.clone()));
    if app.redirect_uris.is_empty() && app.may_use(GrantType::AuthorizationCode) {
        let expected = "the peer's public_url (--peer-url), or where else browsers are sent back to (--redirect-uri)";
        let error = AdminError::missing_attribute("peer_url").expected(expected);
        return Err(
            error.next("add --peer-url URL, or --redirect-uri U; an app that acts for itself needs neither: --grant client_credentials")
        );
    }
    if app.scope.is_empty() && !settings.says_scope() && !app.only_introspects() {
        let known: Vec<_> = config.scopes_of(&app.tenant).collect();
        app.scope = match known.as_slice() {
            // There is nothing else that it could be meant for.
            [only] => only.parse().expect("the configuration's scopes are scopes"),
            [] => return Err(settings::no_scopes("scopes", "none", &app.tenant)),
            several => {
                return Err(AdminError::bad_attribute("scopes", "none", format!("at least one of [scopes]: {}", several.join(", "))));
            }
        };
    }
    // A secret is made where it needs one and none is given.
    let said = Said { is_new: true, ..settings.said(true) };
    contradiction::check(&app, config.tokens.rotation, &said).map_err(|contradiction| contradicts(contradiction, &name))?;
    let secret = app
        .security
        .method
        .has_secret()
        .then(|| settings.secret.clone().unwrap_or_else(|| token::mint(Kind::ClientSecret, state.instance.random.as_ref())));
    let tokens = config.tokens.clone();
    let secret_id = Id::new(app.created_at, state.instance.random.as_ref());
    let seals = state.instance.store.seals().clone();
    let (given, given_settings, given_client_id) = (secret.clone(), settings.clone(), client_id.clone());
    let judge = move |transaction: &Transaction<'_>| {
        if let Some(old) = rows::by_name(transaction, &app.tenant, &app.name)? {
            // A realm is changed as one, by who may.
            if !or_update || old.is_realm() {
                return Ok(Made::NameTaken);
            }
            if client_id.as_ref().is_some_and(|client_id| *client_id != old.client_id) {
                return Ok(Made::HasClientId(old.client_id));
            }
            return Ok(Made::Updated(change(transaction, &seals, &settings, old, secret_id, &tokens)?));
        }
        if !rows::insert(transaction, &app)? {
            return Ok(Made::ClientIdTaken);
        }
        if let Some(secret) = &given {
            let secret = rows::new_secret(&seals, secret_id, app.id, secret, app.created_at);
            rows::replace_secrets(transaction, app.id, &[secret])?;
        }
        transaction.record(&Entry::of(Action::IbAppCreated).on(app.record()).with("client_id", app.client_id.as_str()))?;
        with_secrets(transaction, app.clone()).map(|known| Made::New(Box::new(known)))
    };
    match state.instance.store.write(judge).await? {
        Made::New(app) => {
            let mut made = resource(&app, &config, secret.as_ref());
            made["attributes"]["warnings"] = json!(warnings::of(&state.instance, &given_settings, &app.app).await);
            Ok(document::created(made))
        }
        Made::Updated(changed) => updated(&state, changed, &name, &given_settings).await,
        Made::NameTaken => Err(AdminError::exists(KIND, &name)),
        Made::HasClientId(has) => Err(has_client_id(&name, &has, given_client_id.as_deref().unwrap_or_default())),
        // Without saying whose it is: another tenant's apps are nobody else's affair.
        Made::ClientIdTaken => Err(AdminError::new(StatusCode::CONFLICT, "exists", "the client_id is taken")
            .next("choose another client_id, or leave it out and one is made")),
    }
}

/// 409: a `client_id` is for good; whoever uses it knows it by heart.
fn has_client_id(name: &str, has: &str, given: &str) -> AdminError {
    let message = format!("the ib app {name:?} exists, with another client_id, which cannot be changed");
    let error = AdminError::new(StatusCode::CONFLICT, "exists", message).found(has).expected(given);
    error.next(format!(
        "to change {name}, leave the client_id out; for {given} choose another name, or first: p2pid ib delete {name} --force, which ends its links"
    ))
}

async fn update(
    State(state): State<Arc<AdminState>>,
    Path((tenant, name)): Path<(String, String)>,
    caller: Caller,
    document: Document,
) -> Result<Response, AdminError> {
    let config = state.instance.config();
    let settings = Settings::checked(document.attributes(KIND)?, &caller, &config, &tenant)?;
    if settings.give_login() {
        gate::must_be_able_to_know_secret(&caller, &tenant, COLLECTION)?;
    }
    let secret_id = Id::new(state.instance.clock.now().wall, state.instance.random.as_ref());
    let (seals, tokens) = (state.instance.store.seals().clone(), config.tokens.clone());
    let (wanted, given) = (name.clone(), settings.clone());
    let judge = move |transaction: &Transaction<'_>| {
        let Some(old) = find(transaction, &tenant, &wanted)? else { return Ok(Changed::Missing) };
        change(transaction, &seals, &settings, old, secret_id, &tokens)
    };
    let changed = state.instance.store.write(judge).await?;
    updated(&state, changed, &name, &given).await
}

async fn updated(state: &AdminState, changed: Changed, name: &str, given: &Settings) -> Result<Response, AdminError> {
    match changed {
        Changed::Done(app) => {
            state.instance.tokens.app_changed(app.app.id).await;
            let mut changed = resource(&app, &state.instance.config(), None);
            changed["attributes"]["warnings"] = json!(warnings::of(&state.instance, given, &app.app).await);
            Ok(document::shown(changed))
        }
        Changed::Contradicts(contradiction) => Err(contradicts(contradiction, name)),
        Changed::Missing => Err(AdminError::not_found(KIND, name)),
    }
}

/// 422, with the way out for the app of that name where there is an obvious one.
fn contradicts(contradiction: Contradiction, name: &str) -> AdminError {
    let error = AdminError::new(StatusCode::UNPROCESSABLE_ENTITY, "contradiction", contradiction.to_string());
    match contradiction {
        Contradiction::NoKeys => error.found("no keys").expected("public keys of the app").next("add --jwks FILE, or --jwks URL"),
        Contradiction::ProfileMethod => {
            error.found("an app without keys and certificate").expected("one of the three methods").next("add --jwks FILE, or --jwks URL")
        }
        Contradiction::NoSecret(method) => {
            let method = method.as_str();
            let next = format!("openssl rand -hex 32 | p2pid ib update {name} --auth-method {method} --client-secret-stdin");
            error.found("no secret").expected("a secret, given with the method").next(next)
        }
        Contradiction::NothingToRenew => {
            let expected = "authorization_code beside it, or client_credentials in its place";
            error.found("refresh_token alone").expected(expected).next("add --grant authorization_code")
        }
        Contradiction::NoScope => error.found("no scope").expected("a scope that [scopes] names").next("add --scope S, or --introspects S"),
        _ => error,
    }
}

async fn rotate_secret(
    State(state): State<Arc<AdminState>>,
    Path((tenant, name)): Path<(String, String)>,
    caller: Caller,
    document: Document,
) -> Result<Response, AdminError> {
    gate::must_be_able_to_know_secret(&caller, &tenant, COLLECTION)?;
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
        if !app.security.method.has_secret() {
            return Ok(Some(Err(NotRotated::NoSecret(app.security.method))));
        }
        let now = transaction.now().wall;
        let mut secrets = match ib_app::rotated(rows::secrets(transaction, app.id)?, now, Duration::from_secs(overlap)) {
            Ok(secrets) => secrets,
            Err(full) => return Ok(Some(Err(NotRotated::TooMany(full)))),
        };
        secrets.push(rows::new_secret(&seals, secret_id, app.id, &made, now));
        rows::replace_secrets(transaction, app.id, &secrets)?;
        let rotated = Entry::of(Action::IbAppSecretRotated).on(app.record()).with("overlap_s", overlap);
        transaction.record(&rotated.with("secret", secret_id.to_string()))?;
        Ok(Some(Ok(with_secrets(transaction, app)?)))
    };
    let rotated = state.instance.store.write(judge).await?.ok_or_else(|| AdminError::not_found(KIND, &name))?;
    let app = rotated.map_err(|why| not_rotated(&name, why))?;
    Ok(document::shown(resource(&app, &state.instance.config(), Some(&secret))))
}

/// Why an app got no new secret.
enum NotRotated {
    /// It authenticates by other means.
    NoSecret(Method),
    /// Those that it has are good for longer.
    TooMany(TooManySecrets),
}

fn not_rotated(name: &str, why: NotRotated) -> AdminError {
    match why {
        NotRotated::NoSecret(method) => {
            let error = AdminError::new(StatusCode::CONFLICT, "no_secret", "the app has no secret that could be changed");
            let keys = format!("for new keys: p2pid ib update {name} --jwks FILE");
            let secret = format!("for a secret: p2pid ib update {name} --auth-method client_secret --client-secret-stdin");
            let next = if method.has_keys() { format!("{keys}; {secret}") } else { secret };
            error.found(format!("the method {}", method.as_str())).expected("an app that has a secret").next(next)
        }
        NotRotated::TooMany(TooManySecrets { first_end }) => {
            let most = ib_app::MOST_SECRETS;
            AdminError::new(StatusCode::CONFLICT, "too_many_secrets", format!("{most} secrets of the app are valid, and no more may be"))
                .found(format!("{} secrets that were replaced and are still in their overlap", most - 1))
                .expected("one of them less")
                .next(format!("wait until {first_end}; or end all that are older now: p2pid ib rotate-secret {name} --overlap 0s"))
        }
    }
}

/// Of the grants that an app is held by, so many are named; more are counted only.
const NAMED: u32 = 3;

/// What became of an app that was to be deleted.
enum Deleted {
    /// It is gone.
    Gone(Id),
    /// Peers hold these by it, and so many in all.
    InUse(Vec<ShownGrant>, u32),
    Missing,
}

/// Deletes an app by which nobody holds anything; with `force` what peers hold by it ends with it, at once.
async fn delete(
    State(state): State<Arc<AdminState>>,
    Path((tenant, name)): Path<(String, String)>,
    document: Document,
) -> Result<Response, AdminError> {
    let Delete { force } = document.attributes(KIND)?;
    // There may be a hundred thousand, which the writer has no time to count.
    let (place, wanted, now) = (tenant.clone(), name.clone(), state.instance.clock.now().wall);
    let count = move |connection: &Connection| match find(connection, &place, &wanted)? {
        Some(app) => grant::count_active_of_app(connection, app.id, now),
        None => Ok(0),
    };
    let count = state.instance.store.read(count).await?;
    let wanted = name.clone();
    let judge = move |transaction: &Transaction<'_>| {
        let Some(app) = find(transaction, &tenant, &wanted)? else { return Ok(Deleted::Missing) };
        if !force {
            let held = grant::active_of_app(transaction, app.id, transaction.now().wall, NAMED)?;
            if !held.is_empty() {
                return Ok(Deleted::InUse(held, count));
            }
        }
        rows::delete(transaction, app.id)?;
        transaction.record(&Entry::of(Action::IbAppDeleted).on(app.record()).with("grants", count))?;
        Ok(Deleted::Gone(app.id))
    };
    match state.instance.store.write(judge).await? {
        Deleted::Gone(app) => state.instance.tokens.end_app(app),
        Deleted::InUse(held, count) => return Err(held_by_peers(&name, &held, count)),
        Deleted::Missing => return Err(AdminError::not_found(KIND, &name)),
    }
    Ok(document::done())
}

/// 409: links rest on the app, which are named.
fn held_by_peers(name: &str, held: &[ShownGrant], count: u32) -> AdminError {
    let named = held.iter().map(|held| {
        let by = held.login.as_deref().unwrap_or("somebody who was deleted");
        format!("the grant {} of {} (allowed by {by})", held.grant.id, held.app_name)
    });
    let mut users = named.collect::<Vec<_>>().join(", ");
    let more = (count as usize).saturating_sub(held.len());
    if more > 0 {
        users += &format!(" and {more} more");
    }
    let first = held.first().map(|held| held.grant.id.to_string()).unwrap_or_default();
    AdminError::in_use(KIND, name, &users).next(format!("p2pid grant revoke {first}; or add --force, which ends all grants of the app"))
}

/// By name, or else by id. Realms are a collection of their own, with permissions of their own.
fn find(connection: &Connection, tenant: &str, name: &str) -> Result<Option<IbApp>, Fault> {
    let found = match (rows::by_name(connection, tenant, name)?, name.parse()) {
        (Some(app), _) => Some(app),
        (None, Ok(id)) => rows::by_id(connection, id)?.filter(|app| app.tenant == tenant),
        (None, Err(_)) => None,
    };
    Ok(found.filter(|app| !app.is_realm()))
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
        grants: GrantType::OF_A_LINK.into(),
        scope: Scope::default(),
        access_ttl: None,
        rotation: None,
        native: false,
        security: Security::default(),
        created_at: now,
    }
}

/// As `ib show` prints it; the secret only where it was just made.
fn resource(known: &Known, config: &Config, secret: Option<&SecretString>) -> Value {
    let (app, security) = (&known.app, &known.app.security);
    let secrets = known
        .secrets
        .iter()
        .map(|secret| json!({ "created_at": secret.created_at, "expires_at": secret.expires_at, "last_used_at": secret.last_used_at }));
    let (jwks, jwks_uri) = match &security.keys {
        None => (None, None),
        Some(Keys::Inline(set)) => (Some(set.to_json()), None),
        Some(Keys::Url { url, .. }) => (None, Some(url.as_str())),
    };
    let mut attributes = json!({
        "id": app.id,
        "tenant": app.tenant,
        "name": app.name,
        "client_id": app.client_id,
        "redirect_uris": app.redirect_uris.iter().map(RedirectUri::as_str).collect::<Vec<_>>(),
        "grants": app.grants,
        "scopes": app.scope,
        "access_ttl": app.access_ttl.unwrap_or(config.tokens.access_ttl).as_secs(),
        "rotation": security.rotation(app.rotation.unwrap_or(config.tokens.rotation)),
        "native": app.native,
        "auth_method": security.method,
        "secrets": secrets.collect::<Vec<_>>(),
        "jwks": jwks,
        "jwks_uri": jwks_uri,
        "dpop": security.needs_dpop(),
        "mtls": security.mtls,
        "require_par": security.needs_par(config.tokens.require_par),
        "pkce": if security.pkce_optional { "optional" } else { "required" },
        "profile": security.profile,
        "introspects": security.introspects,
        "created_at": app.created_at,
    });
    for name in Subject::NAMES {
        let said = security.subject.as_ref().map(Subject::to_metadata).filter(|(which, _)| *which == name);
        attributes[name] = json!(said.map(|(_, value)| value));
    }
    if let Some(secret) = secret {
        attributes["client_secret"] = json!(secret.expose_secret());
    }
    document::record(KIND, app.id, attributes)
}
