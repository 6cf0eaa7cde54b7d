//! Columns of few values as numbers of these: a city, a currency, a sector.
//!
//! A number takes two bytes where a string view takes sixteen. So rows get shorter, a cache holds more of them, and a
//! column alone may fit one. The values themselves are few enough to stay near the processor.

use std::collections::HashMap;

use arrow_array::cast::AsArray;
use arrow_array::types::ByteArrayType;
use arrow_array::{Array, ArrayRef, GenericByteArray};
use arrow_buffer::ArrowNativeType;
use arrow_schema::DataType;
use foldhash::fast::FixedState;

/// The bytes of a number.
pub(super) const CODE_BYTES: usize = size_of::<u16>();

/// More values than these would not stay near the processor: 64 KiB of views.
const VALUES_MAX: usize = 4096;

/// Which of a column's values each row has.
pub(super) struct Codes {
    /// For each value the first row that has it.
    pub(super) first_rows: Vec<u32>,
    /// For each row the number of its value.
    pub(super) codes: Vec<u16>,
}

impl Codes {
    /// `None` if there are many values. Most columns that have many say so soon.
    ///
    /// What a null row has is a value like any other. `values` is a column that goes into rows.
    pub(super) fn of(values: &ArrayRef) -> Option<Self> {
        match values.data_type() {
            DataType::Utf8 => Self::of_values(&mut all(values.as_string::<i32>())),
            DataType::LargeUtf8 => Self::of_values(&mut all(values.as_string::<i64>())),
            DataType::Binary => Self::of_values(&mut all(values.as_binary::<i32>())),
            DataType::LargeBinary => Self::of_values(&mut all(values.as_binary::<i64>())),
            DataType::Utf8View => {
                let array = values.as_string_view();
                Self::of_values(&mut (0..array.len()).map(|row| array.value(row).as_bytes()))
            }
            DataType::BinaryView => {
                let array = values.as_binary_view();
                Self::of_values(&mut (0..array.len()).map(|row| array.value(row)))
            }
            other => {
                let width = other.primitive_width()?;
                let data = values.to_data();
                let bytes = data.buffers().first()?.get(data.offset() * width..)?;
                Self::of_values(&mut bytes.chunks_exact(width).take(values.len()))
            }
        }
    }

    fn of_values(values: &mut dyn Iterator<Item = &[u8]>) -> Option<Self> {
        let mut known = HashMap::with_hasher(FixedState::with_seed(0));
        let mut codes = Codes {
            first_rows: Vec::new(),
            codes: Vec::new(),
        };
        for (row, value) in (0..).zip(values) {
            let num_known = codes.first_rows.len();
            let code = *known.entry(value).or_insert(num_known);
            if code == num_known {
                if num_known == VALUES_MAX {
                    return None;
                }
                codes.first_rows.push(row);
            }
            codes.codes.push(u16::try_from(code).ok()?);
        }
        Some(codes)
    }
}

fn all<T: ByteArrayType>(array: &GenericByteArray<T>) -> impl Iterator<Item = &[u8]> {
    let data = array.value_data();
    let places = array.offsets().windows(2);
    places.map(|place| &data[place[0].as_usize()..place[1].as_usize()])
}
