//! What ends very many grants ends all of them before it is answered, a few at a time, and so it does when it was begun by somebody else.

use http::{Method, StatusCode};
use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::tests::Api;
use crate::id::Id;
use crate::inbound::grant::{EndReason, Fresh, NewAccess};
use crate::inbound::user::User;
use crate::oauth::token::{Kind, mint};
use crate::secret::{ExposeSecret, SecretString};
use crate::store::grant::ending::SOME;
use crate::store::{Transaction, access_token, ib_app, realm, user};
use crate::system::SystemRandom;
use crate::tasks::endings;

const REALM: &str = "/v2/tenants/default/realms/TestRealm";
const MANY: usize = 2 * SOME + 50;

/// The realm `TestRealm`, where alice holds the one role.
async fn world() -> Api {
    let api = Api::new().await;
    for (path, kind, attributes) in [
        ("/v2/users", "user", json!({ "login": "alice", "password": "alice-passw0rd" })),
        ("/v2/tenants/default/realms", "realm", json!({ "name": "TestRealm" })),
        (&format!("{REALM}/role"), "realm", json!({ "role": "reader" })),
        (&format!("{REALM}/assign"), "realm", json!({ "user": "alice", "role": "reader" })),
    ] {
        let (status, body) = api.ask(Method::POST, path, kind, attributes).await;
        assert!(status.is_success(), "{body}");
    }
    api
}

/// Signs alice in very often; the token of the last time.
async fn signed_in(api: &Api) -> SecretString {
    let (access, refresh) = (mint(Kind::Access, &SystemRandom), mint(Kind::Refresh, &SystemRandom));
    let fresh = Fresh { access: access.clone(), refresh };
    let fill = move |transaction: &Transaction<'_>| {
        let app = ib_app::by_client_id(transaction, "TestRealm")?.expect("the realm").id;
        let alice = user::by_login(transaction, "alice")?.expect("a person").id;
        let now = transaction.now().wall;
        let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?3)
            INSERT INTO grant (id, app, user, scope, epoch, created_at, purge_at, endings)
            SELECT CAST(printf('%016d', i + (SELECT count(*) FROM grant)) AS BLOB), ?1, ?2, 'openid', 1, ?4, 9e15, meta.endings FROM n, meta";
        transaction.execute(sql, params![app, alice, MANY as i64, now])?;
        let last: Id = transaction.query_row("SELECT max(id) FROM grant", [], |row| row.get(0))?;
        let scope = "openid".parse().expect("a scope");
        access_token::insert(transaction, last, &NewAccess::of(&fresh, None, 1, scope, std::time::Duration::from_secs(60), now))
    };
    api.state.instance.store.write(fill).await.expect("written");
    access
}

/// How many grants are left, and how many ended for which reason, as the audit tells of those that somebody else than the daemon did.
async fn counts(api: &Api) -> (i64, Vec<(String, i64)>) {
    let look = |connection: &Connection| {
        let left = connection.query_row("SELECT count(*) FROM grant WHERE ended_at IS NULL", [], |row| row.get(0))?;
        let mut told = connection.prepare(
            "SELECT json_extract(details, '$.reason'), count(*) FROM audit WHERE action = 'grant.ended' AND actor_kind <> 'daemon' GROUP BY 1",
        )?;
        let told = told.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        Ok((left, told))
    };
    api.state.instance.store.read(look).await.expect("read")
}

#[tokio::test]
async fn v3_what_ends_very_many_grants_has_ended_all_of_them_when_it_is_answered() {
    for (method, path, kind, attributes, reason) in [
        (Method::POST, format!("{REALM}/unassign"), "realm", json!({ "user": "alice", "role": "reader" }), "role_taken"),
        (Method::POST, format!("{REALM}/delete-role"), "realm", json!({ "role": "reader" }), "role_taken"),
        (Method::PATCH, "/v2/users/alice".into(), "user", json!({ "password": "another passw0rd" }), "password_changed"),
        (Method::DELETE, "/v2/users/alice".into(), "user", Value::Null, "user_deleted"),
    ] {
        let api = world().await;
        let access = signed_in(&api).await;
        let tokens = &api.state.instance.tokens;
        let live = tokens.present(access.expose_secret()).await.expect("read").expect("it is good");
        let (status, body) = api.ask(method, &path, kind, attributes).await;
        assert!(matches!(status, StatusCode::OK | StatusCode::NO_CONTENT), "{path}: {body}");
        assert!(live.life.is_ended(), "{path}: its streams");
        assert!(tokens.present(access.expose_secret()).await.expect("read").is_none(), "{path}");
        assert_eq!(counts(&api).await, (0, vec![(reason.to_owned(), MANY as i64)]), "{path}");
    }
}

#[tokio::test]
async fn v3_what_was_left_of_an_ending_is_refused_and_ended_by_itself() {
    let api = world().await;
    let access = signed_in(&api).await;
    let instance = &api.state.instance;
    let begin = |transaction: &Transaction<'_>| {
        let alice = user::by_login(transaction, "alice")?.expect("a person").id;
        realm::sign_out(transaction, alice, EndReason::PasswordChanged)
    };
    // Nobody is there any more who would go on.
    assert!(instance.store.write(begin).await.expect("written").is_unfinished);
    assert!(instance.tokens.present(access.expose_secret()).await.expect("read").is_none());
    let busy = instance.endings.lock().await;
    endings::go_on(instance).await.expect("somebody is at it");
    assert_eq!(counts(&api).await.0, (MANY - SOME) as i64);
    drop(busy);
    endings::go_on(instance).await.expect("written");
    assert_eq!(counts(&api).await.0, 0);
}

#[tokio::test]
async fn v3_what_a_deleted_role_took_has_ended_when_its_holder_gets_another() {
    let api = world().await;
    let access = signed_in(&api).await;
    let instance = &api.state.instance;
    let live = instance.tokens.present(access.expose_secret()).await.expect("read").expect("it is good");
    // So many hold the role that the deletion does not come to alice at first, and nobody is there any more who would go on.
    let begin = |transaction: &Transaction<'_>| {
        let app = ib_app::by_client_id(transaction, "TestRealm")?.expect("the realm").id;
        let alice = user::by_login(transaction, "alice")?.expect("a person");
        for number in 0..=SOME {
            let id = Id::from_bytes((number as u128).to_be_bytes());
            assert!(user::insert(transaction, &User { id, login: format!("person-{number}"), ..alice.clone() })?);
            assert!(realm::assign(transaction, app, "reader", id)?.is_some());
        }
        Ok(realm::delete_role(transaction, app, "reader")?.expect("there was one").1)
    };
    let begun = instance.store.write(begin).await.expect("written");
    assert!(begun.is_unfinished && begun.ended.is_empty() && !live.life.is_ended());
    for (action, attributes) in [("role", json!({ "role": "reader" })), ("assign", json!({ "user": "alice", "role": "reader" }))] {
        let (status, body) = api.ask(Method::POST, &format!("{REALM}/{action}"), "realm", attributes).await;
        assert!(status.is_success(), "{body}");
    }
    assert!(live.life.is_ended(), "its streams");
    for round in ["at once", "after all"] {
        assert!(instance.tokens.present(access.expose_secret()).await.expect("read").is_none(), "{round}");
        assert_eq!(counts(&api).await, (0, vec![("role_taken".to_owned(), MANY as i64)]), "{round}");
        endings::go_on(instance).await.expect("written");
    }
}
