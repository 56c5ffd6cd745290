//! `kill -9` at every named point on the way of a token, and at none in particular: a link survives, or the next step is there.

use std::sync::Arc;

use p2pid::system::SystemClock;

use crate::world::hostile::{Endpoint, Fault, Hostile};
use crate::world::pair::Pair;
use crate::world::patience::eventually;
use crate::world::person::Person;
use crate::world::process::Process;

/// A life that no test outlasts: what is refreshed here is refreshed by command.
const LONG: &str = "1h";

#[tokio::test]
async fn a_link_survives_kill_9_of_both_ends() {
    let mut pair = Pair::linked(LONG).await;
    assert_eq!(pair.calls().await, 200);
    pair.one.is_killed().await;
    pair.two.is_killed().await;
    pair.two.starts().await;
    pair.one.starts().await;
    pair.is_well().await;
}

#[tokio::test]
async fn c6_a_link_survives_death_after_the_intent_is_written() {
    dies_while_refreshing_at("intent_written").await;
}

#[tokio::test]
async fn c6_a_link_survives_death_after_the_refresh_request_is_sent() {
    dies_while_refreshing_at("request_sent").await;
}

#[tokio::test]
async fn c6_a_refresh_token_that_was_sent_and_not_answered_before_death_is_presented_again() {
    let mut one = Process::running("one").await;
    let two = Hostile::start(Arc::new(SystemClock::new())).await;
    two.repeats_answers();
    let (url, authority) = (two.url(), two.authority());
    let create = ["peer", "create", "two", "--url", &url, "--client-id", "one", "--client-secret-stdin", "--scope", "p2pi"];
    let trusted = authority.to_string_lossy();
    let create = [&create[..], &["--ca", &trusted]].concat();
    one.runs_with(&create, "a-secret-of-20-chars!").await;
    let mut person = Person::new("somebody@two.example", "not asked for", &[one.settings.authority(), authority.clone()]);
    let url = one.runs(&["peer", "request", "two"]).await["url"].as_str().expect("a request URL").to_owned();
    assert_eq!(person.opens(&url).continues().await.status, 200);
    let first = two.refresh_token();

    one.is_stopped().await;
    one.starts_to_die_at("request_sent").await;
    two.next(Endpoint::Token, Fault::Held);
    let outcome = one.tries(&["peer", "refresh", "two"], None).await;
    assert!(!outcome.status.success(), "the daemon died while it was asked: {}", outcome.stdout);
    one.dies().await;
    let presented = || {
        let refreshes = two.heard(Endpoint::Token).into_iter().filter(|heard| heard.parameter("grant_type") == Some("refresh_token"));
        refreshes.map(|heard| heard.parameter("refresh_token").map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(presented(), std::slice::from_ref(&first), "it was sent, and the answer is held");
    one.starts().await;
    eventually("the refresh token to be presented again", async || (presented().len() > 1).then_some(())).await;
    assert_eq!(presented(), [first.clone(), first]);
    assert_eq!(one.runs(&["peer", "show", "two"]).await["state"], "linked");
}

#[tokio::test]
async fn c6_a_link_survives_death_after_the_answer_is_read() {
    dies_while_refreshing_at("answer_read").await;
}

#[tokio::test]
async fn c6_a_link_survives_death_after_the_pair_is_stored() {
    dies_while_refreshing_at("pair_stored").await;
}

#[tokio::test]
async fn c4_a_request_url_whose_ticket_was_consumed_by_a_dying_daemon_is_used_and_the_next_one_links() {
    let mut pair = Pair::introduced(LONG).await;
    pair.one.is_stopped().await;
    pair.one.starts_to_die_at("ticket_consumed").await;
    let url = pair.request_url().await;
    let page = pair.operator.opens(&url).await;
    let pressed = page.form().expect("the request page has one form").submit();
    pair.operator.browser.follow(pressed).await.expect_err("the daemon dies before it answers");
    pair.one.dies().await;
    pair.one.starts().await;
    let page = pair.operator.opens(&url).await;
    assert_eq!(page.status, 410, "{}", page.text());
    assert!(page.text().contains("for a new one"), "the page names the next step: {}", page.text());
    pair.links().await;
    pair.is_well().await;
}

#[tokio::test]
async fn a_code_issued_by_a_dying_daemon_links_nothing_and_the_next_request_url_does() {
    let mut pair = Pair::introduced(LONG).await;
    pair.two.is_stopped().await;
    pair.two.starts_to_die_at("code_issued").await;
    let url = pair.request_url().await;
    let page = pair.operator.opens(&url).continues().logs_in().await;
    let allowed = page.form_with("decision").and_then(|form| form.press("decision", "allow")).expect("the page asks for a decision");
    pair.operator.browser.follow(allowed).await.expect_err("the daemon dies before it answers");
    pair.two.dies().await;
    pair.two.starts().await;
    assert_eq!(pair.state().await, "requested");
    assert_eq!(pair.calls().await, 503);
    let url = pair.request_url().await;
    let page = pair.operator.opens(&url).continues().allows().await;
    assert_eq!(page.status, 200, "the session outlived the daemon: {}", page.text());
    pair.is_well().await;
}

/// `one` dies at `point` during a refresh. What it left behind brings the link back, without anybody's help.
async fn dies_while_refreshing_at(point: &str) {
    let mut pair = Pair::linked(LONG).await;
    pair.one.is_stopped().await;
    pair.one.starts_to_die_at(point).await;
    let outcome = pair.one.tries(&["peer", "refresh", "two"], None).await;
    assert!(!outcome.status.success(), "the daemon died while it was asked: {}", outcome.stdout);
    pair.one.dies().await;
    pair.one.starts().await;
    eventually("the interrupted refresh to be finished", async || {
        let metrics = pair.one.console("/metrics").await.text();
        let finished = point == "pair_stored" || metrics.lines().any(|line| line.starts_with("p2pid_refresh_total{") && is_success(line));
        finished.then_some(())
    })
    .await;
    pair.is_well().await;
}

fn is_success(line: &str) -> bool {
    line.contains(r#"peer="two""#) && line.contains(r#"result="success""#) && !line.ends_with(" 0")
}

impl Pair {
    /// Linked, called, refreshed twice (a token that was consumed wrongly shows only the second time), one live grant.
    pub(crate) async fn is_well(&self) {
        assert_eq!(self.state().await, "linked");
        assert_eq!(self.calls().await, 200);
        for _ in 0..2 {
            self.one.runs(&["peer", "refresh", "two"]).await;
            assert_eq!(self.state().await, "linked");
            assert_eq!(self.calls().await, 200);
        }
        let grants = self.two.runs(&["grant", "list"]).await;
        let live = grants.as_array().into_iter().flatten().filter(|grant| grant["ended_at"].is_null());
        assert_eq!(live.count(), 1, "{grants}");
    }
}
