//! WebSockets through gateway and relay: asked for over HTTP/1.1 (RFC 6455) or HTTP/2 (RFC 8441), passed on over HTTP/1.1.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::ext::Protocol;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::body::{RequestBody, ResponseBody};
use super::client::Client;
use super::connection::Connection;
use super::headers;
use super::proxy::{Failure, Terms, first_byte};
use crate::random::{self, Random};

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");
const SEC_WEBSOCKET_KEY: HeaderName = header::SEC_WEBSOCKET_KEY;
const SEC_WEBSOCKET_ACCEPT: HeaderName = header::SEC_WEBSOCKET_ACCEPT;
/// What the answer's digest is made with (RFC 6455 §1.3).
const ACCEPT_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// One direction's buffer.
const BUFFER: usize = 16 * 1024;

/// A request to become a WebSocket, taken out of the request that asks for it.
pub struct Asked {
    /// What the client is connected by, which is not idle while the WebSocket lives, and ends it when the daemon stops.
    connection: Option<Arc<Connection>>,
    client: OnUpgrade,
    /// The key of ours, where the client sent none (HTTP/2 needs none).
    key: Option<String>,
}

/// Whether a request asks for a WebSocket; then its head is made one that asks for it over HTTP/1.1. To be called before hop-by-hop headers
/// are dropped; [`Asked::mark`] adds what they lose.
pub fn asked<B>(request: &mut Request<B>, random: &dyn Random) -> Option<Asked> {
    match (request.method(), request.version()) {
        (&Method::GET, Version::HTTP_11) if headers::asks_for_websocket(request.headers()) => {
            Some(Asked { connection: connection(request), client: hyper::upgrade::on(request), key: None })
        }
        (&Method::CONNECT, Version::HTTP_2) if is_websocket_connect(request) => {
            let (connection, client) = (connection(request), hyper::upgrade::on(&mut *request));
            *request.method_mut() = Method::GET;
            Some(Asked { connection, client, key: Some(STANDARD.encode(random::bytes::<16>(random))) })
        }
        _ => None,
    }
}

/// Whether this is the one CONNECT that passes (RFC 8441 §4).
pub fn is_websocket_connect<B>(request: &Request<B>) -> bool {
    request.method() == Method::CONNECT && request.extensions().get::<Protocol>().is_some_and(|protocol| protocol.as_str() == "websocket")
}

impl Asked {
    /// Adds to the headers of the request that goes on what asks for the WebSocket.
    pub fn mark(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, UPGRADE);
        headers.insert(header::UPGRADE, WEBSOCKET);
        headers.remove(header::CONTENT_LENGTH);
        if let Some(key) = &self.key {
            headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::try_from(key).expect("base64 is visible ASCII"));
        }
    }

    /// Sends the request that asks for the WebSocket, and joins the two sides when it is granted; until then no byte passes.
    /// Any other answer is given back as it is.
    pub async fn send(self, client: &Client, request: Request<RequestBody>, terms: &Terms) -> Result<Answer, Failure> {
        let mut response = first_byte(pin!(client.send_upgrade(request)), None, terms).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            // Over HTTP/2 a success *is* the WebSocket.
            let is_misleading = self.key.is_some() && response.status().is_success();
            return if is_misleading { Err(Failure::WrongUpgrade) } else { Ok(Answer::Refused(response, self)) };
        }
        let is_ours = |key: &String| response.headers().get(SEC_WEBSOCKET_ACCEPT).is_some_and(|accept| accept.as_bytes() == accepted(key));
        if !headers::names_websocket(response.headers()) || !self.key.as_ref().is_none_or(is_ours) {
            return Err(Failure::WrongUpgrade);
        }
        let server = hyper::upgrade::on(&mut response);
        tokio::spawn(join(self.connection, self.client, server, terms.clone()));
        Ok(Answer::Granted(granted(response, self.key.is_some())))
    }
}

/// What became of a request for a WebSocket.
pub enum Answer {
    /// It is one. The head is as the client has to see it, but for the headers that every answer loses.
    Granted(http::response::Parts),
    /// An ordinary answer; with it comes back what another attempt needs.
    Refused(Response<ResponseBody>, Asked),
}

/// Restores, after hop-by-hop headers were dropped, what makes an HTTP/1.1 client switch.
pub fn mark_granted(head: &mut http::response::Parts) {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        head.headers.insert(header::CONNECTION, UPGRADE);
        head.headers.insert(header::UPGRADE, WEBSOCKET);
    }
}

fn granted(response: Response<ResponseBody>, over_http2: bool) -> http::response::Parts {
    let (mut head, _) = response.into_parts();
    if over_http2 {
        head.status = StatusCode::OK;
        head.headers.remove(SEC_WEBSOCKET_ACCEPT);
    }
    head
}

/// What a server answers to `key` (RFC 6455 §4.2.2).
pub(crate) fn accepted(key: &str) -> Vec<u8> {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(ACCEPT_SUFFIX.as_bytes());
    STANDARD.encode(context.finish()).into_bytes()
}

fn connection<B>(request: &Request<B>) -> Option<Arc<Connection>> {
    request.extensions().get().cloned()
}

/// Carries bytes both ways until one side ends, both are silent for too long, what the WebSocket rests on ends, or the daemon does.
async fn join(connection: Option<Arc<Connection>>, client: OnUpgrade, server: OnUpgrade, terms: Terms) {
    let held = connection.as_ref().map(Connection::hold);
    let stopped = async {
        match &connection {
            Some(connection) => connection.ended().await,
            None => std::future::pending().await,
        }
    };
    let switched = async { tokio::try_join!(client, server) };
    if let Ok(Ok((client, server))) = tokio::time::timeout(terms.first_byte, switched).await {
        let moved = AtomicU64::new(0);
        tokio::select! {
            _ = carry_both(client, server, &moved) => {}
            () = silence(&moved, terms.idle) => {}
            () = terms.over() => {}
            () = stopped => {}
        }
    }
    drop(held);
}

async fn carry_both(client: Upgraded, server: Upgraded, moved: &AtomicU64) -> io::Result<()> {
    let (mut client_reads, mut client_writes) = tokio::io::split(TokioIo::new(client));
    let (mut server_reads, mut server_writes) = tokio::io::split(TokioIo::new(server));
    tokio::try_join!(carry(&mut client_reads, &mut server_writes, moved), carry(&mut server_reads, &mut client_writes, moved))?;
    Ok(())
}

/// Carries bytes one way to their end, which is passed on.
async fn carry<R, W>(reads: &mut R, writes: &mut W, moved: &AtomicU64) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = reads.read(&mut buffer).await?;
        if length == 0 {
            return writes.shutdown().await;
        }
        writes.write_all(&buffer[..length]).await?;
        writes.flush().await?;
        moved.fetch_add(1, Ordering::Relaxed);
    }
}

/// Completes when nothing was carried for `idle`, at the latest after twice that.
async fn silence(moved: &AtomicU64, idle: Duration) {
    let mut before = None;
    loop {
        let now = moved.load(Ordering::Relaxed);
        if before.replace(now) == Some(now) {
            return;
        }
        tokio::time::sleep(idle).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_key_is_that_of_rfc_6455() {
        assert_eq!(accepted("dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
