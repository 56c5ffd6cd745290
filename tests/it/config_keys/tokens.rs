//! `[tokens]`: how long what we issue lives, and what becomes of a refresh token that was used.

use std::time::Duration;

use serde_json::Value;

use super::says;
use crate::world::World;
use crate::world::client::{Client, Tokens};
use crate::world::message::Message;

/// What a token answer says.
fn member(answer: &Message, name: &str) -> Value {
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()[name].clone()
}

async fn grant(world: &mut World, client: &Client) -> Message {
    let code = client.code(&world.beta, &mut world.operator).await;
    client.redeems(&world.beta, &code).await
}

#[tokio::test]
async fn access_ttl() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    assert_eq!(member(&grant(&mut world, &client).await, "expires_in"), 3_600);
    says(&world.beta, "[tokens]\naccess_ttl = \"90s\"").await;
    assert_eq!(member(&grant(&mut world, &client).await, "expires_in"), 90);
}

#[tokio::test]
async fn refresh_ttl() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    says(&world.beta, "[tokens]\nrefresh_ttl = \"2d\"").await;
    let tokens = client.tokens(&world.beta, &mut world.operator).await;
    world.clock.advance(Duration::from_secs(86_400));
    let tokens = Tokens::of(&client.refreshes(&world.beta, &tokens.refresh).await);
    world.clock.advance(Duration::from_secs(86_400 * 3));
    let refused = client.refreshes(&world.beta, &tokens.refresh).await;
    assert_eq!((refused.status(), refused.json()["error"].as_str()), (400, Some("invalid_grant")));
}

#[tokio::test]
async fn grant_ttl() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    assert_eq!(member(&grant(&mut world, &client).await, "refresh_token_expires_in"), Value::Null);
    says(&world.beta, "[tokens]\ngrant_ttl = \"2d\"").await;
    let answer = grant(&mut world, &client).await;
    assert_eq!(member(&answer, "refresh_token_expires_in"), 172_800);
    let mut tokens = Tokens::of(&answer);
    world.clock.advance(Duration::from_secs(86_400));
    tokens = Tokens::of(&client.refreshes(&world.beta, &tokens.refresh).await);
    world.clock.advance(Duration::from_secs(86_400 + 1));
    assert_eq!(client.refreshes(&world.beta, &tokens.refresh).await.status(), 400, "a refresh extends no grant");
}

#[tokio::test]
async fn code_ttl() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    says(&world.beta, "[tokens]\ncode_ttl = \"5s\"").await;
    let code = client.code(&world.beta, &mut world.operator).await;
    world.clock.advance(Duration::from_secs(6));
    assert_eq!(client.redeems(&world.beta, &code).await.json()["error"], "invalid_grant");
}

#[tokio::test]
async fn request_ttl() {
    let world = World::new().await;
    world.introduces().await;
    says(&world.alpha, "[tokens]\nrequest_ttl = \"10m\"").await;
    let url = world.alpha.request_url("beta").await;
    let path = url.strip_prefix(&world.alpha.settings.url()).expect("a URL of ours");
    assert_eq!(world.alpha.is_asked("GET", path, &[], "").await.status(), 200);
    world.clock.advance(Duration::from_secs(601));
    assert_eq!(world.alpha.is_asked("GET", path, &[], "").await.status(), 410);
}

#[tokio::test]
async fn rotation() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    let first = client.tokens(&world.beta, &mut world.operator).await;
    let second = Tokens::of(&client.refreshes(&world.beta, &first.refresh).await);
    assert_eq!(Tokens::of(&client.refreshes(&world.beta, &first.refresh).await).refresh, second.refresh, "retry_safe gives it again");
    says(&world.beta, "[tokens]\nrotation = \"none\"").await;
    assert_eq!(Tokens::of(&client.refreshes(&world.beta, &second.refresh).await).refresh, second.refresh, "none keeps it");
    says(&world.beta, "[tokens]\nrotation = \"strict\"").await;
    let third = client.tokens(&world.beta, &mut world.operator).await;
    Tokens::of(&client.refreshes(&world.beta, &third.refresh).await);
    assert_eq!(client.refreshes(&world.beta, &third.refresh).await.json()["error"], "invalid_grant", "strict takes it once");
}

#[tokio::test]
async fn retry_window() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    says(&world.beta, "[tokens]\nretry_window = \"10m\"").await;
    let first = client.tokens(&world.beta, &mut world.operator).await;
    let second = Tokens::of(&client.refreshes(&world.beta, &first.refresh).await);
    world.clock.advance(Duration::from_secs(599));
    assert_eq!(Tokens::of(&client.refreshes(&world.beta, &first.refresh).await).refresh, second.refresh, "the window is still open");
    world.clock.advance(Duration::from_secs(2));
    assert_ne!(Tokens::of(&client.refreshes(&world.beta, &first.refresh).await).refresh, second.refresh, "it has closed: another pair");
}
