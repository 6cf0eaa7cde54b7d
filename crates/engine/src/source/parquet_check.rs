//! Checks of Parquet bytes before the `parquet` crate allocates by what they claim.
//!
//! Three places there take a length from the file at its word: lists in the footer, the uncompressed
//! size of a page, and the number of values in a delta-encoded page. A wrong one aborts the process.
//! So the footer and the page headers are walked here first (Thrift compact protocol, structure
//! only), and pages pass through [`check_page`] before they are decoded.

use crate::{Error, Result};
use bytes::Bytes;
use parquet::{
    basic::{Compression, Encoding},
    column::page::Page,
    file::metadata::ColumnChunkMetaData,
};

/// Thrift structs nest at most this deep in a footer or page header (statistics in column metadata
/// in a column chunk in a row group: 5).
const THRIFT_DEPTH_MAX: u32 = 32;

/// A column of lists may hold this many values per byte of its chunk: run-length encoding stores a
/// million equal values in a few bytes, but not without limit.
const NESTED_VALUES_PER_BYTE_MAX: u64 = 65_536;

/// Checks a file's footer (the Thrift struct alone).
pub(super) fn check_footer(metadata: &[u8]) -> Result<()> {
    let mut walk = Walk {
        bytes: metadata,
        pos: 0,
    };
    walk.skip_struct(0)
}

/// Checks every page header of one column chunk against the chunk's bytes.
pub(super) fn check_chunk(
    chunk: &Bytes,
    column: &ColumnChunkMetaData,
    num_rows: u64,
) -> Result<()> {
    let descr = column.column_descr();
    let is_flat = descr.max_rep_level() == 0;
    let num_values = u64::try_from(column.num_values()).unwrap_or(u64::MAX);
    let values_max = if is_flat {
        num_rows
    } else {
        num_rows.saturating_add((chunk.len() as u64).saturating_mul(NESTED_VALUES_PER_BYTE_MAX))
    };
    if num_values > values_max {
        return Err(Error::data(format!(
            "implausible number of values: values=`{num_values}`, rows=`{num_rows}`"
        )));
    }
    let ratio_max = expansion_max(column.compression());
    let mut walk = Walk {
        bytes: chunk,
        pos: 0,
    };
    let mut seen = 0_u64;
    // Some writers leave bytes behind the last page; the count of values says when it is over, as
    // for the decoder.
    while walk.pos < chunk.len() && seen < num_values {
        let header = walk.page_header()?;
        let rest = chunk.len() - walk.pos;
        let compressed = usize::try_from(header.compressed)
            .ok()
            .filter(|len| *len <= rest);
        let Some(compressed) = compressed else {
            return Err(Error::data(format!(
                "a page is longer than its column chunk: page=`{}`, rest=`{rest}`",
                header.compressed
            )));
        };
        let most = (compressed as u64).saturating_mul(ratio_max);
        let uncompressed = u64::try_from(header.uncompressed)
            .ok()
            .filter(|len| *len <= most);
        let Some(uncompressed) = uncompressed else {
            return Err(Error::data(format!(
                "implausible uncompressed page size: uncompressed=`{}`, compressed=`{compressed}`",
                header.uncompressed
            )));
        };
        let page_values = u64::try_from(header.num_values).map_err(|_| {
            Error::data(format!(
                "negative number of values: values=`{}`",
                header.num_values
            ))
        })?;
        if header.is_dictionary {
            // Stored plainly, so that each value but an empty one takes a byte or more.
            if page_values > uncompressed.max(1) {
                return Err(Error::data(format!(
                    "implausible dictionary: values=`{page_values}`, bytes=`{uncompressed}`"
                )));
            }
        } else {
            seen += page_values;
        }
        walk.pos += compressed;
    }
    if seen != num_values {
        return Err(Error::data(format!(
            "the pages of a column do not add up: values=`{seen}`, expected=`{num_values}`"
        )));
    }
    Ok(())
}

/// How many bytes a page's byte can become: the formats' own limits (a Snappy copy of 64 bytes takes
/// 3, a deflate symbol of 258 a quarter byte, LZ4 255 per byte, a Zstandard block of 128 KiB 4 bytes,
/// a Brotli meta-block of 16 MiB a few).
fn expansion_max(compression: Compression) -> u64 {
    match compression {
        // Written uncompressed pages hold their own size; some writers' headers differ slightly.
        Compression::UNCOMPRESSED => 1,
        Compression::SNAPPY => 64,
        Compression::GZIP(_) => 1_100,
        Compression::LZ4 | Compression::LZ4_RAW | Compression::LZO => 256,
        Compression::ZSTD(_) => 32 * 1024,
        Compression::BROTLI(_) => 2 << 20,
    }
}

/// Checks a decompressed page: the value counts that its delta encoding claims.
pub(super) fn check_page(page: &Page, max_rep_level: i16, max_def_level: i16) -> Result<()> {
    let (values, num_values, encoding) = match page {
        Page::DictionaryPage { .. } => return Ok(()),
        Page::DataPageV2 {
            buf,
            num_values,
            encoding,
            def_levels_byte_len,
            rep_levels_byte_len,
            ..
        } => {
            let start =
                (*def_levels_byte_len as usize).saturating_add(*rep_levels_byte_len as usize);
            (buf.get(start..), *num_values, *encoding)
        }
        Page::DataPage {
            buf,
            num_values,
            encoding,
            def_level_encoding,
            rep_level_encoding,
            ..
        } => {
            if !is_delta(*encoding) {
                return Ok(());
            }
            let rest = after_levels(buf, max_rep_level, *rep_level_encoding, *num_values).and_then(
                |rest| after_levels(rest, max_def_level, *def_level_encoding, *num_values),
            );
            (rest, *num_values, *encoding)
        }
    };
    if !is_delta(encoding) {
        return Ok(());
    }
    let values = values.ok_or_else(|| Error::data("the levels are longer than their page"))?;
    let mut walk = Walk {
        bytes: values,
        pos: 0,
    };
    walk.skip_delta(
        u64::from(num_values),
        encoding == Encoding::DELTA_BYTE_ARRAY,
    )?;
    if encoding == Encoding::DELTA_BYTE_ARRAY {
        walk.skip_delta(u64::from(num_values), false)?;
    }
    Ok(())
}

fn is_delta(encoding: Encoding) -> bool {
    matches!(
        encoding,
        Encoding::DELTA_BINARY_PACKED
            | Encoding::DELTA_LENGTH_BYTE_ARRAY
            | Encoding::DELTA_BYTE_ARRAY
    )
}

/// What follows the levels at the start of a version 1 data page.
#[expect(deprecated, reason = "old files still hold bit-packed levels")]
fn after_levels(
    bytes: &[u8],
    max_level: i16,
    encoding: Encoding,
    num_values: u32,
) -> Option<&[u8]> {
    if max_level == 0 {
        return Some(bytes);
    }
    if encoding == Encoding::BIT_PACKED {
        let bits = u64::from(i16::BITS - max_level.leading_zeros());
        let len = (u64::from(num_values) * bits).div_ceil(8);
        return bytes.get(usize::try_from(len).ok()?..);
    }
    let len = u32::from_le_bytes(*bytes.first_chunk::<4>()?);
    bytes.get(usize::try_from(len).ok()?.checked_add(4)?..)
}

/// The parts of a page header that lengths follow from.
#[derive(Default)]
struct PageHeader {
    uncompressed: i64,
    compressed: i64,
    num_values: i64,
    is_dictionary: bool,
}

/// A position in bytes that nothing is known of.
struct Walk<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl Walk<'_> {
    fn cut_off(&self) -> Error {
        Error::data(format!(
            "metadata is cut off or malformed: at byte=`{}`",
            self.pos
        ))
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = self
            .bytes
            .get(self.pos)
            .copied()
            .ok_or_else(|| self.cut_off())?;
        self.pos += 1;
        Ok(byte)
    }

    fn skip(&mut self, len: u64) -> Result<()> {
        let rest = self.bytes.len() - self.pos;
        let len = usize::try_from(len).ok().filter(|len| *len <= rest);
        self.pos += len.ok_or_else(|| self.cut_off())?;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.cut_off())
    }

    fn zigzag(&mut self) -> Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// The next field of a struct: its number and its type; `None` at the struct's end.
    fn field(&mut self, previous: i64) -> Result<Option<(i64, u8)>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        let id = match byte >> 4 {
            0 => self.zigzag()?,
            delta => previous.saturating_add(i64::from(delta)),
        };
        Ok(Some((id, byte & 0x0F)))
    }

    fn skip_struct(&mut self, depth: u32) -> Result<()> {
        let mut id = 0;
        while let Some((next, kind)) = self.field(id)? {
            id = next;
            // A Boolean field's value is its type.
            if !matches!(kind, 1 | 2) {
                self.skip_value(kind, depth)?;
            }
        }
        Ok(())
    }

    fn skip_value(&mut self, kind: u8, depth: u32) -> Result<()> {
        if depth > THRIFT_DEPTH_MAX {
            return Err(Error::data("metadata is nested too deeply"));
        }
        match kind {
            1..=3 => self.skip(1),
            4..=6 => self.varint().map(|_| ()),
            7 => self.skip(8),
            8 => {
                let len = self.varint()?;
                self.skip(len)
            }
            9 | 10 => {
                let byte = self.byte()?;
                let len = match byte >> 4 {
                    15 => self.varint()?,
                    len => u64::from(len),
                };
                for _ in 0..self.plausible(len)? {
                    self.skip_value(byte & 0x0F, depth + 1)?;
                }
                Ok(())
            }
            11 => {
                let len = self.varint()?;
                if len == 0 {
                    return Ok(());
                }
                let kinds = self.byte()?;
                for _ in 0..self.plausible(len)? {
                    self.skip_value(kinds >> 4, depth + 1)?;
                    self.skip_value(kinds & 0x0F, depth + 1)?;
                }
                Ok(())
            }
            12 => self.skip_struct(depth + 1),
            _ => Err(self.cut_off()),
        }
    }

    /// A number of elements, each of which takes a byte or more.
    fn plausible(&self, len: u64) -> Result<u64> {
        if len > (self.bytes.len() - self.pos) as u64 {
            return Err(self.cut_off());
        }
        Ok(len)
    }

    fn page_header(&mut self) -> Result<PageHeader> {
        let mut header = PageHeader::default();
        let mut id = 0;
        while let Some((next, kind)) = self.field(id)? {
            id = next;
            match (id, kind) {
                (2, 5) => header.uncompressed = self.zigzag()?,
                (3, 5) => header.compressed = self.zigzag()?,
                // Data page, dictionary page, data page version 2: their first field is the number
                // of values.
                (5 | 7 | 8, 12) => {
                    header.is_dictionary = id == 7;
                    header.num_values = self.first_i32()?;
                }
                (_, 1 | 2) => {}
                _ => self.skip_value(kind, 0)?,
            }
        }
        Ok(header)
    }

    /// The field 1 of a struct, an `i32`; the rest is skipped.
    fn first_i32(&mut self) -> Result<i64> {
        let mut value = 0;
        let mut id = 0;
        while let Some((next, kind)) = self.field(id)? {
            id = next;
            match (id, kind) {
                (1, 5) => value = self.zigzag()?,
                (_, 1 | 2) => {}
                _ => self.skip_value(kind, 0)?,
            }
        }
        Ok(value)
    }

    /// A delta-encoded run of integers: its header is checked, and if `to_end` its blocks are passed
    /// over.
    fn skip_delta(&mut self, num_values: u64, to_end: bool) -> Result<()> {
        let block_len = self.varint()?;
        let num_miniblocks = self.varint()?;
        let count = self.varint()?;
        self.varint()?;
        if count > num_values {
            return Err(Error::data(format!(
                "implausible number of delta-encoded values: values=`{count}`, in \
                 page=`{num_values}`"
            )));
        }
        // A miniblock's length is a multiple of 32, so no loop below runs more often than the page
        // has values.
        let miniblock_len = block_len.checked_div(num_miniblocks).unwrap_or(0);
        if miniblock_len == 0 || miniblock_len % 32 != 0 || block_len > u64::from(u32::MAX) {
            return Err(self.cut_off());
        }
        let mut left = if to_end { count.saturating_sub(1) } else { 0 };
        while left > 0 {
            self.varint()?;
            let widths_pos = self.pos;
            self.skip(num_miniblocks)?;
            for idx in 0..num_miniblocks {
                if left == 0 {
                    break;
                }
                // In range: the widths were just passed over.
                let width = self.bytes[widths_pos + usize::try_from(idx).unwrap_or(0)];
                self.skip(u64::from(width) * miniblock_len / 8)?;
                left = left.saturating_sub(miniblock_len);
            }
        }
        Ok(())
    }
}
