//! Forms as the endpoints read them: by content type, in parts as they arrive, and then by the rules of each endpoint.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::LazyLock;

use futures_util::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use p2pid::clock::Timestamp;
use p2pid::doors::form::{self, NoForm};
use p2pid::id::Id;
use p2pid::inbound::authorize;
use p2pid::inbound::ib_app::{GrantType, IbApp};
use p2pid::inbound::pushed;
use p2pid::inbound::security::Security;
use p2pid::oauth::client_auth::Method;
use p2pid::oauth::parameters::Parameters;
use p2pid::oauth::redirect_uri::RedirectUri;
use p2pid::oauth::resource::Audience;
use p2pid::oauth::token::{self, Kind};
use p2pid::secret::ExposeSecret;
use tokio::runtime::Runtime;
use url::Url;

use crate::{first_line, oauth};

const ISSUER: &str = "https://two.example:7443";
/// `[limits] form_bytes` here.
const MOST: usize = 2048;
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime"));

/// The first line is `Content-Type`, the second one `Content-Length` where it is not empty; what follows is the body, which arrives in parts as
/// long as its first byte says.
pub fn form(data: &[u8]) {
    let (kind, rest) = first_line(data);
    let (length, body) = first_line(rest);
    let (Ok(kind), Ok(length)) = (HeaderValue::from_bytes(kind), HeaderValue::from_bytes(length)) else { return };
    let part = usize::from(body.first().copied().unwrap_or(1)).max(1);
    let parts: Vec<_> = body.chunks(part).map(|part| Ok::<_, Infallible>(part.to_vec())).collect();
    let mut request = Request::post("/oauth/token").body(axum::body::Body::from_stream(stream::iter(parts))).expect("a request");
    request.headers_mut().insert(CONTENT_TYPE, kind.clone());
    if !length.is_empty() {
        request.headers_mut().insert(CONTENT_LENGTH, length.clone());
    }
    let whole = Parameters::read(body);
    match RUNTIME.block_on(form::read(request, MOST)) {
        Ok((head, read)) => {
            assert!(head.headers[CONTENT_TYPE] == kind && body.len() <= MOST);
            let named = String::from_utf8_lossy(kind.as_bytes()).to_ascii_lowercase();
            assert_eq!(named.split(';').next().map(str::trim), Some("application/x-www-form-urlencoded"));
            let whole = whole.expect("what is read in parts is read whole");
            assert!(read.pairs().eq(whole.pairs()));
            each_endpoint(&read);
        }
        Err(problem) => {
            let expected = match &problem {
                NoForm::TooLarge => {
                    let announced = length.to_str().ok().and_then(|text| text.parse::<usize>().ok());
                    assert!(body.len() > MOST || announced.is_some_and(|length| length > MOST), "{}", body.len());
                    StatusCode::PAYLOAD_TOO_LARGE
                }
                NoForm::Malformed(problem) => {
                    assert_eq!(whole.err(), Some(*problem));
                    StatusCode::BAD_REQUEST
                }
                NoForm::ContentType => StatusCode::BAD_REQUEST,
                NoForm::TooSlow | NoForm::Broken => panic!("all of it arrived: {problem}"),
            };
            assert_eq!(problem.status(), expected);
        }
    }
}

/// What the endpoints for tokens, introspection, revocation and pushed requests make of a form.
fn each_endpoint(form: &Parameters) {
    oauth::token_form(form);
    if form.each_once(&["token", "token_type_hint"]).is_ok()
        && let Ok(Some(token)) = form.the("token")
    {
        // At most one kind of ours; whatever else it is, nobody has it.
        let kinds = [Kind::Access, Kind::Refresh].into_iter().filter(|kind| token::digest_if(*kind, token).is_some());
        assert!(kinds.count() <= 1, "{token}");
    }
    let request = pushed::request_of(form, "one");
    let read = Parameters::read(request.expose_secret().as_bytes()).ok();
    // Escapes can make a parameter longer than is read, and the name one too many.
    let Some(read) = read else { return };
    assert_eq!(read.the("client_id"), Ok(Some("one")), "the client that authenticated is the one that asks");
    assert!(!["client_secret", "client_assertion", "client_assertion_type"].iter().any(|name| read.has(name)));
    let is_kept = |name: &str| read.pairs().filter(|pair| pair.0 == name).eq(form.pairs().filter(|pair| pair.0 == name));
    assert!(["redirect_uri", "state", "scope", "code_challenge", "nobody knows this"].into_iter().all(is_kept));
    asked(&read);
}

/// An authorization request, as a query.
pub fn authorization_request(data: &[u8]) {
    let Ok(query) = Parameters::read(data) else { return };
    match pushed::reference(&query) {
        Ok(Some(reference)) => {
            let named = query.the("request_uri").ok().flatten().expect("it is there once");
            assert_eq!(named, format!("{}{reference}", pushed::PREFIX));
        }
        Ok(None) => asked(&query),
        Err(_) => assert!(query.the("request_uri").is_err()),
    }
}

/// An app, with a redirect URI that has a query; and a native one, which has several.
static APPS: LazyLock<[IbApp; 2]> = LazyLock::new(|| {
    let app = |uris: &[&str], native, security| IbApp {
        id: Id::from_bytes([1; 16]),
        tenant: "default".to_owned(),
        name: "one".to_owned(),
        client_id: "one".to_owned(),
        redirect_uris: uris.iter().map(|uri| RedirectUri::register(uri).expect("a redirect URI")).collect(),
        grants: BTreeSet::from([GrantType::AuthorizationCode, GrantType::RefreshToken]),
        scope: "p2pi orders".parse().expect("a scope"),
        access_ttl: None,
        rotation: None,
        native,
        security,
        created_at: Timestamp::default(),
    };
    let native = Security { method: Method::None, pkce_optional: false, ..Security::default() };
    [
        app(&["https://one.example/cb?a=b"], false, Security { pkce_optional: true, ..Security::default() }),
        app(&["http://127.0.0.1:9000/cb", "https://one.example/"], true, native),
    ]
});

/// What becomes of an authorization request of each of the apps.
fn asked(parameters: &Parameters) {
    let audience = Audience::new(ISSUER, format!("{ISSUER}/p2pi"));
    for app in APPS.iter() {
        let Ok(destination) = authorize::destination(app, parameters) else { continue };
        assert!(app.redirect_uris.iter().any(|uri| uri.accepts(&destination.redirect_uri, app.native)), "{destination:?}");
        let state = parameters.the("state").ok().flatten();
        assert_eq!(destination.state.as_deref(), state);
        // The answer is read as it was meant, whatever the state, and goes nowhere else.
        let answer = authorize::answer_url(&destination, ISSUER, &[("code", "a code")]);
        let url = Url::parse(&answer).unwrap_or_else(|problem| panic!("{answer}: {problem}"));
        let registered = Url::parse(&destination.redirect_uri).expect("it is registered");
        assert!(url.origin() == registered.origin() && url.path() == registered.path() && url.fragment().is_none(), "{answer}");
        let read = |name: &str| url.query_pairs().filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect::<Vec<_>>();
        assert_eq!((read("code"), read("iss")), (vec!["a code".to_owned()], vec![ISSUER.to_owned()]), "{answer}");
        assert_eq!(read("state"), state.map(str::to_owned).into_iter().collect::<Vec<_>>(), "{answer}");
        match authorize::judge(app, parameters, destination.clone(), &audience) {
            Ok(request) => {
                assert!(request.scope.is_within(&app.scope) && request.destination == destination);
                assert!(request.challenge.is_some() || app.security.pkce_optional);
                assert!(!parameters.has("request") && !parameters.has("request_uri"));
                assert_eq!(parameters.the("response_type"), Ok(Some("code")));
            }
            Err(error) => oauth::is_sendable(&error),
        }
    }
}
