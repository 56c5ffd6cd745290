//! One thread per core for connections, each with an event loop of its own.
//!
//! A call needs several tasks: its connection, the stream on it, the connection to where it goes. On one loop they wake each other without
//! a system call, share warm caches, and free memory on the thread that took it. So a connection stays with one thread from its first byte
//! on, and so do the connections that its calls are sent over ([`super::pool`] keeps a set per core). A new connection goes to the core
//! that has the fewest. What runs by itself, and what operators ask, is not here: it is answered however busy the cores are.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// Of a thread with an event loop: deep enough for every task of ours; the default of 2 MiB is touched by none.
pub const STACK_BYTES: usize = 1 << 20;
/// Threads of one core for work that blocks: passwords and names. Idle ones go.
const BLOCKING_THREADS: usize = 8;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// The number of the core that this thread is, from 1 on; 0 on every other thread.
pub(super) fn current() -> usize {
    CURRENT.get()
}

/// The threads. They end when this is dropped, or in order by [`Cores::stop`].
#[derive(Debug)]
pub struct Cores {
    cores: Vec<Core>,
    stop: CancellationToken,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Core {
    handle: Handle,
    /// Connections that it serves.
    busy: Arc<AtomicUsize>,
}

impl Cores {
    /// As many threads as the machine lets this process use cores.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start() -> io::Result<Self> {
        Self::start_so_many(thread::available_parallelism().map_or(1, std::num::NonZero::get))
    }

    pub(super) fn start_so_many(count: usize) -> io::Result<Self> {
        let mut this = Self { cores: Vec::with_capacity(count), stop: CancellationToken::new(), threads: Mutex::default() };
        for number in 1..=count {
            let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build()?;
            this.cores.push(Core { handle: runtime.handle().clone(), busy: Arc::default() });
            let stop = this.stop.clone();
            let thread = thread::Builder::new().name(format!("p2pid-core-{number}")).stack_size(STACK_BYTES).spawn(move || {
                CURRENT.set(number);
                runtime.block_on(stop.cancelled());
                // A name that is being looked up is not waited for.
                runtime.shutdown_background();
            })?;
            this.threads().push(thread);
        }
        Ok(this)
    }

    /// Lets the core with the fewest connections serve another one.
    pub(super) fn spawn<F>(&self, connection: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let core = self.cores.iter().min_by_key(|core| core.busy.load(Ordering::Relaxed)).expect("there is one at least");
        let place = Place::take(&core.busy);
        core.handle.spawn(async move {
            let _place = place;
            connection.await;
        });
    }

    /// Ends all threads and whatever still runs on them, and waits for that.
    pub async fn stop(&self) {
        self.stop.cancel();
        let threads = std::mem::take(&mut *self.threads());
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().filter_map(|thread| thread.join().err()).count());
        if joined.await.is_ok_and(|panicked| panicked > 0) {
            tracing::error!("a thread for connections had ended before it was told to");
        }
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cores {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One connection's place on a core.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(busy: &Arc<AtomicUsize>) -> Self {
        busy.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(busy))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, oneshot};

    use super::*;

    #[tokio::test]
    async fn connections_go_where_the_fewest_are_and_stay_there() {
        let cores = Cores::start_so_many(3).expect("threads");
        let (told, mut tells) = mpsc::unbounded_channel();
        let mut ends = Vec::new();
        let serve = |ends: &mut Vec<oneshot::Sender<()>>| {
            let (end, ended) = oneshot::channel::<()>();
            ends.push(end);
            let told = told.clone();
            cores.spawn(async move {
                let before = current();
                tokio::task::yield_now().await;
                told.send((before, current())).expect("the test listens");
                let _ = ended.await;
                told.send((before, current())).expect("the test listens");
            });
        };
        let mut seen = Vec::new();
        for _ in 0..6 {
            serve(&mut ends);
            seen.push(tells.recv().await.expect("it began"));
        }
        assert!(seen.iter().all(|(before, after)| before == after), "{seen:?}");
        let mut places: Vec<usize> = seen.iter().map(|(place, _)| *place).collect();
        places.sort_unstable();
        assert_eq!(places, [1, 1, 2, 2, 3, 3]);

        // The third connection ends: its core is the one for the next.
        let third = seen[2].0;
        drop(ends.remove(2));
        assert_eq!(tells.recv().await, Some((third, third)));
        while cores.cores[third - 1].busy.load(Ordering::Relaxed) == 2 {
            tokio::task::yield_now().await;
        }
        serve(&mut ends);
        assert_eq!(tells.recv().await, Some((third, third)));
        assert_eq!(current(), 0, "this thread is no core");
    }

    #[tokio::test]
    async fn stopping_ends_what_still_runs() {
        let cores = Cores::start_so_many(2).expect("threads");
        let (kept, gone) = oneshot::channel::<()>();
        cores.spawn(async move {
            let _kept = kept;
            std::future::pending::<()>().await;
        });
        cores.stop().await;
        gone.await.expect_err("its task was dropped");
    }
}
