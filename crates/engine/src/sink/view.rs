//! View columns before they are written by a format that writes their buffers whole.

use arrow_array::{Array, ArrayRef, RecordBatch, cast::AsArray};
use arrow_buffer::Buffer;
use arrow_schema::DataType;
use std::sync::Arc;

/// Buffers may be this many times as long as what the views use of them.
const SLACK: usize = 2;

/// The batch with view columns whose buffers are mostly unused copied into buffers of their own.
///
/// Views into a dimension's buffers share them between all batches; written as they are, every batch
/// would carry the whole dimension.
///
/// # Panics
/// Never: what is put together is what was taken apart.
pub fn compact_views(batch: RecordBatch) -> RecordBatch {
    let is_view = |c: &ArrayRef| matches!(c.data_type(), DataType::Utf8View | DataType::BinaryView);
    if !batch.columns().iter().any(is_view) {
        return batch;
    }
    let (schema, mut columns, num_rows) = batch.into_parts();
    for column in &mut columns {
        if let Some(compact) = compact(column) {
            *column = compact;
        }
    }
    let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(num_rows));
    RecordBatch::try_new_with_options(schema, columns, &options)
        .expect("types and lengths are those of the batch that was taken apart")
}

fn compact(column: &ArrayRef) -> Option<ArrayRef> {
    match column.data_type() {
        DataType::Utf8View => {
            let array = column.as_string_view();
            let held: usize = array.data_buffers().iter().map(Buffer::len).sum();
            (held > SLACK * array.total_buffer_bytes_used()).then(|| Arc::new(array.gc()) as _)
        }
        DataType::BinaryView => {
            let array = column.as_binary_view();
            let held: usize = array.data_buffers().iter().map(Buffer::len).sum();
            (held > SLACK * array.total_buffer_bytes_used()).then(|| Arc::new(array.gc()) as _)
        }
        _ => None,
    }
}
