//! Columns of a dimension side by side: each row's cells next to each other in memory.
//!
//! A large dimension is read in the order of the facts, which is no order at all. Each load from one of its columns then
//! waits for memory, and a row of three columns, two of them strings, is three to five such loads. With the cells of a
//! row packed into one place of a few dozen bytes it is one.
//!
//! ```text
//! row 0   | view 16 bytes | f64 8 bytes | length 1 byte, up to 31 bytes | zeros |
//! row 1   | ...
//! ```
//!
//! Rows are as long as a power of two, so that none takes more lines of memory (64 bytes) than it has to.
//!
//! A cell is a number as it is, a view as it is, or a short string with its length in front: a string that is to be
//! copied needs no look at offsets and bytes elsewhere.
//!
//! A column of few values may have their numbers in its cells, see [`codes`](super::codes), and the values in cells of
//! their own elsewhere. That is done where it makes rows shorter.
//!
//! A few hundred rows are gathered at a time, one column after the other: the first column waits for the rows, many of
//! them at once, and the others find them in the cache.
//!
//! Packing takes about as long as gathering each row once or twice, and memory. So it is done once as many rows were
//! gathered as the dimension has: a few facts for a large dimension never pay for it, and many pay little.

use std::cmp::Reverse;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arrow_array::cast::AsArray;
use arrow_array::types::{ByteArrayType, ByteViewType};
use arrow_array::{
    Array, ArrayRef, BinaryViewArray, GenericByteArray, GenericByteViewArray, StringViewArray,
    make_array,
};
use arrow_buffer::{ArrowNativeType, Buffer, OffsetBuffer, ScalarBuffer};
use arrow_data::ArrayDataBuilder;
use arrow_schema::{ArrowError, DataType};

use super::Wanted;
use super::codes::{CODE_BYTES, Codes};
use super::gather::{gather, shared_buffers};
use crate::huge;
use crate::index::NO_MATCH;
use crate::prefetch::{LINE_BYTES, prefetch};

/// Rows that are gathered at once: their cells stay in the first cache meanwhile.
const CHUNK_ROWS: usize = 256;

/// A row is asked for while so many before it are waited for.
const AHEAD_ROWS: usize = 64;

/// The longest string that has a cell of its own.
const INLINE_BYTES_MAX: usize = 31;

/// Bytes of strings that are copied at once.
const COPY_BYTES: usize = 16;

/// Zeros behind the last row: copies of the last cell reach as far.
const TAIL_BYTES: usize = 2 * COPY_BYTES;

/// Columns of fewer bytes stay in the second cache, and are read there as they are.
const COLUMN_BYTES_MIN: usize = 1 << 20;

/// The same for a column alone, of which numbers would be taken: they have to save more than it takes to look them up.
const LONE_BYTES_MIN: usize = 4 << 20;

/// Wider rows take more than two lines of memory, and much of what is packed may be unused.
const ROW_BYTES_MAX: usize = 128;

/// A column's cells.
#[derive(Debug)]
struct Cell {
    /// Where it begins in a row.
    at: usize,
    kind: CellKind,
    /// The values as cells, one after the other, zeros behind them, if numbers of these stand in rows.
    values: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CellKind {
    /// A number of so many bytes.
    Fixed(usize),
    /// A string or binary view.
    View,
    /// The length in a byte, then the bytes, in room for so many together.
    Inline(usize),
}

impl CellKind {
    /// How a column goes into rows, if it does.
    fn of(values: &ArrayRef) -> Option<Self> {
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

    fn num_bytes(self) -> usize {
        match self {
            Self::Fixed(num_bytes) | Self::Inline(num_bytes) => num_bytes,
            Self::View => 16,
        }
    }
}

fn longest<T: ByteArrayType>(array: &GenericByteArray<T>) -> usize {
    array.offsets().lengths().max().unwrap_or(0)
}

/// Columns that are to be packed once that pays.
#[derive(Debug)]
pub(crate) struct Pack {
    columns: Vec<ArrayRef>,
    kinds: Vec<CellKind>,
    /// Loads for each row, if it is not packed.
    num_loads: usize,
    num_gathered: AtomicU64,
    is_taken: AtomicBool,
    /// `None` if nothing is won after all.
    packed: OnceLock<Option<Packed>>,
}

#[derive(Debug)]
struct Packed {
    cells: Vec<Cell>,
    row_bytes: usize,
    rows: Vec<Line>,
}

/// Memory as the processor reads it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u8; LINE_BYTES]);

impl Pack {
    /// `None` if nothing can be won: the columns are small, or too wide.
    pub(crate) fn new(columns: Vec<ArrayRef>) -> Option<Self> {
        let num_rows = columns.first()?.len();
        let kinds = columns.iter().map(CellKind::of);
        let kinds = kinds.collect::<Option<Vec<CellKind>>>()?;
        let num_loads = kinds.iter().map(|kind| match kind {
            CellKind::Fixed(_) | CellKind::View => 1,
            // The offsets, and the bytes.
            CellKind::Inline(_) => 2,
        });
        let pack = Self {
            num_loads: num_loads.sum(),
            columns,
            kinds,
            num_gathered: AtomicU64::new(0),
            is_taken: AtomicBool::new(false),
            packed: OnceLock::new(),
        };
        let row_bytes = pack.row_bytes();
        let (bytes_min, row_bytes_min) = if pack.is_sure() {
            (COLUMN_BYTES_MIN, 1)
        } else {
            (LONE_BYTES_MIN, 4 * CODE_BYTES)
        };
        let is_large = num_rows.saturating_mul(row_bytes) >= bytes_min;
        let is_fit = (row_bytes_min..=ROW_BYTES_MAX).contains(&row_bytes);
        (is_large && is_fit).then_some(pack)
    }

    /// Whether a column can go into rows.
    pub(crate) fn takes(values: &ArrayRef) -> bool {
        CellKind::of(values).is_some()
    }

    /// Whether it is of these very columns.
    pub(crate) fn is_of(&self, columns: &[ArrayRef]) -> bool {
        self.columns.len() == columns.len()
            && self
                .columns
                .iter()
                .zip(columns)
                .all(|(a, b)| Arc::ptr_eq(a, b))
    }

    /// Bytes of a row, before it is known whether a column has few values.
    pub(crate) fn row_bytes(&self) -> usize {
        let num_bytes = self.kinds.iter().map(|kind| kind.num_bytes());
        num_bytes.sum::<usize>().next_power_of_two()
    }

    /// Whether rows are packed if no column has few values: there is more than one load for each of them.
    pub(crate) fn is_sure(&self) -> bool {
        self.num_loads > 1
    }

    /// Bytes that the packed rows take; 0 before they are packed.
    pub(crate) fn num_bytes(&self) -> usize {
        self.packed
            .get()
            .and_then(Option::as_ref)
            .map_or(0, |packed| {
                let values = packed.cells.iter().flat_map(|cell| &cell.values);
                packed.rows.len() * LINE_BYTES + values.map(Vec::len).sum::<usize>()
            })
    }

    /// Takes the rows of all columns, of their types.
    pub(crate) fn gather(&self, wanted: &Wanted<'_>) -> Result<Vec<ArrayRef>, ArrowError> {
        let num_rows = self.columns.first().map_or(0, Array::len) as u64;
        let num_before = self
            .num_gathered
            .fetch_add(wanted.len() as u64, Ordering::Relaxed);
        // One thread packs; the others go on without.
        if num_before >= num_rows && !self.is_taken.swap(true, Ordering::Relaxed) {
            let packed = self.packed.set(self.pack());
            debug_assert!(packed.is_ok(), "only one thread comes here");
        }
        match self.packed.get() {
            Some(Some(packed)) => self.gather_packed(packed, wanted),
            Some(None) | None => self
                .columns
                .iter()
                .map(|column| gather(column, wanted))
                .collect(),
        }
    }

    fn pack(&self) -> Option<Packed> {
        let num_rows = self.columns.first().map_or(0, Array::len);
        let mut codes = self.codes();
        if !self.is_sure() && codes.iter().all(Option::is_none) {
            return None;
        }
        let mut cells = Vec::with_capacity(self.columns.len());
        let mut at = 0;
        for ((column, &kind), codes) in self.columns.iter().zip(&self.kinds).zip(&codes) {
            let values = codes.as_ref().map(|codes| value_cells(column, kind, codes));
            let num_bytes = values.as_ref().map_or(kind.num_bytes(), |_| CODE_BYTES);
            cells.push(Cell { at, kind, values });
            at += num_bytes;
        }
        let row_bytes = at.next_power_of_two();
        let num_lines = (num_rows * row_bytes + TAIL_BYTES).div_ceil(LINE_BYTES);
        let mut lines = huge::vec(Line([0; LINE_BYTES]), num_lines);
        let rows = as_bytes_mut(&mut lines);
        for ((column, cell), codes) in self.columns.iter().zip(&cells).zip(&mut codes) {
            let rows = rows.chunks_exact_mut(row_bytes).take(num_rows);
            let rows = rows.map(|row| &mut row[cell.at..]);
            match codes.take() {
                None => write_cells(column, cell.kind, rows),
                Some(Codes { codes, .. }) => {
                    for (row, code) in rows.zip(codes) {
                        row[..CODE_BYTES].copy_from_slice(&code.to_le_bytes());
                    }
                }
            }
        }
        Some(Packed {
            cells,
            row_bytes,
            rows: lines,
        })
    }

    /// Numbers for the columns that are to have them in their cells: no more than it takes to make rows shorter, since a
    /// number has its value looked up.
    fn codes(&self) -> Vec<Option<Codes>> {
        let saved = |at: usize| self.kinds[at].num_bytes().saturating_sub(CODE_BYTES);
        let mut codes: Vec<Option<Codes>> = self.kinds.iter().map(|_| None).collect();
        let mut num_bytes: usize = self.kinds.iter().map(|kind| kind.num_bytes()).sum();
        let is_shorter =
            |than: usize, bytes: usize| bytes.next_power_of_two() < than.next_power_of_two();
        // Those that save most come first.
        let mut order: Vec<usize> = (0..codes.len()).collect();
        order.sort_by_key(|&at| Reverse(saved(at)));
        for (idx, &at) in order.iter().enumerate() {
            let rest: usize = order[idx..].iter().map(|&at| saved(at)).sum();
            if !is_shorter(num_bytes, num_bytes - rest) {
                break;
            }
            codes[at] = Codes::of(&self.columns[at]);
            if codes[at].is_some() {
                num_bytes -= saved(at);
            }
        }
        for &at in order.iter().rev() {
            if codes[at].is_some() && !is_shorter(num_bytes + saved(at), num_bytes) {
                codes[at] = None;
                num_bytes += saved(at);
            }
        }
        codes
    }

    fn gather_packed(
        &self,
        packed: &Packed,
        wanted: &Wanted<'_>,
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        let (rows, row_bytes) = (as_bytes(&packed.rows), packed.row_bytes);
        let mut outputs: Vec<Output> = self
            .columns
            .iter()
            .zip(&self.kinds)
            .map(|(column, kind)| Output::new(column, *kind, wanted.len()))
            .collect();
        let mut numbers = [NO_MATCH; CHUNK_ROWS];
        let mut ahead = wanted.rows();
        for chunk in wanted.rows().chunks(CHUNK_ROWS) {
            touch(rows, row_bytes, ahead);
            ahead = &ahead[chunk.len()..];
            for (output, cell) in outputs.iter_mut().zip(&packed.cells) {
                match &cell.values {
                    None => output.extend(rows, row_bytes, cell.at, chunk),
                    Some(values) => {
                        for (number, &row) in numbers.iter_mut().zip(chunk) {
                            *number = code(rows, row as usize * row_bytes + cell.at);
                        }
                        output.extend(values, cell.kind.num_bytes(), 0, &numbers[..chunk.len()]);
                    }
                }
            }
        }
        self.columns
            .iter()
            .zip(outputs)
            .map(|(column, output)| output.finish(column, wanted))
            .collect()
    }
}

/// The number in a cell; [`NO_MATCH`] past the end, where nothing was found.
#[inline]
fn code(rows: &[u8], at: usize) -> u32 {
    let cell = rows.get(at..).and_then(<[u8]>::first_chunk);
    cell.map_or(NO_MATCH, |cell| u16::from_le_bytes(*cell).into())
}

/// The cells of a column's values, in the order of their numbers.
fn value_cells(column: &ArrayRef, kind: CellKind, codes: &Codes) -> Vec<u8> {
    let num_bytes = kind.num_bytes();
    let mut cells = vec![0; codes.first_rows.len() * num_bytes + TAIL_BYTES];
    for (&row, cell) in codes
        .first_rows
        .iter()
        .zip(cells.chunks_exact_mut(num_bytes))
    {
        write_cells(&column.slice(row as usize, 1), kind, [cell].into_iter());
    }
    cells
}

/// A column that is being gathered.
enum Output {
    Width1(Vec<u8>),
    Width2(Vec<u16>),
    Width4(Vec<u32>),
    Width8(Vec<u64>),
    Width16(Vec<u128>),
    Bytes(BytesOutput),
}

struct BytesOutput {
    /// Copies of 16 bytes that a cell takes.
    num_copies: usize,
    ends: Vec<usize>,
    bytes: Vec<u8>,
    /// Bytes that count; what is behind them is overwritten by the next cell.
    len: usize,
}

impl Output {
    fn new(values: &ArrayRef, kind: CellKind, num_rows: usize) -> Self {
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

    fn extend(&mut self, rows: &[u8], row_bytes: usize, at: usize, chunk: &[u32]) {
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

    fn finish(self, values: &ArrayRef, wanted: &Wanted<'_>) -> Result<ArrayRef, ArrowError> {
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
                DataType::Utf8View => {
                    let array: &StringViewArray = values.as_string_view();
                    Ok(finish_views(array, views, wanted))
                }
                DataType::BinaryView => {
                    let array: &BinaryViewArray = values.as_binary_view();
                    Ok(finish_views(array, views, wanted))
                }
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

/// Brings the first rows of some, as many as a chunk has, into the cache.
///
/// Each is waited for, after those behind it were asked for: what is asked for all at once, a processor forgets.
fn touch(rows: &[u8], row_bytes: usize, wanted: &[u32]) {
    let mut all = 0;
    for line in (0..row_bytes).step_by(LINE_BYTES) {
        let line_of = |row: u32| rows.get(row as usize * row_bytes + line);
        let (ahead, chunk) = (
            wanted.iter().skip(AHEAD_ROWS),
            &wanted[..wanted.len().min(CHUNK_ROWS)],
        );
        let mut ahead = ahead.copied();
        for &row in chunk {
            prefetch(ahead.next().and_then(line_of));
            all |= line_of(row).unwrap_or(&0);
        }
    }
    black_box(all);
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
    values.extend(chunk.iter().map(|&row| {
        let cell = rows.get(row as usize * row_bytes + at..);
        match cell.and_then(<[u8]>::first_chunk) {
            Some(bytes) => from_bytes(*bytes),
            None => T::default(),
        }
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

#[expect(
    unsafe_code,
    reason = "to look at every view again would cost more than the gather"
)]
fn finish_views<T: ByteViewType + ?Sized>(
    array: &GenericByteViewArray<T>,
    views: Vec<u128>,
    wanted: &Wanted<'_>,
) -> ArrayRef {
    let buffers = shared_buffers(array);
    let nulls = wanted.nulls_of(array);
    // SAFETY: each view is one of a valid array over the same buffers, or all zero, which is the empty value. There is
    // one bit of `nulls` for each of `wanted`, as there is one view.
    Arc::new(unsafe {
        GenericByteViewArray::<T>::new_unchecked(ScalarBuffer::from(views), buffers, nulls)
    })
}

/// Writes a column's cells into memory that begins where each is to be.
fn write_cells<'a>(column: &ArrayRef, kind: CellKind, cells: impl Iterator<Item = &'a mut [u8]>) {
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

#[expect(unsafe_code, reason = "lines are bytes")]
fn as_bytes(lines: &[Line]) -> &[u8] {
    // SAFETY: a line is 64 bytes and nothing else, and bytes need no alignment.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), size_of_val(lines)) }
}

#[expect(unsafe_code, reason = "lines are bytes, and any bytes are lines")]
fn as_bytes_mut(lines: &mut [Line]) -> &mut [u8] {
    // SAFETY: as for `as_bytes`; and whatever is written is a line again.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), size_of_val(lines)) }
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "any numbers will do"
)]
mod tests {
    use arrow_array::{
        BinaryArray, Date32Array, Decimal128Array, Float64Array, Int8Array, Int16Array,
        LargeStringArray, StringArray, TimestampMillisecondArray,
    };
    use arrow_select::take::take;

    use super::*;

    const NUM_ROWS: usize = 40_000;

    /// So many make a column large, also of eight bytes.
    const MANY_ROWS: usize = 600_000;

    /// Columns of every kind of cell, some with nulls, some that are slices.
    fn columns() -> Vec<ArrayRef> {
        let numbers = || (0..NUM_ROWS + 2).map(|i| (i % 5 != 2).then_some(i));
        let text =
            |i: usize, len_max: usize| "é".repeat(i % (len_max / 2 + 1)) + &"x".repeat(i % 2);
        let texts = |len_max: usize| numbers().map(move |i| i.map(|i| text(i, len_max)));
        vec![
            Arc::new(
                numbers()
                    .map(|i| i.map(|i| i as i8))
                    .collect::<Int8Array>()
                    .slice(1, NUM_ROWS),
            ),
            Arc::new(
                numbers()
                    .map(|i| i.map(|i| i as i16))
                    .collect::<Int16Array>()
                    .slice(2, NUM_ROWS),
            ),
            Arc::new(
                numbers()
                    .map(|i| i.map(|i| i as i32))
                    .collect::<Date32Array>()
                    .slice(0, NUM_ROWS),
            ),
            Arc::new(Float64Array::from_iter_values(
                (0..NUM_ROWS).map(|i| i as f64),
            )),
            Arc::new(
                numbers()
                    .map(|i| i.map(|i| i as i64))
                    .collect::<TimestampMillisecondArray>()
                    .with_timezone("Europe/Berlin")
                    .slice(1, NUM_ROWS),
            ),
            Arc::new(
                Decimal128Array::from_iter_values((0..NUM_ROWS).map(|i| i as i128))
                    .with_precision_and_scale(20, 3)
                    .unwrap(),
            ),
            Arc::new(texts(10).collect::<StringArray>().slice(1, NUM_ROWS)),
            Arc::new(texts(14).collect::<LargeStringArray>().slice(2, NUM_ROWS)),
            Arc::new(texts(30).collect::<BinaryArray>().slice(0, NUM_ROWS)),
            Arc::new(texts(60).collect::<StringViewArray>().slice(1, NUM_ROWS)),
            Arc::new(
                texts(0)
                    .map(|_| Some(""))
                    .collect::<StringArray>()
                    .slice(1, NUM_ROWS),
            ),
        ]
    }

    #[test]
    fn packed_rows_equal_take() {
        let all = columns();
        let num_rows = NUM_ROWS as u32;
        let mixed: Vec<u32> = (0..3 * num_rows)
            .map(|i| {
                if i % 11 == 4 {
                    NO_MATCH
                } else {
                    i.wrapping_mul(7919) % num_rows
                }
            })
            .collect();
        let hits: Vec<u32> = (0..num_rows).rev().collect();
        for chosen in [
            &[0, 1, 2, 3, 4, 5][..],
            &[6, 3],
            &[7, 8, 0, 9],
            &[10, 9],
            &[8],
            &[5, 6, 7, 8, 9],
        ] {
            let columns: Vec<ArrayRef> = chosen.iter().map(|i| Arc::clone(&all[*i])).collect();
            let pack = Pack::new(columns.clone()).expect("large enough");
            assert_eq!(pack.num_bytes(), 0);
            // The first goes to the columns, the others to the packed rows.
            for rows in [
                &mixed[..],
                &hits,
                &mixed,
                &mixed[..5],
                &[],
                &[NO_MATCH; 300],
            ] {
                let wanted = Wanted::new(rows);
                let found = pack.gather(&wanted).unwrap();
                for (found, column) in found.iter().zip(&columns) {
                    assert_eq!(found, &take(column, wanted.indices(), None).unwrap());
                    found.to_data().validate_full().unwrap();
                }
            }
            assert!(pack.num_bytes() > NUM_ROWS);
        }
    }

    #[test]
    fn columns_of_few_values_make_short_rows() {
        let named = |num_values: usize, len: usize| {
            let values = (0..MANY_ROWS).map(|i| format!("{:0len$}", i * 7 % num_values));
            Arc::new(StringViewArray::from_iter_values(values)) as ArrayRef
        };
        let floats = |num_values: usize| {
            let values = (0..MANY_ROWS).map(|i| (i % num_values) as f64);
            Arc::new(Float64Array::from_iter_values(values)) as ArrayRef
        };
        let wanted: Vec<u32> = (0..2 * MANY_ROWS as u32)
            .map(|i| {
                if i % 9 == 2 {
                    NO_MATCH
                } else {
                    i * 31 % MANY_ROWS as u32
                }
            })
            .collect();
        for (columns, row_bytes) in [
            (vec![named(40, 6)], 2),
            (vec![named(4096, 30)], 2),
            (vec![floats(4096)], 2),
            (
                vec![named(97, 4), named(MANY_ROWS, 12), floats(MANY_ROWS)],
                32,
            ),
            (vec![named(97, 40), named(200, 5), floats(MANY_ROWS)], 16),
            (vec![named(4097, 5), floats(4097)], 32),
            (vec![named(1, 0), floats(1)], 4),
        ] {
            let pack = Pack::new(columns.clone()).expect("large enough");
            for rows in [&wanted[..], &wanted[..300], &[NO_MATCH; 3]] {
                let wanted = Wanted::new(rows);
                // The first is taken from the columns.
                for _ in 0..2 {
                    let found = pack.gather(&wanted).unwrap();
                    for (found, column) in found.iter().zip(&columns) {
                        assert_eq!(found, &take(column, wanted.indices(), None).unwrap());
                        found.to_data().validate_full().unwrap();
                    }
                }
            }
            let packed = pack.packed.get().unwrap().as_ref().unwrap();
            assert_eq!(packed.row_bytes, row_bytes);
        }
    }

    #[test]
    fn what_is_small_or_long_or_alone_is_left_as_it_is() {
        let all = columns();
        let slices = all.iter().map(|column| column.slice(0, 100)).collect();
        assert!(Pack::new(slices).is_none());
        let many: Float64Array = (0..MANY_ROWS).map(|i| Some(i as f64)).collect();
        let alone = Pack::new(vec![Arc::new(many)]).expect("large enough");
        for _ in 0..3 {
            let wanted: Vec<u32> = (0..MANY_ROWS as u32).rev().collect();
            alone.gather(&Wanted::new(&wanted)).unwrap();
        }
        assert_eq!(alone.num_bytes(), 0, "one load a row, of many values");
        assert!(Pack::new(Vec::new()).is_none());
        let long: StringArray = (0..NUM_ROWS).map(|_| Some("x".repeat(32))).collect();
        assert!(!Pack::takes(&(Arc::new(long) as ArrayRef)));
    }
}
