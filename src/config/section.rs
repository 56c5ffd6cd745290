//! A cursor over one table of the tree: each key is asked for once, what is wrong is noted, and reading goes on, so that one
//! run finds every problem.

use std::borrow::Cow;
use std::cell::RefCell;

use super::tree::{Node, Place, Table, Value};

/// Why a value is refused.
pub(super) struct Refusal {
    /// What is there, where the value itself should not be shown or does not say it.
    pub found: Option<String>,
    /// What belongs there.
    pub expected: Cow<'static, str>,
}

impl Refusal {
    /// The value is not `expected`.
    pub(super) fn expected(expected: impl Into<Cow<'static, str>>) -> Self {
        Self { found: None, expected: expected.into() }
    }

    /// What is there is `found` rather than `expected`.
    pub(super) fn found(found: impl Into<String>, expected: impl Into<Cow<'static, str>>) -> Self {
        Self { found: Some(found.into()), expected: expected.into() }
    }
}

/// One problem, before its place has become line and column.
#[derive(Debug)]
pub(super) struct Finding {
    pub at: Place,
    pub key: String,
    pub found: String,
    pub expected: String,
}

/// What has been found wrong so far.
#[derive(Debug, Default)]
pub(super) struct Findings(RefCell<Vec<Finding>>);

impl Findings {
    /// Notes one.
    pub(super) fn note(&self, at: Place, key: impl Into<String>, found: impl Into<String>, expected: impl Into<String>) {
        self.0.borrow_mut().push(Finding { at, key: key.into(), found: found.into(), expected: expected.into() });
    }

    /// All of them, in the order of files and bytes.
    pub(super) fn into_sorted(self) -> Vec<Finding> {
        let mut findings = self.0.into_inner();
        findings.sort_by_key(|finding| (finding.at.file, finding.at.start));
        findings
    }
}

/// A value that was read, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    /// The value.
    pub value: T,
    /// Where it is written; where it is a default, where its table is.
    pub at: Place,
    /// Its key with the tables.
    pub key: String,
}

/// One table, being read.
pub(super) struct Section<'t> {
    name: String,
    at: Place,
    table: Option<&'t Table>,
    asked: Vec<&'static str>,
    findings: &'t Findings,
}

impl<'t> Section<'t> {
    /// The whole of the files.
    pub(super) fn root(table: &'t Table, findings: &'t Findings) -> Self {
        Self { name: String::new(), at: Place::new(0, 0..0), table: Some(table), asked: Vec::new(), findings }
    }

    /// `key` with the tables around it.
    pub(super) fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// The table under `key`; one that is missing reads as empty.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'t> {
        self.asked.push(key);
        let entry = self.table.and_then(|table| table.entry(key));
        let name = self.path(key);
        let (at, table) = match entry.map(|entry| (entry.key, &entry.node)) {
            None => (self.at, None),
            Some((at, Node { value: Value::Table(table), .. })) => (at, Some(table)),
            Some((at, node)) => {
                self.findings.note(node.at, name.clone(), node.shown(), format!("a table, as in [{name}]"));
                (at, None)
            }
        };
        Section { name, at, table, asked: Vec::new(), findings: self.findings }
    }

    /// The tables of the list of tables under `key`.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'t>> {
        self.asked.push(key);
        let Some(entry) = self.table.and_then(|table| table.entry(key)) else { return Vec::new() };
        let name = self.path(key);
        let Value::List(list) = &entry.node.value else {
            self.findings.note(entry.node.at, name.clone(), entry.node.shown(), format!("a list of tables, as in [[{name}]]"));
            return Vec::new();
        };
        let sections = list.iter().enumerate().filter_map(|(position, node)| {
            let name = format!("{name}[{}]", position + 1);
            let Value::Table(table) = &node.value else {
                self.findings.note(node.at, name, node.shown(), "a table");
                return None;
            };
            Some(Section { name, at: node.at, table: Some(table), asked: Vec::new(), findings: self.findings })
        });
        sections.collect()
    }

    /// The value of `key` with its place: `None` when it is missing or was refused.
    pub(super) fn placed<T>(&mut self, key: &'static str, read: impl FnOnce(&Node) -> Result<T, Refusal>) -> Option<Placed<T>> {
        self.asked.push(key);
        let node = &self.table?.entry(key)?.node;
        let key = self.path(key);
        match read(node) {
            Ok(value) => Some(Placed { value, at: node.at, key }),
            Err(refusal) => {
                self.refuse(node, key, refusal);
                None
            }
        }
    }

    /// The value of `key`, if it is there.
    pub(super) fn optional<T>(&mut self, key: &'static str, read: impl FnOnce(&Node) -> Result<T, Refusal>) -> Option<T> {
        self.placed(key, read).map(|placed| placed.value)
    }

    /// The value of `key`, or what holds when it is not there.
    pub(super) fn or<T>(&mut self, key: &'static str, default: T, read: impl FnOnce(&Node) -> Result<T, Refusal>) -> T {
        self.optional(key, read).unwrap_or(default)
    }

    /// The value of `key`, which must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        expected: &'static str,
        read: impl FnOnce(&Node) -> Result<T, Refusal>,
    ) -> Option<Placed<T>> {
        if !self.has(key) {
            self.findings.note(self.at, self.path(key), "nothing", expected);
        }
        self.placed(key, read)
    }

    /// The items of the list under `key` that could be read; `None` when the key is missing.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        expected: &'static str,
        read: impl Fn(&Node) -> Result<T, Refusal>,
    ) -> Option<Vec<Placed<T>>> {
        self.asked.push(key);
        let node = &self.table?.entry(key)?.node;
        let key = self.path(key);
        let Value::List(list) = &node.value else {
            self.refuse(node, key, Refusal::expected(expected));
            return None;
        };
        let items = list.iter().enumerate().filter_map(|(position, node)| {
            let key = format!("{key}[{}]", position + 1);
            match read(node) {
                Ok(value) => Some(Placed { value, at: node.at, key }),
                Err(refusal) => {
                    self.refuse(node, key, refusal);
                    None
                }
            }
        });
        Some(items.collect())
    }

    /// As [`Self::list`], of at least one thing: an empty one would mean "nothing at all", which nobody writes on purpose.
    pub(super) fn some<T>(
        &mut self,
        key: &'static str,
        expected: &'static str,
        read: impl Fn(&Node) -> Result<T, Refusal>,
    ) -> Option<Vec<Placed<T>>> {
        let items = self.list(key, expected, read);
        // Of a list whose items are all wrong, each was refused already.
        if let Some(Value::List(list)) = self.table.and_then(|table| table.entry(key)).map(|entry| &entry.node.value)
            && list.is_empty()
        {
            let expected = format!("{expected}, and at least one of them");
            self.findings.note(self.place_of(key), self.path(key), "an empty list", expected);
        }
        items.filter(|items| !items.is_empty())
    }

    /// Every key with what it holds, for a table whose keys are free.
    pub(super) fn each<T>(&self, mut read: impl FnMut(&str, &Node) -> Result<T, Refusal>) -> Vec<Placed<(String, T)>> {
        let entries = self.table.into_iter().flat_map(Table::entries).filter_map(|(name, entry)| {
            let key = self.path(name);
            match read(name, &entry.node) {
                Ok(value) => Some(Placed { value: (name.to_owned(), value), at: entry.key, key }),
                Err(refusal) => {
                    self.refuse(&entry.node, key, refusal);
                    None
                }
            }
        });
        entries.collect()
    }

    /// Whether `key` is written.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.entry(key).is_some())
    }

    /// Where `key` is written, or else the table.
    pub(super) fn place_of(&self, key: &str) -> Place {
        self.table.and_then(|table| table.entry(key)).map_or(self.at, |entry| entry.node.at)
    }

    /// Ends the reading: a key that was never asked for is unknown.
    pub(super) fn end(self) {
        for (key, entry) in self.table.into_iter().flat_map(Table::entries) {
            if !self.asked.contains(&key) {
                let known = if self.asked.is_empty() { "no key here".to_owned() } else { format!("one of {}", self.asked.join(", ")) };
                self.findings.note(entry.key, self.path(key), "an unknown key", known);
            }
        }
    }

    fn refuse(&self, node: &Node, key: String, refusal: Refusal) {
        self.findings.note(node.at, key, refusal.found.unwrap_or_else(|| node.shown()), refusal.expected);
    }
}
