//! Rows of keys for the admin API.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{from_json, json};
use super::{Fault, Transaction};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::inbound::api_key::{ApiKey, KEPT};
use crate::secret::Digest;

const INSERT: &str = "INSERT INTO api_key (digest, user, name, permissions, created_at, expires_at, last_used_at, purge_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (user, name) DO NOTHING";
const BY_DIGEST: &str = "SELECT digest, user, name, permissions, created_at, expires_at, last_used_at FROM api_key WHERE digest = ?1";
const OF_USER: &str =
    "SELECT digest, user, name, permissions, created_at, expires_at, last_used_at FROM api_key WHERE user = ?1 ORDER BY created_at, name";
const NOTE: &str = "UPDATE api_key SET last_used_at = ?2 WHERE digest = ?1";
const DELETE: &str = "DELETE FROM api_key WHERE user = ?1 AND name = ?2";

/// Adds a key; false when the person has one of that name.
pub fn insert(transaction: &Transaction<'_>, key: &ApiKey) -> Result<bool, Fault> {
    let purge_at = key.expires_at.map(|end| end.plus(KEPT));
    let row = params![
        key.digest,
        key.user,
        key.name,
        key.permissions.as_ref().map(json),
        key.created_at,
        key.expires_at,
        key.last_used_at,
        purge_at
    ];
    Ok(transaction.prepare_cached(INSERT)?.execute(row)? == 1)
}

/// The key with that digest, whether or not it has run out.
pub fn by_digest(connection: &Connection, digest: Digest) -> Result<Option<ApiKey>, Fault> {
    Ok(connection.prepare_cached(BY_DIGEST)?.query_row([digest], read).optional()?)
}

/// The keys of a person, the oldest first.
pub fn of_user(connection: &Connection, user: Id) -> Result<Vec<ApiKey>, Fault> {
    Ok(connection.prepare_cached(OF_USER)?.query_map([user], read)?.collect::<Result<_, _>>()?)
}

/// Writes down that a key was used.
pub fn note_use(transaction: &Transaction<'_>, digest: Digest, now: Timestamp) -> Result<(), Fault> {
    transaction.prepare_cached(NOTE)?.execute(params![digest, now])?;
    Ok(())
}

/// Deletes a person's key of that name; false when there was none.
pub fn delete(transaction: &Transaction<'_>, user: Id, name: &str) -> Result<bool, Fault> {
    Ok(transaction.prepare_cached(DELETE)?.execute(params![user, name])? == 1)
}

fn read(row: &Row<'_>) -> rusqlite::Result<ApiKey> {
    let permissions = match row.get_ref(3)? {
        rusqlite::types::ValueRef::Null => None,
        _ => Some(from_json(row, 3)?),
    };
    Ok(ApiKey {
        digest: row.get(0)?,
        user: row.get(1)?,
        name: row.get(2)?,
        permissions,
        created_at: row.get(4)?,
        expires_at: row.get(5)?,
        last_used_at: row.get(6)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{sample, temporary, user};

    #[tokio::test]
    async fn keys_are_read_as_written_noted_and_revoked_one_by_one() {
        let (_directory, store) = temporary();
        let person = sample::person();
        let key = ApiKey {
            digest: Digest::of("one"),
            user: person.id,
            name: "deploy".to_owned(),
            permissions: Some(["peers.get".to_owned()].into()),
            created_at: Timestamp::from_millis(7),
            expires_at: Some(Timestamp::from_millis(9)),
            last_used_at: None,
        };
        let judge = move |transaction: &Transaction<'_>| {
            assert!(user::insert(transaction, &person)?);
            assert!(insert(transaction, &key)?);
            assert!(!insert(transaction, &ApiKey { digest: Digest::of("two"), ..key.clone() })?, "the name is taken");
            let other = ApiKey { digest: Digest::of("two"), name: "backup".to_owned(), permissions: None, expires_at: None, ..key.clone() };
            assert!(insert(transaction, &other)?);
            note_use(transaction, key.digest, Timestamp::from_millis(8))?;
            let noted = ApiKey { last_used_at: Some(Timestamp::from_millis(8)), ..key.clone() };
            assert_eq!(of_user(transaction, person.id)?, [other.clone(), noted.clone()]);
            assert_eq!(by_digest(transaction, key.digest)?, Some(noted));
            assert_eq!(user::by_id(transaction, person.id)?.map(|user| user.api_keys), Some(2));
            assert!(delete(transaction, person.id, "deploy")? && !delete(transaction, person.id, "deploy")?);
            assert_eq!((by_digest(transaction, key.digest)?, by_digest(transaction, other.digest)?), (None, Some(other.clone())));
            assert!(user::delete(transaction, person.id)?);
            assert_eq!(by_digest(transaction, other.digest)?, None, "a person's keys go with the person");
            Ok(())
        };
        store.write(judge).await.expect("judged");
    }
}
