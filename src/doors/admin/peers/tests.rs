//! Changes of peers while the network takes its time.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::doors::admin::Caller;
use crate::doors::admin::tests::Api;
use crate::inbound::permission::Rights;

/// A server that takes connections and says nothing; and its URL.
async fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    (listener, format!("http://{address}"))
}

async fn done(api: &Api, method: Method, path: &str, kind: &str, attributes: Value) -> Value {
    let (status, body) = api.ask(method, path, kind, attributes).await;
    assert!(status.is_success(), "{path}: {status} {body}");
    body
}

#[tokio::test]
async fn a_silent_peer_holds_up_nobodys_changes() {
    let api = Api::new().await;
    done(&api, Method::POST, "/v2/tenants", "tenant", json!({ "name": "sales" })).await;
    for tenant in ["default", "sales"] {
        let peer = json!({ "name": "two", "url": "http://127.0.0.1:9", "client_id": "a" });
        done(&api, Method::POST, &format!("/v2/tenants/{tenant}/peers"), "peer", peer).await;
    }
    let (server, url) = silent().await;
    let slow = api.ask(Method::POST, "/v2/tenants/sales/peers", "peer", json!({ "name": "silent", "url": url, "client_id": "b" }));
    let others = async {
        let _connection = server.accept().await.expect("somebody looks at the peer");
        for tenant in ["default", "sales"] {
            let place = format!("/v2/tenants/{tenant}");
            done(&api, Method::PATCH, &format!("{place}/peers/two"), "peer", json!({ "base_url": "http://127.0.0.1:9/base" })).await;
            done(&api, Method::PATCH, &format!("{place}/ob-apps/two"), "ob-app", json!({ "scopes": ["other"] })).await;
            done(&api, Method::POST, &format!("{place}/peers/two/rename"), "peer", json!({ "name": "three" })).await;
        }
    };
    tokio::select! {
        biased;
        (status, body) = slow => panic!("the silent peer was given up before the others were done: {status} {body}"),
        () = others => {}
    }
}

#[tokio::test]
async fn what_changes_during_a_look_is_not_undone_by_it() {
    let api = Api::new().await;
    let (server, url) = silent().await;
    let path = "/v2/tenants/default/peers/two";
    done(&api, Method::POST, "/v2/tenants/default/peers", "peer", json!({ "name": "two", "url": "http://127.0.0.1:9", "client_id": "a" }))
        .await;
    let moved = done(&api, Method::PATCH, path, "peer", json!({ "url": url }));
    let meanwhile = async {
        let connection = server.accept().await.expect("somebody looks at the peer");
        done(&api, Method::PATCH, path, "peer", json!({ "base_url": "http://127.0.0.1:9/base" })).await;
        // From now on whoever looks is turned away.
        drop((connection, server));
    };
    let (_, ()) = tokio::join!(moved, meanwhile);
    let (status, body) = api.ask(Method::GET, path, "peer", Value::Null).await;
    let shown = &body["data"]["attributes"];
    assert_eq!((status, &shown["url"], &shown["base_url"]), (StatusCode::OK, &json!(url), &json!("http://127.0.0.1:9/base")));
}

/// Who may change peers but no OB app, and with it a token for one would have it by an address of their own.
#[tokio::test]
async fn who_may_change_peers_alone_has_no_tokens_sent_to_an_address_of_their_own() {
    const WORKS: &str = "https://works.example.com";
    const OWN: &str = "https://own.example.com";
    let mut api = Api::new().await;
    let (server, peers) = ("http://127.0.0.1:9", "/v2/tenants/default/peers");
    for (name, place) in [
        ("elsewhere", json!({ "token_url": format!("{server}/token"), "grant": "client_credentials" })),
        ("issuer", json!({ "issuer": server })),
    ] {
        let mut app = json!({ "name": name, "client_id": name, "client_secret": "a secret of theirs" });
        app.as_object_mut().expect("an object").extend(place.as_object().expect("an object").clone());
        done(&api, Method::POST, "/v2/tenants/default/ob-apps", "ob-app", app).await;
        // As an admin set it up: another host takes the calls.
        let peer = json!({ "name": format!("works-{name}"), "url": WORKS, "ob": name });
        done(&api, Method::POST, peers, "peer", peer).await;
    }
    let own = json!({ "name": "own", "url": OWN, "client_id": "own", "auth_method": "none" });
    done(&api, Method::POST, peers, "peer", own).await;
    let by = |permissions: &[&str]| {
        let held = permissions.iter().map(|permission| (*permission).to_owned()).collect();
        let rights = Rights { by_tenant: [("default".to_owned(), held)].into(), ..Rights::default() };
        Caller::Person { login: "a@example.com".into(), rights }
    };
    let evil = "https://evil.example.com";
    let only_peers = by(&["peers.create", "peers.edit"]);
    for app_right in ["tenants.oauth_clients.edit", "ob_apps.edit"] {
        for name in ["elsewhere", "issuer"] {
            let path = format!("{peers}/works-{name}");
            for (method, path, given) in [
                (Method::POST, peers, json!({ "name": format!("{name}-{}", app_right.len()), "url": evil, "ob": name })),
                (Method::PATCH, &path, json!({ "url": evil })),
                (Method::PATCH, &path, json!({ "base_url": format!("{evil}/{}", app_right.len()) })),
                (Method::PATCH, &format!("{peers}/own"), json!({ "base_url": evil, "ob": name })),
            ] {
                api.caller = only_peers.clone();
                let (status, body) = api.ask(method.clone(), path, "peer", given.clone()).await;
                assert_eq!((status, &body["errors"][0]["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")), "{method} {path} {given}");
                api.caller = by(&["peers.create", "peers.edit", app_right]);
                let (status, body) = api.ask(method.clone(), path, "peer", given.clone()).await;
                assert!(status.is_success(), "{method} {path} {given} with {app_right}: {status} {body}");
                // As it was.
                api.caller = Caller::Process { uid: 0 };
                if method == Method::PATCH {
                    let own = path.ends_with("/own");
                    let before =
                        if own { json!({ "url": OWN, "base_url": "", "ob": "own" }) } else { json!({ "url": WORKS, "base_url": "" }) };
                    done(&api, Method::PATCH, path, "peer", before).await;
                }
            }
        }
    }
    // What leads nowhere else is for who may change peers.
    api.caller = only_peers;
    done(&api, Method::PATCH, &format!("{peers}/works-issuer"), "peer", json!({ "pin": "" })).await;
}
