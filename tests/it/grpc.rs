//! gRPC over a whole link: HTTP/2 from the local application to the one behind the peer, TLS between the two daemons, messages both
//! ways at once, and a status that comes last.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::config_keys::says;
use crate::world::World;
use crate::world::address::own_address;
use crate::world::patience::within;

/// A server that speaks nothing but HTTP/2 in clear, as gRPC servers do. `/shop.Orders/Watch` sends each message back as it comes and then
/// the status; anything else is `UNIMPLEMENTED`, which is an answer of trailers alone.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<(Version, http::request::Parts)>>>,
}

impl Server {
    async fn running() -> Self {
        let listener = TcpListener::bind((own_address(), 0)).await.expect("an address of our own");
        let (address, seen) = (listener.local_addr().expect("an address"), Arc::new(Mutex::new(Vec::new())));
        let remembered = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let remembered = Arc::clone(&remembered);
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let (head, body) = request.into_parts();
                    let answer = watch(&head, body);
                    remembered.lock().expect("no panic").push((head.version, head));
                    async move { Ok::<_, Infallible>(answer) }
                });
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, seen }
    }
}

fn watch(head: &http::request::Parts, body: Incoming) -> Response<UnsyncBoxBody<Bytes, hyper::Error>> {
    let is_known = head.uri.path() == "/shop.Orders/Watch";
    let body = if is_known {
        let status = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))]);
        UnsyncBoxBody::new(body.with_trailers(async move { Some(Ok(status)) }))
    } else {
        UnsyncBoxBody::new(Empty::new().map_err(|never: Infallible| match never {}))
    };
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    if !is_known {
        response.headers_mut().insert("grpc-status", HeaderValue::from_static("12"));
    }
    response
}

type Sent = StreamBody<std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>>;

/// A call whose messages are sent by and by.
fn call(world: &World, method: &str) -> (Request<Sent>, mpsc::Sender<&'static str>) {
    let (sender, messages) = mpsc::channel::<&'static str>(1);
    let frames = futures_util::stream::unfold(messages, |mut messages| async move {
        messages.recv().await.map(|message| (Ok(Frame::data(Bytes::from_static(message.as_bytes()))), messages))
    });
    let request = Request::post(format!("http://{}/beta/grpc/{method}", world.alpha.settings.local))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "10S")
        .body(StreamBody::new(Box::pin(frames) as _))
        .expect("a request");
    (request, sender)
}

async fn connected(address: SocketAddr) -> SendRequest<Sent> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2 in clear");
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn grpc_passes_both_hops_to_a_server_that_speaks_http2_in_clear() {
    let server = Server::running().await;
    let (world, _) = World::linked().await;
    says(&world.beta, &format!("[[route]]\npath = \"/p2pi/grpc\"\nupstream = \"h2c://{}\"\nscopes = [\"p2pi\"]", server.address)).await;
    let mut client = connected(world.alpha.settings.local).await;

    let (request, messages) = call(&world, "shop.Orders/Watch");
    let mut response = within("the head of the answer", client.send_request(request)).await.expect("an answer");
    assert_eq!((response.status().as_u16(), &response.headers()["content-type"]), (200, &HeaderValue::from_static("application/grpc")));
    for message in ["first", "second"] {
        messages.send(message).await.expect("the relay reads");
        let frame = within(message, response.frame()).await.expect("a frame").expect("whole");
        assert_eq!(frame.into_data().expect("data"), message, "while the call is open");
    }
    drop(messages);
    let rest = within("the status", response.collect()).await.expect("whole");
    assert_eq!(rest.trailers().and_then(|trailers| trailers.get("grpc-status")), Some(&HeaderValue::from_static("0")));

    let (request, messages) = call(&world, "shop.Orders/Unknown");
    drop(messages);
    let response = within("the head of the answer", client.send_request(request)).await.expect("an answer");
    assert_eq!(response.headers().get("grpc-status"), Some(&HeaderValue::from_static("12")), "an answer of trailers alone");

    let seen = server.seen.lock().expect("no panic");
    let [(version, head), (_, other)] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((*version, head.uri.path(), other.uri.path()), (Version::HTTP_2, "/shop.Orders/Watch", "/shop.Orders/Unknown"));
    assert_eq!(head.uri.scheme_str(), Some("http"), "the scheme of the wire, not of the configuration");
    for (name, value) in [("te", "trailers"), ("grpc-timeout", "10S"), ("p2pi-instance", "alpha")] {
        assert_eq!(head.headers.get(name).map(HeaderValue::as_bytes), Some(value.as_bytes()), "{name}");
    }
    assert_eq!(head.headers.get("authorization"), None);
}

#[tokio::test]
async fn a_server_that_does_not_speak_http2_is_an_unreachable_upstream() {
    let listener = TcpListener::bind((own_address(), 0)).await.expect("an address of our own");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    let (world, _) = World::linked().await;
    says(&world.beta, &format!("[[route]]\npath = \"/p2pi/grpc\"\nupstream = \"h2c://{address}\"\nscopes = [\"p2pi\"]")).await;
    let answer = world.alpha.calls(&world.beta, "/grpc/shop.Orders/Watch").await;
    assert_eq!((answer.status(), answer.header("p2pi-error")), (502, Some("upstream_unreachable")), "{}", answer.text());
}
