//! The audit over the admin API: `/audit`, for whoever rules the instance, and for the admins of a tenant what belongs to that.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::{Router, routing};

use super::query::Query;
use super::{AdminError, AdminState, Caller, document};
use crate::audit::Action;
use crate::clock::Timestamp;
use crate::inbound::permission::ADMIN;
use crate::store::audit::list::{self as rows, Wanted};

const KIND: &str = "audit";

/// Rows of an answer, where the request does not say how many.
const LIMIT: usize = 100;

/// Rows of an answer at most.
const MOST: usize = 1_000;

/// What a query may say.
const NAMES: [&str; 9] = ["since", "until", "action", "record", "actor", "tenant", "after", "before", "limit"];

/// `/audit`
pub(super) fn router() -> Router<Arc<AdminState>> {
    Router::new().route("/audit", routing::get(list))
}

/// The rows that fit what the query says, the oldest first: with `after` the first ones behind that row, else the newest.
async fn list(State(state): State<Arc<AdminState>>, caller: Caller, RawQuery(query): RawQuery) -> Result<Response, AdminError> {
    let mut wanted = wanted(query.unwrap_or_default().as_bytes())?;
    wanted.tenants = tenants(&caller, wanted.tenants)?;
    wanted.of_today = caller.ruled_tenants().is_some();
    let told = state.instance.store.read(move |connection| rows::rows(connection, &wanted)).await?;
    Ok(document::shown(told.iter().map(|row| document::record(KIND, row.id, row)).collect::<Vec<_>>()))
}

/// Whose rows are given to `caller`, who asks for those of `asked`.
fn tenants(caller: &Caller, asked: Option<Vec<String>>) -> Result<Option<Vec<String>>, AdminError> {
    match (caller.ruled_tenants(), asked) {
        (None, asked) => Ok(asked),
        (Some(ruled), None) if !ruled.is_empty() => Ok(Some(ruled)),
        (Some(_), None) => Err(AdminError::forbidden("admin of a tenant, or of the instance")),
        (Some(_), Some(asked)) => {
            asked.iter().try_for_each(|tenant| caller.must_hold(tenant, ADMIN))?;
            Ok(Some(asked))
        }
    }
}

/// The rows that a query asks for, whosesoever they are.
///
/// # Errors
/// `bad_attribute` for what is no query, a name that nobody knows or that comes twice, and a value that is none.
pub fn wanted(query: &[u8]) -> Result<Wanted, AdminError> {
    let query = Query::read(query, &NAMES)?;
    let time = |name: &str| query.parsed(name, "a time, as in 2026-12-01T06:00:00Z", time);
    let number = |name: &str| query.parsed(name, "a number", |text| text.parse().ok().filter(|number| *number >= 0));
    Ok(Wanted {
        since: time("since")?,
        until: time("until")?,
        actions: query.the("action").map(actions).transpose()?,
        record: query.the("record").map(str::to_owned),
        actor: query.the("actor").map(str::to_owned),
        tenants: query.the("tenant").map(|tenant| vec![tenant.to_owned()]),
        of_today: false,
        after: number("after")?,
        before: number("before")?,
        limit: query.limit(LIMIT, MOST)?,
    })
}

/// `peer.unlinked`, or `peer` for all that begin so; several with commas. Each is there once, however often it is named.
fn actions(text: &str) -> Result<Vec<Action>, AdminError> {
    let mut found = Vec::new();
    for word in text.split(',') {
        let mut meant = Action::ALL.iter().copied().filter(|action| action.is_meant_by(word)).peekable();
        if meant.peek().is_none() {
            let all: Vec<_> = Action::ALL.iter().map(|action| action.as_str()).collect();
            return Err(AdminError::bad_attribute("action", word, format!("one of {}, or what stands before a dot", all.join(", "))));
        }
        for action in meant {
            if !found.contains(&action) {
                found.push(action);
            }
        }
    }
    Ok(found)
}

fn time(text: &str) -> Option<Timestamp> {
    let time = humantime::parse_rfc3339_weak(text).ok()?;
    let since_epoch = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::default().plus(since_epoch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::permission::Rights;

    fn asked(query: &str) -> Result<Wanted, AdminError> {
        wanted(query.as_bytes())
    }

    #[test]
    fn a_query_is_read_strictly() {
        let wanted = asked("since=2026-11-28T11:00:00Z&action=peer.unlinked,login&after=7&limit=5").expect("a good query");
        assert_eq!((wanted.after, wanted.limit), (Some(7), 5));
        assert_eq!(wanted.actions, Some(vec![Action::PeerUnlinked, Action::LogInSucceeded, Action::LogInFailed]));
        let peers = asked("action=peer").expect("a good query").actions;
        assert_eq!(asked(&format!("action={}peer", "peer,".repeat(1_600))).expect("a good query").actions, peers, "each is asked for once");
        assert_eq!(asked("").map(|wanted| wanted.limit), Ok(LIMIT));
        for wrong in [
            "limit=0",
            "limit=1001",
            "limit=x",
            "after=-1",
            "since=yesterday",
            "action=pear",
            "sinse=x",
            "record=",
            "action=",
            "after=1&after=2",
        ] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn who_rules_a_tenant_reads_what_is_its() {
        let person = |permissions: &[(&str, &str)]| {
            let by_tenant = permissions.iter().map(|(tenant, held)| ((*tenant).to_owned(), [(*held).to_owned()].into())).collect();
            Caller::Person { login: "a@example.com".to_owned(), rights: Rights { by_tenant, ..Rights::default() } }
        };
        let sales = person(&[("sales", ADMIN), ("default", "peers.get")]);
        let only = |tenant: &str| Some(vec![tenant.to_owned()]);
        assert_eq!(tenants(&sales, None), Ok(only("sales")));
        assert_eq!(tenants(&sales, only("sales")), Ok(only("sales")));
        assert!(tenants(&sales, only("default")).is_err() && tenants(&sales, only("other")).is_err());
        assert!(tenants(&person(&[("sales", "peers.get")]), None).is_err());
        assert_eq!(tenants(&Caller::Process { uid: 0 }, None), Ok(None));
        assert_eq!(tenants(&Caller::Process { uid: 0 }, only("sales")), Ok(only("sales")));
    }
}
