//! Calls over a whole link, from a local application to the one behind the peer: streams, sockets, and what ends them.

use std::time::Duration;

use p2pid::clock::Clock;
use serde_json::json;

use crate::config_keys::says;
use crate::world::World;
use crate::world::client::Client;
use crate::world::hostile::{Endpoint, Fault};
use crate::world::patience::eventually;
use crate::world::scene::Scene;
use crate::world::settings::request;
use crate::world::wire::Wire;

/// A masked text frame that says "Hi", and what an echo answers to it.
const HI: &[u8] = &[0x81, 0x82, 1, 2, 3, 4, b'H' ^ 1, b'i' ^ 2];
const HI_AGAIN: &[u8] = &[0x81, 2, b'H', b'i'];

#[tokio::test]
async fn a_large_body_streams_there_and_back() {
    let (world, _) = World::linked().await;
    let body = "0123456789abcdef".repeat(200_000);
    let answer = world.alpha.relays("POST", "/beta/echo?x=1", &[("Content-Type", "text/plain")], &body).await;
    assert_eq!((answer.status(), answer.body.len()), (200, body.len()));
    assert!(answer.body == body.as_bytes());
    let large = world.alpha.calls(&world.beta, "/large?bytes=5000000").await;
    assert_eq!((large.status(), large.body.len()), (200, 5_000_000));
}

#[tokio::test]
async fn a_thousand_fresh_calls_ask_neither_database_anything() {
    let (world, _) = World::linked().await;
    let statements = async || {
        let mut counts = Vec::new();
        for node in [&world.alpha, &world.beta] {
            let metrics = node.console("/metrics").await.text();
            let count = metrics.lines().find_map(|line| line.strip_prefix("p2pid_store_statements_total ")).map(str::to_owned);
            counts.push(count.unwrap_or_else(|| panic!("no count in {metrics}")));
        }
        counts
    };
    // The first presentation of a token is written before the call goes on.
    assert_eq!(world.alpha.calls(&world.beta, "/orders").await.status(), 200);
    let before = statements().await;
    let mut wire = Wire::plain(world.alpha.settings.local).await;
    let request = format!("GET /beta/orders HTTP/1.1\r\nHost: {}\r\n\r\n", world.alpha.settings.local);
    for _ in 0..1_000 {
        assert_eq!(wire.asks(request.clone()).await.status(), 200);
    }
    assert_eq!(statements().await, before);
}

#[tokio::test]
async fn events_arrive_while_the_stream_is_open_and_end_with_the_grant() {
    let (world, _) = World::linked().await;
    let mut wire = asks(&world, "GET /beta/events HTTP/1.1\r\nHost: {}\r\n\r\n").await;
    reads_until(&mut wire, "data: event 1\n").await;
    revoke(&world).await;
    wire.ends().await;
}

#[tokio::test]
async fn a_websocket_outlives_its_token_and_ends_with_the_grant() {
    let (world, _) = World::linked().await;
    let upgrade = "GET /beta/socket HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut wire = asks(&world, upgrade).await;
    let answer = wire.answer().await.expect("an answer");
    assert_eq!((answer.status(), answer.header("sec-websocket-accept")), (101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
    says_hi(&mut wire).await;
    let first = world.alpha.shows("peer", "beta").await["token"]["expires_at"].clone();
    world.clock.advance(Duration::from_secs(59 * 60));
    eventually("a refresh", async || (world.alpha.shows("peer", "beta").await["token"]["expires_at"] != first).then_some(())).await;
    world.clock.advance(Duration::from_secs(10 * 60));
    says_hi(&mut wire).await;
    revoke(&world).await;
    wire.ends().await;
    let refused = world.alpha.calls(&world.beta, "/orders").await;
    assert_eq!((refused.status(), refused.header("p2pi-error")), (503, Some("relink_required")), "{}", refused.text());
}

#[tokio::test]
async fn a_scope_that_is_taken_from_an_app_or_that_a_route_comes_to_ask_for_ends_the_streams_that_need_it_and_no_other() {
    let world = World::new().await;
    let upstream = world.beta.application.url();
    let route =
        format!("[scopes]\nmore = \"More\"\n[[route]]\npath = \"/more\"\nupstream = \"{upstream}\"\nscopes = [\"p2pi\", \"more\"]\n");
    says(&world.beta, &route).await;
    let scopes = json!({ "grants": ["client_credentials"], "scopes": ["p2pi", "more"] });
    let client = Client::registered_with(&world.beta, "shop", scopes).await;
    let token = client.asks(&world.beta, &[("grant_type", "client_credentials")]).await.json();
    let token = format!("Bearer {}", token["access_token"].as_str().unwrap_or_else(|| panic!("{token}")));
    let opens = async |target: &str, more: &[(&str, &str)]| {
        let mut wire = Wire::tls(world.beta.settings.public, &world.beta.settings.authority()).await;
        let headers = [&[("Authorization", &*token)], more].concat();
        wire.sends(request("GET", target, &world.beta.settings.public.to_string(), &headers, "")).await;
        wire
    };
    let socket = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let (mut lost, mut kept) = (opens("/more/events", &[]).await, opens("/p2pi/events", &[]).await);
    let (mut lost_socket, mut kept_socket) = (opens("/more/socket", &socket).await, opens("/p2pi/socket", &socket).await);
    for wire in [&mut lost, &mut kept] {
        reads_until(wire, "data: event 1\n").await;
    }
    for wire in [&mut lost_socket, &mut kept_socket] {
        assert_eq!(wire.answer().await.map(|answer| answer.status()), Some(101));
        says_hi(wire).await;
    }

    world.beta.changes("ib-app", "shop", json!({ "scopes": ["p2pi", "more"] })).await;
    says_hi(&mut lost_socket).await;
    world.beta.changes("ib-app", "shop", json!({ "scopes": ["p2pi"] })).await;
    lost.ends().await;
    lost_socket.ends().await;
    says_hi(&mut kept_socket).await;
    reads_until(&mut kept, "data: event ").await;
    assert_eq!(opens("/more/orders", &[]).await.answer().await.map(|answer| answer.status()), Some(403));

    // Given back it opens streams again, which end when their route asks for more than their token has.
    world.beta.changes("ib-app", "shop", json!({ "scopes": ["p2pi", "more"] })).await;
    let (mut outgrown, mut outgrown_socket) = (opens("/more/events", &[]).await, opens("/more/socket", &socket).await);
    reads_until(&mut outgrown, "data: event 1\n").await;
    assert_eq!(outgrown_socket.answer().await.map(|answer| answer.status()), Some(101));
    says_hi(&mut outgrown_socket).await;
    says(&world.beta, &route.replace("[[route]]", "most = \"Most\"\n[[route]]").replace("\"more\"]", "\"more\", \"most\"]")).await;
    outgrown.ends().await;
    outgrown_socket.ends().await;
    says_hi(&mut kept_socket).await;
    reads_until(&mut kept, "data: event ").await;
    assert_eq!(opens("/more/orders", &[]).await.answer().await.map(|answer| answer.status()), Some(403));

    // Others end when the app is deleted.
    says(&world.beta, &route).await;
    let mut again = opens("/more/events", &[]).await;
    reads_until(&mut again, "data: event 1\n").await;
    let answer = world.beta.asks("DELETE", "/v2/tenants/default/ib-apps/shop", None).await;
    assert!(answer.status() < 300, "{}", answer.text());
    for mut wire in [again, kept, kept_socket] {
        wire.ends().await;
    }
}

#[tokio::test]
async fn a_route_that_a_reload_takes_away_or_gives_to_another_tenant_ends_its_streams_and_no_other() {
    let (world, tokens) = {
        let mut world = World::new().await;
        let client = Client::registered(&world.beta, "shop").await;
        let tokens = client.tokens(&world.beta, &mut world.operator).await;
        (world, tokens)
    };
    let upstream = world.beta.application.url();
    let route = |more: &str| format!("[[route]]\npath = \"/more\"\nupstream = \"{upstream}\"\n{more}");
    let opens = async |target: &str| {
        let mut wire = Wire::tls(world.beta.settings.public, &world.beta.settings.authority()).await;
        let bearer = [("Authorization", &*format!("Bearer {}", tokens.access))];
        wire.sends(request("GET", target, &world.beta.settings.public.to_string(), &bearer, "")).await;
        reads_until(&mut wire, "data: event 1\n").await;
        wire
    };
    says(&world.beta, &route("")).await;
    let (mut kept, mut more) = (opens("/p2pi/events").await, opens("/more/events").await);
    // What leaves it the route that it was lets it go on.
    says(&world.beta, &route("methods = [\"POST\"]")).await;
    reads_until(&mut more, "data: event ").await;
    says(&world.beta, &route("tenant = \"sales\"")).await;
    more.ends().await;
    says(&world.beta, &route("")).await;
    let mut again = opens("/more/events").await;
    says(&world.beta, "").await;
    again.ends().await;
    reads_until(&mut kept, "data: event ").await;
}

/// Reads until `text` has come.
pub(crate) async fn reads_until(wire: &mut Wire, text: &str) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        let bytes = wire.some_bytes(4096).await;
        assert!(!bytes.is_empty(), "it ended early: {}", String::from_utf8_lossy(&seen));
        seen.extend(bytes);
    }
}

#[tokio::test]
async fn a_reboot_of_the_machine_leaves_a_link_as_it_was() {
    let (mut world, _) = World::linked().await;
    world.clock.advance(Duration::from_secs(600));
    for _ in 0..2 {
        world.alpha.stops().await;
        world.beta.stops().await;
        world.clock.reboot();
        world.alpha.starts().await;
        world.beta.starts().await;
        assert_eq!(world.alpha.calls(&world.beta, "/orders").await.status(), 200);
        let before = world.alpha.shows("peer", "beta").await["token"]["expires_at"].clone();
        world.clock.advance(Duration::from_secs(59 * 60));
        eventually("a refresh", async || (world.alpha.shows("peer", "beta").await["token"]["expires_at"] != before).then_some(())).await;
    }
}

#[tokio::test]
async fn a_peer_that_refuses_every_token_is_refreshed_once_per_call_and_its_answer_passes() {
    let scene = Scene::linked_with(super::world::hostile::Hostile::poses_as_p2pid).await;
    scene.clock.advance(Duration::from_secs(60));
    scene.two.always(Endpoint::Resource, Fault::InvalidToken);
    let answer = scene.calls().await;
    assert_eq!((answer.status(), answer.header("p2pi-error")), (401, Some("invalid_token")), "{}", answer.text());
    assert_eq!((scene.refreshes().len(), scene.two.heard(Endpoint::Resource).len()), (1, 2), "one refresh, one replay, no more");
}

#[tokio::test]
async fn a_peer_that_gives_the_same_tokens_again_or_less_than_asked_stays_linked() {
    let scene = Scene::linked().await;
    scene.two.next(Endpoint::Token, Fault::SameTokensAgain);
    scene.passes_until_refreshes(Duration::from_secs(60), 1).await;
    assert_eq!(scene.calls().await.status(), 200);
    scene.two.next(Endpoint::Token, Fault::Scope("less"));
    scene.passes_until_refreshes(Duration::from_secs(60), 2).await;
    let peer = eventually("the new scope", async || Some(scene.peer().await).filter(|peer| peer["token"]["scope"] == "less")).await;
    assert_eq!(peer["state"], "linked", "{peer}");
}

#[tokio::test]
async fn a_grant_that_is_revoked_twice_within_seconds_asks_for_a_new_link_each_time() {
    let (mut world, _) = World::linked().await;
    for turn in ["the first", "the second"] {
        assert_eq!(world.alpha.calls(&world.beta, "/orders").await.status(), 200, "{turn}");
        let grants = world.beta.lists("grant").await;
        let live = grants.iter().find(|grant| grant["ended_at"].is_null()).expect("a live grant");
        let path = format!("/v2/tenants/default/grants/{}", live["id"].as_str().expect("a grant has an id"));
        assert!((200..300).contains(&world.beta.asks("DELETE", &path, None).await.status()));
        let refused = world.alpha.calls(&world.beta, "/orders").await;
        assert_eq!((refused.status(), refused.header("p2pi-error")), (503, Some("relink_required")), "{turn}: {}", refused.text());
        let url = world.alpha.request_url("beta").await;
        let page = world.operator.opens(&url).continues().allows().await;
        assert_eq!(page.status, 200, "still signed in: {}", page.text());
    }
}

#[tokio::test]
async fn a_401_of_an_application_behind_a_gateway_passes_and_costs_nothing() {
    let scene = Scene::linked_with(super::world::hostile::Hostile::poses_as_p2pid).await;
    scene.two.always(Endpoint::Resource, Fault::Status(401));
    assert_eq!(scene.calls().await.status(), 401);
    assert_eq!((scene.refreshes().len(), scene.two.heard(Endpoint::Resource).len()), (0, 1), "it is asked once");
}

#[tokio::test]
async fn g5_a_request_to_our_own_paths_names_its_host_once() {
    let (world, _) = World::linked().await;
    for hosts in ["", "Host: a\r\nHost: a\r\n"] {
        for target in ["/login", "/oauth/token", "/.well-known/oauth-authorization-server", "/p2pi/x"] {
            let mut wire = Wire::tls(world.beta.settings.public, &world.beta.settings.authority()).await;
            let answer = wire.asks(format!("GET {target} HTTP/1.1\r\n{hosts}\r\n")).await;
            assert_eq!((answer.status(), answer.header("p2pi-error")), (400, Some("bad_request")), "{target} {hosts:?}");
        }
    }
}

#[tokio::test]
async fn calls_that_maintenance_holds_back_say_when_it_ends() {
    let (world, _) = World::linked().await;
    for (minutes, retry_after) in [(10, "600"), (120, "3600")] {
        let until = world.clock.now().wall.plus(Duration::from_secs(minutes * 60)).to_string();
        world.alpha.acts("peer", "beta", "maintenance", json!({ "until": until })).await;
        let answer = world.alpha.calls(&world.beta, "/orders").await;
        let told = (answer.status(), answer.header("p2pi-error"), answer.header("retry-after"));
        assert_eq!(told, (503, Some("peer_maintenance"), Some(retry_after)), "{}", answer.text());
    }
    world.alpha.acts("peer", "beta", "maintenance", json!({ "until": "off" })).await;
    assert_eq!(world.alpha.calls(&world.beta, "/orders").await.status(), 200);
}

#[tokio::test]
async fn our_own_paths_where_nothing_is_say_so_to_browsers_and_programs() {
    let (world, _) = World::linked().await;
    for (method, path, status, code) in [
        ("GET", "/link", 404, "no_route"),
        ("GET", "/link/", 404, "no_route"),
        ("POST", "/oauth/device", 404, "no_route"),
        ("GET", "/.well-known/oauth-authorization-server/p2pi", 404, "no_route"),
        ("DELETE", "/login", 405, "method_not_allowed"),
    ] {
        let page = world.alpha.is_asked(method, path, &[("Accept", "text/html,*/*;q=0.8")], "").await;
        assert_eq!(page.status(), status, "{method} {path}");
        assert!(page.text().contains("<html") && page.header("content-security-policy").is_some(), "{method} {path}: {}", page.text());
        let problem = world.alpha.is_asked(method, path, &[], "").await;
        assert_eq!((problem.status(), problem.header("p2pi-error")), (status, Some(code)), "{method} {path}");
        assert_eq!(problem.header("content-type"), Some("application/problem+json"), "{method} {path}");
        assert_eq!(problem.header("allow").is_some(), status == 405, "{method} {path}");
    }
}

/// Sends a request at the relay, with its Host filled in.
async fn asks(world: &World, request: &str) -> Wire {
    let mut wire = Wire::plain(world.alpha.settings.local).await;
    wire.sends(request.replace("{}", &world.alpha.settings.local.to_string())).await;
    wire
}

async fn says_hi(wire: &mut Wire) {
    wire.sends(HI).await;
    let mut answer = Vec::new();
    while answer.len() < HI_AGAIN.len() {
        let bytes = wire.some_bytes(HI_AGAIN.len() - answer.len()).await;
        assert!(!bytes.is_empty(), "the socket ended");
        answer.extend(bytes);
    }
    assert_eq!(answer, HI_AGAIN);
}

/// Somebody on `beta` ends what alpha holds.
async fn revoke(world: &World) {
    let grants = world.beta.lists("grant").await;
    let id = grants[0]["id"].as_str().expect("a grant has an id");
    let answer = world.beta.asks("DELETE", &format!("/v2/tenants/default/grants/{id}"), None).await;
    assert!((200..300).contains(&answer.status()), "{}", answer.text());
}
