//! The password grant (RFC 6749 §4.3), for realms alone: an application hands in somebody's name and password and gets tokens.
//!
//! RFC 9700 §2.4 forbids it, since it shows a person's password to an application. It is served where an instance says so, to realms, whose
//! applications know no other way; and only for people who have no right over this instance: what such an application learns opens nothing
//! here but the realm itself.
//!
//! Whoever cannot be signed in is treated as nobody: the password is compared to nobody's hash, and is not found right. So an unknown name, a
//! wrong password, a person without a role in the realm, and a person with rights here are one refusal, in the same time, counted alike.

use super::code::Materials;
use super::grant::{Grant, MadeBy, NewAccess, Policy};
use super::ib_app::{GrantType, IbApp};
use super::password::PasswordHash;
use super::user::User;
use crate::clock::Timestamp;
use crate::oauth::scope::Scope;
use crate::secret::SecretString;

/// Why nobody is signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The app is no realm: `unauthorized_client`.
    #[error("the application may not use this grant type")]
    GrantType,
    /// `invalid_scope`
    #[error("the application is not registered for every scope that it asks for")]
    Scope,
    /// `invalid_grant`, whatever of it is wrong.
    #[error("the user name or the password is wrong, or the user does not belong to this realm")]
    Credentials,
}

/// Somebody who is named at a realm, as far as is known.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// The person of that name.
    pub person: Option<User>,
    /// Whether the person holds a role in the realm.
    pub is_member: bool,
}

impl Named {
    /// Who can be signed in by the password that `self.password()` is of.
    fn eligible(&self) -> Option<(&User, &PasswordHash)> {
        let person = self.person.as_ref().filter(|person| self.is_member && !person.has_rights())?;
        Some((person, person.password.as_ref()?))
    }

    /// What the password is compared to; nobody's when none could sign this person in.
    pub fn password(&self) -> Option<&PasswordHash> {
        self.eligible().map(|(_, password)| password)
    }
}

/// What somebody who was signed in gets.
#[derive(Debug)]
pub struct Issue {
    /// The grant.
    pub grant: Grant,
    /// Its first access token.
    pub access: NewAccess,
    /// Its first refresh token.
    pub refresh: SecretString,
    /// Who it is.
    pub login: String,
}

/// The scope that `app` gets, which has authenticated and asks for `scope`, should somebody be signed in.
///
/// # Errors
/// It may not ask for anybody, or not for that much.
pub fn admit(app: &IbApp, scope: Option<&Scope>) -> Result<Scope, Refusal> {
    if !app.may_use(GrantType::Password) {
        return Err(Refusal::GrantType);
    }
    let scope = scope.unwrap_or(&app.scope);
    if scope.is_within(&app.scope) { Ok(scope.clone()) } else { Err(Refusal::Scope) }
}

/// Judges a sign-in at `app`. `proven` is the hash that the password was found to belong to, if it was: it counts for who has it still, and may
/// still be signed in.
///
/// # Errors
/// Nobody is signed in.
pub fn judge(
    app: &IbApp,
    scope: Option<&Scope>,
    named: &Named,
    proven: Option<&PasswordHash>,
    materials: Materials<'_>,
    policy: &Policy,
    now: Timestamp,
) -> Result<Issue, Refusal> {
    let scope = admit(app, scope)?;
    let (person, _) = named.eligible().filter(|(_, password)| proven == Some(*password)).ok_or(Refusal::Credentials)?;
    let Materials { id, fresh, binding } = materials;
    let expires_at = policy.grant_ttl.map(|life| now.plus(life));
    let grant = Grant {
        id,
        app: app.id,
        user: Some(person.id),
        scope: scope.clone(),
        created_at: now,
        expires_at,
        ended: None,
        // An app that authenticates is bound by that already (RFC 9449 §5).
        binding: binding.filter(|_| !app.security.is_confidential()),
        made_by: MadeBy::Password,
    };
    let access = NewAccess::of(fresh, expires_at, 1, scope, policy.access_ttl, now).bound_to(binding);
    Ok(Issue { grant, access, refresh: fresh.refresh.clone(), login: person.login.clone() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::id::Id;
    use crate::inbound::grant::Fresh;
    use crate::inbound::realm;
    use crate::inbound::role::HeldRole;
    use crate::oauth::rotation::Rotation;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn hash(text: &str) -> PasswordHash {
        PasswordHash::from_stored(text.to_owned())
    }

    fn alice() -> User {
        User {
            id: Id::from_bytes([2; 16]),
            login: "alice".into(),
            password: Some(hash("of alice")),
            is_admin: false,
            permissions: Default::default(),
            roles: Vec::new(),
            api_keys: 0,
            created_at: Timestamp::from_millis(0),
        }
    }

    fn app() -> IbApp {
        realm::app(Id::from_bytes([1; 16]), "default".into(), "TestRealm".into(), NOW)
    }

    fn judged(app: &IbApp, scope: Option<&str>, named: &Named, proven: Option<&str>) -> Result<Issue, Refusal> {
        let fresh = Fresh { access: "access".into(), refresh: "refresh".into() };
        let materials = Materials { id: Id::from_bytes([3; 16]), fresh: &fresh, binding: None };
        let policy = Policy {
            access_ttl: realm::TOKEN_VALIDITY,
            refresh_ttl: Duration::from_secs(90),
            grant_ttl: None,
            rotation: Rotation::Strict,
            retry_window: Duration::from_secs(60),
            require_par: false,
        };
        let scope: Option<Scope> = scope.map(|text| text.parse().expect("a scope"));
        judge(app, scope.as_ref(), named, proven.map(hash).as_ref(), materials, &policy, NOW)
    }

    #[test]
    fn t9_who_belongs_to_the_realm_and_knows_the_password_is_signed_in() {
        let named = Named { person: Some(alice()), is_member: true };
        assert_eq!(named.password(), Some(&hash("of alice")));
        for scope in [None, Some("openid")] {
            let issue = judged(&app(), scope, &named, Some("of alice")).expect("signed in");
            let grant = &issue.grant;
            assert_eq!(
                (grant.app, grant.user, grant.made_by, grant.scope.to_string()),
                (app().id, Some(alice().id), MadeBy::Password, "openid".into())
            );
            assert_eq!((issue.access.expires_at, issue.access.generation), (NOW.plus(Duration::from_secs(43_200)), 1));
            assert_eq!(issue.login, "alice");
        }
    }

    #[test]
    fn t9_whoever_is_not_is_nobody_and_all_are_refused_alike() {
        let member = |person| Named { person: Some(person), is_member: true };
        let rights = [("default".to_owned(), ["links.approve".to_owned()].into())].into();
        let permissions = ["peers.get".to_owned()].into();
        let role = HeldRole { tenant: "sales".into(), name: "reader".into(), role: Id::from_bytes([9; 16]), permissions };
        let of_another = hash("of another");
        for (what, named, compared) in [
            ("unknown", Named::default(), None),
            ("in no role", Named { person: Some(alice()), is_member: false }, None),
            ("without a password", member(User { password: None, ..alice() }), None),
            ("ruling the instance", member(User { is_admin: true, ..alice() }), None),
            ("with a right in a tenant", member(User { permissions: rights, ..alice() }), None),
            ("with a right by a role", member(User { roles: vec![role], ..alice() }), None),
            ("with another password meanwhile", member(User { password: Some(of_another.clone()), ..alice() }), Some(&of_another)),
        ] {
            assert_eq!(named.password(), compared, "{what}");
            assert_eq!(judged(&app(), None, &named, Some("of alice")).err(), Some(Refusal::Credentials), "{what}");
            assert_eq!(judged(&app(), None, &named, None).err(), Some(Refusal::Credentials), "{what}");
        }
        assert_eq!(judged(&app(), None, &member(alice()), None).err(), Some(Refusal::Credentials), "a wrong password");
    }

    #[test]
    fn t9_only_a_realm_may_and_for_its_own_scope() {
        let named = Named { person: Some(alice()), is_member: true };
        let link = IbApp { grants: GrantType::ALL.into(), ..app() };
        assert_eq!(judged(&link, None, &named, Some("of alice")).err(), Some(Refusal::GrantType));
        for scope in ["p2pi", "openid p2pi"] {
            assert_eq!(judged(&app(), Some(scope), &named, Some("of alice")).err(), Some(Refusal::Scope), "{scope}");
        }
    }
}
