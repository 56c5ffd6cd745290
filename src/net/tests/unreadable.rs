//! What is no HTTP, and what only looks like an answer to it.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::response::IntoResponse;
use axum::routing::get;
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode, header};
use http_body::Frame;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::*;
use crate::net::unreadable;

/// An answer as hyper gives it by itself.
const OWN: &str = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: Sat, 28 Nov 2026 02:04:22 GMT\r\n\r\n";

/// What is no HTTP request, and the status that it is answered with.
fn broken() -> Vec<(String, u16)> {
    let with = |rest: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{rest}");
    let fields: String = (0..101).map(|number| format!("X-{number}: x\r\n")).collect();
    vec![
        (with("Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"), 400),
        (with("Content-Length: -1\r\n\r\n"), 400),
        (with("Content-Length: +3\r\n\r\nabc"), 400),
        (with("Transfer-Encoding: gzip\r\n\r\n"), 400),
        (with("X-Odd : 1\r\n\r\n"), 400),
        (with("X-Odd: 1\r\n folded\r\n\r\n"), 400),
        (with("X-Odd: a\0b\r\n\r\n"), 400),
        ("GET / HTTP/3.0\r\n\r\n".to_owned(), 400),
        ("GET /\r\n\r\n".to_owned(), 400),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}".to_owned(), 400),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(70_000)), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "x".repeat(1 << 20)), 431),
        // A head that never ends.
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}", "x".repeat(1 << 20)), 431),
    ]
}

/// Everything that comes until the end, which is none of a broken connection.
async fn all(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    soon("the end", stream.read_to_end(&mut bytes)).await.expect("an orderly end");
    String::from_utf8(bytes).expect("text")
}

/// Everything that comes until it ends with `end`.
async fn through(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut seen = String::new();
    while !seen.ends_with(end) {
        let mut some = [0; 4096];
        let count = soon(end, stream.read(&mut some)).await.expect("bytes");
        assert!(count > 0, "before {end:?}: {seen}");
        seen.push_str(std::str::from_utf8(&some[..count]).expect("text"));
    }
    seen
}

async fn after(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> String {
    stream.write_all(request.as_bytes()).await.expect("a reader");
    all(stream).await
}

fn says_what_is_wrong(answer: &str, status: u16, request: &str) {
    let shown = &request[..request.len().min(80)];
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}: {answer}");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let code = if status == 400 { "bad_request" } else { "header_too_large" };
    let length = format!("content-length: {}", body.len());
    let error = format!("p2pi-error: {code}");
    for line in [error.as_str(), "p2pi-error-from: instance1", "content-type: application/problem+json", "connection: close", &length] {
        assert_eq!(head.lines().filter(|found| *found == line).count(), 1, "{shown:?}: {line}: {answer}");
    }
    assert!(head.contains("\r\ndate: "), "{answer}");
    let problem: Value = serde_json::from_str(body).expect("a problem document");
    assert_eq!((problem["status"].as_u64(), problem["code"].as_str()), (Some(u64::from(status)), Some(code)), "{shown:?}");
    let id = problem["request_id"].as_str().expect("a request id");
    assert!(id.len() == 32 && head.contains(&format!("p2pi-request-id: {id}")), "{answer}");
}

#[tokio::test]
async fn g5_what_is_no_http_is_told_so_in_our_words() {
    let site = Site::plain(who_calls());
    for (request, status) in broken() {
        let mut stream = TcpStream::connect(site.address).await.expect("a connection");
        says_what_is_wrong(&after(&mut stream, &request).await, status, &request);
    }
    until("every connection is given up", || site.server.connections() == 0).await;
}

#[tokio::test]
async fn g5_what_is_no_http_is_told_so_over_tls_and_unix_sockets() {
    let (identity, pem) = identity();
    let (site, _) = Site::secure(who_calls(), &identity);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")).expect("an authority");
    let trusting = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(trusting));
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("socket");
    let listener = Listener::bind(&Listen::Unix(socket.clone()), None).expect("a socket");
    site.server.serve(listener, Serving::default(), who_calls());
    for (request, status) in broken() {
        let stream = TcpStream::connect(site.address).await.expect("a connection");
        let name = rustls::pki_types::ServerName::from(site.address.ip());
        let mut stream = soon("TLS", connector.connect(name, stream)).await.expect("TLS");
        says_what_is_wrong(&after(&mut stream, &request).await, status, &request);
        let mut stream = UnixStream::connect(&socket).await.expect("a connection");
        says_what_is_wrong(&after(&mut stream, &request).await, status, &request);
    }
}

#[tokio::test]
async fn what_is_no_http_is_told_so_behind_requests_that_are() {
    let site = Site::plain(Router::new().route("/", get(|| async { "taken" })));
    let good = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (request, status) in broken() {
        let mut stream = TcpStream::connect(site.address).await.expect("a connection");
        let answers = after(&mut stream, &format!("{good}{good}{request}")).await;
        let (first, rest) = answers.split_once("taken").expect("an answer");
        let (second, third) = rest.split_once("taken").expect("a second answer");
        assert!(first.starts_with("HTTP/1.1 200") && second.starts_with("HTTP/1.1 200"), "{answers}");
        says_what_is_wrong(third, status, &request);
    }
}

#[tokio::test]
async fn g5_over_http_2_a_head_that_is_far_too_long_has_its_status_and_what_is_malformed_a_reset() {
    let site = Site::plain(who_calls());
    let stream = TcpStream::connect(site.address).await.expect("a connection");
    let (mut sender, connection) = soon("HTTP/2", h2::client::handshake(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    let long = "x".repeat(100 << 10);
    let requests = [
        (Request::get("http://a/").header("x-long", &long).header("x-longer", &long), Ok(431)),
        (Request::get("http://a/").header("content-length", "-1"), Err(h2::Reason::PROTOCOL_ERROR)),
        (Request::get("http://a/"), Ok(200)),
    ];
    for (request, expected) in requests {
        let request = request.body(()).expect("a request");
        let (answer, _) = sender.send_request(request, true).expect("an open connection");
        let answer = soon("an answer", answer).await;
        let found = answer.map(|answer| answer.status().as_u16()).map_err(|error| error.reason().expect("a reset"));
        assert_eq!(found, expected);
    }
}

/// What a server over `stream` sends for `requests`, to a client that has room for `room` bytes at a time; what hyper says by itself becomes
/// `REFUSED` where it is `reworded`.
async fn sent(requests: &str, room: usize, reworded: bool) -> String {
    let (mut client, server) = tokio::io::duplex(room);
    let service = || {
        hyper::service::service_fn(async |request: Request<hyper::body::Incoming>| {
            let frames = if request.uri().path() == "/streamed" { vec!["first ", OWN] } else { vec![OWN] };
            let body = http_body_util::StreamBody::new(
                futures_util::stream::iter(frames).map(|frame| Ok::<_, Infallible>(Frame::data(Bytes::from(frame)))),
            );
            let length = if request.uri().path() == "/whole" { OWN.len().to_string() } else { String::new() };
            let answer = Response::builder().header(header::DATE, "today");
            let answer = if length.is_empty() { answer } else { answer.header(header::CONTENT_LENGTH, length) };
            answer.status(400).body(body)
        })
    };
    let serving = async {
        if !reworded {
            let _ = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(server), service()).await;
            return;
        }
        let mut watched = unreadable::watch(server, |stream| {
            http1::Builder::new().half_close(true).serve_connection(TokioIo::new(stream), service()).with_upgrades()
        });
        let outcome = (&mut watched).await;
        let stream = watched.connection.into_parts().expect("no upgrade").io.into_inner();
        let answer = Response::new(Bytes::from_static(b"REFUSED"));
        match (outcome, stream.own_answer()) {
            (Err(error), Some(_)) if error.is_parse() => drop(stream.answer(&answer, PATIENCE).await.expect("an open stream")),
            _ if stream.is_holding() => stream.finish().await.expect("an open stream"),
            _ => {}
        }
    };
    let asking = async {
        let (mut reader, mut writer) = tokio::io::split(&mut client);
        let said = async {
            let _ = writer.write_all(requests.as_bytes()).await;
            let _ = writer.shutdown().await;
        };
        tokio::join!(said, all(&mut reader)).1
    };
    soon(requests, async { tokio::join!(serving, asking) }).await.1
}

#[tokio::test]
async fn every_byte_of_a_service_is_sent_in_its_order_however_slowly_it_is_read() {
    let of = |path: &str| format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let last = |path: &str| format!("GET /{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let (whole, streamed) = (of("whole"), of("streamed"));
    let requests = [
        whole.clone(),
        last("whole"),
        last("streamed"),
        whole.repeat(3),
        format!("{whole}{streamed}{whole}"),
        format!("{whole}no HTTP\r\n\r\n"),
        format!("{streamed}{whole}no HTTP\r\n\r\n"),
        format!("{whole}{}", last("whole")),
        "GET /streamed HTTP/1.0\r\n\r\n".to_owned(),
        // What hyper breaks off at without a word: a head that ends early, and how HTTP/2 begins.
        format!("{whole}GET / HT"),
        format!("{whole}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ];
    for request in &requests {
        let is_refused = request.contains("no HTTP");
        // What hyper sends to somebody who reads quickly, but for its own last word.
        let plain = sent(request, 1 << 20, false).await;
        let expected = if is_refused { &plain[..plain.rfind("HTTP/1.1 400").expect("a refusal")] } else { &plain };
        assert!(expected.contains(OWN), "{request}: {plain}");
        for room in [1, 2, 7, 64, 150, 4096, 1 << 20] {
            let found = sent(request, room, true).await;
            let rest = found.strip_prefix(expected).unwrap_or_else(|| panic!("{room}: {request}\n{found}\nexpected\n{expected}"));
            // How HTTP/2 begins is no HTTP/1 as long as not all of it is there.
            let is_refused = is_refused || (request.contains("PRI") && !rest.is_empty());
            assert_eq!((rest.ends_with("REFUSED"), rest.is_empty()), (is_refused, !is_refused), "{room}: {request}\n{found}");
            assert_eq!(rest.matches("HTTP/1.1").count(), usize::from(is_refused), "{room}: {request}\n{found}");
        }
    }
}

/// Answers with [`OWN`] in several disguises.
fn look_alikes() -> Router {
    let disguised = async |Path(way): Path<String>| match way.as_str() {
        "whole" => OWN.into_response(),
        "streamed" => Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("first "), Ok(OWN)])).into_response(),
        "broken-after" => {
            let fails = futures_util::stream::once(async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("on purpose"))
            });
            Body::from_stream(futures_util::stream::iter([Ok(OWN)]).chain(fails)).into_response()
        }
        "silent-after" => {
            let frames = futures_util::stream::iter([Ok::<_, std::io::Error>(OWN)]);
            Body::from_stream(frames.chain(futures_util::stream::pending())).into_response()
        }
        _ => (StatusCode::BAD_REQUEST, HeaderMap::from_iter([(header::DATE, "yesterday".parse().expect("a value"))])).into_response(),
    };
    Router::new().route("/{way}", get(disguised))
}

#[tokio::test]
async fn what_a_service_says_is_passed_on_whatever_it_looks_like() {
    let site = Site::plain(look_alikes());
    let no_http = "no HTTP\r\n\r\n";
    for (way, end) in [("whole", OWN), ("streamed", "\r\n0\r\n\r\n"), ("empty", "\r\n\r\n")] {
        let body = if way == "empty" { "" } else { OWN };
        // Kept open: nothing waits for the next request.
        let mut stream = TcpStream::connect(site.address).await.expect("a connection");
        for _ in 0..2 {
            stream.write_all(format!("GET /{way} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.expect("a reader");
            let answer = through(&mut stream, end).await;
            assert!(answer.contains(body) && !answer.contains("p2pi-error"), "{way}: {answer}");
        }
        // Closed behind it, and followed by what is no HTTP.
        let mut stream = TcpStream::connect(site.address).await.expect("a connection");
        let answer = after(&mut stream, &format!("GET /{way} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.contains(body) && !answer.contains("p2pi-error"), "{way}: {answer}");
        let mut stream = TcpStream::connect(site.address).await.expect("a connection");
        let answers = after(&mut stream, &format!("GET /{way} HTTP/1.1\r\nHost: a\r\n\r\n{no_http}")).await;
        let last = answers.rfind("HTTP/1.1 400").expect("a refusal");
        assert!(answers[..last].contains(body) && !answers[..last].contains("p2pi-error"), "{way}: {answers}");
        says_what_is_wrong(&answers[last..], 400, no_http);
    }
    // It is not lost with what fails behind it.
    let mut stream = TcpStream::connect(site.address).await.expect("a connection");
    let mut seen = Vec::new();
    stream.write_all(b"GET /broken-after HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("a reader");
    let _ = soon("the end", stream.read_to_end(&mut seen)).await;
    assert!(String::from_utf8_lossy(&seen).contains(OWN), "{}", String::from_utf8_lossy(&seen));
    // Nor does it wait for what comes behind it.
    let mut stream = TcpStream::connect(site.address).await.expect("a connection");
    stream.write_all(b"GET /silent-after HTTP/1.0\r\n\r\n").await.expect("a reader");
    through(&mut stream, OWN).await;
}

#[tokio::test]
async fn who_takes_over_a_connection_says_what_it_likes() {
    let upgrade = async |request: axum::extract::Request| {
        let upgraded = hyper::upgrade::on(request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgraded.await.expect("an upgrade"));
            stream.write_all(OWN.as_bytes()).await.expect("a reader");
            stream.flush().await.expect("a reader");
            let _ = stream.read(&mut [0]).await;
        });
        (StatusCode::SWITCHING_PROTOCOLS, HeaderMap::from_iter([(header::UPGRADE, "odd".parse().expect("a value"))]))
    };
    let site = Site::plain(Router::new().route("/", get(upgrade)));
    let mut stream = TcpStream::connect(site.address).await.expect("a connection");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: odd\r\n\r\n").await.expect("a reader");
    through(&mut stream, OWN).await;
}
