//! What has run out is deleted, a little at a time, so that no other work waits long for it.

use super::{Store, StoreError, Transaction};
use crate::clock::Timestamp;

/// Rows deleted in one go.
const BATCH: usize = 200;

/// Every table with a `purge_at` column, and its primary key. A migration that adds such a table adds its line here.
const TABLES: &[(&str, &str)] = &[
    ("session", "digest"),
    ("client_secret", "id"),
    ("grant", "id"),
    ("authorization", "id"),
    ("access_token", "digest"),
    ("ticket", "digest"),
    ("handshake", "id"),
    ("outbox", "id"),
];

impl Store {
    /// Deletes every row whose `purge_at` is before `now`; how many there were.
    pub async fn purge(&self, now: Timestamp) -> Result<usize, StoreError> {
        let mut total = 0;
        for (table, key) in TABLES {
            let sql = format!(
                "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE purge_at < ?1 ORDER BY purge_at LIMIT {BATCH})"
            );
            loop {
                let sql = sql.clone();
                let delete = move |transaction: &Transaction<'_>| Ok(transaction.prepare_cached(&sql)?.execute([now])?);
                let deleted = self.write(delete).await?;
                total += deleted;
                if deleted < BATCH {
                    break;
                }
            }
        }
        Ok(total)
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::store::temporary;

    #[tokio::test]
    async fn every_table_that_runs_out_is_purged_by_an_index() {
        let (_directory, store) = temporary();
        let look = |connection: &Connection| {
            let mut statement = connection.prepare(
                "SELECT t.name, EXISTS (SELECT 1 FROM pragma_index_list(t.name) AS l, pragma_index_info(l.name) AS i
                        WHERE i.seqno = 0 AND i.name = 'purge_at'),
                        (SELECT group_concat(name, ', ') FROM (SELECT name FROM pragma_table_info(t.name) WHERE pk > 0 ORDER BY pk))
                 FROM sqlite_schema AS t, pragma_table_info(t.name) AS c WHERE t.type = 'table' AND c.name = 'purge_at'",
            )?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            Ok(rows.collect::<Result<Vec<(String, bool, String)>, _>>()?)
        };
        let tables = store.read(look).await.expect("read");
        for (table, has_index, key) in &tables {
            assert!(has_index, "{table}.purge_at needs an index");
            assert!(TABLES.contains(&(table.as_str(), key.as_str())), "(\"{table}\", \"{key}\") is missing in TABLES");
        }
        assert_eq!(tables.len(), TABLES.len(), "TABLES names a table that does not run out");
    }

    #[tokio::test]
    async fn what_has_run_out_goes_and_the_rest_stays() {
        let (_directory, store) = temporary();
        let fill = |transaction: &Transaction<'_>| {
            transaction.execute_batch(
                "INSERT INTO user (id, login, admin, permissions, created_at) VALUES (zeroblob(16), 'a', 0, '{}', 0);
                 WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
                 INSERT INTO session (digest, user, epoch, signed_in_at, purge_at)
                 SELECT CAST(printf('%032d', i) AS BLOB), zeroblob(16), 1, 0, i FROM n",
            )?;
            Ok(())
        };
        store.write(fill).await.expect("written");
        let before = store.commits();
        assert_eq!(store.purge(Timestamp::from_millis(701)).await.expect("purged"), 700);
        assert!(store.commits() - before >= 4, "in small steps");
        assert_eq!(store.purge(Timestamp::from_millis(701)).await.expect("purged"), 0);
        let left = |connection: &Connection| {
            Ok(connection.query_row("SELECT min(purge_at), count(*) FROM session", [], |row| Ok((row.get(0)?, row.get(1)?)))?)
        };
        assert_eq!(store.read(left).await.expect("read"), (701_i64, 300_i64));
    }
}
