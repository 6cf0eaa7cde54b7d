//! What a caller may rely on.

use std::sync::Arc;

use arrow_array::{Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use darner_store::{ErrorKind, Store, StoreOptions, TableSpec};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
    ]))
}

fn spec() -> TableSpec {
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
fn a_reader_sees_its_commit_while_a_writer_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_table(dir.path());
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
