//! `[[route]]`, and what of `[instance]` and `[public]` shows in metadata, on pages and in what the application is told.

use p2pid::cli::demo::application::Application;
use serde_json::json;

use super::{reloads, says};
use crate::world::World;
use crate::world::address::own_address;
use crate::world::client::Client;
use crate::world::message::Message;
use crate::world::settings::request;
use crate::world::wire::Wire;

/// Somebody with a token for the scope `p2pi` at beta.
struct Caller {
    world: World,
    token: String,
}

impl Caller {
    async fn new() -> Self {
        let mut world = World::new().await;
        let client = Client::registered(&world.beta, "shop").await;
        let token = client.tokens(&world.beta, &mut world.operator).await.access;
        Self { world, token }
    }

    async fn calls(&self, method: &str, target: &str) -> Message {
        let bearer = format!("Bearer {}", self.token);
        self.world.beta.is_asked(method, target, &[("Authorization", &bearer)], "").await
    }

    async fn error(&self, method: &str, target: &str) -> (u16, Option<String>) {
        let answer = self.calls(method, target).await;
        (answer.status(), answer.header("p2pi-error").map(str::to_owned))
    }

    /// What the application of beta was asked last.
    fn asked(&self) -> String {
        self.world.beta.application.last().expect("a request").target.to_string()
    }

    /// A second route at beta, to the same application.
    async fn routes(&self, rest: &str) {
        let upstream = self.world.beta.application.url();
        says(&self.world.beta, &format!("[[route]]\nupstream = \"{upstream}/shop\"\n{rest}")).await;
    }
}

#[tokio::test]
async fn path_and_upstream() {
    let caller = Caller::new().await;
    assert_eq!(caller.error("GET", "/shop/orders?x=1").await, (404, Some("no_route".into())));
    caller.routes("path = \"/shop\"").await;
    assert_eq!(caller.error("GET", "/shop/orders?x=1").await, (200, None));
    assert_eq!(caller.asked(), "/shop/orders?x=1");
    assert_eq!(caller.error("GET", "/shopping").await, (404, Some("no_route".into())), "segments are whole");
    let other = Application::start("other", (own_address(), 0).into()).await.expect("an address");
    says(&caller.world.beta, &format!("[[route]]\npath = \"/shop\"\nupstream = \"{}\"", other.url())).await;
    assert_eq!(caller.error("GET", "/shop/orders").await, (200, None));
    assert_eq!(other.last().expect("a request").target, "/orders");
}

#[tokio::test]
async fn scopes() {
    let caller = Caller::new().await;
    caller.routes("path = \"/shop\"\nscopes = [\"p2pi\", \"more\"]\n[scopes]\nmore = \"More\"").await;
    assert_eq!(caller.error("GET", "/shop").await, (403, Some("insufficient_scope".into())));
    caller.routes("path = \"/shop\"\nscopes = [\"p2pi\"]").await;
    assert_eq!(caller.error("GET", "/shop").await, (200, None));
}

#[tokio::test]
async fn methods() {
    let caller = Caller::new().await;
    caller.routes("path = \"/shop\"\nmethods = [\"POST\"]").await;
    assert_eq!(caller.error("GET", "/shop").await, (405, Some("method_not_allowed".into())));
    assert_eq!(caller.error("POST", "/shop").await, (200, None));
    caller.routes("path = \"/shop\"").await;
    assert_eq!(caller.error("PATCH", "/shop").await, (200, None));
}

#[tokio::test]
async fn tenant() {
    let caller = Caller::new().await;
    caller.routes("path = \"/shop\"\ntenant = \"sales\"").await;
    assert_eq!(caller.error("GET", "/shop").await, (404, Some("no_route".into())), "another tenant's looks like none");
    caller.routes("path = \"/shop\"\ntenant = \"default\"").await;
    assert_eq!(caller.error("GET", "/shop").await, (200, None));
}

#[tokio::test]
async fn paths() {
    let caller = Caller::new().await;
    caller.routes("path = \"/shop\"").await;
    assert_eq!(caller.error("GET", "/shop/a%2Fb").await, (400, Some("bad_path".into())));
    caller.routes("path = \"/shop\"\npaths = \"raw\"").await;
    assert_eq!(caller.error("GET", "/shop/a%2Fb").await, (200, None));
    assert!(caller.asked().eq_ignore_ascii_case("/shop/a%2fb"), "{}", caller.asked());
}

#[tokio::test]
async fn compat_query_token() {
    let caller = Caller::new().await;
    let target = format!("/p2pi/orders?x=1&access_token={}", caller.token);
    let asks = async || {
        let answer = caller.world.beta.is_asked("GET", &target, &[], "").await;
        (answer.status(), answer.header("p2pi-error").map(str::to_owned))
    };
    assert_eq!(asks().await, (401, Some("no_token".into())));
    says(&caller.world.beta, "[compat]\nquery_token = true").await;
    assert_eq!(asks().await, (200, None));
    assert!(caller.asked().ends_with("/orders?x=1"), "the token stays here: {}", caller.asked());
    says(&caller.world.beta, "[compat]\nquery_token = false").await;
    assert_eq!(asks().await, (401, Some("no_token".into())));
}

#[tokio::test]
async fn public_trusted_proxies() {
    let caller = Caller::new().await;
    let forwarded = async || {
        let bearer = format!("Bearer {}", caller.token);
        let headers = [("Authorization", bearer.as_str()), ("X-Forwarded-For", "192.0.2.7")];
        assert_eq!(caller.world.beta.is_asked("GET", "/p2pi/x", &headers, "").await.status(), 200);
        caller.world.beta.application.last().expect("a request").header("forwarded").map(str::to_owned).expect("Forwarded")
    };
    assert!(!forwarded().await.contains("192.0.2.7"));
    says(&caller.world.beta, "[public]\ntrusted_proxies = [\"127.0.0.0/8\"]").await;
    assert!(forwarded().await.contains("192.0.2.7"));
}

#[tokio::test]
async fn public_hsts() {
    let world = World::new().await;
    let page = async || world.beta.is_asked("GET", "/login", &[], "").await;
    assert_eq!(page().await.header("strict-transport-security"), None);
    says(&world.beta, "[public]\nhsts = true").await;
    let page = page().await;
    assert!(page.header("strict-transport-security").is_some_and(|value| value.contains("max-age=")), "{:?}", page.headers);
}

#[tokio::test]
async fn instance_public_url_and_p2pi_path_are_in_the_metadata() {
    let mut world = World::new().await;
    let metadata = |world: &World| {
        let text = request("GET", "/.well-known/oauth-authorization-server", &world.beta.settings.public.to_string(), &[], "");
        let (address, authority) = (world.beta.settings.public, world.beta.settings.authority());
        async move { Wire::tls(address, &authority).await.asks(text).await.json() }
    };
    let url = world.beta.settings.url();
    let said = metadata(&world).await;
    assert_eq!((&said["issuer"], &said["p2pi_endpoint"]), (&json!(url), &json!(format!("{url}/p2pi"))));
    assert_eq!(reloads(&world.beta, "[instance]\np2pi_path = \"/p2pi/v2\"").await, json!(["instance.p2pi_path"]));
    world.beta.restarts().await;
    assert_eq!(metadata(&world).await["p2pi_endpoint"], json!(format!("{url}/p2pi/v2")));
}

#[tokio::test]
async fn scopes_are_described_on_the_allow_page() {
    let mut world = World::new().await;
    says(&world.beta, "[scopes]\np2pi = \"Order everything there is\"").await;
    let client = Client::registered(&world.beta, "shop").await;
    let page = world.operator.opens(&client.authorize(&world.beta).url()).logs_in().await;
    assert!(page.text().contains("Order everything there is"), "{}", page.text());
}
