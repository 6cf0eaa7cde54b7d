//! Stores of every format version are opened by this build.
//!
//! A fixture is what [`make`] wrote when its format was new. `DARNER_WRITE_FIXTURE=DIR cargo test -p darner-store
//! formats` writes one for the format of this build; it is kept when a release freezes the format.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arrow_array::{
    Array, ArrayRef, Int32Array, RecordBatch, StringArray, cast::AsArray, types::Int32Type,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use darner_store::{Store, StoreOptions, TableSpec};

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

/// Writes something of everything, in checkpoint and log.
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
    let read = |table: &str| {
        let mut found = BTreeMap::new();
        for rows in store.table(table).unwrap().rows(None).unwrap() {
            let rows = rows.unwrap();
            let ids = rows.column(0).as_primitive::<Int32Type>();
            let texts = rows.column(1).as_string::<i32>();
            for row in 0..rows.num_rows() {
                let text = texts.is_valid(row).then(|| texts.value(row).to_owned());
                found.insert(ids.value(row), text.unwrap_or_default());
            }
        }
        found
            .into_iter()
            .map(|(id, text)| format!("{id} {text}"))
            .collect::<Vec<_>>()
    };
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
    make(dir.path());
    if let Ok(fixture) = std::env::var("DARNER_WRITE_FIXTURE") {
        copy(dir.path(), Path::new(&fixture));
    }
    check(&Store::open_read_only(dir.path()).unwrap());
    check(&Store::open(dir.path(), StoreOptions::default()).unwrap());
}

#[test]
fn stores_of_format_1_are_opened() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1");
    check(&Store::open_read_only(&fixture).unwrap());
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture, dir.path());
    let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
    check(&store);
    store.checkpoint().unwrap();
    drop(store);
    check(&Store::open_read_only(dir.path()).unwrap());
}
