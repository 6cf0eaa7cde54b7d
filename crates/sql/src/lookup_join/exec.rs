//! The physical node.

use std::{collections::HashSet, fmt, sync::Arc};

use datafusion::{
    common::{
        ColumnStatistics, Constraints, Statistics, internal_err, stats::Precision,
        tree_node::TreeNodeRecursion,
    },
    config::ConfigOptions,
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{
        PhysicalExpr,
        expressions::Column,
        projection::{ProjectionMapping, ProjectionTargets},
    },
    physical_plan::{
        ChildStats, ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan,
        ExecutionPlanProperties, PlanProperties, ReplaceChildrenOptions, StatisticsArgs,
        apply_expression_roots,
        execution_plan::CardinalityEffect,
        filter_pushdown::{
            ChildFilterDescription, ChildPushdownResult, FilterDescription, FilterPushdownPhase,
            FilterPushdownPropagation,
        },
        metrics::{ExecutionPlanMetricsSet, MetricsSet},
        projection::{EmbeddedProjection, ProjectionExec, try_embed_projection},
    },
};

use super::{
    spec::{Kind, LookupSpec, Source},
    stream::{Lookup, LookupMetrics, Shared},
};

/// Looks the rows of its input up in a dimension.
#[derive(Debug)]
pub(crate) struct LookupJoinExec {
    facts: Arc<dyn ExecutionPlan>,
    spec: Arc<LookupSpec>,
    /// What was known of the columns of the plan that the dimension stands for.
    dimension_statistics: Arc<Vec<ColumnStatistics>>,
    fetch: Option<usize>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    shared: Shared,
}

impl LookupJoinExec {
    pub(super) fn try_new(
        facts: Arc<dyn ExecutionPlan>,
        spec: Arc<LookupSpec>,
        dimension_statistics: Arc<Vec<ColumnStatistics>>,
        fetch: Option<usize>,
    ) -> Result<Self> {
        let properties = Arc::new(properties(&facts, &spec)?);
        Ok(Self {
            facts,
            spec,
            dimension_statistics,
            fetch,
            properties,
            metrics: ExecutionPlanMetricsSet::new(),
            shared: Shared::default(),
        })
    }

    /// The columns that come out which are those of the facts: their places there and here.
    fn passed(&self) -> impl Iterator<Item = (usize, usize)> {
        passed(&self.spec)
    }
}

fn passed(spec: &LookupSpec) -> impl Iterator<Item = (usize, usize)> {
    let sources = spec.output.iter().enumerate();
    sources.filter_map(|(to, source)| match source {
        Source::Fact(from) => Some((*from, to)),
        Source::Dimension(_) | Source::Mark => None,
    })
}

/// Those of the facts, as far as their columns come out: rows keep their order and their partitions.
fn properties(facts: &Arc<dyn ExecutionPlan>, spec: &LookupSpec) -> Result<PlanProperties> {
    let schema = facts.schema();
    let mut mapping: Vec<(Arc<dyn PhysicalExpr>, ProjectionTargets)> = Vec::new();
    for (from, to) in passed(spec) {
        let column = |at, name: &str| Arc::new(Column::new(name, at)) as Arc<dyn PhysicalExpr>;
        let source = column(from, schema.field(from).name());
        let target = (column(to, spec.schema.field(to).name()), to);
        match mapping.iter_mut().find(|(known, _)| known == &source) {
            Some((_, targets)) => targets.push(target),
            None => mapping.push((source, vec![target].into())),
        }
    }
    let mapping: ProjectionMapping = mapping.into_iter().collect();
    let of_facts = facts.equivalence_properties();
    // Without keys of the facts: their columns may have other places here, which `project` leaves as they were.
    let mut equivalences = of_facts
        .project(&mapping, Arc::clone(&spec.schema))
        .with_constraints(Constraints::default());
    if spec.kind == Kind::Inner {
        for (key, name) in spec.keys.iter().zip(spec.dimension.snapshot().key_names()) {
            // A cast of the key is another expression.
            let is_key = |source: &Source| match source {
                Source::Dimension(at) => {
                    let column = spec.dimension.column(*at);
                    spec.dimension.table_column(*at) == Some(name)
                        && column.is_some_and(|column| column.cast.is_none())
                }
                Source::Fact(_) | Source::Mark => false,
            };
            let place = |wanted: &dyn Fn(&Source) -> bool| {
                let at = spec.output.iter().position(wanted)?;
                let name = spec.schema.field(at).name();
                Some(Arc::new(Column::new(name, at)) as Arc<dyn PhysicalExpr>)
            };
            let fact = key.downcast_ref::<Column>().map(Column::index);
            let fact = fact.and_then(|fact| place(&|source| *source == Source::Fact(fact)));
            let key = place(&is_key);
            if let (Some(fact), Some(key)) = (fact, key) {
                equivalences.add_equal_conditions(fact, key)?;
            }
        }
    }
    let partitioning = facts.output_partitioning().project(&mapping, of_facts);
    Ok(PlanProperties::new(
        equivalences,
        partitioning,
        facts.pipeline_behavior(),
        facts.boundedness(),
    ))
}

impl DisplayAs for LookupJoinExec {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spec = &self.spec;
        let snapshot = spec.dimension.snapshot();
        let (name, version) = (snapshot.name(), snapshot.version().number);
        let on = spec.keys.iter().zip(snapshot.key_names());
        match kind {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                let on: Vec<String> = on.map(|(fact, key)| format!("({fact}, {key})")).collect();
                write!(
                    f,
                    "LookupJoinExec: table={name}, version={version}, on=[{}], kind={}, columns=[{}]",
                    on.join(", "),
                    spec.kind,
                    spec.table_columns().join(", ")
                )?;
                if let Some(residual) = &spec.residual {
                    write!(f, ", filter={}", residual.expression)?;
                }
                match self.fetch {
                    None => Ok(()),
                    Some(fetch) => write!(f, ", fetch={fetch}"),
                }
            }
            DisplayFormatType::TreeRender => {
                let on: Vec<String> = on.map(|(fact, key)| format!("({fact} = {key})")).collect();
                writeln!(f, "table={name}\nversion={version}\nkind={}", spec.kind)?;
                writeln!(f, "on={}", on.join(", "))?;
                if let Some(residual) = &spec.residual {
                    writeln!(f, "filter={}", residual.expression)?;
                }
                match self.fetch {
                    None => Ok(()),
                    Some(fetch) => writeln!(f, "fetch={fetch}"),
                }
            }
        }
    }
}

impl EmbeddedProjection for LookupJoinExec {
    fn with_projection(&self, projection: Option<Vec<usize>>) -> Result<Self> {
        let mut spec = LookupSpec::clone(&self.spec);
        if let Some(columns) = projection {
            spec.schema = Arc::new(spec.schema.project(&columns)?);
            spec.output = columns.iter().map(|&column| spec.output[column]).collect();
        }
        let statistics = Arc::clone(&self.dimension_statistics);
        let facts = Arc::clone(&self.facts);
        Self::try_new(facts, Arc::new(spec), statistics, self.fetch)
    }
}

impl ExecutionPlan for LookupJoinExec {
    fn name(&self) -> &'static str {
        "LookupJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    /// Rows always come out in the order of the facts, and [`properties`](Self::properties) says so. Here it is said only
    /// where DataFusion may conclude that what it wants sorted above can be sorted below: it takes the first columns that
    /// come out for the facts', place by place, and has no regard for a limit.
    fn maintains_input_order(&self) -> Vec<bool> {
        let num_columns = self.facts.schema().fields().len();
        let mut first = self.spec.output.iter().take(num_columns).enumerate();
        let is_in_place = first.all(|(at, source)| *source == Source::Fact(at));
        vec![is_in_place && self.fetch.is_none()]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.facts]
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let residual = self.spec.residual.iter();
        let residual = residual.map(|residual| &residual.expression);
        apply_expression_roots(self.spec.keys.iter().chain(residual), visit)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(facts), true) = (children.pop(), children.is_empty()) else {
            return internal_err!("a lookup join has one input");
        };
        let spec = Arc::clone(&self.spec);
        let statistics = Arc::clone(&self.dimension_statistics);
        Ok(Arc::new(match options.children_properties {
            ChildrenPropertiesMode::Keep => Self {
                facts,
                spec,
                dimension_statistics: statistics,
                fetch: self.fetch,
                properties: Arc::clone(&self.properties),
                metrics: ExecutionPlanMetricsSet::new(),
                shared: Shared::default(),
            },
            ChildrenPropertiesMode::Recompute => {
                Self::try_new(facts, spec, statistics, self.fetch)?
            }
        }))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        self.replace_children(children, options)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let batch_rows = context.session_config().batch_size();
        let lookup = Lookup::new(
            self.facts.execute(partition, context)?,
            Arc::clone(&self.spec),
            Arc::clone(&self.shared),
            (batch_rows, self.fetch),
            LookupMetrics::new(&self.metrics, partition),
        );
        Ok(lookup.into_stream())
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    /// A join on a unique key has no more rows than there are facts.
    fn statistics_from_inputs(
        &self,
        input: &[Arc<Statistics>],
        _: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let schema = &self.spec.schema;
        let Some(facts) = input.first() else {
            return Ok(Arc::new(Statistics::new_unknown(schema)));
        };
        let columns = self.spec.output.iter().map(|source| {
            let known = match source {
                Source::Fact(column) => facts.column_statistics.get(*column).cloned(),
                Source::Dimension(column) => {
                    let known = self.dimension_statistics.get(*column).cloned();
                    // Its rows come as often as facts find them.
                    known.map(|known| ColumnStatistics {
                        null_count: Precision::Absent,
                        sum_value: Precision::Absent,
                        byte_size: Precision::Absent,
                        ..known.to_inexact()
                    })
                }
                Source::Mark => None,
            };
            known.unwrap_or_default()
        });
        let mut statistics = Statistics {
            num_rows: facts.num_rows,
            total_byte_size: Precision::Absent,
            column_statistics: columns.collect(),
        };
        if !self.spec.kind.keeps_all() {
            statistics = statistics.to_inexact();
        }
        statistics.calculate_total_byte_size(schema);
        Ok(Arc::new(statistics.with_fetch(self.fetch, 0, 1)?))
    }

    fn supports_limit_pushdown(&self) -> bool {
        self.spec.kind.keeps_all()
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }

    fn with_fetch(&self, fetch: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        Some(Arc::new(Self {
            facts: Arc::clone(&self.facts),
            spec: Arc::clone(&self.spec),
            dimension_statistics: Arc::clone(&self.dimension_statistics),
            fetch,
            properties: Arc::clone(&self.properties),
            metrics: ExecutionPlanMetricsSet::new(),
            shared: Shared::default(),
        }))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        if self.spec.kind.keeps_all() && self.fetch.is_none() {
            CardinalityEffect::Equal
        } else {
            CardinalityEffect::LowerEqual
        }
    }

    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExec,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        try_embed_projection(projection, self)
    }

    /// Conditions on facts alone go on to them: a row that fails one has no effect on others.
    fn gather_filters_for_pushdown(
        &self,
        _phase: FilterPushdownPhase,
        parent_filters: Vec<Arc<dyn PhysicalExpr>>,
        _config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        let schema = self.facts.schema();
        // DataFusion looks for a column below by its name, which another column may have too.
        let is_found = |&(from, to): &(usize, usize)| {
            schema.index_of(self.spec.schema.field(to).name()).ok() == Some(from)
        };
        let passed: HashSet<usize> = self.passed().filter(is_found).map(|(_, to)| to).collect();
        let facts = if self.fetch.is_some() {
            ChildFilterDescription::all_unsupported(&parent_filters)
        } else {
            ChildFilterDescription::from_child_with_allowed_indices(
                &parent_filters,
                passed,
                &self.facts,
            )?
        };
        Ok(FilterDescription::new().with_child(facts))
    }

    fn handle_child_pushdown_result(
        &self,
        _phase: FilterPushdownPhase,
        result: ChildPushdownResult,
        _config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        Ok(FilterPushdownPropagation::if_all(result))
    }
}
