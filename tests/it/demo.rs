//! The demo, as somebody runs it who has just heard of p2pid.

use std::path::{Path, PathBuf};

use p2pid::cli::demo::command::CommandLine;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::world::patience::{eventually, within};

const PROGRAM: &str = env!("CARGO_BIN_EXE_p2pid");

#[tokio::test]
async fn the_demo_tells_the_whole_story_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let demo = CommandLine::new(Path::new("/usr/bin/env"));
    let place = format!("TMPDIR={}", folder.path().display());
    let outcome = within("the demo to end", demo.run(&[&place, PROGRAM, "--json", "demo"], None)).await.expect("it starts");
    assert!(outcome.status.success(), "{}", outcome.stderr);
    let told = outcome.json();
    let seen = told["steps"].to_string();
    for word in ["p2pid -c instance1.toml peer request instance2", "/oauth/callback", "200 OK", "instance2 is linked"] {
        assert!(seen.contains(word), "{word} is not told: {seen}");
    }
    assert!(left_in(folder.path()).is_empty(), "{:?}", left_in(folder.path()));
}

#[tokio::test]
async fn a_demo_that_serves_ends_in_order_when_it_is_interrupted() {
    serves_and_ends_by(Signal::INT, true).await;
}

#[tokio::test]
async fn the_daemons_of_a_demo_that_was_killed_end_with_it() {
    serves_and_ends_by(Signal::KILL, false).await;
}

async fn serves_and_ends_by(signal: Signal, in_order: bool) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut demo = Command::new(PROGRAM)
        .args(["demo", "--serve"])
        .env("TMPDIR", folder.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(demo.stdout.take().expect("a pipe")).lines();
    within("the demo to say how to call", async {
        while let Some(line) = lines.next_line().await.expect("text") {
            if line.contains("call      curl") {
                return;
            }
        }
        panic!("the demo ended before it served");
    })
    .await;
    let id = demo.id().expect("it runs");
    let daemons = children_of(id);
    assert_eq!(daemons.len(), 2, "two daemons");
    let pid = Pid::from_raw(i32::try_from(id).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("it can be signalled");
    let status = within("the demo to end", demo.wait()).await.expect("it can be waited for");
    assert_eq!(status.success(), in_order, "{status}");
    eventually("its daemons to be gone", async || daemons.iter().all(|id| !is_running(*id)).then_some(())).await;
    if in_order {
        assert!(left_in(folder.path()).is_empty(), "{:?}", left_in(folder.path()));
    }
}

fn children_of(id: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("a process");
    children.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

fn is_running(id: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    state.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}

fn left_in(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path()).collect()
}
