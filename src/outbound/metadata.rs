//! What an authorization server says of itself (RFC 8414), checked before a word of it is believed.

use serde::{Deserialize, Serialize};
use url::Url;

use super::ob_app::{self, Server, UrlProblem};
use crate::oauth::visible::is_hidden;

/// What is known of an authorization server. Stored, so that a refresh works at start while the document cannot be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The issuer; equal to the configured one.
    pub issuer: String,
    /// Where browsers are sent.
    pub authorization_endpoint: Option<Url>,
    /// Where tokens are asked for.
    pub token_endpoint: Url,
    /// RFC 7662.
    pub introspection_endpoint: Option<Url>,
    /// RFC 7009.
    pub revocation_endpoint: Option<Url>,
    /// Whether its authorization answers carry `iss` (RFC 9207 §3).
    pub iss_promised: bool,
    /// Where a p2pid peer takes calls; other servers have none.
    pub p2pi_endpoint: Option<CallEndpoint>,
    /// What it says it has; `None` when it does not say.
    pub scopes_supported: Option<Vec<String>>,
    /// How clients may authenticate at the token endpoint; the default is `client_secret_basic`.
    pub auth_methods: Vec<String>,
    /// By which algorithms an assertion may be signed; empty where it does not say.
    #[serde(default)]
    pub auth_algorithms: Vec<String>,
    /// By which algorithms a DPoP proof may be signed (RFC 9449 §5.1); empty where it takes none.
    #[serde(default)]
    pub dpop_algorithms: Vec<String>,
    /// Where authorization requests are pushed to (RFC 9126).
    #[serde(default)]
    pub par_endpoint: Option<Url>,
    /// Whether they have to be.
    #[serde(default)]
    pub requires_par: bool,
}

/// Where a p2pid peer takes calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallEndpoint {
    /// On the issuer's origin.
    OnOrigin(Url),
    /// Elsewhere: a token is not sent there because a document says so; an operator has to.
    OffOrigin(Url),
}

impl CallEndpoint {
    /// The endpoint when tokens may be sent there.
    pub const fn on_origin(&self) -> Option<&Url> {
        match self {
            Self::OnOrigin(url) => Some(url),
            Self::OffOrigin(_) => None,
        }
    }
}

/// A metadata document is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataProblem {
    /// Not a JSON object.
    #[error("the document is not a JSON object; is this the address of an authorization server?")]
    NotJson,
    /// A member that must be there is not.
    #[error("the document has no `{0}`")]
    Missing(&'static str),
    /// It speaks for another issuer (RFC 8414 §3.3).
    #[error("the document names the issuer {found}, expected {expected}; use exactly the peer's public_url")]
    OtherIssuer {
        /// What it names.
        found: String,
        /// What was configured.
        expected: String,
    },
    /// It speaks for another protected resource (RFC 9728 §3.3).
    #[error("the document names the resource {found}, expected {expected}; the peer's operator has to look at its public_url")]
    OtherResource {
        /// What it names.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// An endpoint is no URL to send secrets to.
    #[error("`{member}` is {found}: {problem}")]
    BadEndpoint {
        /// Which member.
        member: &'static str,
        /// Its value.
        found: String,
        /// What is wrong with it.
        problem: UrlProblem,
    },
}

impl Metadata {
    /// Whether this is what `server` says of itself. What another issuer said, before an OB app was moved, says nothing of the new one: a
    /// secret would go to the old.
    pub fn is_of(&self, server: &Server) -> bool {
        match server {
            Server::Issuer(issuer) => *issuer == self.issuer,
            Server::Endpoints { .. } => true,
        }
    }
}

/// Where the metadata of `issuer` is: the well-known path stands before the issuer's own (RFC 8414 §3.1).
pub fn location(issuer: &Url) -> Url {
    well_known(issuer, "oauth-authorization-server")
}

/// Where the document of the protected resource `resource` is (RFC 9728 §3.1).
pub fn resource_location(resource: &Url) -> Url {
    well_known(resource, "oauth-protected-resource")
}

/// Judges the document of a protected resource: it must speak for the resource that was asked for, by the same string (RFC 9728 §3.3).
pub fn judge_resource(resource: &str, document: &[u8]) -> Result<(), MetadataProblem> {
    let document: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(document).map_err(|_| MetadataProblem::NotJson)?;
    match document.get("resource").and_then(|value| value.as_str()) {
        None => Err(MetadataProblem::Missing("resource")),
        Some(found) if found == resource => Ok(()),
        Some(found) => Err(MetadataProblem::OtherResource { found: shortened(found), expected: resource.to_owned() }),
    }
}

fn well_known(url: &Url, name: &str) -> Url {
    let mut location = url.clone();
    let path = url.path().trim_end_matches('/');
    location.set_path(&format!("/.well-known/{name}{path}"));
    location.set_query(None);
    location.set_fragment(None);
    location
}

/// Judges a metadata document fetched for `issuer`: the issuer must be the same string, and its endpoints fit to receive secrets.
pub fn judge(issuer: &str, document: &[u8]) -> Result<Metadata, MetadataProblem> {
    let document: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(document).map_err(|_| MetadataProblem::NotJson)?;
    let text = |member: &str| document.get(member).and_then(|value| value.as_str());
    let found = text("issuer").ok_or(MetadataProblem::Missing("issuer"))?;
    if found != issuer {
        return Err(MetadataProblem::OtherIssuer { found: shortened(found), expected: issuer.to_owned() });
    }
    let issuer_url =
        ob_app::base_url(issuer).map_err(|problem| MetadataProblem::BadEndpoint { member: "issuer", found: shortened(issuer), problem })?;
    let endpoint = |member: &'static str| text(member).map(|found| endpoint_of(member, found)).transpose();
    let words = |member: &str| {
        let values = document.get(member)?.as_array()?;
        Some(values.iter().filter_map(|value| value.as_str()).take(MOST_WORDS).map(shortened).collect::<Vec<_>>())
    };
    let p2pi_endpoint = endpoint("p2pi_endpoint")?
        .map(|url| if url.origin() == issuer_url.origin() { CallEndpoint::OnOrigin(url) } else { CallEndpoint::OffOrigin(url) });
    Ok(Metadata {
        issuer: found.to_owned(),
        authorization_endpoint: endpoint("authorization_endpoint")?,
        token_endpoint: endpoint("token_endpoint")?.ok_or(MetadataProblem::Missing("token_endpoint"))?,
        introspection_endpoint: endpoint("introspection_endpoint")?,
        revocation_endpoint: endpoint("revocation_endpoint")?,
        iss_promised: document.get("authorization_response_iss_parameter_supported").and_then(|value| value.as_bool()).unwrap_or(false),
        p2pi_endpoint,
        scopes_supported: words("scopes_supported"),
        auth_methods: words("token_endpoint_auth_methods_supported").unwrap_or_else(|| vec!["client_secret_basic".to_owned()]),
        dpop_algorithms: words("dpop_signing_alg_values_supported").unwrap_or_default(),
        par_endpoint: endpoint("pushed_authorization_request_endpoint")?,
        requires_par: document.get("require_pushed_authorization_requests").and_then(|value| value.as_bool()).unwrap_or(false),
        auth_algorithms: words("token_endpoint_auth_signing_alg_values_supported").unwrap_or_default(),
    })
}

/// More words than any server has; what comes after is not looked at.
const MOST_WORDS: usize = 500;

/// The longest text of a peer that is shown or kept.
const LONGEST: usize = 200;

fn shortened(text: &str) -> String {
    text.chars().filter(|&character| !is_hidden(character)).take(LONGEST).collect()
}

fn endpoint_of(member: &'static str, found: &str) -> Result<Url, MetadataProblem> {
    ob_app::endpoint_url(found).map_err(|problem| MetadataProblem::BadEndpoint { member, found: shortened(found), problem })
}

/// Whether `endpoint` is off the issuer's host. Then it was learnt from a document, not from an operator, and may not lead into a private
/// network.
pub fn is_off_host(issuer: &Url, endpoint: &Url) -> bool {
    issuer.host() != endpoint.host()
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What a p2pid peer at `https://two.example.com` says of itself, checked.
    pub(crate) fn metadata() -> Metadata {
        judge("https://two.example.com", document().to_string().as_bytes()).expect("the example is valid")
    }

    fn document() -> Value {
        json!({
            "issuer": "https://two.example.com",
            "authorization_endpoint": "https://two.example.com/oauth/authorize",
            "token_endpoint": "https://two.example.com/oauth/token",
            "introspection_endpoint": "https://two.example.com/oauth/introspect",
            "revocation_endpoint": "https://two.example.com/oauth/revoke",
            "authorization_response_iss_parameter_supported": true,
            "p2pi_endpoint": "https://two.example.com/p2pi",
            "scopes_supported": ["p2pi"],
        })
    }

    fn judge_with(member: &str, value: Value) -> Result<Metadata, MetadataProblem> {
        let mut changed = document();
        changed[member] = value;
        judge("https://two.example.com", changed.to_string().as_bytes())
    }

    #[test]
    fn the_well_known_path_stands_before_the_issuers_own() {
        let cases = [
            ("https://two.example.com", "https://two.example.com/.well-known/oauth-authorization-server"),
            ("https://two.example.com/", "https://two.example.com/.well-known/oauth-authorization-server"),
            ("https://two.example.com:7443/a/b", "https://two.example.com:7443/.well-known/oauth-authorization-server/a/b"),
            ("https://two.example.com/a/", "https://two.example.com/.well-known/oauth-authorization-server/a"),
        ];
        for (issuer, expected) in cases {
            let issuer = Url::parse(issuer).expect("a URL");
            assert_eq!(location(&issuer).as_str(), expected);
            assert_eq!(resource_location(&issuer).as_str(), expected.replace("authorization-server", "protected-resource"));
        }
    }

    #[test]
    fn d2_the_resource_must_be_the_same_string() {
        let judged = |resource: Value| judge_resource("https://two.example.com", json!({ "resource": resource }).to_string().as_bytes());
        assert_eq!(judged(json!("https://two.example.com")), Ok(()));
        for other in ["https://two.example.com/", "https://two.example.com/p2pi", "https://evil.example.com", ""] {
            assert!(matches!(judged(json!(other)), Err(MetadataProblem::OtherResource { found, .. }) if found == other));
        }
        assert_eq!(judged(json!(7)), Err(MetadataProblem::Missing("resource")));
        assert_eq!(judge_resource("https://two.example.com", b"<html>"), Err(MetadataProblem::NotJson));
    }

    #[test]
    fn c2_the_issuer_must_be_the_same_string() {
        for other in ["https://two.example.com/", "https://TWO.example.com", "https://two.example.com:443", "https://evil.example.com", ""]
        {
            let problem = judge_with("issuer", json!(other)).expect_err("another issuer");
            assert!(matches!(problem, MetadataProblem::OtherIssuer { .. }), "{other}");
        }
        assert_eq!(judge_with("issuer", json!(7)), Err(MetadataProblem::Missing("issuer")));
    }

    #[test]
    fn c2_what_is_no_metadata_is_named() {
        for garbage in [&b""[..], b"<html>", b"[]", b"\"text\"", b"{"] {
            assert_eq!(judge("https://two.example.com", garbage), Err(MetadataProblem::NotJson));
        }
        assert_eq!(judge_with("token_endpoint", Value::Null), Err(MetadataProblem::Missing("token_endpoint")));
        let plain = judge_with("token_endpoint", json!("http://two.example.com/token"));
        assert!(matches!(plain, Err(MetadataProblem::BadEndpoint { member: "token_endpoint", problem: UrlProblem::NotSecure, .. })));
        let script = judge_with("authorization_endpoint", json!("javascript:alert(1)"));
        assert!(matches!(script, Err(MetadataProblem::BadEndpoint { member: "authorization_endpoint", .. })));
    }

    #[test]
    fn c9_a_call_endpoint_elsewhere_is_told_apart() {
        let metadata = judge_with("p2pi_endpoint", json!("https://two.example.com:8443/p2pi")).expect("valid");
        assert!(matches!(metadata.p2pi_endpoint, Some(CallEndpoint::OffOrigin(_))));
        assert!(judge_with("p2pi_endpoint", Value::Null).expect("valid").p2pi_endpoint.is_none());
    }

    #[test]
    fn what_is_stored_is_what_was_checked() {
        let stored = serde_json::to_string(&metadata()).expect("serialises");
        assert_eq!(serde_json::from_str::<Metadata>(&stored).expect("reads back"), metadata());
    }
}
