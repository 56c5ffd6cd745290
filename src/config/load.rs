//! Files → tree → [`Config`], and the few keys that the command line needs where the rest is wrong.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::build::{build, default};
use super::problem::{Problem, Problems};
use super::section::{Findings, Section};
use super::sources::Sources;
use super::tree::{Place, Table, parse, quoted};
use super::{Config, Listen, values};

/// The largest configuration file.
const MOST_BYTES: u64 = 1 << 20;
/// The most files in `NAME.d`.
const MOST_FILES: usize = 1_000;

/// A checked configuration and the files that it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What they say.
    pub config: Config,
    /// Which files they are, and what they held.
    pub sources: Sources,
}

/// Loads `NAME.toml` and then `NAME.d/*.toml` beside it, in the order of their names.
///
/// Tables merge key by key, a later file's value replaces an earlier one's, and lists of tables (`[[route]]`) grow. Relative
/// paths in any of them start at the folder of `NAME.toml`. Certificates, keys and authorities are read to be checked.
/// Everything that is wrong is reported at once; files that are not TOML are reported first, alone.
///
/// # Errors
/// Everything that is wrong.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let (sources, outcome) = attempt(path);
    outcome.map(|config| Loaded { config, sources })
}

/// As [`load`], with the files that were looked at also where they are wrong: a change of one of them is worth another attempt.
pub fn attempt(path: &Path) -> (Sources, Result<Config, Problems>) {
    // Looked at before they are read: a change in between is seen as one later.
    let sources = Sources::observe(path);
    let files = read_all(path);
    let mut problems = Vec::new();
    let mut merged = Table::default();
    for (number, file) in files.iter().enumerate() {
        match &file.content {
            Ok(text) => {
                let (table, errors) = parse(number, text);
                problems.extend(errors.into_iter().map(|(span, message)| file.not_toml(span, &message)));
                merged.merge(table);
            }
            Err(unreadable) => problems.push(file.problem(0..0, "file", unreadable.found.clone(), unreadable.expected)),
        }
    }
    if let Some(problems) = Problems::of(problems) {
        return (sources, Err(problems));
    }
    let mut materials = Vec::new();
    let findings = Findings::default();
    let built = build(&merged, folder_of(path), &mut materials, &findings);
    let findings = findings.into_sorted().into_iter().map(|finding| {
        let Place { file, start, end } = finding.at;
        files[file].problem(start..end, &finding.key, finding.found, &finding.expected)
    });
    let problems = Problems::of(findings.collect());
    let sources = sources.with(materials);
    match (problems, built) {
        (None, Some(config)) => (sources, Ok(config)),
        (Some(problems), _) => (sources, Err(problems)),
        (None, None) => unreachable!("a configuration that is not built has a finding that says why"),
    }
}

/// What the command line needs to reach the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The instance's name, or else the file's.
    pub name: String,
    /// `[instance] state_dir`
    pub state_dir: PathBuf,
    /// `[admin] socket`
    pub socket: PathBuf,
    /// TCP ports that its listeners name.
    pub ports: Vec<u16>,
    /// Why parts of it are guessed, for a warning.
    pub warning: Option<String>,
}

/// Finds the state and the admin socket, also where the rest of the file is wrong or the file is gone; then the socket is
/// where `init` puts it, `/run/p2pid/NAME/admin.sock`.
pub fn locate(path: &Path) -> Located {
    let files = read_all(path);
    let mut merged = Table::default();
    let mut warning = None;
    for (number, file) in files.iter().enumerate() {
        match &file.content {
            Ok(text) => {
                let (table, errors) = parse(number, text);
                if let Some((span, message)) = errors.into_iter().next() {
                    warning.get_or_insert_with(|| file.not_toml(span, &message).to_string());
                }
                merged.merge(table);
            }
            Err(unreadable) => {
                warning.get_or_insert_with(|| file.problem(0..0, "file", unreadable.found.clone(), unreadable.expected).to_string());
            }
        }
    }
    let folder = folder_of(path);
    let findings = Findings::default();
    let mut root = Section::root(&merged, &findings);
    let mut instance = root.section("instance");
    let name = instance.optional("name", values::name);
    let state_dir = instance.optional("state_dir", values::path(folder));
    let lists = ["public", "local", "console"].map(|listener| root.section(listener).list("listen", "a list", values::listen(folder)));
    let ports = lists.into_iter().flatten().flatten().filter_map(|placed| match placed.value {
        Listen::Tcp(address) => Some(address.port()),
        Listen::Unix(_) => None,
    });
    let socket = root.section("admin").optional("socket", values::socket(folder));
    let guessed = warning.is_some() && state_dir.is_none();
    let name = name.or_else(|| path.file_stem().map(|stem| stem.to_string_lossy().into_owned())).unwrap_or_default();
    let state_dir = state_dir.unwrap_or_else(|| default::state_dir(&name));
    let socket = socket
        .unwrap_or_else(|| if guessed { Path::new("/run/p2pid").join(&name).join("admin.sock") } else { default::socket(&state_dir) });
    Located { name, state_dir, socket, ports: ports.collect(), warning }
}

/// Where relative paths of the file start.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// `NAME.d` beside `NAME.toml`.
pub(super) fn parts_folder(path: &Path) -> PathBuf {
    path.with_extension("d")
}

/// The files of `NAME.d`, in the order of their names; what is hidden is left out, as editors' copies are.
pub(super) fn parts(path: &Path) -> Vec<PathBuf> {
    let folder = parts_folder(path);
    let Ok(entries) = std::fs::read_dir(&folder) else { return Vec::new() };
    let is_part = |name: &OsString| {
        let name = Path::new(name);
        name.extension().is_some_and(|extension| extension == "toml") && !name.to_string_lossy().starts_with('.')
    };
    let mut names: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).filter(is_part).take(MOST_FILES).collect();
    names.sort();
    names.into_iter().map(|name| folder.join(name)).collect()
}

struct SourceFile {
    path: PathBuf,
    content: Result<Arc<str>, Unreadable>,
}

struct Unreadable {
    found: String,
    expected: &'static str,
    text: Arc<str>,
    at: usize,
}

impl SourceFile {
    fn problem(&self, span: std::ops::Range<usize>, key: &str, found: String, expected: &str) -> Problem {
        let (text, span) = match &self.content {
            Ok(text) => (text, span),
            Err(unreadable) => (&unreadable.text, unreadable.at..unreadable.at),
        };
        Problem::new(&self.path, text, span, key.to_owned(), found, expected.to_owned())
    }

    /// The parser's message is `what, expected these`.
    fn not_toml(&self, span: std::ops::Range<usize>, message: &str) -> Problem {
        let (what, expected) = message.split_once(", expected ").unwrap_or((message, "TOML"));
        let written = self.content.as_ref().ok().and_then(|text| text.get(span.clone())).unwrap_or_default();
        let found = if written.trim().is_empty() { what.to_owned() } else { format!("{} ({what})", quoted(written)) };
        self.problem(span, "TOML", found, expected)
    }
}

fn read_all(path: &Path) -> Vec<SourceFile> {
    let paths = std::iter::once(path.to_owned()).chain(parts(path));
    paths.map(|path| SourceFile { content: read(&path), path }).collect()
}

fn read(path: &Path) -> Result<Arc<str>, Unreadable> {
    let unreadable = |found: String, expected| Unreadable { found, expected, text: Arc::from(""), at: 0 };
    let bytes = read_file(path, MOST_BYTES).map_err(|error| unreadable(error.to_string(), "a file of TOML, at most 1 MiB"))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Arc::from(text)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let bytes = error.into_bytes();
            let text = String::from_utf8_lossy(&bytes[..at]).into_owned();
            let found = format!("the byte 0x{:02x}, which is not UTF-8", bytes[at]);
            Err(Unreadable { found, expected: "TOML, which is UTF-8", text: Arc::from(text), at })
        }
    }
}

/// What there is in the place of a file that can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotRead {
    /// Something is wrong with the file, or with what we may do.
    #[error("no readable file ({0})")]
    Unreadable(std::io::Error),
    /// It is something else.
    #[error("{0}")]
    NoFile(&'static str),
    /// It is larger than this.
    #[error("more than {0} bytes")]
    TooLong(u64),
}

impl NotRead {
    /// Whether it says nothing of the file: this process, or the machine, has no more files to open now.
    pub(super) fn is_for_want_of_files(&self) -> bool {
        let Self::Unreadable(error) = self else { return false };
        [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
    }
}

/// The content of a plain file of at most `most` bytes, or what there is instead.
pub(super) fn read_file(path: &Path, most: u64) -> Result<Vec<u8>, NotRead> {
    // Asked before opening, which would wait for the writer of a named pipe.
    let metadata = std::fs::metadata(path).map_err(NotRead::Unreadable)?;
    if !metadata.is_file() {
        return Err(NotRead::NoFile(if metadata.is_dir() { "a folder" } else { "no plain file" }));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(NotRead::Unreadable)?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(NotRead::Unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= most) { Ok(bytes) } else { Err(NotRead::TooLong(most)) }
}
