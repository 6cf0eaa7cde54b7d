//! CSV and TSV.

use super::{
    CsvOptions, Format, Piece, Source, SourceOptions,
    dates::DateFormat,
    guard::guarded,
    infer::ColumnInference,
    options::{project, unknown_column},
    text::{Chunk, ChunkReader, Chunker, RowLimited, TextInput, changed, lines_before, read_error},
};
use crate::{Error, Result};
use arrow_array::{
    Array, ArrayRef, RecordBatch, RecordBatchOptions,
    builder::{Float64Builder, Int64Builder, StringBuilder},
};
use arrow_cast::{CastOptions, can_cast_types, cast_with_options};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use csv::{ByteRecord, ReaderBuilder};
use std::{collections::HashSet, io::Read, str, sync::Arc};

/// A CSV or TSV input.
pub(super) struct CsvSource {
    name: Arc<str>,
    reader: ChunkReader,
    shared: Arc<Shared>,
    done: bool,
}

/// What all pieces share.
struct Shared {
    schema: SchemaRef,
    /// For each column of the schema its place in a row.
    indices: Vec<usize>,
    num_fields: usize,
    /// For each column of the schema how its dates are written, if not as usual.
    date_formats: Vec<Option<DateFormat>>,
    dialect: Dialect,
}

struct Dialect {
    delimiter: u8,
    quote: u8,
    null_text: Vec<String>,
}

impl Dialect {
    fn new(format: Format, options: &CsvOptions) -> Self {
        let default = if format == Format::Tsv { b'\t' } else { b',' };
        let delimiter = options.delimiter.unwrap_or(default);
        Self {
            delimiter,
            quote: options.quote,
            null_text: options.null_text.clone(),
        }
    }

    fn reader<R: Read>(&self, input: R) -> csv::Reader<R> {
        ReaderBuilder::new()
            .has_headers(false)
            // Rows of another length are reported here, with the place.
            .flexible(true)
            .delimiter(self.delimiter)
            .quote(self.quote)
            .from_reader(input)
    }

    fn is_null(&self, value: &[u8]) -> bool {
        self.null_text.iter().any(|text| text.as_bytes() == value)
    }
}

impl CsvSource {
    /// Reads the whole input once: column names, types, and where chunks of rows begin.
    ///
    /// # Errors
    /// `Data` with the line for a row that is ragged or not UTF-8, and for an empty input; `Invalid`
    /// for a projection or declared type that it cannot give. The caller adds the file's name.
    pub(super) fn new(
        name: Arc<str>,
        input: TextInput,
        format: Format,
        options: &SourceOptions,
    ) -> Result<Self> {
        let dialect = Dialect::new(format, &options.csv);
        let scan = guarded(|| scan(&input, &dialect, options))?;
        let all: SchemaRef = Arc::new(Schema::new(scan.fields));
        for (column, data_type) in &options.types {
            if all.column_with_name(column).is_none() {
                return Err(unknown_column(&all, column).context("declared type"));
            }
            if !can_cast_types(&DataType::Utf8, data_type) {
                return Err(Error::invalid(format!(
                    "text cannot be read as this type: column=`{column}`, type=`{data_type}`"
                )));
            }
        }
        for (column, _) in &options.csv.date_formats {
            if all.column_with_name(column).is_none() {
                return Err(unknown_column(&all, column).context("format"));
            }
        }
        let (indices, schema) = project(&all, options.projection.as_deref())?;
        let mut date_formats = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let mut formats = options.csv.date_formats.iter();
            let format = formats.find(|(column, _)| column == field.name());
            let format =
                format.map(|(column, text)| DateFormat::new(column, text, field.data_type()));
            date_formats.push(format.transpose()?);
        }
        let num_fields = all.fields().len();
        let indices = indices.unwrap_or_else(|| (0..num_fields).collect());
        let shared = Arc::new(Shared {
            schema,
            indices,
            num_fields,
            date_formats,
            dialect,
        });
        Ok(Self {
            name,
            reader: ChunkReader::new(input, scan.chunks)?,
            shared,
            done: false,
        })
    }
}

impl Source for CsvSource {
    fn schema(&self) -> &SchemaRef {
        &self.shared.schema
    }

    fn next_piece(&mut self) -> Result<Option<Piece>> {
        if self.done {
            return Ok(None);
        }
        let next = guarded(|| self.reader.next_chunk()).map_err(|error| {
            self.done = true;
            error.context(&self.name)
        })?;
        let Some((chunk, bytes)) = next else {
            return Ok(None);
        };
        let shared = Arc::clone(&self.shared);
        Ok(Some(Piece::new(
            Arc::clone(&self.name),
            chunk.len,
            move || {
                let bytes = bytes.load(&chunk)?;
                Ok(vec![decode(&shared, &chunk, &bytes)?])
            },
        )))
    }

    fn num_bytes(&self) -> Option<u64> {
        Some(self.reader.num_bytes())
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// What the first pass finds.
struct Scan {
    fields: Vec<Field>,
    chunks: Vec<Chunk>,
}

fn scan(input: &TextInput, dialect: &Dialect, options: &SourceOptions) -> Result<Scan> {
    let (limited, left) = RowLimited::new(input.open()?);
    let mut reader = dialect.reader(limited);
    let mut record = ByteRecord::new();
    let at_line = |position: u64, error: Error| match input.line_at(position) {
        Ok(line) => error.context(format_args!("line {line}")),
        Err(other) => other,
    };
    let mut names: Option<Vec<String>> = None;
    let mut columns: Vec<ColumnInference> = Vec::new();
    let mut declared: Vec<Option<DataType>> = Vec::new();
    let mut chunker = Chunker::new(options.batch_rows);
    loop {
        let start = reader.position().byte();
        let lines = reader.position().line() - 1;
        if !reader.read_byte_record(&mut record).map_err(csv_error)? {
            break;
        }
        left.set(super::text::ROW_BYTES_MAX);
        if !record.as_slice().is_ascii()
            && let Some(idx) = record
                .iter()
                .position(|field| str::from_utf8(field).is_err())
        {
            let error = Error::data(format!(
                "the text is not UTF-8: field=`{}`; convert the file to UTF-8",
                idx + 1
            ));
            return Err(at_line(start, error));
        }
        let Some(names) = &names else {
            let found = column_names(&record, options.csv.has_header)
                .map_err(|error| at_line(start, error))?;
            columns = vec![ColumnInference::default(); found.len()];
            declared = found
                .iter()
                .map(|name| options.type_of(name).cloned())
                .collect();
            names = Some(found);
            if !options.csv.has_header {
                infer_row(&record, dialect, &mut columns, &declared);
                chunker.add(start, reader.position().byte(), lines);
            }
            continue;
        };
        if record.len() != names.len() {
            let error = Error::data(format!(
                "a row of another length than the first: fields=`{}`, expected=`{}`",
                record.len(),
                names.len()
            ));
            return Err(at_line(start, error));
        }
        infer_row(&record, dialect, &mut columns, &declared);
        chunker.add(start, reader.position().byte(), lines);
    }
    let names = names.ok_or_else(|| {
        Error::data("the file is empty: expected a header line, or at least one row")
    })?;
    let types = columns
        .iter()
        .zip(declared)
        .map(|(c, d)| d.unwrap_or_else(|| c.data_type()));
    let fields = names
        .into_iter()
        .zip(types)
        .map(|(name, t)| Field::new(name, t, true))
        .collect();
    Ok(Scan {
        fields,
        chunks: chunker.finish(),
    })
}

fn infer_row(
    record: &ByteRecord,
    dialect: &Dialect,
    columns: &mut [ColumnInference],
    declared: &[Option<DataType>],
) {
    for ((value, column), declared) in record.iter().zip(columns).zip(declared) {
        if declared.is_none() && !dialect.is_null(value) {
            // The whole row was checked.
            column.add(str::from_utf8(value).unwrap_or_default());
        }
    }
}

fn column_names(record: &ByteRecord, has_header: bool) -> Result<Vec<String>> {
    if !has_header {
        return Ok((1..=record.len())
            .map(|number| format!("column_{number}"))
            .collect());
    }
    let mut seen = HashSet::new();
    let mut names = Vec::with_capacity(record.len());
    for (idx, name) in record.iter().enumerate() {
        let name = String::from_utf8_lossy(name).into_owned();
        if name.is_empty() {
            return Err(Error::data(format!(
                "a column without a name in the header: column=`{}`; name it",
                idx + 1
            )));
        }
        if !seen.insert(name.clone()) {
            return Err(Error::data(format!(
                "two columns have one name in the header: column=`{name}`; rename one"
            )));
        }
        names.push(name);
    }
    Ok(names)
}

fn csv_error(error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => read_error(error),
        other => Error::data(format!("malformed CSV: reason=`{other:?}`")),
    }
}

/// The values of one column of a chunk, on their way to an array.
enum ColumnBuilder {
    Int64(Int64Builder),
    Float64(Float64Builder),
    /// Text, and everything that is cast from text.
    Text(StringBuilder),
}

fn decode(shared: &Shared, chunk: &Chunk, bytes: &[u8]) -> Result<RecordBatch> {
    let mut reader = shared.dialect.reader(bytes);
    let mut record = ByteRecord::new();
    let mut builders: Vec<ColumnBuilder> = shared
        .schema
        .fields()
        .iter()
        .map(|field| match field.data_type() {
            DataType::Int64 => ColumnBuilder::Int64(Int64Builder::with_capacity(chunk.num_rows)),
            DataType::Float64 => {
                ColumnBuilder::Float64(Float64Builder::with_capacity(chunk.num_rows))
            }
            _ => ColumnBuilder::Text(StringBuilder::with_capacity(chunk.num_rows, 0)),
        })
        .collect();
    let mut num_rows = 0;
    loop {
        let start = reader.position().byte();
        if !reader.read_byte_record(&mut record).map_err(csv_error)? {
            break;
        }
        if record.len() != shared.num_fields {
            return Err(changed());
        }
        for ((builder, idx), field) in builders
            .iter_mut()
            .zip(&shared.indices)
            .zip(shared.schema.fields())
        {
            let value = &record[*idx];
            let value = if shared.dialect.is_null(value) {
                None
            } else {
                Some(value)
            };
            if let Err(value) = append(builder, value) {
                let start = usize::try_from(start).unwrap_or(0);
                let line = chunk.lines_before + lines_before(bytes, start) + 1;
                return Err(bad_value(field, value).context(format_args!("line {line}")));
            }
        }
        num_rows += 1;
    }
    if num_rows != chunk.num_rows {
        return Err(changed());
    }
    let columns = builders
        .into_iter()
        .enumerate()
        .map(|(column, builder)| finish(shared, chunk, bytes, builder, column))
        .collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(num_rows));
    RecordBatch::try_new_with_options(Arc::clone(&shared.schema), columns, &options)
        .map_err(|error| Error::internal("columns do not fit their schema").with_source(error))
}

/// Appends a value, or gives back the text that is none.
fn append<'a>(builder: &mut ColumnBuilder, value: Option<&'a [u8]>) -> Result<(), &'a str> {
    let text = value.map(|value| str::from_utf8(value).unwrap_or("\u{FFFD}"));
    match (builder, text) {
        (ColumnBuilder::Int64(builder), None) => builder.append_null(),
        (ColumnBuilder::Float64(builder), None) => builder.append_null(),
        (ColumnBuilder::Text(builder), text) => builder.append_option(text),
        (ColumnBuilder::Int64(builder), Some(text)) => {
            builder.append_value(text.parse().map_err(|_| text)?);
        }
        (ColumnBuilder::Float64(builder), Some(text)) => {
            builder.append_value(text.parse().map_err(|_| text)?);
        }
    }
    Ok(())
}

fn bad_value(field: &Field, value: &str) -> Error {
    // Enough to recognise it by.
    let shown: String = value.chars().take(80).collect();
    Error::data(format!(
        "not a value of the column's type: column=`{}`, type=`{}`, value=`{shown}`",
        field.name(),
        field.data_type()
    ))
}

fn finish(
    shared: &Shared,
    chunk: &Chunk,
    bytes: &[u8],
    builder: ColumnBuilder,
    column: usize,
) -> Result<ArrayRef> {
    let field = shared.schema.field(column);
    let text = match builder {
        ColumnBuilder::Int64(mut builder) => return Ok(Arc::new(builder.finish())),
        ColumnBuilder::Float64(mut builder) => return Ok(Arc::new(builder.finish())),
        ColumnBuilder::Text(mut builder) => builder.finish(),
    };
    if field.data_type() == &DataType::Utf8 {
        return Ok(Arc::new(text));
    }
    // Values that are none become null, which tells where they are; the cast's own error does not.
    let format = shared.date_formats[column].as_ref();
    let values = if let Some(format) = format {
        format.parse(&text, field.data_type())?
    } else {
        let options = CastOptions {
            safe: true,
            ..CastOptions::default()
        };
        cast_with_options(&text, field.data_type(), &options)
            .map_err(|error| super::malformed(format_args!("column `{}`", field.name()), error))?
    };
    if values.null_count() == text.null_count() {
        return Ok(values);
    }
    let row = (0..text.len())
        .find(|row| values.is_null(*row) && text.is_valid(*row))
        .unwrap_or(0);
    let line = line_of_row(shared, chunk, bytes, row);
    let mut error = bad_value(field, text.value(row));
    if let Some(format) = format {
        error = error.context(format_args!("format `{}`", format.text()));
    }
    Err(error.context(format_args!("line {line}")))
}

/// The line in which a chunk's row starts; found by reading again, for an error message.
fn line_of_row(shared: &Shared, chunk: &Chunk, bytes: &[u8], row: usize) -> u64 {
    let mut reader = shared.dialect.reader(bytes);
    let mut record = ByteRecord::new();
    for _ in 0..row {
        if !matches!(reader.read_byte_record(&mut record), Ok(true)) {
            break;
        }
    }
    let start = usize::try_from(reader.position().byte()).unwrap_or(0);
    chunk.lines_before + lines_before(bytes, start) + 1
}
