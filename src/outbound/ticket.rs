//! Request URLs: the one-time ticket that starts the handshake for a peer. Made only by an operator; who holds it may use it once.

use std::time::Duration;

use super::handshake::{Handshake, Stage};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::secret::Digest;

/// How long a handshake lives from the press of the button.
pub const HANDSHAKE_LIFE: Duration = Duration::from_secs(3600);

/// How long a dead ticket is remembered, so that it is told from one that never was.
pub const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);

/// A request URL, by the digest of its ticket.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// The digest of what stands in the URL.
    pub digest: Digest,
    /// Which peer is to be linked.
    pub peer: Id,
    /// When it was made.
    pub made_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Whether pressing the button needs a log-in of ours.
    pub login: bool,
    /// What has become of it.
    pub fate: Fate,
}

/// What has become of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nobody has used it.
    Open,
    /// Somebody pressed the button.
    Used {
        /// The handshake that began then.
        handshake: Id,
    },
    /// A newer one was made, or the peer's address or OB app changed.
    Replaced,
}

/// Why a request URL does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dead {
    /// There never was one, as far as we remember.
    Unknown,
    /// Nobody used it in time.
    Expired,
    /// It was used.
    Used,
    /// A newer one was made.
    Replaced,
}

/// What pressing the button does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Press {
    /// Begins a handshake and consumes the ticket.
    Begin,
    /// The browser that pressed before presses again: the same handshake, with a new state.
    Again(Id),
}

/// Whether the ticket can still be used; looking changes nothing. `handshake` is the one that it began, `browser` whether the one who
/// looks is who began it.
pub fn judge(ticket: Option<&Ticket>, handshake: Option<&Handshake>, is_browser: bool, now: Timestamp) -> Result<Press, Dead> {
    let ticket = ticket.ok_or(Dead::Unknown)?;
    match (ticket.fate, handshake) {
        (Fate::Replaced, _) => Err(Dead::Replaced),
        (Fate::Open, _) if now >= ticket.expires_at => Err(Dead::Expired),
        (Fate::Open, _) => Ok(Press::Begin),
        // The button may be pressed again by the same browser until its callback: people go back, and log-ins time out.
        (Fate::Used { handshake: id }, Some(handshake)) if is_browser && matches!(handshake.stage, Stage::Pressed { .. }) => {
            if now < ticket.expires_at.plus(HANDSHAKE_LIFE) { Ok(Press::Again(id)) } else { Err(Dead::Expired) }
        }
        (Fate::Used { .. }, _) => Err(Dead::Used),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::handshake::tests::handshake;
    use crate::outbound::peer::examples::id;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn ticket(fate: Fate) -> Ticket {
        Ticket { digest: Digest::of("ticket"), peer: id(2), made_at: at(0), expires_at: at(100), login: false, fate }
    }

    #[test]
    fn c4_a_ticket_is_used_once_and_each_end_is_told_apart() {
        let used = ticket(Fate::Used { handshake: id(3) });
        let pressed = handshake();
        let mut over = handshake();
        over.stage = Stage::Declined { at: at(50), words: None };
        let cases = [
            ("fresh", Some(ticket(Fate::Open)), None, false, 99, Ok(Press::Begin)),
            ("expired", Some(ticket(Fate::Open)), None, false, 100, Err(Dead::Expired)),
            ("replaced", Some(ticket(Fate::Replaced)), None, false, 1, Err(Dead::Replaced)),
            ("replaced long ago", Some(ticket(Fate::Replaced)), None, false, 9_999, Err(Dead::Replaced)),
            ("unknown", None, None, false, 1, Err(Dead::Unknown)),
            ("used by another browser", Some(used.clone()), Some(&pressed), false, 1, Err(Dead::Used)),
            ("pressed again", Some(used.clone()), Some(&pressed), true, 1, Ok(Press::Again(id(3)))),
            ("pressed again after its callback", Some(used.clone()), Some(&over), true, 1, Err(Dead::Used)),
            ("pressed again for ever", Some(used), Some(&pressed), true, 3_700, Err(Dead::Expired)),
        ];
        for (name, ticket, handshake, is_browser, now, expected) in cases {
            assert_eq!(judge(ticket.as_ref(), handshake, is_browser, at(now)), expected, "{name}");
        }
    }
}
