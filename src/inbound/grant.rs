//! Grants: what somebody allowed an IB app, and the life of its tokens.

use std::time::Duration;

use crate::clock::{Moment, Timestamp};
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
    /// Its time was over (`tokens.grant_ttl`).
    Expired,
    /// Nobody renewed it for too long (`tokens.refresh_ttl`).
    Idle,
}

impl EndReason {
    /// All of them.
    pub const ALL: [Self; 12] = [
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
        Self::Expired,
        Self::Idle,
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
            Self::Expired => "expired",
            Self::Idle => "idle",
        }
    }
}

impl Grant {
    /// Whether its tokens may be good at `now`. Idle life is the refresh token's affair.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.ended.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    /// Why it is over at `now`, if it is. `renewed` is since when its refresh token lives, where it has one; `usable_until` is the end of the last
    /// access token. What nobody can use or renew any more is idle, for it stays so.
    pub fn run_out(&self, renewed: Option<Moment>, usable_until: Option<Timestamp>, idle: Duration, now: Moment) -> Option<EndReason> {
        if let Some(ended) = self.ended {
            return Some(ended.reason);
        }
        if self.expires_at.is_some_and(|end| end <= now.wall) {
            return Some(EndReason::Expired);
        }
        let is_renewable = renewed.is_some_and(|renewed| now.age_of(&renewed) < idle);
        let is_usable = usable_until.is_some_and(|end| now.wall < end);
        (!is_renewable && !is_usable).then_some(EndReason::Idle)
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
    /// Authorization requests of all apps must be pushed.
    pub require_par: bool,
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
    use crate::clock::BootId;

    fn granted(created_at: Timestamp) -> Grant {
        Grant {
            id: Id::from_bytes([3; 16]),
            app: Id::from_bytes([2; 16]),
            user: None,
            scope: Scope::default(),
            created_at,
            expires_at: None,
            ended: None,
            binding: None,
            made_by: MadeBy::Consent,
        }
    }

    #[test]
    fn r10_a_grant_is_over_when_its_time_is_or_when_nobody_can_use_or_renew_it() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1_000);
        let now = |seconds: u64| Moment { wall: at(seconds as i64), boot: Duration::from_secs(seconds), boot_id: BootId(1) };
        let idle = Duration::from_secs(100);
        let grant = granted(at(0));
        let over = |renewed: Option<u64>, until: Option<i64>, seconds| grant.run_out(renewed.map(now), until.map(at), idle, now(seconds));
        assert_eq!([99, 100].map(|seconds| over(Some(0), None, seconds)), [None, Some(EndReason::Idle)]);
        assert_eq!([199, 200].map(|seconds| over(Some(0), Some(200), seconds)), [None, Some(EndReason::Idle)], "an access token is left");
        assert_eq!([49, 50].map(|seconds| over(None, Some(50), seconds)), [None, Some(EndReason::Idle)], "one without refresh tokens");
        let ahead = Moment { wall: at(1_000_000), ..now(99) };
        assert_eq!(grant.run_out(Some(now(0)), None, idle, ahead), None, "idle life is an age");
        let bounded = Grant { expires_at: Some(at(60)), ..granted(at(0)) };
        let over = |seconds| bounded.run_out(Some(now(50)), Some(at(90)), idle, now(seconds));
        assert_eq!([59, 60].map(over), [None, Some(EndReason::Expired)]);
        let restored = Grant { ended: Some(Ended { at: at(0), reason: EndReason::Restored }), ..granted(at(0)) };
        assert_eq!(restored.run_out(Some(now(0)), None, idle, now(1)), Some(EndReason::Restored));
    }

    #[test]
    fn k3_a_token_from_the_future_is_refused_but_for_a_small_skew() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1_000);
        assert!(is_in_its_time(at(100), at(200), at(100)) && is_in_its_time(at(100), at(200), at(199)));
        assert!(!is_in_its_time(at(100), at(200), at(200)));
        assert!(is_in_its_time(at(100), at(200), at(90)), "10 s ahead");
        assert!(!is_in_its_time(at(100), at(200), at(39)), "61 s ahead");
    }
}
