//! What becomes of a link after an attempt to renew its token. A refresh token may be good for one use, and its answer may get lost: what
//! is final, what is tried again and when is decided here, from how many attempts may have reached the peer.

use std::time::Duration;

use super::answer::{self, Answer, Granted};
use super::ob_app::Grant;
use super::plan::{self, Jitter};
use crate::secret::SecretString;

/// What was written down before sending, while no conclusive answer is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Intent {
    /// Attempts whose request may have left this host.
    pub attempts: u32,
    /// The peer said `invalid_grant` to one of them that was not the first.
    pub refused: bool,
}

impl Intent {
    /// The intent with one more attempt, as written before it is sent.
    pub const fn sending(self) -> Self {
        Self { attempts: self.attempts.saturating_add(1), ..self }
    }

    /// The intent without the attempt that turned out not to have left.
    pub const fn not_sent(self) -> Self {
        Self { attempts: self.attempts.saturating_sub(1), ..self }
    }
}

/// What an attempt means for the link.
#[derive(Debug)]
pub enum Verdict {
    /// Store the tokens and end the intent.
    Store(Box<Granted>),
    /// Store the refresh token, which has a new intent, and try again: there is no new access token.
    Keep {
        /// What is presented from now on.
        refresh: SecretString,
        /// In how long.
        wait: Duration,
        /// Why, in words.
        trouble: Trouble,
    },
    /// Keep everything and try again.
    Again {
        /// In how long.
        wait: Duration,
        /// The intent as it stands now.
        intent: Intent,
        /// Why, in words.
        trouble: Trouble,
    },
    /// The link is over.
    Final {
        /// Why, in words.
        why: String,
    },
}

/// Why a link is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Its kind, for metrics.
    pub kind: TroubleKind,
    /// In words that name the fix.
    pub reason: String,
}

/// Kinds of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// The peer was not reached.
    Unreachable,
    /// The peer gave no conclusive answer.
    Inconclusive,
    /// The peer refused, for a reason that an operator can remove.
    Refused,
    /// Our own store did not take the change.
    Store,
}

impl TroubleKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Unreachable, Self::Inconclusive, Self::Refused, Self::Store];

    /// As stored and as metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Inconclusive => "inconclusive",
            Self::Refused => "refused",
            Self::Store => "store",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// What an attempt was.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The intent that was written before it, counting it.
    pub intent: Intent,
    /// How many attempts in a row have now come to nothing, with this one.
    pub failures: u32,
    /// How the app gets its tokens.
    pub grant: Grant,
    /// The OB app, for the reason.
    pub ob_app: &'a str,
    /// Whether it signs where others have a secret.
    pub signs: bool,
    /// The peer, for the reason.
    pub peer: &'a str,
    /// The link's place in the spread.
    pub jitter: Jitter,
}

/// Judges the answer to an attempt.
pub fn judge(attempt: &Attempt<'_>, answer: Answer) -> Verdict {
    let Attempt { intent, failures, grant, ob_app, signs, peer, jitter } = *attempt;
    let again = |wait, intent, kind, reason| Verdict::Again { wait, intent, trouble: Trouble { kind, reason } };
    match answer {
        Answer::Granted(granted) => Verdict::Store(granted),
        Answer::NotSent(what) => {
            let reason = format!("{peer} cannot be reached: {what}; it is tried again by itself (`p2pid doctor {peer}` shows more)");
            again(plan::backoff(failures, jitter, None), intent.not_sent(), TroubleKind::Unreachable, reason)
        }
        Answer::Inconclusive { what, retry_after, .. } => {
            let reason = format!("the last refresh has no clear answer: {what}; it is tried again by itself");
            again(plan::backoff(failures, jitter, retry_after), intent, TroubleKind::Inconclusive, reason)
        }
        Answer::Refused { code, description } if code == "invalid_grant" && !grant.is_self_sufficient() => {
            let words = answer::refusal_in_words(&code, &description);
            if intent.attempts <= 1 || intent.refused {
                return Verdict::Final {
                    why: format!("{peer} refuses the refresh token: {words}. Link again: `p2pid peer request {peer}`"),
                };
            }
            // An earlier attempt may still be under way at the peer, and its answer the one that counts.
            let reason = format!("{peer} refuses the refresh token ({words}) after an attempt without answer; it is presented once more");
            again(plan::PRESENT_AGAIN, Intent { refused: true, ..intent }, TroubleKind::Refused, reason)
        }
        Answer::Refused { code, description } => {
            let words = answer::refusal_in_words(&code, &description);
            let reason = match code.as_str() {
                "invalid_client" | "unauthorized_client" => {
                    let link_again = (!grant.is_self_sufficient()).then_some(peer);
                    unknown_to_peer(ob_app, signs, link_again, &words)
                }
                "invalid_dpop_proof" => {
                    let again = if grant.is_self_sufficient() { "peer refresh" } else { "peer request" };
                    format!(
                        "the peer does not take the proof that goes with the token (DPoP): look at both clocks, or ask for another by \
                         `p2pid {again} {peer}` ({words})"
                    )
                }
                "invalid_scope" => format!("the peer does not give the scopes asked for: `p2pid ob update {ob_app} --scope …` ({words})"),
                "invalid_grant" => format!("the peer refuses the user name and password: `p2pid peer update {peer}` ({words})"),
                _ => format!(
                    "the peer refuses to renew the token: {words}; it is asked again every 5 min, or by `p2pid peer refresh {peer}`"
                ),
            };
            again(plan::ASK_AGAIN, intent, TroubleKind::Refused, reason)
        }
        Answer::Unusable { what, refresh } => {
            let reason = format!(
                "the peer's token endpoint answered with {what}; its new refresh token is kept, and it is asked again every 5 min, or by \
                 `p2pid peer refresh {peer}`"
            );
            Verdict::Keep { refresh, wait: plan::ASK_AGAIN, trouble: Trouble { kind: TroubleKind::Refused, reason } }
        }
        Answer::Unexpected(what) => {
            let reason =
                format!("the peer's token endpoint answered {what}; it is asked again every 5 min, or by `p2pid peer refresh {peer}`");
            again(plan::ASK_AGAIN, intent, TroubleKind::Refused, reason)
        }
    }
}

/// That the peer does not know us by what we show, with the fix: its `words`, and whether we sign where others have a secret. A peer does not say
/// whether it knows the id and not the secret, or neither; an app that was deleted there took its links with it, which are made anew by a request
/// URL for the peer `link_again`, where somebody has to allow them.
pub fn unknown_to_peer(ob_app: &str, signs: bool, link_again: Option<&str>, words: &str) -> String {
    let link_again = link_again.map(|peer| format!(" and `p2pid peer request {peer}`")).unwrap_or_default();
    match signs {
        true => format!(
            "the peer refuses our client id or signature ({words}): it has to know the keys that `p2pid ob show {ob_app}` names. If the app was \
             deleted there, it has to be made there again with the same client id and these keys{}",
            link_again.replacen(" and ", ", then ", 1)
        ),
        false => format!(
            "the peer refuses our client id or secret ({words}). If the secret is another one now: `p2pid ob update {ob_app} \
             --client-secret-stdin`. If the app was deleted there, it has to be made there again; then `p2pid ob update {ob_app} --client-id ID \
             --client-secret-stdin`{link_again}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::ExposeSecret;

    fn attempt(attempts: u32, refused: bool, grant: Grant) -> Attempt<'static> {
        let jitter = Jitter::of(&crate::id::Id::from_bytes([0; 16]));
        Attempt { intent: Intent { attempts, refused }, failures: 1, grant, ob_app: "app", signs: false, peer: "instance2", jitter }
    }

    fn refused(code: &str) -> Answer {
        Answer::Refused { code: code.to_owned(), description: String::new() }
    }

    #[test]
    fn c7_invalid_grant_to_the_first_counted_attempt_is_final() {
        let verdict = judge(&attempt(1, false, Grant::AuthorizationCode), refused("invalid_grant"));
        assert!(matches!(verdict, Verdict::Final { why } if why.contains("p2pid peer request instance2")));
    }

    #[test]
    fn c6_invalid_grant_after_an_inconclusive_attempt_is_presented_once_more() {
        let verdict = judge(&attempt(2, false, Grant::AuthorizationCode), refused("invalid_grant"));
        let Verdict::Again { wait, intent, .. } = verdict else { panic!("{verdict:?}") };
        assert_eq!((wait, intent), (plan::PRESENT_AGAIN, Intent { attempts: 2, refused: true }));
        let again = judge(&attempt(3, true, Grant::AuthorizationCode), refused("invalid_grant"));
        assert!(matches!(again, Verdict::Final { .. }));
    }

    #[test]
    fn c6_what_did_not_leave_does_not_count() {
        let verdict = judge(&attempt(1, false, Grant::AuthorizationCode), Answer::NotSent("refused".to_owned()));
        let Verdict::Again { intent, trouble, .. } = verdict else { panic!("{verdict:?}") };
        assert_eq!((intent.attempts, trouble.kind), (0, TroubleKind::Unreachable));
    }

    #[test]
    fn c7_no_number_of_inconclusive_answers_ends_a_link() {
        for attempts in [1, 2, 100, u32::MAX] {
            let answer = Answer::Inconclusive { doubt: answer::Doubt::ServerError, what: "503".to_owned(), retry_after: None };
            let verdict = judge(&Attempt { failures: attempts, ..attempt(attempts, false, Grant::AuthorizationCode) }, answer);
            let Verdict::Again { wait, intent, .. } = verdict else { panic!("{verdict:?}") };
            assert!(wait <= Duration::from_secs(60));
            assert_eq!(intent.attempts, attempts);
        }
    }

    #[test]
    fn other_refusals_name_their_fix_and_are_asked_again_every_five_minutes() {
        let cases = [
            (refused("invalid_client"), "`p2pid ob update app --client-secret-stdin`"),
            (refused("invalid_scope"), "`p2pid ob update app --scope …`"),
            (refused("invalid_request"), "`p2pid peer refresh instance2`"),
            (Answer::Unexpected("302 Found".to_owned()), "`p2pid peer refresh instance2`"),
        ];
        for (answer, fix) in cases {
            let verdict = judge(&attempt(1, false, Grant::AuthorizationCode), answer);
            let Verdict::Again { wait, trouble, .. } = verdict else { panic!("{verdict:?}") };
            assert_eq!((wait, trouble.kind), (plan::ASK_AGAIN, TroubleKind::Refused));
            assert!(trouble.reason.contains(fix), "{}", trouble.reason);
        }
    }

    #[test]
    fn who_is_unknown_to_the_peer_is_told_of_both_causes_and_links_again_only_where_somebody_allowed_it() {
        for (grant, links_again) in [(Grant::AuthorizationCode, true), (Grant::ClientCredentials, false)] {
            for signs in [false, true] {
                let verdict = judge(&Attempt { signs, ..attempt(1, false, grant) }, refused("invalid_client"));
                let Verdict::Again { trouble, .. } = verdict else { panic!("{verdict:?}") };
                assert_eq!(trouble.reason.contains("`p2pid peer request instance2`"), links_again, "{}", trouble.reason);
                assert!(trouble.reason.contains("deleted there"), "{}", trouble.reason);
                assert_eq!(
                    trouble.reason.contains("`p2pid ob update app --client-id ID --client-secret-stdin`"),
                    !signs,
                    "{}",
                    trouble.reason
                );
            }
            let verdict = judge(&attempt(1, false, grant), refused("invalid_dpop_proof"));
            let Verdict::Again { trouble, .. } = verdict else { panic!("{verdict:?}") };
            assert_eq!(trouble.reason.contains("peer request"), links_again, "{}", trouble.reason);
        }
    }

    #[test]
    fn c6_a_refresh_token_is_stored_though_there_is_no_access_token_to_use() {
        let answer = Answer::Unusable { what: "a token of type DPoP, expected Bearer".to_owned(), refresh: "new".into() };
        let verdict = judge(&attempt(2, true, Grant::AuthorizationCode), answer);
        let Verdict::Keep { refresh, wait, trouble } = verdict else { panic!("{verdict:?}") };
        assert_eq!((refresh.expose_secret(), wait, trouble.kind), ("new", plan::ASK_AGAIN, TroubleKind::Refused));
        assert!(trouble.reason.contains("type DPoP") && trouble.reason.contains("`p2pid peer refresh instance2`"), "{}", trouble.reason);
    }

    #[test]
    fn apps_that_need_nobodys_consent_are_never_final() {
        for grant in [Grant::ClientCredentials, Grant::Password] {
            assert!(matches!(judge(&attempt(1, false, grant), refused("invalid_grant")), Verdict::Again { .. }), "{grant:?}");
        }
    }
}
