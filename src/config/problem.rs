//! What is wrong with a configuration, for people, for terminals and for programs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::oauth::visible::is_hidden;

/// One thing that is wrong, with where it is written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The file, as it was named.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key with its tables, as in `limits.drain`, or `route[2].path`; control characters are escaped.
    pub key: String,
    /// What is there.
    pub found: String,
    /// What belongs there.
    pub expected: String,
    /// Which bytes of the file it is about.
    #[serde(skip)]
    span: std::ops::Range<usize>,
    /// The file's text, for quoting.
    #[serde(skip)]
    text: Arc<str>,
}

impl Problem {
    /// A problem at `span` of `text`, the text of `file`.
    pub(super) fn new(file: &Path, text: &Arc<str>, span: std::ops::Range<usize>, key: String, found: String, expected: String) -> Self {
        let start = floor_boundary(text, span.start);
        let end = floor_boundary(text, span.end).max(start);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            key: escaped(key),
            found: escaped(found),
            expected: escaped(expected),
            span: start..end,
            text: Arc::clone(text),
        }
    }
}

impl Problem {
    /// `key: found …, expected …`
    pub fn what(&self) -> String {
        format!("{}: found {}, expected {}", self.key, self.found, self.expected)
    }
}

impl fmt::Display for Problem {
    /// `FILE:LINE:COLUMN: key: found …, expected …`, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file.display(), self.line, self.column, self.what())
    }
}

/// Everything that is wrong with a set of files; never empty.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, thiserror::Error)]
pub struct Problems {
    #[serde(rename = "errors")]
    problems: Vec<Problem>,
}

impl Problems {
    /// `problems` in the order of the text; `None` when there are none.
    pub(super) fn of(mut problems: Vec<Problem>) -> Option<Self> {
        problems.dedup();
        if problems.is_empty() { None } else { Some(Self { problems }) }
    }

    /// Each of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Problem> {
        self.problems.iter()
    }

    /// The first, as `status` shows it.
    pub fn first(&self) -> &Problem {
        self.problems.first().expect("Problems are never empty")
    }

    /// Each with the lines that it is about, for a terminal; `color` adds escape sequences.
    pub fn annotated(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let reports = self.iter().map(|problem| {
            let path = problem.file.display().to_string();
            let label = format!("expected {}", problem.expected);
            let source =
                Snippet::source(&*problem.text).path(path).annotation(AnnotationKind::Primary.span(problem.span.clone()).label(label));
            renderer.render(&[Level::ERROR.primary_title(problem.what()).element(source)])
        });
        reports.collect::<Vec<_>>().join("\n\n")
    }
}

impl fmt::Display for Problems {
    /// One line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.problems.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// `text` with what a terminal would obey, and what it would not show, escaped.
fn escaped(text: String) -> String {
    if !text.contains(is_hidden) {
        return text;
    }
    text.chars().map(|character| if is_hidden(character) { character.escape_unicode().to_string() } else { character.into() }).collect()
}

/// The last character boundary at or before `index`.
fn floor_boundary(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}
