use arrow_array::{cast::AsArray, types::Int64Type};
use darner_engine::ErrorKind;
use datafusion::prelude::SQLOptions;

use crate::fixture::{Fixture, texts};

/// Runs a statement as DataFusion does by itself, without `darner_sql::sql`.
fn plain(fixture: &Fixture, sql: &str) -> Result<Vec<String>, String> {
    let done = async { fixture.context.sql(sql).await?.collect().await };
    let done = fixture.runtime.block_on(done);
    done.map(|rows| texts(&rows))
        .map_err(|error| error.to_string())
}

#[test]
fn a_table_is_made_with_its_columns_and_key() {
    let fixture = Fixture::new();
    let version = fixture.version();
    fixture.run("CREATE TABLE a (v DOUBLE NOT NULL, k2 TEXT, k1 INT, PRIMARY KEY (k1, k2))");
    assert_eq!(fixture.version(), version + 1);
    let table = fixture.store.table("a").unwrap();
    assert_eq!(table.key_names(), ["k1", "k2"]);
    let nullable: Vec<bool> = table
        .schema()
        .fields()
        .iter()
        .map(|f| f.is_nullable())
        .collect();
    assert_eq!(nullable, [false, false, false]);
    assert_eq!(fixture.rows("SELECT count(*) FROM a"), ["0"]);
    fixture.run("CREATE TABLE b (id BIGINT PRIMARY KEY, d DECIMAL(10, 2), at TIMESTAMP)");
    assert_eq!(fixture.store.table("b").unwrap().key_names(), ["id"]);
    assert_eq!(
        plain(&fixture, "CREATE TABLE c (id INT PRIMARY KEY, l INT[])").unwrap(),
        [""; 0]
    );
    fixture.count("INSERT INTO c VALUES (1, [1, 2]), (2, NULL)");
    assert_eq!(fixture.rows("SELECT * FROM c"), ["1|[1, 2]", "2|null"]);
    assert_eq!(fixture.store.table_names(), ["a", "b", "c"]);
}

#[test]
fn what_cannot_be_a_table_says_why() {
    let fixture = Fixture::new();
    fixture.run("CREATE TABLE t (id INT, PRIMARY KEY (id))");
    let cases: [(&str, &[&str]); 9] = [
        (
            "CREATE TABLE x (id INT)",
            &["primary key", "PRIMARY KEY (id)", "AS SELECT"],
        ),
        ("CREATE TABLE x AS SELECT 1 AS id", &["primary key"]),
        (
            "CREATE TABLE x (id DOUBLE, PRIMARY KEY (id))",
            &["cannot be a key", "`id`"],
        ),
        (
            "CREATE TABLE x (id INT[], PRIMARY KEY (id))",
            &["cannot be a key"],
        ),
        (
            "CREATE TABLE x (id INT PRIMARY KEY, v INT UNIQUE)",
            &["UNIQUE"],
        ),
        (
            "CREATE TABLE x (id INT PRIMARY KEY, v INT DEFAULT 7)",
            &["DEFAULT", "`v`"],
        ),
        (
            "CREATE TABLE x (id INT PRIMARY KEY, v INT, PRIMARY KEY (v))",
            &["one primary key"],
        ),
        (
            "CREATE TABLE t (id INT, PRIMARY KEY (id))",
            &["exists", "`t`"],
        ),
        (
            "CREATE TABLE x (PRIMARY KEY (nothing)) AS SELECT 1 AS id",
            &["nothing"],
        ),
    ];
    for (sql, words) in cases {
        fixture.fails(sql, words);
        let error = plain(&fixture, sql).unwrap_err();
        assert!(
            words.iter().all(|word| error.contains(word)) || error.contains("already exists"),
            "{error}"
        );
    }
    let kind = fixture.fails("CREATE TABLE t (id INT, PRIMARY KEY (id))", &[]);
    assert_eq!(kind, Some(ErrorKind::Conflict));
    fixture.fails(
        "CREATE OR REPLACE TABLE IF NOT EXISTS t (id INT PRIMARY KEY)",
        &[],
    );
    assert_eq!(fixture.store.table_names(), ["t"]);
}

#[test]
fn a_table_is_made_of_a_query() {
    let fixture = Fixture::with("(1, 'one', 10), (2, 'two', 20), (3, 'three', 30)");
    let version = fixture.version();
    let sql = "CREATE TABLE c (PRIMARY KEY (id)) AS SELECT id, n * 2 AS m, count(*) OVER () AS c FROM t WHERE id < 3";
    assert_eq!(fixture.count(sql), 2);
    assert_eq!(fixture.version(), version + 1);
    assert_eq!(fixture.rows("SELECT * FROM c"), ["1|20|2", "2|40|2"]);
    // That no row has a null is no reason to refuse later ones.
    fixture.count("INSERT INTO c (id) VALUES (9)");
    let sql = "CREATE TABLE d (a INT, b TEXT, PRIMARY KEY (b, a)) AS SELECT id, name FROM t";
    assert_eq!(plain(&fixture, sql).unwrap(), [""; 0]);
    assert_eq!(
        fixture.rows("SELECT * FROM d"),
        ["1|one", "2|two", "3|three"]
    );
    assert_eq!(fixture.store.table("d").unwrap().key_names(), ["b", "a"]);
    let sql = "CREATE TABLE e (PRIMARY KEY (k)) AS SELECT n % 20 AS k FROM t";
    let kind = fixture.fails(sql, &["duplicate key"]);
    assert_eq!(kind, Some(ErrorKind::Data));
    assert!(plain(&fixture, sql).unwrap_err().contains("duplicate key"));
    fixture.fails(
        "CREATE TABLE e (PRIMARY KEY (k)) AS SELECT NULL AS k",
        &["cannot be a key"],
    );
    let sql = "CREATE TABLE e (PRIMARY KEY (k)) AS SELECT CAST(NULL AS INT) AS k";
    fixture.fails(sql, &["a key is null"]);
    assert!(!fixture.store.table_names().contains(&"e".to_owned()));
    // The rows of a failed query are nowhere.
    let sql = "CREATE TABLE e (PRIMARY KEY (id)) AS SELECT id, 1 / (id - 3) AS x FROM t";
    fixture.fails(sql, &["ivide by zero"]);
    assert!(!fixture.store.table_names().contains(&"e".to_owned()));
}

#[test]
fn a_table_is_replaced_by_one_commit() {
    let fixture = Fixture::with("(1, 'one', 10), (2, 'two', 20)");
    let version = fixture.version();
    let created = fixture.store.table("t").unwrap().created();
    let sql =
        "CREATE OR REPLACE TABLE t (PRIMARY KEY (name)) AS SELECT name, id + 1 AS next FROM t";
    assert_eq!(fixture.count(sql), 2);
    assert_eq!(fixture.version(), version + 1);
    assert_eq!(fixture.rows("SELECT * FROM t"), ["one|2", "two|3"]);
    let table = fixture.store.table("t").unwrap();
    assert_eq!(table.key_names(), ["name"]);
    // Its past goes on.
    assert_eq!(table.created(), created);
    fixture.fails(
        "CREATE OR REPLACE TABLE t (PRIMARY KEY (x)) AS SELECT 1 / 0 AS x",
        &["ivide by zero"],
    );
    assert_eq!(fixture.rows("SELECT * FROM t"), ["one|2", "two|3"]);
    fixture.run("CREATE OR REPLACE TABLE fresh (id INT, PRIMARY KEY (id))");
    fixture.run("CREATE OR REPLACE TABLE t (id INT, PRIMARY KEY (id))");
    assert_eq!(fixture.rows("SELECT * FROM t"), [""; 0]);
    fixture.run("CREATE TABLE IF NOT EXISTS t (other INT, PRIMARY KEY (other))");
    assert_eq!(fixture.store.table("t").unwrap().key_names(), ["id"]);
    // As DataFusion does it by itself: two commits, so that the query cannot read the table.
    let version = fixture.version();
    let sql = "CREATE OR REPLACE TABLE t (b INT, PRIMARY KEY (b)) AS VALUES (7)";
    plain(&fixture, sql).unwrap();
    assert_eq!(fixture.version(), version + 2);
    assert_eq!(fixture.rows("SELECT b FROM t"), ["7"]);
}

#[test]
fn a_table_is_dropped() {
    let fixture = Fixture::with("(1, 'one', 10)");
    let version = fixture.version();
    fixture.run("DROP TABLE t");
    assert_eq!(fixture.version(), version + 1);
    fixture.fails("SELECT * FROM t", &["t"]);
    fixture.fails("DROP TABLE t", &["doesn't exist"]);
    fixture.run("DROP TABLE IF EXISTS t");
    fixture.run("CREATE TABLE t (id INT, PRIMARY KEY (id))");
    plain(&fixture, "DROP TABLE darner.public.t").unwrap();
    assert_eq!(fixture.store.table_names(), [""; 0]);
}

#[test]
fn views_and_files_stand_beside_the_tables() {
    let fixture = Fixture::with("(1, 'one', 10), (2, 'two', 20)");
    let version = fixture.version();
    fixture.run("CREATE VIEW v AS SELECT * FROM t WHERE id > 1");
    assert_eq!(fixture.rows("SELECT id FROM v"), ["2"]);
    fixture.fails("CREATE TABLE v (id INT, PRIMARY KEY (id))", &["exists"]);
    fixture.fails(
        "CREATE OR REPLACE TABLE v (id INT, PRIMARY KEY (id))",
        &["drop it first"],
    );
    fixture.fails("INSERT INTO v VALUES (1, 'a', 1)", &[]);
    fixture.fails("DELETE FROM v", &[]);
    fixture.fails("DROP TABLE v", &[]);
    fixture.run("DROP VIEW v");
    assert_eq!(fixture.version(), version);
}

/// DataFusion makes room by dropping what has the name.
#[test]
fn a_table_does_not_make_room_for_a_view_or_a_file() {
    let fixture = Fixture::with("(1, 'one', 10), (2, 'two', 20)");
    for sql in [
        "CREATE OR REPLACE VIEW t AS SELECT 1 AS a",
        "CREATE OR REPLACE VIEW darner.public.t AS SELECT * FROM t",
        "CREATE OR REPLACE EXTERNAL TABLE t STORED AS CSV LOCATION '/nowhere.csv'",
    ] {
        fixture.fails(sql, &["table=`", "drop it first"]);
    }
    // A view that hides a table is dropped, not the table.
    fixture.run("CREATE VIEW later AS SELECT 1 AS a");
    let table = fixture.store.table("t").unwrap();
    let spec = darner_store::TableSpec::clone(table.spec());
    let mut transaction = fixture.store.begin().unwrap();
    transaction.create_table("later", spec).unwrap();
    transaction.commit().unwrap();
    let version = fixture.version();
    fixture.fails("DROP TABLE later", &[]);
    fixture.run("DROP VIEW later");
    assert_eq!(fixture.version(), version);
    assert_eq!(fixture.rows("SELECT id FROM later"), [""; 0]);
    fixture.run("DROP TABLE later");
    assert_eq!(fixture.version(), version + 1);
}

/// Each commit has a page with a dictionary of its own; together they have more values than the keys count.
#[test]
fn dictionaries_of_small_keys_are_read_page_by_page() {
    let fixture = Fixture::new();
    let tag = |n: usize| format!("arrow_cast('tag {n}', 'Dictionary(Int8, Utf8)')");
    fixture.count(&format!(
        "CREATE TABLE d (PRIMARY KEY (id)) AS SELECT 0 AS id, {} AS tag",
        tag(0)
    ));
    for n in 1..140 {
        fixture.count(&format!("INSERT INTO d SELECT {n}, {}", tag(n)));
    }
    assert_eq!(fixture.rows("SELECT id, tag FROM d").len(), 140);
    assert_eq!(
        fixture
            .rows("SELECT DISTINCT CAST(tag AS TEXT) FROM d WHERE id >= 100")
            .len(),
        40
    );
}

/// A cast that makes nulls of values: the counts of nulls say nothing about it.
#[test]
fn casts_that_make_nulls_rule_out_no_page() {
    let fixture = Fixture::new();
    fixture.run("CREATE TABLE f (id BIGINT, f DOUBLE, PRIMARY KEY (id))");
    fixture.count("INSERT INTO f VALUES (1, 1e20), (2, 2)");
    let sql = "SELECT id FROM f WHERE TRY_CAST(f AS INT) IS NOT DISTINCT FROM NULL";
    assert_eq!(fixture.rows(sql), ["1"]);
}

#[test]
fn copies_in_partitions_are_not_one_file() {
    let fixture = Fixture::with("(1, 'one', 10), (2, 'two', 20)");
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("out.csv");
    let copy = format!(
        "COPY t TO '{}' STORED AS CSV PARTITIONED BY (id)",
        to.display()
    );
    assert_eq!(fixture.count(&copy), 2);
    let names = std::fs::read_dir(dir.path()).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["out.csv"]);
    assert!(to.join("id=1").is_dir());
}

#[test]
fn rows_are_copied_to_files_of_every_format() {
    let fixture = Fixture::with("(1, 'one', 10), (2, NULL, 20), (3, 'three', NULL)");
    let dir = tempfile::tempdir().unwrap();
    for extension in ["parquet", "csv", "json", "arrow"] {
        // A name that means something in a URL and in a pattern.
        let path = dir.path().join(format!("a copy #1 of 100%.{extension}"));
        let text = path.to_str().unwrap();
        let options = match extension {
            "csv" => " OPTIONS ('format.has_header' 'true')",
            _ => "",
        };
        assert_eq!(
            fixture.count(&format!("COPY t TO '{text}'{options}")),
            3,
            "{extension}"
        );
        fixture.run(&format!(
            "CREATE EXTERNAL TABLE x STORED AS {extension} LOCATION '{text}'"
        ));
        assert_eq!(
            fixture.rows("SELECT id, name, n FROM x"),
            fixture.rows("SELECT * FROM t"),
            "{extension}"
        );
        fixture.run("DROP TABLE x");
        // A query that fails on its way leaves what was there, and nothing else.
        let before = std::fs::read(&path).unwrap();
        let failing = "SELECT value, 10 / (value - 250000) AS q FROM generate_series(1, 250000)";
        fixture.fails(
            &format!("COPY ({failing}) TO '{text}'{options}"),
            &["ivide by zero"],
        );
        assert_eq!(std::fs::read(&path).unwrap(), before, "{extension}");
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "{extension}"
        );
        std::fs::remove_file(path).unwrap();
    }
    // As DataFusion has it: the number of files in a directory is its own.
    let text = dir.path().join("many/");
    let sql = format!("COPY t TO '{}' STORED AS PARQUET", text.to_str().unwrap());
    assert_eq!(fixture.count(&sql), 3);
    let plan = fixture.rows(&format!(
        "EXPLAIN COPY t TO '{}/x.csv'",
        dir.path().display()
    ));
    assert!(plan.join("").contains("WholeFileExec"), "{plan:?}");
    let sql = format!("COPY t TO '{}/missing/deep/x.csv'", dir.path().display());
    assert_eq!(fixture.count(&sql), 3);
    let options = SQLOptions::new().with_allow_dml(false);
    let forbidden = darner_sql::sql(&fixture.context, "COPY t TO '/nowhere.csv'", options);
    assert!(fixture.runtime.block_on(forbidden).is_err());
}

/// Arrow IPC writes the buffers of views whole: every batch of a join would carry the dimension.
#[test]
fn a_copied_lookup_does_not_carry_the_dimension_with_every_batch() {
    let fixture = Fixture::new();
    let rows = "SELECT value AS id, 'a name out of line ' || value AS name FROM range(0, 20000)";
    fixture.count(&format!("CREATE TABLE names (PRIMARY KEY (id)) AS {rows}"));
    fixture.run("SET datafusion.execution.batch_size = 500");
    let facts = "SELECT value * 7 % 20000 AS k FROM range(0, 50000)";
    let join = format!("SELECT k, name FROM ({facts}) LEFT JOIN names ON k = id");
    let plan = fixture.rows(&format!("EXPLAIN {join}"));
    assert!(plan.join("").contains("LookupJoinExec"), "{plan:?}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("joined.arrow");
    let copy = format!("COPY ({join}) TO '{}'", path.display());
    assert_eq!(fixture.count(&copy), 50_000);
    // 8 bytes of the key, a view of 16 and a text of 24; the dimension has 480,000 for each of a hundred batches.
    let num_bytes = std::fs::metadata(&path).unwrap().len();
    assert!(num_bytes < 5_000_000, "{num_bytes}");
}

/// A runtime may have no thread left for work that waits, because all of them wait for a query to go on.
#[test]
fn writes_and_lookups_need_no_thread_that_waits_for_them() {
    let fixture = Fixture::with("(1, 'one', 10), (2, 'two', 20)");
    // More than waits between a scan and its query.
    let rows = "SELECT value AS id, value % 2 + 1 AS k FROM range(0, 200000)";
    fixture.count(&format!("CREATE TABLE facts (PRIMARY KEY (id)) AS {rows}"));
    let narrow = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(1)
        .enable_time()
        .build()
        .unwrap();
    // The one thread is held by a scan that waits for somebody to take its rows.
    let sql = "SELECT count(*), count(t.name) FROM facts f JOIN t ON f.k = t.id";
    let insert = "INSERT INTO t SELECT id + 10, 'more', 0 FROM facts";
    for (sql, expected) in [(sql, "200000|200000"), (insert, "200000")] {
        let rows = narrow.block_on(async {
            let rows = darner_sql::sql(&fixture.context, sql, SQLOptions::new());
            let rows = async { rows.await?.collect().await };
            let long = std::time::Duration::from_secs(100);
            tokio::time::timeout(long, rows)
                .await
                .expect("it stands still")
        });
        assert_eq!(texts(&rows.unwrap()), [expected]);
    }
}

/// Parts of a sorted table wait for each other. With one thread that waits, the first held it while the merge waited for
/// the others.
#[test]
fn parts_of_a_scan_that_wait_for_each_other_need_one_thread() {
    let fixture = Fixture::new();
    let rows = "SELECT value AS id, value * 3 AS n FROM range(0, 200000)";
    fixture.count(&format!("CREATE TABLE t (PRIMARY KEY (id)) AS {rows}"));
    fixture.store.compact_table("t").unwrap();
    fixture.run("SET datafusion.execution.target_partitions = 4");
    let narrow = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(1)
        .enable_time()
        .build()
        .unwrap();
    let sql = "SELECT id, n FROM t ORDER BY id";
    let plan = fixture.rows(&format!("EXPLAIN {sql}")).concat();
    assert!(
        plan.contains("SortPreservingMergeExec") && plan.contains("partitions=4"),
        "{plan}"
    );
    let rows = narrow.block_on(async {
        let rows = darner_sql::sql(&fixture.context, sql, SQLOptions::new());
        let rows = async { rows.await?.collect().await };
        let long = std::time::Duration::from_secs(100);
        tokio::time::timeout(long, rows)
            .await
            .expect("it stands still")
    });
    let rows = rows.unwrap();
    let ids = rows.iter().flat_map(|rows| {
        let ids = rows.column(0).as_primitive::<Int64Type>();
        ids.values().to_vec()
    });
    assert!(ids.eq(0..200_000));
}

/// Where DataFusion's cast fails a lookup fails too, rather than to find a null.
#[test]
fn a_column_that_does_not_fit_its_cast_is_an_error_in_lookups_too() {
    let fixture = Fixture::with("(1, 'one', 10)");
    fixture.count(
        "CREATE TABLE d (PRIMARY KEY (id)) AS \
         SELECT CAST(1 AS BIGINT) AS id, arrow_cast('3000-01-01T00:00:00', 'Timestamp(Second, None)') AS at",
    );
    let sql = "SELECT t.id, d.ns FROM t JOIN \
               (SELECT id, arrow_cast(at, 'Timestamp(Nanosecond, None)') AS ns FROM d) d ON t.id = d.id";
    let plan = texts(&fixture.batches(&format!("EXPLAIN {sql}")).unwrap()).concat();
    assert!(plan.contains("LookupJoinExec"), "{plan}");
    for is_on in [true, false] {
        fixture.run(&format!("SET darner.lookup_join = {is_on}"));
        fixture.fails(sql, &["32503680000"]);
    }
}
