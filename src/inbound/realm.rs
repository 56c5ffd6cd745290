//! Realms: IB apps that sign people in. A realm has roles, and a person belongs to it who holds one of them there.
//!
//! Roles are the realm's own words, for its application; they give no right over this instance. So whoever only holds roles can allow no
//! link, and whoever has rights here signs in to a realm in the browser alone: a password with rights behind it is for no application's
//! eyes (RFC 9700 §2.4).

use std::time::Duration;

use super::consent::Refusal;
use super::ib_app::{GrantType, IbApp};
use super::permission::APPROVE_LINKS;
use super::security::Security;
use super::user::User;
use crate::clock::Timestamp;
use crate::id::Id;
use crate::oauth::rotation::Rotation;
use crate::oauth::scope::Scope;
use crate::oauth::visible::is_hidden;

/// The life of a realm's access tokens, where nothing else is said: half a day, onesait's.
pub const TOKEN_VALIDITY: Duration = Duration::from_secs(43_200);

/// The one scope of a realm: that somebody is signed in. It need not stand in `[scopes]`.
pub const SCOPE: &str = "openid";

/// What a realm may use.
const GRANTS: [GrantType; 3] = [GrantType::AuthorizationCode, GrantType::RefreshToken, GrantType::Password];

/// A realm with its roles, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realm {
    /// The IB app that it is.
    pub app: IbApp,
    /// What it is for, in words.
    pub description: String,
    /// Its roles.
    pub roles: Vec<Role>,
}

/// A role in a realm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its name, unique in the realm.
    pub name: String,
    /// What it is for, in words.
    pub description: String,
    /// The logins of who holds it.
    pub holders: Vec<String>,
}

/// The IB app that a new realm is. Its identification is its name and its `client_id`.
pub fn app(id: Id, tenant: String, identification: String, now: Timestamp) -> IbApp {
    IbApp {
        id,
        tenant,
        name: identification.clone(),
        client_id: identification,
        redirect_uris: Vec::new(),
        grants: GRANTS.into(),
        scope: SCOPE.parse::<Scope>().expect("a constant scope"),
        access_ttl: Some(TOKEN_VALIDITY),
        // One use, as onesait's clients expect.
        rotation: Some(Rotation::Strict),
        native: false,
        security: Security::default(),
        created_at: now,
    }
}

/// Whether a realm may be called so: 1 to 50 letters, digits, `_` and `-`.
pub fn is_identification(text: &str) -> bool {
    (1..=50).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Whether a role may be called so: 1 to 128 characters that show, with no space at either end.
pub fn is_role_name(text: &str) -> bool {
    (1..=128).contains(&text.chars().count()) && !text.chars().any(is_hidden) && text.trim() == text
}

/// Whether that may stand as a description: at most 255 characters that show.
pub fn is_description(text: &str) -> bool {
    text.chars().count() <= 255 && !text.chars().any(is_hidden)
}

/// Whether `person` may allow what `app` asks. To a realm somebody signs in who belongs to it, whatever else they may do here; a link is
/// allowed by who holds that right, for which a role in some realm does not count.
///
/// # Errors
/// Why not.
pub fn may_allow(app: &IbApp, person: &User, is_member: bool) -> Result<(), Refusal> {
    match app.is_realm() {
        true if is_member => Ok(()),
        true => Err(Refusal::NotAMember),
        false if person.may(&app.tenant, APPROVE_LINKS) => Ok(()),
        false => Err(Refusal::MayNotApprove),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::contradiction;

    #[test]
    fn what_a_realm_and_a_role_may_be_called() {
        for good in ["TestRealm", "a", "_-9", &"x".repeat(50)] {
            assert!(is_identification(good), "{good}");
        }
        for bad in ["", "a b", "a.b", "a@b", "ä", "a:b", &"x".repeat(51)] {
            assert!(!is_identification(bad), "{bad}");
        }
        for good in ["ROLE_TEST", "Data scientist", "ä", &"x".repeat(128)] {
            assert!(is_role_name(good), "{good}");
        }
        for bad in ["", " a", "a ", "a\nb", "a\u{202e}b", &"x".repeat(129)] {
            assert!(!is_role_name(bad), "{bad}");
        }
        assert!(is_description("") && is_description(&"ä".repeat(255)) && !is_description(&"a".repeat(256)) && !is_description("a\u{0}"));
    }

    #[test]
    fn a_realm_is_an_app_of_one_scope_that_signs_in_by_code_or_password() {
        let realm = app(Id::from_bytes([1; 16]), "default".into(), "TestRealm".into(), Timestamp::from_millis(7));
        assert!(realm.is_realm() && realm.may_use(GrantType::AuthorizationCode) && realm.may_use(GrantType::RefreshToken));
        assert!(!realm.may_use(GrantType::ClientCredentials), "it has nothing of its own to act on");
        assert_eq!((realm.scope.to_string(), realm.access_ttl), ("openid".to_owned(), Some(Duration::from_secs(43_200))));
        let said = contradiction::Said { has_secret: true, ..contradiction::Said::default() };
        assert_eq!(contradiction::check(&realm, Rotation::Strict, &said), Ok(()));
    }

    #[test]
    fn roles_allow_signing_in_and_rights_allow_links_and_neither_does_the_other() {
        let person = |permissions: &[&str], is_admin| User {
            id: Id::from_bytes([2; 16]),
            login: "alice".into(),
            password: None,
            is_admin,
            permissions: [("default".to_owned(), permissions.iter().map(|held| (*held).to_owned()).collect())].into(),
            roles: Vec::new(),
            api_keys: 0,
            created_at: Timestamp::from_millis(0),
        };
        let realm = app(Id::from_bytes([1; 16]), "default".into(), "TestRealm".into(), Timestamp::from_millis(7));
        let link = IbApp { grants: GrantType::OF_A_LINK.into(), ..realm.clone() };
        let (alice, clerk, ops) = (person(&[], false), person(&[APPROVE_LINKS], false), person(&[], true));
        for (who, is_member, to_realm, to_link) in [
            (&alice, true, true, false),
            (&alice, false, false, false),
            (&clerk, false, false, true),
            (&clerk, true, true, true),
            (&ops, false, false, true),
        ] {
            let expected =
                (if to_realm { Ok(()) } else { Err(Refusal::NotAMember) }, if to_link { Ok(()) } else { Err(Refusal::MayNotApprove) });
            let may = (may_allow(&realm, who, is_member), may_allow(&link, who, is_member));
            assert_eq!(may, expected, "{:?} {is_member}", who.permissions);
        }
    }
}
