//! One statement after the other on each table.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

type Lock = Arc<tokio::sync::Mutex<()>>;

/// Locks of tables, held by statements from their first read of the table to their commit, or for the commit alone.
///
/// They make nothing right: a commit from elsewhere takes none of them, and the store refuses what it made stale. They
/// keep statements of one catalog from making each other start again.
#[derive(Default)]
pub(crate) struct WriteLocks(Mutex<HashMap<String, Lock>>);

impl WriteLocks {
    /// Waits for a table's turn.
    pub(crate) async fn lock(&self, table: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(locks.entry(table.to_owned()).or_default())
        };
        lock.lock_owned().await
    }
}
