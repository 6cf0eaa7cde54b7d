//! Reads the rows of a table in a query.

use std::{fmt, sync::Arc};

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use darner_engine::Error;
use darner_store::TableSnapshot;
use datafusion::{
    common::{internal_err, tree_node::TreeNodeRecursion},
    error::Result,
    execution::TaskContext,
    physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr},
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        ReplaceChildrenOptions, SendableRecordBatchStream,
        execution_plan::{Boundedness, EmissionType},
        limit::LimitStream,
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet},
        stream::RecordBatchReceiverStreamBuilder,
    },
};

use crate::{cache::DimensionCache, error::to_datafusion};

/// Batches that wait for the query while the next ones are read.
const BATCHES_AHEAD: usize = 4;

/// Reads a table as of one commit.
#[derive(Debug, Clone)]
pub(crate) struct StoreScanExec {
    snapshot: TableSnapshot,
    projection: Option<Vec<usize>>,
    limit: Option<usize>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    /// Where joins find dimensions of the table.
    cache: Option<Arc<DimensionCache>>,
}

impl StoreScanExec {
    /// Plans to read these columns, in this order, of all rows, or of so many.
    pub(crate) fn try_new(
        snapshot: TableSnapshot,
        projection: Option<Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Self> {
        let schema = match &projection {
            None => Arc::clone(snapshot.schema()),
            Some(columns) => Arc::new(snapshot.schema().project(columns)?),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self {
            snapshot,
            projection,
            limit,
            schema,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            cache: None,
        })
    }

    /// Lets joins with the whole table find dimensions of it here.
    pub(crate) fn with_cache(self, cache: Arc<DimensionCache>) -> Self {
        let cache = Some(cache);
        Self { cache, ..self }
    }

    /// The table and its dimensions, if this reads every row of it and nothing that the query does meanwhile changes
    /// that.
    pub(crate) fn whole_table(&self) -> Option<(&TableSnapshot, &Arc<DimensionCache>)> {
        let cache = self.cache.as_ref()?;
        self.limit.is_none().then_some((&self.snapshot, cache))
    }

    /// The columns that are read, in this order; `None` for all.
    pub(crate) fn projection(&self) -> Option<&[usize]> {
        self.projection.as_deref()
    }
}

impl DisplayAs for StoreScanExec {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, version) = (self.snapshot.name(), self.snapshot.version().number);
        match kind {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "StoreScanExec: table={name}, version={version}")?;
                let names: Vec<&str> = self
                    .schema
                    .fields()
                    .iter()
                    .map(|f| f.name().as_str())
                    .collect();
                write!(f, ", projection=[{}]", names.join(", "))?;
                match self.limit {
                    None => Ok(()),
                    Some(limit) => write!(f, ", limit={limit}"),
                }
            }
            DisplayFormatType::TreeRender => writeln!(f, "table={name}\nversion={version}"),
        }
    }
}

impl ExecutionPlan for StoreScanExec {
    fn name(&self) -> &'static str {
        "StoreScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if !children.is_empty() {
            return internal_err!("a scan of a table has no inputs");
        }
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
        )
    }

    fn execute(
        &self,
        partition: usize,
        _context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let mut builder =
            RecordBatchReceiverStreamBuilder::new(Arc::clone(&self.schema), BATCHES_AHEAD);
        let sender = builder.tx();
        let scan = self.clone();
        builder.spawn_blocking(move || {
            for rows in scan.read().map_err(to_datafusion)? {
                // The query has all it wants, or has failed.
                if sender.blocking_send(rows.map_err(to_datafusion)).is_err() {
                    break;
                }
            }
            Ok(())
        });
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        Ok(Box::pin(LimitStream::new(
            builder.build(),
            0,
            self.limit,
            baseline,
        )))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn fetch(&self) -> Option<usize> {
        self.limit
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        Some(Arc::new(Self {
            limit,
            ..self.clone()
        }))
    }
}

impl StoreScanExec {
    /// The rows that count, with columns in the order that DataFusion asked for; the store gives them in its own.
    fn read(
        &self,
    ) -> darner_engine::Result<impl Iterator<Item = darner_engine::Result<RecordBatch>> + use<>>
    {
        let schema = Arc::clone(&self.schema);
        let ascending = self.projection.as_ref().map(|columns| {
            let mut ascending = columns.clone();
            ascending.sort_unstable();
            ascending.dedup();
            ascending
        });
        let places: Option<Vec<usize>> =
            self.projection
                .as_ref()
                .zip(ascending.as_ref())
                .map(|(columns, ascending)| {
                    // Every column is in the sorted list.
                    columns
                        .iter()
                        .filter_map(|column| ascending.binary_search(column).ok())
                        .collect()
                });
        let rows = self.snapshot.rows(ascending.as_deref())?;
        Ok(rows.map(move |rows| {
            let rows = rows?;
            let columns = match &places {
                None => rows.columns().to_vec(),
                Some(places) => places
                    .iter()
                    .map(|place| Arc::clone(rows.column(*place)))
                    .collect(),
            };
            let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
            RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)
                .map_err(|error| Error::internal("rows do not fit their schema").with_source(error))
        }))
    }
}
