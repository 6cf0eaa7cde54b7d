//! A table of the store as a table of DataFusion.

use std::{fmt, sync::Arc};

use arrow_schema::SchemaRef;
use darner_store::TableSnapshot;
use datafusion::{
    catalog::{Session, TableProvider},
    error::Result,
    logical_expr::{Expr, TableType, dml::InsertOp},
    physical_plan::ExecutionPlan,
};

use crate::{
    catalog::StoreHandle,
    scan::StoreScanExec,
    write::{Statement, WriteTarget, refuse_parts, writable},
};

/// A table as of one commit: every scan of it reads the same rows.
#[derive(Clone)]
pub struct StoreTable {
    snapshot: TableSnapshot,
    /// The store to write to; `None` for a table that stays as it is.
    handle: Option<Arc<StoreHandle>>,
}

impl StoreTable {
    /// Makes a table that stays as it is.
    pub fn new(snapshot: TableSnapshot) -> Self {
        Self {
            snapshot,
            handle: None,
        }
    }

    /// The rows.
    pub(crate) fn snapshot(&self) -> &TableSnapshot {
        &self.snapshot
    }

    /// What the table goes with; `None` for one that stays as it is.
    pub(crate) fn handle(&self) -> Option<&Arc<StoreHandle>> {
        self.handle.as_ref()
    }

    /// Makes a table of a catalog.
    pub(crate) fn of(handle: Arc<StoreHandle>, snapshot: TableSnapshot) -> Self {
        Self {
            snapshot,
            handle: Some(handle),
        }
    }
}

impl fmt::Debug for StoreTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.snapshot.version();
        write!(
            f,
            "StoreTable {{ name: {:?}, version: {version} }}",
            self.snapshot.name()
        )
    }
}

#[async_trait::async_trait]
impl TableProvider for StoreTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.snapshot.schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let scan = StoreScanExec::try_new(self.snapshot.clone(), projection.cloned(), limit)?;
        Ok(Arc::new(scan))
    }

    async fn insert_into(
        &self,
        session: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        // Only a session without our rules comes here. It cannot plan again, and need not: it only adds.
        let statement = match op {
            InsertOp::Overwrite => Statement::Overwrite,
            InsertOp::Append | InsertOp::Replace => Statement::Upsert,
        };
        let (handle, snapshot) = (Arc::clone(writable(self)?), self.snapshot.clone());
        let target = WriteTarget::of(handle, snapshot, statement, input.schema());
        Ok(target.plan(session, input))
    }

    async fn delete_from(
        &self,
        _session: &dyn Session,
        _filters: Vec<Expr>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        refuse_parts("DELETE", &self.snapshot)
    }

    async fn update(
        &self,
        _session: &dyn Session,
        _assignments: Vec<(String, Expr)>,
        _filters: Vec<Expr>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        refuse_parts("UPDATE", &self.snapshot)
    }

    async fn truncate(&self, _session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        refuse_parts("TRUNCATE", &self.snapshot)
    }
}
