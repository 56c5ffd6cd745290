//! Rows of browser sessions.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Fault, Transaction};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::inbound::session::Session;
use crate::secret::Digest;

const INSERT: &str = "INSERT INTO session (digest, user, epoch, signed_in_at, purge_at) VALUES (?1, ?2, ?3, ?4, ?5)";
const BY_DIGEST: &str = "SELECT digest, user, epoch, signed_in_at, purge_at FROM session WHERE digest = ?1";
const EXTEND: &str = "UPDATE session SET purge_at = ?2 WHERE digest = ?1 AND purge_at < ?2";
const DELETE: &str = "DELETE FROM session WHERE digest = ?1";
const DELETE_OF_USER: &str = "DELETE FROM session WHERE user = ?1";

/// Adds a session.
pub fn insert(transaction: &Transaction<'_>, session: &Session) -> Result<(), Fault> {
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
    use crate::inbound::user::User;
    use crate::store::{Store, temporary, user};

    async fn sample(store: &Store) -> Session {
        let (id, created_at) = (Id::from_bytes([1; 16]), Timestamp::from_millis(0));
        let permissions = std::collections::BTreeMap::new();
        let person = User { id, login: "a".to_owned(), password: None, is_admin: false, permissions, api_key: None, created_at };
        let session = Session::new(Digest::of("cookie"), id, store.epoch(), Timestamp::from_millis(1_000));
        let written = session.clone();
        let judge = move |transaction: &Transaction<'_>| {
            user::insert(transaction, &person)?;
            insert(transaction, &written)
        };
        store.write(judge).await.expect("written");
        session
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
