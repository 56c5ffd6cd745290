//! Tokens that have to be revoked at a peer (RFC 7009). They wait until the peer confirms, with all that it takes to ask: the peer's record
//! and the OB app may be gone by then.

use std::time::Duration;

use http::StatusCode;
use url::Url;

use super::client::Client;
use super::link::{Facts, Held};
use super::metadata::{self, Metadata};
use super::ob_app::{ObApp, Server};
use super::peer::PeerTrust;
use crate::id::Id;
use crate::secret::SecretString;

/// How long a revocation is tried.
pub const TRIED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// One token to revoke.
#[derive(Clone, Debug)]
pub struct Revocation {
    /// Whose peer it was.
    pub tenant: String,
    /// The peer's name when the token was given up.
    pub peer: String,
    /// The token.
    pub token: SecretString,
    /// Which type it is.
    pub hint: Hint,
    /// Where it is revoked.
    pub endpoint: Url,
    /// Whether that may not be in a private network.
    pub guarded: bool,
    /// Who we are there.
    pub client: Client,
    /// The OB app: while it is there, its key of the time signs.
    pub ob_app: Option<Id>,
    /// Whose certificates are believed.
    pub trust: PeerTrust,
    /// How often it was tried.
    pub attempts: u32,
}

/// The type of a token (RFC 7009 §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// An access token.
    Access,
    /// A refresh token; revoking it ends its grant.
    Refresh,
}

impl Hint {
    /// As sent.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access_token",
            Self::Refresh => "refresh_token",
        }
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Access, Self::Refresh].into_iter().find(|hint| hint.as_str() == name)
    }
}

/// The revocation that ends a grant whose tokens are given up; `None` where the server has no endpoint for it.
pub fn of(facts: &Facts, held: &Held) -> Option<Revocation> {
    let (token, hint) = match &held.refresh {
        Some(refresh) => (refresh, Hint::Refresh),
        None => (&held.access, Hint::Access),
    };
    of_token(facts, facts.ob_app.as_ref()?, token, hint)
}

/// The revocation of one token that `app` got from the server of `facts`.
pub fn of_token(facts: &Facts, app: &ObApp, token: &SecretString, hint: Hint) -> Option<Revocation> {
    let Server::Issuer(_) = &app.server else { return None };
    let metadata = facts.metadata.as_ref()?;
    let endpoint = metadata.revocation_endpoint.clone()?;
    Some(Revocation {
        tenant: facts.peer.tenant.clone(),
        peer: facts.peer.name.clone(),
        token: token.clone(),
        hint,
        guarded: app.guarded || is_guarded(metadata, &endpoint),
        client: Client::new(app, &metadata.token_endpoint, Some(metadata)),
        ob_app: Some(app.id),
        endpoint,
        trust: facts.server_trust(),
        attempts: 0,
    })
}

/// Whether `endpoint` is off the issuer's host.
pub fn is_guarded(metadata: &Metadata, endpoint: &Url) -> bool {
    Url::parse(&metadata.issuer).map_or(true, |issuer| metadata::is_off_host(&issuer, endpoint))
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The peer has confirmed it.
    Confirmed,
    /// The peer says that it will not, whenever it is asked; nothing more is tried.
    Impossible,
    /// It is tried again; why it was not done yet.
    Waiting(String),
}

/// What an answer means. 200 confirms it (RFC 7009 §2.2). Only the server's own word that it never will settles the matter otherwise:
/// that it revokes no such tokens (§2.2.1), or does not know this one (RFC 6749 §5.2). A refused secret may be mended, and an answer that
/// is no error document is not the server's, or not for good.
pub fn judge(status: StatusCode, body: &[u8]) -> Delivery {
    if status.is_success() {
        return Delivery::Confirmed;
    }
    let document: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let error = document.as_ref().and_then(|document| document.get("error")).and_then(serde_json::Value::as_str);
    match error {
        Some("unsupported_token_type" | "invalid_grant") if status == StatusCode::BAD_REQUEST => Delivery::Impossible,
        _ => Delivery::Waiting(format!("the revocation endpoint answered {status}")),
    }
}

/// How long to wait after so many attempts.
pub fn wait(attempts: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << attempts.saturating_sub(1).min(12)).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_settle_it_or_do_not() {
        let waiting = |status: StatusCode| Delivery::Waiting(format!("the revocation endpoint answered {status}"));
        for (status, body, settled) in [
            (200, "", Some(Delivery::Confirmed)),
            (204, "", Some(Delivery::Confirmed)),
            (400, r#"{"error":"unsupported_token_type"}"#, Some(Delivery::Impossible)),
            (400, r#"{"error":"invalid_grant"}"#, Some(Delivery::Impossible)),
            (400, r#"{"error":"invalid_client"}"#, None),
            (400, r#"{"error":"invalid_request"}"#, None),
            (400, r#"{"error":{"code":"unsupported_token_type"}}"#, None),
            (400, "<h1>Bad Request</h1>", None),
            (400, "", None),
            (401, r#"{"error":"invalid_client"}"#, None),
            (503, r#"{"error":"unsupported_token_type"}"#, None),
            (404, "", None),
            (405, "", None),
            (410, "", None),
            (403, "", None),
            (302, "", None),
            (429, "", None),
            (503, "", None),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(judge(status, body.as_bytes()), settled.unwrap_or_else(|| waiting(status)), "{status} {body}");
        }
    }

    #[test]
    fn waits_grow_to_an_hour() {
        assert_eq!(wait(1), FIRST_WAIT);
        assert_eq!(wait(2), FIRST_WAIT * 2);
        assert_eq!(wait(u32::MAX), LONGEST_WAIT);
    }
}
