//! An access token that holds, ready for the gateway: who calls, as the application is told, and what open streams rest on.

use std::sync::Arc;

use crate::inbound::permit::Bearer;
use crate::net::headers::Identity;
use crate::net::life::Life;

/// An access token that was found good. Kept in memory by its digest, so that a call formats nothing and asks no database.
#[derive(Debug)]
pub struct LiveToken {
    /// Who calls, and what it allows until when.
    pub bearer: Bearer,
    /// The headers that tell the application.
    pub identity: Identity,
    /// That of its grant, or of its IB app: calls under way end with it.
    pub life: Arc<Life>,
}

impl LiveToken {
    /// The token of `bearer`, which rests on `life`.
    pub fn new(bearer: Bearer, life: Arc<Life>) -> Self {
        Self { identity: Identity::new(&bearer), bearer, life }
    }
}
