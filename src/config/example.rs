//! The documented configuration: what `config example` prints, `config/p2pid.toml` is, and `init` writes with an instance's own
//! values. Every key is in it, with its default where it has one.

use std::fmt::Write;

use url::Url;

/// What differs from one instance's file to another's; paths and addresses as they shall stand in the file.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// `instance.name`
    pub name: String,
    /// `instance.public_url`
    pub public_url: String,
    /// `instance.state_dir`
    pub state_dir: String,
    /// `public.listen`
    pub public_listen: Vec<String>,
    /// `public.tls`
    pub tls: BlueprintTls,
    /// `local.listen`
    pub local_listen: Vec<String>,
    /// `console.listen`
    pub console_listen: Vec<String>,
    /// `admin.socket`
    pub socket: String,
    /// The first route's upstream; without one the route is there to be filled in.
    pub upstream: Option<String>,
}

/// `public.tls` of a [`Blueprint`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlueprintTls {
    /// `{ cert, key }`
    Files {
        /// The chain's file.
        cert: String,
        /// The key's file.
        key: String,
    },
    /// `"self-signed"`
    SelfSigned,
    /// `"off"`
    Off,
}

/// The example configuration.
pub fn example() -> String {
    let blueprint = Blueprint {
        name: "instance1".to_owned(),
        public_url: "https://instance1.example.com:7443".to_owned(),
        state_dir: "/var/lib/p2pid/instance1".to_owned(),
        public_listen: vec!["[::]:7443".to_owned()],
        tls: BlueprintTls::Files { cert: "cert.pem".to_owned(), key: "key.pem".to_owned() },
        local_listen: vec!["127.0.0.1:7480".to_owned(), "unix:/run/p2pid/instance1/local.sock".to_owned()],
        console_listen: vec!["127.0.0.1:7490".to_owned()],
        socket: "/run/p2pid/instance1/admin.sock".to_owned(),
        upstream: Some("http://127.0.0.1:8080".to_owned()),
    };
    blueprint.text()
}

impl Blueprint {
    /// The configuration file.
    pub fn text(&self) -> String {
        let mut text = TEMPLATE.to_owned();
        let tls = match &self.tls {
            BlueprintTls::Files { cert, key } => format!("{{ cert = {}, key = {} }}", quoted(cert), quoted(key)),
            BlueprintTls::SelfSigned => quoted("self-signed"),
            BlueprintTls::Off => quoted("off"),
        };
        let places = [
            ("@NAME@", quoted(&self.name)),
            ("@PUBLIC_URL@", quoted(&self.public_url)),
            ("@MTLS_URL@", quoted(&self.mtls_url())),
            ("@STATE_DIR@", quoted(&self.state_dir)),
            ("@PUBLIC_LISTEN@", list(&self.public_listen)),
            ("@TLS@", tls),
            ("@LOCAL_LISTEN@", list(&self.local_listen)),
            ("@CONSOLE_LISTEN@", list(&self.console_listen)),
            ("@SOCKET@", quoted(&self.socket)),
            ("@ROUTE@", self.route()),
        ];
        for (mark, value) in places {
            text = text.replace(mark, &value);
        }
        text
    }

    /// An example of where clients could show a certificate: the next port of the same host.
    fn mtls_url(&self) -> String {
        let next = |url: &mut Url| {
            let port = url.port_or_known_default()?.checked_add(1)?;
            url.set_port(Some(port)).ok()
        };
        let mut url = Url::parse(&self.public_url).ok();
        match url.as_mut().and_then(next).and(url) {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None => self.public_url.clone(),
        }
    }

    fn route(&self) -> String {
        let upstream = self.upstream.as_deref().unwrap_or("http://127.0.0.1:8080");
        let route = ROUTE.replace("@UPSTREAM@", &quoted(upstream));
        if self.upstream.is_some() {
            return route;
        }
        let mut commented = "# No application yet: name its URL as `upstream`, and take the # away.\n".to_owned();
        for line in route.lines() {
            writeln!(commented, "# {line}").expect("a String takes everything");
        }
        commented
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

const ROUTE: &str = r#"[[route]]
path = "/p2pi"
# What follows `path` is appended to it. http, https, or h2c: HTTP/2 without TLS, as gRPC servers speak it.
upstream = @UPSTREAM@
# All of them are needed; each is described in [scopes].
scopes = ["p2pi"]
# Default: every method. They hold for the headers X-HTTP-Method-Override, X-HTTP-Method and X-Method-Override too, not for what an
# application reads from a query or a body (_method).
# methods = ["GET", "POST"]
# Whose peers may use it.
tenant = "default"
# "strict" refuses // and encoded slashes; "raw" passes them, where no other route lies below.
paths = "strict"
"#;

const TEMPLATE: &str = r#"# p2pid configuration.
#
# NAME.d/*.toml beside this file (NAME.toml) is read after it, in the order of the file names: tables merge key by key, a later
# value replaces an earlier one, and [[route]] entries add up. Unknown keys are errors. Relative paths start at this file's folder.
# Durations: "500ms", "10s", "5m", "1h 30m", "90d". Sizes: 65536, "64KiB", "1MiB". `p2pid check` says what is wrong and where.
# A change takes hold without a restart, or is refused as a whole; [instance], listeners and the admin socket need a restart.

[instance]
# How peers see us in P2PI-Error-From: letters, digits, dots, hyphens and underscores.
name = @NAME@
# The OAuth issuer and the base of every URL that we send. Only this names us, never a request's header. https (http only with a
# loopback host and tls = "off"); no query, fragment or trailing slash.
public_url = @PUBLIC_URL@
# Where peers call us: a path of or below a route. Default: the first route's path.
# p2pi_path = "/p2pi"
# Database, state key, development certificate; made by `run` (0700) when missing. Default: /var/lib/p2pid/NAME.
state_dir = @STATE_DIR@

# Peers and browsers.
[public]
listen = @PUBLIC_LISTEN@
# { cert = "cert.pem", key = "key.pem" }: the certificate chain, leaf first, and its key, both PEM. Default: these two files.
# "self-signed": a development certificate for public_url's host, kept in state_dir/tls/cert.pem; peers trust it with --ca.
# "off": on loopback addresses and Unix sockets only, behind a TLS proxy.
tls = @TLS@
# Proxies that are believed when they say for whom they ask: ["127.0.0.1", "10.0.0.0/8"]; "unix" is whoever connects to our Unix sockets.
trusted_proxies = []
# The header in which they say it: "x-forwarded-for" or "forwarded" (RFC 7239), the one that they write themselves. They hand on what clients
# put into the other. "either" believes whichever is there; a client that sends the other one too counts as the proxy, with all who do that.
forwarded_header = "either"
# Send Strict-Transport-Security. It holds for the host with all of its ports.
hsts = false
# Serve the admin API here too, at /v2, to programs that send HTTP Basic LOGIN:APIKEY (p2pid user key LOGIN).
admin_api = false

# Clients that show a certificate (mutual TLS, RFC 8705; `p2pid ib update NAME --mtls`). All that [public] serves is served here too.
[mtls]
# Who connects is asked for a certificate; none is needed, and any is taken. Browsers at [public] are not asked. ["[::]:7444"]
listen = []
# As in [public], which is the default.
# tls = { cert = "cert.pem", key = "key.pem" }
# Where clients find it, told to them in the metadata; needed to offer mutual TLS at all. Its path is that of [instance] public_url.
# public_url = @MTLS_URL@
# true: at [public] a trusted proxy says in Client-Cert (and Client-Cert-Chain, RFC 9440) which certificate a client showed it. It must
# take these headers out of what clients send.
client_cert_header = false
# Authorities that sign for clients, PEM.
ca = []

# The relay: this instance's own applications call peers here, at http://ADDRESS/PEER/PATH.
[local]
listen = @LOCAL_LISTEN@
# true: any process on this host may call (loopback addresses and Unix sockets only); false: a caller key is needed.
open = false
# Browsers are kept out, but for these: host names besides loopback ones, and web origins such as "https://apps.example.com".
hosts = []
origins = []

# Web console, admin API, /livez, /readyz, /metrics.
[console]
listen = @CONSOLE_LISTEN@
# As in [public]; an address that is not loopback needs a certificate.
tls = "off"
hosts = []
origins = []

# The command line talks to the daemon here.
[admin]
# Default: admin.sock in state_dir.
socket = @SOCKET@
# A group whose members may use it, besides root and the daemon's own user.
# group = "p2pid-admin"

# What of this instance's applications peers may reach. The longest path wins, on segment boundaries; "/" takes the rest.
@ROUTE@
# What peers can be allowed, and how the Allow page says it. A tenant's own scope: orders = { text = "…", tenant = "acme" }.
[scopes]
p2pi = "Call this instance's platform interface"

[tokens]
access_ttl = "1h"
# Idle life of a refresh token, renewed by each rotation.
refresh_ttl = "90d"
# Absolute life of a grant, never extended: a duration, or "off".
grant_ttl = "off"
# Life of an authorization code, ten minutes at most.
code_ttl = "60s"
# Life of a request URL.
request_ttl = "24h"
# retry_safe: replaced, and a lost answer is given again inside retry_window; strict: replaced, a second use is refused; none: kept.
rotation = "retry_safe"
retry_window = "60s"
# true: authorization requests are taken only when their app pushed them first (RFC 9126); `p2pid ib update --require-par` for one app.
require_par = false

# Certificate authorities besides the system's, PEM, for every peer; `p2pid peer create --ca FILE` for one.
[trust]
ca = []

[limits]
# All headers of a request or an answer, HTTP/1 and HTTP/2: 8KiB to 1MiB. A request has at most 100 of them, whatever their length.
header_bytes = "64KiB"
# A form or document for our own endpoints. Forwarded bodies stream.
form_bytes = "64KiB"
# A forwarded body; 0: no limit.
body_bytes = 0
# Open connections: of [public] and [mtls] together, of [local], and of [console], each. One address (of IPv6 the /64) has at most a quarter
# of those at [public], [mtls] and [console], unless it is one of trusted_proxies; more are answered 503.
connections = 10000
# Open connections that go out: calls to applications and calls to peers have most of them, half each, and an eighth is kept for what p2pid
# asks itself (tokens, metadata, keys). What finds none free is answered 503.
outgoing_connections = 10000
# Calls under way at the gateway with one grant (of an app that acts for itself, with all its tokens), and at the relay of one caller: at most a
# quarter of the connections that such calls have altogether.
calls_per_grant = 512
calls_per_caller = 1024
# Calls under way to one peer, and calls waiting for one.
calls_per_peer = 512
queue_per_peer = 1024
connect_timeout = "5s"
# From a request's last byte to the answer's first.
first_byte_timeout = "60s"
# Silence on a connection or inside a body.
idle_timeout = "60s"
# One token request to a peer.
token_timeout = "10s"
# How long a call waits for a refresh under way.
refresh_wait = "10s"
# How long calls under way may take after SIGTERM; idle connections close at once.
drain = "10s"
# Failed log-ins, client authentications and wrong keys for each client or user and address; then 429 with Retry-After. /s, /min, /h or /d.
auth_failures = "20/min"
# Requests with right credentials of each client and address at /oauth/token, /oauth/par, /oauth/introspect and /oauth/revoke, so that one that
# runs wild leaves room for the others; then 429 with Retry-After. "off" or 0: no limit.
client_requests = "60000/min"

# Who did what to which record, from where: `p2pid audit`.
[audit]
# How long rows are kept: at least a day. Before that the database refuses to delete them, and to change them ever.
keep = "400d"

# What a strict server refuses; each is needed only by a peer of that kind.
[compat]
# ?access_token=… in a query.
query_token = false
# The password grant, for realms alone (RFC 9700 §2.4 forbids it): their applications see passwords, so people with rights here are refused.
password_grant = false
# This version does not serve the rest, and refuses true.
# The well-known realm key as the default of new realms.
onesait_default_key = false
# Errors with status 200, as onesait writes them.
onesait_200_errors = false
# Callbacks matched by prefix.
callback_prefix = false
# PowerFolder's refresh by GET.
powerfolder_get_refresh = false
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Problems, load};

    /// A folder with the certificate that the example names.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let pair = rcgen::generate_simple_self_signed(["instance1.example.com".to_owned()]).expect("a certificate");
        std::fs::write(folder.path().join("cert.pem"), pair.cert.pem()).expect("a file");
        std::fs::write(folder.path().join("key.pem"), pair.signing_key.serialize_pem()).expect("a file");
        folder
    }

    fn load_in(folder: &tempfile::TempDir, text: &str) -> Result<Config, Problems> {
        let file = folder.path().join("instance1.toml");
        std::fs::write(&file, text).expect("a file");
        load(&file).map(|loaded| loaded.config)
    }

    #[test]
    fn the_shipped_file_is_the_example() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/p2pid.toml");
        let shipped = std::fs::read_to_string(path).expect("the shipped file");
        assert!(shipped == example(), "config/p2pid.toml differs; write it anew with: cargo run -- config example > config/p2pid.toml");
    }

    /// Each key is taken away in turn, and the configuration stays the same; but for keys that have no default.
    #[test]
    fn every_key_of_the_example_has_its_default() {
        let own = ["instance.name", "instance.public_url", "local.listen", "admin.socket"];
        let (folder, text) = (folder(), example());
        let whole = load_in(&folder, &text).expect("the example is valid");
        let lines: Vec<&str> = text.lines().collect();
        let mut table = "";
        for (number, line) in lines.iter().enumerate() {
            if line.starts_with('[') {
                table = line.trim_matches(['[', ']']);
            }
            let key = line.split_once(" = ").filter(|_| !line.starts_with('#')).map(|(key, _)| format!("{table}.{key}"));
            let Some(key) = key.filter(|key| !own.contains(&key.as_str()) && !["route", "scopes"].contains(&table)) else { continue };
            let without = [&lines[..number], &lines[number + 1..]].concat().join("\n");
            assert_eq!(load_in(&folder, &without).expect("valid without one key"), whole, "{key}");
        }
    }

    /// What an unknown key is told that there is, is in the example.
    #[test]
    fn every_key_is_in_the_example() {
        let (folder, text) = (folder(), example());
        for table in ["instance", "public", "mtls", "local", "console", "admin", "tokens", "trust", "limits", "audit", "compat"] {
            let header = format!("[{table}]\n");
            let problems = load_in(&folder, &text.replace(&header, &format!("{header}unheard_of = 1\n"))).expect_err("an unknown key");
            let known = problems.first().expected.strip_prefix("one of ").expect("a list of keys");
            let section = text.split_once(&header).map_or("", |(_, rest)| rest.split("\n[").next().unwrap_or(rest));
            for key in known.split(", ") {
                assert!(section.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = "))), "{table}.{key}");
            }
        }
    }

    #[test]
    fn hostile_values_stay_values() {
        let mut blueprint = Blueprint {
            name: "one".to_owned(),
            public_url: "https://one.example.com".to_owned(),
            state_dir: "a \"b\"\\\n[limits]\ndrain = 1".to_owned(),
            public_listen: vec!["[::]:7443".to_owned()],
            tls: BlueprintTls::SelfSigned,
            local_listen: Vec::new(),
            console_listen: Vec::new(),
            socket: "/s".to_owned(),
            upstream: None,
        };
        let folder = folder();
        let config = load_in(&folder, &blueprint.text()).expect("valid");
        assert!(config.instance.state_dir.ends_with(&blueprint.state_dir));
        assert!(config.routes.is_empty());
        let written = blueprint.text();
        let sample = written.lines().find_map(|line| line.strip_prefix("# public_url = ")).expect("a sample in [mtls]");
        let (ours, theirs) = (config.instance.public_url.url(), Url::parse(sample.trim_matches('"')).expect("a URL"));
        assert_eq!(
            (theirs.host(), theirs.port()),
            (ours.host(), ours.port_or_known_default().map(|port| port + 1)),
            "of this instance: {sample}"
        );
        blueprint.upstream = Some("http://127.0.0.1:1/x".to_owned());
        assert_eq!(load_in(&folder, &blueprint.text()).expect("valid").routes.len(), 1);
    }
}
