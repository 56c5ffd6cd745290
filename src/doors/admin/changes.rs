//! One change of a tenant's peers and OB apps at a time.
//!
//! A change reads a record, decides, and writes the whole of it back: of two at once the later would undo the earlier. What is asked of the
//! network to decide it takes seconds, so that comes first, without the lock; what was asked is compared again with it ([`ATTEMPTS`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use http::StatusCode;
use tokio::sync::OwnedMutexGuard;

use super::AdminError;

/// How often a change asks the network before it gives up, because each time somebody else changed meanwhile what it had asked about.
pub(super) const ATTEMPTS: usize = 3;

/// The locks, one of each tenant.
#[derive(Debug, Default)]
pub struct Changes(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Changes {
    /// Waits until nobody else changes peers and OB apps of `tenant`, and keeps others off until the guard is dropped. Nobody asks the
    /// network while holding it.
    pub(super) async fn alone(&self, tenant: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock().expect("nothing panics while it is held");
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(tenant.to_owned()).or_default())
        };
        lock.lock_owned().await
    }
}

/// 409 `changed_meanwhile`: others change `what` all the time.
pub(super) fn changed_meanwhile(what: &str) -> AdminError {
    let message = format!("{what} was changed by somebody else each time that its server had been asked");
    AdminError::new(StatusCode::CONFLICT, "changed_meanwhile", message).next("see what it is now, and try again")
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[tokio::test]
    async fn a_tenants_changes_wait_for_each_other_alone() {
        let changes = Changes::default();
        let first = changes.alone("sales").await;
        drop(changes.alone("default").await);
        let mut second = pin!(changes.alone("sales"));
        let mut context = Context::from_waker(Waker::noop());
        assert!(second.as_mut().poll(&mut context).is_pending());
        drop(first);
        assert!(second.as_mut().poll(&mut context).is_ready());
    }
}
