//! The copy that is kept of the database before its schema changes, so that the program of before can be put back together with its data.
//!
//! It is called by the schema and the time, `p2pid-schema-14-20261128T184516Z.db`. One that is there is never written to: it may be of an
//! upgrade years ago, or of a database that a restore has replaced since.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::backup::{BackupError, backup};
use super::connection;
use super::open::own_as;
use crate::clock::Timestamp;
use crate::observe::systemd;

/// How many copies stay: the one that was just made, and those before it.
const KEPT: usize = 3;

const PREFIX: &str = "p2pid-schema-";
const SUFFIX: &str = ".db";

/// Copies the database, whole and durably, and deletes the copies that are older than the newest [`KEPT`]. Only for who holds the lock.
///
/// # Errors
/// [`BackupError`]; no copy was deleted then.
pub(super) fn keep(state_dir: &Path, version: u32, now: Timestamp) -> Result<PathBuf, BackupError> {
    drop_unfinished(state_dir);
    let names = (0..).map(|later| Name::new(version, now.plus(Duration::from_secs(later))));
    let path = names.map(|name| state_dir.join(name.file())).find(|path| fs::symlink_metadata(path).is_err());
    let path = path.expect("a second without a copy");
    tell_how_long(state_dir);
    backup(state_dir, &path, now)?;
    // A command that root runs may be the first of the new version.
    let owned = fs::metadata(state_dir).and_then(|owner| own_as(&path, &owner));
    owned.map_err(|error| BackupError::File(path.clone(), error))?;
    tracing::info!(file = %path.display(), "the database as it was before this version is kept");
    drop_older(state_dir, &path);
    Ok(path)
}

/// Deletes a copy whose schema did not change after all. A start that fails again and again would push out the others.
pub(super) fn is_not_needed(copy: &Path) {
    remove(copy, "the schema did not change: its copy is deleted again");
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

fn drop_older(state_dir: &Path, newest: &Path) {
    let mut others: Vec<Name> = names_in(state_dir).iter().filter_map(|name| Name::read(name)).collect();
    others.retain(|name| state_dir.join(name.file()) != newest);
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
        let first = keep(state_dir, 13, NOW).expect("a copy");
        let before = fs::read(&first).expect("a copy");
        let again = keep(state_dir, 13, NOW).expect("a copy in the same second");
        assert!(again != first && fs::read(&first).expect("a copy") == before, "what is there is not written to");
        // The clock was set back: the newest is what was made last.
        let last = keep(state_dir, 14, Timestamp::from_millis(0)).expect("a copy");
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
        is_not_needed(&last);
        assert!(!last.exists() && first.exists());
    }

    #[tokio::test]
    async fn what_an_interrupted_copy_left_is_deleted() {
        let (directory, _store) = temporary();
        let left = "p2pid-schema-14-20261127T000000Z.db.0123456789abcdef.new";
        let (journal, other) = (format!("{left}-journal"), "p2pid-schema-mine.db.new");
        for name in [left, &journal, other] {
            fs::write(directory.path().join(name), "half").expect("written");
        }
        keep(directory.path(), 14, NOW).expect("a copy");
        assert_eq!(copies(directory.path()), ["p2pid-schema-14-20261128T184516Z.db", other]);
    }
}
