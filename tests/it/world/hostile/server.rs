//! The hostile peer's sockets: TLS, reading requests, and sending answers well or badly.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Shared;
use super::desk::{Answer, Effect};
use crate::world::message::{self, Buffer};

/// Binds the address; the future that is returned serves it.
pub(super) async fn serve(address: SocketAddr, shared: Arc<Shared>, folder: &Path) -> impl Future<Output = ()> + use<> {
    let (cert, key) = super::certificate(folder, address);
    let chain = vec![CertificateDer::from_pem_file(cert).expect("the certificate was just written")];
    let key = PrivateKeyDer::from_pem_file(key).expect("the key was just written");
    let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("key and certificate fit");
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind(address).await.expect("the address is ours alone");
    async move {
        let mut connections = JoinSet::new();
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
            connections.spawn(async move {
                if let Ok(tls) = acceptor.accept(tcp).await {
                    let kind = tls.get_ref().1.handshake_kind().expect("the handshake is done");
                    shared.handshakes.lock().unwrap_or_else(PoisonError::into_inner).push(kind);
                    // However the connection ends, the script goes on with the next.
                    let _ = converse(tls, &shared).await;
                }
            });
        }
    }
}

async fn converse(mut stream: TlsStream<TcpStream>, shared: &Shared) -> std::io::Result<()> {
    let mut buffer = Buffer::default();
    while let Some(request) = message::read(&mut stream, &mut buffer, false).await? {
        let mut releases = shared.releases.subscribe();
        let effect = {
            let mut desk = shared.desk();
            let now = shared.clock.now().wall.seconds() + desk.clock_off;
            desk.take(request, now)
        };
        match effect {
            Effect::Send(answer) => send(&mut stream, &written(&answer, shared)).await?,
            Effect::Switch(answer) => {
                send(&mut stream, &written(&answer, shared)).await?;
                let (mut from, mut to) = tokio::io::split(stream);
                return tokio::io::copy(&mut from, &mut to).await.map(drop);
            }
            Effect::Hold(answer) => {
                let _ = releases.changed().await;
                send(&mut stream, &written(&answer, shared)).await?;
            }
            Effect::Late(delay, answer) => {
                tokio::time::sleep(delay).await;
                send(&mut stream, &written(&answer, shared)).await?;
            }
            Effect::Close => return Ok(()),
            Effect::Reset(answer) => {
                let whole = written(&answer, shared);
                send(&mut stream, &whole[..whole.len() - answer.body.len() / 2]).await?;
                return stream.get_ref().0.set_zero_linger();
            }
            Effect::Drip => {
                send(&mut stream, b"HTTP/1.1 200 OK\r\nX-Slow: ").await?;
                loop {
                    send(&mut stream, b"z").await?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            Effect::Endless => {
                send(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"access_token\":\"").await?;
                loop {
                    send(&mut stream, &[b'z'; 16 << 10]).await?;
                }
            }
        }
    }
    Ok(())
}

async fn send(stream: &mut TlsStream<TcpStream>, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

fn written(answer: &Answer, shared: &Shared) -> Vec<u8> {
    let seconds = shared.clock.now().wall.seconds() + shared.desk().clock_off;
    let date = UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let mut text = format!("HTTP/1.1 {} Said\r\nDate: {}\r\n", answer.status, httpdate::fmt_http_date(date));
    for (name, value) in &answer.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if answer.status != 101 {
        text.push_str(&format!("Cache-Control: no-store\r\nContent-Length: {}\r\n", answer.body.len()));
    }
    text.push_str("\r\n");
    text.push_str(&answer.body);
    text.into_bytes()
}
