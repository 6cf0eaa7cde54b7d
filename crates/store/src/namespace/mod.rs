//! Keyed state: bytes by key, in namespaces.
//!
//! A namespace is a table (`key`, `value`, `expires_us`) that is written through memory. Its commits are operations in
//! the log, a few bytes each; the entries that they changed become pages when a checkpoint is made. So there are two
//! ways to read one:
//!
//! ```text
//! resident   a hash map with every entry         while they fit the budget (StoreOptions::state_memory_bytes)
//! paged      entries changed since the last checkpoint, before the pages, newest first
//! ```
//!
//! Which of the two a namespace is in is decided when it is first read, after each commit, and after a compaction.

mod entry;
mod key;
mod memory;
mod op;
mod pages;
mod scan;
mod state;

pub use self::{
    entry::StateBytes,
    scan::{Scan, ScanEntries},
    state::{KeyedState, NamespaceStats},
};
pub(crate) use self::{memory::Namespace, op::StateOp, state::expires_us};

use std::sync::{Arc, OnceLock};

use arrow_schema::{DataType, Field, Schema};

use crate::catalog::TableSpec;

/// The longest key, in bytes.
pub(crate) const KEY_BYTES_MAX: usize = 64 << 10;

/// The longest value, in bytes.
pub(crate) const VALUE_BYTES_MAX: usize = 64 << 20;

/// Columns of the pages of every namespace.
pub(crate) fn namespace_spec() -> Arc<TableSpec> {
    static SPEC: OnceLock<Arc<TableSpec>> = OnceLock::new();
    let spec = SPEC.get_or_init(|| {
        let schema = Schema::new(vec![
            Field::new("key", DataType::Binary, false),
            Field::new("value", DataType::Binary, false),
            Field::new("expires_us", DataType::Int64, true),
        ]);
        Arc::new(TableSpec::new(&schema, &["key"]).expect("three names, and binary can be a key"))
    });
    Arc::clone(spec)
}

/// Under which name a checkpoint has a namespace among the tables. No table's name has control characters.
pub(crate) fn stored_name(namespace: &str) -> String {
    format!("\u{1}{namespace}")
}

/// The namespace of a stored name, or `None` if it is a table's.
pub(crate) fn namespace_of(stored_name: &str) -> Option<&str> {
    stored_name.strip_prefix('\u{1}')
}
