//! The hostile peer itself, before anything is blamed on it.

use std::sync::Arc;

use super::{Endpoint, Fault, Hostile};
use crate::world::clock::ManualClock;
use crate::world::message::Message;
use crate::world::wire::Wire;

async fn refresh(peer: &Hostile, token: &str) -> Option<Message> {
    let form = format!("grant_type=refresh_token&refresh_token={token}");
    post(peer, &form).await
}

async fn post(peer: &Hostile, form: &str) -> Option<Message> {
    let mut wire = Wire::tls(peer.address(), &peer.authority()).await;
    let kind = "application/x-www-form-urlencoded";
    let request = format!("POST /oauth/token HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{form}", form.len());
    wire.sends(request).await.answer().await
}

async fn linked() -> (Hostile, String) {
    let peer = Hostile::start(Arc::new(ManualClock::new())).await;
    let answer = post(&peer, "grant_type=password").await.expect("an answer").json();
    let token = answer["refresh_token"].as_str().expect("a refresh token").to_owned();
    (peer, token)
}

#[tokio::test]
async fn a_refresh_token_is_good_once() {
    let (peer, first) = linked().await;
    assert_eq!(refresh(&peer, &first).await.expect("an answer").status(), 200);
    let again = refresh(&peer, &first).await.expect("an answer");
    assert_eq!((again.status(), again.json()["error"].clone()), (400, "invalid_grant".into()));
    assert_eq!(peer.heard(Endpoint::Token).len(), 3);
}

#[tokio::test]
async fn an_answer_dropped_after_the_commit_is_repeated_only_by_a_retry_safe_peer() {
    let (peer, first) = linked().await;
    peer.repeats_answers();
    peer.next(Endpoint::Token, Fault::DroppedAfterCommit);
    assert!(refresh(&peer, &first).await.is_none());
    assert_ne!(peer.refresh_token().as_deref(), Some(first.as_str()));
    let repeated = refresh(&peer, &first).await.expect("an answer").json();
    assert_eq!(repeated["refresh_token"].as_str(), peer.refresh_token().as_deref());
}

#[tokio::test]
async fn scripted_faults_come_in_order_and_then_it_behaves() {
    let (peer, token) = linked().await;
    peer.times(2, Endpoint::Token, Fault::Status(503));
    peer.next(Endpoint::Token, Fault::TooMany("7"));
    peer.next(Endpoint::Token, Fault::ResetInsideBody);
    assert_eq!(refresh(&peer, &token).await.expect("an answer").status(), 503);
    assert_eq!(refresh(&peer, &token).await.expect("an answer").status(), 503);
    assert_eq!(refresh(&peer, &token).await.expect("an answer").header("retry-after"), Some("7"));
    assert!(refresh(&peer, &token).await.is_none());
    let successor = peer.refresh_token().expect("the reset came after the commit");
    assert_eq!(refresh(&peer, &successor).await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn a_held_answer_comes_when_it_is_released() {
    let (peer, token) = linked().await;
    peer.next(Endpoint::Token, Fault::Held);
    let answer = tokio::join!(refresh(&peer, &token), async {
        peer.hears(2, Endpoint::Token).await;
        peer.release();
    });
    assert_eq!(answer.0.expect("an answer").status(), 200);
}
