//! How the instance does.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::{Router, routing};
use serde::Serialize;
use serde_json::{Value, json};

use super::AdminState;
use super::document;
use crate::outbound::link::State as LinkState;

/// `/status`
pub(super) fn router() -> Router<Arc<AdminState>> {
    Router::new().route("/status", routing::get(show))
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

async fn show(State(state): State<Arc<AdminState>>) -> Response {
    let instance = &state.instance;
    let config = instance.config();
    let attributes = json!({
        "instance": config.instance.name,
        "public_url": config.instance.public_url.as_str(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": instance.clock.now().age_of(&instance.started_at).as_secs(),
        "listeners": state.listeners,
        "peers": peers_by_state(&state),
    });
    document::shown(document::record("status", &config.instance.name, attributes))
}
