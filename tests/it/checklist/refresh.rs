//! R: refresh tokens, seen from the client.

use std::time::Duration;

use serde_json::json;

use super::{granted, granted_with, is_accepted, refused};
use crate::world::World;
use crate::world::client::{Client, Tokens};
use crate::world::settings::request;
use crate::world::wire::Wire;

#[tokio::test]
async fn r1_a_refresh_token_is_its_clients_alone() {
    let (world, client, tokens) = granted().await;
    let thief = Client::registered(&world.beta, "thief").await;
    refused(&thief.refreshes(&world.beta, &tokens.refresh).await, 400, "invalid_grant");
    refused(&client.refreshes(&world.beta, &tokens.access).await, 400, "invalid_grant");
    assert_eq!(client.refreshes(&world.beta, &tokens.refresh).await.status(), 200);
}

#[tokio::test]
async fn r2_a_narrower_scope_does_not_last() {
    let world = World::with("[scopes]\nmore = \"More\"\n").await;
    let mut world = world;
    let client = Client::registered_with(&world.beta, "shop", json!({ "scopes": ["p2pi", "more"] })).await;
    let led = world.operator.decides(&client.authorize(&world.beta).with("scope", "p2pi more").url(), "allow").await;
    let tokens = Tokens::of(&client.redeems(&world.beta, &led.parameter("code").expect("a code")).await);
    let form = [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.as_str()), ("scope", "more")];
    let narrow = client.asks(&world.beta, &form).await;
    assert_eq!(narrow.json()["scope"], "more");
    let narrow = Tokens::of(&narrow);
    assert!(!is_accepted(&world, &narrow.access).await, "the route needs p2pi");
    let wide = Tokens::of(&client.refreshes(&world.beta, &narrow.refresh).await);
    assert!(is_accepted(&world, &wide.access).await);
}

#[tokio::test]
async fn r2_t10_what_is_taken_from_an_app_is_in_none_of_its_tokens() {
    let mut world = World::with("[scopes]\nmore = \"More\"\n").await;
    let client = Client::registered_with(&world.beta, "shop", json!({ "scopes": ["p2pi", "more"] })).await;
    let led = world.operator.decides(&client.authorize(&world.beta).with("scope", "p2pi more").url(), "allow").await;
    let tokens = Tokens::of(&client.redeems(&world.beta, &led.parameter("code").expect("a code")).await);
    assert!(is_accepted(&world, &tokens.access).await);
    world.beta.changes("ib-app", "shop", json!({ "scopes": ["more"] })).await;
    assert!(!is_accepted(&world, &tokens.access).await, "on the next call");
    for token in [&tokens.access, &tokens.refresh] {
        assert_eq!(client.introspects(&world.beta, token).await.json()["scope"], "more");
    }
    let answer = client.refreshes(&world.beta, &tokens.refresh).await;
    assert_eq!(answer.json()["scope"], "more", "{}", answer.text());
    let renewed = Tokens::of(&answer);
    assert!(!is_accepted(&world, &renewed.access).await);
    assert_eq!(client.introspects(&world.beta, &renewed.access).await.json()["scope"], "more");
}

#[tokio::test]
async fn r3_r4_parallel_and_repeated_refreshes_get_the_same_token_and_one_branch_lives() {
    let (world, client, tokens) = granted().await;
    let (a, b, c) = tokio::join!(
        client.refreshes(&world.beta, &tokens.refresh),
        client.refreshes(&world.beta, &tokens.refresh),
        client.refreshes(&world.beta, &tokens.refresh)
    );
    let [a, b, c] = [a, b, c].map(|answer| Tokens::of(&answer));
    assert!(a.refresh == b.refresh && b.refresh == c.refresh, "one branch");
    let late = Tokens::of(&client.refreshes(&world.beta, &tokens.refresh).await);
    assert_eq!(late.refresh, a.refresh, "inside the window the answer is repeated");
    world.clock.advance(Duration::from_secs(61));
    let other = Tokens::of(&client.refreshes(&world.beta, &tokens.refresh).await);
    assert_ne!(other.refresh, a.refresh, "after it a successor that nobody presented is withdrawn");
    refused(&client.refreshes(&world.beta, &a.refresh).await, 400, "invalid_grant");
    assert_eq!(client.refreshes(&world.beta, &other.refresh).await.status(), 200, "and harmed nothing");
}

#[tokio::test]
async fn r5_reuse_after_the_successor_was_used_and_the_window_is_over_ends_that_grant_alone() {
    let (mut world, client, stolen) = granted().await;
    let other = client.tokens(&world.beta, &mut world.operator).await;
    let next = Tokens::of(&client.refreshes(&world.beta, &stolen.refresh).await);
    assert!(is_accepted(&world, &next.access).await);
    world.clock.advance(Duration::from_secs(61));
    refused(&client.refreshes(&world.beta, &stolen.refresh).await, 400, "invalid_grant");
    assert!(!is_accepted(&world, &next.access).await);
    refused(&client.refreshes(&world.beta, &next.refresh).await, 400, "invalid_grant");
    assert_eq!(client.refreshes(&world.beta, &other.refresh).await.status(), 200, "other grants are untouched");
}

#[tokio::test]
async fn r5_introspecting_a_new_access_token_is_a_use_of_its_pair() {
    let (world, client, first) = granted().await;
    let second = Tokens::of(&client.refreshes(&world.beta, &first.refresh).await);
    assert_eq!(client.introspects(&world.beta, &second.access).await.json()["active"], true);
    world.clock.advance(Duration::from_secs(61));
    refused(&client.refreshes(&world.beta, &first.refresh).await, 400, "invalid_grant");
    assert_eq!(
        client.introspects(&world.beta, &second.access).await.json(),
        json!({ "active": false }),
        "it was no retry: the grant ended"
    );
    refused(&client.refreshes(&world.beta, &second.refresh).await, 400, "invalid_grant");
}

#[tokio::test]
async fn r4_introspecting_the_old_access_token_is_no_use_of_the_new_pair() {
    let (world, client, first) = granted().await;
    let lost = Tokens::of(&client.refreshes(&world.beta, &first.refresh).await);
    assert_eq!(client.introspects(&world.beta, &first.access).await.json()["active"], true);
    world.clock.advance(Duration::from_secs(61));
    let second = Tokens::of(&client.refreshes(&world.beta, &first.refresh).await);
    assert_ne!(second.refresh, lost.refresh, "the pair that nobody had is withdrawn");
    assert!(is_accepted(&world, &second.access).await);
}

#[tokio::test]
async fn r7_what_was_decided_survives_a_restart_and_a_clock_that_is_set_back() {
    let (mut world, client, first) = granted().await;
    let second = Tokens::of(&client.refreshes(&world.beta, &first.refresh).await);
    world.beta.restarts().await;
    world.clock.step_wall_back(Duration::from_secs(3600));
    let again = Tokens::of(&client.refreshes(&world.beta, &first.refresh).await);
    assert_eq!(again.refresh, second.refresh, "the window is still open");
    let third = Tokens::of(&client.refreshes(&world.beta, &second.refresh).await);
    world.beta.restarts().await;
    assert!(is_accepted(&world, &third.access).await);
    world.clock.advance(Duration::from_secs(61));
    refused(&client.refreshes(&world.beta, &first.refresh).await, 400, "invalid_grant");
    assert!(!is_accepted(&world, &third.access).await, "a token retired before the restart is still known as stolen");
    world.beta.restarts().await;
    assert!(!is_accepted(&world, &third.access).await, "and the end of the grant is kept");
}

#[tokio::test]
async fn r8_v2_while_the_database_takes_nothing_the_answer_is_503_and_nothing_is_used_up() {
    let (world, client, tokens) = granted().await;
    let blocker = world.beta.settings.blocks_database();
    let (refreshed, revoked) = tokio::join!(client.refreshes(&world.beta, &tokens.refresh), client.revokes(&world.beta, &tokens.refresh));
    assert_eq!((refreshed.status(), revoked.status()), (503, 503), "{} {}", refreshed.text(), revoked.text());
    blocker.execute_batch("ROLLBACK").expect("it ends");
    assert!(is_accepted(&world, &tokens.access).await);
    assert_eq!(client.refreshes(&world.beta, &tokens.refresh).await.status(), 200);
}

#[tokio::test]
async fn r9_after_a_revoke_has_answered_no_token_of_the_grant_works() {
    for _ in 0..5 {
        let (world, client, tokens) = granted().await;
        let (refreshed, revoked) =
            tokio::join!(client.refreshes(&world.beta, &tokens.refresh), client.revokes(&world.beta, &tokens.refresh));
        assert_eq!(revoked.status(), 200);
        assert!(!is_accepted(&world, &tokens.access).await);
        if refreshed.status() == 200 {
            let late = Tokens::of(&refreshed);
            assert!(!is_accepted(&world, &late.access).await);
            refused(&client.refreshes(&world.beta, &late.refresh).await, 400, "invalid_grant");
        }
    }
}

#[tokio::test]
async fn r10_a_grant_ends_when_it_is_idle_too_long_and_when_its_time_is_over() {
    let (world, client, tokens) = granted_with("[tokens]\nrefresh_ttl = \"10d\"\ngrant_ttl = \"15d\"\n").await;
    let day = Duration::from_secs(24 * 3600);
    world.clock.advance(9 * day);
    let answer = client.refreshes(&world.beta, &tokens.refresh).await;
    let left = answer.json()["refresh_token_expires_in"].as_u64().expect("with grant_ttl the end is told");
    assert!(left <= 6 * 24 * 3600, "{left}");
    let tokens = Tokens::of(&answer);
    world.clock.advance(7 * day);
    refused(&client.refreshes(&world.beta, &tokens.refresh).await, 400, "invalid_grant");
    let (world, client, tokens) = granted_with("[tokens]\nrefresh_ttl = \"10d\"\n").await;
    world.clock.advance(11 * day);
    refused(&client.refreshes(&world.beta, &tokens.refresh).await, 400, "invalid_grant");
}

#[tokio::test]
async fn r10_when_a_grant_has_run_out_its_streams_end_and_everybody_is_told() {
    for (ttl, why) in [("refresh_ttl = \"10d\"", "idle"), ("grant_ttl = \"10d\"", "expired")] {
        let (world, _, tokens) = granted_with(&format!("[tokens]\n{ttl}\n")).await;
        let mut wire = Wire::tls(world.beta.settings.public, &world.beta.settings.authority()).await;
        let bearer = format!("Bearer {}", tokens.access);
        let host = world.beta.settings.public.to_string();
        wire.sends(request("GET", "/p2pi/events", &host, &[("Authorization", &bearer)], "")).await;
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("data: event 1\n") {
            seen.extend(wire.some_bytes(4096).await);
        }
        assert_eq!(world.beta.lists("grant").await.len(), 1, "it is held");
        world.clock.advance(Duration::from_secs(11 * 24 * 3600));
        wire.ends().await;
        assert_eq!(world.beta.lists("grant").await.len(), 0, "nobody holds it now");
        let all = world.beta.asks("GET", "/v2/tenants/default/grants?all=true", None).await.json();
        let shown = &all["data"][0]["attributes"];
        assert_eq!((&shown["ended_why"], &shown["ended_by"]), (&json!(why), &json!("p2pid")), "{all}");
    }
}
