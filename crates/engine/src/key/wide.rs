//! Numbers to `i256`, for decimals that `i64` cannot hold.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Int8Type, Int16Type, Int32Type,
    Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrowPrimitiveType, Decimal256Array};
use arrow_buffer::i256;
use arrow_schema::DataType;

use super::int::Factor;

/// Brings a plain column of numbers to the scale of the dimension's key. The result says scale 0:
/// only its integers are compared. `misses` gets the rows without a representation.
pub(crate) fn to_wide(array: &dyn Array, factor: Factor, misses: &mut Vec<u32>) -> Decimal256Array {
    macro_rules! from {
        ($type:ty) => {
            convert::<$type>(array, misses, |value| {
                factor.apply(i256::from_i128(value.into()))
            })
        };
    }
    match array.data_type() {
        DataType::Int8 => from!(Int8Type),
        DataType::Int16 => from!(Int16Type),
        DataType::Int32 => from!(Int32Type),
        DataType::Int64 => from!(Int64Type),
        DataType::UInt8 => from!(UInt8Type),
        DataType::UInt16 => from!(UInt16Type),
        DataType::UInt32 => from!(UInt32Type),
        DataType::UInt64 => from!(UInt64Type),
        DataType::Decimal32(..) => from!(Decimal32Type),
        DataType::Decimal64(..) => from!(Decimal64Type),
        DataType::Decimal128(..) => from!(Decimal128Type),
        DataType::Decimal256(..) => {
            convert::<Decimal256Type>(array, misses, |value| factor.apply(value))
        }
        other => unreachable!("a plan never converts this type to a wide number: {other}"),
    }
}

/// The type of what [`to_wide`] returns.
pub(crate) const WIDE: DataType = DataType::Decimal256(76, 0);

fn convert<T: ArrowPrimitiveType>(
    array: &dyn Array,
    misses: &mut Vec<u32>,
    to_wide: impl Fn(T::Native) -> Option<i256>,
) -> Decimal256Array {
    let array = array.as_primitive::<T>();
    let values: Vec<i256> = (0_u32..)
        .zip(array.values().iter())
        .map(|(row, &value)| {
            to_wide(value).unwrap_or_else(|| {
                misses.push(row);
                i256::ZERO
            })
        })
        .collect();
    Decimal256Array::new(values.into(), array.nulls().cloned()).with_data_type(WIDE)
}
