use std::cmp::Reverse;
use std::collections::HashMap;

use arrow_array::{ArrayRef, UInt32Array};
use arrow_row::{RowConverter, SortField};
use arrow_select::take::take;
use foldhash::fast::FixedState;

use crate::key::{KeyText, plain_column};
use crate::{Error, Result};

/// The most distinct missing keys that are remembered per join.
pub const MISSING_KEYS_MAX: usize = 100_000;

/// Keys that a dimension has not, as text, and in how many rows each stands.
///
/// Up to [`MISSING_KEYS_MAX`] distinct keys the content does not depend on the order of batches and
/// merges. Past it, keys not seen before are counted as rows alone.
#[derive(Clone, Debug, Default)]
pub struct MissingKeys {
    num_rows_of_key: HashMap<String, u64, FixedState>,
    num_rows: u64,
    is_cut: bool,
}

/// A missing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingKey {
    /// Its text, the parts of a composite key separated by `, `.
    pub key: String,
    /// The rows in which it stands.
    pub num_rows: u64,
}

impl MissingKeys {
    /// Adds rows with a key.
    pub fn add(&mut self, key: &str, num_rows: u64) {
        self.num_rows += num_rows;
        if let Some(count) = self.num_rows_of_key.get_mut(key) {
            *count += num_rows;
        } else if self.num_rows_of_key.len() < MISSING_KEYS_MAX {
            self.num_rows_of_key.insert(key.to_owned(), num_rows);
        } else {
            self.is_cut = true;
        }
    }

    /// Adds what another has.
    pub fn merge(&mut self, other: &Self) {
        // In the order of `top`: past the bound, the most frequent keys of the other come in first.
        let mut num_listed = 0;
        for (key, num_rows) in other.sorted() {
            self.add(key, num_rows);
            num_listed += num_rows;
        }
        self.num_rows += other.num_rows - num_listed;
        self.is_cut |= other.is_cut;
    }

    /// The rows with a missing key.
    pub fn num_rows(&self) -> u64 {
        self.num_rows
    }

    /// The distinct missing keys; at least so many if not [`is_complete`](Self::is_complete).
    pub fn num_distinct(&self) -> usize {
        self.num_rows_of_key.len()
    }

    /// Whether every missing key was remembered.
    pub fn is_complete(&self) -> bool {
        !self.is_cut
    }

    /// The `n` keys that stand in most rows, most first, those of equal number by their text.
    pub fn top(&self, n: usize) -> Vec<MissingKey> {
        let sorted = self.sorted();
        let top = sorted.iter().take(n);
        top.map(|&(key, num_rows)| MissingKey {
            key: key.to_owned(),
            num_rows,
        })
        .collect()
    }

    fn sorted(&self) -> Vec<(&str, u64)> {
        let mut keys: Vec<_> = self
            .num_rows_of_key
            .iter()
            .map(|(key, &num_rows)| (key.as_str(), num_rows))
            .collect();
        keys.sort_unstable_by_key(|&(key, num_rows)| (Reverse(num_rows), key));
        keys
    }

    /// Adds the keys at some rows of a batch. A key is written as text once per batch, not once per
    /// row.
    pub(super) fn add_rows(&mut self, keys: &[ArrayRef], rows: &[u32]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let failed = |error| Error::internal("cannot collect missing keys").with_source(error);
        let indices = UInt32Array::from(rows.to_vec());
        let keys: Vec<ArrayRef> = keys
            .iter()
            .map(|key| plain_column(&take(key, &indices, None).map_err(failed)?))
            .collect::<Result<_>>()?;
        let fields = keys
            .iter()
            .map(|key| SortField::new(key.data_type().clone()))
            .collect();
        let encoded = RowConverter::new(fields)
            .and_then(|converter| converter.convert_columns(&keys))
            .map_err(failed)?;
        // In the order of their first rows: what is remembered must not depend on the hash.
        let mut in_order: Vec<(usize, u64)> = Vec::new();
        let mut place_of_key: HashMap<&[u8], usize, FixedState> = HashMap::default();
        let encoded: Vec<_> = encoded.iter().collect();
        for (row, key) in encoded.iter().enumerate() {
            let place = *place_of_key.entry(key.data()).or_insert(in_order.len());
            if place == in_order.len() {
                in_order.push((row, 0));
            }
            in_order[place].1 += 1;
        }
        let text = KeyText::new(&keys)?;
        for (row, num_rows) in in_order {
            self.add(&text.get(row), num_rows);
        }
        Ok(())
    }
}
