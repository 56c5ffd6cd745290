//! How the instance does.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::{Router, routing};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::document;
use super::error::AdminError;
use super::{AdminState, Caller};
use crate::config::{Config, Tls};
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

/// How many of the peers that `caller` may see are in each state; a state that no peer is in counts 0.
fn peers_by_state(state: &AdminState, caller: &Caller) -> Value {
    let now = state.instance.clock.now();
    let mut counts: BTreeMap<&str, u64> = LinkState::ALL.into_iter().map(|state| (state.as_str(), 0)).collect();
    for facts in state.links.all().iter().map(|link| link.facts()).filter(|facts| caller.holds(&facts.peer.tenant, "peers.get")) {
        *counts.entry(facts.status(&now).state.as_str()).or_default() += 1;
    }
    json!(counts)
}

/// The configuration's files, and what of them is not in force.
fn config_of(condition: &Condition) -> Value {
    json!({
        "file": condition.file, "loaded_at": condition.loaded_at, "error": condition.error, "restart_needed": condition.restart_needed,
    })
}

/// The routes of tenants whose IB apps `caller` may see, the longest path first: whoever registers a peer tells it where its calls go.
fn routes_of(config: &Config, caller: &Caller) -> Value {
    let seen = config.routes.iter().filter(|route| caller.holds(&route.tenant, "ib_apps.get"));
    seen.map(|route| json!({ "path": route.path, "tenant": route.tenant })).collect()
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

/// Who does not rule the instance learns nothing of other tenants' peers, of the files, and of where else it listens.
async fn show(State(state): State<Arc<AdminState>>, caller: Caller) -> Response {
    let instance = &state.instance;
    let config = instance.config();
    let condition = state.reloader.condition();
    let rules = caller.rules_instance();
    let listeners: Vec<&Listening> = state.listeners.iter().filter(|listening| rules || listening.name == "public").collect();
    // What peers are given to trust it by; a real certificate needs nothing.
    let development_certificate = (config.public.tls == Tls::SelfSigned).then(|| config.instance.state_dir.join("tls/cert.pem"));
    let attributes = json!({
        "instance": config.instance.name,
        "public_url": config.instance.public_url.as_str(),
        "development_certificate": development_certificate.filter(|_| rules),
        "mtls_public_url": config.mtls.public_url.as_ref().map(|url| url.as_str()),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": instance.clock.now().age_of(&instance.started_at).as_secs(),
        "config": if rules { config_of(&condition) } else { json!({ "loaded_at": condition.loaded_at }) },
        "listeners": listeners,
        "routes": routes_of(&config, &caller),
        "peers": peers_by_state(&state, &caller),
    });
    document::shown(document::record("status", &config.instance.name, attributes))
}
