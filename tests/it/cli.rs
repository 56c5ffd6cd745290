//! The command line against a real daemon: each command as text and as JSON, what it refuses, and its exit status.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Child;

use crate::world::pair::Pair;
use crate::world::process::Process;
use crate::world::settings::request;
use crate::world::wire::Wire;

#[tokio::test]
async fn people_are_managed() {
    let one = Process::running("one").await;
    let ops = one.runs_with(&["user", "add", "ops@example.com", "--admin", "--password-stdin"], "correct horse").await;
    assert_eq!((&ops["login"], &ops["admin"], &ops["permissions"]), (&json!("ops@example.com"), &json!(true), &json!({})));
    let again = one.tries(&["user", "add", "ops@example.com", "--password-stdin"], Some("correct horse")).await;
    assert_eq!((again.status.code(), &again.problem()["error"]["code"]), (Some(1), &json!("exists")));
    let ops = one
        .runs_with(&["user", "add", "ops@example.com", "--permission", "links.approve", "--password-stdin", "--or-update"], "correct horse")
        .await;
    assert_eq!((&ops["admin"], &ops["permissions"]), (&json!(true), &json!({ "default": ["links.approve"] })));
    let last = one.refuses(&["user", "update", "ops@example.com", "--no-admin"]).await;
    assert_eq!((&last["code"], &last["next"]), (&json!("last_admin"), &json!("make another one first: p2pid user add LOGIN --admin")));
    assert_eq!(one.refuses(&["user", "delete", "ops@example.com", "--yes"]).await["code"], "last_admin");
    one.runs_with(&["user", "add", "other@example.com", "--admin", "--password-stdin"], "correct horse").await;
    let ops = one.runs(&["user", "update", "ops@example.com", "--no-admin", "--permission", "peers.get"]).await;
    assert_eq!((&ops["admin"], &ops["permissions"]), (&json!(false), &json!({ "default": ["peers.get"] })));
    one.runs_with(&["user", "passwd", "ops@example.com", "--password-stdin"], "another horse").await;
    let key = one.runs(&["user", "key", "ops@example.com"]).await;
    assert_eq!(key.as_object().map(serde_json::Map::len), Some(1), "{key}");
    assert!(key["api_key"].as_str().is_some_and(|key| key.starts_with("p2pk_")));
    assert_eq!(one.runs(&["user", "list"]).await.as_array().map(Vec::len), Some(2));
    let text = one.says(&["user", "list"]).await;
    assert_eq!(
        text.stdout.lines().next().map(|line| line.split_whitespace().collect::<Vec<_>>()),
        Some(vec!["LOGIN", "ADMIN", "PERMISSIONS", "ROLES", "API", "KEYS", "CREATED", "AT"])
    );
    one.runs(&["user", "delete", "ops@example.com", "--yes"]).await;
    assert_eq!(one.refuses(&["user", "delete", "ops@example.com", "--yes"]).await["code"], "not_found");
    assert!(!one.log().contains("horse"), "no password in the log");
}

#[tokio::test]
async fn tenants_are_managed() {
    let one = Process::running("one").await;
    let sales = one.runs(&["tenant", "create", "sales"]).await;
    assert_eq!(sales["name"], "sales");
    assert_eq!(one.runs(&["tenant", "show", "sales"]).await, sales);
    assert_eq!(one.refuses(&["tenant", "create", "sales"]).await["code"], "exists");
    assert_eq!(one.refuses(&["tenant", "create", "a/b"]).await["code"], "bad_attribute");
    let names: Vec<Value> =
        one.runs(&["tenant", "list"]).await.as_array().expect("a list").iter().map(|tenant| tenant["name"].clone()).collect();
    assert_eq!(names, ["default", "sales"]);
    let user = one.runs_with(&["--tenant", "sales", "user", "add", "a@example.com", "--admin", "--password-stdin"], "correct horse").await;
    assert_eq!((&user["admin"], &user["permissions"]), (&json!(false), &json!({ "sales": ["admin"] })));
    one.runs(&["tenant", "delete", "sales", "--yes"]).await;
    assert_eq!(one.refuses(&["tenant", "delete", "default", "--yes"]).await["code"], "in_use");
}

#[tokio::test]
async fn usage_errors_exit_2() {
    let one = Process::running("one").await;
    for arguments in [
        &["nonsense"][..],
        &["user"],
        &["user", "add"],
        &["user", "update", "ops@example.com"],
        &["tenant", "delete", "default"],
        &["user", "add", "ops@example.com"],
        &["peer", "create", "two"],
        &["peer", "create", "two", "--url", "https://two", "--client-id", "x", "--username", "y"],
        &["ib", "create", "two", "--access-ttl", "soon"],
        &["--tenant", "", "peer", "list"],
    ] {
        let outcome = one.tries(arguments, None).await;
        assert_eq!((outcome.status.code(), outcome.stdout.as_str()), (Some(2), ""), "{arguments:?}: {}", outcome.stderr);
        let error = &outcome.problem()["error"];
        assert!(error["code"] == "usage" && error["message"].is_string(), "{arguments:?}: {}", outcome.stderr);
        assert!(["found", "expected", "next"].iter().all(|member| error.get(member).is_some()), "{arguments:?}: {error}");
        if !matches!(arguments, ["user", "update" | "add", "ops@example.com"] | ["tenant", "delete", ..] | ["peer", ..]) {
            // What the parser refuses, before any command looks.
            assert!(error["found"].is_string() && error["expected"].is_string(), "{arguments:?}: {error}");
        }
        assert_eq!(one.says(arguments).await.status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(one.runs(&["--version"]).await, json!({ "version": env!("CARGO_PKG_VERSION") }));
    for arguments in [&["--help"][..], &["--version"], &["peer", "--help"]] {
        let outcome = one.says(arguments).await;
        assert!(outcome.status.success() && outcome.stdout.contains("p2pid") && outcome.stderr.is_empty(), "{arguments:?}");
    }
}

#[tokio::test]
async fn an_empty_or_long_secret_is_no_secret() {
    let one = Process::running("one").await;
    for line in ["", "two\nlines", &"x".repeat(5000)] {
        let outcome = one.tries(&["user", "add", "ops@example.com", "--password-stdin"], Some(line)).await;
        assert_eq!(outcome.status.code(), Some(2), "{}", outcome.stderr);
    }
    let outcome = one.tries(&["user", "add", "ops@example.com", "--password-stdin"], Some("short")).await;
    assert_eq!((outcome.status.code(), &outcome.problem()["error"]["code"]), (Some(1), &json!("bad_attribute")));
    assert_eq!(one.runs(&["user", "list"]).await, json!([]));
}

#[tokio::test]
async fn status_has_its_shape() {
    let one = Process::running("one").await;
    let status = one.runs(&["status"]).await;
    assert_eq!((&status["instance"], &status["version"]), (&json!("one"), &json!(env!("CARGO_PKG_VERSION"))));
    assert!(status["uptime_s"].is_u64());
    let listeners = status["listeners"].as_array().expect("a list");
    for (name, address) in [("public", one.settings.public), ("local", one.settings.local), ("console", one.settings.console)] {
        let listed = |listener: &&Value| listener["name"] == name && listener["address"] == address.to_string();
        assert!(listeners.iter().any(|listener| listed(&listener)), "{name} in {status}");
    }
    assert!(one.says(&["status"]).await.stdout.contains("one at https://"));
}

#[tokio::test]
async fn health_and_metrics_need_no_log_in_and_the_api_does() {
    let one = Process::running("one").await;
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(one.console(path).await.status(), 200, "{path}");
    }
    let metrics = one.console("/metrics").await.text();
    for name in ["p2pid_link_state", "p2pid_link_access_expires_timestamp_seconds", "p2pid_link_refresh_last_success_timestamp_seconds"] {
        assert!(metrics.lines().any(|line| line.starts_with(name) && line.ends_with(" 0")), "{name} in {metrics}");
    }
    assert!(metrics.contains("p2pid_refresh_total{") && metrics.contains("p2pid_clock_skew_seconds 0"));
    let refused = one.console("/v2/status").await;
    assert_eq!(refused.status(), 401);
    assert!(refused.header("www-authenticate").is_some_and(|challenge| challenge.starts_with("Basic ")));
}

#[tokio::test]
async fn the_socket_is_for_owner_and_group() {
    let one = Process::running("one").await;
    let socket = std::fs::metadata(one.settings.socket()).expect("it is there");
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o660);
    let state = std::fs::metadata(one.settings.state_dir()).expect("it is there");
    assert_eq!(state.permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_broken_configuration_still_finds_the_socket() {
    let one = Process::running("one").await;
    let good = std::fs::read_to_string(one.settings.config()).expect("our own file");
    std::fs::write(one.settings.config(), good.replace("[local]", "[local]\nlisten = 7\n[nonsense]")).expect("our own file");
    let outcome = one.tries(&["status"], None).await;
    assert!(outcome.status.success(), "{}", outcome.stderr);
    assert_eq!(outcome.json()["instance"], "one");
    std::fs::write(one.settings.config(), good + "\n[[[").expect("our own file");
    let outcome = one.says(&["--socket", one.settings.socket().to_str().expect("ASCII"), "status"]).await;
    assert!(outcome.status.success() && outcome.stderr.is_empty(), "{}", outcome.stderr);
}

#[tokio::test]
async fn a_daemon_that_does_not_run_says_how_to_start_it() {
    let one = Process::new("one").await;
    let error = one.refuses(&["status"]).await;
    assert_eq!(error["code"], "not_running");
    assert!(error["next"].as_str().is_some_and(|next| next.contains("run")));
    let outcome = one.says(&["status"]).await;
    assert!(outcome.stdout.is_empty() && outcome.stderr.starts_with("error: "), "{}", outcome.stderr);
}

#[tokio::test]
async fn a_wrong_configuration_ends_the_start_with_78() {
    let one = Process::new("one").await;
    one.settings.says("wrong.toml", "[limits]\nconnections = \"many\"\n");
    let outcome = one.tries(&["run"], None).await;
    assert_eq!(outcome.status.code(), Some(78), "{}", outcome.stderr);
    assert_eq!(outcome.problem()["error"]["code"], "configuration");
    assert_eq!(outcome.problem()["errors"][0]["key"], "limits.connections");
    let outcome = one.says(&["run"]).await;
    assert_eq!(outcome.status.code(), Some(78));
    assert!(outcome.stderr.contains("wrong.toml:2:15: limits.connections: found "), "{}", outcome.stderr);
}

#[tokio::test]
async fn a_command_for_the_daemon_warns_of_a_wrong_configuration_and_goes_on() {
    let one = Process::running("one").await;
    let fine = one.tries(&["ib", "list"], None).await;
    assert!(fine.status.success() && fine.stderr.is_empty(), "{}", fine.stderr);
    one.settings.says("wrong.toml", "[nonsense]\nfoo = 1\n[limits]\nconnections = \"many\"\n");
    let warned = one.tries(&["ib", "list"], None).await;
    let warning = warned.problem()["warnings"][0].as_str().unwrap_or_default().to_owned();
    let parts = ["wrong.toml:1:", "nonsense", "(and 1 more)", "p2pid check"];
    assert!(warned.status.success() && parts.iter().all(|part| warning.contains(part)), "{warning}");
}

#[tokio::test]
async fn a_second_daemon_on_the_same_state_is_refused() {
    let one = Process::running("one").await;
    let error = one.refuses(&["run"]).await;
    assert_eq!(error["code"], "locked");
    let pid = one.daemon().id().expect("it runs").to_string();
    assert!(error["found"].as_str().is_some_and(|found| found.contains(&pid)), "{error} names {pid}");
}

#[tokio::test]
async fn state_keys_are_listed_added_and_rotated() {
    let one = Process::running("one").await;
    let keys = one.runs(&["key", "list"]).await;
    assert_eq!((keys.as_array().map(Vec::len), &keys[0]["seals"]), (Some(1), &json!(true)));
    let added = one.runs(&["key", "add"]).await;
    assert!(added["id"].is_string(), "{added}");
    let rotated = one.runs(&["key", "rotate"]).await;
    assert!(rotated["resealed"].is_u64() && rotated["keys"].is_array(), "{rotated}");
    assert!(one.says(&["key", "rotate"]).await.status.success());
}

#[tokio::test]
async fn a_backup_is_made_while_it_runs_and_put_back_while_it_does_not() {
    let mut one = Process::running("one").await;
    one.runs(&["tenant", "create", "sales"]).await;
    let file = one.settings.folder().join("backup");
    let file = file.to_str().expect("ASCII");
    let made = one.runs(&["backup", file]).await;
    assert_eq!((&made["file"], made["bytes"].as_u64().is_some_and(|bytes| bytes > 0)), (&json!(file), true));
    assert_eq!(one.refuses(&["backup", file]).await["code"], "exists");
    assert_eq!(std::fs::metadata(file).expect("it is there").permissions().mode() & 0o777, 0o600);
    assert_eq!(one.refuses(&["restore", file]).await["code"], "locked");
    one.runs(&["tenant", "delete", "sales", "--yes"]).await;
    one.is_stopped().await;
    one.runs(&["restore", file]).await;
    one.starts().await;
    assert_eq!(one.runs(&["tenant", "show", "sales"]).await["name"], "sales");
}

#[tokio::test]
async fn completions_and_manual_pages_are_written() {
    let one = Process::new("one").await;
    for shell in ["bash", "zsh", "fish"] {
        assert!(one.says(&["completions", shell]).await.stdout.contains("p2pid"), "{shell}");
    }
    let folder = one.settings.folder().join("man");
    one.runs(&["man", folder.to_str().expect("ASCII")]).await;
    for page in ["p2pid.1", "p2pid-peer.1", "p2pid-peer-create.1"] {
        assert!(folder.join(page).exists(), "{page}");
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_failure() {
    let one = Process::running("one").await;
    let script = format!(
        "{} -c {} completions bash | head -c 10; exit ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_p2pid"),
        one.settings.config().display()
    );
    let outcome = tokio::process::Command::new("bash").args(["-c", &script]).output().await.expect("bash runs");
    assert_eq!((outcome.status.code(), String::from_utf8_lossy(&outcome.stderr).into_owned()), (Some(0), String::new()));
}

#[tokio::test]
async fn callers_are_managed_and_the_relay_knows_them() {
    let one = Process::running("one").await;
    let added = one.runs(&["caller", "add", "shop"]).await;
    assert_eq!(added["name"], "shop");
    let key = added["key"].as_str().expect("a key").to_owned();
    let unknown = one.relays(&key, "/two/orders").await;
    assert_eq!((unknown.status(), unknown.header("p2pi-error")), (404, Some("unknown_peer")));
    assert_eq!(one.refuses(&["caller", "add", "shop"]).await["code"], "exists");
    assert_eq!(one.refuses(&["caller", "add", "till", "--peer", "nobody"]).await["code"], "not_found");
    let rotated = one.runs(&["caller", "rotate", "shop"]).await;
    assert_eq!(one.relays(&key, "/two/orders").await.header("p2pi-error"), Some("caller_denied"));
    let key = rotated["key"].as_str().expect("a key");
    assert_eq!(one.relays(key, "/two/orders").await.header("p2pi-error"), Some("unknown_peer"));
    assert!(!one.runs(&["caller", "list"]).await.to_string().contains("p2pl_"), "a key is shown once");
    one.runs(&["caller", "delete", "shop", "--yes"]).await;
    assert_eq!(one.relays(key, "/two/orders").await.header("p2pi-error"), Some("caller_denied"));
}

#[tokio::test]
async fn a_call_to_nobody_is_refused_by_the_relay() {
    let one = Process::running("one").await;
    let error = one.refuses(&["call", "nobody", "/orders?x=1"]).await;
    assert_eq!((&error["code"], &error["next"]), (&json!("unknown_peer"), &json!("p2pid peer list")));
    assert_eq!(one.refuses(&["call", "nobody", "/"]).await["code"], "unknown_peer");
    assert!(error["message"].as_str().is_some_and(|message| message.starts_with("one refused the call")));
    assert_eq!(one.refuses(&["--tenant", "nowhere", "call", "nobody", "/"]).await["code"], "not_found");
    assert_eq!(one.refuses(&["call", "nobody", "/../admin"]).await["code"], "bad_path");
}

#[tokio::test]
async fn ib_apps_are_managed() {
    let one = Process::running("one").await;
    let made = one.runs(&["ib", "create", "two", "--peer-url", "https://two.example.com", "--scope", "p2pi", "--access-ttl", "10m"]).await;
    for (member, expected) in [
        ("tenant", json!("default")),
        ("name", json!("two")),
        ("redirect_uris", json!(["https://two.example.com/oauth/callback"])),
        ("grants", json!(["authorization_code", "refresh_token"])),
        ("scopes", json!(["p2pi"])),
        ("access_ttl", json!(600)),
    ] {
        assert_eq!(made[member], expected, "{member} in {made}");
    }
    let secret = made["client_secret"].as_str().expect("the secret is shown once");
    assert!(secret.len() >= 22 && made["client_id"].as_str().is_some_and(|id| id.len() >= 22) && made["id"].is_string());
    let shown = one.runs(&["ib", "show", "two"]).await;
    assert!(shown.get("client_secret").is_none() && shown["client_id"] == made["client_id"], "{shown}");
    assert_eq!(one.runs(&["ib", "list"]).await, json!([shown]));
    let url = "https://two.example.com";
    assert_eq!(one.refuses(&["ib", "create", "two", "--peer-url", url, "--scope", "p2pi"]).await["code"], "exists");
    assert_eq!(one.refuses(&["ib", "create", "x", "--peer-url", url, "--scope", "nowhere"]).await["code"], "bad_attribute");
    assert_eq!(one.runs(&["ib", "create", "plain", "--peer-url", url]).await["scopes"], json!(["p2pi"]), "there is no other");
    one.runs(&["ib", "delete", "plain", "--yes"]).await;
    one.runs(&["tenant", "create", "sales"]).await;
    let nothing = one.refuses(&["--tenant", "sales", "ib", "create", "x", "--peer-url", url]).await;
    assert!(nothing["next"].as_str().is_some_and(|next| next.contains("tenant = \"sales\"")), "{nothing}");
    assert_eq!(one.refuses(&["ib", "show", "nobody"]).await["code"], "not_found");
    assert_eq!(one.refuses(&["--tenant", "nowhere", "ib", "list"]).await["code"], "not_found");
    assert_eq!((&shown["rotation"], &shown["native"]), (&json!("retry_safe"), &json!(false)), "as [tokens] says");
    for (flags, expected) in [
        (["--rotation=strict", "--native"], (json!("strict"), json!(true))),
        (["--access-ttl=10m", "--scope=p2pi"], (json!("strict"), json!(true))),
        (["--rotation=none", "--native=false"], (json!("none"), json!(false))),
    ] {
        one.runs(&["ib", "update", "two", flags[0], flags[1]]).await;
        let shown = one.runs(&["ib", "show", "two"]).await;
        assert_eq!((&shown["rotation"], &shown["native"]), (&expected.0, &expected.1), "{flags:?}");
    }
    let bound = one.says(&["ib", "update", "two", "--dpop"]).await;
    assert!(bound.stderr.contains("refused from now on") && bound.stderr.contains("ib update two --dpop=false"), "{}", bound.stderr);
    let rotated = one.runs(&["ib", "rotate-secret", "two", "--overlap", "1h"]).await;
    assert!(rotated["client_secret"].is_string() && rotated["client_secret"] != made["client_secret"]);
    let given = one
        .runs_with(
            &["ib", "create", "three", "--peer-url", url, "--scope", "p2pi", "--client-id", "id-of-three", "--client-secret-stdin"],
            "a secret that was given to us",
        )
        .await;
    assert_eq!((&given["client_id"], &given["client_secret"]), (&json!("id-of-three"), &json!("a secret that was given to us")));
    assert!(!one.log().contains("given to us") && !one.log().contains(secret), "no secret in the log");
    let text = one.says(&["ib", "create", "four", "--peer-url", "https://four.example.com", "--scope", "p2pi"]).await;
    assert!(text.stdout.starts_with("client_id ") && text.stdout.contains("client_secret "), "{}", text.stdout);
    assert!(text.stderr.contains(&format!("p2pid peer create one --url {} --client-id ", one.settings.url())), "{}", text.stderr);
    one.runs(&["ib", "delete", "two", "--yes"]).await;
    assert_eq!(one.refuses(&["ib", "delete", "two", "--yes"]).await["code"], "not_found");
    assert_eq!(one.runs(&["grant", "list"]).await, json!([]));
    assert_eq!(one.refuses(&["grant", "show", "nothing"]).await["code"], "not_found");
}

#[tokio::test]
async fn ob_apps_are_managed() {
    let one = Process::running("one").await;
    let create =
        ["ob", "create", "two", "--client-id", "abc", "--issuer", "https://two.example.com", "--scope", "p2pi", "--client-secret-stdin"];
    let made = one.runs_with(&create, "the secret that two gave us").await;
    for (member, expected) in [
        ("tenant", json!("default")),
        ("name", json!("two")),
        ("component", Value::Null),
        ("client_id", json!("abc")),
        ("grant", json!("authorization_code")),
        ("scopes", json!(["p2pi"])),
        ("authorize_url", Value::Null),
        ("token_url", Value::Null),
        ("dialect", Value::Null),
    ] {
        assert_eq!(made.get(member), Some(&expected), "{member} in {made}");
    }
    assert!(!made.to_string().contains("gave us"), "the secret is never printed");
    let short = one.tries(&["ob", "update", "two", "--client-secret-stdin"], Some("short of twenty")).await;
    assert!(short.status.success() && short.problem()["warnings"][0].as_str().is_some_and(|text| text.contains("15 characters")));
    assert_eq!(one.runs(&["ob", "show", "two"]).await, made);
    assert_eq!(one.runs(&["ob", "list"]).await, json!([made]));
    let again = one.tries(&create, Some("another secret")).await;
    assert_eq!((again.status.code(), &again.problem()["error"]["code"]), (Some(1), &json!("exists")));
    assert_eq!(one.runs(&["ob", "update", "two", "--scope", "other"]).await["scopes"], json!(["other"]));
    one.runs(&["ob", "delete", "two", "--yes"]).await;
    assert_eq!(one.refuses(&["ob", "show", "two"]).await["code"], "not_found");
    assert!(!one.log().contains("gave us"), "no secret in the log");
}

#[tokio::test]
async fn peers_are_managed() {
    let (one, two) = (Process::running("one").await, Process::running("two").await);
    let (url, authority) = (two.settings.url(), two.settings.authority());
    let authority = authority.to_str().expect("ASCII");
    let create = ["peer", "create", "two", "--url", &url, "--client-id", "abc", "--scope", "p2pi", "--client-secret-stdin"];
    let untrusted = one.tries(&create, Some("the secret that two gave us")).await;
    assert_eq!((untrusted.status.code(), &untrusted.problem()["error"]["code"]), (Some(1), &json!("untrusted_certificate")));
    let next = untrusted.problem()["error"]["next"].as_str().expect("the next step").to_owned();
    let pin = next.split(' ').find(|word| word.starts_with("sha256:")).expect("the fingerprint").to_owned();
    assert_eq!(one.runs(&["peer", "list"]).await, json!([]), "nothing was half done");
    let made = one.runs_with(&[&create[..], &["--ca", authority]].concat(), "the secret that two gave us").await;
    for (member, expected) in [
        ("name", json!("two")),
        ("tenant", json!("default")),
        ("url", json!(url)),
        ("auth", json!("oauth")),
        ("ob_app", json!("two")),
        ("state", json!("ready_to_link")),
        ("token", Value::Null),
    ] {
        assert_eq!(made.get(member), Some(&expected), "{member} in {made}");
    }
    assert!(made["reason"].is_string() && made["since"].is_string() && made["base_url"].is_string(), "{made}");
    assert_eq!(one.runs(&["peer", "show", "two"]).await["state"], "ready_to_link");
    assert_eq!(one.runs(&["status"]).await["peers"]["ready_to_link"], 1);
    assert_eq!(one.refuses(&["ob", "delete", "two", "--yes"]).await["code"], "in_use");
    one.runs(&["peer", "update", "two", "--pin", &pin]).await;
    assert_eq!(one.runs(&["peer", "rename", "two", "deux"]).await["name"], "deux");
    assert_eq!(one.refuses(&["peer", "show", "two"]).await["code"], "not_found");
    assert_eq!(one.runs(&["peer", "maintenance", "deux", "--until", "2h"]).await["state"], "maintenance");
    assert_eq!(one.runs(&["peer", "maintenance", "deux", "--until", "off"]).await["state"], "ready_to_link");
    assert_eq!(one.refuses(&["peer", "refresh", "deux"]).await["code"], "not_linked");
    assert_eq!(one.refuses(&["call", "deux", "/orders"]).await["code"], "not_linked");
    let basic = one
        .runs_with(&["peer", "create", "three", "--url", &url, "--username", "us", "--password-stdin", "--ca", authority], "their password")
        .await;
    assert_eq!(basic["auth"], "basic");
    let doctor = one.says(&["doctor"]).await;
    assert!(doctor.status.success() && doctor.stdout.contains("peer deux"), "{}{}", doctor.stdout, doctor.stderr);
    one.runs(&["peer", "delete", "deux", "--yes"]).await;
    assert!(!one.log().contains("gave us") && !one.log().contains("their password"), "no secret in the log");
}

#[tokio::test]
async fn the_console_knows_people_by_their_keys_and_keeps_other_pages_out() {
    let one = Process::running("one").await;
    one.runs_with(&["user", "add", "ops@example.com", "--permission", "peers.get", "--password-stdin"], "correct horse").await;
    let key = one.runs(&["user", "key", "ops@example.com", "--name", "laptop"]).await["api_key"].as_str().expect("a key").to_owned();
    let basic = |login: &str, key: &str| format!("Basic {}", STANDARD.encode(format!("{login}:{key}")));
    let host = one.settings.console.to_string();
    let good = basic("ops@example.com", &key);
    for (target, headers, status) in [
        ("/v2/status", vec![("Authorization", good.clone())], 200),
        ("/v2/tenants/default/peers", vec![("Authorization", good.clone())], 200),
        ("/v2/tenants/default/ib-apps", vec![("Authorization", good.clone())], 403),
        ("/v2/tenants/other/peers", vec![("Authorization", good.clone())], 404),
        ("/v2/users", vec![("Authorization", good.clone())], 403),
        ("/v2/status", vec![("Authorization", basic("other@example.com", &key))], 401),
        ("/v2/status", vec![("Authorization", basic("ops@example.com", "correct horse"))], 401),
        ("/v2/status", vec![("Authorization", format!("Bearer {key}"))], 401),
        ("/v2/status", vec![("Authorization", good.clone()), ("Origin", "https://evil.example.com".to_owned())], 403),
        ("/livez", vec![("Sec-Fetch-Site", "cross-site".to_owned())], 403),
    ] {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = Wire::plain(one.settings.console).await.asks(request("GET", target, &host, &headers, "")).await;
        assert_eq!(answer.status(), status, "{target} {headers:?}: {}", answer.text());
    }
    let says = async |authorization: Option<String>| {
        let headers: Vec<(&str, &str)> = authorization.as_deref().map(|value| ("Authorization", value)).into_iter().collect();
        let answer = Wire::plain(one.settings.console).await.asks(request("GET", "/v2/status", &host, &headers, "")).await;
        answer.json()["errors"][0]["detail"].as_str().expect("words").to_owned()
    };
    assert_eq!(says(None).await, "this needs a log-in");
    assert_eq!(says(Some(format!("Bearer {key}"))).await, "this log-in cannot be read");
    one.runs(&["user", "key-revoke", "ops@example.com", "laptop", "--yes"]).await;
    for wrong in [basic("ops@example.com", "correct horse"), basic("nobody@example.com", &key), good.clone()] {
        let said = says(Some(wrong)).await;
        assert_eq!(said, "this login and key are not good: unknown, mistyped, expired or revoked", "the same of all");
    }
    let rebound = Wire::plain(one.settings.console).await.asks(request("GET", "/metrics", "evil.example.com", &[], "")).await;
    assert_eq!((rebound.status(), rebound.json()["errors"][0]["code"].as_str()), (403, Some("browser_refused")));
}

#[tokio::test]
async fn waiting_for_a_link_ends_with_it() {
    let mut pair = Pair::introduced("1h").await;
    let (mut waiting, url) = waits(&pair.one, &[]).await;
    let page = pair.operator.opens(&url).continues().logs_in().allows().await;
    assert_eq!(page.status, 200);
    let mut told = String::new();
    waiting.stderr.take().expect("a pipe").read_to_string(&mut told).await.expect("text");
    assert!(waiting.wait().await.expect("it ends").success(), "{told}");
    assert!(told.contains("as somebody with an account on two") && told.contains("allowed by operator@two.example … linked."), "{told}");
    assert!(told.contains("The token lives 1h and is renewed by itself."), "{told}");
}

#[tokio::test]
async fn waiting_for_a_link_that_is_declined_exits_1() {
    let mut pair = Pair::introduced("1h").await;
    let (waiting, url) = waits(&pair.one, &["--json"]).await;
    pair.operator.opens(&url).continues().logs_in().declines().await;
    let ended = waiting.wait_with_output().await.expect("it ends");
    let error: Value = serde_json::from_slice(&ended.stderr).expect("one document");
    assert_eq!((ended.status.code(), &error["error"]["code"]), (Some(1), &json!("declined")));
    assert!(error["error"]["message"].as_str().is_some_and(|told| told.contains("operator@two.example declined")), "{error}");
    // The URL has been printed when the wait ends, and stays good.
    let outcome = pair.one.tries(&["peer", "request", "two", "--wait", "--timeout", "100ms"], None).await;
    assert_eq!((outcome.status.code(), &outcome.problem()["error"]["code"]), (Some(1), &json!("timeout")));
    assert!(outcome.json()["url"].is_string() && outcome.json()["expires_at"].is_string());
}

#[tokio::test]
async fn waiting_for_a_link_ends_when_a_newer_request_url_takes_its_place() {
    let pair = Pair::introduced("1h").await;
    let (waiting, _) = waits(&pair.one, &["--json"]).await;
    pair.one.runs(&["peer", "request", "two"]).await;
    let ended = waiting.wait_with_output().await.expect("it ends");
    let error: Value = serde_json::from_slice(&ended.stderr).expect("one document");
    assert_eq!((ended.status.code(), &error["error"]["code"]), (Some(1), &json!("replaced")), "{error}");
}

/// `peer request two --wait`, and the URL that it printed.
async fn waits(one: &Process, options: &[&str]) -> (Child, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_p2pid"));
    command.arg("-c").arg(one.settings.config()).args(["peer", "request", "two", "--wait", "--timeout", "60s"]).args(options);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null()).spawn().expect("the binary can be started");
    let mut line = String::new();
    let stdout = child.stdout.as_mut().expect("a pipe");
    BufReader::new(stdout).read_line(&mut line).await.expect("a line");
    let url = serde_json::from_str::<Value>(&line).ok().and_then(|document| document["url"].as_str().map(str::to_owned));
    (child, url.unwrap_or_else(|| line.trim().to_owned()))
}

#[tokio::test]
async fn a_linked_peer_is_called_refreshed_and_unlinked() {
    let pair = Pair::linked("1h").await;
    let answer = pair.one.runs(&["call", "two", "/orders?x=1"]).await;
    assert_eq!((&answer["status"], answer["elapsed_ms"].is_u64()), (&json!(200), true), "{answer}");
    assert!(answer["body"].as_str().is_some_and(|body| body.contains("/orders")), "{answer}");
    let text = pair.one.says(&["call", "two", "/orders", "-X", "POST", "-d", "{}", "-H", "X-Test: 1"]).await;
    assert!(text.status.success() && text.stdout.contains("POST"), "{}{}", text.stdout, text.stderr);
    assert!(text.stderr.starts_with("200 in ") && text.stderr.ends_with(" ms\n"), "{}", text.stderr);
    assert_eq!(pair.one.refuses(&["call", "two", "/../x"]).await["code"], "bad_path");
    let peer = pair.one.runs(&["peer", "show", "two"]).await;
    let members: Vec<&str> = peer["token"].as_object().expect("a token").keys().map(String::as_str).collect();
    assert_eq!(members, ["expires_at", "issued_at", "refreshable", "scope", "type"]);
    assert!(!peer.to_string().contains("p2pa_") && !peer.to_string().contains("p2pr_"));
    let grant = &pair.two.runs(&["grant", "list"]).await[0];
    assert_eq!((&grant["app"], &grant["scope"], &grant["allowed_by"]), (&json!("one"), &json!("p2pi"), &json!("operator@two.example")));
    let client = grant["client_id"].as_str().expect("a client id");
    pair.two.runs(&["ib", "create", "unused", "--peer-url", "https://unused.example"]).await;
    pair.two.runs_with(&["user", "add", "other@two.example", "--password-stdin"], "correct horse battery").await;
    for (filter, count) in [
        (&["--app", "one"][..], 1),
        (&["--app", client, "--allowed-by", "operator@two.example"], 1),
        (&["--app", "unused"], 0),
        (&["--allowed-by", "other@two.example", "--all"], 0),
    ] {
        let found = pair.two.runs(&[&["grant", "list"], filter].concat()).await;
        assert_eq!(found.as_array().map(Vec::len), Some(count), "{filter:?}: {found}");
    }
    assert_eq!(pair.one.runs(&["peer", "refresh", "two"]).await["state"], "linked");
    assert_eq!(pair.one.runs(&["status"]).await["peers"]["linked"], 1);
    let metrics = pair.one.console("/metrics").await.text();
    assert!(metrics.contains("p2pid_link_state{peer=\"two\",state=\"linked\"} 1"), "{metrics}");
    assert!(metrics.contains("p2pid_refresh_total{peer=\"two\",result=\"success\",reason=\"\"} 1"), "{metrics}");
    assert_eq!(
        pair.one.runs(&["doctor", "two"]).await["checks"]
            .as_array()
            .map(|checks| checks.iter().all(|check| check["result"] == "ok" || check["check"] == "open files")),
        Some(true)
    );
    let id = grant["id"].as_str().expect("an id");
    let in_use = pair.two.refuses(&["ib", "delete", "one", "--yes"]).await;
    assert!(in_use["code"] == "in_use" && in_use["message"].as_str().is_some_and(|message| message.contains(id)), "{in_use}");
    assert!(in_use["next"].as_str().is_some_and(|next| next.starts_with(&format!("p2pid grant revoke {id}"))), "{in_use}");
    pair.two.runs(&["grant", "revoke", id, "--yes"]).await;
    assert_eq!(pair.two.runs(&["grant", "list"]).await, json!([]));
    assert_eq!(pair.two.runs(&["grant", "list", "--all"]).await[0]["ended_why"], "revoked_by_admin");
    assert_eq!(pair.two.runs(&["grant", "show", id]).await["ended_why"], "revoked_by_admin");
    pair.two.runs(&["ib", "delete", "one", "--yes"]).await;
    let unlinked = pair.one.runs(&["peer", "unlink", "two", "--yes"]).await;
    assert!(unlinked["token"].is_null() && unlinked["revocation"].is_string() && unlinked.get("probe").is_none(), "{unlinked}");
    assert_eq!(pair.one.refuses(&["call", "two", "/orders"]).await["code"], "not_linked");
}
