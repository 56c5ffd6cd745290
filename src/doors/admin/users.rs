//! People over the admin API: what they may do, their passwords and keys.

mod keys;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Router, routing};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::document::{self, Document};
use super::rights::{Changes, Place, last_admin};
use super::{AdminError, AdminState, Caller};
use crate::audit::{Action, Entry, Record};
use crate::id::Id;
use crate::inbound::grant::EndReason;
use crate::inbound::password::{BadPassword, PasswordHash};
use crate::inbound::tenant;
use crate::inbound::user::{self, BadLogin, LOGIN_IN_WORDS, User};
use crate::secret::SecretString;
use crate::store::grant::ending::{self, Ending};
use crate::store::user as rows;
use crate::store::{Fault, Transaction, realm, session};
use crate::tasks::endings::{self, Whose};

pub(super) const KIND: &str = "user";

/// `/users`, one of them, and its keys.
pub(super) fn router() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/users", routing::get(list).post(create))
        .route("/users/{login}", routing::get(show).patch(update).delete(delete))
        .merge(keys::router())
}

#[derive(Deserialize)]
struct Create {
    login: String,
    password: SecretString,
    admin: Option<bool>,
    permissions: Option<Vec<String>>,
    roles: Option<Vec<String>>,
    tenant: Option<String>,
    #[serde(default)]
    or_update: bool,
}

#[derive(Deserialize)]
struct Update {
    password: Option<SecretString>,
    admin: Option<bool>,
    permissions: Option<Vec<String>>,
    #[serde(default)]
    remove_permissions: Vec<String>,
    roles: Option<Vec<String>>,
    #[serde(default)]
    add_roles: Vec<String>,
    #[serde(default)]
    remove_roles: Vec<String>,
    tenant: Option<String>,
}

#[derive(Deserialize)]
struct Delete {
    /// What the person allowed ends too.
    #[serde(default)]
    revoke_grants: bool,
}

/// Without a tenant `admin` means the instance, and all else the tenant `default`.
fn place(tenant: Option<String>) -> Place {
    let admin_is_of_instance = tenant.is_none();
    Place { tenant: tenant.unwrap_or_else(|| tenant::DEFAULT.to_owned()), admin_is_of_instance }
}

async fn list(State(state): State<Arc<AdminState>>) -> Result<Response, AdminError> {
    let users = state.instance.store.read(rows::all).await?;
    Ok(document::shown(users.iter().map(resource).collect::<Vec<_>>()))
}

async fn show(State(state): State<Arc<AdminState>>, Path(login): Path<String>) -> Result<Response, AdminError> {
    let wanted = login.clone();
    let user = state.instance.store.read(move |connection| rows::by_login(connection, &wanted)).await?;
    user.map(|user| document::shown(resource(&user))).ok_or_else(|| AdminError::not_found(KIND, &login))
}

async fn create(State(state): State<Arc<AdminState>>, caller: Caller, document: Document) -> Result<Response, AdminError> {
    let Create { login, password, admin, permissions, roles, tenant, or_update } = document.attributes(KIND)?;
    user::check_login(&login).map_err(bad_login)?;
    let changes = Changes { admin, permissions, roles, ..Changes::default() }.checked()?;
    let new = fresh(&state, login, hash(&state, password).await?);
    let place = place(tenant);
    let judge = move |transaction: &Transaction<'_>| {
        let known = rows::by_login(transaction, &new.login)?;
        let mut user = match &known {
            None => new.clone(),
            Some(_) if !or_update => return Ok(Err(AdminError::exists(KIND, &new.login))),
            Some(known) => User { password: new.password.clone(), ..known.clone() },
        };
        let handover = match changes.apply(transaction, &caller, &place, &mut user)? {
            Ok(handover) => handover,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut ending = Ending::default();
        if known.is_some() {
            rows::update(transaction, &user)?;
            ending = sign_out(transaction, user.id, EndReason::PasswordChanged)?;
        } else if !rows::insert(transaction, &user)? {
            return Ok(Err(AdminError::exists(KIND, &user.login)));
        }
        handover.write(transaction, user.id)?;
        let action = if known.is_some() { Action::UserUpdated } else { Action::UserCreated };
        let Some(user) = rows::by_id(transaction, user.id)? else { return Ok(Err(AdminError::not_found(KIND, &user.login))) };
        transaction.record(&with_rights(Entry::of(action), known.as_ref(), &user, &place))?;
        Ok(Ok((user, ending)))
    };
    let (user, ending) = state.instance.store.write(judge).await??;
    endings::finish(&state.instance, Whose::Person(user.id), ending).await?;
    Ok(document::created(resource(&user)))
}

/// A person of that login who may do nothing yet.
fn fresh(state: &AdminState, login: String, password: PasswordHash) -> User {
    let now = state.instance.clock.now().wall;
    User {
        id: Id::new(now, state.instance.random.as_ref()),
        login,
        password: Some(password),
        is_admin: false,
        permissions: Default::default(),
        roles: Vec::new(),
        api_keys: 0,
        created_at: now,
    }
}

async fn update(
    State(state): State<Arc<AdminState>>,
    Path(login): Path<String>,
    caller: Caller,
    document: Document,
) -> Result<Response, AdminError> {
    let Update { password, admin, permissions, remove_permissions, roles, add_roles, remove_roles, tenant } = document.attributes(KIND)?;
    let changes = Changes { admin, permissions, remove_permissions, roles, add_roles, remove_roles }.checked()?;
    let place = place(tenant);
    let password = match password {
        Some(password) => Some(hash(&state, password).await?),
        None => None,
    };
    let judge = move |transaction: &Transaction<'_>| {
        let Some(known) = rows::by_login(transaction, &login)? else { return Ok(Err(AdminError::not_found(KIND, &login))) };
        let mut user = known.clone();
        let handover = match changes.apply(transaction, &caller, &place, &mut user)? {
            Ok(handover) => handover,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut ending = Ending::default();
        if password.is_some() {
            user.password.clone_from(&password);
            ending = sign_out(transaction, user.id, EndReason::PasswordChanged)?;
        }
        rows::update(transaction, &user)?;
        handover.write(transaction, user.id)?;
        let Some(user) = rows::by_id(transaction, user.id)? else { return Ok(Err(AdminError::not_found(KIND, &login))) };
        transaction.record(&with_rights(Entry::of(Action::UserUpdated), Some(&known), &user, &place))?;
        Ok(Ok((user, ending)))
    };
    let (user, ending) = state.instance.store.write(judge).await??;
    endings::finish(&state.instance, Whose::Person(user.id), ending).await?;
    Ok(document::shown(resource(&user)))
}

async fn delete(State(state): State<Arc<AdminState>>, Path(login): Path<String>, document: Document) -> Result<Response, AdminError> {
    let Delete { revoke_grants } = document.attributes(KIND)?;
    let judge = move |transaction: &Transaction<'_>| {
        let Some(user) = rows::by_login(transaction, &login)? else { return Ok(Err(AdminError::not_found(KIND, &login))) };
        if user.is_admin && !rows::other_admins(transaction, user.id)? {
            return Ok(Err(last_admin(&login)));
        }
        // Whoever is gone is signed in nowhere; what the person allowed others is the instance's.
        let mut ending = realm::sign_out(transaction, user.id, EndReason::UserDeleted)?;
        if revoke_grants {
            ending::end_all(transaction, user.id, &mut ending)?;
        }
        // The rows that hang on it, sessions, keys and roles, go with it; grants that were not revoked stay.
        rows::delete(transaction, user.id)?;
        transaction.record(&Entry::of(Action::UserDeleted).on(told(&user)))?;
        Ok(Ok((user.id, ending)))
    };
    let (user, ending) = state.instance.store.write(judge).await??;
    // Tokens in use name who allowed them.
    state.instance.tokens.forget();
    endings::finish(&state.instance, Whose::Person(user), ending).await?;
    Ok(document::done())
}

/// Ends a person's sessions here, and what realms signed the person in for.
fn sign_out(transaction: &Transaction<'_>, user: Id, reason: EndReason) -> Result<Ending, Fault> {
    session::delete_of_user(transaction, user)?;
    realm::sign_out(transaction, user, reason)
}

async fn hash(state: &AdminState, password: SecretString) -> Result<PasswordHash, AdminError> {
    let hashed = state.instance.passwords.hash(password, Arc::clone(&state.instance.random)).await;
    let hashed =
        hashed.map_err(|busy| AdminError::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", busy.to_string()).next("try again"))?;
    hashed.map_err(|BadPassword(length)| {
        let (size, other) = if length < 8 { ("short", "longer") } else { ("long", "shorter") };
        let error = AdminError::new(StatusCode::BAD_REQUEST, "bad_attribute", format!("the new password is too {size}"));
        error.found(format!("{length} characters")).expected("8 to 128 characters").next(format!("choose a {other} one"))
    })
}

fn bad_login(error: BadLogin) -> AdminError {
    AdminError::bad_attribute("the login", format!("{:?}", error.0), LOGIN_IN_WORDS)
}

/// With what `after` may do that `before`, the same person or nobody, might not, and the other way round. Where that is in a tenant the row is
/// the tenant's too, whose admin shall see who rules it.
fn with_rights(entry: Entry, before: Option<&User>, after: &User, place: &Place) -> Entry {
    let permissions = |user: &User| user.permissions.get(&place.tenant).cloned().unwrap_or_default();
    let roles = |user: &User| -> BTreeSet<String> {
        user.roles.iter().filter(|held| held.tenant == place.tenant).map(|held| held.name.clone()).collect()
    };
    let mut entry = entry.on(told(after));
    let mut is_of_tenant = false;
    for (kind, had, has) in [
        ("permissions", before.map(permissions).unwrap_or_default(), permissions(after)),
        ("roles", before.map(roles).unwrap_or_default(), roles(after)),
    ] {
        for (what, change) in [("gained", has.difference(&had)), ("lost", had.difference(&has))] {
            let names: Vec<&str> = change.map(String::as_str).collect();
            if !names.is_empty() {
                entry = entry.with(&format!("{kind}_{what}"), names);
                is_of_tenant = true;
            }
        }
    }
    if is_of_tenant {
        entry = entry.on(Record { tenant: Some(place.tenant.clone()), ..told(after) });
    }
    let was_admin = before.is_some_and(|before| before.is_admin);
    if was_admin == after.is_admin { entry } else { entry.with("admin_of_instance", after.is_admin) }
}

/// As the audit names it.
fn told(user: &User) -> Record {
    Record::of_instance(KIND, user.id, &user.login)
}

fn resource(user: &User) -> Value {
    let mut roles: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for held in &user.roles {
        roles.entry(&held.tenant).or_default().push(&held.name);
    }
    let attributes = json!({
        "id": user.id,
        "login": user.login,
        "admin": user.is_admin,
        "permissions": user.permissions,
        "roles": roles,
        "has_api_key": user.api_keys > 0,
        "api_keys": user.api_keys,
        "created_at": user.created_at,
    });
    document::record(KIND, &user.login, attributes)
}
