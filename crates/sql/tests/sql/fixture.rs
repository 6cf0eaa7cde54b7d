use std::sync::Arc;

use arrow_array::{Array, RecordBatch, UInt64Array, cast::AsArray};
use darner_engine::{Error, ErrorKind};
use darner_store::{Store, StoreOptions};
use datafusion::{
    arrow::{compute::cast, util::display::array_value_to_string},
    error::DataFusionError,
    prelude::{SQLOptions, SessionConfig, SessionContext},
};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// A store as the default catalog of a session.
pub(crate) struct Fixture {
    pub(crate) context: SessionContext,
    pub(crate) store: Arc<Store>,
    pub(crate) runtime: Runtime,
    pub(crate) dir: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(dir.path(), StoreOptions::default()).unwrap());
        let context = context();
        darner_sql::register(&context, Arc::clone(&store), "darner");
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .unwrap();
        Self {
            context,
            store,
            runtime,
            dir,
        }
    }

    /// A table `t` with these rows, and the same in memory as `datafusion.public.t`.
    pub(crate) fn with(rows: &str) -> Self {
        let fixture = Self::new();
        let columns = "id BIGINT, name TEXT, n INT";
        fixture.run(&format!("CREATE TABLE t ({columns}, PRIMARY KEY (id))"));
        fixture.count(&format!("INSERT INTO t VALUES {rows}"));
        let memory = format!("CREATE TABLE datafusion.public.t ({columns}) AS VALUES {rows}");
        fixture.run(&memory);
        fixture
    }

    pub(crate) fn batches(&self, sql: &str) -> Result<Vec<RecordBatch>, DataFusionError> {
        self.runtime.block_on(async {
            let rows = darner_sql::sql(&self.context, sql, SQLOptions::new()).await?;
            rows.collect().await
        })
    }

    /// Rows as text, sorted.
    pub(crate) fn rows(&self, sql: &str) -> Vec<String> {
        let batches = self.batches(sql);
        texts(&batches.unwrap_or_else(|error| panic!("{sql}: {error}")))
    }

    pub(crate) fn run(&self, sql: &str) {
        self.batches(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The count that a statement gives.
    pub(crate) fn count(&self, sql: &str) -> u64 {
        self.try_count(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub(crate) fn try_count(&self, sql: &str) -> Result<u64, DataFusionError> {
        let batches = self.batches(sql)?;
        assert_eq!(batches.len(), 1, "{sql}");
        let count: &UInt64Array = batches[0].column_by_name("count").unwrap().as_primitive();
        assert_eq!(count.len(), 1, "{sql}");
        Ok(count.value(0))
    }

    /// The text of a statement's error, which must have these words, and changes nothing.
    pub(crate) fn fails(&self, sql: &str, words: &[&str]) -> Option<ErrorKind> {
        let before = self.store.version();
        let error = match self.batches(sql) {
            Ok(rows) => panic!("{sql}: {:?}", texts(&rows)),
            Err(error) => error,
        };
        assert_eq!(self.store.version(), before, "{sql}");
        let text = error.to_string();
        for word in words {
            assert!(text.contains(word), "{sql}: `{word}` is not in: {text}");
        }
        match error.find_root() {
            DataFusionError::External(error) => error.downcast_ref::<Error>().map(Error::kind),
            _ => None,
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.store.version().number
    }
}

pub(crate) fn context() -> SessionContext {
    let config = SessionConfig::new()
        .with_target_partitions(3)
        .with_default_catalog_and_schema("darner", "public");
    let context = SessionContext::new_with_config(config);
    // What tests keep in memory is there.
    let catalog = datafusion::catalog::MemoryCatalogProvider::new();
    let schema = datafusion::catalog::MemorySchemaProvider::new();
    datafusion::catalog::CatalogProvider::register_schema(&catalog, "public", Arc::new(schema))
        .unwrap();
    context.register_catalog("datafusion", Arc::new(catalog));
    context
}

/// Rows as text, sorted.
pub(crate) fn texts(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let values = batch.columns().iter().map(|column| {
                let column = match column.data_type() {
                    arrow_schema::DataType::Utf8View => {
                        cast(column, &arrow_schema::DataType::Utf8).unwrap()
                    }
                    _ => Arc::clone(column),
                };
                if column.is_null(row) {
                    return "null".to_owned();
                }
                array_value_to_string(&column, row).unwrap()
            });
            rows.push(values.collect::<Vec<_>>().join("|"));
        }
    }
    rows.sort_unstable();
    rows
}
