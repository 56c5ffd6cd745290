//! A share of something: so many at once, so many that wait, and no more. One peer's of the relay, one sender's there, one grant's and one app's of
//! the gateway, that of each kind of connections that go out, and of those for keys one tenant's and one app's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// What may happen on a lane at once; the configuration's values of the moment.
#[derive(Clone, Copy, Debug)]
pub struct Width {
    /// Calls under way.
    pub calls: usize,
    /// Calls waiting for one of those to end.
    pub queue: usize,
    /// How long they wait.
    pub wait: Duration,
}

/// What shares a bound: the calls to one peer, for example.
#[derive(Debug, Default)]
pub struct Lane {
    running: AtomicUsize,
    waiting: AtomicUsize,
    freed: Notify,
}

/// What stands for the number of those under way where nobody comes in any more: more than any width.
const CLOSED: usize = usize::MAX;

/// One call's place on its lane; given back when dropped.
#[derive(Debug)]
pub struct Pass(Arc<Lane>);

impl Lane {
    /// A place: at once if there is one, otherwise in the order of asking. `None` when too many wait, or for too long.
    pub async fn enter(self: &Arc<Self>, width: Width) -> Option<Pass> {
        match self.try_enter(width.calls) {
            Some(pass) => Some(pass),
            None => Box::pin(self.queue(width)).await,
        }
    }

    /// A place, if one of `calls` is free now.
    pub fn try_enter(self: &Arc<Self>, calls: usize) -> Option<Pass> {
        let take = |running: usize| (running < calls).then(|| running + 1);
        self.running.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).ok().map(|_| Pass(Arc::clone(self)))
    }

    /// How many are under way.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Closes the lane for good if nothing is under way; whether it is closed. On one that is closed there is no place for anybody.
    pub fn close_if_idle(&self) -> bool {
        match self.running.compare_exchange(0, CLOSED, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => true,
            Err(running) => running == CLOSED,
        }
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.running.load(Ordering::SeqCst) == CLOSED
    }

    async fn queue(self: &Arc<Self>, width: Width) -> Option<Pass> {
        let _waiting = Waiting::enter(&self.waiting, width.queue)?;
        let entered = async {
            loop {
                let mut freed = std::pin::pin!(self.freed.notified());
                // In line before the look, so a place that is freed in between is not missed.
                freed.as_mut().enable();
                if let Some(pass) = self.try_enter(width.calls) {
                    return pass;
                }
                freed.await;
            }
        };
        tokio::time::timeout(width.wait, entered).await.ok()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        // Who leaves writes `running` and reads `waiting`, who comes writes `waiting` and reads `running`. In one order of all four, at least
        // one of them sees the other; with less, on some processors, neither may, and the waiting one is never told.
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        if self.0.waiting.load(Ordering::SeqCst) > 0 {
            self.0.freed.notify_one();
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize, most: usize) -> Option<Self> {
        // Counted first: two at once cannot both take the last place. Dropping gives it back either way.
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::SeqCst) < most).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn width(calls: usize, queue: usize, wait: u64) -> Width {
        Width { calls, queue, wait: Duration::from_millis(wait) }
    }

    #[tokio::test]
    async fn a_lane_takes_so_many_lets_so_many_wait_and_refuses_the_rest() {
        let lane = Arc::new(Lane::default());
        let first = lane.enter(width(1, 1, 1_000)).await.expect("the lane is free");
        let second = tokio::spawn({
            let lane = Arc::clone(&lane);
            async move { lane.enter(width(1, 1, 1_000)).await }
        });
        while lane.waiting.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(lane.enter(width(1, 1, 1_000)).await.is_none(), "the queue is full");
        drop(first);
        let second = second.await.expect("no panic").expect("the place was freed");
        assert!(lane.enter(width(1, 1, 10)).await.is_none(), "nobody leaves in time");
        drop(second);
        assert!(lane.enter(width(1, 0, 0)).await.is_some());
    }

    #[test]
    fn a_lane_is_closed_only_while_nothing_is_under_way_and_then_for_good() {
        let lane = Arc::new(Lane::default());
        let pass = lane.try_enter(usize::MAX).expect("it is free");
        assert!(!lane.close_if_idle() && !lane.is_closed());
        drop(pass);
        assert!(lane.close_if_idle() && lane.is_closed() && lane.close_if_idle());
        assert!(lane.try_enter(usize::MAX).is_none());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nobody_waits_for_ever() {
        let lane = Arc::new(Lane::default());
        let calls: Vec<_> = (0..200)
            .map(|_| {
                let lane = Arc::clone(&lane);
                tokio::spawn(async move {
                    let pass = lane.enter(width(3, 200, 10_000)).await.expect("a place in time");
                    assert!(lane.running.load(Ordering::Relaxed) <= 3);
                    tokio::task::yield_now().await;
                    drop(pass);
                })
            })
            .collect();
        for call in calls {
            call.await.expect("no panic");
        }
        assert_eq!(lane.running.load(Ordering::Relaxed), 0);
        assert_eq!(lane.waiting.load(Ordering::Relaxed), 0);
    }
}
