//! The pages in Chromium, driven through ChromeDriver (W3C WebDriver): what our own browser believes of cookies, `form-action` and
//! cross-site redirects is checked against one that people use.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::world::patience::eventually;
use crate::world::process::Process;
use crate::world::settings::request;
use crate::world::wire::Wire;

const PASSWORD: &str = "correct horse battery";

#[tokio::test]
#[ignore = "needs chromium and chromedriver: cargo test real_browser -- --ignored"]
async fn a_person_links_two_instances_in_a_real_browser() {
    let one = Process::running("instance1").await;
    let two = Process::running("instance2").await;
    two.runs_with(&["user", "add", "ops@two.example.com", "--admin", "--password-stdin"], PASSWORD).await;
    let app = two.runs(&["ib", "create", "instance1", "--peer-url", &one.settings.url(), "--scope", "p2pi"]).await;
    let (client_id, secret) = (text(&app["client_id"]), text(&app["client_secret"]));
    let authority = two.settings.authority();
    let authority = authority.to_str().expect("a temporary path is text");
    let url = two.settings.url();
    let create = ["peer", "create", "instance2", "--url", &url, "--client-id", client_id, "--client-secret-stdin"];
    one.runs_with(&[&create[..], &["--scope", "p2pi", "--ca", authority]].concat(), secret).await;

    let chromium = Chromium::start().await;
    // Declined once, and the page says so; then allowed.
    for (decision, title, state) in [("decline", "eclined", "ready_to_link"), ("allow", "inked", "linked")] {
        let asked = one.runs(&["peer", "request", "instance2"]).await;
        chromium.opens(text(&asked["url"])).await;
        chromium.presses("form[method=post] button").await;
        if decision == "decline" {
            chromium.types("input[name=username]", "ops@two.example.com").await;
            chromium.types("input[name=password]", PASSWORD).await;
            chromium.presses("form:has(input[name=password]) button").await;
        }
        // The second time the session of the first is still there.
        chromium.presses(&format!("button[name=decision][value={decision}]")).await;
        eventually("the page that ends the handshake", async || {
            let (url, page) = (chromium.url().await, chromium.text().await);
            (url.starts_with(&one.settings.url()) && page.contains(title)).then_some(())
        })
        .await;
        assert_eq!(one.runs(&["peer", "show", "instance2"]).await["state"], state, "after {decision}");
    }
    chromium.opens(&format!("{}/grants", two.settings.url())).await;
    chromium.presses("form:has(input[name=grant]) button").await;
    eventually("the grant to be withdrawn", async || chromium.text().await.contains("Withdrawn: instance1").then_some(())).await;
    assert_eq!(two.runs(&["grant", "list"]).await, json!([]));
    assert_eq!(chromium.complaints().await, Vec::<String>::new(), "the browser found something to complain about");
    chromium.asks("DELETE", &format!("/session/{}", chromium.session), &Value::Null).await;
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// A Chromium without a window, and the driver that steers it.
struct Chromium {
    address: SocketAddr,
    session: String,
    driver: Child,
    _profile: tempfile::TempDir,
}

/// A test that fails closes no session: the browser ends with its driver, in whose process group it is.
impl Drop for Chromium {
    fn drop(&mut self) {
        let group = self.driver.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        let _ = group.map(|group| rustix::process::kill_process_group(group, rustix::process::Signal::KILL));
    }
}

impl Chromium {
    async fn start() -> Self {
        let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = probe.local_addr().expect("a bound address");
        drop(probe);
        let mut driver = Command::new("chromedriver");
        driver.arg(format!("--port={}", address.port())).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).kill_on_drop(true);
        let driver = driver.spawn().expect("chromedriver is installed");
        let profile = tempfile::tempdir().expect("a temporary directory");
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "acceptInsecureCerts": true,
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        eventually("chromedriver to listen", async || tokio::net::TcpStream::connect(address).await.ok()).await;
        let mut chromium = Self { address, session: String::new(), driver, _profile: profile };
        chromium.session = text(&chromium.asks("POST", "/session", &wanted).await["sessionId"]).to_owned();
        chromium
    }

    async fn opens(&self, url: &str) {
        self.commands("url", &json!({ "url": url })).await;
    }

    async fn presses(&self, selector: &str) {
        let element = self.finds(selector).await;
        self.commands(&format!("element/{element}/click"), &json!({})).await;
    }

    async fn types(&self, selector: &str, words: &str) {
        let element = self.finds(selector).await;
        self.commands(&format!("element/{element}/value"), &json!({ "text": words })).await;
    }

    async fn url(&self) -> String {
        text(&self.asks("GET", &format!("/session/{}/url", self.session), &Value::Null).await).to_owned()
    }

    async fn text(&self) -> String {
        let script = json!({ "script": "return document.body ? document.body.innerText : ''", "args": [] });
        text(&self.commands("execute/sync", &script).await).to_owned()
    }

    /// What stands in the console: violations of the content security policy, among others.
    async fn complaints(&self) -> Vec<String> {
        let entries = self.commands("se/log", &json!({ "type": "browser" })).await;
        let entries = entries.as_array().expect("a list of log entries").iter().map(|entry| text(&entry["message"]).to_owned());
        // Every site is asked for an icon once.
        entries.filter(|message| !message.contains("favicon.ico")).collect()
    }

    /// The element that `selector` finds, once the page is there.
    async fn finds(&self, selector: &str) -> String {
        let wanted = json!({ "using": "css selector", "value": selector });
        eventually(&format!("an element {selector}"), async || {
            let found = self.tries("POST", &format!("/session/{}/element", self.session), &wanted).await.ok()?;
            let identity = found.as_object()?.values().next()?.as_str()?.to_owned();
            Some(identity)
        })
        .await
    }

    async fn commands(&self, command: &str, body: &Value) -> Value {
        self.asks("POST", &format!("/session/{}/{command}", self.session), body).await
    }

    async fn asks(&self, method: &str, target: &str, body: &Value) -> Value {
        self.tries(method, target, body).await.unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    async fn tries(&self, method: &str, target: &str, body: &Value) -> Result<Value, String> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let headers = [("Content-Type", "application/json; charset=utf-8"), ("Connection", "close")];
        let mut wire = Wire::plain(self.address).await;
        let answer = wire.asks(request(method, target, &self.address.to_string(), &headers, &body)).await;
        let value = answer.json()["value"].clone();
        if answer.status() == 200 { Ok(value) } else { Err(value.to_string()) }
    }
}
