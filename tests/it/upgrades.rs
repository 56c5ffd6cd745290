//! A new version beside a database of before, as a real process: no way forward without a way back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use rusqlite::Connection;
use serde_json::Value;

/// An instance whose database is of schema version 13, with `megabytes` more in it.
fn instance_of_before(megabytes: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let init = ["init", "one", "--public-url", "http://localhost:7446", "--dir", folder.path().to_str().expect("UTF-8")];
    let made = Command::new(env!("CARGO_BIN_EXE_p2pid")).args(init).output().expect("the program runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (state_dir, fixture) = (folder.path().join("one"), Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store/13"));
    // Into the file that is there, which is for its owner only.
    fs::write(state_dir.join("key"), fs::read(fixture.join("key")).expect("a key")).expect("written");
    let database = Connection::open(state_dir.join("p2pid.db")).expect("a database");
    database.execute_batch(&fs::read_to_string(fixture.join("database.sql")).expect("SQL")).expect("a dump");
    let rows = "WITH RECURSIVE row (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM row LIMIT ?1)
        INSERT INTO audit (at, action, outcome, actor_kind, actor, details)
        SELECT 1000, 'user.created', 'done', 'process', 'uid 0', '{\"filling\":\"' || hex(zeroblob(4000)) || '\"}' FROM row";
    database.execute(rows, [megabytes * 128]).expect("rows of eight kilobytes");
    database.execute_batch("PRAGMA journal_mode = WAL").expect("as the daemon has it");
    drop(database);
    fs::set_permissions(state_dir.join("p2pid.db"), fs::Permissions::from_mode(0o600)).expect("changed");
    folder
}

/// Starts the daemon by way of `through`, which must end by itself.
fn start(folder: &Path, through: &[&str]) -> Output {
    let (config, program) = (folder.join("one.toml"), env!("CARGO_BIN_EXE_p2pid"));
    let run = [&["timeout", "60"], through, &[program, "-c", config.to_str().expect("UTF-8"), "--json", "run"]].concat();
    Command::new(run[0]).args(&run[1..]).output().expect("it is there")
}

/// What a start that keeps no copy says, and that it has left everything as it was.
fn refuses(folder: &Path, through: &[&str]) -> Value {
    let database = folder.join("one/p2pid.db");
    let before = fs::read(&database).expect("a database");
    let ended = start(folder, through);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    let error = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find(|line| line["error"].is_object());
    let error = error.unwrap_or_else(|| panic!("no error: {said}"))["error"].clone();
    assert_eq!(error["code"], "upgrade_not_kept", "{said}");
    assert!(error["next"].as_str().is_some_and(|next| next.contains("nothing was changed")), "{said}");
    assert!(fs::read(&database).expect("a database") == before, "nothing was changed");
    let names = fs::read_dir(folder.join("one")).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let copies: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with("p2pid-schema-")).collect();
    assert!(copies.is_empty(), "half a copy: {copies:?}");
    error
}

#[test]
fn where_the_disk_takes_no_copy_the_schema_stays_as_it_is() {
    let folder = instance_of_before(4);
    // No file may become larger than 2 MB (`ulimit` counts 512 bytes), which is how a full disk answers too: the write fails.
    let full = ["sh", "-c", "trap '' XFSZ; ulimit -f 4096; exec \"$@\"", "sh"];
    let error = refuses(folder.path(), &full);
    assert!(error["found"].as_str().is_some_and(|found| found.contains("cannot be copied")), "{error}");
}

#[test]
fn where_the_state_folder_takes_no_new_file_the_schema_stays_as_it_is() {
    let folder = instance_of_before(0);
    let state_dir = folder.path().join("one");
    fs::write(state_dir.join("lock"), "").expect("as the version before left it");
    // The version before was killed: the files beside its database are there.
    let killed = Connection::open(state_dir.join("p2pid.db")).expect("opened");
    killed.execute_batch("BEGIN IMMEDIATE; ROLLBACK").expect("in use");
    fs::set_permissions(&state_dir, fs::Permissions::from_mode(0o500)).expect("changed");
    // Root may write everywhere, until it gives that up.
    let obeys: &[&str] = match rustix::process::geteuid().is_root() {
        true => &["setpriv", "--bounding-set=-dac_override,-dac_read_search"],
        false => &[],
    };
    let error = refuses(folder.path(), obeys);
    fs::set_permissions(&state_dir, fs::Permissions::from_mode(0o700)).expect("changed back");
    assert!(error["found"].as_str().is_some_and(|found| found.contains("Permission denied")), "{error}");
}
