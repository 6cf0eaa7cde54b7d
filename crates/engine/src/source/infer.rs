//! The type of a text column, from all of its values.

use arrow_array::types::Date32Type;
use arrow_cast::parse::{Parser, string_to_datetime};
use arrow_schema::{DataType, TimeUnit};

const BOOLEAN: u8 = 1;
const INTEGER: u8 = 2;
const FLOAT: u8 = 4;
const DATE: u8 = 8;
const LOCAL_TIME: u8 = 16;
const ZONED_TIME: u8 = 32;
const TEXT: u8 = 64;

/// What has been seen in one column.
#[derive(Clone, Debug, Default)]
pub(super) struct ColumnInference {
    kinds: u8,
    /// The most digits after a time's decimal point.
    num_fraction_digits: usize,
}

impl ColumnInference {
    /// Takes note of a value that is not null.
    pub(super) fn add(&mut self, value: &str) {
        // Once a column is text it stays text.
        if self.kinds & TEXT == 0 {
            self.kinds |= self.classify(value);
        }
    }

    /// The narrowest type that holds every value without loss; text when there is none, or nothing
    /// but nulls.
    ///
    /// Times with and without a zone in one column are text: no single time type means both.
    pub(super) fn data_type(&self) -> DataType {
        let unit = match self.num_fraction_digits {
            0 => TimeUnit::Second,
            1..=3 => TimeUnit::Millisecond,
            4..=6 => TimeUnit::Microsecond,
            _ => TimeUnit::Nanosecond,
        };
        match self.kinds {
            BOOLEAN => DataType::Boolean,
            INTEGER => DataType::Int64,
            kinds if kinds & FLOAT != 0 && kinds & !(FLOAT | INTEGER) == 0 => DataType::Float64,
            DATE => DataType::Date32,
            kinds if kinds & LOCAL_TIME != 0 && kinds & !(LOCAL_TIME | DATE) == 0 => {
                DataType::Timestamp(unit, None)
            }
            ZONED_TIME => DataType::Timestamp(unit, Some("UTC".into())),
            _ => DataType::Utf8,
        }
    }

    fn classify(&mut self, value: &str) -> u8 {
        let bytes = value.as_bytes();
        match bytes {
            [] => TEXT,
            [b't' | b'T' | b'f' | b'F', ..] => {
                let is_boolean =
                    value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false");
                if is_boolean { BOOLEAN } else { TEXT }
            }
            [b'0'..=b'9', _, _, _, b'-', ..] => self.classify_time(value),
            [b'0'..=b'9' | b'-' | b'.', ..] => classify_number(value),
            _ if matches!(value, "NaN" | "nan" | "inf") => FLOAT,
            _ => TEXT,
        }
    }

    fn classify_time(&mut self, value: &str) -> u8 {
        let bytes = value.as_bytes();
        if bytes.len() == 10 {
            return if Date32Type::parse(value).is_some() {
                DATE
            } else {
                TEXT
            };
        }
        let rest = match bytes.get(10) {
            Some(b'T' | b' ') if bytes.len() >= 19 => &bytes[19..],
            _ => return TEXT,
        };
        if string_to_datetime(&chrono_utc(), value).is_err() {
            return TEXT;
        }
        let num_digits = match rest {
            [b'.', digits @ ..] => digits
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count(),
            _ => 0,
        };
        self.num_fraction_digits = self.num_fraction_digits.max(num_digits);
        let zone = match num_digits {
            0 => rest,
            len => &rest[len + 1..],
        };
        if zone.is_empty() {
            LOCAL_TIME
        } else {
            ZONED_TIME
        }
    }
}

/// UTC as Arrow's own zone type: the parser is generic over it.
fn chrono_utc() -> arrow_array::timezone::Tz {
    "+00:00".parse().expect("a fixed offset is always known")
}

fn classify_number(value: &str) -> u8 {
    let digits = value.strip_prefix('-').unwrap_or(value);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that is too long for 64 bits is an identifier; as a float it would lose digits.
        return if value.parse::<i64>().is_ok() {
            INTEGER
        } else {
            TEXT
        };
    }
    let is_float = value == "-inf"
        || (digits.bytes().any(|byte| byte.is_ascii_digit())
            && digits
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
            && value.parse::<f64>().is_ok());
    if is_float { FLOAT } else { TEXT }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[&str], expected: &DataType) {
        let mut column = ColumnInference::default();
        for value in values {
            column.add(value);
        }
        assert_eq!(column.data_type(), *expected, "{values:?}");
    }

    #[test]
    fn narrowest_lossless_type_is_chosen() {
        let utc = Some("UTC".into());
        check(&[], &DataType::Utf8);
        check(&["true", "FALSE"], &DataType::Boolean);
        check(&["1", "-7", "9223372036854775807"], &DataType::Int64);
        check(&["1", "9223372036854775808"], &DataType::Utf8);
        check(
            &["1", "2.5", "-1e9", "NaN", "-inf", ".5", "5."],
            &DataType::Float64,
        );
        check(&["1", "true"], &DataType::Utf8);
        check(&["1.2.3"], &DataType::Utf8);
        check(&["+49 30"], &DataType::Utf8);
        check(&["-"], &DataType::Utf8);
        check(&["2024-02-29"], &DataType::Date32);
        check(&["2024-02-30"], &DataType::Utf8);
        check(
            &["2024-01-01T10:00:00"],
            &DataType::Timestamp(TimeUnit::Second, None),
        );
        check(
            &["2024-01-01", "2024-01-01 10:00:00.5"],
            &DataType::Timestamp(TimeUnit::Millisecond, None),
        );
        check(
            &["2013-01-01T10:00:00Z", "2024-01-01T10:00:00.000001+02:00"],
            &DataType::Timestamp(TimeUnit::Microsecond, utc),
        );
        check(
            &["2024-01-01T10:00:00Z", "2024-01-01T10:00:00"],
            &DataType::Utf8,
        );
        check(&["2024-01-01T25:00:00"], &DataType::Utf8);
    }
}
