//! Whether the wall clock is believed when rows are deleted for their age: a clock that is years ahead for an hour must not cost the history.
//!
//! Boot time says where the wall clock should be. One that is more than [`FAR`] from there is doubted, and nothing is deleted, until it is
//! back, or has gone on from where it is for [`WAIT`] of boot time: then it is the clock that was right, and what was believed before was not.
//! So neither a clock that is ahead deletes anything early, nor does one that was set back stop the deleting for ever.
//!
//! Boot times of two boots do not compare. Where a boot finds the wall clock far from where the last one left it, the machine may have been
//! off or its clock may be wrong, which looks the same: that is doubted too. What is left of a wait goes on in the next boot.

use std::time::Duration;

use crate::clock::Moment;

/// How far from where it is expected the wall clock is believed.
pub const FAR: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// How long one that is farther goes on before it is believed, in boot time.
pub const WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// How often what is known of the clock is written down while nothing happens to it.
const WRITTEN_EVERY: Duration = Duration::from_secs(60 * 60);

/// What is known of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// When it was last believed.
    pub believed: Moment,
    /// Since then it was found far from there.
    pub doubt: Option<Doubt>,
}

/// A clock that is far from where it was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Where it was last seen.
    pub seen: Moment,
    /// How much boot time was to pass from then on until it is believed.
    pub left: Duration,
}

/// What is to be done at this look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Whether rows may be deleted by this clock.
    pub is_believed: bool,
    /// Whether it was moved since the last look: nobody knows of that yet.
    pub is_news: bool,
    /// What to write down.
    pub write: Option<Watch>,
}

/// Judges the clock at `now`; `watch` is what was written down last, nothing where nobody ever looked.
pub fn judge(watch: Option<&Watch>, now: Moment) -> Judgement {
    let believed = |is_due: bool| {
        let watch = Watch { believed: now, doubt: None };
        Judgement { is_believed: true, is_news: false, write: is_due.then_some(watch) }
    };
    let Some(Watch { believed: last, doubt }) = watch else { return believed(true) };
    if is_near(last, &now) {
        return believed(doubt.is_some() || is_due(last, &now));
    }
    let doubted = |left, is_news, is_due: bool| {
        let watch = Watch { believed: *last, doubt: Some(Doubt { seen: now, left }) };
        Judgement { is_believed: false, is_news, write: is_due.then_some(watch) }
    };
    let Some(Doubt { seen, left }) = doubt else { return doubted(WAIT, true, true) };
    if seen.boot_id != now.boot_id {
        return doubted(*left, !is_near(seen, &now), true);
    }
    if !is_near(seen, &now) {
        return doubted(WAIT, true, true);
    }
    match left.saturating_sub(now.age_of(seen)) {
        Duration::ZERO => believed(true),
        left => doubted(left, false, is_due(seen, &now)),
    }
}

/// Whether the wall clock is about where it is expected, from where it was `then`.
fn is_near(then: &Moment, now: &Moment) -> bool {
    // Of another boot it is not known how long ago it was.
    let elapsed = if then.boot_id == now.boot_id { now.age_of(then) } else { Duration::ZERO };
    let expected = then.wall.plus(elapsed);
    now.wall.since(expected).max(expected.since(now.wall)) <= FAR
}

fn is_due(written: &Moment, now: &Moment) -> bool {
    written.boot_id != now.boot_id || now.age_of(written) >= WRITTEN_EVERY
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{BootId, Timestamp};

    const HOUR: Duration = Duration::from_secs(60 * 60);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

    /// A machine with a clock, and what was written down of it.
    struct Machine {
        now: Moment,
        written: Option<Watch>,
    }

    impl Machine {
        /// One whose clock was believed a moment ago.
        fn new() -> Self {
            let now = Moment { wall: Timestamp::default().plus(50 * YEAR), boot: HOUR, boot_id: BootId(1) };
            let mut machine = Self { now, written: None };
            assert!(machine.looks().is_believed, "there is nothing to doubt it by");
            machine
        }

        fn looks(&mut self) -> Judgement {
            let judgement = judge(self.written.as_ref(), self.now);
            self.written = judgement.write.or(self.written);
            judgement
        }

        /// Looks each minute for so long; whether it was believed at each look.
        fn believes_for(&mut self, time: Duration) -> bool {
            let minute = Duration::from_secs(60);
            let looks = u32::try_from(time.as_secs() / 60).expect("a few");
            (0..looks).fold(true, |was_believed, _| {
                self.now = Moment { wall: self.now.wall.plus(minute), boot: self.now.boot + minute, ..self.now };
                self.looks().is_believed && was_believed
            })
        }

        /// Is off for so long.
        fn boots_after(&mut self, off: Duration) {
            let boot_id = BootId(self.now.boot_id.0 + 1);
            self.now = Moment { wall: self.now.wall.plus(off), boot: Duration::ZERO, boot_id };
        }
    }

    #[test]
    fn a_clock_that_goes_on_is_believed_and_written_down_once_an_hour() {
        let mut machine = Machine::new();
        let first = machine.written;
        assert!(machine.believes_for(59 * HOUR / 60));
        assert_eq!(machine.written, first);
        assert!(machine.believes_for(HOUR / 60));
        assert_ne!(machine.written, first);
        // Corrected by hand, or slept through.
        machine.now.wall = machine.now.wall.plus(FAR);
        assert!(machine.looks().is_believed);
        machine.now.wall = machine.now.wall.minus(FAR);
        assert!(machine.believes_for(DAY));
        let asleep = 30 * DAY;
        machine.now = Moment { wall: machine.now.wall.plus(asleep), boot: machine.now.boot + asleep, ..machine.now };
        assert!(machine.looks().is_believed);
    }

    #[test]
    fn one_that_is_far_ahead_is_doubted_until_it_is_back() {
        let mut machine = Machine::new();
        assert!(machine.believes_for(2 * HOUR));
        machine.now.wall = machine.now.wall.plus(70 * YEAR);
        let judgement = machine.looks();
        assert!(!judgement.is_believed && judgement.is_news);
        let judgement = machine.looks();
        assert!(!judgement.is_believed && !judgement.is_news, "it is told once");
        machine.believes_for(20 * HOUR);
        assert!(!machine.looks().is_believed);
        machine.now.wall = machine.now.wall.minus(70 * YEAR);
        assert!(machine.looks().is_believed);
        assert_eq!(machine.written.and_then(|watch| watch.doubt), None);
        // The next time it begins anew.
        machine.now.wall = machine.now.wall.plus(70 * YEAR);
        assert!(machine.looks().is_news);
        machine.believes_for(23 * HOUR);
        assert!(!machine.looks().is_believed);
    }

    #[test]
    fn one_that_goes_on_from_there_for_a_day_is_believed_ahead_or_back() {
        for moved in [|at: Timestamp| at.plus(3 * DAY), |at: Timestamp| at.minus(30 * YEAR)] {
            let mut machine = Machine::new();
            machine.now.wall = moved(machine.now.wall);
            assert!(machine.looks().is_news);
            machine.believes_for(23 * HOUR);
            assert!(!machine.looks().is_believed);
            machine.believes_for(HOUR);
            assert!(machine.looks().is_believed && machine.believes_for(DAY));
        }
        // One that is moved again and again is not.
        let mut machine = Machine::new();
        for _ in 0..10 {
            machine.now.wall = machine.now.wall.plus(YEAR);
            assert!(machine.looks().is_news);
            machine.believes_for(20 * HOUR);
            assert!(!machine.looks().is_believed);
        }
    }

    #[test]
    fn a_boot_goes_on_with_what_the_last_one_wrote() {
        let mut machine = Machine::new();
        machine.boots_after(DAY);
        assert!(machine.looks().is_believed);
        // It was off for long, or its clock is wrong.
        machine.boots_after(70 * YEAR);
        assert!(machine.looks().is_news);
        machine.believes_for(20 * HOUR);
        machine.boots_after(HOUR);
        let judgement = machine.looks();
        assert!(!judgement.is_believed && !judgement.is_news);
        machine.believes_for(3 * HOUR);
        assert!(!machine.looks().is_believed);
        // Of the first boot's last hour up to an hour is not written down.
        machine.believes_for(2 * HOUR);
        assert!(machine.looks().is_believed);
        // A machine that runs an hour a week deletes in the end, too.
        let believed = (0..60).any(|_| {
            machine.boots_after(7 * DAY);
            machine.believes_for(HOUR + HOUR);
            machine.looks().is_believed
        });
        assert!(believed);
    }

    #[test]
    fn a_boot_without_a_battery_is_doubted_until_its_clock_is_set() {
        let mut machine = Machine::new();
        assert!(machine.believes_for(2 * HOUR));
        let right = machine.now.wall.plus(DAY);
        machine.boots_after(DAY);
        machine.now.wall = Timestamp::default();
        assert!(machine.looks().is_news);
        machine.believes_for(HOUR);
        machine.now.wall = right.plus(HOUR);
        assert!(machine.looks().is_believed && machine.believes_for(DAY));
    }
}
