//! What cannot be read as an HTTP/1 request, answered in our words.
//!
//! hyper answers by itself what it cannot read (a head that is no HTTP, contradicting lengths, a line or a head that is far too long): with a
//! 400, 414 or 431 that has no body and none of our headers. It is the last thing that hyper writes on a connection, which it then shuts down to end
//! with the error of its parser. So the byte stream keeps back what looks like such an answer ([`Rewording`]). If the connection ends so, the
//! bytes are dropped and the server answers instead; if anything else happens, they were an application's and go out as they are: at once,
//! because [`Watched`] has them released as soon as hyper waits for something, and by [`Rewording::finish`] if hyper ends in another way.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes, BytesMut};
use http::{Response, header};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// hyper's own answers are shorter: a status line and three headers.
const LONGEST: usize = 160;
/// What is read away of a client that still sends, so that the answer reaches it before the connection's end does.
const READ_AWAY: u64 = 4 << 20;

/// Whether `bytes` end with an answer that hyper could have given by itself: where it begins.
///
/// Generous, since nothing is decided by it: it says what is worth a moment's waiting.
fn own_answer(bytes: &[u8]) -> Option<usize> {
    if !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let tail = bytes.len().saturating_sub(LONGEST);
    let begins = |window: &[u8]| window.starts_with(b"HTTP/1.");
    let at = tail + bytes[tail..].windows(b"HTTP/1.1 400".len()).rposition(begins)?;
    let status = bytes.get(at + b"HTTP/1.1 ".len()..)?;
    [&b"400 "[..], b"414 ", b"431 "].iter().any(|own| status.starts_with(own)).then_some(at)
}

/// What a byte stream and the connection over it share; atomic only because their task moves between threads.
#[derive(Default)]
struct Watch {
    /// hyper is at work, so that what looks like its own answer may be. Whoever takes a connection over is not watched.
    at_work: AtomicBool,
    /// Something is kept back.
    holding: AtomicBool,
    /// hyper has gone on to wait: what is kept back was not its last word.
    release: AtomicBool,
}

/// A byte stream that keeps back what looks like hyper's own answer.
pub(super) struct Rewording<S> {
    stream: S,
    held: Bytes,
    /// hyper has shut the stream down while something was kept back.
    closed: bool,
    watch: Arc<Watch>,
}

/// A connection of hyper's over a [`Rewording`].
pub(super) struct Watched<C> {
    pub(super) connection: C,
    watch: Arc<Watch>,
}

/// Wraps `stream` for the connection that `serve` makes of it.
pub(super) fn watch<S, C>(stream: S, serve: impl FnOnce(Rewording<S>) -> C) -> Watched<C> {
    let watch = Arc::<Watch>::default();
    let connection = serve(Rewording { stream, held: Bytes::new(), closed: false, watch: Arc::clone(&watch) });
    Watched { connection, watch }
}

impl<C: Future + Unpin> Future for Watched<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        loop {
            self.watch.at_work.store(true, Ordering::Relaxed);
            let outcome = Pin::new(&mut self.connection).poll(context);
            self.watch.at_work.store(false, Ordering::Relaxed);
            let watch = &self.watch;
            // Once for everything that is kept back: hyper flushes in every poll, and is woken when that must wait for the other side.
            let anew = outcome.is_pending() && watch.holding.load(Ordering::Relaxed) && !watch.release.swap(true, Ordering::Relaxed);
            if !anew {
                return outcome;
            }
        }
    }
}

impl<S> Rewording<S> {
    /// Whether what is kept back may still be hyper's last word.
    fn may_be_the_last(&self) -> bool {
        self.watch.at_work.load(Ordering::Relaxed) && !self.watch.release.load(Ordering::Relaxed)
    }

    fn keep_back(&mut self, bytes: &[u8]) {
        self.held = Bytes::copy_from_slice(bytes);
        self.watch.release.store(false, Ordering::Relaxed);
        self.watch.holding.store(true, Ordering::Relaxed);
    }
}

impl<S: AsyncWrite + Unpin> Rewording<S> {
    /// Passes on what was kept back.
    fn poll_release(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.held.has_remaining() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(context, &self.held))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(count);
        }
        self.watch.holding.store(false, Ordering::Relaxed);
        self.watch.release.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewording<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewording<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.held.has_remaining() {
            // It was not the last thing that hyper had to say.
            ready!(self.poll_release(context))?;
        }
        if self.watch.at_work.load(Ordering::Relaxed)
            && let Some(last) = slices.iter().rposition(|slice| !slice.is_empty())
            && let Some(at) = own_answer(&slices[last])
        {
            // What comes before it goes first, by itself.
            let before = &slices[..last];
            if before.iter().any(|slice| !slice.is_empty()) {
                return Pin::new(&mut self.stream).poll_write_vectored(context, before);
            }
            if at > 0 {
                return Pin::new(&mut self.stream).poll_write(context, &slices[last][..at]);
            }
            self.keep_back(&slices[last]);
            return Poll::Ready(Ok(self.held.len()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.has_remaining() && !self.may_be_the_last() {
            ready!(self.poll_release(context))?;
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.has_remaining() {
            if self.may_be_the_last() {
                self.closed = true;
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_release(context))?;
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Rewording<S> {
    /// Of a connection that has ended: whether its last word is still kept back.
    pub(super) fn is_holding(&self) -> bool {
        self.held.has_remaining()
    }

    /// Of a connection that ended with the parser's error: what hyper said by itself, if it did.
    pub(super) fn own_answer(&self) -> Option<OwnAnswer> {
        let status = self.held.get(b"HTTP/1.1 ".len()..).filter(|_| self.closed)?;
        Some(if status.starts_with(b"400") { OwnAnswer::Broken } else { OwnAnswer::TooLong })
    }

    /// Writes `answer` in place of hyper's own, and closes our half of the connection.
    pub(super) async fn answer(mut self, answer: &Response<Bytes>, patience: Duration) -> io::Result<S> {
        let said = async {
            self.stream.write_all(&written(answer)).await?;
            self.stream.shutdown().await
        };
        tokio::time::timeout(patience, said).await??;
        Ok(self.stream)
    }

    /// Writes what was kept back, which was no answer of hyper's, and closes our half of the connection; as patiently as the stream is.
    pub(super) async fn finish(mut self) -> io::Result<()> {
        self.stream.write_all(&self.held).await?;
        self.stream.shutdown().await
    }
}

/// What hyper's own answer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnAnswer {
    /// 400: no HTTP.
    Broken,
    /// 414 or 431.
    TooLong,
}

/// Reads away what the client still sends. The end of a connection with bytes unread is a reset, and takes along what the client has not
/// read of the answer.
pub(super) async fn read_away(stream: impl AsyncRead + Unpin, patience: Duration) {
    // A client that breaks the connection, or sends on and on, has had its answer.
    let _ = tokio::time::timeout(patience, tokio::io::copy(&mut stream.take(READ_AWAY), &mut tokio::io::sink())).await;
}

/// The last answer of an HTTP/1.1 connection as it is written (RFC 9112 §2.1, §9.6).
fn written(answer: &Response<Bytes>) -> BytesMut {
    let (status, body) = (answer.status(), answer.body());
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default()).as_bytes());
    for (name, value) in answer.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    let (length, date) = (body.len(), httpdate::fmt_http_date(SystemTime::now()));
    bytes.extend_from_slice(
        format!("{}: {length}\r\n{}: close\r\n{}: {date}\r\n\r\n", header::CONTENT_LENGTH, header::CONNECTION, header::DATE).as_bytes(),
    );
    bytes.extend_from_slice(body);
    bytes
}
