//! Single values: text as written → checked types, each with what belongs there when it is refused.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use super::section::Refusal;
use super::tree::{Node, Value, quoted};
use super::{ForwardedHeader, Listen, Paths, PublicUrl, Rate, Rotation};

/// The longest life that anything can be given.
const TEN_YEARS: Duration = Duration::from_secs(3653 * 86_400);
/// The longest path that a Unix socket's address holds.
const SOCKET_PATH: usize = 107;

pub(super) fn switch(node: &Node) -> Result<bool, Refusal> {
    match node.value {
        Value::Switch(switch) => Ok(switch),
        _ => Err(Refusal::expected("true or false")),
    }
}

/// A switch of something that this version does not have: who turns it on is told so, rather than left waiting for an effect.
pub(super) fn not_served(node: &Node) -> Result<(), Refusal> {
    if switch(node)? { Err(Refusal::expected("false: this version does not serve it")) } else { Ok(()) }
}

/// A name of an instance or tenant: it stands in headers, paths and file names.
pub(super) fn name(node: &Node) -> Result<String, Refusal> {
    let fits = |text: &str| {
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        first && text.len() <= 63 && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    text(node)
        .filter(|text| fits(text))
        .map(str::to_owned)
        .ok_or(Refusal::expected("a name of at most 63 letters, digits, dots, hyphens and underscores that starts with a letter or digit"))
}

/// A life such as `"90d"`: from one second to ten years.
pub(super) fn life(node: &Node) -> Result<Duration, Refusal> {
    duration(node, Duration::from_secs(1), TEN_YEARS)
        .ok_or(Refusal::expected("a duration from \"1s\" to ten years, such as \"1h\" or \"90d\""))
}

/// How long something is kept.
pub(super) fn keep(node: &Node) -> Result<Duration, Refusal> {
    duration(node, Duration::from_secs(86_400), TEN_YEARS).ok_or(Refusal::expected("a duration from \"1d\" to ten years, such as \"400d\""))
}

/// The life of a code: at most ten minutes (RFC 6749 §4.1.2).
pub(super) fn code_life(node: &Node) -> Result<Duration, Refusal> {
    duration(node, Duration::from_secs(1), Duration::from_secs(600))
        .ok_or(Refusal::expected("a duration from \"1s\" to \"10m\", such as \"60s\""))
}

/// A life, or `"off"`.
pub(super) fn life_or_off(node: &Node) -> Result<Option<Duration>, Refusal> {
    if text(node) == Some("off") {
        return Ok(None);
    }
    let life = duration(node, Duration::from_secs(1), TEN_YEARS);
    life.map(Some).ok_or(Refusal::expected("\"off\", or a duration from \"1s\" to ten years, such as \"365d\""))
}

/// How long something is waited for: from a millisecond to a day.
pub(super) fn timeout(node: &Node) -> Result<Duration, Refusal> {
    duration(node, Duration::from_millis(1), Duration::from_secs(86_400))
        .ok_or(Refusal::expected("a duration from \"1ms\" to \"1d\", such as \"10s\""))
}

/// As [`timeout`], or nothing at all.
pub(super) fn patience(node: &Node) -> Result<Duration, Refusal> {
    duration(node, Duration::ZERO, Duration::from_secs(86_400))
        .ok_or(Refusal::expected("a duration from \"0s\" to \"1d\", such as \"10s\""))
}

fn duration(node: &Node, least: Duration, most: Duration) -> Option<Duration> {
    let duration = humantime::parse_duration(text(node)?).ok()?;
    (least..=most).contains(&duration).then_some(duration)
}

/// A number of bytes from `least` to `most`, such as `65536` or `"64KiB"`.
pub(super) fn size(least: u64, most: u64) -> impl Fn(&Node) -> Result<u64, Refusal> {
    move |node| {
        let size = match &node.value {
            Value::Whole(number, _) => number.and_then(|number| u64::try_from(number).ok()),
            Value::Text(text) => bytes_of(text),
            _ => None,
        };
        size.filter(|size| (least..=most).contains(size)).ok_or_else(|| {
            let bounds = format!("from {} to {}", shown_size(least), shown_size(most));
            Refusal::expected(format!("a size {bounds}, in bytes or with a unit: 65536, \"64KiB\", \"1MiB\""))
        })
    }
}

fn bytes_of(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn shown_size(bytes: u64) -> String {
    let unit = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
        .into_iter()
        .find(|(factor, _)| bytes >= *factor && bytes.is_multiple_of(*factor));
    unit.map_or_else(|| bytes.to_string(), |(factor, unit)| format!("\"{}{unit}\"", bytes / factor))
}

/// A number from `least` to `most`.
pub(super) fn count(least: u32, most: u32) -> impl Fn(&Node) -> Result<usize, Refusal> {
    move |node| {
        let number = match node.value {
            Value::Whole(number, _) => number.and_then(|number| u32::try_from(number).ok()),
            _ => None,
        };
        let fits = number.filter(|number| (least..=most).contains(number)).and_then(|number| usize::try_from(number).ok());
        fits.ok_or_else(|| Refusal::expected(format!("a whole number from {least} to {most}")))
    }
}

/// So many in so long: `"20/min"`.
pub(super) fn rate(node: &Node) -> Result<Rate, Refusal> {
    let rate = || {
        let (count, unit) = text(node)?.split_once('/')?;
        let seconds = match unit.trim() {
            "s" | "sec" | "second" => 1,
            "min" | "minute" => 60,
            "h" | "hour" => 3_600,
            "d" | "day" => 86_400,
            _ => return None,
        };
        let count: u32 = count.trim().parse().ok()?;
        (1..=1_000_000).contains(&count).then_some(Rate { count, per: Duration::from_secs(seconds) })
    };
    rate().ok_or(Refusal::expected("a rate such as \"20/min\": a number from 1 to 1000000, then /s, /min, /h or /d"))
}

/// A rate, or `"off"` or `0` for none.
pub(super) fn rate_or_off(node: &Node) -> Result<Option<Rate>, Refusal> {
    if matches!(node.value, Value::Whole(Some(0), _)) || text(node) == Some("off") {
        return Ok(None);
    }
    let expected = |refusal: Refusal| Refusal::expected(format!("\"off\" or 0, or {}", refusal.expected));
    rate(node).map(Some).map_err(expected)
}

/// Who we are: see [`PublicUrl`].
pub(super) fn public_url(node: &Node) -> Result<PublicUrl, Refusal> {
    let text = text(node).ok_or(Refusal::expected("a URL, such as \"https://instance1.example.com:7443\""))?;
    PublicUrl::read(text)
}

impl PublicUrl {
    /// Reads an issuer identifier: absolute, `http` or `https`, without user, query, fragment and trailing slash, and in the form
    /// in which everybody writes it (lower-case host, no default port), since issuers are compared as text (RFC 8414 §3.3).
    pub(super) fn read(text: &str) -> Result<Self, Refusal> {
        let url = web_url(text, "a URL, such as \"https://instance1.example.com:7443\"")?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Refusal::found(quoted(text), "a URL without query and fragment"));
        }
        let normal = url.as_str().trim_end_matches('/');
        if text != normal {
            return Err(Refusal::expected(format!("{normal:?}: the normal form, without trailing slash and default port")));
        }
        Ok(Self { text: text.to_owned(), url })
    }
}

#[cfg(test)]
impl PublicUrl {
    /// A public URL for a test.
    pub(crate) fn sample(text: &str) -> Self {
        Self::read(text).unwrap_or_else(|_| panic!("{text} is no public URL"))
    }
}

/// Where a route goes; `h2c` is HTTP/2 without TLS.
pub(super) fn upstream(node: &Node) -> Result<Url, Refusal> {
    const EXPECTED: &str = "the http, https or h2c URL of an application, such as \"http://127.0.0.1:8080\"";
    let text = text(node).ok_or(Refusal::expected(EXPECTED))?;
    let url = url_of(text, &["http", "https", "h2c"], EXPECTED)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Refusal::found(quoted(text), "a URL without query and fragment"));
    }
    Ok(url)
}

fn web_url(text: &str, expected: &'static str) -> Result<Url, Refusal> {
    url_of(text, &["http", "https"], expected)
}

fn url_of(text: &str, schemes: &[&str], expected: &'static str) -> Result<Url, Refusal> {
    let url = Url::parse(text).map_err(|error| Refusal::found(format!("{} ({error})", without_user(text)), expected))?;
    if !schemes.contains(&url.scheme()) || url.host_str().is_none_or(str::is_empty) {
        return Err(Refusal::found(without_user(text), expected));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal::found("a URL with a user name or password in it", expected));
    }
    Ok(url)
}

/// A text that may be a URL with a password in it is not shown.
fn without_user(text: &str) -> String {
    if text.contains('@') { "a text with @ in it".to_owned() } else { quoted(text) }
}

/// An address to listen on; a socket's path is relative to `folder`.
pub(super) fn listen(folder: &Path) -> impl Fn(&Node) -> Result<Listen, Refusal> {
    move |node| {
        const EXPECTED: &str = "an address with port, such as \"127.0.0.1:7480\" or \"[::]:7443\", or \"unix:/path/of.sock\"";
        let text = text(node).ok_or(Refusal::expected(EXPECTED))?;
        match text.strip_prefix("unix:") {
            Some(path) => socket_path(folder, path).map(Listen::Unix),
            None => text.parse::<SocketAddr>().map(Listen::Tcp).map_err(|_| Refusal::expected(EXPECTED)),
        }
    }
}

/// A Unix socket's path.
pub(super) fn socket(folder: &Path) -> impl Fn(&Node) -> Result<PathBuf, Refusal> {
    move |node| socket_path(folder, text(node).ok_or(Refusal::expected("a path"))?)
}

fn socket_path(folder: &Path, text: &str) -> Result<PathBuf, Refusal> {
    let path = path_of(folder, text).ok_or(Refusal::expected("the path of a socket"))?;
    if path.as_os_str().len() > SOCKET_PATH {
        let found = format!("a path of {} bytes, {}", path.as_os_str().len(), quoted(text));
        return Err(Refusal::found(found, format!("at most {SOCKET_PATH} bytes, which is what a Unix socket's address holds")));
    }
    Ok(path)
}

/// A path, relative to `folder`.
pub(super) fn path(folder: &Path) -> impl Fn(&Node) -> Result<PathBuf, Refusal> {
    move |node| text(node).and_then(|text| path_of(folder, text)).ok_or(Refusal::expected("a path"))
}

fn path_of(folder: &Path, text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| folder.join(text))
}

/// Where a proxy is: `10.0.0.0/8`, or one address; `None` is `unix`, our Unix sockets.
pub(super) fn proxy(node: &Node) -> Result<Option<IpNet>, Refusal> {
    let network = |text: &str| text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let proxy = text(node).and_then(|text| if text == "unix" { Some(None) } else { network(text).map(Some) });
    proxy.ok_or(Refusal::expected("a network or an address, such as \"10.0.0.0/8\" or \"127.0.0.1\", or \"unix\""))
}

/// In which header proxies name the client.
pub(super) fn forwarded_header(node: &Node) -> Result<ForwardedHeader, Refusal> {
    match text(node) {
        Some("either") => Ok(ForwardedHeader::Either),
        Some("x-forwarded-for") => Ok(ForwardedHeader::XForwardedFor),
        Some("forwarded") => Ok(ForwardedHeader::Forwarded),
        _ => Err(Refusal::expected("\"either\", \"x-forwarded-for\" or \"forwarded\"")),
    }
}

/// A host name that a browser may use for us.
pub(super) fn host(node: &Node) -> Result<String, Refusal> {
    let host = text(node).filter(|text| url::Host::parse(text).is_ok_and(|host| host.to_string() == *text));
    host.map(str::to_owned).ok_or(Refusal::expected("a host name in lower case without port, such as \"apps.example.com\""))
}

/// A web origin, as browsers send it.
pub(super) fn origin(node: &Node) -> Result<String, Refusal> {
    let origin = text(node).filter(|text| {
        let url = Url::parse(text).ok();
        url.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == *text)
    });
    origin
        .map(str::to_owned)
        .ok_or(Refusal::expected("a web origin without trailing slash and default port, such as \"https://apps.example.com\""))
}

/// The path of a route, in the form in which requests' paths are matched.
pub(super) fn route_path(node: &Node) -> Result<String, Refusal> {
    text(node).filter(|text| is_normal_path(text)).map(str::to_owned).ok_or(Refusal::expected(
        "a path such as \"/p2pi\": a slash first and none at the end, no empty, \".\" or \"..\" segments, no query, no escapes",
    ))
}

fn is_normal_path(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    let plain = rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@/".contains(&byte));
    let whole = rest.is_empty() || rest.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
    path.len() <= 1024 && plain && whole
}

/// One scope token (RFC 6749 §3.3).
pub(super) fn scope_token(node: &Node) -> Result<String, Refusal> {
    let token = text(node).filter(|text| is_scope_token(text));
    token.map(str::to_owned).ok_or(Refusal::expected("a scope: printable ASCII without spaces, quotation marks and backslashes"))
}

/// Whether `text` is one scope token.
pub(super) fn is_scope_token(text: &str) -> bool {
    text.len() <= 128 && crate::oauth::scope::Scope::from_words([text]).is_ok()
}

/// What the Allow page says: one line.
pub(super) fn sentence(node: &Node) -> Result<String, Refusal> {
    let fits = |text: &&str| !text.trim().is_empty() && text.chars().count() <= 300 && !text.chars().any(char::is_control);
    text(node)
        .filter(fits)
        .map(str::to_owned)
        .ok_or(Refusal::expected("one line of at most 300 characters that says what the scope allows"))
}

/// A method that a route can pass.
pub(super) fn method(node: &Node) -> Result<http::Method, Refusal> {
    let fits =
        |text: &&str| text.len() <= 32 && !text.bytes().any(|byte| byte.is_ascii_lowercase()) && !matches!(*text, "CONNECT" | "TRACE");
    let method = text(node).filter(fits).and_then(|text| http::Method::from_bytes(text.as_bytes()).ok());
    method.ok_or(Refusal::expected("a method in upper case, such as \"GET\", but neither CONNECT nor TRACE"))
}

pub(super) fn paths(node: &Node) -> Result<Paths, Refusal> {
    match text(node) {
        Some("strict") => Ok(Paths::Strict),
        Some("raw") => Ok(Paths::Raw),
        _ => Err(Refusal::expected("\"strict\" or \"raw\"")),
    }
}

pub(super) fn rotation(node: &Node) -> Result<Rotation, Refusal> {
    match text(node) {
        Some("retry_safe") => Ok(Rotation::RetrySafe),
        Some("strict") => Ok(Rotation::Strict),
        Some("none") => Ok(Rotation::None),
        _ => Err(Refusal::expected("\"retry_safe\", \"strict\" or \"none\"")),
    }
}

/// The name of a group of the system.
pub(super) fn group(node: &Node) -> Result<String, Refusal> {
    let fits =
        |text: &&str| !text.is_empty() && text.len() <= 256 && !text.bytes().any(|byte| byte <= b' ' || byte == b':' || byte == 0x7f);
    text(node).filter(fits).map(str::to_owned).ok_or(Refusal::expected("the name of a group, such as \"p2pid-admin\""))
}

/// The text at `node`, if it is one.
pub(super) fn text(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}
