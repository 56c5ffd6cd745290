//! Each state of a link from its facts, and what it is told with.

use super::examples::{at, facts, held};
use super::*;
use crate::outbound::attempt::TroubleKind;
use crate::outbound::peer::{Maintenance, User, examples as records};

fn state(facts: &Facts, seconds: u64) -> State {
    facts.status(&at(seconds)).state
}

#[test]
fn each_state_comes_from_its_facts() {
    let nothing = || facts(Holding::Nothing { unlinked: None });
    let broken = || facts(Holding::Broken(Broken { since: at(150).wall, why: "gone".to_owned() }));
    let request = Some(OpenRequest { made_at: at(120).wall, expires_at: at(300).wall, opened: false });
    let declined = Some(RequestEnd { at: at(180).wall, what: "declined".to_owned() });
    let trouble = Some((Trouble { kind: TroubleKind::Refused, reason: "no".to_owned() }, at(180).wall));
    let tokens = |held| facts(Holding::Tokens(Box::new(held)));
    let cases = [
        ("never linked", nothing(), State::ReadyToLink),
        ("no app", Facts { peer: Peer { auth: Auth::None, ..records::peer() }, ..nothing() }, State::NoCredentials),
        (
            "basic",
            Facts { peer: Peer { auth: Auth::Basic(User { name: "u".to_owned(), password: "p".into() }), ..records::peer() }, ..nothing() },
            State::Linked,
        ),
        ("request out", Facts { request, ..nothing() }, State::Requested),
        ("request out on a broken link", Facts { request, ..broken() }, State::Requested),
        ("request out on a linked peer", Facts { request, ..tokens(held()) }, State::Linked),
        ("declined", Facts { ended: declined.clone(), ..nothing() }, State::ReadyToLink),
        ("declined after it broke", Facts { ended: declined.clone(), ..broken() }, State::ReadyToLink),
        ("declined on a linked peer", Facts { ended: declined, ..tokens(held()) }, State::Linked),
        ("broken", broken(), State::RelinkRequired),
        ("held", tokens(held()), State::Linked),
        ("in trouble", tokens(Held { trouble, ..held() }), State::Degraded),
        ("no refresh token, still good", tokens(Held { refresh: None, ..held() }), State::Linked),
    ];
    for (name, facts, expected) in cases {
        assert_eq!(state(&facts, 200), expected, "{name}");
        let maintained = Facts {
            peer: Peer { maintenance: Some(Maintenance { since: at(0).wall, until: at(250).wall }), ..facts.peer.clone() },
            ..facts
        };
        assert_eq!(state(&maintained, 200), State::Maintenance, "{name}");
        assert_eq!(state(&maintained, 200), State::Maintenance, "{name}");
        assert_eq!(state(&maintained, 250), expected, "{name}");
    }
    assert_eq!(state(&tokens(Held { refresh: None, ..held() }), 1100), State::RelinkRequired);
}

#[test]
fn an_expired_request_url_says_so() {
    let request = Some(OpenRequest { made_at: at(120).wall, expires_at: at(300).wall, opened: false });
    let status = Facts { request, ..facts(Holding::Nothing { unlinked: None }) }.status(&at(301));
    assert_eq!((status.state, status.since), (State::ReadyToLink, at(300).wall));
    assert!(status.reason.contains("expired") && status.reason.contains("p2pid peer request instance2"), "{}", status.reason);
}

#[test]
fn a_reason_says_what_is_true_now() {
    let trouble = Some((Trouble { kind: TroubleKind::Refused, reason: "the peer refuses it".to_owned() }, at(180).wall));
    let troubled = facts(Holding::Tokens(Box::new(Held { trouble: trouble.clone(), ..held() })));
    let refused = Facts { is_refused: true, ..troubled.clone() };
    for (facts, now, meanwhile) in [
        (&troubled, 200, "; calls go on until 1970-01-01T00:1"),
        (&refused, 200, "; the peer does not take the token that is held, and calls wait for another"),
        (&troubled, 1_200, "; calls wait for it"),
        (&refused, 1_200, "; calls wait for it"),
    ] {
        let reason = facts.status(&at(now)).reason;
        assert!(reason.starts_with(&format!("the peer refuses it{meanwhile}")), "{reason}");
    }
    let request = Some(OpenRequest { made_at: at(120).wall, expires_at: at(300).wall, opened: false });
    let stumbled = Facts { request, trouble, ..facts(Holding::Nothing { unlinked: None }) };
    let reason = stumbled.status(&at(200)).reason;
    assert!(reason.contains("was opened 1970-01-01T00:03:00Z, and the peer refuses it. Once that is mended"), "{reason}");
    let opened = Some(OpenRequest { made_at: at(120).wall, expires_at: at(300).wall, opened: true });
    let reason = Facts { request: opened, ..stumbled }.status(&at(200)).reason;
    assert!(reason.contains("waiting for Allow or Decline"), "{reason}");
}

#[test]
fn the_end_of_a_link_is_said_beforehand() {
    const DAY: u64 = 24 * 3600;
    let ends = Some(at(100 * DAY).wall);
    let trouble = Some((Trouble { kind: TroubleKind::Refused, reason: "no".to_owned() }, at(1).wall));
    for (name, held, now, within) in [
        ("far away", Held { refresh_expires_at: ends, ..held() }, 86 * DAY - 1, None),
        ("two weeks", Held { refresh_expires_at: ends, ..held() }, 86 * DAY, Some(14)),
        ("more than three days", Held { refresh_expires_at: ends, ..held() }, 97 * DAY - 1, Some(14)),
        ("three days", Held { refresh_expires_at: ends, ..held() }, 97 * DAY, Some(3)),
        ("over", Held { refresh_expires_at: ends, ..held() }, 101 * DAY, Some(3)),
        ("in trouble", Held { refresh_expires_at: ends, trouble, ..held() }, 97 * DAY, Some(3)),
        ("no end", held(), 97 * DAY, None),
        ("nothing that ends", Held { refresh_expires_at: ends, refresh: None, ..held() }, 97 * DAY, None),
    ] {
        let facts = facts(Holding::Tokens(Box::new(held)));
        assert_eq!(facts.ending(&at(now)).map(|ending| ending.within_days), within, "{name}");
        let reason = facts.status(&at(now)).reason;
        let is_said = reason.contains("link again before, `p2pid peer request instance2`") && reason.contains("1970-04-11");
        assert_eq!(is_said, within.is_some(), "{name}: {reason}");
        let own = Facts { ob_app: Some(ObApp { grant: Grant::Password, ..records::app() }), ..facts };
        assert_eq!(own.ending(&at(now)), None, "{name}: it asks anew");
    }
}

#[test]
fn who_allowed_it_is_said() {
    assert!(facts(Holding::Tokens(Box::new(held()))).status(&at(200)).reason.contains("ops@two.example.com"));
}

#[test]
fn calls_are_refused_by_what_is_held() {
    let nothing = facts(Holding::Nothing { unlinked: None });
    assert_eq!(nothing.refusal(&at(0)), Some(Standing::NotLinked));
    let broken = facts(Holding::Broken(Broken { since: at(1).wall, why: String::new() }));
    assert_eq!(broken.refusal(&at(2)), Some(Standing::RelinkRequired));
    assert_eq!(facts(Holding::Tokens(Box::new(held()))).refusal(&at(99_999)), None);
}

#[test]
fn an_app_that_needs_nobodys_consent_is_never_broken() {
    let broken = || Holding::Broken(Broken { since: at(1).wall, why: "gone".to_owned() });
    for (grant, is_renewable, refusal, expected) in [
        (Grant::AuthorizationCode, false, Some(Standing::RelinkRequired), State::RelinkRequired),
        (Grant::ClientCredentials, true, None, State::ReadyToLink),
        (Grant::Password, true, None, State::ReadyToLink),
    ] {
        let broken = Facts { ob_app: Some(ObApp { grant, ..records::app() }), ..facts(broken()) };
        assert_eq!((broken.is_renewable(), broken.refusal(&at(2)), state(&broken, 2)), (is_renewable, refusal, expected), "{grant:?}");
        let nothing = Facts { holding: Holding::Nothing { unlinked: None }, ..broken.clone() };
        assert_eq!(nothing.is_renewable(), is_renewable, "{grant:?}");
        let unlinked = Facts { holding: Holding::Nothing { unlinked: Some(at(1).wall) }, ..broken };
        assert!(!unlinked.is_renewable(), "{grant:?}: at an operator's word only");
    }
}
