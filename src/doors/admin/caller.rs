//! Who uses the admin API, and what they may do with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::error::AdminError;

/// The permission that holds all others.
pub const ADMIN: &str = "admin";

/// Who asks; authenticated before any handler runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A process on this host, by the socket's peer credentials: root, the daemon's own user, or a member of the admin group.
    Process {
        /// Its user.
        uid: u32,
    },
    /// A person, by an API key.
    Person {
        /// The login.
        login: String,
        /// Rules the whole instance.
        is_admin: bool,
        /// What it may do in which tenant.
        permissions: BTreeMap<String, BTreeSet<String>>,
    },
}

impl Caller {
    /// Whether this may do what needs `permission` in `tenant`.
    ///
    /// # Errors
    /// 404 for a person who has nothing to do with the tenant (as if there were none), 403 for one who lacks the permission there.
    pub fn must_hold(&self, tenant: &str, permission: &str) -> Result<(), AdminError> {
        match self {
            Self::Process { .. } | Self::Person { is_admin: true, .. } => Ok(()),
            Self::Person { permissions, .. } => match permissions.get(tenant) {
                None => Err(AdminError::not_found("tenant", tenant)),
                Some(held) if held.contains(ADMIN) || held.contains(permission) => Ok(()),
                Some(_) => Err(AdminError::forbidden(permission)),
            },
        }
    }

    /// Whether this rules the whole instance. URLs that anybody else gives may not lead into private networks.
    pub const fn rules_instance(&self) -> bool {
        matches!(self, Self::Process { .. } | Self::Person { is_admin: true, .. })
    }

    /// Whether this may do what concerns the whole instance.
    ///
    /// # Errors
    /// 403 for everybody but processes and instance admins.
    pub fn must_rule_instance(&self) -> Result<(), AdminError> {
        if self.rules_instance() { Ok(()) } else { Err(AdminError::forbidden("admin of the instance")) }
    }
}

impl fmt::Display for Caller {
    /// As the audit names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { uid } => write!(f, "uid {uid}"),
            Self::Person { login, .. } => f.write_str(login),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AdminError> {
        // Whoever serves this router puts the caller in; a router that is served without one must not let anybody pass.
        parts.extensions.get::<Self>().cloned().ok_or_else(|| AdminError::forbidden(ADMIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(tenant: &str, permission: &str) -> Caller {
        let permissions = [(tenant.to_owned(), [permission.to_owned()].into())].into();
        Caller::Person { login: "a@example.com".into(), is_admin: false, permissions }
    }

    #[test]
    fn permissions_hold_in_their_tenant_only() {
        assert_eq!(person("sales", "peers.get").must_hold("sales", "peers.get"), Ok(()));
        assert_eq!(person("sales", ADMIN).must_hold("sales", "peers.delete"), Ok(()));
        assert_eq!(person("sales", "peers.get").must_hold("sales", "peers.delete").map_err(|error| error.code), Err("forbidden"));
        assert_eq!(person("sales", ADMIN).must_hold("default", "peers.get").map_err(|error| error.code), Err("not_found"));
        assert!(person("default", ADMIN).must_rule_instance().is_err());
    }
}
