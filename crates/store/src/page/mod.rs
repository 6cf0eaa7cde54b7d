//! Pages: rows as stored bytes.
//!
//! A table is a list of pages. An *upsert page* holds whole rows, a *delete page* holds keys alone; the newest row of
//! a key wins. A page is written once and never changed. Its bytes are a Tonbo value; what the store must know
//! without reading them, [`PageMeta`], stands in the table's page list (see `checkpoint.rs`) and in the log.
//!
//! ```text
//! page    num_messages u32 | (metadata_bytes u32, body_bytes u32) per message | zeros to a multiple of 64
//!         | messages: Arrow IPC dictionary batches, then one record batch, each encapsulated as in an IPC stream
//! ```
//!
//! The schema is not in the page but in the catalog: the table's for upserts, its key columns' for deletes.

mod cache;
mod decode;
mod encode;
mod stats;

use crate::{
    codec::{Decoder, Encoder},
    error::{Error, Result},
};

pub use self::stats::{Bounds, ColumnStats};
pub(crate) use self::{
    cache::{CachedPage, PageCache},
    decode::PageDecoder,
    encode::{PageEncoder, compact_columns},
};

/// What a page does to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// Adds rows, and replaces those with the same key.
    Upsert,
    /// Removes the rows with these keys.
    Delete,
}

/// What is known of a page without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageMeta {
    /// Its number in its table generation: also its key in Tonbo. Never used twice.
    pub(crate) id: u64,
    /// What it does.
    pub kind: PageKind,
    /// The commit that brought it.
    pub version: u64,
    /// Rows, or keys in a delete page.
    pub num_rows: u32,
    /// Encoded bytes.
    pub num_bytes: u32,
    /// Checksum (CRC32C) of the encoded bytes.
    pub(crate) crc: u32,
    /// One entry per column of the table (of its key, in a delete page).
    pub stats: Vec<ColumnStats>,
}

/// A page that is not in a table yet: it has no version.
#[derive(Clone)]
pub(crate) struct EncodedPage {
    pub(crate) kind: PageKind,
    pub(crate) num_rows: u32,
    pub(crate) stats: Vec<ColumnStats>,
    pub(crate) bytes: bytes::Bytes,
}

impl EncodedPage {
    pub(crate) fn meta(&self, id: u64, version: u64) -> PageMeta {
        PageMeta {
            id,
            kind: self.kind,
            version,
            num_rows: self.num_rows,
            // The encoder bounds a page by PAGE_BYTES_MAX.
            num_bytes: u32::try_from(self.bytes.len()).unwrap_or(u32::MAX),
            crc: crc32c::crc32c(&self.bytes),
            stats: self.stats.clone(),
        }
    }
}

impl PageMeta {
    pub(crate) fn encode(&self, out: &mut Encoder) {
        out.put_u64(self.id);
        out.put_u8(match self.kind {
            PageKind::Upsert => 0,
            PageKind::Delete => 1,
        });
        out.put_u64(self.version);
        out.put_u32(self.num_rows);
        out.put_u32(self.num_bytes);
        out.put_u32(self.crc);
        out.put_u32(u32::try_from(self.stats.len()).unwrap_or(u32::MAX));
        for stats in &self.stats {
            stats.encode(out);
        }
    }

    pub(crate) fn decode(input: &mut Decoder<'_>) -> Result<Self> {
        let id = input.get_u64()?;
        let kind = match input.get_u8()? {
            0 => PageKind::Upsert,
            1 => PageKind::Delete,
            kind => return Err(Error::data(format!("unknown page kind=`{kind}`"))),
        };
        let version = input.get_u64()?;
        let num_rows = input.get_u32()?;
        let num_bytes = input.get_u32()?;
        let crc = input.get_u32()?;
        let num_stats = input.get_u32()?;
        let stats = (0..num_stats)
            .map(|_| ColumnStats::decode(input))
            .collect::<Result<_>>()?;
        Ok(Self {
            id,
            kind,
            version,
            num_rows,
            num_bytes,
            crc,
            stats,
        })
    }
}
