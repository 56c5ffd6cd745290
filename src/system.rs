//! The operating system's clock and randomness.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::clock::{BootId, Clock, Moment, Timestamp};
use crate::random::Random;

/// The longest that anything sleeps before it looks at the clock again: tokio's timers stop while a Linux machine is suspended.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The system's clock.
#[derive(Debug)]
pub struct SystemClock {
    boot_id: BootId,
}

impl SystemClock {
    /// Reads the boot's identity once; where the kernel tells none, boot times hold for this process only.
    pub fn new() -> Self {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let text = text.unwrap_or_else(|_| format!("{:?} {}", SystemTime::now(), std::process::id()));
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.trim().as_bytes());
        // The sign bit stays clear: SQLite's integers are signed.
        let number = u64::from_be_bytes(digest.as_ref()[..8].try_into().expect("SHA-256 has more than 8 bytes")) >> 1;
        Self { boot_id: BootId(number) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let boot = clock_gettime(ClockId::Boottime);
        Moment {
            wall: Timestamp::from_millis(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)),
            boot: Duration::new(u64::try_from(boot.tv_sec).unwrap_or(0), u32::try_from(boot.tv_nsec).unwrap_or(0)),
            boot_id: self.boot_id,
        }
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration.min(LOOK_AGAIN)))
    }
}

/// The system's random generator, through AWS-LC.
#[derive(Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        aws_lc_rs::rand::fill(bytes).expect("the system's random generator does not fail once it is seeded");
    }
}
