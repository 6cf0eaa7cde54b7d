//! Stores of every format version are opened by this build.
//!
//! A fixture is what the functions here wrote when its format was new. `DARNER_WRITE_FIXTURE=DIR cargo test -p darner-store
//! formats` writes one for the format of this build; it is kept when a release freezes the format.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use arrow_array::{
    Array, ArrayRef, Int32Array, RecordBatch, StringArray, cast::AsArray, types::Int32Type,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use darner_store::{
    AsOf, Clock, CompactionMode, ErrorKind, Retention, Scan, Store, StoreOptions, TableCommit,
    TableSnapshot, TableSpec, Transaction,
};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int32, false),
        Field::new("text", DataType::Utf8, true),
    ]))
}

fn rows(rows: &[(i32, Option<&str>)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.0).collect::<Int32Array>()),
        Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>()),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// Writes something of everything that format 2 has and format 1 has not, in checkpoint and log.
fn make_past_and_state(dir: &Path) {
    let time = Arc::new(AtomicI64::new(1000));
    let options = StoreOptions {
        log_segment_bytes: 4096,
        page_bytes: 100,
        compaction: CompactionMode::Never,
        clock: Clock::new(move || time.fetch_add(1000, Ordering::Relaxed)),
        ..StoreOptions::default()
    };
    let store = Store::open(dir, options).unwrap();
    let spec = || TableSpec::new(&schema(), &["id"]).unwrap();
    let commit = |edit: &dyn Fn(&mut Transaction<'_>)| {
        let mut transaction = store.begin().unwrap();
        edit(&mut transaction);
        transaction.commit().unwrap().number
    };
    let kept = Retention {
        num_versions: 3,
        age: Duration::from_secs(1),
    };
    // Version 1 and 2, which compaction folds; 3 and 4, which are kept; 5, a replacement; 6, in the log only.
    commit(&|t| {
        t.create_table("prices", spec()).unwrap();
        t.upsert("prices", &rows(&[(1, Some("one")), (2, None)]))
            .unwrap();
        t.put_state("counts", b"a", b"1").unwrap();
        t.put_state("counts", b"b", b"2").unwrap();
        t.put_state("counts", &[0xFF; 200], b"long").unwrap();
        t.put_state_for("counts", b"gone", b"3", Duration::from_millis(1))
            .unwrap();
    });
    commit(&|t| t.upsert("prices", &rows(&[(1, Some("uno"))])).unwrap());
    commit(&|t| t.upsert("prices", &rows(&[(3, Some("three"))])).unwrap());
    store.checkpoint().unwrap();
    store.compact().unwrap();
    commit(&|t| {
        t.set_retention("prices", kept).unwrap();
        t.delete("prices", &rows(&[(2, None)]).project(&[0]).unwrap())
            .unwrap();
    });
    commit(&|t| {
        t.replace("prices", spec()).unwrap();
        t.declare_distinct("prices").unwrap();
        t.upsert("prices", &rows(&[(7, Some("seven")), (8, None)]))
            .unwrap();
        t.delete_state("counts", b"a").unwrap();
    });
    store.checkpoint().unwrap();
    let last = commit(&|t| {
        t.upsert("prices", &rows(&[(8, Some("eight"))])).unwrap();
        t.put_state("counts", b"c", b"4").unwrap();
    });
    assert_eq!(last, 6);
}

fn check_past_and_state(store: &Store) {
    assert_eq!(store.version().number, 6);
    let table = store.table("prices").unwrap();
    assert_eq!(read(&table), ["7 seven", "8 eight"]);
    let at = |version| store.table_at("prices", AsOf::Version(version));
    assert_eq!(read(&at(5).unwrap()), ["7 seven", "8 "]);
    assert_eq!(read(&at(4).unwrap()), ["1 uno", "3 three"]);
    assert_eq!(read(&at(3).unwrap()), ["1 uno", "2 ", "3 three"]);
    assert_eq!(at(2).map(|_| ()).unwrap_err().kind(), ErrorKind::NotFound);
    let counts = |commit: &TableCommit| {
        let counts = commit.counts.unwrap();
        (
            commit.version.number,
            counts.num_added,
            counts.num_removed,
            counts.num_live,
        )
    };
    let history: Vec<_> = table.history().unwrap().iter().map(counts).collect();
    let expected = [
        (1, 2, 0, 2),
        (2, 1, 1, 2),
        (3, 1, 0, 3),
        (4, 0, 1, 2),
        (5, 2, 2, 2),
        (6, 1, 1, 2),
    ];
    assert_eq!(history, expected);
    assert_eq!(table.retention().num_versions, 3);
    let state = store.state("counts").unwrap();
    let entries: Vec<_> = state
        .scan(&Scan::all())
        .unwrap()
        .map(|entry| entry.unwrap().0)
        .collect();
    assert_eq!(entries.len(), 3);
    assert_eq!(state.get(b"b").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(state.get(b"c").unwrap().as_deref(), Some(&b"4"[..]));
    assert_eq!(
        state.get(&[0xFF; 200]).unwrap().as_deref(),
        Some(&b"long"[..])
    );
    assert!(!state.exists(b"a").unwrap() && !state.exists(b"gone").unwrap());
}

fn read(table: &TableSnapshot) -> Vec<String> {
    let mut found = BTreeMap::new();
    for rows in table.rows(None).unwrap() {
        let rows = rows.unwrap();
        let ids = rows.column(0).as_primitive::<Int32Type>();
        let texts = rows.column(1).as_string::<i32>();
        for row in 0..rows.num_rows() {
            let text = texts.is_valid(row).then(|| texts.value(row).to_owned());
            found.insert(ids.value(row), text.unwrap_or_default());
        }
    }
    let found = found.into_iter();
    found.map(|(id, text)| format!("{id} {text}")).collect()
}

/// Writes something of everything that format 1 has, in checkpoint and log.
fn make(dir: &Path) {
    let options = StoreOptions {
        log_segment_bytes: 4096,
        page_bytes: 100,
        ..StoreOptions::default()
    };
    let store = Store::open(dir, options).unwrap();
    let spec = || TableSpec::new(&schema(), &["id"]).unwrap();
    let mut transaction = store.begin().unwrap();
    for table in ["kept", "gone", "replaced"] {
        transaction.create_table(table, spec()).unwrap();
        transaction
            .upsert(
                table,
                &rows(&[(1, Some("one")), (2, None), (3, Some("drei"))]),
            )
            .unwrap();
    }
    transaction.set_watermark("offset", b"17").unwrap();
    transaction.commit().unwrap();
    store.checkpoint().unwrap();
    let mut transaction = store.begin().unwrap();
    transaction
        .upsert("kept", &rows(&[(3, Some("three")), (4, Some("four"))]))
        .unwrap();
    transaction
        .delete("kept", &rows(&[(1, None)]).project(&[0]).unwrap())
        .unwrap();
    transaction.replace("replaced", spec()).unwrap();
    transaction.declare_distinct("replaced").unwrap();
    transaction
        .upsert("replaced", &rows(&[(9, Some("nine"))]))
        .unwrap();
    transaction.drop_table("gone").unwrap();
    transaction.set_watermark("offset", b"18").unwrap();
    transaction.commit().unwrap();
}

fn check(store: &Store) {
    assert_eq!(store.version().number, 2);
    assert_eq!(store.table_names(), ["kept", "replaced"]);
    assert_eq!(store.watermark("offset").unwrap().value, b"18");
    let read = |table: &str| read(&store.table(table).unwrap());
    assert_eq!(read("kept"), ["2 ", "3 three", "4 four"]);
    assert_eq!(read("replaced"), ["9 nine"]);
    assert!(store.table("replaced").unwrap().is_distinct());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

#[test]
fn this_format_is_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    for (name, make, check) in PARTS {
        let dir = dir.path().join(name);
        make(&dir);
        if let Ok(fixture) = std::env::var("DARNER_WRITE_FIXTURE") {
            copy(&dir, &Path::new(&fixture).join(name));
        }
        check_all_ways(&dir, check);
    }
}

type Part = (&'static str, fn(&Path), fn(&Store));

const PARTS: [Part; 2] = [
    ("tables", make, check),
    ("past-and-state", make_past_and_state, check_past_and_state),
];

/// Opens a store for reading and for writing, and again after a checkpoint.
fn check_all_ways(dir: &Path, check: fn(&Store)) {
    check(&Store::open_read_only(dir).unwrap());
    let store = Store::open(dir, StoreOptions::default()).unwrap();
    check(&store);
    store.checkpoint().unwrap();
    drop(store);
    check(&Store::open_read_only(dir).unwrap());
    let report = Store::verify(dir).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

#[test]
fn stores_of_format_1_are_opened() {
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture("format-1"), dir.path());
    check(&Store::open_read_only(fixture("format-1")).unwrap());
    check_all_ways(dir.path(), check);
}

#[test]
fn stores_of_format_2_are_opened() {
    let dir = tempfile::tempdir().unwrap();
    for (name, _, check) in PARTS {
        let fixture = fixture("format-2").join(name);
        check(&Store::open_read_only(&fixture).unwrap());
        let dir = dir.path().join(name);
        copy(&fixture, &dir);
        check_all_ways(&dir, check);
    }
}
