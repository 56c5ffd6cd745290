//! A sample application behind an instance: it answers, streams, echoes, and remembers what reached it.
//!
//! | path | answer |
//! |---|---|
//! | `/echo` | the request's body and trailers, streamed back while they arrive |
//! | `/status/418` | that status |
//! | `/events?n=3` | so many server-sent events, or without end |
//! | `/socket` | a WebSocket that says everything again |
//! | `/slow?ms=500` | the usual answer, later |
//! | `/large?bytes=1000000` | so many bytes |
//! | else | JSON: what was asked, by whom |

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::BoxError;
use base64::Engine;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const MOST_REQUESTS: usize = 10_000;
const LARGEST_BODY: usize = 1 << 20;
const EVENT_PAUSE: Duration = Duration::from_millis(50);

/// A request as the application got it.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its method.
    pub method: Method,
    /// Its target: path and query.
    pub target: Uri,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, where the path does not stream it.
    pub body: Bytes,
}

impl Received {
    /// The value of a header, if it came once and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().ok()?;
        values.next().is_none().then_some(value)
    }
}

/// A running sample application; it ends when this is dropped.
#[derive(Debug)]
pub struct Application {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    _serving: JoinSet<()>,
}

impl Application {
    /// Starts an application called `name` on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(name: &str, address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let received = Arc::new(Mutex::new(Vec::new()));
        let desk = Arc::new(Desk { name: name.to_owned(), received: Arc::clone(&received) });
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, desk));
        Ok(Self { address, received, _serving: serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything that reached it so far, oldest first.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The latest request.
    pub fn last(&self) -> Option<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }
}

/// What every connection shares.
struct Desk {
    name: String,
    received: Arc<Mutex<Vec<Received>>>,
}

async fn accept(listener: TcpListener, desk: Arc<Desk>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let desk = Arc::clone(&desk);
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let desk = Arc::clone(&desk);
                        async move { Ok::<_, Infallible>(desk.answer(request).await) }
                    });
                    let server = auto::Builder::new(TokioExecutor::new());
                    // A connection that breaks concerns its client only.
                    let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Desk {
    async fn answer(&self, request: Request<Incoming>) -> Response<BoxBody<Bytes, BoxError>> {
        let path = request.uri().path().to_owned();
        let number = |name: &str| {
            let query = request.uri().query().unwrap_or_default().as_bytes();
            form_urlencoded::parse(query).find(|(key, _)| key == name).and_then(|(_, value)| value.parse::<u64>().ok())
        };
        match path.as_str() {
            "/echo" => {
                self.remember(&request, Bytes::new());
                let kind = request.headers().get(header::CONTENT_TYPE).cloned();
                let mut response = Response::new(request.into_body().map_err(BoxError::from).boxed());
                response.headers_mut().insert(header::CONTENT_TYPE, kind.unwrap_or(HeaderValue::from_static("application/octet-stream")));
                response
            }
            "/events" => {
                let events = number("n").unwrap_or(u64::MAX);
                self.remember(&request, Bytes::new());
                typed(
                    "text/event-stream",
                    streamed(0, move |n| async move {
                        if n > 0 {
                            tokio::time::sleep(EVENT_PAUSE).await;
                        }
                        (n < events).then(|| Bytes::from(format!("id: {n}\ndata: event {n}\n\n")))
                    }),
                )
            }
            "/large" => {
                let bytes = number("bytes").unwrap_or(1 << 20);
                self.remember(&request, Bytes::new());
                typed(
                    "application/octet-stream",
                    streamed(0, move |n| async move {
                        let left = bytes.saturating_sub(n.saturating_mul(CHUNK.len() as u64));
                        (left > 0)
                            .then(|| Bytes::from_static(&CHUNK[..usize::try_from(left).map_or(CHUNK.len(), |left| left.min(CHUNK.len()))]))
                    }),
                )
            }
            "/socket" => self.socket(request),
            "/slow" => {
                tokio::time::sleep(Duration::from_millis(number("ms").unwrap_or(500))).await;
                self.told(request).await
            }
            _ => match path.strip_prefix("/status/").and_then(|status| status.parse().ok()) {
                Some(status) => {
                    let mut response = self.told(request).await;
                    *response.status_mut() = status;
                    response
                }
                None => self.told(request).await,
            },
        }
    }

    /// The usual answer: what was asked, and by whom.
    async fn told(&self, request: Request<Incoming>) -> Response<BoxBody<Bytes, BoxError>> {
        let (parts, body) = request.into_parts();
        let Ok(body) = Limited::new(body, LARGEST_BODY).collect().await else {
            let mut response = typed("text/plain", whole("a body of at most 1 MiB is read here; /echo streams\n"));
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            return response;
        };
        let request = Request::from_parts(parts, body.to_bytes());
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let answer = json!({
            "application": self.name,
            "method": request.method().as_str(),
            "path": request.uri().path(),
            "query": request.uri().query(),
            "body_bytes": request.body().len(),
            "called_by": { "instance": header("p2pi-instance"), "client": header("p2pi-client"),
                           "allowed_by": header("p2pi-subject"), "scope": header("p2pi-scope") },
        });
        self.remember(&request, request.body().clone());
        typed("application/json", whole(&format!("{answer}\n")))
    }

    fn socket(&self, mut request: Request<Incoming>) -> Response<BoxBody<Bytes, BoxError>> {
        self.remember(&request, Bytes::new());
        let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
            let mut response = typed("text/plain", whole("a WebSocket is opened here\n"));
            *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
            return response;
        };
        let accept = websocket_accept(key.as_bytes());
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                // The connection's end, whoever ended it, ends the echo.
                let _ = say_again(TokioIo::new(upgraded)).await;
            }
        });
        let mut response = Response::new(whole(""));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        response
    }

    fn remember<B>(&self, request: &Request<B>, body: Bytes) {
        let (method, target, headers) = (request.method().clone(), request.uri().clone(), request.headers().clone());
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        if received.len() < MOST_REQUESTS {
            received.push(Received { method, target, headers, body });
        }
    }
}

static CHUNK: [u8; 16 << 10] = [b'.'; 16 << 10];

fn whole(text: &str) -> BoxBody<Bytes, BoxError> {
    Full::new(Bytes::from(text.to_owned())).map_err(|never: Infallible| match never {}).boxed()
}

/// A body of the chunks that `chunk` gives for 0, 1, 2 … until it gives none.
fn streamed<F, N>(start: u64, chunk: F) -> BoxBody<Bytes, BoxError>
where
    F: Fn(u64) -> N + Send + Sync + 'static,
    N: Future<Output = Option<Bytes>> + Send + Sync + 'static,
{
    let chunks = stream::unfold((start, chunk), |(n, chunk)| async move {
        let bytes = chunk(n).await?;
        Some((Ok(Frame::data(bytes)), (n + 1, chunk)))
    });
    BodyExt::boxed(StreamBody::new(chunks))
}

fn typed(kind: &'static str, body: BoxBody<Bytes, BoxError>) -> Response<BoxBody<Bytes, BoxError>> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455 §4.2.2).
fn websocket_accept(key: &[u8]) -> HeaderValue {
    let text = [key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &text);
    let accept = base64::engine::general_purpose::STANDARD.encode(digest.as_ref());
    HeaderValue::from_str(&accept).expect("base64 is visible ASCII")
}

/// Answers every frame of a WebSocket with the same frame, pings with pongs, and a close with a close (RFC 6455 §5).
async fn say_again<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(mut socket: S) -> std::io::Result<()> {
    const CLOSE: u8 = 8;
    const PING: u8 = 9;
    const PONG: u8 = 10;
    loop {
        let (first, second) = (socket.read_u8().await?, socket.read_u8().await?);
        let length = match second & 0x7f {
            126 => u64::from(socket.read_u16().await?),
            127 => socket.read_u64().await?,
            length => u64::from(length),
        };
        let length = usize::try_from(length).ok().filter(|length| *length <= LARGEST_BODY);
        let length = length.ok_or_else(|| std::io::Error::other("a frame of more than 1 MiB"))?;
        let mut mask = [0; 4];
        if second & 0x80 != 0 {
            socket.read_exact(&mut mask).await?;
        }
        let mut payload = vec![0; length];
        socket.read_exact(&mut payload).await?;
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        let first = if first & 0x0f == PING { first & 0xf0 | PONG } else { first };
        socket.write_all(&frame(first, &payload)).await?;
        socket.flush().await?;
        if first & 0x0f == CLOSE {
            return socket.shutdown().await;
        }
    }
}

/// An unmasked frame that starts with the byte `first`.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..126), _) => frame.push(length),
        (_, Ok(length)) => {
            frame.push(126);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::cli::demo::browser::Browser;

    #[tokio::test]
    async fn it_answers_and_remembers() {
        let application = Application::start("orders", (Ipv4Addr::LOCALHOST, 0).into()).await.expect("a free port");
        let mut browser = Browser::new::<&str>(&[]).expect("no authorities are needed for http");
        let page = browser.open(&format!("{}/orders?x=1", application.url())).await.expect("it answers");
        assert!(page.body.contains(r#""application":"orders""#) && page.body.contains(r#""query":"x=1""#), "{}", page.body);
        let page = browser.open(&format!("{}/status/418", application.url())).await.expect("it answers");
        assert_eq!(page.status, StatusCode::IM_A_TEAPOT);
        let page = browser.open(&format!("{}/large?bytes=40000", application.url())).await.expect("it answers");
        assert_eq!(page.body.len(), 40_000);
        let page = browser.open(&format!("{}/events?n=2", application.url())).await.expect("it answers");
        assert_eq!(page.body, "id: 0\ndata: event 0\n\nid: 1\ndata: event 1\n\n");
        let received = application.received();
        assert_eq!(received.len(), 4);
        assert_eq!(received[0].header("sec-fetch-site"), Some("none"));
    }

    #[tokio::test]
    async fn the_socket_says_everything_again_until_it_is_closed() {
        let (mut ours, theirs) = tokio::io::duplex(1 << 10);
        let echo = tokio::spawn(say_again(theirs));
        // "Hi" masked with 1 2 3 4, a ping, a close.
        ours.write_all(&[0x81, 0x82, 1, 2, 3, 4, b'H' ^ 1, b'i' ^ 2, 0x89, 0x80, 0, 0, 0, 0, 0x88, 0x80, 0, 0, 0, 0]).await.expect("room");
        let mut answer = Vec::new();
        ours.read_to_end(&mut answer).await.expect("it ends");
        assert_eq!(answer, [0x81, 2, b'H', b'i', 0x8a, 0, 0x88, 0]);
        assert!(echo.await.expect("no panic").is_ok());
        assert_eq!(frame(0x82, &[0; 300])[..4], [0x82, 126, 1, 44]);
    }

    #[test]
    fn the_accept_header_is_that_of_the_rfc() {
        assert_eq!(websocket_accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
