//! A person's keys for the admin API: made and shown once, listed without the key itself, revoked one by one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Router, routing};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::document::{self, Document};
use super::super::rights::check_permissions;
use super::super::{AdminError, AdminState};
use super::KIND as USER;
use crate::audit::{Action, Entry};
use crate::inbound::api_key::{self, ApiKey};
use crate::inbound::user::User;
use crate::oauth::token::{self, Kind};
use crate::outbound::ob_app::is_name;
use crate::secret::{Digest, ExposeSecret, SecretString};
use crate::store::{Transaction, api_key as rows, user as user_rows};

const KIND: &str = "api-key";

/// A new key, all of them, and one.
pub(super) fn router() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/users/{login}/key", routing::post(create))
        .route("/users/{login}/keys", routing::get(list))
        .route("/users/{login}/keys/{name}", routing::delete(revoke))
}

#[derive(Deserialize)]
struct Create {
    name: Option<String>,
    /// Seconds.
    expires_in: Option<u64>,
    permissions: Option<Vec<String>>,
}

async fn create(State(state): State<Arc<AdminState>>, Path(login): Path<String>, document: Document) -> Result<Response, AdminError> {
    let Create { name, expires_in, permissions } = document.attributes(USER)?;
    if let Some(name) = name.as_ref().filter(|name| !is_name(name)) {
        let expected = "1 to 63 letters, digits, '.', '_' and '-', beginning with a letter or digit";
        return Err(AdminError::bad_attribute("name", format!("{name:?}"), expected));
    }
    if let Some(seconds) = expires_in.filter(|seconds| *seconds == 0 || Duration::from_secs(*seconds) > api_key::LONGEST) {
        return Err(AdminError::bad_attribute(
            "expires_in",
            format!("{seconds} seconds"),
            "1 second to 10 years; without it a key has no end",
        ));
    }
    check_permissions(permissions.iter().flatten())?;
    let permissions: Option<BTreeSet<String>> = permissions.map(|permissions| permissions.into_iter().collect());
    let secret = token::mint(Kind::ApiKey, state.instance.random.as_ref());
    let digest = Digest::of(secret.expose_secret());
    let judge = move |transaction: &Transaction<'_>| {
        let Some(user) = user_rows::by_login(transaction, &login)? else { return Ok(Err(AdminError::not_found(USER, &login))) };
        let rights = user.rights();
        if let Some(useless) = permissions.iter().flatten().find(|permission| !rights.have_use_for(permission)) {
            let error = AdminError::bad_attribute("permissions", useless, format!("what {login} holds: {}", rights.in_words()));
            return Ok(Err(error.next(format!("p2pid user update {login} --permission P gives it; a key only limits what is held"))));
        }
        let known = rows::of_user(transaction, user.id)?;
        if known.len() >= api_key::MOST {
            let error = AdminError::new(StatusCode::CONFLICT, "too_many", format!("{login} has {} keys", known.len()));
            return Ok(Err(error.expected(format!("fewer than {}", api_key::MOST)).next(format!("p2pid user key-revoke {login} NAME"))));
        }
        let now = transaction.now().wall;
        let key = ApiKey {
            digest,
            user: user.id,
            name: name.clone().unwrap_or_else(|| api_key::free_name(&known)),
            permissions: permissions.clone(),
            created_at: now,
            expires_at: expires_in.map(|seconds| now.plus(Duration::from_secs(seconds))),
            last_used_at: None,
        };
        if !rows::insert(transaction, &key)? {
            let next = format!("choose another name, or revoke that key: p2pid user key-revoke {login} {}", key.name);
            return Ok(Err(AdminError::exists(KIND, &key.name).next(next)));
        }
        let made = Entry::of(Action::UserKeyMade).on(super::told(&user)).token(digest).with("name", key.name.as_str());
        transaction.record(&made.maybe("expires_at", key.expires_at.map(|at| at.to_string())))?;
        Ok(Ok((user, key)))
    };
    let (user, key) = state.instance.store.write(judge).await??;
    Ok(document::shown(resource(&user, &key, Some(&secret))))
}

async fn list(State(state): State<Arc<AdminState>>, Path(login): Path<String>) -> Result<Response, AdminError> {
    let wanted = login.clone();
    let look = move |connection: &_| {
        let Some(user) = user_rows::by_login(connection, &wanted)? else { return Ok(None) };
        Ok(Some((rows::of_user(connection, user.id)?, user)))
    };
    let (keys, user) = state.instance.store.read(look).await?.ok_or_else(|| AdminError::not_found(USER, &login))?;
    Ok(document::shown(keys.iter().map(|key| resource(&user, key, None)).collect::<Vec<_>>()))
}

/// The next request with the key is refused: each one looks the key up.
async fn revoke(State(state): State<Arc<AdminState>>, Path((login, name)): Path<(String, String)>) -> Result<Response, AdminError> {
    let judge = move |transaction: &Transaction<'_>| {
        let Some(user) = user_rows::by_login(transaction, &login)? else { return Ok(Err(AdminError::not_found(USER, &login))) };
        if rows::delete(transaction, user.id, &name)? {
            transaction.record(&Entry::of(Action::UserKeyRevoked).on(super::told(&user)).with("name", name.as_str()))?;
            return Ok(Ok(()));
        }
        Ok(Err(AdminError::not_found(KIND, &name).next(format!("p2pid user keys {login}"))))
    };
    state.instance.store.write(judge).await??;
    Ok(document::done())
}

/// A key as it is listed; the key itself only where it was just made.
fn resource(user: &User, key: &ApiKey, secret: Option<&SecretString>) -> Value {
    let mut attributes = json!({
        "login": user.login,
        "name": key.name,
        "permissions": key.permissions,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
    });
    if let Some(secret) = secret {
        attributes["api_key"] = json!(secret.expose_secret());
    }
    document::record(KIND, &key.name, attributes)
}
