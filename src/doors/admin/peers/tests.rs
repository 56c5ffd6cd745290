//! Changes of peers while the network takes its time.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::doors::admin::tests::Api;

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
