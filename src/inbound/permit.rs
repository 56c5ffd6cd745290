//! Permission to reach an application: a value that only [`permit`] makes, so that nothing can be forwarded unasked.

use http::Method;

use crate::clock::Timestamp;
use crate::id::Id;
use crate::oauth::bearer::Scheme;
use crate::oauth::binding::Binding;
use crate::oauth::scope::Scope;
use crate::oauth::thumbprint::{CertificateThumbprint, KeyThumbprint};

/// What a live access token says of the call that presents it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// The grant that the token belongs to; none for client credentials.
    pub grant: Option<Id>,
    /// The IB app.
    pub app: Id,
    /// The IB app's `client_id`.
    pub client_id: String,
    /// The IB app's name.
    pub app_name: String,
    /// The IB app's tenant.
    pub tenant: String,
    /// Who allowed it.
    pub subject: String,
    /// What it allows.
    pub scope: Scope,
    /// From when on it is refused.
    pub expires_at: Timestamp,
    /// The key or certificate that each call must show.
    pub binding: Option<Binding>,
    /// The IB app's tokens must be bound by now; one that was issued before that may not be.
    pub must_be_bound: bool,
}

impl Bearer {
    /// Whether it is bound to nothing though the tokens of its app must be by now: whoever stole it could use it, so nobody may (RFC 9700
    /// §2.2.1, FAPI 2.0 §5.3.4).
    pub const fn lacks_binding(&self) -> bool {
        self.must_be_bound && self.binding.is_none()
    }
}

/// What a call shows besides its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The scheme that the token came with.
    pub scheme: Scheme,
    /// The key of its DPoP proof, one for this call and token, and used for the first time.
    pub key: Option<KeyThumbprint>,
    /// The certificate of its connection, whose key the caller holds, and which is valid now.
    pub certificate: Option<CertificateThumbprint>,
}

impl Holder {
    /// Whoever has the token.
    pub const ANYBODY: Self = Self { scheme: Scheme::Bearer, key: None, certificate: None };

    /// Whether that is what a token bound in that way asks for. A token that is bound to no key has no business under `DPoP`: its client believes
    /// it to be bound.
    fn check(self, binding: Option<Binding>) -> Result<(), Refusal> {
        match (binding, self.scheme) {
            (None, Scheme::Bearer) => Ok(()),
            (None | Some(Binding::Certificate(_)), Scheme::Dpop) => Err(Refusal::NotBound),
            (Some(Binding::Key(key)), Scheme::Dpop) if self.key == Some(key) => Ok(()),
            (Some(Binding::Key(_)), _) => Err(Refusal::OtherKey),
            (Some(Binding::Certificate(certificate)), Scheme::Bearer) if self.certificate == Some(certificate) => Ok(()),
            (Some(Binding::Certificate(_)), Scheme::Bearer) => Err(Refusal::OtherCertificate),
        }
    }
}

/// What a route demands.
#[derive(Clone, Copy, Debug)]
pub struct RouteRule<'a> {
    /// All of these are needed.
    pub scopes: &'a Scope,
    /// The methods that pass; `None` lets every method pass.
    pub methods: Option<&'a [Method]>,
    /// Only this tenant's peers reach the route.
    pub tenant: &'a str,
}

/// Why a call may not reach the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 401 `invalid_token`.
    #[error("the access token has expired")]
    Expired,
    /// 401 `invalid_token`, with a challenge for a proof.
    #[error("the access token is bound to a key: the call must come with the scheme DPoP and a proof by that key")]
    OtherKey,
    /// 401 `invalid_token`.
    #[error("the access token is bound to no key; its scheme is Bearer")]
    NotBound,
    /// 401 `invalid_token`.
    #[error(
        "the access token is bound to nothing, and this client's tokens must be bound by now; a refresh that shows a key or certificate gives one that is"
    )]
    Unbound,
    /// 401 `invalid_token`.
    #[error("the access token is bound to a client certificate: the call must come with that one, while it is valid")]
    OtherCertificate,
    /// 404 `no_route`: another tenant's route answers like a missing one.
    #[error("no such route")]
    OtherTenant,
    /// 405 `method_not_allowed`.
    #[error("the route does not take this method")]
    Method,
    /// 405 `method_not_allowed` too: a header asks the application to take the call for another method.
    #[error("a header such as X-HTTP-Method-Override names a method that the route does not take")]
    Override,
    /// 403 `insufficient_scope`.
    #[error("the access token lacks a scope of the route")]
    Scope,
}

/// The permission to forward one call for one bearer.
#[derive(Debug)]
pub struct Permit<'a> {
    bearer: &'a Bearer,
}

impl<'a> Permit<'a> {
    /// Who calls.
    pub fn bearer(&self) -> &'a Bearer {
        self.bearer
    }
}

/// Whether the bearer of a token may call a route with `method` at `now`. That the token is not revoked is the token table's word.
///
/// `overrides` are what headers ask the application to take the method for; they pass where the route takes every method or takes them too.
pub fn permit<'a, 'h>(
    bearer: &'a Bearer,
    holder: Holder,
    rule: RouteRule<'_>,
    method: &Method,
    overrides: impl IntoIterator<Item = &'h [u8]>,
    now: Timestamp,
) -> Result<Permit<'a>, Refusal> {
    if bearer.expires_at <= now {
        return Err(Refusal::Expired);
    }
    if bearer.lacks_binding() {
        return Err(Refusal::Unbound);
    }
    holder.check(bearer.binding)?;
    if bearer.tenant != rule.tenant {
        return Err(Refusal::OtherTenant);
    }
    if let Some(methods) = rule.methods {
        if !methods.contains(method) {
            return Err(Refusal::Method);
        }
        let is_taken = |name: &[u8]| methods.iter().any(|method| method.as_str().as_bytes().eq_ignore_ascii_case(name));
        if !overrides.into_iter().all(|name| is_taken(name.trim_ascii())) {
            return Err(Refusal::Override);
        }
    }
    if !opens(rule.scopes, &bearer.scope) {
        return Err(Refusal::Scope);
    }
    Ok(Permit { bearer })
}

/// Whether `scope` opens a route that asks for `needed`. A token without a scope is a resource server's own, with which it looks at those of
/// others; it opens no route, not even one that asks for none.
pub fn opens(needed: &Scope, scope: &Scope) -> bool {
    !scope.is_empty() && needed.is_within(scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g3_a_permit_needs_life_tenant_method_and_every_scope() {
        let scope = |text: &str| text.parse::<Scope>().expect("a scope");
        let minimal = Bearer {
            grant: None,
            app: Id::from_bytes([1; 16]),
            client_id: "client".into(),
            app_name: "one".into(),
            tenant: "default".into(),
            subject: "ops@one.example".into(),
            scope: scope("a b"),
            expires_at: Timestamp::from_millis(1_000),
            binding: None,
            must_be_bound: false,
        };
        let needed = scope("a b");
        let methods = [Method::GET];
        let rule = RouteRule { scopes: &needed, methods: Some(&methods), tenant: "default" };
        let judge = |bearer: &Bearer, method: Method, now: i64| {
            permit(bearer, Holder::ANYBODY, rule, &method, [], Timestamp::from_millis(now)).map(|_| ())
        };

        assert_eq!(judge(&minimal, Method::GET, 999), Ok(()));
        assert_eq!(judge(&minimal, Method::GET, 1_000), Err(Refusal::Expired));
        assert_eq!(judge(&minimal, Method::POST, 999), Err(Refusal::Method));
        let asks = |rule, overrides: &[&[u8]]| {
            permit(&minimal, Holder::ANYBODY, rule, &Method::GET, overrides.iter().copied(), Timestamp::from_millis(999)).map(|_| ())
        };
        assert_eq!(asks(rule, &[b"get", b" GET "]), Ok(()));
        for other in [&b"DELETE"[..], b"GET, DELETE", b""] {
            assert_eq!(asks(rule, &[b"GET", other]), Err(Refusal::Override), "{other:?}");
            assert_eq!(asks(RouteRule { methods: None, ..rule }, &[other]), Ok(()), "{other:?}");
        }
        assert_eq!(judge(&Bearer { tenant: "other".into(), ..minimal.clone() }, Method::GET, 999), Err(Refusal::OtherTenant));
        assert_eq!(judge(&Bearer { scope: scope("a"), ..minimal.clone() }, Method::GET, 999), Err(Refusal::Scope));
        let key = KeyThumbprint::of_canonical("key");
        for (must_be_bound, binding, expected) in
            [(true, None, Err(Refusal::Unbound)), (true, Some(Binding::Key(key)), Err(Refusal::OtherKey)), (false, None, Ok(()))]
        {
            let bearer = Bearer { binding, must_be_bound, ..minimal.clone() };
            assert_eq!(judge(&bearer, Method::GET, 999), expected, "{must_be_bound} {binding:?}");
        }
        let open = RouteRule { scopes: &Scope::default(), ..rule };
        let on_open = |bearer: &Bearer| permit(bearer, Holder::ANYBODY, open, &Method::GET, [], Timestamp::from_millis(999)).map(|_| ());
        assert_eq!(on_open(&minimal), Ok(()));
        assert_eq!(on_open(&Bearer { scope: Scope::default(), ..minimal }), Err(Refusal::Scope));
    }

    #[test]
    fn g6_a_token_needs_what_it_is_bound_to() {
        let (key, other) = (KeyThumbprint::of_canonical("key"), KeyThumbprint::of_canonical("other"));
        let shows = |scheme, key| Holder { scheme, key, certificate: None };
        for (binding, holder, expected) in [
            (None, Holder::ANYBODY, Ok(())),
            (None, shows(Scheme::Bearer, Some(key)), Ok(())),
            (None, shows(Scheme::Dpop, Some(key)), Err(Refusal::NotBound)),
            (Some(Binding::Key(key)), shows(Scheme::Dpop, Some(key)), Ok(())),
            (Some(Binding::Key(key)), shows(Scheme::Dpop, Some(other)), Err(Refusal::OtherKey)),
            (Some(Binding::Key(key)), shows(Scheme::Dpop, None), Err(Refusal::OtherKey)),
            (Some(Binding::Key(key)), shows(Scheme::Bearer, Some(key)), Err(Refusal::OtherKey)),
            (Some(Binding::Key(key)), Holder::ANYBODY, Err(Refusal::OtherKey)),
        ] {
            assert_eq!(holder.check(binding), expected, "{binding:?} {holder:?}");
        }
    }

    #[test]
    fn g7_a_token_needs_the_certificate_that_it_is_bound_to() {
        let (own, other) = (CertificateThumbprint::of_der(b"own"), CertificateThumbprint::of_der(b"other"));
        let key = KeyThumbprint::of_canonical("own");
        let shows = |certificate| Holder { certificate, ..Holder::ANYBODY };
        let bound = Some(Binding::Certificate(own));
        for (binding, holder, expected) in [
            (bound, shows(Some(own)), Ok(())),
            (bound, shows(Some(other)), Err(Refusal::OtherCertificate)),
            (bound, shows(None), Err(Refusal::OtherCertificate)),
            (bound, Holder { key: Some(key), ..shows(None) }, Err(Refusal::OtherCertificate)),
            (bound, Holder { scheme: Scheme::Dpop, ..shows(Some(own)) }, Err(Refusal::NotBound)),
            (Some(Binding::Key(key)), shows(Some(own)), Err(Refusal::OtherKey)),
            (None, shows(Some(own)), Ok(())),
        ] {
            assert_eq!(holder.check(binding), expected, "{binding:?} {holder:?}");
        }
    }
}
