//! Who uses the admin API, and what they may do with it.

use std::fmt;

use axum::extract::FromRequestParts;
use http::StatusCode;
use http::request::Parts;

use super::error::AdminError;
use crate::audit::Actor;
use crate::inbound::permission::{self, ADMIN, Rights};

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
        /// What the person may do with that key.
        rights: Rights,
    },
}

impl Caller {
    /// Whether this holds `permission` in `tenant`.
    pub fn holds(&self, tenant: &str, permission: &str) -> bool {
        match self {
            Self::Process { .. } => true,
            Self::Person { rights, .. } => rights.hold(tenant, permission),
        }
    }

    /// Whether this may do what needs `permission` in `tenant`.
    ///
    /// # Errors
    /// 404 for a person who has nothing to do with the tenant (as if there were none), 403 for one who lacks the permission there.
    pub fn must_hold(&self, tenant: &str, permission: &str) -> Result<(), AdminError> {
        match self {
            Self::Person { rights, .. } if !rights.know(tenant) => Err(AdminError::not_found("tenant", tenant)),
            _ if self.holds(tenant, permission) => Ok(()),
            // Of what no permission is about, an admin may try.
            _ if permission::check(permission).is_err() => Err(AdminError::forbidden(format!("an admin of the tenant {tenant:?}"))),
            _ => Err(AdminError::forbidden(format!("the permission {permission} in the tenant {tenant:?}, or an admin of it"))),
        }
    }

    /// Whether this may give `permissions` in `tenant` to somebody, or to a role: nobody gives what they do not hold themselves.
    ///
    /// # Errors
    /// 403 for the first that this does not hold.
    pub fn must_be_able_to_give<'a>(&self, tenant: &str, permissions: impl IntoIterator<Item = &'a String>) -> Result<(), AdminError> {
        let Some(lacking) = permissions.into_iter().find(|permission| !self.holds(tenant, permission)) else { return Ok(()) };
        let error = AdminError::new(StatusCode::FORBIDDEN, "forbidden", "you may not give what you do not hold yourself");
        Err(error.found(lacking).expected("permissions that you hold").next("ask somebody who holds it, or an admin"))
    }

    /// As the audit keeps it.
    pub fn actor(&self) -> Actor {
        match self {
            Self::Process { uid } => Actor::Process { uid: *uid },
            Self::Person { login, .. } => Actor::ApiKey { login: login.clone() },
        }
    }

    /// The tenants that this rules; `None` is all of them, and the instance.
    pub fn ruled_tenants(&self) -> Option<Vec<String>> {
        match self {
            Self::Process { .. } => None,
            Self::Person { rights, .. } if rights.rule_instance() => None,
            Self::Person { rights, .. } => Some(rights.by_tenant.keys().filter(|tenant| rights.hold(tenant, ADMIN)).cloned().collect()),
        }
    }

    /// Whether this rules the whole instance. URLs that anybody else gives may not lead into private networks.
    pub fn rules_instance(&self) -> bool {
        match self {
            Self::Process { .. } => true,
            Self::Person { rights, .. } => rights.rule_instance(),
        }
    }

    /// Whether this may do what concerns the whole instance.
    ///
    /// # Errors
    /// 403 for everybody but processes and instance admins.
    pub fn must_rule_instance(&self) -> Result<(), AdminError> {
        if self.rules_instance() { Ok(()) } else { Err(AdminError::forbidden("an admin of the instance: --admin, without a tenant")) }
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
        parts.extensions.get::<Self>().cloned().ok_or_else(|| AdminError::forbidden("an admin"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(tenant: &str, permission: &str) -> Caller {
        let by_tenant = [(tenant.to_owned(), [permission.to_owned()].into())].into();
        Caller::Person { login: "a@example.com".into(), rights: Rights { by_tenant, ..Rights::default() } }
    }

    #[test]
    fn permissions_hold_in_their_tenant_only() {
        assert_eq!(person("sales", "peers.get").must_hold("sales", "peers.get"), Ok(()));
        assert_eq!(person("sales", ADMIN).must_hold("sales", "peers.delete"), Ok(()));
        assert_eq!(person("sales", "peers.get").must_hold("sales", "peers.delete").map_err(|error| error.code), Err("forbidden"));
        assert_eq!(person("sales", ADMIN).must_hold("default", "peers.get").map_err(|error| error.code), Err("not_found"));
        assert!(person("default", ADMIN).must_rule_instance().is_err());
        let needed = |permission| person("sales", "peers.get").must_hold("sales", permission).expect_err(permission).expected;
        assert_eq!(needed("peers.edit").as_deref(), Some("the permission peers.edit in the tenant \"sales\", or an admin of it"));
        assert_eq!(needed("users.get").as_deref(), Some("an admin of the tenant \"sales\""), "there is no such permission");
    }

    #[test]
    fn nobody_gives_what_they_do_not_hold() {
        let given = ["peers.get".to_owned()];
        assert_eq!(person("sales", "peers.get").must_be_able_to_give("sales", &given), Ok(()));
        assert_eq!(person("sales", ADMIN).must_be_able_to_give("sales", &["admin".to_owned()]), Ok(()));
        for (tenant, held) in [("sales", "peers.edit"), ("default", "peers.get")] {
            let refused = person(tenant, held).must_be_able_to_give("sales", &given).expect_err(held);
            assert_eq!((refused.code, refused.found.as_deref()), ("forbidden", Some("peers.get")));
        }
        assert!(person("sales", "roles.edit").must_be_able_to_give("sales", &["admin".to_owned()]).is_err());
    }
}
