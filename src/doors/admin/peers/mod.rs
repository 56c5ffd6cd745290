//! Peers over the admin API.

mod actions;
mod probe;
mod shape;
mod wanted;

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Router, routing};
use serde_json::{Value, json};
use tokio::sync::OwnedMutexGuard;

use super::changes::{ATTEMPTS, changed_meanwhile};
use super::document::{self, Document};
use super::ob_apps;
use super::{AdminError, AdminState, Caller, gate};
use crate::audit::{Action, Entry};
use crate::id::Id;
use crate::outbound::peer::Peer;
use crate::store::{Fault, peer as rows};
use crate::tasks::keeper::{self, GivenUp, Link};

use probe::Finding;
use shape::Request;
use wanted::{Settings, Wanted, Write, apply, new, ob_app_of};

const KIND: &str = "peer";

/// `/tenants/{tenant}/peers`, one of them, and what can be done with it.
pub(super) fn router() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/tenants/{tenant}/peers", routing::get(list).post(create))
        .route("/tenants/{tenant}/peers/{name}", routing::get(show).patch(update).delete(delete))
        .merge(actions::router())
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

#[cfg(test)]
mod tests;
