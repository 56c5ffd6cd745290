//! A peer, or its OB app, gets another address: the link ends, the token is revoked where it was given, and nothing of it reaches the new
//! place.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::world::hostile::{Endpoint, Fault, Hostile};
use crate::world::person::Person;
use crate::world::scene::Scene;

const SECRET: &str = "the-secret-of-the-new-place";

/// Changes a record so that it leads to `other`, and looks at what becomes of the link.
async fn moves(kind: &str, other: &Hostile, scene: &mut Scene, change: Value) {
    let old = scene.two.refresh_token().expect("it is linked");
    scene.alpha.changes(kind, "two", change).await;
    let peer = scene.peer().await;
    assert_eq!((&peer["state"], &peer["token"]), (&json!("ready_to_link"), &json!(null)), "{kind}: {peer}");
    assert_eq!(scene.calls().await.header("p2pi-error"), Some("not_linked"), "{kind}");
    let revoked = scene.two.hears(1, Endpoint::Revoke).await;
    assert_eq!(revoked.iter().map(|heard| heard.parameter("token")).collect::<Vec<_>>(), [Some(old.as_str())], "{kind}: at the old place");
    assert_eq!(revoked[0].client, Some(("alpha".to_owned(), "a-secret-of-20-chars!".to_owned())), "{kind}: with the old secret");
    for endpoint in [Endpoint::Token, Endpoint::Revoke, Endpoint::Introspect, Endpoint::Resource] {
        assert!(other.heard(endpoint).is_empty(), "{kind}: {endpoint:?} of the new place heard something");
    }

    // The new place is linked like any other.
    scene.person = Person::new("somebody@two.example", "not asked for", &[scene.alpha.settings.authority(), other.authority()]);
    scene.links().await;
    let redeemed = other.heard(Endpoint::Token);
    assert_eq!(redeemed.iter().map(|heard| heard.client.clone()).collect::<Vec<_>>(), [Some(("alpha".to_owned(), SECRET.to_owned()))]);
    assert!(scene.two.heard(Endpoint::Token).len() == 1, "{kind}: the old place is asked for nothing more");
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_a_peer_with_another_url_loses_its_link_and_can_be_linked_there() {
    let mut scene = Scene::linked().await;
    let other = Hostile::start(Arc::clone(&scene.clock) as _).await;
    let authority = std::fs::read_to_string(other.authority()).expect("its certificate");
    let document = json!({ "data": { "type": "peer", "attributes": { "url": other.url(), "ca": authority } } });
    let refused = scene.alpha.asks("PATCH", "/v2/tenants/default/peers/two", Some(&document)).await;
    assert_eq!((refused.status(), refused.json()["errors"][0]["code"].as_str()), (400, Some("missing_attribute")), "{}", refused.text());
    assert_eq!(scene.calls().await.status(), 200, "a refused change ends nothing");
    let change = json!({ "url": other.url(), "ca": authority, "client_secret": SECRET });
    moves("peer", &other, &mut scene, change).await;
    assert_eq!(scene.calls().await.status(), 200);
    assert_eq!((scene.two.heard(Endpoint::Resource).len(), other.heard(Endpoint::Resource).len()), (1, 1), "calls go where it is now");
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_an_ob_app_with_another_issuer_loses_its_links_and_gets_new_ones_there() {
    let mut scene = Scene::linked().await;
    let other = Hostile::start(Arc::clone(&scene.clock) as _).await;
    let authority = std::fs::read_to_string(other.authority()).expect("its certificate");
    let change = json!({ "issuer": other.url(), "ca": authority, "client_secret": SECRET });
    moves("ob-app", &other, &mut scene, change).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_what_is_granted_while_a_peer_is_changed_goes_back_to_who_granted_it_and_to_nobody_else() {
    let elsewhere = |other: &Hostile, name: &str| {
        let authority = std::fs::read_to_string(other.authority()).expect("its certificate");
        json!({ name: other.url(), "ca": authority, "client_secret": SECRET })
    };
    for case in ["another url", "another client", "another issuer", "no peer"] {
        let mut scene = Scene::new().await;
        scene.is_patient().await;
        let other = Hostile::start(Arc::clone(&scene.clock) as _).await;
        let (method, path, kind, attributes) = match case {
            "another url" => ("PATCH", "peers/two", "peer", elsewhere(&other, "url")),
            "another client" => ("PATCH", "ob-apps/two", "ob-app", json!({ "client_id": "another" })),
            "another issuer" => ("PATCH", "ob-apps/two", "ob-app", elsewhere(&other, "issuer")),
            _ => ("DELETE", "peers/two", "peer", json!({})),
        };
        let url = scene.alpha.request_url("two").await;
        scene.two.next(Endpoint::Token, Fault::Held);
        let Scene { alpha, two, person, .. } = &mut scene;
        let changing = async {
            two.hears(1, Endpoint::Token).await;
            let document = json!({ "data": { "type": kind, "attributes": attributes } });
            let changed = alpha.asks(method, &format!("/v2/tenants/default/{path}"), Some(&document)).await;
            assert!(changed.status() < 300, "{case}: {}", changed.text());
            let granted = two.refresh_token().expect("it granted one");
            two.release();
            granted
        };
        let (page, granted) = tokio::join!(async { person.opens(&url).continues().await }, changing);
        assert_eq!(page.status, 410, "{case}: {}", page.text());

        let revoked = two.hears(1, Endpoint::Revoke).await;
        let heard: Vec<_> = revoked.iter().map(|heard| (heard.parameter("token"), heard.client.clone())).collect();
        let granted_to = Some(("alpha".to_owned(), "a-secret-of-20-chars!".to_owned()));
        assert_eq!(heard, [(Some(granted.as_str()), granted_to)], "{case}: where it was granted, and as who it was granted to");
        for endpoint in [Endpoint::Token, Endpoint::Revoke, Endpoint::Introspect, Endpoint::Resource] {
            assert!(other.heard(endpoint).is_empty(), "{case}: {endpoint:?} of another place heard something");
        }
        assert_eq!(alpha.audit("action=handshake.failed").await.len(), 1, "{case}");
    }
}
