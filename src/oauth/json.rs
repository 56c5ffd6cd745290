//! JSON objects whose members have one name each. Two members of one name are read differently by different programs, so what is signed,
//! or names a key, may not have them (RFC 7515 §4, RFC 7519 §4).

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

/// The members of an object, none of which comes twice. Objects inside it are taken as they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members(pub Map<String, Value>);

impl Members {
    /// Reads a whole text.
    pub fn read(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// The text `name`, when there is one.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// The number of seconds `name`. Fractions are legal (RFC 7519 §2) and cut off.
    pub fn seconds(&self, name: &str) -> Option<i64> {
        let value = self.0.get(name)?;
        #[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates, and no such time is accepted")]
        value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))
    }

    /// Whether there is a member `name`, whatever its value.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;

        impl<'de> Visitor<'de> for Once {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Members, A::Error> {
                let mut members = Map::new();
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a member comes twice"));
                    }
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Once)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k2_a_member_comes_once() {
        let members = Members::read(br#"{"a":"x","b":1.9,"c":{"d":1,"d":2},"e":null}"#).expect("an object");
        assert_eq!((members.text("a"), members.text("b"), members.seconds("b"), members.seconds("a")), (Some("x"), None, Some(1), None));
        assert!(members.has("e") && !members.has("f"));
        for text in ["", "[]", "1", "{", r#"{"a":1,"a":1}"#, r#"{"a":1}x"#] {
            assert_eq!(Members::read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Members::read(&[b"[".repeat(100_000), b"]".repeat(100_000)].concat()), None);
    }
}
