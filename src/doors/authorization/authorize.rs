//! `/oauth/authorize`: a GET asks, a POST decides.
//!
//! Whoever is not signed in logs in first, with the request in `next`; only then does it become a question, a row that is tied to the
//! session and answered once.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use url::Url;

use super::{grants, login};
use crate::audit::{Action, Actor, Entry, Outcome};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::doors::browser::{self, OwnForm, SignedIn, Visitor, say, see_other, unavailable};
use crate::id::Id;
use crate::inbound::authorize::{self, Destination, Untrusted, answer_url};
use crate::inbound::consent::{Authorization, Decider, Decision, Refusal, Stage, TIME_TO_DECIDE, decide as take_answer};
use crate::inbound::ib_app::IbApp;
use crate::inbound::pushed;
use crate::inbound::realm::{self, may_allow};
use crate::instance::Instance;
use crate::oauth::error::{Code, WireError};
use crate::oauth::parameters::{Malformed, Parameters};
use crate::oauth::scope::Scope;
use crate::oauth::thumbprint::KeyThumbprint;
use crate::oauth::token::{Kind, digest_if, mint};
use crate::observe::log::AUDIT;
use crate::observe::point;
use crate::pages::{self, ScopeLine};
use crate::secret::{Digest, ExposeSecret};
use crate::store::{StoreError, Transaction, authorization, ib_app, pushed_request, realm as realms, user};

/// Why an authorization request is answered with a page, and no redirect.
#[derive(Debug, thiserror::Error)]
enum Unanswerable {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    #[error(transparent)]
    Pushed(#[from] pushed::Refusal),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// GET /oauth/authorize
pub(super) async fn ask(State(instance): State<Arc<Instance>>, request: Request) -> Response {
    let config = instance.config();
    let query = request.uri().query().unwrap_or_default();
    let trusted = match trusted(&instance, query).await {
        Ok(trusted) => trusted,
        Err(error) => return cannot_answer(&config, &error),
    };
    let Trusted { app, destination, .. } = &trusted;
    let visitor = match Visitor::of(&instance, request.headers()).await {
        Ok(visitor) => visitor,
        Err(_) => return unavailable(&config),
    };
    let Some(signed_in) = visitor.signed_in.clone() else {
        return see_other(&login::url(&config, &format!("{}?{query}", request.uri().path())));
    };
    match trusted.judge(&config) {
        Ok(question) => put(&instance, visitor, &signed_in, &trusted, question).await,
        Err(error) => {
            tracing::info!(
                client_id = app.client_id,
                code = error.code.as_str(),
                reason = error.description(),
                "an authorization request was refused"
            );
            see_other(&error_url(&config, destination, &error))
        }
    }
}

/// POST /oauth/authorize: Allow or Decline.
pub(super) async fn decide(State(instance): State<Arc<Instance>>, request: Request) -> Response {
    let config = instance.config();
    let OwnForm { form, visitor, .. } = match browser::own_form(&instance, request).await {
        Ok(own) => own,
        Err(refusal) => return refusal,
    };
    let Some(signed_in) = visitor.signed_in else { return browser::not_our_form(&config) };
    let id = form.the("authorization").ok().flatten().and_then(|id| id.parse::<Id>().ok());
    let decision = match form.the("decision") {
        Ok(Some("allow")) => Some(Decision::Allow),
        Ok(Some("decline")) => Some(Decision::Decline),
        _ => None,
    };
    let (Some(id), Some(decision)) = (id, decision) else {
        let paragraphs = ["The form does not say what you decided.", "Go back and press Allow or Decline."];
        return say(&config, StatusCode::BAD_REQUEST, "No decision", &paragraphs);
    };
    match decided(&instance, &config, &signed_in, id, decision).await {
        Ok(Ok(location)) => see_other(&location),
        Ok(Err(refusal)) => not_decided(&config, refusal),
        Err(_) => unavailable(&config),
    }
}

/// The origins that a form on the way to `next`, an authorization request of ours, may end at.
pub(super) async fn form_targets(instance: &Instance, next: &str) -> Vec<String> {
    let query = next.split_once('?').map_or("", |(_, query)| query);
    match trusted(instance, query).await {
        Ok(trusted) => origin(&trusted.destination).into_iter().collect(),
        Err(_) => Vec::new(),
    }
}

/// A request that may be answered by a redirect.
struct Trusted {
    app: IbApp,
    destination: Destination,
    parameters: Parameters,
    /// It was pushed: the digest of its reference, and the DPoP key that came with it.
    pushed: Option<(Digest, Option<KeyThumbprint>)>,
}

impl Trusted {
    fn judge(&self, config: &Config) -> Result<authorize::Request, WireError> {
        if self.pushed.is_none() && self.app.security.needs_par(config.tokens.require_par) {
            return Err(WireError::new(Code::InvalidRequest, "the request must be pushed first, to pushed_authorization_request_endpoint"));
        }
        let question = authorize::judge(&self.app, &self.parameters, self.destination.clone(), &config.audience())?;
        let dpop_key = question.dpop_key.or(self.pushed.and_then(|(_, key)| key));
        Ok(authorize::Request { dpop_key, ..question })
    }
}

async fn trusted(instance: &Instance, query: &str) -> Result<Trusted, Unanswerable> {
    let parameters = Parameters::read(query.as_bytes())?;
    let client_id = authorize::client_id(&parameters)?.to_owned();
    let app = instance.store.read(move |connection| ib_app::by_client_id(connection, &client_id)).await?;
    let app = app.ok_or(Untrusted::UnknownClient)?;
    let Some(reference) = pushed::reference(&parameters)? else {
        let destination = authorize::destination(&app, &parameters)?;
        return Ok(Trusted { app, destination, parameters, pushed: None });
    };
    let (digest, seals) = (digest_if(Kind::PushedRequest, reference).ok_or(pushed::Refusal::Unknown)?, instance.store.seals().clone());
    let found = instance.store.read(move |connection| pushed_request::find(connection, &seals, digest)).await?;
    let found = found.ok_or(pushed::Refusal::Unknown)?;
    found.check(app.id, instance.clock.now().wall)?;
    let parameters = Parameters::read(found.parameters.expose_secret().as_bytes())?;
    let destination = authorize::destination(&app, &parameters)?;
    Ok(Trusted { app, destination, parameters, pushed: Some((digest, found.dpop_key)) })
}

fn cannot_answer(config: &Config, error: &Unanswerable) -> Response {
    if let Unanswerable::Store(_) = error {
        return unavailable(config);
    }
    tracing::info!(reason = %error, "an authorization request cannot be answered");
    let what = format!("It says: {error}.");
    let next = format!(
        "Nothing was allowed, and you are not sent back. Ask whoever runs that application to compare its client_id and its redirect URI with \
         what is registered here (p2pid ib show), then open a new request URL. This is {}.",
        config.instance.public_url.as_str()
    );
    say(
        config,
        StatusCode::BAD_REQUEST,
        "This request cannot be answered",
        &["An application sent you here with a faulty request.", &what, &next],
    )
}

/// Puts the question to somebody who is signed in.
async fn put(instance: &Instance, visitor: Visitor, signed_in: &SignedIn, asked: &Trusted, question: authorize::Request) -> Response {
    let app = &asked.app;
    let config = instance.config();
    let now = instance.clock.now().wall;
    let until: Timestamp = now.plus(TIME_TO_DECIDE);
    let authorization = Authorization {
        id: Id::new(now, instance.random.as_ref()),
        app: app.id,
        user: signed_in.user.id,
        session: signed_in.session.digest,
        request: question.clone(),
        pushed: asked.pushed.map(|(digest, _)| digest),
        stage: Stage::Pending { until },
    };
    let id = authorization.id.to_string();
    let seals = instance.store.seals().clone();
    let (asking, person) = (app.clone(), signed_in.user.clone());
    let written = instance.store.write(move |transaction| {
        authorization::insert(transaction, &seals, &authorization, until)?;
        let authorities = realms::authorities(transaction, authorization.app, authorization.user)?;
        // Who may not allow it keeps nothing from others.
        match may_allow(&asking, &person, !authorities.is_empty()) {
            Ok(()) => pushed_request::keep_for(transaction, &authorization)?,
            Err(why) => {
                transaction.acts_as(Actor::Session { login: person.login.clone() });
                transaction.record(&refused(&asking, &authorization.request.scope, why))?;
            }
        }
        Ok(authorities)
    });
    let Ok(authorities) = written.await else { return unavailable(&config) };
    let scopes = scope_lines(&config, &question.scope);
    let public_url = &config.instance.public_url;
    let (action, logout, grants) = (public_url.join("/oauth/authorize"), public_url.join("/logout"), public_url.join(grants::PATH));
    let (token, target) = (visitor.form_token(instance), origin(&question.destination));
    let page = pages::Consent {
        instance: &config.instance.name,
        app: &app.name,
        client_id: &app.client_id,
        tenant: &app.tenant,
        scopes: &scopes,
        destination: &question.destination.redirect_uri,
        login: &signed_in.user.login,
        may_allow: may_allow(app, &signed_in.user, !authorities.is_empty()).is_ok(),
        is_realm: app.is_realm(),
        action: &action,
        logout: &logout,
        grants: &grants,
        token: &token,
        authorization: &id,
    };
    let targets: Vec<&str> = target.as_deref().into_iter().collect();
    visitor.answered(pages::page(StatusCode::OK, &page, &targets).into_response())
}

/// Takes the answer; where it sends the browser.
async fn decided(
    instance: &Instance,
    config: &Config,
    signed_in: &SignedIn,
    id: Id,
    decision: Decision,
) -> Result<Result<String, Refusal>, StoreError> {
    let code = mint(Kind::Code, instance.random.as_ref());
    let digest = Digest::of(code.expose_secret());
    let (user_id, session, code_ttl) = (signed_in.user.id, signed_in.session.digest, config.tokens.code_ttl);
    let require_par = config.tokens.require_par;
    let seals = instance.store.seals().clone();
    let judge = move |transaction: &Transaction<'_>| {
        let Some(asked) = authorization::by_id(transaction, &seals, id)? else { return Ok(Err(Refusal::NotAsked)) };
        let (app, person) = (ib_app::by_id(transaction, asked.app)?, user::by_id(transaction, user_id)?);
        let (Some(app), Some(person)) = (app, person) else { return Ok(Err(Refusal::NotAsked)) };
        let is_member = !realms::authorities(transaction, app.id, user_id)?.is_empty();
        let decider = Decider { user: user_id, session, may_allow: may_allow(&app, &person, is_member) };
        let code_ttl = app.security.code_ttl(code_ttl);
        let scope = asked.request.scope.clone();
        let outdated = asked.outdated(&app, require_par);
        match take_answer(asked, decision, &decider, outdated, digest, code_ttl, transaction.now().wall) {
            // What was pushed is decided once, however often and to whomever it was shown.
            Ok(Authorization { pushed: Some(pushed), .. }) if !pushed_request::decide(transaction, pushed)? => {
                Ok(Err(Refusal::AlreadyDecided))
            }
            Ok(decided) => {
                authorization::move_to(transaction, decided.id, &decided.stage)?;
                transaction.acts_as(Actor::Session { login: person.login.clone() });
                transaction.record(
                    &Entry::of(decision.action())
                        .on(app.record())
                        .with("scope", decided.request.scope.to_string())
                        .with("client_id", app.client_id.as_str()),
                )?;
                Ok(Ok((app, decided.request.destination)))
            }
            Err(refusal) => {
                if matches!(refusal, Refusal::MayNotApprove | Refusal::NotAMember) {
                    transaction.acts_as(Actor::Session { login: person.login.clone() });
                    transaction.record(&refused(&app, &scope, refusal))?;
                }
                Ok(Err(refusal))
            }
        }
    };
    let (app, destination) = match instance.store.write(judge).await? {
        Ok(decided) => decided,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let (client_id, login) = (&app.client_id, &signed_in.user.login);
    if !app.is_realm() && decision == Decision::Allow {
        point::passed("code_issued");
    }
    tracing::info!(target: AUDIT, event = decision.action().as_str(), client_id, who = login);
    Ok(Ok(match decision {
        Decision::Allow => answer_url(&destination, config.instance.public_url.as_str(), &[("code", code.expose_secret())]),
        Decision::Decline => error_url(config, &destination, &WireError::new(Code::AccessDenied, format!("{login} declined"))),
    }))
}

/// Somebody was asked, or pressed Allow, who may not allow it.
fn refused(app: &IbApp, scope: &Scope, why: Refusal) -> Entry {
    let entry = Entry::of(Action::ConsentRefused).ended(Outcome::Refused).on(app.record());
    entry.with("scope", scope.to_string()).with("client_id", app.client_id.as_str()).with("reason", why.to_string())
}

fn not_decided(config: &Config, refusal: Refusal) -> Response {
    let (status, next) = match refusal {
        Refusal::NotAsked => (StatusCode::FORBIDDEN, "Open the request URL again in this browser."),
        Refusal::AlreadyDecided => (StatusCode::CONFLICT, "Nothing was changed. If the link does not work, open a new request URL."),
        Refusal::AppChanged => (
            StatusCode::CONFLICT,
            "Nothing was allowed, and you are not sent back. Open a new request URL; if that cannot be answered either, ask whoever runs that \
             application to compare its settings with what is registered here (p2pid ib show).",
        ),
        Refusal::TooLate => (StatusCode::GONE, "Nothing was allowed. Open a new request URL."),
        Refusal::MayNotApprove => (
            StatusCode::FORBIDDEN,
            "Nothing was allowed. Ask whoever sent you the request URL for a new one, since yours is used up, and let an administrator of this \
             instance open that, or somebody with the permission links.approve.",
        ),
        Refusal::NotAMember => {
            (StatusCode::FORBIDDEN, "Nothing was allowed. Ask an administrator of this instance for a role in the realm.")
        }
    };
    let heading = format!("Not taken: {refusal}");
    say(config, status, &heading, &[next])
}

/// Each scope with what `[scopes]` says of it.
pub(super) fn scope_lines<'a>(config: &'a Config, scope: &'a Scope) -> Vec<ScopeLine<'a>> {
    let undescribed = |name| if name == realm::SCOPE { "Know who you are, and your roles there" } else { "no description" };
    let description = |name| config.scopes.get(name).map_or_else(|| undescribed(name), |offered| offered.text.as_str());
    scope.words().map(|name| ScopeLine { name, description: description(name) }).collect()
}

fn error_url(config: &Config, destination: &Destination, error: &WireError) -> String {
    let answer = [("error", error.code.as_str()), ("error_description", error.description())];
    answer_url(destination, config.instance.public_url.as_str(), &answer)
}

/// The origin of a redirect URI, for `form-action`.
fn origin(destination: &Destination) -> Option<String> {
    Url::parse(&destination.redirect_uri).ok().map(|url| url.origin().ascii_serialization())
}
