//! Calls on their way through, as gateway and relay forward them: heads with a deadline, bodies streamed within limits.
//!
//! A body is passed on frame by frame, never gathered. What it must obey costs nothing while frames keep coming: only when one has to be
//! waited for, a timer is set and the end of what the call rests on is listened for.

use std::any::Any;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::body::ResponseBody;
use super::client::SendError;
use super::headers;
use super::life::{Claim, Life};
use super::unread;
use crate::config::Limits;

/// What a call must obey while it is under way.
#[derive(Clone)]
pub struct Terms {
    /// From the request's last byte to the answer's first.
    pub first_byte: Duration,
    /// Longest silence inside a body.
    pub idle: Duration,
    /// Longest body, in bytes.
    pub most: u64,
    /// What the call rests on.
    pub life: Arc<Life>,
    /// And what it needs of that, at the gateway.
    pub claim: Option<Claim>,
    /// What the call takes from others. It is given back when the last of its bodies is done with, or its WebSocket: where the answer is
    /// there and the request is still being sent, the connection that it is sent over is still taken.
    pub places: Option<Arc<dyn Any + Send + Sync>>,
}

impl Terms {
    /// The terms that `limits` set for a call that rests on `life`, or on that of it which `claim` names.
    pub fn new(limits: &Limits, life: Arc<Life>, claim: Option<Claim>) -> Self {
        let most = if limits.body_bytes == 0 { u64::MAX } else { limits.body_bytes };
        Self { first_byte: limits.first_byte_timeout, idle: limits.idle_timeout, most, life, claim, places: None }
    }

    /// The same, with places that the call holds as long as it is under way.
    pub fn holding(self, places: impl Send + Sync + 'static) -> Self {
        Self { places: Some(Arc::new(places)), ..self }
    }

    /// Whether what the call rests on has gone.
    fn is_over(&self) -> bool {
        self.life.is_over(self.claim.as_ref())
    }

    /// Completes when it has gone.
    pub(super) fn over(&self) -> impl Future<Output = ()> + Send + use<> {
        self.life.over(self.claim.clone())
    }
}

/// Why a call got no answer from where it was sent.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The request's body is longer than allowed.
    #[error("the body is longer than {0} bytes")]
    BodyTooLarge(u64),
    /// The request's body stopped coming.
    #[error("the body of the request broke off or stopped coming")]
    BodyStopped,
    /// What the call rests on ended while its body was sent: revoked, unlinked, deleted.
    #[error("the permission that the call rests on was withdrawn")]
    Withdrawn,
    /// No connection, or it ended before there was an answer.
    #[error(transparent)]
    Unreachable(SendError),
    /// No answer in time.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// A 101 that was not asked for, or to another protocol, or a success that switched nothing.
    #[error("found an answer to a protocol change that nobody asked for, or to another protocol")]
    WrongUpgrade,
    /// A body in a transfer coding that is not undone here.
    #[error("found an answer in a transfer coding that nobody asked for; the only one is chunked")]
    WrongCoding,
}

/// Why a body ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Longer than allowed.
    #[error("the body is longer than allowed")]
    TooLarge,
    /// Silent for too long.
    #[error("the body was silent for too long")]
    Silent,
    /// What it rests on has ended: revoked, unlinked, deleted.
    #[error("the permission that the stream rests on was withdrawn")]
    Withdrawn,
    /// The connection that it came over ended.
    #[error("the connection ended inside the body")]
    CutOff,
}

/// How far the sending of a request's body has come; shared by the body and whoever waits for the answer.
#[derive(Debug, Default)]
pub struct Sending {
    frames: AtomicU64,
    ended: OnceLock<Result<Instant, Broken>>,
}

/// The head of an answer that is on its way, but a 101: we passed no `Upgrade` on, so nobody was asked. `sending` is that of the
/// request's body, if it has one. The caller pins the answer: moved in here, it would be there twice in every call's memory.
pub async fn head(
    answer: impl Future<Output = Result<Response<ResponseBody>, SendError>> + Unpin,
    sending: Option<&Sending>,
    terms: &Terms,
) -> Result<Response<ResponseBody>, Failure> {
    let response = first_byte(answer, sending, terms).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS { Err(Failure::WrongUpgrade) } else { Ok(response) }
}

/// Waits for `answer` as long as the terms allow: the request's body may take its time, as long as it moves.
pub(super) async fn first_byte(
    mut answer: impl Future<Output = Result<Response<ResponseBody>, SendError>> + Unpin,
    sending: Option<&Sending>,
    terms: &Terms,
) -> Result<Response<ResponseBody>, Failure> {
    let mut deadline = Instant::now() + terms.first_byte;
    let mut frames = 0;
    loop {
        match tokio::time::timeout_at(deadline, &mut answer).await {
            Ok(Ok(mut response)) => {
                *response.version_mut() = Version::HTTP_11;
                if !headers::settle_framing(response.headers_mut()) {
                    return Err(Failure::WrongCoding);
                }
                return Ok(response);
            }
            Ok(Err(error)) => return Err(failure(error, sending, terms)),
            Err(_) => {
                deadline =
                    sending.and_then(|sending| sending.later_deadline(&mut frames, terms)).ok_or(Failure::Timeout(terms.first_byte))?
            }
        }
    }
}

/// An error of sending may be the fault of the body that was sent.
fn failure(error: SendError, sending: Option<&Sending>, terms: &Terms) -> Failure {
    match sending.and_then(|sending| sending.ended.get()) {
        Some(Err(Broken::TooLarge)) => Failure::BodyTooLarge(terms.most),
        Some(Err(Broken::Silent | Broken::CutOff)) => Failure::BodyStopped,
        Some(Err(Broken::Withdrawn)) => Failure::Withdrawn,
        Some(Ok(_)) | None => Failure::Unreachable(error),
    }
}

impl Sending {
    /// Until when an answer may take, when the one that `frames` was noted for has passed.
    fn later_deadline(&self, frames: &mut u64, terms: &Terms) -> Option<Instant> {
        let now = Instant::now();
        match self.ended.get() {
            Some(Ok(ended)) => Some(*ended + terms.first_byte).filter(|deadline| *deadline > now),
            Some(Err(_)) => None,
            None => {
                let before = std::mem::replace(frames, self.frames.load(Ordering::Relaxed));
                (*frames > before).then(|| now + terms.first_byte)
            }
        }
    }
}

/// The body to send in place of a request's own, and how far it has come; for a request without a body, nothing of both.
pub fn upload<B>(body: B, terms: &Terms) -> Option<(Passage<B>, Arc<Sending>)>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    if body.is_end_stream() {
        return None;
    }
    let sending = Arc::new(Sending::default());
    let mut passage = Passage::new(body, terms.clone(), super::headers::strip_request_trailers);
    passage.sending = Some(Arc::clone(&sending));
    Some((passage, sending))
}

/// The body to answer with in place of a forwarded answer's own.
pub fn download(body: ResponseBody, terms: &Terms, strip: fn(&mut HeaderMap)) -> axum::body::Body {
    if body.is_end_stream() {
        return axum::body::Body::empty();
    }
    let terms = Terms { most: u64::MAX, ..terms.clone() };
    unread::rest_on(|| terms.over());
    axum::body::Body::new(Passage::new(body, terms, strip))
}

/// A body that is passed on under terms.
pub struct Passage<B> {
    body: B,
    terms: Terms,
    /// What its trailers lose.
    strip: fn(&mut HeaderMap),
    passed: u64,
    sending: Option<Arc<Sending>>,
    wait: Option<Pin<Box<Wait>>>,
    is_waiting: bool,
}

pin_project_lite::pin_project! {
    /// What is listened for while no frame comes.
    struct Wait {
        ended: Pin<Box<dyn Future<Output = ()> + Send>>,
        #[pin]
        silence: Sleep,
    }
}

impl<B> Passage<B> {
    fn new(body: B, terms: Terms, strip: fn(&mut HeaderMap)) -> Self {
        Self { body, terms, strip, passed: 0, sending: None, wait: None, is_waiting: false }
    }

    /// Takes note of a frame; it goes on without what its trailers must not say.
    fn pass(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Broken> {
        self.is_waiting = false;
        if let Some(sending) = &self.sending {
            sending.frames.fetch_add(1, Ordering::Relaxed);
        }
        match frame.into_data() {
            Ok(data) => {
                self.passed = self.passed.saturating_add(data.len() as u64);
                if self.passed > self.terms.most { Err(Broken::TooLarge) } else { Ok(Frame::data(data)) }
            }
            Err(frame) => {
                let mut trailers = frame.into_trailers().unwrap_or_default();
                (self.strip)(&mut trailers);
                Ok(Frame::trailers(trailers))
            }
        }
    }

    /// No frame is here: completes when there will be none.
    fn poll_wait(&mut self, context: &mut Context<'_>) -> Poll<Broken> {
        let idle = self.terms.idle;
        let wait = self.wait.get_or_insert_with(|| {
            self.is_waiting = true;
            Box::pin(Wait { ended: Box::pin(self.terms.over()), silence: tokio::time::sleep(idle) })
        });
        let mut wait = wait.as_mut().project();
        if !std::mem::replace(&mut self.is_waiting, true) {
            wait.silence.as_mut().reset(Instant::now() + idle);
        }
        if wait.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(Broken::Withdrawn);
        }
        ready!(wait.silence.poll(context));
        Poll::Ready(Broken::Silent)
    }

    fn note_end(&self, end: Result<Instant, Broken>) {
        if let Some(sending) = &self.sending {
            // The first end is the one that counts.
            let _ = sending.ended.set(end);
        }
    }
}

impl<B> Body for Passage<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        let outcome = if this.terms.is_over() {
            Some(Err(Broken::Withdrawn))
        } else {
            match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => Some(this.pass(frame)),
                Poll::Ready(Some(Err(_))) => Some(Err(Broken::CutOff)),
                Poll::Ready(None) => None,
                Poll::Pending => Some(Err(ready!(this.poll_wait(context)))),
            }
        };
        match &outcome {
            Some(Err(broken)) => this.note_end(Err(*broken)),
            // Who sends it may not ask again once it is known to be over.
            Some(Ok(_)) if this.body.is_end_stream() => this.note_end(Ok(Instant::now())),
            None => this.note_end(Ok(Instant::now())),
            Some(Ok(_)) => {}
        }
        Poll::Ready(outcome)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::pin;

    use futures_util::stream::{self, Stream, StreamExt};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn terms(most: u64, idle: u64) -> (Terms, Arc<Life>) {
        let life = Arc::new(Life::default());
        let (first_byte, idle) = (Duration::from_millis(30), Duration::from_millis(idle));
        (Terms { first_byte, idle, most, life: Arc::clone(&life), claim: None, places: None }, life)
    }

    fn frames(texts: &'static [&'static str]) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Unpin {
        stream::iter(texts).map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes()))))
    }

    fn never() -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Unpin {
        stream::pending()
    }

    #[tokio::test]
    async fn frames_pass_as_they_come_and_trailers_by_the_rules() {
        let (terms, _life) = terms(6, 1_000);
        let trailers = [("checksum", "1"), ("p2pi-client", "admin")];
        let trailers = trailers.map(|(name, value)| (name.parse().expect(name), value.parse().expect(value))).into_iter().collect();
        let body = StreamBody::new(frames(&["abc", "def"]).chain(stream::iter([Ok(Frame::trailers(trailers))])));
        let (mut passage, sending) = upload(body, &terms).expect("it is not at its end");
        for text in ["abc", "def"] {
            let frame = passage.frame().await.expect("a frame").expect("whole");
            assert_eq!(frame.into_data().expect("data"), text);
        }
        let trailers = passage.frame().await.expect("a frame").expect("whole").into_trailers().expect("trailers");
        assert_eq!(trailers.keys().collect::<Vec<_>>(), ["checksum"]);
        assert!(passage.frame().await.is_none());
        assert!(matches!(sending.ended.get(), Some(Ok(_))));
    }

    #[tokio::test]
    async fn a_body_ends_early_when_it_is_too_long_silent_or_withdrawn() {
        let (short, _life) = terms(5, 1_000);
        let (mut passage, sending) = upload(StreamBody::new(frames(&["abc", "def"])), &short).expect("a body");
        assert!(passage.frame().await.expect("a frame").is_ok());
        assert_eq!(passage.frame().await.expect("an end").err(), Some(Broken::TooLarge));
        assert_eq!(sending.ended.get(), Some(&Err(Broken::TooLarge)));

        let (hurried, _life) = terms(5, 20);
        let (mut passage, _) = upload(StreamBody::new(frames(&["abc"]).chain(never())), &hurried).expect("a body");
        assert!(passage.frame().await.expect("a frame").is_ok());
        assert_eq!(passage.frame().await.expect("an end").err(), Some(Broken::Silent));

        let (patient, life) = terms(5, 60_000);
        let (mut passage, _) = upload(StreamBody::new(never()), &patient).expect("a body");
        let waiting = tokio::spawn(async move { passage.frame().await.expect("an end").err() });
        tokio::task::yield_now().await;
        life.end();
        assert_eq!(waiting.await.expect("no panic"), Some(Broken::Withdrawn));

        let (mut passage, _) = upload(StreamBody::new(frames(&["abc"])), &patient).expect("a body");
        assert_eq!(passage.frame().await.expect("an end").err(), Some(Broken::Withdrawn));
    }

    #[tokio::test]
    async fn places_are_held_until_the_last_body_is_done_with() {
        let place = Arc::new(());
        let terms = terms(u64::MAX, 1_000).0.holding(Arc::clone(&place));
        let (passage, _sending) = upload(StreamBody::new(never()), &terms).expect("a body");
        // The answer has come and is empty, and the request is still being sent.
        drop(terms);
        assert_eq!(Arc::strong_count(&place), 2);
        drop(passage);
        assert_eq!(Arc::strong_count(&place), 1);
    }

    #[tokio::test]
    async fn the_first_byte_is_due_after_the_request_s_last() {
        let (patient, _life) = terms(u64::MAX, 1_000);
        let never_answered = std::future::pending::<Result<Response<ResponseBody>, SendError>>;
        assert!(matches!(first_byte(pin!(never_answered()), None, &patient).await, Err(Failure::Timeout(_))));

        // An upload that moves puts it off, and one that stands does not: this one moves whenever the answer is looked for, ten times.
        let sending = Sending::default();
        let answer = std::future::poll_fn(|_| {
            if sending.frames.load(Ordering::Relaxed) < 10 {
                sending.frames.fetch_add(1, Ordering::Relaxed);
            }
            Poll::Pending
        });
        assert!(matches!(first_byte(answer, Some(&sending), &patient).await, Err(Failure::Timeout(_))));
        assert_eq!(sending.frames.load(Ordering::Relaxed), 10, "it was given up while it moved");
    }

    #[test]
    fn a_deadline_moves_with_the_upload_and_stays_after_its_end() {
        let (terms, _life) = terms(u64::MAX, 1_000);
        let (sending, mut frames) = (Sending::default(), 0);
        assert_eq!(sending.later_deadline(&mut frames, &terms), None);
        sending.frames.fetch_add(1, Ordering::Relaxed);
        assert!(sending.later_deadline(&mut frames, &terms).is_some());
        assert_eq!(sending.later_deadline(&mut frames, &terms), None, "nothing has moved since");

        let patient = Terms { first_byte: Duration::from_secs(3_600), ..terms.clone() };
        let ended = Instant::now();
        sending.ended.set(Ok(ended)).expect("it was open");
        assert_eq!(sending.later_deadline(&mut frames, &patient), Some(ended + patient.first_byte));
        let hurried = Terms { first_byte: Duration::ZERO, ..terms };
        assert_eq!(sending.later_deadline(&mut frames, &hurried), None, "it has passed");
    }

    #[tokio::test]
    async fn an_error_of_sending_may_be_the_body_s_fault() {
        let (short, _life) = terms(5, 1_000);
        let broken = || async { Err(SendError::Broken("reset".to_owned())) };
        let sending = Sending::default();
        assert!(matches!(first_byte(pin!(broken()), Some(&sending), &short).await, Err(Failure::Unreachable(_))));
        sending.ended.set(Err(Broken::TooLarge)).expect("it was open");
        assert!(matches!(first_byte(pin!(broken()), Some(&sending), &short).await, Err(Failure::BodyTooLarge(5))));
        for (end, is_the_clients) in [(Broken::CutOff, true), (Broken::Silent, true), (Broken::Withdrawn, false)] {
            let sending = Sending::default();
            sending.ended.set(Err(end)).expect("it was open");
            let failure = first_byte(pin!(broken()), Some(&sending), &short).await.expect_err("it broke");
            assert_eq!(matches!(failure, Failure::BodyStopped), is_the_clients, "{end:?}: {failure:?}");
            assert_eq!(matches!(failure, Failure::Withdrawn), !is_the_clients, "{end:?}: {failure:?}");
        }
    }
}
