//! Refresh with retry-safe rotation: a link is never lost to a lost answer, and never has two live branches.
//!
//! A grant has one `current` refresh token and, once that is a successor, the `previous` one that it replaced. Each mint opens a window
//! of `retry_window`; nothing else opens or moves one. What a presented token gets is the first that fits:
//!
//! 1. `current`: a successor pair is minted; it becomes `previous`, and what was `previous` is retired.
//! 2. `previous`, window open: the first answer again.
//! 3. `previous`, window closed, nothing of the successor pair ever presented: the answer was lost for good. That pair is withdrawn and
//!    another minted, as often as it happens.
//! 4. `retired` or `withdrawn` for less than the window: an honest straggler. Refused, nothing else.
//! 5. Anything else that was ever ours can only come from a thief: the grant is ended.
//!
//! `strict` refuses every second use (within two seconds as the loser of a race, later as theft); `none` keeps the token as it is.

mod worth;

use std::time::Duration;

pub use worth::{Worth, Worthless};

use super::event::Event;
use super::grant::{EndReason, Fresh, Grant, NewAccess, Policy, is_in_its_time};
use crate::clock::{Moment, Timestamp};
use crate::id::Id;
use crate::oauth::binding::Binding;
use crate::oauth::rotation::Rotation;
use crate::oauth::scope::Scope;
use crate::secret::SecretString;

/// Where a refresh token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The one to present next.
    Current,
    /// Presented, and replaced by the current one.
    Previous,
    /// Replaced for good: its successor was presented, or no retry is answered (`strict`).
    Retired,
    /// Minted, never used, and replaced by another successor of the same predecessor.
    Withdrawn,
}

/// A refresh token of a grant, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Counts the refresh tokens of the grant.
    pub generation: u32,
    /// Where it stands.
    pub state: State,
    /// Since when it stands there; of the current one, when it was minted: when the window was opened.
    pub since: Moment,
    /// How often its successor was withdrawn and replaced.
    pub remints: u32,
    /// The address that presented it first.
    pub presented_from: Option<String>,
}

/// The grant's current refresh token, as far as its predecessor is judged by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// Counts the refresh tokens of the grant.
    pub generation: u32,
    /// When it was minted, which opened the window, or under `none` last kept; its idle life counts from then.
    pub since: Moment,
    /// Whether it or an access token that came with it was ever presented.
    pub is_used: bool,
}

/// The answer that a replaced refresh token got first; kept sealed under that token itself.
#[derive(Clone, Debug)]
pub struct Repeat {
    /// The successor.
    pub refresh: SecretString,
    /// The access token that came with it.
    pub access: SecretString,
    /// What was asked and allowed.
    pub scope: Scope,
    /// When the access token was issued.
    pub issued_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// What it is bound to.
    pub binding: Option<Binding>,
}

/// What is known of a refresh token that was ours at some time.
#[derive(Debug)]
pub struct Facts {
    /// Its grant.
    pub grant: Grant,
    /// The token itself.
    pub presented: Token,
    /// The grant's current refresh token, which may be the same.
    pub current: Current,
    /// Of a `previous` token whose window was open a moment ago: its first answer.
    pub repeat: Option<Repeat>,
}

/// What is asked.
#[derive(Debug)]
pub struct Request<'a> {
    /// The IB app that authenticated.
    pub client: Id,
    /// The refresh token that is presented.
    pub token: &'a SecretString,
    /// A narrower scope; none asks for the whole.
    pub scope: Option<&'a Scope>,
    /// The address that asks, where it is known.
    pub from: Option<&'a str>,
    /// Tokens to issue, should any be.
    pub fresh: &'a Fresh,
    /// What they are to be bound to: the key or certificate that the request shows.
    pub binding: Option<Binding>,
}

/// What follows.
#[derive(Debug)]
pub struct Judgement {
    /// What to write; also of a refusal.
    pub changes: Changes,
    /// What to answer.
    pub answer: Result<Answer, Refusal>,
    /// What the audit hears.
    pub event: Option<Event>,
}

/// Tokens to hand out.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The refresh token.
    pub refresh: SecretString,
    /// The access token.
    pub access: SecretString,
    /// What it allows.
    pub scope: Scope,
    /// What is left of its life.
    pub expires_in: Duration,
    /// What it is bound to.
    pub binding: Option<Binding>,
}

/// Why there are no tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `invalid_grant`: the token was issued to another client.
    #[error("the refresh token is not known")]
    OtherClient,
    /// `invalid_grant`: the grant is bound to a key, which the request does not show (RFC 9449 §5).
    #[error("the refresh token is bound to another key")]
    OtherHolder,
    /// `invalid_grant`: the grant was ended or has run out.
    #[error("the grant has ended; link again")]
    GrantEnded,
    /// `invalid_grant`: nobody renewed it for too long.
    #[error("the refresh token has expired; link again")]
    Idle,
    /// `invalid_grant`: the token was replaced, not long ago.
    #[error("the refresh token was replaced by a newer one")]
    Replaced,
    /// `invalid_grant`: the token was replaced long ago; the grant is ended.
    #[error("the refresh token was used before; the grant is revoked")]
    Replayed,
    /// `invalid_scope`: more than was allowed.
    #[error("the scope is more than what was allowed")]
    Scope,
    /// `invalid_request`: a retry asks for something else than the first request.
    #[error("a repeated request must ask for the same scope as the first")]
    OtherScope,
    /// `invalid_request`: a retry shows another key than the first request.
    #[error("a repeated request must show the same key as the first")]
    OtherKey,
}

/// What a judgement writes.
#[derive(Debug)]
pub enum Changes {
    /// Nothing.
    Nothing,
    /// Rules 1 and 3, and `strict`: a successor pair.
    Mint(Mint),
    /// Rule 2 with an access token that is about to run out: a new one under the same refresh token.
    ReplaceAccess {
        /// The new access token.
        access: NewAccess,
        /// The answer from now on.
        repeat: Repeat,
    },
    /// `none`: a new access token under the same refresh token, whose idle life begins anew. Its predecessor, should it have one from before
    /// `none`, is retired as by rule 1, so that no window of it is moved.
    Renew(NewAccess),
    /// The grant ends.
    End(EndReason),
}

/// A new successor pair.
#[derive(Debug)]
pub struct Mint {
    /// What becomes of the token that was presented.
    pub presented_becomes: State,
    /// What becomes of the successor or predecessor that there was: the former `previous` is retired by rule 1, the former `current` is
    /// withdrawn by rule 3.
    pub replaces: Replaces,
    /// Access tokens of earlier generations stop working (`strict`).
    pub ends_earlier_access: bool,
    /// The pair's access token; its generation is the new refresh token's.
    pub access: NewAccess,
    /// The answer, for a retry; none where retries are refused.
    pub repeat: Option<Repeat>,
    /// How often the presented token's successor was replaced by now.
    pub remints: u32,
}

/// Which token a mint moves aside, besides the one that was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaces {
    /// The former `previous` is retired.
    Previous,
    /// The former `current`, never used, is withdrawn with its access tokens.
    Current,
}

/// Judges a refresh at `now`.
pub fn judge(facts: &Facts, request: &Request<'_>, policy: &Policy, now: Moment) -> Judgement {
    if facts.grant.app != request.client {
        return refused(Changes::Nothing, Refusal::OtherClient, Some(Event::RefreshTokenOfAnotherClient));
    }
    if facts.grant.binding.is_some() && facts.grant.binding != request.binding {
        return refused(Changes::Nothing, Refusal::OtherHolder, Some(Event::RefreshTokenWithoutItsKey));
    }
    match facts.worth(policy, now) {
        Ok(Worth::Successor { presented_becomes }) => mint(facts, request, policy, now, presented_becomes),
        Ok(Worth::FirstAnswer(repeat)) => answer_again(facts, request, repeat, policy, now),
        Ok(Worth::Access) => keep(facts, request, policy, now),
        Err(worthless) => {
            let changes = worthless.ends_the_grant().map_or(Changes::Nothing, Changes::End);
            refused(changes, worthless.refusal(), worthless.event())
        }
    }
}

/// What a new access token is to allow: what is asked, or the whole (RFC 6749 §6); nothing when that is more than was allowed.
fn new_scope(facts: &Facts, request: &Request<'_>) -> Option<Scope> {
    let scope = request.scope.unwrap_or(&facts.grant.scope);
    scope.is_within(&facts.grant.scope).then(|| scope.clone())
}

/// Rules 1 and 3: a new pair. The successor keeps the grant's whole scope; only the access token is narrowed (RFC 6749 §6).
fn mint(facts: &Facts, request: &Request<'_>, policy: &Policy, now: Moment, presented_becomes: State) -> Judgement {
    let Some(scope) = new_scope(facts, request) else { return refused(Changes::Nothing, Refusal::Scope, None) };
    let is_remint = facts.presented.state != State::Current;
    let access = new_access(facts, request, policy, now, facts.current.generation + 1, scope);
    let answer = Answer {
        refresh: request.fresh.refresh.clone(),
        access: request.fresh.access.clone(),
        scope: access.scope.clone(),
        expires_in: access.expires_at.since(now.wall),
        binding: access.binding,
    };
    let repeat = (presented_becomes == State::Previous).then(|| Repeat {
        refresh: request.fresh.refresh.clone(),
        access: request.fresh.access.clone(),
        scope: access.scope.clone(),
        issued_at: access.issued_at,
        expires_at: access.expires_at,
        binding: access.binding,
    });
    let remints = facts.presented.remints + u32::from(is_remint);
    let changes = Changes::Mint(Mint {
        presented_becomes,
        replaces: if is_remint { Replaces::Current } else { Replaces::Previous },
        ends_earlier_access: policy.rotation == Rotation::Strict,
        access,
        repeat,
        remints,
    });
    Judgement { changes, answer: Ok(answer), event: is_remint.then_some(Event::Reminted { times: remints }) }
}

/// Rule 2: the same answer, whether or not it was used. Only an access token that is about to run out is replaced.
fn answer_again(facts: &Facts, request: &Request<'_>, repeat: &Repeat, policy: &Policy, now: Moment) -> Judgement {
    if request.scope.unwrap_or(&facts.grant.scope) != &repeat.scope {
        return refused(Changes::Nothing, Refusal::OtherScope, None);
    }
    if request.binding != repeat.binding {
        return refused(Changes::Nothing, Refusal::OtherKey, None);
    }
    let from_elsewhere = matches!((request.from, &facts.presented.presented_from), (Some(now), Some(first)) if now != first);
    let event = Some(Event::Repeated { from_elsewhere });
    let life = repeat.expires_at.since(repeat.issued_at);
    // A wall clock that was set back must not make a token live longer than it was issued for.
    let remaining = repeat.expires_at.since(now.wall).min(life);
    let answer = |access: &SecretString, expires_in| Answer {
        refresh: repeat.refresh.clone(),
        access: access.clone(),
        scope: repeat.scope.clone(),
        expires_in,
        binding: repeat.binding,
    };
    // Nor is a token of use that seems to come from the future since then.
    let is_good = is_in_its_time(repeat.issued_at, repeat.expires_at, now.wall);
    if is_good && remaining >= life / 2 {
        return Judgement { changes: Changes::Nothing, answer: Ok(answer(&repeat.access, remaining)), event };
    }
    let access = new_access(facts, request, policy, now, facts.current.generation, repeat.scope.clone());
    let answer = answer(&request.fresh.access, access.expires_at.since(now.wall));
    let repeat =
        Repeat { access: request.fresh.access.clone(), issued_at: access.issued_at, expires_at: access.expires_at, ..repeat.clone() };
    Judgement { changes: Changes::ReplaceAccess { access, repeat }, answer: Ok(answer), event }
}

/// `none`: the same refresh token stays (FAPI 2.0 §5.3.2.1).
fn keep(facts: &Facts, request: &Request<'_>, policy: &Policy, now: Moment) -> Judgement {
    let Some(scope) = new_scope(facts, request) else { return refused(Changes::Nothing, Refusal::Scope, None) };
    let access = new_access(facts, request, policy, now, facts.presented.generation, scope);
    let answer = Answer {
        refresh: request.token.clone(),
        access: request.fresh.access.clone(),
        scope: access.scope.clone(),
        expires_in: access.expires_at.since(now.wall),
        binding: access.binding,
    };
    Judgement { changes: Changes::Renew(access), answer: Ok(answer), event: None }
}

fn new_access(facts: &Facts, request: &Request<'_>, policy: &Policy, now: Moment, generation: u32, scope: Scope) -> NewAccess {
    NewAccess::of(request.fresh, facts.grant.expires_at, generation, scope, policy.access_ttl, now.wall).bound_to(request.binding)
}

fn refused(changes: Changes, refusal: Refusal, event: Option<Event>) -> Judgement {
    Judgement { changes, answer: Err(refusal), event }
}

#[cfg(test)]
mod tests;
