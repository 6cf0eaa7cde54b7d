//! The index: key -> build row, in the layout that suits the keys.

mod bytes;
mod direct;
mod hash;
mod layout;
mod parts;
mod rank;
mod stride;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayAccessor, FixedSizeBinaryArray};
use arrow_schema::DataType;
use rayon::prelude::*;

pub(crate) use self::bytes::BytesIndex;
use self::direct::DirectIndex;
use self::hash::HashIndex;
pub use self::layout::{Layout, LayoutKind};
use self::stride::Spread;
use crate::key::hash::hash_bytes;
use crate::key::{KeyForm, KeyValues};
use crate::{Error, ErrorKind, Result};

/// The row number that says: no row.
pub const NO_MATCH: u32 = u32::MAX;

/// The most rows that a dimension takes in, superseded ones included.
pub const BUILD_ROWS_MAX: u32 = u32::MAX - 1;

/// Adds to a number of build rows, up to [`BUILD_ROWS_MAX`].
pub(crate) fn add_build_rows(table: &str, num_rows: u32, added: usize) -> Result<u32> {
    let num_rows = u64::from(num_rows) + added as u64;
    if let Some(num_rows) = u32::try_from(num_rows)
        .ok()
        .filter(|&rows| rows <= BUILD_ROWS_MAX)
    {
        return Ok(num_rows);
    }
    Err(Error::new(
        ErrorKind::Resource,
        format!(
            "a dimension has too many rows: num_rows=`{num_rows}` maximum=`{BUILD_ROWS_MAX}` \
             dimension=`{table}`"
        ),
    ))
}

/// What is looked at for a key is asked for while so many keys before it are looked for: they take longer than memory
/// does. To ask for all at once is of no use, since a processor forgets what it cannot begin.
const AHEAD_KEYS: usize = 64;

/// What stands for a key, and the complement of its row: so a table of free slots is all zeros, memory as it comes from
/// the system.
type Slot<K> = (K, u32);

/// The row that has a slot, or [`NO_MATCH`].
#[inline]
fn row_of<K>(slot: &Slot<K>) -> u32 {
    !slot.1
}

/// The place after another, and after the last the first.
#[inline]
fn next(place: usize, num_places: usize) -> usize {
    if place + 1 == num_places {
        0
    } else {
        place + 1
    }
}

#[derive(Debug)]
pub(crate) enum Index {
    Direct(DirectIndex),
    Hash(HashIndex),
    Bytes(BytesIndex),
}

/// Keys whose spread one thread finds at a time.
const SPREAD_KEYS: usize = 64 << 10;

/// How integer keys are spread, and how many keys there are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KeyRange {
    spread: Option<Spread>,
    num_keys: usize,
    /// Bytes of keys that are no integers, more or less.
    num_bytes: usize,
}

impl KeyRange {
    /// Takes in integer keys, after those of all calls before; of others nothing but their number and size.
    pub(crate) fn add(&mut self, values: &KeyValues<'_>) {
        self.num_keys += num_values(values);
        self.num_bytes += match values {
            KeyValues::Ints(_) => 0,
            // What cannot be told makes room while it comes.
            KeyValues::Bytes(array) => array.to_data().get_slice_memory_size().unwrap_or(0),
            KeyValues::Rows(rows) => rows.size(),
        };
        if let KeyValues::Ints(keys) = values {
            let parts = keys.par_chunks(SPREAD_KEYS).filter_map(Spread::of);
            let spread = parts.reduce_with(Spread::and);
            self.spread = self.spread.into_iter().chain(spread).reduce(Spread::and);
        }
    }
}

impl Index {
    /// An empty index for the keys that `range` counts. They are inserted in the order in which they were counted.
    pub(crate) fn new(form: &KeyForm, range: KeyRange) -> (Self, Layout) {
        let layout = Layout::choose(form, range.num_keys, range.spread);
        let index = match (layout.kind(), range.spread) {
            (LayoutKind::Direct, None) => Self::Direct(DirectIndex::empty()),
            (LayoutKind::Direct, Some(spread)) => {
                Self::Direct(DirectIndex::new(spread, range.num_keys))
            }
            (LayoutKind::Hash, _) => Self::Hash(HashIndex::new(range.num_keys)),
            (LayoutKind::Bytes | LayoutKind::Row, _) => {
                Self::Bytes(BytesIndex::new(range.num_keys, range.num_bytes))
            }
        };
        (index, layout)
    }

    /// Inserts keys whose rows count up from `first_row`, after those of all calls before. `replaced` is told, now or
    /// when the index [settles](Self::settle), the old and the new row of every key that was there already; the new row
    /// is the one kept.
    pub(crate) fn insert(
        &mut self,
        values: &KeyValues<'_>,
        first_row: u32,
        mut replaced: impl FnMut(u32, u32),
    ) -> Result<()> {
        match (self, values) {
            (Self::Direct(index), KeyValues::Ints(keys)) => index.insert(keys, first_row, replaced),
            (Self::Hash(index), KeyValues::Ints(keys)) => index.insert(keys, first_row, replaced),
            (Self::Bytes(index), values) => {
                let mut row = first_row;
                let mut insert = |key: &[u8]| {
                    index.insert(key, row, &mut replaced)?;
                    row += 1;
                    Ok(())
                };
                match values {
                    KeyValues::Rows(rows) => {
                        rows.iter().try_for_each(|row| insert(row.data()))?;
                    }
                    KeyValues::Bytes(array) => visit_bytes(*array, &mut insert)?,
                    KeyValues::Ints(_) => unreachable!("integer keys have an integer index"),
                }
            }
            _ => unreachable!("keys of a dimension have one form"),
        }
        Ok(())
    }

    /// Ends a run of inserts: only then can keys be looked for.
    pub(crate) fn settle(&mut self, replaced: impl FnMut(u32, u32)) {
        match self {
            Self::Direct(index) => index.settle(),
            Self::Hash(index) => index.settle(replaced),
            Self::Bytes(index) => index.settle(replaced),
        }
    }

    /// Appends the row of every key, or [`NO_MATCH`], to `out`.
    pub(crate) fn probe(&self, values: &KeyValues<'_>, out: &mut Vec<u32>) {
        match (self, values) {
            (Self::Direct(index), KeyValues::Ints(keys)) => index.probe(keys, out),
            (Self::Hash(index), KeyValues::Ints(keys)) => index.probe(keys, out),
            (Self::Bytes(index), KeyValues::Rows(rows)) => {
                index.probe(rows.iter().map(|row| row.data()), out);
            }
            (Self::Bytes(index), KeyValues::Bytes(array)) => probe_bytes(index, *array, out),
            _ => unreachable!("keys of a dimension have one form"),
        }
    }

    /// The row of one integer key, or [`NO_MATCH`].
    #[inline]
    pub(crate) fn find_int(&self, key: i64) -> u32 {
        match self {
            Self::Direct(index) => index.find(key),
            Self::Hash(index) => index.find(key),
            Self::Bytes(_) => NO_MATCH,
        }
    }

    /// The row of one key of bytes, or [`NO_MATCH`].
    pub(crate) fn find_bytes(&self, key: &[u8]) -> u32 {
        match self {
            Self::Bytes(index) => index.find(key, hash_bytes(key)),
            Self::Direct(_) | Self::Hash(_) => NO_MATCH,
        }
    }

    pub(crate) fn num_bytes(&self) -> usize {
        match self {
            Self::Direct(index) => index.num_bytes(),
            Self::Hash(index) => index.num_bytes(),
            Self::Bytes(index) => index.num_bytes(),
        }
    }

    /// Gives back memory that only inserts need.
    pub(crate) fn shrink(&mut self) {
        if let Self::Bytes(index) = self {
            index.shrink();
        }
    }
}

pub(crate) fn num_values(values: &KeyValues<'_>) -> usize {
    match values {
        KeyValues::Ints(keys) => keys.len(),
        KeyValues::Bytes(array) => array.len(),
        KeyValues::Rows(rows) => rows.num_rows(),
    }
}

/// Appends the row of every value, or [`NO_MATCH`], to `out`. What comes of a null means nothing.
pub(crate) fn probe_bytes(index: &BytesIndex, array: &dyn Array, out: &mut Vec<u32>) {
    match array.data_type() {
        DataType::Utf8 => index.probe(values(array.as_string::<i32>()), out),
        DataType::LargeUtf8 => index.probe(values(array.as_string::<i64>()), out),
        DataType::Utf8View => index.probe(values(array.as_string_view()), out),
        DataType::Binary => index.probe(values(array.as_binary::<i32>()), out),
        DataType::LargeBinary => index.probe(values(array.as_binary::<i64>()), out),
        DataType::BinaryView => index.probe(values(array.as_binary_view()), out),
        DataType::FixedSizeBinary(_) => index.probe(values(fixed(array)), out),
        other => unreachable!("a plan never compares this type as bytes: {other}"),
    }
}

/// Shows every value of a column of strings or binary, nulls not looked at.
pub(crate) fn visit_bytes<'a>(
    array: &'a dyn Array,
    visit: &mut dyn FnMut(&'a [u8]) -> Result<()>,
) -> Result<()> {
    match array.data_type() {
        DataType::Utf8 => values(array.as_string::<i32>()).try_for_each(|k| visit(k.as_bytes())),
        DataType::LargeUtf8 => {
            values(array.as_string::<i64>()).try_for_each(|k| visit(k.as_bytes()))
        }
        DataType::Utf8View => values(array.as_string_view()).try_for_each(|k| visit(k.as_bytes())),
        DataType::Binary => values(array.as_binary::<i32>()).try_for_each(visit),
        DataType::LargeBinary => values(array.as_binary::<i64>()).try_for_each(visit),
        DataType::BinaryView => values(array.as_binary_view()).try_for_each(visit),
        DataType::FixedSizeBinary(_) => values(fixed(array)).try_for_each(visit),
        other => unreachable!("a plan never compares this type as bytes: {other}"),
    }
}

fn fixed(array: &dyn Array) -> &FixedSizeBinaryArray {
    array.as_fixed_size_binary()
}

/// Every value, nulls not looked at: the caller overwrites what comes of them.
fn values<A: ArrayAccessor>(array: A) -> impl ExactSizeIterator<Item = A::Item> {
    (0..array.len()).map(move |row| array.value(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_rows_are_refused() {
        assert_eq!(
            add_build_rows("t", BUILD_ROWS_MAX - 7, 7).unwrap(),
            BUILD_ROWS_MAX
        );
        let error = add_build_rows("t", BUILD_ROWS_MAX - 7, 8).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Resource);
    }
}
