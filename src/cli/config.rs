//! `config example`: the documented configuration.

use clap::Subcommand;
use serde_json::json;

use super::context::Context;
use super::failure::Failure;
use crate::config;

/// The configuration's documentation
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print a configuration with every key, its default and its meaning
    Example,
}

/// Prints what was asked for.
pub(super) fn run(command: &ConfigCommand, context: &Context<'_>) -> Result<(), Failure> {
    match command {
        ConfigCommand::Example => {
            let text = config::example();
            context.report.data(&json!({ "example": text }), || text.clone());
            Ok(())
        }
    }
}
