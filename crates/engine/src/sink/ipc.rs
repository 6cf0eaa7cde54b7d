//! Arrow IPC files and streams.
//!
//! A dictionary that all batches share is written once: the writer compares by address first. When a
//! batch brings another one, a stream replaces it. A file can't, because its dictionaries hold for
//! all batches whatever the order; there the dictionary grows by what is new (a delta), and the
//! batch's keys are translated.

use super::{
    ColumnForm, Compression, Encoder, Output, encode_error, no_such_compression,
    view::compact_views,
};
use crate::{Error, ErrorKind, Result, source::Format};
use arrow_array::{
    AnyDictionaryArray, Array, ArrayRef, DictionaryArray, RecordBatch, RecordBatchOptions,
    UInt64Array, cast::AsArray, downcast_integer,
};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_ipc::{
    CompressionType,
    writer::{DictionaryHandling, FileWriter, IpcWriteOptions, StreamWriter},
};
use arrow_row::{OwnedRow, RowConverter, SortField};
use arrow_schema::{DataType, SchemaRef};
use arrow_select::{concat::concat, take::take};
use std::{collections::HashMap, io::BufWriter, sync::Arc};

/// Bytes that are gathered before they go to the system: what stands between the buffers of columns. These are longer, and
/// go there uncopied.
const HEADER_BYTES: usize = 16 << 10;

fn write_options(format: Format, compression: Option<Compression>) -> Result<IpcWriteOptions> {
    let codec = match compression {
        None | Some(Compression::Uncompressed) => None,
        Some(Compression::Lz4) => Some(CompressionType::LZ4_FRAME),
        Some(Compression::Zstd) => Some(CompressionType::ZSTD),
        Some(other) => return Err(no_such_compression(format, other)),
    };
    IpcWriteOptions::default()
        .try_with_compression(codec)
        .map_err(encode_error)
}

/// Writes an IPC stream.
pub(super) struct StreamEncoder {
    writer: StreamWriter<BufWriter<Output>>,
}

impl StreamEncoder {
    pub(super) fn new(
        open: impl FnOnce() -> Result<Output>,
        schema: &SchemaRef,
        compression: Option<Compression>,
    ) -> Result<Self> {
        let options = write_options(Format::ArrowStream, compression)?;
        let output = BufWriter::with_capacity(HEADER_BYTES, open()?);
        let writer = StreamWriter::try_new_with_options(output, schema, options);
        Ok(Self {
            writer: writer.map_err(encode_error)?,
        })
    }
}

impl Encoder for StreamEncoder {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer
            .write(&compact_views(batch.clone()))
            .map_err(encode_error)
    }

    fn prefers(&self) -> ColumnForm {
        ColumnForm::Compact
    }

    fn finish(mut self: Box<Self>) -> Result<Output> {
        self.writer.finish().map_err(encode_error)?;
        let buffered = self.writer.into_inner().map_err(encode_error)?;
        buffered
            .into_inner()
            .map_err(|error| encode_error(error.into_error()))
    }
}

/// Writes an IPC file.
pub(super) struct FileEncoder {
    writer: FileWriter<BufWriter<Output>>,
    /// For each column that is a dictionary what has been written of it.
    dictionaries: Vec<Option<GrowingDictionary>>,
}

impl FileEncoder {
    pub(super) fn new(
        open: impl FnOnce() -> Result<Output>,
        schema: &SchemaRef,
        compression: Option<Compression>,
    ) -> Result<Self> {
        let options = write_options(Format::ArrowFile, compression)?
            .with_dictionary_handling(DictionaryHandling::Delta);
        let output = BufWriter::with_capacity(HEADER_BYTES, open()?);
        let writer = FileWriter::try_new_with_options(output, schema, options);
        let dictionaries = vec![None; schema.fields().len()];
        Ok(Self {
            writer: writer.map_err(encode_error)?,
            dictionaries,
        })
    }
}

impl Encoder for FileEncoder {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let (schema, mut columns, num_rows) = compact_views(batch.clone()).into_parts();
        for ((column, known), field) in columns
            .iter_mut()
            .zip(&mut self.dictionaries)
            .zip(schema.fields())
        {
            if matches!(column.data_type(), DataType::Dictionary(..)) {
                *column = unify(column, known)
                    .map_err(|error| error.context(format_args!("column `{}`", field.name())))?;
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(num_rows));
        RecordBatch::try_new_with_options(schema, columns, &options)
            .and_then(|batch| self.writer.write(&batch))
            .map_err(encode_error)
    }

    fn prefers(&self) -> ColumnForm {
        ColumnForm::Compact
    }

    fn finish(mut self: Box<Self>) -> Result<Output> {
        self.writer.finish().map_err(encode_error)?;
        let buffered = self.writer.into_inner().map_err(encode_error)?;
        buffered
            .into_inner()
            .map_err(|error| encode_error(error.into_error()))
    }
}

/// A dictionary that later batches may add to.
#[derive(Clone)]
struct GrowingDictionary {
    values: ArrayRef,
    /// Where each value is; built when the first other dictionary comes.
    places: Option<Arc<Places>>,
}

struct Places {
    converter: RowConverter,
    by_value: HashMap<OwnedRow, u64>,
}

/// The column with its keys into the dictionary that the file has, which grows when it must.
fn unify(column: &ArrayRef, known: &mut Option<GrowingDictionary>) -> Result<ArrayRef> {
    let dictionary = column.as_any_dictionary();
    let values = dictionary.values();
    let Some(known) = known else {
        *known = Some(GrowingDictionary {
            values: Arc::clone(values),
            places: None,
        });
        return Ok(Arc::clone(column));
    };
    if known.values.to_data().ptr_eq(&values.to_data()) {
        return Ok(Arc::clone(column));
    }
    let mapping = known.add(values)?;
    with_keys(dictionary, &mapping, &known.values)
}

impl GrowingDictionary {
    /// Adds what is new of `values`; gives for each of them its place.
    fn add(&mut self, values: &ArrayRef) -> Result<UInt64Array> {
        let mut places = match self.places.take().and_then(Arc::into_inner) {
            Some(places) => places,
            None => Places::of(&self.values)?,
        };
        let rows = places
            .converter
            .convert_columns(&[Arc::clone(values)])
            .map_err(encode_error)?;
        let mut next = self.values.len() as u64;
        let mut new = Vec::new();
        let mut mapping = Vec::with_capacity(values.len());
        for (idx, row) in rows.iter().enumerate() {
            let place = *places.by_value.entry(row.owned()).or_insert_with(|| {
                new.push(idx as u64);
                next += 1;
                next - 1
            });
            mapping.push(place);
        }
        if !new.is_empty() {
            let added = take(values, &UInt64Array::from(new), None).map_err(encode_error)?;
            self.values = concat(&[&self.values, &added]).map_err(encode_error)?;
        }
        self.places = Some(Arc::new(places));
        Ok(UInt64Array::from(mapping))
    }
}

impl Places {
    fn of(values: &ArrayRef) -> Result<Self> {
        let converter = RowConverter::new(vec![SortField::new(values.data_type().clone())])
            .map_err(encode_error)?;
        let rows = converter
            .convert_columns(&[Arc::clone(values)])
            .map_err(encode_error)?;
        let mut by_value = HashMap::with_capacity(values.len());
        for (row, place) in rows.iter().zip(0..) {
            by_value.entry(row.owned()).or_insert(place);
        }
        Ok(Self {
            converter,
            by_value,
        })
    }
}

/// A dictionary column with each key replaced by what `mapping` says, over `values`.
fn with_keys(
    dictionary: &dyn AnyDictionaryArray,
    mapping: &UInt64Array,
    values: &ArrayRef,
) -> Result<ArrayRef> {
    let keys = dictionary.keys();
    let key_type = keys.data_type().clone();
    let places = take(mapping, keys, None).map_err(encode_error)?;
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let keys = cast_with_options(&places, &key_type, &options).map_err(|error| {
        Error::new(
            ErrorKind::Resource,
            format!(
                "the batches' dictionaries together have too many values for the key type, write \
                 plain values or an Arrow IPC stream: values=`{}`, key type=`{key_type}`",
                values.len()
            ),
        )
        .with_source(error)
    })?;
    macro_rules! build {
        ($t:ty) => {
            DictionaryArray::<$t>::try_new(keys.as_primitive::<$t>().clone(), Arc::clone(values))
                .map(|array| Arc::new(array) as ArrayRef)
                .map_err(encode_error)
        };
    }
    downcast_integer! {
        key_type => (build),
        other => Err(Error::invalid(format!("not a dictionary key type: type=`{other}`"))),
    }
}
