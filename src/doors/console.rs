//! The console listener: health and metrics without a log-in, the admin API for people with an API key.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use http::{HeaderValue, StatusCode, header};
use tokio::sync::watch;

use super::admin::{self, AdminError, AdminState};
use super::{call, local_browser};
use crate::observe::metrics;

/// What the console's handlers share.
#[derive(Clone, Debug)]
struct ConsoleState {
    admin: Arc<AdminState>,
    ready: watch::Receiver<bool>,
    /// The port that it listens on; a Unix socket has none, and no browser reaches it.
    port: Option<u16>,
}

/// One console listener's routes. `ready` says whether store and listeners are up.
pub fn router(state: Arc<AdminState>, ready: watch::Receiver<bool>, port: Option<u16>) -> Router {
    let console = ConsoleState { admin: Arc::clone(&state), ready, port };
    Router::new()
        .route("/livez", routing::get(|| async { "ok\n" }))
        .route("/readyz", routing::get(ready_or_not))
        .route("/metrics", routing::get(show_metrics))
        .method_not_allowed_fallback(|| async {
            AdminError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path takes GET only")
        })
        .with_state(console.clone())
        .fallback_service(admin::key_router(state))
        .layer(middleware::from_fn_with_state(console, refuse_other_pages))
}

async fn ready_or_not(State(console): State<ConsoleState>) -> Response {
    // A store that does not answer is no use, whatever was true at the start; peers are of no concern here.
    let answers = console.admin.instance.store.read(|connection| Ok(connection.query_row("SELECT 1", [], |_| Ok(()))?)).await;
    match (*console.ready.borrow(), answers) {
        (true, Ok(())) => "ready\n".into_response(),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "starting or stopping\n").into_response(),
        (true, Err(_)) => (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n").into_response(),
    }
}

async fn show_metrics(State(console): State<ConsoleState>) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE))], console.admin.instance.metrics.text()).into_response()
}

async fn refuse_other_pages(State(console): State<ConsoleState>, request: Request, next: Next) -> Result<Response, AdminError> {
    call::check_head(&request).map_err(|refusal| AdminError::new(StatusCode::BAD_REQUEST, "bad_request", refusal.detail()))?;
    if let Some(port) = console.port {
        let config = console.admin.instance.config();
        let checked = local_browser::check(request.uri(), request.headers(), port, &config.console.hosts, &config.console.origins);
        checked.map_err(|refusal| AdminError::new(StatusCode::FORBIDDEN, "browser_refused", refusal.to_string()))?;
    }
    Ok(next.run(request).await)
}
