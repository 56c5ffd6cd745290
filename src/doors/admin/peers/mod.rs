//! Peers over the admin API.

mod actions;
mod probe;
mod shape;

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Router, routing};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedMutexGuard;
use url::Origin;

use super::changes::{ATTEMPTS, changed_meanwhile};
use super::document::{self, Document};
use super::ob_apps;
use super::{AdminError, AdminState, Caller, gate};
use crate::audit::{Action, Entry};
use crate::id::Id;
use crate::net::certificate::Pin;
use crate::outbound::link::Facts;
use crate::outbound::metadata::Metadata;
use crate::outbound::ob_app::{self, Grant, ObApp, Server};
use crate::outbound::peer::{Auth, Peer, PeerTrust, User};
use crate::secret::SecretString;
use crate::store::{Fault, ob_app as app_rows, peer as rows};
use crate::tasks::keeper::{self, GivenUp, Link};

use probe::Finding;
use shape::Request;

const KIND: &str = "peer";

/// `/tenants/{tenant}/peers`, one of them, and what can be done with it.
pub(super) fn router() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/tenants/{tenant}/peers", routing::get(list).post(create))
        .route("/tenants/{tenant}/peers/{name}", routing::get(show).patch(update).delete(delete))
        .merge(actions::router())
}

/// What is given of a peer; what is not given stays, or is its default.
#[derive(Default, Deserialize)]
struct Settings {
    name: Option<String>,
    url: Option<String>,
    base_url: Option<String>,
    ob: Option<String>,
    client_id: Option<String>,
    auth_method: Option<String>,
    dpop: Option<String>,
    grant: Option<String>,
    client_secret: Option<SecretString>,
    scopes: Option<Vec<String>>,
    username: Option<String>,
    password: Option<SecretString>,
    ca: Option<String>,
    pin: Option<String>,
    #[serde(default)]
    or_update: bool,
}

impl Settings {
    /// Whether an OB app of the peer's name is to be there.
    fn makes_app(&self) -> bool {
        self.client_id.is_some() || ob_apps::is_named_by_us(self.auth_method.as_deref())
    }
}

/// A peer and its OB app as they are to be.
struct Wanted {
    peer: Peer,
    app: Option<ObApp>,
    /// The app is the peer's own and is made, or changed, with it.
    writes_app: Option<Write>,
}

impl Wanted {
    /// Gives the peer's own app the key that it needs, as the server of those metadata takes it.
    fn give_key(&mut self, metadata: Option<&Metadata>) {
        if let (Some(app), Some(write)) = (&mut self.app, self.writes_app) {
            ob_apps::give_key(app, write == Write::Insert, metadata);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Write {
    Insert,
    Replace,
}

async fn list(State(state): State<Arc<AdminState>>, Path(tenant): Path<String>) -> Result<Response, AdminError> {
    let mut links: Vec<Arc<Link>> = state.links.all().into_iter().filter(|link| link.facts().peer.tenant == tenant).collect();
    links.sort_by(|one, other| one.facts().peer.name.cmp(&other.facts().peer.name));
    let (seals, epoch) = (state.instance.store.seals().clone(), state.instance.store.epoch());
    let ids: Vec<Id> = links.iter().map(|link| link.id()).collect();
    let requests: Vec<Option<Request>> = state
        .instance
        .store
        .read(move |connection| ids.into_iter().map(|id| Request::latest(connection, &seals, epoch, id)).collect::<Result<_, Fault>>())
        .await?;
    let now = state.instance.clock.now();
    let peers = links.iter().zip(&requests).map(|(link, request)| shape::resource(&link.facts(), request.as_ref(), &now));
    Ok(document::shown(peers.collect::<Vec<Value>>()))
}

async fn show(State(state): State<Arc<AdminState>>, Path((tenant, name)): Path<(String, String)>) -> Result<Response, AdminError> {
    let link = find(&state, &tenant, &name)?;
    Ok(document::shown(resource(&state, &link).await?))
}

async fn create(
    State(state): State<Arc<AdminState>>,
    Path(tenant): Path<String>,
    caller: Caller,
    document: Document,
) -> Result<Response, AdminError> {
    let settings: Settings = document.attributes(KIND)?;
    let name = settings.name.clone().ok_or_else(|| ob_apps::missing("name"))?;
    gate::must_be_able_to_update(&caller, &tenant, "peers", settings.or_update)?;
    if let Ok(link) = find(&state, &tenant, &name) {
        if !settings.or_update {
            return Err(AdminError::exists(KIND, &name));
        }
        return change(&state, &caller, &link, &settings).await;
    }
    let decide = || new(&state, &caller, &tenant, &name, &settings);
    let (alone, mut wanted, mut finding) = decided(&state, &tenant, &name, true, decide).await?;
    wanted.give_key(finding.metadata.as_ref());
    finding.tell_redirect_uri(&state, wanted.app.as_ref());
    let id = wanted.peer.id;
    let (instance, metadata) = (Arc::clone(&state.instance), finding.metadata.clone());
    let taken = state
        .instance
        .store
        .write(move |transaction| {
            let seals = instance.store.seals();
            match (&wanted.app, wanted.writes_app) {
                (Some(app), Some(Write::Insert)) if !ob_apps::insert(transaction, seals, app)? => return Ok(Some(ob_apps::KIND)),
                (Some(app), Some(Write::Replace)) => ob_apps::replace(transaction, &instance, app)?,
                _ => {}
            }
            if !rows::insert(transaction, seals, &wanted.peer)? {
                return Ok(Some(KIND));
            }
            transaction.record(&Entry::of(Action::PeerCreated).on(keeper::told(&wanted.peer)).with("url", wanted.peer.url.as_str()))?;
            rows::set_metadata(transaction, wanted.peer.id, metadata.as_ref())?;
            Ok(None)
        })
        .await?;
    drop(alone);
    if let Some(kind) = taken {
        return Err(AdminError::exists(kind, &name));
    }
    state.links.added(id).await?;
    let link = find(&state, &tenant, &name)?;
    Ok(document::created(with_finding(resource(&state, &link).await?, &finding)))
}

async fn update(
    State(state): State<Arc<AdminState>>,
    Path((tenant, name)): Path<(String, String)>,
    caller: Caller,
    document: Document,
) -> Result<Response, AdminError> {
    let settings: Settings = document.attributes(KIND)?;
    let link = find(&state, &tenant, &name)?;
    change(&state, &caller, &link, &settings).await
}

async fn delete(State(state): State<Arc<AdminState>>, Path((tenant, name)): Path<(String, String)>) -> Result<Response, AdminError> {
    let id = find(&state, &tenant, &name)?.id();
    let instance = Arc::clone(&state.instance);
    state
        .instance
        .store
        .write(move |transaction| {
            keeper::end(transaction, &instance, id, GivenUp::Revoked)?;
            // Its OB app stays: somebody may have made it by itself, and its secret is shown nowhere again.
            if let Some(peer) = rows::by_id(transaction, instance.store.seals(), id)? {
                transaction.record(&Entry::of(Action::PeerDeleted).on(keeper::told(&peer)))?;
            }
            rows::delete(transaction, id)
        })
        .await?;
    state.links.removed(id);
    Ok(document::done())
}

/// A change of the peer `name`, decided over the records as they are now, while nobody else changes them; and, where it `looks`, what was
/// found at the peer. Looking takes as long as the peer likes, so that comes first: without the lock, for what the change would be then.
async fn decided<F: Future<Output = Result<Wanted, AdminError>>>(
    state: &AdminState,
    tenant: &str,
    name: &str,
    looks: bool,
    decide: impl Fn() -> F,
) -> Result<(OwnedMutexGuard<()>, Wanted, Finding), AdminError> {
    if !looks {
        let alone = state.changes.alone(tenant).await;
        return Ok((alone, decide().await?, Finding::default()));
    }
    for _ in 0..ATTEMPTS {
        let before = decide().await?;
        let finding = probe::look(state, &before.peer, before.app.as_ref()).await?;
        let alone = state.changes.alone(tenant).await;
        let now = decide().await?;
        if probe::is_same((&before.peer, before.app.as_ref()), (&now.peer, now.app.as_ref())) {
            return Ok((alone, now, finding));
        }
    }
    Err(changed_meanwhile(&format!("the peer {name:?}")))
}

/// A new peer as it is asked for.
async fn new(state: &AdminState, caller: &Caller, tenant: &str, name: &str, settings: &Settings) -> Result<Wanted, AdminError> {
    if !ob_app::is_name(name) {
        return Err(AdminError::bad_attribute(
            "name",
            format!("{name:?}"),
            "a letter or digit, then up to 62 more of those and '.', '_', '-'",
        ));
    }
    let url = settings.url.as_deref().ok_or_else(|| ob_apps::missing("url"))?;
    let now = state.instance.clock.now().wall;
    let peer = Peer {
        id: Id::new(now, state.instance.random.as_ref()),
        tenant: tenant.to_owned(),
        name: name.to_owned(),
        url: checked_url("url", url)?,
        base_url: None,
        auth: Auth::None,
        trust: PeerTrust::default(),
        guarded: !caller.rules_instance(),
        maintenance: None,
        created_at: now,
        generation: 1,
    };
    apply(state, caller, peer, None, settings).await
}

/// `peer` with what is given, and the OB app that it uses then.
async fn apply(state: &AdminState, caller: &Caller, mut peer: Peer, app: Option<ObApp>, settings: &Settings) -> Result<Wanted, AdminError> {
    let password_was_for = peer.password_is_for(app.as_ref());
    let tokens_went_to = app.as_ref().map(|app| (app.id, peer.origin()));
    if let Some(url) = &settings.url {
        peer.url = checked_url("url", url)?;
    }
    if let Some(base_url) = &settings.base_url {
        peer.base_url = if base_url.is_empty() { None } else { Some(checked_url("base_url", base_url)?) };
    }
    match (caller.rules_instance(), settings.url.is_some(), settings.base_url.is_some()) {
        (true, true, gives_base) if gives_base || peer.base_url.is_none() => peer.guarded = false,
        (false, gives_url, gives_base) if gives_url || gives_base => peer.guarded = true,
        _ => {}
    }
    ob_apps::must_be_public("url", &peer.url, peer.guarded)?;
    peer.base_url.as_ref().map_or(Ok(()), |url| ob_apps::must_be_public("base_url", url, peer.guarded))?;
    if let Some(ca) = &settings.ca {
        peer.trust = PeerTrust { ca: (!ca.is_empty()).then(|| ca.clone()), pin: None };
    }
    if let Some(pin) = &settings.pin {
        peer.trust = PeerTrust { ca: None, pin: if pin.is_empty() { None } else { Some(checked_pin(pin)?) } };
    }
    if let (Some(_), Some(_)) = (&settings.ob, &settings.client_id) {
        return Err(AdminError::bad_attribute("ob", "an OB app and a client_id", "one or the other"));
    }
    let mut wanted = Wanted { peer, app, writes_app: None };
    if let Some(ob) = &settings.ob {
        let (seals, tenant, name) = (state.instance.store.seals().clone(), wanted.peer.tenant.clone(), ob.clone());
        let found = state.instance.store.read(move |connection| ob_apps::by_name_or_id(connection, &seals, &tenant, &name)).await?;
        wanted.app = Some(found.ok_or_else(|| AdminError::not_found(ob_apps::KIND, ob))?);
    } else if settings.client_id.is_some()
        || settings.client_secret.is_some()
        || settings.auth_method.is_some()
        || settings.dpop.is_some()
        || settings.grant.is_some()
        || settings.scopes.is_some()
        || settings.url.is_some()
    {
        if wanted.app.is_none() && settings.makes_app() {
            wanted.app = unused_app(state, &wanted.peer).await?;
        }
        own_app(state, caller, &mut wanted, settings)?;
        if let (Some(app), Some(_)) = (&wanted.app, wanted.writes_app) {
            ob_apps::must_move_no_password(state, app, Some(wanted.peer.id)).await?;
        }
    }
    wanted.peer.auth = auth(&wanted, settings)?;
    must_lead_no_tokens_away(caller, &wanted, tokens_went_to.as_ref())?;
    let password_is_for = wanted.peer.password_is_for(wanted.app.as_ref());
    if password_is_for.is_some() && settings.password.is_none() && password_is_for != password_was_for {
        let message = format!("the password of the peer {:?} was given for another address and is not sent to this one", wanted.peer.name);
        let error = AdminError::new(http::StatusCode::BAD_REQUEST, "missing_attribute", message);
        return Err(error.expected("password").next("give it again: --username NAME --password-stdin"));
    }
    Ok(wanted)
}

/// Refuses to have the tokens of an OB app's server sent to another place than that server, and than they `went_to` before, to whoever may
/// not change the app: with an address of their own for the peer they would have the tokens. An app that is made with the peer is theirs.
fn must_lead_no_tokens_away(caller: &Caller, wanted: &Wanted, went_to: Option<&(Id, Origin)>) -> Result<(), AdminError> {
    let Some(app) = wanted.app.as_ref().filter(|app| ob_app_of(&wanted.peer) == Some(app.id)) else { return Ok(()) };
    let go_to = wanted.peer.origin();
    if app.server.origin() == go_to || went_to == Some(&(app.id, go_to)) || wanted.writes_app == Some(Write::Insert) {
        return Ok(());
    }
    gate::must_hold(caller, &wanted.peer.tenant, "ob-apps", "edit").map_err(|refusal| {
        let server = app.server.origin().ascii_serialization();
        refusal.found(format!("tokens of {server}, which would go to {}", wanted.peer.origin().ascii_serialization()))
    })
}

/// An OB app of the peer's name that no peer uses: what is left of an earlier peer, or was made for this one. One in use is refused.
async fn unused_app(state: &AdminState, peer: &Peer) -> Result<Option<ObApp>, AdminError> {
    let (seals, tenant, name) = (state.instance.store.seals().clone(), peer.tenant.clone(), peer.name.clone());
    let found = state.instance.store.read(move |connection| {
        let Some(app) = app_rows::by_name(connection, &seals, &tenant, &name)? else { return Ok(None) };
        let is_used = !rows::of_ob_app(connection, &seals, app.id)?.is_empty();
        Ok(Some((app, is_used)))
    });
    match found.await? {
        Some((_, true)) => {
            let error = AdminError::exists(ob_apps::KIND, &peer.name);
            Err(error.next(format!("another peer uses it; to use it too, give --ob {} in place of --client-id", peer.name)))
        }
        Some((app, false)) => Ok(Some(app)),
        None => Ok(None),
    }
}

/// The OB app that goes by the peer's name: made with the first `client_id`, changed with it later. It is a record of its own, which other
/// peers may use too: who may change peers may change it only with the right to.
fn own_app(state: &AdminState, caller: &Caller, wanted: &mut Wanted, settings: &Settings) -> Result<(), AdminError> {
    let issuer = wanted.peer.url.as_str().trim_end_matches('/').to_owned();
    let (mut app, write) = match wanted.app.take() {
        Some(app) if app.name == wanted.peer.name => (app, Write::Replace),
        other if !settings.makes_app() => {
            wanted.app = other;
            return match (&settings.client_secret, &settings.auth_method, &settings.dpop, &settings.grant, &settings.scopes) {
                (None, None, None, None, None) => Ok(()),
                _ => Err(no_client()),
            };
        }
        _ => (
            ob_apps::blank(state, &wanted.peer.tenant, &wanted.peer.name, Server::Issuer(issuer.clone()), wanted.peer.guarded)?,
            Write::Insert,
        ),
    };
    let verb = match write {
        Write::Insert => "create",
        Write::Replace => "edit",
    };
    gate::must_hold(caller, &wanted.peer.tenant, "ob-apps", verb)?;
    let was_for = app.server.origin();
    if let (Some(_), Server::Issuer(named)) = (&settings.url, &mut app.server) {
        *named = issuer;
        app.guarded = !caller.rules_instance();
    }
    if let Some(client_id) = &settings.client_id {
        app.client_id = ob_apps::checked_client_id(client_id)?;
    }
    if let Some(secret) = &settings.client_secret {
        app.client_secret = Some(ob_apps::checked_secret("client_secret", secret)?);
    }
    ob_apps::set_auth_method(&mut app, settings.auth_method.as_deref(), settings.client_secret.is_some())?;
    ob_apps::set_dpop(&mut app, settings.dpop.as_deref())?;
    if let Some(grant) = &settings.grant {
        app.grant = own_grant(grant)?;
    }
    ob_apps::name_by_id(&mut app);
    if let Some(scopes) = &settings.scopes {
        app.scope = ob_apps::checked_scope(scopes)?;
    }
    ob_apps::must_be_for(&was_for, &app, settings.client_secret.as_ref())?;
    (wanted.app, wanted.writes_app) = (Some(app), Some(write));
    Ok(())
}

/// What was given is for an OB app of the peer's own, and nothing says which.
fn no_client() -> AdminError {
    let error = ob_apps::missing("client_id").expected("client_id, or auth_method private_key_jwt");
    error.next("add --client-id ID, which the other side gave out, or --auth-method private_key_jwt, which needs no id and no secret")
}

/// How a peer's own app may ask for tokens. With a user's name and password it is one that was made by itself (`ob create`).
fn own_grant(name: &str) -> Result<Grant, AdminError> {
    let known = Grant::from_name(name).filter(|grant| *grant != Grant::Password);
    known.ok_or_else(|| AdminError::bad_attribute("grant", name, "authorization_code or client_credentials"))
}

/// How we authenticate there: by the app, by user name and password, or not at all yet.
fn auth(wanted: &Wanted, settings: &Settings) -> Result<Auth, AdminError> {
    let old = match &wanted.peer.auth {
        Auth::Basic(user) | Auth::OAuth { user: Some(user), .. } => Some(user),
        Auth::OAuth { .. } | Auth::None => None,
    };
    let user = match (settings.username.as_ref().or_else(|| old.map(|user| &user.name)), &settings.password) {
        (None, None) => None,
        (None, Some(_)) => return Err(ob_apps::missing("username")),
        (Some(name), password) => {
            if name.is_empty() || name.len() > 255 || name.chars().any(|character| character.is_control() || character == ':') {
                return Err(AdminError::bad_attribute(
                    "username",
                    format!("{name:?}"),
                    "1 to 255 characters without ':' and control characters",
                ));
            }
            let password = match (password, old) {
                (Some(password), _) => ob_apps::checked_secret("password", password)?,
                (None, Some(old)) => old.password.clone(),
                (None, None) => return Err(ob_apps::missing("password")),
            };
            Some(User { name: name.clone(), password })
        }
    };
    let is_for_basic = settings.username.is_some() && settings.ob.is_none() && !settings.makes_app();
    Ok(match (&wanted.app, user) {
        (Some(app), user) if app.grant == Grant::Password => {
            Auth::OAuth { ob_app: app.id, user: Some(user.ok_or_else(|| ob_apps::missing("username"))?) }
        }
        (_, Some(user)) if is_for_basic || wanted.app.is_none() => Auth::Basic(user),
        (Some(app), _) => Auth::OAuth { ob_app: app.id, user: None },
        (None, _) => Auth::None,
    })
}

/// What came of a change.
enum Changed {
    /// There is an OB app of the name of the peer's own already.
    NameTaken,
    /// It is written.
    Done {
        /// The peer was linked, and is no more.
        lost_token: bool,
    },
}

async fn change(state: &Arc<AdminState>, caller: &Caller, link: &Link, settings: &Settings) -> Result<Response, AdminError> {
    let Peer { tenant, name, .. } = &link.facts().peer;
    let looks = settings.url.is_some() || settings.ca.is_some() || settings.pin.is_some() || settings.ob.is_some();
    let decide = || {
        let facts = link.facts();
        apply(state, caller, facts.peer.clone(), facts.ob_app.clone(), settings)
    };
    let (_alone, mut wanted, mut finding) = decided(state, tenant, name, looks, decide).await?;
    let facts = link.facts();
    wanted.give_key(finding.metadata.as_ref().or(facts.metadata.as_ref()));
    finding.tell_redirect_uri(state, wanted.app.as_ref());
    let id = link.id();
    let (instance, metadata) = (Arc::clone(&state.instance), finding.metadata.clone());
    let changed = state
        .instance
        .store
        .write(move |transaction| {
            let seals = instance.store.seals();
            let Some(old) = rows::by_id(transaction, seals, id)? else { return Ok(Changed::Done { lost_token: false }) };
            let is_other = old.url != wanted.peer.url || ob_app_of(&old) != ob_app_of(&wanted.peer);
            // A token is for the origin that it was given for.
            let ended = match is_other || old.origin() != wanted.peer.origin() {
                true => keeper::end(transaction, &instance, id, GivenUp::Revoked)?,
                false => None,
            };
            if is_other {
                rows::set_metadata(transaction, id, None)?;
            }
            let needs_consent = wanted.app.as_ref().is_some_and(|app| !app.grant.is_self_sufficient());
            if needs_consent && ended.as_ref().is_some_and(|ended| ended.had_token) {
                rows::set_unlinked(transaction, id, Some(transaction.now().wall))?;
            }
            match (&wanted.app, wanted.writes_app) {
                (Some(app), Some(Write::Insert)) if !ob_apps::insert(transaction, seals, app)? => return Ok(Changed::NameTaken),
                (Some(app), Some(Write::Replace)) => ob_apps::replace(transaction, &instance, app)?,
                _ => {}
            }
            rows::update(transaction, seals, &wanted.peer)?;
            transaction.record(&Entry::of(Action::PeerUpdated).on(keeper::told(&wanted.peer)).with("url", wanted.peer.url.as_str()))?;
            if metadata.is_some() {
                rows::set_metadata(transaction, id, metadata.as_ref())?;
            }
            Ok(Changed::Done { lost_token: ended.is_some_and(|ended| ended.had_token) })
        })
        .await?;
    match changed {
        Changed::NameTaken => {
            let error = AdminError::exists(ob_apps::KIND, &facts.peer.name);
            return Err(error.next(format!("use it: p2pid peer update {} --ob {}", facts.peer.name, facts.peer.name)));
        }
        Changed::Done { lost_token: true } => {
            let action =
                if facts.grant().is_self_sufficient() { "Ask for a new one: p2pid peer refresh" } else { "Link again: p2pid peer request" };
            let why = "the link is ended: its token was given for another address or OB app, and is given up";
            finding.warnings.push(format!("{why}. {action} {}", facts.peer.name));
        }
        Changed::Done { lost_token: false } => {}
    }
    state.links.changed(id).await;
    state.links.deliver_now();
    Ok(document::shown(with_finding(resource(state, link).await?, &finding)))
}

const fn ob_app_of(peer: &Peer) -> Option<Id> {
    match &peer.auth {
        Auth::OAuth { ob_app, .. } => Some(*ob_app),
        Auth::Basic(_) | Auth::None => None,
    }
}

/// The link to the tenant's peer of that name or id.
fn find(state: &AdminState, tenant: &str, name: &str) -> Result<Arc<Link>, AdminError> {
    let by_id = || {
        let id: Id = name.parse().ok()?;
        state.links.all().into_iter().find(|link| link.id() == id && link.facts().peer.tenant == tenant)
    };
    state.links.find(tenant, name).or_else(by_id).ok_or_else(|| AdminError::not_found(KIND, name))
}

/// A peer as it is shown, with its newest request URL.
async fn resource(state: &AdminState, link: &Link) -> Result<Value, AdminError> {
    let (seals, epoch, id) = (state.instance.store.seals().clone(), state.instance.store.epoch(), link.id());
    let request = state.instance.store.read(move |connection| Request::latest(connection, &seals, epoch, id)).await?;
    Ok(shape::resource(&link.facts(), request.as_ref(), &state.instance.clock.now()))
}

fn with_finding(mut resource: Value, finding: &Finding) -> Value {
    if let Some(attributes) = resource.get_mut("attributes").and_then(Value::as_object_mut) {
        attributes.insert("probe".to_owned(), json!(finding.found));
        attributes.insert("warnings".to_owned(), json!(finding.warnings));
    }
    resource
}

fn checked_url(name: &str, text: &str) -> Result<url::Url, AdminError> {
    ob_app::base_url(text).map_err(|error| AdminError::bad_attribute(name, text, error.to_string()))
}

fn checked_pin(text: &str) -> Result<String, AdminError> {
    text.parse::<Pin>().map(|pin| pin.to_string()).map_err(|error| AdminError::bad_attribute("pin", format!("{text:?}"), error.to_string()))
}

/// What has to be known of a peer before a request URL is made for it.
fn linkable(facts: &Facts) -> Result<&ObApp, AdminError> {
    let conflict = |code, message: String, next: String| AdminError::new(http::StatusCode::CONFLICT, code, message).next(next);
    let name = &facts.peer.name;
    match (&facts.peer.auth, &facts.ob_app) {
        (Auth::OAuth { .. }, Some(app)) if app.grant == Grant::AuthorizationCode => Ok(app),
        (Auth::OAuth { .. }, _) => Err(conflict(
            "not_linkable",
            format!("the peer {name:?} needs nobody's consent: its OB app asks for tokens itself"),
            format!("p2pid peer refresh {name}"),
        )),
        (Auth::Basic(_), _) => Err(conflict(
            "not_linkable",
            format!("the peer {name:?} is called with user name and password"),
            format!("to link it: p2pid peer update {name} --ob …"),
        )),
        (Auth::None, _) => {
            Err(conflict("no_credentials", format!("the peer {name:?} has no OB app"), format!("p2pid peer update {name} --ob …")))
        }
    }
}

#[cfg(test)]
mod tests;
