//! Time that stands still until a test moves it, and randomness that a seed decides.

use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use p2pid::clock::{BootId, Clock, Moment, Timestamp};
use p2pid::random::Random;
use tokio::sync::watch;

/// A clock that tests move. It begins at the machine's wall time, since certificates are checked against that.
pub(crate) struct ManualClock {
    reading: watch::Sender<Reading>,
}

/// The moment, and how much of the boot time the machine has slept through: timers do not run meanwhile.
#[derive(Clone, Copy)]
struct Reading {
    moment: Moment,
    suspended: Duration,
}

impl Reading {
    /// The time that timers know of.
    fn awake(&self) -> Duration {
        self.moment.boot.saturating_sub(self.suspended)
    }
}

impl ManualClock {
    pub(crate) fn new() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
        let wall = Timestamp::from_millis(i64::try_from(wall.as_secs()).expect("it is before the year 9999") * 1000);
        let moment = Moment { wall, boot: Duration::from_secs(1000), boot_id: BootId(1) };
        Self { reading: watch::Sender::new(Reading { moment, suspended: Duration::ZERO }) }
    }

    /// Lets `duration` pass, for wall and boot time alike; who slept as long wakes.
    pub(crate) fn advance(&self, duration: Duration) {
        self.reading.send_modify(|Reading { moment, .. }| {
            moment.wall = moment.wall.plus(duration);
            moment.boot += duration;
        });
    }

    /// The machine is suspended for `duration`: wall and boot time go on, and who sleeps sleeps on as if nothing had been.
    pub(crate) fn suspend(&self, duration: Duration) {
        self.reading.send_modify(|Reading { moment, suspended }| {
            moment.wall = moment.wall.plus(duration);
            moment.boot += duration;
            *suspended += duration;
        });
    }

    /// Somebody sets the wall clock forward.
    pub(crate) fn step_wall_forward(&self, by: Duration) {
        self.reading.send_modify(|Reading { moment, .. }| moment.wall = moment.wall.plus(by));
    }

    /// Somebody sets the wall clock back.
    pub(crate) fn step_wall_back(&self, by: Duration) {
        self.reading.send_modify(|Reading { moment, .. }| moment.wall = moment.wall.minus(by));
    }

    /// The machine boots again: boot time starts anew under another identity.
    pub(crate) fn reboot(&self) {
        self.reading.send_modify(|Reading { moment, suspended }| {
            moment.boot = Duration::ZERO;
            moment.boot_id = BootId(moment.boot_id.0 + 1);
            *suspended = Duration::ZERO;
        });
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ManualClock({})", self.now().wall)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        self.reading.borrow().moment
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut readings = self.reading.subscribe();
        let start = *self.reading.borrow();
        Box::pin(async move {
            // A clock that is gone wakes nobody any more: the world is being torn down.
            let slept = |now: &Reading| now.moment.boot_id != start.moment.boot_id || now.awake().saturating_sub(start.awake()) >= duration;
            if readings.wait_for(slept).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

/// Randomness from a seed (SplitMix64): the same seed gives the same identities and tokens.
pub(crate) struct SeededRandom(Mutex<u64>);

impl SeededRandom {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }
}

impl fmt::Debug for SeededRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeededRandom")
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in bytes.chunks_mut(8) {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = *state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

#[tokio::test]
async fn sleepers_wake_when_their_time_has_passed_and_not_before() {
    let clock = ManualClock::new();
    let mut sleeper = clock.sleep(Duration::from_secs(10));
    let mut woken = async || tokio::time::timeout(Duration::from_millis(20), &mut sleeper).await.is_ok();
    clock.advance(Duration::from_secs(9));
    clock.step_wall_forward(Duration::from_secs(1000));
    clock.suspend(Duration::from_secs(1000));
    assert!(!woken().await);
    clock.advance(Duration::from_secs(1));
    assert!(woken().await);
}
