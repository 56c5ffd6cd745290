//! A daemon in this process: its admin API, its relay, its application, its end.

use std::sync::Arc;

use p2pid::cli::demo::application::Application;
use p2pid::clock::Clock;
use p2pid::daemon::{self, Running, StartError};
use p2pid::random::Random;
use serde_json::{Value, json};

use super::address::own_address;
use super::clock::{ManualClock, SeededRandom};
use super::message::Message;
use super::patience::within;
use super::settings::{Settings, request};
use super::wire::Wire;

/// One instance that runs in this process, and the application behind it.
pub(crate) struct Node {
    pub(crate) settings: Settings,
    pub(crate) application: Application,
    clock: Arc<ManualClock>,
    random: Arc<SeededRandom>,
    running: Option<Running>,
}

impl Node {
    /// An instance that is configured and does not run yet. Any local process may call through it.
    pub(crate) async fn new(name: &str, clock: &Arc<ManualClock>, seed: u64) -> Self {
        let application = Application::start(name, (own_address(), 0).into()).await.expect("an address of our own");
        let settings = Settings::new(name, &application.url());
        settings.says("local.toml", "[local]\nopen = true\n");
        Self { settings, application, clock: Arc::clone(clock), random: Arc::new(SeededRandom::new(seed)), running: None }
    }

    /// Starts it.
    pub(crate) async fn starts(&mut self) {
        let name = self.settings.name.clone();
        self.tries_to_start().await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// Starts it, expecting that it may not become ready.
    pub(crate) async fn tries_to_start(&mut self) -> Result<(), StartError> {
        let loaded = p2pid::config::load(&self.settings.config()).unwrap_or_else(|problems| panic!("{problems}"));
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as _;
        let random: Arc<dyn Random> = Arc::clone(&self.random) as _;
        self.running = Some(within("the daemon to start", daemon::start(loaded, clock, random)).await?);
        Ok(())
    }

    /// Stops it in order.
    pub(crate) async fn stops(&mut self) {
        let running = self.running.take().expect("it runs");
        within("the daemon to stop", running.stop()).await;
    }

    /// Stops it and starts it again on what it left.
    pub(crate) async fn restarts(&mut self) {
        self.stops().await;
        self.starts().await;
    }

    /// The running daemon.
    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs")
    }

    /// Asks the admin API over its socket.
    pub(crate) async fn asks(&self, method: &str, path: &str, document: Option<&Value>) -> Message {
        let body = document.map(Value::to_string).unwrap_or_default();
        let headers: &[(&str, &str)] = if document.is_some() { &[("Content-Type", "application/json")] } else { &[] };
        let mut wire = Wire::unix(&self.settings.socket()).await;
        wire.asks(request(method, path, "localhost", headers, &body)).await
    }

    /// Makes a record of this type (`ib-app`, `peer`, …) in the default tenant; gives its attributes.
    pub(crate) async fn creates(&self, kind: &str, attributes: Value) -> Value {
        let document = json!({ "data": { "type": kind, "attributes": attributes } });
        self.done("POST", &collection(kind), Some(&document)).await
    }

    /// Changes a record; gives its attributes.
    pub(crate) async fn changes(&self, kind: &str, name: &str, attributes: Value) -> Value {
        let document = json!({ "data": { "type": kind, "attributes": attributes } });
        self.done("PATCH", &format!("{}/{name}", collection(kind)), Some(&document)).await
    }

    /// The attributes of a record.
    pub(crate) async fn shows(&self, kind: &str, name: &str) -> Value {
        self.done("GET", &format!("{}/{name}", collection(kind)), None).await
    }

    /// The attributes of all records of a type.
    pub(crate) async fn lists(&self, kind: &str) -> Vec<Value> {
        let answer = self.asks("GET", &collection(kind), None).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let records = answer.json()["data"].as_array().cloned().unwrap_or_default();
        records.into_iter().map(|record| record["attributes"].clone()).collect()
    }

    /// An action on a record (`refresh`, `request`, `unlink`, …); gives the attributes of the answer.
    pub(crate) async fn acts(&self, kind: &str, name: &str, action: &str, attributes: Value) -> Value {
        let document = json!({ "data": { "type": kind, "attributes": attributes } });
        self.done("POST", &format!("{}/{name}/{action}", collection(kind)), Some(&document)).await
    }

    /// The rows of its audit that a query selects, the oldest first.
    pub(crate) async fn audit(&self, query: &str) -> Vec<Value> {
        let answer = self.asks("GET", &format!("/v2/audit?{query}"), None).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let rows = answer.json()["data"].as_array().cloned().unwrap_or_default();
        rows.into_iter().map(|row| row["attributes"].clone()).collect()
    }

    /// A new request URL for a peer.
    pub(crate) async fn request_url(&self, peer: &str) -> String {
        let request = self.acts("peer", peer, "request", json!({})).await;
        request["url"].as_str().unwrap_or_else(|| panic!("no url: {request}")).to_owned()
    }

    /// The state of a peer.
    pub(crate) async fn state_of(&self, peer: &str) -> String {
        self.shows("peer", peer).await["state"].as_str().unwrap_or_default().to_owned()
    }

    /// A call of a local application to another instance: `path` is what the application there sees.
    pub(crate) async fn calls(&self, peer: &Node, path: &str) -> Message {
        self.relays("GET", &format!("/{}{path}", peer.settings.name), &[], "").await
    }

    /// Any request at the relay.
    pub(crate) async fn relays(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Message {
        let mut wire = Wire::plain(self.settings.local).await;
        wire.asks(request(method, target, &self.settings.local.to_string(), headers, body)).await
    }

    /// Any request at the public listener.
    pub(crate) async fn is_asked(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Message {
        let mut wire = Wire::tls(self.settings.public, &self.settings.authority()).await;
        wire.asks(request(method, target, &self.settings.public.to_string(), headers, body)).await
    }

    /// A form at the public listener, with the client's id and secret as HTTP Basic.
    pub(crate) async fn gets_form(&self, path: &str, client: (&str, &str), form: &[(&str, &str)]) -> Message {
        use base64::Engine;
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", client.0, client.1));
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let basic = format!("Basic {basic}");
        let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Authorization", basic.as_str())];
        self.is_asked("POST", path, &headers, &body).await
    }

    /// What the console answers to a GET.
    pub(crate) async fn console(&self, target: &str) -> Message {
        let mut wire = Wire::plain(self.settings.console).await;
        wire.asks(request("GET", target, &self.settings.console.to_string(), &[], "")).await
    }

    async fn done(&self, method: &str, path: &str, document: Option<&Value>) -> Value {
        let answer = self.asks(method, path, document).await;
        assert!((200..300).contains(&answer.status()), "{method} {path}: {} {}", answer.first_line, answer.text());
        answer.json()["data"]["attributes"].clone()
    }
}

fn collection(kind: &str) -> String {
    match kind {
        "user" | "tenant" => format!("/v2/{kind}s"),
        _ => format!("/v2/tenants/default/{kind}s"),
    }
}
