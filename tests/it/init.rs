//! `init`, `check` and `config example`, as somebody at a terminal or a script sees them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn p2pid(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_p2pid")).args(arguments).env_remove("P2PID_CONFIG").output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("it exists").permissions().mode() & 0o777
}

#[test]
fn what_init_writes_passes_check_as_it_stands() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().to_str().expect("UTF-8");
    let cases: [(&str, &[&str]); 4] = [
        ("one", &["--public-url", "https://one.example.com:7443", "--upstream", "http://127.0.0.1:8080/app"]),
        ("two", &["--public-url", "https://two.example.com/", "--tls", "self-signed"]),
        ("three.example-3", &["--public-url", "https://127.0.0.1:7445"]),
        ("four", &["--public-url", "http://localhost:7446"]),
    ];
    let mut ports = Vec::new();
    for (name, options) in cases {
        let made = p2pid(&[&["init", name, "--dir", directory, "--json"], options].concat());
        assert!(made.status.success(), "{name}: {}", text(&made.stderr));
        let document = json(&made.stdout);
        ports.push(document["local"][0].to_string());
        ports.push(document["console"][0].to_string());
        let file = document["file"].as_str().expect("a path");
        let checked = p2pid(&["-c", file, "check", "--json"]);
        assert_eq!(checked.status.code(), Some(0), "{name}: {}", text(&checked.stderr));
        assert_eq!(json(&checked.stdout)["errors"], Value::Array(Vec::new()));
        assert_eq!(mode(Path::new(file)), 0o640);
        assert_eq!(mode(&folder.path().join(name)), 0o700);
        assert_eq!(mode(&folder.path().join(name).join("key")), 0o600);
    }
    let different = ports.iter().collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(different, ports.len(), "no two instances share a port: {ports:?}");
}

#[test]
fn init_overwrites_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().to_str().expect("UTF-8");
    let init = ["init", "one", "--public-url", "https://one.example.com", "--dir", directory];
    assert!(p2pid(&init).status.success());
    let (file, key) = (folder.path().join("one.toml"), folder.path().join("one/key"));
    let before = (std::fs::read(&file).expect("a file"), std::fs::read(&key).expect("a key"));
    let again = p2pid(&[&init[..], &["--json"]].concat());
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(json(&again.stderr)["error"]["code"], "exists");
    assert!(again.stdout.is_empty());
    std::fs::remove_file(&file).expect("removed");
    assert!(p2pid(&init).status.success(), "the file again, beside the old key");
    assert_eq!((std::fs::read(&file).expect("a file"), std::fs::read(&key).expect("a key")), before);
    let names: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(names.len(), 2, "no draft is left: {names:?}");
}

#[test]
fn init_refuses_what_makes_no_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().to_str().expect("UTF-8");
    let cases: [&[&str]; 8] = [
        &["../x", "--public-url", "https://one.example.com"],
        &["one", "--public-url", "one.example.com"],
        &["one", "--public-url", "ftp://one.example.com"],
        &["one", "--public-url", "https://one.example.com?x=1"],
        &["one", "--public-url", "http://one.example.com"],
        &["one", "--public-url", "https://one.example.com", "--upstream", "nowhere"],
        &["one", "--public-url", "https://one.example.com", "--tls", "cert.pem"],
        &["one", "--public-url", "https://one.example.com", "--tls", "none.pem,none.pem"],
    ];
    for case in cases {
        let refused = p2pid(&[&["init", "--dir", directory], case].concat());
        assert_eq!(refused.status.code(), Some(2), "{case:?}: {}", text(&refused.stderr));
        assert!(text(&refused.stderr).contains("found"), "{case:?}: {}", text(&refused.stderr));
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "{case:?} left something");
    }
}

#[test]
fn check_says_everything_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("one.toml");
    std::fs::write(&file, "[instance]\nname = 1\npublic_url = \"https://one.example.com\"\n[public]\ntls = \"self-signed\"\nsize = 2\n")
        .expect("a file");
    let file = file.to_str().expect("UTF-8");
    let checked = p2pid(&["-c", file, "check"]);
    assert_eq!(checked.status.code(), Some(78));
    assert!(checked.stdout.is_empty());
    let said = text(&checked.stderr);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with(&format!("{file}:2:8: instance.name: found the number 1, expected a name")), "{said}");
    assert!(lines[1].starts_with(&format!("{file}:6:1: public.size: found an unknown key, expected one of listen")), "{said}");
    assert_eq!(lines.len(), 2, "{said}");
    let checked = p2pid(&["-c", file, "check", "--json"]);
    assert_eq!(checked.status.code(), Some(78));
    let document = json(&checked.stderr);
    assert_eq!(document["error"]["code"], "configuration");
    assert_eq!(document["errors"][1]["key"], "public.size");
    assert_eq!((&document["errors"][1]["line"], &document["errors"][1]["column"]), (&6.into(), &1.into()));
}

#[test]
fn config_example_prints_the_shipped_file() {
    let shipped = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/config/p2pid.toml")).expect("the shipped file");
    let printed = p2pid(&["config", "example"]);
    assert!(printed.status.success());
    assert_eq!(text(&printed.stdout), text(&shipped));
}
