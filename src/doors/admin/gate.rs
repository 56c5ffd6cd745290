//! What every request of the admin API passes: may the caller do this, is there such a tenant; and behind it the audit of what changed.

use std::fmt;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode};
use percent_encoding::percent_decode_str;

use super::document::Named;
use super::{AdminError, AdminState, Caller};
use crate::audit::{Action, Entry, Origin, Outcome};
use crate::doors::browser;
use crate::id::Id;
use crate::inbound::permission::CALL_PEERS;
use crate::instance::Instance;
use crate::net::problem::REQUEST_ID;
use crate::observe::log::AUDIT;
use crate::store::audit;

/// Kinds of records, as paths name them.
pub(super) const COLLECTIONS: [&str; 15] = [
    "audit",
    "callers",
    "components",
    "grants",
    "ib-apps",
    "keys",
    "oauth-clients",
    "ob-apps",
    "peers",
    "realms",
    "reload",
    "roles",
    "status",
    "tenants",
    "users",
];

/// The name of one request, as its answer carries it and the rows of the audit.
#[derive(Clone, Debug)]
pub(super) struct RequestId(Id);

impl RequestId {
    pub(super) fn new(instance: &Instance) -> Self {
        Self(Id::new(instance.clock.now().wall, instance.random.as_ref()))
    }

    /// The answer with the name. What is called through the API was named by the relay.
    pub(super) fn names(&self, mut response: Response) -> Response {
        let name = || HeaderValue::try_from(self.to_string()).expect("hexadecimal digits are visible ASCII");
        response.headers_mut().entry(REQUEST_ID).or_insert_with(name);
        response
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Lets the request through to its handler, or refuses it.
pub(super) async fn pass(
    State(state): State<Arc<AdminState>>,
    caller: Caller,
    mut request: Request,
    next: Next,
) -> Result<Response, AdminError> {
    let method = request.method().clone();
    let target = Target::of(request.uri().path())?;
    let instance = &state.instance;
    let named = request.extensions_mut().remove::<RequestId>().unwrap_or_else(|| RequestId::new(instance));
    let request_id = named.to_string();
    let from = match &caller {
        // It is named by its user, and is no proxy.
        Caller::Process { .. } => None,
        Caller::Person { .. } => browser::address_of(request.extensions(), request.headers(), &instance.config()),
    };
    let mut origin = Origin::new(caller.actor(), from, Some(request_id.clone()));
    let deny = |origin| {
        let denied = Entry::of(Action::AdminDenied).ended(Outcome::Refused).apart_by(target.kind(&method));
        instance.tally.note(instance.clock.now(), origin, denied.with("request", format!("{method} {}", target.record())));
    };
    if let Err(refusal) = target.permit(&caller, &method) {
        deny(origin);
        return Ok(named.names(refusal.into_response()));
    }
    if let Some(tenant) = target.tenant() {
        super::tenants::must_exist(&state.instance.store, tenant).await?;
    }
    DefaultBodyLimit::max(state.instance.config().limits.form_bytes).apply(&mut request);
    if target.is_change(&method) {
        origin = origin.changing(format!("{method} {}", target.record()));
    }
    let origin = Arc::new(origin);
    let mut response = audit::acting(Arc::clone(&origin), next.run(request)).await;
    // Refused by the handler, which alone knows what was to be given or seen. What a peer answers is no refusal of ours.
    if response.status() == StatusCode::FORBIDDEN && !target.is_call() {
        deny(Origin::new(caller.actor(), from, Some(request_id.clone())));
    }
    response = named.names(response);
    if target.is_change(&method) && response.status().is_success() {
        let made = response.extensions().get::<Named>().map(|named| named.0.as_str());
        let event = origin.told().map(Action::as_str);
        tracing::info!(target: AUDIT, event, who = %caller, %method, record = target.record(), made, request_id, "changed");
    }
    Ok(response)
}

/// Whether `caller` may do `verb` with the records of a collection.
pub(super) fn must_hold(caller: &Caller, tenant: &str, collection: &str, verb: &str) -> Result<(), AdminError> {
    match collection {
        // Two names of one thing.
        "ob-apps" if caller.holds(tenant, &format!("tenants.oauth_clients.{verb}")) => Ok(()),
        "oauth-clients" if caller.holds(tenant, &format!("ob_apps.{verb}")) => Ok(()),
        "oauth-clients" => caller.must_hold(tenant, &format!("tenants.oauth_clients.{verb}")),
        _ => caller.must_hold(tenant, &format!("{}.{verb}", collection.replace('-', "_"))),
    }
}

/// Whether `caller`, who may create, may also change what exists, where a request asks for that (`or_update`).
pub(super) fn must_be_able_to_update(caller: &Caller, tenant: &str, collection: &str, or_update: bool) -> Result<(), AdminError> {
    if or_update { must_hold(caller, tenant, collection, "edit") } else { Ok(()) }
}

/// Whether `caller`, who may change a record of a collection, may do what has them know afterwards by which secret, or by whose key, it logs
/// in here: for having one made, and for giving one, it takes what it takes to be shown it.
pub(super) fn must_be_able_to_know_secret(caller: &Caller, tenant: &str, collection: &str) -> Result<(), AdminError> {
    must_hold(caller, tenant, collection, "read_secret")
}

/// What a path below `/v2` names: its segments, decoded.
struct Target(Vec<String>);

impl Target {
    fn of(path: &str) -> Result<Self, AdminError> {
        // Behind the slash and the version.
        let decoded = path.split('/').skip(2).map(|segment| percent_decode_str(segment).decode_utf8());
        let segments: Result<Vec<_>, _> = decoded.map(|segment| segment.map(|segment| segment.into_owned())).collect();
        let segments = segments.map_err(|_| AdminError::new(StatusCode::BAD_REQUEST, "bad_path", "the path is not UTF-8 text"))?;
        // The router would take an empty name for one, and another record's rules would hold for it. What is behind `call` is the peer's.
        if segments.iter().take("tenants/T/peers/P/call".split('/').count()).any(String::is_empty) {
            return Err(AdminError::new(StatusCode::BAD_REQUEST, "bad_path", "the path has an empty segment")
                .expected("a name between two slashes"));
        }
        Ok(Self(segments))
    }

    fn segments(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }

    /// The tenant whose records are meant.
    fn tenant(&self) -> Option<&str> {
        match self.segments().as_slice() {
            ["tenants", tenant, _, ..] => Some(tenant),
            _ => None,
        }
    }

    /// Whether `caller` may do `method` here.
    fn permit(&self, caller: &Caller, method: &Method) -> Result<(), AdminError> {
        match self.segments().as_slice() {
            // Who is let in at all may see how the instance does.
            ["status"] => Ok(()),
            // Of which tenants there is something to read is for the handler to say.
            ["audit"] if matches!(*method, Method::GET | Method::HEAD) => Ok(()),
            ["tenants", tenant, "peers", _, "call", ..] => caller.must_hold(tenant, CALL_PEERS),
            ["tenants", tenant, collection, rest @ ..] => {
                let verb = match *method {
                    Method::GET | Method::HEAD => "get",
                    Method::POST if rest.is_empty() => "create",
                    Method::DELETE => "delete",
                    _ => "edit",
                };
                must_hold(caller, tenant, collection, verb)
            }
            _ => caller.must_rule_instance(),
        }
    }

    /// Whether it is a call through a link.
    fn is_call(&self) -> bool {
        matches!(self.segments().as_slice(), ["tenants", _, "peers", _, "call", ..])
    }

    /// What kind of records is meant, and whether to look at or to change: one of few, whatever somebody writes into a path.
    fn kind(&self, method: &Method) -> String {
        let segments = self.segments();
        let named = match segments.as_slice() {
            ["tenants", _, collection, ..] | [collection, ..] => *collection,
            [] => "",
        };
        let collection = COLLECTIONS.iter().find(|collection| **collection == named).unwrap_or(&"other");
        format!("{} {collection}", if self.is_change(method) { "change" } else { "look at" })
    }

    /// Whether something is another afterwards. A call through a link is for the relay's log, and a look at a peer for nobody's.
    fn is_change(&self, method: &Method) -> bool {
        let only_looks = matches!(self.segments().as_slice(), ["tenants", _, "peers", _, "call" | "probe", ..]);
        !only_looks && !matches!(*method, Method::GET | Method::HEAD)
    }

    /// As the audit names it.
    fn record(&self) -> String {
        self.0.join("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::permission::Rights;

    fn person(permission: &str) -> Caller {
        let by_tenant = [("sales".to_owned(), [permission.to_owned()].into())].into();
        Caller::Person { login: "a@example.com".into(), rights: Rights { by_tenant, ..Rights::default() } }
    }

    #[test]
    fn each_verb_needs_its_permission() {
        for (method, path, permission) in [
            (Method::GET, "/v2/tenants/sales/ib-apps", "ib_apps.get"),
            (Method::POST, "/v2/tenants/sales/ib-apps", "ib_apps.create"),
            (Method::POST, "/v2/tenants/sales/ib-apps/one/other-action", "ib_apps.edit"),
            (Method::GET, "/v2/tenants/sales/ob-apps", "ob_apps.get"),
            (Method::GET, "/v2/tenants/sales/ob-apps", "tenants.oauth_clients.get"),
            (Method::DELETE, "/v2/tenants/sales/oauth-clients/7", "tenants.oauth_clients.delete"),
            (Method::PATCH, "/v2/tenants/s%61les/peers/two", "peers.edit"),
            (Method::DELETE, "/v2/tenants/sales/peers/two", "peers.delete"),
            (Method::GET, "/v2/tenants/sales/peers/two/call/orders", "peers.call"),
        ] {
            let target = Target::of(path).expect("a path");
            assert_eq!(target.permit(&person(permission), &method), Ok(()), "{path}");
            assert!(target.permit(&person("peers.other"), &method).is_err(), "{path}");
        }
    }

    #[test]
    fn no_name_in_a_path_is_empty() {
        for path in ["/v2/tenants//peers", "/v2/tenants/sales/peers/", "/v2//tenants/sales/peers", "/v2/tenants/sales//two"] {
            assert!(Target::of(path).is_err(), "{path}");
        }
        for path in ["/v2/tenants/sales/peers/two/call/", "/v2/tenants/sales/peers/two/call/a//b"] {
            assert!(Target::of(path).is_ok(), "the peer's own path: {path}");
        }
    }

    #[test]
    fn the_instance_is_for_its_admins() {
        for path in ["/v2/users", "/v2/tenants", "/v2/tenants/sales", "/v2/reload", "/v2/keys", "/v2"] {
            let target = Target::of(path).expect("a path");
            assert!(target.permit(&person("admin"), &Method::GET).is_err(), "{path}");
            assert_eq!(target.permit(&Caller::Process { uid: 0 }, &Method::GET), Ok(()), "{path}");
        }
    }

    #[test]
    fn calls_are_no_changes() {
        let call = Target::of("/v2/tenants/default/peers/two/call/x").expect("a path");
        assert!(!call.is_change(&Method::POST));
        assert!(Target::of("/v2/tenants/default/peers/two").expect("a path").is_change(&Method::PATCH));
    }
}
