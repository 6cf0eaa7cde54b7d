use std::{future::Future, sync::Arc};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use darner_store::{Store, StoreOptions, TableSpec};
use datafusion::{
    arrow::util::display::{ArrayFormatter, FormatOptions},
    datasource::MemTable,
    error::Result,
    physical_plan::displayable,
    prelude::{SessionConfig, SessionContext},
};

/// A store in a directory of its own.
pub(crate) struct TestStore {
    pub(crate) store: Arc<Store>,
    _dir: tempfile::TempDir,
}

impl TestStore {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store"), StoreOptions::default()).unwrap();
        Self {
            store: Arc::new(store),
            _dir: dir,
        }
    }

    /// Puts rows into a table, in one commit; makes the table if there is none.
    pub(crate) fn upsert(&self, table: &str, key: &[&str], rows: &RecordBatch) {
        let mut transaction = self.store.begin().unwrap();
        if transaction.table_spec(table).is_none() {
            let spec = TableSpec::new(&rows.schema(), key).unwrap();
            transaction.create_table(table, spec).unwrap();
        }
        transaction.upsert(table, rows).unwrap();
        transaction.commit().unwrap();
    }

    pub(crate) fn delete(&self, table: &str, keys: &RecordBatch) {
        let mut transaction = self.store.begin().unwrap();
        transaction.delete(table, keys).unwrap();
        transaction.commit().unwrap();
    }
}

/// A session with a store as the catalog `darner`, and its runtime.
pub(crate) struct TestSession {
    pub(crate) context: SessionContext,
    runtime: tokio::runtime::Runtime,
}

impl TestSession {
    pub(crate) fn new(store: &TestStore, config: SessionConfig) -> Self {
        let context = SessionContext::new_with_config(config);
        darner_sql::register(&context, Arc::clone(&store.store), "darner");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .unwrap();
        Self { context, runtime }
    }

    /// Makes rows in memory a table of `datafusion.public`, of so many partitions.
    pub(crate) fn put(&self, name: &str, schema: &SchemaRef, partitions: Vec<Vec<RecordBatch>>) {
        let table = MemTable::try_new(Arc::clone(schema), partitions).unwrap();
        self.context.register_table(name, Arc::new(table)).unwrap();
    }

    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    pub(crate) fn try_query(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        self.wait(async { self.context.sql(sql).await?.collect().await })
    }

    /// The rows of a query, each as a text, in their order.
    pub(crate) fn query(&self, sql: &str) -> Vec<String> {
        match self.try_query(sql) {
            Ok(batches) => texts(&batches),
            Err(error) => panic!("{sql}: {error}"),
        }
    }

    pub(crate) fn set(&self, option: &str, value: impl std::fmt::Display) {
        self.query(&format!("SET {option} = {value}"));
    }

    /// The physical plan of a query, and the schema of its rows.
    pub(crate) fn plan(&self, sql: &str) -> (String, SchemaRef) {
        let plan = self.wait(async {
            let rows = self.context.sql(sql).await?;
            rows.create_physical_plan().await
        });
        let plan = plan.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let text = displayable(plan.as_ref()).indent(false).to_string();
        (text, plan.schema())
    }
}

fn texts(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<ArrayFormatter<'_>> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap())
            .collect();
        rows.extend((0..batch.num_rows()).map(|row| {
            let cells = columns.iter().map(|column| column.value(row).to_string());
            cells.collect::<Vec<_>>().join("|")
        }));
    }
    rows
}

pub(crate) fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort_unstable();
    rows
}
