//! Durable dimension tables for Darner.
//!
//! A [`Store`] is a directory with tables. A table has a key and any Arrow columns; rows are upserted, deleted by key
//! and replaced as a whole, in [`Transaction`]s that are durable and visible all at once. A [`TableSnapshot`] reads a
//! table as of one commit. One process writes, any number read.
//!
//! Rows are kept as Arrow IPC pages in [Tonbo](https://crates.io/crates/tonbo), behind a commit log and checkpoints of
//! this crate's own: see `docs/design.md` for the formats, the write order and the crash cases.

mod apart;
mod backup;
mod behind;
mod catalog;
mod change;
mod checkpoint;
mod codec;
mod commit;
mod compaction;
mod disk;
mod error;
mod history;
mod keyspace;
mod lock;
mod log;
mod maintenance;
mod namespace;
mod page;
mod retention;
mod settings;
mod state;
mod store;
mod table;
mod tonbo;
mod transaction;
mod verify;
mod version;
mod workdir;

/// What tests of crashes and failures hold on to. Not part of the API.
#[doc(hidden)]
pub mod testing {
    pub use crate::disk::{Observed, Observer, Op, observe};
}

pub use self::{
    backup::BackupReport,
    catalog::{TableSpec, is_key_type},
    error::{Error, ErrorKind, Result},
    history::{CommitKind, Retention, RowCounts, TableCommit},
    namespace::{KeyedState, NamespaceStats, Scan, ScanEntries, StateBytes},
    page::{Bounds, ColumnStats, PageKind, PageMeta},
    settings::{CompactionMode, Durability, StoreOptions},
    state::Watermark,
    store::Store,
    table::{ColumnBounds, PageReader, PageRows, PageScan, Rows, TableChanges, TableSnapshot},
    transaction::Transaction,
    verify::VerifyReport,
    version::{AsOf, Clock, Version},
};
