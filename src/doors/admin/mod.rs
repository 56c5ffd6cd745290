//! The admin API: one router, served on the admin socket to processes of this host, and to people with an API key on
//! the console listener and, with `[public] admin_api`, on the public one.
//!
//! | path below `/v2` | verbs |
//! |---|---|
//! | `/tenants`, `/users`, `/roles`, `/keys` and one of them | list, create · show, update, delete, as far as it has them |
//! | `/users/{login}/key`, `/users/{login}/keys` | the API keys of a person |
//! | `/tenants/{tenant}/{collection}` and one record by name or id | list, create · show, update, delete |
//! | `/tenants/{tenant}/{collection}/{name}/{action}` | POST |
//! | `/audit`, `/status` | GET |
//! | `/reload` | POST |
//!
//! What each path asks of whom is in `isolation_tests.rs`, which goes through all that the router has.
//!
//! A handler takes [`document::Document`] and answers with [`document::shown`], [`document::created`], [`document::done`] or an
//! [`AdminError`]. Who asks and whether they may is settled before it runs, and every change is told of in
//! the audit, in its own transaction (`gate.rs`).

pub mod access;
pub mod audit;
pub mod call;
pub mod caller;
mod callers;
mod changes;
pub mod document;
pub mod error;
mod gate;
mod grants;
mod ib_apps;
mod keys;
mod ob_apps;
mod peers;
mod query;
mod realms;
mod rights;
mod roles;
pub mod status;
mod tenants;
mod users;

pub use caller::Caller;
pub use changes::Changes;
pub use document::{Document, created, done, record, shown};
pub use error::AdminError;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

use super::relay::Relay;
use super::{browser, local_browser};
use crate::instance::Instance;
use crate::net::connection::Connection;
use crate::tasks::keeper::Links;
use crate::tasks::reload::Reloader;

use access::Allowed;
use status::Listening;

/// What the handlers share.
#[derive(Debug)]
pub struct AdminState {
    /// The instance that is administered.
    pub instance: Arc<Instance>,
    /// The links to the peers.
    pub links: Arc<Links>,
    /// The way to the peers, for calls by operators.
    pub relay: Arc<Relay>,
    /// What takes changes of the configuration.
    pub reloader: Arc<Reloader>,
    /// Where the daemon listens.
    pub listeners: Vec<Listening>,
    /// Keeps changes of peers and OB apps from undoing each other.
    pub changes: Changes,
}

/// The API as the admin socket serves it, to the processes that may.
pub fn socket_router(state: Arc<AdminState>, allowed: Allowed) -> Router {
    router(state).layer(middleware::from_fn_with_state(Arc::new(allowed), admit))
}

async fn admit(State(allowed): State<Arc<Allowed>>, mut request: Request, next: Next) -> Result<Response, AdminError> {
    let connection = request.extensions().get::<Arc<Connection>>().map(|connection| connection.neighbour());
    let caller = allowed.admit(connection.ok_or_else(|| AdminError::forbidden("a process at the admin socket"))?)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// The API for people, who send their login and API key with every request (HTTP Basic).
pub fn key_router(state: Arc<AdminState>) -> Router {
    router(Arc::clone(&state)).layer(middleware::from_fn_with_state(state, sign_in))
}

async fn sign_in(State(state): State<Arc<AdminState>>, request: Request, next: Next) -> Result<Response, AdminError> {
    let (parts, body) = request.into_parts();
    let from = browser::address(&parts, &state.instance.config());
    let request_id = gate::RequestId::new(&state.instance);
    let caller = match access::sign_in(&state.instance, &parts.headers, from, &request_id).await {
        Ok(caller) => caller,
        Err(refusal) => return Ok(request_id.names(refusal.into_response())),
    };
    let mut request = Request::from_parts(parts, body);
    // The key has done its work; what a handler passes on must not carry it.
    request.headers_mut().remove(header::AUTHORIZATION);
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(request_id);
    Ok(next.run(request).await)
}

/// The API as the public listener has it beside our other paths: for programs with an API key. Paths without a handler are not its own.
pub fn public_router(state: Arc<AdminState>) -> Router {
    key_router(state).reset_fallback().layer(middleware::from_fn(refuse_pages))
}

/// A browser sends a key that it was once given with whatever page asks; pages on this listener are for peers and their people.
async fn refuse_pages(request: Request, next: Next) -> Result<Response, AdminError> {
    let checked = local_browser::check_page(request.headers(), None, &[]);
    checked.map_err(|refusal| AdminError::new(StatusCode::FORBIDDEN, "browser_refused", refusal.to_string()))?;
    Ok(next.run(request).await)
}

/// The whole API. Whoever serves it must have authenticated the caller and put a [`Caller`] into the request's extensions.
pub fn router(state: Arc<AdminState>) -> Router {
    let no_such_method =
        || async { AdminError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path does not take this method") };
    let api = Router::new()
        .merge(audit::router())
        .merge(call::router())
        .merge(callers::router())
        .merge(grants::router())
        .merge(ib_apps::router())
        .merge(keys::router())
        .merge(ob_apps::router())
        .merge(peers::router())
        .merge(realms::router())
        .merge(roles::router())
        .merge(status::router())
        .merge(tenants::router())
        .merge(users::router());
    Router::new()
        .nest("/v2", api)
        .fallback(|| async { AdminError::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path") })
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&state), gate::pass))
        .with_state(state)
}

#[cfg(test)]
mod ending_tests;
#[cfg(test)]
mod isolation_tests;
#[cfg(test)]
mod secret_tests;
#[cfg(test)]
mod tests;
