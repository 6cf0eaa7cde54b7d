//! `darner delete`.

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, RecordBatch};
use arrow_schema::SchemaRef;
use arrow_select::{concat::concat_batches, filter::filter_record_batch, take::take};
use darner_engine::{Error, OnDuplicate, UniqueKeys, check_is_table, load_dimension};

use crate::{
    args::Delete,
    context::{Context, close_store},
    error::Result,
    files::source_options,
    keys::parse_keys,
    print,
    storage::open,
};

pub(crate) fn run(context: &Context, args: &Delete) -> Result<()> {
    let store = context.open_existing_store()?;
    let table = store.table(&args.table)?;
    check_is_table(&store, &args.table)?;
    let key_schema = table.spec().key_schema();
    let keys = match &args.from {
        None => parse_keys(key_schema, &args.keys)?,
        Some(_) => read_keys(args, &table.key_names())?,
    };
    // What is there is found the way a join finds it, so that keys of other types are matched by value too.
    let dimension = load_dimension(&table, Some(&[]))?;
    let found = dimension.get_many(&keys)?;
    let gone = filter_record_batch(&found.batch, &found.is_found)
        .map_err(|error| Error::internal("keys cannot be filtered").with_source(error))?;
    let columns: Vec<ArrayRef> = table
        .key_names()
        .iter()
        .filter_map(|name| gone.column_by_name(name))
        .map(Arc::clone)
        .collect();
    let columns = distinct(&args.table, key_schema, columns)?;
    let gone = RecordBatch::try_new(Arc::clone(key_schema), columns)
        .map_err(|error| Error::internal("keys do not fit their schema").with_source(error))?;
    let num_missing = found.is_found.len() - BooleanArray::true_count(&found.is_found);
    let mut version = store.version();
    if gone.num_rows() > 0 {
        let mut transaction = store.begin()?;
        transaction.delete(&args.table, &gone)?;
        version = transaction.commit()?;
    }
    close_store(store);
    let num_deleted = gone.num_rows();
    if context.json {
        return print::result(serde_json::json!({
            "table": args.table,
            "rows_deleted": num_deleted,
            "keys_not_found": num_missing,
            "version": version.number,
        }));
    }
    print::note(
        context,
        format_args!(
            "{}: {} deleted, {} had none; version {version}",
            args.table,
            print::counted(num_deleted as u64, "row"),
            print::counted(num_missing as u64, "key")
        ),
    );
    Ok(())
}

/// Each key once: the same row cannot be deleted twice.
fn distinct(table: &str, key_schema: &SchemaRef, keys: Vec<ArrayRef>) -> Result<Vec<ArrayRef>> {
    let mut unique = UniqueKeys::new(table, key_schema.fields(), OnDuplicate::First)?;
    unique.push(&keys)?;
    let selections = unique.finish()?.selections;
    let Some(Some(rows)) = selections.first() else {
        return Ok(keys);
    };
    let taken = keys
        .iter()
        .map(|column| take(column, rows, None))
        .collect::<Result<_, _>>();
    Ok(taken.map_err(|error| Error::internal("keys cannot be taken").with_source(error))?)
}

/// The key columns of a file, all rows.
fn read_keys(args: &Delete, names: &[&str]) -> Result<Vec<ArrayRef>> {
    let mut options = source_options(&args.input)?;
    options.projection = Some(names.iter().map(|name| (*name).to_owned()).collect());
    let path = args.from.as_deref().unwrap_or("-".as_ref());
    let mut source = open(path, &options)?;
    let mut batches = Vec::new();
    while let Some(piece) = source.next_piece()? {
        batches.extend(piece.decode()?);
    }
    let keys = concat_batches(source.schema(), &batches)
        .map_err(|error| Error::data("keys cannot be read").with_source(error))?;
    Ok(keys.columns().to_vec())
}
