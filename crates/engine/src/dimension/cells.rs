//! The cells of packed rows: how values stand in them, and how columns are made of them.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::ByteArrayType;
use arrow_array::{Array, ArrayRef, GenericByteArray, make_array};
use arrow_buffer::{ArrowNativeType, Buffer, OffsetBuffer};
use arrow_data::ArrayDataBuilder;
use arrow_schema::{ArrowError, DataType};

use super::Wanted;
use super::gather::with_views;
use crate::huge;

/// The longest string that has a cell of its own.
const INLINE_BYTES_MAX: usize = 31;

/// Bytes of strings that are copied at once.
const COPY_BYTES: usize = 16;

/// Zeros behind the last row: copies of the last cell reach as far.
pub(super) const TAIL_BYTES: usize = 2 * COPY_BYTES;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CellKind {
    /// A number of so many bytes.
    Fixed(usize),
    /// A string or binary view.
    View,
    /// The length in a byte, then the bytes, in room for so many together.
    Inline(usize),
}

impl CellKind {
    /// How a column goes into rows, if it does.
    pub(super) fn of(values: &ArrayRef) -> Option<Self> {
        let inline = |bytes_max: usize| {
            (bytes_max <= INLINE_BYTES_MAX).then_some(Self::Inline(bytes_max + 1))
        };
        match values.data_type() {
            DataType::Utf8 => inline(longest(values.as_string::<i32>())),
            DataType::LargeUtf8 => inline(longest(values.as_string::<i64>())),
            DataType::Binary => inline(longest(values.as_binary::<i32>())),
            DataType::LargeBinary => inline(longest(values.as_binary::<i64>())),
            DataType::Utf8View | DataType::BinaryView => Some(Self::View),
            other => other
                .primitive_width()
                .filter(|width| *width <= 16)
                .map(Self::Fixed),
        }
    }

    pub(super) fn num_bytes(self) -> usize {
        match self {
            Self::Fixed(num_bytes) | Self::Inline(num_bytes) => num_bytes,
            Self::View => 16,
        }
    }
}

fn longest<T: ByteArrayType>(array: &GenericByteArray<T>) -> usize {
    array.offsets().lengths().max().unwrap_or(0)
}

/// A column that is being gathered.
pub(super) enum Output {
    Width1(Vec<u8>),
    Width2(Vec<u16>),
    Width4(Vec<u32>),
    Width8(Vec<u64>),
    Width16(Vec<u128>),
    Bytes(BytesOutput),
}

pub(super) struct BytesOutput {
    /// Copies of 16 bytes that a cell takes.
    num_copies: usize,
    ends: Vec<usize>,
    bytes: Vec<u8>,
    /// Bytes that count; what is behind them is overwritten by the next cell.
    len: usize,
}

impl Output {
    pub(super) fn new(values: &ArrayRef, kind: CellKind, num_rows: usize) -> Self {
        match kind {
            CellKind::Fixed(1) => Self::Width1(huge::with_capacity(num_rows)),
            CellKind::Fixed(2) => Self::Width2(huge::with_capacity(num_rows)),
            CellKind::Fixed(4) => Self::Width4(huge::with_capacity(num_rows)),
            CellKind::Fixed(8) => Self::Width8(huge::with_capacity(num_rows)),
            CellKind::Fixed(_) | CellKind::View => Self::Width16(huge::with_capacity(num_rows)),
            CellKind::Inline(room) => {
                // As many bytes a row as the column has, and a little more.
                let usual = values.get_buffer_memory_size() / values.len().max(1) + 1;
                Self::Bytes(BytesOutput {
                    num_copies: (room - 1).div_ceil(COPY_BYTES).max(1),
                    ends: Vec::with_capacity(num_rows),
                    bytes: huge::with_capacity(num_rows * usual.min(room) + TAIL_BYTES),
                    len: 0,
                })
            }
        }
    }

    /// Appends the cells that begin at `at` in some rows; the default for a number past the end.
    pub(super) fn extend(&mut self, rows: &[u8], row_bytes: usize, at: usize, chunk: &[u32]) {
        match self {
            Self::Width1(values) => extend(values, rows, row_bytes, at, chunk, u8::from_ne_bytes),
            Self::Width2(values) => extend(values, rows, row_bytes, at, chunk, u16::from_ne_bytes),
            Self::Width4(values) => extend(values, rows, row_bytes, at, chunk, u32::from_ne_bytes),
            Self::Width8(values) => extend(values, rows, row_bytes, at, chunk, u64::from_ne_bytes),
            Self::Width16(values) => {
                extend(values, rows, row_bytes, at, chunk, u128::from_ne_bytes);
            }
            Self::Bytes(output) => output.extend(rows, row_bytes, at, chunk),
        }
    }

    pub(super) fn finish(
        self,
        values: &ArrayRef,
        wanted: &Wanted<'_>,
    ) -> Result<ArrayRef, ArrowError> {
        let nulls = wanted.nulls_of(values);
        let primitive = |buffer: Buffer| {
            let data = ArrayDataBuilder::new(values.data_type().clone())
                .len(wanted.len())
                .add_buffer(buffer)
                .nulls(nulls.clone());
            data.build().map(make_array)
        };
        match self {
            Self::Width1(values) => primitive(Buffer::from_vec(values)),
            Self::Width2(values) => primitive(Buffer::from_vec(values)),
            Self::Width4(values) => primitive(Buffer::from_vec(values)),
            Self::Width8(values) => primitive(Buffer::from_vec(values)),
            Self::Width16(views) => match values.data_type() {
                DataType::Utf8View => Ok(with_views(values.as_string_view(), views, wanted)),
                DataType::BinaryView => Ok(with_views(values.as_binary_view(), views, wanted)),
                _ => primitive(Buffer::from_vec(views)),
            },
            Self::Bytes(output) => match values.data_type() {
                DataType::Utf8 => output.finish(values.as_string::<i32>(), wanted),
                DataType::LargeUtf8 => output.finish(values.as_string::<i64>(), wanted),
                DataType::Binary => output.finish(values.as_binary::<i32>(), wanted),
                _ => output.finish(values.as_binary::<i64>(), wanted),
            },
        }
    }
}

/// Appends the cells of some rows, the default where nothing was found: such a row has a number past the end.
fn extend<T: Default, const N: usize>(
    values: &mut Vec<T>,
    rows: &[u8],
    row_bytes: usize,
    at: usize,
    chunk: &[u32],
    from_bytes: impl Fn([u8; N]) -> T,
) {
    // With rows of a size that is known here, a cell takes less than half of the instructions.
    match row_bytes {
        16 => extend_from(values, rows.as_chunks::<16>().0, at, chunk, from_bytes),
        32 => extend_from(values, rows.as_chunks::<32>().0, at, chunk, from_bytes),
        64 => extend_from(values, rows.as_chunks::<64>().0, at, chunk, from_bytes),
        _ => values.extend(chunk.iter().map(|&row| {
            let cell = rows.get(row as usize * row_bytes + at..);
            let cell = cell.and_then(<[u8]>::first_chunk);
            cell.map_or_else(T::default, |bytes| from_bytes(*bytes))
        })),
    }
}

fn extend_from<T: Default, const N: usize, const R: usize>(
    values: &mut Vec<T>,
    rows: &[[u8; R]],
    at: usize,
    chunk: &[u32],
    from_bytes: impl Fn([u8; N]) -> T,
) {
    values.extend(chunk.iter().map(|&row| {
        let cell = rows.get(row as usize).and_then(|row| row.get(at..));
        let cell = cell.and_then(<[u8]>::first_chunk);
        cell.map_or_else(T::default, |bytes| from_bytes(*bytes))
    }));
}

impl BytesOutput {
    fn extend(&mut self, rows: &[u8], row_bytes: usize, at: usize, chunk: &[u32]) {
        let begin = self.ends.len();
        let mut end = self.len;
        self.ends.extend(chunk.iter().map(|&row| {
            let cell = rows.get(row as usize * row_bytes + at);
            end += cell.map_or(0, |len| usize::from(*len));
            end
        }));
        // Each cell is copied whole, over what the one before has copied too much.
        let room = end + self.num_copies * COPY_BYTES;
        if self.bytes.len() < room {
            self.bytes.resize(room, 0);
        }
        let mut to = self.len;
        match self.num_copies {
            1 => {
                for (&row, &end) in chunk.iter().zip(&self.ends[begin..]) {
                    let from = row as usize * row_bytes + at + 1;
                    copy(rows, from, &mut self.bytes, to);
                    to = end;
                }
            }
            _ => {
                for (&row, &end) in chunk.iter().zip(&self.ends[begin..]) {
                    let from = row as usize * row_bytes + at + 1;
                    copy(rows, from, &mut self.bytes, to);
                    copy(rows, from + COPY_BYTES, &mut self.bytes, to + COPY_BYTES);
                    to = end;
                }
            }
        }
        self.len = end;
    }

    #[expect(
        unsafe_code,
        reason = "to look at every string again would cost as much as the gather"
    )]
    fn finish<T: ByteArrayType>(
        mut self,
        values: &GenericByteArray<T>,
        wanted: &Wanted<'_>,
    ) -> Result<ArrayRef, ArrowError> {
        if T::Offset::from_usize(self.len).is_none() {
            return Err(ArrowError::OffsetOverflowError(self.len));
        }
        self.bytes.truncate(self.len);
        let mut offsets = Vec::with_capacity(self.ends.len() + 1);
        offsets.push(T::Offset::usize_as(0));
        offsets.extend(self.ends.iter().map(|end| T::Offset::usize_as(*end)));
        let nulls = wanted.nulls_of(values);
        // SAFETY: the offsets ascend from 0.
        let offsets = unsafe { OffsetBuffer::new_unchecked(offsets.into()) };
        let bytes = Buffer::from_vec(self.bytes);
        // SAFETY: the last offset is the length of `bytes`, and fits its type. Between two of them is a copy of a whole value
        // of a valid array, or nothing, so what are strings there are strings here. There is one bit of `nulls` for each.
        let gathered = unsafe { GenericByteArray::<T>::new_unchecked(offsets, bytes, nulls) };
        Ok(Arc::new(gathered))
    }
}

/// Copies 16 bytes. From past the end, where nothing was found, nothing is copied, and nothing is missed: its length is 0.
fn copy(from: &[u8], from_at: usize, to: &mut [u8], to_at: usize) {
    let chunk: Option<&[u8; COPY_BYTES]> = from.get(from_at..).and_then(<[u8]>::first_chunk);
    if let (Some(chunk), Some(to)) = (chunk, to.get_mut(to_at..to_at + COPY_BYTES)) {
        to.copy_from_slice(chunk);
    }
}

/// Writes a column's cells into memory that begins where each is to be.
pub(super) fn write_cells<'a>(
    column: &ArrayRef,
    kind: CellKind,
    cells: impl Iterator<Item = &'a mut [u8]>,
) {
    match column.data_type() {
        DataType::Utf8 => write_inline(column.as_string::<i32>(), cells),
        DataType::LargeUtf8 => write_inline(column.as_string::<i64>(), cells),
        DataType::Binary => write_inline(column.as_binary::<i32>(), cells),
        DataType::LargeBinary => write_inline(column.as_binary::<i64>(), cells),
        _ => {
            let num_bytes = kind.num_bytes();
            let data = column.to_data();
            let values = &data.buffers()[0][data.offset() * num_bytes..];
            for (cell, value) in cells.zip(values.chunks_exact(num_bytes)) {
                cell[..num_bytes].copy_from_slice(value);
            }
        }
    }
}

fn write_inline<'a, T: ByteArrayType>(
    array: &GenericByteArray<T>,
    cells: impl Iterator<Item = &'a mut [u8]>,
) {
    let (offsets, data) = (array.value_offsets(), array.value_data());
    for (cell, place) in cells.zip(offsets.windows(2)) {
        let value = &data[place[0].as_usize()..place[1].as_usize()];
        // `CellKind::of` has found none longer than 31 bytes.
        cell[0] = u8::try_from(value.len()).unwrap_or(0);
        cell[1..=value.len()].copy_from_slice(value);
    }
}
