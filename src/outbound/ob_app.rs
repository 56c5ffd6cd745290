//! OB apps: the credentials that we hold at somebody else's authorization server.

use std::sync::Arc;

use url::{Origin, Url};

use super::keys::Keys;
use super::metadata::Metadata;
use crate::clock::Timestamp;
use crate::id::Id;
use crate::oauth::client_auth::Method;
use crate::oauth::loopback::is_loopback;
use crate::oauth::redirect_uri::has_plain_host;
use crate::oauth::scope::Scope;
use crate::oauth::signing_key::SigningKey;
use crate::secret::SecretString;

/// An outbound client app (OAuthOBClientApp).
#[derive(Clone, Debug)]
pub struct ObApp {
    /// Its identity.
    pub id: Id,
    /// Whose it is.
    pub tenant: String,
    /// Unique in its tenant.
    pub name: String,
    /// What the server knows us by.
    pub client_id: String,
    /// How it authenticates, when an operator said so; else what it has and what the server takes decide.
    pub auth_method: Option<Method>,
    /// What proves it; a public client has none, nor has one that signs.
    pub client_secret: Option<SecretString>,
    /// What proves it by signatures, where that may be wanted.
    pub keys: Option<Keys>,
    /// Whether its tokens are bound to a key of ours.
    pub dpop: Dpop,
    /// How tokens are asked for.
    pub grant: Grant,
    /// What is asked for; empty asks for what the server gives by itself.
    pub scope: Scope,
    /// Where its endpoints are known from.
    pub server: Server,
    /// Authorities that the server's certificate may come from, PEM; without them the peer's trust counts.
    pub ca: Option<String>,
    /// Somebody gave its URLs who does not rule the instance: they may not lead into a private network.
    pub guarded: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

/// How an OB app gets its tokens (RFC 6749 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// Somebody allows it in a browser, once; then it is refreshed.
    AuthorizationCode,
    /// The app's own credentials are enough.
    ClientCredentials,
    /// A user name and password that the peer's record holds.
    Password,
}

/// Whether tokens are asked for with a proof, so that they are bound to its key (DPoP, RFC 9449).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dpop {
    /// Where the server says that it takes proofs, and it is a p2pid, or we share no secret with it. What a server of another kind takes is no
    /// promise of the services behind it: many know bearer tokens only.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Always, and a token that comes back without being bound is refused.
    Require,
}

impl Dpop {
    const ALL: [Self; 3] = [Self::Auto, Self::Off, Self::Require];

    /// As it is stored and written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
            Self::Require => "require",
        }
    }

    /// The setting of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dpop| dpop.as_str() == name)
    }
}

impl ObApp {
    /// Whether tokens are asked for with a proof at the server with that metadata.
    pub fn proves(&self, metadata: Option<&Metadata>) -> bool {
        match self.dpop {
            Dpop::Auto => metadata.is_some_and(|metadata| {
                SigningKey::is_for(&metadata.dpop_algorithms) && (metadata.p2pi_endpoint.is_some() || self.needs_key())
            }),
            Dpop::Off => false,
            Dpop::Require => true,
        }
    }

    /// A new key for such proofs; none where there are no proofs.
    pub fn new_proof_key(&self, metadata: Option<&Metadata>) -> Option<Arc<SigningKey>> {
        let algorithms = metadata.map_or(&[][..], |metadata| &metadata.dpop_algorithms);
        self.proves(metadata).then(|| Arc::new(SigningKey::generate_for(algorithms)))
    }

    /// Whether it has to have a key: it is told to sign, or it has no secret and the server may take signatures.
    pub fn needs_key(&self) -> bool {
        match self.auth_method {
            Some(method) => method == Method::PrivateKeyJwt,
            None => self.client_secret.is_none(),
        }
    }
}

impl Grant {
    /// As RFC 6749 writes it in `grant_type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationCode => "authorization_code",
            Self::ClientCredentials => "client_credentials",
            Self::Password => "password",
        }
    }

    /// The grant of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::AuthorizationCode, Self::ClientCredentials, Self::Password].into_iter().find(|grant| grant.as_str() == name)
    }

    /// Whether new tokens need nobody's consent: there is nothing to link and nothing that a refusal could end.
    pub const fn is_self_sufficient(self) -> bool {
        matches!(self, Self::ClientCredentials | Self::Password)
    }
}

/// Where an OB app's endpoints are known from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// The metadata of this issuer (RFC 8414), kept as written: issuers are compared as strings.
    Issuer(String),
    /// An operator named them.
    Endpoints {
        /// Where browsers are sent; the grants without a browser need none.
        authorize_url: Option<Url>,
        /// Where tokens are asked for.
        token_url: Url,
    },
}

impl Server {
    /// Whom the app's secret is for: the issuer and where it says that tokens are asked for, or the token endpoint that an operator named.
    pub fn origin(&self) -> Origin {
        match self {
            // What does not parse is the origin of nothing else.
            Self::Issuer(issuer) => Url::parse(issuer).map_or_else(|_| Origin::new_opaque(), |issuer| issuer.origin()),
            Self::Endpoints { token_url, .. } => token_url.origin(),
        }
    }
}

/// A URL that an operator gave cannot be one of a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlProblem {
    /// It does not parse, or is no web address.
    #[error("expected an absolute https URL")]
    NotAUrl,
    /// A token would travel in clear.
    #[error("expected https: plain http would show tokens to the network, and is accepted for loopback addresses only")]
    NotSecure,
    /// Its host has characters that mean something else elsewhere: in the Content-Security-Policy of a page, for one.
    #[error("expected a host that is an address, or made of letters, digits, `.`, `-` and `_`")]
    Host,
    /// It has a fragment, a query, or a user name.
    #[error("expected a URL without query, fragment, user name and password")]
    Decorated,
}

/// Checks a URL that is to be the base of a peer or the name of an issuer: https (http on loopback), without decoration.
pub fn base_url(text: &str) -> Result<Url, UrlProblem> {
    let url = endpoint_url(text)?;
    if url.query().is_some() { Err(UrlProblem::Decorated) } else { Ok(url) }
}

/// Checks the URL of an endpoint: as [`base_url`], but it may have a query (RFC 6749 §3.1).
pub fn endpoint_url(text: &str) -> Result<Url, UrlProblem> {
    let url = Url::parse(text).map_err(|_| UrlProblem::NotAUrl)?;
    if !url.has_host() {
        return Err(UrlProblem::NotAUrl);
    }
    if !has_plain_host(&url) {
        return Err(UrlProblem::Host);
    }
    if url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(UrlProblem::Decorated);
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err(UrlProblem::NotSecure),
        _ => Err(UrlProblem::NotAUrl),
    }
}

/// `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`: the names of peers, apps and callers. They stand in paths, so nothing needs escaping.
pub fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && text.len() <= 63
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_secure_and_plain() {
        for good in
            ["https://two.example.com:7443", "https://two.example.com/sub", "http://127.0.0.1:7443", "http://[::1]:1", "http://localhost"]
        {
            assert!(base_url(good).is_ok(), "{good}");
        }
        let bad = [
            ("two.example.com", UrlProblem::NotAUrl),
            ("ftp://two.example.com", UrlProblem::NotAUrl),
            ("javascript:alert(1)", UrlProblem::NotAUrl),
            ("http://two.example.com", UrlProblem::NotSecure),
            ("http://10.0.0.1", UrlProblem::NotSecure),
            ("https://a;script-src/", UrlProblem::Host),
            ("https://*,x/", UrlProblem::Host),
            ("https://*.example.com/", UrlProblem::Host),
            ("https://two.example.com/?a=b", UrlProblem::Decorated),
            ("https://two.example.com/#top", UrlProblem::Decorated),
            ("https://me:secret@two.example.com", UrlProblem::Decorated),
        ];
        for (text, problem) in bad {
            assert_eq!(base_url(text), Err(problem), "{text}");
        }
        assert!(endpoint_url("https://two.example.com/token?tenant=a").is_ok());
    }

    #[test]
    fn c13_proofs_are_made_where_nobody_behind_the_server_is_surprised_by_them() {
        let document = |endpoint: &str, algorithms: &str| {
            let document = format!(
                r#"{{"issuer":"https://two.example.com","authorization_endpoint":"https://two.example.com/a","token_endpoint":"https://two.example.com/t","response_types_supported":["code"],"dpop_signing_alg_values_supported":{algorithms}{endpoint}}}"#
            );
            super::super::metadata::judge("https://two.example.com", document.as_bytes()).expect("metadata")
        };
        let ours = r#","p2pi_endpoint":"https://two.example.com/p2pi""#;
        let (p2pid, other) = (document(ours, r#"["ES256"]"#), document("", r#"["ES256"]"#));
        let with_secret = |dpop| ObApp { dpop, ..crate::outbound::peer::examples::app() };
        let without = |dpop| ObApp { client_secret: None, ..with_secret(dpop) };
        assert!(with_secret(Dpop::Auto).proves(Some(&p2pid)));
        assert!(!with_secret(Dpop::Auto).proves(Some(&other)), "its services may know bearer tokens only");
        assert!(without(Dpop::Auto).proves(Some(&other)));
        assert!(!without(Dpop::Auto).proves(Some(&document(ours, r#"["RS256"]"#))), "no algorithm in common");
        assert!(!without(Dpop::Auto).proves(None));
        assert!(with_secret(Dpop::Require).proves(Some(&other)) && !without(Dpop::Off).proves(Some(&p2pid)));
    }

    #[test]
    fn names_fit_into_a_path_segment() {
        for good in ["a", "instance2", "A.b_c-9", &"x".repeat(63)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "..", "-a", "_a", "a/b", "a b", "ä", "a%2f", &"x".repeat(64)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
