//! The state of a link: what an operator reads of it, and whether a call may use it. Derived from the facts each time, never stored.

use std::sync::Arc;
use std::time::Duration;

use super::attempt::{Intent, Trouble};
use super::metadata::Metadata;
use super::ob_app::{Grant, ObApp};
use super::peer::{Auth, Peer, PeerTrust};
use super::plan::Validity;
use crate::clock::{Moment, Timestamp};
use crate::oauth::scope::Scope;
use crate::oauth::signing_key::SigningKey;
use crate::secret::SecretString;

/// Everything that is known of one peer.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The peer's record.
    pub peer: Peer,
    /// Its OB app.
    pub ob_app: Option<ObApp>,
    /// What its server last said of itself.
    pub metadata: Option<Metadata>,
    /// Its tokens.
    pub holding: Holding,
    /// The request URL that is out, if it can still be used or its handshake is under way.
    pub request: Option<OpenRequest>,
    /// The last thing that ended an attempt to link, if nothing came after it.
    pub ended: Option<RequestEnd>,
    /// Why an app that needs nobody's consent has no first token, or why the last press of a request URL led nowhere; known only while the
    /// daemon runs.
    pub trouble: Option<(Trouble, Timestamp)>,
    /// The peer does not take the access token that is held, though its time is not over; known only while the daemon runs.
    pub is_refused: bool,
}

/// What we hold of a peer.
#[derive(Clone, Debug)]
pub enum Holding {
    /// Nothing, yet or any more.
    Nothing {
        /// When an operator unlinked it.
        unlinked: Option<Timestamp>,
    },
    /// A token.
    Tokens(Box<Held>),
    /// The peer ended the link.
    Broken(Broken),
}

/// A token that we hold.
#[derive(Clone, Debug)]
pub struct Held {
    /// The access token.
    pub access: SecretString,
    /// How long it lives.
    pub validity: Validity,
    /// When it was asked for.
    pub issued_at: Timestamp,
    /// What renews it.
    pub refresh: Option<SecretString>,
    /// When the refresh token ends, where the peer says so.
    pub refresh_expires_at: Option<Timestamp>,
    /// What was granted, as far as the peer said.
    pub scope: Scope,
    /// Who allowed it, as far as the peer said.
    pub linked_as: Option<String>,
    /// When the link was made.
    pub linked_at: Timestamp,
    /// What was written before an attempt that is not settled.
    pub intent: Intent,
    /// Why it is not renewed.
    pub trouble: Option<(Trouble, Timestamp)>,
    /// Since when it has been well.
    pub well_since: Timestamp,
    /// It was read from a backup: the peer is asked whether the refresh token is still good before it is presented.
    pub restored: bool,
    /// The key that it is renewed with.
    pub key: Option<Arc<SigningKey>>,
    /// Whether the access token is bound to that key.
    pub is_bound: bool,
}

/// Notice of the end of a link is given so many days before, once each.
const NOTICES: [u64; 2] = [3, 14];

/// A link that the peer will end soon, however well it is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// When.
    pub at: Timestamp,
    /// Within how many days: the smallest number that notice is given for.
    pub within_days: u64,
}

/// The peer ended the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// When we learnt of it.
    pub since: Timestamp,
    /// Why, with the fix.
    pub why: String,
}

/// A request URL that is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenRequest {
    /// When it was made.
    pub made_at: Timestamp,
    /// When it, or the handshake begun with it, ends.
    pub expires_at: Timestamp,
    /// Whether somebody pressed the button.
    pub opened: bool,
}

/// How the last attempt to link ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestEnd {
    /// When.
    pub at: Timestamp,
    /// In words.
    pub what: String,
}

/// The states of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The peer has no OB app.
    NoCredentials,
    /// It can be linked.
    ReadyToLink,
    /// A request URL is out.
    Requested,
    /// Calls carry a token that is renewed by itself.
    Linked,
    /// The token is not renewed as it should be.
    Degraded,
    /// The peer ended the link.
    RelinkRequired,
    /// Calls are held back.
    Maintenance,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 7] =
        [Self::NoCredentials, Self::ReadyToLink, Self::Requested, Self::Linked, Self::Degraded, Self::RelinkRequired, Self::Maintenance];

    /// As the JSON shape and the metrics write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::ReadyToLink => "ready_to_link",
            Self::Requested => "requested",
            Self::Linked => "linked",
            Self::Degraded => "degraded",
            Self::RelinkRequired => "relink_required",
            Self::Maintenance => "maintenance",
        }
    }
}

/// A state, why, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The state.
    pub state: State,
    /// Why, in words that name the fix.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

impl Facts {
    /// The state at `now`.
    ///
    /// Maintenance hides everything, since no call goes through it; then what is held counts, and only where nothing is held what is
    /// under way.
    pub fn status(&self, now: &Moment) -> Status {
        let peer = &self.peer;
        let status = |state, since, reason: String| Status { state, reason, since };
        if let Some(maintenance) = peer.maintenance_at(now.wall) {
            let reason =
                format!("calls are held back until {}; end it with `p2pid peer maintenance {} --until off`", maintenance.until, peer.name);
            return status(State::Maintenance, maintenance.since, reason);
        }
        match (&peer.auth, &self.holding) {
            (Auth::None, _) => {
                let reason = format!("it has no OB app: `p2pid peer update {} --ob …`", peer.name);
                status(State::NoCredentials, peer.created_at, reason)
            }
            (Auth::Basic(user), _) => {
                status(State::Linked, peer.created_at, format!("calls carry the user name {} and its password", user.name))
            }
            (Auth::OAuth { .. }, Holding::Tokens(held)) => self.held_status(held, now),
            (Auth::OAuth { .. }, holding) => self.unheld_status(holding, now),
        }
    }

    fn held_status(&self, held: &Held, now: &Moment) -> Status {
        let name = &self.peer.name;
        if let Some((trouble, since)) = &held.trouble {
            let usable = held.validity.usable_for(now);
            let meanwhile = match (usable.is_zero(), self.is_refused) {
                (true, _) => "; calls wait for it".to_owned(),
                (false, true) => "; the peer does not take the token that is held, and calls wait for another".to_owned(),
                (false, false) => format!("; calls go on until {}", now.wall.plus(usable)),
            };
            let reason = format!("{}{meanwhile}{}", trouble.reason, self.end_in_words(held, now));
            return Status { state: State::Degraded, reason, since: *since };
        }
        if held.refresh.is_none() && !self.grant().is_self_sufficient() {
            if !held.validity.is_usable(now) {
                let reason = format!("the token ran out and the peer gave none to renew it with. Link again: `p2pid peer request {name}`");
                return Status { state: State::RelinkRequired, reason, since: held.issued_at.plus(held.validity.life) };
            }
            let reason = format!("the peer gave no refresh token: the link ends {}", now.wall.plus(held.validity.usable_for(now)));
            return Status { state: State::Linked, reason, since: held.well_since };
        }
        let allowed = held.linked_as.as_ref().map(|subject| format!(", allowed by {subject}")).unwrap_or_default();
        let renewal = "the token is renewed by itself";
        let end = self.end_in_words(held, now);
        Status { state: State::Linked, reason: format!("linked {}{allowed}; {renewal}{end}", held.linked_at), since: held.well_since }
    }

    fn end_in_words(&self, held: &Held, now: &Moment) -> String {
        match (held.refresh_expires_at, self.ending(now)) {
            (_, Some(Ending { at, .. })) => {
                format!("; the link itself ends {at}: link again before, `p2pid peer request {}`", self.peer.name)
            }
            (Some(end), None) => format!("; the link itself ends {end}"),
            (None, None) => String::new(),
        }
    }

    /// The end of the link, when it is near. Apps that need nobody's consent have none.
    pub fn ending(&self, now: &Moment) -> Option<Ending> {
        let held = self.held().filter(|held| held.refresh.is_some() && !self.grant().is_self_sufficient())?;
        let at = held.refresh_expires_at?;
        let left = at.since(now.wall);
        let within_days = NOTICES.into_iter().find(|days| left <= Duration::from_secs(days * 24 * 3600))?;
        Some(Ending { at, within_days })
    }

    /// When the request URL that is out was opened in vain, and why, where that is known.
    pub fn not_begun(&self) -> Option<String> {
        let (trouble, at) = self.trouble.as_ref().filter(|_| !self.grant().is_self_sufficient())?;
        Some(format!("opened {at}, and {}", trouble.reason))
    }

    fn unheld_status(&self, holding: &Holding, now: &Moment) -> Status {
        let name = &self.peer.name;
        let next = format!("Next: `p2pid peer request {name}`");
        if self.grant().is_self_sufficient() {
            return match holding {
                Holding::Nothing { unlinked: Some(at) } => {
                    let reason = format!("unlinked {at}; `p2pid peer refresh {name}` asks for a token again");
                    Status { state: State::ReadyToLink, reason, since: *at }
                }
                _ => match &self.trouble {
                    Some((trouble, since)) => Status { state: State::Degraded, reason: trouble.reason.clone(), since: *since },
                    None => {
                        Status { state: State::ReadyToLink, reason: "a token is being asked for".to_owned(), since: self.peer.created_at }
                    }
                },
            };
        }
        if let Some(request) = self.request.filter(|request| now.wall < request.expires_at) {
            let reason = match (request.opened, &self.trouble) {
                (true, _) => format!("the request URL was opened; waiting for Allow or Decline until {}", request.expires_at),
                (false, Some(_)) => {
                    let why = self.not_begun().unwrap_or_default();
                    format!("the request URL was {why}. Once that is mended it can be opened again, until {}", request.expires_at)
                }
                (false, None) => {
                    format!("a request URL is out; somebody with an account on {name} has to open it before {}", request.expires_at)
                }
            };
            return Status { state: State::Requested, reason, since: request.made_at };
        }
        let ended = match (&self.ended, self.request) {
            (Some(end), _) => Some((end.at, end.what.clone())),
            (None, Some(request)) => Some((request.expires_at, format!("the request URL expired {}", request.expires_at))),
            (None, None) => None,
        };
        // What ended before the link broke says nothing of it.
        let ended = ended.filter(|(at, _)| !matches!(holding, Holding::Broken(broken) if *at < broken.since));
        match (ended, holding) {
            (Some((since, what)), _) => Status { state: State::ReadyToLink, reason: format!("{what}. {next}"), since },
            (None, Holding::Broken(broken)) => Status { state: State::RelinkRequired, reason: broken.why.clone(), since: broken.since },
            (None, Holding::Nothing { unlinked: Some(at) }) => {
                Status { state: State::ReadyToLink, reason: format!("unlinked {at}. {next}"), since: *at }
            }
            (None, _) => Status { state: State::ReadyToLink, reason: format!("it was never linked. {next}"), since: self.peer.created_at },
        }
    }

    /// How tokens are got.
    pub fn grant(&self) -> Grant {
        self.ob_app.as_ref().map_or(Grant::AuthorizationCode, |app| app.grant)
    }

    /// Whose certificates are believed of the authorization server: the OB app's own, else the peer's.
    pub fn server_trust(&self) -> PeerTrust {
        match self.ob_app.as_ref().and_then(|app| app.ca.clone()) {
            Some(ca) => PeerTrust { ca: Some(ca), pin: None },
            None => self.peer.trust.clone(),
        }
    }

    /// The token held, if any.
    pub const fn held(&self) -> Option<&Held> {
        match &self.holding {
            Holding::Tokens(held) => Some(held),
            _ => None,
        }
    }

    /// Whether there is something to ask for new tokens with. An app that needs nobody's consent is never broken: it asks anew.
    pub fn is_renewable(&self) -> bool {
        let is_self_sufficient = self.grant().is_self_sufficient();
        match &self.holding {
            _ if self.ob_app.is_none() => false,
            Holding::Tokens(held) => held.refresh.is_some() || is_self_sufficient,
            Holding::Nothing { unlinked } => is_self_sufficient && unlinked.is_none(),
            Holding::Broken(_) => is_self_sufficient,
        }
    }

    /// Why a call cannot be carried at all, whatever is waited for.
    pub fn refusal(&self, now: &Moment) -> Option<Standing> {
        if let Some(maintenance) = self.peer.maintenance_at(now.wall) {
            return Some(Standing::Maintenance { ends_in: maintenance.until.since(now.wall) });
        }
        match (&self.peer.auth, &self.holding) {
            (Auth::Basic(_), _) => None,
            (Auth::None, _) => Some(Standing::NotLinked),
            (Auth::OAuth { .. }, Holding::Tokens(held)) => {
                let renewable = held.refresh.is_some() || self.grant().is_self_sufficient();
                (!renewable && !held.validity.is_usable(now)).then_some(Standing::RelinkRequired)
            }
            (Auth::OAuth { .. }, Holding::Broken(_)) => (!self.grant().is_self_sufficient()).then_some(Standing::RelinkRequired),
            (Auth::OAuth { .. }, Holding::Nothing { unlinked }) => {
                (!self.grant().is_self_sufficient() || unlinked.is_some()).then_some(Standing::NotLinked)
            }
        }
    }
}

/// Why no call can be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is not linked.
    NotLinked,
    /// It was, and has to be linked again.
    RelinkRequired,
    /// Calls are held back.
    Maintenance {
        /// How long still.
        ends_in: Duration,
    },
}

#[cfg(test)]
pub(crate) mod examples {
    //! Facts for the tests of this room.

    use super::*;
    use crate::clock::BootId;
    use crate::outbound::peer::examples as records;

    /// So many seconds after the boot, and after the epoch.
    pub(crate) fn at(seconds: u64) -> Moment {
        Moment {
            wall: Timestamp::from_millis(i64::try_from(seconds * 1000).expect("small")),
            boot: Duration::from_secs(seconds),
            boot_id: BootId(1),
        }
    }

    /// The facts of a peer whose OB app is allowed by somebody.
    pub(crate) fn facts(holding: Holding) -> Facts {
        Facts {
            peer: records::peer(),
            ob_app: Some(records::app()),
            metadata: None,
            holding,
            request: None,
            ended: None,
            trouble: None,
            is_refused: false,
        }
    }

    /// Tokens that were given at 100 s, for 1000 s.
    pub(crate) fn held() -> Held {
        Held {
            access: "a".into(),
            validity: Validity { requested: at(100), life: Duration::from_secs(1000) },
            issued_at: at(100).wall,
            refresh: Some("r".into()),
            refresh_expires_at: None,
            scope: Scope::default(),
            linked_as: Some("ops@two.example.com".to_owned()),
            linked_at: at(100).wall,
            intent: Intent::default(),
            trouble: None,
            well_since: at(100).wall,
            restored: false,
            key: None,
            is_bound: false,
        }
    }
}

#[cfg(test)]
mod tests;
