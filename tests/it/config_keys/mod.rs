//! Each key of the configuration is changed, and its effect seen from outside.

mod limits;
mod limits_of_clients;
mod listeners;
mod records;
mod routes;
mod tokens;

use serde_json::{Value, json};

use crate::world::node::Node;

/// Says `toml` to a running node, which takes it without a restart.
pub(crate) async fn says(node: &Node, toml: &str) {
    let restart_needed = reloads(node, toml).await;
    assert_eq!(restart_needed, json!([]), "{toml}");
}

/// Says `toml` to a running node; gives the keys that wait for a restart.
async fn reloads(node: &Node, toml: &str) -> Value {
    node.settings.says("zz-test.toml", toml);
    let answer = node.asks("POST", "/v2/reload", Some(&json!({ "data": { "type": "reload", "attributes": {} } }))).await;
    assert_eq!(answer.status(), 200, "{toml}: {}", answer.text());
    answer.json()["data"]["attributes"]["restart_needed"].clone()
}
