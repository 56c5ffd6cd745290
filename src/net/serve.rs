//! Serving: from a listener to a service's answers, one task per connection, until the daemon stops.
//!
//! HTTP/1.1 and HTTP/2 on every listener: TLS agrees on one, in clear HTTP/2 is known by its preface. The service is any
//! `tower_service::Service` over `http::Request<IncomingBody>`, an axum `Router` among them. What connections may not do, and for how
//! long, is in [`super::deadline`].

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use super::body::{Answer, IncomingBody};
use super::causes;
use super::client_certificate::ClientCertificate;
use super::connection::{Connection, Register, Slot};
use super::cores::Cores;
use super::deadline::Deadlined;
use super::files;
use super::gather::Gathering;
use super::head;
use super::listener::Listener;
use super::places::{self, Audience, Excess, Places};
use super::problem::{Code, Problem};
use super::request_id::RequestIds;
use super::stream::{Accepted, Stream};
use super::tls::ServerTls;
use super::unread::Streams;
use super::unreadable::{self, OwnAnswer, Rewording, Watched};
use crate::config::{Limits, TrustedProxies};
use crate::random::Random;

/// From accepting a connection until its first request has begun, TLS included.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// A connection that was asked to end and has nothing under way may take this long to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);
/// Connections above the limit that are still told so, with a 503; beyond those they are closed without a word.
const REFUSED_POLITELY: usize = 64;
/// Streams on one HTTP/2 connection.
const STREAMS: u32 = 200;
/// What may come ahead of us on one HTTP/2 stream, and on one connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// What hyper holds of an HTTP/1.1 connection before it is asked for it, at least.
const READ_AHEAD: usize = 400 << 10;
/// An HTTP/2 connection with streams open is asked for a sign of life this often, and given up this long after.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How an HTTP/2 connection begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long accepting rests after an error, so that running out of file descriptors is no busy loop.
const REST: Duration = Duration::from_millis(100);
/// That connections are refused is told in the log this often at most, for each listener.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Why a connection broke.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Stream(#[from] io::Error),
}

/// All listeners and their connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Server {
    register: Arc<Register>,
    places: Arc<Places>,
    settings: Arc<ArcSwap<Settings>>,
    stop: CancellationToken,
    accepting: TaskTracker,
    cores: Option<Arc<Cores>>,
}

/// How one listener serves.
#[derive(Clone, Debug, Default)]
pub struct Serving {
    /// TLS; a Unix socket has none.
    pub tls: Option<ServerTls>,
    /// WebSockets over HTTP/2 (RFC 8441) are offered.
    pub extended_connect: bool,
    /// Whom it is for: their connections count together against `limits.connections`.
    pub audience: Audience,
    /// Connections are spread over the cores, where the server has them.
    pub spread: bool,
}

impl Server {
    /// A server without listeners. `instance` is the name that its own errors carry; their request ids begin with what is `random`.
    pub fn new(limits: &Limits, instance: &str, random: &dyn Random) -> Self {
        let settings = Settings::new(limits, TrustedProxies::default(), Arc::from(instance), Arc::new(RequestIds::new(random)));
        Self {
            register: Arc::default(),
            places: Arc::default(),
            settings: Arc::new(ArcSwap::from_pointee(settings)),
            stop: CancellationToken::new(),
            accepting: TaskTracker::new(),
            cores: None,
        }
    }

    /// The same, which serves connections on `cores` where a listener says so.
    #[must_use]
    pub fn on(self, cores: Arc<Cores>) -> Self {
        Self { cores: Some(cores), ..self }
    }

    /// Uses other limits for connections from now on; open ones keep theirs. The connections of `proxies` are many people's.
    pub fn set_limits(&self, limits: &Limits, proxies: &TrustedProxies) {
        let before = self.settings.load();
        let settings = Settings::new(limits, proxies.clone(), Arc::clone(&before.instance), Arc::clone(&before.request_ids));
        self.settings.store(Arc::new(settings));
    }

    /// Serves a listener from now on. Must be called inside a tokio runtime.
    pub fn serve<S, B>(&self, listener: Listener, serving: Serving, service: S)
    where
        S: Service<Request<IncomingBody>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.accepting.spawn(self.clone().accept(listener, serving, service));
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.register.open()
    }

    /// Stops listening, closes idle connections at once and the others when they are done, at the latest after `limit`.
    pub async fn drain(&self, limit: Duration) {
        self.stop.cancel();
        self.accepting.close();
        self.accepting.wait().await;
        self.register.close(limit).await;
    }

    async fn accept<S, B>(self, listener: Listener, serving: Serving, service: S)
    where
        S: Service<Request<IncomingBody>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let tls = serving.tls.filter(|_| !listener.is_unix());
        let mut failing = false;
        let mut told: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, neighbour) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(listener = %listener.address(), %error, "cannot accept connections; trying on");
                    }
                    tokio::time::sleep(REST).await;
                    continue;
                }
            };
            failing = false;
            let settings = self.settings.load_full();
            // A proxy is believed to carry many people's connections; a process of this host has no address.
            let address = neighbour.ip().filter(|address| !settings.proxies.include(Some(*address)));
            let (place, excess) = self.places.take(serving.audience, address, settings.connections);
            if let Some(excess) = excess {
                if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                    told = Some(Instant::now());
                    let reason = settings.too_many(excess);
                    tracing::warn!(listener = %listener.address(), ?neighbour, connections = settings.connections, reason, "refusing connections");
                }
                if excess.number() > REFUSED_POLITELY {
                    continue;
                }
            }
            let slot = self.register.enter(neighbour, tls.is_some(), place);
            // A stop between accepting and entering has not seen this one.
            if self.stop.is_cancelled() {
                slot.connection().finish();
            }
            let task = Task { settings, slot, refused: excess, extended_connect: serving.extended_connect };
            let served = task.run(stream, tls.clone(), service.clone());
            match self.cores.as_ref().filter(|_| serving.spread) {
                Some(cores) => cores.spawn(served),
                None => drop(tokio::spawn(served)),
            }
        }
    }
}

/// What every connection needs of the configuration.
#[derive(Debug)]
struct Settings {
    instance: Arc<str>,
    request_ids: Arc<RequestIds>,
    connections: usize,
    /// Whose connections are many people's.
    proxies: TrustedProxies,
    header_bytes: usize,
    first_request: Duration,
    idle: Duration,
    goodbye: Duration,
}

impl Settings {
    fn new(limits: &Limits, proxies: TrustedProxies, instance: Arc<str>, request_ids: Arc<RequestIds>) -> Self {
        Self {
            instance,
            request_ids,
            connections: limits.connections.min(files::connections(files::limit())),
            proxies,
            header_bytes: limits.header_bytes,
            first_request: FIRST_REQUEST.min(limits.idle_timeout),
            idle: limits.idle_timeout,
            goodbye: GOODBYE.min(limits.idle_timeout),
        }
    }

    /// What is read of a head: what is longer is answered without reading it to its end.
    const fn readable_header_bytes(&self) -> usize {
        2 * self.header_bytes
    }

    fn too_many(&self, excess: Excess) -> String {
        match excess {
            Excess::Full(_) => "all connections that limits.connections allows are taken; try again".to_owned(),
            Excess::Share(_) => format!(
                "one address may have {} of the connections that limits.connections allows, and yours has them; close some, or try again. A proxy \
                 that passes many people's requests on may have more where it is one of public.trusted_proxies",
                places::of_address(self.connections)
            ),
        }
    }

    fn head_too_long(&self) -> String {
        let most = head::MOST_FIELDS;
        format!("the head is longer than limits.header_bytes, {} bytes, or has more than {most} fields", self.header_bytes)
    }
}

/// One connection's task.
struct Task {
    settings: Arc<Settings>,
    slot: Arc<Slot>,
    refused: Option<Excess>,
    extended_connect: bool,
}

impl Task {
    async fn run<S, B>(self, accepted: Accepted, tls: Option<ServerTls>, service: S)
    where
        S: Service<Request<IncomingBody>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let connection = Arc::clone(self.slot.connection());
        let stream = match accepted.attach() {
            Ok(stream) => stream,
            Err(error) => return tracing::error!(neighbour = ?connection.neighbour(), %error, "a connection cannot be served"),
        };
        let deadline = Instant::now() + self.settings.first_request;
        let opening = unless_finishing(&connection, tokio::time::timeout_at(deadline, open(stream, tls, &connection)));
        let (stream, ahead, speaks_http2) = match opening.await {
            Some(Ok(Ok(opened))) => opened,
            Some(Ok(Err(error))) => {
                return tracing::debug!(neighbour = ?connection.neighbour(), %error, "a connection failed before its first request");
            }
            Some(Err(_)) => {
                return tracing::debug!(neighbour = ?connection.neighbour(), "a connection was silent for too long before its first request");
            }
            None => return,
        };
        let settings = &self.settings;
        let stream = Deadlined::accepted(stream, ahead, settings.idle, Arc::clone(&self.slot));
        let (refused, extended_connect) = (self.refused, self.extended_connect);
        let hyper_service = {
            let (connection, settings) = (Arc::clone(&connection), Arc::clone(&self.settings));
            // Boxed: hyper and tokio move it several times, and an idle connection keeps room for one.
            service_fn(move |request| Box::pin(answer(request, service.clone(), Arc::clone(&connection), Arc::clone(&settings), refused)))
        };
        // From here on the byte stream alone keeps the connection's place: an upgrade may carry it away.
        let settings = Arc::clone(&self.settings);
        drop(self);
        let outcome = if speaks_http2 {
            let mut builder = http2::Builder::new(Streams::new(settings.idle));
            builder
                .timer(TokioTimer::new())
                .max_header_list_size(u32::try_from(settings.readable_header_bytes()).unwrap_or(u32::MAX))
                .max_concurrent_streams(STREAMS)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_TIMEOUT);
            if extended_connect {
                builder.enable_connect_protocol();
            }
            let io = TokioIo::new(Gathering::new(stream));
            let served = pin!(builder.serve_connection(io, hyper_service));
            drive(&connection, &settings, served, http2::Connection::graceful_shutdown).await.map_err(Into::into)
        } else {
            let mut builder = http1::Builder::new();
            // Our own rule for connections without a request covers heads too.
            builder.header_read_timeout(None);
            let bytes = settings.readable_header_bytes();
            builder.max_header_size(bytes).max_buf_size(bytes.max(READ_AHEAD));
            let serve = |stream| builder.serve_connection(TokioIo::new(stream), hyper_service).with_upgrades();
            let mut watched = unreadable::watch(stream, serve);
            let finish =
                |mut watched: Pin<&mut Watched<_>>| http1::UpgradeableConnection::graceful_shutdown(Pin::new(&mut watched.connection));
            let outcome = drive(&connection, &settings, Pin::new(&mut watched), finish).await;
            // Whoever took it over by an upgrade has the stream.
            match watched.connection.into_parts().map(|parts| parts.io.into_inner()) {
                Some(stream) if stream.is_holding() && !connection.is_cut() => end(stream, outcome, &connection, &settings).await,
                _ => outcome.map_err(Into::into),
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(neighbour = ?connection.neighbour(), error = causes::told(&error), "a connection broke");
        }
    }
}

/// Says the last word on an HTTP/1 connection that has ended before it was said: ours about what hyper could not read, or that of a service which
/// only looked like hyper's.
async fn end(
    stream: Rewording<Deadlined>,
    outcome: Result<(), hyper::Error>,
    connection: &Connection,
    settings: &Settings,
) -> Result<(), Broken> {
    let (error, own) = match (outcome, stream.own_answer()) {
        (Err(error), Some(own)) if error.is_parse() => (error, own),
        (outcome, _) => {
            tokio::select! {
                biased;
                () = connection.ended() => {}
                finished = stream.finish() => finished?,
            }
            return outcome.map_err(Into::into);
        }
    };
    let problem = match own {
        OwnAnswer::TooLong => own_problem(Code::HeaderTooLarge, &settings.head_too_long(), connection, settings),
        OwnAnswer::Broken => {
            let detail = format!("what came is no HTTP request: {}; the connection ends here", causes::told(&error));
            own_problem(Code::BadRequest, &detail, connection, settings)
        }
    };
    let stream = stream.answer(&problem, settings.goodbye).await?;
    unless_finishing(connection, unreadable::read_away(stream, settings.goodbye)).await;
    Ok(())
}

/// TLS, and which HTTP it is: the stream, what was read of it to find out, and whether it is HTTP/2.
async fn open(stream: Stream, tls: Option<ServerTls>, connection: &Connection) -> io::Result<(Stream, Bytes, bool)> {
    let mut stream = match (tls, stream) {
        (Some(tls), Stream::Tcp(tcp)) => {
            let stream = tls.accept(tcp).await?;
            if tls.asks_for_certificates() {
                let chain = stream.peer_certificates().unwrap_or_default().to_vec();
                connection.showed(ClientCertificate::read(chain));
            }
            let speaks_http2 = stream.speaks_http2();
            return Ok((stream, Bytes::new(), speaks_http2));
        }
        (_, stream) => stream,
    };
    let mut ahead = BytesMut::with_capacity(PREFACE.len());
    while ahead.len() < PREFACE.len() && PREFACE.starts_with(&ahead) {
        let left = PREFACE.len() - ahead.len();
        if (&mut stream).take(left as u64).read_buf(&mut ahead).await? == 0 {
            break;
        }
        connection.heard();
    }
    let speaks_http2 = *ahead == *PREFACE;
    Ok((stream, ahead.freeze(), speaks_http2))
}

/// `work`, or nothing when the connection is to end first.
async fn unless_finishing<F: Future>(connection: &Connection, work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    std::future::poll_fn(|context| {
        connection.driven_by(context.waker());
        if connection.is_finishing() {
            return Poll::Ready(None);
        }
        work.as_mut().poll(context).map(Some)
    })
    .await
}

/// Runs a connection to its end: its own, or the one that the deadline for the next request or the daemon's stop puts to it.
///
/// The timer is not moved at every request: when it fires it is set to when it should have.
async fn drive<C, E>(connection: &Connection, settings: &Settings, mut work: Pin<&mut C>, finish: impl Fn(Pin<&mut C>)) -> Result<(), E>
where
    C: Future<Output = Result<(), E>>,
{
    let mut timer = pin!(tokio::time::sleep_until(connection.must_begin_by(settings.first_request, settings.idle)));
    let mut goodbye = false;
    let mut stood_at = None;
    std::future::poll_fn(|context| {
        connection.driven_by(context.waker());
        if connection.is_finishing() && !goodbye {
            goodbye = true;
            finish(work.as_mut());
            timer.as_mut().reset(Instant::now() + settings.goodbye);
        }
        if let Poll::Ready(outcome) = work.as_mut().poll(context) {
            return Poll::Ready(outcome);
        }
        if connection.is_cut() {
            return Poll::Ready(Ok(()));
        }
        while timer.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            let due = connection.must_begin_by(settings.first_request, settings.idle);
            if connection.is_busy() {
                let stands_at = connection.waits_for_reader();
                if stands_at.is_some() && stands_at == stood_at {
                    tracing::debug!(neighbour = ?connection.neighbour(), "the client reads nothing of its answers; closing");
                    return Poll::Ready(Ok(()));
                }
                stood_at = stands_at;
                timer.as_mut().reset(now + if goodbye { settings.goodbye } else { settings.idle });
            } else if goodbye {
                return Poll::Ready(Ok(()));
            } else if due > now {
                timer.as_mut().reset(due);
            } else {
                goodbye = true;
                finish(work.as_mut());
                timer.as_mut().reset(now + settings.goodbye);
                if let Poll::Ready(outcome) = work.as_mut().poll(context) {
                    return Poll::Ready(outcome);
                }
            }
        }
        Poll::Pending
    })
    .await
}

/// One request: the service's answer, or 500 where it panics.
async fn answer<S, B>(
    request: Request<Incoming>,
    mut service: S,
    connection: Arc<Connection>,
    settings: Arc<Settings>,
    refused: Option<Excess>,
) -> Result<Response<Answer<B>>, Infallible>
where
    S: Service<Request<IncomingBody>, Response = Response<B>, Error = Infallible>,
{
    let held = connection.hold();
    if let Some(excess) = refused {
        let mut response = own_problem(Code::Overloaded, &settings.too_many(excess), &connection, &settings);
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        connection.finish();
        return Ok(response.map(|body| Answer::ours(body, held)));
    }
    if !head::is_within(&request, settings.header_bytes) {
        return Ok(
            own_problem(Code::HeaderTooLarge, &settings.head_too_long(), &connection, &settings).map(|body| Answer::ours(body, held))
        );
    }
    let mut request = request.map(|body| IncomingBody::new(body, settings.idle));
    request.extensions_mut().insert(Arc::clone(&connection));
    let work = async move {
        let Ok(()) = std::future::poll_fn(|context: &mut Context<'_>| service.poll_ready(context)).await;
        let Ok(response) = service.call(request).await;
        response
    };
    Ok(match AssertUnwindSafe(work).catch_unwind().await {
        Ok(response) => response.map(|body| Answer::theirs(body, held)),
        Err(_) => {
            // The panic hook has logged where.
            own_problem(Code::Internal, "the request met a fault in p2pid; its log says more", &connection, &settings)
                .map(|body| Answer::ours(body, held))
        }
    })
}

/// What the server itself answers, told in the log under the request id that is in the answer.
fn own_problem(code: Code, detail: &str, connection: &Connection, settings: &Settings) -> Response<Bytes> {
    let request_id = settings.request_ids.next();
    let request_id = request_id.to_str().unwrap_or_default();
    tracing::info!(request_id, neighbour = ?connection.neighbour(), code = code.name(), reason = detail, "not taken");
    Problem { code, detail, instance: &settings.instance, request_id, retry_after: None }.response()
}
