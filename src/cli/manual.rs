//! `p2pid completions` and `p2pid man`: what shells and `man` want to know of the command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde_json::json;

use super::context::Context;
use super::failure::Failure;

/// Print a completion script
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// For which shell
    shell: Shell,
}

/// Write manual pages
#[derive(Debug, Args)]
pub(super) struct Man {
    /// Into which folder, as in /usr/share/man/man1
    directory: PathBuf,
}

/// Prints the script.
pub(super) fn completions(command: &Completions, context: &Context<'_>) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(command.shell, &mut super::Arguments::command(), "p2pid", &mut script);
    let script = String::from_utf8(script).map_err(|_| Failure::new("internal", "the script is not text"))?;
    context.report.data(&json!({ "shell": command.shell.to_string(), "script": script }), || script.clone());
    Ok(())
}

/// Writes a page for the program and one for each of its commands.
pub(super) fn man(command: &Man, context: &Context<'_>) -> Result<(), Failure> {
    let directory = &command.directory;
    let written = std::fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(super::Arguments::command(), directory));
    written.map_err(|error| Failure::new("file", format!("{} cannot be written: {error}", directory.display())))?;
    context.report.data(&json!({ "directory": directory }), String::new);
    context.report.note(&format!("wrote the pages to {}; read them with man -l", directory.display()));
    Ok(())
}
