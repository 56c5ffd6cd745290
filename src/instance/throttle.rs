//! Guessing is slowed: failed authentications per client or user and address. Only failures count, so who knows the secret never waits
//! for anybody at another address.
//!
//! GCRA: per key one point of boot time, at which its failures will have drained away.

use std::net::IpAddr;
use std::time::Duration;

use quick_cache::sync::Cache;

use crate::config::Rate;
use crate::secret::Digest;

/// Keys in memory at most; the least used go first.
const MOST: usize = 16 * 1024;

/// The failed authentications of late.
#[derive(Debug)]
pub struct Throttle {
    drained_at: Cache<Digest, Duration>,
}

/// Who fails.
#[derive(Clone, Copy, Debug)]
pub struct Attempt(Digest);

impl Attempt {
    /// An attempt to be `name`, which is of some `kind`, from an address.
    pub fn new(kind: &str, name: &str, from: Option<IpAddr>) -> Self {
        let from = from.map(|address| address.to_canonical().to_string()).unwrap_or_default();
        Self(Digest::of(&format!("{kind}\n{from}\n{name}")))
    }
}

impl Throttle {
    /// Nobody has failed.
    pub fn new() -> Self {
        Self { drained_at: Cache::new(MOST) }
    }

    /// How long an attempt has to wait at boot time `now`; nothing when it may be made.
    pub fn wait(&self, attempt: Attempt, rate: Rate, now: Duration) -> Option<Duration> {
        let level = self.drained_at.get(&attempt.0)?.saturating_sub(now);
        let wait = level.saturating_sub(rate.per.saturating_sub(interval(rate)));
        (!wait.is_zero()).then_some(wait)
    }

    /// An attempt failed at boot time `now`.
    pub fn failed(&self, attempt: Attempt, rate: Rate, now: Duration) {
        let drained_at = self.drained_at.get(&attempt.0).unwrap_or_default().max(now).saturating_add(interval(rate));
        // No more than is needed to be full: who goes on trying does not wait longer for it.
        self.drained_at.insert(attempt.0, drained_at.min(now.saturating_add(rate.per)));
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

fn interval(rate: Rate) -> Duration {
    rate.per / rate.count.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t3_a13_only_failures_count_and_only_for_their_name_and_address() {
        let rate = Rate { count: 3, per: Duration::from_secs(60) };
        let throttle = Throttle::new();
        let at = Duration::from_secs;
        let here = Attempt::new("client", "one", Some([192, 0, 2, 1].into()));
        for second in 0..3 {
            assert_eq!(throttle.wait(here, rate, at(second)), None);
            throttle.failed(here, rate, at(second));
        }
        assert_eq!(throttle.wait(here, rate, at(2)), Some(at(18)));
        assert_eq!(throttle.wait(here, rate, at(20)), None);
        for other in [Attempt::new("client", "one", Some([192, 0, 2, 2].into())), Attempt::new("user", "one", Some([192, 0, 2, 1].into()))]
        {
            assert_eq!(throttle.wait(other, rate, at(2)), None);
        }
        for _ in 0..100 {
            throttle.failed(here, rate, at(30));
        }
        assert_eq!(throttle.wait(here, rate, at(30)), Some(at(20)), "more failures do not add up");
    }
}
