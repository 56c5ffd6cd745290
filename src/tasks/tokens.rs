//! What the token endpoint leaves behind: kept answers are overwritten when their window has closed, last uses are written down, and grants
//! that have run out, or whose end was begun, are ended.

use std::sync::Arc;
use std::time::Duration;

use super::endings;
use crate::instance::Instance;
use crate::store::grant::over::{self, Cursor};
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
        // None of them waits for another that fails.
        for (what, done) in [
            ("answers whose window has closed could not be overwritten", forget_answers(&instance).await),
            ("grants whose end was begun could not be ended", endings::go_on(&instance).await),
            ("grants that have run out could not be ended", end_what_ran_out(&instance).await),
            ("when tokens were last used could not be written down", instance.tokens.write_down().await),
        ] {
            if let Err(error) = done {
                tracing::warn!(%error, "{what}; again in ten seconds");
            }
        }
        // A sleep may end early, and the clock may be moved under it.
        while instance.clock.now().age_of(&began_at) < EVERY {
            instance.clock.sleep(EVERY).await;
        }
    }
}

async fn forget_answers(instance: &Instance) -> Result<(), StoreError> {
    let window = instance.config().tokens.retry_window;
    let forget = move || instance.store.write(move |transaction| refresh_token::forget_repeats(transaction, window, BATCH));
    while usize::try_from(BATCH) == Ok(forget().await?) {}
    Ok(())
}

/// Ends grants that have run out, with the streams that were opened by them.
async fn end_what_ran_out(instance: &Instance) -> Result<(), StoreError> {
    let (idle, now) = (instance.config().tokens.refresh_ttl, instance.clock.now());
    if !instance.store.read(move |connection| over::may_end(connection, now)).await? {
        return Ok(());
    }
    let mut next = Some(Cursor::START);
    while let Some(cursor) = next {
        let found;
        (found, next) = instance.store.read(move |connection| over::find(connection, idle, now, cursor)).await?;
        for some in found.chunks(GRANTS) {
            let some = some.to_vec();
            for grant in instance.store.write(move |transaction| over::end(transaction, &some, idle)).await? {
                instance.tokens.end(grant);
            }
        }
    }
    Ok(())
}
