//! What gateway and relay share: how they refuse a call, name it, and tell of it.

use std::borrow::Cow;
use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, Uri, Version};
use tower_service::Service;

use crate::net::body::IncomingBody;
use crate::net::headers;
use crate::net::path::BadPath;
use crate::net::problem::{Code, Problem};
use crate::observe::calls::Series;

/// What a 405 says where a route names no methods of its own: all that are forwarded.
pub(super) const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// Why a call is answered here.
#[derive(Debug)]
pub(super) struct Refusal {
    code: Code,
    detail: Cow<'static, str>,
    headers: Vec<(HeaderName, HeaderValue)>,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// `detail` is for people: what was found, what was expected, what to do next.
    pub(super) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), headers: Vec::new(), retry_after: None }
    }

    /// With a header that belongs to it: a challenge, the methods that are allowed.
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// With the time to wait before trying again.
    pub(super) fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// What is wrong, for people.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The answer.
    fn into_response(self, instance: &str, request_id: &HeaderValue) -> Response<Body> {
        let request_id = request_id.to_str().unwrap_or_default();
        let problem = Problem { code: self.code, detail: &self.detail, instance, request_id, retry_after: self.retry_after };
        let mut response = problem.response().map(Body::from);
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<BadPath> for Refusal {
    fn from(bad: BadPath) -> Self {
        Self::new(Code::BadPath, bad.to_string())
    }
}

/// 405 for a method that is never forwarded.
pub(super) fn never_forwarded(allow: HeaderValue) -> Refusal {
    Refusal::new(Code::MethodNotAllowed, "TRACE, and CONNECT to anything but a WebSocket, are not forwarded").with(header::ALLOW, allow)
}

/// Refuses what whoever reads the request later could understand in another way: its host, and where its body ends.
pub(super) fn check_head<B>(request: &Request<B>) -> Result<(), Refusal> {
    check_host(request)?;
    check_codings(request.headers())
}

/// An HTTP/1.1 request names its host exactly once (RFC 9112 §3.2). Where a request has an authority, as in HTTP/2, `Host` must be the
/// same (RFC 9113 §8.3.1), and neither has a user name.
fn check_host<B>(request: &Request<B>) -> Result<(), Refusal> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let is_fine = match request.version() {
        Version::HTTP_11 => hosts.next().is_some() && hosts.next().is_none(),
        _ => hosts.next().is_none() || hosts.next().is_none(),
    };
    if !is_fine {
        return Err(Refusal::new(Code::BadRequest, "an HTTP/1.1 request has exactly one Host header"));
    }
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let host = request.headers().get(header::HOST).map(HeaderValue::as_bytes);
    if [authority, host].into_iter().flatten().any(|name| name.contains(&b'@')) {
        return Err(Refusal::new(Code::BadRequest, "the request's host has a user name; send host and port alone"));
    }
    match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            Err(Refusal::new(Code::BadRequest, "the request's :authority and its Host header differ; send one of them"))
        }
        _ => Ok(()),
    }
}

fn check_codings(headers: &HeaderMap) -> Result<(), Refusal> {
    match headers::is_framed_plainly(headers) {
        true => Ok(()),
        false => Err(Refusal::new(Code::BadRequest, "the only transfer coding that is taken is chunked, once")),
    }
}

/// The length that a request announces for its body.
pub(super) fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Refuses a body that announces itself as too long, before any of it is read.
pub(super) fn check_length(headers: &HeaderMap, most: u64) -> Result<(), Refusal> {
    match announced_length(headers) {
        Some(length) if length > most => Err(body_too_large(most)),
        _ => Ok(()),
    }
}

/// 413.
pub(super) fn body_too_large(most: u64) -> Refusal {
    Refusal::new(Code::BodyTooLarge, format!("the body is longer than limits.body_bytes, {most} bytes"))
}

/// One call, as it is told of when it is answered.
pub(super) struct Told<'a> {
    /// Where it is counted.
    pub(super) series: &'a Series,
    request_id: HeaderValue,
    method: Method,
    uri: Uri,
    began: Instant,
}

impl<'a> Told<'a> {
    pub(super) fn new<B>(request: &Request<B>, request_id: HeaderValue, series: &'a Series) -> Self {
        Self { series, request_id, method: request.method().clone(), uri: request.uri().clone(), began: Instant::now() }
    }

    pub(super) fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    /// The answer. What we refused is in the log, for its request id is in the answer; what went through is there for who debugs. A query
    /// never is.
    pub(super) fn settle(self, outcome: Result<Response<Body>, Refusal>, instance: &str) -> Response<Body> {
        let Self { series, request_id, method, uri, began } = self;
        let elapsed = began.elapsed();
        let elapsed_ms = elapsed.as_millis();
        let response = match outcome {
            Ok(response) => {
                // Where nobody debugs, none of this is looked at.
                tracing::debug!(request_id = request_id.to_str().unwrap_or_default(), %method, path = uri.path(), status = response.status().as_u16(), elapsed_ms, "forwarded");
                response
            }
            Err(refusal) => {
                let (code, reason) = (refusal.code.name(), refusal.detail.as_ref());
                let id = request_id.to_str().unwrap_or_default();
                tracing::info!(request_id = id, %method, path = uri.path(), code, reason, elapsed_ms, "not forwarded");
                refusal.into_response(instance, &request_id)
            }
        };
        series.count(response.status(), elapsed);
        response
    }
}

/// A function as a service. Its futures are its own: nothing is boxed per request.
#[derive(Clone, Debug)]
pub(super) struct Handler<F>(pub(super) F);

impl<F, A> Service<Request<IncomingBody>> for Handler<F>
where
    F: Fn(Request<IncomingBody>) -> A,
    A: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = A;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<IncomingBody>) -> A {
        (self.0)(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g5_a_request_names_its_host_once() {
        let request = |version, hosts: &[&'static str]| {
            let mut request = Request::new(());
            *request.version_mut() = version;
            for host in hosts {
                request.headers_mut().append(header::HOST, HeaderValue::from_static(host));
            }
            check_host(&request).is_ok()
        };
        assert!(request(Version::HTTP_11, &["a"]));
        assert!(!request(Version::HTTP_11, &[]));
        assert!(!request(Version::HTTP_11, &["a", "a"]));
        assert!(request(Version::HTTP_10, &[]));
        assert!(request(Version::HTTP_2, &[]));
        assert!(!request(Version::HTTP_2, &["a", "b"]));
    }

    #[test]
    fn g5_a_request_has_one_host_in_all_its_places_and_no_user_name() {
        let request = |authority: &str, host: Option<&'static str>| {
            let mut request = Request::new(());
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = format!("https://{authority}/p2pi").parse().expect("a URI");
            request.headers_mut().extend(host.map(|host| (header::HOST, HeaderValue::from_static(host))));
            check_host(&request).is_ok()
        };
        assert!(request("two.example:7443", None));
        assert!(request("two.example:7443", Some("Two.Example:7443")));
        for (authority, host) in [
            ("two.example", Some("other.example")),
            ("two.example:7443", Some("two.example")),
            ("two.example", Some("")),
            ("user@two.example", None),
            ("user:password@two.example", None),
            ("user@two.example", Some("user@two.example")),
        ] {
            assert!(!request(authority, host), "{authority} {host:?}");
        }
    }

    #[test]
    fn g5_no_transfer_coding_but_chunked_is_taken() {
        let takes = |codings: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for coding in codings {
                headers.append(header::TRANSFER_ENCODING, HeaderValue::from_static(coding));
            }
            check_codings(&headers).is_ok()
        };
        assert!(takes(&[]) && takes(&["chunked"]) && takes(&["Chunked"]));
        for refused in [&["gzip, chunked"][..], &["gzip", "chunked"], &["chunked", "chunked"], &["chunked, chunked"], &["identity"], &[""]]
        {
            assert!(!takes(refused), "{refused:?}");
        }
    }
}
