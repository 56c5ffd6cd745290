//! Thumbprints: how a key or a certificate is named by what it is. Both are a SHA-256 in base64url, and neither ever stands for the other,
//! so they are two types.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Names a public key, as `jkt` does (RFC 7638, RFC 9449 §6.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyThumbprint([u8; 32]);

/// Names a certificate, as `x5t#S256` does (RFC 8705 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CertificateThumbprint([u8; 32]);

impl KeyThumbprint {
    /// Of the key with that canonical form (RFC 7638 §3.2).
    pub fn of_canonical(jwk: &str) -> Self {
        Self(sha256(jwk.as_bytes()))
    }

    /// From base64url; none when that is not 32 bytes.
    pub fn from_text(text: &str) -> Option<Self> {
        decoded(text).map(Self)
    }
}

impl CertificateThumbprint {
    /// Of the certificate with that DER.
    pub fn of_der(der: &[u8]) -> Self {
        Self(sha256(der))
    }

    /// From base64url; none when that is not 32 bytes.
    pub fn from_text(text: &str) -> Option<Self> {
        decoded(text).map(Self)
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn decoded(text: &str) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

impl fmt::Display for KeyThumbprint {
    /// base64url, 43 characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Display for CertificateThumbprint {
    /// base64url, 43 characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for KeyThumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for CertificateThumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
