//! `/oauth/jwks/{ob app}`: the public keys that an OB app signs with, for the servers that it signs for (RFC 7591 `jwks_uri`).

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::LinkDoor;
use crate::doors::{browser, nothing_here};
use crate::id::Id;
use crate::store::{ob_app, outbox};

/// `GET /oauth/jwks/{ob app}`
pub(super) async fn show(State(door): State<Arc<LinkDoor>>, Path(app): Path<String>, request: Request) -> Response {
    let nothing = async |request| nothing_here::not_found(State(Arc::clone(&door.instance)), request).await;
    let Ok(id) = app.parse::<Id>() else { return nothing(request).await };
    let seals = door.instance.store.seals().clone();
    let keys = door.instance.store.read(move |connection| match ob_app::by_id(connection, &seals, id)? {
        Some(app) => Ok(app.keys),
        // What it gave up may still wait to be revoked.
        None => outbox::key_of_app(connection, &seals, id),
    });
    match keys.await {
        Ok(Some(keys)) => {
            let document = keys.published(door.instance.clock.now().wall).to_string();
            ([(CONTENT_TYPE, "application/jwk-set+json"), (CACHE_CONTROL, "max-age=60")], document).into_response()
        }
        Ok(None) => nothing(request).await,
        Err(_) => browser::unavailable(&door.instance.config()),
    }
}
