//! Checks of one Arrow IPC message against the bytes that it claims, and its decoding.
//!
//! The reader of `arrow-ipc` trusts lengths: it slices by them (a panic, which [`super::guard`]
//! turns into an error) and allocates by them (an abort, which nothing can). What this file checks
//! before it calls that reader is therefore everything that an allocation follows from: row counts,
//! buffer extents, and the uncompressed lengths that precede compressed buffers.

use super::malformed;
use crate::{Error, Result};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::{
    CompressionType, Message, MessageHeader, reader::RecordBatchDecoder, root_as_message,
};
use arrow_schema::SchemaRef;
use std::{collections::HashMap, sync::Arc};

/// The dictionaries that are in force, by their number in the schema.
pub(super) type Dictionaries = HashMap<i64, ArrayRef>;

/// The most rows that one record batch may claim. Columns without bytes of their own (type null, no
/// columns at all) would otherwise let 100 bytes stand for 2^63 rows.
const BATCH_ROWS_MAX: i64 = i32::MAX as i64;

/// How many bytes one compressed byte can become. LZ4 repeats at most 255 bytes per byte; a Zstandard
/// block of 4 bytes stands for at most 128 KiB.
const LZ4_RATIO_MAX: u64 = 256;
const ZSTD_RATIO_MAX: u64 = 32 * 1024;

/// One message of an IPC file or stream: its verified flatbuffer and its body.
#[derive(Clone)]
pub(super) struct IpcMessage {
    metadata: Buffer,
    body: Buffer,
}

impl IpcMessage {
    /// Takes a message apart into its flatbuffer (no length prefix) and its body.
    ///
    /// # Errors
    /// `Data` when the flatbuffer does not verify.
    pub(super) fn new(metadata: Buffer, body: Buffer) -> Result<Self> {
        debug_assert_eq!(metadata.as_ptr().align_offset(8), 0, "see `aligned`");
        parse(&metadata)?;
        Ok(Self { metadata, body })
    }

    /// The body's length that a flatbuffer announces.
    pub(super) fn body_len(metadata: &[u8]) -> Result<u64> {
        let len = parse(metadata)?.bodyLength();
        u64::try_from(len).map_err(|_| Error::data(format!("negative body length: length=`{len}`")))
    }

    /// Flatbuffer and body together.
    pub(super) fn num_bytes(&self) -> u64 {
        (self.metadata.len() + self.body.len()) as u64
    }

    pub(super) fn kind(&self) -> Result<MessageHeader> {
        Ok(parse(&self.metadata)?.header_type())
    }

    /// The schema that the message holds.
    pub(super) fn schema(&self) -> Result<arrow_schema::Schema> {
        let message = parse(&self.metadata)?;
        let schema = message
            .header_as_schema()
            .ok_or_else(|| Error::data("the first message is not a schema"))?;
        schema_of(schema)
    }

    /// Decodes a record batch; every value is validated.
    pub(super) fn record_batch(
        &self,
        schema: &SchemaRef,
        dictionaries: &Dictionaries,
        projection: Option<&[usize]>,
    ) -> Result<RecordBatch> {
        let message = parse(&self.metadata)?;
        let batch = message
            .header_as_record_batch()
            .ok_or_else(|| Error::data("a message that should be a record batch is not"))?;
        check_batch(&batch, &self.body)?;
        RecordBatchDecoder::try_new(
            &self.body,
            batch,
            Arc::clone(schema),
            dictionaries,
            &message.version(),
        )
        .map(|decoder| {
            decoder
                .with_projection(projection)
                .with_require_alignment(false)
        })
        .and_then(RecordBatchDecoder::read_record_batch)
        .map_err(|error| malformed("record batch", error))
    }

    /// The number of the dictionary that the message holds, and whether it appends to an earlier one.
    pub(super) fn dictionary_id(&self) -> Result<(i64, bool)> {
        let message = parse(&self.metadata)?;
        let batch = message
            .header_as_dictionary_batch()
            .ok_or_else(|| Error::data("a message that should be a dictionary is not"))?;
        Ok((batch.id(), batch.isDelta()))
    }

    /// Decodes a dictionary into `dictionaries`: a new one, a replacement, or an addition.
    ///
    /// After an error `dictionaries` is as it was.
    pub(super) fn read_dictionary(
        &self,
        schema: &SchemaRef,
        dictionaries: &mut Dictionaries,
    ) -> Result<()> {
        let message = parse(&self.metadata)?;
        let batch = message
            .header_as_dictionary_batch()
            .ok_or_else(|| Error::data("a message that should be a dictionary is not"))?;
        let values = batch
            .data()
            .ok_or_else(|| Error::data("a dictionary without values"))?;
        check_batch(&values, &self.body)?;
        arrow_ipc::reader::read_dictionary(
            &self.body,
            batch,
            schema,
            dictionaries,
            &message.version(),
        )
        .map_err(|error| malformed("dictionary", error))
    }
}

/// The same bytes at an address that flatbuffers accept, which want 64-bit fields aligned.
///
/// A copy only where the writer did not align its messages, and flatbuffers are small.
pub(super) fn aligned(metadata: Buffer) -> Buffer {
    if metadata.as_ptr().align_offset(8) == 0 {
        metadata
    } else {
        Buffer::from(metadata.as_slice())
    }
}

/// The Arrow schema of an IPC schema.
pub(super) fn schema_of(schema: arrow_ipc::Schema<'_>) -> Result<arrow_schema::Schema> {
    if !schema.endianness().equals_to_target_endianness() {
        return Err(Error::data(
            "the values are in the byte order of another kind of machine; write the file again \
             with little-endian values",
        ));
    }
    if schema.fields().is_none() {
        return Err(Error::data("a schema without fields"));
    }
    Ok(arrow_ipc::convert::fb_to_schema(schema))
}

fn parse(metadata: &[u8]) -> Result<Message<'_>> {
    root_as_message(metadata).map_err(|error| malformed("message", error.to_string()))
}

/// Compares everything that a record batch claims with the length of its body.
fn check_batch(batch: &arrow_ipc::RecordBatch<'_>, body: &Buffer) -> Result<()> {
    let rows = batch.length();
    if !(0..=BATCH_ROWS_MAX).contains(&rows) {
        return Err(Error::data(format!(
            "implausible number of rows in a record batch: rows=`{rows}`, at most=`{BATCH_ROWS_MAX}`"
        )));
    }
    for node in batch.nodes().into_iter().flatten() {
        if node.length() < 0 || node.null_count() < 0 || node.null_count() > node.length() {
            return Err(Error::data(format!(
                "implausible column length: length=`{}`, nulls=`{}`",
                node.length(),
                node.null_count()
            )));
        }
    }
    let ratio_max = match batch.compression().map(|c| c.codec()) {
        None => None,
        Some(CompressionType::LZ4_FRAME) => Some(LZ4_RATIO_MAX),
        Some(CompressionType::ZSTD) => Some(ZSTD_RATIO_MAX),
        Some(other) => {
            return Err(Error::data(format!(
                "unknown body compression: codec=`{}`",
                other.0
            )));
        }
    };
    let body_len = body.len() as u64;
    let mut claimed = 0_u64;
    for (idx, buffer) in batch.buffers().into_iter().flatten().enumerate() {
        let extent = u64::try_from(buffer.offset())
            .ok()
            .zip(u64::try_from(buffer.length()).ok());
        let Some((offset, len)) =
            extent.filter(|(o, l)| o.checked_add(*l).is_some_and(|end| end <= body_len))
        else {
            return Err(Error::data(format!(
                "a buffer lies outside its record batch: buffer=`{idx}`, offset=`{}`, \
                 length=`{}`, body length=`{body_len}`",
                buffer.offset(),
                buffer.length()
            )));
        };
        // Buffers that share bytes could each be decompressed, or copied to align them: a small
        // file would grow without bound. No writer makes such bodies.
        claimed += len;
        if claimed > body_len {
            return Err(Error::data(format!(
                "the buffers of a record batch overlap: buffer=`{idx}`, body length=`{body_len}`"
            )));
        }
        if let Some(ratio_max) = ratio_max {
            check_compressed(body, offset, len, ratio_max, idx)?;
        }
    }
    for count in batch.variadicBufferCounts().into_iter().flatten() {
        let num_buffers = batch.buffers().map_or(0, |buffers| buffers.len());
        if usize::try_from(count).is_ok_and(|count| count <= num_buffers) {
            continue;
        }
        return Err(Error::data(format!(
            "implausible number of view buffers: count=`{count}`"
        )));
    }
    Ok(())
}

/// Checks the uncompressed length in front of a compressed buffer, before anything believes it.
fn check_compressed(body: &[u8], offset: u64, len: u64, ratio_max: u64, idx: usize) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    // Both fit: the caller has compared them with the body's length.
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let Some(prefix) = body.get(start..).and_then(|bytes| bytes.first_chunk::<8>()) else {
        return Err(Error::data(format!(
            "a compressed buffer is cut off: buffer=`{idx}`"
        )));
    };
    let uncompressed = i64::from_le_bytes(*prefix);
    let most = len.saturating_mul(ratio_max);
    // -1 says that the buffer is stored as it is.
    if uncompressed == -1 || u64::try_from(uncompressed).is_ok_and(|bytes| bytes <= most) {
        return Ok(());
    }
    Err(Error::data(format!(
        "implausible uncompressed length: buffer=`{idx}`, uncompressed=`{uncompressed}`, \
         compressed=`{len}`"
    )))
}
