//! `\d`: what tables there are, and what is known of one.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, StringArray};
use darner_engine::{Error, is_view};
use darner_store::{Store, TableSnapshot};
use indicatif::HumanCount;

use super::runner::Runner;
use crate::{
    context::Context,
    error::Result,
    files::{counts, print_listing},
    print,
};

/// Lists the tables of the store, and what the session has beside them.
pub(super) fn tables(context: &Context, runner: &Runner<'_>) -> Result<()> {
    runner.look()?;
    let store = store(context)?;
    let names = runner.session().table_names();
    if names.is_empty() {
        print::note(context, "there are no tables");
        return Ok(());
    }
    let stored: Vec<_> = names
        .iter()
        .map(|name| store.as_ref()?.table(name).ok())
        .collect();
    let num_rows = stored
        .iter()
        .map(|table| table.as_ref().map(TableSnapshot::num_rows).transpose())
        .collect::<Result<Vec<_>, Error>>()?;
    let is_view = |name: &str| store.as_ref().is_some_and(|store| is_view(store, name));
    let kinds = stored.iter().map(|table| match table {
        Some(table) if is_view(table.name()) => "materialized view",
        Some(_) => "table",
        None => "of this session",
    });
    let keys = stored.iter().map(|table| {
        let table = table.as_ref().filter(|table| !is_view(table.name()))?;
        Some(table.key_names().join(", "))
    });
    let versions = stored
        .iter()
        .map(|table| i64::try_from(table.as_ref()?.version().number).ok());
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "name",
            Arc::new(names.iter().map(Some).collect::<StringArray>()),
        ),
        ("kind", Arc::new(StringArray::from_iter_values(kinds))),
        ("key", Arc::new(keys.collect::<StringArray>())),
        ("rows", counts(context, num_rows.into_iter())),
        ("version", Arc::new(versions.collect::<Int64Array>())),
    ];
    print_listing(context, columns)
}

/// Says what columns a table has, and if it is stored, its key, version and rows.
pub(super) fn table(context: &Context, runner: &Runner<'_>, name: &str) -> Result<()> {
    runner.look()?;
    let store = store(context)?;
    let stored = store.as_ref().and_then(|store| store.table(name).ok());
    let Some(schema) = runner.session().table_schema(name) else {
        return Err(Error::not_found(format!(
            "no such table: table=`{name}`; \\d lists what there is"
        ))
        .into());
    };
    let keys: Vec<&str> = stored
        .as_ref()
        .map_or_else(Vec::new, |table| table.key_names());
    let fields = schema.fields();
    let names = fields.iter().map(|field| Some(field.name()));
    let types = fields
        .iter()
        .map(|field| Some(field.data_type().to_string()));
    let notes = fields.iter().map(|field| {
        if keys.contains(&field.name().as_str()) {
            "key"
        } else if field.is_nullable() {
            ""
        } else {
            "not null"
        }
    });
    print_listing(
        context,
        vec![
            ("column", Arc::new(names.collect::<StringArray>()) as _),
            ("type", Arc::new(types.collect::<StringArray>())),
            ("", Arc::new(StringArray::from_iter_values(notes))),
        ],
    )?;
    let Some(table) = &stored else {
        return Ok(());
    };
    if store.as_ref().is_some_and(|store| is_view(store, name)) {
        let text = format!("materialized view, version {}", table.version());
        print::note(
            context,
            format_args!("{text}; EXPLAIN MATERIALIZED VIEW {name} says more"),
        );
        return Ok(());
    }
    print::note(
        context,
        format_args!(
            "{} rows, key {}, version {} of {}",
            HumanCount(table.num_rows()?),
            keys.join(", "),
            table.version(),
            print::time(table.version().time_us)
        ),
    );
    Ok(())
}

fn store(context: &Context) -> Result<Option<Store>> {
    context
        .has_store()
        .then(|| context.read_store())
        .transpose()
}
