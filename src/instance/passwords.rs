//! Passwords are hashed on threads of their own, few at a time: each takes 19 MiB and tens of milliseconds of one core.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::throttle::Trial;
use crate::clock::Clock;
use crate::config::Rate;
use crate::inbound::password::{self, BadPassword, PasswordHash};
use crate::random::Random;
use crate::secret::{ExposeSecret, SecretString};

/// Who may wait for a turn; more are refused, so that a flood of log-ins ends here.
const WAITING: usize = 64;

/// Too many passwords are being checked: 503, try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being checked at once")]
pub struct Busy;

/// Hashes and checks passwords.
#[derive(Clone, Debug)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl Passwords {
    /// Half of the machine's cores at most, so that calls go on meanwhile.
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { turns: Arc::new(Semaphore::new((cores / 2).max(1))), waiting: Arc::default() }
    }

    /// Whether `password` is the one that `stored` was made of; `None` (nobody's) takes as long. A check that has begun settles its `trial`
    /// even when whoever asked has gone away: else those who hang up could keep the hashing busy without limit.
    ///
    /// # Errors
    /// Too many wait already; that is no failure.
    pub async fn verify(
        &self,
        stored: Option<PasswordHash>,
        password: SecretString,
        trial: Trial,
        rate: Rate,
        clock: Arc<dyn Clock>,
    ) -> Result<bool, Busy> {
        let check = move || {
            let is_right = password::verify(stored.as_ref(), password.expose_secret());
            if !is_right {
                trial.failed(rate, clock.as_ref());
            }
            is_right
        };
        self.run(check).await
    }

    /// The hash of a new password.
    ///
    /// # Errors
    /// Too many wait already; inside, that it cannot be a password.
    pub async fn hash(&self, password: SecretString, random: Arc<dyn Random>) -> Result<Result<PasswordHash, BadPassword>, Busy> {
        self.run(move || PasswordHash::of(password.expose_secret(), random.as_ref())).await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let _place = Place::take(&self.waiting).ok_or(Busy)?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Busy)?;
        let worked = tokio::task::spawn_blocking(move || {
            // The turn ends with the work, even when whoever asked has gone away.
            let _turn = turn;
            work()
        });
        worked.await.map_err(|_| Busy)
    }
}

impl Default for Passwords {
    fn default() -> Self {
        Self::new()
    }
}

/// A place in the queue, given back when it is dropped.
struct Place<'w>(&'w AtomicUsize);

impl<'w> Place<'w> {
    fn take(waiting: &'w AtomicUsize) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < WAITING).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;
    use crate::instance::throttle::{Attempt, Throttle};
    use crate::system::{SystemClock, SystemRandom};

    const RATE: Rate = Rate { count: 2, per: Duration::from_secs(600) };

    fn somebody() -> Attempt {
        Attempt::new("user", "ops", None)
    }

    /// What one guess at somebody's password comes to; `None` when it may not be made.
    async fn guess(failures: &Throttle, hash: Option<PasswordHash>, password: &str) -> Option<Result<bool, Busy>> {
        let clock = Arc::new(SystemClock::new());
        let trial = failures.begin([somebody()], RATE, clock.as_ref()).await.ok()?;
        Some(Passwords::new().verify(hash, password.into(), trial, RATE, clock).await)
    }

    #[tokio::test]
    async fn a_password_is_hashed_and_checked_and_only_a_wrong_one_counts() {
        let (passwords, failures) = (Passwords::new(), Throttle::new());
        let hash = passwords.hash("correct horse".into(), Arc::new(SystemRandom)).await.expect("a turn").expect("a password");
        for _ in 0..3 {
            assert_eq!(guess(&failures, Some(hash.clone()), "correct horse").await, Some(Ok(true)));
        }
        assert_eq!(guess(&failures, Some(hash.clone()), "wrong horse").await, Some(Ok(false)));
        assert_eq!(guess(&failures, None, "correct horse").await, Some(Ok(false)));
        assert_eq!(guess(&failures, Some(hash), "correct horse").await, None, "two have failed");
    }

    #[tokio::test]
    async fn a13_a_check_that_has_begun_counts_though_whoever_asked_hangs_up() {
        let failures = Throttle::new();
        for _ in 0..RATE.count {
            // Asked once, the check has begun; then nobody waits for it any more.
            let _ = guess(&failures, None, "a guess").now_or_never();
        }
        assert_eq!(guess(&failures, None, "a guess").await, None);
    }

    #[tokio::test]
    async fn more_than_can_wait_are_refused_at_once() {
        let passwords = Passwords::new();
        let mut checks = tokio::task::JoinSet::new();
        for _ in 0..WAITING + 10 {
            let passwords = passwords.clone();
            checks.spawn(async move { passwords.run(|| std::thread::sleep(std::time::Duration::from_millis(1))).await });
        }
        let refused = checks.join_all().await.into_iter().filter(Result::is_err).count();
        assert_eq!(refused, 10);
        assert_eq!(passwords.waiting.load(Ordering::Relaxed), 0);
    }
}
