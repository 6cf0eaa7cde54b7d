//! What has changed in a table of facts since a view has seen it.

use std::sync::Arc;

use arrow_array::RecordBatch;
use darner_engine::ErrorKind;
use darner_store::{AsOf, TableSnapshot};
use datafusion::{
    common::JoinType,
    datasource::{MemTable, provider_as_source},
    error::Result,
    logical_expr::LogicalPlanBuilder,
    physical_plan::collect,
};

use super::{define::TableVersion, query};
use crate::{
    blocking::blocking,
    catalog::StoreHandle,
    error::to_datafusion,
    string_views::{seen_rows, seen_schema},
    table::StoreTable,
};

/// What a view has to take in.
pub(crate) enum TableNews {
    None,
    /// All rows, for this reason.
    All(String),
    /// Rows that were added, and nothing else; as queries see them, see [`seen_rows`].
    Rows(TableSnapshot, Vec<RecordBatch>),
    /// Rows that were added, rows that were changed, in their new forms and in their old ones, and rows that were deleted.
    Changes {
        now: TableSnapshot,
        new: Vec<RecordBatch>,
        old: Vec<RecordBatch>,
    },
}

/// Finds out what is new in a table.
pub(crate) async fn news_of(
    handle: &Arc<StoreHandle>,
    name: &str,
    seen: Option<TableVersion>,
    num_threads: usize,
) -> Result<TableNews> {
    let now = handle.store().table(name).map_err(to_datafusion)?;
    let Some(seen) = seen else {
        return Ok(TableNews::All("nothing was counted yet".to_owned()));
    };
    if seen == TableVersion::of(&now) {
        return Ok(TableNews::None);
    }
    if seen.created != now.created().number {
        return Ok(TableNews::All(format!("`{name}` was made anew")));
    }
    let not_kept = |error: darner_engine::Error| match error.kind() {
        ErrorKind::NotFound => Ok(TableNews::All(format!(
            "version {} of `{name}`, which was counted last, is not kept any more (`darner retention`)",
            seen.version
        ))),
        _ => Err(to_datafusion(error)),
    };
    let changes = match blocking(|| now.changes_since(seen.version, None)) {
        Ok(changes) => changes,
        Err(error) => return not_kept(error),
    };
    if changes.is_replaced {
        return Ok(TableNews::All(format!("`{name}` was replaced as a whole")));
    }
    let before = match now.at(AsOf::Version(seen.version)) {
        Ok(before) => before,
        Err(error) => return not_kept(error),
    };
    let (mut rows, mut keys) = (Vec::new(), Vec::new());
    let key_columns = now.spec().key_columns();
    let read = blocking(|| {
        for upserts in changes.upserts {
            let upserts = upserts?;
            let columns = key_columns.iter().map(|column| upserts.column(*column));
            let columns = columns.map(Arc::clone).collect();
            keys.push((Arc::clone(now.spec().key_schema()), columns));
            rows.push(upserts);
        }
        for deletes in changes.deletes {
            let columns = deletes?.columns().to_vec();
            keys.push((Arc::clone(now.spec().key_schema()), columns));
        }
        darner_engine::Result::Ok(())
    });
    read.map_err(to_datafusion)?;
    let keys = keys.into_iter();
    let keys = keys.map(|(schema, columns)| RecordBatch::try_new(schema, columns));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let seen = seen_schema(now.schema());
    let rows = rows.into_iter().map(|rows| seen_rows(rows, &seen));
    let new = rows.collect::<Result<Vec<_>>>()?;
    let old = rows_at(handle, before, keys, num_threads).await?;
    if old.is_empty() {
        return Ok(TableNews::Rows(now, new));
    }
    Ok(TableNews::Changes { now, new, old })
}

/// The rows of a table that have these keys.
async fn rows_at(
    handle: &Arc<StoreHandle>,
    table: TableSnapshot,
    keys: Vec<RecordBatch>,
    num_threads: usize,
) -> Result<Vec<RecordBatch>> {
    let names: Vec<String> = table.key_names().iter().map(ToString::to_string).collect();
    let keys = MemTable::try_new(Arc::clone(table.spec().key_schema()), vec![keys])?;
    let keys = LogicalPlanBuilder::scan("keys", provider_as_source(Arc::new(keys)), None)?;
    let table = StoreTable::past(handle, table);
    let on = |relation: &str| {
        let columns = names.iter();
        let columns =
            columns.map(|name| datafusion::common::Column::new(Some(relation.to_owned()), name));
        columns.collect::<Vec<_>>()
    };
    let plan = LogicalPlanBuilder::scan("rows", provider_as_source(Arc::new(table)), None)?
        .join(
            keys.build()?,
            JoinType::LeftSemi,
            (on("rows"), on("keys")),
            None,
        )?
        .build()?;
    let state = query::base(num_threads)?;
    let plan = state.create_physical_plan(&plan).await?;
    let mut rows = collect(plan, state.task_ctx()).await?;
    rows.retain(|rows| rows.num_rows() > 0);
    Ok(rows)
}
