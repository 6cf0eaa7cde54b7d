//! What has changed in a table, as rows.

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, RecordBatch, StringArray, new_null_array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use arrow_select::filter::filter_record_batch;
use darner_store::{AsOf, Store, TableSnapshot};

use crate::{Dimension, Error, Result, load_dimension};

/// The changes of a table between two commits, see [`ChangedRows::find`].
///
/// # Shapes
/// `_change`, which is `upsert` or `delete`, then the table's columns. An upserted row is as it is now; a deleted one
/// has its key, and nulls. Underscores are put before `_change` if the table has a column of that name.
#[derive(Clone, Debug)]
pub struct ChangedRows {
    table: TableSnapshot,
    /// `None` where there was nothing before.
    before: Option<TableSnapshot>,
    since: u64,
    schema: SchemaRef,
}

impl ChangedRows {
    /// Finds the two states of a table whose difference is asked for: after `since`, up to `until`, or up to now.
    /// Version 0 stands for nothing, of this table or of any other.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if there is no such table or it was not there then, or if one
    /// of the states is not kept any more; [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if `since` is later than
    /// `until`, or still to come.
    pub fn find(store: &Store, table: &str, since: AsOf, until: Option<AsOf>) -> Result<Self> {
        let now = match until {
            None => store.table(table)?,
            Some(until) => store.table_at(table, until)?,
        };
        let before = match since {
            AsOf::Version(0) => None,
            since => Some(store.table_at(table, since)?),
        };
        let number = match (&before, since) {
            (None, _) => 0,
            (Some(_), AsOf::Version(number)) => number,
            (Some(before), AsOf::Time(_)) => before.version().number,
        };
        let is_later = |before: &TableSnapshot| before.version() > now.version();
        if before.as_ref().is_some_and(is_later) {
            return Err(Error::invalid(format!(
                "changes begin later than they end: table=`{table}` since=`{number}` until=`{}`",
                now.version()
            )));
        }
        Ok(Self {
            schema: change_schema(&now),
            table: now,
            before,
            since: number,
        })
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The table as it was afterwards.
    pub fn table(&self) -> &TableSnapshot {
        &self.table
    }

    /// The version after which the changes begin.
    pub fn since(&self) -> u64 {
        self.since
    }

    /// Reads the changes: first what was deleted, then what was upserted.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if what came between is not kept any more,
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the table was replaced by one with another key,
    /// [`ErrorKind::Data`](crate::ErrorKind::Data) for damage.
    pub fn rows(&self) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send + use<>> {
        let changes = self.table.changes_since(self.since, None)?;
        let deletes: Box<dyn Iterator<Item = Result<RecordBatch>> + Send> = match &self.before {
            None => Box::new(std::iter::empty()),
            // The store knows no deleted keys then: they are those that were there and are not any more.
            Some(before) if changes.is_replaced => Box::new(gone(before, &self.table)?),
            Some(_) => Box::new(changes.deletes),
        };
        let (schema, upsert_schema) = (Arc::clone(&self.schema), Arc::clone(&self.schema));
        let deletes = deletes.map(move |keys| change_rows(&schema, "delete", &keys?));
        let upserts = changes.upserts;
        Ok(deletes.chain(upserts.map(move |rows| change_rows(&upsert_schema, "upsert", &rows?))))
    }
}

/// The keys that a table had before it was replaced and has no more.
fn gone(
    before: &TableSnapshot,
    table: &TableSnapshot,
) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send + use<>> {
    let types = |table: &TableSnapshot| -> Vec<(String, DataType)> {
        let fields = table.spec().key_schema().fields().iter();
        fields
            .map(|field| (field.name().clone(), field.data_type().clone()))
            .collect()
    };
    if types(before) != types(table) {
        return Err(Error::invalid(format!(
            "table was replaced by one with another key: table=`{}` key=`{}` earlier=`{}`; take all its rows as changes \
             since version 0",
            table.name(),
            table.key_names().join(","),
            before.key_names().join(",")
        )));
    }
    let dimension = load_dimension(table, Some(&[]))?;
    let names: Vec<String> = types(table).into_iter().map(|(name, _)| name).collect();
    let mut key_columns = before.spec().key_columns().to_vec();
    key_columns.sort_unstable();
    let rows = before.rows(Some(&key_columns))?;
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
    filter_record_batch(rows, &is_gone)
        .map_err(|error| Error::internal("keys cannot be filtered").with_source(error))
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
    RecordBatch::try_new(SchemaRef::clone(schema), columns.collect())
        .map_err(|error| Error::internal("changes do not fit their schema").with_source(error))
}
