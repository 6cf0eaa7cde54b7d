//! A side of a join that is a whole table of the store.

use std::sync::Arc;

use arrow_schema::DataType;
use darner_engine::Result;
use darner_store::TableSnapshot;
use datafusion::{
    physical_expr::{
        PhysicalExprRef,
        expressions::{CastExpr, Column},
    },
    physical_plan::{
        ExecutionPlan,
        buffer::BufferExec,
        coalesce_partitions::CoalescePartitionsExec,
        coop::CooperativeExec,
        projection::ProjectionExec,
        repartition::RepartitionExec,
        sorts::{sort::SortExec, sort_preserving_merge::SortPreservingMergeExec},
    },
};

use super::lossless::is_lossless;
use crate::{
    cache::{DimensionCache, Fetched},
    scan::StoreScanExec,
    string_views::seen_type,
};

/// A table, and which of its columns a plan over all of its rows has.
#[derive(Clone, Debug)]
pub(super) struct DimensionSide {
    snapshot: TableSnapshot,
    cache: Arc<DimensionCache>,
    /// One for each column of the plan; `None` for what is computed in another way.
    columns: Vec<Option<SideColumn>>,
}

/// A column of a table, or a cast of it that loses nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SideColumn {
    /// Its place in the table.
    pub(super) index: usize,
    pub(super) cast: Option<DataType>,
}

impl DimensionSide {
    /// The table below a plan that gives each of its rows once, in any order and any number of partitions.
    pub(super) fn find(plan: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        if let Some(scan) = plan.downcast_ref::<StoreScanExec>() {
            let (snapshot, cache) = scan.whole_table()?;
            let columns = match scan.projection() {
                None => (0..snapshot.schema().fields().len()).collect(),
                Some(columns) => columns.to_vec(),
            };
            let column = |index| Some(SideColumn { index, cast: None });
            return Some(Self {
                snapshot: snapshot.clone(),
                cache: Arc::clone(cache),
                columns: columns.into_iter().map(column).collect(),
            });
        }
        if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            let below = Self::find(projection.input())?;
            let columns = projection.expr().iter();
            let columns = columns.map(|column| below.resolve(&column.expr)).collect();
            return Some(Self { columns, ..below });
        }
        let keeps_rows = plan.is::<RepartitionExec>()
            || plan.is::<CoalescePartitionsExec>()
            || plan.is::<CooperativeExec>()
            || plan.is::<BufferExec>()
            || plan.is::<SortExec>()
            || plan.is::<SortPreservingMergeExec>();
        match plan.children()[..] {
            [child] if keeps_rows && plan.fetch().is_none() => Self::find(child),
            _ => None,
        }
    }

    /// The column of the table that an expression over the plan is.
    pub(super) fn resolve(&self, expression: &PhysicalExprRef) -> Option<SideColumn> {
        if let Some(column) = expression.downcast_ref::<Column>() {
            return self.columns.get(column.index())?.clone();
        }
        let cast = expression.downcast_ref::<CastExpr>()?;
        let below = self.resolve(cast.expr())?;
        let to = cast.cast_type();
        // A cast of a cast is one from the column itself, as no step loses anything.
        is_lossless(&self.data_type(&below), to).then(|| SideColumn {
            index: below.index,
            cast: Some(to.clone()),
        })
    }

    /// The type that a column comes out with.
    pub(super) fn data_type(&self, column: &SideColumn) -> DataType {
        let stored = self.snapshot.schema().field(column.index).data_type();
        column.cast.clone().unwrap_or_else(|| seen_type(stored))
    }

    /// A column of the plan, if it is one of the table.
    pub(super) fn column(&self, column: usize) -> Option<&SideColumn> {
        self.columns.get(column)?.as_ref()
    }

    /// The name in the table of a column of the plan.
    pub(super) fn table_column(&self, column: usize) -> Option<&str> {
        let index = self.column(column)?.index;
        Some(self.snapshot.schema().field(index).name())
    }

    pub(super) fn snapshot(&self) -> &TableSnapshot {
        &self.snapshot
    }

    pub(super) fn cache(&self) -> &DimensionCache {
        &self.cache
    }

    /// The dimension with these columns of the table. Blocks: see [`DimensionCache::get`].
    ///
    /// # Errors
    /// Those of building it.
    pub(super) fn fetch(&self, columns: &[String]) -> Result<Fetched> {
        self.cache.fetch(&self.snapshot, columns)
    }
}
