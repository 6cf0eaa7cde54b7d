//! `darner tables`.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray, UInt64Array};
use darner_engine::is_view;
use darner_store::TableSnapshot;

use crate::{
    context::Context,
    error::Result,
    files::{counts, print_listing},
    print,
};

pub(crate) fn run(context: &Context) -> Result<()> {
    let store = context.read_store()?;
    let tables = store.tables();
    if tables.is_empty() && !context.json {
        print::note(
            context,
            format_args!("no tables in {}", context.store_dir.display()),
        );
        return Ok(());
    }
    let num_rows: Vec<u64> = tables
        .iter()
        .map(TableSnapshot::num_rows)
        .collect::<Result<_, _>>()?;
    let names = tables.iter().map(|table| Some(table.name()));
    // A view's rows are found by its groups: `darner view show` names them.
    let keys = tables.iter().map(|table| {
        let is_view = is_view(&store, table.name());
        (!is_view).then(|| table.key_names().join(", "))
    });
    let kinds = tables.iter().map(|table| {
        let is_view = is_view(&store, table.name());
        Some(if is_view { "view" } else { "table" })
    });
    let versions = tables
        .iter()
        .map(|t| i64::try_from(t.version().number).ok());
    let times = tables.iter().map(|table| Some(table.version().time_us));
    let bytes = tables.iter().map(|table| Some(table.num_bytes()));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("table", Arc::new(names.collect::<StringArray>())),
        ("kind", Arc::new(kinds.collect::<StringArray>())),
        ("key", Arc::new(keys.collect::<StringArray>())),
        ("rows", counts(context, num_rows.into_iter().map(Some))),
        ("bytes", Arc::new(bytes.collect::<UInt64Array>())),
        ("version", Arc::new(versions.collect::<Int64Array>())),
        (
            "changed",
            Arc::new(
                times
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("UTC"),
            ),
        ),
    ];
    print_listing(context, columns)
}
