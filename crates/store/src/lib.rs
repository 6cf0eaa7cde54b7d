//! Durable dimension tables for Darner.
//!
//! A [`Store`] is a directory with tables. A table has a key and any Arrow columns; rows are upserted, deleted by key
//! and replaced as a whole, in [`Transaction`]s that are durable and visible all at once. A [`TableSnapshot`] reads a
//! table as of one commit. One process writes, any number read.
//!
//! Rows are kept as Arrow IPC pages in [Tonbo](https://crates.io/crates/tonbo), behind a commit log and checkpoints of
//! this crate's own: see `docs/design.md` for the formats, the write order and the crash cases.

mod catalog;
mod change;
mod checkpoint;
mod codec;
mod disk;
mod error;
mod keyspace;
mod lock;
mod log;
mod page;
mod settings;
mod state;
mod store;
mod table;
mod tonbo;
mod transaction;
mod version;
mod workdir;

pub use self::{
    catalog::{TableSpec, is_key_type},
    error::{Error, ErrorKind, Result},
    page::{Bounds, ColumnStats, PageKind, PageMeta},
    settings::{Durability, StoreOptions},
    state::Watermark,
    store::Store,
    table::{PageReader, PageRows, Rows, TableSnapshot},
    transaction::Transaction,
    version::Version,
};
