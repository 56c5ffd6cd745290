//! The daemon as a service manager and a log collector see it: what it says on its socket, how it stops, what its log is.

use std::process::Stdio;

use p2pid::audit::Action;
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tokio::net::{TcpStream, UnixDatagram};

use crate::world::pair::Pair;
use crate::world::patience::{eventually, within};
use crate::world::process::Process;
use crate::world::wire::Wire;

/// The next message on a service manager's socket, as its assignments.
async fn hears(socket: &UnixDatagram, what: &str) -> Vec<(String, String)> {
    let mut message = [0; 4096];
    let length = within(what, socket.recv(&mut message)).await.expect("a datagram");
    let text = String::from_utf8_lossy(&message[..length]).into_owned();
    text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Waits for the message that says `name=1`.
async fn hears_of(socket: &UnixDatagram, name: &str) -> Vec<(String, String)> {
    loop {
        let said = hears(socket, name).await;
        if said.iter().any(|(key, value)| key == name && value == "1") {
            return said;
        }
    }
}

#[tokio::test]
async fn systemd_is_told_of_the_start_of_a_reload_and_of_the_stop() {
    let one = Process::new("one").await;
    let path = one.settings.folder().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket in our own folder");
    let mut daemon = tokio::process::Command::new(env!("CARGO_BIN_EXE_p2pid"));
    daemon.arg("-c").arg(one.settings.config()).arg("run").env("NOTIFY_SOCKET", &path).kill_on_drop(true);
    let mut daemon = daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary can be started");
    let id = daemon.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).expect("it runs");
    hears_of(&socket, "READY").await;
    for _ in 0..2 {
        rustix::process::kill_process(id, Signal::HUP).expect("it runs");
        let reloading = hears(&socket, "the reload").await;
        let value = |name: &str| reloading.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(value("RELOADING"), Some("1"), "{reloading:?}");
        let since = value("MONOTONIC_USEC").and_then(|text| text.parse::<i64>().ok()).expect("systemd wants to know when it began");
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        assert!(since > 0 && since <= now.tv_sec * 1_000_000 + now.tv_nsec / 1_000, "{since} is not before now");
        let ready = hears(&socket, "the end of the reload").await;
        assert!(ready.contains(&("READY".to_owned(), "1".to_owned())), "{ready:?}");
    }
    rustix::process::kill_process(id, Signal::TERM).expect("it runs");
    hears_of(&socket, "STOPPING").await;
    assert!(within("it to stop", daemon.wait()).await.expect("a child can be waited for").success());
}

#[tokio::test]
async fn sigterm_lets_a_call_under_way_finish_and_leaves_a_sound_database() {
    let mut pair = Pair::linked("1h").await;
    let (local, folder) = (pair.one.settings.local, pair.one.settings.state_dir());
    let mut wire = Wire::plain(local).await;
    let head = format!(
        "POST /two/echo HTTP/1.1\r\nHost: {local}\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
        pair.key
    );
    wire.sends(head).await;
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("first") {
        let bytes = wire.some_bytes(4096).await;
        assert!(!bytes.is_empty(), "it ended early: {}", String::from_utf8_lossy(&answer));
        answer.extend(bytes);
    }
    pair.one.daemon().signal(Signal::TERM);
    eventually("nobody else to be let in", async || TcpStream::connect(local).await.err()).await;
    wire.sends("6\r\nsecond\r\n0\r\n\r\n").await;
    while !String::from_utf8_lossy(&answer).ends_with("\r\n0\r\n\r\n") {
        let bytes = wire.some_bytes(4096).await;
        assert!(!bytes.is_empty(), "the call was cut off: {}", String::from_utf8_lossy(&answer));
        answer.extend(bytes);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("second"), "{answer}");
    pair.one.is_stopped().await;

    let database = rusqlite::Connection::open(folder.join("p2pid.db")).expect("the database is there");
    let sound: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("it can be read");
    assert_eq!(sound, "ok");
    assert!(!database.prepare("PRAGMA foreign_key_check").expect("it can be asked").exists([]).expect("it can be read"));
    drop(database);
    pair.one.starts().await;
    assert_eq!((pair.state().await.as_str(), pair.calls().await), ("linked", 200));
}

#[tokio::test]
async fn a_log_that_is_no_terminal_is_json_line_by_line() {
    let mut pair = Pair::linked("1h").await;
    assert_eq!(pair.calls().await, 200);
    pair.one.daemon().signal(Signal::HUP);
    eventually("the reload in the log", async || pair.one.log().contains("configuration read").then_some(())).await;
    pair.one.is_stopped().await;
    pair.two.is_stopped().await;
    for process in [&pair.one, &pair.two] {
        let log = process.log();
        assert!(log.lines().count() > 3, "{log}");
        for line in log.lines() {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(["timestamp", "level", "target"].iter().all(|member| event[member].is_string()), "{line}");
            assert!(event["message"].is_string() || event["event"].is_string(), "it says what happened: {line}");
            let name = event["event"].as_str();
            assert!(name.is_none_or(|name| Action::named(name).is_some()), "as the audit calls it: {line}");
        }
    }
}
