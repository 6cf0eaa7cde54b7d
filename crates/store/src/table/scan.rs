//! Reads the live rows of chosen pages: those that a filter could not rule out.

use std::sync::{Arc, OnceLock};

use arrow_array::{BooleanArray, RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;

use super::{
    TableSnapshot,
    live::{LiveRows, filter, num_kept},
};
use crate::{
    error::{Error, Result},
    page::{PageKind, PageMeta},
    state::TableState,
};

/// Stored bytes between two pages that are cheaper to read over than to begin another scan of Tonbo.
const GAP_BYTES: u64 = 1 << 20;

/// Reads live rows of a snapshot page by page, in any order and by several threads at once.
///
/// A page is named by its position in [`TableSnapshot::pages`].
///
/// # Examples
/// ```
/// # fn last_page(store: &darner_store::Store) -> darner_store::Result<()> {
/// let snapshot = store.table("names")?;
/// let scan = snapshot.scan(None, None)?;
/// if let Some(last) = snapshot.pages().len().checked_sub(1) {
///     for rows in scan.read(&[last])? {
///         println!("{} rows", rows.num_rows());
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct PageScan {
    table: TableState,
    schema: SchemaRef,
    /// The columns that are wanted, ascending. None of them if only the number of rows is.
    columns: Vec<usize>,
    /// The pages that have every row and every deletion of the keys that are asked for, ascending. `None` for all.
    relevant: Option<Vec<usize>>,
    live: OnceLock<Arc<LiveRows>>,
}

impl TableSnapshot {
    /// Prepares to read the rows that count in some pages. Nothing is read yet.
    ///
    /// # Shapes
    /// `projection`: positions of columns, ascending; `None` for all.
    /// `relevant`: for who only wants rows of certain keys, all pages that may have one of these keys, upsert pages and
    /// delete pages, ascending. Only these can be read then. Of other keys in them, rows may come that do not count any
    /// more: the caller must leave them out. In return the keys of other pages need not be read.
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a position without a column, or without a page.
    pub fn scan(
        &self,
        projection: Option<&[usize]>,
        relevant: Option<Vec<usize>>,
    ) -> Result<PageScan> {
        let schema = self.projected(projection)?;
        let num_pages = self.table.pages.len();
        if let Some(page) = relevant.iter().flatten().find(|page| **page >= num_pages) {
            return Err(no_page(*page, num_pages));
        }
        let columns = match projection {
            Some(columns) => columns.to_vec(),
            None => (0..schema.fields().len()).collect(),
        };
        Ok(PageScan {
            table: self.table.clone(),
            schema,
            columns,
            relevant,
            live: OnceLock::new(),
        })
    }
}

fn no_page(page: usize, num_pages: usize) -> Error {
    Error::invalid(format!("no such page: page=`{page}` pages=`{num_pages}`"))
}

impl PageScan {
    /// The columns of the batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// So many of these pages, from the front, are best read at once: up to about so many stored bytes, and as long as
    /// not much lies between them.
    pub fn window(&self, pages: &[usize], bytes_max: u64) -> usize {
        let mut window_bytes = 0;
        let mut last = None;
        for (num_pages, page) in pages.iter().enumerate() {
            let gap = last.map_or(0, |last| self.bytes_between(last, *page));
            if num_pages > 0 && (window_bytes >= bytes_max || gap > GAP_BYTES) {
                return num_pages;
            }
            let page_bytes = self.table.pages.get(*page).map_or(0, |page| page.num_bytes);
            window_bytes += gap + u64::from(page_bytes);
            last = Some(*page);
        }
        pages.len()
    }

    fn bytes_between(&self, one: usize, other: usize) -> u64 {
        let (first, last) = (one.min(other), one.max(other));
        let between = self.table.pages.get(first + 1..last).unwrap_or_default();
        between.iter().map(|page| u64::from(page.num_bytes)).sum()
    }

    /// Reads pages: one batch for each that has live rows, in the order that was asked for.
    ///
    /// The first call looks for the rows that count, which can take long for a table that is changed much; other threads
    /// that read wait for it.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](crate::ErrorKind::Data) for damage; [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a
    /// page that there is not, or that is not relevant.
    pub fn read(&self, pages: &[usize]) -> Result<Vec<RecordBatch>> {
        let live = self.live()?;
        let mut wanted: Vec<(&PageMeta, Option<&BooleanArray>)> = Vec::with_capacity(pages.len());
        for page in pages {
            let meta = self.table.pages.get(*page);
            let meta = meta.ok_or_else(|| no_page(*page, self.table.pages.len()))?;
            let mask = self.mask(live, *page)?;
            if meta.kind == PageKind::Upsert && mask.is_none_or(|mask| num_kept(mask) > 0) {
                wanted.push((meta, mask));
            }
        }
        if self.columns.is_empty() {
            return wanted.into_iter().map(|page| self.count(page)).collect();
        }
        let metas: Vec<&PageMeta> = wanted.iter().map(|(meta, _)| *meta).collect();
        let keyspace = &self.table.keyspace;
        let pages = keyspace.read_cached(&metas)?;
        wanted
            .into_iter()
            .zip(pages)
            .map(|((meta, mask), page)| {
                let rows = page
                    .rows(
                        meta,
                        self.table.spec.schema(),
                        (&self.columns, &self.schema),
                    )
                    .map_err(|error| error.context(keyspace.place()))?;
                filter(&rows, mask)
            })
            .collect()
    }

    fn live(&self) -> Result<&Arc<LiveRows>> {
        if let Some(live) = self.live.get() {
            return Ok(live);
        }
        let live = match &self.relevant {
            // What all pages say may be known already, and is no more work for most of them.
            Some(relevant) if relevant.len() * 2 < self.table.pages.len() => {
                Arc::new(LiveRows::find(&self.table.with_pages_at(relevant))?)
            }
            _ => self.table.live_rows()?,
        };
        // Another thread may have been faster, with the same.
        Ok(self.live.get_or_init(|| live))
    }

    fn mask<'l>(&self, live: &'l LiveRows, page: usize) -> Result<Option<&'l BooleanArray>> {
        // Masks of some pages, or of all of them.
        let at = match &self.relevant {
            Some(relevant) if live.masks.len() < self.table.pages.len() => {
                relevant.binary_search(&page).map_err(|_| {
                    Error::invalid(format!(
                        "page is not among those that were chosen: page=`{page}`"
                    ))
                })?
            }
            _ => page,
        };
        Ok(live.masks[at].as_ref())
    }

    fn count(&self, (meta, mask): (&PageMeta, Option<&BooleanArray>)) -> Result<RecordBatch> {
        let num_rows = mask.map_or(meta.num_rows as usize, num_kept);
        let options = RecordBatchOptions::new().with_row_count(Some(num_rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), Vec::new(), &options)
            .map_err(|error| Error::internal("rows without columns").with_source(error))
    }
}
