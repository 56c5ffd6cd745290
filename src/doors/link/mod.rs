//! Linking, as a browser goes through it: the request URL, whose page shows and whose button consumes; and the callback, where the peer
//! sends the browser back to. Every end is a page of its own that names the next step. Beside them, the keys by which peers know us.

mod callback;
mod jwks;
mod outcome;
mod request;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::{Router, routing};

use crate::config::PublicUrl;
use crate::doors::{browser, nothing_here};
use crate::instance::Instance;
use crate::secret::Digest;
use crate::tasks::keeper::Links;

/// What the handlers share.
#[derive(Debug)]
struct LinkDoor {
    instance: Arc<Instance>,
    links: Arc<Links>,
}

/// `/link/{ticket}`, `/oauth/callback`, `/oauth/callback/{ob app}` and `/oauth/jwks/{ob app}`, below the path of `public_url`.
pub fn router(instance: Arc<Instance>, links: Arc<Links>) -> Router {
    let our = Arc::clone(&instance);
    Router::new()
        .route("/link/{ticket}", routing::get(request::look).post(request::press))
        .route("/oauth/callback", routing::get(callback::arrive))
        .route("/oauth/callback/{app}", routing::get(callback::arrive_for_app))
        .route("/oauth/jwks/{app}", routing::get(jwks::show))
        .method_not_allowed_fallback(move |request: Request| nothing_here::method_not_allowed(State(Arc::clone(&our)), request))
        .with_state(Arc::new(LinkDoor { instance, links }))
}

/// The cookie that ties a handshake to the browser that pressed the button; one for each handshake, named by its state.
fn handshake_cookie(public_url: &PublicUrl, state: &Digest) -> String {
    browser::cookie_name(public_url, &format!("link-{}", &state.fingerprint().to_string()[..8]))
}
