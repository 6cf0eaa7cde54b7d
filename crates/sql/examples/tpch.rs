//! Measures the queries of TPC-H on a store beside `DataFusion` on Parquet, in one process and in turns.
//!
//! ```text
//! cargo run --release -p darner-sql --example tpch -- [SCALE] [RUNS] [PARTITIONS]
//! ```
//!
//! All tables but `lineitem` are in the store, each loaded by one commit; `lineitem` is the same Parquet file in both
//! ways. A time is the median of RUNS (3), from the text of a query to all rows of its answer. The answers must agree. What
//! a query takes on the store the first time, when it builds dimensions, is shown apart.
#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow_array::RecordBatch;
use darner_store::{Store, StoreOptions, TableSpec};
use datafusion::{
    arrow::util::pretty::pretty_format_batches,
    datasource::MemTable,
    physical_plan::{collect, displayable},
    prelude::{ParquetReadOptions, SessionConfig, SessionContext},
};

#[path = "../tests/sql/tpch/data.rs"]
mod data;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let scale: f64 = args.first().map_or(Ok(0.1), |text| text.parse())?;
    let num_cores = std::thread::available_parallelism()?.get();
    let number = |at: usize, default: usize| match args.get(at) {
        None => Ok(default),
        Some(text) => text.parse().map(|number: usize| number.max(1)),
    };
    let (num_runs, num_partitions) = (number(1, 3)?, number(2, num_cores)?);
    println!("scale {scale}, {num_runs} runs, {num_partitions} partitions");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(num_cores)
        .build()?;
    let dir = tempfile::tempdir()?;
    let store = Arc::new(Store::open(
        dir.path().join("store"),
        StoreOptions::default(),
    )?);
    let config = SessionConfig::new().with_target_partitions(num_partitions);
    let parquet = SessionContext::new_with_config(config.clone());
    let stored = config.with_default_catalog_and_schema("darner", "public");
    let stored = SessionContext::new_with_config(stored);
    darner_sql::register(&stored, Arc::clone(&store), "darner");
    for table in data::tables(scale)? {
        let file = dir.path().join(format!("{}.parquet", table.name));
        let file = file.to_str().ok_or("a path is not UTF-8")?;
        runtime.block_on(write(&table, file))?;
        runtime.block_on(read(&parquet, table.name, file))?;
        if table.name == data::FACTS {
            runtime.block_on(read(&stored, table.name, file))?;
        } else {
            load(&store, &table)?;
        }
    }
    runtime.block_on(compare(&parquet, &stored, num_runs))
}

async fn write(table: &data::Table, file: &str) -> Result<()> {
    let context = SessionContext::new();
    let rows = MemTable::try_new(Arc::clone(&table.schema), vec![table.rows.clone()])?;
    context.register_table(table.name, Arc::new(rows))?;
    let copy = format!("COPY {} TO '{file}' STORED AS PARQUET", table.name);
    context.sql(&copy).await?.collect().await?;
    Ok(())
}

async fn read(context: &SessionContext, table: &str, file: &str) -> Result<()> {
    let options = ParquetReadOptions::default();
    Ok(context.register_parquet(table, file, options).await?)
}

fn load(store: &Store, table: &data::Table) -> Result<()> {
    let mut transaction = store.begin()?;
    transaction.create_table(table.name, TableSpec::new(&table.schema, table.key)?)?;
    for rows in &table.rows {
        transaction.upsert(table.name, rows)?;
    }
    transaction.declare_distinct(table.name)?;
    transaction.commit()?;
    Ok(())
}

/// The time that a query takes, its rows, and how many lookups its plan has.
async fn run(context: &SessionContext, sql: &str) -> Result<(Duration, Vec<RecordBatch>, usize)> {
    let start = Instant::now();
    let plan = context.sql(sql).await?.create_physical_plan().await?;
    let rows = collect(Arc::clone(&plan), context.task_ctx()).await?;
    let time = start.elapsed();
    let plan = displayable(plan.as_ref()).indent(false).to_string();
    Ok((time, rows, plan.matches("LookupJoinExec").count()))
}

/// Rows as text. Those that have the same place in the order asked for may come in any.
fn texts(rows: &[RecordBatch]) -> Result<Vec<String>> {
    let text = pretty_format_batches(rows)?.to_string();
    let mut rows: Vec<String> = text.lines().map(str::to_owned).collect();
    rows.sort_unstable();
    Ok(rows)
}

async fn compare(parquet: &SessionContext, stored: &SessionContext, num_runs: usize) -> Result<()> {
    println!("query  parquet ms  store ms  ratio  first ms  lookups");
    let mut totals = [Duration::ZERO; 3];
    let mut num_lookups_of_all = 0;
    for (number, sql) in (1..).zip(data::queries()) {
        let mut times: [Vec<Duration>; 2] = Default::default();
        let mut first = Duration::ZERO;
        let mut lookups = 0;
        // The first round is not counted.
        for round in 0..=num_runs {
            let (parquet_time, expected, _) = run(parquet, sql).await?;
            let (stored_time, rows, num_lookups) = run(stored, sql).await?;
            if texts(&rows)? != texts(&expected)? {
                let (rows, expected) = (
                    pretty_format_batches(&rows)?,
                    pretty_format_batches(&expected)?,
                );
                return Err(format!("query {number}: got\n{rows}\ninstead of\n{expected}").into());
            }
            lookups = num_lookups;
            if round == 0 {
                first = stored_time;
            } else {
                times[0].push(parquet_time);
                times[1].push(stored_time);
            }
        }
        let [parquet_time, stored_time] = times.map(|mut times| {
            times.sort_unstable();
            times[times.len() / 2]
        });
        print(
            &number.to_string(),
            [parquet_time, stored_time, first],
            lookups,
        );
        for (total, time) in totals.iter_mut().zip([parquet_time, stored_time, first]) {
            *total += time;
        }
        num_lookups_of_all += lookups;
    }
    print("all", totals, num_lookups_of_all);
    Ok(())
}

fn print(name: &str, times: [Duration; 3], lookups: usize) {
    let [parquet, stored, first] = times.map(|time| time.as_secs_f64() * 1e3);
    let ratio = parquet / stored;
    println!("{name:>5}  {parquet:>10.1}  {stored:>8.1}  {ratio:>5.2}  {first:>8.1}  {lookups:>7}");
}
