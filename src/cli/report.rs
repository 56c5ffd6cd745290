//! The only place that prints. Data goes to standard output, everything else to standard error; with `--json` each is one document.

use std::cell::RefCell;
use std::io::{self, Write};
use std::process::ExitCode;

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::failure::Failure;

/// Where a command says what it found, did and could not do.
#[derive(Debug)]
pub(super) struct Report {
    json: bool,
    warnings: RefCell<Vec<String>>,
    /// The first error of standard output. Whoever reads us may stop reading, which is no failure of ours.
    broken: RefCell<Option<io::Error>>,
}

impl Report {
    /// A report for people, or (`json`) for programs.
    pub(super) fn new(json: bool) -> Self {
        Self { json, warnings: RefCell::default(), broken: RefCell::default() }
    }

    /// Whether programs read this.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// What the command was asked for: a document for programs, or the text for people.
    pub(super) fn data(&self, document: &Value, text: impl FnOnce() -> String) {
        let text = if self.json { document.to_string() } else { text() };
        self.bytes(text.as_bytes());
        if !text.is_empty() && !text.ends_with('\n') {
            self.bytes(b"\n");
        }
    }

    /// Data that is neither: a file, an answer's body.
    pub(super) fn bytes(&self, bytes: &[u8]) {
        let mut stdout = io::stdout().lock();
        if self.broken.borrow().is_none()
            && let Err(error) = stdout.write_all(bytes).and_then(|()| stdout.flush())
        {
            self.broken.replace(Some(error));
        }
    }

    /// Whether standard output takes nothing more, as when whoever reads it has gone.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.borrow().is_some()
    }

    /// Something worth knowing beside the data: progress, what happened, the next step. Programs are not told.
    pub(super) fn note(&self, text: &str) {
        if !self.json {
            to_stderr(text);
        }
    }

    /// Something that may need attention, though the command goes on.
    pub(super) fn warn(&self, text: &str) {
        if self.json {
            self.warnings.borrow_mut().push(text.to_owned());
        } else {
            to_stderr(&format!("warning: {text}"));
        }
    }

    /// Says how the command ended, and gives the exit status.
    pub(super) fn finish(self, outcome: Result<(), Failure>) -> ExitCode {
        let outcome = outcome.and_then(|()| match self.broken.take() {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::new("output", format!("standard output takes nothing more: {error}")))
            }
            _ => Ok(()),
        });
        let warnings = self.warnings.take();
        match outcome {
            Ok(()) => {
                if !warnings.is_empty() {
                    to_stderr(&json!({ "warnings": warnings }).to_string());
                }
                ExitCode::SUCCESS
            }
            Err(failure) => {
                if self.json {
                    let mut document = failure.document();
                    if !warnings.is_empty() {
                        document["warnings"] = warnings.into();
                    }
                    to_stderr(&document.to_string());
                } else {
                    to_stderr(&failure.text());
                }
                ExitCode::from(failure.exit)
            }
        }
    }
}

/// A table for people: aligned columns without lines, easy to cut with awk too.
pub(super) fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(heads.iter().map(|head| head.to_uppercase()));
    table.add_rows(rows.into_iter().map(|row| row.into_iter().map(printable).collect::<Vec<_>>()));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    text.lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

/// Names and values one below the other; entries without a value are left out.
pub(super) fn sheet(entries: &[(&str, String)]) -> String {
    let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let shown = entries.iter().filter(|(_, value)| !value.is_empty());
    shown.fold(String::new(), |text, (name, value)| text + &format!("{name:width$}  {}\n", printable(value.clone())))
}

/// Text that others wrote cannot move the cursor or hide what stands before it.
fn printable(text: String) -> String {
    if text.chars().any(|character| character.is_control() && character != '\n') {
        return text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect();
    }
    text
}

/// A question on standard error, with the cursor left behind it.
pub(super) fn prompt(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "{text}").and_then(|()| stderr.flush());
}

fn to_stderr(text: &str) {
    let mut stderr = io::stderr().lock();
    // When even standard error is gone there is nobody left to tell.
    let _ = writeln!(stderr, "{}", text.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_end_without_spaces() {
        let text = table(&["name", "state"], [vec!["two".into(), "linked".into()], vec!["three\u{1b}[2J".into(), String::new()]]);
        assert_eq!(text, "NAME       STATE\ntwo        linked\nthree\u{fffd}[2J\n");
    }

    #[test]
    fn sheets_leave_out_what_is_empty() {
        assert_eq!(sheet(&[("name", "two".into()), ("reason", String::new()), ("url", "u".into())]), "name    two\nurl     u\n");
    }
}
