//! A WebSocket passes through, holds the connection that it came over, and ends with the daemon.

use axum::body::Body;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::net::body::RequestBody;
use crate::net::life::Life;
use crate::net::proxy::Terms;
use crate::net::websocket::{self, Answer};
use crate::system::SystemRandom;

const SHORT: Duration = Duration::from_millis(200);

/// An application that grants every WebSocket and says everything twice.
fn echo() -> Site {
    async fn upgrade(request: axum::extract::Request) -> http::Response<Body> {
        let accept = websocket::accepted(request.headers()["sec-websocket-key"].to_str().expect("base64"));
        tokio::spawn(async move {
            let mut io = TokioIo::new(hyper::upgrade::on(request).await.expect("an upgrade"));
            let mut byte = [0];
            while io.read_exact(&mut byte).await.is_ok() {
                io.write_all(&[byte[0], byte[0]]).await.expect("a reader");
            }
        });
        let response = http::Response::builder().status(101).header("connection", "upgrade").header("upgrade", "websocket");
        response.header("sec-websocket-accept", accept).body(Body::empty()).expect("a response")
    }
    Site::plain(Router::new().route("/", get(upgrade)))
}

/// Passes WebSockets on to `target`, and is impatient with idle connections.
fn passing_to(target: &Site) -> Site {
    let (url, client) = (target.url("/"), anybody());
    let handler = move |mut request: axum::extract::Request| {
        let (url, client) = (url.clone(), client.clone());
        async move {
            let asked = websocket::asked(&mut request, &SystemRandom).expect("a request for a WebSocket");
            let mut onward = Request::get(url).body(RequestBody::Empty).expect("a request");
            *onward.headers_mut() = request.headers().clone();
            asked.mark(onward.headers_mut());
            let terms = Terms::new(&limits(), Arc::new(Life::default()), None);
            let Ok(Answer::Granted(mut head)) = asked.send(&client, onward, &terms).await else { panic!("expected a WebSocket") };
            websocket::mark_granted(&mut head);
            http::Response::from_parts(head, Body::empty())
        }
    };
    Site::open(&Limits { idle_timeout: SHORT, ..limits() }, None, Router::new().route("/", axum::routing::any(handler)))
}

/// Opens a connection to `site`, asks for something once, and waits until it is closed for being idle.
async fn idles_until_closed(site: &Site) {
    let mut idle = TcpStream::connect(site.address).await.expect("a connection");
    idle.write_all(b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("a reader");
    let mut answer = Vec::new();
    soon("its end", idle.read_to_end(&mut answer)).await.expect("an orderly end");
    assert!(answer.starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&answer));
}

/// Says something over a WebSocket, is silent for longer than idle connections live, says something again, and stops the daemon.
async fn talks_until_the_daemon_stops(mut socket: impl AsyncRead + AsyncWrite + Unpin, site: &Site) {
    for _ in 0..2 {
        socket.write_all(b"a").await.expect("a reader");
        let mut echo = [0; 2];
        soon("an echo", socket.read_exact(&mut echo)).await.expect("an echo");
        assert_eq!(&echo, b"aa");
        idles_until_closed(site).await;
    }
    until("one connection", || site.server.connections() == 1).await;
    soon("the drain's end", site.server.drain(Duration::from_millis(50))).await;
    let mut rest = Vec::new();
    let _ = soon("the socket's end", socket.read_to_end(&mut rest)).await;
    until("no connection", || site.server.connections() == 0).await;
}

#[tokio::test]
async fn over_http1() {
    let target = echo();
    let site = passing_to(&target);
    let request = Request::get(site.url("/")).header("connection", "upgrade").header("upgrade", "websocket");
    let request = request.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==").header("sec-websocket-version", "13");
    let response = anybody().send_upgrade(request.body(RequestBody::Empty).expect("a request")).await.expect("an answer");
    assert_eq!(response.status(), 101);
    let socket = soon("an upgrade", hyper::upgrade::on(response)).await.expect("an upgrade");
    talks_until_the_daemon_stops(TokioIo::new(socket), &site).await;
}

#[tokio::test]
async fn over_http2() {
    let target = echo();
    let site = passing_to(&target);
    let stream = TcpStream::connect(site.address).await.expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, RequestBody>(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    // Its settings, with the offer of extended CONNECT, come with the first answer at the latest.
    let request = Request::get(site.url("/nowhere")).body(RequestBody::Empty).expect("a request");
    assert_eq!(soon("an answer", sender.send_request(request)).await.expect("an answer").status(), 404);
    let request = Request::connect(site.url("/")).extension(hyper::ext::Protocol::from_static("websocket"));
    let response = soon("an answer", sender.send_request(request.body(RequestBody::Empty).expect("a request"))).await.expect("an answer");
    assert_eq!(response.status(), 200);
    let socket = soon("an upgrade", hyper::upgrade::on(response)).await.expect("an upgrade");
    talks_until_the_daemon_stops(TokioIo::new(socket), &site).await;
}
