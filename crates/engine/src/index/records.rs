//! The bytes of keys, in words that are compared all at once.

use rayon::prelude::*;

use super::byte_keys::ByteKeys;
use super::row_count;
use crate::huge;
use crate::key::hash::{hash_long, hash_words};

/// The keys of all rows.
#[derive(Debug)]
pub(super) struct Keys<const W: usize, A> {
    pub(super) records: Vec<Record<W, A>>,
    /// Whether a key is more than its record.
    pub(super) has_long: bool,
    /// All bytes of those that are.
    long_bytes: Vec<u8>,
}

/// The words of a key and its length; see [`words`](crate::key::hash::words).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Record<const W: usize, A> {
    words: [u64; W],
    len: usize,
    aligned: [A; 0],
}

/// Alignments of records.
#[derive(Clone, Copy, Debug)]
#[repr(align(16))]
pub(crate) struct Of16;
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub(crate) struct Of32;
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Of64;

/// Keys whose records one thread makes at a time.
pub(super) const RECORDS_EACH: usize = 16 << 10;

impl<const W: usize, A> Record<W, A> {
    pub(super) const EMPTY: Self = Self {
        words: [0; W],
        len: 0,
        aligned: [],
    };

    #[inline]
    pub(super) fn of<'a>(keys: impl ByteKeys<'a>, at: usize) -> Self {
        let (words, len) = keys.words(at);
        Self {
            words,
            len,
            aligned: [],
        }
    }

    /// Zero if two keys are equal of which neither is long, or one.
    #[inline]
    pub(super) fn difference(&self, other: &Self) -> u64 {
        let words = self.words.iter().zip(&other.words);
        let len = (self.len ^ other.len) as u64;
        words.fold(len, |all, (word, other)| all | (word ^ other))
    }
}

// Where a function takes a key and its record, the key is looked at only if it is more than the record.
impl<const W: usize, A: Copy + Send + Sync> Keys<W, A> {
    /// Room for so many keys, of which long ones have so many bytes.
    pub(super) fn new(num_keys: usize, num_long_bytes: usize) -> Self {
        Self {
            records: huge::with_capacity(num_keys),
            has_long: num_long_bytes > 0,
            long_bytes: huge::with_capacity(num_long_bytes),
        }
    }

    pub(super) fn push<'a>(&mut self, keys: impl ByteKeys<'a>) {
        let first = self.records.len();
        let ats = (0..keys.len()).into_par_iter().with_min_len(RECORDS_EACH);
        let records = ats.map(|at| Record::of(keys, at));
        self.records.par_extend(records);
        let new = &mut self.records[first..];
        if !self.has_long {
            debug_assert!(new.iter().all(|record| record.len <= 8 * W));
            return;
        }
        for (at, record) in new.iter_mut().enumerate() {
            if record.len > 8 * W {
                record.words[W - 1] = self.long_bytes.len() as u64;
                self.long_bytes.extend_from_slice(keys.key(at));
            }
        }
    }

    pub(super) fn num_rows(&self) -> u32 {
        row_count(self.records.len())
    }

    /// Where no key of the index is long, this says no of those that are looked for too: their length is no key's.
    #[inline]
    pub(super) fn is_long(&self, record: &Record<W, A>) -> bool {
        self.has_long && record.len > 8 * W
    }

    /// All bytes of a key of the index, if it is long.
    #[inline]
    pub(super) fn long(&self, record: &Record<W, A>) -> &[u8] {
        if !self.is_long(record) {
            return &[];
        }
        let start = usize::try_from(record.words[W - 1]).expect("a place in `long_bytes`");
        &self.long_bytes[start..start + record.len]
    }

    #[inline]
    pub(super) fn hash<'a>(&self, key: impl Fn() -> &'a [u8], record: &Record<W, A>) -> u64 {
        if self.is_long(record) {
            hash_long(key())
        } else {
            hash_words(&record.words, record.len)
        }
    }

    #[inline]
    pub(super) fn hash_of(&self, row: u32) -> u64 {
        let record = &self.records[row as usize];
        self.hash(|| self.long(record), record)
    }

    /// Whether a row has a key.
    #[inline]
    pub(super) fn is_equal(&self, row: u32, key: &[u8], record: &Record<W, A>) -> bool {
        let other = &self.records[row as usize];
        if self.is_long(record) {
            self.long(other) == key
        } else {
            other.difference(record) == 0
        }
    }

    pub(super) fn num_bytes(&self) -> usize {
        self.records.capacity() * size_of::<Record<W, A>>() + self.long_bytes.capacity()
    }
}
