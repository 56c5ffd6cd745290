//! Which instance a command means, and where its admin socket is.

use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::Failure;

/// Where configurations are looked for when none is named.
pub(super) const DIRECTORY: &str = "/etc/p2pid";

/// The environment variable that names a configuration file when no option does.
const VARIABLE: &str = "P2PID_CONFIG";

/// The options that say which instance is meant.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Selection {
    /// The instance's configuration file; $P2PID_CONFIG when neither it nor -i is given
    #[arg(short = 'c', long = "config", value_name = "FILE", global = true, conflicts_with = "instance")]
    pub(super) config: Option<PathBuf>,
    /// The instance of this name: /etc/p2pid/NAME.toml
    #[arg(short = 'i', long = "instance", value_name = "NAME", global = true)]
    pub(super) instance: Option<String>,
    /// The daemon's admin socket; needs no configuration file
    #[arg(long, value_name = "PATH", global = true)]
    pub(super) socket: Option<PathBuf>,
}

impl Selection {
    /// The configuration file that is meant; it need not exist.
    ///
    /// # Errors
    /// When none is named and there is not exactly one in `/etc/p2pid`.
    pub(super) fn file(&self) -> Result<PathBuf, Failure> {
        match (&self.config, &self.instance) {
            (Some(file), _) => Ok(file.clone()),
            (None, Some(name)) if name.is_empty() || name.contains('/') || name.starts_with('.') => {
                Err(Failure::usage("-i names an instance, not a file").found(name).next("use -c FILE for a file"))
            }
            (None, Some(name)) => Ok(Path::new(DIRECTORY).join(format!("{name}.toml"))),
            (None, None) => match std::env::var_os(VARIABLE) {
                Some(file) if !file.is_empty() => Ok(file.into()),
                _ => only_one(Path::new(DIRECTORY)),
            },
        }
    }
}

fn only_one(directory: &Path) -> Result<PathBuf, Failure> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let mut files: Vec<_> =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    files.sort();
    match files.as_slice() {
        [file] => Ok(file.clone()),
        [] => Err(Failure::usage("no instance is named, and there is none")
            .found(format!("no {}/*.toml", directory.display()))
            .next("name one with -c FILE or $P2PID_CONFIG, or make one: p2pid init NAME --public-url URL")),
        several => {
            let names: Vec<_> = several.iter().filter_map(|file| file.file_stem()?.to_str()).collect();
            Err(Failure::usage("no instance is named, and there are several")
                .found(names.join(", "))
                .next(format!("name one: p2pid -i {} …", names[0])))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_is_taken_and_several_are_listed() {
        let directory = tempfile::tempdir().expect("a directory");
        let failure = only_one(directory.path()).expect_err("none");
        assert_eq!(failure.exit, super::super::failure::USAGE);
        std::fs::write(directory.path().join("one.toml"), "").expect("written");
        std::fs::write(directory.path().join("notes.txt"), "").expect("written");
        assert_eq!(only_one(directory.path()), Ok(directory.path().join("one.toml")));
        std::fs::write(directory.path().join("two.toml"), "").expect("written");
        assert_eq!(only_one(directory.path()).expect_err("several").found.as_deref(), Some("one, two"));
    }

    #[test]
    fn a_name_is_no_path() {
        let file = |name: &str| Selection { instance: Some(name.into()), ..Selection::default() }.file();
        assert_eq!(file("two"), Ok("/etc/p2pid/two.toml".into()));
        for name in ["", "../x", "a/b", ".x"] {
            assert!(file(name).is_err(), "{name:?}");
        }
    }
}
