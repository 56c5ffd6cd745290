//! Everything a peer can do wrong, by name.

use std::time::Duration;

/// Where a request arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Endpoint {
    /// `/.well-known/oauth-authorization-server`
    Metadata,
    /// `/.well-known/oauth-protected-resource`
    ResourceMetadata,
    /// `/oauth/authorize`
    Authorize,
    /// `/oauth/token`
    Token,
    /// `/oauth/introspect`
    Introspect,
    /// `/oauth/revoke`
    Revoke,
    /// Everything else: what the bearer token opens.
    Resource,
}

/// One misbehaviour. What only makes sense at one endpoint says so; elsewhere it changes nothing.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    // ── the connection, at any endpoint ──
    /// Closes the connection without having done anything.
    DroppedBeforeCommit,
    /// Does what was asked, then closes the connection without an answer.
    DroppedAfterCommit,
    /// Does what was asked; the answer waits for `Hostile::release`.
    Held,
    /// Answers after this much real time.
    Late(Duration),
    /// Headers that come byte by byte and never end.
    SlowLoris,
    /// A TCP reset in the middle of the answer's body, after what was asked was done.
    ResetInsideBody,
    /// A body that never ends.
    EndlessBody,
    // ── the answer, at any endpoint ──
    /// This status, with a text for a body; nothing was done.
    Status(u16),
    /// 429 with this `Retry-After`.
    TooMany(&'static str),
    /// A firewall's page: 403, HTML.
    FirewallPage,
    /// 200, done, but the body is empty.
    EmptyBody,
    /// 200, done, but the body is a page.
    Html,
    /// 200, done, but the JSON ends in the middle.
    HalfJson,
    /// A redirect (303) to this address.
    Redirect(String),
    // ── token endpoint ──
    /// An OAuth error: status and code.
    Refuses(u16, &'static str),
    /// No `access_token`.
    NoAccessToken,
    /// `expires_in` as this JSON, or none.
    ExpiresIn(Option<serde_json::Value>),
    /// The access and refresh token that it gave last, once more.
    SameTokensAgain,
    /// No `refresh_token`; the old one stays good.
    NoRefreshToken,
    /// No `token_type`.
    NoTokenType,
    /// Another `token_type`.
    TokenType(&'static str),
    /// Another `scope`.
    Scope(&'static str),
    /// Status 201 in place of 200.
    Created,
    // ── authorization endpoint (and metadata, where named) ──
    /// Another `state`.
    WrongState,
    /// No `state`.
    NoState,
    /// No `authorization_endpoint` in the metadata.
    NoAuthorizationEndpoint,
    /// `iss` (in metadata: `issuer`) of somebody else.
    ForeignIssuer,
    /// No `iss`, though the metadata promise it.
    NoIssuer,
    /// A code that was redeemed before.
    ReplayedCode,
    /// `code` and `error` both.
    CodeAndError,
    /// Neither `code` nor `error`.
    NeitherCodeNorError,
    /// `code` twice.
    CodeTwice,
    /// An authorization error with this code; `access_denied` is a person's "no".
    Denies(&'static str),
    // ── resource, and its metadata ──
    /// In its metadata: the `resource` of somebody else.
    ForeignResource,
    /// 401 `invalid_token`, whatever token came.
    InvalidToken,
}
