//! The house's order, read off the sources: which room may know which, how long a file may be, and what has no place in it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, from the inside out. A room may use those of the groups before its own; inside a group see [`KNOW_EACH_OTHER`].
const ROOMS: &[&[&str]] = &[
    &["secret", "clock", "random", "id", "audit"],
    &["oauth"],
    &["inbound", "outbound"],
    &["store", "net", "pages", "config", "observe"],
    &["instance"],
    &["tasks"],
    &["doors"],
    &["daemon"],
    &["cli"],
];

/// The innermost group is one thing in parts, and the shell's services use one another. `inbound` and `outbound` do not know each other.
const KNOW_EACH_OTHER: &[usize] = &[0, 3];

/// The rooms of the core: plain functions over plain data.
const CORE: &[&str] = &["secret", "clock", "random", "id", "audit", "oauth", "inbound", "outbound"];

/// What the core does not touch.
const NOT_IN_THE_CORE: &[&str] =
    &["tokio::", "rusqlite", "hyper::", "axum::", "std::fs", "std::net::Tcp", "SystemTime::now", "Instant::now"];

/// What stands outside: the operating system, and why things are as they are.
const NO_ROOMS: &[&str] = &["system", "manual"];

/// `system` is the operating system's clock and randomness: only what assembles the daemon, and tests, may reach for it.
const MAY_USE_SYSTEM: &[&str] = &["cli", "daemon"];

const MOST_LINES: usize = 600;

#[test]
fn every_module_of_the_library_is_a_room_or_stands_outside() {
    let map = fs::read_to_string(root().join("src/lib.rs")).expect("the map");
    let modules: BTreeSet<&str> = map.lines().filter_map(|line| line.split_once("mod ")?.1.strip_suffix(';')).collect();
    let rooms: BTreeSet<&str> = ROOMS.iter().copied().flatten().chain(NO_ROOMS).copied().collect();
    assert_eq!(modules, rooms, "src/lib.rs, and the rooms whose order is kept here");
    for room in rooms {
        let on_the_map = [format!("[`{room}`]"), format!("`{room}`")];
        let is_told_of = map.lines().any(|line| line.starts_with("//! | ") && on_the_map.iter().any(|name| line.contains(name)));
        assert!(is_told_of, "the table in src/lib.rs does not tell of {room}");
    }
}

#[test]
fn rooms_know_only_the_rooms_further_in() {
    let mut complaints = Complaints::default();
    for file in sources() {
        let Some(room) = file.room() else { continue };
        for line in file.code() {
            for used in rooms_named_in(line.text) {
                let allowed = match used {
                    "system" => MAY_USE_SYSTEM.contains(&room) || line.in_tests,
                    _ => may_use(room, used),
                };
                if !allowed {
                    complaints.at(&file, line.number, &format!("{room} may not know {used}"));
                }
            }
        }
    }
    complaints.none();
}

#[test]
fn the_core_does_nothing_by_itself() {
    let mut complaints = Complaints::default();
    for file in sources().iter().filter(|file| file.room().is_some_and(|room| CORE.contains(&room))) {
        for line in file.code().filter(|line| !line.in_tests) {
            for word in NOT_IN_THE_CORE.iter().filter(|word| line.text.contains(**word)) {
                complaints.at(file, line.number, &format!("{word} has no place in the core"));
            }
        }
    }
    complaints.none();
}

#[test]
fn every_file_says_what_it_is_for_and_stays_readable() {
    let mut complaints = Complaints::default();
    let elsewhere = ["tests", "benches", "fuzz/src", "fuzz/fuzz_targets"].into_iter().flat_map(|folder| files_in(folder, "rs"));
    for file in sources().into_iter().chain(elsewhere) {
        if !file.text.starts_with("//! ") {
            complaints.at(&file, 1, "a file begins with //! and what it is for");
        }
        let lines = file.text.lines().count();
        if lines > MOST_LINES {
            complaints.at(&file, lines, &format!("{lines} lines, at most {MOST_LINES}"));
        }
    }
    complaints.none();
}

#[test]
fn nothing_is_left_unfinished_or_printed_past_the_report() {
    const NOWHERE: &[&str] = &["todo!(", "unimplemented!(", "dbg!(", "#[allow(", "#![allow(", "unsafe {", "unsafe fn"];
    const NOT_OUTSIDE_TESTS: &[&str] = &[".unwrap()", "println!(", "print!(", "eprintln!(", "eprint!(", "panic!("];
    let mut complaints = Complaints::default();
    for file in sources() {
        let report = file.path.ends_with("src/cli/report.rs");
        for line in file.code() {
            let banned = NOT_OUTSIDE_TESTS.iter().filter(|word| !(line.in_tests || report && word.contains("print")));
            for word in NOWHERE.iter().chain(banned).filter(|word| contains_word(line.text, word)) {
                complaints.at(&file, line.number, &format!("{word} has no place here"));
            }
        }
    }
    complaints.none();
}

#[test]
fn names_are_whole_words_and_things_have_one_name() {
    let mut complaints = Complaints::default();
    for file in sources() {
        if file.path.file_stem().is_some_and(|name| ["util", "utils", "misc", "common", "helpers"].iter().any(|bad| name == *bad)) {
            complaints.at(&file, 1, "a drawer for everything is for nothing");
        }
        for line in file.code() {
            if line.text.contains("event = \"") {
                complaints.at(&file, line.number, "an event of the log is called as the audit calls it: Action::….as_str()");
            }
            if line.text.contains("fn get_") {
                complaints.at(&file, line.number, "a getter is called by what it gives");
            }
            let declaration =
                line.text.strip_prefix("pub(crate) ").or(line.text.strip_prefix("pub(super) ")).or(line.text.strip_prefix("pub "));
            if declaration.unwrap_or(line.text).starts_with("type ") && !line.text.contains("= Box<dyn Fn") && !line.text.contains("= fn(")
            {
                complaints.at(&file, line.number, "a type alias is a second name for one thing (a function's type has none of its own)");
            }
        }
    }
    complaints.none();
}

#[test]
fn no_note_of_the_builders_is_left_on_the_wall() {
    // Put together here, so that this list does not find itself.
    let words = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["XX", "X "],
        ["HA", "CK "],
        ["/wo", "rk/"],
        ["/tm", "p/team"],
        ["house", ".md"],
        ["place", "holder text"],
    ];
    let words: Vec<String> = words.iter().map(|parts| parts.concat()).collect();
    let mut complaints = Complaints::default();
    let texts = ["src", "tests", "config", "systemd", "templates", "benches", "fuzz/src", "fuzz/fuzz_targets"]
        .iter()
        .flat_map(|folder| files_in(folder, ""));
    for file in texts {
        for (number, line) in file.text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(word.as_str())) {
                complaints.at(&file, number + 1, &format!("\"{word}\""));
            }
        }
    }
    complaints.none();
}

#[test]
fn every_line_of_the_oauth_checklist_has_a_test_and_every_key_a_line() {
    let list = fs::read_to_string(root().join("src/manual/checklist.md")).expect("the checklist");
    let lines: BTreeSet<String> =
        list.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next().map(str::to_lowercase)).collect();
    let lines: BTreeSet<&str> = lines.iter().map(String::as_str).filter(|key| is_checklist_key(key)).collect();
    let files: Vec<Source> = sources().into_iter().chain(files_in("tests", "rs")).collect();
    // A test may stand for several lines: `v1_v2_…`.
    let names = files.iter().flat_map(|file| tests_after(&file.text, is_test));
    let tested: BTreeSet<String> =
        names.flat_map(|name| name.split('_').take_while(|part| is_checklist_key(part)).map(str::to_owned).collect::<Vec<_>>()).collect();
    let tested: BTreeSet<&str> = tested.iter().map(String::as_str).collect();
    assert!(lines.len() > 50, "{lines:?}");
    assert_eq!(lines.difference(&tested).collect::<Vec<_>>(), Vec::<&&str>::new(), "lines without a test");
    assert_eq!(tested.difference(&lines).collect::<Vec<_>>(), Vec::<&&str>::new(), "keys that the list does not have");
}

#[test]
fn every_measure_against_a_threat_names_code_and_tests_that_are_there() {
    let page = fs::read_to_string(root().join("src/manual/threats.md")).expect("the threats");
    let files: Vec<Source> = sources().into_iter().chain(files_in("tests", "rs")).collect();
    let tests: BTreeSet<String> = files.iter().flat_map(|file| tests_after(&file.text, is_test)).collect();
    let is_a_test = |name: &str| tests.contains(name);
    let mut measures = 0;
    for line in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| §")) {
        let columns: Vec<&str> = line.trim_matches('|').split(" | ").collect();
        let [_, _, code, tests] = columns[..] else { panic!("four columns: {line}") };
        let named = |column: &'static str| {
            move |text: &str| {
                let names: Vec<String> = text.split('`').skip(1).step_by(2).map(str::to_owned).collect();
                assert!(!names.is_empty(), "no {column}: {line}");
                names
            }
        };
        for file in named("code")(code) {
            assert!(root().join("src").join(&file).is_file(), "there is no src/{file}: {line}");
        }
        for test in named("test")(tests) {
            assert!(is_a_test(&test), "there is no test {test}: {line}");
        }
        measures += 1;
    }
    assert!(measures > 30, "{measures}");
}

#[test]
fn what_the_checklist_and_the_threats_rest_on_is_run() {
    let threats = fs::read_to_string(root().join("src/manual/threats.md")).expect("the threats");
    let run = fs::read_to_string(root().join(".ci/run")).expect("what must hold before a change lands");
    let rests = |name: &str| name.split('_').next().is_some_and(is_checklist_key) || threats.contains(&format!("`{name}`"));
    let files: Vec<Source> = sources().into_iter().chain(files_in("tests", "rs")).collect();
    let ignored: Vec<String> = files.iter().flat_map(|file| tests_after(&file.text, is_ignored)).collect();
    assert!(ignored.len() >= 3, "the rule does not see those that there are: {ignored:?}");
    let is_run = |name: &str| run.lines().any(|line| line.contains("--ignored") && line.contains(name));
    let idle: Vec<&String> = ignored.iter().filter(|name| rests(name) && !is_run(name)).collect();
    assert_eq!(idle, Vec::<&String>::new(), "ignored, and .ci/run does not name them");
    let text = "#[test]\n#[ignore = \"slow\"]\nasync fn a1_x() {}\n#[tokio::test(flavor)]\nfn a2_y() {}\nfn a3_z() {}\n";
    assert_eq!(
        (tests_after(text, is_ignored), tests_after(text, is_test)),
        (vec!["a1_x".to_owned()], vec!["a1_x".to_owned(), "a2_y".to_owned()])
    );
}

fn is_test(line: &str) -> bool {
    line.starts_with("#[test]") || line.starts_with("#[tokio::test")
}

fn is_ignored(line: &str) -> bool {
    line.starts_with("#[ignore")
}

/// The names of the functions that such an attribute stands before.
fn tests_after(text: &str, attribute: fn(&str) -> bool) -> Vec<String> {
    let mut has_it = false;
    let mut names = Vec::new();
    for line in text.lines().map(str::trim_start) {
        has_it |= attribute(line);
        if let Some(rest) = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ") {
            if has_it {
                names.push(rest.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect());
            }
            has_it = false;
        }
    }
    names
}

#[test]
fn every_action_of_the_audit_is_in_a_test_of_the_whole_daemon() {
    // That there is no row of an action is no test of its row.
    let says_none = |line: &&str| line.contains("Vec::<Value>::new()");
    let tests = files_in("tests/it", "rs").into_iter();
    let tests: String = tests.map(|file| file.text.lines().filter(|line| !says_none(line)).collect::<String>()).collect();
    let names = p2pid::audit::Action::ALL.iter().map(|action| action.as_str());
    let untested: Vec<&str> = names.filter(|name| !tests.contains(&format!("\"{name}\""))).collect();
    assert_eq!(untested, Vec::<&str>::new(), "actions without a test below tests/it");
}

#[test]
fn every_check_that_a_build_leaves_out_stands_once_where_it_is_said_to_and_its_tests_are_there() {
    let files: Vec<Source> = sources().into_iter().chain(files_in("tests", "rs")).collect();
    let entries = files_in("tests/without_checks", "toml");
    assert!(entries.len() > 30, "{}", entries.len());
    for entry in entries {
        let name = entry.path.file_stem().unwrap_or_default().display();
        let fields: toml::Table = entry.text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        let field = |field: &str| fields.get(field).and_then(toml::Value::as_str).unwrap_or_else(|| panic!("{name} has no {field}"));
        let (check, without) = (field("check"), field("without"));
        assert!(!field("why").contains('\n') && without.contains("WITHOUT") && without != check, "{name}");
        let text = fs::read_to_string(root().join(field("file"))).unwrap_or_else(|error| panic!("{name}: {}: {error}", field("file")));
        assert_eq!(text.matches(check).count(), 1, "{name}: how often {} has {check}", field("file"));
        let fails = fields.get("fails").and_then(toml::Value::as_table).filter(|fails| !fails.is_empty());
        for (test, words) in fails.unwrap_or_else(|| panic!("{name} names no test that fails")) {
            let named: usize = files.iter().map(|file| file.text.matches(&format!("fn {test}()")).count()).sum();
            assert_eq!(named, 1, "{name}: how many tests are called {test}");
            assert!(words.as_str().is_some_and(|words| !words.is_empty()), "{name}: what {test} says when it fails");
        }
    }
}

/// A letter and a number.
#[test]
fn every_path_of_the_api_is_in_the_table_of_the_readme_and_no_other() {
    const NAMES: [&str; 5] = ["{name}", "{login}", "{id}", "{peer}", "{tenant}"];
    let routes = files_in("src/doors/admin", "rs");
    let served: BTreeSet<String> = routes
        .iter()
        .flat_map(|file| file.text.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()))
        .filter(|path| !path.ends_with("/call") && !path.ends_with("/call/"))
        .map(|path| {
            let path = path.strip_prefix("/tenants/{tenant}/").map_or_else(|| path.to_owned(), |rest| format!("…/{rest}"));
            NAMES.iter().fold(path.replace("{*path}", "PATH"), |path, name| path.replace(name, "NAME"))
        })
        .collect();
    let readme = fs::read_to_string(root().join("README.md")).expect("the README");
    let table = readme.split("| path below `/v2` | |\n").nth(1).expect("its table of the API's paths");
    let mut told = BTreeSet::new();
    for row in table.lines().take_while(|line| line.starts_with('|')) {
        let mut together = Vec::new();
        let paths = row.split('|').nth(1).expect("a row has cells");
        for (number, path) in paths.split('`').enumerate() {
            match (number % 2, path) {
                (0, _) | (1, "…" | "/tenants/TENANT") => {}
                // Stands for each path before it in its row.
                (1, "/NAME") => told.extend(together.iter().map(|path| format!("{path}/NAME"))),
                _ => together.push(path.replace("LOGIN", "NAME")),
            }
        }
        told.extend(together);
    }
    assert!(served.len() > 30, "{served:?}");
    assert_eq!(told, served, "the table of README.md, and the routes of src/doors/admin");
}

fn is_checklist_key(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(|first| first.is_ascii_lowercase()) && text.len() > 1 && characters.all(|digit| digit.is_ascii_digit())
}

#[test]
fn every_dependency_is_used() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    let manifest: toml::Table = manifest.parse().expect("the manifest is TOML");
    let code: String =
        sources().into_iter().chain(files_in("tests", "rs")).chain(files_in("benches", "rs")).map(|file| file.text).collect();
    let named =
        |name: &str| code.contains(&format!("{}::", name.replace('-', "_"))) || code.contains(&format!("use {}", name.replace('-', "_")));
    let mut unused = BTreeSet::new();
    for section in ["dependencies", "dev-dependencies"] {
        let names = manifest.get(section).and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
        unused.extend(names.filter(|name| !named(name)).cloned());
    }
    assert!(unused.is_empty(), "Cargo.toml names what nothing uses: {unused:?}");
}

/// A line of code, comments left out.
struct Line<'a> {
    number: usize,
    text: &'a str,
    in_tests: bool,
}

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// The room that the file belongs to; none for `main.rs`, `lib.rs` and `system.rs`, which stand outside.
    fn room(&self) -> Option<&'static str> {
        let relative = self.path.strip_prefix(root().join("src")).ok()?;
        let first = Path::new(relative.iter().next()?).file_stem()?.to_str()?;
        ROOMS.iter().copied().flatten().copied().find(|room| *room == first)
    }

    /// Whether the module above says `#[cfg(test)] mod` of this file.
    fn is_declared_for_tests(&self) -> bool {
        let (Some(folder), Some(name)) = (self.path.parent(), self.path.file_stem()) else { return false };
        let declaration = format!("#[cfg(test)]\nmod {};", name.display());
        let above = [folder.join("mod.rs"), folder.with_extension("rs")];
        above.iter().any(|above| fs::read_to_string(above).is_ok_and(|text| text.contains(&declaration)))
    }

    fn code(&self) -> impl Iterator<Item = Line<'_>> {
        let all_tests = self.path.iter().any(|part| part == "tests" || part == "tests.rs") || self.is_declared_for_tests();
        let lines: Vec<&str> = self.text.lines().collect();
        // Tests stand at the end of a file, or in one of their own that is only declared here.
        let starts_tests = |pair: &[&str]| pair[0] == "#[cfg(test)]" && !(pair[1].starts_with("mod ") && pair[1].ends_with(';'));
        let first_test = lines.windows(2).position(starts_tests).unwrap_or(usize::MAX);
        let code = lines.into_iter().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
        code.map(move |(index, text)| Line { number: index + 1, text, in_tests: all_tests || index >= first_test })
    }
}

#[derive(Default)]
struct Complaints(String);

impl Complaints {
    fn at(&mut self, file: &Source, line: usize, what: &str) {
        let path = file.path.strip_prefix(root()).unwrap_or(&file.path);
        let _ = writeln!(self.0, "{}:{line}: {what}", path.display());
    }

    #[track_caller]
    fn none(self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}

/// The rooms that a line names by `crate::room` or `crate::{room, …}`.
fn rooms_named_in(line: &str) -> Vec<&str> {
    let mut named = Vec::new();
    for (position, _) in line.match_indices("crate::") {
        let path = &line[position + "crate::".len()..];
        let names: Vec<&str> = match path.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default().split(',').map(str::trim).collect(),
            None => vec![path],
        };
        named.extend(names.into_iter().map(|name| name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()));
    }
    named.retain(|name| *name == "system" || ROOMS.iter().any(|group| group.contains(name)));
    named
}

fn may_use(room: &str, used: &str) -> bool {
    let group = |name: &str| ROOMS.iter().position(|group| group.contains(&name));
    let (from, to) = (group(room), group(used));
    room == used || from > to || (from == to && from.is_some_and(|group| KNOW_EACH_OTHER.contains(&group)))
}

/// Whether `line` has `word`, and not as the end of a longer name.
fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(position, _)| !line[..position].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    files_in("src", "rs")
}

/// The text files below a folder, with this extension or any.
fn files_in(folder: &str, extension: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("a folder of the project can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if (extension.is_empty() || path.extension().is_some_and(|found| found == extension))
                && let Ok(text) = fs::read_to_string(&path)
            {
                found.push(Source { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

#[test]
fn the_rules_catch_what_they_are_for() {
    assert!(!may_use("inbound", "outbound") && !may_use("oauth", "store") && !may_use("store", "doors") && !may_use("tasks", "doors"));
    assert!(may_use("doors", "tasks") && may_use("cli", "daemon") && may_use("net", "config") && may_use("id", "clock"));
    assert_eq!(rooms_named_in("use crate::{store, clock::Clock}; crate::doors::x()"), ["store", "clock", "doors"]);
    assert!(contains_word("    println!(\"x\")", "println!(") && !contains_word("eprintln!()", "println!("));
}
