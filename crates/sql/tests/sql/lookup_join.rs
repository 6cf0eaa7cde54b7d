use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use darner_store::{Store, StoreOptions, TableSpec};
use datafusion::{
    error::DataFusionError,
    physical_plan::{ExecutionPlan, collect, displayable},
    prelude::{SessionConfig, SessionContext},
};
use futures::StreamExt;

use crate::support::{TestSession, TestStore, sorted};

/// `id`, `name`, `n` for these keys; every fifth name is null.
fn names(ids: std::ops::Range<i64>) -> RecordBatch {
    let name = |id| (id % 5 != 0).then(|| format!("name {id}"));
    RecordBatch::try_from_iter([
        (
            "id",
            Arc::new(Int64Array::from_iter_values(ids.clone())) as ArrayRef,
        ),
        (
            "name",
            Arc::new(ids.clone().map(name).collect::<StringArray>()) as ArrayRef,
        ),
        (
            "n",
            Arc::new(Int64Array::from_iter_values(ids.map(|id| id * 10))) as ArrayRef,
        ),
    ])
    .unwrap()
}

/// A store with `names` of 0..100, and a session with facts `f` whose `k` is 0..150, in three partitions.
fn hundred() -> (TestStore, TestSession) {
    let store = TestStore::new();
    store.upsert("names", &["id"], &names(0..100));
    let session = session(&store);
    (store, session)
}

fn session(store: &TestStore) -> TestSession {
    let session = TestSession::new(store, SessionConfig::new().with_target_partitions(3));
    let part = |keys: std::ops::Range<i32>| {
        let values = Int64Array::from_iter_values(keys.clone().map(i64::from));
        RecordBatch::try_from_iter([
            (
                "k",
                Arc::new(Int32Array::from_iter_values(keys)) as ArrayRef,
            ),
            ("v", Arc::new(values) as ArrayRef),
        ])
        .unwrap()
    };
    let parts = vec![vec![part(0..50)], vec![part(50..60), part(60..150)], vec![]];
    session.put("f", &part(0..0).schema(), parts);
    session
}

const JOIN: &str = "SELECT f.v, d.name FROM f JOIN darner.public.names d ON f.k = d.id";

#[test]
fn explain_shows_table_version_key_kind_and_columns() {
    let (_store, session) = hundred();
    let (plan, _) = session.plan(&format!("{JOIN} AND d.n > f.v + 500"));
    let shown = plan.lines().find(|line| line.contains("LookupJoinExec"));
    let shown = shown.unwrap_or_else(|| panic!("{plan}")).trim();
    let expected = "LookupJoinExec: table=names, version=1, on=[(CAST(f.k AS Int64)@";
    assert!(shown.starts_with(expected), "{shown}");
    assert!(
        shown.contains(", id)], kind=inner, columns=[name, n], filter=n@"),
        "{shown}"
    );
    // Nothing is spread or collected for the join, and the table is not scanned.
    assert!(
        !plan.contains("RepartitionExec: partitioning=Hash"),
        "{plan}"
    );
    assert!(!plan.contains("CoalescePartitionsExec"), "{plan}");
    assert!(!plan.contains("StoreScanExec"), "{plan}");
}

#[test]
fn explain_analyze_counts_rows_and_times() {
    let (_store, session) = hundred();
    let analyze = |sql: &str| {
        let rows = session.query(&format!("EXPLAIN ANALYZE {sql}"));
        let line = rows.iter().flat_map(|row| row.lines());
        let line = line
            .into_iter()
            .find(|line| line.contains("LookupJoinExec"));
        line.unwrap_or_else(|| panic!("{rows:?}")).to_owned()
    };
    let first = analyze(JOIN);
    for metric in [
        "output_rows=100",
        "input_rows=150",
        "matched=100",
        "missed=50",
        "null_keys=0",
    ] {
        assert!(first.contains(metric), "{metric}: {first}");
    }
    for metric in [
        "dimensions_built=1",
        "build_time=",
        "probe_time=",
        "gather_time=",
    ] {
        assert!(first.contains(metric), "{metric}: {first}");
    }
    // The second time it is there.
    let second = analyze(JOIN);
    assert!(second.contains("dimensions_built=0"), "{second}");
    assert!(!second.contains("build_time="), "{second}");
}

#[test]
fn the_option_turns_lookups_off_and_on() {
    let (_store, session) = hundred();
    let expected = sorted(session.query(JOIN));
    assert_eq!(expected.len(), 100);
    session.set("darner.lookup_join", false);
    assert!(session.plan(JOIN).0.contains("HashJoinExec"));
    assert_eq!(sorted(session.query(JOIN)), expected);
    session.set("darner.lookup_join", true);
    assert!(session.plan(JOIN).0.contains("LookupJoinExec"));
    let error = session
        .try_query("SET darner.lookup_jion = true")
        .unwrap_err();
    assert!(error.to_string().contains("lookup_jion"), "{error}");
    let error = session
        .try_query("SET darner.lookup_join = perhaps")
        .unwrap_err();
    assert!(error.to_string().contains("perhaps"), "{error}");
}

#[test]
fn a_dimension_that_is_not_to_be_kept_is_left_to_the_hash_join() {
    let (_store, session) = hundred();
    session.set("darner.dimension_cache_bytes", 1000);
    assert!(session.plan(JOIN).0.contains("HashJoinExec"));
    session.set("darner.dimension_cache_bytes", 1_000_000);
    assert!(session.plan(JOIN).0.contains("LookupJoinExec"));
}

#[test]
fn few_facts_build_no_large_dimension_but_use_one() {
    let store = TestStore::new();
    store.upsert("names", &["id"], &names(0..3001));
    let session = session(&store);
    assert!(session.plan(JOIN).0.contains("HashJoinExec"));
    store.upsert("names", &["id"], &names(0..1));
    let many = "SELECT count(d.name) FROM (SELECT a.k FROM f a, f b) g \
                JOIN darner.public.names d ON g.k = d.id";
    assert!(session.plan(many).0.contains("LookupJoinExec"));
    assert_eq!(session.query(many), ["18000"]);
    // It has the column already.
    assert!(session.plan(JOIN).0.contains("LookupJoinExec"));
    // But not this one.
    assert!(
        session
            .plan(&JOIN.replace("d.name", "d.n"))
            .0
            .contains("HashJoinExec")
    );
}

#[test]
fn queries_see_the_version_that_they_were_planned_on() {
    let (store, session) = hundred();
    let prepared = session.wait(async {
        let rows = session.context.sql(JOIN).await.unwrap();
        rows.create_physical_plan().await.unwrap()
    });
    let run = |plan: Arc<dyn ExecutionPlan>| {
        let rows = session
            .wait(collect(plan, session.context.task_ctx()))
            .unwrap();
        rows.iter().map(RecordBatch::num_rows).sum::<usize>()
    };
    store.upsert("names", &["id"], &names(100..120));
    assert_eq!(session.query(JOIN).len(), 120);
    let keys = names(0..10).project(&[0]).unwrap();
    store.delete("names", &keys);
    assert_eq!(session.query(JOIN).len(), 110);
    assert_eq!(run(prepared), 100);
    // A table that took the name of another.
    let mut transaction = store.store.begin().unwrap();
    transaction.drop_table("names").unwrap();
    transaction.commit().unwrap();
    store.upsert("names", &["id"], &names(0..7));
    assert_eq!(session.query(JOIN).len(), 7);
}

#[test]
fn only_whole_tables_and_whole_keys_are_looked_up() {
    let (store, session) = hundred();
    store.upsert("pairs", &["id", "n"], &names(0..100));
    let is_lookup = |sql: &str| session.plan(sql).0.contains("LookupJoinExec");
    let names = "darner.public.names";
    let pairs = "darner.public.pairs";
    let lookups = [
        format!("SELECT * FROM f JOIN {pairs} d ON f.k = d.id AND f.v = d.n"),
        format!("SELECT * FROM f JOIN {pairs} d ON d.n = f.v AND f.k = d.id"),
        format!(
            "SELECT * FROM f JOIN (SELECT id AS i, n + 1 AS m, name FROM {names}) d ON k = i WHERE name <> ''"
        ),
        format!("SELECT v FROM f WHERE k IN (SELECT id FROM {names})"),
        format!("SELECT v FROM f WHERE k NOT IN (SELECT id FROM {names})"),
        format!("SELECT * FROM f JOIN {names} d ON k = id + 0"),
    ];
    let sees = lookups.each_ref().map(|sql| is_lookup(sql));
    assert_eq!(sees, [true, true, false, true, true, false]);
    let others = [
        format!("SELECT * FROM f JOIN {pairs} d ON f.k = d.id"),
        format!("SELECT * FROM f JOIN {names} d ON f.k = d.n"),
        format!("SELECT * FROM f JOIN (SELECT * FROM {names} LIMIT 10) d ON f.k = d.id"),
        format!("SELECT * FROM f JOIN (SELECT * FROM {names} WHERE n > 5) d ON f.k = d.id"),
        format!("SELECT * FROM f JOIN (SELECT id FROM {names} GROUP BY id) d ON f.k = d.id"),
        format!("SELECT * FROM f JOIN {names} d ON CAST(f.k AS DOUBLE) = d.id"),
        format!("SELECT * FROM f JOIN {names} d ON CAST(f.k AS VARCHAR) = CAST(d.id AS VARCHAR)"),
    ];
    for sql in &others[..4] {
        assert!(!is_lookup(sql), "{sql}");
    }
    for sql in &others[5..] {
        assert!(!is_lookup(sql), "{sql}");
    }
}

#[test]
fn not_in_knows_that_null_may_be_anything_but_not_in_nothing() {
    let store = TestStore::new();
    store.upsert("some", &["id"], &names(0..3));
    store.upsert("none", &["id"], &names(0..0));
    let session = session(&store);
    let keys = "(VALUES (1), (NULL), (7)) AS v(k)";
    let query = |table: &str| {
        let sql =
            format!("SELECT k FROM {keys} WHERE k NOT IN (SELECT id FROM darner.public.{table})");
        sorted(session.query(&sql))
    };
    for lookup_join in [true, false] {
        session.set("darner.lookup_join", lookup_join);
        assert_eq!(query("some"), ["7"]);
        assert_eq!(query("none"), ["1", "7", "NULL"]);
    }
}

#[test]
fn limits_end_the_join_and_go_below_one_that_keeps_all_rows() {
    let (_store, session) = hundred();
    assert_eq!(session.query(&format!("{JOIN} LIMIT 7")).len(), 7);
    assert_eq!(session.query(&format!("{JOIN} LIMIT 0")).len(), 0);
    assert_eq!(session.query(&format!("{JOIN} LIMIT 5 OFFSET 97")).len(), 3);
    let left = JOIN.replace("JOIN", "LEFT JOIN");
    assert_eq!(session.query(&format!("{left} LIMIT 120")).len(), 120);
    assert_eq!(
        session.query(&format!("{JOIN} ORDER BY f.v DESC LIMIT 2")),
        ["99|name 99", "98|name 98"]
    );
}

#[test]
fn facts_keep_their_order() {
    let (_store, session) = hundred();
    let sql = "SELECT g.v, d.name FROM (SELECT * FROM f ORDER BY v DESC) g \
               LEFT JOIN darner.public.names d ON g.k = d.id ORDER BY g.v DESC";
    let (plan, _) = session.plan(sql);
    assert_eq!(plan.matches("SortExec").count(), 1, "{plan}");
    assert!(plan.contains("LookupJoinExec"), "{plan}");
    let rows = session.query(sql);
    assert_eq!(
        (rows.len(), rows[0].as_str(), rows[149].as_str()),
        (150, "149|NULL", "0|NULL")
    );
}

/// A sort was put below a lookup, on the column of the facts that happened to have the place of the wanted one, and the
/// plan then failed DataFusion's check. It takes the columns of a node's input for the node's first ones.
#[test]
fn rows_are_sorted_by_what_was_asked_for_wherever_columns_come_out() {
    let (_store, session) = hundred();
    let names = "darner.public.names";
    let queries = [
        format!("SELECT d.name, d.n, f.v FROM {names} d JOIN f ON f.k = d.id ORDER BY d.id"),
        format!("SELECT d.name, d.n, f.v FROM {names} d JOIN f ON f.k = d.id ORDER BY d.name, v"),
        format!("SELECT d.name, d.n, f.v FROM {names} d JOIN f ON f.k = d.id ORDER BY f.v DESC"),
        format!("SELECT f.v, f.k, d.n FROM {names} d RIGHT JOIN f ON f.k = d.id ORDER BY d.n, v"),
        format!("SELECT d.n, f.v, f.k FROM f LEFT JOIN {names} d ON f.k = d.id ORDER BY f.v DESC"),
        format!("SELECT d.name, f.v FROM f JOIN {names} d ON f.k = d.id ORDER BY d.name, f.v"),
        format!("SELECT f.v FROM f WHERE f.k IN (SELECT id FROM {names}) ORDER BY f.v DESC"),
        format!(
            "SELECT * FROM (SELECT d.n, f.v FROM {names} d RIGHT JOIN f ON f.k = d.id LIMIT 200) \
             ORDER BY n NULLS FIRST, v"
        ),
    ];
    for sql in queries {
        session.set("darner.lookup_join", true);
        assert!(session.plan(&sql).0.contains("LookupJoinExec"), "{sql}");
        let rows = session.query(&sql);
        session.set("darner.lookup_join", false);
        assert_eq!(rows, session.query(&sql), "{sql}");
    }
}

#[test]
fn a_condition_fails_only_where_keys_match() {
    let (_store, session) = hundred();
    // 1 / (v - 120) fails at 120, which has no row in the dimension.
    let safe = "SELECT f.v, d.name FROM f LEFT JOIN darner.public.names d ON f.k = d.id AND d.n / (f.v - 120) > 0";
    assert!(session.plan(safe).0.contains("LookupJoinExec"));
    assert_eq!(session.query(safe).len(), 150);
    let error = session.try_query(&safe.replace("120", "20")).unwrap_err();
    assert!(error.to_string().contains("ivide by zero"), "{error}");
}

#[test]
fn a_query_that_is_dropped_leaves_a_dimension_that_others_can_have() {
    let (_store, session) = hundred();
    for _ in 0..20 {
        session.wait(async {
            let rows = session.context.sql(JOIN).await.unwrap();
            let mut stream = rows.execute_stream().await.unwrap();
            // Asks once, and leaves without an answer.
            let _ = futures::poll!(stream.next());
        });
    }
    assert_eq!(session.query(JOIN).len(), 100);
}

#[test]
fn several_stores_and_sessions_get_along() {
    let (store, session) = hundred();
    let other = TestStore::new();
    other.upsert("names", &["id"], &names(0..20));
    darner_sql::register(&session.context, Arc::clone(&other.store), "other");
    session.set("darner.lookup_join", true);
    assert_eq!(session.query(JOIN).len(), 100);
    let sql = JOIN.replace("darner.", "other.");
    assert!(session.plan(&sql).0.contains("LookupJoinExec"));
    assert_eq!(session.query(&sql).len(), 20);
    // A second registration leaves what is set, and the session what it was.
    session.set("darner.lookup_join", false);
    let id = session.context.session_id();
    darner_sql::register(&session.context, Arc::clone(&store.store), "again");
    assert!(session.plan(JOIN).0.contains("HashJoinExec"));
    assert_eq!(session.context.state().session_id(), id);
}

#[test]
fn stars_are_chains_of_lookups() {
    let (store, session) = hundred();
    store.upsert("more", &["id"], &names(40..400));
    let sql = "SELECT d.name, e.name, x.v FROM f x \
               JOIN darner.public.names d ON x.k = d.id \
               LEFT JOIN darner.public.more e ON x.v = e.id \
               JOIN darner.public.more g ON d.id = g.id";
    let (plan, _) = session.plan(sql);
    assert_eq!(plan.matches("LookupJoinExec").count(), 3, "{plan}");
    let rows = sorted(session.query(sql));
    assert_eq!(rows.len(), 60);
    session.set("darner.lookup_join", false);
    assert_eq!(sorted(session.query(sql)), rows);
}

#[test]
fn filters_from_above_reach_the_facts() {
    let (_store, session) = hundred();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("facts.parquet");
    let file = file.display();
    session.query(&format!("COPY f TO '{file}' STORED AS PARQUET"));
    session.query(&format!(
        "CREATE EXTERNAL TABLE g STORED AS PARQUET LOCATION '{file}'"
    ));
    let facts = |sql: &str| {
        let (plan, _) = session.plan(sql);
        let (_, below) = plan
            .split_once("LookupJoinExec")
            .unwrap_or_else(|| panic!("{plan}"));
        below.to_owned()
    };
    // A filter that changes while the query runs, of a sort that wants the first rows alone.
    let top = "SELECT g.v, d.name FROM g LEFT JOIN darner.public.names d ON g.k = d.id ORDER BY g.v LIMIT 3";
    assert!(facts(top).contains("DynamicFilter"), "{}", facts(top));
    assert_eq!(session.query(top), ["0|NULL", "1|name 1", "2|name 2"]);
    // One of another join, through the lookup.
    let both = "SELECT g.v, d.name FROM g JOIN darner.public.names d ON g.k = d.id \
                JOIN (SELECT v AS w FROM f WHERE v < 4) h ON g.v = h.w";
    let expected = ["0|NULL", "1|name 1", "2|name 2", "3|name 3"];
    assert_eq!(sorted(session.query(both)), expected);
    // A column of the dimension is none of the facts, though both are named alike.
    let names = "(SELECT k, v AS name FROM g) x";
    let alike = format!(
        "SELECT x.k, d.name FROM {names} JOIN darner.public.names d ON x.k = d.id ORDER BY d.name LIMIT 2"
    );
    assert!(
        !facts(&alike).contains("DynamicFilter"),
        "{}",
        facts(&alike)
    );
    assert_eq!(session.query(&alike), ["1|name 1", "11|name 11"]);
}

#[test]
fn damage_is_told_as_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    {
        let store = Store::open(&path, StoreOptions::default()).unwrap();
        let mut transaction = store.begin().unwrap();
        let spec = TableSpec::new(&names(0..1).schema(), &["id"]).unwrap();
        transaction.create_table("names", spec).unwrap();
        transaction.upsert("names", &names(0..2000)).unwrap();
        transaction.commit().unwrap();
        store.checkpoint().unwrap();
    }
    let mut num_damaged = 0;
    let mut dirs = vec![path.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let file = entry.unwrap().path();
            if file.is_dir() {
                dirs.push(file);
            } else if file
                .extension()
                .is_some_and(|extension| extension == "parquet")
            {
                let mut bytes = std::fs::read(&file).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                std::fs::write(&file, bytes).unwrap();
                num_damaged += 1;
            }
        }
    }
    assert!(num_damaged > 0);
    let context = SessionContext::new();
    let store = Arc::new(Store::open_read_only(&path).unwrap());
    darner_sql::register(&context, store, "darner");
    let sql = "SELECT d.name, count(*) FROM generate_series(1, 5000) f(k) \
               JOIN darner.public.names d ON f.k = d.id GROUP BY d.name";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let error = runtime.block_on(async {
        let rows = context.sql(sql).await.unwrap();
        let plan = rows.create_physical_plan().await.unwrap();
        let text = displayable(plan.as_ref()).indent(false).to_string();
        assert!(text.contains("LookupJoinExec"), "{text}");
        collect(plan, context.task_ctx()).await.unwrap_err()
    });
    let DataFusionError::External(inner) = error.find_root() else {
        panic!("{error:?}");
    };
    let error = inner.downcast_ref::<darner_engine::Error>().unwrap();
    assert_eq!(error.kind(), darner_engine::ErrorKind::Data, "{error:?}");
}
