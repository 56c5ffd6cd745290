//! One attempt to renew a peer's token: intent, request, answer, settlement. It runs apart from the calls that wait for it, and to its
//! end whatever becomes of them.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use url::Url;

use super::change;
use super::clients::PeerClients;
use super::wire::{self, ServerCalls};
use crate::audit::{self, Action, Entry};
use crate::clock::{Moment, Timestamp};
use crate::id::Id;
use crate::instance::Instance;
use crate::oauth::signing_key::SigningKey;
use crate::observe::point;
use crate::outbound::answer::{Answer, Granted};
use crate::outbound::attempt::{self, Attempt, Intent, Trouble, TroubleKind, Verdict};
use crate::outbound::client::{Authentication, Client};
use crate::outbound::exchange::{Ask, Reply};
use crate::outbound::link::{Broken, Facts, Held};
use crate::outbound::metadata::Metadata;
use crate::outbound::ob_app::{Grant, ObApp, Server};
use crate::outbound::peer::Auth;
use crate::outbound::plan::{self, Jitter, Validity};
use crate::outbound::revocation::{self, Hint};
use crate::outbound::vouching::{self, Vouching};
use crate::secret::{ExposeSecret, SecretString};
use crate::store::{self, Fault, Seals, StoreError, Transaction, held_token, outbox, peer};

/// The shortest and the longest wait before tokens that the store did not take are offered to it again.
const STORE_AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What a flight needs besides the facts.
#[derive(Clone)]
pub(super) struct Plane {
    pub(super) instance: Arc<Instance>,
    pub(super) clients: PeerClients,
    /// The daemon ends: what the store did not take until then is given up.
    pub(super) stopping: CancellationToken,
    /// Attempts in a row that came to nothing, without this one.
    pub(super) failures: u32,
    /// The server's metadata is asked for again before the attempt.
    pub(super) look_again: bool,
}

/// How a flight ended.
#[derive(Debug)]
pub(super) struct Landing {
    /// What the rows say now; `None` when the peer is gone, or they cannot be read.
    pub(super) facts: Option<Facts>,
    /// What came of it.
    pub(super) outcome: Outcome,
    /// How far the peer's clock is ahead of ours, in milliseconds.
    pub(super) skew: Option<i64>,
}

/// What came of a flight.
#[derive(Debug)]
pub(super) enum Outcome {
    /// New tokens are stored.
    Renewed,
    /// To be tried again.
    Failed {
        /// In how long.
        wait: Duration,
        /// Why, for the metrics.
        reason: String,
        /// Why, in words.
        trouble: Trouble,
    },
    /// The peer ended the link.
    Ended,
    /// Something else changed the link meanwhile; what the peer gave is revoked.
    Superseded,
}

/// Makes one attempt for the peer of `facts`, which has an OB app.
pub(super) async fn fly(plane: Plane, facts: Arc<Facts>) -> Landing {
    let Some(app) = facts.ob_app.clone() else { return failed(&plane, &facts, "other", unreachable_trouble("it has no OB app")).await };
    let Looked { server, news: found, skew } = match look(&plane, &facts, &app).await {
        Ok(looked) => looked,
        Err(trouble) => return failed(&plane, &facts, "unreachable", trouble).await,
    };
    match vouched(&plane, &facts, &app, &server).await {
        Ok(Vouched::Good) => {}
        Ok(Vouched::Bad(what)) => {
            let why = format!("the token was restored from a backup, and {what}. Link again: `p2pid peer request {}`", facts.peer.name);
            let landing = settle(&plane, &facts, Verdict::Final { why }, None, "invalid_grant", found).await;
            return Landing { skew, ..landing };
        }
        Err(trouble) => return Landing { skew, ..failed(&plane, &facts, "unreachable", trouble).await },
    }
    let new_key = app.new_proof_key(server.metadata.as_ref());
    let (intent, key) = match intend(&plane, &facts, found.clone(), new_key).await {
        Ok(Some(intended)) => intended,
        Ok(None) => return superseded(&plane, &facts).await,
        Err(error) => {
            let trouble = Trouble { kind: TroubleKind::Store, reason: format!("the token is not renewed: {error}; the log says why") };
            return failed(&plane, &facts, "store_unavailable", trouble).await;
        }
    };
    point::passed("intent_written");
    let requested = plane.instance.clock.now();
    let us = Client::new(&app, &server.token_endpoint, server.metadata.as_ref()).proving(&app, key.as_ref());
    let reply = ask(&plane, &facts, &app, &server, &us).await;
    let answered = plane.instance.clock.now();
    let skew = reply.date.map(|date| date.millis() - answered.wall.millis()).or(skew);
    let reason = reply.answer.failure().unwrap_or_default().to_owned();
    let attempt = Attempt {
        intent,
        failures: plane.failures.saturating_add(1),
        grant: app.grant,
        ob_app: &app.name,
        signs: matches!(us.authentication, Authentication::Assertion { .. }),
        peer: &facts.peer.name,
        jitter: Jitter::of(&facts.peer.id),
    };
    let verdict = attempt::judge(&attempt, reply.answer);
    Landing { skew, ..settle(&plane, &facts, verdict, Some(requested), &reason, None).await }
}

/// The endpoints of a peer's authorization server.
struct ServerView {
    issuer: Option<Url>,
    token_endpoint: Url,
    metadata: Option<Metadata>,
}

/// An authorization server as it was found before an attempt.
struct Looked {
    server: ServerView,
    /// Metadata that are not stored yet.
    news: Option<Metadata>,
    /// How far its clock is ahead of ours, in milliseconds, where it was asked.
    skew: Option<i64>,
}

/// Where to ask: what an operator named, else what the server last said of itself, asked again when something was wrong. Metadata that is
/// new is to be stored with the intent.
async fn look(plane: &Plane, facts: &Facts, app: &ObApp) -> Result<Looked, Trouble> {
    let issuer = match &app.server {
        Server::Endpoints { token_url, .. } => {
            let server = ServerView { issuer: None, token_endpoint: token_url.clone(), metadata: None };
            return Ok(Looked { server, news: None, skew: None });
        }
        Server::Issuer(issuer) => issuer,
    };
    let looked = |metadata: Metadata, news, skew| {
        let (issuer, token_endpoint) = (Url::parse(issuer).ok(), metadata.token_endpoint.clone());
        Looked { server: ServerView { issuer, token_endpoint, metadata: Some(metadata) }, news, skew }
    };
    let known = facts.metadata.as_ref().filter(|metadata| metadata.issuer == *issuer);
    if let Some(known) = known
        && !plane.look_again
    {
        return Ok(looked(known.clone(), None, None));
    }
    match (wire::metadata(&plane.instance, plane.clients.guarded_if(app.guarded), issuer).await, known) {
        (Ok(found), _) => {
            let skew = found.date.map(|date| date.millis() - plane.instance.clock.now().wall.millis());
            let is_new = known != Some(&found.metadata);
            Ok(looked(found.metadata.clone(), is_new.then_some(found.metadata), skew))
        }
        // What it said last is worth an attempt: the document may be away while the token endpoint is not.
        (Err(_), Some(known)) => Ok(looked(known.clone(), None, None)),
        (Err(problem), None) => Err(Trouble {
            kind: TroubleKind::Unreachable,
            reason: format!("{}'s endpoints are not known: {problem}; it is tried again by itself", facts.peer.name),
        }),
    }
}

enum Vouched {
    Good,
    /// Why the token is not presented.
    Bad(&'static str),
}

/// Whether the refresh token may be presented; the peer is asked first where [`vouching::of`] says so.
async fn vouched(plane: &Plane, facts: &Facts, app: &ObApp, server: &ServerView) -> Result<Vouched, Trouble> {
    let (endpoint, refresh) = match vouching::of(facts, server.metadata.as_ref()) {
        Vouching::NotNeeded => return Ok(Vouched::Good),
        Vouching::Impossible => return Ok(Vouched::Bad("the peer cannot be asked whether it is still good")),
        Vouching::Ask { endpoint, refresh } => (endpoint, refresh),
    };
    let us = Client::new(app, &server.token_endpoint, server.metadata.as_ref());
    let client = plane.clients.for_endpoint(app, server.issuer.as_ref(), endpoint);
    let calls = ServerCalls::new(&plane.instance, client, endpoint);
    match wire::introspect(&calls, &us, endpoint, refresh, Hint::Refresh.as_str()).await {
        Ok(true) => Ok(Vouched::Good),
        Ok(false) => Ok(Vouched::Bad("the peer knows it no more")),
        Err(what) => {
            Err(unreachable_trouble(&format!("the token was restored from a backup and the peer does not say whether it is good: {what}")))
        }
    }
}

/// Writes the intent down, durably, before anything is sent; `None` when the link is another one by now. It counts from what the row
/// says: what became of an attempt before may have been written, or not, without this task's knowing. With it is given the key that is
/// proved: the one that is held, which every attempt for one refresh token has to use, else `new_key`, which is held from here on.
async fn intend(
    plane: &Plane,
    facts: &Facts,
    found: Option<Metadata>,
    new_key: Option<Arc<SigningKey>>,
) -> Result<Option<(Intent, Option<Arc<SigningKey>>)>, StoreError> {
    let (id, generation, epoch) = (facts.peer.id, facts.peer.generation, plane.instance.store.epoch());
    let seals = plane.instance.store.seals().clone();
    let is_restored = facts.held().is_some_and(|held| held.restored);
    plane
        .instance
        .store
        .write(move |transaction| {
            if peer::generation(transaction, id)? != Some(generation) {
                return Ok(None);
            }
            if let Some(metadata) = &found {
                peer::set_metadata(transaction, id, Some(metadata))?;
            }
            if is_restored {
                held_token::vouch(transaction, id, epoch)?;
            }
            let held = held_token::of_peer(transaction, &seals, epoch, id)?;
            let intent = held.as_ref().map(|held| held.intent).unwrap_or_default();
            let key = match held {
                Some(held) if held.key.is_some() || intent.attempts > 0 => held.key,
                Some(_) => {
                    new_key.as_ref().map_or(Ok(()), |key| held_token::set_key(transaction, &seals, id, key))?;
                    new_key.clone()
                }
                None => new_key.clone(),
            };
            let intent = intent.sending();
            held_token::set_intent(transaction, id, intent)?;
            Ok(Some((intent, key)))
        })
        .await
}

async fn ask(plane: &Plane, facts: &Facts, app: &ObApp, server: &ServerView, us: &Client) -> Reply {
    let refresh = facts.held().and_then(|held| held.refresh.as_ref());
    let ask = match (app.grant, refresh, &facts.peer.auth) {
        (Grant::ClientCredentials, ..) => Ask::ClientCredentials(&app.scope),
        (Grant::Password, _, Auth::OAuth { user: Some(user), .. }) => Ask::Password(user, &app.scope),
        (Grant::AuthorizationCode, Some(refresh), _) => Ask::Refresh(refresh),
        (Grant::Password | Grant::AuthorizationCode, ..) => {
            return Reply { answer: Answer::NotSent("there is nothing to ask with".to_owned()), date: None };
        }
    };
    let client = plane.clients.for_endpoint(app, server.issuer.as_ref(), &server.token_endpoint);
    us.ask(ask, &ServerCalls::of_tokens(&plane.instance, client, &server.token_endpoint)).await
}

/// Makes what the attempt meant durable, by compare-and-set on the generation that it began with. Tokens are offered to the store until
/// it takes them: the peer may not give them again.
async fn settle(
    plane: &Plane,
    facts: &Arc<Facts>,
    verdict: Verdict,
    requested: Option<Moment>,
    reason: &str,
    found: Option<Metadata>,
) -> Landing {
    let verdict = Arc::new(verdict);
    let mut wait = STORE_AGAIN.0;
    loop {
        let (facts, verdict, found) = (Arc::clone(facts), Arc::clone(&verdict), found.clone());
        let (instance, reason) = (Arc::clone(&plane.instance), reason.to_owned());
        let (is_grant, has_tokens) = (matches!(*verdict, Verdict::Store(_)), matches!(*verdict, Verdict::Store(_) | Verdict::Keep { .. }));
        let settled = plane
            .instance
            .store
            .write(move |transaction| settle_in(transaction, &instance, &facts, &verdict, requested, &reason, found.as_ref()))
            .await;
        match settled {
            Ok(landing) => {
                if is_grant {
                    point::passed("pair_stored");
                }
                return landing;
            }
            Err(error) if has_tokens && !plane.stopping.is_cancelled() => {
                tracing::error!(reason = %error, "a peer's new tokens are not stored yet; they are kept in memory and offered again");
                plane.instance.clock.sleep(wait).await;
                wait = (wait * 2).min(STORE_AGAIN.1);
            }
            Err(error) => {
                let failed =
                    Outcome::Failed { wait: STORE_AGAIN.1, reason: "store_unavailable".to_owned(), trouble: store_trouble(&error) };
                return Landing { facts: None, outcome: failed, skew: None };
            }
        }
    }
}

pub(super) fn settle_in(
    transaction: &Transaction<'_>,
    instance: &Instance,
    facts: &Facts,
    verdict: &Verdict,
    requested: Option<Moment>,
    reason: &str,
    found: Option<&Metadata>,
) -> Result<Landing, Fault> {
    let (id, now) = (facts.peer.id, transaction.now());
    let seals = instance.store.seals();
    let epoch = instance.store.epoch();
    let is_current = peer::generation(transaction, id)? == Some(facts.peer.generation);
    let since = || facts.held().and_then(|held| held.trouble.as_ref()).map_or(now.wall, |(_, since)| *since);
    if let Some(metadata) = found.filter(|_| is_current) {
        peer::set_metadata(transaction, id, Some(metadata))?;
    }
    let outcome = match verdict {
        Verdict::Store(granted) if is_current => {
            peer::raise_generation(transaction, id, facts.peer.generation)?;
            let held = renewed(facts, granted, requested.unwrap_or(now), now.wall);
            held_token::put(transaction, seals, epoch, id, &held)?;
            change::tell_unbound(transaction, facts, &held)?;
            Outcome::Renewed
        }
        // An attempt before, of which it was not known what became, had stored them.
        Verdict::Store(granted) if holds(transaction, seals, epoch, id, granted)? => Outcome::Renewed,
        Verdict::Store(granted) => {
            give_back(transaction, instance, facts, granted, now.wall)?;
            Outcome::Superseded
        }
        Verdict::Keep { refresh, .. } if !is_current => {
            give_token_back(transaction, instance, facts, refresh, Hint::Refresh, now.wall)?;
            Outcome::Superseded
        }
        Verdict::Again { .. } | Verdict::Final { .. } if !is_current => Outcome::Superseded,
        Verdict::Keep { refresh, wait, trouble } => {
            held_token::set_refresh(transaction, seals, id, refresh)?;
            held_token::set_trouble(transaction, id, trouble, since())?;
            Outcome::Failed { wait: *wait, reason: reason.to_owned(), trouble: trouble.clone() }
        }
        Verdict::Again { wait, intent, trouble } => {
            held_token::set_intent(transaction, id, *intent)?;
            held_token::set_trouble(transaction, id, trouble, since())?;
            Outcome::Failed { wait: *wait, reason: reason.to_owned(), trouble: trouble.clone() }
        }
        Verdict::Final { why } => {
            peer::raise_generation(transaction, id, facts.peer.generation)?;
            held_token::set_broken(transaction, id, &Broken { since: now.wall, why: why.clone() })?;
            let told = Entry::of(Action::PeerRelinkRequired).on(change::told(&facts.peer)).ended(audit::Outcome::Failed);
            transaction.record(&told.with("reason", why.as_str()))?;
            Outcome::Ended
        }
    };
    Ok(Landing { facts: store::link::facts(transaction, seals, epoch, id)?, outcome, skew: None })
}

/// What is held from now on; what the answer leaves out stays as it was.
fn renewed(facts: &Facts, granted: &Granted, requested: Moment, now: Timestamp) -> Held {
    let old = facts.held();
    let app_scope = || facts.ob_app.as_ref().map(|app| app.scope.clone()).unwrap_or_default();
    Held {
        access: granted.access.clone(),
        validity: Validity { requested, life: granted.life },
        issued_at: requested.wall,
        refresh: granted.refresh.clone().or_else(|| old.and_then(|old| old.refresh.clone())),
        refresh_expires_at: match granted.refresh_life {
            Some(life) => Some(requested.wall.plus(life)),
            None => old.and_then(|old| old.refresh_expires_at),
        },
        scope: granted.scope.clone().or_else(|| old.map(|old| old.scope.clone())).unwrap_or_else(app_scope),
        linked_as: granted.subject.clone().or_else(|| old.and_then(|old| old.linked_as.clone())),
        linked_at: old.map_or(now, |old| old.linked_at),
        intent: Intent::default(),
        trouble: None,
        well_since: old.filter(|old| old.trouble.is_none()).map_or(now, |old| old.well_since),
        restored: false,
        key: granted.key.clone(),
        is_bound: granted.key.is_some(),
    }
}

/// Whether what was granted is what is held: then an attempt whose fate was unknown did take hold. An answer without a refresh token left
/// the old one.
pub(super) fn holds(transaction: &Transaction<'_>, seals: &Seals, epoch: i64, peer: Id, granted: &Granted) -> Result<bool, Fault> {
    let held = held_token::of_peer(transaction, seals, epoch, peer)?;
    let is_same = |one: &SecretString, other: &SecretString| one.expose_secret() == other.expose_secret();
    Ok(held.is_some_and(|held| {
        let is_same_refresh = match (&held.refresh, &granted.refresh) {
            (Some(held), Some(granted)) => is_same(held, granted),
            (_, None) => true,
            (None, Some(_)) => false,
        };
        is_same_refresh && is_same(&held.access, &granted.access)
    }))
}

/// Sends back tokens that nobody holds: they are revoked at the peer.
pub(super) fn give_back(
    transaction: &Transaction<'_>,
    instance: &Instance,
    facts: &Facts,
    granted: &Granted,
    now: Timestamp,
) -> Result<(), Fault> {
    match &granted.refresh {
        Some(refresh) => give_token_back(transaction, instance, facts, refresh, Hint::Refresh, now),
        None => give_token_back(transaction, instance, facts, &granted.access, Hint::Access, now),
    }
}

pub(super) fn give_token_back(
    transaction: &Transaction<'_>,
    instance: &Instance,
    facts: &Facts,
    token: &SecretString,
    hint: Hint,
    now: Timestamp,
) -> Result<(), Fault> {
    let Some(app) = &facts.ob_app else { return Ok(()) };
    if let Some(revocation) = revocation::of_token(facts, app, token, hint) {
        let id = Id::new(now, instance.random.as_ref());
        outbox::insert(transaction, instance.store.seals(), id, &revocation, now)?;
    }
    Ok(())
}

/// A flight that ended before anything was sent: the reason is noted, the intent stays as it is.
async fn failed(plane: &Plane, facts: &Arc<Facts>, reason: &str, trouble: Trouble) -> Landing {
    let wait = plan::backoff(plane.failures.saturating_add(1), Jitter::of(&facts.peer.id), None);
    let outcome = |trouble| Outcome::Failed { wait, reason: reason.to_owned(), trouble };
    let (id, generation, instance) = (facts.peer.id, facts.peer.generation, Arc::clone(&plane.instance));
    let (since, noted) = (facts.held().and_then(|held| held.trouble.as_ref()).map(|(_, since)| *since), trouble.clone());
    let written = plane.instance.store.write(move |transaction| {
        let is_same = peer::generation(transaction, id)? == Some(generation);
        if is_same {
            held_token::set_trouble(transaction, id, &noted, since.unwrap_or(transaction.now().wall))?;
        }
        Ok((is_same, store::link::facts(transaction, instance.store.seals(), instance.store.epoch(), id)?))
    });
    match written.await {
        Ok((true, facts)) => Landing { facts, outcome: outcome(trouble), skew: None },
        Ok((false, facts)) => Landing { facts, outcome: Outcome::Superseded, skew: None },
        Err(error) => Landing { facts: None, outcome: outcome(store_trouble(&error)), skew: None },
    }
}

/// A flight whose link is another one by now: nothing was sent, and there is nothing to settle.
async fn superseded(plane: &Plane, facts: &Arc<Facts>) -> Landing {
    let (id, instance) = (facts.peer.id, Arc::clone(&plane.instance));
    let seals = instance.store.seals().clone();
    let epoch = instance.store.epoch();
    let facts = instance.store.read(move |connection| store::link::facts(connection, &seals, epoch, id)).await;
    Landing { facts: facts.ok().flatten(), outcome: Outcome::Superseded, skew: None }
}

fn unreachable_trouble(reason: &str) -> Trouble {
    Trouble { kind: TroubleKind::Unreachable, reason: reason.to_owned() }
}

fn store_trouble(error: &StoreError) -> Trouble {
    Trouble { kind: TroubleKind::Store, reason: format!("{error}; the log says why") }
}
