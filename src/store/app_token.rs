//! Rows of access tokens of apps that act for themselves (client credentials): each stands alone, without a grant.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::access_token::Found;
use super::{Fault, Transaction};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::inbound::grant::NewAccess;
use crate::inbound::permit::Bearer;
use crate::inbound::security::Security;
use crate::oauth::scope::Scope;
use crate::secret::Digest;

/// How long a token that has expired is still known as ours.
const KEPT_AFTER_END: Duration = Duration::from_secs(24 * 60 * 60);

const INSERT: &str = "INSERT INTO app_token (digest, app, scope, binding, epoch, issued_at, expires_at, ended, purge_at)
    VALUES (?1, ?2, ?3, ?4, (SELECT epoch FROM meta), ?5, ?6, 0, ?7)";
const FIND: &str = "SELECT t.scope, t.issued_at, t.expires_at, t.ended OR t.epoch <> (SELECT epoch FROM meta), t.binding,
        a.id, a.client_id, a.name, a.tenant, a.scope, a.security
    FROM app_token t JOIN ib_app a ON a.id = t.app WHERE t.digest = ?1 AND a.purge_at IS NULL";
const OWNER: &str = "SELECT t.app FROM app_token t JOIN ib_app a ON a.id = t.app WHERE t.digest = ?1 AND a.purge_at IS NULL";
const END: &str = "UPDATE app_token SET ended = 1 WHERE digest = ?1 AND ended = 0";
const LAST: &str = "SELECT max(2 * expires_at - issued_at) FROM app_token WHERE app = ?1 AND ended = 0";

/// Adds a token of `app`.
pub fn insert(transaction: &Transaction<'_>, app: Id, token: &NewAccess) -> Result<(), Fault> {
    let purge_at = token.expires_at.plus(KEPT_AFTER_END);
    let binding = token.binding.map(|binding| binding.to_string());
    let row = params![token.digest, app, token.scope, binding, token.issued_at, token.expires_at, purge_at];
    transaction.prepare_cached(INSERT)?.execute(row)?;
    Ok(())
}

/// The token with that digest, whether or not it is still good. An app that acts for itself is its own subject.
pub fn find(connection: &Connection, digest: Digest) -> Result<Option<Found>, Fault> {
    let found = connection.prepare_cached(FIND)?.query_row([digest], |row| {
        let (granted, held): (Scope, Scope) = (row.get(0)?, row.get(9)?);
        let client_id: String = row.get(6)?;
        let bearer = Bearer {
            grant: None,
            app: row.get(5)?,
            subject: client_id.clone(),
            client_id,
            app_name: row.get(7)?,
            tenant: row.get(8)?,
            scope: granted.intersection(&held),
            expires_at: row.get(2)?,
            binding: super::rows::binding(row, 4)?,
            must_be_bound: super::rows::from_json::<Security>(row, 10)?.is_bound(),
        };
        Ok(Found { bearer, generation: 0, issued_at: row.get(1)?, is_ended: row.get(3)?, is_first_presentation: false })
    });
    Ok(found.optional()?)
}

/// The app that a token was issued to, whether or not it is still good.
pub fn owner(connection: &Connection, digest: Digest) -> Result<Option<Id>, Fault> {
    Ok(connection.prepare_cached(OWNER)?.query_row([digest], |row| row.get(0)).optional()?)
}

/// Ends one token; false when it had ended before.
pub fn end(transaction: &Transaction<'_>, digest: Digest) -> Result<bool, Fault> {
    Ok(transaction.prepare_cached(END)?.execute([digest])? == 1)
}

/// Until when what an app opened may stay open: the life of an access token beyond the end of its last good one. None when it has none.
pub fn streams_end(connection: &Connection, app: Id) -> Result<Option<Timestamp>, Fault> {
    Ok(connection.prepare_cached(LAST)?.query_row([app], |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sample::{HOUR, app, fresh};
    use crate::store::{access_token, ib_app, temporary};

    #[tokio::test]
    async fn t8_a_token_of_an_app_itself_stands_alone() {
        let (_directory, store) = temporary();
        let (pair, other) = (fresh(), fresh());
        let judge = move |transaction: &Transaction<'_>| {
            ib_app::insert(transaction, &app())?;
            let now = transaction.now().wall;
            let of = |pair| NewAccess::of(pair, None, 0, "a".parse().expect("a scope"), HOUR, now);
            let (token, second) = (of(&pair), of(&other));
            insert(transaction, app().id, &token)?;
            insert(transaction, app().id, &second)?;
            let found = access_token::find(transaction, token.digest)?.expect("it is found where all are");
            assert_eq!((found.bearer.grant, found.bearer.subject.as_str()), (None, "client-one"));
            assert!(found.is_live(now) && !found.is_live(now.plus(HOUR)));
            assert_eq!(owner(transaction, token.digest)?, Some(app().id));
            assert_eq!(streams_end(transaction, app().id)?, Some(now.plus(HOUR * 2)));
            assert!(end(transaction, token.digest)? && !end(transaction, token.digest)?);
            assert!(!access_token::find(transaction, token.digest)?.expect("known").is_live(now));
            assert!(access_token::find(transaction, second.digest)?.expect("known").is_live(now), "the other goes on");
            end(transaction, second.digest)?;
            assert_eq!(streams_end(transaction, app().id)?, None);
            Ok(())
        };
        store.write(judge).await.expect("written");
    }
}
