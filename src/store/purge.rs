//! What has run out is deleted, a little at a time, so that no other work waits long for it.

use super::{Store, StoreError, Transaction};
use crate::clock::Timestamp;

/// Rows deleted in one go.
const BATCH: usize = 50;

/// Every table with a `purge_at` column, and its primary key. A migration that adds such a table adds its line here.
const TABLES: &[(&str, &str)] = &[
    ("session", "digest"),
    ("client_secret", "id"),
    ("grant", "id"),
    ("authorization", "id"),
    ("ticket", "digest"),
    ("handshake", "id"),
    ("outbox", "id"),
    ("app_token", "digest"),
    ("used_once", "digest"),
    ("pushed_request", "digest"),
    ("api_key", "digest"),
];

/// What goes with a grant. A grant may have many, so they go before it, in the same small steps.
const OF_GRANTS: &[&str] = &["access_token", "refresh_token"];

impl Store {
    /// Deletes every row whose `purge_at` is before `now`, without a pause; how many there were.
    pub async fn purge(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.purge_resting(now, || std::future::ready(())).await
    }

    /// The same, with a `rest` after each [`BATCH`] rows, so that whoever writes meanwhile hardly notices.
    pub async fn purge_resting<R>(&self, now: Timestamp, rest: impl Fn() -> R + Send + Sync) -> Result<usize, StoreError>
    where
        R: Future<Output = ()> + Send,
    {
        let mut total = self.purge_by(&of_grants(), now, &rest).await?;
        for sql in others() {
            total += self.purge_by(&[sql], now, &rest).await?;
        }
        Ok(total)
    }

    /// Repeats statements that delete [`BATCH`] rows at most, each in a write of its own, until none of them finds any.
    async fn purge_by<R>(&self, statements: &[String], now: Timestamp, rest: &(impl Fn() -> R + Send + Sync)) -> Result<usize, StoreError>
    where
        R: Future<Output = ()> + Send,
    {
        let mut total = 0;
        loop {
            let before = total;
            for sql in statements {
                let sql = sql.clone();
                let delete = move |transaction: &Transaction<'_>| Ok(transaction.prepare_cached(&sql)?.execute([now])?);
                let deleted = self.write(delete).await?;
                total += deleted;
                if deleted == BATCH {
                    rest().await;
                }
            }
            if total == before {
                return Ok(total);
            }
        }
    }
}

/// Grants and what goes with them. Each statement looks at the first [`BATCH`] grants only, which go as soon as they are empty: passing by
/// those that have been emptied already, again with each batch, would take longer the more there are.
fn of_grants() -> Vec<String> {
    let first = format!("SELECT id FROM grant WHERE purge_at < ?1 ORDER BY purge_at LIMIT {BATCH}");
    let tokens = OF_GRANTS.iter().map(|table| {
        let hanging = format!("SELECT t.digest FROM ({first}) AS first JOIN {table} t ON t.grant = first.id LIMIT {BATCH}");
        format!("DELETE FROM {table} WHERE digest IN ({hanging})")
    });
    let is_empty = OF_GRANTS.iter().map(|table| format!(" AND NOT EXISTS (SELECT 1 FROM {table} t WHERE t.grant = grant.id)"));
    let grants = format!("DELETE FROM grant WHERE id IN ({first}){}", is_empty.collect::<String>());
    tokens.chain([grants]).collect()
}

/// What goes by itself; each statement deletes [`BATCH`] rows at most.
fn others() -> impl Iterator<Item = String> {
    TABLES.iter().filter(|(table, _)| *table != "grant").map(|(table, key)| {
        let over = format!("SELECT {key} FROM {table} WHERE purge_at < ?1 ORDER BY purge_at LIMIT {BATCH}");
        format!("DELETE FROM {table} WHERE ({key}) IN ({over})")
    })
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
    async fn no_statement_reads_a_table_from_end_to_end() {
        let (_directory, store) = temporary();
        let look = |connection: &Connection| {
            let mut plans = Vec::new();
            for sql in of_grants().into_iter().chain(others()) {
                let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let steps = statement.query_map([0], |row| row.get::<_, String>(3))?.collect::<Result<Vec<_>, _>>()?;
                plans.push((sql, steps));
            }
            Ok(plans)
        };
        for (sql, steps) in store.read(look).await.expect("read") {
            assert!(steps.iter().any(|step| step.contains("purge_at<?")), "{sql}: {steps:?}");
            // The first few grants, once they are found, are gone through.
            let reads_all = |step: &String| step.starts_with("SCAN") && step != "SCAN first" || step.contains("TEMP B-TREE");
            assert!(!steps.iter().any(reads_all), "{sql}: {steps:?}");
        }
    }

    #[tokio::test]
    async fn the_tokens_of_a_grant_go_with_it_in_small_steps() {
        let (_directory, store) = temporary();
        let fill = |transaction: &Transaction<'_>| {
            transaction.execute_batch(
                "INSERT INTO user (id, login, admin, permissions, created_at) VALUES (zeroblob(16), 'a', 0, '{}', 0);
                 INSERT INTO ib_app VALUES (zeroblob(16), 'default', 'one', 'one', '[]', '[]', 'p2pi', NULL, NULL, 0, 0, '{}');
                 INSERT INTO grant VALUES (CAST(printf('%016d', 1) AS BLOB), zeroblob(16), zeroblob(16), 'p2pi', 1, 0, NULL, NULL, NULL, NULL, 700, NULL, 'consent'),
                    (CAST(printf('%016d', 2) AS BLOB), zeroblob(16), zeroblob(16), 'p2pi', 1, 0, NULL, NULL, NULL, NULL, 800, NULL, 'consent');
                 WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
                 INSERT INTO access_token (digest, grant, generation, scope, issued_at, expires_at, ended)
                 SELECT CAST(printf('%032d', i) AS BLOB), CAST(printf('%016d', 1 + i % 2) AS BLOB), i, 'p2pi', 0, 1, 0 FROM n",
            )?;
            Ok(())
        };
        store.write(fill).await.expect("written");
        let before = store.commits();
        assert_eq!(store.purge(Timestamp::from_millis(701)).await.expect("purged"), 1001);
        assert!(store.commits() - before >= 5, "in small steps");
        let left = |connection: &Connection| {
            let count = |table: &str| connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0));
            Ok((count("grant")?, count("access_token")?))
        };
        assert_eq!(store.read(left).await.expect("read"), (1, 1000), "an expired token is known as long as its grant");
    }

    #[tokio::test]
    async fn many_grants_that_have_run_out_go_whatever_hangs_on_them() {
        let (_directory, store) = temporary();
        let fill = |transaction: &Transaction<'_>| {
            transaction.execute_batch(
                "INSERT INTO ib_app VALUES (zeroblob(16), 'default', 'one', 'one', '[]', '[]', 'p2pi', NULL, NULL, 0, 0, '{}');
                 WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
                 INSERT INTO grant SELECT CAST(printf('%016d', i) AS BLOB), zeroblob(16), NULL, 'p2pi', 1, 0, NULL, NULL, NULL, NULL, i, NULL,
                    'consent' FROM n;
                 INSERT INTO access_token (digest, grant, generation, scope, issued_at, expires_at, ended)
                 SELECT CAST(printf('%032d', purge_at) AS BLOB), id, 1, 'p2pi', 0, 1, 0 FROM grant WHERE purge_at % 3 > 0",
            )?;
            Ok(())
        };
        store.write(fill).await.expect("written");
        // Of the 900 grants 600 have a token.
        assert_eq!(store.purge(Timestamp::from_millis(901)).await.expect("purged"), 1500);
        let left = |connection: &Connection| {
            let count = |table: &str| connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0));
            Ok((count("grant")?, count("access_token")?))
        };
        assert_eq!(store.read(left).await.expect("read"), (100, 67));
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
