//! The number and time of a commit, and how one asks for an older one.

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use arrow_array::{temporal_conversions::timestamp_us_to_datetime, timezone::Tz};
use arrow_cast::parse::string_to_datetime;

use crate::error::{Error, Result};

/// A commit: its number, one more than that of the commit before, and when it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Number of the commit. The first is 1; 0 stands for a store in which nothing was committed.
    pub number: u64,
    /// Wall-clock time in microseconds since 1970-01-01 UTC. Never less than that of the commit before.
    pub time_us: i64,
}

impl Version {
    /// The version of a commit that follows this one at a time.
    pub(crate) fn next(self, now_us: i64) -> Self {
        Self {
            number: self.number + 1,
            time_us: now_us.max(self.time_us),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(f)
    }
}

/// Which state of a table is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// As it was after the commit of this number, of whichever table that was.
    Version(u64),
    /// As it was at this time, in microseconds since 1970-01-01 UTC.
    Time(i64),
}

impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(number) => write!(f, "version=`{number}`"),
            Self::Time(time_us) => match timestamp_us_to_datetime(*time_us) {
                Some(time) => write!(f, "time=`{}`", time.format("%Y-%m-%dT%H:%M:%S%.fZ")),
                None => write!(f, "time_us=`{time_us}`"),
            },
        }
    }
}

impl FromStr for AsOf {
    type Err = Error;

    /// Reads a version or a time: digits alone are a version. A time without a zone is one of UTC, and one without a
    /// time of day is midnight.
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let number = text.parse().map(Self::Version);
            return number.map_err(|_| Error::invalid("there are no versions that large"));
        }
        let wrong = || {
            Error::invalid(
                "not a version and not a time: a time is written as 2026-11-20, '2026-11-20 13:00' or \
                 2026-11-20T13:00:00+01:00",
            )
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
            .map(|time| Self::Time(time.timestamp_micros()))
            .map_err(|_| wrong())
    }
}

/// Where a store reads the time: the system's clock, or one that a test turns by hand.
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<dyn Fn() -> i64 + Send + Sync>>);

impl Clock {
    /// A clock that answers with microseconds since 1970-01-01 UTC.
    pub fn new(now_us: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(now_us)))
    }

    /// The time in microseconds since 1970-01-01 UTC.
    pub fn now_us(&self) -> i64 {
        if let Some(now_us) = &self.0 {
            return now_us();
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Clock(given)"
        } else {
            "Clock(system)"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_was_asked_for_is_shown_as_one() {
        let shown = |time_us| AsOf::Time(time_us).to_string();
        assert_eq!(shown(1_795_132_800_000_000), "time=`2026-11-20T00:00:00Z`");
        assert_eq!(shown(1_500_000), "time=`1970-01-01T00:00:01.500Z`");
        assert_eq!(shown(i64::MAX), format!("time_us=`{}`", i64::MAX));
    }

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
            assert_eq!(text.parse::<AsOf>().unwrap(), expected, "{text}");
        }
        assert_eq!(
            "2026-11-20T00:00:00.123456Z".parse::<AsOf>().unwrap(),
            AsOf::Time(midnight + 123_456)
        );
        assert_eq!("20".parse::<AsOf>().unwrap(), AsOf::Version(20));
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
            assert!(text.parse::<AsOf>().is_err(), "{text}");
        }
    }
}
