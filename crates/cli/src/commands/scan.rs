//! `darner scan`.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use darner_engine::{Error, is_view};

use super::view;
use crate::{
    args::Scan,
    context::{Context, find_table},
    error::{Failure, Result},
    files::print_rows,
};

pub(crate) fn run(context: &Context, args: &Scan) -> Result<()> {
    let store = context.read_store()?;
    if is_view(&store, &args.table) {
        return view::scan(context, store, args);
    }
    let table = find_table(&store, &args.table, args.as_of)?;
    // The store reads columns in its own order; the user may want another.
    let columns = args.select.as_ref().map(|names| {
        names
            .iter()
            .map(|name| column_index(table.schema(), name))
            .collect::<Result<Vec<usize>>>()
    });
    let columns = columns.transpose()?;
    let mut stored = columns.clone();
    if let Some(stored) = &mut stored {
        stored.sort_unstable();
        stored.dedup();
    }
    let places: Option<Vec<usize>> = columns.zip(stored.as_ref()).map(|(columns, stored)| {
        // Every column is in the sorted list.
        columns
            .iter()
            .filter_map(|column| stored.binary_search(column).ok())
            .collect()
    });
    let rows = table.rows(stored.as_deref())?;
    let project = |rows: &RecordBatch| match &places {
        None => Ok(rows.clone()),
        Some(places) => rows.project(places).map_err(|error| {
            Error::internal("columns that were just found are gone").with_source(error)
        }),
    };
    let schema = project(&RecordBatch::new_empty(SchemaRef::clone(rows.schema())))?.schema();
    let mut left = args.limit.unwrap_or(usize::MAX);
    let limited = rows.map_while(|rows| {
        if left == 0 {
            return None;
        }
        Some(rows.and_then(|rows| {
            let rows = rows.slice(0, rows.num_rows().min(left));
            left -= rows.num_rows();
            project(&rows)
        }))
    });
    print_rows(
        context,
        &schema,
        limited.map(|rows| rows.map_err(Failure::from)),
        &args.output,
    )
}

fn column_index(schema: &SchemaRef, name: &str) -> Result<usize> {
    schema.index_of(name).map_err(|_| {
        let names: Vec<&str> = schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        Error::invalid(format!(
            "no such column: column=`{name}` columns=`{}`",
            names.join(", ")
        ))
        .into()
    })
}
