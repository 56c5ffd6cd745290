//! The gateway: a peer's call, with a token of ours, becomes a call to an application behind us.
//!
//! Path, then token, then permission, then forward: a path without a route is refused before any token is looked at, and nothing is
//! forwarded without a [`Permit`]. A token that was presented before is found in memory; its headers were made then.

mod proof;
pub mod query_token;
mod routes;
#[cfg(test)]
pub(super) mod tests;

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, Uri};
use tower_service::Service;

use super::call::{self, Handler, Refusal, Told};
use crate::audit::{Action, Actor, Entry, Origin, Outcome, Record};
use crate::config::{ADMIN_API_PATH, BUILT_IN_PATHS, Config, Limits};
use crate::inbound::permit::{self, Holder, Permit, permit};
use crate::instance::Instance;
use crate::instance::proofs::NoKey;
use crate::net::body::{IncomingBody, RequestBody, ResponseBody};
use crate::net::client::{Client, SendError};
use crate::net::client_certificate;
use crate::net::connection::Connection;
use crate::net::forwarded;
use crate::net::headers;
use crate::net::lane::Pass;
use crate::net::life::Claim;
use crate::net::outgoing::Purpose;
use crate::net::path::{Path, below};
use crate::net::problem::{Code, REQUEST_ID};
use crate::net::proxy::{self, Failure, Terms};
use crate::net::request_id::RequestIds;
use crate::net::websocket::{self, Answer};
use crate::oauth::bearer::{self, NotPresented, Scheme};
use crate::oauth::binding::Binding;
use crate::oauth::dpop::NONCE_HEADER;
use crate::oauth::thumbprint::CertificateThumbprint;
use crate::observe::calls::Series;
use crate::secret::Digest;
use crate::store::StoreError;
use crate::store::token_table::LiveToken;

use routes::{NoRoute, Route, Routes};

/// The gateway of one instance.
pub struct Gateway {
    instance: Arc<Instance>,
    /// Connections to applications.
    client: ArcSwap<Client>,
    routes: ArcSwap<Routes>,
    /// Held by who makes them anew, so that none are put in place of newer ones.
    making: Mutex<()>,
    request_ids: RequestIds,
    /// Where calls are counted that no route takes.
    nowhere: Series,
}

impl Gateway {
    /// The gateway for holders of the instance's tokens, which calls applications through `client`.
    pub fn new(instance: Arc<Instance>, client: Client) -> Self {
        let routes = ArcSwap::from_pointee(Routes::new(instance.config(), &instance.metrics.gateway));
        let request_ids = RequestIds::new(instance.random.as_ref());
        let nowhere = instance.metrics.gateway.series("");
        Self { instance, client: ArcSwap::from_pointee(client), routes, making: Mutex::default(), request_ids, nowhere }
    }

    /// Calls applications through `client` from here on: trust or limits have changed.
    pub fn set_client(&self, client: Client) {
        self.client.store(Arc::new(client));
    }

    /// The service of the public listener: `built_in` for our own paths, which win, and the gateway for all others.
    pub fn service(
        self: &Arc<Self>,
        built_in: Router,
    ) -> impl Service<Request<IncomingBody>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + Sync + use<>
    {
        let gateway = Arc::clone(self);
        Handler(move |request: Request<IncomingBody>| {
            let gateway = Arc::clone(&gateway);
            // A head that two readers could read differently is refused below, whosever the path is.
            let is_ours = is_built_in(request.uri().path(), &gateway.instance.config.load()) && call::check_head(&request).is_ok();
            let mut built_in = is_ours.then(|| built_in.clone());
            async move {
                match &mut built_in {
                    Some(built_in) => built_in.call(request.map(Body::new)).await,
                    None => Ok(gateway.answer(request).await),
                }
            }
        })
    }

    /// Answers one call.
    pub async fn answer(&self, request: Request<IncomingBody>) -> Response<Body> {
        let routes = self.routes();
        let mut told = Told::new(&request, self.request_ids.next(), &self.nowhere);
        let outcome = self.forward(request, &routes, &mut told).await;
        told.settle(outcome, &routes.config.instance.name)
    }

    /// The routes of the configuration in force; made anew when that was swapped.
    fn routes(&self) -> Arc<Routes> {
        let routes = self.routes.load_full();
        let config = self.instance.config.load();
        if Arc::ptr_eq(&routes.config, &config) {
            return routes;
        }
        drop(config);
        self.made_anew()
    }

    #[cold]
    fn made_anew(&self) -> Arc<Routes> {
        let _alone = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let (routes, config) = (self.routes.load_full(), self.instance.config());
        if Arc::ptr_eq(&routes.config, &config) {
            return routes;
        }
        let calls = &self.instance.metrics.gateway;
        let mut new = Routes::new(config, calls);
        new.succeed(&routes, calls);
        let new = Arc::new(new);
        self.routes.store(Arc::clone(&new));
        new
    }

    /// The configuration has changed: streams that are open end where their route asks for more now than their token has, or
    /// is gone.
    pub fn reconfigured(&self) {
        self.routes();
    }

    async fn forward<'a>(
        &self,
        request: Request<IncomingBody>,
        routes: &'a Routes,
        told: &mut Told<'a>,
    ) -> Result<Response<Body>, Refusal> {
        // RFC 8441 asks for a WebSocket with CONNECT; to the route it is the GET that it would be over HTTP/1.1.
        let method = if websocket::is_websocket_connect(&request) { &Method::GET } else { request.method() };
        if *method == Method::TRACE || *method == Method::CONNECT {
            return Err(call::never_forwarded(call::ALLOW));
        }
        call::check_head(&request)?;
        let path = Path::of_request(request.uri(), request.version())?;
        if is_built_in(path.as_str(), &routes.config) {
            // It would have been taken as ours, had it not been written in another way.
            return Err(missing_route());
        }
        let (route, rest) = routes.table.find(&path).map_err(no_route)?;
        told.series = &route.series;
        let slash = PathAndQuery::from_static("/");
        let mut target = Cow::Borrowed(request.uri().path_and_query().unwrap_or(&slash));
        let mut next_nonce = None;
        let (live, holder) = match bearer::presented(request.headers(), target.query()) {
            Ok((token, scheme)) => {
                let live = self.live_token(token, routes).await?;
                let certificate = match live.binding {
                    Some(Binding::Certificate(_)) => self.certificate_of(&request, routes),
                    Some(Binding::Key(_)) | None => None,
                };
                let shown = match (live.binding, scheme) {
                    (Some(Binding::Key(_)), Scheme::Dpop) => {
                        let shown = proof::shown(&self.instance, &request, token);
                        if matches!(shown, Err(NoKey::Replayed)) {
                            self.suspects(Action::ProofReplayed, &request, &live, routes, told);
                        }
                        shown.map_err(|why| proof::bad_proof(&self.instance, &why, routes))?
                    }
                    _ => None,
                };
                let key = shown.as_ref().map(|shown| shown.key);
                next_nonce = shown.and_then(|shown| shown.next_nonce);
                (live, Holder { scheme, key, certificate })
            }
            Err(NotPresented::Nothing) if routes.config.compat.query_token && !request.headers().contains_key(header::AUTHORIZATION) => {
                let (token, without) = query_token::taken(&target).ok_or_else(|| not_presented(NotPresented::Nothing, routes))?;
                target = Cow::Owned(without);
                (self.live_token(&token, routes).await?, Holder::ANYBODY)
            }
            Err(why) => return Err(not_presented(why, routes)),
        };
        let overrides = headers::method_overrides(request.headers()).map(HeaderValue::as_bytes);
        let permitted = permit(&live, holder, route.rule(), method, overrides, self.instance.clock.now().wall);
        if matches!(permitted, Err(permit::Refusal::OtherKey | permit::Refusal::OtherCertificate)) {
            self.suspects(Action::TokenWithoutItsKey, &request, &live, routes, told);
        }
        let permit = permitted.map_err(|why| refused(why, route, routes))?;
        let uri = route.upstream.uri(rest, &target)?;
        let call = Call { live: &live, permit, uri, route, routes, request_id: told.request_id() };
        let mut response = self.pass(request, call).await?;
        if let Some(nonce) = next_nonce {
            response.headers_mut().insert(NONCE_HEADER, nonce);
        }
        Ok(response)
    }

    /// Tells the audit of a call as whoever stole a token makes it, or a client that is out of order.
    #[cold]
    fn suspects(&self, action: Action, request: &Request<IncomingBody>, live: &LiveToken, routes: &Routes, told: &Told<'_>) {
        let address = forwarded_for(request, &routes.config);
        let origin = Origin::new(Actor::Unknown, address, told.request_id().to_str().ok().map(str::to_owned));
        let record = match live.grant {
            Some(grant) => Record::of_tenant("grant", &live.tenant, grant, &live.app_name),
            None => Record::of_tenant("ib-app", &live.tenant, live.app, &live.app_name),
        };
        let mut entry = Entry::of(action).ended(Outcome::Refused).on(record);
        if let Ok((token, _)) = bearer::presented(request.headers(), None) {
            entry = entry.token(Digest::of(token));
        }
        self.instance.tally.note(self.instance.clock.now(), origin, entry);
    }

    /// The certificate that a call comes with, if that is valid now.
    fn certificate_of(&self, request: &Request<IncomingBody>, routes: &Routes) -> Option<CertificateThumbprint> {
        let connection = request.extensions().get::<Arc<Connection>>()?;
        let certificate = client_certificate::presented(connection, request.headers(), routes.config.certificate_proxies())?;
        certificate.is_valid_at(self.instance.clock.now().wall).then(|| certificate.thumbprint())
    }

    /// What is known of a token that holds.
    async fn live_token(&self, token: &str, routes: &Routes) -> Result<Arc<LiveToken>, Refusal> {
        let live = match self.instance.tokens.cached(token) {
            Some(live) => Some(live),
            // What few calls need is put aside, so that it makes no call's memory larger.
            None => Box::pin(self.instance.tokens.present(token)).await.map_err(store_failed)?,
        };
        live.ok_or_else(|| invalid_token("the access token is unknown, expired or revoked", routes))
    }

    /// A place among the calls of the same grant, and one among those of the same app: no client takes all that there is for calls to applications,
    /// however many allowed it how much.
    fn enter(&self, live: &LiveToken, limits: &Limits) -> Result<[Pass; 2], Refusal> {
        let outgoing = &self.instance.outgoing;
        let full = |most: usize, of: &str, key: &str| {
            Refusal::new(Code::Overloaded, format!("{most} calls {of} are under way, and no more may be; see limits.{key}"))
        };
        let most = outgoing.of_one(Purpose::Applications, limits.calls_per_grant);
        let of_grant = live.lane.try_enter(most).ok_or_else(|| full(most, "with this grant", "calls_per_grant"))?;
        let most = outgoing.of_one(Purpose::Applications, usize::MAX);
        let of_app = live.app_lane.try_enter(most).ok_or_else(|| full(most, "of this app", "outgoing_connections"))?;
        Ok([of_grant, of_app])
    }

    /// Forwards a call that is permitted.
    async fn pass(&self, mut request: Request<IncomingBody>, call: Call<'_>) -> Result<Response<Body>, Refusal> {
        let config = &call.routes.config;
        let (granted, needed) = (Arc::clone(&call.live.granted), Arc::clone(&call.route.needed));
        let claim = Claim { granted, is_bound: call.live.binding.is_some(), needed };
        let terms = Terms::new(&config.limits, Arc::clone(&call.live.life), Some(claim));
        call::check_length(request.headers(), terms.most)?;
        let terms = terms.holding(self.enter(call.live, &config.limits)?);
        let forwarded = forwarded_by(&request, call.routes);
        let asked = websocket::asked(&mut request, self.instance.random.as_ref());
        let (head, body) = request.into_parts();
        let mut outgoing = Request::new(RequestBody::Empty);
        *outgoing.method_mut() = head.method;
        *outgoing.uri_mut() = call.uri.clone();
        *outgoing.headers_mut() = head.headers;
        call.tell_application(outgoing.headers_mut(), forwarded);
        let client = self.client.load_full();
        if let Some(asked) = asked {
            asked.mark(outgoing.headers_mut());
            return match Box::pin(asked.send(&client, outgoing, &terms)).await.map_err(|failure| failed(failure, call.routes))? {
                Answer::Refused(response, _) => Ok(passed_on(response, &terms)),
                Answer::Granted(mut head) => {
                    headers::strip_application_answer(&mut head.headers);
                    websocket::mark_granted(&mut head);
                    Ok(Response::from_parts(head, Body::empty()))
                }
            };
        }
        let sending = proxy::upload(body, &terms).map(|(passage, sending)| {
            *outgoing.body_mut() = RequestBody::stream(passage);
            sending
        });
        let answer = pin!(client.send(outgoing));
        let response = proxy::head(answer, sending.as_deref(), &terms).await.map_err(|failure| failed(failure, call.routes))?;
        Ok(passed_on(response, &terms))
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").finish_non_exhaustive()
    }
}

/// One call that may go on.
struct Call<'a> {
    live: &'a LiveToken,
    permit: Permit<'a>,
    uri: Uri,
    route: &'a Route,
    routes: &'a Routes,
    request_id: &'a HeaderValue,
}

impl Call<'_> {
    /// Takes out what the client says of itself, and adds what we know.
    fn tell_application(&self, headers: &mut HeaderMap, forwarded: HeaderValue) {
        debug_assert!(std::ptr::eq(self.permit.bearer(), &raw const **self.live), "the permit is for this token");
        headers::strip_request(headers);
        self.live.identity.add_to(headers);
        headers.insert(header::FORWARDED, forwarded);
        headers.insert(REQUEST_ID, self.request_id.clone());
    }
}

/// Whether a path is ours, whatever the routes say: at the root, and below the path of a public_url that has one.
fn is_built_in(path: &str, config: &Config) -> bool {
    let base = config.instance.public_url.url().path().trim_end_matches('/');
    let is_ours = |path: &str| {
        BUILT_IN_PATHS.iter().any(|ours| below(path, ours).is_some()) || config.public.admin_api && below(path, ADMIN_API_PATH).is_some()
    };
    is_ours(path) || !base.is_empty() && below(path, base).is_some_and(is_ours)
}

/// What the application is told of the way that a call came.
fn forwarded_by(request: &Request<IncomingBody>, routes: &Routes) -> HeaderValue {
    let config = &routes.config;
    let public = config.instance.public_url.url();
    let Some(connection) = request.extensions().get::<Arc<Connection>>() else { return headers::forwarded(None, public) };
    let neighbour = connection.neighbour().ip();
    if config.public.trusted_proxies.include(neighbour) {
        return headers::forwarded(forwarded::client_address(request.headers(), neighbour, &config.public.trusted_proxies), public);
    }
    connection.forwarded(|| headers::forwarded(neighbour, public))
}

/// Where a call comes from, behind trusted proxies by what they report.
fn forwarded_for(request: &Request<IncomingBody>, config: &Config) -> Option<IpAddr> {
    let neighbour = request.extensions().get::<Arc<Connection>>()?.neighbour().ip();
    forwarded::client_address(request.headers(), neighbour, &config.public.trusted_proxies)
}

/// The application's answer as the peer gets it.
fn passed_on(response: Response<ResponseBody>, terms: &Terms) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    headers::strip_application_answer(&mut head.headers);
    Response::from_parts(head, proxy::download(body, terms, headers::strip_application_trailers))
}

fn no_route(why: NoRoute) -> Refusal {
    match why {
        NoRoute::Bad(bad) => bad.into(),
        NoRoute::Missing => missing_route(),
    }
}

fn missing_route() -> Refusal {
    Refusal::new(Code::NoRoute, "no route of this instance takes the path; see [[route]] in its configuration")
}

fn invalid_token(detail: &'static str, routes: &Routes) -> Refusal {
    Refusal::new(Code::InvalidToken, detail).with(header::WWW_AUTHENTICATE, routes.invalid_token.clone())
}

fn not_presented(why: NotPresented, routes: &Routes) -> Refusal {
    let (code, challenge) = match why {
        NotPresented::Nothing => (Code::NoToken, &routes.no_token),
        NotPresented::Twice | NotPresented::Malformed => (Code::BadRequest, &routes.invalid_request),
    };
    Refusal::new(code, why.to_string()).with(header::WWW_AUTHENTICATE, challenge.clone())
}

/// Why the permit was refused. Another tenant's route looks like a missing one.
fn refused(why: permit::Refusal, route: &Route, routes: &Routes) -> Refusal {
    match why {
        permit::Refusal::Expired => invalid_token("the access token has expired", routes),
        permit::Refusal::Unbound | permit::Refusal::NotBound | permit::Refusal::OtherCertificate => {
            Refusal::new(Code::InvalidToken, why.to_string()).with(header::WWW_AUTHENTICATE, routes.invalid_token.clone())
        }
        permit::Refusal::OtherKey => proof::no_proof(why.to_string(), routes),
        permit::Refusal::OtherTenant => missing_route(),
        permit::Refusal::Method | permit::Refusal::Override => {
            Refusal::new(Code::MethodNotAllowed, why.to_string()).with(header::ALLOW, route.allow.clone())
        }
        permit::Refusal::Scope => {
            Refusal::new(Code::InsufficientScope, why.to_string()).with(header::WWW_AUTHENTICATE, route.insufficient_scope.clone())
        }
    }
}

fn store_failed(error: StoreError) -> Refusal {
    match error {
        StoreError::Overloaded | StoreError::Expired | StoreError::Unavailable => {
            Refusal::new(Code::Overloaded, "the token cannot be looked up at the moment; send the call again")
        }
        StoreError::Fault(_) | StoreError::Panicked => Refusal::new(Code::Internal, "the token could not be looked up; the log says why"),
    }
}

/// Why the application gave no answer.
fn failed(failure: Failure, routes: &Routes) -> Refusal {
    match failure {
        Failure::BodyTooLarge(most) => call::body_too_large(most),
        Failure::BodyStopped => Refusal::new(Code::BadRequest, failure.to_string()),
        Failure::Withdrawn => {
            invalid_token("the access token was revoked, or came to be not enough for the route, during the call", routes)
        }
        Failure::Unreachable(SendError::Full(why)) => Refusal::new(Code::Overloaded, why),
        Failure::Unreachable(_) | Failure::WrongUpgrade | Failure::WrongCoding => {
            Refusal::new(Code::UpstreamUnreachable, failure.to_string())
        }
        Failure::Timeout(_) => Refusal::new(Code::UpstreamTimeout, failure.to_string()),
    }
}
