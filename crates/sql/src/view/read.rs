//! A view as a table of queries.
//!
//! What is stored are states. [`Groups`] is the table of finished groups: its scan is that of the table of states, which
//! rules out pages by filters on groups, and [`FinishExec`] above it, which makes values of states. A group stands in one
//! row, so nothing is hashed and nothing waits for other rows. The rest of the view's query, such as `HAVING`, is a plan
//! over that table, and becomes a part of the plan of whoever asks.

use std::{borrow::Cow, fmt, sync::Arc};

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use darner_store::TableSnapshot;
use datafusion::{
    arrow::compute::cast,
    catalog::{Session, TableProvider, view::ViewTable},
    common::{DFSchema, internal_err, plan_err, tree_node::TreeNodeRecursion},
    error::Result,
    execution::TaskContext,
    logical_expr::{
        Expr, LogicalPlan, TableProviderFilterPushDown, TableType, dml::InsertOp,
        expr_rewriter::unnormalize_col, simplify::SimplifyContext,
    },
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan,
        ExecutionPlanProperties, PlanProperties, ReplaceChildrenOptions, SendableRecordBatchStream,
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::StreamExt;

use super::aggregation::{Aggregation, Finisher};
use crate::{
    catalog::StoreHandle, pushdown::classify, string_views::seen_schema, table::StoreTable,
};

/// The finished groups of a view.
#[derive(Clone)]
pub(crate) struct Groups {
    handle: Arc<StoreHandle>,
    pub(crate) table: TableSnapshot,
    /// The commit that defined the view.
    pub(crate) defined: u64,
    aggregation: Arc<Aggregation>,
    schema: SchemaRef,
}

impl Groups {
    pub(crate) fn new(
        handle: Arc<StoreHandle>,
        table: TableSnapshot,
        defined: u64,
        aggregation: Arc<Aggregation>,
    ) -> Self {
        let num_groups = aggregation.num_group_columns();
        let fields = aggregation.output.fields().iter().enumerate();
        let fields = fields.map(|(place, field)| {
            let name = match place.checked_sub(num_groups) {
                None => format!("g{place}"),
                Some(place) => format!("a{place}"),
            };
            Field::new(name, field.data_type().clone(), field.is_nullable())
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Self {
            handle,
            table,
            defined,
            aggregation,
            schema,
        }
    }

    pub(crate) fn handle(&self) -> &Arc<StoreHandle> {
        &self.handle
    }

    /// The same as of another commit.
    pub(crate) fn at(&self, table: TableSnapshot) -> Self {
        Self {
            table,
            ..self.clone()
        }
    }

    fn state_table(&self) -> StoreTable {
        StoreTable::past(&self.handle, self.table.clone())
    }

    /// A filter on groups as one on the table of states, which gives strings as views.
    fn on_states(&self, filter: &Expr) -> Result<Expr> {
        let states = DFSchema::try_from(seen_schema(self.table.schema()))?;
        let states = Arc::new(states);
        let filter = unnormalize_col(filter.clone());
        let context = SimplifyContext::builder().with_schema(Arc::clone(&states));
        let simplifier = ExprSimplifier::new(context.build());
        simplifier.simplify(simplifier.coerce(filter, &states)?)
    }
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Groups {{ view: {:?} }}", self.table.name())
    }
}

#[async_trait::async_trait]
impl TableProvider for Groups {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let states = DFSchema::try_from(seen_schema(self.table.schema()))?;
        let kinds = filters.iter().map(|filter| {
            let mut columns = filter.column_refs().into_iter();
            // Groups have the same names and values there.
            if !columns.all(|column| column.name.starts_with('g')) {
                return TableProviderFilterPushDown::Unsupported;
            }
            match self.on_states(filter) {
                Ok(filter) => classify(&filter, &states),
                Err(_) => TableProviderFilterPushDown::Unsupported,
            }
        });
        Ok(kinds.collect())
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all = || (0..self.schema.fields().len()).collect();
        let projection = projection.cloned().unwrap_or_else(all);
        let num_groups = self.aggregation.num_group_columns();
        // Of the table of states, in its order, and where each is among those.
        let mut stored = Vec::new();
        for column in &projection {
            match column.checked_sub(num_groups) {
                None => stored.push(column + 1),
                Some(function) => stored.extend(self.aggregation.state_columns(function)?),
            }
        }
        stored.sort_unstable();
        stored.dedup();
        let place = |column: usize| {
            stored
                .binary_search(&column)
                .or_else(|_| internal_err!("a view's scan lacks a column"))
        };
        let mut outputs = Vec::new();
        for column in &projection {
            outputs.push(match column.checked_sub(num_groups) {
                None => Output::Group(place(column + 1)?),
                Some(function) => {
                    let columns = self.aggregation.state_columns(function)?;
                    let places = columns.map(place).collect::<Result<Vec<_>>>()?;
                    Output::Aggregate(self.aggregation.finisher(function), places)
                }
            });
        }
        let filters = filters.iter().map(|filter| self.on_states(filter));
        let filters = filters.collect::<Result<Vec<_>>>()?;
        let states = self.state_table();
        let states = states.scan(session, Some(&stored), &filters, limit).await?;
        let types = self.table.schema().project(&stored)?;
        let types = types.fields().iter();
        let types = types.map(|field| field.data_type().clone()).collect();
        let schema = Arc::new(self.schema.project(&projection)?);
        Ok(Arc::new(FinishExec::new(
            states,
            types,
            outputs.into(),
            schema,
        )))
    }
}

/// A column of finished groups.
#[derive(Debug, Clone)]
enum Output {
    /// The column that is there.
    Group(usize),
    /// The value of a function, from the columns of its states.
    Aggregate(Finisher, Vec<usize>),
}

/// Makes values of states, row by row.
#[derive(Debug)]
pub(crate) struct FinishExec {
    input: Arc<dyn ExecutionPlan>,
    /// The types in which states are stored: the functions want them so, and no views.
    types: Arc<[DataType]>,
    outputs: Arc<[Output]>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl FinishExec {
    fn new(
        input: Arc<dyn ExecutionPlan>,
        types: Arc<[DataType]>,
        outputs: Arc<[Output]>,
        schema: SchemaRef,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            datafusion::physical_expr::Partitioning::UnknownPartitioning(
                input.output_partitioning().partition_count(),
            ),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Self {
            input,
            types,
            outputs,
            schema,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

fn finish_rows(
    rows: &RecordBatch,
    types: &[DataType],
    outputs: &[Output],
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let states = rows.columns().iter().zip(types);
    let states = states
        .map(|(column, stored)| cast(column, stored))
        .collect::<Result<Vec<_>, _>>()?;
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(outputs.len());
    for output in outputs {
        columns.push(match output {
            Output::Group(place) => Arc::clone(&states[*place]),
            Output::Aggregate(finisher, places) => {
                let states: Vec<ArrayRef> = places
                    .iter()
                    .map(|place| Arc::clone(&states[*place]))
                    .collect();
                finisher.finish(&states, rows.num_rows())?
            }
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &options,
    )?)
}

impl DisplayAs for FinishExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let functions = self.outputs.iter().filter_map(|output| match output {
            Output::Group(_) => None,
            Output::Aggregate(finisher, _) => Some(finisher.function.name()),
        });
        let functions: Vec<&str> = functions.collect();
        write!(f, "FinishExec: aggr=[{}]", functions.join(", "))
    }
}

impl ExecutionPlan for FinishExec {
    fn name(&self) -> &'static str {
        "FinishExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
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
        let [input] = &children[..] else {
            return internal_err!("groups are finished from one input");
        };
        Ok(Arc::new(Self::new(
            Arc::clone(input),
            Arc::clone(&self.types),
            Arc::clone(&self.outputs),
            Arc::clone(&self.schema),
        )))
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
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let (outputs, schema) = (Arc::clone(&self.outputs), Arc::clone(&self.schema));
        let types = Arc::clone(&self.types);
        let rows = self.input.execute(partition, context)?.map(move |rows| {
            let rows = rows?;
            let timer = metrics.elapsed_compute().timer();
            let finished = finish_rows(&rows, &types, &outputs, &schema)?;
            timer.done();
            metrics.output_rows().add(finished.num_rows());
            Ok(finished)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.schema),
            rows,
        )))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// A view in a catalog.
#[derive(Debug)]
pub(crate) struct MaterializedView {
    name: String,
    /// The view's query over what is stored.
    table: ViewTable,
}

impl MaterializedView {
    pub(crate) fn new(name: &str, plan: LogicalPlan, query: &str) -> Self {
        Self {
            name: name.to_owned(),
            table: ViewTable::new(plan, Some(query.to_owned())),
        }
    }

    pub(crate) fn logical_plan(&self) -> &LogicalPlan {
        self.table.logical_plan()
    }

    fn refuse<T>(&self, what: &str) -> Result<T> {
        plan_err!(
            "{what} is not possible on a materialized view: view=`{}`; change what it reads, and REFRESH MATERIALIZED \
             VIEW {}",
            self.name,
            self.name
        )
    }
}

#[async_trait::async_trait]
impl TableProvider for MaterializedView {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn get_table_definition(&self) -> Option<&str> {
        self.table.get_table_definition()
    }

    fn get_logical_plan(&'_ self) -> Option<Cow<'_, LogicalPlan>> {
        self.table.get_logical_plan()
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        self.table.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.table.scan(session, projection, filters, limit).await
    }

    async fn insert_into(
        &self,
        _session: &dyn Session,
        _input: Arc<dyn ExecutionPlan>,
        _op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.refuse("INSERT")
    }

    async fn delete_from(
        &self,
        _session: &dyn Session,
        _filters: Vec<Expr>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.refuse("DELETE")
    }

    async fn update(
        &self,
        _session: &dyn Session,
        _assignments: Vec<(String, Expr)>,
        _filters: Vec<Expr>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.refuse("UPDATE")
    }

    async fn truncate(&self, _session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        self.refuse("TRUNCATE")
    }
}
