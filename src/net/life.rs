//! The life of a grant or a link, on which open streams rest: it ends once, and they end with it. A grant may also come to allow less than it
//! did, or need a key or certificate, and a route may come to ask for more, or to be gone: then those streams end that have not what is needed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::inbound::permit::opens;
use crate::oauth::scope::Scope;

/// It holds, as it did in the beginning.
const WHOLE: u8 = 0;
/// It holds for what `allowed` says.
const BOUNDED: u8 = 1;
/// It has ended.
const ENDED: u8 = 2;

/// Whether something still holds: asked for every frame of a stream, so it is an atomic load or two unless something was bounded or changed.
#[derive(Debug, Default)]
pub struct Life {
    state: AtomicU8,
    allowed: ArcSwapOption<Bounds>,
    notify: Arc<Notify>,
}

/// What it holds for, where that is not everything any more.
#[derive(Debug)]
pub struct Bounds {
    /// What is allowed.
    pub scope: Scope,
    /// To nobody but who shows a key or certificate.
    pub must_be_bound: bool,
}

/// What a stream needs of the grant that it rests on.
#[derive(Clone, Debug)]
pub struct Claim {
    /// What was granted, when the stream began.
    pub granted: Arc<Scope>,
    /// Its token was bound to a key or certificate, which was shown.
    pub is_bound: bool,
    /// What its route asks for.
    pub needed: Arc<Needed>,
}

/// What a route asks for, as long as there is one with its path: the streams that were opened there rest on it.
#[derive(Debug)]
pub struct Needed {
    scope: ArcSwap<Scope>,
    /// It was another once, or there is no such route any more.
    has_changed: AtomicBool,
    is_gone: AtomicBool,
    notify: Arc<Notify>,
}

impl Needed {
    /// A route asks for `scope`.
    pub fn new(scope: Arc<Scope>) -> Self {
        Self { scope: ArcSwap::new(scope), has_changed: AtomicBool::default(), is_gone: AtomicBool::default(), notify: Arc::default() }
    }

    /// The route asks for `scope` from now on.
    pub fn becomes(&self, scope: Arc<Scope>) {
        if **self.scope.load() == *scope {
            return;
        }
        self.scope.store(scope);
        self.change();
    }

    /// There is no such route any more, or it is another tenant's by now: nobody who opened a stream there could open it again.
    pub fn ends(&self) {
        self.is_gone.store(true, Ordering::Release);
        self.change();
    }

    fn change(&self) {
        self.has_changed.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }

    fn changed(&self) -> OwnedNotified {
        Arc::clone(&self.notify).notified_owned()
    }
}

impl Claim {
    /// Whether the route has come to ask for what was not granted, or is gone.
    fn is_outgrown(&self) -> bool {
        let needed = &self.needed;
        needed.has_changed.load(Ordering::Acquire)
            && (needed.is_gone.load(Ordering::Acquire) || !opens(&needed.scope.load(), &self.granted))
    }
}

impl Life {
    /// Ends it: revoked, unlinked, deleted.
    pub fn end(&self) {
        self.state.store(ENDED, Ordering::Release);
        self.notify.notify_waiters();
    }

    /// Bounds what it allows to `bounds` from now on, whatever that was before.
    pub fn bound(&self, bounds: Arc<Bounds>) {
        self.allowed.store(Some(bounds));
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
            WHOLE => claim.is_some_and(Claim::is_outgrown),
            BOUNDED => claim.is_some_and(|claim| !self.allows(claim)),
            _ => true,
        }
    }

    fn allows(&self, claim: &Claim) -> bool {
        let is_within = |bounds: &Bounds| {
            let is_shown = claim.is_bound || !bounds.must_be_bound;
            is_shown && opens(&claim.needed.scope.load(), &claim.granted.intersection(&bounds.scope))
        };
        !claim.is_outgrown() && self.allowed.load().as_ref().is_none_or(|bounds| is_within(bounds))
    }

    /// Completes when it is over for `claim`; for streams that have to wait.
    pub fn over(self: &Arc<Self>, claim: Option<Claim>) -> impl Future<Output = ()> + Send + use<> {
        let this = Arc::clone(self);
        async move {
            loop {
                // Made before the look, so a change in between is not missed.
                let notified = Arc::clone(&this.notify).notified_owned();
                let changed = claim.as_ref().map(|claim| claim.needed.changed());
                if this.is_over(claim.as_ref()) {
                    return;
                }
                match changed {
                    Some(changed) => tokio::select! { () = notified => {} () = changed => {} },
                    None => notified.await,
                }
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

    fn bounds(text: &str) -> Arc<Bounds> {
        Arc::new(Bounds { scope: text.parse().expect("a scope"), must_be_bound: false })
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
        life.bound(bounds("a b"));
        assert!(life.is_ended() && life.is_over(None), "what has ended stays so");
    }

    #[tokio::test]
    async fn it_is_over_for_those_alone_whose_route_comes_to_ask_for_what_was_not_granted() {
        let life = Arc::new(Life::default());
        let needed = Arc::new(Needed::new(scope("a")));
        let claim = |granted: &str| Claim { granted: scope(granted), is_bound: false, needed: Arc::clone(&needed) };
        let waiting = ["a", "a b"].map(|granted| tokio::spawn(life.over(Some(claim(granted)))));
        for (asked, ended) in [("a", false), ("b a", true)] {
            needed.becomes(scope(asked));
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            assert_eq!(waiting.each_ref().map(tokio::task::JoinHandle::is_finished), [ended, false], "{asked}");
        }
        life.bound(bounds("a b c"));
        assert!(life.is_over(Some(&claim("a"))) && !life.is_over(Some(&claim("a b"))) && !life.is_over(None));
        needed.becomes(scope("a"));
        assert!(!life.is_over(Some(&claim("a"))), "it asks for less again");
        let [_, waits] = waiting;
        assert!(!waits.is_finished());
        needed.ends();
        waits.await.expect("no panic");
        assert!(life.is_over(Some(&claim("a b"))) && !life.is_over(None), "the route is gone");
    }

    #[tokio::test]
    async fn it_is_over_for_those_alone_who_need_what_was_lost() {
        let life = Arc::new(Life::default());
        let claim = |needed: &str| Claim { granted: scope("a b"), is_bound: false, needed: Arc::new(Needed::new(scope(needed))) };
        let waiting = ["", "a", "b", "a b"].map(|needed| (needed, tokio::spawn(life.over(Some(claim(needed))))));
        for bound in ["a b c", "a c"] {
            life.bound(bounds(bound));
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            for (needed, task) in &waiting {
                assert_eq!(task.is_finished(), bound == "a c" && needed.contains('b'), "{needed:?} of {bound:?}");
            }
        }
        assert!(!life.is_ended() && !life.is_over(None));
        life.bound(bounds("a b"));
        assert!(!life.is_over(Some(&claim("b"))), "it was given back");
        life.bound(Arc::new(Bounds { scope: "a b".parse().expect("a scope"), must_be_bound: true }));
        assert!(
            life.is_over(Some(&claim("b"))) && !life.is_over(Some(&Claim { is_bound: true, ..claim("b") })),
            "who showed a key goes on"
        );
        life.bound(bounds("c"));
        assert!(life.is_over(Some(&claim(""))), "who has no scope left opens nothing");
    }
}
