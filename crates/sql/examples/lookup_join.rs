//! Measures joins by lookup beside DataFusion's own hash join, in one process and in turns.
//!
//! ```text
//! cargo run --release -p darner-sql --example lookup_join -- [FACTS] [DIMENSION] [RUNS] [PARTITIONS]
//! ```
//!
//! Joins FACTS rows in memory (10,000,000) with DIMENSION rows (1,000,000) in three ways: by lookup in a table of a store,
//! by hash join with the same table, and by hash join with the same rows in memory. Every row that comes out is counted
//! and its numbers are added up; the three ways must agree. A time is the median of RUNS (5). The first lookup builds the
//! dimension and is shown apart. All of it is done with keys that count up, and with keys scattered over all 64 bits.
#![expect(clippy::print_stdout, reason = "this is what it is for")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "numbers of rows are small"
)]

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow_array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringViewArray,
    cast::AsArray,
    types::{Float64Type, Int64Type},
};
use arrow_schema::DataType;
use darner_store::{Store, StoreOptions, TableSpec};
use datafusion::{
    arrow::compute::sum,
    datasource::MemTable,
    physical_plan::{displayable, execute_stream_partitioned},
    prelude::{SessionConfig, SessionContext},
};
use futures::StreamExt;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What one row in so many of the facts has no match for.
const MISS_EVERY: u64 = 16;

const BATCH_ROWS: usize = 8192;

const QUERIES: [(&str, &str); 4] = [
    (
        "inner, all columns",
        "SELECT f.*, d.name, d.city, d.price FROM facts f JOIN @D d ON f.k = d.id",
    ),
    (
        "left, all columns",
        "SELECT f.*, d.name, d.city, d.price FROM facts f LEFT JOIN @D d ON f.k = d.id",
    ),
    (
        "semi",
        "SELECT f.* FROM facts f WHERE f.k IN (SELECT id FROM @D)",
    ),
    (
        "inner, grouped by city",
        "SELECT d.city, count(*) AS n, sum(f.q) AS q FROM facts f JOIN @D d ON f.k = d.id GROUP BY d.city",
    ),
];

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| match args.get(at) {
        None => Ok(default),
        Some(text) => text.replace('_', "").parse(),
    };
    let (num_facts, num_rows) = (number(0, 10_000_000)?, number(1, 1_000_000)?);
    let num_runs = number(2, 5)?.max(1);
    let num_cores = std::thread::available_parallelism()?.get();
    let num_partitions = number(3, num_cores)?.max(1);
    println!(
        "{num_facts} facts, {num_rows} rows in the dimension, {num_runs} runs, {num_partitions} partitions"
    );

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(num_cores)
        .build()?;
    for keys in [Keys::Dense, Keys::Scattered] {
        println!("\n{keys:?} keys");
        let dir = tempfile::tempdir()?;
        let store = Arc::new(Store::open(
            dir.path().join("store"),
            StoreOptions::default(),
        )?);
        let config = SessionConfig::new().with_target_partitions(num_partitions);
        let context = SessionContext::new_with_config(config);
        darner_sql::register(&context, Arc::clone(&store), "darner");
        let mut random = Random(7);
        fill(&context, &store, (num_rows, keys), &mut random)?;
        let shape = (num_facts, num_rows, num_partitions);
        facts(&context, shape, keys, &mut random)?;
        for (name, sql) in QUERIES {
            runtime.block_on(compare(&context, name, sql, num_runs))?;
        }
    }
    Ok(())
}

/// Which keys the dimension has.
#[derive(Clone, Copy, Debug)]
enum Keys {
    /// The numbers from 0 on.
    Dense,
    /// Numbers all over 64 bits.
    Scattered,
}

impl Keys {
    fn key(self, at: usize) -> i64 {
        match self {
            Self::Dense => at as i64,
            // To multiply by an odd number keeps numbers apart.
            Self::Scattered => (at as i64).wrapping_mul(-0x61C8_8646_80B5_83EB),
        }
    }

    /// A key that a dimension of so many rows has not.
    fn miss(self, at: usize, num_rows: usize) -> i64 {
        self.key(at + num_rows)
    }
}

/// A generator of numbers from a seed (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// The dimension, as the table `securities` of the store and as `copy` in memory.
fn fill(
    context: &SessionContext,
    store: &Store,
    (num_rows, keys): (usize, Keys),
    random: &mut Random,
) -> Result<()> {
    let mut batches = Vec::new();
    let ids: Vec<i64> = (0..num_rows).map(|at| keys.key(at)).collect();
    for ids in ids.chunks(BATCH_ROWS) {
        let names = ids.iter().map(|id| format!("security number {id}"));
        let cities: Vec<String> = ids
            .iter()
            .map(|_| format!("city {}", random.below(200)))
            .collect();
        let prices: Vec<f64> = ids.iter().map(|_| random.below(1000)).map(price).collect();
        batches.push(RecordBatch::try_from_iter([
            ("id", Arc::new(Int64Array::from(ids.to_vec())) as ArrayRef),
            (
                "name",
                Arc::new(StringViewArray::from_iter_values(names)) as ArrayRef,
            ),
            (
                "city",
                Arc::new(StringViewArray::from_iter_values(cities)) as ArrayRef,
            ),
            ("price", Arc::new(Float64Array::from(prices)) as ArrayRef),
        ])?);
    }
    let schema = batches.first().ok_or("a dimension needs a row")?.schema();
    let mut transaction = store.begin()?;
    transaction.create_table("securities", TableSpec::new(&schema, &["id"])?)?;
    for batch in &batches {
        transaction.upsert("securities", batch)?;
    }
    transaction.declare_distinct("securities")?;
    transaction.commit()?;
    context.register_table("copy", Arc::new(MemTable::try_new(schema, vec![batches])?))?;
    Ok(())
}

fn price(eighths: u64) -> f64 {
    f64::from(u32::try_from(eighths).unwrap_or(u32::MAX)) / 8.0
}

/// The facts, in memory: a key, a quantity, a price.
fn facts(
    context: &SessionContext,
    (num_facts, num_rows, num_partitions): (usize, usize, usize),
    keys: Keys,
    random: &mut Random,
) -> Result<()> {
    let mut partitions = vec![Vec::new(); num_partitions];
    let mut schema = None;
    for (at, start) in (0..num_facts).step_by(BATCH_ROWS).enumerate() {
        let len = BATCH_ROWS.min(num_facts - start);
        let keys: Vec<i64> = (0..len)
            .map(|_| {
                let at = random.below(num_rows as u64) as usize;
                if random.below(MISS_EVERY) == 0 {
                    keys.miss(at, num_rows)
                } else {
                    keys.key(at)
                }
            })
            .collect();
        let quantities: Vec<i64> = (0..len).map(|_| random.below(100).cast_signed()).collect();
        let prices: Vec<f64> = keys.iter().map(|_| price(random.below(500))).collect();
        let batch = RecordBatch::try_from_iter([
            ("k", Arc::new(Int64Array::from(keys)) as ArrayRef),
            ("q", Arc::new(Int64Array::from(quantities)) as ArrayRef),
            ("p", Arc::new(Float64Array::from(prices)) as ArrayRef),
        ])?;
        schema.get_or_insert(batch.schema());
        partitions[at % num_partitions].push(batch);
    }
    let schema = schema.ok_or("there have to be facts")?;
    context.register_table("facts", Arc::new(MemTable::try_new(schema, partitions)?))?;
    Ok(())
}

/// What came out: rows, and the sums of all integers and of all fractions.
#[derive(Clone, Copy, Debug, Default)]
struct Answer {
    num_rows: usize,
    integers: i64,
    fractions: f64,
}

impl Answer {
    fn add(&mut self, batch: &RecordBatch) {
        self.num_rows += batch.num_rows();
        for column in batch.columns() {
            match column.data_type() {
                DataType::Int64 => {
                    let column = sum(column.as_primitive::<Int64Type>());
                    self.integers = self.integers.wrapping_add(column.unwrap_or_default());
                }
                DataType::Float64 => {
                    let column = sum(column.as_primitive::<Float64Type>());
                    self.fractions += column.unwrap_or_default();
                }
                _ => {}
            }
        }
    }

    fn is(&self, other: &Self) -> bool {
        // Eighths add up to the same in any order.
        let error = (self.fractions - other.fractions).abs();
        self.num_rows == other.num_rows && self.integers == other.integers && error < 0.1
    }
}

/// The ways to do a join: their names, whether lookups are on, and the table.
const WAYS: [(&str, bool, &str); 3] = [
    ("lookup", true, "darner.public.securities"),
    (
        "hash join, table of the store",
        false,
        "darner.public.securities",
    ),
    ("hash join, table in memory", false, "copy"),
];

async fn compare(context: &SessionContext, name: &str, sql: &str, num_runs: usize) -> Result<()> {
    println!("\n{name}");
    let mut times: [Vec<Duration>; 3] = Default::default();
    let mut expected: Option<Answer> = None;
    // The first round is not counted.
    for run in 0..=num_runs {
        for (times, (way, is_lookup, table)) in times.iter_mut().zip(WAYS) {
            let start = Instant::now();
            let answer = answer(context, &sql.replace("@D", table), is_lookup).await?;
            let time = start.elapsed();
            if run == 0 {
                println!(
                    "  {way}, the first time: {:.0} ms",
                    time.as_secs_f64() * 1e3
                );
            } else {
                times.push(time);
            }
            let expected = expected.get_or_insert(answer);
            if !answer.is(expected) {
                return Err(format!("{way}: got {answer:?} instead of {expected:?}").into());
            }
        }
    }
    let medians = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    for (median, (way, ..)) in medians.iter().zip(WAYS) {
        let times = median.as_secs_f64() / medians[0].as_secs_f64();
        println!(
            "  {way}: {:.0} ms, {times:.2} times the lookup",
            median.as_secs_f64() * 1e3
        );
    }
    Ok(())
}

async fn answer(context: &SessionContext, sql: &str, is_lookup: bool) -> Result<Answer> {
    let set = format!("SET darner.lookup_join = {is_lookup}");
    context.sql(&set).await?.collect().await?;
    let plan = context.sql(sql).await?.create_physical_plan().await?;
    let text = displayable(plan.as_ref()).indent(false).to_string();
    if text.contains("LookupJoinExec") != is_lookup {
        return Err(format!("not the plan that was to be measured:\n{text}").into());
    }
    let streams = execute_stream_partitioned(plan, context.task_ctx())?;
    let tasks: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            tokio::spawn(async move {
                let mut answer = Answer::default();
                while let Some(batch) = stream.next().await {
                    answer.add(&batch?);
                }
                Ok::<_, datafusion::error::DataFusionError>(answer)
            })
        })
        .collect();
    let mut all = Answer::default();
    for task in tasks {
        let Answer {
            num_rows,
            integers,
            fractions,
        } = task.await??;
        all.num_rows += num_rows;
        all.integers = all.integers.wrapping_add(integers);
        all.fractions += fractions;
    }
    Ok(all)
}
