//! Calls to a peer's authorization server, over the net's client.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_TYPE};
use http_body_util::{BodyExt, Limited};
use url::Url;

use crate::clock::Timestamp;
use crate::net::body::RequestBody;
use crate::net::client::{Client, FetchError};
use crate::net::trust::Untrusted;
use crate::observe::point;
use crate::outbound::exchange::{self, CallFailure, Transport};
use crate::outbound::metadata::{self, Metadata, MetadataProblem};
use crate::outbound::revocation::{self, Delivery, Revocation};
use crate::secret::SecretString;

/// The largest answer of an authorization server that is read.
const MOST: usize = 64 * 1024;

/// Token calls over one client.
pub(super) struct TokenCalls<'a> {
    /// Connections under the peer's trust.
    pub(super) client: &'a Client,
    /// For the whole answer.
    pub(super) deadline: Duration,
}

impl Transport for TokenCalls<'_> {
    fn call(&self, request: http::Request<Vec<u8>>) -> BoxFuture<'_, Result<http::Response<Vec<u8>>, CallFailure>> {
        Box::pin(self.send(request))
    }
}

impl TokenCalls<'_> {
    async fn send(&self, request: http::Request<Vec<u8>>) -> Result<http::Response<Vec<u8>>, CallFailure> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let request = request.map(|body| RequestBody::from(Bytes::from(body)));
        let whole = async {
            let response = point::passed_while("request_sent", self.client.send(request)).await;
            let response = response.map_err(|error| match error.is_harmless() {
                true => CallFailure::NotSent(error.to_string()),
                false => CallFailure::Inconclusive(error.to_string()),
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MOST).collect().await;
            let body = body.map_err(|error| CallFailure::Inconclusive(format!("the answer of {host} broke off: {error}")))?;
            point::passed("answer_read");
            Ok(http::Response::from_parts(head, body.to_bytes().to_vec()))
        };
        tokio::time::timeout(self.deadline, whole).await.unwrap_or_else(|_| {
            let deadline = humantime::format_duration(self.deadline);
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
pub(super) async fn metadata(client: &Client, issuer: &str, deadline: Duration) -> Result<Found, NoMetadata> {
    let issuer_url = Url::parse(issuer).map_err(|error| NoMetadata::Unreachable(format!("{issuer}: {error}")))?;
    let url = metadata::location(&issuer_url);
    let request = http::Request::get(url.as_str()).header(ACCEPT, "application/json").body(Bytes::new());
    let request = request.map_err(|error| NoMetadata::Unreachable(format!("{url}: {error}")))?;
    let response = client.fetch(request, deadline, MOST).await.map_err(|error| match error {
        FetchError::Untrusted(untrusted) => NoMetadata::Untrusted(untrusted),
        FetchError::NotSent(what) | FetchError::Inconclusive(what) => NoMetadata::Unreachable(what),
    })?;
    if response.status() != http::StatusCode::OK {
        return Err(NoMetadata::Status { url, status: response.status() });
    }
    let date = exchange::date(response.headers());
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
    client: &Client,
    us: &exchange::Client,
    endpoint: &Url,
    token: &SecretString,
    hint: &str,
    deadline: Duration,
) -> Result<bool, String> {
    let response =
        client.fetch(us.about_token(endpoint, token, hint).map(Bytes::from), deadline, MOST).await.map_err(|error| error.to_string())?;
    let is_json = response.headers().get(CONTENT_TYPE).is_some();
    let document: Option<serde_json::Value> = serde_json::from_slice(response.body()).ok();
    match document.as_ref().and_then(|document| document.get("active")).and_then(serde_json::Value::as_bool) {
        Some(active) if response.status() == http::StatusCode::OK && is_json => Ok(active),
        _ => Err(format!("the introspection endpoint answered {}", response.status())),
    }
}

/// Asks a peer to revoke a token.
pub(super) async fn revoke(client: &Client, revocation: &Revocation, deadline: Duration) -> Delivery {
    let request = revocation.client.about_token(&revocation.endpoint, &revocation.token, revocation.hint.as_str()).map(Bytes::from);
    match client.fetch(request, deadline, MOST).await {
        Ok(response) => revocation::judge(response.status(), response.body()),
        Err(error) => Delivery::Waiting(error.to_string()),
    }
}
