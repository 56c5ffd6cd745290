//! Grants over the admin API: what peers hold at us.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::{Router, routing};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::{AdminError, AdminState, Caller, document};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::inbound::grant::EndReason;
use crate::store::grant::{self as rows, ShownGrant};
use crate::store::{Fault, Transaction, audit, ib_app, user};

const KIND: &str = "grant";

/// `/tenants/{tenant}/grants`, and one of them.
pub(super) fn router() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/tenants/{tenant}/grants", routing::get(list))
        .route("/tenants/{tenant}/grants/{id}", routing::get(show).delete(revoke))
}

/// Which grants are listed.
#[derive(Debug, Default)]
struct Wanted {
    /// Also what has ended.
    all: bool,
    /// Of the app with this name or `client_id`.
    app: Option<String>,
    /// Allowed by the person with this login.
    allowed_by: Option<String>,
}

impl Wanted {
    fn read(query: &str) -> Result<Self, AdminError> {
        let mut wanted = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match (name.as_ref(), value.as_ref()) {
                ("all", "true") => wanted.all = true,
                ("app", app) => wanted.app = Some(app.to_owned()),
                ("allowed_by", login) => wanted.allowed_by = Some(login.to_owned()),
                _ => return Err(AdminError::bad_attribute("the query", query, "all=true, app=NAME, allowed_by=LOGIN, or none")),
            }
        }
        Ok(wanted)
    }

    fn includes(&self, shown: &ShownGrant, now: Timestamp) -> bool {
        (self.all || shown.grant.is_active(now))
            && self.app.as_ref().is_none_or(|app| is_of(shown, app))
            && self.allowed_by.as_ref().is_none_or(|login| is_by(shown, login))
    }

    /// Refuses names that are nobody's, as a slip of the pen would be. Who does not rule the instance learns of no login that has nothing to do with
    /// the tenant.
    fn check(&self, connection: &Connection, caller: &Caller, tenant: &str, grants: &[ShownGrant]) -> Result<Option<AdminError>, Fault> {
        if let Some(app) = self.app.as_ref().filter(|app| !grants.iter().any(|shown| is_of(shown, app))) {
            let by_client_id = ib_app::by_client_id(connection, app)?.filter(|found| found.tenant == tenant);
            if by_client_id.is_none() && ib_app::by_name(connection, tenant, app)?.is_none() {
                return Ok(Some(AdminError::not_found("ib-app", app)));
            }
        }
        if let Some(login) = self.allowed_by.as_ref().filter(|login| !grants.iter().any(|shown| is_by(shown, login))) {
            let found = user::by_login(connection, login)?;
            if !found.is_some_and(|user| caller.rules_instance() || user.rights().by_tenant.contains_key(tenant)) {
                return Ok(Some(AdminError::not_found("user", login)));
            }
        }
        Ok(None)
    }
}

fn is_of(shown: &ShownGrant, app: &str) -> bool {
    app == shown.app_name || app == shown.client_id
}

fn is_by(shown: &ShownGrant, login: &str) -> bool {
    shown.login.as_deref() == Some(login)
}

/// What peers hold now; with `?all=true` also what has ended, with `?app=` and `?allowed_by=` that app's and that person's only.
async fn list(
    State(state): State<Arc<AdminState>>,
    Path(tenant): Path<String>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, AdminError> {
    let wanted = Wanted::read(query.as_deref().unwrap_or_default())?;
    let now = state.instance.clock.now().wall;
    let look = move |connection: &Connection| {
        let grants = rows::of_tenant(connection, &tenant)?;
        if let Some(nobody) = wanted.check(connection, &caller, &tenant, &grants)? {
            return Ok(Err(nobody));
        }
        let shown = grants.into_iter().filter(|shown| wanted.includes(shown, now));
        Ok(Ok(shown.map(|shown| with_who_ended(connection, shown)).collect::<Result<Vec<_>, _>>()?))
    };
    let grants = state.instance.store.read(look).await??;
    Ok(document::shown(grants.iter().map(|(grant, by)| resource(&state, grant, by.as_deref())).collect::<Vec<_>>()))
}

async fn show(State(state): State<Arc<AdminState>>, Path((tenant, id)): Path<(String, String)>) -> Result<Response, AdminError> {
    let wanted = identity(&id)?;
    let find =
        move |connection: &Connection| rows::by_id(connection, &tenant, wanted)?.map(|shown| with_who_ended(connection, shown)).transpose();
    let (grant, by) = state.instance.store.read(find).await?.ok_or_else(|| AdminError::not_found(KIND, &id))?;
    Ok(document::shown(resource(&state, &grant, by.as_deref())))
}

/// A grant, and by whom it was ended, as the audit calls them.
fn with_who_ended(connection: &Connection, shown: ShownGrant) -> Result<(ShownGrant, Option<String>), Fault> {
    let by = match shown.grant.ended {
        Some(_) => audit::who_ended(connection, shown.grant.id)?,
        None => None,
    };
    Ok((shown, by))
}

/// Ends a grant: durable first, then in the table, so that the next call and every open stream see it.
async fn revoke(State(state): State<Arc<AdminState>>, Path((tenant, id)): Path<(String, String)>) -> Result<Response, AdminError> {
    let wanted = identity(&id)?;
    let judge = move |transaction: &Transaction<'_>| {
        let is_there = rows::by_id(transaction, &tenant, wanted)?.is_some();
        if is_there {
            rows::end(transaction, wanted, EndReason::RevokedByAdmin)?;
        }
        Ok(is_there)
    };
    if !state.instance.store.write(judge).await? {
        return Err(AdminError::not_found(KIND, &id));
    }
    state.instance.tokens.end(wanted);
    Ok(document::done())
}

fn identity(id: &str) -> Result<Id, AdminError> {
    id.parse().map_err(|_| AdminError::not_found(KIND, id))
}

/// As `grant show` prints it.
fn resource(state: &AdminState, shown: &ShownGrant, ended_by: Option<&str>) -> Value {
    let grant = &shown.grant;
    // The table knows of uses that are not written down yet.
    let last_used_at: Option<Timestamp> = shown.last_used_at.max(state.instance.tokens.last_used(grant.id));
    let attributes = json!({
        "id": grant.id,
        "tenant": shown.tenant,
        "app": shown.app_name,
        "client_id": shown.client_id,
        "scope": grant.scope.to_string(),
        "allowed_by": shown.login.as_deref().unwrap_or("(deleted)"),
        "made_by": grant.made_by.as_str(),
        "created_at": grant.created_at,
        "expires_at": grant.expires_at,
        "last_used_at": last_used_at,
        "ended_at": grant.ended.map(|ended| ended.at),
        "ended_why": grant.ended.map(|ended| ended.reason.as_str()),
        "ended_by": ended_by,
    });
    document::record(KIND, grant.id, attributes)
}
