//! Why a command did not do what it was asked: one sentence with what was found, what was expected and the next step.

use std::ops::{Deref, DerefMut};

use serde_json::{Value, json};

use crate::config::Problems;
use crate::store::Explanation;

/// The exit status when something was refused or failed.
pub(super) const FAILED: u8 = 1;
/// The exit status when the command line is wrong.
pub(super) const USAGE: u8 = 2;
/// The exit status when the configuration is wrong (`EX_CONFIG`).
pub(super) const CONFIGURATION: u8 = 78;

/// A command that failed. Boxed, since every command may return one and hardly any does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure(Box<Parts>);

/// What there is to say of a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// The exit status.
    pub(super) exit: u8,
    /// What programs look at.
    pub(super) code: String,
    /// What is wrong, naming the thing.
    pub(super) message: String,
    /// What was found instead.
    pub(super) found: Option<String>,
    /// What was expected.
    pub(super) expected: Option<String>,
    /// What to do next.
    pub(super) next: Option<String>,
    /// The whole text for people, where it is not made of the above.
    text: Option<String>,
    /// A member beside `error` for programs, such as everything that is wrong with a configuration, one by one.
    more: Option<(&'static str, Value)>,
}

impl Failure {
    /// A refusal or failure: exit status 1.
    pub(super) fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        let (code, message) = (code.into(), message.into());
        Self(Box::new(Parts { exit: FAILED, code, message, found: None, expected: None, next: None, text: None, more: None }))
    }

    /// A wrong command line: exit status 2.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new("usage", message).exiting(USAGE)
    }

    /// A wrong configuration: exit status 78.
    pub(super) fn configuration(message: impl Into<String>) -> Self {
        Self::new("configuration", message).exiting(CONFIGURATION)
    }

    fn exiting(mut self, status: u8) -> Self {
        self.exit = status;
        self
    }

    /// With a text for people that says it all.
    pub(super) fn said_as(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// With what was found.
    pub(super) fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }

    /// With what was expected.
    pub(super) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// With the next step.
    pub(super) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// With a member beside `error` in the document for programs.
    pub(super) fn with(mut self, name: &'static str, value: Value) -> Self {
        self.more = Some((name, value));
        self
    }

    /// For programs: `{"error":{"code","message","found","expected","next"}}`.
    pub(super) fn document(&self) -> Value {
        let mut document = json!({ "error": {
            "code": self.code, "message": self.message, "found": self.found, "expected": self.expected, "next": self.next,
        } });
        if let Some((name, value)) = &self.more {
            document[*name] = value.clone();
        }
        document
    }

    /// For people: a line, and up to three that help. What was expected and what to do next are sentences of ours, in which `spelled` spells the
    /// commands; the others may quote what somebody wrote.
    pub(super) fn text(&self, spelled: impl Fn(&str) -> String) -> String {
        if let Some(text) = &self.text {
            return text.clone();
        }
        let mut text = format!("error: {}", self.message);
        let [expected, next] = [&self.expected, &self.next].map(|sentence| sentence.as_deref().map(&spelled));
        for (name, value) in [("found", self.found.clone()), ("expected", expected), ("next", next)] {
            if let Some(value) = value {
                text += &format!("\n  {name:8}  {value}");
            }
        }
        text
    }
}

impl Deref for Failure {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl DerefMut for Failure {
    fn deref_mut(&mut self) -> &mut Parts {
        &mut self.0
    }
}

impl From<&Problems> for Failure {
    /// For people a line each, `FILE:LINE:COLUMN: key: found …, expected …`; for programs also `errors`.
    fn from(problems: &Problems) -> Self {
        let first = problems.first();
        let failure = Self::configuration(first.to_string()).said_as(problems.to_string());
        let errors = problems.iter().map(|problem| serde_json::to_value(problem).unwrap_or_default()).collect();
        failure.found(&first.found).expected(&first.expected).with("errors", errors)
    }
}

impl From<Explanation> for Failure {
    fn from(why: Explanation) -> Self {
        Self::new(why.code, why.message).found(why.found).expected(why.expected).next(why.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_lines_and_programs_get_members() {
        let failure = Failure::new("exists", "the peer \"two\" exists").next("choose another name");
        assert_eq!(failure.text(str::to_owned), "error: the peer \"two\" exists\n  next      choose another name");
        assert_eq!(failure.document()["error"]["code"], "exists");
        assert_eq!(failure.document()["error"]["found"], Value::Null);
    }
}
