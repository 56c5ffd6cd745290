//! G6: tokens that are bound to a key (DPoP), at the token endpoint and at the gateway. What is stolen without the key is useless.

use std::time::Duration;

use serde_json::{Value, json};

use super::{is_accepted, refused};
use crate::calls::reads_until;
use crate::world::World;
use crate::world::client::{Client, Tokens};
use crate::world::key_holder::{Holder, hash_of, presents, redeeming};
use crate::world::message::Message;
use crate::world::patience::eventually;
use crate::world::settings::request;
use crate::world::wire::Wire;

/// An app whose tokens are bound, and its first pair, bound to `holder`'s key.
async fn bound(world: &mut World, holder: &Holder, attributes: Value) -> (Client, Tokens) {
    let mut wanted = json!({ "dpop": true });
    for (name, value) in attributes.as_object().into_iter().flatten() {
        wanted[name] = value.clone();
    }
    let client = Client::registered_with(&world.beta, "shop", wanted).await;
    let code = client.code(&world.beta, &mut world.operator).await;
    let answer = holder.proves(world, "/oauth/token", &redeeming(&code, &client.redirect_uri), Some((&client.id, &client.secret))).await;
    assert_eq!(answer.json()["token_type"], "DPoP", "{}", answer.text());
    (client, Tokens::of(&answer))
}

/// The nonce that the gateway asks for.
async fn nonce(world: &World, holder: &Holder, token: &str) -> String {
    let asked = holder.calls(world, token, json!({})).await;
    assert_eq!((asked.status(), asked.header("p2pi-error")), (401, Some("use_dpop_nonce")), "{}", asked.text());
    let challenge = asked.header("www-authenticate").unwrap_or_default();
    assert!(challenge.starts_with("DPoP ") && challenge.contains("error=\"use_dpop_nonce\"") && challenge.contains("ES256"), "{challenge}");
    asked.header("dpop-nonce").expect("a nonce").to_owned()
}

/// Waits until each of the actions has its row, told of the grant.
async fn is_in_the_audit(world: &World, actions: &[&str]) {
    for action in actions {
        eventually(&format!("a row of {action}"), async || {
            let rows = "SELECT count(*) FROM audit WHERE action = ?1 AND outcome = 'refused' AND record_kind = 'grant'";
            let count: i64 = world.beta.settings.reads_database().query_row(rows, [action], |row| row.get(0)).expect("it counts");
            (count == 1).then_some(())
        })
        .await;
    }
}

fn is_refused(answer: &Message) {
    assert_eq!((answer.status(), answer.header("p2pi-error")), (401, Some("invalid_token")), "{}", answer.text());
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    assert!(challenge.contains("DPoP ") || challenge.contains("Bearer "), "{challenge}");
}

#[tokio::test]
async fn g6_a_stolen_token_is_useless_without_its_key_with_another_and_with_a_proof_that_was_used() {
    let mut world = World::new().await;
    let (holder, thief) = (Holder::new(), Holder::new());
    let (client, tokens) = bound(&mut world, &holder, json!({})).await;
    let token = tokens.access.as_str();
    let nonce = nonce(&world, &holder, token).await;
    let fresh = || json!({ "nonce": nonce });

    is_refused(&presents(&world, "Bearer", token, None).await);
    is_refused(&presents(&world, "DPoP", token, None).await);
    is_refused(&thief.calls(&world, token, fresh()).await);
    let proof = holder.proof(&world, "GET", "/p2pi/orders", json!({ "nonce": nonce, "ath": hash_of(token) }));
    is_refused(&presents(&world, "Bearer", token, Some(&proof)).await);
    assert!(world.beta.application.received().is_empty());
    assert_eq!(presents(&world, "DPoP", token, Some(&proof)).await.status(), 200);
    is_refused(&presents(&world, "DPoP", token, Some(&proof)).await);
    is_in_the_audit(&world, &["proof.replayed", "token.without_its_key"]).await;

    for changes in [
        json!({ "htm": "POST" }),
        json!({ "htu": format!("{}/p2pi/other", world.beta.settings.url()) }),
        json!({ "htu": format!("{}/p2pi/orders", world.alpha.settings.url()) }),
        json!({ "ath": hash_of("another") }),
        json!({ "ath": null }),
        json!({ "jti": null }),
        json!({ "iat": 1 }),
    ] {
        let mut claims = fresh();
        claims.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
        is_refused(&holder.calls(&world, token, claims).await);
    }
    let twice =
        format!("{}\r\nDPoP: {}", proof, holder.proof(&world, "GET", "/p2pi/orders", json!({ "nonce": nonce, "ath": hash_of(token) })));
    is_refused(&presents(&world, "DPoP", token, Some(&twice)).await);
    assert_eq!(world.beta.application.received().len(), 1, "the application saw the one good call");
    let seen = world.beta.application.received();
    assert!(!seen[0].headers.contains_key("dpop") && !seen[0].headers.contains_key("authorization"));
    let looked = client.introspects(&world.beta, token).await.json();
    assert_eq!(looked["cnf"]["jkt"], holder.key.public().thumbprint().to_string());
    assert_eq!(looked["token_type"], "DPoP");
}

#[tokio::test]
async fn g6_a_proof_from_before_a_restart_is_no_good_after_it() {
    let mut world = World::new().await;
    let holder = Holder::new();
    let (_, tokens) = bound(&mut world, &holder, json!({})).await;
    let nonce = nonce(&world, &holder, &tokens.access).await;
    let used = holder.proof(&world, "GET", "/p2pi/orders", json!({ "nonce": nonce, "ath": hash_of(&tokens.access) }));
    assert_eq!(presents(&world, "DPoP", &tokens.access, Some(&used)).await.status(), 200);
    world.beta.restarts().await;
    let again = presents(&world, "DPoP", &tokens.access, Some(&used)).await;
    assert_eq!((again.status(), again.header("p2pi-error")), (401, Some("use_dpop_nonce")));
    let next = json!({ "nonce": again.header("dpop-nonce").expect("a nonce") });
    assert_eq!(holder.calls(&world, &tokens.access, next).await.status(), 200);
}

#[tokio::test]
async fn g6_a_nonce_is_renewed_in_good_time_without_a_refusal() {
    let mut world = World::new().await;
    let holder = Holder::new();
    let (_, tokens) = bound(&mut world, &holder, json!({})).await;
    let first = nonce(&world, &holder, &tokens.access).await;
    assert_eq!(holder.calls(&world, &tokens.access, json!({ "nonce": first })).await.header("dpop-nonce"), None);
    world.clock.advance(Duration::from_secs(301));
    let answer = holder.calls(&world, &tokens.access, json!({ "nonce": first })).await;
    let second = answer.header("dpop-nonce").expect("the next nonce").to_owned();
    assert_eq!(answer.status(), 200);
    world.clock.advance(Duration::from_secs(301));
    assert_eq!(holder.calls(&world, &tokens.access, json!({ "nonce": first })).await.header("p2pi-error"), Some("use_dpop_nonce"));
    assert_eq!(holder.calls(&world, &tokens.access, json!({ "nonce": second })).await.status(), 200);
}

#[tokio::test]
async fn g6_the_token_endpoint_asks_for_a_nonce_and_uses_nothing_up_meanwhile() {
    let mut world = World::new().await;
    let holder = Holder::new();
    let (client, tokens) = bound(&mut world, &holder, json!({})).await;
    let basic = Some((client.id.as_str(), client.secret.as_str()));
    let form = [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.as_str())];
    let asked = holder.posts(&world, "/oauth/token", &form, basic, json!({})).await;
    refused(&asked, 400, "use_dpop_nonce");
    let nonce = asked.header("dpop-nonce").expect("a nonce").to_owned();
    refused(&client.refreshes(&world.beta, &tokens.refresh).await, 400, "invalid_dpop_proof");
    for changes in
        [json!({ "htm": "GET" }), json!({ "htu": "https://other.example/oauth/token" }), json!({ "iat": 1 }), json!({ "jti": null })]
    {
        let mut claims = json!({ "nonce": nonce });
        claims.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
        refused(&holder.posts(&world, "/oauth/token", &form, basic, claims).await, 400, "invalid_dpop_proof");
    }
    let jti = json!({ "nonce": nonce, "jti": "the same" });
    let next = Tokens::of(&holder.posts(&world, "/oauth/token", &form, basic, jti.clone()).await);
    refused(&holder.posts(&world, "/oauth/token", &form, basic, jti).await, 400, "invalid_dpop_proof");
    // A retry of a lost answer asks for the same key; another key is another request.
    let again = holder.posts(&world, "/oauth/token", &form, basic, json!({ "nonce": nonce })).await;
    assert_eq!(Tokens::of(&again), next);
    let other = Holder::new().posts(&world, "/oauth/token", &form, basic, json!({ "nonce": nonce })).await;
    refused(&other, 400, "invalid_request");
    // What authenticates may change its key with the next refresh (RFC 9449 §5).
    let (changed, form) = (Holder::new(), [form[0], ("refresh_token", next.refresh.as_str())]);
    let third = Tokens::of(&changed.posts(&world, "/oauth/token", &form, basic, json!({ "nonce": nonce })).await);
    assert_eq!(changed.calls(&world, &third.access, json!({ "nonce": nonce })).await.status(), 200);
    is_refused(&holder.calls(&world, &third.access, json!({ "nonce": nonce })).await);
}

#[tokio::test]
async fn g6_the_refresh_token_of_an_app_without_a_secret_is_bound_to_its_key() {
    let mut world = World::new().await;
    let (holder, thief) = (Holder::new(), Holder::new());
    let redirect_uri = "https://phone.example/done";
    let wanted = json!({ "name": "phone", "scopes": ["p2pi"], "redirect_uris": [redirect_uri], "auth_method": "none", "dpop": true });
    let app = world.beta.creates("ib-app", wanted).await;
    let id = app["client_id"].as_str().expect("an id").to_owned();
    let client = Client { id: id.clone(), secret: String::new(), redirect_uri: redirect_uri.to_owned() };
    // The code is bound to the key by the request already (RFC 9449 §10).
    let authorize = client.authorize(&world.beta).with("dpop_jkt", &holder.key.public().thumbprint().to_string()).url();
    let redeem = async |world: &mut World, by: &Holder| {
        let code = world.operator.decides(&authorize, "allow").await.parameter("code").expect("a code");
        let mut form = redeeming(&code, redirect_uri).to_vec();
        form.push(("client_id", id.as_str()));
        by.proves(world, "/oauth/token", &form, None).await
    };
    refused(&redeem(&mut world, &thief).await, 400, "invalid_grant");
    let tokens = Tokens::of(&redeem(&mut world, &holder).await);
    let form = [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.as_str()), ("client_id", id.as_str())];
    refused(&thief.proves(&world, "/oauth/token", &form, None).await, 400, "invalid_grant");
    let next = Tokens::of(&holder.proves(&world, "/oauth/token", &form, None).await);
    assert_ne!(next.refresh, tokens.refresh, "the thief's attempt was no use of it");
}

#[tokio::test]
async fn g6_who_shows_a_key_unasked_gets_a_bound_token_and_others_go_on_as_before() {
    let mut world = World::new().await;
    let holder = Holder::new();
    let client = Client::registered(&world.beta, "shop").await;
    let plain = client.tokens(&world.beta, &mut world.operator).await;
    assert!(is_accepted(&world, &plain.access).await);
    is_refused(&presents(&world, "DPoP", &plain.access, None).await);
    let code = client.code(&world.beta, &mut world.operator).await;
    let form = redeeming(&code, &client.redirect_uri);
    let tokens = Tokens::of(&holder.proves(&world, "/oauth/token", &form, Some((&client.id, &client.secret))).await);
    assert!(!is_accepted(&world, &tokens.access).await);
    let nonce = nonce(&world, &holder, &tokens.access).await;
    assert_eq!(holder.calls(&world, &tokens.access, json!({ "nonce": nonce })).await.status(), 200);
}

#[tokio::test]
async fn g6_tokens_from_before_their_app_had_to_bind_them_open_nothing_and_their_streams_end() {
    let mut world = World::new().await;
    let holder = Holder::new();
    let grants = json!({ "grants": ["authorization_code", "refresh_token", "client_credentials"] });
    let client = Client::registered_with(&world.beta, "shop", grants).await;
    let plain = client.tokens(&world.beta, &mut world.operator).await;
    let alone = client.asks(&world.beta, &[("grant_type", "client_credentials")]).await.json();
    let alone = alone["access_token"].as_str().expect("a token").to_owned();
    let form = [("grant_type", "client_credentials")];
    let bound = holder.proves(&world, "/oauth/token", &form, Some((&client.id, &client.secret))).await.json();
    let bound = bound["access_token"].as_str().expect("a token").to_owned();
    let nonce = nonce(&world, &holder, &bound).await;
    let mut streams = Vec::new();
    for (scheme, token) in [("Bearer", &plain.access), ("Bearer", &alone), ("DPoP", &bound)] {
        let mut wire = Wire::tls(world.beta.settings.public, &world.beta.settings.authority()).await;
        let proof = holder.proof(&world, "GET", "/p2pi/events", json!({ "ath": hash_of(token), "nonce": nonce }));
        let headers = [("Authorization", &*format!("{scheme} {token}")), ("DPoP", &*proof)];
        wire.sends(request("GET", "/p2pi/events", &world.beta.settings.public.to_string(), &headers, "")).await;
        reads_until(&mut wire, "data: event 1\n").await;
        streams.push(wire);
    }

    world.beta.changes("ib-app", "shop", json!({ "dpop": true })).await;
    let mut kept = streams.pop().expect("the stream of the bound token");
    for mut ended in streams {
        ended.ends().await;
    }
    reads_until(&mut kept, "data: event ").await;
    for token in [&plain.access, &alone] {
        for scheme in ["Bearer", "DPoP"] {
            let refused = presents(&world, scheme, token, None).await;
            is_refused(&refused);
            assert!(refused.text().contains("bound to nothing"), "{}", refused.text());
        }
        assert_eq!(client.introspects(&world.beta, token).await.json(), json!({ "active": false }));
    }
    assert_eq!(client.introspects(&world.beta, &bound).await.json()["active"], true);
    assert_eq!(holder.calls(&world, &bound, json!({ "nonce": nonce })).await.status(), 200);

    // It need not link again: a refresh that shows the key brings a token that is bound, and one that does not brings nothing.
    refused(&client.refreshes(&world.beta, &plain.refresh).await, 400, "invalid_dpop_proof");
    let form = [("grant_type", "refresh_token"), ("refresh_token", plain.refresh.as_str())];
    let next = Tokens::of(&holder.proves(&world, "/oauth/token", &form, Some((&client.id, &client.secret))).await);
    assert_eq!(holder.calls(&world, &next.access, json!({ "nonce": nonce })).await.status(), 200);
    world.beta.changes("ib-app", "shop", json!({ "dpop": false })).await;
    assert!(is_accepted(&world, &alone).await, "it is taken back");
}
