//! Rows of roles, and who holds them.

use rusqlite::{Connection, Row, params};

use super::rows::{from_json, json};
use super::{Fault, Transaction};
use crate::id::Id;
use crate::inbound::role::Role;

const INSERT: &str = "INSERT INTO role (id, tenant, name, permissions, created_at) VALUES (?1, ?2, ?3, ?4, ?5)";
const UPDATE: &str = "UPDATE role SET name = ?2, permissions = ?3 WHERE id = ?1";
const DELETE: &str = "DELETE FROM role WHERE id = ?1";
const IN_TENANT: &str = "SELECT id, tenant, name, permissions, created_at FROM role WHERE tenant = ?1 OR tenant IS NULL ORDER BY name";
const OF_INSTANCE: &str = "SELECT id, tenant, name, permissions, created_at FROM role WHERE tenant IS NULL ORDER BY name";
// What can be held together in a tenant has different names.
const TAKEN: &str = "SELECT EXISTS (SELECT 1 FROM role WHERE name = ?2 AND id <> ?3 AND (?1 IS NULL OR tenant IS NULL OR tenant = ?1))";
const HOLDERS: &str = "SELECT DISTINCT user.login FROM held_role held JOIN user ON user.id = held.user
    WHERE held.role = ?1 AND (?2 IS NULL OR held.tenant = ?2) ORDER BY user.login";
const GIVE: &str = "INSERT INTO held_role (user, tenant, role) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
const TAKE: &str = "DELETE FROM held_role WHERE user = ?1 AND tenant = ?2 AND role = ?3";

/// Adds a role; false when the name is taken, in its tenant or by a role of the instance (which may take no tenant's).
pub fn insert(transaction: &Transaction<'_>, role: &Role) -> Result<bool, Fault> {
    if is_taken(transaction, role)? {
        return Ok(false);
    }
    let row = params![role.id, role.tenant, role.name, json(&role.permissions), role.created_at];
    transaction.prepare_cached(INSERT)?.execute(row)?;
    Ok(true)
}

/// Writes name and permissions of a role that exists; false when the name is taken.
pub fn update(transaction: &Transaction<'_>, role: &Role) -> Result<bool, Fault> {
    if is_taken(transaction, role)? {
        return Ok(false);
    }
    transaction.prepare_cached(UPDATE)?.execute(params![role.id, role.name, json(&role.permissions)])?;
    Ok(true)
}

fn is_taken(connection: &Connection, role: &Role) -> Result<bool, Fault> {
    Ok(connection.prepare_cached(TAKEN)?.query_row(params![role.tenant, role.name, role.id], |row| row.get(0))?)
}

/// Deletes a role; whoever holds it loses what it allows.
pub fn delete(transaction: &Transaction<'_>, id: Id) -> Result<(), Fault> {
    transaction.prepare_cached(DELETE)?.execute([id])?;
    Ok(())
}

/// The roles that can be held in `tenant`, its own and the instance's, by name; without a tenant those of the instance.
pub fn all(connection: &Connection, tenant: Option<&str>) -> Result<Vec<Role>, Fault> {
    Ok(match tenant {
        Some(tenant) => connection.prepare_cached(IN_TENANT)?.query_map([tenant], read)?.collect::<Result<_, _>>()?,
        None => connection.prepare_cached(OF_INSTANCE)?.query_map([], read)?.collect::<Result<_, _>>()?,
    })
}

/// The one of [`all`] with that name or id.
pub fn find(connection: &Connection, tenant: Option<&str>, name: &str) -> Result<Option<Role>, Fault> {
    let id: Option<Id> = name.parse().ok();
    let mut roles = all(connection, tenant)?;
    let place = roles.iter().position(|role| role.name == name).or_else(|| roles.iter().position(|role| Some(role.id) == id));
    Ok(place.map(|place| roles.swap_remove(place)))
}

/// The logins of those who hold a role, in `tenant` or anywhere.
pub fn holders(connection: &Connection, role: Id, tenant: Option<&str>) -> Result<Vec<String>, Fault> {
    Ok(connection.prepare_cached(HOLDERS)?.query_map(params![role, tenant], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// Lets a person hold a role in `tenant`.
pub fn give(transaction: &Transaction<'_>, user: Id, tenant: &str, role: Id) -> Result<(), Fault> {
    transaction.prepare_cached(GIVE)?.execute(params![user, tenant, role])?;
    Ok(())
}

/// Takes a role in `tenant` from a person.
pub fn take(transaction: &Transaction<'_>, user: Id, tenant: &str, role: Id) -> Result<(), Fault> {
    transaction.prepare_cached(TAKE)?.execute(params![user, tenant, role])?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Role> {
    Ok(Role { id: row.get(0)?, tenant: row.get(1)?, name: row.get(2)?, permissions: from_json(row, 3)?, created_at: row.get(4)? })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::clock::Timestamp;
    use crate::store::{sample, temporary, tenant, user};

    fn role(number: u8, tenant: Option<&str>, name: &str, permission: &str) -> Role {
        Role {
            id: Id::from_bytes([number; 16]),
            tenant: tenant.map(str::to_owned),
            name: name.to_owned(),
            permissions: [permission.to_owned()].into(),
            created_at: Timestamp::from_millis(3),
        }
    }

    #[tokio::test]
    async fn what_can_be_held_together_has_different_names() {
        let (_directory, store) = temporary();
        let judge = |transaction: &Transaction<'_>| {
            tenant::insert(transaction, "sales", Timestamp::from_millis(1))?;
            assert!(insert(transaction, &role(1, Some("default"), "reader", "peers.get"))?);
            assert!(insert(transaction, &role(2, Some("sales"), "reader", "ib_apps.get"))?, "another tenant's");
            assert!(!insert(transaction, &role(3, Some("sales"), "reader", "peers.get"))?);
            assert!(!insert(transaction, &role(3, None, "reader", "peers.get"))?);
            assert!(insert(transaction, &role(3, None, "auditor", "peers.get"))?);
            assert!(!insert(transaction, &role(4, Some("sales"), "auditor", "peers.get"))?);
            let names = |tenant| Ok::<_, Fault>(all(transaction, tenant)?.into_iter().map(|role| role.name).collect::<Vec<_>>());
            assert_eq!(
                (names(Some("sales"))?, names(None)?),
                (vec!["auditor".to_owned(), "reader".to_owned()], vec!["auditor".to_owned()])
            );
            assert_eq!(find(transaction, Some("sales"), "reader")?, Some(role(2, Some("sales"), "reader", "ib_apps.get")));
            assert_eq!(find(transaction, Some("sales"), &Id::from_bytes([1; 16]).to_string())?, None, "another tenant's");
            assert!(find(transaction, Some("sales"), &Id::from_bytes([3; 16]).to_string())?.is_some());
            assert!(!update(transaction, &role(2, Some("sales"), "auditor", "peers.get"))?);
            assert!(update(transaction, &role(2, Some("sales"), "writer", "peers.edit"))?);
            assert_eq!(find(transaction, Some("sales"), "writer")?, Some(role(2, Some("sales"), "writer", "peers.edit")));
            Ok(())
        };
        store.write(judge).await.expect("judged");
    }

    #[tokio::test]
    async fn a_role_counts_as_it_is_now_in_the_tenant_where_it_is_held() {
        let (_directory, store) = temporary();
        let judge = |transaction: &Transaction<'_>| {
            tenant::insert(transaction, "sales", Timestamp::from_millis(1))?;
            let person = crate::inbound::user::User { is_admin: false, ..sample::person() };
            assert!(user::insert(transaction, &person)?);
            let reader = role(3, None, "reader", "peers.get");
            assert!(insert(transaction, &reader)?);
            give(transaction, person.id, "sales", reader.id)?;
            give(transaction, person.id, "sales", reader.id)?;
            let held = |connection: &Connection| user::by_id(connection, person.id).map(|user| user.expect("the person"));
            assert!(held(transaction)?.may("sales", "peers.get") && !held(transaction)?.may("default", "peers.get"));
            assert_eq!(held(transaction)?.roles.len(), 1);
            assert_eq!(
                (holders(transaction, reader.id, None)?, holders(transaction, reader.id, Some("default"))?),
                (vec![person.login.clone()], vec![])
            );
            assert!(update(transaction, &Role { permissions: ["ib_apps.get".to_owned()].into(), ..reader.clone() })?);
            assert!(held(transaction)?.may("sales", "ib_apps.get") && !held(transaction)?.may("sales", "peers.get"));
            take(transaction, person.id, "sales", reader.id)?;
            assert!(!held(transaction)?.may("sales", "ib_apps.get"));
            give(transaction, person.id, "sales", reader.id)?;
            delete(transaction, reader.id)?;
            assert_eq!((held(transaction)?.roles, held(transaction)?.rights().by_tenant.len()), (vec![], 0));
            // A tenant takes the rights in it with it: the next of that name is another.
            let own = crate::inbound::user::User {
                permissions: [("sales".to_owned(), BTreeSet::from(["peers.get".to_owned()]))].into(),
                ..person.clone()
            };
            user::update(transaction, &own)?;
            assert_eq!(tenant::delete(transaction, "sales")?, tenant::Deleted::Gone);
            assert_eq!(held(transaction)?.rights().by_tenant.len(), 0);
            Ok(())
        };
        store.write(judge).await.expect("judged");
    }
}
