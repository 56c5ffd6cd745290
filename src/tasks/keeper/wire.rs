//! Calls to a peer's authorization server, over the net's client.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use http::header::ACCEPT;
use http_body_util::{BodyExt, Limited};
use url::Url;

use crate::clock::Timestamp;
use crate::instance::Instance;
use crate::instance::remotes::{Remote, Verifier};
use crate::net::body::RequestBody;
use crate::net::client::{Client, FetchError};
use crate::net::trust::Untrusted;
use crate::observe::point;
use crate::outbound::client::{self, CallFailure, Transport};
use crate::outbound::metadata::{self, Metadata, MetadataProblem};
use crate::outbound::revocation::{self, Delivery, Revocation};
use crate::outbound::vouching;
use crate::random;
use crate::secret::SecretString;

/// The largest answer of an authorization server that is read.
const MOST: usize = 64 * 1024;

/// Calls to one endpoint of an authorization server, over one client.
pub(super) struct ServerCalls<'a> {
    instance: &'a Instance,
    /// Connections under the peer's trust.
    client: &'a Client,
    remote: Arc<Remote>,
    /// They are about tokens that may be given: their stages are points of crash tests.
    are_of_tokens: bool,
}

impl<'a> ServerCalls<'a> {
    /// Requests for tokens, at `endpoint`.
    pub(super) fn of_tokens(instance: &'a Instance, client: &'a Client, endpoint: &Url) -> Self {
        Self { are_of_tokens: true, ..Self::new(instance, client, endpoint) }
    }

    /// Other requests, at `endpoint`.
    pub(super) fn new(instance: &'a Instance, client: &'a Client, endpoint: &Url) -> Self {
        Self { instance, client, remote: instance.remotes.at(endpoint), are_of_tokens: false }
    }

    fn now(&self) -> Timestamp {
        self.instance.clock.now().wall
    }
}

impl Transport for ServerCalls<'_> {
    fn call(&self, request: http::Request<Vec<u8>>) -> BoxFuture<'_, Result<http::Response<Vec<u8>>, CallFailure>> {
        Box::pin(self.send(request))
    }

    fn time_there(&self) -> Timestamp {
        self.remote.time(self.now())
    }

    fn identifier(&self) -> String {
        URL_SAFE_NO_PAD.encode(random::bytes::<16>(self.instance.random.as_ref()))
    }

    fn nonce(&self) -> Option<String> {
        self.remote.nonce(Verifier::Server).map(|nonce| nonce.as_str().to_owned())
    }

    fn keep_nonce(&self, headers: &HeaderMap) {
        self.remote.keep_nonce(Verifier::Server, headers);
    }

    fn set_time_there(&self, time: Timestamp) -> bool {
        self.remote.set_time(time, self.now())
    }
}

impl ServerCalls<'_> {
    async fn send(&self, request: http::Request<Vec<u8>>) -> Result<http::Response<Vec<u8>>, CallFailure> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let request = request.map(|body| RequestBody::from(Bytes::from(body)));
        let whole = async {
            let sent = self.client.send(request);
            let response = if self.are_of_tokens { point::passed_while("request_sent", sent).await } else { sent.await };
            let response = response.map_err(|error| match error.is_harmless() {
                true => CallFailure::NotSent(error.to_string()),
                false => CallFailure::Inconclusive(error.to_string()),
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MOST).collect().await;
            let body = body.map_err(|error| CallFailure::Inconclusive(format!("the answer of {host} broke off: {error}")))?;
            if self.are_of_tokens {
                point::passed("answer_read");
            }
            Ok(http::Response::from_parts(head, body.to_bytes().to_vec()))
        };
        let deadline = self.instance.config().limits.token_timeout;
        tokio::time::timeout(deadline, whole).await.unwrap_or_else(|_| {
            let deadline = humantime::format_duration(deadline);
            Err(CallFailure::Inconclusive(format!("no answer of {host} within {deadline}")))
        })
    }
}

/// Why there is no metadata.
#[derive(Debug, thiserror::Error)]
pub enum NoMetadata {
    /// The server was not reached.
    #[error("{0}")]
    Unreachable(String),
    /// Its certificate is not believed.
    #[error("{0}")]
    Untrusted(Untrusted),
    /// It answered, but not with a document.
    #[error("{url} answered {status}, expected 200; is this a p2pid or another OAuth server with RFC 8414 metadata?")]
    Status {
        /// Where.
        url: Url,
        /// With what.
        status: http::StatusCode,
    },
    /// Its document is not believed.
    #[error("{url}: {problem}")]
    Bad {
        /// Where.
        url: Url,
        /// What is wrong with it.
        problem: MetadataProblem,
    },
}

/// A metadata document, and the peer's clock when it was given.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) metadata: Metadata,
    pub(super) date: Option<Timestamp>,
}

/// Fetches and judges the metadata of `issuer`; redirects are not followed.
pub(super) async fn metadata(instance: &Instance, http: &Client, issuer: &str) -> Result<Found, NoMetadata> {
    let deadline = instance.config().limits.token_timeout;
    let issuer_url = Url::parse(issuer).map_err(|error| NoMetadata::Unreachable(format!("{issuer}: {error}")))?;
    let url = metadata::location(&issuer_url);
    let request = http::Request::get(url.as_str()).header(ACCEPT, "application/json").body(Bytes::new());
    let request = request.map_err(|error| NoMetadata::Unreachable(format!("{url}: {error}")))?;
    let response = http.fetch(request, deadline, MOST).await.map_err(|error| match error {
        FetchError::Untrusted(untrusted) => NoMetadata::Untrusted(untrusted),
        FetchError::Full(what) | FetchError::NotSent(what) | FetchError::Inconclusive(what) => NoMetadata::Unreachable(what),
    })?;
    if response.status() != http::StatusCode::OK {
        return Err(NoMetadata::Status { url, status: response.status() });
    }
    let date = client::date(response.headers());
    match metadata::judge(issuer, response.body()) {
        Ok(metadata) => Ok(Found { metadata, date }),
        Err(problem) => Err(NoMetadata::Bad { url, problem }),
    }
}

/// What is wrong with the document of the protected resource `resource`. Servers that are no resource themselves have none, and what
/// cannot be fetched now is no reason to doubt them.
pub(super) async fn resource_problem(client: &Client, resource: &str, deadline: Duration) -> Option<MetadataProblem> {
    let url = metadata::resource_location(&Url::parse(resource).ok()?);
    let request = http::Request::get(url.as_str()).header(ACCEPT, "application/json").body(Bytes::new()).ok()?;
    let response = client.fetch(request, deadline, MOST).await.ok().filter(|response| response.status() == http::StatusCode::OK)?;
    metadata::judge_resource(resource, response.body()).err()
}

/// Asks a peer's introspection endpoint about one of its tokens (RFC 7662): whether it is active, or why nobody knows.
pub(super) async fn introspect(
    calls: &ServerCalls<'_>,
    us: &client::Client,
    endpoint: &Url,
    token: &SecretString,
    hint: &str,
) -> Result<bool, String> {
    let response = us.send(us.about_token(endpoint, token, hint), calls).await.map_err(|error| error.to_string())?;
    vouching::is_active(response.status(), response.body())
}

/// Asks a peer to revoke a token.
pub(super) async fn revoke(calls: &ServerCalls<'_>, revocation: &Revocation) -> Delivery {
    let Revocation { client: us, endpoint, token, hint, .. } = revocation;
    match us.send(us.about_token(endpoint, token, hint.as_str()), calls).await {
        Ok(response) => revocation::judge(response.status(), response.body()),
        Err(error) => Delivery::Waiting(error.to_string()),
    }
}
