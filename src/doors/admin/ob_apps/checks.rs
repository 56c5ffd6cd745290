//! What is given for an OB app, or for a peer that has one of its own, checked piece by piece.

use http::StatusCode;
use url::{Origin, Url};

use super::super::{AdminError, AdminState};
use crate::id::Id;
use crate::net::guard;
use crate::oauth::client_auth::Method;
use crate::oauth::scope::Scope;
use crate::oauth::signing_key::SigningKey;
use crate::outbound::keys::Keys;
use crate::outbound::metadata::Metadata;
use crate::outbound::ob_app::{self, Dpop, Grant, ObApp, Server};
use crate::outbound::peer as peers;
use crate::secret::{ExposeSecret, SecretString};
use crate::store::{ob_app as rows, peer as peer_rows};

/// Refuses the URLs of a guarded app that lead into a private network by what they say; names are judged when they are called.
pub(super) fn must_be_reachable(app: &ObApp) -> Result<(), AdminError> {
    match &app.server {
        Server::Issuer(issuer) => match Url::parse(issuer) {
            Ok(issuer) => must_be_public("issuer", &issuer, app.guarded),
            Err(_) => Ok(()),
        },
        Server::Endpoints { authorize_url, token_url } => {
            authorize_url.as_ref().map_or(Ok(()), |url| must_be_public("authorize_url", url, app.guarded))?;
            must_be_public("token_url", token_url, app.guarded)
        }
    }
}

/// Refuses a `guarded` URL, one that somebody gave who does not rule the instance, when it is plainly private.
pub(in crate::doors::admin) fn must_be_public(name: &str, url: &Url, guarded: bool) -> Result<(), AdminError> {
    if !guarded || !guard::is_plainly_private(url) {
        return Ok(());
    }
    let error =
        AdminError::bad_attribute(name, url.as_str(), "an address of the internet: only admins of the instance may name private ones");
    Err(error.next("ask an admin of the instance to give all URLs of this record"))
}

/// A secret is for the origin that it was given for: an app that moves to another needs it `given` again.
pub(in crate::doors::admin) fn must_be_for(was_for: &Origin, app: &ObApp, given: Option<&SecretString>) -> Result<(), AdminError> {
    let is_for = app.server.origin();
    if app.client_secret.is_none() || given.is_some() || is_for == *was_for {
        return Ok(());
    }
    let message = format!("the client secret of the OB app {:?} was given for another server and is not sent to this one", app.name);
    let error = AdminError::new(StatusCode::BAD_REQUEST, "missing_attribute", message);
    Err(error
        .found(format!("a secret for {}", was_for.ascii_serialization()))
        .expected(format!("client_secret, for {}", is_for.ascii_serialization()))
        .next("give it again: --client-secret-stdin"))
}

/// Has `app` authenticate by the method that is `named`, if one is; whether that goes with what it has, and with a secret that is `given`.
pub(in crate::doors::admin) fn set_auth_method(app: &mut ObApp, named: Option<&str>, given: bool) -> Result<(), AdminError> {
    let method = match named {
        Some(name) => {
            let offered = [Method::ClientSecretBasic, Method::ClientSecretPost, Method::PrivateKeyJwt, Method::None];
            let method = offered.into_iter().find(|method| method.as_str() == name);
            let expected = "client_secret_basic, client_secret_post, private_key_jwt or none";
            Some(method.ok_or_else(|| AdminError::bad_attribute("auth_method", name, expected))?)
        }
        None => app.auth_method,
    };
    let Some(method) = method else { return Ok(()) };
    if !method.has_secret() && given {
        let error = AdminError::bad_attribute("client_secret", format!("a secret and the method {}", method.as_str()), "one or the other");
        return Err(error.next("give the secret with --auth-method client_secret_basic"));
    }
    if !method.has_secret() {
        app.client_secret = None;
    } else if app.client_secret.is_none() {
        return Err(missing("client_secret").next("add --client-secret-stdin"));
    }
    app.auth_method = Some(method);
    Ok(())
}

/// Has the tokens of `app` bound to a key as the setting that is `named` says, if one is.
pub(in crate::doors::admin) fn set_dpop(app: &mut ObApp, named: Option<&str>) -> Result<(), AdminError> {
    if let Some(name) = named {
        app.dpop = Dpop::from_name(name).ok_or_else(|| AdminError::bad_attribute("dpop", name, "auto, off or require"))?;
    }
    Ok(())
}

/// A key for an app that has to have one and has none, by an algorithm that the server of those metadata takes. What is there already was
/// made without one on purpose, unless it is told to sign.
pub(in crate::doors::admin) fn give_key(app: &mut ObApp, is_new: bool, metadata: Option<&Metadata>) {
    if app.keys.is_none() && (app.auth_method == Some(Method::PrivateKeyJwt) || is_new && app.needs_key()) {
        app.keys = Some(Keys::new(new_key(metadata)));
    }
}

pub(super) fn new_key(metadata: Option<&Metadata>) -> SigningKey {
    SigningKey::generate_for(metadata.map_or(&[], |metadata| &metadata.auth_algorithms))
}

/// What the server of `app` says of itself now, where its algorithms matter for a key and it can be asked.
pub(super) async fn asked_metadata(state: &AdminState, app: &ObApp) -> Option<Metadata> {
    match &app.server {
        Server::Issuer(issuer) if app.keys.is_none() && app.needs_key() => {
            let trust = peers::PeerTrust { ca: app.ca.clone(), pin: None };
            state.links.metadata(app, &trust, issuer).await.ok().map(|(metadata, _)| metadata)
        }
        _ => None,
    }
}

/// Refuses to move `app` away from under passwords that peers other than `except` hold for its server.
pub(in crate::doors::admin) async fn must_move_no_password(state: &AdminState, app: &ObApp, except: Option<Id>) -> Result<(), AdminError> {
    let (seals, id, is_for) = (state.instance.store.seals().clone(), app.id, app.server.origin());
    let holder = state.instance.store.read(move |connection| {
        let Some(old) = rows::by_id(connection, &seals, id)?.filter(|old| old.server.origin() != is_for) else { return Ok(None) };
        let users = peer_rows::of_ob_app(connection, &seals, id)?;
        let holds_one = |peer: &peers::Peer| Some(peer.id) != except && peer.password_is_for(Some(&old)).is_some();
        Ok(users.into_iter().find(holds_one).map(|peer| peer.name))
    });
    let Some(peer) = holder.await? else { return Ok(()) };
    let message = format!("the peer {peer:?} holds a password that was given for the server that the OB app {:?} had", app.name);
    let error = AdminError::new(StatusCode::BAD_REQUEST, "password_bound", message).expected("the same server");
    Err(error.next(format!("make another OB app for it, then: p2pid peer update {peer} --ob NEW --username NAME --password-stdin")))
}

/// An app of that name as it is before anything was said of it.
pub(in crate::doors::admin) fn blank(
    state: &AdminState,
    tenant: &str,
    name: &str,
    server: Server,
    guarded: bool,
) -> Result<ObApp, AdminError> {
    if !ob_app::is_name(name) {
        return Err(AdminError::bad_attribute(
            "name",
            format!("{name:?}"),
            "a letter or digit, then up to 62 more of those and '.', '_', '-'",
        ));
    }
    let now = state.instance.clock.now().wall;
    Ok(ObApp {
        id: Id::new(now, state.instance.random.as_ref()),
        tenant: tenant.to_owned(),
        name: name.to_owned(),
        client_id: String::new(),
        auth_method: None,
        client_secret: None,
        keys: None,
        dpop: Dpop::Auto,
        grant: Grant::AuthorizationCode,
        scope: Scope::default(),
        server,
        ca: None,
        guarded,
        created_at: now,
    })
}

pub(super) fn no_server() -> AdminError {
    let error = AdminError::new(StatusCode::BAD_REQUEST, "missing_attribute", "nothing says where the app's tokens come from");
    error.expected("issuer, or token_url and authorize_url").next("add --issuer URL, or --authorize-url and --token-url")
}

pub(in crate::doors::admin) fn checked_client_id(client_id: &str) -> Result<String, AdminError> {
    let is_one = (1..=255).contains(&client_id.len()) && client_id.bytes().all(|byte| byte.is_ascii_graphic());
    if is_one {
        Ok(client_id.to_owned())
    } else {
        Err(AdminError::bad_attribute("client_id", format!("{client_id:?}"), "1 to 255 printable ASCII characters without spaces"))
    }
}

pub(in crate::doors::admin) fn checked_secret(name: &str, secret: &SecretString) -> Result<SecretString, AdminError> {
    let text = secret.expose_secret();
    let is_one = (1..=128).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, 0x20..=0x7e));
    if is_one { Ok(secret.clone()) } else { Err(AdminError::bad_attribute(name, in_outline(text), "1 to 128 printable ASCII characters")) }
}

/// A secret that cannot be one, without saying it.
pub(in crate::doors::admin) fn in_outline(secret: &str) -> String {
    match secret.bytes().position(|byte| !matches!(byte, 0x20..=0x7e)) {
        Some(at) => format!("{} bytes, of which number {} is no printable ASCII character", secret.len(), at + 1),
        None => format!("{} characters", secret.len()),
    }
}

pub(in crate::doors::admin) fn checked_scope(words: &[String]) -> Result<Scope, AdminError> {
    Scope::from_words(words).map_err(|error| AdminError::bad_attribute("scopes", format!("{words:?}"), error.to_string()))
}

pub(in crate::doors::admin) fn checked_issuer(name: &str, text: &str) -> Result<String, AdminError> {
    ob_app::base_url(text).map(|_| text.to_owned()).map_err(|error| AdminError::bad_attribute(name, text, error.to_string()))
}

pub(super) fn checked_endpoint(name: &str, text: &str) -> Result<Url, AdminError> {
    ob_app::endpoint_url(text).map_err(|error| AdminError::bad_attribute(name, text, error.to_string()))
}

pub(in crate::doors::admin) fn missing(name: &str) -> AdminError {
    AdminError::missing_attribute(name)
}
