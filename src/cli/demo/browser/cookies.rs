//! A cookie jar that keeps and sends cookies as browsers do: Secure, Path, SameSite, the `__Host-` and `__Secure-` prefixes (RFC 6265bis).

use std::time::SystemTime;

use http::Method;
use url::Url;

/// The cookies of one browser. As in every browser, ports do not separate them.
#[derive(Clone, Debug, Default)]
pub struct Cookies(Vec<Cookie>);

/// One cookie.
#[derive(Clone, Debug)]
struct Cookie {
    host: String,
    path: String,
    name: String,
    value: String,
    secure: bool,
    same_site: SameSite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SameSite {
    Strict,
    Lax,
    None,
}

/// How the request came about, which decides over SameSite cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    SameSite,
    CrossSite,
}

impl Cookies {
    /// Takes over what an answer of `url` sets. Returns the names of cookies that a browser refuses.
    pub(super) fn store<'a>(&mut self, url: &Url, lines: impl Iterator<Item = &'a str>) -> Vec<String> {
        let mut refused = Vec::new();
        for line in lines {
            match Cookie::read(url, line) {
                Some((cookie, gone)) => {
                    self.0.retain(|old| !old.is_same_place(&cookie));
                    if !gone {
                        self.0.push(cookie);
                    }
                }
                None => refused.push(line.split('=').next().unwrap_or_default().trim().to_owned()),
            }
        }
        refused
    }

    /// The `Cookie` header of a request, or `None` when there is nothing to send.
    pub(super) fn header(&self, method: &Method, url: &Url, context: Context) -> Option<String> {
        let lax = context == Context::SameSite || method == Method::GET;
        let fits = |cookie: &&Cookie| {
            let site = match cookie.same_site {
                SameSite::Strict => context == Context::SameSite,
                SameSite::Lax => lax,
                SameSite::None => true,
            };
            site && cookie.reaches(url)
        };
        let mut cookies: Vec<&Cookie> = self.0.iter().filter(fits).collect();
        cookies.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let pairs: Vec<String> = cookies.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    /// The names and values that would go to `url`.
    pub fn reaching(&self, url: &Url) -> Vec<(&str, &str)> {
        let cookies = self.0.iter().filter(|cookie| cookie.reaches(url));
        cookies.map(|cookie| (cookie.name.as_str(), cookie.value.as_str())).collect()
    }

    /// Forgets everything, as a person does who clears the browser's data.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl Cookie {
    /// The cookie that `line` sets, and whether it is set only to be deleted; `None` when a browser refuses it.
    fn read(url: &Url, line: &str) -> Option<(Self, bool)> {
        let mut parts = line.split(';');
        let (name, value) = parts.next()?.split_once('=')?;
        let mut cookie = Self {
            host: url.host_str()?.to_owned(),
            path: default_path(url),
            name: name.trim().to_owned(),
            value: value.trim().to_owned(),
            secure: false,
            same_site: SameSite::Lax,
        };
        let (mut gone, mut whole_path) = (false, false);
        for part in parts {
            let (key, value) = part.split_once('=').map_or((part.trim(), ""), |(key, value)| (key.trim(), value.trim()));
            match key.to_ascii_lowercase().as_str() {
                "secure" => cookie.secure = true,
                "path" if value.starts_with('/') => {
                    value.clone_into(&mut cookie.path);
                    whole_path = value == "/";
                }
                // Cookies for a whole domain are nothing that a peer's page may set.
                "domain" => return None,
                "max-age" => gone = value.parse::<i64>().is_ok_and(|seconds| seconds <= 0),
                "expires" => gone = httpdate::parse_http_date(value).is_ok_and(|expires| expires <= SystemTime::now()),
                "samesite" if value.eq_ignore_ascii_case("strict") => cookie.same_site = SameSite::Strict,
                "samesite" if value.eq_ignore_ascii_case("none") => cookie.same_site = SameSite::None,
                _ => {}
            }
        }
        let secure_origin = url.scheme() == "https";
        let allowed = (!cookie.secure || secure_origin)
            && (!cookie.name.starts_with("__Host-") || (cookie.secure && whole_path))
            && (!cookie.name.starts_with("__Secure-") || cookie.secure)
            && (cookie.same_site != SameSite::None || cookie.secure);
        allowed.then_some((cookie, gone))
    }

    fn is_same_place(&self, other: &Self) -> bool {
        self.host == other.host && self.path == other.path && self.name == other.name
    }

    fn reaches(&self, url: &Url) -> bool {
        let under =
            url.path().strip_prefix(&self.path).is_some_and(|rest| self.path.ends_with('/') || rest.is_empty() || rest.starts_with('/'));
        url.host_str() == Some(&self.host) && under && (!self.secure || url.scheme() == "https")
    }
}

fn default_path(url: &Url) -> String {
    match url.path().rfind('/') {
        Some(0) | None => "/".to_owned(),
        Some(end) => url.path()[..end].to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a test's address")
    }

    fn jar(at: &str, line: &str) -> Cookies {
        let mut cookies = Cookies::default();
        cookies.store(&url(at), std::iter::once(line));
        cookies
    }

    #[test]
    fn a_browser_refuses_what_its_prefix_or_origin_forbids() {
        for (at, line) in [
            ("https://one.test/", "__Host-a=1; Path=/"),
            ("https://one.test/", "__Host-a=1; Secure"),
            ("https://one.test/x/", "__Host-a=1; Secure; Path=/x"),
            ("https://one.test/", "__Host-a=1; Secure; Path=/; Domain=one.test"),
            ("http://one.test/", "__Host-a=1; Secure; Path=/"),
            ("https://one.test/", "__Secure-a=1"),
            ("https://one.test/", "a=1; SameSite=None"),
        ] {
            assert!(jar(at, line).0.is_empty(), "{line}");
        }
        assert_eq!(jar("https://one.test/x", "__Host-a=1; Secure; Path=/; HttpOnly").0.len(), 1);
    }

    #[test]
    fn cookies_go_to_their_host_and_path_whatever_the_port() {
        let cookies = jar("https://one.test:1/a/b", "c=1; Secure; Path=/a");
        let reaches = |to: &str| !cookies.reaching(&url(to)).is_empty();
        assert!(reaches("https://one.test:2/a/x"));
        assert!(reaches("https://one.test/a"));
        assert!(!reaches("https://one.test/ab"));
        assert!(!reaches("http://one.test/a"));
        assert!(!reaches("https://two.test/a"));
    }

    #[test]
    fn same_site_decides_over_requests_from_elsewhere() {
        let at = "https://one.test/";
        for (line, cross_get, cross_post) in
            [("c=1; SameSite=Strict", false, false), ("c=1; SameSite=Lax", true, false), ("c=1; SameSite=None; Secure", true, true)]
        {
            let cookies = jar(at, line);
            assert_eq!(cookies.header(&Method::GET, &url(at), Context::CrossSite).is_some(), cross_get, "{line}");
            assert_eq!(cookies.header(&Method::POST, &url(at), Context::CrossSite).is_some(), cross_post, "{line}");
            assert!(cookies.header(&Method::POST, &url(at), Context::SameSite).is_some(), "{line}");
        }
    }

    #[test]
    fn setting_again_replaces_and_max_age_zero_deletes() {
        let mut cookies = jar("https://one.test/", "c=1; Path=/");
        cookies.store(&url("https://one.test/"), std::iter::once("c=2; Path=/"));
        assert_eq!(cookies.reaching(&url("https://one.test/")), [("c", "2")]);
        cookies.store(&url("https://one.test/"), std::iter::once("c=; Path=/; Max-Age=0"));
        assert!(cookies.reaching(&url("https://one.test/")).is_empty());
    }
}
