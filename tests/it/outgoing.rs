//! Connections that go out have places too: one client that takes all it can leaves files, places and answers to everybody else.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::world::message::Message;
use crate::world::patience::{eventually, within};
use crate::world::process::Process;
use crate::world::settings::request;
use crate::world::wire::{Wire, roots};

/// Files that the daemon may have open: 176 connections of each kind, 77 of those that go out for calls to applications, 19 for one grant.
const FILES: u64 = 1024;
/// Streams on each of the client's connections.
const STREAMS: usize = 200;
/// What a client usually takes of an answer ahead of who reads it, in bytes.
const WINDOW: u32 = 65_535;

/// An app that acts for itself, and its token.
struct App {
    token: String,
}

impl App {
    async fn of(two: &Process, name: &str) -> Self {
        let made = two.runs(&["ib", "create", name, "--grant", "client_credentials", "--scope", "p2pi"]).await;
        let word = |key: &str| made[key].as_str().unwrap_or_else(|| panic!("no {key} in {made}")).to_owned();
        let credentials = STANDARD.encode(format!("{}:{}", word("client_id"), word("client_secret")));
        let headers = [("Authorization", &*format!("Basic {credentials}")), ("Content-Type", "application/x-www-form-urlencoded")];
        let answer = asked(two, "POST", "/oauth/token", &headers, "grant_type=client_credentials").await;
        Self { token: answer.json()["access_token"].as_str().unwrap_or_else(|| panic!("{}", answer.text())).to_owned() }
    }

    async fn calls(&self, two: &Process, headers: &[(&str, &str)]) -> Message {
        let token = format!("Bearer {}", self.token);
        asked(two, "GET", "/p2pi/orders", &[&[("Authorization", &*token)], headers].concat(), "").await
    }

    fn opens_stream(&self, two: &Process) -> Request<Empty<Bytes>> {
        let request = Request::get(format!("https://{}/p2pi/events", two.settings.public));
        request.header("authorization", format!("Bearer {}", self.token)).body(Empty::new()).expect("a request")
    }
}

async fn asked(two: &Process, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Message {
    let host = two.settings.public.to_string();
    let mut wire = Wire::tls(two.settings.public, &two.settings.authority()).await;
    wire.asks(request(method, target, &host, headers, body)).await
}

/// A connection whose streams take `window` bytes of an answer before somebody reads them.
async fn over_http2<B>(two: &Process, window: u32) -> SendRequest<B>
where
    B: Body<Data = Bytes, Error = std::convert::Infallible> + Send + Unpin + 'static,
{
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots(&two.settings.authority())).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(two.settings.public).await.expect("a connection");
    let name = ServerName::from(two.settings.public.ip());
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS");
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.initial_stream_window_size(window).handshake(TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

fn process_id(two: &Process) -> u32 {
    two.daemon().id().expect("it runs")
}

fn open_files(two: &Process) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", process_id(two))).expect("its files").count()
}

/// How many connections go out to applications, as the metrics say.
async fn to_applications(two: &Process) -> usize {
    let metrics = two.console("/metrics").await.text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("p2pid_outgoing_connections{purpose=\"applications\"} "));
    line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no such metric in {metrics}"))
}

#[tokio::test]
async fn hundreds_of_streams_of_one_token_leave_files_and_places_to_others() {
    let two = Process::running("two").await;
    let process = Pid::from_raw(i32::try_from(process_id(&two)).expect("a process id"));
    prlimit(process, Resource::Nofile, Rlimit { current: Some(FILES), maximum: Some(FILES) }).expect("the limit of a child can be lowered");
    two.settings.says("limits.toml", "[limits]\nfirst_byte_timeout = \"59s\"\n");
    two.runs(&["reload"]).await;
    let (greedy, modest) = (App::of(&two, "greedy").await, App::of(&two, "modest").await);
    assert_eq!((greedy.calls(&two, &[]).await.status(), modest.calls(&two, &[]).await.status()), (200, 200));
    let before = open_files(&two);

    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(over_http2(&two, WINDOW).await);
    }
    let streams =
        clients.iter_mut().flat_map(|client| (0..STREAMS).map(|_| client.send_request(greedy.opens_stream(&two))).collect::<Vec<_>>());
    let answers: Vec<Response<Incoming>> =
        within("an answer to every stream", join_all(streams)).await.into_iter().map(|answer| answer.expect("an answer")).collect();
    let (taken, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status() == 200);
    assert_eq!((taken.len(), refused.len()), (19, 6 * STREAMS - 19));
    for answer in &refused {
        let headers = ["p2pi-error", "retry-after", "content-type"].map(|name| answer.headers()[name].to_str().unwrap_or_default());
        assert_eq!((answer.status().as_u16(), headers), (503, ["overloaded", "1", "application/problem+json"]));
    }
    drop(refused);

    let (files, out) = (open_files(&two), to_applications(&two).await);
    assert!((19..=21).contains(&out) && files <= before + 6 + 21 + 2, "{out} connections, {files} files, {before} before");
    assert_eq!(modest.calls(&two, &[]).await.status(), 200);
    let socket = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let refused = greedy.calls(&two, &socket).await;
    assert_eq!((refused.status(), refused.header("p2pi-error")), (503, Some("overloaded")));
    assert!(refused.text().contains("limits.calls_per_grant"), "{}", refused.text());
    two.runs(&["status"]).await;

    drop((taken, clients));
    let again = async || (greedy.calls(&two, &[]).await.status() == 200).then_some(());
    eventually("the places to be free again", again).await;
    eventually("the connections to be closed", async || (to_applications(&two).await <= 2).then_some(())).await;
}

/// An application that answers before it has read what it is sent, and reads no further.
async fn answers_early() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                stream.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await?;
                tokio::time::sleep(std::time::Duration::from_secs(60)).await;
                Ok::<_, std::io::Error>(())
            });
        }
    });
    address
}

#[tokio::test]
async fn an_answer_that_comes_early_gives_no_place_back_while_the_request_is_still_sent() {
    let two = Process::running("two").await;
    let process = Pid::from_raw(i32::try_from(process_id(&two)).expect("a process id"));
    prlimit(process, Resource::Nofile, Rlimit { current: Some(FILES), maximum: Some(FILES) }).expect("the limit of a child can be lowered");
    let route = format!(
        "[limits]\nfirst_byte_timeout = \"59s\"\n[[route]]\npath = \"/early\"\nupstream = \"http://{}\"\nscopes = [\"p2pi\"]\n",
        answers_early().await
    );
    two.settings.says("early.toml", &route);
    two.runs(&["reload"]).await;
    let (greedy, modest) = (App::of(&two, "greedy").await, App::of(&two, "modest").await);
    assert_eq!(modest.calls(&two, &[]).await.status(), 200);

    let mut client = over_http2(&two, WINDOW).await;
    let requests = (0..100).map(|_| {
        let first = futures_util::stream::iter([Ok(Frame::data(Bytes::from_static(b"x")))]);
        let body = StreamBody::new(futures_util::StreamExt::chain(first, futures_util::stream::pending()));
        let request = Request::post(format!("https://{}/early/x", two.settings.public));
        client.send_request(request.header("authorization", format!("Bearer {}", greedy.token)).body(body).expect("a request"))
    });
    let requests: Vec<_> = requests.collect();
    let answers: Vec<u16> = within("an answer to each", join_all(requests))
        .await
        .into_iter()
        .map(|answer| answer.expect("an answer").status().as_u16())
        .collect();
    let count = |status| answers.iter().filter(|answer| **answer == status).count();
    assert_eq!((count(401), count(503)), (19, 81));
    assert!(to_applications(&two).await <= 21);
    assert_eq!(modest.calls(&two, &[]).await.status(), 200);

    drop(client);
    eventually("the connections to be closed", async || (to_applications(&two).await <= 2).then_some(())).await;
    assert_eq!(greedy.calls(&two, &[]).await.status(), 200);
}

#[tokio::test]
async fn answers_that_are_never_read_end_with_their_app_and_after_a_while_in_any_case() {
    let two = Process::running("two").await;
    two.settings.says("limits.toml", "[limits]\nidle_timeout = \"10m\"\n");
    two.runs(&["reload"]).await;
    let (gone, slow) = (App::of(&two, "gone").await, App::of(&two, "slow").await);
    assert_eq!(slow.calls(&two, &[]).await.status(), 200);
    let unread = async |app: &App| {
        let mut client = over_http2(&two, 0).await;
        let answers = join_all((0..10).map(|_| client.send_request(app.opens_stream(&two))).collect::<Vec<_>>());
        let answers = within("an answer to each", answers).await.into_iter().map(|answer| answer.expect("an answer"));
        let answers: Vec<_> = answers.inspect(|answer| assert_eq!(answer.status(), 200)).collect();
        assert!(to_applications(&two).await >= 10);
        (client, answers)
    };
    let (_client, answers) = unread(&gone).await;
    two.runs(&["ib", "delete", "gone", "--force", "--yes"]).await;
    eventually("the connections to be closed", async || (to_applications(&two).await <= 2).then_some(())).await;
    for answer in answers {
        assert!(answer.into_body().frame().await.is_none_or(|frame| frame.is_err()), "it goes on");
    }

    two.settings.says("limits.toml", "[limits]\nidle_timeout = \"2s\"\n");
    two.runs(&["reload"]).await;
    let (mut client, _answers) = unread(&slow).await;
    // The connection itself is in use all the time.
    let closed = async || {
        let metadata = Request::get(format!("https://{}/.well-known/oauth-authorization-server", two.settings.public));
        let answer = client.send_request(metadata.body(Empty::new()).expect("a request")).await.expect("the connection lives");
        assert_eq!(answer.status(), 200);
        (to_applications(&two).await <= 2).then_some(())
    };
    eventually("the connections to be closed", closed).await;
}
