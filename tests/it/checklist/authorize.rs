//! A: the authorization endpoint.

use std::time::Duration;

use serde_json::json;

use crate::world::World;
use crate::world::client::{Client, Led};

async fn world_with_client() -> (World, Client) {
    let world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    (world, client)
}

/// A page of ours that sends nobody anywhere.
fn is_error_page(led: &Led, what: &str) {
    assert!(!led.away, "{what}: redirected to {}", led.url);
    assert_eq!(led.page.status, 400, "{what}");
    assert!(led.page.headers["content-type"].to_str().is_ok_and(|kind| kind.starts_with("text/html")), "{what}");
}

/// The error that the client is told.
fn error_at_client(led: &Led, what: &str) -> String {
    assert!(led.away, "{what}: no redirect, but {} {}", led.page.status, led.page.text());
    assert_eq!(led.parameter("code"), None, "{what}");
    led.parameter("error").unwrap_or_else(|| panic!("{what}: no error in {}", led.url))
}

#[tokio::test]
async fn a1_a_redirect_uri_is_compared_byte_by_byte() {
    let (mut world, client) = world_with_client().await;
    let registered = client.redirect_uri.clone();
    let changed = [
        registered.replace("/done", "/done/"),
        registered.replace("/done", "/Done"),
        registered.replace("?of=shop", ""),
        registered.clone() + "&more=1",
        registered.replace("https://shop.example", "https://shop.example:443"),
        registered.replace("https://shop.example", "https://shop.example@evil.example"),
        registered.replace("https", "http"),
        registered.clone() + "#",
        format!(" {registered}"),
        "https://evil.example/".to_owned(),
    ];
    for uri in changed {
        let led = world.operator.decides(&client.authorize(&world.beta).with("redirect_uri", &uri).url(), "allow").await;
        is_error_page(&led, &uri);
    }
    let led = world.operator.decides(&client.authorize(&world.beta).url(), "allow").await;
    assert!(led.url.as_str().starts_with(&registered), "{}", led.url);
}

#[tokio::test]
async fn a1_what_is_taken_from_an_app_is_taken_from_its_questions_and_codes_too() {
    let mut world = World::new().await;
    let changes = [
        ("redirect", json!({}), json!({ "redirect_uris": ["https://other.example/"] })),
        ("push", json!({}), json!({ "require_par": true })),
        ("proof", json!({ "pkce": "optional" }), json!({ "pkce": "required" })),
        ("code", json!({}), json!({ "grants": ["client_credentials"] })),
    ];
    for (name, before, after) in changes {
        let client = Client::registered_with(&world.beta, name, before).await;
        let asked = client.authorize(&world.beta);
        let asked = if name == "proof" { asked.without("code_challenge").without("code_challenge_method") } else { asked };
        let allowed = world.operator.decides(&asked.url(), "allow").await;
        let code = allowed.parameter("code").unwrap_or_else(|| panic!("{name}: no code: {}", allowed.url));
        let page = world.operator.opens(&asked.url()).await;
        let form = |decision| page.form_with("decision").and_then(|form| form.press("decision", decision)).expect("two buttons");
        world.beta.changes("ib-app", name, after).await;

        let taken = world.operator.goes(form("allow")).await;
        assert_eq!((taken.away, taken.page.status.as_u16()), (false, 409), "{name}: {}", taken.url);
        assert!(taken.page.text().contains("the application was changed after it asked"), "{name}: {}", taken.page.text());
        let declined = world.operator.goes(form("decline")).await;
        assert_eq!(declined.away, name != "redirect", "{name}: {}", declined.url);
        let verifier = if name == "proof" { None } else { Some(("code_verifier", crate::world::client::VERIFIER)) };
        let form = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", client.redirect_uri.as_str())];
        let form: Vec<_> = form.into_iter().chain(verifier).collect();
        let refused = client.asks(&world.beta, &form).await;
        let expected = if name == "code" { "unauthorized_client" } else { "invalid_grant" };
        assert_eq!((refused.status(), refused.json()["error"].as_str()), (400, Some(expected)), "{name}: {}", refused.text());
    }
    assert!(world.beta.lists("grant").await.is_empty());
}

#[tokio::test]
async fn a2_an_unknown_client_or_redirect_uri_gets_a_page_and_no_redirect() {
    let (mut world, client) = world_with_client().await;
    let valid = client.authorize(&world.beta);
    for request in [valid.clone().with("client_id", "nobody"), valid.clone().without("client_id"), valid.clone().with("client_id", "")] {
        is_error_page(&world.operator.decides(&request.url(), "allow").await, &request.url());
    }
    for request in [valid.clone().without("redirect_uri").and("redirect_uri", "javascript:alert(1)"), valid.and("client_id", "nobody")] {
        is_error_page(&world.operator.decides(&request.url(), "allow").await, &request.url());
    }
}

#[tokio::test]
async fn a3_a_redirect_uri_that_no_browser_should_be_sent_to_is_not_registered() {
    let world = World::new().await;
    for uri in
        ["javascript:alert(1)", "data:text/html,x", "http://shop.example/", "https://shop.example/#x", "/done", "ftp://shop.example/"]
    {
        let document =
            json!({ "data": { "type": "ib-app", "attributes": { "name": "shop", "redirect_uris": [uri], "scopes": ["p2pi"] } } });
        let answer = world.beta.asks("POST", "/v2/tenants/default/ib-apps", Some(&document)).await;
        let error = &answer.json()["errors"][0];
        assert_eq!((answer.status(), &error["code"]), (400, &json!("bad_attribute")), "{uri}: {error}");
        assert!(error["detail"].as_str().is_some_and(|detail| detail.contains("redirect")), "{uri}: {error}");
    }
    assert!(world.beta.lists("ib-app").await.is_empty());
    let good = json!({ "data": { "type": "ib-app", "attributes": { "name": "shop", "redirect_uris": ["https://shop.example/done"], "scopes": ["p2pi"] } } });
    assert_eq!(world.beta.asks("POST", "/v2/tenants/default/ib-apps", Some(&good)).await.status(), 201);
}

#[tokio::test]
async fn a4_only_the_response_type_code_is_known() {
    let (mut world, client) = world_with_client().await;
    for kind in ["token", "id_token", "code token", "Code"] {
        let led = world.operator.decides(&client.authorize(&world.beta).with("response_type", kind).url(), "allow").await;
        assert_eq!(error_at_client(&led, kind), "unsupported_response_type");
        assert_eq!(led.url.fragment(), None, "errors stand in the query");
    }
    let led = world.operator.decides(&client.authorize(&world.beta).without("response_type").url(), "allow").await;
    assert_eq!(error_at_client(&led, "none"), "invalid_request");
}

#[tokio::test]
async fn a5_a_challenge_by_s256_is_needed() {
    let (mut world, client) = world_with_client().await;
    let valid = client.authorize(&world.beta);
    let requests = [
        ("no challenge", valid.clone().without("code_challenge")),
        ("an empty challenge", valid.clone().with("code_challenge", "")),
        ("a short challenge", valid.clone().with("code_challenge", "short")),
        ("padding", valid.clone().with("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM=")),
        ("plain", valid.clone().with("code_challenge_method", "plain")),
        ("no method, which means plain", valid.clone().without("code_challenge_method")),
        ("an unknown method", valid.clone().with("code_challenge_method", "S512")),
    ];
    for (what, request) in requests {
        let led = world.operator.decides(&request.url(), "allow").await;
        assert_eq!(error_at_client(&led, what), "invalid_request", "{what}");
    }
}

#[tokio::test]
async fn a6_a_parameter_twice_is_refused_an_unknown_one_ignored_an_empty_one_absent() {
    let (mut world, client) = world_with_client().await;
    let valid = client.authorize(&world.beta);
    for name in ["scope", "state", "response_type", "code_challenge", "code_challenge_method"] {
        let led = world.operator.decides(&valid.clone().and(name, "once more").url(), "allow").await;
        assert_eq!(error_at_client(&led, name), "invalid_request", "{name}");
    }
    let led = world.operator.decides(&valid.clone().and("nonsense", "1").with("scope", "").url(), "allow").await;
    assert!(led.parameter("code").is_some(), "{}", led.url);
}

#[tokio::test]
async fn a7_state_comes_back_byte_by_byte_and_iss_is_the_issuer() {
    let (mut world, client) = world_with_client().await;
    let metadata = world.beta.is_asked("GET", "/.well-known/oauth-authorization-server", &[], "").await.json();
    for state in ["ä+ /%2F&=?#\"'<>\\", " ", "0", &"x".repeat(500)] {
        for decision in ["allow", "decline"] {
            let led = world.operator.decides(&client.authorize(&world.beta).with("state", state).url(), decision).await;
            assert_eq!(led.parameter("state").as_deref(), Some(state));
            assert_eq!(led.parameter("iss").as_deref(), metadata["issuer"].as_str());
        }
    }
    let led = world.operator.decides(&client.authorize(&world.beta).without("state").url(), "allow").await;
    assert!(led.parameter("code").is_some() && led.parameter("state").is_none(), "{}", led.url);
}

#[tokio::test]
async fn a8_what_follows_a_post_is_a_303() {
    let (mut world, client) = world_with_client().await;
    let led = world.operator.decides(&client.authorize(&world.beta).url(), "allow").await;
    world.introduces().await;
    let url = world.alpha.request_url("beta").await;
    let page = world.operator.opens(&url).continues().allows().await;
    let declined = world.operator.decides(&client.authorize(&world.beta).url(), "decline").await;
    let way = led.page.way.iter().chain(&page.way).chain(&declined.page.way);
    let posts: Vec<_> = way.filter(|hop| hop.method == "POST").map(|hop| (hop.url.path().to_owned(), hop.status.as_u16())).collect();
    assert!(posts.len() >= 4 && posts.iter().all(|(_, status)| *status == 303), "{posts:?}");
}

#[tokio::test]
async fn a11_the_page_names_client_and_scopes_and_nothing_in_the_url_answers_it() {
    let (mut world, client) = world_with_client().await;
    let request = client.authorize(&world.beta).and("decision", "allow").and("prompt", "none").and("approve", "1");
    let page = world.operator.opens(&request.url()).logs_in().await;
    assert_eq!(page.form_with("decision").expect("a question").buttons().len(), 2);
    let text = page.text();
    for word in ["shop", "Call this instance's platform interface", &world.operator.login] {
        assert!(text.contains(word), "{word} is not on the page: {text}");
    }
    let led = world.operator.decides(&request.url(), "decline").await;
    assert_eq!(error_at_client(&led, "declined"), "access_denied");
}

#[tokio::test]
async fn a14_a_code_dies_young_and_belongs_to_client_redirect_uri_and_challenge() {
    let (mut world, client) = world_with_client().await;
    let code = client.code(&world.beta, &mut world.operator).await;
    world.clock.advance(Duration::from_secs(61));
    assert_eq!(client.redeems(&world.beta, &code).await.json()["error"], "invalid_grant");
    let code = client.code(&world.beta, &mut world.operator).await;
    let form = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", "https://other.example/")];
    let form = [&form[..], &[("code_verifier", crate::world::client::VERIFIER)]].concat();
    assert_eq!(client.asks(&world.beta, &form).await.json()["error"], "invalid_grant");
    let thief = Client::registered(&world.beta, "thief").await;
    let code = client.code(&world.beta, &mut world.operator).await;
    assert_eq!(thief.redeems(&world.beta, &code).await.json()["error"], "invalid_grant");
    assert_eq!(client.redeems(&world.beta, &code).await.status(), 200, "another client's attempt burns nothing");
}

#[tokio::test]
async fn a15_before_somebody_has_logged_in_nobody_is_sent_to_a_client() {
    let (mut world, client) = world_with_client().await;
    let valid = client.authorize(&world.beta);
    for request in
        [valid.clone(), valid.clone().with("response_type", "token"), valid.clone().without("code_challenge"), valid.with("scope", "x")]
    {
        let page = world.operator.opens(&request.url()).await;
        assert!(page.way.iter().all(|hop| hop.url.origin() == page.url.origin()), "{:?}", page.way);
        assert!(page.form_with("password").is_ok(), "{}", page.text());
    }
}
