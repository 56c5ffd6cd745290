//! Rows of callers.

use rusqlite::types::FromSqlError;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::json;
use super::{Fault, Transaction};
use crate::id::Id;
use crate::outbound::caller::Caller;

const INSERT: &str = "INSERT INTO caller (id, tenant, name, key, peers, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT (tenant, name) DO NOTHING";
const UPDATE: &str = "UPDATE caller SET key = ?2, peers = ?3 WHERE id = ?1";
const DELETE: &str = "DELETE FROM caller WHERE id = ?1";
const NAMED: &str = "SELECT id, tenant, name, key, peers, created_at FROM caller WHERE tenant = ?1 AND (name = ?2 OR lower(hex(id)) = ?2)";
const OF_TENANT: &str = "SELECT id, tenant, name, key, peers, created_at FROM caller WHERE tenant = ?1 ORDER BY name";
const PEERS: &str = "SELECT id, name FROM peer WHERE tenant = ?1";
const ALL: &str = "SELECT id, tenant, name, key, peers, created_at FROM caller";

/// Adds a caller; false when the name is taken in its tenant.
pub fn insert(transaction: &Transaction<'_>, caller: &Caller) -> Result<bool, Fault> {
    let row = params![caller.id, caller.tenant, caller.name, caller.key, peers_column(caller), caller.created_at];
    Ok(transaction.prepare_cached(INSERT)?.execute(row)? == 1)
}

/// Writes what can change of a caller: its key and its peers.
pub fn update(transaction: &Transaction<'_>, caller: &Caller) -> Result<(), Fault> {
    transaction.prepare_cached(UPDATE)?.execute(params![caller.id, caller.key, peers_column(caller)])?;
    Ok(())
}

/// Deletes a caller; false when there was none.
pub fn delete(transaction: &Transaction<'_>, id: Id) -> Result<bool, Fault> {
    Ok(transaction.prepare_cached(DELETE)?.execute([id])? == 1)
}

/// The caller of that name or id in a tenant.
pub fn named(connection: &Connection, tenant: &str, name: &str) -> Result<Option<Caller>, Fault> {
    Ok(connection.prepare_cached(NAMED)?.query_row([tenant, name], read).optional()?)
}

/// A tenant's callers, by name.
pub fn of_tenant(connection: &Connection, tenant: &str) -> Result<Vec<Caller>, Fault> {
    Ok(connection.prepare_cached(OF_TENANT)?.query_map([tenant], read)?.collect::<Result<_, _>>()?)
}

/// Every tenant's callers.
pub fn all(connection: &Connection) -> Result<Vec<Caller>, Fault> {
    Ok(connection.prepare_cached(ALL)?.query_map([], read)?.collect::<Result<_, _>>()?)
}

/// The peers of a tenant, whom its callers may call: identities and names.
pub fn peers_of_tenant(connection: &Connection, tenant: &str) -> Result<Vec<(Id, String)>, Fault> {
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    Ok(connection.prepare_cached(PEERS)?.query_map([tenant], read)?.collect::<Result<_, _>>()?)
}

fn peers_column(caller: &Caller) -> Option<String> {
    caller.peers.as_ref().map(json)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Caller> {
    Ok(Caller {
        id: row.get(0)?,
        tenant: row.get(1)?,
        name: row.get(2)?,
        key: row.get(3)?,
        peers: row.get::<_, Option<String>>(4)?.map(|list| peers(&list)).transpose()?,
        created_at: row.get(5)?,
    })
}

fn peers(list: &str) -> Result<Vec<Id>, FromSqlError> {
    let ids: Vec<String> = serde_json::from_str(list).map_err(FromSqlError::other)?;
    ids.iter().map(|id| id.parse().map_err(FromSqlError::other)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::secret::Digest;
    use crate::store::temporary;

    #[tokio::test]
    async fn a_caller_is_read_as_written_and_found_by_name_and_id_in_its_tenant() {
        let (_directory, store) = temporary();
        let mut shop = Caller {
            id: Id::from_bytes([0xab; 16]),
            tenant: "default".to_owned(),
            name: "shop".to_owned(),
            key: Digest::of("key"),
            peers: None,
            created_at: Timestamp::from_millis(7),
        };
        let written = shop.clone();
        assert!(store.write(move |transaction| insert(transaction, &written)).await.expect("written"));
        let taken = Caller { id: Id::from_bytes([2; 16]), key: Digest::of("other"), ..shop.clone() };
        assert!(!store.write(move |transaction| insert(transaction, &taken)).await.expect("judged"), "the name is taken");

        shop.peers = Some(vec![Id::from_bytes([3; 16])]);
        shop.key = Digest::of("new");
        let changed = shop.clone();
        store.write(move |transaction| update(transaction, &changed)).await.expect("written");
        assert_eq!(store.read(|connection| named(connection, "default", "shop")).await.expect("read"), Some(shop.clone()));
        assert_eq!(store.read(|connection| named(connection, "default", &"ab".repeat(16))).await.expect("read"), Some(shop.clone()));
        assert_eq!(store.read(|connection| named(connection, "other", "shop")).await.expect("read"), None);
        assert_eq!(store.read(|connection| of_tenant(connection, "default")).await.expect("read"), [shop.clone()]);
        assert_eq!(store.read(all).await.expect("read"), [shop.clone()]);
        assert!(store.write(move |transaction| delete(transaction, shop.id)).await.expect("judged"));
        assert!(!store.write(move |transaction| delete(transaction, shop.id)).await.expect("judged"));
    }
}
