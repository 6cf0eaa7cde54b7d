//! A relation of a view's query.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use darner_store::TableSnapshot;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Constraint, Constraints, internal_err},
    error::Result,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::ExecutionPlan,
};

use super::define::{FactsKind, Relation};
use crate::table::StoreTable;

/// Stands for a relation while a view's query is planned: with its columns, and with rows if they are to be read.
#[derive(Debug)]
pub(crate) struct Placeholder {
    name: String,
    /// `None` for what can be no facts: a view.
    kind: Option<FactsKind>,
    schema: SchemaRef,
    constraints: Constraints,
    rows: Option<Arc<dyn TableProvider>>,
}

impl Placeholder {
    /// A relation as it was when the view was made, with these rows if any.
    pub(crate) fn remembered(
        kind: FactsKind,
        relation: &Relation,
        rows: Option<Arc<dyn TableProvider>>,
    ) -> darner_engine::Result<Self> {
        let key = relation.key();
        let constraints = if key.is_empty() {
            Constraints::default()
        } else {
            Constraints::new_unverified(vec![Constraint::PrimaryKey(key.to_vec())])
        };
        Ok(Self {
            name: relation.name.clone(),
            kind: Some(kind),
            schema: relation.schema()?,
            constraints,
            rows,
        })
    }

    /// A relation as it is.
    pub(crate) fn new(name: &str, kind: Option<FactsKind>, rows: Arc<dyn TableProvider>) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            schema: rows.schema(),
            constraints: rows.constraints().cloned().unwrap_or_default(),
            rows: Some(rows),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn kind(&self) -> Option<FactsKind> {
        self.kind
    }

    /// The table of the store whose rows these are.
    pub(crate) fn table(&self) -> Option<&TableSnapshot> {
        let rows = self.rows.as_ref()?;
        rows.downcast_ref::<StoreTable>().map(StoreTable::snapshot)
    }
}

#[async_trait::async_trait]
impl TableProvider for Placeholder {
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
        match &self.rows {
            Some(rows) => rows.supports_filters_pushdown(filters),
            None => Ok(vec![
                TableProviderFilterPushDown::Unsupported;
                filters.len()
            ]),
        }
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(rows) = &self.rows else {
            return internal_err!("a relation has no rows: relation=`{}`", self.name);
        };
        rows.scan(session, projection, filters, limit).await
    }
}
