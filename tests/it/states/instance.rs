//! The real thing: the token endpoint, revocation, introspection and the token table over a database on disk, which can be killed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use http_body_util::BodyExt;
use p2pid::clock::Clock;
use p2pid::config::{self, Config};
use p2pid::doors::authorization;
use p2pid::id::Id;
use p2pid::inbound::authorize::{self, Destination};
use p2pid::inbound::consent::{Authorization, Stage};
use p2pid::inbound::ib_app::{self, GrantType, IbApp};
use p2pid::inbound::permit::{Holder, RouteRule, permit};
use p2pid::inbound::security::Security;
use p2pid::inbound::user::User;
use p2pid::instance::Instance;
use p2pid::oauth::bearer::Scheme;
use p2pid::oauth::client_auth::Method;
use p2pid::oauth::pkce::Challenge;
use p2pid::oauth::redirect_uri::RedirectUri;
use p2pid::oauth::rotation::Rotation;
use p2pid::oauth::scope::Scope;
use p2pid::oauth::signing_key::SigningKey;
use p2pid::oauth::token::{Kind, mint};
use p2pid::random;
use p2pid::secret::{Digest, ExposeSecret, SecretString};
use p2pid::store::{self, Fault, Store, Transaction, access_token, authorization as authorizations, ib_app as apps, refresh_token, user};
use serde_json::{Value, json};
use tower_service::Service;

use super::model::{self, Time};
use super::operations::Failing;
use crate::world::clock::{ManualClock, SeededRandom};

pub(super) const VERIFIER: &str = "verifier-of-the-state-machine-0123456789-abcdef";
const CALLBACK: &str = "https://one.example/oauth/callback";
const PUBLIC_URL: &str = "https://two.example";

/// An app of the run.
pub(super) struct App {
    pub(super) name: &'static str,
    pub(super) rotation: model::Rotation,
    pub(super) access_ttl: i64,
    /// It does not authenticate, and its tokens are bound to a key.
    pub(super) is_public: bool,
}

pub(super) const APPS: [App; 5] = [
    App { name: "safe", rotation: model::Rotation::RetrySafe, access_ttl: 60 * model::MINUTE, is_public: false },
    App { name: "short", rotation: model::Rotation::RetrySafe, access_ttl: 90 * model::SECOND, is_public: false },
    App { name: "strict", rotation: model::Rotation::Strict, access_ttl: 60 * model::MINUTE, is_public: false },
    App { name: "kept", rotation: model::Rotation::Kept, access_ttl: 60 * model::MINUTE, is_public: false },
    App { name: "phone", rotation: model::Rotation::RetrySafe, access_ttl: 60 * model::MINUTE, is_public: true },
];

/// What an endpoint answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    nonce: Option<String>,
    body: Value,
}

impl Answer {
    pub(super) fn text(&self, member: &str) -> Option<&str> {
        self.body[member].as_str()
    }

    pub(super) fn error(&self) -> &str {
        self.text("error").unwrap_or_default()
    }

    pub(super) fn is_active(&self) -> Option<bool> {
        self.body["active"].as_bool()
    }

    pub(super) fn expires_in(&self) -> i64 {
        self.body["expires_in"].as_i64().unwrap_or_default()
    }
}

/// A refresh token as the database has it.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) digest: Digest,
    pub(super) grant: Id,
    pub(super) state: String,
    pub(super) is_used: bool,
    pub(super) is_active: bool,
}

pub(super) struct Real {
    folder: tempfile::TempDir,
    state_dir: PathBuf,
    lives: u32,
    config: Arc<Config>,
    pub(super) clock: Arc<ManualClock>,
    random: Arc<SeededRandom>,
    instance: Arc<Instance>,
    router: Router,
    key: SigningKey,
    proofs: std::cell::Cell<u32>,
}

impl Real {
    /// A new instance with the apps, whose secrets are `secrets`.
    pub(super) async fn new(seed: u64, has_grant_ttl: bool, secrets: Vec<String>) -> Self {
        // What is tested is what the database holds when its process dies, not when the machine does: memory is as good as a disk.
        let folder = if Path::new("/dev/shm").is_dir() { tempfile::tempdir_in("/dev/shm") } else { tempfile::tempdir() };
        let folder = folder.expect("a temporary folder");
        let config = Arc::new(configuration(folder.path(), has_grant_ttl));
        let (clock, random) = (Arc::new(ManualClock::new()), Arc::new(SeededRandom::new(seed)));
        let state_dir = folder.path().join("life-0");
        let (instance, router) = opened(&state_dir, &config, &clock, &random);
        let seals = instance.store.seals().clone();
        let judge = move |transaction: &Transaction<'_>| {
            user::insert(transaction, &person())?;
            for (number, secret) in secrets.iter().enumerate() {
                let app = app(number);
                apps::insert(transaction, &app)?;
                if !APPS[number].is_public {
                    let id = Id::from_bytes([100 + u8::try_from(number).expect("few"); 16]);
                    let secret = apps::new_secret(&seals, id, app.id, &SecretString::from(secret.as_str()), transaction.now().wall);
                    apps::replace_secrets(transaction, app.id, &[secret])?;
                }
            }
            Ok(())
        };
        instance.store.write(judge).await.expect("written");
        let (key, proofs) = (SigningKey::generate(), std::cell::Cell::new(0));
        Self { folder, state_dir, lives: 0, config, clock, random, instance, router, key, proofs }
    }

    pub(super) fn now(&self) -> Time {
        let now = self.clock.now();
        Time { wall: now.wall.millis(), boot: i64::try_from(now.boot.as_millis()).expect("not that long"), boots: now.boot_id.0 }
    }

    /// Stops in order and starts.
    pub(super) async fn restarts(&mut self) {
        self.instance.store.close().await;
        (self.instance, self.router) = opened(&self.state_dir, &self.config, &self.clock, &self.random);
    }

    /// Goes on with what a process that is killed now would leave: the files as they are, while it still has them open.
    pub(super) async fn crashes(&mut self) {
        self.lives += 1;
        let left = self.folder.path().join(format!("life-{}", self.lives));
        std::fs::create_dir(&left).expect("a new folder");
        for file in std::fs::read_dir(&self.state_dir).expect("the state directory").flatten().filter(|file| file.path().is_file()) {
            std::fs::copy(file.path(), left.join(file.file_name())).expect("copied");
        }
        let (before, before_dir) = (Arc::clone(&self.instance), std::mem::replace(&mut self.state_dir, left));
        (self.instance, self.router) = opened(&self.state_dir, &self.config, &self.clock, &self.random);
        before.store.close().await;
        std::fs::remove_dir_all(before_dir).expect("removed");
    }

    fn backup_file(&self) -> PathBuf {
        self.folder.path().join("backup")
    }

    pub(super) fn backs_up(&self) {
        let _ = std::fs::remove_file(self.backup_file());
        store::backup(&self.state_dir, &self.backup_file(), self.clock.now().wall).expect("a backup");
    }

    pub(super) async fn restores(&mut self) {
        self.instance.store.close().await;
        let report = store::restore(&self.state_dir, None, &self.backup_file(), self.clock.now().wall).expect("restored");
        // It is named by the time, which may stand still here.
        if let Some(replaced) = report.replaced {
            std::fs::remove_file(replaced).expect("what was put aside is there");
        }
        (self.instance, self.router) = opened(&self.state_dir, &self.config, &self.clock, &self.random);
    }

    /// What the tasks of a daemon do now and then.
    pub(super) async fn tidies(&self) {
        let window = self.config.tokens.retry_window;
        let forget = move |transaction: &Transaction<'_>| refresh_token::forget_repeats(transaction, window, 10_000);
        self.instance.store.write(forget).await.expect("forgotten");
        self.instance.tokens.write_down().await.expect("written down");
        self.instance.store.purge(self.clock.now().wall).await.expect("purged");
    }

    /// From here on the database fails there, until [`Real::heals`]. What the same statement group did before must be undone.
    pub(super) async fn breaks(&self, at: Failing) {
        let event = match at {
            Failing::RefreshToken => "INSERT ON refresh_token",
            Failing::AccessToken => "INSERT ON access_token",
            Failing::Revocation => "UPDATE OF ended_at ON grant",
        };
        let sql = format!("CREATE TEMP TRIGGER broken AFTER {event} BEGIN SELECT RAISE(ABORT, 'broken by a test'); END");
        self.executes(sql).await;
    }

    pub(super) async fn heals(&self) {
        self.executes("DROP TRIGGER broken".to_owned()).await;
    }

    async fn executes(&self, sql: String) {
        self.instance.store.write(move |transaction| Ok(transaction.execute_batch(&sql)?)).await.expect("executed");
    }

    /// Somebody allows the app; gives the code.
    pub(super) async fn allows(&self, app_number: usize) -> String {
        let code = mint(Kind::Code, self.random.as_ref());
        let (digest, id) = (Digest::of(code.expose_secret()), Id::from_bytes(random::bytes(self.random.as_ref())));
        let seals = self.instance.store.seals().clone();
        let judge = move |transaction: &Transaction<'_>| -> Result<(), Fault> {
            let until = transaction.now().wall.plus(Duration::from_secs(60));
            let destination = Destination { redirect_uri: CALLBACK.to_owned(), state: None, is_named: true };
            let scope = model::WHOLE_SCOPE.parse().expect("a scope");
            let request = authorize::Request { destination, scope, challenge: Some(Challenge::of(VERIFIER)), dpop_key: None };
            let session = Digest::of("a session");
            let (app, user, stage) = (app(app_number).id, person().id, Stage::Pending { until });
            authorizations::insert(transaction, &seals, &Authorization { id, app, user, session, request, pushed: None, stage }, until)?;
            authorizations::move_to(transaction, id, &Stage::Allowed { code: digest, until })
        };
        self.instance.store.write(judge).await.expect("written");
        code.expose_secret().to_owned()
    }

    /// Replaces an app's secret, as the admin API does.
    pub(super) async fn rotates_secret(&self, app_number: usize, overlap: Duration) -> Option<String> {
        let secret = mint(Kind::ClientSecret, self.random.as_ref());
        let (made, id) = (secret.clone(), Id::from_bytes(random::bytes(self.random.as_ref())));
        let seals = self.instance.store.seals().clone();
        let judge = move |transaction: &Transaction<'_>| {
            let (app, now) = (app(app_number).id, transaction.now().wall);
            let Ok(mut secrets) = ib_app::rotated(apps::secrets(transaction, app)?, now, overlap) else { return Ok(false) };
            secrets.push(apps::new_secret(&seals, id, app, &made, now));
            apps::replace_secrets(transaction, app, &secrets)?;
            Ok(true)
        };
        let is_rotated = self.instance.store.write(judge).await.expect("written");
        is_rotated.then(|| secret.expose_secret().to_owned())
    }

    /// Posts a form as an app: with its secret, or by its name and, at the token endpoint, a proof of its key.
    pub(super) async fn posts(&self, path: &str, as_app: usize, secret: &str, form: &[(&str, &str)]) -> Answer {
        self.posts_with(path, as_app, secret, form, &self.key).await
    }

    /// The same, with a proof of some key that is not the app's.
    pub(super) async fn posts_with_other_key(&self, path: &str, as_app: usize, form: &[(&str, &str)]) -> Answer {
        self.posts_with(path, as_app, "", form, &SigningKey::generate()).await
    }

    async fn posts_with(&self, path: &str, as_app: usize, secret: &str, form: &[(&str, &str)], key: &SigningKey) -> Answer {
        let App { name, is_public, .. } = APPS[as_app];
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form);
        if is_public {
            body.append_pair("client_id", name);
        }
        let body = body.finish();
        let mut nonce: Option<String> = None;
        loop {
            let mut request = Request::post(path).header("Host", "two.example").header("Content-Type", "application/x-www-form-urlencoded");
            if is_public {
                let proof = self.proof(key, path, nonce.as_deref());
                request = request.header("DPoP", proof);
            } else {
                request = request.header("Authorization", format!("Basic {}", STANDARD.encode(format!("{name}:{secret}"))));
            }
            let request = request.body(Body::from(body.clone())).expect("a request");
            let response = self.router.clone().call(request).await.expect("routers do not fail");
            let (head, body) = response.into_parts();
            let bytes = body.collect().await.expect("whole").to_bytes();
            let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let answer = Answer { status: head.status.as_u16(), nonce: text("dpop-nonce"), body };
            if answer.error() != "use_dpop_nonce" || nonce.is_some() {
                return answer;
            }
            nonce.clone_from(&answer.nonce);
        }
    }

    fn proof(&self, key: &SigningKey, path: &str, nonce: Option<&str>) -> String {
        let number = self.proofs.get();
        self.proofs.set(number + 1);
        let mut claims = json!({
            "htm": "POST", "htu": format!("{PUBLIC_URL}{path}"), "iat": self.clock.now().wall.seconds(), "jti": format!("number-{number}"),
        });
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        let header = json!({ "alg": "ES256", "typ": "dpop+jwt", "jwk": key.public().to_jwk() });
        key.sign(&header.to_string(), &claims.to_string())
    }

    /// Whether a call with this access token would be passed on.
    pub(super) async fn takes(&self, access: &str) -> bool {
        let live = match self.instance.tokens.cached(access) {
            Some(live) => Some(live),
            None => self.instance.tokens.present(access).await.expect("looked up"),
        };
        let Some(live) = live else { return false };
        let holder = match live.binding {
            Some(_) => Holder { scheme: Scheme::Dpop, key: Some(self.key.public().thumbprint()), certificate: None },
            None => Holder::ANYBODY,
        };
        let rule = RouteRule { scopes: &Scope::default(), methods: None, tenant: "default" };
        permit(&live, holder, rule, &http::Method::GET, [], self.clock.now().wall).is_ok()
    }

    /// Whether a token is remembered by the database as one that may be good.
    pub(super) async fn remembers(&self, access: &str) -> bool {
        let (digest, now) = (Digest::of(access), self.clock.now().wall);
        let look = move |connection: &_| Ok(access_token::find(connection, digest)?.is_some_and(|found| found.is_live(now)));
        self.instance.store.read(look).await.expect("read")
    }

    /// All refresh tokens.
    pub(super) async fn rows(&self) -> Vec<Row> {
        const ROWS: &str = "SELECT t.digest, t.grant, t.state, t.used, g.ended_at IS NULL AND g.epoch = (SELECT epoch FROM meta)
            FROM refresh_token t JOIN grant g ON g.id = t.grant";
        let look = |connection: &rusqlite::Connection| {
            let mut statement = connection.prepare_cached(ROWS)?;
            let rows = statement.query_map([], |row| {
                let (digest, grant) = (row.get(0)?, row.get(1)?);
                Ok(Row { digest, grant, state: row.get(2)?, is_used: row.get(3)?, is_active: row.get(4)? })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        self.instance.store.read(look).await.expect("read")
    }
}

fn opened(state_dir: &Path, config: &Arc<Config>, clock: &Arc<ManualClock>, random: &Arc<SeededRandom>) -> (Arc<Instance>, Router) {
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    let store = Store::open(state_dir, None, Arc::clone(&clock)).expect("the database opens");
    let instance = Arc::new(Instance::new(Arc::clone(config), store, clock, Arc::clone(random) as _));
    let router = authorization::router(&instance);
    (instance, router)
}

fn configuration(folder: &Path, has_grant_ttl: bool) -> Config {
    let grant_ttl = if has_grant_ttl { "grant_ttl = \"60d\"\n" } else { "" };
    let text = format!(
        "[instance]\nname = \"two\"\npublic_url = \"{PUBLIC_URL}\"\nstate_dir = \"state\"\n[public]\nlisten = [\"127.0.0.1:0\"]\ntls = \"off\"\n\
         [tokens]\nrefresh_ttl = \"10d\"\nretry_window = \"60s\"\n{grant_ttl}[limits]\nauth_failures = \"1000000/s\"\nclient_requests = \"off\"\n\
         [scopes]\na = \"A\"\nb = \"B\"\nc = \"C\"\n"
    );
    let file = folder.join("two.toml");
    std::fs::write(&file, text).expect("written");
    config::load(&file).unwrap_or_else(|problems| panic!("{problems}")).config
}

fn person() -> User {
    let (id, login) = (Id::from_bytes([1; 16]), "ops@two.example".to_owned());
    let created_at = p2pid::clock::Timestamp::from_millis(0);
    User { id, login, password: None, is_admin: true, permissions: Default::default(), roles: Vec::new(), api_keys: 0, created_at }
}

fn app(number: usize) -> IbApp {
    let App { name, rotation, access_ttl, is_public } = APPS[number];
    let method = if is_public { Method::None } else { Method::default() };
    IbApp {
        id: Id::from_bytes([10 + u8::try_from(number).expect("few"); 16]),
        tenant: "default".to_owned(),
        name: name.to_owned(),
        client_id: name.to_owned(),
        redirect_uris: vec![RedirectUri::register(CALLBACK).expect("registrable")],
        grants: if is_public { GrantType::OF_A_LINK.into() } else { GrantType::ALL.into() },
        scope: model::WHOLE_SCOPE.parse().expect("a scope"),
        access_ttl: Some(Duration::from_millis(access_ttl.unsigned_abs())),
        rotation: Some(match rotation {
            model::Rotation::RetrySafe => Rotation::RetrySafe,
            model::Rotation::Strict => Rotation::Strict,
            model::Rotation::Kept => Rotation::None,
        }),
        native: false,
        security: Security { method, dpop: is_public, ..Security::default() },
        created_at: p2pid::clock::Timestamp::from_millis(0),
    }
}

/// The redeeming of a code.
pub(super) fn redeeming<'a>(code: &'a str, verifier: &'a str) -> [(&'a str, &'a str); 4] {
    [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", CALLBACK), ("code_verifier", verifier)]
}
