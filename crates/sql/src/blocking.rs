//! Work that waits for the disk.

use std::thread;

use darner_engine::{Error, ErrorKind};
use datafusion::error::Result;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::oneshot,
};

use crate::error::to_datafusion;

/// What a thread of its own will give.
pub(crate) struct Started<T>(oneshot::Receiver<T>);

/// Starts work that waits on a thread of its own. The threads that a runtime has for such work may all be taken by those
/// who wait for what this gives, so that it would never begin.
///
/// It goes on to its end, also if nobody waits for it any more.
pub(crate) fn start<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Started<T>> {
    let (done, started) = oneshot::channel();
    let thread = thread::Builder::new().name("darner-sql-work".to_owned());
    // Nobody may be there to take it.
    let spawned = thread.spawn(move || drop(done.send(work())));
    match spawned {
        Ok(_) => Ok(Started(started)),
        Err(error) => Err(to_datafusion(
            Error::new(ErrorKind::Unavailable, "cannot start a thread").with_source(error),
        )),
    }
}

impl<T> Started<T> {
    /// Waits for it.
    pub(crate) async fn end(self) -> Result<T> {
        self.0.await.map_err(|error| {
            to_datafusion(
                Error::new(ErrorKind::Internal, "work did not come to its end").with_source(error),
            )
        })
    }
}

/// Does work that waits, where DataFusion calls a function that is not async. If it is a thread of a runtime, others
/// take over what else it has to do.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
