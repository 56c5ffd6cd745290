//! How clients authenticate, and what they get for themselves: `private_key_jwt`, no authentication at all, client credentials, resources.

use std::time::Duration;

use serde_json::json;

use super::{granted_with, is_accepted, refused};
use crate::world::World;
use crate::world::client::{Client, Tokens, VERIFIER};
use crate::world::key_holder::{Holder, encoded};
use crate::world::message::Message;

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
const OTHER: &str = "[scopes]\nother = \"Another\"\n";

async fn posts(world: &World, path: &str, form: &[(&str, &str)]) -> Message {
    world.beta.is_asked("POST", path, &[FORM], &encoded(form)).await
}

/// Asks for a token for the client itself, by an assertion.
async fn asserts(world: &World, assertion: &str) -> Message {
    let form = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion),
    ];
    posts(world, "/oauth/token", &form).await
}

async fn signing_app(world: &World, holder: &Holder) -> String {
    let wanted = json!({
        "name": "signer", "grants": ["client_credentials"], "scopes": ["p2pi"], "auth_method": "private_key_jwt", "jwks": holder.jwks(),
    });
    let app = world.beta.creates("ib-app", wanted).await;
    assert!(app["client_secret"].is_null(), "a client that signs has no secret: {app}");
    app["client_id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn t8_client_credentials_are_the_apps_own_and_end_one_by_one() {
    let world = World::with(OTHER).await;
    let client = Client::registered_with(&world.beta, "shop", json!({ "grants": ["client_credentials"], "access_ttl": 600 })).await;
    let form = [("grant_type", "client_credentials")];
    let answer = client.asks(&world.beta, &form).await;
    let token = answer.json();
    assert_eq!((answer.status(), token["token_type"].as_str(), token["expires_in"].as_u64()), (200, Some("Bearer"), Some(600)));
    assert!(token["refresh_token"].is_null() && token["scope"] == "p2pi", "{token}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let first = token["access_token"].as_str().expect("a token").to_owned();
    let second = client.asks(&world.beta, &form).await.json()["access_token"].as_str().expect("a token").to_owned();
    assert!(is_accepted(&world, &first).await && is_accepted(&world, &second).await);
    let seen = world.beta.application.received();
    assert_eq!(seen[0].headers["p2pi-subject"], client.id.as_str(), "it acts as itself");
    let looked = client.introspects(&world.beta, &first).await.json();
    assert_eq!((looked["active"].as_bool(), looked["sub"].as_str()), (Some(true), Some(client.id.as_str())));

    refused(&client.asks(&world.beta, &[form[0], ("scope", "other")]).await, 400, "invalid_scope");
    refused(&client.asks(&world.beta, &[("grant_type", "refresh_token"), ("refresh_token", "x")]).await, 400, "unauthorized_client");
    let codes = Client::registered(&world.beta, "codes").await;
    refused(&codes.asks(&world.beta, &form).await, 400, "unauthorized_client");
    refused(&codes.revokes(&world.beta, &first).await, 400, "invalid_grant");

    assert_eq!(client.revokes(&world.beta, &first).await.status(), 200);
    assert!(!is_accepted(&world, &first).await && is_accepted(&world, &second).await);
    assert_eq!(client.introspects(&world.beta, &first).await.text(), r#"{"active":false}"#);
    assert_eq!(client.revokes(&world.beta, &first).await.status(), 200, "a second time");
    world.clock.advance(Duration::from_secs(601));
    assert!(!is_accepted(&world, &second).await);
}

#[tokio::test]
async fn t8_the_own_tokens_of_an_app_outlive_a_restart_and_end_with_the_app() {
    let mut world = World::new().await;
    let client = Client::registered_with(&world.beta, "shop", json!({ "grants": ["client_credentials"] })).await;
    let token = async |world: &World| {
        let answer = client.asks(&world.beta, &[("grant_type", "client_credentials")]).await;
        answer.json()["access_token"].as_str().expect("a token").to_owned()
    };
    let first = token(&world).await;
    world.beta.restarts().await;
    assert!(is_accepted(&world, &first).await, "a restart ends nothing");
    let answer = world.beta.asks("DELETE", "/v2/tenants/default/ib-apps/shop", None).await;
    assert_eq!(answer.status(), 204, "{}", answer.text());
    assert!(!is_accepted(&world, &first).await);
}

#[tokio::test]
async fn t10_a_token_is_for_this_instance_or_there_is_none() {
    let (world, client, tokens) = granted_with("").await;
    let base = world.beta.settings.url();
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.as_str())];
    refused(&client.asks(&world.beta, &[refresh[0], refresh[1], ("resource", "https://other.example")]).await, 400, "invalid_target");
    let ours = format!("{base}/p2pi");
    let answer = client.asks(&world.beta, &[refresh[0], refresh[1], ("resource", &base), ("resource", &ours)]).await;
    let next = Tokens::of(&answer);
    assert_eq!(client.introspects(&world.beta, &next.access).await.json()["aud"], base.as_str());

    let mut person = world.operator;
    let led = person.decides(&client.authorize(&world.beta).with("resource", "https://other.example").url(), "allow").await;
    assert_eq!(led.parameter("error").as_deref(), Some("invalid_target"));
    let led = person.decides(&client.authorize(&world.beta).with("resource", &base).url(), "allow").await;
    assert!(led.parameter("code").is_some(), "{}", led.url);
}

#[tokio::test]
async fn t13_an_assertion_is_used_once_also_after_a_restart() {
    let mut world = World::new().await;
    let holder = Holder::new();
    let id = signing_app(&world, &holder).await;
    let assertion = holder.assertion(&world, &id, json!({}));
    let answer = asserts(&world, &assertion).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    refused(&asserts(&world, &assertion).await, 401, "invalid_client");
    world.beta.restarts().await;
    refused(&asserts(&world, &assertion).await, 401, "invalid_client");

    let later = holder.assertion(&world, &id, json!({}));
    let (one, other) = tokio::join!(asserts(&world, &later), asserts(&world, &later));
    let mut statuses = [one.status(), other.status()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401], "of two at the same time one wins");
}

#[tokio::test]
async fn t13_an_assertion_that_was_used_is_not_good_again_after_a_restore() {
    let mut world = World::new().await;
    let holder = Holder::new();
    let id = signing_app(&world, &holder).await;
    let used = holder.assertion(&world, &id, json!({ "exp": now(&world) + 3000 }));
    let timeless = holder.assertion(&world, &id, json!({ "iat": null, "exp": now(&world) + 3000 }));
    for assertion in [&used, &timeless] {
        assert_eq!(asserts(&world, assertion).await.status(), 200);
    }
    // As a copy that was made earlier has it: without what was used since, and without the epoch beside it.
    let state_dir = world.beta.settings.state_dir();
    let database = rusqlite::Connection::open(state_dir.join("p2pid.db")).expect("the database");
    database.execute("DELETE FROM used_once", []).expect("forgotten");
    drop(database);
    std::fs::remove_file(state_dir.join("epoch")).expect("it was there");
    world.beta.restarts().await;
    // No guess at a key, and no fault of the client's: it is told when to come again.
    let not_yet = async |assertion: &str, wait: std::ops::RangeInclusive<u64>| {
        let answer = asserts(&world, assertion).await;
        refused(&answer, 503, "server_error");
        assert!(answer.text().contains("restored from a backup"), "{}", answer.text());
        let again: u64 = answer.header("retry-after").expect("when to come again").parse().expect("seconds");
        assert!(wait.contains(&again), "{again}");
    };
    not_yet(&used, 30..=40).await;
    not_yet(&timeless, 600..=660).await;
    refused(&asserts(&world, &Holder::new().assertion(&world, &id, json!({}))).await, 401, "invalid_client");
    world.beta.restarts().await;
    world.clock.advance(std::time::Duration::from_secs(60));
    let answer = asserts(&world, &used).await;
    refused(&answer, 503, "server_error");
    let later = asserts(&world, &holder.assertion(&world, &id, json!({}))).await;
    assert_eq!(later.status(), 200, "{}", later.text());
    world.clock.advance(std::time::Duration::from_secs(3600));
    let timeless = holder.assertion(&world, &id, json!({ "iat": null, "exp": now(&world) + 300 }));
    assert_eq!(asserts(&world, &timeless).await.status(), 200, "nothing that lives can be from before");
}

fn now(world: &World) -> i64 {
    p2pid::clock::Clock::now(world.clock.as_ref()).wall.seconds()
}

#[tokio::test]
async fn t13_k2_an_assertion_for_others_of_others_or_without_an_end_is_refused() {
    let world = World::with("[limits]\nauth_failures = \"1000/min\"\n").await;
    let holder = Holder::new();
    let id = signing_app(&world, &holder).await;
    let (base, now) = (world.beta.settings.url(), now(&world));
    for changes in [
        json!({ "aud": format!("{base}/oauth/token") }),
        json!({ "aud": [base] }),
        json!({ "aud": world.alpha.settings.url() }),
        json!({ "aud": null }),
        json!({ "iss": "another" }),
        json!({ "exp": null }),
        json!({ "exp": now - 1 }),
        json!({ "exp": now + 7_200 }),
        json!({ "nbf": now + 61 }),
        json!({ "jti": null }),
    ] {
        let answer = asserts(&world, &holder.assertion(&world, &id, changes.clone())).await;
        refused(&answer, 401, "invalid_client");
        assert!(!answer.text().contains("number-"), "{changes}: {}", answer.text());
    }
    refused(&asserts(&world, &Holder::new().assertion(&world, &id, json!({}))).await, 401, "invalid_client");
    let secret_app = Client::registered_with(&world.beta, "shop", json!({ "grants": ["client_credentials"] })).await;
    refused(&asserts(&world, &holder.assertion(&world, &secret_app.id, json!({}))).await, 401, "invalid_client");
    refused(&asserts(&world, &holder.assertion(&world, "nobody", json!({}))).await, 401, "invalid_client");
    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.";
    refused(&asserts(&world, none).await, 401, "invalid_client");
    // Its own client_id as a secret's owner does not help either.
    let by_secret = [("grant_type", "client_credentials"), ("client_id", id.as_str()), ("client_secret", "x")];
    refused(&posts(&world, "/oauth/token", &by_secret).await, 401, "invalid_client");
    refused(&posts(&world, "/oauth/token", &by_secret[..2]).await, 401, "invalid_client");
    assert_eq!(asserts(&world, &holder.assertion(&world, &id, json!({}))).await.status(), 200);
}

#[tokio::test]
async fn t13_keys_are_replaced_at_once_and_secrets_do_not_outlive_the_method() {
    let world = World::new().await;
    let (old, new) = (Holder::new(), Holder::new());
    let id = signing_app(&world, &old).await;
    world.beta.changes("ib-app", "signer", json!({ "jwks": new.jwks() })).await;
    refused(&asserts(&world, &old.assertion(&world, &id, json!({}))).await, 401, "invalid_client");
    assert_eq!(asserts(&world, &new.assertion(&world, &id, json!({}))).await.status(), 200);

    let client = Client::registered_with(&world.beta, "shop", json!({ "grants": ["client_credentials"] })).await;
    world.beta.changes("ib-app", "shop", json!({ "jwks": new.jwks() })).await;
    let form = [("grant_type", "client_credentials")];
    refused(&client.asks(&world.beta, &form).await, 401, "invalid_client");
    let shown = world.beta.shows("ib-app", "shop").await;
    assert_eq!(shown["secrets"], json!([]), "it signs now");
    let wanted = json!({ "auth_method": "client_secret_basic", "client_secret": "another secret of the client" });
    let shown = world.beta.changes("ib-app", "shop", wanted).await;
    assert_eq!((&shown["jwks"], shown["secrets"].as_array().map(Vec::len)), (&json!(null), Some(1)));
    refused(&client.asks(&world.beta, &form).await, 401, "invalid_client");
    let rotated = world.beta.acts("ib-app", "shop", "rotate-secret", json!({})).await;
    let client = Client { secret: rotated["client_secret"].as_str().expect("a secret").to_owned(), ..client };
    assert_eq!(client.asks(&world.beta, &form).await.status(), 200);
    let posted = [form[0], ("client_id", client.id.as_str()), ("client_secret", client.secret.as_str())];
    refused(&posts(&world, "/oauth/token", &posted).await, 401, "invalid_client");
    let shown = world.beta.shows("ib-app", "shop").await;
    assert!(shown["secrets"][1]["last_used_at"].is_string(), "{shown}");
}

#[tokio::test]
async fn t13_what_does_not_fit_together_is_no_app() {
    let world = World::new().await;
    let holder = Holder::new();
    let mut leaked = holder.jwks();
    leaked["keys"][0]["d"] = json!("AAAA");
    let base = json!({ "name": "odd", "scopes": ["p2pi"], "redirect_uris": ["https://odd.example/"] });
    for (changes, status) in [
        (json!({ "auth_method": "private_key_jwt" }), 422),
        (json!({ "auth_method": "client_secret", "jwks": holder.jwks() }), 422),
        (json!({ "auth_method": "none", "grants": ["client_credentials"] }), 422),
        (json!({ "auth_method": "none", "rotation": "none" }), 422),
        (json!({ "profile": "fapi2" }), 422),
        (json!({ "profile": "fapi3" }), 400),
        (json!({ "auth_method": "client_secret_jwt" }), 400),
        (json!({ "jwks": { "keys": [] } }), 400),
        (json!({ "jwks": leaked }), 400),
        (json!({ "jwks": holder.jwks(), "jwks_uri": "https://odd.example/jwks" }), 400),
        (json!({ "jwks_uri": "http://odd.example/jwks" }), 400),
        (json!({ "jwks_uri": "file:///etc/passwd" }), 400),
        (json!({ "introspects": ["unknown"] }), 400),
    ] {
        let mut attributes = base.clone();
        for (name, value) in changes.as_object().expect("an object") {
            attributes[name] = value.clone();
        }
        let document = json!({ "data": { "type": "ib-app", "attributes": attributes } });
        let answer = world.beta.asks("POST", "/v2/tenants/default/ib-apps", Some(&document)).await;
        assert_eq!(answer.status(), status, "{changes}: {}", answer.text());
    }
    assert!(world.beta.lists("ib-app").await.is_empty());
    // What the profile does by itself is not taken back beside it, and nothing that was said sleeps until the profile goes. Codes go to https,
    // but for apps on the person's own machine.
    let in_clear = json!({ "redirect_uris": ["http://127.0.0.1/cb"] });
    let taken_back = [json!({ "dpop": false }), json!({ "require_par": false }), json!({ "rotation": "strict" }), in_clear];
    for changes in &taken_back {
        let mut attributes = base.clone();
        attributes["jwks"] = holder.jwks();
        attributes["profile"] = json!("fapi2");
        for (name, value) in changes.as_object().expect("an object") {
            attributes[name] = value.clone();
        }
        let document = json!({ "data": { "type": "ib-app", "attributes": attributes } });
        let answer = world.beta.asks("POST", "/v2/tenants/default/ib-apps", Some(&document)).await;
        assert_eq!((answer.status(), answer.json()["errors"][0]["code"].as_str()), (422, Some("contradiction")), "{changes}");
    }
    let mut whole = base.clone();
    (whole["jwks"], whole["profile"]) = (holder.jwks(), json!("fapi2"));
    let before = world.beta.creates("ib-app", whole).await;
    for changes in &taken_back {
        let document = json!({ "data": { "type": "ib-app", "attributes": changes } });
        let answer = world.beta.asks("PATCH", "/v2/tenants/default/ib-apps/odd", Some(&document)).await;
        assert_eq!(answer.status(), 422, "{changes}: {}", answer.text());
    }
    assert_eq!(world.beta.shows("ib-app", "odd").await["rotation"], before["rotation"]);
    for changes in [
        json!({ "rotation": "none", "dpop": true, "require_par": true }),
        json!({ "redirect_uris": ["http://127.0.0.1/cb"], "native": true }),
        json!({ "profile": "none", "native": false, "rotation": "strict" }),
    ] {
        world.beta.changes("ib-app", "odd", changes).await;
    }
}

#[tokio::test]
async fn t2_an_app_that_cannot_keep_a_secret_has_its_name_and_pkce() {
    let mut world = World::new().await;
    let wanted = json!({ "name": "phone", "scopes": ["p2pi"], "redirect_uris": ["https://phone.example/done"], "auth_method": "none" });
    let app = world.beta.creates("ib-app", wanted).await;
    let id = app["client_id"].as_str().expect("an id").to_owned();
    let client = Client { id: id.clone(), secret: String::new(), redirect_uri: "https://phone.example/done".to_owned() };
    let code = client.code(&world.beta, &mut world.operator).await;
    let redeem = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("client_id", id.as_str()),
        ("redirect_uri", client.redirect_uri.as_str()),
        ("code_verifier", VERIFIER),
    ];
    let tokens = Tokens::of(&posts(&world, "/oauth/token", &redeem).await);
    assert!(is_accepted(&world, &tokens.access).await);
    let form = [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.as_str()), ("client_id", id.as_str())];
    let next = Tokens::of(&posts(&world, "/oauth/token", &form).await);
    let looks = [("token", next.access.as_str()), ("client_id", id.as_str())];
    refused(&posts(&world, "/oauth/introspect", &looks).await, 401, "invalid_client");
    assert_eq!(posts(&world, "/oauth/revoke", &looks).await.status(), 200);
    assert!(!is_accepted(&world, &next.access).await);
}

#[tokio::test]
async fn i1_i2_a_resource_server_sees_tokens_that_carry_its_scopes_and_nothing_of_others() {
    let mut world = World::with(OTHER).await;
    let client = Client::registered_with(&world.beta, "shop", json!({ "scopes": ["p2pi", "other"] })).await;
    let authorize = client.authorize(&world.beta).with("scope", "p2pi other").url();
    let led = world.operator.decides(&authorize, "allow").await;
    let tokens = Tokens::of(&client.redeems(&world.beta, &led.parameter("code").expect("a code")).await);
    let credentials = json!({ "grants": ["client_credentials"] });
    let stranger = Client::registered_with(&world.beta, "stranger", credentials.clone()).await;
    let mut server = credentials;
    server["introspects"] = json!(["other"]);
    let server = Client::registered_with(&world.beta, "server", server).await;
    assert_eq!(stranger.introspects(&world.beta, &tokens.access).await.text(), r#"{"active":false}"#);
    let seen = server.introspects(&world.beta, &tokens.access).await;
    let seen_json = seen.json();
    assert_eq!(
        (seen_json["active"].as_bool(), seen_json["scope"].as_str(), seen_json["client_id"].as_str()),
        (Some(true), Some("other"), Some(client.id.as_str())),
        "{}",
        seen.text()
    );
    assert_eq!((seen_json["aud"].as_str(), seen.header("cache-control")), (Some(world.beta.settings.url().as_str()), Some("no-store")));
    assert_eq!(server.introspects(&world.beta, &tokens.refresh).await.text(), r#"{"active":false}"#, "refresh tokens are nobody else's");
    // A token that does not carry its scope is for others.
    let narrow = [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.as_str()), ("scope", "p2pi")];
    let narrow = Tokens::of(&client.asks(&world.beta, &narrow).await);
    assert_eq!(server.introspects(&world.beta, &narrow.access).await.text(), r#"{"active":false}"#);
    world.beta.changes("ib-app", "server", json!({ "introspects": [] })).await;
    assert_eq!(server.introspects(&world.beta, &tokens.access).await.text(), r#"{"active":false}"#);
}
