//! Files into tables, and tables into dimensions: where the engine meets the store.

use std::{sync::Arc, time::Instant};

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{Field, FieldRef, Schema, SchemaRef};
use arrow_select::take::take_record_batch;
use darner_store::{PageKind, Store, TableSnapshot, TableSpec, Transaction, Version};
use tracing::debug;

use crate::{
    Control, Dimension, DimensionBuilder, Error, ErrorKind, OnDuplicate, Result, UniqueKeys,
    UniqueRows, dimension::column_index, pipeline::for_each_ordered, source::Source,
};

/// What a load does to the rows that the table has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoadMode {
    /// They stay, but for those whose keys come again.
    #[default]
    Upsert,
    /// They go: the table holds the loaded rows alone, and may have other columns and another key.
    Replace,
}

/// How to load.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The key columns. `None`: those of the table, which must exist.
    pub key: Option<Vec<String>>,
    /// What happens to the rows that are there.
    pub mode: LoadMode,
    /// What a key that comes twice in this load means.
    pub on_duplicate: OnDuplicate,
    /// Set in the same commit: a name and bytes of the caller's.
    pub watermark: Option<(String, Vec<u8>)>,
}

/// What a load has done.
#[derive(Clone, Debug)]
pub struct LoadReport {
    /// Rows read.
    pub num_rows_in: u64,
    /// Rows written: without those that lost to another with the same key.
    pub num_rows: u64,
    /// Whether the table is new.
    pub is_new: bool,
    /// The commit.
    pub version: Version,
}

/// Before the name of a view: the name of the watermark that says what the view is. Its state is a table of that name.
pub const VIEW_PREFIX: &str = "darner.view/";

/// Whether a name is that of a materialized view.
pub fn is_view(store: &Store, name: &str) -> bool {
    store.watermark(&format!("{VIEW_PREFIX}{name}")).is_some()
}

/// Fails if a name is that of a materialized view: only a refresh changes what it stores.
///
/// # Errors
/// [`ErrorKind::Invalid`], naming the view.
pub fn check_is_table(store: &Store, name: &str) -> Result<()> {
    if !is_view(store, name) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "a materialized view is changed by its refresh alone: view=`{name}`; change what it reads, and refresh it"
    )))
}

/// Loads all of a source into a table, as one commit. Creates the table if there is none.
///
/// Batches are decoded on the current rayon pool and encoded into the store as they come. With
/// [`OnDuplicate::First`] and [`OnDuplicate::Last`] all of them are held in memory first, because the last row may
/// decide about the first.
///
/// # Errors
/// Those of the source and the store; [`ErrorKind::Invalid`] for columns or a key that do not fit the table;
/// [`ErrorKind::Data`] for null keys and, with [`OnDuplicate::Error`], for duplicate ones. The table is as it was then.
pub fn load_table(
    store: &Store,
    table: &str,
    source: &mut dyn Source,
    options: &LoadOptions,
    control: &Control,
) -> Result<LoadReport> {
    check_is_table(store, table)?;
    let started = Instant::now();
    let mut transaction = store.begin()?;
    let existing = transaction.table_spec(table);
    let key = match (&options.key, &existing) {
        (Some(key), _) => key.clone(),
        (None, Some(spec)) => {
            let fields = spec.key_schema().fields().iter();
            fields.map(|field| field.name().clone()).collect()
        }
        (None, None) => {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("no such table: table=`{table}`; name the key columns to create it"),
            ));
        }
    };
    let new_spec = || {
        TableSpec::new(&table_schema(source.schema(), &key), &key)
            .map_err(|error| error.context(source.name()))
    };
    let mut columns = None;
    let spec = match &existing {
        None => {
            let spec = new_spec()?;
            transaction.create_table(table, spec.clone())?;
            spec
        }
        Some(_) if options.mode == LoadMode::Replace => {
            let spec = new_spec()?;
            transaction.replace(table, spec.clone())?;
            spec
        }
        Some(existing) => {
            let found = fit_table(existing, &key, source.schema())
                .map_err(|error| error.context(format!("{}: table=`{table}`", source.name())))?;
            columns = Some(found);
            TableSpec::clone(existing)
        }
    };
    let mut loader = Loader::new(table, &spec, options.on_duplicate)?;
    for_each_ordered(
        source,
        control,
        |batches| Ok(batches.to_vec()),
        |done| {
            loader.inputs.push((done.name, done.first_row));
            done.result.into_iter().try_for_each(|batch| {
                let batch = match &columns {
                    None => batch,
                    Some(columns) => batch.project(columns).map_err(|error| {
                        Error::internal("columns that were just found are gone").with_source(error)
                    })?,
                };
                loader.push(&mut transaction, batch)
            })
        },
    )?;
    let num_rows_in = loader.num_rows;
    let num_rows = loader.finish(&mut transaction)?;
    if let Some((name, value)) = &options.watermark {
        transaction.set_watermark(name, value)?;
    }
    control.check()?;
    let version = transaction.commit()?;
    let seconds = started.elapsed().as_secs_f64();
    debug!(
        table,
        num_rows,
        version = version.number,
        seconds,
        "table loaded"
    );
    Ok(LoadReport {
        num_rows_in,
        num_rows,
        is_new: existing.is_none(),
        version,
    })
}

struct Loader<'a> {
    table: &'a str,
    key_columns: Vec<usize>,
    /// `None` once the load is at its end.
    keys: Option<UniqueKeys>,
    on_duplicate: OnDuplicate,
    /// Batches that wait for the end, see [`load_table`].
    held: Vec<RecordBatch>,
    num_rows: u64,
    /// Where the rows came from: the name of each piece's input, and its first row over the whole load.
    inputs: Vec<(String, u64)>,
}

impl<'a> Loader<'a> {
    fn new(table: &'a str, spec: &TableSpec, on_duplicate: OnDuplicate) -> Result<Self> {
        let fields: Vec<FieldRef> = spec.key_schema().fields().to_vec();
        Ok(Self {
            table,
            key_columns: spec.key_columns().to_vec(),
            keys: Some(UniqueKeys::new(table, &fields, on_duplicate)?),
            on_duplicate,
            held: Vec::new(),
            num_rows: 0,
            inputs: Vec::new(),
        })
    }

    fn push(&mut self, transaction: &mut Transaction<'_>, batch: RecordBatch) -> Result<()> {
        let keys: Vec<ArrayRef> = self
            .key_columns
            .iter()
            .map(|column| Arc::clone(batch.column(*column)))
            .collect();
        if let Some(unique) = &mut self.keys {
            unique.push(&keys)?;
        }
        self.num_rows += batch.num_rows() as u64;
        if self.on_duplicate == OnDuplicate::Error {
            // A null key ends the load here, with the place in the input.
            if let Some(error) = self.null_key(&batch) {
                return Err(error);
            }
            return transaction.upsert(self.table, &batch);
        }
        self.held.push(batch);
        Ok(())
    }

    /// Decides about duplicates, and returns the number of rows that stay.
    fn finish(mut self, transaction: &mut Transaction<'_>) -> Result<u64> {
        let Some(keys) = self.keys.take() else {
            return Err(Error::internal("a load ended twice"));
        };
        let UniqueRows {
            selections,
            duplicates,
            null_key,
        } = keys.finish()?;
        if let Some(null_key) = null_key {
            return Err(self.null_key_error(&null_key.column, null_key.row));
        }
        if let (OnDuplicate::Error, Some(duplicates)) = (self.on_duplicate, &duplicates) {
            let [first, second] = duplicates.first.rows;
            let (first_input, first_row) = self.place(first);
            let (second_input, second_row) = self.place(second);
            let rows = if first_input == second_input {
                format!("rows {first_row} and {second_row} of {first_input}")
            } else {
                format!("row {first_row} of {first_input} and row {second_row} of {second_input}")
            };
            return Err(Error::data(format!(
                "{}: {} duplicate key{} (first: {} in {rows}); use --on-duplicate first|last",
                self.table,
                duplicates.num_duplicate_rows,
                if duplicates.num_duplicate_rows == 1 {
                    ""
                } else {
                    "s"
                },
                duplicates.first.key
            )));
        }
        let mut num_kept = self.num_rows;
        for (batch, selection) in self.held.iter().zip(&selections) {
            let Some(rows) = selection else {
                transaction.upsert(self.table, batch)?;
                continue;
            };
            let kept = take_record_batch(batch, rows)
                .map_err(|error| Error::internal("cannot take rows").with_source(error))?;
            num_kept -= (batch.num_rows() - kept.num_rows()) as u64;
            transaction.upsert(self.table, &kept)?;
        }
        transaction.declare_distinct(self.table)?;
        Ok(num_kept)
    }

    fn null_key(&self, batch: &RecordBatch) -> Option<Error> {
        let first_row = self.num_rows - batch.num_rows() as u64;
        self.key_columns.iter().find_map(|column| {
            let nulls = batch.column(*column).logical_nulls()?;
            let row = nulls.iter().position(|is_valid| !is_valid)?;
            let name = batch.schema_ref().field(*column).name().clone();
            Some(self.null_key_error(&name, first_row + row as u64))
        })
    }

    fn null_key_error(&self, column: &str, row: u64) -> Error {
        let (input, row) = self.place(row);
        Error::data(format!(
            "{}: a key is null: column=`{column}` in row {row} of {input}; a row without a key cannot be found again",
            self.table
        ))
    }

    /// The input of a row, and its number in that input, counted from 1 without a header.
    fn place(&self, row: u64) -> (&str, u64) {
        let after = self
            .inputs
            .partition_point(|(_, first_row)| *first_row <= row);
        let Some((name, _)) = self.inputs.get(after.saturating_sub(1)) else {
            return (self.table, row + 1);
        };
        let first_row = self
            .inputs
            .iter()
            .find(|input| input.0 == *name)
            .map_or(0, |input| input.1);
        (name, row - first_row + 1)
    }
}

/// The columns of a table for rows of this schema: keys without nulls, and without the file's own metadata.
fn table_schema(rows: &SchemaRef, key: &[String]) -> Schema {
    let fields: Vec<Field> = rows
        .fields()
        .iter()
        .map(|field| {
            field
                .as_ref()
                .clone()
                .with_nullable(!key.contains(field.name()))
        })
        .collect();
    Schema::new(fields)
}

/// Where the columns of a table stand in rows that are to be added to it.
fn fit_table(table: &TableSpec, key: &[String], rows: &SchemaRef) -> Result<Vec<usize>> {
    let table_key: Vec<&str> = table
        .key_schema()
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    if table_key != key {
        return Err(Error::invalid(format!(
            "the table has another key: got=`{}` expected=`{}`",
            key.join(", "),
            table_key.join(", ")
        )));
    }
    let fields = table.schema().fields();
    if let Some(extra) = rows
        .fields()
        .iter()
        .find(|f| fields.find(f.name()).is_none())
    {
        return Err(Error::invalid(format!(
            "a column is not in the table: column=`{}`; leave it out, or load the whole table anew with --mode replace",
            extra.name()
        )));
    }
    fields
        .iter()
        .map(|field| {
            let Some((column, found)) = rows.column_with_name(field.name()) else {
                return Err(Error::invalid(format!(
                    "a column of the table is missing: column=`{}`",
                    field.name()
                )));
            };
            if found.data_type() != field.data_type() {
                return Err(Error::invalid(format!(
                    "a column has another type than in the table: column=`{}` got=`{}` expected=`{}`",
                    field.name(),
                    found.data_type(),
                    field.data_type()
                )));
            }
            Ok(column)
        })
        .collect()
}

/// Builds a dimension from a table, with these payload columns (`None`: all).
///
/// # Errors
/// [`ErrorKind::Invalid`] for an unknown column, [`ErrorKind::Data`] for damage in the store,
/// [`ErrorKind::Resource`] for more rows than a dimension holds.
pub fn load_dimension(table: &TableSnapshot, columns: Option<&[String]>) -> Result<Dimension> {
    let started = Instant::now();
    let key: Vec<String> = table.key_names().into_iter().map(str::to_owned).collect();
    let schema = table.schema();
    let mut projection: Vec<usize> = match columns {
        None => (0..schema.fields().len()).collect(),
        Some(columns) => columns
            .iter()
            .map(|name| column_index(schema, name).map_err(|error| error.context(table.name())))
            .collect::<Result<_>>()?,
    };
    projection.extend(table.spec().key_columns());
    projection.sort_unstable();
    projection.dedup();
    let projected = schema.project(&projection).map_err(|error| {
        Error::internal("columns that were just found are gone").with_source(error)
    })?;
    let mut builder = DimensionBuilder::new(table.name(), projected.into(), &key)?
        .with_version(table.version().number);
    for page in table.read_pages(Some(&projection)) {
        let page = page?;
        match page.kind {
            PageKind::Upsert => builder.upsert(page.rows)?,
            PageKind::Delete => builder.delete(page.rows)?,
        }
    }
    let dimension = builder.finish()?;
    debug!(
        table = table.name(),
        version = table.version().number,
        num_rows = dimension.num_rows(),
        memory_bytes = dimension.memory_bytes(),
        seconds = started.elapsed().as_secs_f64(),
        "dimension built"
    );
    Ok(dimension)
}
