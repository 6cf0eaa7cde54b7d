use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use darner_store::{Store, StoreOptions};

use crate::{
    fixture::{Fixture, context, texts},
    random::{Random, seed},
};

fn fixture() -> Fixture {
    Fixture::with("(1, 'one', 10), (2, 'two', 20), (3, NULL, 30)")
}

#[test]
fn a_lookup_gives_the_column_of_the_row_with_the_key() {
    let fixture = fixture();
    assert_eq!(
        fixture.rows("SELECT dim_get('t', 2, 'name') AS name"),
        ["two"]
    );
    assert_eq!(
        fixture.rows(
            "SELECT dim_get('t', 7, 'name'), dim_get('t', NULL, 'n'), dim_get('t', 3, 'name')"
        ),
        ["null|null|null"]
    );
    assert_eq!(
        fixture.rows("SELECT dim_has('t', 2), dim_has('t', 7), dim_has('t', NULL)"),
        ["true|false|false"]
    );
    // A key by its value, whatever its type.
    assert_eq!(
        fixture.rows("SELECT v, dim_get('t', arrow_cast(v, 'UInt8'), 'n') FROM (VALUES (1), (2), (9), (NULL)) AS x(v)"),
        ["1|10", "2|20", "9|null", "null|null"]
    );
    // In all places where there are expressions.
    assert_eq!(
        fixture.rows("SELECT count(*) FROM (VALUES (1), (2), (3)) AS x(v) WHERE dim_get('t', v, 'n') > 10 GROUP BY dim_get('t', v, 'name') IS NULL"),
        ["1", "1"]
    );
    assert_eq!(
        fixture.rows("SELECT dim_get('t', (SELECT 1 + 1), 'name')"),
        ["two"]
    );
    assert_eq!(
        fixture.rows("SELECT dim_get('t', dim_get('t', 1, 'n') / 5, 'name')"),
        ["two"]
    );
    assert_eq!(
        fixture.rows("SELECT dim_get('darner.public.t', 1, 'name')"),
        ["one"]
    );
    assert_eq!(
        fixture.rows("SELECT dim_get('t', id, 'id') FROM t WHERE false"),
        [""; 0]
    );
}

#[test]
fn a_key_may_have_several_columns() {
    let fixture = Fixture::new();
    fixture.run("CREATE TABLE p (a INT, b TEXT, v INT, PRIMARY KEY (b, a))");
    fixture.count("INSERT INTO p VALUES (1, 'x', 10), (2, 'x', 20), (1, 'y', 30)");
    assert_eq!(
        fixture.rows("SELECT a, b, dim_get('p', b, a, 'v'), dim_has('p', b, a) FROM (VALUES (1, 'x'), (1, 'y'), (2, 'y'), (1, NULL)) AS f(a, b)"),
        ["1|null|null|false", "1|x|10|true", "1|y|30|true", "2|y|null|false"]
    );
    fixture.fails("SELECT dim_get('p', 'x', 'v')", &["key"]);
    fixture.fails("SELECT dim_get('p', 1, 'x', 'v')", &["`b`"]);
}

#[test]
fn what_is_not_right_says_so_before_anything_runs() {
    let fixture = fixture();
    let cases: [(&str, &[&str]); 9] = [
        (
            "dim_get('t', 1, 'nme')",
            &["no such column", "`nme`", "id, name, n"],
        ),
        ("dim_get('tt', 1, 'name')", &["no such table", "`tt`"]),
        ("dim_get('t', 1.5, 'name')", &["id"]),
        ("dim_get('t', 'one', 'name')", &["id"]),
        ("dim_get('t', 1)", &["dim_get('table', key, ..., 'column')"]),
        ("dim_get('t', 1, 2, 'name')", &["key"]),
        ("dim_get(name, 1, 'name')", &["name of a table"]),
        ("dim_get('t', id, name)", &["name of a column"]),
        ("dim_has('t')", &["dim_has('table', key, ...)"]),
    ];
    for (call, words) in cases {
        fixture.fails(&format!("EXPLAIN SELECT {call} FROM t"), words);
    }
}

#[test]
fn lookups_agree_with_joins() {
    let seed = seed(5);
    let mut random = Random::new(seed);
    for round in 0..10 {
        let fixture = fixture();
        let num_rows = random.number(3000);
        let range = 1 + random.number(4000);
        let sparse = 1 + random.number(1_000_000);
        fixture.run("CREATE TABLE d (k BIGINT, s TEXT, f DOUBLE, PRIMARY KEY (k))");
        fixture.count(&format!(
            "INSERT INTO d SELECT value * {sparse}, CASE WHEN value % 7 > 0 THEN 'name ' || value END, value / 3.0 \
             FROM generate_series(1, {num_rows})"
        ));
        fixture.count("DELETE FROM d WHERE k % 11 = 0");
        let facts = format!(
            "SELECT CASE WHEN value % 13 > 0 THEN value * 7919 % {range} * {sparse} END AS k FROM generate_series(1, 5000)"
        );
        let found = format!(
            "SELECT k, dim_get('d', k, 's'), dim_get('d', k, 'f'), dim_has('d', k) FROM ({facts})"
        );
        let joined = format!(
            "SELECT f.k, d.s, d.f, d.k IS NOT NULL FROM ({facts}) AS f LEFT JOIN d ON f.k = d.k"
        );
        assert_eq!(
            fixture.rows(&found),
            fixture.rows(&joined),
            "seed={seed} round={round}"
        );
    }
}

#[test]
fn a_lookup_sees_the_newest_commit_and_one_commit() {
    let fixture = fixture();
    let one = "SELECT v, dim_get('t', v, 'n') FROM (VALUES (1)) AS x(v)";
    assert_eq!(fixture.rows(one), ["1|10"]);
    fixture.count("UPDATE t SET n = 11 WHERE id = 1");
    assert_eq!(fixture.rows(one), ["1|11"]);
    fixture.run("PREPARE get AS SELECT dim_get('t', $1, 'n')");
    fixture.count("UPDATE t SET n = 12 WHERE id = 1");
    assert_eq!(fixture.rows("EXECUTE get(1)"), ["12"]);
    fixture.run("DROP TABLE t");
    fixture.fails(one, &["no such table"]);
    fixture.run("CREATE TABLE t (id BIGINT, n TEXT, PRIMARY KEY (id))");
    fixture.count("INSERT INTO t VALUES (1, 'new')");
    assert_eq!(fixture.rows(one), ["1|new"]);
    // A query that was planned before a commit goes on with what was.
    let planned = async {
        let rows = fixture
            .context
            .sql("SELECT dim_get('t', id, 'n') FROM t")
            .await?;
        let plan = rows.create_physical_plan().await?;
        let mut transaction = fixture.store.begin().unwrap();
        transaction.drop_table("t").unwrap();
        transaction.commit().unwrap();
        datafusion::physical_plan::collect(plan, fixture.context.task_ctx()).await
    };
    let rows = fixture.runtime.block_on(planned).unwrap();
    assert_eq!(texts(&rows), ["new"]);
}

#[test]
fn updates_can_look_up() {
    let fixture = fixture();
    fixture.run("CREATE TABLE d (k BIGINT, n INT, PRIMARY KEY (k))");
    fixture.count("INSERT INTO d VALUES (1, 100), (3, 300)");
    assert_eq!(
        fixture.count("UPDATE t SET n = dim_get('d', id, 'n') WHERE dim_has('d', id)"),
        2
    );
    assert_eq!(
        fixture.rows("SELECT id, n FROM t"),
        ["1|100", "2|20", "3|300"]
    );
}

#[test]
fn several_catalogs_are_told_apart() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let context = context();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let rows = |sql: &str| {
        let options = datafusion::prelude::SQLOptions::new();
        let done = async {
            darner_sql::sql(&context, sql, options)
                .await?
                .collect()
                .await
        };
        texts(&runtime.block_on(done).unwrap())
    };
    for (dir, name) in dirs.iter().zip(["first", "second"]) {
        let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
        darner_sql::register(&context, Arc::new(store), name);
        rows(&format!(
            "CREATE TABLE {name}.public.both (id INT, v TEXT, PRIMARY KEY (id))"
        ));
        rows(&format!(
            "INSERT INTO {name}.public.both VALUES (1, '{name}')"
        ));
        rows(&format!(
            "CREATE TABLE {name}.public.{name} (id INT, v TEXT, PRIMARY KEY (id))"
        ));
    }
    let lookups = "SELECT dim_get('both', 1, 'v'), dim_get('first.public.both', 1, 'v'), dim_get('second.public.both', 1, 'v')";
    assert_eq!(rows(lookups), ["second|first|second"]);
    assert_eq!(rows("SELECT count(*) FROM darner_history('first')"), ["1"]);
    assert_eq!(
        rows("SELECT v FROM darner_at('first.public.both', 2)"),
        ["first"]
    );
    // From one to the other.
    assert_eq!(
        rows("INSERT INTO first.public.both SELECT id + 1, v FROM second.public.both"),
        ["1"]
    );
    assert_eq!(
        rows("DELETE FROM second.public.both WHERE id IN (SELECT id FROM first.public.both)"),
        ["1"]
    );
}

/// Each commit sets all rows to one number: whoever reads a row and looks it up finds the same.
#[test]
fn a_query_reads_and_looks_up_as_of_one_commit() {
    let fixture = Fixture::new();
    fixture.run("CREATE TABLE c (id BIGINT, n BIGINT, PRIMARY KEY (id))");
    let write = |n: i64| {
        let rows = format!("INSERT INTO c SELECT value, {n} FROM range(0, 50)");
        fixture.count(&rows);
    };
    write(0);
    let is_done = AtomicBool::new(false);
    let mut answers = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 1;
            while !is_done.load(Ordering::Relaxed) {
                write(n);
                n += 1;
            }
        });
        for _ in 0..100 {
            let sql = "SELECT count(*) FROM c WHERE n <> dim_get('c', id, 'n')";
            let found = fixture.batches(sql).map(|rows| texts(&rows));
            answers.push(found);
        }
        // First, or the writer would go on for ever when an answer is wrong.
        is_done.store(true, Ordering::Relaxed);
    });
    for answer in answers {
        assert_eq!(answer.unwrap(), ["0"]);
    }
}
