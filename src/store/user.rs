//! Rows of users.

use std::collections::BTreeSet;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{from_json, json};
use super::{Fault, Transaction, ib_app, session};
use crate::id::Id;
use crate::inbound::password::PasswordHash;
use crate::inbound::role::HeldRole;
use crate::inbound::user::User;

const INSERT: &str =
    "INSERT INTO user (id, login, password, admin, permissions, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (login) DO NOTHING";
const UPDATE: &str = "UPDATE user SET login = ?2, password = ?3, admin = ?4, permissions = ?5 WHERE id = ?1";
const DELETE: &str = "UPDATE user SET login = NULL, password = NULL, admin = 0, permissions = '{}', purge_at = ?2
    WHERE id = ?1 AND purge_at IS NULL";
/// What a person has few of, beside the sessions. Grants and codes, which may be many, are the purge's.
const FORGET: [&str; 3] =
    ["DELETE FROM api_key WHERE user = ?1", "DELETE FROM held_role WHERE user = ?1", "DELETE FROM realm_member WHERE user = ?1"];
const OTHER_ADMINS: &str = "SELECT EXISTS (SELECT 1 FROM user WHERE admin = 1 AND id <> ?1)";

/// A statement that reads users, with the roles that they hold as they are now and the number of their keys.
macro_rules! select {
    ($($rest:literal)?) => {
        concat!(
            "SELECT id, login, password, admin, permissions, created_at,
                (SELECT json_group_array(json_array(held.tenant, role.name, lower(hex(role.id)), json(role.permissions)))
                    FROM held_role held JOIN role ON role.id = held.role WHERE held.user = user.id),
                (SELECT count(*) FROM api_key WHERE api_key.user = user.id)
            FROM user "
            $(, $rest)?
        )
    };
}

const BY_ID: &str = select!("WHERE id = ?1 AND purge_at IS NULL");
const BY_LOGIN: &str = select!("WHERE login = ?1");
const ALL: &str = select!("WHERE purge_at IS NULL ORDER BY login");

/// Adds a user, who holds no role yet; false when the login is taken, by another user or as the `client_id` of an app that may act for itself: either may be
/// the subject of a token, and no application is to take one for the other (RFC 9700 §4.15).
pub fn insert(transaction: &Transaction<'_>, user: &User) -> Result<bool, Fault> {
    if ib_app::by_client_id(transaction, &user.login)?.is_some_and(|app| !app.is_realm()) {
        return Ok(false);
    }
    let row = params![
        user.id,
        user.login,
        user.password.as_ref().map(PasswordHash::as_str),
        user.is_admin,
        json(&user.permissions),
        user.created_at
    ];
    Ok(transaction.prepare_cached(INSERT)?.execute(row)? == 1)
}

/// Writes all that can change of a user who exists, but for roles and keys, which have rows of their own.
pub fn update(transaction: &Transaction<'_>, user: &User) -> Result<(), Fault> {
    let password = user.password.as_ref().map(PasswordHash::as_str);
    let row = params![user.id, user.login, password, user.is_admin, json(&user.permissions)];
    transaction.prepare_cached(UPDATE)?.execute(row)?;
    Ok(())
}

/// Deletes a user, and with it the sessions, keys and roles: nothing finds it any more, and its login is free. What it had allowed stays, without
/// who allowed it; the row goes once the purge has taken it from all of that. False when there is no such user.
pub fn delete(transaction: &Transaction<'_>, id: Id) -> Result<bool, Fault> {
    session::delete_of_user(transaction, id)?;
    for sql in FORGET {
        transaction.prepare_cached(sql)?.execute([id])?;
    }
    Ok(transaction.prepare_cached(DELETE)?.execute(params![id, transaction.now().wall])? == 1)
}

/// The user with that id.
pub fn by_id(connection: &Connection, id: Id) -> Result<Option<User>, Fault> {
    Ok(connection.prepare_cached(BY_ID)?.query_row([id], read).optional()?)
}

/// The user with that login, byte-exact.
pub fn by_login(connection: &Connection, login: &str) -> Result<Option<User>, Fault> {
    Ok(connection.prepare_cached(BY_LOGIN)?.query_row([login], read).optional()?)
}

/// Whether anybody but this one rules the instance.
pub fn other_admins(connection: &Connection, id: Id) -> Result<bool, Fault> {
    Ok(connection.prepare_cached(OTHER_ADMINS)?.query_row([id], |row| row.get(0))?)
}

/// All users, by login.
pub fn all(connection: &Connection) -> Result<Vec<User>, Fault> {
    Ok(connection.prepare_cached(ALL)?.query_map([], read)?.collect::<Result<_, _>>()?)
}

fn read(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: row.get(0)?,
        login: row.get(1)?,
        password: row.get::<_, Option<String>>(2)?.map(PasswordHash::from_stored),
        is_admin: row.get(3)?,
        permissions: from_json(row, 4)?,
        created_at: row.get(5)?,
        roles: roles(row, 6)?,
        api_keys: row.get(7)?,
    })
}

fn roles(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<HeldRole>> {
    let listed: Vec<(String, String, String, BTreeSet<String>)> = from_json(row, column)?;
    let held = listed.into_iter().map(|(tenant, name, id, permissions)| {
        let role = id.parse().map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))?;
        Ok(HeldRole { tenant, name, role, permissions })
    });
    let mut held: Vec<_> = held.collect::<rusqlite::Result<_>>()?;
    held.sort();
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::inbound::permission::APPROVE_LINKS;
    use crate::store::temporary;

    fn user(number: u8, login: &str) -> User {
        User {
            id: Id::from_bytes([number; 16]),
            login: login.to_owned(),
            password: Some(PasswordHash::from_stored("$argon2id$".to_owned())),
            is_admin: false,
            permissions: [("default".to_owned(), [APPROVE_LINKS.to_owned()].into())].into(),
            roles: Vec::new(),
            api_keys: 0,
            created_at: Timestamp::from_millis(7),
        }
    }

    #[tokio::test]
    async fn no_client_is_called_like_a_person_nor_a_person_like_a_client() {
        let (_directory, store) = temporary();
        let judge = |transaction: &Transaction<'_>| {
            let app = crate::store::sample::app();
            assert!(insert(transaction, &user(1, "ops@example.com"))?);
            let like_a_person = crate::inbound::ib_app::IbApp { client_id: "ops@example.com".to_owned(), ..app.clone() };
            assert!(!ib_app::insert(transaction, &like_a_person)?);
            assert!(ib_app::insert(transaction, &app)?);
            assert!(!insert(transaction, &user(2, &app.client_id))?);
            // A realm never acts for itself.
            let realm = crate::inbound::realm::app(Id::from_bytes([9; 16]), "default".into(), "bob".into(), Timestamp::from_millis(1));
            assert!(insert(transaction, &user(3, "bob"))? && ib_app::insert(transaction, &realm)?);
            let other = crate::inbound::realm::app(Id::from_bytes([10; 16]), "default".into(), "eve".into(), Timestamp::from_millis(1));
            assert!(ib_app::insert(transaction, &other)? && insert(transaction, &user(4, "eve"))?);
            Ok(())
        };
        store.write(judge).await.expect("judged");
    }

    #[tokio::test]
    async fn a_user_is_read_as_written_and_found_in_two_ways() {
        let (_directory, store) = temporary();
        let mut ops = user(1, "ops@example.com");
        let written = ops.clone();
        assert!(store.write(move |transaction| insert(transaction, &written)).await.expect("written"));
        let taken = user(2, "ops@example.com");
        assert!(!store.write(move |transaction| insert(transaction, &taken)).await.expect("judged"), "the login is taken");
        assert_eq!(store.read(|connection| by_login(connection, "ops@example.com")).await.expect("read"), Some(ops.clone()));
        assert_eq!(store.read(|connection| by_login(connection, "OPS@example.com")).await.expect("read"), None);

        ops.login = "ops2@example.com".to_owned();
        ops.is_admin = true;
        let changed = ops.clone();
        store.write(move |transaction| update(transaction, &changed)).await.expect("written");
        let id = ops.id;
        assert_eq!(store.read(move |connection| by_id(connection, id)).await.expect("read"), Some(ops.clone()));
        assert!(!store.read(move |connection| other_admins(connection, id)).await.expect("read"), "the only one");
        assert_eq!(store.read(all).await.expect("read"), [ops]);
        assert!(store.write(move |transaction| delete(transaction, id)).await.expect("judged"));
        assert!(!store.write(move |transaction| delete(transaction, id)).await.expect("judged"));
    }
}
