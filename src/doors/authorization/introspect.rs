//! `/oauth/introspect` (RFC 7662): a client may look at its own tokens, a resource server at those of its tenant that carry a scope which it
//! is registered for; of everything else they learn that it is not active, and no more.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Serialize;

use super::client::{ClientError, ClientRequest, TIME_TO_ARRIVE};
use super::token::policy;
use crate::clock::Timestamp;
use crate::config::Tokens;
use crate::inbound::ib_app::{GrantType, IbApp};
use crate::inbound::permit::Bearer;
use crate::inbound::refresh;
use crate::instance::Instance;
use crate::oauth::binding::Binding;
use crate::oauth::error::{Code, WireError};
use crate::oauth::scope::Scope;
use crate::oauth::token::{Kind, digest_if};
use crate::oauth::token_request::required;
use crate::secret::{ExposeSecret, SecretString};
use crate::store::ib_app::NotAnApp;
use crate::store::{Fault, Seals, Transaction, access_token, ib_app, realm, refresh_token, user};

/// What is said of a token that is active.
#[derive(Debug, Serialize)]
struct Active {
    active: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
    client_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    iss: String,
    /// For whom an access token is; a refresh token is for nobody but us.
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
    /// Of a realm's token: who is signed in.
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    /// Of a realm's token: the roles that the person holds there now.
    #[serde(skip_serializing_if = "Option::is_none")]
    authorities: Option<Vec<String>>,
    /// What whoever presents it must show (RFC 9449 §6.2, RFC 8705 §3.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<serde_json::Value>,
}

impl Active {
    /// A token that was issued to `client_id` by `issuer` for `scope`, and is good until `end`.
    fn until(end: Timestamp, scope: &Scope, client_id: String, subject: Option<String>, issuer: &str) -> Self {
        Self {
            active: true,
            scope: scope.to_string(),
            client_id,
            token_type: None,
            exp: end.seconds(),
            iat: None,
            sub: subject,
            iss: issuer.to_owned(),
            aud: None,
            username: None,
            authorities: None,
            cnf: None,
        }
    }
}

/// POST /oauth/introspect
pub(super) async fn introspect(State(instance): State<Arc<Instance>>, request: Request) -> Response {
    let (mut client, read) = ClientRequest::read(&instance, request, TIME_TO_ARRIVE).await;
    let looked = async {
        let (form, claim) = read?;
        form.each_once(&["token", "token_type_hint"]).map_err(|doubled| WireError::new(Code::InvalidRequest, doubled.to_string()))?;
        let token = SecretString::from(required(&form, "token")?);
        let config = instance.config();
        let (seals, issuer, tokens) = (instance.store.seals().clone(), config.instance.public_url.clone(), config.tokens.clone());
        let judge = move |transaction: &Transaction<'_>, app: &IbApp| {
            // A name alone shows nothing (RFC 7662 §2.1).
            if !app.security.is_confidential() {
                return Ok(Err(ClientError::NotAnApp(NotAnApp::Unknown)));
            }
            look(transaction, &seals, app, &token, issuer.as_str(), &tokens).map(Ok)
        };
        client.judged(claim, judge).await
    };
    match looked.await {
        Ok(Some(active)) => client.answer(serde_json::to_string(&active).expect("texts and numbers serialize")),
        Ok(None) => client.answer(r#"{"active":false}"#.to_owned()),
        Err(error) => client.refuse(&error).await,
    }
}

/// What `app` may know of `token`. Looking at it is a presentation: it shows that the pair has arrived. What the gateway would refuse for being
/// bound to nothing is not active.
fn look(
    transaction: &Transaction<'_>,
    seals: &Seals,
    app: &IbApp,
    token: &SecretString,
    issuer: &str,
    tokens: &Tokens,
) -> Result<Option<Active>, Fault> {
    let text = token.expose_secret();
    if let Some(digest) = digest_if(Kind::Access, text) {
        let found = access_token::find(transaction, digest)?.filter(|found| !found.bearer.lacks_binding());
        let Some(scope) = found.and_then(|found| shown_to(app, &found.bearer)) else {
            return Ok(None);
        };
        return Ok(match access_token::present(transaction, digest)? {
            None => None,
            Some(found) => {
                let (issued_at, bearer) = (found.issued_at, found.bearer);
                let authorities = authorities(transaction, &bearer)?;
                let active = Active::until(bearer.expires_at, &scope, bearer.client_id, Some(bearer.subject), issuer);
                Some(Active {
                    username: authorities.is_some().then(|| active.sub.clone()).flatten(),
                    authorities,
                    token_type: Some(Binding::token_type(bearer.binding)),
                    iat: Some(issued_at.seconds()),
                    aud: Some(issuer.to_owned()),
                    cnf: bearer.binding.map(Binding::to_confirmation),
                    ..active
                })
            }
        });
    }
    if digest_if(Kind::Refresh, text).is_none() || !app.may_use(GrantType::RefreshToken) {
        return Ok(None);
    }
    look_at_refresh_token(transaction, seals, app, token, issuer, tokens)
}

/// What the person whom a realm's token signed in may do there; nothing of any other app's.
fn authorities(transaction: &Transaction<'_>, bearer: &Bearer) -> Result<Option<Vec<String>>, Fault> {
    if !ib_app::by_id(transaction, bearer.app)?.is_some_and(|app| app.is_realm()) {
        return Ok(None);
    }
    match user::by_login(transaction, &bearer.subject)? {
        Some(person) => realm::authorities(transaction, bearer.app, person.id).map(Some),
        None => Ok(Some(Vec::new())),
    }
}

/// The scope that `app` may see of a token: all of its own, and as a resource server what it is registered for; nothing when the token is none of
/// its business.
fn shown_to(app: &IbApp, bearer: &Bearer) -> Option<Scope> {
    if bearer.app == app.id {
        return Some(bearer.scope.clone());
    }
    let seen = bearer.scope.intersection(&app.security.introspects);
    (bearer.tenant == app.tenant && !seen.is_empty()).then_some(seen)
}

/// A refresh token is active when presenting it now, with the key that it is bound to, would get its client tokens.
fn look_at_refresh_token(
    transaction: &Transaction<'_>,
    seals: &Seals,
    app: &IbApp,
    token: &SecretString,
    issuer: &str,
    tokens: &Tokens,
) -> Result<Option<Active>, Fault> {
    let Some((facts, login)) = refresh_token::find(transaction, seals, token)? else { return Ok(None) };
    let (policy, now) = (policy(tokens, app), transaction.now());
    if facts.grant.app != app.id || facts.worth(&policy, now).is_err() {
        return Ok(None);
    }
    if facts.presented.state == refresh::State::Current {
        refresh_token::arrived(transaction, facts.grant.id, facts.presented.generation)?;
    }
    let idle_end = now.wall.plus(facts.current.remaining(&policy, now));
    let end = facts.grant.expires_at.map_or(idle_end, |end| end.min(idle_end));
    Ok(Some(Active::until(end, &facts.grant.scope.intersection(&app.scope), app.client_id.clone(), login, issuer)))
}
