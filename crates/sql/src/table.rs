//! A table of the store as a table of DataFusion.

use std::{fmt, sync::Arc};

use arrow_schema::SchemaRef;
use darner_store::TableSnapshot;
use datafusion::{
    catalog::{Session, TableProvider},
    error::Result,
    logical_expr::{Expr, TableType},
    physical_plan::ExecutionPlan,
};

use crate::{cache::DimensionCache, catalog::StoreHandle, scan::StoreScanExec};

/// A table as of one commit: every scan of it reads the same rows.
#[derive(Clone)]
pub struct StoreTable {
    snapshot: TableSnapshot,
    /// The store to write to; `None` for a table that stays as it is.
    #[expect(dead_code, reason = "for statements that write")]
    handle: Option<Arc<StoreHandle>>,
    /// Where joins find dimensions of the table.
    dimensions: Arc<DimensionCache>,
}

impl StoreTable {
    /// Makes a table that stays as it is.
    pub fn new(snapshot: TableSnapshot) -> Self {
        Self {
            snapshot,
            handle: None,
            dimensions: Arc::default(),
        }
    }

    /// Makes a table of a catalog.
    pub(crate) fn of(handle: Arc<StoreHandle>, snapshot: TableSnapshot) -> Self {
        Self {
            snapshot,
            dimensions: Arc::clone(handle.dimensions()),
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
        Ok(Arc::new(scan.with_cache(Arc::clone(&self.dimensions))))
    }
}
