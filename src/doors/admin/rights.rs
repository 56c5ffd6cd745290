//! What a request says of somebody's rights, and whether who asks may say it.

use std::collections::BTreeSet;

use http::StatusCode;

use super::{AdminError, Caller};
use crate::id::Id;
use crate::inbound::permission::{self, ADMIN};
use crate::inbound::user::User;
use crate::store::{Fault, Transaction, role as role_rows, tenant as tenant_rows, user as user_rows};

/// Changes of what somebody may do. What is not said stays as it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// Rules the tenant, or without one the instance.
    pub(super) admin: Option<bool>,
    /// In place of those that are held directly.
    pub(super) permissions: Option<Vec<String>>,
    /// Taken away.
    pub(super) remove_permissions: Vec<String>,
    /// Roles in place of those that are held.
    pub(super) roles: Option<Vec<String>>,
    /// Given besides.
    pub(super) add_roles: Vec<String>,
    /// Taken away.
    pub(super) remove_roles: Vec<String>,
}

/// Where the rights are.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The tenant of permissions and roles.
    pub(super) tenant: String,
    /// `admin` means the instance.
    pub(super) admin_is_of_instance: bool,
}

/// Checks the names of permissions.
pub(super) fn check_permissions<'a>(permissions: impl IntoIterator<Item = &'a String>) -> Result<(), AdminError> {
    permissions
        .into_iter()
        .try_for_each(|permission| permission::check(permission))
        .map_err(|error| AdminError::bad_attribute("the permission", format!("{:?}", error.0), permission::in_words()))
}

impl Changes {
    /// Refuses permissions that there are not.
    pub(super) fn checked(self) -> Result<Self, AdminError> {
        check_permissions(self.permissions.iter().flatten().chain(&self.remove_permissions))?;
        Ok(self)
    }

    /// Makes the changes to `user`, and says which roles change hands. Nothing is written yet.
    pub(super) fn apply(
        &self,
        transaction: &Transaction<'_>,
        caller: &Caller,
        place: &Place,
        user: &mut User,
    ) -> Result<Result<Handover, AdminError>, Fault> {
        if tenant_rows::by_name(transaction, &place.tenant)?.is_none() {
            return Ok(Err(AdminError::not_found("tenant", &place.tenant)));
        }
        let held = user.permissions.entry(place.tenant.clone()).or_default();
        let before = held.clone();
        if let Some(permissions) = &self.permissions {
            let stays_admin = held.contains(ADMIN);
            *held = permissions.iter().cloned().chain(stays_admin.then(|| ADMIN.to_owned())).collect();
        }
        held.retain(|permission| !self.remove_permissions.contains(permission));
        match self.admin {
            Some(true) if !place.admin_is_of_instance => drop(held.insert(ADMIN.to_owned())),
            Some(false) if !place.admin_is_of_instance => drop(held.remove(ADMIN)),
            _ => {}
        }
        if let Err(refusal) = caller.must_be_able_to_give(&place.tenant, held.difference(&before)) {
            return Ok(Err(refusal));
        }
        user.permissions.retain(|_, held| !held.is_empty());
        if let Some(admin) = self.admin.filter(|_| place.admin_is_of_instance) {
            if user.is_admin && !admin && !user_rows::other_admins(transaction, user.id)? {
                return Ok(Err(last_admin(&user.login)));
            }
            if let Some(refusal) = (admin && !user.is_admin).then(|| caller.must_rule_instance().err()).flatten() {
                return Ok(Err(refusal));
            }
            user.is_admin = admin;
        }
        self.handover(transaction, caller, place, user)
    }

    fn handover(
        &self,
        transaction: &Transaction<'_>,
        caller: &Caller,
        place: &Place,
        user: &User,
    ) -> Result<Result<Handover, AdminError>, Fault> {
        let known = role_rows::all(transaction, Some(&place.tenant))?;
        let named = |names: &[String]| {
            let find = |name: &String| {
                let role = known.iter().find(|role| role.name == *name || role.id.to_string() == *name);
                let missing = || AdminError::not_found("role", name).next(format!("p2pid --tenant {} role list", place.tenant));
                role.map(|role| role.id).ok_or_else(missing)
            };
            names.iter().map(find).collect::<Result<BTreeSet<Id>, AdminError>>()
        };
        let all = (named(self.roles.as_deref().unwrap_or_default()), named(&self.add_roles), named(&self.remove_roles));
        let (replacing, added, removed) = match all {
            (Ok(replacing), Ok(added), Ok(removed)) => (replacing, added, removed),
            (Err(refusal), ..) | (_, Err(refusal), _) | (.., Err(refusal)) => return Ok(Err(refusal)),
        };
        let before: BTreeSet<Id> = user.roles.iter().filter(|held| held.tenant == place.tenant).map(|held| held.role).collect();
        let mut after = if self.roles.is_some() { replacing } else { before.clone() };
        after.extend(added);
        after.retain(|role| !removed.contains(role));
        let given = known.iter().filter(|role| after.contains(&role.id) && !before.contains(&role.id));
        if let Err(refusal) = caller.must_be_able_to_give(&place.tenant, given.flat_map(|role| &role.permissions)) {
            return Ok(Err(refusal));
        }
        let given = after.difference(&before).copied().collect();
        Ok(Ok(Handover { tenant: place.tenant.clone(), given, taken: before.difference(&after).copied().collect() }))
    }
}

/// Roles that change hands in a tenant.
#[derive(Debug)]
pub(super) struct Handover {
    tenant: String,
    given: Vec<Id>,
    taken: Vec<Id>,
}

impl Handover {
    /// Writes what changes for the person with this id, whose row is there.
    pub(super) fn write(&self, transaction: &Transaction<'_>, user: Id) -> Result<(), Fault> {
        self.given.iter().try_for_each(|role| role_rows::give(transaction, user, &self.tenant, *role))?;
        self.taken.iter().try_for_each(|role| role_rows::take(transaction, user, &self.tenant, *role))
    }
}

/// 409: without this person nobody would rule the instance.
pub(super) fn last_admin(login: &str) -> AdminError {
    let error = AdminError::new(StatusCode::CONFLICT, "last_admin", format!("{login} is the only admin of the instance"));
    error.found("nobody else with --admin").expected("another one who stays").next("make another one first: p2pid user add LOGIN --admin")
}
