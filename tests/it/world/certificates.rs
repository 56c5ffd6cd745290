//! Certificates of clients: authorities that sign them, and connections that show one (RFC 8705).

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use p2pid::clock::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::SigningKey;
use rustls::{ClientConfig, SupportedProtocolVersion};

use super::key_holder::encoded;
use super::message::Message;
use super::node::Node;
use super::settings::request;
use super::wire::{Wire, roots};

/// Who signs for clients.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority"))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A client's certificate, with a key of its own.
    pub(crate) fn signs(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Identity { chain: vec![certificate.der().clone()], key }
    }

    /// An authority that this one stands behind.
    pub(crate) fn stands_behind(&self, name: &str) -> Intermediate {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Intermediate(CertifiedIssuer::signed_by(params, KeyPair::generate().expect("a key"), &self.0).expect("an authority"))
    }
}

/// An authority that another stands behind; who has its signature sends its certificate along.
pub(crate) struct Intermediate(CertifiedIssuer<'static, KeyPair>);

impl Intermediate {
    pub(crate) fn signs(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Identity { chain: vec![certificate.der().clone(), self.0.der().clone()], key }
    }
}

/// What a client's certificate says: its common name, and that it is a client's.
pub(crate) fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// The same, until `end`.
pub(crate) fn until(mut params: CertificateParams, end: Timestamp) -> CertificateParams {
    params.not_after = (UNIX_EPOCH + Duration::from_secs(end.seconds().unsigned_abs())).into();
    params
}

/// A client's certificate with its key.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Identity {
    /// A certificate that nobody else signed.
    pub(crate) fn self_signed(params: &CertificateParams) -> Self {
        let key = KeyPair::generate().expect("a key");
        Self { chain: vec![params.self_signed(&key).expect("a certificate").der().clone()], key }
    }

    /// `x5t#S256`, computed here.
    pub(crate) fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.chain[0]))
    }

    /// The key set that registers it (RFC 8705 §2.2.2).
    pub(crate) fn jwks(&self) -> serde_json::Value {
        let point = self.key.public_key_raw();
        let coordinate = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
        let key = serde_json::json!({
            "kty": "EC", "crv": "P-256", "x": coordinate(1..33), "y": coordinate(33..65), "x5c": [STANDARD.encode(&self.chain[0])],
        });
        serde_json::json!({ "keys": [key] })
    }

    /// `Client-Cert` and `Client-Cert-Chain` (RFC 9440).
    pub(crate) fn headers(&self) -> Vec<(&'static str, String)> {
        let sequence = |der: &CertificateDer<'_>| format!(":{}:", STANDARD.encode(der));
        let chain: Vec<String> = self.chain[1..].iter().map(sequence).collect();
        let mut headers = vec![("Client-Cert", sequence(&self.chain[0]))];
        if !chain.is_empty() {
            headers.push(("Client-Cert-Chain", chain.join(", ")));
        }
        headers
    }

    /// The certificates, leaf first.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }

    /// The key, as TLS signs with it.
    pub(crate) fn signing_key(&self) -> Arc<dyn SigningKey> {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key");
        rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).expect("a key for TLS")
    }

    /// TLS settings that show it to whoever asks, and believe the certificates in `authority`.
    pub(crate) fn config(&self, authority: &Path) -> Arc<ClientConfig> {
        self.config_of(authority, rustls::ALL_VERSIONS)
    }

    /// The same, with these versions of TLS.
    pub(crate) fn config_of(&self, authority: &Path, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key");
        let config = ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots(authority));
        Arc::new(config.with_client_auth_cert(self.chain.clone(), key).expect("certificate and key belong together"))
    }

    /// A connection to the address where certificates are asked for.
    pub(crate) async fn connects(&self, node: &Node) -> Wire {
        Wire::tls_by(node.settings.mtls, self.config(&node.settings.authority())).await
    }

    /// Any request there, over a connection of its own.
    pub(crate) async fn asks(&self, node: &Node, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Message {
        let host = node.settings.mtls.to_string();
        self.connects(node).await.asks(request(method, target, &host, headers, body)).await
    }

    /// A form there, with HTTP Basic where that is given.
    pub(crate) async fn posts(&self, node: &Node, path: &str, form: &[(&str, &str)], basic: Option<(&str, &str)>) -> Message {
        let basic = basic.map(|(id, secret)| format!("Basic {}", STANDARD.encode(format!("{id}:{secret}"))));
        let mut headers = vec![("Content-Type", "application/x-www-form-urlencoded")];
        headers.extend(basic.as_deref().map(|basic| ("Authorization", basic)));
        self.asks(node, "POST", path, &headers, &encoded(form)).await
    }

    /// A call of the node's application with a token.
    pub(crate) async fn calls(&self, node: &Node, token: &str) -> Message {
        let bearer = format!("Bearer {token}");
        self.asks(node, "GET", "/p2pi/orders", &[("Authorization", &bearer)], "").await
    }
}

/// A connection there that shows nothing.
pub(crate) async fn nobody_connects(node: &Node) -> Wire {
    let address: SocketAddr = node.settings.mtls;
    Wire::tls(address, &node.settings.authority()).await
}
