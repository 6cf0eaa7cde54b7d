//! `darner sql`.

use std::{io::Read, sync::Arc};

use darner_engine::Error;
use darner_sql::Session;

use crate::{
    args::Sql,
    context::Context,
    error::{Failure, Result},
    files::print_rows,
};

pub(crate) fn run(context: &Context, args: &Sql) -> Result<()> {
    let query = if args.query == "-" {
        let mut query = String::new();
        std::io::stdin()
            .read_to_string(&mut query)
            .map_err(|error| Error::io("cannot read standard input", error))?;
        query
    } else {
        args.query.clone()
    };
    let session = Session::new(context.num_threads)?;
    // Files alone need no store.
    if context.store_dir.exists() {
        session.register_store(Arc::new(context.read_store()?));
    }
    let rows = session.query(&query)?;
    let schema = Arc::clone(rows.schema());
    print_rows(
        context,
        &schema,
        rows.map(|rows| rows.map_err(Failure::from)),
        &args.output,
    )
}
