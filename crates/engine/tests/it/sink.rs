//! What sinks write, how it appears, and what they refuse.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

use crate::data::{drain, flat_batch, read, wide_batch, write};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray, StringViewArray,
    cast::AsArray,
    types::{Int8Type, Int32Type},
};
use arrow_cast::cast;
use arrow_schema::DataType;
use arrow_select::concat::concat_batches;
use darner_engine::{
    Compression, ErrorKind, Format, SinkOptions, SourceOptions, create, from_reader, open,
    to_writer,
};
use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    sync::{Arc, Mutex},
};

const BINARY_NAMES: [&str; 3] = ["x.arrow", "x.arrows", "x.parquet"];
const TEXT_NAMES: [&str; 7] = [
    "x.csv",
    "x.tsv",
    "x.ndjson",
    "x.csv.gz",
    "x.csv.zst",
    "x.jsonl.gz",
    "x.ndjson.zst",
];

/// Types that Parquet cannot hold as they are.
fn is_coarse(data_type: &DataType) -> bool {
    use arrow_schema::TimeUnit::Second;
    matches!(
        data_type,
        DataType::Timestamp(Second, _) | DataType::Time32(Second) | DataType::Date64
    )
}

/// Parquet columns are encoded side by side.
#[test]
fn parquet_bytes_are_the_same_for_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    let mut options = SinkOptions::default();
    options.row_group_rows = 1000;
    let batches: Vec<_> = (0..40).map(|i| wide_batch(i % 50 * 7)).collect();
    let written = |num_threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(num_threads);
        let write = || write(&path, &batches[0].schema(), &batches, &options);
        pool.build().unwrap().install(write).unwrap();
        fs::read(&path).unwrap()
    };
    let one = written(1);
    for num_threads in [2, 3, 8] {
        assert!(written(num_threads) == one, "num_threads={num_threads}");
    }
}

#[test]
fn every_type_survives_binary_formats() {
    for name in BINARY_NAMES {
        for compression in [None, Some(Compression::Zstd), Some(Compression::Lz4)] {
            for num_batches in [0, 1, 3, 200] {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join(name);
                let mut options = SinkOptions::default();
                options.compression = compression;
                options.row_group_rows = 1000;
                let batches: Vec<_> = (0..num_batches).map(|i| wide_batch(i % 50 * 7)).collect();
                let schema = wide_batch(0).schema();
                write(&path, &schema, &batches, &options).unwrap();
                let all = concat_batches(&schema, &batches).unwrap();
                for memory_map in [true, false] {
                    let mut options = SourceOptions::default();
                    options.memory_map = memory_map;
                    options.batch_rows = 100;
                    let got = read(&path, &options).unwrap();
                    assert_eq!(got.num_rows(), all.num_rows());
                    for (idx, field) in schema.fields().iter().enumerate() {
                        // Dictionaries may differ; what they stand for may not.
                        let plain = |column: &ArrayRef| match column.data_type() {
                            DataType::Dictionary(_, values) => cast(column, values).unwrap(),
                            _ => Arc::clone(column),
                        };
                        let (got, mut expected) = (plain(got.column(idx)), plain(all.column(idx)));
                        if name.ends_with("parquet") && is_coarse(expected.data_type()) {
                            // Parquet has no seconds and one kind of date: the value is what must survive.
                            assert!(!is_coarse(got.data_type()), "{}", field.name());
                            expected = cast(&expected, got.data_type()).unwrap();
                        }
                        assert_eq!(&got, &expected, "{name} {} {num_batches}", field.name());
                    }
                }
            }
        }
    }
}

#[test]
fn text_formats_read_what_they_wrote() {
    for name in TEXT_NAMES {
        for num_batches in [1, 3, 40] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(name);
            let batches: Vec<_> = (0..num_batches).map(|i| flat_batch(20 + i)).collect();
            let schema = flat_batch(0).schema();
            write(&path, &schema, &batches, &SinkOptions::default()).unwrap();
            let mut options = SourceOptions::default();
            options.batch_rows = 64;
            if name.contains("json") {
                options.types = vec![("date".into(), DataType::Date32)];
            }
            let got = read(&path, &options).unwrap();
            let mut got_columns = got.columns().to_vec();
            if name.contains("json") {
                // JSON members have an order, but inference sorts nothing either.
                got_columns = schema
                    .fields()
                    .iter()
                    .map(|f| Arc::clone(got.column_by_name(f.name()).unwrap()))
                    .collect();
            }
            let all = concat_batches(&schema, &batches).unwrap();
            assert_eq!(got_columns, all.columns(), "{name}");
        }
    }
}

#[test]
fn output_without_rows_keeps_its_columns() {
    for name in BINARY_NAMES.into_iter().chain(["x.csv", "x.tsv.zst"]) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        let schema = flat_batch(0).schema();
        write(&path, &schema, &[flat_batch(0)], &SinkOptions::default()).unwrap();
        let source = open(&path, &SourceOptions::default()).unwrap();
        let names: Vec<_> = source
            .schema()
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect();
        assert_eq!(
            names,
            ["int64", "float64", "bool", "text", "date"],
            "{name}"
        );
        assert_eq!(
            read(&path, &SourceOptions::default()).unwrap().num_rows(),
            0
        );
    }
}

#[test]
fn metadata_reaches_the_file() {
    for name in BINARY_NAMES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        let mut options = SinkOptions::default();
        options.metadata = vec![("made by".into(), "a test".into())];
        write(&path, &flat_batch(0).schema(), &[flat_batch(3)], &options).unwrap();
        let source = open(&path, &SourceOptions::default()).unwrap();
        assert_eq!(source.schema().metadata()["made by"], "a test", "{name}");
    }
}

fn dictionary_batch(values: &ArrayRef, keys: &[Option<i32>]) -> RecordBatch {
    let keys = Int32Array::from(keys.to_vec());
    let column: ArrayRef =
        Arc::new(DictionaryArray::<Int32Type>::try_new(keys, Arc::clone(values)).unwrap());
    RecordBatch::try_from_iter_with_nullable([("d", column, true)]).unwrap()
}

#[test]
fn changing_dictionaries_stay_right() {
    let first: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("b"), None]));
    let other: ArrayRef = Arc::new(StringArray::from(vec!["c", "b", "a"]));
    let batches = [
        dictionary_batch(&first, &[Some(0), Some(1), None, Some(2)]),
        dictionary_batch(&other, &[Some(0), Some(1), Some(2), None]),
        dictionary_batch(&first, &[Some(1), Some(0)]),
        dictionary_batch(&other, &[Some(0)]),
    ];
    let expected = [
        Some("a"),
        Some("b"),
        None,
        None,
        Some("c"),
        Some("b"),
        Some("a"),
        None,
        Some("b"),
        Some("a"),
        Some("c"),
    ];
    for name in BINARY_NAMES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        write(
            &path,
            &batches[0].schema(),
            &batches,
            &SinkOptions::default(),
        )
        .unwrap();
        let got = read(&path, &SourceOptions::default()).unwrap();
        let got = cast(got.column(0), &DataType::Utf8).unwrap();
        assert_eq!(
            got.as_string::<i32>(),
            &StringArray::from(expected.to_vec()),
            "{name}"
        );
    }
}

#[test]
fn shared_dictionary_is_written_once() {
    let values: ArrayRef = Arc::new(StringArray::from_iter_values(
        (0..10_000).map(|i| format!("value {i}")),
    ));
    for name in ["x.arrow", "x.arrows"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        let batches: Vec<_> = (0..100)
            .map(|i| dictionary_batch(&values, &[Some(i)]))
            .collect();
        write(
            &path,
            &batches[0].schema(),
            &batches,
            &SinkOptions::default(),
        )
        .unwrap();
        assert!(fs::metadata(&path).unwrap().len() < 300_000, "{name}");
    }
}

#[test]
fn dictionary_that_outgrows_its_keys_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.arrow");
    let batch = |from: i32| {
        let column: DictionaryArray<Int8Type> = (from..from + 100)
            .map(|i| i.to_string())
            .collect::<Vec<_>>()
            .iter()
            .map(String::as_str)
            .collect();
        RecordBatch::try_from_iter([("d", Arc::new(column) as ArrayRef)]).unwrap()
    };
    let mut sink = create(&path, &batch(0).schema(), &SinkOptions::default()).unwrap();
    sink.write(&batch(0)).unwrap();
    let error = sink.write(&batch(100)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Resource);
    assert!(error.message().contains("column `d`"), "{error}");
    assert!(sink.finish().is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn views_into_large_buffers_are_compacted() {
    let big =
        StringViewArray::from_iter_values((0..50_000).map(|i| format!("a long value, number {i}")));
    for name in ["x.arrow", "x.arrows"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        let batches: Vec<_> = (0..100)
            .map(|i| {
                RecordBatch::try_from_iter([("v", Arc::new(big.slice(i, 3)) as ArrayRef)]).unwrap()
            })
            .collect();
        write(
            &path,
            &batches[0].schema(),
            &batches,
            &SinkOptions::default(),
        )
        .unwrap();
        assert!(fs::metadata(&path).unwrap().len() < 200_000, "{name}");
        assert_eq!(
            read(&path, &SourceOptions::default()).unwrap().num_rows(),
            300
        );
    }
}

#[test]
fn nothing_is_visible_before_finish_or_after_drop() {
    for name in BINARY_NAMES.into_iter().chain(TEXT_NAMES) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, "old").unwrap();
        let schema = flat_batch(0).schema();
        let mut sink = create(&path, &schema, &SinkOptions::default()).unwrap();
        sink.write(&flat_batch(1000)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        drop(sink);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

#[test]
fn replaced_file_keeps_its_permissions_and_links_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real.csv"), dir.path().join("link.csv"));
    fs::write(&real, "old").unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("real.csv", &link).unwrap();
    write(
        &link,
        &flat_batch(0).schema(),
        &[flat_batch(2)],
        &SinkOptions::default(),
    )
    .unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(
        fs::metadata(&real).unwrap().permissions().mode() & 0o777,
        0o640
    );
    assert!(fs::read_to_string(&real).unwrap().starts_with("int64,"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn devices_are_written_to_directly() {
    let mut options = SinkOptions::default();
    options.format = Some(Format::Csv);
    let mut sink = create("/dev/null".as_ref(), &flat_batch(0).schema(), &options).unwrap();
    sink.write(&flat_batch(3)).unwrap();
    sink.finish().unwrap();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
}

#[test]
fn impossible_targets_are_refused_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let schema = flat_batch(0).schema();
    let check = |path: &str, schema, options: &SinkOptions, kind, words: &str| {
        let path = dir.path().join(path);
        let error = create(&path, schema, options).err().unwrap();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.message().contains(words), "{error:?}");
        assert!(
            error.message().contains(path.to_str().unwrap()),
            "{error:?}"
        );
    };
    fs::create_dir(dir.path().join("d.csv")).unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let default = SinkOptions::default();
    let wide = wide_batch(0).schema();
    check(
        "missing/x.csv",
        &schema,
        &default,
        ErrorKind::NotFound,
        "does not exist",
    );
    check(
        "d.csv",
        &schema,
        &default,
        ErrorKind::Invalid,
        "is a directory",
    );
    check(
        "x.unknown",
        &schema,
        &default,
        ErrorKind::Invalid,
        "unknown format",
    );
    check("x.csv", &wide, &default, ErrorKind::Invalid, "`list`");
    let mut options = SinkOptions::default();
    options.compression = Some(Compression::Snappy);
    check(
        "x.arrow",
        &schema,
        &options,
        ErrorKind::Invalid,
        "compression",
    );
    assert!(!dir.path().join("x.csv").exists());
}

#[test]
fn other_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = create(
        &dir.path().join("x.arrow"),
        &flat_batch(0).schema(),
        &SinkOptions::default(),
    )
    .unwrap();
    assert_eq!(
        sink.write(&wide_batch(1)).unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

/// Takes some bytes, then fails as a full disk does.
struct Full(usize);

impl io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self
            .0
            .checked_sub(bytes.len())
            .ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn refusing_writers_make_unavailable_errors() {
    use Format::{ArrowFile, ArrowStream, Csv, NdJson, Parquet, Tsv};
    for format in [ArrowFile, ArrowStream, Parquet, Csv, Tsv, NdJson] {
        for compression in [None, Some(Compression::Zstd)] {
            for room in [0, 10, 1000, 40_000] {
                let mut options = SinkOptions::default();
                options.format = Some(format);
                options.compression = compression;
                let schema = flat_batch(0).schema();
                let run = || {
                    let mut sink = to_writer("the disk", Box::new(Full(room)), &schema, &options)?;
                    for _ in 0..100 {
                        sink.write(&flat_batch(5000))?;
                    }
                    sink.finish()
                };
                let error = run().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{format} {error:?}");
                assert!(error.message().starts_with("the disk: "), "{error:?}");
            }
        }
    }
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn pipes_carry_every_format() {
    use Format::{ArrowFile, ArrowStream, Csv, NdJson, Parquet, Tsv};
    for format in [ArrowFile, ArrowStream, Parquet, Csv, Tsv, NdJson] {
        let bytes = Shared::default();
        let mut options = SinkOptions::default();
        options.format = Some(format);
        let batch = flat_batch(500);
        let mut sink =
            to_writer("out", Box::new(bytes.clone()), &batch.schema(), &options).unwrap();
        sink.write(&batch).unwrap();
        sink.finish().unwrap();
        let bytes = bytes.0.lock().unwrap().clone();
        let mut options = SourceOptions::default();
        options.format = Some(format);
        let mut source = from_reader("in", Box::new(io::Cursor::new(bytes)), &options).unwrap();
        let rows: usize = drain(source.as_mut())
            .unwrap()
            .iter()
            .map(RecordBatch::num_rows)
            .sum();
        assert_eq!(rows, 500, "{format}");
    }
}
