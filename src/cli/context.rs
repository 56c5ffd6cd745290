//! What every command is handed: how it reports, which instance it means, and the way to its daemon.

use std::cell::OnceCell;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::client::Client;
use super::failure::Failure;
use super::report::Report;
use super::select::Selection;
use crate::config::{self, Located};

/// The tenant that exists from the start, meant when none is named.
pub(super) const DEFAULT_TENANT: &str = "default";

/// One command's surroundings.
#[derive(Debug)]
pub(super) struct Context<'a> {
    /// Where it prints.
    pub(super) report: &'a Report,
    /// Which instance it means.
    pub(super) selection: Selection,
    tenant: Option<String>,
    client: OnceCell<Client>,
}

impl<'a> Context<'a> {
    /// For a command with these global options.
    pub(super) fn new(report: &'a Report, selection: Selection, tenant: Option<String>) -> Self {
        Self { report, selection, tenant, client: OnceCell::new() }
    }

    /// The tenant that is meant.
    pub(super) fn tenant(&self) -> &str {
        self.tenant.as_deref().unwrap_or(DEFAULT_TENANT)
    }

    /// The tenant, when one was named.
    pub(super) fn given_tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// The way to the daemon. A configuration that is wrong or gone is warned of, once, and its socket used all the same.
    pub(super) fn client(&self) -> Result<&Client, Failure> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = Client::new(self.socket()?);
        Ok(self.client.get_or_init(|| client))
    }

    /// Where the instance keeps its state and its socket. What had to be guessed is warned of.
    pub(super) fn located(&self) -> Result<Located, Failure> {
        let located = config::locate(&self.selection.file()?);
        if let Some(warning) = &located.warning {
            self.report.warn(warning);
        }
        Ok(located)
    }

    fn socket(&self) -> Result<PathBuf, Failure> {
        match &self.selection.socket {
            Some(socket) => Ok(socket.clone()),
            None => {
                let (file, located) = (self.selection.file()?, config::locate(&self.selection.file()?));
                // A daemon outlives its file; without a daemon the file was meant to be there.
                if !file.exists() && UnixStream::connect(&located.socket).is_err() {
                    return Err(no_such_file(&file, &located.socket));
                }
                // What does not matter for finding the daemon matters to the daemon.
                if let (None, Err(problems)) = (&located.warning, config::load(&file)) {
                    let first = problems.iter().next().map(ToString::to_string).unwrap_or_default();
                    let more = problems.iter().len() - 1;
                    let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
                    self.report.warn(&format!("{first}{more}; a daemon that runs goes on with what it had. Next: p2pid check"));
                }
                Ok(self.located()?.socket)
            }
        }
    }
}

fn no_such_file(file: &Path, socket: &Path) -> Failure {
    let failure = Failure::configuration(format!("there is no configuration file {}", file.display()));
    let failure = failure.found(format!("no such file, and no daemon at {}", socket.display())).expected("the file of an instance");
    failure.next("name another with -c FILE or -i NAME, or make one: p2pid init NAME --public-url URL")
}
