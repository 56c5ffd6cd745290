//! What somebody allowed, and takes back: the page `/grants`; and the lists of it, however long they are.

use serde_json::{Value, json};

use crate::world::World;
use crate::world::client::Client;
use crate::world::person::Person;
use crate::world::process::Process;
use crate::world::settings::request;
use crate::world::wire::Wire;

fn page_of(world: &World) -> String {
    format!("{}/grants", world.beta.settings.url())
}

#[tokio::test]
async fn who_allowed_a_link_sees_it_and_takes_it_back_at_once() {
    let mut world = World::new().await;
    world.introduces().await;
    let url = world.alpha.request_url("beta").await;
    let linked = world.operator.opens(&url).continues().logs_in().allows().await;
    assert!(linked.text().contains(&format!("until it is withdrawn at {}.", page_of(&world))), "{}", linked.text());

    // In another browser, where nobody is signed in yet.
    let mut person = Person::new(&world.operator.login, &world.operator.password, &[world.beta.settings.authority()]);
    let page = person.opens(&page_of(&world)).await;
    assert_eq!((page.url.path(), page.url.query()), ("/login", Some("next=%2Fgrants")));
    let page = person.goes_on_from(&page).logs_in().await;
    assert_eq!((page.status.as_u16(), page.url.as_str()), (200, page_of(&world).as_str()));
    let text = page.text();
    for part in
        ["alpha", "Call this instance's platform interface ( p2pi )", &world.alpha.settings.url(), "Last used never", &world.operator.login]
    {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    assert_eq!(world.alpha.calls(&world.beta, "/orders").await.status(), 200);
    let text = person.opens(&page_of(&world)).await.text();
    assert!(!text.contains("Last used never") && text.contains("Last used 20"), "{text}");

    let mut wire = Wire::plain(world.alpha.settings.local).await;
    wire.sends(format!("GET /beta/events HTTP/1.1\r\nHost: {}\r\n\r\n", world.alpha.settings.local)).await;
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("data: event 1\n") {
        let bytes = wire.some_bytes(4096).await;
        assert!(!bytes.is_empty(), "it ended early: {}", String::from_utf8_lossy(&seen));
        seen.extend(bytes);
    }
    let withdraw = page.form_with("grant").expect("one grant").submit();
    let done = person.browser.step(&withdraw).await.expect("an answer");
    let text = done.text();
    assert_eq!(done.status, 200, "{text}");
    assert!(text.contains("Withdrawn: alpha may not use beta in your name any more.") && text.contains("Nothing is allowed"), "{text}");
    wire.ends().await;
    let refused = world.alpha.calls(&world.beta, "/orders").await;
    assert_eq!((refused.status(), refused.header("p2pi-error")), (503, Some("relink_required")), "{}", refused.text());
    let id = withdraw.body().and_then(|body| body.split("grant=").nth(1)).expect("a grant").to_owned();
    let shown = world.beta.shows("grant", &id).await;
    assert_eq!((&shown["ended_why"], &shown["ended_by"]), (&json!("revoked_by_user"), &json!(world.operator.login)), "{shown}");

    let again = person.browser.step(&withdraw).await.expect("an answer");
    assert_eq!(again.status, 200);
    assert!(again.text().contains("What alpha was allowed had ended before. Nothing was changed."), "{}", again.text());
}

#[tokio::test]
async fn nobody_sees_or_ends_what_somebody_else_allowed_and_a_lost_permission_takes_nothing_back() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    let password = "another horse battery";
    let user = json!({ "login": "clerk@beta.example", "password": password, "permissions": ["links.approve"] });
    world.beta.creates("user", user).await;
    let mut clerk = Person::new("clerk@beta.example", password, &[world.beta.settings.authority()]);
    client.tokens(&world.beta, &mut clerk).await;
    let own = clerk.opens(&page_of(&world)).await.form_with("grant").expect("one grant");
    let theirs = own.value("grant").expect("its id").to_owned();

    client.tokens(&world.beta, &mut world.operator).await;
    let page = world.operator.opens(&page_of(&world)).await;
    let form = page.form_with("grant").expect("only the operator's own");
    assert_ne!(form.value("grant"), Some(theirs.as_str()));
    let body = form.clone().submit().body().expect("a form").to_owned();
    let mine = form.value("grant").expect("its id").to_owned();
    for wrong in [body.replace(&mine, &theirs), body.replace(&mine, "nonsense"), body.replace("grant=", "x=")] {
        let refused = world.operator.browser.step(&form.clone().submit().with_body(&wrong)).await.expect("an answer");
        assert_eq!(refused.status, 404, "{}", refused.text());
        assert!(refused.text().contains("You allowed nothing of that kind"), "{}", refused.text());
    }
    assert_eq!(world.beta.lists("grant").await.len(), 2);

    world.beta.changes("user", "clerk@beta.example", json!({ "permissions": [] })).await;
    let page = clerk.opens(&page_of(&world)).await;
    let done = clerk.browser.step(&page.form_with("grant").expect("still theirs").submit()).await.expect("an answer");
    assert!(done.text().contains("Withdrawn: shop may not use beta"), "{}", done.text());
    let left = world.beta.lists("grant").await;
    assert_eq!(left.iter().map(|grant| grant["id"].clone()).collect::<Vec<_>>(), [json!(mine)]);
}

#[tokio::test]
async fn a_list_of_many_grants_is_whole_and_comes_page_by_page() {
    let one = Process::running("one").await;
    for name in ["shop", "bank"] {
        one.runs(&["ib", "create", name, "--redirect-uri", &format!("https://{name}.example/done")]).await;
    }
    let database = rusqlite::Connection::open(one.settings.state_dir().join("p2pid.db")).expect("the database");
    // By turns of the two apps; every tenth is not over.
    let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
        INSERT INTO grant (id, app, scope, epoch, created_at, ended_at, ended_why, purge_at)
        SELECT CAST(printf('%016d', i) AS BLOB), (SELECT id FROM ib_app WHERE name = iif(i % 2 = 0, 'shop', 'bank')), 'p2pi', (SELECT epoch FROM meta), i,
            iif(i % 10 = 0, NULL, i), iif(i % 10 = 0, NULL, 'revoked_by_admin'), 253402300799999 FROM n";
    database.execute(fill, []).expect("many grants");
    let ids = |list: &Value| -> Vec<String> {
        list.as_array().expect("an array").iter().map(|grant| grant["id"].as_str().expect("an id").to_owned()).collect()
    };
    let all = ids(&one.runs(&["grant", "list", "--all"]).await);
    assert!(all.len() == 2_500 && all.is_sorted(), "{} grants", all.len());
    assert_eq!(ids(&one.runs(&["grant", "list"]).await), all.iter().skip(9).step_by(10).cloned().collect::<Vec<_>>());
    let of_shop = one.runs(&["grant", "list", "--all", "--app", "shop"]).await;
    assert_eq!(of_shop.as_array().map(Vec::len), Some(1_250));
    let text = one.says(&["grant", "list", "--all"]).await.stdout;
    assert_eq!((text.lines().count(), text.matches("ALLOWED BY").count()), (2_501, 1), "one table with one head");
    let places: std::collections::BTreeSet<_> = text.lines().skip(1).map(|line| line.find("p2pi")).collect();
    assert_eq!(places.len(), 1, "its columns stand in line from page to page: {places:?}");

    let mut path = "/v2/tenants/default/grants?all=true&app=bank&limit=500".to_owned();
    let mut sizes = Vec::new();
    loop {
        let mut wire = Wire::unix(&one.settings.socket()).await;
        let document = wire.asks(request("GET", &path, "localhost", &[], "")).await.json();
        sizes.push(document["data"].as_array().expect("a list").len());
        let Some(next) = document["links"]["next"].as_str() else { break };
        path = next.to_owned();
    }
    assert_eq!(sizes, [500, 500, 250]);
}

#[tokio::test]
async fn who_allowed_more_than_fits_a_page_goes_on_to_what_is_older() {
    let mut world = World::new().await;
    Client::registered(&world.beta, "shop").await;
    let database = rusqlite::Connection::open(world.beta.settings.state_dir().join("p2pid.db")).expect("the database");
    let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 450)
        INSERT INTO grant (id, app, user, scope, epoch, created_at, purge_at)
        SELECT CAST(printf('%016d', i) AS BLOB), (SELECT id FROM ib_app), (SELECT id FROM user WHERE login = ?1), 'p2pi',
            (SELECT epoch FROM meta), i, 253402300799999 FROM n";
    database.execute(fill, [&world.operator.login]).expect("many grants");
    let mut page = world.operator.opens(&page_of(&world)).logs_in().await;
    let mut seen = Vec::new();
    loop {
        seen.push(page.body.matches("Withdraw from shop").count());
        assert_eq!(page.body.contains(">The newest</a>"), seen.len() > 1, "{}", page.body);
        let Some(older) = page.links().into_iter().find(|link| link.query().is_some_and(|query| query.starts_with("before="))) else {
            break;
        };
        page = world.operator.opens(older.as_str()).await;
    }
    assert_eq!(seen, [200, 200, 50]);
    let first = format!("{}?before={}", page_of(&world), "0".repeat(32));
    assert!(world.operator.opens(&first).await.text().contains("Nothing older is allowed in your name now."));
}
