//! The reader pool: a few threads, each with a connection that refuses to write, and one bounded queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::connection::{self, Counters, Use};
use super::{Fault, StoreError};

/// Threads, and so looks at the same time.
const THREADS: usize = 3;

/// Looks that may wait.
const WAITING: usize = 2048;

type Look = Box<dyn FnOnce(Result<&Connection, StoreError>) + Send>;

enum Message {
    Look(Look),
    Close,
}

/// Where looks wait for a reader.
pub(super) struct Queue {
    sender: SyncSender<Message>,
    ended: tokio::sync::Mutex<Vec<oneshot::Receiver<()>>>,
}

/// The readers' connections, which the writer closes when it must be alone with the database.
#[derive(Clone)]
pub(super) struct Connections(Arc<[Mutex<Option<Connection>>; THREADS]>);

impl Connections {
    pub(super) fn new() -> Self {
        Self(Arc::new([const { Mutex::new(None) }; THREADS]))
    }

    /// Closes every reader's connection and keeps them closed while the result lives.
    pub(super) fn hold_closed(&self) -> Vec<MutexGuard<'_, Option<Connection>>> {
        self.0
            .iter()
            .map(|slot| {
                let mut connection = lock(slot);
                *connection = None;
                connection
            })
            .collect()
    }
}

impl Queue {
    /// Starts the threads.
    pub(super) fn start(path: PathBuf, connections: Connections, counters: &Arc<Counters>) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING);
        let receiver = Arc::new(Mutex::new(receiver));
        let mut ended = Vec::with_capacity(THREADS);
        for number in 0..THREADS {
            let (end, has_ended) = oneshot::channel();
            let (path, connections) = (path.clone(), connections.clone());
            let (receiver, counters) = (Arc::clone(&receiver), Arc::clone(counters));
            thread::Builder::new().name(format!("store-reader-{number}")).spawn(move || {
                counters.adopt_thread();
                serve(&receiver, &path, &connections.0[number]);
                let _ = end.send(());
            })?;
            ended.push(has_ended);
        }
        Ok(Self { sender, ended: tokio::sync::Mutex::new(ended) })
    }

    pub(super) async fn put<T, F>(&self, look: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let look = Message::Look(Box::new(move |connection| {
            let _ = reply.send(connection.and_then(|connection| look_at_one_state(connection, look)));
        }));
        self.sender.try_send(look).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Overloaded,
            TrySendError::Disconnected(_) => StoreError::Unavailable,
        })?;
        answer.await.unwrap_or(Err(StoreError::Unavailable))
    }

    pub(super) async fn close(&self) {
        let mut ended = self.ended.lock().await;
        // Any reader may take any message, so all are told before any is waited for. A full queue drains; what came before is answered.
        for _ in ended.iter() {
            while let Err(TrySendError::Full(_)) = self.sender.try_send(Message::Close) {
                tokio::task::yield_now().await;
            }
        }
        for has_ended in ended.drain(..) {
            let _ = has_ended.await;
        }
    }
}

fn serve(queue: &Mutex<Receiver<Message>>, path: &Path, slot: &Mutex<Option<Connection>>) {
    loop {
        let message = lock(queue).recv();
        let Ok(Message::Look(look)) = message else { break };
        let mut slot = lock(slot);
        if slot.is_none() {
            match connection::connect(path, Use::Read) {
                Ok(connection) => *slot = Some(connection),
                Err(error) => {
                    tracing::error!(%error, "a reader cannot open the database");
                    look(Err(StoreError::Unavailable));
                    continue;
                }
            }
        }
        let connection = slot.as_ref().expect("it was opened above");
        look(Ok(connection));
        // What could not be rolled back is closed, and opened anew for the next.
        if !connection.is_autocommit() {
            *slot = None;
        }
    }
    *lock(slot) = None;
}

fn look_at_one_state<T>(connection: &Connection, look: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, StoreError> {
    let run = |sql| connection.prepare_cached(sql).and_then(|mut statement| statement.execute([]));
    run("BEGIN").map_err(|error| failed(error.into()))?;
    let looked = catch_unwind(AssertUnwindSafe(|| look(connection)));
    // Some errors have ended the transaction already.
    if !connection.is_autocommit()
        && let Err(error) = run("ROLLBACK")
    {
        return Err(failed(error.into()));
    }
    match looked {
        Ok(result) => result.map_err(failed),
        Err(_) => {
            tracing::error!("a look at the database panicked");
            Err(StoreError::Panicked)
        }
    }
}

fn failed(fault: Fault) -> StoreError {
    tracing::error!(%fault, "a look at the database failed");
    fault.into_error()
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is whole after every panic: a queue's end, or a connection whose transaction was rolled back.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
