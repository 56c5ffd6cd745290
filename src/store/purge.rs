//! What has run out is deleted, a little at a time, so that no other work waits long for it.

use super::{Store, StoreError, Transaction};
use crate::clock::Timestamp;

/// Rows deleted in one go.
pub(super) const BATCH: usize = 50;

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
    ("ib_app", "id"),
    ("user", "id"),
];

/// Those of them whose rows others may hang on, many of them, and that are emptied before they go.
const EMPTIED: &[&str] = &["grant", "ib_app", "user"];

/// What goes with a grant. A grant may have many, so they go before it, in the same small steps.
const OF_GRANTS: &[&str] = &["access_token", "refresh_token"];

/// What goes with an app beside its grants, in the same way.
const OF_APPS: &[(&str, &str)] = &[("client_secret", "id"), ("authorization", "id"), ("app_token", "digest"), ("pushed_request", "digest")];

impl Store {
    /// Deletes every row whose `purge_at` is before `now`, without a pause; how many there were.
    pub async fn purge(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.purge_resting(now, || std::future::ready(())).await
    }

    /// The same, with a `rest` after each [`BATCH`] rows, so that whoever writes meanwhile hardly notices. All kinds of rows are taken in
    /// turn: where one comes as fast as it goes, the others go too.
    pub async fn purge_resting<R>(&self, now: Timestamp, rest: impl Fn() -> R + Send + Sync) -> Result<usize, StoreError>
    where
        R: Future<Output = ()> + Send,
    {
        self.purge_kinds(kinds(), now, rest).await
    }

    /// Repeats the statements of all kinds, which delete [`BATCH`] rows at most, each in a write of its own, until none finds any.
    pub(super) async fn purge_kinds<R>(
        &self,
        mut kinds: Vec<Vec<String>>,
        now: Timestamp,
        rest: impl Fn() -> R + Send + Sync,
    ) -> Result<usize, StoreError>
    where
        R: Future<Output = ()> + Send,
    {
        let mut total = 0;
        while !kinds.is_empty() {
            let mut left = Vec::with_capacity(kinds.len());
            for statements in kinds {
                let mut some = 0;
                for sql in &statements {
                    let sql = sql.clone();
                    let delete = move |transaction: &Transaction<'_>| Ok(transaction.prepare_cached(&sql)?.execute([now])?);
                    let deleted = self.write(delete).await?;
                    some += deleted;
                    if deleted == BATCH {
                        rest().await;
                    }
                }
                total += some;
                if some > 0 {
                    left.push(statements);
                }
            }
            kinds = left;
        }
        Ok(total)
    }
}

/// What is deleted, by kinds. The statements of a kind are gone through in their order, again and again until none of them finds any.
fn kinds() -> Vec<Vec<String>> {
    let grants = with_tokens(&format!("SELECT id FROM grant WHERE purge_at < ?1 ORDER BY purge_at LIMIT {BATCH}"));
    let alone = TABLES.iter().filter(|(table, _)| !EMPTIED.contains(table)).map(|(table, key)| {
        let over = format!("SELECT {key} FROM {table} WHERE purge_at < ?1 ORDER BY purge_at LIMIT {BATCH}");
        vec![format!("DELETE FROM {table} WHERE {key} IN ({over})")]
    });
    [grants, apps(), people()].into_iter().chain(alone).collect()
}

/// Those of the grants that `first` selects, and what goes with them. Each statement looks at the first [`BATCH`] grants only, which go as soon as
/// they are empty: passing by those that have been emptied already, again with each batch, would take longer the more there are.
fn with_tokens(first: &str) -> Vec<String> {
    let tokens = OF_GRANTS.iter().map(|table| {
        let hanging = format!("SELECT t.digest FROM ({first}) AS first JOIN {table} t ON t.grant = first.id LIMIT {BATCH}");
        format!("DELETE FROM {table} WHERE digest IN ({hanging})")
    });
    let is_empty = OF_GRANTS.iter().map(|table| format!(" AND NOT EXISTS (SELECT 1 FROM {table} t WHERE t.grant = grant.id)"));
    let grants = format!("DELETE FROM grant WHERE id IN ({first}){}", is_empty.collect::<String>());
    tokens.chain([grants]).collect()
}

/// The app that was deleted first, once nothing hangs on it any more, and what does.
fn apps() -> Vec<String> {
    const GONE: &str = "SELECT id FROM ib_app WHERE purge_at < ?1 ORDER BY purge_at LIMIT 1";
    // Of a realm: everybody may hold a role in it, while there are few roles.
    const MEMBERS: &str = "FROM realm_role r JOIN realm_member m ON m.role = r.id WHERE r.realm";
    let mut statements = with_tokens(&format!("SELECT id FROM grant WHERE app = ({GONE}) LIMIT {BATCH}"));
    for (table, key) in OF_APPS {
        statements.push(format!("DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE app = ({GONE}) LIMIT {BATCH})"));
    }
    statements.push(format!("DELETE FROM realm_member WHERE (role, user) IN (SELECT m.role, m.user {MEMBERS} = ({GONE}) LIMIT {BATCH})"));
    let hanging = ["grant"].into_iter().chain(OF_APPS.iter().map(|(table, _)| *table));
    let is_empty = hanging.map(|table| format!(" AND NOT EXISTS (SELECT 1 FROM {table} t WHERE t.app = ib_app.id)"));
    let app = format!("DELETE FROM ib_app WHERE id = ({GONE}){}", is_empty.collect::<String>());
    statements.push(format!("{app} AND NOT EXISTS (SELECT 1 {MEMBERS} = ib_app.id)"));
    statements
}

/// Who was deleted first, once nothing says that it allowed it. Grants stay; those that are being ended are found by who allowed them.
fn people() -> Vec<String> {
    const GONE: &str = "SELECT id FROM user WHERE purge_at < ?1 AND NOT EXISTS (SELECT 1 FROM ending WHERE ending.user = user.id)
        ORDER BY purge_at LIMIT 1";
    let some = |table: &str| format!("id IN (SELECT id FROM {table} WHERE user = ({GONE}) LIMIT {BATCH})");
    let is_empty = ["authorization", "grant"].map(|table| format!(" AND NOT EXISTS (SELECT 1 FROM {table} t WHERE t.user = user.id)"));
    vec![
        format!("DELETE FROM authorization WHERE {}", some("authorization")),
        format!("UPDATE grant SET user = NULL WHERE {}", some("grant")),
        format!("DELETE FROM user WHERE id = ({GONE}){}", is_empty.concat()),
    ]
}

#[cfg(test)]
mod tests;
