//! Strings and binary as queries see them: as views.
//!
//! A table keeps such a column in the type that it was declared with. Queries get `Utf8View` or `BinaryView` instead, as
//! they do of Parquet files: then a lookup gives views into the dimension, and a filter views into the page, where
//! otherwise every value would be copied each time. A column of strings becomes one of views without a look at the bytes.
//!
//! Whatever belongs to a query (schemas, filters, bounds, literals) is of these types; what belongs to the store
//! (`TableSpec`, rows that are written, the keys of a dimension) is of the declared ones.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use datafusion::{arrow::compute::cast, error::Result};

/// The type in which a query sees a column that is stored in another one.
fn view_type(stored: &DataType) -> Option<DataType> {
    match stored {
        DataType::Utf8 | DataType::LargeUtf8 => Some(DataType::Utf8View),
        DataType::Binary | DataType::LargeBinary => Some(DataType::BinaryView),
        _ => None,
    }
}

/// The type in which a query sees a column.
pub(crate) fn seen_type(stored: &DataType) -> DataType {
    view_type(stored).unwrap_or_else(|| stored.clone())
}

/// The columns of a table as a query sees them.
pub(crate) fn seen_schema(stored: &SchemaRef) -> SchemaRef {
    let is_seen = |field: &FieldRef| view_type(field.data_type()).is_none();
    if stored.fields().iter().all(is_seen) {
        return Arc::clone(stored);
    }
    let fields: Fields = stored.fields().iter().map(seen_field).collect();
    Arc::new(Schema::new_with_metadata(fields, stored.metadata().clone()))
}

fn seen_field(field: &FieldRef) -> FieldRef {
    match view_type(field.data_type()) {
        None => Arc::clone(field),
        Some(seen) => Arc::new(Field::clone(field).with_data_type(seen)),
    }
}

/// Values of a column as a query sees them.
pub(crate) fn seen(column: &ArrayRef) -> Result<ArrayRef> {
    Ok(match view_type(column.data_type()) {
        None => Arc::clone(column),
        Some(seen) => cast(column, &seen)?,
    })
}

/// Rows of a table, with columns of `schema`, as a query sees them.
pub(crate) fn seen_rows(rows: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if rows.schema_ref() == schema {
        return Ok(rows);
    }
    let columns = rows.columns().iter().map(seen).collect::<Result<_>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &options,
    )?)
}
