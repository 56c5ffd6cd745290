//! The body of a call, remembered while it is short, so that the call can be made once more with another token.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::sync::oneshot;

use crate::net::proxy::{Broken, Passage};

/// As much of a body is remembered.
pub(super) const MOST: usize = 64 * 1024;

/// How long a long body waits for `100 Continue` before it is sent anyway: not every server says it (RFC 9110 §10.1.1).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// A body, and what was read of it.
pub(super) struct Tape<B> {
    state: Mutex<State<B>>,
}

struct State<B> {
    body: Passage<B>,
    /// What was read so far; `None` once it was too much, or is not needed any more.
    read: Option<Vec<Piece>>,
    length: usize,
    /// Which reader may go on: a new one takes the body from the one before.
    reader: u8,
}

#[derive(Clone)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl From<Piece> for Frame<Bytes> {
    fn from(piece: Piece) -> Self {
        match piece {
            Piece::Data(data) => Frame::data(data),
            Piece::Trailers(trailers) => Frame::trailers(trailers),
        }
    }
}

impl<B> Tape<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    pub(super) fn new(body: Passage<B>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { body, read: Some(Vec::new()), length: 0, reader: 0 }) })
    }

    /// The body from its beginning; `None` when that is not remembered any more. An earlier reader gets nothing further.
    pub(super) fn from_the_beginning(self: &Arc<Self>) -> Option<Reader<B>> {
        let mut state = self.lock();
        state.read.as_ref()?;
        state.reader += 1;
        Some(Reader { tape: Arc::clone(self), reader: state.reader, at: 0, held: None })
    }

    /// Whether the body can still be sent from its beginning.
    pub(super) fn is_remembered(&self) -> bool {
        self.lock().read.is_some()
    }

    /// The call is settled: nothing needs to be remembered.
    pub(super) fn forget(&self) {
        self.lock().read = None;
    }

    /// A panic elsewhere leaves the state whole: each frame is one step.
    fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body as one attempt sends it.
pub(super) struct Reader<B> {
    tape: Arc<Tape<B>>,
    reader: u8,
    /// How many pieces this attempt has sent.
    at: usize,
    held: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<B> Reader<B> {
    /// Holds the body back until the server wants it: until the sender gives word or is gone, or for a second.
    pub(super) fn hold(&mut self) -> oneshot::Sender<()> {
        let (wanted, word) = oneshot::channel();
        self.held = Some(Box::pin(tokio::time::timeout(CONTINUE_WAIT, word).map(|_| ())));
        wanted
    }
}

impl<B> Body for Reader<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        if let Some(held) = &mut this.held {
            ready!(held.as_mut().poll(context));
            this.held = None;
        }
        let mut state = this.tape.lock();
        if state.reader != this.reader {
            return Poll::Ready(Some(Err(Broken::CutOff)));
        }
        if let Some(piece) = state.read.as_ref().and_then(|read| read.get(this.at)) {
            this.at += 1;
            return Poll::Ready(Some(Ok(piece.clone().into())));
        }
        let frame = match ready!(Pin::new(&mut state.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            end => return Poll::Ready(end),
        };
        this.at += 1;
        Poll::Ready(Some(Ok(state.remember(frame))))
    }

    fn is_end_stream(&self) -> bool {
        let state = self.tape.lock();
        self.held.is_none() && state.read.as_ref().is_none_or(|read| self.at >= read.len()) && state.body.is_end_stream()
    }
}

impl<B> State<B> {
    fn remember(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let Some(read) = &mut self.read else { return frame };
        let piece = match frame.into_data() {
            Ok(data) => Piece::Data(data),
            Err(frame) => Piece::Trailers(frame.into_trailers().unwrap_or_default()),
        };
        if let Piece::Data(data) = &piece {
            self.length += data.len();
        }
        if self.length > MOST {
            self.read = None;
            return piece.into();
        }
        read.push(piece.clone());
        piece.into()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;
    use crate::net::proxy::{Terms, upload};

    fn tape(pieces: Vec<Bytes>) -> Arc<Tape<impl Body<Data = Bytes> + Unpin>> {
        let frames = stream::iter(pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece))));
        let (first_byte, idle) = (Duration::from_secs(1), Duration::from_secs(1));
        let terms = Terms { first_byte, idle, most: u64::MAX, life: Arc::default(), claim: None, places: None };
        Tape::new(upload(StreamBody::new(frames), &terms).expect("a body").0)
    }

    async fn rest<B: Body<Data = Bytes, Error = Broken> + Unpin>(reader: B) -> Result<Bytes, Broken> {
        reader.collect().await.map(|collected| collected.to_bytes())
    }

    #[tokio::test]
    async fn a_short_body_is_sent_twice_wherever_the_first_attempt_stopped() {
        for read_before in 0..3 {
            let tape = tape(vec![Bytes::from_static(b"ab"), Bytes::from_static(b"cd")]);
            let mut first = tape.from_the_beginning().expect("nothing is lost yet");
            for _ in 0..read_before {
                first.frame().await.expect("a frame").expect("whole");
            }
            let second = tape.from_the_beginning().expect("it is short");
            assert_eq!(first.frame().await.expect("an end").err(), Some(Broken::CutOff), "one body, one reader");
            assert_eq!(rest(second).await.expect("whole"), "abcd");
        }
    }

    #[tokio::test]
    async fn a_long_body_is_sent_once() {
        let tape = tape(vec![Bytes::from(vec![b'a'; MOST]), Bytes::from_static(b"b")]);
        let mut first = tape.from_the_beginning().expect("nothing is lost yet");
        first.frame().await.expect("a frame").expect("whole");
        first.frame().await.expect("a frame").expect("whole");
        assert!(tape.from_the_beginning().is_none());
        assert!(first.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_body_is_held_until_it_is_wanted() {
        let tape = tape(vec![Bytes::from_static(b"ab")]);
        let mut reader = tape.from_the_beginning().expect("nothing is lost yet");
        let wanted = reader.hold();
        assert!(reader.frame().now_or_never().is_none());
        wanted.send(()).expect("the reader waits");
        assert_eq!(rest(reader).await.expect("whole"), "ab");
    }
}
