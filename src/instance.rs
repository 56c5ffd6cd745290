//! One running instance: what every door and every task is handed.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::clock::{Clock, Moment};
use crate::config::Config;
use crate::random::Random;
use crate::store::Store;

/// The parts of an instance that everything shares.
#[derive(Debug)]
pub struct Instance {
    /// The configuration in force, swapped as a whole.
    pub config: ArcSwap<Config>,
    /// The database.
    pub store: Store,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for secrets.
    pub random: Arc<dyn Random>,
    /// When the daemon was started.
    pub started_at: Moment,
}

impl Instance {
    /// The configuration in force now. Whoever needs two settings takes them from one snapshot.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }
}
