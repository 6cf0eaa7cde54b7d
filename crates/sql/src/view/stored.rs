//! The stored states of some groups.

use std::collections::HashSet;

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, cast::AsArray};
use darner_engine::Error;
use darner_store::TableSnapshot;
use datafusion::{arrow::compute::filter_record_batch, error::Result};
use std::sync::Arc;

use crate::error::to_datafusion;

/// About so many stored bytes are read at once.
const WINDOW_BYTES: u64 = 4 << 20;

/// The rows of a table of states whose keys are among these.
///
/// Pages whose bounds rule out all of them are not read. A page that may have one of them is, whatever it says: a newer
/// state of a group is in a later page.
pub(crate) fn states_at(table: &TableSnapshot, keys: &ArrayRef) -> Result<Vec<RecordBatch>> {
    let wanted: HashSet<&[u8]> = keys.as_binary::<i32>().iter().flatten().collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    read_states(table, Some(keys), &|key| wanted.contains(key)).map_err(to_datafusion)
}

fn read_states(
    table: &TableSnapshot,
    keys: Option<&ArrayRef>,
    is_wanted: &dyn Fn(&[u8]) -> bool,
) -> Result<Vec<RecordBatch>, Error> {
    let all: Vec<usize> = (0..table.pages().len()).collect();
    let key_column = table.spec().key_columns()[0];
    let may_hold = keys.and_then(|keys| table.may_hold(key_column, keys, &all));
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
            let mask: BooleanArray = keys.iter().map(|key| key.map(is_wanted)).collect();
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

/// The different keys of states.
pub(crate) fn distinct_keys(states: &[RecordBatch]) -> ArrayRef {
    let mut keys: Vec<&[u8]> = states
        .iter()
        .flat_map(|rows| rows.column(0).as_binary::<i32>().iter().flatten())
        .collect();
    keys.sort_unstable();
    keys.dedup();
    Arc::new(arrow_array::BinaryArray::from_iter_values(keys))
}

/// The rows whose keys are, or are not, among these.
pub(crate) fn retain(states: &[RecordBatch], keys: &ArrayRef) -> Result<Vec<RecordBatch>> {
    let wanted: HashSet<&[u8]> = keys.as_binary::<i32>().iter().flatten().collect();
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
    let there: HashSet<&[u8]> = states
        .column(0)
        .as_binary::<i32>()
        .iter()
        .flatten()
        .collect();
    let gone = keys.as_binary::<i32>().iter().flatten();
    let gone: Vec<&[u8]> = gone.filter(|key| !there.contains(key)).collect();
    debug_assert!(gone.len() <= keys.len());
    Arc::new(arrow_array::BinaryArray::from_iter_values(gone))
}
