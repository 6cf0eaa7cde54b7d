//! Outputs: a [`Sink`] takes batches in order and appears, whole, when it is finished.
//!
//! A format's encoder writes into an [`Output`], which counts bytes and knows whether it is a file
//! that becomes visible at the end ([`atomic`]), a pipe, or any other writer.

mod atomic;
mod csv;
mod ipc;
mod json;
mod output;
mod parquet;
mod text;
mod view;

pub use self::view::compact_views;

use crate::{
    Error, ErrorKind, Result,
    source::{Format, KNOWN_EXTENSIONS, format_of},
};
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_cast::cast;
use arrow_schema::{DataType, FieldRef, Schema, SchemaRef};
use output::Output;
use std::{
    error::Error as StdError,
    fmt,
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// A consumer of batches, in order.
///
/// Dropping a sink without [`finish`](Self::finish) leaves nothing behind where the output is a
/// file; what went to a pipe has gone.
pub trait Sink: Send {
    /// Writes a batch of the sink's schema. May work on the current rayon pool: hold no lock that its tasks want.
    ///
    /// # Errors
    /// `Invalid` for another schema or a value that the format can't hold; `Unavailable` when the
    /// system refuses (disk full, file too large, closed pipe). The output can't be finished
    /// afterwards.
    fn write(&mut self, batch: &RecordBatch) -> Result<()>;

    /// Completes the output: all of its bytes are written, and it has yet to become visible. So several outputs can
    /// be ended before the first of them appears.
    ///
    /// # Errors
    /// As [`write`](Self::write); what stood at the path before is then untouched.
    fn seal(self: Box<Self>) -> Result<Sealed>;

    /// Completes the output and makes it visible: on disk before it has its name.
    ///
    /// # Errors
    /// As [`write`](Self::write); what stood at the path before is then untouched.
    fn finish(self: Box<Self>) -> Result<Written> {
        self.seal()?.commit()
    }

    /// Bytes that the output has so far, those among them that wait to be encoded as a whole.
    fn num_bytes(&self) -> u64;

    /// What whoever makes batches for this sink can do to have them written sooner. Need not be done.
    fn prefers(&self) -> ColumnForm {
        ColumnForm::Any
    }
}

/// How columns come to a sink that are views or dictionaries in its schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ColumnForm {
    /// As they are.
    #[default]
    Any,
    /// As plain values, though the schema has another type for them: the format stores values, not how Arrow holds
    /// them. Its readers get the type of the schema. No other sink takes them so.
    Plain,
    /// Views into buffers that hold little else, see [`compact_views`].
    Compact,
}

/// An output that is complete and not visible yet. Dropping it leaves nothing behind.
pub struct Sealed {
    commit: Box<dyn FnOnce() -> Result<Written> + Send>,
}

impl Sealed {
    /// An output that becomes visible by `commit`.
    pub fn new(commit: impl FnOnce() -> Result<Written> + Send + 'static) -> Self {
        Self {
            commit: Box::new(commit),
        }
    }

    /// Makes the output visible: on disk before it has its name.
    ///
    /// # Errors
    /// As [`Sink::finish`].
    pub fn commit(self) -> Result<Written> {
        (self.commit)()
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").finish_non_exhaustive()
    }
}

/// What a finished sink has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Rows, over all batches.
    pub num_rows: u64,
    /// Bytes of output, as stored.
    pub num_bytes: u64,
}

/// How values, or a text as a whole, are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Uncompressed,
    /// LZ4: Arrow IPC, Parquet.
    Lz4,
    /// Zstandard: all formats.
    Zstd,
    /// Snappy: Parquet.
    Snappy,
    /// Gzip: Parquet, CSV, TSV, NDJSON.
    Gzip,
}

/// How to write an output. Plain values; the default follows the file name.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SinkOptions {
    /// The format. `None`: by the file name's extension; an Arrow IPC stream for standard output.
    pub format: Option<Format>,
    /// The compression. `None`: by the extension (`.gz`, `.zst`) for text, Zstandard for Parquet,
    /// none for Arrow IPC.
    pub compression: Option<Compression>,
    /// Pairs that are added to the schema's metadata (Arrow IPC, Parquet; text has no place for
    /// them).
    pub metadata: Vec<(String, String)>,
    /// The byte between CSV fields. `None`: a comma, for TSV a tab.
    pub csv_delimiter: Option<u8>,
    /// Whether CSV begins with the column names.
    pub csv_header: bool,
    /// What CSV writes for null.
    pub csv_null_text: String,
    /// Rows of a Parquet row group, at most; a group also ends at
    /// [`ROW_GROUP_BYTES_MAX`](Self::ROW_GROUP_BYTES_MAX).
    pub row_group_rows: usize,
}

impl SinkOptions {
    /// Encoded bytes of a Parquet row group that is still in memory, at most.
    pub const ROW_GROUP_BYTES_MAX: usize = 256 << 20;
}

impl Default for SinkOptions {
    fn default() -> Self {
        Self {
            format: None,
            compression: None,
            metadata: Vec::new(),
            csv_delimiter: None,
            csv_header: true,
            csv_null_text: String::new(),
            row_group_rows: 1 << 20,
        }
    }
}

/// Begins an output at `path`; `-` is standard output.
///
/// A file is invisible until it is finished, and then replaces what stood there in one step. A
/// symbolic link is followed; a pipe or a device is written to directly.
///
/// # Errors
/// `NotFound` for a missing directory; `Invalid` for a directory as target, an unknown extension, or
/// a column type that the format can't hold; `Unavailable` when the system refuses. All at once,
/// before any work is done.
pub fn create(path: &Path, schema: &SchemaRef, options: &SinkOptions) -> Result<Box<dyn Sink>> {
    if path.as_os_str() == "-" {
        return to_writer("standard output", Box::new(io::stdout()), schema, options);
    }
    let open = || Output::create(path);
    begin_named(path, path.display().to_string(), open, schema, options)
}

/// Begins an output into a writer that stands for a file: `known_as` tells format and compression, as the name of a file
/// does for [`create`]; `name` is for messages.
///
/// # Errors
/// As [`create`].
pub fn create_into(
    known_as: &Path,
    name: &str,
    writer: Box<dyn Write + Send>,
    schema: &SchemaRef,
    options: &SinkOptions,
) -> Result<Box<dyn Sink>> {
    let open = || Ok(Output::writer(writer));
    begin_named(known_as, name.to_owned(), open, schema, options)
}

/// Finds out whether [`create`] would take a path's format, these columns and options. Nothing is opened or made.
///
/// # Errors
/// `Invalid`, as [`create`].
pub fn check_output(path: &Path, schema: &SchemaRef, options: &SinkOptions) -> Result<()> {
    if path.as_os_str() == "-" {
        return to_writer("standard output", Box::new(io::sink()), schema, options).map(|_| ());
    }
    let open = || Ok(Output::writer(Box::new(io::sink())));
    begin_named(path, path.display().to_string(), open, schema, options).map(|_| ())
}

/// Begins an output whose format and compression its name tells, unless the options do.
fn begin_named(
    path: &Path,
    name: String,
    open: impl FnOnce() -> Result<Output>,
    schema: &SchemaRef,
    options: &SinkOptions,
) -> Result<Box<dyn Sink>> {
    let format = options.format.or_else(|| format_of(path)).ok_or_else(|| {
        Error::invalid(format!(
            "{name}: unknown format: name it with the format option, or use one of these \
             extensions: `{KNOWN_EXTENSIONS}`"
        ))
    })?;
    let extension = path
        .extension()
        .map(|e| e.to_string_lossy().to_ascii_lowercase());
    let by_name = match extension.as_deref() {
        Some("gz") => Some(Compression::Gzip),
        Some("zst") => Some(Compression::Zstd),
        _ => None,
    };
    let compression = options.compression.or(by_name);
    FormatSink::begin(name, format, compression, open, schema, options)
}

/// Writes a small file that appears whole, as outputs do; `-` is standard output.
///
/// # Errors
/// As [`create`]; what stood at the path before is then untouched.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut output = if path.as_os_str() == "-" {
        Output::writer(Box::new(io::stdout()))
    } else {
        Output::create(path).map_err(|error| error.context(path.display()))?
    };
    output
        .write_all(bytes)
        .map_err(encode_error)
        .and_then(|()| output.commit())
        .map(|_| ())
        .map_err(|error| error.context(path.display()))
}

/// Begins an output into any writer; `name` is for messages. The format is an Arrow IPC stream unless
/// [`SinkOptions::format`] says otherwise.
///
/// # Errors
/// As [`create`].
pub fn to_writer(
    name: &str,
    writer: Box<dyn Write + Send>,
    schema: &SchemaRef,
    options: &SinkOptions,
) -> Result<Box<dyn Sink>> {
    let format = options.format.unwrap_or(Format::ArrowStream);
    let open = || Ok(Output::writer(writer));
    FormatSink::begin(
        name.to_owned(),
        format,
        options.compression,
        open,
        schema,
        options,
    )
}

/// What a format does with batches of one schema.
trait Encoder: Send {
    fn write(&mut self, batch: &RecordBatch) -> Result<()>;
    /// Bytes that are kept to be written later.
    fn num_bytes_kept(&self) -> usize {
        0
    }
    /// As [`Sink::prefers`].
    fn prefers(&self) -> ColumnForm {
        ColumnForm::Any
    }
    /// Writes what the format has at its end, and gives the output back, flushed.
    fn finish(self: Box<Self>) -> Result<Output>;
}

/// Any encoder, with what all formats have in common.
struct FormatSink {
    name: String,
    schema: SchemaRef,
    /// `None` after a failure: what is half written must not be finished.
    encoder: Option<Box<dyn Encoder>>,
    num_rows: u64,
    /// Counted by the output.
    num_bytes: Arc<AtomicU64>,
}

impl FormatSink {
    fn begin(
        name: String,
        format: Format,
        compression: Option<Compression>,
        open: impl FnOnce() -> Result<Output>,
        schema: &SchemaRef,
        options: &SinkOptions,
    ) -> Result<Box<dyn Sink>> {
        let mut metadata = schema.metadata().clone();
        metadata.extend(options.metadata.iter().cloned());
        let schema = Arc::new(Schema::new_with_metadata(schema.fields().clone(), metadata));
        let num_bytes = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&num_bytes);
        let open = || Ok(open()?.with_counter(counter));
        let begin = || -> Result<Box<dyn Encoder>> {
            // What the format can't hold is refused before a file is opened.
            Ok(match format {
                Format::ArrowFile => Box::new(ipc::FileEncoder::new(open, &schema, compression)?),
                Format::ArrowStream => {
                    Box::new(ipc::StreamEncoder::new(open, &schema, compression)?)
                }
                Format::Parquet => Box::new(parquet::ParquetEncoder::new(
                    open,
                    &schema,
                    compression,
                    options,
                )?),
                Format::Csv | Format::Tsv => Box::new(csv::CsvEncoder::new(
                    open,
                    &schema,
                    format,
                    compression,
                    options,
                )?),
                Format::NdJson => Box::new(json::JsonEncoder::new(open, &schema, compression)?),
            })
        };
        let encoder = begin().map_err(|error| error.context(&name))?;
        Ok(Box::new(Self {
            name,
            schema,
            encoder: Some(encoder),
            num_rows: 0,
            num_bytes,
        }))
    }

    /// The batch under the sink's own schema, which has more metadata. A column with the values of its type, in another
    /// form, keeps that if the format takes it.
    fn conform(&self, batch: &RecordBatch, takes_plain: bool) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = batch.columns().to_vec();
        let names = |schema: &Schema| -> Vec<String> {
            schema
                .fields()
                .iter()
                .map(|field| field.name().clone())
                .collect()
        };
        let schema = batch.schema();
        if !Arc::ptr_eq(&schema, &self.schema) && names(&schema) != names(&self.schema) {
            return Err(Error::invalid(format!(
                "a batch has other columns than the output: got=`{}`, expected=`{}`",
                names(&schema).join(", "),
                names(&self.schema).join(", ")
            )));
        }
        let fits = |(column, field): (&ArrayRef, &FieldRef)| {
            column.data_type() == field.data_type()
                || !has_same_values(column.data_type(), field.data_type())
        };
        let fields = self.schema.fields();
        let schema = if takes_plain && !columns.iter().zip(fields).all(fits) {
            let fields = columns.iter().zip(fields).map(|(column, field)| {
                if fits((column, field)) {
                    return Arc::clone(field);
                }
                let data_type = column.data_type().clone();
                Arc::new(field.as_ref().clone().with_data_type(data_type))
            });
            let fields: Vec<FieldRef> = fields.collect();
            let metadata = self.schema.metadata().clone();
            Arc::new(Schema::new_with_metadata(fields, metadata))
        } else {
            Arc::clone(&self.schema)
        };
        RecordBatch::try_new_with_options(schema, columns, &options).map_err(|error| {
            Error::invalid("a batch has other column types than the output").with_source(error)
        })
    }
}

impl Sink for FormatSink {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut encoder = self
            .encoder
            .take()
            .ok_or_else(|| failed_before(&self.name))?;
        if batch.num_rows() > 0 {
            self.conform(batch, encoder.prefers() == ColumnForm::Plain)
                .and_then(|batch| encoder.write(&batch))
                .map_err(|error| error.context(&self.name))?;
        }
        self.encoder = Some(encoder);
        self.num_rows += batch.num_rows() as u64;
        Ok(())
    }

    fn seal(self: Box<Self>) -> Result<Sealed> {
        let encoder = self.encoder.ok_or_else(|| failed_before(&self.name))?;
        let output = encoder
            .finish()
            .map_err(|error| error.context(&self.name))?;
        let (name, num_rows) = (self.name, self.num_rows);
        Ok(Sealed::new(move || {
            let num_bytes = output.commit().map_err(|error| error.context(&name))?;
            Ok(Written {
                num_rows,
                num_bytes,
            })
        }))
    }

    fn num_bytes(&self) -> u64 {
        let kept = self
            .encoder
            .as_ref()
            .map_or(0, |encoder| encoder.num_bytes_kept());
        self.num_bytes.load(Ordering::Relaxed) + kept as u64
    }

    fn prefers(&self) -> ColumnForm {
        let encoder = self.encoder.as_ref();
        encoder.map_or_else(ColumnForm::default, |encoder| encoder.prefers())
    }
}

/// Whether columns of these types hold the same kind of values, be it as views, in dictionaries or plain.
fn has_same_values(a: &DataType, b: &DataType) -> bool {
    let values = |data_type: &DataType| match data_type {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        data_type => data_type.clone(),
    };
    match (a, b) {
        (DataType::Dictionary(_, a), b) | (b, DataType::Dictionary(_, a)) => has_same_values(a, b),
        (a, b) => values(a) == values(b),
    }
}

fn failed_before(name: &str) -> Error {
    Error::invalid(format!(
        "{name}: the output has failed before and can't be continued"
    ))
}

/// The batch with its columns cast to the types of a schema with the same columns.
fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| {
            if column.data_type() == field.data_type() {
                Ok(Arc::clone(column))
            } else {
                cast(column, field.data_type()).map_err(encode_error)
            }
        })
        .collect::<Result<Vec<ArrayRef>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(encode_error)
}

/// Turns a writer's error into ours: `Unavailable` when there is an I/O error at its bottom.
fn encode_error(error: impl StdError + Send + Sync + 'static) -> Error {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    let is_io = loop {
        match cause {
            None => break false,
            Some(inner) if inner.is::<io::Error>() => break true,
            Some(inner) => cause = inner.source(),
        }
    };
    if is_io {
        Error::new(ErrorKind::Unavailable, "cannot write").with_source(error)
    } else {
        Error::invalid("the format cannot hold these values").with_source(error)
    }
}

/// The error for a compression that a format does not have.
fn no_such_compression(format: Format, compression: Compression) -> Error {
    Error::invalid(format!(
        "the format does not have this compression: format=`{format}`, \
         compression=`{compression:?}`"
    ))
}
