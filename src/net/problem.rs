//! What gateway and relay answer themselves: problem documents (RFC 9457) with headers that say whose error it is and which.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde::Serialize;

/// Which error: a [`Code`]'s name. Applications behind the gateway cannot send it.
pub const ERROR: HeaderName = HeaderName::from_static("p2pi-error");
/// Whose error: the name of the instance that answered.
pub const ERROR_FROM: HeaderName = HeaderName::from_static("p2pi-error-from");
/// The name of a request in the logs of both sides.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("p2pi-request-id");

/// The errors of gateway and relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// No peer of that name.
    UnknownPeer,
    /// No caller key, or one that is not ours.
    CallerUnknown,
    /// The caller may not reach this peer.
    CallerDenied,
    /// The peer has no token yet.
    NotLinked,
    /// The peer's token is gone for good: a new request URL is needed.
    RelinkRequired,
    /// An operator has suspended the peer.
    PeerMaintenance,
    /// Nothing is served at that path.
    NoRoute,
    /// The application behind the gateway takes no connection.
    UpstreamUnreachable,
    /// The application behind the gateway is silent.
    UpstreamTimeout,
    /// A call without a token.
    NoToken,
    /// A token that does not hold, or not any more.
    InvalidToken,
    /// The proof beside a token that is bound to a key needs the nonce of the answer; the call was not made.
    UseDpopNonce,
    /// A path that could be read in two ways.
    BadPath,
    /// A request that breaks HTTP's rules.
    BadRequest,
    /// The call was not made; the same call again will be.
    RetryCall,
    /// The peer takes no connection.
    PeerUnreachable,
    /// The peer is silent.
    PeerTimeout,
    /// The token has run out and cannot be renewed at the moment.
    RefreshFailed,
    /// A limit of ours is reached.
    Overloaded,
    /// Headers beyond the limit.
    HeaderTooLarge,
    /// A body beyond the limit.
    BodyTooLarge,
    /// The path does not take this method.
    MethodNotAllowed,
    /// A fault of ours.
    Internal,
    /// A token that lacks a scope of the route.
    InsufficientScope,
    /// Too many failed attempts.
    RateLimited,
    /// A web page of somebody else's tries to use the relay.
    BrowserRefused,
}

impl Code {
    /// Every code once.
    pub const ALL: [Self; 26] = [
        Self::UnknownPeer,
        Self::CallerUnknown,
        Self::CallerDenied,
        Self::NotLinked,
        Self::RelinkRequired,
        Self::PeerMaintenance,
        Self::NoRoute,
        Self::UpstreamUnreachable,
        Self::UpstreamTimeout,
        Self::NoToken,
        Self::InvalidToken,
        Self::UseDpopNonce,
        Self::BadPath,
        Self::BadRequest,
        Self::RetryCall,
        Self::PeerUnreachable,
        Self::PeerTimeout,
        Self::RefreshFailed,
        Self::Overloaded,
        Self::HeaderTooLarge,
        Self::BodyTooLarge,
        Self::MethodNotAllowed,
        Self::Internal,
        Self::InsufficientScope,
        Self::RateLimited,
        Self::BrowserRefused,
    ];

    /// The name in `P2PI-Error`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownPeer => "unknown_peer",
            Self::CallerUnknown | Self::CallerDenied => "caller_denied",
            Self::NotLinked => "not_linked",
            Self::RelinkRequired => "relink_required",
            Self::PeerMaintenance => "peer_maintenance",
            Self::NoRoute => "no_route",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::NoToken => "no_token",
            Self::InvalidToken => "invalid_token",
            Self::UseDpopNonce => "use_dpop_nonce",
            Self::BadPath => "bad_path",
            Self::BadRequest => "bad_request",
            Self::RetryCall => "retry_call",
            Self::PeerUnreachable => "peer_unreachable",
            Self::PeerTimeout => "peer_timeout",
            Self::RefreshFailed => "refresh_failed",
            Self::Overloaded => "overloaded",
            Self::HeaderTooLarge => "header_too_large",
            Self::BodyTooLarge => "body_too_large",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Internal => "internal",
            Self::InsufficientScope => "insufficient_scope",
            Self::RateLimited => "rate_limited",
            Self::BrowserRefused => "browser_refused",
        }
    }

    /// The status that it is answered with.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadPath | Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::CallerUnknown | Self::NoToken | Self::InvalidToken | Self::UseDpopNonce => StatusCode::UNAUTHORIZED,
            Self::CallerDenied | Self::InsufficientScope | Self::BrowserRefused => StatusCode::FORBIDDEN,
            Self::UnknownPeer | Self::NoRoute => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::PeerUnreachable | Self::UpstreamUnreachable => StatusCode::BAD_GATEWAY,
            Self::NotLinked | Self::RelinkRequired | Self::PeerMaintenance | Self::RefreshFailed | Self::Overloaded | Self::RetryCall => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::PeerTimeout | Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// When to try again if nobody knows better; `None` where trying again is of no use by itself.
    const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::RetryCall => Some(Duration::ZERO),
            Self::Overloaded => Some(Duration::from_secs(1)),
            Self::RefreshFailed => Some(Duration::from_secs(5)),
            Self::PeerMaintenance | Self::RateLimited => Some(Duration::from_secs(60)),
            _ => None,
        }
    }
}

/// A wait as `Retry-After` and people are told it: in whole seconds, rounded up, for who comes back at the second said shall not be too early.
pub fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// Marks an answer that has another form than [`Problem`] (a page, RFC 6749's, JSON:API's) as [`Code::RateLimited`], over in `wait`.
pub fn mark_rate_limited(headers: &mut HeaderMap, wait: Duration) {
    headers.insert(ERROR, HeaderValue::from_static(Code::RateLimited.name()));
    headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
}

/// One error of gateway or relay, about to be answered.
#[derive(Clone, Debug)]
pub struct Problem<'a> {
    /// Which.
    pub code: Code,
    /// For people: what was found, what was expected, what to do. Never a secret.
    pub detail: &'a str,
    /// This instance's name.
    pub instance: &'a str,
    /// The request's name in the log.
    pub request_id: &'a str,
    /// When to try again, where that is known; otherwise the code's own default.
    pub retry_after: Option<Duration>,
}

impl Problem<'_> {
    /// The answer: `application/problem+json`, never stored by caches.
    pub fn response(&self) -> Response<Bytes> {
        let status = self.code.status();
        let document = Document {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code: self.code.name(),
            detail: self.detail,
            from: self.instance,
            request_id: self.request_id,
        };
        let body = serde_json::to_vec(&document).expect("texts and a number are always JSON");
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(ERROR, HeaderValue::from_static(self.code.name()));
        for (name, text) in [(ERROR_FROM, self.instance), (REQUEST_ID, self.request_id)] {
            // A name that no header can carry is still in the document.
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        }
        if let Some(wait) = self.retry_after.or_else(|| self.code.retry_after()) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        response
    }
}

/// RFC 9457 §3.1, with `code`, `from` and `request_id` as extensions.
#[derive(Serialize)]
struct Document<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
    from: &'a str,
    request_id: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(code: Code, retry_after: Option<Duration>) -> Response<Bytes> {
        Problem { code, detail: "say \"why\"", instance: "instance1", request_id: "r1", retry_after }.response()
    }

    #[test]
    fn the_table_of_codes_and_statuses() {
        let expected = [
            ("unknown_peer", 404),
            ("caller_denied", 401),
            ("caller_denied", 403),
            ("not_linked", 503),
            ("relink_required", 503),
            ("peer_maintenance", 503),
            ("no_route", 404),
            ("upstream_unreachable", 502),
            ("upstream_timeout", 504),
            ("no_token", 401),
            ("invalid_token", 401),
            ("use_dpop_nonce", 401),
            ("bad_path", 400),
            ("bad_request", 400),
            ("retry_call", 503),
            ("peer_unreachable", 502),
            ("peer_timeout", 504),
            ("refresh_failed", 503),
            ("overloaded", 503),
            ("header_too_large", 431),
            ("body_too_large", 413),
            ("method_not_allowed", 405),
            ("internal", 500),
            ("insufficient_scope", 403),
            ("rate_limited", 429),
            ("browser_refused", 403),
        ];
        assert_eq!(Code::ALL.map(|code| (code.name(), code.status().as_u16())), expected);
    }

    #[test]
    fn answers_name_the_error_its_origin_and_the_request() {
        let response = problem(Code::InvalidToken, None);
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[ERROR], "invalid_token");
        assert_eq!(response.headers()[ERROR_FROM], "instance1");
        assert_eq!(response.headers()[REQUEST_ID], "r1");
        let document: serde_json::Value = serde_json::from_slice(response.body()).expect("JSON");
        assert_eq!(document["detail"], "say \"why\"");
        assert_eq!(document["status"], 401);
    }

    #[test]
    fn retry_after_is_said_where_trying_again_helps_and_rounded_up() {
        assert_eq!(problem(Code::RetryCall, None).headers()[header::RETRY_AFTER], "0");
        assert_eq!(problem(Code::RefreshFailed, Some(Duration::from_millis(1_001))).headers()[header::RETRY_AFTER], "2");
        assert!(!problem(Code::NotLinked, None).headers().contains_key(header::RETRY_AFTER));
        for code in [Code::PeerMaintenance, Code::RefreshFailed, Code::Overloaded, Code::RateLimited] {
            assert!(problem(code, None).headers().contains_key(header::RETRY_AFTER), "{code:?}");
        }
    }
}
