//! The peer's answer to an authorization request, as it arrives in somebody's browser (RFC 6749 §4.1.2, RFC 9207).

use std::sync::Arc;

use url::Url;

use super::answer;
use super::handshake::{Handshake, Stage};
use crate::clock::Timestamp;
use crate::oauth::signing_key::SigningKey;
use crate::secret::{Digest, SecretString};

/// The longest code that is passed on.
const LONGEST_CODE: usize = 4096;

/// What arrived, each parameter once.
#[derive(Clone, Debug, Default)]
pub struct Arrival {
    /// The path it arrived at, as a whole URL.
    pub redirect_uri: String,
    /// The digest of the secret in the handshake's cookie.
    pub browser: Option<Digest>,
    /// `code`
    pub code: Option<SecretString>,
    /// `error`
    pub error: Option<String>,
    /// `error_description`
    pub error_description: Option<String>,
    /// `iss`
    pub iss: Option<String>,
}

/// What follows from it.
#[derive(Debug)]
pub struct Judgement {
    /// The handshake's new stage; `None` leaves it as it is.
    pub stage: Option<Stage>,
    /// What to do or say.
    pub next: Next,
}

/// What to do or say.
#[derive(Debug)]
pub enum Next {
    /// Send the code, once.
    Exchange(Exchange),
    /// Somebody at the peer said no, with what the peer said of it.
    Declined(Option<String>),
    /// The peer answered with an error.
    PeerRefused(String),
    /// It does not count.
    Refused(Refusal),
}

/// What is needed to exchange a code.
#[derive(Debug)]
pub struct Exchange {
    /// The code.
    pub code: SecretString,
    /// PKCE's secret.
    pub verifier: SecretString,
    /// What the tokens are to be bound to.
    pub key: Option<Arc<SigningKey>>,
    /// Where it goes.
    pub token_endpoint: Url,
    /// As it was in the authorization request.
    pub redirect_uri: String,
}

/// Why an arrival does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No handshake of ours has this state.
    UnknownState,
    /// It arrived in another browser than the one that pressed the button.
    OtherBrowser,
    /// It arrived at another redirect URI than its own.
    OtherRedirectUri,
    /// It names another issuer, or none where one was promised.
    OtherIssuer,
    /// It holds both a code and an error.
    CodeAndError,
    /// It holds neither.
    NoCode,
    /// The handshake ran out.
    Expired,
    /// It is over.
    Used,
    /// A newer request URL was made.
    Replaced,
}

/// Judges what arrived for `handshake`, found by its state. What another browser brings changes nothing; what the right browser brings is
/// the handshake's only answer, good or bad.
pub fn judge(handshake: Option<Handshake>, arrival: Arrival, now: Timestamp) -> Judgement {
    let ignored = |refusal| Judgement { stage: None, next: Next::Refused(refusal) };
    let failed =
        |refusal, why: &str| Judgement { stage: Some(Stage::Failed { at: now, why: why.to_owned() }), next: Next::Refused(refusal) };
    let Some(handshake) = handshake else { return ignored(Refusal::UnknownState) };
    if arrival.browser != Some(handshake.browser) {
        return ignored(Refusal::OtherBrowser);
    }
    let (verifier, key) = match handshake.stage {
        Stage::Pressed { verifier, key } => (verifier, key),
        Stage::Replaced => return ignored(Refusal::Replaced),
        Stage::Exchanging { .. } | Stage::Linked { .. } | Stage::Declined { .. } | Stage::Failed { .. } => return ignored(Refusal::Used),
    };
    if now >= handshake.expires_at {
        return ignored(Refusal::Expired);
    }
    // A server that does not name itself answers at a redirect URI of its own (RFC 9700 §4.4.2).
    if arrival.redirect_uri != handshake.sent.redirect_uri {
        return failed(Refusal::OtherRedirectUri, "the answer arrived at another redirect URI");
    }
    match (&handshake.sent.issuer, &arrival.iss) {
        (Some(issuer), Some(iss)) if issuer != iss => return failed(Refusal::OtherIssuer, "the answer names another issuer"),
        (Some(_), None) if handshake.sent.iss_promised => return failed(Refusal::OtherIssuer, "the answer names no issuer"),
        _ => {}
    }
    let description = arrival.error_description.as_deref().map(answer::printable).unwrap_or_default();
    match (arrival.code, arrival.error) {
        (Some(_), Some(_)) => failed(Refusal::CodeAndError, "the answer holds both a code and an error"),
        (None, None) => failed(Refusal::NoCode, "the answer holds no code"),
        (None, Some(error)) if error == "access_denied" => {
            let words = Some(description).filter(|words| !words.is_empty());
            Judgement { stage: Some(Stage::Declined { at: now, words: words.clone() }), next: Next::Declined(words) }
        }
        (None, Some(error)) => {
            let words = answer::refusal_in_words(&answer::printable(&error), &description);
            Judgement { stage: Some(Stage::Failed { at: now, why: format!("the peer answered {words}") }), next: Next::PeerRefused(words) }
        }
        (Some(code), None) if is_code(&code) => {
            let exchange =
                Exchange { code, verifier, key, token_endpoint: handshake.sent.token_endpoint, redirect_uri: handshake.sent.redirect_uri };
            Judgement { stage: Some(Stage::Exchanging { since: now }), next: Next::Exchange(exchange) }
        }
        (Some(_), None) => failed(Refusal::NoCode, "the answer holds no code that could be one"),
    }
}

/// `1*VSCHAR` (RFC 6749 appendix A.11), of a length that is no attack.
fn is_code(code: &SecretString) -> bool {
    use crate::secret::ExposeSecret;
    let code = code.expose_secret();
    code.len() <= LONGEST_CODE && code.bytes().all(|byte| matches!(byte, 0x20..=0x7e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::handshake::tests::handshake;

    const NOW: Timestamp = Timestamp::from_millis(1000);

    fn arrival() -> Arrival {
        Arrival {
            redirect_uri: "https://one.example.com/oauth/callback".to_owned(),
            browser: Some(Digest::of("browser")),
            code: Some("code".into()),
            error: None,
            error_description: None,
            iss: Some("https://two.example.com".to_owned()),
        }
    }

    fn refusal(handshake: Handshake, arrival: Arrival) -> (Refusal, bool) {
        match judge(Some(handshake), arrival, NOW) {
            Judgement { stage, next: Next::Refused(refusal) } => (refusal, stage.is_some()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_right_answer_is_exchanged_once() {
        let judgement = judge(Some(handshake()), arrival(), NOW);
        assert!(matches!(judgement.stage, Some(Stage::Exchanging { since: NOW })));
        let Next::Exchange(exchange) = judgement.next else { panic!("{judgement:?}") };
        assert_eq!(exchange.token_endpoint.as_str(), "https://two.example.com/oauth/token");
    }

    #[test]
    fn c1_the_state_is_bound_to_the_browser_and_used_once() {
        assert!(matches!(judge(None, arrival(), NOW).next, Next::Refused(Refusal::UnknownState)));
        for browser in [None, Some(Digest::of("another"))] {
            assert_eq!(refusal(handshake(), Arrival { browser, ..arrival() }), (Refusal::OtherBrowser, false));
        }
        for stage in [
            Stage::Exchanging { since: NOW },
            Stage::Linked { at: NOW, linked_as: None },
            Stage::Declined { at: NOW, words: None },
            Stage::Failed { at: NOW, why: String::new() },
        ] {
            assert_eq!(refusal(Handshake { stage, ..handshake() }, arrival()), (Refusal::Used, false));
        }
        assert_eq!(refusal(Handshake { stage: Stage::Replaced, ..handshake() }, arrival()), (Refusal::Replaced, false));
        assert_eq!(refusal(Handshake { expires_at: NOW, ..handshake() }, arrival()), (Refusal::Expired, false));
    }

    #[test]
    fn c3_the_issuer_is_compared_as_a_string_and_may_not_be_left_out() {
        let iss = |iss: Option<&str>| Arrival { iss: iss.map(str::to_owned), ..arrival() };
        for other in [None, Some("https://two.example.com/"), Some("https://evil.example.com"), Some("HTTPS://two.example.com")] {
            assert_eq!(refusal(handshake(), iss(other)), (Refusal::OtherIssuer, true), "{other:?}");
        }
        let unpromised = || {
            let mut handshake = handshake();
            handshake.sent.iss_promised = false;
            handshake
        };
        assert!(matches!(judge(Some(unpromised()), iss(None), NOW).next, Next::Exchange(_)));
        assert_eq!(refusal(unpromised(), iss(Some("https://evil.example.com"))), (Refusal::OtherIssuer, true));
        let mut unnamed = handshake();
        unnamed.sent.issuer = None;
        unnamed.sent.iss_promised = false;
        assert!(matches!(judge(Some(unnamed), iss(Some("https://whoever.example.com")), NOW).next, Next::Exchange(_)));
    }

    #[test]
    fn c3_an_answer_of_one_server_is_not_taken_for_anothers() {
        let elsewhere = Arrival { redirect_uri: "https://one.example.com/oauth/callback/ff".to_owned(), ..arrival() };
        assert_eq!(refusal(handshake(), elsewhere), (Refusal::OtherRedirectUri, true));
    }

    #[test]
    fn wrong_answers_end_the_handshake() {
        let both = Arrival { error: Some("access_denied".to_owned()), ..arrival() };
        assert_eq!(refusal(handshake(), both), (Refusal::CodeAndError, true));
        for code in [None, Some("a\nb".into()), Some("ä".into()), Some("x".repeat(5000).into())] {
            assert_eq!(refusal(handshake(), Arrival { code, ..arrival() }), (Refusal::NoCode, true));
        }
    }

    #[test]
    fn a_decline_is_told_from_a_refusal() {
        let error = |error: &str| Arrival {
            code: None,
            error: Some(error.to_owned()),
            error_description: Some("so\nsorry".to_owned()),
            ..arrival()
        };
        let declined = judge(Some(handshake()), error("access_denied"), NOW);
        let Next::Declined(Some(said)) = declined.next else { panic!("{declined:?}") };
        assert!(matches!(declined.stage, Some(Stage::Declined { at: NOW, words: Some(words) }) if words == said && words == "sosorry"));
        for silent in [None, Some("\n".to_owned())] {
            let declined = judge(Some(handshake()), Arrival { error_description: silent, ..error("access_denied") }, NOW);
            assert!(matches!((declined.stage, declined.next), (Some(Stage::Declined { words: None, .. }), Next::Declined(None))));
        }
        let long = Arrival { error_description: Some("x".repeat(5000)), ..error("access_denied") };
        assert!(matches!(judge(Some(handshake()), long, NOW).next, Next::Declined(Some(words)) if words.len() == 200));
        let refused = judge(Some(handshake()), error("invalid_scope"), NOW);
        assert!(matches!(refused.next, Next::PeerRefused(words) if words == "invalid_scope (sosorry)"));
        assert!(matches!(refused.stage, Some(Stage::Failed { .. })));
    }
}
