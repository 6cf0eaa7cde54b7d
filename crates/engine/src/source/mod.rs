//! Inputs: a [`Source`] gives an input's pieces in order, and each [`Piece`] decodes itself.
//!
//! A source does what must be done in order (framing, reading) on the caller's thread, and leaves
//! what can be done apart (decompression, parsing, validation) to its pieces, which workers decode.
//! All decoding of bytes that others wrote happens behind [`guard`]; every length taken from an
//! input is compared with the input's size before it is used to allocate.

mod csv;
mod data_type;
mod dates;
mod expand;
mod guard;
mod infer;
mod ipc;
mod ipc_message;
mod json;
mod mmap;
mod open;
mod options;
mod parquet;
mod parquet_check;
mod sources;
mod text;

pub use data_type::parse_data_type;
pub use expand::{expand, format_of};
pub use open::{from_reader, open, open_as};
pub use options::{CsvOptions, Format, SourceOptions};
pub use sources::{LocalFiles, MappedSource, Opener, Sources, open_all, open_all_with};

pub(crate) use guard::guarded;
pub(crate) use options::KNOWN_EXTENSIONS;

use crate::{Error, Result};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use std::{fmt, sync::Arc};

/// What a piece runs.
type Decode = Box<dyn FnOnce() -> Result<Vec<RecordBatch>> + Send>;

/// One part of an input, decoded by one worker. Owns or shares all that it needs.
pub struct Piece {
    name: Arc<str>,
    decode: Decode,
    /// How many bytes of the input the piece stands for: the sum over all pieces is what
    /// [`Source::num_bytes`] promised, more or less. For progress only.
    pub num_bytes: u64,
}

impl Piece {
    /// Makes a piece; `name` is the input's, for messages.
    pub fn new(
        name: Arc<str>,
        num_bytes: u64,
        decode: impl FnOnce() -> Result<Vec<RecordBatch>> + Send + 'static,
    ) -> Self {
        Self {
            name,
            decode: Box::new(decode),
            num_bytes,
        }
    }

    /// The input's name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Decodes the piece into batches of the source's schema.
    ///
    /// # Errors
    /// `Data` for malformed bytes, with the input's name and the place. The rest of the input may
    /// still be decoded.
    /// # Panics
    /// Never on data.
    pub fn decode(self) -> Result<Vec<RecordBatch>> {
        guarded(self.decode).map_err(|error| error.context(&self.name))
    }

    /// The same piece with `then` applied to its batches.
    fn map(
        self,
        then: impl FnOnce(Vec<RecordBatch>) -> Result<Vec<RecordBatch>> + Send + 'static,
    ) -> Self {
        let decode = self.decode;
        Self {
            decode: Box::new(move || then(decode()?)),
            ..self
        }
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piece")
            .field("name", &self.name)
            .field("num_bytes", &self.num_bytes)
            .finish_non_exhaustive()
    }
}

/// An input of batches that have one schema.
pub trait Source: Send {
    /// The schema of all batches, after projection.
    fn schema(&self) -> &SchemaRef;

    /// The next piece in input order, or `None` at the end.
    ///
    /// Cheap where the format allows it: the work is in [`Piece::decode`].
    ///
    /// # Errors
    /// `Data` or `Unavailable`, with the input's name and the place. The source is at its end
    /// afterwards: a caller that goes on gets `None`.
    fn next_piece(&mut self) -> Result<Option<Piece>>;

    /// How many bytes the input has in all, as stored; `None` where that is not known (a pipe).
    fn num_bytes(&self) -> Option<u64>;

    /// The input's name for messages: the path, or `standard input`.
    fn name(&self) -> &str;
}

/// Cuts a batch into slices of at most `batch_rows` rows, without a copy. Empty batches vanish.
fn split(batch: &RecordBatch, batch_rows: usize, batches: &mut Vec<RecordBatch>) {
    let step = batch_rows.max(1);
    let mut start = 0;
    while start < batch.num_rows() {
        let len = step.min(batch.num_rows() - start);
        batches.push(batch.slice(start, len));
        start += len;
    }
}

/// A `Data` error that keeps what a decoder said.
fn malformed(
    place: impl fmt::Display,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::data(format!("{place}: malformed data")).with_source(error)
}
