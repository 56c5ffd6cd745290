//! Hundreds of peers at once.

use std::time::Duration;

use serde_json::json;

use crate::world::hostile::{Endpoint, Fault};
use crate::world::patience::eventually;
use crate::world::scene::Scene;

const PEERS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_peers_are_all_down_is_ready_and_asks_them_one_after_another_when_they_are_back() {
    let mut scene = Scene::new().await;
    scene.is_patient().await;
    let authority = std::fs::read_to_string(scene.two.authority()).expect("the peer's certificate");
    let secret = "a-secret-of-20-chars!";
    let app =
        json!({ "name": "own", "client_id": "alpha", "client_secret": secret, "issuer": scene.two.url(), "grant": "client_credentials" });
    scene.alpha.creates("ob-app", app).await;
    for number in 0..PEERS {
        let peer = json!({ "name": format!("peer-{number}"), "url": scene.two.url(), "ca": authority, "ob": "own" });
        scene.alpha.creates("peer", peer).await;
    }
    let linked = async |scene: &Scene| scene.alpha.lists("peer").await.iter().filter(|peer| peer["state"] == "linked").count();
    eventually("every peer to have a token", async || (linked(&scene).await == PEERS).then_some(())).await;

    for endpoint in [Endpoint::Token, Endpoint::Metadata] {
        scene.two.always(endpoint, Fault::DroppedBeforeCommit);
    }
    scene.alpha.stops().await;
    scene.clock.advance(Duration::from_secs(7200));
    let before = scene.two.heard(Endpoint::Token).len();
    scene.alpha.starts().await;
    assert_eq!(scene.alpha.console("/readyz").await.status(), 200, "ready without regard to peers");
    let asked = || scene.two.heard(Endpoint::Token).len() - before;
    assert!(asked() < PEERS / 4, "{} of {PEERS} peers were asked at once", asked());
    for _ in 0..20 {
        scene.clock.advance(Duration::from_millis(500));
        tokio::task::yield_now().await;
    }
    eventually("every peer to have been asked", async || (asked() >= PEERS).then_some(())).await;

    scene.two.behaves();
    eventually("every peer to have a token again", async || {
        scene.clock.advance(Duration::from_secs(1));
        (linked(&scene).await == PEERS).then_some(())
    })
    .await;
}
