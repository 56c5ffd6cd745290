//! Lists of grants, a page at a time: a page costs what is on it, however many grants there are and however many of them are over.
//!
//! A grant belongs to a tenant by its app, so no index has a tenant's grants in their order. Each app's are, and of each app those that one
//! person allowed; of several apps the pages are merged here.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, OptionalExtension, params};

use super::{SHOWN, SHOWN_LIVE_OF_USER, ShownGrant, read_shown};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::store::Fault;

/// What [`crate::inbound::grant::Grant::is_active`] says at the time `?1`, over the columns of an index.
const IS_ACTIVE: &str = "g.ended_at IS NULL AND g.epoch = (SELECT epoch FROM meta) AND (g.expires_at IS NULL OR g.expires_at > ?1)";
/// The time is a parameter in any case.
const ANY: &str = "?1 IS NULL";
const APPS: &str = "SELECT id FROM ib_app WHERE tenant = ?1";
/// The apps that the person `?1` allowed something: from one to the next, without a look at every grant.
macro_rules! allowed_apps {
    ($index:literal, $live:literal, $conditions:literal) => {
        concat!(
            "WITH RECURSIVE allowed (app) AS (SELECT (SELECT min(g.app) FROM grant g INDEXED BY ",
            $index,
            " WHERE g.user = ?1",
            $live,
            ") UNION ALL SELECT (SELECT min(g.app) FROM grant g INDEXED BY ",
            $index,
            " WHERE g.user = ?1 AND g.app > allowed.app",
            $live,
            ") FROM allowed WHERE allowed.app IS NOT NULL)
            SELECT a.id FROM allowed CROSS JOIN ib_app a ON a.id = allowed.app WHERE ",
            $conditions
        )
    };
}
const APPS_OF_PERSON: &str = allowed_apps!("grant_user_app", "", "a.tenant = ?2");
const LIVE_APPS_OF_PERSON: &str = allowed_apps!("grant_user_app_live", " AND g.ended_at IS NULL", "a.tenant = ?2");
const ALL_LIVE_APPS_OF_PERSON: &str = allowed_apps!("grant_user_app_live", " AND g.ended_at IS NULL", "a.purge_at IS NULL");

/// Which grants are wanted, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of this tenant.
    pub tenant: String,
    /// Of one of these apps of it; none asks for all.
    pub apps: Option<Vec<Id>>,
    /// Allowed by this person.
    pub allowed_by: Option<Id>,
    /// Those that are active at this time; none asks also for what is over.
    pub active_at: Option<Timestamp>,
    /// Behind the one with this id, whether or not it is still there.
    pub after: Option<Id>,
    /// So many at most.
    pub limit: usize,
}

/// The grants that are wanted: the next grant of each app is looked up, and the oldest of these taken.
pub fn page(connection: &Connection, wanted: &Wanted) -> Result<Vec<ShownGrant>, Fault> {
    let mut next_of = connection.prepare_cached(&next_of_app_sql(wanted.active_at.is_some(), wanted.allowed_by.is_some()))?;
    let mut next = |app: Id, after: SqlValue| -> Result<Option<Reverse<(Id, Id)>>, Fault> {
        let found = next_of.query_row(params![wanted.active_at, app, after, wanted.allowed_by], |row| row.get(0)).optional()?;
        Ok(found.map(|grant: Id| Reverse((grant, app))))
    };
    let mut heads = BinaryHeap::new();
    for app in apps(connection, wanted)? {
        heads.extend(next(app, blob(wanted.after))?);
    }
    let mut by_id = connection.prepare_cached(&by_id_sql())?;
    let mut page = Vec::new();
    while let Some(Reverse((grant, app))) = heads.pop().filter(|_| page.len() < wanted.limit) {
        page.push(by_id.query_row([grant], read_shown)?);
        heads.extend(next(app, blob(Some(grant)))?);
    }
    Ok(page)
}

/// The apps whose grants may be wanted.
fn apps(connection: &Connection, wanted: &Wanted) -> Result<Vec<Id>, Fault> {
    match (&wanted.apps, wanted.allowed_by) {
        (Some(apps), _) => Ok(apps.clone()),
        (None, Some(person)) => {
            let sql = if wanted.active_at.is_some() { LIVE_APPS_OF_PERSON } else { APPS_OF_PERSON };
            Ok(connection.prepare_cached(sql)?.query_map(params![person, wanted.tenant], |row| row.get(0))?.collect::<Result<_, _>>()?)
        }
        (None, None) => Ok(connection.prepare_cached(APPS)?.query_map([&wanted.tenant], |row| row.get(0))?.collect::<Result<_, _>>()?),
    }
}

fn next_of_app_sql(active: bool, of_person: bool) -> String {
    let (index, person) = if of_person { ("grant_user_app", "g.user = ?4") } else { ("grant_app", "?4 IS NULL") };
    let (live, which) = if active { ("_live", IS_ACTIVE) } else { ("", ANY) };
    format!(
        "SELECT g.id FROM grant g INDEXED BY {index}{live} WHERE {which} AND g.app = ?2 AND g.id > ?3 AND {person} ORDER BY g.id LIMIT 1"
    )
}

/// Whether a person ever allowed something of a tenant's that is still known.
pub fn has_allowed(connection: &Connection, person: Id, tenant: &str) -> Result<bool, Fault> {
    Ok(connection.prepare_cached(APPS_OF_PERSON)?.exists(params![person, tenant])?)
}

/// The apps of all tenants that a person allowed something which nobody ended.
pub(in crate::store) fn live_apps_of_person(connection: &Connection, person: Id) -> Result<Vec<Id>, Fault> {
    let mut statement = connection.prepare_cached(ALL_LIVE_APPS_OF_PERSON)?;
    Ok(statement.query_map([person], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// What a person allowed that is active, the newest first; from what is older than `before` on, where that is given.
pub fn active_of_person(
    connection: &Connection,
    person: Id,
    before: Option<Id>,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<ShownGrant>, Fault> {
    let mut statement = connection.prepare_cached(&active_of_person_sql())?;
    // Longer than an id, and so behind all of them.
    let before = before.map_or(SqlValue::Blob(vec![u8::MAX; 17]), |before| blob(Some(before)));
    let rows = statement.query_map(params![now, person, limit_of(limit), before], read_shown)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn active_of_person_sql() -> String {
    format!("{SHOWN_LIVE_OF_USER} WHERE {IS_ACTIVE} AND g.user = ?2 AND a.purge_at IS NULL AND g.id < ?4 ORDER BY g.id DESC LIMIT ?3")
}

fn by_id_sql() -> String {
    format!("{SHOWN} WHERE g.id = ?1")
}

/// An id as it is compared with those in a table; no id comes before all of them.
fn blob(id: Option<Id>) -> SqlValue {
    SqlValue::Blob(id.map(|id| id.as_bytes().to_vec()).unwrap_or_default())
}

fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rusqlite::params_from_iter;

    use super::*;
    use crate::inbound::grant::{EndReason, Grant, MadeBy};
    use crate::inbound::ib_app::IbApp;
    use crate::inbound::user::User;
    use crate::store::sample::{HOUR, app, granted, person};
    use crate::store::{Store, Transaction, grant, ib_app, temporary, tenant, user};

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn id(number: u8) -> Id {
        Id::from_bytes([number; 16])
    }

    fn other_app(number: u8, tenant: &str) -> IbApp {
        let (name, client_id) = (format!("app {number}"), format!("client {number}"));
        IbApp { id: id(number), tenant: tenant.to_owned(), name, client_id, ..app() }
    }

    /// The apps 101 and 102 of the tenant `default` and 103 of `sales`; the people 1 and 7; grants 11 to 34 of all of them by turns, of which
    /// every fourth was ended and every fifth has expired; and one of each that was made in an earlier epoch.
    fn fill(transaction: &Transaction<'_>) -> Result<(), Fault> {
        tenant::insert(transaction, "sales", NOW)?;
        for (number, tenant) in [(101, "default"), (102, "default"), (103, "sales")] {
            ib_app::insert(transaction, &other_app(number, tenant))?;
        }
        user::insert(transaction, &person())?;
        user::insert(transaction, &User { id: id(7), login: "two@two.example".to_owned(), ..person() })?;
        for number in 11..=34 {
            let expires_at = (number % 5 == 0).then(|| NOW.minus(Duration::from_secs(1)));
            let by = if number % 2 == 0 { id(7) } else { person().id };
            let made =
                Grant { id: id(number), app: id(101 + number % 3), user: Some(by), expires_at, made_by: MadeBy::Consent, ..granted(NOW) };
            grant::insert(transaction, &made, HOUR)?;
            if number % 4 == 0 {
                grant::end(transaction, made.id, EndReason::RevokedByAdmin)?;
            }
        }
        transaction.execute("UPDATE grant SET epoch = epoch - 1 WHERE id IN (?1, ?2)", [id(13), id(14)])?;
        Ok(())
    }

    /// What one page after the other shows, each of `limit`, and what a look at every grant says that it should be.
    async fn paged(store: &Store, wanted: Wanted, limit: usize) -> (Vec<Id>, Vec<Id>) {
        let look = move |connection: &Connection| {
            let mut shown = Vec::new();
            let mut wanted = Wanted { limit, ..wanted.clone() };
            loop {
                let page: Vec<Id> = super::page(connection, &wanted)?.iter().map(|shown| shown.grant.id).collect();
                assert!(page.len() <= limit);
                let Some(last) = page.last() else { break };
                wanted.after = Some(*last);
                shown.extend(page);
            }
            let mut all = connection.prepare(&format!("{SHOWN} ORDER BY g.id"))?;
            let all: Vec<ShownGrant> = all.query_map([], read_shown)?.collect::<Result<_, _>>()?;
            let is_wanted = |shown: &&ShownGrant| {
                shown.tenant == wanted.tenant
                    && wanted.apps.as_ref().is_none_or(|apps| apps.contains(&shown.grant.app))
                    && wanted.allowed_by.is_none_or(|person| shown.grant.user == Some(person))
                    && wanted.active_at.is_none_or(|now| shown.grant.is_active(now))
            };
            Ok((shown, all.iter().filter(is_wanted).map(|shown| shown.grant.id).collect()))
        };
        store.read(look).await.expect("read")
    }

    #[tokio::test]
    async fn pages_show_each_grant_that_is_wanted_once_and_the_oldest_first() {
        let (_directory, store) = temporary();
        store.write(fill).await.expect("written");
        let tenants = ["default", "sales", "nobody"].map(str::to_owned);
        for (tenant, active_at) in tenants.iter().flat_map(|tenant| [(tenant, None), (tenant, Some(NOW))]) {
            for (apps, allowed_by) in [
                (None, None),
                (Some(vec![id(102)]), None),
                (Some(vec![id(101), id(102)]), Some(person().id)),
                (None, Some(id(7))),
                (Some(Vec::new()), None),
            ] {
                let wanted = Wanted { tenant: tenant.clone(), apps, allowed_by, active_at, ..Wanted::default() };
                // Apps that are named are the tenant's.
                if wanted.apps.is_some() && tenant != "default" {
                    continue;
                }
                for limit in [1, 3, 100] {
                    let (shown, expected) = paged(&store, wanted.clone(), limit).await;
                    assert_eq!(shown, expected, "{wanted:?}");
                }
            }
        }
        let everything = Wanted { tenant: "default".to_owned(), ..Wanted::default() };
        assert_eq!(paged(&store, everything.clone(), 100).await.1.len(), 16);
        assert_eq!(paged(&store, Wanted { active_at: Some(NOW), ..everything }, 100).await.1.len(), 8, "the others are over");
    }

    #[tokio::test]
    async fn what_a_person_allowed_is_shown_newest_first_and_known_in_the_tenants_that_it_is_of() {
        let (_directory, store) = temporary();
        store.write(fill).await.expect("written");
        let look = |connection: &Connection| {
            let shown = active_of_person(connection, id(7), None, NOW, 3)?;
            assert_eq!(shown.iter().map(|shown| shown.grant.id).collect::<Vec<_>>(), [id(34), id(26), id(22)]);
            let older = active_of_person(connection, id(7), Some(id(22)), NOW, 3)?;
            assert_eq!(older.iter().map(|shown| shown.grant.id).collect::<Vec<_>>(), [id(18)]);
            assert!(has_allowed(connection, id(7), "default")? && has_allowed(connection, id(7), "sales")?);
            assert!(!has_allowed(connection, id(7), "nobody")? && !has_allowed(connection, id(9), "default")?);
            Ok(())
        };
        store.read(look).await.expect("read");
        store.write(|transaction| ib_app::delete(transaction, id(102))).await.expect("deleted");
        let look = |connection: &Connection| {
            let shown = active_of_person(connection, id(7), None, NOW, 3)?;
            assert_eq!(
                shown.iter().map(|shown| shown.grant.id).collect::<Vec<_>>(),
                [id(26), id(18)],
                "an app that is deleted holds nothing"
            );
            let wanted = Wanted { tenant: "default".to_owned(), limit: 100, ..Wanted::default() };
            for wanted in [Wanted { allowed_by: Some(id(7)), ..wanted.clone() }, wanted] {
                assert!(page(connection, &wanted)?.iter().all(|shown| shown.grant.app == id(101)));
            }
            Ok(())
        };
        store.read(look).await.expect("read");
    }

    #[tokio::test]
    async fn no_page_reads_a_table_from_end_to_end_or_sorts() {
        let (_directory, store) = temporary();
        let look = |connection: &Connection| {
            let mut plans = Vec::new();
            let statements = [
                (active_of_person_sql(), "grant_user_live"),
                (next_of_app_sql(true, true), "COVERING INDEX grant_user_app_live (user=? AND app=? AND id>?)"),
                (next_of_app_sql(false, true), "COVERING INDEX grant_user_app (user=? AND app=? AND id>?)"),
                (next_of_app_sql(true, false), "COVERING INDEX grant_app_live (app=? AND id>?)"),
                (next_of_app_sql(false, false), "COVERING INDEX grant_app (app=? AND id>?)"),
                (by_id_sql(), "PRIMARY KEY (id=?)"),
                (grant::COUNT_OF_APP.to_owned(), "grant_app_live"),
                (grant::ACTIVE_OF_APP.to_owned(), "grant_app_live"),
            ];
            for (sql, index) in statements {
                let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let steps = statement.query_map(params_from_iter(vec![0; statement.parameter_count()]), |row| row.get::<_, String>(3))?;
                plans.push((steps.collect::<Result<Vec<_>, _>>()?, sql, index));
            }
            Ok(plans)
        };
        for (steps, sql, index) in store.read(look).await.expect("read") {
            assert!(steps[0].starts_with("SEARCH g") && steps[0].contains(index), "{sql}: {steps:?}");
            let reads_all = |step: &&String| step.starts_with("SCAN") && *step != "SCAN meta" || step.contains("TEMP B-TREE");
            assert_eq!(steps.iter().find(reads_all), None, "{sql}: {steps:?}");
        }
    }
    #[tokio::test]
    async fn the_apps_that_a_person_allowed_something_are_found_without_a_look_at_every_grant() {
        let (_directory, store) = temporary();
        let look = |connection: &Connection| {
            let mut plans = Vec::new();
            for (sql, index) in [
                (APPS_OF_PERSON, "grant_user_app "),
                (LIVE_APPS_OF_PERSON, "grant_user_app_live "),
                (ALL_LIVE_APPS_OF_PERSON, "grant_user_app_live "),
            ] {
                let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let given = vec![0; statement.parameter_count()];
                let steps = statement.query_map(params_from_iter(given), |row| row.get::<_, String>(3))?.collect::<Result<Vec<_>, _>>()?;
                plans.push((steps, index));
            }
            Ok(plans)
        };
        for (steps, index) in store.read(look).await.expect("read") {
            let searches: Vec<&String> = steps.iter().filter(|step| step.contains(" g ")).collect();
            let [first, next] = searches[..] else { panic!("{steps:?}") };
            assert!(first.starts_with("SEARCH") && first.contains(&format!("COVERING INDEX {index}(user=?)")), "{steps:?}");
            assert!(next.starts_with("SEARCH") && next.contains(&format!("COVERING INDEX {index}(user=? AND app>?)")), "{steps:?}");
        }
    }
}
