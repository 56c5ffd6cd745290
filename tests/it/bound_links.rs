//! Links whose tokens are bound to a key of the link's own (DPoP): they are made, used and renewed by themselves, and a stolen token is useless.

use std::time::Duration;

use p2pid::secret::{ExposeSecret, SecretString};
use p2pid::store::{Seals, held_token};
use serde_json::{Value, json};

use super::world::World;
use super::world::key_holder::{Holder, presents};
use super::world::settings::request;
use super::world::wire::Wire;

async fn calls_well(world: &World) {
    let answer = world.alpha.calls(&world.beta, "/orders").await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

/// The access token that alpha holds, as whoever reads its memory or its database and key file knows it.
async fn stolen(world: &World) -> String {
    let id = world.alpha.shows("peer", "beta").await["id"].as_str().expect("an id").parse().expect("an id");
    let store = &world.alpha.running().instance.store;
    let (seals, epoch): (Seals, i64) = (store.seals().clone(), store.epoch());
    let held = store.read(move |connection| held_token::of_peer(connection, &seals, epoch, id)).await.expect("it can be read");
    let access: SecretString = held.expect("it is linked").access;
    access.expose_secret().to_owned()
}

async fn kind(world: &World) -> Value {
    world.alpha.shows("peer", "beta").await["token"]["type"].clone()
}

#[tokio::test]
async fn c13_a_link_between_two_instances_is_bound_and_stays_so() {
    let mut world = World::new().await;
    world.introduces_by_key(false, json!({ "dpop": true })).await;
    world.links().await;
    assert_eq!(kind(&world).await, "DPoP");
    calls_well(&world).await;
    let posted = world.alpha.relays("POST", "/beta/orders?x=1", &[("Content-Type", "text/plain")], "one").await;
    assert_eq!(posted.status(), 200, "{}", posted.text());

    let before = stolen(&world).await;
    world.alpha.acts("peer", "beta", "refresh", json!({})).await;
    assert_ne!(stolen(&world).await, before);
    assert_eq!(kind(&world).await, "DPoP");
    calls_well(&world).await;
    world.alpha.restarts().await;
    calls_well(&world).await;
    world.alpha.acts("peer", "beta", "refresh", json!({})).await;
    calls_well(&world).await;
    let unlinked = world.alpha.acts("peer", "beta", "unlink", json!({})).await;
    assert_eq!(unlinked["revocation"], "revoked");
}

#[tokio::test]
async fn c13_calls_to_another_route_than_the_announced_one_are_proven_for_that() {
    let mut world = World::new().await;
    let upstream = world.beta.application.url();
    world.beta.settings.says("alt.toml", &format!("[[route]]\npath = \"/alt\"\nupstream = \"{upstream}\"\nscopes = [\"p2pi\"]\n"));
    world.beta.restarts().await;
    world.introduces().await;
    let base_url = format!("{}/alt", world.beta.settings.url());
    world.alpha.changes("peer", "beta", json!({ "base_url": base_url })).await;
    world.links().await;
    assert_eq!(kind(&world).await, "DPoP");
    calls_well(&world).await;
    let posted = world.alpha.relays("POST", "/beta/orders?x=1", &[("Content-Type", "text/plain")], "one").await;
    assert_eq!(posted.status(), 200, "{}", posted.text());
}

#[tokio::test]
async fn c13_a_nonce_that_ended_costs_no_token_and_no_body() {
    let mut world = World::new().await;
    world.introduces().await;
    world.links().await;
    let token = stolen(&world).await;
    calls_well(&world).await;
    // A restart makes every nonce and every proof from before it void; so does time.
    world.beta.restarts().await;
    let posted = world.alpha.relays("POST", "/beta/orders", &[("Content-Type", "text/plain")], "whole").await;
    assert_eq!(posted.status(), 200, "{}", posted.text());
    for _ in 0..3 {
        world.clock.advance(Duration::from_secs(601));
        calls_well(&world).await;
    }
    assert_eq!(stolen(&world).await, token, "it was not renewed for that");
    let bodies: Vec<Vec<u8>> =
        world.beta.application.received().iter().map(|call| call.body.to_vec()).filter(|body| !body.is_empty()).collect();
    assert_eq!(bodies, [b"whole"], "sent twice, taken once");
}

#[tokio::test]
async fn c13_a_websocket_is_opened_with_a_proof_and_again_with_the_newest_nonce() {
    let mut world = World::new().await;
    world.introduces().await;
    world.links().await;
    let token = stolen(&world).await;
    for _ in 0..2 {
        let mut wire = Wire::plain(world.alpha.settings.local).await;
        let opening = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let host = world.alpha.settings.local.to_string();
        let answer = wire.asks(request("GET", "/beta/socket", &host, &opening, "")).await;
        assert_eq!(answer.status(), 101, "{} {}", answer.first_line, answer.text());
        drop(wire);
        // Every nonce from before is void.
        world.beta.restarts().await;
    }
    assert_eq!(stolen(&world).await, token, "it was not renewed for that");
}

#[tokio::test]
async fn c13_a_token_that_is_stolen_from_us_is_useless_without_its_key() {
    let mut world = World::new().await;
    world.introduces().await;
    world.links().await;
    calls_well(&world).await;
    let (token, thief, before) = (stolen(&world).await, Holder::new(), world.beta.application.received().len());
    assert_eq!(presents(&world, "Bearer", &token, None).await.status(), 401);
    assert_eq!(presents(&world, "DPoP", &token, None).await.status(), 401);
    let asked = thief.calls(&world, &token, json!({})).await;
    let nonce = asked.header("dpop-nonce").expect("a nonce is handed out to anybody").to_owned();
    let refused = thief.calls(&world, &token, json!({ "nonce": nonce })).await;
    assert_eq!((refused.status(), refused.header("p2pi-error")), (401, Some("invalid_token")), "{}", refused.text());
    assert_eq!(world.beta.application.received().len(), before);
    calls_well(&world).await;
}

#[tokio::test]
async fn c13_a_link_from_before_is_bound_by_its_next_refresh() {
    let mut world = World::new().await;
    world.introduces().await;
    world.alpha.changes("ob-app", "beta", json!({ "dpop": "off" })).await;
    world.links().await;
    assert_eq!(kind(&world).await, "Bearer");
    calls_well(&world).await;
    world.alpha.changes("ob-app", "beta", json!({ "dpop": "require" })).await;
    calls_well(&world).await;
    world.alpha.acts("peer", "beta", "refresh", json!({})).await;
    assert_eq!(kind(&world).await, "DPoP");
    calls_well(&world).await;
}

#[tokio::test]
async fn c14_an_app_of_the_fapi_profile_is_one_of_ours() {
    let mut world = World::new().await;
    world.introduces_by_key(false, json!({ "profile": "fapi2" })).await;
    let url = world.alpha.request_url("beta").await;
    let page = world.operator.opens(&url).continues().await;
    let way: Vec<String> = page.way.iter().map(|hop| hop.url.to_string()).collect();
    assert!(way.iter().any(|url| url.contains("request_uri=")), "{way:?}");
    assert!(
        way.iter().all(|url| !url.contains("code_challenge") && !url.contains("dpop_jkt")),
        "nothing of the request is in a URL: {way:?}"
    );
    world.links().await;
    calls_well(&world).await;
    world.alpha.acts("peer", "beta", "refresh", json!({})).await;
    calls_well(&world).await;
}

#[tokio::test]
async fn c14_a_request_that_cannot_be_pushed_uses_nothing_up() {
    let mut world = World::new().await;
    world.introduces_by_key(false, json!({ "profile": "fapi2" })).await;
    let url = world.alpha.request_url("beta").await;
    let jwks = world.beta.shows("ib-app", "alpha").await["jwks"].clone();
    world.beta.changes("ib-app", "alpha", json!({ "jwks": Holder::new().jwks() })).await;
    let page = world.operator.opens(&url).continues().await;
    assert_eq!(page.status, 502, "{}", page.text());
    assert!(page.text().contains("invalid_client") && page.text().contains("was not used up"), "{}", page.text());
    let reason = world.alpha.shows("peer", "beta").await["reason"].to_string();
    assert!(reason.contains("has to know the keys that `p2pid ob show beta` names"), "who made the URL learns of it: {reason}");
    world.beta.changes("ib-app", "alpha", json!({ "jwks": jwks })).await;
    let page = world.operator.opens(&url).continues().logs_in().allows().await;
    assert_eq!(page.status, 200, "{}", page.text());
    calls_well(&world).await;
}
