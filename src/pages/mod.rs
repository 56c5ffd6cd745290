//! What browsers see: templates, checked at compile time, and the headers that every page carries.
//!
//! Pages work without script and load nothing: one inline style, allowed by its hash.

pub mod grants;
pub mod link;

use std::sync::LazyLock;

use askama::Template;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Response, StatusCode, header};

/// The one style of all pages.
const STYLE: &str = include_str!("style.css");

static STYLE_SOURCE: LazyLock<String> =
    LazyLock::new(|| format!("'sha256-{}'", STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, STYLE.as_bytes()))));

/// The log-in form.
#[derive(Debug, Template)]
#[template(path = "login.html")]
pub struct Login<'a> {
    /// The instance's name.
    pub instance: &'a str,
    /// Where the form goes.
    pub action: &'a str,
    /// The form's token.
    pub token: &'a str,
    /// Where to go on afterwards: a path of ours.
    pub next: &'a str,
    /// What was typed before.
    pub username: &'a str,
    /// What was wrong with it.
    pub problem: Option<&'a str>,
}

/// The question that somebody answers with Allow or Decline.
#[derive(Debug, Template)]
#[template(path = "consent.html")]
pub struct Consent<'a> {
    /// The instance's name.
    pub instance: &'a str,
    /// The IB app's name.
    pub app: &'a str,
    /// Its `client_id`.
    pub client_id: &'a str,
    /// Its tenant.
    pub tenant: &'a str,
    /// What it asks for.
    pub scopes: &'a [ScopeLine<'a>],
    /// Where the browser goes with the answer.
    pub destination: &'a str,
    /// Who is signed in.
    pub login: &'a str,
    /// Whether that person may allow it.
    pub may_allow: bool,
    /// Whether the app is a realm, which signs in people that belong to it.
    pub is_realm: bool,
    /// Where the form goes.
    pub action: &'a str,
    /// Where logging out goes.
    pub logout: &'a str,
    /// Where what was allowed is withdrawn.
    pub grants: &'a str,
    /// The forms' token.
    pub token: &'a str,
    /// The question.
    pub authorization: &'a str,
}

/// One scope that is asked for.
#[derive(Debug)]
pub struct ScopeLine<'a> {
    /// The scope token.
    pub name: &'a str,
    /// What `[scopes]` says of it.
    pub description: &'a str,
}

/// The button that logs out.
#[derive(Debug, Template)]
#[template(path = "logout.html")]
pub struct Logout<'a> {
    /// The instance's name.
    pub instance: &'a str,
    /// Where the form goes.
    pub action: &'a str,
    /// The form's token.
    pub token: &'a str,
    /// Who is signed in.
    pub login: &'a str,
}

/// A page that says something: an outcome, or what went wrong and what to do next.
#[derive(Debug, Template)]
#[template(path = "message.html")]
pub struct Message<'a> {
    /// The instance's name.
    pub instance: &'a str,
    /// The heading.
    pub title: &'a str,
    /// What to say, a paragraph each; the last one names the next step.
    pub paragraphs: &'a [&'a str],
    /// What to look for in the log.
    pub reference: Option<&'a str>,
}

/// A page. `form_targets` are the origins, besides ours, that a form of the page may end at: browsers apply `form-action` to the
/// redirect after a POST too.
pub fn page(status: StatusCode, template: &impl Template, form_targets: &[&str]) -> Response<String> {
    let html = template.render().expect("a template that compiles renders into a String");
    let mut form_action = String::from("'self'");
    for target in form_targets.iter().filter(|target| is_plain_source(target)) {
        form_action.push(' ');
        form_action.push_str(target);
    }
    let policy = format!(
        "default-src 'none'; style-src {}; form-action {form_action}; frame-ancestors 'none'; base-uri 'none'",
        STYLE_SOURCE.as_str()
    );
    let mut response = Response::new(html);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::try_from(policy).expect("origins are visible ASCII"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // `no-referrer` would make browsers send `Origin: null` with our own forms.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether `origin` is one source in a Content-Security-Policy and nothing more: no wildcard, no keyword, no other directive.
fn is_plain_source(origin: &str) -> bool {
    let Some(("https" | "http", rest)) = origin.split_once("://") else { return false };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    !rest.is_empty() && rest.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a9_every_page_refuses_frames_and_content_from_elsewhere_and_is_not_kept() {
        let message = Message { instance: "two", title: "A <b>title</b>", paragraphs: &["\"quoted\" & <script>"], reference: None };
        let page = page(StatusCode::BAD_REQUEST, &message, &["https://one.example"]);
        assert_eq!(page.status(), StatusCode::BAD_REQUEST);
        let value = |name| page.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
        let policy = value(header::CONTENT_SECURITY_POLICY);
        for part in ["default-src 'none'", "frame-ancestors 'none'", "form-action 'self' https://one.example", "base-uri 'none'"] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"));
        assert_eq!((value(header::X_FRAME_OPTIONS), value(header::REFERRER_POLICY)), ("DENY", "same-origin"));
        assert_eq!(value(header::CACHE_CONTROL), "no-store");
        assert!(!page.body().contains("<script>") && !page.body().contains("<b>"));
    }

    #[test]
    fn a9_what_is_no_plain_origin_does_not_get_into_the_policy() {
        let message = Message { instance: "two", title: "t", paragraphs: &[], reference: None };
        let wrong = [
            "https://*",
            "https://a;script-src",
            "https://*,x",
            "https://a b",
            "'unsafe-inline'",
            "null",
            "data:",
            "https:",
            "https://",
            "*",
        ];
        let right = ["https://one.example:7443", "http://127.0.0.1:1", "http://[::1]:2"];
        let page = page(StatusCode::OK, &message, &[&wrong[..], &right[..]].concat());
        let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().expect("ASCII");
        let form_action = policy.split("; ").find_map(|directive| directive.strip_prefix("form-action ")).expect("there is one");
        assert_eq!(form_action, format!("'self' {}", right.join(" ")));
        assert_eq!(policy.split(';').count(), 5, "{policy}");
    }

    #[test]
    fn a9_the_style_that_is_allowed_is_the_one_in_the_page() {
        let message = Message { instance: "two", title: "t", paragraphs: &[], reference: None };
        let page = page(StatusCode::OK, &message, &[]);
        let style = page.body().split("<style>").nth(1).and_then(|rest| rest.split("</style>").next()).expect("a style");
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, style.as_bytes());
        let source = format!("'sha256-{}'", STANDARD.encode(digest));
        let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().expect("ASCII");
        assert!(policy.contains(&source), "{policy}");
        assert!(!page.body().contains("style=") && !page.body().contains("<script"));
    }
}
