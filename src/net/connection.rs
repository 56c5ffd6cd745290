//! One connection of somebody to us: who it is, whether anything is under way on it, and the register of all of them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use http::{HeaderValue, Version};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client_certificate::ClientCertificate;
use super::places::Place;

/// A write of no more bytes may be a ping or a window update.
const SIGN_OF_LIFE: usize = 64;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// A TCP address; an IPv4 address is one also where it came over an IPv6 socket.
    Tcp(SocketAddr),
    /// A process on this host, as the kernel says.
    Unix {
        /// Its user.
        uid: u32,
        /// Its group.
        gid: u32,
        /// The process, where the kernel tells.
        pid: Option<i32>,
    },
}

impl Neighbour {
    /// Its address; a process on this host has none.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix { .. } => None,
        }
    }
}

/// A connection that was accepted. Requests carry it as an extension: `request.extensions().get::<Arc<Connection>>()`.
#[derive(Debug)]
pub struct Connection {
    neighbour: Neighbour,
    tls: bool,
    born: Instant,
    under_way: AtomicUsize,
    /// Of those, answers of which the client has a part that it has not taken yet.
    unread: AtomicUsize,
    /// Counts writes that were more than a sign of life.
    written: AtomicU64,
    /// Milliseconds since `born`; when the last request ended.
    idle_since: AtomicU64,
    /// Milliseconds since `born`, at least 1; when the first byte since nothing was under way was read. 0 while none was.
    first_byte: AtomicU64,
    began: AtomicBool,
    finishing: AtomicBool,
    driver: AtomicWaker,
    cut: CancellationToken,
    /// What applications are told of the other end, once it was written down.
    forwarded: OnceLock<HeaderValue>,
    /// What the other end showed in its handshake, on listeners that ask for a certificate.
    certificate: OnceLock<Option<Arc<ClientCertificate>>>,
}

impl Connection {
    /// Who is at the other end.
    pub fn neighbour(&self) -> Neighbour {
        self.neighbour
    }

    /// Whether it is encrypted.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whether the other end was asked for a certificate.
    pub fn asks_for_certificate(&self) -> bool {
        self.certificate.get().is_some()
    }

    /// The certificate that the other end showed when it was asked for one: it holds the key. Read once per connection.
    pub fn certificate(&self) -> Option<&Arc<ClientCertificate>> {
        self.certificate.get()?.as_ref()
    }

    /// Notes what the other end showed when it was asked for a certificate.
    pub(super) fn showed(&self, certificate: Option<ClientCertificate>) {
        self.certificate.get_or_init(|| certificate.map(Arc::new));
    }

    /// The `Forwarded` of requests that came over this connection without a proxy: made once.
    pub fn forwarded(&self, make: impl FnOnce() -> HeaderValue) -> HeaderValue {
        self.forwarded.get_or_init(make).clone()
    }

    /// Declares something to be under way until the answer is dropped. Requests do so by themselves until their answers are sent;
    /// a tunnel does it for as long as it lives, or an HTTP/2 connection that carries nothing else counts as idle.
    pub fn hold(self: &Arc<Self>) -> Held {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        self.began.store(true, Ordering::Relaxed);
        Held { connection: Arc::clone(self), unread: false }
    }

    /// How long ago the first byte of the request under way arrived, its head's own time included.
    ///
    /// Zero, as if the head had come at once, over HTTP/2, where pings and other requests' frames come in between, and of a request whose
    /// first byte came together with the one before it.
    pub fn since_first_byte(&self, version: Version) -> Duration {
        match self.first_byte.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            _ if version >= Version::HTTP_2 => Duration::ZERO,
            millis => self.born.elapsed().saturating_sub(Duration::from_millis(millis)),
        }
    }

    /// Notes that bytes were read.
    pub(super) fn heard(&self) {
        if self.first_byte.load(Ordering::Relaxed) == 0 && !self.is_busy() {
            self.first_byte.store(self.age_millis().max(1), Ordering::Relaxed);
        }
    }

    /// Completes when the daemon stops and has no time left: tunnels end then.
    pub async fn ended(&self) {
        self.cut.cancelled().await;
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }

    /// The connection's task, woken when [`Self::is_finishing`] or [`Self::is_cut`] changes.
    pub(super) fn driven_by(&self, waker: &Waker) {
        self.driver.register(waker);
    }

    /// Ends the connection as soon as nothing is under way.
    pub(super) fn finish(&self) {
        self.finishing.store(true, Ordering::Release);
        self.driver.wake();
    }

    pub(super) fn is_finishing(&self) -> bool {
        self.finishing.load(Ordering::Acquire)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    /// Notes a write of `length` bytes.
    pub(super) fn wrote(&self, length: usize) {
        if length > SIGN_OF_LIFE {
            self.written.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Where writing stands, if all that is under way waits for the client to read: the same twice means that it does not.
    pub(super) fn waits_for_reader(&self) -> Option<u64> {
        let (unread, under_way) = (self.unread.load(Ordering::Relaxed), self.under_way.load(Ordering::Relaxed));
        (unread > 0 && unread == under_way).then(|| self.written.load(Ordering::Relaxed))
    }

    /// Counts the idle time from now.
    pub(super) fn touch(&self) {
        self.idle_since.store(self.age_millis(), Ordering::Relaxed);
    }

    fn age_millis(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Until when a request must begin, were none under way.
    pub(super) fn must_begin_by(&self, first: Duration, idle: Duration) -> Instant {
        let since = self.born + Duration::from_millis(self.idle_since.load(Ordering::Relaxed));
        since + if self.began.load(Ordering::Relaxed) { idle } else { first }
    }
}

/// Something is under way on a connection.
#[derive(Debug)]
pub struct Held {
    connection: Arc<Connection>,
    unread: bool,
}

impl Held {
    /// Notes whether the client has a part of the answer that it has not taken yet.
    pub(super) fn set_unread(&mut self, unread: bool) {
        match (self.unread, unread) {
            (false, true) => self.connection.unread.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.connection.unread.fetch_sub(1, Ordering::Relaxed),
            (true, true) | (false, false) => return,
        };
        self.unread = unread;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set_unread(false);
        // The time first: who sees the count at zero sees the time that belongs to it, or an older one once more.
        self.connection.touch();
        if self.connection.under_way.fetch_sub(1, Ordering::Release) == 1 {
            self.connection.first_byte.store(0, Ordering::Relaxed);
        }
    }
}

/// All connections of all listeners.
#[derive(Debug, Default)]
pub(super) struct Register {
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    next: AtomicU64,
    closed: Notify,
    cut: CancellationToken,
}

impl Register {
    /// Enters a connection that has that place.
    pub(super) fn enter(self: &Arc<Self>, neighbour: Neighbour, tls: bool, place: Place) -> Arc<Slot> {
        let connection = Arc::new(Connection {
            neighbour,
            tls,
            born: Instant::now(),
            under_way: AtomicUsize::new(0),
            unread: AtomicUsize::new(0),
            written: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            first_byte: AtomicU64::new(0),
            began: AtomicBool::new(false),
            finishing: AtomicBool::new(false),
            driver: AtomicWaker::new(),
            cut: self.cut.clone(),
            forwarded: OnceLock::new(),
            certificate: OnceLock::new(),
        });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, Arc::clone(&connection));
        Arc::new(Slot { register: Arc::clone(self), number, connection, _place: place })
    }

    pub(super) fn open(&self) -> usize {
        self.lock().len()
    }

    /// Asks all connections to end, waits for `limit`, then cuts those that are left.
    pub(super) async fn close(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        self.each(Connection::finish);
        if tokio::time::timeout_at(deadline, self.all_closed()).await.is_err() {
            tracing::warn!(connections = self.open(), "calls under way took longer than limits.drain; cutting them");
            self.cut.cancel();
            self.each(|connection| connection.driver.wake());
        }
    }

    async fn all_closed(&self) {
        loop {
            let closed = self.closed.notified();
            if self.lock().is_empty() {
                return;
            }
            closed.await;
        }
    }

    fn each(&self, act: impl Fn(&Connection)) {
        let connections: Vec<_> = self.lock().values().cloned().collect();
        connections.iter().for_each(|connection| act(connection));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the register; it leaves when the last owner of its byte stream drops it.
#[derive(Debug)]
pub(super) struct Slot {
    register: Arc<Register>,
    number: u64,
    connection: Arc<Connection>,
    _place: Place,
}

impl Slot {
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let left = {
            let mut open = self.register.lock();
            open.remove(&self.number);
            open.len()
        };
        if left == 0 {
            self.register.closed.notify_waiters();
        }
    }
}
