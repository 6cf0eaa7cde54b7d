//! Queries from a synchronous program.

use std::{path::Path, sync::Arc};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use darner_engine::{Error, ErrorKind, Result};
use darner_store::Store;
use datafusion::{
    datasource::file_format::options::{
        ArrowReadOptions, CsvReadOptions, JsonReadOptions, ParquetReadOptions,
    },
    execution::SendableRecordBatchStream,
    prelude::{SQLOptions, SessionConfig, SessionContext},
};
use futures::StreamExt;
use tokio::runtime::Runtime;

use crate::{
    catalog::{SCHEMA, register},
    create,
    error::from_datafusion,
};

/// The catalog in which names are looked for.
const CATALOG: &str = "darner";

/// The extensions of files that SQL reads.
const EXTENSIONS: [&str; 9] = [
    "parquet", "pq", "arrow", "feather", "ipc", "csv", "json", "ndjson", "jsonl",
];

/// A place where SQL runs: a DataFusion session with the tables of a store, and a runtime for it.
///
/// A table is as of the moment in which a statement was planned. Files can be named in `FROM`, in single quotes.
///
/// # Examples
/// ```
/// # use darner_sql::Session;
/// let session = Session::new(2)?;
/// let mut rows = session.query("SELECT 1 + 1 AS two")?;
/// assert_eq!(rows.next().unwrap()?.num_rows(), 1);
/// # Ok::<(), darner_engine::Error>(())
/// ```
pub struct Session {
    runtime: Runtime,
    context: SessionContext,
}

impl Session {
    /// Starts a session that uses this many threads.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the system gives no threads.
    pub fn new(num_threads: usize) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(num_threads.max(1))
            .thread_name("darner-sql")
            .build()
            .map_err(|error| {
                Error::new(ErrorKind::Unavailable, "cannot start threads").with_source(error)
            })?;
        let config = SessionConfig::new()
            .with_target_partitions(num_threads.max(1))
            .with_default_catalog_and_schema(CATALOG, SCHEMA)
            .with_information_schema(true);
        let context = SessionContext::new_with_config(config).enable_url_table();
        Ok(Self { runtime, context })
    }

    /// Makes all tables of a store known under their names. What was known before is not any more.
    pub fn register_store(&self, store: Arc<Store>) {
        register(&self.context, store, CATALOG);
    }

    /// Whether [`register_file`](Self::register_file) knows the format of a file, by its extension.
    pub fn can_read(path: &Path) -> bool {
        let extension = path
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default();
        EXTENSIONS.contains(&extension)
    }

    /// Makes a file known as a table. Its extension tells its format: `.parquet`, `.arrow`, `.csv`, `.json`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the name is taken or the format is none of these; errors of the file.
    pub fn register_file(&self, name: &str, path: &Path) -> Result<()> {
        let text = path.to_str().ok_or_else(|| {
            Error::invalid(format!("path is not UTF-8: path=`{}`", path.display()))
        })?;
        let extension = path
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default();
        let dotted = format!(".{extension}");
        let table = datafusion::common::TableReference::bare(name);
        let context = &self.context;
        let registered = self.runtime.block_on(async {
            match extension {
                "parquet" | "pq" => {
                    let options = ParquetReadOptions { file_extension: &dotted, ..Default::default() };
                    context.register_parquet(table, text, options).await
                }
                "arrow" | "feather" | "ipc" => {
                    let options = ArrowReadOptions { file_extension: &dotted, ..Default::default() };
                    context.register_arrow(table, text, options).await
                }
                "csv" => context.register_csv(table, text, CsvReadOptions::new()).await,
                "json" | "ndjson" | "jsonl" => {
                    let options = JsonReadOptions { file_extension: &dotted, ..Default::default() };
                    context.register_json(table, text, options).await
                }
                _ => Err(datafusion::error::DataFusionError::Plan(format!(
                    "SQL cannot read this format: file=`{text}`; use .parquet, .arrow, .csv or .ndjson"
                ))),
            }
        });
        registered.map_err(|error| from_datafusion(error).context(text))
    }

    /// Starts a query. Its rows come one batch at a time, on the calling thread.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a statement that cannot be planned.
    pub fn query(&self, sql: &str) -> Result<QueryStream<'_>> {
        let stream = self
            .runtime
            .block_on(async {
                let rows = create::sql(&self.context, sql, SQLOptions::new()).await?;
                rows.execute_stream().await
            })
            .map_err(from_datafusion)?;
        Ok(QueryStream {
            schema: stream.schema(),
            stream,
            runtime: &self.runtime,
        })
    }
}

/// The rows of a query, batch by batch.
pub struct QueryStream<'s> {
    schema: SchemaRef,
    stream: SendableRecordBatchStream,
    runtime: &'s Runtime,
}

impl QueryStream<'_> {
    /// The columns of the rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl Iterator for QueryStream<'_> {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.runtime.block_on(self.stream.next())?;
        Some(next.map_err(from_datafusion))
    }
}
