//! The writer thread: group commit.
//!
//! What waits is drained into one transaction, at most [`BATCH`] items, each judged in a savepoint of its own; after the commit, which
//! waits for the disk once, all are answered. A fault or a panic undoes one item. Some errors (disk full, I/O) undo the whole transaction,
//! and savepoints after that would commit one by one: so after each item SQLite is asked whether the transaction is still there, and when
//! it is gone every item of the batch is judged again alone. An error of the commit itself leaves open what the disk holds: the batch is
//! answered with "unavailable" and the database is closed and opened again before anything else is judged; twice in a row is the end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use tokio::sync::{oneshot, watch};

use super::audit::{self, Trail};
use super::connection::{self, Counters, Use};
use super::open::Lock;
use super::reader::Connections;
use super::{Fault, StoreError, Transaction};
use crate::audit::Origin;
use crate::clock::{Clock, Moment};

/// Items in one transaction.
const BATCH: usize = 256;

/// Items that may wait.
const WAITING: usize = 8192;

/// Pages by which the log grows before it is copied back into the database: a few megabytes, so that a restart reads little.
const LOG_PAGES: i64 = 4_000;

/// Where items wait for the writer.
pub(super) struct Queue {
    sender: SyncSender<Message>,
    ended: tokio::sync::Mutex<Option<oneshot::Receiver<()>>>,
}

/// A writer that serves.
pub(super) struct Started {
    pub(super) queue: Queue,
    /// Why the database can no longer be trusted.
    pub(super) lost: watch::Receiver<Option<String>>,
    /// Changes whenever the database was opened again, after a commit of which it was unknown whether it holds.
    pub(super) reopenings: watch::Receiver<()>,
}

enum Message {
    Item(Box<dyn Item>),
    Close,
}

/// A request that waits to be judged; the type of its answer is its own affair.
trait Item: Send {
    fn is_expired(&self, now: &Moment) -> bool;

    /// Where it comes from, for the audit.
    fn origin(&self) -> Option<Arc<Origin>>;

    /// Judges, and keeps the answer until the outcome is known.
    fn judge(&mut self, transaction: &Transaction<'_>) -> Result<(), Fault>;

    /// Gives the kept answer, or why there is none.
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Request<T, F> {
    judge: F,
    deadline: Option<(Moment, Duration)>,
    origin: Option<Arc<Origin>>,
    answer: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Item for Request<T, F>
where
    T: Send,
    F: FnMut(&Transaction<'_>) -> Result<T, Fault> + Send,
{
    fn is_expired(&self, now: &Moment) -> bool {
        self.deadline.as_ref().is_some_and(|(since, longest)| now.age_of(since) > *longest)
    }

    fn origin(&self) -> Option<Arc<Origin>> {
        self.origin.clone()
    }

    fn judge(&mut self, transaction: &Transaction<'_>) -> Result<(), Fault> {
        self.answer = None;
        let before = transaction.total_changes();
        self.answer = Some((self.judge)(transaction)?);
        transaction.tell_the_rest(before)
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { answer, reply, .. } = *self;
        // Whoever asked may have gone away.
        let _ = reply.send(outcome.and_then(|()| answer.ok_or(StoreError::Unavailable)));
    }
}

impl Queue {
    /// Starts the thread, which owns `lock` until it ends.
    pub(super) fn start(
        connection: Connection,
        path: PathBuf,
        lock: Lock,
        readers: Connections,
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
    ) -> std::io::Result<Started> {
        let (sender, queue) = sync_channel(WAITING);
        let (lost, is_lost) = watch::channel(None);
        let (reopened, reopenings) = watch::channel(());
        let (end, has_ended) = oneshot::channel();
        thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
            counters.adopt_thread();
            let writer = Writer { connection, path, readers, clock, unknown: 0, reopened, copied: 0 };
            // Judges' panics are caught one by one; one of the writer's own is the end of it.
            let served = catch_unwind(AssertUnwindSafe(|| writer.serve(&queue)));
            if let Err(reason) = served.unwrap_or_else(|_| Err("the writer panicked".to_owned())) {
                tracing::error!(reason, "the database can no longer be trusted");
                lost.send_replace(Some(reason));
            }
            drop(queue);
            drop(lock);
            let _ = end.send(());
        })?;
        let queue = Self { sender, ended: tokio::sync::Mutex::new(Some(has_ended)) };
        Ok(Started { queue, lost: is_lost, reopenings })
    }

    pub(super) async fn put<T, F>(&self, judge: F, deadline: Option<(Moment, Duration)>) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Transaction<'_>) -> Result<T, Fault> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let item = Box::new(Request { judge, deadline, origin: audit::current(), answer: None, reply });
        self.sender.try_send(Message::Item(item)).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Overloaded,
            TrySendError::Disconnected(_) => StoreError::Unavailable,
        })?;
        answer.await.unwrap_or(Err(StoreError::Unavailable))
    }

    pub(super) async fn close(&self) {
        if let Some(has_ended) = self.ended.lock().await.take() {
            while let Err(TrySendError::Full(_)) = self.sender.try_send(Message::Close) {
                tokio::task::yield_now().await;
            }
            let _ = has_ended.await;
        }
    }
}

struct Writer {
    connection: Connection,
    path: PathBuf,
    readers: Connections,
    clock: Arc<dyn Clock>,
    /// Commits in a row whose outcome is unknown.
    unknown: u32,
    /// Told when the outcome of a commit was unknown, once the database says what it holds.
    reopened: watch::Sender<()>,
    /// How many of the log's pages were there when it was last copied back.
    copied: i64,
}

struct Slot {
    item: Box<dyn Item>,
    outcome: Result<(), StoreError>,
}

/// How a transaction ended.
enum End {
    /// Each slot's outcome holds.
    Decided,
    /// It was undone by SQLite: nothing of it holds.
    Undone,
    /// It could not begin: nothing was judged.
    NotBegun(rusqlite::Error),
    /// It may hold or not.
    Unknown(rusqlite::Error),
}

impl Writer {
    /// Serves the queue until it is closed; the error is the reason to end the process.
    fn serve(mut self, queue: &Receiver<Message>) -> Result<(), String> {
        let mut batch = Vec::with_capacity(BATCH);
        while let Ok(message) = queue.recv() {
            let mut message = Some(message);
            let mut closing = false;
            while let Some(received) = message {
                match received {
                    Message::Item(item) => batch.push(Slot { item, outcome: Ok(()) }),
                    Message::Close => closing = true,
                }
                message = if closing || batch.len() == BATCH { None } else { queue.try_recv().ok() };
            }
            self.decide(&mut batch)?;
            if closing {
                break;
            }
            self.copy_back();
        }
        Ok(())
    }

    /// Judges the batch and answers all of it; leaves it empty.
    fn decide(&mut self, batch: &mut Vec<Slot>) -> Result<(), String> {
        match self.attempt(batch) {
            End::Decided => {
                batch.drain(..).for_each(|slot| slot.item.answer(slot.outcome));
                Ok(())
            }
            End::NotBegun(error) => {
                tracing::error!(%error, "no transaction can begin");
                refuse(batch);
                Ok(())
            }
            End::Unknown(error) => {
                refuse(batch);
                self.reopen(&error)
            }
            End::Undone if batch.len() == 1 => {
                refuse(batch);
                Ok(())
            }
            End::Undone => {
                // Each alone, so that the one that does not fit on the disk does not take the others with it.
                for slot in batch.drain(..) {
                    self.decide(&mut vec![slot])?;
                }
                Ok(())
            }
        }
    }

    /// One transaction over `batch`.
    fn attempt(&mut self, batch: &mut [Slot]) -> End {
        if let Err(error) = self.run("BEGIN IMMEDIATE") {
            return End::NotBegun(error);
        }
        let alone = batch.len() == 1;
        for slot in batch.iter_mut() {
            slot.outcome = match self.judge(slot.item.as_mut(), alone) {
                Ok(outcome) => outcome,
                Err(error) => {
                    tracing::error!(%error, "a transaction was undone");
                    // When SQLite has not done it already.
                    if !self.connection.is_autocommit()
                        && let Err(error) = self.run("ROLLBACK")
                    {
                        return End::Unknown(error);
                    }
                    return End::Undone;
                }
            };
        }
        // With one item there is no savepoint: its fault undoes the transaction itself.
        let end = if alone && batch[0].outcome.is_err() { "ROLLBACK" } else { "COMMIT" };
        if let Err(error) = self.run(end) {
            return End::Unknown(error);
        }
        self.unknown = 0;
        End::Decided
    }

    /// Judges one item. The error says that the whole transaction is undone, or cannot go on.
    fn judge(&self, item: &mut dyn Item, alone: bool) -> Result<Result<(), StoreError>, Fault> {
        let now = self.clock.now();
        if item.is_expired(&now) {
            return Ok(Err(StoreError::Expired));
        }
        if !alone {
            self.run("SAVEPOINT item")?;
        }
        let transaction = Transaction { connection: &self.connection, now, trail: Trail::of(item.origin()) };
        let judged = catch_unwind(AssertUnwindSafe(|| item.judge(&transaction)));
        if self.connection.is_autocommit() {
            return Err(match judged {
                Ok(Err(fault)) => fault,
                _ => Fault::Corrupt { table: "any", what: "the transaction ended under a judge that reported no fault".to_owned() },
            });
        }
        let outcome = match judged {
            Ok(Ok(())) => Ok(()),
            Ok(Err(fault)) => {
                tracing::error!(%fault, "a decision failed and was undone");
                Err(fault.into_error())
            }
            Err(_) => {
                tracing::error!("a decision panicked and was undone");
                Err(StoreError::Panicked)
            }
        };
        if !alone {
            if outcome.is_err() {
                self.run("ROLLBACK TO item")?;
            }
            self.run("RELEASE item")?;
        }
        Ok(outcome)
    }

    /// Closes the database everywhere and opens it again, which reads what the disk holds.
    fn reopen(&mut self, error: &rusqlite::Error) -> Result<(), String> {
        self.unknown += 1;
        tracing::error!(%error, in_a_row = self.unknown, "a commit failed: what the disk holds is unknown");
        if self.unknown >= 2 {
            return Err(format!("two commits in a row failed, the last with: {error}"));
        }
        let _closed = self.readers.hold_closed();
        let nothing = Connection::open_in_memory().map_err(|error| format!("SQLite cannot open anything: {error}"))?;
        drop(std::mem::replace(&mut self.connection, nothing));
        self.connection =
            connection::connect(&self.path, Use::Write).map_err(|error| format!("the database cannot be opened again: {error}"))?;
        self.reopened.send_replace(());
        Ok(())
    }

    /// Copies the log back into the database when it has grown. Looks go on meanwhile.
    fn copy_back(&mut self) {
        let pages = connection::log_pages();
        if pages < self.copied {
            // The log began anew, which SQLite does once all of it was copied.
            self.copied = 0;
        }
        if pages - self.copied < LOG_PAGES {
            return;
        }
        self.copied = pages;
        let checkpoint = self.connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)");
        if let Err(error) = checkpoint.and_then(|mut statement| statement.query_row([], |_| Ok(()))) {
            tracing::warn!(%error, "the log could not be copied back into the database; it grows until it can be");
        }
    }

    fn run(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }
}

fn refuse(batch: &mut Vec<Slot>) {
    batch.drain(..).for_each(|slot| slot.item.answer(Err(StoreError::Unavailable)));
}

impl Fault {
    /// What the caller is told: whether to come again, or that it is of no use.
    pub(super) fn into_error(self) -> StoreError {
        match &self {
            Self::Sqlite(rusqlite::Error::SqliteFailure(error, _)) => match error.code {
                ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::OutOfMemory
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen => StoreError::Unavailable,
                _ => StoreError::Fault(self),
            },
            Self::Sqlite(_) | Self::Corrupt { .. } | Self::Seal(_) => StoreError::Fault(self),
        }
    }
}
