//! The callers of the relay: in memory for calls, read from the store at the start and after every change.

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::outbound::caller::{Caller, CallerTable};
use crate::store::{Store, StoreError, caller};

/// All callers, as the relay looks them up.
#[derive(Debug, Default)]
pub struct Callers {
    table: CallerTable,
    /// Two who read the store one after the other put what they read into the table in the same order.
    order: Mutex<()>,
}

impl Callers {
    /// The caller whose key this is.
    pub fn find(&self, key: &str) -> Option<Arc<Caller>> {
        self.table.find(key)
    }

    /// Knows nobody, until they are read again.
    pub fn forget(&self) {
        self.table.replace(Vec::new());
    }

    /// Reads them from the store. After a change it is to be awaited before the change is answered: a key that was taken away is refused from
    /// the next call on.
    pub async fn reload(&self, store: &Store) -> Result<(), StoreError> {
        let _in_order = self.order.lock().await;
        self.table.replace(store.read(caller::all).await?);
        Ok(())
    }
}
