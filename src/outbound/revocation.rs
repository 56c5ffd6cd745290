//! Tokens that have to be revoked at a peer (RFC 7009). They wait until the peer confirms, with all that it takes to ask: the peer's record
//! and the OB app may be gone by then.

use std::time::Duration;

use http::StatusCode;
use url::Url;

use super::exchange::Client;
use super::link::{Facts, Held};
use super::metadata::{self, Metadata};
use super::ob_app::{ObApp, Server};
use super::peer::PeerTrust;
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
        guarded: is_guarded(metadata, &endpoint),
        client: Client::new(app, &metadata.token_endpoint, Some(metadata)),
        endpoint,
        trust: facts.server_trust(),
        attempts: 0,
    })
}

/// Whether `endpoint` is off the issuer's host.
pub fn is_guarded(metadata: &Metadata, endpoint: &Url) -> bool {
    Url::parse(&metadata.issuer).map_or(true, |issuer| metadata::is_off_host(&issuer, endpoint))
}

/// Whether an answer settles the matter. 200 confirms it (RFC 7009 §2.2); a server that refuses the request will refuse it again, and then
/// nothing more can be done.
pub fn judge(status: StatusCode) -> Outcome {
    match status.as_u16() {
        200..=299 => Outcome::Confirmed,
        400 | 404 | 405 | 410 => Outcome::Impossible,
        _ => Outcome::Again,
    }
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The peer has revoked it.
    Confirmed,
    /// The peer will not.
    Impossible,
    /// To be tried again.
    Again,
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
        for (status, outcome) in [
            (200, Outcome::Confirmed),
            (204, Outcome::Confirmed),
            (400, Outcome::Impossible),
            (404, Outcome::Impossible),
            (401, Outcome::Again),
            (403, Outcome::Again),
            (302, Outcome::Again),
            (429, Outcome::Again),
            (503, Outcome::Again),
        ] {
            assert_eq!(judge(StatusCode::from_u16(status).expect("a status")), outcome, "{status}");
        }
    }

    #[test]
    fn waits_grow_to_an_hour() {
        assert_eq!(wait(1), FIRST_WAIT);
        assert_eq!(wait(2), FIRST_WAIT * 2);
        assert_eq!(wait(u32::MAX), LONGEST_WAIT);
    }
}
