//! Rows of grants.

pub mod ending;
pub mod list;
pub mod over;

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::binding;
use super::{Fault, Transaction};
use crate::audit::{Action, Entry, Record};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::inbound::grant::{EndReason, Ended, Grant, MadeBy};

/// How long a grant that was ended is still shown, and its tokens still known.
const SHOWN_AFTER_END: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How much longer than its idle life a grant is kept that nobody ended. What has run out is deleted by wall time, and idle life is an age:
/// a wall clock that is a year ahead for a while must not delete what is still used.
const KEPT_AFTER_IDLE: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A grant's columns and those of its names, in the order in which [`read_shown`] reads them. It is begun with the grant: what is wanted of it
/// is known, and the rest follows from that.
macro_rules! shown {
    ($conditions:literal) => {
        shown!("", $conditions)
    };
    ($index:literal, $conditions:literal) => {
        concat!(
            "SELECT g.id, g.app, g.user, g.scope, g.created_at, g.expires_at, g.ended_at, g.ended_why,
                iif(g.epoch = (SELECT epoch FROM meta), NULL, (SELECT coalesce(begun_at, g.created_at) FROM meta)),
                g.binding, g.made_by, a.name, a.client_id, a.tenant, u.login, g.last_used_at
            FROM grant g ",
            $index,
            " CROSS JOIN ib_app a ON a.id = g.app LEFT JOIN user u ON u.id = g.user ",
            $conditions
        )
    };
}

const INSERT: &str = "INSERT INTO grant (id, app, user, scope, epoch, created_at, expires_at, purge_at, binding, made_by, endings)
    VALUES (?1, ?2, ?3, ?4, (SELECT epoch FROM meta), ?5, ?6, ?7, ?8, ?9, (SELECT endings FROM meta))";
const END: &str = "UPDATE grant SET ended_at = ?2, ended_why = ?3, purge_at = ?4 WHERE id = ?1 AND ended_at IS NULL";
const WHOSE: &str = "SELECT a.tenant, a.name FROM grant g JOIN ib_app a ON a.id = g.app WHERE g.id = ?1 AND a.purge_at IS NULL";
const LIVES_ON: &str = "UPDATE grant SET purge_at = ?2 WHERE id = ?1 AND (purge_at < ?3 OR purge_at > ?2)";
const USED: &str = "UPDATE grant SET last_used_at = ?2 WHERE id = ?1 AND (last_used_at IS NULL OR last_used_at < ?2)";
const LEAVES: &str = "UPDATE grant SET purge_at = ?2 WHERE id = ?1";
const COUNT_OF_APP: &str = "SELECT count(*) FROM grant WHERE app = ?1 AND ended_at IS NULL AND (expires_at IS NULL OR expires_at > ?2)
        AND epoch = (SELECT epoch FROM meta)";
const SHOWN_BY_ID: &str = shown!("WHERE a.tenant = ?1 AND g.id = ?2");
const ACTIVE_OF_APP: &str = shown!(
    "INDEXED BY grant_app_live",
    "WHERE g.app = ?1 AND g.ended_at IS NULL AND (g.expires_at IS NULL OR g.expires_at > ?2) AND g.epoch = (SELECT epoch FROM meta)
        ORDER BY g.id LIMIT ?3"
);
const SHOWN_OF_USER_BY_ID: &str = shown!("WHERE g.user = ?1 AND g.id = ?2 AND a.purge_at IS NULL");

/// What [`read_shown`] reads; the conditions follow.
const SHOWN: &str = shown!("");
/// The same of what a person allowed and nobody ended.
const SHOWN_LIVE_OF_USER: &str = shown!("INDEXED BY grant_user_live", "");

/// A grant with the names that people know it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownGrant {
    /// The grant.
    pub grant: Grant,
    /// The IB app's name.
    pub app_name: String,
    /// The IB app's `client_id`.
    pub client_id: String,
    /// The IB app's tenant.
    pub tenant: String,
    /// The login of who allowed it; none once that person was deleted.
    pub login: Option<String>,
    /// When a token of it was last used, as far as it was written down.
    pub last_used_at: Option<Timestamp>,
}

/// Adds a grant; without use it is kept for `idle`.
pub fn insert(transaction: &Transaction<'_>, grant: &Grant, idle: Duration) -> Result<(), Fault> {
    let purge_at = grant.created_at.plus(idle).plus(KEPT_AFTER_IDLE);
    let binding = grant.binding.map(|binding| binding.to_string());
    let row = params![
        grant.id,
        grant.app,
        grant.user,
        grant.scope,
        grant.created_at,
        grant.expires_at,
        purge_at,
        binding,
        grant.made_by.as_str()
    ];
    transaction.prepare_cached(INSERT)?.execute(row)?;
    Ok(())
}

/// Ends a grant; false when it had ended before.
pub fn end(transaction: &Transaction<'_>, id: Id, reason: EndReason) -> Result<bool, Fault> {
    let now = transaction.now().wall;
    let row = params![id, now, reason.as_str(), now.plus(SHOWN_AFTER_END)];
    let has_ended = transaction.prepare_cached(END)?.execute(row)? == 1;
    if has_ended {
        let ended = Entry::of(Action::GrantEnded).on_known(record(transaction, id)?);
        transaction.record(&ended.with("reason", reason.as_str()))?;
    }
    Ok(has_ended)
}

/// Ends a grant that was one too many: the next purge takes it, with all that hangs on it.
pub fn displace(transaction: &Transaction<'_>, id: Id) -> Result<(), Fault> {
    end(transaction, id, EndReason::Displaced)?;
    transaction.prepare_cached(LEAVES)?.execute(params![id, transaction.now().wall])?;
    Ok(())
}

/// A grant as the audit names it: by its app's name, in that app's tenant.
pub fn record(connection: &Connection, id: Id) -> Result<Option<Record>, Fault> {
    let read = |row: &Row<'_>| Ok(Record::of_tenant("grant", &row.get::<_, String>(0)?, id, &row.get::<_, String>(1)?));
    Ok(connection.prepare_cached(WHOSE)?.query_row([id], read).optional()?)
}

/// Keeps a grant that was renewed now for another `idle`; written once a day at most, or eight times in a shorter `idle`, so that a look for
/// idle ones ([`over`]) passes by nearly all others.
pub fn lives_on(transaction: &Transaction<'_>, id: Id, idle: Duration) -> Result<(), Fault> {
    let purge_at = transaction.now().wall.plus(idle).plus(KEPT_AFTER_IDLE);
    let stale = purge_at.minus(Duration::from_secs(24 * 60 * 60).min(idle / 8));
    transaction.prepare_cached(LIVES_ON)?.execute(params![id, purge_at, stale])?;
    Ok(())
}

/// Notes when a token of the grant was last used.
pub fn used(transaction: &Transaction<'_>, id: Id, at: Timestamp) -> Result<(), Fault> {
    transaction.prepare_cached(USED)?.execute(params![id, at])?;
    Ok(())
}

/// How many grants of an app are active.
pub fn count_active_of_app(connection: &Connection, app: Id, now: Timestamp) -> Result<u32, Fault> {
    Ok(connection.prepare_cached(COUNT_OF_APP)?.query_row(params![app, now], |row| row.get(0))?)
}

/// A tenant's grant with that id.
pub fn by_id(connection: &Connection, tenant: &str, id: Id) -> Result<Option<ShownGrant>, Fault> {
    Ok(connection.prepare_cached(SHOWN_BY_ID)?.query_row(params![tenant, id], read_shown).optional()?)
}

/// The first of an app's active grants, oldest first.
pub fn active_of_app(connection: &Connection, app: Id, now: Timestamp, most: u32) -> Result<Vec<ShownGrant>, Fault> {
    Ok(connection.prepare_cached(ACTIVE_OF_APP)?.query_map(params![app, now, most], read_shown)?.collect::<Result<_, _>>()?)
}

/// The grant with that id, where that person allowed it.
pub fn of_user_by_id(connection: &Connection, user: Id, id: Id) -> Result<Option<ShownGrant>, Fault> {
    Ok(connection.prepare_cached(SHOWN_OF_USER_BY_ID)?.query_row(params![user, id], read_shown).optional()?)
}

/// The grant in the eleven columns that begin at `first`: id, app, user, scope, created_at, expires_at, ended_at, ended_why, when
/// the database's epoch began where that is not its own, binding, and made_by.
pub(super) fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<Grant> {
    let ended_why: Option<String> = row.get(first + 7)?;
    let ended = match (row.get(first + 6)?, ended_why) {
        (Some(at), Some(why)) => Some(Ended { at, reason: reason(&why, first + 7)? }),
        // What a restored backup brings back may have been revoked, or rotated away, after the backup was made.
        _ => row.get::<_, Option<Timestamp>>(first + 8)?.map(|at| Ended { at, reason: EndReason::Restored }),
    };
    Ok(Grant {
        id: row.get(first)?,
        app: row.get(first + 1)?,
        user: row.get(first + 2)?,
        scope: row.get(first + 3)?,
        created_at: row.get(first + 4)?,
        expires_at: row.get(first + 5)?,
        ended,
        binding: binding(row, first + 9)?,
        made_by: made_by(&row.get::<_, String>(first + 10)?, first + 10)?,
    })
}

fn read_shown(row: &Row<'_>) -> rusqlite::Result<ShownGrant> {
    Ok(ShownGrant {
        grant: read(row, 0)?,
        app_name: row.get(11)?,
        client_id: row.get(12)?,
        tenant: row.get(13)?,
        login: row.get(14)?,
        last_used_at: row.get(15)?,
    })
}

fn made_by(text: &str, column: usize) -> rusqlite::Result<MadeBy> {
    let known = MadeBy::ALL.into_iter().find(|made_by| made_by.as_str() == text);
    known.ok_or_else(|| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(NoOrigin(text.to_owned()))))
}

#[derive(Debug, thiserror::Error)]
#[error("nothing that makes a grant is called {0:?}")]
struct NoOrigin(String);

fn reason(text: &str, column: usize) -> rusqlite::Result<EndReason> {
    let known = EndReason::ALL.into_iter().find(|reason| reason.as_str() == text);
    known.ok_or_else(|| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(NoReason(text.to_owned()))))
}

#[derive(Debug, thiserror::Error)]
#[error("no end of a grant is called {0:?}")]
struct NoReason(String);
