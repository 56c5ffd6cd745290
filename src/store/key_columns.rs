//! Which columns hold values that need a state key, and whether the key list has every key that is needed.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::Seals;
use super::key_file::KeyId;
use super::open::{OpenError, Unprepared};
use crate::clock::Timestamp;

/// What a registered column holds; each value begins with the four bytes of its key's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// [`Seals::seal`], with the row's key as its place: a rotation seals it again.
    Sealed,
    /// [`Seals::hash`]: hashed again when its secret is next presented.
    Hashed,
    /// [`Seals::seal_bound`]: gone soon.
    Bound,
}

/// A column whose values need a state key.
pub(super) struct Column {
    pub(super) table: &'static str,
    /// The table's primary key, one BLOB column.
    pub(super) row: &'static str,
    pub(super) column: &'static str,
    pub(super) kind: Kind,
}

/// Every column that holds sealed values (its name ends in `_sealed`) or keyed hashes (`_hash`). A migration that adds one adds its line here.
pub(super) const COLUMNS: &[Column] = &[
    sealed("authorization", "id", "state_sealed"),
    sealed("ob_app", "id", "client_secret_sealed"),
    sealed("ob_app", "id", "key_sealed"),
    sealed("ob_app", "id", "next_key_sealed"),
    sealed("peer", "id", "password_sealed"),
    sealed("held_token", "peer", "access_sealed"),
    sealed("held_token", "peer", "refresh_sealed"),
    sealed("held_token", "peer", "key_sealed"),
    sealed("handshake", "id", "verifier_sealed"),
    sealed("handshake", "id", "key_sealed"),
    sealed("outbox", "id", "token_sealed"),
    sealed("outbox", "id", "client_secret_sealed"),
    sealed("outbox", "id", "client_key_sealed"),
    sealed("pushed_request", "digest", "parameters_sealed"),
    Column { table: "client_secret", row: "id", column: "secret_hash", kind: Kind::Hashed },
    Column { table: "refresh_token", row: "digest", column: "repeat_sealed", kind: Kind::Bound },
];

const fn sealed(table: &'static str, row: &'static str, column: &'static str) -> Column {
    Column { table, row, column, kind: Kind::Sealed }
}

/// Whether the key list is this database's: it has one of the keys that the database knows, and no other key under a known name.
pub(super) fn recognise(connection: &Connection, seals: &Seals, key_path: &Path) -> Result<(), Unprepared> {
    let known = known(connection)?;
    let found: Vec<KeyId> = seals.proofs().iter().map(|(id, _)| *id).collect();
    if !known.is_empty() && !known.iter().any(|id| found.contains(id)) {
        return Err(OpenError::WrongKey { path: key_path.to_owned(), found, expected: known }.into());
    }
    for (key, proof) in seals.proofs() {
        let stored: Option<[u8; 32]> =
            connection.query_row("SELECT proof FROM state_key WHERE id = ?1", [key.0], |row| row.get(0)).optional()?;
        if stored.is_some_and(|stored| stored != proof) {
            return Err(OpenError::OtherKey { path: key_path.to_owned(), key }.into());
        }
    }
    Ok(())
}

/// Whether something hangs on a key that is gone from the list, in a database of the newest schema; the keys that are gone.
pub(super) fn missed(connection: &Connection, seals: &Seals) -> Result<Vec<KeyId>, Unprepared> {
    let found: Vec<KeyId> = seals.proofs().iter().map(|(id, _)| *id).collect();
    let gone: Vec<KeyId> = known(connection)?.into_iter().filter(|id| !found.contains(id)).collect();
    for id in &gone {
        let hanging = hanging(connection, *id)?;
        if !hanging.is_empty() {
            let parts: Vec<String> =
                hanging.iter().map(|(column, count)| format!("{count} in {}.{}", column.table, column.column)).collect();
            return Err(OpenError::KeyNeeded(*id, parts.join(", ")).into());
        }
    }
    Ok(gone)
}

/// Makes the list's new keys known, and forgets those that are gone from it, unless something hangs on one.
pub(super) fn settle(transaction: &Connection, seals: &Seals, now: Timestamp) -> Result<(), Unprepared> {
    for id in missed(transaction, seals)? {
        transaction.execute("DELETE FROM state_key WHERE id = ?1", [id.0])?;
    }
    Ok(make_known(transaction, seals, now)?)
}

/// The keys that a database knows, oldest first.
pub(super) fn known(connection: &Connection) -> rusqlite::Result<Vec<KeyId>> {
    let mut statement = connection.prepare("SELECT id FROM state_key ORDER BY added_at, id")?;
    statement.query_map([], |row| row.get(0).map(KeyId))?.collect()
}

/// Makes every key of the list known.
pub(super) fn make_known(transaction: &Connection, seals: &Seals, now: Timestamp) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare("INSERT INTO state_key (id, proof, added_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?;
    for (id, proof) in seals.proofs() {
        statement.execute(params![id.0, proof, now])?;
    }
    Ok(())
}

/// Columns with values that hang on the key `id`, and how many.
pub(super) fn hanging(connection: &Connection, id: KeyId) -> rusqlite::Result<Vec<(&'static Column, i64)>> {
    let mut hanging = Vec::new();
    for column in COLUMNS {
        let Column { table, column: name, .. } = column;
        // Of the many refresh tokens few have a value: where there is an index of those, it is read instead of the table.
        let sql = format!("SELECT count(*) FROM {table} WHERE {name} IS NOT NULL AND substr({name}, 1, 4) = ?1");
        let count = connection.query_row(&sql, [id.0], |row| row.get(0))?;
        if count > 0 {
            hanging.push((column, count));
        }
    }
    Ok(hanging)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::temporary;

    #[tokio::test]
    async fn k5_every_column_that_needs_a_key_is_registered() {
        let (_directory, store) = temporary();
        let look = |connection: &Connection| {
            let mut statement = connection.prepare(
                "SELECT t.name, c.name, (SELECT group_concat(name) FROM pragma_table_info(t.name) WHERE pk > 0)
                 FROM sqlite_schema AS t, pragma_table_info(t.name) AS c
                 WHERE t.type = 'table' AND (c.name LIKE '%\\_sealed' ESCAPE '\\' OR c.name LIKE '%\\_hash' ESCAPE '\\')",
            )?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            Ok(rows.collect::<Result<Vec<(String, String, String)>, _>>()?)
        };
        let columns = store.read(look).await.expect("read");
        for (table, column, row) in &columns {
            let is_listed = COLUMNS.iter().any(|listed| listed.table == table && listed.column == column && listed.row == row);
            assert!(is_listed, "{table}.{column} (row {row}) is missing in COLUMNS");
        }
        assert_eq!(columns.len(), COLUMNS.len(), "COLUMNS names a column that is not there or is misnamed");
    }
}
