//! What our own paths answer where there is nothing, or not with this method: a page for browsers, problem+json for programs.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};

use super::browser;
use crate::id::Id;
use crate::instance::Instance;
use crate::net::problem::{Code, Problem};

/// 404 for a path of ours that is none.
pub(super) async fn not_found(State(instance): State<Arc<Instance>>, request: Request) -> Response {
    let next = "Check the address. A request URL is best copied whole.";
    answer(&instance, request.headers(), Code::NoRoute, "There is nothing here", next)
}

/// 405 for a path of ours that does not take this method; the router adds `Allow`.
pub(super) async fn method_not_allowed(State(instance): State<Arc<Instance>>, request: Request) -> Response {
    answer(&instance, request.headers(), Code::MethodNotAllowed, "Not with this method", "The Allow header names the methods of this path.")
}

fn answer(instance: &Instance, headers: &HeaderMap, code: Code, title: &str, next: &str) -> Response {
    let config = instance.config();
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("text/html") {
        return browser::say(&config, code.status(), title, &[next]);
    }
    let request_id = Id::new(instance.clock.now().wall, instance.random.as_ref()).to_string();
    let problem = Problem { code, detail: next, instance: &config.instance.name, request_id: &request_id, retry_after: None };
    problem.response().map(axum::body::Body::from).into_response()
}
