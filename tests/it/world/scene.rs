//! A daemon and a peer that misbehaves as a test says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::clock::ManualClock;
use super::hostile::{Endpoint, Heard, Hostile};
use super::message::Message;
use super::node::Node;
use super::patience::eventually;
use super::person::Person;

/// `alpha` that calls, the peer `two` that is hostile, one clock, and somebody with a browser. Whoever is asked there allows at once.
pub(crate) struct Scene {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) alpha: Node,
    pub(crate) two: Hostile,
    pub(crate) person: Person,
}

impl Scene {
    /// The peer's record is there, and it is not linked.
    pub(crate) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    /// The same, with a peer that was told something before anybody asked it.
    pub(crate) async fn with(tell: impl FnOnce(&Hostile)) -> Self {
        let clock = Arc::new(ManualClock::new());
        let mut alpha = Node::new("alpha", &clock, 1).await;
        alpha.settings.says("limits.toml", "[limits]\ntoken_timeout = \"2s\"\nrefresh_wait = \"30s\"\n");
        alpha.starts().await;
        let two = Hostile::start(Arc::clone(&clock) as _).await;
        tell(&two);
        let person = Person::new("somebody@two.example", "not asked for", &[alpha.settings.authority(), two.authority()]);
        let scene = Self { clock, alpha, two, person };
        let authority = std::fs::read_to_string(scene.two.authority()).expect("the peer's certificate");
        let peer = json!({
            "name": "two", "url": scene.two.url(), "ca": authority, "scopes": ["p2pi"], "client_id": "alpha", "client_secret": "a-secret-of-20-chars!",
        });
        scene.alpha.creates("peer", peer).await;
        scene
    }

    /// The peer is linked.
    pub(crate) async fn linked() -> Self {
        Self::linked_with(|_| ()).await
    }

    /// The same, with a peer that was told something before.
    pub(crate) async fn linked_with(tell: impl FnOnce(&Hostile)) -> Self {
        let mut scene = Self::with(tell).await;
        scene.links().await;
        scene
    }

    /// From here on a token request may take as long as a test may: for answers that are held back while much else happens.
    pub(crate) async fn is_patient(&mut self) {
        self.alpha.settings.says("limits.toml", "[limits]\ntoken_timeout = \"60s\"\nrefresh_wait = \"30s\"\n");
        self.alpha.restarts().await;
    }

    /// Goes the whole way of a request URL.
    pub(crate) async fn links(&mut self) {
        let url = self.alpha.request_url("two").await;
        let page = self.person.opens(&url).continues().await;
        assert_eq!(page.status, 200, "{}", page.text());
        assert_eq!(self.alpha.state_of("two").await, "linked");
    }

    /// A call of a local application.
    pub(crate) async fn calls(&self) -> Message {
        self.alpha.relays("GET", "/two/orders", &[], "").await
    }

    /// What the peer's record shows.
    pub(crate) async fn peer(&self) -> Value {
        self.alpha.shows("peer", "two").await
    }

    /// The refreshes that reached the peer.
    pub(crate) fn refreshes(&self) -> Vec<Heard> {
        let is_refresh = |heard: &Heard| heard.parameter("grant_type") == Some("refresh_token");
        self.two.heard(Endpoint::Token).into_iter().filter(is_refresh).collect()
    }

    /// The refresh tokens that were presented, in order.
    pub(crate) fn presented(&self) -> Vec<String> {
        self.refreshes().iter().map(|heard| heard.parameter("refresh_token").unwrap_or_default().to_owned()).collect()
    }

    /// What became of the peer's refreshes so far, as the metrics count it: how many succeeded, and how many failed for which reason.
    pub(crate) async fn counted(&self) -> (u64, BTreeMap<String, u64>) {
        let metrics = self.alpha.console("/metrics").await.text();
        let (mut succeeded, mut failed) = (0, BTreeMap::new());
        for line in metrics.lines().filter(|line| line.starts_with("p2pid_refresh_total{") && line.contains("peer=\"two\"")) {
            let count = line.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no count: {line}"));
            let reason = line.split("reason=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
            if line.contains("result=\"success\"") {
                succeeded += count;
            } else if count > 0 {
                failed.insert(reason.to_owned(), count);
            }
        }
        (succeeded, failed)
    }

    /// Lets time pass in steps until the peer is in `state`.
    pub(crate) async fn passes_until(&self, step: Duration, state: &str) -> Value {
        eventually(&format!("the peer to be {state}"), async || {
            let peer = self.peer().await;
            if peer["state"] == state {
                return Some(peer);
            }
            self.clock.advance(step);
            None
        })
        .await
    }

    /// Waits until so many refreshes have reached the peer, letting time pass in steps.
    pub(crate) async fn passes_until_refreshes(&self, step: Duration, count: usize) {
        eventually(&format!("{count} refreshes"), async || {
            let done = self.refreshes().len() >= count;
            if !done {
                self.clock.advance(step);
            }
            done.then_some(())
        })
        .await;
    }
}
