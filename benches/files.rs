//! Files: how fast facts are read from Arrow IPC and Parquet, and enriched from file to file. Every run checks its answer.
//!
//! The page cache is warm, and each run opens its files anew, so that it touches their pages for the first time. What a
//! run writes is synced to disk, as the command line does.
#![expect(clippy::print_stdout, reason = "a report begins with the machine")]

use std::{
    cell::LazyCell,
    fs::File,
    hint::black_box,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use darner_benches::{
    BATCH_ROWS, Case, Keys, Random, build, dimension, facts, load, machine, sum_bits,
};
use darner_engine::{
    Compression, Control, Encoding, Enrichment, JoinSpec, SinkOptions, Sinks, SourceOptions,
    StarJoin, create, open_all,
};
use rayon::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The headline figure: rows of two int64 and a float64, 24 bytes each.
const LOAD_ROWS: usize = 10_000_000;
const ROW_BYTES: usize = 24;
const FACT_ROWS: usize = 4_000_000;
const SEED: u64 = 42;

/// Names of the files, and how they are written.
fn forms() -> [(&'static str, Option<Compression>); 4] {
    [
        ("arrow", None),
        ("lz4.arrow", Some(Compression::Lz4)),
        ("zstd.arrow", Some(Compression::Zstd)),
        ("parquet", None),
    ]
}

fn write(path: &Path, batches: &[RecordBatch], compression: Option<Compression>) {
    let mut options = SinkOptions::default();
    if compression.is_some() {
        options.compression = compression;
    }
    let mut sink = create(path, &batches[0].schema(), &options).expect("a new file");
    for batch in batches {
        sink.write(batch).expect("room");
    }
    sink.finish().expect("room");
}

fn load_rows() -> (Vec<RecordBatch>, u64) {
    let mut random = Random::new(SEED);
    let mut all = 0;
    let batches: Vec<RecordBatch> = (0..LOAD_ROWS)
        .step_by(BATCH_ROWS)
        .map(|start| {
            let num_rows = BATCH_ROWS.min(LOAD_ROWS - start);
            let mut keys = Vec::with_capacity(num_rows);
            keys.resize_with(num_rows, || {
                i64::try_from(random.below(1 << 40)).unwrap_or(0)
            });
            let keys = Int64Array::from(keys);
            let quantities = (0..num_rows).map(|_| i64::try_from(random.below(100)).unwrap_or(0));
            let quantities: Int64Array = quantities.collect();
            let amounts = Float64Array::from_iter_values((0..num_rows).map(|_| random.share()));
            let columns: [(&str, ArrayRef); 3] = [
                ("key", Arc::new(keys)),
                ("quantity", Arc::new(quantities)),
                ("amount", Arc::new(amounts)),
            ];
            let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
            all = sum_bits(all, &batch);
            batch
        })
        .collect();
    (batches, all)
}

/// Adds up bytes, eight at a time.
fn sum_words(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().fold(0, |sum: u64, word| {
        sum.wrapping_add(u64::from_le_bytes(*word))
    })
}

fn loads(criterion: &mut Criterion) {
    println!("machine: {}", machine());
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut group = criterion.benchmark_group("load");
    group.throughput(Throughput::Elements(LOAD_ROWS as u64));
    let rows = LazyCell::new(load_rows);
    let path = |form: &str| dir.path().join(format!("load.{form}"));
    for (form, compression) in forms() {
        group.bench_function(format!("10M rows of 24 bytes, {form}"), |bencher| {
            let (batches, expected) = &*rows;
            let path = path(form);
            write(&path, batches, compression);
            bencher.iter(|| {
                let read = load(black_box(&path)).expect("a sound file");
                assert_eq!(read, (LOAD_ROWS, *expected));
            });
        });
    }
    // The measure of the first: its bytes without Arrow.
    group.bench_function("the same bytes, mapped and added up", |bencher| {
        let path = path("arrow");
        write(&path, &rows.0, None);
        let expected = sum_words(&std::fs::read(&path).expect("a file"));
        bencher.iter(|| {
            let file = File::open(black_box(&path)).expect("a file");
            #[expect(unsafe_code, reason = "the measure of a mapped file is a mapped file")]
            // SAFETY: nobody changes the file.
            let bytes = unsafe { memmap2::Mmap::map(&file) }.expect("maps");
            let sums = bytes.par_chunks(BATCH_ROWS * ROW_BYTES).map(sum_words);
            assert_eq!(sums.reduce(|| 0, u64::wrapping_add), expected);
        });
    });
    group.finish();
}

/// From file to file: 4M facts, 1M dimension rows that are there already.
fn files(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut group = criterion.benchmark_group("files");
    group.throughput(Throughput::Elements(FACT_ROWS as u64));
    let case = Case::new(Keys::Dense, 1_000_000);
    let data = LazyCell::new(|| {
        let rows = dimension(case.keys, case.num_rows);
        let built = build(case.keys, &rows).expect("fit rows");
        (Arc::new(built), facts(case, FACT_ROWS, SEED))
    });
    for (form, compression) in forms() {
        for encoding in [Encoding::Plain, Encoding::View, Encoding::Dictionary] {
            group.bench_function(format!("{form}, {encoding}"), |bencher| {
                let (built, facts) = &*data;
                let input: PathBuf = dir.path().join(format!("facts.{form}"));
                let output = dir.path().join(format!("enriched.{form}"));
                write(&input, &facts.batches, compression);
                let mut options = SinkOptions::default();
                if compression.is_some() {
                    options.compression = compression;
                }
                bencher.iter(|| {
                    let mut source =
                        open_all(vec![input.clone()], &SourceOptions::default()).expect("a file");
                    let spec = JoinSpec::parse(case.on()).expect("a join");
                    let joins = vec![(spec, Arc::clone(built))];
                    let join = StarJoin::new(source.schema(), None, joins, encoding);
                    let enrichment = Enrichment::new(join.expect("columns are there"));
                    let schema = enrichment.join().output_schema();
                    let mut sink = create(&output, schema, &options).expect("a new file");
                    let mut sinks = Sinks {
                        output: &mut *sink,
                        unmatched: None,
                    };
                    let control = Control::default();
                    let report = enrichment
                        .run(&mut *source, &mut sinks, &control)
                        .expect("joins");
                    assert_eq!(report.joins[0].counters.num_matched, facts.num_matched);
                    let written = sink.finish().expect("room");
                    assert_eq!(written.num_rows, FACT_ROWS as u64);
                });
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(3));
    targets = loads, files
}
criterion_main!(benches);
