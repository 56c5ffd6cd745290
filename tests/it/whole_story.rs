//! The main job, end to end: two instances are linked by a request URL, the token is kept fresh, calls are forwarded.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::World;
use crate::world::pair::Pair;
use crate::world::patience::eventually;

#[tokio::test]
async fn the_main_job() {
    let mut world = World::new().await;
    world.introduces().await;
    assert_eq!(world.alpha.state_of("beta").await, "ready_to_link");
    let early = world.alpha.calls(&world.beta, "/orders").await;
    assert_eq!((early.status(), early.header("p2pi-error"), early.header("p2pi-error-from")), (503, Some("not_linked"), Some("alpha")));

    let url = world.alpha.request_url("beta").await;
    assert_eq!(world.alpha.state_of("beta").await, "requested");
    let page = world.operator.opens(&url).continues().logs_in().allows().await;
    assert_eq!(page.status, 200, "{}", page.text());
    let peer = world.alpha.shows("peer", "beta").await;
    assert_eq!(peer["state"], "linked", "{peer}");
    assert_eq!(peer["linked_as"], "operator@beta.example", "{peer}");

    let answer = world.alpha.calls(&world.beta, "/orders?x=1").await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let received = world.beta.application.last().expect("the application was reached");
    assert_eq!(received.target, "/orders?x=1");
    assert_eq!(received.header("p2pi-instance"), Some("alpha"));
    assert_eq!(received.header("p2pi-subject"), Some("operator@beta.example"));
    assert_eq!(received.header("p2pi-scope"), Some("p2pi"));
    assert_eq!(received.header("authorization"), None);

    // An hour is the life of a token; long before its end it is refreshed, and calls go on.
    let first = peer["token"].clone();
    world.clock.advance(Duration::from_secs(55 * 60));
    let renewed = eventually("a fresh token", async || {
        let token = world.alpha.shows("peer", "beta").await["token"].clone();
        (token["expires_at"] != first["expires_at"]).then_some(token)
    })
    .await;
    assert_ne!(renewed["issued_at"], first["issued_at"]);
    world.clock.advance(Duration::from_secs(10 * 60));
    assert_eq!(world.alpha.calls(&world.beta, "/orders?x=2").await.status(), 200);
    assert_eq!(world.alpha.state_of("beta").await, "linked");

    // What the operator allowed is seen, and ends, on the other side.
    let grants = world.beta.lists("grant").await;
    assert_eq!(grants.len(), 1, "{grants:?}");
    world.beta.restarts().await;
    world.alpha.restarts().await;
    assert_eq!(world.alpha.calls(&world.beta, "/orders?x=3").await.status(), 200);
    let unlinked = world.alpha.acts("peer", "beta", "unlink", json!({ "force": false })).await;
    assert_eq!(unlinked["state"], "ready_to_link", "{unlinked}");
    eventually("the grant to be revoked at the peer", async || {
        let grants = world.beta.lists("grant").await;
        grants.iter().all(|grant| !grant["ended_at"].is_null()).then_some(())
    })
    .await;
    let late = world.alpha.calls(&world.beta, "/orders").await;
    assert_eq!((late.status(), late.header("p2pi-error")), (503, Some("not_linked")));
}

#[tokio::test]
async fn the_main_job_by_processes_and_commands_only() {
    let mut pair = Pair::introduced("1h").await;
    pair.links().await;
    let answer = pair.one.relays(&pair.key, "/two/orders?x=1").await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.json()["called_by"]["instance"], "one");
    let received = pair.two.application.last().expect("the application was reached");
    assert_eq!((received.header("p2pi-instance"), received.header("authorization")), (Some("one"), None));
    let before = pair.one.runs(&["peer", "show", "two"]).await;
    let after = pair.one.runs(&["peer", "refresh", "two"]).await;
    assert_ne!(before["token"]["issued_at"], Value::Null);
    assert_eq!(after["state"], "linked", "{after}");
    let called = pair.one.tries(&["call", "two", "/orders"], None).await;
    assert!(called.status.success(), "{}", called.stderr);
    let status = pair.one.runs(&["status"]).await;
    assert_eq!((&status["instance"], &status["peers"]["linked"]), (&json!("one"), &json!(1)), "{status}");
    assert_eq!(pair.one.console("/readyz").await.status(), 200);
    assert!(pair.one.console("/metrics").await.text().contains(r#"p2pid_link_state{peer="two",state="linked"} 1"#));
    pair.one.is_stopped().await;
    pair.two.is_stopped().await;
}
