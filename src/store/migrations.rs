//! The schema, as the steps that lead to it. A step that was released never changes; what comes later is a step of its own.

use std::path::Path;

use rusqlite::Connection;
use rusqlite_migration::{M, Migrations};

use super::backup;
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
];

/// All steps, in order. A database's `user_version` counts those that it has taken.
const MIGRATIONS: Migrations<'static> = Migrations::from_slice(STEPS);

/// The newest schema version that this program knows.
pub(super) const NEWEST: usize = STEPS.len();

/// Takes the steps that the database in `state_dir` has not taken, all or none of each. Before the first, a backup of it as it was is
/// kept as `p2pid-schema-N.db`, so that the program of before can be put back together with its database.
pub(super) fn bring_up_to_date(connection: &mut Connection, state_dir: &Path, now: Timestamp) -> Result<(), rusqlite_migration::Error> {
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if (1..NEWEST).contains(&(version as usize)) {
        let kept = state_dir.join(format!("p2pid-schema-{version}.db"));
        match backup(state_dir, &kept, now) {
            Ok(_) => tracing::info!(file = %kept.display(), "the database as it was before this version is kept"),
            // Of an upgrade that was interrupted, perhaps; and no reason to stay down.
            Err(error) => tracing::warn!(%error, "the database is brought up to date without a backup"),
        }
    }
    // A table that is made anew is dropped first, which must not take along what refers to it. The step that does so looks at the end
    // whether everything still refers to something. Within a transaction this pragma does nothing.
    connection.pragma_update(None, "foreign_keys", false)?;
    let taken = MIGRATIONS.to_latest(connection);
    connection.pragma_update(None, "foreign_keys", true)?;
    taken
}
