//! The relay: `/{peer}/{path}` on the local listener becomes a call to the peer, with the peer's token.
//!
//! While the token is fresh a call takes a snapshot of the configuration, one of the callers and one of the link, and is on its way. A 401
//! `invalid_token`, which a gateway gives before it touches its application, is followed by one refresh and one more attempt.

mod refusals;
mod senders;
mod tape;
#[cfg(test)]
pub(super) mod tests;

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::Body;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use tower_service::Service;

use super::call::{self, Handler, Refusal, Told};
use super::local_browser;
use crate::audit::{Action, Actor, Entry, Origin, Outcome};
use crate::config::Config;
use crate::id::Id;
use crate::instance::Instance;
use crate::instance::throttle::Attempt;
use crate::net::body::{IncomingBody, RequestBody, ResponseBody};
use crate::net::connection::Connection;
use crate::net::headers;
use crate::net::lane::{Lane, Pass, Width};
use crate::net::outgoing::Purpose;
use crate::net::path::{self, Path};
use crate::net::problem::{Code, ERROR, REQUEST_ID};
use crate::net::proxy::{self, Sending, Terms};
use crate::net::request_id::{self, RequestIds};
use crate::net::websocket::{self, Answer, Asked};
use crate::oauth::bearer::{self, Scheme};
use crate::oauth::{challenge, dpop};
use crate::observe::calls::Series;
use crate::observe::metrics;
use crate::store::StoreError;
use crate::tasks::keeper::{Basis, Credential, Link, Links, Target};

use refusals::{failed, refused_link, retry_call};
use senders::{Sender, Senders};
use tape::Tape;

/// Whose peers a caller without a key reaches, where the relay is open.
const DEFAULT_TENANT: &str = "default";

/// How a caller without a good key is asked for one.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"p2pid relay\"");

/// The relay of one instance.
#[derive(Debug)]
pub struct Relay {
    instance: Arc<Instance>,
    links: Arc<Links>,
    peers: ArcSwap<HashMap<Id, Arc<Peer>>>,
    senders: Senders,
    request_ids: RequestIds,
    /// Where calls are counted that no peer gets.
    nobody: Series,
}

/// What is kept of one peer.
#[derive(Debug)]
struct Peer {
    /// As it was when this was made.
    name: String,
    lane: Arc<Lane>,
    series: Series,
}

/// A call that may be made.
struct Admitted {
    link: Arc<Link>,
    /// Where in the path the peer's own begins.
    rest: String,
    sender: Sender,
}

/// A call's places, which are free when it is over.
struct Places {
    _at_peer: Pass,
    _of_sender: Pass,
}

/// What a call sends, again where there is a second attempt.
struct Outgoing<'a> {
    instance: &'a Instance,
    /// The name of this instance.
    us: &'a str,
    target: &'a Target,
    method: Method,
    uri: Uri,
    /// What a proof says of where the call goes; empty where there is no proof.
    named: String,
    headers: HeaderMap,
    terms: Terms,
}

/// A request's body, if it has one: what was read of it, how far its sending has come, and whether it waits to be wanted.
struct Upload<B> {
    tape: Arc<Tape<B>>,
    sending: Arc<Sending>,
    is_long: bool,
}

impl Relay {
    /// The relay to `links`; reads who may use it.
    pub async fn start(instance: Arc<Instance>, links: Arc<Links>) -> Result<Self, StoreError> {
        instance.callers.reload(&instance.store).await?;
        let request_ids = RequestIds::new(instance.random.as_ref());
        let nobody = instance.metrics.relay.series("");
        Ok(Self { instance, links, peers: ArcSwap::default(), senders: Senders::default(), request_ids, nobody })
    }

    /// Answers one request of the local listener; `port` is that of a TCP listener, for what browsers may do.
    pub async fn answer<B>(&self, request: Request<B>, port: Option<u16>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let config = self.instance.config();
        let request_id = request_id::given(request.headers()).unwrap_or_else(|| self.request_ids.next());
        let admitted = self.admit(&request, &request_id, port, &config);
        self.settled(request, request_id, admitted, &config).await
    }

    /// Answers one call of an operator, who needs no caller key, to the peer `name` of `tenant`; the request's path is the peer's own.
    pub async fn answer_operator<B>(&self, request: Request<B>, tenant: &str, name: &str) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let config = self.instance.config();
        let found = self.find_for_operator(&request, tenant, name);
        self.settled(request, self.request_ids.next(), found, &config).await
    }

    /// Makes the call, if it is to be made, and tells of it.
    async fn settled<B>(
        &self,
        request: Request<B>,
        request_id: HeaderValue,
        admitted: Result<Admitted, Refusal>,
        config: &Config,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    {
        match admitted {
            Ok(admitted) => {
                let peer = self.peer(&admitted.link);
                let told = Told::new(&request, request_id, &peer.series);
                let outcome = self.forward(request, admitted, &peer.lane, told.request_id(), config).await;
                told.settle(outcome, &config.instance.name)
            }
            Err(refusal) => Told::new(&request, request_id, &self.nobody).settle(Err(refusal), &config.instance.name),
        }
    }

    fn find_for_operator<B>(&self, request: &Request<B>, tenant: &str, name: &str) -> Result<Admitted, Refusal> {
        if matches!(*request.method(), Method::TRACE | Method::CONNECT) {
            return Err(call::never_forwarded(call::ALLOW));
        }
        let path = Path::of_request(request.uri(), request.version())?;
        let link = self.links.find(tenant, name).ok_or_else(|| Refusal::new(Code::UnknownPeer, format!("there is no peer {name:?}")))?;
        Ok(Admitted { link, rest: path.as_str().to_owned(), sender: Sender::Operator })
    }

    /// The service of one local listener.
    pub fn service(
        self: &Arc<Self>,
        port: Option<u16>,
    ) -> impl Service<Request<IncomingBody>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + Sync + use<>
    {
        let relay = Arc::clone(self);
        Handler(move |request| {
            let relay = Arc::clone(&relay);
            async move { Ok(relay.answer(request, port).await) }
        })
    }

    /// Which peer a request is for, when its sender may call it.
    fn admit<B>(&self, request: &Request<B>, request_id: &HeaderValue, port: Option<u16>, config: &Config) -> Result<Admitted, Refusal> {
        if *request.method() == Method::TRACE || *request.method() == Method::CONNECT && !websocket::is_websocket_connect(request) {
            return Err(call::never_forwarded(call::ALLOW));
        }
        let path = Path::of_request(request.uri(), request.version())?;
        if let Some(port) = port {
            local_browser::check(request.uri(), request.headers(), port, &config.local.hosts, &config.local.origins)
                .map_err(|refusal| Refusal::new(Code::BrowserRefused, refusal.to_string()))?;
        }
        call::check_head(request)?;
        let caller = match bearer::presented(request.headers(), None) {
            Ok((key, Scheme::Bearer)) => Some(self.instance.callers.find(key).ok_or_else(|| self.wrong_key(request, request_id, config))?),
            Err(_) if config.local.open && !request.headers().contains_key(header::AUTHORIZATION) => None,
            Ok((_, Scheme::Dpop)) => {
                return Err(caller_unknown("found the scheme DPoP, expected Bearer and a caller key (`p2pid caller add`)"));
            }
            Err(missing) => return Err(caller_unknown(format!("found {missing}, expected a caller key (`p2pid caller add`)"))),
        };
        let (name, rest) = path::first_segment(path.as_str());
        let tenant = caller.as_ref().map_or(DEFAULT_TENANT, |caller| &caller.tenant);
        let link = self.links.find(tenant, name);
        // A caller with a list of peers learns nothing of others: whether there is one of that name makes no difference.
        if let Some(caller) = &caller
            && !link.as_ref().map_or(caller.peers.is_none(), |link| caller.may_call(link.id()))
        {
            return Err(Refusal::new(Code::CallerDenied, format!("the caller {:?} may not call the peer {name:?}", caller.name)));
        }
        let unknown =
            || Refusal::new(Code::UnknownPeer, format!("there is no peer {name:?}; a path begins with a peer's name (`p2pid peer list`)"));
        let sender = caller.as_ref().map_or(Sender::Anybody, |caller| Sender::Caller(caller.id));
        Ok(Admitted { link: link.ok_or_else(unknown)?, rest: rest.to_owned(), sender })
    }

    /// A key that is none of ours, which is counted. A right one is never looked at here, so it takes no lock and never waits.
    fn wrong_key<B>(&self, request: &Request<B>, request_id: &HeaderValue, config: &Config) -> Refusal {
        let from = request.extensions().get::<Arc<Connection>>().and_then(|connection| connection.neighbour().ip());
        let request_id = request_id.to_str().ok().map(str::to_owned);
        let failed = Entry::of(Action::CallerKeyFailed).ended(Outcome::Refused);
        self.instance.tally.note(self.instance.clock.now(), Origin::new(Actor::Unknown, from, request_id), failed);
        let attempt = Attempt::new("caller", "", from);
        match self.instance.failures.count(attempt, config.limits.auth_failures, self.instance.clock.as_ref()) {
            Ok(()) => caller_unknown("the caller key is not one of ours"),
            Err(wait) => {
                let detail = "too many calls with a wrong caller key came from this address; `p2pid caller rotate` makes a new key";
                Refusal::new(Code::RateLimited, detail).after(wait)
            }
        }
    }

    async fn forward<B>(
        &self,
        mut request: Request<B>,
        Admitted { link, rest, sender }: Admitted,
        lane: &Arc<Lane>,
        request_id: &HeaderValue,
        config: &Config,
    ) -> Result<Response<Body>, Refusal>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let limits = &config.limits;
        let terms = Terms::new(limits, link.life(), None);
        call::check_length(request.headers(), terms.most)?;
        let link = link.as_ref();
        let width = Width { calls: limits.calls_per_peer, queue: limits.queue_per_peer, wait: limits.first_byte_timeout };
        let pass = lane.enter(width).await;
        let pass =
            pass.ok_or_else(|| Refusal::new(Code::Overloaded, "too many calls to this peer are under way; see limits.calls_per_peer"))?;
        let most = self.instance.outgoing.of_one(Purpose::Peers, limits.calls_per_caller);
        let of_sender = self.senders.lane(sender).try_enter(most);
        let of_sender = of_sender.ok_or_else(|| {
            let detail = format!("{most} calls of this caller are under way, and no more may be; see limits.calls_per_caller");
            Refusal::new(Code::Overloaded, detail)
        })?;
        let places = Places { _at_peer: pass, _of_sender: of_sender };
        let credential = link.credential(limits.refresh_wait).await.map_err(refused_link)?;

        let asked = websocket::asked(&mut request, self.instance.random.as_ref());
        let (mut head, body) = request.into_parts();
        headers::strip_request(&mut head.headers);
        head.headers.insert(REQUEST_ID, request_id.clone());
        let target = Arc::clone(&credential.target);
        let slash = PathAndQuery::from_static("/");
        let uri = target.upstream.uri(&rest, head.uri.path_and_query().unwrap_or(&slash))?;
        let named = match &credential.prover {
            Some(_) => without_query(&target.named.uri(&rest, &slash)?),
            None => String::new(),
        };
        let (instance, us) = (self.instance.as_ref(), config.instance.name.as_str());
        let mut outgoing = Outgoing { instance, us, target: &target, method: head.method, uri, named, headers: head.headers, terms };
        if let Some(asked) = asked {
            asked.mark(&mut outgoing.headers);
            // What few calls need is put aside, here and below, so that it makes no call's memory larger.
            return Box::pin(switched(&outgoing, asked, link, credential, places, config)).await;
        }
        let upload = proxy::upload(body, &outgoing.terms).map(|(passage, sending)| {
            let is_long = call::announced_length(&outgoing.headers).is_some_and(|length| length > tape::MOST as u64);
            Upload { tape: Tape::new(passage), sending, is_long }
        });
        let response = relayed(&outgoing, upload, link, credential, config).await?;
        Ok(outgoing.passed_on(response, places))
    }

    /// What is kept of the peer behind a link. What nobody needs any more goes when a new one comes.
    fn peer(&self, link: &Link) -> Arc<Peer> {
        let target = link.target();
        if let Some(peer) = self.peers.load().get(&link.id())
            && peer.name == target.name
        {
            return Arc::clone(peer);
        }
        let series = self.instance.metrics.relay.series(&metrics::label(&target.tenant, &target.name));
        let lane = self.peers.load().get(&link.id()).map(|old| Arc::clone(&old.lane)).unwrap_or_default();
        let new = Arc::new(Peer { name: target.name.clone(), lane, series });
        let known: Vec<Id> = self.links.all().iter().map(|link| link.id()).collect();
        self.peers.rcu(|peers| {
            let mut peers: HashMap<_, _> =
                peers.iter().filter(|(id, _)| known.contains(id)).map(|(id, peer)| (*id, Arc::clone(peer))).collect();
            peers.insert(link.id(), Arc::clone(&new));
            peers
        });
        new
    }
}

/// Makes the call, once more with another token where the peer refuses this one.
async fn relayed<B>(
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
            Err(refusal) => return Err(refused_link(refusal)),
        },
    };
    if let Some(upload) = &upload {
        upload.tape.forget();
    }
    Ok(response)
}

/// As [`relayed`], for a request to become a WebSocket.
async fn switched(
    outgoing: &Outgoing<'_>,
    asked: Asked,
    link: &Link,
    credential: Credential,
    places: Places,
    config: &Config,
) -> Result<Response<Body>, Refusal> {
    let first = asked_with_proof(outgoing, asked, &credential, places).await?;
    let answer = match first {
        Answer::Refused(response, asked, places) if refusal_of(&response, &Method::GET, outgoing.target).is_some() => {
            let renewed = link.refused(credential.generation, config.limits.refresh_wait).await.map_err(refused_link)?;
            if renewed.generation == credential.generation {
                return Ok(outgoing.passed_on(response, places));
            }
            drop(response);
            outgoing.check_place(&renewed)?;
            asked_with_proof(outgoing, asked, &renewed, places).await?
        }
        answer => answer,
    };
    match answer {
        Answer::Refused(response, _, places) => Ok(outgoing.passed_on(response, places)),
        Answer::Granted(mut head) => {
            headers::strip_peer_answer(&mut head.headers, outgoing.us);
            websocket::mark_granted(&mut head);
            Ok(Response::from_parts(head, Body::empty()))
        }
    }
}

/// Asks for a WebSocket, and once more where the proof alone was refused.
async fn asked_with_proof(
    outgoing: &Outgoing<'_>,
    asked: Asked,
    credential: &Credential,
    places: Places,
) -> Result<Answer<Places>, Refusal> {
    let client = &outgoing.target.client;
    let basis = credential.prover.as_ref().map(|prover| prover.basis());
    let first = asked.send(client, outgoing.request(RequestBody::Empty, credential), &outgoing.terms, places).await;
    let answer = match first.map_err(failed)? {
        Answer::Refused(response, asked, places) if outgoing.is_worth_another_proof(&response, credential, basis.as_ref()) => {
            drop(response);
            let second = asked.send(client, outgoing.request(RequestBody::Empty, credential), &outgoing.terms, places).await;
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

    /// The peer's answer as the caller gets it; the call's places are free when the body is done with.
    fn passed_on(&self, response: Response<ResponseBody>, places: Places) -> Response<Body> {
        let (mut head, body) = response.into_parts();
        headers::strip_peer_answer(&mut head.headers, self.us);
        Response::from_parts(head, proxy::download(body, &self.terms, headers::strip_peer_trailers, places))
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

fn without_query(uri: &Uri) -> String {
    uri.to_string().split('?').next().unwrap_or_default().to_owned()
}

fn caller_unknown(detail: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Code::CallerUnknown, detail).with(header::WWW_AUTHENTICATE, CHALLENGE)
}
