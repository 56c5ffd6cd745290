//! When a token is renewed. All times are ages: counted from when the request for the token was sent, on the boot clock, so that neither
//! a step of the wall clock nor a suspended machine makes a token look younger than it is.

use std::time::Duration;

use crate::clock::Moment;
use crate::id::Id;

/// Assumed where the peer names no life, or none that can be read.
pub const ASSUMED_LIFE: Duration = Duration::from_secs(3600);

/// The longest life that is believed.
pub const LONGEST_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How long a final answer is waited with when an earlier attempt may have been carried out.
pub const PRESENT_AGAIN: Duration = Duration::from_secs(5);

/// How often a peer that refuses for a reason that may pass is asked again.
pub const ASK_AGAIN: Duration = Duration::from_secs(300);

const SHORTEST_LEAD: Duration = Duration::from_secs(30);
const LONGEST_LEAD: Duration = Duration::from_secs(15 * 60);
const LAST_MOMENT: Duration = Duration::from_secs(10);
const LONGEST_SPACING: Duration = Duration::from_secs(30);
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// How long a token lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// When the request for it was sent.
    pub requested: Moment,
    /// From then on.
    pub life: Duration,
}

impl Validity {
    /// Whether a call may still carry it: not in its last min(10 s, 10 % of life), in which it could run out on the way.
    pub fn is_usable(&self, now: &Moment) -> bool {
        now.age_of(&self.requested) < self.life - last_moment(self.life)
    }

    /// How long a call may still carry it.
    pub fn usable_for(&self, now: &Moment) -> Duration {
        (self.life - last_moment(self.life)).saturating_sub(now.age_of(&self.requested))
    }

    /// How long it is until it is renewed in the background.
    pub fn due_in(&self, jitter: Jitter, now: &Moment) -> Duration {
        (self.life - lead(self.life, jitter)).saturating_sub(now.age_of(&self.requested))
    }
}

/// A link's own place between 0 and 1, the same at every start, so that links made together are not renewed together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jitter(f64);

impl Jitter {
    /// The jitter of the peer `id`: from its random bits.
    pub fn of(id: &Id) -> Self {
        let bytes = id.as_bytes();
        Self(f64::from(u16::from_be_bytes([bytes[14], bytes[15]])) / f64::from(u16::MAX))
    }

    /// This share of `span`.
    pub fn share_of(self, span: Duration) -> Duration {
        span.mul_f64(self.0)
    }
}

/// The life that `expires_in` (seconds, if any could be read) gives a token: absent or not above zero is [`ASSUMED_LIFE`], and what is
/// beyond [`LONGEST_LIFE`] is cut.
pub fn life(expires_in: Option<i64>) -> Duration {
    match expires_in.and_then(|seconds| u64::try_from(seconds).ok()) {
        None | Some(0) => ASSUMED_LIFE,
        Some(seconds) => Duration::from_secs(seconds).min(LONGEST_LIFE),
    }
}

/// How long before its end a token of that life is renewed: min(clamp(20 %, 30 s, 15 min), 50 %), less a jitter of 0–10 % of the life
/// that leaves at least half of it, but never in the last min(10 s, 10 %).
pub fn lead(life: Duration, jitter: Jitter) -> Duration {
    let lead = (life / 5).clamp(SHORTEST_LEAD, LONGEST_LEAD).min(life / 2);
    // Ten per cent of a long life are more than the whole lead; renewed at the last moment, one failure would be felt by calls.
    (lead - jitter.share_of((life / 10).min(lead / 2))).max(last_moment(life))
}

/// How long two background refreshes of one peer are apart at least: min(30 s, 25 % of life).
pub fn spacing(life: Duration) -> Duration {
    LONGEST_SPACING.min(life / 4)
}

/// Whether a peer's refusal of its own token of `generation` is a reason to ask for another. When the token is the very one that an earlier
/// refusal brought (of the generation and at the moment of `last`), it is only after a while, as between background refreshes: a peer that
/// refuses every token means something else than the token.
pub fn is_heeded(last: Option<(Moment, u64)>, generation: u64, life: Duration, now: &Moment) -> bool {
    last.is_none_or(|(at, refused)| generation > refused + 1 || now.age_of(&at) >= spacing(life))
}

/// How long to wait after `failures` attempts in a row without a conclusive answer: doubling from a second to a minute, less up to a
/// quarter of jitter, and at least what the peer asked for (up to five minutes: a peer cannot stop its link).
pub fn backoff(failures: u32, jitter: Jitter, asked: Option<Duration>) -> Duration {
    let doubled = FIRST_BACKOFF.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_BACKOFF);
    (doubled - jitter.share_of(doubled / 4)).max(asked.unwrap_or_default().min(ASK_AGAIN))
}

fn last_moment(life: Duration) -> Duration {
    LAST_MOMENT.min(life / 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{BootId, Timestamp};

    const NONE: Jitter = Jitter(0.0);
    const FULL: Jitter = Jitter(1.0);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_lead_follows_the_life() {
        let cases = [
            (Duration::from_secs(3), NONE, Duration::from_millis(1500)),
            (Duration::from_secs(3), FULL, Duration::from_millis(1200)),
            (seconds(60), NONE, seconds(30)),
            (seconds(100), NONE, seconds(30)),
            (seconds(100), FULL, seconds(20)),
            (seconds(3600), NONE, seconds(720)),
            (seconds(3600), FULL, seconds(360)),
            (seconds(7200), NONE, seconds(900)),
            // Ten per cent of ten hours are more than the lead: half of it is left.
            (seconds(36_000), FULL, seconds(450)),
        ];
        for (life, jitter, expected) in cases {
            assert_eq!(lead(life, jitter), expected, "{life:?} {jitter:?}");
        }
    }

    #[test]
    fn a_refresh_is_never_planned_into_the_last_moment_nor_before_half_time() {
        for life in [1, 3, 10, 59, 61, 600, 3600, 86_400, 315_360_000].map(seconds) {
            for jitter in [NONE, Jitter(0.5), FULL] {
                let lead = lead(life, jitter);
                assert!(lead >= last_moment(life) && lead <= life / 2, "{life:?} {jitter:?}: {lead:?}");
            }
        }
    }

    #[test]
    fn c8_lives_that_cannot_be_read_are_assumed() {
        assert_eq!(life(None), ASSUMED_LIFE);
        assert_eq!(life(Some(0)), ASSUMED_LIFE);
        assert_eq!(life(Some(-5)), ASSUMED_LIFE);
        assert_eq!(life(Some(3)), seconds(3));
        assert_eq!(life(Some(i64::MAX)), LONGEST_LIFE);
    }

    #[test]
    fn a_suspended_machine_ages_tokens_and_a_stepped_clock_does_not() {
        let moment = |wall: i64, boot: u64| Moment { wall: Timestamp::from_millis(wall * 1000), boot: seconds(boot), boot_id: BootId(1) };
        let validity = Validity { requested: moment(1_000_000, 50), life: seconds(100) };
        assert!(validity.is_usable(&moment(9_000_000, 139)));
        assert!(!validity.is_usable(&moment(1_000_001, 140)));
        assert_eq!(validity.due_in(NONE, &moment(0, 50)), seconds(70));
        assert_eq!(validity.due_in(NONE, &moment(0, 200)), Duration::ZERO);
        assert_eq!(validity.usable_for(&moment(0, 100)), seconds(40));
    }

    #[test]
    fn backoff_doubles_without_end_and_honours_retry_after_within_bounds() {
        assert_eq!(backoff(1, NONE, None), seconds(1));
        assert_eq!(backoff(2, NONE, None), seconds(2));
        assert_eq!(backoff(7, NONE, None), seconds(60));
        assert_eq!(backoff(u32::MAX, NONE, None), seconds(60));
        assert_eq!(backoff(1, FULL, None), Duration::from_millis(750));
        assert_eq!(backoff(1, NONE, Some(seconds(17))), seconds(17));
        assert_eq!(backoff(1, NONE, Some(seconds(86_400))), ASK_AGAIN);
    }

    #[test]
    fn background_refreshes_keep_apart() {
        assert_eq!(spacing(seconds(3)), Duration::from_millis(750));
        assert_eq!(spacing(seconds(3600)), seconds(30));
    }

    #[test]
    fn refusals_of_a_peer_are_heeded_apart() {
        let at = |boot| Moment { wall: Timestamp::from_millis(0), boot: seconds(boot), boot_id: BootId(1) };
        for (last, life, now, expected) in [
            (None, 3600, 1000, true),
            (Some(1000), 3600, 1000, false),
            (Some(1000), 3600, 1029, false),
            (Some(1000), 3600, 1030, true),
            (Some(1000), 40, 1009, false),
            (Some(1000), 40, 1010, true),
        ] {
            let last = last.map(|last| (at(last), 4));
            assert_eq!(is_heeded(last, 5, seconds(life), &at(now)), expected, "{last:?} {life} {now}");
            assert!(is_heeded(last, 6, seconds(life), &at(now)), "a token that came by itself, or with a new link");
        }
    }
}
