//! `p2pid call`: one authenticated call to a peer, through the daemon's relay, as a check.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use super::client::path;
use super::context::Context;
use super::failure::Failure;
use crate::doors::admin::call::CALLED;
use crate::net::problem;

/// More than this of an answer is not put into a JSON document.
const LARGEST_DOCUMENT: usize = 16 << 20;

/// Call a peer once, as a check
#[derive(Debug, Args)]
pub(super) struct Call {
    /// Which peer
    peer: String,
    /// The path at the peer, with its query
    path: String,
    /// The method: GET, or POST with a body
    #[arg(short = 'X', long = "request", value_name = "M")]
    method: Option<Method>,
    /// A header, as in "Accept: text/plain"
    #[arg(short = 'H', long = "header", value_name = "h", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The body
    #[arg(short = 'd', long = "data", value_name = "BODY")]
    body: Option<String>,
}

/// Calls, prints the answer's body, and says how it went.
pub(super) async fn run(command: Call, context: &Context<'_>) -> Result<(), Failure> {
    let peer = command.peer.clone();
    let request = command.request(context)?;
    let began = Instant::now();
    let response = context.client()?.exchange(request).await?;
    let elapsed = began.elapsed();
    let (status, headers) = (response.status(), response.headers().clone());
    if !headers.contains_key(CALLED) {
        let body = whole(response).await?;
        return super::client::read_answer(status, &body).map(drop);
    }
    if let Some(code) = headers.get(problem::ERROR) {
        let body = whole(response).await?;
        return Err(refused(&peer, code, &headers, status, &body));
    }
    if context.report.is_json() {
        let body = whole(response).await?;
        answered(&peer, status)?;
        context.report.data(&document(status, elapsed, &headers, &body), String::new);
        return Ok(());
    }
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::new("no_answer", format!("the answer broke off: {error}")))?;
        if let Some(data) = frame.data_ref() {
            context.report.bytes(data);
        }
    }
    context.report.note(&format!("{} in {} ms", status.as_u16(), elapsed.as_millis()));
    answered(&peer, status)
}

impl Call {
    fn request(self, context: &Context<'_>) -> Result<Request<Full<Bytes>>, Failure> {
        let target = path(&["tenants", context.tenant(), "peers", &self.peer, "call"]);
        let uri = format!("{target}/{}", self.path.trim_start_matches('/'));
        let method = self.method.unwrap_or(if self.body.is_some() { Method::POST } else { Method::GET });
        let mut request = Request::builder().method(method).uri(uri).header(header::HOST, "p2pid");
        let names_type = self.headers.iter().any(|(name, _)| *name == header::CONTENT_TYPE);
        if let (Some(body), false) = (&self.body, names_type) {
            let is_json = serde_json::from_str::<serde::de::IgnoredAny>(body).is_ok();
            request = request.header(header::CONTENT_TYPE, if is_json { "application/json" } else { "text/plain; charset=utf-8" });
        }
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let body = Full::new(Bytes::from(self.body.unwrap_or_default()));
        request
            .body(body)
            .map_err(|error| Failure::usage(format!("{:?} is no path: {error}", self.path)).expected("a path and query, percent-encoded"))
    }
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, Failure> {
    let body = http_body_util::Limited::new(response.into_body(), LARGEST_DOCUMENT).collect().await;
    body.map(http_body_util::Collected::to_bytes)
        .map_err(|error| Failure::new("no_answer", format!("the answer broke off or is too large: {error}")))
}

/// A call that the relay or the peer's gateway refused.
fn refused(peer: &str, code: &HeaderValue, headers: &HeaderMap, status: StatusCode, body: &[u8]) -> Failure {
    let text = |value: Option<&HeaderValue>| value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or_default();
    let from = text(headers.get(problem::ERROR_FROM)).unwrap_or_else(|| "the relay".to_owned());
    let code = text(Some(code)).unwrap_or_default();
    let failure = Failure::new(&code, format!("{from} refused the call: {detail}")).found(status.to_string());
    match next_step(&code, peer) {
        Some(next) => failure.next(next),
        None => failure,
    }
}

/// The command that helps; there is none where the peer's operators have to act.
fn next_step(code: &str, peer: &str) -> Option<String> {
    Some(match code {
        "unknown_peer" => "p2pid peer list".to_owned(),
        "not_linked" | "relink_required" => format!("p2pid peer request {peer}; p2pid peer show {peer} says why"),
        "peer_maintenance" => format!("p2pid peer maintenance {peer} --until off"),
        "refresh_failed" => format!("p2pid peer show {peer}"),
        "peer_unreachable" | "peer_timeout" => format!("p2pid doctor {peer}"),
        _ => return None,
    })
}

/// Whether an answer of the application is a good one.
fn answered(peer: &str, status: StatusCode) -> Result<(), Failure> {
    if status.is_client_error() || status.is_server_error() {
        return Err(Failure::new(format!("http_{}", status.as_u16()), format!("the application behind {peer} answered {status}")));
    }
    Ok(())
}

fn document(status: StatusCode, elapsed: Duration, headers: &HeaderMap, body: &[u8]) -> Value {
    let mut members = Map::new();
    for name in headers.keys().filter(|name| **name != CALLED) {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        members.insert(name.to_string(), values.collect::<Vec<_>>().join(", ").into());
    }
    let mut document =
        json!({ "status": status.as_u16(), "elapsed_ms": u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX), "headers": members });
    match std::str::from_utf8(body) {
        Ok(text) => document["body"] = text.into(),
        Err(_) => document["body_base64"] = STANDARD.encode(body).into(),
    }
    document
}

fn header(given: &str) -> Result<(HeaderName, HeaderValue), String> {
    let split = given.split_once(':').and_then(|(name, value)| Some((name.trim().parse().ok()?, value.trim().parse().ok()?)));
    split.ok_or_else(|| "expected \"Name: value\"".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::report::Report;
    use super::super::select::Selection;
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        call: Call,
    }

    fn request(arguments: &[&str]) -> Result<Request<Full<Bytes>>, Failure> {
        let line = Line::try_parse_from([&["call"], arguments].concat()).map_err(|error| Failure::usage(error.to_string()))?;
        line.call.request(&Context::new(&Report::new(true), Selection::default(), None))
    }

    #[test]
    fn arguments_become_a_request() {
        let get = request(&["two", "/orders?x=1"]).expect("a call");
        assert_eq!((get.method(), get.uri().to_string().as_str()), (&Method::GET, "/v2/tenants/default/peers/two/call/orders?x=1"));
        let post = request(&["two", "orders", "-d", "{\"a\":1}", "-H", "X-A: b"]).expect("a call");
        assert_eq!(
            (post.method(), &post.headers()[header::CONTENT_TYPE], &post.headers()["x-a"]),
            (&Method::POST, &HeaderValue::from_static("application/json"), &HeaderValue::from_static("b"),)
        );
        let put = request(&["two", "/", "-X", "PUT", "-d", "text", "-H", "content-type: a/b"]).expect("a call");
        assert_eq!((put.method(), &put.headers()[header::CONTENT_TYPE]), (&Method::PUT, &HeaderValue::from_static("a/b")));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for arguments in [&["two"][..], &["two", "/a b"], &["two", "/", "-H", "nothing"], &["two", "/", "-X", "NO METHOD"]] {
            assert_eq!(request(arguments).expect_err("no call").exit, 2, "{arguments:?}");
        }
    }

    #[test]
    fn a_refusal_says_whose_it_is() {
        let headers = [(problem::ERROR_FROM, HeaderValue::from_static("one"))].into_iter().collect();
        let (code, body) = (HeaderValue::from_static("not_linked"), br#"{"detail":"no token"}"#);
        let failure = refused("two", &code, &headers, StatusCode::SERVICE_UNAVAILABLE, body);
        assert_eq!((failure.code.as_str(), failure.message.as_str()), ("not_linked", "one refused the call: no token"));
        assert_eq!(failure.next.as_deref(), Some("p2pid peer request two; p2pid peer show two says why"));
    }

    #[test]
    fn a_document_holds_any_body() {
        assert_eq!(document(StatusCode::OK, Duration::from_millis(38), &HeaderMap::new(), b"hi")["body"], "hi");
        assert_eq!(document(StatusCode::OK, Duration::ZERO, &HeaderMap::new(), b"\xff")["body_base64"], "/w==");
        let headers = [(CALLED, HeaderValue::from_static("1"))].into_iter().collect();
        assert_eq!(document(StatusCode::OK, Duration::ZERO, &headers, b"")["headers"], json!({}), "what the daemon tells us is ours");
    }
}
