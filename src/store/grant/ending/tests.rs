//! Very many grants end together: at once for whoever presents a token, and a few at a time in the table.

use super::*;
use crate::clock::Timestamp;
use crate::inbound::authorize::{Destination, Request};
use crate::inbound::consent::{Authorization, Stage};
use crate::inbound::grant::{Ended, Fresh, Grant, MadeBy, NewAccess};
use crate::inbound::realm as realms;
use crate::inbound::user::User;
use crate::secret::{Digest, ExposeSecret};
use crate::store::sample::{HOUR, StandingClock, app, fresh, granted, linked, person};
use crate::store::{Store, access_token, authorization, grant, refresh_token, temporary, user};

const REALM: Id = Id::from_bytes([7; 16]);
const ROLE: Id = Id::from_bytes([8; 16]);

/// So many grants more of whom and what `of` says, the oldest.
fn many(transaction: &Transaction<'_>, of: Id, count: usize) -> Result<usize, Fault> {
    let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
        INSERT INTO grant (id, app, user, scope, epoch, created_at, purge_at, made_by)
        SELECT CAST(printf('%016d', i + 1000 * (SELECT count(*) FROM grant)) AS BLOB), app, user, scope, epoch, created_at, purge_at, made_by
        FROM grant, n WHERE grant.id = ?1";
    Ok(transaction.execute(sql, params![of, i64::try_from(count).expect("few")])?)
}

/// Signs somebody in to the realm: a grant with its tokens.
fn signs_in(transaction: &Transaction<'_>, id: Id, user: Id) -> Result<Fresh, Fault> {
    let (pair, now) = (fresh(), transaction.now().wall);
    let made = Grant { id, app: REALM, user: Some(user), made_by: MadeBy::Password, ..granted(now) };
    grant::insert(transaction, &made, HOUR)?;
    refresh_token::insert(transaction, id, Digest::of(pair.refresh.expose_secret()), 1, true)?;
    access_token::insert(transaction, id, &NewAccess::of(&pair, None, 1, made.scope, HOUR, now))?;
    Ok(pair)
}

const LAST: Id = Id::from_bytes([200; 16]);
const LATER: Id = Id::from_bytes([201; 16]);

/// A realm with one role, held by the person of the samples, who allowed the app of the samples something, and is signed in to the realm often: by
/// the last of these with the tokens that are returned.
async fn world(store: &Store, often: usize) -> Fresh {
    linked(store).await;
    let judge = move |transaction: &Transaction<'_>| {
        ib_app::insert(transaction, &realms::app(REALM, "default".into(), "TestRealm".into(), Timestamp::from_millis(1)))?;
        realm::insert(transaction, REALM, "")?;
        assert!(
            realm::insert_role(transaction, REALM, ROLE, "reader", "")?
                && realm::assign(transaction, REALM, "reader", person().id)?.is_some()
        );
        let pair = signs_in(transaction, LAST, person().id)?;
        assert_eq!(many(transaction, LAST, often)?, often);
        Ok(pair)
    };
    store.write(judge).await.expect("written")
}

/// Whether the access token is good, and why the refresh token is not.
async fn worth(store: &Store, pair: &Fresh) -> (bool, Option<EndReason>) {
    let (seals, pair) = (store.seals().clone(), pair.clone());
    let look = move |transaction: &Transaction<'_>| {
        let access = access_token::present(transaction, Digest::of(pair.access.expose_secret()))?;
        let (facts, _) = refresh_token::find(transaction, &seals, &pair.refresh)?.expect("it is known");
        Ok((access.is_some(), facts.grant.ended.map(|ended| ended.reason)))
    };
    store.write(look).await.expect("judged")
}

/// One of [`SOME`] others.
fn other(number: usize) -> Id {
    Id::from_bytes(format!("other {number:>10}").into_bytes().try_into().expect("16 bytes"))
}

/// [`SOME`] others get the role and sign in once: each a grant of the same id, with the tokens that are returned.
fn others_sign_in(transaction: &Transaction<'_>) -> Result<Vec<Fresh>, Fault> {
    let mut pairs = Vec::new();
    for number in 0..SOME {
        let id = other(number);
        let somebody = User { id, login: format!("{number}@two.example"), ..person() };
        assert!(user::insert(transaction, &somebody)? && realm::assign(transaction, REALM, "reader", id)?.is_some());
        pairs.push(signs_in(transaction, id, id)?);
    }
    Ok(pairs)
}

/// Puts a code on its way by which somebody signs in to the realm.
async fn allows(store: &Store, user: Id, code: Digest) {
    let seals = store.seals().clone();
    let on_its_way = move |transaction: &Transaction<'_>| {
        let until = transaction.now().wall.plus(HOUR);
        let destination = Destination { redirect_uri: "https://realm.example/done".to_owned(), state: None, is_named: true };
        let request = Request { destination, scope: app().scope, challenge: None, dpop_key: None };
        let (id, session, stage) = (Id::from_bytes([9; 16]), Digest::of("a session"), Stage::Pending { until });
        let asked = Authorization { id, app: REALM, user, session, request, pushed: None, stage };
        authorization::insert(transaction, &seals, &asked, until)?;
        authorization::move_to(transaction, id, &Stage::Allowed { code, until })
    };
    store.write(on_its_way).await.expect("written");
    assert!(is_kept(store, code).await);
}

/// Whether a code is known.
async fn is_kept(store: &Store, code: Digest) -> bool {
    let seals = store.seals().clone();
    store.read(move |connection| Ok(authorization::by_code(connection, &seals, code)?.is_some())).await.expect("read")
}

/// How many grants have ended, for which reason.
async fn ended(store: &Store) -> Vec<(String, usize)> {
    let look = |connection: &Connection| {
        let mut statement = connection.prepare(
            "SELECT g.ended_why, count(*) FROM grant g JOIN audit a ON a.action = 'grant.ended' AND a.record_id = lower(hex(g.id))
                AND json_extract(a.details, '$.reason') = g.ended_why
            WHERE g.ended_at IS NOT NULL GROUP BY 1 ORDER BY 1",
        )?;
        Ok(statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, u32>(1)? as usize)))?.collect::<Result<_, _>>()?)
    };
    store.read(look).await.expect("read")
}

/// Goes on until nothing is left; how much each step ended.
async fn goes_on(store: &Store) -> Vec<usize> {
    let mut steps = Vec::new();
    while store.read(is_left).await.expect("read") {
        let step = store.write(step).await.expect("written");
        assert!(step.ended.len() <= SOME);
        steps.push(step.ended.len());
    }
    steps
}

#[tokio::test]
async fn v3_a_new_password_ends_every_sign_in_at_once_and_a_few_of_them_at_a_time() {
    let (_directory, store) = temporary();
    let pair = world(&store, 3 * SOME).await;
    assert_eq!(worth(&store, &pair).await, (true, None));
    let first = store.write(|transaction| realm::sign_out(transaction, person().id, EndReason::PasswordChanged)).await.expect("written");
    assert_eq!((first.ended.len(), first.is_unfinished), (SOME, true));
    assert!(!first.ended.contains(&LAST), "its row is one of those that are left");
    assert_eq!(worth(&store, &pair).await, (false, Some(EndReason::PasswordChanged)));

    // Who signs in with the new password meanwhile stays signed in, and the next password ends that too.
    let later = store.write(|transaction| signs_in(transaction, LATER, person().id)).await.expect("written");
    assert_eq!(worth(&store, &later).await, (true, None));
    let step = store.write(|transaction| step_of_person(transaction, person().id)).await.expect("written");
    assert_eq!((step.ended.len(), step.is_unfinished), (SOME, true));
    assert_eq!((worth(&store, &later).await, goes_on(&store).await), ((true, None), vec![SOME, 1]));
    assert_eq!(ended(&store).await, [("password_changed".to_owned(), 3 * SOME + 1)], "and nothing else");
    assert_eq!(worth(&store, &later).await, (true, None));
    let next = store.write(|transaction| realm::sign_out(transaction, person().id, EndReason::PasswordChanged)).await.expect("written");
    assert_eq!((next.ended, next.is_unfinished), (vec![LATER], false));
}

#[tokio::test]
async fn v3_a_second_word_about_the_same_grants_ends_what_came_between() {
    let (_directory, store) = temporary();
    world(&store, 3 * SOME).await;
    let word = |transaction: &Transaction<'_>| realm::sign_out(transaction, person().id, EndReason::PasswordChanged);
    store.write(word).await.expect("written");
    let between = store.write(|transaction| signs_in(transaction, LATER, person().id)).await.expect("written");
    store.write(word).await.expect("written");
    assert_eq!(worth(&store, &between).await, (false, Some(EndReason::PasswordChanged)));
    goes_on(&store).await;
    assert_eq!(ended(&store).await, [("password_changed".to_owned(), 3 * SOME + 2)]);
}

#[tokio::test]
async fn v3_a_role_that_is_taken_or_deleted_is_refused_at_once_however_many_hold_it() {
    let (_directory, store) = temporary();
    let pair = world(&store, 2 * SOME).await;
    let pairs = store.write(others_sign_in).await.expect("written");
    let (last, code) = (other(SOME - 1), Digest::of("code"));
    allows(&store, last, code).await;
    let taken = store.write(|transaction| realm::unassign(transaction, REALM, "reader", person().id)).await.expect("written");
    let realm::Unassigned::Taken(first) = taken else { panic!("{taken:?}") };
    assert_eq!((first.ended.len(), first.is_unfinished), (SOME, true));
    assert_eq!(worth(&store, &pair).await, (false, Some(EndReason::RoleTaken)));
    assert_eq!(worth(&store, &pairs[SOME - 1]).await, (true, None));

    let deleted = store.write(|transaction| realm::delete_role(transaction, REALM, "reader")).await.expect("written");
    let (role, first) = deleted.expect("there was one");
    assert!(first.is_unfinished && first.ended.len() <= SOME && role == ROLE);
    for pair in &pairs {
        assert_eq!(worth(&store, pair).await, (false, Some(EndReason::RoleTaken)));
    }
    let look = move |connection: &Connection| realm::authorities(connection, REALM, last);
    assert_eq!(store.read(look).await.expect("read"), <Vec<String>>::new(), "nor would a code make a new one");
    assert!(is_kept(&store, code).await);
    // Its name is free, and whoever holds the new one is not who held the old one.
    let anew = |transaction: &Transaction<'_>| realm::insert_role(transaction, REALM, Id::from_bytes([9; 16]), "reader", "");
    assert!(store.write(anew).await.expect("written"));
    let shown = store.read(|connection| realm::by_name(connection, "default", "TestRealm")).await.expect("read").expect("it is there");
    assert!(shown.roles.len() == 1 && shown.roles[0].holders.is_empty());

    loop {
        let step = store.write(|transaction| realm::step_of_role(transaction, REALM, ROLE)).await.expect("written");
        assert!(step.ended.len() <= SOME / 2, "what else is done counts too");
        if !step.is_unfinished {
            break;
        }
    }
    goes_on(&store).await;
    assert!(!is_kept(&store, code).await);
    assert_eq!(ended(&store).await, [("role_taken".to_owned(), 3 * SOME + 1)]);
    let look = |connection: &Connection| Ok(connection.query_row("SELECT count(*) FROM realm_role", [], |row| row.get::<_, i64>(0))?);
    assert_eq!(store.read(look).await.expect("read"), 1, "nothing is left of the old one");
}

#[tokio::test]
async fn v3_what_a_deleted_role_took_does_not_come_back_with_the_next_role() {
    let (_directory, store) = temporary();
    world(&store, 1).await;
    let (last, code) = (other(SOME - 1), Digest::of("code"));
    let pairs = store.write(others_sign_in).await.expect("written");
    store.write(move |transaction| many(transaction, last, 2 * SOME)).await.expect("written");
    allows(&store, last, code).await;
    let deletes = async |name: &'static str| {
        let deleted = store.write(move |transaction| realm::delete_role(transaction, REALM, name)).await.expect("written");
        assert!(deleted.expect("there was one").1.is_unfinished, "{name}");
    };
    // Another role for somebody whom the deletion has not come to.
    let gets = async |name: &'static str, number: u8| {
        let judge = move |transaction: &Transaction<'_>| {
            assert!(realm::insert_role(transaction, REALM, Id::from_bytes([number; 16]), name, "")?);
            let ending = realm::assign(transaction, REALM, name, last)?;
            Ok((ending.expect("there is the role"), signs_in(transaction, Id::from_bytes([number; 16]), last)?))
        };
        store.write(judge).await.expect("written")
    };
    let (taken, good) = ((false, Some(EndReason::RoleTaken)), (true, None));
    let old = &pairs[SOME - 1];
    deletes("reader").await;
    assert_eq!(worth(&store, old).await, taken);
    assert!(is_kept(&store, code).await, "it was not come to");
    let (ending, second) = gets("writer", 20).await;
    assert_eq!((ending.ended.len(), ending.is_unfinished), (SOME, true));
    assert!(!is_kept(&store, code).await);
    assert_eq!((worth(&store, old).await, worth(&store, &second).await), (taken, good));
    // And once more, while the first deletion is still under way.
    deletes("writer").await;
    assert_eq!((worth(&store, old).await, worth(&store, &second).await), (taken, taken));
    let (_, third) = gets("auditor", 21).await;
    for round in ["at once", "after the first deletion", "after all"] {
        assert_eq!([worth(&store, old).await, worth(&store, &second).await, worth(&store, &third).await], [taken, taken, good], "{round}");
        while round == "at once"
            && store.write(|transaction| realm::step_of_role(transaction, REALM, ROLE)).await.expect("written").is_unfinished
        {}
        if round == "after the first deletion" {
            let left =
                store.read(|connection| Ok(connection.query_row("SELECT count(*) FROM ending", [], |row| row.get::<_, u32>(0))?)).await;
            assert_eq!(left.expect("read"), 0, "it has ended what was marked for who got another role, too");
            goes_on(&store).await;
        }
    }
    assert!(!store.read(is_left).await.expect("read"));
    let look = move |connection: &Connection| realm::authorities(connection, REALM, last);
    assert_eq!(store.read(look).await.expect("read"), ["auditor"]);
}

#[test]
fn every_statement_that_finds_a_token_by_its_digest_asks_why_its_grant_is_over() {
    let mut found = Vec::new();
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
                let text = std::fs::read_to_string(&path).expect("a source");
                let statements = text.split("const ").filter_map(|rest| rest.split_once(";\n")).map(|(statement, _)| statement);
                let by_digest = |statement: &&str| {
                    statement.contains("SELECT ")
                        && ["FROM access_token", "FROM refresh_token"].iter().any(|table| statement.contains(table))
                        && statement.contains("digest = ?")
                };
                let name = |statement: &str| statement.split(':').next().unwrap_or_default().to_owned();
                found.extend(statements.filter(by_digest).map(|statement| (name(statement), statement.contains("why_over!()"))));
            }
        }
    }
    found.sort();
    // Whose a token is may be asked whatever became of it: that revokes, and lets nobody in.
    let expected = [("FIND", true), ("FIND", true), ("OWNER", false), ("OWNER", false)];
    assert_eq!(found, expected.map(|(name, asks)| (name.to_owned(), asks)));
}

#[tokio::test]
async fn v3_who_is_deleted_takes_along_what_is_revoked_and_the_purge_waits_for_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let clock = StandingClock::new();
    let store = Store::open(directory.path(), None, clock.clone()).expect("a new store");
    let pair = world(&store, 2 * SOME).await;
    let delete = |transaction: &Transaction<'_>| {
        many(transaction, granted(Timestamp::default()).id, 2 * SOME)?;
        let mut ending = realm::sign_out(transaction, person().id, EndReason::UserDeleted)?;
        end_all(transaction, person().id, &mut ending)?;
        assert!(user::delete(transaction, person().id)?);
        Ok(ending)
    };
    let first = store.write(delete).await.expect("written");
    assert_eq!((first.ended.len(), first.is_unfinished), (SOME, true));
    assert_eq!(worth(&store, &pair).await, (false, Some(EndReason::UserDeleted)));

    // As after a crash: the marks are in the database.
    store.close().await;
    drop(store);
    let store = Store::open(directory.path(), None, clock.clone()).expect("the same store");
    assert_eq!(worth(&store, &pair).await, (false, Some(EndReason::UserDeleted)));
    clock.pass(HOUR);
    let (seals, refresh) = (store.seals().clone(), pair.refresh.clone());
    let look =
        move |transaction: &Transaction<'_>| Ok(refresh_token::find(transaction, &seals, &refresh)?.expect("it is known").0.grant.ended);
    let by_now = Ended { at: crate::clock::Clock::now(&*clock).wall, reason: EndReason::UserDeleted };
    assert_eq!(store.write(look).await.expect("judged"), Some(by_now));
    let purge = async |store: &Store| {
        store.purge(crate::clock::Clock::now(&*clock).wall).await.expect("purged");
        let look = |connection: &Connection| Ok(connection.query_row("SELECT count(*) FROM user", [], |row| row.get::<_, i64>(0))?);
        store.read(look).await.expect("read")
    };
    assert_eq!(purge(&store).await, 1);
    assert!(goes_on(&store).await.len() > 2);
    assert_eq!(ended(&store).await, [("revoked_by_admin".to_owned(), 2 * SOME + 1), ("user_deleted".to_owned(), 2 * SOME + 1)]);
    assert_eq!(purge(&store).await, 0);
}

#[tokio::test]
async fn what_an_app_that_is_gone_was_allowed_goes_with_it() {
    let (_directory, store) = temporary();
    world(&store, 2 * SOME).await;
    let judge = |transaction: &Transaction<'_>| {
        let first = realm::sign_out(transaction, person().id, EndReason::PasswordChanged)?;
        assert!(first.is_unfinished && ib_app::delete(transaction, REALM)?);
        assert_eq!(step(transaction)?.ended, []);
        assert!(!is_left(transaction)?);
        assert!(ib_app::by_id(transaction, app().id)?.is_some());
        Ok(())
    };
    store.write(judge).await.expect("judged");
}

#[tokio::test]
async fn no_step_reads_a_table_from_end_to_end() {
    let (_directory, store) = temporary();
    let look = |connection: &Connection| {
        let mut plans = Vec::new();
        for sql in [FIRST, FIRST_OF_PERSON, MARKED, UNMARK].into_iter().chain(realm::STATEMENTS_OF_STEPS).chain([authorization::FORGET_OF])
        {
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
            let given = rusqlite::params_from_iter(vec![0; statement.parameter_count()]);
            let steps = statement.query_map(given, |row| row.get::<_, String>(3))?;
            plans.push((sql, steps.collect::<Result<Vec<_>, _>>()?));
        }
        Ok(plans)
    };
    for (sql, steps) in store.read(look).await.expect("read") {
        // The first of the marks and of the roles that are gone is that of their index.
        let is_bad = |step: &String| step.starts_with("SCAN") && !sql.contains("LIMIT 1") || step.contains("TEMP B-TREE");
        assert!(!steps.iter().any(is_bad), "{sql}: {steps:?}");
    }
}
