use super::NO_MATCH;
use crate::huge;
use crate::key::hash::{hash_int, home_slot};

/// Open addressing over `i64` keys, linear probing, at most half full.
///
/// The key stands in the slot beside its row number, so that a probe whose first slot decides costs
/// one cache miss. A free slot has row [`NO_MATCH`]; therefore a search that ends, at the key or at
/// a free slot, returns the slot's row.
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
                num_keys * 2 + 1,
            ),
        }
    }

    /// Sets the row of a key and returns the one before, or [`NO_MATCH`].
    pub(crate) fn insert(&mut self, key: i64, row: u32) -> u32 {
        let idx = search(&self.slots, key);
        let before = self.slots[idx].row;
        self.slots[idx] = Slot { key, row };
        before
    }

    pub(crate) fn probe(&self, keys: &[i64], out: &mut Vec<u32>) {
        let slots = self.slots.as_slice();
        out.extend(keys.iter().map(|&key| slots[search(slots, key)].row));
    }

    pub(crate) fn num_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }
}

/// The slot that holds the key, or the free slot where it would go. There is a free slot: the index
/// is half empty.
#[inline]
fn search(slots: &[Slot], key: i64) -> usize {
    let mut idx = home_slot(hash_int(key), slots.len());
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
        for (row, key) in (0..).zip(keys.clone()) {
            assert_eq!(index.insert(key, row), NO_MATCH);
        }
        let (mut num_slots, mut num_keys) = (0, 0);
        for key in keys {
            let home = home_slot(hash_int(key), index.slots.len());
            let found = search(&index.slots, key);
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
