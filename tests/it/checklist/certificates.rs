//! G7: tokens that are bound to a client's certificate (mutual TLS), at the token endpoint and at the gateway, with certificates from the TLS layer
//! or from a trusted proxy alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use p2pid::clock::Clock;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, HandshakeKind, SignatureScheme};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::refused;
use crate::config_keys::says;
use crate::world::World;
use crate::world::certificates::{Identity, named, nobody_connects, until};
use crate::world::client::{Client, Tokens};
use crate::world::key_holder::{Holder, encoded, presents, redeeming};
use crate::world::message::Message;
use crate::world::node::Node;
use crate::world::patience::within;
use crate::world::settings::request;
use crate::world::wire::{Wire, roots};

/// An app whose tokens are bound to its certificate, and its first pair, bound to `identity`'s.
async fn bound(world: &mut World, identity: &Identity) -> (Client, Tokens) {
    let client = Client::registered_with(&world.beta, "shop", json!({ "mtls": true })).await;
    let code = client.code(&world.beta, &mut world.operator).await;
    let form = redeeming(&code, &client.redirect_uri);
    let answer = identity.posts(&world.beta, "/oauth/token", &form, Some((&client.id, &client.secret))).await;
    assert_eq!(answer.json()["token_type"], "Bearer", "{}", answer.text());
    (client, Tokens::of(&answer))
}

fn is_refused(answer: &Message) {
    assert_eq!((answer.status(), answer.header("p2pi-error")), (401, Some("invalid_token")), "{}", answer.text());
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    assert!(challenge.starts_with("Bearer ") && challenge.contains("error=\"invalid_token\""), "{challenge}");
}

#[tokio::test]
async fn g7_a_token_that_is_bound_to_a_certificate_is_good_over_connections_with_that_one_alone() {
    let mut world = World::with_mtls("").await;
    let (own, other) = (Identity::self_signed(&named("shop")), Identity::self_signed(&named("shop")));
    let (client, tokens) = bound(&mut world, &own).await;
    let (beta, token) = (&world.beta, tokens.access.as_str());
    let bearer = format!("Bearer {token}");
    let call = |headers: &[(&str, &str)]| request("GET", "/p2pi/orders", &beta.settings.mtls.to_string(), headers, "");

    is_refused(&other.calls(beta, token).await);
    is_refused(&nobody_connects(beta).await.asks(call(&[("Authorization", &bearer)])).await);
    is_refused(&presents(&world, "Bearer", token, None).await);
    is_refused(&own.asks(beta, "GET", "/p2pi/orders", &[("Authorization", &format!("DPoP {token}"))], "").await);
    // What a caller says of its certificate is nothing.
    let claimed = own.headers();
    let claimed: Vec<(&str, &str)> = claimed.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let claims = [&[("Authorization", bearer.as_str())][..], &claimed].concat();
    is_refused(&nobody_connects(beta).await.asks(call(&claims)).await);
    is_refused(&other.connects(beta).await.asks(call(&claims)).await);
    is_refused(&beta.is_asked("GET", "/p2pi/orders", &claims, "").await);
    assert!(beta.application.received().is_empty());

    let mut wire = own.connects(beta).await;
    for _ in 0..2 {
        assert_eq!(wire.asks(call(&claims)).await.status(), 200);
    }
    let seen = beta.application.received();
    assert!(seen.len() == 2 && seen.iter().all(|seen| !seen.headers.contains_key("client-cert")));
    let looked = client.introspects(beta, token).await.json();
    assert_eq!(looked["cnf"], json!({ "x5t#S256": own.thumbprint() }));
    assert_eq!(looked["token_type"], "Bearer");
}

#[tokio::test]
async fn g7_a_token_that_is_bound_to_nothing_passes_with_and_without_a_certificate() {
    let mut world = World::with_mtls("").await;
    let identity = Identity::self_signed(&named("shop"));
    let client = Client::registered(&world.beta, "shop").await;
    let plain = client.tokens(&world.beta, &mut world.operator).await;
    assert_eq!(identity.calls(&world.beta, &plain.access).await.status(), 200);
    assert_eq!(presents(&world, "Bearer", &plain.access, None).await.status(), 200);
    assert_eq!(client.introspects(&world.beta, &plain.access).await.json()["cnf"], Value::Null);
}

#[tokio::test]
async fn g7_a_certificate_that_has_expired_proves_nothing_not_even_on_an_open_connection() {
    let mut world = World::with_mtls("").await;
    let hour = Duration::from_secs(3_600);
    let identity = Identity::self_signed(&until(named("shop"), world.clock.now().wall.plus(hour / 2)));
    let (client, tokens) = bound(&mut world, &identity).await;
    let bearer = format!("Bearer {}", tokens.access);
    let call = request("GET", "/p2pi/orders", &world.beta.settings.mtls.to_string(), &[("Authorization", &bearer)], "");
    let mut open = identity.connects(&world.beta).await;
    assert_eq!(open.asks(&call).await.status(), 200);
    world.clock.advance(hour / 2);
    is_refused(&open.asks(&call).await);
    is_refused(&identity.calls(&world.beta, &tokens.access).await);
    let form = [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.as_str())];
    refused(&identity.posts(&world.beta, "/oauth/token", &form, Some((&client.id, &client.secret))).await, 400, "invalid_request");
    // A new one gets new tokens; those of the old one stay with it.
    let next = Identity::self_signed(&named("shop"));
    let renewed = Tokens::of(&next.posts(&world.beta, "/oauth/token", &form, Some((&client.id, &client.secret))).await);
    assert_eq!(next.calls(&world.beta, &renewed.access).await.status(), 200);
    is_refused(&next.calls(&world.beta, &tokens.access).await);
}

#[tokio::test]
async fn g7_the_certificate_counts_over_http2_and_for_websockets() {
    let mut world = World::with_mtls("").await;
    let (own, other) = (Identity::self_signed(&named("shop")), Identity::self_signed(&named("shop")));
    let (_, tokens) = bound(&mut world, &own).await;
    let beta = &world.beta;
    for (identity, call, upgrade) in [(&own, 200, 101), (&other, 401, 401)] {
        let mut config = ClientConfig::clone(&identity.config(&beta.settings.authority()));
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = handshake(beta, Arc::new(config)).await.expect("a handshake");
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        let asked = http::Request::get(format!("https://{}/p2pi/orders", beta.settings.mtls));
        let asked = asked.header("authorization", format!("Bearer {}", tokens.access)).body(Empty::<Bytes>::new());
        assert_eq!(within("an answer", sender.send_request(asked.expect("a request"))).await.expect("an answer").status(), call);

        let bearer = format!("Bearer {}", tokens.access);
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        assert_eq!(identity.asks(beta, "GET", "/p2pi/socket", &headers, "").await.status(), upgrade);
    }
}

#[tokio::test]
async fn g7_a_proxy_hands_certificates_on_when_it_is_trusted_and_only_then() {
    let mut world = World::with_mtls("client_cert_header = true\n[public]\ntrusted_proxies = [\"127.0.0.0/8\"]").await;
    let (own, other) = (Identity::self_signed(&named("shop")), Identity::self_signed(&named("shop")));
    let (client, tokens) = bound(&mut world, &own).await;
    let beta = &world.beta;
    let bearer = format!("Bearer {}", tokens.access);
    let by_proxy = async |identity: &Identity| {
        let claimed = identity.headers();
        let claimed: Vec<(&str, &str)> = claimed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        beta.is_asked("GET", "/p2pi/orders", &[&[("Authorization", bearer.as_str())][..], &claimed].concat(), "").await
    };
    assert_eq!(by_proxy(&own).await.status(), 200);
    assert!(!beta.application.received()[0].headers.contains_key("client-cert"), "it is not the application's");
    is_refused(&by_proxy(&other).await);
    is_refused(&presents(&world, "Bearer", &tokens.access, None).await);
    let twice = own.headers()[0].1.clone();
    let doubled = [("Authorization", bearer.as_str()), ("Client-Cert", twice.as_str()), ("Client-Cert", twice.as_str())];
    is_refused(&beta.is_asked("GET", "/p2pi/orders", &doubled, "").await);
    // Where we ask for certificates ourselves, the connection's counts whoever its other end is.
    let claim = own.headers()[0].1.clone();
    let headers = [("Authorization", bearer.as_str()), ("Client-Cert", claim.as_str())];
    is_refused(&other.asks(beta, "GET", "/p2pi/orders", &headers, "").await);

    // The token endpoint believes the same.
    let form = [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.as_str())];
    refused(&client.refreshes(beta, &tokens.refresh).await, 400, "invalid_request");
    let basic = {
        use base64::Engine;
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", client.id, client.secret)))
    };
    let kind = ("Content-Type", "application/x-www-form-urlencoded");
    let headers = [kind, ("Authorization", basic.as_str()), ("Client-Cert", claim.as_str())];
    let renewed = Tokens::of(&beta.is_asked("POST", "/oauth/token", &headers, &encoded(&form)).await);
    assert_eq!(own.calls(beta, &renewed.access).await.status(), 200);

    says(beta, "[public]\ntrusted_proxies = [\"192.0.2.0/24\"]").await;
    is_refused(&by_proxy(&own).await);
    says(beta, "[public]\ntrusted_proxies = [\"127.0.0.0/8\"]\n[mtls]\nclient_cert_header = false").await;
    is_refused(&by_proxy(&own).await);
}

#[tokio::test]
async fn g7_tokens_for_a_certificate_are_given_for_one_and_to_the_app_that_is_registered_so() {
    let mut world = World::with_mtls("").await;
    let identity = Identity::self_signed(&named("shop"));
    let (client, tokens) = bound(&mut world, &identity).await;
    let basic = Some((client.id.as_str(), client.secret.as_str()));
    let form = [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.as_str())];
    refused(&client.refreshes(&world.beta, &tokens.refresh).await, 400, "invalid_request");
    let holder = Holder::new();
    refused(&holder.proves(&world, "/oauth/token", &form, basic).await, 400, "invalid_request");
    let renewed = Tokens::of(&identity.posts(&world.beta, "/oauth/token", &form, basic).await);
    assert_eq!(identity.calls(&world.beta, &renewed.access).await.status(), 200);

    // Whoever shows a certificate unasked gets a token like any other.
    let plain = Client::registered(&world.beta, "other").await;
    let code = plain.code(&world.beta, &mut world.operator).await;
    let form = redeeming(&code, &plain.redirect_uri);
    let tokens = Tokens::of(&identity.posts(&world.beta, "/oauth/token", &form, Some((&plain.id, &plain.secret))).await);
    assert_eq!(presents(&world, "Bearer", &tokens.access, None).await.status(), 200);
}

#[tokio::test]
async fn g7_the_refresh_token_of_an_app_without_a_secret_is_bound_to_its_certificate() {
    let mut world = World::with_mtls("").await;
    let (own, thief) = (Identity::self_signed(&named("phone")), Identity::self_signed(&named("phone")));
    let redirect_uri = "https://phone.example/done";
    let wanted = json!({ "name": "phone", "scopes": ["p2pi"], "redirect_uris": [redirect_uri], "auth_method": "none", "mtls": true });
    let app = world.beta.creates("ib-app", wanted).await;
    let id = app["client_id"].as_str().expect("an id").to_owned();
    let client = Client { id: id.clone(), secret: String::new(), redirect_uri: redirect_uri.to_owned() };
    let code = client.code(&world.beta, &mut world.operator).await;
    let form = [&redeeming(&code, redirect_uri)[..], &[("client_id", id.as_str())]].concat();
    let tokens = Tokens::of(&own.posts(&world.beta, "/oauth/token", &form, None).await);
    let form = [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.as_str()), ("client_id", id.as_str())];
    refused(&thief.posts(&world.beta, "/oauth/token", &form, None).await, 400, "invalid_grant");
    let next = Tokens::of(&own.posts(&world.beta, "/oauth/token", &form, None).await);
    assert_ne!(next.refresh, tokens.refresh, "the thief's attempt was no use of it");
}

/// A client that notes whether it was asked for a certificate, and shows one with a key of its own choice.
#[derive(Debug)]
struct Asked {
    shows: Option<Arc<CertifiedKey>>,
    was_asked: AtomicBool,
}

impl ResolvesClientCert for Asked {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.was_asked.store(true, Ordering::Relaxed);
        self.shows.clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

async fn handshake(node: &Node, config: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let address = node.settings.mtls;
    let tcp = within("a TCP connection", TcpStream::connect(address)).await.expect("somebody listens");
    within("a TLS handshake", TlsConnector::from(config).connect(address.ip().into(), tcp)).await
}

#[tokio::test]
async fn g7_certificates_are_asked_for_at_their_own_address_and_their_key_signs_the_handshake() {
    let world = World::with_mtls("").await;
    let beta = &world.beta;
    let client = |shows| Arc::new(Asked { shows, was_asked: AtomicBool::new(false) });
    let config = |resolver: &Arc<Asked>| {
        let config = ClientConfig::builder().with_root_certificates(roots(&beta.settings.authority()));
        Arc::new(config.with_client_cert_resolver(Arc::clone(resolver) as Arc<dyn ResolvesClientCert>))
    };
    let look = request("GET", "/.well-known/oauth-authorization-server", "beta.example", &[], "");
    for (address, is_asked) in [(beta.settings.public, false), (beta.settings.mtls, true)] {
        let browser = client(None);
        let mut wire = Wire::tls_by(address, config(&browser)).await;
        assert_eq!(wire.asks(&look).await.status(), 200, "nobody needs one");
        assert_eq!(browser.was_asked.load(Ordering::Relaxed), is_asked, "{address}");
    }
    // Somebody's certificate is public; without its key it is of no use.
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
        let (own, other) = (Identity::self_signed(&named("shop")), Identity::self_signed(&named("shop")));
        for (chain, key, is_taken) in [(&own, &own, true), (&own, &other, false)] {
            let thief = client(Some(Arc::new(CertifiedKey::new(chain.chain(), key.signing_key()))));
            let builder = ClientConfig::builder_with_protocol_versions(versions);
            let config = builder.with_root_certificates(roots(&beta.settings.authority()));
            let config = config.with_client_cert_resolver(thief as Arc<dyn ResolvesClientCert>);
            let answered = async {
                let mut stream = handshake(beta, Arc::new(config)).await?;
                stream.write_all(look.as_bytes()).await?;
                let mut first = [0; 12];
                within("bytes", stream.read_exact(&mut first)).await?;
                Ok::<_, std::io::Error>(first)
            };
            let answered = answered.await;
            assert_eq!(answered.as_ref().is_ok_and(|first| first == b"HTTP/1.1 200"), is_taken, "{answered:?}");
        }
    }
}

#[tokio::test]
async fn g7_a_resumed_session_keeps_its_certificate_and_lends_it_to_nobody() {
    let mut world = World::with_mtls("").await;
    let own = Identity::self_signed(&named("shop"));
    let (_, tokens) = bound(&mut world, &own).await;
    let beta = &world.beta;
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
        let config = own.config_of(&beta.settings.authority(), versions);
        let anonymous = ClientConfig::builder_with_protocol_versions(versions)
            .with_root_certificates(roots(&beta.settings.authority()))
            .with_no_client_auth();
        let anonymous = Arc::new(anonymous);
        for (kind, resumed) in [(HandshakeKind::Full, false), (HandshakeKind::Resumed, true), (HandshakeKind::Resumed, true)] {
            for (config, status) in [(&config, "HTTP/1.1 200"), (&anonymous, "HTTP/1.1 401")] {
                let mut stream = handshake(beta, Arc::clone(config)).await.expect("a handshake");
                let headers = [("Authorization", &*format!("Bearer {}", tokens.access)), ("Connection", "close")];
                let call = request("GET", "/p2pi/orders", &beta.settings.mtls.to_string(), &headers, "");
                stream.write_all(call.as_bytes()).await.expect("it is taken");
                let mut answer = Vec::new();
                let _ = within("an answer", stream.read_to_end(&mut answer)).await;
                assert!(answer.starts_with(status.as_bytes()), "resumed {resumed}: {}", String::from_utf8_lossy(&answer));
                assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind));
            }
        }
    }
}

#[tokio::test]
async fn g7_d1_the_metadata_say_where_certificates_are_asked_for() {
    let world = World::with_mtls("").await;
    let at = |path: &str| format!("https://{}{path}", world.beta.settings.mtls);
    let server = world.beta.is_asked("GET", "/.well-known/oauth-authorization-server", &[], "").await.json();
    assert_eq!(server["tls_client_certificate_bound_access_tokens"], true);
    let expected = json!({
        "token_endpoint": at("/oauth/token"),
        "revocation_endpoint": at("/oauth/revoke"),
        "introspection_endpoint": at("/oauth/introspect"),
        "pushed_authorization_request_endpoint": at("/oauth/par"),
        "p2pi_endpoint": at("/p2pi"),
    });
    assert_eq!(server["mtls_endpoint_aliases"], expected);
    assert_eq!(server["issuer"], world.beta.settings.url());
    let identity = Identity::self_signed(&named("shop"));
    for endpoint in ["/oauth/token", "/oauth/revoke", "/oauth/introspect", "/oauth/par"] {
        refused(&identity.posts(&world.beta, endpoint, &[("token", "x")], None).await, 401, "invalid_client");
    }
    let resource = world.beta.is_asked("GET", "/.well-known/oauth-protected-resource", &[], "").await.json();
    assert_eq!(resource["tls_client_certificate_bound_access_tokens"], true);
    let without = World::new().await.beta.is_asked("GET", "/.well-known/oauth-authorization-server", &[], "").await.json();
    assert_eq!((&without["mtls_endpoint_aliases"], &without["tls_client_certificate_bound_access_tokens"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn g6_g7_a_proof_may_name_the_address_where_certificates_are_asked_for() {
    let mut world = World::with_mtls("").await;
    let (identity, holder) = (Identity::self_signed(&named("shop")), Holder::new());
    let client = Client::registered_with(&world.beta, "shop", json!({ "dpop": true })).await;
    let code = client.code(&world.beta, &mut world.operator).await;
    let form = redeeming(&code, &client.redirect_uri);
    let asks = async |changes: Value| {
        let mut claims = json!({ "htu": format!("https://{}/oauth/token", world.beta.settings.mtls) });
        claims.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
        let proof = holder.proof(&world, "POST", "/oauth/token", claims);
        let form = [&form[..], &[("client_id", client.id.as_str()), ("client_secret", client.secret.as_str())]].concat();
        let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("DPoP", proof.as_str())];
        identity.asks(&world.beta, "POST", "/oauth/token", &headers, &encoded(&form)).await
    };
    let nonce = asks(json!({})).await.header("dpop-nonce").expect("a nonce").to_owned();
    assert_eq!(asks(json!({ "nonce": nonce })).await.json()["token_type"], "DPoP");
}
