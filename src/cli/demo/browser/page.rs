//! What a browser without script sees in a page: its forms, its links, its title and its text.

use std::fmt;

use http::{HeaderMap, Method, StatusCode, header};
use url::Url;

use super::markup::{self, Piece};
use super::{BrowserError, Navigation, policy};

/// One answer on the way to a page: what was asked, and what came back. Redirects are hops too.
#[derive(Clone, Debug)]
pub struct Hop {
    /// The method that was sent.
    pub method: Method,
    /// The address that was asked.
    pub url: Url,
    /// The answer's status.
    pub status: StatusCode,
    /// The answer's headers.
    pub headers: HeaderMap,
}

impl Hop {
    /// Where the answer sends the browser, as an absolute address.
    pub fn location(&self) -> Option<Url> {
        let location = self.headers.get(header::LOCATION)?.to_str().ok()?;
        self.status.is_redirection().then(|| self.url.join(location).ok()).flatten()
    }
}

/// A page, and the way that led to it.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its address, after redirects.
    pub url: Url,
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, as text.
    pub body: String,
    /// Every request that led here, the last one included.
    pub way: Vec<Hop>,
}

impl Page {
    /// The text of `<title>`.
    pub fn title(&self) -> String {
        let mut inside = false;
        let mut title = String::new();
        for piece in markup::pieces(&self.body) {
            match piece {
                Piece::Open { name, .. } if name == "title" => inside = true,
                Piece::Close { name } if name == "title" => break,
                Piece::Text(text) if inside => title.push_str(&text),
                _ => {}
            }
        }
        title.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// What a person reads: the text of the body with white space collapsed.
    pub fn text(&self) -> String {
        let mut head = false;
        let mut words = Vec::new();
        for piece in markup::pieces(&self.body) {
            match piece {
                Piece::Open { name, .. } if name == "head" => head = true,
                Piece::Close { name } if name == "head" => head = false,
                Piece::Text(text) if !head => words.extend(text.split_whitespace().map(str::to_owned)),
                _ => {}
            }
        }
        words.join(" ")
    }

    /// Where its links lead, as absolute addresses.
    pub fn links(&self) -> Vec<Url> {
        let hrefs = markup::pieces(&self.body).into_iter().filter_map(|piece| match piece {
            Piece::Open { name, attributes } if name == "a" => markup::attribute(&attributes, "href").map(str::to_owned),
            _ => None,
        });
        hrefs.filter_map(|href| self.url.join(&href).ok()).collect()
    }

    /// All forms of the page, in order.
    pub fn forms(&self) -> Vec<Form> {
        let mut forms = Vec::new();
        let mut form: Option<Form> = None;
        let mut textarea: Option<Control> = None;
        for piece in markup::pieces(&self.body) {
            match piece {
                Piece::Open { name, attributes } => match name.as_str() {
                    "form" => form = Form::opened(self, &attributes),
                    "textarea" => textarea = Some(Control::field(&attributes, String::new())),
                    _ => {
                        if let Some(form) = &mut form {
                            form.controls.extend(Control::read(&name, &attributes));
                        }
                    }
                },
                Piece::Text(text) => {
                    if let Some(textarea) = &mut textarea {
                        textarea.value.push_str(&text);
                    }
                }
                Piece::Close { name } if name == "form" => forms.extend(form.take()),
                Piece::Close { name } if name == "textarea" => {
                    if let (Some(form), Some(textarea)) = (&mut form, textarea.take()) {
                        form.controls.push(textarea);
                    }
                }
                Piece::Close { .. } => {}
            }
        }
        forms
    }

    /// The page's only form that holds an input or button called `name`.
    ///
    /// # Errors
    /// [`BrowserError::NoSuchForm`], with what the page says instead.
    pub fn form_with(&self, name: &str) -> Result<Form, BrowserError> {
        self.one_form(&format!("with \"{name}\""), |form| form.controls.iter().any(|control| control.name == name))
    }

    /// The page's only form.
    ///
    /// # Errors
    /// [`BrowserError::NoSuchForm`], with what the page says instead.
    pub fn form(&self) -> Result<Form, BrowserError> {
        self.one_form("of the page", |_| true)
    }

    fn one_form(&self, which: &str, fits: impl Fn(&Form) -> bool) -> Result<Form, BrowserError> {
        let mut forms: Vec<Form> = self.forms().into_iter().filter(fits).collect();
        match forms.pop() {
            Some(form) if forms.is_empty() => Ok(form),
            _ => Err(BrowserError::NoSuchForm {
                which: which.to_owned(),
                url: Box::new(self.url.clone()),
                status: self.status,
                text: self.text().chars().take(300).collect(),
            }),
        }
    }
}

/// A form as a person would fill it in.
#[derive(Clone, Debug)]
pub struct Form {
    action: Url,
    method: Method,
    controls: Vec<Control>,
    page: Url,
    referrer: policy::Referrer,
    targets: policy::FormTargets,
}

impl Form {
    fn opened(page: &Page, attributes: &[(String, String)]) -> Option<Self> {
        let action = markup::attribute(attributes, "action").unwrap_or_default();
        let post = markup::attribute(attributes, "method").is_some_and(|method| method.eq_ignore_ascii_case("post"));
        Some(Self {
            action: page.url.join(action).ok()?,
            method: if post { Method::POST } else { Method::GET },
            controls: Vec::new(),
            page: page.url.clone(),
            referrer: policy::Referrer::of(&page.headers),
            targets: policy::FormTargets::of(&page.headers),
        })
    }

    /// Where it will be sent.
    pub fn action(&self) -> &Url {
        &self.action
    }

    /// The value that is in the input called `name`, hidden ones included.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.controls.iter().find(|control| control.name == name).map(|control| control.value.as_str())
    }

    /// The labels a person could press: name and value of every button.
    pub fn buttons(&self) -> Vec<(&str, &str)> {
        let buttons = self.controls.iter().filter(|control| control.kind == Kind::Button);
        buttons.map(|control| (control.name.as_str(), control.value.as_str())).collect()
    }

    /// The form with `value` typed into the input called `name`.
    ///
    /// # Errors
    /// [`BrowserError::NoSuchControl`]
    pub fn fill(mut self, name: &str, value: &str) -> Result<Self, BrowserError> {
        let control = self.controls.iter_mut().find(|control| control.name == name && control.kind == Kind::Field);
        let Some(control) = control else { return Err(self.no_such_control(name)) };
        value.clone_into(&mut control.value);
        Ok(self)
    }

    /// Presses the button called `name` that says `value`: only that button's name and value are sent.
    ///
    /// # Errors
    /// [`BrowserError::NoSuchControl`]
    pub fn press(self, name: &str, value: &str) -> Result<Navigation, BrowserError> {
        if self.buttons().contains(&(name, value)) {
            Ok(self.send(Some((name, value))))
        } else {
            Err(self.no_such_control(&format!("{name}={value}")))
        }
    }

    /// Sends the form as the Enter key does: with its first button, if it has one.
    pub fn submit(self) -> Navigation {
        let first = self.buttons().first().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.send(first.as_ref().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    fn send(&self, button: Option<(&str, &str)>) -> Navigation {
        let fields = self.controls.iter().filter(|control| matches!(control.kind, Kind::Field | Kind::Hidden));
        let pairs = fields.map(|control| (control.name.as_str(), control.value.as_str())).chain(button);
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs.filter(|(name, _)| !name.is_empty())).finish();
        let mut url = self.action.clone();
        let body = if self.method == Method::POST {
            Some(form)
        } else {
            url.set_query(Some(&form));
            None
        };
        Navigation::from_page(self.method.clone(), url, body, &self.page, self.referrer, self.targets.clone())
    }

    fn no_such_control(&self, name: &str) -> BrowserError {
        let names: Vec<String> = self.controls.iter().map(ToString::to_string).collect();
        BrowserError::NoSuchControl { name: name.to_owned(), form: Box::new(self.action.clone()), found: names.join(", ") }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Field,
    Hidden,
    Button,
}

#[derive(Clone, Debug)]
struct Control {
    kind: Kind,
    name: String,
    value: String,
}

impl Control {
    fn field(attributes: &[(String, String)], value: String) -> Self {
        Self { kind: Kind::Field, name: markup::attribute(attributes, "name").unwrap_or_default().to_owned(), value }
    }

    /// The control that a tag makes; an unchecked box and what is disabled make none.
    fn read(tag: &str, attributes: &[(String, String)]) -> Option<Self> {
        let attribute = |name| markup::attribute(attributes, name);
        let is = |text: &str| attribute("type").is_some_and(|kind| kind.eq_ignore_ascii_case(text));
        let kind = match tag {
            "button" if is("button") || is("reset") => return None,
            "button" => Kind::Button,
            "input" if is("submit") || is("image") => Kind::Button,
            "input" if is("hidden") => Kind::Hidden,
            "input" if (is("checkbox") || is("radio")) && attribute("checked").is_none() => return None,
            "input" => Kind::Field,
            _ => return None,
        };
        if attribute("disabled").is_some() {
            return None;
        }
        let default = if is("checkbox") { "on" } else { "" };
        Some(Self { kind, name: attribute("name").unwrap_or_default().to_owned(), value: attribute("value").unwrap_or(default).to_owned() })
    }
}

impl fmt::Display for Control {
    /// Its name; of a button also its value. What an input holds may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Button => write!(f, "{}={}", self.name, self.value),
            Kind::Field | Kind::Hidden => f.write_str(&self.name),
        }
    }
}
