//! `darner compact`.

use indicatif::HumanBytes;

use crate::{
    args::Compact,
    context::{Context, close_store},
    error::Result,
    print,
};

pub(crate) fn run(context: &Context, args: &Compact) -> Result<()> {
    let store = context.open_existing_store()?;
    let num_bytes_before = store.disk_bytes()?;
    match &args.table {
        Some(table) => store.compact_table(table)?,
        None => store.compact()?,
    }
    let num_bytes_after = store.disk_bytes()?;
    close_store(store);
    if context.json {
        return print::result(serde_json::json!({
            "table": args.table,
            "bytes_before": num_bytes_before,
            "bytes_after": num_bytes_after,
        }));
    }
    print::note(
        context,
        format_args!(
            "{}: compacted; the store takes {} on disk, before {}",
            args.table
                .as_deref()
                .unwrap_or("all tables and keyed state"),
            HumanBytes(num_bytes_after),
            HumanBytes(num_bytes_before)
        ),
    );
    Ok(())
}
