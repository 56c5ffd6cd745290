//! The pages at the ends of a handshake.

use axum::response::Response;
use http::StatusCode;

use crate::config::Config;
use crate::doors::browser;
use crate::outbound::callback::Refusal;
use crate::outbound::ticket::Dead;

/// Where a handshake ended.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// The peer is linked; at `withdrawn_at` who allowed it can take it back, where the peer has a page for that.
    Linked { peer: String, linked_as: Option<String>, withdrawn_at: Option<String> },
    /// Somebody at the peer said no, where we hold a token of it already or do not.
    Declined { peer: String, words: Option<String>, is_held: bool },
    /// The peer refused, with this error.
    PeerRefused { peer: String, error: String },
    /// The peer does not take the code.
    WrongCode { peer: String, error: String },
    /// The code was sent, and nobody knows what came of it.
    Inconclusive { peer: String, what: String },
    /// The handshake cannot begin.
    NotNow { peer: String, why: String },
    /// Our own store did not take the new link.
    NotStored,
    /// Our own store did not answer, and what arrived was not looked at.
    NotJudged,
    /// The request URL does nothing.
    Dead(Dead),
    /// What arrived does not count.
    Refused(Refusal),
    /// The query cannot be read.
    Malformed(String),
}

impl Outcome {
    /// The page: what happened, and the next step.
    pub(super) fn page(&self, config: &Config) -> Response {
        let here = &config.instance.name;
        let ask_again = "Ask whoever sent you the request URL for a new one.".to_owned();
        let ask_for = |peer: &str| format!("On {here}: p2pid peer request {peer} makes a new request URL.");
        let (status, title, paragraphs) = match self {
            Self::Linked { peer, linked_as, withdrawn_at } => (
                StatusCode::OK,
                "Linked",
                vec![
                    match linked_as {
                        Some(subject) => format!("{here} is linked with {peer}, allowed by {subject}."),
                        None => format!("{here} is linked with {peer}."),
                    },
                    match withdrawn_at {
                        Some(page) => format!("The link is renewed by itself, until it is withdrawn at {page}. You can close this page."),
                        None => "The link is renewed by itself. You can close this page.".to_owned(),
                    },
                ],
            ),
            Self::Declined { peer, words, is_held } => (
                StatusCode::OK,
                "Declined",
                vec![
                    match words {
                        Some(words) => format!("Somebody at {peer} declined: {words}."),
                        None => format!("Somebody at {peer} declined."),
                    },
                    match is_held {
                        // Whether the peer still honours it is known only once it is asked.
                        true => {
                            format!(
                                "Nothing was linked. The link that was there before is left as it was; p2pid peer show {peer} tells how it is."
                            )
                        }
                        false => "Nothing was linked.".to_owned(),
                    },
                    format!("If that was a mistake: {}", ask_for(peer)),
                ],
            ),
            Self::PeerRefused { peer, error } => (
                StatusCode::BAD_GATEWAY,
                "The peer refused",
                vec![format!("{peer} answered: {error}. Nothing was linked."), format!("When that is mended: {}", ask_for(peer))],
            ),
            Self::WrongCode { peer, error } => (
                StatusCode::BAD_REQUEST,
                "The code is not good",
                vec![format!("{peer} does not take the code that it sent with your browser: {error}. Nothing was linked."), ask_for(peer)],
            ),
            Self::Inconclusive { peer, what } => (
                StatusCode::BAD_GATEWAY,
                "No clear answer",
                vec![
                    format!(
                        "The code was sent to {peer}, but no clear answer came back: {what}. A code is sent only once; nothing was linked."
                    ),
                    ask_for(peer),
                ],
            ),
            Self::NotNow { peer, why } => (
                StatusCode::BAD_GATEWAY,
                "Cannot be linked now",
                vec![
                    format!("{here} cannot be linked with {peer} now: {why}. The request URL was not used up."),
                    "Open it again once that is mended.".to_owned(),
                ],
            ),
            Self::NotStored => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Not available now",
                vec!["The link was allowed, but could not be stored here. Nothing was linked.".to_owned(), ask_again],
            ),
            Self::NotJudged => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Try again",
                vec![format!("{here} could not look at this answer now."), "Reload this page in a moment.".to_owned()],
            ),
            Self::Dead(dead) => dead_page(*dead, ask_again),
            Self::Refused(refusal) => refused_page(*refusal, ask_again),
            Self::Malformed(what) => (
                StatusCode::BAD_REQUEST,
                "Not an answer",
                vec![format!("This is no answer of an authorization server: {what}."), ask_again],
            ),
        };
        browser::say(config, status, title, &paragraphs.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

fn dead_page(dead: Dead, ask_again: String) -> (StatusCode, &'static str, Vec<String>) {
    let (status, title, what) = match dead {
        Dead::Unknown => (
            StatusCode::NOT_FOUND,
            "Unknown request",
            "There is no such request here. Check that the whole address was copied; requests are forgotten a month after their end.",
        ),
        Dead::Expired => (StatusCode::GONE, "Expired", "This request ran out before anybody used it."),
        Dead::Used => (StatusCode::GONE, "Used", "This request was used already; each can be used once, in one browser."),
        Dead::Replaced => {
            (StatusCode::GONE, "Replaced", "A newer request was made, or the peer was changed; this one is not good any more.")
        }
    };
    (status, title, vec![what.to_owned(), ask_again])
}

fn refused_page(refusal: Refusal, ask_again: String) -> (StatusCode, &'static str, Vec<String>) {
    let (status, title, what) = match refusal {
        Refusal::UnknownState => (StatusCode::BAD_REQUEST, "Wrong state", "This answer belongs to no request of ours."),
        Refusal::OtherBrowser => (
            StatusCode::BAD_REQUEST,
            "Wrong browser",
            "This answer belongs to a request that was opened in another browser, or its cookie is gone. Finish where it was begun.",
        ),
        Refusal::OtherRedirectUri => (StatusCode::BAD_REQUEST, "Wrong address", "This answer arrived at the address of another client."),
        Refusal::OtherIssuer => {
            (StatusCode::BAD_REQUEST, "Wrong issuer", "This answer is not from the server that was asked. Nothing was sent to anybody.")
        }
        Refusal::CodeAndError => (StatusCode::BAD_REQUEST, "Not an answer", "This answer says both yes and no."),
        Refusal::NoCode => (StatusCode::BAD_REQUEST, "No code", "This answer holds no code that could be one."),
        Refusal::Expired => (StatusCode::GONE, "Expired", "This request ran out before the answer came."),
        Refusal::Used => {
            let what = "This request was answered already. What came of it stays as it is.";
            return (StatusCode::GONE, "Used", vec![what.to_owned(), format!("If that was no link: {ask_again}")]);
        }
        Refusal::Replaced => (StatusCode::GONE, "Replaced", "A newer request was made meanwhile, or the peer was changed."),
    };
    (status, title, vec![what.to_owned(), ask_again])
}
