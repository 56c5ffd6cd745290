//! `/grants`: what the one who is signed in allowed, and the button that takes each of it back. Everybody sees and withdraws their own, and
//! nobody else's; it needs no permission, so who may not allow links any more can still take back those that are.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use tracing::field::display;
use url::Url;

use super::authorize::scope_lines;
use super::login;
use crate::audit::{Action, Actor};
use crate::config::Config;
use crate::doors::browser::{self, OwnForm, SignedIn, Visitor, address, see_other, unavailable};
use crate::id::Id;
use crate::inbound::grant::{EndReason, Grant};
use crate::instance::Instance;
use crate::oauth::parameters::Parameters;
use crate::observe::log::AUDIT;
use crate::pages;
use crate::pages::grants::GrantEntry;
use crate::store::grant::{self as rows, ShownGrant, list};
use crate::store::{Fault, StoreError, Transaction, ib_app};

/// Where the page is, below `public_url`.
pub(super) const PATH: &str = "/grants";

/// How many are shown on a page.
const SHOWN: usize = 200;

/// GET /grants, and with `?before=ID` those that are older than that one
pub(super) async fn show(State(instance): State<Arc<Instance>>, request: Request) -> Response {
    let config = instance.config();
    let Ok(visitor) = Visitor::of(&instance, request.headers()).await else { return unavailable(&config) };
    match visitor.signed_in.clone() {
        Some(signed_in) => {
            let query = Parameters::read(request.uri().query().unwrap_or_default().as_bytes()).unwrap_or_default();
            let before = query.the("before").ok().flatten().and_then(|id| id.parse::<Id>().ok());
            page(&instance, &config, visitor, &signed_in, StatusCode::OK, before, None).await
        }
        None => visitor.answered(see_other(&login::url(&config, PATH))),
    }
}

/// What became of the button.
enum Withdrawn {
    /// It ended now.
    Now { app: String, client: String },
    /// It had ended before.
    Before { app: String },
    /// There is none that this person allowed.
    NotTheirs,
}

/// POST /grants
pub(super) async fn withdraw(State(instance): State<Arc<Instance>>, request: Request) -> Response {
    let config = instance.config();
    let OwnForm { parts, form, visitor } = match browser::own_form(&instance, request).await {
        Ok(own) => own,
        Err(refusal) => return refusal,
    };
    let Some(signed_in) = visitor.signed_in.clone() else { return browser::not_our_form(&config) };
    let wanted = form.the("grant").ok().flatten().and_then(|id| id.parse::<Id>().ok());
    let withdrawn = match wanted {
        Some(id) => end(&instance, &signed_in, id).await,
        None => Ok(Withdrawn::NotTheirs),
    };
    let here = &config.instance.name;
    let (status, notice) = match withdrawn {
        Ok(Withdrawn::Now { app, client }) => {
            let (who, address, grant) = (&signed_in.user.login, address(&parts, &config).map(display), wanted.map(display));
            let (event, reason) = (Action::GrantEnded.as_str(), EndReason::RevokedByUser.as_str());
            tracing::info!(target: AUDIT, event, client_id = client, grant, who, address, reason);
            let words = format!(
                "Withdrawn: {app} may not use {here} in your name any more. Its tokens are refused from now on, and what it had open has ended. \
                 It gets in again only when somebody allows it anew."
            );
            (StatusCode::OK, words)
        }
        Ok(Withdrawn::Before { app }) => (StatusCode::OK, format!("What {app} was allowed had ended before. Nothing was changed.")),
        Ok(Withdrawn::NotTheirs) => {
            (StatusCode::NOT_FOUND, "You allowed nothing of that kind, or it ended more than a month ago. Nothing was changed.".to_owned())
        }
        Err(_) => return unavailable(&config),
    };
    page(&instance, &config, visitor, &signed_in, status, None, Some(&notice)).await
}

/// Ends what somebody allowed: durable first, then in the table, so that the next call and every open stream see it.
async fn end(instance: &Instance, signed_in: &SignedIn, id: Id) -> Result<Withdrawn, StoreError> {
    let (user, login) = (signed_in.user.id, signed_in.user.login.clone());
    let judge = move |transaction: &Transaction<'_>| -> Result<Withdrawn, Fault> {
        let Some(ShownGrant { app_name: app, client_id: client, .. }) = rows::of_user_by_id(transaction, user, id)? else {
            return Ok(Withdrawn::NotTheirs);
        };
        transaction.acts_as(Actor::Session { login: login.clone() });
        let now = rows::end(transaction, id, EndReason::RevokedByUser)?;
        Ok(if now { Withdrawn::Now { app, client } } else { Withdrawn::Before { app } })
    };
    let withdrawn = instance.store.write(judge).await?;
    if !matches!(withdrawn, Withdrawn::NotTheirs) {
        // Also when it had ended before: of what ended it, it may have been unknown whether it had been stored.
        instance.tokens.end(id);
    }
    Ok(withdrawn)
}

async fn page(
    instance: &Instance,
    config: &Config,
    visitor: Visitor,
    signed_in: &SignedIn,
    status: StatusCode,
    before: Option<Id>,
    notice: Option<&str>,
) -> Response {
    let (user, now) = (signed_in.user.id, instance.clock.now().wall);
    let look = move |connection: &rusqlite::Connection| {
        let active = list::active_of_person(connection, user, before, now, SHOWN + 1)?;
        let with_peers = active.into_iter().map(|shown| Ok((peers(connection, &shown.grant)?, shown)));
        with_peers.collect::<Result<Vec<_>, Fault>>()
    };
    let Ok(found) = instance.store.read(look).await else { return unavailable(config) };
    let grants: Vec<GrantEntry<'_>> = found.iter().take(SHOWN).map(|(peers, shown)| entry(instance, config, peers, shown)).collect();
    let public_url = &config.instance.public_url;
    let last = grants.last().filter(|_| found.len() > SHOWN);
    let older = last.map(|last| format!("{}?before={}", public_url.join(PATH), last.id));
    let page = pages::grants::Grants {
        instance: &config.instance.name,
        notice,
        grants: &grants,
        is_continued: before.is_some(),
        older: older.as_deref(),
        login: &signed_in.user.login,
        action: &public_url.join(PATH),
        logout: &public_url.join("/logout"),
        token: &visitor.form_token(instance),
    };
    let page = pages::page(status, &page, &[]).into_response();
    visitor.answered(page)
}

fn entry<'a>(instance: &Instance, config: &'a Config, peers: &[String], shown: &'a ShownGrant) -> GrantEntry<'a> {
    let grant = &shown.grant;
    GrantEntry {
        id: grant.id.to_string(),
        app: &shown.app_name,
        client_id: &shown.client_id,
        tenant: &shown.tenant,
        peers: peers.to_vec(),
        scopes: scope_lines(config, &grant.scope),
        since: grant.created_at.to_string(),
        until: grant.expires_at.map(|end| end.to_string()),
        // The table knows of uses that are not written down yet.
        last_used: shown.last_used_at.max(instance.tokens.last_used(grant.id)).map(|at| at.to_string()),
    }
}

/// Where the answers for the grant's app go.
fn peers(connection: &rusqlite::Connection, grant: &Grant) -> Result<Vec<String>, Fault> {
    let app = ib_app::by_id(connection, grant.app)?;
    let uris = app.iter().flat_map(|app| &app.redirect_uris).filter_map(|uri| Url::parse(uri.as_str()).ok());
    let mut origins: Vec<String> = uris.map(|url| url.origin().ascii_serialization()).collect();
    origins.sort();
    origins.dedup();
    Ok(origins)
}
