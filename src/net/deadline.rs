//! Silence that is not allowed to last.
//!
//! hyper has deadlines for the heads of HTTP/1 only. Three of ours cover the rest, each where the silence can be told from patience:
//! a connection with no request under way must begin one in time ([`super::serve`]: nothing sent, half a preface, a head that never
//! ends); a body that somebody waits for must go on ([`super::body::IncomingBody`]); and bytes that we want to write must find a
//! reader (here, and in [`super::serve`] where HTTP/2 holds it back before it is written). A stream of events that is silent for hours breaks none of them.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::connection::Slot;
use super::lane::Pass;
use super::stream::Stream;

/// A timer that is armed while something is awaited, and costs nothing before it first is.
#[derive(Default)]
pub(super) struct Patience {
    timer: Option<Pin<Box<Sleep>>>,
    armed: bool,
}

impl Patience {
    /// Something is awaited: ready when it has been for `longest`.
    pub(super) fn poll_exhausted(&mut self, longest: Duration, context: &mut Context<'_>) -> Poll<()> {
        if !self.armed {
            self.armed = true;
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(Instant::now() + longest),
                None => self.timer = Some(Box::pin(tokio::time::sleep(longest))),
            }
        }
        self.timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(context))
    }

    /// It came. Tells whether it had been awaited at all.
    pub(super) fn rewarded(&mut self) -> bool {
        std::mem::take(&mut self.armed)
    }
}

/// A connection whose writes may not stall for longer than a while. Also gives back bytes that were read ahead, and holds the
/// connection's place among all connections until it is closed, whoever has it by then.
pub(super) struct Deadlined {
    stream: Stream,
    ahead: Bytes,
    write_idle: Duration,
    writing: Patience,
    slot: Option<Arc<Slot>>,
    /// Dropped last, when the connection's file is closed.
    _pass: Option<Pass>,
}

impl Deadlined {
    /// A connection of ours to somebody, which has that place among those that go out.
    pub(super) fn outgoing(stream: Stream, write_idle: Duration, pass: Pass) -> Self {
        Self { stream, ahead: Bytes::new(), write_idle, writing: Patience::default(), slot: None, _pass: Some(pass) }
    }

    /// A connection of somebody to us, of which `ahead` was already read.
    pub(super) fn accepted(stream: Stream, ahead: Bytes, write_idle: Duration, slot: Arc<Slot>) -> Self {
        Self { stream, ahead, write_idle, writing: Patience::default(), slot: Some(slot), _pass: None }
    }

    /// Notes what was written, for whoever looks whether anything is.
    fn note(&self, outcome: &Poll<io::Result<usize>>) {
        if let (Poll::Ready(Ok(length)), Some(slot)) = (outcome, &self.slot) {
            slot.connection().wrote(*length);
        }
    }

    /// Lets a write through or says that it has waited for too long.
    fn judge<T>(&mut self, outcome: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            if self.writing.rewarded()
                && let Some(slot) = &self.slot
            {
                // A slow reader is not an idle connection.
                slot.connection().touch();
            }
            return outcome;
        }
        self.writing
            .poll_exhausted(self.write_idle, context)
            .map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the other side reads nothing")))
    }
}

impl AsyncRead for Deadlined {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.has_remaining() {
            let count = self.ahead.remaining().min(buffer.remaining());
            buffer.put_slice(&self.ahead.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(slot) = &self.slot
            && buffer.filled().len() > before
        {
            slot.connection().heard();
        }
        outcome
    }
}

impl AsyncWrite for Deadlined {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(&outcome);
        self.judge(outcome, context)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note(&outcome);
        self.judge(outcome, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(outcome, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(outcome, context)
    }
}
