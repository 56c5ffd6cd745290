//! The story itself: register, link, call, refresh, look. Each step gives its commands, then shows what came back.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Full;
use serde_json::Value;
use tokio::net::TcpStream;

use super::browser::{self, Browser, BrowserError};
use super::narrator::Narrator;
use super::stage::{Side, Stage, StageError};
use crate::random;
use crate::system::SystemRandom;

/// Lives of access tokens, short enough that one runs out while somebody watches.
const ACCESS_TTL: &str = "4s";
const LOGIN: &str = "ops@instance2.example";
/// How long the refresh is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why the story did not get to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoryError {
    #[error(transparent)]
    Stage(StageError),
    #[error("`{command}` failed: {said}")]
    Command { command: String, said: String },
    #[error(transparent)]
    Browser(#[from] BrowserError),
    #[error("{what}: expected {expected}, found {found}")]
    Unexpected { what: String, expected: String, found: String },
    #[error("a call to {url} failed: {why}")]
    Call { url: String, why: String },
    #[error("interrupted")]
    Interrupted,
}

/// The story on its way.
pub(super) struct Story<'a> {
    one: &'a Side,
    two: &'a Side,
    narrator: &'a Narrator<'a>,
    browser: Browser,
    password: String,
    client_id: String,
    client_secret: String,
    caller_key: String,
}

impl<'a> Story<'a> {
    /// With both daemons up.
    pub(super) fn begin(stage: &'a Stage, narrator: &'a Narrator<'a>) -> Result<Self, StoryError> {
        let browser = Browser::new(&[stage.one.certificate(), stage.two.certificate()])?;
        let password = random::bytes::<5>(&SystemRandom).iter().map(|byte| format!("{byte:02x}")).collect();
        let (one, two, empty) = (&stage.one, &stage.two, String::new);
        Ok(Self { one, two, narrator, browser, password, client_id: empty(), client_secret: empty(), caller_key: empty() })
    }

    /// On instance2: somebody who may allow links, and a registration for instance1.
    pub(super) async fn people_and_clients(&mut self) -> Result<(), StoryError> {
        self.narrator.step("instance2 learns who may allow a link, and who may ask for one");
        self.command(self.two, &["user", "add", LOGIN, "--admin", "--password-stdin"], Some(&self.password)).await?;
        let peer_url = &self.one.public_url;
        let create = ["ib", "create", "instance1", "--peer-url", peer_url, "--scope", "p2pi", "--access-ttl", ACCESS_TTL];
        let app = self.command(self.two, &create, None).await?;
        self.client_id = text(&app, "client_id")?;
        self.client_secret = text(&app, "client_secret")?;
        self.narrator.got(&format!("client_id {}, client_secret of {} characters", self.client_id, self.client_secret.len()));
        Ok(())
    }

    /// On instance1: the peer, and a local application that may call it.
    pub(super) async fn peer(&mut self) -> Result<(), StoryError> {
        self.narrator.step("instance1 learns where instance2 is");
        let authority = self.two.certificate().to_string_lossy().into_owned();
        let create = ["peer", "create", "instance2", "--url", &self.two.public_url, "--client-id", &self.client_id, "--scope", "p2pi"];
        let create = [&create[..], &["--ca", &authority, "--client-secret-stdin"]].concat();
        let peer = self.command(self.one, &create, Some(&self.client_secret)).await?;
        if let Some(probe) = peer["probe"].as_str() {
            self.narrator.got(probe);
        }
        expect("the peer's state", "ready_to_link", &text(&peer, "state")?)?;
        self.narrator.got(&format!("{}: {}", text(&peer, "state")?, text(&peer, "reason").unwrap_or_default()));
        let caller = self.command(self.one, &["caller", "add", "customers", "--peer", "instance2"], None).await?;
        self.caller_key = text(&caller, "key")?;
        self.narrator.got(&format!("a key of {} characters for the application on instance1", self.caller_key.len()));
        Ok(())
    }

    /// The request URL, and what a person does with it.
    pub(super) async fn link(&mut self) -> Result<(), StoryError> {
        self.narrator.step("A one-time request URL is made and opened in a browser");
        let request = self.command(self.one, &["peer", "request", "instance2"], None).await?;
        let url = text(&request, "url")?;
        let page = self.browser.open(&url).await?;
        self.narrator.browsed(&page);
        expect("the request page", "200 OK", &page.status.to_string())?;

        self.narrator.step("The person goes on to instance2 and logs in");
        let page = self.browser.follow(page.form()?.submit()).await?;
        self.narrator.browsed(&page);
        let form = page.form_with("password")?.fill("username", LOGIN)?.fill("password", &self.password)?;
        let page = self.browser.follow(form.submit()).await?;
        self.narrator.browsed(&page);

        self.narrator.step("The person presses Allow, and is sent back to instance1");
        let page = self.browser.follow(page.form_with("decision")?.press("decision", "allow")?).await?;
        self.narrator.browsed(&page);
        expect("the page after Allow", "200 OK", &page.status.to_string())?;
        let peer = self.peer_now().await?;
        expect("the peer's state after Allow", "linked", &text(&peer, "state")?)?;
        Ok(())
    }

    /// A call of a local application through relay and gateway.
    pub(super) async fn call(&self) -> Result<(), StoryError> {
        self.narrator.step("An application beside instance1 calls the one behind instance2");
        let (status, body) = self.send("/instance2/orders?x=1").await?;
        expect("the call", "200 OK", &status.to_string())?;
        let told: Value = serde_json::from_str(&body).unwrap_or_default();
        expect("the instance that the application was told of", "instance1", &text(&told["called_by"], "instance")?)?;
        let received = self.two.application.last();
        let authorization = received.is_some_and(|request| request.header("authorization").is_some());
        expect("an Authorization header at the application", "none", if authorization { "one" } else { "none" })
    }

    /// The token is renewed by itself, and carries the next call.
    pub(super) async fn refresh(&self) -> Result<(), StoryError> {
        self.narrator.step(&format!("The token, which lives {ACCESS_TTL}, is refreshed before it runs out"));
        let first = self.peer_now().await?;
        let (issued, expires) = (text(&first["token"], "issued_at")?, text(&first["token"], "expires_at")?);
        self.narrator.fact(&format!("the first token: issued {issued}, good until {expires}"));
        let deadline = SystemTime::now() + PATIENCE;
        let renewed = loop {
            let peer = self.peer_now().await?;
            if has_passed(&expires) && text(&peer["token"], "expires_at")? != expires {
                break peer;
            }
            if SystemTime::now() > deadline {
                expect("the token's end after a while", &format!("later than {expires}"), &text(&peer["token"], "expires_at")?)?;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let token = &renewed["token"];
        self.narrator.fact(&format!("the token now: issued {}, good until {}", text(token, "issued_at")?, text(token, "expires_at")?));
        let (status, _) = self.send("/instance2/orders?x=2").await?;
        expect("the call with the refreshed token", "200 OK", &status.to_string())
    }

    /// What both sides say of the link.
    pub(super) async fn status(&self) -> Result<(), StoryError> {
        self.narrator.step("What both sides say of the link");
        let peer = self.command(self.one, &["peer", "show", "instance2"], None).await?;
        let (state, reason) = (text(&peer, "state")?, text(&peer, "reason").unwrap_or_default());
        self.narrator.got(&format!("instance2 is {state}: {reason}"));
        expect("the peer's state at the end", "linked", &state)?;
        let grants = self.command(self.two, &["grant", "list"], None).await?;
        let grants = grants.as_array().cloned().unwrap_or_default();
        expect("grants on instance2", "1", &grants.len().to_string())?;
        for grant in &grants {
            let [app, scope, by, used] =
                ["app", "scope", "allowed_by", "last_used_at"].map(|member| text(grant, member).unwrap_or_default());
            self.narrator.got(&format!("{app} holds {scope}, allowed by {by}, last used {used}"));
        }
        Ok(())
    }

    /// What somebody who wants to try it by hand needs.
    pub(super) async fn invite(&self) -> Result<(), StoryError> {
        self.narrator.step("Both stay up until Ctrl-C, with tokens that live an hour. To try it by hand:");
        self.quietly(self.two, &["ib", "update", "instance1", "--access-ttl", "1h"], None).await?;
        let request = self.command(self.one, &["peer", "request", "instance2"], None).await?;
        let tell = |text: &str| self.narrator.fact(text);
        tell(&format!("open      {}", text(&request, "url")?));
        tell("          (both certificates are self-signed: the browser asks once for each)");
        tell(&format!("log in    {LOGIN}   password {}", self.password));
        tell(&format!("call      curl -H 'Authorization: Bearer {}' 'http://{}/instance2/orders?x=1'", self.caller_key, self.one.local));
        for side in [self.one, self.two] {
            tell(&format!("command   {} -c {} status", side.commands.program().display(), side.config().display()));
        }
        Ok(())
    }

    async fn peer_now(&self) -> Result<Value, StoryError> {
        self.quietly(self.one, &["peer", "show", "instance2"], None).await
    }

    async fn command(&self, side: &Side, arguments: &[&str], line: Option<&str>) -> Result<Value, StoryError> {
        self.narrator.command(&side.commands.written(arguments));
        self.quietly(side, arguments, line).await
    }

    async fn quietly(&self, side: &Side, arguments: &[&str], line: Option<&str>) -> Result<Value, StoryError> {
        let failed = |said: String| StoryError::Command { command: side.commands.written(arguments), said };
        let outcome = side.commands.run(&[&["--json"], arguments].concat(), line).await.map_err(|error| failed(error.to_string()))?;
        if outcome.status.success() {
            return Ok(outcome.json());
        }
        let problem = outcome.problem();
        Err(failed(problem["error"]["message"].as_str().unwrap_or_else(|| outcome.stderr.trim()).to_owned()))
    }

    /// A call through instance1's relay, with the caller's key.
    async fn send(&self, target: &str) -> Result<(StatusCode, String), StoryError> {
        let url = format!("http://{}{target}", self.one.local);
        self.narrator.sent(&format!("GET  {url}"));
        let failed = |why: String| StoryError::Call { url: url.clone(), why };
        let mut key = HeaderValue::try_from(format!("Bearer {}", self.caller_key)).map_err(|error| failed(error.to_string()))?;
        key.set_sensitive(true);
        let request = Request::get(target).header(header::HOST, self.one.local.to_string()).header(header::AUTHORIZATION, key);
        let request = request.body(Full::new(Bytes::new())).map_err(|error| failed(error.to_string()))?;
        let stream = TcpStream::connect(self.one.local).await.map_err(|error| failed(error.to_string()))?;
        let answer = tokio::time::timeout(PATIENCE, browser::speak(stream, request)).await;
        let answer = answer.map_err(|_| failed("no answer".to_owned()))?.map_err(|error| failed(error.to_string()))?;
        let (status, body) = (answer.status(), String::from_utf8_lossy(answer.body()).trim().to_owned());
        self.narrator.got(&format!("{status}  {body}"));
        Ok((status, body))
    }
}

fn text(document: &Value, member: &str) -> Result<String, StoryError> {
    let found = &document[member];
    match found.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(StoryError::Unexpected { what: member.to_owned(), expected: "a text".to_owned(), found: found.to_string() }),
    }
}

fn expect(what: &str, expected: &str, found: &str) -> Result<(), StoryError> {
    if expected == found {
        return Ok(());
    }
    Err(StoryError::Unexpected { what: what.to_owned(), expected: expected.to_owned(), found: found.to_owned() })
}

fn has_passed(time: &str) -> bool {
    humantime::parse_rfc3339(time).is_ok_and(|time| time < SystemTime::now())
}
