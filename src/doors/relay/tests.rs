//! The relay over real sockets, to a peer that a test scripts.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use secrecy::ExposeSecret;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::clock::Clock;
use crate::config::{self, Listen};
use crate::doors::wire::{Answer, loopback, read_until, scripted, sends};
use crate::net::listener::Listener;
use crate::net::serve::{Server, Serving};
use crate::oauth::token::{Kind, mint};
use crate::outbound::caller::Caller;
use crate::outbound::peer::Peer as Record;
use crate::secret::Digest;
use crate::store::{self, Store, Transaction, held_token, sample};
use crate::system::{SystemClock, SystemRandom};
use crate::tasks::keeper::GivenUp;

/// A relay with one caller, linked to one peer.
pub(in crate::doors) struct World {
    _directory: tempfile::TempDir,
    pub(in crate::doors) address: SocketAddr,
    pub(in crate::doors) key: String,
    store: Store,
    instance: Arc<Instance>,
    links: Arc<Links>,
}

const PEER: Id = Id::from_bytes([2; 16]);
const OTHER: Id = Id::from_bytes([3; 16]);

impl World {
    /// A relay linked to the peer at `peer` with the token `t1`; the peer `unlinked` has none. `more` goes into the configuration.
    async fn linked_to(peer: SocketAddr, more: &str) -> Self {
        Self::holding("t1", peer, more).await
    }

    /// The same, with another token.
    pub(in crate::doors) async fn holding(token: &str, peer: SocketAddr, more: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("one.toml");
        let text = format!(
            "[instance]\nname = \"one\"\npublic_url = \"https://one.example:7443\"\nstate_dir = \"state\"\n[public]\nlisten = [\"127.0.0.1:0\"]\n\
             tls = \"off\"\n{more}\n[[route]]\npath = \"/p2pi\"\nupstream = \"http://127.0.0.1:1\"\nscopes = [\"a\"]\n[scopes]\na = \"A\"\n"
        );
        std::fs::write(&file, text).expect("written");
        let config = config::load(&file).unwrap_or_else(|problems| panic!("{}", problems.annotated(false))).config;
        let clock = Arc::new(SystemClock::new());
        let store = Store::open(&directory.path().join("state"), None, clock.clone()).expect("a new store");
        let key = mint(Kind::CallerKey, &SystemRandom).expose_secret().to_owned();
        Self::written(&store, peer, token.to_owned(), Digest::of(&key), clock.as_ref()).await;

        let limits = config.limits.clone();
        let instance = Arc::new(Instance::new(Arc::new(config), store.clone(), clock, Arc::new(SystemRandom)));
        let links = Links::start(Arc::clone(&instance)).await.expect("links");
        let relay = Arc::new(Relay::start(Arc::clone(&instance), Arc::clone(&links)).await.expect("callers"));
        let server = Server::new(&limits, "one", &SystemRandom);
        let listener = Listener::bind(&Listen::Tcp(loopback()), None).expect("a free port");
        let Listen::Tcp(address) = listener.address() else { panic!("a TCP listener has a TCP address") };
        let serving = Serving { extended_connect: true, ..Serving::default() };
        server.serve(listener, serving, relay.service(Some(address.port())));
        Self { _directory: directory, address, key, store, instance, links }
    }

    async fn written(store: &Store, peer: SocketAddr, token: String, key: Digest, clock: &dyn Clock) {
        let now = clock.now();
        let (seals, epoch) = (store.seals().clone(), store.epoch());
        let judge = move |transaction: &Transaction<'_>| {
            let linked = sample::linked_peer(transaction, &seals, epoch, &format!("http://{peer}"), &token)?;
            let unlinked = Record { id: OTHER, name: "unlinked".to_owned(), ..linked };
            store::peer::insert(transaction, &seals, &unlinked)?;
            let caller = Caller {
                id: Id::from_bytes([9; 16]),
                tenant: "default".to_owned(),
                name: "shop".to_owned(),
                key,
                peers: Some(vec![PEER, OTHER]),
                created_at: now.wall,
            };
            store::caller::insert(transaction, &caller)?;
            Ok(())
        };
        store.write(judge).await.expect("written");
    }

    /// Lets the peer `two` be at another place, which gave another token.
    async fn moves_to(&self, place: SocketAddr) {
        let (seals, epoch) = (self.store.seals().clone(), self.store.epoch());
        let judge = move |transaction: &Transaction<'_>| {
            let mut record = store::peer::by_id(transaction, &seals, PEER)?.expect("it is there");
            let mut held = held_token::of_peer(transaction, &seals, epoch, PEER)?.expect("it is linked");
            record.base_url = Some(format!("http://{place}/p2pi").parse().expect("a URL"));
            held.access = "t2".into();
            store::peer::update(transaction, &seals, &record)?;
            store::peer::raise_generation(transaction, PEER, record.generation)?;
            held_token::put(transaction, &seals, epoch, PEER, &held)
        };
        self.store.write(judge).await.expect("written");
        self.links.changed(PEER).await;
    }

    /// A whole request with the caller's key.
    async fn asks(&self, method: &str, path: &str, rest: &str) -> Answer {
        self.sends(method, path, &format!("authorization: Bearer {}\r\n{rest}", self.key)).await
    }

    async fn gets(&self, path: &str) -> Answer {
        self.asks("GET", path, "\r\n").await
    }

    async fn sends(&self, method: &str, path: &str, rest: &str) -> Answer {
        sends(self.address, &format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{rest}", self.address)).await
    }
}

/// What a scripted peer does with a call that presents a token other than `t2`.
#[derive(Clone, Copy, PartialEq)]
enum Refuses {
    /// As a gateway: 401 `invalid_token`, before the body is read.
    AsGateway,
    /// As a gateway, but after the body was read.
    Late,
    /// With a 401 of its own.
    AsSomebody,
    /// Not at all.
    Never,
}

/// A peer that gives `t2` for `r1`, refuses other tokens, and answers with the body that it got.
struct Peer {
    address: SocketAddr,
    /// Of each call: method, target, headers.
    calls: Arc<Mutex<Vec<(Method, String, HeaderMap)>>>,
    refreshes: Arc<Mutex<usize>>,
}

impl Peer {
    async fn that(refuses: Refuses) -> Self {
        let listener = TcpListener::bind(loopback()).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (calls, refreshes): (Arc<Mutex<Vec<_>>>, Arc<Mutex<usize>>) = Default::default();
        let peer = Self { address, calls: Arc::clone(&calls), refreshes: Arc::clone(&refreshes) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (calls, refreshes) = (Arc::clone(&calls), Arc::clone(&refreshes));
                let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (calls, refreshes) = (Arc::clone(&calls), Arc::clone(&refreshes));
                    async move { answered(request, refuses, &calls, &refreshes).await }
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        peer
    }

    fn calls(&self) -> Vec<(Method, String, HeaderMap)> {
        self.calls.lock().expect("no panic").clone()
    }

    fn refreshes(&self) -> usize {
        *self.refreshes.lock().expect("no panic")
    }
}

async fn answered(
    request: Request<hyper::body::Incoming>,
    refuses: Refuses,
    calls: &Mutex<Vec<(Method, String, HeaderMap)>>,
    refreshes: &Mutex<usize>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(Full::default());
    if head.uri.path() == "/oauth/token" {
        *refreshes.lock().expect("no panic") += 1;
        let pair = json!({ "access_token": "t2", "token_type": "Bearer", "expires_in": 3600, "refresh_token": "r2" });
        *response.body_mut() = Full::from(pair.to_string());
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        return Ok(response);
    }
    let is_good = refuses == Refuses::Never || head.headers["authorization"] == "Bearer t2";
    calls.lock().expect("no panic").push((head.method, head.uri.to_string(), head.headers));
    if !is_good {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        if refuses != Refuses::AsSomebody {
            response.headers_mut().insert("p2pi-error", HeaderValue::from_static("invalid_token"));
        }
        if refuses == Refuses::Late {
            body.collect().await?;
        }
        return Ok(response);
    }
    response.headers_mut().insert("location", HeaderValue::from_static("https://elsewhere.example/"));
    *response.body_mut() = Full::new(body.collect().await?.to_bytes());
    Ok(response)
}

#[tokio::test]
async fn a_caller_needs_a_key_and_learns_only_of_its_own_peers() {
    let peer = Peer::that(Refuses::Never).await;
    let world = World::linked_to(peer.address, "").await;
    for (path, authorization, status, code) in [
        ("/two/x", String::new(), 401, "caller_denied"),
        ("/two/x", "authorization: Bearer p2pl_garbage\r\n".to_owned(), 401, "caller_denied"),
        ("/two/x", "authorization: Basic YTpi\r\n".to_owned(), 401, "caller_denied"),
        ("/nobody/x", format!("authorization: Bearer {}\r\n", world.key), 403, "caller_denied"),
        ("/", format!("authorization: Bearer {}\r\n", world.key), 403, "caller_denied"),
        ("/unlinked/x", format!("authorization: Bearer {}\r\n", world.key), 503, "not_linked"),
        ("/two/../x", format!("authorization: Bearer {}\r\n", world.key), 400, "bad_path"),
    ] {
        let answer = world.sends("GET", path, &format!("{authorization}\r\n")).await;
        assert_eq!(answer.error(), (status, Some(code)), "{path} {authorization}");
        assert_eq!(answer.header("p2pi-error-from"), Some("one"));
    }
    assert_eq!(world.sends("GET", "/two/x", "\r\n").await.header("www-authenticate"), Some("Bearer realm=\"p2pid relay\""));
    assert!(peer.calls().is_empty());
    assert_eq!(world.gets("/two/x").await.status(), 200);
}

#[tokio::test]
async fn an_open_relay_needs_no_key_but_refuses_a_wrong_one() {
    let peer = Peer::that(Refuses::Never).await;
    let world = World::linked_to(peer.address, "[local]\nopen = true").await;
    assert_eq!(world.sends("GET", "/two/x", "\r\n").await.status(), 200);
    assert_eq!(world.sends("GET", "/nobody/x", "\r\n").await.error(), (404, Some("unknown_peer")));
    for wrong in ["Bearer p2pl_garbage", "Basic YTpi", "Bearer"] {
        let answer = world.sends("GET", "/two/x", &format!("authorization: {wrong}\r\n\r\n")).await;
        assert_eq!(answer.error(), (401, Some("caller_denied")), "{wrong}");
    }
}

#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let peer = Peer::that(Refuses::Never).await;
    let world = World::linked_to(peer.address, "[local]\nopen = true\norigins = [\"https://tool.example\"]").await;
    for (header, status) in [
        ("origin: https://evil.example", 403),
        ("origin: null", 403),
        ("sec-fetch-site: cross-site", 403),
        ("sec-fetch-site: same-origin", 200),
        ("origin: https://tool.example", 200),
    ] {
        assert_eq!(world.sends("GET", "/two/x", &format!("{header}\r\n\r\n")).await.status(), status, "{header}");
    }
    // What no relay forwards is said so, whatever host it names.
    for (line, error) in [
        ("CONNECT evil.example:443", (405, Some("method_not_allowed"))),
        ("TRACE /two/x", (405, Some("method_not_allowed"))),
        ("GET http://evil.example/two/x", (400, Some("bad_path"))),
    ] {
        let answer = sends(world.address, &format!("{line} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(answer.error(), error, "{line}");
    }
    let rebound = sends(world.address, "GET /two/x HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n").await;
    assert_eq!(rebound.error(), (403, Some("browser_refused")));
}

#[tokio::test]
async fn c9_the_peer_gets_its_token_and_nothing_of_the_callers() {
    let peer = Peer::that(Refuses::Never).await;
    let world = World::linked_to(peer.address, "").await;
    let forged = "p2pi-client: x\r\ncookie: __Host-p2pid-session-00000000=s; a=b\r\np2pi-request-id: order-7\r\n\r\n";
    let answer = world.asks("GET", "/two/orders/%61?x=1&access_token=theirs", forged).await;
    assert_eq!((answer.status(), answer.header("location")), (200, Some("https://elsewhere.example/")), "no redirect is followed");
    let (_, target, headers) = peer.calls().pop().expect("one call");
    assert_eq!(target, "/p2pi/orders/a?x=1&access_token=theirs");
    assert_eq!(headers["authorization"], "Bearer t1");
    assert_eq!(
        (&headers["cookie"], &headers["host"]),
        (&HeaderValue::from_static("a=b"), &HeaderValue::try_from(peer.address.to_string()).expect("visible"))
    );
    assert_eq!(headers["p2pi-request-id"], "order-7");
    assert!(!headers.contains_key("p2pi-client") && !format!("{headers:?}").contains(&world.key));
}

#[tokio::test]
async fn c9_a_credential_stays_with_its_place_when_the_peer_moves_during_a_call() {
    let (arrived, mut at_the_old_place) = tokio::sync::mpsc::channel(1);
    let (go_on, told) = tokio::sync::mpsc::channel::<()>(1);
    let told = Arc::new(tokio::sync::Mutex::new(told));
    let old_place = scripted(move |mut stream, _| {
        let (arrived, told) = (arrived.clone(), Arc::clone(&told));
        async move {
            let _ = arrived.send(()).await;
            told.lock().await.recv().await;
            let refusal = "HTTP/1.1 401 Unauthorized\r\np2pi-error: invalid_token\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            let _ = stream.write_all(refusal.as_bytes()).await;
        }
    })
    .await;
    let new_place = Peer::that(Refuses::AsGateway).await;
    let world = Arc::new(World::linked_to(old_place, "").await);
    let call = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.gets("/two/orders").await })
    };
    at_the_old_place.recv().await.expect("the call arrives");
    world.moves_to(new_place.address).await;
    go_on.send(()).await.expect("the old place listens");
    assert_eq!(call.await.expect("no panic").error(), (503, Some("retry_call")));
    assert_eq!(new_place.calls().len(), 0, "a call that was meant for the old place");
    assert!(at_the_old_place.try_recv().is_err(), "the new token at the old place");
    assert_eq!(world.gets("/two/orders").await.status(), 200);
    let tokens: Vec<_> = new_place.calls().iter().map(|(_, _, headers)| headers["authorization"].clone()).collect();
    assert_eq!(tokens, ["Bearer t2"]);
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_and_the_call_made_again() {
    let peer = Peer::that(Refuses::AsGateway).await;
    let world = World::linked_to(peer.address, "").await;
    let answer = world.asks("POST", "/two/orders", "content-length: 5\r\n\r\nhello").await;
    assert_eq!(answer.status(), 200, "{}", answer.0);
    assert!(answer.0.ends_with("hello"));
    let tokens: Vec<_> = peer.calls().iter().map(|(_, _, headers)| headers["authorization"].clone()).collect();
    assert_eq!(tokens, ["Bearer t1", "Bearer t2"]);
    assert_eq!(peer.refreshes(), 1);
    assert_eq!(world.asks("POST", "/two/orders", "content-length: 5\r\n\r\nagain").await.status(), 200);
    assert_eq!((peer.calls().len(), peer.refreshes()), (3, 1));
}

#[tokio::test]
async fn a_body_without_a_length_reaches_the_peer_whatever_the_method() {
    // With a token that is refused at first, so that the body is also sent from what is remembered of it.
    for refuses in [Refuses::Never, Refuses::AsGateway] {
        let peer = Peer::that(refuses).await;
        for method in ["GET", "HEAD", "DELETE"] {
            let world = World::linked_to(peer.address, "").await;
            let answer = world.asks(method, "/two/x", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").await;
            assert_eq!((answer.status(), answer.header("content-length")), (200, Some("5")), "{method}: {}", answer.0);
        }
    }
}

#[tokio::test]
async fn many_calls_with_a_refused_token_share_one_refresh() {
    let peer = Peer::that(Refuses::AsGateway).await;
    let world = Arc::new(World::linked_to(peer.address, "").await);
    let calls = (0..20).map(|_| {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.asks("POST", "/two/orders", "content-length: 5\r\n\r\nhello").await.status() })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.expect("no panic"), 200);
    }
    assert_eq!(peer.refreshes(), 1);
}

#[tokio::test]
async fn a_long_body_waits_until_the_token_was_looked_at() {
    let peer = Peer::that(Refuses::AsGateway).await;
    let world = World::linked_to(peer.address, "").await;
    let body = "a".repeat(tape::MOST * 2);
    let answer = world.asks("PUT", "/two/file", &format!("content-length: {}\r\n\r\n{body}", body.len())).await;
    assert_eq!(answer.status(), 200);
    assert!(answer.0.ends_with(&body));
    assert!(peer.calls().iter().all(|(_, _, headers)| headers["expect"] == "100-continue"));
    assert_eq!((peer.calls().len(), peer.refreshes()), (2, 1));
}

#[tokio::test]
async fn a_body_that_is_not_remembered_is_to_be_sent_again_by_the_caller() {
    let peer = Peer::that(Refuses::Late).await;
    let world = World::linked_to(peer.address, "").await;
    let body = "a".repeat(tape::MOST * 2);
    let chunked = format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let answer = world.asks("POST", "/two/file", &chunked).await;
    assert_eq!((answer.error(), answer.header("retry-after")), ((503, Some("retry_call")), Some("0")));
    assert_eq!(world.asks("POST", "/two/file", &chunked).await.status(), 200, "the token was renewed meanwhile");
    assert_eq!(peer.refreshes(), 1);
}

#[tokio::test]
async fn a_401_of_somebody_else_is_tried_again_only_where_that_changes_nothing() {
    let peer = Peer::that(Refuses::AsSomebody).await;
    let world = World::linked_to(peer.address, "").await;
    assert_eq!(world.asks("POST", "/two/orders", "content-length: 5\r\n\r\nhello").await.status(), 401);
    assert_eq!((peer.calls().len(), peer.refreshes()), (1, 0));
    assert_eq!(world.gets("/two/orders").await.status(), 200);
    assert_eq!((peer.calls().len(), peer.refreshes()), (3, 1));
}

#[tokio::test]
async fn a_peer_that_is_away_or_silent_is_told_apart_and_too_many_calls_are_refused() {
    let gone = TcpListener::bind(loopback()).await.expect("a free port").local_addr().expect("an address");
    assert_eq!(World::linked_to(gone, "").await.gets("/two/x").await.error(), (502, Some("peer_unreachable")));

    let silent = scripted(|stream, _| async move {
        tokio::time::sleep(Duration::from_secs(10)).await;
        drop(stream);
    })
    .await;
    let limits = "[limits]\nfirst_byte_timeout = \"300ms\"\ncalls_per_peer = 1\nqueue_per_peer = 1";
    let world = Arc::new(World::linked_to(silent, limits).await);
    let calls = (0..3).map(|_| {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            let answer = world.gets("/two/x").await;
            (answer.error().0, answer.error().1.map(str::to_owned), answer.header("retry-after").map(str::to_owned))
        })
    });
    let mut answers = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        answers.push(call.await.expect("no panic"));
    }
    let overloaded = (503, Some("overloaded".to_owned()), Some("1".to_owned()));
    assert!(answers.contains(&overloaded), "{answers:?}");
    assert!(answers.contains(&(504, Some("peer_timeout".to_owned()), None)), "{answers:?}");
}

#[tokio::test]
async fn unlinking_ends_open_streams_and_later_calls() {
    let events = scripted(|mut stream, _| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n").await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        drop(stream);
    })
    .await;
    let world = World::linked_to(events, "").await;
    let mut stream = TcpStream::connect(world.address).await.expect("a connection");
    let request = format!("GET /two/events HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\r\n", world.address, world.key);
    stream.write_all(request.as_bytes()).await.expect("sent");
    read_until(&mut stream, "data: 1").await;
    world.links.unlink(PEER, GivenUp::Forgotten).await.expect("stored");
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await.expect("the stream to end");
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a stream that was cut does not look whole");
    assert_eq!(world.gets("/two/x").await.error(), (503, Some("not_linked")));
}

#[tokio::test]
async fn fresh_calls_ask_the_database_nothing_and_a_key_that_was_taken_away_is_refused() {
    let peer = Peer::that(Refuses::Never).await;
    let world = World::linked_to(peer.address, "").await;
    let before = world.store.statements();
    for _ in 0..100 {
        assert_eq!(world.gets("/two/x").await.status(), 200);
    }
    // The keeper asks a few things at its start, which may be now; a statement for each call would be a hundred.
    let asked = world.store.statements() - before;
    assert!(asked < 100, "{asked} statements");
    world.store.write(|transaction: &Transaction<'_>| store::caller::delete(transaction, Id::from_bytes([9; 16]))).await.expect("deleted");
    world.instance.callers.reload(&world.store).await.expect("read");
    assert_eq!(world.gets("/two/x").await.error(), (401, Some("caller_denied")));
}
