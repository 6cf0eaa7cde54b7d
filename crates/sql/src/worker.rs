//! The threads of a session: statements are planned, run and dropped there, and the caller waits for them.
//!
//! A plan is as deep as its statement has terms, and what walks over a plan, if only to drop it, takes a piece of the
//! stack for each level. The caller's stack may be small; that of these threads is not. So no plan leaves them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    time::Duration,
};

use darner_engine::{Error, ErrorKind, Result};
use tokio::{runtime::Runtime, task::AbortHandle};

/// Room for the deepest statement that is taken: see `script::TERMS_MAX`. Only what is used of it takes memory.
const STACK_BYTES: usize = 64 << 20;

/// How long a caller sleeps before it looks whether it is to go on waiting.
const TICK: Duration = Duration::from_millis(20);

/// Threads, and a flag that stops what they do.
pub(crate) struct Worker {
    /// `None` once this is being dropped.
    runtime: Option<Runtime>,
    cancel: Option<Arc<AtomicBool>>,
}

impl Worker {
    /// Starts threads.
    pub(crate) fn start(num_threads: usize, cancel: Option<Arc<AtomicBool>>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(num_threads.max(1))
            .thread_name("darner-sql")
            .thread_stack_size(STACK_BYTES)
            // Remote files are read on these threads.
            .enable_all()
            .build()
            .map_err(|error| {
                Error::new(ErrorKind::Unavailable, "cannot start threads").with_source(error)
            })?;
        Ok(Self {
            runtime: Some(runtime),
            cancel,
        })
    }

    /// Does some work there and waits for it.
    ///
    /// # Errors
    /// What the work says; [`ErrorKind::Cancelled`]; [`ErrorKind::Internal`] if it panicked.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = sync_channel(1);
        let task = self.spawn(async move {
            // The caller may have stopped waiting.
            let _ = sender.send(work.await);
        });
        let done = self.wait(&receiver);
        drop(task);
        done?
    }

    /// Starts work that is stopped when the returned task is dropped.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Task {
        // There is one until this is dropped.
        Task(
            self.runtime
                .as_ref()
                .map(|runtime| runtime.spawn(work).abort_handle()),
        )
    }

    /// Waits for what a task sends.
    pub(crate) fn wait<T>(&self, receiver: &Receiver<T>) -> Result<T> {
        loop {
            match receiver.recv_timeout(TICK) {
                Ok(value) => return Ok(value),
                Err(RecvTimeoutError::Timeout) => {
                    let cancel = self.cancel.as_ref();
                    if cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
                        return Err(Error::new(ErrorKind::Cancelled, "statement was cancelled"));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::internal("statement ended in a panic"));
                }
            }
        }
    }

    /// Drops a value there.
    pub(crate) fn give_back<T: Send + 'static>(&self, value: T) {
        if let Some(runtime) = &self.runtime {
            drop(runtime.spawn_blocking(move || drop(value)));
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // What was cancelled may be deep in its work; nobody waits for it.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Work under way; dropping this stops it.
pub(crate) struct Task(Option<AbortHandle>);

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
