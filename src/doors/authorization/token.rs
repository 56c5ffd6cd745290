//! `/oauth/token` (RFC 6749 §3.2): codes, refresh tokens and the credentials of an app itself become access tokens.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;

use super::client::ClientRequest;
use super::password_grant as sign_in;
use crate::audit::{Entry, Record};
use crate::config::Tokens;
use crate::id::Id;
use crate::inbound::event::Event;
use crate::inbound::grant::{Fresh, NewAccess, Policy};
use crate::inbound::ib_app::{GrantType, IbApp};
use crate::inbound::realm::may_allow;
use crate::inbound::security::Unbound;
use crate::inbound::{code, consent, password_grant, refresh};
use crate::instance::Instance;
use crate::oauth::binding::{Binding, Possession};
use crate::oauth::error::{Code, WireError};
use crate::oauth::scope::Scope;
use crate::oauth::token::{Kind, mint};
use crate::oauth::token_reply::TokenReply;
use crate::oauth::token_request::{CodeRequest, PasswordRequest, RefreshRequest, TokenRequest};
use crate::observe::point;
use crate::secret::{Digest, ExposeSecret};
use crate::store::{Fault, Seals, Transaction, access_token, app_token, authorization, grant, ib_app, realm, refresh_token, user};

/// The longest that a token request may take from its first byte until it is judged.
const TIME_TO_JUDGE: Duration = Duration::from_secs(10);

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the application may not use this grant type")]
    GrantType,
    #[error(transparent)]
    Code(#[from] code::Refusal),
    #[error("the refresh token is not known")]
    UnknownRefreshToken,
    #[error(transparent)]
    Refresh(#[from] refresh::Refusal),
    #[error("the application is not registered for every scope that it asks for")]
    Scope,
    #[error(transparent)]
    Unbound(#[from] Unbound),
    #[error(transparent)]
    Password(#[from] password_grant::Refusal),
}

impl Refusal {
    fn code(&self) -> Code {
        match self {
            Self::GrantType | Self::Password(password_grant::Refusal::GrantType) => Code::UnauthorizedClient,
            Self::Code(
                code::Refusal::Unknown
                | code::Refusal::Used
                | code::Refusal::Expired
                | code::Refusal::RedirectUri
                | code::Refusal::Verifier
                | code::Refusal::Key
                | code::Refusal::AppChanged
                | code::Refusal::NoLongerAllowed,
            )
            | Self::UnknownRefreshToken
            | Self::Password(password_grant::Refusal::Credentials)
            | Self::Refresh(
                refresh::Refusal::OtherClient
                | refresh::Refusal::OtherHolder
                | refresh::Refusal::GrantEnded
                | refresh::Refusal::Idle
                | refresh::Refusal::Replaced
                | refresh::Refusal::Replayed,
            ) => Code::InvalidGrant,
            Self::Scope | Self::Password(password_grant::Refusal::Scope) | Self::Refresh(refresh::Refusal::Scope) => Code::InvalidScope,
            Self::Refresh(refresh::Refusal::OtherScope | refresh::Refusal::OtherKey) => Code::InvalidRequest,
            Self::Unbound(Unbound::NoKey) => Code::InvalidDpopProof,
            Self::Unbound(Unbound::NoCertificate | Unbound::KeyBesideCertificate) => Code::InvalidRequest,
        }
    }
}

/// What was judged, and what it means for the tokens in use.
pub(super) struct Judged {
    pub(super) client: String,
    pub(super) grant: Option<Id>,
    pub(super) event: Option<Event>,
    /// The event's row, where it was not written with a change.
    pub(super) unwritten: Option<Entry>,
    pub(super) revokes: Revokes,
    pub(super) answer: Result<TokenReply, Refusal>,
}

impl Judged {
    /// What `app` gets, where it comes from no grant, changes none, and nobody needs to hear of it.
    pub(super) fn new(app: &IbApp, answer: Result<TokenReply, Refusal>) -> Self {
        Self { client: app.client_id.clone(), grant: None, event: None, unwritten: None, revokes: Revokes::Nothing, answer }
    }

    /// A refusal that changes nothing.
    pub(super) fn refused(app: &IbApp, refusal: impl Into<Refusal>) -> Self {
        Self::new(app, Err(refusal.into()))
    }

    /// Makes the event's row: it is written here with the change that it comes with, or left to be counted where nothing was changed.
    /// `token` is what was presented.
    fn tells(&mut self, transaction: &Transaction<'_>, record: Option<Record>, token: Digest, is_change: bool) -> Result<(), Fault> {
        let row = self.event.as_ref().map(|event| event.row(record).token(token));
        match row {
            Some(row) if is_change => transaction.record(&row),
            row => {
                self.unwritten = row;
                Ok(())
            }
        }
    }
}

pub(super) enum Revokes {
    Nothing,
    Grant(Id),
    /// Those that made room for a new one.
    Grants(Vec<Id>),
    Before(Id, u32),
}

/// A token request that is to be judged.
struct Asked {
    seals: Seals,
    /// Its key and certificate.
    possession: Possession,
    request: TokenRequest,
    tokens: Tokens,
    fresh: Fresh,
    grant_id: Id,
    from: Option<String>,
}

/// POST /oauth/token
pub(super) async fn exchange(State(instance): State<Arc<Instance>>, request: Request) -> Response {
    let config = instance.config();
    let tokens = config.tokens.clone();
    // What is judged later than this might be answered after its own window has closed.
    let longest = TIME_TO_JUDGE.min(tokens.retry_window / 2);
    let (mut client, read) = ClientRequest::read(&instance, request, longest).await;
    let judged = async {
        let (form, claim) = read?;
        config.audience().check(&form)?;
        if config.compat.password_grant
            && let Some(request) = PasswordRequest::read(&form)?
        {
            return sign_in::judge(&instance, &mut client, claim, request).await;
        }
        let request = TokenRequest::read(&form, &GrantType::served(config.compat.password_grant))?;
        let now = client.arrived.wall;
        let random = instance.random.as_ref();
        let asked = Asked {
            seals: instance.store.seals().clone(),
            possession: client.possession(),
            request,
            tokens,
            fresh: Fresh { access: mint(Kind::Access, random), refresh: mint(Kind::Refresh, random) },
            grant_id: Id::new(now, random),
            from: client.from.map(|address| address.to_string()),
        };
        client.judged_within(longest, claim, move |transaction, app| judge(transaction, app, &asked).map(Ok)).await
    };
    let judged: Judged = match judged.await {
        Ok(judged) => judged,
        Err(error) => return client.refuse(&error).await,
    };
    match judged.revokes {
        Revokes::Nothing => {}
        Revokes::Grant(grant) => instance.tokens.end(grant),
        Revokes::Grants(grants) => grants.into_iter().for_each(|grant| instance.tokens.end(grant)),
        Revokes::Before(grant, generation) => instance.tokens.withdraw_before(grant, generation),
    }
    if let Some(event) = &judged.event {
        client.tell(event, &judged.client, judged.grant, judged.unwritten);
    }
    match judged.answer {
        Ok(reply) => {
            // The pair is durable, and its client does not know it yet.
            point::passed("pair_minted");
            client.answer(reply.to_json())
        }
        Err(refusal) => client.refuse(&WireError::new(refusal.code(), refusal.to_string()).into()).await,
    }
}

fn judge(transaction: &Transaction<'_>, app: &IbApp, asked: &Asked) -> Result<Judged, Fault> {
    let grant_type = match &asked.request {
        TokenRequest::Code(_) => GrantType::AuthorizationCode,
        TokenRequest::Refresh(_) => GrantType::RefreshToken,
        TokenRequest::ClientCredentials(_) => GrantType::ClientCredentials,
    };
    if !app.may_use(grant_type) {
        return Ok(Judged::refused(app, Refusal::GrantType));
    }
    let binding = match app.security.binding(asked.possession) {
        Ok(binding) => binding,
        Err(unbound) => return Ok(Judged::refused(app, unbound)),
    };
    match &asked.request {
        TokenRequest::Code(request) => judge_code(transaction, asked, app, request, binding),
        TokenRequest::Refresh(request) => judge_refresh(transaction, asked, app, request, binding),
        TokenRequest::ClientCredentials(scope) => judge_credentials(transaction, asked, app, scope.as_ref(), binding),
    }
}

/// An app that acts for itself (RFC 6749 §4.4): no grant and no refresh token, since it can ask again at any time.
fn judge_credentials(
    transaction: &Transaction<'_>,
    asked: &Asked,
    app: &IbApp,
    scope: Option<&Scope>,
    binding: Option<Binding>,
) -> Result<Judged, Fault> {
    let scope = scope.unwrap_or(&app.scope);
    if !scope.is_within(&app.scope) {
        return Ok(Judged::refused(app, Refusal::Scope));
    }
    let (policy, now) = (policy(&asked.tokens, app), transaction.now().wall);
    let access = NewAccess::of(&asked.fresh, None, 0, scope.clone(), policy.access_ttl, now).bound_to(binding);
    app_token::insert(transaction, app.id, &access)?;
    let reply = TokenReply {
        access_token: asked.fresh.access.clone(),
        binding,
        expires_in: access.expires_at.since(now),
        refresh_token: None,
        refresh_token_expires_in: None,
        scope: access.scope,
        subject: None,
    };
    Ok(Judged::new(app, Ok(reply)))
}

fn judge_code(
    transaction: &Transaction<'_>,
    asked: &Asked,
    app: &IbApp,
    request: &CodeRequest,
    binding: Option<Binding>,
) -> Result<Judged, Fault> {
    let (policy, now) = (policy(&asked.tokens, app), transaction.now().wall);
    let authorization = authorization::by_code(transaction, &asked.seals, Digest::of(request.code.expose_secret()))?;
    let materials = code::Materials { id: asked.grant_id, fresh: &asked.fresh, binding };
    let may_allow = match &authorization {
        Some(authorization) => still_may_allow(transaction, app, authorization.user)?,
        None => Ok(()),
    };
    let judgement = code::judge(authorization.as_ref(), app, request, may_allow, materials, &policy, now);
    let mut judged = Judged { event: judgement.event, ..Judged::refused(app, code::Refusal::Unknown) };
    let code = Digest::of(request.code.expose_secret());
    match (judgement.changes, authorization) {
        (code::Changes::Issue(issue), Some(authorization)) => {
            if app.is_realm() {
                judged.revokes = Revokes::Grants(realm::make_room(transaction, &issue.grant)?);
            }
            grant::insert(transaction, &issue.grant, policy.refresh_ttl)?;
            authorization::move_to(transaction, authorization.id, &issue.stage)?;
            if let Some(refresh) = &issue.refresh {
                let digest = Digest::of(refresh.expose_secret());
                refresh_token::insert(transaction, issue.grant.id, digest, issue.access.generation, true)?;
            }
            access_token::insert(transaction, issue.grant.id, &issue.access)?;
            judged.grant = Some(issue.grant.id);
            judged.tells(transaction, grant::record(transaction, issue.grant.id)?, code, true)?;
            judged.answer = Ok(TokenReply {
                access_token: asked.fresh.access.clone(),
                binding,
                expires_in: issue.access.expires_at.since(now),
                refresh_token: issue.refresh,
                refresh_token_expires_in: issue.grant.remaining(now),
                scope: issue.access.scope,
                subject: user::by_id(transaction, authorization.user)?.map(|user| user.login),
            });
            return Ok(judged);
        }
        (code::Changes::Move(stage), Some(authorization)) => {
            authorization::move_to(transaction, authorization.id, &stage)?;
            judged.tells(transaction, Some(app.record()), code, true)?;
        }
        (code::Changes::End(id, reason), _) => {
            judged.grant = Some(id);
            // However often it comes again, the grant ends once.
            let has_ended = grant::end(transaction, id, reason)?;
            judged.tells(transaction, grant::record(transaction, id)?, code, has_ended)?;
            judged.revokes = Revokes::Grant(id);
        }
        // Another's code: its row is told to whose it is.
        (code::Changes::Nothing, Some(authorization)) if judged.event.is_some() => {
            let whose = ib_app::by_id(transaction, authorization.app)?;
            judged.tells(transaction, whose.map(|app| app.record()), code, false)?;
        }
        (code::Changes::Nothing | code::Changes::Issue(_) | code::Changes::Move(_), _) => {}
    }
    if let Err(refusal) = judgement.answer {
        judged.answer = Err(refusal.into());
    }
    Ok(judged)
}

/// Whether the person who allowed what `app` asked would still be let.
fn still_may_allow(transaction: &Transaction<'_>, app: &IbApp, person: Id) -> Result<Result<(), consent::Refusal>, Fault> {
    let Some(person) = user::by_id(transaction, person)? else { return Ok(Err(consent::Refusal::MayNotApprove)) };
    let is_member = !realm::authorities(transaction, app.id, person.id)?.is_empty();
    Ok(may_allow(app, &person, is_member))
}

fn judge_refresh(
    transaction: &Transaction<'_>,
    asked: &Asked,
    app: &IbApp,
    request: &RefreshRequest,
    binding: Option<Binding>,
) -> Result<Judged, Fault> {
    let (policy, now) = (policy(&asked.tokens, app), transaction.now());
    let Some((facts, login)) = refresh_token::find(transaction, &asked.seals, &request.token)? else {
        return Ok(Judged::refused(app, Refusal::UnknownRefreshToken));
    };
    let id = facts.grant.id;
    let question = refresh::Request {
        client: app.id,
        token: &request.token,
        scope: request.scope.as_ref(),
        from: asked.from.as_deref(),
        fresh: &asked.fresh,
        binding,
    };
    let judgement = refresh::judge(&facts, &question, &policy, now);
    let presented = refresh_token::Presented { token: &request.token, grant: id, from: asked.from.as_deref() };
    refresh_token::apply(transaction, &asked.seals, presented, &judgement.changes, &asked.fresh.refresh, policy.refresh_ttl)?;
    let revokes = match &judgement.changes {
        // Said again: of what ended the grant it may have been unknown whether it had been stored.
        refresh::Changes::Nothing if matches!(judgement.answer, Err(refresh::Refusal::GrantEnded)) => Revokes::Grant(id),
        refresh::Changes::End(_) => Revokes::Grant(id),
        refresh::Changes::Mint(mint) if mint.ends_earlier_access => Revokes::Before(id, mint.access.generation),
        refresh::Changes::Mint(_) | refresh::Changes::Nothing | refresh::Changes::ReplaceAccess { .. } | refresh::Changes::Renew(_) => {
            Revokes::Nothing
        }
    };
    let answer = judgement.answer.map_err(Refusal::from).map(|answer| TokenReply {
        access_token: answer.access,
        binding: answer.binding,
        expires_in: answer.expires_in,
        refresh_token: Some(answer.refresh),
        refresh_token_expires_in: facts.grant.remaining(now.wall),
        // What was taken from the app since is in none of its tokens, whatever they were issued for.
        scope: answer.scope.intersection(&app.scope),
        subject: login,
    });
    let mut judged = Judged { grant: Some(id), event: judgement.event, revokes, ..Judged::new(app, answer) };
    if let Some(event) = &judged.event {
        let is_change = event.comes_with_a_change();
        judged.tells(transaction, grant::record(transaction, id)?, Digest::of(request.token.expose_secret()), is_change)?;
    }
    Ok(judged)
}

/// The instance's settings with what the app overrides.
pub(super) fn policy(tokens: &Tokens, app: &IbApp) -> Policy {
    Policy {
        access_ttl: app.access_ttl.unwrap_or(tokens.access_ttl),
        refresh_ttl: tokens.refresh_ttl,
        grant_ttl: tokens.grant_ttl,
        rotation: app.security.rotation(app.rotation.unwrap_or(tokens.rotation)),
        retry_window: tokens.retry_window,
        require_par: tokens.require_par,
    }
}
