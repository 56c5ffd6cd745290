//! T, V, I, D and K: the token endpoint and its neighbours.

use std::time::Duration;

use p2pid::clock::Clock;
use serde_json::{Value, json};

use super::{granted, granted_with, is_accepted, refusal, refused};
use crate::world::World;
use crate::world::certificates::{Identity, named};
use crate::world::client::{Client, Tokens, VERIFIER, s256};
use crate::world::key_holder::encoded;
use crate::world::message::Message;
use crate::world::settings::request;
use crate::world::wire::Wire;

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

#[tokio::test]
async fn t1_only_a_form_by_post_is_a_token_request() {
    let (world, client, tokens) = granted().await;
    let form = format!("grant_type=refresh_token&refresh_token={}&client_id={}&client_secret={}", tokens.refresh, client.id, client.secret);
    let get = world.beta.is_asked("GET", &format!("/oauth/token?{form}"), &[], "").await;
    assert_eq!((get.status(), get.header("allow")), (405, Some("POST")));
    refused(&world.beta.is_asked("POST", &format!("/oauth/token?{form}"), &[FORM], "").await, 400, "invalid_request");
    let json = json!({ "grant_type": "refresh_token", "refresh_token": tokens.refresh }).to_string();
    refused(&world.beta.is_asked("POST", "/oauth/token", &[("Content-Type", "application/json")], &json).await, 400, "invalid_request");
    refused(&world.beta.is_asked("POST", "/oauth/token", &[], &form).await, 400, "invalid_request");
    assert_eq!(client.refreshes(&world.beta, &tokens.refresh).await.status(), 200, "nothing of it used the token up");
}

#[tokio::test]
async fn r7_a_request_that_is_not_judged_in_time_of_its_first_byte_is_not_judged() {
    // Half the window is the limit.
    let (world, client, tokens) = granted_with("[tokens]\nretry_window = \"3s\"").await;
    let body = format!("grant_type=refresh_token&refresh_token={}&client_id={}&client_secret={}", tokens.refresh, client.id, client.secret);
    let text = request("POST", "/oauth/token", &world.beta.settings.public.to_string(), &[FORM], &body);
    let head = text.find("\r\n\r\n").expect("a head") + 4;
    let pausing_after = async |cut: usize| {
        let mut wire = Wire::tls(world.beta.settings.public, &world.beta.settings.authority()).await;
        wire.sends(&text[..cut]).await;
        tokio::time::sleep(Duration::from_millis(1_600)).await;
        wire.asks(&text[cut..]).await
    };
    let (first_byte, half_a_head, whole_head) = tokio::join!(pausing_after(1), pausing_after(head / 2), pausing_after(head));
    for (what, answer) in [("the first byte", first_byte), ("half the head", half_a_head), ("the head", whole_head)] {
        assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")), "{what}: {}", answer.text());
    }
    let first = Tokens::of(&client.refreshes(&world.beta, &tokens.refresh).await);
    let again = Tokens::of(&client.refreshes(&world.beta, &tokens.refresh).await);
    assert_eq!(first.refresh, again.refresh, "the first that was judged opened the window");
}

#[tokio::test]
async fn t2_t3_a_client_authenticates_in_one_way_and_rightly() {
    let (world, client, tokens) = granted().await;
    let refresh = ("refresh_token", tokens.refresh.as_str());
    let both = [("grant_type", "refresh_token"), refresh, ("client_id", &client.id), ("client_secret", &client.secret)];
    refused(&client.asks(&world.beta, &both).await, 400, "invalid_request");
    let wrong = Client { secret: "wrong".to_owned(), ..client.clone() };
    let answer = wrong.refreshes(&world.beta, &tokens.refresh).await;
    refused(&answer, 401, "invalid_client");
    assert!(answer.header("www-authenticate").is_some_and(|challenge| challenge.starts_with("Basic")));
    let nobody = Client { id: "nobody".to_owned(), ..client.clone() };
    refused(&nobody.refreshes(&world.beta, &tokens.refresh).await, 401, "invalid_client");
    let body = format!("grant_type=refresh_token&refresh_token={}&client_id={}", tokens.refresh, client.id);
    refused(&world.beta.is_asked("POST", "/oauth/token", &[FORM], &body).await, 401, "invalid_client");
    let posted = world.beta.is_asked("POST", "/oauth/token", &[FORM], &format!("{body}&client_secret={}", client.secret)).await;
    assert_eq!(posted.status(), 200, "client_secret_post works too: {}", posted.text());
}

#[tokio::test]
async fn t4_of_many_redemptions_of_a_code_one_wins_and_a_later_one_ends_the_grant() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    let code = client.code(&world.beta, &mut world.operator).await;
    let (a, b, c, d) = tokio::join!(
        client.redeems(&world.beta, &code),
        client.redeems(&world.beta, &code),
        client.redeems(&world.beta, &code),
        client.redeems(&world.beta, &code)
    );
    let won: Vec<&Message> = [&a, &b, &c, &d].into_iter().filter(|answer| answer.status() == 200).collect();
    assert_eq!(won.len(), 1);
    let tokens = Tokens::of(won[0]);
    for lost in [&a, &b, &c, &d].into_iter().filter(|answer| answer.status() != 200) {
        refused(lost, 400, "invalid_grant");
    }
    assert!(!is_accepted(&world, &tokens.access).await, "a replayed code ends what it gave");
    refused(&client.refreshes(&world.beta, &tokens.refresh).await, 400, "invalid_grant");
}

#[tokio::test]
async fn t5_a_code_needs_the_verifier_of_its_challenge() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    for verifier in [None, Some("another-verifier-0123456789-abcdefghijklmnop"), Some("short"), Some("")] {
        let code = client.code(&world.beta, &mut world.operator).await;
        let form = [("grant_type", "authorization_code"), ("code", &code), ("redirect_uri", &client.redirect_uri)];
        let form: Vec<(&str, &str)> = form.into_iter().chain(verifier.map(|verifier| ("code_verifier", verifier))).collect();
        assert_eq!(refusal(&client.asks(&world.beta, &form).await), (400, "invalid_grant".to_owned()), "{verifier:?}");
        refused(&client.redeems(&world.beta, &code).await, 400, "invalid_grant");
    }
}

#[tokio::test]
async fn t6_a_redirect_uri_that_was_asked_with_is_repeated() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    let code = client.code(&world.beta, &mut world.operator).await;
    let form =
        [("grant_type", "authorization_code"), ("code", &code), ("redirect_uri", "https://shop.example/"), ("code_verifier", VERIFIER)];
    refused(&client.asks(&world.beta, &form).await, 400, "invalid_grant");
}

#[tokio::test]
async fn t6_without_pkce_it_is_repeated_also_when_it_is_the_only_one() {
    let mut world = World::new().await;
    let client = Client::registered_with(&world.beta, "shop", json!({ "pkce": "optional" })).await;
    for (redirect_uri, status) in [(None, 400), (Some("https://shop.example/"), 400), (Some(client.redirect_uri.as_str()), 200)] {
        let request = client.authorize(&world.beta).without("code_challenge").without("code_challenge_method");
        let led = world.operator.decides(&request.url(), "allow").await;
        let code = led.parameter("code").expect("a code");
        let form = [("grant_type", "authorization_code"), ("code", code.as_str())];
        let form: Vec<(&str, &str)> = form.into_iter().chain(redirect_uri.map(|uri| ("redirect_uri", uri))).collect();
        let answer = client.asks(&world.beta, &form).await;
        assert_eq!(answer.status(), status, "{redirect_uri:?}: {}", answer.text());
    }
}

#[tokio::test]
async fn t7_a_token_answer_is_not_kept_and_says_what_it_gives() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    let code = client.code(&world.beta, &mut world.operator).await;
    let answer = client.redeems(&world.beta, &code).await;
    assert_eq!((answer.status(), answer.header("cache-control")), (200, Some("no-store")));
    let answer = answer.json();
    assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("Bearer"), &json!(3600)));
    assert_eq!(answer["p2pi_subject"], world.operator.login.as_str());
}

#[tokio::test]
async fn t10_a_scope_is_one_that_the_client_has() {
    let (mut world, client, tokens) = granted().await;
    let led = world.operator.decides(&client.authorize(&world.beta).with("scope", "p2pi more").url(), "allow").await;
    assert_eq!(led.parameter("error").as_deref(), Some("invalid_scope"));
    let form = [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.as_str()), ("scope", "p2pi more")];
    refused(&client.asks(&world.beta, &form).await, 400, "invalid_scope");
    assert_eq!(client.refreshes(&world.beta, &tokens.refresh).await.status(), 200, "a refusal uses nothing up");
}

#[tokio::test]
async fn t11_an_error_repeats_nothing_that_was_sent() {
    let (world, client, tokens) = granted().await;
    let odd = "<script>\"\\ä\u{7f}";
    let form = [("grant_type", odd), ("refresh_token", tokens.refresh.as_str()), ("scope", odd)];
    let answer = client.asks(&world.beta, &form).await;
    refused(&answer, 400, "unsupported_grant_type");
    for secret in [&client.secret, &tokens.refresh, &odd.to_owned()] {
        assert!(!answer.text().contains(secret.as_str()));
    }
    let description = answer.json()["error_description"].as_str().unwrap_or_default().to_owned();
    assert!(description.bytes().all(|byte| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e)), "{description}");
}

#[tokio::test]
async fn t12_secrets_overlap_for_as_long_as_was_said_of_each() {
    let (world, client, tokens) = granted().await;
    let rotated = world.beta.acts("ib-app", "shop", "rotate-secret", json!({ "overlap": 3600 })).await;
    let secret = rotated["client_secret"].as_str().expect("the new secret, once").to_owned();
    let renewed = Client { secret, ..client.clone() };
    let tokens = Tokens::of(&client.refreshes(&world.beta, &tokens.refresh).await);
    let tokens = Tokens::of(&renewed.refreshes(&world.beta, &tokens.refresh).await);
    world.clock.advance(Duration::from_secs(3601));
    refused(&client.refreshes(&world.beta, &tokens.refresh).await, 401, "invalid_client");
    let mut tokens = Tokens::of(&renewed.refreshes(&world.beta, &tokens.refresh).await);
    // Twice within the first overlap: neither what was said of the first is shortened, nor what was said of the second.
    let mut secrets = vec![renewed];
    for overlap in [7200, 60] {
        let rotated = world.beta.acts("ib-app", "shop", "rotate-secret", json!({ "overlap": overlap })).await;
        secrets.push(Client { secret: rotated["client_secret"].as_str().expect("a new secret").to_owned(), ..client.clone() });
    }
    for secret in &secrets {
        tokens = Tokens::of(&secret.refreshes(&world.beta, &tokens.refresh).await);
    }
    world.clock.advance(Duration::from_secs(61));
    refused(&secrets[1].refreshes(&world.beta, &tokens.refresh).await, 401, "invalid_client");
    for secret in [&secrets[0], &secrets[2]] {
        tokens = Tokens::of(&secret.refreshes(&world.beta, &tokens.refresh).await);
    }
    world.beta.acts("ib-app", "shop", "rotate-secret", json!({ "overlap": 0 })).await;
    for secret in &secrets {
        refused(&secret.refreshes(&world.beta, &tokens.refresh).await, 401, "invalid_client");
    }
}

#[tokio::test]
async fn v1_v2_revoking_is_for_the_tokens_client_and_can_be_said_twice() {
    let (world, client, tokens) = granted().await;
    let thief = Client::registered(&world.beta, "thief").await;
    for token in [&tokens.refresh, &tokens.access] {
        refused(&thief.revokes(&world.beta, token).await, 400, "invalid_grant");
    }
    assert!(is_accepted(&world, &tokens.access).await, "a foreign client ends nothing");
    let wrong = Client { secret: "wrong".to_owned(), ..client.clone() };
    refused(&wrong.revokes(&world.beta, &tokens.refresh).await, 401, "invalid_client");
    assert_eq!(client.revokes(&world.beta, "never-was-a-token").await.status(), 200);
    let hinted = [("token", tokens.refresh.as_str()), ("token_type_hint", "access_token")];
    for _ in 0..2 {
        assert_eq!(world.beta.gets_form("/oauth/revoke", (&client.id, &client.secret), &hinted).await.status(), 200);
    }
    assert!(!is_accepted(&world, &tokens.access).await, "a wrong hint finds it all the same");
}

#[tokio::test]
async fn v3_revoking_a_refresh_token_ends_its_access_tokens_at_once_and_after_a_restart() {
    let (mut world, client, first) = granted().await;
    let second = Tokens::of(&client.refreshes(&world.beta, &first.refresh).await);
    assert!(is_accepted(&world, &first.access).await && is_accepted(&world, &second.access).await);
    assert_eq!(client.revokes(&world.beta, &first.refresh).await.status(), 200, "any token that the grant ever had ends it");
    assert!(!is_accepted(&world, &first.access).await && !is_accepted(&world, &second.access).await);
    world.beta.restarts().await;
    assert!(!is_accepted(&world, &second.access).await);
}

#[tokio::test]
async fn i1_i2_i3_introspection_tells_a_client_of_its_own_live_tokens_of_both_kinds_and_nobody_else() {
    let (world, client, tokens) = granted().await;
    let answer = client.introspects(&world.beta, &tokens.access).await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let live = answer.json();
    assert_eq!((&live["active"], &live["scope"], &live["client_id"]), (&json!(true), &json!("p2pi"), &json!(client.id)), "{live}");
    let inactive = json!({ "active": false });
    let stranger = Client::registered(&world.beta, "stranger").await;
    let refreshable = client.introspects(&world.beta, &tokens.refresh).await;
    assert_eq!(refreshable.header("cache-control"), Some("no-store"));
    let refreshable = refreshable.json();
    assert_eq!(
        (&refreshable["active"], &refreshable["scope"], &refreshable["client_id"]),
        (&json!(true), &json!("p2pi"), &json!(client.id)),
        "{refreshable}"
    );
    assert!(refreshable["aud"].is_null() && refreshable["token_type"].is_null(), "it is for no resource: {refreshable}");
    for token in [&tokens.access, &tokens.refresh] {
        assert_eq!(stranger.introspects(&world.beta, token).await.json(), inactive);
    }
    assert_eq!(client.introspects(&world.beta, "never-was-a-token").await.json(), inactive);
    let wrong = Client { secret: "wrong".to_owned(), ..client.clone() };
    for token in [&tokens.access, &tokens.refresh] {
        refused(&wrong.introspects(&world.beta, token).await, 401, "invalid_client");
    }
    assert!(!is_accepted(&world, &tokens.refresh).await, "a refresh token opens nothing");
    world.clock.advance(Duration::from_secs(3601));
    assert_eq!(client.introspects(&world.beta, &tokens.access).await.json(), inactive, "expired");
    let next = Tokens::of(&client.refreshes(&world.beta, &tokens.refresh).await);
    client.revokes(&world.beta, &next.refresh).await;
    for token in [&next.access, &next.refresh] {
        assert_eq!(client.introspects(&world.beta, token).await.json(), inactive, "revoked");
    }
}

#[tokio::test]
async fn v1_any_token_that_a_grant_ever_issued_ends_it_long_after_it_expired() {
    for kind in ["access", "refresh"] {
        let (world, client, first) = granted().await;
        let hour = Duration::from_secs(3600);
        world.clock.advance(hour);
        let next = Tokens::of(&client.refreshes(&world.beta, &first.refresh).await);
        assert!(is_accepted(&world, &next.access).await);
        world.clock.advance(26 * hour);
        let next = Tokens::of(&client.refreshes(&world.beta, &next.refresh).await);
        assert!(is_accepted(&world, &next.access).await);
        world.beta.running().instance.store.purge(world.clock.now().wall).await.expect("purged");
        let token = if kind == "access" { &first.access } else { &first.refresh };
        let answer = client.revokes(&world.beta, token).await;
        assert_eq!(answer.status(), 200, "{kind}: {}", answer.text());
        assert!(!is_accepted(&world, &next.access).await, "{kind}");
        refused(&client.refreshes(&world.beta, &next.refresh).await, 400, "invalid_grant");
    }
}

#[tokio::test]
async fn d1_d2_metadata_name_us_as_configured_and_every_endpoint_answers() {
    let world = World::new().await;
    let base = world.beta.settings.url();
    let server =
        world.beta.is_asked("GET", "/.well-known/oauth-authorization-server", &[("X-Forwarded-Host", "evil.example")], "").await.json();
    assert_eq!(server["issuer"], base.as_str());
    assert_eq!(server["code_challenge_methods_supported"], json!(["S256"]));
    assert_eq!(server["authorization_response_iss_parameter_supported"], true);
    assert_eq!(server["response_types_supported"], json!(["code"]));
    assert_eq!(server["p2pi_endpoint"], format!("{base}/p2pi"));
    assert!(
        !server["grant_types_supported"].to_string().contains("implicit")
            && !server["grant_types_supported"].to_string().contains("password")
    );
    assert_eq!(server["mtls_endpoint_aliases"], Value::Null);
    let client = Client::registered_with(&world.beta, "shop", json!({ "grants": ["authorization_code", "client_credentials"] })).await;
    let authorize = client.authorize_at(&base);
    let asked = authorize.url();
    let (endpoint, query) = asked.split_once('?').expect("a query");
    assert_eq!(server["authorization_endpoint"], endpoint);
    let page = world.beta.is_asked("GET", &format!("{}?{query}", &endpoint[base.len()..]), &[], "").await;
    let location = page.header("location").unwrap_or_default();
    assert!(page.status() == 303 && location.contains("/login?next=") && location.contains("state-of-the-test"), "{page:?}");
    let asks =
        async |method: &str, target: &str, headers: &[(&str, &str)], body: &str| world.beta.is_asked(method, target, headers, body).await;
    answers_as_announced(&world, &client, &server, &base, 6, asks).await;
    let resource = world.beta.is_asked("GET", "/.well-known/oauth-protected-resource", &[], "").await.json();
    assert_eq!(resource["authorization_servers"], Value::from(vec![base.as_str()]));
    assert_eq!(resource["resource"], base.as_str());
}

/// Asks every endpoint in `announced`, of which there are `count`, all below `base`, for what only that endpoint does.
async fn answers_as_announced(
    world: &World,
    client: &Client,
    announced: &Value,
    base: &str,
    count: usize,
    asks: impl AsyncFn(&str, &str, &[(&str, &str)], &str) -> Message,
) {
    let names = announced.as_object().expect("an object").keys().filter(|name| name.ends_with("_endpoint"));
    assert_eq!(names.count(), count, "one of them is not looked at here: {announced}");
    let path = |name: &str| {
        let url = announced[name].as_str().unwrap_or_else(|| panic!("no {name}: {announced}"));
        url.strip_prefix(base).unwrap_or_else(|| panic!("{name} is {url}, not below {base}"))
    };
    let posts = async |name: &str, form: &[(&str, &str)]| {
        let credentials = [("client_id", client.id.as_str()), ("client_secret", client.secret.as_str())];
        asks("POST", path(name), &[FORM], &encoded(&[form, &credentials].concat())).await
    };
    let issued = posts("token_endpoint", &[("grant_type", "client_credentials")]).await;
    let token = issued.json()["access_token"].as_str().unwrap_or_else(|| panic!("{}", issued.text())).to_owned();
    let bearer = format!("Bearer {token}");
    let calls = async || asks("GET", &format!("{}/orders", path("p2pi_endpoint")), &[("Authorization", &bearer)], "").await.status();
    let arrived = world.beta.application.received().len();
    assert_eq!((calls().await, world.beta.application.received().len()), (200, arrived + 1));
    let form = [("token", token.as_str())];
    assert_eq!(posts("introspection_endpoint", &form).await.json()["active"], true);
    let revoked = posts("revocation_endpoint", &form).await;
    assert_eq!((revoked.status(), revoked.text().as_str()), (200, "{}"));
    assert_eq!((posts("introspection_endpoint", &form).await.json(), calls().await), (json!({ "active": false }), 401));
    let challenge = s256(VERIFIER);
    let question = [
        ("response_type", "code"),
        ("redirect_uri", client.redirect_uri.as_str()),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ];
    let pushed = posts("pushed_authorization_request_endpoint", &question).await;
    assert!(pushed.status() == 201 && pushed.json()["request_uri"].is_string(), "{}", pushed.text());
}

#[tokio::test]
async fn d1_g7_the_endpoints_for_clients_with_certificates_answer_as_the_others_do() {
    let world = World::with_mtls("").await;
    let server = world.beta.is_asked("GET", "/.well-known/oauth-authorization-server", &[], "").await.json();
    let client = Client::registered_with(&world.beta, "shop", json!({ "grants": ["authorization_code", "client_credentials"] })).await;
    let (identity, base) = (Identity::self_signed(&named("shop")), format!("https://{}", world.beta.settings.mtls));
    let asks = async |method: &str, target: &str, headers: &[(&str, &str)], body: &str| {
        identity.asks(&world.beta, method, target, headers, body).await
    };
    answers_as_announced(&world, &client, &server["mtls_endpoint_aliases"], &base, 5, asks).await;
}

#[tokio::test]
async fn k6_nothing_that_a_request_carries_changes_who_we_are() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    let base = world.beta.settings.url();
    let names = [
        ("Host", "evil.example"),
        ("X-Forwarded-Host", "evil.example"),
        ("Forwarded", "host=evil.example;proto=http"),
        ("X-Forwarded-Proto", "http"),
    ];
    for (name, value) in &names[1..] {
        let answer = world.beta.is_asked("GET", "/.well-known/oauth-authorization-server", &[(name, value)], "").await;
        assert!(!answer.text().contains("evil"), "{name}");
    }
    let mut wire = crate::world::wire::Wire::tls(world.beta.settings.public, &world.beta.settings.authority()).await;
    let page = client.authorize(&world.beta).url();
    let target = page.strip_prefix(&base).expect("ours");
    let answer = wire.asks(crate::world::settings::request("GET", target, "evil.example", &[], "")).await;
    assert!(!answer.text().contains("evil") && !format!("{:?}", answer.headers).contains("evil"), "{answer:?}");
    let location = answer.header("location").unwrap_or_default();
    assert!(location.is_empty() || location.starts_with(&base) || location.starts_with('/'), "{location}");
    let led = world.operator.decides(&page, "allow").await;
    assert_eq!(led.parameter("iss").as_deref(), Some(base.as_str()));
}
