use std::hint::select_unpredictable;

use super::groups::{Group, Groups};
use super::parts::{self, Table};
use super::perfect::{FEW_KEYS, PerfectTable};
use super::{AHEAD_KEYS, NO_MATCH, next};
use crate::key::hash::{FACTORS, hash_int, hash_int_once, home_slot};
use crate::prefetch::{LINE_BYTES, prefetch};

/// Open addressing over `i64` keys, linear probing, little more than half full: 24 bytes a key.
///
/// Five keys and their row numbers are a group, which fills a line of memory but for four bytes, and a search begins at the
/// first slot of its key's group: so of a hundred keys that are there two or three take a second line. Of a hundred that are
/// not there it is 14, for so many groups are full. A free slot has row [`NO_MATCH`]; no free slot of a group stands before
/// one that is taken.
///
/// The group of a key is asked for while keys before it are looked for. Then the key is compared with all five slots,
/// without a branch. Searches that go on are ended later. Keys are inserted in large numbers, see [`parts`]. When few keys are
/// all there, a table takes the place of the groups, see [`PerfectTable`].
#[derive(Debug)]
pub(crate) struct HashIndex {
    /// Empty where there is a table in its place.
    groups: Groups<i64, GROUP_SLOTS>,
    few: Option<FewKeys>,
    /// Keys that are still to be inserted, when there are enough of them.
    waiting: Vec<i64>,
    first_waiting: u32,
}

/// Keys and rows, of 12 bytes together, that a line of memory holds.
const GROUP_SLOTS: usize = LINE_BYTES / (size_of::<i64>() + size_of::<u32>());

/// Bytes of an index, for each key.
const KEY_BYTES: usize = 24;

/// Keys after which the searches are ended that go on after their first groups.
const BATCH_KEYS: usize = 256;

/// As [`AHEAD_KEYS`], of the searches that go on.
const AHEAD_LATE: usize = 16;

/// The group where the search for a key begins.
#[inline]
fn group_of(key: i64, num_groups: usize) -> usize {
    home_slot(hash_int(key), num_groups)
}

/// Few keys, each in a slot of its own.
#[derive(Debug)]
struct FewKeys {
    factor: u64,
    table: PerfectTable<(i64, u32)>,
}

impl FewKeys {
    /// `None` if no factor will do.
    fn new(entries: &[(i64, u32)]) -> Option<Self> {
        FACTORS.into_iter().find_map(|factor| {
            let entries = entries.iter();
            let stored = entries.map(|&entry| (hash_int_once(entry.0, factor), entry));
            let table = PerfectTable::new(stored, (0, NO_MATCH))?;
            Some(Self { factor, table })
        })
    }

    /// The row of a key, or [`NO_MATCH`].
    #[inline]
    fn find(&self, key: i64) -> u32 {
        let (found, row) = self.table.get(hash_int_once(key, self.factor));
        // Whether it is there is as good as random.
        select_unpredictable(found == key, row, NO_MATCH)
    }
}

/// How keys are inserted.
struct Keys;

impl Table<GROUP_SLOTS> for Keys {
    type Key = i64;
    type Stored = i64;

    #[inline]
    fn home(key: i64, num_groups: usize) -> usize {
        group_of(key, num_groups)
    }

    #[inline]
    fn offer(&self, group: &mut Group<i64, GROUP_SLOTS>, key: i64, row: u32) -> Option<u32> {
        let slot = group.slot_for(key, 0)?;
        Some(group.set(slot, key, row))
    }
}

impl HashIndex {
    /// An index for up to `num_keys` inserts.
    pub(crate) fn new(num_keys: usize) -> Self {
        // One slot at least is free.
        let num_groups = (num_keys * KEY_BYTES / LINE_BYTES).max(num_keys / GROUP_SLOTS + 1);
        Self {
            groups: Groups::new(num_groups),
            few: None,
            waiting: Vec::new(),
            first_waiting: 0,
        }
    }

    /// Sets the rows of keys, which count up from `first_row`, after those of all calls before. `told` hears, now or
    /// when the index [settles](Self::settle), of each that was there already: the row before, and its own.
    pub(crate) fn insert(&mut self, keys: &[i64], first_row: u32, mut told: impl FnMut(u32, u32)) {
        if !parts::is_large(self.groups.all()) {
            for (&key, row) in keys.iter().zip(first_row..) {
                let before = parts::insert_one(&Keys, self.groups.all_mut(), key, row);
                if before != NO_MATCH {
                    told(before, row);
                }
            }
            return;
        }
        let round_keys = parts::round_keys(self.groups.all());
        for (keys, row) in keys
            .chunks(round_keys)
            .zip((first_row..).step_by(round_keys))
        {
            if self.waiting.is_empty() && keys.len() >= round_keys / 4 {
                parts::insert(&Keys, self.groups.all_mut(), keys, row, &mut told);
                continue;
            }
            if self.waiting.is_empty() {
                self.first_waiting = row;
            }
            self.waiting.extend_from_slice(keys);
            if self.waiting.len() >= round_keys {
                self.settle(&mut told);
            }
        }
    }

    /// Inserts what waits. Comes before a probe.
    pub(crate) fn settle(&mut self, told: impl FnMut(u32, u32)) {
        let keys = std::mem::take(&mut self.waiting);
        let first_row = self.first_waiting;
        parts::insert(&Keys, self.groups.all_mut(), &keys, first_row, told);
    }

    /// Makes it ready to be looked at for long, when it has settled for the last time: few keys get a slot each.
    pub(crate) fn finish(&mut self) {
        if self.few.is_some() || self.groups.num_bytes() > FEW_KEYS * KEY_BYTES {
            return;
        }
        let entries = self.groups.all().iter().flat_map(Group::entries);
        let entries = entries.map(|(key, row)| (*key, row));
        self.few = FewKeys::new(&entries.collect::<Vec<_>>());
        if self.few.is_some() {
            self.groups = Groups::new(0);
        }
    }

    /// The row of one key.
    #[inline]
    pub(crate) fn find(&self, key: i64) -> u32 {
        if let Some(few) = &self.few {
            return few.find(key);
        }
        self.find_from(group_of(key, self.groups.all().len()), key)
    }

    /// The row of a key whose search begins, or goes on, at a group.
    #[inline]
    fn find_from(&self, mut group: usize, key: i64) -> u32 {
        let groups = self.groups.all();
        loop {
            let (row, is_over) = groups[group].look(key);
            if is_over {
                return row;
            }
            group = next(group, groups.len());
        }
    }

    pub(crate) fn probe(&self, keys: &[i64], out: &mut Vec<u32>) {
        debug_assert!(self.waiting.is_empty(), "settled before it is probed");
        if let Some(few) = &self.few {
            out.extend(keys.iter().map(|&key| few.find(key)));
            return;
        }
        if keys.len() < AHEAD_KEYS {
            out.extend(keys.iter().map(|&key| self.find(key)));
            return;
        }
        let groups = self.groups.all();
        let ask = |key: &i64| {
            let group = group_of(*key, groups.len());
            prefetch(groups.get(group));
            group
        };
        // The groups of the next keys.
        let mut asked = [0; AHEAD_KEYS];
        for (asked, key) in asked.iter_mut().zip(keys) {
            *asked = ask(key);
        }
        let mut rows = [NO_MATCH; BATCH_KEYS];
        let mut late = [0; BATCH_KEYS];
        let mut ahead = keys.iter().skip(AHEAD_KEYS);
        for batch in keys.chunks(BATCH_KEYS) {
            let mut num_late = 0;
            for (at, (&key, found)) in batch.iter().zip(&mut rows).enumerate() {
                let asked = &mut asked[at % AHEAD_KEYS];
                let group = *asked;
                if let Some(key) = ahead.next() {
                    *asked = ask(key);
                }
                let (row, is_over) = groups[group].look(key);
                *found = row;
                // A value rather than a branch decides whether the search goes on.
                late[num_late % BATCH_KEYS] = at;
                num_late += usize::from(!is_over);
            }
            let rows = &mut rows[..batch.len()];
            let late = &late[..num_late];
            let second = |at: usize| next(group_of(batch[at], groups.len()), groups.len());
            let ask = |&at: &usize| prefetch(groups.get(second(at)));
            late.iter().take(AHEAD_LATE).for_each(ask);
            for (idx, &at) in late.iter().enumerate() {
                late.get(idx + AHEAD_LATE).into_iter().for_each(ask);
                rows[at] = self.find_from(second(at), batch[at]);
            }
            out.extend_from_slice(rows);
        }
    }

    pub(crate) fn num_bytes(&self) -> usize {
        self.groups.num_bytes() + self.few.as_ref().map_or(0, |few| few.table.num_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many groups searches for 100 keys read.
    fn groups_read(keys: impl Iterator<Item = i64> + Clone) -> usize {
        let mut index = HashIndex::new(keys.clone().count());
        let all: Vec<i64> = keys.clone().collect();
        index.insert(&all, 0, |_, _| panic!("keys are distinct"));
        let (mut num_groups, mut num_keys) = (0, 0);
        for key in keys {
            let groups = index.groups.all();
            let home = group_of(key, groups.len());
            let mut from_home = groups[home..].iter().chain(groups);
            num_groups += 1 + from_home
                .position(|group| group.look(key).0 != NO_MATCH)
                .unwrap();
            num_keys += 1;
        }
        (100 * num_groups).div_ceil(num_keys)
    }

    #[test]
    fn strided_keys_do_not_cluster() {
        for shift in 0..48 {
            for offset in [0, 1, -7, i64::MIN] {
                for odd in [1, 3, 1000, 86_400] {
                    let keys =
                        (0..1000_i64).map(|i| (i.wrapping_mul(odd) << shift).wrapping_add(offset));
                    let unique = keys.clone().collect::<std::collections::HashSet<_>>().len();
                    if unique == 1000 {
                        // Random keys: 102 to 106.
                        assert!(
                            groups_read(keys) <= 150,
                            "shift={shift} offset={offset} odd={odd}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn few_keys_have_a_slot_each() {
        for shift in 0..48 {
            for num_keys in [0, 1, 2, 5, 100, 3_000] {
                let key = |i: i64| (i << shift).wrapping_sub(7);
                let keys: Vec<i64> = (0..num_keys).map(key).collect();
                let mut distinct: Vec<i64> = keys.clone();
                distinct.dedup();
                distinct.retain(|key| *key != keys[0]);
                distinct.extend(keys.first());
                let mut index = HashIndex::new(distinct.len());
                index.insert(&distinct, 0, |_, _| panic!("keys are distinct"));
                let most = index.num_bytes() + 64;
                index.finish();
                assert!(index.few.is_some(), "{num_keys} keys, shifted by {shift}");
                assert!(index.num_bytes() <= most);
                // None is between two of them, and none is past the last.
                let others = (0..100).map(|i| key(i + num_keys).wrapping_add(1));
                let sought: Vec<i64> = distinct.iter().copied().chain(others).collect();
                let mut rows = Vec::new();
                index.probe(&sought, &mut rows);
                for (at, (row, key)) in (0..).zip(rows.iter().zip(&sought)) {
                    let is_there = distinct.get(at as usize) == Some(key);
                    assert_eq!(*row, if is_there { at } else { NO_MATCH });
                    assert_eq!(index.find(*key), *row);
                }
            }
        }
    }
}
