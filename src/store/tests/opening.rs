//! Opening: what stops a start, and that it says why.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rusqlite::Connection;

use crate::clock::Timestamp;
use crate::store::{OpenError, Store, make_key, temporary, tenant};
use crate::system::SystemClock;

fn open(state_dir: &Path) -> Result<Store, OpenError> {
    Store::open(state_dir, None, Arc::new(SystemClock::new()))
}

fn database(state_dir: &Path) -> std::path::PathBuf {
    state_dir.join("p2pid.db")
}

/// A directory whose store was made and closed.
async fn closed() -> tempfile::TempDir {
    let (directory, store) = temporary();
    store.close().await;
    directory
}

/// The refusal, after checking that it is whole and that nothing of the database was lost.
fn refusal(state_dir: &Path) -> (OpenError, &'static str) {
    let before = fs::read(database(state_dir)).ok();
    let error = open(state_dir).expect_err("the start is refused");
    assert!(fs::read(database(state_dir)).ok() == before, "the database was touched: {error}");
    let explanation = error.explain();
    for part in [&explanation.message, &explanation.found, &explanation.expected, &explanation.next] {
        assert!(!part.is_empty() && error.to_string().contains(part.as_str()), "{error}");
    }
    (error, explanation.code)
}

#[tokio::test]
async fn a_new_state_directory_is_private() {
    let directory = tempfile::tempdir().expect("a directory");
    let state_dir = directory.path().join("a/b");
    let store = open(&state_dir).expect("a new store");
    store.write(|transaction| tenant::insert(transaction, "x", Timestamp::from_millis(0))).await.expect("written");
    let mode = |path: &Path| fs::metadata(path).expect("made").permissions().mode() & 0o777;
    assert_eq!(mode(&state_dir), 0o700);
    for file in fs::read_dir(&state_dir).expect("a directory") {
        let path = file.expect("a file").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[tokio::test]
async fn a_second_start_names_the_process_of_the_first() {
    let (directory, _store) = temporary();
    let (error, code) = refusal(directory.path());
    assert_eq!(code, "locked");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
}

#[tokio::test]
async fn k5_a_database_without_its_key_stops_the_start_and_no_key_is_made() {
    let directory = closed().await;
    fs::remove_file(directory.path().join("key")).expect("removed");
    assert_eq!(refusal(directory.path()).1, "key_missing");
    assert!(!directory.path().join("key").exists());
}

#[tokio::test]
async fn k5_a_wrong_key_stops_the_start() {
    let directory = closed().await;
    let key = directory.path().join("key");
    let right = fs::read_to_string(&key).expect("a key");
    let (id, _) = right.split_once(' ').expect("a line");
    let other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    fs::write(&key, format!("00000000 {other}\n")).expect("written");
    let (error, code) = refusal(directory.path());
    assert_eq!(code, "wrong_key");
    assert!(error.to_string().contains(id) && error.to_string().contains("00000000"), "{error}");
    assert!(!error.to_string().contains(other));

    fs::write(&key, format!("{id} {other}\n")).expect("written");
    assert_eq!(refusal(directory.path()).1, "wrong_key", "the same name with another key");

    fs::write(&key, "nonsense").expect("written");
    assert_eq!(refusal(directory.path()).1, "key_unreadable");
    fs::write(&key, &right).expect("written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("changed");
    assert_eq!(refusal(directory.path()).1, "key_unreadable");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("changed");
    assert!(open(directory.path()).is_ok());
}

#[tokio::test]
async fn k5_a_key_that_is_there_is_used_for_a_new_database() {
    let directory = tempfile::tempdir().expect("a directory");
    assert!(make_key(directory.path()).expect("made"));
    let key = fs::read(directory.path().join("key")).expect("a key");
    assert!(!make_key(directory.path()).expect("kept"));
    assert!(open(directory.path()).is_ok());
    assert_eq!(fs::read(directory.path().join("key")).expect("a key"), key);
}

#[tokio::test]
async fn a_newer_database_is_left_alone() {
    let directory = closed().await;
    Connection::open(database(directory.path())).and_then(|raw| raw.pragma_update(None, "user_version", 9_999)).expect("changed");
    let (error, code) = refusal(directory.path());
    assert_eq!(code, "newer_database");
    assert!(error.to_string().contains("9999"), "{error}");
}

#[tokio::test]
async fn another_programs_file_is_left_alone() {
    let directory = closed().await;
    Connection::open(database(directory.path())).and_then(|raw| raw.pragma_update(None, "application_id", 7)).expect("changed");
    assert_eq!(refusal(directory.path()).1, "not_ours");
    fs::write(database(directory.path()), "just some text, a little longer than a header would be".repeat(100)).expect("written");
    assert_eq!(refusal(directory.path()).1, "not_ours");
}

#[tokio::test]
async fn a_damaged_database_is_left_alone() {
    let directory = closed().await;
    let mut bytes = fs::read(database(directory.path())).expect("a database");
    let middle = bytes.len() / 2;
    bytes[4096..middle].fill(0xa5);
    fs::write(database(directory.path()), bytes).expect("written");
    assert_eq!(refusal(directory.path()).1, "corrupt");
}

#[tokio::test]
async fn a_start_that_was_interrupted_is_taken_up() {
    let directory = tempfile::tempdir().expect("a directory");
    make_key(directory.path()).expect("a key");
    fs::write(database(directory.path()), "").expect("an empty file");
    let store = open(directory.path()).expect("a new store");
    store.close().await;

    let directory = tempfile::tempdir().expect("a directory");
    make_key(directory.path()).expect("a key");
    Connection::open(database(directory.path())).and_then(|raw| raw.pragma_update(None, "journal_mode", "WAL")).expect("a header");
    assert!(open(directory.path()).is_ok());
}

#[tokio::test]
async fn a_database_that_was_emptied_is_no_new_one() {
    let directory = tempfile::tempdir().expect("a directory");
    open(directory.path()).expect("a new store").close().await;
    for file in ["p2pid.db-wal", "p2pid.db-shm"] {
        let _ = fs::remove_file(directory.path().join(file));
    }
    fs::write(database(directory.path()), "").expect("an empty file");
    let Err(OpenError::Corrupt(path, found)) = open(directory.path()) else { panic!("it was taken for a new one") };
    assert_eq!((path, found.as_str()), (database(directory.path()), "an empty file where a database was"));
    assert_eq!(fs::metadata(database(directory.path())).expect("the file").len(), 0, "left alone");
}

/// In the child: writes as fast as it can, and says what was acknowledged.
#[tokio::test]
#[ignore = "the other half of the test below, which runs it in a process of its own"]
async fn writes_until_it_is_killed() {
    use std::io::Write;
    let Ok(state_dir) = std::env::var("P2PID_TEST_STATE_DIR") else { return };
    let store = open(Path::new(&state_dir)).expect("opened");
    for number in 0_i64.. {
        let name = format!("tenant-{number}");
        store.write(move |transaction| tenant::insert(transaction, &name, Timestamp::from_millis(number))).await.expect("written");
        let mut out = std::io::stdout().lock();
        writeln!(out, "acknowledged {number}").and_then(|()| out.flush()).expect("told");
    }
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_kill() {
    let directory = closed().await;
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program)
        .args(["--exact", "store::tests::opening::writes_until_it_is_killed", "--ignored", "--nocapture"])
        .env("P2PID_TEST_STATE_DIR", directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    let mut acknowledged = 0;
    while acknowledged < 50 {
        line.clear();
        assert!(out.read_line(&mut line).expect("read") > 0, "the child ended");
        if let Some((_, number)) = line.split_once("acknowledged ") {
            acknowledged = number.trim().parse().expect("a number");
        }
    }
    child.kill().expect("killed");
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("read");
    let whole = rest.rsplit_once('\n').map_or("", |(whole, _)| whole);
    if let Some((_, number)) = whole.rsplit_once("acknowledged ") {
        acknowledged = number.trim().parse().expect("a number");
    }
    child.wait().expect("reaped");
    let store = open(directory.path()).expect("opened again: the lock died with its process");
    let tenants = store.read(tenant::all).await.expect("read").len();
    assert!(tenants > acknowledged + 1, "{acknowledged} acknowledged, {tenants} there with the default one");
}
