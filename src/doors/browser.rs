//! Browsers at the public listener: cookies, who is signed in, the tokens of our forms, and which POSTs are our own pages'.
//!
//! Cookies are not separated by port, so their names carry the first 8 hexadecimal digits of SHA-256(public_url). A form's token is an
//! authentication code over the cookie that it was made for: the session's, or before a log-in that of a pre-session which exists only to
//! tie the log-in form to one browser.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{COOKIE, HOST, HeaderMap, LOCATION, ORIGIN, SET_COOKIE, STRICT_TRANSPORT_SECURITY};
use http::request::Parts;
use http::{Extensions, HeaderName, HeaderValue, Method, StatusCode, Uri};

use super::form;
use crate::audit::{Action, Actor, Entry, Origin, Record};
use crate::config::{Config, PublicUrl};
use crate::id::Id;
use crate::inbound::session::Session;
use crate::inbound::user::User;
use crate::instance::Instance;
use crate::net::connection::Connection;
use crate::net::forwarded::client_address;
use crate::oauth::parameters::Parameters;
use crate::oauth::token::{Kind, digest_if, mint};
use crate::pages;
use crate::secret::{Digest, ExposeSecret, SecretString};
use crate::store::{StoreError, audit, session, user};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What the token of a form is made for.
const FORM: &str = "form";

/// A browser, with the cookie that its forms are tied to.
#[derive(Debug)]
pub struct Visitor {
    tie: SecretString,
    /// The pre-session cookie, when this browser has none yet; to be set with the answer.
    new_cookie: Option<HeaderValue>,
    /// Who is signed in.
    pub signed_in: Option<SignedIn>,
}

/// Somebody who is signed in.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// The session.
    pub session: Session,
    /// The person.
    pub user: User,
}

impl Visitor {
    /// Who asks, by the request's cookies.
    pub async fn of(instance: &Instance, headers: &HeaderMap) -> Result<Self, StoreError> {
        let config = instance.config();
        let public_url = &config.instance.public_url;
        if let Some(value) = cookie(headers, &session_cookie(public_url))
            && let Some(signed_in) = signed_in(instance, value).await?
        {
            return Ok(Self { tie: SecretString::from(value), new_cookie: None, signed_in: Some(signed_in) });
        }
        let name = login_cookie(public_url);
        if let Some(value) = cookie(headers, &name).filter(|value| digest_if(Kind::State, value).is_some()) {
            return Ok(Self { tie: SecretString::from(value), new_cookie: None, signed_in: None });
        }
        let tie = mint(Kind::State, instance.random.as_ref());
        let new_cookie = Some(set_cookie(public_url, &name, tie.expose_secret(), None));
        Ok(Self { tie, new_cookie, signed_in: None })
    }

    /// The token that a form for this browser carries in its hidden field `token`.
    pub fn form_token(&self, instance: &Instance) -> String {
        URL_SAFE_NO_PAD.encode(instance.store.seals().mac(FORM, &[self.tie.expose_secret().as_bytes()]))
    }

    /// Whether `token` was made for this browser.
    fn is_form_token(&self, instance: &Instance, token: Option<&str>) -> bool {
        let mac = token.and_then(|token| URL_SAFE_NO_PAD.decode(token).ok()).unwrap_or_default();
        instance.store.seals().is_mac(FORM, &[self.tie.expose_secret().as_bytes()], &mac)
    }

    /// The answer, with the pre-session cookie where this browser has none yet.
    pub fn answered(self, response: impl IntoResponse) -> Response {
        let mut response = response.into_response();
        if let Some(cookie) = self.new_cookie {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        response
    }
}

async fn signed_in(instance: &Instance, value: &str) -> Result<Option<SignedIn>, StoreError> {
    let Some(digest) = digest_if(Kind::Session, value) else { return Ok(None) };
    let (epoch, now) = (instance.store.epoch(), instance.clock.now().wall);
    let look = move |connection: &rusqlite::Connection| {
        let Some(session) = session::by_digest(connection, digest)?.filter(|session| session.is_live(epoch, now)) else { return Ok(None) };
        Ok(user::by_id(connection, session.user)?.map(|user| SignedIn { session, user }))
    };
    let found = instance.store.read(look).await?;
    if let Some(until) = found.as_ref().and_then(|found| found.session.extended(now)) {
        instance.store.write(move |transaction| session::extend(transaction, digest, until)).await?;
    }
    Ok(found)
}

/// Begins a session for `verified`, whose password was just found right, in place of what `headers` carry. Gives the cookies to set;
/// `None` when the password was changed or the user deleted meanwhile.
pub async fn begin_session(instance: &Instance, headers: &HeaderMap, verified: User) -> Result<Option<[HeaderValue; 2]>, StoreError> {
    let config = instance.config();
    let public_url = &config.instance.public_url;
    let old = cookie(headers, &session_cookie(public_url)).and_then(|value| digest_if(Kind::Session, value));
    let value = mint(Kind::Session, instance.random.as_ref());
    let (digest, epoch) = (Digest::of(value.expose_secret()), instance.store.epoch());
    let begin = move |transaction: &crate::store::Transaction<'_>| {
        let session = Session::new(digest, verified.id, epoch, transaction.now().wall);
        let has_begun = session::begin(transaction, &session, &verified, old)?;
        if has_begun {
            transaction.acts_as(Actor::Session { login: verified.login.clone() });
            transaction.record(&Entry::of(Action::LogInSucceeded).on(told(&verified)).token(digest))?;
        }
        Ok(has_begun)
    };
    let has_begun = instance.store.write(begin).await?;
    Ok(has_begun.then(|| {
        [
            set_cookie(public_url, &session_cookie(public_url), value.expose_secret(), None),
            set_cookie(public_url, &login_cookie(public_url), "", Some(Duration::ZERO)),
        ]
    }))
}

/// A person as the audit names it.
fn told(user: &User) -> Record {
    Record::of_instance("user", user.id, &user.login)
}

/// Ends a session; the cookie to set.
pub async fn end_session(instance: &Instance, signed_in: &SignedIn) -> Result<HeaderValue, StoreError> {
    let (digest, user) = (signed_in.session.digest, signed_in.user.clone());
    let end = move |transaction: &crate::store::Transaction<'_>| {
        transaction.acts_as(Actor::Session { login: user.login.clone() });
        transaction.record(&Entry::of(Action::LogOut).on(told(&user)).token(digest))?;
        session::delete(transaction, digest)
    };
    instance.store.write(end).await?;
    let config = instance.config();
    let public_url = &config.instance.public_url;
    Ok(set_cookie(public_url, &session_cookie(public_url), "", Some(Duration::ZERO)))
}

/// A form that was sent from a page of ours, one that was made for this browser.
#[derive(Debug)]
pub struct OwnForm {
    /// The request's head.
    pub parts: Parts,
    /// What the form says.
    pub form: Parameters,
    /// Who sent it.
    pub visitor: Visitor,
}

/// Reads a form that changes something, and refuses it with a page unless a page of ours sent it: by where the browser says it comes
/// from, and by the token that only a page for this browser holds. Every POST of a browser goes through here first.
pub async fn own_form(instance: &Instance, request: Request) -> Result<OwnForm, Response> {
    let config = instance.config();
    let (parts, form) = form::read(request, config.limits.form_bytes).await.map_err(|problem| {
        say(&config, problem.status(), "This form cannot be read", &[&problem.to_string(), "Go back and press the button again."])
    })?;
    let visitor = Visitor::of(instance, &parts.headers).await.map_err(|_| unavailable(&config))?;
    let token = form.the("token").ok().flatten();
    if is_own_post(&parts.headers, &config.instance.public_url) && visitor.is_form_token(instance, token) {
        Ok(OwnForm { parts, form, visitor })
    } else {
        Err(not_our_form(&config))
    }
}

/// Whether a POST comes from a page of ours: `Origin` is ours, or is `null` or absent and the browser says `same-origin`, or there is
/// neither header, as from a program. What it may do is the form token's word.
fn is_own_post(headers: &HeaderMap, public_url: &PublicUrl) -> bool {
    let only = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        let value = values.next();
        if values.next().is_some() { Err(()) } else { Ok(value.map(HeaderValue::as_bytes)) }
    };
    match (only(&ORIGIN), only(&SEC_FETCH_SITE)) {
        (Ok(Some(origin)), Ok(_)) if origin == public_url.origin().as_bytes() => true,
        (Ok(None | Some(b"null")), Ok(Some(b"same-origin"))) => true,
        (Ok(None), Ok(None)) => true,
        _ => false,
    }
}

/// The name of a cookie of ours: `__Host-` where browsers can hold us to it.
pub fn cookie_name(public_url: &PublicUrl, purpose: &str) -> String {
    let prefix = if is_https(public_url) { "__Host-" } else { "" };
    let fingerprint = Digest::of(public_url.as_str()).fingerprint().to_string();
    format!("{prefix}p2pid-{purpose}-{}", &fingerprint[..8])
}

fn session_cookie(public_url: &PublicUrl) -> String {
    cookie_name(public_url, "session")
}

fn login_cookie(public_url: &PublicUrl) -> String {
    cookie_name(public_url, "login")
}

/// The value of the cookie `name`; nothing when it is there more than once.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut values =
        lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('=')).filter(|(found, _)| *found == name);
    match (values.next(), values.next()) {
        (Some((_, value)), None) => Some(value),
        _ => None,
    }
}

/// A `Set-Cookie`. SameSite is Lax: the answer of a peer's authorization endpoint arrives by a redirect from another site.
pub fn set_cookie(public_url: &PublicUrl, name: &str, value: &str, max_age: Option<Duration>) -> HeaderValue {
    let secure = if is_https(public_url) { "; Secure" } else { "" };
    let max_age = max_age.map(|age| format!("; Max-Age={}", age.as_secs())).unwrap_or_default();
    let text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{max_age}");
    let mut header = HeaderValue::try_from(text).expect("names and secrets of ours are visible ASCII");
    header.set_sensitive(true);
    header
}

fn is_https(public_url: &PublicUrl) -> bool {
    public_url.url().scheme() == "https"
}

/// 303: whatever was posted is not posted again (RFC 9700 §4.12).
pub fn see_other(location: &str) -> Response {
    let location = HeaderValue::try_from(location).expect("URLs of ours and registered redirect URIs are visible ASCII");
    (StatusCode::SEE_OTHER, [(LOCATION, location), (http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"))]).into_response()
}

/// A page that says something.
pub fn say(config: &Config, status: StatusCode, title: &str, paragraphs: &[&str]) -> Response {
    let message = pages::Message { instance: &config.instance.name, title, paragraphs, reference: None };
    pages::page(status, &message, &[]).into_response()
}

/// The page for a store that does not answer.
pub fn unavailable(config: &Config) -> Response {
    let paragraphs = ["The database does not answer. Nothing was changed.", "Try again in a moment."];
    say(config, StatusCode::SERVICE_UNAVAILABLE, "Not available now", &paragraphs)
}

/// The page for a POST that is not from a page of ours, or from one that was made for another session.
pub fn not_our_form(config: &Config) -> Response {
    let paragraphs = [
        "This form was not sent from a page that was made for this browser. Nothing was changed.",
        "Go back, reload the page and send it again; cookies must be allowed.",
    ];
    say(config, StatusCode::FORBIDDEN, "Not sent from here", &paragraphs)
}

/// The address of whoever asks, where it is known: behind trusted proxies what they report.
pub fn address(parts: &Parts, config: &Config) -> Option<IpAddr> {
    address_of(&parts.extensions, &parts.headers, config)
}

/// As [`address`], of a request that is not taken apart.
pub fn address_of(extensions: &Extensions, headers: &HeaderMap, config: &Config) -> Option<IpAddr> {
    client_address(headers, extensions.get::<Arc<Connection>>()?.neighbour().ip(), &config.public.trusted_proxies)
}

/// Layer of everything that browsers and clients ask: what changes while such a request is served is told of where it came from.
pub async fn tell_from_where(State(instance): State<Arc<Instance>>, request: Request, next: Next) -> Response {
    let from = address_of(request.extensions(), request.headers(), &instance.config());
    let request_id = Id::new(instance.clock.now().wall, instance.random.as_ref()).to_string();
    audit::acting(Origin::new(Actor::Unknown, from, Some(request_id)), next.run(request)).await
}

/// Layer of every page: one that is asked for under another host is redirected to public_url, where its cookies are; HSTS where it is
/// configured, which holds for the whole host.
pub async fn keep_to_public_url(State(instance): State<Arc<Instance>>, request: Request, next: Next) -> Response {
    let config = instance.config();
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD);
    let connection = request.extensions().get::<Arc<Connection>>();
    // A trusted proxy may ask under a name of its own.
    let is_proxied = connection.is_some_and(|connection| config.public.trusted_proxies.include(connection.neighbour().ip()));
    if is_safe && !is_proxied && !is_public_host(request.uri(), request.headers(), &config.instance.public_url) {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        return see_other(&format!("{}{path}", config.instance.public_url.origin()));
    }
    let mut response = next.run(request).await;
    if config.public.hsts {
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    response
}

fn is_public_host(uri: &Uri, headers: &HeaderMap, public_url: &PublicUrl) -> bool {
    let named = uri.authority().map(|authority| authority.as_str()).or_else(|| headers.get(HOST).and_then(|host| host.to_str().ok()));
    // Without a host it is a program of HTTP/1.0, which has no cookies either.
    let Some(named) = named else { return true };
    let origin = public_url.origin();
    let expected = origin.split_once("://").map_or("", |(_, authority)| authority);
    let default_port = if is_https(public_url) { ":443" } else { ":80" };
    named.eq_ignore_ascii_case(expected) || named.strip_suffix(default_port).is_some_and(|named| named.eq_ignore_ascii_case(expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))).collect()
    }

    fn public_url(text: &str) -> PublicUrl {
        PublicUrl::sample(text)
    }

    #[test]
    fn a10_a_post_is_ours_by_origin_or_by_the_browsers_word_or_from_a_program() {
        let own = public_url("https://two.example:7443");
        for (pairs, expected) in [
            (vec![], true),
            (vec![("origin", "https://two.example:7443")], true),
            (vec![("origin", "https://two.example:7443"), ("sec-fetch-site", "same-origin")], true),
            (vec![("origin", "null"), ("sec-fetch-site", "same-origin")], true),
            (vec![("sec-fetch-site", "same-origin")], true),
            (vec![("origin", "null")], false),
            (vec![("origin", "https://two.example")], false),
            (vec![("origin", "https://evil.example")], false),
            (vec![("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")], false),
            (vec![("origin", "null"), ("sec-fetch-site", "cross-site")], false),
            (vec![("sec-fetch-site", "same-site")], false),
            (vec![("sec-fetch-site", "none")], false),
            (vec![("origin", "https://two.example:7443"), ("origin", "https://evil.example")], false),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in &pairs {
                map.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"));
            }
            assert_eq!(is_own_post(&map, &own), expected, "{pairs:?}");
        }
    }

    #[test]
    fn a13_cookies_are_bound_to_host_and_public_url() {
        let (one, two) = (public_url("https://h.example:1"), public_url("https://h.example:2"));
        assert_ne!(session_cookie(&one), session_cookie(&two));
        let name = session_cookie(&one);
        assert!(name.starts_with("__Host-p2pid-session-") && name.len() == "__Host-p2pid-session-".len() + 8);
        let cookie = set_cookie(&one, &name, "value", None);
        assert_eq!(cookie.to_str().expect("ASCII"), format!("{name}=value; Path=/; HttpOnly; SameSite=Lax; Secure"));
        assert!(cookie.is_sensitive());
        assert!(!session_cookie(&public_url("http://127.0.0.1:1")).starts_with("__Host-"));
    }

    #[test]
    fn a_cookie_that_comes_twice_is_none() {
        let sent = headers(&[("cookie", "a=1; b=2; a=3;c=x=y")]);
        assert_eq!((cookie(&sent, "a"), cookie(&sent, "b"), cookie(&sent, "c"), cookie(&sent, "d")), (None, Some("2"), Some("x=y"), None));
    }

    #[test]
    fn k6_the_host_of_a_page_is_the_configurations() {
        let own = public_url("https://two.example:7443");
        let plain = public_url("https://two.example");
        let uri = Uri::from_static("/login");
        assert!(is_public_host(&uri, &headers(&[("host", "two.example:7443")]), &own));
        assert!(is_public_host(&uri, &headers(&[("host", "TWO.example:443")]), &plain));
        assert!(is_public_host(&Uri::from_static("https://two.example:7443/login"), &HeaderMap::new(), &own));
        assert!(!is_public_host(&uri, &headers(&[("host", "two.example")]), &own));
        assert!(!is_public_host(&uri, &headers(&[("host", "127.0.0.1:7443")]), &own));
    }
}
