//! Which files a configuration came from, and whether they still say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

use super::load::{folder_of, parts, parts_folder, read_file};

/// More than any of the files may have.
const MOST: u64 = 4 << 20;

/// The files of a configuration with what they held: `NAME.toml`, `NAME.d/*.toml`, certificates, keys and authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    file: PathBuf,
    held: BTreeMap<PathBuf, Option<[u8; 32]>>,
    materials: Vec<PathBuf>,
}

impl Sources {
    /// Looks at the files of `path` and its parts.
    pub(super) fn observe(path: &Path) -> Self {
        let paths = std::iter::once(path.to_owned()).chain(parts(path));
        let held = paths.map(|path| (path.clone(), content(&path))).collect();
        Self { file: path.to_owned(), held, materials: Vec::new() }
    }

    /// With the certificates, keys and authorities that the configuration names.
    pub(super) fn with(mut self, materials: Vec<PathBuf>) -> Self {
        self.held.extend(materials.iter().map(|path| (path.clone(), content(path))));
        self.materials = materials;
        self
    }

    /// `NAME.toml`
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The same files, as they are now.
    pub fn again(&self) -> Self {
        Self::observe(&self.file).with(self.materials.clone())
    }

    /// A file that was there and is gone, if there is one: certificates are renewed by removing and writing, too.
    pub fn missing(&self) -> Option<&Path> {
        self.held.iter().find(|(_, content)| content.is_none()).map(|(path, _)| path.as_path())
    }

    /// Whether every file of `self` still exists in `now`.
    pub fn all_present_in(&self, now: &Self) -> bool {
        self.held.keys().all(|path| now.held.get(path).is_some_and(Option::is_some))
    }

    /// The folders in which a change of any of them shows: those of the files, and of what their links point at.
    pub fn folders(&self) -> BTreeSet<PathBuf> {
        let mut folders: BTreeSet<PathBuf> = self.held.keys().map(|path| folder_of(path).to_owned()).collect();
        folders.insert(folder_of(&self.file).to_owned());
        folders.insert(parts_folder(&self.file));
        let targets = self.held.keys().filter_map(|path| path.canonicalize().ok());
        folders.extend(targets.map(|target| folder_of(&target).to_owned()).collect::<Vec<_>>());
        folders
    }
}

fn content(path: &Path) -> Option<[u8; 32]> {
    let bytes = zeroize::Zeroizing::new(read_file(path, MOST).ok()?);
    let digest = digest(&SHA256, &bytes);
    Some(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}
