//! Measures materialized views: refreshes by new files, rows that are pushed, and reading. Every answer is checked.
//!
//! ```text
//! cargo run --release -p darner-sql --example views -- [ROWS] [GROUPS] [RUNS] [THREADS] [PYTHON]
//! ```
//!
//! ROWS facts (50,000,000) of GROUPS groups (100,000) stand in a hundred Parquet files; others, each of a hundredth of the
//! rows, come after the view was made, one for each run. Beside a refresh, DataFusion computes the view's query over all
//! files, and so does DuckDB if PYTHON is an interpreter that has `duckdb` and `pyarrow`. Then a million rows are pushed,
//! ten thousand at a time, and the view is read: all of it, and single groups. A time is the median of RUNS (5) where a
//! thing can be done again.
#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::{
    error::Error,
    fs::File,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use arrow_array::{
    Array, ArrayRef, Float64Array, Int64Array, RecordBatch,
    cast::AsArray,
    types::{Float64Type, Int64Type},
};
use darner_sql::{RefreshKind, RefreshOptions, Session, SessionOptions};
use darner_store::{Store, StoreOptions};
use datafusion::{arrow::compute::sum, parquet::arrow::ArrowWriter};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const NUM_FILES: usize = 100;

/// Computes the view's query over files by DuckDB, in one process: the median time, and what the answers are checked by.
const DUCKDB: &str = r#"
import sys, time, duckdb
files, threads, runs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
connection, times = duckdb.connect(config={"threads": threads}), []
connection.execute("SET enable_progress_bar = false")
for _ in range(runs):
    start = time.perf_counter()
    rows = connection.sql(f"SELECT k, count(*) AS c, sum(n) AS s, avg(x) AS a FROM '{files}' GROUP BY k").to_arrow_table()
    times.append(time.perf_counter() - start)
print(sorted(times)[runs // 2], sum(rows["c"].to_pylist()), int(sum(rows["s"].to_pylist())))
"#;

/// The rows that are pushed, and how many of them at a time.
const PUSH_ROWS: usize = 1_000_000;
const PUSH_BATCH_ROWS: usize = 10_000;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| match args.get(at) {
        None => Ok(default),
        Some(text) => text.replace('_', "").parse(),
    };
    let (num_rows, num_groups) = (number(0, 50_000_000)?, number(1, 100_000)?);
    let num_runs = number(2, 5)?.max(1);
    let num_threads = number(3, std::thread::available_parallelism()?.get())?.max(1);
    println!("{num_rows} facts, {num_groups} groups, {num_runs} runs, {num_threads} threads");
    let dir = tempfile::tempdir()?;
    let facts = dir.path().join("facts");
    std::fs::create_dir(&facts)?;
    let file_rows = num_rows / NUM_FILES;
    for file in 0..NUM_FILES {
        let rows = rows(file * file_rows, file_rows, num_groups)?;
        write(&facts.join(format!("{file:03}.parquet")), &rows)?;
    }
    let store = Arc::new(Store::open(
        dir.path().join("store"),
        StoreOptions::default(),
    )?);
    let mut options = SessionOptions::default();
    options.num_threads = num_threads;
    options.read_only = false;
    options.allow_files = true;
    let session = Session::with_options(options)?;
    session.register_store(Arc::clone(&store));
    let query = format!(
        "SELECT k, count(*) AS c, sum(n) AS s, avg(x) AS a FROM '{}/*.parquet' GROUP BY k",
        facts.display()
    );
    let start = Instant::now();
    session.create_view("v", &query, false)?;
    print("made", start.elapsed(), num_rows);

    // One file after the other, as DuckDB and DataFusion compute all of them several times.
    let (new_rows, mut num_files) = (file_rows.max(1), 0);
    let mut times = Vec::with_capacity(num_runs);
    for _ in 0..num_runs {
        let new = rows(num_rows + num_files * new_rows, new_rows, num_groups)?;
        write(&facts.join(format!("new{num_files}.parquet")), &new)?;
        num_files += 1;
        let start = Instant::now();
        let report = session.refresh_view("v", &RefreshOptions::default())?;
        times.push(start.elapsed());
        assert_eq!(report.kind, RefreshKind::Merged);
    }
    times.sort_unstable();
    let refreshed = times[times.len() / 2];
    print("refreshed by one more file", refreshed, new_rows);
    let new = num_files * new_rows;
    let mut expected = (0, 0);
    let full = median(num_runs, || {
        expected = totals(&session, &format!("({query})"))?;
        Ok(())
    })?;
    print("all of it by DataFusion", full, num_rows + new);
    let compare = |full: Duration| {
        println!(
            "a refresh takes {:.2} % of that",
            100.0 * refreshed.as_secs_f64() / full.as_secs_f64()
        );
    };
    compare(full);
    if let Some(python) = args.get(4) {
        let files = facts.join("*.parquet");
        let (full, found) = duckdb(python, &files, num_threads, num_runs)?;
        assert_eq!(found, expected, "DuckDB says something else");
        print("all of it by DuckDB", full, num_rows + new);
        compare(full);
    }
    assert_eq!(totals(&session, "v")?, expected, "the view differs");

    let mut writer = session.view_writer("v")?;
    let all = rows(num_rows + new, PUSH_ROWS, num_groups)?;
    let start = Instant::now();
    for at in (0..PUSH_ROWS).step_by(PUSH_BATCH_ROWS) {
        writer.push(&all.slice(at, PUSH_BATCH_ROWS), &at.to_le_bytes())?;
    }
    writer.commit()?;
    print("pushed and durable", start.elapsed(), PUSH_ROWS);
    let pushed: &Int64Array = all.column(1).as_primitive();
    let expected = (
        expected.0 + i64::try_from(PUSH_ROWS)?,
        expected.1 + sum(pushed).unwrap_or(0),
    );
    assert_eq!(totals(&session, "v")?, expected, "the view differs");

    let read = median(num_runs, || {
        let rows = session.view_rows("v")?;
        assert_eq!(rows.num_rows(), num_groups.min(num_rows));
        Ok(())
    })?;
    print("read", read, num_groups);
    let mut key = 0;
    let one = median(1000, || {
        key = (key * 31 + 7) % i64::try_from(num_groups)?;
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![key]));
        let found = session.view_get("v", &[keys])?;
        assert!(found[0].is_some());
        Ok(())
    })?;
    println!("{:<28} {:>10.3} ms", "one group", one.as_secs_f64() * 1e3);
    Ok(())
}

/// Facts: a key, a number, and half of another.
fn rows(start: usize, num_rows: usize, num_groups: usize) -> Result<RecordBatch> {
    let mut state = start as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let mut random = |bound: usize| -> Result<i64> {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Ok(i64::try_from(state % bound as u64)?)
    };
    let (mut keys, mut numbers, mut halves) = (Vec::new(), Vec::new(), Vec::new());
    for row in start..start + num_rows {
        // Each group has a row at the start.
        let is_first = row < num_groups;
        keys.push(if is_first {
            i64::try_from(row)?
        } else {
            random(num_groups)?
        });
        numbers.push(random(1000)?);
        halves.push(f64::from(i32::try_from(random(1000)?)?) / 2.0);
    }
    let columns: [(&str, ArrayRef); 3] = [
        ("k", Arc::new(Int64Array::from(keys))),
        ("n", Arc::new(Int64Array::from(numbers))),
        ("x", Arc::new(Float64Array::from(halves))),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

fn write(path: &Path, rows: &RecordBatch) -> Result<()> {
    let mut writer = ArrowWriter::try_new(File::create(path)?, rows.schema(), None)?;
    writer.write(rows)?;
    writer.close()?;
    Ok(())
}

/// The rows that are counted, and the sum of their numbers. That no average is missing is checked.
fn totals(session: &Session, from: &str) -> Result<(i64, i64)> {
    let (mut count, mut total) = (0, 0);
    for rows in session.query(&format!("SELECT c, s, a FROM {from}"))? {
        let rows = rows?;
        count += sum(rows.column(0).as_primitive::<Int64Type>()).unwrap_or(0);
        total += sum(rows.column(1).as_primitive::<Int64Type>()).unwrap_or(0);
        assert_eq!(rows.column(2).as_primitive::<Float64Type>().null_count(), 0);
    }
    Ok((count, total))
}

/// How long DuckDB takes for all of the files, and what it counts and adds up.
fn duckdb(
    python: &str,
    files: &Path,
    num_threads: usize,
    num_runs: usize,
) -> Result<(Duration, (i64, i64))> {
    let output = Command::new(python)
        .args(["-c", DUCKDB])
        .arg(files)
        .args([num_threads.to_string(), num_runs.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut words = text.split_whitespace();
    let mut next = || words.next().ok_or("DuckDB gave no answer");
    let seconds = Duration::from_secs_f64(next()?.parse()?);
    Ok((seconds, (next()?.parse()?, next()?.parse()?)))
}

fn median(num_runs: usize, mut run: impl FnMut() -> Result<()>) -> Result<Duration> {
    let mut times = Vec::with_capacity(num_runs);
    for _ in 0..num_runs {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn print(what: &str, time: Duration, num_rows: usize) {
    let seconds = time.as_secs_f64();
    let rate = num_rows as f64 / seconds / 1e6;
    println!(
        "{what:<28} {:>10.3} ms {rate:>10.2} million rows/s",
        seconds * 1e3
    );
}
