//! The index: key -> build row, in the layout that suits the keys.

pub(crate) mod byte_keys;
mod bytes;
mod direct;
mod groups;
mod hash;
mod layout;
mod parts;
mod perfect;
mod rank;
mod records;
mod short;
mod stride;

use rayon::prelude::*;

pub(crate) use self::byte_keys::{ByteKeys, with_values};
pub(crate) use self::bytes::{BytesIndex, Lengths};
use self::direct::DirectIndex;
use self::hash::HashIndex;
pub use self::layout::{Layout, LayoutKind};
use self::stride::Spread;
use crate::key::{KeyForm, KeyValues};
use crate::{Error, ErrorKind, Result};

/// The row number that says: no row.
pub const NO_MATCH: u32 = u32::MAX;

/// The most rows that a dimension takes in, superseded ones included.
pub const BUILD_ROWS_MAX: u32 = u32::MAX - 1;

/// A number of build rows, which [`BUILD_ROWS_MAX`] bounds.
pub(crate) fn row_count(len: usize) -> u32 {
    u32::try_from(len).expect("a builder takes in at most `BUILD_ROWS_MAX` rows")
}

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

/// The place after another, and after the last the first.
#[inline]
fn next(place: usize, num_places: usize) -> usize {
    if place + 1 == num_places {
        0
    } else {
        place + 1
    }
}

/// Gives `$body` the [`ByteKeys`] of values that are no integers, under the name `$keys`.
macro_rules! with_bytes {
    ($values:expr, $keys:ident => $body:expr) => {
        match $values {
            KeyValues::Bytes(array) => with_values!(*array, $keys => $body),
            KeyValues::Rows(rows) => {
                let $keys = *rows;
                $body
            }
            KeyValues::Ints(_) => unreachable!("integer keys have an integer index"),
        }
    };
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
    /// Of keys that are no integers.
    lengths: Lengths,
}

impl KeyRange {
    /// Takes in integer keys, after those of all calls before; of others nothing but their number and lengths.
    pub(crate) fn add(&mut self, values: &KeyValues<'_>) {
        self.num_keys += num_values(values);
        if let KeyValues::Ints(keys) = values {
            let parts = keys.par_chunks(SPREAD_KEYS).filter_map(Spread::of);
            let spread = parts.reduce_with(Spread::and);
            self.spread = self.spread.into_iter().chain(spread).reduce(Spread::and);
        } else {
            let lengths = with_bytes!(values, keys => Lengths::of(keys));
            self.lengths = self.lengths.and(lengths);
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
                Self::Bytes(BytesIndex::new(range.num_keys, range.lengths))
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
        replaced: impl FnMut(u32, u32),
    ) {
        match (self, values) {
            (Self::Direct(index), KeyValues::Ints(keys)) => index.insert(keys, first_row, replaced),
            (Self::Hash(index), KeyValues::Ints(keys)) => index.insert(keys, first_row, replaced),
            (Self::Bytes(index), values) => {
                debug_assert_eq!(first_row, index.num_rows());
                with_bytes!(values, keys => index.insert(keys, replaced));
            }
            _ => unreachable!("keys of a dimension have one form"),
        }
    }

    /// Ends a run of inserts: only then can keys be looked for.
    pub(crate) fn settle(&mut self, replaced: impl FnMut(u32, u32)) {
        match self {
            Self::Direct(index) => index.settle(),
            Self::Hash(index) => index.settle(replaced),
            Self::Bytes(index) => index.settle(replaced),
        }
    }

    /// Makes it ready to be looked at for long, when it has settled for the last time.
    pub(crate) fn finish(&mut self) {
        match self {
            Self::Direct(_) => {}
            Self::Hash(index) => index.finish(),
            Self::Bytes(index) => index.finish(),
        }
    }

    /// Appends the row of every key, or [`NO_MATCH`], to `out`.
    pub(crate) fn probe(&self, values: &KeyValues<'_>, out: &mut Vec<u32>) {
        match (self, values) {
            (Self::Direct(index), KeyValues::Ints(keys)) => index.probe(keys, out),
            (Self::Hash(index), KeyValues::Ints(keys)) => index.probe(keys, out),
            (Self::Bytes(index), values) => with_bytes!(values, keys => index.probe(keys, out)),
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
            Self::Bytes(index) => index.find(key),
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
}

pub(crate) fn num_values(values: &KeyValues<'_>) -> usize {
    match values {
        KeyValues::Ints(keys) => keys.len(),
        KeyValues::Bytes(array) => array.len(),
        KeyValues::Rows(rows) => rows.num_rows(),
    }
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
