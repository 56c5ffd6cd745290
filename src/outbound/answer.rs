//! What a token endpoint answered: read leniently, since servers in the field leave members out or write them as another type, and
//! classified by the one question that matters for a one-use token: may the peer have done it?

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use oauth2::basic::{BasicErrorResponseType, BasicTokenType};
use oauth2::{AccessToken, RefreshToken, Scope as OAuthScope, StandardErrorResponse};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::client::Proof;
use super::plan;
use crate::oauth::dpop;
use crate::oauth::scope::Scope;
use crate::oauth::signing_key::SigningKey;
use crate::oauth::visible::is_hidden;
use crate::secret::{ExposeSecret, SecretString};

/// What came of a token request.
#[derive(Debug)]
pub enum Answer {
    /// Tokens.
    Granted(Box<Granted>),
    /// An OAuth error (RFC 6749 §5.2): the peer did nothing.
    Refused {
        /// The `error` code, as far as it is printable.
        code: String,
        /// `error_description`, cut.
        description: String,
    },
    /// An access token that is of no use to us, with a refresh token that is: the one presented may be spent, and this its successor.
    Unusable {
        /// What is wrong with the access token.
        what: String,
        /// The new refresh token.
        refresh: SecretString,
    },
    /// Something that no token endpoint says: a redirect, a firewall's page, a missing path.
    Unexpected(String),
    /// The peer may have done it or not: no answer in time, a broken answer, a failure of the server.
    Inconclusive {
        /// Why nobody knows.
        doubt: Doubt,
        /// What happened.
        what: String,
        /// When the peer wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// Nothing left this host.
    NotSent(String),
}

/// Why an answer leaves open what the peer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// None came, or it broke off.
    NoAnswer,
    /// The server says that it failed, or that this is not the time.
    ServerError,
    /// It cannot be read.
    Unreadable,
}

impl Answer {
    /// Why it brought no tokens, as metrics name it; `None` when it did.
    pub fn failure(&self) -> Option<&str> {
        Some(match self {
            Self::Granted(_) => return None,
            Self::Refused { code, .. } => code,
            Self::Unusable { .. } | Self::Unexpected(_) | Self::Inconclusive { doubt: Doubt::Unreadable, .. } => "bad_answer",
            Self::Inconclusive { doubt: Doubt::NoAnswer, .. } => "timeout",
            Self::Inconclusive { doubt: Doubt::ServerError, .. } => "server_error",
            Self::NotSent(_) => "unreachable",
        })
    }
}

/// Tokens that a peer gave.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The access token; fit for a header.
    pub access: SecretString,
    /// How long it lives from when the request was sent.
    pub life: Duration,
    /// A new refresh token; the old one stays when there is none.
    pub refresh: Option<SecretString>,
    /// How long the refresh token lives, where the peer says so.
    pub refresh_life: Option<Duration>,
    /// What was granted, where it differs from what was asked.
    pub scope: Option<Scope>,
    /// Who allowed it, at a p2pid peer.
    pub subject: Option<String>,
    /// The key that the access token is bound to.
    pub key: Option<Arc<SigningKey>>,
}

/// The members of a successful answer (RFC 6749 §5.1), of whatever type.
#[derive(Deserialize, Serialize)]
pub(super) struct LenientTokenResponse {
    /// Empty where there is none: what stands beside it may still count.
    #[serde(default = "no_token", deserialize_with = "token_if_text")]
    access_token: AccessToken,
    #[serde(default)]
    token_type: Value,
    #[serde(default)]
    expires_in: Value,
    #[serde(default)]
    refresh_token: Value,
    #[serde(default)]
    refresh_token_expires_in: Value,
    #[serde(default)]
    scope: Value,
    #[serde(default)]
    p2pi_subject: Value,
}

impl fmt::Debug for LenientTokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LenientTokenResponse(…)")
    }
}

impl oauth2::TokenResponse for LenientTokenResponse {
    type TokenType = BasicTokenType;

    fn access_token(&self) -> &AccessToken {
        &self.access_token
    }

    fn token_type(&self) -> &BasicTokenType {
        &BasicTokenType::Bearer
    }

    fn expires_in(&self) -> Option<Duration> {
        Some(plan::life(seconds(&self.expires_in)))
    }

    /// The members that cannot be lent in the crate's types are read by [`LenientTokenResponse::into_answer`].
    fn refresh_token(&self) -> Option<&RefreshToken> {
        None
    }

    fn scopes(&self) -> Option<&Vec<OAuthScope>> {
        None
    }
}

impl LenientTokenResponse {
    /// The tokens, or what makes them unusable, when they were asked for with `proof`. Never names their values.
    pub(super) fn into_answer(self, proof: Option<&Proof>) -> Answer {
        let unusable = |what: &str| Answer::Inconclusive {
            doubt: Doubt::Unreadable,
            what: format!("the peer answered 200 with {what}"),
            retry_after: None,
        };
        let refresh = self.refresh_token.as_str().filter(|token| !token.is_empty());
        if refresh.is_some_and(|token| token.chars().any(char::is_control)) {
            return unusable("a refresh_token with control characters");
        }
        let refresh = refresh.map(SecretString::from);
        let access = self.access_token.secret();
        if !is_presentable(access) {
            let what = if access.is_empty() { "no access_token" } else { "an access_token that no header can carry" };
            return match refresh {
                Some(refresh) => Answer::Unusable { what: what.to_owned(), refresh },
                None => unusable(what),
            };
        }
        let kind = self.token_type.as_str().unwrap_or_default();
        // A server that takes no proofs passes over them, and says so by the type (RFC 9449 §5).
        let is_bound = proof.is_some() && kind.eq_ignore_ascii_case(dpop::TOKEN_TYPE);
        let is_bearer = kind.is_empty() || kind.eq_ignore_ascii_case("bearer");
        let is_required = proof.is_some_and(|proof| proof.is_required);
        if !(is_bound || is_bearer && !is_required) {
            let found = if kind.is_empty() { "Bearer".to_owned() } else { printable(kind) };
            let what = format!("a token of type {found}, expected {}", if is_required { dpop::TOKEN_TYPE } else { "Bearer" });
            return match refresh {
                Some(refresh) => Answer::Unusable { what, refresh },
                None => Answer::Unexpected(what),
            };
        }
        Answer::Granted(Box::new(Granted {
            access: access.as_str().into(),
            life: plan::life(seconds(&self.expires_in)),
            refresh,
            refresh_life: seconds(&self.refresh_token_expires_in)
                .and_then(|seconds| u64::try_from(seconds).ok())
                .filter(|seconds| *seconds > 0)
                .map(|seconds| Duration::from_secs(seconds).min(plan::LONGEST_LIFE)),
            scope: self.scope.as_str().and_then(|text| text.split_whitespace().collect::<Vec<_>>().join(" ").parse().ok()),
            subject: self.p2pi_subject.as_str().map(printable).filter(|subject| !subject.is_empty()),
            key: proof.filter(|_| is_bound).map(|proof| Arc::clone(&proof.key)),
        }))
    }
}

fn no_token() -> AccessToken {
    AccessToken::new(String::new())
}

fn token_if_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AccessToken, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(token) => AccessToken::new(token),
        _ => no_token(),
    })
}

/// The OAuth error of an answer, made fit to be shown.
pub(super) fn refused(error: &StandardErrorResponse<BasicErrorResponseType>) -> Answer {
    Answer::Refused {
        code: printable(error.error().as_ref()),
        description: error.error_description().map(|text| printable(text)).unwrap_or_default(),
    }
}

/// A peer's text as it may be shown: without what does not show or turns the text around it, cut at 200.
pub fn printable(text: &str) -> String {
    text.chars().filter(|&character| !is_hidden(character)).take(200).collect()
}

/// The one way to write a refusal for people: its code, and what the peer said of it.
pub fn refusal_in_words(code: &str, description: &str) -> String {
    if description.is_empty() { code.to_owned() } else { format!("{code} ({description})") }
}

/// The value of `Authorization`, marked as secret: a token that [`Granted`] or the store vouches for, as one that is bound to a key
/// (RFC 9449 §7.1) or not (RFC 6750 §2.1).
pub fn authorization(access: &SecretString, is_bound: bool) -> http::HeaderValue {
    let scheme = if is_bound { dpop::TOKEN_TYPE } else { "Bearer" };
    let mut value = http::HeaderValue::try_from(format!("{scheme} {}", access.expose_secret())).expect("an access token is visible ASCII");
    value.set_sensitive(true);
    value
}

/// Visible ASCII, at least one character: what `Authorization` can carry.
fn is_presentable(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A number of seconds written as a JSON number or as text; fractions are cut.
fn seconds(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| number.as_u64().map(|_| i64::MAX)).or_else(|| number.as_f64().and_then(whole)),
        Value::String(text) => {
            let text = text.trim();
            text.parse().ok().or_else(|| text.parse().ok().and_then(whole))
        }
        _ => None,
    }
}

fn whole(number: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and lives are cut anyway")]
    number.is_finite().then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn granted(document: Value) -> Granted {
        let response: LenientTokenResponse = serde_json::from_value(document).expect("has an access_token");
        match response.into_answer(None) {
            Answer::Granted(granted) => *granted,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn c8_members_may_be_missing_or_of_another_type() {
        let least = granted(json!({"access_token": "a"}));
        assert_eq!((least.life, least.refresh.is_none(), least.scope), (plan::ASSUMED_LIFE, true, None));
        let cases = [
            (json!(3), 3),
            (json!("3"), 3),
            (json!(" 3 "), 3),
            (json!(3.9), 3),
            (json!("3.9"), 3),
            (json!(0), 3600),
            (json!(-1), 3600),
            (json!("soon"), 3600),
            (json!(null), 3600),
            (json!([3]), 3600),
            (json!(0.5), 3600),
            (json!(u64::MAX), 315_360_000),
            (json!("99999999999999999999999999"), 315_360_000),
        ];
        for (expires_in, expected) in cases {
            let life = granted(json!({"access_token": "a", "expires_in": expires_in})).life;
            assert_eq!(life, Duration::from_secs(expected), "{expires_in}");
        }
        assert!(granted(json!({"access_token": "a", "refresh_token": null})).refresh.is_none());
        assert!(granted(json!({"access_token": "a", "refresh_token": ""})).refresh.is_none());
        assert_eq!(
            granted(json!({"access_token": "a", "token_type": "bEARER", "scope": "b  a"})).scope,
            Some("a b".parse().expect("a scope"))
        );
    }

    #[test]
    fn c9_no_answer_shows_a_token() {
        let response: LenientTokenResponse =
            serde_json::from_value(json!({"access_token": "canary-1", "refresh_token": "canary-2"})).expect("valid");
        assert!(!format!("{response:?}").contains("canary"));
        assert!(!format!("{:?}", response.into_answer(None)).contains("canary"));
    }

    #[test]
    fn a_token_that_no_header_carries_is_not_taken() {
        for token in ["", "a b", "a\r\nX: y", "ä", "a\u{7f}"] {
            let response: LenientTokenResponse = serde_json::from_value(json!({"access_token": token})).expect("valid");
            assert!(matches!(response.into_answer(None), Answer::Inconclusive { .. }), "{token:?}");
        }
        let response: LenientTokenResponse = serde_json::from_value(json!({"access_token": "a", "token_type": "mac"})).expect("valid");
        assert!(matches!(response.into_answer(None), Answer::Unexpected(_)));
    }

    #[test]
    fn c6_a_refresh_token_beside_an_access_token_of_no_use_is_kept() {
        for document in [
            json!({"access_token": "a", "token_type": "DPoP", "refresh_token": "new"}),
            json!({"access_token": "a b", "refresh_token": "new"}),
            json!({"access_token": 7, "refresh_token": "new"}),
            json!({"refresh_token": "new"}),
        ] {
            let response: LenientTokenResponse = serde_json::from_value(document.clone()).expect("valid");
            let answer = response.into_answer(None);
            assert!(matches!(&answer, Answer::Unusable { refresh, .. } if refresh.expose_secret() == "new"), "{document}: {answer:?}");
        }
    }

    #[test]
    fn c13_a_token_is_bound_when_a_proof_was_shown_and_the_answer_says_so() {
        let key = Arc::new(SigningKey::generate());
        let judged = |kind: &str, is_required: bool| {
            let document = json!({ "access_token": "a", "refresh_token": "r", "token_type": kind });
            let response: LenientTokenResponse = serde_json::from_value(document).expect("valid");
            response.into_answer(Some(&Proof { key: Arc::clone(&key), is_required }))
        };
        for (kind, is_required, bound) in [("DPoP", false, true), ("dpop", true, true), ("Bearer", false, false), ("", false, false)] {
            let answer = judged(kind, is_required);
            assert!(matches!(&answer, Answer::Granted(granted) if granted.key.is_some() == bound), "{kind} {answer:?}");
        }
        for kind in ["Bearer", "", "mac"] {
            assert!(matches!(judged(kind, true), Answer::Unusable { what, .. } if what.ends_with("expected DPoP")), "{kind}");
        }
    }
}
