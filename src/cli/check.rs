//! `check`: validates the configuration without touching anything.

use std::io::IsTerminal;

use serde_json::json;

use super::context::Context;
use super::failure::Failure;
use crate::config;
use crate::net::files;

/// Loads the configuration that is meant and says everything that is wrong with it.
pub(super) fn run(context: &Context<'_>) -> Result<(), Failure> {
    let file = context.selection.file()?;
    let loaded = config::load(&file).map_err(|problems| {
        if std::io::stderr().is_terminal() {
            let color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            context.report.note(&format!("{}\n", problems.annotated(color)));
        }
        Failure::from(&problems)
    })?;
    if let Some(warning) = files::too_few(&loaded.config.limits, files::hard_limit()) {
        context.report.note(&format!("{}: as started from here: {warning}\n", file.display()));
    }
    let document = json!({ "file": file, "instance": loaded.config.instance.name, "errors": [] });
    context.report.data(&document, || format!("{}: the configuration of {} is fine\n", file.display(), loaded.config.instance.name));
    Ok(())
}
