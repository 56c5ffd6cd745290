//! `kill -9` while tokens change hands: of the side that redeems a code, at each step of it, and of the side that mints a pair, between its
//! commit and its answer.

use p2pid::cli::demo::browser::Page;

use crate::world::pair::Pair;
use crate::world::patience::eventually;

/// A life that no test outlasts: what is refreshed here is refreshed by command.
const LONG: &str = "1h";

#[tokio::test]
async fn a_link_survives_death_after_the_code_of_its_successor_is_sent() {
    dies_while_linking_again_at("request_sent").await;
}

#[tokio::test]
async fn a_link_survives_death_after_the_tokens_of_its_successor_are_read() {
    dies_while_linking_again_at("answer_read").await;
}

#[tokio::test]
async fn a_first_link_that_was_interrupted_says_so_and_the_next_request_url_links() {
    for point in ["request_sent", "answer_read"] {
        let mut pair = Pair::introduced(LONG).await;
        dies_at_the_callback(&mut pair, point).await;
        let peer = pair.one.runs(&["peer", "show", "two"]).await;
        assert_eq!((&peer["state"], &peer["request"]["stage"]), (&"ready_to_link".into(), &"refused".into()), "{point}: {peer}");
        let reason = peer["reason"].as_str().expect("every state has a reason");
        assert!(reason.contains("interrupted by a restart") && reason.contains("p2pid peer request two"), "{point}: {reason}");
        assert_eq!(pair.calls().await, 503, "{point}");
        links_with_the_next_request_url(&mut pair).await;
    }
}

#[tokio::test]
async fn a_link_that_was_stored_is_there_after_death_before_its_page() {
    let mut pair = Pair::linked(LONG).await;
    dies_at_the_callback(&mut pair, "pair_stored").await;
    let peer = pair.one.runs(&["peer", "show", "two"]).await;
    assert_eq!((&peer["state"], &peer["request"]["stage"]), (&"linked".into(), &"linked".into()), "{peer}");
    assert_eq!(pair.calls().await, 200);
    eventually("the link from before to be revoked", async || (live_grants(&pair).await == 1).then_some(())).await;
    pair.is_well().await;
}

#[tokio::test]
async fn r4_r7_a_pair_whose_issuer_died_before_it_answered_is_given_again() {
    let mut pair = Pair::linked(LONG).await;
    pair.two.is_stopped().await;
    pair.two.starts_to_die_at("pair_minted").await;
    let outcome = pair.one.tries(&["peer", "refresh", "two"], None).await;
    assert!(!outcome.status.success(), "nobody answered: {}", outcome.stdout);
    pair.two.dies().await;
    pair.two.starts().await;
    eventually("the same refresh token to be answered again", async || pair.two.log().contains("refresh.repeated").then_some(())).await;
    eventually("the link to be well again", async || (pair.state().await == "linked").then_some(())).await;
    pair.is_well().await;
}

#[tokio::test]
async fn a_code_whose_issuer_died_before_it_answered_is_not_sent_again_and_the_next_request_url_links() {
    let mut pair = Pair::introduced(LONG).await;
    let question = question(&mut pair).await;
    pair.two.is_stopped().await;
    pair.two.starts_to_die_at("pair_minted").await;
    let page = pair.operator.goes_on_from(&question).allows().await;
    assert_eq!(page.status, 502, "{}", page.text());
    assert!(page.text().contains("No clear answer") && page.text().contains("p2pid peer request two"), "{}", page.text());
    pair.two.dies().await;
    pair.two.starts().await;
    assert_eq!(pair.state().await, "ready_to_link");
    links_with_the_next_request_url(&mut pair).await;
}

/// `one`, which is linked, dies at `point` while a newer link is to take the place of that one.
async fn dies_while_linking_again_at(point: &str) {
    let mut pair = Pair::linked(LONG).await;
    dies_at_the_callback(&mut pair, point).await;
    let peer = pair.one.runs(&["peer", "show", "two"]).await;
    assert_eq!((&peer["state"], &peer["request"]["stage"]), (&"linked".into(), &"refused".into()), "{peer}");
    assert_eq!(pair.calls().await, 200, "the link from before goes on");
    pair.one.runs(&["peer", "refresh", "two"]).await;
    assert_eq!(pair.calls().await, 200);
    links_with_the_next_request_url(&mut pair).await;
}

/// `one` dies at `point` when the browser brings it a code, and is started again.
async fn dies_at_the_callback(pair: &mut Pair, point: &str) {
    let question = question(pair).await;
    pair.one.is_stopped().await;
    pair.one.starts_to_die_at(point).await;
    let allowed = question.form_with("decision").and_then(|form| form.press("decision", "allow")).expect("the page asks for a decision");
    pair.operator.browser.follow(allowed).await.expect_err("the daemon dies before it answers");
    pair.one.dies().await;
    pair.one.starts().await;
}

/// The page of a new request that asks for a decision.
async fn question(pair: &mut Pair) -> Page {
    let url = pair.request_url().await;
    let page = pair.operator.opens(&url).continues().await;
    // Somebody who has linked before is still signed in.
    if page.form_with("decision").is_ok() { page } else { pair.operator.goes_on_from(&page).logs_in().await }
}

async fn links_with_the_next_request_url(pair: &mut Pair) {
    let question = question(pair).await;
    let page = pair.operator.goes_on_from(&question).allows().await;
    assert_eq!(page.status, 200, "{}", page.text());
    assert_eq!(pair.state().await, "linked");
    for _ in 0..2 {
        assert_eq!(pair.calls().await, 200);
        pair.one.runs(&["peer", "refresh", "two"]).await;
    }
    assert_eq!(pair.calls().await, 200);
}

async fn live_grants(pair: &Pair) -> usize {
    let grants = pair.two.runs(&["grant", "list"]).await;
    grants.as_array().into_iter().flatten().filter(|grant| grant["ended_at"].is_null()).count()
}
