//! The callback: the peer's answer, in the browser that pressed the button. The code is claimed in one transaction, sent once, and what
//! comes of it is finished whether the browser waits or not.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use http::Uri;
use http::header::HeaderMap;

use super::outcome::Outcome;
use super::{LinkDoor, handshake_cookie};
use crate::audit::{self, Action, Entry};
use crate::doors::browser;
use crate::id::Id;
use crate::oauth::parameters::Parameters;
use crate::oauth::token::{self, Kind};
use crate::outbound::answer::{self, Answer};
use crate::outbound::callback::{self, Arrival, Exchange, Next, Refusal};
use crate::outbound::client::{Authentication, Client};
use crate::outbound::exchange::Ask;
use crate::outbound::handshake::Stage;
use crate::outbound::link::Facts;
use crate::secret::{Digest, SecretString};
use crate::store::{self, handshake as rows};
use crate::tasks::keeper::{self, Installation};

/// How often, and how long apart, a new link is offered to a store that does not take it.
const STORE_TRIES: u32 = 5;
const STORE_AGAIN: Duration = Duration::from_secs(1);

/// `GET /oauth/callback`
pub(super) async fn arrive(State(door): State<Arc<LinkDoor>>, uri: Uri, headers: HeaderMap) -> Response {
    answered(door, "/oauth/callback", uri.query().unwrap_or_default(), &headers).await
}

/// `GET /oauth/callback/{ob app}`
pub(super) async fn arrive_for_app(State(door): State<Arc<LinkDoor>>, Path(app): Path<String>, uri: Uri, headers: HeaderMap) -> Response {
    answered(door, &format!("/oauth/callback/{app}"), uri.query().unwrap_or_default(), &headers).await
}

async fn answered(door: Arc<LinkDoor>, path: &str, query: &str, headers: &HeaderMap) -> Response {
    let config = door.instance.config();
    let public_url = &config.instance.public_url;
    let parameters = match Parameters::read(query.as_bytes()) {
        Ok(parameters) => parameters,
        Err(problem) => return Outcome::Malformed(problem.to_string()).page(&config),
    };
    if let Err(doubled) = parameters.each_once(&["code", "state", "iss", "error", "error_description"]) {
        return Outcome::Malformed(doubled.to_string()).page(&config);
    }
    let value = |name: &str| parameters.the(name).ok().flatten().map(str::to_owned);
    let Some(state) = value("state").and_then(|state| token::digest_if(Kind::State, &state)) else {
        return Outcome::Refused(Refusal::UnknownState).page(&config);
    };
    let arrival = Arrival {
        redirect_uri: public_url.join(path),
        browser: browser::cookie(headers, &handshake_cookie(public_url, &state)).and_then(|value| token::digest_if(Kind::State, value)),
        code: value("code").map(SecretString::from),
        error: value("error"),
        error_description: value("error_description"),
        iss: value("iss"),
    };
    // Somebody may close the browser while the code is under way: requests here are served to their end (`doors::finish`).
    // The cookie stays as long as the handshake would have lived: whoever loads the page again is told that it is over.
    door.finish(state, arrival).await.page(&config)
}

/// A handshake that an arrival has moved on.
struct Claimed {
    peer: Id,
    handshake: Id,
    /// The peer, unless it is gone.
    facts: Option<Box<Facts>>,
    name: String,
    next: Next,
    is_over: bool,
    /// A token of the peer is held, whatever becomes of this.
    is_held: bool,
}

impl LinkDoor {
    /// Judges the arrival and does what follows.
    async fn finish(&self, state: Digest, arrival: Arrival) -> Outcome {
        let Ok(claimed) = self.claim(state, arrival).await else { return Outcome::NotJudged };
        let Claimed { peer, handshake, facts, name, next, is_over, is_held } = match claimed {
            Ok(claimed) => claimed,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let outcome = match next {
            Next::Refused(refusal) => Outcome::Refused(refusal),
            Next::Declined(words) => Outcome::Declined { peer: name, words, is_held },
            Next::PeerRefused(error) => Outcome::PeerRefused { peer: name, error },
            Next::Exchange(exchange) => match facts {
                Some(facts) => self.exchange(facts, handshake, &name, exchange).await,
                None => Outcome::Refused(Refusal::Replaced),
            },
        };
        if is_over {
            self.links.changed(peer).await;
        }
        outcome
    }

    /// Finds the handshake of a state, and moves it on as the arrival says; two at once cannot both.
    async fn claim(&self, state: Digest, arrival: Arrival) -> Result<Result<Claimed, Refusal>, crate::store::StoreError> {
        let instance = Arc::clone(&self.instance);
        let links = Arc::clone(&self.links);
        self.instance
            .store
            .write(move |transaction| {
                let now = transaction.now().wall;
                let found = rows::by_state(transaction, instance.store.seals(), instance.store.epoch(), state)?;
                let Some((peer, handshake)) = found.as_ref().map(|found| (found.peer, found.id)) else {
                    return Ok(Err(Refusal::UnknownState));
                };
                let judgement = callback::judge(found, arrival.clone(), now);
                if let Some(stage) = &judgement.stage
                    && !rows::advance(transaction, handshake, rows::PRESSED, stage)?
                {
                    return Ok(Err(Refusal::Used));
                }
                // As they are stored: what is asked for from here on is asked for under these, whatever changes meanwhile.
                let facts = store::link::facts(transaction, instance.store.seals(), instance.store.epoch(), peer)?;
                let is_refused = links.by_id(peer).is_some_and(|link| link.facts().is_refused);
                let name = facts.as_ref().map(|facts| facts.peer.name.clone()).unwrap_or_default();
                let why = match &judgement.stage {
                    Some(Stage::Failed { why, .. }) => Some(why.clone()),
                    _ => None,
                };
                let refused = match &judgement.next {
                    Next::Declined(words) => Some((Action::HandshakeDeclined, words.clone())),
                    Next::PeerRefused(error) => Some((Action::HandshakeRefused, Some(error.clone()))),
                    Next::Refused(_) => Some((Action::HandshakeRefused, why)),
                    Next::Exchange(_) => None,
                };
                // What changes nothing, as an answer that comes twice, is told to the browser only.
                if let (Some((action, reason)), Some(facts), true) = (refused, &facts, judgement.stage.is_some()) {
                    let told = Entry::of(action).on(keeper::told(&facts.peer)).ended(audit::Outcome::Refused);
                    transaction.record(&told.maybe("reason", reason))?;
                }
                let is_held = facts.as_ref().is_some_and(|facts| facts.held().is_some()) && !is_refused;
                let facts = facts.map(Box::new);
                Ok(Ok(Claimed { peer, handshake, facts, name, next: judgement.next, is_over: judgement.stage.is_some(), is_held }))
            })
            .await
    }

    /// Sends the code, once, and stores what comes of it.
    async fn exchange(&self, facts: Box<Facts>, handshake: Id, name: &str, exchange: Exchange) -> Outcome {
        let Some(app) = &facts.ob_app else { return Outcome::Refused(Refusal::Replaced) };
        let us = Client::new(app, &exchange.token_endpoint, facts.metadata.as_ref()).proving(app, exchange.key.as_ref());
        let ask = Ask::Code { code: &exchange.code, verifier: &exchange.verifier, redirect_uri: &exchange.redirect_uri };
        let requested = self.instance.clock.now();
        let peer_name = name.to_owned();
        let outcome = match self.links.ask(&facts, app, &us, ask).await.answer {
            Answer::Granted(granted) => {
                let linked_as = granted.subject.clone();
                // Only a p2pid peer has such a page.
                let metadata = facts.metadata.as_ref().filter(|metadata| metadata.p2pi_endpoint.is_some());
                let withdrawn_at = metadata.map(|metadata| format!("{}/grants", metadata.issuer));
                return match self.install(Installation { handshake, asked: facts.clone(), requested, granted: *granted }).await {
                    Some(true) => Outcome::Linked { peer: peer_name, linked_as, withdrawn_at },
                    Some(false) => Outcome::Refused(Refusal::Replaced),
                    None => Outcome::NotStored,
                };
            }
            Answer::Refused { code, description } if code == "invalid_grant" => {
                Outcome::WrongCode { peer: peer_name, error: answer::refusal_in_words(&code, &description) }
            }
            Answer::Refused { code, description } => {
                let error = match (code.as_str(), &us.authentication) {
                    ("invalid_client", Authentication::Assertion { .. }) => format!(
                        "{}; it does not know the key that we sign with (p2pid ob show {})",
                        answer::refusal_in_words(&code, &description),
                        app.name
                    ),
                    ("invalid_client", _) => format!(
                        "{}; it does not know our client id, or takes another secret (p2pid ob update {})",
                        answer::refusal_in_words(&code, &description),
                        app.name
                    ),
                    _ => answer::refusal_in_words(&code, &description),
                };
                Outcome::PeerRefused { peer: peer_name, error }
            }
            Answer::Unusable { what, refresh } => {
                // There is no link that could keep it.
                if let Err(error) = self.links.give_back(&facts, &refresh).await {
                    tracing::error!(peer = name, reason = %error, "a refresh token that nobody holds is not revoked");
                }
                Outcome::PeerRefused { peer: peer_name, error: what }
            }
            Answer::Unexpected(what) => Outcome::PeerRefused { peer: peer_name, error: what },
            Answer::Inconclusive { what, .. } | Answer::NotSent(what) => Outcome::Inconclusive { peer: peer_name, what },
        };
        self.fail(handshake, &facts, &outcome).await;
        outcome
    }

    /// Offers a new link to the store until it takes it, for a few seconds; `None` when it did not.
    async fn install(&self, new: Installation) -> Option<bool> {
        for _ in 0..STORE_TRIES {
            match self.links.install(new.clone()).await {
                Ok(is_linked) => return Some(is_linked),
                Err(error) => tracing::error!(reason = %error, "a new link is not stored yet"),
            }
            self.instance.clock.sleep(STORE_AGAIN).await;
        }
        None
    }

    async fn fail(&self, handshake: Id, facts: &Facts, outcome: &Outcome) {
        let why = match outcome {
            Outcome::WrongCode { error, .. } | Outcome::PeerRefused { error, .. } => format!("the peer answered {error}"),
            Outcome::Inconclusive { what, .. } => format!("the code was sent, and no clear answer came: {what}"),
            _ => return,
        };
        let event = Action::HandshakeFailed.as_str();
        tracing::warn!(event, peer = facts.peer.name, reason = why, "a handshake failed");
        let told = Entry::of(Action::HandshakeFailed).on(keeper::told(&facts.peer)).ended(audit::Outcome::Failed);
        let told = told.with("reason", why.as_str());
        let failed = self.instance.store.write(move |transaction| {
            let stage = Stage::Failed { at: transaction.now().wall, why: why.clone() };
            let is_over = rows::advance(transaction, handshake, rows::EXCHANGING, &stage)?;
            if is_over {
                transaction.record(&told)?;
            }
            Ok(is_over)
        });
        if let Err(error) = failed.await {
            tracing::warn!(reason = %error, "that a handshake failed could not be written down; it shows as failed in two minutes");
        }
    }
}
