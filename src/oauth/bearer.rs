//! Access tokens in requests, and the challenge that answers a request without a good one (RFC 6750, RFC 9449 §7, RFC 9728 §5.1).

use std::fmt::Write;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

use super::scope::Scope;

/// Why a request presents no token that could be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPresented {
    /// No `Authorization: Bearer`. A token in the query alone counts as none: queries end up in logs (RFC 9700 §4.3.2).
    #[error("no bearer token; it belongs into the Authorization header")]
    Nothing,
    /// More than one way of presenting a token, or the header twice (RFC 6750 §3.1).
    #[error("a token is presented once, in one Authorization header")]
    Twice,
    /// The header is not `Bearer`, a space and one token.
    #[error("the Authorization header is not \"Bearer\", one space and a token")]
    Malformed,
}

/// The authentication scheme that a token is presented with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `Bearer`
    Bearer,
    /// `DPoP`, beside a proof (RFC 9449 §7.1).
    Dpop,
}

/// The token in the request's `Authorization` header. `query` is the request's raw query.
pub fn presented<'a>(headers: &'a HeaderMap, query: Option<&str>) -> Result<(&'a str, Scheme), NotPresented> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(NotPresented::Nothing)?;
    if values.next().is_some() {
        return Err(NotPresented::Twice);
    }
    let (token, scheme) = credentials(value.as_bytes()).ok_or(NotPresented::Nothing)?;
    if query.is_some_and(|query| form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "access_token")) {
        return Err(NotPresented::Twice);
    }
    if !is_token(token) {
        return Err(NotPresented::Malformed);
    }
    std::str::from_utf8(token).map(|token| (token, scheme)).map_err(|_| NotPresented::Malformed)
}

/// What stands behind `Bearer` or `DPoP`; nothing for another scheme.
fn credentials(value: &[u8]) -> Option<(&[u8], Scheme)> {
    [(&b"bearer"[..], Scheme::Bearer), (&b"dpop"[..], Scheme::Dpop)].into_iter().find_map(|(name, scheme)| {
        let (found, rest) = value.split_at_checked(name.len())?;
        let is_it = found.eq_ignore_ascii_case(name) && rest.first().is_none_or(|byte| *byte == b' ');
        is_it.then(|| (rest.trim_ascii(), scheme))
    })
}

/// `b64token`: `=` stands at its end alone (RFC 6750 §2.1).
fn is_token(text: &[u8]) -> bool {
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let token = &text[..text.len() - padding];
    !token.is_empty() && token.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte))
}

/// What a `WWW-Authenticate: Bearer` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge<'a> {
    /// No credentials were presented: no error code then (RFC 6750 §3.1).
    NoToken,
    /// The request presents a token wrongly.
    InvalidRequest,
    /// The token is unknown, expired or revoked.
    InvalidToken,
    /// The token is good but lacks what is asked here.
    InsufficientScope(&'a Scope),
}

/// The `WWW-Authenticate: DPoP` of a call whose token is bound to a key, with the `error` code (RFC 9449 §7.1).
pub fn dpop_challenge(resource_metadata: &str, error: &str) -> HeaderValue {
    let algorithms = super::key::ALGORITHMS.join(" ");
    let text = format!("DPoP resource_metadata=\"{resource_metadata}\", error=\"{error}\", algs=\"{algorithms}\"");
    HeaderValue::try_from(text).expect("a URL and fixed words are visible ASCII")
}

impl Challenge<'_> {
    /// The header's value. `resource_metadata` is the URL of the RFC 9728 document.
    pub fn header(self, resource_metadata: &str) -> HeaderValue {
        let mut text = format!("Bearer resource_metadata=\"{resource_metadata}\"");
        match self {
            Self::NoToken => {}
            Self::InvalidRequest => text.push_str(", error=\"invalid_request\""),
            Self::InvalidToken => text.push_str(", error=\"invalid_token\""),
            // A route that asks for none is closed to tokens that have none.
            Self::InsufficientScope(scope) if scope.is_empty() => text.push_str(", error=\"insufficient_scope\""),
            Self::InsufficientScope(scope) => {
                write!(text, ", error=\"insufficient_scope\", scope=\"{scope}\"").expect("a String takes all that is written");
            }
        }
        HeaderValue::try_from(text).expect("a URL and scope tokens are visible ASCII")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_str(value).expect("a header value"))).collect()
    }

    #[test]
    fn g1_the_token_comes_from_one_authorization_header_only() {
        assert_eq!(presented(&headers(&["Bearer abc.-_~+/="]), None), Ok(("abc.-_~+/=", Scheme::Bearer)));
        assert_eq!(presented(&headers(&["bEaReR  abc"]), Some("x=1")), Ok(("abc", Scheme::Bearer)));
        assert_eq!(presented(&headers(&["dpop abc"]), None), Ok(("abc", Scheme::Dpop)));
        assert_eq!(presented(&headers(&["Bearer abc=="]), None), Ok(("abc==", Scheme::Bearer)));
        let refused: [(&[&str], Option<&str>, NotPresented); 15] = [
            (&[], None, NotPresented::Nothing),
            (&[], Some("access_token=abc"), NotPresented::Nothing),
            (&["Basic YTpi"], None, NotPresented::Nothing),
            (&["Bearerabc"], None, NotPresented::Nothing),
            (&["DPoPabc"], None, NotPresented::Nothing),
            (&["DPoP"], None, NotPresented::Malformed),
            (&["DPoP abc", "Bearer abc"], None, NotPresented::Twice),
            (&["Bearer"], None, NotPresented::Malformed),
            (&["Bearer a b"], None, NotPresented::Malformed),
            (&["Bearer a=b"], None, NotPresented::Malformed),
            (&["Bearer =abc"], None, NotPresented::Malformed),
            (&["Bearer =="], None, NotPresented::Malformed),
            (&["Bearer abc", "Bearer abc"], None, NotPresented::Twice),
            (&["Bearer abc"], Some("x=1&access_token=abc"), NotPresented::Twice),
            (&["Bearer abc"], Some("access%5Ftoken=abc"), NotPresented::Twice),
        ];
        for (values, query, expected) in refused {
            assert_eq!(presented(&headers(values), query), Err(expected), "{values:?} {query:?}");
        }
    }

    #[test]
    fn g2_a_challenge_names_the_metadata_and_an_error_only_when_there_was_a_token() {
        let metadata = "https://one.example/.well-known/oauth-protected-resource";
        assert_eq!(Challenge::NoToken.header(metadata), format!("Bearer resource_metadata=\"{metadata}\""));
        assert_eq!(Challenge::InvalidToken.header(metadata), format!("Bearer resource_metadata=\"{metadata}\", error=\"invalid_token\""));
        let scope = "b a".parse().expect("a scope");
        let header = Challenge::InsufficientScope(&scope).header(metadata);
        assert_eq!(header, format!("Bearer resource_metadata=\"{metadata}\", error=\"insufficient_scope\", scope=\"a b\""));
    }
}
