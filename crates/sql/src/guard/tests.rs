//! Statements of strangers: every way to a file or a change that we know is tried, and must be refused as such.

use std::{fs, path::Path, sync::Arc};

use arrow_array::{Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use darner_engine::{Error, ErrorKind};
use darner_store::{Store, StoreOptions, TableSpec};
use tempfile::TempDir;

use super::Needs;
use crate::{Answer, Session, SessionOptions};

struct Place {
    dir: TempDir,
    store: Arc<Store>,
}

impl Place {
    /// A store with a table of two rows, and a file beside it.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store"), StoreOptions::default()).unwrap();
        let schema = Arc::new(Schema::new(vec![
            Field::new("faa", DataType::Utf8, false),
            Field::new("alt", DataType::Int64, true),
        ]));
        let rows = RecordBatch::try_new(
            Arc::clone(&schema),
            vec![
                Arc::new(StringArray::from(vec!["JFK", "LGA"])),
                Arc::new(Int64Array::from(vec![13, 22])),
            ],
        )
        .unwrap();
        let mut transaction = store.begin().unwrap();
        transaction
            .create_table("airports", TableSpec::new(&schema, &["faa"]).unwrap())
            .unwrap();
        transaction.upsert("airports", &rows).unwrap();
        transaction.commit().unwrap();
        fs::write(dir.path().join("secret.csv"), "a,b\n1,hush\n").unwrap();
        Self {
            dir,
            store: Arc::new(store),
        }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn session(&self, read_only: bool, allow_files: bool) -> Session {
        let session = Session::with_options(SessionOptions {
            num_threads: 2,
            read_only,
            allow_files,
            write_remedy: "the remedy for writes".into(),
            file_remedy: "the remedy for files".into(),
            ..SessionOptions::default()
        })
        .unwrap();
        session.register_store(Arc::clone(&self.store));
        session
    }

    /// All files but those of the store.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Runs a statement to its end; the text of its rows.
fn run(session: &Session, sql: &str) -> Result<String, Error> {
    let rows = session.query(sql)?;
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    Ok(
        datafusion::arrow::util::pretty::pretty_format_batches(&rows)
            .unwrap()
            .to_string(),
    )
}

fn text(error: &Error) -> String {
    format!("{error:?}")
}

/// Statements that a session must refuse, one after the other, the last of them with the remedy.
#[track_caller]
fn refused(session: &Session, statements: &[&str], remedy: &str) {
    let (last, first) = statements.split_last().unwrap();
    for sql in first {
        // It may be refused already; what counts is that the last one is.
        let _ = run(session, sql);
    }
    let error = run(session, last).expect_err(last);
    let text = text(&error);
    assert_eq!(error.kind(), ErrorKind::Invalid, "{last}: {text}");
    assert!(text.contains(remedy), "{last}: {text}");
    assert!(!text.contains("hush"), "{last}: {text}");
}

#[test]
fn no_statement_reaches_a_file_where_files_are_not_allowed() {
    let place = Place::new();
    let file = place.path("secret.csv");
    let (dir, out) = (place.path("."), place.path("out"));
    let before = place.names();
    for read_only in [true, false] {
        let session = place.session(read_only, false);
        let remedy = "the remedy for files";
        for sql in [
            format!("SELECT * FROM '{file}'"),
            format!("SELECT * FROM \"{file}\""),
            format!("SELECT * FROM `{file}`"),
            format!("SELECT * FROM 'file://{file}'"),
            format!("SELECT * FROM '{dir}/*.csv'"),
            format!("SELECT * FROM '{dir}'"),
            "SELECT * FROM 'https://example.com/x.parquet'".to_owned(),
            "SELECT * FROM 's3://bucket/x.parquet'".to_owned(),
            format!("SELECT * FROM darner.public.'{file}'"),
            format!("SELECT * FROM airports WHERE faa IN (SELECT b FROM '{file}')"),
            format!("SELECT (SELECT max(b) FROM '{file}')"),
            format!(
                "SELECT * FROM airports a WHERE EXISTS (SELECT 1 FROM '{file}' WHERE b = a.faa)"
            ),
            format!("WITH x AS (SELECT * FROM '{file}') SELECT * FROM x"),
            format!("SELECT * FROM airports UNION ALL SELECT b, a FROM '{file}'"),
            format!("SELECT * FROM airports, LATERAL (SELECT * FROM '{file}') x"),
            format!("EXPLAIN SELECT * FROM '{file}'"),
            format!("EXPLAIN ANALYZE SELECT * FROM '{file}'"),
            format!("DESCRIBE '{file}'"),
            format!("SHOW COLUMNS FROM '{file}'"),
            format!("PREPARE p AS SELECT * FROM '{file}'"),
            format!("CREATE VIEW v AS SELECT * FROM '{file}'"),
            format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{file}'"),
            format!("CREATE EXTERNAL TABLE t (a INT) STORED AS CSV LOCATION '{dir}'"),
            format!("EXPLAIN CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{file}'"),
            format!("SET datafusion.runtime.temp_directory = '{out}'"),
            "RESET datafusion.runtime.temp_directory".to_owned(),
            "SET datafusion.runtime.memory_limit = '900G'".to_owned(),
            "SET DATAFUSION.SQL_PARSER.RECURSION_LIMIT = 1000000".to_owned(),
            "SET \"datafusion\".\"runtime\".\"temp_directory\" = '/'".to_owned(),
            "SET datafusion.execution.target_partitions = 1000000".to_owned(),
            "SET datafusion.catalog.location = '/'".to_owned(),
            "SET darner.dimension_cache_bytes = 1000000000000".to_owned(),
        ] {
            refused(&session, &[&sql], remedy);
        }
        if read_only {
            continue;
        }
        for sql in [
            format!("COPY airports TO '{out}.csv'"),
            format!("COPY (SELECT 1) TO '{out}.csv' STORED AS CSV"),
            format!("EXPLAIN ANALYZE COPY airports TO '{out}.csv'"),
            format!("EXPLAIN COPY airports TO '{out}.csv'"),
            format!("INSERT INTO '{file}' VALUES (1, 'x')"),
            format!("INSERT INTO airports SELECT b, a FROM '{file}'"),
            format!("CREATE TABLE t (PRIMARY KEY (a)) AS SELECT * FROM '{file}'"),
            format!("DELETE FROM airports WHERE faa IN (SELECT b FROM '{file}')"),
            format!("UPDATE airports SET alt = (SELECT a FROM '{file}')"),
        ] {
            refused(&session, &[&sql], remedy);
        }
        // What the program itself has put there can be read, but not added to.
        session.register_file("given", Path::new(&file)).unwrap();
        assert!(
            run(&session, "SELECT * FROM given")
                .unwrap()
                .contains("hush")
        );
        refused(&session, &["INSERT INTO given VALUES (2, 'x')"], remedy);
        refused(
            &session,
            &[
                "CREATE VIEW w AS SELECT * FROM given",
                "PREPARE q AS INSERT INTO given SELECT * FROM w",
            ],
            remedy,
        );
    }
    assert_eq!(place.names(), before);
    assert_eq!(fs::read_to_string(file).unwrap(), "a,b\n1,hush\n");
}

#[test]
fn no_function_gives_a_table_that_nobody_has_thought_of() {
    let place = Place::new();
    let state = place.session(true, false).context().state();
    for name in state.table_functions().keys() {
        // One that is new here must be looked at: does it read files, or run what it is given?
        let is_known = matches!(name.as_str(), "generate_series" | "range");
        assert!(is_known || name.starts_with("darner_"), "{name}");
    }
}

#[test]
fn no_statement_tells_whether_a_file_is_there() {
    let place = Place::new();
    let session = place.session(true, false);
    let there = place.path("secret.csv");
    let not_there = place.path("nothing.csv");
    let tell = |file: &str| {
        let error = session
            .query(&format!("SELECT * FROM '{file}'"))
            .map(|_| ());
        let error = error.unwrap_err();
        (error.kind(), text(&error).replace(file, "FILE"))
    };
    assert_eq!(tell(&there), tell(&not_there));
    // In the directory of a test, without a path: the package's, and one that is not there.
    assert_eq!(tell("Cargo.toml"), tell("Cargo.tomb"));
    assert_eq!(tell("src"), tell("srd"));
}

#[test]
fn no_statement_changes_anything_where_only_reading_is_allowed() {
    let place = Place::new();
    let (before, version) = (place.names(), place.store.version());
    let out = place.path("out.csv");
    for allow_files in [true, false] {
        let session = place.session(true, allow_files);
        for sql in [
            "INSERT INTO airports VALUES ('SJU', 1)".to_owned(),
            "INSERT OVERWRITE airports VALUES ('SJU', 1)".to_owned(),
            "DELETE FROM airports".to_owned(),
            "DELETE FROM airports WHERE faa = 'JFK'".to_owned(),
            "UPDATE airports SET alt = 1".to_owned(),
            "TRUNCATE TABLE airports".to_owned(),
            "DROP TABLE airports".to_owned(),
            "DROP TABLE IF EXISTS darner.public.airports".to_owned(),
            "CREATE TABLE t (a INT, PRIMARY KEY (a))".to_owned(),
            "CREATE TABLE IF NOT EXISTS airports (a INT)".to_owned(),
            "CREATE OR REPLACE TABLE airports AS SELECT 1 AS a".to_owned(),
            "CREATE TABLE other.public.t AS SELECT 1 AS a".to_owned(),
            format!("COPY airports TO '{out}'"),
            format!("EXPLAIN COPY airports TO '{out}'"),
            format!("EXPLAIN ANALYZE COPY airports TO '{out}'"),
            "EXPLAIN INSERT INTO airports VALUES ('SJU', 1)".to_owned(),
            "EXPLAIN ANALYZE INSERT INTO airports VALUES ('SJU', 1)".to_owned(),
            "EXPLAIN ANALYZE DELETE FROM airports".to_owned(),
            "PREPARE p AS INSERT INTO airports VALUES ($1, 1)".to_owned(),
            "PREPARE p AS DELETE FROM airports".to_owned(),
            "CREATE FUNCTION f() RETURNS INT RETURN 1".to_owned(),
        ] {
            refused(&session, &[&sql], "the remedy for writes");
        }
        // What was refused was not prepared either.
        assert!(run(&session, "EXECUTE p('SJU')").is_err());
    }
    assert_eq!(place.names(), before);
    assert_eq!(place.store.version(), version);
}

#[test]
fn what_stays_in_the_session_is_free() {
    let place = Place::new();
    let session = place.session(true, false);
    for sql in [
        "SELECT * FROM airports",
        "CREATE VIEW v AS SELECT faa FROM airports",
        "SELECT * FROM v",
        "DROP VIEW v",
        "PREPARE p AS SELECT * FROM airports WHERE alt > $1",
        "EXECUTE p(13)",
        "DEALLOCATE p",
        "EXPLAIN SELECT * FROM airports",
        "EXPLAIN ANALYZE SELECT * FROM airports",
        "SET datafusion.execution.time_zone = '+01:00'",
        "SET TIME ZONE = '+02:00'",
        "SET datafusion.explain.format = 'tree'",
        "RESET datafusion.explain.format",
        "SHOW TABLES",
        "SHOW datafusion.execution.batch_size",
        "DESCRIBE airports",
        "SELECT * FROM information_schema.columns",
        "SELECT * FROM generate_series(1, 3)",
        "DROP TABLE IF EXISTS nothing",
    ] {
        if let Err(error) = run(&session, sql) {
            panic!("{sql}: {error:?}");
        }
    }
}

#[test]
fn plans_say_what_they_need_and_give() {
    let place = Place::new();
    let session = place.session(false, true);
    let out = place.path("out.csv");
    run(
        &session,
        "PREPARE change AS DELETE FROM airports WHERE alt > $1",
    )
    .unwrap();
    run(
        &session,
        "PREPARE ask AS SELECT * FROM airports WHERE alt > $1",
    )
    .unwrap();
    let file = place.path("secret.csv");
    run(
        &session,
        &format!("CREATE EXTERNAL TABLE ext STORED AS CSV LOCATION '{file}'"),
    )
    .unwrap();
    for (sql, needs, answer) in [
        ("SELECT * FROM airports", Needs::Read, Answer::Rows),
        ("EXPLAIN SELECT * FROM airports", Needs::Read, Answer::Rows),
        (
            "SET datafusion.explain.format = 'tree'",
            Needs::Read,
            Answer::Nothing,
        ),
        (
            "CREATE VIEW v AS SELECT * FROM airports",
            Needs::Read,
            Answer::Nothing,
        ),
        ("DROP TABLE ext", Needs::Read, Answer::Nothing),
        ("DROP TABLE IF EXISTS nothing", Needs::Read, Answer::Nothing),
        ("DROP TABLE airports", Needs::Write, Answer::Nothing),
        (
            "INSERT INTO airports VALUES ('SJU', 1)",
            Needs::Write,
            Answer::Count,
        ),
        ("DELETE FROM airports", Needs::Write, Answer::Count),
        ("UPDATE airports SET alt = 1", Needs::Write, Answer::Count),
        (
            "EXPLAIN ANALYZE DELETE FROM airports",
            Needs::Write,
            Answer::Rows,
        ),
        ("EXECUTE change(13)", Needs::Write, Answer::Count),
        ("EXECUTE ask(13)", Needs::Read, Answer::Rows),
        (
            "CREATE TABLE t (a INT, PRIMARY KEY (a))",
            Needs::Create,
            Answer::Nothing,
        ),
        (
            "CREATE TABLE t AS SELECT * FROM airports",
            Needs::Create,
            Answer::Count,
        ),
        (
            &format!("COPY airports TO '{out}'"),
            Needs::Read,
            Answer::Count,
        ),
    ] {
        let plan = session
            .plan(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        assert_eq!((plan.needs(), plan.answer()), (needs, answer), "{sql}");
    }
    // Planned is not run.
    assert!(!Path::new(&out).exists());
    assert_eq!(place.store.version().number, 1);
}

#[test]
fn missing_names_are_not_found_and_near_ones_are_named() {
    let place = Place::new();
    let session = place.session(false, true);
    for (sql, word) in [
        ("SELECT * FROM airprts", "airports"),
        ("SELECT * FROM darner.public.airprts", "airports"),
        (
            "SELECT faa FROM airports UNION SELECT faa FROM airprts",
            "airports",
        ),
        ("CREATE TABLE t AS SELECT * FROM airprts", "airports"),
        ("INSERT INTO airprts VALUES (1)", "airports"),
        ("DROP TABLE airprts", "airports"),
        ("SELECT * FROM 'none.csv'", "none.csv"),
        ("SELECT * FROM 'none/*.csv'", "none/*.csv"),
    ] {
        let error = session.query(sql).map(|_| ()).expect_err(sql);
        let text = text(&error);
        assert_eq!(error.kind(), ErrorKind::NotFound, "{sql}: {text}");
        assert!(text.contains(word), "{sql}: {text}");
    }
    let error = session.query("SELECT fa FROM airports").map(|_| ());
    let text = text(&error.unwrap_err());
    assert!(text.contains("faa"), "{text}");
}

#[test]
fn deep_statements_are_errors_or_answers_but_no_crash() {
    // A test's thread has 2 MiB.
    let place = Place::new();
    let session = place.session(true, false);
    let repeated = |what: &str, n: usize| what.repeat(n);
    let sum = format!("SELECT 1{} AS s", repeated("+1", 300));
    assert!(run(&session, &sum).unwrap().contains("301"));
    let statements = [
        format!("SELECT 1{} AS s", repeated("+1", 50_000)),
        format!("SELECT {}1{}", repeated("(", 10_000), repeated(")", 10_000)),
        format!("SELECT {}1", repeated("- ", 10_000)),
        format!("SELECT {}true", repeated("NOT ", 10_000)),
        format!(
            "SELECT {}1{}",
            repeated("abs(", 10_000),
            repeated(")", 10_000)
        ),
        format!(
            "SELECT {}1{}",
            repeated("(SELECT ", 5_000),
            repeated(")", 5_000)
        ),
        format!("SELECT {}1{}", repeated("[", 10_000), repeated("]", 10_000)),
        format!(
            "SELECT {} 1 END",
            repeated("CASE WHEN true THEN 1 ELSE ", 10_000)
        ),
    ];
    for sql in statements {
        assert!(run(&session, &sql).is_err(), "{}", &sql[..40]);
    }
    // A chain of queries, each reading the one before.
    let chain: Vec<String> = (1..200)
        .map(|i| format!("c{i} AS (SELECT * FROM c{})", i - 1))
        .collect();
    let chain = chain.join(", ");
    let sql = format!("WITH c0 AS (SELECT 1 AS a), {chain} SELECT * FROM c199");
    assert!(run(&session, &sql).unwrap().contains("| 1 |"));
    // And the session goes on.
    assert!(run(&session, "SELECT 1").is_ok());
}

#[test]
fn a_flag_stops_a_statement() {
    let place = Place::new();
    let cancel = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let session = Session::with_options(SessionOptions {
        cancel: Some(Arc::clone(&cancel)),
        ..SessionOptions::default()
    })
    .unwrap();
    session.register_store(Arc::clone(&place.store));
    // It would take years.
    let sql =
        "SELECT count(*) FROM generate_series(1, 1000000000) a, generate_series(1, 1000000000) b";
    let rows = session.query(sql).and_then(|mut rows| rows.next().unwrap());
    assert_eq!(rows.unwrap_err().kind(), ErrorKind::Cancelled);
    cancel.store(false, std::sync::atomic::Ordering::Relaxed);
    assert!(run(&session, "SELECT * FROM airports").is_ok());
}

#[test]
fn a_view_takes_no_tables_place() {
    let place = Place::new();
    let session = place.session(true, false);
    let error = session
        .query("CREATE OR REPLACE VIEW airports AS SELECT 1 AS a")
        .map(|_| ());
    assert!(text(&error.unwrap_err()).contains("drop it first"));
    session
        .query("CREATE VIEW report AS SELECT 1 AS a")
        .unwrap()
        .for_each(drop);
    let mut transaction = place.store.begin().unwrap();
    let spec = TableSpec::clone(place.store.table("airports").unwrap().spec());
    transaction.create_table("report", spec).unwrap();
    transaction.commit().unwrap();
    // The view is what the session sees.
    let _ = session
        .query("DROP TABLE report")
        .map(|rows| rows.for_each(drop));
    assert_eq!(place.store.table_names(), ["airports", "report"]);
}
