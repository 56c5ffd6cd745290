//! Grants that have run out without anybody ending them: they are ended, so that lists, streams and the audit say so.
//!
//! A refresh that comes too late is refused by itself, and may be good again when the clock that said so is set right. An end is for ever:
//! it waits for a clock that is believed.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::{KEPT_AFTER_IDLE, read};
use crate::clock::{Moment, Timestamp};
use crate::id::Id;
use crate::inbound::grant::{EndReason, Grant};
use crate::store::rows::moment;
use crate::store::{Fault, Transaction, audit};

/// Grants looked at in one go.
const PAGE: u32 = 500;

/// A machine that was started a moment ago may not have asked for the time yet.
const UP_AT_LEAST: Duration = Duration::from_secs(10 * 60);

const TIME_IS_OVER: &str = "SELECT id, expires_at FROM grant WHERE ended_at IS NULL AND expires_at <= ?1 AND (expires_at, id) > (?2, ?3)
    ORDER BY expires_at, id LIMIT ?4";
/// `purge_at` is not written with every renewal: of these some were renewed since.
const MAY_BE_IDLE: &str = "SELECT id, purge_at FROM grant WHERE ended_at IS NULL AND purge_at <= ?1 AND (purge_at, id) > (?2, ?3)
    ORDER BY purge_at, id LIMIT ?4";
const FACTS: &str = "SELECT g.id, g.app, g.user, g.scope, g.created_at, g.expires_at, g.ended_at, g.ended_why,
        iif(g.epoch = (SELECT epoch FROM meta), NULL, (SELECT coalesce(begun_at, g.created_at) FROM meta)), g.binding, g.made_by, c.since_wall, c.since_boot, c.since_boot_id
    FROM grant g JOIN ib_app a ON a.id = g.app LEFT JOIN refresh_token c ON c.grant = g.id AND c.state = 'current'
    WHERE g.id = ?1 AND g.ended_at IS NULL AND a.purge_at IS NULL";
const USABLE_UNTIL: &str = "SELECT max(expires_at) FROM access_token WHERE grant = ?1 AND ended = 0";

/// Where a look has come to.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    /// Those whose time is over have been gone through.
    is_at_idle: bool,
    after: (Timestamp, Id),
}

impl Cursor {
    /// Before all.
    pub const START: Self = Self::of(false);

    const fn of(is_at_idle: bool) -> Self {
        Self { is_at_idle, after: (Timestamp::from_millis(i64::MIN), Id::from_bytes([0; 16])) }
    }
}

/// Whether a grant may be ended by this clock: not while it is doubted ([`crate::audit::wall_clock`]), or the machine has just been started.
pub fn may_end(connection: &Connection, now: Moment) -> Result<bool, Fault> {
    Ok(now.boot >= UP_AT_LEAST && audit::believes_clock(connection, now)?)
}

/// Grants that have run out at `now`, where refresh tokens live for `idle`, among the next [`PAGE`]; and from where to go on.
pub fn find(connection: &Connection, idle: Duration, now: Moment, from: Cursor) -> Result<(Vec<Id>, Option<Cursor>), Fault> {
    let (sql, until) = match from.is_at_idle {
        false => (TIME_IS_OVER, now.wall),
        true => (MAY_BE_IDLE, now.wall.plus(KEPT_AFTER_IDLE)),
    };
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![until, from.after.0, from.after.1, PAGE], |row| Ok((row.get(1)?, row.get(0)?)))?;
    let page = rows.collect::<Result<Vec<(Timestamp, Id)>, _>>()?;
    let mut found = Vec::new();
    for (_, grant) in &page {
        match run_out(connection, *grant, idle, now) {
            Ok(None) => {}
            Ok(Some(_)) => found.push(*grant),
            // One row that cannot be read must not keep all others.
            Err(error) => tracing::warn!(%grant, %error, "whether the grant has run out cannot be told"),
        }
    }
    let next = match page.last() {
        Some(last) if page.len() == PAGE as usize => Some(Cursor { after: *last, ..from }),
        _ => (!from.is_at_idle).then(|| Cursor::of(true)),
    };
    Ok((found, next))
}

/// Ends those of `grants` that have run out; which these are. None where the clock says nothing ([`may_end`]).
pub fn end(transaction: &Transaction<'_>, grants: &[Id], idle: Duration) -> Result<Vec<Id>, Fault> {
    let now = transaction.now();
    if !may_end(transaction, now)? {
        return Ok(Vec::new());
    }
    let mut ended = Vec::new();
    for id in grants {
        if let Some(reason) = run_out(transaction, *id, idle, now)?
            && super::end(transaction, *id, reason)?
        {
            ended.push(*id);
        }
    }
    Ok(ended)
}

fn run_out(connection: &Connection, id: Id, idle: Duration, now: Moment) -> Result<Option<EndReason>, Fault> {
    let found = connection.prepare_cached(FACTS)?.query_row([id], |row| {
        let renewed = row.get::<_, Option<i64>>(11)?.map(|_| moment(row, 11)).transpose()?;
        Ok((read(row, 0)?, renewed))
    });
    let Some((grant, renewed)): Option<(Grant, Option<Moment>)> = found.optional()? else { return Ok(None) };
    // The tokens of a year are gone through for those only that nobody renews.
    if grant.run_out(renewed, None, idle, now).is_none() {
        return Ok(None);
    }
    let usable_until = connection.prepare_cached(USABLE_UNTIL)?.query_row([id], |row| row.get(0))?;
    Ok(grant.run_out(renewed, usable_until, idle, now))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::BootId;
    use crate::store::sample::{HOUR, StandingClock, granted, linked};
    use crate::store::{Store, grant};

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const IDLE: Duration = Duration::from_secs(10 * 24 * 60 * 60);

    /// What a look ends.
    async fn looks(store: &Store, clock: &StandingClock) -> Vec<Id> {
        use crate::clock::Clock;
        let (now, mut next, mut all) = (clock.now(), Some(Cursor::START), Vec::new());
        while let Some(cursor) = next {
            let found;
            (found, next) = store.read(move |connection| find(connection, IDLE, now, cursor)).await.expect("read");
            all.extend(found);
        }
        store.write(move |transaction| end(transaction, &all, IDLE)).await.expect("written")
    }

    async fn world() -> (tempfile::TempDir, Store, Arc<StandingClock>) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let clock = StandingClock::new();
        clock.pass(HOUR);
        let store = Store::open(directory.path(), None, clock.clone()).expect("a new store");
        store.prune_audit(DAY).await.expect("it looked at the clock");
        linked(&store).await;
        // The idle life that the grant was written with is an hour; here it is ten days.
        (directory, store, clock)
    }

    async fn why(store: &Store) -> Option<EndReason> {
        let id = granted(Timestamp::default()).id;
        let shown = store.read(move |connection| grant::by_id(connection, "default", id)).await.expect("read");
        shown.expect("it is shown").grant.ended.map(|ended| ended.reason)
    }

    #[tokio::test]
    async fn r10_what_nobody_renews_is_ended_once_and_not_before() {
        let (_directory, store, clock) = world().await;
        clock.pass(IDLE - HOUR);
        assert_eq!((looks(&store, &clock).await, why(&store).await), (vec![], None));
        clock.pass(HOUR);
        assert_eq!((looks(&store, &clock).await, why(&store).await), (vec![granted(Timestamp::default()).id], Some(EndReason::Idle)));
        assert_eq!(looks(&store, &clock).await, []);
    }

    #[tokio::test]
    async fn r10_what_has_its_end_is_ended_then() {
        let (_directory, store, clock) = world().await;
        let set = |transaction: &Transaction<'_>| {
            let end = transaction.now().wall.plus(DAY);
            Ok(transaction.execute("UPDATE grant SET expires_at = ?1, purge_at = 9e15", [end])?)
        };
        store.write(set).await.expect("written");
        clock.pass(DAY - HOUR);
        assert_eq!(looks(&store, &clock).await, []);
        clock.pass(HOUR);
        assert_eq!((looks(&store, &clock).await.len(), why(&store).await), (1, Some(EndReason::Expired)));
    }

    #[tokio::test]
    async fn r10_many_are_gone_through_page_by_page_and_a_row_that_cannot_be_read_keeps_no_other() {
        let (_directory, store, clock) = world().await;
        let fill = |transaction: &Transaction<'_>| {
            let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)
                INSERT INTO grant (id, app, user, scope, epoch, created_at, expires_at, purge_at)
                SELECT CAST(printf('%016d', i) AS BLOB), app, user, iif(i = 7, '\"', scope), epoch, created_at, iif(i % 2, 1, NULL), purge_at FROM grant, n";
            Ok(transaction.execute(sql, [])?)
        };
        assert_eq!(store.write(fill).await.expect("written"), 1200);
        clock.pass(HOUR * 3);
        // The one that can be renewed for ten days, and the one that cannot be read.
        assert_eq!((looks(&store, &clock).await.len(), why(&store).await), (1199, None));
        assert_eq!(looks(&store, &clock).await, []);
    }

    #[tokio::test]
    async fn r10_no_clock_that_may_be_wrong_ends_a_grant() {
        let (_directory, store, clock) = world().await;
        // Another boot, years ahead: its age cannot be told from a wrong clock.
        clock.change(|now| *now = Moment { wall: now.wall.plus(3_000 * DAY), boot: HOUR, boot_id: BootId(8) });
        assert_eq!(looks(&store, &clock).await, []);
        // A day ahead is believed, but not a moment after the start.
        clock.change(|now| *now = Moment { wall: now.wall.minus(2_999 * DAY), boot: Duration::from_secs(60), boot_id: BootId(9) });
        let short = async |store: &Store| {
            let id = granted(Timestamp::default()).id;
            store.write(move |transaction| end(transaction, &[id], HOUR)).await.expect("written").len()
        };
        assert_eq!((short(&store).await, why(&store).await), (0, None));
        clock.pass(HOUR);
        assert_eq!((short(&store).await, why(&store).await), (1, Some(EndReason::Idle)));
    }

    #[tokio::test]
    async fn a_look_for_grants_that_ran_out_passes_by_all_others() {
        let (_directory, store, _clock) = world().await;
        let look = |connection: &Connection| {
            let mut plans = Vec::new();
            for (sql, given) in [(TIME_IS_OVER, 4), (MAY_BE_IDLE, 4), (FACTS, 1), (USABLE_UNTIL, 1)] {
                let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let steps = statement.query_map(rusqlite::params_from_iter(vec![0; given]), |row| row.get::<_, String>(3))?;
                plans.push((sql, steps.collect::<Result<Vec<_>, _>>()?));
            }
            Ok(plans)
        };
        for (sql, steps) in store.read(look).await.expect("read") {
            let reads_all = |step: &String| step.starts_with("SCAN g") || step.contains("TEMP B-TREE");
            assert!(!steps.iter().any(reads_all), "{sql}: {steps:?}");
        }
    }
}
