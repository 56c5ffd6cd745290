//! The schema, as the steps that lead to it. A step that was released never changes; what comes later is a step of its own.

use rusqlite_migration::{M, Migrations};

const STEPS: &[M<'static>] = &[
    M::up(include_str!("migrations/01-base.sql")),
    M::up(include_str!("migrations/02-inbound.sql")),
    M::up(include_str!("migrations/03-outbound.sql")),
    M::up(include_str!("migrations/04-callers.sql")),
];

/// All steps, in order. A database's `user_version` counts those that it has taken.
pub(super) const MIGRATIONS: Migrations<'static> = Migrations::from_slice(STEPS);

/// The newest schema version that this program knows.
pub(super) const NEWEST: usize = STEPS.len();
