//! Key columns to `i64`, exactly: a value that the dimension's domain cannot hold becomes a miss.

use std::cmp::Ordering;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType,
    Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType, Time32SecondType,
    Time64MicrosecondType, Time64NanosecondType, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_buffer::i256;
use arrow_schema::{DataType, TimeUnit};

/// What a fact value is multiplied or divided by to count in the units of the dimension's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Factor {
    Same,
    Multiply(i256),
    /// A value that this does not divide has no equal in the dimension.
    Divide(i256),
    /// The factor is past 256 bits: only zero has an equal.
    ZeroOnly,
}

impl Factor {
    /// The factor `10^exponent`.
    pub(crate) fn power_of_ten(exponent: i32) -> Self {
        let factor = i256::from(10).checked_pow(exponent.unsigned_abs());
        match (exponent, factor) {
            (0, _) => Self::Same,
            (_, None) => Self::ZeroOnly,
            (1.., Some(by)) => Self::Multiply(by),
            (_, Some(by)) => Self::Divide(by),
        }
    }

    /// The factor from ticks of one length to ticks of another. One of the two must divide the
    /// other.
    pub(crate) fn ticks(from_ns: i64, to_ns: i64) -> Self {
        match from_ns.cmp(&to_ns) {
            Ordering::Equal => Self::Same,
            Ordering::Greater => Self::Multiply((from_ns / to_ns).into()),
            Ordering::Less => Self::Divide((to_ns / from_ns).into()),
        }
    }

    /// Applies the factor; `None` if the result is not exact or does not fit.
    pub(crate) fn apply(self, value: i256) -> Option<i256> {
        match self {
            Self::Same => Some(value),
            Self::Multiply(by) => value.checked_mul(by),
            Self::Divide(by) => {
                (value.wrapping_rem(by) == i256::ZERO).then(|| value.wrapping_div(by))
            }
            Self::ZeroOnly => (value == i256::ZERO).then_some(value),
        }
    }

    /// The same factor for values of up to 128 bits whose results are wanted in 128 bits.
    fn narrow(self) -> NarrowFactor {
        let narrow = |by: i256| by.to_i128();
        match self {
            Self::Same => NarrowFactor::Same,
            Self::Multiply(by) => narrow(by).map_or(NarrowFactor::ZeroOnly, NarrowFactor::Multiply),
            Self::Divide(by) => narrow(by).map_or(NarrowFactor::ZeroOnly, NarrowFactor::Divide),
            Self::ZeroOnly => NarrowFactor::ZeroOnly,
        }
    }
}

#[derive(Clone, Copy)]
enum NarrowFactor {
    Same,
    Multiply(i128),
    Divide(i128),
    ZeroOnly,
}

impl NarrowFactor {
    fn apply(self, value: i128) -> Option<i128> {
        match self {
            Self::Same => Some(value),
            Self::Multiply(by) => value.checked_mul(by),
            Self::Divide(by) => (value % by == 0).then(|| value / by),
            Self::ZeroOnly => (value == 0).then_some(0),
        }
    }
}

/// How a column becomes `i64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IntConversion {
    pub(crate) factor: Factor,
    /// The dimension's key is `u64`: results are `u64` with their bits taken as `i64`.
    pub(crate) unsigned: bool,
}

/// The nanoseconds in one tick of a type that counts time.
pub(crate) fn tick_ns(data_type: &DataType) -> Option<i64> {
    let unit = match data_type {
        DataType::Date32 => return Some(86_400_000_000_000),
        DataType::Date64 => TimeUnit::Millisecond,
        DataType::Time32(unit)
        | DataType::Time64(unit)
        | DataType::Timestamp(unit, _)
        | DataType::Duration(unit) => *unit,
        _ => return None,
    };
    Some(match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    })
}

/// Brings a plain (not dictionary) column into the domain of the dimension's key: a borrow of its
/// own values where they are right already, else the result in `out`.
///
/// `misses` gets the rows without a representation, in order; what stands in `out` there, and where
/// the column is null, means nothing.
pub(crate) fn to_ints<'a>(
    array: &'a dyn Array,
    conversion: IntConversion,
    out: &'a mut Vec<i64>,
    misses: &mut Vec<u32>,
) -> &'a [i64] {
    macro_rules! small {
        ($type:ty) => {{
            let values: &'a [_] = array.as_primitive::<$type>().values();
            from_small(values, conversion, out, misses);
        }};
    }
    macro_rules! long {
        ($type:ty) => {{
            let values: &'a [i64] = array.as_primitive::<$type>().values();
            if conversion
                == (IntConversion {
                    factor: Factor::Same,
                    unsigned: false,
                })
            {
                return values;
            }
            from_small(values, conversion, out, misses);
        }};
    }
    out.clear();
    match array.data_type() {
        DataType::Boolean => {
            out.extend(array.as_boolean().values().iter().map(i64::from));
        }
        DataType::Int8 => small!(Int8Type),
        DataType::Int16 => small!(Int16Type),
        DataType::Int32 => small!(Int32Type),
        DataType::Int64 => long!(Int64Type),
        DataType::UInt8 => small!(UInt8Type),
        DataType::UInt16 => small!(UInt16Type),
        DataType::UInt32 => small!(UInt32Type),
        DataType::UInt64 => {
            let values: &'a [u64] = array.as_primitive::<UInt64Type>().values();
            if conversion
                == (IntConversion {
                    factor: Factor::Same,
                    unsigned: true,
                })
            {
                out.extend(values.iter().map(|value| value.cast_signed()));
            } else {
                from_wide(values, conversion, out, misses);
            }
        }
        DataType::Date32 => small!(Date32Type),
        DataType::Date64 => long!(Date64Type),
        DataType::Time32(TimeUnit::Second) => small!(Time32SecondType),
        DataType::Time32(_) => small!(Time32MillisecondType),
        DataType::Time64(TimeUnit::Microsecond) => long!(Time64MicrosecondType),
        DataType::Time64(_) => long!(Time64NanosecondType),
        DataType::Timestamp(TimeUnit::Second, _) => long!(TimestampSecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => long!(TimestampMillisecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => long!(TimestampMicrosecondType),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => long!(TimestampNanosecondType),
        DataType::Duration(TimeUnit::Second) => long!(DurationSecondType),
        DataType::Duration(TimeUnit::Millisecond) => long!(DurationMillisecondType),
        DataType::Duration(TimeUnit::Microsecond) => long!(DurationMicrosecondType),
        DataType::Duration(TimeUnit::Nanosecond) => long!(DurationNanosecondType),
        DataType::Decimal32(..) => small!(Decimal32Type),
        DataType::Decimal64(..) => long!(Decimal64Type),
        DataType::Decimal128(..) => {
            let values: &'a [i128] = array.as_primitive::<Decimal128Type>().values();
            from_wide(values, conversion, out, misses);
        }
        DataType::Decimal256(..) => {
            let values: &'a [i256] = array.as_primitive::<Decimal256Type>().values();
            let target = target(conversion.unsigned);
            convert(values, out, misses, |value| {
                target(conversion.factor.apply(value)?.to_i128()?)
            });
        }
        other => unreachable!("a plan never converts this type to integers: {other}"),
    }
    out
}

fn from_small<T: Copy + Into<i64>>(
    values: &[T],
    conversion: IntConversion,
    out: &mut Vec<i64>,
    misses: &mut Vec<u32>,
) {
    let narrow = |by: i256| by.to_i128().and_then(|by| i64::try_from(by).ok());
    let factor = match conversion.factor {
        Factor::Same => Some((true, 1)),
        Factor::Multiply(by) => narrow(by).map(|by| (true, by)),
        Factor::Divide(by) => narrow(by).map(|by| (false, by)),
        Factor::ZeroOnly => None,
    };
    match (conversion.unsigned, factor) {
        (false, Some((true, 1))) => out.extend(values.iter().map(|&value| value.into())),
        (false, Some((true, by))) => {
            convert(values, out, misses, |value| value.into().checked_mul(by));
        }
        (false, Some((false, by))) => convert(values, out, misses, |value| {
            let value = value.into();
            (value % by == 0).then(|| value / by)
        }),
        _ => {
            let factor = conversion.factor.narrow();
            let target = target(conversion.unsigned);
            convert(values, out, misses, |value| {
                target(factor.apply(value.into().into())?)
            });
        }
    }
}

fn from_wide<T: Copy + Into<i128>>(
    values: &[T],
    conversion: IntConversion,
    out: &mut Vec<i64>,
    misses: &mut Vec<u32>,
) {
    let factor = conversion.factor.narrow();
    let target = target(conversion.unsigned);
    convert(values, out, misses, |value| {
        target(factor.apply(value.into())?)
    });
}

fn target(unsigned: bool) -> fn(i128) -> Option<i64> {
    if unsigned {
        |value| u64::try_from(value).ok().map(u64::cast_signed)
    } else {
        |value| i64::try_from(value).ok()
    }
}

fn convert<T: Copy>(
    values: &[T],
    out: &mut Vec<i64>,
    misses: &mut Vec<u32>,
    to_int: impl Fn(T) -> Option<i64>,
) {
    out.extend((0_u32..).zip(values).map(|(row, &value)| {
        to_int(value).unwrap_or_else(|| {
            misses.push(row);
            0
        })
    }));
}
