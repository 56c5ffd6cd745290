//! What all commands on records share: list, show and delete, and how a record's members become text.

use http::Method;
use serde_json::{Map, Value, json};

use super::ask::Confirm;
use super::client::path;
use super::context::Context;
use super::failure::Failure;
use super::report;

/// A collection of the admin API, and how people see its records.
#[derive(Debug)]
pub(super) struct Collection {
    /// `data.type`, and the word for people with `-` read as a space.
    pub(super) kind: &'static str,
    /// The collection's name in paths.
    pub(super) name: &'static str,
    /// Whether it lies below a tenant.
    pub(super) of_tenant: bool,
    /// Members that `list` shows, in order.
    pub(super) columns: &'static [&'static str],
    /// What to do when a list is empty.
    pub(super) none_yet: Next,
}

/// What to do next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Next {
    /// With commands for this instance.
    Here(&'static str),
    /// With commands for the other side.
    Elsewhere(&'static str),
}

impl Collection {
    /// The path of the collection, of a record in it, or of an action on one.
    pub(super) fn path(&self, context: &Context<'_>, rest: &[&str]) -> String {
        let base: &[&str] = if self.of_tenant { &["tenants", context.tenant(), self.name] } else { &[self.name] };
        path(&[base, rest].concat())
    }

    /// The word for people.
    pub(super) fn word(&self) -> String {
        self.kind.replace('-', " ")
    }

    /// Makes a record; gives its attributes.
    pub(super) async fn create(&self, context: &Context<'_>, attributes: Value) -> Result<Value, Failure> {
        context.client()?.send(Method::POST, &self.path(context, &[]), self.kind, attributes).await.map(attributes_of)
    }

    /// Changes a record; gives its attributes.
    pub(super) async fn update(&self, context: &Context<'_>, name: &str, attributes: Value) -> Result<Value, Failure> {
        if attributes.as_object().is_some_and(Map::is_empty) {
            return Err(
                Failure::usage("nothing to change is given").next(format!("p2pid {} update --help lists what can be", self.command()))
            );
        }
        context.client()?.send(Method::PATCH, &self.path(context, &[name]), self.kind, attributes).await.map(attributes_of)
    }

    /// Does something with a record; gives the answer's attributes.
    pub(super) async fn act(&self, context: &Context<'_>, name: &str, action: &str, attributes: Value) -> Result<Value, Failure> {
        context.client()?.send(Method::POST, &self.path(context, &[name, action]), self.kind, attributes).await.map(attributes_of)
    }

    /// One record's attributes.
    pub(super) async fn fetch(&self, context: &Context<'_>, name: &str) -> Result<Value, Failure> {
        context.client()?.fetch(&self.path(context, &[name])).await.map(attributes_of)
    }

    /// Prints all records.
    pub(super) async fn list(&self, context: &Context<'_>) -> Result<(), Failure> {
        self.list_at(context, &self.path(context, &[])).await
    }

    /// Prints the records that a query selects.
    pub(super) async fn list_where(&self, context: &Context<'_>, query: &str) -> Result<(), Failure> {
        self.list_at(context, &format!("{}?{query}", self.path(context, &[]))).await
    }

    /// Prints the records at a path.
    pub(super) async fn list_at(&self, context: &Context<'_>, path: &str) -> Result<(), Failure> {
        self.list_as(context, path, |record| record).await
    }

    /// Prints the records at a path, page by page; people see of each what `shown` makes of it.
    pub(super) async fn list_as(&self, context: &Context<'_>, path: &str, shown: impl Fn(Value) -> Value) -> Result<(), Failure> {
        let mut list = context.report.list(self.columns);
        let mut path = path.to_owned();
        loop {
            let (records, next) = context.client()?.page(&path).await?;
            let records: Vec<Value> = records.into_iter().map(attributes_of).collect();
            list.page(&records, |record| {
                let record = shown(record.clone());
                self.columns.iter().map(|column| text(&record[*column])).collect()
            });
            match next.filter(|_| !context.report.is_broken()) {
                Some(next) => path = next,
                None => break,
            }
        }
        if list.finish() == 0 {
            match self.none_yet {
                Next::Here(step) => context.report.note(&format!("none yet; next: {step}")),
                Next::Elsewhere(step) => context.report.note_as_is(&format!("none yet; next: on the other host: {step}")),
            }
        }
        Ok(())
    }

    /// Prints one record.
    pub(super) async fn show(&self, context: &Context<'_>, name: &str) -> Result<(), Failure> {
        let record = self.fetch(context, name).await?;
        context.report.data(&record, || self.sheet(&record));
        Ok(())
    }

    /// Asks for a yes to `what`, which takes away a record of that name or something of it, once it is known that there is one.
    ///
    /// # Errors
    /// There is none; else as [`Confirm::or_ask`].
    pub(super) async fn confirm(&self, context: &Context<'_>, name: &str, confirm: Confirm, what: &str) -> Result<(), Failure> {
        if !confirm.yes {
            self.fetch(context, name).await?;
        }
        confirm.or_ask(what)
    }

    /// Deletes a record after a yes.
    pub(super) async fn delete(&self, context: &Context<'_>, name: &str, confirm: Confirm) -> Result<(), Failure> {
        self.confirm(context, name, confirm, &format!("delete the {} {name}", self.word())).await?;
        context.client()?.delete(&self.path(context, &[name])).await?;
        context.report.data(&json!({ "deleted": name }), String::new);
        context.report.note(&format!("deleted the {} {name}", self.word()));
        Ok(())
    }

    /// A record for people: what `list` shows first, then the rest.
    pub(super) fn sheet(&self, record: &Value) -> String {
        let Some(members) = record.as_object() else { return String::new() };
        let first = self.columns.iter().filter_map(|column| members.get_key_value(*column));
        // Warnings are said by themselves.
        let rest = members.iter().filter(|(name, _)| !self.columns.contains(&name.as_str()) && *name != "warnings");
        let entries: Vec<_> = first.chain(rest).map(|(name, value)| (name.as_str(), text(value))).collect();
        report::sheet(&entries)
    }

    fn command(&self) -> &'static str {
        self.kind.split('-').next().unwrap_or(self.kind)
    }
}

/// What making or changing a record brought that may need attention.
pub(super) fn warn(context: &Context<'_>, record: &Value) {
    for warning in record["warnings"].as_array().into_iter().flatten() {
        context.report.warn(&text(warning));
    }
}

/// The attributes of a JSON:API record.
fn attributes_of(mut record: Value) -> Value {
    record.get_mut("attributes").map(Value::take).unwrap_or_default()
}

/// A member for people.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(" "),
        Value::Object(members) => {
            let shown = members.iter().filter(|(_, value)| !value.is_null());
            shown.map(|(name, value)| format!("{name}: {}", text(value))).collect::<Vec<_>>().join(", ")
        }
    }
}

/// Attributes for a request: only what was given.
#[derive(Debug, Default)]
pub(super) struct Given(Map<String, Value>);

impl Given {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// With `name` when there is a value.
    pub(super) fn maybe(mut self, name: &str, value: Option<impl Into<Value>>) -> Self {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value.into());
        }
        self
    }

    /// With `name`.
    pub(super) fn with(self, name: &str, value: impl Into<Value>) -> Self {
        self.maybe(name, Some(value))
    }

    /// With the list `name` when it holds anything.
    pub(super) fn list(self, name: &str, values: &[String]) -> Self {
        self.maybe(name, (!values.is_empty()).then(|| values.to_vec()))
    }

    /// With `name` when the flag was given.
    pub(super) fn flag(self, name: &str, given: bool) -> Self {
        self.maybe(name, given.then_some(true))
    }

    /// As sent.
    pub(super) fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_is_sent() {
        let given = Given::new().with("name", "two").maybe("url", None::<String>).list("scopes", &[]).flag("or_update", false);
        assert_eq!(given.into_value(), json!({ "name": "two" }));
    }

    #[test]
    fn members_become_words() {
        let value = json!({ "a": ["x", "y"], "b": null, "c": true });
        assert_eq!(text(&value), "a: x y, c: yes");
    }
}
