//! What a caller may rely on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use arrow_array::{Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use darner_store::{
    AsOf, Clock, CommitKind, CompactionMode, Durability, ErrorKind, Store, StoreOptions, TableSpec,
};

pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
    ]))
}

pub(crate) fn spec() -> TableSpec {
    TableSpec::new(&schema(), &["id"]).unwrap()
}

fn rows(from: i64, to: i64) -> RecordBatch {
    let names: StringArray = (from..to).map(|i| Some(format!("name {i}"))).collect();
    RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(Int64Array::from_iter_values(from..to)),
            Arc::new(names),
        ],
    )
    .unwrap()
}

fn open(dir: &std::path::Path) -> Store {
    Store::open(dir, StoreOptions::default()).unwrap()
}

fn with_table(dir: &std::path::Path) -> Store {
    let store = open(dir);
    let mut transaction = store.begin().unwrap();
    transaction.create_table("names", spec()).unwrap();
    transaction.upsert("names", &rows(0, 100)).unwrap();
    transaction.commit().unwrap();
    store
}

#[test]
fn a_second_writer_is_refused_with_the_holders_process_id() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_table(dir.path());
    let error = Store::open(dir.path(), StoreOptions::default())
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(
        error
            .message()
            .contains(&format!("pid=`{}`", std::process::id())),
        "{error}"
    );
    drop(store);
    open(dir.path());
}

#[test]
fn a_scan_finds_the_same_rows_whatever_pages_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    with_table(dir.path()).close().unwrap();
    for page_cache_bytes in [0, 1, 4096, 1 << 30] {
        let options = StoreOptions {
            page_cache_bytes,
            ..StoreOptions::default()
        };
        for store in [
            Store::open(dir.path(), options.clone()).unwrap(),
            Store::open_read_only_with(dir.path(), options).unwrap(),
        ] {
            let table = store.table("names").unwrap();
            let pages: Vec<usize> = (0..table.pages().len()).collect();
            let scan = table.scan(None, None).unwrap();
            // The second time what was kept.
            for _ in 0..2 {
                assert_eq!(scan.read(&pages).unwrap(), [rows(0, 100)]);
            }
        }
    }
}

#[test]
fn a_reader_sees_its_commit_while_a_writer_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    drop(with_table(dir.path()));
    // A compaction holds a checkpoint as a reader does.
    let options = StoreOptions {
        compaction: CompactionMode::Never,
        ..StoreOptions::default()
    };
    let store = Store::open(dir.path(), options).unwrap();
    let reader = Store::open_read_only(dir.path()).unwrap();
    let table = reader.table("names").unwrap();
    for round in 0..5 {
        let mut transaction = store.begin().unwrap();
        transaction.replace("names", spec()).unwrap();
        transaction.upsert("names", &rows(0, 1000 + round)).unwrap();
        transaction.commit().unwrap();
        store.checkpoint().unwrap();
        assert_eq!(table.num_rows().unwrap(), 100);
    }
    assert_eq!(
        Store::open_read_only(dir.path())
            .unwrap()
            .table("names")
            .unwrap()
            .num_rows()
            .unwrap(),
        1004
    );
    drop(reader);
    drop(table);
    store.checkpoint().unwrap();
    let checkpoints = std::fs::read_dir(dir.path().join("checkpoint"))
        .unwrap()
        .count();
    assert_eq!(
        checkpoints, 1,
        "old checkpoints go once no reader holds them"
    );
}

#[test]
fn reading_leaves_every_byte_and_time_as_it_was() {
    fn listing(
        dir: &std::path::Path,
        out: &mut Vec<(std::path::PathBuf, u64, std::time::SystemTime)>,
    ) {
        let meta = dir.metadata().unwrap();
        out.push((dir.to_owned(), meta.len(), meta.modified().unwrap()));
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                listing(&path, out);
            } else {
                let meta = path.metadata().unwrap();
                out.push((path, meta.len(), meta.modified().unwrap()));
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let store = with_table(dir.path());
    store.checkpoint().unwrap();
    drop(store);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    listing(dir.path(), &mut before);
    let reader = Store::open_read_only(dir.path()).unwrap();
    assert_eq!(reader.table("names").unwrap().num_rows().unwrap(), 100);
    listing(dir.path(), &mut after);
    assert_eq!(before, after);
}

#[test]
fn commits_of_many_threads_are_all_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_table(dir.path());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let store = &store;
            scope.spawn(move || {
                for i in 0..20 {
                    let first = 1000 + thread * 1000 + i * 10;
                    let mut transaction = store.begin().unwrap();
                    transaction
                        .upsert("names", &rows(first, first + 10))
                        .unwrap();
                    transaction.commit().unwrap();
                }
            });
        }
    });
    assert_eq!(store.version().number, 161);
    drop(store);
    assert_eq!(
        open(dir.path()).table("names").unwrap().num_rows().unwrap(),
        100 + 8 * 20 * 10
    );
}

#[test]
fn a_replaced_table_conflicts_with_a_write_that_began_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_table(dir.path());
    let mut late = store.begin().unwrap();
    late.upsert("names", &rows(5, 6)).unwrap();
    let mut replace = store.begin().unwrap();
    replace.replace("names", spec()).unwrap();
    replace.commit().unwrap();
    assert_eq!(late.commit().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(store.table("names").unwrap().num_rows().unwrap(), 0);
}

#[test]
fn wrong_requests_say_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_table(dir.path());
    let check = |result: darner_store::Result<()>, kind: ErrorKind, words: &[&str]| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        for word in words {
            assert!(error.message().contains(word), "{error} lacks {word}");
        }
    };
    let mut transaction = store.begin().unwrap();
    check(
        transaction.upsert("nmes", &rows(0, 1)),
        ErrorKind::NotFound,
        &["nmes", "names"],
    );
    check(
        transaction.create_table("names", spec()),
        ErrorKind::Conflict,
        &["names"],
    );
    check(
        transaction.create_table("", spec()),
        ErrorKind::Invalid,
        &["name"],
    );
    check(
        transaction.create_table("a\nb", spec()),
        ErrorKind::Invalid,
        &["control"],
    );
    let nulls = RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(Int64Array::from(vec![Some(1), None])),
            Arc::new(StringArray::from(vec!["a", "b"])),
        ],
    )
    .unwrap();
    check(
        transaction.upsert("names", &nulls),
        ErrorKind::Invalid,
        &["names", "`id`", "row=`1`"],
    );
    let keys = rows(0, 1).project(&[1]).unwrap();
    check(
        transaction.delete("names", &keys),
        ErrorKind::Invalid,
        &["got=`name`", "expected=`id`"],
    );
    let float = Schema::new(vec![Field::new("x", DataType::Float64, true)]);
    check(
        TableSpec::new(&float, &["x"]).map(|_| ()),
        ErrorKind::Invalid,
        &["`x`", "Float64", "cast"],
    );
    check(
        TableSpec::new(&schema(), &["idd"]).map(|_| ()),
        ErrorKind::Invalid,
        &["idd", "id, name"],
    );
    check(
        Store::open_read_only(dir.path().join("none")).map(|_| ()),
        ErrorKind::NotFound,
        &["none"],
    );
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("thesis.txt"), "do not touch").unwrap();
    check(
        Store::open(other.path(), StoreOptions::default()).map(|_| ()),
        ErrorKind::Invalid,
        &["not a store", "thesis.txt"],
    );
}

#[test]
fn a_directory_that_only_looks_like_a_store_is_left_alone() {
    for name in ["checkpoint", "live", "log"] {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join(name).join("step-1000");
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::write(inside.join("weights"), "a week of work").unwrap();
        let error = Store::open(dir.path(), StoreOptions::default())
            .map(|_| ())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(inside.join("weights").exists());
    }
    // And strangers inside a real one stay too.
    let dir = tempfile::tempdir().unwrap();
    with_table(dir.path());
    for name in ["checkpoint", "live"] {
        std::fs::write(dir.path().join(name).join("notes"), "mine").unwrap();
    }
    open(dir.path()).checkpoint().unwrap();
    for name in ["checkpoint", "live"] {
        assert!(dir.path().join(name).join("notes").exists());
    }
}

#[test]
fn a_delete_before_the_promise_of_distinct_keys_counts() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut transaction = store.begin().unwrap();
    transaction.create_table("names", spec()).unwrap();
    transaction.upsert("names", &rows(0, 10)).unwrap();
    let keys = rows(3, 5).project(&[0]).unwrap();
    let keys =
        RecordBatch::try_new(Arc::clone(spec().key_schema()), keys.columns().to_vec()).unwrap();
    transaction.delete("names", &keys).unwrap();
    transaction.declare_distinct("names").unwrap();
    transaction.commit().unwrap();
    assert_eq!(store.table("names").unwrap().num_rows().unwrap(), 8);
}

#[test]
fn a_store_works_under_a_path_with_odd_characters() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a b%20#?ü'\"").join("c:d");
    let store = with_table(&path);
    store.checkpoint().unwrap();
    drop(store);
    assert_eq!(open(&path).table("names").unwrap().num_rows().unwrap(), 100);
    assert_eq!(
        Store::open_read_only(&path)
            .unwrap()
            .table("names")
            .unwrap()
            .num_rows()
            .unwrap(),
        100
    );
}

#[test]
fn files_are_readable_by_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    fn check(path: &std::path::Path) {
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
        if path.is_dir() {
            for entry in std::fs::read_dir(path).unwrap() {
                check(&entry.unwrap().path());
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = with_table(&path);
    store.checkpoint().unwrap();
    drop(store);
    check(&path);
}

#[test]
fn a_flipped_bit_is_an_error_that_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_table(dir.path());
    store.checkpoint().unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.upsert("names", &rows(50, 150)).unwrap();
    transaction.commit().unwrap();
    drop(store);
    let mut files = Vec::new();
    let mut dirs = vec![dir.path().to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                files.push(path);
            }
        }
    }
    let mut num_errors = 0;
    for file in files.iter().filter(|file| !file.ends_with("LOCK")) {
        let whole = std::fs::read(file).unwrap();
        let used = whole
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        for at in (0..used).step_by(used / 40 + 1) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(file, &bytes).unwrap();
            let found = Store::open_read_only(dir.path())
                .and_then(|store| store.table("names")?.num_rows());
            match found {
                Ok(num_rows) => assert_eq!(num_rows, 150, "{} at {at}", file.display()),
                Err(error) => {
                    num_errors += 1;
                    let text = format!("{error:?}");
                    assert_eq!(
                        error.kind(),
                        ErrorKind::Data,
                        "{} at {at}: {text}",
                        file.display()
                    );
                    assert!(text.contains(dir.path().to_str().unwrap()), "{text}");
                }
            }
        }
        std::fs::write(file, &whole).unwrap();
    }
    assert!(num_errors > 100);
}

/// The space was given back by the next open only: the tables that the compaction had before it held the checkpoint
/// that it made an old one. And what both checkpoints share was counted twice.
#[test]
fn a_compaction_gives_space_back_at_once() {
    let dir = tempfile::tempdir().unwrap();
    drop(with_table(dir.path()));
    let options = StoreOptions {
        compaction: CompactionMode::Never,
        ..StoreOptions::default()
    };
    let store = Store::open(dir.path(), options.clone()).unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.create_table("others", spec()).unwrap();
    transaction.upsert("others", &rows(0, 10_000)).unwrap();
    transaction.commit().unwrap();
    for _ in 0..20 {
        let mut transaction = store.begin().unwrap();
        transaction.upsert("names", &rows(0, 10_000)).unwrap();
        transaction.commit().unwrap();
    }
    store.checkpoint().unwrap();
    // As for a program that has just begun.
    drop(store);
    let store = Store::open(dir.path(), options).unwrap();
    let num_bytes = store.disk_bytes().unwrap();
    store.compact_table("names").unwrap();
    assert!(store.disk_bytes().unwrap() < num_bytes / 5);
    store.compact().unwrap();
    let checkpoints = std::fs::read_dir(dir.path().join("checkpoint")).unwrap();
    assert_eq!(checkpoints.count(), 1);
}

/// An earlier incarnation was kept, and the next one had been folded before it was replaced: the commits between were
/// said to be readable, and a refusal to read one of them named an older one as the oldest.
#[test]
fn commits_that_were_folded_between_kept_ones_are_not_said_to_be_readable() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_table(dir.path());
    let change = |replaces: bool, num_rows: i64| {
        let mut transaction = store.begin().unwrap();
        if replaces {
            transaction.replace("names", spec()).unwrap();
        }
        transaction.upsert("names", &rows(0, num_rows)).unwrap();
        transaction.commit().unwrap().number
    };
    let first = store.version().number;
    let begun = change(true, 1000);
    change(false, 1000);
    let folded = change(false, 1000);
    store.compact_table("names").unwrap();
    // So large that the small ones before it stay.
    let last = change(true, 50_000);
    store.checkpoint().unwrap();
    let table = store.table("names").unwrap();
    let readable: Vec<u64> = table
        .history()
        .unwrap()
        .iter()
        .filter(|commit| commit.is_readable)
        .map(|commit| commit.version.number)
        .collect();
    assert_eq!(readable, [first, folded, last]);
    for version in first..=last {
        let found = store.table_at("names", AsOf::Version(version));
        assert_eq!(
            found.is_ok(),
            readable.contains(&version),
            "version {version}"
        );
    }
    let error = store
        .table_at("names", AsOf::Version(begun))
        .map(|_| ())
        .unwrap_err();
    let next = format!("next_kept=`{folded}`");
    assert!(error.message().contains(&next), "{error}");
}

/// A thread of a rayon pool that waited for parallel work of a checkpoint took another task of its pool meanwhile, and
/// that one waited for the commit that the checkpoint was a part of.
#[test]
fn committing_from_every_thread_of_a_pool_comes_to_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        checkpoint_log_bytes: 200_000,
        log_segment_bytes: 4096,
        page_bytes: 1000,
        durability: Durability::Buffered,
        ..StoreOptions::default()
    };
    let store = Store::open(dir.path(), options).unwrap();
    let state = store.state("counts").unwrap();
    let put = |number: u32| {
        let entries: Vec<_> = (0..50_u32)
            .map(|i| ((number * 50 + i).to_be_bytes(), [7; 100]))
            .collect();
        state.put_many(&entries).unwrap();
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(2)
        .build()
        .unwrap();
    pool.install(|| {
        rayon::scope(|scope| {
            for number in 0..200 {
                scope.spawn(move |_| put(number));
            }
        });
    });
    assert_eq!(state.len().unwrap(), 200 * 50);
}

/// All stores of a process share the threads that compact. When these took the stores' locks, each could wait for a lock
/// whose holder waited for them.
#[test]
fn stores_that_compact_at_the_same_time_come_to_an_end() {
    let work = |seed: u64| {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            durability: Durability::Buffered,
            checkpoint_log_bytes: 0,
            log_segment_bytes: 4096,
            page_bytes: 400,
            compact_bytes: 700,
            ..StoreOptions::default()
        };
        let store = Store::open(dir.path(), options).unwrap();
        let mut transaction = store.begin().unwrap();
        transaction.create_table("names", spec()).unwrap();
        transaction.commit().unwrap();
        for round in 0..60 {
            let mut transaction = store.begin().unwrap();
            if (round as u64 + seed).is_multiple_of(7) {
                // What was there before is counted when it goes.
                transaction.replace("names", spec()).unwrap();
            }
            transaction.upsert("names", &rows(round, 200)).unwrap();
            transaction.commit().unwrap();
            if (round as u64 + seed).is_multiple_of(5) {
                store.compact().unwrap();
            }
        }
    };
    let (done, is_done) = std::sync::mpsc::channel();
    for seed in 0..6 {
        let done = done.clone();
        std::thread::spawn(move || {
            work(seed);
            // Nobody listens any more if another has failed.
            let _ = done.send(());
        });
    }
    drop(done);
    for _ in 0..6 {
        // Far more than it takes; a lock that is never let go takes longer.
        is_done.recv_timeout(Duration::from_mins(5)).unwrap();
    }
}

/// Whether an entry had ended was asked of the commit's time, which does not go back with the clock: after the clock was
/// set back, an entry was gone as soon as it was put.
#[test]
fn an_entry_lives_its_time_after_the_clock_was_set_back() {
    let dir = tempfile::tempdir().unwrap();
    let time = Arc::new(AtomicI64::new(3_600_000_000));
    let clock = Arc::clone(&time);
    let options = StoreOptions {
        clock: Clock::new(move || clock.load(Ordering::Relaxed)),
        ..StoreOptions::default()
    };
    let store = Store::open(dir.path(), options.clone()).unwrap();
    let state = store.state("sessions").unwrap();
    state.put(b"a", b"1").unwrap();
    time.store(1_000_000, Ordering::Relaxed);
    state.put_for(b"b", b"2", Duration::from_mins(1)).unwrap();
    state.put(b"c", b"3").unwrap();
    assert!(state.exists(b"b").unwrap());
    drop(store);
    let store = Store::open(dir.path(), options).unwrap();
    let state = store.state("sessions").unwrap();
    assert!(state.exists(b"b").unwrap());
    time.fetch_add(60_000_000, Ordering::Relaxed);
    assert!(!state.exists(b"b").unwrap());
    assert_eq!(state.len().unwrap(), 2);
}

/// The old rows were counted as those of the commit that replaced them, if it had written to them before.
#[test]
fn a_commit_that_writes_and_then_replaces_counts_its_own_rows() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_table(dir.path());
    let mut transaction = store.begin().unwrap();
    transaction.upsert("names", &rows(1000, 2000)).unwrap();
    transaction.replace("names", spec()).unwrap();
    transaction.upsert("names", &rows(0, 5)).unwrap();
    transaction.upsert("names", &rows(0, 7)).unwrap();
    transaction.commit().unwrap();
    let table = store.table("names").unwrap();
    let last = *table.history().unwrap().last().unwrap();
    assert_eq!(last.kind, CommitKind::Replace);
    let counts = last.counts.unwrap();
    assert_eq!(
        (counts.num_added, counts.num_removed, counts.num_live),
        (7, 100, 7)
    );
    store.compact().unwrap();
    let table = store.table("names").unwrap();
    assert_eq!(table.num_rows().unwrap(), 7);
    assert_eq!(
        table.history().unwrap().last().unwrap().counts,
        Some(counts)
    );
}

/// A thread of a rayon pool that reads pages takes up other work meanwhile, which may look for live rows of the same table:
/// it must not wait for itself.
#[test]
fn many_may_look_for_live_rows_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_table(dir.path());
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(3)
        .build()
        .unwrap();
    for round in 0..20 {
        let mut transaction = store.begin().unwrap();
        transaction
            .upsert("names", &rows(round, round + 20))
            .unwrap();
        transaction.commit().unwrap();
        let table = store.table("names").unwrap();
        let count = || {
            table
                .rows(None)
                .unwrap()
                .map(|rows| rows.unwrap().num_rows())
                .sum::<usize>()
        };
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(count(), 100));
            scope.spawn(|| assert_eq!(count(), 100));
            pool.scope(|scope| {
                for _ in 0..12 {
                    scope.spawn(|_| assert_eq!(count(), 100));
                }
            });
        });
    }
}

#[test]
fn a_commit_can_require_that_a_table_is_as_it_was_read() {
    let dir = tempfile::tempdir().unwrap();
    drop(with_table(dir.path()));
    let options = StoreOptions {
        bulk_bytes: 1 << 16,
        ..StoreOptions::default()
    };
    let store = Store::open(dir.path(), options).unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.create_table("others", spec()).unwrap();
    transaction.commit().unwrap();
    let requiring = |table: &str, to: i64| {
        let mut transaction = store.begin().unwrap();
        transaction.upsert("names", &rows(0, to)).unwrap();
        transaction.require_unchanged(&store.table(table).unwrap());
        transaction
    };
    // What it changes itself does not count, nor what others do to other tables.
    let one = requiring("names", 1);
    let mut other = store.begin().unwrap();
    other.upsert("others", &rows(0, 1)).unwrap();
    other.commit().unwrap();
    one.commit().unwrap();
    // But a commit that comes between does, small or large, and whatever it did.
    let between: [fn(&mut darner_store::Transaction<'_>); 4] = [
        |transaction| transaction.upsert("names", &rows(500, 501)).unwrap(),
        |transaction| transaction.upsert("names", &rows(0, 20_000)).unwrap(),
        |transaction| transaction.replace("names", spec()).unwrap(),
        |transaction| transaction.drop_table("names").unwrap(),
    ];
    for action in between {
        let late = requiring("names", 2);
        let large = requiring("names", 20_000);
        let mut transaction = store.begin().unwrap();
        action(&mut transaction);
        let version = transaction.commit().unwrap();
        for late in [late, large] {
            assert_eq!(late.commit().unwrap_err().kind(), ErrorKind::Conflict);
        }
        assert_eq!(store.version(), version);
    }
    // Nothing but a requirement is no commit.
    let mut transaction = store.begin().unwrap();
    transaction.require_unchanged(&store.table("others").unwrap());
    assert_eq!(transaction.commit().unwrap(), store.version());
}

/// Each thread adds one to what it has read: as many as have committed are there in the end.
#[test]
fn of_commits_in_one_group_that_require_the_same_state_one_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_table(dir.path());
    let num_done = AtomicI64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let table = store.table("names").unwrap();
                    let count = i64::try_from(table.num_rows().unwrap()).unwrap();
                    let mut transaction = store.begin().unwrap();
                    transaction.require_unchanged(&table);
                    transaction
                        .upsert("names", &rows(count, count + 1))
                        .unwrap();
                    match transaction.commit() {
                        Ok(_) => drop(num_done.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
                    }
                }
            });
        }
    });
    let num_rows = i64::try_from(store.table("names").unwrap().num_rows().unwrap()).unwrap();
    assert_eq!(num_rows, 100 + num_done.into_inner());
    drop(store);
    let store = open(dir.path());
    assert_eq!(
        store.table("names").unwrap().num_rows().unwrap(),
        u64::try_from(num_rows).unwrap()
    );
}
