//! The copy that is kept of the database before its schema changes, so that the program of before can be put back together with its data.
//!
//! It is called by the schema and the time, `p2pid-schema-14-20261128T184516Z.db`. One that is there is never written to: it may be of an
//! upgrade years ago, or of a database that a restore has replaced since. Until the schema has changed its name ends in `.pending`: so what
//! an upgrade that was interrupted has left is told from what it was that a way back leads to, and no older copy goes before.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::backup::{BackupError, backup};
use super::connection;
use super::key_file;
use super::open::own_as;
use crate::clock::Timestamp;
use crate::observe::systemd;

/// How many copies stay: the one that was just made, and those before it.
const KEPT: usize = 3;

const PREFIX: &str = "p2pid-schema-";
const SUFFIX: &str = ".db";
const PENDING: &str = ".pending";

/// A copy whose schema is about to change. Where the process ends before it says whether that came to be, [`settle`] and [`keep`] see to it.
#[must_use]
pub(super) struct Pending {
    state_dir: PathBuf,
    name: Name,
}

impl Pending {
    /// Keeps it, since the schema did change, and deletes the copies that are older than the newest [`KEPT`].
    pub(super) fn confirm(self) {
        let (pending, path) = (self.state_dir.join(self.name.pending()), self.state_dir.join(self.name.file()));
        if let Err(error) = fs::rename(&pending, &path).and_then(|()| key_file::sync_directory(&path)) {
            // The next start tries again.
            tracing::warn!(file = %pending.display(), %error, "the copy of the database from before this version cannot be renamed");
            return;
        }
        tracing::info!(file = %path.display(), "the database as it was before this version is kept");
        drop_older(&self.state_dir, &self.name);
    }

    /// Deletes it, since the schema did not change after all.
    pub(super) fn discard(self) {
        remove(&self.state_dir.join(self.name.pending()), "the schema did not change: its copy is deleted again");
    }
}

/// Copies the database, whole and durably. Of the other copies it deletes only those that upgrades from the same schema have left which were
/// interrupted, once this one is there in their place. Only for who holds the lock.
///
/// # Errors
/// [`BackupError`]; no other copy was deleted then.
pub(super) fn keep(state_dir: &Path, version: u32, now: Timestamp) -> Result<Pending, BackupError> {
    drop_unfinished(state_dir);
    let interrupted = pending_in(state_dir);
    let is_free = |name: &Name| [name.file(), name.pending()].iter().all(|file| fs::symlink_metadata(state_dir.join(file)).is_err());
    let mut names = (0..).map(|later| Name::new(version, now.plus(Duration::from_secs(later))));
    let name = names.find(is_free).expect("a second without a copy");
    let path = state_dir.join(name.pending());
    tell_how_long(state_dir);
    backup(state_dir, &path, now)?;
    // A command that root runs may be the first of the new version.
    let owned = fs::metadata(state_dir).and_then(|owner| own_as(&path, &owner));
    owned.map_err(|error| BackupError::File(path.clone(), error))?;
    for left in interrupted.iter().filter(|left| left.schema == version) {
        remove(&state_dir.join(left.pending()), "the copy of an upgrade that was interrupted is replaced");
    }
    Ok(Pending { state_dir: state_dir.to_owned(), name })
}

/// Keeps the copies of upgrades that were interrupted when the schema had changed already: the database is not at theirs, but at `version`.
pub(super) fn settle(state_dir: &Path, version: u32) {
    for name in pending_in(state_dir).into_iter().filter(|name| name.schema != version) {
        Pending { state_dir: state_dir.to_owned(), name }.confirm();
    }
}

/// A start that copies gigabytes is not one that hangs.
fn tell_how_long(state_dir: &Path) {
    /// What a slow disk reads, writes, checks and changes in a second.
    const BYTES_PER_SECOND: u64 = 5 << 20;
    let bytes = fs::metadata(state_dir.join(connection::FILE)).map_or(0, |metadata| metadata.len());
    systemd::starts_within(Duration::from_secs(90 + bytes / BYTES_PER_SECOND));
}

/// Deletes what a copy that was interrupted has left.
fn drop_unfinished(state_dir: &Path) {
    for name in names_in(state_dir) {
        let (base, unfinished) = (name.split_inclusive(SUFFIX).next(), name.ends_with(".new") || name.ends_with(".new-journal"));
        if unfinished && base.and_then(Name::read).is_some() {
            remove(&state_dir.join(name), "a copy of the database that was not finished is deleted");
        }
    }
}

fn drop_older(state_dir: &Path, newest: &Name) {
    let mut others: Vec<Name> = names_in(state_dir).iter().filter_map(|name| Name::read(name)).collect();
    others.retain(|name| name != newest);
    others.sort_by(|a, b| b.cmp(a));
    for name in others.iter().skip(KEPT - 1) {
        remove(&state_dir.join(name.file()), "an older copy of the database is deleted");
    }
}

fn remove(path: &Path, why: &str) {
    match fs::remove_file(path) {
        Ok(()) => tracing::info!(file = %path.display(), "{why}"),
        // It takes room, and nothing else hangs on it.
        Err(error) => tracing::warn!(file = %path.display(), %error, "a copy of the database cannot be deleted"),
    }
}

fn names_in(state_dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(state_dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The copies of which it was not said whether they are needed.
fn pending_in(state_dir: &Path) -> Vec<Name> {
    names_in(state_dir).iter().filter_map(|name| Name::read(name.strip_suffix(PENDING)?)).collect()
}

/// What a copy is called; later ones are greater.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    /// `20261128T184516Z`. Empty in the names that versions before gave.
    time: String,
    schema: u32,
}

impl Name {
    fn new(schema: u32, now: Timestamp) -> Self {
        Self { time: now.to_string().replace(['-', ':'], ""), schema }
    }

    fn file(&self) -> String {
        let separator = if self.time.is_empty() { "" } else { "-" };
        format!("{PREFIX}{}{separator}{}{SUFFIX}", self.schema, self.time)
    }

    fn pending(&self) -> String {
        self.file() + PENDING
    }

    /// None for a name that is not exactly as [`Name::file`] says: that file is somebody else's.
    fn read(file: &str) -> Option<Self> {
        let text = file.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let (schema, time) = text.split_once('-').unwrap_or((text, ""));
        let name = Self { time: time.to_owned(), schema: schema.parse().ok()? };
        let is_time = |time: &str| time.len() == 16 && time.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'T' | b'Z'));
        ((time.is_empty() || is_time(time)) && name.file() == file).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::temporary;

    const NOW: Timestamp = Timestamp::from_millis(1_795_891_516_000);

    fn copies(state_dir: &Path) -> Vec<String> {
        let mut names = names_in(state_dir);
        names.retain(|name| name.starts_with(PREFIX));
        names.sort();
        names
    }

    #[test]
    fn only_names_that_are_given_here_are_read() {
        let name = Name::new(14, NOW);
        assert_eq!(name.file(), "p2pid-schema-14-20261128T184516Z.db");
        assert_eq!(Name::read(&name.file()), Some(name.clone()));
        let old = Name::read("p2pid-schema-13.db").expect("as versions before called them");
        assert!(old < Name::new(2, NOW) && name < Name::new(3, NOW.plus(Duration::from_secs(1))));
        for other in [
            "p2pid.db",
            "p2pid-schema-.db",
            "p2pid-schema-014.db",
            "p2pid-schema-14-.db",
            "p2pid-schema-14-mine.db",
            "p2pid-schema-14-20261128T184516Z.db.gz",
            "my-p2pid-schema-14.db",
        ] {
            assert_eq!(Name::read(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn the_newest_few_copies_stay_and_what_is_not_ours_does_too() {
        let (directory, _store) = temporary();
        let state_dir = directory.path();
        for (name, content) in [("p2pid-schema-9.db", "old"), ("p2pid-schema-14-mine.db", "mine"), ("p2pid-schema-9.db.gz", "packed")] {
            fs::write(state_dir.join(name), content).expect("written");
        }
        let upgrade = |version, now| keep(state_dir, version, now).expect("a copy").confirm();
        upgrade(13, NOW);
        let first = state_dir.join(Name::new(13, NOW).file());
        let before = fs::read(&first).expect("a copy");
        upgrade(13, NOW);
        assert_eq!(fs::read(&first).expect("a copy"), before, "what is there is not written to, also in the same second");
        // The clock was set back: the newest is what was made last.
        upgrade(14, Timestamp::from_millis(0));
        assert_eq!(
            copies(state_dir),
            [
                "p2pid-schema-13-20261128T184516Z.db",
                "p2pid-schema-13-20261128T184517Z.db",
                "p2pid-schema-14-19700101T000000Z.db",
                "p2pid-schema-14-mine.db",
                "p2pid-schema-9.db.gz",
            ]
        );
    }

    #[tokio::test]
    async fn upgrades_that_fail_or_are_interrupted_cost_no_other_copy_and_leave_one_at_most() {
        let (directory, _store) = temporary();
        let state_dir = directory.path();
        let later = |seconds| NOW.plus(Duration::from_secs(seconds));
        let older: Vec<String> = [9, 10, 11, 14].map(|version| Name::new(version, Timestamp::from_millis(1_000)).file()).into();
        for name in &older {
            fs::write(state_dir.join(name), "older").expect("written");
        }
        let others = || copies(state_dir).into_iter().filter(|name| !older.contains(name)).collect::<Vec<_>>();
        let are_there = || older.iter().all(|name| state_dir.join(name).exists());
        for attempt in 0..3 {
            // The process ends here.
            let _ = keep(state_dir, 14, later(attempt)).expect("a copy");
            settle(state_dir, 14);
            assert_eq!((others(), are_there()), (vec![Name::new(14, later(attempt)).pending()], true), "{attempt}");
        }
        keep(state_dir, 14, later(3)).expect("a copy").discard();
        assert_eq!((others(), are_there()), (Vec::new(), true), "nor does a step that fails");
        // The schema had changed when the process ended.
        let _ = keep(state_dir, 14, later(4)).expect("a copy");
        settle(state_dir, 15);
        assert_eq!(others(), [Name::new(14, later(4)).file()]);
        assert_eq!(copies(state_dir).len(), KEPT);
    }

    #[tokio::test]
    async fn what_an_interrupted_copy_left_is_deleted() {
        let (directory, _store) = temporary();
        let left = "p2pid-schema-14-20261127T000000Z.db.0123456789abcdef.new";
        let (journal, other) = (format!("{left}-journal"), "p2pid-schema-mine.db.new");
        for name in [left, &journal, other] {
            fs::write(directory.path().join(name), "half").expect("written");
        }
        keep(directory.path(), 14, NOW).expect("a copy").confirm();
        assert_eq!(copies(directory.path()), ["p2pid-schema-14-20261128T184516Z.db", other]);
    }
}
