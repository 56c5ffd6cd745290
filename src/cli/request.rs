//! `p2pid peer request`: the one-time request URL, and waiting for what becomes of it.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::Args;
use fast_qr::QRBuilder;
use fast_qr::qr::QRCode;
use serde_json::Value;

use super::context::Context;
use super::failure::Failure;
use super::peer::PEERS;
use super::records::{Given, text};

/// How often a waiting command looks.
const LOOK: Duration = Duration::from_millis(300);

/// How the request is made.
#[derive(Debug, Default, Args)]
pub(super) struct Options {
    /// Wait until it is linked, declined or expired
    ///
    /// With --json the document with the URL is printed before the wait, since somebody has to open it meanwhile; the exit code says how it
    /// ended.
    #[arg(long)]
    wait: bool,
    /// Wait no longer than this
    #[arg(long, value_name = "D", requires = "wait", value_parser = super::duration)]
    timeout: Option<Duration>,
    /// Whoever opens the URL must also log in here
    #[arg(long)]
    login: bool,
}

/// Makes the URL, shows it, and waits when asked to. The URL is printed before the wait: somebody has to open it meanwhile.
pub(super) async fn run(context: &Context<'_>, name: &str, options: &Options) -> Result<(), Failure> {
    let before = PEERS.fetch(context, name).await.map_err(|failure| match failure.code.as_str() {
        "not_found" => {
            failure.next(format!("make it: p2pid peer create {name} --url URL --client-id ID; those that there are: p2pid peer list"))
        }
        _ => failure,
    })?;
    let ticket = PEERS.act(context, name, "request", Given::new().flag("login", options.login).into_value()).await?;
    context.report.note(&invitation(name, &ticket));
    context.report.data(&ticket, || text(&ticket["url"]));
    if std::io::stderr().is_terminal() {
        context.report.note(&code(&text(&ticket["url"])));
    }
    if options.wait {
        let peer = wait(context, name, &before, &ticket["id"], options.timeout).await?;
        context.report.note(&linked(&peer));
    }
    Ok(())
}

/// Who must open the URL, and until when.
fn invitation(name: &str, ticket: &Value) -> String {
    format!("Open before {}, as somebody with an account on {name}:", text(&ticket["expires_at"]))
}

/// The URL for a telephone.
fn code(url: &str) -> String {
    QRBuilder::new(url).build().map(|code: QRCode| code.to_str() + "\n").unwrap_or_default()
}

/// Waits for the end of the request URL with that id; a newer one takes its place.
async fn wait(context: &Context<'_>, name: &str, before: &Value, id: &Value, timeout: Option<Duration>) -> Result<Value, Failure> {
    let started = Instant::now();
    let mut told = "waiting".to_owned();
    loop {
        let peer = PEERS.fetch(context, name).await?;
        let stage = text(&peer["request"]["stage"]);
        let said = in_vain(&peer["request"]).unwrap_or_else(|| stage.clone());
        match stage.as_str() {
            _ if peer["request"]["id"].is_string() && peer["request"]["id"] != *id => {
                return Err(ended(name, "replaced", &peer));
            }
            "linked" => return Ok(peer),
            "declined" | "expired" | "refused" | "replaced" => return Err(ended(name, &stage, &peer)),
            // Linked meanwhile by other means.
            _ if peer["linked_at"] != before["linked_at"] => return Ok(peer),
            _ if said != told => context.report.note(&format!("{said} …")),
            _ => {}
        }
        told = said;
        if timeout.is_some_and(|timeout| started.elapsed() >= timeout) {
            return Err(timed_out(name, &stage, &peer));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// That the URL was opened, and why the page could not send its reader on.
fn in_vain(request: &Value) -> Option<String> {
    let why = request["detail"].as_str().filter(|_| request["stage"] == "waiting")?;
    Some(format!("{why}. Once that is mended the same URL can be opened again"))
}

/// The wait is over, and what was waited for may still come.
fn timed_out(name: &str, stage: &str, peer: &Value) -> Failure {
    let failure = Failure::new("timeout", format!("nobody has linked {name} yet"));
    let show = format!("p2pid peer show {name} tells how it stands");
    let until = text(&peer["request"]["expires_at"]);
    if stage == "waiting" {
        let failure = failure.found(match peer["request"]["detail"].as_str() {
            Some(why) => format!("the request URL, {why}"),
            None => "the request URL, which nobody has used".to_owned(),
        });
        return failure.next(format!("it stays good until {until}; {show}"));
    }
    let failure = failure.found("the request URL, which somebody has used: it cannot be used again");
    failure.next(format!("what was begun with it can be ended until {until}; {show}; a new one: p2pid peer request {name}"))
}

/// A request that came to nothing, with the words that the peer's page or the daemon had for it.
fn ended(name: &str, stage: &str, peer: &Value) -> Failure {
    let what = match stage {
        "declined" => "was declined",
        "expired" => "has run out",
        "replaced" => "was replaced by a newer one",
        _ => "came to nothing",
    };
    let why = [&peer["request"]["detail"], &peer["reason"]].into_iter().map(text).find(|words| !words.is_empty());
    let why = why.map(|words| format!(": {words}")).unwrap_or_default();
    let next = match stage {
        "replaced" => format!("use the newer one; p2pid peer show {name} tells how it stands"),
        _ => format!("a new one: p2pid peer request {name}"),
    };
    Failure::new(stage, format!("the request URL for {name} {what}{why}")).next(next)
}

fn linked(peer: &Value) -> String {
    let who = text(&peer["linked_as"]);
    let who = if who.is_empty() { who } else { format!("allowed by {who} … ") };
    let renewed = if peer["token"]["refreshable"] == true { " and is renewed by itself" } else { "" };
    let life = life(&peer["token"]).map(|life| format!(" The token lives {life}{renewed}.")).unwrap_or_default();
    format!("{who}linked.{life}")
}

/// How long a token lives in all.
fn life(token: &Value) -> Option<String> {
    let time = |name: &str| humantime::parse_rfc3339(token[name].as_str()?).ok();
    let life = time("expires_at")?.duration_since(time("issued_at")?).ok()?;
    Some(humantime::format_duration(life).to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_url_has_a_code() {
        assert!(code("https://one.example.com:7443/link/p2pt_0123456789").lines().count() > 10);
    }

    #[test]
    fn the_end_names_who_allowed_it() {
        let peer = json!({
            "linked_as": "ops@two.example.com",
            "token": { "issued_at": "2026-11-21T12:00:00Z", "expires_at": "2026-11-21T13:00:00Z", "refreshable": true },
        });
        assert_eq!(linked(&peer), "allowed by ops@two.example.com … linked. The token lives 1h and is renewed by itself.");
    }

    #[test]
    fn a_wait_that_ends_says_what_the_url_is_still_good_for() {
        let peer = json!({ "request": { "expires_at": "2026-11-22T12:00:00Z" } });
        let next = |stage: &str| timed_out("two", stage, &peer).next.clone().expect("a next step");
        assert!(next("waiting").starts_with("it stays good until 2026-11-22T12:00:00Z;"), "{}", next("waiting"));
        let opened = json!({ "request": { "expires_at": "2026-11-22T12:00:00Z", "stage": "waiting", "detail": "opened 2026-11-21, and it is down" } });
        let found = timed_out("two", "waiting", &opened).found.clone().expect("what was found");
        assert_eq!(found, "the request URL, opened 2026-11-21, and it is down");
        let said = in_vain(&opened["request"]).expect("it was opened in vain");
        assert_eq!(said, "opened 2026-11-21, and it is down. Once that is mended the same URL can be opened again");
        assert_eq!(in_vain(&json!({ "stage": "linked", "detail": "ops" })), None);
        assert!(!next("opened").contains("stays good") && next("opened").ends_with("p2pid peer request two"), "{}", next("opened"));
    }

    #[test]
    fn a_request_that_came_to_nothing_says_why() {
        let peer = json!({ "reason": "declined by ops", "request": { "stage": "declined", "detail": null } });
        let failure = ended("two", "declined", &peer);
        assert_eq!(
            (failure.code.as_str(), failure.message.as_str()),
            ("declined", "the request URL for two was declined: declined by ops")
        );
        assert_eq!(failure.next.as_deref(), Some("a new one: p2pid peer request two"));
        let replaced = ended("two", "replaced", &json!({ "reason": "a request URL is out" }));
        assert_eq!(
            replaced.next.as_deref(),
            Some("use the newer one; p2pid peer show two tells how it stands"),
            "another would end it too"
        );
    }
}
