//! OB apps that need nobody's consent (client credentials, password): no handshake, and no link that is over for good.

use serde_json::{Value, json};

use super::{DUE, SECOND};
use crate::world::hostile::{Endpoint, Fault, Heard};
use crate::world::patience::eventually;
use crate::world::scene::Scene;

/// The peer `two`, which is asked with an app of this grant, and more of the peer's attributes.
async fn asking(grant: &str, more: Value) -> Scene {
    let scene = Scene::new().await;
    let deleted = scene.alpha.asks("DELETE", "/v2/tenants/default/peers/two", None).await;
    assert!((200..300).contains(&deleted.status()), "{}", deleted.text());
    let secret = "a-secret-of-20-chars!";
    let app = json!({ "name": "own", "client_id": "alpha", "client_secret": secret, "issuer": scene.two.url(), "grant": grant, "scopes": ["p2pi"] });
    scene.alpha.creates("ob-app", app).await;
    let authority = std::fs::read_to_string(scene.two.authority()).expect("the peer's certificate");
    let mut peer = json!({ "name": "two", "url": scene.two.url(), "ca": authority, "ob": "own" });
    for (name, value) in more.as_object().into_iter().flatten() {
        peer[name] = value.clone();
    }
    scene.alpha.creates("peer", peer).await;
    scene
}

async fn is_linked(scene: &Scene, requests: usize) -> Vec<Heard> {
    eventually("the token to be there", async || {
        let asked = scene.two.heard(Endpoint::Token);
        (asked.len() == requests && scene.alpha.state_of("two").await == "linked").then_some(asked)
    })
    .await
}

async fn lives_without_consent(scene: Scene, expected: &[(&str, &str)]) {
    let asked = is_linked(&scene, 1).await;
    for (name, value) in expected {
        assert_eq!(asked[0].parameter(name), Some(*value), "{name}");
    }
    assert!(scene.two.heard(Endpoint::Authorize).is_empty(), "nobody was asked");
    assert_eq!(scene.calls().await.status(), 200);

    scene.clock.advance(DUE);
    eventually("a renewal", async || {
        scene.clock.advance(SECOND);
        (scene.two.heard(Endpoint::Token).len() == 2).then_some(())
    })
    .await;
    let renewed = is_linked(&scene, 2).await;
    for (name, value) in expected {
        assert_eq!(renewed[1].parameter(name), Some(*value), "it asks for a new token in the same way: {name}");
    }
    assert_eq!(scene.calls().await.status(), 200);

    let document = json!({ "data": { "type": "peer", "attributes": {} } });
    let refused = scene.alpha.asks("POST", "/v2/tenants/default/peers/two/request", Some(&document)).await;
    let error = &refused.json()["errors"][0];
    assert_eq!((refused.status(), &error["code"]), (409, &json!("not_linkable")), "{error}");
    assert_eq!(error["meta"]["next"], "p2pid peer refresh two");

    scene.two.next(Endpoint::Token, Fault::Refuses(400, "invalid_grant"));
    scene.two.next(Endpoint::Token, Fault::Refuses(400, "invalid_grant"));
    scene.clock.advance(DUE);
    let degraded = scene.passes_until(SECOND, "degraded").await;
    assert!(degraded["reason"].as_str().is_some_and(|reason| reason.contains("invalid_grant")), "{degraded}");
    eventually("it to be asked again", async || {
        scene.clock.advance(10 * SECOND);
        (scene.two.heard(Endpoint::Token).len() == 4).then_some(())
    })
    .await;
    let still = scene.peer().await;
    assert_eq!(still["state"], "degraded", "no answer ends such a link: {still}");
    scene.passes_until(10 * SECOND, "linked").await;

    let unlinked = scene.alpha.acts("peer", "two", "unlink", json!({})).await;
    assert_eq!((&unlinked["state"], &unlinked["token"]), (&json!("ready_to_link"), &json!(null)), "{unlinked}");
    assert!(unlinked["reason"].as_str().is_some_and(|reason| reason.contains("p2pid peer refresh two")), "{unlinked}");
    let asked = scene.two.heard(Endpoint::Token).len();
    scene.clock.advance(2 * DUE);
    assert_eq!(scene.calls().await.header("p2pi-error"), Some("not_linked"));
    assert_eq!(scene.two.heard(Endpoint::Token).len(), asked, "what was unlinked is not asked for by itself");
    assert_eq!(scene.alpha.acts("peer", "two", "refresh", json!({})).await["state"], "linked");
    assert_eq!(scene.calls().await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_with_client_credentials_asks_by_itself_and_is_never_over() {
    let scene = asking("client_credentials", json!({})).await;
    lives_without_consent(scene, &[("grant_type", "client_credentials"), ("scope", "p2pi")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_with_a_password_asks_by_itself_and_is_never_over() {
    let scene = asking("password", json!({ "username": "us", "password": "the password there" })).await;
    lives_without_consent(scene, &[("grant_type", "password"), ("username", "us"), ("password", "the password there")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_token_that_is_refused_is_asked_for_again_by_itself() {
    let scene = Scene::with(|two| two.times(2, Endpoint::Token, Fault::Status(503))).await;
    let app = json!({ "grant": "client_credentials" });
    scene.alpha.changes("ob-app", "two", app).await;
    let degraded = scene.passes_until(SECOND, "degraded").await;
    assert!(degraded["reason"].as_str().is_some_and(|reason| reason.contains("503")), "{degraded}");
    scene.passes_until(SECOND, "linked").await;
    assert_eq!(scene.two.heard(Endpoint::Token).len(), 3);
    assert_eq!(scene.calls().await.status(), 200);
}
