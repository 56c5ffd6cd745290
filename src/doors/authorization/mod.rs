//! The authorization server: pages for people (`/oauth/authorize`, `/login`, `/logout`, `/grants`), endpoints for clients (`/oauth/token`,
//! `/oauth/par`, `/oauth/revoke`, `/oauth/introspect`), and the documents that describe both (RFC 8414, RFC 9728).

mod authorize;
mod client;
mod evidence;
mod grants;
mod introspect;
mod login;
mod metadata;
mod par;
mod password_grant;
mod revoke;
mod token;

use std::sync::Arc;

use axum::{Router, middleware, routing};

use super::browser::keep_to_public_url;
use super::nothing_here;
use crate::instance::Instance;

/// The routes; what is not among them is another door's.
pub fn router(instance: &Arc<Instance>) -> Router {
    let pages = Router::new()
        .route("/oauth/authorize", routing::get(authorize::ask).post(authorize::decide))
        .route("/login", routing::get(login::show).post(login::sign_in))
        .route(grants::PATH, routing::get(grants::show).post(grants::withdraw))
        .route("/logout", routing::get(login::show_logout).post(login::sign_out))
        .method_not_allowed_fallback(nothing_here::method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(instance), keep_to_public_url));
    Router::new()
        .route("/oauth/token", routing::post(token::exchange).fallback(client::post_only))
        .route("/oauth/revoke", routing::post(revoke::revoke).fallback(client::post_only))
        .route("/oauth/par", routing::post(par::push).fallback(client::post_only))
        .route("/oauth/introspect", routing::post(introspect::introspect).fallback(client::post_only))
        .route(metadata::AUTHORIZATION_SERVER, routing::get(metadata::authorization_server))
        .route(metadata::PROTECTED_RESOURCE, routing::get(metadata::protected_resource))
        // RFC 8414 §3.1, RFC 9728 §3.1: for a URL with a path, the path stands behind the well-known part.
        .route(&format!("{}/{{*path}}", metadata::AUTHORIZATION_SERVER), routing::get(metadata::authorization_server_at))
        .route(&format!("{}/{{*path}}", metadata::PROTECTED_RESOURCE), routing::get(metadata::protected_resource_at))
        .method_not_allowed_fallback(nothing_here::method_not_allowed)
        .merge(pages)
        .fallback(nothing_here::not_found)
        .with_state(Arc::clone(instance))
}
