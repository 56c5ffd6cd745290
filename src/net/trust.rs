//! Whose certificates we believe when we call somebody: the system's authorities, the configuration's, one peer's own, or one pinned certificate.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use rustls_native_certs::CertificateResult;

use super::certificate::{Certificate, Pin};
use crate::clock::Timestamp;

/// Whom a client believes. Cheap to clone; clients of one `Trust` share their TLS sessions.
#[derive(Clone)]
pub struct Trust {
    authorities: Arc<RootCertStore>,
    /// What an operator named, beside the system's.
    named: Arc<HashSet<Pin>>,
    tls: Arc<ClientConfig>,
}

impl Trust {
    /// The system's authorities (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured) and those of the PEM files `more`.
    pub fn system(more: &[PathBuf]) -> Result<Self, TrustError> {
        let mut authorities = RootCertStore::empty();
        let system = system_authorities();
        authorities.add_parsable_certificates(system.certs);
        for error in system.errors {
            tracing::warn!(%error, "some of the system's certificate authorities cannot be read");
        }
        let mut named = HashSet::new();
        for file in more {
            let pem = std::fs::read(file).map_err(|source| TrustError::Unreadable { file: file.clone(), source })?;
            add(&mut authorities, &mut named, &pem, &file.display().to_string())?;
        }
        Ok(Self::of_authorities(authorities, named))
    }

    /// Nobody but the authorities in `pem`; `name` says in errors where that text came from.
    pub fn only(pem: &[u8], name: &str) -> Result<Self, TrustError> {
        let (mut authorities, mut named) = (RootCertStore::empty(), HashSet::new());
        add(&mut authorities, &mut named, pem, name)?;
        Ok(Self::of_authorities(authorities, named))
    }

    /// These and the authorities in `pem`; `name` says in errors where that text came from.
    pub fn with_authorities(&self, pem: &[u8], name: &str) -> Result<Self, TrustError> {
        let (mut authorities, mut named) = (RootCertStore::clone(&self.authorities), HashSet::clone(&self.named));
        add(&mut authorities, &mut named, pem, name)?;
        Ok(Self::of_authorities(authorities, named))
    }

    /// Exactly one certificate, whoever signed it, whatever its names and dates: an operator has looked at it.
    pub fn pinned(pin: Pin) -> Self {
        let tls = Arc::new(client_config(Belief::Pinned(pin)));
        Self { authorities: Arc::new(RootCertStore::empty()), named: Arc::default(), tls }
    }

    /// The TLS settings of connections made under this trust.
    pub(super) fn tls(&self) -> &Arc<ClientConfig> {
        &self.tls
    }

    fn of_authorities(authorities: RootCertStore, named: HashSet<Pin>) -> Self {
        let (authorities, named) = (Arc::new(authorities), Arc::new(named));
        // Only an empty store is refused; then no certificate is believed.
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&authorities), provider()).build().ok();
        let tls = Arc::new(client_config(Belief::Authorities { verifier, named: Arc::clone(&named) }));
        Self { authorities, named, tls }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("authorities", &self.authorities.len()).finish_non_exhaustive()
    }
}

/// Why a file or text of authorities is not usable.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}; expected certificates in PEM form", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{name}: found {found}, expected certificates in PEM form (-----BEGIN CERTIFICATE-----)")]
    NotCertificates {
        /// Which file, or where else the text came from.
        name: String,
        /// What is there instead.
        found: String,
    },
}

impl TrustError {
    /// The file that is at fault, when it was a file that could not be read.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Unreadable { file, .. } => Some(file),
            Self::NotCertificates { .. } => None,
        }
    }
}

/// A server's certificate that we do not believe, with the fingerprint by which an operator can decide otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate of {host} is not trusted: {reason} ({pin})")]
pub struct Untrusted {
    /// Whom we called.
    pub host: String,
    /// The certificate's digest: what `--pin` takes.
    pub pin: Pin,
    /// What is wrong with it.
    pub reason: String,
}

/// The cryptography of all TLS here: AWS-LC, post-quantum key exchange preferred.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

/// Sessions are resumed (rustls' default: 256 of them); early data stays off, for it can be replayed.
fn client_config(belief: Belief) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("AWS-LC has cipher suites for TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { belief, provider: provider() }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// One file with all authorities, as distributions keep it beside a folder with a file for each, which takes ten times as long to read.
const BUNDLES: [&str; 4] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];

fn system_authorities() -> CertificateResult {
    let is_told = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| std::env::var_os(name).is_some());
    if !is_told && let Some(bundle) = BUNDLES.iter().map(Path::new).find(|bundle| bundle.exists()) {
        let found = rustls_native_certs::load_certs_from_paths(Some(bundle), None);
        if !found.certs.is_empty() {
            return found;
        }
    }
    rustls_native_certs::load_native_certs()
}

fn add(authorities: &mut RootCertStore, named: &mut HashSet<Pin>, pem: &[u8], name: &str) -> Result<(), TrustError> {
    let refused = |found: String| TrustError::NotCertificates { name: name.to_owned(), found };
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| refused(error.to_string()))?;
        named.insert(Pin::of(&certificate));
        authorities.add(certificate).map_err(|error| refused(format!("a certificate that cannot be read ({error})")))?;
        count += 1;
    }
    if count == 0 { Err(refused("no certificate".to_owned())) } else { Ok(()) }
}

/// What makes a certificate believed.
#[derive(Debug)]
enum Belief {
    /// A chain to an authority, valid now, for the name that we called.
    Authorities {
        /// Knows the authorities; `None` when there are none.
        verifier: Option<Arc<WebPkiServerVerifier>>,
        /// These are believed as a server's own certificate too. `openssl req -x509` makes them such that they are both, which the
        /// verifier refuses.
        named: Arc<HashSet<Pin>>,
    },
    /// Being this one.
    Pinned(Pin),
}

/// Judges certificates, and says in its refusals which certificate it was.
#[derive(Debug)]
struct Verifier {
    belief: Belief,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pin = Pin::of(end_entity);
        let reason = match &self.belief {
            Belief::Pinned(expected) if *expected == pin => return Ok(ServerCertVerified::assertion()),
            Belief::Pinned(expected) => format!("it is not the pinned one, {expected}"),
            Belief::Authorities { verifier: None, .. } => "we know no certificate authority".to_owned(),
            Belief::Authorities { verifier: Some(verifier), named } => {
                let judged = verifier
                    .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                    .or_else(|error| if named.contains(&pin) { fits(end_entity, server_name, now) } else { Err(error) });
                match judged {
                    Ok(verified) => return Ok(verified),
                    Err(error) => reason(&error, "server"),
                }
            }
        };
        let untrusted = Untrusted { host: server_name.to_str().into_owned(), pin, reason };
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(untrusted)))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a certificate stands for that name and is valid now, whoever signed it.
fn fits(certificate: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<ServerCertVerified, rustls::Error> {
    verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
    let read = Certificate::read(certificate).ok_or(CertificateError::BadEncoding)?;
    let now = Timestamp::default().plus(Duration::from_secs(now.as_secs()));
    match read.valid_for(now) {
        Some(_) => Ok(ServerCertVerified::assertion()),
        None if now < read.not_before => Err(CertificateError::NotValidYet.into()),
        None => Err(CertificateError::Expired.into()),
    }
}

/// What is wrong with the certificate of a `party`, server or client, in words.
pub(super) fn reason(error: &rustls::Error, party: &str) -> String {
    let rustls::Error::InvalidCertificate(error) = error else { return error.to_string() };
    match error {
        CertificateError::UnknownIssuer => "no authority that we know has signed it".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet; are both clocks right?".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => "it stands for another name".to_owned(),
        CertificateError::Revoked => "it was revoked".to_owned(),
        // Such as being an authority's own.
        CertificateError::Other(OtherError(inner)) => format!("it is not fit for a {party} ({inner})"),
        other => format!("{other}"),
    }
}

/// The [`Untrusted`] inside a failed handshake's error, if that was the reason.
pub(super) fn untrusted(error: &std::io::Error) -> Option<&Untrusted> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => inner.downcast_ref(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_certificate_is_refused_with_name_found_and_expected() {
        for (pem, found) in [
            ("", "no certificate"),
            ("hello\n", "no certificate"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "a certificate that cannot be read"),
        ] {
            let error = Trust::only(pem.as_bytes(), "peer-ca.pem").expect_err(pem).to_string();
            assert!(error.starts_with(&format!("peer-ca.pem: found {found}")), "{error}");
        }
        let error = Trust::system(&[PathBuf::from("/nonexistent/ca.pem")]).expect_err("no such file");
        assert_eq!(error.file(), Some(Path::new("/nonexistent/ca.pem")));
    }
}
