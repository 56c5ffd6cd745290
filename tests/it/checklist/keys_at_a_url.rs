//! K4: public keys that a client keeps at a URL of its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use p2pid::clock::Clock;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::refused;
use crate::world::World;
use crate::world::address::own_address;
use crate::world::key_holder::{Holder, encoded};
use crate::world::message::Message;
use crate::world::node::Node;
use crate::world::patience::eventually;
use crate::world::scene::Scene;

/// In place of a status: no answer at all.
const SILENCE: u16 = 0;

/// A server of one document.
pub(super) struct Published {
    pub(super) url: String,
    document: Arc<Mutex<(u16, String)>>,
    looks: Arc<AtomicUsize>,
    /// Connections without an answer.
    held: Arc<Mutex<Vec<TcpStream>>>,
}

impl Published {
    pub(super) async fn new() -> Self {
        let listener = TcpListener::bind((own_address(), 0)).await.expect("an address of our own");
        let url = format!("http://{}/jwks", listener.local_addr().expect("it has one"));
        let (document, looks) = (Arc::new(Mutex::new((200, String::new()))), Arc::new(AtomicUsize::new(0)));
        let held = Arc::new(Mutex::new(Vec::new()));
        let (shown, counted, holding) = (Arc::clone(&document), Arc::clone(&looks), Arc::clone(&held));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.is_ok_and(|length| length > 0) {}
                counted.fetch_add(1, Ordering::SeqCst);
                let (status, text) = shown.lock().expect("no panic").clone();
                if status == SILENCE {
                    holding.lock().expect("no panic").push(stream);
                    continue;
                }
                let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}", text.len());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, document, looks, held }
    }

    pub(super) fn shows(&self, status: u16, document: &Value) {
        *self.document.lock().expect("no panic") = (status, document.to_string());
    }

    /// Closes the connections that had no answer.
    fn lets_go(&self) {
        self.held.lock().expect("no panic").clear();
    }

    pub(super) fn looks(&self) -> usize {
        self.looks.load(Ordering::SeqCst)
    }
}

async fn asks(world: &World, holder: &Holder, id: &str) -> Message {
    let assertion = holder.asserts(world, id);
    let mut form = vec![("grant_type", "client_credentials")];
    form.extend(assertion.iter().map(|(name, value)| (*name, value.as_str())));
    let kind = ("Content-Type", "application/x-www-form-urlencoded");
    world.beta.is_asked("POST", "/oauth/token", &[kind], &encoded(&form)).await
}

#[tokio::test]
async fn k4_a_new_key_is_found_by_one_look_and_unknown_keys_make_none_without_end() {
    let world = World::with("[limits]\nauth_failures = \"1000/min\"\n").await;
    let published = Published::new().await;
    let (old, new, stranger) = (Holder::new(), Holder::new(), Holder::new());
    published.shows(200, &old.jwks());
    let wanted = json!({ "name": "signer", "grants": ["client_credentials"], "scopes": ["p2pi"], "jwks_uri": published.url });
    let app = world.beta.creates("ib-app", wanted).await;
    assert_eq!((app["auth_method"].as_str(), app["jwks_uri"].as_str()), (Some("private_key_jwt"), Some(published.url.as_str())));
    let id = app["client_id"].as_str().expect("an id").to_owned();

    for _ in 0..3 {
        assert_eq!(asks(&world, &old, &id).await.status(), 200);
    }
    assert_eq!(published.looks(), 1, "a set is kept");
    for _ in 0..5 {
        refused(&asks(&world, &stranger, &id).await, 401, "invalid_client");
    }
    assert_eq!(published.looks(), 1, "not so soon after the last look");
    world.clock.advance(Duration::from_secs(10));
    published.shows(200, &new.jwks());
    assert_eq!(asks(&world, &new, &id).await.status(), 200);
    refused(&asks(&world, &old, &id).await, 401, "invalid_client");
    assert_eq!(published.looks(), 2);

    // While nothing can be had, the last keys count, for a day.
    published.shows(500, &json!({}));
    world.clock.advance(Duration::from_secs(2 * 60 * 60));
    assert_eq!(asks(&world, &new, &id).await.status(), 200);
    assert_eq!(published.looks(), 3);
    world.clock.advance(Duration::from_secs(24 * 60 * 60));
    let silent = asks(&world, &new, &id).await;
    assert_eq!((silent.status(), silent.header("retry-after")), (503, Some("1")), "{}", silent.text());
    published.shows(200, &new.jwks());
    world.clock.advance(Duration::from_secs(10));
    assert_eq!(asks(&world, &new, &id).await.status(), 200);
    // What has a private part, or is no set, is not believed.
    world.clock.advance(Duration::from_secs(2 * 60 * 60));
    let mut leaked = stranger.jwks();
    leaked["keys"][0]["d"] = json!("AAAA");
    published.shows(200, &leaked);
    refused(&asks(&world, &stranger, &id).await, 401, "invalid_client");
}

#[tokio::test]
async fn k4_a_stranger_and_a_silent_url_keep_no_client_waiting_whose_keys_are_known() {
    let world = World::new().await;
    let published = Published::new().await;
    let (holder, stranger) = (Holder::new(), Holder::new());
    published.shows(200, &holder.jwks());
    let wanted = json!({ "name": "signer", "grants": ["client_credentials"], "scopes": ["p2pi"], "jwks_uri": published.url });
    let id = world.beta.creates("ib-app", wanted).await["client_id"].as_str().expect("an id").to_owned();
    assert_eq!(asks(&world, &holder, &id).await.status(), 200);
    world.clock.advance(Duration::from_secs(10));
    published.shows(SILENCE, &json!({}));
    let (world, id) = (&world, id.as_str());
    let mut waiting = std::pin::pin!(asks(world, &stranger, id));
    let meanwhile = async {
        eventually("the silent URL to be looked at", async || (published.looks() == 2).then_some(())).await;
        for _ in 0..5 {
            assert_eq!(asks(world, &holder, id).await.status(), 200);
        }
    };
    tokio::select! {
        _ = &mut waiting => panic!("the stranger was to wait for the look"),
        () = meanwhile => {}
    }
    assert_eq!(published.looks(), 2);
}

/// Asks alpha for a token, with an assertion for it.
async fn asks_alpha(scene: &Scene, holder: &Holder, id: &str, identifier: &str) -> Message {
    let (now, issuer) = (scene.clock.now().wall.seconds(), scene.alpha.settings.url());
    let claims = json!({ "iss": id, "sub": id, "aud": issuer, "iat": now, "exp": now + 60, "jti": identifier });
    let form = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", &*holder.key.sign(r#"{"alg":"ES256","typ":"JWT"}"#, &claims.to_string())),
    ];
    let kind = ("Content-Type", "application/x-www-form-urlencoded");
    scene.alpha.is_asked("POST", "/oauth/token", &[kind], &encoded(&form)).await
}

/// Makes an app in a tenant whose keys are at a URL. Gives its client_id.
async fn signer(node: &Node, (tenant, scope): (&str, &str), name: &str, url: &str) -> String {
    let attributes = json!({ "name": name, "grants": ["client_credentials"], "scopes": [scope], "jwks_uri": url });
    let document = json!({ "data": { "type": "ib-app", "attributes": attributes } });
    let made = node.asks("POST", &format!("/v2/tenants/{tenant}/ib-apps"), Some(&document)).await;
    assert_eq!(made.status(), 201, "{}", made.text());
    made.json()["data"]["attributes"]["client_id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn k4_urls_of_one_tenant_that_never_answer_hold_up_no_refresh_and_no_other_tenant() {
    let mut scene = Scene::linked().await;
    // Two connections for keys, one of them for one tenant.
    scene.alpha.settings.says("limits.toml", "[limits]\noutgoing_connections = 64\ntoken_timeout = \"60s\"\n");
    scene.alpha.settings.says("other.toml", "[scopes]\nother = { text = \"Other\", tenant = \"other\" }\n");
    scene.alpha.restarts().await;
    let tenant = json!({ "data": { "type": "tenant", "attributes": { "name": "other" } } });
    assert_eq!(scene.alpha.asks("POST", "/v2/tenants", Some(&tenant)).await.status(), 201);
    let (slow, quick, holder) = (Published::new().await, Published::new().await, Holder::new());
    let mut ids = Vec::new();
    slow.shows(500, &json!({}));
    for number in 0..20 {
        ids.push(signer(&scene.alpha, ("default", "p2pi"), &format!("slow{number}"), &format!("{}?{number}", slow.url)).await);
    }
    quick.shows(500, &json!({}));
    let other = signer(&scene.alpha, ("other", "other"), "quick", &quick.url).await;
    scene.clock.advance(Duration::from_secs(10));
    slow.shows(SILENCE, &json!({}));
    quick.shows(200, &holder.jwks());

    let (scene, holder) = (&scene, &holder);
    let first = async |id: &'_ str| (id.to_owned(), asks_alpha(scene, holder, id, "first").await);
    let mut waiting: FuturesUnordered<_> = ids.iter().map(|id| first(id)).collect();
    // One is looked for, sixteen wait for their turn.
    let mut refused = Vec::new();
    for _ in 0..3 {
        let (id, answer) = waiting.next().await.expect("an answer");
        assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")), "{}", answer.text());
        refused.push(id);
    }
    assert_eq!(slow.looks(), 21, "one look for each that was made, and one more");
    let others = async {
        assert_eq!(asks_alpha(scene, holder, &other, "only").await.status(), 200);
        scene.alpha.acts("peer", "two", "refresh", json!({})).await;
        assert_eq!(scene.refreshes().len(), 1);
    };
    tokio::join!(others, async { while waiting.next().await.is_some_and(|(_, answer)| answer.status() == 503) {} }, async {
        eventually("the other's keys to be looked at", async || (quick.looks() == 2).then_some(())).await;
        eventually("the refresh", async || (scene.refreshes().len() == 1).then_some(())).await;
        slow.shows(200, &holder.jwks());
        slow.lets_go();
    });
    // Who found no place may look at once.
    for id in refused {
        let again = asks_alpha(scene, holder, &id, "second").await;
        assert_eq!(again.status(), 200, "{}", again.text());
    }
}
