//! The tree becomes a [`Config`]: one function per table, each key with its type and its default.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::CertificateDer;

use super::section::{Findings, Placed, Refusal, Section};
use super::tree::{Node, Table, Value};
use super::values;
use super::{
    Admin, Audit, Compat, Config, Console, ForwardedHeader, Instance, Limits, Listen, Local, Mtls, OfferedScope, Paths, Public, Rate,
    Rotation, Route, Tls, Tokens, Trust, TrustedProxies,
};
use super::{checks, files};

/// What holds when a key is not written; the example configuration shows the same.
pub(super) mod default {
    use super::*;

    /// The tenant that exists from the start.
    pub(crate) const TENANT: &str = "default";

    /// `[audit] keep`: more than a year.
    pub(crate) const AUDIT_KEEP: Duration = Duration::from_secs(400 * 86_400);

    /// Where the state of the instance `name` is.
    pub(crate) fn state_dir(name: &str) -> PathBuf {
        Path::new("/var/lib/p2pid").join(name)
    }

    /// The admin socket beside the state.
    pub(crate) fn socket(state_dir: &Path) -> PathBuf {
        state_dir.join("admin.sock")
    }

    /// `[tokens]`
    pub(crate) fn tokens() -> Tokens {
        Tokens {
            access_ttl: Duration::from_secs(3_600),
            refresh_ttl: Duration::from_secs(90 * 86_400),
            grant_ttl: None,
            code_ttl: Duration::from_secs(60),
            request_ttl: Duration::from_secs(86_400),
            rotation: Rotation::RetrySafe,
            retry_window: Duration::from_secs(60),
            require_par: false,
        }
    }

    /// `[limits]`
    pub(crate) fn limits() -> Limits {
        Limits {
            header_bytes: 64 << 10,
            form_bytes: 64 << 10,
            body_bytes: 0,
            connections: 10_000,
            outgoing_connections: 10_000,
            calls_per_grant: 512,
            calls_per_caller: 1_024,
            calls_per_peer: 512,
            queue_per_peer: 1_024,
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            token_timeout: Duration::from_secs(10),
            refresh_wait: Duration::from_secs(10),
            drain: Duration::from_secs(10),
            auth_failures: Rate { count: 20, per: Duration::from_secs(60) },
            client_requests: Some(Rate { count: 60_000, per: Duration::from_secs(60) }),
        }
    }
}

/// A listener's addresses as they were written, for the checks between listeners.
pub(super) struct Listening {
    pub public: Vec<Placed<Listen>>,
    pub mtls: Vec<Placed<Listen>>,
    pub local: Vec<Placed<Listen>>,
    pub console: Vec<Placed<Listen>>,
    pub admin: Placed<PathBuf>,
}

/// A route, and where its parts are written.
pub(super) struct PlacedRoute {
    pub route: Placed<Route>,
    pub paths: super::tree::Place,
    pub scopes: Vec<Placed<String>>,
}

/// Reads the merged `table`; `folder` is where relative paths start. What is wrong goes into `findings`; without the
/// instance's name and URL there is no configuration to hand back. Certificates, keys and authorities are added to `materials`.
pub(super) fn build(table: &Table, folder: &Path, materials: &mut Vec<PathBuf>, findings: &Findings) -> Option<Config> {
    let mut root = Section::root(table, findings);
    let instance = instance(root.section("instance"), folder);
    let (public, public_listen, public_tls) = public(root.section("public"), folder, materials, findings);
    let (mtls, mtls_listen, mtls_url) = mtls(root.section("mtls"), &public, folder, materials, findings);
    let (local, local_listen, open) = local(root.section("local"), folder);
    let (console, console_listen) = console(root.section("console"), folder, materials, findings);
    let admin = admin(root.section("admin"), folder);
    let routes = root.sections("route").into_iter().filter_map(route).collect::<Vec<_>>();
    let scopes = scopes(&root.section("scopes"));
    let tokens = tokens(root.section("tokens"));
    let trust = trust(root.section("trust"), folder, materials, findings);
    let limits = limits(root.section("limits"));
    let audit = audit(root.section("audit"));
    let compat = compat(root.section("compat"));
    root.end();

    checks::open(&open, &local_listen, findings);
    checks::routes(&routes, public.admin_api, findings);
    checks::route_scopes(&routes, &scopes, findings);
    let instance = instance?;
    checks::public_url(&instance.public_url, &public_tls.value, findings);
    let first = routes.first().map(|first| first.route.value.path.clone());
    if let Some(path) = &instance.p2pi_path {
        checks::p2pi_path(path, &routes, findings);
    }
    let socket =
        admin.0.unwrap_or_else(|| Placed { value: default::socket(&instance.state_dir), at: admin.2, key: "admin.socket".to_owned() });
    if let Some(url) = &mtls_url {
        checks::mtls_public_url(url, &instance.public_url.value, findings);
    }
    let listening =
        Listening { public: public_listen, mtls: mtls_listen, local: local_listen, console: console_listen, admin: socket.clone() };
    checks::addresses(&listening, findings);

    let mut routes: Vec<Route> = routes.into_iter().map(|placed| placed.route.value).collect();
    routes.sort_by(|a, b| b.path.len().cmp(&a.path.len()).then_with(|| a.path.cmp(&b.path)));
    let config = Config {
        instance: Instance {
            name: instance.name,
            public_url: instance.public_url.value,
            p2pi_path: instance.p2pi_path.map(|placed| placed.value).or(first).unwrap_or_else(|| "/".to_owned()),
            state_dir: instance.state_dir,
        },
        public,
        mtls,
        local,
        console,
        admin: Admin { socket: socket.value, group: admin.1 },
        routes,
        scopes: scopes.into_iter().map(|placed| placed.value).collect(),
        tokens,
        trust,
        limits,
        audit,
        compat,
    };
    Some(config)
}

struct WrittenInstance {
    name: String,
    public_url: Placed<super::PublicUrl>,
    p2pi_path: Option<Placed<String>>,
    state_dir: PathBuf,
}

fn instance(mut section: Section<'_>, folder: &Path) -> Option<WrittenInstance> {
    let name = section.required("name", "the instance's name, such as \"instance1\"", values::name);
    let public_url = section.required(
        "public_url",
        "the URL under which peers reach this instance, such as \"https://instance1.example.com:7443\"",
        values::public_url,
    );
    let p2pi_path = section.placed("p2pi_path", values::route_path);
    let state_dir = section.optional("state_dir", values::path(folder));
    section.end();
    let name = name?.value;
    let state_dir = state_dir.unwrap_or_else(|| default::state_dir(&name));
    Some(WrittenInstance { name, public_url: public_url?, p2pi_path, state_dir })
}

fn public(
    mut section: Section<'_>,
    folder: &Path,
    materials: &mut Vec<PathBuf>,
    findings: &Findings,
) -> (Public, Vec<Placed<Listen>>, Placed<Tls>) {
    let everywhere = Listen::Tcp("[::]:7443".parse().expect("a constant address"));
    // Peers and browsers need somewhere to go.
    let written = section.some("listen", ADDRESSES, values::listen(folder));
    let listen = or_default(&section, written, everywhere);
    let files = Tls::Files { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
    let tls = tls(&mut section, folder, files, materials, findings);
    checks::clear_text(&tls, &listen, findings);
    let public = Public {
        listen: listen.iter().map(|placed| placed.value.clone()).collect(),
        tls: tls.value.clone(),
        trusted_proxies: trusted_proxies(&mut section),
        hsts: section.or("hsts", false, values::switch),
        admin_api: section.or("admin_api", false, values::switch),
    };
    section.end();
    (public, listen, tls)
}

fn trusted_proxies(section: &mut Section<'_>) -> TrustedProxies {
    let written = list(section.list("trusted_proxies", "a list of networks, such as [\"10.0.0.0/8\"]", values::proxy));
    TrustedProxies {
        // `None` stands for them.
        unix: written.contains(&None),
        networks: written.into_iter().flatten().collect(),
        header: section.or("forwarded_header", ForwardedHeader::default(), values::forwarded_header),
    }
}

fn mtls(
    mut section: Section<'_>,
    public: &Public,
    folder: &Path,
    materials: &mut Vec<PathBuf>,
    findings: &Findings,
) -> (Mtls, Vec<Placed<Listen>>, Option<Placed<super::PublicUrl>>) {
    const URL: &str = "the URL under which clients reach this instance with a certificate, such as \"https://instance1.example.com:7444\"";
    let listen = section.list("listen", "a list of addresses, such as [\"[::]:7444\"]", values::listen(folder)).unwrap_or_default();
    let at = section.place_of("listen");
    let written = tls(&mut section, folder, Tls::Off, materials, findings);
    let tls = if section.has("tls") { written } else { Placed { value: public.tls.clone(), ..written } };
    let public_url = section.placed("public_url", values::public_url);
    let header = section.placed("client_cert_header", values::switch);
    let (ca, authorities) = authorities(&mut section, folder, materials, findings);
    checks::asks_for_certificates(&tls, &listen, findings);
    let asks = !listen.is_empty() || header.as_ref().is_some_and(|header| header.value);
    if asks && !section.has("public_url") {
        findings.note(at, section.path("public_url"), "nothing", URL);
    }
    if let (Some(url), false) = (&public_url, asks) {
        let expected = "`mtls.listen`, or `mtls.client_cert_header` behind a proxy, which ask clients for certificates";
        findings.note(url.at, url.key.clone(), "a URL at which nobody is asked for a certificate", expected);
    }
    if let Some(header) = header.as_ref().filter(|header| header.value && public.trusted_proxies.is_empty()) {
        findings.note(header.at, header.key.clone(), "true, without `public.trusted_proxies`", "the proxies that send Client-Cert");
    }
    section.end();
    let mtls = Mtls {
        listen: listen.iter().map(|placed| placed.value.clone()).collect(),
        tls: tls.value,
        public_url: public_url.as_ref().map(|placed| placed.value.clone()),
        client_cert_header: header.is_some_and(|header| header.value),
        ca,
        authorities,
    };
    (mtls, listen, public_url)
}

fn local(mut section: Section<'_>, folder: &Path) -> (Local, Vec<Placed<Listen>>, Option<Placed<bool>>) {
    let written = section.list("listen", ADDRESSES, values::listen(folder));
    let listen = or_default(&section, written, loopback(7480));
    let open = section.placed("open", values::switch);
    let local = Local {
        listen: listen.iter().map(|placed| placed.value.clone()).collect(),
        open: open.as_ref().is_some_and(|open| open.value),
        hosts: hosts(&mut section),
        origins: origins(&mut section),
    };
    section.end();
    (local, listen, open)
}

fn console(mut section: Section<'_>, folder: &Path, materials: &mut Vec<PathBuf>, findings: &Findings) -> (Console, Vec<Placed<Listen>>) {
    let written = section.list("listen", ADDRESSES, values::listen(folder));
    let listen = or_default(&section, written, loopback(7490));
    let tls = tls(&mut section, folder, Tls::Off, materials, findings);
    checks::clear_text(&tls, &listen, findings);
    let console = Console {
        listen: listen.iter().map(|placed| placed.value.clone()).collect(),
        tls: tls.value,
        hosts: hosts(&mut section),
        origins: origins(&mut section),
    };
    section.end();
    (console, listen)
}

fn admin(mut section: Section<'_>, folder: &Path) -> (Option<Placed<PathBuf>>, Option<String>, super::tree::Place) {
    let socket = section.placed("socket", values::socket(folder));
    let group = section.optional("group", values::group);
    let at = section.place_of("socket");
    section.end();
    (socket, group, at)
}

const ADDRESSES: &str = "a list of addresses, such as [\"127.0.0.1:7480\"]";

/// The addresses that were written, or the one that is meant where none were.
fn or_default(section: &Section<'_>, written: Option<Vec<Placed<Listen>>>, default: Listen) -> Vec<Placed<Listen>> {
    written.unwrap_or_else(|| vec![Placed { value: default, at: section.place_of("listen"), key: section.path("listen") }])
}

fn loopback(port: u16) -> Listen {
    Listen::Tcp((std::net::Ipv4Addr::LOCALHOST, port).into())
}

fn hosts(section: &mut Section<'_>) -> Vec<String> {
    list(section.list("hosts", "a list of host names, such as [\"apps.example.com\"]", values::host))
}

fn origins(section: &mut Section<'_>) -> Vec<String> {
    list(section.list("origins", "a list of web origins, such as [\"https://apps.example.com\"]", values::origin))
}

fn list<T>(items: Option<Vec<Placed<T>>>) -> Vec<T> {
    items.into_iter().flatten().map(|placed| placed.value).collect()
}

/// `tls = { cert, key }`, `"self-signed"` or `"off"`; files are checked, those of the default too.
fn tls(section: &mut Section<'_>, folder: &Path, default: Tls, materials: &mut Vec<PathBuf>, findings: &Findings) -> Placed<Tls> {
    const EXPECTED: &str = "{ cert = \"FILE\", key = \"FILE\" }, \"self-signed\" or \"off\"";
    let key = section.path("tls");
    let at = section.place_of("tls");
    let is_table = |node: &Node| matches!(node.value, Value::Table(_));
    let written = section.optional("tls", |node| match values::text(node) {
        Some("self-signed") => Ok(Some(Tls::SelfSigned)),
        Some("off") => Ok(Some(Tls::Off)),
        None if is_table(node) => Ok(None),
        _ => Err(Refusal::expected(EXPECTED)),
    });
    let value = match written {
        Some(Some(tls)) => tls,
        Some(None) => {
            let mut files = section.section("tls");
            let cert = files.required("cert", "the file of the certificate chain", values::path(folder));
            let private = files.required("key", "the file of the private key", values::path(folder));
            files.end();
            if let (Some(cert), Some(private)) = (cert, private) {
                check_pair(&cert, &private, findings);
                Tls::Files { cert: cert.value, key: private.value }
            } else {
                Tls::Off
            }
        }
        None if section.has("tls") => Tls::Off,
        None => {
            if let Tls::Files { cert, key: private } = &default {
                let placed = |name: &str, value: &PathBuf| Placed { value: value.clone(), at, key: format!("{key}.{name}") };
                check_pair(&placed("cert", cert), &placed("key", private), findings);
            }
            default
        }
    };
    if let Tls::Files { cert, key } = &value {
        materials.extend([cert.clone(), key.clone()]);
    }
    Placed { value, at, key }
}

fn check_pair(cert: &Placed<PathBuf>, key: &Placed<PathBuf>, findings: &Findings) {
    let note = |placed: &Placed<PathBuf>, refusal: Refusal| {
        let found = refusal.found.unwrap_or_else(|| placed.value.display().to_string());
        findings.note(placed.at, placed.key.clone(), found, refusal.expected);
    };
    let chain = match files::certificates(&cert.value) {
        Ok(chain) => Some(chain),
        Err(refusal) => {
            note(cert, refusal);
            None
        }
    };
    if let Err(refusal) = files::private_key(&key.value, chain) {
        note(key, refusal);
    }
}

fn route(mut section: Section<'_>) -> Option<PlacedRoute> {
    let path = section.required("path", "the path prefix, such as \"/p2pi\"", values::route_path);
    let upstream = section.required("upstream", "the application's URL, such as \"http://127.0.0.1:8080\"", values::upstream);
    let scopes = section.list("scopes", "a list of scopes, such as [\"p2pi\"]", values::scope_token).unwrap_or_default();
    let methods = section.some("methods", "a list of methods, such as [\"GET\", \"POST\"]", values::method);
    let tenant = section.or("tenant", default::TENANT.to_owned(), values::name);
    let paths = section.or("paths", Paths::Strict, values::paths);
    let paths_place = section.place_of("paths");
    section.end();
    let path = path?;
    let words = scopes.iter().map(|placed| placed.value.as_str());
    let value = Route {
        path: path.value,
        upstream: upstream?.value,
        scopes: crate::oauth::scope::Scope::from_words(words).expect("each was read as a scope token"),
        methods: methods.map(|methods| list(Some(methods))),
        tenant,
        paths,
    };
    Some(PlacedRoute { route: Placed { value, at: path.at, key: path.key }, paths: paths_place, scopes })
}

/// `name = "text"`, or `name = { text = "…", tenant = "…" }`.
fn scopes(section: &Section<'_>) -> Vec<Placed<(String, OfferedScope)>> {
    section.each(|name, node| {
        if !values::is_scope_token(name) {
            let found = format!("the scope {}", super::tree::quoted(name));
            return Err(Refusal::found(found, "a scope's name: printable ASCII without spaces, quotation marks and backslashes"));
        }
        let Value::Table(table) = &node.value else {
            return Ok(OfferedScope { text: values::sentence(node)?, tenant: default::TENANT.to_owned() });
        };
        if let Some((key, _)) = table.entries().find(|(key, _)| !matches!(*key, "text" | "tenant")) {
            return Err(Refusal::found(format!("an unknown key {key}"), "{ text = \"what the Allow page says\", tenant = \"default\" }"));
        }
        let text = table.entry("text").ok_or(Refusal::found("no text", "{ text = \"what the Allow page says\" }"))?;
        let tenant = table.entry("tenant").map_or(Ok(default::TENANT.to_owned()), |entry| values::name(&entry.node))?;
        Ok(OfferedScope { text: values::sentence(&text.node)?, tenant })
    })
}

fn tokens(mut section: Section<'_>) -> Tokens {
    let default = default::tokens();
    let tokens = Tokens {
        access_ttl: section.or("access_ttl", default.access_ttl, values::life),
        refresh_ttl: section.or("refresh_ttl", default.refresh_ttl, values::life),
        grant_ttl: section.or("grant_ttl", default.grant_ttl, values::life_or_off),
        code_ttl: section.or("code_ttl", default.code_ttl, values::code_life),
        request_ttl: section.or("request_ttl", default.request_ttl, values::life),
        rotation: section.or("rotation", default.rotation, values::rotation),
        retry_window: section.or("retry_window", default.retry_window, values::life),
        require_par: section.or("require_par", default.require_par, values::switch),
    };
    section.end();
    tokens
}

fn trust(mut section: Section<'_>, folder: &Path, materials: &mut Vec<PathBuf>, findings: &Findings) -> Trust {
    let (ca, authorities) = authorities(&mut section, folder, materials, findings);
    section.end();
    Trust { ca, contents: files::digest_of(&authorities) }
}

/// `ca`: files of certificate authorities, and what they hold.
fn authorities(
    section: &mut Section<'_>,
    folder: &Path,
    materials: &mut Vec<PathBuf>,
    findings: &Findings,
) -> (Vec<PathBuf>, Vec<CertificateDer<'static>>) {
    let files = section.list("ca", "a list of PEM files, such as [\"peer-ca.pem\"]", values::path(folder)).unwrap_or_default();
    let mut authorities = Vec::new();
    for file in &files {
        match files::authorities(&file.value) {
            Ok(more) => authorities.extend(more),
            Err(refusal) => findings.note(file.at, file.key.clone(), refusal.found.unwrap_or_default(), refusal.expected),
        }
    }
    let ca: Vec<PathBuf> = files.into_iter().map(|placed| placed.value).collect();
    materials.extend(ca.iter().cloned());
    (ca, authorities)
}

fn limits(mut section: Section<'_>) -> Limits {
    let default = default::limits();
    // hyper takes no header buffer under 8 KiB.
    let head = values::size(8 << 10, 1 << 20);
    let form = values::size(1 << 10, 16 << 20);
    let memory = |bytes: u64| usize::try_from(bytes).expect("at most 16 MiB, by the bounds above");
    let limits = Limits {
        header_bytes: section.or("header_bytes", default.header_bytes, |node| head(node).map(memory)),
        form_bytes: section.or("form_bytes", default.form_bytes, |node| form(node).map(memory)),
        body_bytes: section.or("body_bytes", default.body_bytes, values::size(0, 1 << 50)),
        connections: section.or("connections", default.connections, values::count(1, 1_000_000)),
        outgoing_connections: section.or("outgoing_connections", default.outgoing_connections, values::count(1, 1_000_000)),
        calls_per_grant: section.or("calls_per_grant", default.calls_per_grant, values::count(1, 1_000_000)),
        calls_per_caller: section.or("calls_per_caller", default.calls_per_caller, values::count(1, 1_000_000)),
        calls_per_peer: section.or("calls_per_peer", default.calls_per_peer, values::count(1, 100_000)),
        queue_per_peer: section.or("queue_per_peer", default.queue_per_peer, values::count(0, 1_000_000)),
        connect_timeout: section.or("connect_timeout", default.connect_timeout, values::timeout),
        first_byte_timeout: section.or("first_byte_timeout", default.first_byte_timeout, values::timeout),
        idle_timeout: section.or("idle_timeout", default.idle_timeout, values::timeout),
        token_timeout: section.or("token_timeout", default.token_timeout, values::timeout),
        refresh_wait: section.or("refresh_wait", default.refresh_wait, values::patience),
        drain: section.or("drain", default.drain, values::patience),
        auth_failures: section.or("auth_failures", default.auth_failures, values::rate),
        client_requests: section.or("client_requests", default.client_requests, values::rate_or_off),
    };
    section.end();
    limits
}

fn audit(mut section: Section<'_>) -> Audit {
    let audit = Audit { keep: section.or("keep", default::AUDIT_KEEP, values::keep) };
    section.end();
    audit
}

fn compat(mut section: Section<'_>) -> Compat {
    // Nothing to keep of those that are not served: what reads without a problem is off.
    for key in ["onesait_default_key", "onesait_200_errors", "callback_prefix", "powerfolder_get_refresh"] {
        section.optional(key, values::not_served);
    }
    let compat = Compat {
        query_token: section.or("query_token", false, values::switch),
        password_grant: section.or("password_grant", false, values::switch),
    };
    section.end();
    compat
}
