//! Rows of realms, of their roles, and of who holds these.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::grant::ending::{self, Ending};
use super::{Fault, Transaction, authorization, grant, ib_app};
use crate::id::Id;
use crate::inbound::grant::{EndReason, Grant};
use crate::inbound::realm::{Realm, Role};

/// How often one person may be signed in to one realm at a time: so often by password, and so often in the browser.
const SIGNED_IN_AT_MOST: u32 = 64;

/// Sign-ins that make room for one at most: where there are more, from before there was a bound, the next ones take them.
const MAKING_ROOM_AT_MOST: u32 = 50;

const INSERT: &str = "INSERT INTO realm (app, description) VALUES (?1, ?2)";
const DESCRIBE: &str = "UPDATE realm SET description = ?2 WHERE app = ?1";
const DESCRIPTION: &str = "SELECT description FROM realm WHERE app = ?1";
const NAMES: &str = "SELECT a.client_id FROM realm r JOIN ib_app a ON a.id = r.app WHERE a.tenant = ?1 ORDER BY a.client_id";
const ROLES: &str = "SELECT id, name, description FROM realm_role WHERE realm = ?1 AND name IS NOT NULL ORDER BY name";
const ROLE: &str = "SELECT id, name, description FROM realm_role WHERE realm = ?1 AND name = ?2";
const HOLDERS: &str = "SELECT u.id, u.login FROM realm_member m JOIN user u ON u.id = m.user WHERE m.role = ?1 ORDER BY u.login";
const INSERT_ROLE: &str = "INSERT INTO realm_role (id, realm, name, description) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
const DESCRIBE_ROLE: &str = "UPDATE realm_role SET description = ?3 WHERE realm = ?1 AND name = ?2";
const DELETE_ROLE: &str = "UPDATE realm_role SET name = NULL, description = '' WHERE id = ?1";
const GONE_ROLE: &str = "SELECT id, realm FROM realm_role WHERE name IS NULL ORDER BY id LIMIT 1";
const SOME_HOLDER: &str = "SELECT user FROM realm_member WHERE role = ?1 ORDER BY user LIMIT 1";
const FORGET_ROLE: &str = "DELETE FROM realm_role WHERE id = ?1";
const ASSIGN: &str = "INSERT INTO realm_member (role, user) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
const UNASSIGN: &str = "DELETE FROM realm_member WHERE role = ?1 AND user = ?2";
const AUTHORITIES: &str = "SELECT r.name FROM realm_member m JOIN realm_role r ON r.id = m.role
    WHERE m.user = ?1 AND r.realm = ?2 AND r.name IS NOT NULL ORDER BY r.name";
const TENANTS: &str = "SELECT DISTINCT a.tenant FROM realm_member m JOIN realm_role r ON r.id = m.role JOIN ib_app a ON a.id = r.realm
    WHERE m.user = ?1 AND r.name IS NOT NULL AND a.purge_at IS NULL";
const STANDS_IN_GONE: &str = "SELECT 1 FROM realm_member m JOIN realm_role r ON r.id = m.role
    WHERE m.user = ?1 AND r.realm = ?2 AND r.name IS NULL";
const IS_REALM: &str = "SELECT EXISTS (SELECT 1 FROM realm WHERE app = ?1)";
const EARLIER: &str = "SELECT id FROM grant INDEXED BY grant_user_app WHERE user = ?1 AND app = ?2 AND made_by = ?3 AND purge_at > ?4
    ORDER BY id DESC LIMIT ?5 OFFSET ?6";

/// What a step of an ending does here.
#[cfg(test)]
pub(super) const STATEMENTS_OF_STEPS: [&str; 6] = [GONE_ROLE, SOME_HOLDER, UNASSIGN, FORGET_ROLE, AUTHORITIES, STANDS_IN_GONE];

/// Adds the realm that the IB app `app` is.
pub fn insert(transaction: &Transaction<'_>, app: Id, description: &str) -> Result<(), Fault> {
    transaction.prepare_cached(INSERT)?.execute(params![app, description])?;
    Ok(())
}

/// Writes what a realm is for.
pub fn describe(transaction: &Transaction<'_>, app: Id, description: &str) -> Result<(), Fault> {
    transaction.prepare_cached(DESCRIBE)?.execute(params![app, description])?;
    Ok(())
}

/// A tenant's realm of that name, which is its `client_id`.
pub fn by_name(connection: &Connection, tenant: &str, name: &str) -> Result<Option<Realm>, Fault> {
    let Some(app) = ib_app::by_client_id(connection, name)?.filter(|app| app.tenant == tenant) else { return Ok(None) };
    let description = connection.prepare_cached(DESCRIPTION)?.query_row([app.id], |row| row.get(0)).optional()?;
    let Some(description) = description else { return Ok(None) };
    let rows = connection.prepare_cached(ROLES)?.query_map([app.id], read_role)?.collect::<Result<Vec<_>, _>>()?;
    let mut roles = Vec::with_capacity(rows.len());
    for (id, name, description) in rows {
        let holders = holders(connection, id)?.into_iter().map(|(_, login)| login).collect();
        roles.push(Role { name, description, holders });
    }
    Ok(Some(Realm { app, description, roles }))
}

/// A tenant's realms, by name.
pub fn of_tenant(connection: &Connection, tenant: &str) -> Result<Vec<Realm>, Fault> {
    let names: Vec<String> = connection.prepare_cached(NAMES)?.query_map([tenant], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let realms = names.iter().filter_map(|name| by_name(connection, tenant, name).transpose());
    realms.collect()
}

/// Adds a role; false when the realm has one of that name.
pub fn insert_role(transaction: &Transaction<'_>, app: Id, id: Id, name: &str, description: &str) -> Result<bool, Fault> {
    Ok(transaction.prepare_cached(INSERT_ROLE)?.execute(params![id, app, name, description])? == 1)
}

/// Writes what a role is for.
pub fn describe_role(transaction: &Transaction<'_>, app: Id, name: &str, description: &str) -> Result<(), Fault> {
    transaction.prepare_cached(DESCRIBE_ROLE)?.execute(params![app, name, description])?;
    Ok(())
}

/// Deletes a role: from now on nobody holds it, and who holds no other one there is signed out. What ends by that, or nothing when the realm has no
/// such role.
pub fn delete_role(transaction: &Transaction<'_>, app: Id, name: &str) -> Result<Option<(Id, Ending)>, Fault> {
    let Some(role) = role(transaction, app, name)? else { return Ok(None) };
    transaction.prepare_cached(DELETE_ROLE)?.execute([role])?;
    let mut ending = Ending::default();
    let_go(transaction, role, app, &mut ending)?;
    Ok(Some((role, ending)))
}

/// One write's worth of what ends with a role that was deleted.
pub fn step_of_role(transaction: &Transaction<'_>, app: Id, role: Id) -> Result<Ending, Fault> {
    let mut ending = Ending::default();
    let_go(transaction, role, app, &mut ending)?;
    transaction.is_told_elsewhere();
    Ok(ending)
}

/// Takes the roles that were deleted from who still holds them, as many as one write may.
pub(super) fn let_go_of_roles(transaction: &Transaction<'_>, ending: &mut Ending) -> Result<(), Fault> {
    let gone = |transaction: &Transaction<'_>| -> Result<Option<(Id, Id)>, Fault> {
        Ok(transaction.prepare_cached(GONE_ROLE)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
    };
    while !ending.is_unfinished
        && let Some((role, app)) = gone(transaction)?
    {
        let_go(transaction, role, app, ending)?;
    }
    Ok(())
}

/// Whether a role that was deleted is still held.
pub(super) fn is_role_gone(connection: &Connection) -> Result<bool, Fault> {
    Ok(connection.prepare_cached(GONE_ROLE)?.exists([])?)
}

/// Takes a role that was deleted from one holder after the other; what is left of it goes with the last.
fn let_go(transaction: &Transaction<'_>, role: Id, app: Id, ending: &mut Ending) -> Result<(), Fault> {
    let holder = |transaction: &Transaction<'_>| -> Result<Option<Id>, Fault> {
        Ok(transaction.prepare_cached(SOME_HOLDER)?.query_row([role], |row| row.get(0)).optional()?)
    };
    while let Some(user) = holder(transaction)? {
        if ending.left() == 0 {
            ending.is_unfinished = true;
            return Ok(());
        }
        // Until all has ended the person still stands here, so that the next step goes on there.
        sign_out_stranger(transaction, app, user, ending)?;
        if ending.is_unfinished {
            return Ok(());
        }
        transaction.prepare_cached(UNASSIGN)?.execute([role, user])?;
        ending.count_one();
    }
    transaction.prepare_cached(FORGET_ROLE)?.execute([role])?;
    Ok(())
}

/// Gives a role to a person, who may hold it already. What ends by that, or nothing when the realm has no such role: where the last role of the
/// person was deleted, and the person was not come to yet, the sign-ins under it end here. They are over because the person belongs to the realm no
/// more, and must not be good again when the person does.
pub fn assign(transaction: &Transaction<'_>, app: Id, name: &str, user: Id) -> Result<Option<Ending>, Fault> {
    let Some(role) = role(transaction, app, name)? else { return Ok(None) };
    let mut ending = Ending::default();
    if transaction.prepare_cached(STANDS_IN_GONE)?.exists([user, app])? {
        sign_out_stranger(transaction, app, user, &mut ending)?;
    }
    transaction.prepare_cached(ASSIGN)?.execute([role, user])?;
    Ok(Some(ending))
}

/// The tenants in whose realms a person holds a role.
pub fn tenants(connection: &Connection, user: Id) -> Result<BTreeSet<String>, Fault> {
    Ok(connection.prepare_cached(TENANTS)?.query_map([user], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// Whether the realm has a role of that name.
pub fn has_role(connection: &Connection, app: Id, name: &str) -> Result<bool, Fault> {
    Ok(role(connection, app, name)?.is_some())
}

/// What became of a role that is taken from a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unassigned {
    /// It is taken, and this ends, where it was the last one there.
    Taken(Ending),
    /// The person does not hold it.
    NotHeld,
    /// The realm has no such role.
    NoRole,
}

/// Takes a role from a person, who is signed out when it was the last one in the realm.
pub fn unassign(transaction: &Transaction<'_>, app: Id, name: &str, user: Id) -> Result<Unassigned, Fault> {
    let Some(role) = role(transaction, app, name)? else { return Ok(Unassigned::NoRole) };
    if transaction.prepare_cached(UNASSIGN)?.execute([role, user])? == 0 {
        return Ok(Unassigned::NotHeld);
    }
    let mut ending = Ending::default();
    sign_out_stranger(transaction, app, user, &mut ending)?;
    Ok(Unassigned::Taken(ending))
}

/// The names of the roles that a person holds in a realm, in order; none when the person does not belong to it, or it is no realm.
pub fn authorities(connection: &Connection, app: Id, user: Id) -> Result<Vec<String>, Fault> {
    Ok(connection.prepare_cached(AUTHORITIES)?.query_map([user, app], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// Signs a person out of all realms: what ends by that. Codes that are on their way are forgotten, also those of links: whoever the person was
/// signed in as may have been somebody else.
pub fn sign_out(transaction: &Transaction<'_>, user: Id, reason: EndReason) -> Result<Ending, Fault> {
    authorization::forget_of(transaction, user, None)?;
    for app in grant::list::live_apps_of_person(transaction, user)? {
        if transaction.prepare_cached(IS_REALM)?.query_row([app], |row| row.get(0))? {
            ending::mark(transaction, user, app, reason)?;
        }
    }
    let mut ending = Ending::default();
    ending::go_on(transaction, user, &mut ending)?;
    Ok(ending)
}

/// Makes room for one more grant of a realm: a program that signs in for every call must not fill the database. Of one person at one realm the
/// oldest sign-ins of the same kind end, and go with the next purge; the grants that are gone.
pub fn make_room(transaction: &Transaction<'_>, grant: &Grant) -> Result<Vec<Id>, Fault> {
    let made_by = grant.made_by.as_str();
    let earlier = params![grant.user, grant.app, made_by, transaction.now().wall, MAKING_ROOM_AT_MOST, SIGNED_IN_AT_MOST - 1];
    let gone = transaction.prepare_cached(EARLIER)?.query_map(earlier, |row| row.get(0))?.collect::<Result<Vec<Id>, _>>()?;
    for id in &gone {
        grant::displace(transaction, *id)?;
    }
    Ok(gone)
}

/// Signs somebody out of a realm who holds no role there, and goes on with what was marked before: whoever got another role since was signed out
/// by that ([`assign`]), and this is not done before that is.
fn sign_out_stranger(transaction: &Transaction<'_>, app: Id, user: Id, ending: &mut Ending) -> Result<(), Fault> {
    if authorities(transaction, app, user)?.is_empty() {
        authorization::forget_of(transaction, user, Some(app))?;
        ending::mark(transaction, user, app, EndReason::RoleTaken)?;
    }
    ending::go_on(transaction, user, ending)
}

fn role(connection: &Connection, app: Id, name: &str) -> Result<Option<Id>, Fault> {
    Ok(connection.prepare_cached(ROLE)?.query_row(params![app, name], |row| row.get(0)).optional()?)
}

fn holders(connection: &Connection, role: Id) -> Result<Vec<(Id, String)>, Fault> {
    let mut statement = connection.prepare_cached(HOLDERS)?;
    let holders = statement.query_map([role], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(holders.collect::<Result<_, _>>()?)
}

fn read_role(row: &Row<'_>) -> rusqlite::Result<(Id, String, String)> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::inbound::grant::MadeBy;
    use crate::inbound::realm;
    use crate::store::sample::{HOUR, granted, person};
    use crate::store::{Store, temporary, user};

    const APP: Id = Id::from_bytes([7; 16]);

    fn id(number: u8) -> Id {
        Id::from_bytes([number; 16])
    }

    /// The realm `TestRealm` with two roles, and somebody who holds both and is signed in.
    async fn world(store: &Store) {
        let judge = |transaction: &Transaction<'_>| {
            let app = realm::app(APP, "default".into(), "TestRealm".into(), Timestamp::from_millis(1));
            assert!(user::insert(transaction, &person())? && ib_app::insert(transaction, &app)?);
            insert(transaction, APP, "for tests")?;
            assert!(insert_role(transaction, APP, id(8), "reader", "reads")? && insert_role(transaction, APP, id(9), "writer", "")?);
            assert!(!insert_role(transaction, APP, id(10), "reader", "")?, "there is one");
            for name in ["reader", "writer", "reader"] {
                let ends = assign(transaction, APP, name, person().id)?;
                assert_eq!(ends, Some(Ending::default()), "{name}: once more is no mistake");
            }
            assert_eq!(assign(transaction, APP, "nobody", person().id)?, None);
            let made_by = MadeBy::Password;
            grant::insert(transaction, &Grant { app: APP, made_by, ..granted(transaction.now().wall) }, HOUR)
        };
        store.write(judge).await.expect("written");
    }

    #[tokio::test]
    async fn a_realm_is_read_as_written_and_belongs_to_its_tenant() {
        let (_directory, store) = temporary();
        world(&store).await;
        let look = |connection: &Connection| Ok((by_name(connection, "default", "TestRealm")?, of_tenant(connection, "default")?));
        let (found, listed) = store.read(look).await.expect("read");
        let role =
            |name: &str, description: &str| Role { name: name.into(), description: description.into(), holders: vec![person().login] };
        let app = realm::app(APP, "default".into(), "TestRealm".into(), Timestamp::from_millis(1));
        let expected = Realm { app, description: "for tests".into(), roles: vec![role("reader", "reads"), role("writer", "")] };
        assert_eq!((found, listed), (Some(expected.clone()), vec![expected]));
        let look = |connection: &Connection| Ok((by_name(connection, "sales", "TestRealm")?, of_tenant(connection, "sales")?));
        assert_eq!(store.read(look).await.expect("read"), (None, Vec::new()));
    }

    #[tokio::test]
    async fn who_loses_the_last_role_is_signed_out_and_who_has_another_is_not() {
        let (_directory, store) = temporary();
        world(&store).await;
        let judge = |transaction: &Transaction<'_>| {
            let user = person().id;
            assert_eq!(unassign(transaction, APP, "reader", user)?, Unassigned::Taken(Ending::default()));
            assert_eq!(unassign(transaction, APP, "reader", user)?, Unassigned::NotHeld);
            assert_eq!(unassign(transaction, APP, "nobody", user)?, Unassigned::NoRole);
            assert_eq!(authorities(transaction, APP, user)?, ["writer"]);
            assert_eq!(delete_role(transaction, APP, "nobody")?, None);
            let ended = |deleted: Option<(Id, Ending)>| deleted.map(|(_, ending)| (ending.ended, ending.is_unfinished));
            assert_eq!(ended(delete_role(transaction, APP, "reader")?), Some((vec![], false)));
            let signed_in = granted(Timestamp::default()).id;
            assert_eq!(ended(delete_role(transaction, APP, "writer")?), Some((vec![signed_in], false)));
            let shown = grant::by_id(transaction, "default", signed_in)?.expect("still shown");
            assert_eq!(shown.grant.ended.map(|ended| ended.reason), Some(EndReason::RoleTaken));
            assert_eq!(sign_out(transaction, user, EndReason::UserDeleted)?.ended, [], "it has ended already");
            Ok(())
        };
        store.write(judge).await.expect("judged");
    }

    #[tokio::test]
    async fn of_one_person_at_one_realm_the_oldest_sign_ins_make_room() {
        let (_directory, store) = temporary();
        world(&store).await;
        let judge = |transaction: &Transaction<'_>| {
            let now = transaction.now().wall;
            let next = |number: u8, made_by| Grant { id: id(number), app: APP, made_by, ..granted(now) };
            let mut first = granted(Timestamp::default()).id;
            // By password, and in the browser: neither makes room for the other.
            for (made_by, other) in [(MadeBy::Password, MadeBy::Consent), (MadeBy::Consent, MadeBy::Password)] {
                for number in 100..163 {
                    let number = if made_by == MadeBy::Password { number } else { number + 70 };
                    assert_eq!(make_room(transaction, &next(number, made_by))?, [], "{number}");
                    grant::insert(transaction, &next(number, made_by), HOUR)?;
                }
                if made_by == MadeBy::Consent {
                    first = id(99);
                    grant::insert(transaction, &next(99, made_by), HOUR)?;
                }
                assert_eq!(make_room(transaction, &next(234, made_by))?, [first]);
                assert_eq!(make_room(transaction, &next(234, other))?, []);
                let shown = grant::by_id(transaction, "default", first)?.expect("still there");
                assert_eq!(shown.grant.ended.map(|ended| ended.reason), Some(EndReason::Displaced));
            }
            assert_eq!(grant::count_active_of_app(transaction, APP, now)?, 2 * 63);
            Ok(())
        };
        store.write(judge).await.expect("judged");
    }

    #[tokio::test]
    async fn however_many_sign_ins_there_are_few_make_room_at_once_and_they_are_found_by_an_index() {
        let (_directory, store) = temporary();
        world(&store).await;
        let judge = |transaction: &Transaction<'_>| {
            let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
                INSERT INTO grant (id, app, user, scope, epoch, created_at, purge_at, made_by)
                SELECT CAST(printf('%016d', i) AS BLOB), app, user, scope, epoch, created_at, purge_at, made_by FROM grant, n";
            assert_eq!(transaction.execute(sql, [])?, 1000);
            let next = Grant { app: APP, made_by: MadeBy::Password, ..granted(transaction.now().wall) };
            let gone = [make_room(transaction, &next)?, make_room(transaction, &next)?].map(|gone| gone.len());
            assert_eq!(gone, [MAKING_ROOM_AT_MOST as usize; 2]);
            let mut plan = transaction.prepare(&format!("EXPLAIN QUERY PLAN {EARLIER}"))?;
            let steps = plan.query_map([0; 6], |row| row.get::<_, String>(3))?.collect::<Result<Vec<_>, _>>()?;
            assert_eq!(steps, ["SEARCH grant USING INDEX grant_user_app (user=? AND app=?)"]);
            Ok(())
        };
        store.write(judge).await.expect("judged");
    }

    #[tokio::test]
    async fn roles_go_with_their_person_and_with_their_realm() {
        let (_directory, store) = temporary();
        world(&store).await;
        let judge = |transaction: &Transaction<'_>| {
            let signed_in = granted(Timestamp::default()).id;
            assert_eq!(sign_out(transaction, person().id, EndReason::UserDeleted)?.ended, [signed_in]);
            assert!(user::delete(transaction, person().id)?);
            let roles = by_name(transaction, "default", "TestRealm")?.expect("it stays").roles;
            assert!(roles.len() == 2 && roles.iter().all(|role| role.holders.is_empty()));
            assert!(ib_app::delete(transaction, APP)?);
            assert_eq!(by_name(transaction, "default", "TestRealm")?, None);
            Ok(())
        };
        store.write(judge).await.expect("judged");
    }
}
