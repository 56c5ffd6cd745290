//! The query of a list: read strictly, for what is to select something and does not would tell of everything.

use super::AdminError;
use crate::oauth::parameters::Parameters;

/// A query in which each name is known, is there once, and has a value.
pub(super) struct Query(Parameters);

impl Query {
    /// Reads what stands behind the question mark.
    ///
    /// # Errors
    /// `bad_attribute` for what is no query, a name that is none of `names` or comes twice, and an empty value.
    pub(super) fn read(raw: &[u8], names: &[&str]) -> Result<Self, AdminError> {
        let wrong = |found: &str, expected: String| AdminError::bad_attribute("the query", found, expected);
        let query = Parameters::read(raw).map_err(|error| wrong("another text", error.to_string()))?;
        query.each_once(names).map_err(|doubled| wrong("a name twice", doubled.to_string()))?;
        if let Some((unknown, _)) = query.pairs().find(|(name, _)| !names.contains(name)) {
            return Err(wrong(unknown, format!("one of {}", names.join(", "))));
        }
        if let Some((empty, _)) = query.pairs().find(|(_, value)| value.is_empty()) {
            return Err(AdminError::bad_attribute(empty, "nothing", "a value"));
        }
        Ok(Self(query))
    }

    /// The value of `name`.
    pub(super) fn the(&self, name: &str) -> Option<&str> {
        self.0.the(name).ok().flatten()
    }

    /// The value of `name`, read by `read`.
    ///
    /// # Errors
    /// `bad_attribute` for what that cannot read, with what was `expected`.
    pub(super) fn parsed<T>(&self, name: &str, expected: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, AdminError> {
        let Some(text) = self.the(name) else { return Ok(None) };
        read(text).map(Some).ok_or_else(|| AdminError::bad_attribute(name, text, expected))
    }

    /// How many are wanted: `limit`, from 1 to `most`, or `otherwise`.
    pub(super) fn limit(&self, otherwise: usize, most: usize) -> Result<usize, AdminError> {
        let limit = self.parsed("limit", &format!("1 to {most}"), |text| text.parse().ok().filter(|limit| (1..=most).contains(limit)))?;
        Ok(limit.unwrap_or(otherwise))
    }
}
