//! Open connections to others, kept for the next request.
//!
//! HTTP/1.1: a stack of idle connections per origin, the last used first. HTTP/2: few connections per origin, shared. A connection
//! is given up early (others' servers close idle ones, and a request sent into such a closing is lost), and never lives so long
//! that a changed address goes unnoticed. Which protocol an origin speaks is learnt from its first connection: until it is known,
//! requests wait together for that one instead of opening one each. All of this is kept for each core apart ([`super::cores`]).

use std::collections::HashMap;
use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared as SharedFuture};
use http::{HeaderValue, Request, Response, Uri, Version, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use super::body::RequestBody;
use super::causes;
use super::client::SendError;
use super::connect::{Connector, Offer, Origin};
use super::cores;
use super::deadline::Deadlined;
use super::gather::Gathering;
use super::lane::Pass;
use super::outgoing::Share;
use super::stream::Stream;
use crate::config::Limits;

/// Idle HTTP/1.1 connections kept per origin.
const MOST_IDLE: usize = 512;
/// HTTP/2 connections per origin, and how many streams each takes before another is opened (servers commonly allow 100 to 128).
const MOST_SHARED: usize = 4;
const STREAMS_EACH: usize = 100;
/// An HTTP/2 connection with requests under way is asked for a sign of life this often, and given up this long after.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// What a peer may send ahead of us on one HTTP/2 stream, and on one connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// How long connections are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ages {
    /// An idle HTTP/1.1 connection is not used after this.
    pub(super) http1_idle: Duration,
    /// An unused HTTP/2 connection is closed after this.
    pub(super) http2_idle: Duration,
    /// No new request goes over a connection older than this, so that names are resolved again.
    pub(super) longest_life: Duration,
    /// How often expired connections are looked for and closed.
    pub(super) sweep: Duration,
}

impl Default for Ages {
    /// Servers commonly close idle HTTP/1.1 connections after 5 s without a word; HTTP/2 ones after 60 s, and they say so (GOAWAY).
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { http1_idle: seconds(4), http2_idle: seconds(50), longest_life: seconds(300), sweep: seconds(5) }
    }
}

/// All connections made under one trust.
pub(super) struct Pool {
    ages: Ages,
    connector: Connector,
    /// What bounds its connections, together with those of other pools.
    share: Share,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    /// By origin and core: a connection serves the thread that it was made on.
    hosts: ArcSwap<HashMap<(usize, Origin), Arc<Host>>>,
    write_idle: Duration,
    born: Instant,
    swept: AtomicBool,
}

impl Pool {
    pub(super) fn new(connector: Connector, limits: &Limits, ages: Ages, share: Share) -> Arc<Self> {
        let header_bytes = limits.header_bytes;
        let mut http1 = http1::Builder::new();
        http1.max_header_size(header_bytes);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT);
        let this = Arc::new(Self {
            ages,
            connector,
            share,
            http1,
            http2,
            hosts: ArcSwap::default(),
            write_idle: limits.idle_timeout,
            born: Instant::now(),
            swept: AtomicBool::new(false),
        });
        this.share.register(Arc::downgrade(&this));
        this
    }

    /// The certificate that `origin` shows, over a connection of its own.
    pub(super) async fn certificate(&self, origin: &Origin) -> Result<Option<CertificateDer<'static>>, SendError> {
        let _pass = self.share.enter().await?;
        self.connector.certificate(origin).await
    }

    /// A connection to `host`, with its place among those that go out.
    async fn connect(&self, host: &Host, offer: Offer) -> Result<(Stream, Pass), SendError> {
        let pass = self.share.enter().await?;
        Ok((self.connector.connect(&host.origin, offer).await?, pass))
    }

    /// What is known of `uri`'s origin.
    pub(super) fn host(&self, uri: &Uri) -> Result<Arc<Host>, SendError> {
        let origin = Origin::of(uri)
            .ok_or_else(|| SendError::BadUrl("found a URL without scheme or host, expected http:// or https:// and a host".to_owned()))?;
        let place = (cores::current(), origin);
        if let Some(host) = self.hosts.load().get(&place) {
            return Ok(Arc::clone(host));
        }
        let host = Arc::new(Host::new(place.1.clone())?);
        self.hosts.rcu(|hosts| {
            let mut hosts = HashMap::clone(hosts);
            hosts.entry(place.clone()).or_insert_with(|| Arc::clone(&host));
            hosts
        });
        Ok(self.hosts.load().get(&place).map_or(host, Arc::clone))
    }

    /// A connection to `host` that takes a request now: an open one if there is one, else a new one.
    pub(super) async fn lease(self: &Arc<Self>, host: &Arc<Host>) -> Result<Lease, SendError> {
        match host.open_connection(self, Instant::now()) {
            Some(lease) => Ok(lease),
            // Rare, and large: a handshake is kept apart from the calls that need none.
            None => Box::pin(self.lease_new(host)).await,
        }
    }

    async fn lease_new(self: &Arc<Self>, host: &Arc<Host>) -> Result<Lease, SendError> {
        for _ in 0..2 {
            if host.protocol.load(Ordering::Relaxed) == HTTP1 {
                break;
            }
            self.common_flight(host).await?;
            if let Some(lease) = host.open_connection(self, Instant::now()) {
                return Ok(lease);
            }
        }
        self.fresh(host).await
    }

    /// A new connection to `host`.
    pub(super) async fn fresh(self: &Arc<Self>, host: &Arc<Host>) -> Result<Lease, SendError> {
        match self.open(host).await? {
            Opened::Alone(alone) => Ok(Lease { kind: Kind::Alone(alone), host: Arc::clone(host), reused: false }),
            Opened::Shared(shared) => Ok(shared.lease(self, host, false)),
        }
    }

    /// One HTTP/1.1 connection outside the pool, for an upgrade.
    pub(super) async fn apart(self: &Arc<Self>, host: &Arc<Host>) -> Result<Lease, SendError> {
        let (stream, pass) = self.connect(host, Offer::Http1).await?;
        let sender = self.shake_http1(host, stream, pass).await?;
        Ok(Lease { kind: Kind::Alone(Alone { sender, born: Instant::now() }), host: Arc::clone(host), reused: false })
    }

    /// Waits for one connection that is opened on behalf of all who wait; callers that give up do not stop it.
    async fn common_flight(self: &Arc<Self>, host: &Arc<Host>) -> Result<(), SendError> {
        let flight = {
            let mut flight = lock(&host.flight);
            match &*flight {
                Some(under_way) if under_way.0.peek().is_none() => under_way.clone(),
                _ => {
                    let (pool, host) = (Arc::clone(self), Arc::clone(host));
                    let task = tokio::spawn(async move {
                        if let Opened::Alone(alone) = pool.open(&host).await? {
                            host.keep(alone);
                        }
                        Ok(())
                    });
                    let outcome = task
                        .map(|joined| joined.unwrap_or_else(|_| Err(SendError::Unreachable("shutting down".to_owned()))))
                        .boxed()
                        .shared();
                    flight.insert(Flight(outcome)).clone()
                }
            }
        };
        flight.0.await
    }

    async fn open(self: &Arc<Self>, host: &Arc<Host>) -> Result<Opened, SendError> {
        if !self.swept.swap(true, Ordering::Relaxed) {
            tokio::spawn(sweep_while_used(Arc::downgrade(self), self.ages));
        }
        let (stream, pass) = self.connect(host, Offer::Both).await?;
        let born = Instant::now();
        if !stream.speaks_http2() && !host.origin.is_h2c() {
            let sender = self.shake_http1(host, stream, pass).await?;
            host.protocol.store(HTTP1, Ordering::Relaxed);
            return Ok(Opened::Alone(Alone { sender, born }));
        }
        let failed = |error: hyper::Error| SendError::Unreachable(format!("{}: HTTP/2: {}", host.origin, causes::told(&error)));
        let (mut sender, connection) =
            self.http2.handshake(TokioIo::new(Gathering::new(Deadlined::outgoing(stream, self.write_idle, pass)))).await.map_err(failed)?;
        tokio::spawn(connection.map(|ended| log_end(ended.err())));
        sender.ready().await.map_err(failed)?;
        let shared = Arc::new(Shared { sender, born, under_way: AtomicUsize::new(0), last_used: AtomicU64::new(0) });
        shared.touch(self.born);
        host.protocol.store(HTTP2, Ordering::Relaxed);
        host.shared
            .rcu(|list| list.iter().filter(|shared| shared.is_usable(born, &self.ages)).chain([&shared]).cloned().collect::<Vec<_>>());
        Ok(Opened::Shared(shared))
    }

    async fn shake_http1(&self, host: &Host, stream: Stream, pass: Pass) -> Result<http1::SendRequest<RequestBody>, SendError> {
        let failed = |error: hyper::Error| SendError::Unreachable(format!("{}: {}", host.origin, causes::told(&error)));
        let (mut sender, connection) =
            self.http1.handshake(TokioIo::new(Deadlined::outgoing(stream, self.write_idle, pass))).await.map_err(failed)?;
        tokio::spawn(connection.with_upgrades().map(|ended| log_end(ended.err())));
        sender.ready().await.map_err(failed)?;
        Ok(sender)
    }

    /// Gives up one connection that nothing is under way on, if there is one.
    pub(super) fn evict(&self) -> bool {
        self.hosts.load().values().any(|host| host.evict())
    }

    /// Closes what is closed, expired or unused, and forgets origins without connections.
    fn sweep(&self, now: Instant) {
        for host in self.hosts.load().values() {
            lock(&host.idle).retain(|idle| idle.is_usable(now, &self.ages));
            let expired = |shared: &Arc<Shared>| !shared.is_usable(now, &self.ages) || shared.is_unused(now, self.born, &self.ages);
            if host.shared.load().iter().any(expired) {
                host.shared.rcu(|list| list.iter().filter(|shared| !expired(shared)).cloned().collect::<Vec<_>>());
            }
        }
        if self.hosts.load().values().any(|host| host.is_forgettable()) {
            self.hosts.rcu(|hosts| {
                hosts
                    .iter()
                    .filter(|(_, host)| !host.is_forgettable())
                    .map(|(place, host)| (place.clone(), Arc::clone(host)))
                    .collect::<HashMap<_, _>>()
            });
        }
    }
}

async fn sweep_while_used(pool: Weak<Pool>, ages: Ages) {
    loop {
        tokio::time::sleep(ages.sweep).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.sweep(Instant::now());
    }
}

/// How a connection ended is the affair of the requests on it; here it only helps who debugs.
fn log_end(error: Option<hyper::Error>) {
    if let Some(error) = error {
        tracing::debug!(error = causes::told(&error), "a connection to a peer ended");
    }
}

const UNKNOWN: u8 = 0;
const HTTP1: u8 = 1;
const HTTP2: u8 = 2;

/// One origin and the connections to it.
pub(super) struct Host {
    origin: Origin,
    /// The value of the `Host` header.
    name: HeaderValue,
    protocol: AtomicU8,
    idle: Mutex<Vec<Idle>>,
    shared: ArcSwap<Vec<Arc<Shared>>>,
    flight: Mutex<Option<Flight>>,
}

/// A connection that is being opened on behalf of all who wait for one.
#[derive(Clone)]
struct Flight(SharedFuture<BoxFuture<'static, Result<(), SendError>>>);

impl Host {
    fn new(origin: Origin) -> Result<Self, SendError> {
        let name = HeaderValue::from_str(origin.authority.as_str())
            .map_err(|_| SendError::BadUrl(format!("{origin}: found a host name that no header can carry")))?;
        // Without TLS there is no ALPN: HTTP/1.1 it is, unless the URL says otherwise.
        let known = if origin.is_h2c() { HTTP2 } else { HTTP1 };
        let protocol = AtomicU8::new(if origin.is_https() { UNKNOWN } else { known });
        Ok(Self { origin, name, protocol, idle: Mutex::default(), shared: ArcSwap::default(), flight: Mutex::default() })
    }

    /// An open connection that takes a request at once.
    fn open_connection(self: &Arc<Self>, pool: &Arc<Pool>, now: Instant) -> Option<Lease> {
        let list = self.shared.load();
        let least =
            list.iter().filter(|shared| shared.is_usable(now, &pool.ages)).min_by_key(|shared| shared.under_way.load(Ordering::Relaxed));
        if let Some(shared) = least {
            if shared.under_way.load(Ordering::Relaxed) >= STREAMS_EACH && list.len() < MOST_SHARED {
                // This request takes its place in the queue; another connection opens for those to come.
                drop(pool.common_flight(self).now_or_never());
            }
            return Some(shared.lease(pool, self, true));
        }
        let mut idle = lock(&self.idle);
        let place = idle.iter().rposition(|idle| idle.alone.sender.is_ready() && idle.is_usable(now, &pool.ages))?;
        let alone = idle.remove(place).alone;
        Some(Lease { kind: Kind::Alone(alone), host: Arc::clone(self), reused: true })
    }

    fn keep(&self, alone: Alone) {
        if alone.sender.is_closed() {
            return;
        }
        let mut idle = lock(&self.idle);
        if idle.len() < MOST_IDLE {
            idle.push(Idle { alone, since: Instant::now() });
        }
    }

    /// Gives up one connection that nothing is under way on, if there is one.
    fn evict(&self) -> bool {
        let idle = {
            let mut idle = lock(&self.idle);
            // One that its server has closed leaves no place.
            idle.retain(|idle| !idle.alone.sender.is_closed());
            // The one that was used last is the one that is used next.
            let oldest = idle.iter().position(|idle| idle.alone.sender.is_ready());
            oldest.map(|oldest| idle.remove(oldest))
        };
        if idle.is_some() {
            return true;
        }
        let unused = |shared: &Arc<Shared>| shared.under_way.load(Ordering::Relaxed) == 0 && !shared.sender.is_closed();
        let Some(unused) = self.shared.load().iter().find(|shared| unused(shared)).cloned() else { return false };
        self.shared.rcu(|list| list.iter().filter(|shared| !Arc::ptr_eq(shared, &unused)).cloned().collect::<Vec<_>>());
        true
    }

    fn is_forgettable(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && self.shared.load().is_empty() && lock(&self.idle).is_empty()
    }
}

/// An HTTP/1.1 connection: one request at a time.
struct Alone {
    sender: http1::SendRequest<RequestBody>,
    born: Instant,
}

/// An HTTP/1.1 connection that waits. It may still be sending the rest of a request that was answered early; then it is not ready.
struct Idle {
    alone: Alone,
    since: Instant,
}

impl Idle {
    fn is_usable(&self, now: Instant, ages: &Ages) -> bool {
        !self.alone.sender.is_closed()
            && now.duration_since(self.since) < ages.http1_idle
            && now.duration_since(self.alone.born) < ages.longest_life
    }
}

/// An HTTP/2 connection: many requests at a time.
struct Shared {
    sender: http2::SendRequest<RequestBody>,
    born: Instant,
    under_way: AtomicUsize,
    /// Milliseconds since the pool was made.
    last_used: AtomicU64,
}

impl Shared {
    fn is_usable(&self, now: Instant, ages: &Ages) -> bool {
        !self.sender.is_closed() && now.duration_since(self.born) < ages.longest_life
    }

    fn is_unused(&self, now: Instant, epoch: Instant, ages: &Ages) -> bool {
        let last_used = epoch + Duration::from_millis(self.last_used.load(Ordering::Relaxed));
        self.under_way.load(Ordering::Relaxed) == 0 && now.saturating_duration_since(last_used) >= ages.http2_idle
    }

    fn touch(&self, epoch: Instant) {
        self.last_used.store(u64::try_from(epoch.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn lease(self: &Arc<Self>, pool: &Pool, host: &Arc<Host>, reused: bool) -> Lease {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let place = Place { shared: Arc::clone(self), epoch: pool.born };
        Lease { kind: Kind::Shared { sender: self.sender.clone(), _place: place }, host: Arc::clone(host), reused }
    }
}

/// One stream of a shared connection, counted while it lives.
struct Place {
    shared: Arc<Shared>,
    epoch: Instant,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.touch(self.epoch);
        self.shared.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Opened {
    Alone(Alone),
    Shared(Arc<Shared>),
}

/// The right to send one request over a connection.
pub(super) struct Lease {
    kind: Kind,
    host: Arc<Host>,
    /// It served others before: it may turn out to be closed.
    pub(super) reused: bool,
}

enum Kind {
    Alone(Alone),
    Shared { sender: http2::SendRequest<RequestBody>, _place: Place },
}

/// A request that got no answer.
pub(super) enum Unanswered {
    /// Not a byte of it was sent; here it is again.
    Unsent(Box<Request<RequestBody>>, SendError),
    /// Some or all of it may have arrived.
    Sent(SendError),
}

impl Lease {
    /// Sends one request and reads the head of its answer.
    pub(super) async fn send(&mut self, mut request: Request<RequestBody>) -> Result<Response<Incoming>, Unanswered> {
        let outcome = match &mut self.kind {
            Kind::Alone(alone) => {
                *request.version_mut() = Version::HTTP_11;
                request.headers_mut().insert(header::HOST, self.host.name.clone());
                // hyper takes a GET or HEAD of unknown length for one without a body, and would drop what the caller sent.
                if request.body().size_hint().exact().is_none() && !request.headers().contains_key(header::CONTENT_LENGTH) {
                    request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                }
                to_origin_form(request.uri_mut());
                alone.sender.try_send_request(request).await
            }
            Kind::Shared { sender, .. } => {
                *request.version_mut() = Version::HTTP_2;
                request.headers_mut().remove(header::HOST);
                // It may have been meant for a connection of the other version.
                request.headers_mut().remove(header::TRANSFER_ENCODING);
                to_absolute_form(request.uri_mut(), &self.host.origin);
                sender.try_send_request(request).await
            }
        };
        outcome.map_err(|mut failure| match failure.take_message() {
            Some(request) => {
                let why = format!("{}: {}", self.host.origin, causes::told(&failure.into_error()));
                Unanswered::Unsent(Box::new(request), SendError::Unreachable(why))
            }
            None => Unanswered::Sent(unanswered(&self.host.origin, &failure.into_error())),
        })
    }

    /// The request was answered to the end: others may use the connection.
    pub(super) fn give_back(self) {
        if let Kind::Alone(alone) = self.kind {
            self.host.keep(alone);
        }
    }
}

/// What became of a request that was sent and not answered.
fn unanswered(origin: &Origin, error: &hyper::Error) -> SendError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            // RFC 9113 §8.7: a refused stream, and one above the last that a GOAWAY names, was not processed at all.
            let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            let going_away = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
            if error.is_remote() && (refused || going_away) {
                return SendError::NotProcessed(format!("{origin}: {error}"));
            }
        }
        cause = error.source();
    }
    SendError::Broken(format!("{origin}: {}", causes::told(error)))
}

/// `/path?query`, as HTTP/1.1 sends it to an origin.
fn to_origin_form(uri: &mut Uri) {
    if uri.authority().is_none() {
        return;
    }
    let mut parts = std::mem::take(uri).into_parts();
    (parts.scheme, parts.authority) = (None, None);
    parts.path_and_query.get_or_insert_with(|| http::uri::PathAndQuery::from_static("/"));
    *uri = Uri::from_parts(parts).expect("a path alone is a URI");
}

/// With scheme and authority, as HTTP/2 sends it.
fn to_absolute_form(uri: &mut Uri, origin: &Origin) {
    let scheme = origin.wire_scheme();
    if uri.authority().is_some() && uri.scheme() == Some(&scheme) {
        return;
    }
    let mut parts = std::mem::take(uri).into_parts();
    (parts.scheme, parts.authority) = (Some(scheme), Some(origin.authority.clone()));
    *uri = Uri::from_parts(parts).expect("scheme, authority and path make a URI");
}

/// A panic elsewhere leaves lists of connections whole: each change is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
