use std::{fs::File, path::PathBuf, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray, TimestampMicrosecondArray,
    cast::AsArray,
    types::{Float64Type, UInt64Type},
};
use arrow_schema::DataType;
use darner_engine::ErrorKind;
use darner_sql::{
    OnDimensionChange, RefreshKind, RefreshOptions, RefreshReport, Session, SessionOptions,
};
use darner_store::{Store, StoreOptions, TableSpec};
use datafusion::{
    arrow::{
        compute::{cast, concat_batches},
        util::display::{ArrayFormatter, FormatOptions},
    },
    parquet::arrow::ArrowWriter,
};
use tempfile::TempDir;

use crate::random::{Random, seed};

/// A store, a session that may do everything, and a directory for files.
struct Place {
    session: Session,
    store: Arc<Store>,
    dir: TempDir,
    num_files: usize,
    num_rows: i64,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("facts")).unwrap();
        let (session, store) = open(&dir, |_| {});
        Self {
            session,
            store,
            dir,
            num_files: 0,
            num_rows: 0,
        }
    }

    /// With one file of twenty facts.
    fn with_facts(seed: u64) -> Self {
        let mut place = Self::new();
        let rows = place.facts(&mut Random::new(seed), 20);
        place.write(&rows);
        place
    }

    fn reopen(self) -> Self {
        let Self {
            session,
            store,
            dir,
            num_files,
            num_rows,
        } = self;
        drop(session);
        // The session's threads end by themselves.
        while Arc::strong_count(&store) > 1 {
            std::thread::yield_now();
        }
        Arc::into_inner(store).unwrap().close().unwrap();
        let (session, store) = open(&dir, |_| {});
        Self {
            session,
            store,
            dir,
            num_files,
            num_rows,
        }
    }

    fn pattern(&self) -> String {
        format!("{}/facts/*.parquet", self.dir.path().display())
    }

    /// Random facts whose column `o` goes on from those before.
    fn facts(&mut self, random: &mut Random, num_rows: usize) -> RecordBatch {
        let start = self.num_rows;
        self.num_rows += i64::try_from(num_rows).unwrap();
        facts(random, start, num_rows)
    }

    fn add_file(&mut self, random: &mut Random) {
        let num_rows = random.below(40);
        let rows = self.facts(random, num_rows);
        self.write(&rows);
    }

    fn write(&mut self, rows: &RecordBatch) {
        self.num_files += 1;
        let name = format!("{:04}.parquet", self.num_files);
        write_parquet(self.dir.path().join("facts").join(name), rows);
    }

    fn rows(&self, sql: &str) -> RecordBatch {
        self.try_rows(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    fn try_rows(&self, sql: &str) -> darner_engine::Result<RecordBatch> {
        let rows = self.session.query(sql)?;
        let schema = Arc::clone(rows.schema());
        let rows: Vec<RecordBatch> = rows.collect::<Result<_, _>>()?;
        Ok(concat_batches(&schema, &rows).unwrap())
    }

    fn refresh(&self, name: &str) -> RefreshReport {
        let report = self.session.refresh_view(name, &RefreshOptions::default());
        report.unwrap_or_else(|error| panic!("{name}: {error:?}"))
    }

    /// Fails unless a view has the rows of a query.
    #[track_caller]
    fn check(&self, name: &str, query: &str) {
        let expected = self.rows(query);
        let found = self.rows(&format!("SELECT * FROM {name}"));
        same_rows(&found, &expected, query);
    }

    fn fails(&self, sql: &str, kind: ErrorKind, words: &[&str]) {
        let error = self.try_rows(sql).unwrap_err();
        let text = format!("{error:?}");
        assert_eq!(error.kind(), kind, "{sql}: {text}");
        for word in words {
            assert!(text.contains(word), "{sql}: `{word}` is not in: {text}");
        }
    }
}

fn open(dir: &TempDir, change: impl FnOnce(&mut SessionOptions)) -> (Session, Arc<Store>) {
    let store = Store::open(dir.path().join("store"), StoreOptions::default()).unwrap();
    let store = Arc::new(store);
    (session_on(&store, change), store)
}

fn session_on(store: &Arc<Store>, change: impl FnOnce(&mut SessionOptions)) -> Session {
    let mut options = SessionOptions::default();
    options.num_threads = 2;
    options.read_only = false;
    options.allow_files = true;
    change(&mut options);
    let session = Session::with_options(options).unwrap();
    session.register_store(Arc::clone(store));
    session
}

fn write_parquet(path: PathBuf, rows: &RecordBatch) {
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), None).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
}

/// Facts with nulls in all columns but `o`, which numbers them. Numbers are such that their sums are exact.
fn facts(random: &mut Random, start: i64, num_rows: usize) -> RecordBatch {
    let words = ["", "a", "b", "ab", "long words are no views", "Ünïcode"];
    let mut k1 = Vec::new();
    let mut k2 = Vec::new();
    let (mut times, mut decimals, mut floats, mut flags, mut ints, mut texts) = (
        Vec::new(),
        Vec::new(),
        Vec::new(),
        Vec::new(),
        Vec::new(),
        Vec::new(),
    );
    for _ in 0..num_rows {
        let some = |random: &mut Random| !random.is_one_in(6);
        k1.push(some(random).then(|| *random.pick(&words)));
        k2.push(some(random).then(|| random.int(-3..4)));
        times.push(some(random).then(|| random.int(-8_000_000_000..20_000_000_000)));
        decimals.push(some(random).then(|| i128::from(random.int(-99_999..99_999))));
        floats.push(some(random).then(|| {
            let whole = i32::try_from(random.int(-40..40)).unwrap();
            f64::from(whole) / 4.0
        }));
        flags.push(some(random).then(|| random.chance(50)));
        ints.push(some(random).then(|| i32::try_from(random.int(-100..100)).unwrap()));
        texts.push(some(random).then(|| format!("{}{}", random.pick(&words), random.int(0..30))));
    }
    let end = start + i64::try_from(num_rows).unwrap();
    let decimals = Decimal128Array::from(decimals)
        .with_precision_and_scale(12, 2)
        .unwrap();
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("k1", Arc::new(StringArray::from(k1)), true),
        ("k2", Arc::new(Int64Array::from(k2)), true),
        ("ts", Arc::new(TimestampMicrosecondArray::from(times)), true),
        ("d", Arc::new(decimals), true),
        ("f", Arc::new(Float64Array::from(floats)), true),
        ("b", Arc::new(BooleanArray::from(flags)), true),
        ("n", Arc::new(Int32Array::from(ints)), true),
        ("s", Arc::new(StringArray::from(texts)), true),
        (
            "o",
            Arc::new(Int64Array::from_iter_values(start..end)),
            true,
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// Fails unless both have the same rows in any order; floating-point numbers may differ by how they are rounded, and
/// estimates by a tenth of what they range over.
#[track_caller]
fn same_rows(found: &RecordBatch, expected: &RecordBatch, query: &str) {
    let names = |rows: &RecordBatch| -> Vec<String> {
        let schema = rows.schema();
        schema
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect()
    };
    assert_eq!(names(found), names(expected), "{query}");
    assert_eq!(found.num_rows(), expected.num_rows(), "{query}");
    let (found, expected) = (sorted(found), sorted(expected));
    for (left, right) in found.iter().zip(&expected) {
        let same = left.0 == right.0
            && left
                .1
                .iter()
                .zip(&right.1)
                .all(|(left, right)| match (left, right) {
                    (Some(left), Some(right)) => {
                        let bound = if query.contains("approx_percentile") {
                            2.0
                        } else {
                            1e-9 * left.abs().max(1.0)
                        };
                        (left - right).abs() <= bound || left.to_bits() == right.to_bits()
                    }
                    (left, right) => left.is_none() && right.is_none(),
                });
        assert!(same, "{query}:\n{left:?}\n{right:?}");
    }
}

/// Rows as text without their floating-point numbers, and these.
fn sorted(rows: &RecordBatch) -> Vec<(Vec<String>, Vec<Option<f64>>)> {
    let options = FormatOptions::default().with_null("null");
    let mut texts = vec![(Vec::new(), Vec::new()); rows.num_rows()];
    for column in rows.columns() {
        if *column.data_type() == DataType::Float64 {
            let column = column.as_primitive::<Float64Type>();
            for (row, text) in texts.iter_mut().enumerate() {
                text.1.push(column.is_valid(row).then(|| column.value(row)));
            }
            continue;
        }
        // Views, dictionaries and plain strings are the same text.
        let column = match column.data_type() {
            DataType::Utf8View => cast(column, &DataType::Utf8).unwrap(),
            _ => Arc::clone(column),
        };
        let formatter = ArrayFormatter::try_new(&column, &options).unwrap();
        for (row, text) in texts.iter_mut().enumerate() {
            text.0.push(formatter.value(row).to_string());
        }
    }
    texts.sort_by(|left, right| {
        let numbers = |row: &(Vec<String>, Vec<Option<f64>>)| format!("{:?}", row.1);
        left.0
            .cmp(&right.0)
            .then_with(|| numbers(left).cmp(&numbers(right)))
    });
    texts
}

/// Queries over facts, all of them refreshed by new rows alone.
const QUERIES: [&str; 13] = [
    "SELECT k1, k2, count(*) AS c, count(f) AS cf, sum(n) AS sn, sum(d) AS sd, avg(f) AS af, avg(d) AS ad, min(ts) AS t0, \
     max(ts) AS t1, min(s) AS s0, max(s) AS s1, bool_and(b) AS ba, bool_or(b) AS bo, bit_and(n) AS na, bit_or(n) AS no, \
     bit_xor(n) AS nx FROM FACTS GROUP BY k1, k2",
    "SELECT k1, stddev(f) AS a, stddev_pop(f) AS b, var(f) AS c, var_pop(n) AS d, covar_samp(f, n) AS e, \
     covar_pop(f, n) AS g FROM FACTS GROUP BY k1",
    "SELECT date_trunc('hour', ts) AS h, first_value(s ORDER BY o) AS a, last_value(s ORDER BY o) AS b, \
     array_agg(o ORDER BY o DESC) AS c, array_agg(DISTINCT k2 ORDER BY k2) AS e, nth_value(o, 2 ORDER BY o) AS g \
     FROM FACTS GROUP BY date_trunc('hour', ts)",
    "SELECT k2, string_agg(s, ',' ORDER BY o) AS a, first_value(f ORDER BY o DESC) AS b FROM FACTS GROUP BY k2",
    "SELECT k1, approx_distinct(s) AS a, count(DISTINCT s) AS b, sum(DISTINCT n) AS c, median(n) AS e FROM FACTS GROUP BY k1",
    "SELECT k1, b, grouping(k1) AS gk, count(*) AS c, sum(n) AS s FROM FACTS GROUP BY ROLLUP (k1, b)",
    "SELECT k1, k2, sum(n) AS s FROM FACTS GROUP BY GROUPING SETS ((k1), (k2), ())",
    "SELECT count(*) AS c, sum(n) AS s, max(d) AS d, avg(f) AS a, count(DISTINCT k1) AS k FROM FACTS",
    "SELECT abs(k2) % 3 AS k, sum(n) FILTER (WHERE b) AS s, count(*) * 2 + 1 AS c, coalesce(max(s), '-') AS m FROM FACTS \
     WHERE n > -50 GROUP BY abs(k2) % 3 HAVING count(*) > 2",
    "SELECT f, count(*) AS c, min(d) AS d FROM FACTS GROUP BY f",
    "SELECT d, b, count(*) FILTER (WHERE n > 0) AS c FROM FACTS GROUP BY d, b",
    "SELECT k1, approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY f) AS p FROM FACTS GROUP BY k1",
    "WITH good AS (SELECT *, n * 2 AS twice FROM FACTS WHERE o % 7 <> 0) SELECT x.k, sum(x.twice) AS s FROM \
     (SELECT upper(k1) AS k, twice FROM good) x GROUP BY x.k ORDER BY s DESC",
];

#[test]
fn views_of_files_are_what_their_queries_say() {
    let seed = seed(7);
    for round in 0..3 {
        let mut random = Random::new(seed + round);
        let mut place = Place::new();
        place.add_file(&mut random);
        let queries =
            QUERIES.map(|query| query.replace("FACTS", &format!("'{}'", place.pattern())));
        for (i, query) in queries.iter().enumerate() {
            let report = place.session.create_view(&format!("v{i}"), query, false);
            let report = report.unwrap_or_else(|error| panic!("{query}: {error:?}"));
            assert_eq!(
                (report.kind, report.reason),
                (RefreshKind::Created, None),
                "{query}"
            );
            place.check(&format!("v{i}"), query);
        }
        for _ in 0..4 {
            for _ in 0..random.below(3) {
                place.add_file(&mut random);
            }
            if random.is_one_in(3) {
                place = place.reopen();
            }
            for (i, query) in queries.iter().enumerate() {
                let name = format!("v{i}");
                let report = place.refresh(&name);
                assert!(report.kind != RefreshKind::Rebuilt, "{query}");
                assert_eq!(place.refresh(&name).kind, RefreshKind::UpToDate, "{query}");
                place.check(&name, query);
            }
        }
        for (i, query) in queries.iter().enumerate() {
            let found = place.session.verify_view(&format!("v{i}")).unwrap();
            assert_eq!(found.num_problems, 0, "{query}: {:?}", found.problems);
        }
    }
}

/// The states of an average over all rows were finished by the form of the function that counts for groups: it takes a
/// count of 0 for a value that is there, and gave NaN. Random data had only nulls in a column by chance.
#[test]
fn an_average_of_nothing_is_null() {
    let mut place = Place::new();
    let rows = facts(&mut Random::new(1), 0, 3);
    let mut columns = rows.columns().to_vec();
    columns[4] = Arc::new(Float64Array::from(vec![None; 3]));
    place.write(&RecordBatch::try_new(rows.schema(), columns).unwrap());
    for (i, group) in ["", " GROUP BY o", " GROUP BY ROLLUP (o)"]
        .iter()
        .enumerate()
    {
        let query = format!(
            "SELECT avg(f) AS a, sum(f) AS s, stddev(f) AS d, count(f) AS c, min(f) AS m FROM '{}'{group}",
            place.pattern()
        );
        let name = format!("v{i}");
        place.session.create_view(&name, &query, false).unwrap();
        place.check(&name, &query);
    }
}

#[test]
fn filters_on_groups_and_single_groups_are_found() {
    let mut random = Random::new(seed(8));
    let mut place = Place::new();
    for _ in 0..4 {
        place.add_file(&mut random);
    }
    let query = format!(
        "SELECT count(*) AS c, k1, sum(n) + 1 AS s, k2 FROM '{}' GROUP BY k1, k2 HAVING count(*) > 1",
        place.pattern()
    );
    place.session.create_view("v", &query, false).unwrap();
    for filter in [
        "k1 = 'a'",
        "k2 > 0 AND k1 <> 'a'",
        "k1 IS NULL",
        "s > 5",
        "k2 IN (1, 2) AND c > 2",
        "c > 0 ORDER BY k1, k2 LIMIT 4",
        "c > 0 ORDER BY s DESC, k2, k1 LIMIT 4",
    ] {
        let found = place.rows(&format!("SELECT * FROM v WHERE {filter}"));
        let expected = place.rows(&format!("SELECT * FROM ({query}) WHERE {filter}"));
        same_rows(&found, &expected, filter);
    }
    let all = place.rows("SELECT count(*) AS c FROM v");
    let all = cast(all.column(0), &DataType::UInt64).unwrap();
    let num_rows = place.rows(&query).num_rows() as u64;
    assert_eq!(all.as_primitive::<UInt64Type>().value(0), num_rows);
    let schema = place.session.view_key_schema("v").unwrap();
    assert_eq!(schema.fields().len(), 2);
    for k1 in [None, Some("a"), Some("none such")] {
        for k2 in [None, Some(1), Some(99)] {
            let keys: [ArrayRef; 2] = [
                Arc::new(StringArray::from(vec![k1])),
                Arc::new(Int64Array::from(vec![k2])),
            ];
            let found = place.session.view_get("v", &keys).unwrap();
            let k1 = k1.map_or("IS NULL".to_owned(), |k1| format!("= '{k1}'"));
            let k2 = k2.map_or("IS NULL".to_owned(), |k2| format!("= {k2}"));
            let expected = place.rows(&format!(
                "SELECT * FROM ({query}) WHERE k1 {k1} AND k2 {k2}"
            ));
            match &found[..] {
                [None] => assert_eq!(expected.num_rows(), 0, "{k1} {k2}"),
                [Some(row)] => same_rows(row, &expected, "get"),
                _ => panic!("one answer for each key"),
            }
        }
    }
    // Rows whose key has a null are no part of a dimension.
    let key = ["k1".to_owned(), "k2".to_owned()];
    let dimension = place.session.view_dimension("v", &key).unwrap();
    let expected = place.rows(&format!(
        "SELECT * FROM ({query}) WHERE k1 IS NOT NULL AND k2 IS NOT NULL"
    ));
    assert_eq!(dimension.num_rows(), expected.num_rows());
    let error = place.session.view_dimension("v", &key[..1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
}

#[test]
fn what_cannot_be_incremental_says_why_and_is_computed_in_full() {
    let mut random = Random::new(seed(9));
    let mut place = Place::new();
    place.add_file(&mut random);
    place.add_file(&mut random);
    place.rows("CREATE TABLE dim (PRIMARY KEY (k)) AS SELECT * FROM (VALUES (1, 'one'), (2, 'two')) t(k, name)");
    let facts = format!("'{}'", place.pattern());
    let cases = [
        ("SELECT DISTINCT k1, k2 FROM FACTS", "DISTINCT"),
        ("SELECT k1, n FROM FACTS WHERE n > 90", "no GROUP BY"),
        (
            "SELECT max(c) AS m FROM (SELECT k1, count(*) AS c FROM FACTS GROUP BY k1)",
            "another GROUP BY",
        ),
        (
            "SELECT count(*) AS c FROM (SELECT * FROM FACTS ORDER BY o LIMIT 3)",
            "below its groups",
        ),
        (
            "SELECT k1, count(*) AS c FROM FACTS WHERE n > (SELECT avg(k) FROM dim) GROUP BY k1",
            "subquery",
        ),
        (
            "SELECT name, count(*) AS c FROM dim LEFT JOIN FACTS ON k = k2 GROUP BY name",
            "join",
        ),
        (
            "SELECT name, count(*) AS c FROM FACTS FULL JOIN dim ON k = k2 GROUP BY name",
            "join",
        ),
        (
            "SELECT a.k1, count(*) AS c FROM FACTS a JOIN FACTS b ON a.o = b.o GROUP BY a.k1",
            "twice",
        ),
    ];
    for (i, (query, word)) in cases.iter().enumerate() {
        let query = query.replace("FACTS", &facts);
        let name = format!("full{i}");
        let report = place.session.create_view(&name, &query, false).unwrap();
        let reason = report.reason.unwrap_or_else(|| panic!("{query}"));
        assert!(reason.contains(word), "{query}: {reason}");
        place.check(&name, &query);
        let explained = place.rows(&format!("EXPLAIN MATERIALIZED VIEW {name}"));
        assert!(format!("{explained:?}").contains(word), "{explained:?}");
    }
    place.add_file(&mut random);
    for (i, (query, _)) in cases.iter().enumerate() {
        let name = format!("full{i}");
        assert_eq!(place.refresh(&name).kind, RefreshKind::Rebuilt);
        place.check(&name, &query.replace("FACTS", &facts));
        assert_eq!(place.session.verify_view(&name).unwrap().num_problems, 0);
    }
}

#[test]
fn dimensions_are_joined_as_of_the_refresh() {
    let mut random = Random::new(seed(10));
    let mut place = Place::new();
    place.add_file(&mut random);
    place.rows("CREATE TABLE dim (PRIMARY KEY (k)) AS SELECT * FROM (VALUES (1, 'one'), (2, 'two'), (-1, 'minus')) t(k, name)");
    let facts = format!("'{}'", place.pattern());
    let inner = format!(
        "SELECT name, count(*) AS c, sum(n) AS s FROM {facts} JOIN dim ON k = k2 GROUP BY name"
    );
    let left = format!(
        "SELECT d.name, d.k, count(*) AS c FROM {facts} f LEFT JOIN dim d ON d.k = f.k2 GROUP BY d.name, d.k"
    );
    let right = format!(
        "SELECT d.k, max(f.s) AS m FROM dim d RIGHT JOIN {facts} f ON d.k = f.k2 GROUP BY d.k"
    );
    let views = [("i", &inner), ("l", &left), ("r", &right)];
    for (name, query) in views {
        let report = place.session.create_view(name, query, false).unwrap();
        assert_eq!(report.reason, None, "{query}");
        place.check(name, query);
    }
    for _ in 0..2 {
        place.add_file(&mut random);
        for (name, query) in views {
            place.refresh(name);
            place.check(name, query);
        }
    }
    let before = place.rows("SELECT * FROM i");
    place.rows("UPDATE dim SET name = 'uno' WHERE k = 1");
    // Nothing new is counted, so nothing is another way.
    let report = place.refresh("i");
    assert_eq!(report.kept_dimensions, ["dim"]);
    same_rows(&place.rows("SELECT * FROM i"), &before, "kept");
    // New rows meet the new name; the old ones keep theirs.
    place.write(&{
        let mut rows = facts_of(1, 3);
        rows = rows.slice(0, 3);
        rows
    });
    place.refresh("i");
    let kept = place.rows("SELECT c FROM i WHERE name = 'uno'");
    assert_eq!(
        kept.column(0)
            .as_primitive::<arrow_array::types::Int64Type>()
            .values(),
        &[3]
    );
    let info = place.session.view("i").unwrap();
    assert!(
        info.dimensions[0].first_version < info.dimensions[0].last_version,
        "{info:?}"
    );
    let mut options = RefreshOptions::default();
    options.on_dimension_change = OnDimensionChange::Rebuild;
    let report = place.session.refresh_view("i", &options).unwrap();
    assert_eq!(report.kind, RefreshKind::Rebuilt);
    place.check("i", &inner);
    // A view can be read without its dimensions, and not be refreshed.
    place.rows("DROP TABLE dim");
    assert!(place.rows("SELECT * FROM l").num_rows() > 0);
    place.write(&facts_of(2, 1));
    let error = place
        .session
        .refresh_view("l", &RefreshOptions::default())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert!(error.message().contains("dim"), "{error:?}");
}

/// Facts that all have this `k2`.
fn facts_of(k2: i64, num_rows: usize) -> RecordBatch {
    let rows = facts(&mut Random::new(1), 1_000_000, num_rows);
    let mut columns = rows.columns().to_vec();
    columns[1] = Arc::new(Int64Array::from(vec![k2; num_rows]));
    RecordBatch::try_new(rows.schema(), columns).unwrap()
}

#[test]
fn pushed_rows_are_counted_once() {
    let seed = seed(11);
    for round in 0..4 {
        let mut random = Random::new(seed + round);
        let mut place = Place::new();
        // All rows of a stream, and where each batch begins.
        let stream = place.facts(&mut random, 400);
        place.write(&stream);
        let over = |facts: &str| {
            format!(
                "SELECT k1, count(*) AS c, sum(n) AS s, array_agg(o ORDER BY o) AS o FROM {facts} GROUP BY k1"
            )
        };
        let made =
            place
                .session
                .create_pushed_view("v", &over("events"), "events", &stream.schema());
        assert_eq!(made.unwrap().num_groups, 0);
        loop {
            let mut writer = place.session.view_writer("v").unwrap();
            let start = writer
                .watermark()
                .map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
            let mut at = usize::try_from(start).unwrap();
            let mut committed = at;
            while at < stream.num_rows() && !random.is_one_in(8) {
                let num_rows = random.below(30).min(stream.num_rows() - at);
                at += num_rows;
                let rows = stream.slice(at - num_rows, num_rows);
                writer.push(&rows, &(at as u64).to_le_bytes()).unwrap();
                if random.is_one_in(3) {
                    writer.commit().unwrap();
                    committed = at;
                }
            }
            // Gone, as with the program.
            drop(writer);
            if random.is_one_in(3) {
                place = place.reopen();
            }
            let counted = format!(
                "(SELECT * FROM '{}' WHERE o < {committed})",
                place.pattern()
            );
            let so_far = place.rows("SELECT coalesce(sum(c), 0) AS c FROM v");
            let so_far = cast(so_far.column(0), &DataType::UInt64).unwrap();
            if so_far.as_primitive::<UInt64Type>().value(0) == committed as u64 {
                place.check("v", &over(&counted));
            } else {
                // A second has passed on a busy machine, and more was committed.
                let writer = place.session.view_writer("v").unwrap();
                assert!(writer.watermark().is_some());
            }
            if committed == stream.num_rows() {
                break;
            }
        }
        let error = place.session.view_writer("none").err().unwrap();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let mut writer = place.session.view_writer("v").unwrap();
        let error = writer
            .push(&stream.project(&[0, 1]).unwrap(), b"x")
            .unwrap_err();
        assert!(error.message().contains("`ts`"), "{error:?}");
        let error = place.session.verify_view("v").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let mut options = RefreshOptions::default();
        options.rebuild = true;
        let error = place.session.refresh_view("v", &options).unwrap_err();
        assert!(
            error.message().contains("cannot be read again"),
            "{error:?}"
        );
    }
}

#[test]
fn views_of_tables_follow_their_changes() {
    let seed = seed(12);
    for round in 0..4 {
        let mut random = Random::new(seed + round);
        let place = Place::new();
        let mut all = facts(&mut random, 0, 60);
        let spec = TableSpec::new(&all.schema(), &["o"]).unwrap();
        let mut transaction = place.store.begin().unwrap();
        transaction.create_table("facts", spec).unwrap();
        transaction
            .set_retention(
                "facts",
                darner_store::Retention {
                    num_versions: 100,
                    ..darner_store::Retention::default()
                },
            )
            .unwrap();
        transaction.upsert("facts", &all).unwrap();
        transaction.commit().unwrap();
        let queries = [
            "SELECT k1, count(*) AS c, sum(n) AS s, max(ts) AS t FROM facts GROUP BY k1",
            "SELECT k2, b, array_agg(o ORDER BY o) AS o FROM facts GROUP BY ROLLUP (k2, b)",
            "SELECT count(*) AS c, min(d) AS d FROM facts",
            // Of these, rows are taken back.
            "SELECT k2, count(*) AS c, count(n) AS cn, sum(n) AS s, avg(n) AS a, sum(d) AS d, avg(d) AS ad, \
             avg(k2 + 1) AS ak, count(*) FILTER (WHERE b) AS cb, sum(n) FILTER (WHERE b) AS sb, \
             avg(n) FILTER (WHERE NOT b) AS ab FROM facts GROUP BY k2",
            "SELECT sum(d) AS d, avg(n) AS a, count(s) AS c FROM facts WHERE k2 > 1",
            "SELECT k1, b, avg(n) * 2 AS a FROM facts WHERE f IS NOT NULL GROUP BY k1, b HAVING count(*) > 1",
            "SELECT name, count(*) AS c, sum(n) AS s FROM facts LEFT JOIN dim ON k = k2 GROUP BY name",
        ];
        place.rows(
            "CREATE TABLE dim (PRIMARY KEY (k)) AS SELECT * FROM (VALUES (1, 'a'), (2, 'b'), (-1, 'a')) t(k, name)",
        );
        let num_recomputed = 3;
        for (i, query) in queries.iter().enumerate() {
            let report = place
                .session
                .create_view(&format!("v{i}"), query, false)
                .unwrap();
            assert_eq!(report.reason, None);
        }
        let mut kinds = vec![Vec::new(); queries.len()];
        for _ in 0..8 {
            let is_new_only = random.is_one_in(2);
            let num_rows = random.below(10) + 1;
            let start = if is_new_only {
                random.int(1000..1_000_000)
            } else {
                random.int(0..60)
            };
            all = facts(&mut random, start, num_rows);
            let mut transaction = place.store.begin().unwrap();
            transaction.upsert("facts", &all).unwrap();
            transaction.commit().unwrap();
            if !is_new_only && random.is_one_in(2) {
                place.rows(&format!(
                    "DELETE FROM facts WHERE o % 13 = {}",
                    random.int(0..13)
                ));
            }
            for (i, query) in queries.iter().enumerate() {
                let name = format!("v{i}");
                kinds[i].push(place.refresh(&name).kind);
                place.check(&name, query);
                assert_eq!(place.session.verify_view(&name).unwrap().num_problems, 0);
            }
        }
        for (i, kinds) in kinds.iter().enumerate() {
            let is_recomputed = i < num_recomputed;
            let found = kinds.contains(&RefreshKind::GroupsRecomputed);
            assert_eq!(found, is_recomputed, "{}: {kinds:?}", queries[i]);
            assert!(!kinds.contains(&RefreshKind::Rebuilt), "{kinds:?}");
            let info = place.session.view(&format!("v{i}")).unwrap();
            let changes = info.changes.unwrap();
            assert_eq!(changes.contains("anew"), is_recomputed, "{changes}");
            // What is counted beside them is nobody's concern.
            assert!(!info.aggregates.iter().any(|name| name.contains("darner")));
        }
        if round == 0 {
            place.rows("DELETE FROM facts");
            for (i, query) in queries.iter().enumerate() {
                place.refresh(&format!("v{i}"));
                place.check(&format!("v{i}"), query);
            }
        }
    }
}

#[test]
fn many_groups_are_merged_by_all_threads() {
    const NUM_GROUPS: i64 = 20_000;
    let mut place = Place::new();
    let mut random = Random::new(seed(14));
    // All groups come in each file, in another order, and some of them twice.
    let rows = |random: &mut Random, start: i64| {
        let twice = (0..NUM_GROUPS / 4).map(|group| group * 3);
        let mut groups: Vec<i64> = (0..NUM_GROUPS).chain(twice).collect();
        for place in (1..groups.len()).rev() {
            groups.swap(place, random.below(place + 1));
        }
        let rows = facts(random, start, groups.len());
        let mut columns = rows.columns().to_vec();
        columns[1] = Arc::new(Int64Array::from(groups));
        RecordBatch::try_new(rows.schema(), columns).unwrap()
    };
    let facts = format!("'{}'", place.pattern());
    let queries = [
        format!(
            "SELECT k2, count(*) AS c, sum(n) AS s, min(s) AS m, avg(d) AS a FROM {facts} GROUP BY k2"
        ),
        format!(
            "SELECT k2, first_value(s ORDER BY o) AS a, last_value(n ORDER BY o) AS b, array_agg(o ORDER BY o) AS c \
             FROM {facts} GROUP BY k2"
        ),
    ];
    for file in 0..3 {
        place.write(&rows(&mut random, file * 100_000));
        for (i, query) in queries.iter().enumerate() {
            let name = format!("v{i}");
            if file == 0 {
                place.session.create_view(&name, query, false).unwrap();
            } else {
                let report = place.refresh(&name);
                assert_eq!(report.kind, RefreshKind::Merged);
                assert_eq!(report.num_groups, 20_000);
            }
            place.check(&name, query);
        }
    }
}

#[test]
fn a_refresh_that_touches_most_groups_keeps_the_others() {
    let mut place = Place::new();
    let mut random = Random::new(seed(15));
    let query = format!(
        "SELECT k2, count(*) AS c, sum(n) AS s, avg(d) AS a, array_agg(o ORDER BY o) AS all_o FROM '{}' GROUP BY k2",
        place.pattern()
    );
    // All of them, most, a few, none of those that are there and most, all.
    let files = [0..1000, 300..900, 5..15, 1000..4000, 0..4000];
    for (file, groups) in (0..).zip(files) {
        let num_groups = groups.clone().count();
        let rows = facts(&mut random, file * 10_000, num_groups);
        let mut columns = rows.columns().to_vec();
        columns[1] = Arc::new(Int64Array::from_iter_values(groups.map(i64::from)));
        place.write(&RecordBatch::try_new(rows.schema(), columns).unwrap());
        if file == 0 {
            place.session.create_view("v", &query, false).unwrap();
        } else {
            let report = place.refresh("v");
            assert_eq!(report.kind, RefreshKind::Merged);
            assert_eq!(report.num_groups, num_groups as u64);
        }
        place.check("v", &query);
        if file % 2 == 1 {
            place = place.reopen();
            place.check("v", &query);
        }
    }
    assert_eq!(place.session.verify_view("v").unwrap().num_problems, 0);
}

#[test]
fn changed_and_vanished_files_are_errors_until_a_rebuild() {
    let mut random = Random::new(seed(13));
    let mut place = Place::new();
    place.add_file(&mut random);
    place.add_file(&mut random);
    let query = format!(
        "SELECT k1, count(*) AS c FROM '{}' GROUP BY k1",
        place.pattern()
    );
    place.rows(&format!("CREATE MATERIALIZED VIEW v AS {query}"));
    let before = place.rows("SELECT * FROM v");
    let first = place.dir.path().join("facts/0001.parquet");
    write_parquet(first.clone(), &facts_of(1, 50));
    place.fails(
        "REFRESH MATERIALIZED VIEW v",
        ErrorKind::Data,
        &["0001.parquet", "changed", "rebuild"],
    );
    std::fs::remove_file(&first).unwrap();
    place.fails(
        "REFRESH MATERIALIZED VIEW v",
        ErrorKind::Data,
        &["0001.parquet", "gone", "rebuild"],
    );
    same_rows(&place.rows("SELECT * FROM v"), &before, "as before");
    place.rows("REFRESH MATERIALIZED VIEW v REBUILD");
    place.check("v", &query);
    // Not what the pattern names, and counted once.
    let late = place.dir.path().join("late.parquet");
    write_parquet(late.clone(), &facts_of(1, 5));
    for _ in 0..2 {
        place.rows(&format!(
            "REFRESH MATERIALIZED VIEW v FROM '{}'",
            late.display()
        ));
        let both = format!(
            "SELECT k1, count(*) AS c FROM (SELECT k1 FROM '{}' UNION ALL SELECT k1 FROM '{}') GROUP BY k1",
            place.pattern(),
            late.display()
        );
        place.check("v", &both);
        assert_eq!(place.session.verify_view("v").unwrap().num_problems, 0);
    }
    // A damaged file, and one with other columns, change nothing.
    let before = place.rows("SELECT * FROM v");
    let bad = place.dir.path().join("facts/0009.parquet");
    std::fs::write(&bad, b"PAR1 but not really").unwrap();
    assert!(place.try_rows("REFRESH MATERIALIZED VIEW v").is_err());
    let other = facts_of(1, 2).project(&[1, 2]).unwrap();
    write_parquet(bad.clone(), &other);
    place.fails(
        "REFRESH MATERIALIZED VIEW v",
        ErrorKind::Invalid,
        &["0009.parquet", "k1"],
    );
    same_rows(&place.rows("SELECT * FROM v"), &before, "as before");
}

#[test]
fn a_view_is_no_table_and_a_table_no_view() {
    let mut random = Random::new(seed(14));
    let mut place = Place::new();
    place.add_file(&mut random);
    let query = format!(
        "SELECT k1, count(*) AS c FROM '{}' GROUP BY k1",
        place.pattern()
    );
    place.rows("CREATE TABLE t (id BIGINT, PRIMARY KEY (id))");
    place.fails(
        &format!("CREATE MATERIALIZED VIEW t AS {query}"),
        ErrorKind::Conflict,
        &["`t`"],
    );
    place.fails(
        &format!("CREATE OR REPLACE MATERIALIZED VIEW t AS {query}"),
        ErrorKind::Conflict,
        &["`t`"],
    );
    place.rows(&format!("CREATE MATERIALIZED VIEW v AS {query}"));
    place.fails(
        &format!("CREATE MATERIALIZED VIEW v AS {query}"),
        ErrorKind::Conflict,
        &["`v`", "OR REPLACE"],
    );
    place.rows(&format!(
        "CREATE MATERIALIZED VIEW IF NOT EXISTS v AS {query}"
    ));
    for sql in [
        "INSERT INTO v VALUES ('x', 1)",
        "DELETE FROM v WHERE k1 = 'x'",
        "UPDATE v SET c = 1",
        "DROP TABLE v",
        "CREATE OR REPLACE TABLE v (PRIMARY KEY (a)) AS SELECT 1 AS a",
        "CREATE TABLE v (a BIGINT, PRIMARY KEY (a))",
        "SELECT dim_get('v', 'x', 'c')",
        "SELECT * FROM darner_at('v', 1)",
    ] {
        let error = place.try_rows(sql).unwrap_err();
        assert!(format!("{error:?}").contains('v'), "{sql}: {error:?}");
        place.check("v", &query);
    }
    for (sql, word) in [
        ("REFRESH MATERIALIZED VIEW t", "no view"),
        ("DROP MATERIALIZED VIEW t", "no view"),
        ("REFRESH MATERIALIZED VIEW nowhere", "nowhere"),
        ("REFRESH MATERIALIZED VIEW v NOW", "NOW"),
        (
            "CREATE MATERIALIZED VIEW w AS SELECT * FROM nowhere",
            "nowhere",
        ),
        ("CREATE MATERIALIZED VIEW w AS SELECT 1 AS a, 2 AS a", "a"),
        (
            "CREATE MATERIALIZED VIEW w (a, b) AS SELECT 1 AS a",
            "names",
        ),
        ("CREATE MATERIALIZED VIEW w AS VALUES", ""),
    ] {
        let error = place.try_rows(sql).unwrap_err();
        assert!(format!("{error:?}").contains(word), "{sql}: {error:?}");
    }
    assert_eq!(place.session.view_names(), ["v"]);
    place.rows(&format!(
        "CREATE OR REPLACE MATERIALIZED VIEW v (kind, number) AS {query}"
    ));
    assert_eq!(
        place
            .rows("SELECT number FROM v WHERE kind = 'a'")
            .num_columns(),
        1
    );
    // Views of views, and of nothing.
    place.rows("CREATE MATERIALIZED VIEW w AS SELECT sum(number) AS n FROM v");
    place.check("w", &format!("SELECT sum(c) AS n FROM ({query})"));
    place.rows("CREATE MATERIALIZED VIEW one AS SELECT 1 AS a");
    place.check("one", "SELECT 1 AS a");
    for view in ["one", "w", "v"] {
        place.rows(&format!("DROP MATERIALIZED VIEW {view}"));
    }
    place.rows("DROP MATERIALIZED VIEW IF EXISTS v");
    assert_eq!(place.store.table_names(), ["t"]);
    assert_eq!(place.store.watermark_names(), Vec::<String>::new());
}

#[test]
fn strangers_may_read_views_and_no_more() {
    let mut random = Random::new(seed(15));
    let mut place = Place::new();
    place.add_file(&mut random);
    let query = format!(
        "SELECT k1, count(*) AS c FROM '{}' GROUP BY k1",
        place.pattern()
    );
    place.rows(&format!("CREATE MATERIALIZED VIEW v AS {query}"));
    place.rows("CREATE TABLE t (PRIMARY KEY (id)) AS SELECT 1 AS id");
    let readers = session_on(&place.store, |options| {
        options.read_only = true;
        options.allow_files = false;
    });
    let writers = session_on(&place.store, |options| options.allow_files = false);
    for session in [&readers, &writers] {
        assert!(
            session
                .query("SELECT * FROM v")
                .unwrap()
                .all(|rows| rows.is_ok())
        );
        assert!(session.query("EXPLAIN MATERIALIZED VIEW v").is_ok());
        for sql in [
            "REFRESH MATERIALIZED VIEW v",
            "REFRESH MATERIALIZED VIEW v REBUILD",
            "REFRESH MATERIALIZED VIEW v FROM '/etc/passwd'",
            &format!("CREATE MATERIALIZED VIEW w AS {query}"),
            "CREATE MATERIALIZED VIEW w AS SELECT count(*) AS c FROM '/etc/none.csv'",
        ] {
            let error = session.plan(sql).err().unwrap();
            assert!(
                error.message().contains("not allowed here"),
                "{sql}: {error:?}"
            );
        }
    }
    for sql in [
        "CREATE MATERIALIZED VIEW w AS SELECT count(*) AS c FROM t",
        "DROP MATERIALIZED VIEW v",
    ] {
        assert!(readers.plan(sql).is_err(), "{sql}");
        assert!(writers.plan(sql).is_ok(), "{sql}");
    }
}

#[test]
fn refreshes_at_once_count_each_file_once() {
    let mut random = Random::new(seed(16));
    let mut place = Place::new();
    place.add_file(&mut random);
    let query = format!(
        "SELECT k1, count(*) AS c FROM '{}' GROUP BY k1",
        place.pattern()
    );
    place.session.create_view("v", &query, false).unwrap();
    // Each with a catalog of its own, so that only the store stands between them.
    let others: Vec<Session> = (0..3).map(|_| session_on(&place.store, |_| {})).collect();
    for _ in 0..5 {
        for _ in 0..3 {
            place.write(&facts_of(1, 7));
        }
        std::thread::scope(|scope| {
            for session in &others {
                scope.spawn(|| {
                    session
                        .refresh_view("v", &RefreshOptions::default())
                        .unwrap()
                });
            }
        });
        place.check("v", &query);
    }
    drop(others);
}

#[test]
fn a_file_is_counted_once_whatever_way_leads_to_it() {
    let place = Place::with_facts(seed(21));
    let query = format!(
        "SELECT k1, count(*) AS c FROM '{}' GROUP BY k1",
        place.pattern()
    );
    place.session.create_view("v", &query, false).unwrap();
    let dir = place.dir.path();
    std::os::unix::fs::symlink(dir.join("facts"), dir.join("link")).unwrap();
    for other in ["link/0001.parquet", "facts/../facts/0001.parquet"] {
        let mut options = RefreshOptions::default();
        options.files = vec![dir.join(other).display().to_string()];
        let report = place.session.refresh_view("v", &options).unwrap();
        assert_eq!(report.kind, RefreshKind::UpToDate, "{other}");
    }
    place.check("v", &query);
}

#[test]
fn a_name_of_a_query_is_no_file() {
    let mut place = Place::with_facts(seed(22));
    let query = format!(
        "WITH \"x.parquet\" AS (SELECT k1 FROM '{}' WHERE k1 <> '') SELECT k1, count(*) AS c FROM \"x.parquet\" \
         GROUP BY k1",
        place.pattern()
    );
    place.session.create_view("v", &query, false).unwrap();
    let rows = place.facts(&mut Random::new(seed(24)), 20);
    place.write(&rows);
    assert_eq!(place.refresh("v").kind, RefreshKind::Merged);
    place.check("v", &query);
}

#[test]
fn a_group_alone_is_refused_where_it_depends_on_others() {
    let place = Place::with_facts(seed(23));
    let query = format!(
        "SELECT k1, rank() OVER (ORDER BY count(*)) AS r FROM '{}' GROUP BY k1",
        place.pattern()
    );
    let made = place.session.create_view("v", &query, false).unwrap();
    assert_eq!(made.reason, None);
    place.check("v", &query);
    let keys: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let error = place.session.view_get("v", &[keys]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("other groups"), "{error:?}");
}
