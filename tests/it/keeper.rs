//! The keeper against a hostile peer: each scenario looks at the wire (which requests, with which token), the event (what became of the
//! link) and the row (what is held).

mod changed_meanwhile;
mod counted;
mod many;
mod outbox;
mod patience;
mod store;
mod without_consent;

use std::time::Duration;

use serde_json::json;

use super::world::hostile::{Endpoint, Fault};
use super::world::patience::{eventually, within};
use super::world::scene::Scene;

/// Past the time at which a token that lives an hour is renewed, and before it cannot be used any more.
const DUE: Duration = Duration::from_secs(3300);
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn c6_what_is_inconclusive_is_presented_again_until_it_is_answered() {
    let scene = Scene::linked_with(super::world::hostile::Hostile::repeats_answers).await;
    let mut expected = 0;
    for fault in [
        Fault::DroppedBeforeCommit,
        Fault::DroppedAfterCommit,
        Fault::Status(500),
        Fault::Status(503),
        Fault::TooMany("1"),
        Fault::EmptyBody,
        Fault::Html,
        Fault::HalfJson,
        Fault::ResetInsideBody,
    ] {
        let told = format!("{fault:?}");
        scene.two.times(3, Endpoint::Token, fault);
        scene.clock.advance(DUE);
        let degraded = scene.passes_until(SECOND, "degraded").await;
        assert!(degraded["reason"].as_str().is_some_and(|reason| reason.contains("tried again")), "{told}: {degraded}");
        let linked = scene.passes_until(SECOND, "linked").await;
        expected += 4;
        let presented = scene.presented();
        assert_eq!(presented.len(), expected, "{told}");
        let last = &presented[expected - 4..];
        assert!(last.iter().all(|token| *token == last[0]), "{told}: the same refresh token each time, {presented:?}");
        assert_eq!(linked["token"]["refreshable"], json!(true), "{told}");
        let answer = scene.calls().await;
        assert_eq!(answer.status(), 200, "{told}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_an_answer_that_comes_too_late_is_inconclusive() {
    let scene = Scene::linked_with(super::world::hostile::Hostile::repeats_answers).await;
    for fault in [Fault::Late(Duration::from_secs(5)), Fault::SlowLoris, Fault::EndlessBody] {
        let told = format!("{fault:?}");
        scene.two.next(Endpoint::Token, fault);
        scene.clock.advance(DUE);
        scene.passes_until(Duration::from_millis(50), "degraded").await;
        scene.passes_until(SECOND, "linked").await;
        assert_eq!(scene.calls().await.status(), 200, "{told}");
    }
    let presented = scene.presented();
    assert!(presented.len() == 6 && presented.chunks(2).all(|pair| pair[0] == pair[1]), "{presented:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c7_invalid_grant_stops_at_once_and_names_the_fix() {
    let scene = Scene::linked().await;
    scene.two.always(Endpoint::Token, Fault::Refuses(400, "invalid_grant"));
    scene.clock.advance(DUE);
    let peer = scene.passes_until(SECOND, "relink_required").await;
    assert!(peer["reason"].as_str().is_some_and(|reason| reason.contains("p2pid peer request two")), "{peer}");
    assert_eq!(peer["token"], json!(null));
    let answer = scene.calls().await;
    assert_eq!((answer.status(), answer.header("p2pi-error")), (503, Some("relink_required")));
    for _ in 0..20 {
        scene.clock.advance(Duration::from_secs(600));
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.refreshes().len(), 1, "nobody asks again with a dead token");
}

#[tokio::test(flavor = "multi_thread")]
async fn c7_invalid_grant_after_a_lost_answer_is_asked_once_more_after_five_seconds() {
    let scene = Scene::linked().await;
    scene.two.next(Endpoint::Token, Fault::DroppedAfterCommit);
    scene.clock.advance(DUE);
    scene.passes_until(SECOND, "relink_required").await;
    let presented = scene.presented();
    assert!(presented.len() == 3 && presented.iter().all(|token| *token == presented[0]), "{presented:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_attempts_are_counted_from_the_row() {
    let scene = Scene::linked().await;
    let store = scene.alpha.running().instance.store.clone();
    // As when the daemon could not write down what became of an attempt: the row knows of one that nobody remembers.
    store.write(|transaction| Ok(transaction.execute("UPDATE held_token SET attempts = 1", [])?)).await.expect("written");
    scene.two.always(Endpoint::Token, Fault::Refuses(400, "invalid_grant"));
    scene.clock.advance(DUE);
    scene.passes_until(SECOND, "relink_required").await;
    assert_eq!(scene.presented().len(), 2, "it is not the first attempt, so it is presented once more");
}

#[tokio::test(flavor = "multi_thread")]
async fn c7_other_refusals_degrade_keep_the_token_and_are_asked_again_every_five_minutes() {
    let scene = Scene::linked().await;
    for (fault, fix) in [
        (Fault::Refuses(401, "invalid_client"), "p2pid ob update two"),
        (Fault::Refuses(400, "invalid_scope"), "p2pid ob update two"),
        (Fault::FirewallPage, "403"),
        (Fault::Status(404), "404"),
        (Fault::Redirect("https://192.0.2.1/".to_owned()), "not followed"),
    ] {
        let told = format!("{fault:?}");
        let before = scene.refreshes().len();
        scene.two.next(Endpoint::Token, fault.clone());
        scene.clock.advance(Duration::from_secs(3000));
        let peer = scene.passes_until(SECOND, "degraded").await;
        assert!(peer["reason"].as_str().is_some_and(|reason| reason.contains(fix)), "{told}: {peer}");
        assert_eq!(scene.calls().await.status(), 200, "{told}: calls go on while the token is good");
        scene.clock.advance(Duration::from_secs(290));
        assert_eq!(scene.refreshes().len(), before + 1, "{told}: not before five minutes");
        scene.passes_until(SECOND, "linked").await;
        assert_eq!(scene.refreshes().len(), before + 2, "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_a_new_refresh_token_is_kept_though_the_access_token_beside_it_is_of_no_use() {
    let mut scene = Scene::linked().await;
    for (fault, why) in [(Fault::TokenType("DPoP"), "type DPoP"), (Fault::NoAccessToken, "no access_token")] {
        let told = format!("{fault:?}");
        scene.two.times(2, Endpoint::Token, fault);
        scene.clock.advance(Duration::from_secs(3000));
        let peer = scene.passes_until(SECOND, "degraded").await;
        assert!(peer["reason"].as_str().is_some_and(|reason| reason.contains(why)), "{told}: {peer}");
        assert_eq!(scene.calls().await.status(), 200, "{told}: calls go on while the old access token is good");
        let (given, before) = (scene.two.refresh_token(), scene.refreshes().len());
        scene.passes_until_refreshes(SECOND, before + 1).await;
        assert_eq!(scene.presented().last().cloned(), given, "{told}: the peer takes each once, so the new one is presented");
        scene.alpha.stops().await;
        let given = scene.two.refresh_token();
        scene.alpha.starts().await;
        let peer = scene.alpha.acts("peer", "two", "refresh", json!({})).await;
        assert_eq!(peer["state"], json!("linked"), "{told}: {peer}");
        assert_eq!(scene.presented().last().cloned(), given, "{told}: it is kept durably");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_secret_is_tried_at_once() {
    let scene = Scene::linked().await;
    scene.two.next(Endpoint::Token, Fault::Refuses(401, "invalid_client"));
    scene.clock.advance(DUE);
    scene.passes_until(SECOND, "degraded").await;
    scene.alpha.changes("ob-app", "two", json!({ "client_secret": "another-secret-of-24-ch" })).await;
    eventually("the new secret at the peer", async || (scene.alpha.state_of("two").await == "linked").then_some(())).await;
    let refreshes = scene.refreshes();
    assert_eq!(refreshes.last().and_then(|heard| heard.client.clone()), Some(("alpha".to_owned(), "another-secret-of-24-ch".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn c8_what_an_answer_leaves_out_stays_or_is_assumed() {
    let scene = Scene::linked().await;
    for (fault, life) in [
        (Fault::NoRefreshToken, 3600),
        (Fault::NoTokenType, 3600),
        (Fault::Created, 3600),
        (Fault::ExpiresIn(None), 3600),
        (Fault::ExpiresIn(Some(json!(0))), 3600),
        (Fault::ExpiresIn(Some(json!(-1))), 3600),
        (Fault::ExpiresIn(Some(json!("1800"))), 1800),
        (Fault::ExpiresIn(Some(json!(u64::MAX))), 315_360_000),
    ] {
        let told = format!("{fault:?}");
        let held = scene.two.refresh_token();
        scene.two.next(Endpoint::Token, fault.clone());
        let peer = scene.alpha.acts("peer", "two", "refresh", json!({})).await;
        assert_eq!((&peer["state"], &peer["token"]["refreshable"]), (&json!("linked"), &json!(true)), "{told}: {peer}");
        let time = |member: &str| {
            humantime::parse_rfc3339_weak(peer["token"][member].as_str().unwrap_or_default())
                .unwrap_or_else(|error| panic!("{told}: {error}"))
        };
        let lived = time("expires_at").duration_since(time("issued_at")).expect("it ends after it began");
        assert_eq!(lived.as_secs(), life, "{told}");
        assert_eq!(scene.presented().last().cloned(), held, "{told}");
        assert_eq!(scene.calls().await.status(), 200, "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_a_hundred_callers_wait_for_one_refresh() {
    let scene = Scene::linked().await;
    let first = scene.calls().await;
    assert_eq!(first.status(), 200);
    scene.two.next(Endpoint::Token, Fault::Held);
    scene.clock.advance(Duration::from_secs(3600));
    let calls = futures_util::future::join_all((0..100).map(|_| scene.calls()));
    let let_go = async {
        scene.two.hears(2, Endpoint::Token).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        scene.two.release();
    };
    let (answers, ()) = within("a hundred calls", futures_util::future::join(calls, let_go)).await;
    for answer in &answers {
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    assert_eq!(scene.refreshes().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_a_token_that_the_peer_refuses_is_renewed_once_and_the_call_goes_on() {
    let scene = Scene::linked_with(super::world::hostile::Hostile::poses_as_p2pid).await;
    scene.clock.advance(Duration::from_secs(60));
    scene.two.forgets_access_tokens();
    let answer = scene.calls().await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(scene.refreshes().len(), 1);
    let new = scene.two.heard(Endpoint::Resource).last().and_then(|heard| heard.bearer.clone());
    let introspected = eventually("the new token at the introspection endpoint", async || {
        let asked = scene.two.heard(Endpoint::Introspect);
        asked.last().and_then(|heard| heard.parameter("token").map(str::to_owned)).filter(|token| Some(token) == new.as_ref())
    });
    introspected.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_answers_401_to_everything_is_not_refreshed_for_every_call() {
    let scene = Scene::linked().await;
    scene.two.always(Endpoint::Resource, Fault::Status(401));
    for (call, refreshes) in [(1, 1), (2, 1), (3, 1)] {
        assert_eq!(scene.calls().await.status(), 401, "call {call}: the peer's own answer");
        assert_eq!(scene.refreshes().len(), refreshes, "call {call}");
    }
    scene.clock.advance(Duration::from_secs(30));
    assert_eq!(scene.calls().await.status(), 401);
    assert_eq!(scene.refreshes().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_live_three_seconds_are_renewed_in_time() {
    let scene = Scene::linked_with(|two| two.tokens_live(Duration::from_secs(3))).await;
    for count in 1..=10 {
        scene.passes_until_refreshes(Duration::from_millis(100), count).await;
        assert_eq!(scene.calls().await.status(), 200);
    }
    let presented = scene.presented();
    let mut different = presented.clone();
    different.dedup();
    assert_eq!(presented, different, "each refresh token is presented once");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_starts_with_its_peers_down_and_refreshes_when_they_are_back() {
    let mut scene = Scene::linked().await;
    scene.two.always(Endpoint::Token, Fault::DroppedBeforeCommit);
    scene.two.always(Endpoint::Metadata, Fault::DroppedBeforeCommit);
    scene.alpha.stops().await;
    scene.clock.advance(Duration::from_secs(7200));
    scene.alpha.starts().await;
    assert_eq!(scene.alpha.console("/readyz").await.status(), 200);
    scene.passes_until(SECOND, "degraded").await;
    scene.two.behaves();
    scene.passes_until(SECOND, "linked").await;
    assert_eq!(scene.calls().await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unlink_forgets_at_once_and_revokes_when_the_peer_is_back() {
    let scene = Scene::linked().await;
    let token = scene.two.refresh_token();
    scene.two.next(Endpoint::Revoke, Fault::Status(503));
    let peer = scene.alpha.acts("peer", "two", "unlink", json!({})).await;
    assert_eq!((&peer["state"], &peer["revoked"], &peer["token"]), (&json!("ready_to_link"), &json!(false), &json!(null)));
    assert_eq!(scene.calls().await.header("p2pi-error"), Some("not_linked"));
    let revoked = eventually("the token to be revoked", async || {
        scene.clock.advance(SECOND);
        let asked = scene.two.heard(Endpoint::Revoke);
        asked.get(1).and_then(|heard| heard.parameter("token").map(str::to_owned))
    });
    assert_eq!(Some(revoked.await), token);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_settles_on_an_unlinked_peer_is_given_back() {
    let scene = Scene::linked().await;
    scene.two.next(Endpoint::Token, Fault::Held);
    scene.clock.advance(DUE);
    scene.passes_until_refreshes(SECOND, 1).await;
    scene.alpha.acts("peer", "two", "unlink", json!({ "force": true })).await;
    scene.two.release();
    let given_back = eventually("the new token to be revoked", async || {
        scene.clock.advance(SECOND);
        let asked = scene.two.heard(Endpoint::Revoke);
        asked.last().and_then(|heard| heard.parameter("token").map(str::to_owned))
    });
    assert!(given_back.await.starts_with("hostile-refresh-"));
    assert_eq!(scene.alpha.state_of("two").await, "ready_to_link");
}

/// Makes the tokens look as if they came out of a backup, and starts the daemon on them.
async fn restores(scene: &mut Scene) {
    let store = scene.alpha.running().instance.store.clone();
    store.write(|transaction| Ok(transaction.execute("UPDATE held_token SET epoch = epoch - 1", [])?)).await.expect("written");
    scene.alpha.restarts().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_out_of_a_backup_is_asked_about_before_it_is_presented() {
    let mut scene = Scene::linked().await;
    let held = scene.two.refresh_token();
    restores(&mut scene).await;
    scene.alpha.acts("peer", "two", "refresh", json!({})).await;
    let asked = scene.two.heard(Endpoint::Introspect);
    assert_eq!(asked.iter().map(|heard| heard.parameter("token").map(str::to_owned)).collect::<Vec<_>>(), [held]);
    scene.alpha.acts("peer", "two", "refresh", json!({})).await;
    assert_eq!(scene.two.heard(Endpoint::Introspect).len(), 1, "once vouched for, it is ours again");

    scene.two.next(Endpoint::Token, Fault::DroppedAfterCommit);
    let document = json!({ "data": { "type": "peer", "attributes": {} } });
    assert_eq!(scene.alpha.asks("POST", "/v2/tenants/default/peers/two/refresh", Some(&document)).await.status(), 502);
    let presented = scene.presented().len();
    restores(&mut scene).await;
    let peer = scene.passes_until(SECOND, "relink_required").await;
    assert!(peer["reason"].as_str().is_some_and(|reason| reason.contains("backup")), "{peer}");
    assert_eq!(scene.presented().len(), presented, "a token that the peer knows no more is not presented");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_is_measured_and_harms_nothing() {
    let scene = Scene::linked_with(|two| two.clock_is_off_by(600)).await;
    scene.alpha.acts("peer", "two", "refresh", json!({})).await;
    let metrics = scene.alpha.console("/metrics").await.text();
    let skew = metrics.lines().find_map(|line| line.strip_prefix("p2pid_clock_skew_seconds ")).and_then(|value| value.parse::<f64>().ok());
    assert!(skew.is_some_and(|skew| (skew - 600.0).abs() < 5.0), "{skew:?}");
    assert!(metrics.contains("p2pid_link_state{peer=\"two\",state=\"linked\"} 1"), "{metrics}");
    assert!(metrics.contains("p2pid_refresh_total{peer=\"two\",result=\"success\",reason=\"\"} 1"), "{metrics}");
    scene.clock.step_wall_back(Duration::from_secs(7200));
    assert_eq!(scene.calls().await.status(), 200);
    scene.clock.step_wall_forward(Duration::from_secs(86_400));
    assert_eq!(scene.calls().await.status(), 200);
    assert_eq!(scene.refreshes().len(), 1, "a stepped clock ages no token");
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_tokens_go_to_the_peer_only_and_stand_nowhere_else() {
    let scene = Scene::linked().await;
    scene.alpha.acts("peer", "two", "refresh", json!({})).await;
    assert_eq!(scene.calls().await.status(), 200);
    let mut shown = scene.peer().await.to_string() + &scene.alpha.shows("ob-app", "two").await.to_string();
    shown += &scene.alpha.console("/metrics").await.text();
    let mut files = Vec::new();
    let state_dir = scene.alpha.running().instance.config().instance.state_dir.clone();
    for entry in std::fs::read_dir(state_dir).expect("a state directory").flatten() {
        files.extend(std::fs::read(entry.path()).unwrap_or_default());
    }
    for secret in scene.two.secrets().iter().map(String::as_str).chain(["a-secret-of-20-chars!"]) {
        assert!(!shown.contains(secret), "{secret}");
        assert!(!files.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret} in a file");
    }
    let targets = [Endpoint::Token, Endpoint::Resource, Endpoint::Metadata].into_iter().flat_map(|endpoint| scene.two.heard(endpoint));
    assert!(targets.into_iter().all(|heard| !scene.two.secrets().iter().any(|secret| heard.target.contains(secret.as_str()))));
}
