//! The network rooms together, over real sockets and real TLS.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use axum::routing::get;
use bytes::Bytes;
use http::{Request, Response};

use super::certificate::Pin;
use super::client::{Client, FetchError};
use super::connection::{Connection, Neighbour};
use super::listener::Listener;
use super::outgoing::{Outgoing, Purpose, Share};
use super::places::Audience;
use super::serve::{Server, Serving};
use super::tls::{Identity, ServerTls};
use super::trust::Trust;
use crate::clock::{Clock, Timestamp};
use crate::config::{Limits, Listen, Rate};
use crate::system::SystemRandom;

mod client;
mod deadlines;
mod serve;
mod tls;
mod unreadable;
mod websocket;

/// Far longer than anything here should take: a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// `work`'s outcome, or a failed test.
async fn soon<F: Future>(what: &str, work: F) -> F::Output {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what}: did not happen"))
}

/// Waits until `condition` holds.
async fn until(what: &str, condition: impl Fn() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(super) fn limits() -> Limits {
    Limits {
        header_bytes: 64 << 10,
        form_bytes: 64 << 10,
        body_bytes: 0,
        connections: 100,
        outgoing_connections: 100,
        calls_per_grant: 512,
        calls_per_caller: 1024,
        calls_per_peer: 512,
        queue_per_peer: 1024,
        connect_timeout: Duration::from_secs(5),
        first_byte_timeout: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(60),
        token_timeout: Duration::from_secs(10),
        refresh_wait: Duration::from_secs(10),
        drain: Duration::from_secs(10),
        auth_failures: Rate { count: 20, per: Duration::from_secs(60) },
        client_requests: None,
    }
}

/// Room for connections that go out.
fn share() -> Share {
    Arc::new(Outgoing::new(&limits())).share(Purpose::Peers)
}

/// A service and where it listens.
struct Site {
    server: Server,
    address: SocketAddr,
}

impl Site {
    fn open(limits: &Limits, tls: Option<ServerTls>, router: Router) -> Self {
        Self::on(Server::new(limits, "instance1", &SystemRandom), Audience::Public, tls, router)
    }

    fn on(server: Server, audience: Audience, tls: Option<ServerTls>, router: Router) -> Self {
        let listener = Listener::bind(&Listen::Tcp("127.0.0.1:0".parse().expect("an address")), None).expect("a free port");
        let Listen::Tcp(address) = listener.address() else { unreachable!("TCP was asked for") };
        server.serve(listener, Serving { tls, audience, extended_connect: true, ..Serving::default() }, router);
        Self { server, address }
    }

    fn plain(router: Router) -> Self {
        Self::open(&limits(), None, router)
    }

    fn secure(router: Router, identity: &Identity) -> (Self, ServerTls) {
        let tls = ServerTls::new(identity.clone()).expect("TLS");
        (Self::open(&limits(), Some(tls.clone()), router), tls)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn secure_url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }
}

/// Answers with the caller's address, which tells connections apart.
fn who_calls() -> Router {
    async fn handler(Extension(connection): Extension<Arc<Connection>>, request: axum::extract::Request) -> String {
        let Neighbour::Tcp(address) = connection.neighbour() else { return "unix".to_owned() };
        format!("{address} {:?}", request.version())
    }
    Router::new().route("/", get(handler))
}

/// A certificate for 127.0.0.1 in a folder of its own, and its PEM.
fn identity() -> (Identity, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let url = "https://127.0.0.1:7443".parse().expect("a URL");
    let identity = Identity::self_signed(folder.path(), &url, now()).expect("a certificate");
    let pem = std::fs::read_to_string(folder.path().join("cert.pem")).expect("the certificate's file");
    (identity, pem)
}

fn now() -> Timestamp {
    crate::system::SystemClock::new().now().wall
}

fn trusting(pem: &str) -> Client {
    Client::new(&Trust::only(pem.as_bytes(), "cert.pem").expect("a certificate"), &limits(), share())
}

fn pinning(pin: Pin) -> Client {
    Client::new(&Trust::pinned(pin), &limits(), share())
}

/// A client that trusts nobody, for calls without TLS.
fn anybody() -> Client {
    let (_, pem) = identity();
    trusting(&pem)
}

async fn fetch(client: &Client, url: &str) -> Result<Response<Bytes>, FetchError> {
    let request = Request::get(url).body(Bytes::new()).expect("a request");
    soon("an answer", client.fetch(request, Duration::from_secs(10), 1 << 20)).await
}

async fn text(client: &Client, url: &str) -> String {
    let response = fetch(client, url).await.expect("an answer");
    assert_eq!(response.status(), 200);
    String::from_utf8(response.into_body().to_vec()).expect("text")
}
