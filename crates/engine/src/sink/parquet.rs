//! Parquet.

use super::{Compression, Encoder, Output, SinkOptions, conform, encode_error, text::BUFFER_BYTES};
use crate::{
    Error, Result,
    source::{Format, guarded},
};
use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression as Codec, GzipLevel, ZstdLevel},
    errors::ParquetError,
    file::{metadata::KeyValue, properties::WriterProperties},
};
use std::{io::BufWriter, sync::Arc};

pub(super) struct ParquetEncoder {
    writer: ArrowWriter<BufWriter<Output>>,
    /// The schema that is written: see [`stored_type`].
    schema: SchemaRef,
}

/// The type in which a column is written, so that every reader reads what was meant.
///
/// Parquet has no seconds and one kind of date: written as they are, such columns are bare integers to all but Arrow's own readers. The
/// writer takes dictionaries of plain strings and bytes; of others it writes wrong bytes or panics.
fn stored_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => match &**values {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary => {
                data_type.clone()
            }
            values => stored_type(values),
        },
        DataType::Timestamp(TimeUnit::Second, zone) => {
            DataType::Timestamp(TimeUnit::Millisecond, zone.clone())
        }
        DataType::Time32(TimeUnit::Second) => DataType::Time32(TimeUnit::Millisecond),
        DataType::Date64 => DataType::Date32,
        data_type => data_type.clone(),
    }
}

impl ParquetEncoder {
    pub(super) fn new(
        open: impl FnOnce() -> Result<Output>,
        schema: &SchemaRef,
        compression: Option<Compression>,
        options: &SinkOptions,
    ) -> Result<Self> {
        let codec = match compression {
            None | Some(Compression::Zstd) => Codec::ZSTD(ZstdLevel::default()),
            Some(Compression::Uncompressed) => Codec::UNCOMPRESSED,
            Some(Compression::Snappy) => Codec::SNAPPY,
            Some(Compression::Lz4) => Codec::LZ4_RAW,
            Some(Compression::Gzip) => Codec::GZIP(GzipLevel::default()),
        };
        if schema.fields().is_empty() {
            return Err(no_columns());
        }
        let pairs: Vec<KeyValue> = options
            .metadata
            .iter()
            .map(|(key, value)| KeyValue::new(key.clone(), value.clone()))
            .collect();
        let properties = WriterProperties::builder()
            .set_compression(codec)
            .set_max_row_group_row_count(Some(options.row_group_rows.max(1)))
            .set_key_value_metadata((!pairs.is_empty()).then_some(pairs))
            .set_created_by(concat!("darner version ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let fields: Vec<Field> = schema
            .fields()
            .iter()
            .map(|field| {
                field
                    .as_ref()
                    .clone()
                    .with_data_type(stored_type(field.data_type()))
            })
            .collect();
        let metadata = schema.metadata().clone();
        let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
        // Before a file is opened for it: whether Parquet has the types. The writer panics on some that it has not.
        guarded(|| {
            ArrowWriter::try_new(std::io::sink(), Arc::clone(&schema), None).map_err(parquet_error)
        })
        .map_err(|error| {
            Error::invalid("Parquet cannot hold a column's type; leave it out or write .arrow")
                .with_source(error)
        })?;
        let output = BufWriter::with_capacity(BUFFER_BYTES, open()?);
        let writer = ArrowWriter::try_new(output, Arc::clone(&schema), Some(properties))
            .map_err(parquet_error)?;
        Ok(Self { writer, schema })
    }
}

impl Encoder for ParquetEncoder {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let batch = conform(batch, &self.schema)?;
        guarded(|| self.writer.write(&batch).map_err(parquet_error))?;
        if self.writer.memory_size() >= SinkOptions::ROW_GROUP_BYTES_MAX {
            self.writer.flush().map_err(parquet_error)?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Output> {
        let buffered = self.writer.into_inner().map_err(parquet_error)?;
        buffered
            .into_inner()
            .map_err(|error| encode_error(error.into_error()))
    }
}

fn no_columns() -> Error {
    Error::invalid(format!(
        "{} needs at least one column",
        Format::Parquet.title()
    ))
}

/// A Parquet error whose I/O error, if there is one, can be found again.
fn parquet_error(error: ParquetError) -> Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
            Ok(io) => encode_error(*io),
            Err(other) => Error::invalid("the format cannot hold these values").with_source(other),
        },
        other => encode_error(other),
    }
}
