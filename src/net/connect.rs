//! Making one connection: name, TCP, TLS, within the time allowed, and only to addresses that may be called.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, Scheme};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;
use tower_service::Service;
use url::Host;

use super::causes;
use super::client::SendError;
use super::guard;
use super::stream::Stream;
use super::trust::{self, Trust};
use crate::oauth::loopback::is_this_machine;

/// How long after TCP's first silence the kernel asks whether the other host is still there.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// The scheme of an upstream that speaks HTTP/2 without TLS, as gRPC servers do (prior knowledge, RFC 9113 §3.3). It is ours alone: on the
/// wire such a request says `http`.
pub(super) const H2C: &str = "h2c";

/// Scheme, host and port of a URL: what a connection leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
}

impl Origin {
    /// Of an absolute `http`, `https` or [`H2C`] URL.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme().filter(|scheme| **scheme == Scheme::HTTP || **scheme == Scheme::HTTPS || scheme.as_str() == H2C)?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        Some(Self { scheme: scheme.clone(), authority: authority.clone() })
    }

    pub(super) fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// Whether HTTP/2 is spoken without having been agreed on.
    pub(super) fn is_h2c(&self) -> bool {
        self.scheme.as_str() == H2C
    }

    /// The scheme that requests carry.
    pub(super) fn wire_scheme(&self) -> Scheme {
        if self.is_https() { Scheme::HTTPS } else { Scheme::HTTP }
    }

    /// The host without the brackets of an IPv6 address.
    fn host(&self) -> &str {
        let host = self.authority.host();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    fn uri(&self) -> Uri {
        let parts = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query("/");
        parts.build().expect("scheme, authority and a path make a URI")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

/// What is offered in the TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// HTTP/2 and HTTP/1.1.
    Both,
    /// HTTP/1.1 only: its upgrades take the connection over.
    Http1,
}

/// Makes connections under one trust.
pub(super) struct Connector {
    tcp: HttpConnector<Resolver>,
    both: TlsConnector,
    http1: TlsConnector,
    timeout: Duration,
    guarded: bool,
}

impl Connector {
    pub(super) fn new(trust: &Trust, timeout: Duration, guarded: bool) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(Resolver { guarded });
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(TCP_KEEPALIVE));
        // Shared out between the addresses of a name, so that a silent one leaves time for the next.
        tcp.set_connect_timeout(Some(timeout));
        let mut http1 = rustls::ClientConfig::clone(trust.tls());
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { tcp, both: TlsConnector::from(Arc::clone(trust.tls())), http1: TlsConnector::from(Arc::new(http1)), timeout, guarded }
    }

    /// Connects, TLS included. Whatever fails, nothing of a request has been sent.
    pub(super) async fn connect(&self, origin: &Origin, offer: Offer) -> Result<Stream, SendError> {
        match tokio::time::timeout(self.timeout, self.connect_untimed(origin, offer)).await {
            Ok(result) => result,
            Err(_) => Err(SendError::ConnectTimeout(format!(
                "{origin} did not take a connection within {}",
                humantime::format_duration(self.timeout)
            ))),
        }
    }

    async fn connect_untimed(&self, origin: &Origin, offer: Offer) -> Result<Stream, SendError> {
        let host = origin.host();
        // A literal address does not pass the resolver.
        if self.guarded && host.parse::<IpAddr>().is_ok_and(|address| !guard::is_public(address)) {
            return Err(SendError::Forbidden(format!("{host} is a private address, which may not be called on somebody else's word")));
        }
        let mut tcp = self.tcp.clone();
        let tcp = tcp.call(origin.uri()).await.map_err(|error| unreachable(origin, &error))?.into_inner();
        if !origin.is_https() {
            return Ok(Stream::Tcp(tcp));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|error| unreachable(origin, &error))?;
        let tls = if offer == Offer::Both { &self.both } else { &self.http1 };
        match tls.connect(name, tcp).await {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream.into()))),
            Err(error) => Err(match trust::untrusted(&error) {
                Some(untrusted) => SendError::Untrusted(untrusted.clone()),
                None => SendError::Unreachable(format!("{origin}: TLS handshake: {}", causes::told(&error))),
            }),
        }
    }

    /// The certificate that `origin` shows, when it is one that we trust; `None` without TLS.
    pub(super) async fn certificate(&self, origin: &Origin) -> Result<Option<CertificateDer<'static>>, SendError> {
        Ok(match self.connect(origin, Offer::Both).await? {
            Stream::Tls(stream) => {
                stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.clone().into_owned())
            }
            Stream::Tcp(_) | Stream::Unix(_) => None,
        })
    }
}

/// A failed connection attempt; a refusal of the resolver's is found among the causes.
fn unreachable(origin: &Origin, error: &(dyn std::error::Error + 'static)) -> SendError {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.get_ref().is_some_and(|inner| inner.is::<NoPublicAddress>())
        {
            return SendError::Forbidden(format!("{origin}: {error}"));
        }
        cause = error.source();
    }
    SendError::Unreachable(format!("{origin}: {}", causes::told(error)))
}

/// The system's resolver; guarded it leaves out addresses that may not be called.
#[derive(Clone, Debug)]
struct Resolver {
    guarded: bool,
}

/// A name without a public address, whether it has private ones or none.
#[derive(Debug, thiserror::Error)]
#[error("the name has no public address, and no other may be called on somebody else's word")]
struct NoPublicAddress;

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let guarded = self.guarded;
        Box::pin(async move {
            let found = match is_this_machine(&Host::Domain(name.as_str().to_ascii_lowercase())) {
                // Asked of nobody (RFC 6761 §6.3): over plain http what is meant for this machine would else go wherever an answer says.
                true => Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))]),
                false => tokio::net::lookup_host((name.as_str(), 0)).await.map(Iterator::collect),
            };
            if !guarded {
                return Ok(found?.into_iter());
            }
            // Whether there is an internal host of that name is nothing that whoever gave it shall learn: none looks like one that is private.
            let allowed: Vec<SocketAddr> = found.into_iter().flatten().filter(|address| guard::is_public(address.ip())).collect();
            if allowed.is_empty() { Err(io::Error::other(NoPublicAddress)) } else { Ok(allowed.into_iter()) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_of_this_machine_are_asked_of_nobody() {
        let found = async |guarded: bool, name: &str| Resolver { guarded }.call(name.parse().expect("a name")).await;
        for name in ["localhost", "LocalHost", "peer.localhost", "a.b.localhost"] {
            let addresses: Vec<SocketAddr> = found(false, name).await.unwrap_or_else(|error| panic!("{name}: {error}")).collect();
            assert!(addresses.len() == 2 && addresses.iter().all(|address| address.ip().is_loopback()), "{name}: {addresses:?}");
            assert!(found(true, name).await.is_err(), "{name} is nobody's word to call");
        }
    }

    #[tokio::test]
    async fn c10_a_name_that_is_private_looks_like_one_that_there_is_not() {
        let trust = Trust::system(&[]).expect("the system's authorities");
        let connector = Connector::new(&trust, Duration::from_secs(20), true);
        let refused = async |host: &str| {
            let origin = Origin::of(&format!("https://{host}/").parse().expect("a URL")).expect("an origin");
            match connector.connect(&origin, Offer::Both).await {
                Ok(_) => panic!("{host} is nobody's word to call"),
                Err(error) => (std::mem::discriminant(&error), error.to_string().replace(host, "HOST")),
            }
        };
        // The second of them has no address (RFC 6761 §6.4).
        assert_eq!(refused("internal.localhost").await, refused("internal.invalid").await);
    }
}
