//! Tokens that were given up while the peer could not take them back.

use std::time::Duration;

use serde_json::json;

use super::SECOND;
use crate::world::hostile::{Endpoint, Fault};
use crate::world::patience::eventually;
use crate::world::scene::Scene;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What waits for the peer to confirm.
async fn waiting(scene: &Scene) -> i64 {
    let store = &scene.alpha.running().instance.store;
    let count = store.read(|connection| Ok(connection.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0))?));
    count.await.expect("it can be read")
}

/// The peer is unlinked, and does not confirm it. Gives the token that it knows.
async fn unlinked() -> (Scene, String) {
    let scene = Scene::linked().await;
    let token = scene.two.refresh_token().expect("it is linked");
    scene.two.always(Endpoint::Revoke, Fault::Status(503));
    let peer = scene.alpha.acts("peer", "two", "unlink", json!({})).await;
    assert_eq!((&peer["revoked"], &peer["revocation"]), (&json!(false), &json!("waiting")), "{peer}");
    assert!(peer["revocation_detail"].as_str().is_some_and(|words| words.contains("30 days")), "{peer}");
    assert_eq!(waiting(&scene).await, 1);
    (scene, token)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_waits_outlives_a_restart_and_the_peers_record() {
    let (mut scene, token) = unlinked().await;
    let deleted = scene.alpha.asks("DELETE", "/v2/tenants/default/peers/two", None).await;
    assert!((200..300).contains(&deleted.status()), "{}", deleted.text());
    let deleted = scene.alpha.asks("DELETE", "/v2/tenants/default/ob-apps/two", None).await;
    assert!((200..300).contains(&deleted.status()), "{}", deleted.text());
    scene.alpha.restarts().await;
    assert_eq!(waiting(&scene).await, 1);
    scene.two.behaves();
    eventually("the token to be revoked", async || {
        scene.clock.advance(SECOND);
        (waiting(&scene).await == 0).then_some(())
    })
    .await;
    let asked = scene.two.heard(Endpoint::Revoke);
    assert!(asked.len() >= 2 && asked.iter().all(|heard| heard.parameter("token") == Some(token.as_str())), "{asked:?}");
    let last = asked.last().and_then(|heard| heard.client.clone());
    assert_eq!(last, Some(("alpha".to_owned(), "a-secret-of-20-chars!".to_owned())), "as the client that got it");
    assert_eq!(scene.two.refresh_token(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_failed_is_tried_again_after_five_seconds() {
    let (scene, _) = unlinked().await;
    scene.two.behaves();
    scene.clock.advance(5 * SECOND);
    eventually("the token to be revoked", async || (waiting(&scene).await == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_nobody_confirms_is_given_up_after_thirty_days() {
    let (scene, _) = unlinked().await;
    let before = scene.two.heard(Endpoint::Revoke).len();
    scene.clock.advance(29 * DAY);
    eventually("it to be tried still", async || {
        scene.clock.advance(SECOND);
        (scene.two.heard(Endpoint::Revoke).len() > before).then_some(())
    })
    .await;
    assert_eq!(waiting(&scene).await, 1, "a month is not over");
    scene.clock.advance(DAY);
    eventually("it to be given up", async || {
        scene.clock.advance(SECOND);
        (waiting(&scene).await == 0).then_some(())
    })
    .await;
}
