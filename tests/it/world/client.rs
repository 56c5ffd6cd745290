//! An OAuth client that a test plays itself, parameter by parameter, at a daemon's public listener.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p2pid::cli::demo::browser::Page;
use serde_json::{Value, json};
use url::Url;

use super::message::Message;
use super::node::Node;
use super::person::Person;

/// A verifier of the shortest length that RFC 7636 allows.
pub(crate) const VERIFIER: &str = "verifier-of-the-test-0123456789-abcdefghijkl";

/// A registered client. Its redirect URI leads nowhere: the test reads the redirect itself.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) redirect_uri: String,
}

impl Client {
    /// Registers an IB app called `name` with the scope `p2pi`.
    pub(crate) async fn registered(node: &Node, name: &str) -> Self {
        Self::registered_with(node, name, json!({})).await
    }

    /// The same, with more attributes.
    pub(crate) async fn registered_with(node: &Node, name: &str, attributes: Value) -> Self {
        let redirect_uri = format!("https://{name}.example/done?of={name}");
        let mut wanted = json!({ "name": name, "redirect_uris": [redirect_uri], "scopes": ["p2pi"] });
        for (name, value) in attributes.as_object().into_iter().flatten() {
            wanted[name] = value.clone();
        }
        let app = node.creates("ib-app", wanted).await;
        let text = |name: &str| app[name].as_str().unwrap_or_else(|| panic!("no {name}: {app}")).to_owned();
        Self { id: text("client_id"), secret: text("client_secret"), redirect_uri }
    }

    /// A minimal valid authorization request, to be changed in one thing.
    pub(crate) fn authorize(&self, node: &Node) -> Authorize {
        self.authorize_at(&node.settings.url())
    }

    /// The same, at the instance with that issuer.
    pub(crate) fn authorize_at(&self, issuer: &str) -> Authorize {
        let challenge = s256(VERIFIER);
        let parameters = [
            ("response_type", "code"),
            ("client_id", &self.id),
            ("redirect_uri", &self.redirect_uri),
            ("scope", "p2pi"),
            ("state", "state-of-the-test"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Authorize { endpoint: format!("{issuer}/oauth/authorize"), parameters: parameters.into() }
    }

    /// A code that `person`, who logs in if asked, allows.
    pub(crate) async fn code(&self, node: &Node, person: &mut Person) -> String {
        let target = person.decides(&self.authorize(node).url(), "allow").await;
        target.parameter("code").unwrap_or_else(|| panic!("no code: {}", target.url))
    }

    /// Redeems a code.
    pub(crate) async fn redeems(&self, node: &Node, code: &str) -> Message {
        let form =
            [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", &self.redirect_uri), ("code_verifier", VERIFIER)];
        self.asks(node, &form).await
    }

    /// Presents a refresh token.
    pub(crate) async fn refreshes(&self, node: &Node, token: &str) -> Message {
        self.asks(node, &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    /// Any form at the token endpoint.
    pub(crate) async fn asks(&self, node: &Node, form: &[(&str, &str)]) -> Message {
        node.gets_form("/oauth/token", (&self.id, &self.secret), form).await
    }

    pub(crate) async fn introspects(&self, node: &Node, token: &str) -> Message {
        node.gets_form("/oauth/introspect", (&self.id, &self.secret), &[("token", token)]).await
    }

    pub(crate) async fn revokes(&self, node: &Node, token: &str) -> Message {
        node.gets_form("/oauth/revoke", (&self.id, &self.secret), &[("token", token)]).await
    }

    /// Access and refresh token of a new grant.
    pub(crate) async fn tokens(&self, node: &Node, person: &mut Person) -> Tokens {
        let code = self.code(node, person).await;
        Tokens::of(&self.redeems(node, &code).await)
    }
}

/// A pair of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) refresh: String,
}

impl Tokens {
    /// Those of a token answer, which must be a 200.
    pub(crate) fn of(answer: &Message) -> Self {
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let answer = answer.json();
        let text = |name: &str| answer[name].as_str().unwrap_or_else(|| panic!("no {name}")).to_owned();
        Self { access: text("access_token"), refresh: text("refresh_token") }
    }
}

/// An authorization request.
#[derive(Clone, Debug)]
pub(crate) struct Authorize {
    endpoint: String,
    parameters: Vec<(String, String)>,
}

impl Authorize {
    /// With this value in place of the former.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.parameters.retain(|(key, _)| key != name);
        self.and(name, value)
    }

    /// With this parameter besides all others.
    pub(crate) fn and(mut self, name: &str, value: &str) -> Self {
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.parameters.retain(|(key, _)| key != name);
        self
    }

    pub(crate) fn url(&self) -> String {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.parameters).finish();
        format!("{}?{query}", self.endpoint)
    }
}

/// Where an authorization request led: to the client, or to a page of ours.
pub(crate) struct Led {
    pub(crate) url: Url,
    /// Whether a redirect to somebody else's site was the answer.
    pub(crate) away: bool,
    pub(crate) page: Page,
}

impl Led {
    /// A parameter of the client's redirect URI that stands there once.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let values: Vec<String> = self.url.query_pairs().filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect();
        assert!(values.len() <= 1, "{name} stands more than once in {}", self.url);
        values.into_iter().next()
    }
}

impl Person {
    /// Opens an authorization request, logs in when asked to, and presses a button when there is one to decide with. Redirects are followed
    /// only to the daemon itself.
    pub(crate) async fn decides(&mut self, url: &str, decision: &str) -> Led {
        let mut led = self.goes(p2pid::cli::demo::browser::Navigation::typed(Url::parse(url).expect("an address"))).await;
        if !led.away
            && let Ok(form) = led.page.form_with("password")
        {
            let form = form.fill("username", &self.login).and_then(|form| form.fill("password", &self.password));
            led = self.goes(form.expect("a log-in form").submit()).await;
        }
        if !led.away
            && let Ok(form) = led.page.form_with("decision")
        {
            led = self.goes(form.press("decision", decision).expect("two buttons")).await;
        }
        led
    }

    /// Follows redirects as long as they stay at the same host.
    pub(crate) async fn goes(&mut self, navigation: p2pid::cli::demo::browser::Navigation) -> Led {
        let mut navigation = navigation;
        let mut way = Vec::new();
        loop {
            let page = self.browser.step(&navigation).await.unwrap_or_else(|error| panic!("{error}"));
            way.extend(page.way.clone());
            let Some(next) = page.way.last().and_then(|hop| hop.location()) else {
                return Led { url: page.url.clone(), away: false, page: Page { way, ..page } };
            };
            if next.origin() != page.url.origin() {
                return Led { url: next, away: true, page: Page { way, ..page } };
            }
            navigation = navigation.redirected(page.status, next);
        }
    }
}

/// The S256 challenge of a verifier.
pub(crate) fn s256(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes()))
}
