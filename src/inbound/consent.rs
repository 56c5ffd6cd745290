//! From the question to the code: somebody is asked once, answers once, and the code that follows is exchanged once.

use std::time::Duration;

use super::authorize::Request;
use super::ib_app::{GrantType, IbApp};
use crate::audit::Action;
use crate::clock::Timestamp;
use crate::id::Id;
use crate::secret::Digest;

/// How long somebody may think about the question.
pub const TIME_TO_DECIDE: Duration = Duration::from_secs(30 * 60);

/// What somebody was asked to allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// Its identity.
    pub id: Id,
    /// The IB app that asks.
    pub app: Id,
    /// Who is asked.
    pub user: Id,
    /// The browser session that is asked, and that alone may answer.
    pub session: Digest,
    /// What is asked.
    pub request: Request,
    /// The pushed request that it is the question of, by the digest of its reference: that is decided once, whoever is asked.
    pub pushed: Option<Digest>,
    /// How far it has come.
    pub stage: Stage,
}

/// What became of an app since it asked, so that it may not ask that any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outdated {
    /// The redirect URI is not registered any more: no answer may go there, whatever it says (RFC 9700 §4.1.3).
    RedirectUri,
    /// It may not use codes, or ask for that scope, or not without PKCE, a pushed request, or a redirect URI by name.
    Question,
}

impl Authorization {
    /// Whether `app`, as it is registered by now, could not ask this any more; `require_par` says that the instance demands pushed requests of all.
    ///
    /// A page may stand open for as long as [`TIME_TO_DECIDE`]: what is taken from an app meanwhile is taken from the questions too that it has asked.
    pub fn outdated(&self, app: &IbApp, require_par: bool) -> Option<Outdated> {
        let Request { destination, scope, challenge, .. } = &self.request;
        if !app.redirect_uris.iter().any(|uri| uri.accepts(&destination.redirect_uri, app.native)) {
            return Some(Outdated::RedirectUri);
        }
        let can_be_asked = app.may_use(GrantType::AuthorizationCode)
            && scope.is_within(&app.scope)
            && (challenge.is_some() || app.security.pkce_optional)
            && (self.pushed.is_some() || !app.security.needs_par(require_par))
            && (destination.is_named || !app.security.needs_redirect_uri());
        (!can_be_asked).then_some(Outdated::Question)
    }
}

/// How far an authorization has come; each stage owns what is true in it only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nobody has answered.
    Pending {
        /// Until when somebody may.
        until: Timestamp,
    },
    /// Allowed; the code is out.
    Allowed {
        /// The code.
        code: Digest,
        /// Until when it can be exchanged.
        until: Timestamp,
    },
    /// The code was exchanged.
    Exchanged {
        /// The code.
        code: Digest,
        /// What it made.
        grant: Id,
    },
    /// The right app failed at its own code.
    Burnt {
        /// The code.
        code: Digest,
    },
    /// Declined.
    Declined,
}

/// What somebody answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// `decision=allow`
    Allow,
    /// `decision=decline`
    Decline,
}

impl Decision {
    /// What it is called, in the audit and in the log.
    pub const fn action(self) -> Action {
        match self {
            Self::Allow => Action::ConsentAllowed,
            Self::Decline => Action::ConsentDeclined,
        }
    }
}

/// Who answers.
#[derive(Clone, Copy, Debug)]
pub struct Decider {
    /// The person.
    pub user: Id,
    /// The browser session.
    pub session: Digest,
    /// Whether the person may allow what the app asks ([`super::realm::may_allow`]).
    pub may_allow: Result<(), Refusal>,
}

/// Why an answer is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The question was put to another person or browser.
    #[error("this question was not put to you in this browser")]
    NotAsked,
    /// Somebody has answered before.
    #[error("this question has been answered")]
    AlreadyDecided,
    /// The time to answer is over.
    #[error("the time to answer this question is over")]
    TooLate,
    /// The person may not allow it.
    #[error("you may not allow links")]
    MayNotApprove,
    /// The person holds no role in the realm.
    #[error("you do not belong to this realm")]
    NotAMember,
    /// The app may not ask this any more.
    #[error("the application was changed after it asked, and may not ask this any more")]
    AppChanged,
}

/// Takes an answer. `code` is the digest of the code that an Allow hands out, good for `code_ttl`; `outdated` is what was found of the app.
pub fn decide(
    authorization: Authorization,
    decision: Decision,
    decider: &Decider,
    outdated: Option<Outdated>,
    code: Digest,
    code_ttl: Duration,
    now: Timestamp,
) -> Result<Authorization, Refusal> {
    if authorization.session != decider.session || authorization.user != decider.user {
        return Err(Refusal::NotAsked);
    }
    let Stage::Pending { until } = authorization.stage else { return Err(Refusal::AlreadyDecided) };
    if now >= until {
        return Err(Refusal::TooLate);
    }
    let stage = match (decision, outdated) {
        // Not even a Decline goes to where nothing may go.
        (_, Some(Outdated::RedirectUri)) | (Decision::Allow, Some(Outdated::Question)) => return Err(Refusal::AppChanged),
        (Decision::Decline, _) => Stage::Declined,
        (Decision::Allow, None) => decider.may_allow.map(|()| Stage::Allowed { code, until: now.plus(code_ttl) })?,
    };
    Ok(Authorization { stage, ..authorization })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::authorize::Destination;
    use crate::inbound::security::{Profile, Security};
    use crate::oauth::redirect_uri::RedirectUri;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn pending() -> Authorization {
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".parse().expect("a challenge");
        let destination = Destination { redirect_uri: "https://one.example/cb".into(), state: None, is_named: true };
        Authorization {
            id: Id::from_bytes([1; 16]),
            app: Id::from_bytes([2; 16]),
            user: Id::from_bytes([3; 16]),
            session: Digest::of("session"),
            request: Request { destination, scope: "a".parse().expect("a scope"), challenge: Some(challenge), dpop_key: None },
            pushed: None,
            stage: Stage::Pending { until: at(100) },
        }
    }

    fn decided(authorization: Authorization, decision: Decision, decider: Decider, now: i64) -> Result<Stage, Refusal> {
        decide(authorization, decision, &decider, None, Digest::of("code"), Duration::from_secs(60), at(now)).map(|decided| decided.stage)
    }

    #[test]
    fn a_question_is_worth_what_its_app_could_ask_by_now() {
        let app = IbApp {
            id: pending().app,
            tenant: "default".into(),
            name: "one".into(),
            client_id: "client".into(),
            redirect_uris: vec![RedirectUri::register("https://one.example/cb").expect("registrable")],
            grants: GrantType::OF_A_LINK.into(),
            scope: "a b".parse().expect("a scope"),
            access_ttl: None,
            rotation: None,
            native: false,
            security: Security::default(),
            created_at: at(0),
        };
        let without_pkce = || Authorization { request: Request { challenge: None, ..pending().request }, ..pending() };
        let unnamed = || {
            let destination = Destination { is_named: false, ..pending().request.destination };
            Authorization { request: Request { destination, ..pending().request }, ..pending() }
        };
        let secured = |security| IbApp { security, ..app.clone() };
        let (lax, fapi) = (
            secured(Security { pkce_optional: true, ..Security::default() }),
            secured(Security { profile: Some(Profile::Fapi2), ..Security::default() }),
        );
        let pushed = || Authorization { pushed: Some(Digest::of("pushed")), ..pending() };
        let elsewhere = vec![RedirectUri::register("https://one.example/other").expect("registrable")];
        for (asked, app, require_par, expected) in [
            (pending(), &app, false, None),
            (pending(), &IbApp { redirect_uris: elsewhere, ..app.clone() }, false, Some(Outdated::RedirectUri)),
            (pending(), &IbApp { redirect_uris: Vec::new(), ..app.clone() }, false, Some(Outdated::RedirectUri)),
            (pending(), &IbApp { grants: [GrantType::ClientCredentials].into(), ..app.clone() }, false, Some(Outdated::Question)),
            (pending(), &IbApp { scope: "b".parse().expect("a scope"), ..app.clone() }, false, Some(Outdated::Question)),
            (without_pkce(), &lax, false, None),
            (without_pkce(), &app, false, Some(Outdated::Question)),
            (pending(), &app, true, Some(Outdated::Question)),
            (pushed(), &app, true, None),
            (pending(), &fapi, false, Some(Outdated::Question)),
            (pushed(), &fapi, false, None),
            (unnamed(), &app, false, None),
            (unnamed(), &fapi, false, Some(Outdated::Question)),
        ] {
            assert_eq!(asked.outdated(app, require_par), expected, "{asked:?} {app:?}");
        }

        let decider = Decider { user: pending().user, session: pending().session, may_allow: Ok(()) };
        for (decision, outdated, expected) in [
            (Decision::Allow, Outdated::RedirectUri, Err(Refusal::AppChanged)),
            (Decision::Decline, Outdated::RedirectUri, Err(Refusal::AppChanged)),
            (Decision::Allow, Outdated::Question, Err(Refusal::AppChanged)),
            (Decision::Decline, Outdated::Question, Ok(Stage::Declined)),
        ] {
            let taken = decide(pending(), decision, &decider, Some(outdated), Digest::of("code"), Duration::from_secs(60), at(50));
            assert_eq!(taken.map(|decided| decided.stage), expected, "{decision:?} {outdated:?}");
        }
    }

    #[test]
    fn a11_a14_a_question_is_answered_once_by_who_was_asked_in_time() {
        let decider = Decider { user: pending().user, session: pending().session, may_allow: Ok(()) };
        let allowed = Stage::Allowed { code: Digest::of("code"), until: at(110) };
        assert_eq!(decided(pending(), Decision::Allow, decider, 50), Ok(allowed.clone()));
        assert_eq!(decided(pending(), Decision::Decline, decider, 50), Ok(Stage::Declined));

        let other_browser = Decider { session: Digest::of("other"), ..decider };
        let other_person = Decider { user: Id::from_bytes([9; 16]), ..decider };
        let without_permission = Decider { may_allow: Err(Refusal::MayNotApprove), ..decider };
        assert_eq!(decided(pending(), Decision::Allow, other_browser, 50), Err(Refusal::NotAsked));
        assert_eq!(decided(pending(), Decision::Allow, other_person, 50), Err(Refusal::NotAsked));
        assert_eq!(decided(pending(), Decision::Allow, without_permission, 50), Err(Refusal::MayNotApprove));
        assert_eq!(decided(pending(), Decision::Decline, without_permission, 50), Ok(Stage::Declined));
        assert_eq!(decided(pending(), Decision::Allow, decider, 100), Err(Refusal::TooLate));
        for stage in [allowed, Stage::Declined, Stage::Burnt { code: Digest::of("code") }] {
            let answered = Authorization { stage, ..pending() };
            assert_eq!(decided(answered, Decision::Allow, decider, 50), Err(Refusal::AlreadyDecided));
        }
    }
}
