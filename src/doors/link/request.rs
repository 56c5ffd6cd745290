//! The request URL. GET shows who will be linked with whom and changes nothing, so that mail scanners and previews do no harm; the
//! page's POST consumes it, once, and binds what follows to the browser that pressed.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::header::{HeaderMap, SET_COOKIE};
use http::{HeaderValue, StatusCode};
use rusqlite::Connection;
use url::Url;

use super::outcome::Outcome;
use super::{LinkDoor, handshake_cookie};
use crate::audit::{Action, Actor, Entry};
use crate::clock::Timestamp;
use crate::config::{Config, PublicUrl};
use crate::doors::browser::{self, OwnForm, Visitor};
use crate::id::Id;
use crate::instance::Instance;
use crate::oauth::pkce;
use crate::oauth::signing_key::SigningKey;
use crate::oauth::token::{self, Kind};
use crate::observe::point;
use crate::outbound::client::Client;
use crate::outbound::handshake::{self, Handshake, Sent, Stage};
use crate::outbound::link::Facts;
use crate::outbound::ob_app::ObApp;
use crate::outbound::ticket::{self, Dead, Fate, HANDSHAKE_LIFE, Press, Ticket};
use crate::pages;
use crate::secret::{Digest, ExposeSecret, SecretString};
use crate::store::{Fault, Seals, handshake as handshake_rows, link as link_rows, ticket as ticket_rows};
use crate::tasks::keeper;

/// `GET /link/{ticket}`
pub(super) async fn look(State(door): State<Arc<LinkDoor>>, Path(text): Path<String>, headers: HeaderMap) -> Response {
    let config = door.instance.config();
    let Ok(visitor) = Visitor::of(&door.instance, &headers).await else { return browser::unavailable(&config) };
    let Some(digest) = token::digest_if(Kind::Ticket, &text) else { return Outcome::Dead(Dead::Unknown).page(&config) };
    let (instance, now) = (Arc::clone(&door.instance), door.instance.clock.now().wall);
    let found = door
        .instance
        .store
        .read(move |connection| {
            let found = Found::read(connection, &instance, digest)?;
            Ok(found.judged(&instance.config().instance.public_url, &headers, now).map(|_| found))
        })
        .await;
    match found {
        Ok(Ok(Found { ticket: Some(ticket), facts: Some(facts), .. })) => show(&door, &config, visitor, &text, &ticket, &facts),
        Ok(Ok(_)) => Outcome::Dead(Dead::Unknown).page(&config),
        Ok(Err(dead)) => Outcome::Dead(dead).page(&config),
        Err(_) => browser::unavailable(&config),
    }
}

fn show(door: &LinkDoor, config: &Config, visitor: Visitor, text: &str, ticket: &Ticket, facts: &Facts) -> Response {
    let (app, endpoint, sent) = match beginning(config, facts) {
        Ok(beginning) => beginning,
        Err(outcome) => return outcome.page(config),
    };
    let destination = endpoint.origin().ascii_serialization();
    let page = pages::link::Request {
        instance: &config.instance.name,
        public_url: config.instance.public_url.as_str(),
        client_id: &app.client_id,
        peer: &facts.peer.name,
        peer_url: facts.peer.url.as_str().trim_end_matches('/'),
        scope: &sent.scope,
        destination: &destination,
        login_needed: ticket.login && visitor.signed_in.is_none(),
        expires_at: &ticket.expires_at.to_string(),
        action: &config.instance.public_url.join(&format!("/link/{text}")),
        token: &visitor.form_token(&door.instance),
    };
    let page = pages::page(StatusCode::OK, &page, &[&destination]);
    visitor.answered(page)
}

/// `POST /link/{ticket}`
pub(super) async fn press(State(door): State<Arc<LinkDoor>>, Path(text): Path<String>, request: Request) -> Response {
    let config = door.instance.config();
    let OwnForm { parts, visitor, .. } = match browser::own_form(&door.instance, request).await {
        Ok(own) => own,
        Err(refusal) => return refusal,
    };
    let public_url = &config.instance.public_url;
    let Some(digest) = token::digest_if(Kind::Ticket, &text) else { return Outcome::Dead(Dead::Unknown).page(&config) };
    let fresh = Fresh::new(&door.instance);
    let prepared = match door.prepare(&fresh, digest, &parts.headers, visitor.signed_in.is_some()).await {
        Ok(prepared) => prepared,
        Err(outcome) => return outcome.page(&config),
    };
    let (instance, headers, is_signed_in) = (Arc::clone(&door.instance), parts.headers, visitor.signed_in.is_some());
    let login = visitor.signed_in.as_ref().map(|signed_in| signed_in.user.login.clone());
    let pressed = door.instance.store.write(move |transaction| {
        let config = instance.config();
        let now = transaction.now().wall;
        let found = Found::read(transaction, &instance, digest)?;
        let press = match found.judged(&config.instance.public_url, &headers, now) {
            Ok(press) => press,
            Err(dead) => return Ok(Pressed::Refused(Outcome::Dead(dead))),
        };
        let (Some(ticket), Some(facts)) = (found.ticket, found.facts) else { return Ok(Pressed::Refused(Outcome::Dead(Dead::Unknown))) };
        if ticket.login && !is_signed_in {
            return Ok(Pressed::LogIn);
        }
        let Some(prepared) = &prepared else { return Ok(Pressed::Refused(Outcome::Dead(Dead::Unknown))) };
        let sent = match beginning(&config, &facts) {
            Ok((app, _, sent)) if prepared.is_for(app, &sent) => sent,
            Ok(_) => {
                let why = "it was changed while the button was pressed".to_owned();
                return Ok(Pressed::Refused(Outcome::NotNow { peer: facts.peer.name.clone(), why }));
            }
            Err(outcome) => return Ok(Pressed::Refused(outcome)),
        };
        let id = match press {
            Press::Begin if ticket_rows::consume(transaction, ticket.digest, fresh.id)? => fresh.id,
            Press::Begin => return Ok(Pressed::Refused(Outcome::Dead(Dead::Used))),
            Press::Again(id) => id,
        };
        let (location, key) = (prepared.location.clone(), prepared.key.clone());
        let handshake = fresh.handshake(id, &ticket, sent, key, now);
        handshake_rows::put(transaction, instance.store.seals(), instance.store.epoch(), &handshake)?;
        if let Some(login) = &login {
            transaction.acts_as(Actor::Session { login: login.clone() });
        }
        transaction.record(&Entry::of(Action::HandshakeBegun).on(keeper::told(&facts.peer)).token(digest))?;
        Ok(Pressed::Begun(Box::new(Begun {
            peer: facts.peer.id,
            location,
            cookie: (handshake_cookie(&config.instance.public_url, &handshake.state), fresh.browser.clone()),
            old_cookie: found.handshake.map(|old| handshake_cookie(&config.instance.public_url, &old.state)),
        })))
    });
    match pressed.await {
        Ok(Pressed::Begun(begun)) => {
            point::passed("ticket_consumed");
            door.links.changed(begun.peer).await;
            begun.answer(public_url)
        }
        Ok(Pressed::LogIn) => {
            let back: String = form_urlencoded::byte_serialize(format!("{}/link/{text}", base_path(public_url)).as_bytes()).collect();
            visitor.answered(browser::see_other(&public_url.join(&format!("/login?next={back}"))))
        }
        Ok(Pressed::Refused(outcome)) => outcome.page(&config),
        Err(_) => browser::unavailable(&config),
    }
}

/// An authorization request before its handshake is written down.
struct Prepared {
    client_id: String,
    sent: Sent,
    key: Option<Arc<SigningKey>>,
    /// Where the browser is sent to.
    location: Url,
}

impl Prepared {
    fn is_for(&self, app: &ObApp, sent: &Sent) -> bool {
        self.client_id == app.client_id && self.sent == *sent
    }
}

impl LinkDoor {
    /// Makes the request of a ticket that can be pressed, and pushes it where that is done (RFC 9126): before the ticket is used up, so that a
    /// server that is down costs nobody a request URL. `None` where there is nothing to press, or somebody has to log in first.
    async fn prepare(&self, fresh: &Fresh, ticket: Digest, headers: &HeaderMap, is_signed_in: bool) -> Result<Option<Prepared>, Outcome> {
        let config = self.instance.config();
        let (instance, headers, now) = (Arc::clone(&self.instance), headers.clone(), self.instance.clock.now().wall);
        let found = self.instance.store.read(move |connection| {
            let found = Found::read(connection, &instance, ticket)?;
            Ok(found.judged(&instance.config().instance.public_url, &headers, now).is_ok().then_some(found))
        });
        let Ok(Some(Found { ticket: Some(ticket), facts: Some(facts), .. })) = found.await else { return Ok(None) };
        if ticket.login && !is_signed_in {
            return Ok(None);
        }
        let (app, endpoint, sent) = match beginning(&config, &facts) {
            Ok(begun) => begun,
            Err(outcome) => {
                if let Outcome::NotNow { why, .. } = &outcome {
                    self.links.not_begun(facts.peer.id, why.clone()).await;
                }
                return Err(outcome);
            }
        };
        let key = app.new_proof_key(facts.metadata.as_ref());
        let parameters = handshake::parameters(&app.client_id, &sent, &fresh.state, &fresh.verifier, key.as_deref());
        let location = match facts.metadata.as_ref().filter(|_| sent.issuer.is_some()).and_then(handshake::pushed_to) {
            None => handshake::authorization_url(&endpoint, &parameters),
            Some(pushed_to) => {
                let us = Client::new(app, &sent.token_endpoint, facts.metadata.as_ref()).proving(app, key.as_ref());
                let form: Vec<(&str, &str)> = parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let reference = self.links.push(&facts, app, &us, pushed_to, &form).await.map_err(|why| {
                    tracing::warn!(peer = facts.peer.name, reason = why, "an authorization request could not be pushed");
                    Outcome::NotNow { peer: facts.peer.name.clone(), why }
                })?;
                handshake::pushed_url(&endpoint, &app.client_id, &reference)
            }
        };
        Ok(Some(Prepared { client_id: app.client_id.clone(), sent, key, location }))
    }
}

/// What the rows say of a ticket.
struct Found {
    ticket: Option<Ticket>,
    handshake: Option<Handshake>,
    facts: Option<Facts>,
}

impl Found {
    fn read(connection: &Connection, instance: &Instance, digest: Digest) -> Result<Self, Fault> {
        let (seals, epoch): (&Seals, i64) = (instance.store.seals(), instance.store.epoch());
        let ticket = ticket_rows::by_digest(connection, epoch, digest)?;
        let handshake = match ticket.as_ref().map(|ticket| ticket.fate) {
            Some(Fate::Used { handshake }) => handshake_rows::by_id(connection, seals, epoch, handshake)?,
            _ => None,
        };
        let facts = match &ticket {
            Some(ticket) => link_rows::facts(connection, seals, epoch, ticket.peer)?,
            None => None,
        };
        Ok(Self { ticket, handshake, facts })
    }

    fn judged(&self, public_url: &PublicUrl, headers: &HeaderMap, now: Timestamp) -> Result<Press, Dead> {
        let is_browser = self.handshake.as_ref().is_some_and(|handshake| {
            let value = browser::cookie(headers, &handshake_cookie(public_url, &handshake.state));
            value.and_then(|value| token::digest_if(Kind::State, value)) == Some(handshake.browser)
        });
        ticket::judge(self.ticket.as_ref(), self.handshake.as_ref(), is_browser, now)
    }
}

fn beginning<'f>(config: &Config, facts: &'f Facts) -> Result<(&'f ObApp, Url, Sent), Outcome> {
    let not_now = |why: String| Outcome::NotNow { peer: facts.peer.name.clone(), why };
    let app = facts.ob_app.as_ref().ok_or_else(|| not_now("it has no OB app".to_owned()))?;
    let begun = handshake::begin(config.instance.public_url.as_str(), app, facts.metadata.as_ref());
    let (endpoint, sent) = begun.map_err(|missing| not_now(missing.to_string()))?;
    Ok((app, endpoint, sent))
}

/// The secrets of one press.
struct Fresh {
    id: Id,
    state: SecretString,
    browser: SecretString,
    verifier: SecretString,
}

impl Fresh {
    fn new(instance: &Instance) -> Self {
        let random = instance.random.as_ref();
        Self {
            id: Id::new(instance.clock.now().wall, random),
            state: token::mint(Kind::State, random),
            browser: token::mint(Kind::State, random),
            verifier: pkce::verifier(random),
        }
    }

    fn handshake(&self, id: Id, ticket: &Ticket, sent: Sent, key: Option<Arc<SigningKey>>, now: Timestamp) -> Handshake {
        Handshake {
            id,
            peer: ticket.peer,
            ticket: ticket.digest,
            browser: Digest::of(self.browser.expose_secret()),
            state: Digest::of(self.state.expose_secret()),
            sent,
            expires_at: now.plus(HANDSHAKE_LIFE),
            stage: Stage::Pressed { verifier: self.verifier.clone(), key },
        }
    }
}

enum Pressed {
    Begun(Box<Begun>),
    LogIn,
    Refused(Outcome),
}

/// A handshake whose browser is to be sent to the peer.
struct Begun {
    peer: Id,
    location: Url,
    cookie: (String, SecretString),
    old_cookie: Option<String>,
}

impl Begun {
    fn answer(&self, public_url: &PublicUrl) -> Response {
        let mut response = browser::see_other(self.location.as_str());
        let mut set = |cookie: HeaderValue| response.headers_mut().append(SET_COOKIE, cookie);
        set(browser::set_cookie(public_url, &self.cookie.0, self.cookie.1.expose_secret(), Some(HANDSHAKE_LIFE)));
        if let Some(old) = &self.old_cookie {
            set(browser::set_cookie(public_url, old, "", Some(std::time::Duration::ZERO)));
        }
        response
    }
}

/// The path of `public_url`, without a slash at its end.
fn base_path(public_url: &PublicUrl) -> &str {
    public_url.url().path().trim_end_matches('/')
}
