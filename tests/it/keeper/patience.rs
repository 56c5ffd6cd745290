//! How long the keeper waits, and how long it lets calls wait.

use std::time::Duration;

use serde_json::json;

use super::{DUE, SECOND};
use crate::world::hostile::{Endpoint, Fault};
use crate::world::patience::eventually;
use crate::world::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn c6_a_peer_is_not_asked_before_the_time_that_it_names() {
    let scene = Scene::linked().await;
    scene.two.next(Endpoint::Token, Fault::TooMany("120"));
    scene.clock.advance(DUE);
    scene.passes_until(SECOND, "degraded").await;
    assert_eq!(scene.refreshes().len(), 1);
    // Far beyond the backoff of a first failure.
    for _ in 0..10 {
        scene.clock.advance(Duration::from_secs(10));
        assert_eq!(scene.calls().await.status(), 200, "calls go on while the token is good");
        assert_eq!(scene.refreshes().len(), 1, "not before two minutes");
    }
    scene.clock.advance(Duration::from_secs(20));
    scene.passes_until(SECOND, "linked").await;
    assert_eq!(scene.refreshes().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_machine_notices_what_ran_out_meanwhile() {
    let scene = Scene::linked().await;
    scene.clock.suspend(Duration::from_secs(7200));
    assert_eq!(scene.calls().await.status(), 200, "a call waits for the new token, not for a timer");
    assert_eq!(scene.refreshes().len(), 1);

    scene.clock.suspend(Duration::from_secs(7200));
    scene.clock.advance(Duration::from_secs(30));
    eventually("a refresh that nobody asked for", async || (scene.refreshes().len() == 2).then_some(())).await;
    assert_eq!(scene.calls().await.status(), 200);
    assert_eq!(scene.refreshes().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_token_cannot_be_renewed_is_told_when_to_come_again() {
    let scene = Scene::linked().await;
    scene.two.always(Endpoint::Token, Fault::Status(503));
    scene.clock.advance(Duration::from_secs(3600));
    let answer = scene.calls().await;
    let told = (answer.status(), answer.header("p2pi-error"), answer.header("retry-after"));
    assert_eq!(told, (503, Some("refresh_failed"), Some("1")), "{}", answer.text());
    assert!(scene.two.heard(Endpoint::Resource).is_empty(), "no call goes on with a token that has run out");
    scene.two.behaves();
    scene.clock.advance(SECOND);
    assert_eq!(scene.calls().await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_during_a_long_pause_is_answered_at_once_with_what_is_left_of_it() {
    let scene = Scene::linked().await;
    scene.two.always(Endpoint::Token, Fault::Refuses(401, "invalid_client"));
    scene.clock.advance(Duration::from_secs(3600));
    for (passed, left) in [(0, "300"), (100, "200"), (150, "50")] {
        scene.clock.advance(Duration::from_secs(passed));
        let answer = scene.calls().await;
        let told = (answer.status(), answer.header("p2pi-error"), answer.header("retry-after"));
        assert_eq!(told, (503, Some("refresh_failed"), Some(left)), "{}", answer.text());
        assert_eq!(scene.refreshes().len(), 1, "calls do not shorten the pause");
    }
    scene.two.behaves();
    scene.alpha.acts("peer", "two", "refresh", json!({})).await;
    assert_eq!(scene.calls().await.status(), 200);
}
