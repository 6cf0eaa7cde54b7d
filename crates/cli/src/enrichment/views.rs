//! Materialized views as dimensions.

use std::sync::Arc;

use arrow_schema::Schema;
use darner_engine::{Dimension, Error, JoinSpec};
use darner_store::Store;

use crate::{context::Context, error::Result, names::hint};

/// The rows of a view, by the columns that the join names.
pub(super) fn load_view(
    context: &Context,
    store: &Arc<Store>,
    spec: &JoinSpec,
) -> Result<Dimension> {
    let session = context.session(store)?;
    let schema = session.table_schema(&spec.table).ok_or_else(|| {
        Error::not_found(format!("view was dropped meanwhile: view=`{}`", spec.table))
    })?;
    let key = view_key(spec, &schema)?;
    Ok(session.view_dimension(&spec.table, &key)?)
}

/// The columns of a view that facts are joined by: a view has no primary key, so the join names them, in `on`, and its
/// rows have to differ by them.
pub(crate) fn view_key(spec: &JoinSpec, schema: &Schema) -> darner_engine::Result<Vec<String>> {
    let columns = spec.on.iter().map(|on| {
        let name = on.key.as_ref().unwrap_or(&on.fact);
        if schema.column_with_name(name).is_some() {
            return Ok(name.clone());
        }
        let columns = schema.fields().iter().map(|field| field.name().as_str());
        let remedy = match &on.key {
            Some(_) => String::new(),
            None => format!(
                "; name the one that `{0}` must equal: on {0}=COLUMN",
                on.fact
            ),
        };
        Err(Error::not_found(format!(
            "view has no such column: view=`{}` column=`{name}`{}{remedy}",
            spec.table,
            hint(name, columns)
        )))
    });
    columns.collect()
}
