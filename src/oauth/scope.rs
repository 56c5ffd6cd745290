//! Scopes (RFC 6749 §3.3): a set of case-sensitive words.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A set of scope tokens, printed in sorted order with one space between.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope(BTreeSet<String>);

/// The text is not a scope.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a scope is words of printable ASCII without quotes and backslashes, with one space between")]
pub struct NotAScope;

impl Scope {
    /// The scope of `words`; each must be a scope token.
    pub fn from_words<W: AsRef<str>>(words: impl IntoIterator<Item = W>) -> Result<Self, NotAScope> {
        let words = words.into_iter().map(|word| {
            let word = word.as_ref();
            if is_scope_token(word) { Ok(word.to_owned()) } else { Err(NotAScope) }
        });
        words.collect::<Result<_, _>>().map(Self)
    }

    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every word of this is also in `other`.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).cloned().collect())
    }

    /// Whether `word` is one of them.
    pub fn contains(&self, word: &str) -> bool {
        self.0.contains(word)
    }

    /// The words, sorted.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl FromStr for Scope {
    type Err = NotAScope;

    /// `scope-token *( SP scope-token )`; the empty text is the empty scope.
    fn from_str(text: &str) -> Result<Self, NotAScope> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        Self::from_words(text.split(' '))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, word) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(" ")?;
            }
            f.write_str(word)?;
        }
        Ok(())
    }
}

impl serde::Serialize for Scope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Scope {
    /// From the list that it is written as.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = BTreeSet::<String>::deserialize(deserializer)?;
        Self::from_words(words).map_err(serde::de::Error::custom)
    }
}

/// `1*( %x21 / %x23-5B / %x5D-7E )`.
fn is_scope_token(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_a_set() {
        let scope: Scope = "b a b".parse().expect("a scope");
        assert_eq!(scope.to_string(), "a b");
        assert!("a".parse::<Scope>().expect("a scope").is_within(&scope));
        assert!(!scope.is_within(&"a".parse().expect("a scope")));
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        for text in [" ", "a  b", "a ", "a\tb", "a\"", "a\\b", "ä"] {
            assert_eq!(text.parse::<Scope>(), Err(NotAScope), "{text:?}");
        }
    }
}
