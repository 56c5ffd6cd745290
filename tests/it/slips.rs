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
        (&["ib", "create", "two", "--peer-url", "http://two.example"], "--peer-url is wrong", "give another --peer-url"),
        (&["ib", "create", "two"], "--peer-url is missing", "add --peer-url URL, or --redirect-uri U"),
        (&["ib", "create", "two", "--redirect-uri", "http://two.example"], "--redirect-uri is wrong", "give another --redirect-uri"),
        (&["ib", "create", "two", "--peer-url", url, "--mtls"], "--mtls is wrong", "set [mtls] listen and public_url"),
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
    let alone = one.refuses(&["ib", "create", "two", "--redirect-uri", url, "--grant", "refresh_token"]).await;
    says(&alone["message"], "(--grant) has nothing to renew");
    says(&alone["next"], "add --grant authorization_code");
    let both = ["ib", "create", "itself", "--grant", "client_credentials", "--grant", "refresh_token"];
    let warned = one.tries(&both, None).await;
    assert!(warned.status.success(), "{}", warned.stderr);
    says(&warned.problem()["warnings"][0], "client_credentials gives none");
    for (command, flag) in [
        (&["ib", "create", "two", "--access-ttl", "bad"][..], "--access-ttl"),
        (&["ib", "rotate-secret", "two", "--overlap", "5"], "--overlap"),
    ] {
        let outcome = one.tries(command, None).await;
        assert_eq!(outcome.status.code(), Some(2));
        let message = outcome.problem()["error"]["message"].to_string();
        assert!(message.contains(flag) && message.contains("such as 60s"), "{message}");
    }
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
    let deleted = one.says(&["user", "delete", "alice", "--yes"]).await.stderr;
    assert!(deleted.contains("deleted the user alice") && !deleted.contains("goes on"), "alice allowed nothing: {deleted}");
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

#[tokio::test]
async fn a_yes_is_asked_for_once_there_is_something_to_lose() {
    let one = Process::running("one").await;
    for command in [
        &["peer", "delete", "nope"][..],
        &["peer", "unlink", "nope"],
        &["ib", "delete", "nope", "--force"],
        &["user", "delete", "nope@one.example", "--revoke-grants"],
        &["user", "key-revoke", "nope@one.example", "nope"],
        &["role", "delete", "nope", "--force"],
        &["grant", "revoke", "00000000000000000000000000000000"],
        &["realm", "role", "nope", "nope", "--delete"],
    ] {
        assert_eq!(one.refuses(command).await["code"], "not_found", "{command:?}");
    }
    one.runs(&["realm", "create", "Portal"]).await;
    assert_eq!(one.refuses(&["realm", "role", "Portal", "nope", "--delete"]).await["code"], "not_found");
    one.runs(&["ib", "create", "two", "--peer-url", "https://two.example"]).await;
    let asked = one.tries(&["ib", "delete", "two"], None).await;
    assert_eq!((asked.status.code(), &asked.problem()["error"]["next"]), (Some(2), &"add --yes".into()));
    one.runs(&["realm", "role", "Portal", "READER"]).await;
    let listed = one.says(&["realm", "list"]).await.stdout;
    assert!(listed.contains("READER (0)") && !listed.contains("users"), "{listed}");
}

#[tokio::test]
async fn a_new_password_of_the_wrong_length_is_not_called_wrong() {
    let one = Process::running("one").await;
    for (password, message) in [("short", "the new password is too short"), (&"x".repeat(129), "the new password is too long")] {
        let create = ["user", "add", "ops@one.example", "--password-stdin"];
        let refused = one.tries(&create, Some(password)).await.problem()["error"].clone();
        assert_eq!((&refused["message"], &refused["expected"]), (&message.into(), &"8 to 128 characters".into()), "{refused}");
    }
    one.is_told(&["user", "add", "bot", "--password-stdin"], "correct horse battery").await;
    let key = one.says(&["user", "key", "bot"]).await;
    assert!(
        key.stderr.contains("warning: bot has no rights") && key.stderr.contains("p2pid user update bot --permission P"),
        "{}",
        key.stderr
    );
    one.runs(&["user", "update", "bot", "--permission", "peers.get"]).await;
    assert!(!one.says(&["user", "key", "bot"]).await.stderr.contains("no rights"));
}

#[tokio::test]
async fn a_grant_that_is_revoked_twice_had_ended_before() {
    let pair = Pair::linked("1h").await;
    let id = pair.two.runs(&["grant", "list"]).await[0]["id"].as_str().expect("one grant").to_owned();
    let revoke = ["grant", "revoke", id.as_str(), "--yes"];
    let first = pair.two.says(&revoke).await.stderr;
    assert!(first.contains("its tokens are refused from now on"), "{first}");
    let again = pair.two.says(&revoke).await.stderr;
    assert!(again.contains("had ended before, 20") && again.contains("revoked by admin, by ") && !again.contains("from now on"), "{again}");
    assert!(pair.two.runs(&revoke).await["ended_before"].is_string());
}

#[tokio::test]
async fn who_was_deleted_at_the_peer_is_told_of_it_in_the_page_the_wait_and_the_state() {
    let mut pair = Pair::linked("1h").await;
    pair.two.runs(&["ib", "delete", "one", "--force", "--yes"]).await;
    let _ = pair.calls().await;
    let reason = |peer: &Value| peer["reason"].as_str().unwrap_or_default().to_owned();
    let told = reason(&pair.one.runs(&["peer", "show", "two"]).await);
    for words in ["If the secret is another one now", "If the app was deleted there", "then `p2pid ob update two --client-id ID"] {
        assert!(told.contains(words), "{words:?} in {told}");
    }
    assert!(told.contains("and `p2pid peer request two`"), "{told}");

    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_p2pid"));
    command.arg("-c").arg(pair.one.settings.config()).args(["peer", "request", "two", "--wait", "--timeout", "4s"]);
    let mut waiting = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().expect("it starts");
    let mut url = String::new();
    let mut stdout = tokio::io::BufReader::new(waiting.stdout.take().expect("a pipe"));
    tokio::io::AsyncBufReadExt::read_line(&mut stdout, &mut url).await.expect("a line");
    let page = pair.operator.opens(url.trim()).continues().await;
    assert_eq!(page.status, 502, "{}", page.text());
    let ended = waiting.wait_with_output().await.expect("it ends");
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.contains("opened 20") && told.contains("the peer refuses our client id or secret"), "{told}");
    assert!(told.contains("Once that is mended the same URL can be opened again"), "{told}");
}

#[tokio::test]
async fn a_command_that_is_told_can_be_typed_as_it_stands() {
    let one = Process::running("one").await;
    let config = one.settings.config();
    let config = config.to_str().expect("UTF-8");
    let types = async |options: &[&str], arguments: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_p2pid"));
        command.args(options).args(arguments).env_remove("P2PID_CONFIG").stdin(std::process::Stdio::null());
        let outcome = command.output().await.expect("the binary can be started");
        format!("{}{}", String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr))
    };
    let told = types(&["-c", config], &["peer", "list"]).await;
    assert!(told.contains(&format!("p2pid -c {config} peer create NAME")), "{told}");
    one.runs(&["tenant", "create", "sales"]).await;
    let told = types(&["-c", config, "--tenant", "sales"], &["role", "create", "clerk", "--permission", "peers.get"]).await;
    assert!(told.contains(&format!("p2pid -c {config} --tenant sales user update LOGIN --role clerk")), "{told}");
    let told = types(&["-c", config], &["peer", "show", "nope"]).await;
    assert!(told.contains(&format!("p2pid -c {config} peer list")), "a refusal too: {told}");
    let create = ["ib", "create", "two", "--peer-url", "https://two.example", "--scope", "p2pi"];
    let told = types(&["-c", config], &create).await;
    assert!(told.contains("On two:  p2pid peer create one --url"), "the other host has files of its own: {told}");
    let again = types(&["-c", config], &[&create[..], &["--or-update"]].concat()).await;
    assert!(again.contains(" --or-update\n") && again.contains(&format!("p2pid -c {config} ib rotate-secret two")), "{again}");
    let told = types(&["-c", config, "--json"], &["peer", "show", "nope"]).await;
    assert!(told.contains(r#""next":"p2pid peer list""#), "programs read what they know: {told}");
}
