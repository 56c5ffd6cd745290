//! Tokens, passwords and client secrets are for the origins that they were given for, and private addresses for who rules the instance.

use serde_json::{Value, json};

use super::world::hostile::{Endpoint, Fault, Hostile};
use super::world::message::Message;
use super::world::scene::Scene;
use super::world::settings::request;
use super::world::wire::Wire;

/// An address that nobody may be called at.
struct Elsewhere(std::net::TcpListener);

impl Elsewhere {
    fn new() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        Self(listener)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    fn port(&self) -> u16 {
        self.0.local_addr().expect("bound").port()
    }

    fn was_not_called(&self) {
        let accepted = self.0.accept().map(|(_, who)| who);
        assert!(accepted.is_err(), "called from {accepted:?}");
    }
}

async fn asked(scene: &Scene, method: &str, path: &str, kind: &str, attributes: &Value) -> Message {
    let document = json!({ "data": { "type": kind, "attributes": attributes } });
    scene.alpha.asks(method, &format!("/v2/tenants/default/{path}"), Some(&document)).await
}

/// A change that is refused because it would take a secret elsewhere; the answer says with which flag to give it again.
async fn is_refused(scene: &Scene, path: &str, kind: &str, attributes: Value, flag: &str) {
    let answer = asked(scene, "PATCH", path, kind, &attributes).await;
    let error = &answer.json()["errors"][0];
    assert_eq!((answer.status(), &error["code"]), (400, &json!("missing_attribute")), "{path} {attributes}: {}", answer.text());
    assert!(error["meta"]["next"].as_str().is_some_and(|next| next.contains(flag)), "{path} {attributes}: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_another_base_url_ends_the_link_and_revokes_its_token() {
    let scene = Scene::linked_with(Hostile::poses_as_p2pid).await;
    let (old, elsewhere) = (scene.two.refresh_token(), Elsewhere::new());
    let same = scene.alpha.changes("peer", "two", json!({ "base_url": format!("{}/below", scene.two.url()) })).await;
    assert_eq!((&same["state"], &same["warnings"]), (&json!("linked"), &json!([])), "the same origin: {same}");
    let moved = scene.alpha.changes("peer", "two", json!({ "base_url": elsewhere.url() })).await;
    assert_eq!(moved["state"], "ready_to_link");
    assert!(moved["warnings"][0].as_str().is_some_and(|warning| warning.contains("p2pid peer request two")), "{moved}");
    assert_eq!(scene.calls().await.header("p2pi-error"), Some("not_linked"));
    assert_eq!(scene.two.hears(1, Endpoint::Revoke).await[0].parameter("token").map(str::to_owned), old);
    elsewhere.was_not_called();
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_a_password_is_given_again_for_another_address() {
    let (scene, elsewhere) = (Scene::new().await, Elsewhere::new());
    let authority = std::fs::read_to_string(scene.two.authority()).expect("the peer's certificate");
    let basic = json!({ "name": "basic", "url": scene.two.url(), "ca": authority, "username": "alpha", "password": "correct horse" });
    scene.alpha.creates("peer", basic).await;
    for moved in [
        json!({ "url": elsewhere.url() }),
        json!({ "base_url": elsewhere.url() }),
        json!({ "base_url": elsewhere.url(), "username": "another" }),
    ] {
        is_refused(&scene, "peers/basic", "peer", moved, "--password-stdin").await;
    }
    elsewhere.was_not_called();
    scene.alpha.changes("peer", "basic", json!({ "url": format!("{}/below", scene.two.url()) })).await;
    let given = json!({ "base_url": elsewhere.url(), "username": "alpha", "password": "for there" });
    assert_eq!(scene.alpha.changes("peer", "basic", given).await["base_url"], elsewhere.url());
    is_refused(&scene, "peers/basic", "peer", json!({ "base_url": "" }), "--password-stdin").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_a_password_does_not_follow_the_server_of_an_app() {
    let (scene, elsewhere) = (Scene::new().await, Elsewhere::new());
    let app = json!({ "name": "app", "client_id": "alpha", "grant": "password", "token_url": format!("{}/oauth/token", scene.two.url()) });
    scene.alpha.creates("ob-app", app).await;
    let other = json!({ "name": "other", "client_id": "alpha", "grant": "password", "token_url": elsewhere.url() });
    scene.alpha.creates("ob-app", other).await;
    let authority = std::fs::read_to_string(scene.two.authority()).expect("the peer's certificate");
    let peer = json!({
        "name": "asked", "url": scene.two.url(), "ca": authority, "ob": "app", "username": "alpha", "password": "correct horse",
    });
    scene.alpha.creates("peer", peer).await;
    is_refused(&scene, "peers/asked", "peer", json!({ "ob": "other" }), "--password-stdin").await;
    let moved = asked(&scene, "PATCH", "ob-apps/app", "ob-app", &json!({ "token_url": elsewhere.url() })).await;
    assert_eq!((moved.status(), &moved.json()["errors"][0]["code"]), (400, &json!("password_bound")), "{}", moved.text());
    elsewhere.was_not_called();
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_a_client_secret_is_given_again_for_another_server() {
    let (scene, elsewhere) = (Scene::linked().await, Elsewhere::new());
    let token_url = format!("{}/token", elsewhere.url());
    for moved in [
        json!({ "issuer": elsewhere.url() }),
        json!({ "token_url": token_url, "authorize_url": format!("{}/authorize", scene.two.url()) }),
        json!({ "issuer": elsewhere.url(), "client_id": "another" }),
    ] {
        is_refused(&scene, "ob-apps/two", "ob-app", moved, "--client-secret-stdin").await;
    }
    is_refused(&scene, "peers/two", "peer", json!({ "url": elsewhere.url() }), "--client-secret-stdin").await;
    assert_eq!(scene.alpha.state_of("two").await, "linked", "nothing was changed");
    // What a deleted peer leaves is no way round.
    assert_eq!(scene.alpha.asks("DELETE", "/v2/tenants/default/peers/two", None).await.status(), 204);
    let again = json!({ "name": "two", "url": elsewhere.url(), "client_id": "alpha" });
    assert_eq!(asked(&scene, "POST", "peers", "peer", &again).await.status(), 400);
    elsewhere.was_not_called();
    let own_token_url = format!("{}/oauth/token", scene.two.url());
    let same = json!({ "token_url": own_token_url, "authorize_url": format!("{}/oauth/authorize", scene.two.url()) });
    assert_eq!(scene.alpha.changes("ob-app", "two", same).await["token_url"], own_token_url);
    let given = json!({ "token_url": token_url, "client_secret": "a-secret-for-there" });
    assert_eq!(scene.alpha.changes("ob-app", "two", given).await["token_url"], token_url);
}

/// An admin of the tenant `default`, who does not rule the instance, at the console.
struct TenantAdmin(String);

impl TenantAdmin {
    async fn of(scene: &Scene) -> Self {
        use base64::Engine;
        let login = "tenant@example.com";
        let user = json!({ "login": login, "password": "correct horse battery", "admin": true, "tenant": "default" });
        scene.alpha.creates("user", user).await;
        let nothing = json!({ "data": { "type": "user", "attributes": {} } });
        let key = scene.alpha.asks("POST", &format!("/v2/users/{login}/key"), Some(&nothing)).await.json();
        let key = key["data"]["attributes"]["api_key"].as_str().expect("a key").to_owned();
        Self(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{login}:{key}"))))
    }

    async fn asks(&self, scene: &Scene, method: &str, path: &str, kind: &str, attributes: &Value) -> Message {
        let document = json!({ "data": { "type": kind, "attributes": attributes } }).to_string();
        let console = scene.alpha.settings.console;
        let headers = [("Content-Type", "application/json"), ("Authorization", self.0.as_str())];
        let path = format!("/v2/tenants/default/{path}");
        Wire::plain(console).await.asks(request(method, &path, &console.to_string(), &headers, &document)).await
    }

    async fn is_refused(&self, scene: &Scene, method: &str, path: &str, kind: &str, attributes: Value) {
        let answer = self.asks(scene, method, path, kind, &attributes).await;
        let error = &answer.json()["errors"][0];
        assert_eq!((answer.status(), &error["code"]), (400, &json!("bad_attribute")), "{path} {attributes}: {}", answer.text());
        assert!(error["meta"]["next"].as_str().is_some_and(|next| next.contains("admin of the instance")), "{attributes}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c10_only_who_rules_the_instance_names_private_addresses() {
    let (scene, elsewhere) = (Scene::new().await, Elsewhere::new());
    let tenant_admin = TenantAdmin::of(&scene).await;
    let peers = |url: &str| json!({ "name": "inner", "url": url, "username": "alpha", "password": "correct horse" });
    let port = elsewhere.port();
    for url in [
        elsewhere.url(),
        format!("https://127.0.0.1:{port}"),
        format!("https://localhost:{port}"),
        format!("https://[::1]:{port}"),
        format!("https://[::ffff:127.0.0.1]:{port}"),
        format!("https://0.0.0.0:{port}"),
        "https://10.0.0.1".to_owned(),
        "https://169.254.169.254".to_owned(),
    ] {
        tenant_admin.is_refused(&scene, "POST", "peers", "peer", peers(&url)).await;
        let app = |server: Value| {
            let mut app = json!({ "name": "app", "client_id": "alpha" });
            app.as_object_mut().expect("an object").extend(server.as_object().cloned().unwrap_or_default());
            app
        };
        let public = "https://1.1.1.1/x";
        for server in [
            json!({ "issuer": url }),
            json!({ "token_url": url, "authorize_url": public }),
            json!({ "token_url": public, "authorize_url": url }),
        ] {
            tenant_admin.is_refused(&scene, "POST", "ob-apps", "ob-app", app(server)).await;
        }
    }
    elsewhere.was_not_called();

    let authority = std::fs::read_to_string(scene.two.authority()).expect("the peer's certificate");
    // What an admin of the instance named goes on, and can be called by everybody; but not be moved.
    let admins = json!({ "name": "inner", "url": scene.two.url(), "ca": authority, "username": "alpha", "password": "correct horse" });
    scene.alpha.creates("peer", admins).await;
    let probed = tenant_admin.asks(&scene, "POST", "peers/inner/probe", "peer", &json!({})).await;
    assert!(probed.text().contains("certificate valid"), "{}", probed.text());
    let password = json!({ "base_url": elsewhere.url(), "username": "alpha", "password": "for there" });
    tenant_admin.is_refused(&scene, "PATCH", "peers/inner", "peer", password.clone()).await;
    tenant_admin.is_refused(&scene, "PATCH", "peers/two", "peer", json!({ "url": elsewhere.url(), "client_secret": "for there" })).await;
    tenant_admin.is_refused(&scene, "PATCH", "ob-apps/two", "ob-app", json!({ "issuer": elsewhere.url(), "client_secret": "x" })).await;
    elsewhere.was_not_called();
    scene.alpha.changes("peer", "inner", password).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_changes_at_once_neither_undoes_the_other() {
    let scene = Scene::new().await;
    let authority = std::fs::read_to_string(scene.two.authority()).expect("the peer's certificate");
    let asked_before = scene.two.heard(Endpoint::Metadata).len();
    // The first looks at the peer before it is written, and the peer takes its time.
    scene.two.next(Endpoint::Metadata, Fault::Held);
    let first = scene.alpha.changes("peer", "two", json!({ "ca": authority }));
    let second = async {
        scene.two.hears(asked_before + 1, Endpoint::Metadata).await;
        // A peer that takes its time holds up nobody's changes; the first then looks once more, at the peer as it is by now.
        scene.alpha.changes("peer", "two", json!({ "base_url": format!("{}/below", scene.two.url()) })).await;
        scene.two.release();
    };
    futures_util::future::join(first, second).await;
    assert_eq!(scene.peer().await["base_url"], format!("{}/below", scene.two.url()));
}
