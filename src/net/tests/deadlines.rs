//! Every way to hold a connection without using it ends; patience that is meant is kept.

use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::net::body::RequestBody;

const SHORT: Duration = Duration::from_millis(200);

fn impatient(tls: Option<ServerTls>) -> Site {
    let router = who_calls().route("/body", post(read_body)).route("/endless", get(endless)).route("/events", get(events));
    Site::open(&Limits { idle_timeout: SHORT, ..limits() }, tls, router)
}

async fn read_body(body: Body) -> http::Response<Body> {
    match body.collect().await {
        Ok(whole) => whole.to_bytes().into_response(),
        Err(error) => (http::StatusCode::REQUEST_TIMEOUT, error.to_string()).into_response(),
    }
}

async fn endless() -> Body {
    Body::from_stream(futures_util::stream::repeat_with(|| Ok::<_, std::convert::Infallible>(Bytes::from_static(&[0; 65536]))))
}

/// Two events, with a silence between that is longer than the deadlines.
async fn events() -> Body {
    let stream = futures_util::stream::unfold(0, |sent| async move {
        match sent {
            0 => Some((Ok::<_, std::convert::Infallible>("data: 1\n\n"), 1)),
            1 => {
                tokio::time::sleep(5 * SHORT).await;
                Some((Ok("data: 2\n\n"), 2))
            }
            _ => None,
        }
    });
    Body::from_stream(stream)
}

/// Sends `bytes`, then nothing; gives what comes until the other side closes.
async fn sends_and_waits(site: &Site, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(site.address).await.expect("a connection");
    stream.write_all(bytes).await.expect("a reader");
    until_closed(&mut stream).await
}

async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    // A reset closes as well as an end does.
    let _ = soon("the connection's end", stream.read_to_end(&mut answer)).await;
    answer
}

const PREFACE_AND_SETTINGS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

#[tokio::test]
async fn connections_that_begin_no_request_are_closed() {
    let site = impatient(None);
    // HEADERS on stream 1, without END_HEADERS.
    let headers_without_end = [PREFACE_AND_SETTINGS, b"\x00\x00\x01\x01\x01\x00\x00\x00\x01\x82"].concat();
    let cases: [(&str, &[u8]); 6] = [
        ("nothing", b""),
        ("half a head", b"GET / HTTP/1.1\r\nhost: a\r\n"),
        ("half a preface", b"PRI * HTTP/2.0\r\n"),
        ("a preface only", &PREFACE_AND_SETTINGS[..24]),
        ("a preface and settings", PREFACE_AND_SETTINGS),
        ("headers without their end", &headers_without_end),
    ];
    for (what, bytes) in cases {
        let answer = sends_and_waits(&site, bytes).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{what}");
    }
    until("all connections gone", || site.server.connections() == 0).await;
}

#[tokio::test]
async fn a_tls_handshake_that_does_not_come_is_not_waited_for() {
    let site = impatient(Some(ServerTls::new(identity().0).expect("TLS")));
    assert!(sends_and_waits(&site, b"").await.is_empty());
    // Half a ClientHello.
    sends_and_waits(&site, b"\x16\x03\x01\x02\x00\x01").await;
    until("all connections gone", || site.server.connections() == 0).await;
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_has_no_longer_than_one_that_does_not_come() {
    let site = impatient(None);
    let stream = TcpStream::connect(site.address).await.expect("a connection");
    let (mut reader, mut writer) = stream.into_split();
    let dribble = tokio::spawn(async move {
        let _ = writer.write_all(b"GET / HTTP/1.1\r\nx: ").await;
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(SHORT / 10).await;
        }
    });
    let mut answer = Vec::new();
    let _ = soon("the connection's end", reader.read_to_end(&mut answer)).await;
    drop(reader);
    soon("the end of the dribble", dribble).await.expect("no panic");
}

#[tokio::test]
async fn a_request_counts_from_its_first_byte_however_slowly_its_head_comes() {
    async fn waited(Extension(connection): Extension<Arc<Connection>>, request: axum::extract::Request) -> String {
        connection.since_first_byte(request.version()).as_millis().to_string()
    }
    let router = Router::new().route("/waited", get(waited));
    let waited = async |stream: &mut TcpStream| -> u128 {
        let mut answer = [0; 1024];
        let length = soon("an answer", stream.read(&mut answer)).await.expect("an answer");
        let text = String::from_utf8_lossy(&answer[..length]);
        text.rsplit_once("\r\n\r\n").and_then(|(_, body)| body.parse().ok()).unwrap_or_else(|| panic!("{text}"))
    };
    let idle = 5 * SHORT;
    let site = Site::open(&limits(), None, router);
    let mut stream = TcpStream::connect(site.address).await.expect("a connection");
    tokio::time::sleep(idle).await;
    // On a new connection, where the first bytes also tell which HTTP it is; and on one that was used before; idle time between is nobody's.
    for part in ["G", "GET /waited HTTP/1.1\r\nho"] {
        stream.write_all(part.as_bytes()).await.expect("a reader");
        tokio::time::sleep(SHORT).await;
        let rest = "GET /waited HTTP/1.1\r\nhost: a\r\n\r\n".strip_prefix(part).expect("a part of it");
        stream.write_all(rest.as_bytes()).await.expect("a reader");
        let whole = waited(&mut stream).await;
        assert!((SHORT.as_millis()..idle.as_millis()).contains(&whole), "{part:?}: {whole} ms");
        tokio::time::sleep(idle).await;
        stream.write_all(b"GET /waited HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("a reader");
        let at_once = waited(&mut stream).await;
        assert!(at_once < idle.as_millis(), "{part:?}: {at_once} ms after an idle time");
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_answer() {
    let site = impatient(None);
    let answer = sends_and_waits(&site, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn a_body_that_never_comes_is_not_waited_for() {
    let site = impatient(None);
    let answer = sends_and_waits(&site, b"POST /body HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf").await;
    assert!(answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
    assert!(String::from_utf8_lossy(&answer).ends_with("nothing of the body came for 200ms"));
}

#[tokio::test]
async fn who_reads_nothing_is_not_written_to_for_ever() {
    let site = impatient(None);
    let mut stream = TcpStream::connect(site.address).await.expect("a connection");
    stream.write_all(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("a reader");
    until("a request", || site.server.connections() == 1).await;
    until("the connection's end", || site.server.connections() == 0).await;
}

#[tokio::test]
async fn who_opens_no_window_is_not_waited_for_ever() {
    let site = impatient(None);
    let stream = TcpStream::connect(site.address).await.expect("a connection");
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, RequestBody>(hyper_util::rt::TokioExecutor::new(), io).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let request = Request::get(site.url("/endless")).body(RequestBody::Empty).expect("a request");
    // The head comes, of the body what the window holds; nobody reads it, and the connection's own frames still pass.
    let response = soon("a head", sender.send_request(request)).await.expect("an answer");
    assert_eq!(response.status(), 200);
    until("the connection's end", || site.server.connections() == 0).await;
    let _ = soon("the end, seen from the client", connection).await;
    drop(response);
}

#[tokio::test]
async fn a_stream_that_is_silent_on_purpose_is_not_cut() {
    let (identity, pem) = identity();
    let plain = impatient(None);
    let secure = impatient(Some(ServerTls::new(identity).expect("TLS")));
    let client = trusting(&pem);
    for url in [plain.url("/events"), secure.secure_url("/events")] {
        let request = Request::get(&url).body(RequestBody::Empty).expect("a request");
        let body = client.send(request).await.expect("an answer").into_body();
        let whole = soon("the stream's end", body.collect()).await.expect("both events").to_bytes();
        assert_eq!(whole, "data: 1\n\ndata: 2\n\n");
    }
}
