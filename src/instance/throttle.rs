//! Guessing is slowed: failed authentications per client, user or kind of key, and address. Only failures count, so who knows the secret never waits
//! for anybody at another address.
//!
//! GCRA: per key one point of boot time, at which its failures will have drained away. An attempt takes its place before the secret is
//! looked at and gives it back unless it fails; so guesses that are made at the same time are counted against each other. Where only
//! attempts under way fill the places, and not failures, the next one waits for them.
//!
//! The same levels, in a throttle of their own, count what clients with right credentials ask: [`Throttle::wait`] before, and
//! [`Throttle::count`] once they are known to be right.
//!
//! What holds of whoever guesses: at another address than his he makes nobody wait. At his own he makes those wait whose names he uses, since
//! only the secret tells him from them, and by chance one in [`KEYS_OF_AN_ADDRESS`] of the others. Of the levels in memory the least used are
//! forgotten first, which lets somebody go on early and keeps nobody out.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quick_cache::unsync::Cache;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::config::Rate;
use crate::net::places;
use crate::secret::Digest;

/// Keys in memory at most; the least used go first. Many more than one address has, so it cannot push out its own failures.
const MOST: usize = 64 * 1024;
/// The keys of one address. Names share them: whoever invents names takes no more room than this.
const KEYS_OF_AN_ADDRESS: u64 = 4096;

/// The failed authentications of late. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Throttle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    levels: Mutex<Cache<Attempt, Level>>,
    settled: Notify,
}

/// Who tries, as far as it is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    from: Option<IpAddr>,
    name: u64,
}

/// What stands against the next attempt.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    drained_at: Duration,
    under_way: u32,
}

/// An attempt that is under way. Dropped, it has not failed.
#[derive(Debug)]
pub struct Trial {
    throttle: Throttle,
    attempts: BTreeSet<Attempt>,
}

/// Why an attempt does not begin.
enum NotNow {
    /// Too many failed; not before this long.
    Failures(Duration),
    /// Others are under way, whose outcome decides.
    Others,
}

impl Attempt {
    /// An attempt to be `name`, which is of some `kind`, from an address. Whoever has an IPv6 address has the whole /64 of it.
    pub fn new(kind: &str, name: &str, from: Option<IpAddr>) -> Self {
        Self { from: network(from), name: short(&format!("{kind}\n{name}")) % KEYS_OF_AN_ADDRESS }
    }

    /// A request from an address of a client that is, or will have to be, authenticated: such names are not invented, and share no key.
    pub fn of_client(client_id: &str, from: Option<IpAddr>) -> Self {
        Self { from: network(from), name: short(client_id) }
    }

    /// A request that is pushed from an address in the name of a client that shows nothing but that.
    pub fn of_push(client_id: &str, from: Option<IpAddr>) -> Self {
        Self { from: network(from), name: short(&format!("pushed\n{client_id}")) }
    }

    /// A request from an address that nobody can judge, whomever it names.
    pub fn of_unjudged(from: Option<IpAddr>) -> Self {
        Self { from: network(from), name: short("unjudged\n") }
    }
}

fn short(text: &str) -> u64 {
    let (first, _) = Digest::of(text).as_bytes().split_first_chunk().map(|(first, rest)| (*first, rest)).expect("a digest has 32 bytes");
    u64::from_be_bytes(first)
}

/// What counts as one address: of IPv6 the /64, which whoever has one of its addresses has as a whole.
pub fn network(from: Option<IpAddr>) -> Option<IpAddr> {
    from.map(places::network)
}

impl Throttle {
    /// Nobody has failed.
    pub fn new() -> Self {
        Self(Arc::new(Shared { levels: Mutex::new(Cache::new(MOST)), settled: Notify::new() }))
    }

    /// Begins an attempt to be any of `attempts`, as soon as those under way leave room for it.
    ///
    /// # Errors
    /// How long to wait, when too many have failed.
    pub async fn begin(&self, attempts: impl IntoIterator<Item = Attempt>, rate: Rate, clock: &dyn Clock) -> Result<Trial, Duration> {
        let attempts: BTreeSet<Attempt> = attempts.into_iter().collect();
        loop {
            let settled = self.0.settled.notified();
            match self.try_take(&attempts, rate, clock) {
                Ok(()) => return Ok(Trial { throttle: self.clone(), attempts }),
                Err(NotNow::Failures(wait)) => return Err(wait),
                Err(NotNow::Others) => settled.await,
            }
        }
    }

    /// How long until one more is counted without being too many; nothing when there is room for it now. Counts nothing.
    pub fn wait(&self, attempt: Attempt, rate: Rate, clock: &dyn Clock) -> Option<Duration> {
        let now = clock.now().boot;
        let level = self.levels().get(&attempt).copied().unwrap_or_default();
        let wait = level.above(rate, now).saturating_sub(room(rate));
        (!wait.is_zero()).then_some(wait)
    }

    /// Counts what has been judged already: a failure of a key that nobody can guess, which is looked at first, so that a right one never waits and
    /// whoever presents wrong ones is told to stop; a request of a client that is known by then; one that came to no judgement.
    ///
    /// # Errors
    /// How long to wait, when too many have failed before.
    pub fn count(&self, attempt: Attempt, rate: Rate, clock: &dyn Clock) -> Result<(), Duration> {
        let mut levels = self.levels();
        let now = clock.now().boot;
        let level = levels.get(&attempt).copied().unwrap_or_default();
        let wait = level.above(rate, now).saturating_sub(room(rate));
        if wait.is_zero() {
            levels.insert(attempt, level.failed(rate, now));
            return Ok(());
        }
        Err(wait)
    }

    /// A place for each of `attempts`, or for none.
    fn try_take(&self, attempts: &BTreeSet<Attempt>, rate: Rate, clock: &dyn Clock) -> Result<(), NotNow> {
        let mut levels = self.levels();
        let now = clock.now().boot;
        let room = room(rate);
        for level in attempts.iter().filter_map(|attempt| levels.get(attempt)) {
            let failures = level.above(rate, now);
            let wait = failures.saturating_sub(room);
            if !wait.is_zero() {
                return Err(NotNow::Failures(wait));
            }
            if failures.saturating_add(interval(rate).saturating_mul(level.under_way)) > room {
                return Err(NotNow::Others);
            }
        }
        for attempt in attempts {
            let level = levels.get(attempt).copied().unwrap_or_default();
            levels.insert(*attempt, Level { under_way: level.under_way.saturating_add(1), ..level });
        }
        Ok(())
    }

    fn levels(&self) -> MutexGuard<'_, Cache<Attempt, Level>> {
        self.0.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

impl Level {
    /// How long it takes to drain: never longer than when it is full, also where it was filled under a rate of a longer time.
    fn above(self, rate: Rate, now: Duration) -> Duration {
        self.drained_at.saturating_sub(now).min(rate.per)
    }

    /// After one more failure: never beyond full, so that nobody waits longer for having gone on; never lower than it was.
    fn failed(self, rate: Rate, now: Duration) -> Self {
        let drained_at = self.drained_at.max(now).saturating_add(interval(rate)).min(now.saturating_add(rate.per)).max(self.drained_at);
        Self { drained_at, ..self }
    }
}

impl Trial {
    /// The attempt has failed.
    pub fn failed(mut self, rate: Rate, clock: &dyn Clock) {
        let now = clock.now().boot;
        self.settle(|level| level.failed(rate, now));
    }

    /// Gives the places back; what the attempt came to counts from the same moment on, so that nobody finds it counted twice, or not at all.
    fn settle(&mut self, outcome: impl Fn(Level) -> Level) {
        let mut levels = self.throttle.levels();
        for attempt in std::mem::take(&mut self.attempts) {
            let level = outcome(levels.get(&attempt).copied().unwrap_or_default());
            levels.insert(attempt, Level { under_way: level.under_way.saturating_sub(1), ..level });
        }
        drop(levels);
        self.throttle.0.settled.notify_waiters();
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.settle(|level| level);
    }
}

/// How full a level may be for one more to fit.
fn room(rate: Rate) -> Duration {
    rate.per.saturating_sub(interval(rate))
}

fn interval(rate: Rate) -> Duration {
    rate.per / rate.count.max(1)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::clock::{BootId, Moment, Timestamp};

    const RATE: Rate = Rate { count: 3, per: Duration::from_secs(60) };

    #[derive(Debug)]
    struct At(u64);

    impl Clock for At {
        fn now(&self) -> Moment {
            Moment { wall: Timestamp::from_millis(0), boot: Duration::from_secs(self.0), boot_id: BootId(1) }
        }

        fn sleep(&self, _: Duration) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(std::future::pending())
        }
    }

    fn client(name: &str, from: &str) -> Attempt {
        Attempt::new("client", name, Some(from.parse().expect("an address")))
    }

    fn begin(throttle: &Throttle, attempt: Attempt, at: u64) -> Option<Result<Trial, u64>> {
        throttle.begin([attempt], RATE, &At(at)).now_or_never().map(|begun| begun.map_err(|wait| wait.as_secs()))
    }

    fn fail(throttle: &Throttle, attempt: Attempt, at: u64) -> Result<(), u64> {
        begin(throttle, attempt, at).expect("nothing is under way").map(|trial| trial.failed(RATE, &At(at)))
    }

    #[test]
    fn t3_a13_only_failures_count_and_only_for_their_name_and_address() {
        let (throttle, here) = (Throttle::new(), client("one", "192.0.2.1"));
        for second in 0..3 {
            for _ in 0..100 {
                assert!(matches!(begin(&throttle, here, second), Some(Ok(_))), "what does not fail does not count");
            }
            assert_eq!(fail(&throttle, here, second), Ok(()));
        }
        assert_eq!(fail(&throttle, here, 2), Err(18));
        for other in [client("one", "192.0.2.2"), client("two", "192.0.2.1"), Attempt::new("user", "one", here.from)] {
            assert_eq!(fail(&throttle, other, 2), Ok(()));
        }
        assert_eq!(fail(&throttle, here, 20), Ok(()));
        assert_eq!(fail(&throttle, here, 20), Err(20));
        assert_eq!(fail(&throttle, here, 1), Err(20), "a clock that was read earlier");
        assert_eq!(fail(&throttle, here, 20), Err(20), "lowers nothing");
    }

    #[test]
    fn t3_a13_guesses_at_the_same_time_are_counted_against_each_other() {
        let (throttle, here) = (Throttle::new(), client("one", "192.0.2.1"));
        let mut under_way: Vec<Trial> = (0..3).map(|_| begin(&throttle, here, 0).expect("room").expect("no failures")).collect();
        assert!(begin(&throttle, here, 0).is_none(), "the fourth waits for what becomes of the three");
        assert!(begin(&throttle, client("one", "192.0.2.2"), 0).is_some(), "but not at another address");
        drop(under_way.pop());
        let fourth = begin(&throttle, here, 0).expect("a place was given back").expect("no failures");
        under_way.push(fourth);
        for trial in under_way {
            trial.failed(RATE, &At(0));
        }
        assert_eq!(fail(&throttle, here, 0), Err(20));
    }

    #[test]
    fn failures_of_keys_are_counted_one_by_one() {
        let (throttle, here) = (Throttle::new(), client("one", "192.0.2.1"));
        let count = |second| throttle.count(here, RATE, &At(second)).map_err(|wait| wait.as_secs());
        assert_eq!([count(0), count(0), count(0), count(0), count(5)], [Ok(()), Ok(()), Ok(()), Err(20), Err(15)]);
        assert_eq!([count(20), count(20)], [Ok(()), Err(20)]);
        assert_eq!(throttle.count(client("one", "192.0.2.2"), RATE, &At(20)), Ok(()));
    }

    #[test]
    fn what_clients_ask_is_counted_when_it_was_right_and_each_address_for_itself() {
        let throttle = Throttle::new();
        let of = |name: &str, from: &str| Attempt::of_client(name, Some(from.parse().expect("an address")));
        let here = of("one", "192.0.2.1");
        let wait = |attempt, second| throttle.wait(attempt, RATE, &At(second)).map(|wait| wait.as_secs());
        for _ in 0..100 {
            assert_eq!(wait(here, 0), None, "to ask counts nothing");
        }
        for _ in 0..3 {
            assert_eq!((wait(here, 0), throttle.count(here, RATE, &At(0))), (None, Ok(())));
        }
        assert_eq!((wait(here, 0), wait(here, 15), wait(here, 20)), (Some(20), Some(5), None));
        for other in [of("one", "192.0.2.2"), of("two", "192.0.2.1")] {
            assert_eq!(wait(other, 0), None);
        }
        let names: BTreeSet<Attempt> = (0..100_000).map(|name| of(&name.to_string(), "192.0.2.1")).collect();
        assert_eq!(names.len(), 100_000, "each client has a key of its own");
    }

    #[test]
    fn nobody_waits_longer_than_the_rate_that_holds_now() {
        let (throttle, here) = (Throttle::new(), client("one", "192.0.2.1"));
        let daily = Rate { count: 1, per: Duration::from_secs(86_400) };
        assert_eq!((throttle.count(here, daily, &At(0)), throttle.wait(here, daily, &At(0))), (Ok(()), Some(daily.per)));
        assert_eq!(throttle.wait(here, RATE, &At(0)), Some(Duration::from_secs(20)));
    }

    #[tokio::test]
    async fn t3_a13_of_many_parallel_guesses_no_more_than_the_limit_are_judged() {
        let (throttle, here) = (Throttle::new(), client("one", "192.0.2.1"));
        let guesses = (0..64).map(|_| async {
            let Ok(trial) = throttle.begin([here], RATE, &At(0)).await else { return 0 };
            tokio::task::yield_now().await;
            trial.failed(RATE, &At(0));
            1
        });
        assert_eq!(futures_util::future::join_all(guesses).await.into_iter().sum::<u32>(), RATE.count);
    }

    #[tokio::test]
    async fn many_parallel_successes_all_have_their_turn() {
        let (throttle, here) = (Throttle::new(), client("one", "192.0.2.1"));
        let successes = (0..64).map(|_| async {
            let trial = throttle.begin([here, here], RATE, &At(0)).await;
            tokio::task::yield_now().await;
            trial.is_ok()
        });
        assert!(futures_util::future::join_all(successes).await.into_iter().all(|is_ok| is_ok));
    }

    #[test]
    fn t3_a13_an_ipv6_network_is_one_address_and_invented_names_push_nothing_out() {
        let (throttle, here) = (Throttle::new(), client("one", "2001:db8::1"));
        for host in ["2001:db8::2", "2001:db8::3:0:0:1", "2001:db8::ffff:1:2:3"] {
            assert_eq!(fail(&throttle, client("one", host), 0), Ok(()), "{host}");
        }
        assert!(matches!(begin(&throttle, client("one", "2001:db8:0:1::1"), 0), Some(Ok(_))));
        for name in 0..40_000 {
            let _ = fail(&throttle, client(&name.to_string(), "2001:db8::1"), 0);
        }
        assert_eq!(fail(&throttle, here, 0), Err(20));
    }
}
