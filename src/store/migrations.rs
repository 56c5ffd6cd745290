//! The schema, as the steps that lead to it. A step that was released never changes; what comes later is a step of its own.

use std::path::Path;

use rusqlite::Connection;
use rusqlite_migration::{M, Migrations};

use super::backup::BackupError;
use super::schema_copy;
use crate::clock::Timestamp;

const STEPS: &[M<'static>] = &[
    M::up(include_str!("migrations/01-base.sql")),
    M::up(include_str!("migrations/02-inbound.sql")),
    M::up(include_str!("migrations/03-outbound.sql")),
    M::up(include_str!("migrations/04-callers.sql")),
    M::up(include_str!("migrations/05-access-tokens.sql")),
    M::up(include_str!("migrations/06-client-security.sql")),
    M::up(include_str!("migrations/07-people.sql")),
    M::up(include_str!("migrations/08-client-keys.sql")),
    M::up(include_str!("migrations/09-audit.sql")),
    M::up(include_str!("migrations/10-outbound-dpop.sql")),
    M::up(include_str!("migrations/11-realms.sql")),
    M::up(include_str!("migrations/12-epoch.sql")),
    M::up(include_str!("migrations/13-pushed-from.sql")),
    M::up(include_str!("migrations/14-audit-clock.sql")),
    M::up(include_str!("migrations/15-pushed-question.sql")),
    M::up(include_str!("migrations/16-gone-apps.sql")).foreign_key_check(),
    M::up(include_str!("migrations/17-grant-lists.sql")),
    M::up(include_str!("migrations/18-gone-people.sql")).foreign_key_check(),
    M::up(include_str!("migrations/19-grants-that-run-out.sql")),
    M::up(include_str!("migrations/20-grants-of-people.sql")),
    M::up(include_str!("migrations/21-endings.sql")).foreign_key_check(),
];

/// All steps, in order. A database's `user_version` counts those that it has taken.
const MIGRATIONS: Migrations<'static> = Migrations::from_slice(STEPS);

/// The newest schema version that this program knows.
pub(super) const NEWEST: usize = STEPS.len();

/// Why the schema is not up to date.
pub(super) enum NotTaken {
    /// There is no copy of the database as it is. Nothing was changed.
    NotKept(u32, BackupError),
    /// A step failed. None was taken.
    Step(rusqlite_migration::Error),
    Database(rusqlite::Error),
}

/// Takes the steps that the database in `state_dir` has not taken, all or none. A copy of it as it was is kept before the first
/// ([`schema_copy`]): without one there is no way back, so without one no step is taken.
pub(super) fn bring_up_to_date(connection: &mut Connection, state_dir: &Path, now: Timestamp) -> Result<(), NotTaken> {
    let version = |connection: &Connection| connection.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0));
    let before = version(connection).map_err(NotTaken::Database)?;
    schema_copy::settle(state_dir, before);
    let is_older = (1..NEWEST).contains(&(before as usize));
    let copy = is_older.then(|| schema_copy::keep(state_dir, before, now)).transpose();
    let copy = copy.map_err(|error| NotTaken::NotKept(before, error))?;
    // A table that is made anew is dropped first, which must not take along what refers to it. A step that does so looks at the end
    // whether everything still refers to something. Within a transaction this pragma does nothing.
    connection.pragma_update(None, "foreign_keys", false).map_err(NotTaken::Database)?;
    let taken = MIGRATIONS.to_latest(connection);
    connection.pragma_update(None, "foreign_keys", true).map_err(NotTaken::Database)?;
    // All steps are one transaction. What was before goes only now that there is something to go back from.
    match (taken, copy) {
        (Ok(()), Some(copy)) => copy.confirm(),
        (Ok(()), None) => {}
        (Err(error), copy) => {
            if let Some(copy) = copy.filter(|_| version(connection).is_ok_and(|now| now == before)) {
                copy.discard();
            }
            return Err(NotTaken::Step(error));
        }
    }
    Ok(())
}
