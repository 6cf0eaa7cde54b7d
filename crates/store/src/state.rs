//! What a store holds at one moment: the tables with their pages, and the watermarks.
//!
//! There is one [`State`] per open store. Commits change it in place under a write lock; snapshots copy out of it
//! under a read lock, sharing the page lists.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    catalog::TableSpec,
    keyspace::{Keyspace, TableSource},
    page::PageMeta,
    version::Version,
};

#[derive(Clone)]
pub(crate) struct State {
    pub(crate) version: Version,
    pub(crate) next_table_id: u32,
    pub(crate) tables: BTreeMap<String, TableState>,
    pub(crate) watermarks: BTreeMap<String, Watermark>,
}

/// Bytes of a caller's that were part of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// The commit that set it.
    pub version: Version,
    /// What it was set to.
    pub value: Vec<u8>,
}

impl State {
    /// A store in which nothing was committed.
    pub(crate) fn empty() -> Self {
        Self {
            version: Version::default(),
            next_table_id: 1,
            tables: BTreeMap::new(),
            watermarks: BTreeMap::new(),
        }
    }
}

#[derive(Clone)]
pub(crate) struct TableState {
    pub(crate) id: u32,
    pub(crate) generation: u32,
    pub(crate) spec: Arc<TableSpec>,
    pub(crate) keyspace: Arc<Keyspace>,
    /// Oldest first.
    pub(crate) pages: Arc<Vec<Arc<PageMeta>>>,
    /// Every stored row has a key of its own, and none was deleted: nothing needs to be merged.
    pub(crate) is_distinct: bool,
    /// The commit that made the table.
    pub(crate) created: Version,
    /// The last commit that changed it.
    pub(crate) changed: Version,
    /// Where the current checkpoint has it, as it is now. `None` if it changed since.
    pub(crate) checkpointed: Option<TableSource>,
}

impl TableState {
    /// Adds pages of one commit at the end.
    pub(crate) fn append(&mut self, pages: Vec<PageMeta>, is_distinct: bool, version: Version) {
        if !pages.is_empty() {
            self.is_distinct &= is_distinct && self.pages.is_empty();
            // Copies the list of pointers only while a snapshot holds it.
            Arc::make_mut(&mut self.pages).extend(pages.into_iter().map(Arc::new));
        }
        self.changed = version;
        self.checkpointed = None;
    }
}

/// The directory of a table generation, in the working directory and in a checkpoint.
pub(crate) fn table_dir_name(id: u32, generation: u32) -> String {
    format!("t{id}g{generation}")
}
