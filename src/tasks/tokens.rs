//! What the token endpoint leaves behind: kept answers are overwritten when their window has closed, last uses are written down, and grants
//! that have run out are ended.

use std::sync::Arc;
use std::time::Duration;

use crate::instance::Instance;
use crate::store::grant::over;
use crate::store::{StoreError, refresh_token};

const EVERY: Duration = Duration::from_secs(10);

/// Answers overwritten in one go.
const BATCH: u32 = 200;

/// Grants ended in one go.
const GRANTS: usize = 50;

/// Runs until it is dropped; what is being written then is still finished.
pub async fn run(instance: Arc<Instance>) {
    loop {
        let began_at = instance.clock.now();
        if let Err(error) = tidy(&instance).await {
            tracing::warn!(%error, "what the token endpoint left behind could not be put in order; again in ten seconds");
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
    end_what_ran_out(instance).await?;
    instance.tokens.write_down().await
}

/// Ends grants that have run out, with the streams that were opened by them.
async fn end_what_ran_out(instance: &Instance) -> Result<(), StoreError> {
    let (idle, now) = (instance.config().tokens.refresh_ttl, instance.clock.now());
    let found = instance.store.read(move |connection| over::find(connection, idle, now)).await?;
    for some in found.chunks(GRANTS) {
        let some = some.to_vec();
        for grant in instance.store.write(move |transaction| over::end(transaction, &some, idle)).await? {
            instance.tokens.end(grant);
        }
    }
    Ok(())
}
