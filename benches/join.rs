//! What the memory gives, and the join in memory: build and probe, side by side for each layout and encoding. Every run checks its answer.
#![expect(clippy::print_stdout, reason = "a report begins with the machine")]

use std::{hint::black_box, sync::Arc};

use arrow_array::RecordBatch;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use darner_benches::{Random, dimension, facts, machine};
use darner_engine::{Collect, Dimension, DimensionBuilder, Encoding, JoinSpec, Scratch, StarJoin};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FACT_ROWS: usize = 1 << 20;

fn build(rows: &RecordBatch) -> Dimension {
    let mut builder = DimensionBuilder::new("d", rows.schema(), &["id".to_owned()]).expect("valid");
    builder.upsert(rows.clone()).expect("rows of the schema");
    builder.finish().expect("fits")
}

fn build_index(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build");
    for (name, num_rows, stride) in [("dense 1M", 1_000_000, 1), ("sparse 1M", 1_000_000, 1_000)] {
        let rows = dimension(num_rows, stride);
        group.throughput(Throughput::Elements(num_rows as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let built = build(black_box(&rows));
                assert_eq!(built.num_rows(), num_rows);
                built
            });
        });
    }
    group.finish();
}

fn join(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("join");
    group.throughput(Throughput::Elements(FACT_ROWS as u64));
    for (layout, num_rows, stride) in [
        ("dense 1K", 1_000, 1),
        ("dense 1M", 1_000_000, 1),
        ("sparse 1M", 1_000_000, 1_000),
    ] {
        let built = Arc::new(build(&dimension(num_rows, stride)));
        let facts = facts(FACT_ROWS, num_rows as u64, stride, 42);
        for encoding in [Encoding::Plain, Encoding::View, Encoding::Dictionary] {
            let spec = JoinSpec::parse("d on key = id").expect("valid");
            let joins = vec![(spec, Arc::clone(&built))];
            let join = StarJoin::new(&facts[0].schema(), None, joins, encoding)
                .expect("columns exist")
                .with_collect(Collect {
                    missing_keys: false,
                    missed_rows: false,
                });
            let id = BenchmarkId::new(format!("{encoding:?}"), layout);
            group.bench_with_input(id, &facts, |bencher, facts| {
                let mut scratch = Scratch::default();
                bencher.iter(|| {
                    let mut num_matched = 0;
                    for batch in facts {
                        let joined = join.join(black_box(batch), &mut scratch).expect("joins");
                        num_matched += joined.counters[0].num_matched;
                        black_box(joined);
                    }
                    assert_eq!(num_matched, FACT_ROWS as u64);
                });
            });
        }
    }
    group.finish();
}

/// What the memory gives: no join that reads a dimension in the order of the facts can be faster than this.
fn memory(criterion: &mut Criterion) {
    const LINE_BYTES: usize = 64;
    println!("machine: {}", machine());
    let mut group = criterion.benchmark_group("memory");
    let mut random = Random::new(7);
    for mib in [1, 4, 32, 64, 400] {
        let bytes = vec![1_u8; mib << 20];
        let num_lines = bytes.len() / LINE_BYTES;
        let places: Vec<usize> = (0..FACT_ROWS)
            .map(|_| usize::try_from(random.below(num_lines as u64)).unwrap_or(0) * LINE_BYTES)
            .collect();
        group.throughput(Throughput::Elements(FACT_ROWS as u64));
        group.bench_function(format!("random loads from {mib} MiB"), |bencher| {
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

criterion_group!(benches, memory, build_index, join);
criterion_main!(benches);
