//! D5: authorization requests that their app pushes (PAR), and the FAPI 2.0 profile, which demands it.

use std::time::Duration;

use serde_json::{Value, json};

use super::refused;
use crate::world::World;
use crate::world::client::{Client, Tokens, VERIFIER, s256};
use crate::world::key_holder::{Holder, redeeming};
use crate::world::message::Message;
use crate::world::person::Person;

/// The parameters of a minimal request.
fn request<'a>(client: &'a Client, challenge: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("response_type", "code"),
        ("client_id", &client.id),
        ("redirect_uri", &client.redirect_uri),
        ("scope", "p2pi"),
        ("state", "state-of-the-test"),
        ("code_challenge", challenge),
        ("code_challenge_method", "S256"),
    ]
}

async fn push(world: &World, client: &Client, form: &[(&str, &str)]) -> Message {
    world.beta.gets_form("/oauth/par", (&client.id, &client.secret), form).await
}

async fn reference(world: &World, client: &Client) -> String {
    let answer = push(world, client, &request(client, &s256(VERIFIER))).await;
    assert_eq!(answer.status(), 201, "{}", answer.text());
    answer.json()["request_uri"].as_str().expect("a reference").to_owned()
}

fn url(world: &World, client_id: &str, reference: &str) -> String {
    let query =
        form_urlencoded::Serializer::new(String::new()).extend_pairs([("client_id", client_id), ("request_uri", reference)]).finish();
    format!("{}/oauth/authorize?{query}", world.beta.settings.url())
}

#[tokio::test]
async fn d5_a_pushed_request_is_asked_as_it_was_pushed_and_answered_once() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    let answer = push(&world, &client, &request(&client, &s256(VERIFIER))).await;
    let document = answer.json();
    assert_eq!((answer.status(), answer.header("cache-control")), (201, Some("no-store")));
    assert!(document["expires_in"].as_u64().is_some_and(|life| (5..600).contains(&life)), "{document}");
    let reference = document["request_uri"].as_str().expect("a reference").to_owned();
    assert!(reference.starts_with("urn:ietf:params:oauth:request_uri:") && reference.len() > 60, "{reference}");

    // What stands beside the reference was not pushed, and counts for nothing.
    let changed = format!("{}&scope=admin&redirect_uri=https%3A%2F%2Fevil.example&state=x", url(&world, &client.id, &reference));
    let led = world.operator.decides(&changed, "allow").await;
    assert_eq!((led.parameter("state").as_deref(), led.url.host_str()), (Some("state-of-the-test"), Some("shop.example")));
    assert_eq!(led.parameter("iss").as_deref(), Some(world.beta.settings.url().as_str()));
    let tokens = Tokens::of(&client.redeems(&world.beta, &led.parameter("code").expect("a code")).await);
    assert!(super::is_accepted(&world, &tokens.access).await);

    let again = world.operator.decides(&url(&world, &client.id, &reference), "allow").await;
    assert_eq!((again.away, again.page.status.as_u16()), (false, 400), "{}", again.page.text());
}

fn database(world: &World) -> rusqlite::Connection {
    rusqlite::Connection::open(world.beta.settings.state_dir().join("p2pid.db")).expect("the database")
}

/// How many requests are kept for somebody, whoever pushes besides.
fn kept(world: &World) -> u32 {
    let count = "SELECT count(*) FROM pushed_request WHERE question IS NOT NULL";
    database(world).query_row(count, [], |row| row.get(0)).expect("a count")
}

#[tokio::test]
async fn d5_who_may_not_allow_what_was_pushed_keeps_it_from_nobody() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    let (login, password) = ("clerk@beta.example", "another horse battery");
    world.beta.creates("user", json!({ "login": login, "password": password, "permissions": ["peers.get"] })).await;
    let url = url(&world, &client.id, &reference(&world, &client).await);
    let mut clerk = Person::new(login, password, &[world.beta.settings.authority()]);
    let question = clerk.opens(&url).logs_in().await;
    assert!(question.text().contains("You may not allow links here") && kept(&world) == 0, "{}", question.text());
    assert_eq!(world.operator.opens(&url).logs_in().await.status, 200);
    assert_eq!(kept(&world), 1);
}

#[tokio::test]
async fn d5_who_opens_more_and_more_does_not_fill_the_share_of_the_app() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    let mut elsewhere = Person::new(&world.operator.login, &world.operator.password, &[world.beta.settings.authority()]);
    for number in 0..20 {
        let url = url(&world, &client.id, &reference(&world, &client).await);
        let person = if number < 10 { &mut world.operator } else { &mut elsewhere };
        let visit = person.opens(&url);
        let question = if number % 10 == 0 { visit.logs_in().await } else { visit.await };
        assert_eq!(question.status, 200, "{}", question.text());
    }
    assert_eq!(kept(&world), 16, "of the twenty in two browsers");
}

#[tokio::test]
async fn d5_an_app_all_of_whose_requests_are_being_asked_is_told_so() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    let url = url(&world, &client.id, &reference(&world, &client).await);
    assert_eq!(world.operator.opens(&url).logs_in().await.status, 200);
    // As if 63 people looked at 16 each.
    let others = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 999)
        INSERT INTO pushed_request (digest, app, parameters_sealed, epoch, decided, expires_at, purge_at, question)
        SELECT randomblob(32), app, parameters_sealed, epoch, decided, expires_at, purge_at, question FROM pushed_request, n";
    database(&world).execute(others, []).expect("a thousand requests");
    let full = push(&world, &client, &request(&client, &s256(VERIFIER))).await;
    refused(&full, 429, "temporarily_unavailable");
    let wait: u64 = full.header("retry-after").and_then(|wait| wait.parse().ok()).expect("how long");
    assert!((1..=540).contains(&wait) && full.header("p2pi-error") == Some("rate_limited"), "{wait}");
    assert!(full.text().contains("people are being asked") && !full.text().contains("address"), "{}", full.text());
    world.clock.advance(Duration::from_secs(wait));
    assert_eq!(push(&world, &client, &request(&client, &s256(VERIFIER))).await.status(), 201, "what is over makes room");
}

#[tokio::test]
async fn d5_two_pages_of_one_pushed_request_have_one_answer() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    let url = url(&world, &client.id, &reference(&world, &client).await);
    // Logged in, with two pages open.
    let typed = |url: &str| p2pid::cli::demo::browser::Navigation::typed(url::Url::parse(url).expect("an address"));
    let led = world.operator.goes(typed(&url)).await;
    let form = led.page.form_with("password").expect("a log-in").fill("username", &world.operator.login).expect("a field");
    let form = form.fill("password", &world.operator.password).expect("a field");
    let first = world.operator.goes(form.submit()).await;
    let second = world.operator.goes(typed(&url)).await;
    let press = |page: &p2pid::cli::demo::browser::Page| {
        page.form_with("decision").expect("a question").press("decision", "allow").expect("buttons")
    };
    let (first, second) = (press(&first.page), press(&second.page));
    let answered = world.operator.goes(first).await;
    assert!(answered.parameter("code").is_some());
    let refused = world.operator.goes(second).await;
    assert_eq!((refused.away, refused.page.status.as_u16()), (false, 409), "{}", refused.page.text());
}

#[tokio::test]
async fn d5_a_reference_is_its_apps_and_ends() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    // The same but for its name, so that nothing else of the request is wrong for it.
    let other = Client::registered_with(&world.beta, "other", json!({ "redirect_uris": [client.redirect_uri] })).await;
    let reference = reference(&world, &client).await;
    let prefix = "urn:ietf:params:oauth:request_uri:";
    for (client_id, reference) in [
        (other.id.as_str(), reference.clone()),
        (client.id.as_str(), format!("{prefix}made-up")),
        (client.id.as_str(), format!("{}x", &reference[..reference.len() - 1])),
        (client.id.as_str(), prefix.to_owned()),
    ] {
        let led = world.operator.decides(&url(&world, client_id, &reference), "allow").await;
        assert_eq!((led.away, led.page.status.as_u16()), (false, 400), "{client_id} {reference}: {}", led.page.text());
    }
    let led = world.operator.decides(&format!("{}&request_uri={reference}", url(&world, &client.id, &reference)), "allow").await;
    assert_eq!((led.away, led.page.status.as_u16()), (false, 400));
    // Somebody else's request object is none of ours.
    let foreign = client.authorize(&world.beta).with("request_uri", "https://shop.example/request.jwt").url();
    assert_eq!(world.operator.decides(&foreign, "allow").await.parameter("error").as_deref(), Some("request_uri_not_supported"));
    world.clock.advance(Duration::from_secs(600));
    let led = world.operator.decides(&url(&world, &client.id, &reference), "allow").await;
    assert_eq!((led.away, led.page.status.as_u16()), (false, 400), "{}", led.page.text());
}

#[tokio::test]
async fn d5_what_is_pushed_is_judged_at_once() {
    let world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    let challenge = s256(VERIFIER);
    let with = |name: &'static str, value: &'static str| {
        let mut form = request(&client, &challenge);
        form.retain(|(key, _)| *key != name);
        form.push((name, value));
        form
    };
    for (form, code) in [
        (with("request_uri", "urn:ietf:params:oauth:request_uri:x"), "invalid_request"),
        (with("request", "x.y.z"), "request_not_supported"),
        (with("redirect_uri", "https://evil.example/"), "invalid_request"),
        (with("scope", "unknown"), "invalid_scope"),
        (with("response_type", "token"), "unsupported_response_type"),
        (with("code_challenge_method", "plain"), "invalid_request"),
        (with("resource", "https://other.example"), "invalid_target"),
        (with("client_id", "another"), "invalid_request"),
    ] {
        refused(&push(&world, &client, &form).await, 400, code);
    }
    let wrong = Client { secret: "wrong".to_owned(), ..client.clone() };
    refused(&push(&world, &wrong, &request(&client, &challenge)).await, 401, "invalid_client");
    let get = world.beta.is_asked("GET", "/oauth/par", &[], "").await;
    assert_eq!((get.status(), get.header("allow")), (405, Some("POST")));
}

#[tokio::test]
async fn d5_an_app_or_an_instance_may_demand_it() {
    for (configuration, attributes) in [("[tokens]\nrequire_par = true\n", json!({})), ("", json!({ "require_par": true }))] {
        let mut world = World::with(configuration).await;
        let client = Client::registered_with(&world.beta, "shop", attributes).await;
        let led = world.operator.decides(&client.authorize(&world.beta).url(), "allow").await;
        assert_eq!((led.away, led.parameter("error").as_deref()), (true, Some("invalid_request")), "{}", led.url);
        let led = world.operator.decides(&url(&world, &client.id, &reference(&world, &client).await), "allow").await;
        assert!(led.parameter("code").is_some(), "{}", led.url);
        let metadata = world.beta.is_asked("GET", "/.well-known/oauth-authorization-server", &[], "").await.json();
        assert_eq!(metadata["require_pushed_authorization_requests"], !configuration.is_empty());
        assert_eq!(metadata["pushed_authorization_request_endpoint"], format!("{}/oauth/par", world.beta.settings.url()));
    }
}

#[tokio::test]
async fn d5_g6_r11_a14_the_fapi2_profile_turns_on_the_whole_set() {
    let mut world = World::with("[tokens]\ncode_ttl = \"10m\"\n").await;
    let holder = Holder::new();
    let redirect_uri = "https://bank.example/done";
    let wanted = json!({
        "name": "bank", "scopes": ["p2pi"], "redirect_uris": [redirect_uri],
        "auth_method": "private_key_jwt", "jwks": holder.jwks(), "profile": "fapi2",
    });
    let app = world.beta.creates("ib-app", wanted).await;
    assert_eq!((app["dpop"].clone(), app["require_par"].clone(), app["rotation"].clone()), (json!(true), json!(true), json!("none")));
    let id = app["client_id"].as_str().expect("an id").to_owned();
    let client = Client { id: id.clone(), secret: String::new(), redirect_uri: redirect_uri.to_owned() };

    let led = world.operator.decides(&client.authorize(&world.beta).url(), "allow").await;
    assert_eq!(led.parameter("error").as_deref(), Some("invalid_request"), "a request that was not pushed");

    let challenge = s256(VERIFIER);
    let pushed = async |world: &World, with_proof: bool| {
        let assertion = holder.asserts(world, &id);
        let mut form = request(&client, &challenge);
        form.extend(assertion.iter().map(|(name, value)| (*name, value.as_str())));
        match with_proof {
            // What has to be sent again for a nonce has used no assertion up.
            true => holder.proves(world, "/oauth/par", &form, None).await,
            false => {
                world
                    .beta
                    .is_asked(
                        "POST",
                        "/oauth/par",
                        &[("Content-Type", "application/x-www-form-urlencoded")],
                        &crate::world::key_holder::encoded(&form),
                    )
                    .await
            }
        }
    };
    let allowed = async |world: &mut World, answer: Message| {
        assert_eq!(answer.status(), 201, "{}", answer.text());
        let reference = answer.json()["request_uri"].as_str().expect("a reference").to_owned();
        let led = world.operator.decides(&url(world, &id, &reference), "allow").await;
        let names: Vec<String> = led.url.query_pairs().map(|(name, _)| name.into_owned()).collect();
        assert_eq!(names, ["code", "state", "iss"], "nothing else stands in the answer");
        led.parameter("code").expect("a code")
    };
    let redeem = async |world: &World, by: &Holder, code: &str| {
        let assertion = holder.asserts(world, &id);
        let mut form = redeeming(code, redirect_uri).to_vec();
        form.extend(assertion.iter().map(|(name, value)| (*name, value.as_str())));
        by.proves(world, "/oauth/token", &form, None).await
    };

    let answer = pushed(&world, true).await;
    let code = allowed(&mut world, answer).await;
    refused(&redeem(&world, &Holder::new(), &code).await, 400, "invalid_grant");
    let answer = pushed(&world, false).await;
    let code = allowed(&mut world, answer).await;
    world.clock.advance(Duration::from_secs(61));
    refused(&redeem(&world, &holder, &code).await, 400, "invalid_grant");

    let answer = pushed(&world, false).await;
    let code = allowed(&mut world, answer).await;
    let tokens = Tokens::of(&redeem(&world, &holder, &code).await);
    let refresh = async |world: &World, proof: bool| -> Message {
        let assertion = holder.asserts(world, &id);
        let mut form = vec![("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.as_str())];
        form.extend(assertion.iter().map(|(name, value)| (*name, value.as_str())));
        match proof {
            true => holder.proves(world, "/oauth/token", &form, None).await,
            false => {
                world
                    .beta
                    .is_asked(
                        "POST",
                        "/oauth/token",
                        &[("Content-Type", "application/x-www-form-urlencoded")],
                        &crate::world::key_holder::encoded(&form),
                    )
                    .await
            }
        }
    };
    refused(&refresh(&world, false).await, 400, "invalid_dpop_proof");
    let next: Value = refresh(&world, true).await.json();
    assert_eq!(next["refresh_token"], tokens.refresh.as_str(), "it is not rotated");
    assert_eq!(next["token_type"], "DPoP");
}
