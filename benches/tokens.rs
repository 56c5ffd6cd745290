//! How many durable token writes a second: what one-row commits allow, and what the store's group commit makes of them.
//!
//! `cargo bench --bench tokens [-- SECONDS [DIRECTORY]]`. The directory should be on the disk that matters (default: the target directory's).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use p2pid::clock::Clock;
use p2pid::id::Id;
use p2pid::random::{self, Random};
use p2pid::secret::Digest;
use p2pid::store::{Fault, Store, Transaction};
use p2pid::system::{SystemClock, SystemRandom};
use rusqlite::Connection;

/// A table as tokens have one: found by digest, belonging to a grant, running out.
const TABLE: &str =
    "CREATE TABLE bench_token (digest BLOB PRIMARY KEY, owner BLOB NOT NULL, issued_at INTEGER NOT NULL, purge_at INTEGER NOT NULL)
    STRICT, WITHOUT ROWID;
    CREATE INDEX bench_token_purge ON bench_token (purge_at);";
const INSERT: &str = "INSERT INTO bench_token (digest, owner, issued_at, purge_at) VALUES (?1, ?2, ?3, ?4)";

type Failure = Box<dyn std::error::Error>;

/// What one kind of writing came to.
struct Measured {
    writes: u64,
    commits: u64,
    took: Duration,
    latencies: Histogram<u64>,
}

fn main() -> Result<(), Failure> {
    // `cargo bench` adds an option of its own.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let seconds = arguments.next().map_or(Ok(2), |text| text.parse())?;
    let base = arguments.next().map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let span = Duration::from_secs(seconds);

    report("one-row commits, plain SQLite", &one_row_commits(&base, span)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for writers in [1, 32, 256, 1024] {
        let measured = runtime.block_on(group_commit(&base, span, writers))?;
        report(&format!("group commit, {writers} writers"), &measured);
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a benchmark says what it measured")]
fn report(name: &str, measured: &Measured) {
    let Measured { writes, commits, took, latencies } = measured;
    #[expect(clippy::cast_precision_loss, reason = "rates are approximate")]
    let (rate, per_thousand) = (*writes as f64 / took.as_secs_f64(), *commits as f64 * 1000.0 / *writes as f64);
    let [middle, late, last] = [0.5, 0.99, 1.0].map(|quantile| latencies.value_at_quantile(quantile));
    println!("{name:32} {rate:9.0} writes/s {per_thousand:7.1} commits/1000 writes   p50 {middle:6} µs  p99 {late:6} µs  max {last:6} µs");
}

/// What any program gets that commits each row: the same settings, one thread, one transaction per row.
fn one_row_commits(base: &Path, span: Duration) -> Result<Measured, Failure> {
    let directory = tempfile::tempdir_in(base)?;
    let connection = Connection::open(directory.path().join("plain.db"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "secure_delete", true)?;
    connection.execute_batch(TABLE)?;
    let mut latencies = Histogram::new(3)?;
    let (begin, mut writes) = (Instant::now(), 0);
    while begin.elapsed() < span {
        let one = Instant::now();
        connection.prepare_cached(INSERT)?.execute(row(&SystemRandom))?;
        latencies.record(micros(one))?;
        writes += 1;
    }
    Ok(Measured { writes, commits: writes, took: begin.elapsed(), latencies })
}

async fn group_commit(base: &Path, span: Duration, writers: usize) -> Result<Measured, Failure> {
    let directory = tempfile::tempdir_in(base)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let store = Store::open(directory.path(), None, clock)?;
    store.write(|transaction| Ok(transaction.execute_batch(TABLE)?)).await?;
    let (commits, begin) = (store.commits(), Instant::now());
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut latencies = Histogram::<u64>::new(3).expect("three digits");
                while begin.elapsed() < span {
                    let one = Instant::now();
                    let row = row(&SystemRandom);
                    store.write(move |transaction| insert(transaction, &row)).await.expect("written");
                    latencies.record(micros(one)).expect("a resizing histogram");
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Histogram::new(3)?;
    for task in tasks {
        latencies.add(task.await?)?;
    }
    let took = begin.elapsed();
    let measured = Measured { writes: latencies.len(), commits: store.commits() - commits, took, latencies };
    store.close().await;
    Ok(measured)
}

fn insert(transaction: &Transaction<'_>, row: &(Digest, Id, i64, i64)) -> Result<(), Fault> {
    transaction.prepare_cached(INSERT)?.execute((row.0, row.1, row.2, row.3))?;
    Ok(())
}

fn row(random: &dyn Random) -> (Digest, Id, i64, i64) {
    (Digest::from_bytes(random::bytes(random)), Id::from_bytes(random::bytes(random)), 1_700_000_000_000, 1_700_003_600_000)
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
