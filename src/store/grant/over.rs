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

const TIME_IS_OVER: &str = "SELECT id FROM grant WHERE ended_at IS NULL AND expires_at IS NOT NULL AND expires_at <= ?1 LIMIT ?2";
/// `purge_at` is not written with every renewal: of these some were renewed since.
const MAY_BE_IDLE: &str = "SELECT id, purge_at FROM grant WHERE ended_at IS NULL AND purge_at <= ?1 AND (purge_at, id) > (?2, ?3)
    ORDER BY purge_at, id LIMIT ?4";
const FACTS: &str = "SELECT g.id, g.app, g.user, g.scope, g.created_at, g.expires_at, g.ended_at, g.ended_why,
        g.epoch = (SELECT epoch FROM meta), g.binding, g.made_by, c.since_wall, c.since_boot, c.since_boot_id
    FROM grant g JOIN ib_app a ON a.id = g.app LEFT JOIN refresh_token c ON c.grant = g.id AND c.state = 'current'
    WHERE g.id = ?1 AND g.ended_at IS NULL AND a.purge_at IS NULL";
const USABLE_UNTIL: &str = "SELECT max(expires_at) FROM access_token WHERE grant = ?1 AND ended = 0";

/// Grants that have run out at `now`, where refresh tokens live for `idle`.
pub fn find(connection: &Connection, idle: Duration, now: Moment) -> Result<Vec<Id>, Fault> {
    let mut found =
        connection.prepare_cached(TIME_IS_OVER)?.query_map(params![now.wall, PAGE], |row| row.get(0))?.collect::<Result<Vec<Id>, _>>()?;
    let until = now.wall.plus(KEPT_AFTER_IDLE);
    let mut after = (Timestamp::from_millis(i64::MIN), Id::from_bytes([0; 16]));
    loop {
        let mut statement = connection.prepare_cached(MAY_BE_IDLE)?;
        let rows = statement.query_map(params![until, after.0, after.1, PAGE], |row| Ok((row.get(1)?, row.get(0)?)))?;
        let page = rows.collect::<Result<Vec<(Timestamp, Id)>, _>>()?;
        for (_, id) in &page {
            if run_out(connection, *id, idle, now)?.is_some() {
                found.push(*id);
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE as usize => after = *last,
            _ => return Ok(found),
        }
    }
}

/// Ends those of `grants` that have run out; which these are. None while the clock is doubted ([`crate::audit::wall_clock`]), or has just been started.
pub fn end(transaction: &Transaction<'_>, grants: &[Id], idle: Duration) -> Result<Vec<Id>, Fault> {
    let now = transaction.now();
    if now.boot < UP_AT_LEAST || !audit::believes_clock(transaction, now)? {
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
        let now = clock.now();
        let found = store.read(move |connection| find(connection, IDLE, now)).await.expect("read");
        store.write(move |transaction| end(transaction, &found, IDLE)).await.expect("written")
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
            for (sql, given) in [(TIME_IS_OVER, 2), (MAY_BE_IDLE, 4), (FACTS, 1), (USABLE_UNTIL, 1)] {
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
