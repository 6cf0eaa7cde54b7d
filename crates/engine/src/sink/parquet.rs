//! Parquet. The columns of a batch are encoded side by side, on the current rayon pool.

use super::{
    ColumnForm, Compression, Encoder, Output, SinkOptions, encode_error, has_same_values,
    text::BUFFER_BYTES,
};
use crate::{
    Error, Result,
    source::{Format, guarded},
};
use arrow_array::{ArrayRef, RecordBatch, new_empty_array};
use arrow_cast::cast;
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::{
    arrow::{
        ArrowWriter,
        arrow_writer::{
            ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
        },
    },
    basic::{Compression as Codec, GzipLevel, ZstdLevel},
    errors::ParquetError,
    file::{metadata::KeyValue, properties::WriterProperties, writer::SerializedFileWriter},
};
use rayon::prelude::*;
use std::{io::BufWriter, sync::Arc};

pub(super) struct ParquetEncoder {
    writer: SerializedFileWriter<BufWriter<Output>>,
    /// The schema that is written: see [`stored_type`].
    schema: SchemaRef,
    /// How many leaves each column has: more than one if it is nested.
    num_leaves: Vec<usize>,
    row_group_rows: usize,
    row_groups: ArrowRowGroupWriterFactory,
    /// The leaves of the row group that is being encoded; empty before its first row.
    leaves: Vec<ArrowColumnWriter>,
    /// Rows that it has.
    num_rows: usize,
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
        let (writer, row_groups) =
            ArrowWriter::try_new(output, Arc::clone(&schema), Some(properties))
                .and_then(ArrowWriter::into_serialized_writer)
                .map_err(parquet_error)?;
        let num_leaves = schema.fields().iter().map(|field| {
            let empty = new_empty_array(field.data_type());
            compute_leaves(field, &empty).map(|leaves| leaves.len())
        });
        let num_leaves = num_leaves
            .collect::<Result<_, _>>()
            .map_err(parquet_error)?;
        Ok(Self {
            writer,
            schema,
            num_leaves,
            row_group_rows: options.row_group_rows.max(1),
            row_groups,
            leaves: Vec::new(),
            num_rows: 0,
        })
    }

    /// The columns in types that the writer takes for those of the schema.
    fn conform(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let columns = batch.columns().iter().zip(self.schema.fields());
        let columns = columns.map(|(column, field)| {
            let (found, wanted) = (column.data_type(), field.data_type());
            let is_plain = !matches!(found, DataType::Dictionary(..));
            if found == wanted || is_plain && has_same_values(found, wanted) {
                return Ok(ArrayRef::clone(column));
            }
            cast(column, wanted).map_err(encode_error)
        });
        columns.collect()
    }

    /// Encodes rows into the row group that is under way, which has room for them.
    fn encode(&mut self, columns: &[ArrayRef], start: usize, num_rows: usize) -> Result<()> {
        if self.leaves.is_empty() {
            let number = self.writer.flushed_row_groups().len();
            let leaves = self.row_groups.create_column_writers(number);
            self.leaves = leaves.map_err(parquet_error)?;
        }
        let mut parts = Vec::with_capacity(columns.len());
        let mut rest = self.leaves.as_mut_slice();
        let fields = self.schema.fields().iter().zip(columns);
        for ((field, column), &num_leaves) in fields.zip(&self.num_leaves) {
            let (leaves, after) = rest
                .split_at_mut_checked(num_leaves)
                .ok_or_else(|| Error::internal("a Parquet column without its leaves"))?;
            parts.push((field, column.slice(start, num_rows), leaves));
            rest = after;
        }
        let encoded = parts.into_par_iter().map(|(field, column, writers)| {
            guarded(|| {
                let leaves = compute_leaves(field, &column).map_err(parquet_error)?;
                for (writer, leaf) in writers.iter_mut().zip(&leaves) {
                    writer.write(leaf).map_err(parquet_error)?;
                }
                Ok(())
            })
        });
        // The error of the first column that has one, whoever was first.
        let encoded: Vec<Result<()>> = encoded.collect();
        encoded.into_iter().collect::<Result<()>>()?;
        self.num_rows += num_rows;
        Ok(())
    }

    /// Writes the row group that is under way, if there is one.
    fn end_row_group(&mut self) -> Result<()> {
        if self.leaves.is_empty() {
            return Ok(());
        }
        self.num_rows = 0;
        let leaves = std::mem::take(&mut self.leaves);
        let chunks = leaves
            .into_par_iter()
            .map(|leaf| guarded(|| leaf.close().map_err(parquet_error)));
        let chunks: Vec<Result<ArrowColumnChunk>> = chunks.collect();
        let mut group = self.writer.next_row_group().map_err(parquet_error)?;
        for chunk in chunks {
            chunk?
                .append_to_row_group(&mut group)
                .map_err(parquet_error)?;
        }
        group.close().map(|_| ()).map_err(parquet_error)
    }
}

impl Encoder for ParquetEncoder {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns = self.conform(batch)?;
        let mut start = 0;
        while start < batch.num_rows() {
            let room = self.row_group_rows - self.num_rows;
            let len = room.min(batch.num_rows() - start);
            self.encode(&columns, start, len)?;
            start += len;
            if self.num_rows == self.row_group_rows
                || self.num_bytes_kept() >= SinkOptions::ROW_GROUP_BYTES_MAX
            {
                self.end_row_group()?;
            }
        }
        Ok(())
    }

    fn prefers(&self) -> ColumnForm {
        ColumnForm::Plain
    }

    fn num_bytes_kept(&self) -> usize {
        self.leaves.iter().map(ArrowColumnWriter::memory_size).sum()
    }

    fn finish(mut self: Box<Self>) -> Result<Output> {
        self.end_row_group()?;
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
