//! Realms: who is signed in by one, by whom, and until when.

use serde_json::{Value, json};

use crate::world::World;
use crate::world::client::{Client, Tokens};
use crate::world::message::Message;
use crate::world::person::Person;
use crate::world::process::Process;

#[tokio::test]
async fn the_commands_of_a_realm_do_what_they_say() {
    let one = Process::running("one").await;
    one.runs_with(&["user", "add", "alice", "--password-stdin"], "alice-passw0rd").await;
    let made = one.runs(&["realm", "create", "TestRealm"]).await;
    assert_eq!((&made["name"], &made["token_validity"], &made["scopes"]), (&json!("TestRealm"), &json!(43_200), &json!(["openid"])));
    assert!(made["key"].is_string(), "{made}");
    let served = json!(["authorization_code", "refresh_token"]);
    assert_eq!((&made["grants"], &one.runs(&["realm", "show", "TestRealm"]).await["grants"]), (&served, &served), "no passwords are taken");
    assert_eq!(one.refuses(&["realm", "create", "TestRealm"]).await["code"], "exists");
    let create = ["realm", "create", "Other", "--key-stdin", "--token-validity", "60", "--description", "of others"];
    let other = one.runs_with(&create, "k3y_secret").await;
    assert_eq!((&other["key"], &other["token_validity"], &other["description"]), (&json!("k3y_secret"), &json!(60), &json!("of others")));
    let updated = one.runs(&["realm", "create", "Other", "--token-validity", "90", "--or-update"]).await;
    assert_eq!((&updated["token_validity"], &updated["key"]), (&json!(90), &Value::Null), "{updated}");
    let updated = one.runs(&["realm", "update", "Other", "--redirect-uri", "https://other.example/cb"]).await;
    assert_eq!(updated["redirect_uris"], json!(["https://other.example/cb"]));

    one.runs(&["realm", "role", "TestRealm", "ROLE_TEST", "--description", "reads"]).await;
    assert_eq!(one.refuses(&["realm", "role", "TestRealm", "ROLE_TEST"]).await["code"], "exists");
    let changed = one.runs(&["realm", "role", "TestRealm", "ROLE_TEST", "--description", "writes", "--or-update"]).await;
    assert_eq!(changed["roles"], json!([{ "name": "ROLE_TEST", "description": "writes", "users": [] }]));
    let assigned = one.runs(&["realm", "assign", "TestRealm", "alice", "ROLE_TEST"]).await;
    assert_eq!(assigned["roles"][0]["users"], json!(["alice"]));
    let shown = one.says(&["realm", "show", "TestRealm"]).await;
    assert!(shown.stdout.contains("ROLE_TEST: alice"), "{}", shown.stdout);
    assert_eq!(one.refuses(&["realm", "assign", "TestRealm", "alice", "ROLE_NONE"]).await["code"], "not_found");
    assert_eq!(one.refuses(&["realm", "unassign", "TestRealm", "bob", "ROLE_TEST"]).await["code"], "not_found");
    let unassigned = one.runs(&["realm", "unassign", "TestRealm", "alice", "ROLE_TEST"]).await;
    assert_eq!(unassigned["roles"][0]["users"], json!([]));
    let without = one.runs(&["realm", "role", "TestRealm", "ROLE_TEST", "--delete", "--yes"]).await;
    assert_eq!(without["roles"], json!([]));

    let names: Vec<Value> =
        one.runs(&["realm", "list"]).await.as_array().into_iter().flatten().map(|realm| realm["name"].clone()).collect();
    assert_eq!(names, ["Other", "TestRealm"]);
    assert_eq!(one.runs(&["ib", "list"]).await, json!([]), "a realm is listed as one");
    one.runs(&["realm", "delete", "Other", "--yes"]).await;
    assert_eq!(one.refuses(&["realm", "show", "Other"]).await["code"], "not_found");
}

const ON: &str = "[compat]\npassword_grant = true";
const PASSWORD: &str = "alice-passw0rd";

/// `beta` with the realm `TestRealm`, where `alice` holds a role and `bob` none.
async fn world_with(configuration: &str) -> (World, Client) {
    let world = World::with(configuration).await;
    let realm = json!({ "name": "TestRealm", "key": "k3y_secret", "redirect_uris": ["https://realm.example/done"] });
    let realm = world.beta.creates("realm", realm).await;
    for login in ["alice", "bob"] {
        world.beta.creates("user", json!({ "login": login, "password": format!("{login}-passw0rd") })).await;
    }
    world.beta.acts("realm", "TestRealm", "role", json!({ "role": "ROLE_TEST" })).await;
    world.beta.acts("realm", "TestRealm", "assign", json!({ "user": "alice", "role": "ROLE_TEST" })).await;
    let text = |name: &str| realm[name].as_str().expect("a text").to_owned();
    let client = Client { id: text("client_id"), secret: text("key"), redirect_uri: "https://realm.example/done".to_owned() };
    (world, client)
}

async fn signs_in(world: &World, client: &Client, username: &str, password: &str) -> Message {
    client.asks(&world.beta, &[("grant_type", "password"), ("username", username), ("password", password)]).await
}

fn refused(answer: &Message, status: u16, code: &str) {
    assert_eq!((answer.status(), answer.json()["error"].as_str()), (status, Some(code)), "{}", answer.text());
}

async fn grant_types(world: &World) -> Value {
    world.beta.is_asked("GET", "/.well-known/oauth-authorization-server", &[], "").await.json()["grant_types_supported"].clone()
}

#[tokio::test]
async fn t9_who_asks_for_another_grant_type_is_told_of_those_that_the_metadata_name() {
    for configuration in ["", ON] {
        let (world, client) = world_with(configuration).await;
        let answer = client.asks(&world.beta, &[("grant_type", "implicit")]).await;
        refused(&answer, 400, "unsupported_grant_type");
        let served: Vec<String> = serde_json::from_value(grant_types(&world).await).expect("a list");
        let expected = format!("the grant types here are {}", served.join(", "));
        assert_eq!(answer.json()["error_description"], expected);
    }
}

#[tokio::test]
async fn t9_without_the_switch_there_is_no_password_grant() {
    let (world, client) = world_with("").await;
    refused(&signs_in(&world, &client, "alice", PASSWORD).await, 400, "unsupported_grant_type");
    assert_eq!(grant_types(&world).await, json!(["authorization_code", "refresh_token", "client_credentials"]));
}

#[tokio::test]
async fn t9_with_the_switch_a_realm_alone_signs_people_in_by_password() {
    let (world, client) = world_with(ON).await;
    assert_eq!(grant_types(&world).await, json!(["authorization_code", "refresh_token", "client_credentials", "password"]));
    let grants = world.beta.shows("realm", "TestRealm").await["grants"].clone();
    assert_eq!(grants, json!(["authorization_code", "refresh_token", "password"]));
    let answer = signs_in(&world, &client, "alice", PASSWORD).await;
    let (tokens, json) = (Tokens::of(&answer), answer.json());
    assert_eq!((&json["scope"], &json["p2pi_subject"], &json["token_type"]), (&json!("openid"), &json!("alice"), &json!("Bearer")));
    assert!(json["expires_in"].as_u64().is_some_and(|life| (43_190..=43_200).contains(&life)), "{json}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));

    let seen = client.introspects(&world.beta, &tokens.access).await.json();
    let told = (&seen["active"], &seen["sub"], &seen["username"], &seen["authorities"], &seen["scope"], &seen["client_id"]);
    let expected = (&json!(true), &json!("alice"), &json!("alice"), &json!(["ROLE_TEST"]), &json!("openid"), &json!("TestRealm"));
    assert_eq!(told, expected);
    world.beta.acts("realm", "TestRealm", "role", json!({ "role": "ROLE_NEW" })).await;
    world.beta.acts("realm", "TestRealm", "assign", json!({ "user": "alice", "role": "ROLE_NEW" })).await;
    let seen = client.introspects(&world.beta, &tokens.access).await.json();
    assert_eq!(seen["authorities"], json!(["ROLE_NEW", "ROLE_TEST"]), "as they are now");

    let grants = world.beta.lists("grant").await;
    let shown = (&grants[0]["app"], &grants[0]["allowed_by"], &grants[0]["made_by"]);
    assert_eq!(shown, (&json!("TestRealm"), &json!("alice"), &json!("password")));

    let wrong_key = Client { secret: "wrong".to_owned(), ..client.clone() };
    let answer = signs_in(&world, &wrong_key, "alice", PASSWORD).await;
    refused(&answer, 401, "invalid_client");
    assert!(answer.header("www-authenticate").is_some_and(|challenge| challenge.starts_with("Basic")));
    let link = Client::registered(&world.beta, "shop").await;
    refused(&signs_in(&world, &link, "alice", PASSWORD).await, 400, "unauthorized_client");
    let more = [("grant_type", "password"), ("username", "alice"), ("password", PASSWORD), ("scope", "openid p2pi")];
    refused(&client.asks(&world.beta, &more).await, 400, "invalid_scope");
    refused(&client.asks(&world.beta, &more[..2]).await, 400, "invalid_request");
    let elsewhere = [&more[..3], &[("resource", "https://other.example")]].concat();
    refused(&client.asks(&world.beta, &elsewhere).await, 400, "invalid_target");
}

#[tokio::test]
async fn t9_whoever_is_not_signed_in_gets_one_answer_and_it_says_nothing() {
    let (world, client) = world_with(ON).await;
    world.beta.creates("user", json!({ "login": "clerk", "password": "clerk-passw0rd", "permissions": ["links.approve"] })).await;
    for login in ["clerk", &world.operator.login] {
        world.beta.acts("realm", "TestRealm", "assign", json!({ "user": login, "role": "ROLE_TEST" })).await;
    }
    let mut bodies = Vec::new();
    for (username, password) in [
        ("alice", "a wrong password"),
        ("alice", "short"),
        ("nobody", PASSWORD),
        ("Alice", PASSWORD),
        ("bob", "bob-passw0rd"),
        ("clerk", "clerk-passw0rd"),
        (world.operator.login.as_str(), world.operator.password.as_str()),
    ] {
        let answer = signs_in(&world, &client, username, password).await;
        refused(&answer, 400, "invalid_grant");
        bodies.push(answer.text().to_owned());
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert!(world.beta.lists("grant").await.is_empty());
    let rows = async |action: &str| {
        let rows = world.beta.asks("GET", &format!("/v2/audit?action={action}"), None).await;
        rows.json()["data"].as_array().cloned().unwrap_or_else(|| panic!("{}", rows.text()))
    };
    let failed = rows("sign_in.failed").await;
    assert!(failed.len() == 1 && failed[0].to_string().contains("TestRealm"), "the first of many: {failed:?}");
    assert!(!failed[0].to_string().contains("passw0rd") && rows("sign_in.succeeded").await.is_empty(), "{failed:?}");
    assert_eq!(signs_in(&world, &client, "alice", PASSWORD).await.status(), 200);
    assert_eq!(rows("sign_in.succeeded").await.len(), 1);
}

#[tokio::test]
async fn t9_t3_guesses_are_counted_by_person_and_by_realm_and_a_right_one_elsewhere_passes() {
    let (world, client) =
        world_with(&format!("{ON}\n[limits]\nauth_failures = \"3/h\"\n[public]\ntrusted_proxies = [\"127.0.0.0/8\"]")).await;
    let other = world.beta.creates("realm", json!({ "name": "Other", "key": "k3y_of_the_other" })).await;
    world.beta.acts("realm", "Other", "role", json!({ "role": "R" })).await;
    world.beta.acts("realm", "Other", "assign", json!({ "user": "alice", "role": "R" })).await;
    let other = Client { id: "Other".to_owned(), secret: other["key"].as_str().expect("a key").to_owned(), ..client.clone() };
    let from = async |client: &Client, address: &str, username: &str, password: &str| {
        use base64::Engine;
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", client.id, client.secret));
        let (basic, forwarded) = (format!("Basic {basic}"), format!("for={address}"));
        let headers =
            [("Content-Type", "application/x-www-form-urlencoded"), ("Authorization", basic.as_str()), ("Forwarded", forwarded.as_str())];
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("grant_type", "password"), ("username", username), ("password", password)])
            .finish();
        world.beta.is_asked("POST", "/oauth/token", &headers, &form).await
    };
    for _ in 0..20 {
        assert_eq!(from(&client, "192.0.2.1", "alice", PASSWORD).await.status(), 200, "what does not fail does not count");
    }
    for _ in 0..3 {
        refused(&from(&client, "192.0.2.1", "alice", "a wrong password").await, 400, "invalid_grant");
    }
    let stopped = from(&client, "192.0.2.1", "alice", PASSWORD).await;
    assert_eq!((stopped.status(), stopped.header("retry-after").is_some()), (429, true), "{}", stopped.text());
    assert_eq!(from(&other, "192.0.2.1", "alice", PASSWORD).await.status(), 429, "the person, by another realm from there");
    assert_eq!(from(&client, "192.0.2.2", "alice", PASSWORD).await.status(), 200, "nobody is locked out from elsewhere");
    for guess in ["x", "y", "z"] {
        refused(&from(&client, "192.0.2.3", guess, "one of many").await, 400, "invalid_grant");
    }
    assert_eq!(from(&client, "192.0.2.3", "alice", PASSWORD).await.status(), 429, "one password on many names");
    assert_eq!(from(&other, "192.0.2.3", "alice", PASSWORD).await.status(), 200);
    // The realm itself has failed at nothing: what it holds it can renew.
    let tokens = Tokens::of(&from(&client, "192.0.2.2", "alice", PASSWORD).await);
    assert_eq!(client.refreshes(&world.beta, &tokens.refresh).await.status(), 200);
}

#[tokio::test]
async fn t9_a_realms_refresh_token_is_used_once() {
    let (world, client) = world_with(ON).await;
    let first = Tokens::of(&signs_in(&world, &client, "alice", PASSWORD).await);
    let second = Tokens::of(&client.refreshes(&world.beta, &first.refresh).await);
    assert_eq!(client.introspects(&world.beta, &first.access).await.json(), json!({ "active": false }), "the one before has ended");
    let seen = client.introspects(&world.beta, &second.access).await.json();
    assert_eq!((&seen["active"], &seen["username"]), (&json!(true), &json!("alice")));
    let other = world.beta.creates("realm", json!({ "name": "Other", "key": "k3y_of_the_other" })).await;
    let other = Client { id: "Other".to_owned(), secret: other["key"].as_str().expect("a key").to_owned(), ..client.clone() };
    refused(&other.refreshes(&world.beta, &second.refresh).await, 400, "invalid_grant");
    world.clock.advance(std::time::Duration::from_secs(10));
    refused(&client.refreshes(&world.beta, &first.refresh).await, 400, "invalid_grant");
    assert_eq!(client.introspects(&world.beta, &second.access).await.json(), json!({ "active": false }), "the whole family is revoked");
}

#[tokio::test]
async fn t9_an_update_leaves_tokens_that_exist_as_they_are() {
    let (world, client) = world_with(ON).await;
    let before = Tokens::of(&signs_in(&world, &client, "alice", PASSWORD).await);
    world.beta.changes("realm", "TestRealm", json!({ "key": "another-k3y", "token_validity": 60 })).await;
    refused(&signs_in(&world, &client, "alice", PASSWORD).await, 401, "invalid_client");
    let client = Client { secret: "another-k3y".to_owned(), ..client };
    let life = async |token: &str| {
        let seen = client.introspects(&world.beta, token).await.json();
        assert_eq!(seen["active"], true, "{seen}");
        seen["exp"].as_i64().expect("an end") - seen["iat"].as_i64().expect("a beginning")
    };
    assert_eq!(life(&before.access).await, 43_200);
    let after = signs_in(&world, &client, "alice", PASSWORD).await;
    assert!(after.json()["expires_in"].as_u64().is_some_and(|life| life <= 60), "{}", after.text());
    assert_eq!(life(&Tokens::of(&after).access).await, 60);
}

#[tokio::test]
async fn v3_realm_tokens_end_with_the_person_the_password_the_last_role_and_the_realm() {
    let (world, client) = world_with(ON).await;
    let is_over = async |tokens: &Tokens, why: &str| {
        assert_eq!(client.introspects(&world.beta, &tokens.access).await.json(), json!({ "active": false }), "{why}");
        refused(&client.refreshes(&world.beta, &tokens.refresh).await, 400, "invalid_grant");
        let ended = world.beta.asks("GET", "/v2/tenants/default/grants?all=true", None).await.json();
        let ended = ended["data"].as_array().and_then(|grants| grants.last()).map(|grant| grant["attributes"]["ended_why"].clone());
        assert_eq!(ended, Some(json!(why)));
        // The next grant is the later one in the list.
        world.clock.advance(std::time::Duration::from_secs(1));
    };
    let tokens = Tokens::of(&signs_in(&world, &client, "alice", PASSWORD).await);
    world.beta.acts("realm", "TestRealm", "role", json!({ "role": "SECOND" })).await;
    world.beta.acts("realm", "TestRealm", "assign", json!({ "user": "alice", "role": "SECOND" })).await;
    world.beta.acts("realm", "TestRealm", "unassign", json!({ "user": "alice", "role": "SECOND" })).await;
    assert_eq!(client.introspects(&world.beta, &tokens.access).await.json()["active"], true, "there is another role");
    world.beta.acts("realm", "TestRealm", "unassign", json!({ "user": "alice", "role": "ROLE_TEST" })).await;
    is_over(&tokens, "role_taken").await;
    refused(&signs_in(&world, &client, "alice", PASSWORD).await, 400, "invalid_grant");

    world.beta.acts("realm", "TestRealm", "assign", json!({ "user": "alice", "role": "ROLE_TEST" })).await;
    let tokens = Tokens::of(&signs_in(&world, &client, "alice", PASSWORD).await);
    world.beta.changes("user", "alice", json!({ "password": "another passw0rd" })).await;
    is_over(&tokens, "password_changed").await;
    refused(&signs_in(&world, &client, "alice", PASSWORD).await, 400, "invalid_grant");

    let tokens = Tokens::of(&signs_in(&world, &client, "alice", "another passw0rd").await);
    world.beta.acts("realm", "TestRealm", "delete-role", json!({ "role": "ROLE_TEST" })).await;
    is_over(&tokens, "role_taken").await;

    world.beta.acts("realm", "TestRealm", "assign", json!({ "user": "alice", "role": "SECOND" })).await;
    let tokens = Tokens::of(&signs_in(&world, &client, "alice", "another passw0rd").await);
    assert_eq!(world.beta.asks("DELETE", "/v2/users/alice", None).await.status(), 204);
    is_over(&tokens, "user_deleted").await;

    world.beta.acts("realm", "TestRealm", "assign", json!({ "user": "bob", "role": "SECOND" })).await;
    let tokens = Tokens::of(&signs_in(&world, &client, "bob", "bob-passw0rd").await);
    let link = Client::registered_with(&world.beta, "shop", json!({ "introspects": ["p2pi"] })).await;
    assert_eq!(world.beta.asks("DELETE", "/v2/tenants/default/realms/TestRealm", None).await.status(), 204);
    assert_eq!(link.introspects(&world.beta, &tokens.access).await.json(), json!({ "active": false }));
    refused(&client.refreshes(&world.beta, &tokens.refresh).await, 401, "invalid_client");
}

#[tokio::test]
async fn a11_a_realm_signs_in_by_code_who_belongs_to_it_and_its_people_allow_no_link() {
    let (world, client) = world_with("").await;
    let person = |login: &str| Person::new(login, &format!("{login}-passw0rd"), &[world.beta.settings.authority()]);
    let (mut alice, mut bob) = (person("alice"), person("bob"));
    let url = client.authorize(&world.beta).with("scope", "openid").url();

    let question = alice.opens(&url).logs_in().await;
    let text = question.text();
    assert!(
        text.contains("Sign in to TestRealm by beta?") && text.contains("your roles there") && !text.contains("links.approve"),
        "{text}"
    );
    let allow = question.form_with("decision").and_then(|form| form.press("decision", "allow")).expect("a question");
    let led = alice.goes(allow).await;
    let tokens = Tokens::of(&client.redeems(&world.beta, &led.parameter("code").expect("a code")).await);
    let seen = client.introspects(&world.beta, &tokens.access).await.json();
    assert_eq!((&seen["username"], &seen["authorities"]), (&json!("alice"), &json!(["ROLE_TEST"])));
    assert_eq!(world.beta.lists("grant").await[0]["made_by"], "consent");

    // Who does not belong to it sees why, and a forged Allow is no way round.
    let question = bob.opens(&url).logs_in().await;
    assert!(question.text().contains("You hold no role in TestRealm"), "{}", question.text());
    let decline = question.form_with("decision").and_then(|form| form.press("decision", "decline")).expect("one button");
    let forged = decline.body().expect("a form by POST").replace("decision=decline", "decision=allow");
    let refusal = bob.browser.step(&decline.with_body(&forged)).await.expect("an answer");
    assert_eq!((refusal.status.as_u16(), refusal.way[0].location()), (403, None), "{}", refusal.text());

    // And who belongs to it allows no link by that.
    let link = Client::registered(&world.beta, "shop").await;
    let question = alice.opens(&link.authorize(&world.beta).url()).await;
    assert_eq!(question.form_with("decision").expect("a question").buttons(), [("decision", "decline")]);

    // A code that is on its way dies with the role.
    let question = alice.opens(&url).await;
    let allow = question.form_with("decision").and_then(|form| form.press("decision", "allow")).expect("a question");
    let led = alice.goes(allow).await;
    world.beta.acts("realm", "TestRealm", "unassign", json!({ "user": "alice", "role": "ROLE_TEST" })).await;
    refused(&client.redeems(&world.beta, &led.parameter("code").expect("a code")).await, 400, "invalid_grant");
    assert_eq!(client.introspects(&world.beta, &tokens.access).await.json(), json!({ "active": false }));
}

#[tokio::test]
async fn v3_of_one_persons_sign_ins_by_code_the_oldest_makes_room() {
    let (world, client) = world_with("").await;
    let mut alice = Person::new("alice", PASSWORD, &[world.beta.settings.authority()]);
    let url = client.authorize(&world.beta).with("scope", "openid").url();
    let mut question = alice.opens(&url).logs_in().await;
    let mut all = Vec::new();
    for _ in 0..65 {
        let allow = question.form_with("decision").and_then(|form| form.press("decision", "allow")).expect("a question");
        let led = alice.goes(allow).await;
        all.push(Tokens::of(&client.redeems(&world.beta, &led.parameter("code").expect("a code")).await));
        question = alice.opens(&url).await;
        // Which one is older is told by the time.
        world.clock.advance(std::time::Duration::from_secs(1));
    }
    for (number, is_signed_in) in [(0, false), (1, true), (64, true)] {
        let seen = client.introspects(&world.beta, &all[number].access).await.json();
        assert_eq!(seen["active"], is_signed_in, "{number}");
    }
    refused(&client.refreshes(&world.beta, &all[0].refresh).await, 400, "invalid_grant");
    let ended = world.beta.audit("action=grant.ended").await;
    assert_eq!(ended.iter().map(|row| &row["details"]["reason"]).collect::<Vec<_>>(), [&json!("displaced")], "{ended:?}");
}
