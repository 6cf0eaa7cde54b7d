//! Gives up what a table's retention does not keep.

use std::sync::Arc;

use crate::{
    history::HISTORY_UNREADABLE_MAX, keyspace::Keyspace, state::TableState, table::count_older,
};

/// Takes earlier incarnations that are not kept out of a table, and commits that are too old to be listed out of its
/// history. Returns the files that nobody needs once that is durable.
///
/// An incarnation is kept for its retention, or while it and those after it take no more space than the table itself.
pub(crate) fn expire(table: &mut TableState, now_us: i64) -> Vec<Arc<Keyspace>> {
    let num_gone = num_expired(table, now_us);
    if num_gone > 0 {
        // Of damaged rows nobody can say how many there were.
        if let Ok(history) = count_older(table) {
            table.history = Arc::new(history);
        }
    }
    let gone: Vec<TableState> = table.older.drain(..num_gone).collect();
    trim(table);
    gone.into_iter().map(|gone| gone.keyspace).collect()
}

/// How many earlier incarnations, from the oldest on, are not kept.
pub(crate) fn num_expired(table: &TableState, now_us: i64) -> usize {
    let oldest_kept = table.retention.oldest_kept(&table.history, now_us);
    let num_bytes_max = table.num_bytes();
    let mut num_bytes = 0;
    let mut num_kept = 0;
    for older in table.older.iter().rev() {
        num_bytes += older.num_bytes();
        if older.changed.number < oldest_kept && num_bytes > num_bytes_max {
            break;
        }
        num_kept += 1;
    }
    table.older.len() - num_kept
}

/// Takes commits that cannot be read any more out of a history, but for the newest of them, and for those that began an
/// incarnation: by these it is found which one a version belongs to.
pub(crate) fn trim(table: &mut TableState) {
    if table.history.len() <= 2 * HISTORY_UNREADABLE_MAX {
        return;
    }
    let begun: Vec<u64> = table
        .older
        .iter()
        .chain([&*table])
        .map(|incarnation| incarnation.begun.number)
        .collect();
    let is_idle =
        |table: &TableState, commit: u64| !table.is_kept(commit) && !begun.contains(&commit);
    let idle = table.history.iter().map(|entry| entry.version.number);
    let num_idle = idle.filter(|commit| is_idle(table, *commit)).count();
    // Not one by one: each time the whole list is moved.
    if num_idle <= 2 * HISTORY_UNREADABLE_MAX {
        return;
    }
    let mut num_dropped = num_idle - HISTORY_UNREADABLE_MAX;
    let mut history = table.history.to_vec();
    history.retain(|entry| {
        let is_dropped = num_dropped > 0 && is_idle(table, entry.version.number);
        num_dropped -= usize::from(is_dropped);
        !is_dropped
    });
    table.history = Arc::new(history);
}
