//! The pages of a namespace: written at checkpoints, read where the entries do not fit into memory.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
};

use arrow_array::{
    Array, ArrayRef, BinaryArray, Int64Array, RecordBatch, cast::AsArray, types::Int64Type,
};
use arrow_row::{RowConverter, SortField};
use arrow_schema::DataType;

use super::{entry::Entry, key::Key, memory::Namespace, namespace_spec};
use crate::{
    error::{Error, Result},
    page::{EncodedPage, PageDecoder, PageEncoder, PageKind, PageMeta},
    state::TableState,
    table::PageReader,
};

/// Rows that are put together before they are cut into pages.
const BATCH_ROWS: usize = 16 << 10;

/// Bytes of keys and values that are put together.
const BATCH_BYTES: usize = 64 << 20;

/// Writes changed entries, which are in key order, as pages.
pub(super) fn encode_pages(
    changed: &[(Key, Option<Entry>)],
    page_bytes: usize,
) -> Result<Vec<EncodedPage>> {
    let spec = namespace_spec();
    let mut pages = Vec::new();
    let puts: Vec<&Entry> = changed
        .iter()
        .filter_map(|(_, entry)| entry.as_ref())
        .collect();
    let upserts = PageEncoder::new(PageKind::Upsert, Arc::clone(spec.schema()), page_bytes);
    for puts in chunks(&puts) {
        let expires = |entry: &Entry| (entry.expires_us() != 0).then(|| entry.expires_us());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(BinaryArray::from_iter_values(
                puts.iter().map(|entry| entry.key()),
            )),
            Arc::new(BinaryArray::from_iter_values(
                puts.iter().map(|entry| entry.value()),
            )),
            Arc::new(
                puts.iter()
                    .map(|entry| expires(entry))
                    .collect::<Int64Array>(),
            ),
        ];
        pages.extend(upserts.encode_alone(&batch(spec.schema(), columns)?)?);
    }
    let deleted: Vec<&[u8]> = changed
        .iter()
        .filter_map(|(key, entry)| entry.is_none().then_some(&**key))
        .collect();
    let deletes = PageEncoder::new(PageKind::Delete, Arc::clone(spec.key_schema()), page_bytes);
    for deleted in deleted.chunks(BATCH_ROWS) {
        let columns: Vec<ArrayRef> = vec![Arc::new(BinaryArray::from_iter_values(deleted))];
        pages.extend(deletes.encode_alone(&batch(spec.key_schema(), columns)?)?);
    }
    Ok(pages)
}

/// Cuts entries by number and by bytes: an array of binary values ends at 2 GiB.
fn chunks<'a, 'b>(puts: &'b [&'a Entry]) -> Vec<&'b [&'a Entry]> {
    let mut chunks = Vec::new();
    let (mut start, mut num_bytes) = (0, 0);
    for (end, entry) in puts.iter().enumerate() {
        let entry_bytes = entry.num_bytes();
        if end > start && (end - start == BATCH_ROWS || num_bytes + entry_bytes > BATCH_BYTES) {
            chunks.push(&puts[start..end]);
            (start, num_bytes) = (end, 0);
        }
        num_bytes += entry_bytes;
    }
    if start < puts.len() {
        chunks.push(&puts[start..]);
    }
    chunks
}

fn batch(schema: &arrow_schema::SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    RecordBatch::try_new(Arc::clone(schema), columns)
        .map_err(|error| Error::internal("entries do not fit their schema").with_source(error))
}

/// One page of entries, sorted by key.
pub(super) struct EntryPage {
    keys: BinaryArray,
    /// Values and when they end; `None` in a page of deleted keys.
    values: Option<(BinaryArray, Int64Array)>,
    num_bytes: usize,
}

impl EntryPage {
    fn new(kind: PageKind, rows: &RecordBatch, num_bytes: u32) -> Self {
        let values = (kind == PageKind::Upsert).then(|| {
            (
                rows.column(1).as_binary::<i32>().clone(),
                rows.column(2).as_primitive::<Int64Type>().clone(),
            )
        });
        Self {
            keys: rows.column(0).as_binary::<i32>().clone(),
            values,
            num_bytes: num_bytes as usize,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn key(&self, row: usize) -> &[u8] {
        self.keys.value(row)
    }

    /// The entry in a row, `None` for a deleted key.
    pub(super) fn entry(&self, row: usize) -> Option<Entry> {
        let (values, expires) = self.values.as_ref()?;
        let expires_us = if expires.is_null(row) {
            0
        } else {
            expires.value(row)
        };
        Some(Entry::new(self.key(row), values.value(row), expires_us))
    }

    /// The first row whose key is not less than `key`.
    pub(super) fn lower_bound(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.key(middle) < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// Shows every entry of every page, oldest first, `None` for deleted ones, until `visit` answers false. Returns
/// whether it came to the end.
pub(super) fn read_all(
    table: &TableState,
    mut visit: impl FnMut(&[u8], Option<Entry>) -> bool,
) -> Result<bool> {
    for page in PageReader::new(table, None) {
        let page = page?;
        let page = EntryPage::new(page.kind, &page.rows, 0);
        for row in 0..page.len() {
            if !visit(page.key(row), page.entry(row)) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Encodes a key as the bounds of pages have it.
pub(super) fn bound_of(key: &[u8]) -> Result<Box<[u8]>> {
    let failed = |error| Error::internal("key cannot be encoded").with_source(error);
    let converter = RowConverter::new(vec![SortField::new(DataType::Binary)]).map_err(failed)?;
    let keys: ArrayRef = Arc::new(BinaryArray::from_iter_values([key]));
    let rows = converter.convert_columns(&[keys]).map_err(failed)?;
    Ok(rows.row(0).as_ref().into())
}

/// The smallest and largest key of a page, encoded; `None` if that is not known.
pub(super) fn key_bounds(page: &PageMeta) -> Option<(&[u8], &[u8])> {
    let (min, max) = page.stats.first()?.bounds.as_ref()?;
    Some((min, max))
}

/// Looks a key up in the pages, newest first. The answer may be a deleted entry, or one that has ended.
pub(super) fn find(namespace: &Namespace, table: &TableState, key: &[u8]) -> Result<Option<Entry>> {
    let bound = bound_of(key)?;
    for page in table.pages.iter().rev() {
        if key_bounds(page).is_some_and(|(min, max)| *bound < *min || *bound > *max) {
            continue;
        }
        let entries = read_page(namespace, table, page)?;
        let row = entries.lower_bound(key);
        if row < entries.len() && entries.key(row) == key {
            return Ok(entries.entry(row));
        }
    }
    Ok(None)
}

/// Reads a page, from the cache if it is there.
fn read_page(namespace: &Namespace, table: &TableState, page: &PageMeta) -> Result<Arc<EntryPage>> {
    let mut found = read_pages(namespace, table, &[page])?;
    found
        .pop()
        .ok_or_else(|| Error::internal("page was read without an answer"))
}

/// Reads pages, those that are in the cache from there, the others with one look at the files.
pub(super) fn read_pages(
    namespace: &Namespace,
    table: &TableState,
    pages: &[&PageMeta],
) -> Result<Vec<Arc<EntryPage>>> {
    let lock = || {
        namespace
            .cache()
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    };
    let mut found: Vec<Option<Arc<EntryPage>>> = {
        let mut cache = lock();
        let cached = pages
            .iter()
            .map(|page| cache.get((table.generation, page.id)));
        cached.collect()
    };
    let missing: Vec<&PageMeta> = pages
        .iter()
        .zip(&found)
        .filter(|(_, found)| found.is_none())
        .map(|(page, _)| *page)
        .collect();
    let read = table.keyspace.read(&missing)?;
    let places = found.iter_mut().filter(|found| found.is_none());
    for ((place, page), bytes) in places.zip(missing).zip(read) {
        let schema = match page.kind {
            PageKind::Upsert => table.spec.schema(),
            PageKind::Delete => table.spec.key_schema(),
        };
        let rows = PageDecoder::new(Arc::clone(schema), None)
            .decode(page, &bytes)
            .map_err(|error| error.context(table.keyspace.place()))?;
        let entries = Arc::new(EntryPage::new(page.kind, &rows, page.num_bytes));
        lock().put((table.generation, page.id), Arc::clone(&entries));
        *place = Some(entries);
    }
    Ok(found.into_iter().flatten().collect())
}

/// Pages that were read lately, up to a number of bytes.
pub(super) struct PageCache {
    pages: HashMap<(u32, u64), (Arc<EntryPage>, u64)>,
    num_bytes: usize,
    num_bytes_max: usize,
    /// Counts accesses: what was used longest ago has the smallest.
    tick: u64,
}

impl PageCache {
    pub(super) fn new(num_bytes_max: usize) -> Self {
        Self {
            pages: HashMap::new(),
            num_bytes: 0,
            num_bytes_max,
            tick: 0,
        }
    }

    fn get(&mut self, id: (u32, u64)) -> Option<Arc<EntryPage>> {
        self.tick += 1;
        let (page, used) = self.pages.get_mut(&id)?;
        *used = self.tick;
        Some(Arc::clone(page))
    }

    fn put(&mut self, id: (u32, u64), page: Arc<EntryPage>) {
        self.tick += 1;
        self.num_bytes += page.num_bytes;
        if let Some((before, _)) = self.pages.insert(id, (page, self.tick)) {
            self.num_bytes -= before.num_bytes;
        }
        if self.num_bytes > self.num_bytes_max {
            // Half at a time, so that the sorting is paid for by many insertions.
            let mut used: Vec<u64> = self.pages.values().map(|(_, used)| *used).collect();
            let middle = used.len() / 2;
            let (_, median, _) = used.select_nth_unstable(middle);
            let median = *median;
            self.pages.retain(|_, (_, used)| *used > median);
            self.num_bytes = self.pages.values().map(|(page, _)| page.num_bytes).sum();
        }
    }
}
