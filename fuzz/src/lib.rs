//! What must hold of everything that reads what comes from outside: one function per target, called with any bytes whatever. Each says more
//! than that nothing panics: what was read can be read again, what the rules forbid never comes out, and where there is a second reader
//! both read the same.
//!
//! A target splits its bytes as its own comment says, at line feeds mostly, which none of the texts in question may hold.
//!
//! | from | read by |
//! |---|---|
//! | connections | `unreadable`; h2, rustls and WebSockets, whose frames pass as they are, are for those who make them |
//! | heads of requests | `path`, `stripped_headers`, `forwarded`, `client_cert_header`, `browser_guard`, `cookies`, `bearer`, `query_token`, `words` (request ids) |
//! | clients' certificates | `client_certificate`, `certificate_subject` |
//! | clients' forms and queries | `form`, `token_request`, `client_auth`, `authorization_request`, `scope`, `redirect_uri`, `words` (ids, tickets, challenges) |
//! | what clients sign | `jws`, `key`, `assertion`, `dpop` |
//! | peers' answers | `server_metadata`, `token_answer` (with `Date`, `Retry-After`, `DPoP-Nonce`), `token_refusal`, `endpoint_answer`, `introspection_answer`, `challenge`, `callback` |
//! | operators | `admin_credentials`, `admin_document`, `audit_query`, `configuration`, `words` (names, pins, URLs) |
//! | the database | `sealed` |

pub mod doors;
pub mod forms;
pub mod net;
pub mod oauth;
pub mod outbound;
pub mod seeds;
pub mod shell;
pub mod wire;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The text up to the first line feed, and what follows it.
fn first_line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[]),
    }
}

/// Lines `name:value` as headers; `None` when one is none.
fn headers(data: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        headers.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    Some(headers)
}
