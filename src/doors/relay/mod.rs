//! The relay: `/{peer}/{path}` on the local listener becomes a call to the peer, with the peer's token.
//!
//! While the token is fresh a call takes a snapshot of the configuration, one of the callers and one of the link, and is on its way. A 401
//! `invalid_token`, which a gateway gives before it touches its application, is followed by one refresh and one more attempt.

mod attempts;
mod refusals;
mod senders;
mod tape;
#[cfg(test)]
pub(super) mod tests;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::body::Body;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, Uri};
use tower_service::Service;

use super::call::{self, Handler, Refusal, Told};
use super::local_browser;
use crate::audit::{Action, Actor, Entry, Origin, Outcome};
use crate::config::Config;
use crate::id::Id;
use crate::instance::Instance;
use crate::instance::throttle::Attempt;
use crate::net::body::IncomingBody;
use crate::net::connection::Connection;
use crate::net::headers;
use crate::net::lane::{Lane, Width};
use crate::net::outgoing::Purpose;
use crate::net::path::{self, Path};
use crate::net::problem::{Code, REQUEST_ID};
use crate::net::proxy::{self, Terms};
use crate::net::request_id::{self, RequestIds};
use crate::net::websocket;
use crate::oauth::bearer::{self, Scheme};
use crate::observe::calls::Series;
use crate::observe::metrics;
use crate::store::StoreError;
use crate::tasks::keeper::{Link, Links};

use attempts::{Outgoing, Upload, relayed, switched};
use refusals::refused_link;
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
        // Asked first: who waits for a peer has a place of its own taken, so that no caller fills the queues of others.
        let most = self.instance.outgoing.of_one(Purpose::Peers, limits.calls_per_caller);
        let of_sender = self.senders.enter(sender, most);
        let of_sender = of_sender.ok_or_else(|| {
            let detail = format!("{most} calls of this caller are under way, and no more may be; see limits.calls_per_caller");
            Refusal::new(Code::Overloaded, detail)
        })?;
        let pass = lane.enter(width).await;
        let pass =
            pass.ok_or_else(|| Refusal::new(Code::Overloaded, "too many calls to this peer are under way; see limits.calls_per_peer"))?;
        let terms = terms.holding((pass, of_sender));
        let credential = link.credential(limits.refresh_wait).await.map_err(|why| refused_link(why, &link.facts()))?;

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
            return Box::pin(switched(&outgoing, asked, link, credential, config)).await;
        }
        let upload = proxy::upload(body, &outgoing.terms).map(|(passage, sending)| {
            let is_long = call::announced_length(&outgoing.headers).is_some_and(|length| length > tape::MOST as u64);
            Upload { tape: Tape::new(passage), sending, is_long }
        });
        let response = relayed(&outgoing, upload, link, credential, config).await?;
        Ok(outgoing.passed_on(response))
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

fn without_query(uri: &Uri) -> String {
    uri.to_string().split('?').next().unwrap_or_default().to_owned()
}

fn caller_unknown(detail: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Code::CallerUnknown, detail).with(header::WWW_AUTHENTICATE, CHALLENGE)
}
