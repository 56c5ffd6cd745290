//! `grant_type=password` at `/oauth/token`, where `[compat] password_grant` says so ([`crate::inbound::password_grant`]).
//!
//! The client is authenticated first, in a transaction of its own: nobody but a realm sets the hashing of passwords to work. Then the
//! password is compared, outside; and what that shows is judged over the records as they are by then.

use std::sync::Arc;

use super::client::{Claim, ClientError, ClientRequest, TIME_TO_ARRIVE};
use super::token::{Judged, Revokes, policy};
use crate::audit::{Action, Actor, Entry, Record};
use crate::config::Tokens;
use crate::id::Id;
use crate::inbound::code::Materials;
use crate::inbound::event::Event;
use crate::inbound::grant::Fresh;
use crate::inbound::ib_app::IbApp;
use crate::inbound::password::PasswordHash;
use crate::inbound::password_grant::{self, Named};
use crate::instance::Instance;
use crate::instance::throttle::Attempt;
use crate::oauth::binding::{Binding, Possession};
use crate::oauth::token::{Kind, mint};
use crate::oauth::token_reply::TokenReply;
use crate::oauth::token_request::PasswordRequest;
use crate::secret::{Digest, ExposeSecret};
use crate::store::ib_app::NotAnApp;
use crate::store::{Fault, Transaction, access_token, grant, ib_app, realm, refresh_token, user};

/// A client that may ask, and whom it names.
struct Admitted {
    app: IbApp,
    binding: Option<Binding>,
    named: Named,
}

/// Signs somebody in, or says why not.
pub(super) async fn judge(
    instance: &Arc<Instance>,
    client: &mut ClientRequest,
    claim: Claim,
    request: PasswordRequest,
) -> Result<Judged, ClientError> {
    let config = instance.config();
    let (possession, asked) = (client.possession(), request.clone());
    let admit = move |transaction: &Transaction<'_>, app: &IbApp| admit(transaction, app, &asked, possession).map(Ok);
    let admitted = match client.judged_within(TIME_TO_ARRIVE, claim, admit).await? {
        Ok(admitted) => admitted,
        Err(refused) => return Ok(refused),
    };

    let rate = config.limits.auth_failures;
    let of_user = Attempt::new("user", &request.username, client.from);
    // Apart from the client's own failures: who mistypes a password must not keep it from its refresh tokens.
    let of_client = Attempt::new("sign-in by", &admitted.app.client_id, client.from);
    let trial = instance.failures.begin([of_user, of_client], rate, instance.clock.as_ref()).await;
    let trial = trial.map_err(ClientError::TooManyFailures)?;
    let (hash, clock) = (admitted.named.password().cloned(), Arc::clone(&instance.clock));
    let is_right = instance.passwords.verify(client.from, hash.clone(), request.password.clone(), trial, rate, clock).await?;
    let Some(proven) = hash.filter(|_| is_right) else {
        return Ok(failed(&admitted.app, password_grant::Refusal::Credentials));
    };

    let (now, random) = (instance.clock.now().wall, instance.random.as_ref());
    let signing_in = SigningIn {
        app: admitted.app.id,
        binding: admitted.binding,
        request,
        proven,
        id: Id::new(now, random),
        fresh: Fresh { access: mint(Kind::Access, random), refresh: mint(Kind::Refresh, random) },
        tokens: config.tokens.clone(),
    };
    let signed_in = instance.store.write(move |transaction| signing_in.judge(transaction)).await?;
    signed_in.ok_or(ClientError::NotAnApp(NotAnApp::Unknown))
}

/// What the client may ask, or why it may not, before anybody's password is looked at.
fn admit(
    transaction: &Transaction<'_>,
    app: &IbApp,
    asked: &PasswordRequest,
    possession: Possession,
) -> Result<Result<Admitted, Judged>, Fault> {
    if let Err(refusal) = password_grant::admit(app, asked.scope.as_ref()) {
        return Ok(Err(Judged::refused(app, refusal)));
    }
    let binding = match app.security.binding(possession) {
        Ok(binding) => binding,
        Err(unbound) => return Ok(Err(Judged::refused(app, unbound))),
    };
    Ok(Ok(Admitted { app: app.clone(), binding, named: named(transaction, app, &asked.username)? }))
}

/// Somebody whose password was right a moment ago.
struct SigningIn {
    app: Id,
    binding: Option<Binding>,
    request: PasswordRequest,
    proven: PasswordHash,
    id: Id,
    fresh: Fresh,
    tokens: Tokens,
}

impl SigningIn {
    /// What comes of it; nothing when the app was deleted since it authenticated.
    fn judge(&self, transaction: &Transaction<'_>) -> Result<Option<Judged>, Fault> {
        let Some(app) = ib_app::by_id(transaction, self.app)? else { return Ok(None) };
        let (policy, now) = (policy(&self.tokens, &app), transaction.now().wall);
        let named = named(transaction, &app, &self.request.username)?;
        let materials = Materials { id: self.id, fresh: &self.fresh, binding: self.binding };
        let scope = self.request.scope.as_ref();
        let issue = match password_grant::judge(&app, scope, &named, Some(&self.proven), materials, &policy, now) {
            Ok(issue) => issue,
            Err(refusal) => return Ok(Some(failed(&app, refusal))),
        };
        let id = issue.grant.id;
        let gone = realm::make_room(transaction, &issue.grant)?;
        grant::insert(transaction, &issue.grant, policy.refresh_ttl)?;
        refresh_token::insert(transaction, id, Digest::of(issue.refresh.expose_secret()), issue.access.generation, true)?;
        access_token::insert(transaction, id, &issue.access)?;
        let reply = TokenReply {
            access_token: self.fresh.access.clone(),
            binding: self.binding,
            expires_in: issue.access.expires_at.since(now),
            refresh_token: Some(issue.refresh),
            refresh_token_expires_in: issue.grant.remaining(now),
            scope: issue.access.scope,
            subject: Some(issue.login),
        };
        transaction.acts_as(Actor::Client { client_id: app.client_id.clone() });
        let told = Record::of_tenant("grant", &app.tenant, id, &app.name);
        transaction.record(&Entry::of(Action::SignInSucceeded).on(told).with("login", reply.subject.as_deref().unwrap_or_default()))?;
        let (event, revokes) = (Some(Event::SignedIn), Revokes::Grants(gone));
        Ok(Some(Judged { grant: Some(id), event, revokes, ..Judged::new(&app, Ok(reply)) }))
    }
}

fn named(transaction: &Transaction<'_>, app: &IbApp, username: &str) -> Result<Named, Fault> {
    let person = user::by_login(transaction, username)?;
    let is_member = match &person {
        Some(person) => !realm::authorities(transaction, app.id, person.id)?.is_empty(),
        None => false,
    };
    Ok(Named { person, is_member })
}

/// Nobody was signed in.
fn failed(app: &IbApp, refusal: password_grant::Refusal) -> Judged {
    let event = Event::SignInFailed;
    Judged { unwritten: Some(event.row(Some(app.record()))), event: Some(event), ..Judged::refused(app, refusal) }
}
