//! The stored states of some groups.

use std::{collections::HashSet, sync::Arc};

use arrow_array::{Array, ArrayRef, BinaryArray, BooleanArray, RecordBatch, cast::AsArray};
use darner_engine::Error;
use darner_store::TableSnapshot;
use datafusion::{arrow::compute::filter_record_batch, error::Result};
use foldhash::fast::RandomState;

use crate::error::to_datafusion;

/// About so many stored bytes are read at once.
const WINDOW_BYTES: u64 = 4 << 20;

/// Every how manieth stored row has to be wanted for all pages to be read at once.
const MANY_KEYS: u64 = 4;

/// Keys of groups: hundreds of thousands of them in a busy view, so what hashes them is to be quick.
type Keys<'k> = HashSet<&'k [u8], RandomState>;

fn keys_of(keys: &dyn Array) -> impl Iterator<Item = &[u8]> {
    keys.as_binary::<i32>().iter().flatten()
}

/// The rows of a table of states whose keys are among these, some of which may come several times.
///
/// Pages whose bounds rule out all of them are not read. A page that may have one of them is, whatever it says: a newer
/// state of a group is in a later page.
pub(crate) fn states_at<'k>(
    table: &TableSnapshot,
    keys: impl Iterator<Item = &'k ArrayRef>,
) -> Result<Vec<RecordBatch>> {
    let wanted: Keys<'_> = keys.flat_map(|keys| keys_of(keys)).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    read_states(table, &wanted).map_err(to_datafusion)
}

/// All rows of a table of states.
pub(crate) fn all_states(table: &TableSnapshot) -> Result<Vec<RecordBatch>> {
    let all: Vec<usize> = (0..table.pages().len()).collect();
    let scan = table.scan(None, None).map_err(to_datafusion)?;
    scan.read(&all).map_err(to_datafusion)
}

fn read_states(table: &TableSnapshot, wanted: &Keys<'_>) -> Result<Vec<RecordBatch>, Error> {
    let all: Vec<usize> = (0..table.pages().len()).collect();
    let key_column = table.spec().key_columns()[0];
    // Of keys by the thousand there is one in about any page, and to look for it takes as long as to read the page.
    let may_hold = if wanted.len() as u64 <= table.num_stored_rows() / MANY_KEYS {
        let keys: ArrayRef = Arc::new(BinaryArray::from_iter_values(wanted));
        table.may_hold(key_column, &keys, &all)
    } else {
        None
    };
    let pages: Vec<usize> = match may_hold {
        Some(may_hold) => all.iter().copied().filter(|page| may_hold[*page]).collect(),
        None => all,
    };
    let scan = table.scan(None, Some(pages.clone()))?;
    let mut found = Vec::new();
    let mut left = &pages[..];
    while !left.is_empty() {
        let (window, rest) = left.split_at(scan.window(left, WINDOW_BYTES).max(1));
        left = rest;
        for rows in scan.read(window)? {
            let keys = rows.column(key_column).as_binary::<i32>();
            let mask: BooleanArray = keys
                .iter()
                .map(|key| key.map(|key| wanted.contains(key)))
                .collect();
            if mask.true_count() == 0 {
                continue;
            }
            let rows = filter_record_batch(&rows, &mask)
                .map_err(|error| Error::internal("states cannot be filtered").with_source(error))?;
            found.push(rows);
        }
    }
    Ok(found)
}

/// The number of different keys of states.
pub(crate) fn num_keys(states: &[RecordBatch]) -> usize {
    let num_rows = states.iter().map(RecordBatch::num_rows).sum();
    let mut found = Keys::with_capacity_and_hasher(num_rows, RandomState::default());
    found.extend(states.iter().flat_map(|rows| keys_of(rows.column(0))));
    found.len()
}

/// The different keys of states, in the order in which they come.
pub(crate) fn distinct_keys(states: &[RecordBatch]) -> ArrayRef {
    let mut seen = Keys::default();
    let keys = states.iter().flat_map(|rows| keys_of(rows.column(0)));
    let first: Vec<&[u8]> = keys.filter(|key| seen.insert(key)).collect();
    Arc::new(BinaryArray::from_iter_values(first))
}

/// The rows whose keys are, or are not, among these.
pub(crate) fn retain(states: &[RecordBatch], keys: &ArrayRef) -> Result<Vec<RecordBatch>> {
    let wanted: Keys<'_> = keys_of(keys).collect();
    let mut kept = Vec::with_capacity(states.len());
    for rows in states {
        let found = rows.column(0).as_binary::<i32>().iter();
        let mask: BooleanArray = found
            .map(|key| key.map(|key| wanted.contains(key)))
            .collect();
        if mask.true_count() > 0 {
            kept.push(filter_record_batch(rows, &mask)?);
        }
    }
    Ok(kept)
}

/// The keys that none of these rows has.
pub(crate) fn missing(keys: &ArrayRef, states: &RecordBatch) -> ArrayRef {
    let there: Keys<'_> = keys_of(states.column(0)).collect();
    let gone: Vec<&[u8]> = keys_of(keys).filter(|key| !there.contains(key)).collect();
    Arc::new(BinaryArray::from_iter_values(gone))
}
