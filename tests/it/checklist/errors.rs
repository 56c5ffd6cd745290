//! T11: what goes wrong at the endpoints that speak JSON is said in one shape, with a registered code, and with nothing of what was sent.

use serde_json::json;

use super::granted;
use crate::world::World;
use crate::world::client::{Client, VERIFIER};
use crate::world::message::Message;

/// Stands wherever a request may hold something that nobody else should read.
const CANARY: &str = "canary-7f3a-\"\\<b>\u{e4}";

/// What RFC 6749 §5.2, RFC 7009 §2.2.1, RFC 8707 §2, RFC 9126 §2.3 and RFC 9449 §5 register.
const REGISTERED: [&str; 12] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "unsupported_token_type",
    "invalid_target",
    "invalid_dpop_proof",
    "use_dpop_nonce",
    "unsupported_response_type",
    "access_denied",
];

/// Checks the shape of an error; gives its status and code.
fn shape(what: &str, answer: &Message, secrets: &[&str]) -> (u16, String) {
    let text = answer.text();
    let (kind, document) = (answer.header("content-type").unwrap_or_default(), answer.json());
    assert!(kind.starts_with("application/json"), "{what}: {kind}");
    assert_eq!((answer.header("cache-control"), answer.header("pragma")), (Some("no-store"), Some("no-cache")), "{what}");
    let code = document["error"].as_str().unwrap_or_default();
    assert!(REGISTERED.contains(&code), "{what}: {text}");
    let description = document["error_description"].as_str().unwrap_or_default();
    assert!(!description.is_empty(), "{what} has words");
    assert!(description.bytes().all(|byte| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e)), "{what}: {description}");
    for secret in secrets.iter().chain(&["canary-7f3a"]) {
        assert!(!text.contains(secret), "{what} repeats {secret}: {text}");
        assert!(answer.headers.iter().all(|(_, value)| !value.contains(secret)), "{what} repeats {secret} in its head");
    }
    (answer.status(), code.to_owned())
}

#[tokio::test]
async fn t11_every_error_has_one_shape_and_repeats_nothing() {
    let (mut world, client, tokens) = granted().await;
    let service = Client::registered_with(&world.beta, "service", json!({ "grants": ["client_credentials"], "redirect_uris": [] })).await;
    let bound =
        Client::registered_with(&world.beta, "bound", json!({ "grants": ["client_credentials"], "redirect_uris": [], "dpop": true })).await;
    let code = client.code(&world.beta, &mut world.operator).await;
    let secrets = [client.secret.as_str(), &service.secret, &bound.secret, &tokens.refresh, &tokens.access, &code, VERIFIER];

    let refresh = |token| vec![("grant_type", "refresh_token"), ("refresh_token", token)];
    let redeem = |code, redirect, verifier| {
        vec![("grant_type", "authorization_code"), ("code", code), ("redirect_uri", redirect), ("code_verifier", verifier)]
    };
    let credentials = vec![("grant_type", "client_credentials")];
    let with = |mut form: Vec<(&'static str, &'static str)>, more: &[(&'static str, &'static str)]| {
        form.extend_from_slice(more);
        form
    };
    let wrong = Client { secret: CANARY.to_owned(), ..client.clone() };
    let nobody = Client { id: "canary-7f3a".to_owned(), ..client.clone() };
    let uri = client.redirect_uri.as_str();
    let cases = [
        ("/oauth/token", &client, vec![("grant_type", CANARY)], 400, "unsupported_grant_type"),
        ("/oauth/token", &client, vec![("code", CANARY)], 400, "invalid_request"),
        (
            "/oauth/token",
            &client,
            vec![("grant_type", "password"), ("username", CANARY), ("password", CANARY)],
            400,
            "unsupported_grant_type",
        ),
        ("/oauth/token", &client, refresh(CANARY), 400, "invalid_grant"),
        ("/oauth/token", &client, refresh(&tokens.access), 400, "invalid_grant"),
        ("/oauth/token", &client, vec![("grant_type", "refresh_token")], 400, "invalid_request"),
        ("/oauth/token", &client, redeem(CANARY, uri, VERIFIER), 400, "invalid_grant"),
        ("/oauth/token", &client, redeem(&code, CANARY, VERIFIER), 400, "invalid_grant"),
        ("/oauth/token", &client, redeem(&code, uri, CANARY), 400, "invalid_grant"),
        ("/oauth/token", &client, credentials.clone(), 400, "unauthorized_client"),
        ("/oauth/token", &service, with(credentials.clone(), &[("scope", "p2pi canary-7f3a")]), 400, "invalid_scope"),
        ("/oauth/token", &service, with(credentials.clone(), &[("scope", CANARY)]), 400, "invalid_scope"),
        ("/oauth/token", &service, with(credentials.clone(), &[("resource", "https://canary-7f3a.example/")]), 400, "invalid_target"),
        ("/oauth/token", &service, with(credentials.clone(), &[("scope", "p2pi"), ("scope", CANARY)]), 400, "invalid_request"),
        ("/oauth/token", &service, with(credentials.clone(), &[("client_assertion", CANARY)]), 400, "invalid_request"),
        ("/oauth/token", &service, refresh(&tokens.refresh), 400, "unauthorized_client"),
        ("/oauth/token", &bound, credentials.clone(), 400, "invalid_dpop_proof"),
        ("/oauth/token", &wrong, refresh(&tokens.refresh), 401, "invalid_client"),
        ("/oauth/token", &nobody, refresh(&tokens.refresh), 401, "invalid_client"),
        ("/oauth/introspect", &client, vec![], 400, "invalid_request"),
        ("/oauth/introspect", &wrong, vec![("token", CANARY)], 401, "invalid_client"),
        ("/oauth/introspect", &client, vec![("token", CANARY), ("token", CANARY)], 400, "invalid_request"),
        ("/oauth/revoke", &client, vec![], 400, "invalid_request"),
        ("/oauth/revoke", &wrong, vec![("token", &tokens.refresh)], 401, "invalid_client"),
        ("/oauth/revoke", &service, vec![("token", &tokens.refresh)], 400, "invalid_grant"),
        ("/oauth/par", &client, vec![("response_type", CANARY)], 400, "unsupported_response_type"),
        ("/oauth/par", &client, vec![("request_uri", CANARY)], 400, "invalid_request"),
        ("/oauth/par", &wrong, vec![("response_type", "code")], 401, "invalid_client"),
        ("/oauth/par", &client, vec![("response_type", "code"), ("redirect_uri", CANARY)], 400, "invalid_request"),
        ("/oauth/par", &nobody, vec![("client_id", CANARY)], 400, "invalid_request"),
    ];
    for (path, who, form, status, code) in cases {
        let answer = world.beta.gets_form(path, (&who.id, &who.secret), &form).await;
        let what = format!("{path} {form:?}");
        assert_eq!(shape(&what, &answer, &secrets), (status, code.to_owned()), "{what}: {}", answer.text());
    }
    proofs(&world, &bound, &secrets).await;
    framing(&world, &client, &secrets).await;
}

/// What is wrong with a DPoP proof is said without it.
async fn proofs(world: &World, bound: &Client, secrets: &[&str]) {
    for proof in ["canary-7f3a", "canary-7f3a.canary-7f3a.canary-7f3a", ""] {
        let form = format!("grant_type=client_credentials&client_id={}&client_secret={}", bound.id, bound.secret);
        let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("DPoP", proof)];
        let answer = world.beta.is_asked("POST", "/oauth/token", &headers, &form).await;
        assert_eq!(shape(proof, &answer, secrets), (400, "invalid_dpop_proof".to_owned()));
    }
}

/// What is no form, or a client that authenticates in a way that cannot be read.
async fn framing(world: &World, client: &Client, secrets: &[&str]) {
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let json = ("Content-Type", "application/json");
    let cases = [
        ("a body that is JSON", vec![json], "{\"grant_type\":\"canary-7f3a\"}"),
        ("a body that is not UTF-8", vec![form], "grant_type=%ff%fecanary-7f3a"),
        ("a parameter in the query", vec![form], "grant_type=refresh_token"),
        (
            "Basic that is no base64",
            vec![form, ("Authorization", "Basic canary-7f3a!")],
            "grant_type=refresh_token&refresh_token=canary-7f3a",
        ),
        (
            "Basic without a colon",
            vec![form, ("Authorization", "Basic Y2FuYXJ5LTdmM2E=")],
            "grant_type=refresh_token&refresh_token=canary-7f3a",
        ),
        (
            "a scheme that is not known",
            vec![form, ("Authorization", "Negotiate canary-7f3a")],
            "grant_type=refresh_token&refresh_token=canary-7f3a",
        ),
    ];
    for path in ["/oauth/token", "/oauth/introspect", "/oauth/revoke", "/oauth/par"] {
        for (what, headers, body) in &cases {
            let target =
                if what.ends_with("query") { format!("{path}?client_id={}&state=canary-7f3a", client.id) } else { path.to_owned() };
            let answer = world.beta.is_asked("POST", &target, headers, body).await;
            let (status, code) = shape(&format!("{path}: {what}"), &answer, secrets);
            assert!(
                matches!((status, code.as_str()), (400, "invalid_request") | (401, "invalid_client")),
                "{path}: {what}: {status} {code}"
            );
        }
    }
}
