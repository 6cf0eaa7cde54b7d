//! Inputs and outputs as the command line and jobs name them.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow_cast::pretty::pretty_format_batches;
use arrow_schema::{DataType, SchemaRef};
use darner_engine::{CsvOptions, Error, ErrorKind, Format, SinkOptions, SourceOptions};
use darner_store::Store;
use indicatif::HumanCount;

use crate::{
    args::{Input, Output, RowFormat},
    context::Context,
    error::{Failure, Result, stdout_failure},
    print,
    storage::{create, expand, is_url, normal, shown, write_file},
};

/// The most rows that are printed as a table: its column widths depend on all of them.
const TABLE_ROWS_MAX: usize = 100_000;

/// The options that an input was given.
pub(crate) fn source_options(input: &Input) -> Result<SourceOptions> {
    let mut options = SourceOptions::default();
    options.format = input.format_in;
    options.csv = CsvOptions {
        delimiter: input.delimiter,
        has_header: !input.no_header,
        ..CsvOptions::default()
    };
    if let Some(quote) = input.quote {
        options.csv.quote = quote;
    }
    options.csv.null_text.extend(input.null.iter().cloned());
    for declared in &input.types {
        options.declare(declared)?;
    }
    Ok(options)
}

/// The files that patterns stand for; `-` is standard input, alone.
pub(crate) fn input_paths(patterns: &[String]) -> Result<Vec<PathBuf>> {
    if patterns.iter().any(|pattern| pattern == "-") {
        if patterns.len() > 1 {
            return Err(Error::invalid("standard input (-) cannot be mixed with files").into());
        }
        return Ok(vec![PathBuf::from("-")]);
    }
    let paths = expand(patterns)?;
    let mut seen = HashSet::with_capacity(paths.len());
    for path in &paths {
        if !seen.insert(normal(path)) {
            return Err(
                Error::invalid(format!("file is given twice: file=`{}`", shown(path))).into(),
            );
        }
    }
    Ok(paths)
}

/// The types that a table's columns have, for files that are added to it.
pub(crate) fn known_types(store: &Store, table: &str) -> Vec<(String, DataType)> {
    let Ok(table) = store.table(table) else {
        return Vec::new();
    };
    let fields = table.schema().fields().iter();
    fields
        .map(|field| (field.name().clone(), field.data_type().clone()))
        .collect()
}

/// Refuses outputs that are one of the inputs, that are each other, or that lie in the store.
pub(crate) fn check_outputs(store_dir: &Path, inputs: &[PathBuf], outputs: &[&Path]) -> Result<()> {
    let refuse = |output: &Path, why: &str| {
        Err(Error::invalid(format!(
            "output {why}: file=`{}`; name another",
            shown(output)
        ))
        .into())
    };
    let place = |path: &PathBuf| {
        if is_url(path) {
            Some(normal(path))
        } else {
            path.canonicalize().ok()
        }
    };
    let inputs: Vec<PathBuf> = inputs.iter().filter_map(place).collect();
    let mut seen: Vec<PathBuf> = Vec::new();
    for output in outputs
        .iter()
        .copied()
        .filter(|path| path.as_os_str() != "-")
    {
        let Some(place) = place_of(output) else {
            continue;
        };
        if inputs.contains(&place) {
            return refuse(output, "is one of the inputs");
        }
        if seen.contains(&place) {
            return refuse(output, "is named twice");
        }
        if store_dir
            .canonicalize()
            .is_ok_and(|store_dir| place.starts_with(store_dir))
        {
            return refuse(output, "would lie inside the store");
        }
        if std::fs::metadata(&place).is_ok_and(|meta| !meta.is_file()) {
            // A pipe or a device can be written to twice.
            continue;
        }
        seen.push(place);
    }
    Ok(())
}

/// Where a file is or will be, links resolved. `None` if its directory does not exist.
fn place_of(path: &Path) -> Option<PathBuf> {
    if is_url(path) {
        return Some(normal(path));
    }
    path.canonicalize().ok().or_else(|| {
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new(".")).canonicalize().ok()?;
        Some(parent.join(path.file_name()?))
    })
}

/// Prints rows as the options say: to a file or to standard output.
pub(crate) fn print_rows(
    context: &Context,
    schema: &SchemaRef,
    rows: impl Iterator<Item = Result<RecordBatch>>,
    output: &Output,
) -> Result<()> {
    let default = if context.json {
        RowFormat::File(Format::NdJson)
    } else {
        RowFormat::Table
    };
    let format = match (output.format, &output.output) {
        (Some(format), _) => Some(format),
        (None, Some(path)) if path.as_os_str() != "-" => None,
        (None, _) => Some(default),
    };
    if let Some(path) = &output.output {
        check_outputs(&context.store_dir, &[], &[path])?;
    }
    if format == Some(RowFormat::Table) {
        return print_table(schema, rows, output.output.as_deref());
    }
    let mut options = SinkOptions::default();
    options.format = format.and_then(|format| match format {
        RowFormat::Table => None,
        RowFormat::File(format) => Some(format),
    });
    let path = output.output.clone().unwrap_or_else(|| PathBuf::from("-"));
    let is_stdout = path.as_os_str() == "-";
    let failed = |error| {
        if is_stdout {
            stdout_failure(error)
        } else {
            Failure::from(error)
        }
    };
    let mut sink = create(&path, schema, &options).map_err(failed)?;
    for batch in rows {
        sink.write(&batch?).map_err(failed)?;
    }
    let written = sink.finish().map_err(failed)?;
    if !is_stdout {
        print::note(
            context,
            format_args!("{} rows written to {}", written.num_rows, shown(&path)),
        );
    }
    Ok(())
}

/// Prints what there is: a table, or with `--json` one object per line.
pub(crate) fn print_listing(context: &Context, columns: Vec<(&str, ArrayRef)>) -> Result<()> {
    let batch = RecordBatch::try_from_iter(columns)
        .map_err(|error| Error::internal("listing cannot be built").with_source(error))?;
    let output = Output {
        output: None,
        format: (!context.json).then_some(RowFormat::Table),
    };
    print_rows(
        context,
        &batch.schema(),
        std::iter::once(Ok(batch)),
        &output,
    )
}

/// The name of a format, as `--format` takes it.
pub(crate) fn format_name(format: RowFormat) -> &'static str {
    match format {
        RowFormat::Table => "table",
        RowFormat::File(format) => format.name(),
    }
}

/// Counts as a column of a listing: numbers for programs, `1,234` for people.
pub(crate) fn counts(context: &Context, counts: impl Iterator<Item = Option<u64>>) -> ArrayRef {
    if context.json {
        return Arc::new(counts.collect::<UInt64Array>());
    }
    let texts = counts.map(|count| count.map(|count| HumanCount(count).to_string()));
    Arc::new(texts.collect::<StringArray>())
}

fn print_table(
    schema: &SchemaRef,
    rows: impl Iterator<Item = Result<RecordBatch>>,
    path: Option<&Path>,
) -> Result<()> {
    let mut batches = vec![RecordBatch::new_empty(SchemaRef::clone(schema))];
    let mut num_rows = 0;
    for batch in rows {
        let batch = batch?;
        num_rows += batch.num_rows();
        if num_rows > TABLE_ROWS_MAX {
            return Err(Error::new(
                ErrorKind::Resource,
                format!(
                    "too many rows for a table: rows_max=`{TABLE_ROWS_MAX}`; take another format, such as csv, or fewer rows"
                ),
            )
            .into());
        }
        batches.push(batch);
    }
    let table = pretty_format_batches(&batches)
        .map_err(|error| Error::data("rows cannot be printed").with_source(error))?;
    match path {
        None => print::result(table),
        Some(path) if path.as_os_str() == "-" => print::result(table),
        Some(path) => Ok(write_file(path, format!("{table}\n").as_bytes())?),
    }
}
