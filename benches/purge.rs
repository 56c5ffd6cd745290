//! Purge: how long token issues and look-ups take while a million access tokens are deleted, beside how long they take before and afterwards.
//! One half hangs on grants that have run out, the other on an app that is deleted in the same moment.
//!
//! `cargo bench --bench purge [-- ROWS [DIRECTORY]]`. The directory should be on the disk that matters (default: the target directory's).
//! The store is the daemon's own, in this process; what is issued is an access token of an app itself, durably. Ratios within one run say
//! more than the numbers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use p2pid::clock::{Clock, Timestamp};
use p2pid::id::Id;
use p2pid::inbound::grant::{Fresh, NewAccess};
use p2pid::inbound::ib_app::{GrantType, IbApp};
use p2pid::oauth::scope::Scope;
use p2pid::oauth::token::{Kind, mint};
use p2pid::secret::{ExposeSecret, SecretString};
use p2pid::store::token_table::TokenTable;
use p2pid::store::{Store, Transaction, app_token, ib_app};
use p2pid::system::{SystemClock, SystemRandom};
use p2pid::tasks::purge::rest;

/// Who issues at the same time.
const CLIENTS: usize = 16;

const HOUR: Duration = Duration::from_secs(3_600);

/// Grants written in one go, the access tokens of each, and rows in all where nothing is said.
const CHUNK: i64 = 2_000;
const TOKENS: i64 = 10;
const ROWS: i64 = 1_000_000;

/// How long is measured without a purge.
const STRETCH: Duration = Duration::from_secs(8);

/// Grants that ran out and their tokens, as the daemon would have left them had nobody purged.
const DEAD_GRANTS: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
    INSERT INTO grant (id, app, user, scope, epoch, created_at, purge_at)
    SELECT randomblob(16), ?2, NULL, '', (SELECT epoch FROM meta), ?3, 1 + i % 1000 FROM n";
const DEAD_TOKENS: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
    INSERT INTO access_token (digest, grant, generation, scope, issued_at, expires_at, ended)
    SELECT randomblob(32), g.id, n.i, '', 0, 1, 0 FROM grant AS g, n WHERE g.created_at = ?2";

/// Tokens of an app itself, which is deleted before they have run out.
const APP_TOKENS: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
    INSERT INTO app_token (digest, app, scope, epoch, issued_at, expires_at, ended, purge_at)
    SELECT randomblob(32), ?2, '', 1, 0, ?3, 0, ?3 FROM n";

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What was measured over one stretch of time.
struct Measured {
    took: Duration,
    issues: Histogram<u64>,
    calls: Histogram<u64>,
}

fn main() -> Result<(), Failure> {
    // `cargo bench` adds an option of its own.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let rows: i64 = arguments.next().map_or(Ok(ROWS), |text| text.parse())?;
    let base = arguments.next().map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    std::fs::create_dir_all(&base)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(rows, &base))
}

#[expect(clippy::cast_precision_loss, reason = "a pace is approximate")]
async fn run(rows: i64, base: &std::path::Path) -> Result<(), Failure> {
    let directory = tempfile::tempdir_in(base)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let store = Store::open(directory.path(), None, Arc::clone(&clock))?;
    let doomed = || IbApp { id: Id::from_bytes([2; 16]), name: "doomed".to_owned(), client_id: "doomed".to_owned(), ..client() };
    store.write(move |transaction| Ok(ib_app::insert(transaction, &client())? && ib_app::insert(transaction, &doomed())?)).await?;
    for chunk in 0..rows / (2 * CHUNK * TOKENS) {
        let fill = move |transaction: &Transaction<'_>| {
            transaction.execute(DEAD_GRANTS, (CHUNK, client().id, chunk))?;
            transaction.execute(APP_TOKENS, (CHUNK * TOKENS, doomed().id, i64::MAX / 2))?;
            Ok(transaction.execute(DEAD_TOKENS, (TOKENS, chunk))?)
        };
        store.write(fill).await?;
    }
    let (before, _) = measured(&store, &clock, nothing()).await?;
    let (purging, resting) = (store.clone(), Arc::clone(&clock));
    let purge = async move {
        let one = Instant::now();
        purging.write(move |transaction| ib_app::delete(transaction, doomed().id)).await?;
        say(&format!("the app with {} tokens was deleted in {:.1} ms", rows / 2, one.elapsed().as_secs_f64() * 1e3));
        let begun_at = resting.now();
        let now = begun_at.wall.plus(Duration::from_millis(1));
        Ok(purging.purge_resting(now, || resting.sleep(rest(resting.now().age_of(&begun_at)))).await?)
    };
    let (during, gone) = measured(&store, &clock, purge).await?;
    let (after, _) = measured(&store, &clock, nothing()).await?;
    let seconds = during.took.as_secs_f64();
    say(&format!("{gone} rows deleted in {seconds:.1} s: {:.0} a second", gone as f64 / seconds));
    for (when, without) in [("before", &before), ("afterwards", &after)] {
        report(&format!("issues, against {when}"), &during.issues, &without.issues);
        report(&format!("look-ups, against {when}"), &during.calls, &without.calls);
    }
    store.close().await;
    Ok(())
}

async fn nothing() -> Result<usize, Failure> {
    tokio::time::sleep(STRETCH).await;
    Ok(0)
}

/// Issues tokens and looks one up in the database, as for the first call after a start, all the time until `work` is done.
async fn measured(
    store: &Store,
    clock: &Arc<dyn Clock>,
    work: impl Future<Output = Result<usize, Failure>>,
) -> Result<(Measured, usize), Failure> {
    let is_over = Arc::new(AtomicBool::new(false));
    let issuing: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (store, is_over) = (store.clone(), Arc::clone(&is_over));
            tokio::spawn(async move {
                let mut latencies = Histogram::<u64>::new(3).expect("three digits");
                while !is_over.load(Ordering::Relaxed) {
                    let one = Instant::now();
                    issued(&store).await?;
                    latencies.record(micros(one))?;
                }
                Ok::<_, Failure>(latencies)
            })
        })
        .collect();
    let (table, token, over) = (TokenTable::new(store.clone(), Arc::clone(clock)), issued(store).await?, Arc::clone(&is_over));
    let calling = tokio::spawn(async move {
        let mut latencies = Histogram::<u64>::new(3).expect("three digits");
        while !over.load(Ordering::Relaxed) {
            let one = Instant::now();
            table.forget();
            table.present(token.expose_secret()).await?.ok_or("the token is good")?;
            latencies.record(micros(one))?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok::<_, Failure>(latencies)
    });
    let begin = Instant::now();
    let done = work.await;
    let took = begin.elapsed();
    is_over.store(true, Ordering::Relaxed);
    let mut issues = Histogram::new(3)?;
    for client in issuing {
        issues.add(client.await??)?;
    }
    Ok((Measured { took, issues, calls: calling.await?? }, done?))
}

/// A new token, durably.
async fn issued(store: &Store) -> Result<SecretString, Failure> {
    let fresh = Fresh { access: mint(Kind::Access, &SystemRandom), refresh: mint(Kind::Refresh, &SystemRandom) };
    let access = fresh.access.clone();
    let insert = move |transaction: &Transaction<'_>| {
        let token = NewAccess::of(&fresh, None, 0, Scope::default(), HOUR, transaction.now().wall);
        app_token::insert(transaction, client().id, &token)
    };
    store.write(insert).await?;
    Ok(access)
}

fn client() -> IbApp {
    IbApp {
        id: Id::from_bytes([1; 16]),
        tenant: "default".to_owned(),
        name: "bench".to_owned(),
        client_id: "bench".to_owned(),
        redirect_uris: Vec::new(),
        grants: [GrantType::ClientCredentials].into(),
        scope: Scope::default(),
        access_ttl: None,
        rotation: None,
        native: false,
        security: Default::default(),
        created_at: Timestamp::from_millis(0),
    }
}

#[expect(clippy::cast_precision_loss, reason = "ratios are approximate")]
fn report(name: &str, during: &Histogram<u64>, without: &Histogram<u64>) {
    for (quantile, title) in [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"), (1.0, "most")] {
        let [one, other] = [during, without].map(|latencies| latencies.value_at_quantile(quantile));
        say(&format!("{name:27} {title:6} {one:8} µs while rows are deleted, {other:8} µs without: {:5.2} ×", one as f64 / other as f64));
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark says what it measured")]
fn say(line: &str) {
    println!("{line}");
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
