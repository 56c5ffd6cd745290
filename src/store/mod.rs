//! What the daemon knows, in one SQLite database: written by one thread in group commits, read by a few others.
//!
//! [`Store::write`] is how everything durable happens. The writer thread drains what is waiting into one transaction, judges each item in
//! a savepoint of its own, and answers all of them after the one sync (`writer.rs`): durability costs a sync per batch. [`Store::read`]
//! looks at one consistent state on a thread of the reader pool. Secrets that must be shown again are sealed by [`Seals`], the others are
//! kept as digests. Each record has a file with its rows; each migration is a file of SQL.

pub mod access_token;
pub mod api_key;
pub mod app_token;
pub mod audit;
pub mod authorization;
mod backup;
pub mod caller;
mod connection;
pub mod grant;
pub mod handshake;
pub mod held_token;
pub mod ib_app;
mod key_columns;
mod key_file;
mod keys;
pub mod link;
mod migrations;
pub mod ob_app;
mod open;
pub mod outbox;
pub mod peer;
mod purge;
pub mod pushed_request;
mod reader;
pub mod realm;
pub mod refresh_token;
pub mod role;
pub mod rows;
mod schema_copy;
mod seal;
pub mod session;
pub mod tenant;
pub mod ticket;
pub mod token_table;
pub mod used_once;
pub mod user;
mod writer;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::watch;

use crate::clock::{Clock, Moment};

pub use backup::{BackupError, BackupReport, RestoreReport, backup, restore};
pub(crate) use key_file::replace as replace_private;
pub use key_file::{FILE as KEY_FILE, KeyId};
pub use keys::{KeyError, KeyUse, Rotation, make_key};
pub use open::{Explanation, OpenError};
pub use seal::{Place, SealFault, Seals, Verified};

use connection::Counters;

/// The open database. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    state_dir: PathBuf,
    credential: Option<PathBuf>,
    /// One change of the key list at a time.
    key_change: tokio::sync::Mutex<()>,
    epoch: i64,
    seals: Seals,
    counters: Arc<Counters>,
    writer: writer::Queue,
    readers: reader::Queue,
    lost: watch::Receiver<Option<String>>,
    reopenings: watch::Receiver<()>,
}

/// The transaction that a judge works in: a connection inside a savepoint, which only the writer begins and ends.
#[derive(Debug)]
pub struct Transaction<'c> {
    connection: &'c Connection,
    now: Moment,
    /// Where it comes from, for the audit.
    trail: audit::Trail,
}

/// What makes a transaction undone: the database, a row or a seal is not as it should be. A refusal is not a fault: it commits.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// SQLite refused a statement.
    #[error("SQLite: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A row holds what no version of this program writes.
    #[error("corrupt row in {table}: {what}")]
    Corrupt {
        /// Where.
        table: &'static str,
        /// What is wrong with it; never a secret.
        what: String,
    },
    /// A sealed value does not open.
    #[error(transparent)]
    Seal(#[from] SealFault),
}

/// Why there is no answer. The store has logged what there is to say; callers map this to a status.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Too much is waiting: 503, try again.
    #[error("the store's queue is full")]
    Overloaded,
    /// The deadline passed before it was judged, so it never will be: 503.
    #[error("the request waited too long for the store")]
    Expired,
    /// The database cannot be written or read now, or it is unknown whether the commit took hold: 503.
    #[error("the store is not available")]
    Unavailable,
    /// What was asked failed and changed nothing: 500.
    #[error("the store failed: {0}")]
    Fault(Fault),
    /// The judge panicked and changed nothing: 500.
    #[error("a decision panicked")]
    Panicked,
}

impl Transaction<'_> {
    /// When this is judged: one reading of the clock for the whole judgement.
    pub fn now(&self) -> Moment {
        self.now
    }
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl Store {
    /// Opens the database in `state_dir`, which is made (0700) when it is missing, and takes the directory's lock.
    ///
    /// The key list is `credential` when that is given, else `state_dir/key`, which is made (0600) when there is neither key nor database.
    pub fn open(state_dir: &Path, credential: Option<&Path>, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        open::open(state_dir, credential, clock)
    }

    /// Judges in the next group commit and answers when the result is durable.
    ///
    /// `judge` runs on the writer thread. It may be run again when the batch that it was part of is undone, so it has no effects besides
    /// those on its transaction. An error of it undoes its own changes only. It is run even when the caller has gone away meanwhile, so
    /// nobody escapes a judgement by hanging up. What it records in the audit is told of whom [`audit::acting`] names around this.
    pub async fn write<T, F>(&self, judge: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Transaction<'_>) -> Result<T, Fault> + Send + 'static,
    {
        self.inner.writer.put(judge, None).await
    }

    /// As [`Store::write`], but what was not judged within `longest` of `since` never is, and answered with [`StoreError::Expired`].
    pub async fn write_within<T, F>(&self, since: Moment, longest: Duration, judge: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Transaction<'_>) -> Result<T, Fault> + Send + 'static,
    {
        self.inner.writer.put(judge, Some((since, longest))).await
    }

    /// Looks at one consistent state of the database on a thread of the reader pool; writing is refused by SQLite there.
    pub async fn read<T, F>(&self, look: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        self.inner.readers.put(look).await
    }

    /// Seals, opens and compares secrets with the state keys. Cheap to clone into a judge.
    pub fn seals(&self) -> &Seals {
        &self.inner.seals
    }

    /// Which life of the database this is. A restored backup begins a new one; codes, tokens, tickets and sessions of an earlier one are refused.
    pub fn epoch(&self) -> i64 {
        self.inner.epoch
    }

    /// How many SQL statements the writer and the readers have executed since the store was opened.
    pub fn statements(&self) -> u64 {
        self.inner.counters.statements()
    }

    /// How many transactions that changed something were committed: so many syncs were waited for.
    pub fn commits(&self) -> u64 {
        self.inner.counters.commits()
    }

    /// Where database, keys and certificates are.
    pub fn state_dir(&self) -> &Path {
        &self.inner.state_dir
    }

    /// Completes with the reason when the database can no longer be trusted (two commits in a row had an unknown outcome): the process
    /// must end and be started again. Pending while all is well.
    pub async fn lost(&self) -> String {
        let mut lost = self.inner.lost.clone();
        loop {
            if let Some(reason) = lost.borrow_and_update().clone() {
                return reason;
            }
            if lost.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Changes whenever the outcome of a commit was unknown and the database has been opened again since: what is in memory of it may be
    /// older than what it holds.
    pub fn reopenings(&self) -> watch::Receiver<()> {
        self.inner.reopenings.clone()
    }

    /// Commits what is waiting, closes the database and gives up the lock on `state_dir`. What comes later is [`StoreError::Unavailable`].
    pub async fn close(&self) {
        self.inner.readers.close().await;
        self.inner.writer.close().await;
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("state_dir", &self.inner.state_dir).field("epoch", &self.inner.epoch).finish_non_exhaustive()
    }
}

/// A row of `table` holds in `column` what no version of this program writes.
fn corrupt(table: &'static str, column: &str) -> Fault {
    Fault::Corrupt { table, what: format!("{column} is none of its values") }
}

/// A URL as it stands in a row.
fn url(table: &'static str, text: &str) -> Result<url::Url, Fault> {
    url::Url::parse(text).map_err(|_| corrupt(table, "a URL"))
}

#[cfg(test)]
#[path = "tests/sample.rs"]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

/// A new database in a directory of its own, which lasts as long as the first of the two.
#[cfg(test)]
pub(crate) fn temporary() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(directory.path(), None, Arc::new(crate::system::SystemClock::new())).expect("a new store");
    (directory, store)
}
