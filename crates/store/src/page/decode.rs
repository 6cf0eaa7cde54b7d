//! Page bytes to rows.

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::{Block, MetadataVersion, reader::FileDecoder};
use arrow_schema::SchemaRef;

use super::PageMeta;
use crate::{
    codec::Decoder,
    error::{Error, Result},
};

/// Decodes pages of one schema.
pub(crate) struct PageDecoder {
    schema: SchemaRef,
    projection: Option<Vec<usize>>,
}

impl PageDecoder {
    /// The schema must have come out of the catalog's encoding: that is where dictionaries get their ids.
    pub(crate) fn new(schema: SchemaRef, projection: Option<Vec<usize>>) -> Self {
        Self { schema, projection }
    }

    /// Checks a page against what is known of it and returns its rows, which share the page's memory.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](crate::ErrorKind::Data) if length, checksum or content is not as written.
    pub(crate) fn decode(&self, meta: &PageMeta, bytes: &Buffer) -> Result<RecordBatch> {
        Self::check(meta, bytes)?;
        self.decode_checked(meta, bytes)
    }

    /// Fails unless the bytes of a page are those that were written.
    pub(super) fn check(meta: &PageMeta, bytes: &Buffer) -> Result<()> {
        if bytes.len() != meta.num_bytes as usize || crc32c::crc32c(bytes) != meta.crc {
            return Err(Error::data(format!(
                "page has a wrong checksum: page=`{}`",
                meta.id
            )));
        }
        Ok(())
    }

    /// As [`decode`](Self::decode), of bytes that were checked.
    pub(super) fn decode_checked(&self, meta: &PageMeta, bytes: &Buffer) -> Result<RecordBatch> {
        let batch = self
            .decode_batch(bytes)
            .map_err(|error| error.context(format!("page=`{}`", meta.id)))?;
        if batch.num_rows() != meta.num_rows as usize {
            return Err(Error::data(format!(
                "page has a wrong number of rows: page=`{}` num_rows=`{}` expected=`{}`",
                meta.id,
                batch.num_rows(),
                meta.num_rows
            )));
        }
        Ok(batch)
    }

    fn decode_batch(&self, bytes: &Buffer) -> Result<RecordBatch> {
        let failed = |error| Error::data("page is not readable").with_source(error);
        let mut header = Decoder::new(bytes);
        let num_messages = header.get_u32()?;
        let mut decoder = FileDecoder::new(SchemaRef::clone(&self.schema), MetadataVersion::V5);
        if let Some(projection) = &self.projection {
            decoder = decoder.with_projection(projection.clone());
        }
        let mut offset = (num_messages as usize).saturating_mul(8).saturating_add(67) / 64 * 64;
        for i in 1..=num_messages {
            let (metadata_bytes, body_bytes) = (header.get_u32()?, header.get_u32()?);
            let len = (metadata_bytes as usize).saturating_add(body_bytes as usize);
            if offset.saturating_add(len) > bytes.len() {
                return Err(Error::data("page is shorter than its messages"));
            }
            let message = bytes.slice_with_length(offset, len);
            let metadata = i32::try_from(metadata_bytes)
                .map_err(|_| Error::data("page has a message over 2 GiB"))?;
            let block = Block::new(0, metadata, i64::from(body_bytes));
            if i < num_messages {
                decoder.read_dictionary(&block, &message).map_err(failed)?;
            } else if let Some(batch) = decoder
                .read_record_batch(&block, &message)
                .map_err(failed)?
            {
                return Ok(batch);
            }
            offset += len;
        }
        Err(Error::data("page holds no rows"))
    }
}
