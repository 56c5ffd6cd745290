//! The key list: a file with a line per state key, `key-id base64`. The first seals, all open.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, Zeroizing};

/// The key list's name in the state directory.
pub const FILE: &str = "key";

/// More than a sensible list has; a larger file is a mistake.
const MOST_KEYS: usize = 64;
const MOST_BYTES: u64 = 16 * 1024;

/// Names a state key: eight hexadecimal digits. No secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub(super) [u8; 4]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for KeyId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One state key.
pub(super) struct StateKey {
    pub(super) id: KeyId,
    pub(super) bytes: Zeroizing<[u8; 32]>,
}

impl StateKey {
    /// A new key.
    pub(super) fn generate() -> Self {
        let (mut id, mut bytes) = ([0; 4], Zeroizing::new([0; 32]));
        aws_lc_rs::rand::fill(&mut id).expect("the system's random generator does not fail");
        aws_lc_rs::rand::fill(bytes.as_mut()).expect("the system's random generator does not fail");
        Self { id: KeyId(id), bytes }
    }
}

/// Why there is no key list. The path and a line number are named, never what stands there.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyFileError {
    #[error("there is none")]
    Missing,
    #[error("{0}")]
    Io(io::Error),
    #[error("its mode is {0:03o}")]
    Exposed(u32),
    #[error("line {0} is not a key")]
    Line(usize),
    #[error("line {0} names a key that an earlier line has")]
    Twice(usize),
    #[error("it holds no key")]
    Empty,
    #[error("it is larger than any key list")]
    TooLarge,
}

/// Reads a key list. With `may_be_shared` others may be able to read it: the mode of a service manager's credential is its own affair.
pub(super) fn read(path: &Path, may_be_shared: bool) -> Result<Vec<StateKey>, KeyFileError> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => KeyFileError::Missing,
        _ => KeyFileError::Io(error),
    })?;
    let mode = metadata.permissions().mode() & 0o777;
    if !may_be_shared && mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed(mode));
    }
    if metadata.len() > MOST_BYTES {
        return Err(KeyFileError::TooLarge);
    }
    parse(&Zeroizing::new(fs::read_to_string(path).map_err(KeyFileError::Io)?))
}

fn parse(text: &str) -> Result<Vec<StateKey>, KeyFileError> {
    let mut keys: Vec<StateKey> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = parse_line(line).ok_or(KeyFileError::Line(number))?;
        if keys.iter().any(|earlier| earlier.id == key.id) {
            return Err(KeyFileError::Twice(number));
        }
        keys.push(key);
    }
    match keys.len() {
        0 => Err(KeyFileError::Empty),
        1..=MOST_KEYS => Ok(keys),
        _ => Err(KeyFileError::TooLarge),
    }
}

fn parse_line(line: &str) -> Option<StateKey> {
    let (id, encoded) = line.split_once(' ')?;
    if id.len() != 8 || !id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let id = KeyId(u32::from_str_radix(id, 16).ok()?.to_be_bytes());
    let mut decoded = Zeroizing::new(STANDARD.decode(encoded.trim()).ok()?);
    let bytes = Zeroizing::new(<[u8; 32]>::try_from(decoded.as_slice()).ok()?);
    decoded.zeroize();
    Some(StateKey { id, bytes })
}

/// Writes a key list so that a crash leaves the old one or the new one, readable by its owner only.
pub(super) fn write(path: &Path, keys: &[StateKey]) -> io::Result<()> {
    let mut text = Zeroizing::new(String::with_capacity(keys.len() * 64));
    for key in keys {
        text.push_str(&key.id.to_string());
        text.push(' ');
        STANDARD.encode_string(key.bytes.as_ref(), &mut text);
        text.push('\n');
    }
    replace(path, text.as_bytes())
}

/// Replaces a small file that only we may read, whole or not at all, and durably: written beside it (0600), synced, renamed over it.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = make_anew(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    sync_directory(path)
}

/// A file that was not there, for its owner only. What is there, a link included, is neither followed nor written to.
pub(super) fn make_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// The same in place of what a crash may have left there.
pub(super) fn make_anew(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => make_new(path),
    }
}

/// Makes a rename or a new file in the directory of `path` durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    // A bare name has an empty parent.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_bare_name_is_the_one_we_are_in() {
        assert!(sync_directory(Path::new("a-name")).is_ok());
        assert!(sync_directory(Path::new("/nowhere/a-name")).is_err());
    }

    #[test]
    fn k5_a_key_list_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(FILE);
        let keys = [StateKey::generate(), StateKey::generate()];
        write(&path, &keys).expect("written");
        let again = read(&path, false).expect("a key list");
        assert_eq!(again.iter().map(|key| key.id).collect::<Vec<_>>(), [keys[0].id, keys[1].id]);
        assert_eq!(again[1].bytes, keys[1].bytes);
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn k5_what_is_no_key_list_is_refused_with_the_line() {
        let key = "0011aabb AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        assert!(parse(&format!("# a remark\n\n{key}\n")).is_ok());
        for (text, expected) in [
            ("", "it holds no key"),
            ("0011aabb", "line 1 is not a key"),
            ("0011aabb AAAA", "line 1 is not a key"),
            ("0011AABB AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "line 1 is not a key"),
            (&format!("{key}\n{key}"), "line 2 names a key that an earlier line has"),
        ] {
            assert_eq!(parse(text).err().expect("refused").to_string(), expected, "{text}");
        }
    }

    #[test]
    fn k5_a_key_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(FILE);
        write(&path, &[StateKey::generate()]).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("changed");
        assert!(matches!(read(&path, false), Err(KeyFileError::Exposed(0o640))));
        assert!(read(&path, true).is_ok());
    }
}
