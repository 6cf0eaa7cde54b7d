//! A query sees one version of the store.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arrow_array::{ArrayRef, Int64Array, RecordBatch, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, Field, Schema};
use darner_store::{Store, StoreOptions, TableSpec};
use datafusion::prelude::SessionContext;
use tokio::runtime::Runtime;

const NUM_KEYS: i64 = 50;

fn rows(value: i64) -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("value", DataType::Int64, false),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(0..NUM_KEYS)),
        Arc::new(Int64Array::from_iter_values((0..NUM_KEYS).map(|_| value))),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

/// Commits one value to all rows of both tables.
fn commit(store: &Store, value: i64) {
    let mut transaction = store.begin().unwrap();
    for table in ["a", "b"] {
        if transaction.table_spec(table).is_none() {
            let spec = TableSpec::new(&rows(0).schema(), &["id"]).unwrap();
            transaction.create_table(table, spec).unwrap();
        }
        transaction.upsert(table, &rows(value)).unwrap();
    }
    transaction.commit().unwrap();
}

async fn values(context: &SessionContext, sql: &str) -> Vec<i64> {
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    let columns = batches.iter().flat_map(RecordBatch::columns);
    columns
        .flat_map(|column| column.as_primitive::<Int64Type>().values().to_vec())
        .collect()
}

#[test]
fn every_query_sees_one_commit_of_all_tables() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(dir.path(), StoreOptions::default()).unwrap());
    commit(&store, 0);
    let context = SessionContext::new();
    darner_sql::register(&context, Arc::clone(&store), "darner");
    let is_over = Arc::new(AtomicBool::new(false));
    let writer = {
        let (store, is_over) = (Arc::clone(&store), Arc::clone(&is_over));
        std::thread::spawn(move || {
            let mut value = 1;
            while !is_over.load(Ordering::Relaxed) {
                commit(&store, value);
                value += 1;
            }
            value
        })
    };
    let queries = [
        "SELECT max(a.value - b.value), min(a.value - b.value) FROM darner.public.a JOIN darner.public.b ON a.id = b.id",
        "SELECT (SELECT max(value) FROM darner.public.a) - (SELECT min(value) FROM darner.public.b)",
        "SELECT max(value) - min(value) FROM (SELECT * FROM darner.public.a UNION ALL SELECT * FROM darner.public.b)",
        "SELECT count(*) - 50 FROM darner.public.a WHERE EXISTS \
         (SELECT 1 FROM darner.public.b WHERE b.id = a.id AND b.value = a.value)",
        "WITH w AS (SELECT * FROM darner.public.a) SELECT count(*) - 50 FROM w \
         WHERE value IN (SELECT value FROM darner.public.b)",
    ];
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        for _ in 0..20 {
            for sql in queries {
                for value in values(&context, sql).await {
                    assert_eq!(value, 0, "{sql}");
                }
            }
        }
        // A plan that is kept reads what is there when it runs, of both tables.
        let kept = context.sql(queries[0]).await.unwrap();
        let newest = "SELECT max(value) FROM darner.public.a";
        let kept_newest = context.sql(newest).await.unwrap();
        let mut last = -1;
        for _ in 0..20 {
            for batch in kept.clone().collect().await.unwrap() {
                for column in batch.columns() {
                    assert_eq!(column.as_primitive::<Int64Type>().values(), &[0]);
                }
            }
            let batches = kept_newest.clone().collect().await.unwrap();
            let value = batches[0].column(0).as_primitive::<Int64Type>().value(0);
            assert!(value >= last, "an older version after a newer one");
            last = value;
        }
    });
    is_over.store(true, Ordering::Relaxed);
    let num_commits = writer.join().unwrap();
    assert!(num_commits > 1);
}

#[test]
fn a_kept_plan_does_not_run_on_other_columns() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(dir.path(), StoreOptions::default()).unwrap());
    commit(&store, 7);
    let context = SessionContext::new();
    darner_sql::register(&context, Arc::clone(&store), "darner");
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let kept = context
            .sql("SELECT sum(value) FROM darner.public.a")
            .await
            .unwrap();
        let mut transaction = store.begin().unwrap();
        let schema = Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("value", DataType::Utf8, false),
        ]);
        let spec = TableSpec::new(&schema, &["id"]).unwrap();
        transaction.replace("a", spec).unwrap();
        transaction.commit().unwrap();
        let error = kept.clone().collect().await.unwrap_err().to_string();
        assert!(
            error.contains("other columns") && error.contains("try again"),
            "{error}"
        );
        let mut transaction = store.begin().unwrap();
        transaction.drop_table("a").unwrap();
        transaction.commit().unwrap();
        let error = kept.collect().await.unwrap_err().to_string();
        assert!(
            error.contains("dropped") && error.contains("table=`a`"),
            "{error}"
        );
    });
}
