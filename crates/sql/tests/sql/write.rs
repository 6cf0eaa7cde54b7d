use std::sync::Arc;

use arrow_array::{Int32Array, Int64Array, RecordBatch, StringViewArray};
use darner_engine::ErrorKind;
use darner_sql::StoreCatalog;
use darner_store::{Store, TableSnapshot};

use crate::{
    fixture::{Fixture, context, texts},
    random::{Random, seed},
};

const ROWS: &str =
    "(1, 'one', 10), (2, 'two', 20), (3, NULL, 30), (4, 'four', NULL), (5, 'five', 50)";

/// Conditions of every kind that an optimizer treats in a way of its own.
const CONDITIONS: [&str; 30] = [
    "id = 3",
    "id IN (1, 4, 9)",
    "id > 1 AND n < 50",
    "name = 'two' OR n IS NULL",
    "name LIKE '%e'",
    "name IS NOT NULL AND NOT name = 'one'",
    "NULL",
    "false",
    "true",
    "1 = 0",
    "id = 1 AND id = 2",
    "id IS NULL",
    "id < 3 OR true",
    "n",
    "n / 10 = id",
    "id IN (SELECT m FROM datafusion.public.u)",
    "id NOT IN (SELECT m FROM datafusion.public.u WHERE m IS NOT NULL)",
    "id NOT IN (SELECT m FROM datafusion.public.u)",
    "EXISTS (SELECT 1 FROM datafusion.public.u WHERE m = id)",
    "NOT EXISTS (SELECT 1 FROM datafusion.public.u WHERE m = id AND k > 1)",
    "EXISTS (SELECT 1 FROM datafusion.public.u WHERE k > 100)",
    "n > (SELECT avg(n) FROM datafusion.public.t)",
    "n = (SELECT max(k) FROM datafusion.public.u WHERE m = id)",
    "id = (SELECT 2)",
    "CASE WHEN id > 2 THEN name = 'five' ELSE n = 10 END",
    "upper(coalesce(name, 'x')) < 'P'",
    "id BETWEEN 2 AND 4 AND (n IS NULL OR n = 20)",
    "(id, n) IN (SELECT m, k FROM datafusion.public.u)",
    "id % 2 = 0 AND id IN (SELECT m FROM datafusion.public.u WHERE k < n)",
    "random() < 2",
];

fn fixture() -> Fixture {
    let fixture = Fixture::with(ROWS);
    fixture.run("CREATE TABLE datafusion.public.u (m BIGINT, k INT) AS VALUES (1, 5), (4, 1), (NULL, 7), (5, 50), (5, 3)");
    fixture
}

/// What the condition is true of, by the table in memory. `n` alone is a number, which DataFusion makes true or false.
fn expected(
    fixture: &Fixture,
    condition: &str,
    then: &str,
    otherwise: &str,
) -> Option<Vec<String>> {
    let outcome = format!(
        "SELECT * FROM (SELECT {then} FROM datafusion.public.t WHERE ({condition})) UNION ALL \
         SELECT * FROM (SELECT {otherwise} FROM datafusion.public.t EXCEPT ALL \
         SELECT {otherwise} FROM datafusion.public.t WHERE ({condition}))"
    );
    fixture.batches(&outcome).ok().map(|rows| texts(&rows))
}

#[test]
fn an_insert_adds_rows_and_replaces_those_with_its_keys() {
    let fixture = fixture();
    let version = fixture.version();
    assert_eq!(
        fixture.count("INSERT INTO t VALUES (3, 'three', 33), (6, 'six', 60)"),
        2
    );
    assert_eq!(fixture.version(), version + 1);
    assert_eq!(
        fixture.count("INSERT INTO t (name, id) VALUES ('seven', 7)"),
        1
    );
    assert_eq!(fixture.count("INSERT INTO t (id) SELECT 8 WHERE 1 = 0"), 0);
    assert_eq!(
        fixture.rows("SELECT * FROM t"),
        [
            "1|one|10",
            "2|two|20",
            "3|three|33",
            "4|four|null",
            "5|five|50",
            "6|six|60",
            "7|seven|null"
        ]
    );
    assert_eq!(
        fixture.count("INSERT INTO t SELECT id + 10, name, n FROM t WHERE id < 3"),
        2
    );
    assert_eq!(fixture.count("REPLACE INTO t VALUES (11, 'eleven', 0)"), 1);
    assert_eq!(
        fixture.rows("SELECT * FROM t WHERE id > 10"),
        ["11|eleven|0", "12|two|20"]
    );
}

#[test]
fn an_overwrite_leaves_only_its_rows() {
    let fixture = fixture();
    let version = fixture.version();
    assert_eq!(
        fixture.count("INSERT OVERWRITE t SELECT id, name, 0 FROM t WHERE id < 3"),
        2
    );
    assert_eq!(fixture.version(), version + 1);
    assert_eq!(fixture.rows("SELECT * FROM t"), ["1|one|0", "2|two|0"]);
    fixture.fails(
        "INSERT OVERWRITE t VALUES (1, 'a', 1), (1, 'b', 2)",
        &["1 duplicate key"],
    );
    assert_eq!(fixture.rows("SELECT * FROM t"), ["1|one|0", "2|two|0"]);
}

#[test]
fn keys_that_come_twice_or_are_null_are_refused() {
    let fixture = fixture();
    let before = fixture.rows("SELECT * FROM t");
    let kind = fixture.fails(
        "INSERT INTO t VALUES (7, 'a', 1), (8, 'b', 2), (7, 'c', 3)",
        &["t: 1 duplicate key (first: 7)", "DISTINCT ON"],
    );
    assert_eq!(kind, Some(ErrorKind::Data));
    fixture.fails(
        "INSERT INTO t VALUES (NULL, 'a', 1)",
        &["a key is null", "`id`"],
    );
    fixture.fails(
        "INSERT INTO t (name) VALUES ('a')",
        &["a key is null", "`id`"],
    );
    fixture.fails("INSERT INTO t VALUES (1, 'a')", &["expected 3"]);
    fixture.fails("INSERT INTO nowhere VALUES (1)", &["nowhere"]);
    fixture.fails("INSERT INTO t VALUES ('x', 'a', 1)", &["x"]);
    // Whatever fails in the middle leaves nothing.
    fixture.fails(
        "INSERT INTO t SELECT id + 100, name, 10 / (id - 5) FROM t",
        &["ivide by zero"],
    );
    assert_eq!(fixture.rows("SELECT * FROM t"), before);
    fixture.run("CREATE TABLE strict (id INT, v TEXT NOT NULL, PRIMARY KEY (id))");
    fixture.fails(
        "INSERT INTO strict VALUES (1, NULL)",
        &["a value is null", "`v`", "NOT NULL"],
    );
    fixture.count("INSERT INTO strict VALUES (1, 'a')");
    fixture.fails("UPDATE strict SET v = NULL", &["a value is null", "`v`"]);
}

#[test]
fn a_delete_takes_what_its_condition_is_true_of() {
    for condition in CONDITIONS {
        let fixture = fixture();
        let left = expected(&fixture, condition, "* , 1 AS x", "*, 0 AS x");
        let version = fixture.version();
        let Some(left) = left else {
            fixture.fails(&format!("DELETE FROM t WHERE {condition}"), &[]);
            continue;
        };
        let left: Vec<&str> = left
            .iter()
            .filter_map(|row| row.strip_suffix("|0"))
            .collect();
        let count = fixture.count(&format!("DELETE FROM t WHERE {condition}"));
        assert_eq!(fixture.rows("SELECT * FROM t"), left, "{condition}");
        assert_eq!(count, 5 - left.len() as u64, "{condition}");
        assert_eq!(
            fixture.version(),
            version + u64::from(count > 0),
            "{condition}"
        );
    }
}

#[test]
fn an_update_changes_what_its_condition_is_true_of() {
    for condition in CONDITIONS {
        for (set, columns) in [
            ("n = n + 1", "id, name, n + 1"),
            (
                "name = upper(name), n = id",
                "id, upper(name), CAST(id AS INT) AS n",
            ),
            (
                "n = 1 + (SELECT max(k) FROM datafusion.public.u)",
                "id, name, 51",
            ),
            ("id = id + 100, n = 0", "id + 100, name, 0"),
            ("name = NULL", "id, NULL, n"),
        ] {
            let fixture = fixture();
            let version = fixture.version();
            let expected = expected(&fixture, condition, columns, "*");
            let sql = format!("UPDATE t SET {set} WHERE {condition}");
            let Some(expected) = expected else {
                fixture.fails(&sql, &[]);
                continue;
            };
            let count = fixture.count(&sql);
            assert_eq!(fixture.rows("SELECT * FROM t"), expected, "{sql}");
            assert_eq!(fixture.version(), version + u64::from(count > 0), "{sql}");
        }
    }
}

#[test]
fn a_statement_without_a_condition_takes_all_rows() {
    let fixture = fixture();
    assert_eq!(fixture.count("UPDATE t SET n = id"), 5);
    assert_eq!(fixture.rows("SELECT sum(n) FROM t"), ["15"]);
    let version = fixture.version();
    assert_eq!(fixture.count("DELETE FROM t"), 5);
    assert_eq!(fixture.version(), version + 1);
    assert_eq!(fixture.rows("SELECT count(*) FROM t"), ["0"]);
    assert_eq!(fixture.count("DELETE FROM t"), 0);
    assert_eq!(fixture.count("UPDATE t SET n = 1"), 0);
    assert_eq!(fixture.version(), version + 1);
    fixture.count("INSERT INTO t SELECT * FROM datafusion.public.t");
    assert_eq!(fixture.count("TRUNCATE TABLE t"), 5);
    assert_eq!(fixture.rows("SELECT * FROM t"), [""; 0]);
    fixture.count("INSERT INTO t VALUES (1, 'again', 1)");
    assert_eq!(fixture.rows("SELECT * FROM t"), ["1|again|1"]);
}

#[test]
fn a_delete_with_a_limit_takes_so_many() {
    let fixture = fixture();
    assert_eq!(fixture.count("DELETE FROM t WHERE id > 1 LIMIT 2"), 2);
    assert_eq!(fixture.rows("SELECT count(*) FROM t"), ["3"]);
    assert_eq!(fixture.count("DELETE FROM t LIMIT 1"), 1);
    assert_eq!(fixture.rows("SELECT count(*) FROM t"), ["2"]);
}

#[test]
fn an_update_can_change_keys_but_not_to_those_of_others() {
    let fixture = fixture();
    // Each row gets the key that the next one gives up.
    assert_eq!(fixture.count("UPDATE t SET id = id + 1"), 5);
    assert_eq!(
        fixture.rows("SELECT id, name FROM t"),
        ["2|one", "3|two", "4|null", "5|four", "6|five"]
    );
    assert_eq!(fixture.count("UPDATE t SET id = 8 - id, name = 'm'"), 5);
    assert_eq!(
        fixture.rows("SELECT * FROM t"),
        ["2|m|50", "3|m|null", "4|m|30", "5|m|20", "6|m|10"]
    );
    fixture.fails(
        "UPDATE t SET id = 3 WHERE id = 2",
        &["the key of another row", "`3`"],
    );
    fixture.fails(
        "UPDATE t SET id = 9 WHERE id < 4",
        &["one key", "(first: 9)"],
    );
    fixture.fails("UPDATE t SET id = NULL WHERE id < 4", &["a key is null"]);
    // To itself is no change.
    assert_eq!(fixture.count("UPDATE t SET id = id + 0 WHERE id < 4"), 2);
    assert_eq!(fixture.rows("SELECT count(*) FROM t"), ["5"]);
}

#[test]
fn keys_of_several_columns_are_changed_part_by_part() {
    let fixture = Fixture::new();
    fixture.run("CREATE TABLE p (v INT, b TEXT, a INT, PRIMARY KEY (a, b))");
    fixture.count("INSERT INTO p VALUES (1, 'x', 1), (2, 'y', 1), (3, 'x', 2)");
    assert_eq!(fixture.count("UPDATE p SET b = b || 'z' WHERE a = 1"), 2);
    assert_eq!(
        fixture.rows("SELECT * FROM p"),
        ["1|xz|1", "2|yz|1", "3|x|2"]
    );
    assert_eq!(
        fixture.count("UPDATE p SET a = 3 - a, b = 'q', v = v * 10 WHERE v <> 2"),
        2
    );
    assert_eq!(
        fixture.rows("SELECT * FROM p"),
        ["10|q|2", "2|yz|1", "30|q|1"]
    );
    fixture.fails(
        "UPDATE p SET a = 1, b = 'yz' WHERE v = 10",
        &["another row", "1, yz"],
    );
    assert_eq!(fixture.count("DELETE FROM p WHERE b = 'q'"), 2);
    assert_eq!(fixture.rows("SELECT * FROM p"), ["2|yz|1"]);
}

#[test]
fn an_update_may_name_its_table_but_has_no_from() {
    let fixture = fixture();
    assert_eq!(
        fixture.count("UPDATE t AS a SET n = a.n + 1, id = a.id + 100 WHERE a.id < 3"),
        2
    );
    assert_eq!(
        fixture.rows("SELECT * FROM t WHERE id > 100"),
        ["101|one|11", "102|two|21"]
    );
    assert_eq!(
        fixture.count("UPDATE darner.public.t SET n = t.id WHERE t.id = 3"),
        1
    );
    // DataFusion refuses it; a MERGE can say the same.
    let sql = "UPDATE t SET n = u.k FROM datafusion.public.u AS u WHERE t.id = u.m";
    fixture.fails(sql, &["UPDATE ... FROM is not supported"]);
}

#[test]
fn prepared_statements_write_too() {
    let fixture = fixture();
    fixture.run("PREPARE del AS DELETE FROM t WHERE id = $1 OR id IN (SELECT m FROM datafusion.public.u WHERE k = $2)");
    assert_eq!(fixture.count("EXECUTE del(2, 5)"), 2);
    assert_eq!(fixture.count("EXECUTE del(2, 1)"), 1);
    fixture.run("PREPARE none AS DELETE FROM t WHERE 1 = 0 AND id = $1");
    assert_eq!(fixture.count("EXECUTE none(3)"), 0);
    fixture.run("PREPARE up AS UPDATE t SET n = $1, name = $2 WHERE id = $3");
    assert_eq!(fixture.count("EXECUTE up(7, 'seven', 3)"), 1);
    fixture.run("PREPARE nobody AS UPDATE t SET n = $1 WHERE 1 = 0");
    assert_eq!(fixture.count("EXECUTE nobody(7)"), 0);
    fixture.run("PREPARE ins AS INSERT INTO t VALUES ($1, $2, $3)");
    assert_eq!(fixture.count("EXECUTE ins(9, 'nine', 9)"), 1);
    assert_eq!(
        fixture.rows("SELECT * FROM t"),
        ["3|seven|7", "5|five|50", "9|nine|9"]
    );
}

#[test]
fn to_explain_a_statement_changes_nothing() {
    let fixture = fixture();
    let version = fixture.version();
    for (sql, sink) in [
        ("DELETE FROM t", "StoreSink: clear t"),
        ("DELETE FROM t WHERE id = 1", "StoreSink: delete from t"),
        ("UPDATE t SET n = 1", "StoreSink: update t"),
        ("UPDATE t SET id = 1", "StoreSink: update keys of t"),
        (
            "INSERT INTO t VALUES (1, 'a', 1)",
            "StoreSink: upsert into t",
        ),
    ] {
        let plan = fixture.rows(&format!("EXPLAIN {sql}")).join("\n");
        assert!(plan.contains(sink), "{plan}");
    }
    assert_eq!(fixture.version(), version);
    fixture.run("EXPLAIN ANALYZE DELETE FROM t WHERE id = 1");
    assert_eq!(fixture.version(), version + 1);
}

#[test]
fn a_statement_that_was_planned_before_another_commit_sees_it() {
    let fixture = fixture();
    let plan = |sql: &str| {
        let rows = fixture.context.sql(sql);
        fixture.runtime.block_on(rows).unwrap()
    };
    let run = |rows: datafusion::dataframe::DataFrame| {
        texts(&fixture.runtime.block_on(rows.collect()).unwrap())
    };
    let update = plan("UPDATE t SET n = n + 1 WHERE n > 25");
    let delete = plan("DELETE FROM t WHERE n >= (SELECT max(n) FROM t)");
    let insert = plan("INSERT INTO t SELECT max(id) + 1, 'last', count(*) FROM t");
    let clear = plan("DELETE FROM t");
    fixture.count("INSERT INTO t VALUES (1, 'one', 100), (6, 'six', 60)");
    assert_eq!(run(update), ["4"]);
    assert_eq!(
        fixture.rows("SELECT id, n FROM t"),
        ["1|101", "2|20", "3|31", "4|null", "5|51", "6|61"]
    );
    assert_eq!(run(delete), ["1"]);
    assert_eq!(run(insert), ["1"]);
    assert_eq!(
        fixture.rows("SELECT * FROM t WHERE id > 5"),
        ["6|six|61", "7|last|5"]
    );
    assert_eq!(run(clear), ["6"]);
    let update = plan("UPDATE t SET n = 1");
    let insert = plan("INSERT INTO t VALUES (1, 'a', 1)");
    fixture.run("DROP TABLE t");
    for late in [update, insert] {
        let error = fixture.runtime.block_on(late.collect()).unwrap_err();
        assert!(
            error.to_string().contains("no such table") || error.to_string().contains("dropped"),
            "{error}"
        );
    }
}

/// Adds one to a row the way a program does that knows nothing of SQL: it reads, it writes, and tries again.
fn add_one(store: &Store, id: i64) {
    loop {
        let table: TableSnapshot = store.table("t").unwrap();
        let mut now = None;
        for rows in table.rows(None).unwrap() {
            let rows = rows.unwrap();
            let ids: &Int64Array = arrow_array::cast::AsArray::as_primitive(rows.column(0));
            let numbers: &Int32Array = arrow_array::cast::AsArray::as_primitive(rows.column(2));
            for row in 0..rows.num_rows() {
                if ids.value(row) == id {
                    now = Some(numbers.value(row));
                }
            }
        }
        let rows = RecordBatch::try_new(
            Arc::clone(table.schema()),
            vec![
                Arc::new(Int64Array::from(vec![id])),
                Arc::new(StringViewArray::from(vec!["by hand"])),
                Arc::new(Int32Array::from(vec![now.unwrap() + 1])),
            ],
        );
        let mut transaction = store.begin().unwrap();
        transaction.require_unchanged(&table);
        transaction.upsert("t", &rows.unwrap()).unwrap();
        match transaction.commit() {
            Ok(_) => return,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
        }
    }
}

#[test]
fn no_update_is_lost_when_many_update_at_the_same_time() {
    let seed = seed(7);
    let mut random = Random::new(seed);
    let fixture = Fixture::with("(1, 'a', 0), (2, 'b', 0), (3, 'c', 0), (4, 'd', 0)");
    // Another session with a catalog of its own, whose statements take other locks.
    let other = context();
    darner_sql::register(&other, Arc::clone(&fixture.store), "darner");
    let rounds = 12;
    std::thread::scope(|scope| {
        for context in [&fixture.context, &fixture.context, &other] {
            let plans: Vec<String> = (0..rounds)
                .map(|_| match random.number(3) {
                    0 => "UPDATE t SET n = n + 1".to_owned(),
                    1 => "UPDATE t SET n = n + 1 WHERE id IN (SELECT id FROM t)".to_owned(),
                    _ => "INSERT INTO t SELECT id, name, n + 1 FROM t".to_owned(),
                })
                .collect();
            let runtime = &fixture.runtime;
            scope.spawn(move || {
                for sql in plans {
                    loop {
                        let done =
                            runtime.block_on(async { context.sql(&sql).await?.collect().await });
                        match done {
                            Ok(_) => break,
                            // Commits from elsewhere may come between as often as a statement tries.
                            Err(error) => {
                                assert!(error.to_string().contains("try again"), "{error}");
                            }
                        }
                    }
                }
            });
        }
        let store = &fixture.store;
        scope.spawn(move || (0..rounds).for_each(|_| add_one(store, 2)));
    });
    let found = fixture.rows("SELECT id, n FROM t");
    let all = 3 * rounds;
    let expected = [
        format!("1|{all}"),
        format!("2|{}", all + rounds),
        format!("3|{all}"),
        format!("4|{all}"),
    ];
    assert_eq!(found, expected, "seed={seed}");
}

#[test]
fn random_statements_do_what_they_do_in_memory() {
    let seed = seed(11);
    let mut random = Random::new(seed);
    for round in 0..8 {
        let fixture = fixture();
        for _ in 0..6 {
            let condition = *random.pick(&CONDITIONS);
            let set = *random.pick(&["n = id * 2", "name = coalesce(name, '') || 'x', n = n - 1"]);
            let then = match set {
                "n = id * 2" => "id, name, CAST(id * 2 AS INT)",
                _ => "id, coalesce(name, '') || 'x', n - 1",
            };
            let is_delete = random.number(3) == 0;
            let filter = if is_delete { "WHERE false" } else { "" };
            let Some(after) = expected(&fixture, condition, then, "*").map(|_| {
                format!(
                    "SELECT * FROM (SELECT {then} FROM datafusion.public.t WHERE ({condition})) AS x(id, name, n) {filter} \
                     UNION ALL (SELECT * FROM datafusion.public.t EXCEPT ALL \
                     SELECT * FROM datafusion.public.t WHERE ({condition}))"
                )
            }) else {
                continue;
            };
            fixture.run(&format!("CREATE TABLE datafusion.public.next AS {after}"));
            let statement = if is_delete {
                format!("DELETE FROM t WHERE {condition}")
            } else {
                format!("UPDATE t SET {set} WHERE {condition}")
            };
            fixture.count(&statement);
            fixture.run("CREATE OR REPLACE TABLE datafusion.public.t AS SELECT * FROM datafusion.public.next");
            fixture.run("DROP TABLE datafusion.public.next");
            assert_eq!(
                fixture.rows("SELECT * FROM t"),
                fixture.rows("SELECT * FROM datafusion.public.t"),
                "seed={seed} round={round} {statement}"
            );
        }
    }
}

#[test]
fn many_rows_are_written_and_changed() {
    let fixture = Fixture::new();
    fixture.run("CREATE TABLE big (id BIGINT, v BIGINT, PRIMARY KEY (id))");
    let all = "SELECT value, value * 2 FROM generate_series(1, 100000)";
    assert_eq!(fixture.count(&format!("INSERT INTO big {all}")), 100_000);
    assert_eq!(
        fixture.count("UPDATE big SET v = v + 1 WHERE id % 2 = 0"),
        50_000
    );
    assert_eq!(fixture.count("DELETE FROM big WHERE id % 5 = 0"), 20_000);
    assert_eq!(
        fixture.count("UPDATE big SET id = id + 1 WHERE id % 5 = 4"),
        20_000
    );
    // Of 10 numbers from 10k+1 on: 1, 2, 3, 6, 7, 8 stay, 4 became 5, 9 became 10.
    let sums = fixture.rows("SELECT count(*), sum(id), sum(v) FROM big");
    let expected = fixture.rows(
        "SELECT count(*), sum(CASE WHEN i % 5 = 4 THEN i + 1 ELSE i END), sum(i * 2 + CASE WHEN i % 2 = 0 THEN 1 ELSE 0 END) \
         FROM (SELECT value AS i FROM generate_series(1, 100000)) WHERE i % 5 <> 0",
    );
    assert_eq!(sums, expected);
}

#[test]
fn a_session_without_the_rules_refuses_conditions() {
    let fixture = fixture();
    let bare = context();
    let catalog = StoreCatalog::new(Arc::clone(&fixture.store));
    bare.register_catalog("darner", Arc::new(catalog));
    let run = |sql: &str| {
        let done = async { bare.sql(sql).await?.collect().await };
        fixture.runtime.block_on(done)
    };
    for sql in [
        "DELETE FROM t",
        "DELETE FROM t WHERE id = 1",
        "UPDATE t SET n = 1 WHERE id IN (SELECT 1)",
        "TRUNCATE TABLE t",
    ] {
        let error = run(sql).unwrap_err().to_string();
        assert!(error.contains("darner_sql::register"), "{sql}: {error}");
    }
    assert_eq!(
        texts(&run("INSERT INTO t VALUES (1, 'first', 1)").unwrap()),
        ["1"]
    );
    assert_eq!(fixture.rows("SELECT * FROM t WHERE id = 1"), ["1|first|1"]);
    assert_eq!(fixture.rows("SELECT count(*) FROM t"), ["5"]);
}

#[test]
fn a_store_that_is_read_only_is_not_written_to() {
    let fixture = fixture();
    let store = Store::open_read_only(fixture.dir.path()).unwrap();
    let reading = context();
    darner_sql::register(&reading, Arc::new(store), "darner");
    for sql in [
        "INSERT INTO t VALUES (1, 'a', 1)",
        "DELETE FROM t",
        "UPDATE t SET n = 1 WHERE id = 1",
        "TRUNCATE TABLE t",
        "CREATE TABLE more (id INT, PRIMARY KEY (id))",
        "CREATE TABLE more (PRIMARY KEY (id)) AS SELECT * FROM t",
        "CREATE OR REPLACE TABLE t (PRIMARY KEY (id)) AS SELECT * FROM t",
        "DROP TABLE t",
        "DROP TABLE IF EXISTS t",
    ] {
        let options = datafusion::prelude::SQLOptions::new();
        let done = async {
            darner_sql::sql(&reading, sql, options)
                .await?
                .collect()
                .await
        };
        let error = fixture.runtime.block_on(done).unwrap_err().to_string();
        assert!(error.contains("read-only"), "{sql}: {error}");
    }
    // A session that forbids it.
    let options = datafusion::prelude::SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false);
    for sql in [
        "DELETE FROM t",
        "DROP TABLE t",
        "INSERT INTO t VALUES (1, 'a', 1)",
    ] {
        let done = darner_sql::sql(&fixture.context, sql, options);
        assert!(fixture.runtime.block_on(done).is_err(), "{sql}");
    }
    assert_eq!(fixture.rows("SELECT count(*) FROM t"), ["5"]);
}

/// The parser takes these parts, and DataFusion leaves them out.
#[test]
fn what_would_be_left_out_is_refused() {
    let fixture = Fixture::with("(1, 'one', 10), (2, 'two', 20)");
    fixture.run("CREATE TABLE u (id BIGINT, v INT, PRIMARY KEY (id))");
    for sql in [
        "DELETE FROM t PARTITION (p0)",
        "DELETE FROM t TABLESAMPLE (1 PERCENT)",
        "DELETE FROM t TABLESAMPLE (1 PERCENT) WHERE id = 1",
        "UPDATE t TABLESAMPLE (1 PERCENT) SET n = 0",
        "UPDATE t JOIN u ON t.id = u.id SET n = 0",
        "EXPLAIN ANALYZE DELETE FROM t PARTITION (p0)",
        "PREPARE gone AS DELETE FROM t PARTITION (p0)",
    ] {
        fixture.fails(sql, &["`t"]);
    }
    fixture.fails("UPDATE t SET n = 1, n = 2", &["twice", "`n`"]);
    fixture.fails("UPDATE t SET u.n = 1", &["its own table", "`u.n`"]);
    assert_eq!(
        fixture.count("UPDATE t AS x SET x.n = 11 WHERE x.id = 1"),
        1
    );
    assert_eq!(fixture.count("UPDATE t SET t.n = n + 1"), 2);
    assert_eq!(fixture.rows("SELECT id, n FROM t"), ["1|12", "2|21"]);
}

/// A statement that was planned before does not give a table its old columns back.
#[test]
fn a_table_keeps_the_columns_that_it_got_meanwhile() {
    let fixture = Fixture::with("(1, 'one', 10)");
    fixture.run("PREPARE gone AS DELETE FROM t");
    fixture.run("PREPARE over AS INSERT OVERWRITE t VALUES (3, 'three', 30)");
    fixture.run("CREATE OR REPLACE TABLE t (PRIMARY KEY (k)) AS SELECT 'a' AS k, 1 AS w");
    fixture.fails("EXECUTE gone", &["columns"]);
    fixture.fails("EXECUTE over", &["columns"]);
    assert_eq!(fixture.rows("SELECT k, w FROM t"), ["a|1"]);
}

/// Two statements that read the table by lookups and write it: both count.
#[test]
fn lookups_in_the_table_that_is_written_are_reads_of_it() {
    const NUM_EACH: usize = 20;

    let fixture = Fixture::with("(1, 'one', 0)");
    fixture.run("CREATE TABLE s (id BIGINT, PRIMARY KEY (id))");
    fixture.run("INSERT INTO s VALUES (1)");
    let sql = "INSERT INTO t SELECT id, 'one', dim_get('t', id, 'n') + 1 FROM s";
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..NUM_EACH {
                    assert_eq!(fixture.count(sql), 1);
                }
            });
        }
    });
    assert_eq!(
        fixture.rows("SELECT n FROM t"),
        [(2 * NUM_EACH).to_string()]
    );
}
