//! Grants that end together, however many: what they rest on is taken in one write, and they are ended a few at a time.
//!
//! The write that takes a role, a password or a person marks what ends with it, by person and app. From then on none of it is good for
//! anything: whoever looks for a token looks for a mark too, and for a role in the realm ([`why_over`]); and who gets a role before the
//! deletion of the last one has come to them is marked first ([`realm::assign`]). The grants themselves are ended [`SOME`] at a time, each
//! with its row in the audit, the first of them in the same write. So no transaction is long; and what is left when the daemon is killed is
//! still marked, and goes on after the start (`tasks::endings`).

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{end, reason};
use crate::id::Id;
use crate::inbound::grant::EndReason;
use crate::store::{Fault, Transaction, ib_app, realm};

/// Grants ended, and marks and roles gone through, in one write at most: nobody else's write waits longer.
pub const SOME: usize = 200;

/// Why the grant `g` is over that nobody has ended yet, or NULL: it is marked, or it is a realm's, where its person holds no role any more.
macro_rules! why_over {
    () => {
        "coalesce(
            (SELECT e.reason FROM ending e WHERE e.user = g.user AND e.app = g.app AND g.endings < e.number),
            (SELECT 'role_taken' FROM realm WHERE realm.app = g.app AND NOT EXISTS (
                SELECT 1 FROM realm_member m JOIN realm_role r ON r.id = m.role WHERE m.user = g.user AND r.realm = g.app AND r.name IS NOT NULL)))"
    };
}
pub(in crate::store) use why_over;

// One that is marked already keeps its reason.
const MARK: &str = "INSERT INTO ending (user, app, reason, number) VALUES (?1, ?2, ?3, (SELECT endings FROM meta))
    ON CONFLICT (user, app) DO UPDATE SET number = excluded.number";
const COUNT: &str = "UPDATE meta SET endings = endings + 1";
const FIRST: &str = "SELECT user, app, reason, number FROM ending ORDER BY user, app LIMIT 1";
const FIRST_OF_PERSON: &str = "SELECT user, app, reason, number FROM ending WHERE user = ?1 ORDER BY app LIMIT 1";
const MARKED: &str = "SELECT id FROM grant INDEXED BY grant_user_app_live
    WHERE user = ?1 AND app = ?2 AND ended_at IS NULL AND endings < ?3 LIMIT ?4";
const UNMARK: &str = "DELETE FROM ending WHERE user = ?1 AND app = ?2";
const IS_ANY: &str = "SELECT EXISTS (SELECT 1 FROM ending)";

/// The grants that are marked for one person at one app.
struct Mark {
    user: Id,
    app: Id,
    reason: EndReason,
    /// Those that were made later have this number or a higher one.
    number: i64,
}

/// What has ended of all that ends together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// The grants that have ended.
    pub ended: Vec<Id>,
    /// There are more, which are good for nothing, and are ended step by step ([`step`], [`step_of_person`], [`realm::step_of_role`]).
    pub is_unfinished: bool,
    /// What else was done in this write, beside what ended.
    done: usize,
}

impl Ending {
    /// How much more may be done in this write.
    pub(in crate::store) fn left(&self) -> usize {
        SOME.saturating_sub(self.ended.len() + self.done)
    }

    /// Something was done that takes about as long as the end of a grant.
    pub(in crate::store) fn count_one(&mut self) {
        self.done += 1;
    }
}

/// Marks what a person allowed an app until now.
pub(in crate::store) fn mark(transaction: &Transaction<'_>, user: Id, app: Id, reason: EndReason) -> Result<(), Fault> {
    transaction.prepare_cached(COUNT)?.execute([])?;
    transaction.prepare_cached(MARK)?.execute(params![user, app, reason.as_str()])?;
    Ok(())
}

/// Ends everything that a person allowed: of realms because the person is gone, of others because whoever deletes the person says so.
pub fn end_all(transaction: &Transaction<'_>, user: Id, ending: &mut Ending) -> Result<(), Fault> {
    for app in super::list::live_apps_of_person(transaction, user)? {
        mark(transaction, user, app, EndReason::RevokedByAdmin)?;
    }
    go_on(transaction, user, ending)
}

/// Ends of what is marked for a person as much as one write may.
pub(in crate::store) fn go_on(transaction: &Transaction<'_>, user: Id, ending: &mut Ending) -> Result<(), Fault> {
    while let Some(mark) = transaction.prepare_cached(FIRST_OF_PERSON)?.query_row([user], read).optional()? {
        if ending.left() == 0 {
            ending.is_unfinished = true;
            break;
        }
        end_some(transaction, &mark, ending)?;
    }
    Ok(())
}

/// One write's worth of what is marked for a person.
pub fn step_of_person(transaction: &Transaction<'_>, user: Id) -> Result<Ending, Fault> {
    let mut ending = Ending::default();
    go_on(transaction, user, &mut ending)?;
    transaction.is_told_elsewhere();
    Ok(ending)
}

/// One write's worth of all that is marked, and of all roles that are gone.
pub fn step(transaction: &Transaction<'_>) -> Result<Ending, Fault> {
    let mut ending = Ending::default();
    while let Some(mark) = transaction.prepare_cached(FIRST)?.query_row([], read).optional()? {
        if ending.left() == 0 {
            ending.is_unfinished = true;
            return Ok(ending);
        }
        end_some(transaction, &mark, &mut ending)?;
    }
    realm::let_go_of_roles(transaction, &mut ending)?;
    Ok(ending)
}

/// Whether anything is left to be ended.
pub fn is_left(connection: &Connection) -> Result<bool, Fault> {
    let is_marked: bool = connection.prepare_cached(IS_ANY)?.query_row([], |row| row.get(0))?;
    Ok(is_marked || realm::is_role_gone(connection)?)
}

fn end_some(transaction: &Transaction<'_>, mark: &Mark, ending: &mut Ending) -> Result<(), Fault> {
    let (user, app, left) = (mark.user, mark.app, ending.left());
    // What an app that was deleted was allowed goes with it.
    let some: Vec<Id> = match ib_app::by_id(transaction, app)? {
        Some(_) => {
            let mut marked = transaction.prepare_cached(MARKED)?;
            marked
                .query_map(params![user, app, mark.number, i64::try_from(left).unwrap_or(i64::MAX)], |row| row.get(0))?
                .collect::<Result<_, _>>()?
        }
        None => Vec::new(),
    };
    for grant in &some {
        end(transaction, *grant, mark.reason)?;
    }
    if some.len() < left {
        transaction.prepare_cached(UNMARK)?.execute([user, app])?;
        ending.count_one();
    }
    ending.ended.extend(some);
    Ok(())
}

/// What [`why_over`] says, as it stands in a row.
pub(in crate::store) fn why(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<EndReason>> {
    row.get::<_, Option<String>>(column)?.map(|text| reason(&text, column)).transpose()
}

fn read(row: &Row<'_>) -> rusqlite::Result<Mark> {
    Ok(Mark { user: row.get(0)?, app: row.get(1)?, reason: reason(&row.get::<_, String>(2)?, 2)?, number: row.get(3)? })
}

#[cfg(test)]
mod tests;
