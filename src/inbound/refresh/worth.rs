//! What a refresh token is worth: the rules of [`super`], told apart from what is then made of them. A refresh acts on it; an introspection
//! only tells it, and has no tokens to issue.

use std::time::Duration;

use super::{Current, Facts, Refusal, Repeat, State};
use crate::clock::Moment;
use crate::inbound::event::Event;
use crate::inbound::grant::{EndReason, Policy};
use crate::oauth::rotation::Rotation;

/// How long after a strict rotation a second use is only the loser of a race.
const RACE: Duration = Duration::from_secs(2);

/// What presenting a refresh token gets its client, if nothing is wrong with what it asks.
#[derive(Clone, Copy, Debug)]
pub enum Worth<'a> {
    /// Rules 1 and 3, and `strict`: a successor pair.
    Successor {
        /// What becomes of the presented token by it.
        presented_becomes: State,
    },
    /// Rule 2: the first answer again.
    FirstAnswer(&'a Repeat),
    /// `none`: a new access token beside the same refresh token.
    Access,
}

/// Why a refresh token is worth nothing, whatever is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worthless {
    /// The grant was ended or has run out.
    GrantEnded,
    /// Nobody renewed it for too long.
    Idle,
    /// Rule 4: it was replaced, not long ago.
    Replaced,
    /// Rule 5: only a thief can have it. Whoever presents it for tokens ends the grant.
    Replayed,
}

impl Worthless {
    /// What its client is told.
    pub const fn refusal(self) -> Refusal {
        match self {
            Self::GrantEnded => Refusal::GrantEnded,
            Self::Idle => Refusal::Idle,
            Self::Replaced => Refusal::Replaced,
            Self::Replayed => Refusal::Replayed,
        }
    }

    /// What the audit hears when tokens are asked for it.
    pub const fn event(self) -> Option<Event> {
        match self {
            Self::GrantEnded | Self::Idle => None,
            Self::Replaced => Some(Event::LatePresentation),
            Self::Replayed => Some(Event::RefreshTokenReplayed),
        }
    }

    /// Whether the grant ends when tokens are asked for it, and why.
    pub const fn ends_the_grant(self) -> Option<EndReason> {
        match self {
            Self::GrantEnded | Self::Idle | Self::Replaced => None,
            Self::Replayed => Some(EndReason::RefreshTokenReplayed),
        }
    }
}

impl Facts {
    /// What the presented token is worth at `now` to the client that it was issued to, with the key that it is bound to.
    ///
    /// What is asked of it is not looked at: a thief is not spared for asking too much.
    ///
    /// # Errors
    ///
    /// Why it is worth nothing. Whether the grant is active comes before the rules, and so changes nothing and counts as no use.
    pub fn worth(&self, policy: &Policy, now: Moment) -> Result<Worth<'_>, Worthless> {
        if !self.grant.is_active(now.wall) {
            return Err(Worthless::GrantEnded);
        }
        if self.current.remaining(policy, now).is_zero() {
            return Err(Worthless::Idle);
        }
        let window_is_open = |since: &Moment| now.age_of(since) < policy.retry_window;
        let presented = &self.presented;
        match (presented.state, policy.rotation) {
            (State::Current, Rotation::None) => Ok(Worth::Access),
            (State::Current, Rotation::RetrySafe) => Ok(Worth::Successor { presented_becomes: State::Previous }),
            (State::Current, Rotation::Strict) => Ok(Worth::Successor { presented_becomes: State::Retired }),
            (State::Previous | State::Retired | State::Withdrawn, Rotation::Strict) if now.age_of(&presented.since) <= RACE => {
                Err(Worthless::Replaced)
            }
            (State::Previous | State::Retired | State::Withdrawn, Rotation::Strict) => Err(Worthless::Replayed),
            (State::Previous, Rotation::RetrySafe | Rotation::None) => match &self.repeat {
                Some(repeat) if window_is_open(&self.current.since) => Ok(Worth::FirstAnswer(repeat)),
                _ if !self.current.is_used => Ok(Worth::Successor { presented_becomes: State::Previous }),
                _ => Err(Worthless::Replayed),
            },
            (State::Retired | State::Withdrawn, Rotation::RetrySafe | Rotation::None) if window_is_open(&presented.since) => {
                Err(Worthless::Replaced)
            }
            (State::Retired | State::Withdrawn, Rotation::RetrySafe | Rotation::None) => Err(Worthless::Replayed),
        }
    }
}

impl Current {
    /// What is left of its idle life. That is an age, as a window is: a wall clock that jumps ahead must not end every link.
    pub fn remaining(&self, policy: &Policy, now: Moment) -> Duration {
        policy.refresh_ttl.saturating_sub(now.age_of(&self.since))
    }
}
