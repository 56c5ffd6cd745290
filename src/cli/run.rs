//! `p2pid run`: the daemon.

use std::sync::Arc;

use super::context::Context;
use super::failure::Failure;
use crate::config;
use crate::daemon::{self, StartError};
use crate::net::cores::STACK_BYTES;
use crate::net::files;
use crate::observe::log;
use crate::system::{SystemClock, SystemRandom};

/// Connections of peers and applications have threads of their own (`net::cores`); these keep tokens fresh and answer operators.
const OWN_THREADS: usize = 2;
/// Threads for work that blocks: passwords, names, files.
const BLOCKING_THREADS: usize = 16;

/// Runs until a signal ends it.
pub(super) fn run(context: &Context<'_>) -> Result<(), Failure> {
    // Whole, since `status` shows it to people who stand elsewhere.
    let file = context.selection.file()?;
    let file = std::path::absolute(&file).unwrap_or(file);
    let loaded = config::load(&file).map_err(|problems| Failure::from(&problems))?;
    log::start().map_err(|error| Failure::usage(error.to_string()))?;
    files::raise();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(OWN_THREADS)
        .thread_name("p2pid")
        .thread_stack_size(STACK_BYTES)
        .max_blocking_threads(BLOCKING_THREADS)
        .build();
    let runtime = runtime.map_err(|error| Failure::new("system", format!("this system gives no threads: {error}")))?;
    runtime.block_on(async {
        let running = daemon::start(loaded, Arc::new(SystemClock::new()), Arc::new(SystemRandom)).await.map_err(not_started)?;
        daemon::run(running)
            .await
            .map_err(|reason| Failure::new("store_lost", reason).next("systemd starts it again by itself; by hand: p2pid run"))
    })
}

fn not_started(error: StartError) -> Failure {
    if error.is_configuration() {
        return Failure::configuration(error.to_string());
    }
    let why = error.explanation();
    why.map_or_else(|| Failure::new("not_started", error.to_string()), Failure::from)
}
