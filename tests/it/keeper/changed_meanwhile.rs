//! A link that changes while its refresh is under way: the answer settles on nothing, and what it gave is revoked at the peer.

use serde_json::json;

use super::{DUE, SECOND};
use crate::world::hostile::{Endpoint, Fault};
use crate::world::patience::eventually;
use crate::world::scene::Scene;

/// The peer has minted, and its answer is held back. Gives the refresh token in it.
async fn is_in_flight(scene: &mut Scene) -> String {
    scene.is_patient().await;
    scene.two.next(Endpoint::Token, Fault::Held);
    scene.clock.advance(DUE);
    scene.passes_until_refreshes(SECOND, 1).await;
    scene.two.refresh_token().expect("it gave one")
}

/// Waits until `token` is revoked at the peer.
async fn is_revoked(scene: &Scene, token: &str) {
    eventually("the token that nobody holds to be revoked", async || {
        scene.clock.advance(SECOND);
        scene.two.heard(Endpoint::Revoke).iter().any(|heard| heard.parameter("token") == Some(token)).then_some(())
    })
    .await;
}

async fn held_tokens(scene: &Scene) -> i64 {
    let store = &scene.alpha.running().instance.store;
    let count = store.read(|connection| Ok(connection.query_row("SELECT count(*) FROM held_token", [], |row| row.get(0))?));
    count.await.expect("it can be read")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_settles_on_a_newer_link_is_given_back() {
    let mut scene = Scene::linked().await;
    let late = is_in_flight(&mut scene).await;
    scene.links().await;
    let newest = scene.two.refresh_token();
    assert_ne!(newest.as_ref(), Some(&late));
    scene.two.release();
    is_revoked(&scene, &late).await;
    let revoked = scene.two.heard(Endpoint::Revoke);
    assert!(revoked.iter().all(|heard| heard.parameter("token") != newest.as_deref()), "{revoked:?}");
    assert_eq!(scene.calls().await.status(), 200, "the newer link is the one that is used");
    scene.alpha.acts("peer", "two", "refresh", json!({})).await;
    assert_eq!(scene.presented().last().cloned(), newest, "and the one that is renewed");
    assert_eq!(scene.alpha.state_of("two").await, "linked");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_settles_on_a_deleted_peer_is_given_back() {
    let mut scene = Scene::linked().await;
    let late = is_in_flight(&mut scene).await;
    let deleted = scene.alpha.asks("DELETE", "/v2/tenants/default/peers/two", None).await;
    assert!((200..300).contains(&deleted.status()), "{}", deleted.text());
    assert_eq!(scene.calls().await.header("p2pi-error"), Some("unknown_peer"));
    scene.two.release();
    is_revoked(&scene, &late).await;
    assert_eq!(held_tokens(&scene).await, 0);
    let metrics = scene.alpha.console("/metrics").await.text();
    assert!(!metrics.contains("peer=\"two\""), "nothing is told of a peer that is gone: {metrics}");
    assert_eq!(scene.refreshes().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_made_again_under_its_name_gets_nothing_of_the_old_ones_answer() {
    let mut scene = Scene::linked().await;
    let late = is_in_flight(&mut scene).await;
    scene.alpha.asks("DELETE", "/v2/tenants/default/peers/two", None).await;
    let authority = std::fs::read_to_string(scene.two.authority()).expect("the peer's certificate");
    let again = json!({ "name": "two", "url": scene.two.url(), "ca": authority, "ob": "two" });
    assert_eq!(scene.alpha.creates("peer", again).await["state"], "ready_to_link");
    scene.two.release();
    is_revoked(&scene, &late).await;
    let peer = scene.peer().await;
    assert_eq!((&peer["state"], &peer["token"]), (&json!("ready_to_link"), &json!(null)), "{peer}");
    assert_eq!((held_tokens(&scene).await, scene.calls().await.status()), (0, 503));
}
