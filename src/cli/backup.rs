//! `p2pid backup` and `p2pid restore`: a copy of the database, and putting one back.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::ask::Confirm;
use super::context::Context;
use super::failure::Failure;
use crate::clock::{Clock, Timestamp};
use crate::daemon::key_credential;
use crate::store::{self, BackupError};
use crate::system::SystemClock;

/// Copy the database into a new file, whether or not the daemon runs
#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The new file; it never holds the state key
    file: PathBuf,
}

/// Put a backup in the place of the database; the daemon must be stopped
#[derive(Debug, Args)]
pub(super) struct Restore {
    /// A file that `p2pid backup` made
    file: PathBuf,
    #[command(flatten)]
    confirm: Confirm,
}

/// Makes the copy.
pub(super) fn backup(command: &Backup, context: &Context<'_>) -> Result<(), Failure> {
    let report = store::backup(&context.located()?.state_dir, &command.file, now()).map_err(|error| refused(&error))?;
    let keys: Vec<_> = report.keys.iter().map(ToString::to_string).collect();
    context.report.data(&document(&report)?, || format!("{}  {} bytes", report.file.display(), report.bytes));
    if !report.audited {
        context.report.warn("the audit does not tell of this backup: the database takes no more");
    }
    context
        .report
        .note(&format!("it opens only with the state key {}, which is not in it: keep a copy of the key list elsewhere", keys.join(", ")));
    Ok(())
}

/// Puts the copy in place.
pub(super) fn restore(command: &Restore, context: &Context<'_>) -> Result<(), Failure> {
    let state_dir = context.located()?.state_dir;
    // Without a terminal it needs no yes: the database that is there is kept beside the new one. What cannot be read is refused without a question.
    if io::stdin().is_terminal() && command.file.is_file() {
        command.confirm.or_ask(&format!("put {} in the place of the database in {}", command.file.display(), state_dir.display()))?;
    }
    let report = store::restore(&state_dir, key_credential().as_deref(), &command.file, now()).map_err(|error| refused(&error))?;
    context.report.data(&document(&report)?, || format!("{}  as of {}", report.database.display(), report.made_at));
    if let Some(replaced) = &report.replaced {
        context.report.note(&format!("the database that was there is now {}", replaced.display()));
    }
    context.report.note("tokens from before the restore are refused: after the start, every inbound link needs a new request URL");
    Ok(())
}

fn now() -> Timestamp {
    SystemClock::new().now().wall
}

fn document(report: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(report).map_err(|error| Failure::new("internal", format!("the report cannot be written: {error}")))
}

fn refused(error: &BackupError) -> Failure {
    error.explain().into()
}
