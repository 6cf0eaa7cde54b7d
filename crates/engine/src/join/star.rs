use std::collections::HashSet;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow_schema::{Schema, SchemaRef};
use arrow_select::take::take;

use super::counters::JoinCounters;
use super::missing::MissingKeys;
use super::normalize::{Normalize, normalize, normalized_field};
use super::output::{
    Encoding, JoinPlan, OutputColumn, PackedColumns, describe, emit, fill_defaults, plan_columns,
};
use super::spec::{JoinKind, JoinSpec, OnMiss};
use crate::dimension::{Dimension, Matches, batch, column_index};
use crate::index::NO_MATCH;
use crate::key::{KeyPlan, KeyText, null_union};
use crate::{Error, Result};

/// A plan that joins fact batches of one schema with any number of dimensions, in one pass.
///
/// All dimensions are probed before anything is gathered. A join that drops rows narrows what the
/// next ones see; its counters tell how many reached it. Every fact row comes out at most once, in
/// its order.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
/// use darner_engine::{DimensionBuilder, Encoding, JoinSpec, Scratch, StarJoin};
///
/// let rows = RecordBatch::try_from_iter([
///     ("id", Arc::new(Int64Array::from(vec![7, 8])) as ArrayRef),
///     ("name", Arc::new(StringArray::from(vec!["seven", "eight"])) as ArrayRef),
/// ])?;
/// let mut builder = DimensionBuilder::new("numbers", rows.schema(), &["id".to_owned()])?;
/// builder.upsert(rows)?;
/// let numbers = Arc::new(builder.finish()?);
///
/// let facts = RecordBatch::try_from_iter([
///     ("number", Arc::new(Int64Array::from(vec![8, 9])) as ArrayRef),
/// ])?;
/// let spec = JoinSpec::parse("numbers on number=id")?;
/// let join = StarJoin::new(&facts.schema(), None, vec![(spec, numbers)], Encoding::Plain)?;
/// let joined = join.join(&facts, &mut Scratch::default())?;
/// assert_eq!(joined.batch.num_columns(), 2);
/// assert_eq!((joined.counters[0].num_matched, joined.counters[0].num_missed), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct StarJoin {
    fact_schema: SchemaRef,
    /// The fact columns that come out.
    fact_columns: Vec<usize>,
    joins: Vec<PlannedJoin>,
    output_schema: SchemaRef,
    collect: Collect,
}

#[derive(Debug)]
struct PlannedJoin {
    spec: JoinSpec,
    dimension: Arc<Dimension>,
    /// The fact columns that are compared, in key order.
    key_columns: Vec<usize>,
    /// What is done to each of them before. Empty if nothing is done to any.
    normalize: Vec<Vec<Normalize>>,
    plan: KeyPlan,
    columns: Vec<OutputColumn>,
    packed: Option<PackedColumns>,
}

/// What a join collects beside its counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collect {
    /// The missing keys, see [`Joined::missing_keys`].
    pub missing_keys: bool,
    /// The missed rows, see [`Joined::missed_rows`].
    pub missed_rows: bool,
    /// How long it takes, see [`Joined::times`].
    pub times: bool,
}

impl Default for Collect {
    /// Missing keys, and nothing else.
    fn default() -> Self {
        Self {
            missing_keys: true,
            missed_rows: false,
            times: false,
        }
    }
}

/// Buffers of [`StarJoin::join`], reused from batch to batch: one per thread. Fits any plan.
#[derive(Debug, Default)]
pub struct Scratch {
    matches: Vec<Matches>,
    selection: Vec<u32>,
    kept: Vec<u32>,
    missed: Vec<u32>,
    /// The number of rows before the batch, for messages that name a row.
    pub first_row: u64,
}

/// One batch after its joins. Vectors have one entry per join, in their order.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The rows that are left, with the columns of [`StarJoin::output_schema`].
    pub batch: RecordBatch,
    /// What happened to the rows.
    pub counters: Vec<JoinCounters>,
    /// Keys that the dimension has not; empty unless collected. Null keys are not among them.
    pub missing_keys: Vec<MissingKeys>,
    /// Rows of the fact batch with such a key, ascending; empty unless collected.
    pub missed_rows: Vec<Vec<u32>>,
    /// How long the joins took; empty unless collected.
    pub times: Vec<JoinTimes>,
}

/// How long a join took, one thread's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JoinTimes {
    /// To find the rows of the dimension, to tell what was missed, and to drop the rows that do not go on.
    pub probe: Duration,
    /// To make the columns that it adds.
    pub gather: Duration,
}

impl AddAssign for JoinTimes {
    fn add_assign(&mut self, other: Self) {
        self.probe += other.probe;
        self.gather += other.gather;
    }
}

/// Looks at a clock, if it is to.
struct Stopwatch(Option<Instant>);

impl Stopwatch {
    fn start(is_running: bool) -> Self {
        Self(is_running.then(Instant::now))
    }

    /// The time since it was asked last.
    fn lap(&mut self) -> Duration {
        let Some(since) = &mut self.0 else {
            return Duration::ZERO;
        };
        let now = Instant::now();
        now - std::mem::replace(since, now)
    }
}

impl StarJoin {
    /// Plans joins, in order, of facts of a schema.
    ///
    /// `fact_select` names the fact columns that come out, in order; `None` is all. The output has
    /// them first, then the columns of each join. A dimension's column keeps its name; where that
    /// is taken it is `ALIAS_NAME`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if a column does not exist, names collide,
    /// a join is not on the whole key, or types cannot be compared;
    /// [`ErrorKind::Resource`](crate::ErrorKind::Resource) if a dimension's columns cannot be had
    /// in the encoding.
    pub fn new(
        fact_schema: &SchemaRef,
        fact_select: Option<&[String]>,
        joins: Vec<(JoinSpec, Arc<Dimension>)>,
        encoding: Encoding,
    ) -> Result<Self> {
        let fact_columns: Vec<usize> = match fact_select {
            None => (0..fact_schema.fields().len()).collect(),
            Some(names) => names
                .iter()
                .map(|name| column_index(fact_schema, name))
                .collect::<Result<_>>()
                .map_err(|error| error.context("select of the facts"))?,
        };
        let mut taken = HashSet::new();
        let mut fields = Vec::new();
        for &idx in &fact_columns {
            let field = &fact_schema.fields()[idx];
            if !taken.insert(field.name().clone()) {
                return Err(Error::invalid(format!(
                    "a fact column comes out twice: column=`{}`",
                    field.name()
                )));
            }
            fields.push(Arc::clone(field));
        }
        let mut planned = Vec::with_capacity(joins.len());
        for (spec, dimension) in joins {
            spec.check()?;
            let (key_columns, mut normalize): (Vec<usize>, Vec<Vec<Normalize>>) = spec
                .key_columns(fact_schema, &dimension)?
                .into_iter()
                .unzip();
            let key_fields = key_columns.iter().zip(&normalize).map(|(&idx, steps)| {
                let field = &fact_schema.fields()[idx];
                if steps.is_empty() {
                    return Ok(Arc::clone(field));
                }
                normalized_field(field, steps)
                    .map(Arc::new)
                    .map_err(|error| error.context(format_args!("join `{}`", spec.alias())))
            });
            let key_fields = key_fields.collect::<Result<Vec<_>>>()?;
            if normalize.iter().all(Vec::is_empty) {
                normalize.clear();
            }
            let plan = dimension.bind(&key_fields)?;
            let mut columns = Vec::new();
            for (column, field) in plan_columns(&spec, &dimension, encoding, &mut taken)? {
                columns.push(column);
                fields.push(Arc::new(field));
            }
            let packed = PackedColumns::plan(&columns, &dimension)?;
            planned.push(PlannedJoin {
                spec,
                dimension,
                key_columns,
                normalize,
                plan,
                columns,
                packed,
            });
        }
        let output_schema = Schema::new_with_metadata(fields, fact_schema.metadata().clone());
        Ok(Self {
            fact_schema: Arc::clone(fact_schema),
            fact_columns,
            joins: planned,
            output_schema: Arc::new(output_schema),
            collect: Collect::default(),
        })
    }

    /// The same joins with columns in the types that the dimensions have. `None` if values are so long that to copy them
    /// for each row would take memory that nobody has reckoned with.
    pub(crate) fn in_plain(&self) -> Result<Option<Self>> {
        let is_long = |join: &PlannedJoin| {
            let mut columns = join.columns.iter();
            columns.any(|column| column.is_long(&join.dimension))
        };
        if self.joins.iter().any(is_long) {
            return Ok(None);
        }
        let names = self.fact_columns.iter();
        let names = names.map(|&idx| self.fact_schema.field(idx).name().clone());
        let names: Vec<String> = names.collect();
        let joins = self.joins.iter();
        let joins = joins.map(|join| (join.spec.clone(), Arc::clone(&join.dimension)));
        let joins = joins.collect();
        let plain = Self::new(&self.fact_schema, Some(&names), joins, Encoding::Plain)?;
        Ok(Some(plain.with_collect(self.collect)))
    }

    /// Says what to collect beside the counters.
    #[must_use]
    pub fn with_collect(mut self, collect: Collect) -> Self {
        self.collect = collect;
        self
    }

    /// What is collected.
    pub(crate) fn collect(&self) -> Collect {
        self.collect
    }

    /// The schema of what comes out.
    pub fn output_schema(&self) -> &SchemaRef {
        &self.output_schema
    }

    /// The schema of the facts.
    pub fn fact_schema(&self) -> &SchemaRef {
        &self.fact_schema
    }

    /// What each join is going to do, in order.
    pub fn plan(&self) -> Vec<JoinPlan<'_>> {
        let mut fields = self.output_schema.fields()[self.fact_columns.len()..].iter();
        let plans = self.joins.iter().map(|join| JoinPlan {
            spec: &join.spec,
            dimension: &join.dimension,
            columns: describe(
                &join.columns,
                join.packed.as_ref(),
                fields.by_ref(),
                &join.dimension,
            ),
            packed_row_bytes: join.packed.as_ref().and_then(PackedColumns::row_bytes),
        });
        plans.collect()
    }

    /// The joins, in order.
    pub fn joins(&self) -> impl ExactSizeIterator<Item = (&JoinSpec, &Arc<Dimension>)> {
        self.joins.iter().map(|join| (&join.spec, &join.dimension))
    }

    /// Joins one batch. Fact columns are shared, not copied, if no row is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the batch has not the columns of the
    /// fact schema; [`ErrorKind::Data`](crate::ErrorKind::Data) at the first missing key of a join
    /// with [`OnMiss::Error`], naming the table, column, key and row;
    /// [`ErrorKind::Resource`](crate::ErrorKind::Resource) if a column of the output passes what
    /// its type holds.
    pub fn join(&self, facts: &RecordBatch, scratch: &mut Scratch) -> Result<Joined> {
        self.check_batch(facts)?;
        let Scratch {
            matches,
            selection,
            kept,
            missed,
            first_row,
        } = scratch;
        matches.resize_with(matches.len().max(self.joins.len()), Matches::default);
        let mut counters = Vec::with_capacity(self.joins.len());
        let mut missing_keys = Vec::new();
        let mut missed_rows = Vec::new();
        let mut times = Vec::new();
        // Of each join with defaults the rows that get them; empty if there are none.
        let mut is_missed: Vec<Vec<bool>> = Vec::with_capacity(self.joins.len());
        let mut stopwatch = Stopwatch::start(self.collect.times);
        // Whether `selection` holds; before the first drop every row is selected, and nothing is
        // written.
        let mut is_narrowed = false;
        for (idx, join) in self.joins.iter().enumerate() {
            let narrowed = is_narrowed.then_some(selection.as_slice());
            let keys = select_columns(facts, &join.key_columns, narrowed)?;
            let found = &mut matches[idx];
            join.probe(&keys, found)?;
            counters.push(count(found));
            missed.clear();
            let fails = join.spec.on_miss == OnMiss::Error;
            let has_defaults = join.spec.on_miss == OnMiss::Default;
            if found.num_missed() > 0
                && (fails || has_defaults || self.collect.missing_keys || self.collect.missed_rows)
            {
                find_missed(found, missed);
                if fails {
                    return Err(missed_error(join, &keys, missed[0], narrowed, *first_row));
                }
            }
            is_missed.push(mask(missed, has_defaults, found.build_idx().len()));
            if self.collect.missing_keys {
                let mut missing = MissingKeys::default();
                missing.add_rows(&keys, missed)?;
                missing_keys.push(missing);
            }
            if self.collect.missed_rows {
                let fact_row = |&row: &u32| narrowed.map_or(row, |rows| rows[row as usize]);
                missed_rows.push(missed.iter().map(fact_row).collect());
            }
            if self.collect.times {
                times.push(JoinTimes::default());
            }
            let mut lap = || {
                if let Some(times) = times.last_mut() {
                    times.probe += stopwatch.lap();
                }
            };
            lap();
            if keeps_all(&join.spec, found) {
                continue;
            }
            find_kept(&join.spec, found, kept);
            for (join, matches) in self.joins.iter().zip(&mut matches[..=idx]) {
                if !join.columns.is_empty() {
                    matches.keep(kept);
                }
            }
            keep_masks(&mut is_missed, kept);
            if is_narrowed {
                narrow(selection, kept);
            } else {
                std::mem::swap(selection, kept);
                is_narrowed = true;
            }
            lap();
        }
        let narrowed = is_narrowed.then_some(selection.as_slice());
        let num_rows = narrowed.map_or(facts.num_rows(), <[u32]>::len);
        let mut columns = select_columns(facts, &self.fact_columns, narrowed)?;
        // What it took to take the fact columns is nobody's.
        stopwatch.lap();
        for (idx, (join, matches)) in self.joins.iter().zip(matches.iter()).enumerate() {
            emit(
                &join.columns,
                join.packed.as_ref(),
                &join.dimension,
                matches.build_idx(),
                &mut columns,
            )?;
            if !is_missed[idx].is_empty() {
                let is_missed = BooleanArray::from(std::mem::take(&mut is_missed[idx]));
                fill_defaults(&join.columns, &is_missed, &mut columns)?;
            }
            if let Some(times) = times.get_mut(idx) {
                times.gather = stopwatch.lap();
            }
        }
        let batch = batch(Arc::clone(&self.output_schema), columns, num_rows)?;
        Ok(Joined {
            batch,
            counters,
            missing_keys,
            missed_rows,
            times,
        })
    }

    fn check_batch(&self, facts: &RecordBatch) -> Result<()> {
        let schema = facts.schema_ref();
        if Arc::ptr_eq(schema, &self.fact_schema) {
            return Ok(());
        }
        let name = |schema: &Schema| {
            let fields = schema.fields().iter();
            fields
                .map(|f| format!("{} {}", f.name(), f.data_type()))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let is_same = schema.fields().len() == self.fact_schema.fields().len()
            && schema
                .fields()
                .iter()
                .zip(self.fact_schema.fields())
                .all(|(got, expected)| {
                    got.name() == expected.name() && got.data_type() == expected.data_type()
                });
        if is_same {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "a batch has not the columns that the join was planned for: got=`{}` expected=`{}`",
            name(schema),
            name(&self.fact_schema)
        )))
    }
}

impl PlannedJoin {
    /// Finds the build row of every key.
    fn probe(&self, keys: &[ArrayRef], found: &mut Matches) -> Result<()> {
        if self.normalize.is_empty() {
            return self.dimension.probe_bound(&self.plan, keys, found);
        }
        let normalized = keys.iter().zip(&self.normalize);
        let normalized = normalized
            .map(|(key, steps)| normalize(key, steps))
            .collect::<Result<Vec<_>>>()?;
        self.dimension.probe_bound(&self.plan, &normalized, found)?;
        // A value that could not be cast is null now, but it is no null of the facts: it was missed.
        found.set_nulls(null_union(keys));
        Ok(())
    }
}

/// Columns of a batch, at the selected rows.
fn select_columns(
    facts: &RecordBatch,
    columns: &[usize],
    selection: Option<&[u32]>,
) -> Result<Vec<ArrayRef>> {
    let columns = columns.iter().map(|&idx| facts.column(idx));
    let Some(selection) = selection else {
        return Ok(columns.map(Arc::clone).collect());
    };
    let indices = UInt32Array::from(selection.to_vec());
    columns
        .map(|column| {
            take(column, &indices, None).map_err(|error| {
                Error::internal("cannot take the rows that are left").with_source(error)
            })
        })
        .collect()
}

fn count(found: &Matches) -> JoinCounters {
    JoinCounters {
        num_rows: found.build_idx().len() as u64,
        num_matched: found.num_matched() as u64,
        num_missed: found.num_missed() as u64,
        num_null_keys: found.num_null_keys() as u64,
    }
}

/// Which rows were missed, if some were and if that will be asked.
fn mask(missed: &[u32], is_wanted: bool, num_rows: usize) -> Vec<bool> {
    if !is_wanted || missed.is_empty() {
        return Vec::new();
    }
    let mut mask = vec![false; num_rows];
    for &row in missed {
        mask[row as usize] = true;
    }
    mask
}

/// Keeps the rows `kept` of masks that are not empty.
fn keep_masks(masks: &mut [Vec<bool>], kept: &[u32]) {
    for mask in masks.iter_mut().filter(|mask| !mask.is_empty()) {
        *mask = kept.iter().map(|&row| mask[row as usize]).collect();
    }
}

fn find_missed(matches: &Matches, missed: &mut Vec<u32>) {
    let build_idx = matches.build_idx();
    find_rows(build_idx.len(), missed, |row| {
        build_idx[row] == NO_MATCH && !matches.is_null_key(row)
    });
}

/// The rows of which something is true, ascending, in place of what `found` held. Each is written where the next one
/// belongs, and stays if it is one: a branch on what the data says would be taken wrong too often.
fn find_rows(num_rows: usize, found: &mut Vec<u32>, is_one: impl Fn(usize) -> bool) {
    found.clear();
    found.resize(num_rows, 0);
    let mut num_found = 0;
    for (row, number) in (0..num_rows).zip(0_u32..) {
        found[num_found] = number;
        num_found += usize::from(is_one(row));
    }
    found.truncate(num_found);
}

/// Whether a join keeps every row, known from the counts alone.
fn keeps_all(spec: &JoinSpec, matches: &Matches) -> bool {
    match (spec.kind, spec.on_miss) {
        (JoinKind::Left, OnMiss::Null | OnMiss::Error | OnMiss::Default) => true,
        (JoinKind::Left, OnMiss::Drop | OnMiss::Route) => matches.num_missed() == 0,
        (JoinKind::Inner | JoinKind::Semi, _) => matches.num_matched() == matches.build_idx().len(),
        (JoinKind::Anti, _) => matches.num_matched() == 0,
    }
}

/// The rows that a join keeps, among those that reached it.
fn find_kept(spec: &JoinSpec, matches: &Matches, kept: &mut Vec<u32>) {
    let build_idx = matches.build_idx();
    let is_match = |row: usize| build_idx[row] != NO_MATCH;
    match spec.kind {
        JoinKind::Left => find_rows(build_idx.len(), kept, |row| {
            is_match(row) || matches.is_null_key(row)
        }),
        JoinKind::Inner | JoinKind::Semi => find_rows(build_idx.len(), kept, is_match),
        JoinKind::Anti => find_rows(build_idx.len(), kept, |row| !is_match(row)),
    }
}

/// Keeps the places `kept`, which ascend, of a selection.
fn narrow(selection: &mut Vec<u32>, kept: &[u32]) {
    for (to, &from) in kept.iter().enumerate() {
        selection[to] = selection[from as usize];
    }
    selection.truncate(kept.len());
}

fn missed_error(
    join: &PlannedJoin,
    keys: &[ArrayRef],
    row: u32,
    selection: Option<&[u32]>,
    first_row: u64,
) -> Error {
    let key = match KeyText::new(keys) {
        Ok(text) => text.get(row as usize),
        Err(error) => return error,
    };
    let fact_row = selection.map_or(row, |rows| rows[row as usize]);
    let columns: Vec<&str> = join.spec.on.iter().map(|on| on.fact.as_str()).collect();
    Error::data(format!(
        "a key is not in its dimension: table=`{}` column=`{}` key=`{key}` row=`{}`",
        join.spec.table,
        columns.join(", "),
        first_row + u64::from(fact_row)
    ))
}
