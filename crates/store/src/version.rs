//! The number and time of a commit.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

/// A commit: its number, one more than that of the commit before, and when it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Number of the commit. The first is 1; 0 stands for a store in which nothing was committed.
    pub number: u64,
    /// Wall-clock time in microseconds since 1970-01-01 UTC. Never less than that of the commit before.
    pub time_us: i64,
}

impl Version {
    /// The version of a commit that follows this one now.
    pub(crate) fn next(self) -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now_us = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
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
