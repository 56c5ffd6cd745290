//! Rows of what people and local applications do, and of how handshakes end.

use serde_json::json;

use super::{row_of, told};
use crate::world::World;
use crate::world::client::Client;
use crate::world::hostile::{Endpoint, Fault};
use crate::world::person::Person;
use crate::world::scene::Scene;

/// Where everybody comes from who is on this machine.
const HERE: &str = "127.0.0.1";

#[tokio::test]
async fn who_declines_and_who_signs_out_is_told() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    let led = world.operator.decides(&client.authorize(&world.beta).url(), "decline").await;
    assert_eq!(led.parameter("error").as_deref(), Some("access_denied"));
    let login = world.operator.login.clone();
    let secrets = [client.secret.as_str(), "state-of-the-test"];
    let row = row_of(&world.beta, "consent.declined", &secrets).await;
    assert_eq!(told(&row), json!(["done", "session", login, "ib-app", "shop", "default", HERE]), "{row}");
    assert_eq!((&row["details"]["scope"], &row["details"]["client_id"]), (&json!("p2pi"), &json!(client.id)));

    let begun = row_of(&world.beta, "login.succeeded", &[&world.operator.password]).await;
    let url = format!("{}/logout", world.beta.settings.url());
    let cookies: Vec<String> = world
        .operator
        .browser
        .cookies()
        .reaching(&url.parse().expect("an address"))
        .iter()
        .map(|(_, value)| (*value).to_string())
        .collect();
    let form = world.operator.opens(&url).await.form().expect("one button").submit();
    assert_eq!(world.operator.browser.follow(form).await.expect("an answer").status, 200);
    let secrets: Vec<&str> = cookies.iter().map(String::as_str).collect();
    assert!(!secrets.is_empty());
    let row = row_of(&world.beta, "logout.succeeded", &secrets).await;
    // People belong to the instance.
    assert_eq!(told(&row), json!(["done", "session", login, "user", login, null, HERE]), "{row}");
    assert_eq!(row["details"]["token"], begun["details"]["token"], "the session that began then");
}

#[tokio::test]
async fn who_is_asked_to_allow_what_it_may_not_is_told() {
    let world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    let (login, password) = ("clerk@beta.example", "another horse battery");
    world.beta.creates("user", json!({ "login": login, "password": password, "permissions": ["peers.get"] })).await;
    let mut clerk = Person::new(login, password, &[world.beta.settings.authority()]);
    let question = clerk.opens(&client.authorize(&world.beta).url()).logs_in().await;
    assert!(question.text().contains("You may not allow links here"), "{}", question.text());
    let row = row_of(&world.beta, "consent.refused", &[password, "state-of-the-test"]).await;
    assert_eq!(told(&row), json!(["refused", "session", login, "ib-app", "shop", "default", HERE]), "{row}");
    assert_eq!(row["details"], json!({ "scope": "p2pi", "client_id": client.id, "reason": "you may not allow links" }));
}

#[tokio::test]
async fn a_wrong_caller_key_is_told_and_not_written_down() {
    let world = World::new().await;
    let wrong = "p2pc_a-key-that-nobody-has";
    let headers = [("Authorization", format!("Bearer {wrong}"))];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let answer = world.alpha.relays("GET", "/beta/orders", &headers, "").await;
    assert_eq!(answer.status(), 401, "{}", answer.text());
    let row = row_of(&world.alpha, "caller_key.failed", &[wrong]).await;
    assert_eq!(told(&row), json!(["refused", "unknown", "unknown", null, null, null, HERE]), "{row}");
    assert_eq!(row["request_id"].as_str(), answer.header("p2pi-request-id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_how_each_handshake_ends_is_told() {
    let mut scene = Scene::new().await;
    for (endpoint, fault, action, outcome, reason) in [
        (Endpoint::Authorize, Fault::Denies("access_denied"), "handshake.declined", "refused", None),
        (Endpoint::Authorize, Fault::Denies("server_error"), "handshake.refused", "refused", Some("server_error")),
        (Endpoint::Authorize, Fault::ForeignIssuer, "handshake.refused", "refused", Some("another issuer")),
        (Endpoint::Token, Fault::Refuses(401, "invalid_client"), "handshake.failed", "failed", Some("invalid_client")),
        (Endpoint::Token, Fault::DroppedAfterCommit, "handshake.failed", "failed", Some("no clear answer came")),
    ] {
        let known = scene.alpha.audit("limit=1000").await.len();
        scene.two.next(endpoint, fault);
        let url = scene.alpha.request_url("two").await;
        scene.person.opens(&url).continues().await;
        let rows = scene.alpha.audit("limit=1000").await;
        let actions: Vec<&str> = rows[known..].iter().filter_map(|row| row["action"].as_str()).collect();
        assert_eq!(actions, ["peer.requested", "handshake.begun", action]);
        let ticket = url.rsplit('/').next().expect("a path");
        let row = row_of(&scene.alpha, action, &[ticket, "a-secret-of-20-chars!"]).await;
        assert_eq!(told(&row), json!([outcome, "unknown", "unknown", "peer", "two", "default", HERE]), "{row}");
        let said = row["details"]["reason"].as_str();
        assert!(reason.is_none_or(|reason| said.is_some_and(|said| said.contains(reason))), "{row}");
        for secret in scene.two.secrets() {
            assert!(!row.to_string().contains(&secret), "{row}");
        }
    }
}
