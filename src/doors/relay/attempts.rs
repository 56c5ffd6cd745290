//! The attempts of a call: once more with another proof where the peer refuses the proof alone, and once more with another token where it
//! refuses the token.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};

use super::Refusal;
use super::refusals::{failed, refused_link, retry_call};
use super::tape::Tape;
use crate::config::Config;
use crate::instance::Instance;
use crate::net::body::{RequestBody, ResponseBody};
use crate::net::headers;
use crate::net::problem::{Code, ERROR};
use crate::net::proxy::{self, Sending, Terms};
use crate::net::websocket::{self, Answer, Asked};
use crate::oauth::{challenge, dpop};
use crate::tasks::keeper::{Basis, Credential, Link, Target};

/// What a call sends, again where there is a second attempt.
pub(super) struct Outgoing<'a> {
    pub(super) instance: &'a Instance,
    /// The name of this instance.
    pub(super) us: &'a str,
    pub(super) target: &'a Target,
    pub(super) method: Method,
    pub(super) uri: Uri,
    /// What a proof says of where the call goes; empty where there is no proof.
    pub(super) named: String,
    pub(super) headers: HeaderMap,
    pub(super) terms: Terms,
}

/// A request's body, if it has one: what was read of it, how far its sending has come, and whether it waits to be wanted.
pub(super) struct Upload<B> {
    pub(super) tape: Arc<Tape<B>>,
    pub(super) sending: Arc<Sending>,
    pub(super) is_long: bool,
}

/// Makes the call, once more with another token where the peer refuses this one.
pub(super) async fn relayed<B>(
    outgoing: &Outgoing<'_>,
    upload: Option<Upload<B>>,
    link: &Link,
    credential: Credential,
    config: &Config,
) -> Result<Response<ResponseBody>, Refusal>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
{
    let first = proved(outgoing, upload.as_ref(), &credential).await?;
    let response = match refusal_of(&first, &outgoing.method, outgoing.target) {
        None => first,
        Some(refused) if upload.as_ref().is_some_and(|upload| !upload.tape.is_remembered()) => {
            // The token is renewed by whoever calls next.
            let _ = link.refused(credential.generation, Duration::ZERO).await;
            return if refused == Refused::ByGateway { Err(retry_call()) } else { Ok(first) };
        }
        Some(refused) => match link.refused(credential.generation, config.limits.refresh_wait).await {
            Ok(renewed) if renewed.generation != credential.generation => {
                drop(first);
                outgoing.check_place(&renewed)?;
                Box::pin(proved(outgoing, upload.as_ref(), &renewed)).await?
            }
            // Nothing else can be presented; who knows no tokens of ours may have meant something else anyway.
            Ok(_) => first,
            Err(_) if refused == Refused::BySomebody => first,
            Err(refusal) => return Err(refused_link(refusal, &link.facts())),
        },
    };
    if let Some(upload) = &upload {
        upload.tape.forget();
    }
    Ok(response)
}

/// As [`relayed`], for a request to become a WebSocket.
pub(super) async fn switched(
    outgoing: &Outgoing<'_>,
    asked: Asked,
    link: &Link,
    credential: Credential,
    config: &Config,
) -> Result<Response<Body>, Refusal> {
    let first = asked_with_proof(outgoing, asked, &credential).await?;
    let answer = match first {
        Answer::Refused(response, asked) if refusal_of(&response, &Method::GET, outgoing.target).is_some() => {
            let renewed = link.refused(credential.generation, config.limits.refresh_wait).await;
            let renewed = renewed.map_err(|why| refused_link(why, &link.facts()))?;
            if renewed.generation == credential.generation {
                return Ok(outgoing.passed_on(response));
            }
            drop(response);
            outgoing.check_place(&renewed)?;
            asked_with_proof(outgoing, asked, &renewed).await?
        }
        answer => answer,
    };
    match answer {
        Answer::Refused(response, _) => Ok(outgoing.passed_on(response)),
        Answer::Granted(mut head) => {
            headers::strip_peer_answer(&mut head.headers, outgoing.us);
            websocket::mark_granted(&mut head);
            Ok(Response::from_parts(head, Body::empty()))
        }
    }
}

/// Asks for a WebSocket, and once more where the proof alone was refused.
async fn asked_with_proof(outgoing: &Outgoing<'_>, asked: Asked, credential: &Credential) -> Result<Answer, Refusal> {
    let client = &outgoing.target.client;
    let basis = credential.prover.as_ref().map(|prover| prover.basis());
    let first = asked.send(client, outgoing.request(RequestBody::Empty, credential), &outgoing.terms).await;
    let answer = match first.map_err(failed)? {
        Answer::Refused(response, asked) if outgoing.is_worth_another_proof(&response, credential, basis.as_ref()) => {
            drop(response);
            let second = asked.send(client, outgoing.request(RequestBody::Empty, credential), &outgoing.terms).await;
            let second = second.map_err(failed)?;
            if let Answer::Refused(response, ..) = &second {
                outgoing.settle_proof(response, credential, basis.as_ref());
            }
            second
        }
        first => first,
    };
    if let (Answer::Granted(head), Some(prover)) = (&answer, &credential.prover) {
        prover.keep_nonce(&head.headers);
    }
    Ok(answer)
}

/// An attempt, and another one where the proof alone was refused. A token that was just renewed may need that too: who refused the one
/// before it may have looked at no proof yet.
async fn proved<B>(outgoing: &Outgoing<'_>, upload: Option<&Upload<B>>, credential: &Credential) -> Result<Response<ResponseBody>, Refusal>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
{
    let basis = credential.prover.as_ref().map(|prover| prover.basis());
    let first = attempt(outgoing, upload, credential).await?;
    if !outgoing.is_worth_another_proof(&first, credential, basis.as_ref()) {
        return Ok(first);
    }
    if upload.is_some_and(|upload| !upload.tape.is_remembered()) {
        return Err(retry_call());
    }
    drop(first);
    let second = Box::pin(attempt(outgoing, upload, credential)).await?;
    outgoing.settle_proof(&second, credential, basis.as_ref());
    Ok(second)
}

/// One attempt, to the head of its answer.
async fn attempt<B>(outgoing: &Outgoing<'_>, upload: Option<&Upload<B>>, credential: &Credential) -> Result<Response<ResponseBody>, Refusal>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
{
    let (client, terms) = (&outgoing.target.client, &outgoing.terms);
    let Some(upload) = upload else {
        let request = outgoing.request(RequestBody::Empty, credential);
        return proxy::head(pin!(client.send(request)), None, terms).await.map_err(failed);
    };
    let mut body = upload.tape.from_the_beginning().ok_or_else(retry_call)?;
    let sending = Some(upload.sending.as_ref());
    if !upload.is_long {
        let request = outgoing.request(RequestBody::stream(body), credential);
        return proxy::head(pin!(client.send(request)), sending, terms).await.map_err(failed);
    }
    // Too long to be remembered: it is sent when the peer wants it, which is after the peer has looked at the token. Only HTTP/1.1 clients
    // learn of a `100 Continue`, so the call gets a connection of its own.
    let wanted = Mutex::new(Some(body.hold()));
    let mut request = outgoing.request(RequestBody::stream(body), credential);
    request.headers_mut().insert(header::EXPECT, HeaderValue::from_static("100-continue"));
    hyper::ext::on_informational(&mut request, move |response| {
        if response.status() == StatusCode::CONTINUE
            && let Some(wanted) = wanted.lock().ok().and_then(|mut wanted| wanted.take())
        {
            let _ = wanted.send(());
        }
    });
    proxy::head(Box::pin(client.send_upgrade(request)), sending, terms).await.map_err(failed)
}

impl Outgoing<'_> {
    /// Refuses to take another credential where the first went, when that is not where it belongs: the peer moved meanwhile.
    fn check_place(&self, other: &Credential) -> Result<(), Refusal> {
        if other.target.upstream == self.target.upstream {
            return Ok(());
        }
        Err(Refusal::new(Code::RetryCall, "the peer's address was changed while the call was under way; send the call again"))
    }

    /// The peer's answer as the caller gets it.
    pub(super) fn passed_on(&self, response: Response<ResponseBody>) -> Response<Body> {
        let (mut head, body) = response.into_parts();
        headers::strip_peer_answer(&mut head.headers, self.us);
        Response::from_parts(head, proxy::download(body, &self.terms, headers::strip_peer_trailers))
    }

    fn request(&self, body: RequestBody, credential: &Credential) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(header::AUTHORIZATION, credential.authorization.clone());
        if let Some(prover) = &credential.prover {
            request.headers_mut().insert(dpop::HEADER, prover.proof(self.instance, &self.method, &self.named));
        }
        request
    }

    /// Takes what an answer tells of the next proof. True when it refuses the proof, which was made from `basis`, and a proof made now would
    /// be made from something else: then the call was not made, and the token is good.
    fn is_worth_another_proof(&self, response: &Response<ResponseBody>, credential: &Credential, basis: Option<&Basis>) -> bool {
        let Some(prover) = &credential.prover else { return false };
        prover.keep_nonce(response.headers());
        match refused_proof(response, self.target) {
            None => return false,
            Some(RefusedProof::Nonce) => {}
            Some(RefusedProof::Other) => prover.correct_clock(response.headers(), self.instance.clock.now().wall),
        }
        basis.is_some_and(|basis| *basis != prover.basis())
    }

    /// Takes what the answer to the second proof tells. A clock that did not help is not believed.
    fn settle_proof(&self, response: &Response<ResponseBody>, credential: &Credential, basis: Option<&Basis>) {
        let Some(prover) = &credential.prover else { return };
        prover.keep_nonce(response.headers());
        if let (Some(RefusedProof::Other), Some(basis)) = (refused_proof(response, self.target), basis) {
            prover.restore_clock(basis);
        }
    }
}

/// Who refused a token, when it is worth another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// A gateway, which has not touched its application: every method is tried again.
    ByGateway,
    /// Somebody else, who may have acted already: only what changes nothing is tried again.
    BySomebody,
}

fn refusal_of(response: &Response<ResponseBody>, method: &Method, target: &Target) -> Option<Refused> {
    if response.status() != StatusCode::UNAUTHORIZED {
        return None;
    }
    match response.headers().get(ERROR) {
        Some(error) => (error == Code::InvalidToken.name()).then_some(Refused::ByGateway),
        // An application behind a gateway speaks for itself, and has been asked already.
        None if target.is_gateway => None,
        None => matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS).then_some(Refused::BySomebody),
    }
}

/// Why the proof of a call was refused, rather than its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RefusedProof {
    /// It needs another nonce.
    Nonce,
    /// Something else: the time, perhaps.
    Other,
}

/// Whether an answer refuses the proof (RFC 9449 §7.1); where there is a gateway, only it can.
fn refused_proof(response: &Response<ResponseBody>, target: &Target) -> Option<RefusedProof> {
    if response.status() != StatusCode::UNAUTHORIZED || target.is_gateway && !response.headers().contains_key(ERROR) {
        return None;
    }
    let names = |error: &str| challenge::names_error(response.headers(), error);
    match (names("use_dpop_nonce"), names("invalid_dpop_proof")) {
        (true, _) => Some(RefusedProof::Nonce),
        (false, true) => Some(RefusedProof::Other),
        (false, false) => None,
    }
}
