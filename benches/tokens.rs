//! Tokens: how many a second are issued durably over the wire, beside what one-row commits allow, and how many are checked.
//!
//! `cargo bench --bench tokens [-- SECONDS [DIRECTORY]]`. The directory should be on the disk that matters (default: the target
//! directory's). A real daemon is asked over HTTPS by [`CLIENTS`] clients, each on a connection of its own, which share the machine with
//! it; what it commits is read from its metrics, and each commit is one sync. Ratios within one run say more than the numbers.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{HeaderValue, Method, Request, header};
use p2pid::clock::{Clock, Timestamp};
use p2pid::config::{self, Limits};
use p2pid::id::Id;
use p2pid::inbound::authorize::{self, Destination};
use p2pid::inbound::consent::{Authorization, Stage};
use p2pid::inbound::grant::{Fresh, Grant, MadeBy, NewAccess};
use p2pid::inbound::ib_app::{GrantType, IbApp};
use p2pid::inbound::permit::{Holder, RouteRule, permit};
use p2pid::inbound::user::User;
use p2pid::net::client::Client;
use p2pid::net::outgoing::{Outgoing, Purpose};
use p2pid::net::trust::Trust;
use p2pid::oauth::pkce::Challenge;
use p2pid::oauth::redirect_uri::RedirectUri;
use p2pid::oauth::scope::Scope;
use p2pid::oauth::token::{Kind, mint};
use p2pid::outbound::client;
use p2pid::random::{self, Random};
use p2pid::secret::{Digest, ExposeSecret, SecretString};
use p2pid::store::token_table::TokenTable;
use p2pid::store::{Fault, Store, Transaction, access_token, authorization, grant, ib_app, refresh_token, user};
use p2pid::system::{SystemClock, SystemRandom};
use rusqlite::Connection;

const CLIENTS: usize = 32;

/// A table as tokens have one: found by digest, belonging to a grant, running out.
const TABLE: &str =
    "CREATE TABLE bench_token (digest BLOB PRIMARY KEY, owner BLOB NOT NULL, issued_at INTEGER NOT NULL, purge_at INTEGER NOT NULL)
    STRICT, WITHOUT ROWID;
    CREATE INDEX bench_token_purge ON bench_token (purge_at);";
const INSERT: &str = "INSERT INTO bench_token (digest, owner, issued_at, purge_at) VALUES (?1, ?2, ?3, ?4)";

/// Codes that are there to be redeemed, for each second of measuring.
const CODES_PER_SECOND: usize = 12_000;

const CLIENT: &str = "bench";
const CALLBACK: &str = "https://bench.example/oauth/callback";
const VERIFIER: &str = "verifier-of-the-benchmark-0123456789-abcdefgh";
const HOUR: Duration = Duration::from_secs(3_600);
const DEADLINE: Duration = Duration::from_secs(30);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What one kind of writing came to.
struct Measured {
    done: u64,
    commits: u64,
    took: Duration,
    latencies: Histogram<u64>,
}

fn main() -> Result<(), Failure> {
    // `cargo bench` adds an option of its own.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let seconds: u64 = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let base = arguments.next().map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    std::fs::create_dir_all(&base)?;
    let span = Duration::from_secs(seconds);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;

    let single = one_row_commits(&base, span)?;
    report("rows, a commit each, plain SQLite", &single, &single);
    report(&format!("rows, group commit, {CLIENTS} writers"), &runtime.block_on(group_commit(&base, span))?, &single);
    let codes = usize::try_from(seconds)? * CODES_PER_SECOND;
    let daemon = runtime.block_on(Daemon::with(&base, codes))?;
    let refreshed = runtime.block_on(daemon.measure(span, (0..CLIENTS).map(|client| Work::Refresh(daemon.refresh[client].clone()))))?;
    report(&format!("refreshes over HTTPS, {CLIENTS} clients"), &refreshed, &single);
    let shares = daemon.codes.chunks(codes.div_ceil(CLIENTS)).map(|share| Work::Redeem(share.to_vec()));
    let redeemed = runtime.block_on(daemon.measure(span, shares))?;
    report(&format!("codes over HTTPS, {CLIENTS} clients"), &redeemed, &single);
    drop(daemon);
    runtime.block_on(checks(&base, span))?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "rates are approximate")]
fn report(name: &str, measured: &Measured, single: &Measured) {
    let rate = |measured: &Measured| measured.done as f64 / measured.took.as_secs_f64();
    let Measured { done, commits, latencies, .. } = measured;
    let [middle, late] = [0.5, 0.99].map(|quantile| latencies.value_at_quantile(quantile));
    let (rate, beside) = (rate(measured), rate(measured) / rate(single));
    let per_thousand = *commits as f64 * 1000.0 / *done as f64;
    say(&format!("{name:36} {rate:8.0}/s  {beside:5.2} × one-row  {per_thousand:7.1} syncs/1000  p50 {middle:6} µs  p99 {late:6} µs"));
}

#[expect(clippy::print_stdout, reason = "a benchmark says what it measured")]
fn say(line: &str) {
    println!("{line}");
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
    let (begin, mut done) = (Instant::now(), 0);
    while begin.elapsed() < span {
        let one = Instant::now();
        connection.prepare_cached(INSERT)?.execute(row(&SystemRandom))?;
        latencies.record(micros(one))?;
        done += 1;
    }
    Ok(Measured { done, commits: done, took: begin.elapsed(), latencies })
}

async fn group_commit(base: &Path, span: Duration) -> Result<Measured, Failure> {
    let directory = tempfile::tempdir_in(base)?;
    let store = Store::open(directory.path(), None, Arc::new(SystemClock::new()))?;
    store.write(|transaction| Ok(transaction.execute_batch(TABLE)?)).await?;
    let (commits, begin) = (store.commits(), Instant::now());
    let tasks: Vec<_> = (0..CLIENTS)
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
    let measured = Measured { done: latencies.len(), commits: store.commits() - commits, took: begin.elapsed(), latencies };
    store.close().await;
    Ok(measured)
}

/// A running daemon with a client, a grant for each of [`CLIENTS`] and codes for more.
struct Daemon {
    process: Child,
    folder: tempfile::TempDir,
    limits: Limits,
    public: String,
    metrics: String,
    basic: HeaderValue,
    refresh: Vec<SecretString>,
    codes: Vec<SecretString>,
}

/// What one client does all the time.
enum Work {
    /// Refreshes, from this token on.
    Refresh(SecretString),
    /// Redeems these codes.
    Redeem(Vec<SecretString>),
}

impl Daemon {
    async fn with(base: &Path, codes: usize) -> Result<Self, Failure> {
        let folder = tempfile::tempdir_in(base)?;
        let program = env!("CARGO_BIN_EXE_p2pid");
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let public = format!("https://localhost:{port}");
        let place = folder.path().to_str().ok_or("the directory's name is no text")?;
        let made = Command::new(program).args(["init", "bench", "--public-url", &public, "--dir", place]).output()?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).into_owned().into());
        }
        let file = folder.path().join("bench.toml");
        // All the work is one client's.
        std::fs::create_dir(folder.path().join("bench.d"))?;
        std::fs::write(folder.path().join("bench.d/limits.toml"), "[limits]\nclient_requests = \"off\"\n")?;
        let config = config::load(&file).map_err(|problems| problems.to_string())?.config;
        let store = Store::open(&config.instance.state_dir, None, Arc::new(SystemClock::new()))?;
        let (secret, refresh, codes) = filled(&store, codes).await?;
        store.close().await;
        let log = std::fs::File::create(folder.path().join("log"))?;
        let process = Command::new(program).arg("-c").arg(&file).arg("run").stdout(Stdio::null()).stderr(log).spawn()?;
        let metrics = format!("http://{}/metrics", config.console.listen.first().ok_or("no console")?);
        let basic = client::basic(CLIENT, secret.expose_secret());
        let daemon = Self { process, folder, limits: config.limits, public, metrics, basic, refresh, codes };
        for _ in 0..500 {
            if daemon.commits().await.is_ok() {
                return Ok(daemon);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(std::fs::read_to_string(daemon.folder.path().join("log"))?.into())
    }

    /// A client that knows the daemon's certificate, with connections of its own.
    fn client(&self) -> Result<Client, Failure> {
        let certificate = self.folder.path().join("bench/tls/cert.pem");
        let outgoing = Arc::new(Outgoing::new(&self.limits));
        Ok(Client::new(&Trust::only(&std::fs::read(&certificate)?, "cert.pem")?, &self.limits, outgoing.share(Purpose::Own)))
    }

    /// What it has committed since its start.
    async fn commits(&self) -> Result<u64, Failure> {
        let answer = self.client()?.fetch(Request::get(&self.metrics).body(Bytes::new())?, DEADLINE, 1 << 20).await?;
        let text = std::str::from_utf8(answer.body())?;
        let count = text.lines().find_map(|line| line.strip_prefix("p2pid_store_commits_total "));
        Ok(count.ok_or("the metrics do not count commits")?.parse()?)
    }

    async fn measure(&self, span: Duration, works: impl Iterator<Item = Work>) -> Result<Measured, Failure> {
        let mut clients = Vec::new();
        for work in works {
            let client = self.client()?;
            // The connection is there before the clock runs.
            client
                .fetch(
                    Request::get(format!("{}/.well-known/oauth-authorization-server", self.public)).body(Bytes::new())?,
                    DEADLINE,
                    1 << 20,
                )
                .await?;
            clients.push((client, work));
        }
        let (commits, begin) = (self.commits().await?, Instant::now());
        let working = clients.into_iter().map(|(client, work)| {
            let (url, basic) = (format!("{}/oauth/token", self.public), self.basic.clone());
            tokio::spawn(keep_on(Endpoint { client, url, basic }, work, begin + span))
        });
        let mut latencies = Histogram::new(3)?;
        for client in working.collect::<Vec<_>>() {
            latencies.add(client.await??)?;
        }
        let took = begin.elapsed();
        Ok(Measured { done: latencies.len(), commits: self.commits().await? - commits, took, latencies })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The token endpoint, as one client asks it.
struct Endpoint {
    client: Client,
    url: String,
    basic: HeaderValue,
}

impl Endpoint {
    /// The refresh token of the answer.
    async fn ask(&self, form: String) -> Result<SecretString, Failure> {
        let request = Request::post(&self.url)
            .header(header::AUTHORIZATION, self.basic.clone())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Bytes::from(form))?;
        let answer = self.client.fetch(request, DEADLINE, 64 << 10).await?;
        let body: serde_json::Value = serde_json::from_slice(answer.body())?;
        let token = body["refresh_token"].as_str().ok_or_else(|| format!("{}: {body}", answer.status()))?;
        Ok(token.into())
    }
}

async fn keep_on(endpoint: Endpoint, work: Work, end: Instant) -> Result<Histogram<u64>, Failure> {
    let mut latencies = Histogram::new(3)?;
    let mut measure = async |form: String| -> Result<Option<SecretString>, Failure> {
        if Instant::now() >= end {
            return Ok(None);
        }
        let one = Instant::now();
        let token = endpoint.ask(form).await?;
        latencies.record(micros(one))?;
        Ok(Some(token))
    };
    match work {
        Work::Refresh(first) => {
            let mut token = Some(first);
            while let Some(current) = token {
                token = measure(format!("grant_type=refresh_token&refresh_token={}", current.expose_secret())).await?;
            }
        }
        Work::Redeem(codes) => {
            let callback: String = form_urlencoded::byte_serialize(CALLBACK.as_bytes()).collect();
            for code in codes {
                let code = code.expose_secret();
                let form = format!("grant_type=authorization_code&code={code}&redirect_uri={callback}&code_verifier={VERIFIER}");
                if measure(form).await?.is_none() {
                    return Ok(latencies);
                }
            }
            return Err("the codes were used up; measure for a shorter time".into());
        }
    }
    Ok(latencies)
}

/// Writes a person, a client, its grants, and codes that were allowed; gives the secrets.
async fn filled(store: &Store, codes: usize) -> Result<(SecretString, Vec<SecretString>, Vec<SecretString>), Failure> {
    let secret = mint(Kind::ClientSecret, &SystemRandom);
    let hashed = ib_app::new_secret(store.seals(), Id::from_bytes([2; 16]), client().id, &secret, Timestamp::from_millis(0));
    let records = move |transaction: &Transaction<'_>| {
        user::insert(transaction, &person())?;
        ib_app::insert(transaction, &client())?;
        ib_app::replace_secrets(transaction, client().id, std::slice::from_ref(&hashed))
    };
    store.write(records).await?;
    let mut refresh = Vec::new();
    for _ in 0..CLIENTS {
        refresh.push(linked(store).await?.refresh);
    }
    let codes: Vec<SecretString> = (0..codes).map(|_| mint(Kind::Code, &SystemRandom)).collect();
    for some in codes.chunks(4_000) {
        let (digests, seals) = (some.iter().map(|code| Digest::of(code.expose_secret())).collect::<Vec<_>>(), store.seals().clone());
        let judge = move |transaction: &Transaction<'_>| {
            let until = transaction.now().wall.plus(HOUR);
            digests.iter().try_for_each(|code| {
                let asked = question(until);
                authorization::insert(transaction, &seals, &asked, until)?;
                authorization::move_to(transaction, asked.id, &Stage::Allowed { code: *code, until })
            })
        };
        store.write(judge).await?;
    }
    Ok((secret, refresh, codes))
}

fn person() -> User {
    let (id, created_at) = (Id::from_bytes([3; 16]), Timestamp::from_millis(0));
    User {
        id,
        login: "bench".to_owned(),
        password: None,
        is_admin: true,
        permissions: Default::default(),
        roles: Vec::new(),
        api_keys: 0,
        created_at,
    }
}

/// The client of all grants.
fn client() -> IbApp {
    IbApp {
        id: Id::from_bytes([1; 16]),
        tenant: "default".to_owned(),
        name: "bench".to_owned(),
        client_id: CLIENT.to_owned(),
        redirect_uris: vec![RedirectUri::register(CALLBACK).expect("registrable")],
        grants: GrantType::ALL.into(),
        scope: Scope::default(),
        access_ttl: None,
        rotation: None,
        native: false,
        security: Default::default(),
        created_at: Timestamp::from_millis(0),
    }
}

/// What somebody is asked, in a session of its own.
fn question(until: Timestamp) -> Authorization {
    let destination = Destination { redirect_uri: CALLBACK.to_owned(), state: None, is_named: true };
    Authorization {
        id: Id::from_bytes(random::bytes(&SystemRandom)),
        app: client().id,
        user: person().id,
        session: Digest::from_bytes(random::bytes(&SystemRandom)),
        request: authorize::Request { destination, scope: Scope::default(), challenge: Some(Challenge::of(VERIFIER)), dpop_key: None },
        pushed: None,
        stage: Stage::Pending { until },
    }
}

/// A new grant with its first pair.
async fn linked(store: &Store) -> Result<Fresh, Failure> {
    let first = Fresh { access: mint(Kind::Access, &SystemRandom), refresh: mint(Kind::Refresh, &SystemRandom) };
    let (pair, id, app) = (first.clone(), Id::from_bytes(random::bytes(&SystemRandom)), client().id);
    let judge = move |transaction: &Transaction<'_>| {
        let now = transaction.now().wall;
        let made = Grant {
            id,
            app,
            user: Some(person().id),
            scope: Scope::default(),
            created_at: now,
            expires_at: None,
            ended: None,
            binding: None,
            made_by: MadeBy::Consent,
        };
        grant::insert(transaction, &made, HOUR)?;
        refresh_token::insert(transaction, id, Digest::of(pair.refresh.expose_secret()), 1, true)?;
        access_token::insert(transaction, id, &NewAccess::of(&pair, None, 1, Scope::default(), HOUR, now))
    };
    store.write(judge).await?;
    Ok(first)
}

/// Checks of access tokens on one core, as the gateway makes them: a good one that was presented before, and one whose checksum is wrong.
#[expect(clippy::cast_precision_loss, reason = "rates are approximate")]
async fn checks(base: &Path, span: Duration) -> Result<(), Failure> {
    let directory = tempfile::tempdir_in(base)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let store = Store::open(directory.path(), None, Arc::clone(&clock))?;
    filled(&store, 0).await?;
    let token = linked(&store).await?.access;
    let table = TokenTable::new(store.clone(), Arc::clone(&clock));
    table.present(token.expose_secret()).await?.ok_or("the token is good")?;
    let rule = RouteRule { scopes: &Scope::default(), methods: None, tenant: "default" };
    let garbage = format!("{}x", &token.expose_secret()[..token.expose_secret().len() - 1]);
    for (name, token, is_good) in
        [("checks of a known token", token.expose_secret(), true), ("refusals of garbage", garbage.as_str(), false)]
    {
        let (begin, mut done) = (Instant::now(), 0_u64);
        while begin.elapsed() < span {
            for _ in 0..1_000 {
                let live = table.cached(std::hint::black_box(token));
                let is_permitted =
                    live.is_some_and(|live| permit(&live, Holder::ANYBODY, rule, &Method::GET, [], clock.now().wall).is_ok());
                assert_eq!(is_permitted, is_good);
            }
            done += 1_000;
        }
        let rate = done as f64 / begin.elapsed().as_secs_f64();
        say(&format!("{name:36} {rate:8.0}/s on one core, {:.2} µs each", 1e6 / rate));
    }
    store.close().await;
    Ok(())
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
