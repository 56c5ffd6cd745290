//! `p2pid status` and `p2pid reload`.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::client::path;
use super::context::Context;
use super::failure::Failure;
use super::records::text;
use super::report;

/// Prints how the instance does.
pub(super) async fn show(context: &Context<'_>) -> Result<(), Failure> {
    let mut record = context.client()?.fetch(&path(&["status"])).await?;
    let status = record["attributes"].take();
    context.report.data(&status, || sheet(&status));
    Ok(())
}

/// Has the daemon read its configuration again.
pub(super) async fn reload(context: &Context<'_>) -> Result<(), Failure> {
    let mut record = context.client()?.send(Method::POST, &path(&["reload"]), "reload", json!({})).await?;
    let answer = record["attributes"].take();
    context.report.data(&answer, String::new);
    let restart = text(&answer["restart_needed"]);
    context.report.note("the configuration is read and in force");
    if !restart.is_empty() {
        context.report.warn(&format!("these changes wait for a restart: {restart}"));
    }
    Ok(())
}

fn sheet(status: &Value) -> String {
    let uptime = humantime::format_duration(Duration::from_secs(status["uptime_s"].as_u64().unwrap_or_default()));
    let config = &status["config"];
    let listeners = status["listeners"].as_array().map(Vec::as_slice).unwrap_or_default();
    let listeners: Vec<_> = listeners
        .iter()
        .map(|listener| {
            let tls = if listener["tls"] == true { " (TLS)" } else { "" };
            format!("{} {}{tls}", text(&listener["name"]), text(&listener["address"]))
        })
        .collect();
    let peers = status["peers"].as_object().into_iter().flatten().filter(|(_, count)| count.as_u64() != Some(0));
    let peers: Vec<_> = peers.map(|(state, count)| format!("{} {state}", text(count))).collect();
    report::sheet(&[
        ("instance", format!("{} at {}", text(&status["instance"]), text(&status["public_url"]))),
        ("version", format!("{}, up {uptime}", text(&status["version"]))),
        ("configuration", format!("{}, read {}", text(&config["file"]), text(&config["loaded_at"]))),
        ("refused change", text(&config["error"])),
        ("waits for a restart", text(&config["restart_needed"])),
        ("listening", listeners.join(", ")),
        ("peers", if peers.is_empty() { "none".to_owned() } else { peers.join(", ") }),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_what_matters() {
        let status = json!({
            "instance": "two", "public_url": "https://two.example.com", "version": "1.0", "uptime_s": 3661,
            "config": { "file": "/etc/p2pid/two.toml", "loaded_at": "2026-11-21T12:00:00Z", "error": "two.toml:3: bad" },
            "listeners": [{ "name": "public", "address": "[::]:7443", "tls": true }, { "name": "local", "address": "127.0.0.1:7480", "tls": false }],
            "peers": { "linked": 2, "degraded": 0 },
        });
        let text = sheet(&status);
        for part in [
            "two at https://two.example.com",
            "up 1h 1m 1s",
            "two.toml:3: bad",
            "public [::]:7443 (TLS), local 127.0.0.1:7480",
            "2 linked\n",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
