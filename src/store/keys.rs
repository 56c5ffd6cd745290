//! The state keys as people see them: listed with what hangs on each, added, rotated.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::key_columns::{self, COLUMNS, Column, Kind, hanging};
use super::key_file::{self, KeyFileError, KeyId, StateKey};
use super::open::Explanation;
use super::{Fault, Place, Seals, Store, StoreError, Transaction};
use crate::audit::{Action, Entry, Record};

/// Rows sealed again in one go.
const BATCH: i64 = 100;

/// One state key, and what hangs on it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct KeyUse {
    /// Names it.
    pub id: KeyId,
    /// Whether it seals: it stands first in the list.
    pub seals: bool,
    /// Sealed values; a rotation moves them to the first key.
    pub sealed: i64,
    /// Keyed hashes; each moves to the first key at the next use of its secret.
    pub hashed: i64,
    /// Values that run out by themselves within minutes.
    pub passing: i64,
}

impl KeyUse {
    /// Whether its line can be removed from the list.
    pub fn is_free(&self) -> bool {
        !self.seals && self.sealed == 0 && self.hashed == 0 && self.passing == 0
    }
}

/// What a rotation did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Rotation {
    /// The key that was made, unless the list is somebody else's to change.
    pub added: Option<KeyId>,
    /// How many values were sealed again with the first key.
    pub resealed: usize,
    /// Every key, with what hangs on it now.
    pub keys: Vec<KeyUse>,
}

/// Why the key list was not changed.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.explain())]
pub enum KeyError {
    /// The list comes from the service manager.
    Credential(PathBuf),
    /// The list cannot be read or written.
    File(PathBuf, String),
    /// The database failed.
    Store(#[from] StoreError),
}

impl KeyError {
    /// What to tell.
    pub fn explain(&self) -> Explanation {
        match self {
            Self::Credential(path) => Explanation {
                code: "key_credential",
                message: "the key list cannot be changed from here".to_owned(),
                found: format!("the credential {}", path.display()),
                expected: "a key list in state_dir".to_owned(),
                next: "put a line with a new key into the credential, first in the list, restart, then run `p2pid key rotate`".to_owned(),
            },
            Self::File(path, what) => Explanation {
                code: "key_unreadable",
                message: format!("the key list {} cannot be changed", path.display()),
                found: what.clone(),
                expected: "a key list that this user can read and write".to_owned(),
                next: "check owner, mode and free space".to_owned(),
            },
            Self::Store(error) => Explanation {
                code: "unavailable",
                message: "the keys' use cannot be looked up".to_owned(),
                found: error.to_string(),
                expected: "a database that can be read and written".to_owned(),
                next: "see the log, then try again".to_owned(),
            },
        }
    }
}

/// Makes the key list of a state directory, with one new key; false when there is a list already.
pub fn make_key(state_dir: &Path) -> io::Result<bool> {
    let path = state_dir.join(key_file::FILE);
    match key_file::read(&path, true) {
        Err(KeyFileError::Missing) => key_file::write(&path, &[StateKey::generate()]).map(|()| true),
        _ => Ok(false),
    }
}

impl Store {
    /// Every key of the list in its order, with what hangs on it.
    pub async fn keys(&self) -> Result<Vec<KeyUse>, StoreError> {
        let ids: Vec<KeyId> = self.seals().proofs().into_iter().map(|(id, _)| id).collect();
        self.read(move |connection| ids.iter().enumerate().map(|(position, id)| usage(connection, *id, position == 0)).collect()).await
    }

    /// Makes a key and adds it to the end of the list: it opens, and does not seal yet.
    pub async fn add_key(&self) -> Result<KeyId, KeyError> {
        let _alone = self.inner.key_change.lock().await;
        self.extend_list(Action::StateKeyAdded, |keys, key| keys.push(key)).await
    }

    /// Makes a key, puts it first in the list, and seals with it what was sealed with others. A list that comes from the service manager
    /// is left as it is: what hangs on its later keys is sealed with its first.
    pub async fn rotate_keys(&self) -> Result<Rotation, KeyError> {
        let _alone = self.inner.key_change.lock().await;
        let added = match self.inner.credential {
            None => Some(self.extend_list(Action::StateKeyRotated, |keys, key| keys.insert(0, key)).await?),
            Some(_) => {
                self.write(|transaction| transaction.record(&Entry::of(Action::StateKeyRotated))).await?;
                None
            }
        };
        let mut resealed = 0;
        for column in COLUMNS.iter().filter(|column| column.kind == Kind::Sealed) {
            let mut after = Vec::new();
            loop {
                let seals = self.seals().clone();
                let from = after.clone();
                let (last, count) = self.write(move |transaction| reseal(transaction, &seals, column, &from)).await?;
                resealed += count;
                match last {
                    Some(last) => after = last,
                    None => break,
                }
            }
        }
        let keys = self.keys().await?;
        Ok(Rotation { added, resealed, keys })
    }

    /// The database learns of the key before the list has it: a crash between leaves a known key on which nothing hangs, which the next
    /// start forgets.
    async fn extend_list(&self, action: Action, put: impl FnOnce(&mut Vec<StateKey>, StateKey)) -> Result<KeyId, KeyError> {
        if let Some(path) = &self.inner.credential {
            return Err(KeyError::Credential(path.clone()));
        }
        let path = self.inner.state_dir.join(key_file::FILE);
        let failed = |what: String| KeyError::File(path.clone(), what);
        let mut keys = key_file::read(&path, false).map_err(|error| failed(error.to_string()))?;
        let key = StateKey::generate();
        let id = key.id;
        put(&mut keys, key);
        let next = Seals::new(&keys);
        let told = Entry::of(action).on(Record::of_instance("state_key", id, &id.to_string()));
        self.write(move |transaction| {
            key_columns::make_known(transaction, &next, transaction.now().wall)?;
            transaction.record(&told)
        })
        .await?;
        key_file::write(&path, &keys).map_err(|error| failed(error.to_string()))?;
        self.seals().replace(&keys);
        Ok(id)
    }
}

/// Seals up to [`BATCH`] rows after the row `after` again; the last row looked at, if there may be more, and how many were sealed.
fn reseal(transaction: &Transaction<'_>, seals: &Seals, column: &Column, after: &[u8]) -> Result<(Option<Vec<u8>>, usize), Fault> {
    transaction.is_told_elsewhere();
    let Column { table, row, column, .. } = *column;
    let select = format!("SELECT {row}, {column} FROM {table} WHERE {row} > ?1 AND {column} IS NOT NULL ORDER BY {row} LIMIT {BATCH}");
    let update = format!("UPDATE {table} SET {column} = ?2 WHERE {row} = ?1");
    let rows: Vec<(Vec<u8>, Vec<u8>)> =
        transaction.prepare_cached(&select)?.query_map([after], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    let first = seals.proofs()[0].0;
    let mut resealed = 0;
    for (row, sealed) in &rows {
        if sealed.starts_with(&first.0) {
            continue;
        }
        let place = Place { table, column, row };
        match seals.open(place, sealed) {
            Ok(secret) => {
                transaction.prepare_cached(&update)?.execute((row, seals.seal(place, &secret)))?;
                resealed += 1;
            }
            // It stays as it is, and listed: one damaged value must not keep the others on an old key.
            Err(error) => tracing::error!(%error, column, "a value cannot be sealed again"),
        }
    }
    let is_full = i64::try_from(rows.len()) == Ok(BATCH);
    Ok((rows.into_iter().next_back().map(|(row, _)| row).filter(|_| is_full), resealed))
}

fn usage(connection: &Connection, id: KeyId, seals: bool) -> Result<KeyUse, Fault> {
    let mut usage = KeyUse { id, seals, sealed: 0, hashed: 0, passing: 0 };
    for (column, count) in hanging(connection, id)? {
        match column.kind {
            Kind::Sealed => usage.sealed += count,
            Kind::Hashed => usage.hashed += count,
            Kind::Bound => usage.passing += count,
        }
    }
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rusqlite::params;

    use super::*;
    use crate::store::temporary;
    use crate::system::SystemClock;

    const SAMPLE: Column = Column { table: "sample", row: "id", column: "secret_sealed", kind: Kind::Sealed };

    fn place(row: &[u8]) -> Place<'_> {
        Place { table: "sample", column: "secret_sealed", row }
    }

    #[tokio::test]
    async fn k5_a_rotation_seals_again_in_batches_and_skips_what_is_damaged() {
        let (_directory, store) = temporary();
        let seals = store.seals().clone();
        let fill = move |transaction: &Transaction<'_>| {
            transaction.execute_batch("CREATE TABLE sample (id BLOB PRIMARY KEY, secret_sealed BLOB) STRICT")?;
            for number in 0..250_u16 {
                let row = number.to_be_bytes();
                let sealed = match number {
                    7 => None,
                    8 => Some(seals.seal(place(b"elsewhere"), b"x")),
                    _ => Some(seals.seal(place(&row), row.as_slice())),
                };
                transaction.execute("INSERT INTO sample VALUES (?1, ?2)", params![row, sealed])?;
            }
            Ok(())
        };
        store.write(fill).await.expect("written");
        let old = store.keys().await.expect("keys")[0].id;
        let added = store.rotate_keys().await.expect("rotated").added.expect("the list is ours");
        let (mut after, mut resealed, mut batches) = (Vec::new(), 0, 0);
        loop {
            let (seals, from) = (store.seals().clone(), after.clone());
            let (last, count) = store.write(move |transaction| reseal(transaction, &seals, &SAMPLE, &from)).await.expect("sealed again");
            resealed += count;
            batches += 1;
            match last {
                Some(last) => after = last,
                None => break,
            }
        }
        assert_eq!((resealed, batches), (248, 3));
        let seals = store.seals().clone();
        let look = move |connection: &Connection| {
            let mut statement = connection.prepare("SELECT id, secret_sealed FROM sample WHERE secret_sealed IS NOT NULL")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (id, sealed): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
                if sealed.starts_with(&old.0) {
                    assert_eq!(id, 8_u16.to_be_bytes(), "only the damaged one stays");
                } else {
                    assert_eq!(seals.open(place(&id), &sealed)?.as_slice(), id);
                }
            }
            Ok(())
        };
        store.read(look).await.expect("read");
        let keys = store.keys().await.expect("keys");
        assert_eq!(
            keys.iter().map(|key| (key.id, key.seals, key.is_free())).collect::<Vec<_>>(),
            [(added, true, false), (old, false, true)]
        );
    }

    #[tokio::test]
    async fn k5_a_key_that_is_added_opens_at_the_next_start_and_a_free_one_may_go() {
        let (directory, store) = temporary();
        let added = store.add_key().await.expect("added");
        let sealed = store.seals().seal(place(b"x"), b"secret");
        store.close().await;
        let open = || Store::open(directory.path(), None, Arc::new(SystemClock::new()));
        let store = open().expect("opened");
        let keys = store.keys().await.expect("keys");
        assert_eq!((keys.len(), keys[1].id, keys[1].seals), (2, added, false));
        assert_eq!(store.seals().open(place(b"x"), &sealed).expect("opened").as_slice(), b"secret");
        store.close().await;
        let path = directory.path().join(key_file::FILE);
        let text = std::fs::read_to_string(&path).expect("a list");
        std::fs::write(&path, text.lines().next().expect("a line")).expect("written");
        let store = open().expect("nothing hangs on the key that is gone");
        assert_eq!(store.keys().await.expect("keys").len(), 1);
    }

    #[tokio::test]
    async fn k5_a_key_that_something_hangs_on_is_missed_until_a_rotation() {
        let (directory, store) = temporary();
        let place = Place { table: "ob_app", column: "client_secret_sealed", row: &[7; 16] };
        let sealed = store.seals().seal(place, b"the secret");
        let fill = move |transaction: &Transaction<'_>| {
            let sql =
                "INSERT INTO ob_app (id, tenant, name, client_id, client_secret_sealed, grant_type, scope, issuer, guarded, created_at)
                VALUES (?1, 'default', 'a', 'b', ?2, 'authorization_code', '', 'https://two.example.com', 0, 0)";
            Ok(transaction.execute(sql, params![place.row, sealed])?)
        };
        store.write(fill).await.expect("written");
        let added = store.add_key().await.expect("added");
        store.close().await;

        let path = directory.path().join(key_file::FILE);
        let list = std::fs::read_to_string(&path).expect("a list");
        let (first, second) = list.split_once('\n').expect("two lines");
        let open = || Store::open(directory.path(), None, Arc::new(SystemClock::new()));
        std::fs::write(&path, second).expect("written");
        let error = open().expect_err("a secret hangs on the key that is gone").to_string();
        assert!(error.contains(&first[..8]) && error.contains("1 in ob_app.client_secret_sealed"), "{error}");

        std::fs::write(&path, &list).expect("written");
        let store = open().expect("opened");
        let rotation = store.rotate_keys().await.expect("rotated");
        assert_eq!((rotation.resealed, rotation.keys.len()), (1, 3));
        assert_eq!(rotation.keys.iter().map(|key| key.sealed).collect::<Vec<_>>(), [1, 0, 0]);
        assert_eq!(rotation.keys[2].id, added);
        store.close().await;
        let newest = std::fs::read_to_string(&path).expect("a list");
        std::fs::write(&path, newest.lines().next().expect("a line")).expect("written");
        let store = open().expect("nothing hangs on the others");
        let look =
            move |connection: &Connection| Ok(connection.query_row("SELECT client_secret_sealed FROM ob_app", [], |row| row.get(0))?);
        let sealed: Vec<u8> = store.read(look).await.expect("read");
        assert_eq!(store.seals().open(place, &sealed).expect("opened").as_slice(), b"the secret");
    }

    #[tokio::test]
    async fn k5_a_list_of_the_service_manager_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let credential = directory.path().join("p2pid-key");
        key_file::write(&credential, &[StateKey::generate(), StateKey::generate()]).expect("written");
        let before = std::fs::read(&credential).expect("read");
        let state_dir = directory.path().join("state");
        let store = Store::open(&state_dir, Some(&credential), Arc::new(SystemClock::new())).expect("opened");
        assert!(!state_dir.join("key").exists());
        assert!(matches!(store.add_key().await, Err(KeyError::Credential(_))));
        let rotation = store.rotate_keys().await.expect("rotated");
        assert_eq!((rotation.added, rotation.keys.len()), (None, 2));
        assert_eq!(std::fs::read(&credential).expect("read"), before);
    }
}
