use std::sync::{Arc, LazyLock};

use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, cast::AsArray, types::Int64Type};
use datafusion::{
    arrow::compute::{concat, concat_batches},
    prelude::{ParquetReadOptions, SessionConfig},
};

use crate::support::{TestSession, TestStore};

mod data;

use self::data::{FACTS, Table};

static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| data::tables(0.02).unwrap());

/// What DataFusion answers to each query from the tables in memory.
static ANSWERS: LazyLock<Vec<Vec<String>>> = LazyLock::new(|| {
    let session = memory(&TestStore::new());
    let queries = data::queries().into_iter();
    queries.map(|sql| session.query(sql)).collect()
});

/// A session with the tables in memory. The store is empty.
fn memory(store: &TestStore) -> TestSession {
    let session = TestSession::new(store, SessionConfig::new().with_target_partitions(3));
    for table in TABLES.iter() {
        session.put(table.name, &table.schema, vec![table.rows.clone()]);
    }
    session
}

/// When a table is compacted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Compact {
    /// Before the last commits.
    Between,
    Last,
    Never,
}

/// All tables but that of the facts in a store, and the facts in a file.
struct Tpch {
    store: TestStore,
    dir: tempfile::TempDir,
}

impl Tpch {
    fn new() -> Self {
        let store = TestStore::new();
        let tables = TABLES.iter().filter(|table| table.name != FACTS);
        let compactions = [Compact::Between, Compact::Last, Compact::Never];
        for (table, compact) in tables.zip(compactions.into_iter().cycle()) {
            load(&store, table, compact);
        }
        let dir = tempfile::tempdir().unwrap();
        let copy = format!("COPY {FACTS} TO '{}'", file(&dir));
        memory(&TestStore::new()).query(&copy);
        Self { store, dir }
    }

    fn session(&self, config: SessionConfig) -> TestSession {
        let config = config.with_default_catalog_and_schema("darner", "public");
        let session = TestSession::new(&self.store, config);
        let (file, options) = (file(&self.dir), ParquetReadOptions::default());
        let facts = session
            .context
            .register_parquet(FACTS, file.as_str(), options);
        session.wait(facts).unwrap();
        session
    }
}

fn file(dir: &tempfile::TempDir) -> String {
    let file = dir.path().join("lineitem.parquet");
    file.to_str().unwrap().to_owned()
}

/// Loads a table by commits that replace and delete what earlier ones have put there. At the end it has its rows and no
/// others.
fn load(store: &TestStore, table: &Table, compact: Compact) {
    let rows = concat_batches(&table.schema, &table.rows).unwrap();
    let half = rows.num_rows() / 2;
    let (first, second) = (
        rows.slice(0, half),
        rows.slice(half, rows.num_rows() - half),
    );
    let num_keys = table.key.len();
    let strangers = strangers(&second, num_keys);
    store.upsert(table.name, table.key, &with_wrong_values(&first, num_keys));
    store.upsert(table.name, table.key, &strangers);
    store.upsert(table.name, table.key, &second);
    if compact == Compact::Between {
        store.store.compact_table(table.name).unwrap();
    }
    let third = first.num_rows() / 3;
    store.upsert(table.name, table.key, &first.slice(0, third));
    let rest = first.slice(third, first.num_rows() - third);
    store.upsert(table.name, table.key, &rest);
    let keys: Vec<usize> = (0..num_keys).collect();
    store.delete(table.name, &strangers.project(&keys).unwrap());
    if compact == Compact::Last {
        store.store.compact_table(table.name).unwrap();
    }
}

/// Each row with the values of the next one, beside its key.
fn with_wrong_values(rows: &RecordBatch, num_keys: usize) -> RecordBatch {
    let columns = rows.columns().iter().enumerate().map(|(at, column)| {
        if at < num_keys {
            return Arc::clone(column);
        }
        let rest = column.slice(1, column.len() - 1);
        concat(&[&*rest, &*column.slice(0, 1)]).unwrap()
    });
    RecordBatch::try_new(rows.schema(), columns.collect()).unwrap()
}

/// The rows under keys that no row has.
fn strangers(rows: &RecordBatch, num_keys: usize) -> RecordBatch {
    let columns = rows.columns().iter().enumerate().map(|(at, column)| {
        if at >= num_keys {
            return Arc::clone(column);
        }
        let keys: &Int64Array = column.as_primitive();
        Arc::new(keys.unary::<_, Int64Type>(|key| -1 - key)) as ArrayRef
    });
    RecordBatch::try_new(rows.schema(), columns.collect()).unwrap()
}

/// Checks every answer, in its order: no two rows of one have the same place in it. Gives the queries' numbers whose plans
/// have lookups.
fn check(session: &TestSession) -> Vec<usize> {
    let mut with_lookups = Vec::new();
    for (number, (sql, expected)) in (1..).zip(data::queries().into_iter().zip(ANSWERS.iter())) {
        let (plan, _) = session.plan(sql);
        let rows = session.query(sql);
        assert!(
            rows == *expected,
            "query {number}\ngot: {rows:#?}\nexpected: {expected:#?}\n{plan}"
        );
        if plan.contains("LookupJoinExec") {
            with_lookups.push(number);
        }
    }
    with_lookups
}

fn config() -> SessionConfig {
    SessionConfig::new().with_target_partitions(3)
}

#[test]
fn there_are_22_queries_and_each_finds_something() {
    assert_eq!(ANSWERS.len(), 22);
    for (number, rows) in (1..).zip(ANSWERS.iter()) {
        assert!(
            rows.iter().any(|row| row != "NULL"),
            "query {number}: {rows:?}"
        );
    }
}

#[test]
fn the_tables_of_the_store_have_the_rows() {
    let tpch = Tpch::new();
    let (stored, expected) = (tpch.session(config()), memory(&tpch.store));
    for table in TABLES.iter() {
        let sql = format!(
            "SELECT * FROM {} ORDER BY {}",
            table.name,
            table.key.join(", ")
        );
        assert!(
            stored.query(&sql) == expected.query(&sql),
            "{} differs",
            table.name
        );
    }
    // Of what was replaced and deleted, there is still something to be left out.
    for name in ["customer", "supplier", "partsupp", "orders"] {
        let stored = tpch.store.store.table(name).unwrap();
        assert!(
            stored.num_stored_rows() > stored.num_rows().unwrap(),
            "{name}"
        );
    }
}

#[test]
fn answers_with_lookups_are_those_from_memory() {
    let tpch = Tpch::new();
    let session = tpch.session(config());
    let first = check(&session);
    assert!(first.len() >= 10, "lookups in {first:?} only");
    // Dimensions that are there are used where they did not pay before.
    let again = check(&session);
    assert!(
        first.iter().all(|number| again.contains(number)),
        "{again:?}"
    );
}

#[test]
fn answers_with_lookups_in_small_batches_are_those_from_memory() {
    let tpch = Tpch::new();
    let session = tpch.session(config().with_batch_size(100));
    check(&session);
}

#[test]
fn answers_of_hash_joins_are_those_from_memory() {
    let tpch = Tpch::new();
    let session = tpch.session(config());
    session.set("darner.lookup_join", false);
    assert_eq!(check(&session), [0; 0]);
}

#[test]
fn answers_of_merge_joins_are_those_from_memory() {
    let tpch = Tpch::new();
    let session = tpch.session(config());
    session.set("darner.lookup_join", false);
    session.set("datafusion.optimizer.prefer_hash_join", false);
    assert_eq!(check(&session), [0; 0]);
}
