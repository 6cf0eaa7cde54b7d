use std::cmp::Reverse;

/// A table in which each key has a slot of its own, so that a look at one slot tells whether it is there: for few keys, of
/// which all are known.
///
/// ```text
/// hash of a key                        upper bits: its bucket, which has a seed
/// lower half + upper half * seed       its slot
/// ```
///
/// Seeds are found by trying, one bucket after the other, until no key of a bucket has the slot of another. Those of many
/// keys come first, while most slots are free.
///
/// # Source
/// Belazzougui, Botelho and Dietzfelbinger 2009, "Hash, displace, and compress".
#[derive(Debug)]
pub(super) struct PerfectTable<S> {
    bucket_shift: u32,
    seeds: Vec<u16>,
    slots: Vec<S>,
}

/// Up to so many keys are few: with 16 bytes for a key and its row they fit a second cache of 256 KiB, and their seeds are
/// found in less than a millisecond.
pub(super) const FEW_KEYS: usize = 14 << 10;

/// Keys of a bucket, about.
const BUCKET_KEYS: usize = 4;

/// One slot in nine is free: the last buckets then have to try about nine seeds.
const KEYS_PER_FREE: usize = 8;

/// A key on its way to a slot.
#[derive(Clone, Copy)]
struct Entry<S> {
    hash: u64,
    stored: S,
}

impl<S: Copy + PartialEq> PerfectTable<S> {
    /// A table of what is stored for keys, given their hashes; in slots that are left stands `free`, which none of them is.
    /// `None` if no seed will do, as where two hashes are the same.
    pub(super) fn new(stored: impl Iterator<Item = (u64, S)>, free: S) -> Option<Self> {
        let entries = stored.map(|(hash, stored)| Entry { hash, stored });
        let mut entries: Vec<Entry<S>> = entries.collect();
        // Two at least: a shift by all bits of a number is none.
        let num_buckets = (entries.len() / BUCKET_KEYS).next_power_of_two().max(2);
        let num_slots = entries.len() + entries.len() / KEYS_PER_FREE + 1;
        let mut table = Self {
            bucket_shift: u64::BITS - num_buckets.trailing_zeros(),
            seeds: vec![0; num_buckets],
            slots: vec![free; num_slots],
        };
        entries.sort_unstable_by_key(|entry| table.bucket(entry.hash));
        let of_one = |a: &Entry<S>, b: &Entry<S>| table.bucket(a.hash) == table.bucket(b.hash);
        let mut buckets: Vec<&[Entry<S>]> = entries.chunk_by(of_one).collect();
        buckets.sort_by_key(|bucket| Reverse(bucket.len()));
        let are_placed = buckets.into_iter().all(|bucket| table.place(bucket, free));
        are_placed.then_some(table)
    }

    /// Finds a seed for the keys of a bucket, and puts them into their slots.
    fn place(&mut self, entries: &[Entry<S>], free: S) -> bool {
        let num_slots = self.slots.len();
        for seed in 0..=u16::MAX {
            let slot_of = |entry: &Entry<S>| slot(entry.hash, seed, num_slots);
            let mut num_placed = 0;
            for entry in entries {
                let slot = &mut self.slots[slot_of(entry)];
                if *slot != free {
                    break;
                }
                *slot = entry.stored;
                num_placed += 1;
            }
            if num_placed == entries.len() {
                let bucket = self.bucket(entries[0].hash);
                self.seeds[bucket] = seed;
                return true;
            }
            for entry in &entries[..num_placed] {
                self.slots[slot_of(entry)] = free;
            }
        }
        false
    }

    #[inline]
    fn bucket(&self, hash: u64) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "it is below the number of buckets, which is a power of two"
        )]
        let bucket = (hash >> self.bucket_shift) as usize & (self.seeds.len() - 1);
        bucket
    }

    /// What is stored for the only key that can have a hash, or what stands for none.
    #[inline]
    pub(super) fn get(&self, hash: u64) -> S {
        let seed = self.seeds[self.bucket(hash)];
        self.slots[slot(hash, seed, self.slots.len())]
    }

    pub(super) fn num_bytes(&self) -> usize {
        size_of_val(&self.slots[..]) + size_of_val(&self.seeds[..])
    }
}

#[inline]
fn slot(hash: u64, seed: u16, num_slots: usize) -> usize {
    // Keys of a bucket differ in both halves, so that each seed brings them to other places. Then the upper half of a
    // product, as for `home_slot`.
    let mixed = hash.wrapping_add((hash >> 32).wrapping_mul(seed.into()));
    let product = (mixed & u64::from(u32::MAX)) * num_slots as u64;
    (product >> u32::BITS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::hash::hash_int;

    #[test]
    fn each_key_has_a_slot_of_its_own() {
        for num_keys in [0, 1, 2, 3, 7, 64, 1_000, 9_999, FEW_KEYS] {
            for step in [1, 1 << 20, 1_000_003] {
                let keys = (0..num_keys).map(|at| i64::try_from(at * step).unwrap());
                let stored = keys.clone().map(|key| (hash_int(key), key));
                let table =
                    PerfectTable::new(stored, -1).unwrap_or_else(|| panic!("{num_keys} {step}"));
                for key in keys {
                    assert_eq!(table.get(hash_int(key)), key, "{num_keys} {step}");
                }
                let mut slots = table.slots.clone();
                slots.sort_unstable();
                slots.dedup();
                // Each key once, and what stands for none.
                assert_eq!(slots.len(), num_keys + 1, "{num_keys} {step}");
                assert!(table.num_bytes() <= num_keys * 10 + 40, "{num_keys}");
            }
        }
    }

    #[test]
    fn two_keys_of_one_hash_have_no_table() {
        let stored = [(7, 1), (9, 2), (7, 3)];
        assert!(PerfectTable::new(stored.into_iter(), 0).is_none());
    }
}
