//! The keeper: renews the token of every peer before it runs out, one flight per peer, and gives calls their credentials.

mod link;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

pub use link::{Credential, Link, LinkRefusal, Target};

/// The links to all peers.
#[derive(Debug, Default)]
pub struct Links {
    /// Tenant, then name: found without allocating.
    by_name: ArcSwap<HashMap<String, HashMap<String, Arc<Link>>>>,
}

impl Links {
    /// The link to the peer `name` of `tenant`.
    pub fn find(&self, tenant: &str, name: &str) -> Option<Arc<Link>> {
        self.by_name.load().get(tenant)?.get(name).cloned()
    }

    /// Every link.
    pub fn all(&self) -> Vec<Arc<Link>> {
        self.by_name.load().values().flat_map(HashMap::values).cloned().collect()
    }
}
