//! `darner drop`.

use crate::{
    args::Drop,
    context::{Context, check_no_view, close_store},
    error::Result,
    print,
};

pub(crate) fn run(context: &Context, args: &Drop) -> Result<()> {
    let store = context.open_existing_store()?;
    check_no_view(&store, &args.table, "use darner view drop")?;
    let mut transaction = store.begin()?;
    transaction.drop_table(&args.table)?;
    let version = transaction.commit()?;
    close_store(store);
    print::note(
        context,
        format_args!("{}: dropped as version {version}", args.table),
    );
    Ok(())
}
