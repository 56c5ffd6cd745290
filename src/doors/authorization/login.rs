//! `/login` and `/logout`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::SET_COOKIE;

use super::{authorize, grants};
use crate::audit::{Action, Actor, Entry, Origin, Outcome, Record};
use crate::config::Config;
use crate::doors::browser::{self, OwnForm, Visitor, address, say, see_other, unavailable};
use crate::instance::Instance;
use crate::instance::throttle::Attempt;
use crate::net::problem;
use crate::oauth::parameters::Parameters;
use crate::observe::log::AUDIT;
use crate::pages;
use crate::secret::SecretString;
use crate::store::{audit, user};

/// The URL of the log-in that goes on to `next`, a path and query of ours.
pub(super) fn url(config: &Config, next: &str) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("next", next).finish();
    config.instance.public_url.join(&format!("/login?{query}"))
}

/// GET /login
pub(super) async fn show(State(instance): State<Arc<Instance>>, request: Request) -> Response {
    let config = instance.config();
    let query = Parameters::read(request.uri().query().unwrap_or_default().as_bytes()).unwrap_or_default();
    let next = next(&config, &query);
    let visitor = match Visitor::of(&instance, request.headers()).await {
        Ok(visitor) => visitor,
        Err(_) => return unavailable(&config),
    };
    match (&visitor.signed_in, next) {
        (Some(_), Some(next)) => see_other(&next_url(&config, next)),
        (Some(signed_in), None) => {
            let who = format!("You are signed in as {}.", signed_in.user.login);
            let grants = format!("What you allowed is at {}, where you can withdraw it.", config.instance.public_url.join(grants::PATH));
            say(&config, StatusCode::OK, "Signed in", &[&who, &grants, "To allow something, open the request URL that you were given."])
        }
        (None, next) => ask(&instance, visitor, next, "", StatusCode::OK, None).await,
    }
}

/// POST /login
pub(super) async fn sign_in(State(instance): State<Arc<Instance>>, request: Request) -> Response {
    let config = instance.config();
    let OwnForm { parts, form, visitor } = match browser::own_form(&instance, request).await {
        Ok(own) => own,
        Err(refusal) => return refusal,
    };
    let next = next(&config, &form);
    let (Ok(Some(login)), Ok(Some(password))) = (form.the("username"), form.the("password")) else {
        return ask(&instance, visitor, next, "", StatusCode::BAD_REQUEST, Some("Type your login and your password.")).await;
    };
    let from = address(&parts, &config);
    let (attempt, rate) = (Attempt::new("user", login, from), config.limits.auth_failures);
    let trial = match instance.failures.begin([attempt], rate, instance.clock.as_ref()).await {
        Ok(trial) => trial,
        Err(wait) => {
            let problem = format!("Too many attempts failed. Try again in {} seconds.", problem::whole_seconds(wait));
            let mut response = ask(&instance, visitor, next, login, StatusCode::TOO_MANY_REQUESTS, Some(&problem)).await;
            problem::mark_rate_limited(response.headers_mut(), wait);
            return response;
        }
    };
    let named = login.to_owned();
    let Ok(found) = instance.store.read(move |connection| user::by_login(connection, &named)).await else { return unavailable(&config) };
    let known = found.as_ref().map(|user| Record::of_instance("user", user.id, &user.login));
    let hash = found.as_ref().and_then(|user| user.password.clone());
    let clock = Arc::clone(&instance.clock);
    let Ok(is_right) = instance.passwords.verify(from, hash, SecretString::from(password), trial, rate, clock).await else {
        let problem = Some("Too many people log in at this moment. Try again.");
        return ask(&instance, visitor, next, login, StatusCode::SERVICE_UNAVAILABLE, problem).await;
    };
    let begun = match found.filter(|_| is_right) {
        Some(user) => {
            let who = user.login.clone();
            let Ok(begun) = browser::begin_session(&instance, &parts.headers, user).await else { return unavailable(&config) };
            begun.map(|cookies| (who, cookies))
        }
        None => None,
    };
    let Some((who, cookies)) = begun else {
        // What was typed is not kept: people type passwords into the wrong field. A login that there is, is none.
        let failed = Entry::of(Action::LogInFailed).ended(Outcome::Refused).on_known(known);
        let request_id = audit::current().and_then(|origin| origin.request_id.clone());
        instance.tally.note(instance.clock.now(), Origin::new(Actor::Unknown, from, request_id), failed);
        tracing::info!(target: AUDIT, event = Action::LogInFailed.as_str(), address = from.map(display));
        return ask(&instance, visitor, next, login, StatusCode::UNAUTHORIZED, Some("Login or password is wrong.")).await;
    };
    tracing::info!(target: AUDIT, event = Action::LogInSucceeded.as_str(), who, address = from.map(display));
    let mut response = see_other(&next.map_or_else(|| config.instance.public_url.join("/login"), |next| next_url(&config, next)));
    for cookie in cookies {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// GET /logout
pub(super) async fn show_logout(State(instance): State<Arc<Instance>>, request: Request) -> Response {
    let config = instance.config();
    let visitor = match Visitor::of(&instance, request.headers()).await {
        Ok(visitor) => visitor,
        Err(_) => return unavailable(&config),
    };
    let Some(signed_in) = &visitor.signed_in else { return signed_out(&config) };
    let (token, action) = (visitor.form_token(&instance), config.instance.public_url.join("/logout"));
    let page = pages::Logout { instance: &config.instance.name, action: &action, token: &token, login: &signed_in.user.login };
    pages::page(StatusCode::OK, &page, &[]).into_response()
}

/// POST /logout
pub(super) async fn sign_out(State(instance): State<Arc<Instance>>, request: Request) -> Response {
    let config = instance.config();
    let OwnForm { visitor, .. } = match browser::own_form(&instance, request).await {
        Ok(own) => own,
        Err(refusal) => return refusal,
    };
    let Some(signed_in) = visitor.signed_in else { return browser::not_our_form(&config) };
    let Ok(cookie) = browser::end_session(&instance, &signed_in).await else { return unavailable(&config) };
    let mut response = signed_out(&config);
    response.headers_mut().append(SET_COOKIE, cookie);
    response
}

fn signed_out(config: &Config) -> Response {
    say(config, StatusCode::OK, "Signed out", &["You are not signed in in this browser."])
}

/// The log-in form.
async fn ask(
    instance: &Instance,
    visitor: Visitor,
    next: Option<&str>,
    username: &str,
    status: StatusCode,
    problem: Option<&str>,
) -> Response {
    let config = instance.config();
    let (token, action) = (visitor.form_token(instance), config.instance.public_url.join("/login"));
    let targets = match next {
        Some(next) => authorize::form_targets(instance, next).await,
        None => Vec::new(),
    };
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    let next = next.unwrap_or_default();
    let page = pages::Login { instance: &config.instance.name, action: &action, token: &token, next, username, problem };
    visitor.answered(pages::page(status, &page, &targets))
}

/// Where a log-in goes on to, below public_url: an authorization request or a request URL of ours, or what somebody allowed, and nothing else (RFC 9700 §4.11).
fn next<'a>(config: &Config, parameters: &'a Parameters) -> Option<&'a str> {
    let next = parameters.the("next").ok().flatten()?;
    let base = config.instance.public_url.url().path().trim_end_matches('/');
    known(next).or_else(|| known(next.strip_prefix(base)?))
}

fn known(next: &str) -> Option<&str> {
    let is_request = next.strip_prefix("/oauth/authorize").is_some_and(|rest| rest.starts_with('?'));
    let is_ticket = next
        .strip_prefix("/link/")
        .is_some_and(|ticket| ticket.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')));
    ((is_request || is_ticket || next == grants::PATH) && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')).then_some(next)
}

fn next_url(config: &Config, next: &str) -> String {
    config.instance.public_url.join(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a12_a_log_in_goes_on_to_an_authorization_request_of_ours_only() {
        for right in ["/oauth/authorize?client_id=x", "/link/p2pt_abc-D", "/grants"] {
            assert_eq!(known(right), Some(right));
        }
        for wrong in [
            "",
            "/",
            "/login",
            "/oauth/authorize",
            "/oauth/authorize/../../x?",
            "/oauth/authorize@evil.example?",
            "//evil.example/oauth/authorize?",
            "https://evil.example/oauth/authorize?",
            "/oauth/authorize?x=1\r\nset-cookie: a=b",
            "/oauth/authorize?x=\\",
            "/link/../oauth/callback",
            "/link//evil.example",
            "/grants/",
            "/grants?next=https://evil.example",
            "/grants@evil.example",
            "//grants",
            "javascript:alert(1)",
        ] {
            assert_eq!(known(wrong), None, "{wrong:?}");
        }
    }
}
