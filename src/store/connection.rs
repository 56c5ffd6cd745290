//! How every connection is set up, and what is counted on it.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::trace::{TraceEvent, TraceEventCodes};
use rusqlite::{Connection, OpenFlags};

/// The database's name in the state directory.
pub(super) const FILE: &str = "p2pid.db";

/// `PRAGMA application_id`: "p2pi". Says whose file this is.
pub(super) const APPLICATION_ID: i32 = i32::from_be_bytes(*b"p2pi");

/// How long a statement waits for another process that holds the database, such as an operator's shell.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Prepared statements kept per connection: more than the program has.
const STATEMENTS: usize = 512;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// The one that changes the database.
    Write,
    /// One that only looks.
    Read,
}

/// Opens the database, which exists.
pub(super) fn connect(path: &Path, purpose: Use) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // A database that somebody has tampered with must not make us run code or follow its schema into surprises.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, 16 << 20)?;
    connection.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, 1 << 20)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    connection.set_limit(Limit::SQLITE_LIMIT_WORKER_THREADS, 0)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "mmap_size", 0)?;
    match purpose {
        Use::Write => {
            // The journal mode, WAL, is a property of the file; opening sets it once the file is known to be ours (open.rs).
            connection.pragma_update(None, "synchronous", "FULL")?;
            // What is overwritten or deleted leaves no trace in free pages.
            connection.pragma_update(None, "secure_delete", true)?;
            connection.pragma_update(None, "cache_size", -32 * 1024)?;
            connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
            // Runs after each commit that wrote something. Replaces SQLite's own checkpoints: the writer decides when it copies the log back (writer.rs).
            connection.wal_hook(Some(|_, pages| {
                LOG_PAGES.set(i64::from(pages));
                counted(|counters| &counters.commits);
                Ok(())
            }));
        }
        Use::Read => {
            connection.pragma_update(None, "query_only", true)?;
            connection.pragma_update(None, "cache_size", -4 * 1024)?;
        }
    }
    connection.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(count));
    Ok(connection)
}

/// What was done since the store was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    statements: AtomicU64,
    commits: AtomicU64,
}

thread_local! {
    /// Where the statements of this thread are counted. SQLite calls its trace hook on the thread that runs the statement.
    static COUNTERS: RefCell<Option<Arc<Counters>>> = const { RefCell::new(None) };

    /// Pages in the write-ahead log after the last commit on this thread.
    static LOG_PAGES: Cell<i64> = const { Cell::new(0) };
}

/// How many pages the write-ahead log had after the last commit on this thread.
pub(super) fn log_pages() -> i64 {
    LOG_PAGES.get()
}

impl Counters {
    /// From now on, what this thread executes is counted here.
    pub(super) fn adopt_thread(self: &Arc<Self>) {
        COUNTERS.set(Some(Arc::clone(self)));
    }

    pub(super) fn statements(&self) -> u64 {
        self.statements.load(Ordering::Relaxed)
    }

    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }
}

fn count(_: TraceEvent<'_>) {
    counted(|counters| &counters.statements);
}

fn counted(which: fn(&Counters) -> &AtomicU64) {
    COUNTERS.with_borrow(|counters| {
        if let Some(counters) = counters {
            which(counters).fetch_add(1, Ordering::Relaxed);
        }
    });
}
