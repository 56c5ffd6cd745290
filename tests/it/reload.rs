//! Changed configurations, certificates and signals, as a running process takes them.

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;

use crate::world::patience::{eventually, within};
use crate::world::process::Process;
use crate::world::settings::request;
use crate::world::wire::{Wire, trusting};

async fn config_of(process: &Process) -> Value {
    process.runs(&["status"]).await["config"].clone()
}

/// Waits until `status` shows a refused change.
async fn refusal(process: &Process) -> String {
    eventually("a refused configuration", async || config_of(process).await["error"].as_str().map(str::to_owned)).await
}

#[tokio::test]
async fn a_wrong_change_is_refused_as_a_whole_and_status_says_where() {
    let one = Process::running("one").await;
    let before = config_of(&one).await;
    assert_eq!((&before["file"], &before["error"]), (&json!(one.settings.config()), &Value::Null));
    one.settings.says("a.toml", "[compat]\nquery_token = true\n[limits]\ndrain = 5\n");
    let error = refusal(&one).await;
    assert!(error.contains("one.d/a.toml:4: limits.drain: found the number 5, expected a duration"), "{error}");
    let refused = one.refuses(&["reload"]).await;
    assert_eq!(refused["code"], "configuration");
    assert!(refused["found"].as_str().is_some_and(|found| found.contains("a.toml:4:9: limits.drain")), "{refused}");
    assert!(one.log().contains("a.toml:4"), "the log says which line");
    one.settings.says("a.toml", "[limits]\ndrain = \"5s\"\n");
    eventually("the corrected configuration", async || config_of(&one).await["error"].is_null().then_some(())).await;
    assert_eq!(one.runs(&["reload"]).await["restart_needed"], json!([]));
}

#[tokio::test]
async fn what_needs_a_restart_is_named() {
    let one = Process::running("one").await;
    one.settings.says("a.toml", "[instance]\nname = \"uno\"\n[local]\nlisten = []\n[limits]\ndrain = \"3s\"\n");
    assert_eq!(one.runs(&["reload"]).await["restart_needed"], json!(["instance.name", "local.listen"]));
    assert_eq!(config_of(&one).await["restart_needed"], json!(["instance.name", "local.listen"]));
    assert_eq!(one.runs(&["status"]).await["instance"], "one");
    let said = one.says(&["reload"]).await;
    assert!(said.stderr.contains("instance.name local.listen"), "{}", said.stderr);
}

#[tokio::test]
async fn sighup_reads_the_configuration_again() {
    let one = Process::running("one").await;
    one.daemon().signal(Signal::HUP);
    eventually("a configuration to be read", async || one.log().contains("configuration read").then_some(())).await;
    std::fs::remove_file(one.settings.config()).expect("removed");
    one.daemon().signal(Signal::HUP);
    // Commands find the socket through --socket: the file that names it is gone.
    let socket = one.settings.socket();
    let status = async || one.runs(&["--socket", socket.to_str().expect("UTF-8"), "status"]).await;
    let error = eventually("the missing file to be told", async || status().await["config"]["error"].as_str().map(str::to_owned)).await;
    assert!(error.contains("one.toml:1: file: found no readable file"), "{error}");
}

/// Whether the console shows a certificate that somebody who trusts `authority` believes.
async fn is_shown(one: &Process, authority: &Path) -> bool {
    let tcp = within("a connection", tokio::net::TcpStream::connect(one.settings.console)).await.expect("a connection");
    let connector = TlsConnector::from(trusting(authority));
    within("a handshake", connector.connect(one.settings.console.ip().into(), tcp)).await.is_ok()
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_dropping_a_connection() {
    let mut one = Process::new("one").await;
    let folder = one.settings.folder().to_owned();
    let address = one.settings.console.ip().to_string();
    let renew = || {
        let pair = rcgen::generate_simple_self_signed([address.clone()]).expect("a certificate");
        std::fs::write(folder.join("cert.pem"), pair.cert.pem()).expect("a file");
        std::fs::write(folder.join("key.pem"), pair.signing_key.serialize_pem()).expect("a file");
    };
    renew();
    one.settings.says("a.toml", "[console]\ntls = { cert = \"cert.pem\", key = \"key.pem\" }\n");
    one.starts().await;
    let old = folder.join("old.pem");
    std::fs::copy(folder.join("cert.pem"), &old).expect("a copy");
    assert!(is_shown(&one, &old).await);
    let mut open = Wire::tls(one.settings.console, &old).await;
    let alive = request("GET", "/livez", &one.settings.console.to_string(), &[], "");
    assert_eq!(open.asks(&alive).await.status(), 200);

    renew();
    let new = folder.join("cert.pem");
    eventually("the renewed certificate", async || is_shown(&one, &new).await.then_some(())).await;
    assert!(!is_shown(&one, &old).await);
    assert_eq!(open.asks(&alive).await.status(), 200, "the connection from before goes on");
}
