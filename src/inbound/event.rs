//! What the audit hears of judgements at the token endpoint and around it.

use super::grant::EndReason;
use crate::audit::{Action, Entry, Outcome, Record};

/// Something that an operator may want to know of later, or at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A code was exchanged and made a grant.
    GrantMade,
    /// Somebody was signed in to a realm by password, which made a grant.
    SignedIn,
    /// Nobody was, for a name or a password that is wrong.
    SignInFailed,
    /// An app presented a code that was issued to another.
    CodeOfAnotherClient,
    /// The right app failed at its own code, which is burnt.
    CodeBurnt {
        /// What was wrong.
        why: &'static str,
    },
    /// A code came again from its own app; the grant it made is ended.
    CodeReplayed,
    /// An app presented a refresh token that was issued to another.
    RefreshTokenOfAnotherClient,
    /// An app presented its refresh token without the key that it is bound to.
    RefreshTokenWithoutItsKey,
    /// A replaced refresh token got its first answer again.
    Repeated {
        /// It came from another address than the first time.
        from_elsewhere: bool,
    },
    /// A replaced refresh token whose successor nobody ever used got another one.
    Reminted {
        /// How often by now.
        times: u32,
    },
    /// A refresh token was presented shortly after it was retired or withdrawn.
    LatePresentation,
    /// A refresh token came back that only a thief could have; the grant is ended.
    RefreshTokenReplayed,
    /// The grant was ended by its app.
    GrantRevoked,
    /// An app asked to revoke another app's token.
    RevocationOfAnotherClient,
}

impl Event {
    /// What it is called, in the audit and in the log.
    pub const fn action(&self) -> Action {
        match self {
            Self::GrantMade => Action::CodeRedeemed,
            Self::SignedIn => Action::SignInSucceeded,
            Self::SignInFailed => Action::SignInFailed,
            Self::CodeOfAnotherClient => Action::CodeOfAnotherClient,
            Self::CodeBurnt { .. } => Action::CodeBurnt,
            Self::CodeReplayed => Action::CodeReplayed,
            Self::RefreshTokenOfAnotherClient => Action::RefreshOfAnotherClient,
            Self::RefreshTokenWithoutItsKey => Action::RefreshWithoutItsKey,
            Self::Repeated { .. } => Action::RefreshRepeated,
            Self::Reminted { .. } => Action::RefreshReminted,
            Self::LatePresentation => Action::RefreshLate,
            Self::RefreshTokenReplayed => Action::RefreshReplayed,
            Self::GrantRevoked => Action::GrantEnded,
            Self::RevocationOfAnotherClient => Action::RevocationOfAnotherClient,
        }
    }

    /// The audit's row; `record` is what it was done to.
    pub fn row(&self, record: Option<Record>) -> Entry {
        Entry::of(self.action()).on_known(record).ended(self.outcome()).maybe("reason", self.reason())
    }

    /// Whether it comes with a change, and its row with that. What changes nothing can be had as often as an app asks: of that the audit
    /// keeps the first, and a count.
    pub const fn comes_with_a_change(&self) -> bool {
        match self {
            Self::GrantMade
            | Self::SignedIn
            | Self::CodeBurnt { .. }
            | Self::CodeReplayed
            | Self::Reminted { .. }
            | Self::RefreshTokenReplayed
            | Self::GrantRevoked => true,
            Self::SignInFailed
            | Self::CodeOfAnotherClient
            | Self::RefreshTokenOfAnotherClient
            | Self::RefreshTokenWithoutItsKey
            | Self::Repeated { .. }
            | Self::LatePresentation
            | Self::RevocationOfAnotherClient => false,
        }
    }

    /// How it ended for the app.
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::GrantMade | Self::SignedIn | Self::Repeated { .. } | Self::Reminted { .. } | Self::GrantRevoked => Outcome::Done,
            Self::SignInFailed
            | Self::CodeOfAnotherClient
            | Self::CodeBurnt { .. }
            | Self::CodeReplayed
            | Self::RefreshTokenOfAnotherClient
            | Self::RefreshTokenWithoutItsKey
            | Self::LatePresentation
            | Self::RefreshTokenReplayed
            | Self::RevocationOfAnotherClient => Outcome::Refused,
        }
    }

    /// What more there is to say of it, in words.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::CodeBurnt { why } => Some((*why).to_owned()),
            Self::Repeated { from_elsewhere: true } => Some("from another address than the first time".to_owned()),
            Self::Reminted { times } => Some(format!("replaced {times} times by now")),
            Self::GrantRevoked => Some(EndReason::RevokedByClient.as_str().to_owned()),
            Self::GrantMade
            | Self::SignedIn
            | Self::SignInFailed
            | Self::CodeOfAnotherClient
            | Self::CodeReplayed
            | Self::RefreshTokenOfAnotherClient
            | Self::RefreshTokenWithoutItsKey
            | Self::Repeated { from_elsewhere: false }
            | Self::LatePresentation
            | Self::RefreshTokenReplayed
            | Self::RevocationOfAnotherClient => None,
        }
    }

    /// Whether somebody should look at it now: a theft, or what one would look like early on.
    pub const fn is_alert(&self) -> bool {
        match self {
            Self::CodeReplayed | Self::RefreshTokenReplayed | Self::Repeated { from_elsewhere: true } => true,
            Self::Reminted { times } => *times == 3,
            Self::GrantMade
            | Self::SignedIn
            | Self::SignInFailed
            | Self::CodeOfAnotherClient
            | Self::CodeBurnt { .. }
            | Self::RefreshTokenOfAnotherClient
            | Self::RefreshTokenWithoutItsKey
            | Self::Repeated { from_elsewhere: false }
            | Self::LatePresentation
            | Self::GrantRevoked
            | Self::RevocationOfAnotherClient => false,
        }
    }
}
