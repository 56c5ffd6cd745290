//! One running instance: what every door and every task is handed.

pub mod callers;
pub mod key_sets;
pub mod passwords;
pub mod proofs;
pub mod remotes;
pub mod tally;
pub mod throttle;
mod turns;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::task::TaskTracker;

use crate::clock::{Clock, Moment};
use crate::config::Config;
use crate::net::outgoing::Outgoing;
use crate::observe::metrics::Metrics;
use crate::random::Random;
use crate::store::Store;
use crate::store::token_table::TokenTable;

use callers::Callers;
use key_sets::KeySets;
use passwords::Passwords;
use proofs::Proofs;
use remotes::Remotes;
use tally::Tally;
use throttle::Throttle;

/// The parts of an instance that everything shares.
#[derive(Debug)]
pub struct Instance {
    /// The configuration in force, swapped as a whole.
    pub config: ArcSwap<Config>,
    /// The database.
    pub store: Store,
    /// The access tokens in use.
    pub tokens: Arc<TokenTable>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for secrets.
    pub random: Arc<dyn Random>,
    /// Hashing of passwords, a few at a time.
    pub passwords: Passwords,
    /// Failed authentications of late.
    pub failures: Throttle,
    /// Requests of clients with right credentials of late.
    pub requests: Throttle,
    /// Refusals of late, for the audit.
    pub tally: Tally,
    /// Public keys of clients, from their URLs.
    pub key_sets: KeySets,
    /// DPoP proofs that were used of late, and the nonces that date them.
    pub proofs: Proofs,
    /// What is known of the servers that we sign for.
    pub remotes: Remotes,
    /// Local applications that may use the relay.
    pub callers: Callers,
    /// Connections that go out.
    pub outgoing: Arc<Outgoing>,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// Requests at our own endpoints, which are served to their end.
    pub under_way: TaskTracker,
    /// Held by whoever ends many grants step by step, so that each does its own.
    pub endings: tokio::sync::Mutex<()>,
    /// When the daemon was started.
    pub started_at: Moment,
}

impl Instance {
    /// An instance that starts now.
    pub fn new(config: Arc<Config>, store: Store, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        let started_at = clock.now();
        let outgoing = Arc::new(Outgoing::new(&config.limits));
        let tokens = Arc::new(TokenTable::new(store.clone(), Arc::clone(&clock)));
        Self {
            config: ArcSwap::new(config),
            metrics: Arc::new(Metrics::new().of_store(store.clone()).of_outgoing(Arc::clone(&outgoing))),
            outgoing,
            store,
            tokens,
            clock,
            passwords: Passwords::new(),
            failures: Throttle::new(),
            requests: Throttle::new(),
            tally: Tally::default(),
            key_sets: KeySets::default(),
            proofs: Proofs::new(random.as_ref(), started_at),
            random,
            remotes: Remotes::default(),
            callers: Callers::default(),
            under_way: TaskTracker::new(),
            endings: tokio::sync::Mutex::default(),
            started_at,
        }
    }

    /// The configuration in force now. Whoever needs two settings takes them from one snapshot.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }
}
