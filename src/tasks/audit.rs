//! Writes what was tallied into the audit, and deletes rows that have been kept for their time.

use std::sync::Arc;
use std::time::Duration;

use super::purge;
use crate::audit::Action;
use crate::instance::Instance;
use crate::observe::log::AUDIT;
use crate::store::StoreError;
use crate::store::audit::{self, Pruned};

/// How often it is looked whether an hour is over.
const EVERY: Duration = Duration::from_secs(60);

/// Runs until it is dropped.
pub async fn run(instance: Arc<Instance>) {
    loop {
        if let Err(error) = write_tally(&instance, false).await {
            tracing::warn!(%error, "what was refused is not in the audit yet; again in a minute");
        }
        let begun_at = instance.clock.now();
        let rest = || instance.clock.sleep(purge::rest(instance.clock.now().age_of(&begun_at)));
        match instance.store.prune_audit_resting(instance.config().audit.keep, rest).await {
            Ok(Pruned::Rows(0) | Pruned::Doubted(false)) => {}
            Ok(Pruned::Doubted(true)) => tracing::warn!(
                target: AUDIT,
                event = Action::ClockDoubted.as_str(),
                "the wall clock is more than two days from where it was expected; until it is back, or has stayed there for a day, no row \
                 of the audit is deleted for its age"
            ),
            Ok(Pruned::Rows(rows)) => {
                let event = Action::AuditPruned.as_str();
                tracing::info!(event, rows, "rows of the audit that had been kept for their time were deleted");
            }
            Err(error) => tracing::warn!(%error, "the oldest rows of the audit could not be deleted; again in a minute"),
        }
        tokio::select! {
            () = instance.tally.noted() => {}
            () = instance.clock.sleep(EVERY) => {}
        }
    }
}

/// Writes the rows that are due; at a stop (`all`) the counts of hours that are not over too.
pub async fn write_tally(instance: &Instance, all: bool) -> Result<(), StoreError> {
    let due = instance.tally.due(&instance.clock.now(), all);
    if due.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = due.iter().map(|due| (Arc::clone(&due.origin), due.entry.clone())).collect();
    instance.store.write(move |transaction| audit::insert_noted(transaction, &rows)).await?;
    instance.tally.told(&due);
    Ok(())
}
