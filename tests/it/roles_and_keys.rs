//! What people may do: roles made of permissions, and the keys with which they use the admin API.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::World;
use crate::world::account::Account;
use crate::world::message::Message;
use crate::world::process::Process;

const PEERS: &str = "/v2/tenants/default/peers";
const APPS: &str = "/v2/tenants/default/ib-apps";
const ROLES: &str = "/v2/tenants/default/roles";

fn code(answer: &Message) -> (u16, String) {
    (answer.status(), answer.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn a_roles_change_takes_effect_on_the_next_request() {
    let world = World::new().await;
    let node = &world.beta;
    node.creates("role", json!({ "name": "reader", "permissions": ["peers.get"] })).await;
    let clerk = Account::on(node, "clerk@beta.example", json!({ "roles": ["reader"], "permissions": ["ib_apps.get"] })).await;
    assert_eq!((clerk.sees(node, PEERS).await, clerk.sees(node, APPS).await), (200, 200));
    node.changes("role", "reader", json!({ "permissions": ["callers.get"] })).await;
    assert_eq!((clerk.sees(node, PEERS).await, clerk.sees(node, "/v2/tenants/default/callers").await), (403, 200));
    node.changes("role", "reader", json!({ "add_permissions": ["peers.get"], "remove_permissions": ["callers.get"] })).await;
    assert_eq!((clerk.sees(node, PEERS).await, clerk.sees(node, "/v2/tenants/default/callers").await), (200, 403));
    let shown = node.changes("user", "clerk@beta.example", json!({ "remove_roles": ["reader"] })).await;
    assert_eq!((&shown["roles"], &shown["permissions"]), (&json!({}), &json!({ "default": ["ib_apps.get"] })));
    assert_eq!((clerk.sees(node, PEERS).await, clerk.sees(node, APPS).await), (403, 200));
}

#[tokio::test]
async fn who_may_change_peers_changes_no_ob_app_by_way_of_them() {
    let world = World::new().await;
    let node = &world.beta;
    let url = "http://127.0.0.1:9";
    let app = json!({ "client_id": "ours", "client_secret": "a secret of some length", "issuer": url });
    for name in ["shared", "spare"] {
        let mut named = app.clone();
        named["name"] = json!(name);
        node.creates("ob-app", named).await;
    }
    node.creates("peer", json!({ "name": "shared", "url": url, "ob": "shared" })).await;
    let permissions = ["peers.get", "peers.create", "peers.edit"];
    let clerk = Account::on(node, "clerk@beta.example", json!({ "permissions": permissions })).await;
    let before = node.shows("ob-app", "shared").await;
    let evil = json!({ "client_id": "evil", "auth_method": "none", "scopes": ["all"] });
    assert_eq!(code(&clerk.asks(node, "PATCH", &format!("{PEERS}/shared"), "peer", evil).await), refused(403, "forbidden"));
    for name in ["spare", "new"] {
        let taking = json!({ "name": name, "url": "https://two.example.com", "client_id": "evil", "auth_method": "none" });
        assert_eq!(code(&clerk.asks(node, "POST", PEERS, "peer", taking).await), refused(403, "forbidden"), "{name}");
    }
    assert_eq!(node.shows("ob-app", "shared").await, before);
    assert_eq!(node.shows("ob-app", "spare").await["client_id"], "ours");
    let given = json!({ "permissions": ["peers.get", "peers.edit", "ob_apps.edit"] });
    node.changes("user", "clerk@beta.example", given).await;
    let edited = clerk.asks(node, "PATCH", &format!("{PEERS}/shared"), "peer", json!({ "scopes": ["p2pi"] })).await;
    assert_eq!((edited.status(), &node.shows("ob-app", "shared").await["scopes"]), (200, &json!(["p2pi"])), "{}", edited.text());
}

#[tokio::test]
async fn a_role_may_allow_to_approve_links() {
    let mut world = World::new().await;
    world.introduces().await;
    world.beta.creates("role", json!({ "name": "linker", "permissions": ["links.approve"] })).await;
    world.beta.creates("user", json!({ "login": "clerk@beta.example", "password": "correct horse battery", "roles": ["linker"] })).await;
    world.operator.login = "clerk@beta.example".to_owned();
    world.links().await;
}

#[tokio::test]
async fn a_role_that_is_held_is_deleted_by_force_only() {
    let one = Process::running("one").await;
    let made = one.runs(&["role", "create", "reader", "--permission", "peers.get", "--permission", "ib_apps.get"]).await;
    assert_eq!((&made["tenant"], &made["permissions"]), (&json!("default"), &json!(["ib_apps.get", "peers.get"])));
    assert_eq!(one.refuses(&["role", "create", "reader"]).await["code"], "exists");
    assert_eq!(one.refuses(&["role", "create", "other", "--permission", "peers.fly"]).await["code"], "bad_attribute");
    let again = one.runs(&["role", "create", "reader", "--permission", "peers.get", "--or-update"]).await;
    assert_eq!((&again["id"], &again["permissions"]), (&made["id"], &json!(["peers.get"])));
    let add = ["user", "add", "clerk@example.com", "--role", "reader", "--password-stdin"];
    assert_eq!(one.runs_with(&add, "correct horse").await["roles"], json!({ "default": ["reader"] }));
    let held = one.refuses(&["role", "delete", "reader", "--yes"]).await;
    assert_eq!(held["code"], "in_use");
    assert!(held["message"].as_str().is_some_and(|message| message.contains("clerk@example.com")), "{held}");
    assert_eq!(one.runs(&["role", "show", "reader"]).await["held_by"], json!(["clerk@example.com"]));
    let renamed = one.runs(&["role", "update", "reader", "--rename", "viewer", "--add-permission", "links.approve"]).await;
    assert_eq!((&renamed["name"], &renamed["permissions"]), (&json!("viewer"), &json!(["links.approve", "peers.get"])));
    assert_eq!(one.runs(&["user", "show", "clerk@example.com"]).await["roles"], json!({ "default": ["viewer"] }));
    one.runs(&["role", "delete", "viewer", "--force", "--yes"]).await;
    assert_eq!(
        (one.runs(&["role", "list"]).await, &one.runs(&["user", "show", "clerk@example.com"]).await["roles"]),
        (json!([]), &json!({}))
    );

    one.runs(&["tenant", "create", "sales"]).await;
    let global = one.runs(&["role", "create", "auditor", "--permission", "grants.get", "--global"]).await;
    assert_eq!(global["tenant"], Value::Null);
    let shown = one.runs(&["--tenant", "sales", "user", "update", "clerk@example.com", "--role", "auditor"]).await;
    assert_eq!(shown["roles"], json!({ "sales": ["auditor"] }));
    assert_eq!(one.refuses(&["role", "delete", "auditor", "--yes"]).await["code"], "forbidden", "it is the instance's");
    assert_eq!(one.refuses(&["role", "delete", "auditor", "--global", "--yes"]).await["code"], "in_use");
    assert_eq!(one.runs(&["role", "show", "auditor"]).await["held_by"], json!([]), "in the default tenant");
    one.runs(&["--tenant", "sales", "user", "update", "clerk@example.com", "--no-role", "auditor"]).await;
    one.runs(&["role", "delete", "auditor", "--global", "--yes"]).await;
    assert_eq!(one.refuses(&["user", "update", "clerk@example.com", "--role", "auditor"]).await["code"], "not_found");
    assert_eq!(one.tries(&["--tenant", "sales", "role", "list", "--global"], None).await.status.code(), Some(2));
}

#[tokio::test]
async fn nobody_gives_what_they_do_not_hold() {
    let world = World::new().await;
    let node = &world.beta;
    let rights = json!({ "permissions": ["roles.get", "roles.create", "roles.edit", "peers.get"] });
    let clerk = Account::on(node, "clerk@beta.example", rights).await;
    let create = |name: &str, permissions: &[&str]| json!({ "name": name, "permissions": permissions });
    let made = clerk.asks(node, "POST", ROLES, "role", create("reader", &["peers.get"])).await;
    assert_eq!(made.status(), 201, "{}", made.text());
    for permission in ["admin", "peers.edit", "links.approve"] {
        let more = clerk.asks(node, "POST", ROLES, "role", create("more", &["peers.get", permission])).await;
        assert_eq!((code(&more), &more.json()["errors"][0]["meta"]["found"]), (refused(403, "forbidden"), &json!(permission)));
        let path = format!("{ROLES}/reader");
        for change in [json!({ "permissions": [permission] }), json!({ "add_permissions": [permission] })] {
            assert_eq!(code(&clerk.asks(node, "PATCH", &path, "role", change).await), refused(403, "forbidden"));
        }
    }
    assert_eq!(node.lists("role").await.len(), 1, "nothing was half done");
    assert_eq!(node.shows("role", "reader").await["permissions"], json!(["peers.get"]));
    // What somebody else put into a role may stay there, and may be taken out.
    node.changes("role", "reader", json!({ "permissions": ["peers.get", "peers.edit"] })).await;
    let renamed = clerk.asks(node, "PATCH", &format!("{ROLES}/reader"), "role", json!({ "name": "writer" })).await;
    assert_eq!(renamed.status(), 200, "{}", renamed.text());
    let less = clerk.asks(node, "PATCH", &format!("{ROLES}/writer"), "role", json!({ "remove_permissions": ["peers.edit"] })).await;
    assert_eq!(less.json()["data"]["attributes"]["permissions"], json!(["peers.get"]), "{}", less.text());
    assert_eq!(code(&clerk.asks(node, "DELETE", &format!("{ROLES}/writer"), "", Value::Null).await), refused(403, "forbidden"));
    assert_eq!(code(&clerk.asks(node, "POST", "/v2/roles", "role", create("all", &[])).await), refused(403, "forbidden"));
    // To create is not to change.
    let app = json!({ "name": "shop", "redirect_uris": ["https://shop.example.com/callback"], "scopes": ["p2pi"] });
    node.creates("ib-app", app.clone()).await;
    node.changes("user", "clerk@beta.example", json!({ "permissions": ["ib_apps.create"] })).await;
    let mut update = app;
    update["or_update"] = json!(true);
    assert_eq!(code(&clerk.asks(node, "POST", APPS, "ib-app", update).await), refused(403, "forbidden"));
}

#[tokio::test]
async fn keys_are_several_end_and_are_revoked_one_by_one() {
    let world = World::new().await;
    let node = &world.beta;
    let rights = json!({ "permissions": ["peers.get", "peers.edit", "ib_apps.get"] });
    let first = Account::on(node, "clerk@beta.example", rights).await;
    let short = Account::another_key(node, "clerk@beta.example", json!({ "name": "short", "expires_in": 3600 })).await;
    let narrow =
        Account::another_key(node, "clerk@beta.example", json!({ "name": "narrow", "permissions": ["peers.get", "peers.edit"] })).await;
    for account in [&first, &short, &narrow] {
        assert_eq!(account.sees(node, PEERS).await, 200);
    }
    assert_eq!((first.sees(node, APPS).await, narrow.sees(node, APPS).await), (200, 403));
    let edits = narrow.asks(node, "PATCH", &format!("{PEERS}/x"), "peer", json!({})).await;
    assert_eq!(code(&edits), refused(404, "not_found"));
    node.changes("user", "clerk@beta.example", json!({ "permissions": ["peers.get", "ib_apps.get"] })).await;
    let edits = narrow.asks(node, "PATCH", &format!("{PEERS}/x"), "peer", json!({})).await;
    assert_eq!(code(&edits), refused(403, "forbidden"), "a key adds nothing to what its person may do");
    let taken = json!({ "data": { "type": "user", "attributes": { "name": "short" } } });
    assert_eq!(code(&node.asks("POST", "/v2/users/clerk@beta.example/key", Some(&taken)).await), refused(409, "exists"));

    let keys = async || node.asks("GET", "/v2/users/clerk@beta.example/keys", None).await.json()["data"].clone();
    let listed = keys().await;
    let names: Vec<&Value> = listed.as_array().into_iter().flatten().map(|key| &key["attributes"]["name"]).collect();
    assert_eq!(names.len(), 3);
    let key = |listed: &Value, name: &str| {
        let found = listed.as_array().into_iter().flatten().find(|key| key["attributes"]["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}: {listed}"))["attributes"].clone()
    };
    assert_eq!(key(&listed, "narrow")["permissions"], json!(["peers.edit", "peers.get"]));
    assert!(!listed.to_string().contains(&first.key) && !listed.to_string().contains("p2pk_"), "{listed}");

    // A use is written down once an hour.
    let noted = key(&listed, "key")["last_used_at"].clone();
    assert!(noted.is_string(), "{listed}");
    world.clock.advance(Duration::from_secs(30 * 60));
    assert_eq!(first.sees(node, PEERS).await, 200);
    assert_eq!(key(&keys().await, "key")["last_used_at"], noted);
    world.clock.advance(Duration::from_secs(30 * 60));
    assert_eq!((first.sees(node, PEERS).await, short.sees(node, PEERS).await), (200, 401), "an hour is over");
    assert_ne!(key(&keys().await, "key")["last_used_at"], noted);

    let gone = node.asks("DELETE", "/v2/users/clerk@beta.example/keys/key", None).await;
    assert_eq!(gone.status(), 204, "{}", gone.text());
    assert_eq!((first.sees(node, PEERS).await, narrow.sees(node, PEERS).await), (401, 200));
    assert_eq!(code(&node.asks("DELETE", "/v2/users/clerk@beta.example/keys/key", None).await), refused(404, "not_found"));
}

#[tokio::test]
async fn a_limited_key_of_an_admin_rules_nothing() {
    let world = World::new().await;
    let node = &world.beta;
    let login = world.operator.login.clone();
    let narrow = Account::another_key(node, &login, json!({ "permissions": ["peers.get"] })).await;
    assert_eq!((narrow.sees(node, PEERS).await, narrow.sees(node, APPS).await, narrow.sees(node, "/v2/users").await), (200, 403, 403));
    let more = narrow.asks(node, "POST", &format!("/v2/users/{login}/key"), "user", json!({})).await;
    assert_eq!(code(&more), refused(403, "forbidden"));
    let all = Account::another_key(node, &login, json!({ "permissions": ["admin"] })).await;
    assert_eq!((all.sees(node, APPS).await, all.sees(node, "/v2/users").await), (200, 200));
}

#[tokio::test]
async fn keys_are_managed_by_commands() {
    let one = Process::running("one").await;
    one.runs_with(&["user", "add", "ops@example.com", "--permission", "peers.get", "--password-stdin"], "correct horse").await;
    assert_eq!(one.runs(&["user", "keys", "ops@example.com"]).await, json!([]));
    let make = ["user", "key", "ops@example.com", "--name", "deploy", "--expires", "90d", "--permission", "peers.get"];
    let made = one.runs(&make).await;
    assert_eq!(made.as_object().map(serde_json::Map::len), Some(1), "{made}");
    one.runs(&["user", "key", "ops@example.com"]).await;
    let keys = one.runs(&["user", "keys", "ops@example.com"]).await;
    let deploy = &keys[0];
    assert_eq!((&deploy["name"], &deploy["last_used_at"], &keys[1]["name"]), (&json!("deploy"), &Value::Null, &json!("key")), "{keys}");
    let time =
        |name: &str| humantime::parse_rfc3339(deploy[name].as_str().unwrap_or_default()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let life = time("expires_at").duration_since(time("created_at")).expect("it ends later");
    assert_eq!(life, Duration::from_secs(90 * 24 * 60 * 60));
    assert!(!keys.to_string().contains(made["api_key"].as_str().expect("a key")));
    assert_eq!(one.refuses(&make).await["code"], "exists");
    let useless = one.refuses(&["user", "key", "ops@example.com", "--permission", "peers.get", "--permission", "peers.edit"]).await;
    assert_eq!((&useless["message"], &useless["found"]), (&json!("--permission is wrong"), &json!("peers.edit")), "{useless}");
    assert_eq!(useless["expected"], "what ops@example.com holds: peers.get");
    for wrong in ["0s", "11y"] {
        assert_eq!(one.refuses(&["user", "key", "ops@example.com", "--expires", wrong]).await["code"], "bad_attribute", "{wrong}");
    }
    one.runs(&["user", "key-revoke", "ops@example.com", "deploy", "--yes"]).await;
    assert_eq!(one.refuses(&["user", "key-revoke", "ops@example.com", "deploy", "--yes"]).await["code"], "not_found");
    assert_eq!(one.runs(&["user", "show", "ops@example.com"]).await["api_keys"], 1);
    let said = one.says(&["user", "keys", "ops@example.com"]).await;
    assert!(said.stdout.starts_with("NAME"), "{}", said.stdout);
}
