//! What arrives on a connection, byte by byte: a server of ours over a real socket.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;
use std::{env, process};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderName, HeaderValue, Method};
use p2pid::config::{Limits, Listen, Rate};
use p2pid::net::listener::Listener;
use p2pid::net::serve::{Server, Serving};
use p2pid::system::SystemRandom;

/// The application's answers carry it: whether their body is left out, as it is for HEAD.
const OF_THE_APPLICATION: &str = "x-of-the-application";
const PATIENCE: Duration = Duration::from_secs(8);

/// Where the server listens, which runs as long as this process.
static SOCKET: LazyLock<PathBuf> = LazyLock::new(|| {
    let socket = env::temp_dir().join(format!("p2pid-fuzz-{}.sock", process::id()));
    let at = Listen::Unix(socket.clone());
    let (told, is_listening) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let server = Server::new(&limits(), "two", &SystemRandom);
            let listener = Listener::bind(&at, None).expect("a socket of our own");
            server.serve(listener, Serving::default(), Router::new().fallback(echo));
            told.send(()).expect("somebody waits");
            std::future::pending::<()>().await;
        });
    });
    is_listening.recv().expect("it listens");
    socket
});

fn limits() -> Limits {
    let (short, long) = (Duration::from_secs(2), Duration::from_secs(60));
    Limits {
        header_bytes: 8 << 10,
        form_bytes: 64 << 10,
        body_bytes: 0,
        connections: 100,
        outgoing_connections: 100,
        calls_per_grant: 512,
        calls_per_caller: 1024,
        calls_per_peer: 512,
        queue_per_peer: 1024,
        connect_timeout: short,
        first_byte_timeout: long,
        idle_timeout: long,
        token_timeout: long,
        refresh_wait: long,
        drain: short,
        auth_failures: Rate { count: 20, per: long },
        client_requests: None,
    }
}

/// The application: it says what reached it, with the status that the path names.
async fn echo(request: Request) -> Response {
    let status = request.uri().path().get(1..4).and_then(|status| status.parse().ok()).filter(|status| (200..600).contains(status));
    let is_bare = request.method() == Method::HEAD;
    let body = axum::body::to_bytes(request.into_body(), 64 << 10).await.unwrap_or_default();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status.and_then(|status: u16| status.try_into().ok()).unwrap_or_default();
    let name = HeaderName::from_static(OF_THE_APPLICATION);
    response.headers_mut().insert(name, HeaderValue::from_static(if is_bare { "bare" } else { "whole" }));
    response
}

/// What a client sends on a connection, until it sends no more.
pub fn unreadable(data: &[u8]) {
    // An HTTP/2 client is answered in frames, which other targets of h2's own look at.
    if b"PRI * HTTP/2.0\r\n".starts_with(&data[..data.len().min(16)]) {
        return;
    }
    let mut stream = UnixStream::connect(&*SOCKET).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    // The server may have had enough before the end.
    let _ = stream.write_all(data).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut came = Vec::new();
    match stream.read_to_end(&mut came) {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {}
        Err(error) => panic!("the server does not end the connection: {error}"),
    }
    answers(&came);
}

/// Every answer is whole, and either the application's or one of ours that says what is wrong.
fn answers(mut rest: &[u8]) {
    while !rest.is_empty() {
        let shown = String::from_utf8_lossy(rest);
        let end = rest.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_else(|| panic!("half a head: {shown}"));
        let head = std::str::from_utf8(&rest[..end]).unwrap_or_else(|_| panic!("a head that is no text: {shown}"));
        rest = &rest[end + 4..];
        let status = head.strip_prefix("HTTP/1.1 ").or_else(|| head.strip_prefix("HTTP/1.0 ")).and_then(|rest| rest.get(..3));
        let status: u16 = status.and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status: {shown}"));
        if status == 100 {
            continue;
        }
        let header = |name: &str| {
            head.lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(found, _)| found.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        };
        let length = match header("content-length") {
            _ if header(OF_THE_APPLICATION) == Some("bare") || matches!(status, 204 | 304) => 0,
            Some(length) => length.parse().unwrap_or_else(|_| panic!("{length}: {shown}")),
            None => panic!("an answer without a length: {shown}"),
        };
        assert!(length <= rest.len(), "half a body: {shown}");
        let (body, behind) = rest.split_at(length);
        if header(OF_THE_APPLICATION).is_none() {
            assert!(header("p2pi-error").is_some() && header("p2pi-error-from") == Some("two"), "an answer of nobody's: {shown}");
            let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {shown}"));
            assert_eq!(problem["status"], status, "{shown}");
            if matches!(status, 400 | 431) && header("connection") == Some("close") {
                assert!(behind.is_empty(), "something behind the last answer: {shown}");
            }
        }
        rest = behind;
    }
}
