use super::groups::{Groups, look};
use super::parts::{self, Table};
use super::{AHEAD_KEYS, CACHED_BYTES, NO_MATCH, Slot, next, row_of};
use crate::key::hash::{hash_int, home_slot};
use crate::prefetch::{LINE_BYTES, prefetch};

/// Open addressing over `i64` keys, linear probing, at most two thirds full: 24 bytes a key.
///
/// The key stands in the slot beside its row number. Four slots are a group, which fills a line of memory, and a search
/// begins at the first slot of its key's group: so of a hundred keys that are there nine take a second line, where of
/// searches that begin at any slot a third do. Of a hundred that are not there it is 35, for so many groups are full. A
/// free slot has row [`NO_MATCH`]; no free slot of a group stands before one that is taken.
///
/// The group of a key is asked for while keys before it are looked for. Then the key is compared with all four slots,
/// without a branch. Searches that go on are ended later. Keys are inserted in large numbers, see [`parts`].
#[derive(Debug)]
pub(crate) struct HashIndex {
    groups: Groups<i64, GROUP_SLOTS>,
    /// Keys that are still to be inserted, when there are enough of them.
    waiting: Vec<i64>,
    first_waiting: u32,
}

/// Slots of 16 bytes that fill a line of memory.
const GROUP_SLOTS: usize = LINE_BYTES / size_of::<Slot<i64>>();

/// Keys after which the searches are ended that go on after their first groups.
const BATCH_KEYS: usize = 256;

/// As [`AHEAD_KEYS`], of the searches that go on.
const AHEAD_LATE: usize = 16;

/// A search that goes on.
#[derive(Clone, Copy, Default)]
struct Late {
    /// The key's place among all.
    at: usize,
    /// The group that it looks at next.
    group: usize,
}

/// The group where the search for a key begins.
#[inline]
fn group_of(key: i64, num_groups: usize) -> usize {
    home_slot(hash_int(key), num_groups)
}

/// How keys are inserted.
struct Keys;

impl Table for Keys {
    type Key = i64;
    type Stored = i64;

    #[inline]
    fn home(key: i64, num_slots: usize) -> usize {
        group_of(key, num_slots / GROUP_SLOTS) * GROUP_SLOTS
    }

    #[inline]
    fn offer(&self, slot: &mut Slot<i64>, key: i64, row: u32) -> (bool, u32) {
        let before = row_of(slot);
        let is_over = u8::from(before == NO_MATCH) | u8::from(slot.0 == key) != 0;
        // A value rather than a branch decides, see `parts`.
        *slot = if is_over { (key, !row) } else { *slot };
        (is_over, before)
    }
}

impl HashIndex {
    /// An index for up to `num_keys` inserts.
    pub(crate) fn new(num_keys: usize) -> Self {
        let num_slots = num_keys + (num_keys / 2).max(1);
        Self {
            groups: Groups::new(num_slots),
            waiting: Vec::new(),
            first_waiting: 0,
        }
    }

    /// Sets the rows of keys, which count up from `first_row`, after those of all calls before. `told` hears, now or
    /// when the index [settles](Self::settle), of each that was there already: the row before, and its own.
    pub(crate) fn insert(&mut self, keys: &[i64], first_row: u32, mut told: impl FnMut(u32, u32)) {
        if !parts::is_large(self.groups.slots()) {
            for (&key, row) in keys.iter().zip(first_row..) {
                let before = parts::insert_one(&Keys, self.groups.slots_mut(), key, row);
                if before != NO_MATCH {
                    told(before, row);
                }
            }
            return;
        }
        let round_keys = parts::round_keys(self.groups.slots());
        for (keys, row) in keys
            .chunks(round_keys)
            .zip((first_row..).step_by(round_keys))
        {
            if self.waiting.is_empty() && keys.len() >= round_keys / 4 {
                parts::insert(&Keys, self.groups.slots_mut(), keys, row, &mut told);
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
        parts::insert(&Keys, self.groups.slots_mut(), &keys, first_row, told);
    }

    /// The row of one key.
    #[inline]
    pub(crate) fn find(&self, key: i64) -> u32 {
        self.find_from(group_of(key, self.groups.all().len()), key)
    }

    /// The row of a key whose search begins, or goes on, at a group.
    #[inline]
    fn find_from(&self, mut group: usize, key: i64) -> u32 {
        let groups = self.groups.all();
        loop {
            let (row, is_over) = look(&groups[group], key);
            if is_over {
                return row;
            }
            group = next(group, groups.len());
        }
    }

    pub(crate) fn probe(&self, keys: &[i64], out: &mut Vec<u32>) {
        debug_assert!(self.waiting.is_empty(), "settled before it is probed");
        if keys.len() < AHEAD_KEYS {
            out.extend(keys.iter().map(|&key| self.find(key)));
            return;
        }
        if self.num_bytes() > CACHED_BYTES {
            self.probe_groups::<true>(keys, out);
        } else {
            self.probe_groups::<false>(keys, out);
        }
    }

    /// Looks for keys, and asks for their groups ahead where those are `FAR`.
    fn probe_groups<const FAR: bool>(&self, keys: &[i64], out: &mut Vec<u32>) {
        let groups = self.groups.all();
        let ask = |key: &i64| {
            let group = group_of(*key, groups.len());
            prefetch(groups.get(group));
            group
        };
        // The groups of the next keys.
        let mut asked = [0; AHEAD_KEYS];
        if FAR {
            for (asked, key) in asked.iter_mut().zip(keys) {
                *asked = ask(key);
            }
        }
        let mut late = [Late::default(); BATCH_KEYS];
        for start in (0..keys.len()).step_by(BATCH_KEYS) {
            let end = keys.len().min(start + BATCH_KEYS);
            let mut num_late = 0;
            let found = keys[start..end].iter().zip(start..).map(|(&key, at)| {
                let group = if FAR {
                    let group = asked[at % AHEAD_KEYS];
                    if let Some(key) = keys.get(at + AHEAD_KEYS) {
                        asked[at % AHEAD_KEYS] = ask(key);
                    }
                    group
                } else {
                    group_of(key, groups.len())
                };
                let (row, is_over) = look(&groups[group], key);
                // A value rather than a branch decides whether the search goes on.
                let group = next(group, groups.len());
                late[num_late % BATCH_KEYS] = Late { at, group };
                num_late += usize::from(!is_over);
                row
            });
            out.extend(found);
            let first = out.len() - (end - start);
            let late = &late[..num_late];
            let ask = |late: &Late| prefetch(groups.get(late.group));
            late.iter().take(AHEAD_LATE).for_each(ask);
            for (idx, &Late { at, group }) in late.iter().enumerate() {
                late.get(idx + AHEAD_LATE).into_iter().for_each(ask);
                out[first + at - start] = self.find_from(group, keys[at]);
            }
        }
    }

    pub(crate) fn num_bytes(&self) -> usize {
        self.groups.num_bytes()
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
            let slots = index.groups.slots();
            let home = Keys::home(key, slots.len());
            let mut from_home = slots[home..].iter().chain(slots);
            let place = from_home.position(|slot| *slot == (key, slot.1) && slot.1 != 0);
            num_groups += place.unwrap() / GROUP_SLOTS + 1;
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
                        // Random keys: 109 to 130, most often 115.
                        assert!(
                            groups_read(keys) <= 150,
                            "shift={shift} offset={offset} odd={odd}"
                        );
                    }
                }
            }
        }
    }
}
