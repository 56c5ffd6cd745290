//! The page of what somebody allowed.

use askama::Template;

use super::ScopeLine;

/// What the one who is signed in allowed, each with the button that withdraws it.
#[derive(Debug, Template)]
#[template(path = "grants.html")]
pub struct Grants<'a> {
    /// The instance's name.
    pub instance: &'a str,
    /// What came of the button that was pressed.
    pub notice: Option<&'a str>,
    /// What is allowed now, newest first.
    pub grants: &'a [GrantEntry<'a>],
    /// These are not the newest, but those that are older than some.
    pub is_continued: bool,
    /// Where there are more, which are older than these.
    pub older: Option<&'a str>,
    /// Who is signed in.
    pub login: &'a str,
    /// Where the forms go.
    pub action: &'a str,
    /// Where logging out goes.
    pub logout: &'a str,
    /// The forms' token.
    pub token: &'a str,
}

/// One thing that was allowed.
#[derive(Debug)]
pub struct GrantEntry<'a> {
    /// The grant's identity.
    pub id: String,
    /// The IB app's name.
    pub app: &'a str,
    /// Its `client_id`.
    pub client_id: &'a str,
    /// Its tenant.
    pub tenant: &'a str,
    /// Where its answers go: the origins of its redirect URIs.
    pub peers: Vec<String>,
    /// What it may do.
    pub scopes: Vec<ScopeLine<'a>>,
    /// When it was allowed.
    pub since: String,
    /// When it ends by itself.
    pub until: Option<String>,
    /// When a token of it was last used.
    pub last_used: Option<String>,
}
