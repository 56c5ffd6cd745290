//! The API as a whole: each request through the router, as the socket's and the console's users send it.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower_service::Service;

use super::{AdminState, Caller, router};

use crate::config::{self, Loaded};
use crate::doors::relay::Relay;
use crate::inbound::permission::Rights;
use crate::instance::Instance;
use crate::store::temporary;
use crate::system::{SystemClock, SystemRandom};
use crate::tasks::keeper::Links;
use crate::tasks::reload::Reloader;

/// The smallest configuration.
fn config_in(folder: &Path) -> Loaded {
    let file = folder.join("one.toml");
    let text = r#"
        instance = { name = "one", public_url = "https://127.0.0.1:7443", state_dir = "." }
        public = { listen = ["127.0.0.1:7443"], tls = "self-signed" }
        route = [{ path = "/p2pi", upstream = "http://127.0.0.1:8080" }]
        scopes = { p2pi = "Call us", sell = { text = "Sell", tenant = "sales" } }
    "#;
    std::fs::write(&file, text).expect("a temporary folder can be written");
    config::load(&file).expect("a small configuration")
}

pub(super) struct Api {
    _directory: tempfile::TempDir,
    pub(super) state: Arc<AdminState>,
    pub(super) router: Router,
    pub(super) caller: Caller,
}

impl Api {
    pub(super) async fn new() -> Self {
        let (directory, store) = temporary();
        let loaded = config_in(directory.path());
        let instance = Arc::new(Instance::new(Arc::new(loaded.config), store, Arc::new(SystemClock::new()), Arc::new(SystemRandom)));
        let links = Links::start(Arc::clone(&instance)).await.expect("no peers");
        let relay = Relay::start(Arc::clone(&instance), Arc::clone(&links)).await.expect("no callers");
        let reloader = Arc::new(Reloader::new(Arc::clone(&instance), loaded.sources, Vec::new()));
        let state =
            Arc::new(AdminState { instance, links, relay: Arc::new(relay), reloader, listeners: Vec::new(), changes: Default::default() });
        Self { _directory: directory, router: router(Arc::clone(&state)), state, caller: Caller::Process { uid: 0 } }
    }

    pub(super) async fn ask(&self, method: Method, path: &str, kind: &str, attributes: Value) -> (StatusCode, Value) {
        let body = if attributes.is_null() {
            Body::empty()
        } else {
            Body::from(json!({ "data": { "type": kind, "attributes": attributes } }).to_string())
        };
        let mut request =
            Request::builder().method(method).uri(path).header("content-type", "application/json").body(body).expect("a request");
        request.extensions_mut().insert(self.caller.clone());
        let response = self.router.clone().call(request).await.expect("routers answer");
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn refused(&self, method: Method, path: &str, kind: &str, attributes: Value) -> (u16, String) {
        let (status, body) = self.ask(method, path, kind, attributes).await;
        (status.as_u16(), body["errors"][0]["code"].as_str().unwrap_or_default().to_owned())
    }
}

fn refusal(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn tenants_come_and_go() {
    let api = Api::new().await;
    let (status, body) = api.ask(Method::POST, "/v2/tenants", "tenant", json!({ "name": "sales" })).await;
    assert_eq!((status, &body["data"]["id"], &body["data"]["attributes"]["name"]), (StatusCode::CREATED, &json!("sales"), &json!("sales")));
    assert_eq!(api.refused(Method::POST, "/v2/tenants", "tenant", json!({ "name": "sales" })).await, refusal(409, "exists"));
    assert_eq!(api.refused(Method::POST, "/v2/tenants", "tenant", json!({ "name": "a/b" })).await, refusal(400, "bad_attribute"));
    let (_, body) = api.ask(Method::GET, "/v2/tenants", "", Value::Null).await;
    assert_eq!(body["data"].as_array().map(Vec::len), Some(2));
    assert_eq!(api.ask(Method::DELETE, "/v2/tenants/sales", "", Value::Null).await.0, StatusCode::NO_CONTENT);
    assert_eq!(api.refused(Method::GET, "/v2/tenants/sales", "", Value::Null).await, refusal(404, "not_found"));
    assert_eq!(api.refused(Method::DELETE, "/v2/tenants/default", "", Value::Null).await, refusal(409, "in_use"));
}

#[tokio::test]
async fn a_tenant_that_is_used_says_by_what() {
    let api = Api::new().await;
    api.ask(Method::POST, "/v2/tenants", "tenant", json!({ "name": "sales" })).await;
    for name in ["kiosk", "shop", "till"] {
        let (status, body) = api.ask(Method::POST, "/v2/tenants/sales/callers", "caller", json!({ "name": name })).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }
    let app = json!({ "name": "partner", "client_id": "partner", "issuer": "https://partner.example.com" });
    let (status, body) = api.ask(Method::POST, "/v2/tenants/sales/ob-apps", "ob-app", app).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let (status, body) = api.ask(Method::DELETE, "/v2/tenants/sales", "", Value::Null).await;
    let error = &body["errors"][0];
    assert_eq!((status, &error["code"]), (StatusCode::CONFLICT, &json!("in_use")));
    let users = r#"the OB app "partner", the caller "kiosk", the caller "shop" and 1 more"#;
    assert_eq!(error["detail"], format!("the tenant \"sales\" is used by {users}"));
    for (kind, name) in [("callers", "kiosk"), ("callers", "shop"), ("ob-apps", "partner")] {
        assert_eq!(api.ask(Method::DELETE, &format!("/v2/tenants/sales/{kind}/{name}"), "", Value::Null).await.0, StatusCode::NO_CONTENT);
    }
    let (_, body) = api.ask(Method::DELETE, "/v2/tenants/sales", "", Value::Null).await;
    assert_eq!(body["errors"][0]["detail"], r#"the tenant "sales" is used by the caller "till""#);
}

#[tokio::test]
async fn a_client_id_that_another_tenant_has_is_refused_without_saying_whose() {
    let api = Api::new().await;
    api.ask(Method::POST, "/v2/tenants", "tenant", json!({ "name": "sales" })).await;
    let ours = json!({ "name": "warehouse", "client_id": "5f0c", "peer_url": "https://one.example.com", "scopes": ["p2pi"] });
    let (status, body) = api.ask(Method::POST, "/v2/tenants/default/ib-apps", "ib-app", ours).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let mut theirs = json!({ "name": "till", "client_id": "5f0c", "peer_url": "https://two.example.com", "scopes": ["sell"] });
    for or_update in [false, true] {
        theirs["or_update"] = json!(or_update);
        let (status, body) = api.ask(Method::POST, "/v2/tenants/sales/ib-apps", "ib-app", theirs.clone()).await;
        let error = &body["errors"][0];
        assert_eq!((status, &error["code"], &error["detail"]), (StatusCode::CONFLICT, &json!("exists"), &json!("the client_id is taken")));
        assert!(!body.to_string().contains("warehouse") && !body.to_string().contains("default"), "{body}");
    }
    let (_, body) = api.ask(Method::GET, "/v2/tenants/sales/ib-apps", "", Value::Null).await;
    assert_eq!(body["data"], json!([]), "nothing was made");
    theirs["client_id"] = json!("5f0d");
    assert_eq!(api.ask(Method::POST, "/v2/tenants/sales/ib-apps", "ib-app", theirs).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn people_are_added_changed_and_removed() {
    let api = Api::new().await;
    let add = json!({ "login": "ops@example.com", "password": "correct horse", "permissions": ["links.approve"] });
    let (status, body) = api.ask(Method::POST, "/v2/users", "user", add.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let ops = &body["data"]["attributes"];
    assert_eq!((&ops["admin"], &ops["permissions"]), (&json!(false), &json!({ "default": ["links.approve"] })));
    assert!(!body.to_string().contains("horse") && !body.to_string().contains("argon2"));
    assert_eq!(api.refused(Method::POST, "/v2/users", "user", add.clone()).await, refusal(409, "exists"));
    let (_, body) = api.ask(Method::PATCH, "/v2/users/ops@example.com", "user", json!({ "admin": true })).await;
    assert_eq!(body["data"]["attributes"]["admin"], true);
    let (_, body) = api.ask(Method::PATCH, "/v2/users/ops%40example.com", "user", json!({ "admin": true, "tenant": "default" })).await;
    assert_eq!(body["data"]["attributes"]["permissions"], json!({ "default": ["admin", "links.approve"] }));
    let (_, body) = api.ask(Method::POST, "/v2/users/ops@example.com/key", "user", Value::Null).await;
    assert!(body["data"]["attributes"]["api_key"].as_str().is_some_and(|key| key.starts_with("p2pk_")), "{body}");
    assert_eq!(api.refused(Method::DELETE, "/v2/users/ops@example.com", "", Value::Null).await, refusal(409, "last_admin"));
    let another = json!({ "login": "other@example.com", "password": "correct horse", "admin": true });
    assert_eq!(api.ask(Method::POST, "/v2/users", "user", another).await.0, StatusCode::CREATED);
    assert_eq!(api.ask(Method::DELETE, "/v2/users/ops@example.com", "", Value::Null).await.0, StatusCode::NO_CONTENT);
    assert_eq!(api.refused(Method::DELETE, "/v2/users/ops@example.com", "", Value::Null).await, refusal(404, "not_found"));
}

#[tokio::test]
async fn a_minimal_person_with_one_thing_changed_is_refused() {
    let api = Api::new().await;
    for (name, value, status, code) in [
        ("login", json!("a b"), 400, "bad_attribute"),
        ("login", json!(""), 400, "bad_attribute"),
        ("login", Value::Null, 400, "missing_attribute"),
        ("password", json!("short"), 400, "bad_attribute"),
        ("password", json!("x".repeat(129)), 400, "bad_attribute"),
        ("permissions", json!(["No Such"]), 400, "bad_attribute"),
        ("permissions", json!(["nonsense"]), 400, "bad_attribute"),
        ("permissions", json!("links.approve"), 400, "bad_attribute"),
        ("tenant", json!("nowhere"), 404, "not_found"),
        ("colour", json!("red"), 400, "unknown_attribute"),
    ] {
        let mut add = json!({ "login": "ops@example.com", "password": "correct horse" });
        add[name] = value.clone();
        assert_eq!(api.refused(Method::POST, "/v2/users", "user", add).await, refusal(status, code), "{name}: {value}");
    }
    let (_, body) = api.ask(Method::GET, "/v2/users", "", Value::Null).await;
    assert_eq!(body["data"], json!([]), "nothing was half done");
}

#[tokio::test]
async fn requests_that_are_no_documents_are_refused() {
    let api = Api::new().await;
    assert_eq!(api.refused(Method::GET, "/v2/nothing", "", Value::Null).await, refusal(404, "not_found"));
    assert_eq!(api.refused(Method::GET, "/elsewhere", "", Value::Null).await, refusal(404, "not_found"));
    assert_eq!(api.refused(Method::PUT, "/v2/tenants", "", Value::Null).await, refusal(405, "method_not_allowed"));
    let large = json!({ "name": "x".repeat(100_000) });
    assert_eq!(api.refused(Method::POST, "/v2/tenants", "tenant", large).await, refusal(413, "body_too_large"));
    assert_eq!(api.refused(Method::POST, "/v2/tenants", "peer", json!({ "name": "a" })).await, refusal(409, "wrong_type"));
}

#[tokio::test]
async fn nobody_does_what_they_may_not() {
    let mut api = Api::new().await;
    let by_tenant = [("default".to_owned(), ["admin".to_owned()].into())].into();
    api.caller = Caller::Person { login: "a@example.com".into(), rights: Rights { by_tenant, ..Rights::default() } };
    assert_eq!(api.refused(Method::POST, "/v2/tenants", "tenant", json!({ "name": "a" })).await, refusal(403, "forbidden"));
    assert_eq!(api.refused(Method::GET, "/v2/users", "", Value::Null).await, refusal(403, "forbidden"));
    assert_eq!(api.ask(Method::GET, "/v2/status", "", Value::Null).await.0, StatusCode::OK);
    assert_eq!(api.refused(Method::GET, "/v2/tenants/sales/peers", "", Value::Null).await, refusal(404, "not_found"));
}

#[tokio::test]
async fn ob_apps_come_change_and_go() {
    let api = Api::new().await;
    let path = "/v2/tenants/default/ob-apps";
    let given = json!({ "name": "two", "client_id": "5f0c", "client_secret": "s3cret-s3cret", "issuer": "https://two.example.com", "scopes": ["p2pi"] });
    let (status, body) = api.ask(Method::POST, path, "ob-app", given.clone()).await;
    let shown = &body["data"]["attributes"];
    assert_eq!((status, &shown["client_id"], &shown["grant"]), (StatusCode::CREATED, &json!("5f0c"), &json!("authorization_code")));
    assert_eq!(shown["redirect_uri"], json!("https://127.0.0.1:7443/oauth/callback"));
    assert!(!body.to_string().contains("s3cret"), "{body}");
    assert_eq!(api.refused(Method::POST, path, "ob-app", given.clone()).await, refusal(409, "exists"));
    let (status, body) = api.ask(Method::PATCH, &format!("{path}/two"), "ob-app", json!({ "client_id": "other" })).await;
    assert_eq!((status, &body["data"]["attributes"]["client_id"]), (StatusCode::OK, &json!("other")));
    for (member, value) in
        [("issuer", json!("http://two.example.com")), ("grant", json!("implicit")), ("client_id", json!("")), ("name", json!("a/b"))]
    {
        let mut wrong = given.clone();
        wrong["name"] = json!("three");
        wrong[member] = value;
        assert_eq!(api.refused(Method::POST, path, "ob-app", wrong).await, refusal(400, "bad_attribute"), "{member}");
    }
    let peer = json!({ "name": "two", "url": "http://127.0.0.1:9", "ob": "two" });
    assert_eq!(api.ask(Method::POST, "/v2/tenants/default/peers", "peer", peer).await.0, StatusCode::CREATED);
    assert_eq!(api.refused(Method::DELETE, &format!("{path}/two"), "", Value::Null).await, refusal(409, "in_use"));
    assert_eq!(api.ask(Method::DELETE, "/v2/tenants/default/peers/two", "", Value::Null).await.0, StatusCode::NO_CONTENT);
    let again = json!({ "name": "two", "url": "http://127.0.0.1:9", "client_id": "again", "client_secret": "s3cret-s3cret" });
    assert_eq!(api.ask(Method::POST, "/v2/tenants/default/peers", "peer", again).await.0, StatusCode::CREATED, "what is left is used");
    assert_eq!(api.ask(Method::DELETE, "/v2/tenants/default/peers/two", "", Value::Null).await.0, StatusCode::NO_CONTENT);
    assert_eq!(api.ask(Method::DELETE, &format!("{path}/two"), "", Value::Null).await.0, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_peer_that_is_down_is_made_with_a_warning() {
    let api = Api::new().await;
    let path = "/v2/tenants/default/peers";
    let given =
        json!({ "name": "two", "url": "http://127.0.0.1:9", "client_id": "5f0c", "client_secret": "s3cret-s3cret", "scopes": ["p2pi"] });
    let (status, body) = api.ask(Method::POST, path, "peer", given.clone()).await;
    let shown = &body["data"]["attributes"];
    assert_eq!(
        (status, &shown["state"], &shown["ob_app"], &shown["auth"]),
        (StatusCode::CREATED, &json!("ready_to_link"), &json!("two"), &json!("oauth"))
    );
    assert!(shown["warnings"][0].as_str().is_some_and(|warning| warning.contains("cannot be reached")), "{body}");
    assert!(!body.to_string().contains("s3cret"), "{body}");
    assert_eq!(api.refused(Method::POST, path, "peer", given).await, refusal(409, "exists"));
    assert_eq!(api.refused(Method::POST, &format!("{path}/two/request"), "peer", Value::Null).await, refusal(502, "peer_unreachable"));
    assert_eq!(api.refused(Method::POST, &format!("{path}/two/refresh"), "peer", Value::Null).await, refusal(409, "not_linked"));
    let (_, body) = api.ask(Method::POST, &format!("{path}/two/maintenance"), "peer", json!({ "until": "2999-01-01T00:00:00Z" })).await;
    assert_eq!(body["data"]["attributes"]["state"], json!("maintenance"));
    let (_, body) = api.ask(Method::POST, &format!("{path}/two/maintenance"), "peer", json!({ "until": "off" })).await;
    assert_eq!(body["data"]["attributes"]["state"], json!("ready_to_link"));
    let (_, body) = api.ask(Method::POST, &format!("{path}/two/rename"), "peer", json!({ "name": "zwei" })).await;
    assert_eq!(body["data"]["attributes"]["name"], json!("zwei"));
    assert_eq!(api.refused(Method::GET, &format!("{path}/two"), "", Value::Null).await, refusal(404, "not_found"));
    let (_, body) = api.ask(Method::PATCH, &format!("{path}/zwei"), "peer", json!({ "username": "u", "password": "p" })).await;
    assert_eq!((&body["data"]["attributes"]["auth"], &body["data"]["attributes"]["state"]), (&json!("basic"), &json!("linked")));
    let (_, body) = api.ask(Method::GET, path, "", Value::Null).await;
    assert_eq!(body["data"].as_array().map(Vec::len), Some(1));
    for (member, value) in
        [("url", json!("http://two.example.com")), ("pin", json!("sha256:00")), ("ca", json!("no certificate")), ("name", json!(".."))]
    {
        let mut wrong = json!({ "name": "three", "url": "http://127.0.0.1:9" });
        wrong[member] = value;
        assert_eq!(api.refused(Method::POST, path, "peer", wrong).await, refusal(400, "bad_attribute"), "{member}");
    }
}

#[tokio::test]
async fn anothers_peer_looks_like_none() {
    let api = Api::new().await;
    api.ask(Method::POST, "/v2/tenants", "tenant", json!({ "name": "sales" })).await;
    let given = json!({ "name": "two", "url": "http://127.0.0.1:9" });
    let (_, body) = api.ask(Method::POST, "/v2/tenants/default/peers", "peer", given).await;
    assert_eq!(body["data"]["attributes"]["state"], json!("no_credentials"));
    let id = body["data"]["id"].as_str().expect("an id").to_owned();
    for name in ["two", id.as_str()] {
        assert_eq!(api.refused(Method::GET, &format!("/v2/tenants/sales/peers/{name}"), "", Value::Null).await, refusal(404, "not_found"));
    }
    assert_eq!(api.ask(Method::GET, &format!("/v2/tenants/default/peers/{id}"), "", Value::Null).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_call_may_go_to_the_peers_root() {
    let mut api = Api::new().await;
    for path in ["call", "call/", "call/orders"] {
        let mut request = Request::get(format!("/v2/tenants/default/peers/nobody/{path}")).body(Body::empty()).expect("a request");
        request.extensions_mut().insert(api.caller.clone());
        let response = api.router.call(request).await.expect("routers answer");
        assert!(response.headers().contains_key(super::call::CALLED), "{path}: {}", response.status());
        assert_eq!(response.headers().get("p2pi-error").map(http::HeaderValue::as_bytes), Some(&b"unknown_peer"[..]), "{path}");
    }
}

const REALMS: &str = "/v2/tenants/default/realms";

#[tokio::test]
async fn realms_come_change_and_go_with_their_roles() {
    let api = Api::new().await;
    let alice = json!({ "login": "alice", "password": "alice-passw0rd" });
    assert_eq!(api.ask(Method::POST, "/v2/users", "user", alice).await.0, StatusCode::CREATED);
    let (status, body) = api.ask(Method::POST, REALMS, "realm", json!({ "name": "TestRealm" })).await;
    let made = &body["data"]["attributes"];
    assert_eq!((status, &made["client_id"], &made["token_validity"]), (StatusCode::CREATED, &json!("TestRealm"), &json!(43_200)), "{body}");
    assert_eq!((&made["scopes"], &made["roles"], &made["key"]), (&json!(["openid"]), &json!([]), &made["client_secret"]));
    assert_eq!(made["grants"], json!(["authorization_code", "refresh_token"]), "[compat] password_grant is off");
    assert!(made["key"].as_str().is_some_and(|key| key.len() >= 22), "128 bits or more: {body}");
    assert_eq!(api.refused(Method::POST, REALMS, "realm", json!({ "name": "TestRealm" })).await, refusal(409, "exists"));

    let again = json!({ "name": "TestRealm", "or_update": true, "token_validity": 60, "description": "for tests" });
    let (status, body) = api.ask(Method::POST, REALMS, "realm", again).await;
    let updated = &body["data"]["attributes"];
    assert_eq!((status, &updated["access_ttl"], &updated["key"]), (StatusCode::OK, &json!(60), &Value::Null), "its key stays: {body}");
    let (_, body) = api.ask(Method::PATCH, &format!("{REALMS}/TestRealm"), "realm", json!({ "key": "k3y_secret" })).await;
    let updated = &body["data"]["attributes"];
    assert_eq!((&updated["token_validity"], &updated["description"]), (&json!(60), &json!("for tests")), "what is not given stays");
    assert!(!body.to_string().contains("k3y_secret"), "{body}");

    let act = |action: &str| format!("{REALMS}/TestRealm/{action}");
    let role = json!({ "role": "ROLE_TEST", "description": "reads" });
    let (status, body) = api.ask(Method::POST, &act("role"), "realm", role.clone()).await;
    let role_shown = json!([{ "name": "ROLE_TEST", "description": "reads", "users": [] }]);
    assert_eq!((status, &body["data"]["attributes"]["roles"]), (StatusCode::OK, &role_shown), "{body}");
    assert_eq!(api.refused(Method::POST, &act("role"), "realm", role).await, refusal(409, "exists"));
    let held = json!({ "user": "alice", "role": "ROLE_TEST" });
    for _ in 0..2 {
        let (status, body) = api.ask(Method::POST, &act("assign"), "realm", held.clone()).await;
        assert_eq!((status, &body["data"]["attributes"]["roles"][0]["users"]), (StatusCode::OK, &json!(["alice"])), "{body}");
    }
    for (action, attributes) in [
        ("assign", json!({ "user": "nobody", "role": "ROLE_TEST" })),
        ("assign", json!({ "user": "alice", "role": "ROLE_OTHER" })),
        ("unassign", json!({ "user": "alice", "role": "ROLE_OTHER" })),
        ("delete-role", json!({ "role": "ROLE_OTHER" })),
    ] {
        let refused = api.refused(Method::POST, &act(action), "realm", attributes.clone()).await;
        assert_eq!(refused, refusal(404, "not_found"), "{action} {attributes}");
    }
    let (_, body) = api.ask(Method::POST, &act("unassign"), "realm", held.clone()).await;
    assert_eq!(body["data"]["attributes"]["roles"][0]["users"], json!([]));
    assert_eq!(api.refused(Method::POST, &act("unassign"), "realm", held).await, refusal(404, "not_found"));
    let (_, body) = api.ask(Method::POST, &act("delete-role"), "realm", json!({ "role": "ROLE_TEST" })).await;
    assert_eq!(body["data"]["attributes"]["roles"], json!([]));
    assert_eq!(api.ask(Method::DELETE, &format!("{REALMS}/TestRealm"), "", Value::Null).await.0, StatusCode::NO_CONTENT);
    assert_eq!(api.refused(Method::GET, &format!("{REALMS}/TestRealm"), "", Value::Null).await, refusal(404, "not_found"));
}

#[tokio::test]
async fn a_minimal_realm_with_one_thing_changed_is_refused() {
    let api = Api::new().await;
    for (name, value, code) in [
        ("name", json!(""), "bad_attribute"),
        ("name", json!("a.b"), "bad_attribute"),
        ("name", json!("x".repeat(51)), "bad_attribute"),
        ("name", Value::Null, "missing_attribute"),
        ("key", json!(""), "bad_attribute"),
        ("key", json!("ä"), "bad_attribute"),
        ("token_validity", json!(0), "bad_attribute"),
        ("token_validity", json!(99_999_999), "bad_attribute"),
        ("description", json!("x".repeat(256)), "bad_attribute"),
        ("redirect_uris", json!(["http://elsewhere.example"]), "bad_attribute"),
        ("grants", json!(["password"]), "unknown_attribute"),
    ] {
        let mut realm = json!({ "name": "TestRealm" });
        realm[name] = value.clone();
        assert_eq!(api.refused(Method::POST, REALMS, "realm", realm).await, refusal(400, code), "{name}: {value}");
    }
    let (_, body) = api.ask(Method::GET, REALMS, "", Value::Null).await;
    assert_eq!(body["data"], json!([]), "nothing was half done");
}

#[tokio::test]
async fn a_realm_is_its_tenants_and_is_changed_as_a_realm_alone() {
    let api = Api::new().await;
    api.ask(Method::POST, "/v2/tenants", "tenant", json!({ "name": "sales" })).await;
    let (_, body) = api.ask(Method::POST, REALMS, "realm", json!({ "name": "TestRealm" })).await;
    let id = body["data"]["id"].as_str().expect("an id").to_owned();
    let theirs = "/v2/tenants/sales/realms";
    for (method, path) in [
        (Method::GET, format!("{theirs}/TestRealm")),
        (Method::PATCH, format!("{theirs}/TestRealm")),
        (Method::DELETE, format!("{theirs}/TestRealm")),
        (Method::GET, "/v2/tenants/default/ib-apps/TestRealm".to_owned()),
        (Method::GET, format!("/v2/tenants/default/ib-apps/{id}")),
        (Method::POST, "/v2/tenants/default/ib-apps/TestRealm/rotate-secret".to_owned()),
        (Method::DELETE, "/v2/tenants/default/ib-apps/TestRealm".to_owned()),
    ] {
        assert_eq!(api.refused(method.clone(), &path, "", Value::Null).await, refusal(404, "not_found"), "{method} {path}");
    }
    for or_update in [false, true] {
        let taken = json!({ "name": "TestRealm", "or_update": or_update });
        let (status, body) = api.ask(Method::POST, theirs, "realm", taken).await;
        let error = &body["errors"][0];
        assert_eq!((status, &error["code"]), (StatusCode::CONFLICT, &json!("exists")));
        assert!(!body.to_string().contains("default"), "{body}");
        let app = json!({ "name": "TestRealm", "peer_url": "https://one.example.com", "scopes": ["p2pi"], "or_update": or_update });
        assert_eq!(api.refused(Method::POST, "/v2/tenants/default/ib-apps", "ib-app", app).await, refusal(409, "exists"));
    }
    let password = json!({ "name": "x", "peer_url": "https://one.example.com", "scopes": ["p2pi"], "grants": ["password"] });
    assert_eq!(api.refused(Method::POST, "/v2/tenants/default/ib-apps", "ib-app", password).await, refusal(400, "bad_attribute"));
    for list in [theirs, "/v2/tenants/default/ib-apps"] {
        assert_eq!(api.ask(Method::GET, list, "", Value::Null).await.1["data"], json!([]), "{list}");
    }
    // A realm is never the subject of a token, and may be called like somebody: so its maker does not learn who there is.
    for (kind, path, name) in [("user", "/v2/users", "TestRealm"), ("user", "/v2/users", "alice"), ("realm", REALMS, "alice")] {
        let record = if kind == "user" { json!({ "login": name, "password": "correct horse" }) } else { json!({ "name": name }) };
        assert_eq!(api.ask(Method::POST, path, kind, record).await.0, StatusCode::CREATED, "{kind} {name}");
    }
    let (_, body) = api.ask(Method::DELETE, "/v2/tenants/default", "", Value::Null).await;
    assert_eq!(body["errors"][0]["code"], json!("in_use"));
}

#[tokio::test]
async fn each_verb_of_a_realm_needs_its_permission() {
    let mut api = Api::new().await;
    api.ask(Method::POST, REALMS, "realm", json!({ "name": "TestRealm" })).await;
    for (held, method, path) in [
        ("get", Method::GET, REALMS.to_owned()),
        ("get", Method::GET, format!("{REALMS}/TestRealm")),
        ("create", Method::POST, REALMS.to_owned()),
        ("edit", Method::PATCH, format!("{REALMS}/TestRealm")),
        ("edit", Method::POST, format!("{REALMS}/TestRealm/role")),
        ("edit", Method::POST, format!("{REALMS}/TestRealm/assign")),
        ("delete", Method::DELETE, format!("{REALMS}/TestRealm")),
    ] {
        for permission in ["realms.get", "realms.create", "realms.edit", "ib_apps.edit", "ib_apps.delete"] {
            if permission == format!("realms.{held}") {
                continue;
            }
            let permissions = [("default".to_owned(), [permission.to_owned()].into())].into();
            api.caller =
                Caller::Person { login: "a@example.com".into(), rights: Rights { is_admin: false, by_tenant: permissions, only: None } };
            let refused = api.refused(method.clone(), &path, "realm", json!({})).await;
            assert_eq!(refused, refusal(403, "forbidden"), "{permission}: {method} {path}");
        }
        let permissions = [("default".to_owned(), [format!("realms.{held}")].into())].into();
        api.caller =
            Caller::Person { login: "a@example.com".into(), rights: Rights { is_admin: false, by_tenant: permissions, only: None } };
        let allowed = api.ask(method.clone(), &path, "realm", json!({})).await.0;
        assert_ne!(allowed, StatusCode::FORBIDDEN, "realms.{held}: {method} {path}");
    }
}
