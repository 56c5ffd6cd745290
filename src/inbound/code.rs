//! The exchange of a code (RFC 6749 §4.1.3, RFC 7636 §4.6): once, by the app that it was issued to, with the verifier behind its challenge.
//!
//! A wrong attempt of the right app burns the code. Another app's attempt burns nothing: who finds a code somewhere must not be able to
//! spoil it. A code that comes a second time from its own app ends the grant that it made: one of the two was not the app.

use super::consent::{self, Authorization, Stage};
use super::event::Event;
use super::grant::{EndReason, Fresh, Grant, MadeBy, NewAccess, Policy};
use super::ib_app::{GrantType, IbApp};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::oauth::binding::Binding;
use crate::oauth::token_request::CodeRequest;
use crate::secret::{ExposeSecret, SecretString};

/// Why a code is not exchanged; all are `invalid_grant`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It was never ours, or is another app's: the two look the same from outside.
    #[error("the code is not known")]
    Unknown,
    /// It was used before.
    #[error("the code was used before")]
    Used,
    /// Its time is over.
    #[error("the code has expired")]
    Expired,
    /// It is not for this redirect URI.
    #[error("the redirect_uri is not the one of the authorization request")]
    RedirectUri,
    /// The verifier is missing, malformed, or another one.
    #[error("the code_verifier does not belong to the code_challenge of the authorization request")]
    Verifier,
    /// The key that the authorization request named is not shown (RFC 9449 §10).
    #[error("the DPoP key is not the dpop_jkt of the authorization request")]
    Key,
    /// The app may not ask by now for what was allowed.
    #[error("the application was changed after it asked, and may not ask this any more")]
    AppChanged,
    /// Who allowed it may not any more.
    #[error("whoever allowed this may not any more")]
    NoLongerAllowed,
}

/// What follows from a code that is presented.
#[derive(Debug)]
pub struct Judgement {
    /// What to write; also of a refusal.
    pub changes: Changes,
    /// Whether there are tokens.
    pub answer: Result<(), Refusal>,
    /// What the audit hears.
    pub event: Option<Event>,
}

/// What a judgement writes.
#[derive(Debug)]
pub enum Changes {
    /// Nothing.
    Nothing,
    /// The authorization moves on to this stage.
    Move(Stage),
    /// The code becomes a grant with its first pair of tokens.
    Issue(Box<Issue>),
    /// The grant that the code made ends.
    End(Id, EndReason),
}

/// A new grant.
#[derive(Debug)]
pub struct Issue {
    /// The authorization's last stage.
    pub stage: Stage,
    /// The grant.
    pub grant: Grant,
    /// Its first access token.
    pub access: NewAccess,
    /// Its first refresh token, where the app may use one.
    pub refresh: Option<SecretString>,
}

/// What a new grant is made of.
#[derive(Clone, Copy, Debug)]
pub struct Materials<'a> {
    /// The grant's identity.
    pub id: Id,
    /// The tokens.
    pub fresh: &'a Fresh,
    /// What they are to be bound to: the key or certificate that the request shows.
    pub binding: Option<Binding>,
}

/// Judges a code that `app`, which has authenticated, presents. `authorization` is the one that the code belongs to, and `may_allow` whether
/// whoever allowed it still may.
pub fn judge(
    authorization: Option<&Authorization>,
    app: &IbApp,
    request: &CodeRequest,
    may_allow: Result<(), consent::Refusal>,
    materials: Materials<'_>,
    policy: &Policy,
    now: Timestamp,
) -> Judgement {
    let refused = |changes, refusal, event| Judgement { changes, answer: Err(refusal), event };
    let Some(authorization) = authorization else { return refused(Changes::Nothing, Refusal::Unknown, None) };
    if authorization.app != app.id {
        return refused(Changes::Nothing, Refusal::Unknown, Some(Event::CodeOfAnotherClient));
    }
    let (code, until) = match authorization.stage {
        Stage::Allowed { code, until } => (code, until),
        Stage::Exchanged { grant, .. } => {
            return refused(Changes::End(grant, EndReason::CodeReplayed), Refusal::Used, Some(Event::CodeReplayed));
        }
        // Without a code there is nothing that could have been presented.
        Stage::Burnt { .. } | Stage::Pending { .. } | Stage::Declined => return refused(Changes::Nothing, Refusal::Used, None),
    };
    let burnt = |refusal, why| refused(Changes::Move(Stage::Burnt { code }), refusal, Some(Event::CodeBurnt { why }));
    if now >= until {
        return burnt(Refusal::Expired, "it came too late");
    }
    if authorization.outdated(app, policy.require_par).is_some() {
        return burnt(Refusal::AppChanged, "the app was changed after it asked");
    }
    if may_allow.is_err() {
        return burnt(Refusal::NoLongerAllowed, "whoever allowed it may not any more");
    }
    let asked = &authorization.request;
    let is_redirect_uri_right = match &request.redirect_uri {
        Some(uri) => *uri == asked.destination.redirect_uri,
        // What PKCE binds needs no redirect URI (OAuth 2.1 §4.1.3); what it does not repeats the one that was named (RFC 6749 §4.1.3).
        None => asked.challenge.is_some() || !asked.destination.is_named,
    };
    if !is_redirect_uri_right {
        return burnt(Refusal::RedirectUri, "it came with another redirect_uri");
    }
    let is_verifier_right = match (&asked.challenge, &request.verifier) {
        (Some(challenge), Some(verifier)) => challenge.is_met_by(verifier.expose_secret()),
        (None, None) => true,
        // Each without the other is a downgrade (RFC 9700 §4.8.2).
        (Some(_), None) | (None, Some(_)) => false,
    };
    if !is_verifier_right {
        return burnt(Refusal::Verifier, "it came with another code_verifier");
    }
    if asked.dpop_key.is_some_and(|key| materials.binding != Some(Binding::Key(key))) {
        return burnt(Refusal::Key, "it came with another DPoP key");
    }
    let issue = issue(authorization, app, code, materials, policy, now);
    Judgement { changes: Changes::Issue(Box::new(issue)), answer: Ok(()), event: Some(Event::GrantMade) }
}

fn issue(
    authorization: &Authorization,
    app: &IbApp,
    code: crate::secret::Digest,
    materials: Materials<'_>,
    policy: &Policy,
    now: Timestamp,
) -> Issue {
    let Materials { id, fresh, binding } = materials;
    let scope = authorization.request.scope.clone();
    let expires_at = policy.grant_ttl.map(|life| now.plus(life));
    let grant = Grant {
        id,
        app: app.id,
        user: Some(authorization.user),
        scope: scope.clone(),
        created_at: now,
        expires_at,
        ended: None,
        // An app that authenticates is bound by that already (RFC 9449 §5).
        binding: binding.filter(|_| !app.security.is_confidential()),
        made_by: MadeBy::Consent,
    };
    Issue {
        stage: Stage::Exchanged { code, grant: id },
        access: NewAccess::of(fresh, expires_at, 1, scope, policy.access_ttl, now).bound_to(binding),
        refresh: app.may_use(GrantType::RefreshToken).then(|| fresh.refresh.clone()),
        grant,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::inbound::authorize::{Destination, Request};
    use crate::inbound::security::Security;
    use crate::oauth::pkce::Challenge;
    use crate::oauth::redirect_uri::RedirectUri;
    use crate::oauth::rotation::Rotation;
    use crate::oauth::thumbprint::{CertificateThumbprint, KeyThumbprint};
    use crate::secret::Digest;

    const CALLBACK: &str = "https://one.example/oauth/callback";
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn app(number: u8) -> IbApp {
        IbApp {
            id: Id::from_bytes([number; 16]),
            tenant: "default".into(),
            name: "one".into(),
            client_id: "client".into(),
            redirect_uris: vec![RedirectUri::register(CALLBACK).expect("registrable")],
            grants: GrantType::OF_A_LINK.into(),
            scope: "a b".parse().expect("a scope"),
            access_ttl: None,
            rotation: None,
            native: false,
            security: crate::inbound::security::Security::default(),
            created_at: at(0),
        }
    }

    fn in_stage(stage: Stage) -> Authorization {
        let destination = Destination { redirect_uri: CALLBACK.into(), state: None, is_named: true };
        Authorization {
            id: Id::from_bytes([5; 16]),
            app: app(1).id,
            user: Id::from_bytes([3; 16]),
            session: Digest::of("session"),
            request: Request {
                destination,
                scope: "a".parse().expect("a scope"),
                challenge: Some(Challenge::of(VERIFIER)),
                dpop_key: None,
            },
            pushed: None,
            stage,
        }
    }

    fn allowed() -> Authorization {
        in_stage(Stage::Allowed { code: Digest::of("code"), until: at(60) })
    }

    fn request(redirect_uri: Option<&str>, verifier: Option<&str>) -> CodeRequest {
        CodeRequest {
            code: SecretString::from("code"),
            redirect_uri: redirect_uri.map(str::to_owned),
            verifier: verifier.map(SecretString::from),
        }
    }

    fn judged(authorization: Option<&Authorization>, app: &IbApp, request: &CodeRequest, now: i64) -> Judgement {
        shown(authorization, app, request, None, now)
    }

    fn shown(authorization: Option<&Authorization>, app: &IbApp, request: &CodeRequest, binding: Option<Binding>, now: i64) -> Judgement {
        let fresh = Fresh { access: SecretString::from("access"), refresh: SecretString::from("refresh") };
        let policy = Policy {
            access_ttl: Duration::from_secs(3_600),
            refresh_ttl: Duration::from_secs(9_000),
            grant_ttl: Some(Duration::from_secs(1_000)),
            rotation: Rotation::RetrySafe,
            retry_window: Duration::from_secs(60),
            require_par: false,
        };
        let materials = Materials { id: Id::from_bytes([7; 16]), fresh: &fresh, binding };
        judge(authorization, app, request, Ok(()), materials, &policy, at(now))
    }

    #[test]
    fn t5_t6_without_a_challenge_there_is_no_verifier_and_the_redirect_uri_that_was_named_is_repeated() {
        let without = |is_named| {
            let mut authorization = allowed();
            authorization.request.challenge = None;
            authorization.request.destination.is_named = is_named;
            authorization
        };
        let app = IbApp { security: Security { pkce_optional: true, ..Security::default() }, ..app(1) };
        for (is_named, redirect_uri, verifier, expected) in [
            (true, Some(CALLBACK), None, Ok(())),
            (true, None, None, Err(Refusal::RedirectUri)),
            (false, None, None, Ok(())),
            (false, Some(CALLBACK), None, Ok(())),
            (false, Some("https://other.example/"), None, Err(Refusal::RedirectUri)),
            (true, Some(CALLBACK), Some(VERIFIER), Err(Refusal::Verifier)),
        ] {
            let judgement = judged(Some(&without(is_named)), &app, &request(redirect_uri, verifier), 1);
            assert_eq!(judgement.answer, expected, "{is_named} {redirect_uri:?} {verifier:?}");
        }
    }

    #[test]
    fn g6_a_code_is_bound_to_the_key_that_the_request_named_and_a_public_apps_grant_to_the_one_it_showed() {
        let (key, other) = (KeyThumbprint::of_canonical("key"), KeyThumbprint::of_canonical("other"));
        let mut named = allowed();
        named.request.dpop_key = Some(key);
        let request = request(None, Some(VERIFIER));
        for wrong in [None, Some(Binding::Key(other)), Some(Binding::Certificate(CertificateThumbprint::of_der(b"key")))] {
            let judgement = shown(Some(&named), &app(1), &request, wrong, 1);
            assert_eq!(judgement.answer, Err(Refusal::Key), "{wrong:?}");
            assert!(matches!(judgement.changes, Changes::Move(Stage::Burnt { .. })));
        }
        let security = Security { method: crate::oauth::client_auth::Method::None, ..Security::default() };
        for (app, of_grant) in [(app(1), None), (IbApp { security, ..app(1) }, Some(Binding::Key(key)))] {
            let judgement = shown(Some(&named), &app, &request, Some(Binding::Key(key)), 1);
            let Changes::Issue(issue) = judgement.changes else { panic!("{:?}", judgement.changes) };
            assert_eq!((issue.access.binding, issue.grant.binding), (Some(Binding::Key(key)), of_grant));
        }
    }

    #[test]
    fn a14_a_good_code_makes_a_grant_within_what_was_allowed() {
        for redirect_uri in [None, Some(CALLBACK)] {
            let judgement = judged(Some(&allowed()), &app(1), &request(redirect_uri, Some(VERIFIER)), 59);
            assert_eq!((judgement.answer, judgement.event), (Ok(()), Some(Event::GrantMade)));
            let Changes::Issue(issue) = judgement.changes else { panic!("{:?}", judgement.changes) };
            assert_eq!(issue.stage, Stage::Exchanged { code: Digest::of("code"), grant: issue.grant.id });
            assert_eq!((issue.grant.scope.to_string(), issue.grant.user), ("a".to_owned(), Some(allowed().user)));
            assert_eq!((issue.access.expires_at, issue.grant.expires_at), (at(1_059), Some(at(1_059))));
            assert!(issue.refresh.is_some());
        }
        let without_refresh = IbApp { grants: [GrantType::AuthorizationCode].into(), ..app(1) };
        let judgement = judged(Some(&allowed()), &without_refresh, &request(None, Some(VERIFIER)), 1);
        assert!(matches!(judgement.changes, Changes::Issue(issue) if issue.refresh.is_none()));
    }

    #[test]
    fn t5_t6_a_wrong_attempt_of_the_right_app_burns_the_code() {
        let other = "https://one.example/oauth/callback/";
        for (request, now, expected) in [
            (request(None, None), 1, Refusal::Verifier),
            (request(None, Some("short")), 1, Refusal::Verifier),
            (request(None, Some(&VERIFIER.replace('d', "e"))), 1, Refusal::Verifier),
            (request(Some(other), Some(VERIFIER)), 1, Refusal::RedirectUri),
            (request(None, Some(VERIFIER)), 60, Refusal::Expired),
        ] {
            let judgement = judged(Some(&allowed()), &app(1), &request, now);
            assert_eq!(judgement.answer, Err(expected));
            assert!(matches!(judgement.changes, Changes::Move(Stage::Burnt { .. })), "{:?}", judgement.changes);
        }
        let burnt = in_stage(Stage::Burnt { code: Digest::of("code") });
        assert_eq!(judged(Some(&burnt), &app(1), &request(None, Some(VERIFIER)), 1).answer, Err(Refusal::Used));
    }

    #[test]
    fn t5_another_apps_attempt_burns_nothing_and_is_audited() {
        for authorization in [allowed(), in_stage(Stage::Exchanged { code: Digest::of("code"), grant: Id::from_bytes([8; 16]) })] {
            let judgement = judged(Some(&authorization), &app(2), &request(None, Some(VERIFIER)), 1);
            assert!(matches!(judgement.changes, Changes::Nothing));
            assert_eq!((judgement.answer, judgement.event), (Err(Refusal::Unknown), Some(Event::CodeOfAnotherClient)));
        }
        assert_eq!(judged(None, &app(1), &request(None, Some(VERIFIER)), 1).answer, Err(Refusal::Unknown));
    }

    #[test]
    fn t4_a_code_that_comes_again_from_its_app_ends_the_grant() {
        let grant = Id::from_bytes([8; 16]);
        let exchanged = in_stage(Stage::Exchanged { code: Digest::of("code"), grant });
        let judgement = judged(Some(&exchanged), &app(1), &request(None, None), 1_000);
        assert!(matches!(judgement.changes, Changes::End(ended, EndReason::CodeReplayed) if ended == grant));
        assert_eq!((judgement.answer, judgement.event), (Err(Refusal::Used), Some(Event::CodeReplayed)));
    }
}
