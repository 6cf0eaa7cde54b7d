use std::fmt;

use super::stride::Spread;
use crate::key::KeyForm;

/// The layouts of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutKind {
    /// An array of row numbers, the key being the place: integer keys that are dense or evenly spaced, and several columns
    /// whose values are most often keys together. Where rows come in the order of their keys, bits instead of numbers, or
    /// nothing at all.
    Direct,
    /// Open addressing, key and row number in the slot: other integer keys, and several columns as one number.
    Hash,
    /// Open addressing, tags, and records of whole keys: strings and binary.
    Bytes,
    /// As `Bytes`, over the row encoding of wide decimals, or of several columns that make no number of 63 bits.
    Row,
}

/// The layout of a dimension's index and the reason for it. Displayed as
/// `direct (6 keys in a range of 8)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    kind: LayoutKind,
    reason: String,
}

/// Key ranges up to this many are direct whatever their density: 16 KiB, half of a first-level
/// cache.
const DIRECT_RANGE_SMALL: u64 = 4096;

/// A direct index may have this many places per key. At six it takes what the slots of a hash index
/// take (24 bytes per key), and it is the faster of two of one size.
const DIRECT_PLACES_PER_KEY: u64 = 6;

/// The same where rows come in the order of their keys: a place takes two bits then, so these are 16 bytes per key. 1M
/// keys, one thread, million a second: 85 with 7 places per key, 79 with 16, 71 with 32, 60 with 60, and 37 by hash.
const ORDERED_PLACES_PER_KEY: u64 = 64;

/// The longest direct index: 16 GiB, or 1 GiB of bits.
const DIRECT_RANGE_MAX: u64 = 1 << 32;

impl Layout {
    pub(crate) fn choose(form: &KeyForm, num_keys: usize, spread: Option<Spread>) -> Self {
        if form.is_bytes() {
            return Self {
                kind: LayoutKind::Bytes,
                reason: "one column of bytes".to_owned(),
            };
        }
        if !form.is_int() {
            let reason = match form.fields() {
                [_] => "decimals past 64 bits".to_owned(),
                fields => format!("{} columns", fields.len()),
            };
            return Self {
                kind: LayoutKind::Row,
                reason,
            };
        }
        let Some(spread) = spread else {
            return Self {
                kind: LayoutKind::Direct,
                reason: "no keys".to_owned(),
            };
        };
        let range = spread.num_places();
        let places_per_key = if spread.is_ascending {
            ORDERED_PLACES_PER_KEY
        } else {
            DIRECT_PLACES_PER_KEY
        };
        let range_max = (num_keys as u64)
            .saturating_mul(places_per_key)
            .clamp(DIRECT_RANGE_SMALL, DIRECT_RANGE_MAX);
        let kind = if range <= u128::from(range_max) {
            LayoutKind::Direct
        } else {
            LayoutKind::Hash
        };
        let columns = match form.fields() {
            [_] => String::new(),
            fields => format!(" of {} columns", fields.len()),
        };
        let steps = match spread.stride {
            0 | 1 => String::new(),
            stride => format!(" steps of {stride}"),
        };
        let order = match kind {
            LayoutKind::Direct if spread.is_ascending => ", in order",
            _ => "",
        };
        Self {
            kind,
            reason: format!("{num_keys} keys{columns} in a range of {range}{steps}{order}"),
        }
    }

    /// Which layout it is.
    pub fn kind(&self) -> LayoutKind {
        self.kind
    }

    /// Why it was chosen, in a few words.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for LayoutKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Hash => "hash",
            Self::Bytes => "bytes",
            Self::Row => "row",
        })
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.kind, self.reason)
    }
}
