//! The client: whom it believes, what it reuses, and what its errors promise.

use axum::Router;
use axum::response::Redirect;
use axum::routing::{get, post};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::net::body::RequestBody;
use crate::net::client::SendError;
use crate::net::pool::Ages;

#[tokio::test]
async fn connections_are_used_again() {
    let site = Site::plain(who_calls());
    let client = anybody();
    let first = text(&client, &site.url("/")).await;
    assert!(first.ends_with("HTTP/1.1"), "{first}");
    assert_eq!(text(&client, &site.url("/")).await, first);

    let (identity, pem) = identity();
    let (site, _) = Site::secure(who_calls(), &identity);
    let client = trusting(&pem);
    let first = text(&client, &site.secure_url("/")).await;
    assert!(first.ends_with("HTTP/2.0"), "{first}");
    assert_eq!(text(&client, &site.secure_url("/")).await, first);
}

/// A client whose connections age as `ages` says.
fn ageing(pem: &str, ages: Ages) -> Client {
    Client::ageing(&Trust::only(pem.as_bytes(), "cert.pem").expect("a certificate"), &limits(), ages, share())
}

const MOMENT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn an_idle_http1_connection_is_given_up_before_servers_usually_close_it() {
    let site = Site::plain(who_calls());
    let client = ageing(&identity().1, Ages { http1_idle: MOMENT, sweep: Duration::from_secs(3600), ..Ages::default() });
    let first = text(&client, &site.url("/")).await;
    // It has to be idle for at least so long; longer changes nothing.
    tokio::time::sleep(2 * MOMENT).await;
    assert_ne!(text(&client, &site.url("/")).await, first);
}

#[tokio::test]
async fn no_connection_is_used_so_long_that_a_changed_address_goes_unnoticed() {
    let (identity, pem) = identity();
    let (site, _) = Site::secure(who_calls(), &identity);
    let plain = Site::plain(who_calls());
    let client = ageing(&pem, Ages { longest_life: MOMENT, sweep: MOMENT, ..Ages::default() });
    for (site, url) in [(&site, site.secure_url("/")), (&plain, plain.url("/"))] {
        let first = text(&client, &url).await;
        // However busily it is used, some time it is another.
        soon("another connection", async { while text(&client, &url).await == first {} }).await;
        until("both connections gone", || site.server.connections() == 0).await;
    }
}

#[tokio::test]
async fn unused_connections_are_closed_in_the_background() {
    let (identity, pem) = identity();
    let (secure, _) = Site::secure(who_calls(), &identity);
    let plain = Site::plain(who_calls());
    let client = ageing(&pem, Ages { http1_idle: MOMENT, http2_idle: MOMENT, sweep: MOMENT, ..Ages::default() });
    text(&client, &secure.secure_url("/")).await;
    text(&client, &plain.url("/")).await;
    until("the HTTP/1.1 connection gone", || plain.server.connections() == 0).await;
    until("the HTTP/2 connection gone", || secure.server.connections() == 0).await;
    text(&client, &secure.secure_url("/")).await;
}

#[tokio::test]
async fn requests_at_once_share_one_http2_connection_from_the_start() {
    let (identity, pem) = identity();
    let (site, _) = Site::secure(who_calls(), &identity);
    let client = trusting(&pem);
    let url = site.secure_url("/");
    let answers = futures_util::future::join_all((0..20).map(|_| text(&client, &url))).await;
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(site.server.connections(), 1);
}

#[tokio::test]
async fn c5_certificates_are_believed_by_authority_or_by_pin_and_refused_with_their_fingerprint() {
    let (identity, pem) = identity();
    let (site, _) = Site::secure(who_calls(), &identity);
    let url = site.secure_url("/");
    let pin = identity.certificate().pin;
    text(&trusting(&pem), &url).await;
    text(&pinning(pin), &url).await;

    let other = super::identity();
    for client in
        [trusting(&other.1), pinning(other.0.certificate().pin), Client::new(&Trust::system(&[]).expect("roots"), &limits(), share())]
    {
        let Err(FetchError::Untrusted(untrusted)) = fetch(&client, &url).await else { panic!("expected a refusal") };
        assert_eq!(untrusted.pin, pin);
        assert!(untrusted.to_string().contains(&format!("({pin})")), "{untrusted}");
    }
    let by_name = site.secure_url("/").replace("127.0.0.1", "localhost");
    let Err(FetchError::Untrusted(untrusted)) = fetch(&trusting(&pem), &by_name).await else { panic!("expected a refusal") };
    assert_eq!(untrusted.reason, "it stands for another name");
}

#[tokio::test]
async fn a_peers_certificate_can_be_looked_at() {
    let (identity, pem) = identity();
    let (site, _) = Site::secure(who_calls(), &identity);
    let seen = soon("a handshake", trusting(&pem).certificate(&site.secure_url("/").parse().expect("a URL"))).await;
    assert_eq!(seen.expect("trusted").as_ref(), Some(identity.certificate()));
}

#[tokio::test]
async fn c5_redirects_are_not_followed() {
    let site = Site::plain(Router::new().route("/token", post(|| async { Redirect::temporary("/elsewhere") })));
    let request = Request::post(site.url("/token")).body(Bytes::from_static(b"grant_type=x")).expect("a request");
    let response = anybody().fetch(request, PATIENCE, 1000).await.expect("an answer");
    assert_eq!(response.status(), 307);
    assert_eq!(response.headers()["location"], "/elsewhere");
}

#[tokio::test]
async fn an_answer_beyond_the_cap_is_inconclusive() {
    let site = Site::plain(Router::new().route("/", get(|| async { "0123456789" })));
    for (most, whole) in [(10, true), (9, false)] {
        let request = Request::get(site.url("/")).body(Bytes::new()).expect("a request");
        let outcome = anybody().fetch(request, PATIENCE, most).await;
        assert_eq!(outcome.is_ok(), whole);
        assert!(whole || matches!(outcome, Err(FetchError::Inconclusive(_))));
    }
}

#[tokio::test]
async fn what_was_not_sent_and_what_may_have_been_are_told_apart() {
    let client = anybody();
    let get = |url: &str| Request::get(url).body(Bytes::new()).expect("a request");
    let deadline = Duration::from_millis(300);

    // Nobody listens.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    assert!(matches!(fetch(&client, &format!("http://{address}/")).await, Err(FetchError::NotSent(_))));
    // No such name, no usable URL.
    assert!(matches!(fetch(&client, "http://nowhere.invalid/").await, Err(FetchError::NotSent(_))));
    assert!(matches!(fetch(&client, "/relative").await, Err(FetchError::NotSent(_))));

    // TCP, but never TLS: the deadline passes before a request can be sent.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    assert!(matches!(client.fetch(get(&format!("https://{address}/")), deadline, 10).await, Err(FetchError::NotSent(_))));
    // Taken, and never answered.
    assert!(matches!(client.fetch(get(&format!("http://{address}/")), deadline, 10).await, Err(FetchError::Inconclusive(_))));

    // Taken, and the connection closed instead of an answer; half an answer.
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"] {
        let address = scripted(vec![vec![answer]]).await;
        assert!(matches!(fetch(&client, &format!("http://{address}/")).await, Err(FetchError::Inconclusive(_))), "{answer}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_meanwhile_costs_no_request() {
    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let address = scripted(vec![vec![OK], vec![OK, OK]]).await;
    let client = anybody();
    for _ in 0..3 {
        assert_eq!(text(&client, &format!("http://{address}/")).await, "ok");
    }
}

#[tokio::test]
async fn c10_a_guarded_client_calls_no_private_address_by_number_or_by_name() {
    let (listener, client) = (TcpListener::bind("127.0.0.1:0").await.expect("a port"), anybody_but_private());
    let port = listener.local_addr().expect("an address").port();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]", "0x7f.1", "2130706433"] {
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{host}:{port}/");
            let request = Request::get(&url).body(RequestBody::Empty).expect("a request");
            let error = soon("a refusal", client.send(request)).await.expect_err(&url);
            assert!(matches!(error, SendError::Forbidden(_)), "{url}: {error:?}");
            assert!(matches!(fetch(&client, &url).await, Err(FetchError::NotSent(_))), "{url}");
        }
    }
    // A connection would wait there to be taken.
    assert!(listener.accept().now_or_never().is_none(), "nobody connected");
}

fn anybody_but_private() -> Client {
    Client::guarded(&Trust::system(&[]).expect("roots"), &limits(), share())
}

#[tokio::test]
async fn a_connection_that_waits_makes_room_and_one_in_use_holds_its_place() {
    // Of eight there are three for calls to peers.
    let outgoing = Arc::new(Outgoing::new(&Limits { outgoing_connections: 8, ..limits() }));
    let (identity, pem) = identity();
    let trust = Trust::only(pem.as_bytes(), "cert.pem").expect("a certificate");
    let client = Client::new(&trust, &limits(), outgoing.share(Purpose::Peers));
    let [one, two, three, four] = [(); 4].map(|()| Site::plain(who_calls()));
    let (five, _) = Site::secure(who_calls(), &identity);
    let urls = [one.url("/"), five.secure_url("/"), two.url("/"), three.url("/"), four.url("/"), five.secure_url("/")];
    for url in urls.iter().chain(&urls) {
        text(&client, url).await;
        assert!(outgoing.open(Purpose::Peers) <= 3, "{url}");
    }

    let endless =
        || axum::body::Body::from_stream(futures_util::stream::repeat(Ok::<_, std::convert::Infallible>(Bytes::from_static(b"x"))));
    let site = Site::plain(Router::new().route("/", get(async move || endless())));
    let call = async || client.send(Request::get(site.url("/")).body(RequestBody::Empty).expect("a request")).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(soon("an answer", call()).await.expect("an answer"));
    }
    assert!(matches!(soon("a refusal", call()).await, Err(SendError::Full(_))));
    assert!(matches!(fetch(&client, &one.url("/")).await, Err(FetchError::Full(_))));
    drop(open);
    until("the places to be free", || outgoing.open(Purpose::Peers) == 0).await;
    assert!(call().await.is_ok());
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let site = Site::plain(Router::new().route("/", post(|body: axum::body::Body| async { body })));
    let (sender, parts) = tokio::sync::mpsc::channel::<Bytes>(1);
    let body = futures_util::stream::unfold(parts, |mut parts| async move {
        parts.recv().await.map(|part| (Ok::<_, std::convert::Infallible>(part), parts))
    });
    let request = Request::post(site.url("/")).body(RequestBody::stream(axum::body::Body::from_stream(body))).expect("a request");
    let client = anybody();
    let answer = tokio::spawn(async move { client.send(request).await });
    sender.send(Bytes::from_static(b"one")).await.expect("a reader");
    let mut body = soon("a head", answer).await.expect("no panic").expect("an answer").into_body();
    let mut next = async || soon("a frame", body.frame()).await.map(|frame| frame.expect("a frame").into_data().expect("data"));
    assert_eq!(next().await.as_deref(), Some(&b"one"[..]));
    sender.send(Bytes::from_static(b"two")).await.expect("a reader");
    assert_eq!(next().await.as_deref(), Some(&b"two"[..]));
    drop(sender);
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn headers_beyond_the_limit_are_refused_alike_by_both_versions() {
    let (identity, pem) = identity();
    let (secure, _) = Site::secure(who_calls(), &identity);
    let plain = Site::plain(who_calls());
    let client = trusting(&pem);
    for url in [plain.url("/"), secure.secure_url("/")] {
        for (size, status) in [(60 << 10, 200), (70 << 10, 431)] {
            let request = Request::get(&url).header("x-large", "x".repeat(size)).body(Bytes::new()).expect("a request");
            let response = soon("an answer", client.fetch(request, PATIENCE, 1 << 20)).await.expect("an answer");
            assert_eq!(response.status(), status, "{url} {size}");
        }
    }
}

#[tokio::test]
async fn an_upgrade_takes_its_connection_over() {
    async fn upgrade(request: axum::extract::Request) -> http::Response<axum::body::Body> {
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(request).await.expect("an upgrade");
            let mut io = hyper_util::rt::TokioIo::new(upgraded);
            let mut greeting = [0; 4];
            io.read_exact(&mut greeting).await.expect("a greeting");
            io.write_all(&greeting).await.expect("a reader");
        });
        let response = http::Response::builder().status(101).header("connection", "upgrade").header("upgrade", "websocket");
        response.body(axum::body::Body::empty()).expect("a response")
    }
    let site = Site::plain(Router::new().route("/", get(upgrade)));
    let request = Request::get(site.url("/")).header("connection", "upgrade").header("upgrade", "websocket");
    let response = anybody().send_upgrade(request.body(RequestBody::Empty).expect("a request")).await.expect("an answer");
    assert_eq!(response.status(), 101);
    let mut io = hyper_util::rt::TokioIo::new(soon("an upgrade", hyper::upgrade::on(response)).await.expect("an upgrade"));
    io.write_all(b"ping").await.expect("a reader");
    let mut echo = [0; 4];
    soon("an echo", io.read_exact(&mut echo)).await.expect("an echo");
    assert_eq!(&echo, b"ping");
}

/// A server that follows a script: for each connection the answers to its requests, then it closes it.
async fn scripted(connections: Vec<Vec<&'static str>>) -> std::net::SocketAddr {
    async fn request(stream: &mut TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a request"));
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        for answers in connections {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            for answer in answers {
                request(&mut stream).await;
                stream.write_all(answer.as_bytes()).await.expect("a reader");
            }
        }
    });
    address
}
