//! A small real browser for pages without script: it keeps cookies, follows redirects step by step, parses the pages' forms and sends
//! them with the headers that browsers send. The demo and the tests sit in front of it.
//!
//! It is stricter than most browsers where they differ: `form-action` covers redirects, a redirect chain that crosses sites stays
//! cross-site, and a site is one scheme and host.

mod cookies;
mod markup;
mod page;
mod policy;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

pub use cookies::Cookies;
pub use page::{Form, Hop, Page};

use crate::net::causes;
use cookies::Context;

const MOST_REDIRECTS: usize = 10;
const LARGEST_PAGE: usize = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// What keeps a person at the browser from going on.
#[derive(Debug, thiserror::Error)]
pub enum BrowserError {
    /// A file of certificate authorities cannot be used.
    #[error("the certificate file {path} cannot be used: {why}")]
    Certificates {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The text is not an address that a browser opens.
    #[error("\"{0}\" is not an http or https address")]
    NotAnAddress(String),
    /// The site did not answer.
    #[error("{method} {url} got no answer: {why}")]
    NoAnswer {
        /// What was asked.
        method: Method,
        /// Where.
        url: Box<Url>,
        /// What happened instead.
        why: String,
    },
    /// A redirect led to the next and so on.
    #[error("too many redirects, the last one to {0}")]
    TooManyRedirects(Box<Url>),
    /// The page's `form-action` forbids where its form led.
    #[error("the Content-Security-Policy of {page} does not let its form go to {url}")]
    FormActionForbids {
        /// The page.
        page: Box<Url>,
        /// Where its form led.
        url: Box<Url>,
    },
    /// The page has not exactly one such form.
    #[error("{url} ({status}) has not exactly one form {which}; it says: {text}")]
    NoSuchForm {
        /// What was looked for.
        which: String,
        /// The page.
        url: Box<Url>,
        /// Its status.
        status: StatusCode,
        /// How its text begins.
        text: String,
    },
    /// The form has no such input or button.
    #[error("the form to {form} has no \"{name}\"; it has: {found}")]
    NoSuchControl {
        /// What was looked for.
        name: String,
        /// Where the form goes.
        form: Box<Url>,
        /// The form's inputs and buttons.
        found: String,
    },
}

/// A browser with its cookies. One value is one person at one machine.
#[derive(Clone, Debug)]
pub struct Browser {
    cookies: Cookies,
    tls: Arc<rustls::ClientConfig>,
}

impl Browser {
    /// A browser that trusts the authorities in these PEM files, and nobody else.
    ///
    /// # Errors
    /// [`BrowserError::Certificates`]
    pub fn new<P: AsRef<Path>>(authorities: &[P]) -> Result<Self, BrowserError> {
        let mut roots = RootCertStore::empty();
        for path in authorities {
            let path = path.as_ref();
            let fail = |why: String| BrowserError::Certificates { path: path.display().to_string(), why };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| fail(error.to_string()))? {
                let certificate = certificate.map_err(|error| fail(error.to_string()))?;
                roots.add(certificate).map_err(|error| fail(error.to_string()))?;
            }
        }
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Self { cookies: Cookies::default(), tls: Arc::new(tls) })
    }

    /// Opens an address that a person typed or pasted, and follows redirects.
    ///
    /// # Errors
    /// Any [`BrowserError`] but those of forms.
    pub async fn open(&mut self, address: &str) -> Result<Page, BrowserError> {
        let url = Url::parse(address).map_err(|_| BrowserError::NotAnAddress(address.to_owned()))?;
        self.follow(Navigation::typed(url)).await
    }

    /// Goes where `navigation` leads, and follows redirects.
    ///
    /// # Errors
    /// Any [`BrowserError`] but those of forms.
    pub async fn follow(&mut self, navigation: Navigation) -> Result<Page, BrowserError> {
        let mut navigation = navigation;
        let mut way = Vec::new();
        loop {
            let mut page = self.step(&navigation).await?;
            way.append(&mut page.way);
            let Some(next) = way.last().and_then(Hop::location) else {
                page.way = way;
                return Ok(page);
            };
            if way.len() > MOST_REDIRECTS {
                return Err(BrowserError::TooManyRedirects(Box::new(next)));
            }
            navigation = navigation.redirected(page.status, next);
        }
    }

    /// One request and its answer; a redirect is not followed.
    ///
    /// # Errors
    /// Any [`BrowserError`] but those of forms.
    pub async fn step(&mut self, navigation: &Navigation) -> Result<Page, BrowserError> {
        navigation.check()?;
        let (method, url) = (&navigation.method, &navigation.url);
        let fail = |why: String| BrowserError::NoAnswer { method: method.clone(), url: Box::new(url.clone()), why };
        let request = self.request(navigation).map_err(|error| fail(error.to_string()))?;
        let answer = tokio::time::timeout(PATIENCE, self.exchange(url, request)).await;
        let answer = answer.map_err(|_| fail(format!("nothing within {} s", PATIENCE.as_secs())))?;
        let (parts, body) = answer.map_err(|error| fail(causes::told(error.as_ref())))?.into_parts();
        let lines = parts.headers.get_all(header::SET_COOKIE).iter().filter_map(|line| line.to_str().ok());
        let refused = self.cookies.store(url, lines);
        if !refused.is_empty() {
            return Err(fail(format!("it sets cookies that a browser refuses: {}", refused.join(", "))));
        }
        let hop = Hop { method: method.clone(), url: url.clone(), status: parts.status, headers: parts.headers.clone() };
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Page { url: url.clone(), status: parts.status, headers: parts.headers, body, way: vec![hop] })
    }

    /// The cookies.
    pub fn cookies(&mut self) -> &mut Cookies {
        &mut self.cookies
    }

    fn request(&self, navigation: &Navigation) -> Result<http::Request<Full<Bytes>>, http::Error> {
        let url = &navigation.url;
        let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let body = Bytes::from(navigation.body.clone().unwrap_or_default());
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let mut request = http::Request::builder().method(navigation.method.clone()).uri(target).body(Full::new(body))?;
        let headers = request.headers_mut();
        let mut set = |name: HeaderName, value: &str| HeaderValue::from_str(value).map(|value| headers.insert(name, value));
        set(header::HOST, host)?;
        set(header::USER_AGENT, "p2pid-demo-browser")?;
        set(header::ACCEPT, "text/html,*/*;q=0.8")?;
        if navigation.body.is_some() {
            set(header::CONTENT_TYPE, "application/x-www-form-urlencoded")?;
        }
        if let Some(cookie) = self.cookies.header(&navigation.method, url, navigation.context()) {
            set(header::COOKIE, &cookie)?;
        }
        if let Some(page) = &navigation.page {
            if let Some(origin) = navigation.origin(page) {
                set(header::ORIGIN, &origin)?;
            }
            if let Some(referer) = navigation.referrer.referer(page, url) {
                set(header::REFERER, &referer)?;
            }
        }
        set(HeaderName::from_static("sec-fetch-site"), navigation.fetch_site())?;
        set(HeaderName::from_static("sec-fetch-mode"), "navigate")?;
        set(HeaderName::from_static("sec-fetch-dest"), "document")?;
        set(HeaderName::from_static("sec-fetch-user"), "?1")?;
        for (name, value) in &navigation.altered {
            match value {
                Some(value) => headers.insert(name.clone(), value.clone()),
                None => headers.remove(name),
            };
        }
        Ok(request)
    }

    async fn exchange(&self, url: &Url, request: http::Request<Full<Bytes>>) -> Result<http::Response<Bytes>, anyhow::Error> {
        let port = url.port_or_known_default().unwrap_or(443);
        let tcp = match url.host() {
            Some(url::Host::Domain(name)) => TcpStream::connect((name, port)).await?,
            Some(url::Host::Ipv4(address)) => TcpStream::connect((address, port)).await?,
            Some(url::Host::Ipv6(address)) => TcpStream::connect((address, port)).await?,
            None => anyhow::bail!("the address has no host"),
        };
        if url.scheme() == "http" {
            return speak(tcp, request).await;
        }
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(ServerName::try_from(host)?, tcp).await?;
        speak(tls, request).await
    }
}

/// A request that a browser is about to make: a typed address, a form that was sent, a redirect.
#[derive(Clone, Debug)]
pub struct Navigation {
    method: Method,
    url: Url,
    body: Option<String>,
    /// The page that led here; `None` when a person typed the address.
    page: Option<Url>,
    referrer: policy::Referrer,
    targets: policy::FormTargets,
    /// A hop of the chain left the page's site.
    crossed: Crossing,
    altered: Vec<(HeaderName, Option<HeaderValue>)>,
}

/// How far from its page a chain of redirects has led.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Crossing {
    SameOrigin,
    SameSite,
    CrossSite,
}

impl Navigation {
    /// Somebody typed or pasted `url`.
    pub fn typed(url: Url) -> Self {
        Self {
            method: Method::GET,
            url,
            body: None,
            page: None,
            referrer: policy::Referrer::default(),
            targets: policy::FormTargets::default(),
            crossed: Crossing::SameOrigin,
            altered: Vec::new(),
        }
    }

    fn from_page(
        method: Method,
        url: Url,
        body: Option<String>,
        page: &Url,
        referrer: policy::Referrer,
        targets: policy::FormTargets,
    ) -> Self {
        let crossed = crossing(page, &url);
        Self { method, url, body, page: Some(page.clone()), referrer, targets, crossed, altered: Vec::new() }
    }

    /// Where it leads.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The form that it carries, encoded.
    pub fn body(&self) -> Option<&str> {
        self.body.as_deref()
    }

    /// The same request with another body: what nobody's browser sends, for those who look for gaps.
    pub fn with_body(mut self, body: &str) -> Self {
        self.body = Some(body.to_owned());
        self
    }

    /// The same request with this header set, or left out with `None`: what nobody's browser sends, for those who look for gaps.
    pub fn with_header(mut self, name: HeaderName, value: Option<HeaderValue>) -> Self {
        self.altered.push((name, value));
        self
    }

    /// The request that follows an answer with `status` and a `Location`.
    pub fn redirected(&self, status: StatusCode, url: Url) -> Self {
        let keeps = matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        let mut next = self.clone();
        if !keeps {
            next.method = Method::GET;
            next.body = None;
        }
        let from_page = self.page.as_ref().map_or(Crossing::SameOrigin, |page| crossing(page, &url));
        next.crossed = self.crossed.max(from_page);
        next.url = url;
        next.altered.clear();
        next
    }

    fn check(&self) -> Result<(), BrowserError> {
        if !matches!(self.url.scheme(), "http" | "https") {
            return Err(BrowserError::NotAnAddress(self.url.to_string()));
        }
        match &self.page {
            Some(page) if !self.targets.allow(page, &self.url) => {
                Err(BrowserError::FormActionForbids { page: Box::new(page.clone()), url: Box::new(self.url.clone()) })
            }
            _ => Ok(()),
        }
    }

    fn context(&self) -> Context {
        if self.crossed == Crossing::CrossSite { Context::CrossSite } else { Context::SameSite }
    }

    /// `Origin`: a POST that a redirect carried to another origin says `null`.
    fn origin(&self, page: &Url) -> Option<String> {
        let origin = self.referrer.origin(&self.method, page, &self.url)?;
        Some(if self.crossed > crossing(page, &self.url) { "null".to_owned() } else { origin })
    }

    fn fetch_site(&self) -> &'static str {
        match (&self.page, self.crossed) {
            (None, _) => "none",
            (Some(_), Crossing::SameOrigin) => "same-origin",
            (Some(_), Crossing::SameSite) => "same-site",
            (Some(_), Crossing::CrossSite) => "cross-site",
        }
    }
}

fn crossing(page: &Url, url: &Url) -> Crossing {
    if page.origin() == url.origin() {
        Crossing::SameOrigin
    } else if page.scheme() == url.scheme() && page.host() == url.host() {
        Crossing::SameSite
    } else {
        Crossing::CrossSite
    }
}

/// One HTTP/1.1 request over a connection of its own, and the whole answer.
pub(super) async fn speak<S>(stream: S, request: http::Request<Full<Bytes>>) -> Result<http::Response<Bytes>, anyhow::Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, LARGEST_PAGE).collect().await.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
    connection.abort();
    Ok(http::Response::from_parts(parts, body))
}

#[cfg(test)]
mod tests;
