//! A place with tables, and sessions that run statements there.

use std::{error::Error, fmt, sync::Arc};

use arrow_array::{RecordBatch, UInt64Array};
use darner_store::{CompactionMode, Store, StoreOptions, TableSpec};
use datafusion::{
    catalog::MemTable,
    common::JoinType,
    error::{DataFusionError, Result},
    logical_expr::{LogicalPlan, ident},
    prelude::{SessionConfig, SessionContext},
};
use sqllogictest::{AsyncDB, DBOutput};
use tempfile::TempDir;

use crate::{
    files::{Header, Variant},
    print::{Column, columns, rows},
};

/// Plans must not depend on the machine.
const TARGET_PARTITIONS: usize = 4;

/// What the sessions of one file share.
#[derive(Clone)]
pub(crate) enum Place {
    Memory(SessionContext),
    Store {
        variant: Variant,
        is_read_only: bool,
        store: Arc<Store>,
        dir: Arc<TempDir>,
    },
}

impl Place {
    pub(crate) fn new(variant: Variant, header: &Header) -> Self {
        if variant == Variant::Memory {
            return Self::Memory(SessionContext::new_with_config(config()));
        }
        let dir = tempfile::tempdir().unwrap();
        let mut options = StoreOptions {
            compaction: CompactionMode::Never,
            ..StoreOptions::default()
        };
        if let Some(page_bytes) = header.page_bytes {
            options.page_bytes = page_bytes;
        }
        Self::Store {
            variant,
            is_read_only: header.is_read_only,
            store: Arc::new(Store::open(dir.path(), options).unwrap()),
            dir: Arc::new(dir),
        }
    }
}

fn config() -> SessionConfig {
    SessionConfig::new()
        .with_target_partitions(TARGET_PARTITIONS)
        .with_default_catalog_and_schema("darner", "public")
        .with_information_schema(true)
}

/// One session.
pub(crate) struct Database {
    place: Place,
    context: SessionContext,
    catalog: Option<Arc<darner_sql::StoreCatalog>>,
}

impl Database {
    pub(crate) fn new(place: &Place) -> Self {
        let (context, catalog) = match place {
            Place::Memory(context) => (context.clone(), None),
            Place::Store { variant, store, .. } => {
                let mut options = darner_sql::DarnerOptions::default();
                options.lookup_join = *variant != Variant::Hash;
                let config = config().with_option_extension(options);
                let context = SessionContext::new_with_config(config);
                let catalog = darner_sql::register(&context, Arc::clone(store), "darner");
                (context, Some(catalog))
            }
        };
        Self {
            place: place.clone(),
            context,
            catalog,
        }
    }

    async fn collect(&self, query: &str) -> Result<RecordBatch> {
        let frame = self.context.sql(query).await?;
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let batches = frame.collect().await?;
        let rows = datafusion::arrow::compute::concat_batches(&schema, &batches)?;
        Ok(rows)
    }

    async fn upsert(&self, table: &str, keys: &[&str], query: &str) -> Result<()> {
        let rows = self.collect(query).await?;
        match &self.place {
            Place::Memory(context) => {
                let new = context.read_batch(rows.clone())?;
                let keys: Vec<String> = keys.iter().map(|key| format!("\"{key}\"")).collect();
                let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                let whole = match context.table(table).await {
                    Ok(old) => old.join(new.clone(), JoinType::LeftAnti, &keys, &keys, None)?,
                    Err(_) => context.read_batch(rows.slice(0, 0))?,
                };
                self.put_memory(table, whole.union(new)?).await
            }
            Place::Store { store, .. } => {
                let mut transaction = store.begin().map_err(external)?;
                if transaction.table_spec(table).is_none() {
                    let spec = TableSpec::new(&rows.schema(), keys).map_err(external)?;
                    transaction.create_table(table, spec).map_err(external)?;
                }
                transaction.upsert(table, &rows).map_err(external)?;
                transaction.commit().map_err(external)?;
                self.refresh()
            }
        }
    }

    async fn delete(&self, table: &str, query: &str) -> Result<()> {
        let keys = self.collect(query).await?;
        match &self.place {
            Place::Memory(context) => {
                let schema = keys.schema();
                let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
                let old = context.table(table).await?;
                let keys = context.read_batch(keys)?;
                let rest = old.join(keys, JoinType::LeftAnti, &names, &names, None)?;
                self.put_memory(table, rest).await
            }
            Place::Store { store, .. } => {
                let mut transaction = store.begin().map_err(external)?;
                transaction.delete(table, &keys).map_err(external)?;
                transaction.commit().map_err(external)?;
                self.refresh()
            }
        }
    }

    /// Puts the rows of a query in place of a table in memory.
    async fn put_memory(&self, table: &str, rows: datafusion::dataframe::DataFrame) -> Result<()> {
        let fields = rows.schema().as_arrow().fields().clone();
        let names: Vec<_> = fields.iter().map(|f| ident(f.name())).collect();
        let rows = rows.select(names)?;
        let schema = Arc::new(arrow_schema::Schema::new(fields));
        let batches = rows.collect().await?;
        let rows = datafusion::arrow::compute::concat_batches(&schema, &batches)?;
        // Through two partitions, as large tables are.
        let half = rows.num_rows() / 2;
        let parts = vec![
            vec![rows.slice(0, half)],
            vec![rows.slice(half, rows.num_rows() - half)],
        ];
        self.context.deregister_table(table)?;
        self.context
            .register_table(table, Arc::new(MemTable::try_new(schema, parts)?))?;
        Ok(())
    }

    /// Goes on with another opening of a store that is read by one of its own.
    fn refresh(&self) -> Result<()> {
        if let (
            Place::Store {
                is_read_only: true,
                dir,
                ..
            },
            Some(catalog),
        ) = (&self.place, &self.catalog)
        {
            let store = Store::open_read_only(dir.path()).map_err(external)?;
            catalog.set_store(Arc::new(store));
        }
        Ok(())
    }

    /// A statement that begins with a dot.
    async fn command(&self, command: &str) -> Result<()> {
        let is_as = |at: &usize| command[*at..].starts_with([' ', '\n']);
        let after = command
            .match_indices(" AS")
            .map(|(at, found)| at + found.len());
        let (head, query) = match after.into_iter().find(is_as) {
            Some(at) => (&command[..at - " AS".len()], command[at..].trim()),
            None => (command, ""),
        };
        let (name, rest) = head.trim().split_once(' ').unwrap_or((head.trim(), ""));
        match (name, &self.place) {
            ("upsert", _) => {
                let (table, keys) = rest.split_once(" KEY ").ok_or_else(|| unknown(command))?;
                let is_quote = |c: char| c == '"' || c.is_whitespace();
                let keys: Vec<&str> = keys
                    .split(',')
                    .map(|key| key.trim_matches(is_quote))
                    .collect();
                self.upsert(table.trim(), &keys, query).await
            }
            ("delete", _) => self.delete(rest.trim(), query).await,
            ("compact" | "checkpoint", Place::Memory(_)) => Ok(()),
            ("compact", Place::Store { store, .. }) => {
                store.compact_table(rest.trim()).map_err(external)?;
                self.refresh()
            }
            ("checkpoint", Place::Store { store, .. }) => {
                store.checkpoint().map_err(external)?;
                self.refresh()
            }
            _ => Err(unknown(command)),
        }
    }

    async fn run_sql(&self, sql: &str) -> Result<DBOutput<Column>> {
        let frame = self.context.sql(sql).await?;
        let is_write = matches!(
            frame.logical_plan(),
            LogicalPlan::Dml(_) | LogicalPlan::Copy(_)
        );
        let (state, plan) = frame.into_parts();
        let physical = state.create_physical_plan(&plan).await?;
        let schema = physical.schema();
        let batches = datafusion::physical_plan::collect(physical, state.task_ctx()).await?;
        if is_write {
            let counts = batches.iter().filter_map(|rows| {
                let counts = rows.column(0).as_any().downcast_ref::<UInt64Array>()?;
                Some(counts.values().iter().sum::<u64>())
            });
            return Ok(DBOutput::StatementComplete(counts.sum()));
        }
        if schema.fields().is_empty() && batches.is_empty() {
            return Ok(DBOutput::StatementComplete(0));
        }
        Ok(DBOutput::Rows {
            types: columns(&schema),
            rows: rows(&schema, &batches),
        })
    }
}

fn unknown(command: &str) -> DataFusionError {
    DataFusionError::Plan(format!("unknown command of the tests: .{command}"))
}

fn external(error: darner_store::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

#[async_trait::async_trait]
impl AsyncDB for Database {
    type Error = Failure;
    type ColumnType = Column;

    async fn run(&mut self, sql: &str) -> std::result::Result<DBOutput<Column>, Failure> {
        let result = match sql.trim().strip_prefix('.') {
            Some(command) => {
                let done = self.command(command).await;
                done.map(|()| DBOutput::StatementComplete(0))
            }
            None => self.run_sql(sql).await,
        };
        result.map_err(|error| Failure::new(&error))
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        match self.place {
            Place::Memory(_) => "memory",
            Place::Store { .. } => "store",
        }
    }
}

/// An error in one line, with what caused it.
#[derive(Clone, Debug)]
pub(crate) struct Failure(String);

impl Failure {
    fn new(error: &DataFusionError) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            let inner_text = inner.to_string();
            // DataFusion repeats most of its sources.
            if !text.contains(&inner_text) {
                text = format!("{text}: {inner_text}");
            }
            source = inner.source();
        }
        Self(text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Failure {}
