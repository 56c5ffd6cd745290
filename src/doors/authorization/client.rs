//! What the endpoints for clients share: the form with its client authentication, the answers, and what the log and the audit hear.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use tracing::field::display;

use crate::clock::Moment;
use crate::doors::browser::address;
use crate::doors::form::{self, NoForm};
use crate::id::Id;
use crate::inbound::event::Event;
use crate::instance::Instance;
use crate::instance::throttle::{Attempt, Trial};
use crate::net::connection::Connection;
use crate::net::problem;
use crate::oauth::client_auth::{self, Presented};
use crate::oauth::error::{Code, WireError};
use crate::oauth::parameters::Parameters;
use crate::observe::log::AUDIT;
use crate::store::StoreError;

/// The longest that a request which opens and moves no window may take to arrive.
pub(super) const LONGEST: Duration = Duration::from_secs(10);

const REQUEST_ID: HeaderName = HeaderName::from_static("p2pi-request-id");

/// A client's request at one of our endpoints.
#[derive(Debug)]
pub(super) struct ClientRequest {
    instance: Arc<Instance>,
    /// Its attempt to be the client that it claims to be, until it is over.
    trial: Option<Trial>,
    /// Names it in the log and in the answer.
    pub(super) id: Id,
    /// When its first byte arrived.
    pub(super) arrived: Moment,
    /// From where, as far as it is known.
    pub(super) from: Option<IpAddr>,
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
    /// The client is not known by the credentials that it presents.
    #[error("the client is not known by these credentials")]
    UnknownClient,
    /// It failed too often of late from this address.
    #[error("too many failed attempts to authenticate")]
    TooManyFailures(Duration),
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
            Self::UnknownClient => WireError::new(Code::InvalidClient, self.to_string()),
            Self::TooManyFailures(_) => WireError::new(Code::TemporarilyUnavailable, self.to_string()),
            Self::Store(_) | Self::TooSlow => WireError::new(Code::ServerError, "not judged; try again"),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NoForm(error) => error.status(),
            Self::Store(StoreError::Fault(_) | StoreError::Panicked) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Query | Self::Refused(_) | Self::UnknownClient | Self::TooManyFailures(_) | Self::Store(_) | Self::TooSlow => {
                self.wire().code.status()
            }
        }
    }
}

impl ClientRequest {
    /// Reads a request: its form, and the client that it claims to come from. It must be there within `longest` of its first byte.
    pub(super) async fn read(
        instance: &Arc<Instance>,
        request: Request,
        longest: Duration,
    ) -> (Self, Result<(Parameters, Presented), ClientError>) {
        let (now, under_way) = (instance.clock.now(), since_first_byte(&request));
        let arrived = now.minus(under_way);
        let id = Id::new(now.wall, instance.random.as_ref());
        let config = instance.config();
        let (parts, body) = request.into_parts();
        let mut this = Self { instance: Arc::clone(instance), trial: None, id, arrived, from: address(&parts, &config) };
        let has_query = parts.uri.query().is_some_and(|query| !query.is_empty());
        let read = async {
            let (parts, form) = form::read(Request::from_parts(parts, body), config.limits.form_bytes).await?;
            if has_query {
                return Err(ClientError::Query);
            }
            let presented = client_auth::presented(&parts.headers, &form)?;
            let attempts = presented.readings.iter().map(|reading| Attempt::new("client", &reading.client_id, this.from));
            let trial = instance.failures.begin(attempts, config.limits.auth_failures, instance.clock.as_ref()).await;
            this.trial = Some(trial.map_err(ClientError::TooManyFailures)?);
            Ok((form, presented))
        };
        let read = tokio::time::timeout(longest.saturating_sub(under_way), read).await.unwrap_or(Err(ClientError::TooSlow));
        (this, read)
    }

    /// A 200 with a document that nobody keeps.
    pub(super) fn answer(&self, json: String) -> Response {
        self.finish((StatusCode::OK, json).into_response())
    }

    /// An error as RFC 6749 §5.2 writes it. The wire says no more than the RFC; the log says why, under the id that the answer names.
    pub(super) fn refuse(mut self, error: &ClientError) -> Response {
        let wire = error.wire();
        let (request_id, address, reason) = (self.id, self.from.map(display), error.to_string());
        if let (ClientError::UnknownClient, Some(trial)) = (error, self.trial.take()) {
            trial.failed(self.instance.config().limits.auth_failures, self.instance.clock.as_ref());
        }
        match error {
            ClientError::Store(_) => tracing::warn!(%request_id, address, reason, "a client's request was not judged"),
            _ => tracing::info!(%request_id, address, code = wire.code.as_str(), reason, "a client's request was refused"),
        }
        let mut response = self.finish((error.status(), wire.to_json()).into_response());
        if response.status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"oauth\", charset=\"UTF-8\""));
        }
        if let ClientError::TooManyFailures(wait) = error {
            problem::mark_rate_limited(response.headers_mut(), *wait);
        } else if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(1));
        }
        response
    }

    /// Tells the audit of what was judged.
    pub(super) fn tell(&self, event: &Event, client_id: &str, grant: Option<Id>) {
        let (request_id, address, grant, name, reason) =
            (self.id, self.from.map(display), grant.map(display), event.name(), event.reason());
        if event.is_alert() {
            tracing::warn!(target: AUDIT, event = name, client_id, grant, address, %request_id, reason, "needs a look");
        } else {
            tracing::info!(target: AUDIT, event = name, client_id, grant, address, %request_id, reason);
        }
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
