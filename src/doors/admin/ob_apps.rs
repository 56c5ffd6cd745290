//! OB apps over the admin API.

mod checks;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Router, routing};
use http::StatusCode;
use rusqlite::Connection;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::changes::{ATTEMPTS, changed_meanwhile};
use super::document::{self, Document};
use super::{AdminError, AdminState, Caller, gate};
use crate::audit::{Action, Entry, Record};
use crate::clock::Timestamp;
use crate::config::PublicUrl;
use crate::id::Id;
use crate::instance::Instance;
use crate::oauth::client_auth::Method;
use crate::outbound::client::Authentication;
use crate::outbound::metadata::Metadata;
use crate::outbound::ob_app::{Grant, ObApp, Server};
use crate::outbound::peer as peers;
use crate::secret::SecretString;
use crate::store::{Fault, Seals, Transaction, ob_app as rows, peer as peer_rows};
use crate::tasks::keeper::{self, GivenUp};

use checks::{asked_metadata, checked_endpoint, must_be_reachable, new_key, no_server};
pub(super) use checks::{
    blank, checked_client_id, checked_issuer, checked_scope, checked_secret, give_key, in_outline, missing, must_be_for, must_be_public,
    must_move_no_password, set_auth_method, set_dpop,
};

pub(super) const KIND: &str = "ob-app";

/// `/tenants/{tenant}/ob-apps` and one of them.
pub(super) fn router() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/tenants/{tenant}/ob-apps", routing::get(list).post(create))
        .route("/tenants/{tenant}/ob-apps/{name}", routing::get(show).patch(update).delete(delete))
        .route("/tenants/{tenant}/ob-apps/{name}/rotate-key", routing::post(rotate_key))
}

/// What is given of an app; what is not given stays, or is its default.
#[derive(Default, Deserialize)]
struct Settings {
    name: Option<String>,
    client_id: Option<String>,
    auth_method: Option<String>,
    dpop: Option<String>,
    client_secret: Option<SecretString>,
    issuer: Option<String>,
    authorize_url: Option<String>,
    token_url: Option<String>,
    grant: Option<String>,
    scopes: Option<Vec<String>>,
    ca: Option<String>,
    #[serde(default)]
    or_update: bool,
}

impl Settings {
    /// The app with what is given; checked.
    fn apply(&self, state: &AdminState, caller: &Caller, mut app: ObApp) -> Result<ObApp, AdminError> {
        let was_for = app.server.origin();
        if let Some(client_id) = &self.client_id {
            app.client_id = checked_client_id(client_id)?;
        }
        if let Some(secret) = &self.client_secret {
            app.client_secret = Some(checked_secret("client_secret", secret)?);
        }
        set_auth_method(&mut app, self.auth_method.as_deref(), self.client_secret.is_some())?;
        set_dpop(&mut app, self.dpop.as_deref())?;
        if let Some(name) = &self.grant {
            app.grant = Grant::from_name(name)
                .ok_or_else(|| AdminError::bad_attribute("grant", name, "authorization_code, client_credentials or password"))?;
        }
        if let Some(scopes) = &self.scopes {
            app.scope = checked_scope(scopes)?;
        }
        if let Some(ca) = &self.ca {
            app.ca = (!ca.is_empty()).then(|| ca.clone());
            let trust = peers::PeerTrust { ca: app.ca.clone(), pin: None };
            state
                .links
                .client(&trust, app.guarded)
                .map_err(|error| AdminError::bad_attribute("ca", error.to_string(), "certificates in PEM form"))?;
        }
        app.server = match (&self.issuer, &self.authorize_url, &self.token_url) {
            (None, None, None) => app.server,
            (Some(issuer), None, None) => Server::Issuer(checked_issuer("issuer", issuer)?),
            (Some(_), ..) => {
                let error = AdminError::bad_attribute("issuer", "an issuer and endpoints", "one or the other");
                return Err(error.next("give --issuer alone, or --authorize-url and --token-url"));
            }
            (None, authorize, token) => {
                let (old_authorize, old_token) = match app.server {
                    Server::Endpoints { authorize_url, token_url } => (authorize_url, Some(token_url)),
                    Server::Issuer(_) => (None, None),
                };
                let authorize_url = authorize.as_deref().map(|url| checked_endpoint("authorize_url", url)).transpose()?.or(old_authorize);
                let token_url = token.as_deref().map(|url| checked_endpoint("token_url", url)).transpose()?.or(old_token);
                Server::Endpoints { authorize_url, token_url: token_url.ok_or_else(no_server)? }
            }
        };
        if let Server::Endpoints { authorize_url: None, .. } = app.server
            && app.grant == Grant::AuthorizationCode
        {
            let error = AdminError::bad_attribute("authorize_url", "none", "where the server's users log in and allow");
            return Err(error.next("add --authorize-url, or another --grant"));
        }
        let gives_all =
            self.issuer.is_some() || self.token_url.is_some() && (self.authorize_url.is_some() || authorize_url(&app).is_none());
        match (caller.rules_instance(), self.issuer.is_some() || self.token_url.is_some() || self.authorize_url.is_some()) {
            (true, _) if gives_all => app.guarded = false,
            (false, true) => app.guarded = true,
            _ => {}
        }
        must_be_reachable(&app)?;
        must_be_for(&was_for, &app, self.client_secret.as_ref())?;
        Ok(app)
    }
}

const fn authorize_url(app: &ObApp) -> Option<&Url> {
    match &app.server {
        Server::Endpoints { authorize_url, .. } => authorize_url.as_ref(),
        Server::Issuer(_) => None,
    }
}

async fn list(State(state): State<Arc<AdminState>>, Path(tenant): Path<String>) -> Result<Response, AdminError> {
    let (seals, shown) = (state.instance.store.seals().clone(), RenderedAt::now(&state.instance));
    let apps = state
        .instance
        .store
        .read(move |connection| {
            let apps = rows::of_tenant(connection, &seals, &tenant)?;
            apps.iter().map(|app| Ok(resource(app, metadata(connection, &seals, app)?.as_ref(), &shown))).collect::<Result<Vec<_>, Fault>>()
        })
        .await?;
    Ok(document::shown(apps))
}

async fn show(State(state): State<Arc<AdminState>>, Path((tenant, name)): Path<(String, String)>) -> Result<Response, AdminError> {
    Ok(document::shown(shape(&state, &tenant, &name).await?))
}

async fn create(
    State(state): State<Arc<AdminState>>,
    Path(tenant): Path<String>,
    caller: Caller,
    document: Document,
) -> Result<Response, AdminError> {
    let settings: Settings = document.attributes(KIND)?;
    let name = settings.name.clone().ok_or_else(|| missing("name"))?;
    gate::must_be_able_to_update(&caller, &tenant, "ob-apps", settings.or_update)?;
    if settings.or_update {
        match find(&state, &tenant, &name).await {
            Ok(_) => return change(&state, &caller, &tenant, &name, &settings).await,
            Err(error) if error.status == StatusCode::NOT_FOUND => {}
            Err(error) => return Err(error),
        }
    }
    if settings.client_id.is_none() && !is_named_by_us(settings.auth_method.as_deref()) {
        return Err(missing("client_id"));
    }
    let server = match (&settings.issuer, &settings.token_url) {
        (Some(issuer), _) => Server::Issuer(checked_issuer("issuer", issuer)?),
        (None, Some(url)) => Server::Endpoints { authorize_url: None, token_url: checked_endpoint("token_url", url)? },
        (None, None) => return Err(no_server()),
    };
    let mut app = settings.apply(&state, &caller, blank(&state, &tenant, &name, server, !caller.rules_instance())?)?;
    name_by_id(&mut app);
    let metadata = asked_metadata(&state, &app).await;
    give_key(&mut app, true, metadata.as_ref());
    let (seals, row) = (state.instance.store.seals().clone(), app.clone());
    if !state.instance.store.write(move |transaction| insert(transaction, &seals, &row)).await? {
        return Err(AdminError::exists(KIND, &name));
    }
    Ok(document::created(resource(&app, None, &RenderedAt::now(&state.instance))))
}

/// Whether an app may be made without a `client_id`: with a secret comes the name that it is for, but a key is ours, and so can the name be.
pub(super) fn is_named_by_us(auth_method: Option<&str>) -> bool {
    auth_method == Some(Method::PrivateKeyJwt.as_str())
}

/// Names an app by its id at the other side, when nothing else was said.
pub(super) fn name_by_id(app: &mut ObApp) {
    if app.client_id.is_empty() {
        app.client_id = app.id.to_string();
    }
}

async fn update(
    State(state): State<Arc<AdminState>>,
    Path((tenant, name)): Path<(String, String)>,
    caller: Caller,
    document: Document,
) -> Result<Response, AdminError> {
    let settings: Settings = document.attributes(KIND)?;
    change(&state, &caller, &tenant, &name, &settings).await
}

async fn change(state: &Arc<AdminState>, caller: &Caller, tenant: &str, name: &str, settings: &Settings) -> Result<Response, AdminError> {
    for _ in 0..ATTEMPTS {
        let before = settings.apply(state, caller, find(state, tenant, name).await?)?;
        let metadata = asked_metadata(state, &before).await;
        let _alone = state.changes.alone(tenant).await;
        let mut app = settings.apply(state, caller, find(state, tenant, name).await?)?;
        let asked = |app: &ObApp| (app.server.clone(), app.ca.clone(), app.guarded, app.keys.is_none() && app.needs_key());
        if asked(&app) == asked(&before) {
            give_key(&mut app, false, metadata.as_ref());
            let updated = Entry::of(Action::ObAppUpdated).on(told(&app));
            write(state, app, updated).await?;
            return Ok(document::shown(shape(state, tenant, name).await?));
        }
    }
    Err(changed_meanwhile(&format!("the OB app {name:?}")))
}

#[derive(Deserialize)]
struct Rotate {
    /// In seconds.
    #[serde(default)]
    overlap: Option<u64>,
}

/// Until a new key signs, when nothing is said: a day.
const OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);

/// Publishes a new key beside the one that signs, which goes on for the overlap.
async fn rotate_key(
    State(state): State<Arc<AdminState>>,
    Path((tenant, name)): Path<(String, String)>,
    document: Document,
) -> Result<Response, AdminError> {
    let Rotate { overlap } = document.attributes(KIND)?;
    let overlap = overlap.map_or(OVERLAP, Duration::from_secs);
    let _alone = state.changes.alone(&tenant).await;
    let mut app = find(&state, &tenant, &name).await?;
    let Some(keys) = &app.keys else {
        let error = AdminError::new(StatusCode::CONFLICT, "no_key", format!("the OB app {name:?} has no key: it does not sign"));
        return Err(error.next(format!("p2pid ob update {name} --auth-method private_key_jwt")));
    };
    let (seals, row) = (state.instance.store.seals().clone(), app.clone());
    let metadata = state.instance.store.read(move |connection| metadata(connection, &seals, &row)).await?;
    let now = state.instance.clock.now().wall;
    let (key, from) = (new_key(metadata.as_ref()), now.plus(overlap));
    let rotated = Entry::of(Action::ObAppKeyRotated).on(told(&app)).with("overlap_s", overlap.as_secs());
    let rotated = rotated.with("key", key.public().thumbprint().to_string()).at("signs_from", from);
    app.keys = Some(keys.rotated(key, from, now));
    write(&state, app, rotated).await?;
    Ok(document::shown(shape(&state, &tenant, &name).await?))
}

/// Writes a changed app, with what the audit is to say of it, and has those who use it know.
async fn write(state: &Arc<AdminState>, app: ObApp, entry: Entry) -> Result<(), AdminError> {
    must_move_no_password(state, &app, None).await?;
    let instance = Arc::clone(&state.instance);
    let judge = move |transaction: &Transaction<'_>| {
        let users = put(transaction, &instance, &app)?;
        transaction.record(&entry)?;
        Ok(users)
    };
    let users = state.instance.store.write(judge).await?;
    for peer in users {
        state.links.changed(peer).await;
    }
    state.links.deliver_now();
    Ok(())
}

/// Adds an app; false when the name is taken.
pub(super) fn insert(transaction: &Transaction<'_>, seals: &Seals, app: &ObApp) -> Result<bool, Fault> {
    let is_new = rows::insert(transaction, seals, app)?;
    if is_new {
        transaction.record(&Entry::of(Action::ObAppCreated).on(told(app)).with("client_id", app.client_id.as_str()))?;
    }
    Ok(is_new)
}

/// Writes an app that was changed with a peer of it.
pub(super) fn replace(transaction: &Transaction<'_>, instance: &Instance, app: &ObApp) -> Result<(), Fault> {
    put(transaction, instance, app)?;
    transaction.record(&Entry::of(Action::ObAppUpdated).on(told(app)))
}

/// Writes an app, and ends the links that rest on it when it names another server or client; returns the peers that use it.
fn put(transaction: &Transaction<'_>, instance: &Instance, app: &ObApp) -> Result<Vec<Id>, Fault> {
    let seals = instance.store.seals();
    let old = rows::by_id(transaction, seals, app.id)?;
    let is_elsewhere = old.as_ref().is_some_and(|old| old.server != app.server);
    let is_other = is_elsewhere || old.is_some_and(|old| old.client_id != app.client_id || old.grant != app.grant);
    let users = peer_rows::of_ob_app(transaction, seals, app.id)?;
    for peer in users.iter().filter(|_| is_other) {
        keeper::end(transaction, instance, peer.id, GivenUp::Revoked)?;
        // What the same server said of itself is true for another client too.
        if is_elsewhere {
            peer_rows::set_metadata(transaction, peer.id, None)?;
        }
    }
    rows::update(transaction, seals, app)?;
    Ok(users.into_iter().map(|peer| peer.id).collect())
}

async fn delete(State(state): State<Arc<AdminState>>, Path((tenant, name)): Path<(String, String)>) -> Result<Response, AdminError> {
    let app = find(&state, &tenant, &name).await?;
    let seals = state.instance.store.seals().clone();
    let users = state
        .instance
        .store
        .write(move |transaction| {
            let users = peer_rows::of_ob_app(transaction, &seals, app.id)?;
            if users.is_empty() {
                rows::delete(transaction, app.id)?;
                transaction.record(&Entry::of(Action::ObAppDeleted).on(told(&app)))?;
            }
            Ok(users.into_iter().map(|peer| peer.name).collect::<Vec<_>>())
        })
        .await?;
    match users.as_slice() {
        [] => Ok(document::done()),
        [peer] => Err(AdminError::in_use(KIND, &name, &format!("the peer {peer}"))),
        peers => Err(AdminError::in_use(KIND, &name, &format!("the peers {}", peers.join(", ")))),
    }
}

/// As the audit names it.
fn told(app: &ObApp) -> Record {
    Record::of_tenant(KIND, &app.tenant, app.id, &app.name)
}

/// The tenant's app of that name or id.
async fn find(state: &AdminState, tenant: &str, name: &str) -> Result<ObApp, AdminError> {
    let seals = state.instance.store.seals().clone();
    let (wanted_tenant, wanted) = (tenant.to_owned(), name.to_owned());
    let found = state.instance.store.read(move |connection| by_name_or_id(connection, &seals, &wanted_tenant, &wanted)).await?;
    found.ok_or_else(|| AdminError::not_found(KIND, name))
}

/// The tenant's app of that name or id.
pub(super) fn by_name_or_id(connection: &Connection, seals: &Seals, tenant: &str, name: &str) -> Result<Option<ObApp>, Fault> {
    if let Some(app) = rows::by_name(connection, seals, tenant, name)? {
        return Ok(Some(app));
    }
    let Ok(id) = name.parse() else { return Ok(None) };
    Ok(rows::by_id(connection, seals, id)?.filter(|app| app.tenant == tenant))
}

async fn shape(state: &AdminState, tenant: &str, name: &str) -> Result<Value, AdminError> {
    let (seals, shown) = (state.instance.store.seals().clone(), RenderedAt::now(&state.instance));
    let (wanted_tenant, wanted) = (tenant.to_owned(), name.to_owned());
    let found = state
        .instance
        .store
        .read(move |connection| {
            let Some(app) = by_name_or_id(connection, &seals, &wanted_tenant, &wanted)? else { return Ok(None) };
            Ok(Some(resource(&app, metadata(connection, &seals, &app)?.as_ref(), &shown)))
        })
        .await?;
    found.ok_or_else(|| AdminError::not_found(KIND, name))
}

/// What the app's server last said of itself to one of the peers that use it.
fn metadata(connection: &Connection, seals: &Seals, app: &ObApp) -> Result<Option<Metadata>, Fault> {
    for peer in peer_rows::of_ob_app(connection, seals, app.id)? {
        if let (Some(metadata), _) = peer_rows::metadata_and_unlinked(connection, peer.id)? {
            return Ok(Some(metadata));
        }
    }
    Ok(None)
}

/// What an app is rendered with, beside itself.
struct RenderedAt {
    public_url: PublicUrl,
    now: Timestamp,
}

impl RenderedAt {
    fn now(instance: &Instance) -> Self {
        Self { public_url: instance.config().instance.public_url.clone(), now: instance.clock.now().wall }
    }
}

fn resource(app: &ObApp, metadata: Option<&Metadata>, shown: &RenderedAt) -> Value {
    let (issuer, authorize_url, token_url) = match &app.server {
        Server::Issuer(issuer) => (
            Some(issuer),
            metadata.and_then(|metadata| metadata.authorization_endpoint.as_ref()),
            metadata.map(|metadata| &metadata.token_endpoint),
        ),
        Server::Endpoints { authorize_url, token_url } => (None, authorize_url.as_ref(), Some(token_url)),
    };
    let auth_method = token_url.map(|token_url| Authentication::of(app, token_url, metadata).method()).or(app.auth_method);
    document::record(
        KIND,
        app.id,
        json!({
            "id": app.id, "tenant": app.tenant, "name": app.name, "component": null, "client_id": app.client_id,
            "auth_method": auth_method.map(Method::as_str),
            "dpop": app.dpop.as_str(),
            "jwks_uri": app.keys.as_ref().map(|_| shown.public_url.join(&format!("/oauth/jwks/{}", app.id))),
            "jwks": app.keys.as_ref().map(|keys| keys.published(shown.now)),
            "next_key_from": app.keys.as_ref().and_then(|keys| keys.next.as_ref()).map(|next| next.from).filter(|from| *from > shown.now),
            "grant": app.grant.as_str(), "scopes": app.scope, "issuer": issuer, "authorize_url": authorize_url, "token_url": token_url,
            "dialect": null, "redirect_uri": peers::redirect_uri(shown.public_url.as_str(), app, metadata),
            "has_secret": app.client_secret.is_some(), "ca": app.ca.is_some(), "created_at": app.created_at,
        }),
    )
}
