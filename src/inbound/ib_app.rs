//! IB apps: registrations that let a peer call us.

use std::collections::BTreeSet;
use std::time::Duration;

use super::security::Security;
use super::user;
use crate::audit::Record;
use crate::clock::Timestamp;
use crate::id::Id;
use crate::oauth::redirect_uri::RedirectUri;
use crate::oauth::rotation::Rotation;
use crate::oauth::scope::Scope;

/// A grant type that an IB app may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantType {
    /// Somebody allows it in a browser (RFC 6749 §4.1).
    AuthorizationCode,
    /// What was allowed is renewed (RFC 6749 §6).
    RefreshToken,
    /// The app acts for itself (RFC 6749 §4.4).
    ClientCredentials,
    /// The app hands in a person's name and password (RFC 6749 §4.3): a realm alone may, and that is what makes it one.
    Password,
}

impl GrantType {
    /// Every grant type that an app can be registered for by name.
    pub const ALL: [Self; 3] = [Self::AuthorizationCode, Self::RefreshToken, Self::ClientCredentials];

    /// What an app may use of which nothing else is said: what makes and keeps a link.
    pub const OF_A_LINK: [Self; 2] = [Self::AuthorizationCode, Self::RefreshToken];

    /// As sent.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationCode => "authorization_code",
            Self::RefreshToken => "refresh_token",
            Self::ClientCredentials => "client_credentials",
            Self::Password => "password",
        }
    }

    /// The grant types that are served, as requests and metadata name them; the password grant only where the instance allows it.
    pub fn served(password_grant: bool) -> Vec<&'static str> {
        Self::ALL.into_iter().chain(password_grant.then_some(Self::Password)).map(Self::as_str).collect()
    }
}

/// A registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IbApp {
    /// Its identity.
    pub id: Id,
    /// Whose it is.
    pub tenant: String,
    /// Its name, unique in the tenant.
    pub name: String,
    /// Its `client_id`, unique in the instance.
    pub client_id: String,
    /// Where its browser answers may go.
    pub redirect_uris: Vec<RedirectUri>,
    /// The grant types it may use.
    pub grants: BTreeSet<GrantType>,
    /// The most it may be allowed.
    pub scope: Scope,
    /// The life of its access tokens, where that is not the instance's.
    pub access_ttl: Option<Duration>,
    /// Its rotation, where that is not the instance's.
    pub rotation: Option<Rotation>,
    /// Runs on a person's machine: the port of its loopback redirect URIs may vary.
    pub native: bool,
    /// What it must show of itself.
    pub security: Security,
    /// When it was registered.
    pub created_at: Timestamp,
}

impl IbApp {
    /// Whether it may use `grant`.
    pub fn may_use(&self, grant: GrantType) -> bool {
        self.grants.contains(&grant)
    }

    /// Whether it is a resource server whose tokens are good for nothing but to look at those of others: it needs no scope.
    pub fn only_introspects(&self) -> bool {
        !self.security.introspects.is_empty() && self.grants.iter().eq([&GrantType::ClientCredentials])
    }

    /// Whether it signs people in ([`super::realm`]).
    pub fn is_realm(&self) -> bool {
        self.may_use(GrantType::Password)
    }

    /// As the audit names it.
    pub fn record(&self) -> Record {
        Record::of_tenant(if self.is_realm() { "realm" } else { "ib-app" }, &self.tenant, self.id, &self.name)
    }
}

/// One of an app's secrets, of which only a keyed hash is kept. Some may be good at once ([`MOST_SECRETS`]), so that a secret is changed without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSecret {
    /// Its identity.
    pub id: Id,
    /// The keyed hash.
    pub hash: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused; none while it is the newest.
    pub expires_at: Option<Timestamp>,
    /// When a client last authenticated with it.
    pub last_used_at: Option<Timestamp>,
}

impl ClientSecret {
    /// Whether it is still good at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    /// Whether [`ClientSecret::last_used_at`] is old enough to be written again: one write a minute, not one for each request.
    pub fn is_use_news(&self, now: Timestamp) -> bool {
        self.last_used_at.is_none_or(|last| now.since(last) >= Duration::from_secs(60))
    }
}

/// Secrets of one app that may be good at once, the newest among them.
pub const MOST_SECRETS: usize = 4;

/// As many secrets of an app are good as may be; the first of them ends then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManySecrets {
    /// When there is room for another one.
    pub first_end: Timestamp,
}

/// How the secrets of an app stand after a rotation: the newest stays good for `overlap`, those that were replaced earlier for as long as was
/// said then. Without an overlap all end now.
///
/// # Errors
/// [`TooManySecrets`] where the new one would be one too many.
pub fn rotated(mut secrets: Vec<ClientSecret>, now: Timestamp, overlap: Duration) -> Result<Vec<ClientSecret>, TooManySecrets> {
    if overlap.is_zero() {
        return Ok(Vec::new());
    }
    secrets.retain(|secret| secret.is_live(now));
    if secrets.len() >= MOST_SECRETS
        && let Some(first_end) = secrets.iter().filter_map(|secret| secret.expires_at).min()
    {
        return Err(TooManySecrets { first_end });
    }
    for secret in &mut secrets {
        secret.expires_at.get_or_insert(now.plus(overlap));
    }
    Ok(secrets)
}

/// Whether `secret` may be given as a client secret: 1–128 printable ASCII characters.
pub fn is_client_secret(secret: &str) -> bool {
    (1..=128).contains(&secret.len()) && secret.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Whether `client_id` may be given: 1–255 characters of `VSCHAR` (RFC 6749 appendix A.1) without the colon, which Basic could not carry raw.
pub fn is_client_id(client_id: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_graphic() && byte != b':';
    (1..=255).contains(&client_id.len()) && client_id.bytes().all(is_good) && client_id != user::DELETED
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(number: u8, expires_at: Option<i64>) -> ClientSecret {
        ClientSecret {
            id: Id::from_bytes([number; 16]),
            hash: vec![number],
            created_at: Timestamp::from_millis(i64::from(number)),
            expires_at: expires_at.map(Timestamp::from_millis),
            last_used_at: None,
        }
    }

    #[test]
    fn t12_a_rotation_leaves_the_newest_secret_for_the_overlap_and_the_others_for_as_long_as_was_said() {
        let at = Timestamp::from_millis;
        let hour = Duration::from_secs(3_600);
        let after = rotated(vec![secret(2, None), secret(1, Some(5_000))], at(1_000), hour).expect("there is room");
        assert_eq!(after, [secret(2, Some(3_601_000)), secret(1, Some(5_000))]);
        let later = [&[secret(3, None)], &after[..]].concat();
        let again = rotated(later.clone(), at(2_000), Duration::from_secs(1)).expect("there is room");
        assert_eq!(
            again,
            [secret(3, Some(3_000)), secret(2, Some(3_601_000)), secret(1, Some(5_000))],
            "an overlap that is shorter ends none"
        );
        let full = [&[secret(4, None)], &again[..]].concat();
        assert_eq!(rotated(full.clone(), at(2_999), hour), Err(TooManySecrets { first_end: at(3_000) }));
        assert_eq!(rotated(full.clone(), at(3_000), hour).map(|left| left.len()), Ok(3), "one has ended");
        assert_eq!(rotated(full, at(2_999), Duration::ZERO), Ok(Vec::new()), "without an overlap all end");
        assert_eq!(rotated(vec![secret(1, Some(500))], at(1_000), hour), Ok(Vec::new()));
        assert!(secret(1, Some(500)).is_live(at(499)) && !secret(1, Some(500)).is_live(at(500)));
    }

    #[test]
    fn what_may_be_given_as_secret_and_id() {
        assert!(is_client_secret("a b~") && !is_client_secret("") && !is_client_secret(&"a".repeat(129)) && !is_client_secret("ä"));
        assert!(
            is_client_id("https://x/".trim_start_matches("https:"))
                && !is_client_id("a:b")
                && !is_client_id("a b")
                && !is_client_id("")
                && !is_client_id("(deleted)")
        );
    }
}
