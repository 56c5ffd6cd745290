//! Linking against a hostile peer: each way that a handshake can end has its page, its progress and its state.

use std::time::Duration;

use serde_json::json;

use super::world::World;
use super::world::hostile::{Endpoint, Fault, Hostile};
use super::world::scene::Scene;

/// The status of the page at the end of a handshake, and what the peer's record says of it.
async fn ends(scene: &mut Scene) -> (u16, String) {
    let url = scene.alpha.request_url("two").await;
    let page = scene.person.opens(&url).continues().await;
    let peer = scene.peer().await;
    (page.status.as_u16(), peer["request"]["stage"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_end_of_a_handshake_has_its_page() {
    let mut scene = Scene::new().await;
    for (endpoint, fault, status, stage) in [
        (Endpoint::Authorize, Fault::WrongState, 400, "opened"),
        (Endpoint::Authorize, Fault::NoState, 400, "opened"),
        (Endpoint::Authorize, Fault::CodeTwice, 400, "opened"),
        (Endpoint::Authorize, Fault::ForeignIssuer, 400, "refused"),
        (Endpoint::Authorize, Fault::NoIssuer, 400, "refused"),
        (Endpoint::Authorize, Fault::CodeAndError, 400, "refused"),
        (Endpoint::Authorize, Fault::NeitherCodeNorError, 400, "refused"),
        (Endpoint::Authorize, Fault::Denies("access_denied"), 200, "declined"),
        (Endpoint::Authorize, Fault::Denies("server_error"), 502, "refused"),
        (Endpoint::Token, Fault::Refuses(400, "invalid_grant"), 400, "refused"),
        (Endpoint::Token, Fault::Refuses(401, "invalid_client"), 502, "refused"),
        (Endpoint::Token, Fault::FirewallPage, 502, "refused"),
        (Endpoint::Token, Fault::DroppedAfterCommit, 502, "refused"),
        (Endpoint::Token, Fault::Html, 502, "refused"),
        (Endpoint::Token, Fault::NoAccessToken, 502, "refused"),
    ] {
        let told = format!("{fault:?}");
        let codes = scene.two.heard(Endpoint::Token).len();
        scene.two.next(endpoint, fault);
        assert_eq!(ends(&mut scene).await, (status, stage.to_owned()), "{told}");
        let sent = scene.two.heard(Endpoint::Token).len() - codes;
        assert_eq!(sent, usize::from(endpoint == Endpoint::Token), "{told}: a code is sent once, and only for a good answer");
        let state = scene.alpha.state_of("two").await;
        assert_eq!(state, if stage == "opened" { "requested" } else { "ready_to_link" }, "{told}");
    }
    assert_eq!(ends(&mut scene).await, (200, "linked".to_owned()));
    scene.two.next(Endpoint::Authorize, Fault::ReplayedCode);
    assert_eq!(ends(&mut scene).await, (400, "refused".to_owned()));
    assert_eq!(scene.alpha.state_of("two").await, "linked", "the old link goes on");
    assert_eq!(scene.calls().await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decline_says_who_and_when() {
    let mut world = World::new().await;
    world.introduces().await;
    let url = world.alpha.request_url("beta").await;
    let page = world.operator.opens(&url).continues().logs_in().declines().await;
    assert_eq!(page.status, 200, "{}", page.text());
    assert!(page.text().contains("operator@beta.example declined"), "{}", page.text());
    let peer = world.alpha.shows("peer", "beta").await;
    assert_eq!((&peer["state"], &peer["request"]["detail"]), (&json!("ready_to_link"), &json!("operator@beta.example declined")));
    let (reason, at) = (peer["reason"].as_str().unwrap_or_default(), peer["since"].as_str().expect("a time"));
    assert!(reason.contains(&format!("declined {at}: operator@beta.example declined")), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_whoever_loads_the_last_page_again_is_told_that_the_request_is_used() {
    let mut scene = Scene::new().await;
    for (fault, status) in [
        (None, 200),
        (Some((Endpoint::Authorize, Fault::Denies("access_denied"))), 200),
        (Some((Endpoint::Authorize, Fault::Denies("server_error"))), 502),
        (Some((Endpoint::Token, Fault::Refuses(400, "invalid_grant"))), 400),
    ] {
        let told = format!("{fault:?}");
        if let Some((endpoint, fault)) = fault {
            scene.two.next(endpoint, fault);
        }
        let url = scene.alpha.request_url("two").await;
        let page = scene.person.opens(&url).continues().await;
        assert_eq!(page.status, status, "{told}: {}", page.text());
        let (codes, state) = (scene.two.heard(Endpoint::Token).len(), scene.alpha.state_of("two").await);
        let again = scene.person.opens(page.url.as_str()).await;
        assert_eq!(again.status, 410, "{told}: {}", again.text());
        assert!(again.text().contains("answered already") && again.text().contains("for a new one"), "{told}: {}", again.text());
        assert_eq!((scene.two.heard(Endpoint::Token).len(), scene.alpha.state_of("two").await), (codes, state), "{told}");
        let path = &page.url[url::Position::BeforePath..];
        let elsewhere = scene.alpha.is_asked("GET", path, &[], "").await;
        assert_eq!(elsewhere.status(), 400, "{told}: another browser is told nothing: {}", elsewhere.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_the_database_could_not_take_is_good_when_the_page_is_loaded_again() {
    let mut world = World::new().await;
    world.introduces().await;
    let url = world.alpha.request_url("beta").await;
    let asked = world.operator.opens(&url).continues().logs_in().await;
    let blocker = world.alpha.settings.blocks_database();
    let page = world.operator.goes_on_from(&asked).allows().await;
    assert_eq!(page.status, 503, "{}", page.text());
    assert!(page.text().contains("Reload this page"), "{}", page.text());
    assert!(!page.text().contains("Nothing was linked"), "nothing was judged: {}", page.text());
    blocker.execute_batch("ROLLBACK").expect("it ends");
    let page = world.operator.opens(page.url.as_str()).await;
    assert_eq!((page.status.as_u16(), world.alpha.state_of("beta").await.as_str()), (200, "linked"), "{}", page.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_looking_consumes_nothing_and_a_request_is_used_once() {
    let mut scene = Scene::new().await;
    let url = scene.alpha.request_url("two").await;
    let path = url.split_once("/link/").map(|(_, ticket)| format!("/link/{ticket}")).expect("a request URL");
    for _ in 0..3 {
        let page = scene.alpha.is_asked("GET", &path, &[], "").await;
        assert_eq!(page.status(), 200, "{}", page.text());
        assert!(page.text().contains(&scene.two.url()), "it says where one will log in: {}", page.text());
    }
    assert_eq!(scene.peer().await["request"]["stage"], json!("waiting"));
    let page = scene.person.opens(&url).continues().await;
    assert_eq!(page.status, 200, "{}", page.text());
    assert_eq!(scene.alpha.is_asked("GET", &path, &[], "").await.status(), 410);
    let unknown = format!("/link/{}", "p2pt_".to_owned() + &"A".repeat(38));
    for path in [unknown.as_str(), "/link/x", "/link/..%2f"] {
        assert_eq!(scene.alpha.is_asked("GET", path, &[], "").await.status(), 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_requests_expire_and_are_replaced() {
    let mut scene = Scene::new().await;
    let old = scene.alpha.request_url("two").await;
    let new = scene.alpha.request_url("two").await;
    let replaced = scene.person.opens(&old).await;
    assert!(replaced.status == 410 && replaced.text().contains("newer"), "{}", replaced.text());
    scene.clock.advance(Duration::from_secs(24 * 3600));
    let expired = scene.person.opens(&new).await;
    assert!(expired.status == 410 && expired.text().contains("ran out"), "{}", expired.text());
    let peer = scene.peer().await;
    assert_eq!((&peer["state"], &peer["request"]["stage"]), (&json!("ready_to_link"), &json!("expired")));
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_of_two_browsers_at_once_one_goes_on() {
    let mut scene = Scene::new().await;
    let url = scene.alpha.request_url("two").await;
    let mut other = super::world::person::Person::new("other", "x", &[scene.alpha.settings.authority(), scene.two.authority()]);
    let (one, two) = (scene.person.opens(&url).await, other.opens(&url).await);
    let pressed = futures_util::future::join(
        scene.person.goes_on_from(&one).continues().into_future(),
        other.goes_on_from(&two).continues().into_future(),
    );
    let (one, two) = pressed.await;
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 410]);
    assert_eq!(scene.two.heard(Endpoint::Authorize).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_a_post_needs_the_pages_token_and_its_browser() {
    let scene = Scene::new().await;
    let url = scene.alpha.request_url("two").await;
    let path = url.split_once("/link/").map(|(_, ticket)| format!("/link/{ticket}")).expect("a request URL");
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    for (headers, body) in [
        (form.to_vec(), ""),
        (form.to_vec(), "token=x"),
        ([form.as_slice(), &[("Origin", "https://evil.example")]].concat(), "token=x"),
        (vec![], "token=x"),
    ] {
        let status = scene.alpha.is_asked("POST", &path, &headers, body).await.status();
        assert!(matches!(status, 400 | 403), "{headers:?} {body}: {status}");
    }
    assert_eq!(scene.peer().await["request"]["stage"], json!("waiting"));
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_a_server_without_iss_gets_a_redirect_uri_of_its_own() {
    let mut scene = Scene::linked_with(Hostile::knows_no_iss).await;
    let asked = scene.two.heard(Endpoint::Authorize);
    let app = scene.alpha.shows("ob-app", "two").await;
    assert_eq!(asked[0].parameter("redirect_uri"), app["redirect_uri"].as_str());
    assert!(app["redirect_uri"].as_str().is_some_and(|uri| uri.ends_with(app["id"].as_str().unwrap_or("?"))), "{app}");
    scene.two.next(Endpoint::Authorize, Fault::ForeignIssuer);
    assert_eq!(ends(&mut scene).await.0, 400, "an iss that was not promised must match too");
    scene.alpha.changes("ob-app", "two", json!({ "client_id": "another" })).await;
    let changed = scene.alpha.shows("ob-app", "two").await;
    assert_eq!(changed["redirect_uri"], app["redirect_uri"], "it is the same server: {changed}");
    let probed = scene.alpha.acts("peer", "two", "probe", json!({})).await;
    let to_register = format!("It has to know our redirect URI: {}.", app["redirect_uri"].as_str().unwrap_or("?"));
    assert!(probed["probe"].as_str().is_some_and(|found| found.ends_with(&to_register)), "{probed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_metadata_of_another_issuer_are_not_believed() {
    let scene = Scene::with(|two| two.always(Endpoint::Metadata, Fault::ForeignIssuer)).await;
    let document = json!({ "data": { "type": "peer", "attributes": {} } });
    let refused = scene.alpha.asks("POST", "/v2/tenants/default/peers/two/request", Some(&document)).await;
    assert_eq!(refused.status(), 502);
    assert!(refused.text().contains("somebody.else.example"), "{}", refused.text());
    assert!(scene.two.heard(Endpoint::Authorize).is_empty() && scene.two.heard(Endpoint::Token).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_a_peer_that_speaks_for_another_resource_is_warned_of() {
    let scene = Scene::new().await;
    let document = json!({ "data": { "type": "peer", "attributes": {} } });
    let warnings = async |scene: &Scene| {
        let probed = scene.alpha.asks("POST", "/v2/tenants/default/peers/two/probe", Some(&document)).await;
        assert_eq!(probed.status(), 200, "{}", probed.text());
        probed.json()["data"]["attributes"]["warnings"].clone()
    };
    assert_eq!(warnings(&scene).await, json!([]));
    // A server that is no resource itself, or cannot be asked now, is no worse for that.
    for fault in [Fault::Status(404), Fault::DroppedBeforeCommit] {
        scene.two.next(Endpoint::ResourceMetadata, fault);
        assert_eq!(warnings(&scene).await, json!([]));
    }
    for (fault, told) in [(Fault::ForeignResource, "https://somebody.else.example"), (Fault::Html, "not a JSON object")] {
        scene.two.next(Endpoint::ResourceMetadata, fault);
        let warnings = warnings(&scene).await;
        assert!(warnings.as_array().is_some_and(|all| all.len() == 1) && warnings.to_string().contains(told), "{warnings}");
    }
    // Where calls go elsewhere, the server's own document says nothing of them.
    scene.alpha.changes("peer", "two", json!({ "base_url": format!("https://{}/p2pi", scene.alpha.settings.public) })).await;
    let asked = scene.two.heard(Endpoint::ResourceMetadata).len();
    warnings(&scene).await;
    assert_eq!(scene.two.heard(Endpoint::ResourceMetadata).len(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_an_untrusted_certificate_is_answered_with_its_fingerprint() {
    let scene = Scene::new().await;
    let mut attributes = json!({ "name": "three", "url": scene.two.url(), "client_id": "alpha", "client_secret": "a-secret-of-20-chars!" });
    let document = |attributes: &serde_json::Value| json!({ "data": { "type": "peer", "attributes": attributes } });
    let refused = scene.alpha.asks("POST", "/v2/tenants/default/peers", Some(&document(&attributes))).await;
    let error = &refused.json()["errors"][0];
    assert_eq!((refused.status(), &error["code"]), (409, &json!("untrusted_certificate")), "{}", refused.text());
    let pin = error["meta"]["found"].clone();
    assert!(error["meta"]["next"].as_str().is_some_and(|next| next.contains(pin.as_str().unwrap_or("?"))), "{error}");
    attributes["pin"] = pin;
    let peer = scene.alpha.creates("peer", attributes).await;
    assert_eq!((&peer["state"], &peer["warnings"]), (&json!("ready_to_link"), &json!([])), "{peer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_link_replaces_the_old_one_and_revokes_it_at_a_p2pid_peer() {
    let mut scene = Scene::linked_with(Hostile::poses_as_p2pid).await;
    let old = scene.two.refresh_token();
    assert_eq!(ends(&mut scene).await, (200, "linked".to_owned()));
    let revoked = scene.two.hears(1, Endpoint::Revoke).await;
    assert_eq!(revoked[0].parameter("token").map(str::to_owned), old);
    let mut foreign = Scene::linked().await;
    assert_eq!(ends(&mut foreign).await, (200, "linked".to_owned()));
    assert!(foreign.two.heard(Endpoint::Revoke).is_empty(), "elsewhere it may be the same grant's");
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_another_url_or_client_ends_the_link() {
    let scene = Scene::linked().await;
    scene.alpha.changes("ob-app", "two", json!({ "client_id": "another" })).await;
    assert_eq!(scene.alpha.state_of("two").await, "ready_to_link");
    assert_eq!(scene.calls().await.header("p2pi-error"), Some("not_linked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_an_answer_in_another_browser_changes_nothing() {
    let mut scene = Scene::new().await;
    let url = scene.alpha.request_url("two").await;
    scene.two.next(Endpoint::Authorize, Fault::NoState);
    scene.person.opens(&url).continues().await;
    let state = scene.two.heard(Endpoint::Authorize)[0].parameter("state").expect("a state").to_owned();
    let answer = scene.alpha.is_asked("GET", &format!("/oauth/callback?code=x&state={state}"), &[], "").await;
    assert_eq!(answer.status(), 400, "{}", answer.text());
    assert_eq!(scene.peer().await["request"]["stage"], json!("opened"));
    // The browser that pressed may press again: the same handshake, with another state.
    let page = scene.person.opens(&url).continues().await;
    assert_eq!(page.status, 200, "{}", page.text());
    let states: Vec<_> = scene.two.heard(Endpoint::Authorize).iter().map(|heard| heard.parameter("state").map(str::to_owned)).collect();
    assert!(states.len() == 2 && states[0] != states[1], "{states:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_comes_with_no_usable_access_token_is_given_back() {
    let mut scene = Scene::with(Hostile::poses_as_p2pid).await;
    scene.two.next(Endpoint::Token, Fault::TokenType("DPoP"));
    let (status, _) = ends(&mut scene).await;
    assert_eq!(status, 502);
    let revoked = scene.two.hears(1, Endpoint::Revoke).await;
    assert!(revoked[0].parameter("token").is_some_and(|token| token.starts_with("hostile-refresh-")), "{revoked:?}");
    assert_eq!(scene.two.refresh_token(), None, "nothing is left of it there");
}
