//! The pages at the ends of a handshake, as somebody reads them: each end has a title of its own, says what happened, and names the next
//! step.

use std::collections::BTreeSet;
use std::time::Duration;

use p2pid::cli::demo::browser::{Navigation, Page};
use serde_json::json;
use url::Url;

use super::world::client::Led;
use super::world::hostile::{Endpoint, Fault};
use super::world::scene::Scene;

/// The next step of somebody who was sent a request URL.
const ASK_AGAIN: &str = "Ask whoever sent you the request URL for a new one.";
/// The next step of whoever runs the instance.
const REQUEST: &str = "On alpha: p2pid peer request two makes a new request URL.";

/// The page's own title, without the instance's name.
fn title(page: &Page) -> String {
    let title = page.title();
    title.strip_suffix(" – alpha").unwrap_or_else(|| panic!("whose page is it? {title}")).to_owned()
}

fn reads(page: &Page, status: u16, expected: &str, parts: &[&str]) {
    let told = (page.status.as_u16(), title(page));
    assert_eq!(told, (status, expected.to_owned()), "{}", page.text());
    for part in parts {
        assert!(page.text().contains(part), "{expected}: {part:?} is not in {:?}", page.text());
    }
}

/// Goes the whole way of a new request URL.
async fn end(scene: &mut Scene) -> Page {
    let url = scene.alpha.request_url("two").await;
    scene.person.opens(&url).continues().await
}

/// Presses the button of a new request URL and allows at the peer; gives the address where the browser is to bring the answer.
async fn allowed(scene: &mut Scene) -> Url {
    let url = scene.alpha.request_url("two").await;
    let page = scene.person.opens(&url).await;
    let Led { url: peer, away, .. } = scene.person.goes(page.form().expect("one button").submit()).await;
    assert!(away && peer.as_str().starts_with(&scene.two.url()), "{peer}");
    let Led { url: callback, away, .. } = scene.person.goes(Navigation::typed(peer)).await;
    assert!(away && callback.as_str().starts_with(&scene.alpha.settings.url()), "{callback}");
    callback
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_of_a_peer_has_a_page_with_a_title_and_a_next_step_of_its_own() {
    let mut scene = Scene::new().await;
    let mut titles = BTreeSet::new();
    for (endpoint, fault, status, expected, parts) in [
        (Endpoint::Authorize, Fault::WrongState, 400, "Wrong state", [ASK_AGAIN, "no request of ours"]),
        (Endpoint::Authorize, Fault::ForeignIssuer, 400, "Wrong issuer", [ASK_AGAIN, "not from the server that was asked"]),
        (Endpoint::Authorize, Fault::CodeAndError, 400, "Not an answer", [ASK_AGAIN, "both yes and no"]),
        (Endpoint::Authorize, Fault::NeitherCodeNorError, 400, "No code", [ASK_AGAIN, "holds no code"]),
        (Endpoint::Authorize, Fault::Denies("access_denied"), 200, "Declined", [REQUEST, "Nothing was linked"]),
        (Endpoint::Authorize, Fault::Denies("server_error"), 502, "The peer refused", [REQUEST, "two answered: server_error"]),
        (
            Endpoint::Token,
            Fault::Refuses(400, "invalid_grant"),
            400,
            "The code is not good",
            [REQUEST, "invalid_grant (as the script says)"],
        ),
        (Endpoint::Token, Fault::DroppedAfterCommit, 502, "No clear answer", [REQUEST, "A code is sent only once"]),
    ] {
        scene.two.next(endpoint, fault);
        reads(&end(&mut scene).await, status, expected, &parts);
        assert!(titles.insert(expected), "{expected} is the title of two pages");
    }
    scene.two.next(Endpoint::Authorize, Fault::Denies("access_denied"));
    assert!(!end(&mut scene).await.text().contains("as it was"), "there is no link that could be");
    let linked = end(&mut scene).await;
    reads(&linked, 200, "Linked", &["alpha is linked with two.", "You can close this page."]);
    assert!(titles.insert("Linked"));
    // The same kind of end, in the words of its own cause.
    for (endpoint, fault, error) in [
        (Endpoint::Authorize, Fault::Denies("temporarily_unavailable"), "temporarily_unavailable"),
        (Endpoint::Token, Fault::Refuses(401, "invalid_client"), "p2pid ob update two"),
        (Endpoint::Token, Fault::FirewallPage, "403"),
    ] {
        scene.two.next(endpoint, fault);
        reads(&end(&mut scene).await, 502, "The peer refused", &[REQUEST, error]);
    }
    assert_eq!(scene.alpha.state_of("two").await, "linked", "the link from before goes on");
    // Whether the peer still honours it nobody knows here.
    scene.two.next(Endpoint::Authorize, Fault::Denies("access_denied"));
    reads(&end(&mut scene).await, 200, "Declined", &[REQUEST, "left as it was; p2pid peer show two tells how it is"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_each_request_url_that_does_nothing_has_a_page_that_says_why() {
    let mut scene = Scene::new().await;
    let used = scene.alpha.request_url("two").await;
    scene.person.opens(&used).continues().await;
    reads(&scene.person.opens(&used).await, 410, "Used", &[ASK_AGAIN, "used already"]);
    let replaced = scene.alpha.request_url("two").await;
    let expired = scene.alpha.request_url("two").await;
    let unknown = format!("{}/link/p2pt_nothing", scene.alpha.settings.url());
    reads(&scene.person.opens(&replaced).await, 410, "Replaced", &[ASK_AGAIN, "A newer request was made"]);
    reads(&scene.person.opens(&unknown).await, 404, "Unknown request", &[ASK_AGAIN, "the whole address was copied"]);
    let page = scene.person.opens(&expired).await;
    scene.clock.advance(Duration::from_secs(24 * 3600));
    reads(&scene.person.opens(&expired).await, 410, "Expired", &[ASK_AGAIN, "ran out before anybody used it"]);
    let late = scene.person.goes_on_from(&page).continues().await;
    reads(&late, 410, "Expired", &[ASK_AGAIN]);
    assert!(scene.two.heard(Endpoint::Authorize).len() == 1, "only the first one led to the peer");
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_an_answer_that_comes_an_hour_after_the_press_is_told_that_it_is_too_late() {
    let mut scene = Scene::new().await;
    let callback = allowed(&mut scene).await;
    scene.clock.advance(Duration::from_secs(3600));
    reads(&scene.person.opens(callback.as_str()).await, 410, "Expired", &[ASK_AGAIN, "before the answer came"]);
    assert!(scene.two.heard(Endpoint::Token).is_empty(), "its code is sent to nobody");
    let peer = scene.peer().await;
    assert_eq!((&peer["state"], &peer["request"]["stage"]), (&json!("ready_to_link"), &json!("expired")), "{peer}");
    assert_eq!(end(&mut scene).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_an_answer_within_the_hour_links() {
    let mut scene = Scene::new().await;
    let callback = allowed(&mut scene).await;
    scene.clock.advance(Duration::from_secs(3599));
    reads(&scene.person.opens(callback.as_str()).await, 200, "Linked", &[]);
    assert_eq!(scene.alpha.state_of("two").await, "linked");
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_a_newer_request_url_ends_the_handshake_of_the_older_one() {
    let mut scene = Scene::new().await;
    let callback = allowed(&mut scene).await;
    let newer = scene.alpha.request_url("two").await;
    reads(&scene.person.opens(callback.as_str()).await, 410, "Replaced", &[ASK_AGAIN, "A newer request was made"]);
    assert!(scene.two.heard(Endpoint::Token).is_empty(), "its code is sent to nobody");
    reads(&scene.person.opens(&newer).continues().await, 200, "Linked", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_an_answer_at_another_clients_address_ends_the_handshake() {
    let mut scene = Scene::new().await;
    let mut callback = allowed(&mut scene).await;
    let app = scene.alpha.shows("ob-app", "two").await;
    let id = app["id"].as_str().expect("an id").to_owned();
    callback.set_path(&format!("/oauth/callback/{id}"));
    reads(&scene.person.opens(callback.as_str()).await, 400, "Wrong address", &[ASK_AGAIN]);
    assert!(scene.two.heard(Endpoint::Token).is_empty(), "its code is sent to nobody");
    let peer = scene.peer().await;
    assert_eq!((&peer["state"], &peer["request"]["stage"]), (&json!("ready_to_link"), &json!("refused")), "{peer}");
    assert!(peer["reason"].as_str().is_some_and(|reason| reason.contains("another redirect URI")), "{peer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_a_peer_that_cannot_be_linked_now_uses_no_request_url_up() {
    let mut scene = Scene::new().await;
    let url = scene.alpha.request_url("two").await;
    let page = scene.person.opens(&url).await;
    scene.two.always(Endpoint::Metadata, Fault::NoAuthorizationEndpoint);
    scene.alpha.acts("peer", "two", "probe", json!({})).await;
    let parts = ["names no authorization endpoint", "was not used up", "Open it again once that is mended."];
    reads(&scene.person.opens(&url).await, 502, "Cannot be linked now", &parts);
    reads(&scene.person.goes_on_from(&page).continues().await, 502, "Cannot be linked now", &parts);
    let request = scene.peer().await["request"].clone();
    assert_eq!(request["stage"], json!("waiting"));
    let told = request["detail"].as_str().expect("whoever made the URL is told too");
    assert!(told.starts_with("opened 20") && told.contains("names no authorization endpoint"), "{told}");
    scene.two.behaves();
    scene.alpha.acts("peer", "two", "probe", json!({})).await;
    reads(&scene.person.opens(&url).continues().await, 200, "Linked", &[]);
}
