//! What an access token is bound to, besides whoever holds it: a key or a certificate that each call must show (`cnf`, RFC 7800 §3).

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use super::thumbprint::{CertificateThumbprint, KeyThumbprint};

/// The key or certificate that a token is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// A DPoP key, `jkt` (RFC 9449 §6).
    Key(KeyThumbprint),
    /// A TLS client certificate, `x5t#S256` (RFC 8705 §3.1).
    Certificate(CertificateThumbprint),
}

/// What a request shows, besides whatever it says: what its sender holds and could not have stolen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Possession {
    /// The key of its DPoP proof.
    pub key: Option<KeyThumbprint>,
    /// The certificate of its connection, which is valid now.
    pub certificate: Option<CertificateThumbprint>,
}

impl Binding {
    /// The name of the confirmation method.
    const fn method(self) -> &'static str {
        match self {
            Self::Key(_) => "jkt",
            Self::Certificate(_) => "x5t#S256",
        }
    }

    fn thumbprint(self) -> String {
        match self {
            Self::Key(thumbprint) => thumbprint.to_string(),
            Self::Certificate(thumbprint) => thumbprint.to_string(),
        }
    }

    /// `cnf`, for introspection.
    pub fn to_confirmation(self) -> Value {
        json!({ self.method(): self.thumbprint() })
    }

    /// `token_type`
    pub const fn token_type(binding: Option<Self>) -> &'static str {
        match binding {
            Some(Self::Key(_)) => super::dpop::TOKEN_TYPE,
            Some(Self::Certificate(_)) | None => "Bearer",
        }
    }
}

/// As it is stored.
impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.method(), self.thumbprint())
    }
}

/// The text names no binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a binding of a token")]
pub struct NotABinding;

impl FromStr for Binding {
    type Err = NotABinding;

    fn from_str(text: &str) -> Result<Self, NotABinding> {
        let (method, thumbprint) = text.split_once(':').ok_or(NotABinding)?;
        match method {
            "jkt" => KeyThumbprint::from_text(thumbprint).map(Self::Key),
            "x5t#S256" => CertificateThumbprint::from_text(thumbprint).map(Self::Certificate),
            _ => None,
        }
        .ok_or(NotABinding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_reads_back_and_says_what_it_is() {
        let (key, certificate) = (KeyThumbprint::of_canonical("x"), CertificateThumbprint::of_der(b"x"));
        for (binding, confirmation, token_type) in [
            (Binding::Key(key), json!({ "jkt": key.to_string() }), "DPoP"),
            (Binding::Certificate(certificate), json!({ "x5t#S256": certificate.to_string() }), "Bearer"),
        ] {
            assert_eq!(binding.to_string().parse(), Ok(binding));
            assert_eq!(binding.to_confirmation(), confirmation);
            assert_eq!(Binding::token_type(Some(binding)), token_type);
        }
        for text in ["", "jkt", "jkt:", "jkt:AAAA", &format!("x:{key}")] {
            assert_eq!(text.parse::<Binding>(), Err(NotABinding));
        }
    }
}
