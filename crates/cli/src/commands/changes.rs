//! `darner changes`.

use darner_engine::ChangedRows;

use crate::{
    args::Changes,
    context::{Context, check_no_view},
    error::{Failure, Result},
    files::print_rows,
    print,
};

pub(crate) fn run(context: &Context, args: &Changes) -> Result<()> {
    let store = context.read_store()?;
    check_no_view(
        &store,
        &args.table,
        "its history says when it was refreshed",
    )?;
    let changes = ChangedRows::find(&store, &args.table, args.since, args.as_of)?;
    let rows = changes.rows()?.map(|rows| rows.map_err(Failure::from));
    print_rows(context, changes.schema(), rows, &args.output)?;
    let last = args
        .as_of
        .map_or(store.version(), |_| changes.table().version());
    print::note(
        context,
        format_args!(
            "{}: changes since version {}, up to version {last}",
            args.table,
            changes.since()
        ),
    );
    Ok(())
}
