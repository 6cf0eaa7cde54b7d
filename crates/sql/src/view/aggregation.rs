//! The aggregate of a view as DataFusion computes it: from rows to states, from states to states, from states to values.
//!
//! Nothing about an aggregate function is known here. Its expressions are planned by DataFusion's own planner, and run
//! by its own operator, in the modes `Partial` (rows to states) and `PartialReduce` (states to fewer states).
//!
//! The columns of the table that keeps the states are named by place, because the names of states need not differ:
//!
//! ```text
//! group    Binary   the values of g0, g1, ... as bytes that compare and differ as they do: the key
//! g0, ...           the group's values; of GROUPING SETS and the like, also the number of the set
//! s0, ...           the states of the aggregates, one after the other
//! ```

use std::{collections::BTreeSet, sync::Arc};

use arrow_array::{ArrayRef, BinaryArray, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use darner_engine::Error;
use darner_store::TableSpec;
use datafusion::{
    arrow::{
        compute::{SortOptions, sort_to_indices, take_record_batch},
        row::{RowConverter, SortField},
    },
    common::{DFSchemaRef, ScalarValue, internal_err},
    datasource::memory::MemorySourceConfig,
    error::Result,
    execution::{SessionState, SessionStateBuilder},
    logical_expr::{
        Aggregate, EmitTo, EmptyRelation, Expr, LogicalPlan, Projection,
        utils::AggregateOrderSensitivity,
    },
    optimizer::{Optimizer, simplify_expressions::SimplifyExpressions},
    physical_expr::{LexOrdering, Partitioning, PhysicalExpr, aggregate::AggregateFunctionExpr},
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties,
        aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy},
        coalesce_partitions::CoalescePartitionsExec,
        collect, collect_partitioned,
        repartition::RepartitionExec,
        sorts::sort::SortExec,
    },
};

use super::{retract::Retraction, shape::Shape, verify::is_exact};
use crate::error::to_datafusion;

/// From so many states on, all threads merge them.
const APART_ROWS_MIN: usize = 1 << 14;

/// The key column of a table of states.
pub(crate) const KEY: &str = "group";

/// States that were made of rows.
pub(crate) struct NewStates {
    /// As they come: a group may come several times.
    pub(crate) rows: Vec<RecordBatch>,
    /// About so many different groups are among them, at least: those that one thread has found. More than there are if
    /// it has given up on finding rows of one group, because hardly any were.
    pub(crate) num_groups_min: usize,
}

/// An aggregate, planned.
#[derive(Debug, Clone)]
pub(crate) struct Aggregation {
    group_by: Arc<PhysicalGroupBy>,
    /// Those that are seen, and then those that are not.
    functions: Vec<Arc<AggregateFunctionExpr>>,
    num_seen: usize,
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    /// The columns of the input that are aggregated.
    input_columns: Vec<Expr>,
    input_schema: SchemaRef,
    /// The columns of states as DataFusion names them: the groups, then the states.
    partial_schema: SchemaRef,
    num_group_columns: usize,
    /// How rows are taken back from states, or which function forbids that.
    pub(crate) retraction: Result<Retraction, String>,
    /// The columns of finished groups.
    pub(crate) output: DFSchemaRef,
    /// The columns of the table of states.
    pub(crate) spec: Arc<TableSpec>,
}

impl Aggregation {
    /// Plans the aggregate of a query.
    pub(crate) async fn plan(shape: &Shape, state: &SessionState) -> Result<Self> {
        let aggregate = &shape.kept;
        let input_columns = used_columns(aggregate);
        let input = Projection::try_new(input_columns.clone(), Arc::clone(&aggregate.input))?;
        let rows = LogicalPlan::EmptyRelation(EmptyRelation {
            produce_one_row: false,
            schema: Arc::clone(&input.schema),
        });
        let alone = Aggregate::try_new(
            Arc::new(rows),
            aggregate.group_expr.clone(),
            aggregate.aggr_expr.clone(),
        )?;
        // Some functions are there to be replaced by the optimizer.
        let simplify = Optimizer::with_rules(vec![Arc::new(SimplifyExpressions::new())]);
        let alone = LogicalPlan::Aggregate(alone);
        let simple = simplify.optimize(alone.clone(), state, |_, _| {})?;
        let is_same = matches!(&simple, LogicalPlan::Aggregate(simple)
            if simple.group_expr.len() == aggregate.group_expr.len()
                && simple.aggr_expr.len() == aggregate.aggr_expr.len());
        let alone = if is_same { simple } else { alone };
        // What optimizes physical plans would look for a shorter way than by states.
        let plain = SessionStateBuilder::new_from_existing(state.clone())
            .with_physical_optimizer_rules(Vec::new())
            .build();
        let plan = plain
            .query_planner()
            .create_physical_plan(&alone, &plain)
            .await?;
        let partial = partial_of(&plan)?;
        let num_group_columns = partial.group_expr().num_group_exprs();
        let partial_schema = partial.schema();
        Ok(Self {
            group_by: Arc::new(partial.group_expr().clone()),
            functions: partial.aggr_expr().to_vec(),
            num_seen: shape.aggregate.aggr_expr.len(),
            retraction: shape.retraction.clone(),
            filters: partial.filter_expr().to_vec(),
            input_columns,
            input_schema: Arc::clone(input.schema.inner()),
            spec: Arc::new(spec_of(&partial_schema, num_group_columns)?),
            partial_schema,
            num_group_columns,
            output: Arc::clone(&shape.aggregate.schema),
        })
    }

    pub(crate) fn num_group_columns(&self) -> usize {
        self.num_group_columns
    }

    /// Whether a group is no more than its values: not one of several sets of them.
    pub(crate) fn is_plain(&self) -> bool {
        self.group_by.is_single()
    }

    /// Whether there is one group, of all rows, also if there are none.
    pub(crate) fn is_global(&self) -> bool {
        self.group_by.is_true_no_grouping()
    }

    /// What makes values of a function's states.
    pub(crate) fn finisher(&self, function: usize) -> Finisher {
        Finisher {
            function: Arc::clone(&self.functions[function]),
            is_global: self.is_global(),
        }
    }

    /// The functions of the query.
    pub(crate) fn functions(&self) -> &[Arc<AggregateFunctionExpr>] {
        &self.functions[..self.num_seen]
    }

    /// The states of the groups of all rows of an input.
    pub(crate) async fn states_of(
        &self,
        input: &LogicalPlan,
        state: &SessionState,
    ) -> Result<NewStates> {
        let input = Projection::try_new(self.input_columns.clone(), Arc::new(input.clone()))?;
        let input = state.optimize(&LogicalPlan::Projection(input))?;
        let planner = state.query_planner();
        let mut input = planner.create_physical_plan(&input, state).await?;
        let ordered = self.functions.iter().find(|function| {
            let sensitivity = function.order_sensitivity();
            matches!(sensitivity, AggregateOrderSensitivity::HardRequirement)
                && !function.order_bys().is_empty()
        });
        let num_threads = state.config().target_partitions();
        if let Some(function) = ordered
            && let Some(order) = LexOrdering::new(function.order_bys().to_vec())
        {
            let sort = SortExec::new(order, input).with_preserve_partitioning(true);
            input = Arc::new(sort);
        } else if input.output_partitioning().partition_count() < num_threads && self.is_mixable() {
            // A new file is often one part, which one thread would read and count alone.
            let parts = Partitioning::RoundRobinBatch(num_threads);
            input = Arc::new(RepartitionExec::try_new(input, parts)?);
        }
        let partial = AggregateExec::try_new(
            AggregateMode::Partial,
            Arc::clone(&self.group_by),
            self.functions.clone(),
            self.filters.clone(),
            input,
            Arc::clone(&self.input_schema),
        )?;
        // Part by part, and not as they come: sums of floats depend on the order in which they are merged.
        let parts = collect_partitioned(Arc::new(partial), state.task_ctx()).await?;
        let num_rows = |part: &Vec<RecordBatch>| part.iter().map(RecordBatch::num_rows).sum();
        let rows = parts.iter().flatten().map(|rows| self.renamed(rows));
        Ok(NewStates {
            rows: rows.collect::<Result<_>>()?,
            num_groups_min: parts.iter().map(num_rows).max().unwrap_or_default(),
        })
    }

    /// Merges states: each group comes once, in the order of the keys. Of states that depend on order, earlier ones go
    /// first.
    pub(crate) async fn merge(
        &self,
        states: &[RecordBatch],
        state: &SessionState,
    ) -> Result<RecordBatch> {
        let states: Vec<RecordBatch> = states
            .iter()
            .map(|rows| self.named(rows))
            .collect::<Result<_>>()?;
        let num_rows: usize = states.iter().map(RecordBatch::num_rows).sum();
        let mut input: Arc<dyn ExecutionPlan> =
            MemorySourceConfig::try_new_exec(&[states], Arc::clone(&self.partial_schema), None)?;
        let num_threads = state.config().target_partitions();
        if num_rows >= APART_ROWS_MIN && num_threads > 1 && self.num_group_columns > 0 {
            // Those of one group stay together, in their order.
            let groups = self.group_by.as_final().input_exprs();
            let parts = Partitioning::Hash(groups, num_threads);
            input = Arc::new(RepartitionExec::try_new(input, parts)?);
        }
        let reduce = AggregateExec::try_new(
            AggregateMode::PartialReduce,
            self.group_by.as_final(),
            self.functions.clone(),
            vec![None; self.functions.len()],
            input,
            Arc::clone(&self.input_schema),
        )?;
        let mut plan: Arc<dyn ExecutionPlan> = Arc::new(reduce);
        if plan.output_partitioning().partition_count() > 1 {
            plan = Arc::new(CoalescePartitionsExec::new(plan));
        }
        let merged = collect(plan, state.task_ctx()).await?;
        let merged = merged
            .iter()
            .map(|rows| self.renamed(rows))
            .collect::<Result<Vec<_>>>()?;
        let merged = datafusion::arrow::compute::concat_batches(self.spec.schema(), merged.iter())?;
        let order = sort_to_indices(
            self.sort_column(&merged),
            Some(SortOptions::default().asc().nulls_first()),
            None,
        )?;
        Ok(take_record_batch(&merged, &order)?)
    }

    /// Whether it does not matter in which order rows come, and which of them together.
    fn is_mixable(&self) -> bool {
        let is_insensitive = |function: &AggregateFunctionExpr| {
            let sensitivity = function.order_sensitivity();
            matches!(sensitivity, AggregateOrderSensitivity::Insensitive)
        };
        let mut functions = self.functions.iter();
        functions.all(|function| is_insensitive(function) && is_exact(function))
    }

    /// A column of the table of states that is in order where the keys are. Numbers and times are sorted several times as
    /// fast as the bytes that stand for them.
    fn sort_column<'r>(&self, states: &'r RecordBatch) -> &'r ArrayRef {
        let first = states.column(1.min(states.num_columns() - 1));
        let data_type = first.data_type();
        let is_quick = data_type.is_integer() || data_type.is_temporal();
        if self.num_group_columns == 1 && is_quick {
            return first;
        }
        states.column(0)
    }

    /// Rows of DataFusion's states as the table has them, with their key.
    fn renamed(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let keys = self.keys_of(&rows.columns()[..self.num_group_columns], rows.num_rows())?;
        let mut columns: Vec<ArrayRef> = vec![Arc::new(keys)];
        columns.extend(rows.columns().iter().cloned());
        Ok(RecordBatch::try_new(
            Arc::clone(self.spec.schema()),
            columns,
        )?)
    }

    /// Rows of the table as DataFusion has states.
    fn named(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let schema = nullable(&self.partial_schema);
        Ok(RecordBatch::try_new_with_options(
            Arc::new(schema),
            rows.columns()[1..].to_vec(),
            &options,
        )?)
    }

    /// The keys of groups.
    pub(crate) fn keys_of(&self, values: &[ArrayRef], num_rows: usize) -> Result<BinaryArray> {
        let fields = self.partial_schema.fields()[..self.num_group_columns].iter();
        let fields = fields.map(|field| SortField::new(field.data_type().clone()));
        if self.num_group_columns == 0 {
            return Ok(BinaryArray::from_iter_values(std::iter::repeat_n(
                b"", num_rows,
            )));
        }
        let converter = RowConverter::new(fields.collect())?;
        Ok(converter.convert_columns(values)?.try_into_binary()?)
    }

    /// The number that marks the groups of all columns, where there are several sets of them: none of them is left out.
    pub(crate) fn finest_set(&self, num_rows: usize) -> Result<ArrayRef> {
        let field = self.partial_schema.field(self.num_group_columns - 1);
        let zero = ScalarValue::new_zero(field.data_type())?;
        zero.to_array_of_size(num_rows)
    }

    /// The columns of the table that hold the states of a function.
    pub(crate) fn state_columns(&self, function: usize) -> Result<std::ops::Range<usize>> {
        let mut start = 1 + self.num_group_columns;
        for earlier in &self.functions[..function] {
            start += earlier.state_fields()?.len();
        }
        Ok(start..start + self.functions[function].state_fields()?.len())
    }
}

/// Makes values of a function's states.
#[derive(Debug, Clone)]
pub(crate) struct Finisher {
    pub(crate) function: Arc<AggregateFunctionExpr>,
    /// Whether the states are of all rows at once.
    is_global: bool,
}

impl Finisher {
    /// One value for each row.
    pub(crate) fn finish(&self, states: &[ArrayRef], num_rows: usize) -> Result<ArrayRef> {
        // DataFusion has two forms of many functions, one of which counts for groups, and their states are not the same:
        // an average of nothing has a count of 0 or of null. The form that made the states must finish them.
        if self.function.groups_accumulator_supported() && !self.is_global {
            let mut accumulator = self.function.create_groups_accumulator()?;
            let groups: Vec<usize> = (0..num_rows).collect();
            accumulator.merge_batch(states, &groups, num_rows)?;
            return accumulator.evaluate(EmitTo::All);
        }
        let values = (0..num_rows).map(|row| {
            let mut accumulator = self.function.create_accumulator()?;
            let state: Vec<ArrayRef> = states.iter().map(|column| column.slice(row, 1)).collect();
            accumulator.merge_batch(&state)?;
            accumulator.evaluate()
        });
        let values = values.collect::<Result<Vec<_>>>()?;
        if values.is_empty() {
            let data_type = self.function.field().data_type().clone();
            return Ok(arrow_array::new_empty_array(&data_type));
        }
        ScalarValue::iter_to_array(values)
    }
}

/// The columns of the input that an aggregate looks at: one at least, so that there are rows.
fn used_columns(aggregate: &Aggregate) -> Vec<Expr> {
    let exprs = aggregate.group_expr.iter().chain(&aggregate.aggr_expr);
    let used: BTreeSet<_> = exprs.flat_map(Expr::column_refs).cloned().collect();
    let columns = aggregate.input.schema().columns();
    let mut kept: Vec<Expr> = columns
        .iter()
        .filter(|column| used.contains(column))
        .cloned()
        .map(Expr::Column)
        .collect();
    if kept.is_empty() {
        kept.extend(columns.first().cloned().map(Expr::Column));
    }
    kept
}

/// The first stage of an aggregate.
fn partial_of(plan: &Arc<dyn ExecutionPlan>) -> Result<&AggregateExec> {
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>()
        && *aggregate.mode() == AggregateMode::Partial
    {
        return Ok(aggregate);
    }
    let [child] = plan.children()[..] else {
        return internal_err!("an aggregate was planned without states");
    };
    partial_of(child)
}

fn nullable(schema: &Schema) -> Schema {
    let fields = schema.fields().iter();
    let fields = fields.map(|field| Field::new(field.name(), field.data_type().clone(), true));
    Schema::new(fields.collect::<Vec<_>>())
}

/// The table that keeps states.
fn spec_of(partial: &Schema, num_group_columns: usize) -> Result<TableSpec> {
    let mut fields = vec![Field::new(KEY, DataType::Binary, false)];
    fields.extend(partial.fields().iter().enumerate().map(|(place, field)| {
        let name = match place.checked_sub(num_group_columns) {
            None => format!("g{place}"),
            Some(place) => format!("s{place}"),
        };
        Field::new(name, field.data_type().clone(), true)
    }));
    TableSpec::new(&Schema::new(fields), &[KEY]).map_err(|error: Error| to_datafusion(error))
}
