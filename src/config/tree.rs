//! TOML as written: every value with the file and the bytes where it stands, and several files merged into one tree.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where something is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Position in the list of files.
    pub file: usize,
    /// First byte.
    pub start: usize,
    /// After the last byte.
    pub end: usize,
}

impl Place {
    /// `span` of file number `file`.
    pub(super) fn new(file: usize, span: Range<usize>) -> Self {
        Self { file, start: span.start, end: span.end }
    }
}

/// A value where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Where the value is written.
    pub at: Place,
    /// What is written.
    pub value: Value,
}

/// A TOML value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    /// A whole number; `None` when it does not fit.
    Whole(Option<i64>, String),
    Switch(bool),
    /// A fraction or a date, which no key takes: as written.
    Other(&'static str, String),
    List(Vec<Node>),
    Table(Table),
}

/// A table.
#[derive(Clone, Debug, Default)]
pub(super) struct Table(BTreeMap<String, Entry>);

/// A key with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Where the key is written.
    pub key: Place,
    /// Its value.
    pub node: Node,
}

impl Table {
    /// What stands under `key`.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.0.get(key)
    }

    /// All keys with their values.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.0.iter().map(|(key, entry)| (key.as_str(), entry))
    }

    /// Takes in what a later file says: tables merge, lists of tables grow, and anything else is replaced.
    pub(super) fn merge(&mut self, later: Self) {
        for (key, entry) in later.0 {
            match self.0.get_mut(&key) {
                None => {
                    self.0.insert(key, entry);
                }
                Some(held) => match (&mut held.node.value, entry.node.value) {
                    (Value::Table(held), Value::Table(later)) => held.merge(later),
                    (Value::List(held), Value::List(later)) if holds_tables(held) && holds_tables(&later) => held.extend(later),
                    (_, value) => *held = Entry { key: entry.key, node: Node { at: entry.node.at, value } },
                },
            }
        }
    }
}

/// Reads the text of file number `file` as far as it can be read, with what could not: (bytes, what is wrong).
pub(super) fn parse(file: usize, text: &str) -> (Table, Vec<(Range<usize>, String)>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let errors = errors.into_iter().map(|error| {
        let end = text.len();
        (error.span().unwrap_or(end..end), error.message().to_owned())
    });
    (table_of(file, table.into_inner()), errors.collect())
}

fn table_of(file: usize, table: DeTable<'_>) -> Table {
    let entries = table.into_iter().map(|(key, value)| {
        let at = Place::new(file, key.span());
        (key.into_inner().into_owned(), Entry { key: at, node: node_of(file, value) })
    });
    Table(entries.collect())
}

fn node_of(file: usize, value: Spanned<DeValue<'_>>) -> Node {
    let at = Place::new(file, value.span());
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => Value::Whole(i64::from_str_radix(number.as_str(), number.radix()).ok(), number.to_string()),
        DeValue::Boolean(switch) => Value::Switch(switch),
        DeValue::Float(number) => Value::Other("the fraction", number.to_string()),
        DeValue::Datetime(time) => Value::Other("the date or time", time.to_string()),
        DeValue::Array(list) => Value::List(list.into_iter().map(|item| node_of(file, item)).collect()),
        DeValue::Table(table) => Value::Table(table_of(file, table)),
    };
    Node { at, value }
}

fn holds_tables(list: &[Node]) -> bool {
    list.iter().all(|node| matches!(node.value, Value::Table(_)))
}

impl Node {
    /// What is here, for a message: short, on one line, without control characters.
    pub(super) fn shown(&self) -> String {
        match &self.value {
            Value::Text(text) => quoted(text),
            Value::Whole(_, text) => format!("the number {}", shortened(text)),
            Value::Switch(switch) => switch.to_string(),
            Value::Other(kind, text) => format!("{kind} {}", shortened(text)),
            Value::List(list) if list.is_empty() => "an empty list".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
        }
    }
}

/// `text` in quotation marks, shortened, with control characters escaped.
pub(super) fn quoted(text: &str) -> String {
    format!("{:?}", shortened(text))
}

fn shortened(text: &str) -> String {
    const MOST: usize = 80;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST).chain(['…']).collect()
}
