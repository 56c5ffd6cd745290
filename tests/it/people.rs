//! People: who may allow a link, who has to log in before one begins, and what stays of somebody who is deleted.

use base64::Engine;
use serde_json::{Value, json};

use crate::world::World;
use crate::world::client::Client;
use crate::world::node::Node;
use crate::world::pair::Pair;
use crate::world::person::Person;
use crate::world::settings::request;
use crate::world::wire::Wire;

/// Makes an account with these rights, and the person who has it.
async fn somebody(node: &Node, login: &str, rights: Value) -> Person {
    let password = "another horse battery";
    let mut user = json!({ "login": login, "password": password });
    for (name, value) in rights.as_object().into_iter().flatten() {
        user[name] = value.clone();
    }
    node.creates("user", user).await;
    Person::new(login, password, &[node.settings.authority()])
}

#[tokio::test]
async fn a11_who_may_not_approve_links_sees_whom_to_ask_and_can_decline() {
    let world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    let mut clerk = somebody(&world.beta, "clerk@beta.example", json!({ "permissions": ["peers.get"] })).await;
    let url = client.authorize(&world.beta).url();
    let question = clerk.opens(&url).logs_in().await;
    assert_eq!(question.status, 200, "{}", question.text());
    let text = question.text();
    assert!(
        text.contains("You may not allow links here. Ask whoever sent you the request URL for a new one") && text.contains("links.approve"),
        "{text}"
    );
    let form = question.form_with("decision").expect("a question");
    assert_eq!(form.buttons(), [("decision", "decline")]);

    let decline = form.press("decision", "decline").expect("the one button");
    let forged = decline.body().expect("a form by POST").replace("decision=decline", "decision=allow");
    let refused = clerk.browser.step(&decline.clone().with_body(&forged)).await.expect("an answer");
    assert_eq!((refused.status.as_u16(), refused.way[0].location()), (403, None), "{}", refused.text());
    assert!(refused.text().contains("let an administrator of this instance open that"), "{}", refused.text());
    let declined = clerk.goes(decline).await;
    assert_eq!((declined.away, declined.parameter("error").as_deref()), (true, Some("access_denied")), "{}", declined.url);
    assert!(world.beta.lists("grant").await.is_empty());

    world.beta.changes("user", "clerk@beta.example", json!({ "permissions": ["links.approve"] })).await;
    let tokens = client.tokens(&world.beta, &mut clerk).await;
    assert_eq!(client.introspects(&world.beta, &tokens.access).await.json()["active"], true);
}

#[tokio::test]
async fn a11_a_permission_that_is_taken_back_counts_at_the_press() {
    let world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    let mut clerk = somebody(&world.beta, "clerk@beta.example", json!({ "permissions": ["links.approve"] })).await;
    let question = clerk.opens(&client.authorize(&world.beta).url()).logs_in().await;
    let allow = question.form_with("decision").and_then(|form| form.press("decision", "allow")).expect("two buttons");
    world.beta.changes("user", "clerk@beta.example", json!({ "permissions": ["peers.get"] })).await;
    let refused = clerk.browser.step(&allow).await.expect("an answer");
    assert_eq!((refused.status.as_u16(), refused.way[0].location()), (403, None), "{}", refused.text());
    assert!(world.beta.lists("grant").await.is_empty());
}

#[tokio::test]
async fn a14_a_code_is_worth_nothing_once_who_allowed_it_may_not_any_more() {
    let world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    let mut clerk = somebody(&world.beta, "clerk@beta.example", json!({ "permissions": ["links.approve"] })).await;
    let (code, other) = (client.code(&world.beta, &mut clerk).await, client.code(&world.beta, &mut clerk).await);
    world.beta.changes("user", "clerk@beta.example", json!({ "permissions": ["peers.get"] })).await;
    let refused = client.redeems(&world.beta, &code).await;
    assert_eq!((refused.status(), refused.json()["error"].as_str()), (400, Some("invalid_grant")), "{}", refused.text());
    // It is burnt, and comes back with no right.
    world.beta.changes("user", "clerk@beta.example", json!({ "permissions": ["links.approve"] })).await;
    assert_eq!(client.redeems(&world.beta, &code).await.json()["error"], "invalid_grant");
    assert_eq!(client.redeems(&world.beta, &other).await.status(), 200, "this one was not presented meanwhile");
}

#[tokio::test]
async fn a14_a_code_that_was_allowed_under_an_old_password_is_worth_nothing() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    let code = client.code(&world.beta, &mut world.operator).await;
    world.beta.changes("user", &world.operator.login, json!({ "password": "a third horse battery" })).await;
    assert_eq!(client.redeems(&world.beta, &code).await.json()["error"], "invalid_grant");
    assert!(world.beta.lists("grant").await.is_empty());
}

#[tokio::test]
async fn c4_a_request_that_demands_a_log_in_is_used_up_by_nobody_before_it() {
    let mut world = World::new().await;
    world.introduces().await;
    // The same person has an account on both sides.
    let (login, password) = (world.operator.login.clone(), world.operator.password.clone());
    world.alpha.creates("user", json!({ "login": login, "password": password })).await;
    let asked = world.alpha.acts("peer", "beta", "request", json!({ "login": true })).await;
    let url = asked["url"].as_str().expect("a request URL").to_owned();
    let stage = async |world: &World| world.alpha.shows("peer", "beta").await["request"]["stage"].clone();

    let log_in = world.operator.opens(&url).continues().await;
    let ticket = url.strip_prefix(&world.alpha.settings.url()).expect("ours");
    let next = log_in.url.query_pairs().find(|(name, _)| name == "next").map(|(_, value)| value.into_owned());
    assert_eq!((log_in.url.path(), next.as_deref()), ("/login", Some(ticket)), "{}", log_in.url);
    assert_eq!(log_in.url.origin().ascii_serialization(), world.alpha.settings.url());
    assert_eq!(stage(&world).await, "waiting", "nothing is used up yet");

    let request = world.operator.goes_on_from(&log_in).logs_in().await;
    assert_eq!((request.url.as_str(), request.status.as_u16()), (url.as_str(), 200), "{}", request.text());
    assert_eq!(stage(&world).await, "waiting", "the log-in presses no button");
    let page = world.operator.goes_on_from(&request).continues().logs_in().allows().await;
    assert_eq!(page.status, 200, "{}", page.text());
    assert_eq!(stage(&world).await, "linked");
    assert_eq!(world.alpha.calls(&world.beta, "/orders").await.status(), 200);
}

#[tokio::test]
async fn who_is_deleted_is_out_at_once_and_what_was_allowed_goes_on() {
    let (mut world, _) = World::linked().await;
    let client = Client::registered(&world.beta, "shop").await;
    let login = world.operator.login.clone();
    let key = world.beta.acts("user", &login, "key", json!({})).await["api_key"].as_str().expect("a key").to_owned();
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{login}:{key}")));
    let host = world.beta.settings.console.to_string();
    let asks_the_api = async || {
        let mut wire = Wire::plain(world.beta.settings.console).await;
        wire.asks(request("GET", "/v2/status", &host, &[("Authorization", &basic)], "")).await.status()
    };
    assert_eq!(asks_the_api().await, 200);
    somebody(&world.beta, "successor@beta.example", json!({ "admin": true })).await;
    let document = json!({ "data": { "type": "user", "attributes": {} } });
    let deleted = world.beta.asks("DELETE", &format!("/v2/users/{login}"), Some(&document)).await;
    assert!((200..300).contains(&deleted.status()), "{}", deleted.text());

    assert_eq!(asks_the_api().await, 401);
    let page = world.operator.opens(&client.authorize(&world.beta).url()).await;
    assert!(page.form_with("password").is_ok(), "the session is over: {}", page.text());
    assert_eq!(world.alpha.calls(&world.beta, "/orders").await.status(), 200, "the link is the instance's, not the person's");
    assert_eq!(world.alpha.acts("peer", "beta", "refresh", json!({})).await["state"], "linked");
    assert_eq!(world.alpha.calls(&world.beta, "/orders").await.status(), 200);
    let grants = world.beta.lists("grant").await;
    assert_eq!(grants.iter().map(|grant| grant["allowed_by"].clone()).collect::<Vec<_>>(), [json!("(deleted)")], "{grants:?}");
}

#[tokio::test]
async fn whoever_deletes_somebody_is_told_of_links_that_go_on() {
    let pair = Pair::linked("1h").await;
    pair.two.runs_with(&["user", "add", "successor@two.example", "--admin", "--password-stdin"], "another horse battery").await;
    let deleted = pair.two.says(&["user", "delete", &pair.operator.login, "--yes"]).await.stderr;
    assert!(deleted.contains("goes on") && deleted.contains("grant revoke ID"), "{deleted}");
    assert_eq!(pair.calls().await, 200);
}

#[tokio::test]
async fn v3_grants_of_who_is_deleted_can_be_revoked_with_the_account() {
    let mut pair = Pair::linked("1h").await;
    let login = pair.operator.login.clone();
    assert_eq!(pair.calls().await, 200);
    pair.two.runs_with(&["user", "add", "successor@two.example", "--admin", "--password-stdin"], "another horse battery").await;
    pair.two.runs(&["user", "delete", &login, "--revoke-grants", "--yes"]).await;
    let refused = pair.one.relays(&pair.key, "/two/orders").await;
    assert_eq!((refused.status(), refused.header("p2pi-error")), (503, Some("relink_required")), "{}", refused.text());
    let grants = pair.two.runs(&["grant", "list", "--all"]).await;
    assert_eq!((&grants[0]["ended_why"], &grants[0]["allowed_by"]), (&json!("revoked_by_admin"), &json!("(deleted)")), "{grants}");
    let page = pair.operator.opens(&pair.request_url().await).continues().logs_in().await;
    assert_eq!(page.status, 401, "{}", page.text());
}

#[tokio::test]
async fn however_many_grants_somebody_allowed_all_end_with_the_account_when_asked_to() {
    let (world, _) = World::linked().await;
    let login = world.operator.login.clone();
    let fill = |transaction: &p2pid::store::Transaction<'_>| {
        let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 450)
            INSERT INTO grant (id, app, user, scope, epoch, created_at, purge_at)
            SELECT CAST(printf('%016d', i) AS BLOB), app, user, scope, epoch, created_at, purge_at FROM grant, n";
        Ok(transaction.execute(sql, [])?)
    };
    assert_eq!(world.beta.running().instance.store.write(fill).await.expect("written"), 450);
    somebody(&world.beta, "successor@beta.example", json!({ "admin": true })).await;
    let document = json!({ "data": { "type": "user", "attributes": { "revoke_grants": true } } });
    let deleted = world.beta.asks("DELETE", &format!("/v2/users/{login}"), Some(&document)).await;
    assert!((200..300).contains(&deleted.status()), "{}", deleted.text());
    let count = |connection: &rusqlite::Connection| {
        let sql = "SELECT count(*), count(*) FILTER (WHERE ended_why = 'revoked_by_admin') FROM grant";
        Ok(connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?)
    };
    assert_eq!(world.beta.running().instance.store.read(count).await.expect("read"), (451_i64, 451_i64));
    assert_ne!(world.alpha.calls(&world.beta, "/orders").await.status(), 200);
}
