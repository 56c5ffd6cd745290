//! How long rows are kept: `audit.keep`, and what moves a clock.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::clock::ManualClock;
use crate::world::node::Node;
use crate::world::patience::eventually;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An instance that keeps rows for ninety days, and its first row of a tenant.
async fn keeping() -> (Arc<ManualClock>, Node) {
    let clock = Arc::new(ManualClock::new());
    let mut node = Node::new("alpha", &clock, 1).await;
    node.settings.says("audit.toml", "[audit]\nkeep = \"90d\"\n");
    node.starts().await;
    node.creates("tenant", json!({ "name": "first" })).await;
    (clock, node)
}

/// The tenants that the audit tells of.
async fn kept(node: &Node) -> Vec<Value> {
    node.audit("action=tenant.created").await.iter().map(|row| row["record_name"].clone()).collect()
}

#[tokio::test]
async fn what_was_kept_for_its_time_is_deleted_and_the_audit_says_so() {
    let (clock, node) = keeping().await;
    clock.advance(60 * DAY);
    node.creates("tenant", json!({ "name": "second" })).await;
    clock.advance(32 * DAY);
    let pruned = eventually("the first to be deleted", async || node.audit("action=audit").await.pop()).await;
    eventually("only the second to be left", async || (kept(&node).await == ["second"]).then_some(())).await;
    assert_eq!(pruned["action"], "audit.pruned");
    assert_eq!(super::told(&pruned), json!(["done", "daemon", "p2pid", null, null, null, null]), "{pruned}");
    assert_eq!(pruned["details"]["rows"], 2, "the start and the first: {pruned}");
}

#[tokio::test]
async fn a_clock_that_is_ten_years_ahead_for_a_while_costs_no_row() {
    let (clock, mut node) = keeping().await;
    // It was looked at before.
    clock.advance(2 * DAY);
    clock.step_wall_forward(3_650 * DAY);
    clock.advance(DAY / 24);
    let doubted = eventually("the doubt", async || node.audit("action=clock").await.pop()).await;
    assert_eq!(doubted["action"], "clock.doubted");
    assert_eq!(super::told(&doubted), json!(["done", "daemon", "p2pid", null, null, null, null]), "{doubted}");
    assert_eq!(doubted["details"]["in_this_boot"], true, "{doubted}");
    clock.advance(20 * DAY / 24);
    node.restarts().await;
    node.creates("tenant", json!({ "name": "then" })).await;
    assert_eq!(kept(&node).await, ["first", "then"]);
    clock.step_wall_back(3_650 * DAY);
    node.restarts().await;
    clock.advance(30 * DAY);
    node.creates("tenant", json!({ "name": "now" })).await;
    assert_eq!(kept(&node).await, ["first", "then", "now"]);
    assert_eq!(node.audit("action=audit.pruned").await, Vec::<Value>::new());
    // What is right again deletes again.
    clock.advance(60 * DAY);
    eventually("the first to be deleted", async || (kept(&node).await == ["then", "now"]).then_some(())).await;
}
