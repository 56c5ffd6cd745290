//! Rows of the audit: written in the transaction of the change that they tell of, read ([`list`]), deleted when they have been kept for their
//! time.
//!
//! Who asks and from where is handed in once, around everything that a request does ([`acting`]); each write takes it along. What a judge
//! does says so with [`Transaction::record`]: the change and its row are on disk together, or neither is. A change over the admin API of
//! which no judge said anything gets a row of its own, [`Action::AdminChanged`], so that nothing is missing where somebody forgot.

pub mod list;

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::purge::BATCH;
use super::rows::{moment, moment_columns};
use super::{Fault, Store, StoreError, Transaction};
use crate::audit::wall_clock::{self, Doubt, Judgement, Watch};
use crate::audit::{Action, Actor, Entry, Origin, cut};
use crate::clock::{Moment, Timestamp};

const INSERT: &str = "INSERT INTO audit
        (at, action, outcome, actor_kind, actor, record_kind, record_id, record_name, tenant, address, request_id, details)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
const OLDEST: &str = "SELECT min(at) FROM audit";
const OLDER: &str = "SELECT count(*) FROM audit WHERE at < ?1";
const MOVE_HORIZON: &str = "UPDATE audit_horizon SET at = max(at, ?1)";
const WATCH: &str = "SELECT believed_wall, believed_boot, believed_boot_id, doubted_wall, doubted_boot, doubted_boot_id, doubt_left
    FROM audit_horizon";
const SET_WATCH: &str = "UPDATE audit_horizon SET believed_wall = ?1, believed_boot = ?2, believed_boot_id = ?3,
    doubted_wall = ?4, doubted_boot = ?5, doubted_boot_id = ?6, doubt_left = ?7";

/// How much longer than they must be rows may stay, so that the horizon moves, and says so, once a day and not once a minute.
const SLACK: Duration = Duration::from_secs(24 * 60 * 60);

tokio::task_local! {
    /// Where what this task does comes from.
    static ORIGIN: Arc<Origin>;
}

/// Does `work` for `origin`: every write in it, on this task, takes it along.
pub async fn acting<F: Future>(origin: impl Into<Arc<Origin>>, work: F) -> F::Output {
    ORIGIN.scope(origin.into(), work).await
}

/// Notes which attributes the request of this task gives.
pub fn note_given(names: impl Iterator<Item = String>) {
    let _ = ORIGIN.try_with(|origin| origin.note_given(names));
}

/// Where what this task does comes from; from the daemon itself where nobody said.
pub fn current() -> Option<Arc<Origin>> {
    ORIGIN.try_with(Arc::clone).ok()
}

/// What a transaction knows of where it comes from, and whether it has said what it does.
#[derive(Debug, Default)]
pub(super) struct Trail {
    origin: Option<Arc<Origin>>,
    actor: std::cell::RefCell<Option<Actor>>,
    is_told: std::cell::Cell<bool>,
}

impl Trail {
    pub(super) fn of(origin: Option<Arc<Origin>>) -> Self {
        Self { origin, ..Self::default() }
    }
}

impl Transaction<'_> {
    /// Writes down what is done here, by whoever it is done for.
    pub fn record(&self, entry: &Entry) -> Result<(), Fault> {
        self.trail.is_told.set(true);
        let nobody = Origin::default();
        let origin = self.trail.origin.as_deref().unwrap_or(&nobody);
        origin.note_told(entry.action);
        let actor = self.trail.actor.borrow();
        Ok(insert(self, self.now().wall, origin, actor.as_ref().unwrap_or(&origin.actor), entry)?)
    }

    /// Who asks has shown who it is: rows from here on say so.
    pub fn acts_as(&self, actor: Actor) {
        self.trail.actor.replace(Some(actor));
    }

    /// What is written here is a part of something that has its row elsewhere.
    pub fn is_told_elsewhere(&self) {
        self.trail.is_told.set(true);
    }

    /// Whether something was written that needs a row and has none. `before` counts what was written on the connection earlier.
    pub(super) fn tell_the_rest(&self, before: u64) -> Result<(), Fault> {
        let Some(change) = self.trail.origin.as_ref().and_then(|origin| origin.change.as_ref()) else { return Ok(()) };
        if self.trail.is_told.get() || self.connection.total_changes() == before {
            return Ok(());
        }
        self.record(&Entry::of(Action::AdminChanged).with("request", change.as_str()))
    }
}

/// Writes one row, told by `actor` from `origin`.
fn insert(connection: &Connection, at: Timestamp, origin: &Origin, actor: &Actor, entry: &Entry) -> rusqlite::Result<()> {
    let record = entry.record.as_ref();
    let row = params![
        at,
        entry.action.as_str(),
        entry.outcome.as_str(),
        actor.kind(),
        cut(&actor.to_string()),
        record.map(|record| record.kind),
        record.map(|record| cut(&record.id)),
        record.map(|record| cut(&record.name)),
        record.and_then(|record| record.tenant.as_deref()),
        origin.address.map(|address| address.to_canonical().to_string()),
        origin.request_id,
        entry.details(origin.given()),
    ];
    connection.prepare_cached(INSERT)?.execute(row)?;
    Ok(())
}

/// Writes what was noted outside of any transaction, each with where it came from.
pub fn insert_noted(transaction: &Transaction<'_>, noted: &[(Arc<Origin>, Entry)]) -> Result<(), Fault> {
    let now = transaction.now().wall;
    noted.iter().try_for_each(|(origin, entry)| Ok(insert(transaction, now, origin, &origin.actor, entry)?))
}

/// Writes a row of a process that works on the database file itself. A database that is older than the audit gets none.
pub(super) fn insert_of_process(connection: &Connection, now: Timestamp, entry: &Entry) -> rusqlite::Result<()> {
    if !connection.table_exists(None, "audit")? {
        return Ok(());
    }
    let actor = Actor::Process { uid: rustix::process::getuid().as_raw() };
    insert(connection, now, &Origin::default(), &actor, entry)
}

/// Writes a row of the daemon itself, before there is a store.
pub(super) fn insert_of_daemon(connection: &Connection, now: Timestamp, entry: &Entry) -> rusqlite::Result<()> {
    insert(connection, now, &Origin::default(), &Actor::Daemon, entry)
}

/// What came of a look for rows that were kept for their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pruned {
    /// So many rows were deleted.
    Rows(usize),
    /// None is deleted while the wall clock is doubted; whether that is news.
    Doubted(bool),
}

/// Whether the wall clock is believed, by what is known of it.
pub(super) fn believes_clock(connection: &Connection, now: Moment) -> Result<bool, Fault> {
    Ok(wall_clock::judge(watch(connection)?.as_ref(), now).is_believed)
}

fn watch(connection: &Connection) -> Result<Option<Watch>, Fault> {
    let watch = connection.prepare_cached(WATCH)?.query_row([], |row| {
        let Some(_) = row.get::<_, Option<i64>>(0)? else { return Ok(None) };
        let left: Option<i64> = row.get(6)?;
        let doubt = match left {
            Some(left) => Some(Doubt { seen: moment(row, 3)?, left: milliseconds(left) }),
            None => None,
        };
        Ok(Some(Watch { believed: moment(row, 0)?, doubt }))
    });
    Ok(watch?)
}

/// Looks at the wall clock, and writes down what is to be known of it at the next look.
fn look_at_clock(transaction: &Transaction<'_>) -> Result<Judgement, Fault> {
    let watch = watch(transaction)?;
    let judgement = wall_clock::judge(watch.as_ref(), transaction.now());
    if let Some(Watch { believed, doubt }) = &judgement.write {
        let [wall, boot, boot_id] = moment_columns(believed);
        let [seen_wall, seen_boot, seen_boot_id] = doubt.map_or([None; 3], |doubt| moment_columns(&doubt.seen).map(Some));
        let left = doubt.map(|doubt| i64::try_from(doubt.left.as_millis()).unwrap_or(i64::MAX));
        let row = params![wall, boot, boot_id, seen_wall, seen_boot, seen_boot_id, left];
        transaction.prepare_cached(SET_WATCH)?.execute(row)?;
    }
    if let (true, Some(Watch { believed, .. })) = (judgement.is_news, watch) {
        let is_of_this_boot = believed.boot_id == transaction.now().boot_id;
        let doubted = Entry::of(Action::ClockDoubted).at("last_believed", believed.wall).with("in_this_boot", is_of_this_boot);
        transaction.record(&doubted)?;
    }
    Ok(judgement)
}

fn milliseconds(count: i64) -> Duration {
    Duration::from_millis(u64::try_from(count).unwrap_or(0))
}

/// Deletes a few rows that are older than `?1`.
fn older_rows() -> String {
    format!("DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < ?1 ORDER BY at LIMIT {BATCH})")
}

impl Store {
    /// Deletes rows that are older than `keep`, without a pause, and says so in the audit, unless the wall clock is doubted ([`wall_clock`]).
    pub async fn prune_audit(&self, keep: Duration) -> Result<Pruned, StoreError> {
        self.prune_audit_resting(keep, || std::future::ready(())).await
    }

    /// The same, with a `rest` after each few rows, as the purge has it ([`Store::purge_resting`]).
    pub async fn prune_audit_resting<R>(&self, keep: Duration, rest: impl Fn() -> R + Send + Sync) -> Result<Pruned, StoreError>
    where
        R: Future<Output = ()> + Send,
    {
        let look = move |transaction: &Transaction<'_>| -> Result<Result<Option<Timestamp>, Pruned>, Fault> {
            let Judgement { is_believed, is_news, .. } = look_at_clock(transaction)?;
            if !is_believed {
                return Ok(Err(Pruned::Doubted(is_news)));
            }
            let now = transaction.now().wall;
            let oldest: Option<Timestamp> = transaction.prepare_cached(OLDEST)?.query_row([], |row| row.get(0)).optional()?.flatten();
            if oldest.is_none_or(|oldest| oldest >= now.minus(keep).minus(SLACK)) {
                return Ok(Ok(None));
            }
            Ok(Ok(Some(now.minus(keep))))
        };
        let before = match self.write(look).await? {
            Ok(Some(before)) => before,
            Ok(None) => return Ok(Pruned::Rows(0)),
            Err(doubted) => return Ok(doubted),
        };
        // No other row is as old, so that they may be counted beside the writer.
        let count = move |connection: &Connection| Ok(connection.prepare_cached(OLDER)?.query_row([before], |row| row.get(0))?);
        let older: i64 = self.read(count).await?;
        let begin = move |transaction: &Transaction<'_>| {
            transaction.record(&Entry::of(Action::AuditPruned).at("before", before).with("rows", older))?;
            transaction.prepare_cached(MOVE_HORIZON)?.execute([before])?;
            Ok(())
        };
        self.write(begin).await?;
        Ok(Pruned::Rows(self.purge_kinds(vec![vec![older_rows()]], before, rest).await?))
    }
}
