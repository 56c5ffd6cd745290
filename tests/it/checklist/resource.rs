//! G: the gateway, which opens the application to bearers of a token and to nobody else.

use std::time::Duration;

use super::granted_with;
use crate::world::wire::Wire;

const MORE: &str = r#"
[[route]]
path = "/more"
upstream = "http://127.0.0.1:9"
scopes = ["p2pi", "more"]
methods = ["GET"]

[scopes]
more = "More"
"#;

#[tokio::test]
async fn g1_a_token_stands_in_the_authorization_header_alone() {
    let (world, _, tokens) = granted_with(MORE).await;
    let bearer = format!("Bearer {}", tokens.access);
    let query = format!("/p2pi/orders?access_token={}", tokens.access);
    let in_query = world.beta.is_asked("GET", &query, &[], "").await;
    assert_eq!((in_query.status(), in_query.header("p2pi-error")), (401, Some("no_token")), "{}", in_query.first_line);
    let both = world.beta.is_asked("GET", &query, &[("Authorization", &bearer)], "").await;
    assert_eq!(both.status(), 400, "{}", both.text());
    let twice = world.beta.is_asked("GET", "/p2pi/orders", &[("Authorization", &bearer), ("Authorization", &bearer)], "").await;
    assert_eq!(twice.status(), 400, "{}", twice.text());
    assert!(world.beta.application.received().is_empty());
    assert_eq!(world.beta.is_asked("GET", "/p2pi/orders", &[("Authorization", &bearer)], "").await.status(), 200);
}

#[tokio::test]
async fn g2_a_refusal_says_what_is_missing() {
    let (world, _, tokens) = granted_with(MORE).await;
    let none = world.beta.is_asked("GET", "/p2pi/orders", &[], "").await;
    let challenge = none.header("www-authenticate").unwrap_or_default();
    assert_eq!((none.status(), none.header("p2pi-error")), (401, Some("no_token")));
    assert!(
        challenge.starts_with("Bearer ") && challenge.contains("resource_metadata=\"https://") && !challenge.contains("error="),
        "{challenge}"
    );
    let bad = world.beta.is_asked("GET", "/p2pi/orders", &[("Authorization", "Bearer nothing")], "").await;
    assert_eq!((bad.status(), bad.header("p2pi-error"), bad.header("p2pi-error-from")), (401, Some("invalid_token"), Some("beta")));
    assert!(bad.header("www-authenticate").is_some_and(|challenge| challenge.contains("error=\"invalid_token\"")));
    let bearer = format!("Bearer {}", tokens.access);
    let lacking = world.beta.is_asked("GET", "/more/x", &[("Authorization", &bearer)], "").await;
    assert_eq!((lacking.status(), lacking.header("p2pi-error")), (403, Some("insufficient_scope")));
    assert!(lacking.header("www-authenticate").is_some_and(|challenge| challenge.contains("scope=\"") && challenge.contains("more")));
    let method = world.beta.is_asked("POST", "/more/x", &[("Authorization", &bearer)], "x").await;
    assert_eq!((method.status(), method.header("p2pi-error")), (405, Some("method_not_allowed")));
    let nowhere = world.beta.is_asked("GET", "/nowhere", &[("Authorization", &bearer)], "").await;
    assert_eq!((nowhere.status(), nowhere.header("p2pi-error")), (404, Some("no_route")));
    for answer in [none, bad, lacking, method, nowhere] {
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", answer.first_line);
    }
}

#[tokio::test]
async fn g3_a_token_is_looked_at_on_every_request_of_a_connection() {
    let (world, client, tokens) = granted_with(MORE).await;
    let mut wire = Wire::tls(world.beta.settings.public, &world.beta.settings.authority()).await;
    let host = world.beta.settings.public;
    let request = |token: &str| format!("GET /p2pi/orders HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n");
    assert_eq!(wire.asks(request(&tokens.access)).await.status(), 200);
    client.revokes(&world.beta, &tokens.refresh).await;
    assert_eq!(wire.asks(request(&tokens.access)).await.status(), 401, "on the very next call");
    let (world, _, tokens) = granted_with(MORE).await;
    let mut wire = Wire::tls(world.beta.settings.public, &world.beta.settings.authority()).await;
    let host = world.beta.settings.public;
    let request = format!("GET /p2pi/orders HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\n\r\n", tokens.access);
    assert_eq!(wire.asks(&request).await.status(), 200);
    world.clock.advance(Duration::from_secs(3601));
    assert_eq!(wire.asks(&request).await.status(), 401, "expired");
}

#[tokio::test]
async fn g4_what_a_caller_says_of_itself_is_dropped_and_what_we_know_is_added() {
    let (world, client, tokens) = granted_with(MORE).await;
    let bearer = format!("Bearer {}", tokens.access);
    let headers = [
        ("Authorization", bearer.as_str()),
        ("P2PI-Client", "forged"),
        ("P2PI_Subject", "forged"),
        ("p2pi-scope", "forged"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Forwarded-Host", "forged"),
        ("Forwarded", "for=6.6.6.6"),
        ("X-Drop-Me", "1"),
        ("Connection", "X-Drop-Me"),
        ("X-Keep-Me", "1"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    assert_eq!(world.beta.is_asked("GET", "/p2pi/orders", &headers, "").await.status(), 200);
    let received = world.beta.application.last().expect("it arrived");
    assert_eq!(received.header("p2pi-client"), Some(client.id.as_str()));
    assert_eq!(received.header("p2pi-instance"), Some("shop"));
    assert_eq!(received.header("p2pi-subject"), Some(world.operator.login.as_str()));
    assert_eq!(received.header("p2pi-scope"), Some("p2pi"));
    assert!(
        received.header("p2pi-request-id").is_some() && received.header("x-keep-me").is_some() && received.header("traceparent").is_some()
    );
    for gone in ["authorization", "p2pi_subject", "x-forwarded-for", "x-forwarded-host", "x-drop-me", "connection"] {
        assert_eq!(received.header(gone), None, "{gone}");
    }
    assert!(!format!("{:?}", received.headers).contains("forged") && !format!("{:?}", received.headers).contains("6.6.6.6"));
    assert!(received.header("forwarded").is_some_and(|forwarded| forwarded.contains(&world.beta.settings.public.to_string())));
}

#[tokio::test]
async fn g5_what_two_readers_could_read_differently_is_refused() {
    let (world, _, tokens) = granted_with(MORE).await;
    let (host, token) = (world.beta.settings.public, &tokens.access);
    let odd = [
        "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: identity\r\n\r\nx",
        "Content-Length: +3\r\n\r\nabc",
        "X-Odd : 1\r\n\r\n",
        "X-Odd: 1\r\n folded\r\n\r\n",
    ];
    let fields: String = (0..101).map(|number| format!("X-{number}: x\r\n")).collect();
    let long = ["X-Long: ".to_owned() + &"x".repeat(1 << 20), fields].map(|rest| format!("{rest}\r\n\r\n"));
    let bad = odd.iter().map(|rest| (*rest, (400, "bad_request")));
    for (rest, error) in bad.chain(long.iter().map(|rest| (rest.as_str(), (431, "header_too_large")))) {
        let mut gateway = Wire::tls(world.beta.settings.public, &world.beta.settings.authority()).await;
        let mut relay = Wire::plain(world.beta.settings.local).await;
        for (wire, path) in [(&mut gateway, "p2pi"), (&mut relay, "alpha")] {
            let request = format!("POST /{path}/orders HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n{rest}");
            let answer = wire.asks(request).await;
            let shown = &rest[..rest.len().min(60)];
            assert_eq!((answer.status(), answer.header("p2pi-error")), (error.0, Some(error.1)), "{path}: {shown:?}");
            assert_eq!(answer.header("p2pi-error-from"), Some("beta"), "{path}: {shown:?}");
            assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}: {shown:?}");
            assert!(!answer.text().contains(token), "{path}: {shown:?}");
        }
    }
    for path in ["/p2pi/../x", "/p2pi/%2e%2e/x", "/p2pi//x", "/p2pi/%2f", "/p2pi/%5c", "/p2pi/\\x", "/p2pi/..;/x", "/p2pi/%zz", "/p2pi/%00"]
    {
        let bearer = format!("Bearer {token}");
        let answer = world.beta.is_asked("GET", path, &[("Authorization", &bearer)], "").await;
        assert_eq!(answer.status(), 400, "{path}: {}", answer.text());
    }
    assert!(world.beta.application.received().is_empty(), "{:?}", world.beta.application.received());
    let mut wire = Wire::tls(world.beta.settings.public, &world.beta.settings.authority()).await;
    let both = format!(
        "POST /p2pi/orders HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    );
    assert_eq!(wire.asks(both).await.status(), 200, "chunked wins");
    wire.ends().await;
    let settings = &world.beta.settings;
    for times in [0, 2] {
        let mut pages = Wire::tls(host, &settings.authority()).await;
        let mut gateway = Wire::tls(host, &settings.authority()).await;
        let mut console = Wire::plain(settings.console).await;
        let mut relay = Wire::plain(settings.local).await;
        for (wire, path, host) in [
            (&mut pages, "/oauth/login", host),
            (&mut gateway, "/p2pi/x", host),
            (&mut console, "/livez", settings.console),
            (&mut relay, "/alpha/x", settings.local),
        ] {
            let hosts = format!("Host: {host}\r\n").repeat(times);
            assert_eq!(wire.asks(format!("GET {path} HTTP/1.1\r\n{hosts}\r\n")).await.status(), 400, "{path} {hosts:?}");
        }
    }
}
