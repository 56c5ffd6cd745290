//! What can be done with a peer: request, refresh, unlink, rename, maintenance, probe.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Router, routing};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::shape::Request;
use super::{KIND, find, probe, resource, with_finding};
use crate::audit::{Action, Entry};
use crate::clock::Timestamp;
use crate::doors::admin::document::{self, Document};
use crate::doors::admin::{AdminError, AdminState, ob_apps};
use crate::oauth::token::{self, Kind};
use crate::outbound::handshake;
use crate::outbound::link::Facts;
use crate::outbound::ob_app::{self, Grant, ObApp, Server};
use crate::outbound::peer::{Auth, Maintenance};
use crate::outbound::ticket::{Fate, Ticket};
use crate::secret::{Digest, ExposeSecret};
use crate::store::{Transaction, handshake as handshake_rows, peer as rows, ticket as ticket_rows};
use crate::tasks::keeper::{self, GivenUp, NotRefreshed, Unlinked};

/// `/tenants/{tenant}/peers/{name}/…`
pub(super) fn router() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/tenants/{tenant}/peers/{name}/request", routing::get(progress).post(request))
        .route("/tenants/{tenant}/peers/{name}/refresh", routing::post(refresh))
        .route("/tenants/{tenant}/peers/{name}/unlink", routing::post(unlink))
        .route("/tenants/{tenant}/peers/{name}/rename", routing::post(rename))
        .route("/tenants/{tenant}/peers/{name}/maintenance", routing::post(maintenance))
        .route("/tenants/{tenant}/peers/{name}/probe", routing::post(look))
}

#[derive(Deserialize)]
struct Ask {
    #[serde(default)]
    login: bool,
}

/// Makes a new request URL; the older one dies, with the handshakes that were begun with it.
async fn request(
    State(state): State<Arc<AdminState>>,
    Path((tenant, name)): Path<(String, String)>,
    document: Document,
) -> Result<Response, AdminError> {
    let Ask { login } = document.attributes(KIND)?;
    let link = find(&state, &tenant, &name)?;
    let facts = link.facts();
    let app = linkable(&facts)?;
    let config = state.instance.config();
    let public_url = config.instance.public_url.as_str();
    // What the server says now counts; what it said last will do while it cannot be asked.
    let fresh = match &app.server {
        Server::Issuer(issuer) => state.links.metadata(app, &facts.server_trust(), issuer).await.map(|(metadata, _)| Some(metadata)),
        Server::Endpoints { .. } => Ok(None),
    };
    let (fresh, problem) = match fresh {
        Ok(fresh) => (fresh, None),
        Err(problem) => (None, Some(problem)),
    };
    if let Err(missing) = handshake::begin(public_url, app, fresh.as_ref().or(facts.metadata.as_ref())) {
        let error =
            AdminError::new(StatusCode::BAD_GATEWAY, "peer_unreachable", format!("the peer {name:?} cannot be linked now: {missing}"));
        return Err(match problem {
            Some(problem) => error.found(problem.to_string()).next(format!("p2pid doctor {name}")),
            None => error.next(format!("p2pid ob show {}", app.name)),
        });
    }
    let (secret, now) = (token::mint(Kind::Ticket, state.instance.random.as_ref()), state.instance.clock.now().wall);
    let ticket = Ticket {
        digest: Digest::of(secret.expose_secret()),
        peer: link.id(),
        made_at: now,
        expires_at: now.plus(config.tokens.request_ttl),
        login,
        fate: Fate::Open,
    };
    let (row, epoch, peer) = (ticket.clone(), state.instance.store.epoch(), facts.peer.clone());
    state
        .instance
        .store
        .write(move |transaction| {
            ticket_rows::replace_all(transaction, row.peer)?;
            handshake_rows::replace_all(transaction, row.peer)?;
            if fresh.is_some() {
                rows::set_metadata(transaction, row.peer, fresh.as_ref())?;
            }
            let requested = Entry::of(Action::PeerRequested).on(keeper::told(&peer)).token(row.digest);
            transaction.record(&requested.at("expires_at", row.expires_at).with("login", row.login))?;
            ticket_rows::insert(transaction, epoch, &row)
        })
        .await?;
    state.links.changed(link.id()).await;
    let url = config.instance.public_url.join(&format!("/link/{}", secret.expose_secret()));
    let attributes = json!({ "url": url, "id": ticket.digest.fingerprint().to_string(), "expires_at": ticket.expires_at, "peer": facts.peer.name, "open_as": facts.peer.url });
    Ok(document::created(document::record("request", link.id(), attributes)))
}

/// How far the newest request URL has come.
async fn progress(State(state): State<Arc<AdminState>>, Path((tenant, name)): Path<(String, String)>) -> Result<Response, AdminError> {
    let link = find(&state, &tenant, &name)?;
    let (seals, epoch, id) = (state.instance.store.seals().clone(), state.instance.store.epoch(), link.id());
    let request = state.instance.store.read(move |connection| Request::latest(connection, &seals, epoch, id)).await?;
    let request = request.ok_or_else(|| {
        AdminError::new(StatusCode::NOT_FOUND, "not_found", format!("no request URL is out for the peer {name:?}"))
            .next(format!("p2pid peer request {name}"))
    })?;
    Ok(document::shown(document::record("request", id, request.json(&link.facts(), &state.instance.clock.now()))))
}

async fn refresh(State(state): State<Arc<AdminState>>, Path((tenant, name)): Path<(String, String)>) -> Result<Response, AdminError> {
    let link = find(&state, &tenant, &name)?;
    let facts = link.facts();
    // Asking for a token again is what takes back an unlink.
    let (id, takes_back) = (link.id(), facts.grant().is_self_sufficient() && facts.held().is_none());
    let asked = Entry::of(Action::PeerRefreshAsked).on(keeper::told(&facts.peer));
    let judge = move |transaction: &Transaction<'_>| {
        transaction.record(&asked)?;
        if takes_back { rows::set_unlinked(transaction, id, None) } else { Ok(()) }
    };
    state.instance.store.write(judge).await?;
    if takes_back {
        state.links.changed(id).await;
    }
    match state.links.refresh(link.id()).await {
        Ok(()) => Ok(document::shown(resource(&state, &link).await?)),
        Err(problem) => {
            let (status, code) = match &problem {
                NotRefreshed::NothingToRenew => (StatusCode::CONFLICT, "not_linked"),
                NotRefreshed::Failed(_) => (StatusCode::BAD_GATEWAY, "refresh_failed"),
                NotRefreshed::Ended(_) => (StatusCode::CONFLICT, "relink_required"),
                NotRefreshed::Superseded => (StatusCode::CONFLICT, "superseded"),
            };
            let error = AdminError::new(status, code, format!("the token of {name:?} was not renewed: {problem}"));
            Err(match problem {
                NotRefreshed::NothingToRenew | NotRefreshed::Ended(_) => error.next(format!("p2pid peer request {name}")),
                NotRefreshed::Failed(_) | NotRefreshed::Superseded => error.next(format!("p2pid peer show {name}")),
            })
        }
    }
}

#[derive(Deserialize)]
struct Unlink {
    #[serde(default)]
    force: bool,
}

async fn unlink(
    State(state): State<Arc<AdminState>>,
    Path((tenant, name)): Path<(String, String)>,
    document: Document,
) -> Result<Response, AdminError> {
    let Unlink { force } = document.attributes(KIND)?;
    let link = find(&state, &tenant, &name)?;
    let given_up = if force { GivenUp::Forgotten } else { GivenUp::Revoked };
    let unlinked = state.links.unlink(link.id(), given_up).await?.ok_or_else(|| AdminError::not_found(KIND, &name))?;
    let (revocation, words) = match &unlinked {
        Unlinked::NothingHeld => ("nothing_held", "there was no token".to_owned()),
        Unlinked::Revoked => ("revoked", "the peer has revoked the token".to_owned()),
        Unlinked::NotAsked if force => ("not_asked", "the token is forgotten here; it was not revoked at the peer".to_owned()),
        Unlinked::NotAsked => {
            ("not_asked", "the token is forgotten here; the peer has no way to revoke it, there it ends by itself".to_owned())
        }
        Unlinked::NotRevocable => {
            ("refused", "the token is forgotten here; the peer does not revoke it, there it ends by itself".to_owned())
        }
        Unlinked::Waiting(reason) => {
            ("waiting", format!("the token is forgotten here, but not revoked yet ({reason}); it is tried for 30 days"))
        }
    };
    let mut shown = resource(&state, &link).await?;
    if let Some(attributes) = shown.get_mut("attributes").and_then(serde_json::Value::as_object_mut) {
        attributes.insert("revoked".to_owned(), json!(matches!(unlinked, Unlinked::Revoked)));
        attributes.insert("revocation".to_owned(), json!(revocation));
        attributes.insert("revocation_detail".to_owned(), json!(words));
    }
    Ok(document::shown(shown))
}

#[derive(Deserialize)]
struct Rename {
    name: String,
}

async fn rename(
    State(state): State<Arc<AdminState>>,
    Path((tenant, name)): Path<(String, String)>,
    document: Document,
) -> Result<Response, AdminError> {
    let Rename { name: new_name } = document.attributes(KIND)?;
    if !ob_app::is_name(&new_name) {
        let expected = "a letter or digit, then up to 62 more of those and '.', '_', '-'";
        return Err(AdminError::bad_attribute("name", format!("{new_name:?}"), expected));
    }
    let _alone = state.changes.alone(&tenant).await;
    let link = find(&state, &tenant, &name)?;
    let (seals, id, wanted) = (state.instance.store.seals().clone(), link.id(), new_name.clone());
    let is_free = state
        .instance
        .store
        .write(move |transaction| {
            let Some(mut peer) = rows::by_id(transaction, &seals, id)? else { return Ok(false) };
            let other = rows::by_name(transaction, &seals, &peer.tenant, &wanted)?;
            if other.is_some_and(|other| other.id != id) {
                return Ok(false);
            }
            let renamed = Entry::of(Action::PeerRenamed).with("from", peer.name.as_str());
            peer.name.clone_from(&wanted);
            rows::update(transaction, &seals, &peer)?;
            transaction.record(&renamed.on(keeper::told(&peer)))?;
            Ok(true)
        })
        .await?;
    if !is_free {
        return Err(AdminError::exists(KIND, &new_name).next("choose another name"));
    }
    state.links.changed(id).await;
    Ok(document::shown(resource(&state, &link).await?))
}

#[derive(Deserialize)]
struct Until {
    until: Option<String>,
}

async fn maintenance(
    State(state): State<Arc<AdminState>>,
    Path((tenant, name)): Path<(String, String)>,
    document: Document,
) -> Result<Response, AdminError> {
    let Until { until } = document.attributes(KIND)?;
    let until = until.ok_or_else(|| ob_apps::missing("until"))?;
    let now = state.instance.clock.now().wall;
    let maintenance = match until.as_str() {
        "off" => None,
        text => Some(Maintenance { since: now, until: time_to_come(text, now)? }),
    };
    let _alone = state.changes.alone(&tenant).await;
    let link = find(&state, &tenant, &name)?;
    let (seals, id) = (state.instance.store.seals().clone(), link.id());
    state
        .instance
        .store
        .write(move |transaction| {
            let Some(mut peer) = rows::by_id(transaction, &seals, id)? else { return Ok(()) };
            // Changing its end does not begin it anew.
            let since = peer.maintenance_at(now).map(|old| old.since);
            peer.maintenance = maintenance.map(|new| Maintenance { since: since.unwrap_or(new.since), ..new });
            let until = peer.maintenance.as_ref().map_or_else(|| "off".to_owned(), |maintenance| maintenance.until.to_string());
            transaction.record(&Entry::of(Action::PeerMaintenance).on(keeper::told(&peer)).with("until", until))?;
            rows::update(transaction, &seals, &peer)
        })
        .await?;
    state.links.changed(id).await;
    Ok(document::shown(resource(&state, &link).await?))
}

fn time_to_come(text: &str, now: Timestamp) -> Result<Timestamp, AdminError> {
    let wrong = || AdminError::bad_attribute("until", text, "a time to come, as in 2026-12-01T06:00:00Z, or off");
    let time = humantime::parse_rfc3339_weak(text).map_err(|_| wrong())?;
    let since_epoch = time.duration_since(std::time::UNIX_EPOCH).map_err(|_| wrong())?;
    let until = Timestamp::default().plus(since_epoch);
    if until > now { Ok(until) } else { Err(wrong()) }
}

async fn look(State(state): State<Arc<AdminState>>, Path((tenant, name)): Path<(String, String)>) -> Result<Response, AdminError> {
    let link = find(&state, &tenant, &name)?;
    let facts = link.facts();
    let mut finding = probe::look(&state, &facts.peer, facts.ob_app.as_ref()).await?;
    finding.tell_redirect_uri(&state, facts.ob_app.as_ref());
    if let Some(metadata) = finding.metadata.clone().filter(|found| facts.metadata.as_ref() != Some(found)) {
        let id = link.id();
        state.instance.store.write(move |transaction| rows::set_metadata(transaction, id, Some(&metadata))).await?;
        state.links.changed(id).await;
    }
    Ok(document::shown(with_finding(resource(&state, &link).await?, &finding)))
}

/// What has to be known of a peer before a request URL is made for it.
fn linkable(facts: &Facts) -> Result<&ObApp, AdminError> {
    let conflict = |code, message: String, next: String| AdminError::new(StatusCode::CONFLICT, code, message).next(next);
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
