//! Grants: what somebody allowed an IB app, and the life of its tokens.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::id::Id;
use crate::oauth::binding::Binding;
use crate::oauth::rotation::Rotation;
use crate::oauth::scope::Scope;
use crate::secret::{Digest, ExposeSecret, SecretString};

/// What somebody allowed an IB app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its identity.
    pub id: Id,
    /// The IB app.
    pub app: Id,
    /// Who allowed it; none once that person was deleted.
    pub user: Option<Id>,
    /// All that was allowed. Tokens may carry less, never more.
    pub scope: Scope,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends whatever happens; rotation never extends it.
    pub expires_at: Option<Timestamp>,
    /// When and why it was ended.
    pub ended: Option<Ended>,
    /// The key that each refresh must show: of an app that does not authenticate, its DPoP key (RFC 9449 §5).
    pub binding: Option<Binding>,
    /// What made it.
    pub made_by: MadeBy,
}

/// What made a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MadeBy {
    /// Somebody allowed it in a browser.
    Consent,
    /// A realm's application handed in somebody's password.
    Password,
}

impl MadeBy {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Consent, Self::Password];

    /// For lists and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consent => "consent",
            Self::Password => "password",
        }
    }
}

/// The end of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: EndReason,
}

/// Why a grant was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Its app asked (RFC 7009).
    RevokedByClient,
    /// Somebody who rules here did.
    RevokedByAdmin,
    /// Who had allowed it took it back.
    RevokedByUser,
    /// Its code came a second time from its app (RFC 6749 §4.1.2).
    CodeReplayed,
    /// A refresh token came back that only a thief could have.
    RefreshTokenReplayed,
    /// The database was restored from a backup that was made before.
    Restored,
    /// Of a realm: the person it signed in was deleted.
    UserDeleted,
    /// Of a realm: the person it signed in got another password.
    PasswordChanged,
    /// Of a realm: the person it signed in holds no role there any more.
    RoleTaken,
    /// Of a realm: the person it signed in has signed in too often since.
    Displaced,
}

impl EndReason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::RevokedByClient,
        Self::RevokedByAdmin,
        Self::RevokedByUser,
        Self::CodeReplayed,
        Self::RefreshTokenReplayed,
        Self::Restored,
        Self::UserDeleted,
        Self::PasswordChanged,
        Self::RoleTaken,
        Self::Displaced,
    ];

    /// For logs and lists.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RevokedByClient => "revoked_by_client",
            Self::RevokedByAdmin => "revoked_by_admin",
            Self::RevokedByUser => "revoked_by_user",
            Self::CodeReplayed => "code_replayed",
            Self::RefreshTokenReplayed => "refresh_token_replayed",
            Self::Restored => "restored",
            Self::UserDeleted => "user_deleted",
            Self::PasswordChanged => "password_changed",
            Self::RoleTaken => "role_taken",
            Self::Displaced => "displaced",
        }
    }
}

impl Grant {
    /// Whether its tokens may be good at `now`. Idle life is the refresh token's affair.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.ended.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    /// `refresh_token_expires_in`, where the grant's life is limited.
    pub fn remaining(&self, now: Timestamp) -> Option<Duration> {
        self.expires_at.map(|end| end.since(now))
    }
}

/// How far ahead of our clock a token may have been issued: a clock that was set back a little refuses nothing.
const SKEW: Duration = Duration::from_secs(60);

/// Whether a token of that life is good at `now`, as far as time goes.
pub fn is_in_its_time(issued_at: Timestamp, expires_at: Timestamp, now: Timestamp) -> bool {
    issued_at <= now.plus(SKEW) && now < expires_at
}

/// The settings by which tokens are judged: the instance's, with what the app overrides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Life of an access token.
    pub access_ttl: Duration,
    /// Idle life of a refresh token.
    pub refresh_ttl: Duration,
    /// Absolute life of a grant.
    pub grant_ttl: Option<Duration>,
    /// What becomes of a refresh token that was used.
    pub rotation: Rotation,
    /// How long a replaced refresh token gets its first answer again.
    pub retry_window: Duration,
}

/// A pair of tokens fresh from the random generator, not yet anybody's.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// The access token.
    pub access: SecretString,
    /// The refresh token.
    pub refresh: SecretString,
}

/// A new access token, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAccess {
    /// The token's digest.
    pub digest: Digest,
    /// Which refresh token of the grant it came with.
    pub generation: u32,
    /// What it allows.
    pub scope: Scope,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// From when on it is refused.
    pub expires_at: Timestamp,
    /// What it is bound to.
    pub binding: Option<Binding>,
}

impl NewAccess {
    /// The fresh access token of a grant, which does not outlive the grant.
    pub fn of(fresh: &Fresh, grant_end: Option<Timestamp>, generation: u32, scope: Scope, life: Duration, now: Timestamp) -> Self {
        let end = now.plus(life);
        Self {
            digest: Digest::of(fresh.access.expose_secret()),
            generation,
            scope,
            issued_at: now,
            expires_at: grant_end.map_or(end, |grant_end| grant_end.min(end)),
            binding: None,
        }
    }

    /// The same, bound.
    pub fn bound_to(self, binding: Option<Binding>) -> Self {
        Self { binding, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k3_a_token_from_the_future_is_refused_but_for_a_small_skew() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1_000);
        assert!(is_in_its_time(at(100), at(200), at(100)) && is_in_its_time(at(100), at(200), at(199)));
        assert!(!is_in_its_time(at(100), at(200), at(200)));
        assert!(is_in_its_time(at(100), at(200), at(90)), "10 s ahead");
        assert!(!is_in_its_time(at(100), at(200), at(39)), "61 s ahead");
    }
}
