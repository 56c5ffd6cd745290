//! Roles over the admin API: a tenant's, and the instance's that can be held in every tenant.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Router, routing};
use http::StatusCode;
use rusqlite::Connection;
use serde::Deserialize;
use serde_json::{Value, json};

use super::document::{self, Document};
use super::rights::check_permissions;
use super::{AdminError, AdminState, Caller, gate};
use crate::audit::{Action, Entry, Record};
use crate::id::Id;
use crate::inbound::role::Role;
use crate::outbound::ob_app::is_name;
use crate::store::role as rows;
use crate::store::{Fault, Transaction};

const KIND: &str = "role";

/// `/tenants/{tenant}/roles` and one of them, and the same without a tenant.
pub(super) fn router() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/tenants/{tenant}/roles", routing::get(list).post(create))
        .route("/tenants/{tenant}/roles/{name}", routing::get(show).patch(update).delete(delete))
        .route("/roles", routing::get(list).post(create))
        .route("/roles/{name}", routing::get(show).patch(update).delete(delete))
}

/// Whose roles are meant: a tenant's, or without one the instance's.
#[derive(Deserialize)]
struct Owner {
    tenant: Option<String>,
}

/// One role of them.
#[derive(Deserialize)]
struct One {
    tenant: Option<String>,
    name: String,
}

#[derive(Deserialize)]
struct Create {
    name: String,
    #[serde(default)]
    permissions: Vec<String>,
    #[serde(default)]
    or_update: bool,
}

#[derive(Deserialize)]
struct Update {
    name: Option<String>,
    permissions: Option<Vec<String>>,
    #[serde(default)]
    add_permissions: Vec<String>,
    #[serde(default)]
    remove_permissions: Vec<String>,
}

#[derive(Deserialize)]
struct Delete {
    /// Whoever holds the role loses it.
    #[serde(default)]
    force: bool,
}

async fn list(State(state): State<Arc<AdminState>>, Path(Owner { tenant }): Path<Owner>) -> Result<Response, AdminError> {
    let look = move |connection: &Connection| {
        let roles = rows::all(connection, tenant.as_deref())?;
        roles.iter().map(|role| resource(connection, role, tenant.as_deref())).collect::<Result<Vec<_>, Fault>>()
    };
    Ok(document::shown(state.instance.store.read(look).await?))
}

async fn show(State(state): State<Arc<AdminState>>, Path(One { tenant, name }): Path<One>) -> Result<Response, AdminError> {
    let wanted = name.clone();
    let look = move |connection: &Connection| {
        let role = rows::find(connection, tenant.as_deref(), &wanted)?;
        role.map(|role| resource(connection, &role, tenant.as_deref())).transpose()
    };
    state.instance.store.read(look).await?.map(document::shown).ok_or_else(|| AdminError::not_found(KIND, &name))
}

async fn create(
    State(state): State<Arc<AdminState>>,
    Path(Owner { tenant }): Path<Owner>,
    caller: Caller,
    document: Document,
) -> Result<Response, AdminError> {
    let Create { name, permissions, or_update } = document.attributes(KIND)?;
    tenant.as_deref().map_or(Ok(()), |tenant| gate::must_be_able_to_update(&caller, tenant, "roles", or_update))?;
    check_name(&name)?;
    check_permissions(&permissions)?;
    let permissions: BTreeSet<String> = permissions.into_iter().collect();
    let now = state.instance.clock.now().wall;
    let id = Id::new(now, state.instance.random.as_ref());
    let judge = move |transaction: &Transaction<'_>| {
        let known = if or_update { rows::find(transaction, tenant.as_deref(), &name)? } else { None };
        if let Some(known) = known.filter(|known| known.name == name) {
            let role = Role { permissions: permissions.clone(), ..known.clone() };
            return write(transaction, &caller, tenant.as_deref(), &known, role);
        }
        if let Err(refusal) = must_be_able_to_give(&caller, tenant.as_deref(), &permissions) {
            return Ok(Err(refusal));
        }
        let role = Role { id, tenant: tenant.clone(), name: name.clone(), permissions: permissions.clone(), created_at: now };
        if !rows::insert(transaction, &role)? {
            return Ok(Err(AdminError::exists(KIND, &name)));
        }
        transaction.record(&with_permissions(Entry::of(Action::RoleCreated), &role))?;
        resource(transaction, &role, tenant.as_deref()).map(Ok)
    };
    Ok(document::created(state.instance.store.write(judge).await??))
}

async fn update(
    State(state): State<Arc<AdminState>>,
    Path(One { tenant, name }): Path<One>,
    caller: Caller,
    document: Document,
) -> Result<Response, AdminError> {
    let Update { name: new_name, permissions, add_permissions, remove_permissions } = document.attributes(KIND)?;
    new_name.as_deref().map_or(Ok(()), check_name)?;
    check_permissions(permissions.iter().flatten().chain(&add_permissions).chain(&remove_permissions))?;
    let judge = move |transaction: &Transaction<'_>| {
        let Some(known) = rows::find(transaction, tenant.as_deref(), &name)? else { return Ok(Err(AdminError::not_found(KIND, &name))) };
        let mut role = known.clone();
        if let Some(name) = &new_name {
            role.name.clone_from(name);
        }
        if let Some(permissions) = &permissions {
            role.permissions = permissions.iter().cloned().collect();
        }
        role.permissions.extend(add_permissions.iter().cloned());
        role.permissions.retain(|permission| !remove_permissions.contains(permission));
        write(transaction, &caller, tenant.as_deref(), &known, role)
    };
    // It counts from the next request on: each one asks what its person holds.
    Ok(document::shown(state.instance.store.write(judge).await??))
}

/// Writes `role` in place of `known`, which was found among the roles of `tenant`.
fn write(
    transaction: &Transaction<'_>,
    caller: &Caller,
    tenant: Option<&str>,
    known: &Role,
    role: Role,
) -> Result<Result<Value, AdminError>, Fault> {
    let may = must_own(known, tenant).and_then(|()| must_be_able_to_give(caller, tenant, role.permissions.difference(&known.permissions)));
    if let Err(refusal) = may {
        return Ok(Err(refusal));
    }
    if !rows::update(transaction, &role)? {
        return Ok(Err(AdminError::exists(KIND, &role.name).next("choose another name")));
    }
    transaction.record(&with_permissions(Entry::of(Action::RoleUpdated), &role))?;
    resource(transaction, &role, tenant).map(Ok)
}

async fn delete(
    State(state): State<Arc<AdminState>>,
    Path(One { tenant, name }): Path<One>,
    document: Document,
) -> Result<Response, AdminError> {
    let Delete { force } = document.attributes(KIND)?;
    let judge = move |transaction: &Transaction<'_>| {
        let Some(role) = rows::find(transaction, tenant.as_deref(), &name)? else { return Ok(Err(AdminError::not_found(KIND, &name))) };
        if let Err(refusal) = must_own(&role, tenant.as_deref()) {
            return Ok(Err(refusal));
        }
        let holders = rows::holders(transaction, role.id, None)?;
        if !force && !holders.is_empty() {
            return Ok(Err(held(&role, tenant.as_deref(), &holders)));
        }
        rows::delete(transaction, role.id)?;
        transaction.record(&Entry::of(Action::RoleDeleted).on(told(&role)))?;
        Ok(Ok(()))
    };
    state.instance.store.write(judge).await??;
    Ok(document::done())
}

/// 409: people hold the role, the first of whom are named.
fn held(role: &Role, tenant: Option<&str>, holders: &[String]) -> AdminError {
    /// More are counted only.
    const NAMED: usize = 3;
    let mut names = holders.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if holders.len() > NAMED {
        names += &format!(" and {} more", holders.len() - NAMED);
    }
    let of_tenant = tenant.map(|tenant| format!(" --tenant {tenant}")).unwrap_or_default();
    let take = format!("p2pid{of_tenant} user update LOGIN --no-role {}", role.name);
    AdminError::new(StatusCode::CONFLICT, "in_use", format!("the role {:?} is held by {names}", role.name))
        .next(format!("{take}; or add --force, which takes it from all of them"))
}

/// What a tenant sees of the instance's roles it may give, and not change.
fn must_own(role: &Role, tenant: Option<&str>) -> Result<(), AdminError> {
    if role.tenant.as_deref() == tenant {
        return Ok(());
    }
    let error = AdminError::new(StatusCode::FORBIDDEN, "forbidden", format!("the role {:?} is the instance's", role.name));
    Err(error.expected("a role of the tenant").next("an admin of the instance may change it, with --global"))
}

/// In the instance's roles may be whatever there is: only its admins get here.
fn must_be_able_to_give<'a>(
    caller: &Caller,
    tenant: Option<&str>,
    permissions: impl IntoIterator<Item = &'a String>,
) -> Result<(), AdminError> {
    tenant.map_or_else(|| caller.must_rule_instance(), |tenant| caller.must_be_able_to_give(tenant, permissions))
}

fn check_name(name: &str) -> Result<(), AdminError> {
    let expected = "1 to 63 letters, digits, '.', '_' and '-', beginning with a letter or digit";
    if is_name(name) { Ok(()) } else { Err(AdminError::bad_attribute("name", format!("{name:?}"), expected)) }
}

/// With what it allows from now on.
fn with_permissions(entry: Entry, role: &Role) -> Entry {
    entry.on(told(role)).with("permissions", role.permissions.iter().map(String::as_str).collect::<Vec<_>>())
}

/// As the audit names it.
fn told(role: &Role) -> Record {
    Record { tenant: role.tenant.clone(), ..Record::of_instance(KIND, role.id, &role.name) }
}

/// A role as `tenant` sees it: of who holds it elsewhere nothing is said there.
fn resource(connection: &Connection, role: &Role, tenant: Option<&str>) -> Result<Value, Fault> {
    let attributes = json!({
        "id": role.id,
        "tenant": role.tenant,
        "name": role.name,
        "permissions": role.permissions,
        "held_by": rows::holders(connection, role.id, tenant)?,
        "created_at": role.created_at,
    });
    Ok(document::record(KIND, role.id, attributes))
}
