//! How the demo tells its story: numbered steps for people, one JSON document for programs.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::time::Instant;

use serde_json::{Value, json};
use url::Url;

use super::browser::Page;
use crate::cli::report::Report;

/// Tells the story as it happens.
pub(super) struct Narrator<'a> {
    report: &'a Report,
    colour: bool,
    started: Instant,
    steps: RefCell<Vec<(String, Vec<String>)>>,
}

impl<'a> Narrator<'a> {
    pub(super) fn new(report: &'a Report) -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { report, colour, started: Instant::now(), steps: RefCell::default() }
    }

    /// The title above the story.
    pub(super) fn title(&self, text: &str) {
        self.say(&format!("{}\n", self.paint("1", text)));
    }

    /// A new step.
    pub(super) fn step(&self, text: &str) {
        let number = self.steps.borrow().len() + 1;
        self.steps.borrow_mut().push((text.to_owned(), Vec::new()));
        let time = self.paint("2", &format!("{:.1} s", self.started.elapsed().as_secs_f32()));
        self.say(&format!("\n{} {}  {time}\n", self.paint("1;36", &format!("{number:>2}")), self.paint("1", text)));
    }

    /// A command that was given.
    pub(super) fn command(&self, text: &str) {
        self.line(&format!("$ {text}"), "36");
    }

    /// Something that was sent.
    pub(super) fn sent(&self, text: &str) {
        self.line(&format!("→ {text}"), "0");
    }

    /// Something that came back.
    pub(super) fn got(&self, text: &str) {
        self.line(&format!("← {text}"), "32");
    }

    /// Something that is so.
    pub(super) fn fact(&self, text: &str) {
        self.line(text, "0");
    }

    /// The way of a browser: every request with its answer, and the page at its end.
    pub(super) fn browsed(&self, page: &Page) {
        for hop in &page.way {
            self.sent(&format!("{:4} {}", hop.method.as_str(), shortened(&hop.url)));
            self.got(&hop.status.to_string());
        }
        self.fact(&format!("  page “{}”", page.title()));
    }

    /// The end.
    pub(super) fn end(&self, text: &str) {
        let took = format!("{text} {:.1} s", self.started.elapsed().as_secs_f32());
        let steps: Vec<Value> = self.steps.borrow().iter().map(|(title, lines)| json!({ "step": title, "seen": lines })).collect();
        if self.report.is_json() {
            self.report.data(&json!({ "steps": steps, "seconds": self.started.elapsed().as_secs_f32() }), String::new);
        } else {
            self.say(&format!("\n{}\n", self.paint("1;32", &took)));
        }
    }

    fn line(&self, text: &str, colour: &str) {
        if let Some((_, lines)) = self.steps.borrow_mut().last_mut() {
            lines.push(text.to_owned());
        }
        self.say(&format!("     {}\n", self.paint(colour, text)));
    }

    fn say(&self, text: &str) {
        if !self.report.is_json() {
            self.report.bytes(text.as_bytes());
        }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour && colour != "0" { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// An address for people: long values in it, most of them secret for a moment, are cut.
pub(super) fn shortened(url: &Url) -> String {
    let path: Vec<String> = url.path().split('/').map(cut).collect();
    let mut text = format!("{}{}", &url[..url::Position::BeforePath], path.join("/"));
    let pairs: Vec<String> = url.query_pairs().map(|(name, value)| format!("{name}={}", cut(&value))).collect();
    if !pairs.is_empty() {
        text = format!("{text}?{}", pairs.join("&"));
    }
    text
}

fn cut(text: &str) -> String {
    const MOST: usize = 34;
    if text.chars().count() <= MOST || text.starts_with("http") { text.to_owned() } else { text.chars().take(8).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_for_a_moment_is_cut() {
        let long = "p2pc_".to_owned() + &"x".repeat(38);
        let url = Url::parse(&format!("https://one.test/link/{long}?code={long}&scope=p2pi")).expect("an address");
        assert_eq!(shortened(&url), "https://one.test/link/p2pc_xxx…?code=p2pc_xxx…&scope=p2pi");
    }
}
