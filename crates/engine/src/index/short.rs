use rayon::prelude::*;

use super::byte_keys::ByteKeys;
use super::{HashIndex, row_count};
use crate::key::hash::words;

/// The longest key that this index takes.
pub(super) const SHORT_BYTES_MAX: usize = 7;

/// An index of short keys of bytes, which are codes most often: of airports, currencies, countries. They are looked for as
/// numbers, by an index that has them in its slots: no records stand beside it.
///
/// ```text
/// number   bytes of the key, lowest first | zeros | its length in the highest byte
/// ```
#[derive(Debug)]
pub(crate) struct ShortIndex {
    numbers: HashIndex,
    num_rows: u32,
}

/// Keys that are made into numbers by one thread at a time.
const NUMBERS_EACH: usize = 16 << 10;

/// Keys that are looked for together: their numbers stay in the first cache.
const STEP_KEYS: usize = 1 << 10;

impl ShortIndex {
    pub(super) fn new(num_keys: usize) -> Self {
        Self {
            numbers: HashIndex::new(num_keys),
            num_rows: 0,
        }
    }

    pub(super) fn insert<'a>(&mut self, keys: impl ByteKeys<'a>, told: impl FnMut(u32, u32)) {
        let ats = (0..keys.len()).into_par_iter().with_min_len(NUMBERS_EACH);
        let numbers: Vec<i64> = ats.map(|at| number(keys.words(at))).collect();
        debug_assert!(!numbers.contains(&TOO_LONG), "no key is longer");
        self.numbers.insert(&numbers, self.num_rows, told);
        self.num_rows += row_count(numbers.len());
    }

    pub(super) fn settle(&mut self, told: impl FnMut(u32, u32)) {
        self.numbers.settle(told);
    }

    pub(super) fn finish(&mut self) {
        self.numbers.finish();
    }

    pub(super) fn probe<'a>(&self, keys: impl ByteKeys<'a>, out: &mut Vec<u32>) {
        let mut numbers = [0; STEP_KEYS];
        for start in (0..keys.len()).step_by(STEP_KEYS) {
            let numbers = &mut numbers[..STEP_KEYS.min(keys.len() - start)];
            for (found, at) in numbers.iter_mut().zip(start..) {
                *found = number(keys.words(at));
            }
            self.numbers.probe(numbers, out);
        }
    }

    #[inline]
    pub(super) fn find(&self, key: &[u8]) -> u32 {
        self.numbers.find(number((words(key), key.len())))
    }

    pub(super) fn num_rows(&self) -> u32 {
        self.num_rows
    }

    pub(super) fn num_bytes(&self) -> usize {
        self.numbers.num_bytes()
    }
}

/// What stands for all keys that no index of short ones has.
const TOO_LONG: i64 = -1;

/// That of a key with this word, of so many bytes.
#[inline]
fn number(([word], len): ([u64; 1], usize)) -> i64 {
    let number = (word | (len as u64) << 56).cast_signed();
    if len > SHORT_BYTES_MAX {
        TOO_LONG
    } else {
        number
    }
}

#[cfg(test)]
mod tests {
    use super::super::NO_MATCH;
    use super::*;

    /// All keys of a few bytes, zeros among them, which are told from no byte at all.
    #[test]
    fn keys_are_found_if_they_are_the_same() {
        let mut all: Vec<Vec<u8>> = vec![Vec::new()];
        let mut from = 0;
        for _ in 0..=SHORT_BYTES_MAX {
            let longest = from..all.len();
            from = all.len();
            for key in longest {
                for byte in [0, b'x', u8::MAX] {
                    let key = [&all[key][..], &[byte]].concat();
                    all.push(key);
                }
            }
        }
        let all: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
        let is_short = |key: &&&[u8]| key.len() <= SHORT_BYTES_MAX;
        // Every third is left out.
        let (kept, expected): (Vec<&[u8]>, Vec<u32>) = {
            let mut kept = Vec::new();
            let rows = all.iter().enumerate().map(|(at, key)| {
                if at % 3 == 0 || !is_short(&key) {
                    return NO_MATCH;
                }
                kept.push(*key);
                row_count(kept.len()) - 1
            });
            let rows = rows.collect();
            (kept, rows)
        };
        let mut index = ShortIndex::new(kept.len() + 10);
        index.insert(&kept[..], |_, _| panic!("keys are distinct"));
        index.settle(|_, _| panic!("keys are distinct"));
        let mut found = Vec::new();
        index.probe(&all[..], &mut found);
        assert_eq!(found, expected);
        for (key, row) in all.iter().zip(&expected) {
            assert_eq!(index.find(key), *row);
        }
        let mut finished = ShortIndex::new(kept.len());
        finished.insert(&kept[..], |_, _| panic!("keys are distinct"));
        finished.finish();
        found.clear();
        finished.probe(&all[..], &mut found);
        assert_eq!(found, expected);
        let mut told = Vec::new();
        index.insert(&kept[..10], |before, row| told.push((before, row)));
        index.settle(|before, row| told.push((before, row)));
        let first = row_count(kept.len());
        assert!(told.into_iter().eq((0..10).zip(first..)));
        assert_eq!(index.num_rows(), first + 10);
    }
}
