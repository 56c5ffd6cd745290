//! The gateway over real sockets: what a peer may send, what the application gets, and what comes back.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::config;
use crate::doors::wire::{Answer, echo, events, loopback, over_http2, read_until, scripted, sends};
use crate::net::listener::Listener;
use crate::net::serve::{Server, Serving};
use crate::net::trust::Trust;
use crate::secret::ExposeSecret;
use crate::store::token_table::TokenTable;
use crate::store::{Store, sample};
use crate::system::SystemRandom;

/// A gateway in front of an application that a test scripts.
pub(in crate::doors) struct World {
    _directory: tempfile::TempDir,
    pub(in crate::doors) address: SocketAddr,
    pub(in crate::doors) token: String,
    pub(in crate::doors) tokens: Arc<TokenTable>,
    store: Store,
    clock: Arc<sample::StandingClock>,
}

impl World {
    /// A gateway whose routes lead to `upstream`; `more` goes into its configuration.
    pub(in crate::doors) async fn before(upstream: SocketAddr, more: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let config = written(directory.path(), upstream, more);
        let clock = sample::StandingClock::new();
        let store = Store::open(directory.path(), None, clock.clone()).expect("a new store");
        let token = sample::linked(&store).await.access.expose_secret().to_owned();
        let limits = config.limits.clone();
        let instance = Arc::new(Instance::new(Arc::new(config), store.clone(), clock.clone(), Arc::new(SystemRandom)));
        let share = instance.outgoing.share(Purpose::Applications);
        let client = Client::new(&Trust::system(&[]).expect("the system's authorities"), &limits, share);
        let tokens = Arc::clone(&instance.tokens);
        let gateway = Arc::new(Gateway::new(instance, client));
        let server = Server::new(&limits, "two", &SystemRandom);
        let listener = Listener::bind(&config::Listen::Tcp(loopback()), None).expect("a free port");
        let config::Listen::Tcp(address) = listener.address() else { panic!("a TCP listener has a TCP address") };
        let built_in = Router::new().fallback(|| async { "ours" });
        server.serve(listener, Serving { extended_connect: true, ..Serving::default() }, gateway.service(built_in));
        Self { _directory: directory, address, token, tokens, store, clock }
    }

    /// A gateway before an application that answers 200 and remembers what it got.
    async fn before_application(more: &str) -> (Self, Application) {
        let application = Application::running().await;
        (Self::before(application.address, more).await, application)
    }

    async fn sends(&self, request: &str) -> Answer {
        sends(self.address, request).await
    }

    /// A whole request with a good token.
    async fn gets(&self, path: &str, headers: &str) -> Answer {
        self.asks("GET", path, &format!("authorization: Bearer {}\r\n{headers}", self.token)).await
    }

    async fn asks(&self, method: &str, path: &str, headers: &str) -> Answer {
        self.sends(&format!("{method} {path} HTTP/1.1\r\nhost: two.example\r\nconnection: close\r\n{headers}\r\n")).await
    }

    async fn over_http2<B>(&self) -> hyper::client::conn::http2::SendRequest<B>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        over_http2(self.address).await
    }
}

fn written(directory: &Path, upstream: SocketAddr, more: &str) -> Config {
    let (first, rest) = more.split_once("[[route]]").map_or((more, ""), |(first, rest)| (first, rest));
    let rest = if rest.is_empty() { String::new() } else { format!("[[route]]{rest}").replace("UPSTREAM", &upstream.to_string()) };
    let text = format!(
        "[instance]\nname = \"two\"\npublic_url = \"https://two.example:7443\"\nstate_dir = \"state\"\n[public]\nlisten = [\"127.0.0.1:0\"]\ntls = \"off\"\n\
         {first}\n[[route]]\npath = \"/p2pi\"\nupstream = \"http://{upstream}/base\"\nscopes = [\"a\"]\n{rest}\n[scopes]\na = \"A\"\nb = \"B\"\nc = \"C\"\n"
    );
    let file = directory.join("two.toml");
    std::fs::write(&file, text).expect("written");
    match config::load(&file) {
        Ok(loaded) => loaded.config,
        Err(problems) => panic!("{}", problems.annotated(false)),
    }
}

/// An application that answers 200 to everything, and remembers heads.
struct Application {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

impl Application {
    async fn running() -> Self {
        let listener = TcpListener::bind(loopback()).await.expect("a free port");
        let (address, seen) = (listener.local_addr().expect("an address"), Arc::new(Mutex::new(Vec::new())));
        let remembered = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let remembered = Arc::clone(&remembered);
                let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                    let remembered = Arc::clone(&remembered);
                    async move {
                        let (head, body) = request.into_parts();
                        let line = format!("{} {}", head.method, head.uri);
                        remembered.lock().expect("no panic").push((line, head.headers));
                        let body = body.collect().await?;
                        let trailer = body.trailers().and_then(|trailers| trailers.get("checksum")).cloned();
                        let mut response = http::Response::new(Full::new(body.to_bytes()));
                        let headers = response.headers_mut();
                        headers.insert("p2pi-error", HeaderValue::from_static("invalid_token"));
                        headers.insert("strict-transport-security", HeaderValue::from_static("max-age=1"));
                        headers.insert("x-trailer", trailer.unwrap_or(HeaderValue::from_static("none")));
                        Ok::<_, hyper::Error>(response)
                    }
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, seen }
    }

    fn requests(&self) -> usize {
        self.seen.lock().expect("no panic").len()
    }

    fn last(&self) -> (String, HeaderMap) {
        self.seen.lock().expect("no panic").last().cloned().expect("the application was reached")
    }
}

#[tokio::test]
async fn g1_the_token_is_in_one_authorization_header_only() {
    let (world, application) = World::before_application("").await;
    let token = &world.token;
    let cases = [
        ("/p2pi/x", String::new(), 401, "no_token"),
        ("/p2pi/x", "authorization: Basic YTpi\r\n".to_owned(), 401, "no_token"),
        (&format!("/p2pi/x?access_token={token}"), String::new(), 401, "no_token"),
        (&format!("/p2pi/x?access_token={token}"), format!("authorization: Bearer {token}\r\n"), 400, "bad_request"),
        ("/p2pi/x", format!("authorization: Bearer {token}\r\nauthorization: Bearer {token}\r\n"), 400, "bad_request"),
        ("/p2pi/x", "authorization: Bearer p2pa_garbage\r\n".to_owned(), 401, "invalid_token"),
        ("/other", format!("authorization: Bearer {token}\r\n"), 404, "no_route"),
        ("/other", "authorization: Bearer garbage\r\n".to_owned(), 404, "no_route"),
    ];
    for (path, headers, status, code) in cases {
        let answer = world.asks("GET", path, &headers).await;
        assert_eq!(answer.error(), (status, Some(code)), "{path} {headers}");
        assert_eq!(answer.header("p2pi-error-from"), Some("two"));
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert!(!answer.0.contains(token), "no answer repeats the token");
    }
    assert_eq!(application.requests(), 0);
    assert_eq!(world.gets("/p2pi/x", "").await.status(), 200);
}

#[tokio::test]
async fn a_token_in_the_query_is_taken_only_where_that_is_allowed_and_goes_no_further() {
    let (world, application) = World::before_application("[compat]\nquery_token = true").await;
    let token = &world.token;
    assert_eq!(world.asks("GET", &format!("/p2pi/x?a=1&access_token={token}"), "").await.status(), 200);
    assert_eq!(application.last().0, "GET /base/x?a=1");
    assert_eq!(world.asks("GET", "/p2pi/x?access_token=garbage", "").await.error(), (401, Some("invalid_token")));
    assert_eq!(world.asks("GET", "/p2pi/x?a=1", "").await.error(), (401, Some("no_token")));
    assert_eq!(world.gets(&format!("/p2pi/x?access_token={token}"), "").await.error(), (400, Some("bad_request")));
}

#[tokio::test]
async fn g2_challenges_say_what_was_wrong_and_where_the_metadata_is() {
    let more = "[[route]]\npath = \"/c\"\nupstream = \"http://UPSTREAM\"\nscopes = [\"c\"]";
    let (world, _application) = World::before_application(more).await;
    let metadata = "Bearer resource_metadata=\"https://two.example:7443/.well-known/oauth-protected-resource\"";
    assert_eq!(world.asks("GET", "/p2pi", "").await.header("www-authenticate"), Some(metadata));
    let bad = world.asks("GET", "/p2pi", "authorization: Bearer x\r\n").await;
    assert_eq!(bad.header("www-authenticate"), Some(format!("{metadata}, error=\"invalid_token\"").as_str()));
    let lacking = world.gets("/c", "").await;
    assert_eq!(lacking.error(), (403, Some("insufficient_scope")));
    assert_eq!(lacking.header("www-authenticate"), Some(format!("{metadata}, error=\"insufficient_scope\", scope=\"c\"").as_str()));
}

#[tokio::test]
async fn g3_life_method_tenant_and_scope_are_judged_before_anything_is_forwarded() {
    let more = "[[route]]\npath = \"/get\"\nupstream = \"http://UPSTREAM\"\nscopes = [\"a\"]\nmethods = [\"GET\", \"HEAD\"]\n\
                [[route]]\npath = \"/sales\"\nupstream = \"http://UPSTREAM\"\nscopes = []\ntenant = \"sales\"\n";
    let (world, application) = World::before_application(more).await;
    assert_eq!(world.gets("/get", "").await.status(), 200);
    assert_eq!(world.gets("/sales", "").await.error(), (404, Some("no_route")), "as if there were none");
    let authorization = format!("authorization: Bearer {}\r\n", world.token);
    let refused = world.asks("DELETE", "/get", &authorization).await;
    assert_eq!((refused.error(), refused.header("allow")), ((405, Some("method_not_allowed")), Some("GET, HEAD")));
    for method in ["TRACE", "CONNECT"] {
        assert_eq!(world.asks(method, "/get", &authorization).await.error(), (405, Some("method_not_allowed")), "{method}");
    }
    // Nor does a header make it another method behind the route's back.
    for header in ["X-HTTP-Method-Override: DELETE", "X_HTTP_Method: delete", "x-method-override: GET, DELETE", "X-HTTP-Method-Override: "]
    {
        assert_eq!(world.gets("/get", &format!("{header}\r\n")).await.error(), (405, Some("method_not_allowed")), "{header}");
        assert_eq!(world.gets("/p2pi", &format!("{header}\r\n")).await.status(), 200, "a route that takes every method");
    }
    assert_eq!(world.gets("/get", "X-HTTP-Method-Override: head\r\n").await.status(), 200);
    world.clock.pass(sample::HOUR);
    assert_eq!(world.gets("/get", "").await.error(), (401, Some("invalid_token")));
    assert_eq!(application.requests(), 6);
}

#[tokio::test]
async fn g4_the_application_hears_from_us_who_calls_and_nothing_from_the_caller() {
    let (world, application) = World::before_application("").await;
    let forged = "P2PI-Client: admin\r\nP2PI_Subject: admin\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n\
                  Cookie: __Host-p2pid-session-00000000=s; a=b\r\nX-Hop: 1\r\nConnection: X-Hop, P2PI-Scope\r\ntraceparent: 00-1-2-01\r\n";
    let answer = world.gets("/p2pi/orders/%61?x=%2e%2e&y", forged).await;
    assert_eq!(answer.status(), 200);
    assert_eq!((answer.header("p2pi-error"), answer.header("strict-transport-security")), (None, None));
    let (line, headers) = application.last();
    assert_eq!(line, "GET /base/orders/a?x=%2e%2e&y");
    let mut names: Vec<&str> = headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    let expected = [
        "cookie",
        "forwarded",
        "host",
        "p2pi-client",
        "p2pi-instance",
        "p2pi-request-id",
        "p2pi-scope",
        "p2pi-subject",
        "p2pi-tenant",
        "traceparent",
    ];
    assert_eq!(names, expected);
    for (name, value) in [
        ("cookie", "a=b"),
        ("forwarded", "for=127.0.0.1;host=\"two.example:7443\";proto=https"),
        ("host", &application.address.to_string()),
        ("p2pi-client", "client-one"),
        ("p2pi-instance", "one"),
        ("p2pi-scope", "a b"),
        ("p2pi-subject", "ops@two.example"),
        ("p2pi-tenant", "default"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
}

#[tokio::test]
async fn g4_a_path_of_two_meanings_reaches_nobody_and_our_own_paths_are_ours() {
    let (world, application) = World::before_application("").await;
    for path in [
        "/p2pi/../x",
        "/p2pi/%2e%2e/x",
        "/p2pi//x",
        "/p2pi/a%2fb",
        "/p2pi/a%5cb",
        "/p2pi/%00",
        "/p2pi/%",
        "/p2pi/%c0%ae/x",
        "http://two.example/p2pi",
    ] {
        assert_eq!(world.gets(path, "").await.error(), (400, Some("bad_path")), "{path}");
    }
    for path in ["/oauth/token", "/link/x", "/login", "/.well-known/oauth-protected-resource/p2pi"] {
        assert!(world.gets(path, "").await.0.ends_with("ours"), "{path}");
    }
    assert_eq!(world.gets("/%6fauth/token", "").await.error(), (404, Some("no_route")));
    assert_eq!(application.requests(), 0);
}

#[test]
fn our_own_paths_are_also_below_the_path_of_a_public_url() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = written(directory.path(), loopback(), "");
    let path = directory.path().join("two.toml");
    let text = std::fs::read_to_string(&path).expect("it was written").replace("two.example:7443", "two.example/base");
    std::fs::write(&path, text).expect("written");
    let below_base = config::load(&path).unwrap_or_else(|problems| panic!("{}", problems.annotated(false))).config;
    assert!(is_built_in("/oauth/token", &config) && !is_built_in("/base/oauth/token", &config) && !is_built_in("/oauthx", &config));
    assert!(
        is_built_in("/oauth/token", &below_base) && is_built_in("/base/oauth/token", &below_base) && !is_built_in("/base/x", &below_base)
    );
}

#[tokio::test]
async fn g5_requests_that_frame_themselves_in_two_ways_do_not_smuggle() {
    let (world, application) = World::before_application("").await;
    let authorization = format!("authorization: Bearer {}\r\nhost: two.example\r\n", world.token);
    let smuggled = "GET /p2pi/smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    for refused in [
        "content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "content-length: 3, 4\r\n\r\nabcd",
        "content-length: +3\r\n\r\nabc",
        "content-length: 0x3\r\n\r\nabc",
        "transfer-encoding: gzip\r\n\r\nabc",
        "transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    ] {
        let answer = world.sends(&format!("POST /p2pi HTTP/1.1\r\n{authorization}{refused}{smuggled}")).await;
        assert_eq!(answer.status(), 400, "{refused:?}: {}", answer.0);
    }
    for coding in ["gzip, chunked", "gzip\r\ntransfer-encoding: chunked", "identity, chunked"] {
        let call = format!("POST /p2pi HTTP/1.1\r\n{authorization}connection: close\r\ntransfer-encoding: {coding}\r\n\r\n0\r\n\r\n");
        assert_eq!(world.sends(&call).await.error(), (400, Some("bad_request")), "{coding:?}");
    }
    assert_eq!(application.requests(), 0);

    // Chunked wins over a length, the length is not passed on, and the connection is closed: what follows is not read.
    let both = format!("POST /p2pi HTTP/1.1\r\n{authorization}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}");
    let answer = world.sends(&both).await;
    assert_eq!((answer.status(), answer.0.matches("HTTP/1.1").count()), (200, 1));
    assert_eq!(application.requests(), 1);
    assert!(!application.last().1.contains_key("content-length") || application.last().1["content-length"] == "0");

    let nobody = world.sends(&format!("GET /p2pi HTTP/1.1\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n", world.token)).await;
    assert_eq!(nobody.error(), (400, Some("bad_request")), "a request without a host");
    assert_eq!(application.requests(), 1);
}

#[tokio::test]
async fn bodies_and_trailers_pass_over_both_versions_of_http() {
    let (world, application) = World::before_application("").await;
    let chunked = format!(
        "POST /p2pi HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\ntransfer-encoding: chunked\r\ntrailer: checksum\r\n\r\n\
         3\r\nabc\r\n2\r\nde\r\n0\r\nchecksum: 7\r\nauthorization: Bearer x\r\n\r\n",
        world.token
    );
    let answer = world.sends(&chunked).await;
    assert_eq!((answer.status(), answer.header("x-trailer")), (200, Some("7")));
    assert!(answer.0.ends_with("abcde"));

    let mut sender = world.over_http2().await;
    let mut trailers = HeaderMap::new();
    trailers.insert("checksum", HeaderValue::from_static("8"));
    let frames = [Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(b"fgh"))), Ok(Frame::trailers(trailers))];
    let request = Request::post(format!("http://{}/p2pi/x", world.address))
        .header("authorization", format!("Bearer {}", world.token))
        .header("trailer", "checksum")
        .header("te", "trailers")
        .body(StreamBody::new(futures_util::stream::iter(frames)))
        .expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!((response.status(), response.headers()["x-trailer"].as_bytes()), (StatusCode::OK, &b"8"[..]));
    assert_eq!(response.into_body().collect().await.expect("whole").to_bytes(), "fgh");
    assert_eq!(application.last().1["te"], "trailers");
}

#[tokio::test]
async fn g5_a_body_without_a_length_reaches_the_application_whatever_the_method() {
    let (world, application) = World::before_application("").await;
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "QUERY"] {
        let chunked = format!(
            "{method} /p2pi HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
             3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            world.token
        );
        let answer = world.sends(&chunked).await;
        assert_eq!((answer.status(), answer.header("content-length")), (200, Some("5")), "{method}: {}", answer.0);

        let frames = [Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(b"fghi")))];
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}/p2pi", world.address))
            .header("authorization", format!("Bearer {}", world.token))
            .body(StreamBody::new(futures_util::stream::iter(frames)))
            .expect("a request");
        let response = world.over_http2().await.send_request(request).await.expect("an answer");
        assert_eq!((response.status(), response.headers()["content-length"].as_bytes()), (StatusCode::OK, &b"4"[..]), "{method}");
    }
    let before = application.requests();
    assert_eq!(world.gets("/p2pi", "").await.status(), 200);
    assert!(application.requests() == before + 1 && !application.last().1.contains_key("transfer-encoding"), "there is no body");
}

#[tokio::test]
async fn g5_a_body_beyond_the_limit_is_413_whether_it_says_so_or_not() {
    let (world, _application) = World::before_application("[limits]\nbody_bytes = 8").await;
    let head = format!("POST /p2pi HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\n", world.token);
    assert_eq!(world.sends(&format!("{head}content-length: 8\r\n\r\nabcdefgh")).await.status(), 200);
    assert_eq!(world.sends(&format!("{head}content-length: 9\r\n\r\n")).await.error(), (413, Some("body_too_large")));
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n6\r\nabcdef\r\n3\r\nghi\r\n0\r\n\r\n");
    assert_eq!(world.sends(&chunked).await.error(), (413, Some("body_too_large")));
}

#[tokio::test]
async fn an_application_that_is_away_or_silent_is_told_apart() {
    let gone = TcpListener::bind(loopback()).await.expect("a free port").local_addr().expect("an address");
    let world = World::before(gone, "").await;
    assert_eq!(world.gets("/p2pi", "").await.error(), (502, Some("upstream_unreachable")));

    let silent = scripted(|stream, _| async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(stream);
    })
    .await;
    let world = World::before(silent, "[limits]\nfirst_byte_timeout = \"100ms\"").await;
    assert_eq!(world.gets("/p2pi", "").await.error(), (504, Some("upstream_timeout")));

    let switching = scripted(|mut stream, _| async move {
        let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n").await;
    })
    .await;
    let world = World::before(switching, "").await;
    assert_eq!(world.gets("/p2pi", "").await.error(), (502, Some("upstream_unreachable")));
    let websocket = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n";
    assert_eq!(world.gets("/p2pi", websocket).await.error(), (502, Some("upstream_unreachable")));
}

#[tokio::test]
async fn g5_an_answer_that_frames_itself_in_two_ways_is_whole_or_an_error() {
    for (framing, expected) in [
        ("transfer-encoding: chunked\r\ncontent-length: 3", Some("abcdef")),
        ("content-length: 9\r\ntransfer-encoding: Chunked", Some("abcdef")),
        ("transfer-encoding: gzip, chunked", None),
        ("transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\ncontent-length: 6", None),
    ] {
        let application = scripted(move |mut stream, _| async move {
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n6\r\nabcdef\r\n0\r\n\r\n").as_bytes()).await;
        })
        .await;
        let world = World::before(application, "").await;
        let answer = world.gets("/p2pi", "").await;
        match expected {
            Some(body) => {
                assert_eq!((answer.status(), answer.header("content-length")), (200, None), "{framing}");
                assert!(answer.0.ends_with(&format!("\r\n6\r\n{body}\r\n0\r\n\r\n")), "{framing}: {}", answer.0);
            }
            None => assert_eq!(answer.error(), (502, Some("upstream_unreachable")), "{framing}"),
        }
    }
}

#[tokio::test]
async fn events_pass_when_they_are_sent_and_a_revocation_ends_the_stream() {
    let (application, go_on) = events().await;
    let world = World::before(application, "").await;
    let request = format!("GET /p2pi HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", world.token);

    let mut stream = TcpStream::connect(world.address).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("sent");
    read_until(&mut stream, "data: 1").await;
    go_on.send(()).await.expect("the application listens");
    read_until(&mut stream, "0\r\n\r\n").await;

    stream.write_all(request.as_bytes()).await.expect("sent");
    read_until(&mut stream, "data: 1").await;
    world.tokens.end(sample::granted(Default::default()).id);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.expect("the stream to end");
    assert!(ended.is_err() || !rest.ends_with(b"0\r\n\r\n"), "a stream that was cut does not look whole");
}

#[tokio::test]
async fn websockets_pass_over_both_versions_of_http_and_end_with_the_grant() {
    let world = World::before(echo().await, "").await;
    let mut stream = TcpStream::connect(world.address).await.expect("a connection");
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let request = format!(
        "GET /p2pi/socket HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-key: {key}\r\nsec-websocket-version: 13\r\n\r\n",
        world.token
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    stream.write_all(b"over HTTP/1.1").await.expect("sent");
    read_until(&mut stream, "over HTTP/1.1").await;

    let mut sender = world.over_http2::<Full<Bytes>>().await;
    let mut request = Request::connect(format!("http://{}/p2pi/socket", world.address))
        .header("authorization", format!("Bearer {}", world.token))
        .header("sec-websocket-version", "13")
        .body(Full::default())
        .expect("a request");
    request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("sec-websocket-accept"));
    let mut upgraded = TokioIo::new(hyper::upgrade::on(response).await.expect("a WebSocket"));
    upgraded.write_all(b"over HTTP/2").await.expect("sent");
    let mut echoed = [0; 11];
    upgraded.read_exact(&mut echoed).await.expect("an echo");
    assert_eq!(&echoed, b"over HTTP/2");

    world.tokens.end(sample::granted(Default::default()).id);
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.expect("the WebSocket to end").ok();
}

#[tokio::test]
async fn fresh_calls_ask_the_database_nothing() {
    let (world, application) = World::before_application("").await;
    assert_eq!(world.gets("/p2pi", "").await.status(), 200);
    let statements = world.store.statements();
    let mut sender = world.over_http2::<Full<Bytes>>().await;
    for _ in 0..1_000 {
        let request = Request::get(format!("http://{}/p2pi/x", world.address)).header("authorization", format!("Bearer {}", world.token));
        let response = sender.send_request(request.body(Full::default()).expect("a request")).await.expect("an answer");
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.expect("whole");
    }
    assert_eq!(world.store.statements(), statements);
    assert_eq!(application.requests(), 1_001);
}

#[tokio::test]
async fn a_long_body_is_never_gathered() {
    // The application reads nothing until it is told to: what the gateway takes meanwhile is what it holds.
    let (go_on, told) = mpsc::channel::<()>(1);
    let told = Arc::new(tokio::sync::Mutex::new(told));
    let application = scripted(move |mut stream, _| {
        let told = Arc::clone(&told);
        async move {
            told.lock().await.recv().await;
            let mut body = Vec::new();
            while !body.ends_with(b"\r\n0\r\n\r\n") && stream.read_buf(&mut body).await.is_ok_and(|length| length > 0) {
                body.drain(..body.len().saturating_sub(16));
            }
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    })
    .await;
    let world = World::before(application, "").await;
    let mut stream = TcpStream::connect(world.address).await.expect("a connection");
    let head = format!("POST /p2pi HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n", world.token);
    stream.write_all(head.as_bytes()).await.expect("sent");
    let chunk = format!("10000\r\n{}\r\n", "a".repeat(0x1_0000));
    let mut taken = 0_usize;
    while tokio::time::timeout(Duration::from_millis(300), stream.write_all(chunk.as_bytes())).await.is_ok() {
        taken += chunk.len();
        assert!(taken < 32 << 20, "the gateway gathers the body");
    }
    go_on.send(()).await.expect("the application listens");
    drop(stream);
}
