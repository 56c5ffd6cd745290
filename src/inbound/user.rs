//! People who rule an instance, or allow links for it.

use std::collections::{BTreeMap, BTreeSet};

use super::password::PasswordHash;
use crate::clock::Timestamp;
use crate::id::Id;
use crate::oauth::visible::is_hidden;
use crate::secret::Digest;

/// Holds every permission in its tenant.
pub const ADMIN: &str = "admin";

/// May allow links to the tenant's IB apps.
pub const APPROVE_LINKS: &str = "links.approve";

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
    /// What the person may do, by tenant.
    pub permissions: BTreeMap<String, BTreeSet<String>>,
    /// The digest of the key for the admin API.
    pub api_key: Option<Digest>,
    /// When the person was added.
    pub created_at: Timestamp,
}

impl User {
    /// Whether the person may do what needs `permission` in `tenant`.
    pub fn may(&self, tenant: &str, permission: &str) -> bool {
        self.is_admin || self.permissions.get(tenant).is_some_and(|held| held.contains(ADMIN) || held.contains(permission))
    }
}

/// Why a login or a permission cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUser {
    /// The login is empty, too long, or has characters that HTTP Basic or a log line could not carry.
    #[error(
        "found the login {0:?}, expected 1 to 128 characters without spaces, colons, and characters that do not show or turn the text around them"
    )]
    Login(String),
    /// There is no such permission.
    #[error("found the permission {0:?}, expected {list}", list = permissions_in_words())]
    Permission(String),
}

/// Checks a new login.
///
/// # Errors
/// [`BadUser::Login`]
pub fn check_login(login: &str) -> Result<(), BadUser> {
    let is_good = |character: char| !character.is_whitespace() && !is_hidden(character) && character != ':';
    if (1..=128).contains(&login.chars().count()) && login.chars().all(is_good) { Ok(()) } else { Err(BadUser::Login(login.to_owned())) }
}

/// Permissions without a record.
const SINGLE: [&str; 3] = [ADMIN, "links.approve", "peers.call"];

/// Records that permissions are about; OB apps have two names.
const RECORDS: [&str; 8] = ["tenants.oauth_clients", "ib_apps", "ob_apps", "components", "peers", "realms", "callers", "grants"];

/// What may be done with a record.
const VERBS: [&str; 5] = ["get", "create", "edit", "delete", "read_secret"];

/// Checks the name of a permission that is given to somebody: what nothing asks for would grant nothing, and hide a slip of the pen.
///
/// # Errors
/// [`BadUser::Permission`]
pub fn check_permission(permission: &str) -> Result<(), BadUser> {
    let of_record = |(record, verb): (&str, &str)| RECORDS.contains(&record) && VERBS.contains(&verb);
    let is_known = SINGLE.contains(&permission) || permission.rsplit_once('.').is_some_and(of_record);
    if is_known { Ok(()) } else { Err(BadUser::Permission(permission.to_owned())) }
}

/// All permissions in one line, for people.
pub fn permissions_in_words() -> String {
    format!("{}, or one of {} with .{}", SINGLE.join(", "), RECORDS.join(", "), VERBS.join(", ."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(is_admin: bool, permissions: &[(&str, &str)]) -> User {
        let mut held: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (tenant, permission) in permissions {
            held.entry((*tenant).to_owned()).or_default().insert((*permission).to_owned());
        }
        let id = Id::from_bytes([1; 16]);
        let created_at = Timestamp::from_millis(0);
        User { id, login: "a@example.com".to_owned(), password: None, is_admin, permissions: held, api_key: None, created_at }
    }

    #[test]
    fn permissions_hold_in_their_tenant() {
        assert!(user(true, &[]).may("sales", APPROVE_LINKS));
        assert!(user(false, &[("sales", ADMIN)]).may("sales", APPROVE_LINKS));
        assert!(user(false, &[("sales", APPROVE_LINKS)]).may("sales", APPROVE_LINKS));
        assert!(!user(false, &[("sales", APPROVE_LINKS)]).may("sales", "peers.edit"));
        assert!(!user(false, &[("sales", ADMIN)]).may("default", APPROVE_LINKS));
    }

    #[test]
    fn what_is_no_login_or_permission_is_refused() {
        for login in ["ops@two.example.com", "jürgen", "a"] {
            assert_eq!(check_login(login), Ok(()));
        }
        for login in ["", "a b", "a:b", "a\n", "a\u{202e}b", "a\u{200b}b", "\u{feff}a", "a\u{ad}", &"x".repeat(129)] {
            assert!(check_login(login).is_err(), "{login:?}");
        }
        for permission in ["admin", "links.approve", "peers.call", "tenants.oauth_clients.get", "ib_apps.read_secret", "grants.delete"] {
            assert_eq!(check_permission(permission), Ok(()));
        }
        for permission in ["", ".", "links.", "Links", "links approve", "nonsense", "peers.nonsense", "nonsense.get", "tenants.get"] {
            assert!(check_permission(permission).is_err(), "{permission:?}");
        }
    }
}
