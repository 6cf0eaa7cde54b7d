//! What the caller of a long run may do to it: watch it and stop it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{Error, ErrorKind, Result};

/// How far a run has come.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Rows read so far.
    pub num_rows: u64,
    /// Bytes of input behind those rows, as stored.
    pub num_bytes: u64,
    /// Bytes of input in all, where that is known.
    pub num_bytes_total: Option<u64>,
    /// The input that the last rows came from.
    pub input: String,
}

type Watch = dyn Fn(&Progress) + Send + Sync;

/// Stops and watches a run. The default does neither.
#[derive(Clone, Default)]
pub struct Control {
    cancel: Option<Arc<AtomicBool>>,
    watch: Option<Arc<Watch>>,
}

impl Control {
    /// Stops the run, soon and cleanly, once the flag is set.
    #[must_use]
    pub fn with_cancel(mut self, flag: Arc<AtomicBool>) -> Self {
        self.cancel = Some(flag);
        self
    }

    /// Calls `watch` on the calling thread whenever some more rows are through.
    #[must_use]
    pub fn with_watch(mut self, watch: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.watch = Some(Arc::new(watch));
        self
    }

    /// Fails with [`ErrorKind::Cancelled`] once the run is to stop.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.cancel {
            Some(flag) if flag.load(Ordering::Relaxed) => {
                Err(Error::new(ErrorKind::Cancelled, "interrupted"))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn report(&self, progress: &Progress) {
        if let Some(watch) = &self.watch {
            watch(progress);
        }
    }
}
