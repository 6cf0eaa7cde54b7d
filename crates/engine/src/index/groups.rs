//! Slots in groups that are lines of memory.

use std::hint::select_unpredictable;

use super::NO_MATCH;
use crate::huge::{self, Zero};
use crate::prefetch::LINE_BYTES;

/// `N` slots that fill a line of memory: what stands for each key, then the complements of the rows. So a group of free slots
/// is all zeros, memory as it comes from the system.
///
/// A free slot has row [`NO_MATCH`]; no free slot of a group stands before one that is taken.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Group<K, const N: usize> {
    keys: [K; N],
    rows: [u32; N],
}

/// A table of slots for open addressing with linear probing. A search begins at the first slot of its key's group.
#[derive(Debug)]
pub(super) struct Groups<K, const N: usize>(Box<[Group<K, N>]>);

impl<K: Zero, const N: usize> Groups<K, N> {
    /// Groups of free slots.
    pub(super) fn new(num_groups: usize) -> Self {
        const { assert!(size_of::<Group<K, N>>() == LINE_BYTES) };
        Self(huge::zeros(num_groups))
    }

    #[inline]
    pub(super) fn all(&self) -> &[Group<K, N>] {
        &self.0
    }

    #[inline]
    pub(super) fn all_mut(&mut self) -> &mut [Group<K, N>] {
        &mut self.0
    }

    pub(super) fn num_bytes(&self) -> usize {
        size_of_val(self.all())
    }
}

#[expect(unsafe_code, reason = "tables come from the system as zeros")]
// SAFETY: a group is keys, which may be zeros, and numbers.
unsafe impl<K: Zero, const N: usize> Zero for Group<K, N> {}

impl<K: Copy + PartialEq, const N: usize> Group<K, N> {
    /// The row of a key, or [`NO_MATCH`], and whether a search ends here. All slots are compared, without a branch.
    ///
    /// Where two slots have the key, the row is no larger than theirs, and need be neither of them.
    #[inline]
    pub(super) fn look(&self, key: K) -> (u32, bool) {
        // A free slot adds nothing, whatever the key.
        let of = |slot: usize| select_unpredictable(self.keys[slot] == key, self.rows[slot], 0);
        let found = (0..N).fold(0, |found, slot| found | of(slot));
        // Either ends the search: one number of both, and no branch.
        let is_over = u8::from(found != 0) | u8::from(self.row(N - 1) == NO_MATCH) != 0;
        (!found, is_over)
    }

    /// The first slot from a slot on that is free or has a key. All are compared, without a branch.
    #[inline]
    pub(super) fn slot_for(&self, key: K, from: usize) -> Option<usize> {
        let will_do = |slot: usize| {
            u8::from(slot >= from)
                & (u8::from(self.rows[slot] == 0) | u8::from(self.keys[slot] == key))
                != 0
        };
        let slots = (0..N).rev();
        let first = slots.fold(N, |first, slot| {
            select_unpredictable(will_do(slot), slot, first)
        });
        (first < N).then_some(first)
    }

    /// Gives a slot to a row, and returns the row before or [`NO_MATCH`].
    #[inline]
    pub(super) fn set(&mut self, slot: usize, key: K, row: u32) -> u32 {
        self.keys[slot] = key;
        !std::mem::replace(&mut self.rows[slot], !row)
    }
}

impl<K, const N: usize> Group<K, N> {
    /// The keys of slots that are taken, and their rows.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&K, u32)> {
        let rows = self.rows.iter().map(|row| !row);
        let entries = self.keys.iter().zip(rows);
        entries.take_while(|(_, row)| *row != NO_MATCH)
    }

    /// The row that has a slot, or [`NO_MATCH`].
    #[inline]
    pub(super) fn row(&self, slot: usize) -> u32 {
        !self.rows[slot]
    }

    /// What stands for the key of a slot that is taken.
    #[inline]
    pub(super) fn key(&self, slot: usize) -> &K {
        &self.keys[slot]
    }
}
