//! Which values hang on which state key: checked at the start, listed for people, sealed again by a rotation.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::Seals;
use super::key_file::KeyId;
use super::open::{OpenError, Unprepared};
use crate::clock::Timestamp;

/// What a registered column holds; each begins with the four bytes of its key's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// [`Seals::seal`]: a rotation seals it again.
    Sealed,
    /// [`Seals::hash`]: hashed again when its secret is next presented.
    Hashed,
    /// [`Seals::seal_bound`]: gone soon.
    Bound,
}

/// A column whose values need a state key.
struct Column {
    table: &'static str,
    /// The table's primary key, one BLOB column.
    row: &'static str,
    column: &'static str,
    kind: Kind,
}

/// Every column that holds sealed values or keyed hashes. A migration that adds one adds its line here.
const COLUMNS: &[Column] = &[];

/// Checks the key list against the keys that the database knows, and makes new ones known.
pub(super) fn check(transaction: &Connection, seals: &Seals, key_path: &Path, now: Timestamp) -> Result<(), Unprepared> {
    let known: Vec<KeyId> = transaction
        .prepare("SELECT id FROM state_key ORDER BY added_at, id")?
        .query_map([], |row| row.get(0).map(KeyId))?
        .collect::<Result<_, _>>()?;
    let found: Vec<KeyId> = seals.proofs().iter().map(|(id, _)| *id).collect();
    let wrong = || OpenError::WrongKey { path: key_path.to_owned(), found: found.clone(), expected: known.clone() };
    if !known.is_empty() && !known.iter().any(|id| found.contains(id)) {
        return Err(wrong().into());
    }
    for (id, proof) in seals.proofs() {
        let stored: Option<[u8; 32]> =
            transaction.query_row("SELECT proof FROM state_key WHERE id = ?1", [id.0], |row| row.get(0)).optional()?;
        match stored {
            Some(stored) if stored != proof => return Err(wrong().into()),
            Some(_) => {}
            None => {
                transaction.execute("INSERT INTO state_key (id, proof, added_at) VALUES (?1, ?2, ?3)", params![id.0, proof, now])?;
            }
        }
    }
    for id in known.iter().filter(|id| !found.contains(id)) {
        let needed = hanging(transaction, *id)?;
        if !needed.is_empty() {
            return Err(OpenError::KeyNeeded(*id, describe(&needed)).into());
        }
        transaction.execute("DELETE FROM state_key WHERE id = ?1", [id.0])?;
    }
    Ok(())
}

/// Columns with values that hang on the key `id`, and how many.
fn hanging(connection: &Connection, id: KeyId) -> rusqlite::Result<Vec<(&'static Column, i64)>> {
    let mut hanging = Vec::new();
    for column in COLUMNS {
        let sql = format!("SELECT count(*) FROM {} WHERE substr({}, 1, 4) = ?1", column.table, column.column);
        let count = connection.query_row(&sql, [id.0], |row| row.get(0))?;
        if count > 0 {
            hanging.push((column, count));
        }
    }
    Ok(hanging)
}

fn describe(hanging: &[(&'static Column, i64)]) -> String {
    let parts: Vec<String> = hanging.iter().map(|(column, count)| format!("{count} in {}.{}", column.table, column.column)).collect();
    parts.join(", ")
}
