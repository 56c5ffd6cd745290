//! Why a call of the relay is answered here, as its caller is told.

use crate::doors::call::{self, Refusal};
use crate::net::client::SendError;
use crate::net::problem::Code;
use crate::net::proxy::Failure;
use crate::outbound::link::Facts;
use crate::outbound::peer::Auth;
use crate::tasks::keeper::LinkRefusal;

/// The call has to be sent again: what the caller sent is not remembered.
pub(super) fn retry_call() -> Refusal {
    Refusal::new(
        Code::RetryCall,
        "the peer refused the token before it took the call, whose body is too long to be remembered; send the call again",
    )
}

/// Why the link gives no token, and the command that helps.
pub(super) fn refused_link(refusal: LinkRefusal, facts: &Facts) -> Refusal {
    let name = &facts.peer.name;
    match refusal {
        LinkRefusal::NotLinked => {
            // Where nobody has to allow it, a request URL is refused.
            let links = match (&facts.peer.auth, facts.grant().is_self_sufficient()) {
                (Auth::None, _) => String::new(),
                (_, true) => format!(", `p2pid peer refresh {name}` asks for a token"),
                (_, false) => format!(", `p2pid peer request {name}` links it"),
            };
            Refusal::new(Code::NotLinked, format!("the peer is not linked; `p2pid peer show {name}` says why{links}"))
        }
        LinkRefusal::RelinkRequired => Refusal::new(
            Code::RelinkRequired,
            format!("the peer has withdrawn the link; make a new request URL with `p2pid peer request {name}`"),
        ),
        LinkRefusal::Maintenance { retry_after } => {
            let detail = format!("calls to the peer are held back; `p2pid peer maintenance {name} --until off` ends that");
            Refusal::new(Code::PeerMaintenance, detail).after(retry_after)
        }
        LinkRefusal::RefreshFailed { retry_after } => {
            let why = if facts.is_refused { "is not taken by the peer" } else { "has run out" };
            let detail = format!("the peer's token {why}, and could not be renewed yet; it is tried on: `p2pid peer show {name}`");
            Refusal::new(Code::RefreshFailed, detail).after(retry_after)
        }
        LinkRefusal::Overloaded => Refusal::new(Code::Overloaded, "too many calls wait for the peer's token; see limits.queue_per_peer"),
    }
}

/// Why the peer gave no answer.
pub(super) fn failed(failure: Failure) -> Refusal {
    match failure {
        Failure::BodyTooLarge(most) => call::body_too_large(most),
        Failure::BodyStopped => Refusal::new(Code::BadRequest, failure.to_string()),
        Failure::Withdrawn => {
            Refusal::new(Code::NotLinked, "the peer was unlinked or deleted while the call was under way; see `p2pid peer list`")
        }
        Failure::Unreachable(SendError::Full(why)) => Refusal::new(Code::Overloaded, why),
        Failure::Unreachable(SendError::NotProcessed(why)) => Refusal::new(Code::RetryCall, why),
        Failure::Unreachable(_) | Failure::WrongUpgrade | Failure::WrongCoding => Refusal::new(Code::PeerUnreachable, failure.to_string()),
        Failure::Timeout(_) => Refusal::new(Code::PeerTimeout, failure.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::outbound::link::Holding;
    use crate::outbound::link::examples::{facts, held};
    use crate::outbound::ob_app::{Grant, ObApp};
    use crate::outbound::peer::examples as records;

    #[test]
    fn who_is_refused_is_told_the_command_that_helps_this_peer() {
        let by_consent = facts(Holding::Nothing { unlinked: None });
        let itself = Facts { ob_app: Some(ObApp { grant: Grant::ClientCredentials, ..records::app() }), ..by_consent.clone() };
        let run_out = facts(Holding::Tokens(Box::new(held())));
        let not_taken = Facts { is_refused: true, ..run_out.clone() };
        let failed = || LinkRefusal::RefreshFailed { retry_after: Duration::from_secs(1) };
        for (refusal, facts, expected) in [
            (LinkRefusal::NotLinked, &by_consent, "`p2pid peer request instance2` links it"),
            (LinkRefusal::NotLinked, &itself, "`p2pid peer refresh instance2` asks for a token"),
            (LinkRefusal::RelinkRequired, &by_consent, "`p2pid peer request instance2`"),
            (failed(), &run_out, "the peer's token has run out, and could not be renewed yet"),
            (failed(), &not_taken, "the peer's token is not taken by the peer, and could not be renewed yet"),
        ] {
            let said = format!("{:?}", refused_link(refusal, facts));
            assert!(said.contains(expected), "{said}");
        }
    }
}
