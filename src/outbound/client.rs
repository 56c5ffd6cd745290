//! Who we are at an authorization server, and how each request to it shows that: by a secret, or by an assertion that is signed for that one
//! request (RFC 7523 §2.2).

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE};
use http::{HeaderMap, HeaderValue, Request, Response};
use url::Url;

use super::keys::Keys;
use super::metadata::Metadata;
use super::ob_app::{Dpop, ObApp, Server};
use crate::clock::Timestamp;
use crate::oauth::assertion;
use crate::oauth::client_auth::Method;
use crate::oauth::dpop;
use crate::oauth::signing_key::SigningKey;
use crate::secret::{ExposeSecret, SecretString};

/// A clock that turned out to be off by more was the reason why something signed was refused.
pub const OFF: Duration = Duration::from_secs(10);

/// Sends one request and reads one small answer, without following redirects; and knows of the server what something signed for it needs.
pub trait Transport: Send + Sync {
    /// Sends `request`.
    fn call(&self, request: Request<Vec<u8>>) -> BoxFuture<'_, Result<Response<Vec<u8>>, CallFailure>>;

    /// What the server's clock says now, as far as it is known.
    fn time_there(&self) -> Timestamp;

    /// A text that was never used before.
    fn identifier(&self) -> String;

    /// The nonce that the server last handed out for proofs.
    fn nonce(&self) -> Option<String>;

    /// Takes the nonce that an answer hands out, if it does.
    fn keep_nonce(&self, headers: &HeaderMap);

    /// From here on the server's clock is taken to have said `time` now; whether it is, for nobody follows a clock anywhere.
    fn set_time_there(&self, time: Timestamp) -> bool;
}

/// No answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// Nothing can have left this host.
    #[error("{0}")]
    NotSent(String),
    /// The request, or part of it, may have arrived.
    #[error("{0}")]
    Inconclusive(String),
}

/// Who asks, and where.
#[derive(Clone, Debug)]
pub struct Client {
    /// Our name there.
    pub client_id: String,
    /// What proves it.
    pub authentication: Authentication,
    /// The endpoint.
    pub token_endpoint: Url,
    /// What our requests prove that we hold, where tokens are to be bound to it.
    pub proof: Option<Proof>,
}

/// How tokens are asked for that are bound to a key (RFC 9449 §5).
#[derive(Clone, Debug)]
pub struct Proof {
    /// The key.
    pub key: Arc<SigningKey>,
    /// A token that is not bound to it is refused.
    pub is_required: bool,
}

/// How a client shows who it is.
#[derive(Clone, Debug)]
pub enum Authentication {
    /// By its name alone.
    Nothing,
    /// By a secret in `Authorization: Basic`.
    Basic(SecretString),
    /// By a secret in the form.
    Form(SecretString),
    /// By assertions (`private_key_jwt`).
    Assertion {
        /// What signs them.
        keys: Keys,
        /// Whom they are for: the issuer, or the token endpoint of a server that names none.
        audience: String,
    },
}

impl Authentication {
    /// What `app` was told to do; else what goes with what it has at the server with that metadata: its secret, or its key where the server
    /// takes keys.
    pub fn of(app: &ObApp, token_endpoint: &Url, metadata: Option<&Metadata>) -> Self {
        let offers =
            |method: Method| metadata.is_some_and(|metadata| metadata.auth_methods.iter().any(|offered| offered == method.as_str()));
        let method = app.auth_method.unwrap_or_else(|| match &app.client_secret {
            Some(_) if offers(Method::ClientSecretPost) && !offers(Method::ClientSecretBasic) => Method::ClientSecretPost,
            Some(_) => Method::ClientSecretBasic,
            None if offers(Method::PrivateKeyJwt) => Method::PrivateKeyJwt,
            None => Method::None,
        });
        match (method, &app.client_secret, &app.keys) {
            (Method::ClientSecretPost, Some(secret), _) => Self::Form(secret.clone()),
            (Method::ClientSecret | Method::ClientSecretBasic, Some(secret), _) => Self::Basic(secret.clone()),
            (Method::PrivateKeyJwt, _, Some(keys)) => {
                let audience = match &app.server {
                    Server::Issuer(issuer) => issuer.clone(),
                    Server::Endpoints { .. } => token_endpoint.to_string(),
                };
                Self::Assertion { keys: keys.clone(), audience }
            }
            _ => Self::Nothing,
        }
    }
}

impl Authentication {
    /// As it is registered.
    pub const fn method(&self) -> Method {
        match self {
            Self::Nothing => Method::None,
            Self::Basic(_) => Method::ClientSecretBasic,
            Self::Form(_) => Method::ClientSecretPost,
            Self::Assertion { .. } => Method::PrivateKeyJwt,
        }
    }
}

impl Client {
    /// The client that `app` is at the server with that metadata, or at the endpoints that an operator named.
    pub fn new(app: &ObApp, token_endpoint: &Url, metadata: Option<&Metadata>) -> Self {
        Self {
            client_id: app.client_id.clone(),
            authentication: Authentication::of(app, token_endpoint, metadata),
            token_endpoint: token_endpoint.clone(),
            proof: None,
        }
    }

    /// The same client, whose requests prove that it holds `key`, if there is one.
    pub fn proving(self, app: &ObApp, key: Option<&Arc<SigningKey>>) -> Self {
        let is_required = app.dpop == Dpop::Require;
        Self { proof: key.map(|key| Proof { key: Arc::clone(key), is_required }), ..self }
    }

    /// A request with `form` for one of the server's endpoints. What shows who we are for this one request is added by [`Client::send`].
    pub fn request(&self, endpoint: &Url, form: &[(&str, &str)]) -> Request<Vec<u8>> {
        let mut body = form_urlencoded::Serializer::new(String::new());
        // Our name stands there once, by the way that we authenticate.
        let is_named = |(name, _): &(&str, &str)| *name == "client_id";
        body.extend_pairs(form.iter().filter(|pair| !is_named(pair) || matches!(self.authentication, Authentication::Basic(_))));
        let mut request =
            Request::post(endpoint.as_str()).header(ACCEPT, "application/json").header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        match &self.authentication {
            Authentication::Basic(secret) => request = request.header(AUTHORIZATION, basic_form_encoded(&self.client_id, secret)),
            Authentication::Form(secret) => {
                body.append_pair("client_id", &self.client_id).append_pair("client_secret", secret.expose_secret());
            }
            Authentication::Nothing | Authentication::Assertion { .. } => {
                body.append_pair("client_id", &self.client_id);
            }
        }
        request.body(body.finish().into_bytes()).expect("a checked URL and fixed headers make a request")
    }

    /// A request about `token` for the introspection or revocation endpoint (RFC 7662 §2.1, RFC 7009 §2.1).
    pub fn about_token(&self, endpoint: &Url, token: &SecretString, hint: &str) -> Request<Vec<u8>> {
        self.request(endpoint, &[("token", token.expose_secret()), ("token_type_hint", hint)])
    }

    /// Sends a request, signed where we sign. One that the server refuses before it did anything is sent once more: with the nonce that it
    /// asks for (RFC 9449 §8), and by its clock where that, by its answer, is another than was thought. A clock that does not help is not
    /// believed, for it may be another's that stands between.
    pub async fn send(&self, request: Request<Vec<u8>>, transport: &dyn Transport) -> Result<Response<Vec<u8>>, CallFailure> {
        let response = self.send_with_nonce(&request, transport).await?;
        let thought = transport.time_there();
        let said = date(response.headers()).filter(|said| thought.since(*said).max(said.since(thought)) > OFF);
        match said {
            Some(said) if self.signs() && is_refused_signature(&response) && transport.set_time_there(said) => {
                let again = self.send_with_nonce(&request, transport).await?;
                if is_refused_signature(&again) {
                    transport.set_time_there(thought);
                }
                Ok(again)
            }
            _ => Ok(response),
        }
    }

    async fn send_with_nonce(&self, request: &Request<Vec<u8>>, transport: &dyn Transport) -> Result<Response<Vec<u8>>, CallFailure> {
        let nonce = transport.nonce();
        let response = transport.call(self.signed(request, transport)).await?;
        transport.keep_nonce(response.headers());
        if self.proof.is_none() || refused_by(&response).as_deref() != Some("use_dpop_nonce") || transport.nonce() == nonce {
            return Ok(response);
        }
        let response = transport.call(self.signed(request, transport)).await?;
        transport.keep_nonce(response.headers());
        Ok(response)
    }

    const fn signs(&self) -> bool {
        matches!(self.authentication, Authentication::Assertion { .. }) || self.proof.is_some()
    }

    fn signed(&self, request: &Request<Vec<u8>>, transport: &dyn Transport) -> Request<Vec<u8>> {
        let mut request = request.clone();
        if let Authentication::Assertion { keys, audience } = &self.authentication {
            let time = transport.time_there();
            let assertion = assertion::made(keys.in_force(time), &self.client_id, audience, time, &transport.identifier());
            let pairs = [("client_assertion_type", assertion::TYPE), ("client_assertion", assertion.expose_secret())];
            let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
            let body = request.body_mut();
            if !body.is_empty() {
                body.push(b'&');
            }
            body.extend_from_slice(form.as_bytes());
        }
        if let Some(Proof { key, .. }) = &self.proof {
            let (uri, nonce, identifier) = (request.uri().to_string(), transport.nonce(), transport.identifier());
            let occasion = dpop::Occasion {
                method: request.method().as_str(),
                url: uri.split('?').next().unwrap_or_default(),
                at: transport.time_there(),
                identifier: &identifier,
                nonce: nonce.as_deref(),
            };
            let proof = dpop::Prover::new(key, None).prove(&occasion);
            request.headers_mut().insert(dpop::HEADER, proof);
        }
        request
    }
}

/// Whether an answer refuses what was signed; a clock that is off is one reason for it.
fn is_refused_signature(response: &Response<Vec<u8>>) -> bool {
    refused_by(response).is_some_and(|error| matches!(error.as_str(), "invalid_client" | "invalid_dpop_proof"))
}

/// The error that an answer refuses a request with.
fn refused_by(response: &Response<Vec<u8>>) -> Option<String> {
    response.status().is_client_error().then(|| error_of(response.body())).flatten()
}

/// The `error` of an OAuth error document (RFC 6749 §5.2), as it was sent.
pub fn error_of(body: &[u8]) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(body).ok()?;
    document.get("error")?.as_str().map(str::to_owned)
}

/// `Basic` with both halves form-encoded (RFC 6749 §2.3.1), marked as secret.
fn basic_form_encoded(name: &str, secret: &SecretString) -> HeaderValue {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    basic(&encoded(name), &encoded(secret.expose_secret()))
}

/// `Basic` (RFC 7617 §2), marked as secret.
pub fn basic(name: &str, password: &str) -> HeaderValue {
    use base64::Engine;
    let credentials = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
    let mut value = HeaderValue::try_from(format!("Basic {credentials}")).expect("base64 is visible ASCII");
    value.set_sensitive(true);
    value
}

/// The peer's wall clock when it answered (RFC 9110 §6.6.1).
pub fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let time = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok().map(Timestamp::from_millis)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::oauth::assertion::Assertion;
    use crate::oauth::key::KeySet;
    use crate::outbound::peer::examples;

    /// Gives one answer after the other, the last one for ever, and keeps what it was asked. Our clock says 1000 s.
    pub(in crate::outbound) struct Scripted {
        answers: Mutex<Vec<Result<Response<Vec<u8>>, CallFailure>>>,
        pub(in crate::outbound) asked: Mutex<Vec<Request<Vec<u8>>>>,
        ahead: AtomicI64,
        nonce: Mutex<Option<String>>,
    }

    impl Scripted {
        pub(in crate::outbound) fn new(mut answers: Vec<Result<Response<Vec<u8>>, CallFailure>>) -> Self {
            answers.reverse();
            Self { answers: Mutex::new(answers), asked: Mutex::default(), ahead: AtomicI64::new(0), nonce: Mutex::default() }
        }

        fn forms(&self) -> Vec<BTreeMap<String, String>> {
            let asked = self.asked.lock().expect("unpoisoned");
            asked.iter().map(|request| form_urlencoded::parse(request.body()).into_owned().collect()).collect()
        }
    }

    impl Transport for Scripted {
        fn call(&self, request: Request<Vec<u8>>) -> BoxFuture<'_, Result<Response<Vec<u8>>, CallFailure>> {
            self.asked.lock().expect("unpoisoned").push(request);
            let mut answers = self.answers.lock().expect("unpoisoned");
            let answer = if answers.len() > 1 { answers.pop() } else { answers.first().cloned() };
            Box::pin(std::future::ready(answer.expect("an answer is left")))
        }

        fn time_there(&self) -> Timestamp {
            Timestamp::from_millis(1_000_000 + self.ahead.load(Ordering::Relaxed))
        }

        fn identifier(&self) -> String {
            format!("number-{}", self.asked.lock().expect("unpoisoned").len())
        }

        fn nonce(&self) -> Option<String> {
            self.nonce.lock().expect("unpoisoned").clone()
        }

        fn keep_nonce(&self, headers: &HeaderMap) {
            if let Some(nonce) = headers.get("dpop-nonce") {
                *self.nonce.lock().expect("unpoisoned") = nonce.to_str().ok().map(str::to_owned);
            }
        }

        fn set_time_there(&self, time: Timestamp) -> bool {
            let is_near = time.millis().abs_diff(1_000_000) < 1_000_000_000;
            if is_near {
                self.ahead.store(time.millis() - 1_000_000, Ordering::Relaxed);
            }
            is_near
        }
    }

    pub(in crate::outbound) fn response(status: u16, headers: &[(&str, &str)], body: &str) -> Result<Response<Vec<u8>>, CallFailure> {
        let mut builder = Response::builder().status(status);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        Ok(builder.body(body.as_bytes().to_vec()).expect("a response"))
    }

    fn endpoint() -> Url {
        Url::parse("https://two.example.com/oauth/token").expect("a URL")
    }

    fn metadata(methods: &[&str]) -> Metadata {
        Metadata {
            auth_methods: methods.iter().map(|method| (*method).to_owned()).collect(),
            ..crate::outbound::metadata::tests::metadata()
        }
    }

    fn keyed() -> ObApp {
        ObApp { client_secret: None, keys: Some(Keys::new(SigningKey::generate())), ..examples::app() }
    }

    #[test]
    fn c11_what_is_had_and_what_is_offered_decide_unless_an_operator_did() {
        let all = ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"];
        let cases = [
            (examples::app(), Some(metadata(&all)), "client_secret_basic"),
            (examples::app(), Some(metadata(&["client_secret_post", "private_key_jwt"])), "client_secret_post"),
            (examples::app(), Some(metadata(&["private_key_jwt"])), "client_secret_basic"),
            (examples::app(), None, "client_secret_basic"),
            (keyed(), Some(metadata(&all)), "private_key_jwt"),
            (keyed(), Some(metadata(&["none"])), "none"),
            (keyed(), None, "none"),
            (ObApp { client_secret: None, ..examples::app() }, Some(metadata(&all)), "none"),
            (ObApp { auth_method: Some(Method::PrivateKeyJwt), ..keyed() }, None, "private_key_jwt"),
            (ObApp { auth_method: Some(Method::None), ..keyed() }, Some(metadata(&all)), "none"),
            (ObApp { auth_method: Some(Method::ClientSecretPost), ..examples::app() }, Some(metadata(&all)), "client_secret_post"),
            (ObApp { auth_method: Some(Method::ClientSecretBasic), ..examples::app() }, Some(metadata(&all[1..])), "client_secret_basic"),
        ];
        for (app, metadata, expected) in cases {
            let authentication = Authentication::of(&app, &endpoint(), metadata.as_ref());
            assert_eq!(authentication.method().as_str(), expected, "{app:?} {metadata:?}");
        }
    }

    #[tokio::test]
    async fn c11_each_request_is_signed_anew_for_the_issuer_by_its_clock() {
        let app = keyed();
        let keys = app.keys.clone().expect("it has some");
        let known = KeySet::read(keys.published(Timestamp::from_millis(0)).to_string().as_bytes()).expect("a set");
        let us = Client::new(&app, &endpoint(), Some(&metadata(&["private_key_jwt"])));
        // The peer's clock is 5 minutes ahead: Thu, 01 Jan 1970 00:21:40.
        let late = [("date", "Thu, 01 Jan 1970 00:21:40 GMT")];
        let transport = Scripted::new(vec![response(401, &late, r#"{"error":"invalid_client"}"#), response(200, &late, "{}")]);
        let request = us.about_token(&endpoint(), &"token".into(), "refresh_token");
        assert_eq!(us.send(request.clone(), &transport).await.expect("an answer").status(), 200);
        assert_eq!(us.send(request, &transport).await.expect("an answer").status(), 200);
        let forms = transport.forms();
        assert_eq!(forms.len(), 3);
        let judged = |form: &BTreeMap<String, String>, at: i64| {
            assert_eq!((form["client_id"].as_str(), form["token"].as_str()), ("client", "token"));
            assert_eq!(form["client_assertion_type"], assertion::TYPE);
            let now = Timestamp::from_millis(at);
            let assertion = Assertion::read(&form["client_assertion"]).expect("an assertion");
            assert_eq!(assertion.client_id(), "client");
            assertion.signed_by(&known).and_then(|signed| signed.judge("https://two.example.com", now)).map(|asserted| asserted.once)
        };
        assert!(judged(&forms[0], 1_000_000).is_ok() && judged(&forms[0], 1_300_000).is_err(), "by our clock, which is off");
        let (second, third) = (judged(&forms[1], 1_300_000).expect("good"), judged(&forms[2], 1_300_000).expect("good"));
        assert!(second != third, "each is good once");
    }

    #[tokio::test]
    async fn c11_a_refusal_by_a_clock_that_is_right_is_the_answer() {
        let us = Client::new(&keyed(), &endpoint(), Some(&metadata(&["private_key_jwt"])));
        let now = [("date", "Thu, 01 Jan 1970 00:16:41 GMT")];
        let transport = Scripted::new(vec![response(401, &now, r#"{"error":"invalid_client"}"#)]);
        let answer = us.send(us.about_token(&endpoint(), &"token".into(), "refresh_token"), &transport).await.expect("an answer");
        assert_eq!((answer.status().as_u16(), transport.forms().len()), (401, 1));
        // What stands between has a clock of its own.
        let other = [("date", "Thu, 01 Jan 1970 01:00:00 GMT")];
        let transport = Scripted::new(vec![response(401, &other, r#"{"error":"invalid_client"}"#)]);
        us.send(us.about_token(&endpoint(), &"token".into(), "refresh_token"), &transport).await.expect("an answer");
        assert_eq!((transport.forms().len(), transport.time_there()), (2, Timestamp::from_millis(1_000_000)));
        // Nor is one that is nowhere near.
        let far = [("date", "Fri, 31 Dec 9999 23:59:59 GMT")];
        let transport = Scripted::new(vec![response(401, &far, r#"{"error":"invalid_client"}"#)]);
        us.send(us.about_token(&endpoint(), &"token".into(), "refresh_token"), &transport).await.expect("an answer");
        assert_eq!((transport.forms().len(), transport.time_there()), (1, Timestamp::from_millis(1_000_000)));
        let secret = Client::new(&examples::app(), &endpoint(), None);
        let transport = Scripted::new(vec![response(401, &[("date", "Thu, 01 Jan 1970 01:00:00 GMT")], r#"{"error":"invalid_client"}"#)]);
        secret.send(secret.about_token(&endpoint(), &"token".into(), "refresh_token"), &transport).await.expect("an answer");
        assert_eq!(transport.forms().len(), 1, "a secret is not good by another clock");
    }

    #[tokio::test]
    async fn c13_the_nonce_that_is_asked_for_is_used_at_once_and_from_then_on() {
        let key = Arc::new(SigningKey::generate());
        let us = Client::new(&examples::app(), &endpoint(), None).proving(&examples::app(), Some(&key));
        let asks = |nonce| response(400, &[("dpop-nonce", nonce)], r#"{"error":"use_dpop_nonce"}"#);
        let transport = Scripted::new(vec![asks("n1"), response(200, &[], "{}"), response(200, &[("dpop-nonce", "n2")], "{}"), asks("n2")]);
        let send = async || us.send(us.request(&endpoint(), &[]), &transport).await.expect("an answer").status().as_u16();
        assert_eq!((send().await, send().await, send().await), (200, 200, 400), "who asks for what it got is not asked for ever");
        let proofs: Vec<_> = transport.asked.lock().expect("unpoisoned").iter().map(proof_of).collect();
        let nonces: Vec<_> = proofs.iter().map(|proof| proof.nonce.as_deref()).collect();
        assert_eq!(nonces, [None, Some("n1"), Some("n1"), Some("n2")]);
        assert!(proofs.iter().all(|proof| proof.key == key.public().thumbprint()));
        assert_ne!(proofs[0].once, proofs[1].once);
    }

    fn proof_of(request: &Request<Vec<u8>>) -> dpop::Proof {
        let asked = dpop::Request { method: "POST", urls: &[endpoint()], token: None };
        dpop::presented(request.headers(), &asked, Timestamp::from_millis(1_000_000)).expect("a good proof").expect("one")
    }
}
