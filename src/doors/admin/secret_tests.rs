//! What records log in with: who may give it, and who may not.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::Caller;
use super::tests::Api;
use crate::inbound::permission::Rights;

const IB_APPS: &str = "/v2/tenants/default/ib-apps";
const REALMS: &str = "/v2/tenants/default/realms";

fn holding(permissions: &[&str]) -> Caller {
    let held = permissions.iter().map(|permission| (*permission).to_owned()).collect();
    let rights = Rights { by_tenant: [("default".to_owned(), held)].into(), ..Rights::default() };
    Caller::Person { login: "a@example.com".into(), rights }
}

async fn status(api: &mut Api, permissions: &[&str], method: Method, path: &str, kind: &str, attributes: &Value) -> StatusCode {
    api.caller = holding(permissions);
    api.ask(method, path, kind, attributes.clone()).await.0
}

/// Each way to have an app log in by what somebody else has.
fn logins() -> Vec<Value> {
    let key = json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM" });
    vec![
        json!({ "client_secret": "a secret of somebody else" }),
        json!({ "jwks": { "keys": [key] } }),
        json!({ "jwks_uri": "https://keys.example.com/evil" }),
        json!({ "auth_method": "none" }),
    ]
}

#[tokio::test]
async fn who_may_not_read_an_apps_secret_gives_it_none() {
    let mut api = Api::new().await;
    let app = json!({ "name": "shop", "redirect_uris": ["https://shop.example/done"], "grants": ["authorization_code"] });
    assert_eq!(status(&mut api, &["ib_apps.create"], Method::POST, IB_APPS, "ib-app", &app).await, StatusCode::CREATED);
    let path = format!("{IB_APPS}/shop");
    for login in logins() {
        let mut again = login.clone();
        again["name"] = json!("shop");
        again["or_update"] = json!(true);
        let holders: [(&[&str], bool); 2] =
            [(&["ib_apps.create", "ib_apps.edit"], false), (&["ib_apps.create", "ib_apps.edit", "ib_apps.read_secret"], true)];
        for (held, may) in holders {
            let expected = if may { StatusCode::OK } else { StatusCode::FORBIDDEN };
            assert_eq!(status(&mut api, held, Method::PATCH, &path, "ib-app", &login).await, expected, "{login} with {held:?}");
            again["redirect_uris"] = app["redirect_uris"].clone();
            again["grants"] = app["grants"].clone();
            assert_eq!(status(&mut api, held, Method::POST, IB_APPS, "ib-app", &again).await, expected, "{again} with {held:?}");
        }
    }
    let other = json!({ "redirect_uris": ["https://shop.example/other"] });
    assert_eq!(status(&mut api, &["ib_apps.edit"], Method::PATCH, &path, "ib-app", &other).await, StatusCode::OK);
    let own = json!({ "name": "own", "redirect_uris": ["https://own.example/done"], "client_secret": "a secret of my own app" });
    assert_eq!(status(&mut api, &["ib_apps.create"], Method::POST, IB_APPS, "ib-app", &own).await, StatusCode::CREATED);
}

#[tokio::test]
async fn who_may_not_read_a_realms_key_gives_it_none() {
    let mut api = Api::new().await;
    let realm = json!({ "name": "TestRealm" });
    assert_eq!(status(&mut api, &["realms.create"], Method::POST, REALMS, "realm", &realm).await, StatusCode::CREATED);
    let (key, text) = (json!({ "key": "a key of somebody else" }), json!({ "description": "another" }));
    let again = |given: &Value| {
        let mut given = given.clone();
        given["name"] = json!("TestRealm");
        given["or_update"] = json!(true);
        given
    };
    let path = format!("{REALMS}/TestRealm");
    for (held, given, expected) in [
        (&["realms.create"][..], &text, StatusCode::FORBIDDEN),
        (&["realms.create", "realms.edit"], &text, StatusCode::OK),
        (&["realms.create", "realms.edit"], &key, StatusCode::FORBIDDEN),
        (&["realms.create", "realms.edit", "realms.read_secret"], &key, StatusCode::OK),
    ] {
        assert_eq!(status(&mut api, held, Method::POST, REALMS, "realm", &again(given)).await, expected, "{given} with {held:?}");
        let by_patch = if held.contains(&"realms.edit") { expected } else { StatusCode::FORBIDDEN };
        assert_eq!(status(&mut api, held, Method::PATCH, &path, "realm", given).await, by_patch, "{given} with {held:?}");
    }
}

/// It is what somebody else gave us; whoever gives it knows it already.
#[tokio::test]
async fn what_an_ob_app_shows_elsewhere_is_given_by_who_may_change_it() {
    let mut api = Api::new().await;
    let path = "/v2/tenants/default/ob-apps";
    let app = json!({ "name": "bank", "client_id": "ours", "client_secret": "a secret of theirs", "issuer": "https://bank.example.com" });
    assert_eq!(status(&mut api, &["tenants.oauth_clients.create"], Method::POST, path, "ob-app", &app).await, StatusCode::CREATED);
    let (held, given) = (&["tenants.oauth_clients.edit"], json!({ "client_secret": "the next one" }));
    assert_eq!(status(&mut api, held, Method::PATCH, &format!("{path}/bank"), "ob-app", &given).await, StatusCode::OK);
}
