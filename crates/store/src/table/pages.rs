//! Reads the pages of a table in order, several at a time.

use std::{collections::VecDeque, sync::Arc};

use arrow_array::RecordBatch;
use rayon::prelude::*;

use crate::{
    error::Result,
    keyspace::Keyspace,
    page::{PageDecoder, PageKind, PageMeta},
    state::TableState,
};

/// Encoded bytes that one scan of Tonbo brings into memory. Each scan reads the keys of a whole file, so that many
/// small scans are slow; each holds what it reads, so that one large scan is large.
const WINDOW_BYTES: u64 = 8 << 20;

/// The rows of one page.
#[derive(Debug)]
pub struct PageRows {
    /// Whether these are rows of the table, or keys of removed ones.
    pub kind: PageKind,
    /// The commit that brought them.
    pub version: u64,
    /// The projected columns, or for [`PageKind::Delete`] all key columns.
    pub rows: RecordBatch,
}

/// The pages of a table snapshot, oldest first.
///
/// Pages are read and decoded on the current rayon pool, a few windows of 8 MiB ahead; that is also the bound on
/// the memory in use.
pub struct PageReader {
    keyspace: Arc<Keyspace>,
    upserts: PageDecoder,
    deletes: PageDecoder,
    windows: VecDeque<Vec<Arc<PageMeta>>>,
    ready: VecDeque<Result<PageRows>>,
}

impl PageReader {
    pub(crate) fn new(table: &TableState, projection: Option<&[usize]>) -> Self {
        Self::of(table, projection, 0..table.pages.len())
    }

    /// Reads only these pages, in this order.
    pub(crate) fn of(
        table: &TableState,
        projection: Option<&[usize]>,
        pages: impl Iterator<Item = usize>,
    ) -> Self {
        let schema = Arc::clone(table.spec.schema());
        let mut windows = VecDeque::new();
        let mut window: Vec<Arc<PageMeta>> = Vec::new();
        let mut window_bytes = 0;
        for page in pages.map(|page| &table.pages[page]) {
            // A scan covers a range of page numbers; a jump would make it read what nobody asked for.
            let follows = window.last().is_none_or(|last| page.id == last.id + 1);
            if !window.is_empty() && (!follows || window_bytes >= WINDOW_BYTES) {
                windows.push_back(std::mem::take(&mut window));
                window_bytes = 0;
            }
            window_bytes += u64::from(page.num_bytes);
            window.push(Arc::clone(page));
        }
        if !window.is_empty() {
            windows.push_back(window);
        }
        Self {
            keyspace: Arc::clone(&table.keyspace),
            upserts: PageDecoder::new(schema, projection.map(<[usize]>::to_vec)),
            deletes: PageDecoder::new(Arc::clone(table.spec.key_schema()), None),
            windows,
            ready: VecDeque::new(),
        }
    }

    fn read_ahead(&mut self) {
        let num_windows = self.windows.len().min(rayon::current_num_threads());
        let windows: Vec<_> = self.windows.drain(..num_windows).collect();
        let this = &*self;
        let read: Vec<Vec<Result<PageRows>>> = windows
            .into_par_iter()
            .map(|window| this.read_window(&window))
            .collect();
        self.ready.extend(read.into_iter().flatten());
    }

    fn read_window(&self, window: &[Arc<PageMeta>]) -> Vec<Result<PageRows>> {
        let metas: Vec<&PageMeta> = window.iter().map(|page| &**page).collect();
        let buffers = match self.keyspace.read(&metas) {
            Ok(buffers) => buffers,
            Err(error) => return vec![Err(error)],
        };
        metas
            .iter()
            .zip(buffers)
            .map(|(page, bytes)| {
                let decoder = match page.kind {
                    PageKind::Upsert => &self.upserts,
                    PageKind::Delete => &self.deletes,
                };
                let rows = decoder
                    .decode(page, &bytes)
                    .map_err(|error| error.context(self.keyspace.place()))?;
                Ok(PageRows {
                    kind: page.kind,
                    version: page.version,
                    rows,
                })
            })
            .collect()
    }
}

impl Iterator for PageReader {
    type Item = Result<PageRows>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() {
            self.read_ahead();
        }
        let next = self.ready.pop_front();
        if let Some(Err(_)) = next {
            // What follows a page that could not be read would look like a whole table.
            self.windows.clear();
            self.ready.clear();
        }
        next
    }
}
