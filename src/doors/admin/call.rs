//! One call to a peer, for an operator who wants to see whether a link works: `/tenants/{tenant}/peers/{peer}/call/{path at the peer}`, with
//! any method, headers and body, is forwarded as the relay forwards an application's call.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::{Router, routing};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, StatusCode, Uri};

use super::{AdminError, AdminState};

/// Says that an answer is the call's, from the peer or from the relay, and not one of the admin API's own.
pub const CALLED: HeaderName = HeaderName::from_static("p2pi-called");

/// How many segments stand before the path at the peer: `/tenants/{tenant}/peers/{peer}/call`.
const SEGMENTS_BEFORE: usize = 5;

/// The three forms of the path: a wildcard needs a segment of its own, and one that is not empty.
pub(super) fn router() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/tenants/{tenant}/peers/{peer}/call", routing::any(forward))
        .route("/tenants/{tenant}/peers/{peer}/call/", routing::any(forward))
        .route("/tenants/{tenant}/peers/{peer}/call/{*path}", routing::any(forward))
}

/// The names of the path; what stands behind them is forwarded undecoded.
#[derive(serde::Deserialize)]
struct Names {
    tenant: String,
    peer: String,
}

async fn forward(
    State(state): State<Arc<AdminState>>,
    Path(names): Path<Names>,
    mut request: Request,
) -> Result<Response<Body>, AdminError> {
    *request.uri_mut() =
        behind(request.uri()).ok_or_else(|| AdminError::new(StatusCode::BAD_REQUEST, "bad_path", "there is no such path"))?;
    // The console's log-in and the socket's host are nobody else's business.
    request.headers_mut().remove(http::header::HOST);
    let mut response = state.relay.answer_operator(request, &names.tenant, &names.peer).await;
    response.headers_mut().insert(CALLED, HeaderValue::from_static("1"));
    Ok(response)
}

/// The part of `uri` that is the peer's, as it was sent.
fn behind(uri: &Uri) -> Option<Uri> {
    let mut from_the_slash = uri.path().match_indices('/').map(|(position, _)| &uri.path()[position..]).skip(SEGMENTS_BEFORE);
    let path = from_the_slash.next().unwrap_or("/");
    let target = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    PathAndQuery::try_from(target).ok().map(Uri::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peers_part_is_kept_as_it_was_sent() {
        for (uri, expected) in [
            ("/tenants/default/peers/two/call/orders/7?x=%2f", "/orders/7?x=%2f"),
            ("/tenants/default/peers/two/call//a%2Fb/", "//a%2Fb/"),
            ("/tenants/default/peers/two/call/", "/"),
            ("/tenants/default/peers/two/call", "/"),
            ("/tenants/default/peers/two/call?x", "/?x"),
        ] {
            assert_eq!(behind(&uri.parse().expect("a URI")).expect("a URI").to_string(), expected);
        }
    }
}
