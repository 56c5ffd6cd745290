//! Certificates by which clients show who they are (RFC 8705): where they come from, and when an authority stands behind one.
//!
//! TLS takes every certificate and verifies that its key signed the handshake; whether it is good for anything is for the request to say, so
//! that no session which is resumed and no connection which is old outlives what is believed. A proxy that ended TLS hands the certificate
//! on in a header (RFC 9440).

use std::sync::Arc;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};

use super::certificate::Certificate;
use super::connection::Connection;
use super::trust::{provider, reason};
use crate::clock::Timestamp;
use crate::config::TrustedProxies;
use crate::oauth::thumbprint::CertificateThumbprint;

const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
const CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");

/// A chain longer than this, in bytes, is no client's: connections keep theirs.
const MOST_BYTES: usize = 16 << 10;
/// Certificates in a chain at most.
const MOST_CERTIFICATES: usize = 8;

/// Byte sequences of structured fields are padded, and read where they are not (RFC 9651 §4.2.7).
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// A certificate whose key the client holds, with the chain that it sent along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Leaf first; at least that.
    chain: Vec<CertificateDer<'static>>,
    thumbprint: CertificateThumbprint,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl ClientCertificate {
    /// Reads a chain, leaf first; `None` when it is empty, too long, or begins with something else.
    pub fn read(chain: Vec<CertificateDer<'static>>) -> Option<Self> {
        let leaf = chain.first().filter(|_| is_short(chain.iter()))?;
        let Certificate { not_before, not_after, .. } = Certificate::read(leaf)?;
        let thumbprint = CertificateThumbprint::of_der(leaf);
        Some(Self { chain, thumbprint, not_before, not_after })
    }

    /// `x5t#S256` (RFC 8705 §3.1).
    pub fn thumbprint(&self) -> CertificateThumbprint {
        self.thumbprint
    }

    /// The certificate itself, DER.
    pub fn der(&self) -> &[u8] {
        &self.chain[0]
    }

    /// Whether `now` lies in its time.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// Whether one of `authorities` stands behind it at `now`, for the authentication of clients (RFC 5280 §6, §4.2.1.12).
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn check_authority(&self, authorities: &[CertificateDer<'static>], now: Timestamp) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities.iter().cloned());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        let verifier = verifier.map_err(|_| "no authority for clients is configured ([mtls] ca)".to_owned())?;
        let now = UnixTime::since_unix_epoch(now.since(Timestamp::default()));
        let (leaf, others) = self.chain.split_first().expect("it has a leaf");
        verifier.verify_client_cert(leaf, others, now).map(|_| ()).map_err(|error| reason(&error, "client"))
    }
}

/// The certificate that a request comes with: over a listener that asks for one what its connection showed, and nothing else; elsewhere what a
/// neighbour among `proxies` says, if those say it.
pub fn presented(connection: &Connection, headers: &HeaderMap, proxies: Option<&TrustedProxies>) -> Option<Arc<ClientCertificate>> {
    if connection.asks_for_certificate() {
        return connection.certificate().cloned();
    }
    proxies.filter(|proxies| proxies.include(connection.neighbour().ip())).and_then(|_| of_headers(headers)).map(Arc::new)
}

/// What a proxy says in `Client-Cert` and `Client-Cert-Chain`; nothing where it could be read in two ways.
pub fn of_headers(headers: &HeaderMap) -> Option<ClientCertificate> {
    let mut values = headers.get_all(CLIENT_CERT).iter();
    let (leaf, None) = (values.next()?, values.next()) else { return None };
    let mut chain = vec![byte_sequence(leaf.to_str().ok()?)?];
    for line in headers.get_all(CLIENT_CERT_CHAIN) {
        for member in HeaderValue::to_str(line).ok()?.split(',') {
            chain.push(byte_sequence(member)?);
        }
    }
    ClientCertificate::read(chain)
}

/// A byte sequence without parameters (RFC 9651 §3.3.5).
fn byte_sequence(text: &str) -> Option<CertificateDer<'static>> {
    let encoded = text.trim_matches([' ', '\t']).strip_prefix(':')?.strip_suffix(':')?;
    BASE64.decode(encoded).ok().map(CertificateDer::from)
}

fn is_short<'a>(chain: impl ExactSizeIterator<Item = &'a CertificateDer<'a>>) -> bool {
    chain.len() <= MOST_CERTIFICATES && chain.map(|certificate| certificate.len()).sum::<usize>() <= MOST_BYTES
}

/// Takes every certificate whose key signed the handshake, and none.
#[derive(Debug)]
pub(super) struct AnyCertificate(pub(super) Arc<CryptoProvider>);

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: a client sends what it has, whoever signed it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let bytes = intermediates.iter().map(|certificate| certificate.len()).sum::<usize>() + end_entity.len();
        if bytes > MOST_BYTES || intermediates.len() >= MOST_CERTIFICATES || Certificate::read(end_entity).is_none() {
            return Err(CertificateError::BadEncoding.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> Timestamp {
        Timestamp::default().plus(Duration::from_secs(1_800_000_000))
    }

    fn params(name: &str) -> rcgen::CertificateParams {
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let time = |at: Timestamp| std::time::SystemTime::UNIX_EPOCH + at.since(Timestamp::default());
        (params.not_before, params.not_after) = (time(now().minus(DAY)).into(), time(now().plus(DAY)).into());
        params
    }

    fn authority(name: &str) -> (rcgen::CertifiedIssuer<'static, rcgen::KeyPair>, CertificateDer<'static>) {
        let mut params = params(name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().expect("a key")).expect("an authority");
        let der = issuer.der().clone();
        (issuer, der)
    }

    fn issued(by: &rcgen::CertifiedIssuer<'static, rcgen::KeyPair>, usage: rcgen::ExtendedKeyUsagePurpose) -> ClientCertificate {
        let mut params = params("client.example");
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&rcgen::KeyPair::generate().expect("a key"), by).expect("a certificate");
        ClientCertificate::read(vec![certificate.der().clone()]).expect("readable")
    }

    #[test]
    fn g7_an_authority_stands_behind_clients_that_it_signed_for_that_and_in_their_time() {
        let ((one, anchor), (_, other)) = (authority("one"), authority("other"));
        let client = issued(&one, rcgen::ExtendedKeyUsagePurpose::ClientAuth);
        let good = client.check_authority(&[other.clone(), anchor.clone()], now());
        assert_eq!(good, Ok(()));
        assert!(client.is_valid_at(now()) && !client.is_valid_at(now().plus(DAY)) && !client.is_valid_at(now().minus(2 * DAY)));
        let refusal = |authorities: &[CertificateDer<'static>], at| client.check_authority(authorities, at).expect_err("refused");
        assert!(refusal(&[other], now()).contains("no authority"));
        assert!(refusal(&[], now()).contains("[mtls] ca"));
        assert!(refusal(std::slice::from_ref(&anchor), now().plus(2 * DAY)).contains("expired"));
        let server = issued(&one, rcgen::ExtendedKeyUsagePurpose::ServerAuth);
        server.check_authority(&[anchor], now()).expect_err("it is a server's");
    }

    #[test]
    fn g7_the_header_of_a_proxy_is_one_byte_sequence() {
        let (issuer, anchor) = authority("one");
        let client = issued(&issuer, rcgen::ExtendedKeyUsagePurpose::ClientAuth);
        let encoded = |der: &[u8]| format!(":{}:", base64::engine::general_purpose::STANDARD.encode(der));
        let (leaf, root) = (encoded(client.der()), encoded(&anchor));
        let read = |headers: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"));
            }
            of_headers(&map).map(|read| (read.thumbprint(), read.chain.len()))
        };
        let thumbprint = client.thumbprint();
        assert_eq!(read(&[("client-cert", &leaf)]), Some((thumbprint, 1)));
        assert_eq!(read(&[("client-cert", &leaf), ("client-cert-chain", &format!("{root}, {root}"))]), Some((thumbprint, 3)));
        assert_eq!(read(&[("client-cert", &leaf), ("client-cert-chain", &root), ("client-cert-chain", &root)]), Some((thumbprint, 3)));
        let bare = leaf.trim_matches(':');
        for headers in [
            vec![],
            vec![("client-cert-chain", leaf.as_str())],
            vec![("client-cert", bare)],
            vec![("client-cert", &leaf[1..])],
            vec![("client-cert", "::")],
            vec![("client-cert", ":AAAA:")],
            vec![("client-cert", leaf.as_str()), ("client-cert", leaf.as_str())],
            vec![("client-cert", leaf.as_str()), ("client-cert-chain", "")],
            vec![("client-cert", leaf.as_str()), ("client-cert-chain", bare)],
        ] {
            assert_eq!(read(&headers), None, "{headers:?}");
        }
        let long = [root.as_str(); MOST_CERTIFICATES].join(",");
        assert_eq!(read(&[("client-cert", &leaf), ("client-cert-chain", &long)]), None, "a chain has its limits");
    }
}
