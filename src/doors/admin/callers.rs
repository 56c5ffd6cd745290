//! Local applications that may use the relay, over the admin API.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Router, routing};
use serde::Deserialize;
use serde_json::{Value, json};

use super::document::{self, Document};
use super::{AdminError, AdminState, gate};
use crate::audit::{Action, Entry, Record};
use crate::id::Id;
use crate::oauth::token::{self, Kind};
use crate::outbound::caller::Caller;
use crate::outbound::ob_app;
use crate::secret::{Digest, ExposeSecret, SecretString};
use crate::store::caller as rows;
use crate::store::{Fault, Transaction};

const KIND: &str = "caller";

/// `/tenants/{tenant}/callers`, one of them, and a new key.
pub(super) fn router() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/tenants/{tenant}/callers", routing::get(list).post(create))
        .route("/tenants/{tenant}/callers/{name}", routing::get(show).delete(delete))
        .route("/tenants/{tenant}/callers/{name}/rotate", routing::post(rotate))
}

#[derive(Deserialize)]
struct Create {
    name: String,
    /// Names of peers; every peer of the tenant when there are none.
    #[serde(default)]
    peers: Vec<String>,
    #[serde(default)]
    or_update: bool,
}

#[derive(Deserialize)]
struct Nothing {}

async fn list(State(state): State<Arc<AdminState>>, Path(tenant): Path<String>) -> Result<Response, AdminError> {
    let look = move |connection: &_| Ok((rows::of_tenant(connection, &tenant)?, rows::peers_of_tenant(connection, &tenant)?));
    let (callers, peers) = state.instance.store.read(look).await?;
    Ok(document::shown(callers.iter().map(|caller| resource(caller, &peers, None)).collect::<Vec<_>>()))
}

async fn show(State(state): State<Arc<AdminState>>, Path((tenant, name)): Path<(String, String)>) -> Result<Response, AdminError> {
    let wanted = name.clone();
    let look = move |connection: &_| Ok((rows::named(connection, &tenant, &wanted)?, rows::peers_of_tenant(connection, &tenant)?));
    let (caller, peers) = state.instance.store.read(look).await?;
    let caller = caller.ok_or_else(|| AdminError::not_found(KIND, &name))?;
    Ok(document::shown(resource(&caller, &peers, None)))
}

/// What became of a new caller.
enum Made {
    New(Caller),
    Updated(Caller),
    Exists,
    NoPeer(String),
}

async fn create(
    State(state): State<Arc<AdminState>>,
    Path(tenant): Path<String>,
    who: super::Caller,
    document: Document,
) -> Result<Response, AdminError> {
    let Create { name, peers: wanted, or_update } = document.attributes(KIND)?;
    gate::must_be_able_to_update(&who, &tenant, "callers", or_update)?;
    if !ob_app::is_name(&name) {
        return Err(AdminError::bad_attribute("name", name, "1 to 63 letters, digits, '.', '_' and '-', beginning with a letter or digit"));
    }
    let now = state.instance.clock.now().wall;
    let key = token::mint(Kind::CallerKey, state.instance.random.as_ref());
    let id = Id::new(now, state.instance.random.as_ref());
    let digest = Digest::of(key.expose_secret());
    let taken = name.clone();
    let judge = move |transaction: &Transaction<'_>| {
        let known = rows::peers_of_tenant(transaction, &tenant)?;
        let peers = match resolved(&wanted, &known) {
            Ok(peers) => peers,
            Err(missing) => return Ok((Made::NoPeer(missing), known)),
        };
        let made = match rows::named(transaction, &tenant, &name)? {
            Some(_) if !or_update => Made::Exists,
            Some(old) => {
                let caller = Caller { peers, ..old };
                rows::update(transaction, &caller)?;
                transaction.record(&Entry::of(Action::CallerUpdated).on(told(&caller)))?;
                Made::Updated(caller)
            }
            None => {
                let caller = Caller { id, tenant: tenant.clone(), name: name.clone(), key: digest, peers, created_at: now };
                rows::insert(transaction, &caller)?;
                transaction.record(&Entry::of(Action::CallerCreated).on(told(&caller)).token(digest))?;
                Made::New(caller)
            }
        };
        Ok((made, known))
    };
    let (made, known) = state.instance.store.write(judge).await?;
    state.instance.callers.reload(&state.instance.store).await?;
    match made {
        Made::New(caller) => Ok(document::created(resource(&caller, &known, Some(&key)))),
        Made::Updated(caller) => Ok(document::shown(resource(&caller, &known, None))),
        Made::Exists => Err(AdminError::exists(KIND, &taken)),
        Made::NoPeer(missing) => Err(AdminError::not_found("peer", &missing)),
    }
}

async fn rotate(
    State(state): State<Arc<AdminState>>,
    Path((tenant, name)): Path<(String, String)>,
    who: super::Caller,
    document: Document,
) -> Result<Response, AdminError> {
    gate::must_be_able_to_know_secret(&who, &tenant, "callers")?;
    let Nothing {} = document.attributes(KIND)?;
    let key = token::mint(Kind::CallerKey, state.instance.random.as_ref());
    let digest = Digest::of(key.expose_secret());
    let wanted = name.clone();
    let judge = move |transaction: &Transaction<'_>| -> Result<_, Fault> {
        let Some(old) = rows::named(transaction, &tenant, &wanted)? else { return Ok(None) };
        let caller = Caller { key: digest, ..old };
        rows::update(transaction, &caller)?;
        transaction.record(&Entry::of(Action::CallerKeyRotated).on(told(&caller)).token(digest))?;
        Ok(Some((caller, rows::peers_of_tenant(transaction, &tenant)?)))
    };
    let rotated = state.instance.store.write(judge).await?;
    state.instance.callers.reload(&state.instance.store).await?;
    let (caller, peers) = rotated.ok_or_else(|| AdminError::not_found(KIND, &name))?;
    Ok(document::shown(resource(&caller, &peers, Some(&key))))
}

async fn delete(State(state): State<Arc<AdminState>>, Path((tenant, name)): Path<(String, String)>) -> Result<Response, AdminError> {
    let wanted = name.clone();
    let judge = move |transaction: &Transaction<'_>| match rows::named(transaction, &tenant, &wanted)? {
        Some(caller) => {
            transaction.record(&Entry::of(Action::CallerDeleted).on(told(&caller)))?;
            rows::delete(transaction, caller.id)
        }
        None => Ok(false),
    };
    let was_there = state.instance.store.write(judge).await?;
    state.instance.callers.reload(&state.instance.store).await?;
    if was_there { Ok(document::done()) } else { Err(AdminError::not_found(KIND, &name)) }
}

/// The identities of the peers named `wanted`; `None` when none are named. The error is a name that no peer has.
fn resolved(wanted: &[String], known: &[(Id, String)]) -> Result<Option<Vec<Id>>, String> {
    let find = |name: &String| known.iter().find(|(_, known)| known == name).map(|(id, _)| *id).ok_or_else(|| name.clone());
    if wanted.is_empty() { Ok(None) } else { wanted.iter().map(find).collect::<Result<_, _>>().map(Some) }
}

/// As the audit names it.
fn told(caller: &Caller) -> Record {
    Record::of_tenant(KIND, &caller.tenant, caller.id, &caller.name)
}

/// As `caller list` shows it; the key only where it was just made. A peer that was deleted is not named any more.
fn resource(caller: &Caller, known: &[(Id, String)], key: Option<&SecretString>) -> Value {
    let named = |id: &Id| known.iter().find(|(known, _)| known == id).map(|(_, name)| name.as_str());
    let mut attributes = json!({
        "id": caller.id,
        "tenant": caller.tenant,
        "name": caller.name,
        "peers": caller.peers.as_ref().map(|peers| peers.iter().filter_map(named).collect::<Vec<_>>()),
        "created_at": caller.created_at,
    });
    if let Some(key) = key {
        attributes["key"] = json!(key.expose_secret());
    }
    document::record(KIND, caller.id, attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_kept_by_identity_and_shown_by_name() {
        let (one, two) = (Id::from_bytes([1; 16]), Id::from_bytes([2; 16]));
        let known = [(one, "one".to_owned()), (two, "two".to_owned())];
        assert_eq!(resolved(&[], &known), Ok(None));
        assert_eq!(resolved(&["two".to_owned(), "one".to_owned()], &known), Ok(Some(vec![two, one])));
        assert_eq!(resolved(&["one".to_owned(), "three".to_owned()], &known), Err("three".to_owned()));
        let caller = Caller {
            id: Id::from_bytes([9; 16]),
            tenant: "default".to_owned(),
            name: "shop".to_owned(),
            key: Digest::of("key"),
            peers: Some(vec![two, Id::from_bytes([3; 16])]),
            created_at: crate::clock::Timestamp::from_millis(0),
        };
        let shown = resource(&caller, &known, None);
        assert_eq!(shown["attributes"]["peers"], json!(["two"]));
        assert!(shown["attributes"].get("key").is_none());
        assert_eq!(resource(&caller, &known, Some(&"secret".into()))["attributes"]["key"], "secret");
    }
}
