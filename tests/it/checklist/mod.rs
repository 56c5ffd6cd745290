//! The lines of the OAuth checklist, seen from outside: a browser and a client against a running daemon. Tests are named by the line's key.

mod authorize;
mod certificate_clients;
mod certificates;
mod clients;
mod errors;
mod keys_at_a_url;
mod pages;
mod proofs;
mod pushed;
mod refresh;
mod resource;
mod token;

use crate::world::World;
use crate::world::client::{Client, Tokens};
use crate::world::message::Message;

/// A daemon, a client, and its first pair of tokens.
pub(super) async fn granted() -> (World, Client, Tokens) {
    granted_with("").await
}

pub(super) async fn granted_with(configuration: &str) -> (World, Client, Tokens) {
    let mut world = World::with(configuration).await;
    let client = Client::registered(&world.beta, "shop").await;
    let tokens = client.tokens(&world.beta, &mut world.operator).await;
    (world, client, tokens)
}

/// Status and error code of a refusal, which says nothing else that matters.
pub(super) fn refusal(answer: &Message) -> (u16, String) {
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json")), "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    (answer.status(), answer.json()["error"].as_str().unwrap_or_default().to_owned())
}

pub(super) fn refused(answer: &Message, status: u16, code: &str) {
    assert_eq!(refusal(answer), (status, code.to_owned()), "{}", answer.text());
}

pub(super) async fn is_accepted(world: &World, token: &str) -> bool {
    let bearer = format!("Bearer {token}");
    world.beta.is_asked("GET", "/p2pi/orders", &[("Authorization", &bearer)], "").await.status() == 200
}
