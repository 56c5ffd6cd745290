//! A peer has answered, and our own database takes nothing: what the peer gave is kept, offered again, and asked for only once.

use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;

use super::{DUE, SECOND};
use crate::world::hostile::{Endpoint, Fault};
use crate::world::patience::eventually;
use crate::world::scene::Scene;

/// Another program that holds the database: nothing is written until it lets go.
struct Holder(Connection);

impl Holder {
    async fn of(scene: &Scene) -> Self {
        let store = &scene.alpha.running().instance.store;
        store.write(|transaction| Ok(transaction.busy_timeout(Duration::ZERO)?)).await.expect("it takes everything still");
        let other = Connection::open(scene.alpha.settings.state_dir().join("p2pid.db")).expect("another program");
        other.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes now");
        Self(other)
    }

    fn lets_go(self) {
        self.0.execute_batch("ROLLBACK").expect("it ends");
    }
}

/// The statements that the database was asked so far, the refused ones too.
async fn statements(scene: &Scene) -> u64 {
    let metrics = scene.alpha.console("/metrics").await.text();
    let count = metrics.lines().find_map(|line| line.strip_prefix("p2pid_store_statements_total ")?.parse().ok());
    count.unwrap_or_else(|| panic!("no count in {metrics}"))
}

/// Waits until the store was asked to take something.
async fn is_offered_something(scene: &Scene, since: u64) {
    eventually("the tokens to be offered to the store", async || (statements(scene).await > since).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_tokens_that_the_store_does_not_take_are_kept_until_it_does() {
    let mut scene = Scene::linked().await;
    scene.is_patient().await;
    let first = scene.two.refresh_token();
    scene.two.next(Endpoint::Token, Fault::Held);
    scene.clock.advance(DUE);
    scene.passes_until_refreshes(SECOND, 1).await;
    let second = scene.two.refresh_token();
    let holder = Holder::of(&scene).await;
    let mut before = statements(&scene).await;
    scene.two.release();
    for _ in 0..3 {
        is_offered_something(&scene, before).await;
        assert_eq!(scene.calls().await.status(), 200, "calls go on with the token that is held");
        before = statements(&scene).await;
        scene.clock.advance(2 * SECOND);
    }
    assert_eq!(scene.refreshes().len(), 1, "the peer is asked once, however often the store refuses");
    let old = scene.peer().await["token"]["issued_at"].clone();
    holder.lets_go();
    let stored = eventually("the new token to be stored", async || {
        scene.clock.advance(SECOND);
        Some(scene.peer().await).filter(|peer| peer["token"]["issued_at"] != old)
    });
    let stored = stored.await;
    assert_eq!((&stored["state"], &stored["token"]["refreshable"]), (&json!("linked"), &json!(true)), "{stored}");
    assert_eq!(scene.refreshes().len(), 1);
    assert_eq!(scene.calls().await.status(), 200);
    scene.alpha.acts("peer", "two", "refresh", json!({})).await;
    assert_eq!(scene.presented(), [first, second].map(|token| token.expect("it gave one")), "the old one is not presented again");
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_nothing_is_sent_while_the_intent_cannot_be_written() {
    let scene = Scene::linked().await;
    let holder = Holder::of(&scene).await;
    // Neither by itself, when the token is due, nor asked by an operator, whose wish could not be written to the audit either.
    let before = statements(&scene).await;
    scene.clock.advance(DUE);
    is_offered_something(&scene, before).await;
    let document = json!({ "data": { "type": "peer", "attributes": {} } });
    let refused = scene.alpha.asks("POST", "/v2/tenants/default/peers/two/refresh", Some(&document)).await;
    assert_eq!((refused.status(), refused.json()["errors"][0]["code"].as_str()), (503, Some("unavailable")), "{}", refused.text());
    assert!(scene.refreshes().is_empty(), "what is not written down is not sent");
    assert_eq!(scene.calls().await.status(), 200);
    holder.lets_go();
    scene.passes_until_refreshes(SECOND, 1).await;
    scene.passes_until(SECOND, "linked").await;
    assert_eq!((scene.presented().len(), scene.calls().await.status()), (1, 200));
}
