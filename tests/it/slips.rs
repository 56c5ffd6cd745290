//! Slips of the pen and of the order: what each command says then, in the words of the command line.

use serde_json::Value;

use crate::world::pair::Pair;
use crate::world::process::Process;

fn says(value: &Value, words: &str) {
    assert!(value.as_str().is_some_and(|text| text.contains(words)), "{words:?} in {value}");
}

#[tokio::test]
async fn names_that_are_nobodys_are_refused_where_they_select() {
    let one = Process::running("one").await;
    for (command, next) in [
        (&["grant", "list", "--app", "nope"][..], "p2pid ib list"),
        (&["grant", "list", "--allowed-by", "nobody@one.example", "--all"], "p2pid user list"),
        (&["audit", "--record", "nope"], "p2pid audit"),
        (&["peer", "request", "two"], "p2pid peer create two --url URL --client-id ID"),
    ] {
        let refused = one.refuses(command).await;
        assert_eq!(refused["code"], "not_found", "{command:?}: {refused}");
        says(&refused["next"], next);
    }
    for (command, flag) in [(["grant", "list", "--app", ""], "--app"), (["audit", "--limit=5", "--record", ""], "--record")] {
        let refused = one.refuses(&command).await;
        assert_eq!(refused["message"], format!("{flag} is wrong"), "a variable that is not set: {refused}");
    }
    one.runs(&["ib", "create", "two", "--peer-url", "https://two.example"]).await;
    assert_eq!(one.runs(&["grant", "list", "--app", "two"]).await, serde_json::json!([]));
    assert_eq!(one.runs(&["audit", "--record", "two"]).await.as_array().map(Vec::len), Some(1));
    let quiet = ["audit", "--record", "two", "--until", "2001-01-01T00:00:00Z"];
    assert_eq!(one.runs(&quiet).await, serde_json::json!([]), "a record that is known did nothing then");
}

#[tokio::test]
async fn attributes_go_by_their_flags() {
    let one = Process::running("one").await;
    let url = "https://two.example";
    for (command, message, next) in [
        (&["ib", "create", "two", "--peer-url", url, "--scope", "nowhere"][..], "--scope is wrong", "give another --scope"),
        (&["ib", "create", "two", "--peer-url", url, "--grant", "nonsense"], "--grant is wrong", "give another --grant"),
        (&["ib", "create", "two", "--peer-url", "nowhere"], "--peer-url is wrong", "give another --peer-url"),
        (&["ib", "create", "two", "--redirect-uri", "http://two.example"], "--redirect-uri is wrong", "give another --redirect-uri"),
        (&["ib", "create", "a/b", "--peer-url", url], "NAME is wrong", "give another NAME"),
        (&["peer", "create", "two", "--url", url, "--pin", "abc"], "--pin is wrong", "give another --pin"),
        (&["peer", "create", "two", "--url", url, "--scope", "p2pi"], "--client-id is missing", "--auth-method private_key_jwt"),
    ] {
        let refused = one.refuses(command).await;
        assert_eq!(refused["message"], message, "{command:?}: {refused}");
        says(&refused["next"], next);
        assert!(!refused["found"].to_string().contains("another text"), "what was found: {refused}");
    }
    let secret = ["ib", "create", "two", "--peer-url", url, "--client-secret-stdin"];
    let refused = one.tries(&secret, Some(&"s".repeat(129))).await.problem()["error"].clone();
    assert_eq!((&refused["message"], &refused["found"]), (&"--client-secret-stdin is wrong".into(), &"129 characters".into()));
    let missing = one.refuses(&["peer", "create", "two", "--url", url, "--ca", "/nonexistent/ca.pem"]).await;
    says(&missing["message"], "/nonexistent/ca.pem cannot be read");
    says(&missing["found"], "No such file");
    assert!(missing["expected"].is_string() && missing["next"].is_string(), "{missing}");
}

#[tokio::test]
async fn a_configuration_that_is_not_there_is_what_is_wrong() {
    let mut one = Process::running("one").await;
    let config = one.settings.config();
    let gone = config.with_file_name("typo.toml");
    let elsewhere = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_p2pid"));
        command.arg("-c").arg(&gone).arg("--json").args(arguments).output().await.expect("the binary can be started")
    };
    let outcome = elsewhere(&["status"]).await;
    let told: Value = serde_json::from_slice(&outcome.stderr).expect("one document");
    assert_eq!((outcome.status.code(), &told["error"]["code"]), (Some(78), &"configuration".into()), "{told}");
    says(&told["error"]["message"], "typo.toml");
    assert_eq!(elsewhere(&["doctor"]).await.status.code(), Some(1), "a doctor looks, and says what is not well");
    // With the socket nothing else is needed.
    let socket = one.settings.socket();
    assert!(elsewhere(&["--socket", socket.to_str().expect("ASCII"), "status"]).await.status.success());
    one.is_stopped().await;
    assert_eq!(one.refuses(&["status"]).await["code"], "not_running", "the file is there");
}

#[tokio::test]
async fn the_next_step_is_one_that_can_be_taken() {
    let one = Process::running("one").await;
    let added = async |flags: &[&str]| {
        let create = [&["user", "add", "--password-stdin"], flags].concat();
        one.is_told(&create, "correct horse battery").await.stderr
    };
    let alice = added(&["alice"]).await;
    assert!(alice.contains("realm assign") && !alice.contains("ib create"), "{alice}");
    assert!(added(&["ops", "--permission", "links.approve"]).await.contains("p2pid ib create"));
    assert!(added(&["boss", "--admin"]).await.contains("p2pid ib create"));
    assert!(added(&["bot", "--permission", "peers.get"]).await.contains("p2pid user key bot"));
    one.runs(&["caller", "add", "shop"]).await;
    let callers = one.says(&["caller", "list"]).await.stdout;
    let row = callers.lines().nth(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(row, Some(vec!["shop", "all"]), "{callers}");
    assert_eq!(one.runs(&["caller", "list"]).await[0]["peers"], Value::Null);
}

#[tokio::test]
async fn a_wait_that_ends_early_says_what_the_url_is_good_for() {
    let mut pair = Pair::introduced("1h").await;
    let waits = ["peer", "request", "two", "--wait", "--timeout", "1ms"];
    says(&pair.one.tries(&waits, None).await.problem()["error"]["next"], "it stays good until 2");
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_p2pid"));
    command.arg("-c").arg(pair.one.settings.config()).args(["--json", "peer", "request", "two", "--wait", "--timeout", "3s"]);
    let mut waiting = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    let mut stdout = tokio::io::BufReader::new(waiting.stdout.take().expect("a pipe"));
    tokio::io::AsyncBufReadExt::read_line(&mut stdout, &mut line).await.expect("a line");
    let url = serde_json::from_str::<Value>(&line).expect("a document")["url"].as_str().expect("a URL").to_owned();
    let _ = pair.operator.opens(&url).continues().await;
    let ended = waiting.wait_with_output().await.expect("it ends");
    let error: Value = serde_json::from_slice(&ended.stderr).expect("one document");
    says(&error["error"]["found"], "somebody has used");
    says(&error["error"]["next"], "p2pid peer request two");
}
