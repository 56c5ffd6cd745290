//! Permission to reach an application: a value that only [`permit`] makes, so that nothing can be forwarded unasked.

use http::Method;

use crate::clock::Timestamp;
use crate::id::Id;
use crate::oauth::scope::Scope;

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
    rule: RouteRule<'_>,
    method: &Method,
    overrides: impl IntoIterator<Item = &'h [u8]>,
    now: Timestamp,
) -> Result<Permit<'a>, Refusal> {
    if bearer.expires_at <= now {
        return Err(Refusal::Expired);
    }
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
    if !rule.scopes.is_within(&bearer.scope) {
        return Err(Refusal::Scope);
    }
    Ok(Permit { bearer })
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
        };
        let needed = scope("a b");
        let methods = [Method::GET];
        let rule = RouteRule { scopes: &needed, methods: Some(&methods), tenant: "default" };
        let judge = |bearer: &Bearer, method: Method, now: i64| permit(bearer, rule, &method, [], Timestamp::from_millis(now)).map(|_| ());

        assert_eq!(judge(&minimal, Method::GET, 999), Ok(()));
        assert_eq!(judge(&minimal, Method::GET, 1_000), Err(Refusal::Expired));
        assert_eq!(judge(&minimal, Method::POST, 999), Err(Refusal::Method));
        let asks = |rule, overrides: &[&[u8]]| {
            permit(&minimal, rule, &Method::GET, overrides.iter().copied(), Timestamp::from_millis(999)).map(|_| ())
        };
        assert_eq!(asks(rule, &[b"get", b" GET "]), Ok(()));
        for other in [&b"DELETE"[..], b"GET, DELETE", b""] {
            assert_eq!(asks(rule, &[b"GET", other]), Err(Refusal::Override), "{other:?}");
            assert_eq!(asks(RouteRule { methods: None, ..rule }, &[other]), Ok(()), "{other:?}");
        }
        assert_eq!(judge(&Bearer { tenant: "other".into(), ..minimal.clone() }, Method::GET, 999), Err(Refusal::OtherTenant));
        assert_eq!(judge(&Bearer { scope: scope("a"), ..minimal }, Method::GET, 999), Err(Refusal::Scope));
    }
}
