//! Rows that are read on a thread that may block, as a table.

use std::{fmt, sync::Arc};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::{
    catalog::{TableProvider, streaming::StreamingTable},
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{stream::RecordBatchReceiverStreamBuilder, streaming::PartitionStream},
};

use crate::error::to_datafusion;

/// Batches that wait for the query while the next ones are read.
const BATCHES_AHEAD: usize = 4;

type Batches = Box<dyn Iterator<Item = darner_engine::Result<RecordBatch>>>;

/// Rows that are read anew by each query.
struct BlockingRows {
    schema: SchemaRef,
    read: Arc<dyn Fn() -> darner_engine::Result<Batches> + Send + Sync>,
}

/// A table whose rows are what a function reads. It is called when the rows are wanted, where it may block.
pub(super) fn table(
    schema: SchemaRef,
    read: impl Fn() -> darner_engine::Result<Batches> + Send + Sync + 'static,
) -> Result<Arc<dyn TableProvider>> {
    let rows = BlockingRows {
        schema: Arc::clone(&schema),
        read: Arc::new(read),
    };
    Ok(Arc::new(StreamingTable::try_new(
        schema,
        vec![Arc::new(rows)],
    )?))
}

impl fmt::Debug for BlockingRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingRows")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

impl PartitionStream for BlockingRows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut builder =
            RecordBatchReceiverStreamBuilder::new(Arc::clone(&self.schema), BATCHES_AHEAD);
        let sender = builder.tx();
        let read = Arc::clone(&self.read);
        builder.spawn_blocking(move || {
            for rows in read().map_err(to_datafusion)? {
                // The query has all it wants, or has failed.
                if sender.blocking_send(rows.map_err(to_datafusion)).is_err() {
                    break;
                }
            }
            Ok(())
        });
        builder.build()
    }
}
