//! How the instance does.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::{Router, routing};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::AdminState;
use super::document;
use super::error::AdminError;
use crate::outbound::link::State as LinkState;
use crate::tasks::reload::{Condition, Refused};

/// `/status`
pub(super) fn router() -> Router<Arc<AdminState>> {
    Router::new().route("/status", routing::get(show)).route("/reload", routing::post(reload))
}

/// One address that the daemon listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listening {
    /// `public`, `local`, `console` or `admin`.
    pub name: &'static str,
    /// The address, with the port that the kernel chose.
    pub address: String,
    /// Whether it speaks TLS.
    pub tls: bool,
}

/// How many peers are in each state; a state that no peer is in counts 0.
fn peers_by_state(state: &AdminState) -> Value {
    let now = state.instance.clock.now();
    let mut counts: BTreeMap<&str, u64> = LinkState::ALL.into_iter().map(|state| (state.as_str(), 0)).collect();
    for link in state.links.all() {
        *counts.entry(link.facts().status(&now).state.as_str()).or_default() += 1;
    }
    json!(counts)
}

/// The configuration's files, and what of them is not in force.
fn config_of(condition: &Condition) -> Value {
    json!({
        "file": condition.file, "loaded_at": condition.loaded_at, "error": condition.error, "restart_needed": condition.restart_needed,
    })
}

/// Reads the configuration again.
async fn reload(State(state): State<Arc<AdminState>>, document: document::Document) -> Result<Response, AdminError> {
    let NoAttributes {} = document.attributes("reload")?;
    let condition = state.reloader.reload().await.map_err(|refused| refusal(&refused))?;
    Ok(document::shown(document::record("reload", &state.instance.config().instance.name, config_of(&condition))))
}

/// Nothing can be said about a reload.
#[derive(Deserialize)]
struct NoAttributes {}

fn refusal(refused: &Refused) -> AdminError {
    let error = AdminError::new(StatusCode::CONFLICT, "configuration", "the configuration was refused; the one before stays in force");
    let error = error.found(refused.to_string());
    match refused {
        Refused::Files(problems) => {
            error.expected(&problems.first().expected).next("correct the file; `p2pid check` says when it is right")
        }
        Refused::Part { .. } => error.next("correct the file, then try again"),
    }
}

async fn show(State(state): State<Arc<AdminState>>) -> Response {
    let instance = &state.instance;
    let config = instance.config();
    let attributes = json!({
        "instance": config.instance.name,
        "public_url": config.instance.public_url.as_str(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": instance.clock.now().age_of(&instance.started_at).as_secs(),
        "config": config_of(&state.reloader.condition()),
        "listeners": state.listeners,
        "peers": peers_by_state(&state),
    });
    document::shown(document::record("status", &config.instance.name, attributes))
}
