//! Dates and times in text that is not written as ISO 8601 says.

use crate::{Error, Result};
use arrow_array::{
    ArrayRef, Date32Array, StringArray, TimestampMicrosecondArray, TimestampNanosecondArray,
};
use arrow_cast::cast;
use arrow_schema::{DataType, TimeUnit};
use chrono::{
    DateTime, NaiveDate, NaiveDateTime, NaiveTime,
    format::{Fixed, Item, StrftimeItems},
};
use std::sync::Arc;

/// How the texts of a column are read as dates or times: a format of `strftime`. A year of two digits from 70 on is of the
/// twentieth century.
#[derive(Clone, Debug)]
pub(super) struct DateFormat {
    text: String,
    /// Whether texts tell their distance from UTC.
    has_offset: bool,
}

impl DateFormat {
    /// # Errors
    /// `Invalid`, naming the column, for a malformed format, or a type that is none of a date or a timestamp.
    pub(super) fn new(column: &str, text: &str, data_type: &DataType) -> Result<Self> {
        let invalid = |what: &str| {
            Error::invalid(format!(
                "{what}: column=`{column}` format=`{text}` type=`{data_type}`"
            ))
        };
        if !matches!(data_type, DataType::Date32 | DataType::Timestamp(..)) {
            return Err(invalid("a format is for a date or a timestamp"));
        }
        let items: Vec<Item<'_>> = StrftimeItems::new(text).collect();
        if items.contains(&Item::Error) {
            return Err(invalid("malformed format, see strftime"));
        }
        let is_offset = |item: &Item<'_>| {
            matches!(
                item,
                Item::Fixed(
                    Fixed::TimezoneOffset
                        | Fixed::TimezoneOffsetZ
                        | Fixed::TimezoneOffsetColon
                        | Fixed::TimezoneOffsetDoubleColon
                        | Fixed::TimezoneOffsetTripleColon
                        | Fixed::TimezoneOffsetColonZ
                        | Fixed::RFC2822
                        | Fixed::RFC3339
                )
            )
        };
        Ok(Self {
            text: text.to_owned(),
            has_offset: items.iter().any(is_offset),
        })
    }

    /// The values of texts; null also where a text is none of the format.
    pub(super) fn parse(&self, texts: &StringArray, data_type: &DataType) -> Result<ArrayRef> {
        if *data_type == DataType::Date32 {
            let epoch = NaiveDate::default();
            let days = texts.iter().map(|text| {
                let date = NaiveDate::parse_from_str(text?, &self.text).ok()?;
                i32::try_from(date.signed_duration_since(epoch).num_days()).ok()
            });
            return Ok(Arc::new(days.collect::<Date32Array>()));
        }
        // Without an offset a text means the clock of the column's zone, if it has one.
        let zone = self.has_offset.then(|| Arc::from("UTC"));
        let times: ArrayRef = if let DataType::Timestamp(TimeUnit::Nanosecond, _) = data_type {
            let times = texts
                .iter()
                .map(|text| self.time(text?)?.and_utc().timestamp_nanos_opt());
            Arc::new(
                times
                    .collect::<TimestampNanosecondArray>()
                    .with_timezone_opt(zone),
            )
        } else {
            let times = texts
                .iter()
                .map(|text| Some(self.time(text?)?.and_utc().timestamp_micros()));
            Arc::new(
                times
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone_opt(zone),
            )
        };
        cast(&times, data_type).map_err(|error| super::malformed("times", error))
    }

    /// A time; of UTC if texts tell their distance from it. A date alone is its midnight.
    fn time(&self, text: &str) -> Option<NaiveDateTime> {
        if self.has_offset {
            let time = DateTime::parse_from_str(text, &self.text).ok()?;
            return Some(time.naive_utc());
        }
        NaiveDateTime::parse_from_str(text, &self.text)
            .or_else(|_| {
                let date = NaiveDate::parse_from_str(text, &self.text)?;
                Ok::<_, chrono::ParseError>(date.and_time(NaiveTime::MIN))
            })
            .ok()
    }

    /// The format, for messages.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use arrow_cast::display::array_value_to_string;

    use super::*;

    #[test]
    fn texts_are_read_by_their_format() {
        let us = DataType::Timestamp(TimeUnit::Microsecond, None);
        let berlin = DataType::Timestamp(TimeUnit::Second, Some("Europe/Berlin".into()));
        let ns = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        for (format, data_type, text, expected) in [
            ("%d.%m.%Y", &DataType::Date32, "29.11.2026", "2026-11-29"),
            ("%m/%d/%y", &DataType::Date32, "12/31/69", "2069-12-31"),
            ("%m/%d/%y", &DataType::Date32, "1/1/70", "1970-01-01"),
            ("%d.%m.%Y", &us, "29.11.2026", "2026-11-29T00:00:00"),
            (
                "%d.%m.%Y %H:%M",
                &us,
                "29.11.2026 07:05",
                "2026-11-29T07:05:00",
            ),
            // Summer time of the column's zone.
            (
                "%Y%m%d %H%M%S",
                &berlin,
                "20260701 120000",
                "2026-07-01T12:00:00+02:00",
            ),
            (
                "%d/%b/%Y:%H:%M:%S %z",
                &us,
                "10/Oct/2000:13:55:36 -0700",
                "2000-10-10T20:55:36",
            ),
            (
                "%s%.f",
                &ns,
                "1.000000001",
                "1970-01-01T00:00:01.000000001Z",
            ),
            ("%d.%m.%Y", &DataType::Date32, "31.02.2026", ""),
            ("%d.%m.%Y", &us, "2026-11-29", ""),
        ] {
            let values = DateFormat::new("c", format, data_type)
                .and_then(|format| format.parse(&StringArray::from(vec![text]), data_type))
                .unwrap();
            assert_eq!(values.data_type(), data_type);
            assert_eq!(
                array_value_to_string(&values, 0).unwrap(),
                expected,
                "{format} {text}"
            );
        }
        for (format, data_type) in [("%Q", &DataType::Date32), ("%d", &DataType::Int64)] {
            let error = DateFormat::new("day", format, data_type).unwrap_err();
            assert!(error.to_string().contains("column=`day`"), "{error}");
        }
    }
}
