//! The command line: subcommands, and what they print.
//!
//! A command maps its arguments to requests of the admin API and the answers to text or JSON; the rules are all in the daemon.

mod ask;
mod caller;
mod client;
mod context;
pub mod demo;
mod failure;
mod grant;
mod ib;
mod manual;
mod ob;
mod peer;
mod records;
mod report;
mod request;
mod select;
mod status;
mod tenant;
mod user;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use context::Context;
use failure::Failure;
use report::Report;

use select::Selection;

/// Links platform instances with OAuth 2.0 instead of shared user names and passwords
#[derive(Debug, Parser)]
#[command(name = "p2pid", version, propagate_version = false, subcommand_required = true, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Whose records are meant
    #[arg(long, value_name = "T", global = true)]
    tenant: Option<String>,
    /// Print one JSON document
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    #[command(subcommand)]
    User(user::User),
    #[command(subcommand)]
    Tenant(tenant::Tenant),
    #[command(subcommand)]
    Ib(ib::Ib),
    #[command(subcommand)]
    Ob(ob::Ob),
    #[command(subcommand)]
    Peer(peer::Peer),
    #[command(subcommand)]
    Caller(caller::Caller),
    #[command(subcommand)]
    Grant(grant::Grant),
    /// Show how the daemon does: configuration, listeners, peers
    Status,
    /// Have the daemon read its configuration again
    Reload,
    Completions(manual::Completions),
    Man(manual::Man),
}

/// Does what the command line says; gives the exit status.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let matches = Arguments::command().try_get_matches_from(&arguments);
    match matches.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(parsed) => {
            let report = Report::new(parsed.json);
            let outcome = run(parsed, &report);
            report.finish(outcome)
        }
        Err(error) => not_a_command(&error, &arguments),
    }
}

fn run(arguments: Arguments, report: &Report) -> Result<(), Failure> {
    let context = Context::new(report, arguments.selection, arguments.tenant);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new("system", format!("this system gives no event queue: {error}")))?;
    runtime.block_on(async {
        match arguments.command {
            Command::Demo(command) => demo::run(command, report).await,
            Command::User(command) => user::run(command, &context).await,
            Command::Tenant(command) => tenant::run(command, &context).await,
            Command::Ib(command) => ib::run(command, &context).await,
            Command::Ob(command) => ob::run(command, &context).await,
            Command::Peer(command) => peer::run(command, &context).await,
            Command::Caller(command) => caller::run(command, &context).await,
            Command::Grant(command) => grant::run(command, &context).await,
            Command::Status => status::show(&context).await,
            Command::Reload => status::reload(&context).await,
            Command::Completions(command) => manual::completions(&command, &context),
            Command::Man(command) => manual::man(&command, &context),
        }
    })
}

/// Help and version were asked for, or the command line is wrong.
fn not_a_command(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    use clap::error::ErrorKind;
    // Nothing was parsed, so whether programs read this is looked up by hand.
    let json = arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json");
    let report = Report::new(json);
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        report.bytes(error.render().to_string().as_bytes());
        return report.finish(Ok(()));
    }
    let text = error.render().to_string();
    let text = text.trim_end();
    if !json {
        return report.finish(Err(Failure::usage(format!("{text}\n"))));
    }
    let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    report.finish(Err(Failure::usage(message).next("p2pid --help")))
}

/// A text file that an option names.
fn read_text(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::new("file", format!("{} cannot be read: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
