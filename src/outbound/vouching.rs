//! Whether a refresh token may be presented. One that came out of a backup may have been replaced since: presented to a server that
//! rotates, it would look stolen, and end the grant of whoever holds its successor, which may be the very machine that the backup was
//! made on. So the peer is asked first, and a peer that cannot be asked is given no such token at all.

use http::StatusCode;
use url::Url;

use super::link::Facts;
use super::metadata::Metadata;
use crate::secret::SecretString;

/// What has to be known before the token is presented.
#[derive(Debug)]
pub enum Vouching<'a> {
    /// It is ours, or none is presented.
    NotNeeded,
    /// The server says whether it is active (RFC 7662).
    Ask {
        /// Where.
        endpoint: &'a Url,
        /// About which token.
        refresh: &'a SecretString,
    },
    /// The server has nothing to ask.
    Impossible,
}

/// What has to be known before the refresh token of `facts` is presented to the server of `metadata`.
pub fn of<'a>(facts: &'a Facts, metadata: Option<&'a Metadata>) -> Vouching<'a> {
    // Who needs nobody's consent asks for a new token and presents none.
    let presented = facts.held().filter(|held| held.restored && !facts.grant().is_self_sufficient());
    let Some(refresh) = presented.and_then(|held| held.refresh.as_ref()) else { return Vouching::NotNeeded };
    match metadata.and_then(|metadata| metadata.introspection_endpoint.as_ref()) {
        Some(endpoint) => Vouching::Ask { endpoint, refresh },
        None => Vouching::Impossible,
    }
}

/// Whether a token is active, as an introspection endpoint answered (RFC 7662 §2.2).
///
/// # Errors
/// The answer does not say; in words.
pub fn is_active(status: StatusCode, body: &[u8]) -> Result<bool, String> {
    let document: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    match document.as_ref().and_then(|document| document.get("active")).and_then(serde_json::Value::as_bool) {
        Some(active) if status == StatusCode::OK => Ok(active),
        _ => Err(format!("the introspection endpoint answered {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::link::examples::{facts, held};
    use crate::outbound::link::{Held, Holding};
    use crate::outbound::metadata;
    use crate::outbound::ob_app::{Grant, ObApp};
    use crate::outbound::peer::examples as records;

    fn metadata(introspection: &str) -> Metadata {
        let document = format!(
            r#"{{"issuer":"https://two.example.com","authorization_endpoint":"https://two.example.com/a",
            "token_endpoint":"https://two.example.com/t"{introspection},"response_types_supported":["code"],
            "code_challenge_methods_supported":["S256"]}}"#
        );
        metadata::judge("https://two.example.com", document.as_bytes()).expect("metadata")
    }

    #[test]
    fn a_token_out_of_a_backup_is_presented_only_when_the_peer_vouches_for_it() {
        let asks = metadata(r#","introspection_endpoint":"https://two.example.com/i""#);
        let asks_not = metadata("");
        let restored = || Held { restored: true, ..held() };
        for (name, held, grant, metadata, expected) in [
            ("ours", held(), Grant::AuthorizationCode, Some(&asks_not), "not needed"),
            ("restored", restored(), Grant::AuthorizationCode, Some(&asks), "ask"),
            ("restored, nobody to ask", restored(), Grant::AuthorizationCode, Some(&asks_not), "impossible"),
            ("restored, endpoints by hand", restored(), Grant::AuthorizationCode, None, "impossible"),
            ("restored without refresh token", Held { refresh: None, ..restored() }, Grant::AuthorizationCode, None, "not needed"),
            ("restored, password", restored(), Grant::Password, Some(&asks), "not needed"),
            ("restored, client credentials", restored(), Grant::ClientCredentials, None, "not needed"),
        ] {
            let facts = facts(Holding::Tokens(Box::new(held)));
            let facts = Facts { ob_app: Some(ObApp { grant, ..records::app() }), ..facts };
            let found = match of(&facts, metadata) {
                Vouching::NotNeeded => "not needed",
                Vouching::Ask { .. } => "ask",
                Vouching::Impossible => "impossible",
            };
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn an_answer_about_a_token_counts_when_it_is_one() {
        assert_eq!(is_active(StatusCode::OK, br#"{"active":true}"#), Ok(true));
        assert_eq!(is_active(StatusCode::OK, br#"{"active":false,"scope":"p2pi"}"#), Ok(false));
        for (status, body) in [
            (StatusCode::CREATED, r#"{"active":true}"#),
            (StatusCode::UNAUTHORIZED, r#"{"active":false}"#),
            (StatusCode::OK, r#"{"active":"true"}"#),
            (StatusCode::OK, "{}"),
            (StatusCode::OK, ""),
        ] {
            let why = is_active(status, body.as_bytes()).expect_err(body);
            assert!(why.contains(status.as_str()), "{why}");
        }
    }
}
