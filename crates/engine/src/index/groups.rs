//! Slots in groups that are lines of memory.

use std::hint::select_unpredictable;

use super::{NO_MATCH, Slot, row_of};
use crate::huge;
use crate::prefetch::LINE_BYTES;

/// A table of slots for open addressing with linear probing. `N` slots are a group, which fills a line of memory, and a
/// search begins at the first slot of its key's group.
///
/// A free slot has row [`NO_MATCH`]; no free slot of a group stands before one that is taken.
#[derive(Debug)]
pub(super) struct Groups<K, const N: usize> {
    /// With some in front that are not used, so that groups are lines.
    slots: Vec<Slot<K>>,
    num_skipped: usize,
}

impl<K: Clone + Default, const N: usize> Groups<K, N> {
    /// Free slots, `num_slots` or a few more.
    pub(super) fn new(num_slots: usize) -> Self {
        const { assert!(N * size_of::<Slot<K>>() == LINE_BYTES) };
        let num_slots = num_slots.next_multiple_of(N);
        let mut slots = huge::zeros((K::default(), !NO_MATCH), num_slots + N - 1);
        // If it cannot be had, groups are parts of two lines, and nothing is wrong but time.
        let to_line = slots.as_ptr().align_offset(LINE_BYTES);
        let num_skipped = if to_line < N { to_line } else { 0 };
        slots.truncate(num_skipped + num_slots);
        Self { slots, num_skipped }
    }

    #[inline]
    pub(super) fn slots(&self) -> &[Slot<K>] {
        &self.slots[self.num_skipped..]
    }

    #[inline]
    pub(super) fn slots_mut(&mut self) -> &mut [Slot<K>] {
        &mut self.slots[self.num_skipped..]
    }

    #[inline]
    pub(super) fn all(&self) -> &[[Slot<K>; N]] {
        self.slots().as_chunks().0
    }

    pub(super) fn num_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot<K>>()
    }
}

/// The row of a key in a group, or [`NO_MATCH`], and whether a search ends there. All slots are compared, without a branch.
///
/// Where two slots have the key, the row is no larger than theirs, and need be neither of them.
#[inline]
pub(super) fn look<K: Copy + PartialEq, const N: usize>(
    group: &[Slot<K>; N],
    key: K,
) -> (u32, bool) {
    // A free slot is all zeros, and adds nothing, whatever the key.
    let of = |slot: &Slot<K>| select_unpredictable(slot.0 == key, slot.1, 0);
    let found = group.iter().fold(0, |found, slot| found | of(slot));
    // Either ends the search: one number of both, and no branch.
    let last = row_of(&group[N - 1]);
    let is_over = u8::from(found != 0) | u8::from(last == NO_MATCH) != 0;
    (!found, is_over)
}
