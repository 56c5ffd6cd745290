//! DPoP at the gateway (RFC 9449 §7): the proof that a call with a bound token must carry, and how a call without a good one is answered.

use http::{HeaderValue, Request, header};

use super::Refusal;
use super::routes::Routes;
use crate::instance::Instance;
use crate::instance::proofs::Verdict;
use crate::net::body::IncomingBody;
use crate::net::problem::Code;
use crate::oauth::dpop::{self, NONCE_HEADER};
use crate::oauth::key::Thumbprint;

/// Why a proof shows no key.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoKey {
    /// It is not one for this call.
    #[error(transparent)]
    Bad(#[from] dpop::Refusal),
    /// It was used before.
    #[error("the DPoP proof was used before")]
    Replayed,
    /// It needs this nonce.
    #[error("the DPoP proof needs the nonce of this answer")]
    NeedsNonce(String),
}

/// What a proof shows.
pub(super) struct Shown {
    /// The key that it was made with.
    pub(super) key: Thumbprint,
    /// The nonce for the next proof, where this one's is about to end.
    pub(super) next_nonce: Option<HeaderValue>,
}

/// What a call with `token` proves; nothing where there is no proof.
pub(super) fn shown(instance: &Instance, request: &Request<IncomingBody>, token: &str) -> Result<Option<Shown>, NoKey> {
    let (clock, random) = (instance.clock.as_ref(), instance.random.as_ref());
    let urls = instance.config.load().names_of(request.uri().path());
    let asked = dpop::Request { method: request.method().as_str(), urls: &urls, token: Some(token) };
    let Some(proof) = dpop::presented(request.headers(), &asked, clock.now().wall)? else { return Ok(None) };
    match instance.proofs.take(&proof, clock, random) {
        Verdict::Fresh => {
            let is_ageing = instance.proofs.is_ageing(proof.nonce.as_deref());
            let next_nonce = is_ageing.then(|| header_of(instance.proofs.nonce(clock, random)));
            Ok(Some(Shown { key: proof.key, next_nonce }))
        }
        Verdict::Replayed => Err(NoKey::Replayed),
        Verdict::NeedsNonce => Err(NoKey::NeedsNonce(instance.proofs.nonce(clock, random))),
    }
}

impl NoKey {
    /// 401 with a challenge that says what is missing.
    pub(super) fn refusal(self, routes: &Routes) -> Refusal {
        let text = self.to_string();
        match self {
            Self::Bad(_) | Self::Replayed => refused(Code::InvalidToken, text, routes.invalid_proof.clone()),
            Self::NeedsNonce(nonce) => refused(Code::UseDpopNonce, text, routes.use_nonce.clone()).with(NONCE_HEADER, header_of(nonce)),
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
