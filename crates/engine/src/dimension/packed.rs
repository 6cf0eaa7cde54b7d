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

use arrow_array::{Array, ArrayRef};
use arrow_schema::ArrowError;

use super::Wanted;
use super::cells::{CellKind, Output, TAIL_BYTES, write_cells};
use super::codes::{CODE_BYTES, Codes};
use super::gather::gather;
use crate::huge;
use crate::index::NO_MATCH;
use crate::prefetch::{LINE_BYTES, prefetch};

/// Rows that are gathered at once: their cells stay in the first cache meanwhile.
const CHUNK_ROWS: usize = 256;

/// A row is asked for while so many before it are waited for.
const AHEAD_ROWS: usize = 64;

/// Rows of fewer bytes are in the third cache, and come soon enough as they are looked at. Million rows of 32 bytes a second,
/// two threads, asked for ahead and not: of 100,000 or 200,000 330 and 370, of 500,000 300 and 260.
const NEAR_BYTES: usize = 8 << 20;

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
        let is_far = rows.len() > NEAR_BYTES;
        let mut outputs: Vec<Output> = self
            .columns
            .iter()
            .zip(&self.kinds)
            .map(|(column, kind)| Output::new(column, *kind, wanted.len()))
            .collect();
        let mut numbers = [NO_MATCH; CHUNK_ROWS];
        let mut ahead = wanted.rows();
        for chunk in wanted.rows().chunks(CHUNK_ROWS) {
            if is_far {
                touch(rows, row_bytes, ahead);
            }
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
        LargeStringArray, StringArray, StringViewArray, TimestampMillisecondArray,
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
