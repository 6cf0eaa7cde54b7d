//! The whole way: files into tables, tables into dimensions, facts through joins into files, in order.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arrow_array::{
    Array, ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, cast::AsArray,
    types::Int64Type,
};
use arrow_cast::cast;
use arrow_schema::{DataType, SchemaRef};
use arrow_select::concat::concat_batches;
use darner_engine::{
    ColumnForm, Control, Dimension, DimensionBuilder, Encoding, EnrichReport, Enrichment,
    ErrorKind, JoinSpec, LoadMode, LoadOptions, OnDuplicate, OnMiss, Result, Sealed, Sink,
    SinkOptions, Sinks, SourceOptions, StarJoin, create, load_dimension, load_table, open,
    open_all,
};
use darner_store::{Store, StoreOptions};

fn write(path: &Path, batches: &[RecordBatch]) {
    let mut sink = create(path, &batches[0].schema(), &SinkOptions::default()).unwrap();
    for batch in batches {
        sink.write(batch).unwrap();
    }
    sink.finish().unwrap();
}

fn read(path: &Path) -> RecordBatch {
    let mut source = open(path, &SourceOptions::default()).unwrap();
    let mut batches = Vec::new();
    while let Some(piece) = source.next_piece().unwrap() {
        batches.extend(piece.decode().unwrap());
    }
    concat_batches(source.schema(), &batches).unwrap()
}

fn options(key: &[&str]) -> LoadOptions {
    LoadOptions {
        key: Some(key.iter().map(|key| (*key).to_owned()).collect()),
        mode: LoadMode::Upsert,
        on_duplicate: OnDuplicate::Error,
        watermark: None,
    }
}

fn load(store: &Store, path: &Path, options: &LoadOptions) -> Result<u64> {
    let mut source = open(path, &SourceOptions::default())?;
    load_table(store, "d", &mut *source, options, &Control::default()).map(|report| report.num_rows)
}

fn names(ids: &[i64], suffix: &str) -> RecordBatch {
    let columns: [(&str, ArrayRef); 2] = [
        ("id", Arc::new(Int64Array::from(ids.to_vec()))),
        (
            "name",
            Arc::new(
                ids.iter()
                    .map(|id| Some(format!("{id}{suffix}")))
                    .collect::<StringArray>(),
            ),
        ),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Facts 0, 1, 2, ... with a key that repeats, in batches of `batch_rows`.
fn facts(num_rows: i32, batch_rows: i32) -> Vec<RecordBatch> {
    let starts = (0..num_rows.max(1)).step_by(batch_rows as usize);
    let batches = starts.map(|start| {
        let rows = start..num_rows.min(start + batch_rows);
        let columns: [(&str, ArrayRef); 2] = [
            ("row", Arc::new(rows.clone().collect::<Int32Array>())),
            // Narrower than the dimension's key, with nulls.
            (
                "key",
                Arc::new(
                    rows.map(|row| (row % 7 != 3).then_some(row % 10))
                        .collect::<Int32Array>(),
                ),
            ),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    });
    batches.collect()
}

fn enrich(
    store: &Store,
    inputs: &[&Path],
    output: &Path,
    unmatched: Option<&Path>,
    control: &Control,
) -> Result<EnrichReport> {
    let inputs = inputs.iter().map(|path| (*path).to_owned()).collect();
    let mut source = open_all(inputs, &SourceOptions::default())?;
    let dimension = Arc::new(load_dimension(&store.table("d")?, None)?);
    let joins = vec![(JoinSpec::parse("d on key = id")?, dimension)];
    let join = StarJoin::new(source.schema(), None, joins, Encoding::Plain)?;
    let mut enrichment = Enrichment::new(join);
    if unmatched.is_some() {
        enrichment = enrichment.with_unmatched()?;
    }
    let mut sink = create(
        output,
        enrichment.join().output_schema(),
        &SinkOptions::default(),
    )?;
    let mut unmatched_sink = unmatched.map(|path| {
        create(
            path,
            enrichment.unmatched_schema().unwrap(),
            &SinkOptions::default(),
        )
        .unwrap()
    });
    let mut sinks = Sinks {
        output: &mut *sink,
        unmatched: None,
    };
    if let Some(unmatched) = &mut unmatched_sink {
        sinks.unmatched = Some(&mut **unmatched);
    }
    let report = enrichment.run(&mut *source, &mut sinks, control)?;
    sink.finish()?;
    if let Some(unmatched) = unmatched_sink {
        unmatched.finish()?;
    }
    Ok(report)
}

/// What a sink is given.
#[derive(Default)]
struct Kept(Vec<RecordBatch>);

impl Sink for Kept {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.0.push(batch.clone());
        Ok(())
    }

    fn seal(self: Box<Self>) -> Result<Sealed> {
        unreachable!("nobody finishes it")
    }

    fn num_bytes(&self) -> u64 {
        0
    }

    fn prefers(&self) -> ColumnForm {
        ColumnForm::Plain
    }
}

/// Parquet stores values; the encoding is what its readers get back.
#[test]
fn parquet_has_the_same_values_in_every_encoding_and_remembers_it() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("facts.arrow");
    write(&input, &facts(5_000, 700));
    let rows = names(&[0, 1, 2, 3, 4, 5, 7, 8], " is longer than a view holds");
    let mut builder = DimensionBuilder::new("d", rows.schema(), &["id".to_owned()]).unwrap();
    builder.upsert(rows).unwrap();
    let dimension = Arc::new(builder.finish().unwrap());
    for default in [None, Some("none")] {
        let mut plain: Option<RecordBatch> = None;
        for encoding in [Encoding::Plain, Encoding::View, Encoding::Dictionary] {
            let mut source = open(&input, &SourceOptions::default()).unwrap();
            let mut spec = JoinSpec::parse("d on key = id").unwrap();
            if let Some(default) = default {
                spec.on_miss = OnMiss::Default;
                spec.defaults = vec![("name".to_owned(), default.to_owned())];
            }
            let joins = vec![(spec, Arc::clone(&dimension))];
            let join = StarJoin::new(source.schema(), None, joins, encoding).unwrap();
            let enrichment = Enrichment::new(join);
            let schema = Arc::clone(enrichment.output_schema());
            let output = dir.path().join("out.parquet");
            let mut sink = create(&output, &schema, &SinkOptions::default()).unwrap();
            let mut sinks = Sinks {
                output: &mut *sink,
                unmatched: None,
            };
            enrichment
                .run(&mut *source, &mut sinks, &Control::default())
                .unwrap();
            sink.finish().unwrap();
            let found = read(&output);
            let types = |schema: &SchemaRef| -> Vec<DataType> {
                let fields = schema.fields().iter();
                fields.map(|field| field.data_type().clone()).collect()
            };
            assert_eq!(types(&found.schema()), types(&schema), "{encoding}");
            let names = cast(found.column(2), &DataType::Utf8).unwrap();
            let mut columns = found.columns().to_vec();
            columns[2] = names;
            let expected = plain.get_or_insert_with(|| found.clone());
            assert_eq!(columns, expected.columns(), "{encoding} {default:?}");
        }
    }
}

#[test]
fn what_plain_columns_cannot_or_should_not_hold_comes_as_views() {
    let long = "x".repeat(64 << 20);
    // One long value alone, and among so many short ones that values are short on average.
    let [alone, among] = [1, 1_300_000].map(|num_rows| {
        let mut values = vec![""; num_rows];
        values[0] = &long;
        let ids = 0..i64::try_from(num_rows).unwrap();
        let columns: [(&str, ArrayRef); 2] = [
            ("id", Arc::new(Int64Array::from_iter_values(ids))),
            ("name", Arc::new(StringArray::from(values))),
        ];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let mut builder = DimensionBuilder::new("d", rows.schema(), &["id".to_owned()]).unwrap();
        builder.upsert(rows).unwrap();
        Arc::new(builder.finish().unwrap())
    });
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("facts.arrow");
    for (dimension, num_rows, expected) in [
        (&alone, 2, DataType::Utf8View),
        // 2.5 GiB.
        (&among, 40, DataType::Utf8View),
        (&among, 2, DataType::Utf8),
    ] {
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![0; num_rows]));
        write(
            &input,
            &[RecordBatch::try_from_iter([("key", keys)]).unwrap()],
        );
        let mut source = open(&input, &SourceOptions::default()).unwrap();
        let joins = vec![(
            JoinSpec::parse("d on key = id").unwrap(),
            Arc::clone(dimension),
        )];
        let join = StarJoin::new(source.schema(), None, joins, Encoding::View).unwrap();
        let mut kept = Kept::default();
        let mut sinks = Sinks {
            output: &mut kept,
            unmatched: None,
        };
        Enrichment::new(join)
            .run(&mut *source, &mut sinks, &Control::default())
            .unwrap();
        let names = kept.0[0].column(1);
        assert_eq!(names.data_type(), &expected);
        assert_eq!((names.len(), names.null_count()), (num_rows, 0));
    }
}

/// A file of one record batch is one piece, and its batches are joined side by side.
#[test]
fn a_single_piece_is_joined_in_order_and_fails_at_its_first_row() {
    const NUM_ROWS: i64 = 5_000;
    let dir = tempfile::tempdir().unwrap();
    let ids: Vec<i64> = (0..NUM_ROWS).collect();
    let rows = |ids: &[i64]| {
        let names = names(ids, "!");
        let mut builder = DimensionBuilder::new("d", names.schema(), &["id".to_owned()]).unwrap();
        builder.upsert(names).unwrap();
        Arc::new(builder.finish().unwrap())
    };
    let keys: ArrayRef = Arc::new(Int64Array::from(ids.clone()));
    let one = RecordBatch::try_from_iter([("key", keys)]).unwrap();
    let input = dir.path().join("one.arrow");
    // The last batch has no rows.
    write(&input, &[one.clone(), one.slice(0, 0)]);
    let mut options = SourceOptions::default();
    options.batch_rows = 50;
    let output = dir.path().join("out.arrow");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(4);
    let pool = pool.build().unwrap();
    let run = |dimension: Arc<Dimension>, on_miss| {
        let mut source = open(&input, &options).unwrap();
        let mut spec = JoinSpec::parse("d on key = id").unwrap();
        spec.on_miss = on_miss;
        let joins = vec![(spec, dimension)];
        let join = StarJoin::new(source.schema(), None, joins, Encoding::Plain).unwrap();
        let enrichment = Enrichment::new(join).with_profile();
        let schema = enrichment.join().output_schema();
        let mut sink = create(&output, schema, &SinkOptions::default()).unwrap();
        let mut sinks = Sinks {
            output: &mut *sink,
            unmatched: None,
        };
        let control = Control::default();
        let report = pool.install(|| enrichment.run(&mut *source, &mut sinks, &control))?;
        sink.finish().map(|_| report)
    };
    let report = run(rows(&ids), OnMiss::Error).unwrap();
    let expected = concat_batches(&one.schema(), [&one]).unwrap();
    let got = read(&output);
    assert_eq!(got.column(0), expected.column(0));
    assert_eq!(got.column(1), names(&ids, "!").column(1));
    let profile = report.profile;
    assert_eq!(profile.joins.len(), 1);
    assert!(!profile.joins[0].probe.is_zero() && profile.join >= profile.joins[0].probe);

    let some: Vec<i64> = ids
        .into_iter()
        .filter(|id| ![3210, 3250, 4990].contains(id))
        .collect();
    let dimension = rows(&some);
    for _ in 0..20 {
        let error = run(Arc::clone(&dimension), OnMiss::Error).unwrap_err();
        assert!(error.to_string().contains("3210"), "{error}");
    }
}

#[test]
fn rows_leave_in_the_order_they_came_for_any_number_of_threads_and_batches() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store"), StoreOptions::default()).unwrap();
    let dimension = dir.path().join("d.parquet");
    write(&dimension, &[names(&[0, 1, 2, 3, 5, 6, 7, 9], "!")]);
    load(&store, &dimension, &options(&["id"])).unwrap();
    for (format, num_rows, batch_rows) in [
        ("arrow", 10_000, 50),
        ("arrow", 1, 1),
        ("arrows", 3000, 1000),
        ("parquet", 10_000, 10_000),
        ("csv", 10_000, 500),
        ("ndjson", 1000, 100),
    ] {
        let input = dir.path().join(format!("facts.{format}"));
        write(&input, &facts(num_rows, batch_rows));
        let output = dir.path().join(format!("out.{format}"));
        let unmatched = dir.path().join("unmatched.arrow");
        for num_threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(num_threads)
                .build()
                .unwrap();
            // Inside of the pool, where the calling thread is one of the workers.
            let report = pool
                .install(|| {
                    enrich(
                        &store,
                        &[&input],
                        &output,
                        Some(&unmatched),
                        &Control::default(),
                    )
                })
                .unwrap();
            let num_rows = u64::from(num_rows.unsigned_abs());
            assert_eq!(
                (report.num_rows_in, report.num_rows_out),
                (num_rows, num_rows)
            );
            let counters = report.joins[0].counters;
            assert_eq!(
                counters.num_matched + counters.num_missed + counters.num_null_keys,
                num_rows
            );
            let rows = read(&output);
            let rows = cast(rows.column_by_name("name").unwrap(), &DataType::Utf8).unwrap();
            let found = rows.as_string::<i32>();
            for row in 0..num_rows {
                let key = row % 10;
                let is_there = row % 7 != 3 && ![4, 8].contains(&key);
                let expected = is_there.then(|| format!("{key}!"));
                let got = found
                    .is_valid(row as usize)
                    .then(|| found.value(row as usize).to_owned());
                assert_eq!(got, expected, "{format} row {row}");
            }
            let missed = read(&unmatched);
            assert_eq!(missed.num_rows() as u64, counters.num_missed);
            assert_eq!(missed.schema().field(2).name(), "missed_in");
        }
    }
}

#[test]
fn several_files_are_one_input_and_a_stranger_among_them_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store"), StoreOptions::default()).unwrap();
    let paths: Vec<_> = ["a.arrow", "b.arrow", "c.arrow"]
        .map(|n| dir.path().join(n))
        .into();
    write(&paths[0], &facts(100, 10));
    write(&paths[1], &facts(50, 50));
    write(&paths[2], &[names(&[1], "")]);
    load(&store, &paths[2], &options(&["id"])).unwrap();
    let output = dir.path().join("out.parquet");
    let run = |inputs: &[&Path]| enrich(&store, inputs, &output, None, &Control::default());
    assert_eq!(run(&[&paths[0], &paths[1]]).unwrap().num_rows_out, 150);
    let before = std::fs::read(&output).unwrap();
    let error = run(&[&paths[0], &paths[1], &paths[2]]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.message().contains("c.arrow"), "{error}");
    assert_eq!(
        std::fs::read(&output).unwrap(),
        before,
        "the old output stays"
    );
    let names = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(names, 5, "three inputs, one output and the store");
}

#[test]
fn a_run_that_is_cancelled_leaves_no_output() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store"), StoreOptions::default()).unwrap();
    let input = dir.path().join("facts.arrow");
    write(&input, &facts(10_000, 10));
    let dimension = dir.path().join("d.csv");
    write(&dimension, &[names(&[1], "")]);
    load(&store, &dimension, &options(&["id"])).unwrap();
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cancel);
    let control = Control::default()
        .with_cancel(Arc::clone(&cancel))
        .with_watch(move |progress| {
            flag.store(progress.num_rows > 500, Ordering::Relaxed);
        });
    let output = dir.path().join("out.parquet");
    let error = enrich(&store, &[&input], &output, None, &control).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(!output.exists());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
}

#[test]
fn duplicate_and_null_keys_are_named_with_their_files_and_rows() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store"), StoreOptions::default()).unwrap();
    let path = dir.path().join("names.csv");
    std::fs::write(&path, "id,name\n1,a\n2,b\n1,c\n3,d\n1,e\n").unwrap();
    let error = load(&store, &path, &options(&["id"])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    for words in [
        "d: 2 duplicate keys",
        "first: 1",
        "rows 1 and 3 of",
        "names.csv",
        "--on-duplicate",
    ] {
        assert!(error.message().contains(words), "{error} lacks {words}");
    }
    assert!(store.table("d").is_err(), "nothing was loaded");

    let all = |store: &Store| {
        let rows: Vec<_> = store
            .table("d")
            .unwrap()
            .rows(None)
            .unwrap()
            .map(|rows| rows.unwrap())
            .collect();
        let rows = concat_batches(&rows[0].schema(), &rows).unwrap();
        let ids = rows.column(0).as_primitive::<Int64Type>().values().to_vec();
        let names = rows.column(1).as_string::<i32>();
        let names: Vec<_> = (0..rows.num_rows())
            .map(|row| names.value(row).to_owned())
            .collect();
        ids.into_iter()
            .zip(names)
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let mut first = options(&["id"]);
    first.on_duplicate = OnDuplicate::First;
    assert_eq!(load(&store, &path, &first).unwrap(), 3);
    assert_eq!(all(&store)[&1], "a");
    let mut last = options(&["id"]);
    last.on_duplicate = OnDuplicate::Last;
    assert_eq!(load(&store, &path, &last).unwrap(), 3);
    assert_eq!(all(&store)[&1], "e");
    assert_eq!(store.table("d").unwrap().num_rows().unwrap(), 3);

    std::fs::write(&path, "id,name\n7,a\n,b\n").unwrap();
    let error = load(&store, &path, &options(&["id"])).unwrap_err();
    for words in ["key is null", "`id`", "row 2 of", "names.csv"] {
        assert!(error.message().contains(words), "{error} lacks {words}");
    }
    std::fs::write(&path, "id,name,extra\n7,a,b\n").unwrap();
    let error = load(&store, &path, &options(&["id"])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("--mode replace"), "{error}");
    let mut replace = options(&["name"]);
    replace.mode = LoadMode::Replace;
    load(&store, &path, &replace).unwrap();
    assert_eq!(store.table("d").unwrap().key_names(), ["name"]);
}

#[test]
fn a_dimension_of_many_pages_updates_and_deletes_is_what_the_table_holds() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        page_bytes: 2000,
        bulk_bytes: 100_000,
        ..StoreOptions::default()
    };
    let store = Store::open(dir.path(), options).unwrap();
    let all: Vec<i64> = (0..20_000).collect();
    let rows = names(&all, "");
    let mut transaction = store.begin().unwrap();
    let spec = darner_store::TableSpec::new(&rows.schema(), &["id"]).unwrap();
    transaction.create_table("d", spec).unwrap();
    transaction.upsert("d", &rows).unwrap();
    transaction.commit().unwrap();
    let mut transaction = store.begin().unwrap();
    transaction
        .upsert("d", &names(&[5, 20_000], " new"))
        .unwrap();
    transaction
        .delete("d", &names(&[6, 7], "").project(&[0]).unwrap())
        .unwrap();
    transaction.upsert("d", &names(&[7], " again")).unwrap();
    transaction.commit().unwrap();
    let table = store.table("d").unwrap();
    assert!(table.pages().len() > 100);
    let dimension = load_dimension(&table, None).unwrap();
    assert_eq!(dimension.num_rows() as u64, table.num_rows().unwrap());
    let keys: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![4, 5, 6, 7, 20_000, 20_001]))];
    let found = dimension.get_many(&keys).unwrap();
    let names = found
        .batch
        .column_by_name("name")
        .unwrap()
        .as_string::<i32>()
        .iter();
    let names: Vec<_> = names.map(|name| name.map(str::to_owned)).collect();
    let expected = [
        Some("4"),
        Some("5 new"),
        None,
        Some("7 again"),
        Some("20000 new"),
        None,
    ];
    assert_eq!(names, expected.map(|name| name.map(str::to_owned)));
}
