//! `darner get`.

use arrow_select::filter::filter_record_batch;
use darner_engine::{Error, is_view, load_dimension};

use super::view;
use crate::{
    args::Get,
    context::{Context, find_table},
    error::Result,
    files::print_rows,
    keys::parse_keys,
};

pub(crate) fn run(context: &Context, args: &Get) -> Result<()> {
    let store = context.read_store()?;
    if is_view(&store, &args.table) {
        return view::get(context, store, args);
    }
    let table = find_table(&store, &args.table, args.as_of)?;
    let keys = parse_keys(table.spec().key_schema(), &args.keys)?;
    let dimension = load_dimension(&table, None)?;
    let found = dimension.get_many(&keys)?;
    let rows = filter_record_batch(&found.batch, &found.is_found)
        .map_err(|error| Error::internal("rows cannot be filtered").with_source(error))?;
    let missing: Vec<&str> = (0..found.is_found.len())
        .filter(|row| !found.is_found.value(*row))
        .map(|row| args.keys[row].as_str())
        .collect();
    if rows.num_rows() > 0 || missing.is_empty() {
        print_rows(
            context,
            &rows.schema(),
            std::iter::once(Ok(rows)),
            &args.output,
        )?;
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "no such key in table=`{}`: {}",
        args.table,
        missing.join(" ")
    ))
    .into())
}
