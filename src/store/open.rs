//! Opening the store: take the lock, find the key, look at the file before touching it, bring the schema up to date, start the threads.
//!
//! Whatever is not as expected stops the start with what was found, what was expected and the next step. Nothing here deletes a database.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use rustix::fs::OFlags;

use super::backup::BackupError;
use super::connection::{self, APPLICATION_ID, Counters, Use};
use super::key_file::{self, KeyFileError, KeyId, StateKey};
use super::migrations::{self, NEWEST, NotTaken};
use super::{Inner, Seals, Store, audit, key_columns, reader, writer};
use crate::audit::{Action, Entry};
use crate::clock::{Clock, Timestamp};

/// SQLite before this can damage a database in WAL mode when two connections write and checkpoint at once (fixed in 3.51.3).
const SQLITE_AT_LEAST: i32 = 3_051_003;

/// A larger database is not checked page by page at each start, which would hold the start up.
const CHECKED_AT_START: u64 = 16 << 20;

pub(super) const LOCK_FILE: &str = "lock";
const EPOCH_FILE: &str = "epoch";

/// Why the store did not open. Nothing was changed but, at most, a directory made and a schema brought up to date.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.explain())]
pub enum OpenError {
    /// The SQLite that was linked has a known bug.
    Sqlite(i32),
    /// A file or directory cannot be made, read or written.
    Io(PathBuf, io::Error),
    /// Another process has the state directory.
    Locked(PathBuf, String),
    /// There is a database, but no key list.
    KeyMissing(PathBuf),
    /// The key list is not one, or is exposed.
    KeyFile(PathBuf, String),
    /// The key list is not the one that this database was made with.
    WrongKey {
        /// The key list.
        path: PathBuf,
        /// The keys in the list.
        found: Vec<KeyId>,
        /// The keys that the database knows.
        expected: Vec<KeyId>,
    },
    /// The list has another key under a name that the database knows.
    OtherKey {
        /// The key list.
        path: PathBuf,
        /// The key.
        key: KeyId,
    },
    /// Values hang on a key that the list no longer has.
    KeyNeeded(KeyId, String),
    /// The file is no database of ours.
    NotOurs(PathBuf, String),
    /// The database is damaged.
    Corrupt(PathBuf, String),
    /// A newer version of the program has used it.
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
    },
    /// The schema has to change, and there is no copy of the database as it is.
    NotKept {
        /// Its schema version.
        version: u32,
        /// Why there is none.
        error: Box<BackupError>,
    },
    /// Anything else that SQLite says.
    Database(PathBuf, rusqlite::Error),
}

/// A failure for people and scripts: what it is about, what was found, what was expected, what to do.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Explanation {
    /// For scripts.
    pub code: &'static str,
    /// What failed.
    pub message: String,
    /// What was there.
    pub found: String,
    /// What should have been there.
    pub expected: String,
    /// The next step.
    pub next: String,
}

impl std::fmt::Display for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: found {}, expected {}; {}", self.message, self.found, self.expected, self.next)
    }
}

impl OpenError {
    /// What to tell.
    pub fn explain(&self) -> Explanation {
        let say =
            |code, message: String, found: String, expected: String, next: String| Explanation { code, message, found, expected, next };
        match self {
            Self::Sqlite(found) => say(
                "sqlite_version",
                "the SQLite in this program can damage databases".to_owned(),
                found.to_string(),
                format!("at least {SQLITE_AT_LEAST}"),
                "build with the bundled SQLite".to_owned(),
            ),
            Self::Io(path, error) => say(
                "state_dir",
                format!("{} cannot be used", path.display()),
                error.to_string(),
                "a file or directory that this user can read and write".to_owned(),
                "check owner, mode and free space".to_owned(),
            ),
            Self::Locked(path, process) => say(
                "locked",
                format!("{} is in use", path.display()),
                format!("process {process} holding its lock"),
                "one process per state directory".to_owned(),
                "stop that process, or give this instance a state_dir of its own".to_owned(),
            ),
            Self::KeyMissing(path) => say(
                "key_missing",
                "there is a database, but not the key that its secrets are sealed with".to_owned(),
                format!("no {}", path.display()),
                "the key list that this database was made with".to_owned(),
                "put the key list back from where you keep it; without it the sealed secrets are lost".to_owned(),
            ),
            Self::KeyFile(path, what) => say(
                "key_unreadable",
                format!("the key list {} cannot be used", path.display()),
                what.clone(),
                "lines of `key-id base64`, readable by the daemon's user only (mode 0600)".to_owned(),
                "correct the file, or put it back from where you keep it".to_owned(),
            ),
            Self::WrongKey { path, found, expected } => say(
                "wrong_key",
                format!("the key list {} is not this database's", path.display()),
                list(found),
                list(expected),
                "put back the key list that this database was made with; a new key is added with `p2pid key add`".to_owned(),
            ),
            Self::OtherKey { path, key } => say(
                "wrong_key",
                format!("the key list {} is not this database's", path.display()),
                format!("another key under the name {key}"),
                format!("the key {key} that this database was made with"),
                "put back the key list that this database was made with".to_owned(),
            ),
            Self::KeyNeeded(key, what) => say(
                "key_needed",
                format!("key {key} is gone from the key list"),
                format!("values that need it: {what}"),
                "a key list with every key that something hangs on".to_owned(),
                format!(
                    "put the line of {key} back from a copy of the key list, and start: while the daemon runs `p2pid key rotate` frees the key, and \
                     `p2pid key list` shows when nothing hangs on it. Where no copy is left, `p2pid restore` a backup that opens with the keys \
                     that are there"
                ),
            ),
            Self::NotOurs(path, found) => say(
                "not_ours",
                format!("{} is not a database of p2pid", path.display()),
                found.clone(),
                "a database that p2pid made".to_owned(),
                "move the file away, or correct state_dir".to_owned(),
            ),
            Self::Corrupt(path, what) => say(
                "corrupt",
                format!("the database {} is damaged", path.display()),
                what.clone(),
                "a database that passes its own check".to_owned(),
                "keep a copy of the directory, then put back a backup with `p2pid restore`".to_owned(),
            ),
            Self::Newer { path, found } => say(
                "newer_database",
                format!("the database {} was used by a newer p2pid", path.display()),
                format!("schema version {found}"),
                format!("at most {NEWEST}"),
                "install that version or a later one, or put back a backup made before the upgrade".to_owned(),
            ),
            Self::NotKept { version, error } => say(
                "upgrade_not_kept",
                format!(
                    "the database has schema version {version}, and this p2pid changes it to {NEWEST} only beside a copy of it as it is"
                ),
                error.to_string(),
                "room in the state folder for a whole copy of the database".to_owned(),
                "make room, and start again; nothing was changed, and the version before still opens the database".to_owned(),
            ),
            Self::Database(path, error) => say(
                "database",
                format!("the database {} cannot be opened", path.display()),
                error.to_string(),
                "a database that can be read and written".to_owned(),
                "check owner, mode, free space and whether another program holds the file".to_owned(),
            ),
        }
    }
}

fn list(keys: &[KeyId]) -> String {
    let keys: Vec<String> = keys.iter().map(KeyId::to_string).collect();
    format!("key {}", keys.join(", "))
}

pub(super) fn open(state_dir: &Path, credential: Option<&Path>, clock: Arc<dyn Clock>) -> Result<Store, OpenError> {
    if rusqlite::version_number() < SQLITE_AT_LEAST {
        return Err(OpenError::Sqlite(rusqlite::version_number()));
    }
    DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(|error| OpenError::Io(state_dir.to_owned(), error))?;
    let lock = Lock::take(state_dir)?;
    let path = state_dir.join(connection::FILE);
    let length = fs::metadata(&path).map(|metadata| metadata.len()).ok();
    // A start that was interrupted leaves an empty file, but no epoch beside it yet.
    if length == Some(0) && read_epoch(state_dir)?.is_some() {
        return Err(OpenError::Corrupt(path, "an empty file where a database was".to_owned()));
    }
    let is_new = length.is_none_or(|length| length == 0);
    let seals = Seals::new(&key_list(state_dir, credential, is_new)?);
    if is_new {
        // SQLite gives its other files the mode of this one.
        let made = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        made.and_then(|file| file.sync_all()).map_err(|error| OpenError::Io(path.clone(), error))?;
    }
    let mut connection = connection::connect(&path, Use::Write).map_err(|error| refused(&path, error))?;
    inspect(&connection, &path)?;
    let now = clock.now().wall;
    let key_path = credential.map_or_else(|| state_dir.join(key_file::FILE), Path::to_owned);
    let epoch = prepare(&mut connection, state_dir, &key_path, &seals, now).map_err(|error| match error {
        Unprepared::Refused(error) => error,
        Unprepared::Database(error) => refused(&path, error),
    })?;

    let counters = Arc::new(Counters::default());
    let connections = reader::Connections::new();
    let no_thread = |error| OpenError::Io(state_dir.to_owned(), error);
    let readers = reader::Queue::start(path.clone(), connections.clone(), &counters).map_err(no_thread)?;
    let writer::Started { queue: writer, lost, reopenings } =
        writer::Queue::start(connection, path, lock, connections, Arc::clone(&clock), Arc::clone(&counters)).map_err(no_thread)?;
    let (state_dir, credential) = (state_dir.to_owned(), credential.map(Path::to_owned));
    Ok(Store {
        inner: Arc::new(Inner {
            state_dir,
            credential,
            key_change: tokio::sync::Mutex::new(()),
            epoch,
            seals,
            counters,
            writer,
            readers,
            lost,
            reopenings,
        }),
    })
}

/// The key list. A key is made only together with a new database.
fn key_list(state_dir: &Path, credential: Option<&Path>, is_new: bool) -> Result<Vec<StateKey>, OpenError> {
    let path = credential.map_or_else(|| state_dir.join(key_file::FILE), Path::to_owned);
    match key_file::read(&path, credential.is_some()) {
        Ok(keys) => Ok(keys),
        Err(KeyFileError::Missing) if credential.is_none() && is_new => {
            let keys = vec![StateKey::generate()];
            key_file::write(&path, &keys).map_err(|error| OpenError::Io(path, error))?;
            Ok(keys)
        }
        Err(KeyFileError::Missing) => Err(OpenError::KeyMissing(path)),
        Err(error) => Err(OpenError::KeyFile(path, error.to_string())),
    }
}

/// Looks at the file before anything is changed in it.
pub(super) fn inspect(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).map_err(|error| refused(path, error));
    let (application, version) = (number("application_id")?, number("user_version")?);
    if application != i64::from(APPLICATION_ID) {
        let tables = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
        // A start that was interrupted leaves a database with nothing in it.
        if application != 0 || version != 0 || tables.map_err(|error| refused(path, error))? != 0 {
            return Err(OpenError::NotOurs(path.to_owned(), format!("application id {application}")));
        }
    }
    if usize::try_from(version).map_or(true, |version| version > NEWEST) {
        return Err(OpenError::Newer { path: path.to_owned(), found: version });
    }
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() <= CHECKED_AT_START) {
        let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|error| refused(path, error))?;
        if found != "ok" {
            return Err(OpenError::Corrupt(path.to_owned(), found));
        }
    }
    Ok(())
}

/// Why an open connection is not the store.
pub(super) enum Unprepared {
    Refused(OpenError),
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Unprepared {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl From<OpenError> for Unprepared {
    fn from(error: OpenError) -> Self {
        Self::Refused(error)
    }
}

/// Brings the schema up to date, fills what every database has, checks the keys, and says which epoch it is.
fn prepare(connection: &mut Connection, state_dir: &Path, key_path: &Path, seals: &Seals, now: Timestamp) -> Result<i64, Unprepared> {
    if connection.pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0))? != APPLICATION_ID {
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    if connection.table_exists(None, "state_key")? {
        key_columns::recognise(connection, seals, key_path)?;
    }
    migrations::bring_up_to_date(connection, state_dir, now).map_err(|error| match error {
        NotTaken::NotKept(version, error) => OpenError::NotKept { version, error: Box::new(error) }.into(),
        NotTaken::Database(error) | NotTaken::Step(rusqlite_migration::Error::RusqliteError { err: error, .. }) => {
            Unprepared::Database(error)
        }
        NotTaken::Step(error) => {
            OpenError::Corrupt(state_dir.join(connection::FILE), format!("a schema that cannot be brought up to date: {error}")).into()
        }
    })?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let is_made_now = transaction.execute("INSERT OR IGNORE INTO meta (one, epoch, made_at) VALUES (1, 1, ?1)", [now])? == 1;
    transaction.execute("INSERT OR IGNORE INTO tenant (name, created_at) VALUES ('default', ?1)", [now])?;
    key_columns::settle(&transaction, seals, now)?;
    let (stored, copied_at): (i64, Option<i64>) =
        transaction.query_row("SELECT epoch, copied_at FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let beside = read_epoch(state_dir)?;
    if copied_at.is_none() && (beside == Some(stored) || (beside.is_none() && is_made_now)) {
        transaction.commit()?;
        write_epoch(state_dir, stored)?;
        return Ok(stored);
    }
    let epoch = stored.max(beside.unwrap_or(0)) + 1;
    let event = Action::EpochBegun.as_str();
    tracing::warn!(event, epoch, "the database was restored: every token, code and session of before is refused from now on");
    transaction.execute("UPDATE meta SET epoch = ?1, copied_at = NULL, begun_at = ?2", (epoch, now))?;
    let restored =
        Entry::of(Action::EpochBegun).with("epoch", epoch).maybe("copied_at", copied_at.map(|at| Timestamp::from_millis(at).to_string()));
    audit::insert_of_daemon(&transaction, now, &restored)?;
    transaction.commit()?;
    write_epoch(state_dir, epoch)?;
    Ok(epoch)
}

/// The epoch beside the database, which a copied or restored database does not bring along.
fn read_epoch(state_dir: &Path) -> Result<Option<i64>, OpenError> {
    let path = state_dir.join(EPOCH_FILE);
    match fs::read_to_string(&path) {
        // What cannot be read as a number is not the epoch in the database.
        Ok(text) => Ok(Some(text.trim().parse().unwrap_or(0))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenError::Io(path, error)),
    }
}

fn write_epoch(state_dir: &Path, epoch: i64) -> Result<(), OpenError> {
    if read_epoch(state_dir)? == Some(epoch) {
        return Ok(());
    }
    let path = state_dir.join(EPOCH_FILE);
    key_file::replace(&path, format!("{epoch}\n").as_bytes()).map_err(|error| OpenError::Io(path, error))
}

pub(super) fn refused(path: &Path, error: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotOurs(path, "a file that is not an SQLite database".to_owned()),
        Some(ErrorCode::DatabaseCorrupt) => OpenError::Corrupt(path, error.to_string()),
        _ => OpenError::Database(path, error),
    }
}

/// Gives `path` to the owner of what `like` describes, when that is somebody else and we may.
pub(super) fn own_as(path: &Path, like: &fs::Metadata) -> io::Result<()> {
    let is = fs::symlink_metadata(path)?;
    if rustix::process::geteuid().is_root() && (is.uid(), is.gid()) != (like.uid(), like.gid()) {
        std::os::unix::fs::lchown(path, Some(like.uid()), Some(like.gid()))?;
    }
    Ok(())
}

/// The exclusive lock on a state directory, held until this is dropped or the process ends.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would leave the lock with any process that is being forked at this moment.
        let _ = self.file.unlock();
    }
}

impl Lock {
    /// Takes the lock, or says which process has it.
    pub(super) fn take(state_dir: &Path) -> Result<Self, OpenError> {
        let path = state_dir.join(LOCK_FILE);
        let failed = |error| OpenError::Io(path.clone(), error);
        // A link in its place could give root's power over another file to the directory's owner.
        let mut open = OpenOptions::new();
        open.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let mut file = open.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut process = String::new();
                let _ = file.take(20).read_to_string(&mut process);
                return Err(OpenError::Locked(state_dir.to_owned(), process.trim().to_owned()));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // A command that root runs must not leave a lock that the daemon's own user cannot take.
        fs::metadata(state_dir).and_then(|owner| own_as(&path, &owner)).map_err(failed)?;
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { file })
    }
}
