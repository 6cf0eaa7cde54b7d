//! Single groups of a view, and all of them as a dimension.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use darner_engine::{Dimension, DimensionBuilder, Error};
use datafusion::{
    arrow::compute::{CastOptions, cast_with_options, concat_batches, kernels::cmp::not_distinct},
    common::tree_node::TreeNode,
    datasource::{MemTable, provider_as_source},
    error::Result,
    logical_expr::{LogicalPlan, LogicalPlanBuilder},
    physical_plan::collect,
};

use super::{
    aggregation::Aggregation,
    define::StoredView,
    prepared::{Prepared, provider_of},
    query,
    refresh::Views,
    stored::states_at,
};
use crate::{blocking::blocking, error::to_datafusion};

impl Views {
    /// The columns of a view's groups: what its rows are looked up by.
    pub(crate) async fn key_schema(&self, name: &str) -> Result<SchemaRef> {
        let view = StoredView::get(&self.handle.store(), name).map_err(to_datafusion)?;
        let prepared = self.prepared(&view).await?;
        Ok(key_schema(&prepared.aggregation))
    }

    /// The rows of a view for these groups, one after the other: `None` for a group that is not there, or that `HAVING`
    /// leaves out.
    pub(crate) async fn get(
        &self,
        name: &str,
        keys: &[ArrayRef],
    ) -> Result<Vec<Option<RecordBatch>>> {
        let view = StoredView::get(&self.handle.store(), name).map_err(to_datafusion)?;
        let prepared = self.prepared(&view).await?;
        let aggregation = &prepared.aggregation;
        let schema = key_schema(aggregation);
        let num_rows = keys.first().map_or(1, Array::len);
        if keys.len() != schema.fields().len() || keys.iter().any(|keys| keys.len() != num_rows) {
            return Err(to_datafusion(Error::invalid(format!(
                "a group of the view has other columns: view=`{name}` got=`{}` expected=`{}`",
                keys.len(),
                schema.fields().len()
            ))));
        }
        let mut values = Vec::new();
        for (keys, field) in keys.iter().zip(schema.fields()) {
            let value = cast_whole(keys, field.data_type()).ok_or_else(|| {
                to_datafusion(Error::invalid(format!(
                    "a value does not fit the column of the group: view=`{name}` column=`{}` type=`{}`",
                    field.name(),
                    field.data_type()
                )))
            })?;
            values.push(value);
        }
        if !aggregation.is_plain() {
            values.push(aggregation.finest_set(num_rows)?);
        }
        let encoded = aggregation.keys_of(&values, num_rows)?;
        let mut found = Vec::with_capacity(num_rows);
        for row in 0..num_rows {
            let key: ArrayRef = Arc::new(encoded.slice(row, 1));
            let states = blocking(|| states_at(&view.table, std::iter::once(&key)))?;
            let Some(states) = states.into_iter().find(|states| states.num_rows() > 0) else {
                found.push(None);
                continue;
            };
            let groups = finished(aggregation, &states)?;
            let groups = MemTable::try_new(groups.schema(), vec![vec![groups]])?;
            let groups =
                LogicalPlanBuilder::scan("groups", provider_as_source(Arc::new(groups)), None)?;
            let plan = prepared.over(groups, &view.definition)?;
            if looks_at_others(&plan)? {
                return Err(to_datafusion(Error::invalid(format!(
                    "a row of the view depends on those of other groups, by a window or a LIMIT: view=`{name}`; use \
                     `darner sql` or `darner scan`"
                ))));
            }
            let rows = query::one_row(&plan).await?;
            found.push(rows.into_iter().find(|rows| rows.num_rows() > 0));
        }
        Ok(found)
    }

    async fn prepared(&self, view: &StoredView) -> Result<Arc<Prepared>> {
        if let Some(reason) = &view.definition.reason {
            return Err(to_datafusion(Error::invalid(format!(
                "the view has no groups by which its rows could be looked up: view=`{}`; {reason}; use `darner sql` or \
                 `darner scan`",
                view.name
            ))));
        }
        Prepared::of(&self.handle, view).await
    }

    /// All rows of a view.
    pub(crate) async fn rows(&self, name: &str) -> Result<RecordBatch> {
        let view = StoredView::get(&self.handle.store(), name).map_err(to_datafusion)?;
        let provider = provider_of(&self.handle, &view).await?;
        let state = query::base(self.num_threads)?;
        let plan = state.create_physical_plan(provider.logical_plan()).await?;
        let schema = plan.schema();
        let rows = collect(plan, state.task_ctx()).await?;
        Ok(concat_batches(&schema, rows.iter())?)
    }

    /// The rows of a view as a dimension with these key columns; those without a key are left out, as no fact meets them.
    pub(crate) async fn dimension(&self, name: &str, key: &[String]) -> Result<Dimension> {
        let view = StoredView::get(&self.handle.store(), name).map_err(to_datafusion)?;
        let rows = self.rows(name).await?;
        let built = || {
            let mut kept: Option<arrow_array::BooleanArray> = None;
            for column in key {
                let column = rows.column_by_name(column);
                let Some(column) = column.filter(|column| column.null_count() > 0) else {
                    continue;
                };
                let valid = datafusion::arrow::compute::is_not_null(column)?;
                kept = Some(match kept {
                    None => valid,
                    Some(kept) => datafusion::arrow::compute::and(&kept, &valid)?,
                });
            }
            Ok(match kept {
                None => rows.clone(),
                Some(kept) => datafusion::arrow::compute::filter_record_batch(&rows, &kept)?,
            })
        };
        let kept: Result<RecordBatch> = built();
        let kept = kept?;
        let build = || {
            let builder = DimensionBuilder::new(name, kept.schema(), key)?;
            let mut builder = builder.with_version(view.table.version().number);
            let num_rows = kept.num_rows();
            builder.upsert(kept)?;
            let dimension = builder.finish()?;
            if dimension.num_rows() != num_rows {
                return Err(Error::invalid(format!(
                    "rows of the view do not differ by the key: view=`{name}` key=`{}`; take all columns of its GROUP BY",
                    key.join(", ")
                )));
            }
            Ok(dimension)
        };
        blocking(build).map_err(to_datafusion)
    }
}

/// Whether a plan over one group gives another row than over all of them.
fn looks_at_others(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|node| {
        Ok(matches!(
            node,
            LogicalPlan::Window(_) | LogicalPlan::Limit(_)
        ))
    })
}

/// A column in another type, if that loses nothing of it.
pub(crate) fn cast_whole(column: &ArrayRef, data_type: &DataType) -> Option<ArrayRef> {
    if column.data_type() == data_type {
        return Some(Arc::clone(column));
    }
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let cast = cast_with_options(column, data_type, &options).ok()?;
    let back = cast_with_options(&cast, column.data_type(), &options).ok()?;
    let is_same = not_distinct(&back, column).ok()?;
    (is_same.true_count() == column.len()).then_some(cast)
}

/// The columns of groups by their names, without the number of a grouping set.
fn key_schema(aggregation: &Aggregation) -> SchemaRef {
    let num_columns = aggregation.num_group_columns() - usize::from(!aggregation.is_plain());
    let fields = aggregation.output.fields().iter().take(num_columns);
    let fields = fields.map(|field| Field::new(field.name(), field.data_type().clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Finished groups, as [`Groups`](super::Groups) would give them.
pub(crate) fn finished(aggregation: &Aggregation, states: &RecordBatch) -> Result<RecordBatch> {
    let num_rows = states.num_rows();
    let num_groups = aggregation.num_group_columns();
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for place in 0..num_groups {
        let column = states.column(place + 1);
        fields.push(Field::new(
            format!("g{place}"),
            column.data_type().clone(),
            true,
        ));
        columns.push(Arc::clone(column));
    }
    for (place, function) in aggregation.functions().iter().enumerate() {
        let states = &states.columns()[aggregation.state_columns(place)?];
        let column = if num_rows == 0 {
            new_null_array(function.field().data_type(), 0)
        } else {
            aggregation.finisher(place).finish(states, num_rows)?
        };
        fields.push(Field::new(
            format!("a{}", num_groups + place),
            column.data_type().clone(),
            true,
        ));
        columns.push(column);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(num_rows));
    Ok(RecordBatch::try_new_with_options(
        Arc::new(Schema::new(fields)),
        columns,
        &options,
    )?)
}

#[cfg(test)]
mod tests {
    use arrow_array::{Float64Array, Int64Array};

    use super::*;

    #[test]
    fn values_are_cast_if_that_loses_nothing() {
        let whole: ArrayRef = Arc::new(Float64Array::from(vec![Some(2.0), None]));
        let cast = cast_whole(&whole, &DataType::Int64).unwrap();
        assert_eq!(*cast, Int64Array::from(vec![Some(2), None]));
        let half: ArrayRef = Arc::new(Float64Array::from(vec![2.5]));
        assert!(cast_whole(&half, &DataType::Int64).is_none());
        let large: ArrayRef = Arc::new(Int64Array::from(vec![300]));
        assert!(cast_whole(&large, &DataType::Int8).is_none());
    }
}
