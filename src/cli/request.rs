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
    #[arg(long)]
    wait: bool,
    /// Wait no longer than this
    #[arg(long, value_name = "D", requires = "wait", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Whoever opens the URL must also log in here
    #[arg(long)]
    login: bool,
}

/// Makes the URL, shows it, and waits when asked to.
pub(super) async fn run(context: &Context<'_>, name: &str, options: &Options) -> Result<(), Failure> {
    let before = PEERS.fetch(context, name).await?;
    let ticket = PEERS.act(context, name, "request", Given::new().flag("login", options.login).into_value()).await?;
    let url = text(&ticket["url"]);
    if !options.wait {
        context.report.data(&ticket, || format!("{url}\n"));
        context.report.note(&invitation(name, &ticket));
        return Ok(());
    }
    context.report.note(&format!("{}\n{url}", invitation(name, &ticket)));
    let peer = wait(context, name, &before, options.timeout).await?;
    context.report.data(&peer, || linked(&peer));
    Ok(())
}

/// Who must open the URL, until when; with a code for a telephone on a terminal.
fn invitation(name: &str, ticket: &Value) -> String {
    let code = if std::io::stderr().is_terminal() { code(&text(&ticket["url"])) } else { String::new() };
    format!("{code}Open before {}, as somebody with an account on {name}:", text(&ticket["expires_at"]))
}

fn code(url: &str) -> String {
    QRBuilder::new(url).build().map(|code: QRCode| code.to_str() + "\n").unwrap_or_default()
}

async fn wait(context: &Context<'_>, name: &str, before: &Value, timeout: Option<Duration>) -> Result<Value, Failure> {
    let started = Instant::now();
    let mut told = String::new();
    loop {
        let peer = PEERS.fetch(context, name).await?;
        let request = &peer["request"];
        let stage = text(&request["stage"]);
        if stage != told {
            context.report.note(&format!("… {stage}"));
            told.clone_from(&stage);
        }
        let linked_since = (&peer["linked_at"], &before["linked_at"]);
        match stage.as_str() {
            "linked" => return Ok(peer),
            "declined" | "expired" | "refused" | "replaced" => {
                return Err(Failure::new(stage, text(&peer["reason"])).next(format!("a new request URL: p2pid peer request {name}")));
            }
            _ if linked_since.0 != linked_since.1 => return Ok(peer),
            _ => {}
        }
        if timeout.is_some_and(|timeout| started.elapsed() >= timeout) {
            return Err(Failure::new("timeout", "nobody has finished the link yet")
                .next("the request URL stays good; p2pid peer show tells how it stands"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn linked(peer: &Value) -> String {
    let who = text(&peer["linked_as"]);
    let who = if who.is_empty() { who } else { format!("allowed by {who} … ") };
    let until = text(&peer["token"]["expires_at"]);
    let until = if until.is_empty() { until } else { format!(" The token lives until {until} and is renewed by itself.") };
    format!("{who}linked.{until}")
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
        let peer = json!({ "linked_as": "ops@two.example.com", "token": { "expires_at": "2026-11-21T13:00:00Z" } });
        assert!(linked(&peer).starts_with("allowed by ops@two.example.com … linked."));
    }
}
