//! Roles: names for sets of permissions, which people hold in a tenant.

use std::collections::BTreeSet;

use crate::clock::Timestamp;
use crate::id::Id;

/// A role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its identity.
    pub id: Id,
    /// Whose it is; the instance's is for every tenant.
    pub tenant: Option<String>,
    /// Its name: no two that can be held in the same tenant have the same.
    pub name: String,
    /// What those may do who hold it, in the tenant in which they hold it.
    pub permissions: BTreeSet<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A role as somebody holds it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldRole {
    /// The tenant in which it counts.
    pub tenant: String,
    /// The role's name.
    pub name: String,
    /// The role.
    pub role: Id,
    /// What it allows now.
    pub permissions: BTreeSet<String>,
}
