//! Strangers: whoever has authenticated nowhere makes the database no larger, but for the few rows by which the audit tells of them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::world::World;
use crate::world::client::{Client, VERIFIER, s256};
use crate::world::key_holder::{Holder, encoded};
use crate::world::node::Node;
use crate::world::person::Person;

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// How many rows each table has.
fn rows(node: &Node) -> BTreeMap<String, i64> {
    let database = node.settings.reads_database();
    let mut tables = database.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").expect("it reads");
    let tables = tables.query_map([], |row| row.get::<_, String>(0)).expect("it reads");
    let count = |table: String| {
        let rows = database.query_row(&format!("SELECT count(*) FROM \"{table}\""), [], |row| row.get(0)).expect("it counts");
        (table, rows)
    };
    tables.map(|table| count(table.expect("a name"))).collect()
}

/// How many rows each table has on either side, the audit's for themselves.
fn counted(world: &World) -> ([BTreeMap<String, i64>; 2], i64) {
    let mut rows = [rows(&world.alpha), rows(&world.beta)];
    let told = rows.iter_mut().filter_map(|rows| rows.remove("audit")).sum();
    (rows, told)
}

#[tokio::test]
async fn a_stranger_leaves_no_row_at_any_door() {
    let world = World::with("[limits]\nauth_failures = \"1000/min\"\n[public]\nadmin_api = true\n").await;
    world.introduces().await;
    let client = Client::registered(&world.beta, "shop").await;
    let url = world.alpha.request_url("beta").await;
    let ticket = url.strip_prefix(&world.alpha.settings.url()).expect("ours");
    let (before, told_before) = counted(&world);

    let mut stranger =
        Person::new("nobody@beta.example", "some wrong password", &[world.alpha.settings.authority(), world.beta.settings.authority()]);
    let page = stranger.opens(&client.authorize(&world.beta).url()).logs_in().await;
    assert_eq!(page.status, 401);
    for path in ["/login", "/logout", "/oauth/authorize?client_id=nobody", "/link/p2pt_nothing", "/oauth/callback?code=x&state=y", ticket] {
        for node in [&world.alpha, &world.beta] {
            node.is_asked("GET", path, &[], "").await;
            node.is_asked("POST", path, &[FORM], "token=x&username=x&password=y&decision=allow").await;
        }
    }
    let (holder, challenge) = (Holder::new(), s256(VERIFIER));
    let mut forms = Vec::new();
    for client_id in [client.id.as_str(), "nobody"] {
        let credentials =
            [vec![("client_id", client_id)], vec![("client_id", client_id), ("client_secret", "a wrong secret of some length")]];
        let assertion = holder.assertion(&world, client_id, json!({}));
        let asserted =
            [("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"), ("client_assertion", &assertion)];
        for credentials in credentials.into_iter().chain([asserted.to_vec()]) {
            for (path, wanted) in [
                ("/oauth/token", vec![("grant_type", "client_credentials")]),
                ("/oauth/token", vec![("grant_type", "refresh_token"), ("refresh_token", "p2pr_nothing")]),
                ("/oauth/par", vec![("response_type", "code"), ("code_challenge", &challenge), ("code_challenge_method", "S256")]),
                ("/oauth/introspect", vec![("token", "p2pa_nothing")]),
                ("/oauth/revoke", vec![("token", "p2pa_nothing")]),
            ] {
                forms.push((path, encoded(&[credentials.clone(), wanted].concat())));
            }
        }
    }
    for (path, form) in &forms {
        let proof = holder.proof(&world, "POST", path, json!({}));
        for headers in [vec![FORM], vec![FORM, ("DPoP", proof.as_str())]] {
            let answer = world.beta.is_asked("POST", path, &headers, form).await;
            assert!([400, 401].contains(&answer.status()), "{path} {form}: {} {}", answer.first_line, answer.text());
        }
    }
    for (path, authorization) in [("/p2pi/orders", "Bearer p2pa_nothing"), ("/v2/tenants", "Basic bm9ib2R5OnAycGtfeA==")] {
        assert_eq!(world.beta.is_asked("GET", path, &[("Authorization", authorization)], "").await.status(), 401, "{path}");
    }
    let (after, told) = counted(&world);
    assert_eq!(after, before);
    // Of what can be had as often as somebody asks the audit keeps the first of each kind, and a number.
    assert!((1..20).contains(&(told - told_before)), "{} of {} attempts", told - told_before, 2 * forms.len());
}

#[tokio::test]
async fn of_an_app_that_anybody_can_claim_to_be_one_address_pushes_so_many_requests_and_no_more() {
    let world = World::with("[public]\ntrusted_proxies = [\"127.0.0.0/8\"]\n").await;
    let wanted = json!({ "name": "phone", "scopes": ["p2pi"], "redirect_uris": ["https://phone.example/done"], "auth_method": "none" });
    let client_id = world.beta.creates("ib-app", wanted).await["client_id"].as_str().expect("an id").to_owned();
    let form = [
        ("client_id", client_id.as_str()),
        ("response_type", "code"),
        ("redirect_uri", "https://phone.example/done"),
        ("code_challenge", &s256(VERIFIER)),
        ("code_challenge_method", "S256"),
    ];
    let form = encoded(&form);
    let pushes = async |from: &str| world.beta.is_asked("POST", "/oauth/par", &[FORM, ("X-Forwarded-For", from)], &form).await;
    for _ in 0..100 {
        assert_eq!(pushes("192.0.2.1").await.status(), 201);
    }
    let refused = pushes("192.0.2.1").await;
    assert_eq!((refused.status(), refused.header("p2pi-error")), (429, Some("rate_limited")), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    assert_eq!(pushes("192.0.2.2").await.status(), 201, "others go on");
    assert_eq!(rows(&world.beta)["pushed_request"], 101);
    world.clock.advance(Duration::from_secs(6));
    assert_eq!(pushes("192.0.2.1").await.status(), 201);
}
