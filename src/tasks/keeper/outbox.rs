//! Revocations that wait for their peers: tried until confirmed, or until a month has passed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::clients::Clients;
use super::wire::{self, ServerCalls};
use crate::id::Id;
use crate::instance::Instance;
use crate::outbound::revocation::{self, Delivery, Revocation};
use crate::store::{StoreError, outbox};

/// Looked at this often at least.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Tried in one go.
const BATCH: u32 = 16;

/// Delivers what is due, until it is dropped. `filled` is told when something was put in.
pub(super) async fn run(instance: Arc<Instance>, clients: impl Fn() -> Arc<Clients>, filled: Arc<Notify>) {
    loop {
        let wait = match deliver(&instance, &clients()).await {
            Ok(wait) => wait,
            Err(error) => {
                tracing::warn!(reason = %error, "revocations that wait for their peers could not be looked up; again in 30 s");
                LOOK_AGAIN
            }
        };
        tokio::select! {
            () = instance.clock.sleep(wait.min(LOOK_AGAIN)) => {}
            () = filled.notified() => {}
        }
    }
}

/// Tries what is due, all at once, and says how long it is until the next.
async fn deliver(instance: &Arc<Instance>, clients: &Arc<Clients>) -> Result<Duration, StoreError> {
    let (now, seals) = (instance.clock.now().wall, instance.store.seals().clone());
    let due = instance.store.read(move |connection| outbox::due(connection, &seals, now, BATCH)).await?;
    let mut attempts = tokio::task::JoinSet::new();
    for (id, revocation) in due {
        let (instance, clients) = (Arc::clone(instance), Arc::clone(clients));
        attempts.spawn(async move { attempt(&instance, &clients, id, &revocation).await.map(|_| ()) });
    }
    while let Some(attempt) = attempts.join_next().await {
        attempt.unwrap_or(Ok(()))?;
    }
    let next = instance.store.read(outbox::next_at).await?;
    Ok(next.map_or(LOOK_AGAIN, |next| next.since(instance.clock.now().wall)))
}

/// Tries one, and writes down what came of it.
pub(super) async fn attempt(instance: &Instance, clients: &Clients, id: Id, revocation: &Revocation) -> Result<Delivery, StoreError> {
    let client = clients.of(&revocation.trust).guarded_if(revocation.guarded).clone();
    let delivery = wire::revoke(&ServerCalls::new(instance, &client, &revocation.endpoint), revocation).await;
    let (tenant, peer) = (revocation.tenant.as_str(), revocation.peer.as_str());
    match &delivery {
        Delivery::Confirmed => tracing::info!(tenant, peer, "a token given up was revoked at the peer"),
        Delivery::Impossible => tracing::warn!(tenant, peer, "the peer does not revoke a token given up; it ends by itself"),
        Delivery::Waiting(reason) if revocation.attempts == 0 => {
            tracing::warn!(tenant, peer, reason, "a token given up is not revoked yet; it is tried for 30 days")
        }
        Delivery::Waiting(reason) => tracing::debug!(tenant, peer, reason, "a token given up is not revoked yet"),
    }
    let next_at = instance.clock.now().wall.plus(revocation::wait(revocation.attempts.saturating_add(1)));
    let is_settled = !matches!(delivery, Delivery::Waiting(_));
    instance
        .store
        .write(move |transaction| if is_settled { outbox::delete(transaction, id) } else { outbox::postpone(transaction, id, next_at) })
        .await?;
    Ok(delivery)
}
