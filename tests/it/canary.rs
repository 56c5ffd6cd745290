//! Secrets are planted everywhere, the whole story is told with its failures, and then everything that was written is searched for them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use p2pid::oauth::signing_key::SigningKey;
use p2pid::store::{Store, ob_app};
use p2pid::system::SystemClock;
use serde_json::{Value, json};
use url::Url;

use crate::world::hostile::{Endpoint, Fault, Hostile};
use crate::world::message::Message;
use crate::world::pair::Pair;
use crate::world::patience::eventually;
use crate::world::process::Process;
use crate::world::settings::request;
use crate::world::wire::Wire;

#[tokio::test]
async fn k7_no_secret_is_written_anywhere() {
    let mut canaries = Canaries::default();
    let mut pair = Pair::introduced("1h").await;
    canaries.plant("the operator's password", &pair.operator.password);
    canaries.plant("the client secret", &pair.client_secret);
    canaries.plant("the caller's key", &pair.key);
    let key = pair.two.runs(&["user", "key", &pair.operator.login]).await;
    canaries.plant("the API key", key["api_key"].as_str().expect("a key"));

    let signed = Hostile::start(Arc::new(SystemClock::new())).await;
    sign_for(&pair.one, &signed).await;

    // Everything may be logged, at the finest level.
    pair.two.settings.says("canary.toml", "[compat]\npassword_grant = true\n");
    for process in [&mut pair.one, &mut pair.two] {
        process.is_stopped().await;
        canaries.plant_signing_keys(process).await;
        process.starts_with(&[("P2PID_LOG", "trace")]).await;
    }
    assert_eq!(canaries.signing_keys, 1, "the key of the peer that is signed for");
    let commands = Commands::watch(&pair);
    link_with_mistakes(&mut pair, &mut canaries).await;
    use_tokens_by_hand(&mut pair, &mut canaries).await;
    sign_in_with_mistakes(&pair.two, &mut canaries).await;
    call_with_mistakes(&pair).await;
    meet_a_hostile_peer(&pair.one, &mut canaries).await;
    sign_by_hand(&mut pair, &mut canaries).await;
    link_by_signatures(&pair.one, &signed, &mut canaries).await;
    pair.one.runs(&["peer", "refresh", "two"]).await;
    let rotated = pair.two.runs(&["ib", "rotate-secret", "one"]).await;
    canaries.plant("the client secret that came after", rotated["client_secret"].as_str().expect("a secret"));

    canaries.are_not_in_output("one", &pair.one).await;
    canaries.are_not_in_output("two", &pair.two).await;
    for process in [&mut pair.one, &mut pair.two] {
        // A killed daemon leaves its WAL as it was.
        process.is_killed().await;
    }
    canaries.are_not_below(pair.one.settings.folder());
    canaries.are_not_below(pair.two.settings.folder());
    canaries.are_not_in("a command line", &commands.seen());
}

/// A wrong password, a request URL twice, a wrong state, then Allow.
async fn link_with_mistakes(pair: &mut Pair, canaries: &mut Canaries) {
    let url = pair.request_url().await;
    canaries.plant("the ticket", url.rsplit('/').next().expect("a path"));
    let wrong = std::mem::replace(&mut pair.operator.password, "canary-wrong-password".to_owned());
    canaries.plant("a wrong password", "canary-wrong-password");
    let page = pair.operator.opens(&url).continues().logs_in().await;
    pair.operator.password = wrong;
    let page = pair.operator.goes_on_from(&page).logs_in().allows().await;
    assert_eq!(page.status, 200, "{}", page.text());
    let mut callback = None;
    for location in page.way.iter().filter_map(|hop| hop.location()) {
        for (name, value) in location.query_pairs().filter(|(name, _)| name == "code" || name == "state") {
            let planted = if name == "state" { Canaries::mention } else { Canaries::plant };
            planted(canaries, &format!("the {name} of the handshake"), &value);
        }
        if location.path() == "/oauth/callback" {
            callback = Some(location);
        }
    }
    for url in [pair.one.settings.url(), pair.two.settings.url()] {
        let url = Url::parse(&url).expect("a public URL");
        for (name, value) in pair.operator.browser.cookies().reaching(&url) {
            canaries.plant(&format!("the cookie {name}"), value);
        }
    }
    // The ticket, the code and the state once more: all are used.
    assert_eq!(pair.operator.opens(&url).await.status, 410);
    assert_eq!(pair.operator.opens(callback.expect("a callback").as_str()).await.status, 410);
}

/// The tokens of a client that a test can look into: exchanged, used, introspected, refreshed, replayed, revoked.
async fn use_tokens_by_hand(pair: &mut Pair, canaries: &mut Canaries) {
    let (secret, redirect) = ("canary-client-secret-0123456789abcdef", "https://client.example/done");
    canaries.plant("a client secret that was given", secret);
    let create =
        ["ib", "create", "by-hand", "--client-id", "by-hand", "--redirect-uri", redirect, "--scope", "p2pi", "--client-secret-stdin"];
    pair.two.runs_with(&create, secret).await;
    let verifier = "canary-verifier-0123456789abcdefghijklmnopqrstuvwxyz";
    canaries.plant("the verifier", verifier);
    let challenge = URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes()));
    let query = [
        ("client_id", "by-hand"),
        ("redirect_uri", redirect),
        ("response_type", "code"),
        ("state", "canary-state-0123456789abcdef"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ];
    canaries.mention("the state of a client", "canary-state-0123456789abcdef");
    let authorize = Url::parse_with_params(&format!("{}/oauth/authorize", pair.two.settings.url()), query).expect("an address");
    let page = pair.operator.opens(authorize.as_str()).await;
    let allowed = page.form_with("decision").and_then(|form| form.press("decision", "allow")).expect("a question");
    let step = pair.operator.browser.step(&allowed).await.expect("an answer");
    let location = step.way[0].location().expect("a redirect to the client");
    let code = location.query_pairs().find(|(name, _)| name == "code").map(|(_, code)| code.into_owned()).expect("a code");
    canaries.plant("the code", &code);

    let two = &pair.two;
    let exchange = [("grant_type", "authorization_code"), ("code", &code), ("redirect_uri", redirect), ("code_verifier", verifier)];
    let tokens = post(two, "/oauth/token", ("by-hand", secret), &exchange).await.json();
    let [access, refresh] = canaries.plant_pair("exchange", &tokens);
    assert_eq!(gateway(two, &access, "").await.status(), 200);
    assert_eq!(gateway(two, "p2pa_canary-of-nobody-0123456789abcdefghijkl", "").await.status(), 401);
    canaries.plant("a token of nobody", "p2pa_canary-of-nobody-0123456789abcdefghijkl");
    let in_query = gateway(two, &access, &format!("?access_token={access}")).await;
    assert_eq!(in_query.status(), 400, "{}", in_query.text());
    let introspected = post(two, "/oauth/introspect", ("by-hand", secret), &[("token", &access)]).await;
    assert_eq!(introspected.json()["active"], true);
    let again = [("grant_type", "refresh_token"), ("refresh_token", refresh.as_str())];
    let renewed = post(two, "/oauth/token", ("by-hand", secret), &again).await.json();
    let [_, renewed] = canaries.plant_pair("refresh", &renewed);
    let refused = post(two, "/oauth/token", ("by-hand", "canary-wrong-client-secret"), &again).await;
    canaries.plant("a wrong client secret", "canary-wrong-client-secret");
    canaries.plant("credentials as HTTP Basic", &STANDARD.encode(format!("by-hand:{secret}")));
    assert_eq!(refused.status(), 401);
    assert_eq!(post(two, "/oauth/token", ("by-hand", secret), &exchange).await.status(), 400, "the code was replayed");
    assert_eq!(post(two, "/oauth/revoke", ("by-hand", secret), &[("token", &renewed)]).await.status(), 200);
}

/// A realm hands in passwords, right and wrong ones, and one in the place of a name.
async fn sign_in_with_mistakes(two: &Process, canaries: &mut Canaries) {
    let (key, password) = ("canary-realm-key-0123456789", "canary-password-of-alice");
    canaries.plant("the key of a realm", key);
    two.runs_with(&["realm", "create", "canary-realm", "--key-stdin"], key).await;
    two.runs(&["realm", "role", "canary-realm", "reader"]).await;
    two.runs_with(&["user", "add", "alice", "--password-stdin"], password).await;
    two.runs(&["realm", "assign", "canary-realm", "alice", "reader"]).await;
    let passwords =
        [("alice", password), ("alice", "canary-wrong-password-of-alice"), ("canary-password-as-a-name", "canary-password-twice")];
    for (username, password) in passwords {
        canaries.plant("a password that a realm handed in", password);
        if username != "alice" {
            canaries.plant("a password in the place of a name", username);
        }
        let form = [("grant_type", "password"), ("username", username), ("password", password)];
        let answer = post(two, "/oauth/token", ("canary-realm", key), &form).await;
        if answer.status() == 200 {
            let [_, refresh] = canaries.plant_pair("sign-in", &answer.json());
            let again = [("grant_type", "refresh_token"), ("refresh_token", refresh.as_str())];
            let renewed = post(two, "/oauth/token", ("canary-realm", key), &again).await.json();
            canaries.plant_pair("refresh at a realm", &renewed);
        } else {
            assert!(answer.status() == 400 && password != "canary-password-of-alice", "{}", answer.text());
        }
    }
}

/// Calls that are refused in every way that carries a secret.
async fn call_with_mistakes(pair: &Pair) {
    assert_eq!(pair.calls().await, 200);
    let wrong = pair.one.relays("p2pl_canary-caller-of-nobody-0123456789abcdef", "/two/orders").await;
    assert_eq!(wrong.status(), 401);
    assert_eq!(pair.one.relays(&pair.key, "/nobody/orders").await.status(), 404);
    assert!(!pair.one.tries(&["call", "two", "/status/500"], None).await.stdout.contains(&pair.key));
}

/// Answers that hold tokens and cannot be used.
async fn meet_a_hostile_peer(one: &Process, canaries: &mut Canaries) {
    let peer = Hostile::start(Arc::new(SystemClock::new())).await;
    let secret = "canary-secret-at-the-hostile-peer";
    canaries.plant("the client secret at the hostile peer", secret);
    let (url, authority) = (peer.url(), peer.authority());
    let create = ["peer", "create", "hostile", "--url", &url, "--client-id", "us", "--client-secret-stdin", "--scope", "p2pi", "--ca"];
    let trusted = authority.to_string_lossy().into_owned();
    one.runs_with(&[&create[..], &[&trusted]].concat(), secret).await;
    let mut person = crate::world::person::Person::new("", "", &[one.settings.authority(), authority]);
    let request = one.runs(&["peer", "request", "hostile"]).await;
    let page = person.opens(request["url"].as_str().expect("a URL")).continues().await;
    assert_eq!(page.status, 200, "{}", page.text());
    for fault in [Fault::NoTokenType, Fault::ExpiresIn(Some("soon".into())), Fault::HalfJson, Fault::NoAccessToken, Fault::Html] {
        peer.next(Endpoint::Token, fault);
        one.tries(&["peer", "refresh", "hostile"], None).await;
    }
    peer.next(Endpoint::Token, Fault::Refuses(400, "invalid_grant"));
    one.tries(&["peer", "refresh", "hostile"], None).await;
    peer.secrets().iter().for_each(|secret| canaries.plant("what the hostile peer issued", secret));
    peer.behaves();
    // A password at a peer without OAuth.
    let create = ["peer", "create", "basic", "--url", &url, "--username", "us", "--password-stdin", "--ca", &trusted];
    one.runs_with(&create, "canary-password-at-a-peer").await;
    canaries.plant("a password at a peer", "canary-password-at-a-peer");
    canaries.plant("it as HTTP Basic", &STANDARD.encode("us:canary-password-at-a-peer"));
    one.tries(&["call", "basic", "/x"], None).await;
    eventually("the basic call to arrive", async || (!peer.heard(Endpoint::Resource).is_empty()).then_some(())).await;
}

/// A peer at which `one` signs who it is, and proves its key.
async fn sign_for(one: &Process, peer: &Hostile) {
    peer.binds_tokens();
    let (url, trusted) = (peer.url(), peer.authority().to_string_lossy().into_owned());
    let create = ["peer", "create", "signed", "--url", &url, "--client-id", "us", "--scope", "p2pi", "--ca", &trusted];
    one.runs(&[&create[..], &["--auth-method", "private_key_jwt", "--dpop", "require"]].concat()).await;
}

/// The link to it: what `one` signs on the way, at the token endpoint and in calls.
async fn link_by_signatures(one: &Process, peer: &Hostile, canaries: &mut Canaries) {
    let mut person = crate::world::person::Person::new("", "", &[one.settings.authority(), peer.authority()]);
    let request = one.runs(&["peer", "request", "signed"]).await;
    let page = person.opens(request["url"].as_str().expect("a URL")).continues().await;
    assert_eq!(page.status, 200, "{}", page.text());
    one.tries(&["call", "signed", "/x"], None).await;
    peer.next(Endpoint::Token, Fault::HalfJson);
    one.tries(&["peer", "refresh", "signed"], None).await;
    one.runs(&["ob", "rotate-key", "signed"]).await;
    peer.secrets().iter().for_each(|secret| canaries.plant("what the peer that is signed for issued", secret));
    let asked = peer.heard(Endpoint::Token);
    assert!(asked.len() >= 2, "the code and a refresh");
    for heard in &asked {
        canaries.plant("an assertion of ours", heard.parameter("client_assertion").expect("an assertion"));
    }
    let called = peer.heard(Endpoint::Resource);
    assert!(!called.is_empty(), "a call");
    for heard in asked.iter().chain(&called) {
        canaries.plant("a proof of ours", heard.message.header("dpop").expect("a proof"));
    }
}

/// A client that signs: it pushes a request and asks for a token, each at first without a nonce, then well, then with the same again.
async fn sign_by_hand(pair: &mut Pair, canaries: &mut Canaries) {
    let (two, key, redirect) = (&pair.two, SigningKey::generate(), "https://client.example/signed");
    let keys = two.settings.folder().join("keys-of-by-key.json");
    std::fs::write(&keys, json!({ "keys": [key.public().to_jwk()] }).to_string()).expect("the temporary folder can be written");
    let keys = keys.to_string_lossy().into_owned();
    let create = ["ib", "create", "by-key", "--client-id", "by-key", "--redirect-uri", redirect, "--scope", "p2pi", "--dpop"];
    let grants = ["--jwks", &keys, "--grant", "authorization_code", "--grant", "client_credentials"];
    two.runs(&[&create[..], &grants].concat()).await;

    let challenge = "canary-challenge-0123456789-abcdefghijklmno";
    let question =
        [("response_type", "code"), ("redirect_uri", redirect), ("code_challenge", challenge), ("code_challenge_method", "S256")];
    let pushed = sign(two, &key, canaries, "/oauth/par", &question).await;
    assert_eq!(pushed.status(), 201, "{}", pushed.text());
    let reference = pushed.json()["request_uri"].as_str().expect("a reference").to_owned();
    canaries.plant("the reference of a pushed request", reference.rsplit(':').next().expect("what stands behind the prefix"));
    let token = sign(two, &key, canaries, "/oauth/token", &[("grant_type", "client_credentials")]).await;
    canaries.plant("a token that is bound", token.json()["access_token"].as_str().unwrap_or_else(|| panic!("{}", token.text())));

    let query = [("client_id", "by-key"), ("request_uri", reference.as_str())];
    let url = Url::parse_with_params(&format!("{}/oauth/authorize", two.settings.url()), query).expect("an address");
    let page = pair.operator.opens(url.as_str()).await;
    let declined = page.form_with("decision").and_then(|form| form.press("decision", "decline")).expect("a question");
    pair.operator.browser.step(&declined).await.expect("an answer");
    assert_eq!(pair.operator.opens(url.as_str()).await.status, 400, "it was answered");
}

/// The answer to a form with an assertion and a proof of `key`, after one without a nonce; both are presented once more.
async fn sign(two: &Process, key: &SigningKey, canaries: &mut Canaries, path: &str, form: &[(&str, &str)]) -> Message {
    let mut nonce = None;
    let mut answers = Vec::new();
    for turn in 0..2 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
        let (url, number) = (two.settings.url(), format!("{path}-{turn}"));
        let claims = json!({ "iss": "by-key", "sub": "by-key", "aud": url, "iat": now, "exp": now + 60, "jti": number });
        let assertion = key.sign(r#"{"alg":"ES256","typ":"JWT"}"#, &claims.to_string());
        let mut claims = json!({ "htm": "POST", "htu": format!("{url}{path}"), "iat": now, "jti": number });
        if let Some(nonce) = &nonce {
            claims["nonce"] = Value::from(String::clone(nonce));
        }
        let proof = key.sign(&json!({ "alg": "ES256", "typ": "dpop+jwt", "jwk": key.public().to_jwk() }).to_string(), &claims.to_string());
        canaries.plant(&format!("an assertion at {path}"), &assertion);
        canaries.plant(&format!("a proof at {path}"), &proof);
        let signed =
            [("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"), ("client_assertion", assertion.as_str())];
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).extend_pairs(signed).finish();
        let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("DPoP", proof.as_str())];
        let text = request("POST", path, &two.settings.public.to_string(), &headers, &body);
        let answer = ask(two, &text).await;
        nonce = nonce.or_else(|| answer.header("dpop-nonce").map(str::to_owned));
        assert_eq!(ask(two, &text).await.status(), 400, "without a nonce, or used before");
        answers.push(answer);
    }
    assert_eq!(answers[0].json()["error"], "use_dpop_nonce");
    answers.pop().expect("the second")
}

async fn post(process: &Process, path: &str, client: (&str, &str), form: &[(&str, &str)]) -> Message {
    let basic = format!("Basic {}", STANDARD.encode(format!("{}:{}", client.0, client.1)));
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Authorization", basic.as_str())];
    ask(process, &request("POST", path, &process.settings.public.to_string(), &headers, &body)).await
}

async fn gateway(process: &Process, token: &str, query: &str) -> Message {
    let (target, bearer) = (format!("/p2pi/orders{query}"), format!("Bearer {token}"));
    ask(process, &request("GET", &target, &process.settings.public.to_string(), &[("Authorization", &bearer)], "")).await
}

async fn ask(process: &Process, text: &str) -> Message {
    Wire::tls(process.settings.public, &process.settings.authority()).await.asks(text).await
}

/// What must be found nowhere: secret → what it is.
#[derive(Default)]
struct Canaries {
    nowhere: BTreeMap<Vec<u8>, String>,
    /// A client's `state`, which it gets back as it was and which the database therefore has while a question is open: in no log or answer.
    only_at_rest: BTreeMap<Vec<u8>, String>,
    /// How many keys that a daemon signs with are among them.
    signing_keys: usize,
}

impl Canaries {
    fn plant(&mut self, what: &str, secret: &str) {
        assert!(secret.len() >= 8, "{what} is too short to be looked for");
        self.nowhere.insert(secret.into(), what.to_owned());
    }

    fn mention(&mut self, what: &str, secret: &str) {
        self.only_at_rest.insert(secret.into(), what.to_owned());
    }

    /// The keys that a daemon, which does not run now, signs with: as they are, and as they would be written in a JWK, in hexadecimal digits, or in
    /// PEM.
    async fn plant_signing_keys(&mut self, stopped: &Process) {
        let store = Store::open(&stopped.settings.state_dir(), None, Arc::new(SystemClock::new())).expect("nobody else has it open");
        let seals = store.seals().clone();
        let apps = store.read(move |connection| ob_app::of_tenant(connection, &seals, "default")).await.expect("the apps");
        store.close().await;
        for key in apps.iter().filter_map(|app| app.keys.as_ref()) {
            let der = key.current.to_der();
            // Behind the version of an ECPrivateKey (RFC 5915 §3) stands the octet string of the key.
            let start = der.windows(5).position(|window| window == [2, 1, 1, 4, 32]).expect("a key of P-256") + 5;
            let scalar = &der[start..start + 32];
            self.nowhere.insert(scalar.into(), "a key that we sign with".to_owned());
            self.plant("a key that we sign with, as in a JWK", &URL_SAFE_NO_PAD.encode(scalar));
            self.plant("a key that we sign with, in hexadecimal", &scalar.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
            self.plant("a key that we sign with, as in PEM", &STANDARD.encode(&der[..])[..64]);
            self.signing_keys += 1;
        }
    }

    fn plant_pair(&mut self, of: &str, tokens: &Value) -> [String; 2] {
        ["access_token", "refresh_token"].map(|name| {
            let token = tokens[name].as_str().unwrap_or_else(|| panic!("no {name}: {tokens}"));
            self.plant(&format!("the {name} of the {of}"), token);
            token.to_owned()
        })
    }

    fn are_not_in(&self, place: &str, text: &str) {
        search(&self.nowhere, place, text.as_bytes());
        search(&self.only_at_rest, place, text.as_bytes());
    }

    /// Every file: database, WAL, log, configuration.
    fn are_not_below(&self, folder: &Path) {
        for entry in std::fs::read_dir(folder).expect("a folder of the test").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                self.are_not_below(&entry);
            } else if let Ok(bytes) = std::fs::read(&entry) {
                let place = entry.display().to_string();
                search(&self.nowhere, &place, &bytes);
                if entry.ends_with("log") {
                    search(&self.only_at_rest, &place, &bytes);
                }
            }
        }
    }

    /// What the daemon tells whoever asks it.
    async fn are_not_in_output(&self, name: &str, process: &Process) {
        let commands: [&[&str]; 11] = [
            &["status"],
            &["user", "list"],
            &["tenant", "list"],
            &["ib", "list"],
            &["realm", "list"],
            &["ob", "list"],
            &["peer", "list"],
            &["caller", "list"],
            &["grant", "list"],
            &["peer", "show", "two"],
            &["audit", "--limit", "10000"],
        ];
        for command in commands {
            let outcome = process.tries(command, None).await;
            self.are_not_in(&format!("{name}: p2pid {}", command.join(" ")), &format!("{}{}", outcome.stdout, outcome.stderr));
        }
        self.are_not_in(&format!("{name}: /metrics"), &process.console("/metrics").await.text());
    }
}

fn search(secrets: &BTreeMap<Vec<u8>, String>, place: &str, bytes: &[u8]) {
    for (secret, what) in secrets {
        if let Some(position) = bytes.windows(secret.len()).position(|window| window == secret.as_slice()) {
            let around = &bytes[position.saturating_sub(200)..(position + secret.len() + 50).min(bytes.len())];
            panic!("{what} stands in {place}: …{}…", String::from_utf8_lossy(around));
        }
    }
}

/// The command lines and environments of the daemons and of every command that ran meanwhile.
struct Commands {
    seen: Arc<std::sync::Mutex<String>>,
    watcher: tokio::task::JoinHandle<()>,
}

impl Commands {
    fn watch(pair: &Pair) -> Self {
        let seen = Arc::new(std::sync::Mutex::new(String::new()));
        for id in [&pair.one, &pair.two].iter().filter_map(|process| process.daemon().id()) {
            note(&seen, Path::new(&format!("/proc/{id}")));
        }
        let shared = Arc::clone(&seen);
        let watcher = tokio::spawn(async move {
            loop {
                let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().filter_map(Result::ok);
                for thread in threads {
                    let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
                    children.split_whitespace().for_each(|id| note(&shared, Path::new(&format!("/proc/{id}"))));
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        });
        Self { seen, watcher }
    }

    fn seen(&self) -> String {
        self.watcher.abort();
        let seen = self.seen.lock().expect("no panic while it was held").clone();
        assert!(seen.contains("run"), "the daemons' command lines were read");
        seen
    }
}

fn note(seen: &std::sync::Mutex<String>, process: &Path) {
    for file in ["cmdline", "environ"] {
        if let Ok(bytes) = std::fs::read(process.join(file)) {
            let mut seen = seen.lock().expect("no panic while it was held");
            seen.push_str(&String::from_utf8_lossy(&bytes));
            seen.push('\n');
        }
    }
}
