//! The authorization request (RFC 6749 §4.1.1, RFC 7636, RFC 9207): whom the answer may go to, then an ordered table of checks.
//!
//! What cannot be trusted is a page: an unknown client, or a redirect URI that it has not registered. Everything else is an answer to the
//! client, in the query of its redirect URI, and only after somebody has logged in (RFC 9700 §4.11.2).

use super::ib_app::{GrantType, IbApp};
use crate::oauth::error::{Code, WireError};
use crate::oauth::parameters::{Doubled, Parameters};
use crate::oauth::pkce::{self, Challenge};
use crate::oauth::resource::Audience;
use crate::oauth::scope::Scope;
use crate::oauth::thumbprint::KeyThumbprint;

/// Where the answer goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The redirect URI, one that the app registered.
    pub redirect_uri: String,
    /// `state`, byte-exact; none when it is absent or doubled.
    pub state: Option<String>,
    /// The request named the redirect URI; else it is the only one that the app has.
    pub is_named: bool,
}

/// Why an answer may go nowhere: a page with status 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// `client_id` is missing or doubled.
    #[error("the request does not say once which application asks (client_id)")]
    NoClient,
    /// No app has this `client_id`.
    #[error("no application is registered here under this client_id")]
    UnknownClient,
    /// `redirect_uri` is doubled, or missing where the app has registered several.
    #[error("the request does not say once where the answer goes (redirect_uri)")]
    NoRedirectUri,
    /// The app has not registered this redirect URI.
    #[error("the application has not registered this redirect_uri")]
    UnknownRedirectUri,
}

/// An authorization request that may be shown to somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where the answer goes.
    pub destination: Destination,
    /// What is asked.
    pub scope: Scope,
    /// What the code will be bound to; none only for an app of which PKCE is not asked.
    pub challenge: Option<Challenge>,
    /// The DPoP key that the code will be bound to (RFC 9449 §10).
    pub dpop_key: Option<KeyThumbprint>,
}

/// The `client_id` of a request.
pub fn client_id(parameters: &Parameters) -> Result<&str, Untrusted> {
    parameters.the("client_id").ok().flatten().ok_or(Untrusted::NoClient)
}

/// Where the answer to `app`'s request goes.
pub fn destination(app: &IbApp, parameters: &Parameters) -> Result<Destination, Untrusted> {
    let named = parameters.the("redirect_uri").map_err(|_| Untrusted::NoRedirectUri)?;
    let redirect_uri = match (named, app.redirect_uris.as_slice()) {
        (Some(named), registered) if registered.iter().any(|uri| uri.accepts(named, app.native)) => named.to_owned(),
        (Some(_), _) => return Err(Untrusted::UnknownRedirectUri),
        (None, [only]) => only.as_str().to_owned(),
        (None, _) => return Err(Untrusted::NoRedirectUri),
    };
    let state = parameters.the("state").ok().flatten().map(str::to_owned);
    Ok(Destination { redirect_uri, state, is_named: named.is_some() })
}

/// The parameters that are looked at here.
const KNOWN: [&str; 9] = [
    "client_id",
    "redirect_uri",
    "state",
    "response_type",
    "response_mode",
    "scope",
    "code_challenge",
    "code_challenge_method",
    "dpop_jkt",
];

/// What is checked, in this order; the first that fails is the answer.
#[expect(clippy::type_complexity, reason = "a table of functions is what it is; another name would only hide what each takes")]
const CHECKS: [fn(&IbApp, &Parameters) -> Result<(), WireError>; 9] = [
    each_parameter_comes_once,
    no_request_object,
    response_type_is_code,
    response_mode_is_query,
    app_may_use_codes,
    redirect_uri_is_named_where_it_must_be,
    challenge_is_s256,
    dpop_key_is_one,
    scope_is_within_the_apps,
];

/// Judges a request, handed in by its app or carried by the browser of somebody who has logged in, at an instance that is `audience`.
pub fn judge(app: &IbApp, parameters: &Parameters, destination: Destination, audience: &Audience) -> Result<Request, WireError> {
    CHECKS.iter().try_for_each(|check| check(app, parameters))?;
    audience.check(parameters)?;
    Ok(Request { destination, scope: scope(app, parameters)?, challenge: challenge(parameters)?, dpop_key: dpop_key(parameters)? })
}

/// The URL that takes an answer to the client: `answer` in the query, with `state` and `iss`.
pub fn answer_url(destination: &Destination, issuer: &str, answer: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(answer);
    if let Some(state) = &destination.state {
        query.append_pair("state", state);
    }
    query.append_pair("iss", issuer);
    let separator = match destination.redirect_uri.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    format!("{}{separator}{}", destination.redirect_uri, query.finish())
}

fn each_parameter_comes_once(_: &IbApp, parameters: &Parameters) -> Result<(), WireError> {
    parameters.each_once(&KNOWN).map_err(doubled)
}

/// Parameters in a request object would bypass these checks.
fn no_request_object(_: &IbApp, parameters: &Parameters) -> Result<(), WireError> {
    if parameters.has("request") {
        return Err(WireError::new(Code::RequestNotSupported, "request objects are not served"));
    }
    if parameters.has("request_uri") {
        return Err(WireError::new(Code::RequestUriNotSupported, "request objects are not served"));
    }
    Ok(())
}

fn response_type_is_code(_: &IbApp, parameters: &Parameters) -> Result<(), WireError> {
    match the(parameters, "response_type")? {
        Some("code") => Ok(()),
        Some(_) => Err(WireError::new(Code::UnsupportedResponseType, "the response type here is code")),
        None => Err(WireError::new(Code::InvalidRequest, "the parameter response_type is missing")),
    }
}

fn response_mode_is_query(_: &IbApp, parameters: &Parameters) -> Result<(), WireError> {
    match the(parameters, "response_mode")? {
        None | Some("query") => Ok(()),
        Some(_) => Err(WireError::new(Code::InvalidRequest, "the response mode here is query")),
    }
}

fn app_may_use_codes(app: &IbApp, _: &Parameters) -> Result<(), WireError> {
    if app.may_use(GrantType::AuthorizationCode) {
        return Ok(());
    }
    Err(WireError::new(Code::UnauthorizedClient, "the application may not use the grant authorization_code"))
}

fn redirect_uri_is_named_where_it_must_be(app: &IbApp, parameters: &Parameters) -> Result<(), WireError> {
    if app.security.needs_redirect_uri() && the(parameters, "redirect_uri")?.is_none() {
        return Err(WireError::new(Code::InvalidRequest, "the parameter redirect_uri is missing"));
    }
    Ok(())
}

/// PKCE is required of every client, unless its registration says otherwise: it also ties the code to the browser that asked (RFC 9700 §2.1.1).
fn challenge_is_s256(app: &IbApp, parameters: &Parameters) -> Result<(), WireError> {
    match the(parameters, "code_challenge_method")? {
        Some(pkce::METHOD) if the(parameters, "code_challenge")?.is_some() => challenge(parameters).map(drop),
        Some(pkce::METHOD) => Err(WireError::new(Code::InvalidRequest, "the parameter code_challenge is missing")),
        Some(_) => Err(WireError::new(Code::InvalidRequest, "the code_challenge_method here is S256")),
        None if app.security.pkce_optional && the(parameters, "code_challenge")?.is_none() => Ok(()),
        // Absent it would mean "plain" (RFC 7636 §4.3).
        None => Err(WireError::new(Code::InvalidRequest, "code_challenge with code_challenge_method S256 is required")),
    }
}

fn scope_is_within_the_apps(app: &IbApp, parameters: &Parameters) -> Result<(), WireError> {
    scope(app, parameters).map(drop)
}

fn dpop_key_is_one(_: &IbApp, parameters: &Parameters) -> Result<(), WireError> {
    dpop_key(parameters).map(drop)
}

fn challenge(parameters: &Parameters) -> Result<Option<Challenge>, WireError> {
    let challenge = the(parameters, "code_challenge")?.map(str::parse).transpose();
    challenge.map_err(|error: pkce::NotAChallenge| WireError::new(Code::InvalidRequest, error.to_string()))
}

fn dpop_key(parameters: &Parameters) -> Result<Option<KeyThumbprint>, WireError> {
    let Some(text) = the(parameters, "dpop_jkt")? else { return Ok(None) };
    let wrong = || WireError::new(Code::InvalidRequest, "dpop_jkt is not the SHA-256 thumbprint of a key in base64url");
    KeyThumbprint::from_text(text).map(Some).ok_or_else(wrong)
}

/// What is asked; a request without scope asks for all that the app may have.
fn scope(app: &IbApp, parameters: &Parameters) -> Result<Scope, WireError> {
    let Some(text) = the(parameters, "scope")? else { return Ok(app.scope.clone()) };
    let scope: Scope =
        text.parse().map_err(|error: crate::oauth::scope::NotAScope| WireError::new(Code::InvalidScope, error.to_string()))?;
    if scope.is_within(&app.scope) {
        return Ok(scope);
    }
    Err(WireError::new(Code::InvalidScope, "the application is not registered for every scope that it asks for"))
}

fn the<'a>(parameters: &'a Parameters, name: &str) -> Result<Option<&'a str>, WireError> {
    parameters.the(name).map_err(doubled)
}

fn doubled(error: Doubled) -> WireError {
    WireError::new(Code::InvalidRequest, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::Id;
    use crate::oauth::redirect_uri::RedirectUri;

    const CALLBACK: &str = "https://one.example/oauth/callback";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    fn app() -> IbApp {
        IbApp {
            id: Id::from_bytes([1; 16]),
            tenant: "default".into(),
            name: "one".into(),
            client_id: "client".into(),
            redirect_uris: vec![RedirectUri::register(CALLBACK).expect("registrable")],
            grants: GrantType::OF_A_LINK.into(),
            scope: "a b".parse().expect("a scope"),
            access_ttl: None,
            rotation: None,
            native: false,
            security: crate::inbound::security::Security::default(),
            created_at: Timestamp::default(),
        }
    }

    const MINIMAL: [(&str, &str); 4] =
        [("client_id", "client"), ("response_type", "code"), ("code_challenge", CHALLENGE), ("code_challenge_method", "S256")];

    /// The minimal request with `changes`: a name that is there already is replaced, an empty value takes it out, `+name` adds another one.
    fn parameters(changes: &[(&str, &str)]) -> Parameters {
        let mut pairs: Vec<(&str, &str)> = MINIMAL.to_vec();
        for (name, value) in changes {
            match name.strip_prefix('+') {
                Some(name) => pairs.push((name, value)),
                None => {
                    pairs.retain(|(found, _)| found != name);
                    pairs.push((name, value));
                }
            }
        }
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        Parameters::read(query.as_bytes()).expect("well formed")
    }

    fn judged(app: &IbApp, changes: &[(&str, &str)]) -> Result<Request, Code> {
        let parameters = parameters(changes);
        let destination = destination(app, &parameters).expect("it is trusted");
        let audience = Audience::new("https://two.example", "https://two.example/p2pi".to_owned());
        judge(app, &parameters, destination, &audience).map_err(|error| error.code)
    }

    #[test]
    fn a_minimal_request_asks_for_all_that_the_app_may_have() {
        let request = judged(&app(), &[]).expect("accepted");
        assert_eq!(request.destination, Destination { redirect_uri: CALLBACK.into(), state: None, is_named: false });
        assert_eq!((request.scope, request.challenge.as_ref().map(Challenge::as_str)), (app().scope, Some(CHALLENGE)));
        let request = judged(&app(), &[("redirect_uri", CALLBACK), ("scope", "a"), ("state", "x y"), ("unknown", "1"), ("+unknown", "2")])
            .expect("accepted");
        assert_eq!((request.scope.to_string(), request.destination.state.as_deref()), ("a".into(), Some("x y")));
    }

    #[test]
    fn a2_what_cannot_be_trusted_is_a_page() {
        assert_eq!(client_id(&parameters(&[("client_id", "")])), Err(Untrusted::NoClient));
        assert_eq!(client_id(&parameters(&[("+client_id", "client")])), Err(Untrusted::NoClient));
        let two = IbApp {
            redirect_uris: vec![app().redirect_uris[0].clone(), RedirectUri::register("https://one.example/other").expect("registrable")],
            ..app()
        };
        let none = IbApp { redirect_uris: Vec::new(), ..app() };
        for (app, changes, expected) in [
            (&app(), vec![("redirect_uri", "https://evil.example/")], Untrusted::UnknownRedirectUri),
            (&app(), vec![("redirect_uri", "https://one.example/oauth/callback/")], Untrusted::UnknownRedirectUri),
            (&app(), vec![("redirect_uri", CALLBACK), ("+redirect_uri", CALLBACK)], Untrusted::NoRedirectUri),
            (&two, vec![], Untrusted::NoRedirectUri),
            (&none, vec![], Untrusted::NoRedirectUri),
            (&none, vec![("redirect_uri", CALLBACK)], Untrusted::UnknownRedirectUri),
        ] {
            assert_eq!(destination(app, &parameters(&changes)), Err(expected), "{changes:?}");
        }
    }

    #[test]
    fn a4_a5_a6_t10_one_thing_changed_is_one_refusal() {
        for (changes, expected) in [
            (vec![("response_type", "")], Code::InvalidRequest),
            (vec![("response_type", "token")], Code::UnsupportedResponseType),
            (vec![("response_type", "code token")], Code::UnsupportedResponseType),
            (vec![("response_type", "Code")], Code::UnsupportedResponseType),
            (vec![("response_mode", "fragment")], Code::InvalidRequest),
            (vec![("code_challenge", "")], Code::InvalidRequest),
            (vec![("code_challenge", "short")], Code::InvalidRequest),
            (vec![("code_challenge_method", "")], Code::InvalidRequest),
            (vec![("code_challenge_method", "plain")], Code::InvalidRequest),
            (vec![("code_challenge_method", "s256")], Code::InvalidRequest),
            (vec![("+response_type", "code")], Code::InvalidRequest),
            (vec![("state", "1"), ("+state", "2")], Code::InvalidRequest),
            (vec![("resource", "https://other.example")], Code::InvalidTarget),
            (vec![("dpop_jkt", "short")], Code::InvalidRequest),
            (vec![("dpop_jkt", CHALLENGE), ("+dpop_jkt", CHALLENGE)], Code::InvalidRequest),
            (vec![("scope", "a c")], Code::InvalidScope),
            (vec![("scope", "a  b")], Code::InvalidScope),
            (vec![("request", "x")], Code::RequestNotSupported),
            (vec![("request_uri", "https://x")], Code::RequestUriNotSupported),
        ] {
            assert_eq!(judged(&app(), &changes), Err(expected), "{changes:?}");
        }
        let without_codes = IbApp { grants: [GrantType::RefreshToken].into(), ..app() };
        assert_eq!(judged(&without_codes, &[]), Err(Code::UnauthorizedClient));
    }

    #[test]
    fn a5_only_an_app_registered_so_may_leave_pkce_out_and_then_as_a_whole() {
        let security = crate::inbound::security::Security { pkce_optional: true, ..Default::default() };
        let lenient = IbApp { security, ..app() };
        let without = [("code_challenge", ""), ("code_challenge_method", "")];
        assert_eq!(judged(&lenient, &without).expect("accepted").challenge, None);
        assert!(judged(&lenient, &[]).expect("accepted").challenge.is_some());
        for half in [&without[..1], &without[1..]] {
            assert_eq!(judged(&lenient, half), Err(Code::InvalidRequest), "{half:?}");
        }
    }

    #[test]
    fn a1_by_the_fapi2_profile_a_request_names_its_redirect_uri() {
        let security = crate::inbound::security::Security { profile: Some(crate::inbound::security::Profile::Fapi2), ..Default::default() };
        let strict = IbApp { security, ..app() };
        assert_eq!(judged(&strict, &[]), Err(Code::InvalidRequest));
        assert!(judged(&strict, &[("redirect_uri", CALLBACK)]).is_ok());
    }

    #[test]
    fn g6_a_request_may_name_the_key_that_its_code_is_bound_to() {
        let request = judged(&app(), &[("dpop_jkt", CHALLENGE)]).expect("accepted");
        assert_eq!(request.dpop_key.map(|key| key.to_string()).as_deref(), Some(CHALLENGE));
    }

    #[test]
    fn a7_state_and_issuer_stand_in_every_answer() {
        let destination = |redirect_uri: &str, state: Option<&str>| Destination {
            redirect_uri: redirect_uri.to_owned(),
            state: state.map(str::to_owned),
            is_named: true,
        };
        let issuer = "https://two.example:7443";
        for (destination, answer, expected) in [
            (
                destination("https://one/cb", Some("a b&=ä")),
                ("code", "c"),
                "https://one/cb?code=c&state=a+b%26%3D%C3%A4&iss=https%3A%2F%2Ftwo.example%3A7443",
            ),
            (
                destination("https://one/cb?x=1", None),
                ("error", "access_denied"),
                "https://one/cb?x=1&error=access_denied&iss=https%3A%2F%2Ftwo.example%3A7443",
            ),
            (destination("https://one/cb?", None), ("code", "c"), "https://one/cb?code=c&iss=https%3A%2F%2Ftwo.example%3A7443"),
        ] {
            assert_eq!(answer_url(&destination, issuer, &[answer]), expected);
        }
    }
}
