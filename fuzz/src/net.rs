//! Readers of the network: paths, headers, certificates.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_LENGTH, COOKIE, FORWARDED, SET_COOKIE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};
use p2pid::clock::Timestamp;
use p2pid::config::{ForwardedHeader, TrustedProxies};
use p2pid::net::certificate::Certificate;
use p2pid::net::client_certificate::{ClientCertificate, of_headers};
use p2pid::net::forwarded::client_address;
use p2pid::net::headers::{
    strip_application_answer, strip_application_trailers, strip_peer_answer, strip_peer_trailers, strip_request, strip_request_trailers,
};
use p2pid::net::path::{self, Path, Upstream};
use p2pid::oauth::client_certificate::Subject;
use p2pid::oauth::thumbprint::CertificateThumbprint;
use rustls_pki_types::CertificateDer;
use url::Url;

use crate::{first_line, headers};

/// A path.
pub fn path(data: &[u8]) {
    // What is no part of a path was cut off by who read the request.
    let Some(text) = std::str::from_utf8(data).ok().filter(|text| !text.contains(['?', '#'])) else { return };
    let Ok(read) = Path::read(text) else { return };
    let sent = read.as_str();
    assert_eq!(Path::read(sent).as_ref().map(Path::as_str), Ok(sent), "what is sent is read as it is");
    assert!(sent.starts_with('/') && sent.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'), "{sent}");
    // An application that decodes before it splits, once.
    let decoded: Vec<u8> = percent_encoding::percent_decode_str(sent).collect();
    assert!(decoded.iter().all(|byte| !byte.is_ascii_control() && *byte != b'\\'), "{sent}");
    for segment in decoded.split(|byte| *byte == b'/') {
        let bare = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        assert!(bare != b"." && bare != b"..", "{sent}");
    }
    if read.strictly().is_ok() {
        assert!(!sent.contains("//") && !sent.to_ascii_lowercase().contains("%2f"), "{sent}");
    }
    // A parser that repairs finds nothing to repair.
    if let Ok(url) = Url::parse("http://host").and_then(|base| base.join(&format!("http://host{sent}"))) {
        assert_eq!(url.path().matches('/').count(), sent.matches('/').count(), "{sent} {url}");
    }
    let (first, rest) = path::first_segment(sent);
    assert!(sent[1..].starts_with(first) && (rest.is_empty() || rest.starts_with('/')));
    let upstream = Upstream::new(&Url::parse("http://127.0.0.1:8080/base/").expect("a URL")).expect("http");
    if let Ok(asked) = format!("{sent}?a=b").parse::<PathAndQuery>()
        && let Ok(uri) = upstream.uri(sent, &asked)
    {
        assert_eq!((uri.path(), uri.query()), (format!("/base{sent}").as_str(), asked.query()));
    }
}

/// Lines `name:value`: headers or trailers of a request, of an application and of a peer.
pub fn stripped_headers(data: &[u8]) {
    let Some(came) = headers(data) else { return };
    let after = |strip: &dyn Fn(&mut HeaderMap)| {
        let mut once = came.clone();
        strip(&mut once);
        let mut twice = once.clone();
        strip(&mut twice);
        assert_eq!(once, twice, "what is left stays");
        once
    };
    let request = after(&strip_request);
    for name in request.keys() {
        let name = as_variable(name);
        assert!(!says_who_calls(&name) && !is_of_one_connection(&name) && name != "host", "{name}");
        assert!(name != "content-length" || request.contains_key(CONTENT_LENGTH), "{name}");
    }
    assert!(request.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).all(|pair| !is_our_cookie(pair)));
    assert_eq!(request.get(CONTENT_LENGTH), came.get(CONTENT_LENGTH), "framing is the parser's");
    let application = after(&strip_application_answer);
    for name in application.keys() {
        let name = as_variable(name);
        assert!(!name.starts_with("p2pi-") && !is_of_one_connection(&name) && name != "strict-transport-security", "{name}");
    }
    let peer = after(&|headers| strip_peer_answer(headers, "us"));
    assert!(peer.keys().all(|name| !is_of_one_connection(&as_variable(name))));
    assert!(peer.get_all("p2pi-error-from").iter().all(|value| value != "us"));
    for answer in [&application, &peer] {
        assert!(answer.get_all(SET_COOKIE).iter().all(|cookie| !is_our_cookie(cookie.as_bytes())));
    }
    for name in after(&strip_request_trailers).keys() {
        assert!(!says_who_calls(&as_variable(name)), "{name}");
    }
    for trailers in [after(&strip_request_trailers), after(&strip_application_trailers), after(&strip_peer_trailers)] {
        for name in ["content-length", "transfer-encoding", "host", "set-cookie", "cookie", "authorization"] {
            assert!(trailers.keys().all(|found| as_variable(found) != name), "{name}");
        }
    }
}

/// As an application behind a CGI-like interface knows it.
fn as_variable(name: &HeaderName) -> String {
    name.as_str().chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '-' }).collect()
}

fn says_who_calls(name: &str) -> bool {
    let names = ["authorization", "dpop", "client-cert", "client-cert-chain", "forwarded", "x-forwarded", "x-real-ip", "proxy"];
    let beginnings = ["p2pi-", "x-forwarded-", "remote-", "x-remote-", "ssl-", "x-ssl-", "x-client-cert"];
    beginnings.iter().any(|beginning| name.starts_with(beginning)) || names.contains(&name)
}

/// But for `TE: trailers`, which each hop says anew.
fn is_of_one_connection(name: &str) -> bool {
    matches!(name, "connection" | "keep-alive" | "transfer-encoding" | "upgrade" | "expect") || name.starts_with("proxy-")
}

/// Whether a browser, or whoever reads cookies leniently, may take a pair for one of ours.
fn is_our_cookie(pair: &[u8]) -> bool {
    let pair = String::from_utf8_lossy(pair).to_ascii_lowercase();
    let pair = pair.trim_start_matches(|character: char| character == '=' || character.is_ascii_whitespace());
    pair.starts_with("p2pid-") || pair.starts_with("__host-p2pid-")
}

/// Lines `name:value` that a client sends through a proxy that we trust, and which adds what it saw to the one header that it writes.
pub fn forwarded(data: &[u8]) {
    let Some(came) = headers(data) else { return };
    let networks = ["127.0.0.0/8", "10.0.0.0/8"].map(|network| network.parse().expect("a network")).to_vec();
    let mut proxies = TrustedProxies { networks, unix: false, header: ForwardedHeader::XForwardedFor };
    let (stranger, seen) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 7]));
    let proxy = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for (header, name, hop) in [
        (ForwardedHeader::XForwardedFor, "x-forwarded-for", seen.to_string()),
        (ForwardedHeader::Forwarded, "forwarded", format!("for={seen}")),
    ] {
        proxies.header = header;
        let found = |headers: &HeaderMap, neighbour| client_address(headers, neighbour, &proxies);
        assert_eq!(found(&came, Some(stranger)), Some(stranger), "whoever is no proxy is believed nothing");
        assert_eq!(found(&came, None), None, "nor is a Unix socket that is not trusted");
        let mut through = came.clone();
        let lines: Vec<HeaderValue> = through.get_all(name).iter().cloned().collect();
        let name = HeaderName::from_static(name);
        // As a line of its own, and at the end of the last line; whatever the client wrote into the other header.
        through.append(&name, HeaderValue::from_str(&hop).expect("an address"));
        assert_eq!(found(&through, Some(proxy)), Some(seen), "{lines:?}");
        let Some((last, before)) = lines.split_last() else { continue };
        through.remove(&name);
        for line in before {
            through.append(&name, line.clone());
        }
        let Ok(line) = HeaderValue::from_bytes(&[last.as_bytes(), b", ", hop.as_bytes()].concat()) else { continue };
        through.append(&name, line);
        let found = found(&through, Some(proxy));
        // A list that cannot be read leads no further than to the proxy.
        assert!(found == Some(seen) || found == Some(proxy), "{lines:?}: {found:?}");
        assert!(name == FORWARDED || found == Some(seen) || last.to_str().is_err(), "{lines:?}: {found:?}");
    }
}

/// A certificate, DER; and who it may be.
pub fn client_certificate(data: &[u8]) {
    let der = CertificateDer::from(data.to_vec());
    let read = Certificate::read(&der);
    let is_of = |kind: &str, value: &str| Subject::register(kind, value).is_ok_and(|subject| subject.is_of(data));
    if let Some(certificate) = &read {
        for name in &certificate.names {
            match name.parse::<IpAddr>() {
                // A DNS name may look like an address.
                Ok(_) => assert!(is_of("tls_client_auth_san_ip", name) || is_of("tls_client_auth_san_dns", name), "{name}"),
                Err(_) => assert_eq!(
                    is_of("tls_client_auth_san_dns", name),
                    !name.is_empty() && name.len() <= 1024 && name.bytes().all(|byte| byte.is_ascii_graphic()),
                    "{name}"
                ),
            }
        }
    }
    let chain = ClientCertificate::read(vec![der.clone()]);
    assert!(chain.is_none() || read.is_some());
    let Some(chain) = chain else { return };
    assert_eq!(chain.thumbprint(), CertificateThumbprint::of_der(data));
    assert!(!chain.is_valid_at(Timestamp::default().plus(Duration::from_secs(u64::MAX / 1000))));
    let now = Timestamp::default().plus(Duration::from_secs(1_800_000_000));
    assert!(chain.check_authority(&[], now).is_err(), "nobody stands behind it");
    // It may sign itself; nobody else's signature is its own.
    let _ = chain.check_authority(std::slice::from_ref(&der), now);
}

/// The first line says which of the names, from `0`; the next one is the name that a client is registered by; what follows is a certificate.
pub fn certificate_subject(data: &[u8]) {
    let (kind, rest) = first_line(data);
    let (value, der) = first_line(rest);
    let ([digit @ b'0'..=b'4'], Ok(value)) = (kind, std::str::from_utf8(value)) else { return };
    let name = Subject::NAMES[usize::from(digit - b'0')];
    let Ok(subject) = Subject::register(name, value) else { return };
    let (named, written) = subject.to_metadata();
    assert_eq!(named, name);
    assert_eq!(Subject::register(named, &written).as_ref(), Ok(&subject));
    let json = serde_json::to_string(&subject).expect("JSON");
    assert_eq!(serde_json::from_str::<Subject>(&json).expect("read as written"), subject);
    let _ = subject.is_of(der);
}

/// Lines `name:value`, as a proxy says which certificate it was shown (RFC 9440).
pub fn client_cert_header(data: &[u8]) {
    let Some(came) = headers(data) else { return };
    let Some(certificate) = of_headers(&came) else { return };
    assert_eq!(came.get_all("client-cert").iter().count(), 1);
    assert_eq!(certificate.thumbprint(), CertificateThumbprint::of_der(certificate.der()));
    let written = format!(":{}:", STANDARD.encode(certificate.der()));
    let mut again = HeaderMap::new();
    again.insert("client-cert", HeaderValue::from_str(&written).expect("base64"));
    let again = of_headers(&again).expect("read as written");
    assert_eq!(again.thumbprint(), certificate.thumbprint());
}
