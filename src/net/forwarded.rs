//! Whose request it is, when it came through proxies: only trusted ones are believed, and of their reports only the nearest untrusted hop.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, header};

use crate::config::{ForwardedHeader, TrustedProxies};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client's address, of a request that came from `neighbour`; neither is there for who connects to a Unix socket.
///
/// Each proxy appends the address that it saw, so the list is read from its end: the first address that is not a trusted proxy's is the
/// client's, and everything before it is hearsay. The header that the proxies write is read: any other was sent by the client itself, through a
/// proxy that does not know it. Where it is not said which one they write, two that disagree say nothing.
pub fn client_address(headers: &HeaderMap, neighbour: Option<IpAddr>, proxies: &TrustedProxies) -> Option<IpAddr> {
    let neighbour = neighbour.map(|address| address.to_canonical());
    if !proxies.include(neighbour) {
        return neighbour;
    }
    let by_forwarded = || nearest_untrusted(&hops(headers, &header::FORWARDED, forwarded_hops), neighbour, proxies);
    let by_x_forwarded = || nearest_untrusted(&hops(headers, &X_FORWARDED_FOR, x_forwarded_hops), neighbour, proxies);
    match proxies.header {
        ForwardedHeader::Forwarded => by_forwarded(),
        ForwardedHeader::XForwardedFor => by_x_forwarded(),
        ForwardedHeader::Either => match (headers.contains_key(header::FORWARDED), headers.contains_key(X_FORWARDED_FOR)) {
            (false, _) => by_x_forwarded(),
            (true, false) => by_forwarded(),
            (true, true) => {
                let client = by_forwarded();
                if client == by_x_forwarded() { client } else { neighbour }
            }
        },
    }
}

/// A hop that does not say its address ends the search: who reported it is the last one known.
fn nearest_untrusted(hops: &[Option<IpAddr>], neighbour: Option<IpAddr>, proxies: &TrustedProxies) -> Option<IpAddr> {
    let mut known = neighbour;
    for hop in hops.iter().rev() {
        match *hop {
            Some(address) if proxies.include(Some(address)) => known = Some(address),
            Some(address) => return Some(address),
            None => return known,
        }
    }
    known
}

/// The elements of a list header, in the order of its lines; `None` for those without an address. `read` gives those of one line.
fn hops(headers: &HeaderMap, name: &HeaderName, read: impl Fn(&str) -> Vec<Option<IpAddr>>) -> Vec<Option<IpAddr>> {
    headers.get_all(name).iter().flat_map(|line| line.to_str().map_or(vec![None], &read)).collect()
}

/// The hops of one line of `Forwarded`. In a line whose last quotation mark stays open, what a proxy appended stands inside a text of the
/// client's own; so no element of it is believed.
fn forwarded_hops(line: &str) -> Vec<Option<IpAddr>> {
    if line.bytes().filter(|byte| *byte == b'"').count() % 2 == 1 {
        return vec![None];
    }
    split_unquoted(line, ',').map(forwarded_for).collect()
}

/// The hops of one line of `X-Forwarded-For`, which knows no quotation marks.
fn x_forwarded_hops(line: &str) -> Vec<Option<IpAddr>> {
    line.split(',').map(|element| address(element.trim())).collect()
}

/// The address in the `for` parameter of one element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    split_unquoted(element, ';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        name.trim().eq_ignore_ascii_case("for").then(|| address(value)).flatten()
    })
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// Splits at `separator`, but not inside double quotes.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |character| {
        quoted ^= character == '"';
        character == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: &str = "x-forwarded-for";
    const FORWARDED: &str = "forwarded";

    /// Behind proxies that write `header`.
    fn seen(header: ForwardedHeader, neighbour: Option<&str>, headers: &[(&'static str, &'static str)]) -> Option<String> {
        let networks = vec!["10.0.0.0/8".parse().expect("a network"), "2001:db8:1::/48".parse().expect("a network")];
        let proxies = TrustedProxies { networks, unix: true, header };
        let map = headers.iter().map(|(name, value)| (HeaderName::from_static(name), http::HeaderValue::from_static(value)));
        let neighbour = neighbour.map(|address| address.parse().expect("an address"));
        client_address(&map.collect(), neighbour, &proxies).map(|address| address.to_string())
    }

    /// Behind proxies that write the header which comes first.
    fn client(neighbour: &str, headers: &[(&'static str, &'static str)]) -> String {
        let is_forwarded = headers.first().is_some_and(|(name, _)| *name == FORWARDED);
        let header = if is_forwarded { ForwardedHeader::Forwarded } else { ForwardedHeader::XForwardedFor };
        seen(header, Some(neighbour), headers).expect("who has an address keeps one")
    }

    #[test]
    fn k6_nobody_but_a_trusted_proxy_is_believed() {
        assert_eq!(client("192.0.2.9", &[("x-forwarded-for", "198.51.100.1")]), "192.0.2.9");
        assert_eq!(client("192.0.2.9", &[("forwarded", "for=198.51.100.1")]), "192.0.2.9");
        assert_eq!(client("::ffff:192.0.2.9", &[]), "192.0.2.9");
    }

    #[test]
    fn the_nearest_untrusted_hop_is_the_client() {
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "198.51.100.1")]), "198.51.100.1");
        assert_eq!(client("::ffff:10.0.0.1", &[("x-forwarded-for", "6.6.6.6, 198.51.100.1, 10.0.0.2")]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "198.51.100.1")]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &[("forwarded", "for=6.6.6.6, for=\"[2001:db8::1]:4711\";proto=https;by=10.0.0.2")]), "2001:db8::1");
        assert_eq!(client("2001:db8:1::1", &[("forwarded", "proto=https;For=198.51.100.1:80")]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")]), "10.0.0.3");
    }

    #[test]
    fn a_hop_without_an_address_ends_the_search() {
        assert_eq!(client("10.0.0.1", &[("forwarded", "for=6.6.6.6, for=_hidden, for=10.0.0.2")]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &[("forwarded", "for=6.6.6.6, for=unknown")]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "6.6.6.6, ")]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &[("forwarded", "for=\"6.6.6.6, for=7.7.7.7")]), "10.0.0.1");
    }

    /// What the client wrote before it cannot swallow what the proxy appended.
    #[test]
    fn an_open_quotation_mark_hides_no_hop() {
        assert_eq!(client("10.0.0.1", &[("forwarded", "for=6.6.6.6;x=\", for=198.51.100.1")]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &[("forwarded", "for=6.6.6.6;x=\", for=\"[2001:db8::1]\"")]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &[("forwarded", "for=6.6.6.6;x=\""), ("forwarded", "for=198.51.100.1")]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "6.6.6.6\", 198.51.100.1")]), "198.51.100.1");
    }

    /// A proxy that appends to one header passes the other on as the client wrote it.
    #[test]
    fn k6_only_the_header_that_the_proxies_write_is_believed() {
        let both = [(FORWARDED, "for=10.0.0.9"), (X, "198.51.100.1")];
        assert_eq!(seen(ForwardedHeader::XForwardedFor, Some("10.0.0.1"), &both).as_deref(), Some("198.51.100.1"));
        assert_eq!(seen(ForwardedHeader::Forwarded, Some("10.0.0.1"), &both).as_deref(), Some("10.0.0.9"));
        assert_eq!(seen(ForwardedHeader::XForwardedFor, Some("10.0.0.1"), &both[..1]).as_deref(), Some("10.0.0.1"));
        assert_eq!(seen(ForwardedHeader::Forwarded, Some("10.0.0.1"), &both[1..]).as_deref(), Some("10.0.0.1"));
    }

    #[test]
    fn k6_where_nobody_said_which_header_counts_two_that_disagree_say_nothing() {
        let seen = |headers: &[(&'static str, &'static str)]| seen(ForwardedHeader::Either, Some("10.0.0.1"), headers).expect("an address");
        assert_eq!(seen(&[(X, "198.51.100.1")]), "198.51.100.1");
        assert_eq!(seen(&[(FORWARDED, "for=198.51.100.1")]), "198.51.100.1");
        assert_eq!(seen(&[(FORWARDED, "for=198.51.100.1;proto=https"), (X, "6.6.6.6, 198.51.100.1")]), "198.51.100.1");
        assert_eq!(seen(&[(FORWARDED, "for=6.6.6.6"), (X, "198.51.100.1")]), "10.0.0.1");
        assert_eq!(seen(&[(FORWARDED, "for=198.51.100.1"), (X, "6.6.6.6")]), "10.0.0.1");
        assert_eq!(seen(&[(FORWARDED, "nonsense"), (X, "198.51.100.1")]), "10.0.0.1");
        assert_eq!(seen(&[]), "10.0.0.1");
    }

    #[test]
    fn a_proxy_at_a_unix_socket_says_for_whom_it_asks() {
        assert_eq!(seen(ForwardedHeader::XForwardedFor, None, &[(X, "198.51.100.1, 10.0.0.2")]).as_deref(), Some("198.51.100.1"));
        assert_eq!(seen(ForwardedHeader::XForwardedFor, None, &[]), None);
        assert_eq!(seen(ForwardedHeader::XForwardedFor, None, &[(X, "unknown")]), None);
        assert!(!TrustedProxies::default().include(None));
    }
}
