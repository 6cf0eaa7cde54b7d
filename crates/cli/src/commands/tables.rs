//! `darner tables`.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use darner_engine::Error;
use darner_store::TableSnapshot;
use indicatif::HumanCount;

use crate::{
    args::{Output, RowFormat},
    context::Context,
    error::Result,
    files::print_rows,
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
    let keys = tables
        .iter()
        .map(|table| Some(table.key_names().join(", ")));
    let versions = tables
        .iter()
        .map(|t| i64::try_from(t.version().number).ok());
    let times = tables.iter().map(|table| Some(table.version().time_us));
    let bytes = tables.iter().map(|table| Some(table.num_bytes()));
    let rows: ArrayRef = if context.json {
        Arc::new(UInt64Array::from(num_rows))
    } else {
        Arc::new(
            num_rows
                .iter()
                .map(|n| Some(HumanCount(*n).to_string()))
                .collect::<StringArray>(),
        )
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("table", Arc::new(names.collect::<StringArray>())),
        ("key", Arc::new(keys.collect::<StringArray>())),
        ("rows", rows),
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
    let batch = RecordBatch::try_from_iter(columns)
        .map_err(|error| Error::internal("listing cannot be built").with_source(error))?;
    let output = Output {
        output: None,
        format: (!context.json).then_some(RowFormat::Table),
    };
    print_rows(
        context,
        &batch.schema(),
        std::iter::once(Ok(batch)),
        &output,
    )
}
