//! How a peer is shown.

use serde_json::{Value, json};

use crate::clock::Moment;
use crate::doors::admin::document;
use crate::oauth::dpop;
use crate::outbound::handshake::{Handshake, Progress, Stage};
use crate::outbound::link::{Facts, Held};
use crate::outbound::peer::Auth;
use crate::outbound::ticket::{Fate, Ticket};
use crate::store::{Fault, Seals, handshake, ticket};

use super::KIND;

/// A request URL and how far it has come.
#[derive(Clone, Debug)]
pub(super) struct Request {
    ticket: Ticket,
    handshake: Option<Handshake>,
}

impl Request {
    /// The newest of a peer.
    pub(super) fn latest(connection: &rusqlite::Connection, seals: &Seals, epoch: i64, peer: crate::id::Id) -> Result<Option<Self>, Fault> {
        let Some(ticket) = ticket::latest(connection, epoch, peer)? else { return Ok(None) };
        let handshake = match ticket.fate {
            Fate::Used { handshake } => handshake::by_id(connection, seals, epoch, handshake)?,
            Fate::Open | Fate::Replaced => None,
        };
        Ok(Some(Self { ticket, handshake }))
    }

    /// As the API shows it, of the peer with these `facts`; the URL itself is shown only when it is made.
    pub(super) fn json(&self, facts: &Facts, now: &Moment) -> Value {
        let progress = match (self.ticket.fate, &self.handshake) {
            (Fate::Replaced, _) => Progress::Replaced,
            (Fate::Open, _) if now.wall >= self.ticket.expires_at => Progress::Expired,
            (Fate::Open, _) => Progress::Waiting,
            (Fate::Used { .. }, Some(handshake)) => handshake.progress(now.wall),
            (Fate::Used { .. }, None) => Progress::Expired,
        };
        let (expires_at, detail) = match &self.handshake {
            // Opened, and the page could not send its reader on.
            None => (self.ticket.expires_at, facts.not_begun().filter(|_| progress == Progress::Waiting)),
            Some(handshake) => (
                handshake.expires_at,
                match &handshake.stage {
                    Stage::Failed { why, .. } => Some(why.clone()),
                    Stage::Linked { linked_as, .. } => linked_as.clone(),
                    Stage::Declined { words, .. } => words.clone(),
                    _ => None,
                },
            ),
        };
        json!({
            "id": self.ticket.digest.fingerprint().to_string(),
            "stage": progress,
            "made_at": self.ticket.made_at,
            "expires_at": expires_at,
            "detail": detail,
            "login": self.ticket.login,
        })
    }
}

/// One peer as the API shows it.
pub(super) fn resource(facts: &Facts, request: Option<&Request>, now: &Moment) -> Value {
    let (peer, status) = (&facts.peer, facts.status(now));
    let held = facts.held();
    let user = match &peer.auth {
        Auth::Basic(user) | Auth::OAuth { user: Some(user), .. } => Some(&user.name),
        Auth::OAuth { .. } | Auth::None => None,
    };
    document::record(
        KIND,
        peer.id,
        json!({
            "id": peer.id, "name": peer.name, "tenant": peer.tenant, "url": text(&peer.url), "base_url": text(&peer.base(facts.metadata.as_ref())),
            "auth": peer.auth.as_str(), "ob_app": facts.ob_app.as_ref().map(|app| &app.name), "username": user,
            "state": status.state.as_str(), "reason": status.reason, "since": status.since,
            "token": held.map(token), "linked_as": held.and_then(|held| held.linked_as.as_ref()), "linked_at": held.map(|held| held.linked_at),
            "refresh_expires_at": held.and_then(|held| held.refresh_expires_at),
            "request": request.map(|request| request.json(facts, now)),
            "maintenance_until": peer.maintenance_at(now.wall).map(|maintenance| maintenance.until),
            "ca": peer.trust.ca.is_some(), "pin": peer.trust.pin, "created_at": peer.created_at,
        }),
    )
}

fn token(held: &Held) -> Value {
    json!({
        "type": if held.is_bound { dpop::TOKEN_TYPE } else { "Bearer" }, "scope": held.scope.to_string(), "issued_at": held.issued_at,
        "expires_at": held.issued_at.plus(held.validity.life), "refreshable": held.refresh.is_some(),
    })
}

/// Without the slash that a parsed URL has and nobody wrote.
fn text(url: &url::Url) -> String {
    let text = url.as_str();
    if url.path() == "/" { text.trim_end_matches('/').to_owned() } else { text.to_owned() }
}
