//! What the token endpoint answers (RFC 6749 §5.1).

use std::time::Duration;

use serde::Serialize;

use super::binding::Binding;
use super::scope::Scope;
use crate::secret::{ExposeSecret, SecretString};

/// A successful answer of the token endpoint.
#[derive(Clone, Debug)]
pub struct TokenReply {
    /// `access_token`
    pub access_token: SecretString,
    /// What it is bound to, which makes its `token_type`.
    pub binding: Option<Binding>,
    /// `expires_in`, what is left of its life.
    pub expires_in: Duration,
    /// `refresh_token`, for apps that have one.
    pub refresh_token: Option<SecretString>,
    /// `refresh_token_expires_in`: how long the grant can be renewed at all, where that is limited.
    pub refresh_token_expires_in: Option<Duration>,
    /// `scope`, always said, so that nobody has to guess; but for a token that has none, for which there is no way to say it.
    pub scope: Scope,
    /// `p2pi_subject`: who allowed it, for a p2pid peer to show.
    pub subject: Option<String>,
}

#[derive(Serialize)]
struct Wire<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token_expires_in: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    p2pi_subject: Option<&'a str>,
}

impl TokenReply {
    /// The JSON document.
    pub fn to_json(&self) -> String {
        let wire = Wire {
            access_token: self.access_token.expose_secret(),
            token_type: Binding::token_type(self.binding),
            // 0 would read as "no life known"; a token that lives at all is never announced with it.
            expires_in: self.expires_in.as_secs().max(1),
            refresh_token: self.refresh_token.as_ref().map(|token| token.expose_secret()),
            refresh_token_expires_in: self.refresh_token_expires_in.map(|life| life.as_secs()),
            scope: self.scope.to_string(),
            p2pi_subject: self.subject.as_deref(),
        };
        serde_json::to_string(&wire).expect("texts and numbers serialize")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t7_a_reply_has_type_life_and_scope_and_only_what_there_is() {
        let reply = TokenReply {
            access_token: SecretString::from("A"),
            binding: None,
            expires_in: Duration::from_millis(3_999),
            refresh_token: None,
            refresh_token_expires_in: None,
            scope: "b a".parse().expect("a scope"),
            subject: None,
        };
        assert_eq!(reply.to_json(), r#"{"access_token":"A","token_type":"Bearer","expires_in":3,"scope":"a b"}"#);
        let bare = TokenReply { scope: Scope::default(), ..reply.clone() };
        assert_eq!(bare.to_json(), r#"{"access_token":"A","token_type":"Bearer","expires_in":3}"#);
        let whole = TokenReply {
            refresh_token: Some(SecretString::from("R")),
            refresh_token_expires_in: Some(Duration::from_secs(9)),
            subject: Some("ops@two.example".into()),
            ..reply
        };
        let expected = r#"{"access_token":"A","token_type":"Bearer","expires_in":3,"refresh_token":"R","refresh_token_expires_in":9,"scope":"a b","p2pi_subject":"ops@two.example"}"#;
        assert_eq!(whole.to_json(), expected);
    }
}
