//! Tenants over the admin API.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Router, routing};
use serde::Deserialize;
use serde_json::Value;

use super::document::{self, Document};
use super::{AdminError, AdminState};
use crate::audit::{Action, Entry, Record};
use crate::inbound::tenant::{self, Tenant};
use crate::store::tenant::{self as rows, Belonging, Deleted};
use crate::store::{Store, StoreError, Transaction};

const KIND: &str = "tenant";

/// `/tenants` and one of them.
pub(super) fn router() -> Router<Arc<AdminState>> {
    Router::new().route("/tenants", routing::get(list).post(create)).route("/tenants/{tenant}", routing::get(show).delete(delete))
}

/// 404 unless there is a tenant of this name.
pub(super) async fn must_exist(store: &Store, name: &str) -> Result<(), AdminError> {
    find(store, name).await.map(drop)
}

#[derive(Deserialize)]
struct Create {
    name: String,
}

async fn list(State(state): State<Arc<AdminState>>) -> Result<Response, AdminError> {
    let tenants = state.instance.store.read(rows::all).await?;
    Ok(document::shown(tenants.iter().map(resource).collect::<Vec<_>>()))
}

async fn show(State(state): State<Arc<AdminState>>, Path(name): Path<String>) -> Result<Response, AdminError> {
    Ok(document::shown(resource(&find(&state.instance.store, &name).await?)))
}

async fn create(State(state): State<Arc<AdminState>>, document: Document) -> Result<Response, AdminError> {
    let Create { name } = document.attributes(KIND)?;
    tenant::check_name(&name).map_err(|error| {
        AdminError::bad_attribute("name", format!("{:?}", error.0), "a letter or digit, then up to 62 more of those and '.', '_', '-'")
    })?;
    let tenant = Tenant { name, created_at: state.instance.clock.now().wall };
    let row = tenant.clone();
    let judge = move |transaction: &Transaction<'_>| {
        let is_new = rows::insert(transaction, &row.name, row.created_at)?;
        if is_new {
            transaction.record(&Entry::of(Action::TenantCreated).on(told(&row.name)))?;
        }
        Ok(is_new)
    };
    let is_new = state.instance.store.write(judge).await?;
    if is_new {
        Ok(document::created(resource(&tenant)))
    } else {
        Err(AdminError::exists(KIND, &tenant.name).next("use it as it is, or choose another name"))
    }
}

async fn delete(State(state): State<Arc<AdminState>>, Path(name): Path<String>) -> Result<Response, AdminError> {
    if name == tenant::DEFAULT {
        let error = AdminError::new(http::StatusCode::CONFLICT, "in_use", format!("the tenant {name:?} cannot be deleted"));
        return Err(error.found("the tenant that everything belongs to where no other is named").next("nothing has to be done"));
    }
    let gone = name.clone();
    let judge = move |transaction: &Transaction<'_>| {
        let deleted = rows::delete(transaction, &gone)?;
        if matches!(deleted, Deleted::Gone) {
            transaction.record(&Entry::of(Action::TenantDeleted).on(told(&gone)))?;
        }
        Ok(deleted)
    };
    match state.instance.store.write(judge).await? {
        Deleted::Gone => Ok(document::done()),
        Deleted::Missing => Err(AdminError::not_found(KIND, &name)),
        Deleted::InUse(belonging) => Err(AdminError::in_use(KIND, &name, &named(&belonging))),
    }
}

/// The first records that belong to a tenant; more are counted only.
fn named(belonging: &Belonging) -> String {
    let first: Vec<_> = belonging.first.iter().map(|(kind, name)| format!("the {kind} {name:?}")).collect();
    match (belonging.count as usize).saturating_sub(first.len()) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

async fn find(store: &Store, name: &str) -> Result<Tenant, AdminError> {
    let wanted = name.to_owned();
    let found: Result<_, StoreError> = store.read(move |connection| rows::by_name(connection, &wanted)).await;
    found?.ok_or_else(|| AdminError::not_found(KIND, name))
}

/// As the audit names it. It belongs to the instance: who has a tenant does not make or delete it.
fn told(name: &str) -> Record {
    Record::of_instance(KIND, name, name)
}

fn resource(tenant: &Tenant) -> Value {
    document::record(KIND, &tenant.name, tenant)
}
