//! Parallel work under a lock.
//!
//! A thread of a rayon pool that waits for parallel work does other tasks of that pool meanwhile. If it holds a lock of
//! the store, and such a task is a user's that wants the same lock, it waits for itself; and if all threads of the pool
//! wait for the lock, nobody does the work. So what is done in parallel under a lock is done in a pool of its own, where
//! there are no tasks of users, and is waited for by a thread that does nothing else.

use std::{cell::Cell, sync::OnceLock};

use rayon::{ThreadPool, ThreadPoolBuilder};

thread_local! {
    /// Whether this is a thread of the pool below.
    static IS_APART: Cell<bool> = const { Cell::new(false) };
}

/// Does work, and what it does in parallel, apart from the tasks of users.
pub(crate) fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    if IS_APART.get() {
        return work();
    }
    let pool = POOL.get_or_init(|| {
        ThreadPoolBuilder::new()
            .thread_name(|_| "darner-store-work".to_owned())
            .start_handler(|_| IS_APART.set(true))
            .build()
            .ok()
    });
    // Without threads to be had the work is still done.
    let Some(pool) = pool else {
        return work();
    };
    // `install` from a thread of another pool would do tasks of that one while it waits.
    let done = std::thread::scope(|scope| scope.spawn(|| pool.install(work)).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
