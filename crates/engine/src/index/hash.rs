use std::hint::black_box;

use super::{BATCH_KEYS, NO_MATCH};
use crate::huge;
use crate::key::hash::{hash_int, home_slot};

/// Open addressing over `i64` keys, linear probing, at most two thirds full: 24 bytes a key.
///
/// The key stands in the slot beside its row number, so that a probe whose first slot decides costs
/// one cache miss. A free slot has row [`NO_MATCH`]; therefore a search that ends, at the key or at
/// a free slot, returns the slot's row.
///
/// Keys are looked for in batches: first the slots where their searches begin are brought into the
/// cache, many at a time, then the searches find them there.
#[derive(Debug)]
pub(crate) struct HashIndex {
    slots: Vec<Slot>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    key: i64,
    row: u32,
}

impl HashIndex {
    /// An index for up to `num_keys` inserts.
    pub(crate) fn new(num_keys: usize) -> Self {
        Self {
            slots: huge::vec(
                Slot {
                    key: 0,
                    row: NO_MATCH,
                },
                num_keys + (num_keys / 2).max(1),
            ),
        }
    }

    /// Sets the rows of keys, which count up from `row`. `told` hears of each the row before, or
    /// [`NO_MATCH`], and its own.
    pub(crate) fn insert(&mut self, keys: &[i64], mut row: u32, mut told: impl FnMut(u32, u32)) {
        let mut homes = [0; BATCH_KEYS];
        for keys in keys.chunks(BATCH_KEYS) {
            begin(&self.slots, keys, &mut homes);
            for (&key, &home) in keys.iter().zip(&homes) {
                let idx = search(&self.slots, key, home);
                let before = self.slots[idx].row;
                self.slots[idx] = Slot { key, row };
                told(before, row);
                row = row.wrapping_add(1);
            }
        }
    }

    pub(crate) fn probe(&self, keys: &[i64], out: &mut Vec<u32>) {
        let slots = self.slots.as_slice();
        let mut homes = [0; BATCH_KEYS];
        for keys in keys.chunks(BATCH_KEYS) {
            begin(slots, keys, &mut homes);
            search_all(slots, keys, &mut homes, out);
        }
    }

    pub(crate) fn num_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }
}

/// The numbers of the keys of a batch.
const NUMBERS: [u8; BATCH_KEYS] = {
    let mut numbers = [0; BATCH_KEYS];
    let mut at = 0;
    while at < BATCH_KEYS {
        #[expect(clippy::cast_possible_truncation, reason = "a batch has 256 keys")]
        let number = at as u8;
        numbers[at] = number;
        at += 1;
    }
    numbers
};

/// Works out where the searches for some keys begin, and brings these slots into the cache.
fn begin(slots: &[Slot], keys: &[i64], homes: &mut [usize; BATCH_KEYS]) {
    for (home, &key) in homes.iter_mut().zip(keys) {
        *home = home_slot(hash_int(key), slots.len());
    }
    let found = homes.iter().take(keys.len());
    black_box(found.fold(0, |all, &home| all | slots[home].row));
}

/// Appends the rows of some keys, whose searches begin at `places`.
///
/// In each round every search that has not ended looks at one slot. Whether it ends there is as good as random, so that
/// a branch would be taken wrong every other time; here it only decides whether the key is in the next round.
fn search_all(slots: &[Slot], keys: &[i64], places: &mut [usize; BATCH_KEYS], out: &mut Vec<u32>) {
    let mut rows = [NO_MATCH; BATCH_KEYS];
    let mut searching = NUMBERS;
    let mut num_searching = keys.len();
    while num_searching > 0 {
        let mut num_next = 0;
        for place in 0..num_searching {
            let at = searching[place];
            let idx = usize::from(at);
            let slot = slots[places[idx]];
            rows[idx] = slot.row;
            let is_over = u8::from(slot.row == NO_MATCH) | u8::from(slot.key == keys[idx]);
            let next = places[idx] + 1;
            places[idx] = if next == slots.len() { 0 } else { next };
            searching[num_next] = at;
            num_next += usize::from(is_over ^ 1);
        }
        num_searching = num_next;
    }
    out.extend_from_slice(&rows[..keys.len()]);
}

/// The slot that holds the key, or the free slot where it would go, from its home slot on. There is a free slot: the
/// index is not full.
#[inline]
fn search(slots: &[Slot], key: i64, home: usize) -> usize {
    let mut idx = home;
    while slots[idx].row != NO_MATCH && slots[idx].key != key {
        idx += 1;
        if idx == slots.len() {
            idx = 0;
        }
    }
    idx
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean number of slots read by a search for each key.
    fn mean_search(keys: impl Iterator<Item = i64> + Clone) -> usize {
        let mut index = HashIndex::new(keys.clone().count());
        let all: Vec<i64> = keys.clone().collect();
        index.insert(&all, 0, |before, _| assert_eq!(before, NO_MATCH));
        let (mut num_slots, mut num_keys) = (0, 0);
        for key in keys {
            let home = home_slot(hash_int(key), index.slots.len());
            let found = search(&index.slots, key, home);
            num_slots += (found + index.slots.len() - home) % index.slots.len() + 1;
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
