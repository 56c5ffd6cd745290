//! TLS sessions are resumed: a second connection costs no certificate, neither to us nor by us.

use std::sync::Arc;

use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::world::World;
use crate::world::hostile::{Endpoint, Fault};
use crate::world::patience::within;
use crate::world::scene::Scene;
use crate::world::settings::{Settings, request};
use crate::world::wire::trusting;

/// How a connection to the public listener begins that asks one thing and ends.
async fn begins(settings: &Settings, config: &Arc<ClientConfig>) -> HandshakeKind {
    let tcp = within("a TCP connection", TcpStream::connect(settings.public)).await.expect("somebody listens");
    let connector = TlsConnector::from(Arc::clone(config));
    let mut stream = within("a TLS handshake", connector.connect(settings.public.ip().into(), tcp)).await.expect("a handshake");
    let close = [("Connection", "close")];
    let asked = request("GET", "/.well-known/oauth-authorization-server", &settings.public.to_string(), &close, "");
    stream.write_all(asked.as_bytes()).await.expect("it is taken");
    // Tickets come with the answer. An end without a goodbye is the other side's affair.
    let mut answer = Vec::new();
    let _ = within("an answer", stream.read_to_end(&mut answer)).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    stream.get_ref().1.handshake_kind().expect("the handshake is done")
}

#[tokio::test]
async fn who_comes_again_resumes_its_session() {
    let world = World::new().await;
    let config = trusting(&world.beta.settings.authority());
    assert_eq!(begins(&world.beta.settings, &config).await, HandshakeKind::Full);
    for _ in 0..3 {
        assert_eq!(begins(&world.beta.settings, &config).await, HandshakeKind::Resumed);
    }
    let stranger = trusting(&world.beta.settings.authority());
    assert_eq!(begins(&world.beta.settings, &stranger).await, HandshakeKind::Full, "a session is its client's own");
}

#[tokio::test(flavor = "multi_thread")]
async fn we_resume_our_session_with_a_peer() {
    let scene = Scene::linked().await;
    assert_eq!(scene.calls().await.status(), 200);
    let before = scene.two.handshakes().len();
    // Connections are kept for each core apart: which of them meets the next fault is chance.
    for _ in 0..6 {
        scene.two.next(Endpoint::Resource, Fault::DroppedBeforeCommit);
        scene.calls().await;
        assert_eq!(scene.calls().await.status(), 200);
    }
    let since = scene.two.handshakes().split_off(before);
    assert!(!since.is_empty() && since.iter().all(|kind| *kind == HandshakeKind::Resumed), "{since:?}");
}
