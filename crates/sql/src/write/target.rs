//! Where the rows of a statement go.

use std::{fmt, sync::Arc};

use arrow_schema::SchemaRef;
use darner_store::{TableSnapshot, TableSpec};
use datafusion::{
    catalog::{Session, TableProvider},
    common::{not_impl_err, plan_err},
    datasource::sink::DataSinkExec,
    error::Result,
    execution::SessionState,
    logical_expr::{Expr, LogicalPlan, TableType, dml::InsertOp},
    physical_plan::ExecutionPlan,
};

use super::{moves::RowAction, sink::StoreSink};
use crate::catalog::StoreHandle;

/// What a statement does with the rows of its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    /// Rows of the table: each is added, or replaces the row that has its key.
    Upsert,
    /// Rows of the table: all that it will hold. Its columns and key may become others too.
    Overwrite,
    /// Rows of a table that is made by the same commit.
    Create,
    /// Keys: their rows go.
    Delete,
    /// No rows: all of the table's go.
    Clear,
    /// Rows of the table in their new form, and after these columns the old values of those key columns that change,
    /// by position in the key.
    Update { moved: Vec<usize> },
    /// Rows of the table as they are to be, their old keys, and the place of the action for each.
    Merge { actions: Vec<RowAction> },
}

impl Statement {
    /// Whether what the statement does depends on what is in the table.
    pub(crate) fn reads_table(&self) -> bool {
        match self {
            Self::Upsert | Self::Overwrite | Self::Create => false,
            Self::Delete | Self::Clear | Self::Update { .. } | Self::Merge { .. } => true,
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Upsert => "upsert into",
            Self::Overwrite => "overwrite",
            Self::Create => "create",
            Self::Delete => "delete from",
            Self::Clear => "clear",
            Self::Update { moved } if moved.is_empty() => "update",
            Self::Update { .. } => "update keys of",
            Self::Merge { .. } => "merge into",
        })
    }
}

/// A table for the time of one statement that changes it. Only rows can be put into it.
#[derive(Clone)]
pub(crate) struct WriteTarget {
    pub(crate) handle: Arc<StoreHandle>,
    pub(crate) name: String,
    pub(crate) spec: Arc<TableSpec>,
    /// The table as the statement was planned on it, if it is there.
    pub(crate) snapshot: Option<TableSnapshot>,
    pub(crate) statement: Statement,
    /// Whether the input reads the table, so that both must be of one state.
    pub(crate) reads_table: bool,
    /// What to plan again if the table has changed since. `None` if it is not known.
    pub(crate) input: Option<Arc<LogicalPlan>>,
    pub(crate) schema: SchemaRef,
}

impl fmt::Debug for WriteTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteTarget {{ {} {} }}", self.statement, self.name)
    }
}

impl WriteTarget {
    /// A target for rows of a table that is there.
    pub(crate) fn of(
        handle: Arc<StoreHandle>,
        snapshot: TableSnapshot,
        statement: Statement,
        schema: SchemaRef,
    ) -> Self {
        Self {
            handle,
            name: snapshot.name().to_owned(),
            spec: Arc::clone(snapshot.spec()),
            reads_table: statement.reads_table(),
            snapshot: Some(snapshot),
            statement,
            input: None,
            schema,
        }
    }

    /// Plans to write the rows of a plan.
    pub(crate) fn plan(
        &self,
        session: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
    ) -> Arc<dyn ExecutionPlan> {
        let state = session.as_any().downcast_ref::<SessionState>().cloned();
        let sink = StoreSink::new(self.clone(), input.schema(), state);
        Arc::new(DataSinkExec::new(input, Arc::new(sink), None))
    }
}

#[async_trait::async_trait]
impl TableProvider for WriteTarget {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        not_impl_err!(
            "a table that is written to cannot be read: table=`{}`",
            self.name
        )
    }

    async fn insert_into(
        &self,
        session: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        _op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self.plan(session, input))
    }
}

/// What the hooks say that are given parts of a condition: see [`super`].
pub(crate) fn refuse_parts(
    statement: &str,
    table: &TableSnapshot,
) -> Result<Arc<dyn ExecutionPlan>> {
    plan_err!(
        "{statement} is not possible in this session, because it was made without the rules that `darner_sql::register` \
         adds; register the catalog in it: table=`{}`",
        table.name()
    )
}
