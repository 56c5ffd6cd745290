//! The writer and the readers, on real databases.

mod audit;
mod fixture;
mod migrations;
mod opening;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::Connection;

use super::{Fault, Store, StoreError, Transaction, temporary};
use crate::clock::Clock;
use crate::system::SystemClock;

const TABLE: &str = "CREATE TABLE item (number INTEGER PRIMARY KEY, text TEXT)";

async fn with_table() -> (tempfile::TempDir, Store) {
    let (directory, store) = temporary();
    store.write(|transaction| Ok(transaction.execute_batch(TABLE)?)).await.expect("a table");
    (directory, store)
}

fn insert(transaction: &Transaction<'_>, number: i64) -> Result<(), Fault> {
    transaction.prepare_cached("INSERT INTO item (number) VALUES (?1)")?.execute([number])?;
    Ok(())
}

async fn numbers(store: &Store) -> Vec<i64> {
    let look = |connection: &Connection| {
        let mut statement = connection.prepare_cached("SELECT number FROM item ORDER BY number")?;
        Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?)
    };
    store.read(look).await.expect("numbers")
}

/// Holds the writer inside a transaction until what comes meanwhile waits, so that all of it becomes one batch.
async fn hold(store: &Store) -> std::sync::mpsc::Sender<()> {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (entered, is_in) = tokio::sync::oneshot::channel();
    let mut entered = Some(entered);
    let held = std::sync::Mutex::new(held);
    let store = store.clone();
    tokio::spawn(async move {
        let wait = move |_: &Transaction<'_>| {
            entered.take().map(|entered| entered.send(()));
            let _ = held.lock().expect("one holder").recv();
            Ok(())
        };
        store.write(wait).await
    });
    is_in.await.expect("the writer is held");
    release
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_one_commit_and_each_fault_is_its_own() {
    let (_directory, store) = with_table().await;
    let commits = store.commits();
    let release = hold(&store).await;
    let tasks: Vec<_> = (0..100)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let judge = move |transaction: &Transaction<'_>| {
                    insert(transaction, number)?;
                    match number % 10 {
                        3 => Err(Fault::Corrupt { table: "item", what: "as asked".to_owned() }),
                        7 => panic!("as asked"),
                        _ => Ok(number),
                    }
                };
                store.write(judge).await
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(release);
    for (number, task) in (0_i64..).zip(tasks) {
        let answer = task.await.expect("answered");
        match number % 10 {
            3 => assert!(matches!(answer, Err(StoreError::Fault(_))), "{answer:?}"),
            7 => assert!(matches!(answer, Err(StoreError::Panicked)), "{answer:?}"),
            _ => assert_eq!(answer.expect("written"), number),
        }
    }
    assert_eq!(numbers(&store).await, (0..100).filter(|number| ![3, 7].contains(&(number % 10))).collect::<Vec<_>>());
    assert_eq!(store.commits() - commits, 1);
}

#[tokio::test]
async fn an_item_alone_is_undone_by_its_fault() {
    let (_directory, store) = with_table().await;
    let judge = |transaction: &Transaction<'_>| {
        insert(transaction, 1)?;
        Err::<(), _>(Fault::Corrupt { table: "item", what: "as asked".to_owned() })
    };
    assert!(store.write(judge).await.is_err());
    assert!(store.write(|transaction| insert(transaction, 2)).await.is_ok());
    assert_eq!(numbers(&store).await, [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_disk_is_full_each_item_is_judged_again_alone() {
    let (_directory, store) = with_table().await;
    let limit = |transaction: &Transaction<'_>| {
        let pages: i64 = transaction.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        Ok(transaction.pragma_update(None, "max_page_count", pages + 8)?)
    };
    store.write(limit).await.expect("limited");
    let release = hold(&store).await;
    let judged = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..20)
        .map(|number: i64| {
            let (store, judged) = (store.clone(), Arc::clone(&judged));
            tokio::spawn(async move {
                let text = "x".repeat(if number == 10 { 100_000 } else { 1 });
                let judge = move |transaction: &Transaction<'_>| {
                    judged.fetch_add(1, Ordering::Relaxed);
                    transaction.execute("INSERT INTO item (number, text) VALUES (?1, ?2)", rusqlite::params![number, text])?;
                    Ok(())
                };
                store.write(judge).await
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(release);
    for (number, task) in (0_i64..).zip(tasks) {
        let answer = task.await.expect("answered");
        match number {
            10 => assert!(matches!(answer, Err(StoreError::Unavailable)), "{answer:?}"),
            _ => assert!(answer.is_ok(), "{number}: {answer:?}"),
        }
    }
    assert_eq!(numbers(&store).await, (0..20).filter(|number| *number != 10).collect::<Vec<_>>());
    assert!(judged.load(Ordering::Relaxed) > 20, "some were judged twice");
}

#[tokio::test]
async fn a_judge_that_ends_the_transaction_and_says_nothing_is_noticed() {
    let (_directory, store) = with_table().await;
    let judge = |transaction: &Transaction<'_>| {
        transaction.execute_batch("ROLLBACK")?;
        insert(transaction, 1)
    };
    assert!(matches!(store.write(judge).await, Err(StoreError::Unavailable)));
    assert!(store.write(|transaction| insert(transaction, 2)).await.is_ok());
}

/// Makes this transaction's commit fail, as a failing disk would.
fn break_commit(transaction: &Transaction<'_>) -> Result<(), Fault> {
    insert(transaction, 99)?;
    Ok(transaction.commit_hook(Some(|| true))?)
}

#[tokio::test]
async fn after_a_failed_commit_the_database_is_opened_again() {
    let (_directory, store) = with_table().await;
    store.write(|transaction| insert(transaction, 1)).await.expect("written");
    assert!(matches!(store.write(break_commit).await, Err(StoreError::Unavailable)));
    store.write(|transaction| insert(transaction, 2)).await.expect("written after the database was opened again");
    assert_eq!(numbers(&store).await, [1, 2]);
    assert!(matches!(store.write(break_commit).await, Err(StoreError::Unavailable)));
    assert!(store.write(|transaction| insert(transaction, 3)).await.is_ok(), "the count began anew");
}

#[tokio::test]
async fn two_failed_commits_in_a_row_end_the_store() {
    let (_directory, store) = with_table().await;
    assert!(store.write(break_commit).await.is_err());
    assert!(store.write(break_commit).await.is_err());
    assert!(store.lost().await.contains("two commits in a row"));
    assert!(matches!(store.write(|transaction| insert(transaction, 1)).await, Err(StoreError::Unavailable)));
}

#[tokio::test]
async fn while_another_program_holds_the_database_nothing_is_written_and_afterwards_all_is_well() {
    let (directory, store) = with_table().await;
    store.write(|transaction| Ok(transaction.busy_timeout(Duration::ZERO)?)).await.expect("no patience");
    let other = Connection::open(directory.path().join("p2pid.db")).expect("another program");
    other.execute_batch("BEGIN IMMEDIATE").expect("held");
    for number in 0..3 {
        assert!(matches!(store.write(move |transaction| insert(transaction, number)).await, Err(StoreError::Unavailable)));
    }
    assert!(numbers(&store).await.is_empty(), "looks go on");
    other.execute_batch("ROLLBACK").expect("let go");
    store.write(|transaction| insert(transaction, 4)).await.expect("written");
    assert_eq!(numbers(&store).await, [4]);
}

#[tokio::test]
async fn a_database_that_cannot_be_written_is_unavailable_and_still_read() {
    let (_directory, store) = with_table().await;
    store.write(|transaction| insert(transaction, 1)).await.expect("written");
    store.write(|transaction| Ok(transaction.pragma_update(None, "query_only", true)?)).await.expect("as if it were read-only");
    assert!(matches!(store.write(|transaction| insert(transaction, 2)).await, Err(StoreError::Unavailable)));
    assert_eq!(numbers(&store).await, [1]);
}

#[tokio::test]
async fn what_waited_too_long_is_never_judged() {
    let (_directory, store) = with_table().await;
    let now = SystemClock::new().now();
    let release = hold(&store).await;
    let late = tokio::spawn({
        let store = store.clone();
        async move { store.write_within(now, Duration::from_millis(20), |transaction| insert(transaction, 1)).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(release);
    assert!(matches!(late.await.expect("answered"), Err(StoreError::Expired)));
    store.write_within(SystemClock::new().now(), Duration::from_secs(10), |transaction| insert(transaction, 2)).await.expect("in time");
    assert_eq!(numbers(&store).await, [2]);
}

#[tokio::test]
async fn whoever_hangs_up_is_judged_all_the_same() {
    let (_directory, store) = with_table().await;
    let release = hold(&store).await;
    let call = tokio::spawn({
        let store = store.clone();
        async move { store.write(|transaction| insert(transaction, 1)).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    call.abort();
    drop(release);
    store.write(|_| Ok(())).await.expect("all before is done");
    assert_eq!(numbers(&store).await, [1]);
}

#[tokio::test]
async fn a_full_queue_answers_at_once() {
    let (_directory, store) = with_table().await;
    let release = hold(&store).await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..10_000 {
        let store = store.clone();
        waiting.spawn(async move { store.write(|_| Ok(())).await });
    }
    let first = waiting.join_next().await.expect("one is refused").expect("no panic");
    assert!(matches!(first, Err(StoreError::Overloaded)), "{first:?}");
    drop(release);
    let refused = waiting.join_all().await.into_iter().filter(Result::is_err).count();
    assert!(refused < 2_000, "{refused} refused");
}

#[tokio::test]
async fn a_reader_cannot_write_and_its_panic_stays_its_own() {
    let (_directory, store) = with_table().await;
    let write = |connection: &Connection| Ok(connection.execute("INSERT INTO item (number) VALUES (1)", [])?);
    assert!(store.read(write).await.is_err());
    for _ in 0..8 {
        assert!(matches!(store.read::<(), _>(|_| panic!("as asked")).await, Err(StoreError::Panicked)));
    }
    assert!(numbers(&store).await.is_empty());
}

#[tokio::test]
async fn every_statement_is_counted() {
    let (_directory, store) = with_table().await;
    let before = store.statements();
    let _ = (store.epoch(), store.seals().mac("x", &[]), store.commits());
    assert_eq!(store.statements(), before);
    store.read(|connection| Ok(connection.query_row("SELECT 1", [], |_| Ok(()))?)).await.expect("read");
    // BEGIN, SELECT, ROLLBACK; and what sets up a reader's first connection.
    assert!(store.statements() >= before + 3);
}

#[tokio::test]
async fn a_closed_store_gives_up_its_directory() {
    let (directory, store) = with_table().await;
    store.write(|transaction| insert(transaction, 1)).await.expect("written");
    store.close().await;
    assert!(matches!(store.write(|_| Ok(())).await, Err(StoreError::Unavailable)));
    assert!(matches!(store.read(|_| Ok(())).await, Err(StoreError::Unavailable)));
    let again = Store::open(directory.path(), None, Arc::new(SystemClock::new())).expect("opened again");
    assert_eq!(numbers(&again).await, [1]);
    assert_eq!(again.epoch(), store.epoch());
}
