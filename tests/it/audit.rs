//! The audit, read as an operator's log search reads it: what is worth knowing of tokens is one JSON line each, and what needs a look is a
//! warning.

use std::cell::Cell;

use serde_json::Value;

use crate::world::client::{Client, Tokens, VERIFIER};
use crate::world::message::Message;
use crate::world::patience::eventually;
use crate::world::person::Person;
use crate::world::process::Process;
use crate::world::settings::request;
use crate::world::wire::Wire;

const HERE: &str = "192.0.2.1";
const ELSEWHERE: &str = "192.0.2.2";

/// A daemon behind a proxy that says who asks, an app of it, and somebody who may allow.
struct Watched {
    one: Process,
    client: Client,
    operator: Person,
}

impl Watched {
    async fn new() -> Self {
        let mut one = Process::new("one").await;
        // A window that a test can wait for: what is presented again and again meets it open and closed.
        one.settings.says("audit.toml", "[public]\ntrusted_proxies = [\"127.0.0.0/8\"]\n[tokens]\nretry_window = \"2s\"\n");
        one.starts().await;
        let (login, password) = ("operator@one.example", "correct horse battery");
        one.runs_with(&["user", "add", login, "--admin", "--password-stdin"], password).await;
        let operator = Person::new(login, password, &[one.settings.authority()]);
        let client = Self::app(&one, "shop").await;
        Self { one, client, operator }
    }

    async fn app(one: &Process, name: &str) -> Client {
        let redirect_uri = format!("https://{name}.example/done");
        let app = one.runs(&["ib", "create", name, "--redirect-uri", &redirect_uri, "--scope", "p2pi"]).await;
        let member = |name: &str| app[name].as_str().unwrap_or_else(|| panic!("no {name}: {app}")).to_owned();
        Client { id: member("client_id"), secret: member("client_secret"), redirect_uri }
    }

    async fn code(&mut self) -> String {
        let url = self.client.authorize_at(&self.one.settings.url()).url();
        let led = self.operator.decides(&url, "allow").await;
        led.parameter("code").unwrap_or_else(|| panic!("no code: {}", led.url))
    }

    async fn redeems(&self, code: &str) -> Message {
        let redirect_uri = self.client.redirect_uri.as_str();
        let form = [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", redirect_uri), ("code_verifier", VERIFIER)];
        self.posts("/oauth/token", &self.client, HERE, &form).await
    }

    async fn presents(&self, client: &Client, from: &str, token: &str) -> Message {
        self.posts("/oauth/token", client, from, &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    async fn posts(&self, path: &str, client: &Client, from: &str, form: &[(&str, &str)]) -> Message {
        let own = [("client_id", client.id.as_str()), ("client_secret", client.secret.as_str())];
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form.iter().chain(&own)).finish();
        let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("X-Forwarded-For", from)];
        let mut wire = Wire::tls(self.one.settings.public, &self.one.settings.authority()).await;
        wire.asks(request("POST", path, &self.one.settings.public.to_string(), &headers, &body)).await
    }

    /// The events of that name so far, oldest first.
    fn told(&self, event: &str) -> Vec<Value> {
        let log = self.one.log();
        // The last line may still be under way.
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["target"] == "audit" && line["event"] == event).collect()
    }

    /// Events of that name are told with level, app and address; gives the last one.
    async fn tells(&self, event: &str, level: &str, client: &Client, from: &str) -> Value {
        eventually(&format!("{event} from {from} at {level} in the audit"), async || {
            let is_it = |line: &Value| line["level"] == level && line["client_id"] == client.id.as_str() && line["address"] == from;
            self.told(event).into_iter().rfind(is_it)
        })
        .await
    }
}

#[tokio::test]
async fn r4_r5_repeats_replacements_and_thefts_are_audited_with_their_address() {
    let mut watched = Watched::new().await;
    let code = watched.code().await;
    let first = Tokens::of(&watched.redeems(&code).await);
    let made = watched.tells("code.redeemed", "INFO", &watched.client, HERE).await;
    assert!(made["grant"].is_string() && made["request_id"].is_string(), "{made}");

    let thief = Watched::app(&watched.one, "thief").await;
    assert_eq!(watched.presents(&thief, ELSEWHERE, &first.refresh).await.status(), 400);
    watched.tells("refresh.of_another_client", "INFO", &thief, ELSEWHERE).await;

    // Presented again and again: repeated while the window is open, replaced each time that it has closed.
    let (times, latest) = (Cell::new(0_usize), Cell::new(None));
    eventually("repeats from here and elsewhere, and three replacements", async || {
        let from = [HERE, HERE, ELSEWHERE][times.get() % 3];
        times.set(times.get() + 1);
        let answer = watched.presents(&watched.client, from, &first.refresh).await;
        if answer.status() == 200 {
            latest.set(Some(Tokens::of(&answer)));
        }
        let repeats = watched.told("refresh.repeated");
        let both = ["INFO", "WARN"].iter().all(|level| repeats.iter().any(|line| line["level"] == *level));
        (both && watched.told("refresh.reminted").len() >= 3).then_some(())
    })
    .await;
    for line in watched.told("refresh.repeated") {
        let is_from_elsewhere = line["reason"].as_str().is_some_and(|reason| reason.contains("another address"));
        assert_eq!(line["level"] == "WARN", is_from_elsewhere, "{line}");
        assert!(line["address"] == HERE || line["address"] == ELSEWHERE, "{line}");
        assert_eq!(line["grant"], made["grant"], "{line}");
    }
    let levels: Vec<Value> = watched.told("refresh.reminted").iter().map(|line| line["level"].clone()).collect();
    assert_eq!(levels[..3], ["INFO", "INFO", "WARN"], "the third of one token needs a look");

    // Its successor is used, and the window closes: now only a thief could have it.
    let latest = latest.take().expect("it was answered");
    let introspected = watched.posts("/oauth/introspect", &watched.client, HERE, &[("token", latest.access.as_str())]).await;
    assert_eq!(introspected.json()["active"], true, "{}", introspected.text());
    eventually("the window to close", async || {
        let answer = watched.presents(&watched.client, ELSEWHERE, &first.refresh).await;
        (answer.status() == 400).then_some(())
    })
    .await;
    let theft = watched.tells("refresh.replayed", "WARN", &watched.client, ELSEWHERE).await;
    assert_eq!(theft["grant"], made["grant"], "{theft}");
    for secret in [&first.refresh, &latest.refresh, &latest.access, &watched.client.secret] {
        assert!(!watched.one.log().contains(secret.as_str()), "no token in the audit");
    }
}

#[tokio::test]
async fn t4_v1_replayed_codes_and_revocations_are_audited() {
    let mut watched = Watched::new().await;
    let code = watched.code().await;
    Tokens::of(&watched.redeems(&code).await);
    assert_eq!(watched.redeems(&code).await.status(), 400);
    let replayed = watched.tells("code.replayed", "WARN", &watched.client, HERE).await;
    assert_eq!(replayed["grant"], watched.told("code.redeemed")[0]["grant"], "{replayed}");

    let code = watched.code().await;
    let tokens = Tokens::of(&watched.redeems(&code).await);
    let thief = Watched::app(&watched.one, "thief").await;
    watched.posts("/oauth/revoke", &thief, ELSEWHERE, &[("token", tokens.refresh.as_str())]).await;
    watched.tells("revocation.of_another_client", "INFO", &thief, ELSEWHERE).await;
    assert!(watched.told("grant.ended").is_empty());
    let revoked = watched.posts("/oauth/revoke", &watched.client, HERE, &[("token", tokens.refresh.as_str())]).await;
    assert_eq!(revoked.status(), 200);
    let revoked = watched.tells("grant.ended", "INFO", &watched.client, HERE).await;
    assert_eq!(revoked["reason"], "revoked_by_client");
    assert_eq!(revoked["grant"], watched.told("code.redeemed")[1]["grant"], "{revoked}");
    // What operators do, and people, is called as in the audit too.
    let created = watched.told("ib_app.created");
    assert!(
        created.len() == 2 && created.iter().all(|line| line["who"].as_str().is_some_and(|who| who.starts_with("uid "))),
        "{created:?}"
    );
    assert_eq!((watched.told("user.created").len(), watched.told("login.succeeded").len()), (1, 1));
    let allowed = watched.told("consent.allowed");
    assert!(allowed.len() == 2 && allowed.iter().all(|line| line["who"] == "operator@one.example"), "{allowed:?}");
}
