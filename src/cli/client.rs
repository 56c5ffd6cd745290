//! The admin API's client: HTTP over the daemon's Unix socket.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::failure::Failure;

/// Lists of many thousand records fit, also where they do not come page by page.
const LARGEST_ANSWER: usize = 256 << 20;
/// The daemon answers at once but for peers that it asks itself, and those have deadlines of their own.
const DEADLINE: Duration = Duration::from_secs(120);

/// Talks to one daemon.
#[derive(Clone, Debug)]
pub(super) struct Client {
    socket: PathBuf,
}

impl Client {
    /// For the daemon behind `socket`.
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// `data` of the answer to a request without a body.
    ///
    /// # Errors
    /// What the daemon refuses, and what keeps us from asking it.
    pub(super) async fn fetch(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::GET, path, None).await.map(|answer| answer.data)
    }

    /// The records of a list, or of its first page, and the path of the next one where there is more.
    ///
    /// # Errors
    /// As [`Client::fetch`].
    pub(super) async fn page(&self, path: &str) -> Result<(Vec<Value>, Option<String>), Failure> {
        let Answer { data, next } = self.ask(Method::GET, path, None).await?;
        let Value::Array(records) = data else { return Err(Failure::new("no_answer", "the daemon's list is not a list")) };
        Ok((records, next))
    }

    /// `data` of the answer to a request with a document.
    ///
    /// # Errors
    /// As [`Client::fetch`].
    pub(super) async fn send(&self, method: Method, path: &str, kind: &str, attributes: Value) -> Result<Value, Failure> {
        self.ask(method, path, Some(json!({ "data": { "type": kind, "attributes": attributes } }))).await.map(|answer| answer.data)
    }

    /// Deletes what `path` names.
    ///
    /// # Errors
    /// As [`Client::fetch`].
    pub(super) async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.ask(Method::DELETE, path, None).await.map(drop)
    }

    async fn ask(&self, method: Method, path: &str, document: Option<Value>) -> Result<Answer, Failure> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "p2pid");
        if document.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = document.map(|document| Bytes::from(document.to_string())).unwrap_or_default();
        let request = request.body(Full::new(body)).map_err(|error| Failure::usage(format!("this cannot be asked: {error}")))?;
        let work = async {
            let response = self.exchange(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
            let body = body.map_err(|error| Failure::new("no_answer", format!("the daemon's answer broke off: {error}")))?.to_bytes();
            answer(status, &body)
        };
        tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| {
            Err(Failure::new("no_answer", format!("the daemon did not answer within {} s", DEADLINE.as_secs()))
                .next("look at its log: journalctl -u 'p2pid@*'"))
        })
    }

    /// One exchange whose answer streams.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub(super) async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let broke = |error: hyper::Error| Failure::new("no_answer", format!("the daemon gave no answer: {error}"));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(broke)
    }

    fn unreachable(&self, error: &std::io::Error) -> Failure {
        let socket = self.socket.display();
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Failure::new("not_running", "the daemon is not running")
                .found(format!("nobody listens at {socket}"))
                .next("start it: systemctl start p2pid@NAME, or p2pid -c FILE run; just started, it takes a moment until it says that it is ready"),
            ErrorKind::PermissionDenied => Failure::new("forbidden", "this user may not use the daemon's admin socket")
                .found(format!("permission denied at {socket}"))
                .expected("root, the daemon's user, or a member of [admin] group")
                .next("use sudo, or have the user added to that group"),
            _ => Failure::new("not_running", format!("the daemon cannot be reached: {error}")).found(format!("the socket {socket}")),
        }
    }
}

/// A good answer.
#[derive(Debug, Default)]
struct Answer {
    data: Value,
    /// Where a list goes on.
    next: Option<String>,
}

/// `data` of a good answer, or the first error of a refusal.
pub(super) fn read_answer(status: StatusCode, body: &[u8]) -> Result<Value, Failure> {
    answer(status, body).map(|answer| answer.data)
}

fn answer(status: StatusCode, body: &[u8]) -> Result<Answer, Failure> {
    if status == StatusCode::NO_CONTENT {
        return Ok(Answer::default());
    }
    let mut document: Value = serde_json::from_slice(body).unwrap_or_default();
    if status.is_success() {
        let next = document["links"]["next"].as_str().map(str::to_owned);
        return match document.get_mut("data") {
            Some(data) => Ok(Answer { data: data.take(), next }),
            None => Err(Failure::new("no_answer", "the daemon's answer is not one of p2pid's")
                .next("is the daemon of the same version? p2pid status")),
        };
    }
    let error = &document["errors"][0];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut failure = Failure::new(
        text(&error["code"]).unwrap_or_else(|| "no_answer".to_owned()),
        text(&error["detail"]).unwrap_or_else(|| format!("the daemon answered {status}")),
    );
    failure.found = text(&error["meta"]["found"]);
    failure.expected = text(&error["meta"]["expected"]);
    failure.next = text(&error["meta"]["next"]);
    if let Some(attribute) = error["source"]["pointer"].as_str().and_then(|pointer| pointer.strip_prefix("/data/attributes/")) {
        in_flags(&mut failure, attribute);
    }
    if failure.code == "contradiction" {
        failure.message = quoted_in_flags(&failure.message);
    }
    Err(failure)
}

/// Says of an attribute what its flag is called, wherever the API's own words name it.
fn in_flags(failure: &mut Failure, attribute: &str) {
    let flag = flag(attribute);
    for words in [" is wrong", " is missing"] {
        if failure.message == format!("{attribute}{words}") {
            failure.message = format!("{flag}{words}");
        }
    }
    if failure.expected.as_deref() == Some(attribute) {
        failure.expected = Some(flag.clone());
    }
    for words in ["give another ", "give "] {
        if failure.next.as_deref() == Some(&format!("{words}{attribute}")) {
            failure.next = Some(format!("{words}{flag}"));
        }
    }
}

/// `words` with the flags in place of the attributes that stand between backticks.
fn quoted_in_flags(words: &str) -> String {
    let parts = words.split('`').enumerate();
    parts.map(|(position, part)| if position % 2 == 1 { flag(part) } else { part.to_owned() }).collect()
}

/// The flag or the argument by which an attribute is given.
fn flag(attribute: &str) -> String {
    match attribute {
        "name" | "login" => attribute.to_uppercase(),
        "scopes" | "grants" | "redirect_uris" | "permissions" | "roles" | "peers" => {
            format!("--{}", attribute.trim_end_matches('s').replace('_', "-"))
        }
        "add_roles" => "--role".to_owned(),
        "remove_roles" => "--no-role".to_owned(),
        "remove_permissions" => "--no-permission".to_owned(),
        "jwks_uri" => "--jwks".to_owned(),
        "client_secret" | "password" | "key" => format!("--{}-stdin", attribute.replace('_', "-")),
        "expires_in" => "--expires".to_owned(),
        _ => format!("--{}", attribute.replace('_', "-")),
    }
}

/// A path of the API from its segments, each encoded.
pub(super) fn path(segments: &[&str]) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'@');
    segments.iter().fold("/v2".to_owned(), |path, segment| path + "/" + &utf8_percent_encode(segment, KEPT).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::contradiction::Contradiction;
    use crate::oauth::client_auth::Method;

    #[test]
    fn segments_are_encoded() {
        assert_eq!(path(&["tenants", "default", "peers", "a b/c?"]), "/v2/tenants/default/peers/a%20b%2Fc%3F");
    }

    #[test]
    fn a_refusal_keeps_its_words() {
        let body = r#"{"errors":[{"status":"409","code":"exists","title":"Conflict","detail":"the peer exists","meta":{"found":null,"next":"rename"}}]}"#;
        let failure = read_answer(StatusCode::CONFLICT, body.as_bytes()).expect_err("a refusal");
        assert_eq!((failure.exit, failure.code.as_str(), failure.next.as_deref()), (1, "exists", Some("rename")));
        assert_eq!(read_answer(StatusCode::BAD_GATEWAY, b"<html>").expect_err("no document").code, "no_answer");
    }

    #[test]
    fn attributes_are_called_by_their_flags() {
        let body = |attribute: &str| {
            let meta = json!({ "found": "x", "expected": "y", "next": format!("give another {attribute}") });
            let error = json!({ "code": "bad_attribute", "detail": format!("{attribute} is wrong"), "meta": meta,
                "source": { "pointer": format!("/data/attributes/{attribute}") } });
            json!({ "errors": [error] }).to_string()
        };
        for (attribute, flag) in [
            ("scopes", "--scope"),
            ("grants", "--grant"),
            ("redirect_uris", "--redirect-uri"),
            ("peer_url", "--peer-url"),
            ("jwks_uri", "--jwks"),
            ("client_secret", "--client-secret-stdin"),
            ("name", "NAME"),
        ] {
            let failure = read_answer(StatusCode::BAD_REQUEST, body(attribute).as_bytes()).expect_err("a refusal");
            assert_eq!(
                (failure.message.as_str(), failure.next.clone()),
                (&*format!("{flag} is wrong"), Some(format!("give another {flag}")))
            );
        }
    }

    #[test]
    fn what_contradicts_itself_is_called_by_its_flags() {
        let words = |contradiction: Contradiction| {
            let body = json!({ "errors": [{ "code": "contradiction", "detail": contradiction.to_string() }] }).to_string();
            read_answer(StatusCode::UNPROCESSABLE_ENTITY, body.as_bytes()).expect_err("a refusal").message.clone()
        };
        assert_eq!(words(Contradiction::BoundTwice), "tokens are bound to a DPoP key (--dpop) or to a certificate (--mtls), not to both");
        let redirect = words(Contradiction::ProfileRedirect);
        assert!(redirect.contains("(--redirect-uri)") && redirect.contains("(--native)"), "{redirect}");
        assert!(words(Contradiction::NoScope).contains("(--scope) is a resource server (--introspects)"));
        assert!(words(Contradiction::NoSubject).contains("--tls-client-auth-subject-dn, --tls-client-auth-san-dns, "));
        assert!(!words(Contradiction::NoSecret(Method::ClientSecret)).contains('`'));
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_running_says_how_to_start_it() {
        let failure = Client::new("/nonexistent/admin.sock".into()).fetch("/v2/status").await.expect_err("nobody");
        assert_eq!(failure.code, "not_running");
        assert!(failure.next.clone().expect("a next step").contains("p2pid -c FILE run"));
    }
}
