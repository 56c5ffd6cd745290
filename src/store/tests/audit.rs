//! The audit's promises: rows are added and never changed, with their change or not at all, and go when they have been kept for their time.

use std::sync::Arc;
use std::time::Duration;

use crate::audit::{Action, Actor, Entry, Origin, Record};
use crate::clock::{BootId, Moment, Timestamp};
use crate::store::audit::list::{Told, Wanted, rows};
use crate::store::audit::{Pruned, acting};
use crate::store::sample::StandingClock;
use crate::store::{Fault, Store, StoreError, Transaction, temporary, tenant};

const DAY: Duration = Duration::from_secs(86_400);

async fn told(store: &Store) -> Vec<Told> {
    select(store, Wanted { limit: 1_000, ..Wanted::default() }).await
}

async fn select(store: &Store, wanted: Wanted) -> Vec<Told> {
    store.read(move |connection| rows(connection, &wanted)).await.expect("read")
}

async fn records(store: &Store, name: &'static str) {
    let entry = Entry::of(Action::TenantCreated).on(Record::of_tenant("tenant", name, name, name));
    store.write(move |transaction| transaction.record(&entry)).await.expect("written");
}

/// What SQLite says to a statement, on the writer's own connection.
async fn says(store: &Store, sql: &'static str) -> Result<usize, String> {
    let run = move |transaction: &Transaction<'_>| Ok(transaction.execute(sql, []).map_err(|error| error.to_string()));
    store.write(run).await.expect("judged")
}

#[tokio::test]
async fn rows_are_neither_changed_nor_replaced_nor_deleted() {
    let (_directory, store) = temporary();
    records(&store, "one").await;
    records(&store, "two").await;
    let before = told(&store).await;
    for sql in [
        "UPDATE audit SET actor = 'somebody else'",
        "UPDATE audit SET id = 99 WHERE id = 1",
        "DELETE FROM audit",
        "DELETE FROM audit WHERE id = 2",
        "INSERT OR REPLACE INTO audit SELECT id, at, action, outcome, 'daemon', 'x', record_kind, record_id, record_name, tenant, address, \
         request_id, details FROM audit WHERE id = 1",
        "INSERT INTO audit (id, at, action, outcome, actor_kind, actor, details) VALUES (0, 1, 'x', 'done', 'daemon', 'x', '{}')",
        "INSERT INTO audit (id, at, action, outcome, actor_kind, actor, details) VALUES (-2, 1, 'x', 'done', 'daemon', 'x', '{}')",
        "INSERT OR REPLACE INTO audit (id, at, action, outcome, actor_kind, actor, details) VALUES (-2, 1, 'x', 'done', 'daemon', 'x', '{}')",
        "UPDATE audit_horizon SET at = 9007199254740991",
        "UPDATE audit_horizon SET at = (SELECT max(at) + 1 FROM audit)",
        "UPDATE audit_horizon SET at = -1",
        "UPDATE audit_horizon SET one = 1, at = -1",
        "DELETE FROM audit_horizon",
        "INSERT OR REPLACE INTO audit_horizon (one, at) VALUES (1, 9999999999999)",
    ] {
        let refusal = says(&store, sql).await.expect_err(sql);
        assert!(refusal.contains("audit"), "{sql}: {refusal}");
    }
    assert_eq!(told(&store).await, before);
    assert_eq!(before.iter().map(|row| row.id).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn rows_go_when_they_were_kept_for_their_time_and_no_id_is_given_twice() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = StandingClock::new();
    let store = Store::open(directory.path(), None, clock.clone()).expect("a new store");
    for _ in 0..450 {
        records(&store, "old").await;
    }
    clock.pass(9 * DAY);
    records(&store, "young").await;
    assert_eq!(store.prune_audit(10 * DAY).await.expect("pruned"), Pruned::Rows(0), "nothing is old enough");
    clock.pass(3 * DAY);
    assert_eq!(store.prune_audit(10 * DAY).await.expect("pruned"), Pruned::Rows(450), "in small steps");
    let left = told(&store).await;
    assert_eq!(left.iter().map(|row| row.action.as_str()).collect::<Vec<_>>(), ["tenant.created", "audit.pruned"]);
    assert_eq!((left[1].id, &left[1].details["rows"]), (452, &serde_json::json!(450)), "{left:?}");
    assert!(says(&store, "DELETE FROM audit WHERE record_name = 'young'").await.is_err());
    clock.pass(40 * DAY);
    store.prune_audit(DAY).await.expect("pruned");
    records(&store, "next").await;
    let left = told(&store).await;
    assert_eq!(left.iter().map(|row| row.id).collect::<Vec<_>>(), [453, 454], "{left:?}");
}

#[tokio::test]
async fn a_wall_clock_that_is_far_ahead_deletes_nothing_across_restarts_and_one_that_stays_there_does() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = StandingClock::new();
    let opens = || Store::open(directory.path(), None, Arc::clone(&clock) as Arc<dyn crate::clock::Clock>).expect("a store");
    let prunes = async |store: &Store| store.prune_audit(10 * DAY).await.expect("looked");
    let mut store = opens();
    assert_eq!(prunes(&store).await, Pruned::Rows(0));
    records(&store, "one").await;
    clock.pass(DAY);
    clock.change(|now| now.wall = now.wall.plus(10_000 * DAY));
    assert_eq!((prunes(&store).await, prunes(&store).await), (Pruned::Doubted(true), Pruned::Doubted(false)));
    let rows = told(&store).await;
    let actions: Vec<&str> = rows.iter().map(|row| row.action.as_str()).collect();
    assert_eq!((actions, rows[1].actor.as_str()), (vec!["tenant.created", "clock.doubted"], "p2pid"));
    let first = rows[0].at.to_string();
    assert_eq!(rows[1].details, serde_json::json!({ "last_believed": first, "in_this_boot": true }));
    for hour in 0..23 {
        clock.pass(DAY / 24);
        if hour == 12 {
            store.close().await;
            store = opens();
        }
        assert_eq!(prunes(&store).await, Pruned::Doubted(false), "{hour}");
    }
    // It is set right in time, and wrong again in another boot.
    clock.change(|now| now.wall = now.wall.minus(10_000 * DAY));
    assert_eq!(prunes(&store).await, Pruned::Rows(0));
    clock.change(|now| *now = Moment { wall: now.wall.plus(10_000 * DAY), boot: Duration::ZERO, boot_id: BootId(8) });
    assert_eq!(prunes(&store).await, Pruned::Doubted(true));
    assert_eq!(told(&store).await[2].details["in_this_boot"], false);
    clock.pass(DAY);
    assert_eq!(prunes(&store).await, Pruned::Rows(1), "it was the one of before that was wrong");
    // Back again, for good: rows of now go in their time, those of then when they say.
    clock.change(|now| now.wall = now.wall.minus(10_000 * DAY));
    assert_eq!(prunes(&store).await, Pruned::Doubted(true));
    records(&store, "two").await;
    clock.pass(12 * DAY);
    assert_eq!(prunes(&store).await, Pruned::Rows(2), "two, and that it was doubted");
    store.close().await;
}

#[tokio::test]
async fn a_row_holds_with_its_change_and_not_without() {
    let (_directory, store) = temporary();
    let failing = |transaction: &Transaction<'_>| -> Result<(), Fault> {
        tenant::insert(transaction, "sales", Timestamp::from_millis(1))?;
        transaction.record(&Entry::of(Action::TenantCreated))?;
        Err(Fault::Corrupt { table: "tenant", what: "for this test".to_owned() })
    };
    assert!(matches!(store.write(failing).await, Err(StoreError::Fault(_))));
    assert!(told(&store).await.is_empty());

    // A change whose row cannot be written does not happen.
    says(&store, "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'full'); END").await.expect("a trigger");
    let change = |transaction: &Transaction<'_>| {
        tenant::insert(transaction, "sales", Timestamp::from_millis(1))?;
        transaction.record(&Entry::of(Action::TenantCreated))
    };
    assert!(store.write(change).await.is_err());
    let forgetful = |transaction: &Transaction<'_>| tenant::insert(transaction, "sales", Timestamp::from_millis(1));
    let asked = Origin::new(Actor::Process { uid: 0 }, None, None).changing("POST tenants".to_owned());
    assert!(acting(asked, store.write(forgetful)).await.is_err());
    let names = store.read(tenant::all).await.expect("read");
    assert_eq!(names.len(), 1, "{names:?}");
}

#[tokio::test]
async fn a_change_over_the_admin_api_that_nobody_tells_of_gets_a_row_by_itself() {
    let (_directory, store) = temporary();
    let asked = || Origin::new(Actor::Process { uid: 7 }, "192.0.2.1".parse().ok(), Some("r1".to_owned()));
    let change = |transaction: &Transaction<'_>| tenant::insert(transaction, "sales", Timestamp::from_millis(1));
    acting(asked(), store.write(change)).await.expect("written");
    assert!(told(&store).await.is_empty(), "what is no change of the API needs none");
    let change = |transaction: &Transaction<'_>| tenant::insert(transaction, "other", Timestamp::from_millis(1));
    acting(asked().changing("POST tenants".to_owned()), store.write(change)).await.expect("written");
    acting(asked().changing("POST tenants".to_owned()), store.write(change)).await.expect("judged: it exists");
    let rows = told(&store).await;
    let [row] = rows.as_slice() else { panic!("one row: {rows:?}") };
    let said = (row.action.as_str(), row.actor.as_str(), row.address.as_deref(), row.request_id.as_deref());
    assert_eq!(said, ("admin.changed", "uid 7", Some("192.0.2.1"), Some("r1")));
    assert_eq!(row.details["request"], "POST tenants");
}

#[tokio::test]
async fn rows_are_found_by_what_they_say() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = StandingClock::new();
    let store = Store::open(directory.path(), None, Arc::clone(&clock) as Arc<dyn crate::clock::Clock>).expect("a new store");
    for name in ["one", "two", "one", "three"] {
        clock.pass(Duration::from_secs(60));
        records(&store, name).await;
    }
    let third = told(&store).await[2].at;
    // What one is called is another's id.
    for (id, name) in [("four", "five"), ("six", "four")] {
        let entry = Entry::of(Action::TenantDeleted).on(Record::of_tenant("tenant", name, id, name));
        store.write(move |transaction| transaction.record(&entry)).await.expect("written");
    }
    let text = |text: &str| Some(text.to_owned());
    let plain = Wanted { limit: 10, ..Wanted::default() };
    for (wanted, ids) in [
        (Wanted { limit: 2, ..plain.clone() }, vec![5, 6]),
        (Wanted { before: Some(3), limit: 1, ..plain.clone() }, vec![2]),
        (Wanted { after: Some(0), limit: 2, ..plain.clone() }, vec![1, 2]),
        (Wanted { after: Some(6), ..plain.clone() }, vec![]),
        (Wanted { since: Some(third), before: Some(5), ..plain.clone() }, vec![3, 4]),
        (Wanted { until: Some(third), ..plain.clone() }, vec![1, 2]),
        (Wanted { since: Some(third.plus(DAY)), ..plain.clone() }, vec![]),
        (Wanted { record: text("one"), ..plain.clone() }, vec![1, 3]),
        (Wanted { record: text("one"), after: Some(1), ..plain.clone() }, vec![3]),
        (Wanted { record: text("one"), limit: 1, ..plain.clone() }, vec![3]),
        (Wanted { record: text("four"), ..plain.clone() }, vec![5, 6]),
        (Wanted { record: text("four"), after: Some(0), limit: 1, ..plain.clone() }, vec![5]),
        (Wanted { record: text("four"), actor: text("nobody"), ..plain.clone() }, vec![]),
        (Wanted { tenants: Some(vec!["one".to_owned(), "three".to_owned()]), ..plain.clone() }, vec![1, 3, 4]),
        (Wanted { tenants: Some(vec!["one".to_owned(), "three".to_owned()]), limit: 2, ..plain.clone() }, vec![3, 4]),
        (Wanted { actor: text("p2pid"), after: Some(2), limit: 2, ..plain.clone() }, vec![3, 4]),
        (Wanted { actor: text("nobody"), ..plain.clone() }, vec![]),
        (Wanted { actions: Some(vec![Action::TenantDeleted, Action::TenantCreated]), limit: 3, ..plain.clone() }, vec![4, 5, 6]),
        (Wanted { actions: Some(vec![Action::PeerUnlinked]), ..plain.clone() }, vec![]),
    ] {
        let found: Vec<i64> = select(&store, wanted.clone()).await.iter().map(|row| row.id).collect();
        assert_eq!(found, ids, "{wanted:?}");
    }
}

#[tokio::test]
async fn a_tenant_of_the_same_name_reads_no_row_of_the_one_before() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = StandingClock::new();
    let store = Store::open(directory.path(), None, clock.clone()).expect("a new store");
    let begins = async || {
        let begin = |transaction: &Transaction<'_>| tenant::insert(transaction, "sales", transaction.now().wall);
        assert!(store.write(begin).await.expect("written"));
        records(&store, "sales").await;
    };
    begins().await;
    clock.pass(DAY);
    records(&store, "sales").await;
    let wanted = Wanted { tenants: Some(vec!["sales".to_owned()]), limit: 100, ..Wanted::default() };
    let of_today = Wanted { of_today: true, ..wanted.clone() };
    assert_eq!(select(&store, of_today.clone()).await.len(), 2, "all since it was made");
    store.write(|transaction| tenant::delete(transaction, "sales")).await.expect("deleted");
    assert_eq!(select(&store, of_today.clone()).await, []);
    clock.pass(DAY);
    begins().await;
    assert_eq!((select(&store, of_today).await.len(), select(&store, wanted).await.len()), (1, 3));
}
