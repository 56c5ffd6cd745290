//! Instances whose `public_url` has a path: metadata are found by path insertion (RFC 8414 §3.1), and everything of ours is below it.

use serde_json::json;

use crate::world::World;
use crate::world::client::Client;

#[tokio::test]
async fn d1_two_instances_below_a_path_link_call_and_renew() {
    let mut world = World::below("/base", "").await;
    world.introduces().await;
    let url = world.alpha.request_url("beta").await;
    assert!(url.starts_with(&format!("{}/link/", world.alpha.settings.url())), "{url}");
    let page = world.operator.opens(&url).continues().logs_in().allows().await;
    assert_eq!(page.status, 200, "{}", page.text());
    let ours = [world.alpha.settings.url(), world.beta.settings.url()];
    for hop in &page.way {
        assert!(ours.iter().any(|base| hop.url.as_str().starts_with(&format!("{base}/"))), "{} is below neither path", hop.url);
    }
    assert!(page.url.as_str().starts_with(&format!("{}/oauth/callback?", world.alpha.settings.url())), "{}", page.url);
    let answer = world.alpha.calls(&world.beta, "/orders?x=1").await;
    assert_eq!((answer.status(), answer.json()["path"].as_str()), (200, Some("/orders")), "{}", answer.text());
    for _ in 0..2 {
        let peer = world.alpha.acts("peer", "beta", "refresh", json!({})).await;
        assert_eq!(peer["state"], "linked", "{peer}");
        assert_eq!(world.alpha.calls(&world.beta, "/orders").await.status(), 200);
    }
    let unlinked = world.alpha.acts("peer", "beta", "unlink", json!({})).await;
    assert_eq!(unlinked["revoked"], true, "{unlinked}");
    assert!(world.beta.lists("grant").await.is_empty());
}

#[tokio::test]
async fn d1_d2_metadata_of_an_instance_below_a_path_are_where_the_path_is_inserted() {
    let world = World::below("/base", "").await;
    let base = world.beta.settings.url();
    let server = world.beta.is_asked("GET", "/.well-known/oauth-authorization-server/base", &[], "").await;
    assert_eq!(server.status(), 200, "{}", server.text());
    let server = server.json();
    assert_eq!((&server["issuer"], &server["p2pi_endpoint"]), (&json!(base), &json!(format!("{base}/p2pi"))), "{server}");
    let host = base.strip_suffix("/base").expect("it is below the path");
    for (name, value) in server.as_object().expect("an object") {
        let Some(url) = value.as_str().filter(|_| name.ends_with("_endpoint")) else { continue };
        assert!(url.starts_with(&format!("{base}/")), "{name}: {url}");
        let answer = world.beta.is_asked("GET", url.strip_prefix(host).expect("of this host"), &[], "").await;
        assert!(answer.status() != 404 && answer.status() < 500, "{name}: {}", answer.first_line);
    }
    let refused = world.beta.is_asked("GET", "/base/p2pi/orders", &[], "").await;
    let challenge = refused.header("www-authenticate").unwrap_or_default().to_owned();
    let metadata = challenge.split("resource_metadata=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a place to look");
    let resource = world.beta.is_asked("GET", metadata.strip_prefix(host).expect("of this host"), &[], "").await;
    assert_eq!((refused.status(), resource.status()), (401, 200), "{challenge} {}", resource.text());
    assert_eq!(resource.json()["authorization_servers"], json!([base]));
}

#[tokio::test]
async fn calls_find_their_routes_whether_a_proxy_takes_the_path_away_or_leaves_it() {
    let configuration = "[[route]]\npath = \"/\"\nupstream = \"http://127.0.0.1:1\"\nscopes = [\"p2pi\"]\n";
    let mut world = World::below("/base", configuration).await;
    let client = Client::registered(&world.beta, "shop").await;
    let tokens = client.tokens(&world.beta, &mut world.operator).await;
    let bearer = format!("Bearer {}", tokens.access);
    for (path, status, seen) in [
        ("/base/p2pi/orders", 200, Some("/orders")),
        ("/p2pi/orders", 200, Some("/orders")),
        ("/base/p2pi", 200, Some("/")),
        // What belongs to the other route, whose application is not there.
        ("/base/orders", 502, None),
        ("/basement", 502, None),
        // Ours, and nothing there.
        ("/base/link", 404, None),
    ] {
        let answer = world.beta.is_asked("GET", path, &[("Authorization", &bearer)], "").await;
        assert_eq!(answer.status(), status, "{path}: {}", answer.text());
        if seen.is_some() {
            assert_eq!(answer.json()["path"].as_str(), seen, "{path}");
        }
    }
    let metrics = world.beta.console("/metrics").await.text();
    let count = |route: &str| {
        let is_it = |line: &&str| line.contains(&format!("route=\"{route}\"")) && line.contains("status=\"2xx\"");
        metrics.lines().find(is_it).and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
    };
    assert_eq!(count("/p2pi").as_deref(), Some("3"), "{metrics}");
}
