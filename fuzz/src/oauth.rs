//! Readers of the RFCs' vocabulary.

use std::sync::LazyLock;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use p2pid::clock::Timestamp;
use p2pid::oauth::assertion::{self, Assertion};
use p2pid::oauth::bearer::{self, NotPresented};
use p2pid::oauth::client_auth::{self, Presented, Way};
use p2pid::oauth::dpop;
use p2pid::oauth::error::{Code, WireError};
use p2pid::oauth::jws::{AHEAD, Unverified};
use p2pid::oauth::key::{ALGORITHMS, KeySet, PublicKey};
use p2pid::oauth::parameters::{Malformed, Parameters};
use p2pid::oauth::redirect_uri::RedirectUri;
use p2pid::oauth::scope::Scope;
use p2pid::oauth::signing_key::SigningKey;
use p2pid::oauth::token_request::TokenRequest;
use p2pid::secret::ExposeSecret;
use serde_json::Value;
use url::Url;

use crate::first_line;

const NOW: i64 = 1_000_000;
const ISSUER: &str = "https://two.example:7443";
/// Signs what its targets read, so that they come past the signature.
static KEY: LazyLock<SigningKey> = LazyLock::new(SigningKey::generate_ed25519);

fn now() -> Timestamp {
    Timestamp::from_millis(NOW * 1000)
}

/// An error has only the characters that `error_description` allows (RFC 6749 §5.2).
pub(crate) fn is_sendable(error: &WireError) {
    assert!(error.description().bytes().all(|byte| matches!(byte, 0x20 | 0x21 | 0x23..=0x5b | 0x5d..=0x7e)), "{error}");
    serde_json::from_str::<Value>(&error.to_json()).expect("JSON");
}

/// A form, and the token request in it.
pub fn token_request(data: &[u8]) {
    let Ok(form) = Parameters::read(data) else { return };
    let pairs: Vec<(&str, &str)> = form.pairs().collect();
    assert!(pairs.len() <= 64);
    // A lenient reader reads the same of what the strict one takes.
    let others: Vec<_> = form_urlencoded::parse(data).collect();
    assert!(others.iter().map(|(name, value)| (&**name, &**value)).eq(pairs.iter().copied()), "{others:?} {pairs:?}");
    let written = form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
    match Parameters::read(written.as_bytes()) {
        Ok(again) => assert!(again.pairs().eq(form.pairs())),
        // Escapes can make a parameter longer than is read.
        Err(problem) => assert_eq!(problem, Malformed::TooLong),
    }
    token_form(&form);
}

/// The token request in a form.
pub(crate) fn token_form(form: &Parameters) {
    let is_once = |name: &str| form.pairs().filter(|(found, value)| *found == name && !value.is_empty()).count() == 1;
    match TokenRequest::read(form, &[]) {
        Ok(TokenRequest::Code(request)) => assert!(is_once("code") && !request.code.expose_secret().is_empty()),
        Ok(TokenRequest::Refresh(request)) => assert!(is_once("refresh_token") && !request.token.expose_secret().is_empty()),
        Ok(TokenRequest::ClientCredentials(_)) => assert!(is_once("grant_type")),
        Err(error) => is_sendable(&error),
    }
}

/// The first line is `Authorization`, none when it is empty; what follows is the form.
pub fn client_auth(data: &[u8]) {
    let (header, form) = first_line(data);
    let mut headers = HeaderMap::new();
    if !header.is_empty() {
        let Ok(value) = HeaderValue::from_bytes(header) else { return };
        headers.insert(AUTHORIZATION, value);
    }
    let Ok(form) = Parameters::read(form) else { return };
    let has = |name: &str| form.the(name).is_ok_and(|value| value.is_some());
    match client_auth::presented(&headers, &form) {
        Ok(Presented::Secret { readings, way }) => {
            assert!((1..=2).contains(&readings.len()));
            assert!(readings.iter().all(|reading| !reading.client_id.is_empty() && !reading.secret.expose_secret().is_empty()));
            match way {
                Way::Basic => assert!(!header.is_empty() && !has("client_secret")),
                Way::Post => assert!(header.is_empty() && has("client_secret") && readings.len() == 1),
            }
            if let Ok(Some(named)) = form.the("client_id") {
                assert!(readings.iter().any(|reading| reading.client_id == named));
            }
        }
        Ok(Presented::Assertion(assertion)) => {
            assert!(header.is_empty() && !has("client_secret") && has("client_assertion"));
            assert!(form.the("client_id").is_ok_and(|named| named.is_none_or(|named| named == assertion.client_id())));
        }
        Ok(Presented::Name(name)) => {
            assert!(header.is_empty() && !has("client_secret") && !has("client_assertion") && !name.is_empty());
        }
        Err(error) => {
            is_sendable(&error);
            assert!(matches!(error.code, Code::InvalidRequest | Code::InvalidClient));
        }
    }
}

/// The first line is the query, the others are `Authorization` headers.
pub fn bearer(data: &[u8]) {
    let (query, lines) = first_line(data);
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let Ok(value) = HeaderValue::from_bytes(line) else { return };
        headers.append(AUTHORIZATION, value);
    }
    let Ok(query) = std::str::from_utf8(query) else { return };
    match bearer::presented(&headers, Some(query)) {
        Ok((token, _)) => {
            assert_eq!(headers.len(), 1);
            let body = token.trim_end_matches('=');
            assert!(!body.is_empty() && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte)), "{token}");
            assert!(!form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "access_token"));
        }
        Err(NotPresented::Twice | NotPresented::Malformed) => assert!(!headers.is_empty()),
        Err(NotPresented::Nothing) => {}
    }
}

/// The first line is registered, the second one is what a request names.
pub fn redirect_uri(data: &[u8]) {
    let (registered, named) = first_line(data);
    let (Ok(registered), Ok(named)) = (std::str::from_utf8(registered), std::str::from_utf8(named)) else { return };
    let Ok(uri) = RedirectUri::register(registered) else { return };
    assert!(uri.accepts(registered, false) && uri.accepts(registered, true));
    assert_eq!(uri.accepts(named, false), named == registered);
    let ours = uri.url();
    assert!(ours.fragment().is_none() && ours.username().is_empty() && ours.password().is_none());
    assert!(matches!(ours.scheme(), "https" | "http") && ours.has_host());
    if uri.accepts(named, true) && named != registered {
        // The port is all that may differ, also to who parses.
        let mut theirs = Url::parse(named).unwrap_or_else(|problem| panic!("{named} is accepted: {problem}"));
        assert_eq!(theirs.scheme(), "http");
        theirs.set_port(ours.port()).expect("http has ports");
        assert_eq!(theirs.as_str(), ours.as_str());
    }
}

/// A scope.
pub fn scope(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let is_token = |word: &str| !word.is_empty() && word.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
    let is_one = text.is_empty() || text.split(' ').all(is_token);
    let parsed = text.parse::<Scope>();
    assert_eq!(parsed.is_ok(), is_one, "{text:?}");
    let Ok(scope) = parsed else { return };
    assert_eq!(scope.to_string().parse().as_ref(), Ok(&scope));
    assert!(text.split(' ').all(|word| word.is_empty() || scope.contains(word)));
    let json = serde_json::to_string(&scope).expect("a scope is JSON");
    assert_eq!(serde_json::from_str::<Scope>(&json).expect("read as written"), scope);
    assert!(scope.is_within(&scope) && scope.intersection(&scope) == scope);
}

/// A signed text as it came; and the same bytes as header (first line) and claims of one that is signed.
pub fn jws(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(unverified) = Unverified::read(text) {
        assert_eq!(text.matches('.').count(), 2);
        assert!(ALGORITHMS.contains(&unverified.algorithm.as_str()));
        assert!(unverified.verify([KEY.public()].into_iter()).is_err(), "nobody else signs with our key: {text}");
    }
    let (header, claims) = text.split_once('\n').unwrap_or((text, ""));
    let signed = KEY.sign(header, claims);
    if let Ok(unverified) = Unverified::read(&signed) {
        let is_object = |text: &str| serde_json::from_str::<serde_json::Map<String, Value>>(text).is_ok();
        assert!(is_object(header) && is_object(claims));
        let verified = unverified.verify([KEY.public()].into_iter());
        assert_eq!(verified.is_ok(), unverified.algorithm == KEY.public().algorithm());
        // Whatever stands before the signature is signed.
        let other = signed.replacen('.', "A.", 1);
        assert!(Unverified::read(&other).map_or(true, |other| other.verify([KEY.public()].into_iter()).is_err()));
    }
}

/// A JSON Web Key Set.
pub fn key(data: &[u8]) {
    let Ok(set) = KeySet::read(data) else { return };
    assert!((1..=50).contains(&set.keys().len()));
    for key in set.keys() {
        let written = key.to_jwk();
        let read = PublicKey::from_jwk(&written).expect("what we write we read");
        assert!(read == *key, "{written}");
        assert_eq!(p2pid::oauth::thumbprint::KeyThumbprint::from_text(&key.thumbprint().to_string()), Some(key.thumbprint()));
        let bare: Value = serde_json::from_str(&key.to_bare_jwk()).expect("JSON");
        assert_eq!(PublicKey::from_jwk(&bare).map(|bare| bare.thumbprint()), Ok(key.thumbprint()));
        assert!(!key.verifies(b"a message", &data[..data.len().min(64)]));
    }
}

/// The first line is the header of a client's assertion, ours when it is empty; what follows are its claims.
pub fn assertion(data: &[u8]) {
    static KEYS: LazyLock<KeySet> =
        LazyLock::new(|| KeySet::read(serde_json::json!({ "keys": [KEY.public().to_jwk()] }).to_string().as_bytes()).expect("a set"));
    let (header, claims) = first_line(data);
    let (Ok(header), Ok(claims)) = (std::str::from_utf8(header), std::str::from_utf8(claims)) else { return };
    let text = KEY.sign(if header.is_empty() { r#"{"alg":"EdDSA"}"# } else { header }, claims);
    let Ok(read) = Assertion::read(&text) else { return };
    let Ok(asserted) = read.signed_by(&KEYS).and_then(|signed| signed.judge(ISSUER, now())) else { return };
    let longest = assertion::LONGEST + Duration::from_secs(AHEAD.unsigned_abs());
    assert!(now() < asserted.expires_at && asserted.expires_at <= now().plus(longest));
    let claims: Value = serde_json::from_str(claims).expect("JSON");
    assert!(claims["iss"] == claims["sub"] && claims["sub"].is_string() && claims["aud"] == ISSUER);
}

/// The first line is the header of a DPoP proof, one with its key when it is empty; what follows are its claims.
pub fn dpop(data: &[u8]) {
    static URL: LazyLock<Url> = LazyLock::new(|| Url::parse("https://two.example:7443/p2pi/orders%2Fnew").expect("a URL"));
    static HEADER: LazyLock<String> = LazyLock::new(|| dpop::header_of(KEY.public()));
    let (header, claims) = first_line(data);
    let (Ok(header), Ok(claims)) = (std::str::from_utf8(header), std::str::from_utf8(claims)) else { return };
    let text = KEY.sign(if header.is_empty() { &HEADER } else { header }, claims);
    let Ok(value) = HeaderValue::from_str(&text) else { return };
    let headers = HeaderMap::from_iter([(dpop::HEADER, value)]);
    let request = dpop::Request { method: "POST", urls: std::slice::from_ref(&URL), token: Some("token") };
    let Ok(Some(proof)) = dpop::presented(&headers, &request, now()) else { return };
    assert_eq!(proof.key, KEY.public().thumbprint());
    let claims: Value = serde_json::from_str(claims).expect("JSON");
    assert!(claims["htm"] == "POST" && claims["ath"] == dpop::token_hash("token").as_str());
    let named = Url::parse(claims["htu"].as_str().expect("a text")).expect("a URL");
    assert!(named.origin() == URL.origin() && named.username().is_empty());
    let decode = |url: &Url| percent_encoding::percent_decode_str(url.path()).collect::<Vec<u8>>();
    assert_eq!(decode(&named), decode(&URL));
    assert_eq!(named.path_segments().map(Iterator::count), URL.path_segments().map(Iterator::count));
}
