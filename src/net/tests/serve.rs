//! Listeners, limits, faults and the way out.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use axum::Router;
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::sync::Notify;

use super::*;
use crate::config::TrustedProxies;
use crate::net::body::RequestBody;

async fn raw(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin), path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.expect("a reader");
    let mut answer = vec![0; 4096];
    let count = soon("an answer", stream.read(&mut answer)).await.expect("an answer");
    String::from_utf8_lossy(&answer[..count]).into_owned()
}

#[tokio::test]
async fn a_panic_is_answered_with_500_and_the_connection_lives_on() {
    let site = Site::plain(who_calls().route("/panic", get(async || -> &'static str { panic!("on purpose") })));
    let client = anybody();
    let before = text(&client, &site.url("/")).await;
    let response = fetch(&client, &site.url("/panic")).await.expect("an answer");
    assert_eq!(response.status(), 500);
    assert_eq!(response.headers()["p2pi-error"], "internal");
    assert_eq!(response.headers()["p2pi-error-from"], "instance1");
    let again = fetch(&client, &site.url("/panic")).await.expect("an answer");
    let [first, second] = [&response, &again].map(|answer| answer.headers()["p2pi-request-id"].clone());
    assert!(first.len() == 32 && first != second, "{first:?} {second:?}");
    assert_eq!(text(&client, &site.url("/")).await, before);
}

#[tokio::test]
async fn connections_above_the_limit_are_told_so() {
    let site = Site::open(&Limits { connections: 2, ..limits() }, None, who_calls());
    // One address has half of so few.
    let (mut first, mut second) = (from("127.0.0.2", &site).await, from("127.0.0.3", &site).await);
    assert!(raw(&mut first, "/").await.starts_with("HTTP/1.1 200"));
    assert!(raw(&mut second, "/").await.starts_with("HTTP/1.1 200"));
    let mut third = from("127.0.0.4", &site).await;
    let refusal = raw(&mut third, "/").await;
    assert!(refusal.starts_with("HTTP/1.1 503"), "{refusal}");
    assert!(refusal.contains("p2pi-error: overloaded") && refusal.contains("retry-after: 1"), "{refusal}");
    assert_eq!(soon("its end", third.read(&mut [0])).await.expect("an end"), 0);
    // Those that were there are served on, and a place that is given up is free.
    assert!(raw(&mut first, "/").await.starts_with("HTTP/1.1 200"));
    drop(second);
    until("a free place", || site.server.connections() == 1).await;
    let mut fourth = from("127.0.0.4", &site).await;
    assert!(raw(&mut fourth, "/").await.starts_with("HTTP/1.1 200"));
}

/// A connection from an address of this host.
async fn from(source: &str, site: &Site) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(format!("{source}:0").parse().expect("an address")).expect("an address of this host");
    soon("a connection", socket.connect(site.address)).await.expect("a connection")
}

#[tokio::test]
async fn a_stranger_fills_neither_the_public_listener_nor_any_other() {
    let site = Site::open(&Limits { connections: 80, ..limits() }, None, who_calls());
    let [relay, console, admin] = [Audience::Applications, Audience::Console, Audience::Operators]
        .map(|audience| Site::on(site.server.clone(), audience, None, who_calls()));
    // Silent ones, of which the last two are beyond the share of a quarter.
    let mut silent = Vec::new();
    for _ in 0..22 {
        silent.push(from("127.0.0.2", &site).await);
    }
    until("all are in", || site.server.connections() == 22).await;
    let refusal = raw(&mut silent[20], "/").await;
    assert!(refusal.starts_with("HTTP/1.1 503") && refusal.contains("one address may have 20"), "{refusal}");
    assert!(raw(&mut silent[0], "/").await.starts_with("HTTP/1.1 200"));
    assert!(raw(&mut from("127.0.0.1", &site).await, "/").await.starts_with("HTTP/1.1 200"), "others have theirs");
    // A proxy's connections are many people's.
    let networks = vec!["127.0.0.3/32".parse().expect("a network")];
    site.server.set_limits(&Limits { connections: 80, ..limits() }, &TrustedProxies { networks, ..TrustedProxies::default() });
    until("the refused one and the other have gone", || site.server.connections() == 21).await;
    // The other refused one is still there, and takes no place from them.
    let mut proxied = Vec::new();
    for _ in 20..80 {
        proxied.push(from("127.0.0.3", &site).await);
    }
    until("all are in", || site.server.connections() == 81).await;
    assert!(raw(&mut proxied[59], "/").await.starts_with("HTTP/1.1 200"));
    assert!(raw(&mut proxied[50], "/").await.starts_with("HTTP/1.1 200"));
    let refusal = raw(&mut from("127.0.0.1", &site).await, "/").await;
    assert!(refusal.starts_with("HTTP/1.1 503") && refusal.contains("all connections"), "{refusal}");
    for other in [&relay, &console, &admin] {
        assert!(raw(&mut from("127.0.0.1", other).await, "/").await.starts_with("HTTP/1.1 200"));
    }
    // The relay's callers are this host's, and share no more than its places.
    let mut callers = Vec::new();
    for _ in 0..40 {
        callers.push(from("127.0.0.1", &relay).await);
    }
    assert!(raw(&mut callers[39], "/").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn http2_is_spoken_in_clear_to_who_begins_it_and_offers_extended_connect() {
    let site = Site::plain(who_calls());
    let stream = TcpStream::connect(site.address).await.expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, RequestBody>(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    let request = Request::get(site.url("/")).body(RequestBody::Empty).expect("a request");
    let response = soon("an answer", sender.send_request(request)).await.expect("an answer");
    assert_eq!((response.status(), response.version()), (http::StatusCode::OK, http::Version::HTTP_2));
    // Refused by the service; without the offer it could not even be sent.
    let request = Request::connect(site.url("/")).extension(hyper::ext::Protocol::from_static("websocket"));
    let response = soon("an answer", sender.send_request(request.body(RequestBody::Empty).expect("a request"))).await.expect("an answer");
    assert_eq!(response.status(), 405);
}

/// The status and error of a request for `/` with those fields and `Host: a`, over HTTP/1.1 and over HTTP/2.
async fn both_ways(site: &Site, fields: &[(String, String)]) -> [(u16, String); 2] {
    let mut one = TcpStream::connect(site.address).await.expect("a connection");
    let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    one.write_all(format!("GET / HTTP/1.1\r\nhost: a\r\n{lines}\r\n").as_bytes()).await.expect("a reader");
    let mut head = vec![0; 4096];
    let count = soon("an answer", one.read(&mut head)).await.expect("an answer");
    let text = String::from_utf8_lossy(&head[..count]).into_owned();
    let error = text.lines().find_map(|line| line.strip_prefix("p2pi-error: ")).unwrap_or_default().to_owned();
    if !error.is_empty() {
        assert!(text.contains("p2pi-error-from: instance1") && text.contains("application/problem+json"), "{text}");
    }
    let first = (text[9..12].parse().expect("a status"), error);

    let stream = TcpStream::connect(site.address).await.expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, RequestBody>(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut request = Request::get("http://a/");
    for (name, value) in fields {
        request = request.header(name, value);
    }
    let request = request.body(RequestBody::Empty).expect("a request");
    let response = soon("an answer", sender.send_request(request)).await.expect("an answer");
    let error = response.headers().get("p2pi-error").map_or("", |error| error.to_str().expect("ASCII"));
    [first, (response.status().as_u16(), error.to_owned())]
}

#[tokio::test]
async fn a_head_that_is_too_long_is_told_so_at_the_same_length_over_http_1_and_2() {
    let header_bytes = 64 << 10;
    let site = Site::open(&Limits { header_bytes, ..limits() }, None, who_calls());
    let room = header_bytes - "/".len() - (4 + 1 + 32) - (6 + 32);
    let taken = [(200, String::new()), (200, String::new())];
    let refused = [(431, "header_too_large".to_owned()), (431, "header_too_large".to_owned())];
    let long = |length| ("x-long".to_owned(), "x".repeat(length));
    assert_eq!(both_ways(&site, &[long(room)]).await, taken);
    assert_eq!(both_ways(&site, &[long(room + 1)]).await, refused);
    assert_eq!(both_ways(&site, &[long(room + header_bytes / 2)]).await, refused);
    let many = |count| (0..count).map(|number| (format!("x-{number}"), "x".to_owned())).collect::<Vec<_>>();
    // The host is a field of both.
    assert_eq!(both_ways(&site, &many(99)).await, taken);
    for count in [100, 101, 300] {
        assert_eq!(both_ways(&site, &many(count)).await, refused, "{count}");
    }
}

#[tokio::test]
async fn the_longest_head_that_can_be_allowed_is_taken() {
    let header_bytes = 1 << 20;
    let site = Site::open(&Limits { header_bytes, ..limits() }, None, who_calls());
    let long = [("x-long".to_owned(), "x".repeat(header_bytes - 1_000))];
    assert_eq!(both_ways(&site, &long).await, [(200, String::new()), (200, String::new())]);
    let too_long = [("x-long".to_owned(), "x".repeat(header_bytes + 1_000))];
    assert_eq!(both_ways(&site, &too_long).await, [(431, "header_too_large".to_owned()), (431, "header_too_large".to_owned())]);
}

/// A site with a request under way that `go` lets finish.
async fn busy_site() -> (Site, Arc<Notify>, tokio::task::JoinHandle<String>) {
    let (arrived, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (arrived, go) = (Arc::clone(&arrived), Arc::clone(&go));
        move || async move {
            arrived.notify_one();
            go.notified().await;
            "done"
        }
    };
    let site = Site::plain(who_calls().route("/slow", get(handler)));
    let mut stream = TcpStream::connect(site.address).await.expect("a connection");
    let call = tokio::spawn(async move { raw(&mut stream, "/slow").await });
    soon("the request", arrived.notified()).await;
    (site, go, call)
}

#[tokio::test]
async fn draining_closes_idle_connections_at_once_and_waits_for_busy_ones() {
    let (site, go, call) = busy_site().await;
    let mut idle = TcpStream::connect(site.address).await.expect("a connection");
    raw(&mut idle, "/").await;
    let mut fresh = TcpStream::connect(site.address).await.expect("a connection");
    until("three connections", || site.server.connections() == 3).await;
    let server = site.server.clone();
    let drain = tokio::spawn(async move { server.drain(PATIENCE).await });
    for stream in [&mut idle, &mut fresh] {
        assert_eq!(soon("its end", stream.read(&mut [0])).await.expect("an end"), 0);
    }
    assert!(TcpStream::connect(site.address).await.is_err(), "nobody listens any more");
    assert!(!drain.is_finished());
    go.notify_one();
    let answer = soon("the answer", call).await.expect("no panic");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
    soon("the drain's end", drain).await.expect("no panic");
    assert_eq!(site.server.connections(), 0);
}

#[tokio::test]
async fn draining_cuts_what_takes_too_long() {
    let (site, _go, call) = busy_site().await;
    soon("the drain's end", site.server.drain(Duration::from_millis(50))).await;
    assert_eq!(soon("the cut", call).await.expect("no panic"), "");
    until("no connection", || site.server.connections() == 0).await;
}

#[tokio::test]
async fn draining_ends_http2_connections_after_their_streams() {
    let (identity, pem) = identity();
    let go = Arc::new(Notify::new());
    let arrived = Arc::new(Notify::new());
    let handler = {
        let (arrived, go) = (Arc::clone(&arrived), Arc::clone(&go));
        move || async move {
            arrived.notify_one();
            go.notified().await;
            "done"
        }
    };
    let (site, _) = Site::secure(Router::new().route("/slow", get(handler)), &identity);
    let (client, url) = (trusting(&pem), site.secure_url("/slow"));
    let call = tokio::spawn(async move { text(&client, &url).await });
    soon("the request", arrived.notified()).await;
    let server = site.server.clone();
    let drain = tokio::spawn(async move { server.drain(PATIENCE).await });
    go.notify_one();
    assert_eq!(soon("the answer", call).await.expect("no panic"), "done");
    soon("the drain's end", drain).await.expect("no panic");
}

#[tokio::test]
async fn a_unix_socket_is_ours_alone_and_says_who_calls() {
    async fn handler(Extension(connection): Extension<Arc<Connection>>) -> String {
        format!("{:?}", connection.neighbour())
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("run").join("admin.sock");
    let listen = Listen::Unix(path.clone());
    let server = Server::new(&limits(), "instance1", &SystemRandom);
    let listener = Listener::bind(&listen, None).expect("a socket");
    assert_eq!(std::fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o660);
    let error = Listener::bind(&listen, None).expect_err("taken").to_string();
    assert!(error.starts_with(&format!("cannot listen on unix:{}", path.display())) && error.contains("another daemon"), "{error}");
    server.serve(listener, Serving::default(), Router::new().route("/", get(handler)));
    let mut stream = UnixStream::connect(&path).await.expect("a connection");
    let uid = std::fs::metadata(folder.path()).expect("the folder").uid();
    let answer = raw(&mut stream, "/").await;
    assert!(answer.contains(&format!("Unix {{ uid: {uid},")), "{answer}");
    drop(stream);
    server.drain(PATIENCE).await;
    assert!(!path.exists(), "its file goes with it");
}

#[tokio::test]
async fn only_dead_sockets_are_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    assert!(path.exists(), "a dead socket stays behind");
    Listener::bind(&Listen::Unix(path), None).expect("the dead one is replaced");

    let file = folder.path().join("file");
    std::fs::write(&file, "precious").expect("a file");
    let error = Listener::bind(&Listen::Unix(file.clone()), None).expect_err("no socket").to_string();
    assert!(error.contains("expected a socket or nothing"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).expect("still there"), "precious");
}

#[tokio::test]
async fn a_listener_on_all_addresses_takes_both_families_and_names_ipv4_as_such() {
    let listener = Listener::bind(&Listen::Tcp("[::]:0".parse().expect("an address")), None).expect("a port");
    let Listen::Tcp(address) = listener.address() else { panic!("TCP was asked for") };
    assert_ne!(address.port(), 0);
    let server = Server::new(&limits(), "instance1", &SystemRandom);
    server.serve(listener, Serving::default(), who_calls());
    let answer = text(&anybody(), &format!("http://127.0.0.1:{}/", address.port())).await;
    assert!(answer.starts_with("127.0.0.1:"), "{answer}");
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let first = Listener::bind(&Listen::Tcp("127.0.0.1:0".parse().expect("an address")), None).expect("a port");
    let error = Listener::bind(&first.address(), None).expect_err("taken").to_string();
    assert!(error.starts_with(&format!("cannot listen on {}", first.address())) && error.contains("another daemon"), "{error}");
}
