//! The names of column types in job files and options.

use crate::{Error, Result};
use arrow_schema::{DataType, TimeUnit};
use std::sync::Arc;

/// The data type that a name in a job file or an option stands for. Case does not matter.
///
/// `int8` ... `int64` (`int` is 64), `uint8` ... `uint64`, `float32`, `float64` (`float`, `double`),
/// `bool`, `utf8` (`string`, `text`), `large_utf8`, `utf8_view`, `binary`, `large_binary`, `date`,
/// `time`, `timestamp[UNIT]` and `timestamp[UNIT, ZONE]` with a unit of `s`, `ms`, `us` (also without
/// brackets) or `ns`, `decimal(PRECISION, SCALE)`.
///
/// # Errors
/// `Invalid` for anything else.
/// # Examples
/// ```
/// use arrow_schema::{DataType, TimeUnit};
/// use darner_engine::parse_data_type;
///
/// assert_eq!(parse_data_type("int32")?, DataType::Int32);
/// assert_eq!(parse_data_type("decimal(10, 2)")?, DataType::Decimal128(10, 2));
/// assert_eq!(
///     parse_data_type("timestamp[ms, UTC]")?,
///     DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
/// );
/// # Ok::<(), darner_engine::Error>(())
/// ```
pub fn parse_data_type(text: &str) -> Result<DataType> {
    let unknown = || {
        Error::invalid(format!(
            "unknown data type: type=`{text}`, expected one of int8..int64, uint8..uint64, \
             float32, float64, bool, string, binary, date, time, timestamp[s|ms|us|ns], \
             timestamp[us, ZONE], decimal(P, S)"
        ))
    };
    let trimmed = text.trim();
    let lower = trimmed.to_ascii_lowercase();
    let simple = match lower.as_str() {
        "int8" => DataType::Int8,
        "int16" => DataType::Int16,
        "int32" => DataType::Int32,
        "int64" | "int" | "integer" | "bigint" => DataType::Int64,
        "uint8" => DataType::UInt8,
        "uint16" => DataType::UInt16,
        "uint32" => DataType::UInt32,
        "uint64" => DataType::UInt64,
        "float32" => DataType::Float32,
        "float64" | "float" | "double" => DataType::Float64,
        "bool" | "boolean" => DataType::Boolean,
        "utf8" | "string" | "text" => DataType::Utf8,
        "large_utf8" | "largeutf8" | "large_string" => DataType::LargeUtf8,
        "utf8_view" | "utf8view" | "string_view" => DataType::Utf8View,
        "binary" => DataType::Binary,
        "large_binary" | "largebinary" => DataType::LargeBinary,
        "date" | "date32" => DataType::Date32,
        "date64" => DataType::Date64,
        "time" => DataType::Time64(TimeUnit::Microsecond),
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, None),
        _ => return parameterised(trimmed, &lower).ok_or_else(unknown),
    };
    Ok(simple)
}

/// `timestamp[...]` and `decimal(...)`.
fn parameterised(text: &str, lower: &str) -> Option<DataType> {
    if lower.starts_with("timestamp[") && lower.ends_with(']') {
        let inner = &text["timestamp[".len()..text.len() - 1];
        let (unit, zone) = match inner.split_once(',') {
            Some((unit, zone)) => (unit, Some(zone.trim())),
            None => (inner, None),
        };
        let unit = match unit.trim().to_ascii_lowercase().as_str() {
            "s" => TimeUnit::Second,
            "ms" => TimeUnit::Millisecond,
            "us" => TimeUnit::Microsecond,
            "ns" => TimeUnit::Nanosecond,
            _ => return None,
        };
        if zone.is_some_and(|zone| zone.parse::<arrow_array::timezone::Tz>().is_err()) {
            return None;
        }
        return Some(DataType::Timestamp(unit, zone.map(Arc::from)));
    }
    if let Some(inner) = lower.strip_prefix("decimal") {
        let inner = inner.strip_prefix("128").unwrap_or(inner).trim();
        let inner = inner.strip_prefix('(')?.strip_suffix(')')?;
        let (precision, scale) = match inner.split_once(',') {
            Some((precision, scale)) => (precision, scale.trim().parse().ok()?),
            None => (inner, 0),
        };
        let precision: u8 = precision.trim().parse().ok()?;
        let scale: i8 = scale;
        let fits = u8::try_from(scale).is_ok_and(|scale| scale <= precision);
        return match precision {
            1..=38 if fits => Some(DataType::Decimal128(precision, scale)),
            39..=76 if fits => Some(DataType::Decimal256(precision, scale)),
            _ => None,
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_whatever_their_case() {
        let micros = TimeUnit::Microsecond;
        for (text, expected) in [
            ("INT64", DataType::Int64),
            (" string ", DataType::Utf8),
            ("Timestamp[us]", DataType::Timestamp(micros, None)),
            (
                "timestamp[us,+02:00]",
                DataType::Timestamp(micros, Some("+02:00".into())),
            ),
            ("decimal(50,3)", DataType::Decimal256(50, 3)),
            ("decimal(9)", DataType::Decimal128(9, 0)),
            ("date", DataType::Date32),
        ] {
            assert_eq!(parse_data_type(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        for text in [
            "",
            "int65",
            "decimal(0,0)",
            "decimal(5,6)",
            "decimal(77,1)",
            "timestamp[h]",
            "timestamp[",
        ] {
            let error = parse_data_type(text).unwrap_err();
            assert!(error.message().contains(&format!("`{text}`")), "{error}");
        }
    }
}
