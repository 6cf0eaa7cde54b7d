//! `darner history`.

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, StringArray, TimestampMicrosecondArray, UInt64Array};
use darner_store::RowCounts;

use crate::{
    args::History,
    context::Context,
    error::Result,
    files::{counts, print_listing},
};

pub(crate) fn run(context: &Context, args: &History) -> Result<()> {
    let store = context.read_store()?;
    let commits = store.table(&args.table)?.history()?;
    let versions = commits.iter().map(|commit| commit.version.number);
    let times = commits.iter().map(|commit| commit.version.time_us);
    let kinds = commits.iter().map(|commit| commit.kind.name());
    let readable: Vec<bool> = commits.iter().map(|commit| commit.is_readable).collect();
    let readable: ArrayRef = if context.json {
        Arc::new(BooleanArray::from(readable))
    } else {
        let words = readable.iter().map(|is| if *is { "yes" } else { "no" });
        Arc::new(StringArray::from_iter_values(words))
    };
    // Of rows that are gone nobody may know how many they were.
    let count = |of: fn(RowCounts) -> u64| {
        counts(context, commits.iter().map(|commit| commit.counts.map(of)))
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("version", Arc::new(UInt64Array::from_iter_values(versions))),
        (
            "time",
            Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")),
        ),
        ("what", Arc::new(StringArray::from_iter_values(kinds))),
        ("added", count(|counts| counts.num_added)),
        ("removed", count(|counts| counts.num_removed)),
        ("live", count(|counts| counts.num_live)),
        ("readable", readable),
    ];
    print_listing(context, columns)
}
