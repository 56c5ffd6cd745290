//! Rows of what apps do with codes and tokens: by whom, to whose grant, from where.

use std::time::Duration;

use serde_json::{Value, json};

use super::{row_of, told};
use crate::world::World;
use crate::world::client::{Client, Tokens, VERIFIER};
use crate::world::key_holder::{Holder, redeeming};
use crate::world::message::Message;

const HERE: &str = "192.0.2.1";
const ELSEWHERE: &str = "2001:db8::2";

/// An instance behind a proxy that says who asks; an app of the tenant `default`, and one of the tenant `sales` that has what is not its own.
struct Scene {
    world: World,
    shop: Client,
    thief: Client,
}

impl Scene {
    async fn new() -> Self {
        let world =
            World::with("[public]\ntrusted_proxies = [\"127.0.0.0/8\"]\n[scopes]\nsales-api = { text = \"Sales\", tenant = \"sales\" }\n");
        let world = world.await;
        let shop = Client::registered_with(
            &world.beta,
            "shop",
            json!({ "grants": ["authorization_code", "refresh_token", "client_credentials"] }),
        );
        let shop = shop.await;
        world.beta.creates("tenant", json!({ "name": "sales" })).await;
        let redirect_uri = "https://thief.example/done";
        let wanted = json!({ "name": "thief", "redirect_uris": [redirect_uri], "scopes": ["sales-api"] });
        let document = json!({ "data": { "type": "ib-app", "attributes": wanted } });
        let app = world.beta.asks("POST", "/v2/tenants/sales/ib-apps", Some(&document)).await.json();
        let text = |name: &str| app["data"]["attributes"][name].as_str().unwrap_or_else(|| panic!("no {name}: {app}")).to_owned();
        let thief = Client { id: text("client_id"), secret: text("client_secret"), redirect_uri: redirect_uri.to_owned() };
        Self { world, shop, thief }
    }

    async fn code(&mut self) -> String {
        self.shop.code(&self.world.beta, &mut self.world.operator).await
    }

    async fn posts(&self, client: &Client, from: &str, path: &str, form: &[(&str, &str)]) -> Message {
        let own = [("client_id", client.id.as_str()), ("client_secret", client.secret.as_str())];
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form.iter().chain(&own)).finish();
        let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("X-Forwarded-For", from)];
        self.world.beta.is_asked("POST", path, &headers, &body).await
    }

    async fn redeems(&self, client: &Client, from: &str, code: &str) -> Message {
        self.posts(client, from, "/oauth/token", &redeeming(code, &self.shop.redirect_uri)).await
    }

    async fn refreshes(&self, client: &Client, from: &str, token: &str) -> Message {
        self.posts(client, from, "/oauth/token", &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    async fn revokes(&self, client: &Client, from: &str, token: &str) -> Message {
        self.posts(client, from, "/oauth/revoke", &[("token", token)]).await
    }

    /// The newest row of that action. It says what the other words say, has the fingerprint of what was presented, and no secret.
    async fn tells(&self, action: &str, outcome: &str, by: &Client, (kind, name): (&str, &str), from: &str, presented: &str) -> Value {
        let row = row_of(&self.world.beta, action, &[presented, &self.shop.secret, &self.thief.secret, VERIFIER]).await;
        assert_eq!(told(&row), json!([outcome, "client", by.id, kind, name, "default", from]), "{row}");
        let fingerprint = p2pid::secret::Digest::of(presented).fingerprint().to_string();
        assert_eq!(row["details"]["token"], fingerprint, "{row}");
        row
    }
}

#[tokio::test]
async fn t4_t5_what_becomes_of_codes_is_told() {
    let mut scene = Scene::new().await;
    let code = scene.code().await;
    assert_eq!(scene.redeems(&scene.thief, ELSEWHERE, &code).await.status(), 400);
    scene.tells("code.of_another_client", "refused", &scene.thief, ("ib-app", "shop"), ELSEWHERE, &code).await;
    let mut form = redeeming(&code, &scene.shop.redirect_uri);
    form[3].1 = "another-verifier-0123456789-abcdefghijklmnop";
    assert_eq!(scene.posts(&scene.shop, HERE, "/oauth/token", &form).await.status(), 400);
    let row = scene.tells("code.burnt", "refused", &scene.shop, ("ib-app", "shop"), HERE, &code).await;
    assert_eq!(row["details"]["reason"], "it came with another code_verifier");
    assert!(!row.to_string().contains(form[3].1), "{row}");

    let code = scene.code().await;
    let tokens = Tokens::of(&scene.redeems(&scene.shop, HERE, &code).await);
    let redeemed = scene.tells("code.redeemed", "done", &scene.shop, ("grant", "shop"), HERE, &code).await;
    assert_eq!(scene.redeems(&scene.shop, ELSEWHERE, &code).await.status(), 400);
    let row = scene.tells("code.replayed", "refused", &scene.shop, ("grant", "shop"), ELSEWHERE, &code).await;
    let ended = row_of(&scene.world.beta, "grant.ended", &[&code, &tokens.access, &tokens.refresh]).await;
    assert_eq!(told(&ended), json!(["done", "client", scene.shop.id, "grant", "shop", "default", ELSEWHERE]));
    assert_eq!(ended["details"]["reason"], "code_replayed");
    for row in [&row, &ended] {
        assert_eq!(row["record_id"], redeemed["record_id"]);
    }
}

#[tokio::test]
async fn r4_r5_what_becomes_of_refresh_tokens_is_told() {
    let mut scene = Scene::new().await;
    let code = scene.code().await;
    let first = Tokens::of(&scene.redeems(&scene.shop, HERE, &code).await);
    let grant = ("grant", "shop");
    let id = scene.world.beta.lists("grant").await[0]["id"].clone();
    assert_eq!(scene.refreshes(&scene.thief, ELSEWHERE, &first.refresh).await.status(), 400);
    let row = scene.tells("refresh.of_another_client", "refused", &scene.thief, grant, ELSEWHERE, &first.refresh).await;
    assert_eq!(row["record_id"], id);

    let second = Tokens::of(&scene.refreshes(&scene.shop, HERE, &first.refresh).await);
    assert_eq!(Tokens::of(&scene.refreshes(&scene.shop, ELSEWHERE, &first.refresh).await), second);
    let row = scene.tells("refresh.repeated", "done", &scene.shop, grant, ELSEWHERE, &first.refresh).await;
    assert_eq!((&row["record_id"], &row["details"]["reason"]), (&id, &json!("from another address than the first time")));

    scene.world.clock.advance(Duration::from_secs(61));
    let third = Tokens::of(&scene.refreshes(&scene.shop, HERE, &first.refresh).await);
    let row = scene.tells("refresh.reminted", "done", &scene.shop, grant, HERE, &first.refresh).await;
    assert_eq!((&row["record_id"], &row["details"]["reason"]), (&id, &json!("replaced 1 times by now")));
    assert_eq!(scene.refreshes(&scene.shop, HERE, &second.refresh).await.status(), 400);
    let row = scene.tells("refresh.late", "refused", &scene.shop, grant, HERE, &second.refresh).await;
    assert_eq!(row["record_id"], id);

    let fourth = Tokens::of(&scene.refreshes(&scene.shop, HERE, &third.refresh).await);
    scene.world.clock.advance(Duration::from_secs(61));
    assert_eq!(scene.refreshes(&scene.shop, ELSEWHERE, &first.refresh).await.status(), 400);
    let row = scene.tells("refresh.replayed", "refused", &scene.shop, grant, ELSEWHERE, &first.refresh).await;
    assert_eq!(row["record_id"], id);
    // Nothing of the whole story is in any row.
    let all = Value::from(scene.world.beta.audit("limit=1000").await).to_string();
    for Tokens { access, refresh } in [first, second, third, fourth] {
        assert!(!all.contains(&access) && !all.contains(&refresh), "{all}");
    }
}

#[tokio::test]
async fn g6_a_refresh_token_without_its_key_is_told() {
    let mut scene = Scene::new().await;
    let (holder, thief) = (Holder::new(), Holder::new());
    let redirect_uri = "https://phone.example/done";
    let wanted = json!({ "name": "phone", "scopes": ["p2pi"], "redirect_uris": [redirect_uri], "auth_method": "none", "dpop": true });
    let app = scene.world.beta.creates("ib-app", wanted).await;
    let id = app["client_id"].as_str().expect("an id").to_owned();
    let phone = Client { id, secret: String::new(), redirect_uri: redirect_uri.to_owned() };
    let code = phone.code(&scene.world.beta, &mut scene.world.operator).await;
    let own = ("client_id", phone.id.as_str());
    let form = [&redeeming(&code, redirect_uri)[..], &[own]].concat();
    let tokens = Tokens::of(&holder.proves(&scene.world, "/oauth/token", &form, None).await);
    let form = [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.as_str()), own];
    assert_eq!(thief.proves(&scene.world, "/oauth/token", &form, None).await.status(), 400);
    // It came past the proxy.
    scene.tells("refresh.without_its_key", "refused", &phone, ("grant", "phone"), "127.0.0.1", &tokens.refresh).await;
}

#[tokio::test]
async fn v1_what_apps_revoke_of_their_own_and_of_others_is_told() {
    let mut scene = Scene::new().await;
    let code = scene.code().await;
    let tokens = Tokens::of(&scene.redeems(&scene.shop, HERE, &code).await);
    let own = scene.posts(&scene.shop, HERE, "/oauth/token", &[("grant_type", "client_credentials")]).await;
    let own = own.json()["access_token"].as_str().expect("a token").to_owned();

    scene.revokes(&scene.thief, ELSEWHERE, &tokens.refresh).await;
    scene.tells("revocation.of_another_client", "refused", &scene.thief, ("grant", "shop"), ELSEWHERE, &tokens.refresh).await;
    // What belongs to no grant belongs to the app.
    scene.revokes(&scene.thief, ELSEWHERE, &own).await;
    let rows = "action=revocation.of_another_client";
    crate::world::patience::eventually("the second", async || (scene.world.beta.audit(rows).await.len() == 2).then_some(())).await;
    scene.tells("revocation.of_another_client", "refused", &scene.thief, ("ib-app", "shop"), ELSEWHERE, &own).await;

    assert_eq!(scene.revokes(&scene.shop, HERE, &own).await.status(), 200);
    scene.tells("token.revoked", "done", &scene.shop, ("ib-app", "shop"), HERE, &own).await;
    assert_eq!(scene.revokes(&scene.shop, HERE, &tokens.access).await.status(), 200);
    let ended = row_of(&scene.world.beta, "grant.ended", &[&tokens.access, &tokens.refresh]).await;
    assert_eq!(told(&ended), json!(["done", "client", scene.shop.id, "grant", "shop", "default", HERE]));
    assert_eq!(ended["details"]["reason"], "revoked_by_client");
}
