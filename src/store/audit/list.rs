//! The audit, read: the rows that fit everything that is asked for, found by one index and in the order of their ids. Where several values
//! fit, each has its rows looked up, and these are merged.
//!
//! What a page costs: with one of record, actor, actions and tenants, what is on it. With several of them, the index is taken by which the
//! fewest rows are found, and those that do not fit the rest are passed by: at most [`COUNTED`], besides counting them, as long as one of
//! the conditions alone fits no more than that. Where each fits more and few rows fit all of them, a page may pass by all rows of a
//! condition; of the tenants before the actions then, so that a tenant's admin passes by no row of others.

use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use serde::Serialize;
use serde_json::Value;

use crate::audit::Action;
use crate::clock::Timestamp;
use crate::id::Id;
use crate::store::Fault;
use crate::store::rows::from_json;

const COLUMNS: &str =
    "id, at, action, outcome, actor_kind, actor, record_kind, record_id, record_name, tenant, address, request_id, details";

/// So many rows are counted at most to find the condition that the fewest fit. Counting reads the index alone, and costs less than passing by
/// as many rows.
const COUNTED: i64 = 10_000;

const WHO: &str = "SELECT actor FROM audit INDEXED BY audit_record_id WHERE record_id = ?1 AND action = ?2 ORDER BY id DESC LIMIT 1";

/// A row as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Told {
    /// Ascending without gaps, never given twice.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// What was done.
    pub action: String,
    /// `done`, `refused` or `failed`.
    pub outcome: String,
    /// What kind of actor.
    pub actor_kind: String,
    /// Who.
    pub actor: String,
    /// What kind of record.
    pub record_kind: Option<String>,
    /// The record's identity.
    pub record_id: Option<String>,
    /// What it was called then.
    pub record_name: Option<String>,
    /// Whose it is.
    pub tenant: Option<String>,
    /// From where.
    pub address: Option<String>,
    /// What the request was called by.
    pub request_id: Option<String>,
    /// What more there is to say.
    pub details: Value,
}

/// Which rows are wanted: those that fit everything that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// At this time or later.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// One of these actions.
    pub actions: Option<Vec<Action>>,
    /// A record of this name or id.
    pub record: Option<String>,
    /// By this one.
    pub actor: Option<String>,
    /// Of one of these tenants; none asks for all, and for what belongs to no tenant.
    pub tenants: Option<Vec<String>>,
    /// Of the tenants as they are now: not of one of the same name that was deleted before, which may have been somebody else's.
    pub of_today: bool,
    /// Behind this row, the oldest first; without it the newest rows are given.
    pub after: Option<i64>,
    /// Before this row.
    pub before: Option<i64>,
    /// So many at most.
    pub limit: usize,
}

/// The rows that are wanted, the oldest first.
pub fn rows(connection: &Connection, wanted: &Wanted) -> Result<Vec<Told>, Fault> {
    let queries = queries(wanted, &cheapest(connection, Way::all(wanted))?);
    let mut statements = queries.iter().map(|(sql, _)| connection.prepare_cached(sql)).collect::<rusqlite::Result<Vec<_>>>()?;
    let sources = statements.iter_mut().zip(queries).map(|(statement, (_, values))| statement.query_map(params_from_iter(values), read));
    let mut sources = sources.collect::<rusqlite::Result<Vec<_>>>()?;
    // Of each the next row; of these the first is taken, until there are enough.
    let mut heads = sources.iter_mut().map(|source| source.next().transpose()).collect::<rusqlite::Result<Vec<_>>>()?;
    let is_forward = wanted.after.is_some();
    let mut rows: Vec<Told> = Vec::new();
    while rows.len() < wanted.limit {
        let ids = heads.iter().enumerate().filter_map(|(source, head)| Some((source, head.as_ref()?.id)));
        let Some((first, _)) = ids.min_by_key(|(_, id)| if is_forward { *id } else { -*id }) else { break };
        let next = sources[first].next().transpose()?;
        let row = std::mem::replace(&mut heads[first], next).expect("it was the first of those that are there");
        // A record may be called by its id, and is found twice then.
        if rows.last().is_none_or(|last| last.id != row.id) {
            rows.push(row);
        }
    }
    if !is_forward {
        rows.reverse();
    }
    Ok(rows)
}

/// Which index finds the rows, and the condition on its column with the value that it is to have.
struct Way {
    index: &'static str,
    condition: &'static str,
    value: Option<SqlValue>,
}

impl Way {
    fn of(index: &'static str, condition: &'static str, value: &str) -> Self {
        Self { index, condition, value: Some(value.to_owned().into()) }
    }

    /// For each condition that is given, the ways to all rows that fit it. Where none tells of fewer rows than another, the first is the best.
    fn all(wanted: &Wanted) -> Vec<Vec<Self>> {
        let mut all = Vec::new();
        if let Some(record) = &wanted.record {
            let by_name = Self::of("INDEXED BY audit_record_name", "record_name = ?", record);
            all.push(vec![by_name, Self::of("INDEXED BY audit_record_id", "record_id = ?", record)]);
        }
        if let Some(actor) = &wanted.actor {
            all.push(vec![Self::of("INDEXED BY audit_actor", "actor = ?", actor)]);
        }
        if let Some(tenants) = &wanted.tenants {
            all.push(tenants.iter().map(|tenant| Self::of("INDEXED BY audit_tenant", "tenant = ?", tenant)).collect());
        }
        if let Some(actions) = &wanted.actions {
            all.push(actions.iter().map(|action| Self::of("INDEXED BY audit_action", "action = ?", action.as_str())).collect());
        }
        if all.is_empty() {
            all.push(vec![Self { index: "NOT INDEXED", condition: "TRUE", value: None }]);
        }
        all
    }

    /// How many rows it leads to, as far as `most`.
    fn count(&self, connection: &Connection, most: i64) -> Result<i64, Fault> {
        let Self { index, condition, value } = self;
        let sql = format!("SELECT count(*) FROM (SELECT 1 FROM audit {index} WHERE {condition} LIMIT ?)");
        let values = value.iter().cloned().chain([most.into()]);
        Ok(connection.prepare_cached(&sql)?.query_row(params_from_iter(values), |row| row.get(0))?)
    }
}

/// Of several conditions the ways to the one that the fewest rows fit.
fn cheapest(connection: &Connection, mut all: Vec<Vec<Way>>) -> Result<Vec<Way>, Fault> {
    let (mut best, mut fewest) = (0, COUNTED);
    // One alone needs no counting.
    for (at, ways) in all.iter().enumerate().filter(|_| all.len() > 1) {
        let mut count = 0;
        for way in ways {
            count += way.count(connection, fewest - count)?;
            if count >= fewest {
                break;
            }
        }
        if count < fewest {
            (best, fewest) = (at, count);
        }
    }
    Ok(all.swap_remove(best))
}

/// The statements that find the rows that are wanted by `ways`, each in the order of their ids.
fn queries(wanted: &Wanted, ways: &[Way]) -> Vec<(String, Vec<SqlValue>)> {
    let (conditions, values) = conditions(wanted);
    let order = if wanted.after.is_some() { "ASC" } else { "DESC" };
    let limit = SqlValue::Integer(i64::try_from(wanted.limit).unwrap_or(i64::MAX));
    let ways = ways.iter().map(|Way { index, condition, value }| {
        let sql = format!("SELECT {COLUMNS} FROM audit {index} WHERE {condition}{conditions} ORDER BY id {order} LIMIT ?");
        (sql, value.iter().cloned().chain(values.iter().cloned()).chain([limit.clone()]).collect())
    });
    ways.collect()
}

/// Everything that a row must fit, whatever way leads to it.
fn conditions(wanted: &Wanted) -> (String, Vec<SqlValue>) {
    let (mut conditions, mut values): (String, Vec<SqlValue>) = (String::new(), Vec::new());
    let mut must = |condition: &str, of: &mut dyn Iterator<Item = SqlValue>| {
        conditions.push_str(" AND ");
        conditions.push_str(condition);
        values.extend(of);
    };
    let one_of = |column: &str, count: usize| format!("{column} IN ({})", vec!["?"; count].join(", "));
    if let Some(since) = wanted.since {
        // Ids and times ascend together, but where the clock was moved: the first row of that time says where to begin to look.
        let first = "at >= ? AND id >= coalesce((SELECT id FROM audit WHERE at >= ? ORDER BY at, id LIMIT 1), 9223372036854775807)";
        must(first, &mut [since.millis().into(), since.millis().into()].into_iter());
    }
    if let Some(until) = wanted.until {
        let last = "at < ? AND id <= coalesce((SELECT id FROM audit WHERE at < ? ORDER BY at DESC, id DESC LIMIT 1), 0)";
        must(last, &mut [until.millis().into(), until.millis().into()].into_iter());
    }
    for (condition, id) in [("id > ?", wanted.after), ("id < ?", wanted.before)] {
        if let Some(id) = id {
            must(condition, &mut [id.into()].into_iter());
        }
    }
    if let Some(actions) = &wanted.actions {
        must(&one_of("action", actions.len()), &mut actions.iter().map(|action| action.as_str().to_owned().into()));
    }
    if let Some(tenants) = &wanted.tenants {
        must(&one_of("tenant", tenants.len()), &mut tenants.iter().map(|tenant| tenant.clone().into()));
        if wanted.of_today {
            must("at >= (SELECT created_at FROM tenant WHERE tenant.name = audit.tenant)", &mut std::iter::empty());
        }
    }
    if let Some(record) = &wanted.record {
        must("? IN (record_name, record_id)", &mut [record.clone().into()].into_iter());
    }
    if let Some(actor) = &wanted.actor {
        must("actor = ?", &mut [actor.clone().into()].into_iter());
    }
    (conditions, values)
}

/// Who ended a grant, as long as the row that tells of it is kept.
pub fn who_ended(connection: &Connection, grant: Id) -> Result<Option<String>, Fault> {
    let row = params![grant.to_string(), Action::GrantEnded.as_str()];
    Ok(connection.prepare_cached(WHO)?.query_row(row, |row| row.get(0)).optional()?)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Told> {
    Ok(Told {
        id: row.get(0)?,
        at: row.get(1)?,
        action: row.get(2)?,
        outcome: row.get(3)?,
        actor_kind: row.get(4)?,
        actor: row.get(5)?,
        record_kind: row.get(6)?,
        record_id: row.get(7)?,
        record_name: row.get(8)?,
        tenant: row.get(9)?,
        address: row.get(10)?,
        request_id: row.get(11)?,
        details: from_json(row, 12)?,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::store::{Transaction, temporary};

    /// Everything that can be asked for, alone and with all of what can be asked for besides.
    fn all_that_is_asked() -> Vec<Wanted> {
        let (time, text) = (Timestamp::from_millis(1), || "one".to_owned());
        let ways = [
            Wanted::default(),
            Wanted { record: Some(text()), ..Wanted::default() },
            Wanted { actor: Some(text()), ..Wanted::default() },
            Wanted { actions: Some(Action::ALL.to_vec()), ..Wanted::default() },
            Wanted { tenants: Some(vec![text(), text()]), ..Wanted::default() },
        ];
        let mut asked = Vec::new();
        for way in ways {
            let all =
                Wanted { actor: Some(text()), actions: Some(Action::ALL.to_vec()), tenants: Some(vec![text(), text()]), ..way.clone() };
            for wanted in [way, all] {
                asked.push(Wanted { since: Some(time), until: Some(time), after: Some(1), before: Some(2), ..wanted.clone() });
                asked.push(Wanted { since: Some(time), ..wanted.clone() });
                asked.push(Wanted { after: Some(1), ..wanted.clone() });
                asked.push(wanted);
            }
        }
        asked
    }

    #[tokio::test]
    async fn no_page_reads_the_audit_from_end_to_end_or_sorts() {
        let (_directory, store) = temporary();
        let look = |connection: &Connection| {
            let mut plans = Vec::new();
            for (wanted, ways) in
                all_that_is_asked().into_iter().flat_map(|wanted| Way::all(&wanted).into_iter().map(move |ways| (wanted.clone(), ways)))
            {
                for (sql, values) in queries(&wanted, &ways) {
                    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                    let steps = statement.query_map(params_from_iter(values), |row| row.get::<_, String>(3))?;
                    plans.push((steps.collect::<Result<Vec<_>, _>>()?, wanted.clone(), sql));
                }
            }
            Ok(plans)
        };
        for (steps, wanted, sql) in store.read(look).await.expect("read") {
            assert!(!steps.iter().any(|step| step.contains("TEMP B-TREE")), "{sql}: {steps:?}");
            // From the newest on, where nothing else is asked, as far as the limit says; all other ways are by an index, in the order of ids.
            let from_the_newest = Way::all(&wanted)[0][0].value.is_none() && steps[0] == "SCAN audit";
            assert!(from_the_newest || steps[0].starts_with("SEARCH audit USING"), "{sql}: {steps:?}");
            assert!(!steps[1..].iter().any(|step| step.starts_with("SCAN")), "{sql}: {steps:?}");
        }
    }

    /// How many steps of SQLite's machine a page takes, in thousands, and the ids of its rows.
    fn cost(connection: &Connection, wanted: &Wanted) -> Result<(usize, Vec<i64>), Fault> {
        let steps = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&steps);
        let count = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            false
        };
        connection.progress_handler(1_000, Some(count))?;
        let rows = rows(connection, wanted);
        connection.progress_handler(0, None::<fn() -> bool>)?;
        Ok((steps.load(Ordering::Relaxed), rows?.iter().map(|row| row.id).collect()))
    }

    #[tokio::test]
    async fn of_several_conditions_the_one_that_few_rows_fit_finds_them() {
        let (_directory, store) = temporary();
        // Logins, of no tenant; what one tenant did, most of it one thing; and by one actor a few rows of another tenant.
        let fill = |transaction: &Transaction<'_>| {
            let many = format!(
                "WITH RECURSIVE many (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many WHERE n < {})
                INSERT INTO audit (at, action, outcome, actor_kind, actor, record_kind, record_name, tenant, details)
                SELECT n, ?1, 'done', 'daemon', ?2, 'peer', ?3, ?4, '{{}}' FROM many LIMIT ?5",
                2 * COUNTED
            );
            let (login, linked, unlinked) = (Action::LogInSucceeded.as_str(), Action::PeerLinked.as_str(), Action::PeerUnlinked.as_str());
            for (action, actor, record, tenant, rows) in [
                (login, "p2pid", "one", None, 2 * COUNTED),
                (linked, "p2pid", "one", Some("large"), 2 * COUNTED),
                (login, "p2pid", "one", Some("small"), 3),
                (unlinked, "p2pid", "one", Some("large"), 3),
                (linked, "ops", "one", Some("small"), 1),
            ] {
                transaction.execute(&many, params![action, actor, record, tenant, rows])?;
            }
            Ok(())
        };
        store.write(fill).await.expect("written");
        let text = |text: &str| Some(text.to_owned());
        let tenant = |tenant: &str| Wanted { tenants: Some(vec![tenant.to_owned()]), limit: 10, ..Wanted::default() };
        let first = 4 * COUNTED + 1;
        for (wanted, expected) in [
            (Wanted { actions: Some(vec![Action::LogInSucceeded]), ..tenant("small") }, vec![first, first + 1, first + 2]),
            (Wanted { actions: Some(vec![Action::PeerUnlinked]), ..tenant("large") }, vec![first + 3, first + 4, first + 5]),
            (Wanted { actor: text("p2pid"), ..tenant("small") }, vec![first, first + 1, first + 2]),
            (Wanted { record: text("one"), ..tenant("small") }, vec![first, first + 1, first + 2, first + 6]),
            (Wanted { record: text("one"), actor: text("ops"), ..tenant("small") }, vec![first + 6]),
        ] {
            let asked = wanted.clone();
            let (thousands, ids) = store.read(move |connection| cost(connection, &asked)).await.expect("read");
            assert_eq!(ids, expected, "{wanted:?}");
            // To pass by the rows of the other condition takes twice as many, at the least.
            assert!(thousands < 100, "{thousands} thousand steps: {wanted:?}");
        }
    }
}
