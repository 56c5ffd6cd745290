//! A raw connection: sends exactly the bytes that a test writes, and reads what comes back.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::message::{self, Buffer, Message};
use super::patience::within;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// One connection.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    buffer: Buffer,
}

impl Wire {
    /// Without TLS.
    pub(crate) async fn plain(address: SocketAddr) -> Self {
        let stream = within("a TCP connection", TcpStream::connect(address)).await;
        Self::over(stream.unwrap_or_else(|error| panic!("{address}: {error}")))
    }

    /// To a Unix socket.
    pub(crate) async fn unix(path: &Path) -> Self {
        let stream = within("a connection to a Unix socket", UnixStream::connect(path)).await;
        Self::over(stream.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    /// With TLS, trusting the certificates in `authority`.
    pub(crate) async fn tls(address: SocketAddr, authority: &Path) -> Self {
        Self::tls_by(address, trusting(authority)).await
    }

    /// With TLS as `config` says.
    pub(crate) async fn tls_by(address: SocketAddr, config: Arc<rustls::ClientConfig>) -> Self {
        let stream = within("a TCP connection", TcpStream::connect(address)).await;
        let stream = stream.unwrap_or_else(|error| panic!("{address}: {error}"));
        let name = ServerName::from(address.ip());
        let connector = TlsConnector::from(config);
        let stream = within("a TLS handshake", connector.connect(name, stream)).await;
        Self::over(stream.unwrap_or_else(|error| panic!("{address}: {error}")))
    }

    fn over(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), buffer: Buffer::default() }
    }

    /// Sends `bytes` as they are. A connection that the other side has closed shows in what is read next.
    pub(crate) async fn sends(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        within("bytes to be taken", async {
            let _ = self.stream.write_all(bytes).await;
            let _ = self.stream.flush().await;
        })
        .await;
        self
    }

    /// The next whole answer; `None` when the connection ends without one.
    pub(crate) async fn answer(&mut self) -> Option<Message> {
        within("an answer", message::read(&mut self.stream, &mut self.buffer, true)).await.ok().flatten()
    }

    /// Sends `request` and reads its answer.
    pub(crate) async fn asks(&mut self, request: impl AsRef<[u8]>) -> Message {
        self.sends(request).await;
        self.answer().await.expect("an answer before the connection ends")
    }

    /// Up to `length` bytes as they come; empty at the end of the connection.
    pub(crate) async fn some_bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let read = within("bytes", self.stream.read(&mut bytes)).await.unwrap_or(0);
        bytes.truncate(read);
        bytes
    }

    /// Waits for the other side to close the connection, reading away what still comes.
    pub(crate) async fn ends(&mut self) {
        within("the connection to be closed", async { while matches!(self.stream.read(&mut [0; 4096]).await, Ok(1..)) {} }).await;
    }
}

/// A TLS client configuration that trusts the certificates in `authority` and speaks HTTP/1.1.
pub(crate) fn trusting(authority: &Path) -> Arc<rustls::ClientConfig> {
    Arc::new(rustls::ClientConfig::builder().with_root_certificates(roots(authority)).with_no_client_auth())
}

/// The certificates in `authority`.
pub(crate) fn roots(authority: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).unwrap_or_else(|error| panic!("{}: {error}", authority.display())) {
        roots.add(certificate.expect("a PEM certificate")).expect("a certificate that can be an authority");
    }
    roots
}
