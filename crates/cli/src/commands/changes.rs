//! `darner changes`.

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, RecordBatch, StringArray, new_null_array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use arrow_select::filter::filter_record_batch;
use darner_engine::{Dimension, Error, load_dimension};
use darner_store::{AsOf, Rows, TableSnapshot};

use crate::{
    args::Changes,
    context::{Context, find_table},
    error::{Failure, Result},
    files::print_rows,
    print,
};

pub(crate) fn run(context: &Context, args: &Changes) -> Result<()> {
    let store = context.read_store()?;
    let table = find_table(&store, &args.table, args.as_of)?;
    let before = match args.since {
        // Before the first commit there was nothing, of this table or of any other.
        AsOf::Version(0) => None,
        since => Some(find_table(&store, &args.table, Some(since))?),
    };
    let since = match (&before, args.since) {
        (None, _) => 0,
        (Some(_), AsOf::Version(number)) => number,
        (Some(before), AsOf::Time(_)) => before.version().number,
    };
    if before
        .as_ref()
        .is_some_and(|before| before.version() > table.version())
    {
        return Err(Error::invalid(format!(
            "--since is later than --as-of: table=`{}` since=`{since}` as_of=`{}`",
            args.table,
            table.version()
        ))
        .into());
    }
    let changes = table.changes_since(since, None)?;
    let deletes: Box<dyn Iterator<Item = Result<RecordBatch>>> = match before {
        None => Box::new(std::iter::empty()),
        // The store knows no deleted keys then: they are those that were there and are not any more.
        Some(before) if changes.is_replaced => Box::new(gone(&before, &table)?),
        Some(_) => Box::new(changes.deletes.map(|keys| keys.map_err(Failure::from))),
    };
    let schema = change_schema(&table);
    let upserts = changes
        .upserts
        .map(|rows| change_rows(&schema, "upsert", &rows?));
    let deletes = deletes.map(|keys| change_rows(&schema, "delete", &keys?));
    print_rows(context, &schema, deletes.chain(upserts), &args.output)?;
    print::note(
        context,
        format_args!(
            "{}: changes since version {since}, up to version {}",
            args.table,
            args.as_of.map_or(store.version(), |_| table.version())
        ),
    );
    Ok(())
}

/// The keys that a table had before it was replaced and has no more.
fn gone(
    before: &TableSnapshot,
    table: &TableSnapshot,
) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
    let types = |table: &TableSnapshot| -> Vec<(String, DataType)> {
        let fields = table.spec().key_schema().fields().iter();
        fields
            .map(|field| (field.name().clone(), field.data_type().clone()))
            .collect()
    };
    if types(before) != types(table) {
        return Err(Error::invalid(format!(
            "table was replaced by one with another key: table=`{}` key=`{}` earlier=`{}`; take all its rows with \
             --since 0",
            table.name(),
            table.key_names().join(","),
            before.key_names().join(",")
        ))
        .into());
    }
    let dimension = load_dimension(table, Some(&[]))?;
    let names: Vec<String> = types(table).into_iter().map(|(name, _)| name).collect();
    let mut key_columns = before.spec().key_columns().to_vec();
    key_columns.sort_unstable();
    let rows: Rows = before.rows(Some(&key_columns))?;
    Ok(rows.map(move |rows| without(&rows?, &dimension, &names)))
}

/// The rows whose keys a dimension does not have.
fn without(rows: &RecordBatch, dimension: &Dimension, key: &[String]) -> Result<RecordBatch> {
    let keys: Vec<ArrayRef> = key
        .iter()
        .filter_map(|name| rows.column_by_name(name))
        .map(Arc::clone)
        .collect();
    let is_found = dimension.get_many(&keys)?.is_found;
    let is_gone: BooleanArray = is_found.values().iter().map(|is| Some(!is)).collect();
    filter_record_batch(rows, &is_gone).map_err(|error| {
        Error::internal("keys cannot be filtered")
            .with_source(error)
            .into()
    })
}

/// What was done to a row, then the table's columns: a deleted row has its key only.
fn change_schema(table: &TableSnapshot) -> SchemaRef {
    let mut name = "_change".to_owned();
    while table.schema().index_of(&name).is_ok() {
        name.insert(0, '_');
    }
    let keys = table.key_names();
    let fields = table.schema().fields().iter().map(|field| {
        let is_key = keys.contains(&field.name().as_str());
        let is_nullable = field.is_nullable() || !is_key;
        field.as_ref().clone().with_nullable(is_nullable)
    });
    let change = Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(
        std::iter::once(change).chain(fields).collect::<Vec<_>>(),
    ))
}

fn change_rows(schema: &SchemaRef, change: &str, rows: &RecordBatch) -> Result<RecordBatch> {
    let num_rows = rows.num_rows();
    let changes = StringArray::from_iter_values(std::iter::repeat_n(change, num_rows));
    let columns = schema.fields().iter().skip(1).map(|field| {
        let column = rows.column_by_name(field.name());
        column.map_or_else(|| new_null_array(field.data_type(), num_rows), Arc::clone)
    });
    let columns = std::iter::once(Arc::new(changes) as ArrayRef).chain(columns);
    RecordBatch::try_new(SchemaRef::clone(schema), columns.collect()).map_err(|error| {
        Error::internal("changes do not fit their schema")
            .with_source(error)
            .into()
    })
}
