//! Reads the rows of a table in a query.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use arrow_schema::{DataType, SchemaRef, SortOptions};
use darner_store::{PageKind, PageScan, TableSnapshot};
use datafusion::{
    common::{
        Statistics,
        config::ConfigOptions,
        internal_err,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    error::Result,
    execution::TaskContext,
    physical_expr::{
        DynamicFilterTracking, EquivalenceProperties, Partitioning, PhysicalExpr, PhysicalSortExpr,
        expressions::Column,
    },
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        ReplaceChildrenOptions, SendableRecordBatchStream, SortOrderPushdownResult,
        apply_expression_roots,
        coop::cooperative,
        execution_plan::{Boundedness, CardinalityEffect, EmissionType, SchedulingType},
        filter_pushdown::{
            ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown,
        },
        limit::LimitStream,
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet},
        statistics::StatisticsArgs,
        stream::RecordBatchStreamAdapter,
    },
};

use crate::{
    cache::DimensionCache,
    error::to_datafusion,
    pushdown::{columns_of, relevant_pages, wanted_pages},
    read::{ReadRequest, Reader, ReaderMetrics},
    statistics::{behind_filters, of_pages},
    string_views::seen_schema,
};

/// Stored bytes below which a partition is not worth the trouble.
const PARTITION_BYTES_MIN: u64 = 512 << 10;

/// A limit up to so many rows is for one reader: others would read what nobody wants.
const ONE_READER_ROWS: usize = 16 << 10;

/// What a query wants of a table.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScanRequest {
    /// Columns, in this order. `None` for all.
    pub(crate) projection: Option<Vec<usize>>,
    /// Conditions over the table's schema that the rows must meet.
    pub(crate) exact: Vec<Arc<dyn PhysicalExpr>>,
    /// Conditions over the table's schema that somebody else looks after.
    pub(crate) inexact: Vec<Arc<dyn PhysicalExpr>>,
    /// So many rows are enough.
    pub(crate) limit: Option<usize>,
    /// The most parts in which it can be read at once; 0 for one.
    pub(crate) target_partitions: usize,
}

/// Reads a table as of one commit.
#[derive(Debug, Clone)]
pub(crate) struct StoreScanExec {
    snapshot: TableSnapshot,
    request: ScanRequest,
    /// Conditions that others change while the query runs. They rule out pages and nothing else.
    dynamic: Vec<Arc<dyn PhysicalExpr>>,
    /// Whether the last pages are read first.
    is_from_back: bool,
    pages: Arc<ScanPages>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    statistics: Arc<OnceLock<Statistics>>,
    metrics: ExecutionPlanMetricsSet,
    /// Where joins find dimensions of the table.
    cache: Option<Arc<DimensionCache>>,
}

/// The pages of a scan.
struct ScanPages {
    /// Upsert pages of the table.
    num_all: usize,
    /// Those that no filter could rule out, in one range of the table for each partition.
    partitions: Vec<Vec<usize>>,
    /// What reads them: the same for all partitions.
    scan: Arc<PageScan>,
}

impl ScanPages {
    fn num_wanted(&self) -> usize {
        self.partitions.iter().map(Vec::len).sum()
    }
}

impl fmt::Debug for ScanPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScanPages")
            .field("num_all", &self.num_all)
            .field("partitions", &self.partitions)
            .finish_non_exhaustive()
    }
}

impl StoreScanExec {
    /// Plans to read what is asked for. Looks at what is known of the pages, and reads none.
    pub(crate) fn plan(snapshot: TableSnapshot, request: ScanRequest) -> Result<Self> {
        let table = seen_schema(snapshot.schema());
        let schema = match &request.projection {
            None => table,
            Some(columns) => Arc::new(table.project(columns)?),
        };
        let filters: Vec<_> = request
            .exact
            .iter()
            .chain(&request.inexact)
            .cloned()
            .collect();
        let mut wanted = wanted_pages(&snapshot, &filters);
        let mut columns = columns_of(&request.exact)?;
        match &request.projection {
            None => columns.extend(0..snapshot.schema().fields().len()),
            Some(projection) => columns.extend(projection),
        }
        let mut columns: Vec<usize> = columns.into_iter().collect();
        columns.sort_unstable();
        // Only the filters that are evaluated here leave out rows of other keys.
        let relevant = relevant_pages(&snapshot, &request.exact);
        if let Some(relevant) = &relevant {
            wanted.retain(|page| relevant.binary_search(page).is_ok());
        }
        let scan = snapshot
            .scan(Some(&columns), relevant)
            .map_err(to_datafusion)?;
        let upserts = snapshot
            .pages()
            .filter(|page| page.kind == PageKind::Upsert);
        let is_short =
            request.exact.is_empty() && request.limit.is_some_and(|limit| limit <= ONE_READER_ROWS);
        let num_partitions = if is_short {
            1
        } else {
            request.target_partitions
        };
        let pages = ScanPages {
            num_all: upserts.count(),
            partitions: partitions(&snapshot, &wanted, num_partitions),
            scan: Arc::new(scan),
        };
        let properties = properties(&snapshot, &request, &schema, &pages);
        Ok(Self {
            snapshot,
            request,
            dynamic: Vec::new(),
            is_from_back: false,
            pages: Arc::new(pages),
            schema,
            properties: Arc::new(properties),
            statistics: Arc::default(),
            metrics: ExecutionPlanMetricsSet::new(),
            cache: None,
        })
    }

    /// Lets joins with the whole table find dimensions of it here.
    pub(crate) fn with_cache(self, cache: Arc<DimensionCache>) -> Self {
        let cache = Some(cache);
        Self { cache, ..self }
    }

    /// The table and its dimensions, if this reads every row of it, though perhaps not every column. Filters that change
    /// while the query runs only ever leave out what nobody misses, so they do not count.
    pub(crate) fn whole_table(&self) -> Option<(&TableSnapshot, &Arc<DimensionCache>)> {
        let cache = self.cache.as_ref()?;
        let is_whole = self.is_unfiltered() && self.request.limit.is_none();
        is_whole.then_some((&self.snapshot, cache))
    }

    /// The columns that are read, in this order; `None` for all.
    pub(crate) fn projection(&self) -> Option<&[usize]> {
        self.request.projection.as_deref()
    }

    fn compute_statistics(&self, partition: Option<usize>) -> Result<Statistics> {
        let request = &self.request;
        let (pages, is_whole): (Vec<usize>, bool) = match partition {
            Some(partition) => (
                self.pages.partitions[partition].clone(),
                self.pages.partitions.len() == 1,
            ),
            None => (self.pages.partitions.concat(), true),
        };
        let is_whole = is_whole && pages.len() == self.pages.num_all;
        let mut columns = columns_of(&request.exact)?;
        match &request.projection {
            None => columns.extend(0..self.snapshot.schema().fields().len()),
            Some(projection) => columns.extend(projection),
        }
        let columns: Vec<usize> = columns.into_iter().collect();
        let statistics = of_pages(&self.snapshot, &pages, is_whole, &columns);
        let statistics = behind_filters(&self.snapshot, statistics, &request.exact)?;
        let mut statistics = statistics.project(request.projection.as_ref());
        if !request.inexact.is_empty() && !is_whole {
            // Rows of pages that were ruled out are missing: what comes is not what the plan says it is.
            statistics = statistics.to_inexact();
        }
        if request.limit.is_some() {
            let num_partitions = if partition.is_some() {
                1
            } else {
                self.pages.partitions.len()
            };
            statistics = statistics.with_fetch(request.limit, 0, num_partitions)?;
        }
        if !self.dynamic.is_empty() {
            statistics = statistics.to_inexact();
        }
        Ok(statistics)
    }

    fn is_unfiltered(&self) -> bool {
        self.request.exact.is_empty() && self.request.inexact.is_empty()
    }

    fn read_request(&self) -> ReadRequest {
        let all = 0..self.snapshot.schema().fields().len();
        let projection = self.request.projection.clone();
        ReadRequest {
            snapshot: self.snapshot.clone(),
            projection: projection.unwrap_or_else(|| all.collect()),
            schema: Arc::clone(&self.schema),
            exact: self.request.exact.clone(),
            dynamic: self.dynamic.clone(),
            limit: self.request.limit,
        }
    }

    /// Whether a filter is about a dictionary of integers. DataFusion 55 takes the bounds of such keys for those of plain
    /// integers: a join that is asked for a filter of them fails ("Unsupported type for `ArrayMap`").
    fn has_dictionary_of_integers(&self, filter: &Arc<dyn PhysicalExpr>) -> Result<bool> {
        filter.exists(|expr| {
            let Some(column) = expr.downcast_ref::<Column>() else {
                return Ok(false);
            };
            let data_type = self.schema.field(column.index()).data_type();
            Ok(matches!(data_type, DataType::Dictionary(_, value) if value.is_integer()))
        })
    }

    /// Turns a condition on the rows of this scan into one on those of the table.
    fn over_table(&self, filter: &Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let table = self.snapshot.schema();
        let change = |expr: Arc<dyn PhysicalExpr>| {
            let Some(column) = expr.downcast_ref::<Column>() else {
                return Ok(Transformed::no(expr));
            };
            let place = match &self.request.projection {
                None => Some(column.index()),
                Some(projection) => projection.get(column.index()).copied(),
            };
            let field = place.and_then(|place| Some((place, table.fields().get(place)?)));
            let Some((place, field)) = field else {
                return internal_err!("a filter has a column that the scan does not have");
            };
            // Pages are ruled out by the name of the table's column.
            let column = Arc::new(Column::new(field.name(), place)) as Arc<dyn PhysicalExpr>;
            Ok(Transformed::yes(column))
        };
        Arc::clone(filter).transform_up(change).data()
    }
}

/// Cuts pages into ranges of about the same stored size.
fn partitions(snapshot: &TableSnapshot, pages: &[usize], num_max: usize) -> Vec<Vec<usize>> {
    let sizes: Vec<u64> = snapshot
        .pages()
        .map(|page| u64::from(page.num_bytes))
        .collect();
    let num_bytes: u64 = pages.iter().map(|page| sizes[*page]).sum();
    let num_worth = usize::try_from(num_bytes / PARTITION_BYTES_MIN).unwrap_or(usize::MAX);
    let num_partitions = num_worth.min(num_max).min(pages.len()).max(1);
    let mut partitions = vec![Vec::new(); num_partitions];
    let mut end = 0;
    for page in pages {
        // By the middle of each page, so that all partitions get some.
        let middle = end + sizes[*page] / 2;
        let at = u128::from(middle) * num_partitions as u128 / u128::from(num_bytes.max(1));
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        partitions[at.min(num_partitions - 1)].push(*page);
        end += sizes[*page];
    }
    partitions
}

fn properties(
    snapshot: &TableSnapshot,
    request: &ScanRequest,
    schema: &SchemaRef,
    pages: &ScanPages,
) -> PlanProperties {
    // Compaction leaves the rows in key order, and every partition reads a range of them from front to back.
    let last = pages
        .partitions
        .iter()
        .filter_map(|pages| pages.last())
        .max();
    let is_sorted = last.is_some_and(|last| *last < snapshot.num_sorted_pages());
    let place = |column: usize| match &request.projection {
        None => Some(column),
        Some(projection) => projection.iter().position(|found| *found == column),
    };
    let ordering: Vec<PhysicalSortExpr> = snapshot
        .spec()
        .key_columns()
        .iter()
        .map_while(|column| place(*column))
        .map(|at| {
            let column = Arc::new(Column::new(schema.field(at).name(), at));
            // Keys have no nulls; where they would stand is what most queries ask for.
            let options = SortOptions::default().asc().nulls_last();
            PhysicalSortExpr::new(column, options)
        })
        .collect();
    let orderings = (is_sorted && !ordering.is_empty()).then_some(ordering);
    PlanProperties::new(
        EquivalenceProperties::new_with_orderings(Arc::clone(schema), orderings),
        Partitioning::UnknownPartitioning(pages.partitions.len()),
        EmissionType::Incremental,
        Boundedness::Bounded,
    )
    // See `execute`.
    .with_scheduling_type(SchedulingType::Cooperative)
}

impl DisplayAs for StoreScanExec {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, version) = (self.snapshot.name(), self.snapshot.version().number);
        let (num_wanted, num_all) = (self.pages.num_wanted(), self.pages.num_all);
        let join = |filters: &[Arc<dyn PhysicalExpr>]| {
            let filters: Vec<String> = filters.iter().map(ToString::to_string).collect();
            filters.join(" AND ")
        };
        match kind {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "StoreScanExec: table={name}, version={version}")?;
                let fields = self.schema.fields().iter();
                let names: Vec<&str> = fields.map(|field| field.name().as_str()).collect();
                write!(f, ", projection=[{}]", names.join(", "))?;
                if !self.request.exact.is_empty() {
                    write!(f, ", filter={}", join(&self.request.exact))?;
                }
                if !self.request.inexact.is_empty() {
                    write!(f, ", page_filter={}", join(&self.request.inexact))?;
                }
                if !self.dynamic.is_empty() {
                    write!(f, ", dynamic_filter={}", join(&self.dynamic))?;
                }
                write!(f, ", pages={num_wanted}/{num_all}")?;
                if self.pages.partitions.len() > 1 {
                    write!(f, ", partitions={}", self.pages.partitions.len())?;
                }
                if let Some(ordering) = self.properties.output_ordering() {
                    write!(f, ", ordering=[{ordering}]")?;
                }
                if self.is_from_back {
                    write!(f, ", from_back=true")?;
                }
                match self.request.limit {
                    None => Ok(()),
                    Some(limit) => write!(f, ", limit={limit}"),
                }
            }
            DisplayFormatType::TreeRender => {
                writeln!(
                    f,
                    "table={name}\nversion={version}\npages={num_wanted}/{num_all}"
                )?;
                if !self.request.exact.is_empty() {
                    writeln!(f, "filter={}", join(&self.request.exact))?;
                }
                Ok(())
            }
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
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let request = &self.request;
        let filters = request.exact.iter().chain(&request.inexact);
        apply_expression_roots(filters.chain(&self.dynamic), visit)
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
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let Some(pages) = self.pages.partitions.get(partition) else {
            return internal_err!("a scan has no such partition: partition=`{partition}`");
        };
        if partition == 0 {
            let num_pruned = self.pages.num_all - self.pages.num_wanted();
            MetricBuilder::new(&self.metrics)
                .global_counter("pages_pruned")
                .add(num_pruned);
        }
        let metrics = ReaderMetrics::new(&self.metrics, partition);
        let mut pages = pages.clone();
        if self.is_from_back {
            pages.reverse();
        }
        let batch_rows = context.session_config().batch_size();
        let scan = Arc::clone(&self.pages.scan);
        let reader = Reader::try_new(scan, self.read_request(), pages, batch_rows, metrics)?;
        // Lets others have their turn also where many batches are ready.
        let rows = cooperative(RecordBatchStreamAdapter::new(
            Arc::clone(&self.schema),
            reader.into_stream(),
        ));
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        Ok(Box::pin(LimitStream::new(
            Box::pin(rows),
            0,
            self.request.limit,
            baseline,
        )))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _inputs: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        if let Some(partition) = args.partition() {
            if partition >= self.pages.partitions.len() {
                return internal_err!("a scan has no such partition: partition=`{partition}`");
            }
            return self.compute_statistics(Some(partition)).map(Arc::new);
        }
        // The optimizer asks often.
        if let Some(statistics) = self.statistics.get() {
            return Ok(Arc::new(statistics.clone()));
        }
        let statistics = self.compute_statistics(None)?;
        Ok(Arc::new(self.statistics.get_or_init(|| statistics).clone()))
    }

    fn fetch(&self) -> Option<usize> {
        self.request.limit
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        let mut scan = self.clone();
        scan.request.limit = limit;
        scan.statistics = Arc::default();
        Some(Arc::new(scan))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        if self.is_unfiltered() {
            CardinalityEffect::Equal
        } else {
            CardinalityEffect::LowerEqual
        }
    }

    /// Takes filters in that rule out pages: those of top-k sorts and joins, which change while the query runs.
    fn handle_child_pushdown_result(
        &self,
        _phase: FilterPushdownPhase,
        pushed: ChildPushdownResult,
        _config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let filters = pushed.parent_filters;
        // Whoever sent the filter still looks after the rows.
        let answer = vec![PushedDown::No; filters.len()];
        let answer = FilterPushdownPropagation::with_parent_pushdown_result(answer);
        // A limit is for the rows that come without the filter.
        if filters.is_empty() || self.request.limit.is_some() {
            return Ok(answer);
        }
        let mut scan = self.clone();
        for filter in filters {
            // All others came when the scan was planned.
            if DynamicFilterTracking::classify(&filter.filter).contains_dynamic_filter()
                && !self.has_dictionary_of_integers(&filter.filter)?
            {
                scan.dynamic.push(self.over_table(&filter.filter)?);
            }
        }
        if scan.dynamic.len() == self.dynamic.len() {
            return Ok(answer);
        }
        scan.statistics = Arc::default();
        Ok(answer.with_updated_node(Arc::new(scan)))
    }

    /// Reads sorted pages from the last to the first for who wants the largest keys: of the first pages, a filter of the
    /// sort then has no use for any. Within a page the rows stay as they are, so the sort stays too.
    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
    ) -> Result<SortOrderPushdownResult<Arc<dyn ExecutionPlan>>> {
        let (Some(wanted), Some(ordering)) = (order.first(), self.properties.output_ordering())
        else {
            return Ok(SortOrderPushdownResult::Unsupported);
        };
        let is_other = !wanted.options.descending || !wanted.expr.eq(&ordering.first().expr);
        if is_other || self.request.limit.is_some() {
            return Ok(SortOrderPushdownResult::Unsupported);
        }
        let mut scan = self.clone();
        scan.is_from_back = true;
        let properties = PlanProperties::clone(&self.properties);
        let unordered = EquivalenceProperties::new(Arc::clone(&self.schema));
        scan.properties = Arc::new(properties.with_eq_properties(unordered));
        Ok(SortOrderPushdownResult::Inexact {
            inner: Arc::new(scan),
        })
    }
}
