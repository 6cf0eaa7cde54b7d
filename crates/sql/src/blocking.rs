//! Work that waits for the disk.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does work that waits, where DataFusion calls a function that is not async. If it is a thread of a runtime, others
/// take over what else it has to do.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
