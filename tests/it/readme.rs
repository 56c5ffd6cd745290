//! The README taken at its word: its commands exist, and its walk through two instances on one machine ends with a call.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use p2pid::cli::demo::application::Application;
use p2pid::cli::demo::command::{CommandLine, Outcome};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::world::address::{free_ports, own_address};
use crate::world::patience::{eventually, within};
use crate::world::person::Person;

const README: &str = include_str!("../../README.md");
const PROGRAM: &str = env!("CARGO_BIN_EXE_p2pid");
const PASSWORD: &str = "correct horse battery";

/// The lines of the first block under a heading, without their remarks.
fn block(heading: &str) -> Vec<&'static str> {
    let (_, section) = README.split_once(heading).unwrap_or_else(|| panic!("the README has no {heading:?}"));
    let block = section.split("```").nth(1).expect("a block under the heading");
    block.lines().map(|line| line.split("  #").next().unwrap_or_default().trim()).filter(|line| !line.is_empty()).collect()
}

/// Every command of the README, in its blocks and in its sentences, as words behind `p2pid`.
fn commands() -> Vec<Vec<&'static str>> {
    let blocks = README.split("```").skip(1).step_by(2);
    let sentences = README.split("```").step_by(2);
    let of_blocks = blocks.flat_map(str::lines).filter_map(|line| line.split_once("# p2pid ").map(|(_, command)| command));
    let of_sentences = sentences.flat_map(|text| text.split('`').skip(1).step_by(2)).filter_map(|code| code.strip_prefix("p2pid "));
    of_blocks.chain(of_sentences).map(|command| command.split("  ").next().unwrap_or_default().split_whitespace().collect()).collect()
}

/// Not that each is complete: sentences name a command with the flag that they are about.
#[test]
fn every_command_and_flag_of_the_readme_exists() {
    let commands = commands();
    assert!(commands.len() > 25, "{commands:?}");
    for words in commands {
        // An ellipsis stands for what the reader puts there.
        let words = words.iter().map(|word| if word.ends_with('…') { "x" } else { *word });
        let output = std::process::Command::new(PROGRAM).args(words.clone()).arg("--help").env_remove("P2PID_CONFIG").output();
        let output = output.expect("the binary can be started");
        assert!(output.status.success(), "p2pid {:?}: {}", words.collect::<Vec<_>>(), String::from_utf8_lossy(&output.stderr));
    }
}

/// Who follows the README: what was set up so far.
struct Reader {
    aliases: BTreeMap<&'static str, CommandLine>,
    daemons: Vec<Child>,
    client: Option<(String, String)>,
    operator: Person,
}

impl Reader {
    /// Runs a command that must succeed.
    async fn runs(&self, who: &str, arguments: &[&str], line: Option<&str>) -> Outcome {
        let outcome = within("a command to end", self.aliases[who].run(arguments, line)).await.expect("the binary can be started");
        assert!(outcome.status.success(), "{who} {arguments:?}: {}", outcome.stderr);
        outcome
    }

    /// `run` in the background, until it answers.
    async fn starts(&mut self, who: &str, config: &str) {
        let run = Command::new(PROGRAM).args(["-c", config, "run"]).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn();
        self.daemons.push(run.expect("the binary can be started"));
        let commands = &self.aliases[who];
        eventually("the daemon to be ready", async || {
            commands.run(&["status"], None).await.is_ok_and(|outcome| outcome.status.success()).then_some(())
        })
        .await;
    }

    /// `peer request --wait`: opens the URL as soon as it is printed.
    async fn links(&mut self, config: &str, arguments: &[&str]) {
        let mut request = Command::new(PROGRAM);
        request.args(["-c", config]).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut request = request.kill_on_drop(true).spawn().expect("the binary can be started");
        let mut printed = BufReader::new(request.stdout.take().expect("it is piped")).lines();
        let url = within("the request URL", printed.next_line()).await.expect("it can be read").expect("a line");
        let page = self.operator.opens(&url).continues().logs_in().allows().await;
        assert_eq!(page.status, 200, "{}", page.text());
        let ended = within("the command to end", request.wait_with_output()).await.expect("a child can be waited for");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.success() && said.contains("linked"), "{said}");
    }
}

#[tokio::test]
async fn two_instances_on_one_machine_are_linked_by_hand() {
    let application = Application::start("web", (own_address(), 0).into()).await.expect("an address of our own");
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().to_str().expect("UTF-8").to_owned();
    let [first, second, local_one, local_two, console_one, console_two] = free_ports(own_address()).map(|address| address.to_string());
    // What is not done as it is written: addresses and folder are the test's own, and secrets come from standard input, for nobody types.
    let instead = [
        ("127.0.0.1:7443", first.as_str()),
        ("127.0.0.1:7543", &second),
        ("http://127.0.0.1:8080", &application.url()),
        ("~/p2pid", &root),
    ];
    let ports = [("instance1", local_one, console_one), ("instance2", local_two, console_two)];
    let mut configs = BTreeMap::new();
    let authorities = ["instance1", "instance2"].map(|name| folder.path().join(name).join("tls/cert.pem"));
    let mut reader =
        Reader { aliases: BTreeMap::new(), daemons: Vec::new(), client: None, operator: Person::new("nobody", PASSWORD, &[] as &[&Path]) };
    let mut done = Vec::new();
    for line in block("### Two instances on one machine, by hand") {
        let mut line_here = line.to_owned();
        for (written, here) in instead {
            line_here = line_here.replace(written, here);
        }
        if let Some((id, _)) = &reader.client {
            line_here = line_here.replace(" ID ", &format!(" {id} "));
        }
        let words: Vec<&str> = line_here.split_whitespace().collect();
        match words[..] {
            // The test's own application stands in.
            ["python3", "-m", "http.server", ..] => {}
            ["p2pid", ref arguments @ ..] => {
                let outcome = CommandLine::new(Path::new(PROGRAM)).run(arguments, None).await.expect("the binary can be started");
                assert!(outcome.status.success(), "{line}: {}", outcome.stderr);
            }
            ["alias", ..] => {
                for (name, command) in ["one", "two"].map(|name| (name, format!("{name}=\"p2pid -c "))) {
                    let config = line_here.split_once(&command).and_then(|(_, rest)| rest.split_once('"')).expect("an alias").0.to_owned();
                    reader.aliases.insert(name, CommandLine::of(Path::new(PROGRAM), Path::new(&config)));
                    configs.insert(name, config);
                }
                // The ports that `init` has found free may be another test's by now.
                for (name, local, console) in &ports {
                    let more = folder.path().join(format!("{name}.d"));
                    std::fs::create_dir(&more).expect("a folder");
                    let text = format!("[local]\nlisten = [\"{local}\"]\n[console]\nlisten = [\"{console}\"]\n");
                    std::fs::write(more.join("ports.toml"), text).expect("a file");
                }
            }
            [who, "run", "&"] => reader.starts(who, &configs[who]).await,
            [who, "user", "add", login, ref more @ ..] => {
                reader.runs(who, &[&["user", "add", login, "--password-stdin"], more].concat(), Some(PASSWORD)).await;
                reader.operator = Person::new(login, PASSWORD, &authorities);
            }
            [who, "ib", "create", ..] => {
                let made = reader.runs(who, &words[1..], None).await.stdout;
                let printed = |name: &str| {
                    made.split_once(&format!("{name} ")).and_then(|(_, rest)| rest.split_whitespace().next()).map(str::to_owned)
                };
                reader.client = Some((printed("client_id").expect("an id"), printed("client_secret").expect("a secret")));
            }
            [who, "peer", "create", ..] => {
                let secret = reader.client.as_ref().expect("credentials").1.clone();
                reader.runs(who, &[&words[1..], &["--client-secret-stdin"]].concat(), Some(&secret)).await;
            }
            [who, "peer", "request", .., "--wait"] => reader.links(&configs[who], &words[1..]).await,
            [who, "call", ..] => {
                reader.runs(who, &words[1..], None).await;
                let received = application.last().expect("the application was reached");
                assert_eq!((received.target.to_string(), received.header("p2pi-instance")), ("/".to_owned(), Some("instance1")));
            }
            _ => panic!("the README says what this test does not know: {line}"),
        }
        done.push(words.iter().take(3).map(|word| (*word).to_owned()).collect::<Vec<_>>().join(" "));
    }
    assert_eq!(done.last().map(String::as_str), Some("one call instance2"), "{done:?}");
}
