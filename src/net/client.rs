//! The HTTP client: whole small answers from token and metadata endpoints, and streams for relay and gateway.
//!
//! Every error says whether the other side can have acted on the request: that decides what may be tried again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, Uri};
use http_body_util::BodyExt;

use super::body::{RequestBody, ResponseBody};
use super::causes;
use super::certificate::Certificate;
use super::connect::{Connector, Origin};
use super::outgoing::Share;
use super::pool::{Ages, Pool, Unanswered};
use super::trust::{Trust, Untrusted};
use crate::config::Limits;

/// An HTTP client with its own pool of connections, all made under one [`Trust`]. Cheap to clone.
///
/// It speaks HTTP/1.1 and, where TLS agrees on it, HTTP/2; it follows no redirect, asks for no compression, adds no header but `Host`.
#[derive(Clone)]
pub struct Client {
    pool: Arc<Pool>,
}

impl Client {
    /// A client for URLs that operators gave, whose connections are of that share.
    pub fn new(trust: &Trust, limits: &Limits, share: Share) -> Self {
        Self::make(trust, limits, false, Ages::default(), share)
    }

    /// A client for URLs learnt from others: private, loopback and reserved addresses are not called.
    pub fn guarded(trust: &Trust, limits: &Limits, share: Share) -> Self {
        Self::make(trust, limits, true, Ages::default(), share)
    }

    /// A client whose connections age faster.
    #[cfg(test)]
    pub(super) fn ageing(trust: &Trust, limits: &Limits, ages: Ages, share: Share) -> Self {
        Self::make(trust, limits, false, ages, share)
    }

    fn make(trust: &Trust, limits: &Limits, guarded: bool, ages: Ages, share: Share) -> Self {
        let connector = Connector::new(trust, limits.connect_timeout, guarded);
        Self { pool: Pool::new(connector, limits, ages, share) }
    }

    /// Sends a request and reads the head of its answer; bodies stream both ways. The URI is absolute.
    ///
    /// There is no deadline but that for connecting: calls may be slow, and only the caller knows how slow.
    /// A request of which nothing could be sent over a kept connection goes once over a fresh one.
    pub async fn send(&self, request: Request<RequestBody>) -> Result<Response<ResponseBody>, SendError> {
        self.exchange(request, &AtomicBool::new(false)).await
    }

    /// Sends a request that asks for an upgrade (RFC 9110 §7.8), over an HTTP/1.1 connection of its own.
    /// After a 101 `hyper::upgrade::on` gives the connection.
    pub async fn send_upgrade(&self, request: Request<RequestBody>) -> Result<Response<ResponseBody>, SendError> {
        let host = self.pool.host(request.uri())?;
        match self.pool.apart(&host).await?.send(request).await {
            Ok(response) => Ok(response.map(|body| ResponseBody::new(body, None))),
            Err(Unanswered::Unsent(_, error) | Unanswered::Sent(error)) => Err(error),
        }
    }

    /// Sends a request and reads its whole answer of at most `most` bytes, within `deadline` altogether.
    pub async fn fetch(&self, request: Request<Bytes>, deadline: Duration, most: usize) -> Result<Response<Bytes>, FetchError> {
        let origin = origin_text(request.uri());
        let may_have_left = AtomicBool::new(false);
        let outcome = tokio::time::timeout(deadline, async {
            let response = self.exchange(request.map(RequestBody::from), &may_have_left).await?;
            let (head, body) = response.into_parts();
            Ok(Response::from_parts(head, collect(body, most, &origin).await?))
        });
        outcome.await.unwrap_or_else(|_| {
            let why = format!("{origin}: no answer within {}", humantime::format_duration(deadline));
            Err(if may_have_left.load(Ordering::Relaxed) { FetchError::Inconclusive(why) } else { FetchError::NotSent(why) })
        })
    }

    /// What the certificate of `url`'s host says, when it is trusted; `None` without TLS. Makes a connection of its own.
    pub async fn certificate(&self, url: &Uri) -> Result<Option<Certificate>, SendError> {
        let origin = Origin::of(url).ok_or_else(|| SendError::BadUrl(format!("found {url}, expected http:// or https:// and a host")))?;
        let certificate = self.pool.certificate(&origin).await?;
        Ok(certificate.and_then(|der| Certificate::read(&der)))
    }

    /// `may_have_left` is set while the request may be on its way.
    async fn exchange(&self, mut request: Request<RequestBody>, may_have_left: &AtomicBool) -> Result<Response<ResponseBody>, SendError> {
        let host = self.pool.host(request.uri())?;
        let mut lease = self.pool.lease(&host).await?;
        loop {
            may_have_left.store(true, Ordering::Relaxed);
            match lease.send(request).await {
                Ok(response) => return Ok(response.map(|body| ResponseBody::new(body, Some(lease)))),
                Err(Unanswered::Sent(error)) => return Err(error),
                Err(Unanswered::Unsent(_, error)) if !lease.reused => return Err(error),
                Err(Unanswered::Unsent(unsent, _)) => {
                    may_have_left.store(false, Ordering::Relaxed);
                    request = *unsent;
                    lease = Box::pin(self.pool.fresh(&host)).await?;
                }
            }
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

async fn collect(mut body: ResponseBody, most: usize, origin: &str) -> Result<Bytes, FetchError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| FetchError::Inconclusive(format!("{origin}: the answer broke off: {}", causes::told(&error))))?;
        if let Ok(data) = frame.into_data() {
            if whole.len() + data.len() > most {
                return Err(FetchError::Inconclusive(format!("{origin}: found an answer of more than {most} bytes")));
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}

/// Scheme, host and port; paths and queries stay out of errors, for they may hold secrets.
fn origin_text(uri: &Uri) -> String {
    Origin::of(uri).map_or_else(|| "the URL".to_owned(), |origin| origin.to_string())
}

/// Why a request got no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendError {
    /// The URL names no host that can be called.
    #[error("{0}")]
    BadUrl(String),
    /// No connection: name, network, TLS; or it was closed before anything was sent.
    #[error("{0}")]
    Unreachable(String),
    /// As many connections go out as may; none was made.
    #[error("{0}")]
    Full(String),
    /// No connection within the time allowed.
    #[error("{0}")]
    ConnectTimeout(String),
    /// The other's certificate is not believed.
    #[error("{0}")]
    Untrusted(Untrusted),
    /// An address that may not be called on somebody else's word.
    #[error("{0}")]
    Forbidden(String),
    /// Sent, and the other side said that it has not looked at it (RFC 9113 §8.7).
    #[error("{0}")]
    NotProcessed(String),
    /// The connection ended after some of the request may have arrived.
    #[error("{0}")]
    Broken(String),
}

impl SendError {
    /// Whether the other side certainly has not acted on the request.
    pub fn is_harmless(&self) -> bool {
        match self {
            Self::BadUrl(_)
            | Self::Unreachable(_)
            | Self::Full(_)
            | Self::ConnectTimeout(_)
            | Self::Untrusted(_)
            | Self::Forbidden(_)
            | Self::NotProcessed(_) => true,
            Self::Broken(_) => false,
        }
    }
}

/// Why there is no whole answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// As many connections go out as may; none was made.
    #[error("{0}")]
    Full(String),
    /// Nothing can have left this host, or the other side has certainly not looked at it.
    #[error("{0}")]
    NotSent(String),
    /// Nothing of the request was sent, because the other's certificate is not believed.
    #[error("{0}")]
    Untrusted(Untrusted),
    /// The other side may or may not have acted on it.
    #[error("{0}")]
    Inconclusive(String),
}

impl From<SendError> for FetchError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Untrusted(untrusted) => Self::Untrusted(untrusted),
            SendError::Full(why) => Self::Full(why),
            error if error.is_harmless() => Self::NotSent(error.to_string()),
            error => Self::Inconclusive(error.to_string()),
        }
    }
}
