//! Backups: a consistent copy of a database that may be in use, and putting one back.
//!
//! A backup is one SQLite file. It never holds the state key and names the keys that it needs. It is marked as a copy, so that the
//! database which it becomes begins a new epoch, whoever put it in place and however.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, ffi};

use super::connection::{self, Use};
use super::key_file::{self, KeyFileError, KeyId};
use super::migrations::NEWEST;
use super::open::{self, Explanation, Lock, OpenError, Unprepared};
use super::{Seals, audit, key_columns};
use crate::audit::{Action, Entry};
use crate::clock::Timestamp;

/// What a backup is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BackupReport {
    /// The file.
    pub file: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The keys that it may need; it does not hold them.
    pub keys: Vec<KeyId>,
    /// Whether the audit tells of it. A disk that takes no more is no reason to have no backup.
    pub audited: bool,
}

/// What was put back.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RestoreReport {
    /// The database as it is now.
    pub database: PathBuf,
    /// When the backup was made, in milliseconds since the Unix epoch.
    pub made_at: Timestamp,
    /// Where the database that was there before is now.
    pub replaced: Option<PathBuf>,
}

/// Why there is no backup, or nothing was put back.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.explain())]
pub enum BackupError {
    /// The state directory's lock, key or database.
    State(#[from] OpenError),
    /// A file cannot be read or written.
    File(PathBuf, io::Error),
    /// A file is there already.
    Exists(PathBuf),
    /// There is no database to copy.
    NoDatabase(PathBuf),
    /// The file is a database of ours, but no backup.
    NotABackup(PathBuf),
    /// SQLite could not copy.
    Copy(PathBuf, rusqlite::Error),
}

impl BackupError {
    /// What to tell.
    pub fn explain(&self) -> Explanation {
        let say = |code, message: String, found: String, expected: &str, next: &str| Explanation {
            code,
            message,
            found,
            expected: expected.to_owned(),
            next: next.to_owned(),
        };
        match self {
            Self::State(error) => error.explain(),
            Self::File(path, error) => say(
                "file",
                format!("{} cannot be used", path.display()),
                error.to_string(),
                "a file that this user can read and write",
                "check owner, mode and free space",
            ),
            Self::Exists(path) => say(
                "exists",
                format!("{} cannot be written", path.display()),
                "a file of that name".to_owned(),
                "a new name",
                "choose another name, or move the file away",
            ),
            Self::NoDatabase(path) => say(
                "no_database",
                "there is nothing to back up".to_owned(),
                format!("no {}", path.display()),
                "the database of an instance that has run",
                "check state_dir",
            ),
            Self::NotABackup(path) => say(
                "not_a_backup",
                format!("{} is not a backup", path.display()),
                "a database without a backup's mark".to_owned(),
                "a file that `p2pid backup` made",
                "make backups with `p2pid backup`",
            ),
            Self::Copy(path, error) => say(
                "copy",
                format!("{} cannot be copied", path.display()),
                error.to_string(),
                "a database that can be read whole, and space for its copy",
                "check the free space; `p2pid doctor` checks the database",
            ),
        }
    }
}

/// Copies the database of `state_dir` into the new file `to` (0600), whether or not a daemon is using it.
///
/// # Errors
/// [`BackupError`]; `to` is not there then.
pub fn backup(state_dir: &Path, to: &Path, now: Timestamp) -> Result<BackupReport, BackupError> {
    let from = state_dir.join(connection::FILE);
    if !from.exists() {
        return Err(BackupError::NoDatabase(from));
    }
    if to.exists() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    // Others may write to that directory: under a name that they cannot know they put no file or link of theirs, nor a journal's.
    let mut chance = [0; 8];
    aws_lc_rs::rand::fill(&mut chance).expect("the system's random generator does not fail");
    let beside = with_suffix(to, &format!(".{:016x}.new", u64::from_be_bytes(chance)));
    key_file::make_new(&beside).map_err(|error| BackupError::File(beside.clone(), error))?;
    let copied = copy(&from, &beside, now);
    let finished = copied.and_then(|keys| {
        let told = Entry::of(Action::BackupMade).with("file", to.display().to_string());
        let source = connection::connect(&from, Use::Write);
        let audited = source.and_then(|source| audit::insert_of_process(&source, now, &told)).is_ok();
        let finish = || {
            File::open(&beside)?.sync_all()?;
            fs::rename(&beside, to)?;
            key_file::sync_directory(to)?;
            fs::metadata(to).map(|metadata| metadata.len())
        };
        let bytes = finish().map_err(|error| BackupError::File(to.to_owned(), error))?;
        Ok(BackupReport { file: to.to_owned(), bytes, keys, audited })
    });
    if finished.is_err() {
        let _ = fs::remove_file(&beside);
        // SQLite leaves it where the disk takes no more.
        let _ = fs::remove_file(with_suffix(&beside, "-journal"));
    }
    finished
}

/// Copies all pages in one step, so as one state of the database, marks the copy, and looks at all of it.
fn copy(from: &Path, to: &Path, now: Timestamp) -> Result<Vec<KeyId>, BackupError> {
    let copied = (|| {
        let source = connection::connect(from, Use::Read)?;
        let mut target = Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        if Backup::new(&source, &mut target)?.step(-1)? != StepResult::Done {
            return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), None));
        }
        // One file, without a log beside it.
        target.pragma_update(None, "journal_mode", "DELETE")?;
        target.execute("UPDATE meta SET copied_at = ?1", [now])?;
        let found: String = target.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        Ok((key_columns::known(&target)?, found))
    })();
    match copied.map_err(|error| BackupError::Copy(from.to_owned(), error))? {
        (keys, found) if found == "ok" => Ok(keys),
        // It is a true copy; one that nothing can be put back from.
        (_, found) => Err(OpenError::Corrupt(from.to_owned(), found).into()),
    }
}

/// Puts the backup `from` in the place of the database of `state_dir`, while no daemon runs. The database that was there is kept beside
/// it under another name. The key list must be there before: `credential`, or `state_dir/key`.
///
/// # Errors
/// [`BackupError`]; nothing was changed then, unless the disk failed while files were being renamed.
pub fn restore(state_dir: &Path, credential: Option<&Path>, from: &Path, now: Timestamp) -> Result<RestoreReport, BackupError> {
    let _lock = Lock::take(state_dir)?;
    let database = state_dir.join(connection::FILE);
    let beside = with_suffix(&database, ".restoring");
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| BackupError::File(path, error)
    };
    let owner = fs::metadata(state_dir).map_err(failed(state_dir))?;
    let result = (|| {
        // The copy is what is checked, so that what was checked is what is used.
        let mut source = File::open(from).map_err(failed(from))?;
        let mut copy = key_file::make_anew(&beside).map_err(failed(&beside))?;
        io::copy(&mut source, &mut copy).and_then(|_| copy.sync_all()).map_err(failed(&beside))?;
        let made_at = check(&beside, from, state_dir, credential, now)?;
        open::own_as(&beside, &owner).map_err(failed(&beside))?;
        let replaced = set_aside(&database, now).map_err(failed(&database))?;
        let renamed = fs::rename(&beside, &database).and_then(|()| key_file::sync_directory(&database));
        renamed.map_err(failed(&database))?;
        Ok(RestoreReport { database, made_at, replaced })
    })();
    if result.is_err() {
        let _ = fs::remove_file(&beside);
    }
    result
}

/// Checks that `copy`, copied from `from`, is a backup that this program and these keys can open.
fn check(copy: &Path, from: &Path, state_dir: &Path, credential: Option<&Path>, now: Timestamp) -> Result<Timestamp, BackupError> {
    let key_path = credential.map_or_else(|| state_dir.join(key_file::FILE), Path::to_owned);
    let list = key_file::read(&key_path, credential.is_some()).map_err(|error| match error {
        KeyFileError::Missing => OpenError::KeyMissing(key_path.clone()),
        error => OpenError::KeyFile(key_path.clone(), error.to_string()),
    })?;
    let connection = connection::connect(copy, Use::Write).map_err(|error| open::refused(from, error))?;
    open::inspect(&connection, from)?;
    let unreadable = |error| BackupError::State(open::refused(from, error));
    let made_at: Option<Timestamp> = connection.query_row("SELECT copied_at FROM meta", [], |row| row.get(0)).map_err(unreadable)?;
    let made_at = made_at.ok_or_else(|| BackupError::NotABackup(from.to_owned()))?;
    let seals = Seals::new(&list);
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(unreadable)?;
    let recognised = key_columns::recognise(&connection, &seals, &key_path).and_then(|()| match version as usize {
        NEWEST => key_columns::missed(&connection, &seals).map(drop),
        // An older one is looked at by the start that brings it up to date.
        _ => Ok(()),
    });
    let told = Entry::of(Action::BackupRestored).with("file", from.display().to_string()).at("made_at", made_at);
    recognised.map_err(|error| match error {
        Unprepared::Refused(error) => BackupError::State(error),
        Unprepared::Database(error) => unreadable(error),
    })?;
    audit::insert_of_process(&connection, now, &told).map_err(unreadable)?;
    Ok(made_at)
}

/// Gives the database that is there another name; its path stays taken until the new one is renamed over it, so that a start in
/// between finds the one or the other and never makes an empty one.
fn set_aside(database: &Path, now: Timestamp) -> io::Result<Option<PathBuf>> {
    if !database.exists() {
        return Ok(None);
    }
    // Folds the log into the database. One that cannot be opened keeps its log beside it.
    if let Ok(connection) = connection::connect(database, Use::Write) {
        let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }
    let aside = with_suffix(database, &format!(".replaced-{}", now.millis()));
    let log = with_suffix(database, "-wal");
    if log.exists() {
        fs::rename(&log, with_suffix(&aside, "-wal"))?;
    }
    let _ = fs::remove_file(with_suffix(database, "-shm"));
    fs::hard_link(database, &aside)?;
    Ok(Some(aside))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    PathBuf::from(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use super::*;
    use crate::inbound::grant::{EndReason, Ended};
    use crate::store::sample::{HOUR, StandingClock, granted, linked};
    use crate::store::{Store, grant, make_key, temporary, tenant};
    use crate::system::SystemClock;

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn open(state_dir: &Path) -> Result<Store, OpenError> {
        Store::open(state_dir, None, Arc::new(SystemClock::new()))
    }

    async fn names(store: &Store) -> Vec<String> {
        store.read(tenant::all).await.expect("read").into_iter().map(|tenant| tenant.name).collect()
    }

    #[tokio::test]
    async fn a_backup_of_a_running_store_is_put_back_as_a_new_epoch() {
        let (directory, store) = temporary();
        let state_dir = directory.path();
        store.write(|transaction| tenant::insert(transaction, "before", NOW)).await.expect("written");
        let file = state_dir.join("copy");
        let report = backup(state_dir, &file, NOW).expect("a backup");
        assert_eq!(report.keys, store.keys().await.expect("keys").iter().map(|key| key.id).collect::<Vec<_>>());
        assert!(matches!(backup(state_dir, &file, NOW), Err(BackupError::Exists(_))));
        store.write(|transaction| tenant::insert(transaction, "after", NOW)).await.expect("written");
        let locked = restore(state_dir, None, &file, NOW).expect_err("the store is open");
        assert!(locked.to_string().contains(&std::process::id().to_string()), "{locked}");
        store.close().await;

        let report = restore(state_dir, None, &file, NOW).expect("restored");
        assert_eq!(report.made_at, NOW);
        assert!(report.replaced.expect("the old one is kept").exists());
        let again = open(state_dir).expect("opened");
        assert_eq!(names(&again).await, ["before", "default"]);
        assert_eq!((store.epoch(), again.epoch()), (1, 2));
        again.close().await;
        assert_eq!(open(state_dir).expect("opened").epoch(), 2, "once");
    }

    #[tokio::test]
    async fn a_backup_holds_no_key_and_needs_its_own() {
        let (directory, store) = temporary();
        let file = directory.path().join("copy");
        backup(directory.path(), &file, NOW).expect("a backup");
        let key = fs::read_to_string(directory.path().join("key")).expect("a key");
        let encoded = key.split_whitespace().nth(1).expect("a key");
        let content = fs::read(&file).expect("a copy");
        assert!(!content.windows(encoded.len()).any(|window| window == encoded.as_bytes()));
        drop(store);

        let elsewhere = tempfile::tempdir().expect("a directory");
        assert!(matches!(restore(elsewhere.path(), None, &file, NOW), Err(BackupError::State(OpenError::KeyMissing(_)))));
        make_key(elsewhere.path()).expect("another key");
        assert!(matches!(restore(elsewhere.path(), None, &file, NOW), Err(BackupError::State(OpenError::WrongKey { .. }))));
        assert!(!elsewhere.path().join(connection::FILE).exists());
        fs::copy(directory.path().join("key"), elsewhere.path().join("key")).expect("the right key");
        assert_eq!(restore(elsewhere.path(), None, &file, NOW).expect("restored").replaced, None);
        assert_eq!(open(elsewhere.path()).expect("opened").epoch(), 2);
    }

    #[tokio::test]
    async fn what_somebody_put_where_a_file_is_written_is_neither_followed_nor_filled() {
        let (directory, store) = temporary();
        let (state_dir, shared) = (directory.path(), tempfile::tempdir().expect("a directory that others write to"));
        let (precious, theirs) = (shared.path().join("precious"), shared.path().join("theirs.new"));
        fs::write(&precious, "precious").expect("written");
        let links_to_it = |path: &Path| std::os::unix::fs::symlink(&precious, path).expect("linked");
        let is_precious = || assert_eq!(fs::read_to_string(&precious).expect("read"), "precious");

        links_to_it(&shared.path().join("copy.new"));
        fs::write(&theirs, "").expect("written");
        for name in ["copy", "theirs"] {
            backup(state_dir, &shared.path().join(name), NOW).expect("a backup");
        }
        is_precious();
        assert_eq!(fs::read(&theirs).expect("read"), b"");
        let mode = fs::metadata(shared.path().join("theirs")).expect("a backup").permissions().mode();
        assert_eq!((mode & 0o777, fs::read_dir(shared.path()).expect("listed").count()), (0o600, 5), "and nothing else is left there");

        store.close().await;
        links_to_it(&with_suffix(&state_dir.join(connection::FILE), ".restoring"));
        for name in ["key.new", "epoch.new"] {
            links_to_it(&state_dir.join(name));
        }
        restore(state_dir, None, &shared.path().join("copy"), NOW).expect("restored");
        open(state_dir).expect("opened").close().await;
        key_file::replace(&state_dir.join("key"), &fs::read(state_dir.join("key")).expect("read")).expect("replaced");
        is_precious();

        fs::remove_file(state_dir.join(open::LOCK_FILE)).expect("removed");
        links_to_it(&state_dir.join(open::LOCK_FILE));
        assert!(matches!(Lock::take(state_dir), Err(OpenError::Io(..))), "the lock is no link");
        is_precious();
    }

    #[tokio::test]
    async fn what_is_no_backup_is_refused() {
        let (directory, store) = temporary();
        store.close().await;
        let database = directory.path().join(connection::FILE);
        let other = directory.path().join("other");
        fs::copy(&database, &other).expect("copied");
        assert!(matches!(restore(directory.path(), None, &other, NOW), Err(BackupError::NotABackup(_))));
        fs::write(&other, "no database, but long enough to look like one".repeat(20)).expect("written");
        assert!(matches!(restore(directory.path(), None, &other, NOW), Err(BackupError::State(OpenError::NotOurs(..)))));
        assert!(matches!(restore(directory.path(), None, Path::new("/nowhere"), NOW), Err(BackupError::File(..))));
        assert!(matches!(backup(Path::new("/nowhere"), &other, NOW), Err(BackupError::NoDatabase(_))));
        assert!(open(directory.path()).is_ok(), "nothing was changed");
    }

    #[tokio::test]
    async fn a_database_copied_into_place_by_hand_begins_a_new_epoch() {
        let (directory, store) = temporary();
        let file = directory.path().join("copy");
        backup(directory.path(), &file, NOW).expect("a backup");
        store.close().await;
        fs::copy(&file, directory.path().join(connection::FILE)).expect("copied");
        let store = open(directory.path()).expect("opened");
        assert_eq!(store.epoch(), 2, "the backup's mark shows it");
        store.close().await;
        fs::remove_file(directory.path().join("epoch")).expect("removed");
        assert_eq!(open(directory.path()).expect("opened").epoch(), 3, "so does the missing file beside it");
    }

    #[tokio::test]
    async fn a_grant_that_a_restore_ended_was_good_until_then() {
        use crate::clock::Clock;
        let directory = tempfile::tempdir().expect("a folder");
        make_key(directory.path()).expect("a key");
        let clock = StandingClock::new();
        let open = || Store::open(directory.path(), None, clock.clone()).expect("opened");
        let store = open();
        linked(&store).await;
        let begun = clock.now().wall;
        let file = directory.path().join("copy");
        backup(directory.path(), &file, begun).expect("a backup");
        store.close().await;
        clock.pass(HOUR);
        restore(directory.path(), None, &file, clock.now().wall).expect("restored");
        let (store, restored) = (open(), clock.now().wall);
        clock.pass(HOUR);
        let id = granted(begun).id;
        let shown = store.read(move |connection| grant::by_id(connection, "default", id)).await.expect("read").expect("it is shown");
        assert_eq!(shown.grant.ended, Some(Ended { at: restored, reason: EndReason::Restored }));
    }
}
