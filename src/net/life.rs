//! The life of a grant or a link, on which open streams rest: it ends once, and they end with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Whether something still holds: asked for every frame of a stream, so it is one atomic load.
#[derive(Debug, Default)]
pub struct Life {
    ended: AtomicBool,
    notify: Arc<Notify>,
}

impl Life {
    /// Ends it: revoked, unlinked, deleted.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }

    /// Whether it has ended.
    pub fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Completes when it ends; for streams that have to wait.
    pub fn ended(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let this = Arc::clone(self);
        async move {
            // Made before the look, so an end in between is not missed.
            let notified = Arc::clone(&this.notify).notified_owned();
            if !this.is_ended() {
                notified.await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_learns_of_the_end_and_who_comes_later_too() {
        let life = Arc::new(Life::default());
        let waiting = tokio::spawn(life.ended());
        tokio::task::yield_now().await;
        assert!(!life.is_ended() && !waiting.is_finished());
        life.end();
        waiting.await.expect("no panic");
        life.ended().await;
        assert!(life.is_ended());
    }
}
