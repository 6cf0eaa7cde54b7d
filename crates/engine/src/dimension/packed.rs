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
//! A few hundred rows are gathered at a time, one column after the other: the first column waits for the rows, many of
//! them at once, and the others find them in the cache.
//!
//! Packing takes about as long as gathering each row once, and memory. So it is done once as many rows were gathered
//! as the dimension has: a few facts for a large dimension never pay for it, and many pay little.

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
use super::gather::{gather, shared_buffers};
use crate::huge;

/// Rows that are gathered at once: their cells stay in the first cache meanwhile.
const CHUNK_ROWS: usize = 256;

/// The longest string that has a cell of its own.
const INLINE_BYTES_MAX: usize = 31;

/// Bytes of strings that are copied at once.
const COPY_BYTES: usize = 16;

/// Zeros behind the last row: copies of the last cell reach as far.
const TAIL_BYTES: usize = 2 * COPY_BYTES;

/// Columns of fewer bytes stay in the second cache, and are read there as they are.
const COLUMN_BYTES_MIN: usize = 1 << 20;

/// Wider rows take more than two lines of memory, and much of what is packed may be unused.
const ROW_BYTES_MAX: usize = 128;

/// What stands in a cell, and where it begins in a row.
#[derive(Clone, Copy, Debug)]
struct Cell {
    at: usize,
    kind: CellKind,
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
    cells: Vec<Cell>,
    row_bytes: usize,
    num_gathered: AtomicU64,
    is_taken: AtomicBool,
    rows: OnceLock<Vec<Line>>,
}

/// Memory as the processor reads it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u8; LINE_BYTES]);

const LINE_BYTES: usize = 64;

impl Pack {
    /// `None` if nothing is won: the columns are small, or too wide, or there is but one load for each row anyway.
    pub(crate) fn new(columns: Vec<ArrayRef>) -> Option<Self> {
        let num_rows = columns.first()?.len();
        let mut at = 0;
        let mut num_loads = 0;
        let mut cells = Vec::with_capacity(columns.len());
        for column in &columns {
            let kind = CellKind::of(column)?;
            cells.push(Cell { at, kind });
            at += kind.num_bytes();
            num_loads += match kind {
                CellKind::Fixed(_) | CellKind::View => 1,
                // The offsets, and the bytes.
                CellKind::Inline(_) => 2,
            };
        }
        let row_bytes = at.next_power_of_two();
        let is_worth = num_loads > 1
            && row_bytes <= ROW_BYTES_MAX
            && num_rows.saturating_mul(row_bytes) >= COLUMN_BYTES_MIN;
        is_worth.then(|| Self {
            columns,
            cells,
            row_bytes,
            num_gathered: AtomicU64::new(0),
            is_taken: AtomicBool::new(false),
            rows: OnceLock::new(),
        })
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

    /// Bytes of a row.
    pub(crate) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Bytes that the packed rows take; 0 before they are packed.
    pub(crate) fn num_bytes(&self) -> usize {
        self.rows.get().map_or(0, |rows| rows.len() * LINE_BYTES)
    }

    /// Takes the rows of all columns, of their types.
    pub(crate) fn gather(&self, wanted: &Wanted<'_>) -> Result<Vec<ArrayRef>, ArrowError> {
        let num_rows = self.columns.first().map_or(0, Array::len) as u64;
        let num_before = self
            .num_gathered
            .fetch_add(wanted.len() as u64, Ordering::Relaxed);
        // One thread packs; the others do not wait for it.
        if num_before >= num_rows && !self.is_taken.swap(true, Ordering::Relaxed) {
            let rows = self.rows.set(self.pack());
            debug_assert!(rows.is_ok(), "only one thread comes here");
        }
        match self.rows.get() {
            Some(rows) => self.gather_packed(as_bytes(rows), wanted),
            None => self
                .columns
                .iter()
                .map(|column| gather(column, wanted))
                .collect(),
        }
    }

    fn pack(&self) -> Vec<Line> {
        let num_rows = self.columns.first().map_or(0, Array::len);
        let num_lines = (num_rows * self.row_bytes + TAIL_BYTES).div_ceil(LINE_BYTES);
        let mut lines = huge::vec(Line([0; LINE_BYTES]), num_lines);
        let rows = as_bytes_mut(&mut lines);
        for (column, cell) in self.columns.iter().zip(&self.cells) {
            let cells = rows.chunks_exact_mut(self.row_bytes).take(num_rows);
            write_cells(column, *cell, cells);
        }
        lines
    }

    fn gather_packed(&self, rows: &[u8], wanted: &Wanted<'_>) -> Result<Vec<ArrayRef>, ArrowError> {
        let mut outputs: Vec<Output> = self
            .columns
            .iter()
            .zip(&self.cells)
            .map(|(column, cell)| Output::new(column, *cell, wanted.len()))
            .collect();
        for chunk in wanted.rows().chunks(CHUNK_ROWS) {
            touch(rows, self.row_bytes, chunk);
            for (output, cell) in outputs.iter_mut().zip(&self.cells) {
                output.extend(rows, self.row_bytes, cell.at, chunk);
            }
        }
        self.columns
            .iter()
            .zip(outputs)
            .map(|(column, output)| output.finish(column, wanted))
            .collect()
    }
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
    fn new(values: &ArrayRef, cell: Cell, num_rows: usize) -> Self {
        match cell.kind {
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

/// Brings some rows into the cache. A loop that does nothing else has the most loads under way at a time.
fn touch(rows: &[u8], row_bytes: usize, chunk: &[u32]) {
    let mut all = 0;
    for line in (0..row_bytes).step_by(LINE_BYTES) {
        for &row in chunk {
            all |= rows.get(row as usize * row_bytes + line).unwrap_or(&0);
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

fn write_cells<'a>(column: &ArrayRef, cell: Cell, rows: impl Iterator<Item = &'a mut [u8]>) {
    match column.data_type() {
        DataType::Utf8 => write_inline(column.as_string::<i32>(), cell, rows),
        DataType::LargeUtf8 => write_inline(column.as_string::<i64>(), cell, rows),
        DataType::Binary => write_inline(column.as_binary::<i32>(), cell, rows),
        DataType::LargeBinary => write_inline(column.as_binary::<i64>(), cell, rows),
        _ => {
            let num_bytes = cell.kind.num_bytes();
            let data = column.to_data();
            let values = &data.buffers()[0][data.offset() * num_bytes..];
            for (row, value) in rows.zip(values.chunks_exact(num_bytes)) {
                row[cell.at..cell.at + num_bytes].copy_from_slice(value);
            }
        }
    }
}

fn write_inline<'a, T: ByteArrayType>(
    array: &GenericByteArray<T>,
    cell: Cell,
    rows: impl Iterator<Item = &'a mut [u8]>,
) {
    let (offsets, data) = (array.value_offsets(), array.value_data());
    for (row, place) in rows.zip(offsets.windows(2)) {
        let value = &data[place[0].as_usize()..place[1].as_usize()];
        let cell = &mut row[cell.at..];
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
    use crate::index::NO_MATCH;

    const NUM_ROWS: usize = 40_000;

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
    fn what_is_small_or_long_or_alone_is_left_as_it_is() {
        let all = columns();
        let slices = all.iter().map(|column| column.slice(0, 100)).collect();
        assert!(Pack::new(slices).is_none());
        assert!(
            Pack::new(vec![Arc::clone(&all[3])]).is_none(),
            "one load a row"
        );
        assert!(Pack::new(Vec::new()).is_none());
        let long: StringArray = (0..NUM_ROWS).map(|_| Some("x".repeat(32))).collect();
        assert!(!Pack::takes(&(Arc::new(long) as ArrayRef)));
    }
}
