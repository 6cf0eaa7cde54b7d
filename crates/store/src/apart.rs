//! Parallel work while a lock of the store is held.
//!
//! A thread of a rayon pool that waits for parallel work does other tasks of that pool meanwhile. If it holds a lock of
//! the store, and such a task is a user's that wants the same lock, it waits for itself; and if all threads of the pool
//! wait for the lock, nobody does the work. So what is done in parallel under a lock is done in a pool of its own, and
//! is waited for by a thread that does nothing else.
//!
//! The same holds inside that pool, which all stores of a process share: **no work that is handed to [`apart`] takes a
//! lock of the store.** The locks are taken before, by the thread that calls. Then every task of the pool comes to an
//! end by itself, and so does whoever waits for one. (The short locks inside of a keyspace and of Tonbo are another
//! matter: nothing parallel is waited for while they are held.)

use std::{
    cell::Cell,
    sync::{Mutex, OnceLock},
    thread::Builder,
};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::store::lock;

thread_local! {
    /// Whether this is a thread of the pools below.
    static IS_APART: Cell<bool> = const { Cell::new(false) };
}

/// How long work may take. Each has a pool of its own, so that what a commit waits for does not wait for a compaction.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Length {
    Short,
    Long,
}

/// Does work, and what it does in parallel, apart from the tasks of users.
pub(crate) fn apart<T: Send>(length: Length, work: impl FnOnce() -> T + Send) -> T {
    static SHORT: OnceLock<Option<ThreadPool>> = OnceLock::new();
    static LONG: OnceLock<Option<ThreadPool>> = OnceLock::new();
    if IS_APART.get() {
        return work();
    }
    let (pool, name) = match length {
        Length::Short => (&SHORT, "darner-short"),
        Length::Long => (&LONG, "darner-long"),
    };
    let pool = pool.get_or_init(|| {
        ThreadPoolBuilder::new()
            .thread_name(|_| name.to_owned())
            .start_handler(|_| IS_APART.set(true))
            .build()
            .ok()
    });
    // Without threads to be had the work is still done.
    let Some(pool) = pool else {
        return work();
    };
    let work = Mutex::new(Some(work));
    let take = || lock(&work).take();
    // `install` from a thread of another pool would do tasks of that one while it waits.
    let done = std::thread::scope(|scope| {
        let waiting = Builder::new().spawn_scoped(scope, || take().map(|work| pool.install(work)));
        waiting.ok().and_then(|waiting| match waiting.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    });
    done.or_else(|| take().map(|work| work()))
        .expect("the work is taken once, by whoever does it")
}
