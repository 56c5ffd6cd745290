//! OAuth errors as they go over the wire: registered codes, and descriptions in the characters that the RFCs allow.

use http::StatusCode;

/// A registered error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// A parameter is missing, doubled, malformed or contradicts another (RFC 6749 §5.2).
    InvalidRequest,
    /// The client is unknown or did not authenticate (RFC 6749 §5.2).
    InvalidClient,
    /// The code or refresh token is not good, or not this client's (RFC 6749 §5.2).
    InvalidGrant,
    /// The client may not use this grant or response type (RFC 6749 §4.1.2.1, §5.2).
    UnauthorizedClient,
    /// The grant type is not served (RFC 6749 §5.2).
    UnsupportedGrantType,
    /// The response type is not served (RFC 6749 §4.1.2.1).
    UnsupportedResponseType,
    /// The scope is unknown, malformed or more than the client may have (RFC 6749 §4.1.2.1, §5.2).
    InvalidScope,
    /// Somebody said no (RFC 6749 §4.1.2.1).
    AccessDenied,
    /// Revocation of this type of token is not served (RFC 7009 §2.2.1).
    UnsupportedTokenType,
    /// Request objects are not served (OpenID Connect Core §3.1.2.6).
    RequestNotSupported,
    /// Request objects by reference are not served (OpenID Connect Core §3.1.2.6).
    RequestUriNotSupported,
    /// The resource is not this instance (RFC 8707 §2).
    InvalidTarget,
    /// The DPoP proof is not one, or is missing (RFC 9449 §5).
    InvalidDpopProof,
    /// The DPoP proof lacks the nonce that the answer hands out (RFC 9449 §8).
    UseDpopNonce,
    /// The request object that is named is not one of the client's, or not any more (OpenID Connect Core §3.1.2.6, RFC 9126 §4).
    InvalidRequestUri,
    /// Too many failures or requests; to be tried again later (RFC 6749 §4.1.2.1).
    TemporarilyUnavailable,
    /// The server failed, or is too late to judge; to be tried again (RFC 6749 §4.1.2.1).
    ServerError,
}

impl Code {
    /// As sent.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::UnsupportedResponseType => "unsupported_response_type",
            Self::InvalidScope => "invalid_scope",
            Self::AccessDenied => "access_denied",
            Self::UnsupportedTokenType => "unsupported_token_type",
            Self::RequestNotSupported => "request_not_supported",
            Self::RequestUriNotSupported => "request_uri_not_supported",
            Self::InvalidTarget => "invalid_target",
            Self::InvalidDpopProof => "invalid_dpop_proof",
            Self::UseDpopNonce => "use_dpop_nonce",
            Self::InvalidRequestUri => "invalid_request_uri",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
            Self::ServerError => "server_error",
        }
    }

    /// The status where the error is a document, not a redirect.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::InvalidClient => StatusCode::UNAUTHORIZED,
            Self::TemporarilyUnavailable => StatusCode::TOO_MANY_REQUESTS,
            Self::ServerError => StatusCode::SERVICE_UNAVAILABLE,
            Self::InvalidRequest
            | Self::InvalidGrant
            | Self::UnauthorizedClient
            | Self::UnsupportedGrantType
            | Self::UnsupportedResponseType
            | Self::InvalidScope
            | Self::AccessDenied
            | Self::UnsupportedTokenType
            | Self::RequestNotSupported
            | Self::RequestUriNotSupported
            | Self::InvalidTarget
            | Self::InvalidDpopProof
            | Self::UseDpopNonce
            | Self::InvalidRequestUri => StatusCode::BAD_REQUEST,
        }
    }
}

/// An error with words for whoever reads the other side's log. Neither ever holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {description}", code.as_str())]
pub struct WireError {
    /// `error`
    pub code: Code,
    /// `error_description`, in its allowed characters.
    description: String,
}

impl WireError {
    /// An error; what `error_description` must not contain is replaced in `description`.
    pub fn new(code: Code, description: impl AsRef<str>) -> Self {
        Self { code, description: description.as_ref().chars().take(200).map(allowed).collect() }
    }

    /// `error_description`
    pub fn description(&self) -> &str {
        &self.description
    }

    /// `{"error":…,"error_description":…}`
    pub fn to_json(&self) -> String {
        serde_json::json!({ "error": self.code.as_str(), "error_description": self.description }).to_string()
    }
}

/// `%x20-21 / %x23-5B / %x5D-7E` (RFC 6749 §5.2).
fn allowed(character: char) -> char {
    match character {
        '"' => '\'',
        ' ' | '!' | '#'..='[' | ']'..='~' => character,
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t11_a_description_has_only_the_characters_that_are_allowed() {
        let error = WireError::new(Code::InvalidRequest, "the parameter \"a\\b\nä\" is given twice");
        assert_eq!(error.description(), "the parameter 'a?b??' is given twice");
        assert_eq!(error.to_json(), r#"{"error":"invalid_request","error_description":"the parameter 'a?b??' is given twice"}"#);
        assert_eq!(WireError::new(Code::InvalidRequest, "x".repeat(9_999)).description().len(), 200);
    }
}
