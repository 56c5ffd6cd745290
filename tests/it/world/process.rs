//! A daemon as a real process, with its configuration file and its command line; to be killed.

use std::path::Path;

use p2pid::cli::demo::application::Application;
use p2pid::cli::demo::command::{CommandLine, Outcome};
use p2pid::cli::demo::daemon::{Daemon, NotReady};
use serde_json::Value;

use super::message::Message;
use super::patience::within;
use super::settings::{Settings, request};
use super::wire::Wire;

const PROGRAM: &str = env!("CARGO_BIN_EXE_p2pid");

/// One instance that runs as a child process, and the application behind it.
pub(crate) struct Process {
    pub(crate) settings: Settings,
    pub(crate) application: Application,
    commands: CommandLine,
    daemon: Option<Daemon>,
}

impl Process {
    /// An instance that is configured and does not run yet.
    pub(crate) async fn new(name: &str) -> Self {
        let application = Application::start(name, (super::address::own_address(), 0).into()).await.expect("an address of our own");
        let settings = Settings::new(name, &application.url());
        let commands = CommandLine::of(Path::new(PROGRAM), &settings.config());
        Self { settings, application, commands, daemon: None }
    }

    /// An instance that runs.
    pub(crate) async fn running(name: &str) -> Self {
        let mut process = Self::new(name).await;
        process.starts().await;
        process
    }

    /// Starts it and waits until it is ready.
    pub(crate) async fn starts(&mut self) {
        self.starts_with(&[]).await;
    }

    /// Starts it with an environment of its own.
    pub(crate) async fn starts_with(&mut self, environment: &[(&str, &str)]) {
        let name = &self.settings.name;
        self.daemon = Some(self.tries_to_start(environment).await.unwrap_or_else(|error| panic!("{name}: {error}")));
    }

    /// Starts it so that it kills itself when it passes `point`.
    pub(crate) async fn starts_to_die_at(&mut self, point: &str) {
        self.starts_with(&[(p2pid::observe::point::VARIABLE, point)]).await;
    }

    /// Starts it, expecting that it may not become ready.
    pub(crate) async fn tries_to_start(&self, environment: &[(&str, &str)]) -> Result<Daemon, NotReady> {
        let log = self.settings.folder().join("log");
        Daemon::start(Path::new(PROGRAM), &self.settings.config(), &log, environment.iter().copied()).await
    }

    /// `kill -9`.
    pub(crate) async fn is_killed(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        within("a killed daemon to be gone", daemon.kill()).await.expect("a child can be waited for");
    }

    /// SIGTERM, and the end that follows. Panics when it ends with another status than 0.
    pub(crate) async fn is_stopped(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        let status = within("a daemon to stop", daemon.stop()).await.expect("a child can be waited for");
        assert!(status.success(), "it ended with {status}; its log: {}", daemon.log());
    }

    /// Waits for it to die at its crash point.
    pub(crate) async fn dies(&mut self) {
        use std::os::unix::process::ExitStatusExt;
        let mut daemon = self.daemon.take().expect("it runs");
        let status = within("the daemon to die at its crash point", daemon.ended()).await.expect("a child can be waited for");
        assert_eq!(status.signal(), Some(9), "it ended with {status}; its log: {}", daemon.log());
    }

    /// The running child.
    pub(crate) fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("it runs")
    }

    /// What it said on standard error, since its first start.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(self.settings.folder().join("log"));
        String::from_utf8_lossy(&log.unwrap_or_default()).into_owned()
    }

    /// Runs a command with `--json`, which must succeed; gives what it printed.
    pub(crate) async fn runs(&self, arguments: &[&str]) -> Value {
        self.runs_reading(arguments, None).await
    }

    /// Runs a command with `--json` and a line on standard input, which must succeed.
    pub(crate) async fn runs_with(&self, arguments: &[&str], line: &str) -> Value {
        self.runs_reading(arguments, Some(line)).await
    }

    async fn runs_reading(&self, arguments: &[&str], line: Option<&str>) -> Value {
        let outcome = self.tries(arguments, line).await;
        let command = self.commands.written(arguments);
        assert!(outcome.status.success(), "{command}: {}\n{}\nlog:\n{}", outcome.status, outcome.stderr, self.log());
        outcome.json()
    }

    /// Runs a command with `--json`, which must fail with exit status 1; gives the error that it printed.
    pub(crate) async fn refuses(&self, arguments: &[&str]) -> Value {
        let outcome = self.tries(arguments, None).await;
        assert_eq!(outcome.status.code(), Some(1), "{}: {}{}", self.commands.written(arguments), outcome.stdout, outcome.stderr);
        assert_eq!(outcome.stdout, "", "a failure prints nothing on standard output");
        outcome.problem()["error"].clone()
    }

    /// Runs a command with `--json`, however it ends.
    pub(crate) async fn tries(&self, arguments: &[&str], line: Option<&str>) -> Outcome {
        let arguments = [&["--json"], arguments].concat();
        within("a command to end", self.commands.run(&arguments, line)).await.expect("the binary can be started")
    }

    /// Runs a command as a person would, without `--json`, however it ends.
    pub(crate) async fn says(&self, arguments: &[&str]) -> Outcome {
        within("a command to end", self.commands.run(arguments, None)).await.expect("the binary can be started")
    }

    /// The same with a line on standard input.
    pub(crate) async fn is_told(&self, arguments: &[&str], line: &str) -> Outcome {
        within("a command to end", self.commands.run(arguments, Some(line))).await.expect("the binary can be started")
    }

    /// What the console answers to a GET.
    pub(crate) async fn console(&self, target: &str) -> Message {
        let host = self.settings.console.to_string();
        Wire::plain(self.settings.console).await.asks(request("GET", target, &host, &[], "")).await
    }

    /// A call of a local application through the relay.
    pub(crate) async fn relays(&self, key: &str, target: &str) -> Message {
        let (host, key) = (self.settings.local.to_string(), format!("Bearer {key}"));
        let mut wire = Wire::plain(self.settings.local).await;
        wire.asks(request("GET", target, &host, &[("Authorization", &key)], "")).await
    }
}
