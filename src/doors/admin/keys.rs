//! State keys over the admin API: which there are, what hangs on them, a new one.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::{Router, routing};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::document::{self, Document};
use super::{AdminError, AdminState};
use crate::store::KeyError;

const KIND: &str = "key";

/// `/keys`, and what can be done with all of them.
pub(super) fn router() -> Router<Arc<AdminState>> {
    Router::new().route("/keys", routing::get(list).post(add)).route("/keys/rotate", routing::post(rotate))
}

#[derive(Deserialize)]
struct Nothing {}

async fn list(State(state): State<Arc<AdminState>>) -> Result<Response, AdminError> {
    let keys = state.instance.store.keys().await?;
    let records = keys.iter().map(|key| document::record(KIND, key.id, key));
    Ok(document::shown(records.collect::<Vec<Value>>()))
}

async fn add(State(state): State<Arc<AdminState>>, document: Document) -> Result<Response, AdminError> {
    let Nothing {} = document.attributes(KIND)?;
    let id = state.instance.store.add_key().await.map_err(refusal)?;
    Ok(document::created(document::record(KIND, id, json!({ "id": id }))))
}

async fn rotate(State(state): State<Arc<AdminState>>, document: Document) -> Result<Response, AdminError> {
    let Nothing {} = document.attributes(KIND)?;
    let rotation = state.instance.store.rotate_keys().await.map_err(refusal)?;
    Ok(document::shown(document::record(KIND, "rotation", rotation)))
}

fn refusal(error: KeyError) -> AdminError {
    if let KeyError::Store(error) = error {
        return error.into();
    }
    let why = error.explain();
    AdminError::new(StatusCode::CONFLICT, why.code, why.message).found(why.found).expected(why.expected).next(why.next)
}
