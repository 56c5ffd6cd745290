//! Grants over the admin API: what peers hold at us.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::{Router, routing};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::query::Query;
use super::{AdminError, AdminState, Caller, document};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::inbound::grant::EndReason;
use crate::store::grant::list::{self, Wanted};
use crate::store::grant::{self as rows, ShownGrant};
use crate::store::{Fault, Transaction, audit, ib_app, user};

const KIND: &str = "grant";

/// `/tenants/{tenant}/grants`, and one of them.
pub(super) fn router() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/tenants/{tenant}/grants", routing::get(list))
        .route("/tenants/{tenant}/grants/{id}", routing::get(show).delete(revoke))
}

/// Grants of an answer, where the request does not say how many, and at most.
const MOST: usize = 1_000;

/// What a query may say.
const NAMES: [&str; 5] = ["all", "app", "allowed_by", "after", "limit"];

/// What a query asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    /// Also what has ended.
    all: bool,
    /// Of the app with this name or `client_id`.
    app: Option<String>,
    /// Allowed by the person with this login.
    allowed_by: Option<String>,
    /// Behind this grant.
    after: Option<Id>,
    /// So many at most.
    limit: usize,
}

impl Asked {
    fn read(query: &[u8]) -> Result<Self, AdminError> {
        let query = Query::read(query, &NAMES)?;
        let all = |text: &str| match text {
            "false" => Some(false),
            "true" => Some(true),
            _ => None,
        };
        Ok(Self {
            all: query.parsed("all", "true or false", all)?.unwrap_or(false),
            app: query.the("app").map(str::to_owned),
            allowed_by: query.the("allowed_by").map(str::to_owned),
            after: query.parsed("after", "the id of a grant", |id| id.parse().ok())?,
            limit: query.limit(MOST, MOST)?,
        })
    }

    /// What it asks for, found in the store. Names that are nobody's are refused, as a slip of the pen would be. Who does not rule the instance
    /// learns of no login that has nothing to do with the tenant.
    fn find(&self, connection: &Connection, caller: &Caller, tenant: &str, now: Timestamp) -> Result<Result<Wanted, AdminError>, Fault> {
        let mut wanted = Wanted { tenant: tenant.to_owned(), after: self.after, limit: self.limit, ..Wanted::default() };
        wanted.active_at = (!self.all).then_some(now);
        if let Some(app) = &self.app {
            let by_client_id = ib_app::by_client_id(connection, app)?.filter(|found| found.tenant == tenant);
            let mut apps: Vec<Id> = ib_app::by_name(connection, tenant, app)?.into_iter().chain(by_client_id).map(|app| app.id).collect();
            apps.dedup();
            if apps.is_empty() {
                return Ok(Err(AdminError::not_found("ib-app", app)));
            }
            wanted.apps = Some(apps);
        }
        if let Some(login) = &self.allowed_by {
            let Some(person) = user::by_login(connection, login)? else { return Ok(Err(AdminError::not_found("user", login))) };
            let may_know = caller.rules_instance() || person.rights().by_tenant.contains_key(tenant);
            if !may_know && !list::has_allowed(connection, person.id, tenant)? {
                return Ok(Err(AdminError::not_found("user", login)));
            }
            wanted.allowed_by = Some(person.id);
        }
        Ok(Ok(wanted))
    }

    /// The path of what comes behind the grant `last`.
    fn next(&self, tenant: &str, last: Id) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.all.then_some(("all", "true")));
        query.extend_pairs(self.app.as_ref().map(|app| ("app", app)));
        query.extend_pairs(self.allowed_by.as_ref().map(|login| ("allowed_by", login)));
        query.append_pair("limit", &self.limit.to_string()).append_pair("after", &last.to_string());
        format!("/v2/tenants/{}/grants?{}", utf8_percent_encode(tenant, NON_ALPHANUMERIC), query.finish())
    }
}

/// What peers hold now, the oldest first; with `?all=true` also what has ended, with `?app=` and `?allowed_by=` that app's and that person's
/// only. `?limit=` grants at most, from behind the one that `?after=` names; where there are more, `links.next` is where to go on.
async fn list(
    State(state): State<Arc<AdminState>>,
    Path(tenant): Path<String>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, AdminError> {
    let asked = Asked::read(query.unwrap_or_default().as_bytes())?;
    let now = state.instance.clock.now().wall;
    let look = move |connection: &Connection| {
        let wanted = match asked.find(connection, &caller, &tenant, now)? {
            Ok(wanted) => wanted,
            Err(nobody) => return Ok(Err(nobody)),
        };
        // One more tells whether there are more.
        let mut shown = list::page(connection, &Wanted { limit: asked.limit + 1, ..wanted })?;
        let is_cut_short = shown.len() > asked.limit;
        shown.truncate(asked.limit);
        let next = shown.last().filter(|_| is_cut_short).map(|last| asked.next(&tenant, last.grant.id));
        let shown = shown.into_iter().map(|shown| with_who_ended(connection, shown));
        Ok(Ok((shown.collect::<Result<Vec<_>, _>>()?, next)))
    };
    let (grants, next) = state.instance.store.read(look).await??;
    Ok(document::page(grants.iter().map(|(grant, by)| resource(&state, grant, by.as_deref())).collect(), next))
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
        Some(_) => audit::list::who_ended(connection, shown.grant.id)?,
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
        "allowed_by": shown.login.as_deref().unwrap_or(crate::inbound::user::DELETED),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_strictly_and_leads_to_the_next_page() {
        let read = |query: &str| Asked::read(query.as_bytes());
        let asked = read("").expect("nothing need be said");
        assert_eq!(asked, Asked { all: false, app: None, allowed_by: None, after: None, limit: MOST });
        let id = Id::from_bytes([7; 16]);
        let asked = read(&format!("all=true&app=a+b&allowed_by=ops%40one.example&limit=5&after={id}")).expect("a good query");
        let last = Id::from_bytes([9; 16]);
        let next = asked.next("a/b", last);
        let query = next.strip_prefix("/v2/tenants/a%2Fb/grants?").expect("the same list");
        assert_eq!(read(query).expect("a query of ours"), Asked { after: Some(last), ..asked });
        for wrong in ["all=yes", "limit=0", "limit=1001", "limit=x", "after=x", "ap=x", "app=a&app=b", "app=", "allowed_by=", "app=%zz"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
