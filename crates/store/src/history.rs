//! What each commit did to a table, and how long older versions stay readable.

use std::time::Duration;

use crate::{
    codec::{Decoder, Encoder},
    error::{Error, Result},
    version::Version,
};

/// Commits that can no longer be read are listed up to this many.
pub(crate) const HISTORY_UNREADABLE_MAX: usize = 1000;

/// How much of the past a table keeps for reading.
///
/// A version is kept as long as *either* bound asks for it. Beyond that older versions go when a compaction or a
/// checkpoint takes their space; until then they can be read. Versions that were replaced as a whole stay while they
/// take no more space than the table itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The newest versions that are kept, at least 1: the table as it is.
    pub num_versions: u64,
    /// How long a version is kept after another one has followed it.
    pub age: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            num_versions: 1,
            age: Duration::ZERO,
        }
    }
}

impl Retention {
    pub(crate) fn encode(&self, out: &mut Encoder) {
        out.put_u64(self.num_versions);
        out.put_u64(u64::try_from(self.age.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn decode(input: &mut Decoder<'_>) -> Result<Self> {
        Ok(Self {
            num_versions: input.get_u64()?,
            age: Duration::from_micros(input.get_u64()?),
        })
    }

    /// The oldest version that must stay readable, of those of a table's commits, oldest first.
    pub(crate) fn oldest_kept(&self, commits: &[HistoryEntry], now_us: i64) -> u64 {
        let num_versions = usize::try_from(self.num_versions.max(1)).unwrap_or(usize::MAX);
        let by_count = commits.len().saturating_sub(num_versions);
        let age_us = i64::try_from(self.age.as_micros()).unwrap_or(i64::MAX);
        let since = now_us.saturating_sub(age_us);
        // The version that was the newest one then, and all after it.
        let by_age = if self.age.is_zero() {
            by_count
        } else {
            commits
                .partition_point(|commit| commit.version.time_us <= since)
                .saturating_sub(1)
        };
        commits
            .get(by_count.min(by_age))
            .map_or(u64::MAX, |commit| commit.version.number)
    }
}

/// What a commit did with the table as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitKind {
    /// Made it.
    Create,
    /// Emptied it, maybe with other columns.
    Replace,
    /// Changed rows.
    Write,
}

impl CommitKind {
    /// The word for it: `create`, `replace` or `write`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Write => "write",
        }
    }
}

/// How many rows a commit added and removed, and how many there were afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowCounts {
    /// Rows that are there afterwards and were not before, among them the new forms of replaced rows.
    pub num_added: u64,
    /// Rows that were there before and are not afterwards, among them the old forms of replaced rows.
    pub num_removed: u64,
    /// Rows afterwards.
    pub num_live: u64,
}

/// One commit that changed a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableCommit {
    /// Its number and time.
    pub version: Version,
    /// What it did with the table as a whole.
    pub kind: CommitKind,
    /// Rows added, removed and live. `None` if that was not counted before the rows went.
    pub counts: Option<RowCounts>,
    /// Whether the table can be read as of this commit.
    pub is_readable: bool,
}

/// A commit as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HistoryEntry {
    pub(crate) version: Version,
    pub(crate) kind: CommitKind,
    /// `None` until somebody has counted.
    pub(crate) counts: Option<RowCounts>,
}

impl HistoryEntry {
    pub(crate) fn encode(&self, out: &mut Encoder) {
        self.version.encode(out);
        out.put_u8(match self.kind {
            CommitKind::Create => 0,
            CommitKind::Replace => 1,
            CommitKind::Write => 2,
        });
        out.put_u8(u8::from(self.counts.is_some()));
        if let Some(counts) = self.counts {
            out.put_u64(counts.num_added);
            out.put_u64(counts.num_removed);
            out.put_u64(counts.num_live);
        }
    }

    pub(crate) fn decode(input: &mut Decoder<'_>) -> Result<Self> {
        Ok(Self {
            version: Version::decode(input)?,
            kind: match input.get_u8()? {
                0 => CommitKind::Create,
                1 => CommitKind::Replace,
                2 => CommitKind::Write,
                kind => return Err(Error::data(format!("unknown commit kind=`{kind}`"))),
            },
            counts: match input.get_u8()? {
                0 => None,
                _ => Some(RowCounts {
                    num_added: input.get_u64()?,
                    num_removed: input.get_u64()?,
                    num_live: input.get_u64()?,
                }),
            },
        })
    }
}

impl Version {
    pub(crate) fn encode(self, out: &mut Encoder) {
        out.put_u64(self.number);
        out.put_i64(self.time_us);
    }

    pub(crate) fn decode(input: &mut Decoder<'_>) -> Result<Self> {
        Ok(Self {
            number: input.get_u64()?,
            time_us: input.get_i64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_keeps_what_either_bound_asks_for() {
        let commits: Vec<HistoryEntry> = (1..=5)
            .map(|number| HistoryEntry {
                version: Version {
                    number: number * 10,
                    time_us: i64::try_from(number).unwrap() * 1_000_000,
                },
                kind: CommitKind::Write,
                counts: None,
            })
            .collect();
        let oldest = |num_versions, age_s, now_s: i64| {
            let retention = Retention {
                num_versions,
                age: Duration::from_secs(age_s),
            };
            retention.oldest_kept(&commits, now_s * 1_000_000)
        };
        assert_eq!(oldest(1, 0, 5), 50);
        assert_eq!(oldest(0, 0, 5), 50);
        assert_eq!(oldest(3, 0, 100), 30);
        assert_eq!(oldest(99, 0, 100), 10);
        // Two seconds ago, at second 4, commit 40 was the newest.
        assert_eq!(oldest(1, 2, 6), 40);
        assert_eq!(oldest(4, 2, 6), 20);
        assert_eq!(oldest(1, 100, 6), 10);
        assert_eq!(oldest(1, 1, 100), 50);
    }
}
