//! Secrets in memory: never printed, wiped after use, compared in constant time, named by fingerprint.

use std::fmt;

use subtle::ConstantTimeEq;

pub use secrecy::{ExposeSecret, SecretString};

/// SHA-256 of a secret that we issued; what the store keeps in its place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `text`.
    pub fn of(text: &str) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// The bytes as stored.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From the bytes as stored.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// What a log may say of the secret.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(self.0[..6].try_into().expect("six bytes were sliced"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.fingerprint(), f)
    }
}

/// The first 48 bits of a secret's SHA-256: enough to match log lines, useless to present.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 6]);

impl Fingerprint {
    /// The fingerprint of `text`.
    pub fn of(text: &str) -> Self {
        Digest::of(text).fingerprint()
    }
}

impl fmt::Display for Fingerprint {
    /// 12 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Equality whose duration says nothing of where two texts differ (their lengths may show).
pub fn same(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_debug_prints_holds_the_secret() {
        let secret = SecretString::from("hunter2-hunter2");
        assert!(!format!("{secret:?}").contains("hunter2"));
        assert_eq!(format!("{:?}", Digest::of("hunter2")).len(), 12);
    }

    #[test]
    fn same_compares_whole_texts() {
        assert!(same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd"));
        assert!(!same(b"abc", b"ab"));
    }
}
