//! The main job: fact batches in, enriched batches out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray, UInt32Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use rayon::prelude::*;
use tracing::debug;

use super::{Control, EnrichReport, JoinReport, for_each_ordered};
use crate::{
    Collect, Error, ErrorKind, JoinCounters, JoinSpec, JoinTimes, Joined, MissingKeys, OnMiss,
    Result, Scratch, StarJoin, compact_views,
    sink::{ColumnForm, Sink},
    source::Source,
};

/// The column of the unmatched rows that says which dimensions missed them.
const MISSED_IN: &str = "missed_in";

/// Batches of a piece that are worth sharing among workers. Fewer are done before another worker has come to them.
const BATCHES_SHARED_MIN: usize = 32;

/// What is done to each batch before or after the joins: rows left out, columns computed.
pub trait BatchMap: Send + Sync {
    /// The columns of the batches that come out.
    fn schema(&self) -> &SchemaRef;

    /// Makes a batch of another one. Must not depend on batches before.
    ///
    /// # Errors
    /// Those of values that cannot be computed.
    fn map(&self, batch: &RecordBatch) -> Result<RecordBatch>;
}

/// A planned enrichment: a star join, and what to do beside it.
pub struct Enrichment {
    join: StarJoin,
    before: Option<Arc<dyn BatchMap>>,
    after: Option<Arc<dyn BatchMap>>,
    unmatched_schema: Option<SchemaRef>,
}

/// Where the rows of an enrichment go. The caller finishes the sinks, or drops them.
pub struct Sinks<'a> {
    /// The enriched rows.
    pub output: &'a mut dyn Sink,
    /// Fact rows that at least one dimension has missed; see [`Enrichment::unmatched_schema`].
    pub unmatched: Option<&'a mut dyn Sink>,
}

/// What a worker makes of one piece.
struct Enriched {
    batches: Vec<RecordBatch>,
    unmatched: Vec<RecordBatch>,
    counters: Vec<JoinCounters>,
    missing_keys: Vec<MissingKeys>,
    times: Vec<JoinTimes>,
    /// Of all threads that had a part in it.
    join_time: Duration,
}

/// Buffers of the workers: as many as have ever worked at once.
#[derive(Default)]
struct Scratches(Mutex<Vec<Scratch>>);

impl Scratches {
    fn take(&self) -> Scratch {
        self.lock().pop().unwrap_or_default()
    }

    fn give_back(&self, scratch: Scratch) {
        self.lock().push(scratch);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Scratch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Enrichment {
    /// Plans an enrichment without unmatched rows.
    pub fn new(join: StarJoin) -> Self {
        Self {
            join,
            before: None,
            after: None,
            unmatched_schema: None,
        }
    }

    /// Does something to the facts before they are joined. What it leaves out is not counted by the joins. The joins
    /// are to be planned on the columns that come out of it.
    #[must_use]
    pub fn with_before(mut self, before: Arc<dyn BatchMap>) -> Self {
        self.before = Some(before);
        self
    }

    /// Does something to the rows that the joins give.
    #[must_use]
    pub fn with_after(mut self, after: Arc<dyn BatchMap>) -> Self {
        self.after = Some(after);
        self
    }

    /// The columns of the output.
    pub fn output_schema(&self) -> &SchemaRef {
        match &self.after {
            Some(after) => after.schema(),
            None => self.join.output_schema(),
        }
    }

    /// Collects the fact rows that a dimension has missed, too.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the facts have a column `missed_in` already.
    pub fn with_unmatched(self) -> Result<Self> {
        let facts = self.join.fact_schema();
        if facts.column_with_name(MISSED_IN).is_some() {
            return Err(Error::invalid(format!(
                "unmatched rows get a column that the facts have already: column=`{MISSED_IN}`"
            )));
        }
        let mut fields = facts.fields().to_vec();
        fields.push(Arc::new(Field::new(MISSED_IN, DataType::Utf8, false)));
        let schema = Schema::new_with_metadata(fields, facts.metadata().clone());
        let collect = Collect {
            missed_rows: true,
            ..self.join.collect()
        };
        Ok(Self {
            join: self.join.with_collect(collect),
            unmatched_schema: Some(Arc::new(schema)),
            ..self
        })
    }

    /// Measures what each join takes, too: [`Profile::joins`](crate::Profile::joins).
    #[must_use]
    pub fn with_profile(self) -> Self {
        let collect = Collect {
            times: true,
            ..self.join.collect()
        };
        Self {
            join: self.join.with_collect(collect),
            ..self
        }
    }

    /// The joins.
    pub fn join(&self) -> &StarJoin {
        &self.join
    }

    /// The first join that puts missed rows among the unmatched ones instead of the output. If there is one, the
    /// unmatched rows are those of such joins alone; else they are those that any join has missed.
    pub fn routing_join(&self) -> Option<&str> {
        let mut joins = self.join.joins();
        joins
            .find(|(spec, _)| spec.on_miss == OnMiss::Route)
            .map(|(spec, _)| spec.alias())
    }

    /// The columns of unmatched rows: those of the facts, and `missed_in` with the aliases of the joins.
    pub fn unmatched_schema(&self) -> Option<&SchemaRef> {
        self.unmatched_schema.as_ref()
    }

    /// Enriches all of a source into the sinks, in the order of the source, on the current rayon pool.
    ///
    /// # Errors
    /// Those of the source, the joins and the sinks, and [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled). The
    /// sinks are not to be finished then.
    pub fn run(
        &self,
        source: &mut dyn Source,
        sinks: &mut Sinks<'_>,
        control: &Control,
    ) -> Result<EnrichReport> {
        if let (Some(join), None) = (self.routing_join(), &sinks.unmatched) {
            return Err(Error::invalid(format!(
                "a join routes missed rows, and there is no place for unmatched rows: join=`{join}`"
            )));
        }
        let mut report = EnrichReport {
            num_bytes_in: source.num_bytes().unwrap_or(0),
            joins: self.empty_reports(),
            ..EnrichReport::default()
        };
        let scratches = Scratches::default();
        let prefers = sinks.output.prefers();
        let plain = if self.after.is_none() && prefers == ColumnForm::Plain {
            self.join.in_plain()?
        } else {
            None
        };
        let join = plain.as_ref().unwrap_or(&self.join);
        let compacts = prefers == ColumnForm::Compact;
        let work = |batches: &[RecordBatch]| self.enrich(join, compacts, batches, &scratches);
        let started = Instant::now();
        for_each_ordered(source, control, work, |done| {
            report.num_rows_in += done.num_rows;
            let profile = &mut report.profile;
            profile.num_pieces += 1;
            profile.decode += done.decode_time;
            profile.join += done.result.join_time;
            // A piece without rows has no times.
            if profile.joins.len() < done.result.times.len() {
                profile
                    .joins
                    .resize(done.result.times.len(), JoinTimes::default());
            }
            for (sum, times) in profile.joins.iter_mut().zip(&done.result.times) {
                *sum += *times;
            }
            let writing = Instant::now();
            for batch in &done.result.batches {
                report.num_rows_out += batch.num_rows() as u64;
                sinks.output.write(batch)?;
            }
            if let Some(unmatched) = &mut sinks.unmatched {
                done.result
                    .unmatched
                    .iter()
                    .try_for_each(|batch| unmatched.write(batch))?;
            }
            report.profile.write += writing.elapsed();
            for (join, (counters, missing_keys)) in report
                .joins
                .iter_mut()
                .zip(done.result.counters.iter().zip(&done.result.missing_keys))
            {
                join.counters += *counters;
                join.missing_keys.merge(missing_keys);
            }
            Ok(())
        })?;
        report.profile.elapsed = started.elapsed();
        let (num_rows_in, num_rows_out) = (report.num_rows_in, report.num_rows_out);
        let seconds = report.profile.elapsed.as_secs_f64();
        debug!(
            input = source.name(),
            num_rows_in, num_rows_out, seconds, "enriched"
        );
        Ok(report)
    }

    fn enrich(
        &self,
        join: &StarJoin,
        compacts: bool,
        batches: &[RecordBatch],
        scratches: &Scratches,
    ) -> Result<Enriched> {
        let mapped: Vec<RecordBatch>;
        let batches = if let Some(before) = &self.before {
            let maps = batches.iter().map(|batch| before.map(batch));
            mapped = maps.collect::<Result<_>>()?;
            &mapped
        } else {
            batches
        };
        let is_plain = !std::ptr::eq(join, &raw const self.join);
        let num_joins = join.joins().len();
        let mut enriched = Enriched {
            batches: Vec::with_capacity(batches.len()),
            unmatched: Vec::new(),
            counters: vec![JoinCounters::default(); num_joins],
            missing_keys: vec![MissingKeys::default(); num_joins],
            times: Vec::new(),
            join_time: Duration::ZERO,
        };
        let mut num_rows = 0;
        let first_rows = batches.iter().map(|batch| {
            num_rows += batch.num_rows() as u64;
            num_rows - batch.num_rows() as u64
        });
        let first_rows: Vec<u64> = first_rows.collect();
        let enrich = |(facts, first_row): (&RecordBatch, u64)| {
            let started = Instant::now();
            let mut scratch = scratches.take();
            scratch.first_row = first_row;
            let joined = match join.join(facts, &mut scratch) {
                // What plain columns cannot hold, views can.
                Err(error) if is_plain && error.kind() == ErrorKind::Resource => {
                    self.join.join(facts, &mut scratch)
                }
                joined => joined,
            };
            scratches.give_back(scratch);
            let mut joined = joined?;
            if let Some(after) = &self.after {
                joined.batch = after.map(&joined.batch)?;
            }
            if compacts {
                joined.batch = compact_views(joined.batch);
            }
            Ok((joined, started.elapsed()))
        };
        // A file can be one piece: then its batches are what there is to work on side by side.
        let joined: Vec<Result<(Joined, Duration)>> = if batches.len() >= BATCHES_SHARED_MIN {
            batches.par_iter().zip(first_rows).map(enrich).collect()
        } else {
            batches.iter().zip(first_rows).map(enrich).collect()
        };
        for (facts, joined) in batches.iter().zip(joined) {
            // The first error, whoever was first.
            let (joined, took) = joined?;
            enriched.join_time += took;
            for (sum, counters) in enriched.counters.iter_mut().zip(&joined.counters) {
                *sum += *counters;
            }
            for (sum, missing_keys) in enriched.missing_keys.iter_mut().zip(&joined.missing_keys) {
                sum.merge(missing_keys);
            }
            enriched
                .times
                .resize(joined.times.len(), JoinTimes::default());
            for (sum, times) in enriched.times.iter_mut().zip(&joined.times) {
                *sum += *times;
            }
            if let Some(schema) = &self.unmatched_schema {
                let started = Instant::now();
                enriched
                    .unmatched
                    .extend(self.unmatched(schema, facts, &joined.missed_rows)?);
                enriched.join_time += started.elapsed();
            }
            enriched.batches.push(joined.batch);
        }
        Ok(enriched)
    }

    /// The rows of a batch that some join has missed, once each, with the names of those joins.
    fn unmatched(
        &self,
        schema: &SchemaRef,
        facts: &RecordBatch,
        missed_rows: &[Vec<u32>],
    ) -> Result<Option<RecordBatch>> {
        let routes = self.routing_join().is_some();
        let counts = |spec: &JoinSpec| !routes || spec.on_miss == OnMiss::Route;
        let joins = || {
            let joins = self.join.joins().zip(missed_rows);
            joins.filter(|((spec, _), _)| counts(spec))
        };
        let mut rows: Vec<u32> = joins().flat_map(|(_, rows)| rows).copied().collect();
        rows.sort_unstable();
        rows.dedup();
        if rows.is_empty() {
            return Ok(None);
        }
        let mut missed_in = vec![String::new(); rows.len()];
        for ((spec, _), missed) in joins() {
            // Both ascend, and every missed row is among the rows.
            let mut at = 0;
            for row in missed {
                while rows[at] < *row {
                    at += 1;
                }
                let names = &mut missed_in[at];
                if !names.is_empty() {
                    names.push_str(", ");
                }
                names.push_str(spec.alias());
            }
        }
        let indices = UInt32Array::from(rows);
        let failed = |error| Error::internal("cannot take unmatched rows").with_source(error);
        let mut columns: Vec<ArrayRef> = facts
            .columns()
            .iter()
            .map(|column| arrow_select::take::take(column, &indices, None))
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        columns.push(Arc::new(StringArray::from(missed_in)));
        let options = RecordBatchOptions::new().with_row_count(Some(indices.len()));
        RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
            .map(Some)
            .map_err(failed)
    }

    fn empty_reports(&self) -> Vec<JoinReport> {
        let joins = self.join.joins();
        joins
            .map(|(spec, dimension)| JoinReport {
                spec: spec.clone(),
                version: dimension.version(),
                num_dimension_rows: dimension.num_rows(),
                layout: dimension.layout().to_string(),
                counters: JoinCounters::default(),
                missing_keys: MissingKeys::default(),
            })
            .collect()
    }
}
