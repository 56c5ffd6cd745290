//! The command line: subcommands, and what they print.
//!
//! A command maps its arguments to requests of the admin API and the answers to text or JSON; the rules are all in the daemon.

mod ask;
mod audit;
mod backup;
mod call;
mod caller;
mod check;
mod client;
mod config;
mod context;
pub mod demo;
mod doctor;
mod failure;
mod grant;
mod ib;
mod init;
mod key;
mod manual;
mod ob;
mod peer;
mod realm;
mod records;
mod registration;
mod report;
mod request;
mod role;
mod run;
mod select;
mod spelled;
mod status;
mod tenant;
mod user;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use context::Context;
use failure::Failure;
use report::Report;

use select::Selection;
use spelled::Spelled;

/// Links platform instances with OAuth 2.0 instead of shared user names and passwords
#[derive(Debug, Parser)]
#[command(name = "p2pid", version, propagate_version = false, subcommand_required = true, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Whose records are meant
    #[arg(long, value_name = "T", global = true, value_parser = clap::builder::NonEmptyStringValueParser::new())]
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
    Init(init::Init),
    /// Run the daemon
    Run,
    /// Validate the configuration and say everything that is wrong with it
    Check,
    #[command(subcommand)]
    Config(config::ConfigCommand),
    #[command(subcommand)]
    User(user::User),
    #[command(subcommand)]
    Role(role::Role),
    #[command(subcommand)]
    Tenant(tenant::Tenant),
    #[command(subcommand)]
    Ib(ib::Ib),
    #[command(subcommand)]
    Realm(realm::Realm),
    #[command(subcommand)]
    Ob(ob::Ob),
    #[command(subcommand)]
    Peer(peer::Peer),
    #[command(subcommand)]
    Caller(caller::Caller),
    Call(call::Call),
    #[command(subcommand)]
    Grant(grant::Grant),
    #[command(subcommand)]
    Key(key::Key),
    /// Show how the daemon does: configuration, listeners, peers
    Status,
    /// Have the daemon read its configuration again
    Reload,
    Doctor(doctor::Doctor),
    Audit(audit::Audit),
    Backup(backup::Backup),
    Restore(backup::Restore),
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
    if !matches!(arguments.command, Command::Demo(_) | Command::Init(_) | Command::Config(_) | Command::Completions(_) | Command::Man(_)) {
        report.spell(Spelled::new(&arguments.selection, arguments.tenant.as_deref()));
    }
    let context = Context::new(report, arguments.selection, arguments.tenant);
    match arguments.command {
        Command::Demo(command) => wait(demo::run(command, report)),
        Command::Init(command) => init::run(&command, &context),
        Command::Run => run::run(&context),
        Command::Check => check::run(&context),
        Command::Config(command) => config::run(&command, &context),
        Command::User(command) => wait(user::run(command, &context)),
        Command::Role(command) => wait(role::run(command, &context)),
        Command::Tenant(command) => wait(tenant::run(command, &context)),
        Command::Ib(command) => wait(ib::run(command, &context)),
        Command::Realm(command) => wait(realm::run(command, &context)),
        Command::Ob(command) => wait(ob::run(command, &context)),
        Command::Peer(command) => wait(peer::run(command, &context)),
        Command::Caller(command) => wait(caller::run(command, &context)),
        Command::Call(command) => wait(call::run(command, &context)),
        Command::Grant(command) => wait(grant::run(command, &context)),
        Command::Key(command) => wait(key::run(command, &context)),
        Command::Status => wait(status::show(&context)),
        Command::Reload => wait(status::reload(&context)),
        Command::Doctor(command) => wait(doctor::run(&command, &context)),
        Command::Audit(command) => wait(audit::run(&command, &context)),
        Command::Backup(command) => backup::backup(&command, &context),
        Command::Restore(command) => backup::restore(&command, &context),
        Command::Completions(command) => manual::completions(&command, &context),
        Command::Man(command) => manual::man(&command, &context),
    }
}

/// Runs a command that talks to others; one thread is enough for that.
fn wait(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new("system", format!("this system gives no event queue: {error}")))?.block_on(command)
}

/// Help and version were asked for, or the command line is wrong.
fn not_a_command(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    use clap::error::{ContextKind, ErrorKind};
    // Nothing was parsed, so whether programs read this is looked up by hand.
    let json = arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json");
    let report = Report::new(json);
    if json && error.kind() == ErrorKind::DisplayVersion {
        report.data(&serde_json::json!({ "version": env!("CARGO_PKG_VERSION") }), String::new);
        return report.finish(Ok(()));
    }
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        report.bytes(error.render().to_string().as_bytes());
        return report.finish(Ok(()));
    }
    let text = error.render().to_string();
    let said =
        |kinds: &[ContextKind]| kinds.iter().find_map(|kind| error.get(*kind)).map(ToString::to_string).filter(|said| !said.is_empty());
    let failure = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            let expected = said(&[ContextKind::ValidSubcommand]).unwrap_or_else(|| "one of the commands that its help lists".to_owned());
            Failure::usage("a command is missing").found("no more words").expected(expected)
        }
        ErrorKind::MissingRequiredArgument => {
            let expected = said(&[ContextKind::InvalidArg]).unwrap_or_else(|| "what its help says".to_owned());
            Failure::usage(in_one_line(&text)).found("no such argument").expected(expected)
        }
        kind => {
            let found = said(&[ContextKind::InvalidValue, ContextKind::InvalidSubcommand, ContextKind::InvalidArg]);
            let reason = std::error::Error::source(error).filter(|_| kind == ErrorKind::ValueValidation).map(ToString::to_string);
            let expected = said(&[ContextKind::ValidValue, ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg]).or(reason);
            let failure = Failure::usage(in_one_line(&text)).found(found.unwrap_or_else(|| "these arguments".to_owned()));
            failure.expected(expected.unwrap_or_else(|| "what its help says".to_owned()))
        }
    };
    report.finish(Err(failure.next("p2pid --help").said_as(text.trim_end())))
}

/// What clap says is wrong, without the usage and the hint at `--help` that follow.
fn in_one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let message = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    message.trim_start_matches("error: ").to_owned()
}

/// A length of time.
fn duration(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text).map_err(|_| "expected a number and a unit, such as 60s, 10m, 24h or 90d")
}

/// A client id. Servers that make theirs of base64url give ids that begin with `-`, which must not be taken for flags; a flag that was
/// taken for an id is no id.
fn client_id(text: &str) -> Result<String, String> {
    let is_flag = text.strip_prefix("--").is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
    if is_flag { Err("it is another flag, and the id is missing".to_owned()) } else { Ok(text.to_owned()) }
}

/// A text file that an option names.
fn read_text(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        let failure = Failure::new("file", format!("{} cannot be read", path.display())).found(error.to_string());
        failure.expected("a text file that this user may read").next("give another path, or see to its permissions")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_in_one_line() {
        let error = Arguments::command().try_get_matches_from(["p2pid", "user", "add"]).expect_err("no login");
        assert_eq!(in_one_line(&error.render().to_string()), "the following required arguments were not provided: <LOGIN>");
    }

    #[test]
    fn a_client_id_may_begin_like_a_flag_and_is_none() {
        let parsed = |words: &[&str]| Arguments::command().try_get_matches_from([&["p2pid"], words].concat());
        for id in ["-5abc", "--5abc", "-c", "5f0c"] {
            for words in [
                &["ob", "create", "x", "--client-id", id, "--issuer", "https://two.example.com", "--client-secret-stdin"][..],
                &["ob", "update", "x", "--client-id", id, "--client-secret-stdin"],
                &["ib", "create", "x", "--client-id", id, "--scope", "p2pi"],
                &["peer", "create", "x", "--client-id", id, "--url", "https://two.example.com", "--client-secret-stdin"],
            ] {
                parsed(words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
            }
        }
        let error = parsed(&["ob", "update", "x", "--client-id", "--client-secret-stdin"]).expect_err("no id");
        assert!(error.to_string().contains("it is another flag, and the id is missing"), "{error}");
    }

    #[test]
    fn an_update_does_not_say_what_a_new_record_has() {
        for record in Arguments::command().get_subcommands() {
            let updates = record.get_subcommands().filter(|command| command.get_name() == "update");
            for argument in updates.flat_map(clap::Command::get_arguments) {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                let tells_of_new = ["when left out", "left out where"].iter().any(|words| help.contains(words));
                assert!(!tells_of_new, "{} update --{}: {help}", record.get_name(), argument.get_id());
            }
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
