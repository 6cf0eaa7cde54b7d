//! The rows of a dimension's columns that a batch of facts has found.
//!
//! All columns of a dimension are gathered with the same row numbers. What follows from these alone is worked out once,
//! when the first column asks: which rows are null because nothing was found, and the row numbers as Arrow's own
//! kernels want them.
//!
//! Numbers, times, views and strings are gathered here, everything else by Arrow's `take`. The loops are plain: a row's
//! loads do not depend on those of the row before, so the processor has many of them under way at a time. What they
//! leave out is a look at a bitmap for each row: a row that was not found has a number past the end, where a load
//! gives the default instead. Strings are copied sixteen bytes at a time into room that is there already, since most
//! are short, and a call for each would take longer than the copy.

use std::cell::OnceCell;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{ByteArrayType, ByteViewType};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, GenericByteArray, GenericByteViewArray, PrimitiveArray,
    UInt32Array, downcast_primitive_array,
};
use arrow_buffer::{
    ArrowNativeType, BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer,
};
use arrow_schema::{ArrowError, DataType};
use arrow_select::take::take;

use crate::huge;
use crate::index::NO_MATCH;

/// The build rows of a batch of facts.
pub(crate) struct Wanted<'a> {
    rows: &'a [u32],
    has_misses: bool,
    nulls: OnceCell<Option<NullBuffer>>,
    indices: OnceCell<UInt32Array>,
}

impl<'a> Wanted<'a> {
    /// `rows` has one entry per fact, [`NO_MATCH`] where nothing was found.
    pub(crate) fn new(rows: &'a [u32]) -> Self {
        Self {
            rows,
            has_misses: rows.contains(&NO_MATCH),
            nulls: OnceCell::new(),
            indices: OnceCell::new(),
        }
    }

    /// The row numbers, [`NO_MATCH`] where nothing was found.
    pub(super) fn rows(&self) -> &[u32] {
        self.rows
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Null where nothing was found.
    pub(crate) fn nulls(&self) -> Option<NullBuffer> {
        let find = || {
            let is_found = |at: usize| self.rows[at] != NO_MATCH;
            let found = || BooleanBuffer::collect_bool(self.rows.len(), is_found);
            self.has_misses.then(|| NullBuffer::new(found()))
        };
        self.nulls.get_or_init(find).clone()
    }

    /// Whether all rows that were found are below a number.
    pub(crate) fn are_below(&self, num_rows: u32) -> bool {
        // One after `NO_MATCH` is 0. All are looked at, several at a time.
        let is_below = |row: u32| row.wrapping_add(1) <= num_rows;
        self.rows.iter().fold(true, |all, &row| all & is_below(row))
    }

    /// The row numbers, 0 where nothing was found.
    pub(crate) fn numbers<T>(&self, convert: impl Fn(u32) -> T) -> Vec<T> {
        let number = |&row: &u32| convert(if row == NO_MATCH { 0 } else { row });
        let mut numbers = huge::with_capacity(self.rows.len());
        numbers.extend(self.rows.iter().map(number));
        numbers
    }

    /// The row numbers as Arrow's kernels want them.
    pub(crate) fn indices(&self) -> &UInt32Array {
        self.indices.get_or_init(|| {
            let numbers = self.numbers(|row| row);
            UInt32Array::new(numbers.into(), self.nulls())
        })
    }

    /// Null where nothing was found, or where the row that was found is null.
    pub(super) fn nulls_of(&self, values: &dyn Array) -> Option<NullBuffer> {
        let Some(nulls) = values.nulls() else {
            return self.nulls();
        };
        let is_valid = |at: usize| {
            let row = self.rows[at];
            row != NO_MATCH && nulls.is_valid(row as usize)
        };
        let valid = BooleanBuffer::collect_bool(self.rows.len(), is_valid);
        Some(NullBuffer::new(valid)).filter(|nulls| nulls.null_count() > 0)
    }

    /// The values at the rows, the default where nothing was found.
    fn values<T: Copy + Default>(&self, values: &[T]) -> Vec<T> {
        let value = |&row: &u32| values.get(row as usize).copied().unwrap_or_default();
        let mut found = huge::with_capacity(self.rows.len());
        found.extend(self.rows.iter().map(value));
        found
    }
}

/// Takes the rows of a column, which is not empty. The type stays.
pub(super) fn gather(values: &ArrayRef, wanted: &Wanted<'_>) -> Result<ArrayRef, ArrowError> {
    let array = values.as_ref();
    downcast_primitive_array!(
        array => Ok(gather_primitive(array, wanted)),
        DataType::Utf8View => Ok(gather_views(array.as_string_view(), wanted)),
        DataType::BinaryView => Ok(gather_views(array.as_binary_view(), wanted)),
        DataType::Utf8 => gather_bytes(array.as_string::<i32>(), wanted),
        DataType::LargeUtf8 => gather_bytes(array.as_string::<i64>(), wanted),
        DataType::Binary => gather_bytes(array.as_binary::<i32>(), wanted),
        DataType::LargeBinary => gather_bytes(array.as_binary::<i64>(), wanted),
        _ => take(array, wanted.indices(), None)
    )
}

fn gather_primitive<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    wanted: &Wanted<'_>,
) -> ArrayRef {
    let gathered = wanted.values(array.values());
    let gathered = PrimitiveArray::<T>::new(gathered.into(), wanted.nulls_of(array));
    Arc::new(gathered.with_data_type(array.data_type().clone()))
}

fn gather_views<T: ByteViewType + ?Sized>(
    array: &GenericByteViewArray<T>,
    wanted: &Wanted<'_>,
) -> ArrayRef {
    with_views(array, wanted.values(array.views()), wanted)
}

/// The wanted rows of an array, of which these are the views, zero where nothing was found.
///
/// They share the list of the array's buffers: to copy it counts one more user of each buffer, for every batch.
#[expect(
    unsafe_code,
    reason = "to look at every view again would cost more than the gather"
)]
pub(super) fn with_views<T: ByteViewType + ?Sized>(
    array: &GenericByteViewArray<T>,
    views: Vec<u128>,
    wanted: &Wanted<'_>,
) -> ArrayRef {
    let views = ScalarBuffer::from(views);
    let buffers = array.clone().into_parts().1;
    let nulls = wanted.nulls_of(array);
    // SAFETY: each view is one of a valid array over the same buffers, or all zero, which is the empty value. There is
    // one bit of `nulls` for each of `wanted`, as there is one view.
    Arc::new(unsafe { GenericByteViewArray::<T>::new_unchecked(views, buffers, nulls) })
}

/// Bytes that are copied at once.
const CHUNK_BYTES: usize = 16;

#[expect(
    unsafe_code,
    reason = "to look at every string again would cost as much as the gather"
)]
fn gather_bytes<T: ByteArrayType>(
    array: &GenericByteArray<T>,
    wanted: &Wanted<'_>,
) -> Result<ArrayRef, ArrowError> {
    let (from, data) = (array.value_offsets(), array.value_data());
    let place = |row: u32| -> (usize, usize) {
        // A row that was not found has a number past all offsets.
        match from.get(row as usize..).and_then(<[_]>::first_chunk) {
            Some([start, end]) => (start.as_usize(), end.as_usize()),
            None => (0, 0),
        }
    };
    let mut offsets = Vec::with_capacity(wanted.len() + 1);
    let mut num_bytes = 0;
    offsets.push(T::Offset::usize_as(0));
    for &row in wanted.rows {
        let (start, end) = place(row);
        num_bytes += end - start;
        offsets.push(T::Offset::usize_as(num_bytes));
    }
    if T::Offset::from_usize(num_bytes).is_none() {
        return Err(ArrowError::OffsetOverflowError(num_bytes));
    }
    // The last chunks may reach past what they are for.
    let mut bytes = huge::with_capacity(num_bytes + CHUNK_BYTES);
    bytes.resize(num_bytes + CHUNK_BYTES, 0);
    let mut to = 0;
    for &row in wanted.rows {
        let (start, end) = place(row);
        let len = end - start;
        match data[start..].first_chunk::<CHUNK_BYTES>() {
            Some(chunk) if len <= CHUNK_BYTES => {
                bytes[to..to + CHUNK_BYTES].copy_from_slice(chunk);
            }
            _ => bytes[to..to + len].copy_from_slice(&data[start..end]),
        }
        to += len;
    }
    bytes.truncate(num_bytes);
    let bytes = Buffer::from_vec(bytes);
    let nulls = wanted.nulls_of(array);
    // SAFETY: the offsets ascend from 0.
    let offsets = unsafe { OffsetBuffer::new_unchecked(offsets.into()) };
    // SAFETY: the last offset is the length of `bytes`, and fits its type. Between two of them is a copy of a whole value
    // of a valid array, or nothing, so what are strings there are strings here. There is one bit of `nulls` for each.
    let gathered = unsafe { GenericByteArray::<T>::new_unchecked(offsets, bytes, nulls) };
    Ok(Arc::new(gathered))
}

#[cfg(test)]
mod tests {
    use arrow_array::{
        BinaryArray, Date32Array, Decimal128Array, Float64Array, LargeStringArray, StringArray,
        StringViewArray, TimestampMillisecondArray,
    };

    use super::*;

    #[test]
    fn gathers_equal_take() {
        let texts: Vec<Option<String>> = (0..40)
            .map(|len| (len % 7 != 3).then(|| "é".repeat(len / 2) + &"x".repeat(len % 2)))
            .collect();
        let numbers = || (0..40).map(|i| (i % 5 != 2).then_some(i));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(texts.iter().collect::<StringArray>()),
            Arc::new(texts.iter().collect::<StringArray>().slice(5, 30)),
            Arc::new(texts.iter().collect::<LargeStringArray>()),
            Arc::new(texts.iter().collect::<StringViewArray>().slice(3, 30)),
            Arc::new(BinaryArray::from_iter_values(texts.iter().flatten())),
            Arc::new(numbers().collect::<Date32Array>()),
            Arc::new(Float64Array::from_iter_values((0..40).map(f64::from))),
            Arc::new(
                numbers()
                    .map(|n| n.map(i64::from))
                    .collect::<TimestampMillisecondArray>()
                    .with_timezone("Europe/Berlin"),
            ),
            Arc::new(
                Decimal128Array::from_iter_values(0..40)
                    .with_precision_and_scale(20, 3)
                    .unwrap(),
            ),
        ];
        let misses: Vec<u32> = (0..200)
            .map(|i: u32| if i % 11 == 4 { NO_MATCH } else { i * 7 % 30 })
            .collect();
        let hits: Vec<u32> = (0..200).map(|i| i * 7 % 30).collect();
        for column in &columns {
            for rows in [&misses[..], &hits, &misses[..5], &[], &[NO_MATCH; 3]] {
                let wanted = Wanted::new(rows);
                let found = gather(column, &wanted).unwrap();
                let expected = take(column, wanted.indices(), None).unwrap();
                assert_eq!(&found, &expected);
                found.to_data().validate_full().unwrap();
            }
        }
    }
}
