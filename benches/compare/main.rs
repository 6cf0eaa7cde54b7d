//! Joins in memory, driven line by line over stdin by `compare.py`, which times other engines
//! beside it.
//!
//! `compare FACTS.arrow DIM.arrow JOIN [DIM.arrow JOIN]... [--threads N]` prints one line of JSON about
//! the dimensions. Then, for each line on stdin: `view`, `plain` and `dictionary` join all facts,
//! `build` builds the dimensions anew; each prints one line of JSON.
//!
//! `compare FILE.arrow [--threads N]` has no join: at each line `load` it reads the file and adds up its values.
#![expect(clippy::print_stdout, reason = "the answers are read from stdout")]

use std::{error::Error, fs::File, io::BufReader, path::Path, sync::Arc, time::Instant};

use arrow_array::RecordBatch;
use arrow_ipc::reader::FileReader;
use arrow_schema::SchemaRef;
use darner_benches::{BATCH_ROWS, load, sum};
use darner_engine::{
    Collect, Dimension, DimensionBuilder, Encoding, JoinSpec, Joined, Scratch, StarJoin,
};
use rayon::{ThreadPool, prelude::*};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: compare FACTS.arrow [DIM.arrow JOIN]... [--threads N]";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Rows {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

fn read(path: &str) -> Result<Rows> {
    let reader = FileReader::try_new(BufReader::new(File::open(path)?), None)?;
    Ok(Rows {
        schema: reader.schema(),
        batches: reader.collect::<std::result::Result<_, _>>()?,
    })
}

/// Cuts batches to the size that the engine's own sources give. Nothing is copied.
fn slice(batches: &[RecordBatch]) -> Vec<RecordBatch> {
    let mut slices = Vec::new();
    for batch in batches {
        for start in (0..batch.num_rows()).step_by(BATCH_ROWS) {
            slices.push(batch.slice(start, BATCH_ROWS.min(batch.num_rows() - start)));
        }
    }
    slices
}

fn build(rows: &Rows, keys: &[String]) -> Result<Dimension> {
    let mut builder = DimensionBuilder::new("d", Arc::clone(&rows.schema), keys)?;
    for batch in &rows.batches {
        builder.upsert(batch.clone())?;
    }
    Ok(builder.finish()?)
}

/// Joins all facts and keeps all that comes out, as the other engines must.
fn join(
    facts: &Rows,
    joins: &[(JoinSpec, Arc<Dimension>)],
    encoding: Encoding,
) -> Result<Vec<Joined>> {
    let join =
        StarJoin::new(&facts.schema, None, joins.to_vec(), encoding)?.with_collect(Collect {
            missing_keys: false,
            missed_rows: false,
            times: false,
        });
    let joined: std::result::Result<_, _> = facts
        .batches
        .par_iter()
        .map_init(Scratch::default, |scratch, batch| join.join(batch, scratch))
        .collect();
    Ok(joined?)
}

fn answer(joined: &[Joined], ns: u128) -> Result<String> {
    let (mut rows, mut matched, mut total) = (0, 0, 0.0);
    for Joined {
        batch, counters, ..
    } in joined
    {
        rows += batch.num_rows();
        // Of the last join, which has `weight`.
        matched += counters.last().ok_or("no join")?.num_matched;
        total += sum(batch.column_by_name("weight").ok_or("no column `weight`")?);
    }
    Ok(format!(
        r#"{{"ns":{ns},"rows":{rows},"matched":{matched},"sum":{total:?}}}"#
    ))
}

/// Reads a file whenever it is told to.
fn load_all(pool: &ThreadPool, path: &str) -> Result<()> {
    for line in std::io::stdin().lines() {
        if line?.trim() != "load" {
            return Err("not a command: `load` is the only one without a join".into());
        }
        let start = Instant::now();
        let (num_rows, sum) = pool.install(|| load(Path::new(path)))?;
        let ns = start.elapsed().as_nanos();
        println!(r#"{{"ns":{ns},"rows":{num_rows},"sum":{sum}}}"#);
    }
    Ok(())
}

fn main() -> Result<()> {
    let mut paths = Vec::new();
    let mut num_threads = 1;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--threads" {
            num_threads = args.next().ok_or("--threads needs a number")?.parse()?;
        } else {
            paths.push(arg);
        }
    }
    let Some((facts, joins)) = paths.split_first() else {
        return Err(USAGE.into());
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(num_threads)
        // The thread that asks is one of them, as in DuckDB: beside two that work for it, a third made the system put both
        // on one core for all of a short join, every other time.
        .use_current_thread()
        .build()?;
    if joins.is_empty() {
        return load_all(&pool, facts);
    }
    let mut sources = Vec::new();
    for pair in joins.chunks(2) {
        let [path, spec] = pair else {
            return Err(USAGE.into());
        };
        let spec = JoinSpec::parse(spec)?;
        let keys = spec.on.iter();
        let keys = keys.map(|on| on.key.as_ref().unwrap_or(&on.fact).clone());
        let keys: Vec<String> = keys.collect();
        sources.push((read(path)?, keys, spec));
    }
    let mut facts = read(facts)?;
    facts.batches = slice(&facts.batches);
    let build_all = || -> std::result::Result<Vec<_>, String> {
        let joins = sources.iter().map(|(rows, keys, spec)| {
            let built = build(rows, keys).map_err(|error| error.to_string())?;
            Ok((spec.clone(), Arc::new(built)))
        });
        joins.collect()
    };

    let start = Instant::now();
    let joins = pool.install(build_all)?;
    let ns = start.elapsed().as_nanos();
    let (_, last) = joins.last().ok_or(USAGE)?;
    println!(
        r#"{{"build_ns":{ns},"layout":"{}","index_bytes":{}}}"#,
        last.layout().to_string().escape_default(),
        joins
            .iter()
            .map(|(_, built)| built.index_bytes())
            .sum::<usize>()
    );

    for line in std::io::stdin().lines() {
        let encoding = match line?.trim() {
            "view" => Encoding::View,
            "plain" => Encoding::Plain,
            "dictionary" => Encoding::Dictionary,
            "build" => {
                let start = Instant::now();
                let built = pool.install(build_all)?;
                let ns = start.elapsed().as_nanos();
                println!(r#"{{"ns":{ns},"dimensions":{}}}"#, built.len());
                continue;
            }
            other => return Err(format!("not a command: {other}").into()),
        };
        // The plan is timed too: the others plan each query.
        let start = Instant::now();
        let joined =
            pool.install(|| join(&facts, &joins, encoding).map_err(|error| error.to_string()))?;
        let ns = start.elapsed().as_nanos();
        println!("{}", answer(&joined, ns)?);
    }
    Ok(())
}
