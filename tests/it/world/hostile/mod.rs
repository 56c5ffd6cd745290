//! A scripted hostile OAuth peer over real TLS: an authorization server and a resource that behave well until a test says otherwise.
//!
//! ```ignore
//! let peer = Hostile::start(&clock).await;
//! peer.next(Endpoint::Token, Fault::DroppedAfterCommit);       // the next answer is lost
//! peer.times(3, Endpoint::Token, Fault::Status(503));          // then it is unavailable three times
//! let asked = peer.heard(Endpoint::Token);                     // everything that reached it, for the assertions on the wire
//! ```
//!
//! Unless told otherwise it is a strict foreign server: refresh tokens are used once, and a second use is `invalid_grant`.

mod desk;
mod fault;
mod server;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p2pid::clock::Clock;
use rustls::HandshakeKind;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) use fault::{Endpoint, Fault};

use super::address::{free_port, own_address};
use super::message::Message;
use super::patience::eventually;
use desk::Desk;

/// The running peer; it ends when this is dropped.
pub(crate) struct Hostile {
    shared: Arc<Shared>,
    folder: TempDir,
    _serving: JoinSet<()>,
}

/// A request that reached the peer.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) endpoint: Endpoint,
    pub(crate) method: String,
    /// Path and query as sent.
    pub(crate) target: String,
    /// The parameters of the query, or of a form.
    pub(crate) parameters: Vec<(String, String)>,
    /// Client id and secret from HTTP Basic, or from the form.
    pub(crate) client: Option<(String, String)>,
    /// The token after `Authorization: Bearer` or `Authorization: DPoP`.
    pub(crate) bearer: Option<String>,
    pub(crate) message: Message,
}

impl Heard {
    /// The value of a parameter that was sent once.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let mut values = self.parameters.iter().filter(|(key, _)| key == name);
        let value = values.next()?.1.as_str();
        assert!(values.next().is_none(), "{name} was sent more than once in {}", self.target);
        Some(value)
    }

    /// Header and claims of the DPoP proof that came with it.
    pub(crate) fn proof(&self) -> Option<(Value, Value)> {
        self.message.header("dpop").map(signed)
    }

    /// Header and claims of the assertion that says who the client is.
    pub(crate) fn assertion(&self) -> Option<(Value, Value)> {
        self.parameter("client_assertion").map(signed)
    }
}

/// Header and claims of what was signed; whether it is well signed is not looked at.
fn signed(jws: &str) -> (Value, Value) {
    let mut parts = jws.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).expect("base64url"));
    let mut next = || serde_json::from_slice(&parts.next().expect("three parts")).expect("JSON");
    (next(), next())
}

/// What the handle and the connections share.
struct Shared {
    address: SocketAddr,
    desk: Mutex<Desk>,
    releases: watch::Sender<u64>,
    handshakes: Mutex<Vec<HandshakeKind>>,
    clock: Arc<dyn Clock>,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hostile {
    /// Starts a peer on an address of its own. What it says of the time comes from `clock`.
    pub(crate) async fn start(clock: Arc<dyn Clock>) -> Self {
        let address = free_port(own_address());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let shared = Arc::new(Shared {
            address,
            desk: Mutex::new(Desk::new(address)),
            releases: watch::Sender::new(0),
            handshakes: Mutex::default(),
            clock,
        });
        let mut serving = JoinSet::new();
        serving.spawn(server::serve(address, Arc::clone(&shared), folder.path()).await);
        Self { shared, folder, _serving: serving }
    }

    /// Its issuer, which is also the URL of a peer record.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.shared.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// The file with its certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// The next request at `endpoint` that is not yet spoken for meets `fault`.
    pub(crate) fn next(&self, endpoint: Endpoint, fault: Fault) {
        self.shared.desk().script(endpoint, fault);
    }

    /// The next `count` requests at `endpoint` meet `fault`.
    pub(crate) fn times(&self, count: usize, endpoint: Endpoint, fault: Fault) {
        (0..count).for_each(|_| self.next(endpoint, fault.clone()));
    }

    /// Every request at `endpoint` meets `fault`, until [`Self::behaves`].
    pub(crate) fn always(&self, endpoint: Endpoint, fault: Fault) {
        self.shared.desk().habits.insert(endpoint, fault);
    }

    /// Forgets every scripted fault.
    pub(crate) fn behaves(&self) {
        let mut desk = self.shared.desk();
        desk.habits.clear();
        desk.scripts.clear();
    }

    /// Lets go of every answer that [`Fault::Held`] holds back now.
    pub(crate) fn release(&self) {
        self.shared.releases.send_modify(|count| *count += 1);
    }

    /// It repeats the answer to a refresh token that was presented before, as a retry-safe server does.
    pub(crate) fn repeats_answers(&self) {
        self.shared.desk().repeats = true;
    }

    /// Its metadata name a `p2pi_endpoint` and its 401 carry `P2PI-Error`.
    pub(crate) fn poses_as_p2pid(&self) {
        self.shared.desk().p2pid = true;
    }

    /// Its metadata do not promise `iss` in the authorization response, and it sends none.
    pub(crate) fn knows_no_iss(&self) {
        self.shared.desk().iss = false;
    }

    /// Its metadata offer DPoP, and its tokens are of that type. The proofs themselves are for the test to look at.
    pub(crate) fn binds_tokens(&self) {
        self.shared.desk().binds = true;
    }

    /// From now on access tokens live so long.
    pub(crate) fn tokens_live(&self, life: Duration) {
        self.shared.desk().life = life;
    }

    /// Its `Date` is off by so many seconds.
    pub(crate) fn clock_is_off_by(&self, seconds: i64) {
        self.shared.desk().clock_off = seconds;
    }

    /// It refuses assertions and proofs that were not signed within a minute of its own time.
    pub(crate) fn minds_the_time(&self) {
        self.shared.desk().minds_the_time = true;
    }

    /// It takes proofs only with a nonce; that of its authorization server is another than that of its resource.
    pub(crate) fn wants_nonces(&self) {
        self.shared.desk().wants_nonces = true;
    }

    /// Every access token that it gave out so far is refused from now on.
    pub(crate) fn forgets_access_tokens(&self) {
        self.shared.desk().access.clear();
    }

    /// The refresh token that it would take now.
    pub(crate) fn refresh_token(&self) -> Option<String> {
        self.shared.desk().refresh.clone()
    }

    /// Everything that it issued or may issue again: what must not stand in a log or a file.
    pub(crate) fn secrets(&self) -> Vec<String> {
        self.shared.desk().issued.clone()
    }

    /// What reached `endpoint` so far, oldest first.
    pub(crate) fn heard(&self, endpoint: Endpoint) -> Vec<Heard> {
        self.shared.desk().heard.iter().filter(|heard| heard.endpoint == endpoint).cloned().collect()
    }

    /// How each connection so far began, oldest first.
    pub(crate) fn handshakes(&self) -> Vec<HandshakeKind> {
        self.shared.handshakes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until at least `count` requests have reached `endpoint`, and returns them all.
    pub(crate) async fn hears(&self, count: usize, endpoint: Endpoint) -> Vec<Heard> {
        let what = format!("{count} requests at the peer's {endpoint:?} endpoint");
        eventually(&what, async || Some(self.heard(endpoint)).filter(|heard| heard.len() >= count)).await
    }
}

/// The folder's files for TLS: certificate and key, self-signed for `address`.
fn certificate(folder: &Path, address: SocketAddr) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec![address.ip().to_string()]).expect("a certificate for an address");
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("the temporary folder can be written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("the temporary folder can be written");
    (cert, key)
}
