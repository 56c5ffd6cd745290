//! Time as a value: what others see (wall time) and what timers use (boot time, which runs on while a machine is suspended).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// A point of wall time, in whole milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The farthest point that RFC 3339 can name, the end of the year 9999.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, as OAuth answers carry them (`exp`, `iat`).
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This point moved forward; stops at [`Timestamp::MAX`].
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(saturating_millis(duration)).min(Self::MAX.0))
    }

    /// This point moved back.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(saturating_millis(duration)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with whole seconds, as in `2026-11-21T11:30:00Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = u64::try_from(self.seconds()).unwrap_or(0).min(253_402_300_799);
        let time = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
        write!(f, "{}", humantime::format_rfc3339_seconds(time))
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The identity of one boot of the machine; boot times compare only within one boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootId(pub u64);

/// One reading of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Wall time.
    pub wall: Timestamp,
    /// Time since the machine booted, suspended time included.
    pub boot: Duration,
    /// Which boot `boot` counts from.
    pub boot_id: BootId,
}

impl Moment {
    /// How long ago `earlier` was: boot time while the machine has not rebooted in between, else wall time; never below zero.
    /// A step of the wall clock alone therefore ages nothing.
    pub fn age_of(&self, earlier: &Moment) -> Duration {
        if self.boot_id == earlier.boot_id { self.boot.saturating_sub(earlier.boot) } else { self.wall.since(earlier.wall) }
    }

    /// This moment moved back within its boot.
    pub fn minus(self, duration: Duration) -> Self {
        Self { wall: self.wall.minus(duration), boot: self.boot.saturating_sub(duration), ..self }
    }
}

/// Where time comes from. The daemon's is the operating system's; tests have one that they move.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Now.
    fn now(&self) -> Moment;

    /// Completes after `duration` of boot time, or earlier: whoever waits looks at the clock again.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

fn saturating_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(wall: i64, boot: u64, boot_id: u64) -> Moment {
        Moment { wall: Timestamp::from_millis(wall), boot: Duration::from_millis(boot), boot_id: BootId(boot_id) }
    }

    #[test]
    fn age_is_boot_time_within_one_boot() {
        let earlier = moment(1_000, 500, 1);
        assert_eq!(moment(9_999_000, 700, 1).age_of(&earlier), Duration::from_millis(200));
        assert_eq!(moment(0, 700, 1).age_of(&earlier), Duration::from_millis(200));
    }

    #[test]
    fn age_is_wall_time_across_boots_and_never_negative() {
        let earlier = moment(1_000, 500, 1);
        assert_eq!(moment(4_000, 10, 2).age_of(&earlier), Duration::from_secs(3));
        assert_eq!(moment(10, 10, 2).age_of(&earlier), Duration::ZERO);
    }

    #[test]
    fn timestamps_print_as_rfc_3339_and_stop_at_the_year_9999() {
        assert_eq!(Timestamp::from_millis(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp::MAX.plus(Duration::from_secs(u64::MAX)).to_string(), "9999-12-31T23:59:59Z");
    }
}
