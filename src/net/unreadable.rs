//! What cannot be read as an HTTP/1 request, answered in our words.
//!
//! hyper answers by itself what it cannot read (a head that is no HTTP, contradicting lengths, a line or a head that is far too long): with a
//! 400, 414 or 431 that has no body and none of our headers. It is the last thing that hyper writes on a connection, which then ends with the error
//! of the parser. So the byte stream keeps back what looks like such an answer ([`Rewording`]) until hyper's next step ([`Watched`]) shows what it was:
//! if the connection ends with that error, whoever serves it gets the stream back and answers instead ([`Cut`]); if anything else happens, the
//! bytes were an application's, and go out as they are.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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

/// What the two halves share. They live in one task; atomics and a mutex only because the task moves between threads.
struct Shared<S> {
    /// hyper is at work: what looks like its own answer is kept back.
    watching: AtomicBool,
    /// Something is kept back.
    holding: AtomicBool,
    cut: Mutex<Option<Cut<S>>>,
}

/// A byte stream that keeps back what looks like hyper's own answer.
pub(super) struct Rewording<S> {
    /// `None` once it was given up at the end.
    stream: Option<S>,
    held: Bytes,
    /// hyper has closed the stream while something was kept back.
    closed: bool,
    shared: Arc<Shared<S>>,
}

/// A connection of hyper's over a [`Rewording`].
pub(super) struct Watched<C, S> {
    pub(super) connection: C,
    shared: Arc<Shared<S>>,
}

/// Where the stream of a connection is found that has ended before its last answer was written.
pub(super) struct Ending<S>(Arc<Shared<S>>);

/// A connection that has ended before its last answer was written.
pub(super) struct Cut<S> {
    stream: S,
    held: Bytes,
}

/// Wraps `stream` for the connection that `serve` makes of it.
pub(super) fn watch<S, C>(stream: S, serve: impl FnOnce(Rewording<S>) -> C) -> (Watched<C, S>, Ending<S>) {
    let shared = Arc::new(Shared { watching: AtomicBool::new(false), holding: AtomicBool::new(false), cut: Mutex::new(None) });
    let connection = serve(Rewording { stream: Some(stream), held: Bytes::new(), closed: false, shared: Arc::clone(&shared) });
    (Watched { connection, shared: Arc::clone(&shared) }, Ending(shared))
}

impl<S> Ending<S> {
    /// The connection, if it was dropped before its last answer was written.
    pub(super) fn cut(self) -> Option<Cut<S>> {
        self.0.cut.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<C: Future + Unpin, S> Future for Watched<C, S> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        loop {
            let watching = !self.shared.holding.load(Ordering::Relaxed);
            self.shared.watching.store(watching, Ordering::Relaxed);
            let outcome = Pin::new(&mut self.connection).poll(context);
            // Who has the stream after an upgrade is not watched.
            self.shared.watching.store(false, Ordering::Relaxed);
            let was_not_its_last = outcome.is_pending() && watching && self.shared.holding.load(Ordering::Relaxed);
            if !was_not_its_last {
                return outcome;
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> Rewording<S> {
    fn stream(&mut self) -> Pin<&mut S> {
        Pin::new(self.stream.as_mut().expect("the stream is given up only when this is dropped"))
    }

    fn is_watched(&self) -> bool {
        self.shared.watching.load(Ordering::Relaxed)
    }

    /// Passes on what was kept back.
    fn poll_release(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.held.has_remaining() {
            let held = self.held.clone();
            let count = ready!(self.stream().poll_write(context, &held))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(count);
        }
        self.shared.holding.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewording<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.as_mut().expect("the stream is given up only when this is dropped")).poll_read(context, buffer)
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
        if self.is_watched()
            && let Some(last) = slices.iter().rposition(|slice| !slice.is_empty())
            && let Some(at) = own_answer(&slices[last])
        {
            // What comes before it goes first, by itself.
            let before = &slices[..last];
            if before.iter().any(|slice| !slice.is_empty()) {
                return self.stream().poll_write_vectored(context, before);
            }
            if at > 0 {
                return self.stream().poll_write(context, &slices[last][..at]);
            }
            self.held = Bytes::copy_from_slice(&slices[last]);
            self.shared.holding.store(true, Ordering::Relaxed);
            return Poll::Ready(Ok(self.held.len()));
        }
        self.stream().poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.has_remaining() && !self.is_watched() {
            ready!(self.poll_release(context))?;
        }
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.has_remaining() {
            if self.is_watched() {
                self.closed = true;
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_release(context))?;
        }
        self.stream().poll_shutdown(context)
    }
}

impl<S> Drop for Rewording<S> {
    fn drop(&mut self) {
        if self.closed
            && let Some(stream) = self.stream.take()
        {
            let cut = Cut { stream, held: std::mem::take(&mut self.held) };
            *self.shared.cut.lock().unwrap_or_else(PoisonError::into_inner) = Some(cut);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Cut<S> {
    /// Whether hyper's own answer says that something was too long, rather than wrong.
    pub(super) fn is_too_long(&self) -> bool {
        self.held.get(b"HTTP/1.1 ".len()..).is_some_and(|status| !status.starts_with(b"400"))
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

    /// Ends the connection with what was kept back: it was no answer of hyper's.
    pub(super) async fn finish(self, patience: Duration) -> io::Result<()> {
        let Self { mut stream, held } = self;
        let said = async {
            stream.write_all(&held).await?;
            stream.shutdown().await
        };
        tokio::time::timeout(patience, said).await?
    }
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
