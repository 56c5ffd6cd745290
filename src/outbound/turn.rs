//! Whether the next attempt to renew a link's token is made now, or how long it waits.

use std::time::Duration;

use super::attempt::Intent;
use super::plan::{self, Jitter, PRESENT_AGAIN, Validity};
use crate::clock::Moment;

/// A peer that refuses a token right after it gave it is not asked for another at once.
const REFUSED_AGAIN: Duration = Duration::from_secs(1);

/// No attempt by itself before then.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    /// Counted from here,
    pub since: Moment,
    /// so long.
    pub wait: Duration,
}

impl Pause {
    /// How much of it is left.
    pub fn left(&self, now: &Moment) -> Duration {
        self.wait.saturating_sub(now.age_of(&self.since))
    }
}

/// What is known of a link when it is asked whether it is its turn.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// An attempt has not come to its end.
    pub is_under_way: bool,
    /// There is something to ask for new tokens with.
    pub is_renewable: bool,
    /// An operator asks for it.
    pub is_asked: bool,
    /// An operator changed what an attempt depends on since the last one began.
    pub is_changed: bool,
    /// A call waits for a token.
    pub is_needed: bool,
    /// The peer refused the access token that is held.
    pub is_refused: bool,
    /// The token held, and what was written before an attempt that is not settled.
    pub held: Option<(Validity, Intent)>,
    /// What follows from the last attempt, when it failed.
    pub pause: Option<Pause>,
    /// When the last request for a token was sent.
    pub sent: Option<Moment>,
    /// When the last attempt ended; before the first one, when the daemon began to look after the link.
    pub settled: Moment,
    /// Nothing is done in the background before then.
    pub quiet: Pause,
    /// The link's place in the spread.
    pub jitter: Jitter,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// An attempt, now.
    Fly,
    /// Nothing for so long, unless something happens.
    Wait(Duration),
}

/// When the next attempt is due. What an operator asks for, or changed to help a failed attempt, is due at once; what a call needs, as soon
/// as no failed attempt is being slept over; the rest by the plan. Nothing shortens the wait before a refused refresh token is presented
/// for the last time: the answer that counts may be on its way.
pub fn judge(situation: &Situation, now: &Moment) -> Next {
    if situation.is_under_way || !situation.is_renewable {
        return Next::Wait(Duration::MAX);
    }
    let is_prompted = situation.is_asked || (situation.is_changed && situation.pause.is_some());
    let wait = if is_prompted { Duration::ZERO } else { by_itself(situation, now) };
    let last_word = match situation.held {
        Some((_, intent)) if intent.refused => PRESENT_AGAIN.saturating_sub(now.age_of(&situation.settled)),
        _ => Duration::ZERO,
    };
    match wait.max(last_word) {
        Duration::ZERO => Next::Fly,
        wait => Next::Wait(wait),
    }
}

fn by_itself(situation: &Situation, now: &Moment) -> Duration {
    let wait = situation.pause.map_or(Duration::ZERO, |pause| pause.left(now));
    let quiet = situation.quiet.left(now);
    let Some((validity, intent)) = situation.held else { return if situation.is_needed { wait } else { wait.max(quiet) } };
    let since_sent = situation.sent.map_or(Duration::MAX, |sent| now.age_of(&sent));
    if situation.is_needed && situation.is_refused {
        return wait.max(REFUSED_AGAIN.saturating_sub(since_sent));
    }
    if (situation.is_needed && !validity.is_usable(now)) || situation.pause.is_some() {
        return wait;
    }
    let due = if intent.attempts > 0 { Duration::ZERO } else { validity.due_in(situation.jitter, now) };
    let apart = plan::spacing(validity.life).saturating_sub(since_sent);
    due.max(apart).max(quiet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;
    use crate::outbound::link::examples::at;

    const NEVER: Next = Next::Wait(Duration::MAX);

    const fn seconds(seconds: u64) -> Next {
        Next::Wait(Duration::from_secs(seconds))
    }

    fn pause(since: u64, wait: u64) -> Pause {
        Pause { since: at(since), wait: Duration::from_secs(wait) }
    }

    fn validity() -> Validity {
        Validity { requested: at(100), life: Duration::from_secs(1000) }
    }

    fn intent(attempts: u32, refused: bool) -> Option<(Validity, Intent)> {
        Some((validity(), Intent { attempts, refused }))
    }

    /// A token of 1000 s, held since 100 s, whose link has been looked after since 100 s and nobody asks anything of.
    fn well() -> Situation {
        Situation {
            is_under_way: false,
            is_renewable: true,
            is_asked: false,
            is_changed: false,
            is_needed: false,
            is_refused: false,
            held: intent(0, false),
            pause: None,
            sent: None,
            settled: at(100),
            quiet: pause(100, 0),
            jitter: Jitter::of(&Id::from_bytes([0; 16])),
        }
    }

    #[test]
    fn each_thing_that_happens_has_its_turn() {
        let failed = || Situation { pause: Some(pause(800, 300)), settled: at(800), sent: Some(at(799)), held: intent(1, false), ..well() };
        let refused = || Situation { pause: Some(pause(800, 5)), settled: at(800), sent: Some(at(799)), held: intent(2, true), ..well() };
        let restarted = || Situation { held: intent(2, true), settled: at(800), quiet: pause(800, 0), ..well() };
        for (name, situation, now, expected) in [
            ("a fresh token", well(), 200, seconds(700)),
            ("the lead is reached", well(), 900, Next::Fly),
            ("under way", Situation { is_under_way: true, is_asked: true, ..well() }, 900, NEVER),
            ("nothing to ask with", Situation { is_renewable: false, is_asked: true, ..well() }, 900, NEVER),
            ("asked", Situation { is_asked: true, ..well() }, 200, Next::Fly),
            ("due, sent just before", Situation { sent: Some(at(895)), ..well() }, 900, seconds(25)),
            ("due, in the spread of a start", Situation { quiet: pause(895, 10), ..well() }, 900, seconds(5)),
            ("an intent that is not settled", Situation { held: intent(1, false), ..well() }, 200, Next::Fly),
            ("nothing held yet", Situation { held: None, ..well() }, 200, Next::Fly),
            ("nothing held, in the spread of a start", Situation { held: None, quiet: pause(195, 10), ..well() }, 200, seconds(5)),
            (
                "nothing held, in the spread, a call needs it",
                Situation { held: None, quiet: pause(195, 10), is_needed: true, ..well() },
                200,
                Next::Fly,
            ),
            ("nothing held, slept over", Situation { held: None, pause: Some(pause(190, 30)), ..well() }, 200, seconds(20)),
            ("a call needs a token that ran out", Situation { is_needed: true, sent: Some(at(1095)), ..well() }, 1095, Next::Fly),
            ("a call needs one that is good", Situation { is_needed: true, ..well() }, 200, seconds(700)),
            ("refused by the peer, no call", Situation { is_refused: true, ..well() }, 200, seconds(700)),
            ("refused by the peer", Situation { is_needed: true, is_refused: true, ..well() }, 200, Next::Fly),
            ("refused as soon as given", Situation { is_needed: true, is_refused: true, sent: Some(at(200)), ..well() }, 200, seconds(1)),
            ("failed, slept over", failed(), 900, seconds(200)),
            ("failed, a call needs it", Situation { is_needed: true, ..failed() }, 1095, seconds(5)),
            ("failed, asked", Situation { is_asked: true, ..failed() }, 801, Next::Fly),
            ("failed, changed meanwhile or since", Situation { is_changed: true, ..failed() }, 801, Next::Fly),
            ("well, changed", Situation { is_changed: true, ..well() }, 200, seconds(700)),
            ("under way, changed", Situation { is_changed: true, is_under_way: true, ..failed() }, 801, NEVER),
            ("before the last presentation", refused(), 801, seconds(4)),
            ("the last presentation", refused(), 805, Next::Fly),
            ("before the last presentation, asked", Situation { is_asked: true, ..refused() }, 802, seconds(3)),
            ("before the last presentation, changed", Situation { is_changed: true, ..refused() }, 802, seconds(3)),
            ("before the last presentation, restarted", restarted(), 801, seconds(4)),
            ("before the last presentation, restarted and asked", Situation { is_asked: true, ..restarted() }, 803, seconds(2)),
            ("the last presentation, restarted", restarted(), 805, Next::Fly),
        ] {
            assert_eq!(judge(&situation, &at(now)), expected, "{name}");
        }
    }
}
