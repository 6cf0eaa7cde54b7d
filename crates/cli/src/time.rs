//! Points and lengths of time as the command line takes and shows them.

use std::time::Duration;

use arrow_array::timezone::Tz;
use arrow_cast::parse::string_to_datetime;
use darner_engine::{Error, Result};
use darner_store::{AsOf, Clock};

use crate::print;

/// Units of durations in seconds, the largest first.
const UNITS: [(char, u64); 5] = [
    ('w', 7 * 24 * 3600),
    ('d', 24 * 3600),
    ('h', 3600),
    ('m', 60),
    ('s', 1),
];

/// Reads a version or a time: digits alone are a version.
pub(crate) fn parse_as_of(text: &str) -> Result<AsOf, String> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text
            .parse()
            .map(AsOf::Version)
            .map_err(|_| "there are no versions that large".to_owned());
    }
    parse_time(text).map(AsOf::Time)
}

/// Microseconds since 1970. A time without a zone is one of UTC, and one without a time of day is midnight.
fn parse_time(text: &str) -> Result<i64, String> {
    let wrong = || {
        "not a version and not a time: a time is written as 2026-11-20, '2026-11-20 13:00' or 2026-11-20T13:00:00+01:00"
            .to_owned()
    };
    // Arrow wants seconds.
    let with_seconds = match text.as_bytes() {
        [.., b':'] => None,
        bytes if bytes.get(13) == Some(&b':') && bytes.get(16) != Some(&b':') => text
            .split_at_checked(16)
            .map(|(to_minute, rest)| format!("{to_minute}:00{rest}")),
        _ => None,
    };
    let utc: Tz = "UTC".parse().map_err(|_| wrong())?;
    string_to_datetime(&utc, with_seconds.as_deref().unwrap_or(text))
        .map(|time| time.timestamp_micros())
        .map_err(|_| wrong())
}

/// Refuses a time that has not come: what a table will be like then cannot be told. Versions are checked by the store.
pub(crate) fn check_not_to_come(as_of: AsOf) -> Result<()> {
    match as_of {
        AsOf::Time(time_us) if time_us > Clock::default().now_us() => Err(Error::invalid(format!(
            "time is still to come: time=`{}`",
            print::time(time_us)
        ))),
        _ => Ok(()),
    }
}

/// Reads a length of time such as `7d`, `90s` or `1h30m`; `0` needs no unit.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a duration is written as 7d, 12h, 30m, 90s or 1h30m".to_owned();
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut num_seconds: u64 = 0;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, from_unit) = rest.split_at(unit_at);
        let mut chars = from_unit.chars();
        let unit = chars.next();
        let (_, seconds) = UNITS
            .into_iter()
            .find(|(name, _)| Some(*name) == unit)
            .ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        num_seconds = number
            .checked_mul(seconds)
            .and_then(|more| num_seconds.checked_add(more))
            .ok_or_else(|| "the duration is too long".to_owned())?;
        rest = chars.as_str();
    }
    Ok(Duration::from_secs(num_seconds))
}

/// A length of time in the form that [`parse_duration`] reads; only a program can have set what is below a second.
pub(crate) fn duration_text(duration: Duration) -> String {
    let mut parts = Vec::new();
    let mut left = duration.as_secs();
    // Days are what people count in: 14d, not 2w.
    for (unit, seconds) in UNITS.into_iter().filter(|(unit, _)| *unit != 'w') {
        if left >= seconds {
            parts.push(format!("{}{unit}", left / seconds));
            left %= seconds;
        }
    }
    if duration.subsec_micros() > 0 {
        parts.push(format!("{}us", duration.subsec_micros()));
    }
    if parts.is_empty() {
        parts.push("0".to_owned());
    }
    parts.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_usual_form() {
        let midnight = 1_795_132_800_000_000;
        for (text, seconds) in [
            ("2026-11-20", 0),
            ("2026-11-20 13:00", 13 * 3600),
            ("2026-11-20T13:00", 13 * 3600),
            ("2026-11-20T13:00Z", 13 * 3600),
            ("2026-11-20 13:00:05", 13 * 3600 + 5),
            ("2026-11-20T13:00:00Z", 13 * 3600),
            ("2026-11-20T13:00:00+01:00", 12 * 3600),
            ("2026-11-20 13:00-02:30", 15 * 3600 + 1800),
        ] {
            let expected = AsOf::Time(midnight + seconds * 1_000_000);
            assert_eq!(parse_as_of(text), Ok(expected), "{text}");
        }
        assert_eq!(
            parse_as_of("2026-11-20T00:00:00.123456Z"),
            Ok(AsOf::Time(midnight + 123_456))
        );
        assert_eq!(parse_as_of("20"), Ok(AsOf::Version(20)));
        for text in [
            "",
            "yesterday",
            "-1",
            "2026-13-01",
            "2026-11-20 25:00",
            "2026-11-20 13:",
            "1e3",
            "99999999999999999999",
            "2026-11-20 13:0é",
        ] {
            assert!(parse_as_of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_and_shown() {
        for (text, seconds, shown) in [
            ("7d", 604_800, "7d"),
            ("2w", 1_209_600, "14d"),
            ("12h", 43_200, "12h"),
            ("90s", 90, "1m30s"),
            ("1h30m", 5400, "1h30m"),
            ("0", 0, "0"),
            ("0s", 0, "0"),
        ] {
            let duration = Duration::from_secs(seconds);
            assert_eq!(parse_duration(text), Ok(duration), "{text}");
            assert_eq!(duration_text(duration), shown);
        }
        for text in [
            "",
            "7",
            "d",
            "7x",
            "-7d",
            "1.5h",
            "7d ago",
            "99999999999999999d",
            "7é",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
