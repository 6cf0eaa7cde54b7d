//! The store on disk: bulk loads, small commits, keyed state and the way back into a dimension. Every run checks its
//! answer. What the disk itself gives is measured beside it, in the same run.
#![expect(clippy::print_stdout, reason = "a report begins with the machine")]

use std::{
    collections::HashMap,
    fs::File,
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arrow_array::RecordBatch;
use arrow_ipc::writer::FileWriter;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use darner_benches::{BATCH_ROWS, Keys, Random, dimension, machine};
use darner_engine::{
    Control, LoadMode, LoadOptions, OnDuplicate, SourceOptions, load_dimension, load_table,
};
use darner_store::{Durability, Store, StoreOptions, TableSpec};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LOAD_ROWS: usize = 10_000_000;
const TABLE_ROWS: usize = 1_000_000;
const COMMIT_ROWS: usize = 1_000;
/// What such a commit writes: its page, and the page's description.
const COMMIT_BYTES: usize = 48 << 10;
const NUM_THREADS: u64 = 8;
const STATE_ENTRIES: u64 = 100_000;
const STATE_KEYS_DRAWN: usize = 1 << 20;
const VALUE: [u8; 100] = [7; 100];
/// About what a put is in the log, and how much of that comes before a checkpoint.
const PUT_BYTES: usize = 256;
const PUT_FILE_BYTES: u64 = 64 << 20;

fn load(store: &Store, rows: &RecordBatch) {
    let mut transaction = store.begin().expect("a writer");
    let spec = TableSpec::new(&rows.schema(), &["id"]).expect("valid");
    transaction.create_table("d", spec).expect("new");
    transaction.declare_distinct("d").expect("exists");
    transaction.upsert("d", rows).expect("fits");
    transaction.commit().expect("durable");
}

fn load_file(store: &Store, path: &Path) {
    let control = Control::default();
    let options = LoadOptions {
        key: Some(vec!["id".to_owned()]),
        mode: LoadMode::Upsert,
        on_duplicate: OnDuplicate::Error,
        watermark: None,
    };
    let mut source = darner_engine::open(path, &SourceOptions::default()).expect("opens");
    let report = load_table(store, "d", &mut *source, &options, &control).expect("loads");
    assert_eq!(report.num_rows, LOAD_ROWS as u64);
}

fn open(dir: &Path) -> Store {
    Store::open(dir, StoreOptions::default()).expect("opens")
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn bulk_load(criterion: &mut Criterion) {
    println!("machine: {}", machine());
    let dir = temporary();
    let file = dir.path().join("rows.arrow");
    {
        let rows = dimension(Keys::Dense, LOAD_ROWS);
        let output = File::create(&file).expect("makes");
        let mut writer = FileWriter::try_new(output, &rows.schema()).expect("begins");
        for start in (0..LOAD_ROWS).step_by(BATCH_ROWS) {
            let batch = rows.slice(start, BATCH_ROWS.min(LOAD_ROWS - start));
            writer.write(&batch).expect("writes");
        }
        writer.finish().expect("writes");
    }
    let num_bytes = std::fs::metadata(&file).expect("written").len();
    println!(
        "load: {LOAD_ROWS} rows, {num_bytes} bytes of IPC, page cache warm, durable at the end"
    );
    let mut group = criterion.benchmark_group("store");
    group.sample_size(10);
    group.throughput(Throughput::Elements(LOAD_ROWS as u64));
    group.bench_function("load 10M rows from IPC", |bencher| {
        bencher.iter_batched(
            temporary,
            |dir| {
                let store = open(dir.path());
                load_file(&store, &file);
                drop(store);
                dir
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("the same bytes, written and synced", |bencher| {
        let bytes = std::fs::read(&file).expect("reads");
        bencher.iter_batched(
            temporary,
            |dir| {
                let mut copy = File::create(dir.path().join("copy")).expect("makes");
                copy.write_all(&bytes).expect("writes");
                copy.sync_all().expect("syncs");
                dir
            },
            BatchSize::PerIteration,
        );
    });
    let stored = dir.path().join("store");
    {
        let store = open(&stored);
        load_file(&store, &file);
        store
            .state("offsets")
            .expect("valid")
            .put(b"a", b"1")
            .expect("durable");
        store.checkpoint().expect("durable");
    }
    group.bench_function("10M rows into a dimension", |bencher| {
        bencher.iter(|| {
            let store = Store::open_read_only(&stored).expect("opens");
            let built = load_dimension(&store.table("d").expect("loaded"), None).expect("reads");
            assert_eq!(built.num_rows(), LOAD_ROWS);
            built
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("open a store of 10M rows to a read of state", |bencher| {
        bencher.iter(|| {
            let store = open(&stored);
            let found = store
                .state("offsets")
                .expect("valid")
                .get(b"a")
                .expect("reads");
            assert_eq!(found.as_deref(), Some(&b"1"[..]));
        });
    });
    group.finish();
}

/// Upserts of random keys: the newest rows of a table come in no order.
fn random_rows(random: &mut Random) -> RecordBatch {
    let rows = dimension(Keys::Dense, COMMIT_ROWS);
    let keys: arrow_array::Int64Array = (0..COMMIT_ROWS)
        .map(|_| i64::try_from(random.below(TABLE_ROWS as u64)).unwrap_or(0))
        .collect();
    let mut columns = rows.columns().to_vec();
    columns[0] = Arc::new(keys);
    RecordBatch::try_new(rows.schema(), columns).expect("the same columns")
}

fn upsert(store: &Store, rows: &RecordBatch) {
    let mut transaction = store.begin().expect("a writer");
    transaction.upsert("d", rows).expect("fits");
    transaction.commit().expect("durable");
}

/// Upserts and what the disk gives, by turns: the disk of a shared machine is not the same from one minute to the next.
fn upserts_beside_the_disk() {
    const NUM_ROUNDS: usize = 7;
    const ROUND_COMMITS: u32 = 5_000;
    let dir = temporary();
    let store = open(&dir.path().join("store"));
    load(&store, &dimension(Keys::Dense, TABLE_ROWS));
    let mut random = Random::new(1);
    let batches: Vec<RecordBatch> = (0..64).map(|_| random_rows(&mut random)).collect();
    let bytes = vec![7_u8; COMMIT_BYTES];
    let mut ratios: Vec<(f64, Duration, Duration)> = (0..NUM_ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for (_, batch) in (0..ROUND_COMMITS).zip(batches.iter().cycle()) {
                upsert(&store, batch);
            }
            let ours = start.elapsed() / ROUND_COMMITS;
            // The store's thread may be at work still, and the disk is to be alone.
            std::thread::sleep(Duration::from_secs(1));
            let mut file = File::create(dir.path().join("plain")).expect("makes");
            let start = Instant::now();
            for _ in 0..ROUND_COMMITS {
                file.write_all(&bytes).expect("writes");
                file.sync_data().expect("syncs");
            }
            let plain = start.elapsed() / ROUND_COMMITS;
            (plain.as_secs_f64() / ours.as_secs_f64(), ours, plain)
        })
        .collect();
    assert_eq!(
        store.table("d").expect("loaded").num_rows().expect("reads"),
        TABLE_ROWS as u64
    );
    ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (ratio, ours, plain) in &ratios {
        println!(
            "upserts: {ratio:.2} of the disk: {ours:?} a commit of 1,000, {plain:?} for 48 KiB appended and fsynced"
        );
    }
    println!(
        "upserts: median {:.2} of the disk",
        ratios[NUM_ROUNDS / 2].0
    );
}

fn commits(criterion: &mut Criterion) {
    let dir = temporary();
    let store = open(dir.path());
    load(&store, &dimension(Keys::Dense, TABLE_ROWS));
    let mut random = Random::new(1);
    let batches: Vec<RecordBatch> = (0..64).map(|_| random_rows(&mut random)).collect();
    let mut group = criterion.benchmark_group("commits");
    group.sample_size(10);
    group.measurement_time(Duration::from_secs(8));
    group.throughput(Throughput::Elements(COMMIT_ROWS as u64));
    let version = store.version().number;
    let num_commits = AtomicU64::new(0);
    let commit = || {
        let number = num_commits.fetch_add(1, Ordering::Relaxed);
        let at = usize::try_from(number % 64).unwrap_or(0);
        upsert(&store, &batches[at]);
    };
    group.bench_function("1,000 upserts into 1M rows, fsync", |bencher| {
        bencher.iter(commit);
    });
    let bytes = vec![7_u8; COMMIT_BYTES];
    group.bench_function("48 KiB appended and fsynced", |bencher| {
        let mut file = File::create(dir.path().join("plain")).expect("makes");
        bencher.iter(|| {
            file.write_all(&bytes).expect("writes");
            file.sync_data().expect("syncs");
        });
    });
    assert_eq!(
        store.version().number,
        version + num_commits.load(Ordering::Relaxed)
    );
    group.throughput(Throughput::Elements(1));
    let state = store.state("counts").expect("valid");
    group.bench_function("1 put, fsync, 1 thread", |bencher| {
        bencher.iter(|| state.put(b"key", &VALUE).expect("durable"));
    });
    group.bench_function("1 put, fsync, 8 threads", |bencher| {
        bencher.iter_custom(|num_iterations| {
            let start = Instant::now();
            std::thread::scope(|scope| {
                for thread in 0..NUM_THREADS {
                    let state = &state;
                    scope.spawn(move || {
                        for _ in 0..num_iterations.div_ceil(NUM_THREADS) {
                            state.put(&thread.to_be_bytes(), &VALUE).expect("durable");
                        }
                    });
                }
            });
            start.elapsed()
        });
    });
    group.finish();
}

fn upserts(_: &mut Criterion) {
    // Criterion runs every function, wanted or not, so the wish is looked for here.
    if std::env::args().any(|argument| argument == "beside the disk") {
        upserts_beside_the_disk();
    }
}

fn keyed_state(criterion: &mut Criterion) {
    let dir = temporary();
    let options = StoreOptions {
        durability: Durability::Buffered,
        ..StoreOptions::default()
    };
    let store = Store::open(dir.path(), options).expect("opens");
    let state = store.state("users").expect("valid");
    let key = |number: u64| -> [u8; 13] {
        let text = format!("user/{number:08}").into_bytes();
        text.try_into().expect("eight digits")
    };
    let keys: Vec<[u8; 13]> = (0..STATE_ENTRIES).map(key).collect();
    for keys in keys.chunks(1000) {
        let entries: Vec<_> = keys.iter().map(|key| (key, VALUE)).collect();
        state.put_many(&entries).expect("fits");
    }
    assert_eq!(state.len().expect("reads"), STATE_ENTRIES);
    let mut group = criterion.benchmark_group("state");
    // Drawn beforehand and used one after the other: a program has its key at hand, and to look for one all over memory
    // would be measured with the store.
    let mut random = Random::new(2);
    let drawn: Vec<[u8; 13]> = (0..STATE_KEYS_DRAWN)
        .map(|_| key(random.below(STATE_ENTRIES)))
        .collect();
    let mut drawn = drawn.iter().cycle();
    let mut next = move || drawn.next().expect("endless");
    group.throughput(Throughput::Elements(1));
    group.bench_function("get", |bencher| {
        bencher.iter(|| {
            let found = state.get(next()).expect("reads");
            assert_eq!(found.map(|value| value.len()), Some(VALUE.len()));
        });
    });
    // What the machine gives without a store: its caches are often shared, and its system calls seldom free.
    let map: HashMap<[u8; 13], Arc<[u8]>> =
        keys.iter().map(|key| (*key, VALUE[..].into())).collect();
    group.bench_function("get from a HashMap of shared values", |bencher| {
        bencher.iter(|| {
            let found = map.get(next()).map(Arc::clone);
            assert_eq!(found.map(|value| value.len()), Some(VALUE.len()));
        });
    });
    group.bench_function("put, buffered", |bencher| {
        bencher.iter(|| state.put(next(), &VALUE).expect("fits"));
    });
    let file = File::create(dir.path().join("log of puts")).expect("a place");
    let mut end = 0;
    group.bench_function("256 bytes written to a file", |bencher| {
        bencher.iter(|| {
            file.write_all_at(&[7; PUT_BYTES], end).expect("room");
            end = (end + PUT_BYTES as u64) % PUT_FILE_BYTES;
        });
    });
    group.throughput(Throughput::Elements(100));
    group.bench_function("100 puts in one commit, buffered", |bencher| {
        bencher.iter(|| {
            let entries: [(&[u8], &[u8]); 100] = std::array::from_fn(|_| (&next()[..], &VALUE[..]));
            state.put_many(&entries).expect("fits")
        });
    });
    assert_eq!(state.len().expect("reads"), STATE_ENTRIES);
    group.finish();
}

criterion_group!(benches, bulk_load, commits, upserts, keyed_state);
criterion_main!(benches);
