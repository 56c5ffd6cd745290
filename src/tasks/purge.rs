//! Deletes what has run out, once a minute.

use std::sync::Arc;
use std::time::Duration;

use crate::instance::Instance;

const EVERY: Duration = Duration::from_secs(60);

/// Runs until it is dropped; what is being deleted then is still finished.
pub async fn run(instance: Arc<Instance>) {
    loop {
        let purged_at = instance.clock.now();
        match instance.store.purge(purged_at.wall).await {
            Ok(0) => {}
            Ok(rows) => tracing::debug!(rows, "what had run out was deleted"),
            Err(error) => tracing::warn!(%error, "what has run out could not be deleted; again in a minute"),
        }
        // A sleep may end early, and the clock may be moved under it.
        while instance.clock.now().age_of(&purged_at) < EVERY {
            instance.clock.sleep(EVERY).await;
        }
    }
}
