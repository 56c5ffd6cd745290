//! How far the clocks of peers are from ours, as their answers say.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::id::Id;
use crate::observe::metrics::Metrics;

/// The latest difference seen of each peer; the metric shows the largest.
#[derive(Debug)]
pub(super) struct Skews {
    metrics: Arc<Metrics>,
    /// Milliseconds; above 0 the peer's clock is ahead.
    seen: Mutex<HashMap<Id, i64>>,
}

impl Skews {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, seen: Mutex::default() }
    }

    /// A peer's clock was `ahead` milliseconds ahead of ours.
    pub(super) fn note(&self, peer: Id, ahead: i64) {
        let mut seen = self.seen.lock().expect("nothing panics while it is held");
        seen.insert(peer, ahead);
        self.show(&seen);
    }

    /// A peer is gone.
    pub(super) fn forget(&self, peer: Id) {
        let mut seen = self.seen.lock().expect("nothing panics while it is held");
        seen.remove(&peer);
        self.show(&seen);
    }

    fn show(&self, seen: &HashMap<Id, i64>) {
        let largest = seen.values().copied().max_by_key(|ahead| ahead.unsigned_abs()).unwrap_or(0);
        #[expect(clippy::cast_precision_loss, reason = "clocks that differ by more than 285,000 years are wrong either way")]
        self.metrics.clock_skew.set(largest as f64 / 1000.0);
    }
}
