//! K4: public keys that a client keeps at a URL of its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::refused;
use crate::world::World;
use crate::world::address::own_address;
use crate::world::key_holder::{Holder, encoded};
use crate::world::message::Message;
use crate::world::patience::eventually;

/// In place of a status: no answer at all.
const SILENCE: u16 = 0;

/// A server of one document.
pub(super) struct Published {
    pub(super) url: String,
    document: Arc<Mutex<(u16, String)>>,
    looks: Arc<AtomicUsize>,
}

impl Published {
    pub(super) async fn new() -> Self {
        let listener = TcpListener::bind((own_address(), 0)).await.expect("an address of our own");
        let url = format!("http://{}/jwks", listener.local_addr().expect("it has one"));
        let (document, looks) = (Arc::new(Mutex::new((200, String::new()))), Arc::new(AtomicUsize::new(0)));
        let (shown, counted) = (Arc::clone(&document), Arc::clone(&looks));
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.is_ok_and(|length| length > 0) {}
                counted.fetch_add(1, Ordering::SeqCst);
                let (status, text) = shown.lock().expect("no panic").clone();
                if status == SILENCE {
                    held.push(stream);
                    continue;
                }
                let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}", text.len());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, document, looks }
    }

    pub(super) fn shows(&self, status: u16, document: &Value) {
        *self.document.lock().expect("no panic") = (status, document.to_string());
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
