//! Reading tables.

mod bounds;
mod compact;
mod live;
mod pages;
mod scan;
mod snapshot;

pub use self::{
    bounds::ColumnBounds,
    pages::{PageReader, PageRows},
    scan::PageScan,
    snapshot::{Rows, TableChanges, TableSnapshot},
};
pub(crate) use self::{
    compact::{Compaction, copy_pages, is_due},
    live::{LiveCache, LiveRows, count_older, key_converter},
};
