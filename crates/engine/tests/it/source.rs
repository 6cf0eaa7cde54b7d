//! What sources read, infer, and refuse.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

use crate::data::{drain, flat_batch, read, write};
use arrow_array::{Array, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, TimeUnit};
use darner_engine::{
    CsvOptions, Error, ErrorKind, Format, SinkOptions, SourceOptions, expand, open, open_all,
};
use std::{fmt::Write as _, fs, path::PathBuf};

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// The error of reading a file with these bytes; it must name the file and hold all `words`.
fn check_error(
    name: &str,
    bytes: impl AsRef<[u8]>,
    options: &SourceOptions,
    kind: ErrorKind,
    words: &[&str],
) {
    let dir = Dir::new();
    let path = dir.file(name, bytes);
    let error: Error = read(&path, options).unwrap_err();
    let text = format!("{error:?}");
    assert_eq!(error.kind(), kind, "{text}");
    assert!(
        error.message().starts_with(path.to_str().unwrap()),
        "{text}"
    );
    for word in words {
        assert!(text.contains(word), "{text} lacks {word}");
    }
}

fn csv_types(text: &str) -> Vec<DataType> {
    let dir = Dir::new();
    let path = dir.file("x.csv", text);
    let source = open(&path, &SourceOptions::default()).unwrap();
    source
        .schema()
        .fields()
        .iter()
        .map(|field| field.data_type().clone())
        .collect()
}

#[test]
fn csv_types_come_from_the_whole_file() {
    let mut text = String::from("id,when,maybe\n");
    for i in 0..5000 {
        writeln!(text, "{i},2024-01-01T00:00:00Z,").unwrap();
    }
    let utc = DataType::Timestamp(TimeUnit::Second, Some("UTC".into()));
    assert_eq!(csv_types(&text), [DataType::Int64, utc, DataType::Utf8]);
    text += "1.5,2024-01-01T00:00:00,x\n";
    assert_eq!(
        csv_types(&text),
        [DataType::Float64, DataType::Utf8, DataType::Utf8]
    );
}

#[test]
fn csv_chunks_keep_rows_whole() {
    let dir = Dir::new();
    let mut text = String::from("\u{FEFF}n,t\r\n");
    for i in 0..1000 {
        write!(text, "{i},\"line\r\nbreak, {i}\"\r\n").unwrap();
    }
    for batch_rows in [1, 7, 1000, 5000] {
        let path = dir.file("x.csv", &text);
        let mut options = SourceOptions::default();
        options.batch_rows = batch_rows;
        let batch = read(&path, &options).unwrap();
        assert_eq!(batch.num_rows(), 1000);
        assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(999), 999);
        assert_eq!(
            batch.column(1).as_string::<i32>().value(999),
            "line\r\nbreak, 999"
        );
    }
}

#[test]
fn csv_errors_name_the_line() {
    let options = SourceOptions::default();
    let data = ErrorKind::Data;
    check_error("x.csv", "", &options, data, &["empty"]);
    check_error(
        "x.csv",
        "a,b\n1,2\n\"x\ny\",2,3\n",
        &options,
        data,
        &["line 3", "`3`", "`2`"],
    );
    check_error("x.csv", "a,b\r\n1,2\r\n1\r\n", &options, data, &["line 3"]);
    check_error("x.csv", "a,a\n", &options, data, &["line 1", "`a`"]);
    check_error("x.csv", "a,,c\n", &options, data, &["line 1", "`2`"]);
    check_error(
        "x.csv",
        b"a\nx\n\xFF\xFE\n",
        &options,
        data,
        &["line 3", "UTF-8"],
    );
    check_error(
        "x.csv.gz",
        b"\x1F\x8B\x08garbage",
        &options,
        data,
        &["compressed"],
    );
    let mut options = SourceOptions::default();
    options.types = vec![("b".into(), DataType::Int32)];
    options.batch_rows = 2;
    let text = "a,b\nx,1\n\"y\ny\",2\nz,3\nz,4\nz,nine\n";
    check_error(
        "x.csv",
        text,
        &options,
        data,
        &["line 7", "`b`", "`nine`", "`Int32`"],
    );
    options.types = vec![("b".into(), DataType::Int64)];
    check_error("x.csv", text, &options, data, &["line 7", "`nine`"]);
    options.types = vec![("bb".into(), DataType::Int64)];
    check_error(
        "x.csv",
        text,
        &options,
        ErrorKind::Invalid,
        &["did you mean `b`"],
    );
}

#[test]
fn csv_dialects_are_honoured() {
    let dir = Dir::new();
    let path = dir.file("x.csv", "1;NA\n2;'x;y'\n");
    let mut options = SourceOptions::default();
    options.csv = CsvOptions {
        delimiter: Some(b';'),
        has_header: false,
        null_text: vec!["NA".into()],
        quote: b'\'',
        date_formats: Vec::new(),
    };
    let batch = read(&path, &options).unwrap();
    assert_eq!(batch.schema().field(0).name(), "column_1");
    assert!(batch.column(1).is_null(0));
    assert_eq!(batch.column(1).as_string::<i32>().value(1), "x;y");
    options = SourceOptions::default();
    let path = dir.file("header.csv", "a,b\n");
    assert_eq!(read(&path, &options).unwrap().num_rows(), 0);
    options.format = Some(Format::Tsv);
    let path = dir.file("x.txt", "a\tb\n1\t2");
    assert_eq!(read(&path, &options).unwrap().num_columns(), 2);
}

#[test]
fn json_errors_name_the_line() {
    let options = SourceOptions::default();
    let data = ErrorKind::Data;
    check_error("x.ndjson", "", &options, data, &["empty"]);
    check_error(
        "x.ndjson",
        "{\"a\":1}\n\n{\"a\":",
        &options,
        data,
        &["line 3"],
    );
    check_error(
        "x.ndjson",
        "{\"a\":1}\n[1]\n",
        &options,
        data,
        &["line 2", "object"],
    );
    check_error(
        "x.ndjson",
        "{\"a\":1}\n{\"a\":{\"b\":2}}\n",
        &options,
        data,
        &["line 2"],
    );
    let mut options = SourceOptions::default();
    options.types = vec![("a".into(), DataType::Int8)];
    check_error(
        "x.ndjson",
        "{\"a\":1}\n\n{\"a\":300}\n",
        &options,
        data,
        &["line 3"],
    );
    let deep = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    check_error(
        "x.ndjson",
        deep,
        &SourceOptions::default(),
        data,
        &["line 1"],
    );
}

#[test]
fn json_columns_of_nulls_are_text() {
    let dir = Dir::new();
    let path = dir.file("x.jsonl", "{\"a\":null,\"b\":[null]}\r\n{\"b\":[],\"c\":1}");
    let batch = read(&path, &SourceOptions::default()).unwrap();
    assert_eq!(batch.num_rows(), 2);
    assert_eq!(
        batch.column_by_name("a").unwrap().data_type(),
        &DataType::Utf8
    );
}

#[test]
fn projection_selects_and_orders() {
    for name in ["x.arrow", "x.arrows", "x.parquet", "x.csv", "x.ndjson"] {
        let dir = Dir::new();
        let path = dir.0.path().join(name);
        write(
            &path,
            &flat_batch(0).schema(),
            &[flat_batch(30)],
            &SinkOptions::default(),
        )
        .unwrap();
        let mut options = SourceOptions::default();
        options.projection = Some(vec!["text".into(), "int64".into()]);
        let batch = read(&path, &options).unwrap();
        assert_eq!(
            batch.column(0).as_ref(),
            flat_batch(30).column(3).as_ref(),
            "{name}"
        );
        assert_eq!(
            batch.column(1).as_ref(),
            flat_batch(30).column(0).as_ref(),
            "{name}"
        );
        options.projection = Some(vec![]);
        let rows: usize = drain(open(&path, &options).unwrap().as_mut())
            .unwrap()
            .iter()
            .map(arrow_array::RecordBatch::num_rows)
            .sum();
        assert_eq!(rows, 30, "{name}");
        options.projection = Some(vec!["txet".into()]);
        let error = open(&path, &options).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains("did you mean `text`"), "{error}");
    }
}

#[test]
fn names_and_contents_must_agree() {
    let options = SourceOptions::default();
    let data = ErrorKind::Data;
    check_error(
        "x.parquet",
        "a,b\n1,2\n",
        &options,
        data,
        &["not a Parquet file"],
    );
    check_error("x.arrow", "", &options, data, &["an empty file"]);
    check_error(
        "x.arrow",
        "FEA1....",
        &options,
        data,
        &["Feather version 1"],
    );
    check_error(
        "x.csv",
        "PAR1....",
        &options,
        data,
        &["not CSV", "a Parquet file"],
    );
    check_error(
        "x.what",
        "....",
        &options,
        ErrorKind::Invalid,
        &["unknown format", ".parquet"],
    );
    let missing = open("/no/such/file.csv".as_ref(), &options).err().unwrap();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[test]
fn magic_bytes_stand_in_for_an_extension() {
    let dir = Dir::new();
    for (format, name) in [
        (Format::ArrowFile, "a"),
        (Format::ArrowStream, "b.arrow"),
        (Format::Parquet, "c"),
    ] {
        let path = dir.0.path().join(name);
        let mut options = SinkOptions::default();
        options.format = Some(format);
        write(&path, &flat_batch(0).schema(), &[flat_batch(5)], &options).unwrap();
        assert_eq!(
            read(&path, &SourceOptions::default()).unwrap(),
            flat_batch(5)
        );
    }
}

#[test]
fn many_files_are_one_source() {
    let dir = Dir::new();
    let paths = vec![
        dir.file("1.csv", "a,b\n1,x\n"),
        dir.file("2.csv", "a,b\n2,y\n"),
    ];
    let mut source = open_all(paths.clone(), &SourceOptions::default()).unwrap();
    let rows: usize = drain(source.as_mut())
        .unwrap()
        .iter()
        .map(arrow_array::RecordBatch::num_rows)
        .sum();
    assert_eq!((rows, source.num_bytes()), (2, Some(16)));
    for (text, words) in [
        ("a,b\n1.5,y\n", "`Float64`"),
        ("a\n1\n", "missing"),
        ("a,c\n1,2\n", "`c`"),
        ("a,b,d\n1,x,3\n", "`d`"),
    ] {
        let other = dir.file("other.csv", text);
        let mut source =
            open_all(vec![paths[0].clone(), other], &SourceOptions::default()).unwrap();
        let error = drain(source.as_mut()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(
            error.message().contains("other.csv") && error.message().contains(words),
            "{error}"
        );
        assert!(source.next_piece().unwrap().is_none());
    }
}

#[test]
fn patterns_expand_in_order() {
    let dir = Dir::new();
    for name in [
        "b.csv",
        "a.csv",
        ".hidden.csv",
        "c.csv~",
        "n.txt",
        "d.csv.gz",
    ] {
        dir.file(name, "");
    }
    fs::create_dir(dir.0.path().join("sub.csv")).unwrap();
    let root = dir.0.path().to_str().unwrap();
    let names = |patterns: &[String]| -> Vec<String> {
        let paths = expand(patterns).unwrap();
        paths
            .iter()
            .map(|p| p.file_name().unwrap().to_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&[root.to_owned()]), ["a.csv", "b.csv", "d.csv.gz"]);
    assert_eq!(names(&[format!("{root}/*.csv")]), ["a.csv", "b.csv"]);
    assert_eq!(
        names(&[format!("{root}/n.txt"), "-".to_owned()]),
        ["n.txt", "-"]
    );
    for missing in ["*.parquet", "none.csv"] {
        let error = expand(&[format!("{root}/{missing}")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.message().contains(missing), "{error}");
    }
}
