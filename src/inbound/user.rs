//! People who rule an instance, or allow links for it.

use std::collections::{BTreeMap, BTreeSet};

use super::password::PasswordHash;
use super::permission::Rights;
use super::role::HeldRole;
use crate::clock::Timestamp;
use crate::id::Id;
use crate::oauth::visible::is_hidden;

/// A person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Never used again, even when another person gets the login.
    pub id: Id,
    /// An e-mail address or a user id, unique in the instance, byte-exact.
    pub login: String,
    /// Nobody signs in without one.
    pub password: Option<PasswordHash>,
    /// Rules the whole instance.
    pub is_admin: bool,
    /// What the person may do besides what the roles allow, by tenant.
    pub permissions: BTreeMap<String, BTreeSet<String>>,
    /// The roles that the person holds, as they are now.
    pub roles: Vec<HeldRole>,
    /// How many keys for the admin API the person has.
    pub api_keys: u32,
    /// When the person was added.
    pub created_at: Timestamp,
}

impl User {
    /// Whether the person has any right over this instance or a tenant of it.
    pub fn has_rights(&self) -> bool {
        self.is_admin || self.permissions.values().chain(self.roles.iter().map(|role| &role.permissions)).any(|held| !held.is_empty())
    }

    /// Whether the person is known in `tenant`: by a right or a role there, or by one in a realm of it, of which `realms` names the tenants. Who
    /// is known nowhere is there for every tenant to take in.
    pub fn is_known_in(&self, tenant: &str, realms: BTreeSet<String>) -> bool {
        let mut known = realms;
        known.extend(self.permissions.keys().cloned());
        known.extend(self.roles.iter().map(|held| held.tenant.clone()));
        known.contains(tenant) || known.is_empty() && !self.is_admin
    }

    /// Whether the person may do what needs `permission` in `tenant`.
    pub fn may(&self, tenant: &str, permission: &str) -> bool {
        self.rights().hold(tenant, permission)
    }

    /// What the person may do, all in all.
    pub fn rights(&self) -> Rights {
        let mut by_tenant = self.permissions.clone();
        for held in &self.roles {
            by_tenant.entry(held.tenant.clone()).or_default().extend(held.permissions.iter().cloned());
        }
        Rights { is_admin: self.is_admin, by_tenant, only: None }
    }
}

/// The login is empty, too long, or has characters that HTTP Basic or a log line could not carry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found the login {0:?}, expected {LOGIN_IN_WORDS}")]
pub struct BadLogin(pub String);

/// What a login is, for people.
pub const LOGIN_IN_WORDS: &str = "1 to 128 characters without spaces, colons, and characters that do not show or turn the text around them";

/// Who allowed what somebody allowed that is deleted: nobody is called so, and no client.
pub const DELETED: &str = "(deleted)";

/// Checks a new login.
///
/// # Errors
/// It cannot be one.
pub fn check_login(login: &str) -> Result<(), BadLogin> {
    let is_good = |character: char| !character.is_whitespace() && !is_hidden(character) && character != ':';
    if (1..=128).contains(&login.chars().count()) && login.chars().all(is_good) && login != DELETED {
        Ok(())
    } else {
        Err(BadLogin(login.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::permission::{ADMIN, APPROVE_LINKS};

    fn user(is_admin: bool, permissions: &[(&str, &str)], roles: &[(&str, &[&str])]) -> User {
        let mut held: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (tenant, permission) in permissions {
            held.entry((*tenant).to_owned()).or_default().insert((*permission).to_owned());
        }
        let id = Id::from_bytes([1; 16]);
        let role = |(tenant, permissions): &(&str, &[&str])| HeldRole {
            tenant: (*tenant).to_owned(),
            name: "role".to_owned(),
            role: id,
            permissions: permissions.iter().map(|permission| (*permission).to_owned()).collect(),
        };
        let roles = roles.iter().map(role).collect();
        let created_at = Timestamp::from_millis(0);
        User { id, login: "a@example.com".to_owned(), password: None, is_admin, permissions: held, roles, api_keys: 0, created_at }
    }

    #[test]
    fn permissions_hold_in_their_tenant() {
        for (somebody, tenant, permission, expected) in [
            (user(true, &[], &[]), "sales", APPROVE_LINKS, true),
            (user(false, &[("sales", ADMIN)], &[]), "sales", APPROVE_LINKS, true),
            (user(false, &[("sales", APPROVE_LINKS)], &[]), "sales", APPROVE_LINKS, true),
            (user(false, &[("sales", APPROVE_LINKS)], &[]), "sales", "peers.edit", false),
            (user(false, &[("sales", ADMIN)], &[]), "default", APPROVE_LINKS, false),
            (user(false, &[], &[("sales", &[APPROVE_LINKS])]), "sales", APPROVE_LINKS, true),
            (user(false, &[], &[("sales", &[ADMIN])]), "sales", "peers.edit", true),
            (user(false, &[], &[("sales", &[ADMIN])]), "default", "peers.edit", false),
            (user(false, &[("sales", "peers.get")], &[("sales", &["peers.edit"])]), "sales", "peers.edit", true),
            (user(false, &[("sales", "peers.get")], &[("sales", &["peers.edit"])]), "sales", "peers.get", true),
        ] {
            assert_eq!(somebody.may(tenant, permission), expected, "{somebody:?}");
            assert_eq!(somebody.rights().hold(tenant, permission), expected, "{somebody:?}");
        }
    }

    #[test]
    fn who_is_known_elsewhere_alone_is_nobody_here() {
        let realms = |tenants: &[&str]| tenants.iter().map(|tenant| (*tenant).to_owned()).collect::<BTreeSet<_>>();
        for (somebody, realm_roles, expected) in [
            (user(false, &[], &[]), &[][..], true),
            (user(false, &[("sales", ADMIN)], &[]), &[], true),
            (user(false, &[], &[("sales", &[])]), &[], true),
            (user(false, &[], &[]), &["sales"], true),
            (user(false, &[("other", ADMIN)], &[("sales", &[])]), &["third"], true),
            (user(false, &[("other", APPROVE_LINKS)], &[]), &[], false),
            (user(false, &[], &[("other", &[])]), &[], false),
            (user(false, &[], &[]), &["other"], false),
            (user(true, &[], &[]), &[], false),
            (user(true, &[], &[]), &["sales"], true),
        ] {
            assert_eq!(somebody.is_known_in("sales", realms(realm_roles)), expected, "{somebody:?} {realm_roles:?}");
        }
    }

    #[test]
    fn what_is_no_login_is_refused() {
        for login in ["ops@two.example.com", "jürgen", "a"] {
            assert_eq!(check_login(login), Ok(()));
        }
        for login in ["(deleted)", "", "a b", "a:b", "a\n", "a\u{202e}b", "a\u{200b}b", "\u{feff}a", "a\u{ad}", &"x".repeat(129)] {
            assert!(check_login(login).is_err(), "{login:?}");
        }
    }
}
