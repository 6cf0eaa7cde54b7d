//! Points and lengths of time as the command line takes and shows them.

use std::time::Duration;

use darner_engine::Error;
use darner_store::AsOf;

/// Units of durations in seconds, the largest first.
const UNITS: [(char, u64); 5] = [
    ('w', 7 * 24 * 3600),
    ('d', 24 * 3600),
    ('h', 3600),
    ('m', 60),
    ('s', 1),
];

/// Reads a version or a time.
pub(crate) fn parse_as_of(text: &str) -> Result<AsOf, String> {
    text.parse()
        .map_err(|error: Error| error.message().to_owned())
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
