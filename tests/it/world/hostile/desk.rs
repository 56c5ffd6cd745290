//! What the hostile peer does with a request: the honest answer, spoilt by the fault that is next in the script.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::fault::{Endpoint, Fault};
use super::{Heard, Message};

/// What happens on the wire.
pub(super) enum Effect {
    Send(Answer),
    /// Sent; from then on it is a WebSocket, on which every byte comes back.
    Switch(Answer),
    /// Sent when the test lets go of it.
    Hold(Answer),
    Late(Duration, Answer),
    /// Nothing more is sent.
    Close,
    /// Half the answer, then a reset.
    Reset(Answer),
    /// The head, byte by byte, for ever.
    Drip,
    /// A head and a body without end.
    Endless,
}

/// An answer before it is written.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

/// The peer's memory.
pub(super) struct Desk {
    base: String,
    pub(super) scripts: HashMap<Endpoint, VecDeque<Fault>>,
    pub(super) habits: HashMap<Endpoint, Fault>,
    pub(super) heard: Vec<Heard>,
    pub(super) repeats: bool,
    pub(super) p2pid: bool,
    pub(super) iss: bool,
    /// Its tokens are bound to the key of the proof that they are asked for with (DPoP).
    pub(super) binds: bool,
    /// What was not signed within a minute of its own time is refused.
    pub(super) minds_the_time: bool,
    /// Proofs carry a nonce: one of the authorization server's, and another of the resource's.
    pub(super) wants_nonces: bool,
    pub(super) life: Duration,
    pub(super) clock_off: i64,
    pub(super) access: HashSet<String>,
    pub(super) refresh: Option<String>,
    pub(super) issued: Vec<String>,
    /// Codes that were not redeemed yet, with their challenge.
    codes: HashMap<String, Option<String>>,
    last_code: Option<String>,
    /// Refresh token → the answer that it got.
    answers: HashMap<String, Map<String, Value>>,
    last_tokens: Option<Map<String, Value>>,
}

impl Desk {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            base: format!("https://{address}"),
            scripts: HashMap::new(),
            habits: HashMap::new(),
            heard: Vec::new(),
            repeats: false,
            p2pid: false,
            iss: true,
            binds: false,
            minds_the_time: false,
            wants_nonces: false,
            life: Duration::from_secs(3600),
            clock_off: 0,
            access: HashSet::new(),
            refresh: None,
            issued: Vec::new(),
            codes: HashMap::new(),
            last_code: None,
            answers: HashMap::new(),
            last_tokens: None,
        }
    }

    pub(super) fn script(&mut self, endpoint: Endpoint, fault: Fault) {
        self.scripts.entry(endpoint).or_default().push_back(fault);
    }

    /// Records the request and decides what happens; the clock says `now`, in seconds.
    pub(super) fn take(&mut self, message: Message, now: i64) -> Effect {
        let heard = read(message);
        let fault = self.scripts.get_mut(&heard.endpoint).and_then(VecDeque::pop_front);
        let fault = fault.or_else(|| self.habits.get(&heard.endpoint).cloned());
        self.heard.push(heard.clone());
        if let Some(refusal) = self.minds_the_time.then(|| untimely(&heard, now)).flatten() {
            return Effect::Send(refusal);
        }
        if let Some(refusal) = self.wants_nonces.then(|| self.without_nonce(&heard)).flatten() {
            return Effect::Send(refusal);
        }
        match fault {
            None => match self.answer(&heard, None) {
                switched if switched.status == 101 => Effect::Switch(switched),
                answer => Effect::Send(answer),
            },
            Some(Fault::DroppedBeforeCommit) => Effect::Close,
            Some(Fault::SlowLoris) => Effect::Drip,
            Some(Fault::EndlessBody) => Effect::Endless,
            Some(Fault::Status(status)) => Effect::Send(text(status, "text/plain", "out of order")),
            Some(Fault::FirewallPage) => Effect::Send(text(403, "text/html", "<html><body><h1>Blocked by policy</h1></body></html>")),
            Some(Fault::Refuses(status, code)) => Effect::Send(error(status, code)),
            Some(Fault::TooMany(after)) => Effect::Send(text(429, "text/plain", "later").with("retry-after", after)),
            Some(Fault::Redirect(to)) => Effect::Send(text(303, "text/plain", "").with("location", &to)),
            Some(Fault::InvalidToken) => Effect::Send(self.invalid_token()),
            Some(Fault::DroppedAfterCommit) => {
                self.answer(&heard, None);
                Effect::Close
            }
            Some(Fault::Held) => Effect::Hold(self.answer(&heard, None)),
            Some(Fault::Late(delay)) => Effect::Late(delay, self.answer(&heard, None)),
            Some(Fault::ResetInsideBody) => Effect::Reset(self.answer(&heard, None)),
            Some(Fault::EmptyBody) => Effect::Send(Answer { body: String::new(), ..self.answer(&heard, None) }),
            Some(Fault::Html) => {
                self.answer(&heard, None);
                Effect::Send(text(200, "text/html", "<html><body>Welcome to the hotel network</body></html>"))
            }
            Some(Fault::HalfJson) => {
                let answer = self.answer(&heard, None);
                let half = answer.body[..answer.body.len() / 2].to_owned();
                Effect::Send(Answer { body: half, ..answer })
            }
            Some(fault) => Effect::Send(self.answer(&heard, Some(&fault))),
        }
    }

    fn answer(&mut self, heard: &Heard, fault: Option<&Fault>) -> Answer {
        match heard.endpoint {
            Endpoint::Metadata => self.metadata(fault),
            Endpoint::ResourceMetadata => {
                let resource = if matches!(fault, Some(Fault::ForeignResource)) { "https://somebody.else.example" } else { &self.base };
                document(200, &json!({ "resource": resource, "authorization_servers": [self.base] }))
            }
            Endpoint::Authorize => self.authorize(heard, fault),
            Endpoint::Token => self.token(heard, fault),
            Endpoint::Introspect => {
                let active = heard.parameter("token").is_some_and(|token| self.knows(token));
                document(200, &json!({ "active": active }))
            }
            Endpoint::Revoke => {
                if let Some(token) = heard.parameter("token").filter(|token| self.knows(token)) {
                    let _ = token;
                    self.access.clear();
                    self.refresh = None;
                }
                text(200, "application/json", "")
            }
            Endpoint::Resource => match &heard.bearer {
                Some(token) if self.access.contains(token) => {
                    if let Some(key) = heard.message.header("sec-websocket-key") {
                        return websocket(key);
                    }
                    document(200, &json!({ "method": heard.method, "target": heard.target, "body_bytes": heard.message.body.len() }))
                }
                _ => self.invalid_token(),
            },
        }
    }

    /// Asks for a nonce; whoever shows a token that is not good is not told any.
    fn without_nonce(&self, heard: &Heard) -> Option<Answer> {
        let wanted = if heard.endpoint == Endpoint::Resource { "nonce-of-the-resource" } else { "nonce-of-the-server" };
        let (_, claims) = heard.proof()?;
        if claims["nonce"] == wanted {
            return None;
        }
        match heard.endpoint {
            Endpoint::Resource if !heard.bearer.as_ref().is_some_and(|token| self.access.contains(token)) => None,
            Endpoint::Resource => {
                let answer = text(401, "text/plain", "").with("www-authenticate", r#"DPoP error="use_dpop_nonce""#);
                Some(answer.with("dpop-nonce", wanted))
            }
            _ => Some(error(400, "use_dpop_nonce").with("dpop-nonce", wanted)),
        }
    }

    fn knows(&self, token: &str) -> bool {
        self.access.contains(token) || self.refresh.as_deref() == Some(token)
    }

    fn metadata(&self, fault: Option<&Fault>) -> Answer {
        let base = &self.base;
        let issuer = if matches!(fault, Some(Fault::ForeignIssuer)) { "https://somebody.else.example" } else { base };
        let mut metadata = json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{base}/oauth/authorize"),
            "token_endpoint": format!("{base}/oauth/token"),
            "introspection_endpoint": format!("{base}/oauth/introspect"),
            "revocation_endpoint": format!("{base}/oauth/revoke"),
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "scopes_supported": ["p2pi"],
        });
        if self.iss {
            metadata["authorization_response_iss_parameter_supported"] = true.into();
        }
        if self.binds {
            metadata["dpop_signing_alg_values_supported"] = json!(["ES256"]);
        }
        if self.p2pid {
            metadata["p2pi_endpoint"] = format!("{base}/p2pi").into();
        }
        if matches!(fault, Some(Fault::NoAuthorizationEndpoint)) {
            metadata.as_object_mut().expect("it is an object").remove("authorization_endpoint");
        }
        document(200, &metadata)
    }

    /// Whoever comes here allows at once.
    fn authorize(&mut self, heard: &Heard, fault: Option<&Fault>) -> Answer {
        let Some(mut target) = heard.parameter("redirect_uri").and_then(|uri| url::Url::parse(uri).ok()) else {
            return text(400, "text/html", "<html><body>no redirect_uri</body></html>");
        };
        let fresh = self.mint("code");
        let code = match (fault, &self.last_code) {
            (Some(Fault::ReplayedCode), Some(old)) => old.clone(),
            _ => {
                self.codes.insert(fresh.clone(), heard.parameter("code_challenge").map(str::to_owned));
                fresh
            }
        };
        {
            let mut query = target.query_pairs_mut();
            let mut put = |name: &str, value: &str| {
                query.append_pair(name, value);
            };
            match fault {
                Some(Fault::Denies(code)) => put("error", code),
                Some(Fault::NeitherCodeNorError) => {}
                Some(Fault::CodeAndError) => {
                    put("code", &code);
                    put("error", "access_denied");
                }
                Some(Fault::CodeTwice) => {
                    put("code", &code);
                    put("code", &code);
                }
                _ => put("code", &code),
            }
            match (fault, heard.parameter("state")) {
                (Some(Fault::NoState), _) | (_, None) => {}
                (Some(Fault::WrongState), _) => put("state", "a-state-of-somebody-else"),
                (_, Some(state)) => put("state", state),
            }
            match fault {
                Some(Fault::NoIssuer) => {}
                Some(Fault::ForeignIssuer) => put("iss", "https://somebody.else.example"),
                _ if self.iss => put("iss", &self.base),
                _ => {}
            }
        }
        text(303, "text/plain", "").with("location", target.as_str())
    }

    fn token(&mut self, heard: &Heard, fault: Option<&Fault>) -> Answer {
        let presented = heard.parameter("refresh_token");
        match heard.parameter("grant_type") {
            Some("authorization_code") => {
                let code = heard.parameter("code").unwrap_or_default();
                let Some(challenge) = self.codes.remove(code) else { return error(400, "invalid_grant") };
                self.last_code = Some(code.to_owned());
                if challenge != heard.parameter("code_verifier").map(s256) {
                    return error(400, "invalid_grant");
                }
            }
            Some("refresh_token") if presented == self.refresh.as_deref() && presented.is_some() => {}
            Some("refresh_token") => {
                let repeated = presented.and_then(|token| self.answers.get(token)).filter(|_| self.repeats);
                return repeated.map_or_else(|| error(400, "invalid_grant"), |answer| document(200, &Value::Object(answer.clone())));
            }
            Some("client_credentials" | "password") => {}
            _ => return error(400, "unsupported_grant_type"),
        }
        let mut answer = match (fault, &self.last_tokens) {
            (Some(Fault::SameTokensAgain), Some(last)) => last.clone(),
            _ => self.mint_tokens(matches!(fault, Some(Fault::NoRefreshToken)), heard.parameter("grant_type")),
        };
        // What it says again is what it had meant to say.
        if let Some(token) = presented {
            self.answers.insert(token.to_owned(), answer.clone());
        }
        match fault {
            Some(Fault::NoAccessToken) => drop(answer.remove("access_token")),
            Some(Fault::NoTokenType) => drop(answer.remove("token_type")),
            Some(Fault::TokenType(kind)) => drop(answer.insert("token_type".to_owned(), (*kind).into())),
            Some(Fault::Scope(scope)) => drop(answer.insert("scope".to_owned(), (*scope).into())),
            Some(Fault::ExpiresIn(None)) => drop(answer.remove("expires_in")),
            Some(Fault::ExpiresIn(Some(value))) => drop(answer.insert("expires_in".to_owned(), value.clone())),
            _ => {}
        }
        document(if matches!(fault, Some(Fault::Created)) { 201 } else { 200 }, &Value::Object(answer))
    }

    /// A new pair; with `keep` the refresh token stays what it was and is not told.
    fn mint_tokens(&mut self, keep: bool, grant: Option<&str>) -> Map<String, Value> {
        let access = self.mint("access");
        self.access.insert(access.clone());
        let mut answer = Map::new();
        answer.insert("access_token".to_owned(), access.into());
        answer.insert("token_type".to_owned(), if self.binds { "DPoP" } else { "Bearer" }.into());
        answer.insert("expires_in".to_owned(), self.life.as_secs().into());
        answer.insert("scope".to_owned(), "p2pi".into());
        if !keep && grant != Some("client_credentials") {
            let refresh = self.mint("refresh");
            self.refresh = Some(refresh.clone());
            answer.insert("refresh_token".to_owned(), refresh.into());
        }
        self.last_tokens = Some(answer.clone());
        answer
    }

    fn mint(&mut self, kind: &str) -> String {
        let secret = format!("hostile-{kind}-{:04}-Zm9yZWlnbg", self.issued.len());
        self.issued.push(secret.clone());
        secret
    }

    fn invalid_token(&self) -> Answer {
        let answer = text(401, "text/plain", "").with("www-authenticate", r#"Bearer error="invalid_token""#);
        if self.p2pid { answer.with("p2pi-error", "invalid_token") } else { answer }
    }
}

impl Answer {
    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// Refuses what was signed by another clock.
fn untimely(heard: &Heard, now: i64) -> Option<Answer> {
    let is_off =
        |signed: Option<(Value, Value)>| signed.is_some_and(|(_, claims)| claims["iat"].as_i64().is_none_or(|at| at.abs_diff(now) > 60));
    let is_expired = |(_, claims): (Value, Value)| claims["exp"].as_i64().is_none_or(|end| end <= now);
    if is_off(heard.assertion()) || heard.assertion().is_some_and(is_expired) {
        return Some(error(401, "invalid_client"));
    }
    if !is_off(heard.proof()) {
        return None;
    }
    Some(match heard.endpoint {
        Endpoint::Resource => text(401, "text/plain", "").with("www-authenticate", r#"DPoP error="invalid_dpop_proof""#),
        _ => error(400, "invalid_dpop_proof"),
    })
}

fn read(message: Message) -> Heard {
    let mut line = message.first_line.split(' ');
    let (method, target) = (line.next().unwrap_or_default().to_owned(), line.next().unwrap_or_default().to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let endpoint = match path {
        "/.well-known/oauth-authorization-server" => Endpoint::Metadata,
        "/.well-known/oauth-protected-resource" => Endpoint::ResourceMetadata,
        "/oauth/authorize" => Endpoint::Authorize,
        "/oauth/token" => Endpoint::Token,
        "/oauth/introspect" => Endpoint::Introspect,
        "/oauth/revoke" => Endpoint::Revoke,
        _ => Endpoint::Resource,
    };
    let form = message.header("content-type").is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    let pairs = if form { form_urlencoded::parse(&message.body) } else { form_urlencoded::parse(query.as_bytes()) };
    let parameters: Vec<(String, String)> = pairs.into_owned().collect();
    let authorization = message.header("authorization").unwrap_or_default();
    let basic = authorization.strip_prefix("Basic ").and_then(basic_pair);
    let posted = |name| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let client = basic.or_else(|| Some((posted("client_id")?, posted("client_secret")?)));
    let bearer = authorization.strip_prefix("Bearer ").or_else(|| authorization.strip_prefix("DPoP ")).map(str::to_owned);
    Heard { endpoint, method, target, parameters, client, bearer, message }
}

fn basic_pair(encoded: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let decoded = |text: &str| percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    text.split_once(':').map(|(id, secret)| (decoded(id), decoded(secret)))
}

fn s256(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes()))
}

/// Grants a WebSocket (RFC 6455 §4.2.2).
fn websocket(key: &str) -> Answer {
    let digest = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes(),
    );
    let headers = vec![("connection", "Upgrade".to_owned()), ("upgrade", "websocket".to_owned())];
    Answer { status: 101, headers, body: String::new() }.with("sec-websocket-accept", &STANDARD.encode(digest))
}

fn document(status: u16, body: &Value) -> Answer {
    text(status, "application/json", &body.to_string())
}

fn error(status: u16, code: &str) -> Answer {
    document(status, &json!({ "error": code, "error_description": "as the script says" }))
}

fn text(status: u16, kind: &str, body: &str) -> Answer {
    Answer { status, headers: vec![("content-type", kind.to_owned())], body: body.to_owned() }
}
