//! `/oauth/par` (RFC 9126): an app hands in its authorization request itself, and gets a reference for the browser to carry.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use super::client::{Claim, ClientError, ClientRequest, TIME_TO_ARRIVE};
use crate::config::Rate;
use crate::inbound::authorize;
use crate::inbound::ib_app::IbApp;
use crate::inbound::pushed::{self, Pushed};
use crate::instance::Instance;
use crate::instance::throttle::{self, Attempt};
use crate::oauth::error::{Code, WireError};
use crate::oauth::parameters::Parameters;
use crate::oauth::token::{Kind, mint};
use crate::secret::{Digest, ExposeSecret, SecretString};
use crate::store::{Transaction, pushed_request};

/// POST /oauth/par
pub(super) async fn push(State(instance): State<Arc<Instance>>, request: Request) -> Response {
    let (mut client, read) = ClientRequest::read(&instance, request, TIME_TO_ARRIVE).await;
    let pushed = async {
        let (form, claim) = read?;
        if form.has("request_uri") {
            return Err(WireError::new(Code::InvalidRequest, "what is pushed is the request, not a reference to one (request_uri)").into());
        }
        take(&instance, &mut client, form, claim).await
    };
    match pushed.await {
        Ok(reference) => {
            let answer = json!({
                "request_uri": format!("{}{}", pushed::PREFIX, reference.expose_secret()),
                "expires_in": pushed::LIFE.as_secs(),
            });
            client.answer_with(StatusCode::CREATED, answer.to_string())
        }
        Err(error) => client.refuse(&error).await,
    }
}

/// Judges a request as it would be judged in a browser, and keeps it. Gives the reference.
async fn take(instance: &Instance, client: &mut ClientRequest, form: Parameters, claim: Claim) -> Result<SecretString, ClientError> {
    let rate = Rate { count: pushed::MOST_OF_AN_ADDRESS, per: pushed::LIFE };
    let anybody = claim.bare_name().map(|client_id| Attempt::of_push(client_id, client.from));
    if let Some(wait) = anybody.and_then(|anybody| instance.requests.wait(anybody, rate, instance.clock.as_ref())) {
        return Err(ClientError::TooManyRequests(wait));
    }
    let reference = mint(Kind::PushedRequest, instance.random.as_ref());
    let digest = Digest::of(reference.expose_secret());
    let (seals, audience, key) = (instance.store.seals().clone(), instance.config().audience(), client.key());
    let from = throttle::network(client.from);
    let judge = move |transaction: &Transaction<'_>, app: &IbApp| {
        let question = match question(app, &form, &audience) {
            Ok(question) => question,
            Err(error) => return Ok(Err(error.into())),
        };
        if let (Some(named), Some(shown)) = (question.dpop_key, key)
            && named != shown
        {
            return Ok(Err(WireError::new(Code::InvalidRequest, "dpop_jkt is not the key of the DPoP proof").into()));
        }
        let expires_at = transaction.now().wall.plus(pushed::LIFE);
        let parameters = pushed::request_of(&form, &app.client_id);
        let pushed = Pushed { app: app.id, parameters, dpop_key: key, is_decided: false, expires_at };
        let inserted = pushed_request::insert(transaction, &seals, digest, &pushed, from)?;
        Ok(inserted.map_err(|full| ClientError::TooManyPushed(full.until.since(transaction.now().wall).min(pushed::LIFE))))
    };
    client.judged(claim, judge).await?;
    if let Some(anybody) = anybody {
        // Full, when others were under way at the same time: then the next one waits.
        let _ = instance.requests.count(anybody, rate, instance.clock.as_ref());
    }
    Ok(reference)
}

fn question(app: &IbApp, form: &Parameters, audience: &crate::oauth::resource::Audience) -> Result<authorize::Request, WireError> {
    let untrusted = |error: authorize::Untrusted| WireError::new(Code::InvalidRequest, error.to_string());
    let destination = authorize::destination(app, form).map_err(untrusted)?;
    authorize::judge(app, form, destination, audience)
}
