//! People over the admin API: what they may do, their passwords and keys.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Router, routing};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::document::{self, Document};
use super::{AdminError, AdminState};
use crate::id::Id;
use crate::inbound::grant::EndReason;
use crate::inbound::password::{BadPassword, PasswordHash};
use crate::inbound::tenant;
use crate::inbound::user::{self, ADMIN, BadUser, User};
use crate::oauth::token::{self, Kind};
use crate::secret::{Digest, ExposeSecret, SecretString};
use crate::store::user as rows;
use crate::store::{Fault, Transaction, grant, session, tenant as tenants};

const KIND: &str = "user";

/// `/users`, one of them, and a new key.
pub(super) fn router() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/users", routing::get(list).post(create))
        .route("/users/{login}", routing::get(show).patch(update).delete(delete))
        .route("/users/{login}/key", routing::post(make_key))
}

#[derive(Deserialize)]
struct Create {
    login: String,
    password: SecretString,
    admin: Option<bool>,
    permissions: Option<Vec<String>>,
    tenant: Option<String>,
    #[serde(default)]
    or_update: bool,
}

#[derive(Deserialize)]
struct Update {
    password: Option<SecretString>,
    admin: Option<bool>,
    permissions: Option<Vec<String>>,
    tenant: Option<String>,
}

#[derive(Deserialize)]
struct Delete {
    /// What the person allowed ends too.
    #[serde(default)]
    revoke_grants: bool,
}

#[derive(Deserialize)]
struct Nothing {}

async fn list(State(state): State<Arc<AdminState>>) -> Result<Response, AdminError> {
    let users = state.instance.store.read(rows::all).await?;
    Ok(document::shown(users.iter().map(resource).collect::<Vec<_>>()))
}

async fn show(State(state): State<Arc<AdminState>>, Path(login): Path<String>) -> Result<Response, AdminError> {
    let wanted = login.clone();
    let user = state.instance.store.read(move |connection| rows::by_login(connection, &wanted)).await?;
    user.map(|user| document::shown(resource(&user))).ok_or_else(|| AdminError::not_found(KIND, &login))
}

async fn create(State(state): State<Arc<AdminState>>, document: Document) -> Result<Response, AdminError> {
    let Create { login, password, admin, permissions, tenant, or_update } = document.attributes(KIND)?;
    user::check_login(&login).map_err(bad_user)?;
    let rights = Rights::checked(admin, permissions, tenant)?;
    let password = hash(&state, password).await?;
    let now = state.instance.clock.now().wall;
    let new = User {
        id: Id::new(now, state.instance.random.as_ref()),
        login,
        password: Some(password),
        is_admin: false,
        permissions: Default::default(),
        api_key: None,
        created_at: now,
    };
    let judge = move |transaction: &Transaction<'_>| {
        let mut user = match rows::by_login(transaction, &new.login)? {
            None => new.clone(),
            Some(_) if !or_update => return Ok(Err(AdminError::exists(KIND, &new.login))),
            Some(known) => User { password: new.password.clone(), ..known },
        };
        if let Err(refusal) = rights.give(transaction, &mut user)? {
            return Ok(Err(refusal));
        }
        if user.id == new.id {
            if !rows::insert(transaction, &user)? {
                return Ok(Err(AdminError::exists(KIND, &user.login)));
            }
        } else {
            rows::update(transaction, &user)?;
            session::delete_of_user(transaction, user.id)?;
        }
        Ok(Ok(user))
    };
    let user = state.instance.store.write(judge).await??;
    Ok(document::created(resource(&user)))
}

async fn update(State(state): State<Arc<AdminState>>, Path(login): Path<String>, document: Document) -> Result<Response, AdminError> {
    let Update { password, admin, permissions, tenant } = document.attributes(KIND)?;
    let rights = Rights::checked(admin, permissions, tenant)?;
    let password = match password {
        Some(password) => Some(hash(&state, password).await?),
        None => None,
    };
    let judge = move |transaction: &Transaction<'_>| {
        let Some(mut user) = rows::by_login(transaction, &login)? else { return Ok(Err(AdminError::not_found(KIND, &login))) };
        if let Err(refusal) = rights.give(transaction, &mut user)? {
            return Ok(Err(refusal));
        }
        if password.is_some() {
            user.password.clone_from(&password);
            session::delete_of_user(transaction, user.id)?;
        }
        rows::update(transaction, &user)?;
        Ok(Ok(user))
    };
    let user = state.instance.store.write(judge).await??;
    Ok(document::shown(resource(&user)))
}

async fn delete(State(state): State<Arc<AdminState>>, Path(login): Path<String>, document: Document) -> Result<Response, AdminError> {
    let Delete { revoke_grants } = document.attributes(KIND)?;
    let judge = move |transaction: &Transaction<'_>| {
        let Some(user) = rows::by_login(transaction, &login)? else { return Ok(Err(AdminError::not_found(KIND, &login))) };
        let grants = if revoke_grants { grant::of_user(transaction, user.id)? } else { Vec::new() };
        for id in &grants {
            grant::end(transaction, *id, EndReason::RevokedByAdmin)?;
        }
        // The rows that hang on it, sessions and key, go with it; grants that were not revoked stay.
        rows::delete(transaction, user.id)?;
        Ok(Ok(grants))
    };
    for id in state.instance.store.write(judge).await?? {
        state.instance.tokens.end(id);
    }
    // Tokens in use name who allowed them.
    state.instance.tokens.forget();
    Ok(document::done())
}

async fn make_key(State(state): State<Arc<AdminState>>, Path(login): Path<String>, document: Document) -> Result<Response, AdminError> {
    let Nothing {} = document.attributes(KIND)?;
    let key = token::mint(Kind::ApiKey, state.instance.random.as_ref());
    let digest = Digest::of(key.expose_secret());
    let judge = move |transaction: &Transaction<'_>| {
        let Some(user) = rows::by_login(transaction, &login)? else { return Ok(Err(AdminError::not_found(KIND, &login))) };
        let user = User { api_key: Some(digest), ..user };
        rows::update(transaction, &user)?;
        Ok(Ok(user))
    };
    let user = state.instance.store.write(judge).await??;
    let mut record = resource(&user);
    record["attributes"]["api_key"] = key.expose_secret().into();
    Ok(document::shown(record))
}

/// What a request says of somebody's rights.
#[derive(Clone, Debug)]
struct Rights {
    admin: Option<bool>,
    permissions: Option<Vec<String>>,
    tenant: Option<String>,
}

impl Rights {
    fn checked(admin: Option<bool>, permissions: Option<Vec<String>>, tenant: Option<String>) -> Result<Self, AdminError> {
        for permission in permissions.iter().flatten() {
            user::check_permission(permission).map_err(bad_user)?;
        }
        Ok(Self { admin, permissions, tenant })
    }

    /// Gives them to `user`; a refusal when the tenant does not exist. What is not said stays as it is.
    fn give(&self, transaction: &Transaction<'_>, user: &mut User) -> Result<Result<(), AdminError>, Fault> {
        let tenant = self.tenant.as_deref().unwrap_or(tenant::DEFAULT);
        if tenants::by_name(transaction, tenant)?.is_none() {
            return Ok(Err(AdminError::not_found("tenant", tenant)));
        }
        let held = user.permissions.entry(tenant.to_owned()).or_default();
        if let Some(permissions) = &self.permissions {
            let stays_admin = held.contains(ADMIN);
            *held = permissions.iter().cloned().chain(stays_admin.then(|| ADMIN.to_owned())).collect();
        }
        match (self.admin, &self.tenant) {
            (None, _) => {}
            // Without a tenant it is the instance that is meant.
            (Some(admin), None) => user.is_admin = admin,
            (Some(true), Some(_)) => {
                held.insert(ADMIN.to_owned());
            }
            (Some(false), Some(_)) => {
                held.remove(ADMIN);
            }
        }
        user.permissions.retain(|_, held| !held.is_empty());
        Ok(Ok(()))
    }
}

async fn hash(state: &AdminState, password: SecretString) -> Result<PasswordHash, AdminError> {
    let hashed = state.instance.passwords.hash(password, Arc::clone(&state.instance.random)).await;
    let hashed =
        hashed.map_err(|busy| AdminError::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", busy.to_string()).next("try again"))?;
    hashed.map_err(|BadPassword(length)| AdminError::bad_attribute("the password", format!("{length} characters"), "8 to 128 characters"))
}

fn bad_user(error: BadUser) -> AdminError {
    match error {
        BadUser::Login(login) => AdminError::bad_attribute(
            "the login",
            format!("{login:?}"),
            "1 to 128 characters without spaces, colons, and characters that do not show or turn the text around them",
        ),
        BadUser::Permission(permission) => {
            AdminError::bad_attribute("the permission", format!("{permission:?}"), user::permissions_in_words())
        }
    }
}

fn resource(user: &User) -> Value {
    let attributes = json!({
        "id": user.id,
        "login": user.login,
        "admin": user.is_admin,
        "permissions": user.permissions,
        "has_api_key": user.api_key.is_some(),
        "created_at": user.created_at,
    });
    document::record(KIND, &user.login, attributes)
}
