//! Passwords are hashed on threads of their own, few at a time: each takes 19 MiB and tens of milliseconds of one core. The memory is made once
//! for each turn that there can be, and kept.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::throttle::{self, Trial};
use super::turns::Turns;
use crate::clock::Clock;
use crate::config::Rate;
use crate::inbound::password::{self, BadPassword, PasswordHash, Workspace};
use crate::random::Random;
use crate::secret::{ExposeSecret, SecretString};

/// Too many passwords are being checked: 503, try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being checked at once")]
pub struct Busy;

/// Hashes and checks passwords.
#[derive(Clone, Debug)]
pub struct Passwords {
    turns: Turns,
    /// For new passwords, which operators set: no log-in stands in their way.
    own_turn: Arc<Semaphore>,
    /// What is free of the memory in which passwords are hashed; there are never more than there were turns at once.
    workspaces: Arc<Mutex<Vec<Workspace>>>,
}

impl Passwords {
    /// Half of the machine's cores at most, so that calls go on meanwhile.
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { turns: Turns::new((cores / 2).max(1)), own_turn: Arc::new(Semaphore::new(1)), workspaces: Arc::default() }
    }

    /// Whether `password` is the one that `stored` was made of; `None` (nobody's) takes as long. A check that has begun settles its `trial`
    /// even when whoever asked has gone away: else those who hang up could keep the hashing busy without limit. `from` is who asks.
    ///
    /// # Errors
    /// Too many wait already, there or in all; that is no failure.
    pub async fn verify(
        &self,
        from: Option<IpAddr>,
        stored: Option<PasswordHash>,
        password: SecretString,
        trial: Trial,
        rate: Rate,
        clock: Arc<dyn Clock>,
    ) -> Result<bool, Busy> {
        let check = move |workspace: &mut Workspace| {
            let is_right = password::verify(stored.as_ref(), password.expose_secret(), workspace);
            if !is_right {
                trial.failed(rate, clock.as_ref());
            }
            is_right
        };
        let from = throttle::network(from);
        let turn = self.turns.take(from).await.map_err(|_| Busy)?;
        let is_right = self.run(turn, check).await?;
        if is_right {
            self.turns.remember(from);
        }
        Ok(is_right)
    }

    /// The hash of a new password.
    ///
    /// # Errors
    /// The daemon stops; inside, that it cannot be a password.
    pub async fn hash(&self, password: SecretString, random: Arc<dyn Random>) -> Result<Result<PasswordHash, BadPassword>, Busy> {
        let turn = Arc::clone(&self.own_turn).acquire_owned().await.map_err(|_| Busy)?;
        self.run(turn, move |workspace| PasswordHash::of(password.expose_secret(), random.as_ref(), workspace)).await
    }

    /// `work` on a thread of its own, with memory that nobody else uses meanwhile.
    async fn run<T: Send + 'static>(
        &self,
        turn: impl Send + 'static,
        work: impl FnOnce(&mut Workspace) -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let workspaces = Arc::clone(&self.workspaces);
        let worked = tokio::task::spawn_blocking(move || {
            let free = workspaces.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut workspace = free.unwrap_or_default();
            let done = work(&mut workspace);
            workspaces.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
            // The turn ends with the work, even when whoever asked has gone away; after the memory is free, or the next one would make more.
            drop(turn);
            done
        });
        worked.await.map_err(|_| Busy)
    }
}

impl Default for Passwords {
    fn default() -> Self {
        Self::new()
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
        Some(Passwords::new().verify(None, hash, password.into(), trial, RATE, clock).await)
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
    async fn a13_one_address_does_not_take_all_the_places_nor_an_operators() {
        let (passwords, failures) = (Passwords::new(), Throttle::new());
        let clock = Arc::new(SystemClock::new());
        let rate = Rate { count: 1_000, ..RATE };
        let check = async |number: u16, from: &str| {
            let trial = failures.begin([Attempt::new("user", &number.to_string(), None)], rate, clock.as_ref()).await.expect("few failed");
            let (passwords, from, clock) = (passwords.clone(), from.parse().ok(), Arc::clone(&clock));
            let mut check = Box::pin(async move { passwords.verify(from, None, "a guess".into(), trial, rate, clock).await });
            // It has taken its place, or was refused, once it was asked.
            match (&mut check).now_or_never() {
                Some(answer) => Err(answer),
                None => Ok(check),
            }
        };
        let mut turns = Vec::new();
        while let Some(turn) = passwords.turns.take(None).now_or_never() {
            turns.push(turn.expect("it is free"));
        }
        let mut waiting = Vec::new();
        for number in 0..20 {
            waiting.extend(check(number, "2001:db8::1").await.ok());
        }
        assert_eq!(waiting.len(), 8, "the rest is refused at once");
        assert_eq!(check(20, "2001:db8::2").await.err(), Some(Err(Busy)), "the /64 is one address");
        let other = check(21, "192.0.2.1").await.expect("there is room for others");
        let hash = passwords.hash("correct horse".into(), Arc::new(SystemRandom)).await;
        assert!(hash.is_ok_and(|hash| hash.is_ok()), "whoever sets a password waits for no log-in");
        drop(turns);
        let (answer, _) = futures_util::future::join(other, futures_util::future::join_all(waiting)).await;
        assert_eq!(answer, Ok(false));
    }
}
