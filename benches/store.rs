//! The store on disk: bulk loads, small commits and the way back into a dimension. Every run checks its answer.
#![expect(clippy::print_stdout, reason = "a report begins with the machine")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use darner_benches::{dimension, machine};
use darner_engine::load_dimension;
use darner_store::{Store, StoreOptions, TableSpec};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LOAD_ROWS: usize = 1_000_000;
const COMMIT_ROWS: usize = 1_000;

fn load(store: &Store, rows: &arrow_array::RecordBatch) {
    let mut transaction = store.begin().expect("a writer");
    let spec = TableSpec::new(&rows.schema(), &["id"]).expect("valid");
    transaction.create_table("d", spec).expect("new");
    transaction.declare_distinct("d").expect("exists");
    transaction.upsert("d", rows).expect("fits");
    transaction.commit().expect("durable");
}

fn open(dir: &std::path::Path) -> Store {
    Store::open(dir, StoreOptions::default()).expect("opens")
}

fn bulk_load(criterion: &mut Criterion) {
    println!("machine: {}", machine());
    let rows = dimension(LOAD_ROWS, 1);
    let mut group = criterion.benchmark_group("store");
    group.sample_size(10);
    group.throughput(Throughput::Elements(LOAD_ROWS as u64));
    group.bench_function("load 1M rows, durable", |bencher| {
        bencher.iter_batched(
            || tempfile::tempdir().expect("a directory"),
            |dir| {
                let store = open(dir.path());
                load(&store, &rows);
                let table = store.table("d").expect("loaded");
                assert_eq!(table.num_stored_rows(), LOAD_ROWS as u64);
                drop(store);
                dir
            },
            BatchSize::PerIteration,
        );
    });
    let dir = tempfile::tempdir().expect("a directory");
    load(&open(dir.path()), &rows);
    group.bench_function("1M rows into a dimension", |bencher| {
        bencher.iter(|| {
            let store = Store::open_read_only(dir.path()).expect("opens");
            let built = load_dimension(&store.table("d").expect("loaded"), None).expect("reads");
            assert_eq!(built.num_rows(), LOAD_ROWS);
            built
        });
    });
    group.finish();
}

fn commits(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    load(&store, &dimension(LOAD_ROWS, 1));
    let rows = dimension(COMMIT_ROWS, 7);
    let mut group = criterion.benchmark_group("store");
    group.throughput(Throughput::Elements(COMMIT_ROWS as u64));
    group.bench_function("commit 1,000 upserts, fsync", |bencher| {
        let mut version = store.version().number;
        bencher.iter(|| {
            let mut transaction = store.begin().expect("a writer");
            transaction.upsert("d", &rows).expect("fits");
            version += 1;
            assert_eq!(transaction.commit().expect("durable").number, version);
        });
    });
    group.finish();
}

criterion_group!(benches, bulk_load, commits);
criterion_main!(benches);
