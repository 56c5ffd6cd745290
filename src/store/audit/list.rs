//! The audit, read: the rows that fit everything that is asked for, found by one index and in the order of their ids, so that a page costs what is
//! on it. Where several values fit, each has its rows looked up, and these are merged.

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
    let queries = queries(wanted);
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

    /// The ways to all rows that are wanted, by what fewest have in common.
    fn to(wanted: &Wanted) -> Vec<Self> {
        if let Some(record) = &wanted.record {
            let by_name = Self::of("INDEXED BY audit_record_name", "record_name = ?", record);
            return vec![by_name, Self::of("INDEXED BY audit_record_id", "record_id = ?", record)];
        }
        if let Some(actor) = &wanted.actor {
            return vec![Self::of("INDEXED BY audit_actor", "actor = ?", actor)];
        }
        if let Some(actions) = &wanted.actions {
            return actions.iter().map(|action| Self::of("INDEXED BY audit_action", "action = ?", action.as_str())).collect();
        }
        if let Some(tenants) = &wanted.tenants {
            return tenants.iter().map(|tenant| Self::of("INDEXED BY audit_tenant", "tenant = ?", tenant)).collect();
        }
        vec![Self { index: "NOT INDEXED", condition: "TRUE", value: None }]
    }
}

/// The statements that find the rows that are wanted, each in the order of their ids.
fn queries(wanted: &Wanted) -> Vec<(String, Vec<SqlValue>)> {
    let (conditions, values) = conditions(wanted);
    let order = if wanted.after.is_some() { "ASC" } else { "DESC" };
    let limit = SqlValue::Integer(i64::try_from(wanted.limit).unwrap_or(i64::MAX));
    let ways = Way::to(wanted).into_iter().map(|Way { index, condition, value }| {
        let sql = format!("SELECT {COLUMNS} FROM audit {index} WHERE {condition}{conditions} ORDER BY id {order} LIMIT ?");
        (sql, value.into_iter().chain(values.iter().cloned()).chain([limit.clone()]).collect())
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
    use super::*;
    use crate::store::temporary;

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
            for wanted in all_that_is_asked() {
                for (sql, values) in queries(&wanted) {
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
            let from_the_newest = Way::to(&wanted)[0].value.is_none() && steps[0] == "SCAN audit";
            assert!(from_the_newest || steps[0].starts_with("SEARCH audit USING"), "{sql}: {steps:?}");
            assert!(!steps[1..].iter().any(|step| step.starts_with("SCAN")), "{sql}: {steps:?}");
        }
    }
}
