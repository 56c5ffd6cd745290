//! `p2pid demo`: two real instances on loopback tell the whole story of a link.
//!
//! Everything that a person would do is done as a person would: commands through the binary's own command line, pages in a browser that
//! parses their forms, calls over HTTP. What is shown is what was seen.

pub mod application;
pub mod browser;
pub mod command;
pub mod daemon;
mod narrator;
mod stage;
mod story;

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use super::report::Report;
use narrator::Narrator;
use stage::{Stage, StageError};
use story::{Story, StoryError};

/// Show the whole story of a link: two real instances on this machine
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Keep both instances up afterwards and say what to open
    #[arg(long)]
    serve: bool,
    /// Become the daemon of this configuration, and end with the demo
    #[arg(long, hide = true, value_name = "FILE")]
    daemon: Option<PathBuf>,
}

/// Tells the story. Whatever was started ends before this returns.
pub(super) async fn run(demo: Demo, report: &Report) -> Result<(), Failure> {
    if let Some(config) = demo.daemon {
        let error = daemon::become_daemon(&config);
        return Err(Failure::new("not_started", format!("the daemon of {} cannot be started: {error}", config.display())));
    }
    let program = std::env::current_exe().map_err(|error| Failure::new("system", format!("this program does not find itself: {error}")))?;
    let narrator = Narrator::new(report);
    let mut stage = Stage::set(&program).await.map_err(|error| failed(error.into()))?;
    let outcome = tokio::select! {
        outcome = tell(&mut stage, &narrator, demo.serve) => outcome,
        () = interrupted() => Err(StoryError::Interrupted),
    };
    if let Err(error) = &outcome
        && !matches!(error, StoryError::Interrupted)
    {
        for side in [&stage.one, &stage.two] {
            report.note(&format!("── the last lines of {}'s log ──\n{}\n", side.name, side.log()));
        }
    }
    stage.clear().await;
    match outcome {
        Ok(()) => Ok(()),
        Err(StoryError::Interrupted) if demo.serve => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

async fn tell(stage: &mut Stage, narrator: &Narrator<'_>, serve: bool) -> Result<(), StoryError> {
    narrator.title("p2pid demo: two instances on this machine, linked as two hosts are");
    narrator.step("Two daemons start, on files that `p2pid init` wrote");
    for side in [&mut stage.one, &mut stage.two] {
        let ready_after = side.start().await?;
        narrator.fact(&format!("{}  {}  ready after {} ms", side.name, side.public_url, ready_after.as_millis()));
    }
    let mut story = Story::begin(stage, narrator)?;
    story.people_and_clients().await?;
    story.peer().await?;
    story.link().await?;
    story.call().await?;
    story.refresh().await?;
    story.status().await?;
    narrator.end("The whole story took");
    if serve {
        story.invite().await?;
        std::future::pending::<()>().await;
    }
    Ok(())
}

fn failed(error: StoryError) -> Failure {
    Failure::new("demo", format!("the demo did not get to its end: {error}"))
}

/// Ctrl-C, or SIGTERM.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => (),
        _ = terminate.recv() => (),
    }
}

impl From<StageError> for StoryError {
    fn from(error: StageError) -> Self {
        Self::Stage(error)
    }
}
