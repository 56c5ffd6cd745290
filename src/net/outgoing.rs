//! How many connections go out: calls to applications, calls to peers, what p2pid asks itself, and the keys
//! that clients keep elsewhere have shares of their own.
//!
//! A connection that comes in may carry hundreds of calls (HTTP/2), and each call may need a connection that goes out: what comes in bounds
//! nothing here. A place is held from before the connection is made until its file is closed, whoever has it by then, so a WebSocket and an
//! answer that streams hold theirs to their end. One that only waits for its next request gives its place up when somebody else needs it.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::client::SendError;
use super::lane::{Lane, Pass, Width};
use super::pool::Pool;
use super::{files, places};
use crate::config::Limits;

/// One part in so many is for what p2pid asks itself and for clients' keys; calls to applications and to peers have half each of the rest.
const OWN: usize = 8;
/// And one in so many of that part is for clients' keys: whoever registers a client names their URL, and may name one that never answers.
const KEYS: usize = 4;
/// One grant or caller has a quarter of the connections for such calls, and at least so many, but no more than half of them.
const LEAST_OF_ONE: usize = 16;
/// So many times the places may wait for one.
const WAITING: usize = 4;
/// How long a connection that was given up may take to be closed.
const CLOSING: Duration = Duration::from_secs(1);
/// How long a request of our own waits for a place: they are short, and when many links are renewed at once they take turns.
const TURN: Duration = Duration::from_secs(5);
/// That no more connections are made is told in the log this often at most, for each purpose.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What a connection that goes out is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Calls of the gateway.
    Applications,
    /// Calls of the relay.
    Peers,
    /// What we ask ourselves: tokens and metadata. It gets through whatever others do.
    Own,
    /// Clients' public keys, at URLs of theirs.
    Keys,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Applications, Self::Peers, Self::Own, Self::Keys];

    /// As the metrics name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Applications => "applications",
            Self::Peers => "peers",
            Self::Own => "own",
            Self::Keys => "keys",
        }
    }

    /// How many of `all` connections are for it.
    fn part(self, all: usize) -> usize {
        let ours = (all / OWN).max(1);
        let keys = (ours / KEYS).max(1);
        let own = ours.saturating_sub(keys).max(1);
        match self {
            Self::Own => own,
            Self::Keys => keys,
            Self::Applications | Self::Peers => (all.saturating_sub(own + keys) / 2).max(1),
        }
    }
}

/// All connections that go out.
pub struct Outgoing {
    all: AtomicUsize,
    kinds: [Kind; 4],
}

/// Those of one purpose.
#[derive(Default)]
struct Kind {
    lane: Arc<Lane>,
    /// Where connections wait for their next request.
    pools: Mutex<Vec<Weak<Pool>>>,
    told: Mutex<Option<Instant>>,
}

/// The connections of one purpose, for whoever makes them.
#[derive(Clone)]
pub struct Share {
    outgoing: Arc<Outgoing>,
    purpose: Purpose,
    /// Who waits for a place waits no longer, where that was said.
    until: Option<Instant>,
}

impl Outgoing {
    /// As many as `limits` allows and the open files of this process.
    pub fn new(limits: &Limits) -> Self {
        let this = Self { all: AtomicUsize::new(0), kinds: Default::default() };
        this.set_limits(limits);
        this
    }

    /// Allows another number from now on; connections that are open stay.
    pub fn set_limits(&self, limits: &Limits) {
        self.all.store(limits.outgoing_connections.min(files::connections(files::limit())), Ordering::Relaxed);
    }

    /// Those of one purpose.
    pub fn share(self: &Arc<Self>, purpose: Purpose) -> Share {
        Share { outgoing: Arc::clone(self), purpose, until: None }
    }

    /// How many there may be for `purpose`.
    pub fn limit(&self, purpose: Purpose) -> usize {
        purpose.part(self.all.load(Ordering::Relaxed))
    }

    /// How many there are for `purpose`.
    pub fn open(&self, purpose: Purpose) -> usize {
        self.kind(purpose).lane.running()
    }

    /// How many calls for `purpose` one grant or caller may have under way when the configuration says `wanted`.
    pub fn of_one(&self, purpose: Purpose, wanted: usize) -> usize {
        wanted.min(places::share(self.limit(purpose), LEAST_OF_ONE))
    }

    fn kind(&self, purpose: Purpose) -> &Kind {
        let [applications, peers, own, keys] = &self.kinds;
        match purpose {
            Purpose::Applications => applications,
            Purpose::Peers => peers,
            Purpose::Own => own,
            Purpose::Keys => keys,
        }
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("all", &self.all).finish_non_exhaustive()
    }
}

impl Kind {
    /// Gives up one connection that waits for its next request.
    fn evict(&self) -> bool {
        let pools: Vec<_> = self.pools().iter().filter_map(Weak::upgrade).collect();
        pools.iter().any(|pool| pool.evict())
    }

    fn pools(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Pool>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is time to tell of it again.
    fn tells(&self) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = told.is_none_or(|told| told.elapsed() >= TELL_EVERY);
        if is_due {
            *told = Some(Instant::now());
        }
        is_due
    }
}

impl Share {
    /// The same, for somebody who waits for a place until then, as one that has waited before.
    pub fn until(self, deadline: Instant) -> Self {
        Self { until: Some(deadline), ..self }
    }

    /// Lets `pool` give up connections that wait when others need their places.
    pub(super) fn register(&self, pool: Weak<Pool>) {
        let mut pools = self.outgoing.kind(self.purpose).pools();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(pool);
    }

    /// A place for one connection more.
    ///
    /// # Errors
    /// [`SendError::Full`] when all are in use.
    pub(super) async fn enter(&self) -> Result<Pass, SendError> {
        self.enter_within(TURN).await
    }

    async fn enter_within(&self, turn: Duration) -> Result<Pass, SendError> {
        let (kind, most) = (self.outgoing.kind(self.purpose), self.outgoing.limit(self.purpose));
        if let Some(pass) = kind.lane.try_enter(most) {
            return Ok(pass);
        }
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        let wait = match (kind.evict(), self.purpose) {
            (_, Purpose::Own | Purpose::Keys) => Some(left.unwrap_or(turn)),
            (true, Purpose::Applications | Purpose::Peers) => Some(CLOSING),
            (false, Purpose::Applications | Purpose::Peers) => None,
        };
        if let Some(wait) = wait
            && let Some(pass) = kind.lane.enter(Width { calls: most, queue: most.saturating_mul(WAITING), wait }).await
        {
            return Ok(pass);
        }
        let whom = match self.purpose {
            Purpose::Applications => "to applications",
            Purpose::Peers => "of the relay's calls",
            Purpose::Own => "for requests of p2pid's own",
            Purpose::Keys => "for clients' keys",
        };
        let why = format!("all {most} connections {whom} that limits.outgoing_connections and the limit of open files allow are in use");
        if kind.tells() {
            tracing::warn!(purpose = self.purpose.name(), connections = most, reason = why, "no more connections go out");
        }
        Err(SendError::Full(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_purpose_has_its_part_and_from_four_on_all_together_are_no_more_than_there_may_be() {
        let parts = |all| Purpose::ALL.map(|purpose| purpose.part(all));
        assert_eq!(parts(10_000), [4_375, 4_375, 938, 312]);
        assert_eq!(parts(176), [77, 77, 17, 5]);
        assert_eq!([parts(1), parts(2), parts(3)], [[1, 1, 1, 1]; 3], "there is one of each at least");
        for all in (4..2_000).chain([usize::MAX]) {
            let [applications, peers, own, keys] = parts(all);
            let sum = applications + peers + own + keys;
            assert!(sum <= all && all - sum <= 1 && applications == peers && own >= keys && keys >= 1, "{all}: {:?}", parts(all));
        }
    }

    #[test]
    fn one_grant_has_what_is_configured_or_a_quarter_and_of_few_places_sixteen_or_half() {
        let outgoing = Outgoing { all: AtomicUsize::new(10_000), kinds: Default::default() };
        let of_one = |wanted| outgoing.of_one(Purpose::Applications, wanted);
        assert_eq!([1, 512, 1_093, 5_000].map(of_one), [1, 512, 1_093, 1_093]);
        outgoing.all.store(176, Ordering::Relaxed);
        assert_eq!([1, 512].map(of_one), [1, 19]);
        outgoing.all.store(10, Ordering::Relaxed);
        assert_eq!(outgoing.limit(Purpose::Applications), 4);
        assert_eq!([1, 512].map(of_one), [1, 2]);
        outgoing.all.store(3, Ordering::Relaxed);
        assert_eq!(of_one(512), 1);
    }

    #[tokio::test]
    async fn what_is_full_is_refused_at_once_and_leaves_the_others_alone() {
        let outgoing = Arc::new(Outgoing { all: AtomicUsize::new(8), kinds: Default::default() });
        let [applications, peers, own, keys] = Purpose::ALL.map(|purpose| outgoing.share(purpose));
        let held = [applications.enter().await, applications.enter().await, applications.enter().await];
        assert!(held.iter().all(Result::is_ok) && outgoing.open(Purpose::Applications) == 3);
        let full = applications.enter().await.expect_err("all three are in use");
        assert!(matches!(&full, SendError::Full(why) if why.contains("all 3 connections")) && full.is_harmless(), "{full}");
        assert!(peers.enter().await.is_ok() && own.enter().await.is_ok() && keys.enter().await.is_ok());
        drop(held);
        assert!(applications.enter().await.is_ok());
        outgoing.all.store(2, Ordering::Relaxed);
        let held = applications.enter().await;
        assert!(held.is_ok() && applications.enter().await.is_err(), "fewer are allowed from now on");
    }

    #[tokio::test]
    async fn who_has_waited_before_waits_for_a_place_until_the_deadline() {
        let outgoing = Arc::new(Outgoing { all: AtomicUsize::new(8), kinds: Default::default() });
        let keys = || outgoing.share(Purpose::Keys).until(Instant::now() + Duration::from_millis(20));
        let begun = Instant::now();
        let held = keys().enter().await.expect("there is one");
        assert!(matches!(keys().enter().await, Err(SendError::Full(_))));
        assert!(begun.elapsed() >= Duration::from_millis(20) && begun.elapsed() < TURN, "{:?}", begun.elapsed());
        let late = outgoing.share(Purpose::Keys).until(begun);
        assert!(matches!(late.enter().await, Err(SendError::Full(_))), "there is no time left");
        drop(held);
        assert!(late.enter().await.is_ok(), "what is free needs no time");
    }

    #[tokio::test]
    async fn requests_of_our_own_take_turns_and_wait_for_no_more_than_a_while() {
        let outgoing = Arc::new(Outgoing { all: AtomicUsize::new(8), kinds: Default::default() });
        let own = outgoing.share(Purpose::Own);
        let held = own.enter().await.expect("there is one");
        let waiting = tokio::spawn({
            let own = own.clone();
            async move { own.enter().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "it waits");
        drop(held);
        let _held = waiting.await.expect("no panic").expect("it is its turn");
        assert!(matches!(own.enter_within(Duration::from_millis(20)).await, Err(SendError::Full(_))));
    }
}
