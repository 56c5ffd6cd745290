//! What is asked for of a peer, and the peer and its OB app as they are to be then.

use serde::Deserialize;
use url::Origin;

use super::super::{AdminError, AdminState, Caller, gate, ob_apps};
use crate::id::Id;
use crate::net::certificate::Pin;
use crate::outbound::metadata::Metadata;
use crate::outbound::ob_app::{self, Grant, ObApp, Server};
use crate::outbound::peer::{Auth, Peer, PeerTrust, User};
use crate::secret::SecretString;
use crate::store::{ob_app as app_rows, peer as rows};

/// What is given of a peer; what is not given stays, or is its default.
#[derive(Default, Deserialize)]
pub(super) struct Settings {
    pub(super) name: Option<String>,
    pub(super) url: Option<String>,
    pub(super) base_url: Option<String>,
    pub(super) ob: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) auth_method: Option<String>,
    pub(super) dpop: Option<String>,
    pub(super) grant: Option<String>,
    pub(super) client_secret: Option<SecretString>,
    pub(super) scopes: Option<Vec<String>>,
    pub(super) username: Option<String>,
    pub(super) password: Option<SecretString>,
    pub(super) ca: Option<String>,
    pub(super) pin: Option<String>,
    #[serde(default)]
    pub(super) or_update: bool,
}

impl Settings {
    /// Whether an OB app of the peer's name is to be there.
    fn makes_app(&self) -> bool {
        self.client_id.is_some() || ob_apps::is_named_by_us(self.auth_method.as_deref())
    }
}

/// A peer and its OB app as they are to be.
pub(super) struct Wanted {
    pub(super) peer: Peer,
    pub(super) app: Option<ObApp>,
    /// The app is the peer's own and is made, or changed, with it.
    pub(super) writes_app: Option<Write>,
}

impl Wanted {
    /// Gives the peer's own app the key that it needs, as the server of those metadata takes it.
    pub(super) fn give_key(&mut self, metadata: Option<&Metadata>) {
        if let (Some(app), Some(write)) = (&mut self.app, self.writes_app) {
            ob_apps::give_key(app, write == Write::Insert, metadata);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    Insert,
    Replace,
}

/// A new peer as it is asked for.
pub(super) async fn new(state: &AdminState, caller: &Caller, tenant: &str, name: &str, settings: &Settings) -> Result<Wanted, AdminError> {
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
pub(super) async fn apply(
    state: &AdminState,
    caller: &Caller,
    mut peer: Peer,
    app: Option<ObApp>,
    settings: &Settings,
) -> Result<Wanted, AdminError> {
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

pub(super) const fn ob_app_of(peer: &Peer) -> Option<Id> {
    match &peer.auth {
        Auth::OAuth { ob_app, .. } => Some(*ob_app),
        Auth::Basic(_) | Auth::None => None,
    }
}

fn checked_url(name: &str, text: &str) -> Result<url::Url, AdminError> {
    ob_app::base_url(text).map_err(|error| AdminError::bad_attribute(name, text, error.to_string()))
}

fn checked_pin(text: &str) -> Result<String, AdminError> {
    text.parse::<Pin>().map(|pin| pin.to_string()).map_err(|error| AdminError::bad_attribute("pin", format!("{text:?}"), error.to_string()))
}
