//! What the token endpoint leaves behind: kept answers are overwritten when their window has closed, and last uses are written down.

use std::sync::Arc;
use std::time::Duration;

use crate::instance::Instance;
use crate::store::{StoreError, refresh_token};

const EVERY: Duration = Duration::from_secs(10);

/// Answers overwritten in one go.
const BATCH: u32 = 200;

/// Runs until it is dropped; what is being written then is still finished.
pub async fn run(instance: Arc<Instance>) {
    loop {
        let began_at = instance.clock.now();
        if let Err(error) = tidy(&instance).await {
            tracing::warn!(%error, "answers whose window has closed could not be overwritten; again in ten seconds");
        }
        // A sleep may end early, and the clock may be moved under it.
        while instance.clock.now().age_of(&began_at) < EVERY {
            instance.clock.sleep(EVERY).await;
        }
    }
}

async fn tidy(instance: &Instance) -> Result<(), StoreError> {
    let window = instance.config().tokens.retry_window;
    let forget = move || instance.store.write(move |transaction| refresh_token::forget_repeats(transaction, window, BATCH));
    while usize::try_from(BATCH) == Ok(forget().await?) {}
    instance.tokens.write_down().await
}
