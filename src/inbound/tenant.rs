//! Tenants: administrative partitions of an instance.

use crate::clock::Timestamp;

/// The tenant that exists from the start and is meant when none is named.
pub const DEFAULT: &str = "default";

/// A tenant. Its name is its id.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Tenant {
    /// Unique in the instance.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The text cannot be a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found the name {0:?}, expected a letter or digit, then up to 62 more of those and `.`, `_`, `-`")]
pub struct BadName(pub String);

/// Checks a name that stands in paths, such as a tenant's or a peer's: `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`.
///
/// # Errors
/// It is not one.
pub fn check_name(name: &str) -> Result<(), BadName> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let starts_well = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    if starts_well && name.len() <= 63 && name.bytes().all(is_good) { Ok(()) } else { Err(BadName(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_paths() {
        for name in ["default", "A", "2nd-floor_x.y", &"x".repeat(63)] {
            assert_eq!(check_name(name), Ok(()));
        }
        for name in ["", ".", "..", "-x", "a/b", "a b", "ä", "a%2f", &"x".repeat(64)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
