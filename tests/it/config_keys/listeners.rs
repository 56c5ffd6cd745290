//! `[instance]`, `[public]`, `[local]`, `[console]`, `[admin]`: who we are, where we listen, and who may come in.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{reloads, says};
use crate::world::address::{free_port, own_address};
use crate::world::clock::ManualClock;
use crate::world::node::Node;
use crate::world::settings::request;
use crate::world::wire::Wire;

async fn node() -> Node {
    let mut node = Node::new("alpha", &Arc::new(ManualClock::new()), 1).await;
    node.starts().await;
    node
}

#[tokio::test]
async fn instance_name_is_whose_errors_these_are_after_a_restart() {
    let mut node = node().await;
    let whose = async |node: &Node| node.relays("GET", "/nobody/x", &[], "").await.header("p2pi-error-from").map(str::to_owned);
    assert_eq!(whose(&node).await.as_deref(), Some("alpha"));
    assert_eq!(reloads(&node, "[instance]\nname = \"omega\"").await, json!(["instance.name"]));
    assert_eq!(whose(&node).await.as_deref(), Some("alpha"));
    node.restarts().await;
    assert_eq!(whose(&node).await.as_deref(), Some("omega"));
}

#[tokio::test]
async fn instance_public_url_is_what_status_says_after_a_restart() {
    let mut node = node().await;
    let url = node.settings.url().replace("https://", "https://localhost.") + "/base";
    let url = url.replace(&node.settings.public.ip().to_string(), "example.com");
    assert_eq!(reloads(&node, &format!("[instance]\npublic_url = \"{url}\"")).await, json!(["instance.public_url"]));
    node.restarts().await;
    assert_eq!(node.asks("GET", "/v2/status", None).await.json()["data"]["attributes"]["public_url"], url);
}

#[tokio::test]
async fn instance_state_dir_is_where_the_database_is() {
    let mut node = node().await;
    node.stops().await;
    let elsewhere = node.settings.folder().join("elsewhere");
    node.settings.says("zz-test.toml", "[instance]\nstate_dir = \"elsewhere\"\n[admin]\nsocket = \"state/admin.sock\"");
    node.starts().await;
    assert!(elsewhere.join("key").is_file(), "the state key is made where there is none");
    assert_eq!(elsewhere.metadata().expect("made").permissions().mode() & 0o777, 0o700);
    assert_eq!(node.asks("GET", "/v2/status", None).await.status(), 200);
}

#[tokio::test]
async fn public_listen_and_tls_say_where_peers_come_and_with_what_certificate() {
    let mut node = node().await;
    let no_route = |node: &Node| request("GET", "/nowhere", &node.settings.public.to_string(), &[], "");
    let public = node.settings.public;
    let mut open = Wire::tls(public, &node.settings.authority()).await;
    assert_eq!(open.asks(no_route(&node)).await.header("p2pi-error"), Some("no_route"));

    let pair = rcgen::generate_simple_self_signed([public.ip().to_string()]).expect("a certificate");
    std::fs::write(node.settings.folder().join("cert.pem"), pair.cert.pem()).expect("a file");
    std::fs::write(node.settings.folder().join("key.pem"), pair.signing_key.serialize_pem()).expect("a file");
    says(&node, "[public]\ntls = { cert = \"cert.pem\", key = \"key.pem\" }").await;
    let mut wire = Wire::tls(public, &node.settings.folder().join("cert.pem")).await;
    assert_eq!(wire.asks(no_route(&node)).await.status(), 404);
    assert_eq!(open.asks(no_route(&node)).await.status(), 404, "the connection from before goes on");

    let second = free_port(own_address());
    let toml = format!("[public]\nlisten = [\"{second}\", \"unix:public.sock\"]\ntls = \"off\"");
    assert_eq!(reloads(&node, &toml).await, json!(["public.listen", "public.tls"]));
    node.restarts().await;
    assert_eq!(Wire::plain(second).await.asks(no_route(&node)).await.status(), 404);
    let mut unix = Wire::unix(&node.settings.folder().join("public.sock")).await;
    assert_eq!(unix.asks(no_route(&node)).await.status(), 404);
    assert!(tokio::net::TcpStream::connect(public).await.is_err(), "the old address is free");
}

#[tokio::test]
async fn public_trusted_proxies_may_be_at_a_unix_socket() {
    let mut node = node().await;
    let address = free_port(own_address());
    let place = format!("[public]\nlisten = [\"{address}\", \"unix:public.sock\"]\ntls = \"off\"\n");
    let limits = "[limits]\nauth_failures = \"1/min\"\n";
    reloads(&node, &format!("{place}{limits}")).await;
    node.restarts().await;
    let form = "grant_type=client_credentials&client_id=nobody&client_secret=wrong";
    let socket = node.settings.folder().join("public.sock");
    let guesses = async |from: &str| {
        let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("X-Forwarded-For", from)];
        Wire::unix(&socket).await.asks(request("POST", "/oauth/token", "localhost", &headers, form)).await.status()
    };
    assert_eq!((guesses("192.0.2.1").await, guesses("192.0.2.2").await), (401, 429), "all are one");
    says(&node, &format!("{place}trusted_proxies = [\"unix\"]\n{limits}")).await;
    assert_eq!((guesses("192.0.2.1").await, guesses("192.0.2.2").await, guesses("192.0.2.1").await), (401, 401, 429));
}

#[tokio::test]
async fn public_admin_api_says_whether_people_with_a_key_administer_from_outside() {
    let node = node().await;
    node.creates("user", json!({ "login": "ops@example.com", "password": "correct horse battery", "admin": true })).await;
    let key = node.asks("POST", "/v2/users/ops@example.com/key", Some(&json!({ "data": { "type": "user", "attributes": {} } }))).await;
    let key = key.json()["data"]["attributes"]["api_key"].as_str().expect("a key").to_owned();
    let basic = |key: &str| format!("Basic {}", STANDARD.encode(format!("ops@example.com:{key}")));
    let (right, wrong) = (basic(&key), basic("p2pk_wrong"));
    let asks = async |method: &str, path: &str, headers: &[(&str, &str)]| node.is_asked(method, path, headers, "").await;
    let signed_in = [("Authorization", right.as_str())];

    // Off, the path is any other: one without a route, or the application's.
    let answer = asks("GET", "/v2/tenants", &signed_in).await;
    assert_eq!((answer.status(), answer.header("p2pi-error")), (404, Some("no_route")));
    let route = "[[route]]\npath = \"/\"\nupstream = \"http://127.0.0.1:9\"";
    says(&node, route).await;
    assert_eq!(asks("GET", "/v2/tenants", &[]).await.header("p2pi-error"), Some("no_token"), "the application's");

    says(&node, &format!("[public]\nadmin_api = true\n{route}")).await;
    let answer = asks("GET", "/v2/tenants", &signed_in).await;
    assert_eq!((answer.status(), &answer.json()["data"][0]["attributes"]["name"]), (200, &json!("default")), "{}", answer.text());
    assert_eq!(asks("GET", "/v2/tenants/default/peers", &signed_in).await.status(), 200);
    for headers in [&[][..], &[("Authorization", wrong.as_str())]] {
        let answer = asks("GET", "/v2/tenants", headers).await;
        assert_eq!((answer.status(), answer.header("p2pi-error")), (401, None), "{headers:?}");
        assert!(answer.header("www-authenticate").is_some_and(|challenge| challenge.starts_with("Basic ")));
    }
    for page in [("Origin", "https://evil.example.com"), ("Sec-Fetch-Site", "cross-site")] {
        let answer = asks("POST", "/v2/keys/rotate", &[signed_in[0], page]).await;
        assert_eq!(answer.status(), 403, "{page:?}: {}", answer.text());
    }
    assert_eq!(asks("GET", "/v2/nothing", &signed_in).await.status(), 404);
    assert_eq!(asks("GET", "/oauth/nothing", &[]).await.status(), 404, "other paths of ours ask for no key");

    says(&node, "").await;
    assert_eq!(asks("GET", "/v2/tenants", &signed_in).await.header("p2pi-error"), Some("no_route"), "off again");
}

#[tokio::test]
async fn local_listen_says_where_applications_call() {
    let mut node = node().await;
    assert_eq!(reloads(&node, "[local]\nlisten = [\"unix:local.sock\"]").await, json!(["local.listen"]));
    node.restarts().await;
    let mut wire = Wire::unix(&node.settings.folder().join("local.sock")).await;
    let answer = wire.asks(request("GET", "/nobody/x", "localhost", &[], "")).await;
    assert_eq!(answer.header("p2pi-error"), Some("unknown_peer"));
    assert!(tokio::net::TcpStream::connect(node.settings.local).await.is_err());
}

#[tokio::test]
async fn local_open_says_whether_a_key_is_needed() {
    let node = node().await;
    assert_eq!(node.relays("GET", "/nobody/x", &[], "").await.header("p2pi-error"), Some("unknown_peer"));
    says(&node, "[local]\nopen = false").await;
    let answer = node.relays("GET", "/nobody/x", &[], "").await;
    assert_eq!((answer.status(), answer.header("p2pi-error")), (401, Some("caller_denied")));
}

#[tokio::test]
async fn local_hosts_and_origins_let_browsers_in() {
    let node = node().await;
    let port = node.settings.local.port();
    let asks = async |host: &str, origin: Option<&str>| {
        let headers: Vec<(&str, &str)> = origin.map(|origin| ("Origin", origin)).into_iter().collect();
        let answer = Wire::plain(node.settings.local).await.asks(request("GET", "/nobody/x", host, &headers, "")).await;
        answer.header("p2pi-error").map(str::to_owned).expect("an error of ours")
    };
    let (named, ours) = (format!("apps.example.com:{port}"), node.settings.local.to_string());
    assert_eq!(asks(&named, None).await, "browser_refused");
    assert_eq!(asks(&ours, Some("https://apps.example.com")).await, "browser_refused");
    says(&node, "[local]\nhosts = [\"apps.example.com\"]").await;
    assert_eq!(asks(&named, None).await, "unknown_peer");
    assert_eq!(asks(&ours, Some("https://apps.example.com")).await, "browser_refused");
    says(&node, "[local]\norigins = [\"https://apps.example.com\"]").await;
    assert_eq!(asks(&named, None).await, "browser_refused");
    assert_eq!(asks(&ours, Some("https://apps.example.com")).await, "unknown_peer");
}

#[tokio::test]
async fn console_listen_and_tls_say_where_operators_come() {
    let mut node = node().await;
    let second = free_port(own_address());
    let toml = format!("[console]\nlisten = [\"{second}\"]\ntls = \"self-signed\"");
    assert_eq!(reloads(&node, &toml).await, json!(["console.listen", "console.tls"]));
    node.restarts().await;
    assert!(tokio::net::TcpStream::connect(node.settings.console).await.is_err());
    // The development certificate is made for public_url's host.
    let status = node.asks("GET", "/v2/status", None).await.json();
    let listeners = status["data"]["attributes"]["listeners"].as_array().expect("listeners").clone();
    let console = listeners.iter().find(|listener| listener["name"] == "console").expect("a console");
    assert_eq!(console, &json!({ "name": "console", "address": second.to_string(), "tls": true }));
    let clear = Wire::plain(second).await.sends(request("GET", "/livez", &second.to_string(), &[], "")).await.answer().await;
    assert!(clear.as_ref().is_none_or(|answer| answer.status() != 200), "{clear:?}");
}

#[tokio::test]
async fn console_hosts_and_origins_let_browsers_in() {
    let node = node().await;
    let port = node.settings.console.port();
    let asks = async |host: &str, origin: Option<&str>| {
        let headers: Vec<(&str, &str)> = origin.map(|origin| ("Origin", origin)).into_iter().collect();
        Wire::plain(node.settings.console).await.asks(request("GET", "/v2/status", host, &headers, "")).await.status()
    };
    let (named, ours) = (format!("console.example.com:{port}"), node.settings.console.to_string());
    assert_eq!((asks(&named, None).await, asks(&ours, Some("https://console.example.com")).await), (403, 403));
    says(&node, "[console]\nhosts = [\"console.example.com\"]\norigins = [\"https://console.example.com\"]").await;
    assert_eq!((asks(&named, None).await, asks(&ours, Some("https://console.example.com")).await), (401, 401), "an API key is asked for");
}

#[tokio::test]
async fn admin_socket_and_group_say_where_commands_come_and_whose_they_may_be() {
    let mut node = node().await;
    let gid = rustix::process::getegid().as_raw();
    let toml = format!("[admin]\nsocket = \"commands.sock\"\ngroup = \"{gid}\"");
    assert_eq!(reloads(&node, &toml).await, json!(["admin.group", "admin.socket"]));
    node.restarts().await;
    let socket = node.settings.folder().join("commands.sock");
    let metadata = socket.metadata().expect("a socket");
    assert_eq!((metadata.permissions().mode() & 0o777, metadata.gid()), (0o660, gid));
    assert_eq!(Wire::unix(&socket).await.asks(request("GET", "/v2/status", "localhost", &[], "")).await.status(), 200);
    node.stops().await;
    node.settings.says("zz-test.toml", "[admin]\ngroup = \"no-such-group\"");
    let error = node.tries_to_start().await.expect_err("there is no such group").to_string();
    assert!(error.contains("no-such-group"), "{error}");
}
