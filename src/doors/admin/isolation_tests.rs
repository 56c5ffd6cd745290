//! Every path of the router, taken from the router itself: what belongs to another tenant answers like what does not exist, and each
//! permission opens what the table below says. A new path fails here until it has its line and, for a new kind of record, its record.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower_service::Service;

use super::gate::COLLECTIONS;
use super::tests::Api;
use super::{Caller, key_router};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::inbound::grant::{Grant, MadeBy};
use crate::inbound::permission::{self, ADMIN, Rights};
use crate::store::{Transaction, grant};

/// Whose records exist, and the tenant of whoever looks for them.
const OWNER: &str = "default";
const OWN: &str = "sales";

/// A name that no record has, as long as `theirs` is.
const NOTHING: &str = "nobody";

/// What permissions open that open no path by themselves; or why there is nothing that they open.
const OPENS_NO_PATH: &[(&str, &str)] = &[
    ("components.", "their paths come later"),
    ("tenants.oauth_clients.read_secret", "shows secrets at paths that come later"),
    ("ob_apps.read_secret", "the same by its other name"),
    ("peers.read_secret", "a peer's secret is its OB app's: taken as platforms name it"),
    ("links.approve", "opens the consent page"),
    ("realms.read_secret", "opens attributes of a path: secret_tests.rs"),
];

/// Collections that are known and have no path yet.
const COME_LATER: [&str; 2] = ["components", "oauth-clients"];

const METHODS: [Method; 6] = [Method::GET, Method::HEAD, Method::POST, Method::PATCH, Method::PUT, Method::DELETE];

/// What a permission has to be, of whoever asks.
enum Need {
    /// Who is let in at all.
    Nothing,
    /// To rule the instance.
    Instance,
    /// One of these.
    One(&'static [&'static str]),
    /// All of these.
    All(&'static [&'static str]),
}

/// What each method of each path needs.
fn need(method: &Method, path: &str) -> Option<Need> {
    use Need::{All, Instance, Nothing, One};
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    Some(match (method, path.strip_prefix("/v2/tenants/{tenant}/").unwrap_or(path)) {
        ("GET", "/v2/status") => Nothing,
        // Of the tenants whose admin one is.
        ("GET", "/v2/audit") => One(&[ADMIN]),
        ("POST", "/v2/reload" | "/v2/keys/rotate" | "/v2/users/{login}/key") => Instance,
        ("GET" | "POST", "/v2/keys" | "/v2/tenants" | "/v2/users" | "/v2/roles") => Instance,
        ("GET" | "DELETE", "/v2/tenants/{tenant}") => Instance,
        ("GET" | "PATCH" | "DELETE", "/v2/users/{login}" | "/v2/roles/{name}") => Instance,
        ("GET", "/v2/users/{login}/keys") | ("DELETE", "/v2/users/{login}/keys/{name}") => Instance,
        ("GET", "ib-apps" | "ib-apps/{name}") => One(&["ib_apps.get"]),
        ("POST", "ib-apps") => One(&["ib_apps.create"]),
        ("PATCH", "ib-apps/{name}") => One(&["ib_apps.edit"]),
        ("DELETE", "ib-apps/{name}") => One(&["ib_apps.delete"]),
        ("POST", "ib-apps/{name}/rotate-secret") => All(&["ib_apps.edit", "ib_apps.read_secret"]),
        ("GET", "realms" | "realms/{name}") => One(&["realms.get"]),
        ("POST", "realms") => One(&["realms.create"]),
        ("PATCH", "realms/{name}") => One(&["realms.edit"]),
        ("DELETE", "realms/{name}") => One(&["realms.delete"]),
        ("POST", "realms/{name}/role" | "realms/{name}/delete-role" | "realms/{name}/assign" | "realms/{name}/unassign") => {
            One(&["realms.edit"])
        }
        ("GET", "ob-apps" | "ob-apps/{name}") => One(&["ob_apps.get", "tenants.oauth_clients.get"]),
        ("POST", "ob-apps") => One(&["ob_apps.create", "tenants.oauth_clients.create"]),
        ("PATCH", "ob-apps/{name}") => One(&["ob_apps.edit", "tenants.oauth_clients.edit"]),
        ("DELETE", "ob-apps/{name}") => One(&["ob_apps.delete", "tenants.oauth_clients.delete"]),
        // What it shows is public.
        ("POST", "ob-apps/{name}/rotate-key") => One(&["ob_apps.edit", "tenants.oauth_clients.edit"]),
        ("GET", "peers" | "peers/{name}" | "peers/{name}/request") => One(&["peers.get"]),
        ("POST", "peers") => One(&["peers.create"]),
        ("PATCH", "peers/{name}") => One(&["peers.edit"]),
        ("DELETE", "peers/{name}") => One(&["peers.delete"]),
        ("POST", "peers/{name}/request" | "peers/{name}/refresh" | "peers/{name}/unlink" | "peers/{name}/rename") => One(&["peers.edit"]),
        ("POST", "peers/{name}/maintenance" | "peers/{name}/probe") => One(&["peers.edit"]),
        (_, "peers/{peer}/call" | "peers/{peer}/call/" | "peers/{peer}/call/{*path}") => One(&["peers.call"]),
        ("GET", "callers" | "callers/{name}") => One(&["callers.get"]),
        ("POST", "callers") => One(&["callers.create"]),
        ("DELETE", "callers/{name}") => One(&["callers.delete"]),
        ("POST", "callers/{name}/rotate") => All(&["callers.edit", "callers.read_secret"]),
        ("GET", "grants" | "grants/{id}") => One(&["grants.get"]),
        ("DELETE", "grants/{id}") => One(&["grants.delete"]),
        ("GET", "roles" | "roles/{name}") => One(&["roles.get"]),
        ("POST", "roles") => One(&["roles.create"]),
        ("PATCH", "roles/{name}") => One(&["roles.edit"]),
        ("DELETE", "roles/{name}") => One(&["roles.delete"]),
        _ => return None,
    })
}

/// Attributes without which a request would be refused before its record is looked for.
fn attributes(path: &str) -> Value {
    match path.rsplit('/').next() {
        Some("rename") => json!({ "name": "other" }),
        Some("role" | "delete-role") => json!({ "role": "reader" }),
        Some("assign" | "unassign") => json!({ "role": "reader", "user": "spy" }),
        Some("maintenance") => json!({ "until": "off" }),
        _ => Value::Null,
    }
}

/// The router's paths, as it shows itself to developers. Parameters stand in braces.
fn paths(router: &Router) -> BTreeSet<String> {
    let shown = format!("{router:?}");
    let paths: BTreeSet<String> = shown.split('"').filter(|text| text.starts_with("/v2/")).map(str::to_owned).collect();
    assert!(paths.len() > 25 && paths.contains("/v2/tenants/{tenant}/ib-apps/{name}"), "the router shows itself otherwise: {shown}");
    paths
}

/// `path` with `tenant` and, for all other parameters, `name`.
fn filled(path: &str, tenant: &str, name: &str) -> String {
    let segments = path.split('/').map(|segment| match segment {
        "{tenant}" => tenant,
        parameter if parameter.starts_with('{') => name,
        other => other,
    });
    segments.collect::<Vec<_>>().join("/")
}

/// The collection below a tenant that a path leads into, when it names one of its records.
fn collection_of(path: &str) -> Option<&str> {
    let mut segments = path.strip_prefix("/v2/tenants/{tenant}/")?.split('/');
    let collection = segments.next()?;
    segments.next().map(|_| collection)
}

/// An answer, for comparison.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    /// With `name` as if it had been asked for `other`, and the number of its own that each answer of the relay has.
    fn naming(mut self, name: &str, other: &str) -> Self {
        if let Some(id) = self.headers.remove("p2pi-request-id") {
            self.body = self.body.replace(id.to_str().expect("text"), "ID");
        }
        Self { body: self.body.replace(name, other), ..self }
    }
}

/// One tenant with a record of each kind, and somebody who rules another.
struct Neighbours {
    api: Api,
    keys: Router,
    basic: String,
    /// Collection, name and id.
    records: Vec<(&'static str, String, String)>,
}

impl Neighbours {
    async fn new() -> Self {
        let api = Api::new().await;
        let mut records = Vec::new();
        api.ask(Method::POST, "/v2/tenants", "tenant", json!({ "name": OWN })).await;
        let url = "http://127.0.0.1:9";
        for (collection, kind, mut record) in [
            (
                "ib-apps",
                "ib-app",
                json!({ "client_id": "theirs-5f0c", "redirect_uris": ["https://one.example.com/cb"], "scopes": ["p2pi"] }),
            ),
            ("ob-apps", "ob-app", json!({ "client_id": "theirs", "issuer": "https://two.example.com" })),
            ("peers", "peer", json!({ "url": url })),
            ("callers", "caller", json!({})),
            ("roles", "role", json!({ "permissions": ["peers.get"] })),
            // Realms share the names of IB apps.
            ("realms", "realm", json!({ "name": "theirR" })),
        ] {
            let name = record["name"].as_str().unwrap_or("theirs").to_owned();
            record["name"] = json!(name);
            let (status, body) = api.ask(Method::POST, &format!("/v2/tenants/{OWNER}/{collection}"), kind, record).await;
            assert_eq!(status, StatusCode::CREATED, "{body}");
            records.push((collection, name, body["data"]["id"].as_str().expect("an id").to_owned()));
        }
        let person = json!({ "login": "theirs", "password": "correct horse", "admin": true });
        api.ask(Method::POST, "/v2/users", "user", person).await;
        let app = records.iter().find(|(collection, ..)| *collection == "ib-apps").and_then(|(.., id)| id.parse().ok()).expect("an app");
        let id = Id::from_bytes([7; 16]);
        let created_at = Timestamp::from_millis(0);
        let scope = "p2pi".parse().expect("a scope");
        let allowed =
            Grant { id, app, user: None, scope, created_at, expires_at: None, ended: None, binding: None, made_by: MadeBy::Consent };
        let judge = move |transaction: &Transaction<'_>| grant::insert(transaction, &allowed, Duration::from_secs(60));
        api.state.instance.store.write(judge).await.expect("written");
        records.push(("grants", id.to_string(), id.to_string()));

        let spy = json!({ "login": "spy", "password": "correct horse", "tenant": OWN, "admin": true });
        api.ask(Method::POST, "/v2/users", "user", spy).await;
        let (_, made) = api.ask(Method::POST, "/v2/users/spy/key", "user", json!({})).await;
        let key = made["data"]["attributes"]["api_key"].as_str().expect("a key");
        let basic = format!("Basic {}", STANDARD.encode(format!("spy:{key}")));
        let keys = key_router(Arc::clone(&api.state));
        Self { api, keys, basic, records }
    }

    /// What the spy is answered, who signs in as over the console.
    async fn spies(&mut self, method: &Method, path: &str, kind: &str, attributes: Value) -> Answer {
        let mut request = Request::builder().method(method.clone()).uri(path).header("authorization", &self.basic);
        let mut body = Body::empty();
        if !attributes.is_null() {
            request = request.header("content-type", "application/json");
            body = json!({ "data": { "type": kind, "attributes": attributes } }).to_string().into();
        }
        let response = self.keys.call(request.body(body).expect("a request")).await.expect("routers answer");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Answer { status: parts.status, headers: parts.headers, body: String::from_utf8_lossy(&body).into_owned() }
    }
}

#[tokio::test]
async fn what_is_in_another_tenant_answers_like_what_does_not_exist() {
    let mut neighbours = Neighbours::new().await;
    for path in paths(&neighbours.keys) {
        let ids: Vec<String> = match collection_of(&path) {
            None => vec!["theirs".to_owned()],
            Some(collection) => {
                let (_, name, id) = neighbours
                    .records
                    .iter()
                    .find(|record| record.0 == collection)
                    .unwrap_or_else(|| panic!("{path}: a kind of record that this test makes none of"));
                vec![name.clone(), id.clone()]
            }
        };
        let kind = collection_of(&path).map_or("", |collection| collection.trim_end_matches('s'));
        for (method, theirs) in METHODS.iter().flat_map(|method| ids.iter().map(move |theirs| (method, theirs))) {
            let nothing = if theirs.len() == 32 { "f".repeat(32) } else { NOTHING.to_owned() };
            // In their tenant, and in one that is not there.
            let there = neighbours.spies(method, &filled(&path, OWNER, theirs), kind, attributes(&path)).await;
            let nowhere = neighbours.spies(method, &filled(&path, "nowhere", &nothing), kind, attributes(&path)).await;
            assert_eq!(there.naming(theirs, &nothing).naming(OWNER, "nowhere"), nowhere.naming(theirs, &nothing), "{method} {path}");
            // In the own tenant, under their name or id.
            let found = neighbours.spies(method, &filled(&path, OWN, theirs), kind, attributes(&path)).await;
            let missed = neighbours.spies(method, &filled(&path, OWN, &nothing), kind, attributes(&path)).await;
            if collection_of(&path).is_some() {
                let is_none = matches!(found.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED);
                assert!(is_none, "{method} {path}: the record was not looked for (has it attributes that it needs?): {found:?}");
            }
            if path.contains("{tenant}/") {
                assert_eq!(found.naming(theirs, &nothing), missed.naming(theirs, &nothing), "{method} {path}");
            }
        }
    }
    let still_there = neighbours.records.clone();
    for (collection, name, _) in still_there {
        let path = format!("/v2/tenants/{OWNER}/{collection}/{name}");
        assert_eq!(neighbours.api.ask(Method::GET, &path, "", Value::Null).await.0, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn nothing_that_is_shown_or_said_names_another_tenants_records() {
    let mut neighbours = Neighbours::new().await;
    for path in paths(&neighbours.keys).into_iter().filter(|path| collection_of(path).is_none()) {
        let shown = neighbours.spies(&Method::GET, &filled(&path, OWN, "x"), "", Value::Null).await;
        let secret = neighbours.records.iter().flat_map(|(_, name, id)| [name, id]).find(|secret| shown.body.contains(secret.as_str()));
        assert_eq!(secret, None, "{path}: {}", shown.body);
    }
    let status = neighbours.spies(&Method::GET, "/v2/status", "", Value::Null).await;
    let status: Value = serde_json::from_str(&status.body).expect("JSON");
    let peers = status["data"]["attributes"]["peers"].as_object().expect("counts");
    assert!(peers.values().all(|count| *count == 0), "another tenant's peer is counted: {status}");
    assert_eq!(status["data"]["attributes"]["config"]["file"], Value::Null, "{status}");

    // A name is taken in its own tenant only, and what a record refers to is found there only.
    let id_of = |collection: &str| neighbours.records.iter().find(|record| record.0 == collection).expect("a record").2.clone();
    let (app, none) = (id_of("ob-apps"), "f".repeat(32));
    let url = "http://127.0.0.1:9";
    for (collection, kind, theirs, nothing) in [
        ("callers", "caller", json!({ "name": "a", "peers": ["theirs"] }), json!({ "name": "a", "peers": [NOTHING] })),
        (
            "peers",
            "peer",
            json!({ "name": "a", "url": "https://a.example.com", "ob": "theirs" }),
            json!({ "name": "a", "url": "https://a.example.com", "ob": NOTHING }),
        ),
        (
            "peers",
            "peer",
            json!({ "name": "a", "url": "https://a.example.com", "ob": app }),
            json!({ "name": "a", "url": "https://a.example.com", "ob": none }),
        ),
        ("peers", "peer", json!({ "name": "theirs", "url": url }), json!({ "name": NOTHING, "url": url })),
    ] {
        let path = format!("/v2/tenants/{OWN}/{collection}");
        let found = neighbours.spies(&Method::POST, &path, kind, theirs.clone()).await;
        let missed = neighbours.spies(&Method::POST, &path, kind, nothing).await;
        assert!(found.status.is_client_error(), "{theirs}: {found:?}");
        assert_eq!(found.naming("theirs", NOTHING).naming(&app, &none), missed.naming("theirs", NOTHING), "{theirs}");
    }
    let role = json!({ "name": "theirs", "permissions": ["peers.get"] });
    let made = neighbours.spies(&Method::POST, &format!("/v2/tenants/{OWN}/roles"), "role", role).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let app = json!({ "name": "mine", "client_id": "theirs-5f0c", "redirect_uris": ["https://b.example.com/cb"], "scopes": ["sell"] });
    let taken = neighbours.spies(&Method::POST, &format!("/v2/tenants/{OWN}/ib-apps"), "ib-app", app).await;
    let said: Value = serde_json::from_str(&taken.body).expect("JSON");
    assert_eq!((taken.status, &said["errors"][0]["detail"]), (StatusCode::CONFLICT, &json!("the client_id is taken")));
    assert!(!taken.body.contains(OWNER) && !taken.body.contains("theirs"), "{}", taken.body);
}

#[tokio::test]
async fn each_permission_opens_what_the_table_says_and_no_more() {
    let mut api = Api::new().await;
    let known: Vec<String> = permission::all().collect();
    let holding = |permissions: &[&str]| {
        let held = permissions.iter().map(|permission| (*permission).to_owned()).collect();
        Caller::Person { login: "a".to_owned(), rights: Rights { by_tenant: [(OWNER.to_owned(), held)].into(), ..Rights::default() } }
    };
    let mut asked = BTreeSet::new();
    for (path, method) in paths(&api.router).iter().flat_map(|path| METHODS.iter().map(move |method| (path, method))) {
        let target = filled(path, OWNER, NOTHING);
        api.caller = Caller::Process { uid: 0 };
        let ruled = api.ask(method.clone(), &target, "", Value::Null).await.0;
        let Some(need) = need(method, path) else {
            assert_eq!(ruled, StatusCode::METHOD_NOT_ALLOWED, "{method} {path} is not in the table");
            continue;
        };
        assert!(
            !matches!(ruled, StatusCode::METHOD_NOT_ALLOWED | StatusCode::FORBIDDEN),
            "{method} {path}: the table has what is not there"
        );
        let is_open = async |api: &mut Api, permissions: &[&str]| {
            api.caller = holding(permissions);
            let status = api.ask(method.clone(), &target, "", Value::Null).await.0;
            assert!(status == ruled || status == StatusCode::FORBIDDEN, "{method} {path}: {status}, and {ruled} for a process");
            status != StatusCode::FORBIDDEN
        };
        for held in &known {
            let expected = match &need {
                Need::Nothing => true,
                Need::Instance => false,
                Need::One(any) => held == ADMIN || any.contains(&held.as_str()),
                Need::All(_) => held == ADMIN,
            };
            assert_eq!(is_open(&mut api, &[held.as_str()]).await, expected, "{method} {path} with {held}");
        }
        match need {
            Need::Nothing | Need::Instance => {}
            Need::One(any) => asked.extend(any.iter().map(|permission| (*permission).to_owned())),
            Need::All(all) => {
                assert!(is_open(&mut api, all).await, "{method} {path}");
                asked.extend(all.iter().map(|permission| (*permission).to_owned()));
            }
        }
    }
    assert!(asked.iter().all(|permission| permission::check(permission).is_ok()), "one that nobody can be given: {asked:?}");
    let opens_elsewhere = |permission: &str| OPENS_NO_PATH.iter().any(|(name, _)| permission.starts_with(name));
    let idle: Vec<&String> = known.iter().filter(|known| !asked.contains(*known) && !opens_elsewhere(known)).collect();
    assert_eq!(idle, Vec::<&String>::new(), "they can be given, and open nothing");
    for (name, why) in OPENS_NO_PATH {
        assert!(known.iter().any(|known| known.starts_with(name)), "there is no {name}: {why}");
        assert!(!asked.iter().any(|asked| asked.starts_with(name)), "{name} opens a path: {why}");
    }
}

#[tokio::test]
async fn denials_are_told_apart_by_what_the_router_has() {
    let api = Api::new().await;
    let collection = |path: &str| {
        let below = path.strip_prefix("/v2/tenants/{tenant}/").or(path.strip_prefix("/v2/")).unwrap_or_default();
        below.split('/').next().unwrap_or_default().to_owned()
    };
    let served: BTreeSet<String> = paths(&api.router).iter().map(|path| collection(path)).collect();
    let told: BTreeSet<String> = COLLECTIONS.iter().map(|name| (*name).to_owned()).collect();
    let expected: BTreeSet<String> = served.into_iter().chain(COME_LATER.map(str::to_owned)).collect();
    assert_eq!(told, expected);
    assert!(COLLECTIONS.is_sorted(), "{COLLECTIONS:?}");
}

#[tokio::test]
async fn who_gives_roles_of_a_realm_learns_of_no_login_of_another_tenant() {
    let mut neighbours = Neighbours::new().await;
    let realms = format!("/v2/tenants/{OWN}/realms");
    for (name, rights) in [("ours", json!({ "tenant": OWN, "permissions": ["peers.get"] })), ("anybody", json!({}))] {
        let mut person = rights;
        person["login"] = json!(name);
        person["password"] = json!("correct horse");
        assert_eq!(neighbours.api.ask(Method::POST, "/v2/users", "user", person).await.0, StatusCode::CREATED, "{name}");
    }
    let elsewhere = json!({ "login": "reader", "password": "correct horse", "tenant": OWNER, "permissions": ["peers.get"] });
    assert_eq!(neighbours.api.ask(Method::POST, "/v2/users", "user", elsewhere).await.0, StatusCode::CREATED);
    let member = json!({ "login": "member", "password": "correct horse" });
    assert_eq!(neighbours.api.ask(Method::POST, "/v2/users", "user", member).await.0, StatusCode::CREATED);
    let their_realm = format!("/v2/tenants/{OWNER}/realms/theirR");
    assert_eq!(neighbours.api.ask(Method::POST, &format!("{their_realm}/role"), "realm", json!({ "role": "r" })).await.0, StatusCode::OK);
    let assigned = json!({ "role": "r", "user": "member" });
    assert_eq!(neighbours.api.ask(Method::POST, &format!("{their_realm}/assign"), "realm", assigned).await.0, StatusCode::OK);

    assert_eq!(neighbours.spies(&Method::POST, &realms, "realm", json!({ "name": "Ours" })).await.status, StatusCode::CREATED);
    assert_eq!(
        neighbours.spies(&Method::POST, &format!("{realms}/Ours/role"), "realm", json!({ "role": "r" })).await.status,
        StatusCode::OK
    );
    for action in ["assign", "unassign"] {
        let path = format!("{realms}/Ours/{action}");
        for role in ["r", "none"] {
            let nobody =
                neighbours.spies(&Method::POST, &path, "realm", json!({ "role": role, "user": NOTHING })).await.naming(NOTHING, NOTHING);
            assert_eq!(nobody.status, StatusCode::NOT_FOUND);
            // An admin of the instance, one who holds a right there, one of a realm there.
            for login in ["theirs", "reader", "member"] {
                let theirs = neighbours.spies(&Method::POST, &path, "realm", json!({ "role": role, "user": login })).await;
                assert_eq!(theirs.naming(login, NOTHING), nobody, "{action} {role} {login}");
            }
        }
    }
    for login in ["ours", "spy", "anybody"] {
        for action in ["assign", "unassign"] {
            let path = format!("{realms}/Ours/{action}");
            let answer = neighbours.spies(&Method::POST, &path, "realm", json!({ "role": "r", "user": login })).await;
            assert_eq!(answer.status, StatusCode::OK, "{action} {login}: {}", answer.body);
        }
    }
    // Who rules the instance may give the role to anybody.
    let theirs = json!({ "role": "r", "user": "theirs" });
    assert_eq!(neighbours.api.ask(Method::POST, &format!("{realms}/Ours/assign"), "realm", theirs).await.0, StatusCode::OK);

    // Nor by making a realm: logins without `@` could be the names of some.
    for (name, taken) in [("reader", NOTHING), ("member", "nothing-2"), ("theirs", "nothing-3")] {
        let made = neighbours.spies(&Method::POST, &realms, "realm", json!({ "name": name })).await.status;
        let other = neighbours.spies(&Method::POST, &realms, "realm", json!({ "name": taken })).await.status;
        assert_eq!((made, other), (StatusCode::CREATED, StatusCode::CREATED), "{name}");
    }
}
