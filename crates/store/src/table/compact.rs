//! Compaction: the live rows of a table as full pages in key order, in a new generation.
//!
//! Everything up to a version is *folded*: the rows that were live as of it become sorted pages, each key once. Pages
//! of later commits are taken over byte by byte, so that the table can still be read as of each of them. What is
//! committed while this goes on is not looked at here: see `maintenance.rs`.
//!
//! A large table is folded range by range of its keys, so that memory is bounded by one range; sorted pages of an
//! earlier compaction are read only for the ranges that they meet.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arrow_array::{Array, BooleanArray, RecordBatch, cast::AsArray, types::Int64Type};
use arrow_row::{Row, Rows as EncodedRows};
use arrow_schema::Schema;
use rayon::prelude::*;

use super::{
    PageReader, PageRows,
    live::{count_older, effect, key_converter},
};
use crate::{
    error::{Error, ErrorKind, Result},
    history::{HistoryEntry, RowCounts},
    keyspace::{Keyspace, Wanted},
    page::{EncodedPage, PageEncoder, PageKind, PageMeta, compact_columns},
    settings::{FLUSH_BYTES, SMALL_PAGES_MIN, StoreOptions},
    state::{Counted, TableState},
};

/// Rows that are put together before they are cut into pages.
const BATCH_ROWS: usize = 16 << 10;

/// Pages that are looked into to find ranges of equal size, and keys that are taken from each.
const SAMPLED_PAGES: usize = 512;
const SAMPLED_KEYS: usize = 32;

/// Encoded bytes of pages that are copied at once.
const COPY_BYTES: u64 = 8 << 20;

/// How a compaction is done.
pub(crate) struct Compaction<'a> {
    /// Versions up to this one become one.
    pub(crate) fold_to: u64,
    pub(crate) page_bytes: usize,
    /// Stored bytes that are sorted in memory at once.
    pub(crate) range_bytes: u64,
    /// Set by whoever wants it to end early.
    pub(crate) is_ending: &'a AtomicBool,
    /// For namespaces of keyed state: entries that have ended by now are left out.
    pub(crate) ended_us: Option<i64>,
}

impl Compaction<'_> {
    /// Writes the pages of a table into a new keyspace. The answer is the table as it goes on; nothing is durable yet.
    pub(crate) fn run(&self, table: &TableState, keyspace: Arc<Keyspace>) -> Result<TableState> {
        let base = table.with_pages(|page| page.version <= self.fold_to);
        let mut writer = Writer {
            encoder: PageEncoder::new(
                PageKind::Upsert,
                Arc::clone(table.spec.schema()),
                self.page_bytes,
            ),
            keyspace: Arc::clone(&keyspace),
            version: self.fold_to,
            pages: Vec::new(),
        };
        let mut counts = BTreeMap::new();
        for range in ranges(&base, self.range_bytes)? {
            self.fold(&base, &range, &mut writer, &mut counts)?;
        }
        let history = note_counts(table, &base, &counts)?;
        let num_sorted_pages = writer.pages.len();
        let mut folded = TableState {
            generation: keyspace.generation(),
            keyspace,
            pages: Arc::new(writer.pages.into_iter().map(Arc::new).collect()),
            num_sorted_pages,
            is_distinct: true,
            counted: Counted::default(),
            oldest: self.fold_to.max(table.begun.number),
            history: Arc::new(history),
            num_live: Arc::default(),
            live: Arc::default(),
            checkpointed: None,
            ..table.clone()
        };
        folded.counted.num_stored = folded.num_stored();
        let later = table
            .pages
            .iter()
            .filter(|page| page.version > self.fold_to);
        copy_pages(table, later, &mut folded)?;
        Ok(folded)
    }

    /// Writes the live rows of one range of keys, sorted, and counts what each version did.
    fn fold(
        &self,
        base: &TableState,
        range: &KeyRange,
        writer: &mut Writer,
        counts: &mut VersionCounts,
    ) -> Result<()> {
        let converter = key_converter(base.spec.key_schema())?;
        let wanted = base.with_pages(|page| range.may_meet(page, base));
        // The encoding of a value of fixed width begins with a byte that says it is not null, and no key is. That of
        // others begins with one that has a meaning.
        let first_type = base.spec.key_schema().field(0).data_type();
        let num_skipped = usize::from(first_type.primitive_width().is_some());
        // Then the prefix of a narrow key is all of it, and needs no look at the key itself.
        let is_whole = key_width(base.spec.key_schema()).is_some_and(|width| width <= 8);
        let mut batches: Vec<RecordBatch> = Vec::new();
        let mut keys: Vec<EncodedRows> = Vec::new();
        let mut found: Vec<Found> = Vec::new();
        // Of the pages that have something in the range: what they do, and their versions.
        let mut metas: Vec<(PageKind, u64)> = Vec::new();
        for page in PageReader::new(&wanted, None) {
            self.check_ending()?;
            let Some(page) = range.cut(page?, base)? else {
                continue;
            };
            let page_idx = u32::try_from(metas.len())
                .map_err(|_| Error::internal("a range has too many pages"))?;
            metas.push((page.kind, page.version));
            let columns = match page.kind {
                PageKind::Upsert => page
                    .rows
                    .project(base.spec.key_columns())
                    .map_err(|error| Error::internal("page has no keys").with_source(error))?,
                PageKind::Delete => page.rows.clone(),
            };
            let encoded = converter
                .convert_columns(columns.columns())
                .map_err(|error| Error::data("keys are not readable").with_source(error))?;
            for (row_idx, key) in (0..).zip(encoded.iter()) {
                found.push(Found {
                    prefix: prefix(key.as_ref(), num_skipped),
                    page_idx,
                    row_idx,
                });
            }
            keys.push(encoded);
            batches.push(page.rows);
        }
        let key = |found: &Found| -> Row<'_> {
            keys[found.page_idx as usize].row(found.row_idx as usize)
        };
        // Stable, so that rows of one key stay in the order in which they were written. Pages of an earlier compaction
        // are in order already, and this sort makes use of that.
        if is_whole {
            found.sort_by_key(|found| found.prefix);
        } else {
            found.sort_by(|a, b| a.prefix.cmp(&b.prefix).then_with(|| key(a).cmp(&key(b))));
        }
        let page_of = |found: &Found| metas[found.page_idx as usize];
        // Positions among the upsert pages: only those go together.
        let mut position = Vec::with_capacity(batches.len());
        let mut upserts: Vec<&RecordBatch> = Vec::new();
        for ((kind, _), batch) in metas.iter().zip(&batches) {
            position.push(upserts.len());
            if *kind == PageKind::Upsert {
                upserts.push(batch);
            }
        }
        let mut places: Vec<(usize, usize)> = Vec::with_capacity(found.len());
        let one_key = |a: &Found, b: &Found| a.prefix == b.prefix && (is_whole || key(a) == key(b));
        for group in found.chunk_by(one_key) {
            let mut before = None;
            for found in group {
                let (kind, version) = page_of(found);
                count(counts, kind, version, before);
                before = Some((kind, version));
            }
            let Some(newest) = group.last() else {
                continue;
            };
            let (page_idx, row) = (newest.page_idx as usize, newest.row_idx as usize);
            if page_of(newest).0 == PageKind::Upsert && !self.has_ended(&batches[page_idx], row) {
                places.push((position[page_idx], row));
            }
        }
        let num_at_once = BATCH_ROWS * rayon::current_num_threads();
        for places in places.chunks(num_at_once) {
            self.check_ending()?;
            let encoded: Vec<Result<Vec<EncodedPage>>> = places
                .par_chunks(BATCH_ROWS)
                .map(|places| gather(&upserts, places, &writer.encoder))
                .collect();
            for pages in encoded {
                writer.write(pages?)?;
            }
        }
        Ok(())
    }

    fn check_ending(&self) -> Result<()> {
        if self.is_ending.load(Ordering::Relaxed) {
            return Err(Error::new(
                ErrorKind::Cancelled,
                "compaction was ended because the store is being closed",
            ));
        }
        Ok(())
    }

    fn has_ended(&self, rows: &RecordBatch, row: usize) -> bool {
        self.ended_us.is_some_and(|now_us| {
            let expires = rows.column(2).as_primitive::<Int64Type>();
            expires.is_valid(row) && expires.value(row) <= now_us
        })
    }
}

/// A row or deleted key in a page, with the first bytes of its encoded key.
#[derive(Clone, Copy)]
struct Found {
    prefix: u64,
    page_idx: u32,
    row_idx: u32,
}

/// Bytes of a key of one column of fixed width; `None` for all others.
fn key_width(key_schema: &Schema) -> Option<usize> {
    match &key_schema.fields()[..] {
        [field] => field.data_type().primitive_width(),
        _ => None,
    }
}

/// Eight bytes of an encoded key, from the front but for `num_skipped`, as a number that compares as they do.
fn prefix(key: &[u8], num_skipped: usize) -> u64 {
    let mut bytes = [0; 8];
    let known = key.get(num_skipped..).unwrap_or_default();
    let len = known.len().min(8);
    bytes[..len].copy_from_slice(&known[..len]);
    u64::from_be_bytes(bytes)
}

/// Rows added and removed by each version.
type VersionCounts = BTreeMap<u64, (u64, u64)>;

fn count(
    counts: &mut VersionCounts,
    kind: PageKind,
    version: u64,
    before: Option<(PageKind, u64)>,
) {
    let counts = counts.entry(version).or_default();
    effect(kind, version, before, &mut counts.0, &mut counts.1);
}

/// The history of a table, with what folding has counted: afterwards nobody can count it any more.
fn note_counts(
    table: &TableState,
    base: &TableState,
    counts: &VersionCounts,
) -> Result<Vec<HistoryEntry>> {
    // Those of earlier incarnations, which tell how many rows a replacement has removed.
    let mut history = count_older(table)?;
    let begun = table.begun.number;
    // What an earlier compaction has folded was counted then.
    let first = if table.oldest == begun {
        begun
    } else {
        table.oldest + 1
    };
    // Versions before may be known in part only, so that some take away more than they bring.
    let (num_added, num_removed) = counts
        .range(..first)
        .fold((0, 0), |(added, removed), (_, counts)| {
            (added + counts.0, removed + counts.1)
        });
    let mut num_live: u64 = u64::saturating_sub(num_added, num_removed);
    let at = history.partition_point(|entry| entry.version.number < first);
    let mut num_before = match at.checked_sub(1) {
        None => Some(0),
        Some(before) => history[before].counts.map(|counts| counts.num_live),
    };
    let last = base.pages.last().map_or(begun, |page| page.version);
    for entry in history[at..]
        .iter_mut()
        .take_while(|entry| entry.version.number <= last)
    {
        let found = counts.get(&entry.version.number);
        let (num_added, mut num_removed) = found.copied().unwrap_or_default();
        num_live = (num_live + num_added).saturating_sub(num_removed);
        if entry.version.number == begun {
            let Some(num_before) = num_before else {
                continue;
            };
            num_removed += num_before;
        }
        num_before = Some(num_live);
        entry.counts.get_or_insert(RowCounts {
            num_added,
            num_removed,
            num_live,
        });
    }
    Ok(history)
}

/// Encodes rows from many batches as pages.
fn gather(
    batches: &[&RecordBatch],
    places: &[(usize, usize)],
    encoder: &PageEncoder,
) -> Result<Vec<EncodedPage>> {
    let gathered = arrow_select::interleave::interleave_record_batch(batches, places);
    match gathered {
        Ok(rows) => encoder.encode(&rows),
        // Many pages can have more distinct values together than the keys of one dictionary can count.
        Err(_) if places.len() > 1 => {
            let (first, second) = places.split_at(places.len() / 2);
            let mut pages = gather(batches, first, encoder)?;
            pages.extend(gather(batches, second, encoder)?);
            Ok(pages)
        }
        Err(error) => {
            Err(Error::invalid("rows of these types cannot be compacted").with_source(error))
        }
    }
}

struct Writer {
    encoder: PageEncoder,
    keyspace: Arc<Keyspace>,
    version: u64,
    pages: Vec<PageMeta>,
}

impl Writer {
    fn write(&mut self, pages: Vec<EncodedPage>) -> Result<()> {
        let first_id = self.keyspace.take_page_ids(pages.len());
        let ids = first_id..;
        let metas = ids.clone().zip(&pages);
        self.pages
            .extend(metas.map(|(id, page)| page.meta(id, self.version)));
        let pages = pages.into_iter().map(|page| page.bytes);
        self.keyspace.write(ids.zip(pages));
        self.keyspace.relieve(FLUSH_BYTES, &Wanted::All)
    }
}

/// Takes pages of a table over into another generation, as they are and at the end.
pub(crate) fn copy_pages<'a>(
    from: &TableState,
    pages: impl Iterator<Item = &'a Arc<PageMeta>>,
    to: &mut TableState,
) -> Result<()> {
    let mut window: Vec<&PageMeta> = Vec::new();
    let mut copied: Vec<PageMeta> = Vec::new();
    let mut copy = |window: &mut Vec<&PageMeta>| -> Result<()> {
        let buffers = from.keyspace.read(window)?;
        let first_id = to.keyspace.take_page_ids(window.len());
        let mut encoded = Vec::with_capacity(window.len());
        for ((id, page), bytes) in (first_id..).zip(window.drain(..)).zip(&buffers) {
            if bytes.len() != page.num_bytes as usize || crc32c::crc32c(bytes) != page.crc {
                return Err(Error::data(format!(
                    "{}: page has a wrong checksum: page=`{}`",
                    from.keyspace.place(),
                    page.id
                )));
            }
            encoded.push((id, bytes::Bytes::copy_from_slice(bytes)));
            copied.push(PageMeta { id, ..page.clone() });
        }
        to.keyspace.write(encoded);
        to.keyspace.relieve(FLUSH_BYTES, &Wanted::All)
    };
    let mut window_bytes = 0;
    for page in pages {
        window_bytes += u64::from(page.num_bytes);
        window.push(page);
        if window_bytes >= COPY_BYTES {
            copy(&mut window)?;
            window_bytes = 0;
        }
    }
    copy(&mut window)?;
    if !copied.is_empty() {
        to.is_distinct = false;
        to.num_live = Arc::default();
        Arc::make_mut(&mut to.pages).extend(copied.into_iter().map(Arc::new));
    }
    Ok(())
}

/// Encoded keys from one to before another; `None` is open.
#[derive(Clone, Debug, Default)]
struct KeyRange {
    start: Option<Box<[u8]>>,
    end: Option<Box<[u8]>>,
}

impl KeyRange {
    fn contains(&self, key: &[u8]) -> bool {
        self.start.as_deref().is_none_or(|start| key >= start)
            && self.end.as_deref().is_none_or(|end| key < end)
    }

    /// Leaves those rows of a page that are in the range, in memory of their own; `None` if there are none.
    fn cut(&self, page: PageRows, table: &TableState) -> Result<Option<PageRows>> {
        if self.start.is_none() && self.end.is_none() {
            return Ok(Some(page));
        }
        let failed = |error| Error::internal("rows of a range cannot be taken").with_source(error);
        let keys = match page.kind {
            PageKind::Upsert => page
                .rows
                .project(table.spec.key_columns())
                .map_err(failed)?,
            PageKind::Delete => page.rows.clone(),
        };
        let encoded = key_converter(table.spec.key_schema())?
            .convert_columns(keys.columns())
            .map_err(|error| Error::data("keys are not readable").with_source(error))?;
        let is_inside: BooleanArray = encoded
            .iter()
            .map(|key| Some(self.contains(key.as_ref())))
            .collect();
        if is_inside.true_count() == 0 {
            return Ok(None);
        }
        let rows =
            arrow_select::filter::filter_record_batch(&page.rows, &is_inside).map_err(failed)?;
        // Views and dictionaries would hold the whole page.
        let columns = compact_columns(rows.columns())?;
        let rows = RecordBatch::try_new(rows.schema(), columns).map_err(failed)?;
        Ok(Some(PageRows { rows, ..page }))
    }

    /// Whether a page may have a key in the range, going by the bounds of its first key column.
    fn may_meet(&self, page: &PageMeta, table: &TableState) -> bool {
        let column = match page.kind {
            PageKind::Upsert => table.spec.key_columns()[0],
            PageKind::Delete => 0,
        };
        let Some((min, max)) = page
            .stats
            .get(column)
            .and_then(|stats| stats.bounds.as_ref())
        else {
            return true;
        };
        // A key begins with the encoding of its first column, so only as many bytes can be compared.
        let cut = |key: &'_ [u8], len: usize| -> Box<[u8]> { key[..key.len().min(len)].into() };
        self.start
            .as_deref()
            .is_none_or(|start| **max >= *cut(start, max.len()))
            && self
                .end
                .as_deref()
                .is_none_or(|end| **min <= *cut(end, min.len()))
    }
}

/// Cuts the keys of a table into ranges of about `range_bytes` each.
fn ranges(table: &TableState, range_bytes: u64) -> Result<Vec<KeyRange>> {
    let num_ranges = usize::try_from(table.num_bytes().div_ceil(range_bytes.max(1))).unwrap_or(1);
    if num_ranges <= 1 {
        return Ok(vec![KeyRange::default()]);
    }
    let step = table.pages.len().div_ceil(SAMPLED_PAGES).max(1);
    let sampled: Vec<_> = table.pages.iter().step_by(step).cloned().collect();
    let sample = TableState {
        pages: Arc::new(sampled),
        num_sorted_pages: 0,
        ..table.clone()
    };
    let converter = key_converter(table.spec.key_schema())?;
    let mut keys: Vec<Box<[u8]>> = Vec::new();
    for page in PageReader::new(&sample, Some(table.spec.key_columns())) {
        let page = page?;
        let encoded = converter
            .convert_columns(page.rows.columns())
            .map_err(|error| Error::data("keys are not readable").with_source(error))?;
        let step = encoded.num_rows().div_ceil(SAMPLED_KEYS).max(1);
        keys.extend(encoded.iter().step_by(step).map(|key| key.as_ref().into()));
    }
    keys.sort_unstable();
    keys.dedup();
    let mut ranges = vec![KeyRange::default()];
    for i in 1..num_ranges {
        let Some(cut) = keys.get(i * keys.len() / num_ranges) else {
            continue;
        };
        let last = ranges.len() - 1;
        if ranges[last].start.as_ref() == Some(cut) {
            continue;
        }
        ranges[last].end = Some(cut.clone());
        ranges.push(KeyRange {
            start: Some(cut.clone()),
            end: None,
        });
    }
    Ok(ranges)
}

/// A table of fewer pages is small, whatever of it is dead; and a compaction costs more than to keep it.
const COMPACT_PAGES_MIN: usize = 8;

/// Whether a table has so much that may be dead or is small that a compaction pays.
///
/// How much is dead is not known without reading all keys, so it is what may be at most. Where rows are only added, a
/// table is rewritten each time it has doubled, which costs as much as writing it did, and is sorted then and read
/// without a look at its keys.
///
/// `dead_factor` is how many dead rows to a live one are too many.
pub(crate) fn is_due(
    table: &TableState,
    fold_to: u64,
    dead_factor: u64,
    options: &StoreOptions,
) -> bool {
    let base = table.with_pages(|page| page.version <= fold_to);
    let small_bytes = options.page_bytes / 4;
    let later = &base.pages[base.num_sorted_pages..];
    let num_small = later
        .iter()
        .filter(|page| (page.num_bytes as usize) < small_bytes)
        .count();
    let num_full = base.num_bytes() / (options.page_bytes.max(1) as u64);
    if num_small >= SMALL_PAGES_MIN && num_small as u64 >= num_full {
        return true;
    }
    if base.pages.len() < COMPACT_PAGES_MIN {
        return false;
    }
    let num_dead_max = base.num_dead_max();
    let num_live_min = base.num_stored() - num_dead_max;
    !base.is_distinct && num_dead_max >= dead_factor * num_live_min
}
