//! HTTP/2 answers whose clients stop reading.
//!
//! A client that opens no window for a stream keeps its connection alive all the same (RFC 9113 §5.2), and hyper asks a body for its next
//! frame only when there is room for it: the body alone would learn neither that it waits too long nor that what it rests on has ended, and
//! would keep the connection that it comes over. So the task of each stream is watched here. It costs a timer only while a client has a
//! frame to take. (An HTTP/1.1 connection has one answer at a time, and `serve` gives it up as a whole.)

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::rt::Executor;
use tokio::task::futures::TaskLocalFuture;
use tokio::time::{Instant, Sleep};

tokio::task_local! {
    /// That of the stream whose task this is.
    static READING: Arc<Reading>;
}

/// How far the client has come with the answer on one stream.
#[derive(Default)]
pub(super) struct Reading {
    /// Odd while the client has a part of the answer to take; every part has a number of its own.
    part: AtomicU64,
    /// Completes when what the answer rests on has ended.
    over: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl Reading {
    /// That of the stream whose task this is; none over HTTP/1.1.
    pub(super) fn current() -> Option<Arc<Self>> {
        READING.try_with(Arc::clone).ok()
    }

    /// Notes whether the client has a part of the answer to take. Only the stream's own task does so.
    pub(super) fn set_unread(&self, unread: bool) {
        let part = self.part.load(Ordering::Relaxed);
        if unread != (part % 2 == 1) {
            self.part.store(part + 1, Ordering::Relaxed);
        }
    }

    /// The part that the client has to take.
    fn unread(&self) -> Option<u64> {
        Some(self.part.load(Ordering::Relaxed)).filter(|part| part % 2 == 1)
    }

    fn poll_over(&self, context: &mut Context<'_>) -> Poll<()> {
        match self.over.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(over) => over.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

/// Lets the answer on the stream whose task this is end when `over` does, whether its client reads or not. Over HTTP/1.1 nothing happens.
pub(super) fn rest_on<F: Future<Output = ()> + Send + 'static>(over: impl FnOnce() -> F) {
    let _ = READING.try_with(|reading| {
        *reading.over.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::pin(over()));
    });
}

/// Runs the streams of one connection.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    /// How long a client may leave a part of an answer.
    longest: Duration,
}

impl Streams {
    pub(super) const fn new(longest: Duration) -> Self {
        Self { longest }
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        tokio::spawn(Watched::new(stream, self.longest));
    }
}

pin_project_lite::pin_project! {
    /// A stream's task. When it ends before its answer does, the stream is reset (RFC 9113 §5.4.2).
    struct Watched<F> {
        #[pin]
        stream: TaskLocalFuture<Arc<Reading>, F>,
        reading: Arc<Reading>,
        longest: Duration,
        waiting: Option<Waiting>,
    }
}

/// A client has a part of an answer to take.
struct Waiting {
    part: u64,
    timer: Pin<Box<Sleep>>,
}

impl<F: Future<Output = ()>> Watched<F> {
    fn new(stream: F, longest: Duration) -> Self {
        let reading = Arc::<Reading>::default();
        Self { stream: READING.scope(Arc::clone(&reading), stream), reading, longest, waiting: None }
    }
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.stream.poll(context).is_ready() {
            return Poll::Ready(());
        }
        let Some(part) = this.reading.unread() else { return Poll::Pending };
        let until = || Instant::now() + *this.longest;
        let waiting = this.waiting.get_or_insert_with(|| Waiting { part, timer: Box::pin(tokio::time::sleep_until(until())) });
        if std::mem::replace(&mut waiting.part, part) != part {
            waiting.timer.as_mut().reset(until());
        }
        let is_over = this.reading.poll_over(context).is_ready();
        if is_over || waiting.timer.as_mut().poll(context).is_ready() {
            tracing::debug!(is_over, "the client reads nothing of its answer; the stream ends");
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::net::life::Life;

    const SOON: Duration = Duration::from_millis(30);
    const NEVER: Duration = Duration::from_secs(3_600);

    fn now_unread(unread: bool) {
        Reading::current().expect("it is a stream's task").set_unread(unread);
    }

    #[tokio::test]
    async fn a_stream_ends_when_its_client_leaves_one_part_for_too_long() {
        let is_left = Arc::new(AtomicBool::new(false));
        let note = Arc::clone(&is_left);
        let stream = async move {
            // Each is taken in time, and all of them are not.
            for _ in 0..20 {
                now_unread(true);
                tokio::time::sleep(SOON / 10).await;
                now_unread(false);
            }
            // There is nothing to take.
            tokio::time::sleep(3 * SOON).await;
            now_unread(true);
            note.store(true, Ordering::Relaxed);
            pending().await
        };
        Watched::new(stream, SOON).await;
        assert!(is_left.load(Ordering::Relaxed), "it ended before");
    }

    #[tokio::test]
    async fn a_stream_that_is_not_read_ends_with_what_it_rests_on() {
        let life = Arc::new(Life::default());
        let stream = |unread: bool| {
            let life = Arc::clone(&life);
            tokio::spawn(Watched::new(
                async move {
                    rest_on(|| life.over(None));
                    now_unread(unread);
                    pending().await
                },
                NEVER,
            ))
        };
        let (read, unread) = (stream(false), stream(true));
        tokio::task::yield_now().await;
        assert!(!unread.is_finished());
        life.end();
        unread.await.expect("no panic");
        stream(true).await.expect("it was over from the beginning");
        assert!(!read.is_finished(), "its body says so itself");
    }

    #[tokio::test]
    async fn over_http_1_nobody_watches() {
        assert!(Reading::current().is_none());
        rest_on(|| -> std::future::Pending<()> { panic!("nobody listens") });
    }
}
