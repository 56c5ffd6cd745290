//! The path of a forwarded call, in the one form in which it is matched and sent.
//!
//! What a gateway matches and what the application behind it understands must be the same path, or a caller reaches what its scopes do
//! not cover. So a path that two readers could understand in two ways is refused, not repaired; the one thing that is rewritten are
//! percent-encoded unreserved characters, which mean the same decoded (RFC 3986 §6.2.2.2).
//!
//! Bytes beyond ASCII need not be UTF-8: there are applications whose paths are Latin-1. But overlong UTF-8 is refused, because a
//! careless decoder makes dots and slashes of it (RFC 3629 §10).

use std::borrow::Cow;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Uri, Version};
use url::Url;

use super::connect::H2C;

/// A path that has one meaning: absolute, without dot segments, backslashes, control bytes and broken escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path<'a> {
    text: Cow<'a, str>,
    ambiguous: Option<BadPath>,
}

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// `http://host/path` or `*` as the request target.
    #[error("the request target is not a path; send it in origin form, starting with a slash")]
    NotOriginForm,
    /// `.` or `..`, also encoded or before `;`.
    #[error("the path has a segment `.` or `..`; send the path that it leads to")]
    DotSegment,
    /// `//`
    #[error("the path has an empty segment (`//`); send one slash, or set paths = \"raw\" on the route")]
    EmptySegment,
    /// `%2f`
    #[error("the path has an encoded slash (`%2f`); set paths = \"raw\" on the route if the application wants it")]
    EncodedSlash,
    /// `\` or `%5c`
    #[error("the path has a backslash, raw or encoded")]
    Backslash,
    /// Below 0x20 or 0x7f, raw or encoded.
    #[error("the path has a control byte or a space, raw or encoded as a control byte")]
    ControlByte,
    /// Not ASCII.
    #[error("the path has a byte that is not ASCII; percent-encode it")]
    NotAscii,
    /// `%` without two hexadecimal digits.
    #[error("the path has a `%` without two hexadecimal digits after it")]
    BadEscape,
    /// `%c0%ae` and the like.
    #[error("the path has a bad escape: an overlong UTF-8 sequence, such as `%c0%ae` for a dot; send the character itself")]
    Overlong,
    /// `;` in a segment that decides on the route.
    #[error("the path has a `;` where it decides on the route")]
    ParameterInRoute,
    /// Longer than a URI may be once it stands behind the upstream's own path.
    #[error("the path and its query are too long")]
    TooLong,
}

impl<'a> Path<'a> {
    /// The path of a request, which must have sent it in origin form (HTTP/2 has its own fields for scheme and authority).
    pub fn of_request(uri: &'a Uri, version: Version) -> Result<Self, BadPath> {
        if version < Version::HTTP_2 && uri.scheme().is_some() {
            return Err(BadPath::NotOriginForm);
        }
        Self::read(uri.path())
    }

    /// Reads a path as it came; borrows it when nothing had to be decoded.
    pub fn read(path: &'a str) -> Result<Self, BadPath> {
        if !path.starts_with('/') {
            return Err(BadPath::NotOriginForm);
        }
        let text = decode_unreserved(path)?;
        let ambiguous = check_segments(&text)?;
        Ok(Self { text, ambiguous })
    }

    /// The path as it is matched and sent.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Refuses what only `paths = "raw"` lets pass: `//` and `%2f`.
    pub fn strictly(&self) -> Result<(), BadPath> {
        self.ambiguous.map_or(Ok(()), Err)
    }
}

/// What follows `prefix` in `path`, matched on a segment boundary: nothing, or text that starts with a slash. A prefix has no slash at
/// its end, so the one that takes every path is empty.
pub fn below<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The first segment of `path`, and what follows it: nothing, or text that starts with a slash.
pub fn first_segment(path: &str) -> (&str, &str) {
    let inner = path.strip_prefix('/').unwrap_or(path);
    inner.split_at(inner.find('/').unwrap_or(inner.len()))
}

/// Where calls are sent to: an origin, and the path that stands before theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    scheme: Scheme,
    authority: Authority,
    /// As written, for a call to the prefix itself.
    path: String,
    /// Without the slash at its end.
    prefix: String,
}

impl Upstream {
    /// The place that `url` names; `None` when it is no `http`, `https` or `h2c` URL.
    pub fn new(url: &Url) -> Option<Self> {
        let scheme = match url.scheme() {
            "http" => Scheme::HTTP,
            "https" => Scheme::HTTPS,
            H2C => H2C.parse().ok()?,
            _ => return None,
        };
        let host = url.host_str()?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}").parse(),
            None => host.parse(),
        };
        let path = if url.path().is_empty() { "/" } else { url.path() }.to_owned();
        let prefix = path.trim_end_matches('/').to_owned();
        Some(Self { scheme, authority: authority.ok()?, path, prefix })
    }

    /// Host and port, as the `Host` header carries them.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Whether calls go over TLS.
    pub fn is_tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// The URI of a call: this origin, this path, one slash, and `rest`, with the query of `asked`. `rest` is what [`below`] or
    /// [`first_segment`] left of a [`Path`].
    pub fn uri(&self, rest: &str, asked: &PathAndQuery) -> Result<Uri, BadPath> {
        let path_and_query =
            if self.prefix.is_empty() && rest == asked.path() { asked.clone() } else { self.path_and_query(rest, asked.query())? };
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path_and_query);
        Uri::from_parts(parts).map_err(|_| BadPath::TooLong)
    }

    fn path_and_query(&self, rest: &str, query: Option<&str>) -> Result<PathAndQuery, BadPath> {
        let path = if rest.is_empty() { &self.path } else { &self.prefix };
        let mut text = String::with_capacity(path.len() + rest.len() + query.map_or(0, |query| query.len() + 1));
        text.push_str(path);
        text.push_str(rest);
        if let Some(query) = query {
            text.push('?');
            text.push_str(query);
        }
        PathAndQuery::from_maybe_shared(Bytes::from(text)).map_err(|_| BadPath::TooLong)
    }
}

/// Checks every byte and every escape, and decodes the escapes of unreserved characters.
fn decode_unreserved(path: &str) -> Result<Cow<'_, str>, BadPath> {
    let bytes = path.as_bytes();
    let mut decoded: Option<String> = None;
    let (mut at, mut copied) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'%' => {
                let value = escaped(bytes, at).ok_or(BadPath::BadEscape)?;
                match value {
                    0x00..=0x1f | 0x7f => return Err(BadPath::ControlByte),
                    b'\\' => return Err(BadPath::Backslash),
                    _ if is_overlong(value, bytes.get(at + 3).filter(|&&next| next == b'%').and_then(|_| escaped(bytes, at + 3))) => {
                        return Err(BadPath::Overlong);
                    }
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                        let text = decoded.get_or_insert_with(|| String::with_capacity(path.len()));
                        text.push_str(&path[copied..at]);
                        text.push(char::from(value));
                        copied = at + 3;
                    }
                    _ => {}
                }
                at += 3;
            }
            b'\\' => return Err(BadPath::Backslash),
            0x00..=0x20 | 0x7f => return Err(BadPath::ControlByte),
            0x80.. => return Err(BadPath::NotAscii),
            _ => at += 1,
        }
    }
    Ok(match decoded {
        None => Cow::Borrowed(path),
        Some(mut text) => {
            text.push_str(&path[copied..]);
            Cow::Owned(text)
        }
    })
}

/// Whether `lead` and the escape after it begin a UTF-8 sequence that is longer than its character needs, of two to six bytes. `c0` and
/// `c1` begin nothing else.
fn is_overlong(lead: u8, next: Option<u8>) -> bool {
    let next = next.unwrap_or_default();
    match lead {
        0xc0 | 0xc1 => true,
        0xe0 => matches!(next, 0x80..=0x9f),
        0xf0 => matches!(next, 0x80..=0x8f),
        0xf8 => matches!(next, 0x80..=0x87),
        0xfc => matches!(next, 0x80..=0x83),
        _ => false,
    }
}

/// The byte that the escape at `at` stands for.
fn escaped(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |position: usize| bytes.get(position).and_then(|&byte| char::from(byte).to_digit(16));
    let value = digit(at + 1)? << 4 | digit(at + 2)?;
    u8::try_from(value).ok()
}

/// Refuses dot segments; says whether there is something that only a raw route lets pass.
fn check_segments(path: &str) -> Result<Option<BadPath>, BadPath> {
    let mut ambiguous = None;
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            ambiguous = Some(BadPath::EmptySegment);
        }
        if is_dot_segment(segment) {
            return Err(BadPath::DotSegment);
        }
        // Whoever decodes before splitting sees a segment boundary here, also behind a raw route.
        if segment.contains('%') {
            for part in segment.split("%2f").flat_map(|part| part.split("%2F")) {
                if is_dot_segment(part) {
                    return Err(BadPath::DotSegment);
                }
                if part.len() < segment.len() {
                    ambiguous = Some(BadPath::EncodedSlash);
                }
            }
        }
    }
    Ok(ambiguous)
}

/// `.` or `..`, alone or before the `;` of path parameters, which some servers cut off before they resolve dots.
fn is_dot_segment(segment: &str) -> bool {
    let Some(rest) = segment.strip_prefix('.') else { return false };
    let rest = rest.strip_prefix('.').unwrap_or(rest);
    rest.is_empty() || rest.starts_with(';') || rest.get(..3).is_some_and(|escape| escape.eq_ignore_ascii_case("%3b"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_needs_no_change_is_borrowed() {
        for path in [
            "/",
            "/orders",
            "/orders/",
            "/a/b%20c",
            "/a..b/.hidden/...",
            "/x;v=1/y",
            "/%C3%A4",
            "/a:b@c!$&'()*+,=",
            "/{x}|\"^`",
            "/%fcber",
            "/%e0%a4%a4",
            "/%f0%9f%98%80",
            "/%ff%e0",
        ] {
            let read = Path::read(path).expect(path);
            assert!(matches!(read.text, Cow::Borrowed(_)), "{path}");
            assert_eq!(read.as_str(), path);
            assert_eq!(read.strictly(), Ok(()), "{path}");
        }
    }

    #[test]
    fn unreserved_characters_are_decoded_and_nothing_else() {
        for (sent, read) in [
            ("/%6frders", "/orders"),
            ("/%4F%2d%5f%7E%30", "/O-_~0"),
            ("/a%2eb", "/a.b"),
            ("/%20%3F%23%25%c3%a4%61", "/%20%3F%23%25%c3%a4a"),
            ("/%2561", "/%2561"),
        ] {
            assert_eq!(Path::read(sent).expect(sent).as_str(), read);
        }
    }

    #[test]
    fn g4_what_two_readers_could_understand_in_two_ways_is_refused() {
        for (sent, expected) in [
            ("", BadPath::NotOriginForm),
            ("*", BadPath::NotOriginForm),
            ("orders", BadPath::NotOriginForm),
            ("/.", BadPath::DotSegment),
            ("/..", BadPath::DotSegment),
            ("/a/./b", BadPath::DotSegment),
            ("/a/../b", BadPath::DotSegment),
            ("/a/%2e%2E/b", BadPath::DotSegment),
            ("/a/.%2e", BadPath::DotSegment),
            ("/a/..;x=1/b", BadPath::DotSegment),
            ("/a/.;", BadPath::DotSegment),
            ("/a/..%3Bx", BadPath::DotSegment),
            ("/a/%2e%2e%3bx", BadPath::DotSegment),
            ("/a%2f..%2fb", BadPath::DotSegment),
            ("/a%2F%2e%2e", BadPath::DotSegment),
            ("/..%2Fb", BadPath::DotSegment),
            ("/a\\b", BadPath::Backslash),
            ("/a%5cb", BadPath::Backslash),
            ("/a%5Cb", BadPath::Backslash),
            ("/a\tb", BadPath::ControlByte),
            ("/a b", BadPath::ControlByte),
            ("/a%00", BadPath::ControlByte),
            ("/a%0d%0a", BadPath::ControlByte),
            ("/a%7f", BadPath::ControlByte),
            ("/ä", BadPath::NotAscii),
            ("/%", BadPath::BadEscape),
            ("/%4", BadPath::BadEscape),
            ("/%4g", BadPath::BadEscape),
            ("/%+1", BadPath::BadEscape),
            ("/%%41", BadPath::BadEscape),
            ("/%c0%ae%c0%ae/a", BadPath::Overlong),
            ("/%C0%AF", BadPath::Overlong),
            ("/%c1%9c", BadPath::Overlong),
            ("/%c0.", BadPath::Overlong),
            ("/%e0%80%ae", BadPath::Overlong),
            ("/%f0%80%80%ae", BadPath::Overlong),
            ("/%f8%80%80%80%ae", BadPath::Overlong),
            ("/%fc%80%80%80%80%ae", BadPath::Overlong),
        ] {
            assert_eq!(Path::read(sent), Err(expected), "{sent:?}");
        }
    }

    #[test]
    fn empty_segments_and_encoded_slashes_pass_only_where_they_are_asked_for() {
        for (sent, expected) in [
            ("//", BadPath::EmptySegment),
            ("//a", BadPath::EmptySegment),
            ("/a//b", BadPath::EmptySegment),
            ("/a//", BadPath::EmptySegment),
            ("/a%2fb", BadPath::EncodedSlash),
            ("/a/%2F", BadPath::EncodedSlash),
        ] {
            let path = Path::read(sent).expect(sent);
            assert_eq!(path.strictly(), Err(expected), "{sent}");
            assert_eq!(path.as_str(), sent);
        }
    }

    #[test]
    fn an_absolute_target_is_refused_where_it_was_sent_as_one() {
        let uri: Uri = "https://elsewhere.example/orders".parse().expect("a URI");
        assert_eq!(Path::of_request(&uri, Version::HTTP_11), Err(BadPath::NotOriginForm));
        assert_eq!(Path::of_request(&uri, Version::HTTP_2).expect("HTTP/2 always has them").as_str(), "/orders");
    }

    #[test]
    fn prefixes_match_on_segment_boundaries() {
        for (path, prefix, rest) in [
            ("/p2pi", "/p2pi", Some("")),
            ("/p2pi/", "/p2pi", Some("/")),
            ("/p2pi/orders", "/p2pi", Some("/orders")),
            ("/p2pix", "/p2pi", None),
            ("/P2PI", "/p2pi", None),
            ("/", "", Some("/")),
            ("/orders", "", Some("/orders")),
        ] {
            assert_eq!(below(path, prefix), rest, "{path} below {prefix}");
        }
        assert_eq!(first_segment("/instance2/orders/1"), ("instance2", "/orders/1"));
        assert_eq!(first_segment("/instance2"), ("instance2", ""));
        assert_eq!(first_segment("/"), ("", ""));
    }

    fn sent(upstream: &str, rest: &str, asked: &str) -> String {
        let upstream = Upstream::new(&Url::parse(upstream).expect("a URL")).expect("an HTTP URL");
        upstream.uri(rest, &asked.parse().expect("a target")).expect("a URI").to_string()
    }

    #[test]
    fn upstream_path_and_rest_have_one_slash_between() {
        assert_eq!(sent("http://app:8080", "/orders", "/p2pi/orders?x=1"), "http://app:8080/orders?x=1");
        assert_eq!(sent("http://app:8080/", "", "/p2pi"), "http://app:8080/");
        assert_eq!(sent("http://app:8080/base", "", "/p2pi?x"), "http://app:8080/base?x");
        assert_eq!(sent("http://app:8080/base/", "", "/p2pi"), "http://app:8080/base/");
        assert_eq!(sent("http://app:8080/base/", "/", "/p2pi/"), "http://app:8080/base/");
        assert_eq!(sent("http://app:8080/base", "/orders", "/p2pi/orders?"), "http://app:8080/base/orders?");
        assert_eq!(sent("https://app/base//", "/orders", "/p2pi/orders"), "https://app/base/orders");
        assert_eq!(sent("http://app", "/orders", "/orders?a=/../b%2f"), "http://app/orders?a=/../b%2f");
        assert_eq!(sent("http://[::1]:8080", "/orders", "/orders"), "http://[::1]:8080/orders");
    }

    #[test]
    fn what_is_too_long_behind_the_upstreams_path_is_refused() {
        let upstream = Upstream::new(&Url::parse(&format!("http://app/{}", "b".repeat(60_000))).expect("a URL")).expect("an HTTP URL");
        let rest = format!("/{}", "a".repeat(30_000));
        assert_eq!(upstream.uri(&rest, &"/x".parse().expect("a target")), Err(BadPath::TooLong));
    }

    /// What the most liberal reader behind us could make of a path: every escape decoded twice over, backslashes as slashes, parameters
    /// cut off, dot segments resolved. Returns how deep below its root the walk ever went; below zero is an escape.
    fn lowest_depth(path: &str) -> i32 {
        let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy().replace('\\', "/");
        let (mut depth, mut lowest) = (0_i32, 0_i32);
        for segment in decoded.split('/') {
            match segment.split(';').next() {
                Some("..") => depth -= 1,
                Some("." | "") | None => {}
                Some(_) => depth += 1,
            }
            lowest = lowest.min(depth);
        }
        lowest
    }

    proptest! {
        #[test]
        fn g4_what_is_matched_is_what_is_sent_and_it_stays_below_the_upstream(
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just("/"), Just("."), Just(".."), Just("%2e"), Just("%2E"), Just("%2f"), Just("%5c"), Just("\\"), Just(";"), Just("%3b"),
                    Just("a"), Just("%61"), Just("%"), Just("%00"), Just("%25"), Just("2e"), Just("p2pi"), Just("%c3%a4"), Just(" "),
                ],
                0..12,
            ),
        ) {
            let asked = format!("/{}", pieces.concat());
            if let Ok(path) = Path::read(&asked) {
                // Reading again changes nothing: there is one form.
                let again = Path::read(path.as_str()).expect("what was read once is read again");
                prop_assert_eq!(again.as_str(), path.as_str());
                prop_assert_eq!(lowest_depth(path.as_str()), 0);
                let upstream = Upstream::new(&Url::parse("http://app/base").expect("a URL")).expect("an HTTP URL");
                let target = PathAndQuery::try_from(asked.as_str());
                if let (Some(rest), Ok(target)) = (below(path.as_str(), ""), target) {
                    let uri = upstream.uri(rest, &target).expect("it is short");
                    prop_assert_eq!(uri.path(), format!("/base{}", path.as_str()));
                    prop_assert_eq!(uri.authority().map(Authority::as_str), Some("app"));
                    // A URL parser that resolves dots finds none.
                    let parsed = Url::parse(&uri.to_string()).expect("it is a URL");
                    prop_assert!(parsed.path().starts_with("/base/"));
                }
            }
        }
    }
}
