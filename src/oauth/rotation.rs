//! What becomes of a refresh token that was used (RFC 9700 §4.14.2).

/// What becomes of a refresh token that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// Replaced, and answered again inside a window when the answer was lost.
    RetrySafe,
    /// Replaced; a second use is refused.
    Strict,
    /// Kept.
    None,
}
