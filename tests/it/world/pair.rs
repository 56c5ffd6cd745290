//! Two real processes that are linked, or about to be.

use serde_json::Value;

use super::person::Person;
use super::process::Process;

/// Two processes, `one` that calls and `two` that is called.
pub(crate) struct Pair {
    pub(crate) one: Process,
    pub(crate) two: Process,
    pub(crate) operator: Person,
    /// A caller's key on `one`.
    pub(crate) key: String,
    pub(crate) client_secret: String,
}

impl Pair {
    /// Both run and know each other; access tokens live `access_ttl`.
    pub(crate) async fn introduced(access_ttl: &str) -> Self {
        let (one, two) = (Process::running("one").await, Process::running("two").await);
        let (login, password) = ("operator@two.example", "correct horse battery");
        two.runs_with(&["user", "add", login, "--admin", "--password-stdin"], password).await;
        let create = ["ib", "create", "one", "--peer-url", &one.settings.url(), "--scope", "p2pi", "--access-ttl", access_ttl];
        let app = two.runs(&create).await;
        let member = |document: &Value, name: &str| document[name].as_str().unwrap_or_else(|| panic!("no {name}: {document}")).to_owned();
        let (client_id, client_secret) = (member(&app, "client_id"), member(&app, "client_secret"));
        let (url, authority) = (two.settings.url(), two.settings.authority());
        let trusted = authority.to_string_lossy();
        let create = ["peer", "create", "two", "--url", &url, "--client-id", &client_id, "--client-secret-stdin", "--scope", "p2pi"];
        let create = [&create[..], &["--ca", &trusted]].concat();
        let peer = one.runs_with(&create, &client_secret).await;
        assert_eq!(peer["state"], "ready_to_link", "{peer}");
        let key = member(&one.runs(&["caller", "add", "shop"]).await, "key");
        let operator = Person::new(login, password, &[one.settings.authority(), authority]);
        Self { one, two, operator, key, client_secret }
    }

    /// Both run and are linked.
    pub(crate) async fn linked(access_ttl: &str) -> Self {
        let mut pair = Self::introduced(access_ttl).await;
        pair.links().await;
        pair
    }

    /// Goes the whole way of a new request URL.
    pub(crate) async fn links(&mut self) {
        let url = self.request_url().await;
        let page = self.operator.opens(&url).continues().logs_in().allows().await;
        assert_eq!(page.status, 200, "{}", page.text());
        assert_eq!(self.state().await, "linked");
    }

    pub(crate) async fn request_url(&self) -> String {
        self.one.runs(&["peer", "request", "two"]).await["url"].as_str().expect("a request URL").to_owned()
    }

    pub(crate) async fn state(&self) -> String {
        self.one.runs(&["peer", "show", "two"]).await["state"].as_str().unwrap_or_default().to_owned()
    }

    /// The status of a call through relay and gateway.
    pub(crate) async fn calls(&self) -> u16 {
        self.one.relays(&self.key, "/two/orders").await.status()
    }
}
