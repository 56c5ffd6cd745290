//! Flags of commands that change what the plain command does.

use serde_json::{Value, json};

use crate::world::pair::Pair;
use crate::world::patience::eventually;
use crate::world::process::Process;

#[tokio::test]
async fn an_app_in_use_is_deleted_by_force_and_its_grants_end_at_once() {
    let pair = Pair::linked("1h").await;
    assert_eq!(pair.calls().await, 200);
    assert_eq!(pair.two.refuses(&["ib", "delete", "one", "--yes"]).await["code"], "in_use");
    assert_eq!(pair.calls().await, 200, "a refusal ends nothing");
    let client_id = pair.two.runs(&["ib", "show", "one"]).await["client_id"].as_str().expect("a client_id").to_owned();
    pair.two.runs(&["ib", "delete", "one", "--force", "--yes"]).await;
    assert_ne!(pair.calls().await, 200);
    assert_eq!((pair.two.runs(&["grant", "list"]).await, pair.two.runs(&["ib", "list"]).await), (json!([]), json!([])));
    // Its names are free at once, its tokens stay what they are: nobody's.
    let again = ["ib", "create", "one", "--peer-url", "https://one.example.com", "--scope", "p2pi", "--client-id"];
    pair.two.runs(&[&again[..], &[client_id.as_str()]].concat()).await;
    assert_ne!(pair.calls().await, 200);
    assert_eq!(pair.two.runs(&["grant", "list"]).await, json!([]));
}

#[tokio::test]
async fn what_exists_is_updated_when_asked_to() {
    let one = Process::running("one").await;
    let create = ["ib", "create", "two", "--peer-url", "https://two.example.com", "--scope", "p2pi"];
    let made = one.runs(&create).await;
    let updated = one.runs(&[&create[..], &["--access-ttl", "5m", "--or-update"]].concat()).await;
    assert_eq!(
        (&updated["id"], &updated["client_id"], &updated["access_ttl"]),
        (&made["id"], &made["client_id"], &json!(300)),
        "{updated}"
    );
    assert!(updated["client_secret"].is_null(), "a secret is shown where it is made only: {updated}");

    let create = ["ob", "create", "three", "--client-id", "abc", "--issuer", "https://three.example.com", "--client-secret-stdin"];
    let made = one.runs_with(&create, "the secret that three gave us").await;
    let update = ["ob", "create", "three", "--client-id", "abc", "--scope", "other", "--client-secret-stdin", "--or-update"];
    let updated = one.runs_with(&update, "the next secret that three gave us").await;
    assert_eq!((&updated["id"], &updated["scopes"]), (&made["id"], &json!(["other"])), "{updated}");

    let made = one.runs(&["caller", "add", "shop"]).await;
    let key = made["key"].as_str().expect("a key").to_owned();
    let update = ["caller", "add", "shop", "--or-update"];
    let updated = one.runs(&update).await;
    assert!(updated["name"] == "shop" && updated["key"].is_null(), "its key stays: {updated}");
    assert_eq!(one.relays(&key, "/nobody/").await.header("p2pi-error"), Some("unknown_peer"));

    // Nobody is there: a warning.
    let peer = ["peer", "create", "three", "--url", "https://127.0.0.1:1", "--username", "us", "--password-stdin"];
    let made = one.runs_with(&peer, "their password").await;
    let update = ["peer", "create", "three", "--base-url", "https://127.0.0.1:1/api", "--or-update"];
    let updated = one.runs(&update).await;
    let told = (&updated["name"], &updated["url"], &updated["base_url"]);
    assert_eq!(told, (&json!("three"), &made["url"], &json!("https://127.0.0.1:1/api")), "{updated}");
    for what in ["ib", "ob", "caller", "peer"] {
        assert_eq!(one.runs(&[what, "list"]).await.as_array().map(Vec::len), Some(1), "{what}");
    }
    let fresh = one.runs(&["caller", "add", "till", "--or-update"]).await;
    assert!(fresh["key"].is_string(), "what does not exist is made: {fresh}");
}

#[tokio::test]
async fn a_doctor_who_finds_something_exits_1_with_all_that_was_found() {
    let mut pair = Pair::linked("1h").await;
    pair.two.is_killed().await;
    let outcome = pair.one.tries(&["doctor"], None).await;
    assert_eq!((outcome.status.code(), outcome.stdout.as_str()), (Some(1), ""), "{}", outcome.stderr);
    let problem = outcome.problem();
    assert_eq!(problem["error"]["code"], "unwell", "{problem}");
    let checks = problem["checks"].as_array().unwrap_or_else(|| panic!("no checks: {problem}"));
    let result = |name: &str| checks.iter().find(|check| check["check"] == name).map(|check| check["result"].clone());
    assert_eq!((result("daemon"), result("configuration")), (Some(json!("ok")), Some(json!("ok"))), "{problem}");
    assert_eq!(result("peer two"), Some(json!("failed")), "{problem}");
    let said = pair.one.says(&["doctor"]).await;
    assert_eq!(said.status.code(), Some(1));
    assert!(said.stdout.contains("peer two") && said.stderr.contains("not well: peer two"), "{}{}", said.stdout, said.stderr);

    pair.one.is_stopped().await;
    let outcome = pair.one.tries(&["doctor"], None).await;
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    assert!(outcome.problem()["checks"].to_string().contains("\"daemon\""), "{}", outcome.stderr);
}

#[tokio::test]
async fn status_says_when_the_configuration_was_read() {
    let one = Process::running("one").await;
    let loaded_at = async || {
        let status: Value = one.runs(&["status"]).await;
        let text = status["config"]["loaded_at"].as_str().unwrap_or_else(|| panic!("no time: {status}")).to_owned();
        assert!(text.ends_with('Z'), "{text}");
        humantime::parse_rfc3339(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
    };
    let first = loaded_at().await;
    one.settings.says("a.toml", "[limits]\ndrain = \"5s\"\n");
    eventually("a later time", async || {
        one.runs(&["reload"]).await;
        (loaded_at().await > first).then_some(())
    })
    .await;
    let second = loaded_at().await;
    one.settings.says("a.toml", "[limits]\ndrain = 5\n");
    assert_eq!(one.refuses(&["reload"]).await["code"], "configuration");
    assert_eq!(loaded_at().await, second, "the one in force is the one from before");
}
