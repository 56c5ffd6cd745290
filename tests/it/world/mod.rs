//! The world of the tests: two daemons, browsers, clocks and peers that misbehave.
//!
//! ```ignore
//! let mut world = World::new().await;
//! world.introduces().await;                                     // records on both sides, not linked yet
//! let url = world.alpha.request_url("beta").await;
//! world.operator.opens(&url).continues().logs_in().allows().await;
//! assert_eq!(world.alpha.calls(&world.beta, "/orders").await.status(), 200);
//! ```

pub(crate) mod account;
pub(crate) mod address;
pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod hostile;
pub(crate) mod key_holder;
pub(crate) mod message;
pub(crate) mod node;
pub(crate) mod pair;
pub(crate) mod patience;
pub(crate) mod person;
pub(crate) mod process;
pub(crate) mod scene;
pub(crate) mod settings;
pub(crate) mod wire;

use std::sync::Arc;

use serde_json::{Value, json};

use clock::ManualClock;
use node::Node;
use person::Person;
use settings::Settings;

/// Two daemons in this process, `alpha` that calls and `beta` that is called, one clock, and somebody who may allow links on `beta`.
pub(crate) struct World {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) alpha: Node,
    pub(crate) beta: Node,
    pub(crate) operator: Person,
}

impl World {
    /// Both run; `operator` has an account on `beta`.
    pub(crate) async fn new() -> Self {
        Self::with("").await
    }

    /// The same, with more configuration for both.
    pub(crate) async fn with(configuration: &str) -> Self {
        Self::below("", configuration).await
    }

    /// The same, with both `public_url`s below `path`.
    pub(crate) async fn below(path: &'static str, configuration: &str) -> Self {
        Self::arranged(|settings| {
            if !path.is_empty() {
                settings.stands_below(path);
            }
            settings.says("world.toml", configuration);
        })
        .await
    }

    /// Both offer mutual TLS, with `configuration` in `[mtls]`.
    pub(crate) async fn with_mtls(configuration: &str) -> Self {
        Self::arranged(|settings| settings.offers_mtls(configuration)).await
    }

    /// Both offer mutual TLS to clients for whom the authority with that certificate signs.
    pub(crate) async fn with_client_authority(pem: &str) -> Self {
        Self::arranged(|settings| {
            std::fs::write(settings.folder().join("clients-ca.pem"), pem).expect("the temporary folder can be written");
            settings.offers_mtls("ca = [\"clients-ca.pem\"]\n[limits]\nauth_failures = \"1000/min\"");
        })
        .await
    }

    async fn arranged(arrange: impl Fn(&mut Settings)) -> Self {
        let clock = Arc::new(ManualClock::new());
        let (mut alpha, mut beta) = (Node::new("alpha", &clock, 1).await, Node::new("beta", &clock, 2).await);
        for node in [&mut alpha, &mut beta] {
            arrange(&mut node.settings);
            node.starts().await;
        }
        let (login, password) = ("operator@beta.example", "correct horse battery");
        beta.creates("user", json!({ "login": login, "password": password, "admin": true })).await;
        let operator = Person::new(login, password, &[alpha.settings.authority(), beta.settings.authority()]);
        Self { clock, alpha, beta, operator }
    }

    /// Makes the IB app on `beta` and the peer on `alpha`. Gives the IB app, with its secret.
    pub(crate) async fn introduces(&self) -> Value {
        self.introduces_with(json!({})).await
    }

    /// The same, with more attributes for the IB app.
    pub(crate) async fn introduces_with(&self, attributes: Value) -> Value {
        let callback = format!("{}/oauth/callback", self.alpha.settings.url());
        let mut wanted = json!({ "name": "alpha", "redirect_uris": [callback], "scopes": ["p2pi"] });
        for (name, value) in attributes.as_object().into_iter().flatten() {
            wanted[name] = value.clone();
        }
        let app = self.beta.creates("ib-app", wanted).await;
        let authority = std::fs::read_to_string(self.beta.settings.authority()).expect("beta's certificate");
        let peer = json!({
            "name": "beta", "url": self.beta.settings.url(), "ca": authority, "scopes": ["p2pi"],
            "client_id": app["client_id"], "client_secret": app["client_secret"],
        });
        self.alpha.creates("peer", peer).await;
        app
    }

    /// The same, without a secret: alpha's key is registered on `beta`, from the document that alpha shows or by its URL.
    pub(crate) async fn introduces_by_key(&self, by_url: bool, attributes: Value) -> Value {
        let authority = std::fs::read_to_string(self.beta.settings.authority()).expect("beta's certificate");
        let peer = json!({
            "name": "beta", "url": self.beta.settings.url(), "ca": authority, "scopes": ["p2pi"], "auth_method": "private_key_jwt",
        });
        self.alpha.creates("peer", peer).await;
        let ours = self.alpha.shows("ob-app", "beta").await;
        let (name, value) = if by_url { ("jwks_uri", &ours["jwks_uri"]) } else { ("jwks", &ours["jwks"]) };
        let mut wanted = json!({
            "name": "alpha", "peer_url": self.alpha.settings.url(), "scopes": ["p2pi"], "client_id": ours["client_id"],
        });
        wanted[name] = value.clone();
        for (name, value) in attributes.as_object().into_iter().flatten() {
            wanted[name] = value.clone();
        }
        self.beta.creates("ib-app", wanted).await
    }

    /// Goes the whole way of a request URL, from the page to Allow.
    pub(crate) async fn links(&mut self) {
        let url = self.alpha.request_url("beta").await;
        let page = self.operator.opens(&url).continues().logs_in().allows().await;
        assert_eq!(page.status, 200, "{}", page.text());
        assert_eq!(self.alpha.state_of("beta").await, "linked");
    }

    /// Two daemons that are linked. Gives also the IB app, with its secret.
    pub(crate) async fn linked() -> (Self, Value) {
        Self::linked_with("").await
    }

    /// The same, with more configuration for both.
    pub(crate) async fn linked_with(configuration: &str) -> (Self, Value) {
        let mut world = Self::with(configuration).await;
        let app = world.introduces().await;
        world.links().await;
        (world, app)
    }
}
