//! `[scopes]`, `[trust]`: what can be given, and who is believed.

use std::sync::Arc;

use serde_json::json;

use super::says;
use crate::world::clock::ManualClock;
use crate::world::node::Node;
use crate::world::patience::eventually;

#[tokio::test]
async fn scopes_say_what_an_ib_app_can_be_given() {
    let mut node = Node::new("alpha", &Arc::new(ManualClock::new()), 1).await;
    node.starts().await;
    let create = json!({ "data": { "type": "ib-app", "attributes": {
        "name": "shop", "peer_url": "https://shop.example.com", "scopes": ["orders"],
    } } });
    assert_eq!(node.asks("POST", "/v2/tenants/default/ib-apps", Some(&create)).await.status(), 400);
    says(&node, "[scopes]\norders = { text = \"Read orders\", tenant = \"sales\" }").await;
    assert_eq!(node.asks("POST", "/v2/tenants/default/ib-apps", Some(&create)).await.status(), 400, "another tenant's");
    says(&node, "[scopes]\norders = \"Read orders\"").await;
    let answer = node.asks("POST", "/v2/tenants/default/ib-apps", Some(&create)).await;
    assert_eq!(answer.status(), 201, "{}", answer.text());
}

#[tokio::test]
async fn trust_ca_says_whose_certificates_are_believed() {
    let clock = Arc::new(ManualClock::new());
    let (mut alpha, mut beta) = (Node::new("alpha", &clock, 1).await, Node::new("beta", &clock, 2).await);
    alpha.starts().await;
    beta.starts().await;
    let peer = json!({ "name": "beta", "url": beta.settings.url(), "username": "alpha", "password": "correct horse" });
    let create = async || {
        let document = json!({ "data": { "type": "peer", "attributes": peer } });
        alpha.asks("POST", "/v2/tenants/default/peers", Some(&document)).await
    };
    assert_eq!(create().await.json()["errors"][0]["code"], "untrusted_certificate");
    std::fs::copy(beta.settings.authority(), alpha.settings.folder().join("beta.pem")).expect("a copy");
    says(&alpha, "[trust]\nca = [\"beta.pem\"]").await;
    // Peers are told beside the reload.
    let created = eventually("beta to be believed", async || Some(create().await).filter(|answer| answer.status() == 201)).await;
    assert_eq!(created.json()["data"]["attributes"]["name"], "beta");
    let answer = alpha.relays("GET", "/beta/p2pi/orders", &[], "").await;
    assert_eq!((answer.status(), answer.header("p2pi-error-from")), (401, Some("beta")), "{}", answer.text());
}
