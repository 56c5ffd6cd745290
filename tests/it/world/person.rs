//! A person at a browser, told in prose: `operator.opens(&url).continues().logs_in().allows().await`.

use std::future::IntoFuture;
use std::path::Path;
use std::pin::Pin;

use p2pid::cli::demo::browser::{Browser, Page};

use super::patience::within;

/// Somebody with a browser, a log-in and a password.
pub(crate) struct Person {
    pub(crate) browser: Browser,
    pub(crate) login: String,
    pub(crate) password: String,
}

impl Person {
    /// Somebody whose browser trusts these authorities.
    pub(crate) fn new<P: AsRef<Path>>(login: &str, password: &str, authorities: &[P]) -> Self {
        let browser = Browser::new(authorities).expect("certificates that can be read");
        Self { browser, login: login.to_owned(), password: password.to_owned() }
    }

    /// Opens an address; what is done on its page, and on those that follow, is added to the sentence.
    pub(crate) fn opens(&mut self, url: &str) -> Visit<'_> {
        Visit { person: self, start: Start::Address(url.to_owned()), acts: Vec::new() }
    }

    /// Goes on from a page that was kept.
    pub(crate) fn goes_on_from(&mut self, page: &Page) -> Visit<'_> {
        Visit { person: self, start: Start::Page(Box::new(page.clone())), acts: Vec::new() }
    }
}

/// What a person does, page by page. Awaiting it does it, and gives the page at its end.
#[must_use = "nothing is done until it is awaited"]
pub(crate) struct Visit<'a> {
    person: &'a mut Person,
    start: Start,
    acts: Vec<Act>,
}

enum Start {
    Address(String),
    Page(Box<Page>),
}

enum Act {
    Continue,
    LogIn,
    Decide(&'static str),
}

impl<'a> Visit<'a> {
    /// Presses the button of the page's only form, as on the request page.
    pub(crate) fn continues(self) -> Self {
        self.then(Act::Continue)
    }

    /// Fills in the log-in form with the person's own name and password.
    pub(crate) fn logs_in(self) -> Self {
        self.then(Act::LogIn)
    }

    /// Presses Allow.
    pub(crate) fn allows(self) -> Self {
        self.then(Act::Decide("allow"))
    }

    /// Presses Decline.
    pub(crate) fn declines(self) -> Self {
        self.then(Act::Decide("decline"))
    }

    fn then(mut self, act: Act) -> Self {
        self.acts.push(act);
        self
    }

    async fn happens(self) -> Page {
        let Self { person, start, acts } = self;
        let mut page = match start {
            Start::Address(url) => person.browser.open(&url).await.unwrap_or_else(|error| panic!("opening {url}: {error}")),
            Start::Page(page) => *page,
        };
        for act in acts {
            let form = match act {
                Act::Continue => page.form().map(|form| form.submit()),
                Act::LogIn => page
                    .form_with("password")
                    .and_then(|form| form.fill("username", &person.login)?.fill("password", &person.password))
                    .map(|form| form.submit()),
                Act::Decide(decision) => page.form_with("decision").and_then(|form| form.press("decision", decision)),
            };
            let navigation = form.unwrap_or_else(|error| panic!("{error}"));
            let mut next = person.browser.follow(navigation).await.unwrap_or_else(|error| panic!("after {}: {error}", page.url));
            let mut way = std::mem::take(&mut page.way);
            way.append(&mut next.way);
            page = Page { way, ..next };
        }
        page
    }
}

impl<'a> IntoFuture for Visit<'a> {
    type Output = Page;
    type IntoFuture = Pin<Box<dyn Future<Output = Page> + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(within("a person at a browser", self.happens()))
    }
}
