//! What the purge takes, how, and what it leaves.

use rusqlite::Connection;

use super::*;
use crate::id::Id;
use crate::inbound::grant::NewAccess;
use crate::inbound::ib_app::IbApp;
use crate::inbound::realm;
use crate::secret::{Digest, ExposeSecret};
use crate::store::sample::{HOUR, app, fresh, linked, person};
use crate::store::token_table::TokenTable;
use crate::store::{access_token, app_token, authorization, grant, ib_app, realm as realms, refresh_token, temporary, tenant, user};
use crate::system::SystemClock;

#[tokio::test]
async fn every_table_that_runs_out_is_purged_by_an_index() {
    let (_directory, store) = temporary();
    let look = |connection: &Connection| {
        let mut statement = connection.prepare(
            "SELECT t.name, EXISTS (SELECT 1 FROM pragma_index_list(t.name) AS l, pragma_index_info(l.name) AS i
                    WHERE i.seqno = 0 AND i.name = 'purge_at'),
                    (SELECT group_concat(name, ', ') FROM (SELECT name FROM pragma_table_info(t.name) WHERE pk > 0 ORDER BY pk))
             FROM sqlite_schema AS t, pragma_table_info(t.name) AS c WHERE t.type = 'table' AND c.name = 'purge_at'",
        )?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(rows.collect::<Result<Vec<(String, bool, String)>, _>>()?)
    };
    let tables = store.read(look).await.expect("read");
    for (table, has_index, key) in &tables {
        assert!(has_index, "{table}.purge_at needs an index");
        assert!(TABLES.contains(&(table.as_str(), key.as_str())), "(\"{table}\", \"{key}\") is missing in TABLES");
    }
    assert_eq!(tables.len(), TABLES.len(), "TABLES names a table that does not run out");
}

#[tokio::test]
async fn no_statement_reads_a_table_from_end_to_end() {
    let (_directory, store) = temporary();
    let look = |connection: &Connection| {
        let mut plans = Vec::new();
        for sql in kinds().into_iter().flatten() {
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
            let steps = statement.query_map([0], |row| row.get::<_, String>(3))?.collect::<Result<Vec<_>, _>>()?;
            plans.push((sql, steps));
        }
        Ok(plans)
    };
    for (sql, steps) in store.read(look).await.expect("read") {
        assert!(steps.iter().any(|step| step.contains("purge_at<?")), "{sql}: {steps:?}");
        // The first few grants, once they are found, are gone through.
        let reads_all = |step: &String| step.starts_with("SCAN") && step != "SCAN first" || step.contains("TEMP B-TREE");
        assert!(!steps.iter().any(reads_all), "{sql}: {steps:?}");
    }
}

#[tokio::test]
async fn the_tokens_of_a_grant_go_with_it_in_small_steps() {
    let (_directory, store) = temporary();
    let fill = |transaction: &Transaction<'_>| {
        transaction.execute_batch(
            "INSERT INTO user (id, login, admin, permissions, created_at) VALUES (zeroblob(16), 'a', 0, '{}', 0);
             INSERT INTO ib_app VALUES (zeroblob(16), 'default', 'one', 'one', '[]', '[]', 'p2pi', NULL, NULL, 0, 0, '{}', NULL);
             INSERT INTO grant VALUES (CAST(printf('%016d', 1) AS BLOB), zeroblob(16), zeroblob(16), 'p2pi', 1, 0, NULL, NULL, NULL, NULL, 700, NULL, 'consent', 0),
                (CAST(printf('%016d', 2) AS BLOB), zeroblob(16), zeroblob(16), 'p2pi', 1, 0, NULL, NULL, NULL, NULL, 800, NULL, 'consent', 0);
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
             INSERT INTO access_token (digest, grant, generation, scope, issued_at, expires_at, ended)
             SELECT CAST(printf('%032d', i) AS BLOB), CAST(printf('%016d', 1 + i % 2) AS BLOB), i, 'p2pi', 0, 1, 0 FROM n",
        )?;
        Ok(())
    };
    store.write(fill).await.expect("written");
    let before = store.commits();
    assert_eq!(store.purge(Timestamp::from_millis(701)).await.expect("purged"), 1001);
    assert!(store.commits() - before >= 5, "in small steps");
    let left = |connection: &Connection| {
        let count = |table: &str| connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0));
        Ok((count("grant")?, count("access_token")?))
    };
    assert_eq!(store.read(left).await.expect("read"), (1, 1000), "an expired token is known as long as its grant");
}

#[tokio::test]
async fn many_grants_that_have_run_out_go_whatever_hangs_on_them() {
    let (_directory, store) = temporary();
    let fill = |transaction: &Transaction<'_>| {
        transaction.execute_batch(
            "INSERT INTO ib_app VALUES (zeroblob(16), 'default', 'one', 'one', '[]', '[]', 'p2pi', NULL, NULL, 0, 0, '{}', NULL);
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
             INSERT INTO grant SELECT CAST(printf('%016d', i) AS BLOB), zeroblob(16), NULL, 'p2pi', 1, 0, NULL, NULL, NULL, NULL, i, NULL,
                'consent', 0 FROM n;
             INSERT INTO access_token (digest, grant, generation, scope, issued_at, expires_at, ended)
             SELECT CAST(printf('%032d', purge_at) AS BLOB), id, 1, 'p2pi', 0, 1, 0 FROM grant WHERE purge_at % 3 > 0",
        )?;
        Ok(())
    };
    store.write(fill).await.expect("written");
    // Of the 900 grants 600 have a token.
    assert_eq!(store.purge(Timestamp::from_millis(901)).await.expect("purged"), 1500);
    let left = |connection: &Connection| {
        let count = |table: &str| connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0));
        Ok((count("grant")?, count("access_token")?))
    };
    assert_eq!(store.read(left).await.expect("read"), (100, 67));
}

#[tokio::test]
async fn what_has_run_out_goes_and_the_rest_stays() {
    let (_directory, store) = temporary();
    let fill = |transaction: &Transaction<'_>| {
        transaction.execute_batch(
            "INSERT INTO user (id, login, admin, permissions, created_at) VALUES (zeroblob(16), 'a', 0, '{}', 0);
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
             INSERT INTO session (digest, user, epoch, signed_in_at, purge_at)
             SELECT CAST(printf('%032d', i) AS BLOB), zeroblob(16), 1, 0, i FROM n",
        )?;
        Ok(())
    };
    store.write(fill).await.expect("written");
    let before = store.commits();
    assert_eq!(store.purge(Timestamp::from_millis(701)).await.expect("purged"), 700);
    assert!(store.commits() - before >= 4, "in small steps");
    assert_eq!(store.purge(Timestamp::from_millis(701)).await.expect("purged"), 0);
    let left = |connection: &Connection| {
        Ok(connection.query_row("SELECT min(purge_at), count(*) FROM session", [], |row| Ok((row.get(0)?, row.get(1)?)))?)
    };
    assert_eq!(store.read(left).await.expect("read"), (701_i64, 300_i64));
}

/// Everything that refers to what is emptied before it goes is emptied too, or there is one of it, or it goes with what is.
#[tokio::test]
async fn nothing_goes_with_a_grant_or_an_app_in_one_step_but_what_there_is_little_of() {
    let (_directory, store) = temporary();
    let children = |connection: &Connection, parent: &str| -> rusqlite::Result<Vec<String>> {
        let sql = "SELECT DISTINCT t.name FROM sqlite_schema AS t, pragma_foreign_key_list(t.name) AS f
            WHERE t.type = 'table' AND f.\"table\" = ?1 ORDER BY t.name";
        connection.prepare(sql)?.query_map([parent], |row| row.get(0))?.collect()
    };
    let look = move |connection: &Connection| {
        let parents = ["grant", "ib_app", "realm", "realm_role", "user"];
        Ok(parents.iter().map(|parent| children(connection, parent)).collect::<Result<Vec<_>, _>>()?)
    };
    let found = store.read(look).await.expect("read");
    // Of a grant there is one code that was exchanged for it; of an app that is a realm, one realm with its few roles.
    let mut of_grants = [OF_GRANTS, &["authorization"]].concat();
    let mut of_apps: Vec<&str> = OF_APPS.iter().map(|(table, _)| *table).chain(["grant", "realm"]).collect();
    of_grants.sort_unstable();
    of_apps.sort_unstable();
    // A person has few of these, which go with the login, but for the codes and grants.
    let of_people = vec!["api_key", "authorization", "grant", "held_role", "realm_member", "session"];
    assert_eq!(found, [of_grants, of_apps, vec!["realm_role"], vec!["realm_member"], of_people]);
}

#[tokio::test]
async fn an_app_is_gone_at_once_and_what_hangs_on_it_in_small_steps() {
    let (_directory, store) = temporary();
    let of_grant = linked(&store).await;
    let (alone, same) = (fresh(), IbApp { id: Id::from_bytes([9; 16]), ..app() });
    let of_app = NewAccess::of(&alone, None, 0, "a".parse().expect("a scope"), HOUR, Timestamp::from_millis(1));
    let fill = move |transaction: &Transaction<'_>| {
        app_token::insert(transaction, app().id, &of_app)?;
        transaction.execute_batch(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
             INSERT INTO access_token (digest, grant, generation, scope, issued_at, expires_at, ended)
             SELECT CAST(printf('%032d', i) AS BLOB), g.id, i, 'a', 0, 1, 0 FROM grant g, n;
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
             INSERT INTO app_token (digest, app, scope, epoch, issued_at, expires_at, ended, purge_at)
             SELECT CAST(printf('%032d', i) AS BLOB), a.id, 'a', 1, 0, 1, 0, 9e15 FROM ib_app a, n;
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
             INSERT INTO grant (id, app, user, scope, epoch, created_at, purge_at)
             SELECT CAST(printf('%016d', i) AS BLOB), a.id, NULL, 'a', 1, 0, 9e15 FROM ib_app a, n",
        )?;
        Ok(())
    };
    store.write(fill).await.expect("written");
    let delete = move |transaction: &Transaction<'_>| {
        assert!(ib_app::delete(transaction, app().id)? && !ib_app::delete(transaction, app().id)?);
        // Its names are free in the same moment, and the tenant would be.
        assert!(ib_app::insert(transaction, &same)?);
        ib_app::delete(transaction, same.id)?;
        transaction.execute("INSERT INTO tenant VALUES ('sales', 0)", [])?;
        let other = IbApp { id: Id::from_bytes([8; 16]), tenant: "sales".to_owned(), ..app() };
        assert!(ib_app::insert(transaction, &other)? && ib_app::delete(transaction, other.id)?);
        assert_eq!(tenant::delete(transaction, "sales")?, tenant::Deleted::Gone);
        Ok(())
    };
    store.write(delete).await.expect("deleted");
    let (access, refresh) = (of_grant.access.expose_secret().to_owned(), of_grant.refresh.clone());
    let seals = store.seals().clone();
    let look = move |connection: &Transaction<'_>| {
        let digests = [Digest::of(&access), Digest::of(alone.access.expose_secret())];
        for digest in digests {
            assert_eq!((access_token::find(connection, digest)?, access_token::owner(connection, digest)?), (None, None));
            assert_eq!(app_token::owner(connection, digest)?, None);
        }
        assert!(refresh_token::find(connection, &seals, &refresh)?.is_none());
        assert_eq!(refresh_token::owner(connection, Digest::of(refresh.expose_secret()))?, None);
        assert_eq!((ib_app::by_id(connection, app().id)?, ib_app::by_client_id(connection, "client-one")?), (None, None));
        let of_tenant = grant::list::Wanted { tenant: "default".to_owned(), limit: 10, ..Default::default() };
        assert!(ib_app::of_tenant(connection, "default")?.is_empty() && grant::list::page(connection, &of_tenant)?.is_empty());
        let active = grant::list::active_of_person(connection, person().id, None, Timestamp::from_millis(0), 10)?;
        assert!(active.is_empty() && grant::list::live_apps_of_person(connection, person().id)?.is_empty());
        Ok(())
    };
    store.write(look).await.expect("read");
    let before = store.commits();
    // Three apps; 301 grants and as many tokens of one of them, its refresh token, and 301 tokens of the app itself.
    assert_eq!(store.purge(Timestamp::from_millis(i64::MAX / 2000)).await.expect("purged"), 3 + 301 + 301 + 1 + 301);
    assert!(store.commits() - before >= 18, "in small steps");
    let left = |connection: &Connection| Ok(connection.query_row("SELECT count(*) FROM ib_app", [], |row| row.get::<_, i64>(0))?);
    assert_eq!(store.read(left).await.expect("read"), 0);
}

#[tokio::test]
async fn who_is_deleted_is_gone_at_once_and_what_that_person_allowed_stays() {
    let (_directory, store) = temporary();
    let pair = linked(&store).await;
    let fill = |transaction: &Transaction<'_>| {
        transaction.execute_batch(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
             INSERT INTO grant (id, app, user, scope, epoch, created_at, purge_at)
             SELECT CAST(printf('%016d', i) AS BLOB), g.app, g.user, 'a', 1, 0, 9e15 FROM grant g, n;
             INSERT INTO authorization (id, app, user, session, redirect_uri, scope, challenge, epoch, stage, expires_at, code, grant)
             SELECT id, app, user, zeroblob(32), '', 'a', '', 1, 'exchanged', 1, CAST(hex(id) AS BLOB), id FROM grant;
             INSERT INTO authorization (id, app, user, session, redirect_uri, scope, challenge, epoch, stage, expires_at, code, purge_at)
             SELECT zeroblob(16), app, user, zeroblob(32), '', 'a', '', 1, 'allowed', 9e15, zeroblob(32), 9e15 FROM grant LIMIT 1",
        )?;
        Ok(())
    };
    store.write(fill).await.expect("written");
    let seals = store.seals().clone();
    let code = Digest::from_bytes([0; 32]);
    let look = {
        let seals = seals.clone();
        move |connection: &Connection| authorization::by_code(connection, &seals, code)
    };
    assert!(store.read(look.clone()).await.expect("read").is_some());
    let delete = |transaction: &Transaction<'_>| {
        assert!(user::delete(transaction, person().id)? && !user::delete(transaction, person().id)?);
        let same = crate::inbound::user::User { id: Id::from_bytes([9; 16]), ..person() };
        assert!(user::insert(transaction, &same)?, "the login is free");
        Ok(())
    };
    store.write(delete).await.expect("deleted");
    assert!(store.read(look).await.expect("read").is_none(), "a code of somebody who is gone is none");
    let access = Digest::of(pair.access.expose_secret());
    let goes_on = move |connection: &Connection| {
        let found = access_token::find(connection, access)?.expect("it goes on");
        assert_eq!(found.bearer.subject, crate::inbound::user::DELETED);
        assert_eq!((user::by_id(connection, person().id)?, user::all(connection)?.len()), (None, 1));
        Ok(())
    };
    store.read(goes_on).await.expect("read");
    let before = store.commits();
    // The codes, the grants' names of who allowed them, and the person.
    let soon = store.read(|connection| Ok(connection.query_row("SELECT max(purge_at) + 1 FROM user", [], |row| row.get(0))?));
    assert_eq!(store.purge(soon.await.expect("read")).await.expect("purged"), 302 + 301 + 1);
    assert!(store.commits() - before >= 13, "in small steps");
    store.read(goes_on).await.expect("read");
    let left = |connection: &Connection| {
        Ok(connection.query_row("SELECT count(*) FROM grant WHERE user IS NULL", [], |row| row.get::<_, i64>(0))?)
    };
    assert_eq!(store.read(left).await.expect("read"), 301);
}

#[tokio::test]
async fn everybody_may_hold_a_role_in_a_realm_that_goes() {
    let (_directory, store) = temporary();
    let judge = |transaction: &Transaction<'_>| {
        let realm = realm::app(Id::from_bytes([7; 16]), "default".into(), "TestRealm".into(), Timestamp::from_millis(1));
        assert!(ib_app::insert(transaction, &realm)?);
        realms::insert(transaction, realm.id, "")?;
        assert!(realms::insert_role(transaction, realm.id, Id::from_bytes([8; 16]), "reader", "")?);
        transaction.execute_batch(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
             INSERT INTO user (id, login, admin, permissions, created_at) SELECT CAST(printf('%016d', i) AS BLOB), i, 0, '{}', 0 FROM n;
             INSERT INTO realm_member SELECT r.id, u.id FROM realm_role r, user u",
        )?;
        assert!(ib_app::delete(transaction, realm.id)?);
        assert!(realms::of_tenant(transaction, "default")?.is_empty());
        Ok(())
    };
    store.write(judge).await.expect("written");
    let before = store.commits();
    assert_eq!(store.purge(Timestamp::from_millis(i64::MAX / 2000)).await.expect("purged"), 301);
    assert!(store.commits() - before >= 7, "in small steps");
    let left = |connection: &Connection| {
        let sql = "SELECT (SELECT count(*) FROM realm) + (SELECT count(*) FROM realm_role) + (SELECT count(*) FROM ib_app)";
        Ok(connection.query_row(sql, [], |row| row.get::<_, i64>(0))?)
    };
    assert_eq!(store.read(left).await.expect("read"), 0);
}

#[tokio::test]
async fn all_kinds_go_in_turn() {
    let (_directory, store) = temporary();
    let fill = |transaction: &Transaction<'_>| {
        transaction.execute_batch(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
             INSERT INTO used_once SELECT CAST(printf('%032d', i) AS BLOB), i FROM n;
             INSERT INTO user (id, login, admin, permissions, created_at) VALUES (zeroblob(16), 'a', 0, '{}', 0);
             INSERT INTO session (digest, user, epoch, signed_in_at, purge_at) SELECT digest, zeroblob(16), 1, 0, purge_at FROM used_once",
        )?;
        Ok(())
    };
    store.write(fill).await.expect("written");
    let rests = std::sync::atomic::AtomicUsize::new(0);
    let (reader, rests) = (store.clone(), &rests);
    let rest = || {
        let reader = reader.clone();
        async move {
            if rests.fetch_add(1, std::sync::atomic::Ordering::Relaxed) != 4 {
                return;
            }
            let count = |table: &str| format!("SELECT count(*) FROM {table}");
            let look = move |connection: &Connection| {
                let [one, other] = [count("session"), count("used_once")].map(|sql| connection.query_row(&sql, [], |row| row.get(0)));
                Ok::<(i64, i64), crate::store::Fault>((one?, other?))
            };
            let (sessions, used) = reader.read(look).await.expect("read");
            assert!((sessions - used).abs() <= 50 && sessions + used == 750, "{sessions} {used}");
        }
    };
    assert_eq!(store.purge_resting(Timestamp::from_millis(501), rest).await.expect("purged"), 1000);
    assert_eq!(rests.load(std::sync::atomic::Ordering::Relaxed), 20);
}

#[tokio::test]
async fn the_streams_of_an_app_end_with_it_and_those_of_others_do_not() {
    let (_directory, store) = temporary();
    let of_grant = linked(&store).await;
    let (alone, others) = (fresh(), fresh());
    let (first, second) = (alone.clone(), others.clone());
    let fill = move |transaction: &Transaction<'_>| {
        let now = transaction.now().wall;
        let other = IbApp { id: Id::from_bytes([9; 16]), name: "two".into(), client_id: "client-two".into(), ..app() };
        assert!(ib_app::insert(transaction, &other)?);
        let of = |pair| NewAccess::of(pair, None, 0, "a".parse().expect("a scope"), HOUR, now);
        app_token::insert(transaction, app().id, &of(&first))?;
        app_token::insert(transaction, other.id, &of(&second))
    };
    store.write(fill).await.expect("written");
    let table = TokenTable::new(store.clone(), std::sync::Arc::new(SystemClock::new()));
    let present = async |pair: &crate::inbound::grant::Fresh| table.present(pair.access.expose_secret()).await.expect("read");
    let (one, two, three) = (present(&of_grant).await, present(&alone).await, present(&others).await);
    let [one, two, three] = [one, two, three].map(|live| std::sync::Arc::clone(&live.expect("a live token").life));
    store.write(|transaction| ib_app::delete(transaction, app().id)).await.expect("deleted");
    table.end_app(app().id);
    assert_eq!([one, two, three].map(|life| life.is_ended()), [true, true, false]);
    assert!(present(&of_grant).await.is_none() && present(&alone).await.is_none() && present(&others).await.is_some());
}
