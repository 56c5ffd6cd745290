//! Logs through `tracing`: for people on a terminal, JSON otherwise; with the level in front when the journal reads along.
//!
//! Field names, so that one search finds everything of one kind: `tenant`, `peer`, `client_id`, `grant` (its id), `token` (a fingerprint,
//! never more), `caller`, `who` (login or uid), `request_id`, `address`, `status`, `code` (of an error), `reason` (words), `elapsed_ms`.
//! What the audit tells of too has the action's name as `event` ([`crate::audit::Action`]), so that one word finds it in both; who did what has
//! the target [`AUDIT`].

use std::fmt;
use std::io::IsTerminal;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::redact::Redacting;

/// The target of events that say who changed what.
pub const AUDIT: &str = "audit";

/// The environment variable that says what is logged, as in `info,p2pid::tasks=debug`; `info` when it is not set.
pub const VARIABLE: &str = "P2PID_LOG";

/// [`VARIABLE`] does not say what to log.
#[derive(Debug, thiserror::Error)]
#[error("{VARIABLE}: found {found:?}, expected levels as in \"info,p2pid::tasks=debug\"")]
pub struct NotAFilter {
    found: String,
}

/// Sends this process's events to standard error from here on. Does nothing when something else already receives them.
///
/// # Errors
/// [`NotAFilter`] when [`VARIABLE`] cannot be read.
pub fn start() -> Result<(), NotAFilter> {
    let targets = match std::env::var(VARIABLE) {
        Ok(found) if !found.is_empty() => found.parse::<Targets>().map_err(|_| NotAFilter { found })?,
        _ => Targets::new().with_default(Level::INFO),
    };
    let registry = tracing_subscriber::registry().with(targets);
    let layer = tracing_subscriber::fmt::layer().with_writer(RedactedStderr);
    let started = if std::io::stderr().is_terminal() {
        registry.with(layer.event_format(tracing_subscriber::fmt::format().with_target(false).compact())).try_init()
    } else {
        let json = tracing_subscriber::fmt::format().json().flatten_event(true).with_span_list(false);
        let fields = tracing_subscriber::fmt::format::JsonFields::new();
        if journal_reads_stderr() {
            registry.with(layer.fmt_fields(fields).event_format(WithPriority(json))).try_init()
        } else {
            registry.with(layer.fmt_fields(fields).event_format(json)).try_init()
        }
    };
    if started.is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string);
            tracing::error!(place, reason = panic.payload_as_str().unwrap_or("no text"), "a defect in p2pid: a task panicked");
        }));
    }
    Ok(())
}

/// Whether standard error is the journal's stream: systemd names it by device and inode.
fn journal_reads_stderr() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(std::io::stderr()).is_ok_and(|found| named == format!("{}:{}", found.st_dev, found.st_ino))
}

struct RedactedStderr;

impl<'a> MakeWriter<'a> for RedactedStderr {
    type Writer = Redacting<std::io::StderrLock<'a>>;

    fn make_writer(&'a self) -> Self::Writer {
        Redacting(std::io::stderr().lock())
    }
}

/// Puts `<priority>` in front of each line, which the journal takes off and keeps as the entry's level (sd-daemon(3)).
struct WithPriority<F>(F);

impl<S, N, F> FormatEvent<S, N> for WithPriority<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// syslog's number of a level.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}
