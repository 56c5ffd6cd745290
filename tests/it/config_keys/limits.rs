//! `[limits]`: each limit is lowered until something reaches it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use p2pid::clock::Clock;
use serde_json::json;

use super::says;
use crate::world::World;
use crate::world::client::Client;
use crate::world::clock::ManualClock;
use crate::world::hostile::{Endpoint, Fault, Hostile};
use crate::world::message::Message;
use crate::world::node::Node;
use crate::world::patience::{eventually, within};
use crate::world::person::Person;
use crate::world::settings::request;
use crate::world::wire::Wire;

/// A node that may call a peer with user name and password.
async fn calling() -> (Node, Hostile) {
    let clock = Arc::new(ManualClock::new());
    let peer = Hostile::start(Arc::clone(&clock) as _).await;
    let mut node = Node::new("alpha", &clock, 1).await;
    node.starts().await;
    let authority = std::fs::read_to_string(peer.authority()).expect("its certificate");
    node.creates("peer", json!({ "name": "far", "url": peer.url(), "username": "alpha", "password": "correct horse", "ca": authority }))
        .await;
    (node, peer)
}

fn error_of(answer: &Message) -> (u16, Option<&str>) {
    (answer.status(), answer.header("p2pi-error"))
}

#[tokio::test]
async fn header_bytes() {
    let (node, _peer) = calling().await;
    let long = "x".repeat(12 << 10);
    let call = async || node.relays("GET", "/far/x", &[("X-Long", &long)], "").await;
    assert_ne!(call().await.status(), 431);
    says(&node, "[limits]\nheader_bytes = \"8KiB\"").await;
    let refused = eventually("the lower limit", async || Some(call().await).filter(|answer| answer.status() == 431)).await;
    assert_eq!(error_of(&refused), (431, Some("header_too_large")));
    assert_eq!(refused.header("p2pi-error-from"), Some("alpha"));
}

#[tokio::test]
async fn form_bytes() {
    let (node, _peer) = calling().await;
    let create = |name: &str| json!({ "data": { "type": "tenant", "attributes": { "name": name } } });
    let long = json!({ "data": { "type": "tenant", "attributes": { "name": "x".repeat(2_000) } } });
    assert_eq!(node.asks("POST", "/v2/tenants", Some(&long)).await.status(), 400, "a name that is too long, but read");
    says(&node, "[limits]\nform_bytes = \"1KiB\"").await;
    assert_eq!(node.asks("POST", "/v2/tenants", Some(&long)).await.status(), 413);
    assert_eq!(node.asks("POST", "/v2/tenants", Some(&create("sales"))).await.status(), 201);
}

#[tokio::test]
async fn body_bytes() {
    let (node, _peer) = calling().await;
    let call = async || node.relays("POST", "/far/x", &[], "eleven byte").await;
    assert_ne!(call().await.status(), 413);
    says(&node, "[limits]\nbody_bytes = 10").await;
    assert_eq!(error_of(&call().await), (413, Some("body_too_large")));
}

#[tokio::test]
async fn connections() {
    let (node, peer) = calling().await;
    says(&node, "[limits]\nconnections = 1").await;
    peer.always(Endpoint::Resource, Fault::Held);
    let host = node.settings.local.to_string();
    let mut first = Wire::plain(node.settings.local).await;
    first.sends(request("GET", "/far/x", &host, &[], "")).await;
    peer.hears(1, Endpoint::Resource).await;
    let mut second = Wire::plain(node.settings.local).await;
    let refused = second.sends(request("GET", "/nobody/x", &host, &[], "")).await.answer().await;
    assert!(refused.as_ref().is_none_or(|answer| answer.status() == 503), "{refused:?}");
    assert_eq!(node.asks("GET", "/v2/status", None).await.status(), 200, "commands get in all the same");
    peer.release();
    assert!(first.answer().await.is_some(), "the first goes on");
}

/// Opens so many streams of events through `alpha` to the application behind `beta`.
async fn streams(world: &World, count: usize) -> Vec<Wire> {
    let mut open = Vec::new();
    for _ in 0..count {
        let mut wire = Wire::plain(world.alpha.settings.local).await;
        wire.sends(request("GET", "/beta/events", &world.alpha.settings.local.to_string(), &[], "")).await;
        let head = wire.some_bytes(12).await;
        assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
        open.push(wire);
    }
    open
}

/// A token of a new app that acts for itself, at `beta`.
async fn app_token(world: &World, name: &str) -> String {
    let scopes = json!({ "grants": ["client_credentials"], "scopes": ["p2pi"] });
    let client = Client::registered_with(&world.beta, name, scopes).await;
    let answer = client.asks(&world.beta, &[("grant_type", "client_credentials")]).await;
    answer.json()["access_token"].as_str().unwrap_or_else(|| panic!("{}", answer.text())).to_owned()
}

/// Opens a stream of events at `beta` with a token, or tells why not.
async fn opens_stream(world: &World, token: &str) -> Result<Wire, Message> {
    let mut wire = Wire::tls(world.beta.settings.public, &world.beta.settings.authority()).await;
    let bearer = format!("Bearer {token}");
    let asked = |target| request("GET", target, &world.beta.settings.public.to_string(), &[("Authorization", &bearer)], "");
    wire.sends(asked("/p2pi/events")).await;
    let mut head = wire.some_bytes(12).await;
    if head.starts_with(b"HTTP/1.1 200") {
        return Ok(wire);
    }
    // A refusal is read whole: the same request gets the same answer.
    head.clear();
    Err(world.beta.is_asked("GET", "/p2pi/events", &[("Authorization", &bearer)], "").await)
}

#[tokio::test]
async fn however_many_grants_an_app_has_it_takes_no_more_than_one_apps_share() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    let (first, second) = (client.tokens(&world.beta, &mut world.operator).await, client.tokens(&world.beta, &mut world.operator).await);
    let other = app_token(&world, "other").await;
    // Nine for calls to applications, of which an app has four.
    says(&world.beta, "[limits]\noutgoing_connections = 20\ncalls_per_grant = 3").await;
    let mut open = Vec::new();
    for token in [&first, &first, &first, &second] {
        open.push(opens_stream(&world, &token.access).await.expect("a place"));
    }
    let refused = opens_stream(&world, &first.access).await.err().expect("this grant has three");
    assert!(refused.text().contains("limits.calls_per_grant"), "{}", refused.text());
    let refused = opens_stream(&world, &second.access).await.err().expect("the app has four");
    assert_eq!(error_of(&refused), (503, Some("overloaded")));
    assert!(refused.text().contains("4 calls of this app"), "{}", refused.text());
    assert!(opens_stream(&world, &other).await.is_ok(), "another app");
}

#[tokio::test]
async fn outgoing_connections() {
    let (world, _) = World::linked().await;
    let (one, other) = (app_token(&world, "one").await, app_token(&world, "other").await);
    // Three for calls to applications, of which an app has one; three for those to peers, two of its own.
    says(&world.beta, "[limits]\noutgoing_connections = 8").await;
    let open = (opens_stream(&world, &one).await.expect("a place"), opens_stream(&world, &other).await.expect("a place"));
    let second = opens_stream(&world, &one).await.err().expect("an app has one");
    assert!(second.text().contains("1 calls with this grant"), "{}", second.text());
    let open = (open, streams(&world, 1).await);
    let third = app_token(&world, "third").await;
    let refused = opens_stream(&world, &third).await.err().expect("all are taken");
    assert!(refused.text().contains("all 3 connections"), "{}", refused.text());
    assert_eq!(error_of(&refused), (503, Some("overloaded")));
    assert!(refused.header("retry-after").is_some() && refused.text().contains("limits.outgoing_connections"), "{}", refused.text());

    // What it asks itself gets through meanwhile.
    let authority = std::fs::read_to_string(world.alpha.settings.authority()).expect("its certificate");
    let attributes = json!({ "name": "alpha", "url": world.alpha.settings.url(), "client_id": "x", "client_secret": "y", "ca": authority });
    let made = world.beta.creates("peer", attributes).await;
    assert!(made["probe"].as_str().is_some_and(|probe| probe.starts_with("reached ")), "{made}");

    drop(open);
    eventually("places that are free again", async || (world.alpha.calls(&world.beta, "/orders").await.status() == 200).then_some(()))
        .await;
}

#[tokio::test]
async fn calls_per_grant() {
    let (world, _) = World::linked().await;
    says(&world.beta, "[limits]\ncalls_per_grant = 2").await;
    let open = streams(&world, 1).await;
    let socket = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let mut wire = Wire::plain(world.alpha.settings.local).await;
    assert_eq!(wire.asks(request("GET", "/beta/socket", &world.alpha.settings.local.to_string(), &socket, "")).await.status(), 101);
    let refused = world.alpha.calls(&world.beta, "/orders").await;
    assert_eq!(error_of(&refused), (503, Some("overloaded")));
    assert_eq!(refused.header("p2pi-error-from"), Some("beta"));
    drop(wire);
    eventually("the WebSocket's place", async || (world.alpha.calls(&world.beta, "/orders").await.status() == 200).then_some(())).await;
    drop((open, streams(&world, 1).await));
    eventually("places that are free again", async || (world.alpha.calls(&world.beta, "/orders").await.status() == 200).then_some(()))
        .await;
}

#[tokio::test]
async fn calls_per_caller() {
    let (world, _) = World::linked().await;
    says(&world.alpha, "[limits]\ncalls_per_caller = 2").await;
    let open = streams(&world, 2).await;
    let refused = world.alpha.calls(&world.beta, "/orders").await;
    assert_eq!(error_of(&refused), (503, Some("overloaded")));
    assert_eq!(refused.header("p2pi-error-from"), Some("alpha"));
    let made = world.alpha.creates("caller", json!({ "name": "other" })).await;
    let key = format!("Bearer {}", made["key"].as_str().unwrap_or_else(|| panic!("no key in {made}")));
    assert_eq!(world.alpha.relays("GET", "/beta/orders", &[("Authorization", &key)], "").await.status(), 200, "another caller");
    drop(open);
    eventually("places that are free again", async || (world.alpha.calls(&world.beta, "/orders").await.status() == 200).then_some(()))
        .await;
}

#[tokio::test]
async fn who_waits_for_a_peer_has_a_place_of_the_caller() {
    let (node, peer) = calling().await;
    says(&node, "[limits]\ncalls_per_peer = 1\nqueue_per_peer = 8\ncalls_per_caller = 2").await;
    peer.always(Endpoint::Resource, Fault::Held);
    let call = || node.relays("GET", "/far/x", &[], "");
    let first = async { call().await.status() };
    let others = async {
        peer.hears(1, Endpoint::Resource).await;
        // Of two more one waits for the peer and the other is one too many, though there is room in the queue.
        let (one, other) = (std::pin::pin!(call()), std::pin::pin!(call()));
        let (refused, waiting) = futures_util::future::select(one, other).await.factor_first();
        assert_eq!(error_of(&refused), (503, Some("overloaded")));
        assert!(refused.text().contains("limits.calls_per_caller"), "{}", refused.text());
        peer.behaves();
        peer.release();
        waiting.await.status()
    };
    let (first, waited) = within("both calls", async { tokio::join!(first, others) }).await;
    assert!(first != 503 && waited != 503, "{first} {waited}");
}

#[tokio::test]
async fn calls_per_peer_and_queue_per_peer() {
    let (node, peer) = calling().await;
    says(&node, "[limits]\ncalls_per_peer = 1\nqueue_per_peer = 0").await;
    peer.always(Endpoint::Resource, Fault::Held);
    let call = || node.relays("GET", "/far/x", &[], "");
    let first = async { call().await.status() };
    let second = async {
        peer.hears(1, Endpoint::Resource).await;
        let refused = call().await;
        assert_eq!(error_of(&refused), (503, Some("overloaded")));
        assert!(refused.header("retry-after").is_some());
        says(&node, "[limits]\ncalls_per_peer = 1\nqueue_per_peer = 1").await;
        // Of two more, one is refused: then the other is in the queue, where there is room for one.
        let (one, other) = (std::pin::pin!(call()), std::pin::pin!(call()));
        let (refused, waiting) = futures_util::future::select(one, other).await.factor_first();
        assert_eq!(error_of(&refused), (503, Some("overloaded")));
        peer.behaves();
        peer.release();
        waiting.await.status()
    };
    let (first, second) = within("both calls", async { tokio::join!(first, second) }).await;
    assert!(first != 503 && second != 503, "{first} {second}");
}

#[tokio::test]
async fn connect_timeout() {
    let (node, _peer) = calling().await;
    // It takes connections and never says anything: TLS is part of connecting.
    let silent = tokio::net::TcpListener::bind((node.settings.local.ip(), 0)).await.expect("an address");
    says(&node, "[limits]\nconnect_timeout = \"300ms\"").await;
    let url = format!("https://{}", silent.local_addr().expect("an address"));
    node.creates("peer", json!({ "name": "silent", "url": url, "username": "alpha", "password": "correct horse" })).await;
    let answer = node.relays("GET", "/silent/x", &[], "").await;
    assert_eq!(error_of(&answer), (502, Some("peer_unreachable")));
    assert!(answer.text().contains("within 300ms"), "{}", answer.text());
}

#[tokio::test]
async fn first_byte_timeout() {
    let (node, peer) = calling().await;
    says(&node, "[limits]\nfirst_byte_timeout = \"300ms\"").await;
    peer.next(Endpoint::Resource, Fault::Held);
    assert_eq!(error_of(&node.relays("GET", "/far/x", &[], "").await), (504, Some("peer_timeout")));
}

#[tokio::test]
async fn idle_timeout() {
    let (node, _peer) = calling().await;
    let call = request("GET", "/nobody/x", &node.settings.local.to_string(), &[], "");
    let mut old = Wire::plain(node.settings.local).await;
    assert_eq!(old.asks(&call).await.status(), 404);
    says(&node, "[limits]\nidle_timeout = \"300ms\"").await;
    let mut wire = Wire::plain(node.settings.local).await;
    assert_eq!(wire.asks(&call).await.status(), 404);
    let begun = Instant::now();
    wire.ends().await;
    assert!(begun.elapsed() < Duration::from_secs(55), "{:?}: the limit that holds without the key is 60 s", begun.elapsed());
    // Silent for longer than the new limit allows.
    assert_eq!(old.asks(&call).await.status(), 404, "a connection from before the change keeps its limit and goes on");
}

#[tokio::test]
async fn drain() {
    let (mut node, peer) = calling().await;
    says(&node, "[limits]\ndrain = \"300ms\"").await;
    peer.always(Endpoint::Resource, Fault::Held);
    let mut wire = Wire::plain(node.settings.local).await;
    wire.sends(request("GET", "/far/x", &node.settings.local.to_string(), &[], "")).await;
    peer.hears(1, Endpoint::Resource).await;
    let begun = Instant::now();
    node.stops().await;
    let took = begun.elapsed();
    // The limit that holds without the key is 10 s.
    assert!((Duration::from_millis(300)..Duration::from_secs(10)).contains(&took), "{took:?}");
    wire.ends().await;
}

/// A world whose alpha is linked to a peer that takes refreshes and does not answer, and whose token has run out.
async fn waiting_for_a_refresh(limits: &str) -> (World, Hostile) {
    let mut world = World::new().await;
    let peer = Hostile::start(Arc::clone(&world.clock) as _).await;
    let authority = std::fs::read_to_string(peer.authority()).expect("its certificate");
    let record = json!({
        "name": "far", "url": peer.url(), "ca": authority, "client_id": "alpha", "client_secret": "correct horse battery", "scopes": ["p2pi"],
    });
    world.alpha.creates("peer", record).await;
    let url = world.alpha.request_url("far").await;
    world.operator = Person::new("nobody", "nothing", &[world.alpha.settings.authority(), peer.authority()]);
    let page = world.operator.opens(&url).continues().await;
    assert_eq!((page.status.as_u16(), world.alpha.state_of("far").await.as_str()), (200, "linked"), "{}", page.text());
    says(&world.alpha, limits).await;
    peer.always(Endpoint::Token, Fault::Held);
    world.clock.advance(Duration::from_secs(86_400));
    (world, peer)
}

#[tokio::test]
async fn refresh_wait() {
    let (mut world, _peer) = waiting_for_a_refresh("[limits]\nrefresh_wait = \"2s\"\ntoken_timeout = \"1h\"").await;
    let begun = world.clock.now();
    let call = world.alpha.relays("GET", "/far/x", &[], "");
    let time = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            world.clock.advance(Duration::from_millis(50));
        }
    };
    let answer = tokio::select! { answer = call => answer, () = time => unreachable!("time does not end") };
    assert_eq!(error_of(&answer), (503, Some("refresh_failed")), "{}", answer.text());
    let waited = world.clock.now().age_of(&begun);
    assert!((Duration::from_secs(2)..Duration::from_secs(8)).contains(&waited), "{waited:?}");
    world.alpha.stops().await;
}

#[tokio::test]
async fn token_timeout() {
    let (mut world, peer) = waiting_for_a_refresh("[limits]\ntoken_timeout = \"300ms\"").await;
    peer.hears(2, Endpoint::Token).await;
    let shown = eventually("the answer to be given up", async || {
        let shown = world.alpha.shows("peer", "far").await;
        (shown["state"] == "degraded").then_some(shown)
    })
    .await;
    assert!(shown["reason"].as_str().is_some_and(|reason| reason.contains("within 300ms")), "{shown}");
    world.alpha.stops().await;
}

#[tokio::test]
async fn auth_failures() {
    let world = World::new().await;
    let app = world.introduces().await;
    let client = app["client_id"].as_str().expect("a client id");
    says(&world.beta, "[limits]\nauth_failures = \"2/min\"").await;
    let guess = async || {
        let form = [("grant_type", "refresh_token"), ("refresh_token", "none")];
        world.beta.gets_form("/oauth/token", (client, "a wrong secret of some length"), &form).await
    };
    assert_eq!((guess().await.status(), guess().await.status()), (401, 401));
    let refused = guess().await;
    assert_eq!((refused.status(), refused.header("p2pi-error")), (429, Some("rate_limited")), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
}

#[tokio::test]
async fn auth_failures_counts_wrong_keys_of_callers() {
    let (node, _peer) = calling().await;
    let key = node.creates("caller", json!({ "name": "shop" })).await["key"].as_str().expect("a key").to_owned();
    let calls = async |key: &str| node.relays("GET", "/far/x", &[("Authorization", &format!("Bearer {key}"))], "").await;
    for _ in 0..20 {
        assert_eq!(calls("p2pc_wrong").await.header("p2pi-error"), Some("caller_denied"));
    }
    let refused = calls("p2pc_wrong").await;
    assert_eq!((refused.status(), refused.header("p2pi-error")), (429, Some("rate_limited")), "{}", refused.text());
    assert_eq!((refused.header("content-type"), refused.header("retry-after")), (Some("application/problem+json"), Some("3")));
    assert_ne!(calls(&key).await.header("p2pi-error"), Some("rate_limited"), "a right key never waits");
    says(&node, "[limits]\nauth_failures = \"2/min\"").await;
    assert_eq!(calls("p2pc_wrong").await.header("retry-after"), Some("30"));
}

#[tokio::test]
async fn auth_failures_counts_wrong_keys_of_people() {
    let (node, _peer) = calling().await;
    says(&node, "[public]\nadmin_api = true").await;
    node.creates("user", json!({ "login": "ops@example.com", "password": "correct horse battery", "admin": true })).await;
    let key = node.asks("POST", "/v2/users/ops@example.com/key", Some(&json!({ "data": { "type": "user", "attributes": {} } }))).await;
    let key = key.json()["data"]["attributes"]["api_key"].as_str().expect("a key").to_owned();
    let basic = |key: &str| format!("Basic {}", STANDARD.encode(format!("ops@example.com:{key}")));
    let console = async |key: &str| {
        let host = node.settings.console.to_string();
        let request = request("GET", "/v2/tenants", &host, &[("Authorization", &basic(key))], "");
        Wire::plain(node.settings.console).await.asks(request).await
    };
    for _ in 0..20 {
        assert_eq!(console("p2pk_wrong").await.status(), 401);
    }
    let outside = async |key: &str| node.is_asked("GET", "/v2/tenants", &[("Authorization", &basic(key))], "").await;
    for refused in [console("p2pk_wrong").await, outside("p2pk_wrong").await] {
        assert_eq!((refused.status(), &refused.json()["errors"][0]["code"]), (429, &json!("rate_limited")), "{}", refused.text());
        assert_eq!(refused.header("p2pi-error"), Some("rate_limited"), "{}", refused.text());
        assert!(refused.header("retry-after").is_some());
    }
    assert_eq!((console(&key).await.status(), outside(&key).await.status()), (200, 200), "a right key never waits");
}
