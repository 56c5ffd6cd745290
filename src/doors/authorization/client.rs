//! What the endpoints for clients share: the form with its client authentication, the answers, and what the log and the audit hear.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use tracing::field::display;

use super::evidence;
use crate::audit::{Action, Actor, Entry, Origin, Outcome};
use crate::clock::Moment;
use crate::config::{Config, Rate};
use crate::doors::browser::address;
use crate::doors::form::{self, NoForm};
use crate::id::Id;
use crate::inbound::event::Event;
use crate::inbound::ib_app::{IbApp, is_client_id};
use crate::inbound::security::Evidence;
use crate::instance::Instance;
use crate::instance::key_sets::NoKeys;
use crate::instance::passwords::Busy;
use crate::instance::proofs::NoKey;
use crate::instance::throttle::{Attempt, Trial};
use crate::net::client_certificate::{self, ClientCertificate};
use crate::net::connection::Connection;
use crate::net::problem;
use crate::oauth::assertion;
use crate::oauth::binding::Possession;
use crate::oauth::client_auth::{self, Presented};
use crate::oauth::dpop::{self, NONCE_HEADER, Proof};
use crate::oauth::error::{Code, WireError};
use crate::oauth::parameters::Parameters;
use crate::oauth::thumbprint::KeyThumbprint;
use crate::oauth::token;
use crate::observe::log::AUDIT;
use crate::store::ib_app::{self, NotAnApp};
use crate::store::{Fault, Seals, StoreError, Transaction, audit};

/// The longest that a request which opens and moves no window may take to arrive.
pub(super) const TIME_TO_ARRIVE: Duration = Duration::from_secs(10);

/// What one address may send that comes to no judgement. A client that keeps its nonce, as RFC 9449 §8.1 says, sends one such request in five
/// minutes: some thousands of them behind one address stay below it.
const UNJUDGED: Rate = Rate { count: 600, per: Duration::from_secs(60) };

const REQUEST_ID: HeaderName = HeaderName::from_static("p2pi-request-id");

/// A client's request at one of our endpoints.
#[derive(Debug)]
pub(super) struct ClientRequest {
    instance: Arc<Instance>,
    /// Its attempt to be the client that it claims to be, until it is over.
    trial: Option<Trial>,
    /// Whose request it is counted as, once its credentials are known to be right.
    claimed: BTreeSet<Attempt>,
    /// Whether it was: what it is refused for from then on is its client's.
    is_judged: bool,
    /// Names it in the log and in the answer.
    pub(super) id: Id,
    /// When its first byte arrived.
    pub(super) arrived: Moment,
    /// From where, as far as it is known.
    pub(super) from: Option<IpAddr>,
    /// The DPoP proof that it carries, used now.
    proof: Option<Proof>,
    /// The certificate that it comes with, which is valid now.
    certificate: Option<Arc<ClientCertificate>>,
    /// The client that it names.
    named: Option<String>,
}

/// Whom a request claims to come from, with the evidence. It is good for one thing, [`ClientRequest::judged`], so that no endpoint can
/// authenticate a client and forget to count its request.
#[derive(Debug)]
pub(super) struct Claim(Evidence);

impl Claim {
    /// The client, where nothing but its name is shown, which anybody can.
    pub(super) fn bare_name(&self) -> Option<&str> {
        match &self.0 {
            Evidence::Name(client_id) => Some(client_id),
            Evidence::Secret { .. } | Evidence::Assertion { .. } | Evidence::Certificate { .. } => None,
        }
    }

    /// `judge`, once the claim is found to be right.
    fn before<T, F>(self, seals: &Seals, mut judge: F) -> impl FnMut(&Transaction<'_>) -> Result<Result<T, ClientError>, Fault> + use<T, F>
    where
        F: FnMut(&Transaction<'_>, &IbApp) -> Result<Result<T, ClientError>, Fault>,
    {
        let seals = seals.clone();
        move |transaction| match ib_app::authenticate(transaction, &seals, &self.0)? {
            Ok(app) => judge(transaction, &app),
            Err(not_an_app) => Ok(Err(ClientError::NotAnApp(not_an_app))),
        }
    }
}

/// Why a client gets an error.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// There is no form.
    #[error(transparent)]
    NoForm(#[from] NoForm),
    /// Parameters stand in the query, where logs keep them.
    #[error("parameters belong into the body")]
    Query,
    /// The request is malformed, or is refused for a reason of its own.
    #[error(transparent)]
    Refused(#[from] WireError),
    /// The client is not known by what it presents.
    #[error(transparent)]
    NotAnApp(#[from] NotAnApp),
    /// Its assertion is not believed.
    #[error(transparent)]
    Assertion(#[from] assertion::Refusal),
    /// Its certificate is not the one that it is registered by.
    #[error("the client's certificate: {0}")]
    Certificate(String),
    /// The keys to judge its assertion by cannot be had.
    #[error(transparent)]
    NoKeys(#[from] NoKeys),
    /// Its DPoP proof is not believed, was used before, or needs a nonce, which the answer has.
    #[error(transparent)]
    Proof(#[from] NoKey),
    /// It failed too often of late from this address.
    #[error("too many failed attempts to authenticate")]
    TooManyFailures(Duration),
    /// It asked too much of late from this address.
    #[error("too many requests of this client from this address; ask again after the seconds of Retry-After")]
    TooManyRequests(Duration),
    /// Too much came of late from its address that nobody could judge.
    #[error("too many requests from this address that could not be judged; ask again after the seconds of Retry-After")]
    TooManyUnjudged(Duration),
    /// Everything that its app may have pushed waits for people who are asked it now.
    #[error("people are being asked as many pushed requests of this client as it may have; push again after the seconds of Retry-After")]
    TooManyPushed(Duration),
    /// Too many passwords are being checked.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The store did not judge it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It came too slowly to be judged.
    #[error("the request took too long to arrive")]
    TooSlow,
}

impl ClientError {
    fn wire(&self) -> WireError {
        match self {
            Self::NoForm(_) | Self::Query => WireError::new(Code::InvalidRequest, self.to_string()),
            Self::Refused(error) => error.clone(),
            Self::NotAnApp(NotAnApp::FromBeforeRestore(_)) => WireError::new(Code::ServerError, self.to_string()),
            Self::NotAnApp(_) | Self::Assertion(_) | Self::Certificate(_) => WireError::new(Code::InvalidClient, self.to_string()),
            Self::Proof(NoKey::NeedsNonce) => WireError::new(Code::UseDpopNonce, self.to_string()),
            Self::Proof(NoKey::Bad(_) | NoKey::Replayed) => WireError::new(Code::InvalidDpopProof, self.to_string()),
            Self::TooManyFailures(_) | Self::TooManyRequests(_) | Self::TooManyUnjudged(_) | Self::TooManyPushed(_) => {
                WireError::new(Code::TemporarilyUnavailable, self.to_string())
            }
            Self::NoKeys(_) => {
                WireError::new(Code::ServerError, "the client's keys cannot be had at its jwks_uri now; the log of this instance says why")
            }
            Self::Store(_) | Self::Busy(_) | Self::TooSlow => WireError::new(Code::ServerError, "not judged; try again"),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NoForm(error) => error.status(),
            Self::Store(StoreError::Fault(_) | StoreError::Panicked) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Query
            | Self::Refused(_)
            | Self::NotAnApp(_)
            | Self::Assertion(_)
            | Self::Certificate(_)
            | Self::NoKeys(_)
            | Self::Proof(_)
            | Self::TooManyFailures(_)
            | Self::TooManyRequests(_)
            | Self::TooManyUnjudged(_)
            | Self::TooManyPushed(_)
            | Self::Busy(_)
            | Self::Store(_)
            | Self::TooSlow => self.wire().code.status(),
        }
    }

    /// Whether it is one more guess at who the client is.
    const fn is_failed_authentication(&self) -> bool {
        matches!(self, Self::NotAnApp(NotAnApp::Unknown | NotAnApp::Replayed) | Self::Assertion(_) | Self::Certificate(_))
    }

    /// Whether the request is one that nobody can judge as it was sent, so that it counts neither as a guess nor as its client's. What is
    /// refused because it was counted already, or because we could not, is none.
    const fn is_for_nobody_to_judge(&self) -> bool {
        matches!(self, Self::NoForm(_) | Self::Query | Self::Refused(_) | Self::NoKeys(_) | Self::Proof(_))
    }
}

impl ClientRequest {
    /// Reads a request: its form, and the client that it claims to come from. It must be there within `longest` of its first byte.
    pub(super) async fn read(
        instance: &Arc<Instance>,
        request: Request,
        longest: Duration,
    ) -> (Self, Result<(Parameters, Claim), ClientError>) {
        let (config, under_way) = (instance.config(), since_first_byte(&request));
        let (parts, body) = request.into_parts();
        let mut this = Self::begun(instance, &config, &parts, under_way);
        let claim = this.claim(&config, Request::from_parts(parts, body));
        let read = tokio::time::timeout(longest.saturating_sub(under_way), claim).await.unwrap_or(Err(ClientError::TooSlow));
        (this, read)
    }

    /// A request of which the head is there, and nothing is known yet but when, from where and with which certificate it comes.
    fn begun(instance: &Arc<Instance>, config: &Config, parts: &Parts, under_way: Duration) -> Self {
        let now = instance.clock.now();
        // Its rows in the audit are named by the same.
        let id = audit::current().and_then(|origin| origin.request_id.as_ref()?.parse().ok());
        Self {
            instance: Arc::clone(instance),
            trial: None,
            claimed: BTreeSet::new(),
            is_judged: false,
            id: id.unwrap_or_else(|| Id::new(now.wall, instance.random.as_ref())),
            arrived: now.minus(under_way),
            from: address(parts, config),
            proof: None,
            certificate: certificate(parts, config).filter(|certificate| certificate.is_valid_at(now.wall)),
            named: None,
        }
    }

    /// Its form, and the client that it claims to come from. What it shows is looked at only where there is room for another attempt.
    async fn claim(&mut self, config: &Config, request: Request) -> Result<(Parameters, Claim), ClientError> {
        let has_query = request.uri().query().is_some_and(|query| !query.is_empty());
        let (parts, form) = form::read(request, config.limits.form_bytes).await?;
        if has_query {
            return Err(ClientError::Query);
        }
        let presented = client_auth::presented(&parts.headers, &form)?;
        self.names(&presented);
        self.has_room()?;
        self.trial = Some(self.tries(&presented, config).await?);
        // Before the client is looked at: what has to be sent again with a nonce has used up no assertion and no code.
        self.proof = proof(&self.instance, &parts)?;
        let evidence = evidence::of(&self.instance, presented, self.certificate.as_deref()).await?;
        Ok((form, Claim(evidence)))
    }

    /// Keeps whom it names, for the log and for counting.
    fn names(&mut self, presented: &Presented<'_>) {
        self.named = presented.client_ids().next().map(str::to_owned);
        self.claimed = presented.client_ids().map(|client_id| Attempt::of_client(client_id, self.from)).collect();
    }

    /// Its attempt to be one of those that it names, as soon as others under way leave room for it.
    async fn tries(&self, presented: &Presented<'_>, config: &Config) -> Result<Trial, ClientError> {
        let attempts = presented.client_ids().map(|client_id| Attempt::new("client", client_id, self.from));
        let trial = self.instance.failures.begin(attempts, config.limits.auth_failures, self.instance.clock.as_ref()).await;
        trial.map_err(ClientError::TooManyFailures)
    }

    /// Before anything is looked at: whether its client has not asked too much already.
    fn has_room(&self) -> Result<(), ClientError> {
        let Some(rate) = self.instance.config().limits.client_requests else { return Ok(()) };
        let waits = self.claimed.iter().filter_map(|client| self.instance.requests.wait(*client, rate, self.instance.clock.as_ref()));
        waits.max().map_or(Ok(()), |wait| Err(ClientError::TooManyRequests(wait)))
    }

    /// Judges what the client asks that `claim` authenticates. Whatever the judgement is, it counts as a request of that client.
    ///
    /// # Errors
    ///
    /// [`ClientError::NotAnApp`] when the claim is wrong; the error that `judge` comes to; the store's.
    pub(super) async fn judged<T, F>(&mut self, claim: Claim, judge: F) -> Result<T, ClientError>
    where
        T: Send + 'static,
        F: FnMut(&Transaction<'_>, &IbApp) -> Result<Result<T, ClientError>, Fault> + Send + 'static,
    {
        let judge = claim.before(self.instance.store.seals(), judge);
        let judged = self.instance.store.write(judge).await?;
        self.settle(judged)
    }

    /// As [`Self::judged`], but what is not judged within `longest` of the request's first byte never is.
    ///
    /// # Errors
    ///
    /// As there, and [`StoreError::Expired`].
    pub(super) async fn judged_within<T, F>(&mut self, longest: Duration, claim: Claim, judge: F) -> Result<T, ClientError>
    where
        T: Send + 'static,
        F: FnMut(&Transaction<'_>, &IbApp) -> Result<Result<T, ClientError>, Fault> + Send + 'static,
    {
        let judge = claim.before(self.instance.store.seals(), judge);
        let judged = self.instance.store.write_within(self.arrived, longest, judge).await?;
        self.settle(judged)
    }

    /// Unless it turned out not to be the client that it claims to be, what fails from now on is not its attempt at that.
    fn settle<T>(&mut self, judged: Result<T, ClientError>) -> Result<T, ClientError> {
        if !judged.as_ref().is_err_and(ClientError::is_failed_authentication) {
            self.trial = None;
            self.is_judged = true;
            self.counts();
        }
        judged
    }

    /// It is one more request of its client.
    fn counts(&self) {
        let Some(rate) = self.instance.config().limits.client_requests else { return };
        for client in &self.claimed {
            // Full, when others were under way at the same time: then the next one waits.
            let _ = self.instance.requests.count(*client, rate, self.instance.clock.as_ref());
        }
    }

    /// Counts a request that comes to no judgement by its address. Nothing but such requests is refused for it, and and only in place of
    /// another refusal: who is right never waits for who floods the same address.
    fn counts_unjudged(&self, error: &ClientError) -> Result<(), ClientError> {
        if self.is_judged || !error.is_for_nobody_to_judge() {
            return Ok(());
        }
        let counted = self.instance.requests.count(Attempt::of_unjudged(self.from), UNJUDGED, self.instance.clock.as_ref());
        counted.map_err(ClientError::TooManyUnjudged)
    }

    /// The key that its DPoP proof was made with.
    pub(super) fn key(&self) -> Option<KeyThumbprint> {
        self.proof.as_ref().map(|proof| proof.key)
    }

    /// What it shows besides what it says.
    pub(super) fn possession(&self) -> Possession {
        Possession { key: self.key(), certificate: self.certificate.as_ref().map(|certificate| certificate.thumbprint()) }
    }

    /// A 200 with a document that nobody keeps.
    pub(super) fn answer(&self, json: String) -> Response {
        self.answer_with(StatusCode::OK, json)
    }

    /// The same with another status that is a success.
    pub(super) fn answer_with(&self, status: StatusCode, json: String) -> Response {
        let mut response = self.finish((status, json).into_response());
        if let Some(proof) = &self.proof
            && self.instance.proofs.is_ageing(proof.nonce.as_deref())
        {
            self.hand_out_nonce(&mut response);
        }
        response
    }

    /// An error as RFC 6749 §5.2 writes it. The wire says no more than the RFC; the log says why, under the id that the answer names.
    pub(super) async fn refuse(mut self, error: &ClientError) -> Response {
        let too_many = self.counts_unjudged(error).err();
        let told = too_many.as_ref().unwrap_or(error);
        let wire = told.wire();
        let (request_id, address, reason) = (self.id, self.from.map(display), error.to_string());
        if error.is_failed_authentication() {
            self.tell_failure(Action::ClientFailed, error).await;
        } else if matches!(error, ClientError::Proof(NoKey::Replayed)) {
            self.tell_failure(Action::ProofReplayed, error).await;
        }
        if let (true, Some(trial)) = (error.is_failed_authentication(), self.trial.take()) {
            trial.failed(self.instance.config().limits.auth_failures, self.instance.clock.as_ref());
        }
        match error {
            ClientError::Store(_) => tracing::warn!(%request_id, address, reason, "a client's request was not judged"),
            _ => tracing::info!(%request_id, address, code = wire.code.as_str(), reason, "a client's request was refused"),
        }
        let mut response = self.finish((told.status(), wire.to_json()).into_response());
        if response.status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"oauth\", charset=\"UTF-8\""));
        }
        // Also where too many need one: with it, the next proof does not.
        if matches!(error, ClientError::Proof(NoKey::NeedsNonce)) {
            self.hand_out_nonce(&mut response);
        }
        if let ClientError::TooManyFailures(wait)
        | ClientError::TooManyRequests(wait)
        | ClientError::TooManyUnjudged(wait)
        | ClientError::TooManyPushed(wait) = told
        {
            problem::mark_rate_limited(response.headers_mut(), *wait);
        } else if let ClientError::NotAnApp(NotAnApp::FromBeforeRestore(later)) = error {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(later.as_secs()));
        } else if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(1));
        }
        response
    }

    /// Tells the audit of somebody who may not be the client that was claimed, which is named where there is one.
    async fn tell_failure(&self, action: Action, error: &ClientError) {
        let app = match self.named.clone() {
            Some(claimed) => self.instance.store.read(move |connection| ib_app::by_client_id(connection, &claimed)).await,
            None => Ok(None),
        };
        let known = app.ok().flatten().map(|app| app.record());
        let claimed = self.named.as_deref().filter(|claimed| known.is_none() && may_be_told(claimed));
        let failed = Entry::of(action).ended(Outcome::Refused).on_known(known).maybe("claimed_client_id", claimed);
        self.note(Actor::Unknown, failed.with("reason", error.to_string()));
    }

    /// Notes for the audit what an app can have as often as it asks.
    pub(super) fn note(&self, actor: Actor, entry: Entry) {
        let origin = Origin::new(actor, self.from, Some(self.id.to_string()));
        self.instance.tally.note(self.instance.clock.now(), origin, entry);
    }

    /// Tells the log of what was judged, and the audit where its row was not written with a change.
    pub(super) fn tell(&self, event: &Event, client_id: &str, grant: Option<Id>, unwritten: Option<Entry>) {
        if let Some(entry) = unwritten {
            self.note(Actor::Client { client_id: client_id.to_owned() }, entry);
        }
        let (request_id, address, grant, name, reason) =
            (self.id, self.from.map(display), grant.map(display), event.action().as_str(), event.reason());
        if event.is_alert() {
            tracing::warn!(target: AUDIT, event = name, client_id, grant, address, %request_id, reason, "needs a look");
        } else {
            tracing::info!(target: AUDIT, event = name, client_id, grant, address, %request_id, reason);
        }
    }

    fn hand_out_nonce(&self, response: &mut Response) {
        let nonce = self.instance.proofs.nonce(self.instance.clock.as_ref(), self.instance.random.as_ref());
        response.headers_mut().insert(NONCE_HEADER, HeaderValue::try_from(nonce).expect("base64url is visible ASCII"));
    }

    fn finish(&self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
        headers.insert(REQUEST_ID, HeaderValue::try_from(self.id.to_string()).expect("hexadecimal digits are visible ASCII"));
        response
    }
}

/// The longest `client_id` of nobody's that the audit repeats; ours are shorter.
const LONGEST_CLAIM: usize = 64;

/// Whether what somebody gave for a `client_id` may stand in the audit: it is short, could be one, and is none of the secrets that we make, which
/// are easily put into the wrong field.
fn may_be_told(claimed: &str) -> bool {
    claimed.len() <= LONGEST_CLAIM && is_client_id(claimed) && !token::looks_like_ours(claimed)
}

/// The DPoP proof that a request carries, if any, which is used by that.
fn proof(instance: &Instance, parts: &Parts) -> Result<Option<Proof>, ClientError> {
    let config = instance.config();
    let urls = config.names_of(parts.uri.path());
    let request = dpop::Request { method: parts.method.as_str(), urls: &urls, token: None };
    Ok(instance.proofs.of_request(&parts.headers, &request, instance.clock.as_ref(), instance.random.as_ref())?)
}

/// The certificate that a request comes with, if any, whether or not it is valid.
fn certificate(parts: &Parts, config: &Config) -> Option<Arc<ClientCertificate>> {
    client_certificate::presented(parts.extensions.get::<Arc<Connection>>()?, &parts.headers, config.certificate_proxies())
}

/// How long ago the request's first byte arrived: a head may have come slowly.
fn since_first_byte(request: &Request) -> Duration {
    request.extensions().get::<Arc<Connection>>().map_or(Duration::ZERO, |connection| connection.since_first_byte(request.version()))
}

/// 405 for everything but POST.
pub(super) async fn post_only() -> Response {
    let error = WireError::new(Code::InvalidRequest, "this endpoint takes POST only");
    let headers = [
        (ALLOW, HeaderValue::from_static("POST")),
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (StatusCode::METHOD_NOT_ALLOWED, headers, error.to_json()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_claimed_is_told_where_it_is_a_short_id_and_no_secret() {
        assert!(may_be_told("shop") && may_be_told(&"a".repeat(LONGEST_CLAIM)));
        for silent in ["", "a b", "a:b", "sh\u{f6}p", "p2ps_0123456789", "p2pa_", &"a".repeat(LONGEST_CLAIM + 1)] {
            assert!(!may_be_told(silent), "{silent:?}");
        }
    }
}
