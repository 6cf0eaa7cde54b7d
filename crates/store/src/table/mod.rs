//! Reading tables.

mod compact;
mod live;
mod pages;
mod snapshot;

pub(crate) use self::{
    compact::{Compaction, copy_pages, is_due},
    live::{LiveRows, count_older, key_converter},
};
pub use self::{
    pages::{PageReader, PageRows},
    snapshot::{Rows, TableChanges, TableSnapshot},
};
