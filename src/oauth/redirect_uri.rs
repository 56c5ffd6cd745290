//! Redirect URIs: what may be registered, and what a request may name (RFC 6749 §3.1.2, RFC 8252 §7.3, RFC 9700 §2.1).

use std::fmt;

use url::{Host, Url};

use super::loopback::is_loopback;

/// Longer than any redirect URI that is not an attack.
const LONGEST: usize = 2048;

/// A redirect URI that was registered, kept as it was written: it is compared as a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectUri {
    text: String,
    url: Url,
}

/// Why a redirect URI cannot be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRegistrable {
    /// Not absolute, not a URL, or with characters that a URL has only after repair.
    #[error("not an absolute URL in its normal ASCII form")]
    NotAbsolute,
    /// `#…` would be lost or would hide the answer (RFC 6749 §3.1.2).
    #[error("it has a fragment")]
    Fragment,
    /// Anything but https, and http on a loopback host: also `javascript:` and `data:`.
    #[error("neither https nor http on a loopback host")]
    Scheme,
    /// `user@`, which is good for nothing but to deceive.
    #[error("it has a user name or password")]
    UserInfo,
    /// A host with characters that have a meaning elsewhere: the origin stands in our pages' Content-Security-Policy.
    #[error("it has a host that is neither an address nor made of letters, digits, `.`, `-` and `_`")]
    Host,
    /// Beyond 2048 characters.
    #[error("longer than 2048 characters")]
    TooLong,
}

impl RedirectUri {
    /// Checks a redirect URI that somebody wants to register.
    pub fn register(text: &str) -> Result<Self, NotRegistrable> {
        if text.len() > LONGEST {
            return Err(NotRegistrable::TooLong);
        }
        // The parser repairs spaces, control characters, backslashes and letters beyond ASCII; browsers would repair them too, and strings
        // that are compared as written must not need it.
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'"' | b'<' | b'>')) {
            return Err(NotRegistrable::NotAbsolute);
        }
        let url = Url::parse(text).map_err(|_| NotRegistrable::NotAbsolute)?;
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            _ => return Err(NotRegistrable::Scheme),
        }
        if url.fragment().is_some() {
            return Err(NotRegistrable::Fragment);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(NotRegistrable::UserInfo);
        }
        if !has_plain_host(&url) {
            return Err(NotRegistrable::Host);
        }
        if !text.get(url.scheme().len()..).is_some_and(|rest| rest.starts_with("://")) {
            return Err(NotRegistrable::NotAbsolute);
        }
        Ok(Self { text: text.to_owned(), url })
    }

    /// Whether a request may name `presented`: the same string, or, for an app that is `native`, the same but for the port of an `http`
    /// URL on a loopback address.
    pub fn accepts(&self, presented: &str, native: bool) -> bool {
        let is_but_for_the_port = || self.without_port().is_some_and(|ours| without_port(presented) == Some(ours));
        self.text == presented || (native && self.is_on_loopback_address() && is_but_for_the_port())
    }

    /// As registered.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// As parsed.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// RFC 8252 §7.3 speaks of address literals only; `localhost` can be made to point elsewhere.
    fn is_on_loopback_address(&self) -> bool {
        self.url.scheme() == "http" && !matches!(self.url.host(), Some(Host::Domain(_)) | None)
    }

    fn without_port(&self) -> Option<(&str, &str)> {
        without_port(&self.text)
    }
}

impl fmt::Display for RedirectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What stands before and behind the port of `http://address[:port]…`; nothing when the port is not a number.
fn without_port(text: &str) -> Option<(&str, &str)> {
    let authority = "http://".len();
    let end = text.get(authority..)?.find(['/', '?']).map_or(text.len(), |end| authority + end);
    let host_end = match text[authority..end].rfind(']') {
        Some(bracket) => authority + bracket + 1,
        None => text[authority..end].find(':').map_or(end, |colon| authority + colon),
    };
    let port = &text[host_end..end];
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port != 0);
    let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_number);
    is_port.then(|| (&text[..host_end], &text[end..]))
}

/// Whether the host of `url` is an address or a name of letters, digits, `.`, `-` and `_`. URLs allow more, such as `;`, `,` and `*`, which
/// no DNS name of a server has.
pub fn has_plain_host(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')),
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => true,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a3_only_absolute_https_or_loopback_without_a_fragment_is_registered() {
        for right in [
            "https://one.example/oauth/callback",
            "https://one.example:7443/cb?x=1",
            "http://127.0.0.1:9000/cb",
            "http://[::1]/cb",
            "http://localhost:3000/",
        ] {
            assert!(RedirectUri::register(right).is_ok(), "{right}");
        }
        for (wrong, expected) in [
            ("", NotRegistrable::NotAbsolute),
            ("/cb", NotRegistrable::NotAbsolute),
            ("//one.example/cb", NotRegistrable::NotAbsolute),
            ("https:one.example/cb", NotRegistrable::NotAbsolute),
            ("https://one.example/c b", NotRegistrable::NotAbsolute),
            ("https://one.example\\cb", NotRegistrable::NotAbsolute),
            ("https://öne.example/cb", NotRegistrable::NotAbsolute),
            ("https://one.example/cb\n", NotRegistrable::NotAbsolute),
            ("https://one.example/cb#x", NotRegistrable::Fragment),
            ("https://one.example/cb#", NotRegistrable::Fragment),
            ("http://one.example/cb", NotRegistrable::Scheme),
            ("http://127.0.0.1.one.example/cb", NotRegistrable::Scheme),
            ("javascript:alert(1)", NotRegistrable::Scheme),
            ("data:text/html,x", NotRegistrable::Scheme),
            ("com.example.app:/cb", NotRegistrable::Scheme),
            ("https://user@one.example/cb", NotRegistrable::UserInfo),
            ("https://a;script-src/cb", NotRegistrable::Host),
            ("https://*,x/cb", NotRegistrable::Host),
            ("https://*/cb", NotRegistrable::Host),
            ("https://*.one.example/cb", NotRegistrable::Host),
            ("https://'self'/cb", NotRegistrable::Host),
            ("https://a%3Bscript-src/cb", NotRegistrable::Host),
            (&format!("https://one.example/{}", "a".repeat(2048)), NotRegistrable::TooLong),
        ] {
            assert_eq!(RedirectUri::register(wrong).map(|_| ()), Err(expected), "{wrong:?}");
        }
    }

    #[test]
    fn a1_a_request_names_the_registered_string_exactly() {
        let registered = RedirectUri::register("https://one.example/cb?x=1").expect("registrable");
        assert!(registered.accepts("https://one.example/cb?x=1", false));
        for other in [
            "https://one.example/cb",
            "https://one.example/cb?x=1&y=2",
            "https://one.example/CB?x=1",
            "https://one.example/cb/?x=1",
            "https://ONE.example/cb?x=1",
            "https://one.example:443/cb?x=1",
            "https://one.example/cb?x=1#f",
            "https://one.example/a/../cb?x=1",
            "https://one.example/%63b?x=1",
            "",
        ] {
            assert!(!registered.accepts(other, false) && !registered.accepts(other, true), "{other}");
        }
    }

    #[test]
    fn a1_only_a_native_app_may_vary_the_port_and_only_on_a_loopback_address() {
        let registered = |text| RedirectUri::register(text).expect("registrable");
        let four = registered("http://127.0.0.1:9000/cb?x");
        assert!(four.accepts("http://127.0.0.1:1/cb?x", true));
        assert!(four.accepts("http://127.0.0.1/cb?x", true));
        assert!(!four.accepts("http://127.0.0.1:1/cb?x", false));
        for other in [
            "http://127.0.0.1:/cb?x",
            "http://127.0.0.1:0/cb?x",
            "http://127.0.0.1:99999/cb?x",
            "http://127.0.0.1:+1/cb?x",
            "http://127.0.0.1:1@one.example/cb?x",
            "http://127.0.0.2:9000/cb?x",
            "http://127.0.0.1:1/cb",
            "https://127.0.0.1:1/cb?x",
            "http://127.0.0.1:1\\@one.example/cb?x",
        ] {
            assert!(!four.accepts(other, true), "{other}");
        }
        assert!(registered("http://[::1]:9000/cb").accepts("http://[::1]:1/cb", true));
        assert!(!registered("http://localhost:9000/cb").accepts("http://localhost:1/cb", true));
        assert!(!registered("https://127.0.0.1:9000/cb").accepts("https://127.0.0.1:1/cb", true));
        // A registered port that is none makes no other text one with it.
        for odd in ["http://127.0.0.1:0/cb", "http://127.0.0.1:/cb", "http://[::1]:0/cb"] {
            for other in
                ["http://127.0.0.1:1@one.example/cb", "http://127.0.0.1:x/cb", "http://[::1]:1@one.example/cb", "http://127.0.0.1:1/cb"]
            {
                assert!(registered(odd).accepts(odd, true) && !registered(odd).accepts(other, true), "{odd} {other}");
            }
        }
    }
}
