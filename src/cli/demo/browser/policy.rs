//! What a page's headers let the browser tell others (Referrer-Policy), and where its forms may go (CSP `form-action`).

use http::{HeaderMap, Method, header};
use url::{Origin, Url};

/// Referrer-Policy, as far as it is in use; everything else is read as the browsers' default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Referrer {
    Nothing,
    OnlySameOrigin,
    #[default]
    OriginElsewhere,
}

impl Referrer {
    /// The policy of a page with these headers.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        match headers.get(header::REFERRER_POLICY).and_then(|value| value.to_str().ok()) {
            Some("no-referrer") => Self::Nothing,
            Some("same-origin") => Self::OnlySameOrigin,
            _ => Self::OriginElsewhere,
        }
    }

    /// `Referer` of a request from `page` to `url`.
    pub(super) fn referer(self, page: &Url, url: &Url) -> Option<String> {
        let same = page.origin() == url.origin();
        match self {
            Self::Nothing => None,
            Self::OnlySameOrigin if !same => None,
            _ if page.scheme() == "https" && url.scheme() != "https" => None,
            _ if same => {
                let mut page = page.clone();
                page.set_fragment(None);
                Some(page.into())
            }
            _ => Some(format!("{}/", page.origin().ascii_serialization())),
        }
    }

    /// `Origin` of a request from `page` to `url`: none for GET; `null` where the policy hides the page.
    pub(super) fn origin(self, method: &Method, page: &Url, url: &Url) -> Option<String> {
        if method == Method::GET || method == Method::HEAD {
            return None;
        }
        let hidden = match self {
            Self::Nothing => true,
            Self::OnlySameOrigin => page.origin() != url.origin(),
            Self::OriginElsewhere => page.scheme() == "https" && url.scheme() != "https",
        };
        Some(if hidden { "null".to_owned() } else { page.origin().ascii_serialization() })
    }
}

/// Where a page's Content-Security-Policy lets its forms go, redirects included; `None` is anywhere.
#[derive(Clone, Debug, Default)]
pub(super) struct FormTargets(Option<Vec<String>>);

impl FormTargets {
    /// The `form-action` of a page with these headers.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let policies = headers.get_all(header::CONTENT_SECURITY_POLICY).iter().filter_map(|value| value.to_str().ok());
        let directives = policies.flat_map(|policy| policy.split(';')).map(str::trim);
        let mut sources = directives.filter_map(|directive| directive.strip_prefix("form-action"));
        Self(sources.next().map(|sources| sources.split_whitespace().map(str::to_owned).collect()))
    }

    /// Whether a form of `page` may reach `url`.
    pub(super) fn allow(&self, page: &Url, url: &Url) -> bool {
        let Some(sources) = &self.0 else { return true };
        sources.iter().any(|source| match source.as_str() {
            "'self'" => page.origin() == url.origin(),
            "'none'" => false,
            source => Url::parse(source).is_ok_and(|source| covers(&source, url)),
        })
    }
}

fn covers(source: &Url, url: &Url) -> bool {
    let path_fits = match source.path() {
        "" | "/" => true,
        path if path.ends_with('/') => url.path().starts_with(path),
        path => url.path() == path,
    };
    matches!(source.origin(), Origin::Tuple(..)) && source.origin() == url.origin() && path_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a test's address")
    }

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, http::HeaderValue::from_static(value))])
    }

    #[test]
    fn the_origin_is_told_as_the_policy_allows() {
        let (page, here, there) = (url("https://one.test/a?b"), url("https://one.test/c"), url("https://two.test/"));
        let cases = [
            ("same-origin", &here, Some("https://one.test"), Some("https://one.test/a?b")),
            ("same-origin", &there, Some("null"), None),
            ("no-referrer", &here, Some("null"), None),
            ("", &there, Some("https://one.test"), Some("https://one.test/")),
        ];
        for (policy, target, origin, referer) in cases {
            let referrer = Referrer::of(&headers(header::REFERRER_POLICY, policy));
            assert_eq!(referrer.origin(&Method::POST, &page, target).as_deref(), origin, "{policy} {target}");
            assert_eq!(referrer.referer(&page, target).as_deref(), referer, "{policy} {target}");
            assert_eq!(referrer.origin(&Method::GET, &page, target), None);
        }
    }

    #[test]
    fn forms_go_only_where_form_action_lets_them() {
        let page = url("https://one.test/a");
        let policy = "default-src 'none'; form-action 'self' https://two.test:8443";
        let targets = FormTargets::of(&headers(header::CONTENT_SECURITY_POLICY, policy));
        assert!(targets.allow(&page, &url("https://one.test/b")));
        assert!(targets.allow(&page, &url("https://two.test:8443/oauth/authorize?x=1")));
        assert!(!targets.allow(&page, &url("https://two.test/")));
        assert!(!targets.allow(&page, &url("http://one.test/b")));
        let none = FormTargets::of(&headers(header::CONTENT_SECURITY_POLICY, "form-action 'none'"));
        assert!(!none.allow(&page, &page));
        assert!(FormTargets::of(&HeaderMap::new()).allow(&page, &url("https://three.test/")));
    }
}
