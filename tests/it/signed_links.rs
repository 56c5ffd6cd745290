//! What our side signs, when a peer's clock is another, a key is changed meanwhile, or the peer takes no proof.

use std::time::Duration;

use p2pid::clock::Clock;
use serde_json::{Value, json};

use super::world::hostile::{Endpoint, Fault, Heard, Hostile};
use super::world::patience::eventually;
use super::world::scene::Scene;
use super::world::settings::request;
use super::world::wire::Wire;

/// Past the time at which a token that lives an hour is renewed, and before it cannot be used any more.
const DUE: Duration = Duration::from_secs(3300);
const SECOND: Duration = Duration::from_secs(1);

/// A peer whose clock is `off` seconds from ours, which refuses what is not signed by it: assertions, proofs of requests, proofs of calls.
async fn lives_with_a_clock(off: i64) {
    let mut scene = Scene::with(|two| {
        two.binds_tokens();
        two.minds_the_time();
        two.clock_is_off_by(off);
    })
    .await;
    scene.alpha.changes("ob-app", "two", json!({ "auth_method": "private_key_jwt", "dpop": "require" })).await;
    scene.links().await;
    assert_eq!(scene.peer().await["token"]["type"], "DPoP");
    let exchanges = scene.two.heard(Endpoint::Token);
    assert_eq!(exchanges.len(), 2, "the code is redeemed at once by the clock that the refusal told");
    assert_eq!(scene.calls().await.status(), 200);
    scene.alpha.acts("peer", "two", "refresh", json!({})).await;
    assert_eq!((scene.refreshes().len(), scene.calls().await.status()), (1, 200), "what is known of the clock is kept");

    // What was known of the other clock is gone with the process.
    scene.alpha.restarts().await;
    let before = scene.two.heard(Endpoint::Resource).len();
    assert_eq!(scene.calls().await.status(), 200);
    assert_eq!(scene.two.heard(Endpoint::Resource).len(), before + 2, "the call is made again by the clock that the refusal told");
    assert_eq!(scene.refreshes().len(), 1, "a proof that came at the wrong time is no reason to renew the token");
    scene.alpha.restarts().await;
    scene.clock.advance(DUE);
    scene.passes_until_refreshes(SECOND, 3).await;
    let presented = scene.presented();
    assert_eq!(presented[1], presented[2], "refused for the time alone, so it is presented again");
    eventually("the new token", async || (scene.counted().await.0 == 1).then_some(())).await;
    assert_eq!((scene.peer().await["state"].clone(), scene.calls().await.status()), (json!("linked"), 200));

    // By the other clock it is late, or early; the token's end is reckoned by ours.
    let issued = scene.peer().await["token"]["issued_at"].as_str().map(humantime::parse_rfc3339_weak).expect("a time").expect("a time");
    let issued = issued.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    assert!(scene.clock.now().wall.seconds().unsigned_abs().abs_diff(issued) <= 60);
    let unlinked = scene.alpha.acts("peer", "two", "unlink", json!({})).await;
    assert_eq!(unlinked["revocation"], "revoked", "{unlinked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c11_c13_a_peer_whose_clock_is_minutes_ahead_is_linked_called_renewed_and_left() {
    lives_with_a_clock(420).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c11_c13_a_peer_whose_clock_is_minutes_behind_is_linked_called_renewed_and_left() {
    lives_with_a_clock(-420).await;
}

/// The key that a refresh was signed with.
fn signed_by(refresh: &Heard) -> String {
    let (header, _) = refresh.assertion().expect("it is signed");
    header["kid"].as_str().expect("it names its key").to_owned()
}

/// A link whose OB app signs.
async fn signing() -> Scene {
    let scene = Scene::linked_with(Hostile::repeats_answers).await;
    let app = scene.alpha.changes("ob-app", "two", json!({ "auth_method": "private_key_jwt" })).await;
    assert_eq!(app["jwks"]["keys"].as_array().map(Vec::len), Some(1), "{app}");
    assert_eq!(scene.peer().await["state"], "linked");
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn c12_a_key_that_is_changed_while_a_refresh_is_under_way_ends_no_link() {
    let mut scene = signing().await;
    scene.is_patient().await;
    scene.two.next(Endpoint::Token, Fault::Held);
    scene.clock.advance(DUE);
    scene.passes_until_refreshes(SECOND, 1).await;
    let rotated = scene.alpha.acts("ob-app", "two", "rotate-key", json!({ "overlap": 0 })).await;
    scene.two.release();
    let given = scene.two.refresh_token();
    eventually("the answer to be taken", async || {
        let (succeeded, failed) = scene.counted().await;
        assert!(failed.is_empty(), "{failed:?}");
        (succeeded == 1).then_some(())
    })
    .await;
    assert_eq!(scene.peer().await["state"], "linked");
    assert_eq!(scene.calls().await.status(), 200);
    assert!(scene.two.heard(Endpoint::Revoke).is_empty(), "what came is held, not given back");

    scene.alpha.acts("peer", "two", "refresh", json!({})).await;
    assert_eq!(scene.presented().last().cloned(), given);
    let refreshes = scene.refreshes();
    let (first, last) = (signed_by(&refreshes[0]), signed_by(refreshes.last().expect("a refresh")));
    assert_ne!(first, last, "the new key signs: {rotated}");
    assert_eq!(scene.calls().await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn c12_an_attempt_whose_answer_was_lost_is_made_again_by_the_new_key() {
    let scene = signing().await;
    scene.two.times(2, Endpoint::Token, Fault::DroppedAfterCommit);
    scene.clock.advance(DUE);
    scene.passes_until(SECOND, "degraded").await;
    let before = scene.refreshes().len();
    scene.alpha.acts("ob-app", "two", "rotate-key", json!({ "overlap": 0 })).await;
    scene.passes_until(SECOND, "linked").await;
    let (refreshes, presented) = (scene.refreshes(), scene.presented());
    assert!(refreshes.len() > before && presented.iter().all(|token| *token == presented[0]), "{presented:?}");
    assert_ne!(signed_by(&refreshes[0]), signed_by(refreshes.last().expect("a refresh")));
    assert_eq!(scene.calls().await.status(), 200);
}

/// The key of a refresh's proof, and the claims.
fn proved(refresh: &Heard) -> (Value, Value) {
    let (header, claims) = refresh.proof().expect("it carries a proof");
    assert_eq!((header["typ"].as_str(), header["jwk"]["kty"].as_str()), (Some("dpop+jwt"), Some("EC")), "{header}");
    (header["jwk"].clone(), claims)
}

/// A link whose tokens are bound.
async fn bound() -> Scene {
    let mut scene = Scene::with(Hostile::binds_tokens).await;
    scene.alpha.changes("ob-app", "two", json!({ "dpop": "require" })).await;
    scene.links().await;
    assert_eq!(scene.peer().await["token"]["type"], "DPoP");
    assert_eq!(scene.calls().await.status(), 200);
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn c13_a_peer_that_binds_no_more_tokens_is_told_of() {
    let scene = bound().await;
    scene.alpha.changes("ob-app", "two", json!({ "dpop": "auto" })).await;
    scene.two.next(Endpoint::Token, Fault::TokenType("Bearer"));
    scene.alpha.acts("peer", "two", "refresh", json!({})).await;
    assert_eq!(scene.peer().await["token"]["type"], "Bearer");
    let rows = scene.alpha.audit("action=peer.tokens_unbound").await;
    let [row] = &rows[..] else { panic!("one row: {rows:?}") };
    assert_eq!((&row["record_name"], &row["details"]["dpop"]), (&json!("two"), &json!("auto")), "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c13_a_peer_that_takes_no_proof_ends_no_link_and_gets_the_same_token_by_the_same_key() {
    let scene = bound().await;
    scene.two.next(Endpoint::Token, Fault::Refuses(400, "invalid_dpop_proof"));
    scene.clock.advance(Duration::from_secs(3000));
    let degraded = scene.passes_until(SECOND, "degraded").await;
    let reason = degraded["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("invalid_dpop_proof") && reason.contains("look at both clocks"), "{reason}");
    assert_eq!(scene.calls().await.status(), 200, "calls go on while the token is good");
    assert_eq!(scene.refreshes().len(), 1, "a clock that is right is no reason to ask at once");
    let linked = scene.passes_until(SECOND, "linked").await;
    assert_eq!(linked["token"]["type"], "DPoP");
    let (refreshes, presented) = (scene.refreshes(), scene.presented());
    assert_eq!((refreshes.len(), &presented[0]), (2, &presented[1]));
    let ((first_key, first), (second_key, second)) = (proved(&refreshes[0]), proved(&refreshes[1]));
    assert_eq!(first_key, second_key, "the refresh token may be bound to it");
    assert_ne!(first["jti"], second["jti"]);
    assert_eq!(scene.calls().await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn c13_a_proof_that_another_clock_refuses_is_made_again_at_once_by_that_clock() {
    let scene = bound().await;
    for ahead in [420, -420] {
        let (before, signed_at) = (scene.refreshes().len(), scene.clock.now().wall.seconds());
        scene.two.clock_is_off_by(ahead);
        scene.two.next(Endpoint::Token, Fault::Refuses(400, "invalid_dpop_proof"));
        let peer = scene.alpha.acts("peer", "two", "refresh", json!({})).await;
        assert_eq!(peer["state"], "linked", "{peer}");
        let refreshes = scene.refreshes();
        assert_eq!(refreshes.len(), before + 2, "{ahead}");
        let (_, again) = proved(&refreshes[before + 1]);
        assert_eq!(again["iat"].as_i64(), Some(signed_at + ahead), "{ahead}");
        assert_eq!(scene.presented()[before], scene.presented()[before + 1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c13_a_server_and_a_resource_at_one_origin_have_nonces_of_their_own() {
    let mut scene = bound().await;
    scene.two.wants_nonces();
    let called = async |scene: &Scene| {
        let before = scene.two.heard(Endpoint::Resource).len();
        assert_eq!(scene.calls().await.status(), 200);
        scene.two.heard(Endpoint::Resource).len() - before
    };
    assert_eq!(called(&scene).await, 2, "the nonce is asked for");
    assert_eq!(called(&scene).await, 1, "and kept");
    scene.alpha.acts("peer", "two", "refresh", json!({})).await;
    assert_eq!((scene.refreshes().len(), called(&scene).await), (2, 1), "what the server asks for is for the server");
    scene.alpha.acts("peer", "two", "refresh", json!({})).await;
    assert_eq!((scene.refreshes().len(), called(&scene).await), (3, 1), "each is kept");

    // The refusal of a token brings no nonce, so the first proof with the new token lacks one.
    scene.alpha.restarts().await;
    scene.clock.advance(Duration::from_secs(60));
    scene.two.forgets_access_tokens();
    assert_eq!(called(&scene).await, 3, "the token is refused, then the proof, then nothing");
    assert_eq!(scene.refreshes().len(), 5, "one refresh, which was asked for its nonce");
    scene.two.forgets_access_tokens();
    scene.clock.advance(Duration::from_secs(60));
    assert_eq!(called(&scene).await, 2);
}

/// Asks for a WebSocket through the relay, which must open and carry bytes. Gives the proofs that reached the peer with it.
async fn opens_a_websocket(scene: &Scene) -> Vec<Value> {
    let before = scene.two.heard(Endpoint::Resource).len();
    let mut wire = Wire::plain(scene.alpha.settings.local).await;
    let opening = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let answer = wire.asks(request("GET", "/two/socket", &scene.alpha.settings.local.to_string(), &opening, "")).await;
    let switched = (answer.status(), answer.header("sec-websocket-accept"));
    assert_eq!(switched, (101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")), "{} {}", answer.first_line, answer.text());
    assert_eq!(wire.sends(b"whatever goes in").await.some_bytes(16).await, b"whatever goes in");
    let asked = &scene.two.heard(Endpoint::Resource)[before..];
    assert!(asked.iter().all(|heard| heard.message.header("upgrade") == Some("websocket")), "each asks for the WebSocket");
    asked.iter().map(|heard| proved(heard).1).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn c13_a_websocket_whose_proof_is_refused_for_its_nonce_is_asked_for_once_more_and_opens() {
    let scene = bound().await;
    scene.two.wants_nonces();
    let proofs = opens_a_websocket(&scene).await;
    let nonces: Vec<_> = proofs.iter().map(|proof| proof["nonce"].as_str()).collect();
    assert_eq!(nonces, [None, Some("nonce-of-the-resource")]);
    assert_ne!(proofs[0]["jti"], proofs[1]["jti"]);
    assert_eq!(opens_a_websocket(&scene).await.len(), 1, "the nonce is kept");
    assert_eq!(scene.refreshes().len(), 0, "the token was good all the time");
}

#[tokio::test(flavor = "multi_thread")]
async fn c13_a_websocket_whose_proof_another_clock_refuses_is_asked_for_once_more_by_that_clock_and_opens() {
    for off in [420, -420] {
        let scene = bound().await;
        let signed_at = scene.clock.now().wall.seconds();
        scene.two.minds_the_time();
        scene.two.clock_is_off_by(off);
        let proofs = opens_a_websocket(&scene).await;
        let times: Vec<_> = proofs.iter().map(|proof| proof["iat"].as_i64()).collect();
        assert_eq!(times, [Some(signed_at), Some(signed_at + off)]);
        assert_eq!(opens_a_websocket(&scene).await.len(), 1, "the clock is known from then on");
        assert_eq!(scene.refreshes().len(), 0, "the token was good all the time");
    }
}
