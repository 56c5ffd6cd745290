//! A handshake: from the press of the button on a request page to the callback's page. Its stages own what is known in them.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use url::Url;

use super::ob_app::{ObApp, Server};
use super::{answer, attempt};
use super::{metadata::Metadata, peer};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::oauth::pkce;
use crate::oauth::scope::Scope;
use crate::oauth::signing_key::SigningKey;
use crate::secret::{Digest, ExposeSecret, SecretString};

/// A code that was sent and whose answer nobody has written down by then never gets one.
pub const LONGEST_EXCHANGE: Duration = Duration::from_secs(120);

/// One attempt to link a peer.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// Its identity.
    pub id: Id,
    /// Whom it is to link.
    pub peer: Id,
    /// The request URL that it began with.
    pub ticket: Digest,
    /// The secret in the cookie of the browser that pressed the button.
    pub browser: Digest,
    /// The `state` that was sent.
    pub state: Digest,
    /// What was sent with it.
    pub sent: Sent,
    /// When it ends.
    pub expires_at: Timestamp,
    /// How far it has come.
    pub stage: Stage,
}

/// What the browser was sent with, kept so that nothing that changes meanwhile is mixed into it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Sent {
    /// The issuer, where the OB app names one.
    pub issuer: Option<String>,
    /// Whether it promised to name itself in its answer (RFC 9207).
    pub iss_promised: bool,
    /// Where the code goes, and nowhere else.
    pub token_endpoint: Url,
    /// Where the answer has to arrive.
    pub redirect_uri: String,
    /// What was asked for.
    pub scope: String,
}

/// How far a handshake has come.
#[derive(Clone, Debug)]
pub enum Stage {
    /// The browser is at the peer.
    Pressed {
        /// PKCE's secret.
        verifier: SecretString,
        /// What the tokens are to be bound to.
        key: Option<Arc<SigningKey>>,
    },
    /// The code came and is being exchanged; it is sent once.
    Exchanging {
        /// Since when.
        since: Timestamp,
    },
    /// The peer is linked.
    Linked {
        /// When.
        at: Timestamp,
        /// Who allowed it, as far as the peer said.
        linked_as: Option<String>,
    },
    /// Somebody at the peer said no.
    Declined {
        /// When.
        at: Timestamp,
        /// What the peer said of it; a p2pid peer names who declined.
        words: Option<String>,
    },
    /// It came to nothing.
    Failed {
        /// When.
        at: Timestamp,
        /// Why, in words.
        why: String,
    },
    /// A newer request URL was made, or the peer's address or OB app changed.
    Replaced,
}

/// How a handshake shows itself to who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Nobody opened the request URL yet.
    Waiting,
    /// The button was pressed.
    Opened,
    /// Somebody allowed it, and the code is being exchanged.
    Allowed,
    /// Done.
    Linked,
    /// Somebody said no.
    Declined,
    /// It came to nothing: the peer refused, or its answer was no good.
    #[serde(rename = "refused")]
    Failed,
    /// It ran out.
    Expired,
    /// A newer request URL was made.
    Replaced,
}

impl Handshake {
    /// Its progress at `now`.
    pub fn progress(&self, now: Timestamp) -> Progress {
        match &self.stage {
            Stage::Pressed { .. } if now >= self.expires_at => Progress::Expired,
            Stage::Pressed { .. } => Progress::Opened,
            Stage::Exchanging { since } if now.since(*since) > LONGEST_EXCHANGE => Progress::Failed,
            Stage::Exchanging { .. } => Progress::Allowed,
            Stage::Linked { .. } => Progress::Linked,
            Stage::Declined { .. } => Progress::Declined,
            Stage::Failed { .. } => Progress::Failed,
            Stage::Replaced => Progress::Replaced,
        }
    }
}

/// The server lacks what a handshake needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHandshake {
    /// No metadata was ever read.
    #[error("the peer has never told its endpoints; it has to be reached once")]
    NoMetadata,
    /// No place to send a browser.
    #[error("the peer names no authorization endpoint")]
    NoAuthorizationEndpoint,
}

/// Where the browser goes and what is remembered of it (RFC 6749 §4.1.1, RFC 7636 §4.3).
pub fn begin(public_url: &str, app: &ObApp, metadata: Option<&Metadata>) -> Result<(Url, Sent), NoHandshake> {
    let (authorize, token_endpoint, issuer, iss_promised) = match &app.server {
        Server::Issuer(issuer) => {
            let metadata = metadata.ok_or(NoHandshake::NoMetadata)?;
            (metadata.authorization_endpoint.as_ref(), &metadata.token_endpoint, Some(issuer.clone()), metadata.iss_promised)
        }
        Server::Endpoints { authorize_url, token_url } => (authorize_url.as_ref(), token_url, None, false),
    };
    let sent = Sent {
        issuer,
        iss_promised,
        token_endpoint: token_endpoint.clone(),
        redirect_uri: peer::redirect_uri(public_url, app, metadata),
        scope: app.scope.to_string(),
    };
    Ok((authorize.ok_or(NoHandshake::NoAuthorizationEndpoint)?.clone(), sent))
}

/// The parameters of the authorization request; a key among them binds the code (RFC 9449 §10).
pub fn parameters(
    client_id: &str,
    sent: &Sent,
    state: &SecretString,
    verifier: &SecretString,
    key: Option<&SigningKey>,
) -> Vec<(&'static str, String)> {
    let mut parameters = vec![
        ("response_type", "code".to_owned()),
        ("client_id", client_id.to_owned()),
        ("redirect_uri", sent.redirect_uri.clone()),
        ("state", state.expose_secret().to_owned()),
        ("code_challenge", pkce::challenge(verifier).as_str().to_owned()),
        ("code_challenge_method", pkce::METHOD.to_owned()),
    ];
    if sent.scope.parse::<Scope>().is_ok_and(|scope| !scope.is_empty()) {
        parameters.push(("scope", sent.scope.clone()));
    }
    if let Some(key) = key {
        parameters.push(("dpop_jkt", key.public().thumbprint().to_string()));
    }
    parameters
}

/// The URL that the browser is sent to.
pub fn authorization_url(endpoint: &Url, parameters: &[(&'static str, String)]) -> Url {
    let mut url = endpoint.clone();
    url.query_pairs_mut().extend_pairs(parameters);
    url
}

/// Where the authorization request is pushed to first (RFC 9126): where the server demands it, and at every p2pid, one of whose apps may be
/// told to demand it.
pub fn pushed_to(metadata: &Metadata) -> Option<&Url> {
    metadata.par_endpoint.as_ref().filter(|_| metadata.requires_par || metadata.p2pi_endpoint.is_some())
}

/// The longest reference to a pushed request that is taken: browsers and servers carry URLs of some kilobytes.
const LONGEST_REFERENCE: usize = 4096;

fn is_reference(text: &str) -> bool {
    (1..=LONGEST_REFERENCE).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The reference that the server gave for a pushed request, or why there is none; for the reason the OB app's name, and whether it signs.
pub fn reference(ob_app: &str, signs: bool, status: StatusCode, body: &[u8]) -> Result<String, String> {
    let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| document.get(name).and_then(serde_json::Value::as_str);
    match (status.is_success(), text("request_uri"), text("error").map(answer::printable)) {
        (true, Some(reference), _) if is_reference(reference) => Ok(reference.to_owned()),
        (true, Some(_), _) => {
            Err(format!("it gave a request_uri that no URL can carry: visible ASCII of 1 to {LONGEST_REFERENCE} bytes is needed"))
        }
        (false, _, Some(error)) => {
            let words = answer::refusal_in_words(&error, &text("error_description").map(answer::printable).unwrap_or_default());
            Err(match error.as_str() {
                "invalid_client" | "unauthorized_client" => attempt::unknown_to_peer(ob_app, signs, None, &words),
                _ => format!("it does not take the request: {words}"),
            })
        }
        _ => Err(format!("it answered {} to the pushed request, without a request_uri", status.as_u16())),
    }
}

/// The URL that the browser is sent to with such a reference: nothing of the request is in it.
pub fn pushed_url(endpoint: &Url, client_id: &str, reference: &str) -> Url {
    authorization_url(endpoint, &[("client_id", client_id.to_owned()), ("request_uri", reference.to_owned())])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::outbound::metadata;
    use crate::outbound::peer::examples;

    /// A handshake whose browser is at the peer.
    pub(crate) fn handshake() -> Handshake {
        let (_, sent) =
            begin("https://one.example.com", &examples::app(), Some(&metadata::tests::metadata())).expect("the example can begin");
        Handshake {
            id: examples::id(3),
            peer: examples::id(2),
            ticket: Digest::of("ticket"),
            browser: Digest::of("browser"),
            state: Digest::of("state"),
            sent,
            expires_at: Timestamp::from_millis(3_600_000),
            stage: Stage::Pressed { verifier: "v".repeat(43).into(), key: None },
        }
    }

    #[test]
    fn c1_the_authorization_request_carries_state_and_pkce() {
        let app = examples::app();
        let (endpoint, sent) = begin("https://one.example.com", &app, Some(&metadata::tests::metadata())).expect("the example can begin");
        let verifier = "v".repeat(43).into();
        let key = SigningKey::generate();
        let url = authorization_url(&endpoint, &parameters(&app.client_id, &sent, &"the-state".into(), &verifier, Some(&key)));
        let query: std::collections::BTreeMap<_, _> = url.query_pairs().into_owned().collect();
        assert_eq!(query["response_type"], "code");
        assert_eq!(query["state"], "the-state");
        assert_eq!(query["code_challenge_method"], "S256");
        assert_eq!(query["code_challenge"], pkce::Challenge::of(&"v".repeat(43)).as_str());
        assert_eq!(query["redirect_uri"], "https://one.example.com/oauth/callback");
        assert_eq!(query["scope"], "p2pi");
        assert_eq!(query["dpop_jkt"], key.public().thumbprint().to_string());
        assert!(!url.as_str().contains(&"v".repeat(43)));
    }

    #[test]
    fn a_query_in_the_authorization_endpoint_is_kept() {
        let endpoint = Url::parse("https://two.example.com/authorize?tenant=a").expect("a URL");
        let parameters = parameters("c", &handshake().sent, &"s".into(), &"v".repeat(43).into(), None);
        let url = authorization_url(&endpoint, &parameters);
        assert!(!url.as_str().contains("dpop_jkt"));
        assert!(url.as_str().starts_with("https://two.example.com/authorize?tenant=a&response_type=code&"));
    }

    #[test]
    fn without_endpoints_nothing_begins() {
        let app = examples::app();
        assert_eq!(begin("https://one.example.com", &app, None).expect_err("no metadata"), NoHandshake::NoMetadata);
        let mut metadata = metadata::tests::metadata();
        metadata.authorization_endpoint = None;
        assert_eq!(begin("https://one.example.com", &app, Some(&metadata)).expect_err("no endpoint"), NoHandshake::NoAuthorizationEndpoint);
    }

    #[test]
    fn c14_what_is_pushed_goes_by_a_reference_or_not_at_all() {
        let read = |status: u16, body: &str| reference("app", false, StatusCode::from_u16(status).expect("a status"), body.as_bytes());
        assert_eq!(read(201, r#"{"request_uri":"urn:x","expires_in":60}"#).as_deref(), Ok("urn:x"));
        let refused = read(400, r#"{"error":"invalid_request","error_description":"no"}"#).expect_err("refused");
        assert_eq!(refused, "it does not take the request: invalid_request (no)");
        let unknown = read(401, r#"{"error":"invalid_client"}"#).expect_err("refused");
        assert!(
            unknown.contains("secret (invalid_client)") && unknown.contains("`p2pid ob update app --client-secret-stdin`"),
            "{unknown}"
        );
        for (status, body) in [(201, "{}"), (200, "<html>"), (404, ""), (503, "{}"), (201, r#"{"request_uri":7}"#)] {
            assert!(read(status, body).expect_err("none").contains(&status.to_string()), "{status} {body}");
        }
        // Whole or not at all: half a reference leads nowhere, and nobody would know why.
        let long = format!("urn:x:{}", "r".repeat(LONGEST_REFERENCE - 6));
        assert_eq!(read(201, &format!(r#"{{"request_uri":"{long}"}}"#)).as_deref(), Ok(long.as_str()));
        for bad in ["".to_owned(), format!("{long}r"), "urn:x y".to_owned(), "urn:\\u00e9".to_owned(), "urn:\\n".to_owned()] {
            let refused = read(201, &format!(r#"{{"request_uri":"{bad}"}}"#)).expect_err("no reference");
            assert!(refused.contains("visible ASCII of 1 to 4096"), "{bad}: {refused}");
        }
        let url = pushed_url(&Url::parse("https://two.example.com/authorize?tenant=a").expect("a URL"), "c", "urn:x:y");
        assert_eq!(url.as_str(), "https://two.example.com/authorize?tenant=a&client_id=c&request_uri=urn%3Ax%3Ay");
        let endpoint = Some(Url::parse("https://two.example.com/par").expect("a URL"));
        let known = |requires_par, p2pid: bool| {
            let metadata = metadata::tests::metadata();
            let p2pi_endpoint = metadata.p2pi_endpoint.clone().filter(|_| p2pid);
            pushed_to(&Metadata { par_endpoint: endpoint.clone(), requires_par, p2pi_endpoint, ..metadata }).is_some()
        };
        assert!(known(true, false) && known(false, true) && !known(false, false));
    }
}
