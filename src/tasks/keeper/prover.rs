//! The proof that goes with each call whose token is bound to a key (RFC 9449 §7): made from what is in memory, without a lock.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, Method};
use url::Url;

use crate::clock::Timestamp;
use crate::instance::Instance;
use crate::instance::remotes::{Remote, Verifier};
use crate::oauth::dpop;
use crate::oauth::signing_key::SigningKey;
use crate::outbound::client;
use crate::random;
use crate::secret::SecretString;

/// Makes the proofs for one token.
pub struct Prover {
    /// Makes them.
    with: dpop::Prover,
    remote: Arc<Remote>,
}

/// What a proof was made from: an answer that names another nonce, or another time, is worth a second one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basis {
    nonce: Option<Arc<String>>,
    ahead: i64,
}

impl Prover {
    /// For `token`, bound to `key`, at the server at the origin of `url`.
    pub(super) fn new(instance: &Instance, key: &Arc<SigningKey>, token: &SecretString, url: &Url) -> Self {
        Self { with: dpop::Prover::new(key, Some(token)), remote: instance.remotes.at(url) }
    }

    /// A proof for one request, by what is known of the server now.
    pub fn proof(&self, instance: &Instance, method: &Method, url: &str) -> HeaderValue {
        let (nonce, identifier) =
            (self.remote.nonce(Verifier::Resource), URL_SAFE_NO_PAD.encode(random::bytes::<16>(instance.random.as_ref())));
        self.with.prove(&dpop::Occasion {
            method: method.as_str(),
            url,
            at: self.remote.time(instance.clock.now().wall),
            identifier: &identifier,
            nonce: nonce.as_ref().map(|nonce| nonce.as_str()),
        })
    }

    /// What the next proof will be made from.
    pub fn basis(&self) -> Basis {
        Basis { nonce: self.remote.nonce(Verifier::Resource), ahead: self.remote.ahead() }
    }

    /// Takes the nonce that an answer hands out, if it does.
    pub fn keep_nonce(&self, headers: &HeaderMap) {
        self.remote.keep_nonce(Verifier::Resource, headers);
    }

    /// Takes the clock of a server that refused a proof, where it is another than was thought.
    pub fn correct_clock(&self, headers: &HeaderMap, now: Timestamp) {
        if let Some(there) = client::date(headers)
            && u128::from(self.remote.time(now).millis().abs_diff(there.millis())) > client::OFF.as_millis()
        {
            self.remote.set_time(there, now);
        }
    }

    /// Takes the clock for what it was thought to be before.
    pub fn restore_clock(&self, basis: &Basis) {
        self.remote.set_ahead(basis.ahead);
    }
}

impl fmt::Debug for Prover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prover").field("with", &self.with).finish_non_exhaustive()
    }
}
