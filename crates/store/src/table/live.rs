//! Which rows of a table count: the newest of each key that was not deleted after it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, TryLockError},
};

use arrow_array::{BooleanArray, RecordBatch};
use arrow_buffer::BooleanBufferBuilder;
use arrow_row::{RowConverter, SortField};
use arrow_schema::{DataType, Schema};
use foldhash::fast::RandomState;

use crate::{
    error::{Error, Result},
    history::{HistoryEntry, RowCounts},
    page::{PageKind, PageMeta},
    state::TableState,
    store::lock,
    table::PageReader,
};

/// The newest page row of each key, page by page.
pub(crate) struct LiveRows {
    /// One entry per page, oldest first: which of its rows are live; in a delete page, which of its keys are gone and
    /// did not come back. `None` where all are.
    pub(crate) masks: Vec<Option<BooleanArray>>,
    pub(crate) num_rows: u64,
    /// What each version that brought pages did, oldest first.
    pub(crate) counts: Vec<(u64, RowCounts)>,
}

/// The live rows of a table as it was when somebody looked for them last. Shared by the states that follow each other.
#[derive(Default)]
pub(crate) struct LiveCache(Mutex<Option<Known>>);

struct Known {
    /// The pages that were looked at: who has the same list, has the same live rows.
    pages: Arc<Vec<Arc<PageMeta>>>,
    live: Arc<LiveRows>,
}

impl LiveCache {
    /// The live rows of a table, found if they are not known. Others who want them wait meanwhile, but for threads of a
    /// rayon pool: while one of them reads pages, it takes up other work, which may come here for the same table.
    ///
    /// What is known of a table as it was before is the beginning, so that after a commit only those pages are read that
    /// may have a key of the commit.
    pub(crate) fn get(&self, table: &TableState) -> Result<Arc<LiveRows>> {
        let mut known = if rayon::current_thread_index().is_none() {
            lock(&self.0)
        } else {
            match self.0.try_lock() {
                Ok(known) => known,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return LiveRows::find(table).map(Arc::new),
            }
        };
        if let Some(known) = &*known
            && Arc::ptr_eq(&known.pages, &table.pages)
        {
            return Ok(Arc::clone(&known.live));
        }
        let earlier = known.as_ref().filter(|known| {
            let is_same = |(a, b): (&Arc<PageMeta>, &Arc<PageMeta>)| Arc::ptr_eq(a, b);
            known.pages.len() <= table.pages.len()
                && known.pages.iter().zip(table.pages.iter()).all(is_same)
        });
        let live = match earlier {
            Some(earlier)
                if !table.is_distinct && earlier.pages.len() >= table.num_sorted_pages =>
            {
                LiveRows::find_from(table, &earlier.live)?
            }
            _ => LiveRows::find(table)?,
        };
        let live = Arc::new(live);
        // A snapshot of the past must not push out what everybody else wants.
        let is_later = known.as_ref().is_none_or(|known| {
            let last = |pages: &[Arc<PageMeta>]| pages.last().map_or(0, |page| page.version);
            last(&known.pages) <= last(&table.pages)
        });
        if is_later {
            *known = Some(Known {
                pages: Arc::clone(&table.pages),
                live: Arc::clone(&live),
            });
        }
        Ok(live)
    }
}

/// In place of a page and row: a key whose rows are not found yet.
const NOWHERE: Place = (u32::MAX, u32::MAX);

impl LiveRows {
    /// Reads the keys of the pages, unless every stored row is known to be live. Of pages that a compaction wrote only
    /// those are read that may have a key of a later page.
    ///
    /// Costs memory for each distinct key that is read, but for those of a compaction: 32 bytes for keys of fixed width
    /// up to 14 bytes, else the key's encoding and about 60.
    pub(crate) fn find(table: &TableState) -> Result<Self> {
        if table.is_distinct {
            return Ok(Self::all(&table.pages));
        }
        let sorted = Self::all(&table.pages[..table.num_sorted_pages]);
        Self::find_from(table, &sorted)
    }

    /// Goes on from what is known of the first pages.
    fn find_from(table: &TableState, known: &Self) -> Result<Self> {
        let num_known = known.masks.len();
        let keys = KeyReader::new(table)?;
        let mut newest = Newest::new(table.spec.key_schema());
        let mut masks = known.masks.clone();
        if num_known > 0 {
            // Which keys come later, and where they stand in the first pages.
            let num_later = table.pages[num_known..]
                .iter()
                .map(|page| u64::from(page.num_rows));
            let mut sought = SoughtKeys::new(num_later.sum());
            keys.read(
                |page| page >= num_known,
                |_, _, key| {
                    newest.put(key, NOWHERE);
                    sought.add(key);
                },
            )?;
            sought.sort();
            let may_hold = |page: usize| page < num_known && sought.may_stand_in(table, page);
            keys.read(may_hold, |page, row, key| {
                let is_live = |mask: &BooleanArray| mask.value(row as usize);
                if known.masks[page as usize].as_ref().is_none_or(is_live) {
                    newest.replace(key, (page, row));
                }
            })?;
        }
        let mut counter = Counter::default();
        let mut replaced: Vec<Place> = Vec::new();
        let mut version = None;
        keys.read(
            |page| page >= num_known,
            |page, row, key| {
                let meta = &table.pages[page as usize];
                if version != Some(meta.version) {
                    counter.begin(meta.version);
                    version = Some(meta.version);
                }
                let before = newest.put(key, (page, row)).filter(|at| *at != NOWHERE);
                if let Some(at) = before.filter(|at| (at.0 as usize) < num_known) {
                    replaced.push(at);
                }
                let before = before.map(|(at, _)| {
                    let before = &table.pages[at as usize];
                    (before.kind, before.version)
                });
                counter.add(meta.kind, meta.version, before);
            },
        )?;
        replaced.sort_unstable();
        for of_page in replaced.chunk_by(|a, b| a.0 == b.0) {
            let page = of_page[0].0 as usize;
            let mut mask = full_mask(table.pages[page].num_rows, masks[page].as_ref());
            for (_, row) in of_page {
                mask.set_bit(*row as usize, false);
            }
            masks[page] = Some(BooleanArray::new(mask.finish(), None));
        }
        let mut later: Vec<BooleanBufferBuilder> = table.pages[num_known..]
            .iter()
            .map(|page| {
                let mut mask = BooleanBufferBuilder::new(page.num_rows as usize);
                mask.append_n(page.num_rows as usize, false);
                mask
            })
            .collect();
        newest.for_each(|(page, row)| {
            // The last round has put every key into a later page.
            later[page as usize - num_known].set_bit(row as usize, true);
        });
        let later = later
            .into_iter()
            .map(|mut mask| Some(BooleanArray::new(mask.finish(), None)));
        masks.extend(later);
        let mut counts = known.counts.clone();
        counter.finish_after(&mut counts);
        Ok(Self {
            masks,
            num_rows: counts.last().map_or(0, |(_, counts)| counts.num_live),
            counts,
        })
    }

    /// Where nothing was replaced or deleted.
    fn all(pages: &[Arc<PageMeta>]) -> Self {
        let mut counts: Vec<(u64, RowCounts)> = Vec::new();
        let mut num_live = 0;
        for page in pages {
            let num_rows = u64::from(page.num_rows);
            num_live += num_rows;
            match counts.last_mut() {
                Some((version, counts)) if *version == page.version => {
                    counts.num_added += num_rows;
                    counts.num_live = num_live;
                }
                _ => counts.push((
                    page.version,
                    RowCounts {
                        num_added: num_rows,
                        num_removed: 0,
                        num_live,
                    },
                )),
            }
        }
        Self {
            masks: vec![None; pages.len()],
            num_rows: num_live,
            counts,
        }
    }
}

/// The history of a table, with the row counts of all commits whose rows are still there.
pub(crate) fn count_history(table: &TableState) -> Result<Vec<HistoryEntry>> {
    let mut history = count_older(table)?;
    fill_counts(&mut history, table)?;
    Ok(history)
}

/// The history of a table, with the row counts of its earlier incarnations.
pub(crate) fn count_older(table: &TableState) -> Result<Vec<HistoryEntry>> {
    let mut history = table.history.to_vec();
    let next = table.older.iter().skip(1).chain([table]);
    for (older, next) in table.older.iter().zip(next) {
        // A commit may have written to the one before it began the next.
        let end = history.partition_point(|entry| entry.version.number < next.begun.number);
        fill_counts(&mut history[..end], older)?;
    }
    Ok(history)
}

/// Fills in what the history does not know yet, by counting. The last entries are those of `table`'s incarnation,
/// those before of earlier ones.
pub(crate) fn fill_counts(history: &mut [HistoryEntry], table: &TableState) -> Result<()> {
    let begun = table.begun.number;
    let first = history.partition_point(|entry| entry.version.number < begun);
    let (before, own) = history.split_at_mut(first);
    // What a compaction has folded cannot be told apart any more.
    let is_there =
        |entry: &HistoryEntry| entry.version.number > table.oldest || table.oldest == begun;
    let is_wanted = |entry: &HistoryEntry| entry.counts.is_none() && is_there(entry);
    if !own.iter().any(is_wanted) {
        return Ok(());
    }
    let live = table.live_rows()?;
    let num_before = match before.last() {
        None => Some(0),
        Some(entry) => entry.counts.map(|counts| counts.num_live),
    };
    for entry in own.iter_mut().filter(|entry| is_wanted(entry)) {
        let at = live
            .counts
            .partition_point(|(version, _)| *version <= entry.version.number);
        let mut counts = RowCounts {
            num_added: 0,
            num_removed: 0,
            num_live: 0,
        };
        if let Some((version, found)) = at.checked_sub(1).map(|at| live.counts[at]) {
            if version == entry.version.number {
                counts = found;
            } else {
                // A commit that brought no page.
                counts.num_live = found.num_live;
            }
        }
        if entry.version.number == begun {
            match num_before {
                Some(num_before) => counts.num_removed += num_before,
                None => continue,
            }
        }
        entry.counts = Some(counts);
    }
    Ok(())
}

/// Counts what each version adds and removes.
#[derive(Default)]
struct Counter {
    /// Versions with the rows that they added and removed.
    done: Vec<(u64, u64, u64)>,
    num_added: u64,
    num_removed: u64,
    version: Option<u64>,
}

impl Counter {
    fn begin(&mut self, version: u64) {
        self.end();
        self.version = Some(version);
    }

    fn end(&mut self) {
        if let Some(version) = self.version.take() {
            self.done.push((version, self.num_added, self.num_removed));
            (self.num_added, self.num_removed) = (0, 0);
        }
    }

    /// Takes in one row or key, given what stood for its key before and since when.
    fn add(&mut self, kind: PageKind, version: u64, before: Option<(PageKind, u64)>) {
        effect(
            kind,
            version,
            before,
            &mut self.num_added,
            &mut self.num_removed,
        );
    }

    /// Puts what was counted behind what is known of versions before.
    fn finish_after(mut self, counts: &mut Vec<(u64, RowCounts)>) {
        self.end();
        for (version, num_added, num_removed) in self.done {
            let num_before = counts.last().map_or(0, |(_, counts)| counts.num_live);
            let num_live = num_before + num_added - num_removed;
            counts.push((
                version,
                RowCounts {
                    num_added,
                    num_removed,
                    num_live,
                },
            ));
        }
    }
}

/// What one row or key of a version does to the rows that the version adds and removes, given what stood for its key
/// before and since when.
pub(crate) fn effect(
    kind: PageKind,
    version: u64,
    before: Option<(PageKind, u64)>,
    num_added: &mut u64,
    num_removed: &mut u64,
) {
    let live_since = before
        .filter(|(kind, _)| *kind == PageKind::Upsert)
        .map(|(_, version)| version);
    match (kind, live_since) {
        (PageKind::Upsert, None) => *num_added += 1,
        (PageKind::Upsert, Some(since)) if since < version => {
            *num_added += 1;
            *num_removed += 1;
        }
        (PageKind::Delete, Some(since)) if since < version => *num_removed += 1,
        // Added by this commit and removed by it again: there it is as if it had never been.
        (PageKind::Delete, Some(_)) => *num_added -= 1,
        (PageKind::Upsert, Some(_)) | (PageKind::Delete, None) => {}
    }
}

/// A page and a row in it.
type Place = (u32, u32);

/// The newest place of each encoded key.
enum Newest {
    /// Keys whose encoding always has the same length of at most 16 bytes.
    Short(HashMap<u128, Place, RandomState>),
    Long(HashMap<Box<[u8]>, Place, RandomState>),
}

impl Newest {
    fn new(key_schema: &Schema) -> Self {
        // The row encoding of a value of fixed width is one byte longer than the value.
        let width = |data_type: &DataType| match data_type {
            DataType::Boolean => Some(2),
            data_type => data_type.primitive_width().map(|width| width + 1),
        };
        let widths = key_schema.fields().iter().map(|f| width(f.data_type()));
        match widths.sum::<Option<usize>>() {
            Some(0..=16) => Self::Short(HashMap::default()),
            _ => Self::Long(HashMap::default()),
        }
    }

    /// Notes a newer place of a key and returns the one before.
    fn put(&mut self, key: &[u8], place: Place) -> Option<Place> {
        match self {
            Self::Short(newest) => newest.insert(short(key), place),
            Self::Long(newest) => match newest.get_mut(key) {
                Some(before) => Some(std::mem::replace(before, place)),
                None => newest.insert(key.into(), place),
            },
        }
    }

    /// Notes another place of a key that has one.
    fn replace(&mut self, key: &[u8], place: Place) {
        let found = match self {
            Self::Short(newest) => newest.get_mut(&short(key)),
            Self::Long(newest) => newest.get_mut(key),
        };
        if let Some(found) = found {
            *found = place;
        }
    }

    fn for_each(&self, visit: impl FnMut(Place)) {
        match self {
            Self::Short(newest) => newest.values().copied().for_each(visit),
            Self::Long(newest) => newest.values().copied().for_each(visit),
        }
    }
}

/// An encoded key of at most 16 bytes as a number.
fn short(key: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    bytes[..key.len()].copy_from_slice(key);
    u128::from_le_bytes(bytes)
}

/// A mask with all bits set, or a copy of one.
fn full_mask(num_rows: u32, mask: Option<&BooleanArray>) -> BooleanBufferBuilder {
    let mut bits = BooleanBufferBuilder::new(num_rows as usize);
    match mask {
        None => bits.append_n(num_rows as usize, true),
        Some(mask) => bits.append_buffer(mask.values()),
    }
    bits
}

/// More keys than this stand in most pages.
const SOUGHT_KEYS_MAX: u64 = 64 << 10;

/// Keys that are looked for in pages, encoded and in order.
struct SoughtKeys(Option<Vec<Box<[u8]>>>);

impl SoughtKeys {
    fn new(num_keys: u64) -> Self {
        Self((num_keys <= SOUGHT_KEYS_MAX).then(Vec::new))
    }

    fn add(&mut self, key: &[u8]) {
        if let Some(keys) = &mut self.0 {
            keys.push(key.into());
        }
    }

    fn sort(&mut self) {
        if let Some(keys) = &mut self.0 {
            keys.sort_unstable();
        }
    }

    /// Whether the bounds of a page's first key column leave room for one of the keys.
    fn may_stand_in(&self, table: &TableState, page: usize) -> bool {
        let page = &table.pages[page];
        let column = match page.kind {
            PageKind::Upsert => table.spec.key_columns()[0],
            PageKind::Delete => 0,
        };
        let bounds = page
            .stats
            .get(column)
            .and_then(|stats| stats.bounds.as_ref());
        let (Some(keys), Some((min, max))) = (&self.0, bounds) else {
            return true;
        };
        // A key begins with the encoding of its first column, and no such encoding is the beginning of another.
        let first = keys.partition_point(|key| **key < **min);
        keys.get(first)
            .is_some_and(|key| key[..key.len().min(max.len())] <= **max)
    }
}

/// Reads the encoded keys of some pages of a table.
struct KeyReader<'t> {
    table: &'t TableState,
    converter: RowConverter,
}

impl<'t> KeyReader<'t> {
    fn new(table: &'t TableState) -> Result<Self> {
        let converter = key_converter(table.spec.key_schema())?;
        Ok(Self { table, converter })
    }

    /// Calls `visit` with the page, the row in it and the key, in this order.
    fn read(
        &self,
        is_wanted: impl Fn(usize) -> bool,
        mut visit: impl FnMut(u32, u32, &[u8]),
    ) -> Result<()> {
        let wanted: Vec<usize> = (0..self.table.pages.len())
            .filter(|page| is_wanted(*page))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let key_columns = Some(self.table.spec.key_columns());
        let pages = PageReader::of(self.table, key_columns, wanted.iter().copied());
        for (page_idx, page) in wanted.into_iter().zip(pages) {
            let page_idx = u32::try_from(page_idx)
                .map_err(|_| Error::internal("a table has too many pages"))?;
            let keys = self
                .converter
                .convert_columns(page?.rows.columns())
                .map_err(|error| Error::data("keys are not readable").with_source(error))?;
            for (row_idx, key) in (0..).zip(keys.iter()) {
                visit(page_idx, row_idx, key.as_ref());
            }
        }
        Ok(())
    }
}

/// Encodes keys as bytes that compare as the keys do.
pub(crate) fn key_converter(key_schema: &Schema) -> Result<RowConverter> {
    let fields = key_schema
        .fields()
        .iter()
        .map(|f| SortField::new(f.data_type().clone()));
    RowConverter::new(fields.collect())
        .map_err(|error| Error::internal("keys cannot be encoded").with_source(error))
}

/// The number of rows that a mask keeps.
pub(crate) fn num_kept(mask: &BooleanArray) -> usize {
    mask.values().count_set_bits()
}

/// Keeps the live rows of a page.
pub(crate) fn filter(rows: &RecordBatch, mask: Option<&BooleanArray>) -> Result<RecordBatch> {
    match mask {
        Some(mask) if num_kept(mask) < mask.len() => {
            arrow_select::filter::filter_record_batch(rows, mask)
                .map_err(|error| Error::internal("rows cannot be filtered").with_source(error))
        }
        _ => Ok(rows.clone()),
    }
}
