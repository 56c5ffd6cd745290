//! The only place that prints. Data goes to standard output, everything else to standard error; with `--json` each is one document.

use std::cell::{OnceCell, RefCell};
use std::io::{self, Write};
use std::process::ExitCode;

use comfy_table::{ColumnConstraint, Table, Width, presets};
use serde_json::{Value, json};

use super::failure::Failure;
use super::spelled::Spelled;

/// Where a command says what it found, did and could not do.
#[derive(Debug)]
pub(super) struct Report {
    json: bool,
    warnings: RefCell<Vec<String>>,
    /// The first error of standard output. Whoever reads us may stop reading, which is no failure of ours.
    broken: RefCell<Option<io::Error>>,
    /// How commands are spelled in what people read.
    spelled: OnceCell<Spelled>,
}

impl Report {
    /// A report for people, or (`json`) for programs.
    pub(super) fn new(json: bool) -> Self {
        Self { json, warnings: RefCell::default(), broken: RefCell::default(), spelled: OnceCell::new() }
    }

    /// Spells the commands that people are told so from now on.
    pub(super) fn spell(&self, spelled: Spelled) {
        // The first counts: a command means one instance.
        let _ = self.spelled.set(spelled);
    }

    /// A sentence of ours with its commands, which are for this host, spelled so that they can be typed as they stand. What others wrote is never
    /// spelled: it is shown as it is.
    pub(super) fn spelled(&self, text: &str) -> String {
        self.spelled.get().map_or_else(|| text.to_owned(), |spelled| spelled.in_text(text))
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

    /// A list of records with these members for people, which comes page by page.
    pub(super) fn list(&self, columns: &[&str]) -> List<'_> {
        let heads = columns.iter().map(|column| column.replace('_', " ")).collect();
        List { report: self, heads, widths: Vec::new(), count: 0 }
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

    /// Something worth knowing beside the data: progress, what happened, the next step here. Programs are not told.
    pub(super) fn note(&self, text: &str) {
        self.note_as_is(&self.spelled(text));
    }

    /// A note that is not for this host, with commands to be typed elsewhere, or that others wrote.
    pub(super) fn note_as_is(&self, text: &str) {
        if !self.json {
            to_stderr(text);
        }
    }

    /// Something that may need attention, though the command goes on.
    pub(super) fn warn(&self, text: &str) {
        if self.json {
            self.warnings.borrow_mut().push(text.to_owned());
        } else {
            to_stderr(&self.spelled(&format!("warning: {text}")));
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
                    to_stderr(&failure.text(|sentence| self.spelled(sentence)));
                }
                ExitCode::from(failure.exit)
            }
        }
    }
}

/// A list on its way out, of which no more than a page is in memory: one array for programs, one table for people. The columns of the table are
/// as wide as the first page needs, or wider from where one needs more.
#[derive(Debug)]
pub(super) struct List<'a> {
    report: &'a Report,
    heads: Vec<String>,
    widths: Vec<u16>,
    count: usize,
}

impl List<'_> {
    /// Prints some more records; people see of each what `row` makes of it.
    pub(super) fn page(&mut self, records: &[Value], row: impl Fn(&Value) -> Vec<String>) {
        let text = self.text(records, row);
        self.report.bytes(text.as_bytes());
    }

    fn text(&mut self, records: &[Value], row: impl Fn(&Value) -> Vec<String>) -> String {
        let is_first = self.count == 0;
        self.count += records.len();
        if records.is_empty() {
            return String::new();
        }
        if self.report.json {
            let before = if is_first { "[" } else { "," };
            return before.to_owned() + &records.iter().map(Value::to_string).collect::<Vec<_>>().join(",");
        }
        let heads: Vec<_> = self.heads.iter().map(String::as_str).collect();
        let mut table = table_of(is_first.then_some(&heads), records.iter().map(row));
        let widths = table.column_max_content_widths();
        self.widths.resize(widths.len(), 0);
        for ((known, width), column) in self.widths.iter_mut().zip(widths).zip(table.column_iter_mut()) {
            *known = width.max(*known);
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(*known + GAP)));
        }
        lines(&table)
    }

    /// Prints its end; how many there were.
    pub(super) fn finish(self) -> usize {
        if self.report.json {
            self.report.bytes(if self.count == 0 { b"[]\n" } else { b"]\n" });
        }
        self.count
    }
}

/// Spaces between two columns.
const GAP: u16 = 2;

/// A table for people: aligned columns without lines, easy to cut with awk too.
pub(super) fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    lines(&table_of(Some(heads), rows))
}

fn table_of(heads: Option<&[&str]>, rows: impl IntoIterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if let Some(heads) = heads {
        table.set_header(heads.iter().map(|head| head.to_uppercase()));
    }
    table.add_rows(rows.into_iter().map(|row| row.into_iter().map(printable).collect::<Vec<_>>()));
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    table
}

fn lines(table: &Table) -> String {
    table.to_string().lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
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
    fn the_pages_of_a_list_are_one_table_or_one_array() {
        let row = |record: &Value| vec![record["name"].to_string(), record["at"].to_string()];
        let records = [json!({ "name": 1_000_000, "at": 1 }), json!({ "name": 2, "at": 3 }), json!({ "name": 4, "at": 5 })];
        let pages = |json: bool| {
            let report = Report::new(json);
            let mut list = report.list(&["name", "linked_at"]);
            [&records[..1], &records[1..], &[]].map(|page| list.text(page, row))
        };
        assert_eq!(pages(false), ["NAME     LINKED AT\n1000000  1\n", "2        3\n4        5\n", ""]);
        let text = pages(true).concat() + "]";
        assert_eq!(serde_json::from_str::<Value>(&text).expect("an array"), json!(records));
    }

    #[test]
    fn what_others_wrote_is_shown_byte_for_byte_and_our_next_step_is_spelled() {
        let selection = super::super::select::Selection { config: Some("one.toml".into()), ..Default::default() };
        let theirs = "Ask ops: p2pid user add NAME";
        let report = Report::new(false);
        report.spell(Spelled::new(&selection, None));
        let text = report.list(&["description"]).text(&[json!(theirs)], |record| vec![super::super::records::text(record)]);
        assert_eq!(text, format!("DESCRIPTION\n{theirs}\n"));
        let failure = Failure::new("exists", theirs).found(theirs).next("p2pid user list");
        let text = failure.text(|sentence| report.spelled(sentence));
        assert_eq!(text, format!("error: {theirs}\n  found     {theirs}\n  next      p2pid -c one.toml user list"));
    }

    #[test]
    fn sheets_leave_out_what_is_empty() {
        assert_eq!(sheet(&[("name", "two".into()), ("reason", String::new()), ("url", "u".into())]), "name    two\nurl     u\n");
    }
}
