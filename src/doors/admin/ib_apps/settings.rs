//! What is given for an IB app, checked, and what an app becomes by it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::super::ob_apps::{in_outline, must_be_public};
use super::super::{AdminError, Caller};
use crate::config::Config;
use crate::inbound::contradiction::Said;
use crate::inbound::ib_app::{self, GrantType, IbApp};
use crate::inbound::security::{Keys, Profile, Security};
use crate::oauth::client_auth::Method;
use crate::oauth::client_certificate::Subject;
use crate::oauth::key::KeySet;
use crate::oauth::loopback::is_loopback;
use crate::oauth::redirect_uri::RedirectUri;
use crate::oauth::rotation::Rotation;
use crate::oauth::scope::Scope;
use crate::secret::{ExposeSecret, SecretString};

/// The longest life that an access token may be given: a year.
const LONGEST_LIFE: u64 = 366 * 24 * 60 * 60;

/// What may be given for an app that exists.
#[derive(Deserialize)]
pub(super) struct Given {
    peer_url: Option<String>,
    redirect_uris: Option<Vec<String>>,
    client_secret: Option<SecretString>,
    grants: Option<Vec<String>>,
    scopes: Option<Vec<String>>,
    access_ttl: Option<u64>,
    rotation: Option<Rotation>,
    native: Option<bool>,
    auth_method: Option<String>,
    jwks: Option<Value>,
    jwks_uri: Option<String>,
    dpop: Option<bool>,
    mtls: Option<bool>,
    tls_client_auth_subject_dn: Option<String>,
    tls_client_auth_san_dns: Option<String>,
    tls_client_auth_san_uri: Option<String>,
    tls_client_auth_san_ip: Option<String>,
    tls_client_auth_san_email: Option<String>,
    require_par: Option<bool>,
    pkce: Option<String>,
    profile: Option<String>,
    introspects: Option<Vec<String>>,
}

/// What may be given for a new app. The fields are those of [`Given`] once more: a document is checked against the names of one struct.
#[derive(Deserialize)]
pub(super) struct Create {
    pub(super) name: String,
    pub(super) client_id: Option<String>,
    #[serde(default)]
    pub(super) or_update: bool,
    peer_url: Option<String>,
    redirect_uris: Option<Vec<String>>,
    client_secret: Option<SecretString>,
    grants: Option<Vec<String>>,
    scopes: Option<Vec<String>>,
    access_ttl: Option<u64>,
    rotation: Option<Rotation>,
    native: Option<bool>,
    auth_method: Option<String>,
    jwks: Option<Value>,
    jwks_uri: Option<String>,
    dpop: Option<bool>,
    mtls: Option<bool>,
    tls_client_auth_subject_dn: Option<String>,
    tls_client_auth_san_dns: Option<String>,
    tls_client_auth_san_uri: Option<String>,
    tls_client_auth_san_ip: Option<String>,
    tls_client_auth_san_email: Option<String>,
    require_par: Option<bool>,
    pkce: Option<String>,
    profile: Option<String>,
    introspects: Option<Vec<String>>,
}

impl Create {
    /// What stays of it once its names are taken.
    pub(super) fn into_given(self) -> Given {
        Given {
            peer_url: self.peer_url,
            redirect_uris: self.redirect_uris,
            client_secret: self.client_secret,
            grants: self.grants,
            scopes: self.scopes,
            access_ttl: self.access_ttl,
            rotation: self.rotation,
            native: self.native,
            auth_method: self.auth_method,
            jwks: self.jwks,
            jwks_uri: self.jwks_uri,
            dpop: self.dpop,
            mtls: self.mtls,
            tls_client_auth_subject_dn: self.tls_client_auth_subject_dn,
            tls_client_auth_san_dns: self.tls_client_auth_san_dns,
            tls_client_auth_san_uri: self.tls_client_auth_san_uri,
            tls_client_auth_san_ip: self.tls_client_auth_san_ip,
            tls_client_auth_san_email: self.tls_client_auth_san_email,
            require_par: self.require_par,
            pkce: self.pkce,
            profile: self.profile,
            introspects: self.introspects,
        }
    }
}

/// What is given for an app, checked; what is not given stays as it is.
#[derive(Clone, Default)]
pub(super) struct Settings {
    redirect_uris: Option<Vec<RedirectUri>>,
    grants: Option<BTreeSet<GrantType>>,
    scope: Option<Scope>,
    access_ttl: Option<Duration>,
    rotation: Option<Rotation>,
    native: Option<bool>,
    security: GivenSecurity,
    pub(super) secret: Option<SecretString>,
}

impl Settings {
    pub(super) fn checked(given: Given, caller: &Caller, config: &Config, tenant: &str) -> Result<Self, AdminError> {
        let redirect_uris = match (given.peer_url.as_ref(), given.redirect_uris.as_ref()) {
            (None, None) => None,
            (peer_url, others) => {
                let callback = peer_url.map(|url| callback_of(url)).transpose()?;
                let others = others.into_iter().flatten().map(|text| redirect_uri(text));
                Some(callback.map(Ok).into_iter().chain(others).collect::<Result<_, _>>()?)
            }
        };
        Ok(Self {
            security: GivenSecurity::checked(&given, caller, config, tenant)?,
            redirect_uris,
            grants: given.grants.as_deref().map(grants).transpose()?,
            scope: given.scopes.as_deref().map(|words| scope(words, config, tenant)).transpose()?,
            access_ttl: given.access_ttl.map(access_ttl).transpose()?,
            rotation: given.rotation,
            native: given.native,
            secret: given.client_secret.map(secret).transpose()?,
        })
    }

    /// What is said here that the app does not tell once it is applied; `has_secret` where the app has one without this.
    pub(super) fn said(&self, has_secret: bool) -> Said {
        Said {
            is_new: false,
            has_secret: has_secret || self.secret.is_some(),
            rotation: self.rotation,
            dpop: self.security.dpop,
            require_par: self.security.require_par,
        }
    }

    /// Whether they say how the app logs in, or with what: whoever gives that can log in as the app.
    pub(super) const fn give_login(&self) -> bool {
        self.secret.is_some() || self.security.method.is_some() || self.security.keys.is_some() || self.security.subject.is_some()
    }

    /// Whether it is said what the app may ask for, be it nothing.
    pub(super) const fn says_scope(&self) -> bool {
        self.scope.is_some()
    }

    /// Whether it is said what the app may use.
    pub(super) const fn says_grants(&self) -> bool {
        self.grants.is_some()
    }

    /// The URL at which the app's keys are, where that is given.
    pub(super) const fn keys_at(&self) -> Option<&Keys> {
        match &self.security.keys {
            Some(keys @ Keys::Url { .. }) => Some(keys),
            Some(Keys::Inline(_)) | None => None,
        }
    }

    /// The redirect URIs that are given.
    pub(super) fn redirect_uris(&self) -> &[RedirectUri] {
        self.redirect_uris.as_deref().unwrap_or_default()
    }

    /// `app` with what is given.
    pub(super) fn applied_to(&self, mut app: IbApp) -> IbApp {
        if let Some(redirect_uris) = &self.redirect_uris {
            app.redirect_uris.clone_from(redirect_uris);
        }
        if let Some(grants) = &self.grants {
            app.grants.clone_from(grants);
        }
        if let Some(scope) = &self.scope {
            app.scope.clone_from(scope);
        }
        app.access_ttl = self.access_ttl.or(app.access_ttl);
        app.rotation = self.rotation.or(app.rotation);
        app.native = self.native.unwrap_or(app.native);
        app.security = self.security.applied_to(app.security);
        app
    }
}

/// How an app is secured, as far as that is given.
#[derive(Clone, Default)]
struct GivenSecurity {
    method: Option<Method>,
    keys: Option<Keys>,
    subject: Option<Subject>,
    dpop: Option<bool>,
    mtls: Option<bool>,
    require_par: Option<bool>,
    pkce_optional: Option<bool>,
    /// Inside: none takes it back.
    profile: Option<Option<Profile>>,
    introspects: Option<Scope>,
}

impl GivenSecurity {
    fn checked(given: &Given, caller: &Caller, config: &Config, tenant: &str) -> Result<Self, AdminError> {
        let keys = match (&given.jwks, &given.jwks_uri) {
            (None, None) => None,
            (Some(set), None) => Some(inline(set)?),
            (None, Some(url)) => Some(at_url(url, !caller.rules_instance())?),
            (Some(_), Some(_)) => {
                return Err(AdminError::bad_attribute("jwks", "keys and a URL of keys", "one or the other"));
            }
        };
        let method = given.auth_method.as_deref().map(method).transpose()?;
        let subject = subject(given)?;
        can_show_certificates(method, subject.is_some(), given.mtls == Some(true), config)?;
        Ok(Self {
            method,
            keys,
            subject,
            dpop: given.dpop,
            mtls: given.mtls,
            require_par: given.require_par,
            pkce_optional: given.pkce.as_deref().map(is_pkce_optional).transpose()?,
            profile: given.profile.as_deref().map(profile).transpose()?,
            introspects: given.introspects.as_deref().map(|words| introspects(words, config, tenant)).transpose()?,
        })
    }

    /// `security` with what is given. Keys or a name alone mean the method that they are for, and another method leaves none behind.
    fn applied_to(&self, mut security: Security) -> Security {
        if let Some(keys) = &self.keys {
            security.keys = Some(keys.clone());
            if !security.method.has_keys() {
                security.method = Method::PrivateKeyJwt;
                security.subject = None;
            }
        }
        if let Some(subject) = &self.subject {
            security.subject = Some(subject.clone());
            security.method = Method::TlsClientAuth;
            security.keys.clone_from(&self.keys);
        }
        if let Some(method) = self.method {
            security.method = method;
            if !method.has_keys() {
                security.keys.clone_from(&self.keys);
            }
            if method != Method::TlsClientAuth {
                security.subject.clone_from(&self.subject);
            }
        }
        security.dpop = self.dpop.unwrap_or(security.dpop);
        security.mtls = self.mtls.unwrap_or(security.mtls);
        security.require_par = self.require_par.unwrap_or(security.require_par);
        security.pkce_optional = self.pkce_optional.unwrap_or(security.pkce_optional);
        security.profile = self.profile.unwrap_or(security.profile);
        if let Some(introspects) = &self.introspects {
            security.introspects.clone_from(introspects);
        }
        security
    }
}

fn method(name: &str) -> Result<Method, AdminError> {
    let expected = || Method::ALL.map(Method::as_str).join(", ");
    Method::ALL.into_iter().find(|method| method.as_str() == name).ok_or_else(|| AdminError::bad_attribute("auth_method", name, expected()))
}

/// The name in a certificate, which is said in one way.
fn subject(given: &Given) -> Result<Option<Subject>, AdminError> {
    let values = [
        &given.tls_client_auth_subject_dn,
        &given.tls_client_auth_san_dns,
        &given.tls_client_auth_san_uri,
        &given.tls_client_auth_san_ip,
        &given.tls_client_auth_san_email,
    ];
    let mut said = Subject::NAMES.into_iter().zip(values).filter_map(|(name, value)| Some((name, value.as_deref()?)));
    match (said.next(), said.next()) {
        (None, _) => Ok(None),
        (Some((name, value)), None) => {
            Subject::register(name, value).map(Some).map_err(|expected| AdminError::bad_attribute(name, value, expected.to_string()))
        }
        (Some((one, _)), Some((other, _))) => Err(AdminError::bad_attribute(one, format!("{one} and {other}"), "one name")),
    }
}

/// What rests on certificates is for an instance that takes them.
fn can_show_certificates(method: Option<Method>, is_named: bool, is_bound: bool, config: &Config) -> Result<(), AdminError> {
    let needs_authority = is_named || method == Some(Method::TlsClientAuth);
    let is_by_certificate = method.is_some_and(Method::is_by_certificate);
    // The one of the three that was given.
    let at_fault = match (is_by_certificate, is_named) {
        (true, _) => "auth_method",
        (false, true) => "the name in a certificate",
        (false, false) => "mtls",
    };
    let wrong =
        |found: &str, next: &str| Err(AdminError::bad_attribute(at_fault, found, "clients whose certificates we can see").next(next));
    if (needs_authority || is_bound || is_by_certificate) && config.mtls.public_url.is_none() {
        return wrong("a client that shows a certificate, without [mtls] in the configuration", "set [mtls] listen and public_url");
    }
    if needs_authority && config.mtls.authorities.is_empty() {
        return wrong(
            "tls_client_auth, without an authority that signs for clients",
            "name it in [mtls] ca, or use self_signed_tls_client_auth",
        );
    }
    Ok(())
}

fn inline(set: &Value) -> Result<Keys, AdminError> {
    let read = KeySet::read(set.to_string().as_bytes());
    read.map(Keys::Inline)
        .map_err(|why| AdminError::bad_attribute("jwks", why.to_string(), "a JSON Web Key Set of public keys: {\"keys\":[…]}"))
}

fn at_url(text: &str, guarded: bool) -> Result<Keys, AdminError> {
    let wrong = || AdminError::bad_attribute("jwks_uri", text, "https://…, or http:// on a loopback address; no fragment");
    let url = Url::parse(text).map_err(|_| wrong())?;
    let is_safe = url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url);
    if !is_safe || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(wrong());
    }
    must_be_public("jwks_uri", &url, guarded)?;
    Ok(Keys::Url { url, guarded })
}

fn is_pkce_optional(text: &str) -> Result<bool, AdminError> {
    match text {
        "optional" => Ok(true),
        "required" => Ok(false),
        _ => Err(AdminError::bad_attribute("pkce", text, "required or optional")),
    }
}

fn profile(name: &str) -> Result<Option<Profile>, AdminError> {
    match name {
        "fapi2" => Ok(Some(Profile::Fapi2)),
        "none" => Ok(None),
        _ => Err(AdminError::bad_attribute("profile", name, "fapi2 or none")),
    }
}

/// Scopes that the app is a resource server for; the empty list, or one empty word, takes them back.
fn introspects(words: &[String], config: &Config, tenant: &str) -> Result<Scope, AdminError> {
    let words: Vec<&String> = words.iter().filter(|word| !word.is_empty()).collect();
    if let Some(unknown) = words.iter().find(|word| !config.scopes_of(tenant).any(|known| known == **word)) {
        return Err(unknown_scope("introspects", unknown, config, tenant));
    }
    Scope::from_words(&words).map_err(|why| AdminError::bad_attribute("introspects", format!("{words:?}"), why.to_string()))
}

/// Where a p2pid at `peer_url` expects its browsers back.
fn callback_of(peer_url: &str) -> Result<RedirectUri, AdminError> {
    let wrong =
        || AdminError::bad_attribute("peer_url", peer_url, "the peer's public_url: https://HOST[:PORT][/PATH], no query or fragment");
    let url = Url::parse(peer_url).map_err(|_| wrong())?;
    if !matches!(url.scheme(), "https" | "http") || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong());
    }
    if let Some(public_url) = peer_url.trim_end_matches('/').strip_suffix("/oauth/callback") {
        let error = AdminError::bad_attribute("peer_url", peer_url, "the peer's public_url, to which /oauth/callback is added here");
        return Err(error.next(format!("give {public_url}, or the whole of it as a redirect URI")));
    }
    RedirectUri::register(&format!("{}/oauth/callback", peer_url.trim_end_matches('/'))).map_err(|why| {
        AdminError::bad_attribute(
            "peer_url",
            format!("{peer_url:?}: {why}"),
            "the peer's public_url: https://…, or http:// on a loopback host",
        )
    })
}

pub(in crate::doors::admin) fn redirect_uri(text: &str) -> Result<RedirectUri, AdminError> {
    RedirectUri::register(text).map_err(|why| {
        AdminError::bad_attribute("redirect_uris", format!("{text:?}: {why}"), "https://…, or http:// on a loopback host; no fragment")
    })
}

fn grants(names: &[String]) -> Result<BTreeSet<GrantType>, AdminError> {
    let expected = GrantType::ALL.map(GrantType::as_str).join(", ");
    let known = |name: &String| GrantType::ALL.into_iter().find(|grant| grant.as_str() == name);
    let unknown = |name: &String| match (AdminError::bad_attribute("grants", name, &expected), name.as_str()) {
        (error, "password") => error.next("names and passwords are handed in by realms alone: p2pid realm create NAME"),
        (error, _) => error,
    };
    let grants = names.iter().map(|name| known(name).ok_or_else(|| unknown(name)));
    let grants = grants.collect::<Result<BTreeSet<_>, _>>()?;
    if grants.is_empty() { Err(AdminError::bad_attribute("grants", "none", expected)) } else { Ok(grants) }
}

/// There is no such scope in the tenant.
fn unknown_scope(attribute: &str, unknown: &str, config: &Config, tenant: &str) -> AdminError {
    let known = config.scopes_of(tenant).collect::<Vec<_>>().join(", ");
    match known.is_empty() {
        true => no_scopes(attribute, unknown, tenant),
        false => AdminError::bad_attribute(attribute, unknown, format!("those that [scopes] names: {known}")),
    }
}

/// The tenant has no scope at all.
pub(super) fn no_scopes(attribute: &str, found: &str, tenant: &str) -> AdminError {
    let error = AdminError::bad_attribute(attribute, found, "a scope of the tenant, of which [scopes] names none");
    error.next(format!("in [scopes]: NAME = {{ text = \"…\", tenant = \"{tenant}\" }}"))
}

/// What the app may ask for; the empty list, or one empty word, is nothing, which fits few.
fn scope(words: &[String], config: &Config, tenant: &str) -> Result<Scope, AdminError> {
    let words: Vec<&String> = words.iter().filter(|word| !word.is_empty()).collect();
    if let Some(unknown) = words.iter().find(|word| !config.scopes_of(tenant).any(|known| known == **word)) {
        return Err(unknown_scope("scopes", unknown, config, tenant));
    }
    Scope::from_words(&words).map_err(|why| AdminError::bad_attribute("scopes", format!("{words:?}"), why.to_string()))
}

pub(in crate::doors::admin) fn access_ttl(seconds: u64) -> Result<Duration, AdminError> {
    if (1..=LONGEST_LIFE).contains(&seconds) {
        Ok(Duration::from_secs(seconds))
    } else {
        Err(AdminError::bad_attribute("access_ttl", format!("{seconds} seconds"), "1 second to a year"))
    }
}

pub(in crate::doors::admin) fn secret(secret: SecretString) -> Result<SecretString, AdminError> {
    if ib_app::is_client_secret(secret.expose_secret()) {
        Ok(secret)
    } else {
        Err(AdminError::bad_attribute("client_secret", in_outline(secret.expose_secret()), "1 to 128 printable ASCII characters"))
    }
}
