//! Which files a configuration came from, and whether they still say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

use super::load::{NotRead, folder_of, parts, parts_folder, read_file};

/// More than any of the files may have.
const MOST: u64 = 4 << 20;
/// As many symbolic links as Linux follows in one path.
const MOST_LINKS: usize = 40;

/// The files of a configuration with what they held: `NAME.toml`, `NAME.d/*.toml`, certificates, keys and authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    file: PathBuf,
    materials: Vec<PathBuf>,
    /// Path → digest of the content, or of the reason why it cannot be read; `None` where nothing is.
    held: BTreeMap<PathBuf, Option<[u8; 32]>>,
}

impl Sources {
    /// Looks at the files of `path` and its parts.
    pub(super) fn observe(path: &Path) -> Self {
        let paths = std::iter::once(path.to_owned()).chain(parts(path));
        let held = paths.map(|path| (path.clone(), content(&path))).collect();
        Self { file: path.to_owned(), materials: Vec::new(), held }
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

    /// The same files, as they are now; nothing while there are no files left to open, which says nothing of these.
    pub fn again(&self) -> Option<Self> {
        let paths = std::iter::once(self.file.clone()).chain(parts(&self.file)).chain(self.materials.iter().cloned());
        let held = paths.map(|path| looked_at(&path).map(|content| (path, content)));
        let held = held.collect::<Result<_, NotRead>>().ok()?;
        Some(Self { file: self.file.clone(), materials: self.materials.clone(), held })
    }

    /// Whether `now` says something that `self` did not. A file that is gone says nothing: a deleted file changes nothing, and
    /// while `NAME.toml` itself is away nothing else does either.
    pub fn is_changed_by(&self, now: &Self) -> bool {
        let is_new = |(path, content): (&PathBuf, &Option<[u8; 32]>)| content.is_some() && self.held.get(path) != Some(content);
        now.held.get(&now.file).is_some_and(Option::is_some) && now.held.iter().any(is_new)
    }

    /// The files that are not there `now`, though what they held may still be in force.
    pub fn gone(&self, now: &Self) -> Vec<PathBuf> {
        let is_gone = |path: &Path| now.held.get(path).is_none_or(Option::is_none);
        self.held.iter().filter(|(path, content)| content.is_some() && is_gone(path)).map(|(path, _)| path.clone()).collect()
    }

    /// The folders in which every change of any of the files shows: their own, and those of the symbolic links on the way to them.
    pub fn folders(&self) -> BTreeSet<PathBuf> {
        let mut folders = BTreeSet::new();
        let parts = parts_folder(&self.file).join("x");
        for path in self.held.keys().chain([&self.file, &parts]) {
            folders_on_the_way(path, MOST_LINKS, &mut folders);
        }
        folders
    }
}

fn content(path: &Path) -> Option<[u8; 32]> {
    // Something else than the file holds, so that it is looked at again.
    looked_at(path).unwrap_or_else(|want_of_files| Some(digest_of(want_of_files.to_string().as_bytes())))
}

/// What is at `path`, if anything.
///
/// # Errors
/// That it cannot be said for want of files.
fn looked_at(path: &Path) -> Result<Option<[u8; 32]>, NotRead> {
    told_by(read_file(path, MOST), path)
}

fn told_by(read: Result<Vec<u8>, NotRead>, path: &Path) -> Result<Option<[u8; 32]>, NotRead> {
    match read {
        Ok(bytes) => Ok(Some(digest_of(&zeroize::Zeroizing::new(bytes)))),
        Err(reason) if reason.is_for_want_of_files() => Err(reason),
        // What is there and cannot be read is something new, too: whoever loads it finds out what is wrong with it.
        Err(reason) if path.exists() => Ok(Some(digest_of(reason.to_string().as_bytes()))),
        Err(_) => Ok(None),
    }
}

fn digest_of(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Adds the folder of `path`, and of each symbolic link on the way: a `ConfigMap` is changed by swapping a link further up.
/// What does not exist yet will show in the nearest folder that does.
fn folders_on_the_way(path: &Path, links_left: usize, folders: &mut BTreeSet<PathBuf>) {
    let Ok(path) = std::path::absolute(path) else { return };
    let mut reached = PathBuf::new();
    let mut components = path.components();
    while let Some(component) = components.next() {
        let parent = reached.clone();
        if component == Component::ParentDir {
            reached.pop();
            continue;
        }
        reached.push(component);
        match reached.symlink_metadata() {
            Ok(metadata) if metadata.is_symlink() => {
                folders.insert(parent.clone());
                if let Ok(target) = reached.read_link()
                    && links_left > 0
                {
                    folders_on_the_way(&parent.join(target).join(components.as_path()), links_left - 1, folders);
                }
                return;
            }
            Ok(_) => {}
            Err(_) => {
                folders.insert(parent);
                return;
            }
        }
    }
    folders.insert(folder_of(&path).to_owned());
}

#[cfg(test)]
mod tests {
    use std::io::Error;

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_want_of_files_to_open_says_nothing_of_a_file_and_any_other_failure_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let (there, gone) = (folder.path().join("there"), folder.path().join("gone"));
        std::fs::write(&there, "x").expect("written");
        let told = |path: &Path, errno: Errno| told_by(Err(NotRead::Unreadable(Error::from_raw_os_error(errno.raw_os_error()))), path);
        for want in [Errno::MFILE, Errno::NFILE] {
            assert!(told(&there, want).is_err() && told(&gone, want).is_err(), "{want}");
        }
        let refused = told(&there, Errno::ACCESS).expect("it is there").expect("and new");
        assert!(Some(refused) != looked_at(&there).expect("read"));
        assert_eq!(told(&gone, Errno::NOENT).expect("that is known"), None);
        assert!(looked_at(folder.path()).expect("a folder is there").is_some());
    }
}
