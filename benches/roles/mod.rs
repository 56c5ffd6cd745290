//! The processes that are measured.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Parts, Scheme};
use http::{Request, Response, Uri};
use p2pid::clock::Clock;
use p2pid::config::{Limits, Listen, Rate};
use p2pid::net::body::{IncomingBody, RequestBody, ResponseBody};
use p2pid::net::client::Client;
use p2pid::net::listener::Listener;
use p2pid::net::outgoing::{Outgoing, Purpose};
use p2pid::net::serve::{Server, Serving};
use p2pid::net::tls::{Identity, ServerTls};
use p2pid::net::trust::Trust;
use p2pid::system::SystemRandom;

/// Plays a role until it is killed.
pub(crate) async fn play(role: &str, arguments: &[String]) {
    match role {
        "upstream" => upstream().await,
        "hop" => hop(&arguments[0], arguments.get(1), None).await,
        "secure-hop" => {
            let folder = std::env::temp_dir().join(format!("p2pid-bench-{}", std::process::id()));
            let now = p2pid::system::SystemClock::new().now().wall;
            let identity = Identity::self_signed(&folder, &"https://127.0.0.1".parse().expect("a URL"), now).expect("a certificate");
            let certificate = folder.join("cert.pem").display().to_string();
            hop(&arguments[0], None, Some((ServerTls::new(identity).expect("TLS"), certificate))).await;
        }
        other => panic!("no role {other}"),
    }
    std::future::pending().await
}

/// An application: a small JSON answer.
async fn upstream() {
    let service = tower_service_fn(|_| async { Response::new(http_body_util::Full::new(Bytes::from_static(&[b'x'; 256]))) });
    serve(None, service, "");
}

/// Forwards everything, with nothing but the network rooms.
async fn hop(target: &str, certificate: Option<&String>, tls: Option<(ServerTls, String)>) {
    let trust = match certificate {
        Some(file) => Trust::only(&std::fs::read(file).expect("a certificate"), file).expect("a certificate"),
        None => Trust::system(&[]).expect("the system's roots"),
    };
    let outgoing = Arc::new(Outgoing::new(&limits()));
    let client = Client::new(&trust, &limits(), outgoing.share(Purpose::Applications));
    let target: Uri = target.parse().expect("a URL");
    let service = tower_service_fn(move |request: Request<IncomingBody>| {
        let (client, target) = (client.clone(), target.clone());
        async move { forward(&client, &target, request).await }
    });
    let (tls, certificate) = tls.unzip();
    serve(tls, service, certificate.as_deref().unwrap_or_default());
}

async fn forward(client: &Client, target: &Uri, request: Request<IncomingBody>) -> Response<ResponseBody> {
    let (head, body) = request.into_parts();
    let mut parts = Parts::default();
    parts.scheme = target.scheme().cloned().or(Some(Scheme::HTTP));
    parts.authority = target.authority().cloned();
    parts.path_and_query = head.uri.path_and_query().cloned();
    let mut onward = Request::new(if http_body::Body::is_end_stream(&body) { RequestBody::Empty } else { RequestBody::Incoming(body) });
    *onward.method_mut() = head.method;
    *onward.uri_mut() = Uri::from_parts(parts).expect("a URL");
    *onward.headers_mut() = head.headers;
    client.send(onward).await.expect("an answer")
}

fn serve<S, F, B>(tls: Option<ServerTls>, service: ServiceFunction<S>, certificate: &str)
where
    S: Fn(Request<IncomingBody>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let server = Server::new(&limits(), "bench", &SystemRandom);
    let listener = Listener::bind(&Listen::Tcp("127.0.0.1:0".parse().expect("an address")), None).expect("a port");
    let address = listener.address();
    server.serve(listener, Serving { tls, ..Serving::default() }, service);
    super::say(&format!("ready {address} {certificate}"));
}

fn tower_service_fn<S>(function: S) -> ServiceFunction<S> {
    ServiceFunction(function)
}

/// A function as a service.
#[derive(Clone)]
struct ServiceFunction<S>(S);

impl<S, F, B> tower_service::Service<Request<IncomingBody>> for ServiceFunction<S>
where
    S: Fn(Request<IncomingBody>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<B>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<IncomingBody>) -> Self::Future {
        let answer = (self.0)(request);
        Box::pin(async move { Ok(answer.await) })
    }
}

fn limits() -> Limits {
    let seconds = Duration::from_secs;
    Limits {
        header_bytes: 64 << 10,
        form_bytes: 64 << 10,
        body_bytes: 0,
        connections: 10_000,
        outgoing_connections: 10_000,
        calls_per_grant: 512,
        calls_per_caller: 1024,
        calls_per_peer: 512,
        queue_per_peer: 1024,
        connect_timeout: seconds(5),
        first_byte_timeout: seconds(60),
        idle_timeout: seconds(60),
        token_timeout: seconds(10),
        refresh_wait: seconds(10),
        drain: seconds(10),
        auth_failures: Rate { count: 20, per: seconds(60) },
        client_requests: None,
    }
}
