//! `[limits]` of clients and people by the address that they come from: nobody waits for somebody elsewhere, and an address is what a trusted
//! proxy reports, or else whoever connects.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde_json::json;

use super::says;
use crate::world::World;
use crate::world::client::{Client, VERIFIER, s256};
use crate::world::key_holder::{Holder, encoded};
use crate::world::message::Message;
use crate::world::person::Person;
use crate::world::settings::request;
use crate::world::wire::Wire;

const WRONG: &str = "a wrong secret of some length";
const BEHIND_A_PROXY: &str = "[public]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";

/// The endpoints for clients.
const ENDPOINTS: [&str; 4] = ["/oauth/token", "/oauth/par", "/oauth/introspect", "/oauth/revoke"];

/// A form that is good at that endpoint.
fn form<'a>(endpoint: &str, client: &'a Client, challenge: &'a str) -> Vec<(&'static str, &'a str)> {
    match endpoint {
        "/oauth/token" => vec![("grant_type", "client_credentials")],
        "/oauth/par" => vec![
            ("response_type", "code"),
            ("redirect_uri", &client.redirect_uri),
            ("code_challenge", challenge),
            ("code_challenge_method", "S256"),
        ],
        _ => vec![("token", "p2pa_nothing")],
    }
}

async fn client(world: &World, name: &str) -> Client {
    let grants = json!({ "grants": ["authorization_code", "refresh_token", "client_credentials"] });
    Client::registered_with(&world.beta, name, grants).await
}

/// Posts a form that is good at that endpoint, with that secret, and these headers of a proxy.
async fn asks_through(world: &World, endpoint: &str, client: &Client, secret: &str, headers: &[(&str, &str)]) -> Message {
    let challenge = s256(VERIFIER);
    let mut form = form(endpoint, client, &challenge);
    form.extend([("client_id", client.id.as_str()), ("client_secret", secret)]);
    let headers = [&[("Content-Type", "application/x-www-form-urlencoded")], headers].concat();
    world.beta.is_asked("POST", endpoint, &headers, &encoded(&form)).await
}

async fn asks(world: &World, endpoint: &str, client: &Client, secret: &str, from: &str) -> Message {
    asks_through(world, endpoint, client, secret, &[("X-Forwarded-For", from)]).await
}

/// A 429 as OAuth writes errors, that says when to come again and which limit it is.
fn is_told_to_wait(answer: &Message, why: &str) {
    assert_eq!((answer.status(), answer.header("p2pi-error")), (429, Some("rate_limited")), "{}", answer.text());
    assert_eq!((answer.header("content-type"), answer.header("cache-control")), (Some("application/json"), Some("no-store")));
    let seconds: u64 = answer.header("retry-after").and_then(|seconds| seconds.parse().ok()).expect("Retry-After");
    assert!((1..=60).contains(&seconds), "{seconds}");
    let error = answer.json();
    assert_eq!(error["error"], "temporarily_unavailable", "{error}");
    assert!(error["error_description"].as_str().is_some_and(|words| words.contains(why)), "{error}");
}

#[tokio::test]
async fn t3_a_guesser_makes_a_client_wait_at_his_own_address_only_at_every_endpoint() {
    let world = World::with(&format!("{BEHIND_A_PROXY}[limits]\nauth_failures = \"2/min\"\n")).await;
    let (here, elsewhere) = ("192.0.2.1", "192.0.2.2");
    for endpoint in ENDPOINTS {
        let (guessed, other) =
            (client(&world, &format!("a{}", &endpoint[7..])).await, client(&world, &format!("b{}", &endpoint[7..])).await);
        for _ in 0..2 {
            assert_eq!(asks(&world, endpoint, &guessed, WRONG, here).await.status(), 401, "{endpoint}");
        }
        is_told_to_wait(&asks(&world, endpoint, &guessed, WRONG, here).await, "failed attempts");
        is_told_to_wait(&asks(&world, endpoint, &guessed, &guessed.secret, here).await, "failed attempts");
        for (client, from) in [(&guessed, elsewhere), (&other, here)] {
            let answer = asks(&world, endpoint, client, &client.secret, from).await;
            assert!((200..300).contains(&answer.status()), "{endpoint} from {from}: {} {}", answer.first_line, answer.text());
        }
    }
}

#[tokio::test]
async fn client_requests() {
    let limits = "[limits]\nauth_failures = \"1000/min\"\nclient_requests = \"2/min\"\n";
    let world = World::with(&format!("{BEHIND_A_PROXY}{limits}")).await;
    let (here, elsewhere) = ("2001:db8::1", "2001:db8:0:1::1");
    let mut first = None;
    for endpoint in ENDPOINTS {
        let (busy, other) = (client(&world, &format!("a{}", &endpoint[7..])).await, client(&world, &format!("b{}", &endpoint[7..])).await);
        let is_fine =
            |answer: &Message| assert!((200..300).contains(&answer.status()), "{endpoint}: {} {}", answer.first_line, answer.text());
        for _ in 0..5 {
            let answer = asks(&world, endpoint, &busy, WRONG, here).await;
            assert_eq!(answer.status(), 401, "{endpoint}: who does not know the secret uses nothing up");
        }
        for _ in 0..2 {
            is_fine(&asks(&world, endpoint, &busy, &busy.secret, here).await);
        }
        // Of IPv6 the /64 is one address.
        for from in [here, "2001:db8::ffff:2"] {
            is_told_to_wait(&asks(&world, endpoint, &busy, &busy.secret, from).await, "too many requests");
        }
        is_fine(&asks(&world, endpoint, &busy, &busy.secret, elsewhere).await);
        is_fine(&asks(&world, endpoint, &other, &other.secret, here).await);
        first.get_or_insert(busy);
    }
    let busy = first.expect("there are endpoints");
    for endpoint in ENDPOINTS {
        is_told_to_wait(&asks(&world, endpoint, &busy, &busy.secret, here).await, "too many requests");
    }
    world.clock.advance(Duration::from_secs(30));
    assert_eq!(asks(&world, "/oauth/token", &busy, &busy.secret, here).await.status(), 200, "there is room for one more");
    is_told_to_wait(&asks(&world, "/oauth/token", &busy, &busy.secret, here).await, "too many requests");
    for off in ["\"off\"", "0"] {
        says(&world.beta, &format!("[limits]\nclient_requests = {off}")).await;
        for _ in 0..4 {
            assert_eq!(asks(&world, "/oauth/token", &busy, &busy.secret, here).await.status(), 200, "{off}");
        }
    }
}

/// Requests that nobody can judge as they are, each in the name of that client: at every endpoint one without what it is for, and proofs
/// without a nonce of ours or for another URL; with the right secret and with a wrong one.
fn unjudged(world: &World, holder: &Holder, client: &Client) -> Vec<String> {
    let nobodys = json!({ "nonce": "of-nobody" });
    let mut all = Vec::new();
    for secret in [client.secret.as_str(), WRONG] {
        let credentials = [("client_id", client.id.as_str()), ("client_secret", secret)];
        let sent = |endpoint: &str, headers: &[(&str, &str)], form: &[(&str, &str)]| {
            let headers = [&[("Content-Type", "application/x-www-form-urlencoded"), ("X-Forwarded-For", "192.0.2.1")], headers].concat();
            request("POST", endpoint, &world.beta.settings.public.to_string(), &headers, &encoded(&[form, &credentials].concat()))
        };
        all.extend(["/oauth/token", "/oauth/introspect", "/oauth/revoke"].map(|endpoint| sent(endpoint, &[], &[("x", "y")])));
        all.push(sent("/oauth/par", &[], &[("request_uri", "urn:ietf:params:oauth:request_uri:x")]));
        for (path, changes) in [("/oauth/token", json!({})), ("/oauth/token", nobodys.clone()), ("/oauth/par", json!({}))] {
            let proof = holder.proof(world, "POST", path, changes);
            all.push(sent("/oauth/token", &[("DPoP", &proof)], &[("grant_type", "client_credentials")]));
        }
    }
    all
}

#[tokio::test]
async fn what_nobody_can_judge_is_counted_by_its_address_and_keeps_nobody_out() {
    const MOST: usize = 600;
    let world = World::with(&format!("{BEHIND_A_PROXY}[limits]\nauth_failures = \"2/min\"\n")).await;
    let (client, holder) = (client(&world, "shop").await, Holder::new());
    let mut wire = Wire::tls(world.beta.settings.public, &world.beta.settings.authority()).await;
    let kinds = unjudged(&world, &holder, &client);
    for text in kinds.iter().cycle().take(MOST) {
        let answer = wire.asks(text).await;
        assert_eq!(answer.status(), 400, "{text}: {}", answer.text());
    }
    let is_one_of_too_many = |answer: &Message| is_told_to_wait(answer, "could not be judged");
    for text in &kinds {
        let answer = wire.asks(text).await;
        is_one_of_too_many(&answer);
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    // Who is right goes on, there and elsewhere, whoever was named; and elsewhere there is room for more.
    let other = self::client(&world, "other").await;
    for (client, from) in [(&client, "192.0.2.1"), (&other, "192.0.2.1"), (&client, "192.0.2.2")] {
        let answer = asks(&world, "/oauth/token", client, &client.secret, from).await;
        assert_eq!(answer.status(), 200, "{from}: {}", answer.text());
    }
    let elsewhere = kinds[0].replace("192.0.2.1", "192.0.2.2");
    assert_eq!(wire.asks(&elsewhere).await.status(), 400);
    // An honest client there is told to wait, and has with that the nonce which spares it the next refusal.
    let form = [("grant_type", "client_credentials"), ("client_id", &other.id), ("client_secret", &other.secret)];
    let proves = async |nonce: Option<&str>| {
        let proof = holder.proof(&world, "POST", "/oauth/token", json!({ "nonce": nonce }));
        let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("X-Forwarded-For", "192.0.2.1"), ("DPoP", &proof)];
        world.beta.is_asked("POST", "/oauth/token", &headers, &encoded(&form)).await
    };
    let told = proves(None).await;
    is_one_of_too_many(&told);
    let answer = proves(told.header("dpop-nonce")).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    // What time has drained is taken again, and no more.
    world.clock.advance(Duration::from_secs(1));
    for _ in 0..MOST / 60 {
        assert_eq!(wire.asks(&kinds[0]).await.status(), 400);
    }
    is_one_of_too_many(&wire.asks(&kinds[0]).await);
    // None of it was a guess: there is room for as many as may fail.
    for status in [401, 401, 429] {
        assert_eq!(asks(&world, "/oauth/token", &client, WRONG, "192.0.2.1").await.status(), status);
    }
}

#[tokio::test]
async fn a_client_that_asks_for_a_nonce_every_time_is_told_it_every_time() {
    let world = World::with(BEHIND_A_PROXY).await;
    let (client, holder) = (client(&world, "shop").await, Holder::new());
    let form = [("grant_type", "client_credentials")];
    for turn in 0..250 {
        let answer = holder.proves(&world, "/oauth/token", &form, Some((&client.id, &client.secret))).await;
        assert_eq!(answer.status(), 200, "{turn}: {}", answer.text());
    }
}

#[tokio::test]
async fn a13_a_guesser_makes_a_person_wait_at_his_own_address_only() {
    let mut world = World::with(&format!("{BEHIND_A_PROXY}[limits]\nauth_failures = \"2/min\"\n")).await;
    let login = format!("{}/login", world.beta.settings.url());
    let (right, name) = (world.operator.password.clone(), world.operator.login.clone());
    let logs_in = async |person: &mut Person, password: &str, from: &'static str| {
        let page = person.opens(&login).await;
        let form = page.form_with("password").and_then(|form| form.fill("username", &name)?.fill("password", password));
        let sent = form.expect("a log-in form").submit();
        let sent = sent.with_header(HeaderName::from_static("x-forwarded-for"), Some(HeaderValue::from_static(from)));
        person.browser.step(&sent).await.expect("an answer")
    };
    for _ in 0..2 {
        assert_eq!(logs_in(&mut world.operator, WRONG, "192.0.2.1").await.status, 401);
    }
    for password in [WRONG, &right] {
        let page = logs_in(&mut world.operator, password, "192.0.2.1").await;
        assert_eq!((page.status.as_u16(), page.headers.contains_key("retry-after")), (429, true), "{}", page.text());
        assert!(page.text().contains("Too many attempts failed. Try again in 30 seconds."), "{}", page.text());
    }
    assert_eq!(logs_in(&mut world.operator, &right, "192.0.2.2").await.status, 303);
}

#[tokio::test]
async fn an_address_is_what_a_trusted_proxy_saw_last() {
    let world = World::with(&format!("{BEHIND_A_PROXY}[limits]\nauth_failures = \"1/min\"\n")).await;
    let client = client(&world, "shop").await;
    let guesses = async |headers: &[(&str, &str)]| asks_through(&world, "/oauth/token", &client, WRONG, headers).await.status();
    const X: &str = "X-Forwarded-For";
    assert_eq!((guesses(&[(X, "192.0.2.1")]).await, guesses(&[(X, "2001:db8::1")]).await), (401, 401));
    let same: [&[(&str, &str)]; 7] = [
        &[(X, "192.0.2.1")],
        &[(X, "::ffff:192.0.2.1")],
        &[(X, "192.0.2.1:4711")],
        &[(X, "6.6.6.6, 192.0.2.1")],
        &[(X, "6.6.6.6"), (X, "192.0.2.1, 127.0.0.9")],
        &[(X, "nonsense,,192.0.2.1")],
        &[(X, "[2001:db8::9]:1")],
    ];
    for headers in same {
        assert_eq!(guesses(headers).await, 429, "{headers:?}");
    }
    let others: [&[(&str, &str)]; 3] = [&[(X, "192.0.2.1, 192.0.2.2")], &[(X, "192.0.2.3, 127.0.0.9")], &[(X, "2001:db8:0:1::1")]];
    for headers in others {
        assert_eq!(guesses(headers).await, 401, "{headers:?}");
    }
    // What names nobody is the proxy's own.
    assert_eq!(guesses(&[]).await, 401);
    let nobody: [&[(&str, &str)]; 4] =
        [&[(X, "192.0.2.9, nonsense")], &[(X, "")], &[("Forwarded", "for=unknown")], &[(X, "127.0.0.1, \u{e9}")]];
    for headers in nobody {
        assert_eq!(guesses(headers).await, 429, "{headers:?}");
    }
}

#[tokio::test]
async fn public_forwarded_header() {
    let world = World::with(&format!("{BEHIND_A_PROXY}[limits]\nauth_failures = \"1/min\"\n")).await;
    let client = client(&world, "shop").await;
    let guesses = async |headers: &[(&str, &str)]| asks_through(&world, "/oauth/token", &client, WRONG, headers).await.status();
    let both = |forwarded, other| [("Forwarded", forwarded), ("X-Forwarded-For", other)];
    // Whichever is there, and neither where they differ.
    assert_eq!(guesses(&[("Forwarded", "for=192.0.2.10")]).await, 401);
    assert_eq!(guesses(&[("X-Forwarded-For", "192.0.2.10")]).await, 429);
    assert_eq!(guesses(&both("for=192.0.2.10", "192.0.2.10")).await, 429);
    assert_eq!(guesses(&both("for=192.0.2.11", "192.0.2.12")).await, 401);
    assert_eq!(guesses(&both("for=192.0.2.13", "192.0.2.14")).await, 429);
    says(&world.beta, "[public]\nforwarded_header = \"x-forwarded-for\"").await;
    assert_eq!(guesses(&both("for=192.0.2.1", "192.0.2.2")).await, 401);
    assert_eq!(guesses(&both("for=192.0.2.3", "192.0.2.2")).await, 429);
    says(&world.beta, "[public]\nforwarded_header = \"forwarded\"").await;
    assert_eq!(guesses(&both("for=192.0.2.4", "192.0.2.2")).await, 401);
    for forwarded in ["for=192.0.2.4", "for=6.6.6.6, For=\"192.0.2.4:4711\";proto=https;by=127.0.0.9", "for=6.6.6.6;x=\"\", for=192.0.2.4"]
    {
        assert_eq!(guesses(&both(forwarded, "192.0.2.5")).await, 429, "{forwarded}");
    }
    // What names nobody is the proxy's own, which has guessed above.
    for forwarded in ["for=unknown", "for=_hidden", "for=\"192.0.2.9, for=192.0.2.9"] {
        assert_eq!(guesses(&both(forwarded, "192.0.2.7")).await, 429, "{forwarded}");
    }
}

#[tokio::test]
async fn nobody_but_a_trusted_proxy_says_where_a_request_comes_from() {
    let world = World::with("[public]\ntrusted_proxies = [\"10.0.0.0/8\"]\n[limits]\nauth_failures = \"1/min\"\n").await;
    let client = client(&world, "shop").await;
    let guesses = async |headers: &[(&str, &str)]| asks_through(&world, "/oauth/token", &client, WRONG, headers).await.status();
    assert_eq!(guesses(&[]).await, 401);
    for headers in [[("X-Forwarded-For", "192.0.2.1")], [("X-Forwarded-For", "10.0.0.1")], [("Forwarded", "for=192.0.2.2")]] {
        assert_eq!(guesses(&headers).await, 429, "{headers:?}");
    }
}
