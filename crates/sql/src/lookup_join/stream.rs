//! The rows of one partition of a lookup join.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use darner_engine::Scratch;
use datafusion::{
    common::instant::Instant,
    error::Result,
    execution::SendableRecordBatchStream,
    physical_plan::{
        EmptyRecordBatchStream,
        coalesce::{LimitedBatchCoalescer, PushBatchStatus},
        metrics::{
            BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, RecordOutput, Time,
        },
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, stream::try_unfold};
use tokio::sync::OnceCell;

use super::{prepared::Prepared, spec::LookupSpec};
use crate::{blocking::start, error::to_datafusion};

/// The join with its dimension, as soon as a partition has asked for it.
pub(super) type Shared = Arc<OnceCell<Arc<Prepared>>>;

/// What a lookup join counts, for one partition.
pub(super) struct LookupMetrics {
    baseline: BaselineMetrics,
    /// Facts that came.
    input_rows: Count,
    /// Facts with a key that the dimension has, whatever became of them then.
    matched: Count,
    /// Facts with a key that it has not.
    missed: Count,
    /// Facts with a null in the key.
    null_keys: Count,
    /// Dimensions that this partition built, for all of them: none, if it was there.
    dimensions_built: Count,
    /// How long that took. Not shown where none was built, because DataFusion shows no time as a nanosecond.
    build_time: BuildTime,
    /// How long it took to find rows.
    probe_time: Time,
    /// How long it took to make columns of them.
    gather_time: Time,
}

impl LookupMetrics {
    pub(super) fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        let counter = |name| MetricBuilder::new(metrics).counter(name, partition);
        let time = |name| MetricBuilder::new(metrics).subset_time(name, partition);
        Self {
            baseline: BaselineMetrics::new(metrics, partition),
            input_rows: counter("input_rows"),
            matched: counter("matched"),
            missed: counter("missed"),
            null_keys: counter("null_keys"),
            dimensions_built: counter("dimensions_built"),
            build_time: BuildTime {
                metrics: metrics.clone(),
                partition,
            },
            probe_time: time("probe_time"),
            gather_time: time("gather_time"),
        }
    }
}

#[derive(Clone)]
struct BuildTime {
    metrics: ExecutionPlanMetricsSet,
    partition: usize,
}

impl BuildTime {
    fn add_elapsed(&self, start: Instant) {
        let time = MetricBuilder::new(&self.metrics).subset_time("build_time", self.partition);
        time.add_elapsed(start);
    }
}

/// One partition on its way.
pub(super) struct Lookup {
    facts: SendableRecordBatchStream,
    spec: Arc<LookupSpec>,
    shared: Shared,
    scratch: Scratch,
    /// Puts together what is left of batches of which few rows stay, and ends with the limit.
    coalescer: LimitedBatchCoalescer,
    is_finished: bool,
    metrics: LookupMetrics,
}

impl Lookup {
    pub(super) fn new(
        facts: SendableRecordBatchStream,
        spec: Arc<LookupSpec>,
        shared: Shared,
        (batch_rows, fetch): (usize, Option<usize>),
        metrics: LookupMetrics,
    ) -> Self {
        let schema = Arc::clone(&spec.schema);
        Self {
            facts,
            spec,
            shared,
            scratch: Scratch::default(),
            coalescer: LimitedBatchCoalescer::new(schema, batch_rows, fetch),
            is_finished: false,
            metrics,
        }
    }

    pub(super) fn into_stream(self) -> SendableRecordBatchStream {
        let schema = self.coalescer.schema();
        let batches = try_unfold(self, |mut lookup| async move {
            let next = lookup.next().await?;
            Ok(next.map(|batch| (batch, lookup)))
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, batches))
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.coalescer.next_completed_batch() {
                return Ok(Some(batch.record_output(&self.metrics.baseline)));
            }
            if self.is_finished {
                self.metrics.baseline.done();
                return Ok(None);
            }
            let status = match self.facts.next().await.transpose()? {
                None => PushBatchStatus::LimitReached,
                Some(facts) if facts.num_rows() == 0 => continue,
                Some(facts) => self.push(&facts).await?,
            };
            if status == PushBatchStatus::LimitReached {
                self.is_finished = true;
                self.coalescer.finish()?;
                // Whoever makes facts has no need to go on.
                self.facts = Box::pin(EmptyRecordBatchStream::new(self.facts.schema()));
            }
        }
    }

    async fn push(&mut self, facts: &RecordBatch) -> Result<PushBatchStatus> {
        let Self {
            metrics, scratch, ..
        } = self;
        let schema = self.facts.schema();
        let prepared = prepared(&self.shared, &self.spec, schema, metrics).await?;
        let _timer = metrics.baseline.elapsed_compute().timer();
        let joined = prepared.join(facts, scratch)?;
        let counters = joined.counters;
        for (count, number) in [
            (&metrics.input_rows, counters.num_rows),
            (&metrics.matched, counters.num_matched),
            (&metrics.missed, counters.num_missed),
            (&metrics.null_keys, counters.num_null_keys),
        ] {
            count.add(usize::try_from(number).unwrap_or(usize::MAX));
        }
        metrics.probe_time.add_duration(joined.times.probe);
        metrics.gather_time.add_duration(joined.times.gather);
        self.coalescer.push_batch(joined.rows)
    }
}

/// The join with its dimension. The first partition that asks builds that, if it is not kept, and the others wait.
async fn prepared(
    shared: &Shared,
    spec: &Arc<LookupSpec>,
    facts: SchemaRef,
    metrics: &LookupMetrics,
) -> Result<Arc<Prepared>> {
    let prepare = || async {
        let spec = Arc::clone(spec);
        let (built, build_time) = (metrics.dimensions_built.clone(), metrics.build_time.clone());
        // A build that has begun ends, and is kept for whoever asks again, also if this query is dropped meanwhile.
        let preparing = start(move || {
            let start = Instant::now();
            let fetched = spec.dimension.fetch(&spec.table_columns());
            let fetched = fetched.map_err(to_datafusion)?;
            if fetched.is_new {
                built.add(1);
                build_time.add_elapsed(start);
            }
            Prepared::try_new(&spec, &facts, fetched.dimension).map(Arc::new)
        })?;
        preparing.end().await?
    };
    shared.get_or_try_init(prepare).await.map(Arc::clone)
}
