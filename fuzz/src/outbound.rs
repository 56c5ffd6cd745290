//! Readers of what peers and their authorization servers answer.

use std::sync::{Arc, LazyLock};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use p2pid::clock::Timestamp;
use p2pid::id::Id;
use p2pid::oauth::parameters::Parameters;
use p2pid::oauth::signing_key::SigningKey;
use p2pid::oauth::visible::is_hidden;
use p2pid::oauth::{challenge, dpop};
use p2pid::outbound::answer::{self, Answer};
use p2pid::outbound::callback::{self, Arrival, Next};
use p2pid::outbound::client::{self, Authentication, CallFailure, Client, Proof, Transport};
use p2pid::outbound::exchange::Ask;
use p2pid::outbound::handshake::{self, Handshake, Sent, Stage};
use p2pid::outbound::metadata::{self, Metadata};
use p2pid::outbound::plan;
use p2pid::outbound::revocation::{self, Delivery};
use p2pid::outbound::vouching;
use p2pid::secret::{Digest, ExposeSecret, SecretString};
use url::Url;

use crate::{first_line, headers};

const ISSUER: &str = "https://two.example:7443/issuer";
const REDIRECT_URI: &str = "https://one.example/link/callback";
static ENDPOINT: LazyLock<Url> = LazyLock::new(|| Url::parse("https://two.example:7443/oauth/token").expect("a URL"));
static KEY: LazyLock<Arc<SigningKey>> = LazyLock::new(|| Arc::new(SigningKey::generate_ed25519()));

/// A text of a peer's as it is shown.
fn is_shown(text: &str) -> bool {
    text.chars().count() <= 500 && !text.chars().any(is_hidden)
}

/// The document of an authorization server, and that of a protected resource.
pub fn server_metadata(data: &[u8]) {
    match metadata::judge(ISSUER, data) {
        Ok(found) => {
            let origin = Url::parse(ISSUER).expect("a URL").origin();
            let endpoints =
                [&found.authorization_endpoint, &found.introspection_endpoint, &found.revocation_endpoint].into_iter().flatten();
            for endpoint in endpoints.chain([&found.token_endpoint]) {
                assert!(endpoint.scheme() == "https" || p2pid::oauth::loopback::is_loopback(endpoint), "{endpoint}");
                assert!(endpoint.username().is_empty() && endpoint.fragment().is_none(), "{endpoint}");
            }
            let calls = found.p2pi_endpoint.as_ref().and_then(metadata::CallEndpoint::on_origin);
            assert!(calls.is_none_or(|url| url.origin() == origin), "tokens stay on the issuer's origin");
            let stored = serde_json::to_string(&found).expect("JSON");
            assert_eq!(serde_json::from_str::<Metadata>(&stored).expect("read as stored"), found);
        }
        Err(problem) => assert!(is_shown(&problem.to_string()), "{problem}"),
    }
    if let Err(problem) = metadata::judge_resource(ISSUER, data) {
        assert!(is_shown(&problem.to_string()), "{problem}");
    }
}

/// Answers what it holds, and knows no time.
struct Said(fn() -> Timestamp, std::sync::Mutex<Option<Response<Vec<u8>>>>);

impl Transport for Said {
    fn call(&self, _: Request<Vec<u8>>) -> BoxFuture<'_, Result<Response<Vec<u8>>, CallFailure>> {
        let answer = self.1.lock().expect("nothing panics while it is held").take();
        async { answer.ok_or_else(|| CallFailure::NotSent("asked twice".to_owned())) }.boxed()
    }

    fn time_there(&self) -> Timestamp {
        (self.0)()
    }

    fn identifier(&self) -> String {
        "once".to_owned()
    }

    fn set_time_there(&self, _: Timestamp) -> bool {
        false
    }

    fn nonce(&self) -> Option<String> {
        None
    }

    fn keep_nonce(&self, headers: &HeaderMap) {
        // What is read of it is read here as well, and forgotten.
        let _ = headers.get(dpop::NONCE_HEADER).map(|nonce| nonce.to_str());
    }
}

/// The first line is the status, then lines `name:value`, an empty line, and the body of a token endpoint's answer.
pub fn token_answer(data: &[u8]) {
    let (status, rest) = first_line(data);
    let end = rest.windows(2).position(|window| window == b"\n\n");
    let (head, body) = end.map_or((&[][..], rest), |end| (&rest[..end], &rest[end + 2..]));
    let Some(head) = headers(head) else { return };
    let Ok(mut response) = Response::builder().status(status).body(body.to_vec()) else { return };
    *response.headers_mut() = head;
    // A server that wants a nonce is asked again; it has said all that it has.
    let is_required = body.len() % 2 == 1;
    let transport = Said(Timestamp::default, std::sync::Mutex::new(Some(response)));
    let client = Client {
        client_id: "one".to_owned(),
        authentication: Authentication::Nothing,
        token_endpoint: ENDPOINT.clone(),
        proof: Some(Proof { key: Arc::clone(&KEY), is_required }),
    };
    let token = SecretString::from("a refresh token");
    let reply = client.ask(Ask::Refresh(&token), &transport).now_or_never().expect("nothing is waited for");
    let is_a_success = matches!(status, [b'2', _, _]);
    match &reply.answer {
        Answer::Granted(granted) => {
            assert!(is_a_success && granted.life <= plan::LONGEST_LIFE);
            assert!(granted.access.expose_secret().bytes().all(|byte| byte.is_ascii_graphic()));
            assert!(granted.key.is_some() || !is_required, "a token that has to be bound is");
            assert!(answer::authorization(&granted.access, granted.key.is_some()).is_sensitive());
            assert!(granted.refresh.as_ref().is_none_or(|token| !token.expose_secret().is_empty()));
            assert!(granted.subject.as_deref().is_none_or(is_shown));
        }
        Answer::Refused { code, description } => assert!(is_shown(code) && is_shown(description), "{code} {description}"),
        Answer::Unusable { what, refresh } => assert!(is_a_success && is_shown(what) && !refresh.expose_secret().is_empty(), "{what}"),
        Answer::Unexpected(what) => assert!(is_shown(what), "{what}"),
        Answer::Inconclusive { what, .. } => assert!(is_shown(what), "{what}"),
        Answer::NotSent(_) => {}
    }
    if matches!(status, [b'5', _, _]) {
        assert!(matches!(reply.answer, Answer::Inconclusive { .. }), "a failing server may have done it");
    }
}

/// The query with which a browser arrives back at us.
pub fn callback(data: &[u8]) {
    let Ok(query) = Parameters::read(data) else { return };
    if query.each_once(&["code", "state", "iss", "error", "error_description"]).is_err() {
        return;
    }
    let value = |name: &str| query.the(name).ok().flatten().map(str::to_owned);
    let handshake = Handshake {
        id: Id::from_bytes([1; 16]),
        peer: Id::from_bytes([2; 16]),
        ticket: Digest::of("ticket"),
        browser: Digest::of("browser"),
        state: Digest::of("state"),
        sent: Sent {
            issuer: Some(ISSUER.to_owned()),
            iss_promised: true,
            token_endpoint: ENDPOINT.clone(),
            redirect_uri: REDIRECT_URI.to_owned(),
            scope: "p2pi".to_owned(),
        },
        expires_at: Timestamp::from_millis(1_000),
        stage: Stage::Pressed { verifier: SecretString::from("verifier"), key: None },
    };
    let arrival = Arrival {
        redirect_uri: REDIRECT_URI.to_owned(),
        browser: Some(Digest::of("browser")),
        code: value("code").map(SecretString::from),
        error: value("error"),
        error_description: value("error_description"),
        iss: value("iss"),
    };
    let judgement = callback::judge(Some(handshake), arrival, Timestamp::default());
    assert!(judgement.stage.is_some(), "the right browser's answer is the only one");
    match judgement.next {
        Next::Exchange(exchange) => {
            assert_eq!((value("iss").as_deref(), value("error")), (Some(ISSUER), None));
            assert!(exchange.token_endpoint == *ENDPOINT && exchange.code.expose_secret().is_ascii());
        }
        Next::Declined(words) => assert!(words.as_deref().is_none_or(is_shown)),
        Next::PeerRefused(words) => assert!(is_shown(&words), "{words}"),
        Next::Refused(_) => {}
    }
}

/// The first line is the status, and what follows the body of an answer: of an endpoint for pushed requests, and of one that revokes.
pub fn endpoint_answer(data: &[u8]) {
    let (status, body) = first_line(data);
    let Ok(status) = StatusCode::from_bytes(status) else { return };
    match handshake::reference("app", true, status, body) {
        Ok(reference) => {
            assert!(status.is_success() && (1..=4096).contains(&reference.len()) && reference.bytes().all(|byte| byte.is_ascii_graphic()));
            let url = handshake::pushed_url(&ENDPOINT, "one", &reference);
            assert!(url.origin() == ENDPOINT.origin() && url.path() == ENDPOINT.path(), "{url}");
            assert!(url.query_pairs().eq([("client_id".into(), "one".into()), ("request_uri".into(), reference.as_str().into())]), "{url}");
        }
        // Two texts of the server's, and some words of ours.
        Err(why) => assert!(why.chars().count() <= 1_200 && !why.chars().any(is_hidden), "{why}"),
    }
    match revocation::judge(status, body) {
        Delivery::Confirmed => assert!(status.is_success()),
        Delivery::Impossible => assert_eq!(status, StatusCode::BAD_REQUEST),
        Delivery::Waiting(why) => assert!(!status.is_success() && is_shown(&why), "{why}"),
    }
}

/// The first line is the status, and what follows the body of an answer of an introspection endpoint.
pub fn introspection_answer(data: &[u8]) {
    let (status, body) = first_line(data);
    let Ok(status) = StatusCode::from_bytes(status) else { return };
    match vouching::is_active(status, body) {
        Ok(active) => {
            assert_eq!(status, StatusCode::OK);
            let document: serde_json::Value = serde_json::from_slice(body).expect("JSON");
            assert_eq!(document["active"], active);
            assert!(vouching::is_active(StatusCode::CREATED, body).is_err() && !body.is_empty());
        }
        Err(why) => assert!(is_shown(&why), "{why}"),
    }
}

/// The body of a refusal.
pub fn token_refusal(data: &[u8]) {
    let error = client::error_of(data);
    let document = serde_json::from_slice::<serde_json::Value>(data).ok();
    assert_eq!(error.as_deref(), document.as_ref().and_then(|document| document["error"].as_str()));
    let refusal = Response::builder().status(400).header(CONTENT_TYPE, "application/json").body(data.to_vec()).expect("a response");
    let transport = Said(Timestamp::default, std::sync::Mutex::new(Some(refusal)));
    let client =
        Client { client_id: "one".to_owned(), authentication: Authentication::Nothing, token_endpoint: ENDPOINT.clone(), proof: None };
    let token = SecretString::from("a refresh token");
    let answer = client.ask(Ask::Refresh(&token), &transport).now_or_never().expect("nothing is waited for").answer;
    // Whoever reads the refusal of a token reads the same error. That reader takes a little more for JSON than JSON is, and lists for objects.
    match &answer {
        Answer::Refused { .. } if !document.is_some_and(|document| document.is_object()) => {}
        Answer::Refused { code, .. } => assert_eq!(error.as_deref().map(answer::printable).as_ref(), Some(code)),
        Answer::Unexpected(_) | Answer::Inconclusive { .. } => {}
        other => panic!("400, and {other:?}"),
    }
}

/// The value of a challenge.
pub fn challenge(data: &[u8]) {
    const ERROR: &str = "use_dpop_nonce";
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let mut headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, value.clone())]);
    if challenge::names_error(&headers, ERROR) {
        // It may have been written with escapes.
        let plain: Vec<u8> = data.iter().copied().filter(|byte| *byte != b'\\').collect();
        assert!(plain.windows(ERROR.len()).any(|window| window == ERROR.as_bytes()), "{value:?}");
    }
    // Inside of quotes it is a text and no more.
    let escaped: Vec<u8> = data.iter().flat_map(|byte| [b'\\', *byte]).collect();
    let quoted =
        HeaderValue::from_bytes(&[b"DPoP realm=\"", escaped.as_slice(), b"\""].concat()).expect("each of its bytes was one of a header");
    assert!(!challenge::names_error(&HeaderMap::from_iter([(WWW_AUTHENTICATE, quoted)]), ERROR), "{value:?}");
    headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("DPoP error=\"use_dpop_nonce\""));
    assert!(challenge::names_error(&headers, ERROR), "whatever stands in another header: {value:?}");
}
