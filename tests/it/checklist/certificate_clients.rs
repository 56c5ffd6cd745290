//! G7: clients that authenticate by their certificate (RFC 8705 §2), one that an authority signed or one that they registered.

use std::time::Duration;

use serde_json::{Value, json};

use super::keys_at_a_url::Published;
use super::refused;
use crate::config_keys::says;
use crate::world::World;
use crate::world::certificates::{Authority, Identity, named, until};
use crate::world::client::{Client, Tokens};
use crate::world::key_holder::{Holder, encoded, redeeming};
use crate::world::message::Message;
use p2pid::clock::Clock;

/// Both daemons believe `authority` when it signs for clients.
async fn world_of(authority: &Authority) -> World {
    World::with_client_authority(&authority.pem()).await
}

async fn asks(world: &World, identity: &Identity, id: &str) -> Message {
    identity.posts(&world.beta, "/oauth/token", &[("grant_type", "client_credentials"), ("client_id", id)], None).await
}

async fn app(world: &World, attributes: Value) -> String {
    let mut wanted = json!({ "name": "shop", "grants": ["client_credentials"], "scopes": ["p2pi"], "mtls": true });
    wanted.as_object_mut().expect("an object").extend(attributes.as_object().expect("an object").clone());
    let app = world.beta.creates("ib-app", wanted).await;
    assert_eq!(app["client_secret"], Value::Null, "it has no secret: {app}");
    app["client_id"].as_str().expect("an id").to_owned()
}

fn access(answer: &Message) -> String {
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()["access_token"].as_str().expect("a token").to_owned()
}

#[tokio::test]
async fn g7_a_certificate_of_the_authority_with_the_registered_name_is_the_client() {
    let (authority, stranger) = (Authority::new("clients"), Authority::new("clients"));
    let world = world_of(&authority).await;
    let id = app(&world, json!({ "tls_client_auth_subject_dn": "CN=shop" })).await;
    let shown = world.beta.shows("ib-app", "shop").await;
    let expected = (&json!("tls_client_auth"), &json!("CN=shop"), &Value::Null);
    assert_eq!((&shown["auth_method"], &shown["tls_client_auth_subject_dn"], &shown["tls_client_auth_san_dns"]), expected);
    let own = authority.signs(&named("shop"));
    let token = access(&asks(&world, &own, &id).await);
    assert_eq!(own.calls(&world.beta, &token).await.status(), 200);

    let mut server = named("shop");
    server.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let expired = until(named("shop"), world.clock.now().wall.minus(Duration::from_secs(60)));
    for wrong in [
        authority.signs(&named("other")),
        stranger.signs(&named("shop")),
        Identity::self_signed(&named("shop")),
        authority.signs(&server),
        authority.signs(&expired),
    ] {
        refused(&asks(&world, &wrong, &id).await, 401, "invalid_client");
    }
    refused(&asks(&world, &own, "nobody").await, 401, "invalid_client");
    let form = [("grant_type", "client_credentials"), ("client_id", id.as_str())];
    let kind = [("Content-Type", "application/x-www-form-urlencoded")];
    refused(&world.beta.is_asked("POST", "/oauth/token", &kind, &encoded(&form)).await, 401, "invalid_client");
    let secret = [&form[..], &[("client_secret", "x")]].concat();
    refused(&own.posts(&world.beta, "/oauth/token", &secret, None).await, 401, "invalid_client");
    // An authority that the known one stands behind comes along.
    let behind = authority.stands_behind("regional").signs(&named("shop"));
    access(&asks(&world, &behind, &id).await);

    // Another certificate of the same name is the same client; what was bound to the one before stays so.
    let next = authority.signs(&named("shop"));
    let renewed = access(&asks(&world, &next, &id).await);
    assert_eq!(next.calls(&world.beta, &renewed).await.status(), 200);
    assert_eq!((next.calls(&world.beta, &token).await.status(), own.calls(&world.beta, &token).await.status()), (401, 200));
    // Another name, at once.
    world.beta.changes("ib-app", "shop", json!({ "tls_client_auth_san_dns": "shop.example" })).await;
    refused(&asks(&world, &own, &id).await, 401, "invalid_client");
    let mut params = named("whoever");
    params.subject_alt_names = vec![rcgen::SanType::DnsName("shop.example".try_into().expect("ASCII"))];
    access(&asks(&world, &authority.signs(&params), &id).await);
}

#[tokio::test]
async fn g7_authorities_are_replaced_while_it_runs_and_broken_ones_change_nothing() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let world = world_of(&old).await;
    let id = app(&world, json!({ "tls_client_auth_subject_dn": "CN=shop" })).await;
    let (by_old, by_new) = (old.signs(&named("shop")), new.signs(&named("shop")));
    access(&asks(&world, &by_old, &id).await);
    refused(&asks(&world, &by_new, &id).await, 401, "invalid_client");
    let file = world.beta.settings.folder().join("clients-ca.pem");
    std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").expect("a file");
    let reload = json!({ "data": { "type": "reload", "attributes": {} } });
    let answer = world.beta.asks("POST", "/v2/reload", Some(&reload)).await;
    assert!(answer.status() >= 400 && answer.text().contains("clients-ca.pem"), "{}", answer.text());
    access(&asks(&world, &by_old, &id).await);
    std::fs::write(&file, new.pem()).expect("a file");
    says(&world.beta, "").await;
    access(&asks(&world, &by_new, &id).await);
    refused(&asks(&world, &by_old, &id).await, 401, "invalid_client");
    let metadata = world.beta.is_asked("GET", "/.well-known/oauth-authorization-server", &[], "").await.json();
    let methods = metadata["token_endpoint_auth_methods_supported"].to_string();
    assert!(methods.contains("\"tls_client_auth\"") && methods.contains("\"self_signed_tls_client_auth\""), "{methods}");
}

#[tokio::test]
async fn g7_a_certificate_that_was_registered_is_the_client_and_no_other_is() {
    let mut world = World::with_mtls("[limits]\nauth_failures = \"1000/min\"").await;
    let (own, other) = (Identity::self_signed(&named("shop")), Identity::self_signed(&named("shop")));
    let id = app(&world, json!({ "auth_method": "self_signed_tls_client_auth", "jwks": own.jwks() })).await;
    let token = access(&asks(&world, &own, &id).await);
    assert_eq!(own.calls(&world.beta, &token).await.status(), 200);
    refused(&asks(&world, &other, &id).await, 401, "invalid_client");
    world.beta.restarts().await;
    world.beta.changes("ib-app", "shop", json!({ "jwks": other.jwks() })).await;
    refused(&asks(&world, &own, &id).await, 401, "invalid_client");
    access(&asks(&world, &other, &id).await);
    assert_eq!(world.beta.shows("ib-app", "shop").await["auth_method"], "self_signed_tls_client_auth");
}

#[tokio::test]
async fn g7_k4_a_certificate_that_a_client_shows_at_its_url_is_the_client_and_its_next_one_is_found_there() {
    let world = World::with_mtls("[limits]\nauth_failures = \"1000/min\"").await;
    let published = Published::new().await;
    let (old, new, stranger) =
        (Identity::self_signed(&named("shop")), Identity::self_signed(&named("shop")), Identity::self_signed(&named("shop")));
    published.shows(200, &old.jwks());
    let id = app(&world, json!({ "auth_method": "self_signed_tls_client_auth", "jwks_uri": published.url })).await;
    let shown = world.beta.shows("ib-app", "shop").await;
    assert_eq!((&shown["auth_method"], &shown["jwks_uri"]), (&json!("self_signed_tls_client_auth"), &json!(published.url)));
    let token = access(&asks(&world, &old, &id).await);
    assert_eq!((old.calls(&world.beta, &token).await.status(), stranger.calls(&world.beta, &token).await.status()), (200, 401));
    for _ in 0..5 {
        refused(&asks(&world, &stranger, &id).await, 401, "invalid_client");
    }
    assert_eq!(published.looks(), 1, "unknown certificates make no looks");
    // What is shown there besides, as keys without a certificate, makes nobody a client.
    let mut bare = stranger.jwks();
    bare["keys"][0].as_object_mut().expect("a key").remove("x5c");
    let keys = json!([new.jwks()["keys"][0], bare["keys"][0]]);
    published.shows(200, &json!({ "keys": keys }));
    world.clock.advance(Duration::from_secs(10));
    let token = access(&asks(&world, &new, &id).await);
    assert_eq!(new.calls(&world.beta, &token).await.status(), 200);
    assert_eq!(published.looks(), 2);
    for gone in [&old, &stranger] {
        refused(&asks(&world, gone, &id).await, 401, "invalid_client");
    }
}

#[tokio::test]
async fn g7_by_the_fapi2_profile_a_certificate_takes_the_place_of_signatures_and_proofs() {
    let authority = Authority::new("clients");
    let mut world = world_of(&authority).await;
    let redirect_uri = "https://shop.example/done";
    let wanted = json!({
        "name": "shop", "scopes": ["p2pi"], "redirect_uris": [redirect_uri], "profile": "fapi2", "mtls": true,
        "tls_client_auth_subject_dn": "CN=shop",
    });
    let made = world.beta.creates("ib-app", wanted).await;
    assert_eq!((&made["dpop"], &made["mtls"], &made["require_par"]), (&json!(false), &json!(true), &json!(true)));
    let id = made["client_id"].as_str().expect("an id").to_owned();
    let (own, thief) = (authority.signs(&named("shop")), authority.signs(&named("thief")));
    let client = Client { id: id.clone(), secret: String::new(), redirect_uri: redirect_uri.to_owned() };
    let authorize = url::Url::parse(&client.authorize(&world.beta).url()).expect("a URL");
    let pushed: Vec<(String, String)> = authorize.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let pushed: Vec<(&str, &str)> = pushed.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    refused(&thief.posts(&world.beta, "/oauth/par", &pushed, None).await, 401, "invalid_client");
    let answer = own.posts(&world.beta, "/oauth/par", &pushed, None).await;
    assert_eq!(answer.status(), 201, "{}", answer.text());
    let reference = answer.json()["request_uri"].as_str().expect("a reference").to_owned();
    let query = encoded(&[("client_id", id.as_str()), ("request_uri", &reference)]);
    let url = format!("{}/oauth/authorize?{query}", world.beta.settings.url());
    let code = world.operator.decides(&url, "allow").await.parameter("code").expect("a code");
    let form = [&redeeming(&code, redirect_uri)[..], &[("client_id", id.as_str())]].concat();
    refused(&thief.posts(&world.beta, "/oauth/token", &form, None).await, 401, "invalid_client");
    let tokens = Tokens::of(&own.posts(&world.beta, "/oauth/token", &form, None).await);
    assert_eq!(
        (own.calls(&world.beta, &tokens.access).await.status(), thief.calls(&world.beta, &tokens.access).await.status()),
        (200, 401)
    );
    let form = [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.as_str()), ("client_id", id.as_str())];
    let next = authority.signs(&named("shop"));
    let renewed = Tokens::of(&next.posts(&world.beta, "/oauth/token", &form, None).await);
    assert_eq!(renewed.refresh, tokens.refresh, "it stays");
    assert_eq!(next.calls(&world.beta, &renewed.access).await.status(), 200);
}

#[tokio::test]
async fn g7_a_proxy_hands_on_the_chain_too() {
    let authority = Authority::new("clients");
    let world = world_of(&authority).await;
    says(&world.beta, "[mtls]\nclient_cert_header = true\n[public]\ntrusted_proxies = [\"127.0.0.0/8\"]").await;
    let id = app(&world, json!({ "tls_client_auth_subject_dn": "CN=shop" })).await;
    let own = authority.stands_behind("regional").signs(&named("shop"));
    let headers = own.headers();
    let form = encoded(&[("grant_type", "client_credentials"), ("client_id", id.as_str())]);
    for (count, is_known) in [(2, true), (1, false)] {
        let mut sent = vec![("Content-Type", "application/x-www-form-urlencoded")];
        sent.extend(headers[..count].iter().map(|(name, value)| (*name, value.as_str())));
        let answer = world.beta.is_asked("POST", "/oauth/token", &sent, &form).await;
        assert_eq!(answer.status() == 200, is_known, "{count}: {}", answer.text());
    }
}

#[tokio::test]
async fn g7_what_contradicts_itself_or_the_configuration_is_not_registered() {
    let world = World::with_mtls("").await;
    let own = Identity::self_signed(&named("shop"));
    let signer = Holder::new().jwks();
    let name = json!("CN=shop");
    let registers = async |world: &World, attributes: Value| {
        let mut wanted = json!({ "name": "shop", "grants": ["client_credentials"], "scopes": ["p2pi"] });
        wanted.as_object_mut().expect("an object").extend(attributes.as_object().expect("an object").clone());
        let document = json!({ "data": { "type": "ib-app", "attributes": wanted } });
        world.beta.asks("POST", "/v2/tenants/default/ib-apps", Some(&document)).await
    };
    for (attributes, status) in [
        (json!({ "mtls": true, "dpop": true }), 422),
        (json!({ "auth_method": "self_signed_tls_client_auth" }), 422),
        (json!({ "auth_method": "self_signed_tls_client_auth", "jwks": signer }), 422),
        (json!({ "auth_method": "self_signed_tls_client_auth", "jwks": own.jwks(), "tls_client_auth_subject_dn": name }), 400),
        (json!({ "tls_client_auth_subject_dn": name }), 400),
        (json!({ "auth_method": "tls_client_auth" }), 400),
    ] {
        let answer = registers(&world, attributes.clone()).await;
        assert_eq!(answer.status(), status, "{attributes}: {}", answer.text());
    }
    let authority = Authority::new("clients");
    let with_authority = world_of(&authority).await;
    for (attributes, status) in [
        (json!({ "auth_method": "tls_client_auth" }), 422),
        (json!({ "auth_method": "client_secret", "tls_client_auth_subject_dn": name }), 422),
        (json!({ "tls_client_auth_subject_dn": name, "tls_client_auth_san_dns": "shop.example" }), 400),
        (json!({ "tls_client_auth_subject_dn": "shop" }), 400),
        (json!({ "tls_client_auth_san_ip": "shop" }), 400),
    ] {
        let answer = registers(&with_authority, attributes.clone()).await;
        assert_eq!(answer.status(), status, "{attributes}: {}", answer.text());
    }
    let without = World::new().await;
    for attributes in [json!({ "mtls": true }), json!({ "auth_method": "self_signed_tls_client_auth", "jwks": own.jwks() })] {
        let answer = registers(&without, attributes).await;
        assert!(answer.status() == 400 && answer.text().contains("[mtls] listen"), "{}", answer.text());
    }
}
