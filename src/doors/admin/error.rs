//! What the admin API answers when it refuses: a status and a code for programs; message, found, expected and next step for people.

use std::num::NonZero;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::net::problem::{self, Code};
use crate::store::StoreError;

/// A refusal of the admin API. Nothing in it is ever a secret: say what kind of thing was found, not the value that somebody typed as a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AdminError {
    /// The HTTP status.
    pub status: StatusCode,
    /// What programs look at; never renamed.
    pub code: &'static str,
    /// What is wrong, naming the thing.
    pub message: String,
    /// What was found instead.
    pub found: Option<String>,
    /// What was expected.
    pub expected: Option<String>,
    /// What to do next.
    pub next: Option<String>,
    /// One attribute of the request is at fault, and the message begins with its name.
    pub names_attribute: bool,
    /// In how many seconds to come again, of 429 alone.
    pub retry_after: Option<NonZero<u32>>,
}

impl AdminError {
    /// A refusal with a message only.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), found: None, expected: None, next: None, names_attribute: false, retry_after: None }
    }

    /// 404 `not_found`: there is no `kind` of that name (or it belongs to somebody else, which looks the same).
    pub fn not_found(kind: &str, name: &str) -> Self {
        // An `ib-app` is listed by `p2pid ib list`.
        let command = kind.split('-').next().unwrap_or(kind);
        let message = format!("there is no {} {name:?}", kind.replace('-', " "));
        Self::new(StatusCode::NOT_FOUND, "not_found", message).next(format!("p2pid {command} list"))
    }

    /// 409 `exists`: the name is taken; the next step is `--or-update` or another name.
    pub fn exists(kind: &str, name: &str) -> Self {
        let kind = kind.replace('-', " ");
        Self::new(StatusCode::CONFLICT, "exists", format!("the {kind} {name:?} exists"))
            .found(name)
            .next("choose another name, or add --or-update to change it")
    }

    /// 409 `in_use`: what is to be deleted is used by `users`, which the message names.
    pub fn in_use(kind: &str, name: &str, users: &str) -> Self {
        let kind = kind.replace('-', " ");
        Self::new(StatusCode::CONFLICT, "in_use", format!("the {kind} {name:?} is used by {users}"))
            .next(format!("delete or change {users} first"))
    }

    /// 400 `bad_attribute`: one attribute of a request is wrong.
    pub fn bad_attribute(name: &str, found: impl Into<String>, expected: impl Into<String>) -> Self {
        let next = format!("give another {}", name.trim_start_matches("the "));
        let error = Self::new(StatusCode::BAD_REQUEST, "bad_attribute", format!("{name} is wrong"));
        error.found(found).expected(expected).next(next).about(name)
    }

    /// 400 `missing_attribute`: a request lacks the attribute of that name.
    pub fn missing_attribute(name: &str) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "missing_attribute", format!("{name} is missing"));
        error.found("nothing").expected(name).next(format!("give {name}")).about(name)
    }

    /// 403 `forbidden`: who asks may not do this; `needed` says who may, as in "the permission peers.get in the tenant sales".
    pub fn forbidden(needed: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::FORBIDDEN, "forbidden", "you may not do this").expected(needed);
        error.next("ask an admin for it, or to do this")
    }

    /// 429 `rate_limited`: too many failed of late; not before `wait`.
    pub fn rate_limited(wait: Duration) -> Self {
        let seconds = u32::try_from(problem::whole_seconds(wait)).unwrap_or(u32::MAX).max(1);
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, Code::RateLimited.name(), "too many wrong keys came from this address");
        Self { retry_after: NonZero::new(seconds), ..refusal }.next(format!("try again in {seconds} seconds"))
    }

    /// 503 `unavailable`: the store does not answer at the moment; the cause was logged where it arose.
    pub fn unavailable() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the store cannot take this at the moment")
            .next("try again; the daemon's log says why")
    }

    /// 500 `internal`: a defect, whose cause was logged.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "p2pid failed at this").next("the daemon's log says why")
    }

    /// The same refusal of a value that goes by another `name` here.
    pub fn of(self, name: &str) -> Self {
        let Self { status, code, found, expected, .. } = self;
        Self { found, expected, ..Self::new(status, code, format!("{name} is wrong")) }.next(format!("give another {name}")).about(name)
    }

    /// Its message begins with `name`, which is an attribute's when it is one word.
    fn about(mut self, name: &str) -> Self {
        self.names_attribute = !name.contains(' ');
        self
    }

    /// With what was found.
    pub fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }

    /// With what was expected. Errors of the core say the word themselves, which is not said twice.
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        let expected = expected.into();
        self.expected = Some(expected.strip_prefix("expected ").map(str::to_owned).unwrap_or(expected));
        self
    }

    /// With the next step.
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

impl From<StoreError> for AdminError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Overloaded | StoreError::Expired | StoreError::Unavailable => Self::unavailable(),
            StoreError::Fault(_) | StoreError::Panicked => Self::internal(),
        }
    }
}

impl IntoResponse for AdminError {
    /// A JSON:API error document; `source` points at the attribute that is at fault.
    fn into_response(self) -> Response {
        let mut error = json!({
            "status": self.status.as_str(),
            "code": self.code,
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "detail": self.message,
            "meta": { "found": self.found, "expected": self.expected, "next": self.next },
        });
        if let Some(attribute) = self.message.split(' ').next().filter(|_| self.names_attribute) {
            error["source"] = json!({ "pointer": format!("/data/attributes/{attribute}") });
        }
        let mut response = (self.status, json!({ "errors": [error] }).to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(super::document::MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"p2pid\", charset=\"UTF-8\""));
        }
        if let Some(seconds) = self.retry_after {
            problem::mark_rate_limited(headers, Duration::from_secs(seconds.get().into()));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_was_found_and_what_comes_next() {
        let missing = AdminError::not_found("ib-app", "one");
        assert_eq!((missing.message.as_str(), missing.next.as_deref()), ("there is no ib app \"one\"", Some("p2pid ib list")));
        assert_eq!(AdminError::exists("peer", "two").found.as_deref(), Some("two"));
        let wrong = AdminError::bad_attribute("the login", "a b", "expected no spaces");
        assert_eq!((wrong.expected.as_deref(), wrong.next.as_deref()), (Some("no spaces"), Some("give another login")));
    }
}
