//! What an IB app must show of itself: how it authenticates, and what its requests and tokens are tied to.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::oauth::assertion::Asserted;
use crate::oauth::binding::{Binding, Possession};
use crate::oauth::client_auth::{Credentials, Method, Way};
use crate::oauth::client_certificate::Subject;
use crate::oauth::key::KeySet;
use crate::oauth::rotation::Rotation;
use crate::oauth::scope::Scope;

/// How an app's requests and tokens are secured. The default is a secret, bearer tokens, and PKCE.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// How the app authenticates.
    pub method: Method,
    /// Its public keys, for `private_key_jwt` and `self_signed_tls_client_auth`.
    pub keys: Option<Keys>,
    /// The name in its certificate, for `tls_client_auth`.
    pub subject: Option<Subject>,
    /// Its access tokens are bound to a DPoP key (RFC 9449 §5.2).
    pub dpop: bool,
    /// Its access tokens are bound to its TLS certificate (RFC 8705 §3).
    pub mtls: bool,
    /// Its authorization requests are pushed (RFC 9126 §6).
    pub require_par: bool,
    /// A request without PKCE is taken, for clients that cannot do better.
    pub pkce_optional: bool,
    /// All that the FAPI 2.0 Security Profile asks for.
    pub profile: Option<Profile>,
    /// It is a resource server for these scopes: of tokens that carry one of them it may learn what they are (RFC 7662 §2.1).
    pub introspects: Scope,
}

/// A set of demands that are known by one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// FAPI 2.0 Security Profile.
    Fapi2,
}

/// Where an app's public keys are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keys {
    /// Registered here.
    Inline(KeySet),
    /// At a URL of the app's.
    Url {
        /// https, or http on a loopback address.
        url: Url,
        /// It was not named by somebody who rules the instance: it may not lead to a private address.
        guarded: bool,
    },
}

/// What a client has shown of itself before its record is judged: whatever is slow, signatures and keys to be fetched, is done by then.
#[derive(Debug)]
pub enum Evidence {
    /// A secret.
    Secret {
        /// What it may have meant, most likely first.
        readings: Vec<Credentials>,
        /// How it came.
        way: Way,
    },
    /// An assertion that one of `keys` signed: good while they are the client's.
    Assertion {
        /// Who it is.
        client_id: String,
        /// Where the key was among.
        keys: Keys,
        /// What it says.
        asserted: Asserted,
    },
    /// A certificate whose key it holds, which is one that this registration asks for: good while the registration says the same.
    Certificate {
        /// Who it is.
        client_id: String,
        /// One of the two methods.
        method: Method,
        /// Where it was among, for one.
        keys: Option<Keys>,
        /// What it is called, for the other.
        subject: Option<Subject>,
    },
    /// A `client_id` alone: good for a client that does not authenticate.
    Name(String),
}

/// What the app's tokens are bound to is not what the request shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unbound {
    /// `invalid_dpop_proof`
    #[error("this client's tokens are bound to a key: the request needs a DPoP header")]
    NoKey,
    /// `invalid_request`
    #[error("this client's tokens are bound to its certificate: the request must come over mutual TLS, with one that is valid now")]
    NoCertificate,
    /// `invalid_request`: whoever sends a proof expects tokens that are bound to it.
    #[error("this client's tokens are bound to its certificate: a DPoP proof has no place")]
    KeyBesideCertificate,
}

impl Security {
    /// Whether it authenticates at all.
    pub fn is_confidential(&self) -> bool {
        self.method != Method::None
    }

    /// Whether its access tokens must be bound to a DPoP key.
    pub fn needs_dpop(&self) -> bool {
        self.dpop || self.profile == Some(Profile::Fapi2) && !self.mtls
    }

    /// Whether its access tokens must be bound, to whatever it is.
    pub fn is_bound(&self) -> bool {
        self.mtls || self.needs_dpop()
    }

    /// Whether its authorization requests must be pushed, at an instance that demands it of all where `of_all` says so.
    pub fn needs_par(&self, of_all: bool) -> bool {
        of_all || self.require_par || self.profile == Some(Profile::Fapi2)
    }

    /// Whether its authorization requests must name their redirect URI though it has only one (FAPI 2.0 §5.3.2.2).
    pub fn needs_redirect_uri(&self) -> bool {
        self.profile == Some(Profile::Fapi2)
    }

    /// What becomes of its refresh tokens, where that is `given`. FAPI 2.0 §5.3.2.1 keeps those of clients that authenticate and whose tokens are
    /// bound. Those of a client that does neither are rotated whatever the instance says by now (RFC 9700 §4.14.2).
    pub fn rotation(&self, given: Rotation) -> Rotation {
        match given {
            _ if self.profile == Some(Profile::Fapi2) => Rotation::None,
            Rotation::None if !self.is_confidential() && !self.is_bound() => Rotation::RetrySafe,
            given => given,
        }
    }

    /// How long a code is good, where that is `given`: FAPI 2.0 §5.3.2.1 allows a minute.
    pub fn code_ttl(&self, given: Duration) -> Duration {
        if self.profile == Some(Profile::Fapi2) { given.min(Duration::from_secs(60)) } else { given }
    }

    /// What a new access token is bound to, for a request that shows `shown`. Whoever shows a DPoP key gets a token bound to it, asked for or not
    /// (RFC 9449 §5); a certificate binds where the app is registered so (RFC 8705 §3.4).
    pub fn binding(&self, shown: Possession) -> Result<Option<Binding>, Unbound> {
        match shown.key {
            Some(_) if self.mtls => Err(Unbound::KeyBesideCertificate),
            Some(key) => Ok(Some(Binding::Key(key))),
            None if self.mtls => shown.certificate.map(|certificate| Some(Binding::Certificate(certificate))).ok_or(Unbound::NoCertificate),
            None if self.needs_dpop() => Err(Unbound::NoKey),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::thumbprint::{CertificateThumbprint, KeyThumbprint};

    #[test]
    fn g6_who_shows_a_key_gets_a_token_bound_to_it_and_who_must_shows_one() {
        let key = KeyThumbprint::of_canonical("key");
        let bound = Security { dpop: true, ..Security::default() };
        for security in [&bound, &Security::default()] {
            let shown = Possession { key: Some(key), certificate: None };
            assert_eq!(security.binding(shown), Ok(Some(Binding::Key(key))));
        }
        let nothing = Possession::default();
        assert_eq!((bound.binding(nothing), Security::default().binding(nothing)), (Err(Unbound::NoKey), Ok(None)));
    }

    #[test]
    fn g7_tokens_are_bound_to_a_certificate_where_the_app_is_registered_so() {
        let certificate = CertificateThumbprint::of_der(b"certificate");
        let (shown, nothing) = (Possession { certificate: Some(certificate), key: None }, Possession::default());
        let bound = Security { mtls: true, ..Security::default() };
        assert_eq!(bound.binding(shown), Ok(Some(Binding::Certificate(certificate))));
        assert_eq!(bound.binding(nothing), Err(Unbound::NoCertificate));
        assert_eq!(
            bound.binding(Possession { key: Some(KeyThumbprint::of_canonical("key")), ..shown }),
            Err(Unbound::KeyBesideCertificate)
        );
        assert_eq!(Security::default().binding(shown), Ok(None), "a certificate alone binds nothing");
        let public = Security { method: Method::None, mtls: true, ..Security::default() };
        assert_eq!(public.rotation(Rotation::None), Rotation::None);
    }

    #[test]
    fn what_was_kept_before_a_setting_existed_is_the_default() {
        assert_eq!(serde_json::from_str::<Security>("{}").expect("defaults"), Security::default());
        let keys = Keys::Url { url: Url::parse("https://one.example/jwks").expect("a URL"), guarded: true };
        let all = Security { method: Method::PrivateKeyJwt, keys: Some(keys), profile: Some(Profile::Fapi2), ..Security::default() };
        let text = serde_json::to_string(&all).expect("JSON");
        assert_eq!(serde_json::from_str::<Security>(&text).expect("it reads back"), all);
    }
}
