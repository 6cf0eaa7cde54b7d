//! A table of the store as a table of DataFusion.

use std::{fmt, sync::Arc};

use arrow_schema::SchemaRef;
use darner_store::TableSnapshot;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Constraint, Constraints, DFSchema},
    error::Result,
    logical_expr::{
        Expr, TableProviderFilterPushDown, TableType, dml::InsertOp, expr_rewriter::unnormalize_col,
    },
    physical_plan::ExecutionPlan,
};

use crate::{
    cache::DimensionCache,
    catalog::StoreHandle,
    pushdown::classify,
    scan::{ScanRequest, StoreScanExec},
    string_views::seen_schema,
    write::{Statement, WriteTarget, refuse_parts, writable},
};

/// A table as of one commit: every scan of it reads the same rows.
#[derive(Clone)]
pub struct StoreTable {
    snapshot: TableSnapshot,
    /// The columns as queries see them.
    schema: SchemaRef,
    constraints: Constraints,
    /// The store to write to; `None` for a table that stays as it is.
    handle: Option<Arc<StoreHandle>>,
    /// Where joins find dimensions of the table.
    dimensions: Arc<DimensionCache>,
}

impl StoreTable {
    /// Makes a table that stays as it is.
    pub fn new(snapshot: TableSnapshot) -> Self {
        Self::make(snapshot, None)
    }

    /// Makes a table that stays as it is, whose dimensions are kept with those of its catalog.
    pub(crate) fn past(handle: &StoreHandle, snapshot: TableSnapshot) -> Self {
        Self {
            dimensions: Arc::clone(handle.dimensions()),
            ..Self::new(snapshot)
        }
    }

    /// Makes a table of a catalog.
    pub(crate) fn of(handle: Arc<StoreHandle>, snapshot: TableSnapshot) -> Self {
        Self::make(snapshot, Some(handle))
    }

    fn make(snapshot: TableSnapshot, handle: Option<Arc<StoreHandle>>) -> Self {
        let key = Constraint::PrimaryKey(snapshot.spec().key_columns().to_vec());
        let dimensions = handle
            .as_ref()
            .map(|handle| Arc::clone(handle.dimensions()));
        Self {
            schema: seen_schema(snapshot.schema()),
            snapshot,
            constraints: Constraints::new_unverified(vec![key]),
            dimensions: dimensions.unwrap_or_default(),
            handle,
        }
    }

    /// The rows as of the table's commit.
    pub(crate) fn snapshot(&self) -> &TableSnapshot {
        &self.snapshot
    }

    /// The catalog's store, if the table belongs to one and changes with it.
    pub(crate) fn handle(&self) -> Option<&Arc<StoreHandle>> {
        self.handle.as_ref()
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
        Arc::clone(&self.schema)
    }

    fn constraints(&self) -> Option<&Constraints> {
        Some(&self.constraints)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let schema = DFSchema::try_from(self.schema())?;
        Ok(filters
            .iter()
            // Here columns come with the name that the query has for the table, and in `scan` without.
            .map(|filter| classify(&unnormalize_col((*filter).clone()), &schema))
            .collect())
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = DFSchema::try_from(self.schema())?;
        let mut request = ScanRequest {
            projection: projection.cloned(),
            limit,
            target_partitions: session.config().target_partitions(),
            ..ScanRequest::default()
        };
        for filter in filters {
            let filters = match classify(filter, &schema) {
                TableProviderFilterPushDown::Exact => &mut request.exact,
                TableProviderFilterPushDown::Inexact => &mut request.inexact,
                TableProviderFilterPushDown::Unsupported => continue,
            };
            filters.push(session.create_physical_expr(filter.clone(), &schema)?);
        }
        if !request.inexact.is_empty() {
            // Some of the rows are not wanted.
            request.limit = None;
        }
        let scan = StoreScanExec::plan(self.snapshot.clone(), request)?;
        Ok(Arc::new(scan.with_cache(Arc::clone(&self.dimensions))))
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
