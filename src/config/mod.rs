//! The configuration: TOML as written becomes checked types here, or a list of problems that name file, line and key.
//!
//! [`Config`] is what the rest of the program sees: whole, checked, immutable, swapped as one snapshot when the files change.
//! On the way there: `load` finds and reads the files, `tree` merges them, `section` walks a table and notes what is wrong,
//! `values` reads single values, `build` has every key with its default, `checks` the rules between keys.

mod build;
mod change;
mod checks;
mod example;
mod files;
mod load;
mod problem;
mod section;
mod sources;
mod tree;
mod values;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use url::Url;

pub use crate::oauth::resource::Audience;
use crate::oauth::rotation::Rotation;
use crate::oauth::scope::Scope;

pub use example::{Blueprint, BlueprintTls, example};
pub use load::{Loaded, Located, attempt, load, locate};
pub use problem::{Problem, Problems};
pub use sources::Sources;

/// Where the admin API is on the public listener, with `[public] admin_api`; then no route may be this or lie below it.
pub const ADMIN_API_PATH: &str = "/v2";

/// Where p2pid itself answers on the public listener; no route may be one of these or lie below one.
pub const BUILT_IN_PATHS: &[&str] = &[
    "/.well-known/oauth-authorization-server",
    "/.well-known/oauth-protected-resource",
    "/oauth",
    "/oauth2",
    "/oauth-server",
    "/link",
    "/login",
    "/logout",
    "/grants",
    "/api/oauth",
];

/// One checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[instance]`
    pub instance: Instance,
    /// `[public]`: peers and browsers.
    pub public: Public,
    /// `[mtls]`: clients that show a certificate.
    pub mtls: Mtls,
    /// `[local]`: this instance's own applications.
    pub local: Local,
    /// `[console]`: console, admin API, health, metrics.
    pub console: Console,
    /// `[admin]`: the admin socket.
    pub admin: Admin,
    /// `[[route]]`: what of this instance's applications peers may reach; longest path first.
    pub routes: Vec<Route>,
    /// `[scopes]`: scope token → what it allows, and whose it is.
    pub scopes: BTreeMap<String, OfferedScope>,
    /// `[tokens]`
    pub tokens: Tokens,
    /// `[trust]`: certificate authorities besides the system's.
    pub trust: Trust,
    /// `[limits]`
    pub limits: Limits,
    /// `[audit]`
    pub audit: Audit,
    /// `[compat]`
    pub compat: Compat,
}

impl Config {
    /// For whom all access tokens are.
    pub fn audience(&self) -> Audience {
        let public_url = &self.instance.public_url;
        Audience::new(public_url.as_str(), public_url.join(&self.instance.p2pi_path))
    }

    /// What a client may call the URL of a request with that path, which came to either of our public addresses.
    pub fn names_of(&self, path: &str) -> Vec<Url> {
        let others = self.mtls.public_url.iter().flat_map(|public_url| public_url.names_of(path));
        self.instance.public_url.names_of(path).into_iter().chain(others).collect()
    }

    /// Proxies that say which certificate a client showed them.
    pub fn certificate_proxies(&self) -> Option<&TrustedProxies> {
        self.mtls.client_cert_header.then_some(&self.public.trusted_proxies)
    }

    /// The scopes that IB apps of `tenant` can be given.
    pub fn scopes_of(&self, tenant: &str) -> impl Iterator<Item = &str> {
        self.scopes.iter().filter(move |(_, offered)| offered.tenant == tenant).map(|(name, _)| name.as_str())
    }
}

/// Who this instance is.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// The instance's name, as peers see it in `P2PI-Error-From`.
    pub name: String,
    /// The OAuth issuer and the base of every URL of ours.
    pub public_url: PublicUrl,
    /// Where peers call us: a path, by default the first route's.
    pub p2pi_path: String,
    /// Where database, keys and development certificates are.
    pub state_dir: PathBuf,
}

/// An absolute URL without query, fragment and trailing slash, kept as it was written: issuers are compared as strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    text: String,
    url: Url,
}

impl PublicUrl {
    /// As written in the configuration; the issuer identifier.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// As parsed.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// `scheme://host[:port]`, as browsers send it in `Origin`.
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// The URL of `path`, which starts with a slash.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.text)
    }

    /// What a client may call the URL of a request with that path: a proxy may have taken the path of ours away, or left it.
    fn names_of(&self, path: &str) -> Vec<Url> {
        let whole = [format!("{}{path}", self.origin()), self.join(path)];
        let mut names: Vec<Url> = whole.iter().filter_map(|name| Url::parse(name).ok()).collect();
        names.dedup();
        names
    }
}

/// `[public]`
#[derive(Clone, Debug, PartialEq)]
pub struct Public {
    /// Addresses to listen on.
    pub listen: Vec<Listen>,
    /// Whose certificate is shown.
    pub tls: Tls,
    /// Proxies that are believed, and in which header (`forwarded_header`).
    pub trusted_proxies: TrustedProxies,
    /// Send `Strict-Transport-Security`.
    pub hsts: bool,
    /// Serve the admin APIs here too.
    pub admin_api: bool,
}

/// Who is believed when it says for whom it asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// These addresses.
    pub networks: Vec<IpNet>,
    /// Whoever connects to a Unix socket: only processes of this host can.
    pub unix: bool,
    /// In which header they name the client.
    pub header: ForwardedHeader,
}

impl TrustedProxies {
    /// Whether it is one who connects from there; from no address where it is a Unix socket.
    pub fn include(&self, neighbour: Option<IpAddr>) -> bool {
        match neighbour.map(|address| address.to_canonical()) {
            Some(address) => self.networks.iter().any(|network| network.contains(&address)),
            None => self.unix,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }
}

/// The header in which trusted proxies name the client. They hand on what they do not write themselves, so any other is the client's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// Whichever of the two is there. Where both are and differ, nobody knows which of them a client wrote, and neither counts.
    #[default]
    Either,
    /// `X-Forwarded-For`, which almost every proxy writes.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// `[mtls]`
#[derive(Clone, Debug, PartialEq)]
pub struct Mtls {
    /// Addresses to listen on, where who connects is asked for a certificate.
    pub listen: Vec<Listen>,
    /// Whose certificate is shown there.
    pub tls: Tls,
    /// Under which URL clients reach us with a certificate; `None` where they cannot.
    pub public_url: Option<PublicUrl>,
    /// A trusted proxy says in `Client-Cert` which certificate a client showed it.
    pub client_cert_header: bool,
    /// PEM files of the authorities that sign for clients.
    pub ca: Vec<PathBuf>,
    /// What the files held when they were checked.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// `[local]`
#[derive(Clone, Debug, PartialEq)]
pub struct Local {
    /// Addresses to listen on.
    pub listen: Vec<Listen>,
    /// Any local process may call, without a caller key.
    pub open: bool,
    /// Host names besides loopback ones that a request may carry.
    pub hosts: Vec<String>,
    /// Web origins that may call.
    pub origins: Vec<String>,
}

/// `[console]`
#[derive(Clone, Debug, PartialEq)]
pub struct Console {
    /// Addresses to listen on.
    pub listen: Vec<Listen>,
    /// TLS, which an address that is not loopback needs.
    pub tls: Tls,
    /// Host names besides loopback ones that a request may carry.
    pub hosts: Vec<String>,
    /// Web origins that may call.
    pub origins: Vec<String>,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// The Unix socket of the command line.
    pub socket: PathBuf,
    /// A group whose members may use it, besides root and the daemon's own user.
    pub group: Option<String>,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// `"[::]:7443"`, `"127.0.0.1:7480"`
    Tcp(SocketAddr),
    /// `"unix:/run/p2pid/instance1/local.sock"`
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    /// As it is written in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq)]
pub enum Tls {
    /// A certificate chain and its key, PEM.
    Files {
        /// The chain, leaf first.
        cert: PathBuf,
        /// The leaf's private key.
        key: PathBuf,
    },
    /// A development certificate of our own making, kept in `state_dir/tls`.
    SelfSigned,
    /// None: on loopback, behind a TLS proxy.
    Off,
}

/// `[[route]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Path prefix, matched on segment boundaries; `/` takes the rest.
    pub path: String,
    /// Where it goes; what follows `path` is appended to its path.
    pub upstream: Url,
    /// All are needed.
    pub scopes: Scope,
    /// Allowed methods; `None` allows every method.
    pub methods: Option<Vec<http::Method>>,
    /// Whose peers may use it.
    pub tenant: String,
    /// Whether `//` and `%2f` pass.
    pub paths: Paths,
}

/// How strictly a route reads paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paths {
    /// `//` and encoded slashes are refused.
    Strict,
    /// `//` and encoded slashes pass as they are.
    Raw,
}

/// A scope that peers can be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedScope {
    /// What the Allow page says that it allows.
    pub text: String,
    /// Whose IB apps may have it.
    pub tenant: String,
}

/// `[tokens]`
#[derive(Clone, Debug, PartialEq)]
pub struct Tokens {
    /// Life of an access token.
    pub access_ttl: Duration,
    /// Idle life of a refresh token, renewed by each rotation.
    pub refresh_ttl: Duration,
    /// Absolute life of a grant, never extended; `None` is off.
    pub grant_ttl: Option<Duration>,
    /// Life of an authorization code.
    pub code_ttl: Duration,
    /// Life of a request URL.
    pub request_ttl: Duration,
    /// What becomes of a refresh token that was used.
    pub rotation: Rotation,
    /// How long a replaced refresh token gets its first answer again.
    pub retry_window: Duration,
    /// Every authorization request must be pushed first (RFC 9126 §5).
    pub require_par: bool,
}

/// `[trust]`
#[derive(Clone, Debug, PartialEq)]
pub struct Trust {
    /// PEM files of authorities, for every peer.
    pub ca: Vec<PathBuf>,
    /// What the files held when they were checked, as a digest: one that was renewed is a change.
    pub contents: [u8; 32],
}

/// `[limits]`: bytes, counts and times.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// All headers of a request or an answer together.
    pub header_bytes: usize,
    /// A form or document for our own endpoints.
    pub form_bytes: usize,
    /// A forwarded body; 0 is no limit.
    pub body_bytes: u64,
    /// Open connections to each: what is public, the relay, the console.
    pub connections: usize,
    /// Open connections that go out, to applications, to peers and for ourselves together.
    pub outgoing_connections: usize,
    /// Calls under way at the gateway with one grant.
    pub calls_per_grant: usize,
    /// Calls under way at the relay of one caller, and those of it that wait for a peer.
    pub calls_per_caller: usize,
    /// Calls under way to one peer.
    pub calls_per_peer: usize,
    /// Calls waiting for one peer.
    pub queue_per_peer: usize,
    /// Making a connection, TLS included.
    pub connect_timeout: Duration,
    /// From the request's last byte to the answer's first.
    pub first_byte_timeout: Duration,
    /// Silence on a connection or inside a body.
    pub idle_timeout: Duration,
    /// One token request to a peer.
    pub token_timeout: Duration,
    /// How long a call waits for a refresh.
    pub refresh_wait: Duration,
    /// How long calls under way may take after SIGTERM.
    pub drain: Duration,
    /// Failed authentications per client or user and address.
    pub auth_failures: Rate,
    /// Requests with right credentials per client and address at the OAuth endpoints; `None` is no limit.
    pub client_requests: Option<Rate>,
}

/// `[audit]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    /// How long rows are kept; they can neither be changed nor deleted before.
    pub keep: Duration,
}

/// So many in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

/// `[compat]`: what a strict server refuses, off by default. Its other keys name what this version does not serve, and are always false.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compat {
    /// `?access_token=` in a query.
    pub query_token: bool,
    /// `grant_type=password`, for realms.
    pub password_grant: bool,
}
