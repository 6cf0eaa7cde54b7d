//! Newline-delimited JSON: one object per line.

use super::{
    Piece, Source, SourceOptions,
    guard::guarded,
    options::{project, unknown_column},
    text::{Chunk, ChunkReader, Chunker, RowLimited, TextInput, changed, read_error},
};
use crate::{Error, Result};
use arrow_array::RecordBatch;
use arrow_json::{ReaderBuilder, reader::infer_json_schema_from_iterator};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, SchemaRef};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    fmt,
    io::{BufRead, BufReader},
    sync::Arc,
};

/// An NDJSON input.
pub(super) struct JsonSource {
    name: Arc<str>,
    reader: ChunkReader,
    schema: SchemaRef,
    done: bool,
}

impl JsonSource {
    /// Reads the whole input once: columns, types, and where chunks of lines begin.
    ///
    /// # Errors
    /// `Data` with the line for what is not a JSON object, and for an input without a single column;
    /// `Invalid` for a projection or declared type that it cannot give. The caller adds the file's
    /// name.
    pub(super) fn new(name: Arc<str>, input: TextInput, options: &SourceOptions) -> Result<Self> {
        let Scan {
            inferred,
            columns,
            chunks,
        } = guarded(|| scan(&input, options.batch_rows))?;
        let is_empty = inferred.fields().is_empty();
        let mut fields: Vec<Field> = Vec::new();
        for column in &columns {
            let field = inferred.field_with_name(column).map_err(|error| {
                Error::internal("an inferred column is gone").with_source(error)
            })?;
            fields.push(match options.type_of(column) {
                Some(data_type) => Field::new(column, data_type.clone(), true),
                None => without_null_type(field),
            });
        }
        if let Some((column, format)) = options.csv.date_formats.first() {
            return Err(Error::invalid(format!(
                "formats of dates are for CSV: column=`{column}` format=`{format}`"
            )));
        }
        for (column, data_type) in &options.types {
            match fields.iter_mut().find(|field| field.name() == column) {
                Some(field) => *field = Field::new(column, data_type.clone(), true),
                // Without any line the declaration is all that there is to know.
                None if is_empty => fields.push(Field::new(column, data_type.clone(), true)),
                None => {
                    let schema = Arc::new(Schema::new(fields));
                    return Err(unknown_column(&schema, column).context("declared type"));
                }
            }
        }
        if fields.is_empty() {
            return Err(Error::data(
                "the file is empty: expected at least one line with a JSON object",
            ));
        }
        let all = Arc::new(Schema::new(fields));
        let (_, schema) = project(&all, options.projection.as_deref())?;
        Ok(Self {
            name,
            reader: ChunkReader::new(input, chunks)?,
            schema,
            done: false,
        })
    }
}

impl Source for JsonSource {
    fn schema(&self) -> &SchemaRef {
        &self.schema
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
        let schema = Arc::clone(&self.schema);
        Ok(Some(Piece::new(
            Arc::clone(&self.name),
            chunk.len,
            move || {
                let bytes = bytes.load(&chunk)?;
                Ok(vec![decode(&schema, &chunk, &bytes)?])
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

/// What the first pass over the input finds.
struct Scan {
    inferred: Schema,
    /// The names of the columns, in the order in which they first appear.
    columns: Vec<String>,
    chunks: Vec<Chunk>,
}

fn scan(input: &TextInput, batch_rows: usize) -> Result<Scan> {
    let (limited, left) = RowLimited::new(input.open()?);
    let mut reader = BufReader::with_capacity(256 * 1024, limited);
    let mut chunker = Chunker::new(batch_rows);
    let (mut position, mut text) = (0_u64, Vec::new());
    let line = Cell::new(0_u64);
    // The inference takes an iterator of Arrow's results; our own error waits here meanwhile.
    let failure = RefCell::new(None);
    let (mut columns, mut known) = (Vec::new(), HashSet::new());
    let values = std::iter::from_fn(|| {
        loop {
            text.clear();
            let read = reader.read_until(b'\n', &mut text);
            left.set(super::text::ROW_BYTES_MAX);
            let outcome = match read {
                Ok(0) => return None,
                Err(error) => Err(read_error(error)),
                Ok(len) => {
                    let start = position;
                    position += len as u64;
                    line.set(line.get() + 1);
                    if text.trim_ascii().is_empty() {
                        continue;
                    }
                    chunker.add(start, position, line.get() - 1);
                    parse_line(&text).and_then(|value| {
                        // The parsed value has its names sorted; the text has them as they were written.
                        let names = value.as_object().into_iter().flat_map(Map::keys);
                        if names.into_iter().any(|name| !known.contains(name)) {
                            for name in parse_names(&text)? {
                                if known.insert(name.clone()) {
                                    columns.push(name);
                                }
                            }
                        }
                        Ok(value)
                    })
                }
            };
            return Some(outcome.map_err(|error| {
                *failure.borrow_mut() = Some(error);
                ArrowError::JsonError(String::new())
            }));
        }
    });
    let inferred = infer_json_schema_from_iterator(values);
    let at_line = |error: Error| error.context(format_args!("line {}", line.get()));
    match (failure.take(), inferred) {
        (Some(error), _) => Err(at_line(error)),
        (None, Err(error)) => Err(at_line(
            Error::data("a value does not fit the lines before").with_source(error),
        )),
        (None, Ok(inferred)) => Ok(Scan {
            inferred,
            columns,
            chunks: chunker.finish(),
        }),
    }
}

/// The names of an object's members, in the order of the text.
fn parse_names(text: &[u8]) -> Result<Vec<String>> {
    struct Names;

    impl<'de> Visitor<'de> for Names {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut names = Vec::new();
            while let Some((name, IgnoredAny)) = map.next_entry()? {
                names.push(name);
            }
            Ok(names)
        }
    }

    serde_json::Deserializer::from_slice(text)
        .deserialize_map(Names)
        .map_err(|error| Error::data("not a JSON object").with_source(error))
}

fn parse_line(text: &[u8]) -> Result<Value> {
    let value: Value = serde_json::from_slice(text)
        .map_err(|error| Error::data("malformed JSON").with_source(error))?;
    if !value.is_object() {
        return Err(Error::data("expected a JSON object in each line"));
    }
    Ok(value)
}

/// A column that was never anything but null is text: no format but Arrow's own has a null type.
fn without_null_type(field: &Field) -> Field {
    field
        .clone()
        .with_data_type(replace_null(field.data_type()))
}

fn replace_null(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Null => DataType::Utf8,
        DataType::List(item) => DataType::List(Arc::new(without_null_type(item))),
        DataType::Struct(fields) => DataType::Struct(
            fields
                .iter()
                .map(|field| Arc::new(without_null_type(field)))
                .collect::<Fields>(),
        ),
        other => other.clone(),
    }
}

fn decode(schema: &SchemaRef, chunk: &Chunk, bytes: &[u8]) -> Result<RecordBatch> {
    let batch = decode_lines(schema, bytes, chunk.num_rows);
    let error = match batch {
        Ok(Some(batch)) if batch.num_rows() == chunk.num_rows => return Ok(batch),
        Ok(_) => return Err(changed()),
        Err(error) => error,
    };
    // The decoder does not say where; the first line that fails alone is the place.
    let lines = bytes.split(|byte| *byte == b'\n');
    let bad = lines.zip(1..).find_map(|(line, number)| {
        decode_lines(schema, line, 1)
            .err()
            .map(|error| (number, error))
    });
    let (number, error) = bad.unwrap_or((1, error));
    let line: u64 = chunk.lines_before + number;
    Err(Error::data("a value does not fit its column's type")
        .with_source(error)
        .context(format_args!("line {line}")))
}

fn decode_lines(
    schema: &SchemaRef,
    bytes: &[u8],
    num_rows: usize,
) -> Result<Option<RecordBatch>, ArrowError> {
    let mut decoder = ReaderBuilder::new(Arc::clone(schema))
        // Room for one row more than there must be, so that all bytes are taken.
        .with_batch_size(num_rows + 1)
        // A column that holds numbers in one line and text in another was inferred as text.
        .with_coerce_primitive(true)
        .build_decoder()?;
    decoder.decode(bytes)?;
    // Ends a number or a line that the text does not end.
    decoder.decode(b"\n")?;
    decoder.flush()
}
