//! Two instances that share no secret: one signs who it is (`private_key_jwt`), the other knows its public key.

use std::time::Duration;

use serde_json::{Value, json};

use super::world::World;
use super::world::patience::eventually;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn calls_well(world: &World) {
    let answer = world.alpha.calls(&world.beta, "/orders").await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

/// The `kid`s that alpha publishes.
async fn published(world: &World) -> Vec<String> {
    let url = world.alpha.shows("ob-app", "beta").await["jwks_uri"].as_str().expect("it has a key").to_owned();
    let path = url.strip_prefix(&world.alpha.settings.url()).expect("it is alpha's").to_owned();
    let answer = world.alpha.is_asked("GET", &path, &[], "").await;
    assert_eq!((answer.status(), answer.header("content-type")), (200, Some("application/jwk-set+json")), "{}", answer.text());
    let keys: Value = answer.json();
    assert!(!answer.text().contains("\"d\""), "nothing private");
    keys["keys"].as_array().expect("keys").iter().map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect()
}

#[tokio::test]
async fn c11_a_link_without_a_secret_is_made_renewed_and_ended_by_signatures() {
    let mut world = World::new().await;
    let theirs = world.introduces_by_key(false, json!({})).await;
    assert_eq!((theirs["auth_method"].as_str(), theirs["client_secret"].as_str()), (Some("private_key_jwt"), None));
    let ours = world.alpha.shows("ob-app", "beta").await;
    assert_eq!((ours["auth_method"].as_str(), &ours["has_secret"]), (Some("private_key_jwt"), &json!(false)));
    assert_eq!(ours["client_id"], ours["id"], "its name is ours to choose");
    world.links().await;
    calls_well(&world).await;

    world.alpha.acts("peer", "beta", "refresh", json!({})).await;
    calls_well(&world).await;
    world.alpha.restarts().await;
    world.alpha.acts("peer", "beta", "refresh", json!({})).await;
    calls_well(&world).await;

    let unlinked = world.alpha.acts("peer", "beta", "unlink", json!({})).await;
    assert_eq!((unlinked["revoked"].as_bool(), unlinked["revocation"].as_str()), (Some(true), Some("revoked")));
}

#[tokio::test]
async fn c12_a_new_key_is_seen_at_its_url_before_it_signs() {
    let mut world = World::new().await;
    let authority = world.alpha.settings.authority();
    world.beta.settings.says("trust.toml", &format!("[trust]\nca = [{authority:?}]\n"));
    world.beta.restarts().await;
    world.introduces_by_key(true, json!({})).await;
    world.links().await;
    let first = published(&world).await;
    assert_eq!(first.len(), 1);

    let rotated = world.alpha.acts("ob-app", "beta", "rotate-key", json!({ "overlap": 3600 })).await;
    assert!(rotated["next_key_from"].is_string(), "{rotated}");
    let both = published(&world).await;
    assert_eq!((both.len(), &both[0]), (2, &first[0]));
    world.alpha.acts("peer", "beta", "refresh", json!({})).await;
    assert_eq!(world.alpha.state_of("beta").await, "linked", "a rotation ends no link");
    world.clock.advance(Duration::from_secs(3600));
    world.alpha.acts("peer", "beta", "refresh", json!({})).await;
    calls_well(&world).await;
    world.clock.advance(Duration::from_secs(300));
    assert_eq!(published(&world).await, both[1..]);

    // At once, as when the key may have leaked; across a restart.
    world.alpha.acts("ob-app", "beta", "rotate-key", json!({ "overlap": 0 })).await;
    world.clock.advance(Duration::from_secs(10));
    world.alpha.restarts().await;
    world.alpha.acts("peer", "beta", "refresh", json!({})).await;
    calls_well(&world).await;
}

#[tokio::test]
async fn c11_a_revocation_is_signed_on_the_day_that_it_is_delivered() {
    let mut world = World::new().await;
    let authority = world.alpha.settings.authority();
    world.beta.settings.says("trust.toml", &format!("[trust]\nca = [{authority:?}]\n"));
    world.beta.restarts().await;
    world.introduces_by_key(true, json!({})).await;
    world.links().await;
    let client = world.alpha.shows("ob-app", "beta").await;
    let path = format!("/oauth/jwks/{}", client["id"].as_str().expect("an id"));
    world.beta.stops().await;
    let unlinked = world.alpha.acts("peer", "beta", "unlink", json!({})).await;
    assert_eq!(unlinked["revocation"], "waiting");
    // Peer and OB app go meanwhile, and the key with them, but for what still waits.
    for (kind, name) in [("peer", "beta"), ("ob-app", "beta")] {
        let deleted = world.alpha.asks("DELETE", &format!("/v2/tenants/default/{kind}s/{name}"), None).await;
        assert!(deleted.status() < 300, "{}", deleted.text());
    }
    assert_eq!(world.alpha.is_asked("GET", &path, &[], "").await.status(), 200);
    world.clock.advance(DAY);
    world.beta.starts().await;
    eventually("the grant to be revoked", async || {
        world.clock.advance(Duration::from_secs(1));
        world.beta.lists("grant").await.is_empty().then_some(())
    })
    .await;
    eventually("the key to go", async || (world.alpha.is_asked("GET", &path, &[], "").await.status() == 404).then_some(())).await;
}

#[tokio::test]
async fn c11_an_app_says_what_it_cannot_be() {
    let world = World::new().await;
    let refused = async |attributes: Value| {
        let mut wanted = json!({ "name": "app", "client_id": "x", "issuer": world.beta.settings.url(), "scopes": ["p2pi"] });
        for (name, value) in attributes.as_object().into_iter().flatten() {
            wanted[name] = value.clone();
        }
        let document = json!({ "data": { "type": "ob-app", "attributes": wanted } });
        let answer = world.alpha.asks("POST", "/v2/tenants/default/ob-apps", Some(&document)).await;
        assert_eq!(answer.status(), 400, "{}", answer.text());
        answer.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    };
    let secret = "a-secret-of-20-chars!";
    assert_eq!(refused(json!({ "auth_method": "private_key_jwt", "client_secret": secret })).await, "bad_attribute");
    assert_eq!(refused(json!({ "auth_method": "none", "client_secret": secret })).await, "bad_attribute");
    assert_eq!(refused(json!({ "auth_method": "client_secret_post" })).await, "missing_attribute");
    assert_eq!(refused(json!({ "auth_method": "tls_client_auth" })).await, "bad_attribute");

    // What had a secret signs when it is told to, and keeps no secret.
    let wanted = json!({ "name": "app", "client_id": "x", "issuer": world.beta.settings.url(), "client_secret": secret });
    let app = world.alpha.creates("ob-app", wanted).await;
    assert_eq!((app["has_secret"].as_bool(), &app["jwks_uri"]), (Some(true), &Value::Null));
    let app = world.alpha.changes("ob-app", "app", json!({ "auth_method": "private_key_jwt" })).await;
    assert_eq!((app["has_secret"].as_bool(), app["jwks"]["keys"].as_array().map(Vec::len)), (Some(false), Some(1)));
    let kept = world.alpha.changes("ob-app", "app", json!({ "scopes": ["p2pi"] })).await;
    assert_eq!(kept["jwks"], app["jwks"], "a key stays");
}
