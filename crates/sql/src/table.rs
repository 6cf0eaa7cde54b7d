//! A table of the store as a table of DataFusion.

use std::{fmt, sync::Arc};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use darner_engine::Error;
use darner_store::TableSnapshot;
use datafusion::{
    catalog::{Session, TableProvider},
    error::Result,
    execution::TaskContext,
    logical_expr::{Expr, TableType},
    physical_plan::{
        ExecutionPlan, SendableRecordBatchStream,
        stream::RecordBatchReceiverStreamBuilder,
        streaming::{PartitionStream, StreamingTableExec},
    },
};

use crate::error::to_datafusion;

/// Batches that wait for the query while the next ones are read.
const BATCHES_AHEAD: usize = 4;

/// A table as of one commit: every scan of it reads the same rows.
#[derive(Clone)]
pub struct StoreTable {
    snapshot: TableSnapshot,
}

impl StoreTable {
    /// Makes a table of a snapshot.
    pub fn new(snapshot: TableSnapshot) -> Self {
        Self { snapshot }
    }
}

impl fmt::Debug for StoreTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.snapshot.version();
        write!(
            f,
            "StoreTable {{ name: {:?}, version: {version} }}",
            self.snapshot.name()
        )
    }
}

#[async_trait::async_trait]
impl TableProvider for StoreTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.snapshot.schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            None => self.schema(),
            Some(columns) => Arc::new(self.schema().project(columns)?),
        };
        let partition = Partition {
            table: self.clone(),
            schema: Arc::clone(&schema),
            projection: projection.cloned(),
        };
        let plan =
            StreamingTableExec::try_new(schema, vec![Arc::new(partition)], None, [], false, limit)?;
        Ok(Arc::new(plan))
    }
}

/// All rows of a table, one column selection.
#[derive(Debug)]
struct Partition {
    table: StoreTable,
    schema: SchemaRef,
    projection: Option<Vec<usize>>,
}

impl PartitionStream for Partition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut builder =
            RecordBatchReceiverStreamBuilder::new(Arc::clone(&self.schema), BATCHES_AHEAD);
        let sender = builder.tx();
        let snapshot = self.table.snapshot.clone();
        let (schema, projection) = (Arc::clone(&self.schema), self.projection.clone());
        builder.spawn_blocking(move || {
            for rows in read(&snapshot, schema, projection).map_err(to_datafusion)? {
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

/// The rows that count, with columns in the order that DataFusion asked for; the store gives them in its own.
fn read(
    snapshot: &TableSnapshot,
    schema: SchemaRef,
    projection: Option<Vec<usize>>,
) -> darner_engine::Result<impl Iterator<Item = darner_engine::Result<RecordBatch>> + use<>> {
    let ascending = projection.as_ref().map(|columns| {
        let mut ascending = columns.clone();
        ascending.sort_unstable();
        ascending.dedup();
        ascending
    });
    let places: Option<Vec<usize>> =
        projection
            .zip(ascending.as_ref())
            .map(|(columns, ascending)| {
                // Every column is in the sorted list.
                columns
                    .iter()
                    .filter_map(|column| ascending.binary_search(column).ok())
                    .collect()
            });
    let rows = snapshot.rows(ascending.as_deref())?;
    Ok(rows.map(move |rows| {
        let rows = rows?;
        let columns = match &places {
            None => rows.columns().to_vec(),
            Some(places) => places
                .iter()
                .map(|place| Arc::clone(rows.column(*place)))
                .collect(),
        };
        let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)
            .map_err(|error| Error::internal("rows do not fit their schema").with_source(error))
    }))
}
