//! Browsers on this host: a page from elsewhere must not reach the local and console listeners through one. It could try by a name of
//! its own that it lets point to this host (DNS rebinding), so `Host` must name us; and by sending a form or a script's request across
//! (CSRF), so `Origin` and `Sec-Fetch-Site` must say that one of our own pages asks. Programs send neither of those two.

use std::net::IpAddr;

use http::header::{self, HeaderMap};
use http::{HeaderName, Uri};
use url::Host;

use crate::oauth::loopback::is_this_machine;

/// Why a request may come from a browser page that has no business here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `Host` is neither a loopback name or address with our port nor one that is allowed.
    #[error("found the host {0:?}, expected a loopback name or address with this listener's port, or one of `hosts`")]
    Host(String),
    /// `Origin` is another than ours.
    #[error("found the origin {0:?}, expected our own, or one of `origins`")]
    Origin(String),
    /// The browser says that another site asks.
    #[error("found a request from another site ({0}), expected one of our own pages, or one of `origins`")]
    OtherSite(String),
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether a request that came in on TCP port `port` may come from a page that is not ours. `hosts` and `origins` are the listener's
/// settings.
///
/// # Errors
/// It may, and is to be answered 403 `browser_refused`.
pub fn check(uri: &Uri, headers: &HeaderMap, port: u16, hosts: &[String], origins: &[String]) -> Result<(), Refusal> {
    let mut named = headers.get_all(header::HOST).iter().map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    let host = uri.authority().map(ToString::to_string).or_else(|| named.next());
    if let Some(other) = named.find(|other| Some(other) != host.as_ref()) {
        return Err(Refusal::Host(other));
    }
    // Without a host it is a program: HTTP/1.0, or a request over HTTP/2 without :authority.
    if let Some(host) = &host
        && !is_ours(host, port, hosts)
    {
        return Err(Refusal::Host(host.clone()));
    }
    check_page(headers, host.as_deref(), origins)
}

/// Whether a page that is neither of `host` nor of one of the `origins` asks, as far as browsers say it.
///
/// # Errors
/// One does, and is to be answered 403 `browser_refused`.
pub fn check_page(headers: &HeaderMap, host: Option<&str>, origins: &[String]) -> Result<(), Refusal> {
    let mut asked_by_allowed_origin = false;
    for origin in headers.get_all(header::ORIGIN) {
        let origin = String::from_utf8_lossy(origin.as_bytes()).into_owned();
        let is_own = origin.split_once("://").is_some_and(|(_, authority)| host.is_some_and(|host| host.eq_ignore_ascii_case(authority)));
        asked_by_allowed_origin = origins.contains(&origin);
        if !is_own && !asked_by_allowed_origin {
            return Err(Refusal::Origin(origin));
        }
    }
    for site in headers.get_all(SEC_FETCH_SITE) {
        if !matches!(site.as_bytes(), b"same-origin" | b"none") && !asked_by_allowed_origin {
            return Err(Refusal::OtherSite(String::from_utf8_lossy(site.as_bytes()).into_owned()));
        }
    }
    Ok(())
}

fn is_ours(host: &str, port: u16, hosts: &[String]) -> bool {
    let (name, given_port) = match host.rsplit_once(':') {
        // A colon inside brackets belongs to an IPv6 address.
        // What stands behind the colon of a host without brackets is a port, or it is no host.
        Some((name, digits)) if !digits.contains(']') => match digits.parse() {
            Ok(port) if digits.bytes().all(|byte| byte.is_ascii_digit()) => (name, Some(port)),
            _ => return false,
        },
        _ => (host, None),
    };
    if hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host) || allowed.eq_ignore_ascii_case(name)) {
        return true;
    }
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let host = match bare.parse() {
        Ok(IpAddr::V4(address)) => Host::Ipv4(address),
        Ok(IpAddr::V6(address)) => Host::Ipv6(address),
        Err(_) => Host::Domain(bare.to_ascii_lowercase()),
    };
    // Of names only the one that every resolver answers by itself: of those below it somebody else's may be asked, and lead here at will.
    let is_own = match &host {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(_) | Host::Ipv6(_) => is_this_machine(&host),
    };
    is_own && given_port == Some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(headers: &[(&'static str, &str)]) -> Result<(), Refusal> {
        let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a header value"))).collect();
        check(&Uri::from_static("/"), &headers, 7490, &["console.example.com".to_owned()], &["https://tool.example.com".to_owned()])
    }

    #[test]
    fn programs_and_our_own_pages_pass() {
        for headers in [
            &[][..],
            &[("host", "127.0.0.1:7490")],
            &[("host", "LOCALHOST:7490"), ("sec-fetch-site", "none")],
            &[("host", "[::1]:7490"), ("origin", "http://[::1]:7490"), ("sec-fetch-site", "same-origin")],
            &[("host", "console.example.com"), ("origin", "https://console.example.com")],
            &[("host", "console.example.com:443")],
            &[("host", "localhost:7490"), ("origin", "https://tool.example.com"), ("sec-fetch-site", "cross-site")],
        ] {
            assert_eq!(judge(headers), Ok(()), "{headers:?}");
        }
    }

    #[test]
    fn pages_from_elsewhere_do_not() {
        for headers in [
            &[("host", "evil.example.com:7490")][..],
            &[("host", "localhost")],
            &[("host", "console.localhost:7490")],
            &[("host", "localhost:80")],
            &[("host", "localhost.example.com:7490")],
            &[("host", "localhost:+7490")],
            &[("host", "console.example.com:443@evil.example.com")],
            &[("host", "127.0.0.1:7490.evil.example.com:7490")],
            &[("host", "localhost:7490"), ("host", "evil.example.com")],
            &[("host", "localhost:7490"), ("origin", "null")],
            &[("host", "localhost:7490"), ("origin", "http://localhost:8080")],
            &[("host", "localhost:7490"), ("origin", "https://evil.example.com")],
            &[("host", "localhost:7490"), ("sec-fetch-site", "cross-site")],
            &[("host", "localhost:7490"), ("sec-fetch-site", "same-site")],
            &[("origin", "https://evil.example.com")],
        ] {
            assert!(judge(headers).is_err(), "{headers:?}");
        }
    }
}
