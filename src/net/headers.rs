//! Which headers a forwarded call and its answer keep, lose and gain.
//!
//! Nothing that a client sends may decide who it is: what an application could take for our word is dropped before our own is added.
//! Names are compared with `_`, and whatever else is no letter or digit, read as `-`, because CGI-like interfaces make all of them the same
//! variable. Trailers obey the same rules.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};

use super::claims;
use super::problem::{ERROR, ERROR_FROM};
use crate::inbound::permit::Bearer;

const P2PI_CLIENT: HeaderName = HeaderName::from_static("p2pi-client");
const P2PI_INSTANCE: HeaderName = HeaderName::from_static("p2pi-instance");
const P2PI_SUBJECT: HeaderName = HeaderName::from_static("p2pi-subject");
const P2PI_SCOPE: HeaderName = HeaderName::from_static("p2pi-scope");
const P2PI_TENANT: HeaderName = HeaderName::from_static("p2pi-tenant");

/// How the names of our own cookies begin, of every instance, behind `__Host-` where they have it: cookies are not separated by port. They
/// never leave for an application or a peer, and no application sets one.
const COOKIE_PREFIX: &[u8] = b"p2pid-";

/// Who calls, as the application is told; made once per token.
#[derive(Clone, Debug)]
pub struct Identity {
    client: HeaderValue,
    instance: HeaderValue,
    subject: HeaderValue,
    scope: HeaderValue,
    tenant: HeaderValue,
}

impl Identity {
    /// The headers that name `bearer`.
    pub fn new(bearer: &Bearer) -> Self {
        Self {
            client: visible(&bearer.client_id),
            instance: visible(&bearer.app_name),
            subject: visible(&bearer.subject),
            scope: HeaderValue::try_from(bearer.scope.to_string()).expect("scope tokens are visible ASCII"),
            tenant: visible(&bearer.tenant),
        }
    }

    /// Adds them, in place of anything of the same name.
    pub fn add_to(&self, headers: &mut HeaderMap) {
        headers.insert(P2PI_CLIENT, self.client.clone());
        headers.insert(P2PI_INSTANCE, self.instance.clone());
        headers.insert(P2PI_SUBJECT, self.subject.clone());
        headers.insert(P2PI_SCOPE, self.scope.clone());
        headers.insert(P2PI_TENANT, self.tenant.clone());
    }
}

/// The value of `Forwarded` (RFC 7239) for calls of one client address; `public` is our own host and scheme, never a request's.
/// A client without an address, on a Unix socket, is `unknown`.
pub fn forwarded(client: Option<IpAddr>, public: &url::Url) -> HeaderValue {
    let host = public.host_str().unwrap_or_default();
    let port = public.port().map(|port| format!(":{port}")).unwrap_or_default();
    let client = match client.map(|address| address.to_canonical()) {
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => format!("\"[{address}]\""),
        None => "unknown".to_owned(),
    };
    let value = format!("for={client};host=\"{host}{port}\";proto={}", public.scheme());
    HeaderValue::try_from(value).expect("addresses and hosts of URLs are visible ASCII")
}

/// `text` as a header value: what is not visible ASCII is percent-encoded, and so is `%`, so that no two texts look the same.
pub fn visible(text: &str) -> HeaderValue {
    const HIDDEN: percent_encoding::AsciiSet = percent_encoding::CONTROLS.add(b' ').add(b'%');
    let encoded = percent_encoding::utf8_percent_encode(text, &HIDDEN).to_string();
    HeaderValue::try_from(encoded).expect("percent-encoded text is visible ASCII")
}

/// What a client asks the application to take its method for: many frameworks heed one of these headers.
pub fn method_overrides(headers: &HeaderMap) -> impl Iterator<Item = &HeaderValue> {
    let is_one = |name: &HeaderName| matches!(&*read(name.as_str()), "x-http-method-override" | "x-http-method" | "x-method-override");
    headers.iter().filter(move |(name, _)| is_one(name)).map(|(_, value)| value)
}

/// Whether a body comes as it is, or `chunked`, which is all that is undone here: in any other transfer coding it would be passed on as what it
/// is not (RFC 9112 §6.1).
pub fn is_framed_plainly(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// Leaves an answer one account of its length: where it came in chunks, a `Content-Length` beside them is nothing, and whoever got it without
/// the chunks would cut the body there (RFC 9112 §6.3). False when it came in a coding that is not undone here.
pub fn settle_framing(headers: &mut HeaderMap) -> bool {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    is_framed_plainly(headers)
}

/// Takes out of a request what ends here: hop-by-hop headers (those named by `Connection` first), credentials, everything that claims
/// who calls or by which way, `Host`, and our own cookies. `TE: trailers` stays: the bodies that we stream keep their trailers.
pub fn strip_request(headers: &mut HeaderMap) {
    let takes_trailers = headers.get_all(header::TE).iter().any(|value| names(value).any(|name| name == "trailers"));
    drop_named_by_connection(headers);
    headers.remove(header::AUTHORIZATION);
    headers.remove(header::HOST);
    drop_where(headers, |name| is_hop_by_hop(name) || claims::are_made_by(name));
    drop_own_cookies(headers);
    if takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Takes out of an application's answer what is hop-by-hop and what only we may say: `P2PI-*`, `Strict-Transport-Security` (it holds for
/// the host, not for the application) and cookies named like ours.
pub fn strip_application_answer(headers: &mut HeaderMap) {
    drop_named_by_connection(headers);
    drop_where(headers, |name| is_hop_by_hop(name) || name.starts_with("p2pi-") || name == "strict-transport-security");
    drop_own_set_cookies(headers);
}

/// Takes out of a peer's answer what is hop-by-hop, and cookies named like ours. Its own errors pass as they are, but for those that it
/// signs with `us`, the name of this instance.
pub fn strip_peer_answer(headers: &mut HeaderMap, us: &str) {
    drop_named_by_connection(headers);
    let is_signed = |(name, value): (&HeaderName, &HeaderValue)| read(name.as_str()) == ERROR_FROM.as_str() && value == us;
    let is_forged = headers.iter().any(is_signed);
    drop_where(headers, |name| is_hop_by_hop(name) || is_forged && (name == ERROR.as_str() || name == ERROR_FROM.as_str()));
    drop_own_set_cookies(headers);
}

/// Takes out of a request's trailers what a header section would lose, and what frames or routes a message (RFC 9110 §6.5.1).
pub fn strip_request_trailers(trailers: &mut HeaderMap) {
    drop_where(trailers, |name| claims::are_made_by(name) || is_no_trailer(name));
}

/// The same for an application's answer.
pub fn strip_application_trailers(trailers: &mut HeaderMap) {
    drop_where(trailers, |name| name.starts_with("p2pi-") || is_no_trailer(name));
}

/// The same for a peer's answer.
pub fn strip_peer_trailers(trailers: &mut HeaderMap) {
    drop_where(trailers, is_no_trailer);
}

/// Whether `headers` ask to become a WebSocket (RFC 6455 §4.1).
pub fn asks_for_websocket(headers: &HeaderMap) -> bool {
    names_websocket(headers)
        && headers.get_all(header::CONNECTION).iter().any(|value| names(value).any(|name| name.eq_ignore_ascii_case("upgrade")))
}

/// Whether `Upgrade` is `websocket` and nothing else.
pub fn names_websocket(headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(header::UPGRADE).iter();
    protocols.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket")) && protocols.next().is_none()
}

/// Headers of one connection, not of the message (RFC 9110 §7.6.1). `Expect` is answered by each hop for itself.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(name, "connection" | "keep-alive" | "te" | "transfer-encoding" | "upgrade" | "expect" | "http2-settings")
        || name.starts_with("proxy-")
}

/// Fields that frame, route, authenticate or describe a message before its body is read (RFC 9110 §6.5.1).
fn is_no_trailer(name: &str) -> bool {
    is_hop_by_hop(name)
        || matches!(
            name,
            "host"
                | "trailer"
                | "content-length"
                | "content-type"
                | "content-encoding"
                | "content-range"
                | "authorization"
                | "cookie"
                | "set-cookie"
                | "cache-control"
                | "max-forwards"
                | "strict-transport-security"
        )
}

/// The list members of one header value.
fn names(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or_default().split(',').map(str::trim)
}

/// The headers that `Connection` names, and `Connection` itself.
fn drop_named_by_connection(headers: &mut HeaderMap) {
    let Entry::Occupied(connection) = headers.entry(header::CONNECTION) else { return };
    let (_, values) = connection.remove_entry_mult();
    let values: Vec<HeaderValue> = values.collect();
    for name in values.iter().flat_map(names) {
        // Framing was settled by the parser; a length that it has judged is not the client's to hide.
        if !name.eq_ignore_ascii_case("content-length") {
            headers.remove(name);
        }
    }
}

/// A header's name as an application behind a CGI-like interface may know it.
fn read(name: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if name.bytes().all(is_plain) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '-' }).collect())
}

/// Removes the headers whose name, as [`read`], is to go. What would so read as `Content-Length` or `Host` goes as well: the parser has
/// judged only the real ones.
fn drop_where(headers: &mut HeaderMap, goes: impl Fn(&str) -> bool) {
    let is_to_go = |name: &&HeaderName| match read(name.as_str()) {
        Cow::Borrowed(name) => goes(name),
        Cow::Owned(read) => goes(&read) || matches!(read.as_str(), "content-length" | "host"),
    };
    let going: Vec<HeaderName> = headers.keys().filter(is_to_go).cloned().collect();
    for name in going {
        headers.remove(name);
    }
}

/// Our own cookies out of `Cookie`. What HTTP/2 sent in crumbs becomes one field again (RFC 9113 §8.2.3).
fn drop_own_cookies(headers: &mut HeaderMap) {
    let has_own = |value: &HeaderValue| value.as_bytes().split(|byte| *byte == b';').any(is_own);
    let mut values = headers.get_all(header::COOKIE).iter();
    if values.next().is_none_or(|first| !has_own(first)) && values.next().is_none() {
        return;
    }
    let Entry::Occupied(cookies) = headers.entry(header::COOKIE) else { return };
    let (name, values) = cookies.remove_entry_mult();
    let values: Vec<HeaderValue> = values.collect();
    let pairs = values.iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';')).map(<[u8]>::trim_ascii);
    let kept: Vec<&[u8]> = pairs.filter(|pair| !pair.is_empty() && !is_own(pair)).collect();
    if let (false, Ok(value)) = (kept.is_empty(), HeaderValue::from_bytes(&kept.join(&b"; "[..]))) {
        headers.insert(name, value);
    }
}

/// Cookies named like ours out of `Set-Cookie`.
fn drop_own_set_cookies(headers: &mut HeaderMap) {
    if !headers.get_all(header::SET_COOKIE).iter().any(|value| is_own(value.as_bytes())) {
        return;
    }
    let Entry::Occupied(cookies) = headers.entry(header::SET_COOKIE) else { return };
    let (name, values) = cookies.remove_entry_mult();
    let values: Vec<HeaderValue> = values.filter(|value| !is_own(value.as_bytes())).collect();
    for value in values {
        headers.append(name.clone(), value);
    }
}

/// Browsers treat the `__Host-` prefix without regard to case, and a cookie without a name (`=value`) they send back as its value alone
/// (RFC 6265bis §5.8.3), which then reads as name and value.
fn is_own(cookie: &[u8]) -> bool {
    let begin = cookie.iter().position(|byte| *byte != b'=' && !byte.is_ascii_whitespace()).unwrap_or(cookie.len());
    let cookie = &cookie[begin..];
    let begins = |text: &[u8], prefix: &[u8]| text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    let name = if begins(cookie, b"__Host-") { &cookie[b"__Host-".len()..] } else { cookie };
    begins(name, COOKIE_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::Id;

    /// Header lines, one `name: value` each.
    fn map(lines: &[&str]) -> HeaderMap {
        let pairs = lines.iter().map(|line| line.split_once(": ").expect("a header line"));
        pairs.map(|(name, value)| (name.parse::<HeaderName>().expect(name), HeaderValue::from_str(value).expect(value))).collect()
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("visible ASCII"))).collect();
        lines.sort();
        lines
    }

    /// What is left of `sent` after `strip`.
    fn left(strip: fn(&mut HeaderMap), sent: &[&str]) -> Vec<String> {
        let mut headers = map(sent);
        strip(&mut headers);
        lines(&headers)
    }

    /// As an answer of a peer to the instance `one`.
    fn strip_answer(headers: &mut HeaderMap) {
        strip_peer_answer(headers, "one");
    }

    #[test]
    fn a_peer_does_not_sign_its_errors_with_our_name() {
        let theirs = ["p2pi-error-from: two", "p2pi-error: no_route"];
        assert_eq!(left(strip_answer, &theirs), theirs);
        for from in ["p2pi-error-from: one", "P2PI_Error_From: one"] {
            assert_eq!(left(strip_answer, &["p2pi-error: retry_call", from, "server: two"]), ["server: two"], "{from}");
        }
    }

    #[test]
    fn g4_a_request_loses_what_an_application_could_take_for_our_word() {
        for gone in [
            "authorization: Bearer x",
            "host: one.example",
            "p2pi-client: admin",
            "P2PI_Client: admin",
            "P2PI.Client: admin",
            "x.forwarded.for: 192.0.2.1",
            "p2pi-anything-at-all: x",
            "forwarded: for=10.0.0.1",
            "x-forwarded-for: 10.0.0.1",
            "X_Forwarded_User: admin",
            "x-forwarded-anything: x",
            "x-real-ip: 10.0.0.1",
            "x-original-url: /admin",
            "x_rewrite_url: /admin",
            "Remote-User: admin",
            "REMOTE_USER: admin",
            "X_Remote_Group: system:masters",
            "X-SSL-Client-Verify: SUCCESS",
            "SSL_CLIENT_S_DN: CN=admin",
            "X-Client-Cert: x",
            "X_WebAuth_User: admin",
            "OIDC_CLAIM_sub: admin",
            "True-Client-IP: 10.0.0.1",
            "proxy: http://elsewhere",
            "proxy-authorization: Basic x",
            "keep-alive: timeout=5",
            "te: gzip",
            "transfer-encoding: chunked",
            "Transfer_Encoding: chunked",
            "Content_Length: 7",
            "upgrade: h2c",
            "http2-settings: AAMAAABkAAQAAP__",
            "expect: 100-continue",
            "connection: close",
        ] {
            assert_eq!(left(strip_request, &[gone, "accept: */*"]), ["accept: */*"], "{gone}");
        }
    }

    #[test]
    fn a_request_keeps_what_is_its_own() {
        let kept = [
            "accept-encoding: gzip",
            "content-length: 3",
            "content-type: application/grpc",
            "cookie: a=b; c=d",
            "origin: https://one.example",
            "sec-websocket-key: x",
            "te: trailers",
            "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "tracestate: a=b",
            "x-api-key: k",
            "x_my_header: v",
        ];
        assert_eq!(left(strip_request, &kept), kept);
    }

    #[test]
    fn g5_headers_named_by_connection_go_first() {
        let sent = ["connection: X-Secret, close", "connection: x-other", "x-secret: 1", "x-other: 2", "content-length: 3", "x-kept: 4"];
        assert_eq!(left(strip_request, &sent), ["content-length: 3", "x-kept: 4"]);
        assert_eq!(left(strip_application_answer, &sent), ["content-length: 3", "x-kept: 4"]);
        assert_eq!(left(strip_request, &["connection: content-length", "content-length: 3"]), ["content-length: 3"]);
        // What a client names there does not keep ours away: ours are added afterwards.
        let mut headers = map(&["connection: p2pi-client, te", "p2pi-client: admin", "te: trailers, deflate"]);
        strip_request(&mut headers);
        identity("one").add_to(&mut headers);
        assert_eq!(headers["p2pi-client"], "client");
        assert_eq!(headers["te"], "trailers");
    }

    #[test]
    fn an_application_cannot_speak_for_the_gateway() {
        let sent = [
            "connection: close",
            "p2pi-error: invalid_token",
            "P2PI_Error: invalid_token",
            "strict-transport-security: max-age=1",
            "set-cookie: __Host-p2pid-session-12345678=x; Path=/",
            "set-cookie: __host-P2PID-session-12345678=x",
            "set-cookie: mine=1",
            "set-cookie: also=2",
            "server: app",
        ];
        assert_eq!(left(strip_application_answer, &sent), ["server: app", "set-cookie: also=2", "set-cookie: mine=1"]);
        assert_eq!(left(strip_answer, &["p2pi-error: no_route", "upgrade: h2c"]), ["p2pi-error: no_route"]);
        assert_eq!(left(strip_application_trailers, &["grpc-status: 0", "p2pi-error: x", "content-length: 1"]), ["grpc-status: 0"]);
        assert_eq!(left(strip_request_trailers, &["checksum: 1", "authorization: x", "p2pi-client: x"]), ["checksum: 1"]);
        assert_eq!(left(strip_peer_trailers, &["grpc-status: 0", "transfer-encoding: chunked"]), ["grpc-status: 0"]);
    }

    #[test]
    fn our_own_cookies_stay_here() {
        let sent =
            ["cookie: a=b; __Host-p2pid-session-12345678=secret;c=d; p2pid-session-1=s", "cookie: __Host-p2pid-handshake-1-2=secret"];
        assert_eq!(left(strip_request, &sent), ["cookie: a=b; c=d"]);
        assert_eq!(left(strip_request, &["cookie: a=b;c=d"]), ["cookie: a=b;c=d"]);
        assert_eq!(left(strip_request, &["cookie: a=b", "cookie: c=d"]), ["cookie: a=b; c=d"], "the crumbs of HTTP/2");
        assert_eq!(left(strip_request, &["cookie: a=b", "cookie: p2pid-session-1=s"]), ["cookie: a=b"]);
    }

    #[test]
    fn a_cookie_without_a_name_does_not_become_one_of_ours() {
        // A browser sends the value of one back as it is: as a cookie of ours.
        for value in ["=p2pid-session-1=s", "= p2pid-session-1=s", " = __Host-p2pid-session-1=s", "==P2PID-login-1=s", "=\t__host-p2pid-x"]
        {
            assert!(left(strip_application_answer, &[&format!("set-cookie: {value}; Path=/")]).is_empty(), "{value:?}");
            assert!(left(strip_answer, &[&format!("set-cookie: {value}; Path=/")]).is_empty(), "{value:?}");
            assert_eq!(left(strip_request, &[&format!("cookie: a=b;{value}; c=d")]), ["cookie: a=b; c=d"], "{value:?}");
        }
        for kept in ["set-cookie: =mine", "set-cookie: a=p2pid-session-1=s", "set-cookie: not-p2pid-x=1"] {
            assert_eq!(left(strip_application_answer, &[kept]), [kept]);
        }
    }

    fn identity(app_name: &str) -> Identity {
        Identity::new(&Bearer {
            grant: None,
            app: Id::from_bytes([1; 16]),
            client_id: "client".into(),
            app_name: app_name.into(),
            tenant: "default".into(),
            subject: "ops@one.example".into(),
            scope: "b a".parse().expect("a scope"),
            expires_at: Timestamp::from_millis(0),
            binding: None,
            must_be_bound: false,
        })
    }

    #[test]
    fn identity_headers_are_visible_ascii_and_unambiguous() {
        let mut headers = map(&["p2pi_client: admin"]);
        strip_request(&mut headers);
        identity("Müller & Co 100%\r\n").add_to(&mut headers);
        assert_eq!(
            lines(&headers),
            [
                "p2pi-client: client",
                "p2pi-instance: M%C3%BCller%20&%20Co%20100%25%0D%0A",
                "p2pi-scope: a b",
                "p2pi-subject: ops@one.example",
                "p2pi-tenant: default"
            ]
        );
    }

    #[test]
    fn forwarded_names_the_client_and_our_own_host() {
        let public = url::Url::parse("https://one.example:7443").expect("a URL");
        assert_eq!(
            forwarded(Some("192.0.2.1".parse().expect("an address")), &public),
            "for=192.0.2.1;host=\"one.example:7443\";proto=https"
        );
        assert_eq!(
            forwarded(Some("2001:db8::1".parse().expect("an address")), &public),
            "for=\"[2001:db8::1]\";host=\"one.example:7443\";proto=https"
        );
        assert_eq!(forwarded(Some("::ffff:192.0.2.1".parse().expect("an address")), &public).as_bytes()[..13], *b"for=192.0.2.1");
        let public = url::Url::parse("http://localhost").expect("a URL");
        assert_eq!(forwarded(None, &public), "for=unknown;host=\"localhost\";proto=http");
    }

    #[test]
    fn only_websocket_is_an_upgrade() {
        assert!(asks_for_websocket(&map(&["connection: keep-alive, Upgrade", "upgrade: WebSocket"])));
        for refused in [
            &["connection: upgrade"][..],
            &["upgrade: websocket"],
            &["connection: upgrade", "upgrade: h2c"],
            &["connection: upgrade", "upgrade: websocket, h2c"],
            &["connection: upgrade", "upgrade: websocket", "upgrade: h2c"],
        ] {
            assert!(!asks_for_websocket(&map(refused)), "{refused:?}");
        }
    }
}
