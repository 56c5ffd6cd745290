//! What one host is told for the other when a client is registered or changes, taken at its word; and what is said of registrations that lead nowhere.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::World;
use crate::world::client::Client;
use crate::world::key_holder::Holder;
use crate::world::pair::Pair;
use crate::world::patience::eventually;
use crate::world::process::Process;

/// The command that is printed for the other host, as words behind `p2pid`.
fn command(told: &str) -> Vec<&str> {
    let line = told.lines().find_map(|line| line.split_once("  p2pid ")).unwrap_or_else(|| panic!("no command: {told}"));
    line.1.split_whitespace().collect()
}

#[tokio::test]
async fn a_peer_that_acts_for_itself_is_made_by_the_command_that_is_printed() {
    let (one, two) = (Process::running("one").await, Process::running("two").await);
    let made = two.says(&["ib", "create", "one", "--grant", "client_credentials", "--scope", "p2pi"]).await;
    let secret = made.stdout.split_whitespace().skip_while(|word| *word != "client_secret").nth(1).expect("a secret").to_owned();
    let create = [&command(&made.stderr)[..], &["--client-secret-stdin"]].concat();
    one.runs_with(&create, &secret).await;
    eventually("a token that nobody had to allow", async || (one.runs(&["peer", "show", "two"]).await["state"] == "linked").then_some(()))
        .await;
    assert_eq!(one.runs(&["call", "two", "/orders"]).await["status"], 200);
    assert_eq!(one.runs(&["ob", "show", "two"]).await["grant"], "client_credentials");
    assert_eq!(one.refuses(&["peer", "request", "two"]).await["next"], "p2pid peer refresh two");

    let deleted = one.says(&["peer", "delete", "two", "--yes"]).await;
    assert!(deleted.stderr.contains("p2pid ob delete two"), "what stays is said: {}", deleted.stderr);
    one.runs(&["ob", "delete", "two", "--yes"]).await;
}

#[tokio::test]
async fn a_link_with_a_secret_signs_by_the_command_that_is_printed() {
    let pair = Pair::linked("1h").await;
    let changed = pair.one.says(&["peer", "update", "two", "--auth-method", "private_key_jwt"]).await;
    assert!(changed.status.success() && changed.stderr.contains("On two:  p2pid ib update one --jwks "), "{}", changed.stderr);
    let update = command(&changed.stderr);

    let unknown = pair.two.tries(&update, None).await;
    assert!(unknown.status.success(), "{}", unknown.stderr);
    let warned = unknown.problem()["warnings"][0].as_str().expect("a warning").to_owned();
    assert!(warned.contains("is not trusted") && warned.contains("[trust] ca") && warned.contains("--jwks FILE"), "{warned}");

    let authority = pair.one.settings.authority();
    pair.two.settings.says("trust.toml", &format!("[trust]\nca = [{authority:?}]\n"));
    pair.two.runs(&["reload"]).await;
    let known = pair.two.says(&update).await;
    assert!(known.status.success() && known.stderr.is_empty(), "{}", known.stderr);
    pair.one.runs(&["peer", "refresh", "two"]).await;
    assert_eq!(pair.calls().await, 200);
}

#[tokio::test]
async fn an_app_gets_no_method_that_it_has_no_secret_for() {
    let two = Process::running("two").await;
    let keys = two.settings.folder().join("keys.json");
    std::fs::write(&keys, Holder::new().jwks().to_string()).expect("our own folder");
    let keys = keys.to_str().expect("ASCII");
    let made = two.says(&["ib", "create", "one", "--peer-url", "https://one.example", "--scope", "p2pi", "--jwks", keys]).await;
    assert!(made.status.success() && made.stderr.contains("On one:  p2pid peer request two --wait"), "{}", made.stderr);
    let next = two.refuses(&["ib", "rotate-secret", "one"]).await["next"].as_str().expect("a next step").to_owned();
    assert!(next.contains("p2pid ib update one --jwks FILE") && next.contains("--client-secret-stdin"), "{next}");
    let refused = two.refuses(&["ib", "update", "one", "--auth-method", "client_secret_basic"]).await;
    assert_eq!(refused["code"], "contradiction");
    let next = refused["next"].as_str().expect("a next step");
    assert!(next.ends_with("p2pid ib update one --auth-method client_secret_basic --client-secret-stdin"), "{next}");
    assert_eq!(two.runs(&["ib", "show", "one"]).await["auth_method"], "private_key_jwt", "nothing was half done");
    let update = ["ib", "update", "one", "--auth-method", "client_secret_basic", "--client-secret-stdin"];
    assert_eq!(two.runs_with(&update, "a secret of thirty characters.").await["auth_method"], "client_secret_basic");
    let rotated = two.says(&["ib", "rotate-secret", "one"]).await;
    assert!(rotated.stderr.contains("the secret before it stays valid for 1day. On"), "{}", rotated.stderr);
    for older in 1..=2 {
        let rotated = two.says(&["ib", "rotate-secret", "one", "--overlap", "1h"]).await.stderr;
        assert!(
            rotated.contains("the secret before it stays valid for 1h") && rotated.matches("; the one of ").count() == older,
            "{rotated}"
        );
    }
    let refused = two.refuses(&["ib", "rotate-secret", "one"]).await;
    assert_eq!(refused["code"], "too_many_secrets");
    assert!(refused["next"].as_str().is_some_and(|next| next.ends_with("p2pid ib rotate-secret one --overlap 0s")), "{refused}");
    assert_eq!(two.runs(&["ib", "show", "one"]).await["secrets"].as_array().map(Vec::len), Some(4), "nothing was half done");
    let rotated = two.says(&["ib", "rotate-secret", "one", "--overlap", "0s"]).await;
    assert!(rotated.stderr.contains("no other one is valid"), "{}", rotated.stderr);
}

#[tokio::test]
async fn what_cannot_be_registered_says_what_can() {
    let two = Process::running("two").await;
    let (url, folder) = ("https://one.example", two.settings.folder());
    let create = ["ib", "create", "one", "--peer-url", url, "--scope", "p2pi", "--client-id"];
    two.runs(&[&create[..], &["first"]].concat()).await;
    let refused = two.refuses(&[&create[..], &["second", "--or-update"]].concat()).await;
    assert_eq!((&refused["code"], &refused["found"], &refused["expected"]), (&json!("exists"), &json!("first"), &json!("second")));
    let says = |value: &Value, words: &str| assert!(value.as_str().is_some_and(|text| text.contains(words)), "{words:?} in {value}");
    says(&refused["message"], "cannot be changed");
    says(&refused["next"], "leave the client_id out");

    let refused = two.refuses(&["ib", "create", "x", "--peer-url", "https://one.example/oauth/callback"]).await;
    says(&refused["next"], "give https://one.example,");
    let warned = two.tries(&["ib", "create", "x", "--redirect-uri", "https://one.example/*"], None).await;
    assert!(warned.status.success(), "{}", warned.stderr);
    says(&warned.problem()["warnings"][0], "\"*\" stands for nothing but itself");
    says(&two.refuses(&["ib", "create", "y", "--grant", "password"]).await["next"], "p2pid realm create NAME");
    says(&two.refuses(&["ib", "create", "y", "--peer-url", url, "--profile", "fapi2"]).await["next"], "--jwks FILE");
    says(&two.refuses(&["ib", "create", "y", "--peer-url", url, "--auth-method", "private_key_jwt"]).await["next"], "--jwks FILE");
    for (content, found) in
        [("[]", "no JSON Web Key Set"), (r#"{"keys":[]}"#, "has 0 keys"), (r#"{"keys":[{"kty":"oct"}]}"#, "none of the set's keys")]
    {
        let file = folder.join("keys.json");
        std::fs::write(&file, content).expect("our own folder");
        let refused = two.refuses(&["ib", "create", "y", "--peer-url", url, "--jwks", file.to_str().expect("ASCII")]).await;
        says(&refused["found"], found);
    }
}

#[tokio::test]
async fn a_resource_server_that_only_looks_needs_no_scope_and_opens_nothing() {
    let mut world = World::new().await;
    let holder = Client::registered(&world.beta, "shop").await;
    let tokens = holder.tokens(&world.beta, &mut world.operator).await;
    for (name, scopes) in [("server", Value::Null), ("other", json!([""]))] {
        let wanted = json!({ "name": name, "grants": ["client_credentials"], "introspects": ["p2pi"], "scopes": scopes });
        let app = world.beta.creates("ib-app", wanted).await;
        assert_eq!(app["scopes"], json!([]), "{app}");
        let text = |member: &str| app[member].as_str().expect("a text").to_owned();
        let server = Client { id: text("client_id"), secret: text("client_secret"), redirect_uri: String::new() };
        let seen = server.introspects(&world.beta, &tokens.access).await.json();
        assert_eq!((&seen["active"], &seen["scope"]), (&json!(true), &json!("p2pi")));
        let token = server.asks(&world.beta, &[("grant_type", "client_credentials")]).await.json();
        assert_eq!(token.get("scope"), None, "there is no way to say none: {token}");
        let bearer = format!("Bearer {}", token["access_token"].as_str().expect("a token"));
        let answer = world.beta.is_asked("GET", "/p2pi/orders", &[("Authorization", &bearer)], "").await;
        assert_eq!((answer.status(), answer.header("p2pi-error")), (403, Some("insufficient_scope")));
        world.clock.advance(Duration::from_secs(1));
    }
    let refused = async |method: &str, path: &str, attributes: Value| {
        let document = json!({ "data": { "type": "ib-app", "attributes": attributes } });
        let answer = world.beta.asks(method, path, Some(&document)).await;
        (answer.status(), answer.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned())
    };
    let contradiction = (422, "contradiction".to_owned());
    let apps = "/v2/tenants/default/ib-apps";
    let plain = json!({ "name": "plain", "grants": ["client_credentials"], "scopes": [] });
    assert_eq!(refused("POST", apps, plain).await, contradiction);
    assert_eq!(
        refused("PATCH", &format!("{apps}/server"), json!({ "introspects": [] })).await,
        contradiction,
        "it would be good for nothing"
    );
}
