//! Every schema that ever shipped is brought up to date, with everything in it.
//!
//! `tests/fixtures/store/N/` holds a database of schema version N as SQL, and its key. A fixture is frozen: what was shipped does not change.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;

use crate::clock::{Clock, Timestamp};
use crate::secret::Digest;
use crate::store::migrations::NEWEST;
use crate::store::{Store, api_key, schema_copy, temporary, tenant, user};
use crate::system::SystemClock;

fn fixtures() -> Vec<(u32, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store");
    let numbered = |path: PathBuf| (path.file_name().and_then(|name| name.to_str()?.parse().ok()).expect("a version"), path);
    let mut fixtures: Vec<_> = fs::read_dir(folder).expect("fixtures").map(|entry| numbered(entry.expect("an entry").path())).collect();
    fixtures.sort();
    fixtures
}

fn fixture(version: u32) -> PathBuf {
    fixtures().into_iter().find(|(found, _)| *found == version).expect("a fixture of that version").1
}

/// A state directory as the fixture has it.
fn thawed(fixture: &Path) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let database = Connection::open(directory.path().join("p2pid.db")).expect("a database");
    database.execute_batch(&fs::read_to_string(fixture.join("database.sql")).expect("SQL")).expect("a dump");
    let key = directory.path().join("key");
    fs::copy(fixture.join("key"), &key).expect("a key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("private");
    directory
}

/// What the schema is, however its SQL was laid out.
fn schema(connection: &Connection) -> Vec<(String, String)> {
    let mut statement = connection
        .prepare("SELECT name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name")
        .expect("a schema");
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?.split_whitespace().collect()))).expect("rows");
    rows.collect::<Result<_, _>>().expect("rows")
}

fn counts(connection: &Connection) -> Vec<(String, i64)> {
    let tables = schema(connection).into_iter().filter(|(_, sql)| sql.starts_with("CREATETABLE"));
    let count = |table: &str| connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("a count");
    tables.map(|(table, _)| (table.clone(), count(&table))).collect()
}

#[tokio::test]
async fn every_schema_that_shipped_is_brought_up_to_date_with_all_that_is_in_it() {
    let (_fresh, fresh) = temporary();
    let expected = fresh.read(|connection| Ok(schema(connection))).await.expect("read");
    let fixtures = fixtures();
    assert!(fixtures.iter().any(|(version, _)| *version as usize == NEWEST), "the newest schema has no fixture");
    for (version, fixture) in fixtures {
        let directory = thawed(&fixture);
        let before = counts(&Connection::open(directory.path().join("p2pid.db")).expect("opened"));
        for (table, count) in &before {
            assert!(*count > 0, "the fixture {version} should have a row in {table}");
        }
        let store = Store::open(directory.path(), None, Arc::new(SystemClock::new())).expect("brought up to date");
        let (schema, after, dangling) = store
            .read(|connection| {
                let dangling = connection.prepare("PRAGMA foreign_key_check")?.exists([])?;
                Ok((schema(connection), counts(connection), dangling))
            })
            .await
            .expect("read");
        assert_eq!(schema, expected, "version {version} did not become today's schema: a step that shipped was changed, or one is wrong");
        assert!(!dangling, "version {version} left a record that refers to nothing");
        for (table, count) in before {
            // The audit tells of the new epoch besides.
            let left = after.iter().find(|(left, _)| *left == table).map(|(_, left)| *left);
            let is_whole = left == Some(count) || (table == "audit" && left > Some(count));
            assert!(is_whole, "version {version} lost rows of {table}");
        }
        // All that is sealed still opens: a rotation seals all of it again.
        let sealed: i64 = store.keys().await.expect("keys").iter().map(|key| key.sealed).sum();
        let rotation = store.rotate_keys().await.expect("rotated");
        assert!(sealed > 0 && i64::try_from(rotation.resealed) == Ok(sealed), "{rotation:?}");
        assert!(store.read(tenant::all).await.expect("read").len() > 1);
        let digest = Digest::from_bytes([2; 32]);
        let look = move |connection: &Connection| Ok((api_key::by_digest(connection, digest)?, user::all(connection)?));
        let (key, people) = store.read(look).await.expect("read");
        let key = key.unwrap_or_else(|| panic!("version {version} lost the key for the admin API"));
        assert_eq!(people.iter().map(|user| (user.id, user.api_keys)).collect::<Vec<_>>(), [(key.user, 1)], "version {version}");
        assert!(key.is_active(Timestamp::from_millis(5_000)) && (key.permissions.is_none() || version > 6), "it goes on working");
    }
}

/// The copies that upgrades have left in a state directory, by name.
fn copies(state_dir: &Path) -> Vec<String> {
    let names = fs::read_dir(state_dir).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> =
        names.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with("p2pid-schema-")).collect();
    names.sort();
    names
}

fn version_of(file: &Path) -> usize {
    let version = Connection::open(file).and_then(|file| file.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0)));
    version.expect("a database") as usize
}

#[tokio::test]
async fn before_a_step_the_database_is_kept_as_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    assert!(crate::store::make_key(directory.path()).expect("a key"));
    let database = directory.path().join("p2pid.db");
    let raw = Connection::open(&database).expect("a database");
    raw.execute_batch(include_str!("../migrations/01-base.sql")).expect("the first step");
    raw.execute_batch(
        "PRAGMA user_version = 1; PRAGMA application_id = 1882353769; INSERT INTO meta (one, epoch, made_at) VALUES (1, 1, 1);",
    )
    .expect("a header");
    raw.execute("INSERT INTO state_key VALUES (x'00000000', zeroblob(32), 1)", []).expect("another key");
    let open = || Store::open(directory.path(), None, Arc::new(SystemClock::new()));
    assert_eq!(open().expect_err("the key is another").explain().code, "wrong_key");
    assert_eq!(copies(directory.path()), [""; 0], "no step is taken under a wrong key");
    raw.execute("DELETE FROM state_key", []).expect("gone");
    drop(raw);
    fs::write(directory.path().join("epoch"), "1\n").expect("written");
    let store = open().expect("brought up to date");
    assert_eq!(store.epoch(), 1);
    let kept = copies(directory.path());
    assert_eq!((kept.len(), version_of(&directory.path().join(&kept[0])), version_of(&database)), (1, 1, NEWEST), "{kept:?}");
    store.close().await;
    open().expect("opened").close().await;
    assert_eq!(copies(directory.path()), kept, "a start that changes no schema keeps no copy");
}

#[tokio::test]
async fn an_upgrade_beside_an_older_copy_keeps_one_of_its_own() {
    let directory = thawed(&fixture(13));
    let state_dir = directory.path();
    let database = state_dir.join("p2pid.db");
    let older = state_dir.join("p2pid-schema-13.db");
    fs::write(&older, "of an upgrade before a restore, say").expect("written");
    let raw = Connection::open(&database).expect("opened");
    raw.execute("INSERT INTO tenant VALUES ('made-since', 1000)", []).expect("changed since the older copy");
    drop(raw);
    Store::open(state_dir, None, Arc::new(SystemClock::new())).expect("brought up to date").close().await;

    assert_eq!(fs::read_to_string(&older).expect("still there"), "of an upgrade before a restore, say");
    let kept = copies(state_dir);
    let [new] = &kept.iter().filter(|name| !older.ends_with(name)).collect::<Vec<_>>()[..] else { panic!("one more: {kept:?}") };
    let new = state_dir.join(new);
    let has_it = Connection::open(&new).expect("opened").query_row("SELECT 1 FROM tenant WHERE name = 'made-since'", [], |_| Ok(()));
    assert_eq!((version_of(&new), has_it), (13, Ok(())), "the database as it was just before");
    assert_eq!(fs::metadata(&new).expect("a file").permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_step_that_fails_leaves_the_database_and_the_copies_as_they_were() {
    let directory = thawed(&fixture(13));
    let database = directory.path().join("p2pid.db");
    let raw = Connection::open(&database).expect("opened");
    raw.execute_batch("ALTER TABLE audit_horizon RENAME TO somewhere_else").expect("the next step does not find its table");
    drop(raw);
    let older = ["p2pid-schema-10.db", "p2pid-schema-11.db", "p2pid-schema-12.db", "p2pid-schema-9.db"];
    for name in older {
        fs::write(directory.path().join(name), "older").expect("written");
    }
    for _ in 0..2 {
        let error = Store::open(directory.path(), None, Arc::new(SystemClock::new())).expect_err("a step fails").explain();
        assert!(error.found.contains("audit_horizon"), "{error}");
        assert_eq!((version_of(&database), copies(directory.path())), (13, older.map(str::to_owned).into()), "{error}");
    }
}

#[tokio::test]
async fn starts_that_are_killed_while_the_schema_changes_push_out_no_older_copy() {
    let directory = thawed(&fixture(13));
    let (state_dir, clock) = (directory.path(), SystemClock::new());
    let older = ["p2pid-schema-11.db", "p2pid-schema-12.db"];
    for name in older {
        fs::write(state_dir.join(name), "older").expect("written");
    }
    for _ in 0..3 {
        let _ = schema_copy::keep(state_dir, 13, clock.now().wall).unwrap_or_else(|error| panic!("{}", error.explain()));
    }
    let opens = || Store::open(state_dir, None, Arc::new(SystemClock::new())).expect("brought up to date");
    opens().close().await;
    let kept = copies(state_dir);
    let (old, new): (Vec<&String>, Vec<&String>) = kept.iter().partition(|name| older.contains(&name.as_str()));
    let [new] = new[..] else { panic!("one of this upgrade: {kept:?}") };
    assert_eq!((old.len(), version_of(&state_dir.join(new))), (2, 13), "{kept:?}");
    // Killed when the schema had changed, and before its copy was called so.
    fs::rename(state_dir.join(new), state_dir.join(format!("{new}.pending"))).expect("renamed");
    opens().close().await;
    assert_eq!(copies(state_dir), kept);
}
