//! Rows of tenants.

use rusqlite::{Connection, OptionalExtension, Row};

use super::{Fault, Transaction};
use crate::clock::Timestamp;
use crate::inbound::tenant::Tenant;

const INSERT: &str = "INSERT INTO tenant (name, created_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
const BY_NAME: &str = "SELECT name, created_at FROM tenant WHERE name = ?1";
const ALL: &str = "SELECT name, created_at FROM tenant ORDER BY name";
const DELETE: &str = "DELETE FROM tenant WHERE name = ?1";

/// Adds a tenant; false when there is one of that name.
pub fn insert(transaction: &Transaction<'_>, name: &str, now: Timestamp) -> Result<bool, Fault> {
    Ok(transaction.prepare_cached(INSERT)?.execute((name, now))? == 1)
}

/// The tenant of that name.
pub fn by_name(connection: &Connection, name: &str) -> Result<Option<Tenant>, Fault> {
    Ok(connection.prepare_cached(BY_NAME)?.query_row([name], read).optional()?)
}

/// All tenants, by name.
pub fn all(connection: &Connection) -> Result<Vec<Tenant>, Fault> {
    Ok(connection.prepare_cached(ALL)?.query_map([], read)?.collect::<Result<_, _>>()?)
}

/// What became of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone.
    Gone,
    /// There was none.
    Missing,
    /// Records still belong to it.
    InUse,
}

/// Deletes a tenant to which nothing belongs.
pub fn delete(transaction: &Transaction<'_>, name: &str) -> Result<Deleted, Fault> {
    match transaction.prepare_cached(DELETE)?.execute([name]) {
        Ok(0) => Ok(Deleted::Missing),
        Ok(_) => Ok(Deleted::Gone),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => Ok(Deleted::InUse),
        Err(error) => Err(error.into()),
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Tenant> {
    Ok(Tenant { name: row.get(0)?, created_at: row.get(1)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::temporary;

    #[tokio::test]
    async fn tenants_come_and_go_while_nothing_belongs_to_them() {
        let (_directory, store) = temporary();
        let now = Timestamp::from_millis(5);
        assert!(store.write(move |transaction| insert(transaction, "sales", now)).await.expect("written"));
        assert!(!store.write(move |transaction| insert(transaction, "default", now)).await.expect("written"), "it exists from the start");
        let names: Vec<_> = store.read(all).await.expect("read").into_iter().map(|tenant| tenant.name).collect();
        assert_eq!(names, ["default", "sales"]);
        let belongs = |transaction: &Transaction<'_>| {
            let table = "CREATE TABLE belonging (tenant TEXT REFERENCES tenant (name)); INSERT INTO belonging VALUES ('sales')";
            Ok(transaction.execute_batch(table)?)
        };
        store.write(belongs).await.expect("written");
        assert_eq!(store.write(|transaction| delete(transaction, "sales")).await.expect("judged"), Deleted::InUse);
        store.write(|transaction| Ok(transaction.execute_batch("DELETE FROM belonging")?)).await.expect("written");
        assert_eq!(store.write(|transaction| delete(transaction, "sales")).await.expect("judged"), Deleted::Gone);
        assert_eq!(store.write(|transaction| delete(transaction, "sales")).await.expect("judged"), Deleted::Missing);
        assert_eq!(store.read(|connection| by_name(connection, "sales")).await.expect("read"), None);
    }
}
