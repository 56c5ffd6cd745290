//! Rows of browser sessions.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Fault, Transaction, user};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::inbound::session::{MOST_OF_A_PERSON, Session};
use crate::inbound::user::User;
use crate::secret::Digest;

const INSERT: &str = "INSERT INTO session (digest, user, epoch, signed_in_at, purge_at) VALUES (?1, ?2, ?3, ?4, ?5)";
const BY_DIGEST: &str = "SELECT digest, user, epoch, signed_in_at, purge_at FROM session WHERE digest = ?1";
const EXTEND: &str = "UPDATE session SET purge_at = ?2 WHERE digest = ?1 AND purge_at < ?2";
const DELETE: &str = "DELETE FROM session WHERE digest = ?1";
/// The one that was begun just now stays, whatever the clock says of the others.
const LIMIT_OF_USER: &str = "DELETE FROM session WHERE digest IN
    (SELECT digest FROM session WHERE user = ?1 ORDER BY digest = ?2 DESC, signed_in_at DESC LIMIT -1 OFFSET ?3)";
const DELETE_OF_USER: &str = "DELETE FROM session WHERE user = ?1";

/// Begins a session of `verified`, the user as it was when its password was found right, in the place of `replaced`; where the user has
/// [`MOST_OF_A_PERSON`] already, the oldest ends. False when the password has changed since, or the user is gone: hashing takes a while, and
/// what ended the sessions meanwhile ended this one too.
pub fn begin(transaction: &Transaction<'_>, session: &Session, verified: &User, replaced: Option<Digest>) -> Result<bool, Fault> {
    if user::by_id(transaction, verified.id)?.is_none_or(|user| user.password != verified.password) {
        return Ok(false);
    }
    if let Some(replaced) = replaced {
        delete(transaction, replaced)?;
    }
    insert(transaction, session)?;
    transaction.prepare_cached(LIMIT_OF_USER)?.execute(params![session.user, session.digest, MOST_OF_A_PERSON])?;
    Ok(true)
}

fn insert(transaction: &Transaction<'_>, session: &Session) -> Result<(), Fault> {
    let row = params![session.digest, session.user, session.epoch, session.signed_in_at, session.expires_at];
    transaction.prepare_cached(INSERT)?.execute(row)?;
    Ok(())
}

/// The session whose cookie has that digest, whether or not it is still live.
pub fn by_digest(connection: &Connection, digest: Digest) -> Result<Option<Session>, Fault> {
    Ok(connection.prepare_cached(BY_DIGEST)?.query_row([digest], read).optional()?)
}

/// Moves a session's end forward.
pub fn extend(transaction: &Transaction<'_>, digest: Digest, expires_at: Timestamp) -> Result<(), Fault> {
    transaction.prepare_cached(EXTEND)?.execute((digest, expires_at))?;
    Ok(())
}

/// Ends a session.
pub fn delete(transaction: &Transaction<'_>, digest: Digest) -> Result<(), Fault> {
    transaction.prepare_cached(DELETE)?.execute([digest])?;
    Ok(())
}

/// Ends all sessions of a user, as a new password does.
pub fn delete_of_user(transaction: &Transaction<'_>, user: Id) -> Result<(), Fault> {
    transaction.prepare_cached(DELETE_OF_USER)?.execute([user])?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session { digest: row.get(0)?, user: row.get(1)?, epoch: row.get(2)?, signed_in_at: row.get(3)?, expires_at: row.get(4)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::password::PasswordHash;
    use crate::store::{Store, temporary};

    async fn person(store: &Store) -> User {
        let person = User {
            id: Id::from_bytes([1; 16]),
            login: "a".to_owned(),
            password: Some(PasswordHash::from_stored("old".to_owned())),
            is_admin: false,
            permissions: std::collections::BTreeMap::new(),
            roles: Vec::new(),
            api_keys: 0,
            created_at: Timestamp::from_millis(0),
        };
        let written = person.clone();
        store.write(move |transaction| user::insert(transaction, &written)).await.expect("written");
        person
    }

    async fn begins(store: &Store, verified: &User) -> Option<Session> {
        let session = Session::new(Digest::of("cookie"), verified.id, store.epoch(), Timestamp::from_millis(1_000));
        let (written, verified) = (session.clone(), verified.clone());
        store.write(move |transaction| begin(transaction, &written, &verified, None)).await.expect("judged").then_some(session)
    }

    async fn sample(store: &Store) -> Session {
        begins(store, &person(store).await).await.expect("nothing has changed")
    }

    #[tokio::test]
    async fn a13_no_session_begins_with_a_password_that_was_changed_while_it_was_checked() {
        let (_directory, store) = temporary();
        let verified = person(&store).await;
        let changed = User { password: Some(PasswordHash::from_stored("new".to_owned())), ..verified.clone() };
        let written = changed.clone();
        let change = move |transaction: &Transaction<'_>| {
            user::update(transaction, &written)?;
            delete_of_user(transaction, written.id)
        };
        store.write(change).await.expect("written");
        assert_eq!(begins(&store, &verified).await, None);
        let digest = Digest::of("cookie");
        assert_eq!(store.read(move |connection| by_digest(connection, digest)).await.expect("read"), None);
        assert!(begins(&store, &changed).await.is_some());
    }

    #[tokio::test]
    async fn a13_no_session_begins_for_a_user_who_was_deleted_while_the_password_was_checked() {
        let (_directory, store) = temporary();
        let verified = person(&store).await;
        let id = verified.id;
        store.write(move |transaction| user::delete(transaction, id)).await.expect("written");
        assert_eq!(begins(&store, &verified).await, None);
    }

    #[tokio::test]
    async fn a13_of_too_many_sessions_of_a_person_the_oldest_end() {
        let (_directory, store) = temporary();
        let verified = person(&store).await;
        let id = verified.id;
        let digest_of = |number: u32| Digest::of(&format!("cookie {number}"));
        let begins = async |number: u32, at: i64, replaced: Option<u32>| {
            let session = Session::new(digest_of(number), id, store.epoch(), Timestamp::from_millis(at));
            let (verified, replaced) = (verified.clone(), replaced.map(digest_of));
            assert!(store.write(move |transaction| begin(transaction, &session, &verified, replaced)).await.expect("judged"));
        };
        let is_there = async |number: u32| {
            let digest = digest_of(number);
            store.read(move |connection| by_digest(connection, digest)).await.expect("read").is_some()
        };
        for number in 0..MOST_OF_A_PERSON {
            begins(number, 1_000 + i64::from(number), None).await;
        }
        begins(100, 2_000, Some(5)).await;
        assert!(is_there(0).await && !is_there(5).await, "one was replaced: nobody else's has to end");
        begins(101, 2_001, None).await;
        assert!(!is_there(0).await && is_there(1).await);
        begins(102, 1, None).await;
        assert!(is_there(102).await && !is_there(1).await && is_there(2).await, "the new one holds though the clock was set back");
        let count = |connection: &Connection| Ok(connection.query_row("SELECT count(*) FROM session", [], |row| row.get::<_, u32>(0))?);
        assert_eq!(store.read(count).await.expect("read"), MOST_OF_A_PERSON);
    }

    #[tokio::test]
    async fn a_session_is_extended_forward_only() {
        let (_directory, store) = temporary();
        let session = sample(&store).await;
        let (digest, later) = (session.digest, Timestamp::from_millis(10_000_000));
        assert_eq!(store.read(move |connection| by_digest(connection, digest)).await.expect("read"), Some(session));
        store.write(move |transaction| extend(transaction, digest, later)).await.expect("written");
        store.write(move |transaction| extend(transaction, digest, Timestamp::from_millis(5))).await.expect("written");
        let extended = store.read(move |connection| by_digest(connection, digest)).await.expect("read").expect("there");
        assert_eq!(extended.expires_at, later);
    }

    #[tokio::test]
    async fn sessions_end_with_their_user() {
        let (_directory, store) = temporary();
        let Session { digest, user: id, .. } = sample(&store).await;
        store.write(move |transaction| user::delete(transaction, id)).await.expect("written");
        assert_eq!(store.read(move |connection| by_digest(connection, digest)).await.expect("read"), None);
    }
}
