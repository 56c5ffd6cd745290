//! Each attempt is counted once, as one success or one failure with its reason; a link that breaks is told once, and so is its recovery.

use serde_json::json;

use super::{DUE, SECOND};
use crate::world::hostile::{Endpoint, Fault, Hostile};
use crate::world::pair::Pair;
use crate::world::patience::eventually;
use crate::world::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_counts_one_failure_and_then_one_success() {
    let scene = Scene::linked_with(Hostile::repeats_answers).await;
    for (fault, reason) in [
        (Fault::DroppedBeforeCommit, "timeout"),
        (Fault::DroppedAfterCommit, "timeout"),
        (Fault::ResetInsideBody, "timeout"),
        (Fault::Status(500), "server_error"),
        (Fault::TooMany("1"), "server_error"),
        (Fault::EmptyBody, "bad_answer"),
        (Fault::Html, "bad_answer"),
        (Fault::HalfJson, "bad_answer"),
        (Fault::NoAccessToken, "bad_answer"),
        (Fault::Refuses(401, "invalid_client"), "invalid_client"),
        (Fault::Refuses(400, "invalid_scope"), "invalid_scope"),
        (Fault::FirewallPage, "bad_answer"),
        (Fault::Redirect("https://192.0.2.1/".to_owned()), "bad_answer"),
    ] {
        let told = format!("{fault:?}");
        let (held, requests) = (scene.peer().await["token"]["issued_at"].clone(), scene.refreshes().len());
        let (succeeded, failed) = scene.counted().await;
        scene.two.next(Endpoint::Token, fault);
        scene.clock.advance(DUE);
        scene.passes_until_refreshes(SECOND, requests + 1).await;
        // Time stands still from here on: nothing is tried again before what became of this attempt was looked at.
        eventually("the failure to be shown", async || (scene.alpha.state_of("two").await == "degraded").then_some(())).await;
        let mut expected = failed.clone();
        *expected.entry(reason.to_owned()).or_default() += 1;
        assert_eq!(scene.counted().await, (succeeded, expected.clone()), "{told}: the event");
        assert_eq!(scene.refreshes().len(), requests + 1, "{told}: the wire");
        assert_eq!(scene.peer().await["token"]["issued_at"], held, "{told}: the row");
        scene.passes_until(SECOND, "linked").await;
        assert_eq!(scene.counted().await, (succeeded + 1, expected), "{told}: the event");
        assert_eq!(scene.refreshes().len(), requests + 2, "{told}: the wire");
        assert_ne!(scene.peer().await["token"]["issued_at"], held, "{told}: the row");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_counts_one_failure_and_nothing_after_it() {
    let scene = Scene::linked().await;
    scene.two.always(Endpoint::Token, Fault::Refuses(400, "invalid_grant"));
    scene.clock.advance(DUE);
    scene.passes_until(SECOND, "relink_required").await;
    for _ in 0..5 {
        scene.clock.advance(DUE);
        assert_eq!(scene.calls().await.header("p2pi-error"), Some("relink_required"));
    }
    let (succeeded, failed) = scene.counted().await;
    assert_eq!((succeeded, json!(failed)), (0, json!({ "invalid_grant": 1 })));
    assert_eq!(scene.peer().await["token"], json!(null));
}

#[tokio::test]
async fn a_link_that_breaks_is_told_once_and_its_recovery_once() {
    let mut pair = Pair::linked("1h").await;
    let told = |pair: &Pair, what: &str| pair.one.log().lines().filter(|line| line.contains(what)).count();
    for times in 1..=2 {
        pair.two.is_killed().await;
        for _ in 0..3 {
            let outcome = pair.one.tries(&["peer", "refresh", "two"], None).await;
            assert!(!outcome.status.success(), "nobody answers: {}", outcome.stdout);
        }
        assert_eq!(pair.state().await, "degraded");
        assert_eq!(told(&pair, "a link needs attention"), times, "{}", pair.one.log());
        pair.two.starts().await;
        pair.one.runs(&["peer", "refresh", "two"]).await;
        pair.one.runs(&["peer", "refresh", "two"]).await;
        assert_eq!((pair.state().await.as_str(), told(&pair, "a link is well again")), ("linked", times), "{}", pair.one.log());
    }
    let notices = pair.one.log().lines().filter(|line| line.contains("a link needs attention")).map(str::to_owned).collect::<Vec<_>>();
    assert!(notices.iter().all(|line| line.contains("\"level\":\"WARN\"") && line.contains("\"peer\":\"two\"")), "{notices:?}");
}
