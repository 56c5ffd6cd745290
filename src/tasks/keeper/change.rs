//! Changes to a link that come from outside: a new link, an unlink, another address or OB app. Each raises the peer's generation, so that
//! a refresh under way settles on nothing.

use crate::audit::{Action, Entry, Outcome, Record};
use crate::clock::{Moment, Timestamp};
use crate::id::Id;
use crate::instance::Instance;
use crate::outbound::answer::Granted;
use crate::outbound::attempt::Intent;
use crate::outbound::handshake::Stage;
use crate::outbound::link::{Facts, Held};
use crate::outbound::peer::Peer;
use crate::outbound::plan::Validity;
use crate::outbound::revocation::{self, Revocation};
use crate::secret::{Digest, ExposeSecret};
use crate::store::{self, Fault, Transaction, handshake, held_token, outbox, peer, ticket};

/// What becomes of tokens that are given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// They are revoked at the peer, now or later.
    Revoked,
    /// They are forgotten and nobody is told.
    Forgotten,
}

/// A new link, as a handshake brought it.
#[derive(Clone, Debug)]
pub struct Installation {
    /// The handshake that brought it.
    pub handshake: Id,
    /// Under what its tokens were asked for: the peer, its OB app and its metadata as they were then.
    pub asked: Box<Facts>,
    /// When they were.
    pub requested: Moment,
    /// They.
    pub granted: Granted,
}

/// What came of a new link.
#[derive(Debug)]
pub(super) enum Installed {
    /// It is in force.
    Linked(Box<Facts>),
    /// Something else changed the link meanwhile; the new tokens are revoked.
    Superseded,
}

/// Puts a new link in the place of the old one. Each Allow makes a grant of its own at a p2pid peer: the old one is ended there; elsewhere
/// the old refresh token may be the same grant's, and is only dropped.
pub(super) fn install(transaction: &Transaction<'_>, instance: &Instance, new: &Installation) -> Result<Installed, Fault> {
    let (now, seals, epoch) = (transaction.now().wall, instance.store.seals(), instance.store.epoch());
    let id = new.asked.peer.id;
    let Some(facts) = store::link::facts(transaction, seals, epoch, id)? else { return superseded(transaction, instance, new, now) };
    let linked = Stage::Linked { at: now, linked_as: new.granted.subject.clone() };
    if !handshake::advance(transaction, new.handshake, handshake::EXCHANGING, &linked)? {
        if super::flight::holds(transaction, seals, epoch, id, &new.granted)? {
            // An attempt to store it before, of which it was not known what became, had been stored.
            return Ok(Installed::Linked(Box::new(facts)));
        }
        return superseded(transaction, instance, new, now);
    }
    let is_p2pid = facts.metadata.as_ref().is_some_and(|metadata| metadata.p2pi_endpoint.is_some());
    if let Some(held) = facts.held().filter(|_| is_p2pid) {
        give_up(transaction, instance, &facts, held, now)?;
    }
    peer::raise_generation(transaction, id, facts.peer.generation)?;
    peer::set_unlinked(transaction, id, None)?;
    let held = first(&facts, new, now);
    held_token::put(transaction, seals, epoch, id, &held)?;
    tell_unbound(transaction, &facts, &held)?;
    let linked = Entry::of(Action::PeerLinked).on(told(&facts.peer)).with("scope", held.scope.to_string());
    transaction.record(&linked.maybe("as", held.linked_as.as_deref()).maybe("token", fingerprint(&held)))?;
    let facts = store::link::facts(transaction, seals, epoch, id)?;
    Ok(facts.map_or(Installed::Superseded, |facts| Installed::Linked(Box::new(facts))))
}

/// Gives the tokens of a handshake back that was overtaken: to the server that gave them and as the client that it gave them to, whatever the peer
/// is by now, or if it is not at all.
fn superseded(transaction: &Transaction<'_>, instance: &Instance, new: &Installation, now: Timestamp) -> Result<Installed, Fault> {
    super::flight::give_back(transaction, instance, &new.asked, &new.granted, now)?;
    let failed = Entry::of(Action::HandshakeFailed).on(told(&new.asked.peer)).ended(Outcome::Failed);
    transaction.record(&failed.with("reason", "the peer was changed while the code was exchanged; its tokens are given back"))?;
    Ok(Installed::Superseded)
}

/// Ends a link at an operator's word; returns the revocation that waits in the outbox. `None` when there is no such peer.
pub(super) fn unlink(transaction: &Transaction<'_>, instance: &Instance, id: Id, given_up: GivenUp) -> Result<Option<Ended>, Fault> {
    let ended = end(transaction, instance, id, given_up)?;
    if let Some(ended) = &ended {
        if !ended.had_token
            && let Some(peer) = peer::by_id(transaction, instance.store.seals(), id)?
        {
            transaction.record(&Entry::of(Action::PeerUnlinked).on(told(&peer)).with("revoked", "nothing was held"))?;
        }
        peer::set_unlinked(transaction, id, Some(transaction.now().wall))?;
    }
    Ok(ended)
}

/// A peer as the audit names it.
pub fn told(peer: &Peer) -> Record {
    Record::of_tenant("peer", &peer.tenant, peer.id, &peer.name)
}

/// Tells of tokens that are bound to nothing where those of `facts` were bound to our key: whoever steals one may use it.
pub(super) fn tell_unbound(transaction: &Transaction<'_>, facts: &Facts, held: &Held) -> Result<(), Fault> {
    if held.is_bound || !facts.held().is_some_and(|before| before.is_bound) {
        return Ok(());
    }
    let unbound = Entry::of(Action::PeerTokensUnbound).on(told(&facts.peer)).maybe("token", fingerprint(held));
    transaction.record(&unbound.maybe("dpop", facts.ob_app.as_ref().map(|app| app.dpop.as_str())))
}

/// What names the newest token of a link.
fn fingerprint(held: &Held) -> Option<String> {
    let token = held.refresh.as_ref().unwrap_or(&held.access);
    Some(Digest::of(token.expose_secret()).fingerprint().to_string())
}

/// A link that was ended.
#[derive(Debug)]
pub struct Ended {
    /// Whether there was a token.
    pub had_token: bool,
    /// What waits in the outbox.
    pub waiting: Option<(Id, Revocation)>,
}

/// Ends a link, whatever state it is in, with the request URLs that are out for it. Changing a peer's or an OB app's address, issuer or
/// `client_id` does this too: a token is bound to what it was given under.
pub fn end(transaction: &Transaction<'_>, instance: &Instance, id: Id, given_up: GivenUp) -> Result<Option<Ended>, Fault> {
    let (now, seals, epoch) = (transaction.now().wall, instance.store.seals(), instance.store.epoch());
    let Some(facts) = store::link::facts(transaction, seals, epoch, id)? else { return Ok(None) };
    let waiting = match (facts.held(), given_up) {
        (Some(held), GivenUp::Revoked) => give_up(transaction, instance, &facts, held, now)?,
        _ => None,
    };
    peer::raise_generation(transaction, id, facts.peer.generation)?;
    held_token::forget(transaction, id)?;
    if let Some(held) = facts.held() {
        let unlinked = Entry::of(Action::PeerUnlinked).on(told(&facts.peer)).maybe("token", fingerprint(held));
        transaction.record(&unlinked.with("revoked", if waiting.is_some() { "asked for" } else { "not asked for" }))?;
    }
    ticket::replace_all(transaction, id)?;
    handshake::replace_all(transaction, id)?;
    Ok(Some(Ended { had_token: facts.held().is_some(), waiting }))
}

fn give_up(
    transaction: &Transaction<'_>,
    instance: &Instance,
    facts: &Facts,
    held: &Held,
    now: Timestamp,
) -> Result<Option<(Id, Revocation)>, Fault> {
    let Some(revocation) = revocation::of(facts, held) else { return Ok(None) };
    let id = Id::new(now, instance.random.as_ref());
    outbox::insert(transaction, instance.store.seals(), id, &revocation, now)?;
    Ok(Some((id, revocation)))
}

fn first(facts: &Facts, new: &Installation, now: Timestamp) -> Held {
    let granted = &new.granted;
    let asked = || facts.ob_app.as_ref().map(|app| app.scope.clone()).unwrap_or_default();
    Held {
        access: granted.access.clone(),
        validity: Validity { requested: new.requested, life: granted.life },
        issued_at: new.requested.wall,
        refresh: granted.refresh.clone(),
        refresh_expires_at: granted.refresh_life.map(|life| new.requested.wall.plus(life)),
        scope: granted.scope.clone().unwrap_or_else(asked),
        linked_as: granted.subject.clone(),
        linked_at: now,
        well_since: now,
        intent: Intent::default(),
        trouble: None,
        restored: false,
        key: granted.key.clone(),
        is_bound: granted.key.is_some(),
    }
}
