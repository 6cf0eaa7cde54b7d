//! Reads one partition of a scan, on threads that may wait.

use std::{collections::VecDeque, sync::Arc};

use arrow_array::{Array, BooleanArray, RecordBatch, RecordBatchOptions, cast::AsArray};
use arrow_schema::{DataType, Fields, SchemaRef};
use darner_store::{PageScan, TableSnapshot};
use datafusion::{
    arrow::compute::{BatchCoalescer, filter_record_batch, prep_null_mask_filter},
    common::{
        exec_datafusion_err, internal_err,
        runtime::SpawnedTask,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    error::Result,
    physical_expr::{
        DynamicFilterTracker, DynamicFilterTracking, PhysicalExpr, conjunction, conjunction_opt,
        expressions::Column,
    },
    physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, Time},
};
use futures::{
    FutureExt, StreamExt,
    future::lazy,
    stream::{BoxStream, try_unfold},
};

use crate::{
    error::to_datafusion,
    pushdown::{FILTERS_AT_ONCE, rule_out},
    string_views::{seen_rows, seen_schema},
};

/// Stored bytes that are read at once: few at first, because the query may soon have enough.
const WINDOW_BYTES_FIRST: u64 = 256 << 10;

/// Stored bytes that are read at once, at most.
const WINDOW_BYTES_MAX: u64 = 8 << 20;

/// The same while filters may change that can make the next pages useless.
const WINDOW_BYTES_CHANGING: u64 = 1 << 20;

/// What a partition counts.
pub(crate) struct ReaderMetrics {
    pages_read: Count,
    pages_pruned: Count,
    read_time: Time,
}

impl ReaderMetrics {
    pub(crate) fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        Self {
            pages_read: MetricBuilder::new(metrics).counter("pages_read", partition),
            pages_pruned: MetricBuilder::new(metrics)
                .counter("pages_pruned_by_dynamic_filter", partition),
            read_time: MetricBuilder::new(metrics).subset_time("read_time", partition),
        }
    }
}

/// How the pages of a scan become its rows.
pub(crate) struct ReadRequest {
    pub(crate) snapshot: TableSnapshot,
    /// The columns of the answer, as positions in the table.
    pub(crate) projection: Vec<usize>,
    pub(crate) schema: SchemaRef,
    /// Conditions over the table's schema that the rows must meet.
    pub(crate) exact: Vec<Arc<dyn PhysicalExpr>>,
    /// Conditions over the table's schema that may rule out pages.
    pub(crate) dynamic: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) limit: Option<usize>,
}

/// Reads pages, one window after the other.
pub(crate) struct Reader {
    scan: Arc<PageScan>,
    request: ReadRequest,
    /// The columns that are read, as queries see them.
    seen: SchemaRef,
    /// The conditions over the columns that are read, in the order of the query.
    filters: Vec<Arc<dyn PhysicalExpr>>,
    /// Where the columns of the answer stand among those that are read.
    places: Vec<usize>,
    /// Puts small batches together. `None` if no columns are asked for.
    coalescer: Option<BatchCoalescer>,
    /// What is still to be read, in this order.
    pages: Vec<usize>,
    window_bytes: u64,
    num_rows: usize,
    /// Whether the conditions that others change have changed.
    tracking: Option<DynamicFilterTracking>,
    has_begun: bool,
    metrics: ReaderMetrics,
}

impl Reader {
    /// Prepares to read these pages, in this order.
    pub(crate) fn try_new(
        scan: Arc<PageScan>,
        request: ReadRequest,
        pages: Vec<usize>,
        batch_rows: usize,
        metrics: ReaderMetrics,
    ) -> Result<Self> {
        let table = request.snapshot.schema();
        let place = |column: usize| scan.schema().index_of(table.field(column).name());
        let places = request.projection.iter().map(|column| place(*column));
        let filters = request.exact.chunks(FILTERS_AT_ONCE).map(|filters| {
            let change = |expr: Arc<dyn PhysicalExpr>| match expr.downcast_ref::<Column>() {
                None => Ok(Transformed::no(expr)),
                Some(column) => {
                    let column = Column::new(column.name(), place(column.index())?);
                    Ok(Transformed::yes(Arc::new(column) as Arc<dyn PhysicalExpr>))
                }
            };
            conjunction(filters.iter().cloned())
                .transform_up(change)
                .data()
        });
        // Each page has a dictionary of its own, and those of many pages together may be more than small keys count.
        let is_joinable = !request
            .schema
            .fields()
            .iter()
            .any(|field| has_small_keys(field.data_type()));
        let coalescer = (is_joinable && !request.projection.is_empty()).then(|| {
            BatchCoalescer::new(Arc::clone(&request.schema), batch_rows)
                // A page is large enough as it is, unless most of its rows are gone.
                .with_biggest_coalesce_batch_size(Some(batch_rows / 8))
        });
        let filters = filters.collect::<Result<_>>()?;
        let places = places.collect::<std::result::Result<_, _>>()?;
        let dynamic = conjunction_opt(request.dynamic.iter().cloned());
        Ok(Self {
            seen: seen_schema(scan.schema()),
            scan,
            request,
            filters,
            places,
            coalescer,
            pages,
            window_bytes: WINDOW_BYTES_FIRST,
            num_rows: 0,
            tracking: dynamic.as_ref().map(DynamicFilterTracking::classify),
            has_begun: false,
            metrics,
        })
    }

    /// Reads the next pages, and says which rows are complete then. `None` at the end.
    fn step(&mut self) -> Result<Option<Vec<RecordBatch>>> {
        let mut done = Vec::new();
        if self.pages.is_empty() {
            self.finish(&mut done)?;
            return Ok((!done.is_empty()).then_some(done));
        }
        let watcher = self.tracking.as_mut().map(DynamicFilterTracking::watcher);
        let is_changing = matches!(watcher, Some(Some(_)));
        let has_changed = match watcher {
            None => false,
            // By the first step they may have changed since the plan was made.
            Some(_) if !self.has_begun => true,
            Some(watcher) => watcher.is_some_and(DynamicFilterTracker::changed),
        };
        self.has_begun = true;
        if has_changed {
            self.rule_out();
        }
        let num_pages = self.scan.window(&self.pages, self.window_bytes);
        let later = self.pages.split_off(num_pages);
        let pages = std::mem::replace(&mut self.pages, later);
        let timer = self.metrics.read_time.timer();
        let batches = self.scan.read(&pages).map_err(to_datafusion)?;
        timer.done();
        self.metrics.pages_read.add(num_pages);
        for rows in batches {
            let rows = self.take(seen_rows(rows, &self.seen)?)?;
            self.num_rows += rows.num_rows();
            self.pass(rows, &mut done)?;
            if self
                .request
                .limit
                .is_some_and(|limit| self.num_rows >= limit)
            {
                self.pages.clear();
                break;
            }
        }
        let bytes_max = if is_changing {
            WINDOW_BYTES_CHANGING
        } else {
            WINDOW_BYTES_MAX
        };
        self.window_bytes = (self.window_bytes * 2).min(bytes_max);
        Ok(Some(done))
    }

    /// The rows, one window read ahead of whoever takes them. Nothing is read before they are asked for: by then the
    /// filters of joins may be known.
    ///
    /// A thread that may block is held for a window at a time, and never while the query does something else. However
    /// many scans wait for each other, a thread is free again soon for the one that all wait for.
    pub(crate) fn into_stream(self) -> BoxStream<'static, Result<RecordBatch>> {
        lazy(|_| {
            let ahead = Ahead {
                reading: Some(read_ahead(self)),
                ready: VecDeque::new(),
            };
            try_unfold(ahead, Ahead::next)
        })
        .flatten_stream()
        .boxed()
    }

    /// Leaves out pages that the filters, as they are now, have no use for.
    fn rule_out(&mut self) {
        let num_before = self.pages.len();
        self.pages = rule_out(
            &self.request.snapshot,
            &self.request.dynamic,
            std::mem::take(&mut self.pages),
        );
        let num_pruned = num_before - self.pages.len();
        self.metrics.pages_pruned.add(num_pruned);
    }

    /// The rows of a page that pass, with the columns that are asked for.
    fn take(&self, rows: RecordBatch) -> Result<RecordBatch> {
        let Some((last, first)) = self.filters.split_last() else {
            return self.project(&rows);
        };
        let mut rows = rows;
        for filter in first {
            if let Some(mask) = mask(&rows, filter)? {
                rows = filter_record_batch(&rows, &mask)?;
            }
        }
        let mask = mask(&rows, last)?;
        let rows = self.project(&rows)?;
        match mask {
            None => Ok(rows),
            Some(mask) => Ok(filter_record_batch(&rows, &mask)?),
        }
    }

    /// The columns that are asked for.
    fn project(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let columns = self
            .places
            .iter()
            .map(|place| Arc::clone(rows.column(*place)));
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(
            Arc::clone(&self.request.schema),
            columns.collect(),
            &options,
        )?)
    }

    /// Hands rows on, put together where they are few.
    fn pass(&mut self, rows: RecordBatch, done: &mut Vec<RecordBatch>) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let Some(coalescer) = &mut self.coalescer else {
            done.push(rows);
            return Ok(());
        };
        coalescer.push_batch(rows)?;
        done.extend(std::iter::from_fn(|| coalescer.next_completed_batch()));
        Ok(())
    }

    fn finish(&mut self, done: &mut Vec<RecordBatch>) -> Result<()> {
        if let Some(coalescer) = &mut self.coalescer {
            coalescer.finish_buffered_batch()?;
            done.extend(std::iter::from_fn(|| coalescer.next_completed_batch()));
        }
        Ok(())
    }
}

/// A reader on its way: what it is reading, and what of its rows nobody has taken yet.
struct Ahead {
    reading: Option<Reading>,
    ready: VecDeque<RecordBatch>,
}

type Reading = SpawnedTask<Result<Option<(Reader, Vec<RecordBatch>)>>>;

fn read_ahead(mut reader: Reader) -> Reading {
    SpawnedTask::spawn_blocking(move || Ok(reader.step()?.map(|rows| (reader, rows))))
}

impl Ahead {
    async fn next(mut self) -> Result<Option<(RecordBatch, Self)>> {
        loop {
            if let Some(rows) = self.ready.pop_front() {
                return Ok(Some((rows, self)));
            }
            let Some(reading) = self.reading.take() else {
                return Ok(None);
            };
            let read = reading.join_unwind().await;
            let read = read.map_err(|error| exec_datafusion_err!("a scan was ended: {error}"))?;
            let Some((reader, rows)) = read? else {
                return Ok(None);
            };
            self.ready = rows.into();
            self.reading = Some(read_ahead(reader));
        }
    }
}

/// For which rows a condition is true. `None` for all.
fn mask(rows: &RecordBatch, filter: &Arc<dyn PhysicalExpr>) -> Result<Option<BooleanArray>> {
    let passed = filter.evaluate(rows)?.into_array(rows.num_rows())?;
    let mask = match passed.data_type() {
        // Unknown is as good as false.
        DataType::Null => BooleanArray::from(vec![false; rows.num_rows()]),
        DataType::Boolean if passed.null_count() > 0 => prep_null_mask_filter(passed.as_boolean()),
        DataType::Boolean => passed.as_boolean().clone(),
        other => {
            return internal_err!("a condition is neither true nor false: type=`{other}`");
        }
    };
    Ok(mask.has_false().then_some(mask))
}

/// Whether a column has a dictionary somewhere that cannot take the values of many pages.
fn has_small_keys(data_type: &DataType) -> bool {
    let in_all = |fields: &Fields| fields.iter().any(|field| has_small_keys(field.data_type()));
    match data_type {
        DataType::Dictionary(key, values) => {
            key.primitive_width().is_some_and(|width| width < 4) || has_small_keys(values)
        }
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _)
        | DataType::RunEndEncoded(_, field) => has_small_keys(field.data_type()),
        DataType::Struct(fields) => in_all(fields),
        DataType::Union(fields, _) => fields
            .iter()
            .any(|(_, field)| has_small_keys(field.data_type())),
        _ => false,
    }
}
