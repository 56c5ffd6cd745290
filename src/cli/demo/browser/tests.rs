//! The browser against pages as strings; the pages of the daemon itself are in the integration tests.

use super::*;

fn url(text: &str) -> Url {
    Url::parse(text).expect("a test's address")
}

fn page(at: &str, headers: &[(HeaderName, &'static str)], body: &str) -> Page {
    let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
    Page { url: url(at), status: StatusCode::OK, headers, body: body.to_owned(), way: Vec::new() }
}

const CONSENT: &str = r#"<!doctype html><html><head><title>Allow
    access?</title></head><body><h1>one &amp; two</h1>
    <form method="post" action="/consent?x=1&amp;y=2">
      <input type="hidden" name="csrf" value="a&quot;b"><input name="note"><input type="checkbox" name="all">
      <textarea name="why">be cause</textarea>
      <button name="decision" value="allow">Allow</button><button name="decision" value="decline">Decline</button>
    </form><a href="/help">help</a></body></html>"#;

#[test]
fn a_form_is_read_filled_and_sent_with_the_button_that_was_pressed() {
    let page = page("https://one.test/oauth/authorize?a=b", &[(header::REFERRER_POLICY, "same-origin")], CONSENT);
    assert_eq!(page.title(), "Allow access?");
    assert_eq!(page.text(), "one & two be cause Allow Decline help");
    assert_eq!(page.links(), [url("https://one.test/help")]);
    let form = page.form_with("decision").expect("the page has one such form");
    assert_eq!(form.value("csrf"), Some("a\"b"));
    assert_eq!(form.buttons(), [("decision", "allow"), ("decision", "decline")]);
    let sent = form.fill("note", "ö 1").expect("an input").press("decision", "decline").expect("a button");
    assert_eq!(sent.url().as_str(), "https://one.test/consent?x=1&y=2");
    assert_eq!(sent.body(), Some("csrf=a%22b&note=%C3%B6+1&why=be+cause&decision=decline"));
    assert_eq!((sent.fetch_site(), sent.origin(&page.url).as_deref()), ("same-origin", Some("https://one.test")));
}

#[test]
fn what_is_not_on_the_page_cannot_be_pressed_or_typed() {
    let page = page("https://one.test/", &[], CONSENT);
    let form = page.form().expect("the page has one form");
    assert!(matches!(form.clone().press("decision", "maybe"), Err(BrowserError::NoSuchControl { .. })));
    assert!(matches!(form.fill("csrf", "guessed"), Err(BrowserError::NoSuchControl { .. })));
    assert!(matches!(page.form_with("username"), Err(BrowserError::NoSuchForm { .. })));
}

#[test]
fn a_redirect_to_another_site_is_cross_site_from_then_on_and_a_303_is_a_get() {
    let page = page("https://one.test/", &[], CONSENT);
    let sent = page.form().expect("one form").submit();
    let away = sent.redirected(StatusCode::SEE_OTHER, url("https://two.test/callback"));
    assert_eq!((away.method.clone(), away.body(), away.fetch_site()), (Method::GET, None, "cross-site"));
    let back = away.redirected(StatusCode::FOUND, url("https://one.test/"));
    assert_eq!((back.fetch_site(), back.context()), ("cross-site", Context::CrossSite));
    let kept = sent.redirected(StatusCode::TEMPORARY_REDIRECT, url("https://one.test:8443/"));
    assert_eq!((kept.method.clone(), kept.fetch_site()), (Method::POST, "same-site"));
    assert!(kept.body().is_some());
    let typed = Navigation::typed(url("https://one.test/")).redirected(StatusCode::FOUND, url("https://two.test/"));
    assert_eq!(typed.fetch_site(), "none");
}

#[test]
fn form_action_covers_redirects_after_a_form() {
    let page = page("https://one.test/", &[(header::CONTENT_SECURITY_POLICY, "form-action 'self' https://two.test")], CONSENT);
    let sent = page.form().expect("one form").submit();
    assert!(sent.check().is_ok());
    assert!(sent.redirected(StatusCode::SEE_OTHER, url("https://two.test/callback?code=x")).check().is_ok());
    let elsewhere = sent.redirected(StatusCode::SEE_OTHER, url("https://three.test/"));
    assert!(matches!(elsewhere.check(), Err(BrowserError::FormActionForbids { .. })));
}
