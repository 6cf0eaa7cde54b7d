//! Queries from a synchronous program.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use arrow_schema::SchemaRef;
use darner_engine::{Error, Result};
use darner_store::Store;
use datafusion::{
    catalog::DynamicFileCatalog,
    common::TableReference,
    datasource::empty::EmptyTable,
    execution::runtime_env::RuntimeEnvBuilder,
    prelude::{SessionConfig, SessionContext},
};

use crate::{
    catalog::{SCHEMA, StoreCatalog, StoreHandle, register},
    error::from_datafusion,
    files::{self, FileTables},
    plan::{Plan, QueryStream},
    script::{self, Statement},
    session_options::SessionOptions,
    worker::Worker,
};

/// The catalog in which names are looked for.
pub(crate) const CATALOG: &str = "darner";

/// A place where SQL runs: a DataFusion session with the tables of a store, and threads for it.
///
/// A table is as of the moment in which a statement was planned. Files can be named in `FROM`, in single quotes, where
/// [`SessionOptions::allow_files`] is set.
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
    /// Dropped before the threads are.
    context: SessionContext,
    catalog: Mutex<Option<Arc<StoreCatalog>>>,
    options: Arc<SessionOptions>,
    worker: Worker,
}

impl Session {
    /// Starts a session that uses this many threads. Its statements read tables of the store, and nothing else.
    ///
    /// # Errors
    /// As [`with_options`](Self::with_options).
    pub fn new(num_threads: usize) -> Result<Self> {
        Self::with_options(SessionOptions {
            num_threads,
            ..SessionOptions::default()
        })
    }

    /// Starts a session.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](darner_engine::ErrorKind::Unavailable) if the system gives no threads.
    pub fn with_options(options: SessionOptions) -> Result<Self> {
        let worker = Worker::start(options.num_threads, options.cancel.clone())?;
        let config = SessionConfig::new()
            .with_target_partitions(options.num_threads.max(1))
            .with_default_catalog_and_schema(CATALOG, SCHEMA)
            .with_information_schema(true);
        let config = match &options.remote {
            Some(remote) => config.with_extension(Arc::clone(remote)),
            None => config,
        };
        // A session may live long; a list of files that was made once would not have those that came later.
        let runtime = RuntimeEnvBuilder::new()
            .with_object_list_cache_limit(0)
            .build_arc()
            .map_err(from_datafusion)?;
        let context = SessionContext::new_with_config_rt(config, runtime);
        let refusal = (!options.allow_files).then(|| options.file_remedy.clone());
        let files = Arc::new(FileTables::new(refusal, options.directory.clone()));
        let catalogs = Arc::clone(context.state().catalog_list());
        let with_files = DynamicFileCatalog::new(catalogs, Arc::clone(&files) as _);
        let context: SessionContext = context
            .into_state_builder()
            .with_catalog_list(Arc::new(with_files))
            .build()
            .into();
        files.set_session(&context);
        Ok(Self {
            context,
            catalog: Mutex::default(),
            options: Arc::new(options),
            worker,
        })
    }

    /// Makes all tables of a store known under their names. What was known of another store, or of this one as it was
    /// opened before, is not any more; views and external tables stay.
    pub fn register_store(&self, store: Arc<Store>) {
        let mut catalog = self.catalog.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(catalog) = &*catalog {
            catalog.set_store(store);
            return;
        }
        let before = self.context.catalog(CATALOG);
        *catalog = Some(register(&self.context, store, CATALOG));
        drop(catalog);
        // Views that were made while there was no store.
        let (Some(before), Some(now)) = (before, self.context.catalog(CATALOG)) else {
            return;
        };
        let (Some(before), Some(now)) = (before.schema(SCHEMA), now.schema(SCHEMA)) else {
            return;
        };
        for name in before.table_names() {
            if let Ok(Some(view)) = before.deregister_table(&name) {
                // A table of the store with that name hides it.
                let _ = now.register_table(name, view);
            }
        }
    }

    /// Whether [`register_file`](Self::register_file) knows the format of a file, by its extension.
    pub fn can_read(path: &Path) -> bool {
        files::can_read(path)
    }

    /// Makes a file known as a table. Its extension tells its format: `.parquet`, `.arrow`, `.csv`, `.tsv`, `.json`;
    /// text may be compressed. A directory or a pattern stands for all of its files.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](darner_engine::ErrorKind::Invalid) if the name is taken or the format is none of these;
    /// errors of the file.
    pub fn register_file(&self, name: &str, path: &Path) -> Result<()> {
        let text = path.to_str().ok_or_else(|| {
            Error::invalid(format!("path is not UTF-8: path=`{}`", path.display()))
        })?;
        let (context, text, name) = (self.context.clone(), text.to_owned(), name.to_owned());
        self.worker.run(async move {
            let table = files::file_table(&context.state(), &text).await?;
            context
                .register_table(TableReference::bare(name), table)
                .map(drop)
                .map_err(|error| from_datafusion(error).context(text))
        })
    }

    /// Makes a table without rows known, so that statements can be planned on what is not there yet.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](darner_engine::ErrorKind::Invalid) if the name is taken.
    pub fn register_empty(&self, name: &str, schema: &SchemaRef) -> Result<()> {
        let table = Arc::new(EmptyTable::new(Arc::clone(schema)));
        self.context
            .register_table(TableReference::bare(name), table)
            .map(drop)
            .map_err(from_datafusion)
    }

    /// Splits a text into its statements, at semicolons.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](darner_engine::ErrorKind::Invalid) for a statement that is no SQL;
    /// [`ErrorKind::Resource`](darner_engine::ErrorKind::Resource) for one that is too deep.
    pub fn split(&self, sql: &str) -> Result<Vec<Statement>> {
        let (state, sql) = (self.context.state(), sql.to_owned());
        self.worker.run(async move { script::parse(&sql, &state) })
    }

    /// Plans one statement on the tables as they are now, and says what it needs and gives. Nothing is run yet.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](darner_engine::ErrorKind::Invalid) for a statement that cannot be planned or that the
    /// session's options forbid; [`ErrorKind::NotFound`](darner_engine::ErrorKind::NotFound) for tables and files that
    /// are not there.
    pub fn plan(&self, sql: &str) -> Result<Plan<'_>> {
        Plan::of(self, sql)
    }

    /// Starts one statement. Its rows come one batch at a time.
    ///
    /// # Errors
    /// As [`plan`](Self::plan), and those of the statement.
    pub fn query(&self, sql: &str) -> Result<QueryStream<'_>> {
        self.plan(sql)?.run()
    }

    /// The names of all tables and views, sorted.
    pub fn table_names(&self) -> Vec<String> {
        table_names(&self.context)
    }

    /// The columns of a table or a view; `None` if there is none.
    pub fn table_schema(&self, name: &str) -> Option<SchemaRef> {
        let (context, name) = (self.context.clone(), name.to_owned());
        let schema = self.worker.run(async move {
            let schema = context.catalog(CATALOG);
            let schema = schema.and_then(|catalog| catalog.schema(SCHEMA));
            // Not by way of what makes tables of files.
            let Some(schema) = schema.filter(|schema| schema.table_exist(&name)) else {
                return Ok(None);
            };
            let table = schema.table(&name).await.map_err(from_datafusion)?;
            Ok(table.map(|table| table.schema()))
        });
        schema.ok().flatten()
    }

    /// The names of all functions, sorted.
    pub fn function_names(&self) -> Vec<String> {
        let state = self.context.state();
        let mut names: Vec<String> = state
            .scalar_functions()
            .keys()
            .chain(state.aggregate_functions().keys())
            .chain(state.window_functions().keys())
            .chain(state.table_functions().keys())
            .cloned()
            .collect();
        names.sort();
        names.dedup();
        names
    }

    pub(crate) fn context(&self) -> &SessionContext {
        &self.context
    }

    /// The store that the session looks at, if it has one.
    pub(crate) fn handle(&self) -> Option<Arc<StoreHandle>> {
        let catalog = self.catalog.lock().unwrap_or_else(PoisonError::into_inner);
        catalog.as_ref().map(|catalog| Arc::clone(catalog.handle()))
    }

    pub(crate) fn options(&self) -> &Arc<SessionOptions> {
        &self.options
    }

    pub(crate) fn worker(&self) -> &Worker {
        &self.worker
    }
}

/// The names of all tables and views where names are looked for, sorted.
pub(crate) fn table_names(context: &SessionContext) -> Vec<String> {
    let schema = context.catalog(CATALOG);
    let schema = schema.and_then(|catalog| catalog.schema(SCHEMA));
    let mut names = schema.map_or_else(Vec::new, |schema| schema.table_names());
    names.sort();
    names
}
