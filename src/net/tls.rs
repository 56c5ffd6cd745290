//! Our own certificate: read from files or made here, shown to whoever connects, replaced while connections live on.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoClientAuth, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use url::Url;

use super::certificate::Certificate;
use super::client_certificate::AnyCertificate;
use super::stream::Stream;
use super::trust::provider;
use crate::clock::Timestamp;
use crate::secret::Fingerprint;
use crate::store::replace_private;

const DAY: Duration = Duration::from_secs(86_400);
/// How long a certificate of our own making is valid, and how long before its end a start makes it anew.
const SELF_SIGNED_LIFE: Duration = DAY.saturating_mul(397);
const RENEW_BEFORE: Duration = DAY.saturating_mul(7);

/// TLS of our listeners: versions 1.2 and 1.3, HTTP/2 and HTTP/1.1, sessions resumed, no early data. Cheap to clone.
#[derive(Clone)]
pub struct ServerTls {
    acceptor: TlsAcceptor,
    shown: Arc<CurrentIdentity>,
    asks_for_certificates: bool,
}

impl ServerTls {
    /// Shows `identity` to whoever connects.
    pub fn new(identity: Identity) -> Result<Self, TlsError> {
        Self::with(identity, Arc::new(NoClientAuth), false)
    }

    /// The same, and asks who connects for a certificate too. None is needed, and any is taken whose key signs the handshake
    /// ([`super::client_certificate`]). A session that is resumed keeps the certificate that it began with: its ticket holds it, sealed with keys
    /// that no other listener has, and only who made that handshake has its secrets.
    pub fn asking_for_certificates(identity: Identity) -> Result<Self, TlsError> {
        Self::with(identity, Arc::new(AnyCertificate(provider())), true)
    }

    fn with(identity: Identity, clients: Arc<dyn ClientCertVerifier>, asks_for_certificates: bool) -> Result<Self, TlsError> {
        let shown = Arc::new(CurrentIdentity { identity: ArcSwap::from_pointee(identity) });
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("AWS-LC has cipher suites for TLS 1.2 and 1.3")
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| TlsError::NoTickets(error.to_string()))?;
        // One ticket is enough: a resumed session gets a new one.
        config.send_tls13_tickets = 1;
        // Without it a session of TLS 1.2 could be resumed by whoever relayed its handshake, certificate and all (RFC 7627 §1).
        config.require_ems = asks_for_certificates;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), shown, asks_for_certificates })
    }

    /// Whether who connects is asked for a certificate.
    pub(super) fn asks_for_certificates(&self) -> bool {
        self.asks_for_certificates
    }

    /// Shows another identity from now on. Connections that are open stay as they are.
    pub fn replace(&self, identity: Identity) {
        self.shown.identity.store(Arc::new(identity));
    }

    /// What is shown now.
    pub fn certificate(&self) -> Certificate {
        self.shown.identity.load().certificate.clone()
    }

    /// The TLS handshake, on the server's side.
    pub(super) async fn accept(&self, tcp: TcpStream) -> io::Result<Stream> {
        let mut first = [0];
        if tcp.peek(&mut first).await? == 1 && first[0] != HANDSHAKE_RECORD {
            return Err(refuse_clear_text(tcp, first[0]).await);
        }
        let stream = self.acceptor.accept(tcp).await?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }
}

/// How a TLS connection begins (RFC 8446 §5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// Says to who speaks HTTP without TLS what is wrong; whoever speaks anything else is closed on.
async fn refuse_clear_text(mut tcp: TcpStream, first: u8) -> io::Error {
    const ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
        Found a request in clear text, expected TLS: the URL begins with https://\n";
    if first.is_ascii_uppercase() {
        let _ = tcp.write_all(ANSWER).await;
        let _ = tcp.shutdown().await;
        // Unread bytes would turn the close into a reset, and the answer would be lost.
        let _ = tokio::io::copy(&mut (&mut tcp).take(LARGEST_REQUEST), &mut tokio::io::sink()).await;
    }
    io::Error::new(io::ErrorKind::InvalidData, "found clear text, expected TLS")
}

/// What is read of a request in clear text before its connection is closed.
const LARGEST_REQUEST: u64 = 16 << 10;

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("certificate", &self.certificate()).finish_non_exhaustive()
    }
}

/// The certificate that is shown at the moment.
#[derive(Debug)]
struct CurrentIdentity {
    identity: ArcSwap<Identity>,
}

impl ResolvesServerCert for CurrentIdentity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.identity.load().key))
    }
}

/// A certificate chain with its private key.
#[derive(Clone)]
pub struct Identity {
    key: Arc<CertifiedKey>,
    certificate: Certificate,
}

impl Identity {
    /// Reads a chain (leaf first) and the leaf's key, both PEM, and checks that they belong together.
    pub fn from_files(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unreadable(cert, "a certificate", error))?;
        let leaf = chain.first().ok_or_else(|| TlsError::wrong(cert, "no certificate", CERTIFICATE_EXPECTED))?;
        let certificate =
            Certificate::read(leaf).ok_or_else(|| TlsError::wrong(cert, "a certificate that cannot be read", CERTIFICATE_EXPECTED))?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, "a private key", error))?;
        let private = provider().key_provider.load_private_key(private);
        let private = private.map_err(|error| TlsError::wrong(key, &format!("a key that is not usable ({error})"), KEY_EXPECTED))?;
        let certified = CertifiedKey::new(chain, private);
        certified
            .keys_match()
            .map_err(|_| TlsError::wrong(key, "a key of another certificate", &format!("the key of {}", cert.display())))?;
        Ok(Self { key: Arc::new(certified), certificate })
    }

    /// The development certificate in `folder`, for the host of `public_url`: kept while it holds, made anew when it has run out, is about to,
    /// or stands for another host. It is its own authority, so `cert.pem` is also what a peer passes to `--ca`.
    pub fn self_signed(folder: &Path, public_url: &Url, now: Timestamp) -> Result<Self, TlsError> {
        let host = host(public_url);
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        let written = private_folder(folder);
        if let Ok(kept) = Self::from_files(&cert, &key)
            && kept.certificate.names == [host.as_str()]
            && kept.certificate.valid_for(now).is_some_and(|left| left > RENEW_BEFORE)
        {
            return Ok(kept);
        }
        let (cert_pem, key_pem) =
            make(&host, now).map_err(|error| TlsError::CannotMake { host: host.clone(), reason: error.to_string() })?;
        let written =
            written.and_then(|()| replace_private(&key, key_pem.as_bytes())).and_then(|()| replace_private(&cert, cert_pem.as_bytes()));
        written.map_err(|source| TlsError::Unwritable { folder: folder.to_owned(), source })?;
        Self::from_files(&cert, &key)
    }

    /// What the certificate says.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

/// Makes `folder` where it is missing, and lets nobody else into it, whatever the umask says.
fn private_folder(folder: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // One that was made before, under any umask.
    let is_open = std::fs::metadata(folder)?.permissions().mode() & 0o077 != 0;
    if is_open { std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)) } else { Ok(()) }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

const CERTIFICATE_EXPECTED: &str = "a certificate chain in PEM form, leaf first (-----BEGIN CERTIFICATE-----)";
const KEY_EXPECTED: &str = "a private key in PEM form (-----BEGIN PRIVATE KEY-----)";

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}; expected {expected}", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: io::Error,
        /// What it should hold.
        expected: &'static str,
    },
    /// A file holds something else.
    #[error("{}: found {found}, expected {expected}", file.display())]
    Wrong {
        /// Which file.
        file: PathBuf,
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: String,
    },
    /// The development certificate cannot be made.
    #[error("no certificate for {host} can be made: {reason}")]
    CannotMake {
        /// For whom.
        host: String,
        /// Why.
        reason: String,
    },
    /// The development certificate cannot be kept.
    #[error("{}: cannot be written: {source}; expected a folder of the daemon's user", folder.display())]
    Unwritable {
        /// Where.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The keys of session tickets cannot be made.
    #[error("session tickets: {0}")]
    NoTickets(String),
}

impl TlsError {
    fn wrong(file: &Path, found: &str, expected: &str) -> Self {
        Self::Wrong { file: file.to_owned(), found: found.to_owned(), expected: expected.to_owned() }
    }
}

fn unreadable(file: &Path, what: &str, error: pem::Error) -> TlsError {
    let expected = if what == "a certificate" { CERTIFICATE_EXPECTED } else { KEY_EXPECTED };
    match error {
        pem::Error::Io(source) => TlsError::Unreadable { file: file.to_owned(), source, expected },
        pem::Error::NoItemsFound => TlsError::wrong(file, &format!("nothing that is {what}"), expected),
        error => TlsError::wrong(file, &error.to_string(), expected),
    }
}

/// The host of our URL as a certificate names it: without an IPv6 address's brackets.
fn host(public_url: &Url) -> String {
    match public_url.host() {
        Some(url::Host::Ipv6(address)) => IpAddr::from(address).to_string(),
        Some(host) => host.to_string(),
        None => String::new(),
    }
}

/// A certificate for one host, signed with its own key: chain and key as PEM.
fn make(host: &str, now: Timestamp) -> Result<(String, String), rcgen::Error> {
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::new(vec![host.to_owned()])?;
    // Of several trust anchors with one name OpenSSL tries the first only, and two instances on one host have the same host.
    let mark = Fingerprint::of(&key.public_key_pem());
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("{host} (p2pid development certificate {mark})"));
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    let time = |at: Timestamp| std::time::SystemTime::UNIX_EPOCH + at.since(Timestamp::default());
    // A clock that is a little behind ours must not find it "not valid yet".
    params.not_before = time(now.minus(DAY)).into();
    params.not_after = time(now.plus(SELF_SIGNED_LIFE)).into();
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}
