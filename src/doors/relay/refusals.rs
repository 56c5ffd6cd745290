//! Why a call of the relay is answered here, as its caller is told.

use crate::doors::call::{self, Refusal};
use crate::net::client::SendError;
use crate::net::problem::Code;
use crate::net::proxy::Failure;
use crate::tasks::keeper::LinkRefusal;

/// The call has to be sent again: what the caller sent is not remembered.
pub(super) fn retry_call() -> Refusal {
    Refusal::new(
        Code::RetryCall,
        "the peer refused the token before it took the call, whose body is too long to be remembered; send the call again",
    )
}

/// Why the link gives no token.
pub(super) fn refused_link(refusal: LinkRefusal) -> Refusal {
    match refusal {
        LinkRefusal::NotLinked => {
            Refusal::new(Code::NotLinked, "the peer is not linked; `p2pid peer show` says why, `p2pid peer request` links it")
        }
        LinkRefusal::RelinkRequired => {
            Refusal::new(Code::RelinkRequired, "the peer has withdrawn the link; make a new request URL with `p2pid peer request`")
        }
        LinkRefusal::Maintenance { retry_after } => {
            Refusal::new(Code::PeerMaintenance, "calls to the peer are held back (`p2pid peer maintenance`)").after(retry_after)
        }
        LinkRefusal::RefreshFailed { retry_after } => {
            Refusal::new(Code::RefreshFailed, "the peer's token has run out and could not be renewed yet; it is tried on")
                .after(retry_after)
        }
        LinkRefusal::Overloaded => Refusal::new(Code::Overloaded, "too many calls wait for the peer's token; see limits.queue_per_peer"),
    }
}

/// Why the peer gave no answer.
pub(super) fn failed(failure: Failure) -> Refusal {
    match failure {
        Failure::BodyTooLarge(most) => call::body_too_large(most),
        Failure::BodyStopped => Refusal::new(Code::BadRequest, failure.to_string()),
        Failure::Withdrawn => refused_link(LinkRefusal::NotLinked),
        Failure::Unreachable(SendError::Full(why)) => Refusal::new(Code::Overloaded, why),
        Failure::Unreachable(SendError::NotProcessed(why)) => Refusal::new(Code::RetryCall, why),
        Failure::Unreachable(_) | Failure::WrongUpgrade | Failure::WrongCoding => Refusal::new(Code::PeerUnreachable, failure.to_string()),
        Failure::Timeout(_) => Refusal::new(Code::PeerTimeout, failure.to_string()),
    }
}
