//! How many durable token writes a second: what one-row commits allow, what the store's group commit makes of them, and how many whole
//! refreshes that is (the client's secret checked, the token judged, its successor pair and the sealed answer written).
//!
//! `cargo bench --bench tokens [-- SECONDS [DIRECTORY]]`. The directory should be on the disk that matters (default: the target directory's).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use p2pid::clock::{Clock, Timestamp};
use p2pid::id::Id;
use p2pid::inbound::grant::{Fresh, Grant, NewAccess, Policy};
use p2pid::inbound::ib_app::{GrantType, IbApp};
use p2pid::inbound::refresh::{Request, judge};
use p2pid::oauth::client_auth::{self, Credentials, Method};
use p2pid::oauth::rotation::Rotation;
use p2pid::oauth::scope::Scope;
use p2pid::oauth::token::{Kind, mint};
use p2pid::random::{self, Random};
use p2pid::secret::{Digest, ExposeSecret, SecretString};
use p2pid::store::{Fault, Store, Transaction, access_token, grant, ib_app, refresh_token};
use p2pid::system::{SystemClock, SystemRandom};
use rusqlite::Connection;

/// A table as tokens have one: found by digest, belonging to a grant, running out.
const TABLE: &str =
    "CREATE TABLE bench_token (digest BLOB PRIMARY KEY, owner BLOB NOT NULL, issued_at INTEGER NOT NULL, purge_at INTEGER NOT NULL)
    STRICT, WITHOUT ROWID;
    CREATE INDEX bench_token_purge ON bench_token (purge_at);";
const INSERT: &str = "INSERT INTO bench_token (digest, owner, issued_at, purge_at) VALUES (?1, ?2, ?3, ?4)";

const CLIENT: &str = "bench";
const HOUR: Duration = Duration::from_secs(3_600);
const POLICY: Policy = Policy {
    access_ttl: HOUR,
    refresh_ttl: Duration::from_secs(90 * 24 * 3_600),
    grant_ttl: None,
    rotation: Rotation::RetrySafe,
    retry_window: Duration::from_secs(60),
};

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
    for clients in [1, 32, 256, 1024] {
        let measured = runtime.block_on(refreshes(&base, span, clients))?;
        report(&format!("refreshes, {clients} clients"), &measured);
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

/// Each client has a link of its own and refreshes it without pause.
async fn refreshes(base: &Path, span: Duration, clients: u16) -> Result<Measured, Failure> {
    let directory = tempfile::tempdir_in(base)?;
    let store = Store::open(directory.path(), None, Arc::new(SystemClock::new()))?;
    let secret = mint(Kind::ClientSecret, &SystemRandom);
    let app = client().id;
    store.write(|transaction| ib_app::insert(transaction, &client())).await?;
    let hashed = ib_app::new_secret(store.seals(), Id::from_bytes([2; 16]), app, &secret, Timestamp::from_millis(0));
    store.write(move |transaction| ib_app::replace_secrets(transaction, app, std::slice::from_ref(&hashed))).await?;
    let mut first = Vec::new();
    for _ in 0..clients {
        first.push(link(&store, app).await?);
    }
    let (commits, begin) = (store.commits(), Instant::now());
    let refreshing = first.into_iter().map(|token| {
        let (store, secret) = (store.clone(), secret.clone());
        tokio::spawn(async move {
            let (mut token, mut latencies) = (token, Histogram::<u64>::new(3).expect("three digits"));
            while begin.elapsed() < span {
                let one = Instant::now();
                token = refresh(&store, &secret, token).await;
                latencies.record(micros(one)).expect("a resizing histogram");
            }
            latencies
        })
    });
    let mut latencies = Histogram::new(3)?;
    for task in refreshing.collect::<Vec<_>>() {
        latencies.add(task.await?)?;
    }
    let took = begin.elapsed();
    let measured = Measured { writes: latencies.len(), commits: store.commits() - commits, took, latencies };
    store.close().await;
    Ok(measured)
}

/// The client of all links.
fn client() -> IbApp {
    IbApp {
        id: Id::from_bytes([1; 16]),
        tenant: "default".to_owned(),
        name: "bench".to_owned(),
        client_id: CLIENT.to_owned(),
        redirect_uris: Vec::new(),
        grants: GrantType::ALL.into(),
        scope: Scope::default(),
        access_ttl: None,
        rotation: None,
        native: false,
        created_at: Timestamp::from_millis(0),
    }
}

fn pair() -> Fresh {
    Fresh { access: mint(Kind::Access, &SystemRandom), refresh: mint(Kind::Refresh, &SystemRandom) }
}

/// A new link; its refresh token.
async fn link(store: &Store, app: Id) -> Result<SecretString, Failure> {
    let first = pair();
    let token = first.refresh.clone();
    let id = Id::from_bytes(random::bytes(&SystemRandom));
    let judge = move |transaction: &Transaction<'_>| {
        let now = transaction.now().wall;
        let made = Grant { id, app, user: None, scope: Scope::default(), created_at: now, expires_at: None, ended: None };
        grant::insert(transaction, &made, HOUR)?;
        refresh_token::insert(transaction, id, Digest::of(first.refresh.expose_secret()), 1, true)?;
        access_token::insert(transaction, id, &NewAccess::of(&first, None, 1, Scope::default(), HOUR, now))
    };
    store.write(judge).await?;
    Ok(token)
}

/// One refresh, as the token endpoint does it; the next refresh token.
async fn refresh(store: &Store, secret: &SecretString, token: SecretString) -> SecretString {
    let (seals, fresh) = (store.seals().clone(), pair());
    let readings = vec![Credentials { client_id: CLIENT.to_owned(), secret: secret.clone() }];
    let presented = client_auth::Presented { readings, method: Method::Basic };
    let judge = move |transaction: &Transaction<'_>| {
        let client = ib_app::authenticate(transaction, &seals, &presented)?.expect("the secret is right");
        let (facts, _) = refresh_token::find(transaction, &seals, &token)?.expect("the token is ours");
        let request = Request { client: client.id, token: &token, scope: None, from: Some("192.0.2.1"), fresh: &fresh };
        let judgement = judge(&facts, &request, &POLICY, transaction.now());
        let presented = refresh_token::Presented { token: &token, grant: facts.grant.id, from: Some("192.0.2.1") };
        refresh_token::apply(transaction, &seals, presented, &judgement.changes, &fresh.refresh, POLICY.refresh_ttl)?;
        Ok(judgement.answer)
    };
    store.write(judge).await.expect("written").expect("granted").refresh
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
