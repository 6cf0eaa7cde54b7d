//! Columns of few values as numbers of these: a city, a currency, a sector.
//!
//! A number takes two bytes where a string view takes sixteen. So rows get shorter, a cache holds more of them, and a
//! column alone may fit one. The values themselves are few enough to stay near the processor.

use std::collections::{HashMap, HashSet};

use arrow_array::cast::AsArray;
use arrow_array::types::ByteArrayType;
use arrow_array::{Array, ArrayRef, GenericByteArray};
use arrow_buffer::ArrowNativeType;
use arrow_schema::DataType;
use foldhash::fast::FixedState;

/// The bytes of a number.
pub(super) const CODE_BYTES: usize = size_of::<u16>();

/// More values than these would not stay near the processor: 64 KiB of views, 128 KiB of the longest cells.
const VALUES_MAX: usize = 4096;

/// Longer values are left alone: to look at all of them takes longer than to copy views of them.
const VALUE_BYTES_MAX: usize = 64;

/// Rows that are looked at first, from all over the column: where values come in order, the first rows have few of many.
const SAMPLE_ROWS: usize = 16 << 10;

/// Which of a column's values each row has.
pub(super) struct Codes {
    /// For each value the first row that has it.
    pub(super) first_rows: Vec<u32>,
    /// For each row the number of its value.
    pub(super) codes: Vec<u16>,
}

impl Codes {
    /// `None` if there are many values, or long ones. What a null row has is a value like any other. `values` is a column
    /// that goes into rows.
    pub(super) fn of(values: &ArrayRef) -> Option<Self> {
        let num_rows = values.len();
        match values.data_type() {
            DataType::Utf8 => Self::of_rows(num_rows, bytes_of(values.as_string::<i32>())),
            DataType::LargeUtf8 => Self::of_rows(num_rows, bytes_of(values.as_string::<i64>())),
            DataType::Binary => Self::of_rows(num_rows, bytes_of(values.as_binary::<i32>())),
            DataType::LargeBinary => Self::of_rows(num_rows, bytes_of(values.as_binary::<i64>())),
            DataType::Utf8View => {
                let array = values.as_string_view();
                Self::of_rows(num_rows, |row| array.value(row).as_bytes())
            }
            DataType::BinaryView => {
                let array = values.as_binary_view();
                Self::of_rows(num_rows, |row| array.value(row))
            }
            other => {
                let width = other.primitive_width()?;
                let data = values.to_data();
                let bytes = data.buffers().first()?.get(data.offset() * width..)?;
                Self::of_rows(num_rows, |row| &bytes[row * width..(row + 1) * width])
            }
        }
    }

    fn of_rows<'a>(num_rows: usize, value: impl Fn(usize) -> &'a [u8]) -> Option<Self> {
        let mut sample = HashSet::with_hasher(FixedState::with_seed(0));
        for row in (0..num_rows)
            .step_by((num_rows / SAMPLE_ROWS).max(1))
            .take(SAMPLE_ROWS)
        {
            let value = value(row);
            sample.insert(value);
            if sample.len() > VALUES_MAX || value.len() > VALUE_BYTES_MAX {
                return None;
            }
        }
        let mut known = HashMap::with_hasher(FixedState::with_seed(0));
        let mut first_rows = Vec::new();
        let mut codes = Vec::with_capacity(num_rows);
        for row in 0..num_rows {
            let value = value(row);
            if value.len() > VALUE_BYTES_MAX {
                return None;
            }
            let code = *known.entry(value).or_insert(first_rows.len());
            if code == first_rows.len() {
                if code == VALUES_MAX {
                    return None;
                }
                first_rows.push(u32::try_from(row).ok()?);
            }
            codes.push(u16::try_from(code).ok()?);
        }
        Some(Self { first_rows, codes })
    }
}

fn bytes_of<'a, T: ByteArrayType>(array: &'a GenericByteArray<T>) -> impl Fn(usize) -> &'a [u8] {
    let (offsets, data) = (array.value_offsets(), array.value_data());
    move |row| &data[offsets[row].as_usize()..offsets[row + 1].as_usize()]
}
