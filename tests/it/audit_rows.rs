//! The rows of the audit, as operators read them: who did what to which record, from where; through crashes, restarts and floods.

mod kept;
mod people;
mod tokens;

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use p2pid::audit::{Actor, Origin};
use p2pid::store::audit::acting;
use p2pid::store::{Store, Transaction, tenant};
use p2pid::system::SystemClock;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::world::message::Message;
use crate::world::node::Node;
use crate::world::pair::Pair;
use crate::world::patience::{eventually, within};
use crate::world::process::Process;
use crate::world::settings::request;
use crate::world::wire::Wire;

impl Process {
    /// All rows that a command selects.
    async fn audit(&self, arguments: &[&str]) -> Vec<Value> {
        let rows = self.runs(&[&["audit", "--limit", "10000"], arguments].concat()).await;
        rows.as_array().unwrap_or_else(|| panic!("no list: {rows}")).clone()
    }

    /// The actions of the rows behind the first `known`.
    async fn actions_behind(&self, known: usize) -> Vec<String> {
        self.audit(&[]).await[known..].iter().map(|row| row["action"].as_str().unwrap_or_default().to_owned()).collect()
    }

    async fn posts_form(&self, path: &str, from: &str, form: &[(&str, &str)]) -> Message {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("X-Forwarded-For", from)];
        let mut wire = Wire::tls(self.settings.public, &self.settings.authority()).await;
        wire.asks(request("POST", path, &self.settings.public.to_string(), &headers, &body)).await
    }
}

/// The newest row of that action, once it is there. It names its request, and holds none of the secrets.
async fn row_of(node: &Node, action: &str, secrets: &[&str]) -> Value {
    let row = eventually(&format!("a row of {action}"), async || node.audit(&format!("action={action}")).await.pop()).await;
    assert!(row["request_id"].is_string(), "{row}");
    let text = row.to_string();
    assert!(secrets.iter().all(|secret| !secret.is_empty() && !text.contains(secret)), "{text}");
    row
}

/// How it ended, who did it, what to, whose that is, and from where.
fn told(row: &Value) -> Value {
    let names = ["outcome", "actor_kind", "actor", "record_kind", "record_name", "tenant", "address"];
    names.iter().map(|name| row[name].clone()).collect()
}

fn uid() -> String {
    format!("uid {}", rustix::process::getuid().as_raw())
}

#[tokio::test]
async fn every_change_by_an_operator_is_a_row() {
    let one = Process::running("one").await;
    let nowhere = "https://127.0.0.1:1";
    let secret = "a-secret-of-20-chars!";
    let table: &[(&[&str], &str, &str, &str)] = &[
        (&["tenant", "create", "sales"], "", "tenant.created", "sales"),
        (&["user", "add", "ops@one.example", "--password-stdin"], "correct horse battery", "user.created", "ops@one.example"),
        (&["user", "update", "ops@one.example", "--permission", "peers.get"], "", "user.updated", "ops@one.example"),
        (&["user", "key", "ops@one.example"], "", "user.key_made", "ops@one.example"),
        (&["user", "key-revoke", "ops@one.example", "key", "--yes"], "", "user.key_revoked", "ops@one.example"),
        (&["role", "create", "reader", "--permission", "peers.get"], "", "role.created", "reader"),
        (&["role", "update", "reader", "--add-permission", "peers.edit"], "", "role.updated", "reader"),
        (&["role", "delete", "reader", "--yes"], "", "role.deleted", "reader"),
        (&["ib", "create", "shop", "--redirect-uri", "https://shop.example/done", "--scope", "p2pi"], "", "ib_app.created", "shop"),
        (&["ib", "update", "shop", "--access-ttl", "5m"], "", "ib_app.updated", "shop"),
        (&["ib", "rotate-secret", "shop"], "", "ib_app.secret_rotated", "shop"),
        (
            &["ob", "create", "three", "--client-id", "abc", "--issuer", "https://three.example.com", "--client-secret-stdin"],
            secret,
            "ob_app.created",
            "three",
        ),
        (&["ob", "update", "three", "--scope", "other"], "", "ob_app.updated", "three"),
        (&["ob", "update", "three", "--auth-method", "private_key_jwt"], "", "ob_app.updated", "three"),
        (&["ob", "rotate-key", "three", "--overlap", "1h"], "", "ob_app.key_rotated", "three"),
        (&["peer", "create", "four", "--url", nowhere, "--username", "us", "--password-stdin"], secret, "peer.created", "four"),
        (&["peer", "update", "four", "--base-url", "https://127.0.0.1:1/api"], "", "peer.updated", "four"),
        (&["peer", "maintenance", "four", "--until", "2100-01-01T00:00:00Z"], "", "peer.maintenance", "four"),
        (&["peer", "rename", "four", "five"], "", "peer.renamed", "five"),
        (&["peer", "unlink", "five", "--yes"], "", "peer.unlinked", "five"),
        (&["peer", "delete", "five", "--yes"], "", "peer.deleted", "five"),
        (&["ob", "delete", "three", "--yes"], "", "ob_app.deleted", "three"),
        (&["caller", "add", "till"], "", "caller.created", "till"),
        (&["caller", "add", "till", "--or-update"], "", "caller.updated", "till"),
        (&["caller", "rotate", "till"], "", "caller.key_rotated", "till"),
        (&["caller", "delete", "till", "--yes"], "", "caller.deleted", "till"),
        (&["realm", "create", "Orders"], "", "realm.created", "Orders"),
        (&["realm", "update", "Orders", "--key-stdin"], secret, "realm.updated", "Orders"),
        (&["realm", "role", "Orders", "READER"], "", "realm.role_put", "Orders"),
        (&["realm", "assign", "Orders", "ops@one.example", "READER"], "", "realm.role_assigned", "Orders"),
        (&["realm", "unassign", "Orders", "ops@one.example", "READER"], "", "realm.role_unassigned", "Orders"),
        (&["realm", "role", "Orders", "READER", "--delete", "--yes"], "", "realm.role_deleted", "Orders"),
        (&["realm", "delete", "Orders", "--yes"], "", "realm.deleted", "Orders"),
        (&["key", "add"], "", "state_key.added", ""),
        (&["key", "rotate"], "", "state_key.rotated", ""),
        (&["ib", "delete", "shop", "--yes"], "", "ib_app.deleted", "shop"),
        (&["user", "delete", "ops@one.example", "--yes"], "", "user.deleted", "ops@one.example"),
        (&["tenant", "delete", "sales", "--yes"], "", "tenant.deleted", "sales"),
        (&["reload"], "", "config.reloaded", ""),
    ];
    for (command, line, action, name) in table {
        let known = one.audit(&[]).await.len();
        let outcome = one.tries(command, (!line.is_empty()).then_some(*line)).await;
        assert!(outcome.status.success(), "{command:?}: {}", outcome.stderr);
        let rows = one.audit(&[]).await;
        let [row] = &rows[known..] else { panic!("one row for {command:?}: {:?}", &rows[known..]) };
        let told = [&row["action"], &row["actor_kind"], &row["actor"], &row["outcome"]].map(|value| value.as_str().unwrap_or_default());
        assert_eq!(told, [*action, "process", &uid(), "done"], "{command:?}: {row}");
        assert!(name.is_empty() || row["record_name"] == **name, "{command:?}: {row}");
        assert!(row["request_id"].is_string(), "{row}");
        let text = row.to_string();
        assert!(line.is_empty() || !text.contains(line), "{text}");
    }
    let made = &one.audit(&["--action", "user.created"]).await[0];
    assert!(made["details"]["given"].to_string().contains("\"password\""), "what was given is named: {made}");
    let rotated = &one.audit(&["--action", "ob_app.key_rotated"]).await[0]["details"];
    let (key, from) = (rotated["key"].as_str().unwrap_or_default(), rotated["signs_from"].as_str().unwrap_or_default());
    assert!(rotated["overlap_s"] == 3600 && key.len() == 43 && from.ends_with('Z'), "{rotated}");
    assert_eq!(one.audit(&["--action", "admin.changed"]).await, Vec::<Value>::new(), "each has an action of its own");
    // What is refused, or only looks, is no row.
    let known = one.audit(&[]).await.len();
    one.refuses(&["peer", "unlink", "nobody", "--yes"]).await;
    one.runs(&["status"]).await;
    assert_eq!(one.actions_behind(known).await, Vec::<String>::new());
    // Ids have no gaps, and times do not go back.
    let rows = one.audit(&[]).await;
    assert!(rows.iter().enumerate().all(|(position, row)| row["id"] == json!(position + 1)), "{rows:?}");
    assert_eq!(one.audit(&["--record", "shop"]).await.len(), 4);
    assert_eq!(one.audit(&["--action", "tenant,caller.deleted"]).await.len(), 3);
    assert_eq!(one.runs(&["audit", "--since", "1h", "--limit", "2"]).await.as_array().map(Vec::len), Some(2));
    assert_eq!(one.refuses(&["audit", "--action", "pear"]).await["code"], "bad_attribute");
    let said = one.says(&["audit", "--action", "tenant"]).await;
    assert!(said.stdout.contains("tenant.created") && said.stdout.starts_with("AT "), "{}", said.stdout);
}

#[tokio::test]
async fn a_link_is_told_of_on_both_sides_and_through_stop_backup_and_restore() {
    let mut pair = Pair::introduced("1h").await;
    let (one, two) = (pair.one.audit(&[]).await.len(), pair.two.audit(&[]).await.len());
    let password = std::mem::replace(&mut pair.operator.password, "wrong horse battery".to_owned());
    let url = pair.request_url().await;
    let page = pair.operator.opens(&url).continues().logs_in().await;
    assert_eq!(page.status, 401, "{}", page.text());
    pair.operator.password = password;
    eventually("the failed log-in", async || (!pair.two.audit(&["--action", "login.failed"]).await.is_empty()).then_some(())).await;
    let page = pair.operator.goes_on_from(&page).logs_in().allows().await;
    assert_eq!(page.status, 200, "{}", page.text());
    assert_eq!(pair.one.actions_behind(one).await, ["peer.requested", "handshake.begun", "peer.linked"]);
    assert_eq!(pair.two.actions_behind(two).await, ["login.failed", "login.succeeded", "consent.allowed", "code.redeemed"]);
    let rows = pair.two.audit(&[]).await[two..].to_vec();
    let login = pair.operator.login.as_str();
    assert_eq!([&rows[0]["actor"], &rows[0]["record_name"], &rows[0]["outcome"]], ["unknown", login, "refused"], "{rows:?}");
    assert_eq!([&rows[2]["actor_kind"], &rows[2]["actor"], &rows[2]["record_name"]], ["session", login, "one"], "{rows:?}");
    assert_eq!([&rows[3]["actor_kind"], &rows[3]["record_kind"]], ["client", "grant"], "{rows:?}");
    assert!(rows.iter().all(|row| row["address"].is_string()), "{rows:?}");

    // Refreshes and calls are ordinary. What ends a link is not.
    let (one, two) = (pair.one.audit(&[]).await.len(), pair.two.audit(&[]).await.len());
    pair.one.runs(&["peer", "refresh", "two"]).await;
    assert_eq!(pair.calls().await, 200);
    assert_eq!(pair.one.actions_behind(one).await, ["peer.refresh_asked"]);
    assert_eq!(pair.two.actions_behind(two).await, Vec::<String>::new());
    let grant = pair.two.runs(&["grant", "list"]).await[0]["id"].as_str().expect("an id").to_owned();
    pair.two.runs(&["grant", "revoke", &grant, "--yes"]).await;
    assert_eq!(pair.two.actions_behind(two).await, ["grant.ended"]);
    pair.one.tries(&["peer", "refresh", "two"], None).await;
    assert_eq!(pair.one.actions_behind(one + 1).await, ["peer.refresh_asked", "peer.relink_required"]);
    // The session is still there.
    let url = pair.request_url().await;
    assert_eq!(pair.operator.opens(&url).continues().allows().await.status, 200);
    let two = pair.two.audit(&[]).await.len();
    pair.one.runs(&["peer", "unlink", "two", "--yes"]).await;
    let ended = &pair.two.audit(&[]).await[two..];
    assert_eq!([&ended[0]["action"], &ended[0]["actor_kind"]], ["grant.ended", "client"], "{ended:?}");
    assert_eq!(ended[0]["details"]["reason"], "revoked_by_client");

    let known = pair.two.audit(&[]).await.len();
    let file = pair.two.settings.folder().join("copy");
    let file = file.to_string_lossy().into_owned();
    assert_eq!(pair.two.runs(&["backup", &file]).await["audited"], true);
    pair.two.is_stopped().await;
    pair.two.starts().await;
    assert_eq!(pair.two.actions_behind(known).await, ["backup.made", "daemon.stopped", "daemon.started"]);
    pair.two.is_stopped().await;
    pair.two.runs(&["restore", &file]).await;
    pair.two.starts().await;
    assert_eq!(pair.two.actions_behind(known).await, ["backup.restored", "epoch.begun", "daemon.started"]);
    let restored = &pair.two.audit(&["--action", "backup.restored"]).await[0];
    assert_eq!(restored["actor"], uid(), "{restored}");
}

#[tokio::test]
async fn a_peer_whose_tokens_are_bound_no_more_is_told_of_once() {
    let mut pair = Pair::linked("1h").await;
    let kind = async |pair: &Pair| pair.one.runs(&["peer", "show", "two"]).await["token"]["type"].clone();
    assert_eq!(kind(&pair).await, "DPoP");
    pair.one.runs(&["peer", "update", "two", "--dpop", "off"]).await;
    let url = pair.request_url().await;
    assert_eq!(pair.operator.opens(&url).continues().allows().await.status, 200);
    for _ in 0..2 {
        assert_eq!(kind(&pair).await, "Bearer");
        let rows = pair.one.audit(&["--action", "peer.tokens_unbound"]).await;
        let [row] = &rows[..] else { panic!("one row: {rows:?}") };
        assert_eq!([&row["record_kind"], &row["record_name"], &row["details"]["dpop"]], ["peer", "two", "off"], "{row}");
        eventually("a line in the log", async || (pair.one.log().matches("peer.tokens_unbound").count() == 1).then_some(())).await;
        pair.one.runs(&["peer", "refresh", "two"]).await;
    }
}

#[tokio::test]
async fn a_changed_configuration_says_which_tables_changed_and_who_was_not_asked() {
    let one = Process::running("one").await;
    one.settings.says("a.toml", "[limits]\ndrain = \"5s\"\n[tokens]\naccess_ttl = \"2h\"\n");
    let found = eventually("the reload", async || one.audit(&["--action", "config.reloaded"]).await.pop()).await;
    assert_eq!((&found["actor_kind"], &found["details"]["changed"]), (&json!("daemon"), &json!(["tokens", "limits"])), "{found}");
    one.settings.says("a.toml", "[limits]\ndrain = 5\n");
    let found = eventually("the refusal", async || one.audit(&["--action", "config.refused"]).await.pop()).await;
    assert!(found["details"]["reason"].as_str().is_some_and(|reason| reason.contains("drain")), "{found}");
}

#[tokio::test]
async fn c1_after_kill_9_there_are_a_change_and_its_row_or_neither() {
    let mut one = Process::running("one").await;
    for round in 0..3 {
        let socket = one.settings.folder().join("state/admin.sock");
        let makes = (0..200).map(|number| {
            let socket = socket.clone();
            tokio::spawn(async move {
                let document = json!({ "data": { "type": "tenant", "attributes": { "name": format!("t{round}-{number}") } } }).to_string();
                let text = request("POST", "/v2/tenants", "p2pid", &[("Content-Type", "application/json")], &document);
                let Ok(mut stream) = tokio::net::UnixStream::connect(socket).await else { return };
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, text.as_bytes()).await;
                let _ = tokio::io::AsyncReadExt::read_u8(&mut stream).await;
            })
        });
        let makes: Vec<_> = makes.collect();
        // In the middle of it.
        eventually("some of them", async || (one.audit(&["--action", "tenant.created"]).await.len() > round * 10).then_some(())).await;
        one.is_killed().await;
        for make in makes {
            make.await.expect("no panic");
        }
        one.starts().await;
        let names = |rows: &[Value], name: &str| rows.iter().map(|row| row[name].as_str().unwrap_or_default().to_owned()).collect();
        let tenants = one.runs(&["tenant", "list"]).await.as_array().expect("a list").clone();
        let mut tenants: BTreeSet<String> = names(&tenants, "name");
        tenants.remove("default");
        let told: BTreeSet<String> = names(&one.audit(&["--action", "tenant.created"]).await, "record_name");
        assert_eq!(tenants, told, "round {round}");
        assert!(!told.is_empty());
    }
}

#[tokio::test]
async fn c1_a_consent_that_a_daemon_died_with_is_told_of() {
    let mut pair = Pair::introduced("1h").await;
    pair.two.is_stopped().await;
    pair.two.starts_to_die_at("code_issued").await;
    let url = pair.request_url().await;
    let page = pair.operator.opens(&url).continues().logs_in().await;
    let allowed = page.form_with("decision").and_then(|form| form.press("decision", "allow")).expect("the page asks for a decision");
    pair.operator.browser.follow(allowed).await.expect_err("the daemon dies before it answers");
    pair.two.dies().await;
    pair.two.starts().await;
    assert_eq!(pair.two.audit(&["--action", "consent"]).await.len(), 1);
}

#[tokio::test]
async fn an_admin_of_a_tenant_reads_the_rows_of_that_tenant_only() {
    let one = Process::new("one").await;
    one.settings.says("scopes.toml", "[scopes]\nsales-api = { text = \"Sales\", tenant = \"sales\" }\n");
    let mut one = one;
    one.starts().await;
    one.runs(&["tenant", "create", "sales"]).await;
    let uri = "https://shop.example/done";
    one.runs(&["--tenant", "sales", "ib", "create", "ours", "--redirect-uri", uri, "--scope", "sales-api"]).await;
    one.runs(&["ib", "create", "theirs", "--redirect-uri", uri, "--scope", "p2pi"]).await;
    let add = ["--tenant", "sales", "user", "add", "boss@one.example", "--admin", "--password-stdin"];
    one.runs_with(&add, "correct horse battery").await;
    let key = one.runs(&["user", "key", "boss@one.example"]).await["api_key"].as_str().expect("a key").to_owned();
    let asks = async |key: &str, target: &str| {
        let basic = format!("Basic {}", STANDARD.encode(format!("boss@one.example:{key}")));
        let host = one.settings.console.to_string();
        let mut wire = Wire::plain(one.settings.console).await;
        wire.asks(request("GET", target, &host, &[("Authorization", &basic)], "")).await
    };
    let names = |answer: &Message| {
        let document = answer.json();
        let rows = document["data"].as_array().unwrap_or_else(|| panic!("{document}")).clone();
        rows.iter().map(|row| row["attributes"]["record_name"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    // Its records, and who rules it.
    assert_eq!(names(&asks(&key, "/v2/audit").await), ["ours", "boss@one.example"]);
    assert_eq!(names(&asks(&key, "/v2/audit?tenant=sales&record=ours").await), ["ours"]);
    assert_eq!(names(&asks(&key, "/v2/audit?record=theirs").await), Vec::<String>::new());
    assert_eq!(asks(&key, "/v2/audit?tenant=default").await.status(), 404);
    assert_eq!(asks(&key, "/v2/audit?tenants=default").await.status(), 400);
    assert_eq!(one.audit(&[]).await.iter().filter(|row| row["tenant"] == "sales").count(), 2);

    // What it may not do, and a wrong key, are told of.
    assert_eq!(asks(&key, "/v2/users").await.status(), 403);
    let denied = eventually("the denial", async || one.audit(&["--action", "admin.denied"]).await.pop()).await;
    assert_eq!([&denied["actor_kind"], &denied["actor"], &denied["outcome"]], ["api_key", "boss@one.example", "refused"], "{denied}");
    // One refusal hides no other of another kind.
    let denials = async |count: usize| {
        let seen = async || Some(one.audit(&["--action", "admin.denied"]).await).filter(|rows| rows.len() == count);
        eventually(&format!("{count} denials"), seen).await.iter().map(|row| row["details"]["request"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(asks(&key, "/v2/users/nobody").await.status(), 403);
    assert_eq!(asks(&key, "/v2/tenants/default/peers").await.status(), 404);
    assert_eq!(denials(2).await, ["GET users", "GET tenants/default/peers"]);
    let refused = asks("p2pk_wrong", "/v2/audit").await;
    assert_eq!(refused.status(), 401);
    let failed = eventually("the wrong key", async || one.audit(&["--action", "api_key.failed"]).await.pop()).await;
    assert_eq!([&failed["actor_kind"], &failed["record_name"]], ["unknown", "boss@one.example"], "{failed}");
    let named = refused.header("p2pi-request-id");
    assert!(named.is_some() && failed["request_id"].as_str() == named, "{named:?} {failed}");
    one.runs(&["user", "update", "boss@one.example", "--tenant", "sales", "--permission", "peers.get", "--no-admin"]).await;
    assert_eq!(asks(&key, "/v2/audit").await.status(), 403);
    assert_eq!(denials(3).await[2], "GET audit", "which only its handler refuses");
}

#[tokio::test]
async fn a_flood_is_a_row_and_a_number() {
    let mut one = Process::new("one").await;
    one.settings.says("a.toml", "[public]\ntrusted_proxies = [\"127.0.0.0/8\"]\n");
    one.starts().await;
    let create = ["ib", "create", "shop", "--client-id", "shop", "--redirect-uri", "https://shop.example/done", "--scope", "p2pi"];
    one.runs(&create).await;
    for attempt in 0..15 {
        let secret = format!("a wrong secret {attempt}");
        let form = [("grant_type", "client_credentials"), ("client_id", "shop"), ("client_secret", &secret)];
        assert_eq!(one.posts_form("/oauth/token", "192.0.2.1", &form).await.status(), 401);
    }
    for attempt in 0..10 {
        let client_id = format!("nobody{attempt}");
        let form = [("grant_type", "client_credentials"), ("client_id", client_id.as_str()), ("client_secret", "x")];
        assert_eq!(one.posts_form("/oauth/token", "192.0.2.2", &form).await.status(), 401);
    }
    let rows = eventually("both", async || {
        let rows = one.audit(&["--action", "client.failed"]).await;
        (rows.len() >= 2).then_some(rows)
    })
    .await;
    let told = |rows: &[Value]| {
        let told = |row: &Value| (row["record_name"].clone(), row["address"].clone(), row["details"]["times"].clone());
        rows.iter().map(told).collect::<Vec<_>>()
    };
    let (here, there) = (json!("192.0.2.1"), json!("192.0.2.2"));
    let first: Vec<_> = told(&rows).into_iter().map(|(name, address, _)| (name, address)).collect();
    assert_eq!(first, [(json!("shop"), here.clone()), (Value::Null, there.clone())]);
    let claimed = |row: &Value| row["details"]["claimed_client_id"].clone();
    assert_eq!((claimed(&rows[0]), claimed(&rows[1])), (Value::Null, json!("nobody0")), "who is known has a record");
    one.is_stopped().await;
    one.starts().await;
    let rows = one.audit(&["--action", "client.failed"]).await;
    assert!(rows[2..].iter().all(|row| claimed(row).is_null()), "the rest claimed this and that: {rows:?}");
    let rest = told(&rows[2..]);
    let times = |of: &Value| {
        let all = told(&rows).into_iter().filter(|(_, address, _)| address == of);
        all.map(|(_, _, times)| times.as_u64().unwrap_or(1)).sum::<u64>()
    };
    assert_eq!((rest.len(), times(&here), times(&there)), (2, 15, 10), "the stop tells the rest: {rows:?}");
}

#[tokio::test]
async fn a_change_that_no_code_tells_of_is_a_row_all_the_same() {
    let mut one = Process::running("one").await;
    let known = one.audit(&[]).await.len();
    one.is_stopped().await;
    // As a handler that forgets: it changes something, for somebody, and says nothing.
    let store = Store::open(&one.settings.state_dir(), None, Arc::new(SystemClock::new())).expect("nobody else has it open");
    let origin = Origin::new(Actor::Process { uid: 7 }, "192.0.2.1".parse().ok(), Some("r1".to_owned()));
    let forgetful = |transaction: &Transaction<'_>| tenant::insert(transaction, "sales", transaction.now().wall);
    acting(origin.changing("POST tenants".to_owned()), store.write(forgetful)).await.expect("written");
    store.close().await;
    one.starts().await;
    assert_eq!(one.actions_behind(known).await.iter().filter(|action| *action == "admin.changed").count(), 1);
    let row = &one.audit(&["--action", "admin.changed"]).await[0];
    assert_eq!(told(row), json!(["done", "process", "uid 7", null, null, null, "192.0.2.1"]), "{row}");
    assert_eq!((&row["request_id"], &row["details"]), (&json!("r1"), &json!({ "request": "POST tenants" })), "{row}");
}

/// `p2pid audit --follow --json`, line by line.
struct Follower {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Follower {
    fn of(process: &Process, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_p2pid"));
        command.arg("-c").arg(process.settings.config()).args(["audit", "--follow", "--json", "--action", "tenant"]).args(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn().expect("the binary can be started");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { _child: child, lines }
    }

    async fn next(&mut self) -> String {
        let line = within("the next row", self.lines.next_line()).await.expect("a line").expect("it goes on");
        let row: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        row["record_name"].as_str().unwrap_or_default().to_owned()
    }
}

#[tokio::test]
async fn rights_that_are_given_and_taken_are_named_and_told_to_their_tenant() {
    let one = Process::running("one").await;
    one.runs(&["tenant", "create", "sales"]).await;
    one.runs(&["--tenant", "sales", "role", "create", "reader", "--permission", "peers.get", "--permission", "grants.get"]).await;
    one.runs(&["--tenant", "sales", "role", "update", "reader", "--add-permission", "admin"]).await;
    let add = ["--tenant", "sales", "user", "add", "m@sales.example", "--role", "reader", "--permission", "links.approve"];
    one.runs_with(&[&add[..], &["--password-stdin"]].concat(), "correct horse").await;
    one.runs(&["--tenant", "sales", "user", "update", "m@sales.example", "--admin", "--no-role", "reader"]).await;
    one.runs(&["user", "update", "m@sales.example", "--admin"]).await;
    let rows = one.audit(&["--action", "user,role"]).await;
    let told: Vec<Value> = rows
        .iter()
        .map(|row| {
            let mut details = row["details"].clone();
            details.as_object_mut().expect("an object").remove("given");
            json!([row["action"], row["tenant"], details])
        })
        .collect();
    assert_eq!(
        told,
        [
            json!(["role.created", "sales", { "permissions": ["grants.get", "peers.get"] }]),
            json!(["role.updated", "sales", { "permissions": ["admin", "grants.get", "peers.get"] }]),
            json!(["user.created", "sales", { "permissions_gained": ["links.approve"], "roles_gained": ["reader"] }]),
            json!(["user.updated", "sales", { "permissions_gained": ["admin"], "roles_lost": ["reader"] }]),
            json!(["user.updated", null, { "admin_of_instance": true }]),
        ]
    );
}

#[tokio::test]
async fn whoever_says_since_when_gets_every_row() {
    let one = Process::running("one").await;
    // More than are shown where nothing is said.
    for number in 0..110 {
        one.runs(&["tenant", "create", &format!("t{number}")]).await;
    }
    let newest = one.runs(&["audit", "--action", "tenant"]).await;
    assert_eq!((newest.as_array().map(Vec::len), &newest[99]["record_name"]), (Some(100), &json!("t109")));
    let outcome = one.says(&["audit", "--action", "tenant"]).await;
    assert!(outcome.stderr.contains("older rows of that kind are not shown"), "{}", outcome.stderr);
    let since = one.tries(&["audit", "--action", "tenant", "--since", "1h"], None).await;
    let rows: Value = serde_json::from_str(&since.stdout).expect("a list");
    assert_eq!((rows.as_array().map(Vec::len), since.stderr.as_str()), (Some(110), ""));
    let mut follower = Follower::of(&one, &["--since", "1h"]);
    for number in 0..110 {
        assert_eq!(follower.next().await, format!("t{number}"));
    }
    one.runs(&["tenant", "create", "last"]).await;
    assert_eq!(follower.next().await, "last");
}

#[tokio::test]
async fn who_follows_misses_nothing_and_sees_nothing_twice_through_restarts() {
    let mut one = Process::running("one").await;
    one.runs(&["tenant", "create", "a"]).await;
    let mut follower = Follower::of(&one, &["--limit", "1000"]);
    assert_eq!(follower.next().await, "a");
    one.runs(&["tenant", "create", "b"]).await;
    assert_eq!(follower.next().await, "b");
    one.is_stopped().await;
    one.starts().await;
    one.runs(&["tenant", "create", "c"]).await;
    one.is_killed().await;
    one.starts().await;
    one.runs(&["tenant", "create", "d"]).await;
    assert_eq!([follower.next().await, follower.next().await], ["c", "d"]);
    one.runs(&["tenant", "create", "e"]).await;
    assert_eq!(follower.next().await, "e");

    // A backup that knows less is put back: what comes then is new, though its ids are not.
    let file = one.settings.folder().join("copy").to_string_lossy().into_owned();
    one.runs(&["backup", &file]).await;
    one.runs(&["tenant", "create", "f"]).await;
    assert_eq!(follower.next().await, "f");
    one.is_stopped().await;
    one.runs(&["restore", &file]).await;
    // Longer than the pause between two looks, so that it is noticed that nobody was there.
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    one.starts().await;
    one.runs(&["tenant", "create", "g"]).await;
    assert_eq!(follower.next().await, "g");
}
