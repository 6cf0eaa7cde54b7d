//! The smallest and the largest value of each column of a page.

use arrow_array::{
    Array, ArrayRef, ArrowNativeTypeOp, OffsetSizeTrait, cast::AsArray, downcast_primitive_array,
};
use arrow_buffer::NullBuffer;
use arrow_row::{RowConverter, SortField};
use arrow_schema::DataType;

use crate::{
    codec::{Decoder, Encoder},
    error::Result,
};

/// A longer encoded value is not kept: a page list is read as a whole, so it must stay small.
const VALUE_BYTES_MAX: usize = 128;

/// The smallest and the largest value of a column, encoded.
pub type Bounds = (Box<[u8]>, Box<[u8]>);

/// What is known of one column of a page.
///
/// The bounds are in the order-preserving encoding of the `arrow-row` crate for the column's (value) type, ascending,
/// nulls first: they compare as bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnStats {
    /// Rows in which the column is null.
    pub num_nulls: u32,
    /// The smallest and the largest value that is not null. `None` if there is none, or if it is not known.
    pub bounds: Option<Bounds>,
}

impl ColumnStats {
    /// Looks at one column.
    pub(crate) fn of(column: &ArrayRef) -> Self {
        let num_nulls = u32::try_from(column.logical_null_count()).unwrap_or(u32::MAX);
        if !has_bounds(column.data_type()) || num_nulls as usize >= column.len() {
            return Self {
                num_nulls,
                bounds: None,
            };
        }
        let bounds = bounds(column)
            .filter(|(min, max)| min.len() <= VALUE_BYTES_MAX && max.len() <= VALUE_BYTES_MAX);
        Self { num_nulls, bounds }
    }

    pub(crate) fn encode(&self, out: &mut Encoder) {
        out.put_u32(self.num_nulls);
        match &self.bounds {
            None => out.put_u8(0),
            Some((min, max)) => {
                out.put_u8(1);
                out.put_bytes(min);
                out.put_bytes(max);
            }
        }
    }

    pub(crate) fn decode(input: &mut Decoder<'_>) -> Result<Self> {
        let num_nulls = input.get_u32()?;
        let bounds = match input.get_u8()? {
            0 => None,
            _ => Some((input.get_bytes()?.into(), input.get_bytes()?.into())),
        };
        Ok(Self { num_nulls, bounds })
    }
}

/// Types whose smallest and largest value is of use to somebody.
fn has_bounds(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => has_bounds(value),
        DataType::Null | DataType::Interval(_) => false,
        data_type => !data_type.is_nested(),
    }
}

fn bounds(column: &ArrayRef) -> Option<Bounds> {
    let encode = |rows: &ArrayRef| {
        let field = SortField::new(rows.data_type().clone());
        let converter = RowConverter::new(vec![field]).ok()?;
        converter.convert_columns(&[ArrayRef::clone(rows)]).ok()
    };
    // Encoding all values costs more than all the rest of a page, so where their order is plain only two are encoded.
    if let Some((min, max)) = extremes(column) {
        let ends = [column.slice(min, 1), column.slice(max, 1)];
        let [min, max] = ends.map(|end| Some(encode(&end)?.row(0).as_ref().into()));
        return Some((min?, max?));
    }
    let rows = encode(column)?;
    let nulls = column.logical_nulls();
    let valid = (0..column.len())
        .filter(|row| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row)))
        .map(|row| rows.row(row));
    let (mut min, mut max) = (None, None);
    for row in valid {
        if min.is_none_or(|min| row < min) {
            min = Some(row);
        }
        if max.is_none_or(|max| row > max) {
            max = Some(row);
        }
    }
    Some((min?.as_ref().into(), max?.as_ref().into()))
}

/// The rows of the smallest and the largest value, in the order that the row encoding has too. `None` for types whose
/// order is not looked into here, and if all values are null.
fn extremes(column: &ArrayRef) -> Option<(usize, usize)> {
    let array = column.as_ref();
    downcast_primitive_array!(
        array => extremes_by(array.nulls(), array.len(), |row| array.value(row), |a, b| a.is_lt(*b)),
        DataType::Utf8 => {
            let array = array.as_string::<i32>();
            extremes_of_offsets(array.nulls(), array.value_offsets(), array.value_data())
        },
        DataType::LargeUtf8 => {
            let array = array.as_string::<i64>();
            extremes_of_offsets(array.nulls(), array.value_offsets(), array.value_data())
        },
        DataType::Binary => {
            let array = array.as_binary::<i32>();
            extremes_of_offsets(array.nulls(), array.value_offsets(), array.value_data())
        },
        DataType::LargeBinary => {
            let array = array.as_binary::<i64>();
            extremes_of_offsets(array.nulls(), array.value_offsets(), array.value_data())
        },
        DataType::Utf8View => extremes_of_bytes(array.nulls(), array.len(), |row| array.as_string_view().value(row).as_bytes()),
        DataType::BinaryView => extremes_of_bytes(array.nulls(), array.len(), |row| array.as_binary_view().value(row)),
        _ => None,
    )
}

fn extremes_by<T>(
    nulls: Option<&NullBuffer>,
    num_rows: usize,
    value: impl Fn(usize) -> T,
    is_less: impl Fn(&T, &T) -> bool,
) -> Option<(usize, usize)> {
    let mut valid = (0..num_rows).filter(|row| nulls.is_none_or(|nulls| nulls.is_valid(*row)));
    let first = valid.next()?;
    let (mut min, mut max) = ((value(first), first), (value(first), first));
    for row in valid {
        let value = value(row);
        if is_less(&value, &min.0) {
            min = (value, row);
        } else if is_less(&max.0, &value) {
            max = (value, row);
        }
    }
    Some((min.1, max.1))
}

/// Compares the first eight bytes as a number, and the rest only where these are equal.
fn extremes_of_bytes<'a>(
    nulls: Option<&NullBuffer>,
    num_rows: usize,
    value: impl Fn(usize) -> &'a [u8],
) -> Option<(usize, usize)> {
    let prefixed = |row: usize| {
        let bytes = value(row);
        let mut prefix = [0; 8];
        let len = bytes.len().min(8);
        prefix[..len].copy_from_slice(&bytes[..len]);
        (u64::from_be_bytes(prefix), bytes)
    };
    extremes_by(nulls, num_rows, prefixed, |a, b| a < b)
}

/// As [`extremes_of_bytes`], for values that lie one behind the other: most prefixes are one load then.
fn extremes_of_offsets<O: OffsetSizeTrait>(
    nulls: Option<&NullBuffer>,
    offsets: &[O],
    values: &[u8],
) -> Option<(usize, usize)> {
    let prefixed = |row: usize| {
        let (start, end) = (offsets[row].as_usize(), offsets[row + 1].as_usize());
        let bytes = &values[start..end];
        let prefix = if let Some(chunk) = values[start..].first_chunk() {
            // What follows a value of less than eight bytes is not its own.
            let num_foreign = 8_usize.saturating_sub(bytes.len());
            let own = if num_foreign == 8 {
                0
            } else {
                u64::MAX << (8 * num_foreign)
            };
            u64::from_be_bytes(*chunk) & own
        } else {
            let mut prefix = [0; 8];
            prefix[..bytes.len()].copy_from_slice(bytes);
            u64::from_be_bytes(prefix)
        };
        (prefix, bytes)
    };
    extremes_by(nulls, offsets.len() - 1, prefixed, |a, b| a < b)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{BinaryArray, Float64Array, Int32Array, StringArray, StringViewArray};

    use super::*;

    /// The bounds from encoding every value.
    fn encoded(column: &ArrayRef) -> Option<Bounds> {
        let field = SortField::new(column.data_type().clone());
        let converter = RowConverter::new(vec![field]).unwrap();
        let rows = converter.convert_columns(&[Arc::clone(column)]).unwrap();
        let valid = (0..column.len()).filter(|row| column.is_valid(*row));
        let values: Vec<_> = valid.map(|row| rows.row(row)).collect();
        Some((
            values.iter().min()?.as_ref().into(),
            values.iter().max()?.as_ref().into(),
        ))
    }

    #[test]
    fn bounds_are_those_of_the_row_encoding() {
        let texts = [
            "",
            "a",
            "a\0",
            "abcdefgh",
            "abcdefghi",
            "abcdefgh\0",
            "zz",
            "é",
        ];
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(vec![Some(3), None, Some(-4), Some(3)])),
            Arc::new(Int32Array::from(vec![None, None])),
            Arc::new(Float64Array::from(vec![
                0.0,
                -0.0,
                f64::NAN,
                -f64::NAN,
                7.5,
                f64::INFINITY,
            ])),
            Arc::new(Float64Array::from(vec![0.0, -0.0])),
            Arc::new(StringViewArray::from_iter_values(texts)),
            Arc::new(StringArray::from_iter_values(texts)),
            Arc::new(StringArray::from_iter_values(texts).slice(1, 3)),
            Arc::new(StringArray::from_iter_values(["b", "abcdefghi"])),
            Arc::new(BinaryArray::from_iter_values(texts.iter().rev())),
            Arc::new(BinaryArray::from_iter_values(["abcdefgh\0", "abcdefgh"])),
        ];
        for column in columns {
            assert_eq!(bounds(&column), encoded(&column), "{column:?}");
        }
    }
}
