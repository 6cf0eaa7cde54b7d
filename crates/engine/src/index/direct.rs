use super::NO_MATCH;
use crate::huge;

/// Row numbers at the place of their key: for keys that are dense.
///
/// ```text
/// keys 7, 9, 8  ->  first_key 7, rows [0, 2, 1]
/// ```
#[derive(Debug)]
pub(crate) struct DirectIndex {
    first_key: i64,
    rows: Vec<u32>,
}

impl DirectIndex {
    pub(crate) fn new(first_key: i64, range: usize) -> Self {
        Self {
            first_key,
            rows: huge::vec(NO_MATCH, range),
        }
    }

    /// Sets the row of a key, which must be in the range, and returns the one before, or
    /// [`NO_MATCH`].
    pub(crate) fn insert(&mut self, key: i64, row: u32) -> u32 {
        let place = place(self.first_key, key);
        std::mem::replace(&mut self.rows[place], row)
    }

    /// The row of one key.
    #[inline]
    pub(crate) fn find(&self, key: i64) -> u32 {
        find(self.first_key, &self.rows, key)
    }

    pub(crate) fn probe(&self, keys: &[i64], out: &mut Vec<u32>) {
        let (first_key, rows) = (self.first_key, self.rows.as_slice());
        out.extend(keys.iter().map(|&key| find(first_key, rows, key)));
    }

    pub(crate) fn num_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<u32>()
    }
}

#[inline]
fn find(first_key: i64, rows: &[u32], key: i64) -> u32 {
    rows.get(place(first_key, key)).copied().unwrap_or(NO_MATCH)
}

/// The distance from the first key; a key below it wraps to a place past every index.
#[inline]
fn place(first_key: i64, key: i64) -> usize {
    usize::try_from(key.wrapping_sub(first_key).cast_unsigned()).unwrap_or(usize::MAX)
}
