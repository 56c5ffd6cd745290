//! Relay and gateway, one behind the other, between a local application and one behind a peer.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::wire::{echo, events, over_http2, read_until, scripted};
use super::{gateway, relay};
use crate::store::sample;

/// Both hops before one application.
struct Chain {
    relay: relay::tests::World,
    gateway: gateway::tests::World,
}

impl Chain {
    async fn before(application: SocketAddr) -> Self {
        let gateway = gateway::tests::World::before(application, "").await;
        let relay = relay::tests::World::holding(&gateway.token, gateway.address, "").await;
        Self { relay, gateway }
    }

    /// The head of a request to the relay, without the empty line at its end.
    fn head(&self, line: &str) -> String {
        format!("{line} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n", self.relay.address, self.relay.key)
    }

    async fn connected(&self) -> TcpStream {
        TcpStream::connect(self.relay.address).await.expect("a connection")
    }

    /// Withdraws the grant at the peer.
    fn revokes(&self) {
        self.gateway.tokens.end(sample::granted(Default::default()).id);
    }
}

#[tokio::test]
async fn a_websocket_passes_both_hops_and_ends_with_the_grant() {
    let chain = Chain::before(echo().await).await;
    let mut stream = chain.connected().await;
    let head = chain.head("GET /two/socket");
    let upgrade =
        "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n";
    stream.write_all(format!("{head}{upgrade}\r\n").as_bytes()).await.expect("sent");
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101") && answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    for word in ["there", "and back"] {
        stream.write_all(word.as_bytes()).await.expect("sent");
        read_until(&mut stream, word).await;
    }
    chain.revokes();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await.expect("the WebSocket to end");
}

#[tokio::test]
async fn events_pass_both_hops_one_by_one_and_end_with_the_grant() {
    let (application, go_on) = events().await;
    let chain = Chain::before(application).await;
    let request = format!("{}\r\n", chain.head("GET /two/events"));
    let mut stream = chain.connected().await;
    stream.write_all(request.as_bytes()).await.expect("sent");
    read_until(&mut stream, "data: 1").await;
    go_on.send(()).await.expect("the application listens");
    read_until(&mut stream, "0\r\n\r\n").await;

    stream.write_all(request.as_bytes()).await.expect("sent");
    read_until(&mut stream, "data: 1").await;
    chain.revokes();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await.expect("the stream to end");
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a stream that was cut does not look whole");
}

#[tokio::test]
async fn messages_with_trailers_pass_both_hops_both_ways_at_once() {
    // As gRPC does it: the answer begins before the request ends, and its status comes last.
    let application = scripted(|mut stream, head| async move {
        let asked = head.contains("te: trailers") && head.contains("content-type: application/grpc");
        let status = if asked { 0 } else { 3 };
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntrailer: grpc-status\r\ntransfer-encoding: chunked\r\n\r\n";
        let _ = stream.write_all(format!("{head}5\r\nfirst\r\n").as_bytes()).await;
        let body = read_until(&mut stream, "0\r\n\r\n").await;
        let last = if body.contains("second") { "third" } else { "wrong" };
        let _ = stream.write_all(format!("5\r\n{last}\r\n0\r\ngrpc-status: {status}\r\n\r\n").as_bytes()).await;
    })
    .await;
    let chain = Chain::before(application).await;
    let mut sender = over_http2(chain.relay.address).await;
    let (go_on, later) = tokio::sync::mpsc::channel::<Bytes>(1);
    let frames = futures_util::stream::unfold(later, |mut later| async move {
        later.recv().await.map(|bytes| (Ok::<_, std::convert::Infallible>(Frame::data(bytes)), later))
    });
    let request = Request::post(format!("http://{}/two/orders.Orders/Watch", chain.relay.address))
        .header("authorization", format!("Bearer {}", chain.relay.key))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(StreamBody::new(Box::pin(frames)))
        .expect("a request");
    let mut response = sender.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    let first = response.frame().await.expect("a frame").expect("whole").into_data().expect("data");
    assert_eq!(first, "first", "before the request has ended");
    go_on.send(Bytes::from_static(b"second")).await.expect("the relay reads");
    drop(go_on);
    let rest = response.collect().await.expect("whole");
    let mut expected = HeaderMap::new();
    expected.insert("grpc-status", HeaderValue::from_static("0"));
    assert_eq!(rest.trailers(), Some(&expected));
    assert_eq!(rest.to_bytes(), "third");
}

/// What the kernel holds at most of one connection, as its buffers grow.
fn kernel_buffers() -> usize {
    let most = |which: &str| {
        let limits = std::fs::read_to_string(format!("/proc/sys/net/ipv4/tcp_{which}mem")).unwrap_or_default();
        limits.split_whitespace().last().and_then(|most| most.parse::<usize>().ok()).unwrap_or(6 << 20)
    };
    most("r") + most("w")
}

#[tokio::test]
async fn a_long_answer_passes_both_hops_without_being_gathered() {
    const CHUNK: usize = 64 * 1024;
    // Three connections, and some for ourselves.
    let held_at_most = 3 * kernel_buffers() + (16 << 20);
    let chunks = 2 * held_at_most / CHUNK;
    // Sends a long answer only as it is taken, and counts how far it is ahead of who reads.
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&sent);
    let application = scripted(move |mut stream, _| {
        let sent = std::sync::Arc::clone(&counted);
        async move {
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", CHUNK * chunks).as_bytes()).await;
            let chunk = vec![b'a'; CHUNK];
            for _ in 0..chunks {
                if stream.write_all(&chunk).await.is_err() {
                    return;
                }
                sent.fetch_add(CHUNK, std::sync::atomic::Ordering::Relaxed);
            }
        }
    })
    .await;
    let chain = Chain::before(application).await;
    let mut stream = chain.connected().await;
    stream.write_all(format!("{}connection: close\r\n\r\n", chain.head("GET /two/file")).as_bytes()).await.expect("sent");
    // Nobody reads, so it comes to rest.
    let mut ahead = 0;
    loop {
        let before = std::mem::replace(&mut ahead, sent.load(std::sync::atomic::Ordering::Relaxed));
        if ahead > 0 && ahead == before {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(ahead < held_at_most, "{ahead} bytes are held between the two, though nobody reads");
    let mut read = 0;
    let mut buffer = vec![0; CHUNK];
    loop {
        match stream.read(&mut buffer).await.expect("read") {
            0 => break,
            length => read += length,
        }
    }
    assert!(read > CHUNK * chunks, "{read}");
}
