//! Rows of access tokens.

use rusqlite::{Connection, OptionalExtension, params};

use super::grant::ending::{self, why_over};
use super::{Fault, Transaction, app_token, refresh_token};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::inbound::grant::{NewAccess, is_in_its_time};
use crate::inbound::permit::Bearer;
use crate::inbound::security::Security;
use crate::inbound::user;
use crate::oauth::scope::Scope;
use crate::secret::Digest;

const INSERT: &str = "INSERT INTO access_token (digest, grant, generation, scope, issued_at, expires_at, ended, binding)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7)";
const FIND: &str = concat!(
    "SELECT t.grant, t.generation, t.scope, t.issued_at, t.expires_at,
        t.ended OR g.ended_at IS NOT NULL OR g.epoch <> (SELECT epoch FROM meta), ",
    why_over!(),
    ", a.id, a.client_id, a.name, a.tenant, a.scope, u.login,
        EXISTS (SELECT 1 FROM refresh_token c WHERE c.grant = t.grant AND c.state = 'current' AND c.generation = t.generation AND c.used = 0),
        t.binding, a.security
    FROM access_token t JOIN grant g ON g.id = t.grant JOIN ib_app a ON a.id = g.app LEFT JOIN user u ON u.id = g.user
    WHERE t.digest = ?1 AND a.purge_at IS NULL"
);
const OWNER: &str = "SELECT g.id, g.app FROM access_token t JOIN grant g ON g.id = t.grant JOIN ib_app a ON a.id = g.app
    WHERE t.digest = ?1 AND a.purge_at IS NULL";
const END_GENERATION: &str = "UPDATE access_token SET ended = 1 WHERE grant = ?1 AND ended = 0 AND generation = ?2";
const END_BEFORE: &str = "UPDATE access_token SET ended = 1 WHERE grant = ?1 AND ended = 0 AND generation < ?2";

/// An access token that was ours at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it says of whoever presents it.
    pub bearer: Bearer,
    /// Of the refresh token that it came with.
    pub generation: u32,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// It was withdrawn, or its grant was ended.
    pub is_ended: bool,
    /// Nothing of its pair was presented before; that it is now must be written down before it is good for anything.
    pub is_first_presentation: bool,
}

impl Found {
    /// Whether it is good at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        !self.is_ended && is_in_its_time(self.issued_at, self.bearer.expires_at, now)
    }
}

/// Adds an access token of a grant. It is known as long as the grant, also when it has expired: who revokes it ends the grant.
pub fn insert(transaction: &Transaction<'_>, grant: Id, token: &NewAccess) -> Result<(), Fault> {
    let binding = token.binding.map(|binding| binding.to_string());
    let row = params![token.digest, grant, token.generation, token.scope, token.issued_at, token.expires_at, binding];
    transaction.prepare_cached(INSERT)?.execute(row)?;
    Ok(())
}

/// The token with that digest, of a grant or of an app itself, whether or not it is still good.
pub fn find(connection: &Connection, digest: Digest) -> Result<Option<Found>, Fault> {
    let found = connection.prepare_cached(FIND)?.query_row([digest], |row| {
        // A scope that was taken from the app since is not in its tokens any more.
        let (granted, held): (Scope, Scope) = (row.get(2)?, row.get(11)?);
        let bearer = Bearer {
            grant: Some(row.get(0)?),
            app: row.get(7)?,
            client_id: row.get(8)?,
            app_name: row.get(9)?,
            tenant: row.get(10)?,
            subject: row.get::<_, Option<String>>(12)?.unwrap_or_else(|| user::DELETED.to_owned()),
            scope: granted.intersection(&held),
            expires_at: row.get(4)?,
            binding: super::rows::binding(row, 14)?,
            must_be_bound: super::rows::from_json::<Security>(row, 15)?.is_bound(),
        };
        let is_ended = row.get(5)? || ending::why(row, 6)?.is_some();
        Ok(Found { bearer, generation: row.get(1)?, issued_at: row.get(3)?, is_ended, is_first_presentation: row.get(13)? })
    });
    match found.optional()? {
        Some(found) => Ok(Some(found)),
        None => app_token::find(connection, digest),
    }
}

/// The grant and the app that a token was issued to, whether or not it is still good.
pub fn owner(connection: &Connection, digest: Digest) -> Result<Option<(Id, Id)>, Fault> {
    Ok(connection.prepare_cached(OWNER)?.query_row([digest], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

/// The token with that digest if it is good now, having written down that its pair has arrived.
pub fn present(transaction: &Transaction<'_>, digest: Digest) -> Result<Option<Found>, Fault> {
    let Some(found) = find(transaction, digest)?.filter(|found| found.is_live(transaction.now().wall)) else { return Ok(None) };
    if let (true, Some(grant)) = (found.is_first_presentation, found.bearer.grant) {
        refresh_token::arrived(transaction, grant, found.generation)?;
    }
    Ok(Some(found))
}

/// Ends the access tokens of one generation.
pub(super) fn end_generation(transaction: &Transaction<'_>, grant: Id, generation: u32) -> Result<(), Fault> {
    transaction.prepare_cached(END_GENERATION)?.execute(params![grant, generation])?;
    Ok(())
}

/// Ends the access tokens of all generations before one.
pub(super) fn end_before(transaction: &Transaction<'_>, grant: Id, generation: u32) -> Result<(), Fault> {
    transaction.prepare_cached(END_BEFORE)?.execute(params![grant, generation])?;
    Ok(())
}
