use super::rank::Ranks;
use super::stride::{Spread, Stride};
use super::{AHEAD_KEYS, NO_MATCH, row_count};
use crate::huge;
use crate::prefetch::prefetch;

/// Row numbers at the place of their key: for keys that are dense, or that are evenly spaced.
///
/// ```text
/// keys 7, 9, 8     ->  first_key 7, rows [0, 2, 1]
/// keys 70, 90, 80  ->  first_key 70, stride 10, rows [0, 2, 1]
/// ```
///
/// Where rows come in the order of their keys, their numbers need not be kept: the row of a key is the number of keys
/// before it.
#[derive(Debug)]
pub(crate) struct DirectIndex {
    first_key: i64,
    /// `None` for 1.
    stride: Option<Stride>,
    rows: Rows,
}

#[derive(Debug)]
enum Rows {
    /// The row of each place, or [`NO_MATCH`].
    Any(Vec<u32>),
    /// Rows in the order of their keys, which leave out some places.
    Ordered(Ranks),
    /// Rows in the order of their keys, one at each of so many places so far.
    Whole(u32),
}

/// Rows in order that leave out places have numbers up to so many places: 32 KiB, which are in the first cache or near
/// it, where to load a number is less than to count bits. 1,000 keys in 6,000 places, million a second: 253 and 149.
const NUMBERED_PLACES: usize = 8 << 10;

/// An index of fewer bytes is in the second cache: nothing has to be asked for.
const CACHED_BYTES: usize = 256 << 10;

impl DirectIndex {
    /// An index without keys, and for none.
    pub(crate) fn empty() -> Self {
        Self {
            first_key: 0,
            stride: None,
            rows: Rows::Whole(0),
        }
    }

    /// For so many keys of this spread. If it is ascending, they are inserted in their order.
    pub(crate) fn new(spread: Spread, num_keys: usize) -> Self {
        let num_places = usize::try_from(spread.num_places());
        // `Layout::choose` bounds them far below `usize::MAX`.
        let num_places = num_places.expect("a direct index has a bounded range");
        let rows = if spread.is_ascending && num_places == num_keys {
            Rows::Whole(0)
        } else if spread.is_ascending && num_places > NUMBERED_PLACES {
            Rows::Ordered(Ranks::new(num_places))
        } else {
            Rows::Any(huge::vec(NO_MATCH, num_places))
        };
        Self {
            first_key: spread.min,
            stride: (spread.stride > 1).then(|| Stride::new(spread.stride)),
            rows,
        }
    }

    /// Inserts keys whose rows count up from `first_row`, after those of all calls before. Each must have a place.
    /// `replaced` is told the old and the new row of every key that was there already.
    pub(crate) fn insert(
        &mut self,
        keys: &[i64],
        first_row: u32,
        mut replaced: impl FnMut(u32, u32),
    ) {
        let Self {
            first_key, stride, ..
        } = *self;
        let place_of = |key: i64| index(place(first_key, stride, key));
        match &mut self.rows {
            Rows::Any(rows) => {
                for (row, &key) in (first_row..).zip(keys) {
                    let before = std::mem::replace(&mut rows[place_of(key)], row);
                    if before != NO_MATCH {
                        replaced(before, row);
                    }
                }
            }
            Rows::Ordered(ranks) => keys.iter().for_each(|&key| ranks.insert(place_of(key))),
            // The keys of these rows are those of the next places.
            Rows::Whole(num_rows) => {
                let mut rows = (first_row..).zip(keys);
                debug_assert!(rows.all(|(row, &key)| place_of(key) == row as usize));
                *num_rows += row_count(keys.len());
            }
        }
    }

    /// Ends a run of inserts: only then can keys be looked for.
    pub(crate) fn settle(&mut self) {
        if let Rows::Ordered(ranks) = &mut self.rows {
            ranks.count();
        }
    }

    /// The row of one key.
    #[inline]
    pub(crate) fn find(&self, key: i64) -> u32 {
        self.rows.at(place(self.first_key, self.stride, key))
    }

    pub(crate) fn probe(&self, keys: &[i64], out: &mut Vec<u32>) {
        let is_far = self.num_bytes() > CACHED_BYTES;
        match &self.rows {
            Rows::Any(rows) if is_far => {
                let ask = |place| prefetch(rows.get(index(place)));
                self.probe_ahead(keys, ask, |place| row_at(rows, place), out);
            }
            Rows::Ordered(ranks) if is_far => {
                let ask = |place| ranks.ask(place);
                self.probe_ahead(keys, ask, |place| ranks.rank(place), out);
            }
            Rows::Any(rows) => self.probe_rows(keys, |place| row_at(rows, place), out),
            Rows::Ordered(ranks) => self.probe_rows(keys, |place| ranks.rank(place), out),
            Rows::Whole(num_rows) => {
                self.probe_rows(keys, |place| same_row(*num_rows, place), out);
            }
        }
    }

    #[inline]
    fn probe_rows(&self, keys: &[i64], row: impl Fn(u64) -> u32, out: &mut Vec<u32>) {
        let distance = |key: &i64| distance(self.first_key, *key);
        match self.stride {
            None => out.extend(keys.iter().map(|key| row(distance(key)))),
            Some(stride) => {
                out.extend(keys.iter().map(|key| row(stride.quotient(distance(key)))));
            }
        }
    }

    /// As [`probe_rows`](Self::probe_rows), with what is looked at asked for before.
    #[inline]
    fn probe_ahead(
        &self,
        keys: &[i64],
        ask: impl Fn(u64),
        row: impl Fn(u64) -> u32,
        out: &mut Vec<u32>,
    ) {
        let place = |key: &i64| place(self.first_key, self.stride, *key);
        let mut ahead = keys.iter().skip(AHEAD_KEYS);
        out.extend(keys.iter().map(|key| {
            if let Some(key) = ahead.next() {
                ask(place(key));
            }
            row(place(key))
        }));
    }

    pub(crate) fn num_bytes(&self) -> usize {
        match &self.rows {
            Rows::Any(rows) => rows.capacity() * size_of::<u32>(),
            Rows::Ordered(ranks) => ranks.num_bytes(),
            Rows::Whole(_) => 0,
        }
    }
}

impl Rows {
    #[inline]
    fn at(&self, place: u64) -> u32 {
        match self {
            Self::Any(rows) => row_at(rows, place),
            Self::Ordered(ranks) => ranks.rank(place),
            Self::Whole(num_rows) => same_row(*num_rows, place),
        }
    }
}

#[inline]
fn row_at(rows: &[u32], place: u64) -> u32 {
    rows.get(index(place)).copied().unwrap_or(NO_MATCH)
}

/// The row of a place that has its own number.
#[inline]
fn same_row(num_rows: u32, place: u64) -> u32 {
    let row = u32::try_from(place).ok();
    row.filter(|row| *row < num_rows).unwrap_or(NO_MATCH)
}

/// Where a key stands; past the end if it does not.
#[inline]
fn place(first_key: i64, stride: Option<Stride>, key: i64) -> u64 {
    let distance = distance(first_key, key);
    stride.map_or(distance, |stride| stride.quotient(distance))
}

#[inline]
fn index(place: u64) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

/// The distance from the first key; that of a key below it wraps, and is longer than any index.
#[inline]
fn distance(first_key: i64, key: i64) -> u64 {
    key.wrapping_sub(first_key).cast_unsigned()
}
