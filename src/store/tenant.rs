//! Rows of tenants.

use rusqlite::{Connection, OptionalExtension, Row};

use super::{Fault, Transaction};
use crate::clock::Timestamp;
use crate::inbound::tenant::Tenant;

const INSERT: &str = "INSERT INTO tenant (name, created_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
const BY_NAME: &str = "SELECT name, created_at FROM tenant WHERE name = ?1";
const ALL: &str = "SELECT name, created_at FROM tenant ORDER BY name";
const DELETE: &str = "DELETE FROM tenant WHERE name = ?1";
// No tenant's name has a character that means something in a quoted JSON path.
const FORGET: &str = r#"UPDATE user SET permissions = json_remove(permissions, '$."' || ?1 || '"')
    WHERE json_type(permissions, '$."' || ?1 || '"') IS NOT NULL"#;

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

/// Every kind of record that belongs to a tenant. A migration that adds one adds its line here.
const BELONGING: &str = "SELECT kind, name, count(*) OVER () FROM (
        SELECT 1 AS place, iif(EXISTS (SELECT 1 FROM realm WHERE app = ib_app.id), 'realm', 'IB app') AS kind, name
            FROM ib_app WHERE tenant = ?1
        UNION ALL SELECT 2, 'OB app', name FROM ob_app WHERE tenant = ?1
        UNION ALL SELECT 3, 'peer', name FROM peer WHERE tenant = ?1
        UNION ALL SELECT 4, 'caller', name FROM caller WHERE tenant = ?1
        UNION ALL SELECT 5, 'role', name FROM role WHERE tenant = ?1
    ) ORDER BY place, name LIMIT 3";

/// Records that belong to a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Belonging {
    /// What the first three are and what they are called.
    pub first: Vec<(String, String)>,
    /// How many there are.
    pub count: u32,
}

/// What became of a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone.
    Gone,
    /// There was none.
    Missing,
    /// Records still belong to it.
    InUse(Belonging),
}

/// Deletes a tenant to which nothing belongs, and with it what people may do in it: another may be made of that name.
pub fn delete(transaction: &Transaction<'_>, name: &str) -> Result<Deleted, Fault> {
    match transaction.prepare_cached(DELETE)?.execute([name]) {
        Ok(0) => Ok(Deleted::Missing),
        Ok(_) => {
            transaction.prepare_cached(FORGET)?.execute([name])?;
            Ok(Deleted::Gone)
        }
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
            Ok(Deleted::InUse(belonging(transaction, name)?))
        }
        Err(error) => Err(error.into()),
    }
}

fn belonging(connection: &Connection, name: &str) -> Result<Belonging, Fault> {
    let mut belonging = Belonging::default();
    let mut statement = connection.prepare_cached(BELONGING)?;
    let mut rows = statement.query([name])?;
    while let Some(row) = rows.next()? {
        belonging.first.push((row.get(0)?, row.get(1)?));
        belonging.count = row.get(2)?;
    }
    Ok(belonging)
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
            let rows = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5)
                INSERT INTO caller (id, tenant, name, key, created_at)
                SELECT CAST(printf('%016d', i) AS BLOB), 'sales', 'shop' || i, CAST(printf('%032d', i) AS BLOB), 0 FROM n";
            Ok(transaction.execute_batch(rows)?)
        };
        store.write(belongs).await.expect("written");
        let first = ["shop1", "shop2", "shop3"].map(|name| ("caller".to_owned(), name.to_owned())).to_vec();
        let in_use = Deleted::InUse(Belonging { first, count: 5 });
        assert_eq!(store.write(|transaction| delete(transaction, "sales")).await.expect("judged"), in_use);
        store.write(|transaction| Ok(transaction.execute_batch("DELETE FROM caller")?)).await.expect("written");
        assert_eq!(store.write(|transaction| delete(transaction, "sales")).await.expect("judged"), Deleted::Gone);
        assert_eq!(store.write(|transaction| delete(transaction, "sales")).await.expect("judged"), Deleted::Missing);
        assert_eq!(store.read(|connection| by_name(connection, "sales")).await.expect("read"), None);
    }

    #[tokio::test]
    async fn every_kind_of_record_that_belongs_to_a_tenant_is_named() {
        let (_directory, store) = temporary();
        let look = |connection: &Connection| {
            let mut statement = connection.prepare(
                r#"SELECT t.name FROM sqlite_schema AS t, pragma_foreign_key_list(t.name) AS k
                    WHERE t.type = 'table' AND k."table" = 'tenant' AND k.on_delete <> 'CASCADE'"#,
            )?;
            Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?)
        };
        let tables = store.read(look).await.expect("read");
        assert!(!tables.is_empty());
        for table in tables {
            assert!(BELONGING.contains(&format!(" FROM {table} ")), "{table} is missing in BELONGING");
        }
    }
}
