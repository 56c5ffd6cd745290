//! For the tests of gateway and relay: raw requests, and servers that do what a test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Longest that a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Sends bytes as they are on a connection of their own, and reads until it is closed.
pub(super) async fn sends(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection to be closed");
    Answer(String::from_utf8_lossy(&answer).into_owned())
}

/// A connection that speaks HTTP/2 in clear.
pub(super) async fn over_http2<B>(address: SocketAddr) -> hyper::client::conn::http2::SendRequest<B>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2 in clear");
    tokio::spawn(connection);
    sender
}

/// What came back, as it was written on the wire.
pub(super) struct Answer(pub(super) String);

impl Answer {
    pub(super) fn status(&self) -> u16 {
        self.0.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no status in {:?}", self.0))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let head = self.0.split("\r\n\r\n").next().unwrap_or_default();
        head.lines()
            .skip(1)
            .find_map(|line| line.split_once(": ").filter(|(found, _)| found.eq_ignore_ascii_case(name)))
            .map(|(_, value)| value)
    }

    pub(super) fn error(&self) -> (u16, Option<&str>) {
        (self.status(), self.header("p2pi-error"))
    }
}

/// An application that reads a head on each connection, and then does what the test says.
pub(super) async fn scripted<F, A>(then: F) -> SocketAddr
where
    F: Fn(TcpStream, String) -> A + Send + Sync + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(loopback()).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let head = head_of(&mut stream).await;
            tokio::spawn(then(stream, head));
        }
    });
    address
}

pub(super) async fn head_of(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Reads until `wanted` was read, or the connection is closed.
pub(super) async fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut text = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&text).contains(wanted) && stream.read_buf(&mut text).await.is_ok_and(|length| length > 0) {}
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("it to come");
    String::from_utf8_lossy(&text).into_owned()
}

/// An application that sends one event, and the next when it is told to.
pub(super) async fn events() -> (SocketAddr, mpsc::Sender<()>) {
    let (go_on, told) = mpsc::channel(1);
    let told = Arc::new(tokio::sync::Mutex::new(told));
    let address = scripted(move |mut stream, _| {
        let told = Arc::clone(&told);
        async move {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            let _ = stream.write_all(format!("{head}9\r\ndata: 1\n\n\r\n").as_bytes()).await;
            if told.lock().await.recv().await.is_some() {
                let _ = stream.write_all(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n").await;
            }
        }
    })
    .await;
    (address, go_on)
}

/// An application that grants a WebSocket and sends back what it gets.
pub(super) async fn echo() -> SocketAddr {
    scripted(|mut stream, head| async move {
        let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap_or_default().to_owned();
        let accept = crate::net::websocket::accepted(&key);
        let accept = String::from_utf8_lossy(&accept).into_owned();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
        );
        let _ = stream.write_all(answer.as_bytes()).await;
        let (mut reads, mut writes) = stream.split();
        let _ = tokio::io::copy(&mut reads, &mut writes).await;
    })
    .await
}
