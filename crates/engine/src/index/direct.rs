use super::{NO_MATCH, stride::Stride};
use crate::huge;

/// Row numbers at the place of their key: for keys that are dense, or that are evenly spaced.
///
/// ```text
/// keys 7, 9, 8     ->  first_key 7, rows [0, 2, 1]
/// keys 70, 90, 80  ->  first_key 70, stride 10, rows [0, 2, 1]
/// ```
#[derive(Debug)]
pub(crate) struct DirectIndex {
    first_key: i64,
    /// `None` for 1.
    stride: Option<Stride>,
    rows: Vec<u32>,
}

impl DirectIndex {
    pub(crate) fn new(first_key: i64, stride: u64, num_places: usize) -> Self {
        Self {
            first_key,
            stride: (stride > 1).then(|| Stride::new(stride)),
            rows: huge::vec(NO_MATCH, num_places),
        }
    }

    /// Sets the row of a key, which must have a place, and returns the one before, or [`NO_MATCH`].
    #[inline]
    pub(crate) fn insert(&mut self, key: i64, row: u32) -> u32 {
        let place = index(self.place(key));
        std::mem::replace(&mut self.rows[place], row)
    }

    /// The row of one key.
    #[inline]
    pub(crate) fn find(&self, key: i64) -> u32 {
        row_at(&self.rows, self.place(key))
    }

    pub(crate) fn probe(&self, keys: &[i64], out: &mut Vec<u32>) {
        let rows = self.rows.as_slice();
        let distance = |key: &i64| distance(self.first_key, *key);
        match self.stride {
            None => out.extend(keys.iter().map(|key| row_at(rows, distance(key)))),
            Some(stride) => {
                let place = |key| stride.quotient(distance(key));
                out.extend(keys.iter().map(|key| row_at(rows, place(key))));
            }
        }
    }

    pub(crate) fn num_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<u32>()
    }

    /// Where a key stands; past the end if it does not.
    #[inline]
    fn place(&self, key: i64) -> u64 {
        let distance = distance(self.first_key, key);
        self.stride
            .map_or(distance, |stride| stride.quotient(distance))
    }
}

#[inline]
fn row_at(rows: &[u32], place: u64) -> u32 {
    rows.get(index(place)).copied().unwrap_or(NO_MATCH)
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
