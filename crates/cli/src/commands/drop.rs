//! `darner drop`.

use crate::{
    args::Drop,
    context::{Context, close_store},
    error::Result,
    print,
};

pub(crate) fn run(context: &Context, args: &Drop) -> Result<()> {
    // To open a store for writing would make one.
    context.read_store()?.table(&args.table)?;
    let store = context.open_store()?;
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
