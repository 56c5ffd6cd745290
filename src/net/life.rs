//! The life of a grant or a link, on which open streams rest: it ends once, and they end with it. A grant may also come to allow less than it
//! did: then those streams end that need what it lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use crate::inbound::permit::opens;
use crate::oauth::scope::Scope;

/// It holds, as it did in the beginning.
const WHOLE: u8 = 0;
/// It holds for what `allowed` says.
const BOUNDED: u8 = 1;
/// It has ended.
const ENDED: u8 = 2;

/// Whether something still holds: asked for every frame of a stream, so it is one atomic load unless it was bounded.
#[derive(Debug, Default)]
pub struct Life {
    state: AtomicU8,
    allowed: ArcSwapOption<Scope>,
    notify: Arc<Notify>,
}

/// What a stream needs of the grant that it rests on.
#[derive(Clone, Debug)]
pub struct Claim {
    /// What was granted, when the stream began.
    pub granted: Arc<Scope>,
    /// What its route asks for.
    pub needed: Arc<Scope>,
}

impl Life {
    /// Ends it: revoked, unlinked, deleted.
    pub fn end(&self) {
        self.state.store(ENDED, Ordering::Release);
        self.notify.notify_waiters();
    }

    /// Bounds what it allows to `scope` from now on, whatever that was before.
    pub fn bound(&self, scope: Arc<Scope>) {
        self.allowed.store(Some(scope));
        // What has ended stays so.
        let _ = self.state.compare_exchange(WHOLE, BOUNDED, Ordering::AcqRel, Ordering::Relaxed);
        self.notify.notify_waiters();
    }

    /// Whether it has ended.
    pub fn is_ended(&self) -> bool {
        self.state.load(Ordering::Acquire) == ENDED
    }

    /// Whether it has ended, or does not allow what `claim` asks for any more. A stream of ours that claims nothing rests on its end alone.
    pub fn is_over(&self, claim: Option<&Claim>) -> bool {
        match self.state.load(Ordering::Acquire) {
            WHOLE => false,
            BOUNDED => claim.is_some_and(|claim| !self.allows(claim)),
            _ => true,
        }
    }

    fn allows(&self, claim: &Claim) -> bool {
        self.allowed.load().as_ref().is_none_or(|allowed| opens(&claim.needed, &claim.granted.intersection(allowed)))
    }

    /// Completes when it is over for `claim`; for streams that have to wait.
    pub fn over(self: &Arc<Self>, claim: Option<Claim>) -> impl Future<Output = ()> + Send + use<> {
        let this = Arc::clone(self);
        async move {
            loop {
                // Made before the look, so a change in between is not missed.
                let notified = Arc::clone(&this.notify).notified_owned();
                if this.is_over(claim.as_ref()) {
                    return;
                }
                notified.await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &str) -> Arc<Scope> {
        Arc::new(text.parse().expect("a scope"))
    }

    #[tokio::test]
    async fn who_waits_learns_of_the_end_and_who_comes_later_too() {
        let life = Arc::new(Life::default());
        let waiting = tokio::spawn(life.over(None));
        tokio::task::yield_now().await;
        assert!(!life.is_ended() && !waiting.is_finished());
        life.end();
        waiting.await.expect("no panic");
        life.over(None).await;
        assert!(life.is_ended());
        life.bound(scope("a b"));
        assert!(life.is_ended() && life.is_over(None), "what has ended stays so");
    }

    #[tokio::test]
    async fn it_is_over_for_those_alone_who_need_what_was_lost() {
        let life = Arc::new(Life::default());
        let claim = |needed: &str| Claim { granted: scope("a b"), needed: scope(needed) };
        let waiting = ["", "a", "b", "a b"].map(|needed| (needed, tokio::spawn(life.over(Some(claim(needed))))));
        for bound in ["a b c", "a c"] {
            life.bound(scope(bound));
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            for (needed, task) in &waiting {
                assert_eq!(task.is_finished(), bound == "a c" && needed.contains('b'), "{needed:?} of {bound:?}");
            }
        }
        assert!(!life.is_ended() && !life.is_over(None));
        life.bound(scope("a b"));
        assert!(!life.is_over(Some(&claim("b"))), "it was given back");
        life.bound(scope("c"));
        assert!(life.is_over(Some(&claim(""))), "who has no scope left opens nothing");
    }
}
