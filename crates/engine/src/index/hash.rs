use super::parts::{self, Table};
use super::{BATCH_KEYS, NO_MATCH, Slot, row_of, search_all};
use crate::huge;
use crate::key::hash::{hash_int, home_slot};

/// Open addressing over `i64` keys, linear probing, at most two thirds full: 24 bytes a key.
///
/// The key stands in the slot beside its row number, so that a probe whose first slot decides costs
/// one cache miss. A free slot has row [`NO_MATCH`]; therefore a search that ends, at the key or at
/// a free slot, returns the slot's row.
///
/// Keys are looked for in batches: first the slots where their searches begin are brought into the
/// cache, many at a time, then the searches find them there. They are inserted in large numbers, see
/// [`parts`].
#[derive(Debug)]
pub(crate) struct HashIndex {
    slots: Vec<Slot<i64>>,
    /// Keys that are still to be inserted, when there are enough of them.
    waiting: Vec<i64>,
    first_waiting: u32,
}

/// How keys are inserted.
struct Keys;

impl Table for Keys {
    type Key = i64;
    type Stored = i64;

    #[inline]
    fn home(key: i64, num_slots: usize) -> usize {
        home_slot(hash_int(key), num_slots)
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
        Self {
            slots: huge::zeros((0, !NO_MATCH), num_keys + (num_keys / 2).max(1)),
            waiting: Vec::new(),
            first_waiting: 0,
        }
    }

    /// Sets the rows of keys, which count up from `first_row`, after those of all calls before. `told` hears, now or
    /// when the index [settles](Self::settle), of each that was there already: the row before, and its own.
    pub(crate) fn insert(&mut self, keys: &[i64], first_row: u32, mut told: impl FnMut(u32, u32)) {
        if !parts::is_large(&self.slots) {
            for (&key, row) in keys.iter().zip(first_row..) {
                let before = parts::insert_one(&Keys, &mut self.slots, key, row);
                if before != NO_MATCH {
                    told(before, row);
                }
            }
            return;
        }
        let round_keys = parts::round_keys(&self.slots);
        for (keys, row) in keys
            .chunks(round_keys)
            .zip((first_row..).step_by(round_keys))
        {
            if self.waiting.is_empty() && keys.len() >= round_keys / 4 {
                parts::insert(&Keys, &mut self.slots, keys, row, &mut told);
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
        parts::insert(&Keys, &mut self.slots, &keys, self.first_waiting, told);
    }

    /// The row of one key.
    #[inline]
    pub(crate) fn find(&self, key: i64) -> u32 {
        let (before_home, from_home) = self
            .slots
            .split_at(home_slot(hash_int(key), self.slots.len()));
        let mut slots = from_home.iter().chain(before_home);
        let found = slots.find(|slot| row_of(slot) == NO_MATCH || slot.0 == key);
        found.map_or(NO_MATCH, row_of)
    }

    pub(crate) fn probe(&self, keys: &[i64], out: &mut Vec<u32>) {
        debug_assert!(self.waiting.is_empty(), "settled before it is probed");
        let slots = self.slots.as_slice();
        let home = |&key: &i64| home_slot(hash_int(key), slots.len());
        for keys in keys.chunks(BATCH_KEYS) {
            search_all(slots, keys, home, |&key| key, out);
        }
    }

    pub(crate) fn num_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot<i64>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean number of slots read by a search for each key.
    fn mean_search(keys: impl Iterator<Item = i64> + Clone) -> usize {
        let mut index = HashIndex::new(keys.clone().count());
        let all: Vec<i64> = keys.clone().collect();
        index.insert(&all, 0, |_, _| panic!("keys are distinct"));
        let (mut num_slots, mut num_keys) = (0, 0);
        for key in keys {
            let home = home_slot(hash_int(key), index.slots.len());
            let mut from_home = index.slots[home..].iter().chain(&index.slots);
            num_slots += from_home.position(|slot| slot.0 == key).unwrap() + 1;
            num_keys += 1;
        }
        num_slots.div_ceil(num_keys)
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
                        assert!(
                            mean_search(keys) <= 3,
                            "shift={shift} offset={offset} odd={odd}"
                        );
                    }
                }
            }
        }
    }
}
