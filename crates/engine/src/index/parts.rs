//! Insertion of many keys into a table of slots, see [`groups`](super::groups), that is larger than the caches.
//!
//! One after the other, keys hit the table anywhere, and each waits for the memory. So the keys are sorted first by the
//! part of the table in which their search begins: counted, then copied to where those of their part stand together.
//! Then part after part takes in its keys, and threads work on different parts. Up to tables of some ten MB a part fits the
//! cache of a core; parts of larger ones are larger, and still nearer to it than the whole.
//!
//! ```text
//! keys   4 7 1 9 2 8         sorted   4 1 2 | 7 9 8
//! table  [ . . . | . . . ]   parts      0   |   1
//! ```
//!
//! A search that runs out of its part is put off until all parts are done. That changes nothing for the others: slots
//! are taken and never freed, so a search ends where it would have ended.

use std::hint::black_box;

use rayon::prelude::*;

use super::groups::Group;
use super::{NO_MATCH, next, row_count};

/// A table of fewer bytes is not sorted for: it fits a cache.
const TABLE_BYTES_MIN: usize = 1 << 20;

/// Bytes of a part, at least. Of 64, 128 and 256 KiB the least was the fastest; the keys of a part want some of the cache
/// too.
const PART_BYTES: usize = 64 << 10;

/// Parts, at most: so many lines that are written by turns fit a first-level cache.
const PARTS_MAX: usize = 512;

/// Keys that one thread sorts at a time.
const CHUNK_KEYS: usize = 128 << 10;

/// Keys that are sorted at once, at least; they take 16 bytes each. Tests have a number that they reach soon.
const ROUND_KEYS: usize = if cfg!(test) { 50_000 } else { 2 << 20 };

/// One key in so many groups of slots at least is worth going through the whole table for.
const GROUPS_PER_KEY_MAX: usize = 12;

/// Keys that are sorted at once for a table. Each round goes through all of it; so for a very large one they are more,
/// and take an eighth of its space.
pub(super) fn round_keys<G>(groups: &[G]) -> usize {
    ROUND_KEYS.max(groups.len() / 2)
}

/// Whether a table of so many groups is worth it.
pub(super) fn is_large<G>(groups: &[G]) -> bool {
    size_of_val(groups) >= TABLE_BYTES_MIN
}

/// A table that keys are inserted into, in groups of `N` slots.
pub(super) trait Table<const N: usize>: Sync {
    /// What is sought: the key itself, or its hash.
    type Key: Copy + Default + Send + Sync;
    /// What a slot has of it.
    type Stored: Send;

    /// The group at whose first slot the search begins, in a table of so many.
    fn home(key: Self::Key, num_groups: usize) -> usize;

    /// Gives a row the slot of a group that has its key, or the first that is free, if there is one. Returns the row before
    /// or [`NO_MATCH`].
    fn offer(&self, group: &mut Group<Self::Stored, N>, key: Self::Key, row: u32) -> Option<u32>;
}

/// Inserts keys, whose rows count up from `first_row`. `replaced` hears of those that were there already, in the order
/// of the rows: the row before, and the new one. One slot at least stays free.
pub(super) fn insert<T: Table<N>, const N: usize>(
    table: &T,
    groups: &mut [Group<T::Stored, N>],
    keys: &[T::Key],
    first_row: u32,
    mut replaced: impl FnMut(u32, u32),
) {
    if keys.len().saturating_mul(GROUPS_PER_KEY_MAX) < groups.len() {
        for (&key, row) in keys.iter().zip(first_row..) {
            let before = insert_one(table, groups, key, row);
            if before != NO_MATCH {
                replaced(before, row);
            }
        }
        return;
    }
    let parts = Parts::new(groups);
    let chunks: Vec<Chunk<T::Key>> = keys
        .par_chunks(CHUNK_KEYS)
        .enumerate()
        .map(|(idx, keys)| {
            Chunk::sort::<T, N>(keys, first_row + row_count(idx * CHUNK_KEYS), parts)
        })
        .collect();
    let outcomes: Vec<Outcome<T::Key>> = groups
        .par_chunks_mut(parts.num_groups_each)
        .enumerate()
        .map(|(part, groups)| {
            let mut outcome = Outcome::default();
            let mut rest = Vec::new();
            // In order, a part comes into the cache ten times as fast as group by group.
            black_box(groups.iter().fold(0, |all, group| all | group.row(0)));
            for chunk in &chunks {
                let begun = chunk.of(part);
                rest.resize(begun.len(), Search::default());
                let mut num_left = look(table, groups, begun, &mut rest, &mut outcome);
                while num_left > 0 {
                    num_left = look_again(table, groups, &mut rest[..num_left], &mut outcome);
                }
            }
            outcome
        })
        .collect();
    drop(chunks);
    let mut all = Vec::new();
    for outcome in outcomes {
        all.extend(outcome.replaced);
        for Search { key, row, .. } in outcome.late {
            let before = insert_one(table, groups, key, row);
            if before != NO_MATCH {
                all.push((before, row));
            }
        }
    }
    all.par_sort_unstable_by_key(|&(_, row)| row);
    for (before, row) in all {
        replaced(before, row);
    }
}

/// Sets the row of a key and returns the row before, or [`NO_MATCH`]. One slot at least is free.
#[inline]
pub(super) fn insert_one<T: Table<N>, const N: usize>(
    table: &T,
    groups: &mut [Group<T::Stored, N>],
    key: T::Key,
    row: u32,
) -> u32 {
    let mut place = T::home(key, groups.len());
    loop {
        if let Some(before) = table.offer(&mut groups[place], key, row) {
            return before;
        }
        place = next(place, groups.len());
    }
}

/// Has every search look at one group of its part. Those that go on are put, in their order, at the beginning of `rest`,
/// which has room for all. Returns how many they are.
///
/// Which search goes on is as good as random, so that a branch would often be taken wrong; here it only decides where the
/// next one is put. Searches for one key go from group to group together, in the order of their rows.
fn look<T: Table<N>, const N: usize>(
    table: &T,
    groups: &mut [Group<T::Stored, N>],
    searches: &[Search<T::Key>],
    rest: &mut [Search<T::Key>],
    outcome: &mut Outcome<T::Key>,
) -> usize {
    let mut num_left = 0;
    for &search in searches {
        rest[num_left] = search.next();
        num_left += usize::from(!look_once(table, groups, search, outcome));
    }
    num_left
}

/// As [`look`], in place.
fn look_again<T: Table<N>, const N: usize>(
    table: &T,
    groups: &mut [Group<T::Stored, N>],
    searches: &mut [Search<T::Key>],
    outcome: &mut Outcome<T::Key>,
) -> usize {
    let mut num_left = 0;
    for at in 0..searches.len() {
        let search = searches[at];
        searches[num_left] = search.next();
        num_left += usize::from(!look_once(table, groups, search, outcome));
    }
    num_left
}

/// Has a search look at its group. Returns whether that was its last.
#[inline]
fn look_once<T: Table<N>, const N: usize>(
    table: &T,
    groups: &mut [Group<T::Stored, N>],
    search: Search<T::Key>,
    outcome: &mut Outcome<T::Key>,
) -> bool {
    let Some(group) = groups.get_mut(search.place as usize) else {
        outcome.late.push(search);
        return true;
    };
    let before = table.offer(group, search.key, search.row);
    if let Some(before) = before.filter(|row| *row != NO_MATCH) {
        outcome.replaced.push((before, search.row));
    }
    before.is_some()
}

/// How a table is divided.
#[derive(Clone, Copy)]
struct Parts {
    num_groups: usize,
    num_groups_each: usize,
}

impl Parts {
    fn new<G>(groups: &[G]) -> Self {
        let num_parts = (size_of_val(groups) / PART_BYTES).clamp(1, PARTS_MAX);
        Self {
            num_groups: groups.len(),
            // A power of two, to be divided by quickly.
            num_groups_each: groups.len().div_ceil(num_parts).next_power_of_two(),
        }
    }

    fn len(self) -> usize {
        self.num_groups.div_ceil(self.num_groups_each)
    }

    /// The part of a group, and its place there.
    #[inline]
    fn place(self, group: usize) -> (usize, u32) {
        let bits = self.num_groups_each.trailing_zeros();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a table of 2^31 groups in 512 parts has 2^23 in each"
        )]
        let place = (group & (self.num_groups_each - 1)) as u32;
        (group >> bits, place)
    }
}

/// A key on its way to a slot.
#[derive(Clone, Copy, Default)]
struct Search<K> {
    key: K,
    row: u32,
    /// The group of its part that it looks at next.
    place: u32,
}

impl<K> Search<K> {
    #[inline]
    fn next(self) -> Self {
        Self {
            place: self.place + 1,
            ..self
        }
    }
}

/// Searches that are about to begin, sorted by part; those of one part are in the order of their rows.
struct Chunk<K> {
    searches: Vec<Search<K>>,
    /// Where those of each part end.
    ends: Vec<usize>,
}

impl<K: Copy + Default> Chunk<K> {
    fn sort<T: Table<N, Key = K>, const N: usize>(
        keys: &[K],
        first_row: u32,
        parts: Parts,
    ) -> Self {
        let home = |key: K| parts.place(T::home(key, parts.num_groups));
        let mut ends = vec![0; parts.len()];
        for &key in keys {
            ends[home(key).0] += 1;
        }
        let mut end = 0;
        for place in &mut ends {
            // For now, where they begin.
            end += std::mem::replace(place, end);
        }
        let mut searches = vec![Search::default(); keys.len()];
        for (&key, row) in keys.iter().zip(first_row..) {
            let (part, place) = home(key);
            let at = &mut ends[part];
            searches[*at] = Search { key, row, place };
            *at += 1;
        }
        Self { searches, ends }
    }

    fn of(&self, part: usize) -> &[Search<K>] {
        let start = part.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.searches[start..self.ends[part]]
    }
}

/// What a part leaves to be done.
struct Outcome<K> {
    replaced: Vec<(u32, u32)>,
    /// Searches that have run out of the part.
    late: Vec<Search<K>>,
}

impl<K> Default for Outcome<K> {
    fn default() -> Self {
        Self {
            replaced: Vec::new(),
            late: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::{BytesIndex, HashIndex, Lengths, NO_MATCH};
    use crate::key::hash::hash_int;

    const NUM_ROWS: u32 = 400_000;

    /// The key of a row; half of the rows have that of an earlier one.
    fn key(row: u32, seed: i64) -> i64 {
        (hash_int(i64::from(row) ^ seed) % u64::from(NUM_ROWS / 2)).cast_signed() * 1_000
    }

    /// What a map says of the same keys: the rows that were replaced, and who has each key in the end.
    fn model(seed: i64) -> (Vec<(u32, u32)>, HashMap<i64, u32>) {
        let mut map = HashMap::new();
        let insert = |row| Some((map.insert(key(row, seed), row)?, row));
        let replaced = (0..NUM_ROWS).filter_map(insert).collect();
        (replaced, map)
    }

    /// Numbers of keys at the edges of what is looked at together.
    const FEW: [usize; 14] = [
        0, 1, 63, 64, 65, 127, 128, 191, 192, 193, 255, 256, 257, 320,
    ];

    #[test]
    fn a_large_hash_index_equals_a_map() {
        for seed in 0..4 {
            let keys: Vec<i64> = (0..NUM_ROWS).map(|row| key(row, seed)).collect();
            // As many slots as a table may have at least: its parts run over all the time.
            let (expected, map) = model(seed);
            let mut index = HashIndex::new(map.len());
            let mut replaced = Vec::new();
            // Pieces that wait for others, that do not, and that take more than a round; now and then all is settled.
            let (mut row, mut rest) = (0, keys.as_slice());
            for len in [7, 3, 200, 9_000, 45_000, 60_000, 1, 120_000, 20_000]
                .into_iter()
                .cycle()
            {
                let (now, after) = rest.split_at(len.min(rest.len()));
                index.insert(now, row, |before, row| replaced.push((before, row)));
                row += u32::try_from(now.len()).unwrap();
                if len % 2 == 1 {
                    index.settle(|before, row| replaced.push((before, row)));
                }
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            index.settle(|before, row| replaced.push((before, row)));
            assert!(replaced == expected, "seed={seed}");
            let sought: Vec<i64> = keys.iter().flat_map(|&key| [key, key + 1]).collect();
            let mut rows = Vec::new();
            index.probe(&sought, &mut rows);
            for (key, row) in sought.iter().zip(&rows) {
                let expected = map.get(key).copied().unwrap_or(NO_MATCH);
                assert_eq!(*row, expected, "seed={seed} key={key}");
            }
            for len in FEW {
                let mut few = vec![7];
                index.probe(&sought[..len], &mut few);
                assert_eq!((few[0], &few[1..]), (7, &rows[..len]), "{len} keys");
            }
        }
    }

    /// Keys that are all in one word, in three, in seven, and some that are in more.
    #[test]
    fn a_large_bytes_index_equals_a_map() {
        let texts: [fn(i64) -> String; 4] = [
            |key| format!("{:x}", key / 1_000),
            |key| match key % 3 {
                0 => format!("{key}"),
                _ => format!("a key, number {key}"),
            },
            |key| match key % 3 {
                0 => format!("{key}"),
                _ => format!("a long key, its number is {key}"),
            },
            |key| match key % 3 {
                0 => format!("{key}"),
                1 => format!("a key, number {key}"),
                _ => format!("{key} is a number that is in a key of more than seven words, {key}"),
            },
        ];
        for (seed, text) in (0..).zip(texts) {
            let (expected, map) = model(seed);
            let keys: Vec<String> = (0..NUM_ROWS).map(|row| text(key(row, seed))).collect();
            let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
            let mut index = BytesIndex::new(map.len(), Lengths::of(&keys[..]));
            let mut replaced = Vec::new();
            let mut rest = keys.as_slice();
            for len in [7, 3, 200, 9_000, 45_000, 60_000, 1, 120_000, 20_000]
                .into_iter()
                .cycle()
            {
                let (now, after) = rest.split_at(len.min(rest.len()));
                index.insert(now, |before, row| replaced.push((before, row)));
                if len % 2 == 1 {
                    index.settle(|before, row| replaced.push((before, row)));
                }
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            index.settle(|before, row| replaced.push((before, row)));
            assert!(replaced == expected, "seed={seed}");
            let sought = (0..NUM_ROWS).flat_map(|row| [key(row, seed), key(row, seed) + 1_000]);
            let sought: Vec<i64> = sought.collect();
            let texts: Vec<String> = sought.iter().map(|&key| text(key)).collect();
            let texts: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
            let mut rows = Vec::new();
            index.probe(&texts[..], &mut rows);
            for (key, row) in sought.iter().zip(&rows) {
                let expected = map.get(key).copied().unwrap_or(NO_MATCH);
                assert_eq!(*row, expected, "seed={seed} key={key}");
            }
            for len in FEW {
                let mut few = vec![7];
                index.probe(&texts[..len], &mut few);
                assert_eq!((few[0], &few[1..]), (7, &rows[..len]), "{len} keys");
            }
        }
    }
}
