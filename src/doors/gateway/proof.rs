//! DPoP at the gateway (RFC 9449 §7): the proof that a call with a bound token must carry, and how a call without a good one is answered.

use http::{HeaderValue, Request, header};

use super::Refusal;
use super::routes::Routes;
use crate::instance::Instance;
use crate::instance::proofs::NoKey;
use crate::net::body::IncomingBody;
use crate::net::problem::Code;
use crate::oauth::dpop::{self, NONCE_HEADER};
use crate::oauth::thumbprint::KeyThumbprint;

/// What a proof shows.
pub(super) struct Proven {
    /// The key that it was made with.
    pub(super) key: KeyThumbprint,
    /// The nonce for the next proof, where this one's is about to end.
    pub(super) next_nonce: Option<HeaderValue>,
}

/// What a call with `token` proves; nothing where there is no proof.
pub(super) fn shown(instance: &Instance, request: &Request<IncomingBody>, token: &str) -> Result<Option<Proven>, NoKey> {
    let (clock, random) = (instance.clock.as_ref(), instance.random.as_ref());
    let urls = instance.config.load().names_of(request.uri().path());
    let asked = dpop::Request { method: request.method().as_str(), urls: &urls, token: Some(token) };
    let Some(proof) = instance.proofs.of_request(request.headers(), &asked, clock, random)? else { return Ok(None) };
    let is_ageing = instance.proofs.is_ageing(proof.nonce.as_deref());
    let next_nonce = is_ageing.then(|| header_of(instance.proofs.nonce(clock, random)));
    Ok(Some(Proven { key: proof.key, next_nonce }))
}

/// 401 for a proof that shows no key, with a challenge that says what is missing.
pub(super) fn bad_proof(instance: &Instance, why: &NoKey, routes: &Routes) -> Refusal {
    let text = why.to_string();
    match why {
        NoKey::Bad(_) | NoKey::Replayed => refused(Code::InvalidToken, text, routes.invalid_proof.clone()),
        NoKey::NeedsNonce => {
            let nonce = instance.proofs.nonce(instance.clock.as_ref(), instance.random.as_ref());
            refused(Code::UseDpopNonce, text, routes.use_nonce.clone()).with(NONCE_HEADER, header_of(nonce))
        }
    }
}

/// 401 for a bound token without a proof by its key.
pub(super) fn no_proof(why: String, routes: &Routes) -> Refusal {
    refused(Code::InvalidToken, why, routes.other_key.clone())
}

fn header_of(nonce: String) -> HeaderValue {
    HeaderValue::try_from(nonce).expect("base64url is visible ASCII")
}

fn refused(code: Code, why: String, challenge: HeaderValue) -> Refusal {
    Refusal::new(code, why).with(header::WWW_AUTHENTICATE, challenge)
}
