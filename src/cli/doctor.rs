//! `p2pid doctor`: looks at everything that can be wrong, and says what to do about it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::client::path;
use super::context::Context;
use super::failure::Failure;
use super::peer::PEERS;
use super::records::text;
use super::report;
use crate::clock::Clock;
use crate::config::{self, Config, Tls};
use crate::net::certificate::Certificate;
use crate::net::files;
use crate::net::tls::Identity;
use crate::system::SystemClock;

/// A certificate that lives shorter than this deserves attention.
const CERTIFICATE_LEFT: Duration = Duration::from_secs(14 * 24 * 3600);
/// A database on a disk with less than this much space left may soon be unable to grow.
const DISK_LEFT: u64 = 256 << 20;

/// Look for what is wrong: configuration, files, daemon, peers
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Probe this peer only; all when left out
    peer: Option<String>,
}

/// One thing that was looked at.
struct Check {
    what: String,
    result: Health,
    detail: String,
    next: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Health {
    Ok,
    Warning,
    Failed,
}

impl Health {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

impl Check {
    fn new(what: impl Into<String>, result: Health, detail: impl Into<String>) -> Self {
        Self { what: what.into(), result, detail: detail.into(), next: None }
    }

    fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    fn document(&self) -> Value {
        json!({ "check": self.what, "result": self.result.word(), "detail": self.detail, "next": self.next })
    }
}

/// Looks, prints, and fails when something failed.
pub(super) async fn run(command: &Doctor, context: &Context<'_>) -> Result<(), Failure> {
    let mut checks = Vec::new();
    if context.selection.socket.is_none() {
        checks.extend(files(&context.selection.file()?));
    }
    checks.extend(daemon(command, context).await?);
    let documents: Value = checks.iter().map(Check::document).collect();
    let failed: Vec<_> = checks.iter().filter(|check| check.result == Health::Failed).map(|check| check.what.clone()).collect();
    if failed.is_empty() || !context.report.is_json() {
        context.report.data(&json!({ "checks": documents }), || table(&checks, |next| context.report.spelled(next)));
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::new("unwell", format!("not well: {}", failed.join(", "))).with("checks", documents))
}

/// What the files say, whether or not the daemon runs.
fn files(file: &Path) -> Vec<Check> {
    let config = match config::load(file) {
        Ok(loaded) => loaded.config,
        Err(problems) => {
            return vec![Check::new("configuration", Health::Failed, problems.first().to_string()).next("p2pid check shows all")];
        }
    };
    let mut checks = vec![Check::new("configuration", Health::Ok, file.display().to_string())];
    checks.extend(certificate(&config));
    checks.extend(client_authorities(&config));
    checks.extend(open_files(&config));
    checks.extend(state(&config.instance.state_dir));
    checks
}

fn certificate(config: &Config) -> Option<Check> {
    let Tls::Files { cert, key } = &config.public.tls else { return None };
    let what = "certificate";
    let identity = match Identity::from_files(cert, key) {
        Ok(identity) => identity,
        Err(error) => return Some(Check::new(what, Health::Failed, error.to_string())),
    };
    let left = identity.certificate().valid_for(SystemClock::new().now().wall);
    Some(match left {
        None => Check::new(what, Health::Failed, format!("{} is not valid now", cert.display()))
            .next("renew it; the daemon takes it up by itself"),
        Some(left) => {
            let detail = format!("{} is valid for {} d", cert.display(), left.as_secs() / (24 * 3600));
            let check = Check::new(what, if left < CERTIFICATE_LEFT { Health::Warning } else { Health::Ok }, detail);
            if left < CERTIFICATE_LEFT { check.next("renew it; the daemon takes it up by itself") } else { check }
        }
    })
}

/// Whether the connections that are allowed fit into the files that a daemon may have open which is started from here.
fn open_files(config: &Config) -> Option<Check> {
    let warning = files::too_few(&config.limits, files::hard_limit())?;
    Some(Check::new("open files", Health::Warning, format!("as started from here: {warning}")))
}

/// Who signs for clients: an authority whose time is over signs for nobody.
fn client_authorities(config: &Config) -> Option<Check> {
    let what = "authorities of clients";
    let now = SystemClock::new().now().wall;
    let read: Vec<_> = config.mtls.authorities.iter().filter_map(Certificate::read).collect();
    let soonest = read.iter().map(|authority| authority.valid_for(now)).min()?;
    let next = "add the next one to [mtls] ca, and take this one out when no client needs it; the daemon takes it up by itself";
    Some(match soonest {
        None => Check::new(what, Health::Warning, "one of [mtls] ca is not valid now").next(next),
        Some(left) => {
            let detail = format!("{}, valid for {} d", read.len(), left.as_secs() / (24 * 3600));
            let check = Check::new(what, if left < CERTIFICATE_LEFT { Health::Warning } else { Health::Ok }, detail);
            if left < CERTIFICATE_LEFT { check.next(next) } else { check }
        }
    })
}

fn state(folder: &Path) -> Vec<Check> {
    let shown = folder.display();
    let metadata = match std::fs::metadata(folder) {
        Ok(metadata) => metadata,
        Err(error) => return vec![Check::new("state", Health::Warning, format!("{shown}: {error}")).next("p2pid run makes it")],
    };
    let mode = metadata.mode() & 0o777;
    let open = mode & 0o077 != 0;
    let mut checks = vec![if open {
        Check::new("state", Health::Warning, format!("{shown} has mode {mode:o}, expected 700")).next(format!("chmod 700 {shown}"))
    } else {
        Check::new("state", Health::Ok, shown.to_string())
    }];
    if let Ok(disk) = rustix::fs::statvfs(folder) {
        let left = disk.f_bavail.saturating_mul(disk.f_frsize);
        let check = Check::new("disk", if left < DISK_LEFT { Health::Warning } else { Health::Ok }, format!("{} MiB left", left >> 20));
        checks.push(if left < DISK_LEFT { check.next("make room: a database that cannot grow refuses changes") } else { check });
    }
    checks
}

/// What the running daemon says of itself and of its peers.
async fn daemon(command: &Doctor, context: &Context<'_>) -> Result<Vec<Check>, Failure> {
    let status = async || context.client()?.fetch(&path(&["status"])).await;
    let mut status = match status().await {
        Ok(status) => status,
        Err(failure) => {
            let found = failure.found.clone().unwrap_or_default();
            let check = Check::new("daemon", Health::Failed, format!("{}: {found}", failure.message));
            return Ok(vec![check.next(failure.next.clone().unwrap_or_default())]);
        }
    };
    let (client, status) = (context.client()?, status["attributes"].take());
    let mut checks =
        vec![Check::new("daemon", Health::Ok, format!("version {}, up {} s", text(&status["version"]), text(&status["uptime_s"])))];
    if let Some(error) = status["config"]["error"].as_str() {
        let check = Check::new("running configuration", Health::Warning, format!("a change was refused: {error}"));
        checks.push(check.next("mend the file; the daemon reads it again by itself"));
    }
    let names = match &command.peer {
        Some(name) => vec![name.clone()],
        None => {
            let peers = client.fetch(&PEERS.path(context, &[])).await?;
            peers.as_array().into_iter().flatten().map(|peer| text(&peer["attributes"]["name"])).collect()
        }
    };
    for name in names {
        let probed = client.send(Method::POST, &PEERS.path(context, &[&name, "probe"]), PEERS.kind, json!({})).await;
        match probed {
            Ok(record) => checks.extend(findings(&name, &record["attributes"])),
            Err(failure) if command.peer.is_some() => return Err(failure),
            Err(failure) => checks.push(Check::new(format!("peer {name}"), Health::Failed, failure.message.as_str())),
        }
    }
    Ok(checks)
}

/// What a probe found, and whether the link is well.
fn findings(name: &str, peer: &Value) -> Vec<Check> {
    let what = format!("peer {name}");
    let probe = text(&peer["probe"]);
    // Without a word of what is well the peer was not even reached.
    let warned = if probe.is_empty() { Health::Failed } else { Health::Warning };
    let mut checks = Vec::new();
    if !probe.is_empty() {
        checks.push(Check::new(&what, Health::Ok, probe));
    }
    checks.extend(peer["warnings"].as_array().into_iter().flatten().map(|warning| Check::new(&what, warned, text(warning))));
    let state = text(&peer["state"]);
    let health = match state.as_str() {
        "linked" => Health::Ok,
        "relink_required" => Health::Failed,
        _ => Health::Warning,
    };
    let reason = text(&peer["reason"]);
    let detail = if reason.is_empty() { state } else { format!("{state}: {reason}") };
    checks.push(Check::new(format!("link to {name}"), health, detail));
    checks
}

fn table(checks: &[Check], spelled: impl Fn(&str) -> String) -> String {
    let row = |check: &Check| {
        let next = check.next.as_deref().map(|next| format!("; {}", spelled(next))).unwrap_or_default();
        vec![check.result.word().to_owned(), check.what.clone(), format!("{}{next}", check.detail)]
    };
    report::table(&["result", "check", "detail"], checks.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_folder_that_others_can_read_is_warned_of() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let mode = |mode| std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).expect("our own folder");
        mode(0o755);
        assert!(state(folder.path())[0].result == Health::Warning);
        mode(0o700);
        assert!(state(folder.path())[0].result == Health::Ok);
        assert!(state(Path::new("/nonexistent"))[0].result == Health::Warning);
    }

    #[test]
    fn a_peer_is_well_when_it_answers_and_is_linked() {
        let results = |peer: Value| findings("two", &peer).iter().map(|check| check.result.word()).collect::<Vec<_>>();
        assert_eq!(results(json!({ "probe": "reached two", "warnings": [], "state": "linked" })), ["ok", "ok"]);
        assert_eq!(results(json!({ "probe": "reached two", "warnings": ["+12 s"], "state": "degraded" })), ["ok", "warning", "warning"]);
        assert_eq!(results(json!({ "probe": "", "warnings": ["no route"], "state": "linked" })), ["failed", "ok"]);
        assert_eq!(results(json!({ "probe": "reached two", "warnings": [], "state": "relink_required" })), ["ok", "failed"]);
    }
}
