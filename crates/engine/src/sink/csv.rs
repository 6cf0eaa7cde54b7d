//! CSV and TSV. Nested columns are refused: there is no agreed way to write them.

use super::{Compression, Encoder, Output, SinkOptions, conform, encode_error, text::TextOutput};
use crate::{Error, Result, source::Format};
use arrow_array::RecordBatch;
use arrow_csv::{Writer, WriterBuilder};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

pub(super) struct CsvEncoder {
    writer: Writer<Watched>,
    /// How the output has refused bytes.
    failed: Arc<Mutex<Option<io::Error>>>,
    /// The schema that is written: without dictionaries.
    schema: SchemaRef,
}

impl CsvEncoder {
    pub(super) fn new(
        open: impl FnOnce() -> Result<Output>,
        schema: &SchemaRef,
        format: Format,
        compression: Option<Compression>,
        options: &SinkOptions,
    ) -> Result<Self> {
        let mut fields = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let data_type = plain_type(field.data_type());
            if data_type.is_nested() {
                return Err(Error::invalid(format!(
                    "CSV cannot hold a nested column, leave it out or write another format: \
                     column=`{}`, type=`{data_type}`",
                    field.name()
                )));
            }
            fields.push(Field::new(
                field.name(),
                data_type.clone(),
                field.is_nullable(),
            ));
        }
        if fields.is_empty() {
            return Err(Error::invalid("CSV needs at least one column"));
        }
        let default = if format == Format::Tsv { b'\t' } else { b',' };
        let delimiter = options.csv_delimiter.unwrap_or(default);
        let mut output = TextOutput::new(open, format, compression)?;
        if options.csv_header {
            // The writer would write its header with the first batch only, never without one.
            let names = fields.iter().map(Field::name);
            write_header(&mut output, names, delimiter)?;
        }
        let failed = Arc::<Mutex<Option<io::Error>>>::default();
        let writer = WriterBuilder::new()
            .with_header(false)
            .with_delimiter(delimiter)
            .with_null(options.csv_null_text.clone())
            .build(Watched {
                output,
                failed: Arc::clone(&failed),
            });
        Ok(Self {
            writer,
            failed,
            schema: Arc::new(Schema::new(fields)),
        })
    }
}

impl Encoder for CsvEncoder {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let batch = conform(batch, &self.schema)?;
        self.writer.write(&batch).map_err(|error| {
            let refused = self
                .failed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            refused.map_or_else(|| encode_error(error), encode_error)
        })
    }

    fn finish(self: Box<Self>) -> Result<Output> {
        self.writer.into_inner().output.finish()
    }
}

/// The output, remembering how it has failed: the CSV writer's errors keep an I/O error's text only.
struct Watched {
    output: TextOutput,
    failed: Arc<Mutex<Option<io::Error>>>,
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes).map_err(|error| {
            let copy = io::Error::from(error.kind());
            *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            copy
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// The type that a column is written as: a dictionary's or a run's values.
fn plain_type(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => plain_type(values),
        other => other,
    }
}

fn write_header<'a>(
    output: &mut TextOutput,
    names: impl Iterator<Item = &'a String>,
    delimiter: u8,
) -> Result<()> {
    let mut writer = csv::WriterBuilder::new()
        .delimiter(delimiter)
        .from_writer(output);
    writer.write_record(names).map_err(encode_error)?;
    writer.flush().map_err(encode_error)
}
