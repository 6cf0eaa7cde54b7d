//! `darner load`.

use darner_engine::{LoadOptions, load_table};

use crate::{
    args::{Load, Mode},
    context::{Context, close_store},
    error::Result,
    files::{input_paths, known_types, source_options},
    print,
    storage::open_all,
};

pub(crate) fn run(context: &Context, args: &Load) -> Result<()> {
    let paths = input_paths(&args.files)?;
    let mut source_options = source_options(&args.input)?;
    // A store that does not exist yet is not made for a file that cannot be read.
    let store = context
        .has_store()
        .then(|| context.open_store())
        .transpose()?;
    if let (Some(store), Mode::Upsert) = (&store, args.mode) {
        source_options.known_types = known_types(store, &args.table);
    }
    let mut source = open_all(paths, &source_options)?;
    let store = match store {
        Some(store) => store,
        None => context.open_store()?,
    };
    let (control, bar) = context.control(&args.table);
    let options = LoadOptions {
        key: args.key.clone(),
        mode: args.mode.into(),
        on_duplicate: args.on_duplicate.into(),
        watermark: None,
    };
    let report = load_table(&store, &args.table, &mut *source, &options, &control)?;
    let seconds = bar.finish();
    close_store(store);
    if context.json {
        print::result(serde_json::json!({
            "table": args.table,
            "rows_read": report.num_rows_in,
            "rows_written": report.num_rows,
            "is_new": report.is_new,
            "version": report.version.number,
        }))?;
        return Ok(());
    }
    let dropped = report.num_rows_in - report.num_rows;
    let dropped = if dropped > 0 {
        format!(", {} left out", print::counted(dropped, "duplicate"))
    } else {
        String::new()
    };
    print::note(
        context,
        format_args!(
            "{}: {} loaded{dropped} as version {} in {seconds:.2} s",
            args.table,
            print::counted(report.num_rows, "row"),
            report.version
        ),
    );
    Ok(())
}
