//! Somebody who uses the admin API from elsewhere: an account with a key, over the console listener.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::message::Message;
use super::node::Node;
use super::settings::request;
use super::wire::Wire;

/// A login and one of its keys.
pub(crate) struct Account {
    pub(crate) login: String,
    pub(crate) key: String,
}

impl Account {
    /// Makes a person with these rights, and a key.
    pub(crate) async fn on(node: &Node, login: &str, rights: Value) -> Self {
        let mut user = json!({ "login": login, "password": "another horse battery" });
        for (name, value) in rights.as_object().into_iter().flatten() {
            user[name] = value.clone();
        }
        node.creates("user", user).await;
        Self::another_key(node, login, json!({})).await
    }

    /// Another key of a person who exists.
    pub(crate) async fn another_key(node: &Node, login: &str, attributes: Value) -> Self {
        let key = node.acts("user", login, "key", attributes).await["api_key"].as_str().expect("a key").to_owned();
        Self { login: login.to_owned(), key }
    }

    /// Asks the console. `kind` is the type of the document, which is sent when there are attributes.
    pub(crate) async fn asks(&self, node: &Node, method: &str, path: &str, kind: &str, attributes: Value) -> Message {
        let host = node.settings.console.to_string();
        let basic = format!("Basic {}", STANDARD.encode(format!("{}:{}", self.login, self.key)));
        let mut headers = vec![("Authorization", basic.as_str())];
        let mut body = String::new();
        if !attributes.is_null() {
            headers.push(("Content-Type", "application/json"));
            body = json!({ "data": { "type": kind, "attributes": attributes } }).to_string();
        }
        Wire::plain(node.settings.console).await.asks(request(method, path, &host, &headers, &body)).await
    }

    /// The status of a GET.
    pub(crate) async fn sees(&self, node: &Node, path: &str) -> u16 {
        self.asks(node, "GET", path, "", Value::Null).await.status()
    }
}
