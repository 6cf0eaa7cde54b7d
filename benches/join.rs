//! What the memory gives, and the join in memory, layout by layout and encoding by encoding: builds, probes, whole
//! enrichments, stars, streams of small batches, and lookups. Every run checks its answer.
//!
//! Names end with the number of threads where that is not one. Give a part of a name to run only what has it: data is
//! made when it is first used.
#![expect(clippy::print_stdout, reason = "a report begins with the machine")]

use std::{cell::LazyCell, hint::black_box, sync::Arc};

use arrow_array::{ArrayRef, RecordBatch, cast::AsArray, types::Int64Type};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use darner_benches::{
    BATCH_ROWS, Case, Facts, Keys, Random, Skew, build, dimension, facts, machine, sum,
};
use darner_engine::{Collect, Dimension, Encoding, JoinSpec, Matches, Scratch, StarJoin};
use rayon::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FACT_ROWS: usize = 1 << 20;
const SEED: u64 = 42;
const ENCODINGS: [Encoding; 3] = [Encoding::Plain, Encoding::View, Encoding::Dictionary];

/// Every kind of key at every size that it makes sense at, and the middle one with all that facts may ask of it.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for keys in [
        Keys::Dense,
        Keys::Unordered,
        Keys::Gaps,
        Keys::Sparse,
        Keys::Text,
        Keys::Pair,
        Keys::Dictionary,
    ] {
        cases.extend([1_000, 100_000, 1_000_000].map(|num_rows| Case::new(keys, num_rows)));
    }
    cases.extend([Keys::Dense, Keys::Sparse].map(|keys| Case::new(keys, 10_000_000)));
    for keys in [Keys::Dense, Keys::Sparse] {
        let case = Case::new(keys, 1_000_000);
        cases.extend([
            Case {
                match_percent: 90,
                ..case
            },
            Case {
                match_percent: 33,
                ..case
            },
            Case {
                null_percent: 10,
                ..case
            },
            Case {
                skew: Skew::Zipf,
                ..case
            },
        ]);
    }
    cases
}

/// Runs the same with one thread and with all.
fn with_threads(mut run: impl FnMut(usize, &str)) {
    run(1, "");
    let num_cores = std::thread::available_parallelism().map_or(1, usize::from);
    if num_cores > 1 {
        run(num_cores, &format!(", {num_cores} threads"));
    }
}

fn pool(num_threads: usize) -> rayon::ThreadPool {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(num_threads);
    pool.build().expect("threads")
}

fn builds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build");
    for case in cases() {
        // Facts have no part in it.
        if case.keys == Keys::Dictionary || case != Case::new(case.keys, case.num_rows) {
            continue;
        }
        let rows = LazyCell::new(|| dimension(case.keys, case.num_rows));
        group.throughput(Throughput::Elements(case.num_rows as u64));
        with_threads(|num_threads, suffix| {
            let pool = pool(num_threads);
            group.bench_function(format!("{case}{suffix}"), |bencher| {
                let rows = &*rows;
                bencher.iter_with_large_drop(|| {
                    let built = pool.install(|| build(case.keys, black_box(rows)));
                    let built = built.expect("fit rows");
                    assert_eq!(built.num_rows(), case.num_rows);
                    built
                });
            });
        });
    }
    group.finish();
}

fn probes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("probe");
    group.throughput(Throughput::Elements(FACT_ROWS as u64));
    for case in cases() {
        let data = LazyCell::new(|| {
            let built = built(case);
            let facts = facts(case, FACT_ROWS, SEED);
            let num_keys = built.key_fields().len();
            let keys = |batch: &RecordBatch| batch.columns()[..num_keys].to_vec();
            let keys: Vec<Vec<ArrayRef>> = facts.batches.iter().map(keys).collect();
            (built, keys, facts.num_matched)
        });
        let mut matches = Matches::default();
        group.bench_function(case.to_string(), |bencher| {
            let (built, keys, expected) = &*data;
            bencher.iter(|| {
                let mut num_matched = 0;
                for keys in keys {
                    built
                        .probe(black_box(keys), &mut matches)
                        .expect("keys that compare");
                    num_matched += matches.num_matched() as u64;
                }
                assert_eq!(num_matched, *expected);
            });
        });
    }
    group.finish();
}

/// A case's dimension.
fn built(case: Case) -> Arc<Dimension> {
    let rows = dimension(case.keys, case.num_rows);
    Arc::new(build(case.keys, &rows).expect("fit rows"))
}

/// A join that counts and adds three columns.
fn star(on: &[&str], built: &[Arc<Dimension>], facts: &Facts, encoding: Encoding) -> StarJoin {
    let joins = on.iter().zip(built).map(|(on, built)| {
        let spec = JoinSpec::parse(on).expect("a join");
        (spec, Arc::clone(built))
    });
    StarJoin::new(&facts.batches[0].schema(), None, joins.collect(), encoding)
        .expect("columns are there")
        .with_collect(Collect {
            missing_keys: false,
            missed_rows: false,
            times: false,
        })
}

/// Joins all facts, with the threads of the current pool, and drops what comes out.
fn join_all(join: &StarJoin, facts: &Facts) -> Vec<u64> {
    let count = |scratch: &mut Scratch, batch: &RecordBatch| {
        let joined = join.join(black_box(batch), scratch).expect("joins");
        let counted = joined.counters.iter().map(|counters| counters.num_matched);
        let counted: Vec<u64> = counted.collect();
        black_box(joined);
        counted
    };
    let add = |mut all: Vec<u64>, one: Vec<u64>| {
        all.iter_mut().zip(one).for_each(|(all, one)| *all += one);
        all
    };
    let nothing = || vec![0; join.joins().len()];
    let counted = facts.batches.par_iter().map_init(Scratch::default, count);
    counted.reduce(nothing, add)
}

/// Checks, once and outside of what is timed, that a join gives the right values.
fn check(join: &StarJoin, facts: &Facts) {
    let mut scratch = Scratch::default();
    let weights = facts.batches.iter().map(|batch| {
        let joined = join.join(batch, &mut scratch).expect("joins");
        sum(joined
            .batch
            .column_by_name("weight")
            .expect("a payload column"))
    });
    let (total, expected) = (weights.sum::<f64>(), facts.weight);
    assert!(
        (total - expected).abs() <= 1e-9 * expected,
        "got {total}, expected {expected}"
    );
}

fn joins(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("join");
    group.throughput(Throughput::Elements(FACT_ROWS as u64));
    for case in cases() {
        let data = LazyCell::new(|| ([built(case)], facts(case, FACT_ROWS, SEED)));
        for encoding in ENCODINGS {
            let join = LazyCell::new(|| {
                let (built, facts) = &*data;
                let join = star(&[case.on()], built, facts, encoding);
                check(&join, facts);
                join
            });
            with_threads(|num_threads, suffix| {
                let id = BenchmarkId::new(format!("{encoding}{suffix}"), case);
                group.bench_function(id, |bencher| {
                    let (join, (_, facts)) = (&*join, &*data);
                    let pool = pool(num_threads);
                    bencher.iter(|| {
                        let counted = pool.install(|| join_all(join, facts));
                        assert_eq!(counted, [facts.num_matched]);
                    });
                });
            });
        }
    }
    group.finish();
}

/// Five dimensions of 1 K to 1 M rows, in one pass.
fn stars(criterion: &mut Criterion) {
    const SIZES: [usize; 5] = [1_000, 10_000, 100_000, 300_000, 1_000_000];
    let mut group = criterion.benchmark_group("star");
    group.throughput(Throughput::Elements(FACT_ROWS as u64));
    let on: Vec<String> = (0..SIZES.len())
        .map(|at| format!("d as d{at} on key{at} = id"))
        .collect();
    let on: Vec<&str> = on.iter().map(String::as_str).collect();
    let data = LazyCell::new(|| {
        let cases = SIZES.map(|num_rows| Case::new(Keys::Dense, num_rows));
        let mut columns: Vec<Vec<(String, ArrayRef)>> = Vec::new();
        for (at, case) in cases.into_iter().enumerate() {
            let keys = facts(case, FACT_ROWS, SEED + at as u64).batches;
            columns.resize_with(keys.len(), Vec::new);
            for (columns, batch) in columns.iter_mut().zip(keys) {
                columns.push((format!("key{at}"), Arc::clone(batch.column(0))));
            }
        }
        let batches = columns
            .into_iter()
            .map(|columns| RecordBatch::try_from_iter(columns).expect("columns of one length"));
        let facts = Facts {
            batches: batches.collect(),
            num_matched: FACT_ROWS as u64,
            weight: 0.0,
        };
        (cases.map(built), facts)
    });
    for encoding in ENCODINGS {
        with_threads(|num_threads, suffix| {
            group.bench_function(format!("{encoding}{suffix}"), |bencher| {
                let (built, facts) = &*data;
                let join = star(&on, built, facts, encoding);
                let pool = pool(num_threads);
                bencher.iter(|| {
                    let counted = pool.install(|| join_all(&join, facts));
                    assert_eq!(counted, [facts.num_matched; SIZES.len()]);
                });
            });
        });
    }
    group.finish();
}

/// The same facts in batches of 64 K rows and of 1 K rows: what a batch costs beside its rows.
fn streams(criterion: &mut Criterion) {
    const SMALL_ROWS: usize = 1_000;
    const NUM_BATCHES: usize = 1_000;
    let mut group = criterion.benchmark_group("stream");
    group.throughput(Throughput::Elements((SMALL_ROWS * NUM_BATCHES) as u64));
    for num_rows in [1_000, 1_000_000] {
        let case = Case::new(Keys::Dense, num_rows);
        let data = LazyCell::new(|| {
            let large = facts(case, SMALL_ROWS * NUM_BATCHES, SEED);
            let mut small = Vec::new();
            for batch in &large.batches {
                for start in (0..batch.num_rows()).step_by(SMALL_ROWS) {
                    let len = SMALL_ROWS.min(batch.num_rows() - start);
                    small.push(batch.slice(start, len));
                }
            }
            ([built(case)], large, small)
        });
        for encoding in ENCODINGS {
            for is_small in [false, true] {
                let rows = if is_small { "1K" } else { "64K" };
                let id = format!("{encoding}, {case}, batches of {rows}");
                group.bench_function(id, |bencher| {
                    let (built, large, small) = &*data;
                    let batches = if is_small { small } else { &large.batches };
                    let join = star(&[case.on()], built, large, encoding);
                    let mut scratch = Scratch::default();
                    bencher.iter(|| {
                        let mut num_matched = 0;
                        for batch in batches {
                            let joined = join.join(black_box(batch), &mut scratch).expect("joins");
                            num_matched += joined.counters[0].num_matched;
                            black_box(joined);
                        }
                        assert_eq!(num_matched, large.num_matched);
                    });
                });
            }
        }
    }
    group.finish();
}

fn lookups(criterion: &mut Criterion) {
    const NUM_KEYS: usize = 1_000;
    let mut group = criterion.benchmark_group("lookup");
    group.throughput(Throughput::Elements(NUM_KEYS as u64));
    for keys in [Keys::Dense, Keys::Sparse] {
        let case = Case::new(keys, 1_000_000);
        let data = LazyCell::new(|| {
            let asked = facts(case, BATCH_ROWS, SEED).batches.remove(0);
            (built(case), asked)
        });
        let key = |row: usize| data.1.column(0).slice(row % BATCH_ROWS, 1);
        let mut next = 0;
        let mut following = move || {
            next += NUM_KEYS;
            next..next + NUM_KEYS
        };
        let number = |row: usize| {
            let keys = data.1.column(0).as_primitive::<Int64Type>();
            keys.value(row % BATCH_ROWS)
        };
        group.bench_function(format!("contains, {case}"), |bencher| {
            bencher.iter(|| {
                let asked = following();
                let found = asked.filter(|&row| data.0.contains(number(row)).expect("a key"));
                assert_eq!(found.count(), NUM_KEYS);
            });
        });
        group.bench_function(format!("contains, arrays, {case}"), |bencher| {
            bencher.iter(|| {
                for row in following() {
                    assert!(data.0.contains(&[key(row)]).expect("a key"));
                }
            });
        });
        group.bench_function(format!("get, {case}"), |bencher| {
            bencher.iter(|| {
                for row in following() {
                    let found = data.0.get(number(row)).expect("a key").expect("is there");
                    assert_eq!(found.num_rows(), 1);
                }
            });
        });
        group.bench_function(format!("get_many of 1000, {case}"), |bencher| {
            bencher.iter(|| {
                let start = following().start % (BATCH_ROWS - NUM_KEYS);
                let keys = data.1.column(0).slice(start, NUM_KEYS);
                let found = data.0.get_many(&[keys]).expect("keys");
                assert_eq!(found.is_found.true_count(), NUM_KEYS);
            });
        });
    }
    group.finish();
}

/// What the memory gives: no join that reads a dimension in the order of the facts can be faster than this.
fn memory(criterion: &mut Criterion) {
    const LINE_BYTES: usize = 64;
    println!("machine: {}", machine());
    let mut group = criterion.benchmark_group("memory");
    for mib in [1, 4, 32, 64, 400] {
        group.throughput(Throughput::Elements(FACT_ROWS as u64));
        let data = LazyCell::new(|| {
            let bytes = vec![1_u8; mib << 20];
            let num_lines = bytes.len() / LINE_BYTES;
            let mut random = Random::new(SEED);
            let mut place = || usize::try_from(random.below(num_lines as u64)).unwrap_or(0);
            let places = (0..FACT_ROWS).map(|_| place() * LINE_BYTES);
            let places: Vec<usize> = places.collect();
            (bytes, places)
        });
        group.bench_function(format!("random loads from {mib} MiB"), |bencher| {
            let (bytes, places) = &*data;
            bencher.iter(|| {
                let found: usize = places.iter().map(|&place| usize::from(bytes[place])).sum();
                assert_eq!(found, FACT_ROWS);
            });
        });
    }
    let words = vec![1_u64; 32 << 20];
    group.throughput(Throughput::Bytes(size_of_val(&words[..]) as u64));
    group.bench_function("read 256 MiB in order", |bencher| {
        bencher.iter(|| assert_eq!(words.iter().sum::<u64>(), words.len() as u64));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    // So many cases are for a look at all of them; give `--sample-size` and `--measurement-time` for a closer one.
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1));
    targets = memory, builds, probes, joins, stars, streams, lookups
}
criterion_main!(benches);
