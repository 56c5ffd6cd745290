//! The page of a request URL.

use askama::Template;

/// Who will be linked with whom, and the one button.
#[derive(Debug, Template)]
#[template(path = "request.html")]
pub struct Request<'a> {
    /// The instance's name.
    pub instance: &'a str,
    /// Our `public_url`.
    pub public_url: &'a str,
    /// What the peer knows us by.
    pub client_id: &'a str,
    /// The peer's name.
    pub peer: &'a str,
    /// Its URL.
    pub peer_url: &'a str,
    /// What is asked for.
    pub scope: &'a str,
    /// The origin where one will log in.
    pub destination: &'a str,
    /// Whether a log-in of ours comes first.
    pub login_needed: bool,
    /// Until when the button works.
    pub expires_at: &'a str,
    /// Where the form goes.
    pub action: &'a str,
    /// The form's token.
    pub token: &'a str,
}
