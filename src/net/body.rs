//! Bodies on their way through: what we send to others, and what they answer.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use super::connection::Held;
use super::deadline::Patience;
use super::pool::Lease;
use super::unread::Reading;

/// The body of a request that we send. The common ones, none and one already in memory, cost no allocation.
#[derive(Default)]
pub enum RequestBody {
    /// None.
    #[default]
    Empty,
    /// One that is here as a whole; `None` once it was taken.
    Whole(Option<Bytes>),
    /// Somebody's request body, passed on as it comes.
    Incoming(IncomingBody),
    /// Any other stream.
    Stream(UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>),
}

impl RequestBody {
    /// A stream of the caller's own making.
    pub fn stream<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        Self::Stream(UnsyncBoxBody::new(http_body_util::BodyExt::map_err(body, Into::into)))
    }
}

impl From<Bytes> for RequestBody {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Whole(Some(bytes)) }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Incoming(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Self::Stream(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_none(),
            Self::Incoming(body) => body.is_end_stream(),
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Incoming(body) => body.size_hint(),
            Self::Stream(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The content may be a token request: only its kind is said.
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Whole(_) => "Whole",
            Self::Incoming(_) => "Incoming",
            Self::Stream(_) => "Stream",
        })
    }
}

/// The body of an answer. Read to its end it gives its connection back to the pool; dropped earlier it gives it up.
pub struct ResponseBody {
    body: Incoming,
    lease: Option<Lease>,
}

impl ResponseBody {
    /// The body of an answer that came over `lease`, if that can serve others afterwards.
    pub(super) fn new(body: Incoming, lease: Option<Lease>) -> Self {
        let mut this = Self { body, lease };
        this.release_at_end();
        this
    }

    fn release_at_end(&mut self) {
        if self.body.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(context));
        match &frame {
            Some(Ok(_)) => this.release_at_end(),
            Some(Err(_)) => this.lease = None,
            None => {
                if let Some(lease) = this.lease.take() {
                    lease.give_back();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.body, f)
    }
}

/// The body of a request that somebody sends us. Whoever reads it waits for its next part no longer than `limits.idle_timeout`.
pub struct IncomingBody {
    body: Incoming,
    longest: Duration,
    waiting: Patience,
}

impl IncomingBody {
    pub(super) fn new(body: Incoming, longest: Duration) -> Self {
        Self { body, longest, waiting: Patience::default() }
    }
}

/// Why a request's body did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum IncomingError {
    /// Nothing came for too long.
    #[error("nothing of the body came for {}", humantime::format_duration(*.0))]
    Silent(Duration),
    /// The connection or the stream ended.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

impl Body for IncomingBody {
    type Data = Bytes;
    type Error = IncomingError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, IncomingError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(frame) => {
                this.waiting.rewarded();
                Poll::Ready(frame.map(|frame| frame.map_err(IncomingError::Broken)))
            }
            Poll::Pending => this.waiting.poll_exhausted(this.longest, context).map(|()| Some(Err(IncomingError::Silent(this.longest)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for IncomingBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.body, f)
    }
}

pin_project_lite::pin_project! {
    /// The body of an answer of ours: the service's, or a short one in its place. While it lives its connection is busy.
    pub(super) struct Answer<B> {
        #[pin]
        theirs: Option<B>,
        ours: Option<Bytes>,
        held: Held,
        reading: Option<Arc<Reading>>,
    }
}

impl<B> Answer<B> {
    pub(super) fn theirs(body: B, held: Held) -> Self {
        Self::new(Some(body), None, held)
    }

    pub(super) fn ours(body: Bytes, held: Held) -> Self {
        Self::new(None, Some(body), held)
    }

    fn new(theirs: Option<B>, ours: Option<Bytes>, held: Held) -> Self {
        let reading = Reading::current();
        if let Some(reading) = &reading {
            // Where the client has opened no window, nobody will ever ask for a frame.
            reading.set_unread(true);
        }
        Self { theirs, ours, held, reading }
    }
}

impl<B: Body<Data = Bytes>> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        // Whoever asks for more has passed on what it had.
        let mut set_unread = |unread| {
            this.held.set_unread(unread);
            if let Some(reading) = this.reading {
                reading.set_unread(unread);
            }
        };
        set_unread(false);
        let frame = match this.theirs.as_mut().as_pin_mut() {
            Some(body) => std::task::ready!(body.poll_frame(context)),
            None => this.ours.take().map(|bytes| Ok(Frame::data(bytes))),
        };
        set_unread(matches!(&frame, Some(Ok(_))));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.theirs.as_ref().map_or(self.ours.is_none(), Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.theirs {
            Some(body) => body.size_hint(),
            None => SizeHint::with_exact(self.ours.as_ref().map_or(0, |bytes| bytes.len() as u64)),
        }
    }
}
