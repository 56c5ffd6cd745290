//! `p2pid audit`: who did what to which record, from where.

use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::Value;

use super::client::path;
use super::context::Context;
use super::failure::Failure;
use super::records::text;

/// Rows that are shown where nothing says how many.
const MOST: usize = 100;

/// Rows of one answer.
const PAGE: usize = 1_000;

/// How often it is asked whether there is something new.
const EVERY: Duration = Duration::from_secs(1);

const COLUMNS: [&str; 7] = ["at", "actor", "action", "outcome", "record", "address", "details"];

/// Show who did what to which record, from where: the newest rows, the oldest of them first
#[derive(Debug, Args)]
pub(super) struct Audit {
    /// Only from this time on: `1h`, `7d`, or 2026-12-01T06:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<String>,
    /// Only before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<String>,
    /// Only these actions: `peer.unlinked`, or `peer` for all of peers; several with commas
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// Only what was done to the record of this name or id
    #[arg(long, value_name = "NAME")]
    record: Option<String>,
    /// Only what this one did: a login, a client id, or "uid 0"
    #[arg(long, value_name = "WHO")]
    actor: Option<String>,
    /// So many rows at most, the newest; when left out 100, and with --since all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Go on with what is new, through restarts of the daemon too; with --json one document a line
    #[arg(long, conflicts_with = "until")]
    follow: bool,
}

/// Does what the command says.
pub(super) async fn run(command: &Audit, context: &Context<'_>) -> Result<(), Failure> {
    let query = command.query(context);
    let limit = match (command.limit, &command.since) {
        (Some(limit), _) => limit as usize,
        // Read from there on, page by page, and no row is left out.
        (None, Some(_)) if command.follow => return follow(context, &query, Vec::new()).await,
        (None, Some(_)) => return all(command, context, &query).await,
        (None, None) => MOST,
    };
    // One more tells whether there are older ones.
    let mut rows = newest(context, &query, limit.saturating_add(1)).await?;
    if rows.len() > limit {
        rows.remove(0);
        context.report.note("older rows of that kind are not shown; --since TIME or --limit N shows them");
    }
    if command.follow {
        return follow(context, &query, rows).await;
    }
    command.must_tell(context, rows.is_empty()).await?;
    let mut list = context.report.list(&COLUMNS);
    list.page(&rows, columns);
    list.finish();
    Ok(())
}

/// Prints all rows from a time on, page by page, and the first page even before there is another.
async fn all(command: &Audit, context: &Context<'_>, query: &[(&'static str, String)]) -> Result<(), Failure> {
    let mut rows = fetch(context, query, PAGE, Some(("after", "0".to_owned()))).await?;
    command.must_tell(context, rows.is_empty()).await?;
    let mut list = context.report.list(&COLUMNS);
    loop {
        list.page(&rows, columns);
        match rows.last().filter(|_| rows.len() == PAGE && !context.report.is_broken()) {
            Some(last) => rows = fetch(context, query, PAGE, Some(("after", id(last).to_string()))).await?,
            None => break,
        }
    }
    list.finish();
    Ok(())
}

/// A name of which the audit tells nothing at all is a slip of the pen; what a record did not do in some time is an answer.
async fn must_be_known(context: &Context<'_>, record: &str) -> Result<(), Failure> {
    let tenant = context.given_tenant().map(|tenant| ("tenant", tenant.to_owned()));
    let query: Vec<_> = [("record", record.to_owned())].into_iter().chain(tenant).collect();
    if fetch(context, &query, 1, None).await?.is_empty() {
        let failure = Failure::new("not_found", format!("the audit tells of no record {record:?}")).found("no row of it");
        return Err(failure.expected("the name or id of a record, as its row names it").next("p2pid audit"));
    }
    Ok(())
}

impl Audit {
    /// Where nothing is told, says so; of a record that is not known at all, that it is not.
    async fn must_tell(&self, context: &Context<'_>, is_empty: bool) -> Result<(), Failure> {
        if let Some(record) = self.record.as_ref().filter(|_| is_empty) {
            must_be_known(context, record).await?;
        }
        if is_empty {
            context.report.note("nothing of that kind was done in the time that is kept");
        }
        Ok(())
    }

    fn query(&self, context: &Context<'_>) -> Vec<(&'static str, String)> {
        let given = [
            ("since", self.since.clone()),
            ("until", self.until.clone()),
            ("action", self.action.clone()),
            ("record", self.record.clone()),
            ("actor", self.actor.clone()),
            ("tenant", context.given_tenant().map(str::to_owned)),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// The newest rows, page by page from the last one back.
async fn newest(context: &Context<'_>, query: &[(&'static str, String)], limit: usize) -> Result<Vec<Value>, Failure> {
    let mut rows: Vec<Value> = Vec::new();
    loop {
        let wanted = (limit - rows.len()).min(PAGE);
        let before = rows.first().map(|row| ("before", id(row).to_string()));
        let mut page = fetch(context, query, wanted, before).await?;
        let is_last = page.len() < wanted;
        page.append(&mut rows);
        rows = page;
        if is_last || rows.len() >= limit {
            return Ok(rows);
        }
    }
}

/// Prints `rows`, and then every row behind them, once. Ends when nobody reads any more.
async fn follow(context: &Context<'_>, query: &[(&'static str, String)], rows: Vec<Value>) -> Result<(), Failure> {
    let mut last: Option<(i64, Value)> = None;
    let mut new = rows;
    let mut is_away = false;
    loop {
        for row in &new {
            context.report.data(row, || columns(row).join("  "));
            last = Some((id(row), row["at"].clone()));
        }
        if context.report.is_broken() {
            return Ok(());
        }
        if new.len() < PAGE {
            tokio::time::sleep(EVERY).await;
        }
        if is_away {
            last = match still_there(context, last.clone()).await {
                Ok(last) => last,
                Err(_) => continue,
            };
        }
        let after = last.as_ref().map_or(0, |(id, _)| *id);
        new = match fetch(context, query, PAGE, Some(("after", after.to_string()))).await {
            Ok(new) => {
                is_away = false;
                new
            }
            // It is being started again, perhaps; what happens meanwhile is read afterwards.
            Err(failure) if ["not_running", "no_answer", "unavailable"].contains(&failure.code.as_str()) => {
                if !is_away {
                    context.report.note(&format!("{}; waiting for it", failure.message));
                }
                is_away = true;
                Vec::new()
            }
            Err(failure) => return Err(failure),
        };
    }
}

/// Where to go on after the daemon was away: behind `last` as before, or where the audit goes on when a backup was put back meanwhile.
async fn still_there(context: &Context<'_>, last: Option<(i64, Value)>) -> Result<Option<(i64, Value)>, Failure> {
    let Some((known, at)) = last else { return Ok(None) };
    let found = fetch(context, &[], 1, Some(("after", (known - 1).max(0).to_string()))).await?;
    if found.first().is_some_and(|row| id(row) == known && row["at"] == at) {
        return Ok(Some((known, at)));
    }
    context.report.warn("a backup was put back: the audit goes on from there");
    let restored = fetch(context, &[("action", "epoch.begun".to_owned())], 1, None).await?;
    Ok(restored.first().map(|row| (id(row) - 1, Value::Null)))
}

async fn fetch(
    context: &Context<'_>,
    query: &[(&'static str, String)],
    limit: usize,
    from: Option<(&'static str, String)>,
) -> Result<Vec<Value>, Failure> {
    let limit = ("limit", limit.to_string());
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query.iter().chain([&limit]).chain(&from)).finish();
    let records = context.client()?.fetch(&format!("{}?{query}", path(&["audit"]))).await?;
    let Value::Array(records) = records else { return Err(Failure::new("no_answer", "the daemon's list is not a list")) };
    Ok(records.into_iter().map(|mut record| record["attributes"].take()).collect())
}

fn id(row: &Value) -> i64 {
    row["id"].as_i64().unwrap_or_default()
}

/// What people see of a row.
fn columns(row: &Value) -> Vec<String> {
    let record = match (&row["record_kind"], &row["record_name"], &row["tenant"]) {
        (Value::Null, ..) => "-".to_owned(),
        (kind, name, Value::Null) => format!("{} {}", text(kind), text(name)),
        (kind, name, tenant) => format!("{} {}/{}", text(kind), text(tenant), text(name)),
    };
    let shown = |value: &Value| if value.is_null() { "-".to_owned() } else { text(value) };
    [
        text(&row["at"]),
        text(&row["actor"]),
        text(&row["action"]),
        text(&row["outcome"]),
        record,
        shown(&row["address"]),
        text(&row["details"]),
    ]
    .into_iter()
    .map(|text| text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect())
    .collect()
}

/// A time as the admin API reads it, from one or from how long ago it was.
fn time(text: &str) -> Result<String, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        let time = SystemTime::now().checked_sub(ago).filter(|time| *time >= SystemTime::UNIX_EPOCH);
        return time.map(|time| humantime::format_rfc3339_millis(time).to_string()).ok_or_else(|| "that was before 1970".to_owned());
    }
    match humantime::parse_rfc3339_weak(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("expected how long ago, as in 1h or 7d, or a time as in 2026-12-01T06:00:00Z".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_given_or_counted_back() {
        assert_eq!(time("2026-12-01T06:00:00Z"), Ok("2026-12-01T06:00:00Z".to_owned()));
        assert!(time("1h 30m").is_ok_and(|time| time.ends_with('Z')));
        assert!(time("yesterday").is_err() && time("100000y").is_err());
    }

    #[test]
    fn a_row_is_one_line() {
        let row = json!({ "id": 7, "at": "2026-12-01T06:00:00Z", "actor": "uid 0", "action": "peer.created", "outcome": "done",
            "record_kind": "peer", "record_name": "two\u{1b}[2J", "tenant": "default", "address": null, "details": { "given": ["name"] } });
        let line = columns(&row).join("  ");
        assert_eq!(line, "2026-12-01T06:00:00Z  uid 0  peer.created  done  peer default/two\u{fffd}[2J  -  given: name");
    }
}
