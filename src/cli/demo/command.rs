//! Commands as a person or a script would give them: the same binary, its arguments, a line on standard input, and what it printed.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The command line of one instance.
#[derive(Clone, Debug)]
pub struct CommandLine {
    program: PathBuf,
    config: Option<PathBuf>,
}

/// What a command did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed as data.
    pub stdout: String,
    /// Everything else that it printed.
    pub stderr: String,
}

impl Outcome {
    /// The one JSON document on standard output; null when there is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_default()
    }

    /// The one JSON document on standard error; null when there is none.
    pub fn problem(&self) -> Value {
        serde_json::from_str(&self.stderr).unwrap_or_default()
    }
}

impl CommandLine {
    /// `program`, without an instance.
    pub fn new(program: &Path) -> Self {
        Self { program: program.to_owned(), config: None }
    }

    /// `program -c config`.
    pub fn of(program: &Path, config: &Path) -> Self {
        Self { program: program.to_owned(), config: Some(config.to_owned()) }
    }

    /// The binary.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// How a person in the configuration's folder would write it, for a log or a page.
    pub fn written(&self, arguments: &[&str]) -> String {
        let folder = self.config.as_deref().and_then(Path::parent).map(|folder| format!("{}/", folder.display()));
        let config = self.config.as_deref().and_then(Path::file_name).map(|name| format!(" -c {}", name.display()));
        let quoted = arguments.iter().map(|argument| {
            let argument = folder.as_deref().and_then(|folder| argument.strip_prefix(folder)).unwrap_or(argument);
            if argument.contains([' ', '?', '&']) { format!("'{argument}'") } else { argument.to_owned() }
        });
        format!("p2pid{} {}", config.unwrap_or_default(), quoted.collect::<Vec<_>>().join(" "))
    }

    /// Runs a command to its end with `line` on standard input.
    ///
    /// # Errors
    /// When it cannot be started or read. A command that fails is no error here: [`Outcome::status`] says so.
    pub async fn run(&self, arguments: &[&str], line: Option<&str>) -> io::Result<Outcome> {
        let mut command = Command::new(&self.program);
        // Not by `-c`, which the commands that it tells of would repeat, with a path that is too long to read.
        match &self.config {
            Some(config) => command.env("P2PID_CONFIG", config),
            None => command.env_remove("P2PID_CONFIG"),
        };
        let mut child = command
            .args(arguments)
            .stdin(if line.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let (Some(line), Some(mut stdin)) = (line, child.stdin.take()) {
            // A command that refuses its arguments does not read.
            let _ = stdin.write_all(format!("{line}\n").as_bytes()).await;
        }
        let output = child.wait_with_output().await?;
        Ok(Outcome {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}
