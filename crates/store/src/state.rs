//! What a store holds at one moment: the tables with their pages, the namespaces of keyed state, and the watermarks.
//!
//! There is one [`State`] per open store. Commits change it in place under a write lock; snapshots copy out of it
//! under a read lock, sharing the page lists.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use crate::{
    catalog::TableSpec,
    error::Result,
    history::{CommitKind, HistoryEntry, Retention, RowCounts},
    keyspace::{Keyspace, TableSource},
    namespace::Namespace,
    page::PageMeta,
    table::{LiveCache, LiveRows},
    version::Version,
};

#[derive(Clone)]
pub(crate) struct State {
    pub(crate) version: Version,
    /// The last commit that the current checkpoint has.
    pub(crate) checkpointed: Version,
    pub(crate) next_table_id: u32,
    pub(crate) tables: BTreeMap<String, TableState>,
    /// Shared with whoever reads them: a commit changes them in place, under the state's write lock.
    pub(crate) namespaces: BTreeMap<String, Arc<Namespace>>,
    /// The last commit since the store was opened that has changed a namespace.
    pub(crate) namespaces_changed: u64,
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
    /// Encoded bytes of the pages of all tables.
    pub(crate) fn num_bytes(&self) -> u64 {
        self.tables.values().map(TableState::num_bytes).sum()
    }

    /// Encoded bytes of the pages of all tables, less those that may be useless.
    pub(crate) fn num_live_bytes(&self) -> u64 {
        self.tables.values().map(TableState::num_live_bytes).sum()
    }

    /// A store in which nothing was committed.
    pub(crate) fn empty() -> Self {
        Self {
            version: Version::default(),
            checkpointed: Version::default(),
            next_table_id: 1,
            tables: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            namespaces_changed: 0,
            watermarks: BTreeMap::new(),
        }
    }
}

/// Rows and deleted keys of a table at some time, and those of them that a compaction would leave out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) num_stored: u64,
    pub(crate) num_dead: u64,
}

#[derive(Clone)]
pub(crate) struct TableState {
    pub(crate) id: u32,
    /// Which set of files it is in now.
    pub(crate) generation: u32,
    /// The generation in which the table was created or last replaced. Compaction goes on with it.
    pub(crate) incarnation: u32,
    pub(crate) spec: Arc<TableSpec>,
    pub(crate) keyspace: Arc<Keyspace>,
    /// Oldest first.
    pub(crate) pages: Arc<Vec<Arc<PageMeta>>>,
    /// So many pages at the front are in key order, without two rows of one key: compaction wrote them.
    pub(crate) num_sorted_pages: usize,
    /// Every stored row has a key of its own, and none was deleted: nothing needs to be merged.
    pub(crate) is_distinct: bool,
    /// The commit that made the table.
    pub(crate) created: Version,
    /// The commit that made this incarnation.
    pub(crate) begun: Version,
    /// The last commit that changed it.
    pub(crate) changed: Version,
    /// The oldest version for which the pages are still there, at least that of `begun`.
    pub(crate) oldest: u64,
    pub(crate) retention: Retention,
    /// The table's commits, oldest first, also those of earlier incarnations and those that cannot be read any more.
    pub(crate) history: Arc<Vec<HistoryEntry>>,
    /// Earlier incarnations that can still be read, oldest first. They have neither `history` nor `older`.
    pub(crate) older: Vec<TableState>,
    /// How much of it was useless when that was looked at last. It tells when to look again.
    pub(crate) counted: Counted,
    /// The number of rows that count, once somebody has counted.
    pub(crate) num_live: Arc<OnceLock<u64>>,
    /// Which rows count, once somebody has looked.
    pub(crate) live: Arc<LiveCache>,
    /// Where the current checkpoint has it, as it is now. `None` if it changed since.
    pub(crate) checkpointed: Option<TableSource>,
}

impl TableState {
    /// An empty table that begins with a commit.
    pub(crate) fn new(
        id: u32,
        incarnation: u32,
        spec: Arc<TableSpec>,
        keyspace: Arc<Keyspace>,
        version: Version,
    ) -> Self {
        Self {
            id,
            generation: incarnation,
            incarnation,
            spec,
            keyspace,
            pages: Arc::default(),
            num_sorted_pages: 0,
            is_distinct: true,
            created: version,
            begun: version,
            changed: version,
            oldest: version.number,
            retention: Retention::default(),
            history: Arc::default(),
            older: Vec::new(),
            counted: Counted::default(),
            num_live: Arc::default(),
            live: Arc::default(),
            checkpointed: None,
        }
    }

    /// Adds pages of one commit at the end.
    pub(crate) fn append(&mut self, pages: Vec<PageMeta>, is_distinct: bool, version: Version) {
        if !pages.is_empty() {
            if self.is_distinct {
                self.counted = Counted {
                    num_stored: self.num_stored(),
                    num_dead: 0,
                };
            }
            self.is_distinct &= is_distinct && self.pages.is_empty();
            self.num_live = Arc::default();
            // Copies the list of pointers only while a snapshot holds it.
            Arc::make_mut(&mut self.pages).extend(pages.into_iter().map(Arc::new));
        }
        self.changed = version;
        self.checkpointed = None;
    }

    /// Notes in the history what a commit did. The pages are there already.
    pub(crate) fn note_commit(&mut self, kind: CommitKind, version: Version) {
        let num_before = match kind {
            CommitKind::Create => Some(0),
            _ => self
                .history
                .last()
                .and_then(|entry| entry.counts)
                .map(|counts| counts.num_live),
        };
        // More than this needs a look at the keys, which whoever asks for it pays for.
        let counts = if self.is_distinct {
            let num_live = self.num_stored_rows();
            num_before.map(|num_removed| RowCounts {
                num_added: num_live,
                num_removed,
                num_live,
            })
        } else {
            None
        };
        Arc::make_mut(&mut self.history).push(HistoryEntry {
            version,
            kind,
            counts,
        });
    }

    /// Goes over to a new checkpoint, which has the table as it is here or as it was.
    pub(crate) fn follow_checkpoint(&mut self, written: &Self) {
        let is_same = self.changed == written.changed && self.retention == written.retention;
        // The keyspace knows its files in any case.
        self.checkpointed = written.checkpointed.clone().filter(|_| is_same);
    }

    /// Which rows count. Reads keys, unless somebody has done so before.
    pub(crate) fn live_rows(&self) -> Result<Arc<LiveRows>> {
        let live = self.live.get(self)?;
        self.num_live.get_or_init(|| live.num_rows);
        Ok(live)
    }

    /// Rows in upsert pages, also those that were replaced or deleted since.
    pub(crate) fn num_stored_rows(&self) -> u64 {
        let upserts = self
            .pages
            .iter()
            .filter(|page| page.kind == crate::page::PageKind::Upsert);
        upserts.map(|page| u64::from(page.num_rows)).sum()
    }

    /// Whether the table can be read as of one of its commits. Between an incarnation that is kept and the next one there
    /// may be commits that a compaction has folded.
    pub(crate) fn is_kept(&self, commit: u64) -> bool {
        let mut incarnations = self.older.iter().chain([self]);
        incarnations
            .rfind(|table| table.begun.number <= commit)
            .is_some_and(|table| table.oldest <= commit)
    }

    /// Rows in upsert pages and keys in delete pages.
    pub(crate) fn num_stored(&self) -> u64 {
        self.pages.iter().map(|page| u64::from(page.num_rows)).sum()
    }

    /// The most rows and deleted keys that may be useless by now.
    pub(crate) fn num_dead_max(&self) -> u64 {
        let num_stored = self.num_stored();
        // One commit hardly ever brings a key twice, so what came first is taken for live.
        let first = self.pages.first().map(|page| page.version);
        let of_first = self
            .pages
            .iter()
            .take_while(|page| Some(page.version) == first);
        let num_first = of_first.map(|page| u64::from(page.num_rows)).sum();
        // A row or key that comes later makes at most one useless: itself or another.
        let num_new = num_stored.saturating_sub(self.counted.num_stored.max(num_first));
        (self.counted.num_dead + num_new).min(num_stored)
    }

    /// Encoded bytes of all pages.
    pub(crate) fn num_bytes(&self) -> u64 {
        self.pages
            .iter()
            .map(|page| u64::from(page.num_bytes))
            .sum()
    }

    /// Encoded bytes of the rows that are sure to count, about.
    fn num_live_bytes(&self) -> u64 {
        let num_stored = self.num_stored();
        if self.is_distinct || num_stored == 0 {
            return self.num_bytes();
        }
        let num_live = num_stored - self.num_dead_max();
        let num_bytes =
            u128::from(self.num_bytes()) * u128::from(num_live) / u128::from(num_stored);
        u64::try_from(num_bytes).unwrap_or(u64::MAX)
    }

    /// The table with only those pages that a condition keeps, oldest first. Good for reading and nothing else.
    pub(crate) fn with_pages(&self, keep: impl Fn(&PageMeta) -> bool) -> Self {
        let kept = (0..self.pages.len()).filter(|page| keep(&self.pages[*page]));
        self.with_pages_at(&kept.collect::<Vec<_>>())
    }

    /// The table with only those pages that stand at these positions, ascending. Good for reading and nothing else.
    pub(crate) fn with_pages_at(&self, kept: &[usize]) -> Self {
        if kept.len() == self.pages.len() {
            return self.clone();
        }
        let pages = kept.iter().map(|page| Arc::clone(&self.pages[*page]));
        let num_sorted_pages = kept.partition_point(|page| *page < self.num_sorted_pages);
        Self {
            pages: Arc::new(pages.collect()),
            num_sorted_pages,
            num_live: Arc::default(),
            live: Arc::default(),
            checkpointed: None,
            ..self.clone()
        }
    }
}

/// The directory of a table generation, in the working directory and in a checkpoint.
pub(crate) fn table_dir_name(id: u32, generation: u32) -> String {
    format!("t{id}g{generation}")
}
