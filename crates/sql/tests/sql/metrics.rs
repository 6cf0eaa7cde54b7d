//! What a scan reads, by what it counts.

use std::sync::Arc;

use arrow_array::RecordBatch;
use darner_store::{Store, StoreOptions, TableSpec};
use datafusion::{
    arrow::compute::concat_batches,
    physical_plan::{ExecutionPlan, collect},
    prelude::{SessionConfig, SessionContext},
};
use tokio::runtime::Runtime;

/// A number that the scans of a plan have counted.
fn count(plan: &Arc<dyn ExecutionPlan>, name: &str) -> usize {
    let of_inputs: usize = plan
        .children()
        .into_iter()
        .map(|input| count(input, name))
        .sum();
    if plan.name() != "StoreScanExec" {
        return of_inputs;
    }
    let metrics = plan.metrics().unwrap();
    of_inputs
        + metrics
            .sum_by_name(name)
            .map_or(0, |value| value.as_usize())
}

#[test]
fn filters_limits_and_joins_keep_pages_from_being_read() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        page_bytes: 4096,
        ..StoreOptions::default()
    };
    let store = Arc::new(Store::open(dir.path(), options).unwrap());
    let context = SessionContext::new_with_config(
        SessionConfig::new()
            .with_target_partitions(1)
            .with_default_catalog_and_schema("darner", "public"),
    );
    darner_sql::register(&context, Arc::clone(&store), "darner");
    let runtime = Runtime::new().unwrap();
    let rows = runtime.block_on(async {
        let sql =
            "SELECT value AS id, value % 10 AS kind FROM generate_series(1, 50000) AS s(value)";
        let frame = context.sql(sql).await.unwrap();
        let schema = Arc::new(frame.schema().as_arrow().clone());
        concat_batches(&schema, &frame.collect().await.unwrap()).unwrap()
    });
    let mut transaction = store.begin().unwrap();
    let spec = TableSpec::new(&rows.schema(), &["id"]).unwrap();
    transaction.create_table("facts", spec).unwrap();
    transaction.upsert("facts", &rows).unwrap();
    transaction.commit().unwrap();
    store.compact_table("facts").unwrap();
    let num_pages = store.table("facts").unwrap().pages().len();
    assert!(num_pages > 150, "{num_pages}");
    let run = |sql: &str| {
        runtime.block_on(async {
            let frame = context.sql(sql).await.unwrap();
            let plan = frame.create_physical_plan().await.unwrap();
            let batches = collect(Arc::clone(&plan), context.task_ctx())
                .await
                .unwrap();
            let num_rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
            (num_rows, count(&plan, "pages_read"), plan)
        })
    };
    let (num_rows, num_read, plan) = run("SELECT * FROM facts WHERE id = 12345");
    assert_eq!((num_rows, num_read), (1, 1));
    assert_eq!(count(&plan, "pages_pruned"), num_pages - 1);
    assert_eq!(plan.metrics().unwrap().output_rows(), Some(1));
    let (num_rows, num_read, _) = run("SELECT * FROM facts WHERE kind = 3");
    assert_eq!((num_rows, num_read), (5000, num_pages));
    let (num_rows, num_read, _) = run("SELECT * FROM facts WHERE kind > 3 AND kind = 11");
    assert_eq!((num_rows, num_read), (0, 0));
    let (num_rows, num_read, _) = run("SELECT * FROM facts LIMIT 10");
    assert_eq!(num_rows, 10);
    assert!(num_read < num_pages / 2, "{num_read} of {num_pages}");
    // By then the join knows which keys it wants: the scan begins when somebody asks for its rows.
    let (num_rows, num_read, plan) =
        run("SELECT * FROM (VALUES (7), (8), (44444)) AS few(id) JOIN facts ON few.id = facts.id");
    assert_eq!(num_rows, 3);
    assert!(num_read <= 2, "{num_read} of {num_pages}");
    assert_eq!(
        count(&plan, "pages_pruned_by_dynamic_filter"),
        num_pages - num_read
    );
    // How soon a sort knows what it wants depends on threads.
    let (num_rows, num_read, plan) = run("SELECT * FROM facts ORDER BY kind, id LIMIT 3");
    assert_eq!(num_rows, 3);
    assert_eq!(
        count(&plan, "pages_pruned_by_dynamic_filter"),
        num_pages - num_read
    );
}
