//! Which rows of a table count: the newest of each key that was not deleted after it.

use std::collections::HashMap;

use arrow_array::{BooleanArray, RecordBatch};
use arrow_buffer::BooleanBufferBuilder;
use arrow_row::{RowConverter, SortField};
use arrow_schema::{DataType, Schema};
use foldhash::fast::RandomState;

use crate::{
    error::{Error, Result},
    history::{HistoryEntry, RowCounts},
    page::PageKind,
    state::TableState,
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

impl LiveRows {
    /// Reads the keys of all pages, unless every stored row is known to be live.
    ///
    /// Costs memory for each distinct key: 32 bytes for keys of fixed width up to 14 bytes, else the key's encoding and
    /// about 60.
    pub(crate) fn find(table: &TableState) -> Result<Self> {
        if table.is_distinct {
            return Ok(Self::all(table));
        }
        let converter = key_converter(table.spec.key_schema())?;
        let mut newest = Newest::new(table.spec.key_schema());
        let mut counter = Counter::default();
        for (page_idx, page) in (0..).zip(PageReader::new(table, Some(table.spec.key_columns()))) {
            let page = page?;
            counter.begin(page.version);
            let keys = converter
                .convert_columns(page.rows.columns())
                .map_err(|error| Error::data("keys are not readable").with_source(error))?;
            for (row_idx, key) in (0..).zip(keys.iter()) {
                let before = newest
                    .put(key.as_ref(), (page_idx, row_idx))
                    .map(|(at, _)| {
                        let before = &table.pages[at as usize];
                        (before.kind, before.version)
                    });
                counter.add(page.kind, page.version, before);
            }
        }
        let mut masks: Vec<BooleanBufferBuilder> = table
            .pages
            .iter()
            .map(|page| {
                let mut mask = BooleanBufferBuilder::new(page.num_rows as usize);
                mask.append_n(page.num_rows as usize, false);
                mask
            })
            .collect();
        newest.for_each(|(page_idx, row_idx)| {
            masks[page_idx as usize].set_bit(row_idx as usize, true);
        });
        let masks = masks
            .into_iter()
            .map(|mut mask| Some(BooleanArray::new(mask.finish(), None)));
        let counts = counter.finish();
        Ok(Self {
            masks: masks.collect(),
            num_rows: counts.last().map_or(0, |(_, counts)| counts.num_live),
            counts,
        })
    }

    /// Where nothing was replaced or deleted.
    fn all(table: &TableState) -> Self {
        let mut counts: Vec<(u64, RowCounts)> = Vec::new();
        let mut num_live = 0;
        for page in table.pages.iter() {
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
            masks: vec![None; table.pages.len()],
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
    let live = LiveRows::find(table)?;
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
    done: Vec<(u64, RowCounts)>,
    num_added: u64,
    num_removed: u64,
    version: Option<u64>,
}

impl Counter {
    fn begin(&mut self, version: u64) {
        if self.version != Some(version) {
            self.end();
            self.version = Some(version);
        }
    }

    fn end(&mut self) {
        if let Some(version) = self.version.take() {
            let num_before = self.done.last().map_or(0, |(_, counts)| counts.num_live);
            let counts = RowCounts {
                num_added: self.num_added,
                num_removed: self.num_removed,
                num_live: num_before + self.num_added - self.num_removed,
            };
            self.done.push((version, counts));
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

    fn finish(mut self) -> Vec<(u64, RowCounts)> {
        self.end();
        self.done
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
            Self::Short(newest) => {
                let mut bytes = [0; 16];
                bytes[..key.len()].copy_from_slice(key);
                newest.insert(u128::from_le_bytes(bytes), place)
            }
            Self::Long(newest) => match newest.get_mut(key) {
                Some(before) => Some(std::mem::replace(before, place)),
                None => newest.insert(key.into(), place),
            },
        }
    }

    fn for_each(&self, visit: impl FnMut(Place)) {
        match self {
            Self::Short(newest) => newest.values().copied().for_each(visit),
            Self::Long(newest) => newest.values().copied().for_each(visit),
        }
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
