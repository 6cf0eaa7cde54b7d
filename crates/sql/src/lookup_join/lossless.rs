//! Casts that leave a value what it is.

use arrow_schema::DataType;

/// Whether a cast keeps every value, so that two are equal after it if and only if they were before.
///
/// Says no where it does not know. Keys that are compared after such a cast compare by value in a dimension, which
/// sees the column as it is stored.
pub(super) fn is_lossless(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Binary, BinaryView, Date32, Date64, Dictionary, FixedSizeBinary, LargeBinary, LargeUtf8,
        Timestamp, Utf8, Utf8View,
    };
    if from == to {
        return true;
    }
    match (from, to) {
        (Dictionary(_, values), to) => is_lossless(values, to),
        // Smaller keys may not do for the values of a batch.
        (from, Dictionary(keys, values)) => {
            keys.primitive_width() >= Some(4) && is_lossless(from, values)
        }
        (Utf8 | LargeUtf8 | Utf8View, LargeUtf8 | Utf8View)
        | (Binary | LargeBinary | BinaryView | FixedSizeBinary(_), LargeBinary | BinaryView)
        | (FixedSizeBinary(_), Binary)
        | (Date32, Date64) => true,
        // The same moments. A cast to or from times without a zone would move them. A finer unit does not reach as far,
        // and a cast of a time beyond fails where a comparison by value finds that there is none like it.
        (Timestamp(from, from_zone), Timestamp(to, to_zone)) => {
            from <= to && from_zone.is_some() == to_zone.is_some()
        }
        _ => match (digits(from), digits(to)) {
            (Some(from), Some(to)) => from.fit(&to),
            _ => false,
        },
    }
}

/// The numbers that a type holds.
struct Digits {
    /// Whether there are negative ones.
    is_signed: bool,
    /// Bits before the point, for integers.
    bits: Option<u32>,
    /// Decimal digits before the point that it holds all of, and at most.
    whole_min: i32,
    whole_max: i32,
    scale: i32,
}

impl Digits {
    fn fit(&self, to: &Self) -> bool {
        if self.is_signed && !to.is_signed {
            return false;
        }
        match (self.bits, to.bits) {
            (Some(from), Some(bits)) => {
                // A sign takes a bit of what has one.
                let value = |bits, is_signed| bits - u32::from(is_signed);
                value(from, self.is_signed) <= value(bits, to.is_signed)
            }
            _ => self.whole_max <= to.whole_min && self.scale <= to.scale,
        }
    }
}

fn digits(data_type: &DataType) -> Option<Digits> {
    let integer = |bits: u32, is_signed: bool, whole_max: i32| Digits {
        is_signed,
        bits: Some(bits),
        whole_min: whole_max - 1,
        whole_max,
        scale: 0,
    };
    Some(match data_type {
        DataType::Int8 => integer(8, true, 3),
        DataType::Int16 => integer(16, true, 5),
        DataType::Int32 => integer(32, true, 10),
        DataType::Int64 => integer(64, true, 19),
        DataType::UInt8 => integer(8, false, 3),
        DataType::UInt16 => integer(16, false, 5),
        DataType::UInt32 => integer(32, false, 10),
        DataType::UInt64 => integer(64, false, 20),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => {
            let whole = i32::from(*precision) - i32::from(*scale);
            Digits {
                is_signed: true,
                bits: None,
                whole_min: whole,
                whole_max: whole,
                scale: i32::from(*scale),
            }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use arrow_schema::TimeUnit;

    use super::*;

    #[test]
    fn casts_that_lose_or_fail_are_told_from_those_that_do_not() {
        use DataType::*;
        let dictionary = |values| Dictionary(Box::new(Int32), Box::new(values));
        let zone = |zone: &str| Timestamp(TimeUnit::Microsecond, Some(zone.into()));
        let lossless = [
            (Int32, Int64),
            (UInt32, Int64),
            (UInt8, UInt64),
            (Int64, Decimal128(20, 0)),
            (UInt64, Decimal128(20, 0)),
            (Decimal128(10, 2), Decimal128(12, 3)),
            (Decimal32(5, 0), Int32),
            (Utf8, Utf8View),
            (dictionary(Utf8), Utf8),
            (dictionary(Int16), Int32),
            (Utf8, dictionary(Utf8)),
            (dictionary(Utf8), dictionary(Utf8View)),
            (FixedSizeBinary(4), Binary),
            (Date32, Date64),
            (zone("UTC"), zone("+01:00")),
            (
                Timestamp(TimeUnit::Second, None),
                Timestamp(TimeUnit::Nanosecond, None),
            ),
        ];
        for (from, to) in &lossless {
            assert!(is_lossless(from, to), "{from} to {to}");
        }
        let lossy = [
            (Int64, Int32),
            (Int32, UInt64),
            (UInt64, Int64),
            (UInt32, Int32),
            (Int64, Decimal128(18, 0)),
            (Decimal128(10, 2), Decimal128(10, 3)),
            (Decimal128(10, 2), Int64),
            (Int64, Float64),
            (Int64, Utf8),
            (Utf8, Binary),
            (LargeUtf8, Utf8),
            (Date64, Date32),
            (Date32, Timestamp(TimeUnit::Second, None)),
            (zone("UTC"), Timestamp(TimeUnit::Microsecond, None)),
            (zone("UTC"), Timestamp(TimeUnit::Second, Some("UTC".into()))),
            (Utf8, Dictionary(Box::new(Int16), Box::new(Utf8))),
            (Boolean, Int8),
        ];
        for (from, to) in &lossy {
            assert!(!is_lossless(from, to), "{from} to {to}");
        }
    }
}
